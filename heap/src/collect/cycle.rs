//! The collection cycle: its steps, and what lasts from one step to the next.
//!
//! The phases of a cycle are `Idle -> Marking -> Clearing -> Sweeping -> Idle`. For now a cycle
//! passes through all of them while no session is open.
//!
//! Invariant: each step runs in its phase, on one thread. Between two cycles the phase is `Idle`,
//! and all mark bits are clear.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mark::weaks;
use crate::memory::locking::Lock;
use crate::memory::mark_stack::{Marker, Pending};
use crate::memory::space::{Space, Usage};
use crate::memory::span::SpanRef;
use crate::policy::config::{HeapConfig, SpawnHelper};
use crate::policy::history::History;
use crate::policy::report::{GcReport, PauseClock};
use crate::safepoint::helpers::{Helpers, Job, NoneWaiting, Waiting, processors};
use crate::session::core::Core;
use crate::session::mode::Mode;
use crate::sweep::local_cleanups::LocalCleanups;
use crate::sweep::parallel::Sweepers;
use crate::sweep::sweeper::{SweepStats, Sweeper, or_abort};

/// Collects one heap.
pub(crate) struct Collector<M: Mode> {
    /// Locked for a moment, and never while user code runs.
    history: M::Lock<History>,
    /// Locked by the step that runs. Trace and drop glue cannot get here, as they cannot collect.
    cycle: M::Lock<Cycle>,
    /// The most threads that mark, or sweep, the one that collects included.
    gc_threads: usize,
    spawn_helper: Option<SpawnHelper>,
}

/// Says how far a cycle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No cycle is under way.
    Idle,
    /// Reachable objects are being marked.
    Marking,
    /// All of them are; the records of dead targets of weak pointers are being cleared.
    Clearing,
    /// Spans are being swept.
    Sweeping,
}

/// Holds what lasts from one step of a cycle to the next.
struct Cycle {
    phase: Phase,
    marker: Marker,
    /// When the mutators were told to stop.
    since: Instant,
    clock: PauseClock,
    /// What is known so far.
    report: GcReport,
    /// Mutators that have allocated since the cycle before.
    allocating: u64,
    /// Roots dropped until mark began.
    dropped_roots: u64,
}

impl Cycle {
    /// Makes the state between two cycles.
    fn idle() -> Self {
        let now = Instant::now();
        Cycle {
            phase: Phase::Idle,
            marker: Marker::new(),
            since: now,
            clock: PauseClock::from(now),
            report: GcReport::default(),
            allocating: 0,
            dropped_roots: 0,
        }
    }

    fn pass(&mut self, from: Phase, to: Phase) {
        debug_assert_eq!(self.phase, from, "a step in the wrong phase");
        self.phase = to;
    }
}

impl<M: Mode> Collector<M> {
    pub(crate) fn new(config: &HeapConfig) -> Self {
        Collector {
            history: Lock::new(History::new()),
            cycle: Lock::new(Cycle::idle()),
            gc_threads: config.gc_threads.unwrap_or_else(gc_threads_of::<M>).max(1),
            spawn_helper: config.spawn_helper.clone(),
        }
    }

    pub(crate) fn history(&self) -> &M::Lock<History> {
        &self.history
    }

    /// Tells how many roots had been dropped when the last cycle began to mark.
    pub(crate) fn dropped_roots(&self) -> u64 {
        self.cycle.with(|cycle| cycle.dropped_roots)
    }

    /// Gives the threads that may help a cycle.
    pub(crate) fn helpers<'a>(&'a self, core: &Core<M>, waiting: &'a dyn Waiting) -> Helpers<'a> {
        Helpers {
            heap: core.roots().heap(),
            most: self.gc_threads - 1,
            waiting,
            spawn: self.spawn_helper.as_deref(),
        }
    }

    /// `Idle -> Marking`: makes the mutators' cached slots free ones.
    pub(crate) fn begin(&self, core: &Core<M>, since: Instant, safepoint_time: Duration) {
        self.cycle.with(|cycle| {
            cycle.pass(Phase::Idle, Phase::Marking);
            cycle.since = since;
            cycle.clock = PauseClock::from(since + safepoint_time);
            cycle.report = GcReport { safepoint_time, ..GcReport::default() };
            cycle.allocating = core.retire_contexts();
            prune_ended_early(core);
            cycle.report.prune_time = cycle.clock.lap();
        });
    }

    /// `Marking -> Clearing`: marks what `visit_roots` reports, and all that it leads to.
    ///
    /// # Panics
    ///
    /// If trace glue does. Then nothing is marked, and the phase is `Idle`.
    pub(crate) fn mark(
        &self,
        core: &Core<M>,
        visit_roots: impl FnOnce(&mut Marker) -> Pending,
        helpers: &Helpers<'_>,
    ) {
        let marked = self.cycle.with(|cycle| {
            cycle.dropped_roots = core.roots().dropped();
            let marker = &mut cycle.marker;
            let marked = catch_unwind(AssertUnwindSafe(|| {
                let pending = visit_roots(marker);
                marker.drain(pending, helpers);
            }));
            // A list as long as the widest graph needs is not kept until the next cycle.
            cycle.marker = Marker::new();
            cycle.pass(Phase::Marking, if marked.is_ok() { Phase::Clearing } else { Phase::Idle });
            marked
        });
        if let Err(payload) = marked {
            core.space().with(|space| space.spans().for_each(|span| span.clear_marks()));
            resume_unwind(payload);
        }
    }

    /// `Clearing -> Sweeping`: queues the local cleanups of dead objects, and clears the weak
    /// records of dead targets.
    ///
    /// The marks are set, so a panic here would leave them to the next cycle, as one in the sweep.
    pub(crate) fn clear(&self, core: &Core<M>) {
        or_abort(|| {
            self.cycle.with(|cycle| {
                cycle.report.cycle = self.history.with(|history| history.next_cycle());
                core.roots().count_cycle(cycle.report.cycle);
                core.locals().queue_dead();
                cycle.report.cleared_weaks = core.space().with(|space| weaks::clear_dead(space));
                cycle.report.mark_time = cycle.clock.lap();
                cycle.pass(Phase::Clearing, Phase::Sweeping);
            });
        });
    }

    /// Sweeps the rest, queues its cleanups, and publishes what is left in partial blocks.
    pub(crate) fn sweep(&self, core: &Core<M>, helpers: &Helpers<'_>) {
        self.cycle.with(|cycle| {
            debug_assert_eq!(cycle.phase, Phase::Sweeping);
            self.sweep_spans(core, helpers, &mut cycle.clock, &mut cycle.report);
        });
    }

    /// `Sweeping -> Idle`: returns long-empty regions to the system, and decides when the next
    /// cycle is due.
    pub(crate) fn finish(&self, core: &Core<M>) -> GcReport {
        self.cycle.with(|cycle| {
            core.space().with(|space| space.release_regions());
            core.pace(cycle.report.live_bytes, cycle.allocating);
            let release_time = cycle.clock.lap();
            let pause_time = cycle.clock.since(cycle.since);
            let report = GcReport { release_time, pause_time, ..cycle.report };
            cycle.pass(Phase::Sweeping, Phase::Idle);
            self.history.with(|history| history.record(report))
        })
    }

    /// Sweeps a heap that is going. Nothing is marked, so everything dies.
    pub(crate) fn sweep_all(&self, core: &Core<M>) {
        let alone =
            Helpers { heap: core.roots().heap(), most: 0, waiting: &NoneWaiting, spawn: None };
        let mut report = GcReport::default();
        self.sweep_spans(core, &alone, &mut PauseClock::from(Instant::now()), &mut report);
        self.history.with(|history| history.count_drop_panics(report.drop_panics));
    }

    fn sweep_spans(
        &self,
        core: &Core<M>,
        helpers: &Helpers<'_>,
        clock: &mut PauseClock,
        report: &mut GcReport,
    ) {
        let batch = core.client().begin_cycle();
        let new_sweeper = || Sweeper::new(batch.local_block(), core.zeal());
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
            let live = |sweeper: &Sweeper| sweeper.stats().live;
            space.recount(sweepers.iter().map(live).fold(Usage::default(), Usage::plus));
            (before, sweepers)
        };
        let (before, sweepers) = or_abort(|| core.space().with(sweep_spans));
        let stats =
            sweepers.iter().map(Sweeper::stats).fold(SweepStats::default(), SweepStats::plus);
        let locals = sweepers.into_iter().map(Sweeper::into_local_block);
        let sweep_time = clock.lap();
        let flushed = batch.flush(locals);
        let flush_time = clock.lap();
        *report = GcReport {
            live_objects: stats.live.objects,
            live_bytes: stats.live.bytes,
            live_weak_records: stats.live.weak_records,
            swept_objects: before.objects - stats.live.objects,
            swept_bytes: before.bytes - stats.live.bytes,
            dropped_objects: stats.dropped_objects,
            drop_panics: stats.drop_panics,
            swept_spans: stats.spans,
            emptied_spans: stats.emptied_spans,
            queued_cleanups: flushed.cleanups,
            published_blocks: flushed.blocks,
            sweep_time,
            flush_time,
            ..*report
        };
    }
}

/// Cleanups stopped or run early leave their records in their objects' chains. Take those out
/// when they make up much of what there is.
fn prune_ended_early<M: Mode>(core: &Core<M>) {
    let mut own = core.context().registrar().borrow_mut();
    if own.ended_early() < PRUNE_AT {
        return;
    }
    // In a shared heap the own one will register nothing more: what it frees is to go back, for the
    // others.
    let mut passing = M::SHARED.then(|| core.client().registrar());
    let registrar = passing.as_mut().unwrap_or(&mut own);
    core.space().with(|space| {
        for span in space.spans() {
            span.cleanups()
                .borrow_mut()
                .retain_map(span.special_bits(), |_, head| registrar.prune(head));
        }
    });
}

/// Gives the default of `gc_threads` for the mode.
fn gc_threads_of<M: Mode>() -> usize {
    if M::SHARED { processors().min(4) } else { 1 }
}

/// Sweeps the spans in which something must happen, with helpers. Gives `None` if there are too few
/// of them.
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
    // SAFETY: called in a cycle of a `Shared` heap, whose payloads are `Send`; marking is over;
    // what is left of the sweep begins when all have left.
    let sweepers = Arc::new(unsafe { Sweepers::new(spans, sweepers) });
    helpers.with(sweepers.clone(), most, || sweepers.help());
    Some(sweepers)
}

/// Records of cleanups that have ended early, worth a pass over all chains.
const PRUNE_AT: u64 = 1024;
