//! A heap with its root: sessions, the collection cycle, and the end.
//!
//! A cycle is [`RootedHeap::collect`], read from top to bottom. Invariant: sessions and cycles
//! exclude each other (`&mut self`), and between them every reachable object is live, every mark bit
//! clear, and every cleanup of a swept object queued or settled.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::time::Instant;

use sexton_cleanup::{Origin, Ticket, drop_quietly};

use crate::core::Core;
use crate::mark::{Marker, Pending};
use crate::mutation::Mutation;
use crate::pacer::Pacing;
use crate::report::{GcReport, HeapStats};
use crate::roots::{HeapId, OldRoot};
use crate::sweep::Sweeper;
use crate::trace::{Branded, Trace, Tracer};
use crate::verify::{self, VerifyError};

/// Settings of a heap.
#[derive(Clone, Copy, Debug)]
pub struct HeapConfig {
    /// The most bytes of slots in use.
    pub max_bytes: u64,
    /// When to collect at the end of a session.
    pub pacing: Pacing,
    /// The most threads that mark, the heap's own included; others are started only for a large and wide graph.
    pub gc_threads: usize,
    /// Collect at the end of every session, overwrite dead objects, verify after every cycle.
    pub zeal: bool,
    /// Remember where cleanups were registered.
    pub diagnostics: bool,
}

impl Default for HeapConfig {
    fn default() -> Self {
        HeapConfig {
            max_bytes: u64::MAX,
            pacing: Pacing::default(),
            gc_threads: 1,
            zeal: cfg!(gc_zeal),
            diagnostics: false,
        }
    }
}

/// What becomes of the cleanups of a heap's objects when the heap goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// They are queued: the end of a heap is the death of all its objects.
    Queue,
    /// Their captures are dropped.
    Discard,
}

/// A heap of objects reachable from one typed root.
///
/// The mechanism without the policy: the facade's `Heap` wraps it, and adds pools, deadlines and
/// automatic collection.
pub struct RootedHeap<R: Branded> {
    /// `None` while it is being made and once torn down. Boxed: a session holds a reference to the value while the heap's state
    /// changes.
    root: Option<Box<R::At<'static>>>,
    core: Core,
    zeal: bool,
    gc_threads: usize,
    torn_down: bool,
    totals: GcReport,
    last_report: Option<GcReport>,
}

impl<R: Branded> RootedHeap<R> {
    /// A heap whose root `f` makes, and whose dead objects' cleanups go to `origin`.
    pub fn new<M>(
        origin: Origin,
        config: HeapConfig,
        f: impl for<'gc> FnOnce(&Mutation<'gc, M>) -> R::At<'gc>,
    ) -> Self {
        let mut heap = RootedHeap {
            root: None,
            core: Core::new(origin, &config),
            zeal: config.zeal,
            gc_threads: config.gc_threads.max(1),
            torn_down: false,
            totals: GcReport::default(),
            last_report: None,
        };
        let root = Box::new(f(&Mutation::new(&heap.core)));
        // SAFETY: `Branded` promises that the type is the same at every brand; the box's value is not
        // reached under the brand 'static, only under that of a session (`mutate`).
        heap.root = Some(unsafe { Box::from_raw(Box::into_raw(root).cast::<R::At<'static>>()) });
        heap
    }

    /// Opens a session: calls `f` with the session and the root.
    pub fn mutate<T, M>(
        &mut self,
        f: impl for<'gc> FnOnce(&Mutation<'gc, M>, &'gc R::At<'gc>) -> T,
    ) -> T {
        let root = self.root.as_deref().expect("the root goes only with the heap");
        self.session(root, f)
    }

    fn session<'gc, T, M>(
        &'gc self,
        root: &'gc R::At<'static>,
        f: impl FnOnce(&Mutation<'gc, M>, &'gc R::At<'gc>) -> T,
    ) -> T {
        // SAFETY: `Branded` promises that the type is the same at every brand, and the value's
        // pointers are to live objects of this heap, whose session has the brand 'gc.
        let root = unsafe { NonNull::from_ref(root).cast::<R::At<'gc>>().as_ref() };
        f(&Mutation::new(&self.core), root)
    }

    /// Whether the pacer, or zeal, asks for a cycle now.
    pub fn wants_collection(&self) -> bool {
        self.core.collection_due()
    }

    /// Whether an object has been refused since the last cycle that one might make room for. Never with
    /// [`Pacing::Manual`].
    pub fn has_refused(&self) -> bool {
        self.core.has_refused()
    }

    /// Runs one full cycle. Linear in the live objects to mark and in the spans to sweep; objects
    /// that die cost something only if they have cleanups or drop glue.
    ///
    /// # Panics
    ///
    /// If a hand-written `Trace` panics: then nothing is swept, and the heap is as before. In zeal
    /// mode, if the heap fails its verification.
    pub fn collect(&mut self) -> GcReport {
        // 1. The allocators' unused slots become free ones.
        self.core.with_allocator(|allocator| allocator.retire(&mut self.core.space().borrow_mut()));
        self.prune_settled();

        // 2. Mark what the root and the dynamic roots reach; clear the weak records of the rest.
        let mark_start = Instant::now();
        self.mark();
        self.core.roots().count_cycle(self.totals.cycle + 1);
        self.core.locals().queue_dead();
        let dropped_roots = self.core.roots().dropped();
        let cleared_weaks = self.clear_weaks();
        let mark_time = mark_start.elapsed();

        // 3. Sweep the rest, queueing its cleanups, and publish what is left in partial blocks.
        let report =
            GcReport { cycle: self.totals.cycle + 1, mark_time, cleared_weaks, ..self.sweep() };

        // 4. Return long-empty regions to the system.
        let release_start = Instant::now();
        self.core.space().borrow_mut().release_regions();
        let report = GcReport { release_time: release_start.elapsed(), ..report };

        // 5. Decide when the next cycle is due.
        self.last_report = Some(report);
        self.totals.cycle = report.cycle;
        self.totals.swept_objects += report.swept_objects;
        self.totals.drop_panics += report.drop_panics;
        self.core.pace(report.live_bytes);

        // A root that drop glue dropped during the sweep has left its object to the next cycle.
        let swept_all = self.core.roots().dropped() == dropped_roots;
        if self.zeal
            && let Err(error) =
                verify::verify(&self.core, |marker| _ = self.visit_roots(marker), swept_all)
        {
            panic!("{} is inconsistent after cycle {}: {error}", self.id(), report.cycle);
        }
        report
    }

    /// Cleanups stopped or run early leave their records in their objects' chains. Take those out
    /// when they make up much of what there is.
    fn prune_settled(&mut self) {
        let mut registrar = self.core.registrar().borrow_mut();
        if registrar.settled() < PRUNE_AT {
            return;
        }
        for span in self.core.space().borrow().spans() {
            span.cleanups()
                .borrow_mut()
                .retain_map(span.special_bits(), |_, head| registrar.prune(head));
        }
    }

    fn mark(&mut self) {
        let mut marker = Marker::new();
        let marked = catch_unwind(AssertUnwindSafe(|| {
            let pending = self.visit_roots(&mut marker);
            marker.drain(pending, self.gc_threads - 1);
        }));
        if let Err(payload) = marked {
            self.core.space().borrow().spans().for_each(|span| span.clear_marks());
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

    fn clear_weaks(&mut self) -> u64 {
        let mut cleared = 0;
        for span in self.core.space().borrow().spans() {
            let mut table = span.weaks().borrow_mut();
            if let Some(weaks) = &mut *table {
                cleared += weaks.clear_dead(span);
                if weaks.is_empty() {
                    *table = None;
                }
            }
        }
        cleared
    }

    fn sweep(&mut self) -> GcReport {
        let start = Instant::now();
        let before = self.core.usage();
        let cycle = self.core.origin().begin_cycle();
        let mut sweeper = Sweeper::new(cycle.local_block(), self.zeal);
        self.core.space().borrow_mut().sweep_spans(|span| sweeper.sweep(span));
        let (local, tally) = sweeper.finish();
        *self.core.space().borrow_mut().usage_mut() = tally.live;
        let sweep_time = start.elapsed();
        let flushed = cycle.flush([local]);
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
            flush_time: start.elapsed() - sweep_time,
            ..GcReport::default()
        }
    }

    /// Ends the heap: drops its root and all its objects, and queues or discards their cleanups.
    /// Later calls do nothing. Dropping the heap tears it down with [`Armed::Discard`].
    pub fn tear_down(&mut self, armed: Armed) {
        if std::mem::replace(&mut self.torn_down, true) {
            return;
        }
        let root = self.root.take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(root))) {
            self.totals.drop_panics += 1;
            drop_quietly(payload);
        }
        self.core.with_allocator(|allocator| allocator.retire(&mut self.core.space().borrow_mut()));
        match armed {
            Armed::Queue => self.core.locals().queue_all(),
            Armed::Discard => self.discard_cleanups(),
        }
        // Nothing is marked, so everything dies.
        let report = self.sweep();
        self.totals.drop_panics += report.drop_panics;
    }

    fn discard_cleanups(&mut self) {
        let mut doomed = Vec::new();
        for span in self.core.space().borrow().spans() {
            span.cleanups().borrow_mut().retain(span.special_bits(), |_, head| {
                doomed.push(head);
                false
            });
        }
        // Dropping captures runs user code. It cannot reach the registrar: the heap is going, and no session
        // will be opened on it again.
        let mut registrar = self.core.registrar().borrow_mut();
        doomed.into_iter().for_each(|head| registrar.discard(head));
        drop(registrar);
        self.core.locals().discard(false);
    }

    /// Runs at most `max` local cleanups of dead objects here; how many it ran. They may be run after the heap was
    /// torn down, too.
    pub fn run_local_cleanups(&mut self, max: usize) -> usize {
        self.core.locals().run_queued(max)
    }

    /// Drops the captures of all local cleanups.
    pub fn discard_local_cleanups(&mut self) {
        self.core.locals().discard(true);
    }

    /// The roots that have lived for at least so many cycles, the oldest first. O(roots).
    pub fn old_roots(&self, cycles: u64) -> Vec<OldRoot> {
        self.core.roots().old(cycles)
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The heap's number, as messages name it.
    pub fn id(&self) -> HeapId {
        self.core.roots().heap()
    }

    /// The report of the last cycle, whoever asked for it; `None` before the first.
    pub fn last_report(&self) -> Option<GcReport> {
        self.last_report
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
        let usage = self.core.exact_usage();
        let space = self.core.space().borrow();
        HeapStats {
            cycles: self.totals.cycle,
            objects: usage.objects,
            weak_records: usage.weak_records,
            bytes: usage.bytes,
            mapped_bytes: space.mapped_bytes(),
            max_bytes: Some(space.max_bytes()).filter(|&bytes| bytes < u64::MAX),
            swept_objects: self.totals.swept_objects,
            drop_panics: self.totals.drop_panics,
            roots: self.core.roots().len() as u64,
            cleanups: self.core.origin().stats(),
            local_cleanups: self.core.locals().stats(),
        }
    }

    /// Recomputes reachability and all bookkeeping the slow way and compares. For tests; O(heap).
    ///
    /// # Errors
    ///
    /// The first inconsistency found.
    pub fn verify(&self) -> Result<(), VerifyError> {
        verify::verify(&self.core, |marker| _ = self.visit_roots(marker), false)
    }
}

/// Settled records worth a pass over all chains.
const PRUNE_AT: u64 = 1024;

impl<R: Branded> Drop for RootedHeap<R> {
    fn drop(&mut self) {
        self.tear_down(Armed::Discard);
    }
}
