//! The end of a pool.
//!
//! 1. [`Pool::begin_shutdown`]: workers leave instead of going to sleep; they drain the full list first.
//! 2. [`Pool::wait_until_workers_left`], with a deadline; then join the threads that have left.
//! 3. [`Pool::discard_pending`]: what is left is dropped instead of run, what is behind a cleanup that still runs
//!    included; from now on also by workers that come back from one, and by heaps that still collect. Tickets finish.
//!
//! Inside a cleanup there is no waiting: [`Pool::discard_after_the_last`] takes the place of steps 2 and 3.
//!
//! None of this does anything in an inherited pool: what was queued at the `fork` is its own process's.
//!
//! Invariant: once the pool is closed, nothing stays queued: who publishes and sees it closed discards, and who closes
//! it finds what was published before.

use super::{Pool, is_over};
use crate::run::run;
use crate::sync::{Ordering, fence, yield_now};
use std::time::{Duration, Instant};

impl Pool {
    /// From now on workers leave when the full list is empty, and none is added, except in place of one that
    /// died. Idle workers are woken to find out. Does not wait.
    pub fn begin_shutdown(&self) {
        if self.is_inherited() {
            return;
        }
        // A last chance for work whose worker could not be started.
        self.look();
        self.queue.crew().shutdown();
        self.a_worker_left();
    }

    /// Waits until no worker is left. Whether that is so when it returns, and they have left nothing behind.
    ///
    /// If there can be none for what is queued, because none can be started or the bound is 0, this runs it here, as a
    /// [`Ticket`](crate::Ticket) does; not so in a manual pool. Called by a worker of this pool, from inside a cleanup,
    /// it would wait for itself until the timeout; see [`in_cleanup`](crate::in_cleanup). A timeout too long for the
    /// clock means for ever.
    pub fn wait_until_workers_left(&self, timeout: Duration) -> bool {
        if self.is_inherited() {
            return true;
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if !self.queue.crew().wait_until_left(deadline) {
                return false;
            }
            // Before the last look: what has failed to start once may fail again.
            if self.is_starving() || self.is_paused() {
                self.help_for_want_of_workers(|| is_over(deadline));
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

    /// When no worker is left: whether the list is empty, or nobody can be had who would empty it.
    ///
    /// A publisher may be between P1 and P2 while the workers leave. Its block is in the list and not claimable;
    /// but one of them may have claimed the unit of a block published before, and taken this one. And a tail that was taken
    /// over may be between T2 and T3, its first runner gone.
    fn last_look(&self) -> bool {
        // Acquire: pairs with the Release in `take_over`; what is not in transit any more is in the list. Who has left a tail to
        // its copy has seen the desk after the addition, and we have the lock under which it vacated its post.
        while self.in_transit.load(Ordering::Acquire) > 0 || !self.queue.is_drained() {
            if self.is_manual() || self.is_closed() {
                return true;
            }
            if self.queue.len() > 0 {
                if self.max_workers() == 0 {
                    return true;
                }
                let before = self.queue.crew().numbers();
                let demand = self.queue.replace();
                self.fulfil(demand);
                let now = self.queue.crew().numbers();
                if now.workers > 0 {
                    return false;
                }
                if now.begun == before.begun {
                    return true;
                }
                // One came and went. It may have taken another block than the one it was demanded for: look again.
                continue;
            }
            // Until that publisher has done P2, two instructions, or the tail is published.
            yield_now();
        }
        true
    }

    /// Drops the captures of everything that is queued and not begun, and of whatever is queued later. Gives how many
    /// cleanups this call discarded.
    ///
    /// For the end of a shutdown. What is behind a cleanup that still runs is included: that one may never return.
    pub fn discard_pending(&self) -> usize {
        if self.is_inherited() {
            return 0;
        }
        self.closed.store(true, Ordering::Relaxed);
        self.watch.stop();
        // CloseFence: pairs with PublishFence. Either the publisher sees `closed` and discards what it has
        // published, or we see what it has added to `length`.
        fence(Ordering::SeqCst);
        let mut discarded = self.drain();
        // A runner that has claimed a block and not yet put it on its desk locks that after us, and so sees `closed`.
        for desk in self.desks.all() {
            if let Some(tail) = desk.take_tail(self, None) {
                discarded += run(self, tail, &self.desks.guest(), usize::MAX);
            }
        }
        discarded
    }

    /// Has [`discard_pending`](Self::discard_pending) called as soon as no worker is left: now, or by the last one
    /// on its way out. For a shutdown that cannot wait, because it is called from inside a cleanup.
    pub fn discard_after_the_last(&self) {
        if self.is_inherited() {
            return;
        }
        // Relaxed: whoever vacates a post, or counts them below, does so under the crew's lock. Either we
        // count no worker, or the last one vacates later and finds this set.
        self.discard_at_end.store(true, Ordering::Relaxed);
        self.a_worker_left();
    }

    /// A worker's post has been vacated, or may have been.
    pub(crate) fn a_worker_left(&self) {
        if self.is_deserted() {
            self.totals.nudge();
        }
        if self.queue.crew().has_ended() {
            self.watch.stop();
        }
        if self.discard_at_end.load(Ordering::Relaxed)
            && self.queue.crew().numbers().workers == 0
            && self.last_look()
        {
            self.discard_pending();
        }
    }

    fn drain(&self) -> usize {
        let mut discarded = 0;
        while let Some(block) = self.queue.try_next() {
            discarded += run(self, block, &self.desks.guest(), usize::MAX);
        }
        discarded
    }

    /// Discards what has been published, if the pool is closed. Called some time after each publish, by who can run
    /// destructors then: at the end of a sweeper and of a cycle, and after a rest has gone back to the list.
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

    /// In a manual pool: runs (and so discards) the blocks whose batch is to be discarded, and puts the
    /// others back.
    pub(crate) fn help_to_discard(&self) {
        if !self.is_manual() || self.is_inherited() {
            return;
        }
        for _ in 0..self.queue.len() {
            let Some(block) = self.queue.try_next() else { break };
            if block.batch.is_discarded() {
                run(self, block, &self.desks.guest(), usize::MAX);
            } else {
                self.publish([block]);
            }
        }
        self.discard_if_closed();
    }
}
