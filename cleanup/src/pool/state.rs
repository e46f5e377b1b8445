//! The pool: the full list, the blocks, and the runners.
//!
//! Invariant: a pool without [`Spawn`] is manual: it runs cleanups only on threads that ask to.
//!
//! It owns no thread: the implementor of [`Spawn`] makes them, and joins them. Workers are started
//! in `staffing.rs`; stalled cleanups are the subject of `stalls.rs`, the end is in `shutdown.rs`.
//!
//! # After a `fork`
//!
//! The child has none of the pool's threads, and the pool is *inherited* there. Its locks may be
//! held by threads that do not exist, and its lists may be in the middle of a change. So every way
//! in asks [`Pool::is_inherited`] first, and then takes no lock, no block and no claim. Its memory
//! stays: the threads left behind hold counted references for ever.

#![forbid(unsafe_code)]

use crate::account::registry::PoolRecordsRef;
use crate::account::totals::Totals;
use crate::block::arena::Block;
use crate::block::free_list::Blocks;
use crate::observe::hooks::Hooks;
use crate::observe::stats::PoolStats;
use crate::pool::in_flight::Runners;
use crate::pool::queued::Queued;
use crate::pool::watch::Watch;
use crate::protocol::queue::Queue;
use crate::protocol::sleep::Numbers;
use sexton_sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Ordering, Process, Weak};
use std::time::Duration;
use std::{fmt, io};

/// Starts threads for a pool.
///
/// It is called on the thread that publishes cleanups, a collecting one for the most part. No lock
/// is held, and the call counts as inside a cleanup. It should not wait for anything.
pub trait Spawn: Send + Sync {
    /// Starts a thread that calls `run`.
    ///
    /// The pool counts a worker from before the call on. Dropping `run` uncalled corrects the
    /// count. If a thread had been started for it and work waits, the pool asks for a replacement
    /// at once.
    ///
    /// # Errors
    /// If no thread can be started. `run` has to be dropped. A panic is an error like any other.
    /// The failure is counted and given to the hook. The next publish,
    /// [`Ticket::wait`](crate::Ticket::wait) or tick of the monitor tries again.
    ///
    /// Without a monitor, stalled cleanups keep the rest of their blocks, and slow ones are not
    /// reported. [`Unsupported`](io::ErrorKind::Unsupported) for a [`Role::Monitor`] is no failure:
    /// the pool goes without one, and tries again when one is wanted again.
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// Tells the purpose of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs cleanups as they are published, and sleeps in between, until it is no longer needed.
    ///
    /// The number is its index: below the largest `max_workers` there was, and no two workers' at a
    /// time.
    Worker(usize),
    /// Watches for cleanups that run for long. One per pool at a time.
    Monitor,
}

/// Configures a pool.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// The most workers at a time; 0 for none.
    ///
    /// A pool without [`Spawn`] has none whatever is said here.
    pub max_workers: usize,
    /// How long a worker is idle before it leaves. `None`: workers stay.
    ///
    /// The pool shrinks by one worker in this time, and not within this time of having grown.
    pub keep_alive: Option<Duration>,
    /// How long a cleanup runs before others run the rest of its block.
    ///
    /// At least a millisecond; found out with a delay of up to half of it.
    pub stall_after: Duration,
    /// The hooks by which the pool tells its user.
    pub hooks: Hooks,
}

#[cfg(not(any(loom, shuttle)))]
const STALL_AFTER: Duration = Duration::from_millis(20);
/// A model has no clock: its tails are requeued when it says so.
#[cfg(any(loom, shuttle))]
const STALL_AFTER: Duration = Duration::MAX;

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            max_workers: 0,
            keep_alive: Some(Duration::from_secs(10)),
            stall_after: STALL_AFTER,
            hooks: Hooks::default(),
        }
    }
}

/// Runs cleanups on a bounded set of workers. One pool serves any number of heaps.
pub struct Pool {
    pub(super) queue: Queue<Queued>,
    pub(super) blocks: Blocks,
    pub(super) runners: Runners,
    pub(super) watch: Watch,
    pub(super) totals: Arc<Totals>,
    /// Those of all its heaps.
    records: PoolRecordsRef,
    pub(super) stall_after: Duration,
    pub(super) spawn: Option<Box<dyn Spawn>>,
    /// The ready hook has been told, and no thread has come yet. Set by publishers after their
    /// PublishFence. Cleared by a thread that comes, before a fence of its own: if it does not see
    /// the publisher's work, the publisher sees it.
    pub(super) told: AtomicBool,
    /// A worker could not be started, and that was not tried again. Relaxed: a hint to the monitor.
    pub(super) starving: AtomicBool,
    /// The monitor could not be started, and that was not tried again. Relaxed: a hint.
    pub(super) unwatched: AtomicBool,
    /// Tails requeued. Relaxed: a counter.
    pub(super) requeued: AtomicU64,
    /// Blocks that may be in no runner's hands and not in the full list yet: tails that are being
    /// copied, rests that go back. See [`transit`](Pool::transit).
    pub(super) in_transit: AtomicUsize,
    /// Cleanups reported as slow. Relaxed: a counter.
    pub(super) slow: AtomicU64,
    /// Captures are dropped instead of run. Set once, by `discard_pending`; read by runners,
    /// Relaxed, and by publishers, after a fence.
    pub(super) closed: AtomicBool,
    /// Cleanups that were not run because the pool was closed. Added to by runners with their
    /// in-flight record locked. Relaxed: ordered by that lock.
    pub(super) refused: AtomicU64,
    /// The last worker to leave calls `discard_pending`. Set once, by `discard_after_the_last`.
    pub(super) discard_at_end: AtomicBool,
    /// The process that made it, and in which its workers are.
    pub(super) home: Process,
    /// This pool, for its workers to hold.
    pub(super) this: Weak<Pool>,
}

impl Pool {
    /// Makes a pool that starts its workers through `spawn`, as work calls for them.
    ///
    /// Without `spawn` the pool is manual.
    pub fn new(config: PoolConfig, spawn: Option<Box<dyn Spawn>>) -> Arc<Pool> {
        let max_workers = if spawn.is_some() { config.max_workers } else { 0 };
        Arc::new_cyclic(|this| Pool {
            queue: Queue::new(max_workers, config.keep_alive),
            blocks: Blocks::new(),
            runners: Runners::default(),
            watch: Watch::new(),
            totals: Totals::new(max_workers, config.hooks),
            records: PoolRecordsRef::new(),
            stall_after: config.stall_after,
            spawn,
            told: AtomicBool::new(false),
            starving: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
            requeued: AtomicU64::new(0),
            in_transit: AtomicUsize::new(0),
            slow: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            discard_at_end: AtomicBool::new(false),
            home: Process::current(),
            this: this.clone(),
        })
    }

    /// Tells the most workers at a time; 0 for none.
    pub fn max_workers(&self) -> usize {
        self.queue.sleep().max()
    }

    /// Tells whether the pool was made by another process, before a `fork`.
    ///
    /// Then its workers are not in this one, and nothing it does is waited for or run here. A
    /// system call.
    pub fn is_inherited(&self) -> bool {
        !self.home.is_current()
    }

    /// Tells whether the pool can have no workers, ever.
    pub fn is_manual(&self) -> bool {
        self.spawn.is_none()
    }

    /// Reads the counters. Takes a lock for a moment; never waits for a cleanup.
    ///
    /// An inherited pool has no workers; its other numbers are those at the `fork`.
    pub fn stats(&self) -> PoolStats {
        let totals = &*self.totals;
        let inherited = self.is_inherited();
        let numbers = if inherited { Numbers::default() } else { self.queue.sleep().numbers() };
        let counters = totals.counters.read();
        let backlog = counters.backlog();
        PoolStats {
            workers: numbers.workers,
            max_workers: self.max_workers(),
            asleep: numbers.asleep,
            running: if inherited { 0 } else { totals.counters.running() as usize },
            queued: counters.queued,
            executed: counters.executed,
            panicked: counters.panicked,
            ended_early: counters.ended_early,
            discarded: counters.discarded,
            backlog,
            blocks: self.queue.len(),
            spawn_failures: numbers.spawn_failures,
            retired: numbers.retired,
            requeued: self.requeued.load(Ordering::Relaxed),
            slow: self.slow.load(Ordering::Relaxed),
            // A batch leaves the list a moment after its last cleanup was counted.
            oldest: (backlog > 0 && !inherited)
                .then(|| totals.oldest().map(|start| start.elapsed()))
                .flatten(),
        }
    }

    /// Tells whether every cleanup that was queued has ended.
    pub fn is_idle(&self) -> bool {
        self.totals.counters.read().backlog() == 0
    }

    // ---- for the rest of the crate
    // -----------------------------------------------------------------

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(crate) fn runners(&self) -> &Runners {
        &self.runners
    }

    pub(crate) fn block(&self) -> Block {
        self.blocks.get()
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Gives back the memory of blocks that hold nothing, and tells how many bytes.
    pub fn trim(&self) -> u64 {
        // In the child of a `fork` a lock may be held for ever.
        if self.is_inherited() { 0 } else { self.blocks.trim() as u64 }
    }

    pub(crate) fn recycle(&self, block: Block) {
        self.blocks.recycle(block);
    }

    pub(crate) fn records(&self) -> &PoolRecordsRef {
        &self.records
    }

    pub(crate) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    pub(crate) fn queue(&self) -> &Queue<Queued> {
        &self.queue
    }
}

impl Drop for Pool {
    /// Closes the pool. No thread is left that could run the queued cleanups: their captures are
    /// dropped.
    fn drop(&mut self) {
        self.discard_pending();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
