//! Staffing: starting the workers that the work calls for, and trying again.
//!
//! Invariant: the pool counts a worker from before its thread is asked for. It starts threads
//! outside every lock.
//!
//! # Failures that are tried again
//!
//! | failure | known by | tried again by |
//! |---|---|---|
//! | a worker was not started | `starving` | the monitor; publishers and waiters; a raised bound |
//! | the monitor was not started | `unwatched` | publishers, waiters; the next block |
//! | there is no worker at all | no worker, `length > 0` | waiters and a shutdown run the work |
//! | a worker ended unasked | `LossFence` in `sleep.rs` | its thread, on its way out |
//!
//! If neither a worker nor the monitor can be started, the next publish or wait tries again.

#![forbid(unsafe_code)]

use crate::inside::in_cleanup;
use crate::observe::hooks::{SpawnFailure, call};
use crate::pool::queued::Queued;
use crate::pool::state::{Pool, Role};
use crate::pool::worker::Worker;
use crate::protocol::sleep::{Demand, WorkerId};
use sexton_sync::{Arc, Ordering};
use std::io;

impl Pool {
    pub(super) fn this(&self) -> Arc<Pool> {
        self.this.upgrade().expect("a publisher holds the pool")
    }

    /// Changes the most workers at a time.
    ///
    /// A surplus leaves as soon as it has no cleanup in hand; if work waits, workers are added at
    /// once. No effect on a manual pool, nor on an inherited one.
    pub fn set_max_workers(&self, max: usize) {
        if self.spawn.is_some() && !self.is_inherited() {
            self.queue.sleep().set_max(max);
            self.watch_what_others_could_take();
            self.notify_workers();
        }
    }

    /// Publishes blocks, and wakes or starts workers for them.
    pub(crate) fn publish(&self, blocks: impl IntoIterator<Item = Queued>) {
        let demand = self.queue.publish(blocks);
        self.published(demand);
    }

    /// Does the rest of a publish, in which the user's hooks may be called.
    pub(crate) fn published(&self, demand: Demand) {
        self.start_workers(demand);
        self.watch_again();
        if self.queue.len() > 0 {
            self.tell_ready();
            if self.is_paused() && self.is_deserted() {
                // No worker is demanded here that could fail to come. A thread that waits already
                // runs it.
                self.totals.wake_waiters();
            }
        }
    }

    /// Wakes or starts workers for what is in the list, and the monitor, in case the last attempt
    /// failed.
    pub(crate) fn notify_workers(&self) {
        let demand = self.queue.notify_workers();
        self.start_workers(demand);
        self.watch_again();
    }

    /// Counts a worker out that is gone without having been told to leave.
    pub(crate) fn lost(&self, id: WorkerId) {
        let demand = self.queue.lost(id);
        self.start_workers(demand);
    }

    /// Starts the workers demanded. Called with nothing locked.
    pub(super) fn start_workers(&self, demand: Demand) {
        if demand.0.is_empty() {
            return;
        }
        let Some(spawn) = &self.spawn else { unreachable!("a manual pool demands no workers") };
        let mut failed = false;
        for id in demand.0 {
            let worker = Worker::new(self.this(), id);
            let run = Box::new(move || worker.run());
            if let Err(error) = attempt(|| spawn.spawn(Role::Worker(id.index), run)) {
                failed = true;
                self.spawn_failed(Some(id.index), &error);
            }
        }
        if failed {
            self.starving.store(true, Ordering::Relaxed);
        }
        if self.is_starving() {
            if self.is_deserted() {
                // A thread that waits already may have counted on this start. (If there is a
                // worker, it counts on that one.)
                self.totals.wake_waiters();
            }
            if self.watch.call() {
                self.start_monitor();
            }
        }
    }

    /// Tells whether work waits, and no worker is there or on its way that could do it.
    pub(crate) fn is_deserted(&self) -> bool {
        self.queue.len() > 0 && self.queue.sleep().numbers().workers == 0
    }

    /// Notes a worker that ended before it began: the closure was dropped, or its thread did not
    /// live that long.
    pub(crate) fn never_began(&self) {
        self.starving.store(true, Ordering::Relaxed);
        // Not in the middle of the attempt to start it, which looks itself when it is over.
        if !in_cleanup() && self.is_starving() && self.watch.call() {
            self.start_monitor();
        }
    }

    pub(super) fn spawn_failed(&self, worker: Option<usize>, error: &io::Error) {
        self.queue.sleep().spawn_failed();
        let waiting_blocks = self.queue.len();
        self.totals.hooks.spawn_failed(&SpawnFailure { error, worker, waiting_blocks });
    }

    /// Tells the ready hook that there is work, unless it knows.
    pub(super) fn tell_ready(&self) {
        if let Some(ready) = &self.totals.hooks.ready
            && !self.told.swap(true, Ordering::Relaxed)
        {
            call(|| ready());
        }
    }

    /// Tells whether work waits, and the bound allows no worker; but it is no manual pool.
    pub(crate) fn is_paused(&self) -> bool {
        !self.is_manual() && self.max_workers() == 0 && self.queue.len() > 0
    }

    /// Tells whether work waits for a worker that could not be started.
    pub(crate) fn is_starving(&self) -> bool {
        self.starving.load(Ordering::Relaxed) && self.max_workers() > 0 && self.queue.len() > 0
    }

    /// Tries again to start workers.
    pub(crate) fn retry(&self) {
        self.starving.store(false, Ordering::Relaxed);
        self.notify_workers();
    }
}

/// Calls [`Spawn::spawn`](crate::Spawn::spawn), whose panic is a failure like any other.
pub(super) fn attempt(spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut result = Err(io::Error::other("the attempt to start a thread panicked"));
    call(|| result = spawn());
    result
}
