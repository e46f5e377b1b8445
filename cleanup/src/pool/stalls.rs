//! Cleanups that run for long: which blocks are watched, and the actions that follow from a look.
//!
//! Invariant: a block in hand whose tail others could run is watched. The monitor watches it, or,
//! while that cannot be started, the threads that try again. Whether others could is asked with the
//! in-flight record locked. The runner asks when it begins the block, and a raise of the bound asks
//! for all runners. So one of the two sees the other's change.
//!
//! `monitor.rs` decides when the monitor looks, and `in_flight.rs` holds the data.

use crate::account::counters::Runner;
use crate::observe::hooks::{SlowCleanup, call};
use crate::pool::in_flight::{InFlight, Snapshot};
use crate::pool::monitor::{Monitor, tick};
use crate::pool::staffing::attempt;
use crate::pool::state::{Pool, Role};
use sexton_sync::{Arc, Ordering};
use std::io;
use std::time::{Duration, Instant};

impl Pool {
    /// Has a block watched that has been begun: the second half of B1, and B2.
    pub(crate) fn watch_if_worth_it(&self, in_flight: &InFlight) {
        if in_flight.is_to_be_watched(|tail| self.is_worth_watching(tail, in_flight.runner())) {
            if self.watch.begins() {
                self.start_monitor();
            }
        } else {
            self.watch_again();
        }
    }

    /// Tells whether the monitor is to watch a block: others could run its tail, or the hook wants
    /// to know.
    fn is_worth_watching(&self, tail: bool, runner: Runner) -> bool {
        let others = if runner == Runner::Guest { 1 } else { 2 };
        self.spawn.is_some()
            && (tail && self.max_workers() >= others || self.totals.hooks.slow.is_some())
    }

    /// Has blocks watched after a change of the bound: there may be others now for blocks that were
    /// begun when there were none.
    pub(super) fn watch_what_others_could_take(&self) {
        let mut any = false;
        for in_flight in self.runners.all() {
            any |=
                in_flight.is_to_be_watched(|tail| self.is_worth_watching(tail, in_flight.runner()));
        }
        if any && self.watch.begins() {
            self.start_monitor();
        }
    }

    /// Starts the monitor if that has failed and one is wanted.
    pub(crate) fn watch_again(&self) {
        // Twice, because it is asked often and seldom true.
        if self.unwatched.load(Ordering::Relaxed)
            && self.unwatched.swap(false, Ordering::Relaxed)
            && (self.is_watched() || self.is_starving())
            && self.watch.begins()
        {
            self.start_monitor();
        }
    }

    #[cold]
    pub(super) fn start_monitor(&self) {
        let Some(spawn) = &self.spawn else { return };
        let monitor = Monitor::new(self.this());
        match attempt(|| spawn.spawn(Role::Monitor, Box::new(move || monitor.run()))) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                self.unwatched.store(true, Ordering::Relaxed);
                self.spawn_failed(None, &error);
            }
            _ => {}
        }
    }

    /// Looks at all runners, for the monitor: requeues the tails of stalled blocks, and reports
    /// slow cleanups. Whether there is a block in hand that is to be watched.
    pub(crate) fn inspect(&self, now: Instant) -> bool {
        let runners = self.runners.all();
        let in_hand = snapshots(&runners, now);
        // All tails before the first call of the hook, which may take its time.
        for (in_flight, snapshot) in &in_hand {
            if snapshot.age >= self.stall_after {
                self.requeue_tail(in_flight, Some(snapshot.at));
            }
        }
        self.tell_slow(&in_hand);
        let to_take = self.stall_after < Duration::MAX;
        let to_tell = self.totals.hooks.slow.is_some();
        in_hand
            .iter()
            .fold(false, |any, (in_flight, _)| in_flight.stays_watched(to_take, to_tell) || any)
    }

    /// Looks likewise, for a thread that has nothing else to run. Cleanups that wait behind one for
    /// long are to be run at the first look, which does not know how long that one has run. So the
    /// time that counts is the one since the block was begun.
    pub(crate) fn take_what_waits(&self) {
        let runners = self.runners.all();
        let in_hand = snapshots(&runners, Instant::now());
        for (in_flight, snapshot) in &in_hand {
            if snapshot.block_age >= self.stall_after {
                self.requeue_tail(in_flight, None);
            }
        }
        self.tell_slow(&in_hand);
    }

    /// Reports the cleanups that have been slow and not been reported.
    fn tell_slow(&self, in_hand: &[(&Arc<InFlight>, Snapshot)]) {
        let Some((after, slow)) = &self.totals.hooks.slow else { return };
        for (in_flight, snapshot) in in_hand {
            let Some(cleanup) = snapshot.running else { continue };
            if snapshot.age < *after || !in_flight.is_news(snapshot.at) {
                continue;
            }
            self.slow.fetch_add(1, Ordering::Relaxed);
            let worker = match in_flight.runner() {
                Runner::Worker(index) => Some(index),
                Runner::Guest => None,
            };
            call(|| slow(&SlowCleanup { cleanup, age: snapshot.age, worker }));
        }
    }

    /// Publishes the tail of a runner's block, if there is one and it was not taken before. With
    /// `at`, only if the cursor is there.
    pub(crate) fn requeue_tail(&self, in_flight: &InFlight, at: Option<usize>) {
        // A pool that closes takes all tails.
        let Some(transit) = self.transit() else { return };
        let demand = in_flight.take_tail(|| self.block(), at).map(|tail| {
            self.requeued.fetch_add(1, Ordering::Relaxed);
            self.queue.publish_for_stalled(tail) // T3
        });
        drop(transit);
        let Some(demand) = demand else { return };
        self.start_workers(demand);
        self.tell_ready();
        // After the PublishFence: if the pool was closed meanwhile, no other thread will come.
        self.discard_if_closed();
    }

    /// Tells whether there is a block in hand that is to be watched.
    pub(crate) fn is_watched(&self) -> bool {
        self.runners.all().iter().any(|in_flight| in_flight.is_watched())
    }

    /// Tells how long an idle thread stays.
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        self.queue.sleep().keep_alive()
    }

    /// Gives the time between two looks of the monitor.
    pub(crate) fn tick(&self) -> Duration {
        let slow_after = self.totals.hooks.slow.as_ref().map(|&(after, _)| after);
        tick(self.stall_after, slow_after, self.is_starving())
    }
}

/// Looks at the blocks that these runners have in hand.
fn snapshots(runners: &[Arc<InFlight>], now: Instant) -> Vec<(&Arc<InFlight>, Snapshot)> {
    runners
        .iter()
        .filter_map(|in_flight| in_flight.snapshot(now).map(|snapshot| (in_flight, snapshot)))
        .collect()
}
