//! A worker: the loop that one of the pool's threads runs.
//!
//! Invariant: the pool counts exactly the workers that exist. A worker that ends other than by being told to
//! leave, unrun, unwound or never started, corrects the count by being dropped.
//!
//! It does not know its thread; the pool's [`Spawn`](crate::Spawn) made that.

#![forbid(unsafe_code)]

use crate::pool::Pool;
use crate::run;
use crate::sleep::Opening;
use crate::sync::Arc;
use crate::tally::Runner;

/// A worker, to be [run](Self::run) on a thread of its own.
///
/// The pool counts it from before [`Spawn::spawn`](crate::Spawn::spawn) is called. Dropping it instead of
/// running it corrects the count; if it was dropped by a thread that had started, and work is waiting, the
/// pool asks for a replacement at once.
#[derive(Debug)]
pub struct Worker {
    pool: Arc<Pool>,
    opening: Opening,
    /// It has been told to leave, and is no longer counted.
    left: bool,
}

impl Worker {
    pub(crate) fn new(pool: Arc<Pool>, opening: Opening) -> Self {
        Worker { pool, opening, left: false }
    }

    /// Its number among its pool's workers: below `max_workers`, and no two workers' at a time.
    pub fn index(&self) -> usize {
        self.opening.index
    }

    /// Runs cleanups as they are published, and sleeps in between, until the pool shuts down and its full
    /// list is empty. Cleanups that panic do not end it.
    pub fn run(mut self) {
        let index = self.opening.index;
        self.pool.queue().started(self.opening);
        while let Some(block) = self.pool.queue().next(index) {
            run::run(&self.pool, block, Runner::Worker(index), usize::MAX);
        }
        self.left = true;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.left {
            self.pool.lost(self.opening);
        }
        self.pool.a_worker_left();
    }
}
