//! The end of a pool.
//!
//! 1. [`Pool::begin_shutdown`]: workers leave instead of going to sleep; they drain the full list
//!    first.
//! 2. [`Pool::wait_until_workers_left`], with a deadline; then join the threads that have left.
//! 3. [`Pool::discard_pending`]: the remaining cleanups are dropped instead of run, those behind a
//!    cleanup that still runs included. From now on workers that come back from a cleanup drop them
//!    too, and so do heaps that still collect. Tickets finish.
//!
//! Inside a cleanup there is no waiting: [`Pool::discard_after_the_last`] takes the place of steps
//! 2 and 3.
//!
//! None of this does anything in an inherited pool: the cleanups queued at the `fork` belong to the
//! parent.
//!
//! Invariant: once the pool is closed, nothing stays queued. A publisher that sees it closed
//! discards, and the thread that closes it finds the blocks published before. A cleanup that does
//! not run for that is counted when it is taken; `PROTOCOL.md` says how.

use crate::pool::help::is_over;
use crate::pool::run::run;
use crate::pool::state::Pool;
use sexton_sync::{Ordering, fence, yield_now};
use std::time::{Duration, Instant};

impl Pool {
    /// Begins a shutdown: from now on workers leave when the full list is empty.
    ///
    /// None is added, except in place of one that died. Idle workers are woken to find out. Does
    /// not wait.
    pub fn begin_shutdown(&self) {
        if self.is_inherited() {
            return;
        }
        // A last chance for work whose worker could not be started.
        self.notify_workers();
        self.queue.sleep().shutdown();
        self.a_worker_left();
    }

    /// Waits until no worker is left.
    ///
    /// Whether that is so when it returns, and they have left nothing behind.
    ///
    /// If none can be started, or the bound is 0, this runs the queued cleanups here, as a
    /// [`Ticket`](crate::Ticket) does. It does not in a manual pool. Called by a worker of this
    /// pool, from inside a cleanup, it would wait for itself until the timeout; see
    /// [`in_cleanup`](crate::in_cleanup). A timeout too long for the clock means for ever.
    pub fn wait_until_workers_left(&self, timeout: Duration) -> bool {
        if self.is_inherited() {
            return true;
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if !self.queue.sleep().wait_until_left(deadline) {
                return false;
            }
            // Before the last look: a start that has failed once may fail again.
            if self.is_starving() || self.is_paused() {
                self.help_if_no_workers(|| is_over(deadline));
                if is_over(deadline) {
                    return self.queue.len() == 0;
                }
            }
            if self.last_look() && !self.is_starving() && !self.is_paused() {
                return true;
            }
            if is_over(deadline) {
                return false;
            }
        }
    }

    /// Looks once more when no worker is left: whether the list is empty, or no worker can be had
    /// that would empty it.
    ///
    /// A publisher may be between P1 and P2 while the workers leave. Its block is in the list and
    /// not claimable. But one of them may have claimed the unit of a block published before, and
    /// taken this one. And a tail that is being requeued may be between T2 and T3, its first runner
    /// gone.
    fn last_look(&self) -> bool {
        // Acquire: pairs with the Release of `Transit`; a block that is not in transit any more is
        // in the list. A runner that has left a tail to its copy has locked its in-flight record
        // after the addition. And we have the lock under which it vacated its slot.
        while self.in_transit.load(Ordering::Acquire) > 0 || !self.queue.is_drained() {
            if self.is_manual() || self.is_closed() {
                return true;
            }
            if self.queue.len() > 0 {
                if self.max_workers() == 0 {
                    return true;
                }
                let before = self.queue.sleep().numbers();
                let demand = self.queue.replace();
                self.start_workers(demand);
                let now = self.queue.sleep().numbers();
                if now.workers > 0 {
                    return false;
                }
                if now.begun == before.begun {
                    return true;
                }
                // One came and went. It may have taken another block than the one it was demanded
                // for: look again.
                continue;
            }
            // Until that publisher has done P2, two instructions, or the tail is published.
            yield_now();
        }
        true
    }

    /// Drops the captures of all that is queued and not begun, and of all that is queued later.
    ///
    /// Gives how many cleanups do not run because of that, whichever thread drops their captures.
    /// Of those that are queued later it may have counted some.
    ///
    /// For the end of a shutdown. Cleanups behind one that still runs are included: that one may
    /// never return. Waits for no cleanup; runs destructors of captures.
    pub fn discard_pending(&self) -> usize {
        if self.is_inherited() {
            return 0;
        }
        let before = self.refused.load(Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
        self.watch.stop();
        // CloseFence: pairs with PublishFence. Either the publisher sees `closed` and discards what
        // it has published, or we see what it has added to `length`. And with TransitFence.
        fence(Ordering::SeqCst);
        // From now on blocks go from the list to runners only. So we find all of them.
        while self.in_transit.load(Ordering::Acquire) > 0 {
            // Until the block is in the list, some instructions.
            yield_now();
        }
        self.drain();
        for in_flight in self.runners.all() {
            if let Some(tail) = in_flight.take_tail(|| self.block(), None) {
                let in_flight = self.runners.guest();
                in_flight.begin(&tail);
                run(self, tail, &in_flight, usize::MAX);
            }
        }
        (self.refused.load(Ordering::Relaxed) - before) as usize
    }

    /// Counts a cleanup that its runner drops because the pool is closed. Its in-flight
    /// record is locked.
    pub(crate) fn refuses_one(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Marks a block as in transit, to be held while it is in no runner's hands and not in the full
    /// list yet. `None` if the pool is closed: then nothing goes back to the list.
    pub(crate) fn transit(&self) -> Option<Transit<'_>> {
        // Relaxed: ordered by the fence.
        self.in_transit.fetch_add(1, Ordering::Relaxed);
        let transit = Transit { pool: self };
        // TransitFence: pairs with CloseFence. Either we see `closed`, or the thread that closes
        // sees us in transit.
        fence(Ordering::SeqCst);
        (!self.is_closed()).then_some(transit)
    }

    /// Has [`discard_pending`](Self::discard_pending) called as soon as no worker is left.
    ///
    /// Now, or by the last one on its way out. For a shutdown that cannot wait, because it is
    /// called from inside a cleanup.
    pub fn discard_after_the_last(&self) {
        if self.is_inherited() {
            return;
        }
        // Relaxed: slots are vacated, and counted below, under the lock of `Sleep`. Either we count
        // no worker, or the last one vacates later and finds this set.
        self.discard_at_end.store(true, Ordering::Relaxed);
        self.a_worker_left();
    }

    /// Acts on a worker's slot that has been vacated, or may have been.
    pub(crate) fn a_worker_left(&self) {
        if self.is_deserted() {
            self.totals.wake_waiters();
        }
        if self.queue.sleep().has_ended() {
            self.watch.stop();
        }
        if self.discard_at_end.load(Ordering::Relaxed)
            && self.queue.sleep().numbers().workers == 0
            && self.last_look()
        {
            self.discard_pending();
        }
    }

    fn drain(&self) {
        let in_flight = self.runners.guest();
        while let Some(block) = in_flight.begin_next(|| self.queue.try_next()) {
            run(self, block, &in_flight, usize::MAX);
        }
    }

    /// Discards what has been published, if the pool is closed. Called some time after each
    /// publish, by a thread that can run destructors then. Namely at the end of a sweeper and of a
    /// cycle, and after a rest has gone back to the list.
    pub(crate) fn discard_if_closed(&self) {
        // Relaxed: after the PublishFence of the publish.
        if self.is_closed() {
            self.drain();
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Runs, and so discards, in a manual pool the blocks whose batch is to be discarded, and puts
    /// the others back.
    pub(crate) fn help_to_discard(&self) {
        if !self.is_manual() || self.is_inherited() {
            return;
        }
        let in_flight = self.runners.guest();
        for _ in 0..self.queue.len() {
            let Some(transit) = self.transit() else { break };
            let Some(block) = self.queue.try_next() else { break };
            if block.batch.is_discarded() {
                in_flight.begin(&block);
                drop(transit);
                run(self, block, &in_flight, usize::MAX);
            } else {
                let demand = self.queue.publish([block]);
                drop(transit);
                self.published(demand);
            }
        }
        self.discard_if_closed();
    }
}

/// A block in transit, until dropped. See [`Pool::transit`].
pub(crate) struct Transit<'a> {
    pool: &'a Pool,
}

impl Drop for Transit<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `last_look` and `discard_pending`. A block that is not
        // in transit any more is in the list.
        self.pool.in_transit.fetch_sub(1, Ordering::Release);
    }
}
