//! Running cleanups on a thread that is no worker.
//!
//! Invariant: cleanups do not nest, so nothing runs here from inside one.

#![forbid(unsafe_code)]

use crate::inside::in_cleanup;
use crate::pool::run::run;
use crate::pool::state::Pool;
use sexton_sync::{Ordering, fence};
use std::time::Instant;

/// Cleanups that a helping thread runs between two looks at whether it is still needed.
const STINT: usize = 16;

impl Pool {
    /// Runs at most `max` cleanups on this thread, and gives how many it ran.
    ///
    /// Any thread may call it at any time, whether the pool is manual or has workers. The rest of a
    /// block goes back to the full list. If the list is empty, this requeues the tail of each block
    /// that another thread has had in hand for `stall_after`. So when it gives less than `max`, all
    /// cleanups that wait are behind one in a block that was begun later. From inside a cleanup it
    /// does nothing: cleanups do not nest. Nor does it in an inherited pool, whose work is its own
    /// process's.
    pub fn run_pending(&self, max: usize) -> usize {
        if self.is_inherited() { 0 } else { self.run_here(max) }
    }

    /// Runs as [`run_pending`](Self::run_pending) does, in a pool that is known not to be
    /// inherited.
    pub(crate) fn run_here(&self, max: usize) -> usize {
        if in_cleanup() {
            return 0;
        }
        if self.totals.hooks.ready.is_some() {
            self.told.store(false, Ordering::Relaxed);
            // ReadyFence: pairs with PublishFence. Either we see the addition to `length`, or the
            // publisher sees that the hook has to be told again.
            fence(Ordering::SeqCst);
        }
        let in_flight = self.runners.guest();
        let mut ran = 0;
        while ran < max {
            let Some(block) = in_flight.begin_next(|| self.queue.try_next()) else {
                self.take_what_waits();
                if self.queue.len() > 0 {
                    continue;
                }
                break;
            };
            ran += run(self, block, &in_flight, max - ran);
        }
        if self.queue.len() > 0 {
            self.tell_ready();
        }
        ran
    }

    /// Helps in a pool that has no workers because none could be started, or none is allowed: runs
    /// what is queued here, until `enough`. A manual pool's owner has chosen the threads that run
    /// cleanups, so nothing runs here.
    pub(crate) fn help_if_no_workers(&self, enough: impl Fn() -> bool) {
        if !self.is_manual() {
            self.help_without_workers(enough);
        }
    }

    /// Helps likewise, in a manual pool, too. Not called in an inherited pool.
    pub(crate) fn help_without_workers(&self, enough: impl Fn() -> bool) {
        while self.queue.sleep().numbers().workers == 0 && !enough() && self.run_here(STINT) > 0 {}
    }
}

/// Tells whether there is a deadline, and it has passed.
pub(crate) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}
