//! What a heap tells about itself: the report of a cycle and the counters between cycles.

use std::time::{Duration, Instant};

use sexton_cleanup::CleanupStats;

/// What one full cycle did.
///
/// Durations are wall time. The phases are `safepoint_time`, `mark_time`, `clear_time`,
/// `sweep_time`, `flush_time` and `release_time`. They follow each other in this order without a
/// gap. So their sum is `pause_time`.
///
/// Objects are the program's own, counted once each, however large. Bytes are slot bytes: a type's
/// size is rounded up to 8. Those of weak records are included, span metadata are not.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct GcReport {
    /// The number of the cycle, from 1.
    pub cycle: u64,
    /// Objects that survived.
    pub live_objects: u64,
    /// Bytes of slots that survived.
    pub live_bytes: u64,
    /// Weak records that survived.
    pub live_weak_records: u64,
    /// Bytes that survivors, and the root, [own outside the heap](crate::Trace::external_bytes).
    ///
    /// What was [charged](crate::ExternalBytes) is not included. It is in
    /// [`HeapStats::charged_bytes`].
    pub external_bytes: u64,
    /// Objects that died.
    pub swept_objects: u64,
    /// Bytes of slots that became free.
    pub swept_bytes: u64,
    /// Bytes outside the heap that were known of when the sweep began, and that no survivor owns.
    pub swept_external_bytes: u64,
    /// Objects that died and were of types with drop glue.
    pub dropped_objects: u64,
    /// Panics in drop glue, caught by the sweep.
    pub drop_panics: u64,
    /// Weak records cleared because their target died.
    pub cleared_weaks: u64,
    /// Cleanups queued.
    pub queued_cleanups: u64,
    /// Blocks of cleanups published.
    pub published_blocks: u64,
    /// Spans swept.
    pub swept_spans: u64,
    /// Spans that held no live object and went back to their region.
    pub emptied_spans: u64,
    /// Time from the call to stop the mutators to the end of the last session.
    ///
    /// Zero in a `Local` heap.
    pub safepoint_time: Duration,
    /// Time to mark, the retirement of the mutators' cached slots included.
    pub mark_time: Duration,
    /// Time to clear weak records, and to queue local cleanups.
    ///
    /// Records of cleanups that were stopped or run early are freed meanwhile, when there are a
    /// thousand or more.
    pub clear_time: Duration,
    /// Time to sweep every span, drop glue and the publication of full blocks included.
    pub sweep_time: Duration,
    /// Time to publish the partial blocks, and to wake or start workers for them.
    pub flush_time: Duration,
    /// Time to give back memory of no use, to make large pages, and to decide on the next cycle.
    pub release_time: Duration,
    /// How long no session could be opened, or one was kept waiting: the sum of the phases.
    pub pause_time: Duration,
    /// Pauses in which the cycle ran: 1 if it ran at once.
    pub slices: u64,
    /// The longest of them.
    pub longest_pause: Duration,
    /// The longest time that was marking in one of them.
    pub longest_mark: Duration,
    /// The longest time that was clearing in one of them.
    pub longest_clear: Duration,
    /// The longest time that was sweeping in one of them, the publication of cleanups included.
    pub longest_sweep: Duration,
    /// How long sessions have got on with the cycle themselves, where they allocated.
    ///
    /// It is part of `pause_time`: no other session goes on meanwhile.
    pub assist_time: Duration,
    /// How long a thread has marked, cleared and swept beside open sessions.
    ///
    /// Zero in a `Local` heap, and where no thread can be started. It is in none of the phases'
    /// times above.
    pub background_time: Duration,
    /// Threads that could not be started to help.
    ///
    /// The collecting thread has done their part. If none could work beside open sessions, mutators
    /// have done that instead, in slices.
    pub refused_threads: u64,
    /// Values that the barrier has looked at, because a session was about to overwrite them.
    pub barrier_looks: u64,
    /// Objects with pointers that the barrier has marked, for the marker to trace.
    pub shaded_objects: u64,
    /// Bytes allocated from the begin of the cycle to the end of the sweep.
    ///
    /// All of it survives the cycle. In a `Shared` heap the last 64 KiB of each mutator may be
    /// missing.
    pub born_bytes: u64,
    /// Objects allocated from the begin of the cycle to the end of its mark. All survive the cycle.
    pub born_while_marking: u64,
    /// The share of the time since the last cycle in which sessions could be opened: 0 to 1.
    ///
    /// Before the first cycle the time counts from the making of the heap.
    pub mutator_utilisation: f64,
}

impl GcReport {
    /// Counts swept spans' objects, dead and alive, per second of sweep; 0 if nothing was swept.
    ///
    /// For a cycle that ran at once. What is swept beside sessions is in `background_time`.
    pub fn sweep_objects_per_second(&self) -> f64 {
        per_second(self.live_objects + self.swept_objects, self.sweep_time)
    }

    /// Counts live objects per second of mark; 0 if nothing was marked.
    ///
    /// For a cycle that ran at once. What is marked beside sessions is in `background_time`.
    pub fn mark_objects_per_second(&self) -> f64 {
        per_second(self.live_objects, self.mark_time)
    }
}

/// How far a step has brought a cycle.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "returned once a step, and not kept")]
pub enum Progress {
    /// The cycle goes on with the next step.
    Working,
    /// The cycle has ended.
    Finished(GcReport),
}

impl Progress {
    /// Tells whether the cycle has ended.
    pub fn is_finished(&self) -> bool {
        matches!(self, Progress::Finished(_))
    }
}

/// Cuts a pause into phases. Each begins where the one before ended, so that no time is in none.
pub(crate) struct PauseClock {
    /// When the present one began.
    began: Instant,
}

impl PauseClock {
    /// Gives the first phase begins at `began`.
    pub(crate) fn from(began: Instant) -> Self {
        PauseClock { began }
    }

    /// Ends the present phase; how long it was. The next one begins.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.began, now)
    }

    /// From `since` to the end of the last phase.
    pub(crate) fn since(&self, since: Instant) -> Duration {
        self.began - since
    }
}

fn per_second(objects: u64, time: Duration) -> f64 {
    if objects == 0 { 0.0 } else { objects as f64 / time.as_secs_f64().max(1e-9) }
}

/// A heap's counters, read between two moments of its life.
///
/// Exact in a `Local` heap. Approximate in a `Shared` one, while mutators are attached. What each
/// has allocated lately is missing from objects, weak records and bytes: 64 KiB at most, or one
/// larger object. The reports of cycles are exact.
///
/// Cleanups run and are stopped beside any reading, in both modes. [`CleanupStats`] says which sums
/// hold all the same.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct HeapStats {
    /// Cycles run so far.
    pub cycles: u64,
    /// Objects in the heap: live ones, and dead ones not yet swept.
    pub objects: u64,
    /// Weak records, one per object that was downgraded and may still be upgraded.
    pub weak_records: u64,
    /// Bytes of those objects' slots.
    pub bytes: u64,
    /// Bytes that objects own outside the heap, as far as the heap [knows](crate::Trace::external_bytes).
    ///
    /// Dead objects that are not yet swept are included, and the root. In a `Shared` heap what each
    /// mutator has brought lately is missing, up to 64 KiB.
    pub external_bytes: u64,
    /// Bytes outside the heap that the program has [charged](crate::ExternalBytes).
    pub charged_bytes: u64,
    /// Bytes of address space mapped for spans and their metadata.
    pub mapped_bytes: u64,
    /// Bytes of them that may be in memory: those that have been in use and were not given back.
    ///
    /// Of a span that is in use all 64 KiB count, also where nothing was written to a page yet, or
    /// where a page without an object was given back. Of objects that fill a span badly it is all
    /// of the spans that they share, up to 62.
    pub resident_bytes: u64,
    /// What the heap takes beside them.
    pub overhead: Overhead,
    /// The most bytes that the heap may take, here and outside; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Objects swept since the heap was made.
    pub swept_objects: u64,
    /// Panics in drop glue since the heap was made.
    pub drop_panics: u64,
    /// Cycles that have asked for a thread and did not get it.
    ///
    /// If it was to work beside open sessions, the cycle was run in slices instead.
    pub fallback_cycles: u64,
    /// How long threads have worked beside open sessions, in all cycles that have ended.
    pub background_time: Duration,
    /// How long sessions have got on with cycles where they allocated, in all that have ended.
    pub assist_time: Duration,
    /// Dynamic roots alive, shared ones included.
    pub roots: u64,
    /// How long sessions could not be opened each time: in a slice, or in a whole cycle.
    pub pause: Quantiles,
    /// How long cycles waited for sessions to end; all zero in a `Local` heap.
    pub safepoint: Quantiles,
    /// The share of the heap's life in which sessions could be opened: 0 to 1.
    pub mutator_utilisation: f64,
    /// The heap's cleanups, but for the local ones.
    pub cleanups: CleanupStats,
    /// The heap's local cleanups, those that its owner runs.
    pub local_cleanups: CleanupStats,
}

/// Bytes that a heap takes beside the slots of its objects.
///
/// Most are bounds: of memory that nothing was written to yet, and of tables with room to grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overhead {
    /// Bytes of the metadata of spans.
    pub metadata_bytes: u64,
    /// Bytes of spans that may be in memory and are in no object's slot.
    ///
    /// They do not count for `max_bytes` as long as there are free slots to be used. A span that
    /// needs memory of its own is opened only if there is room beside them.
    pub free_bytes: u64,
    /// Bytes of the records of cleanups, and of what leads to them.
    ///
    /// The records are the most that the heap has been seen to have: free ones stay in memory. What
    /// closures own is not counted.
    pub cleanup_bytes: u64,
    /// Bytes of the tables that lead to weak records. The records lie in slots.
    pub weak_bytes: u64,
    /// Bytes of the table of dynamic roots.
    pub root_bytes: u64,
    /// Bytes that the next mark is expected to need for objects that wait.
    ///
    /// That is what the last one needed, in proportion to the bytes in use.
    pub mark_bytes: u64,
}

impl Overhead {
    /// Overhead that does not count for `max_bytes`: 8 MiB.
    pub const ALLOWANCE: u64 = 8 << 20;

    /// Gives what takes memory apart from spans.
    pub(crate) fn beside_spans(&self) -> u64 {
        self.cleanup_bytes + self.weak_bytes + self.root_bytes + self.mark_bytes
    }

    /// Gives what counts for `max_bytes` whatever is free.
    pub(crate) fn counted(&self) -> u64 {
        (self.metadata_bytes + self.beside_spans()).saturating_sub(Self::ALLOWANCE)
    }
}

/// How durations are distributed. Exact but for the last hundredth part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// Half of them were no longer.
    pub median: Duration,
    /// One in a hundred was longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}
