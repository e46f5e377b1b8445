//! `Heap`: the rooted heap with its policy.
//!
//! The policy says when to collect, where cleanups go, and what the end of a heap means for them.
//!
//! Invariant: a cleanup of a heap's object is always armed in the heap, queued in its pool, or
//! ended. Dropping the heap leaves none armed.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use sexton_cleanup::{Client, WaitError, in_cleanup};

use sexton_heap::{
    Branded, GcReport, HeapConfig, HeapId, HeapStats, Local, Mode, Mutation, OldRoot, OnDrop,
    Pacing, Payload, Progress, RawHeap, Root, Shared, SharedRoot, SlowSession, VerifyError,
};
use sexton_sync::drop_quietly;

use crate::back_pressure::{BackPressure, HighWater};
use crate::gc_threads::Access;
use crate::pool::CleanupPool;

/// A mark-sweep heap with a typed root.
///
/// `R` is the root's type with its brand left open, such as `World<'static>`; see [`Branded`]. `M`
/// is the mode:
///
/// - [`Local`], the default: payloads of any kind, and one mutator, the heap itself. It stays on
///   the thread that made it, and is neither `Send` nor `Sync`. To use one on another thread, make
///   it there.
/// - [`Shared`]: payloads that are `Send + Sync`, and any number of threads. Each thread
///   [attaches](Heap::attach) a [`Mutator`](crate::Mutator). The heap is `Send` and `Sync`; share
///   it by reference with scoped threads, or in an `Arc`. A cleanup or a payload that needs its
///   heap holds a `std::sync::Weak` of that `Arc`. An `Arc` in there would keep the heap, and so
///   itself, for ever.
///
/// Dropping a heap drops all its objects. What becomes of their cleanups is its [`OnDrop`] policy.
pub struct Heap<R: Branded, M: Mode = Local> {
    pub(crate) inner: RawHeap<R, M>,
    high_water: HighWater,
    /// Behind `inner`, whose drop queues the cleanups.
    end: WaitOnDrop,
}

/// Waits for a heap's cleanups when the heap itself is gone.
struct WaitOnDrop {
    client: Client,
    pool: CleanupPool,
    timeout: Duration,
}

impl Drop for WaitOnDrop {
    fn drop(&mut self) {
        if self.pool.runs_by_itself() && !in_cleanup() {
            // A timeout loses nothing: what is left stays queued in the pool. Its workers run it
            // even if the last handle goes. That may be this one, or that of a heap with nothing to
            // wait for.
            if self.client.ticket().wait(self.timeout).is_err() {
                self.pool.leave_running();
            }
        }
    }
}

impl<R: Branded, M: Mode> Heap<R, M> {
    /// Makes a heap with default settings, whose root `f` makes.
    ///
    /// # Panics
    ///
    /// If `f` does.
    pub fn new(f: impl for<'gc> FnOnce(&'gc Mutation<'gc, M>) -> R::At<'gc>) -> Self
    where
        for<'gc> R::At<'gc>: Payload<M>,
    {
        Self::builder().build(f)
    }

    /// Returns the default settings for a heap; [`build`](HeapBuilder::build) makes it.
    pub fn builder() -> HeapBuilder<R, M> {
        let threads = Access::default();
        HeapBuilder {
            pool: None,
            config: HeapConfig {
                spawn_helper: Some(Arc::new(move |_, job| threads.run(job))),
                ..HeapConfig::default()
            },
            drop_timeout: DEFAULT_DROP_TIMEOUT,
            high_water: HighWater::default(),
            heap: PhantomData,
        }
    }

    /// Makes a heap of this one, whose root `f` makes of the root that there is.
    ///
    /// The root comes by value, so what `f` does not take over goes. The objects stay, and so do
    /// cleanups, [`Root`]s, settings and the heap's number. A program that is to begin with one
    /// type of root, and to go on with another, does without an `Option`:
    ///
    /// ```
    /// use sexton::{Gc, Heap, Leaf, Trace};
    ///
    /// #[derive(Trace)]
    /// struct Loading<'gc> { names: Vec<Gc<'gc, Leaf<String>>> }
    ///
    /// #[derive(Trace)]
    /// struct Ready<'gc> { names: Box<[Gc<'gc, Leaf<String>>]>, longest: Gc<'gc, Leaf<String>> }
    ///
    /// let heap: Heap<Loading<'static>> = Heap::new(|mc| {
    ///     let names = ["Ada", "Barbara"].map(|name| mc.alloc(Leaf::new(name.to_owned())));
    ///     Loading { names: names.into() }
    /// });
    /// let mut heap: Heap<Ready<'static>> = heap.map_root(|_mc, Loading { names }| {
    ///     let longest = *names.iter().max_by_key(|name| name.len()).expect("there are names");
    ///     Ready { names: names.into(), longest }
    /// });
    /// assert_eq!(heap.mutate(|_mc, root| root.longest.len()), 7);
    /// ```
    ///
    /// A cycle that is under way is given up if it marks, or run to its end. None runs afterwards,
    /// as with [`new`](Self::new). Back-pressure is left to the next cycle. A `Shared` heap has no
    /// mutators meanwhile, as they borrow it, or have its `Arc`. O(1) beside that and `f`.
    ///
    /// # Panics
    ///
    /// If `f` does: then the heap is dropped. If the end of the cycle does, for the reasons that
    /// [`collect`](Heap::collect) gives. In the child of a `fork`, if the heap is `Shared` and was
    /// made before.
    pub fn map_root<Q: Branded>(
        self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, M>, R::At<'gc>) -> Q::At<'gc>,
    ) -> Heap<Q, M>
    where
        for<'gc> Q::At<'gc>: Payload<M>,
    {
        let Heap { inner, high_water, end } = self;
        Heap { inner: inner.map_root(f), high_water, end }
    }

    /// Applies the heap's back-pressure. Called after a cycle, between sessions.
    pub(crate) fn apply_back_pressure(&self) {
        self.high_water.apply(self.inner.client(), &self.end.pool);
        if self.inner.has_short_quota() && self.end.pool.runs_by_itself() && !in_cleanup() {
            // They may give back what there are few of. If they do not in time, the program finds
            // none left, as it would have without.
            _ = self.wait_for_cleanups(QUOTA_TIMEOUT);
        }
    }

    /// Returns the report of the last cycle; `None` before the first.
    ///
    /// A cycle is run by [`collect`](Heap::collect) or at a session's end.
    pub fn last_report(&self) -> Option<GcReport> {
        self.inner.last_report()
    }

    /// Returns the heap's counters, those of its cleanups included.
    ///
    /// It waits for no cycle, session or cleanup. For what the counters leave out in a [`Shared`]
    /// heap see [`HeapStats`].
    pub fn stats(&self) -> HeapStats {
        self.inner.stats()
    }

    /// Waits until every cleanup of this heap that was queued before the call has ended.
    ///
    /// Cleanups queued later, and those of other heaps, do not prolong it. It must not be called
    /// within a session of a [`Shared`] heap. There it would keep every collection waiting, and
    /// with it cleanups that open a session.
    ///
    /// `Ok` means that the cleanups have ended, not that each has run. Some may have been stopped,
    /// or discarded by the pool's shutdown; `stats().cleanups` has both numbers.
    ///
    /// A manual pool's cleanups are run by no other thread: call
    /// [`run_pending`](CleanupPool::run_pending) there. A pool may have no worker, because none
    /// could be started or its bound is 0. Then this thread runs cleanups itself, those of other
    /// heaps too. It may overrun `timeout` by as long as one takes.
    ///
    /// # Errors
    ///
    /// - [`WaitError::Timeout`] with the number still pending after `timeout`.
    /// - [`WaitError::FromCleanup`] at once if called within a cleanup.
    /// - [`WaitError::Forked`] at once in the child of a `fork`, if the heap was made before.
    pub fn wait_for_cleanups(&self, timeout: Duration) -> Result<(), WaitError> {
        self.inner.ticket().wait(timeout)
    }

    /// Returns the roots that have lived for at least `cycles` collections, the oldest first.
    ///
    /// Each comes with its type and the place where it was made. A root is the one way left to keep
    /// an object, and so its cleanups, from dying by mistake. O(roots).
    pub fn old_roots(&self, cycles: u64) -> Vec<OldRoot> {
        self.inner.old_roots(cycles)
    }

    /// Returns the heap's number, by which messages name it.
    pub fn id(&self) -> HeapId {
        self.inner.id()
    }

    /// Returns the pool that runs the heap's cleanups.
    pub fn cleanup_pool(&self) -> &CleanupPool {
        &self.end.pool
    }
}

impl<R: Branded> Heap<R> {
    /// Opens a session: calls `f` with the means to change the heap, and its root.
    ///
    /// It collects when the session ends, if the pacer says so. No collection begins before. One
    /// that is under way may get on while the session allocates; see
    /// [`pause_budget`](HeapBuilder::pause_budget).
    ///
    /// A panic in `f` ends the session and leaves the heap usable. It does not collect, with
    /// one exception: the session was refused an object because of
    /// [`max_bytes`](HeapBuilder::max_bytes). Without a collection the next session would find the
    /// heap as full.
    ///
    /// # Panics
    ///
    /// If `f` does. And if the collection at the end does, for the reasons that
    /// [`collect`](Heap::collect) gives: then what `f` returned is lost.
    #[inline]
    pub fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc>, &'gc R::At<'gc>) -> T,
    ) -> T {
        let unwinding = CollectIfRefused(self);
        let result = unwinding.0.inner.mutate(f);
        std::mem::forget(unwinding);
        if self.inner.wants_collection() {
            self.collect_what_is_due();
        }
        result
    }

    /// Runs one full cycle, then applies the heap's [`BackPressure`].
    ///
    /// The cycle marks what the roots reach and sweeps everything. It queues the cleanups of the
    /// dead and wakes workers for them. Linear in live objects and in spans.
    ///
    /// # Panics
    ///
    /// - If a hand-written `Trace` panics: then nothing is swept, and the heap stays usable.
    /// - In zeal mode, if the heap fails its verification.
    /// - If the hook of a [`BackPressure::Call`] panics.
    pub fn collect(&mut self) -> GcReport {
        let report = self.inner.collect();
        self.apply_back_pressure();
        report
    }

    #[cold]
    #[inline(never)]
    fn collect_what_is_due(&mut self) {
        if self.inner.collect_if_due().is_some() {
            self.apply_back_pressure();
        }
    }

    /// Gets on with a collection for about `budget`, and begins one if none is under way.
    ///
    /// For a program that has idle time: between two frames, or while it waits for input. Calls
    /// until [`Progress::Finished`] run one cycle, which frees what was unreachable when it began.
    /// A `budget` of zero does the least there is to do: some hundred objects. Automatic
    /// collections go on beside it, in slices of [`HeapBuilder::pause_budget`].
    ///
    /// # Panics
    ///
    /// As [`collect`](Self::collect).
    pub fn step(&mut self, budget: Duration) -> Progress {
        let progress = self.inner.step(budget);
        if progress.is_finished() {
            self.apply_back_pressure();
        }
        progress
    }

    /// Gives all memory back to the system that holds no object, and returns how many bytes.
    ///
    /// For a program that knows that it needs less from now on. A cycle gives back what has been of
    /// no use since the cycle before; this waits for nothing. It does not collect: memory of dead
    /// objects is free after [`collect`](Self::collect). What it gives back is cleared when it is
    /// touched again, 1 to 2 microseconds for 4 KiB.
    ///
    /// The number is at most what has gone: of a page that was never written to, the heap cannot
    /// tell. It takes 5 to 10 microseconds for each 64 KiB, and some for each span that stays. If
    /// the system refuses, the memory stays, and does not count. It is 0 on other systems than
    /// Linux, but for regions that are empty. The memory of cleanups is the pool's: see
    /// [`CleanupPool::trim`].
    ///
    /// ```
    /// use sexton::{Heap, Leaf, Pacing};
    ///
    /// let mut heap: Heap<()> = Heap::builder().pacing(Pacing::Manual).build(|_mc| ());
    /// heap.mutate(|mc, ()| (0..100_000_u64).for_each(|n| _ = mc.alloc(Leaf::new([n; 4]))));
    /// heap.collect();
    /// assert!(heap.trim() > 3_000_000);
    /// ```
    pub fn trim(&mut self) -> u64 {
        self.inner.trim()
    }

    /// Runs up to `max` local cleanups of dead objects on this thread, and returns how many it ran.
    ///
    /// See [`Mutation::add_cleanup_local`]. A panic in one is caught, counted and given to the
    /// pool's hook.
    pub fn run_local_cleanups(&mut self, max: usize) -> usize {
        self.inner.run_local_cleanups(max)
    }

    /// Recomputes reachability and all bookkeeping the slow way, and compares. For tests; O(heap).
    ///
    /// # Errors
    ///
    /// The first inconsistency found. It is always a bug of Sexton or of a hand-written `Trace`.
    pub fn verify(&self) -> Result<(), VerifyError> {
        self.inner.verify()
    }
}

impl<R: Branded> Heap<R, Shared> {
    /// Makes a root for other threads of one that this thread has. O(1).
    ///
    /// Takes a lock for a moment, within a session or between two. The new root keeps the object by
    /// itself, so the old one may go. The place of this call is remembered; see
    /// [`old_roots`](Self::old_roots).
    ///
    /// ```
    /// use sexton::{Heap, Leaf, Shared};
    ///
    /// let heap: Heap<(), Shared> = Heap::new(|_mc| ());
    /// let root = heap.attach().mutate(|mc, ()| heap.share(&mc.root(mc.alloc(Leaf::new(7)))));
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| heap.attach().mutate(|mc, ()| assert_eq!(**mc.fetch_shared(&root), 7)));
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// If the root belongs to another heap; the message names both.
    #[track_caller]
    pub fn share<Q: Branded>(&self, root: &Root<Q>) -> SharedRoot<'_, Q> {
        self.inner.share(root)
    }
}

/// Dropped when a session ends by a panic, and only then.
struct CollectIfRefused<'a, R: Branded>(&'a mut Heap<R>);

impl<R: Branded> Drop for CollectIfRefused<'_, R> {
    fn drop(&mut self) {
        if self.0.inner.has_refused()
            // The session's panic goes on; a second one would end the process.
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.0.collect()))
        {
            drop_quietly(payload);
        }
    }
}

impl<R: Branded, M: Mode> fmt::Debug for Heap<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("id", &self.inner.id())
            .field("stats", &self.inner.stats())
            .finish_non_exhaustive()
    }
}

/// How long the end of a session waits for the cleanups of a cycle where a quota is short.
const QUOTA_TIMEOUT: Duration = Duration::from_secs(1);

const DEFAULT_DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a [`Heap`], from [`Heap::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct HeapBuilder<R, M: Mode = Local> {
    pool: Option<CleanupPool>,
    config: HeapConfig,
    drop_timeout: Duration,
    high_water: HighWater,
    heap: PhantomData<fn() -> (R, M)>,
}

// By hand: a derive would ask the same of the root, which is not there yet.
impl<R, M: Mode> fmt::Debug for HeapBuilder<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapBuilder")
            .field("pool", &self.pool)
            .field("config", &self.config)
            .field("drop_timeout", &self.drop_timeout)
            .field("high_water", &self.high_water)
            .finish()
    }
}

impl<R: Branded, M: Mode> HeapBuilder<R, M> {
    /// Sets the pool that runs the heap's cleanups. Default: [`CleanupPool::global`].
    pub fn cleanup_pool(mut self, pool: &CleanupPool) -> Self {
        self.pool = Some(pool.clone());
        self
    }

    /// Sets the most bytes that the heap may take. Default: no limit.
    ///
    /// Past it `alloc` panics and `try_alloc` gives the value back. These count:
    ///
    /// - slots of objects: their size, rounded up to 8 bytes or to their alignment;
    /// - what the heap takes beside them ([`Overhead`](crate::Overhead)), but for
    ///   [`Overhead::ALLOWANCE`](crate::Overhead::ALLOWANCE);
    /// - memory that payloads [own outside](sexton_heap::Trace::external_bytes), a `Vec`'s or a
    ///   `String`'s;
    /// - what was [charged](sexton_heap::ExternalBytes).
    ///
    /// So the heap has no more in memory than the limit, the allowance, and 64 KiB for each type
    /// and thread that allocate. Each thread has its stack and a list of some 256 KiB besides. What
    /// comes on top of it is addresses that nothing was written to, and a mark whose list of
    /// waiting objects is longer than expected.
    ///
    /// What grows by itself is not refused: a `Vec` in a cell, a charge. The next `alloc` is. What
    /// a payload owns has been allocated before `alloc` is called, so memory in use may exceed the
    /// limit by one payload a thread.
    ///
    /// A limit brings collections forward, see [`Pacing`]. Each session that found the heap full is
    /// followed by a collection. [`Pacing::Manual`] is for programs whose heap is often full, and
    /// to which that is too much.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// Sets when to collect at the end of a session.
    ///
    /// Default: [`Pacing::Balanced`] from [`Pacing::DEFAULT_MIN_BYTES`] on. A large heap doubles
    /// before the next cycle; a small one may grow by more.
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.config.pacing = pacing;
        self
    }

    /// Sets what dropping the heap does to its cleanups. Default: [`OnDrop::RunAll`].
    pub fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.config.on_drop = on_drop;
        self
    }

    /// Sets how long dropping the heap waits for its cleanups. Default: 5 seconds.
    ///
    /// If the pool has no worker, the dropping thread runs cleanups itself. It may then overrun
    /// this time by as long as one takes; see [`OnDrop`].
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.drop_timeout = timeout;
        self
    }

    /// Sets what the heap does after a collection that leaves too many cleanups. Default: nothing.
    ///
    /// Too many are more than `high_water_mark` of its cleanups that are queued and have not ended.
    /// The policy is never applied while a session is open, and never inside a cleanup.
    pub fn back_pressure(mut self, high_water_mark: u64, policy: BackPressure) -> Self {
        self.high_water = HighWater { mark: high_water_mark, policy };
        self
    }

    /// Switches diagnostic mode: each registration remembers where it was made. Default: off.
    ///
    /// The pool's hooks and its dump then tell the place. It costs a lock and 8 bytes a cleanup;
    /// off, it costs nothing.
    pub fn diagnostics(mut self, on: bool) -> Self {
        self.config.diagnostics = on;
        self
    }

    /// Sets the most threads that mark at a time, the one that collects included; 0 counts as 1.
    ///
    /// Default: 1 in a [`Local`] heap. In a [`Shared`] heap as many as there are processors, 4 at
    /// most: while its mutators are stopped, their processors have nothing to do.
    ///
    /// Others join only when tens of thousands of objects wait to be traced. In a `Shared` heap
    /// these are threads that wait to open a session. The rest are the process's own, which all
    /// heaps share; see [`gc_threads`](crate::gc_threads()). If they cannot be started, nothing is
    /// lost.
    ///
    /// In a `Shared` heap as many threads sweep what has cleanups or drop glue, which then runs on
    /// all of them. In a `Local` heap this thread sweeps alone.
    ///
    /// What more threads are worth depends on the machine, so measure (`sexton-bench run W3`). On
    /// two cores that share a cache, a random graph of four million objects took nine tenths of the
    /// time. On two that do not, it took more than twice as long. Other graphs take the same.
    pub fn gc_threads(mut self, threads: usize) -> Self {
        self.config.gc_threads = Some(threads.max(1));
        self
    }

    /// Sets how long a slice of an automatic collection may take. The default is 1 ms.
    ///
    /// A collection that is expected to take longer runs in slices: at the end of sessions, and
    /// within sessions that allocate. Drop glue waits for the end of a session. Slices follow one
    /// another as fast as the program allocates, so that the collection ends when the heap has
    /// grown as far as it may. A slice overshoots its budget by one step that cannot be cut: some
    /// ten microseconds, or the user's own `Drop`.
    ///
    /// If the collection is late there are more slices, not longer ones. Slices get longer when the
    /// heap is a quarter past its goal, and faster if it was in the cycle before. So a program that
    /// allocates more in a session than slices sweep does not grow without end.
    ///
    /// With `None` each collection runs at once. That takes less time in all, and longer pauses.
    pub fn pause_budget(mut self, budget: Option<Duration>) -> Self {
        self.config.pause_budget = budget;
        self
    }

    /// Says whether memory that is well used is backed by pages of 2 MiB. It is, by default.
    ///
    /// A random walk over many objects misses the translation cache less then. Memory has small
    /// pages at first. A part of 2 MiB becomes one large page when a sweep has found nearly all of
    /// it in use. That copies it, in a third of a millisecond to one and a half:
    ///
    /// - at the end of a `collect`, for all such parts;
    /// - in an automatic collection, for up to an eighth of the time that its mark has taken. A
    ///   `Shared` heap does it on the thread that collects beside sessions. A `Local` one does it
    ///   in slices with room for that: not where [`pause_budget`](Self::pause_budget) is far below
    ///   1 ms.
    ///
    /// An object of more than 4 MiB has large pages from the beginning. It takes Linux 6.1, and a
    /// system that does not forbid them; otherwise all pages stay small.
    pub fn huge_pages(mut self, on: bool) -> Self {
        self.config.huge_pages = on;
        self
    }

    /// Switches zeal mode, for tests. Default: off.
    ///
    /// It collects at every session's end, overwrites dead objects, and verifies after every cycle.
    /// With debug assertions, `SEXTON_ZEAL=1` in the environment makes it the default.
    pub fn zeal(mut self, zeal: bool) -> Self {
        self.config.zeal = zeal;
        self
    }

    /// Sets how long a collection waits for a session before it reports that. Default: 10 seconds.
    ///
    /// It then calls [`on_slow_session`](Self::on_slow_session), and again when it has waited twice
    /// as long, and so on. This is for a [`Shared`] heap. [`Duration::MAX`] switches it off.
    pub fn slow_session_after(mut self, time: Duration) -> Self {
        self.config.slow_session.0 = time;
        self
    }

    /// Calls `hook` for each session that keeps a collection waiting for long.
    ///
    /// It is called on the thread that collects. While it runs, the collection waits for it as
    /// well, and so does every thread that would open a session. A panic in it goes nowhere.
    /// Default: a line to standard error that names the heap and the thread.
    pub fn on_slow_session(mut self, hook: impl Fn(&SlowSession) + Send + Sync + 'static) -> Self {
        self.config.slow_session.1 = Arc::new(hook);
        self
    }

    /// Makes the heap, with the root that `f` makes.
    ///
    /// If `f` panics there is no heap: what it allocated is dropped, and the cleanups it registered
    /// are discarded.
    ///
    /// # Panics
    ///
    /// If `f` does. In the child of a `fork`, if it was given a pool made before.
    #[track_caller]
    pub fn build(self, f: impl for<'gc> FnOnce(&'gc Mutation<'gc, M>) -> R::At<'gc>) -> Heap<R, M>
    where
        for<'gc> R::At<'gc>: Payload<M>,
    {
        let pool = self.pool.unwrap_or_else(|| CleanupPool::global().clone());
        assert!(!pool.core().is_inherited(), "{}", WaitError::Forked);
        let client = Client::new(pool.core());
        let inner = RawHeap::new(client.clone(), self.config, f);
        let end = WaitOnDrop { client, pool, timeout: self.drop_timeout };
        Heap { inner, high_water: self.high_water, end }
    }
}
