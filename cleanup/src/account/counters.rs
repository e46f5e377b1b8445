//! Counters that many runners write and any thread reads: exact per cleanup, without contention.
//!
//! Invariant: the shard of one of the first workers has one writer at a time, which adds by plain
//! load and store. All others, helping threads and the workers of a crowd, share a shard, and add
//! by `fetch_add`.
//!
//! It does not know when a cleanup has ended; `run.rs` says so.

use sexton_sync::{AtomicU64, CachePadded, Ordering};

/// Workers that get a shard of their own.
const SHARDS: usize = 16;

/// The counters of one runner. Added to with Release and read with Acquire: see [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// Cleanups that this runner ran, those that panicked included.
    pub(crate) executed: AtomicU64,
    /// Of those: panicked. Counted before it.
    pub(crate) panicked: AtomicU64,
    /// Cleanups that this runner dropped instead.
    pub(crate) discarded: AtomicU64,
    /// Cleanups that this runner found ended by their handle, and not counted by it.
    pub(crate) ended_early: AtomicU64,
    /// Whether (or how many times, in a shared shard) a block is being run right now.
    pub(crate) running: AtomicU64,
}

/// The shards of a pool or of a batch: one for each of the first workers, and a shared one for all
/// others.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Box<[CachePadded<Shard>]>,
}

/// The thread that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// The worker with this index.
    Worker(usize),
    /// A helping thread.
    Guest,
}

impl Shards {
    /// Makes shards for this number of workers. There may be more of them one day; those share.
    pub(crate) fn new(workers: usize) -> Self {
        let own = workers.min(SHARDS);
        Shards { shards: (0..=own).map(|_| CachePadded::default()).collect() }
    }

    /// Gives the shard that `runner` counts in.
    pub(crate) fn of(&self, runner: Runner) -> Counting<'_> {
        let shared = self.shards.len() - 1;
        match runner {
            Runner::Worker(index) if index < shared => {
                Counting { shard: &self.shards[index], exclusive: true }
            }
            Runner::Worker(_) | Runner::Guest => {
                Counting { shard: &self.shards[shared], exclusive: false }
            }
        }
    }

    fn sum(&self, field: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|s| field(s).load(Ordering::Acquire)).fold(0, u64::wrapping_add)
    }
}

/// One runner's shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counting<'a> {
    shard: &'a Shard,
    exclusive: bool,
}

impl Counting<'_> {
    /// Adds to a counter; `u64::MAX` takes one away.
    #[inline]
    pub(crate) fn add(&self, field: impl Fn(&Shard) -> &AtomicU64, n: u64) {
        let counter = field(self.shard);
        if self.exclusive {
            // No other thread writes it.
            let now = counter.load(Ordering::Relaxed);
            counter.store(now.wrapping_add(n), Ordering::Release);
        } else {
            counter.fetch_add(n, Ordering::Release);
        }
    }
}

/// The counters of a pool, or of one batch of it: cleanups queued, and their ends.
///
/// A reading takes each counter once, the ends before the beginnings. An end is added with Release
/// and read with Acquire, so a reading that has it also has what was queued before it.
#[derive(Debug)]
pub(crate) struct Counters {
    /// Cleanups queued. Added to by publishers, before they publish.
    queued: AtomicU64,
    /// Cleanups ended by their handle after they were queued. Added to by handles.
    ended_early: AtomicU64,
    shards: Shards,
}

impl Counters {
    /// Makes counters with shards for this number of workers.
    pub(crate) fn new(workers: usize) -> Self {
        Counters {
            queued: AtomicU64::new(0),
            ended_early: AtomicU64::new(0),
            shards: Shards::new(workers),
        }
    }

    /// Counts cleanups that are about to be published.
    pub(crate) fn queue(&self, cleanups: u64) {
        self.queued.fetch_add(cleanups, Ordering::Release);
    }

    /// Counts one that has ended through its handle.
    pub(crate) fn end_one_early(&self) {
        self.ended_early.fetch_add(1, Ordering::Release);
    }

    /// Gives the shard that `runner` counts in.
    pub(crate) fn of(&self, runner: Runner) -> Counting<'_> {
        self.shards.of(runner)
    }

    /// Blocks that are being run.
    pub(crate) fn running(&self) -> u64 {
        self.shards.sum(|s| &s.running)
    }

    /// Reads all counters, each once.
    pub(crate) fn read(&self) -> Reading {
        let mut reading = Reading {
            queued: 0,
            panicked: self.shards.sum(|s| &s.panicked),
            executed: self.shards.sum(|s| &s.executed),
            discarded: self.shards.sum(|s| &s.discarded),
            ended_early: self.shards.sum(|s| &s.ended_early)
                + self.ended_early.load(Ordering::Acquire),
        };
        // A handle may end a cleanup before its sweeper has counted its block. It was queued, too.
        reading.queued = self.queued.load(Ordering::Acquire).max(reading.ended());
        reading
    }
}

/// A [`Counters`], read once. Invariant: no more have ended than were queued.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) queued: u64,
    pub(crate) executed: u64,
    pub(crate) panicked: u64,
    pub(crate) discarded: u64,
    /// Ended by their handles.
    pub(crate) ended_early: u64,
}

impl Reading {
    /// Cleanups that have ended, in whatever way.
    pub(crate) fn ended(&self) -> u64 {
        self.executed + self.discarded + self.ended_early
    }

    /// Cleanups queued and not ended: too many by what moved during the reading, never too few.
    pub(crate) fn backlog(&self) -> u64 {
        self.queued - self.ended()
    }
}

impl std::ops::AddAssign for Reading {
    fn add_assign(&mut self, other: Self) {
        let Reading { queued, executed, panicked, discarded, ended_early } = other;
        self.queued += queued;
        self.executed += executed;
        self.panicked += panicked;
        self.discarded += discarded;
        self.ended_early += ended_early;
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_own_shard_and_guests_share_one() {
        let shards = Shards::new(2);
        shards.of(Runner::Worker(0)).add(|s| &s.executed, 3);
        shards.of(Runner::Worker(1)).add(|s| &s.executed, 4);
        shards.of(Runner::Guest).add(|s| &s.executed, 5);
        shards.of(Runner::Guest).add(|s| &s.running, 1);
        shards.of(Runner::Guest).add(|s| &s.running, u64::MAX);
        assert_eq!(shards.sum(|s| &s.executed), 12);
        assert_eq!(shards.sum(|s| &s.running), 0);
        assert!(shards.of(Runner::Worker(1)).exclusive);
        assert!(!shards.of(Runner::Guest).exclusive);
    }

    #[test]
    fn a_crowd_shares_a_shard_and_loses_no_count() {
        let shards = Shards::new(40);
        for worker in 0..40 {
            let counting = shards.of(Runner::Worker(worker));
            assert_eq!(counting.exclusive, worker < SHARDS);
            counting.add(|s| &s.executed, 1);
        }
        assert_eq!(shards.sum(|s| &s.executed), 40);
    }
}
