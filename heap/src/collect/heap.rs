//! A heap with its root: sessions, the collection cycle, and the end.
//!
//! A cycle is [`RawHeap::cycle`], a table of contents of the [`Collector`]'s steps.
//!
//! Invariant: sessions and stops exclude each other, by `&mut self` in a `Local` heap, by the
//! handshake in a `Shared` one. Between two cycles each reachable object is live, each mark bit is
//! clear, and each cleanup of a swept object is queued or has ended.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use sexton_cleanup::{Client, Ticket, in_cleanup};

use sexton_sync::drop_quietly;

use crate::collect::cycle::{Collector, Plan};
use crate::collect::until::Until;
use crate::collect::verify::{self, VerifyError};
use crate::id::HeapId;
use crate::mark::root_table::OldRoot;
use crate::memory::external;
use crate::memory::locking::{Local, Lock};
use crate::memory::mark_stack::{Marker, Pending};
use crate::memory::phase::Phase;
use crate::object::trace::{Branded, Trace, Tracer};
use crate::policy::config::{HeapConfig, OnDrop, SlowSessionHook};
use crate::policy::report::{GcReport, HeapStats, Progress};
use crate::safepoint::handshake::Stopped;
use crate::safepoint::helpers::{Helpers, NoneWaiting, Waiting};
use crate::session::context::Context;
use crate::session::core::Core;
use crate::session::mode::{Mode, Payload};
use crate::session::mutation::Mutation;
use crate::sweep::local_cleanups::LocalCleanups;

/// A heap of objects reachable from one typed root.
///
/// The mechanism without the policy: the facade's `Heap` wraps it, and adds pools, deadlines and
/// automatic collection.
///
/// Its end is its drop, so that no call can come after it. That drops the root and all objects, and
/// does to their cleanups as [`OnDrop`] says. It waits for none.
pub struct RawHeap<R: Branded, M: Mode = Local> {
    /// `None` while it is being made and while the heap is dropped. Boxed: a session holds a
    /// reference to the value while the heap's state changes.
    root: Option<Box<R::At<'static>>>,
    pub(crate) core: Arc<Core<M>>,
    pub(crate) collector: Collector<M>,
    on_drop: OnDrop,
    pub(crate) slow_session: (Duration, SlowSessionHook),
    /// All of it is in another value, so nothing is left to be dropped.
    has_moved: bool,
}

impl<R: Branded, M: Mode> RawHeap<R, M> {
    /// Makes a heap with the root that `f` gives. Cleanups of its objects go to `client`.
    pub fn new(
        client: Client,
        config: HeapConfig,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, M>) -> R::At<'gc>,
    ) -> Self
    where
        for<'gc> R::At<'gc>: Payload<M>,
    {
        let core = Arc::new(Core::new(client, &config));
        let mut heap = RawHeap {
            root: None,
            collector: Collector::new(&config, &core),
            core,
            // If `f` panics there is no heap, and nothing has died.
            on_drop: OnDrop::RunQueued,
            slow_session: config.slow_session,
            has_moved: false,
        };
        // Declared first, and so dropped last: the root may be dropped here, by a panic.
        let mutation = Mutation::new(&heap.core, heap.core.context(), &heap.collector);
        let root = Box::new(f(&mutation));
        heap.core.context().external().add(external::change((*root).external_bytes()));
        // SAFETY: `Branded` promises that the type is the same at every brand; the box's value is
        // not reached under the brand 'static, only under that of a session (`session`).
        heap.root = Some(unsafe { Box::from_raw(Box::into_raw(root).cast::<R::At<'static>>()) });
        heap.on_drop = config.on_drop;
        if M::SHARED {
            // Nothing allocates from it again.
            heap.core.retire_context(heap.core.context());
        }
        heap
    }

    /// Makes a heap of this one, with the root that `f` makes of the root there is.
    ///
    /// A cycle that is under way is given up if it marks, or ended. If `f` panics the heap is
    /// dropped, and its objects die.
    ///
    /// # Panics
    ///
    /// If `f` does, or the end of the cycle: see the facade's `collect`. In the child of a `fork`,
    /// if the heap is `Shared` and was made before.
    pub fn map_root<Q: Branded>(
        mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, M>, R::At<'gc>) -> Q::At<'gc>,
    ) -> RawHeap<Q, M>
    where
        for<'gc> Q::At<'gc>: Payload<M>,
    {
        if M::SHARED {
            self.assert_not_inherited();
        }
        // A marker may have addresses of cells and slices within the root. And in a `Shared` heap
        // the session below is no mutator's, so no cycle may wait for it.
        self.collector.give_up_mark(&self.core);
        if self.core.phase().get() != Phase::Idle {
            self.run(Stopped::now(), Until::END, &NoneWaiting);
        }
        let root = self.root.take().expect("the root goes only with the heap");
        let mutation = Mutation::new(&self.core, self.core.context(), &self.collector);
        let root = Self::remake_root::<Q>(&mutation, root, f);
        if M::SHARED {
            // Nothing allocates from it again.
            self.core.retire_context(self.core.context());
        }
        self.move_out(Some(root))
    }

    fn remake_root<'gc, Q: Branded>(
        mutation: &'gc Mutation<'gc, M>,
        root: Box<R::At<'static>>,
        f: impl FnOnce(&'gc Mutation<'gc, M>, R::At<'gc>) -> Q::At<'gc>,
    ) -> Box<Q::At<'static>> {
        // SAFETY: as in `with_root`; the box has the same layout, and no other owner.
        let root = unsafe { Box::from_raw(Box::into_raw(root).cast::<R::At<'gc>>()) };
        let before = (*root).external_bytes();
        let root = Box::new(f(mutation, *root));
        let after = (*root).external_bytes();
        mutation.tally().add(external::change(after) - external::change(before));
        // SAFETY: as in `new`.
        unsafe { Box::from_raw(Box::into_raw(root).cast::<Q::At<'static>>()) }
    }

    /// Moves all of it but its root to a heap with another one.
    fn move_out<Q: Branded>(&mut self, root: Option<Box<Q::At<'static>>>) -> RawHeap<Q, M> {
        self.has_moved = true;
        let collector = Collector::new(&HeapConfig::default(), &self.core);
        RawHeap {
            root,
            core: self.core.clone(),
            collector: std::mem::replace(&mut self.collector, collector),
            on_drop: self.on_drop,
            slow_session: self.slow_session.clone(),
            has_moved: false,
        }
    }

    /// Opens a session of the mutator whose context it is: calls `f` with the session and the root.
    /// The caller is the context's user, and no cycle can begin.
    ///
    /// The session is a local value, and its brand the time for which that is borrowed. So the
    /// brand ends with this call. The compiler accepts it because a `Mutation` has no drop glue.
    pub(crate) fn session<T>(
        &self,
        context: &Context<M>,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, M>, &'gc R::At<'gc>) -> T,
    ) -> T {
        let mutation = Mutation::new(&self.core, context, &self.collector);
        self.with_root(&mutation, f)
    }

    /// Calls `f` with a session of this heap and its root.
    fn with_root<'gc, T>(
        &'gc self,
        mutation: &'gc Mutation<'gc, M>,
        f: impl FnOnce(&'gc Mutation<'gc, M>, &'gc R::At<'gc>) -> T,
    ) -> T {
        let root = self.root.as_deref().expect("the root goes only with the heap");
        // SAFETY: `Branded` promises that the type is the same at every brand, and the value's
        // pointers are to live objects of this heap, whose session has the brand 'gc.
        let root = unsafe { NonNull::from_ref(root).cast::<R::At<'gc>>().as_ref() };
        f(mutation, root)
    }

    /// Tells whether a cycle might make room for an object that was refused.
    ///
    /// That is one refused since the last cycle. It is false with
    /// [`Pacing::Manual`](crate::Pacing::Manual).
    pub fn has_refused(&self) -> bool {
        self.core.has_refused()
    }

    /// Tells whether a [`Quota`](crate::Quota) of the heap is nearly used up.
    pub fn has_short_quota(&self) -> bool {
        self.core.pacer().has_short_quota()
    }

    /// Runs one full cycle. Linear in the live objects to mark and in the spans to sweep. Objects
    /// that die cost something only if they have cleanups or drop glue.
    ///
    /// A cycle that is under way is ended before, or given up if it marks. Called by one thread at
    /// a time, while no session is open and none can be opened.
    pub(crate) fn cycle(&self, stopped: Stopped, waiting: &dyn Waiting) -> GcReport {
        self.collector.give_up_mark(&self.core);
        let mut stopped = stopped;
        if self.core.phase().get() != Phase::Idle {
            self.run(stopped, Until::END, waiting);
            stopped = Stopped::now();
        }
        self.run(stopped, Until::END, waiting).expect("a cycle without a deadline ends")
    }

    /// Does what is due: a cycle, or a slice of one. Gives the report of a cycle that ends.
    ///
    /// Called as [`cycle`](Self::cycle), or with sessions parked. Then it goes on with the cycle that
    /// is under way, if there is one.
    pub(crate) fn advance(&self, stopped: Stopped, waiting: &dyn Waiting) -> Option<GcReport> {
        let until = match self.collector.plan(&self.core) {
            Plan::Whole if !stopped.has_sessions => return Some(self.cycle(stopped, waiting)),
            Plan::Whole => Until::END,
            Plan::Try(budget) => Until::after(budget).the_last(),
            Plan::Slice(budget) => Until::after(budget),
        };
        let until = if stopped.has_sessions { until.within_sessions() } else { until };
        self.run(stopped, until, waiting)
    }

    /// Runs what `until` allows of a cycle.
    ///
    /// # Panics
    ///
    /// If trace glue has, or if the heap fails a verification in zeal mode.
    pub(crate) fn run(
        &self,
        stopped: Stopped,
        until: Until<'_>,
        waiting: &dyn Waiting,
    ) -> Option<GcReport> {
        let helpers = if stopped.has_sessions {
            // Others would read a cell that a parked session has locked: only the marker of the
            // cycle knows by its stamp that it must not.
            Helpers::none(self.id())
        } else {
            self.collector.helpers(&self.core, waiting)
        };
        // The root lies in no span, so no sweep sees it.
        let root_bytes = self.root.as_ref().map_or(0, |root| (**root).external_bytes());
        self.core.pacer().set_root_bytes(root_bytes as u64);
        let root = |tracer: &mut Tracer<'_>| {
            if let Some(root) = &self.root {
                root.trace(tracer);
            }
        };
        let report = match self.collector.run(&self.core, root, stopped, until, &helpers) {
            Ok(report) => report,
            Err(payload) => resume_unwind(payload),
        };
        if self.core.zeal() {
            // What has died between two slices is left to the next cycle.
            let is_exact = report.is_some_and(|report| report.slices == 1);
            let verified = if is_exact { self.verify_swept() } else { self.verify_stopped() };
            if let Err(error) = verified {
                panic!("{} is inconsistent after a collection: {error}", self.id());
            }
        }
        report
    }

    /// Gives all memory back that holds no object; see the facade's `trim`. Called while no session
    /// is open.
    pub(crate) fn trim_stopped(&self) -> u64 {
        let core = &self.core;
        // A thread may be sweeping.
        self.collector.settle(core);
        core.retire_contexts();
        let passes = core.phase().get() != Phase::Idle;
        core.space().with(|space| space.trim(passes))
    }

    fn visit_roots(&self, marker: &mut Marker) -> Pending {
        let mut pending = Pending::NONE;
        self.core.roots().for_each(|object| pending = marker.visit_untyped(pending, object));
        let Some(root) = &self.root else { return pending };
        let mut tracer = Tracer::new(marker, pending);
        root.trace(&mut tracer);
        tracer.pending()
    }

    /// Drops the root and all objects. What it leaves is an empty space.
    fn tear_down(&mut self) {
        if self.collector.is_left_behind() {
            // In the child of a `fork`. The thread may have been in the middle of a span, with the
            // space locked.
            return;
        }
        if self.on_drop == OnDrop::Discard {
            self.core.client().discard_queued();
        }
        // A thread may be at work.
        self.collector.give_up_mark(&self.core);
        let root = self.root.take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(root))) {
            self.collector.history().with(|history| history.count_drop_panics(1));
            drop_quietly(payload);
        }
        self.core.retire_contexts();
        match self.on_drop {
            OnDrop::RunAll => self.core.locals().queue_all(),
            OnDrop::RunQueued | OnDrop::Discard => self.discard_cleanups(),
        }
        // Nothing is marked, so everything dies.
        self.collector.sweep_all(&self.core);
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
        // Dropping captures runs user code. It cannot reach the registrar: the heap is going, and
        // no session will be opened on it again.
        let mut registrar = self.core.context().registrar().borrow_mut();
        doomed.into_iter().for_each(|head| registrar.discard(head));
        drop(registrar);
        self.core.locals().discard(self.on_drop == OnDrop::Discard);
    }

    /// Runs at most `max` local cleanups of dead objects here, and gives how many it ran.
    ///
    /// A `Shared` heap has none.
    pub fn run_local_cleanups(&mut self, max: usize) -> usize {
        self.core.locals().run_queued(max)
    }

    /// Lists the roots that have lived for at least `cycles` cycles, the oldest first. O(roots).
    pub fn old_roots(&self, cycles: u64) -> Vec<OldRoot> {
        self.core.roots().old(cycles)
    }

    /// Gives the heap's number, as messages name it.
    pub fn id(&self) -> HeapId {
        self.core.roots().heap()
    }

    /// Gives the report of the last cycle; `None` before the first.
    pub fn last_report(&self) -> Option<GcReport> {
        self.collector.history().with(|history| history.last_report())
    }

    /// Gives a ticket for the cleanups queued so far, to wait for.
    pub fn ticket(&self) -> Ticket {
        self.core.client().ticket()
    }

    /// Gives the heap's account with its pool.
    pub fn client(&self) -> &Client {
        self.core.client()
    }

    /// Reads the counters. O(types in use).
    pub fn stats(&self) -> HeapStats {
        let core = &self.core;
        let usage = core.usage();
        let space = core.space();
        let past = self.collector.history().with(|history| history.stats());
        HeapStats {
            objects: usage.objects,
            weak_records: usage.weak_records,
            bytes: usage.bytes,
            external_bytes: core.owned_outside(),
            charged_bytes: core.pacer().external().charged().count(),
            mapped_bytes: space.mapped_bytes(),
            resident_bytes: space.resident_bytes(),
            overhead: core.overhead(),
            max_bytes: Some(space.max_bytes()).filter(|&bytes| bytes < u64::MAX),
            roots: core.roots().len() as u64,
            cleanups: core.client().stats(),
            local_cleanups: core.locals().stats(),
            ..past
        }
    }

    /// Checks the heap right after a cycle, and that the cycle has swept all that was unreachable.
    ///
    /// A root that was dropped since mark began, by drop glue or by another thread, has left its
    /// object to the next cycle.
    fn verify_swept(&self) -> Result<(), VerifyError> {
        let core = &self.core;
        let swept_all = || core.roots().dropped() == self.collector.dropped_roots();
        let roots = |marker: &mut Marker| _ = self.visit_roots(marker);
        verify::verify(core, &self.collector, roots, swept_all)
    }

    /// Called while no session is open.
    pub(crate) fn verify_stopped(&self) -> Result<(), VerifyError> {
        let roots = |marker: &mut Marker| _ = self.visit_roots(marker);
        verify::verify(&self.core, &self.collector, roots, || false)
    }
}

impl<R: Branded> RawHeap<R, Local> {
    /// Opens a session: calls `f` with the session and the root.
    pub fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc>, &'gc R::At<'gc>) -> T,
    ) -> T {
        self.session(self.core.context(), f)
    }

    /// Tells whether the pacer, or zeal, asks for a cycle now, or one has ended within a session.
    pub fn wants_collection(&self) -> bool {
        self.core.is_end_due(self.core.context())
    }

    /// Runs one full cycle; see the facade's `collect`.
    ///
    /// # Panics
    ///
    /// If a hand-written `Trace` panics: then nothing is swept, and the heap is as before. In zeal
    /// mode, if the heap fails its verification.
    pub fn collect(&mut self) -> GcReport {
        self.cycle(Stopped::now(), &NoneWaiting)
    }

    /// Runs the cycle, or the slice of one, that is due. Gives the report of a cycle that ends.
    ///
    /// That may be one that has ended within a session since this was called last.
    ///
    /// # Panics
    ///
    /// As [`collect`](Self::collect).
    pub fn collect_if_due(&mut self) -> Option<GcReport> {
        let is_due = self.core.collection_due(self.core.context());
        let ended = if is_due { self.advance(Stopped::now(), &NoneWaiting) } else { None };
        let has_ended = self.core.take_end();
        ended.or_else(|| self.last_report().filter(|_| has_ended))
    }

    /// Gets on with a cycle for about `budget`; see the facade's `step`.
    ///
    /// # Panics
    ///
    /// As [`collect`](Self::collect).
    pub fn step(&mut self, budget: Duration) -> Progress {
        let ended = self.run(Stopped::now(), Until::after(budget), &NoneWaiting);
        ended.map_or(Progress::Working, Progress::Finished)
    }

    /// Gives all memory back that holds no object; see the facade's `trim`.
    pub fn trim(&mut self) -> u64 {
        self.trim_stopped()
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

impl<R: Branded, M: Mode> RawHeap<R, M> {
    /// Leaves the heap to the thread that works for it, if there is one.
    fn leave(&mut self) -> bool {
        let background = self.collector.background().clone();
        background.leave(|| self.moved_away())
    }

    /// Moves all of it to another thread, to be dropped there.
    fn moved_away(&mut self) -> Box<dyn FnOnce() + Send> {
        struct Moved<T>(T);

        // SAFETY: only `Shared` heaps are moved. What they hold is `Send`: `new` has asked that of
        // the root, and `alloc` of the payloads. The rest of the heap goes from thread to thread
        // within its mutators' calls.
        unsafe impl<T> Send for Moved<T> {}

        assert!(M::SHARED, "a `Local` heap stays on its thread");
        let root = self.root.take();
        let moved = Moved(self.move_out::<R>(root));
        Box::new(move || drop(moved))
    }
}

impl<R: Branded, M: Mode> Drop for RawHeap<R, M> {
    fn drop(&mut self) {
        if self.has_moved {
            return;
        }
        // In drop glue that a thread calls which sweeps beside sessions, this may be that thread.
        // It must not wait for itself.
        if M::SHARED && in_cleanup() && self.leave() {
            return;
        }
        self.tear_down();
        // No other thread may run them.
        self.run_local_cleanups(usize::MAX);
    }
}
