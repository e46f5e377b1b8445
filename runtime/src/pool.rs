//! `CleanupPool`: the bounded set of threads that run cleanups, and their end.
//!
//! The protocols (which thread claims a block, sleeps, is woken, or is wanted) are
//! `sexton-cleanup`'s. This file starts the threads it is asked for and joins them.
//!
//! Invariant: after a shutdown every thread has ended, with two exceptions, which are left to end
//! on their own. One is a thread that is stuck in a cleanup or in a hook when the deadline passes.
//! The other is a thread that itself drops the pool's last handle.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sexton_cleanup::{
    CleanupPanic, Pool, PoolConfig, PoolDump, PoolStats, Role, SlowCleanup, Spawn, SpawnFailure,
    WaitError, in_cleanup,
};
use sexton_sync::PerProcess;
use sexton_sync::{Condvar, Mutex, wait_until};

use crate::threads;

/// A bounded set of worker threads that run the cleanups of any number of heaps.
///
/// This is a cheap handle: clones share the pool. Threads are started when cleanups wait for them,
/// never more than the bound.
///
/// Dropping the last handle shuts the pool down as [`shutdown`](CleanupPool::shutdown) with five
/// seconds does. The heaps' handles count. There is one exception: a heap of the pool has waited in
/// vain when it was dropped. Then the drop waits no more, and the workers run what is queued and
/// leave.
///
/// # After a `fork`
///
/// The child of a `fork` has none of the threads of a pool made before. There the pool runs
/// nothing, and its methods return at once. Its heaps drop the captures of cleanups that are due.
/// Pools and heaps made in the child work.
#[derive(Clone)]
pub struct CleanupPool {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Pool>,
    threads: Arc<Threads>,
    shut_down: AtomicBool,
    /// The last handle's drop is not to wait. A heap has waited for its cleanups as long as it was
    /// told to, and has left them to the workers. Set by heaps that are dropped, once.
    leave_running: AtomicBool,
}

impl CleanupPool {
    /// Returns the pool of all heaps that were not given another: `max(1, cpus / 4)` workers.
    ///
    /// It lives as long as the process. The child of a `fork` has its own.
    pub fn global() -> &'static CleanupPool {
        static GLOBAL: PerProcess<CleanupPool> = PerProcess::new();
        GLOBAL.get(|| CleanupPool::builder().build())
    }

    /// Returns the default settings for a pool; [`build`](CleanupPoolBuilder::build) makes it.
    pub fn builder() -> CleanupPoolBuilder {
        CleanupPoolBuilder {
            threads: ThreadSettings {
                name: "sexton".to_owned(),
                stack_size: None,
                spawn: Arc::new(|thread, body| thread.spawn(body)),
            },
            config: PoolConfig { max_workers: default_workers(), ..PoolConfig::default() },
        }
    }

    /// Makes a pool without threads: cleanups wait for [`run_pending`](CleanupPool::run_pending).
    ///
    /// What its heaps queue when they are dropped waits like all the rest. Call `run_pending` once
    /// more then, because the pool's end discards what was not run.
    pub fn manual() -> CleanupPool {
        Self::builder().max_workers(0).build()
    }

    /// Runs up to `max` queued cleanups on this thread, and returns how many it ran.
    ///
    /// Any thread may call it, on any pool. But cleanups do not nest, so within one it runs none.
    ///
    /// When none is queued it takes over what waits behind cleanups on other threads. It does so in
    /// each block of up to 126 that was begun [`stall_after`](CleanupPoolBuilder::stall_after) ago
    /// or earlier. So if it returns less than `max`, only blocks that were begun later still have
    /// cleanups that wait.
    pub fn run_pending(&self, max: usize) -> usize {
        self.shared.core.run_pending(max)
    }

    /// Returns the pool's counters. Never blocks.
    pub fn stats(&self) -> PoolStats {
        self.shared.core.stats()
    }

    /// Returns what every worker and helping thread is doing now, and the backlog. Never blocks.
    ///
    /// It is for a log, or to find out why a cleanup has not run.
    pub fn dump(&self) -> PoolDump {
        self.shared.core.dump()
    }

    /// Gives back the memory of blocks that hold no cleanup, and returns how many bytes.
    ///
    /// Blocks take 4 bytes for each cleanup that has ever been queued at the same time. The call
    /// takes some ten nanoseconds for each free block. Blocks that are in use keep the memory of
    /// all, until a later call: then it returns 0. The memory goes to the process's allocator,
    /// which may keep it. The records of cleanups stay, for those registered later. It is 0 in the
    /// child of a `fork`, if the pool was made before.
    ///
    /// For objects see [`Heap::trim`](crate::Heap::trim).
    pub fn trim(&self) -> u64 {
        self.shared.core.trim()
    }

    /// Returns the most workers the pool has at a time; 0 for a manual pool.
    pub fn max_workers(&self) -> usize {
        self.shared.core.max_workers()
    }

    /// Changes the most workers the pool has at a time.
    ///
    /// If cleanups wait, workers are added at once. A surplus worker leaves as soon as it has no
    /// cleanup in hand. With 0 there are none. What is queued then waits for workers, for a call of
    /// [`run_pending`](Self::run_pending), or for a thread that waits for it.
    ///
    /// # Panics
    ///
    /// Above 4096, and on a manual pool unless `workers` is 0.
    #[track_caller]
    pub fn set_max_workers(&self, workers: usize) {
        check_workers(workers);
        let manual = self.shared.core.is_manual();
        assert!(
            !manual || workers == 0,
            "max_workers is {workers} for a manual pool, which has no threads; valid is 0"
        );
        self.shared.core.set_max_workers(workers);
    }

    /// Ends the pool: its workers run what is queued, leave, and are joined.
    ///
    /// If there is no worker, because none can be started or the bound is 0, this thread runs it. A
    /// manual pool's work is discarded; call [`run_pending`](Self::run_pending) first. What has not
    /// been begun by the end of `timeout` is not run, and its captures are dropped. So are those of
    /// cleanups that heaps queue afterwards. The end is for all handles; a second call finds little
    /// left to do.
    ///
    /// It takes longer than `timeout` if destructors of captures do, or a cleanup that this thread
    /// runs. A hook that has not returned by then is left behind. Called within a cleanup or a hook
    /// it does not wait, and leaves the rest to the workers.
    ///
    /// # Errors
    ///
    /// [`ShutdownTimeout`] if not all that was queued has run. Either a worker was still in a
    /// cleanup when `timeout` had passed; its thread ends when that cleanup does. Or cleanups were
    /// discarded; the error has their number. At once if the pool was made before a `fork`, in
    /// another process.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), ShutdownTimeout> {
        self.shared.shutdown(timeout)
    }

    fn from_parts(core: Arc<Pool>, threads: Arc<Threads>) -> Self {
        CleanupPool {
            shared: Arc::new(Shared {
                core,
                threads,
                shut_down: AtomicBool::new(false),
                leave_running: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn core(&self) -> &Arc<Pool> {
        &self.shared.core
    }

    /// Lets the last handle's drop leave the workers to run what is queued, and not wait.
    pub(crate) fn leave_running(&self) {
        // Relaxed: read by the drop of the last handle, which comes after this one's.
        self.shared.leave_running.store(true, Relaxed);
    }

    /// Returns whether queued cleanups run without a call of `run_pending`.
    pub(crate) fn runs_by_itself(&self) -> bool {
        !self.shared.core.is_manual()
            && !self.shared.shut_down.load(Relaxed)
            && !self.shared.core.is_inherited()
    }
}

impl fmt::Debug for CleanupPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanupPool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Shared {
    fn shutdown(&self, timeout: Duration) -> Result<(), ShutdownTimeout> {
        if self.core.is_inherited() {
            return Err(ShutdownTimeout { workers: 0, discarded: 0, forked: true });
        }
        // Relaxed: only tells droppers of heaps not to wait for workers that are leaving.
        self.shut_down.store(true, Relaxed);
        // 1. Workers drain the list and leave.
        self.core.begin_shutdown();
        // 2. Wait for them; but a cleanup cannot wait for the thread it runs on. The last worker to
        //    leave then does what remains.
        if in_cleanup() {
            self.core.discard_after_the_last();
            return Ok(());
        }
        let deadline = Instant::now().checked_add(timeout);
        let left = self.core.wait_until_workers_left(timeout);
        // 3. What no thread will run gives its captures back.
        let discarded = self.core.discard_pending() as u64;
        // The last ones may have come back just now.
        let workers = self.core.stats().workers;
        let left = left || workers == 0;
        // 4. Threads whose worker has left are about to end.
        if left {
            self.threads.join(deadline);
        }
        if left && discarded == 0 {
            return Ok(());
        }
        Err(ShutdownTimeout { workers, discarded, forked: false })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.leave_running.load(Relaxed) {
            self.core.begin_shutdown();
            return;
        }
        // A stuck worker keeps what it needs alive by itself.
        let _ = self.shutdown(DROP_TIMEOUT);
    }
}

const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns Go's bound: a quarter of the processors, at least one.
fn default_workers() -> usize {
    (thread::available_parallelism().map_or(1, usize::from) / 4).max(1)
}

/// How threads are made.
struct ThreadSettings {
    name: String,
    stack_size: Option<usize>,
    spawn: Arc<SpawnThread>,
}

type SpawnThread =
    dyn Fn(thread::Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> + Send + Sync;

/// The threads of one pool.
struct Threads {
    settings: ThreadSettings,
    started: Mutex<Started>,
    /// A thread has been started, or a monitor has returned.
    changed: Condvar,
}

#[derive(Default)]
struct Started {
    handles: Vec<JoinHandle<()>>,
    monitors: Vec<JoinHandle<()>>,
    /// Calls of the spawn hook that have not returned. The thread may be at work already.
    starting: usize,
    /// Monitors that have not returned: in a hook of the user's, maybe.
    watching: usize,
}

impl Threads {
    fn start(
        self: &Arc<Self>,
        role: &str,
        list: fn(&mut Started) -> &mut Vec<JoinHandle<()>>,
        body: Box<dyn FnOnce() + Send>,
    ) -> io::Result<()> {
        let name = threads::name(&self.settings.name, role);
        let mut thread = thread::Builder::new().name(name);
        if let Some(bytes) = self.settings.stack_size {
            thread = thread.stack_size(bytes);
        }
        let _starting = self.count(|started| &mut started.starting);
        // Unlocked: the hook is the user's.
        let spawn = || (self.settings.spawn)(thread, body);
        let handle = threads::without_signals(spawn)?;
        let mut started = self.started.lock();
        let handles = list(&mut started);
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        Ok(())
    }

    /// Joins the threads, but for the current one.
    ///
    /// All workers are past their last cleanup. A monitor that has not returned by the deadline is
    /// left to itself. So is a thread whose start has not.
    fn join(&self, deadline: Option<Instant>) {
        let mut started = self.started.lock();
        while started.starting + started.watching > 0 {
            if wait_until(&self.changed, &mut started, deadline) {
                break;
            }
        }
        let mut handles = std::mem::take(&mut started.handles);
        let monitors = std::mem::take(&mut started.monitors);
        if started.watching == 0 {
            handles.extend(monitors);
        }
        drop(started);
        let current = thread::current().id();
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != current) {
            // A worker's panic was counted when it happened.
            let _ = handle.join();
        }
    }

    /// Counts one more, until dropped.
    fn count(self: &Arc<Self>, number: fn(&mut Started) -> &mut usize) -> Counted {
        *number(&mut self.started.lock()) += 1;
        Counted { threads: self.clone(), number }
    }
}

/// One of those that [`Started`] counts.
struct Counted {
    threads: Arc<Threads>,
    number: fn(&mut Started) -> &mut usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        *(self.number)(&mut self.threads.started.lock()) -= 1;
        self.threads.changed.notify_all();
    }
}

struct Spawner {
    threads: Arc<Threads>,
}

impl Spawn for Spawner {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        match role {
            Role::Worker(index) => {
                self.threads.start(&index.to_string(), |started| &mut started.handles, run)
            }
            Role::Monitor => {
                let watching = self.threads.count(|started| &mut started.watching);
                let body = Box::new(move || {
                    run();
                    drop(watching);
                });
                self.threads.start("mon", |started| &mut started.monitors, body)
            }
        }
    }
}

/// The error of a shutdown that ended before all that was queued had run, or could not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownTimeout {
    /// Workers that have not left: each is in a cleanup, or about to leave.
    pub workers: usize,
    /// Cleanups that were queued and do not run because of this shutdown.
    ///
    /// Those count whose captures a worker drops, at this moment perhaps. Cleanups that heaps queue
    /// afterwards are in [`PoolStats::discarded`] only.
    /// Two shutdowns at a time may both count the same cleanup.
    pub discarded: u64,
    /// This process is the child of a `fork`, and the pool was made before.
    ///
    /// Its workers are not in this process.
    pub forked: bool,
}

impl fmt::Display for ShutdownTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, discarded, forked } = self;
        if *forked {
            return write!(f, "nothing to shut down: {}", WaitError::Forked);
        }
        let s = |n: u64| if n == 1 { "" } else { "s" };
        if *workers > 0 {
            let s = s(*workers as u64);
            write!(f, "shutdown timed out with {workers} worker{s} still in a cleanup; ")?;
        }
        write!(f, "{discarded} queued cleanup{} discarded without being run", s(*discarded))
    }
}

impl Error for ShutdownTimeout {}

/// Settings of a [`CleanupPool`], from [`CleanupPool::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct CleanupPoolBuilder {
    threads: ThreadSettings,
    config: PoolConfig,
}

impl CleanupPoolBuilder {
    /// Sets the most worker threads; 0 makes a manual pool. Default: `max(1, cpus / 4)`.
    ///
    /// With one worker, a cleanup that does not return holds up all others. With more, it costs
    /// itself: others take over what is behind it.
    ///
    /// # Panics
    ///
    /// Above 4096.
    #[track_caller]
    pub fn max_workers(mut self, workers: usize) -> Self {
        check_workers(workers);
        self.config.max_workers = workers;
        self
    }

    /// Sets how long a worker is idle before its thread ends. Default: 10 seconds.
    ///
    /// The pool shrinks by one worker in that time, and not within that time of having grown.
    /// [`Duration::MAX`] keeps the workers.
    pub fn keep_alive(mut self, time: Duration) -> Self {
        // A time that the clock cannot hold is for ever.
        self.config.keep_alive = std::time::Instant::now().checked_add(time).map(|_| time);
        self
    }

    /// Sets how long a cleanup runs before other workers take over those behind it.
    ///
    /// Default: 20 milliseconds. A stall is found out with a delay of up to half of that time, and
    /// of a second at most. A time below a millisecond counts as a millisecond; [`Duration::MAX`]
    /// switches it off.
    pub fn stall_after(mut self, time: Duration) -> Self {
        self.config.stall_after = time.max(Duration::from_millis(1));
        self
    }

    /// Sets the name of the pool's threads, to which each appends its own part.
    ///
    /// Default: `sexton`, so that there are `sexton-0`, `sexton-1` and so on, and the monitor
    /// `sexton-mon`.
    ///
    /// A long name is cut so that the whole has at most 15 bytes, which is what Linux shows.
    ///
    /// # Panics
    ///
    /// If the name contains a NUL byte, which no thread's name can.
    #[track_caller]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.threads.name = name.into();
        assert!(
            !self.threads.name.contains('\0'),
            "thread name {:?} contains a NUL byte; valid is any other text",
            self.threads.name
        );
        self
    }

    /// Sets the stack size of the pool's threads, in bytes. Default: the standard library's.
    ///
    /// If the system gives no such stack, the thread cannot be started; see
    /// [`on_spawn_failure`](Self::on_spawn_failure).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.threads.stack_size = Some(bytes);
        self
    }

    /// Starts the pool's threads by `spawn`.
    ///
    /// It is given a builder with name and stack size, and what the thread is to do. It is for
    /// threads that need a priority, a place or a runtime of their own.
    ///
    /// A thread started here blocks all signals but those of its own faults and a profiler's. So
    /// the program's handlers are left to the program's threads. The signals are blocked on the
    /// calling thread while `spawn` runs.
    ///
    /// It is called on threads that collect, so it should not wait for anything. A panic in it is a
    /// failure. The thread is joined by a shutdown, so it should end when what it is given returns.
    pub fn spawn_hook(
        mut self,
        spawn: impl Fn(thread::Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.threads.spawn = Arc::new(spawn);
        self
    }

    /// Calls `hook` for every cleanup that panics, on the thread that ran it.
    ///
    /// The panic has been counted and printed by then. All other cleanups still run.
    pub fn on_panic(mut self, hook: impl Fn(&CleanupPanic<'_>) + Send + Sync + 'static) -> Self {
        self.config.hooks.panic = Some(Arc::new(hook));
        self
    }

    /// Ends the process when a cleanup panics. Default: off.
    ///
    /// The hook of [`on_panic`](Self::on_panic) is called first. This is for programs in which a
    /// cleanup that was not completed is worse.
    pub fn abort_on_panic(mut self, abort: bool) -> Self {
        self.config.hooks.abort_on_panic = abort;
        self
    }

    /// Calls `hook` once for every cleanup that has run for longer than `after`.
    ///
    /// It is called on the pool's monitor thread, or on one that meanwhile looks for work in
    /// [`run_pending`](CleanupPool::run_pending). A manual pool has only those. The hook should not
    /// wait for anything: until it returns the monitor takes over nothing, and tries to start no
    /// worker.
    pub fn on_slow(
        mut self,
        after: Duration,
        hook: impl Fn(&SlowCleanup) + Send + Sync + 'static,
    ) -> Self {
        self.config.hooks.slow = Some((after, Arc::new(hook)));
        self
    }

    /// Calls `hook` for every thread that could not be started, on the thread that wanted it.
    ///
    /// No cleanup is lost:
    ///
    /// - The monitor tries again, first after some milliseconds.
    /// - The next collection or wait tries, also where the monitor itself could not be started.
    /// - A wait runs the cleanups itself if there is no worker.
    pub fn on_spawn_failure(
        mut self,
        hook: impl Fn(&SpawnFailure<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.config.hooks.spawn_failure = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` when there are cleanups for [`run_pending`](CleanupPool::run_pending).
    ///
    /// So an event loop need not ask. It is called on the thread that queued them, in the middle of
    /// its collection. It is to wake the loop and nothing else. It is not called again before the
    /// next call of `run_pending`.
    pub fn on_ready(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.config.hooks.ready = Some(Arc::new(hook));
        self
    }

    /// Makes the pool. Starts no thread yet.
    pub fn build(self) -> CleanupPool {
        let threads = Arc::new(Threads {
            settings: self.threads,
            started: Mutex::default(),
            changed: Condvar::new(),
        });
        let spawner = (self.config.max_workers > 0)
            .then(|| Box::new(Spawner { threads: threads.clone() }) as Box<dyn Spawn>);
        CleanupPool::from_parts(Pool::new(self.config, spawner), threads)
    }
}

#[track_caller]
fn check_workers(workers: usize) {
    assert!(workers <= 4096, "max_workers is {workers}; valid is 0 to 4096");
}

impl fmt::Debug for CleanupPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanupPoolBuilder")
            .field("thread_name", &self.threads.name)
            .field("stack_size", &self.threads.stack_size)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
