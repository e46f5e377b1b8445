//! Counters as plain numbers, as `stats()` calls return them.
//!
//! Each counter is exact per cleanup. A set read beside running threads is not one instant. The
//! sums that its type promises hold all the same: a counter is read once, the rest follows from it.

use std::time::Duration;

/// Counts the cleanups of one heap. Part of a heap's statistics.
///
/// These hold in every reading, also in one that is taken beside running threads:
///
/// - `registered == armed + backlog + executed + stopped + discarded`;
/// - `backlog <= queued`, and `queued <= registered`.
///
/// A reading takes some time. A cleanup that moves on meanwhile may be counted where it was before.
/// A single number may be off by as many cleanups as moved during the reading. A cleanup that
/// panics counts as `panicked` a moment before it counts as `executed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupStats {
    /// Cleanups ever registered.
    pub registered: u64,
    /// Cleanups that a sweep has queued because their object died.
    pub queued: u64,
    /// Cleanups that ran, on a worker or by `run_now`, those that panicked included.
    pub executed: u64,
    /// Cleanups that ran and panicked.
    pub panicked: u64,
    /// Cleanups stopped through their handle.
    pub stopped: u64,
    /// Cleanups whose captures were dropped instead.
    ///
    /// Their heap or pool was told to discard.
    pub discarded: u64,
    /// Cleanups queued and not ended yet.
    pub backlog: u64,
    /// Cleanups neither queued nor ended yet: their objects were alive when last looked at.
    pub armed: u64,
}

/// Counts the work of one pool. See the pool's `stats`.
///
/// These hold in every reading, also in one that is taken beside running threads:
///
/// - `queued == executed + ended_early + discarded + backlog`;
/// - `asleep <= workers`.
///
/// A reading takes some time. A cleanup that ends meanwhile may still be counted in `backlog`.
/// `running`, `blocks` and `oldest` are read at moments of their own. A cleanup that panics counts
/// as `panicked` a moment before it counts as `executed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Workers that exist: running, looking for work or asleep.
    pub workers: usize,
    /// The most workers there may be.
    pub max_workers: usize,
    /// Workers asleep.
    pub asleep: usize,
    /// Cleanups that are running at this moment on workers and helping threads.
    pub running: usize,
    /// Cleanups ever queued.
    pub queued: u64,
    /// Cleanups that ran in this pool, those that panicked included.
    ///
    /// Those that `run_now` ran are not in here.
    pub executed: u64,
    /// Cleanups that ran in this pool and panicked.
    pub panicked: u64,
    /// Cleanups ended through their handle after they had been queued.
    ///
    /// Stopped, or run by `run_now`.
    pub ended_early: u64,
    /// Queued cleanups whose captures were dropped instead of running.
    pub discarded: u64,
    /// Cleanups queued and not ended yet.
    pub backlog: u64,
    /// Blocks in the full list: published and not claimed.
    pub blocks: usize,
    /// Attempts to start a worker that failed.
    ///
    /// Each is made again, at the latest at the next publish or wait.
    pub spawn_failures: u64,
    /// Workers that left because they had been idle for long.
    pub retired: u64,
    /// Tails of stalled blocks that were queued again for others to run.
    pub requeued: u64,
    /// Cleanups reported to the hook for slow ones.
    pub slow: u64,
    /// How long ago the collection cycle began whose cleanups have waited longest, if any wait.
    pub oldest: Option<Duration>,
}
