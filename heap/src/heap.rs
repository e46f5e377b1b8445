//! A heap with its root: sessions, the collection cycle, and the end.
//!
//! A cycle is [`RootedHeap::cycle`], read from top to bottom. Invariant: sessions and cycles
//! exclude each other (by `&mut self` in a `Local` heap, by the handshake in a `Shared` one), and between them every reachable object is
//! live, every mark bit clear, and every cleanup of a swept object queued or settled.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sexton_cleanup::{Origin, Ticket, drop_quietly};

use crate::context::Context;
use crate::core::Core;
use crate::help::{Helpers, Job, Nobody, Waiting, processors};
use crate::history::History;
use crate::local::LocalCleanups;
use crate::mark::{Marker, Pending};
use crate::mode::parts::Lock;
use crate::mode::{Local, Mode, Payload};
use crate::mutation::Mutation;
use crate::mutator::SlowSessionHook;
use crate::pacer::Pacing;
use crate::report::{GcReport, HeapStats, Phases};
use crate::roots::{HeapId, OldRoot};
use crate::space::{Space, Usage};
use crate::span::SpanRef;
use crate::sweep::{Sweeper, Sweepers, Tally, or_abort};
use crate::trace::{Branded, Trace, Tracer};
use crate::verify::{self, VerifyError};

/// Settings of a heap.
#[derive(Clone)]
pub struct HeapConfig {
    /// The most bytes of slots in use.
    pub max_bytes: u64,
    /// When to collect at the end of a session.
    pub pacing: Pacing,
    /// The most threads that mark, or sweep, the one that collects included; others are asked only where there is much to do. By default one in a
    /// `Local` heap, and in a `Shared` one as many as there are processors, four at most: while it is collected, those that its mutators use are idle.
    pub gc_threads: Option<usize>,
    /// Collect at the end of every session, overwrite dead objects, verify after every cycle.
    pub zeal: bool,
    /// Remember where cleanups were registered.
    pub diagnostics: bool,
    /// What becomes of cleanups when the heap is dropped.
    pub on_drop: OnDrop,
    /// How long a collection waits for a session before it complains, and to whom. In a `Local` heap it waits for none.
    pub slow_session: (Duration, SlowSessionHook),
}

impl fmt::Debug for HeapConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeapConfig { max_bytes, pacing, gc_threads, zeal, diagnostics, on_drop, slow_session } =
            self;
        f.debug_struct("HeapConfig")
            .field("max_bytes", max_bytes)
            .field("pacing", pacing)
            .field("gc_threads", gc_threads)
            .field("zeal", zeal)
            .field("diagnostics", diagnostics)
            .field("on_drop", on_drop)
            .field("slow_session_after", &slow_session.0)
            .finish()
    }
}

impl Default for HeapConfig {
    fn default() -> Self {
        HeapConfig {
            max_bytes: u64::MAX,
            pacing: Pacing::default(),
            gc_threads: None,
            zeal: cfg!(gc_zeal),
            diagnostics: false,
            on_drop: OnDrop::default(),
            slow_session: (
                Duration::from_secs(10),
                Arc::new(|session| eprintln!("sexton: {session}")),
            ),
        }
    }
}

/// What dropping a heap does to the cleanups of its objects.
///
/// Those that do not run have their captures dropped. Local cleanups that are to run do so on the
/// dropping thread.
///
/// In a pool with threads the drop of a `Heap` waits, up to its `drop_timeout`, for the others. What
/// has not ended by then stays queued. A pool may have no worker, because none could be started or
/// its bound is 0. Then the dropping thread runs cleanups itself, those of other heaps too, and may
/// overrun the timeout by as long as one takes.
///
/// Within a cleanup, and in a manual pool, it does not wait. A manual pool's cleanups are queued, and
/// run by the program alone. Call `CleanupPool::run_pending` until it returns 0 before the pool's last
/// handle goes, which discards what is left.
///
/// In the child of a `fork` none run, and the drop of a heap made before does not wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDrop {
    /// The end of the heap is the death of all its objects: every cleanup runs.
    #[default]
    RunAll,
    /// Cleanups that are queued already run; those of objects that lived to the end do not.
    RunQueued,
    /// No further cleanup begins to run.
    Discard,
}

/// A heap of objects reachable from one typed root.
///
/// The mechanism without the policy: the facade's `Heap` wraps it, and adds pools, deadlines and
/// automatic collection.
///
/// Its end is its drop, so that no call can come after it. That drops the root and all objects, and
/// does to their cleanups as [`OnDrop`] says. It waits for none.
pub struct RootedHeap<R: Branded, M: Mode = Local> {
    /// `None` while it is being made and while the heap is dropped. Boxed: a session holds a
    /// reference to the value while the heap's state changes.
    root: Option<Box<R::At<'static>>>,
    pub(crate) core: Core<M>,
    history: M::Lock<History>,
    zeal: bool,
    gc_threads: usize,
    on_drop: OnDrop,
    pub(crate) slow_session: (Duration, SlowSessionHook),
}

impl<R: Branded, M: Mode> RootedHeap<R, M> {
    /// A heap whose root `f` makes, and whose dead objects' cleanups go to `origin`.
    pub fn new(
        origin: Origin,
        config: HeapConfig,
        f: impl for<'gc> FnOnce(&Mutation<'gc, M>) -> R::At<'gc>,
    ) -> Self
    where
        for<'gc> R::At<'gc>: Payload<M>,
    {
        let mut heap = RootedHeap {
            root: None,
            core: Core::new(origin, &config),
            history: Lock::new(History::new()),
            zeal: config.zeal,
            gc_threads: config.gc_threads.unwrap_or_else(gc_threads_of::<M>).max(1),
            // If `f` panics there is no heap, and nothing has died.
            on_drop: OnDrop::RunQueued,
            slow_session: config.slow_session,
        };
        let root = Box::new(f(&Mutation::new(&heap.core, heap.core.context())));
        // SAFETY: `Branded` promises that the type is the same at every brand; the box's value is not
        // reached under the brand 'static, only under that of a session (`session`).
        heap.root = Some(unsafe { Box::from_raw(Box::into_raw(root).cast::<R::At<'static>>()) });
        heap.on_drop = config.on_drop;
        if M::SHARED {
            // Nobody will allocate from it again.
            heap.core.retire_context(heap.core.context());
        }
        heap
    }

    /// Opens a session of the mutator whose context it is: calls `f` with the session and the root. Called by whoever
    /// may use the context, while no cycle can begin.
    pub(crate) fn session<'gc, T>(
        &'gc self,
        context: &'gc Context<M>,
        f: impl FnOnce(&Mutation<'gc, M>, &'gc R::At<'gc>) -> T,
    ) -> T {
        let root = self.root.as_deref().expect("the root goes only with the heap");
        // SAFETY: `Branded` promises that the type is the same at every brand, and the value's
        // pointers are to live objects of this heap, whose session has the brand 'gc.
        let root = unsafe { NonNull::from_ref(root).cast::<R::At<'gc>>().as_ref() };
        f(&Mutation::new(&self.core, context), root)
    }

    /// Whether an object has been refused since the last cycle that one might make room for. Never with
    /// [`Pacing::Manual`].
    pub fn has_refused(&self) -> bool {
        self.core.has_refused()
    }

    /// Runs one full cycle. Linear in the live objects to mark and in the spans to sweep; objects
    /// that die cost something only if they have cleanups or drop glue. Called by one thread at a time, while no session is open and
    /// none can be opened: since `since`, which was so after `safepoint_time`.
    pub(crate) fn cycle(
        &self,
        since: Instant,
        safepoint_time: Duration,
        waiting: &dyn Waiting,
    ) -> GcReport {
        let core = &self.core;
        let helpers = Helpers { heap: self.id(), most: self.gc_threads - 1, waiting };

        let mut phases = Phases::from(since + safepoint_time);

        // 1. The mutators' unused slots become free ones.
        let allocating = core.retire_contexts();
        self.prune_settled();
        let prune_time = phases.end();

        // 2. Mark what the root and the dynamic roots reach; clear the weak records of the rest.
        let dropped_roots = core.roots().dropped();
        self.mark(&helpers);
        let cycle = self.history.with(|history| history.next_cycle());
        core.roots().count_cycle(cycle);
        core.locals().queue_dead();
        let cleared_weaks = self.clear_weaks();
        let mark_time = phases.end();

        // 3. Sweep the rest, queueing its cleanups, and publish what is left in partial blocks.
        let swept = self.sweep(&helpers, &mut phases);

        // 4. Return long-empty regions to the system, and decide when the next cycle is due.
        core.space().with(|space| space.release_regions());
        core.pace(swept.live_bytes, allocating);
        let release_time = phases.end();

        let report = GcReport {
            cycle,
            cleared_weaks,
            safepoint_time,
            prune_time,
            mark_time,
            release_time,
            pause_time: phases.since(since),
            ..swept
        };
        let report = self.history.with(|history| history.record(report));

        // A root that was dropped since mark began, by drop glue or by another thread, has left its object to the next cycle.
        let swept_all = || core.roots().dropped() == dropped_roots;
        if self.zeal
            && let Err(error) =
                verify::verify(core, |marker| _ = self.visit_roots(marker), swept_all)
        {
            panic!("{} is inconsistent after cycle {cycle}: {error}", self.id());
        }
        report
    }

    /// Cleanups stopped or run early leave their records in their objects' chains. Take those out
    /// when they make up much of what there is.
    fn prune_settled(&self) {
        let mut own = self.core.context().registrar().borrow_mut();
        if own.ended_early() < PRUNE_AT {
            return;
        }
        // In a shared heap the own one will register nothing more: what it frees is to go back, for the others.
        let mut passing = M::SHARED.then(|| self.core.origin().registrar());
        let registrar = passing.as_mut().unwrap_or(&mut own);
        self.core.space().with(|space| {
            for span in space.spans() {
                span.cleanups()
                    .borrow_mut()
                    .retain_map(span.special_bits(), |_, head| registrar.prune(head));
            }
        });
    }

    fn mark(&self, helpers: &Helpers<'_>) {
        let mut marker = Marker::new();
        let marked = catch_unwind(AssertUnwindSafe(|| {
            let pending = self.visit_roots(&mut marker);
            marker.drain(pending, helpers);
        }));
        if let Err(payload) = marked {
            self.core.space().with(|space| space.spans().for_each(|span| span.clear_marks()));
            resume_unwind(payload);
        }
    }

    fn visit_roots(&self, marker: &mut Marker) -> Pending {
        let mut pending = Pending::NONE;
        self.core.roots().for_each(|object| pending = marker.visit_untyped(pending, object));
        let Some(root) = &self.root else { return pending };
        let mut tracer = Tracer::new(marker, pending);
        root.trace(&mut tracer);
        tracer.pending()
    }

    fn clear_weaks(&self) -> u64 {
        let mut cleared = 0;
        self.core.space().with(|space| {
            for span in space.spans() {
                let mut table = span.weaks().borrow_mut();
                if let Some(weaks) = &mut *table {
                    cleared += weaks.clear_dead(span);
                    if weaks.is_empty() {
                        *table = None;
                    }
                }
            }
        });
        cleared
    }

    fn sweep(&self, helpers: &Helpers<'_>, phases: &mut Phases) -> GcReport {
        let cycle = self.core.origin().begin_cycle();
        let new_sweeper = || Sweeper::new(cycle.local_block(), self.zeal);
        // Drop glue runs while the space is locked. It has no session, and so cannot get here.
        let sweep_spans = |space: &mut Space| {
            let before = space.usage();
            let together =
                if M::SHARED { sweep_together(space, helpers, new_sweeper) } else { None };
            let mut alone = new_sweeper();
            let mut swept = together.iter().flat_map(|together| together.swept()).peekable();
            space.sweep_spans(|span| match swept.next_if(|&(other, _)| other == span) {
                Some((_, swept)) => swept,
                None => alone.sweep(span),
            });
            drop(swept);
            let mut sweepers = together.map_or_else(Vec::new, |together| together.take_sweepers());
            sweepers.push(alone);
            let live = |sweeper: &Sweeper| sweeper.tally().live;
            space.recount(sweepers.iter().map(live).fold(Usage::default(), Usage::plus));
            (before, sweepers)
        };
        let (before, sweepers) = or_abort(|| self.core.space().with(sweep_spans));
        let tally = sweepers.iter().map(Sweeper::tally).fold(Tally::default(), Tally::plus);
        let locals = sweepers.into_iter().map(Sweeper::into_local_block);
        let sweep_time = phases.end();
        let flushed = cycle.flush(locals);
        let flush_time = phases.end();
        GcReport {
            live_objects: tally.live.objects,
            live_bytes: tally.live.bytes,
            live_weak_records: tally.live.weak_records,
            swept_objects: before.objects - tally.live.objects,
            swept_bytes: before.bytes - tally.live.bytes,
            dropped_objects: tally.dropped_objects,
            drop_panics: tally.drop_panics,
            swept_spans: tally.spans,
            emptied_spans: tally.emptied_spans,
            queued_cleanups: flushed.cleanups,
            published_blocks: flushed.blocks,
            sweep_time,
            flush_time,
            ..GcReport::default()
        }
    }

    /// Drops the root and all objects. What it leaves is an empty space.
    fn tear_down(&mut self) {
        if self.on_drop == OnDrop::Discard {
            self.core.origin().discard_queued();
        }
        let root = self.root.take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(root))) {
            self.history.with(|history| history.count_drop_panics(1));
            drop_quietly(payload);
        }
        self.core.retire_contexts();
        match self.on_drop {
            OnDrop::RunAll => self.core.locals().queue_all(),
            OnDrop::RunQueued | OnDrop::Discard => self.discard_cleanups(),
        }
        // Nothing is marked, so everything dies.
        let alone = Helpers { heap: self.id(), most: 0, waiting: &Nobody };
        let report = self.sweep(&alone, &mut Phases::from(Instant::now()));
        self.history.with(|history| history.count_drop_panics(report.drop_panics));
    }

    fn discard_cleanups(&mut self) {
        let mut doomed = Vec::new();
        self.core.space().with(|space| {
            for span in space.spans() {
                span.cleanups().borrow_mut().retain(span.special_bits(), |_, head| {
                    doomed.push(head);
                    false
                });
            }
        });
        // Dropping captures runs user code. It cannot reach the registrar: the heap is going, and no session
        // will be opened on it again.
        let mut registrar = self.core.context().registrar().borrow_mut();
        doomed.into_iter().for_each(|head| registrar.discard(head));
        drop(registrar);
        self.core.locals().discard(self.on_drop == OnDrop::Discard);
    }

    /// Runs at most `max` local cleanups of dead objects here; how many it ran. A `Shared` heap has
    /// none.
    pub fn run_local_cleanups(&mut self, max: usize) -> usize {
        self.core.locals().run_queued(max)
    }

    /// The roots that have lived for at least so many cycles, the oldest first. O(roots).
    pub fn old_roots(&self, cycles: u64) -> Vec<OldRoot> {
        self.core.roots().old(cycles)
    }

    /// The heap's number, as messages name it.
    pub fn id(&self) -> HeapId {
        self.core.roots().heap()
    }

    /// The report of the last cycle, whoever asked for it; `None` before the first.
    pub fn last_report(&self) -> Option<GcReport> {
        self.history.with(|history| history.last_report())
    }

    /// The cleanups queued so far, to wait for.
    pub fn ticket(&self) -> Ticket {
        self.core.origin().ticket()
    }

    /// The heap's account with its pool.
    pub fn origin(&self) -> &Origin {
        self.core.origin()
    }

    /// The counters now. O(types in use).
    pub fn stats(&self) -> HeapStats {
        let core = &self.core;
        let usage = core.usage();
        let space = core.space();
        let past = self.history.with(|history| history.stats());
        HeapStats {
            objects: usage.objects,
            weak_records: usage.weak_records,
            bytes: usage.bytes,
            mapped_bytes: space.mapped_bytes(),
            max_bytes: Some(space.max_bytes()).filter(|&bytes| bytes < u64::MAX),
            roots: core.roots().len() as u64,
            cleanups: core.origin().stats(),
            local_cleanups: core.locals().stats(),
            ..past
        }
    }

    /// Called while no session is open.
    pub(crate) fn verify_stopped(&self) -> Result<(), VerifyError> {
        verify::verify(&self.core, |marker| _ = self.visit_roots(marker), || false)
    }
}

impl<R: Branded> RootedHeap<R, Local> {
    /// Opens a session: calls `f` with the session and the root.
    pub fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&Mutation<'gc>, &'gc R::At<'gc>) -> T,
    ) -> T {
        self.session(self.core.context(), f)
    }

    /// Whether the pacer, or zeal, asks for a cycle now.
    pub fn wants_collection(&self) -> bool {
        self.core.collection_due(self.core.context())
    }

    /// Runs one full cycle; see the facade's `collect`.
    ///
    /// # Panics
    ///
    /// If a hand-written `Trace` panics: then nothing is swept, and the heap is as before. In zeal
    /// mode, if the heap fails its verification.
    pub fn collect(&mut self) -> GcReport {
        self.cycle(Instant::now(), Duration::ZERO, &Nobody)
    }

    /// Recomputes reachability and all bookkeeping the slow way and compares. For tests; O(heap).
    ///
    /// # Errors
    ///
    /// The first inconsistency found.
    pub fn verify(&self) -> Result<(), VerifyError> {
        self.verify_stopped()
    }
}

/// The most threads that collect a heap of the mode, unless somebody says otherwise.
fn gc_threads_of<M: Mode>() -> usize {
    if M::SHARED { processors().min(4) } else { 1 }
}

/// Sweeps the spans in which something must happen, with whoever helps; `None` if that is not worth it.
fn sweep_together(
    space: &Space,
    helpers: &Helpers<'_>,
    mut new_sweeper: impl FnMut() -> Sweeper,
) -> Option<Arc<Sweepers>> {
    if helpers.most == 0 {
        return None;
    }
    let spans: Vec<SpanRef> =
        space.spans_to_sweep().filter(|&span| Sweeper::is_busy_with(span)).collect();
    if spans.len() < Sweepers::WORTH_HELP {
        return None;
    }
    let most = helpers.most.min(spans.len() / Sweepers::WORTH_HELP);
    let sweepers = (0..=most).map(|_| new_sweeper()).collect();
    // SAFETY: called in a cycle of a `Shared` heap, whose payloads are `Send`; marking is over; what is left of the sweep begins
    // when all have left.
    let sweepers = Arc::new(unsafe { Sweepers::new(spans, sweepers) });
    helpers.with(sweepers.clone(), most, || sweepers.help());
    Some(sweepers)
}

/// Settled records worth a pass over all chains.
const PRUNE_AT: u64 = 1024;

impl<R: Branded, M: Mode> Drop for RootedHeap<R, M> {
    fn drop(&mut self) {
        self.tear_down();
        // No other thread may run them.
        self.run_local_cleanups(usize::MAX);
    }
}
