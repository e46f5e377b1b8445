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
use crate::desk::{Desk, Desks};
use crate::dump::PoolDump;
use crate::hooks::{Hooks, SlowCleanup, SpawnFailure, call};
use crate::monitor::{Monitor, Watch, tick};
use crate::mutant::{Mutant, step};
use crate::queue::Queue;
use crate::run::{in_cleanup, run};
use crate::sleep::{Demand, Opening};
use crate::stats::PoolStats;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Ordering, Weak, fence, yield_now};
use crate::tally::{Runner, Totals};
use crate::worker::Worker;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Starts threads for a pool's workers.
///
/// Its methods are called on whatever thread publishes cleanups, a collecting one for the most part, with no lock
/// held, and as if inside a cleanup. They should not wait for anything. A panic in one is a failure.
pub trait Spawn: Send + Sync {
    /// Starts a thread that calls [`Worker::run`].
    ///
    /// # Errors
    /// If no thread can be started. The worker has to be dropped, which corrects the pool's count; the
    /// failure is counted and given to the hook, and the next publish, [`Ticket::wait`](crate::Ticket::wait) or
    /// tick of the monitor tries again.
    fn spawn(&self, worker: Worker) -> io::Result<()>;

    /// Starts a thread that calls [`Monitor::run`].
    ///
    /// # Errors
    /// If no thread can be started, as by default. Until one can, stalled cleanups keep the rest of their blocks, slow
    /// ones are not reported, and nobody but publishers and waiters tries to start a worker again.
    fn spawn_monitor(&self, monitor: Monitor) -> io::Result<()> {
        drop(monitor);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How a pool is to be.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// The most workers at a time; 0 for none. A pool without [`Spawn`] has none whatever is said here.
    pub max_workers: usize,
    /// How long a worker is idle before it leaves. The crew shrinks by one in this time, and not within this
    /// time of having grown. `None`: workers stay.
    pub keep_alive: Option<Duration>,
    /// How long a cleanup runs before others take over the rest of its block. At least a millisecond; found out
    /// with a delay of up to half of it.
    pub stall_after: Duration,
    /// What the pool tells its user.
    pub hooks: Hooks,
}

#[cfg(not(any(loom, shuttle)))]
const STALL_AFTER: Duration = Duration::from_millis(20);
/// A model has no clock: its tails are taken over when it says so.
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

/// A bounded set of workers and the cleanups that wait for them. One pool serves any number of heaps.
pub struct Pool {
    queue: Queue<Queued>,
    blocks: Blocks,
    desks: Desks,
    watch: Watch,
    totals: Arc<Totals>,
    stall_after: Duration,
    spawn: Option<Box<dyn Spawn>>,
    /// The ready hook has been told, and nobody has come yet. Set by publishers after their PublishFence,
    /// cleared by whoever comes, before a fence of its own: who does not see the other's work is seen by it.
    told: AtomicBool,
    /// A worker could not be started, and nobody has tried again. Relaxed: a hint to the monitor.
    starving: AtomicBool,
    /// Tails taken over. Relaxed: a counter.
    taken_over: AtomicU64,
    /// Tails that have been copied, or may be, and are not in the full list yet. Written by whoever takes one over.
    in_transit: AtomicUsize,
    /// Cleanups reported as slow. Relaxed: a counter.
    slow: AtomicU64,
    /// Captures are dropped instead of run. Set once, by `discard_pending`; read by runners, Relaxed, and by
    /// publishers, after a fence.
    closed: AtomicBool,
    /// Whoever is the last to leave calls `discard_pending`. Set once, by `discard_after_the_last`.
    discard_at_end: AtomicBool,
    mutant: Mutant,
    /// This pool, for its workers to hold.
    this: Weak<Pool>,
}

impl Pool {
    /// A pool that starts its workers through `spawn`, as work calls for them. Without `spawn` it is manual.
    pub fn new(config: PoolConfig, spawn: Option<Box<dyn Spawn>>) -> Arc<Pool> {
        Self::with_mutant(config, spawn, Mutant::None)
    }

    /// A pool with one step of its protocols broken, for models.
    pub(crate) fn with_mutant(
        config: PoolConfig,
        spawn: Option<Box<dyn Spawn>>,
        mutant: Mutant,
    ) -> Arc<Pool> {
        let max_workers = if spawn.is_some() { config.max_workers } else { 0 };
        Arc::new_cyclic(|this| Pool {
            queue: Queue::new(max_workers, config.keep_alive, mutant),
            blocks: Blocks::new(),
            desks: Desks::default(),
            watch: Watch::new(mutant),
            totals: Totals::new(max_workers, config.hooks),
            stall_after: config.stall_after,
            spawn,
            told: AtomicBool::new(false),
            starving: AtomicBool::new(false),
            taken_over: AtomicU64::new(0),
            in_transit: AtomicUsize::new(0),
            slow: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            discard_at_end: AtomicBool::new(false),
            mutant,
            this: this.clone(),
        })
    }

    /// The most workers at a time; 0 for none.
    pub fn max_workers(&self) -> usize {
        self.queue.crew().max()
    }

    /// Changes the most workers at a time. A surplus leaves as soon as it has no cleanup in hand; if work waits,
    /// workers are added at once. No effect on a manual pool.
    pub fn set_max_workers(&self, max: usize) {
        if self.spawn.is_some() {
            self.queue.crew().set_max(max);
            self.look();
        }
    }

    /// Whether the pool can have no workers, ever.
    pub fn is_manual(&self) -> bool {
        self.spawn.is_none()
    }

    /// Runs at most `max` cleanups on this thread; gives how many it ran.
    ///
    /// Any thread may call it at any time, whether the pool is manual or has workers. What is left of a
    /// block goes back to the full list. If the list is empty, this looks for tails of stalled blocks. From inside a
    /// cleanup it does nothing: cleanups do not nest.
    pub fn run_pending(&self, max: usize) -> usize {
        if in_cleanup() {
            return 0;
        }
        if self.totals.hooks.ready.is_some() {
            self.told.store(false, Ordering::Relaxed);
            // ReadyFence: pairs with PublishFence. Either we see the addition to `length`, or the publisher sees that
            // the hook has to be told again.
            fence(Ordering::SeqCst);
        }
        let mut ran = 0;
        while ran < max {
            let Some(block) = self.queue.try_next() else {
                self.inspect(Instant::now());
                if self.queue.len() > 0 {
                    continue;
                }
                break;
            };
            ran += run(self, block, &self.desks.guest(), max - ran);
        }
        if self.queue.len() > 0 {
            self.tell_ready();
        }
        ran
    }

    /// The counters. Takes the crew's lock for a moment; never waits for a cleanup.
    pub fn stats(&self) -> PoolStats {
        let totals = &*self.totals;
        let crew = self.queue.crew().numbers();
        // The parts before the whole, as in `Totals::backlog`.
        let discarded = totals.shards.sum(|s| &s.discarded);
        let passed = totals.shards.sum(|s| &s.settled);
        let panicked = totals.shards.sum(|s| &s.panicked);
        let backlog = totals.backlog();
        let ended = totals.shards.sum(|s| &s.ended);
        PoolStats {
            workers: crew.workers,
            max_workers: self.max_workers(),
            asleep: crew.asleep,
            running: totals.shards.sum(|s| &s.running) as usize,
            queued: totals.queued.load(Ordering::Relaxed),
            executed: ended.saturating_sub(discarded + passed),
            panicked,
            settled: totals.settled.load(Ordering::Relaxed) + passed,
            discarded,
            backlog,
            blocks: self.queue.len(),
            spawn_failures: crew.spawn_failures,
            retired: crew.retired,
            taken_over: self.taken_over.load(Ordering::Relaxed),
            slow: self.slow.load(Ordering::Relaxed),
            // A batch is struck off a moment after its last cleanup was counted.
            oldest: totals.oldest().filter(|_| backlog > 0).map(|start| start.elapsed()),
        }
    }

    /// What everybody in the pool is doing, at this moment. O(workers); never waits for a cleanup.
    pub fn dump(&self) -> PoolDump {
        PoolDump::of(self)
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
        self.a_worker_left();
    }

    /// Waits until no worker is left. Whether that is so when it returns, and they have left nothing behind.
    ///
    /// If none can be started for what is queued, this runs it here, as a [`Ticket`](crate::Ticket) does; unless the
    /// maximum is 0. Called by a worker of this pool, from inside a cleanup, it would wait for itself until the
    /// timeout; see [`in_cleanup`]. A timeout too long for the clock means for ever.
    pub fn wait_until_workers_left(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if !self.queue.crew().wait_until_left(deadline) {
                return false;
            }
            // Before the last look: what has failed to start once may fail again.
            if self.is_starving() {
                self.help_for_want_of_workers(|| is_over(deadline));
                if is_over(deadline) {
                    return self.queue.len() == 0;
                }
            }
            if self.last_look() && !self.is_starving() {
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
            if self.max_workers() == 0 || self.is_closed() {
                return true;
            }
            if self.queue.len() > 0 {
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

    /// Drops the captures of everything that is queued and not running, and of whatever is queued later.
    /// Gives how many cleanups this call discarded.
    ///
    /// For the end of a shutdown. What a worker holds behind a running cleanup is discarded when that
    /// cleanup returns.
    pub fn discard_pending(&self) -> usize {
        self.closed.store(true, Ordering::Relaxed);
        self.watch.stop();
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
        if !self.is_manual() {
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

    // ---- workers and work --------------------------------------------------------------------------

    /// Publishes blocks, and wakes or starts workers for them.
    pub(crate) fn publish(&self, blocks: impl IntoIterator<Item = Queued>) {
        let demand = self.queue.publish(blocks);
        self.fulfil(demand);
        if self.queue.len() > 0 {
            self.tell_ready();
            if self.max_workers() == 0 && self.is_deserted() {
                // Nobody is demanded here, who could fail to come. Who waits already runs it.
                self.totals.nudge();
            }
        }
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
        let Some(spawn) = &self.spawn else { unreachable!("a manual pool demands no workers") };
        let mut failed = false;
        for opening in demand.0 {
            let worker = Worker::new(self.this(), opening);
            if let Err(error) = attempt(|| spawn.spawn(worker)) {
                failed = true;
                self.queue.crew().spawn_failed();
                self.spawn_failed(Some(opening.index), &error);
            }
        }
        if failed {
            self.starving.store(true, Ordering::Relaxed);
        }
        if self.is_starving() {
            if self.is_deserted() {
                // Who waits already may have counted on this start. (With a worker there is somebody to count on.)
                self.totals.nudge();
            }
            if self.watch.call() {
                self.start_monitor();
            }
        }
    }

    /// Whether work waits, and no worker is there or on its way who could do it.
    pub(crate) fn is_deserted(&self) -> bool {
        !self.is_manual() && self.queue.len() > 0 && self.queue.crew().numbers().workers == 0
    }

    /// A worker ended before it began: whoever was to start it forgot it, or its thread did not live that long.
    pub(crate) fn never_began(&self) {
        self.starving.store(true, Ordering::Relaxed);
        // Not in the middle of the attempt to start it, which looks itself when it is over.
        if !in_cleanup() && self.is_starving() && self.watch.call() {
            self.start_monitor();
        }
    }

    fn spawn_failed(&self, worker: Option<usize>, error: &io::Error) {
        let waiting_blocks = self.queue.len();
        self.totals.hooks.spawn_failed(&SpawnFailure { error, worker, waiting_blocks });
    }

    /// Tells the ready hook that there is work, unless it knows.
    fn tell_ready(&self) {
        if let Some(ready) = &self.totals.hooks.ready
            && !self.told.swap(true, Ordering::Relaxed)
        {
            call(|| ready());
        }
    }

    /// Whether work waits for a worker that could not be started.
    pub(crate) fn is_starving(&self) -> bool {
        self.starving.load(Ordering::Relaxed) && self.max_workers() > 0 && self.queue.len() > 0
    }

    /// Tries again to start workers.
    pub(crate) fn retry(&self) {
        self.starving.store(false, Ordering::Relaxed);
        self.look();
    }

    /// In a pool that has no workers because none could be started, or none is allowed: runs what is queued here,
    /// until `enough`. A manual pool's owner has chosen the threads that run cleanups, so nothing runs here.
    pub(crate) fn help_for_want_of_workers(&self, enough: impl Fn() -> bool) {
        while !self.is_manual()
            && self.queue.crew().numbers().workers == 0
            && !enough()
            && self.run_pending(HELPING) > 0
        {}
    }

    // ---- the monitor -------------------------------------------------------------------------------

    /// Whether the monitor is to watch a block: others could take its tail over, or the hook wants to know.
    pub(crate) fn is_to_be_watched(&self, queued: &Queued, runner: Runner) -> bool {
        let tail = queued.block.len() - queued.block.cursor() > 1;
        let others = if runner == Runner::Guest { 1 } else { 2 };
        self.spawn.is_some()
            && (tail && self.max_workers() >= others || self.totals.hooks.slow.is_some())
    }

    /// A block that is to be watched has been put on a desk.
    pub(crate) fn watch_begins(&self) {
        if self.watch.begins() {
            self.start_monitor();
        }
    }

    #[cold]
    fn start_monitor(&self) {
        let Some(spawn) = &self.spawn else { return };
        let monitor = Monitor::new(self.this());
        match attempt(|| spawn.spawn_monitor(monitor)) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                self.spawn_failed(None, &error);
            }
            _ => {}
        }
    }

    /// Looks at all desks: reports slow cleanups, and takes over the tails of stalled blocks. Whether there is a
    /// block in hand that is to be watched.
    pub(crate) fn inspect(&self, now: Instant) -> bool {
        let mut busy = false;
        for desk in self.desks.all() {
            let Some(glance) = desk.glance(now) else { continue };
            busy |= glance.watched;
            if glance.age >= self.stall_after && !glance.taken_over {
                self.take_over(&desk, glance.at);
            }
            if let Some((after, slow)) = &self.totals.hooks.slow
                && glance.age >= *after
                && desk.is_news(glance.at)
            {
                self.slow.fetch_add(1, Ordering::Relaxed);
                let worker = match desk.runner() {
                    Runner::Worker(index) => Some(index),
                    Runner::Guest => None,
                };
                call(|| slow(&SlowCleanup { cleanup: glance.cleanup, age: glance.age, worker }));
            }
        }
        busy
    }

    /// Publishes the tail of the block on a desk whose cursor is `at`, if there is one and it was not taken before.
    pub(crate) fn take_over(&self, desk: &Desk, at: usize) {
        // Relaxed: ordered by the desk's lock, which comes next.
        self.in_transit.fetch_add(1, Ordering::Relaxed);
        let demand = desk.take_tail(self, at).map(|tail| {
            self.taken_over.fetch_add(1, Ordering::Relaxed);
            step!(T3);
            self.queue.publish_for_stalled(tail)
        });
        // Release: pairs with the Acquire in `last_look`.
        self.in_transit.fetch_sub(1, Ordering::Release);
        let Some(demand) = demand else { return };
        self.fulfil(demand);
        self.tell_ready();
        // After the PublishFence: if the pool was closed meanwhile, nobody else will come.
        self.discard_if_closed();
    }

    /// Whether there is a block in hand that is to be watched.
    pub(crate) fn is_watched(&self) -> bool {
        self.desks.all().iter().any(|desk| desk.is_watched())
    }

    /// How long an idle thread stays.
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        self.queue.crew().keep_alive()
    }

    /// The time between two looks of the monitor.
    pub(crate) fn tick(&self) -> Duration {
        tick(self.stall_after, self.totals.hooks.slow.as_ref().map(|&(after, _)| after))
    }

    // ---- for the rest of the crate -----------------------------------------------------------------

    fn this(&self) -> Arc<Pool> {
        self.this.upgrade().expect("whoever publishes holds the pool")
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(crate) fn desks(&self) -> &Desks {
        &self.desks
    }

    #[inline]
    pub(crate) fn mutant(&self) -> Mutant {
        self.mutant
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

/// Cleanups that a helping thread runs between two looks at whether it is still needed.
const HELPING: usize = 16;

/// Whether there is a deadline, and it has passed.
pub(crate) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Calls a method of [`Spawn`], whose panic is a failure like any other.
fn attempt(spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut result = Err(io::Error::other("the attempt to start a thread panicked"));
    call(|| result = spawn());
    result
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
