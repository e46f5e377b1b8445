//! The pool: the full list, the blocks, the crew, and what a shutdown needs.
//!
//! Invariant: the pool counts a worker from before its thread is asked for; it spawns outside every lock. A
//! pool without [`Spawn`], or with a maximum of 0, is manual: it runs cleanups only on threads that ask to.
//!
//! It owns no thread: [`Spawn`] makes them, and whoever made them joins them.
//!
//! # Shutdown
//!
//! 1. [`Pool::begin_shutdown`]: workers leave instead of going to sleep; they drain the full list first.
//! 2. [`Pool::wait_until_workers_left`], with a deadline; then join the threads that have left.
//! 3. [`Pool::discard_pending`]: what is left is dropped instead of run, from now on also by workers that come
//!    back from a long cleanup and by heaps that still collect. Tickets finish.
//!
//! Inside a cleanup there is no waiting: [`Pool::discard_after_the_last`] takes the place of steps 2 and 3.

#![forbid(unsafe_code)]

use crate::arena::Block;
use crate::block::Blocks;
use crate::cycle::Queued;
use crate::mutant::Mutant;
use crate::queue::Queue;
use crate::run::{in_cleanup, run};
use crate::sleep::{Demand, Opening};
use crate::stats::PoolStats;
use crate::sync::{Arc, AtomicBool, Ordering, Weak, fence};
use crate::tally::{PanicHook, Runner, Totals};
use crate::worker::Worker;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Starts threads for a pool's workers.
pub trait Spawn: Send + Sync {
    /// Starts a thread that calls [`Worker::run`].
    ///
    /// Called on whatever thread publishes cleanups, a collecting one for the most part, with no lock held.
    /// It should not wait for anything.
    ///
    /// # Errors
    /// If no thread can be started. The worker has to be dropped, which corrects the pool's count; the
    /// failure is counted, and the next publish or [`Ticket::wait`](crate::Ticket::wait) tries again.
    fn spawn(&self, worker: Worker) -> io::Result<()>;
}

/// How a pool is to be.
#[derive(Clone, Default)]
pub struct PoolConfig {
    /// The most workers at a time; 0 for a manual pool.
    pub max_workers: usize,
    /// Is told about each cleanup that panicked.
    pub panic_hook: Option<PanicHook>,
}

impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolConfig")
            .field("max_workers", &self.max_workers)
            .field("panic_hook", &self.panic_hook.is_some())
            .finish()
    }
}

/// A bounded set of workers and the cleanups that wait for them. One pool serves any number of heaps.
pub struct Pool {
    queue: Queue<Queued>,
    blocks: Blocks,
    totals: Arc<Totals>,
    max_workers: usize,
    spawn: Option<Box<dyn Spawn>>,
    /// Captures are dropped instead of run. Set once, by `discard_pending`; read by runners, Relaxed, and by
    /// publishers, after a fence.
    closed: AtomicBool,
    /// Whoever is the last to leave calls `discard_pending`. Set once, by `discard_after_the_last`.
    discard_at_end: AtomicBool,
    /// This pool, for its workers to hold.
    this: Weak<Pool>,
}

impl Pool {
    /// A pool that starts its workers through `spawn`, as work calls for them. Without `spawn` it is manual.
    pub fn new(config: PoolConfig, spawn: Option<Box<dyn Spawn>>) -> Arc<Pool> {
        let max_workers = if spawn.is_some() { config.max_workers } else { 0 };
        Arc::new_cyclic(|this| Pool {
            queue: Queue::new(max_workers, Mutant::None),
            blocks: Blocks::new(),
            totals: Totals::new(max_workers, config.panic_hook),
            max_workers,
            spawn,
            closed: AtomicBool::new(false),
            discard_at_end: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// The most workers at a time; 0 for a manual pool.
    pub fn max_workers(&self) -> usize {
        self.max_workers
    }

    /// Runs at most `max` cleanups on this thread; gives how many it ran.
    ///
    /// Any thread may call it at any time, whether the pool is manual or has workers. What is left of a
    /// block goes back to the full list. From inside a cleanup it does nothing: cleanups do not nest.
    pub fn run_pending(&self, max: usize) -> usize {
        let mut ran = 0;
        if in_cleanup() {
            return 0;
        }
        while ran < max {
            let Some(block) = self.queue.try_next() else { break };
            ran += run(self, block, Runner::Guest, max - ran);
        }
        ran
    }

    /// The counters. Takes the crew's lock for a moment; never waits for a cleanup.
    pub fn stats(&self) -> PoolStats {
        let totals = &*self.totals;
        let (workers, asleep, spawn_failures) = self.queue.crew().numbers();
        // The parts before the whole, as in `Totals::backlog`.
        let discarded = totals.shards.sum(|s| &s.discarded);
        let passed = totals.shards.sum(|s| &s.settled);
        let panicked = totals.shards.sum(|s| &s.panicked);
        let backlog = totals.backlog();
        let ended = totals.shards.sum(|s| &s.ended);
        PoolStats {
            workers,
            asleep,
            running: totals.shards.sum(|s| &s.running) as usize,
            queued: totals.queued.load(Ordering::Relaxed),
            executed: ended.saturating_sub(discarded + passed),
            panicked,
            settled: totals.settled.load(Ordering::Relaxed) + passed,
            discarded,
            backlog,
            blocks: self.queue.len(),
            spawn_failures,
            oldest: totals.oldest().map(|start| start.elapsed()),
        }
    }

    /// Whether every cleanup that was queued has ended.
    pub fn is_idle(&self) -> bool {
        self.totals.backlog() == 0
    }

    // ---- shutdown ----------------------------------------------------------------------------------

    /// From now on workers leave when the full list is empty, and none is added, except in place of one that
    /// died. Idle workers are woken to find out. Does not wait.
    pub fn begin_shutdown(&self) {
        // A last chance for work whose worker could not be started.
        self.look();
        self.queue.crew().shutdown();
    }

    /// Waits until no worker is left. Whether that is so when it returns.
    ///
    /// Called by a worker of this pool, from inside a cleanup, it would wait for itself until the timeout;
    /// see [`in_cleanup`]. A timeout too long for the clock means for ever.
    pub fn wait_until_workers_left(&self, timeout: Duration) -> bool {
        self.queue.crew().wait_until_left(Instant::now().checked_add(timeout))
    }

    /// Drops the captures of everything that is queued and not running, and of whatever is queued later.
    /// Gives how many cleanups this call discarded.
    ///
    /// For the end of a shutdown. What a worker holds behind a running cleanup is discarded when that
    /// cleanup returns.
    pub fn discard_pending(&self) -> usize {
        self.closed.store(true, Ordering::Relaxed);
        // CloseFence: pairs with PublishFence. Either the publisher sees `closed` and discards what it has
        // published, or we see what it has added to `length`.
        fence(Ordering::SeqCst);
        self.drain()
    }

    /// Has [`discard_pending`](Self::discard_pending) called as soon as no worker is left: now, or by the last one
    /// on its way out. For a shutdown that cannot wait, because it is called from inside a cleanup.
    pub fn discard_after_the_last(&self) {
        // Relaxed: whoever vacates a post, or counts them below, does so under the crew's lock. Either we
        // count no worker, or the last one vacates later and finds this set.
        self.discard_at_end.store(true, Ordering::Relaxed);
        self.a_worker_left();
    }

    /// A worker's post has been vacated, or may have been.
    pub(crate) fn a_worker_left(&self) {
        if self.discard_at_end.load(Ordering::Relaxed) && self.queue.crew().numbers().0 == 0 {
            self.discard_pending();
        }
    }

    fn drain(&self) -> usize {
        let mut discarded = 0;
        while let Some(block) = self.queue.try_next() {
            discarded += run(self, block, Runner::Guest, usize::MAX);
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
        if self.max_workers > 0 {
            return;
        }
        for _ in 0..self.queue.len() {
            let Some(block) = self.queue.try_next() else { break };
            if block.batch.is_discarded() {
                run(self, block, Runner::Guest, usize::MAX);
            } else {
                self.publish([block]);
            }
        }
        self.discard_if_closed();
    }

    // ---- for the rest of the crate -----------------------------------------------------------------

    /// Publishes blocks, and wakes or starts workers for them.
    pub(crate) fn publish(&self, blocks: impl IntoIterator<Item = Queued>) {
        let demand = self.queue.publish(blocks);
        self.fulfil(demand);
    }

    /// Wakes or starts workers for what is in the list, in case the last attempt failed.
    pub(crate) fn look(&self) {
        let demand = self.queue.look();
        self.fulfil(demand);
    }

    /// A worker is gone without having been told to leave.
    pub(crate) fn lost(&self, opening: Opening) {
        let demand = self.queue.lost(opening);
        self.fulfil(demand);
    }

    /// Starts the workers demanded. Called with nothing locked.
    fn fulfil(&self, demand: Demand) {
        if demand.0.is_empty() {
            return;
        }
        let this = self.this.upgrade().expect("whoever publishes holds the pool");
        // All of them first: should a spawn panic, the unwinding drops the rest, and so corrects the count.
        let workers: Vec<Worker> =
            demand.0.into_iter().map(|opening| Worker::new(this.clone(), opening)).collect();
        for worker in workers {
            let spawn = self.spawn.as_ref().expect("a manual pool demands no workers");
            if spawn.spawn(worker).is_err() {
                self.queue.crew().spawn_failed();
            }
        }
    }

    pub(crate) fn block(&self) -> Block {
        self.blocks.get()
    }

    pub(crate) fn recycle(&self, block: Block) {
        self.blocks.recycle(block);
    }

    pub(crate) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    pub(crate) fn queue(&self) -> &Queue<Queued> {
        &self.queue
    }
}

impl Drop for Pool {
    /// Nobody is left who could run what is queued: its captures are dropped.
    fn drop(&mut self) {
        self.discard_pending();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
