//! A worker: the loop that one of the pool's threads runs.
//!
//! Invariant: the pool counts exactly the workers that exist. A worker that ends other than by
//! being told to leave, unrun, unwound or never started, corrects the count by being dropped.
//!
//! It does not know its thread; the pool's [`Spawn`](crate::Spawn) made that.

#![forbid(unsafe_code)]

use crate::account::counters::Runner;
use crate::pool::in_flight::InFlight;
use crate::pool::run;
use crate::pool::state::Pool;
use crate::protocol::sleep::{Parking, WorkerId};
use sexton_sync::Arc;

/// A worker, to be [run](Self::run) on a thread of its own. See [`Spawn`](crate::Spawn).
#[derive(Debug)]
pub(crate) struct Worker {
    pool: Arc<Pool>,
    id: WorkerId,
    /// Once it runs.
    in_flight: Option<Arc<InFlight>>,
    /// It has been told to leave, and is no longer counted.
    left: bool,
}

impl Worker {
    pub(crate) fn new(pool: Arc<Pool>, id: WorkerId) -> Self {
        Worker { pool, id, in_flight: None, left: false }
    }

    /// Runs cleanups as they are published, and sleeps in between, until it is no longer needed.
    /// Then the pool shuts down and its full list is empty, or the worker was idle for long, or the
    /// bound was lowered. Cleanups that panic do not end it.
    pub(crate) fn run(mut self) {
        let queue = self.pool.queue();
        queue.started(self.id);
        let parking = Parking::new(self.id);
        let in_flight =
            self.in_flight.insert(self.pool.runners().add(Runner::Worker(parking.index)));
        let claim = || in_flight.begin_next(|| queue.try_next());
        while let Some(block) = queue.next_by(&parking, claim) {
            run::run(&self.pool, block, in_flight, usize::MAX);
        }
        self.left = true;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            self.pool.runners().remove(in_flight);
        }
        if !self.left {
            self.pool.lost(self.id);
        }
        if self.in_flight.is_none() {
            self.pool.never_began();
        }
        self.pool.a_worker_left();
    }
}
