//! `CleanupPool`: the bounded set of threads that run cleanups, and their end.
//!
//! The protocols (who claims a block, who sleeps, who is woken, when a thread is wanted) are
//! `sexton-cleanup`'s. This file starts the threads it is asked for and joins them.
//!
//! Invariant: after a shutdown every thread has ended, but for one that is stuck in a cleanup when the
//! deadline passes, or that itself drops the pool's last handle; those are left to end on their own.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use sexton_cleanup::{CleanupPanic, Pool, PoolConfig, PoolStats, Spawn, Worker, in_cleanup};

/// A bounded set of worker threads that run the cleanups of any number of heaps.
///
/// A cheap handle: clones share the pool. Threads are started when cleanups wait for them, never more
/// than the bound. Dropping the last handle, heaps' handles included, shuts the pool down as
/// [`shutdown`](CleanupPool::shutdown) with five seconds does.
#[derive(Clone)]
pub struct CleanupPool {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Pool>,
    threads: Arc<Threads>,
    max_workers: usize,
    shut_down: AtomicBool,
    /// Its end is not to wait: a heap that holds the last handle has waited as long as it was told to.
    leave_running: AtomicBool,
}

impl CleanupPool {
    /// The pool of all heaps that were not given another: `max(1, cpus / 4)` workers. It lives as
    /// long as the process.
    pub fn global() -> &'static CleanupPool {
        static GLOBAL: OnceLock<CleanupPool> = OnceLock::new();
        GLOBAL.get_or_init(|| CleanupPool::builder().build())
    }

    /// Settings for a pool; ends in [`build`](CleanupPoolBuilder::build).
    pub fn builder() -> CleanupPoolBuilder {
        CleanupPoolBuilder {
            max_workers: default_workers(),
            thread_name: "sexton-cleanup".to_owned(),
            config: PoolConfig::default(),
        }
    }

    /// A pool without threads: cleanups wait until somebody calls
    /// [`run_pending`](CleanupPool::run_pending).
    pub fn manual() -> CleanupPool {
        Self::builder().build_manual()
    }

    /// Runs up to `max` queued cleanups on this thread, and returns how many it ran. Any thread may
    /// call it, on any pool; but cleanups do not nest, so within one it runs none.
    pub fn run_pending(&self, max: usize) -> usize {
        self.shared.core.run_pending(max)
    }

    /// The pool's counters. Never blocks.
    pub fn stats(&self) -> PoolStats {
        self.shared.core.stats()
    }

    /// The most workers the pool starts; 0 for a manual pool.
    pub fn max_workers(&self) -> usize {
        self.shared.max_workers
    }

    /// Ends the pool: its workers run what is queued, leave, and are joined. A manual pool has none: what
    /// is queued there is discarded; call [`run_pending`](Self::run_pending) first. What they have not begun
    /// by the end of `timeout` is not run; its captures are dropped, and so are those of cleanups that
    /// heaps queue afterwards. For all handles; a second call finds little left to do.
    ///
    /// Called within a cleanup it does not wait, and leaves the rest to the workers.
    ///
    /// # Errors
    ///
    /// [`ShutdownTimeout`] if a worker was still in a cleanup when `timeout` had passed; its thread
    /// ends when that cleanup does.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), ShutdownTimeout> {
        self.shared.shutdown(timeout)
    }

    fn from_parts(core: Arc<Pool>, threads: Arc<Threads>, max_workers: usize) -> Self {
        CleanupPool {
            shared: Arc::new(Shared {
                core,
                threads,
                max_workers,
                shut_down: AtomicBool::new(false),
                leave_running: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn core(&self) -> &Arc<Pool> {
        &self.shared.core
    }

    /// If this is the last handle, lets its drop leave the workers to run what is queued, and not wait.
    pub(crate) fn leave_running_if_last(&self) {
        if Arc::strong_count(&self.shared) == 1 {
            // Relaxed: read by this thread, when it drops the handle.
            self.shared.leave_running.store(true, Relaxed);
        }
    }

    /// Whether queued cleanups run without anybody calling `run_pending`.
    pub(crate) fn runs_by_itself(&self) -> bool {
        self.shared.max_workers > 0 && !self.shared.shut_down.load(Relaxed)
    }
}

impl fmt::Debug for CleanupPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanupPool")
            .field("max_workers", &self.shared.max_workers)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn shutdown(&self, timeout: Duration) -> Result<(), ShutdownTimeout> {
        // Relaxed: only tells droppers of heaps not to wait for workers that are leaving.
        self.shut_down.store(true, Relaxed);
        // 1. Workers drain the list and leave.
        self.core.begin_shutdown();
        // 2. Wait for them; but a cleanup cannot wait for the thread it runs on. The last worker to leave
        //    then does what remains.
        if in_cleanup() {
            self.core.discard_after_the_last();
            return Ok(());
        }
        let left = self.core.wait_until_workers_left(timeout);
        // 3. What nobody will run gives its captures back.
        let discarded = self.core.discard_pending() as u64;
        // 4. Threads whose worker has left are about to end.
        if left {
            self.threads.join();
            return Ok(());
        }
        Err(ShutdownTimeout { workers: self.core.stats().workers, discarded })
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

/// Go's bound: a quarter of the processors, at least one.
fn default_workers() -> usize {
    (thread::available_parallelism().map_or(1, usize::from) / 4).max(1)
}

/// The threads of one pool.
struct Threads {
    name: String,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Joins the threads, all of which are past their last cleanup; not the current one.
    fn join(&self) {
        let handles = std::mem::take(&mut *self.handles.lock());
        let current = thread::current().id();
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != current) {
            // A worker's panic was counted when it happened.
            let _ = handle.join();
        }
    }
}

struct Spawner {
    threads: Arc<Threads>,
}

impl Spawn for Spawner {
    fn spawn(&self, worker: Worker) -> io::Result<()> {
        let name = format!("{}-{}", self.threads.name, worker.index());
        let mut handles = self.threads.handles.lock();
        handles.retain(|handle| !handle.is_finished());
        handles.push(thread::Builder::new().name(name).spawn(move || worker.run())?);
        Ok(())
    }
}

/// A shutdown's deadline passed while cleanups were running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownTimeout {
    /// Workers still in a cleanup.
    pub workers: usize,
    /// Queued cleanups that will not run; their captures were dropped.
    pub discarded: u64,
}

impl fmt::Display for ShutdownTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shutdown timed out with {} workers still in a cleanup; {} queued cleanups were discarded",
            self.workers, self.discarded
        )
    }
}

impl Error for ShutdownTimeout {}

/// Settings of a [`CleanupPool`], from [`CleanupPool::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct CleanupPoolBuilder {
    max_workers: usize,
    thread_name: String,
    config: PoolConfig,
}

impl CleanupPoolBuilder {
    /// The most worker threads; 0 makes a manual pool. Default: `max(1, cpus / 4)`.
    ///
    /// # Panics
    ///
    /// Above 4096.
    pub fn max_workers(mut self, workers: usize) -> Self {
        assert!(workers <= 4096, "max_workers is {workers}; valid is 0 to 4096");
        self.max_workers = workers;
        self
    }

    /// The name of the worker threads, which a number is appended to. Default: `sexton-cleanup`.
    ///
    /// # Panics
    ///
    /// If the name contains a NUL byte, which no thread's name can.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        assert!(
            !self.thread_name.contains('\0'),
            "thread name {:?} contains a NUL byte; valid is any other text",
            self.thread_name
        );
        self
    }

    /// Calls `hook` for every cleanup that panics, on the thread that ran it. The panic has been
    /// counted and printed by then; all other cleanups still run.
    pub fn on_panic(mut self, hook: impl Fn(&CleanupPanic<'_>) + Send + Sync + 'static) -> Self {
        self.config.panic_hook = Some(Arc::new(hook));
        self
    }

    /// The pool. Starts no thread yet.
    pub fn build(mut self) -> CleanupPool {
        if self.max_workers == 0 {
            return self.build_manual();
        }
        self.config.max_workers = self.max_workers;
        let threads = Arc::new(Threads { name: self.thread_name, handles: Mutex::default() });
        let spawner = Spawner { threads: threads.clone() };
        let core = Pool::new(self.config, Some(Box::new(spawner)));
        let max_workers = self.max_workers;
        CleanupPool::from_parts(core, threads, max_workers)
    }

    fn build_manual(mut self) -> CleanupPool {
        self.config.max_workers = 0;
        let threads = Arc::new(Threads { name: self.thread_name, handles: Mutex::default() });
        let core = Pool::new(self.config, None);
        CleanupPool::from_parts(core, threads, 0)
    }
}

impl fmt::Debug for CleanupPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanupPoolBuilder")
            .field("max_workers", &self.max_workers)
            .field("thread_name", &self.thread_name)
            .finish_non_exhaustive()
    }
}
