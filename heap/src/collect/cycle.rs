//! The collection cycle: its steps, and what lasts from one step to the next.
//!
//! The phases of a cycle are `Idle -> Marking -> Clearing -> Sweeping -> Idle`. A cycle passes
//! through all of them at once, or in *slices*, between which sessions are opened. To stop the
//! world is to run one slice without a deadline. `MARKING.md` beside `Cargo.toml` says why a
//! session between two slices does no harm.
//!
//! In a `Shared` heap the work of a phase is lent to a thread between two slices; see
//! `background.rs`.
//!
//! A slice may run *within sessions*: each that is open allocates, or waits within an allocation.
//! It begins no cycle, and runs no drop glue.
//!
//! Invariant: each step runs in its phase, on one thread. The phase changes while the mutators are
//! stopped, but for the end of a cycle, which no session depends on. Between two cycles the phase
//! is `Idle`, and all mark bits are clear.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sexton_sync::drop_quietly;

use crate::collect::background::{Background, Late, Loan, Returned, Work};
use crate::collect::clearing::Clearing;
use crate::collect::huge_pages::HugePageTime;
use crate::collect::pace::Pace;
use crate::collect::sweeping::Sweeping;
use crate::collect::until::Until;
use crate::memory::cell_lock::NEXT_EPOCH;
use crate::memory::locking::Lock;
use crate::memory::mark_stack::{Marker, Pending, Strategy};
use crate::memory::phase::{NO_EPOCH, Phase};
use crate::memory::space::Space;
use crate::memory::span::SpanRef;
use crate::object::trace::Tracer;
use crate::policy::config::{HeapConfig, SpawnHelper};
use crate::policy::history::History;
use crate::policy::report::{GcReport, PauseClock};
use crate::safepoint::handshake::{NotStopped, Stopped};
use crate::safepoint::helpers::{Helpers, Waiting, processors};
use crate::session::context::{Context, Shaded};
use crate::session::core::{Assist, Core, Wait};
use crate::session::mode::Mode;
use crate::session::mode::parts::Mutators;
use crate::sweep::sweeper::or_abort;

/// Collects one heap.
pub(crate) struct Collector<M: Mode> {
    /// Locked for a moment, and never while user code runs.
    history: M::Lock<History>,
    /// Locked by the step that runs. Trace and drop glue cannot get here, as they cannot collect.
    ///
    /// A thread that has not stopped the mutators does not wait for it where a step may run: it
    /// waits for that at T1, where it can help.
    ///
    /// Made for the first cycle, so that a small heap takes less memory.
    cycle: M::Lock<Option<Box<Cycle>>>,
    /// The most threads that mark, or sweep, the one that collects included.
    gc_threads: usize,
    spawn_helper: Option<SpawnHelper>,
    /// Where the work of a `Shared` heap's phase is on loan between two slices.
    background: Arc<Background>,
    core: Arc<Core<M>>,
    /// How long a slice may take. `None`: each cycle runs at once.
    budget: Option<Duration>,
}

/// Holds what lasts from one step of a cycle to the next.
struct Cycle {
    /// The epoch of the last cycle in slices.
    epoch: u32,
    marker: Marker,
    /// Objects in the top chunk of its work list.
    waiting: usize,
    /// Objects to trace between two looks at the clock.
    objects: usize,
    /// What mutators have shaded that are gone.
    left_behind: Shaded,
    /// The pass of the clearing, or of the sweep.
    clearing: Option<Clearing>,
    sweeping: Option<Sweeping>,
    pace: Pace,
    clock: PauseClock,
    /// What is known so far.
    report: GcReport,
    /// Objects in use when the cycle began.
    objects_before: u64,
    /// The times of the phases when the slice began: to mark, to clear, to sweep.
    phases_before: [Duration; 3],
    /// Mutators that have allocated since the cycle before.
    allocating: u64,
    /// Roots dropped until mark began.
    dropped_roots: u64,
    /// What trace glue has thrown within a session, to be thrown at its end.
    thrown: Option<Box<dyn Any + Send>>,
    /// How often a step has run, of this cycle or another one.
    advances: u64,
    huge_pages: HugePageTime,
}

/// What is to be done for a heap that a cycle, or a slice, is due in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// A cycle, at once. One that is under way would leave what has died since it began.
    Whole,
    /// A slice of this length, which a whole cycle is likely to fit into.
    Try(Duration),
    /// A slice of this length.
    Slice(Duration),
}

/// The time between two looks at the clock while objects are traced: much more than a look takes,
/// and much less than a slice.
const LOOK: Duration = Duration::from_micros(10);

/// Objects traced between two looks at the clock, at least. What an object takes is found out as
/// the mark goes: 4 ns in a tree, 170 where each is a miss. A model leaves all to other threads.
const OBJECTS: usize = if cfg!(loom) { 0 } else { 64 };

/// The same, at most: the next ones may each take forty times as long as the last.
const MOST_OBJECTS: usize = 1024;

/// The shortest slice of a cycle that is late.
const LEAST_SLICE: Duration = Duration::from_micros(50);

/// The longest slice where a thread marks beside open sessions.
const STOP: Duration = Duration::from_micros(200);

/// How long a session that found no room waits for a cycle that does not get on.
///
/// Others may wait for this session. But few do: most have lost their processor. A model has no
/// time.
const PATIENCE: Duration =
    if cfg!(any(loom, shuttle)) { Duration::ZERO } else { Duration::from_secs(1) };

/// Roots, and local cleanups, looked at between two looks at the clock.
const ENTRIES: usize = 256;

impl Cycle {
    /// Makes the state between two cycles.
    fn idle() -> Self {
        Cycle {
            epoch: NO_EPOCH,
            marker: Marker::new(Strategy::Narrow),
            waiting: 0,
            objects: OBJECTS,
            left_behind: Shaded::new(),
            clearing: None,
            sweeping: None,
            pace: Pace::default(),
            clock: PauseClock::from(Instant::now()),
            report: GcReport::default(),
            objects_before: 0,
            phases_before: [Duration::ZERO; 3],
            allocating: 0,
            dropped_roots: 0,
            thrown: None,
            advances: 0,
            huge_pages: HugePageTime::new(),
        }
    }
}

impl<M: Mode> Collector<M> {
    pub(crate) fn new(config: &HeapConfig, core: &Arc<Core<M>>) -> Self {
        Collector {
            history: Lock::new(History::new()),
            cycle: Lock::new(None),
            gc_threads: config.gc_threads.unwrap_or_else(gc_threads_of::<M>).max(1),
            spawn_helper: config.spawn_helper.clone(),
            background: Arc::new(Background::new(core.roots().heap())),
            core: core.clone(),
            budget: config.pause_budget,
        }
    }

    fn with_cycle<T>(&self, f: impl FnOnce(&mut Cycle) -> T) -> T {
        self.cycle.with(|cycle| f(cycle.get_or_insert_with(|| Box::new(Cycle::idle()))))
    }

    /// Does the same, unless a step runs.
    fn try_with_cycle<T>(&self, f: impl FnOnce(&mut Cycle) -> T) -> Option<T> {
        self.cycle.try_with(|cycle| f(cycle.get_or_insert_with(|| Box::new(Cycle::idle()))))
    }

    pub(crate) fn history(&self) -> &M::Lock<History> {
        &self.history
    }

    /// Tells how many roots had been dropped when the last cycle began to mark.
    pub(crate) fn dropped_roots(&self) -> u64 {
        self.with_cycle(|cycle| cycle.dropped_roots)
    }

    /// Gives the threads that may help a cycle.
    pub(crate) fn helpers<'a>(&'a self, core: &Core<M>, waiting: &'a dyn Waiting) -> Helpers<'a> {
        Helpers {
            most: self.gc_threads - 1,
            waiting,
            spawn: self.spawn_helper.as_deref(),
            ..Helpers::none(core.roots().heap())
        }
    }

    /// How long a slice takes that no user has given a length.
    fn slice(&self) -> Duration {
        let budget = self.budget.unwrap_or(HeapConfig::DEFAULT_PAUSE_BUDGET);
        // What is left to the mutators is done in short stops.
        if self.lends() { budget.min(STOP) } else { budget }
    }

    /// Tells what is to be done, when something is due.
    pub(crate) fn plan(&self, core: &Core<M>) -> Plan {
        let in_use = core.bytes_in_use();
        let Some(budget) = self.budget.filter(|_| !core.zeal()) else {
            return Plan::Whole;
        };
        let (pace, is_idle) =
            (self.with_cycle(|cycle| cycle.pace), core.phase().get() == Phase::Idle);
        if core.pacer().is_urgent(in_use) || is_idle && pace.fits(in_use, budget) {
            return Plan::Whole;
        }
        if is_idle && pace.is_likely_to_fit(in_use, budget) {
            return Plan::Try(budget);
        }
        if is_idle {
            return Plan::Slice(self.slice());
        }
        let weight = core.weight();
        // A slice of no length would never catch up.
        let least = if pace.late(weight) > 1.0 { LEAST_SLICE } else { Duration::ZERO };
        Plan::Slice(self.slice().max(least).saturating_mul(pace.stretch(weight)))
    }

    /// Runs what `until` allows of the cycle that is under way. One begins if there is none, and
    /// `root` is traced for it. Gives the report of a cycle that ends.
    ///
    /// Sessions have been kept waiting since `since`, and none is open for `safepoint_time` less.
    ///
    /// # Errors
    ///
    /// What trace glue has thrown, in the mark or in a barrier. The mark is given up, and nothing
    /// dies. What is left of the cycle clears its marks.
    pub(crate) fn run(
        &self,
        core: &Core<M>,
        root: impl FnOnce(&mut Tracer<'_>),
        stopped: Stopped,
        until: Until<'_>,
        helpers: &Helpers<'_>,
    ) -> Result<Option<GcReport>, Box<dyn Any + Send>> {
        self.with_cycle(|cycle| {
            if let Some(payload) = cycle.thrown.take() {
                return Err(payload);
            }
            cycle.clock = PauseClock::from(stopped.since + stopped.safepoint_time);
            let mut until = until;
            // The thread may be within drop glue, which may wait for a lock of a session's.
            let deadline = stopped.has_sessions.then(|| Instant::now() + self.slice());
            let Ok(recalled) = self.recall(cycle, deadline) else {
                return Ok(self.end_in_vain(cycle, core, stopped));
            };
            let result = if core.phase().get() == Phase::Idle {
                if stopped.has_sessions {
                    // The cycle has ended since.
                    return Ok(None);
                }
                let in_slices = !until.is_never();
                if in_slices && self.lends() && !until.is_likely_the_last {
                    // A thread marks. The snapshot is all that sessions have to wait for.
                    until = Until::after(Duration::ZERO);
                }
                let begun = cycle.begin(core, in_slices, root);
                if core.phase().get() == Phase::Marking && core.phase().epoch() == NO_EPOCH {
                    // Epochs are used up, and without one no session may come between.
                    until = Until::END;
                }
                begun
            } else {
                recalled
            };
            cycle.advances += 1;
            cycle.report.safepoint_time += stopped.safepoint_time;
            let result = result.and_then(|()| self.advance(cycle, core, until, helpers));
            if result.is_err() && until.is_never() {
                // What is left of it clears the marks.
                let ended = self.advance(cycle, core, until, helpers);
                ended.err().into_iter().for_each(drop_quietly);
            }
            if let Ok(false) = result {
                let slice = self.budget.map(|_| self.slice());
                cycle.pace.after_slice(core, cycle.report.pause_time, slice);
                self.lend(cycle);
                cycle.report.release_time += cycle.clock.lap();
            }
            cycle.report.refused_threads += helpers.refused.take();
            self.record_pause(cycle, stopped);
            core.count_step();
            if result? { Ok(Some(self.record(cycle, core))) } else { Ok(None) }
        })
    }

    /// Ends a slice for which the work did not come back in time.
    fn end_in_vain(&self, cycle: &mut Cycle, core: &Core<M>, stopped: Stopped) -> Option<GcReport> {
        cycle.pace.after_slice(core, cycle.report.pause_time, Some(self.slice()));
        self.leave_due(core);
        cycle.report.safepoint_time += stopped.safepoint_time;
        cycle.report.release_time += cycle.clock.lap();
        self.record_pause(cycle, stopped);
        core.count_step();
        None
    }

    /// Makes the next slice due again if the thread has: what was set since must not put it off.
    fn leave_due(&self, core: &Core<M>) {
        if self.background.is_done() {
            core.pacer().set_next_slice(0);
        }
    }

    fn record_pause(&self, cycle: &mut Cycle, stopped: Stopped) {
        let pause = cycle.clock.since(stopped.since);
        let report = &mut cycle.report;
        report.pause_time += pause;
        report.slices += 1;
        let phases = phases_of(report);
        let [marked, cleared, swept] =
            std::array::from_fn(|nth| phases[nth].saturating_sub(cycle.phases_before[nth]));
        cycle.phases_before = phases;
        report.longest_pause = report.longest_pause.max(pause);
        report.longest_mark = report.longest_mark.max(marked);
        report.longest_clear = report.longest_clear.max(cleared);
        report.longest_sweep = report.longest_sweep.max(swept);
        if stopped.is_assist {
            report.assist_time += pause;
        }
        self.history.with(|history| history.record_pause(pause, stopped.safepoint_time));
    }

    /// Records a cycle that has ended, and decides on the next one.
    fn record(&self, cycle: &mut Cycle, core: &Core<M>) -> GcReport {
        cycle.pace.after_cycle(core, &mut cycle.report, cycle.allocating, self.budget);
        self.history.with(|history| history.record(cycle.report))
    }

    /// Ends the cycle, if a thread has ended the sweep, and gives the report. No session has to
    /// wait for that: none depends on whether the phase is `Sweeping` or `Idle`.
    ///
    /// Does nothing if another thread runs a step, or ends the cycle.
    pub(crate) fn end_swept(&self, core: &Core<M>) -> Option<GcReport> {
        if !M::SHARED || core.phase().get() != Phase::Sweeping || core.zeal() {
            return None;
        }
        let ended = self.try_with_cycle(|cycle| {
            if core.phase().get() != Phase::Sweeping || !self.background.is_used_up() {
                return None;
            }
            or_abort(|| {
                self.recall(cycle, None).expect("it has come back").expect("no glue threw");
            });
            let was_given_up = cycle.end(core);
            core.count_step();
            if was_given_up {
                cycle.pace.after_slice(core, cycle.report.pause_time, Some(self.slice()));
                return None;
            }
            Some(self.record(cycle, core))
        });
        ended.flatten()
    }

    /// Tells whether the next slice may run within sessions. If not it may be left with nothing to
    /// do but what waits until no session is open.
    pub(crate) fn goes_on_within_sessions(&self, core: &Core<M>) -> bool {
        // If another thread runs a step, that tells afterwards.
        let is_lent = || self.try_with_cycle(|cycle| cycle.sweeping.is_none()).unwrap_or(true);
        !core.zeal()
            && match core.phase().get() {
                Phase::Idle => false,
                Phase::Marking | Phase::Clearing => true,
                Phase::Sweeping => is_lent(),
            }
    }

    /// Tells whether a thread works beside open sessions, if one can be started.
    fn lends(&self) -> bool {
        M::SHARED && self.gc_threads > 1 && self.spawn_helper.is_some()
    }

    /// Lends the work of the phase to a thread, if one is to go on beside open sessions. If the
    /// thread is done early it makes the next slice due. If not, that is due when the runway is
    /// used up.
    fn lend(&self, cycle: &mut Cycle) {
        let core = &self.core;
        let Some(spawn) = self.spawn_helper.as_deref().filter(|_| self.lends()) else { return };
        let Some(shared) = M::shared(core) else { return };
        let Some(work) = cycle.take_work(core.phase().get()) else { return };
        self.background.lend(Loan { work, core: shared });
        let end = cycle.pace.began_at.saturating_add(cycle.pace.runway);
        if core.weight() < end {
            // Before the start: a thread that is done at once makes it due.
            core.pacer().set_next_slice(end);
        }
        if !self.background.start(spawn) {
            cycle.report.refused_threads += 1;
            self.recall_now(cycle).err().into_iter().for_each(drop_quietly);
            cycle.pace.after_slice(core, cycle.report.pause_time, Some(self.slice()));
        }
    }

    /// Takes the work of the phase back, if it is on loan, however long that takes.
    fn recall_now(&self, cycle: &mut Cycle) -> Result<(), Box<dyn Any + Send>> {
        self.recall(cycle, None).unwrap_or(Ok(()))
    }

    /// Takes the work of the phase back, if it is on loan. Waits for it until the deadline.
    fn recall(
        &self,
        cycle: &mut Cycle,
        deadline: Option<Instant>,
    ) -> Result<Result<(), Box<dyn Any + Send>>, Late> {
        let Some(Returned { work, thrown, worked, .. }) = self.background.recall(deadline)? else {
            return Ok(Ok(()));
        };
        cycle.report.background_time += worked;
        if let Some(payload) = thrown {
            cycle.give_up(&self.core);
            return Ok(Err(payload));
        }
        match work {
            Work::Mark(marker, waiting) => {
                cycle.pace.marked_beside += worked;
                cycle.marker = marker;
                let waiting = Pending { len: waiting, next: None };
                cycle.waiting = cycle.marker.unblock(waiting).len;
            }
            Work::Clear(clearing) => cycle.clearing = Some(clearing),
            Work::Sweep(sweeping) => cycle.sweeping = Some(sweeping),
        }
        Ok(Ok(()))
    }

    /// Has a mutator wait for as long as a slice, if a thread is at work for a cycle that is late.
    /// Tells whether that is enough for now. It is not if another thread runs a step.
    ///
    /// The thread gets on faster than if its work were recalled, and lent again, for each slice.
    pub(crate) fn wait_beside(&self, core: &Core<M>) -> bool {
        let Some(pace) = self.try_with_cycle(|cycle| cycle.pace) else { return false };
        let is_urgent = core.pacer().is_urgent(core.bytes_in_use());
        let must_not_wait = core.zeal() || is_urgent || pace.stretch(core.weight()) > 1;
        if must_not_wait || self.budget.is_none() || !self.lends() {
            return false;
        }
        let began = Instant::now();
        if !self.background.wait(self.slice()) {
            return false;
        }
        let waited = began.elapsed();
        pace.after_wait(core, self.slice());
        self.leave_due(core);
        self.history.with(|history| history.record_pause(waited, Duration::ZERO));
        true
    }

    /// Gives the place where the work is on loan.
    pub(crate) fn background(&self) -> &Arc<Background> {
        &self.background
    }

    /// Tells whether a `fork` has left a thread behind that was changing the spans.
    pub(crate) fn is_left_behind(&self) -> bool {
        let changes_spans = matches!(self.core.phase().get(), Phase::Clearing | Phase::Sweeping);
        M::SHARED && changes_spans && self.background.is_left_behind()
    }

    /// Goes on from whatever phase the cycle is in. Tells whether it has ended with a report.
    fn advance(
        &self,
        cycle: &mut Cycle,
        core: &Core<M>,
        until: Until<'_>,
        helpers: &Helpers<'_>,
    ) -> Result<bool, Box<dyn Any + Send>> {
        let was_given_up = cycle.sweeping.as_ref().is_some_and(|sweeping| sweeping.given_up);
        loop {
            let is_done = match core.phase().get() {
                // A mark that was given up ends without a report.
                Phase::Idle => return Ok(!was_given_up),
                Phase::Marking => {
                    let marked = cycle.mark(core, until, helpers);
                    cycle.report.mark_time += cycle.clock.lap();
                    if marked? {
                        let number = self.history.with(|history| history.next_cycle());
                        cycle.begin_clearing(core, number);
                    }
                    core.phase().get() != Phase::Marking
                }
                // A panic from here on would leave marks to the next cycle.
                Phase::Clearing => {
                    let is_clear = or_abort(|| cycle.clear(core, until));
                    cycle.report.clear_time += cycle.clock.lap();
                    if is_clear {
                        cycle.begin_sweeping(core);
                    }
                    is_clear
                }
                Phase::Sweeping => {
                    or_abort(|| cycle.sweep(core, until, helpers)) && cycle.release(core, until)
                }
            };
            let phase = core.phase().get();
            if !is_done || until.is_over() && phase != Phase::Idle {
                return Ok(false);
            }
            // A thread goes on with the phase that begins, unless there is nothing to do in it.
            let is_empty = cycle.clearing.as_ref().is_some_and(Clearing::is_empty);
            let lends = self.lends() && !until.is_never() && !until.is_likely_the_last;
            if lends && phase != Phase::Idle && !is_empty {
                return Ok(false);
            }
        }
    }

    /// Takes what a mutator has shaded that goes. Called in its last session.
    pub(crate) fn inherit(&self, shaded: &mut Shaded) {
        if !shaded.is_empty() {
            self.with_cycle(|cycle| cycle.left_behind.inherit(shaded));
        }
    }

    /// Gives the cycle up that is under way, if it is one that marks. What is left of another is to
    /// be run.
    pub(crate) fn give_up_mark(&self, core: &Core<M>) {
        self.settle(core);
        if core.phase().get() == Phase::Marking {
            self.with_cycle(|cycle| cycle.give_up(core));
        }
    }

    /// Takes the work of the phase back, if it is on loan, and gives up a mark whose trace glue has
    /// panicked since the last slice. The next one throws that.
    pub(crate) fn settle(&self, core: &Core<M>) {
        if core.phase().get() == Phase::Idle {
            return;
        }
        self.with_cycle(|cycle| {
            let mut settled = self.recall_now(cycle);
            if core.phase().get() == Phase::Marking && settled.is_ok() {
                settled = cycle.take_shaded(core);
            }
            let surplus = settled.err().and_then(|thrown| cycle.thrown.replace(thrown));
            surplus.into_iter().for_each(drop_quietly);
        });
        // The work is lent again after the next slice.
        core.pacer().set_next_slice(0);
    }

    /// Sweeps a heap that is going. Nothing is marked, so everything dies.
    pub(crate) fn sweep_all(&self, core: &Core<M>) {
        let alone = Helpers::none(core.roots().heap());
        self.with_cycle(|cycle| {
            // It would mark objects that die.
            let thrown = self.recall_now(cycle).err();
            thrown.into_iter().chain(cycle.thrown.take()).for_each(drop_quietly);
            cycle.forget(core);
            core.space().with(|space| space.spans().for_each(|span| span.clear_marks()));
            cycle.report = GcReport::default();
            core.phase().pass(core.phase().get(), Phase::Clearing, NO_EPOCH);
            cycle.begin_sweeping(core);
            or_abort(|| cycle.sweep(core, Until::END, &alone));
            let swept = cycle.sweeping.take();
            core.phase().pass(Phase::Sweeping, Phase::Idle, NO_EPOCH);
            let mut report = GcReport::default();
            swept.iter().for_each(|swept| swept.report(&mut report));
            self.history.with(|history| history.count_drop_panics(report.drop_panics));
        });
    }

    /// Calls `each` with all objects that wait to be traced in the mark under way.
    pub(crate) fn for_each_waiting(
        &self,
        core: &Core<M>,
        each: &mut dyn FnMut(std::ptr::NonNull<u8>),
    ) {
        core.roots().for_each_ahead(&mut *each);
        self.with_cycle(|cycle| {
            let pending = Pending { len: cycle.waiting, next: None };
            cycle.marker.for_each_waiting(pending, each);
            cycle.marker.for_each_in_slices(each);
        });
    }

    /// Has the next cycle in slices go on counting from an epoch.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn set_epoch(&self, epoch: u32) {
        self.with_cycle(|cycle| cycle.epoch = epoch);
    }

    /// Calls `each` with the spans that the sweep under way has not sorted.
    pub(crate) fn for_each_unswept(&self, space: &Space, mut each: impl FnMut(SpanRef)) {
        self.with_cycle(|cycle| {
            let Some(sweeping) = &cycle.sweeping else { return };
            space.ahead().for_each(&mut each);
            sweeping.unsorted().for_each(each);
        });
    }
}

/// Gives the times to mark, to clear, and to sweep.
fn phases_of(report: &GcReport) -> [Duration; 3] {
    [report.mark_time, report.clear_time, report.sweep_time + report.flush_time]
}

impl Cycle {
    /// Takes the work of the phase, to be lent.
    fn take_work(&mut self, phase: Phase) -> Option<Work> {
        match phase {
            Phase::Idle => None,
            Phase::Marking => {
                let marker = std::mem::replace(&mut self.marker, Marker::new(Strategy::Narrow));
                Some(Work::Mark(marker, std::mem::take(&mut self.waiting)))
            }
            Phase::Clearing => self.clearing.take().map(Work::Clear),
            Phase::Sweeping => self.sweeping.take().map(Work::Sweep),
        }
    }

    /// `Idle -> Marking`: takes the snapshot.
    fn begin<M: Mode>(
        &mut self,
        core: &Core<M>,
        in_slices: bool,
        root: impl FnOnce(&mut Tracer<'_>),
    ) -> Result<(), Box<dyn Any + Send>> {
        self.report = GcReport::default();
        self.phases_before = [Duration::ZERO; 3];
        self.pace.begin(core);
        self.allocating = core.retire_contexts();
        self.objects_before = core.usage().objects;
        self.dropped_roots = core.roots().dropped();
        core.roots().begin_scan();
        // A stamp that was used before would hide a cell from the barrier.
        let epoch = if in_slices { self.epoch.checked_add(NEXT_EPOCH) } else { None };
        self.epoch = epoch.unwrap_or(self.epoch);
        self.marker = Marker::new(Strategy::Narrow);
        self.marker.epoch = epoch.unwrap_or(NO_EPOCH);
        core.phase().pass(Phase::Idle, Phase::Marking, self.marker.epoch);
        self.trace(core, |marker, pending| {
            let mut tracer = Tracer::new(marker, pending);
            root(&mut tracer);
            tracer.pending()
        })
    }

    /// Has the marker go on, with what trace glue throws caught.
    fn trace<M: Mode>(
        &mut self,
        core: &Core<M>,
        go_on: impl FnOnce(&mut Marker, Pending) -> Pending,
    ) -> Result<(), Box<dyn Any + Send>> {
        let Cycle { marker, waiting, .. } = self;
        let pending = Pending { len: *waiting, next: None };
        let traced = catch_unwind(AssertUnwindSafe(|| {
            let mut pending = go_on(marker, pending);
            if let Some(next) = pending.next.take() {
                pending = marker.push(pending, next);
            }
            pending.len
        }));
        match traced {
            Ok(len) => {
                self.waiting = len;
                Ok(())
            }
            Err(payload) => {
                self.give_up(core);
                Err(payload)
            }
        }
    }

    /// Marks. Tells whether all that is reachable is marked.
    fn mark<M: Mode>(
        &mut self,
        core: &Core<M>,
        until: Until<'_>,
        helpers: &Helpers<'_>,
    ) -> Result<bool, Box<dyn Any + Send>> {
        self.take_shaded(core)?;
        let at_once = until.is_never();
        let mut looked = Instant::now();
        loop {
            let mut is_scanned = false;
            let objects = self.objects;
            self.trace(core, |marker, mut pending| {
                let most = if at_once { usize::MAX } else { ENTRIES };
                is_scanned = core
                    .roots()
                    .scan(most, |object| pending = marker.visit_untyped(pending, object));
                if at_once {
                    marker.drain(pending, helpers);
                    return Pending::NONE;
                }
                marker.drain_some(pending, objects)
            })?;
            if is_scanned && self.waiting == 0 && self.marker.is_used_up() {
                return Ok(true);
            }
            if until.is_over() {
                return Ok(false);
            }
            let now = Instant::now();
            let took = now - std::mem::replace(&mut looked, now);
            self.objects = if took < LOOK { objects * 2 } else { objects / 2 };
            self.objects = self.objects.clamp(OBJECTS, MOST_OBJECTS);
        }
    }

    /// Takes over what the barrier has marked. If trace glue has panicked there, the mark is given
    /// up.
    fn take_shaded<M: Mode>(&mut self, core: &Core<M>) -> Result<(), Box<dyn Any + Send>> {
        let mut shaded = Ok((0, 0));
        let Cycle { marker, waiting, left_behind, .. } = self;
        let mut pending = Pending { len: *waiting, next: None };
        let mut take_over =
            |list: &mut Shaded| match (&mut shaded, list.hand_over(marker, &mut pending)) {
                (Ok((looks, objects)), Ok((more_looks, more))) => {
                    *looks += more_looks;
                    *objects += more;
                }
                (Ok(_), Err(payload)) => shaded = Err(payload),
                (Err(_), Err(surplus)) => drop_quietly(surplus),
                (Err(_), Ok(_)) => {}
            };
        take_over(left_behind);
        core.for_each_context(|context| take_over(&mut context.shaded().borrow_mut()));
        self.waiting = pending.len;
        match shaded {
            Ok((looks, objects)) => {
                self.report.barrier_looks += looks;
                self.report.shaded_objects += objects;
            }
            Err(payload) => {
                self.give_up(core);
                return Err(payload);
            }
        }
        Ok(())
    }

    /// Gives up the mark: nothing dies. What is left of the cycle clears the marks.
    fn give_up<M: Mode>(&mut self, core: &Core<M>) {
        self.forget(core);
        core.retire_contexts();
        core.phase().pass(Phase::Marking, Phase::Sweeping, NO_EPOCH);
        self.sweeping = Some(Sweeping::give_up(core, self.huge_pages));
    }

    /// Forgets all that was to be done.
    fn forget<M: Mode>(&mut self, core: &Core<M>) {
        // A list as long as the widest graph needs is not kept until the next cycle.
        self.marker = Marker::new(Strategy::Narrow);
        self.waiting = 0;
        self.clearing = None;
        self.sweeping = None;
        core.roots().end_scan();
        self.left_behind.forget();
        core.for_each_context(|context| context.shaded().borrow_mut().forget());
    }

    /// `Marking -> Clearing`. From here on no barrier shades.
    fn begin_clearing<M: Mode>(&mut self, core: &Core<M>, number: u64) {
        let epoch = core.phase().epoch();
        core.note_mark(self.marker.peak_bytes());
        self.forget(core);
        self.report.cycle = number;
        core.roots().count_cycle(number);
        self.clearing = Some(Clearing::begin(core));
        core.phase().pass(Phase::Marking, Phase::Clearing, epoch);
    }

    /// Clears what has no target any more. Tells whether that is done.
    fn clear<M: Mode>(&mut self, core: &Core<M>, until: Until<'_>) -> bool {
        let clearing = self.clearing.as_mut().expect("a clearing is under way");
        let is_done = clearing.clear(core, until);
        if is_done {
            self.report.cleared_weaks = clearing.cleared;
        }
        is_done
    }

    /// `Clearing -> Sweeping`. From here on objects are born unmarked.
    fn begin_sweeping<M: Mode>(&mut self, core: &Core<M>) {
        core.retire_contexts();
        let in_slices = core.phase().epoch() != NO_EPOCH;
        // None was swept since the begin.
        self.report.born_while_marking = core.usage().objects.saturating_sub(self.objects_before);
        core.phase().pass(Phase::Clearing, Phase::Sweeping, NO_EPOCH);
        self.clearing = None;
        let marked = self.report.mark_time + self.report.background_time;
        let huge_pages = self.huge_pages.next_cycle(marked);
        self.sweeping = Some(Sweeping::begin(core, in_slices, huge_pages));
    }

    /// Sweeps, queues the cleanups, and publishes them. Tells whether all spans are swept.
    fn sweep<M: Mode>(&mut self, core: &Core<M>, until: Until<'_>, helpers: &Helpers<'_>) -> bool {
        let Cycle { sweeping, clock, report, .. } = self;
        let sweeping = sweeping.as_mut().expect("a sweep is under way");
        let unpublished = sweeping.sweep(core, until, Some(helpers));
        report.sweep_time += clock.lap();
        if let Some(unpublished) = unpublished {
            sweeping.publish(unpublished);
            report.flush_time += clock.lap();
        }
        sweeping.is_swept()
    }

    /// `Sweeping -> Idle`: gives memory back that was of no use. Tells whether that is done.
    fn release<M: Mode>(&mut self, core: &Core<M>, until: Until<'_>) -> bool {
        let sweeping = self.sweeping.as_mut().expect("a sweep is under way");
        let is_done = sweeping.release(core, until);
        self.huge_pages = sweeping.huge_pages;
        self.report.release_time += self.clock.lap();
        if is_done {
            self.end(core);
        }
        is_done
    }

    /// Ends the cycle, when nothing of it is left to do. Tells whether the mark was given up.
    fn end<M: Mode>(&mut self, core: &Core<M>) -> bool {
        let mut sweeping = self.sweeping.take().expect("a sweep is under way");
        self.huge_pages = sweeping.huge_pages;
        if !sweeping.given_up {
            // The sweep is over, and its phase is not.
            or_abort(|| sweeping.recount_external(core, &mut self.report));
            sweeping.report(&mut self.report);
        }
        core.phase().pass(Phase::Sweeping, Phase::Idle, NO_EPOCH);
        sweeping.given_up
    }
}

impl<M: Mode> Assist<M> for Collector<M> {
    fn assist(&self, core: &Core<M>, context: &Context<M>) {
        // What drop glue or a panic keeps waiting, the end of a session goes on with.
        let waits = |cycle: &mut Cycle| {
            cycle.thrown.is_some() || cycle.sweeping.as_ref().is_some_and(Sweeping::waits)
        };
        if self.ends_within(core) || self.with_cycle(waits) {
            return;
        }
        if !self.wait_beside(core) {
            _ = self.run_within(core, context, Until::after(self.slice()));
        }
    }

    fn make_room(&self, core: &Core<M>, context: &Context<M>, wait: &mut Wait) -> bool {
        if self.ends_within(core) {
            return true;
        }
        let can_sweep = |cycle: &mut Cycle| !cycle.sweeping.as_ref().is_some_and(Sweeping::waits);
        if !self.with_cycle(|cycle| cycle.thrown.is_none() && can_sweep(cycle)) {
            return false;
        }
        let is_sweeping = core.phase().get() == Phase::Sweeping;
        match core.mutators().give_way(context) {
            // What is swept by a thread needs no stop.
            Some(NotStopped::Ends) if !is_sweeping => return false,
            Some(NotStopped::Parked) => return self.is_patient(wait, false),
            _ => {}
        }
        let in_use = core.bytes_in_use();
        if self.lends() && self.background.wait(self.slice().max(LEAST_SLICE)) {
            let has_freed = is_sweeping && core.bytes_in_use() < in_use;
            if self.is_patient(wait, has_freed) {
                return true;
            }
            // The thread may wait for this session. If not, it gives the work back.
        }
        // Other sessions may go on between two slices. In a `Local` heap there are none.
        let until = match self.budget {
            Some(_) if M::SHARED => Until::after(self.slice()).the_last(),
            _ => Until::END,
        };
        match self.run_within(core, context, until) {
            Ok(()) | Err(NotStopped::Parked) => self.is_patient(wait, false),
            Err(NotStopped::Ends) => false,
            Err(NotStopped::Running) => {
                let is_patient = self.is_patient(wait, false);
                if is_patient {
                    core.mutators().rest(context);
                }
                is_patient
            }
        }
    }

    fn record_wait(&self, waited: Duration) {
        if M::SHARED {
            self.history.with(|history| history.record_pause(waited, Duration::ZERO));
        }
    }
}

impl<M: Mode> Collector<M> {
    /// Ends the cycle within a session, if a thread has ended the sweep. Tells whether it has.
    fn ends_within(&self, core: &Core<M>) -> bool {
        let ends = self.end_swept(core).is_some();
        if ends {
            core.pacer().tell_of_end();
        }
        ends
    }

    /// Runs what `until` allows of the cycle that is under way, within sessions.
    fn run_within(
        &self,
        core: &Core<M>,
        context: &Context<M>,
        until: Until<'_>,
    ) -> Result<(), NotStopped> {
        let until = until.within_sessions();
        let alone = Helpers::none(core.roots().heap());
        let begun = |_: &mut Tracer<'_>| unreachable!("none begins within a session");
        let ran = core
            .mutators()
            .while_stopped(context, |stopped| self.run(core, begun, stopped, until, &alone))?;
        match ran {
            // A session's end says so, as what follows a cycle may run the user's code.
            Ok(Some(_)) => core.pacer().tell_of_end(),
            Ok(None) => {}
            Err(payload) => {
                // The session goes on. The end of one throws this.
                let surplus = self.with_cycle(|cycle| cycle.thrown.replace(payload));
                surplus.into_iter().for_each(drop_quietly);
                core.pacer().set_next_slice(0);
            }
        }
        Ok(())
    }

    /// Tells whether a session that needs room may wait on. With `gets_on` the cycle does, as it
    /// does by each step.
    fn is_patient(&self, wait: &mut Wait, gets_on: bool) -> bool {
        let advances = self.with_cycle(|cycle| cycle.advances);
        let now = Instant::now();
        if gets_on || advances != wait.advances {
            *wait = Wait { in_vain_since: now, advances };
        }
        now - wait.in_vain_since < PATIENCE
    }
}

/// Gives the default of `gc_threads` for the mode.
fn gc_threads_of<M: Mode>() -> usize {
    if M::SHARED { processors().min(4) } else { 1 }
}
