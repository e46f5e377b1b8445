//! The oracle: what a heap and its cleanups should be, as a plain graph and plain counters.
//!
//! It knows the documentation, not the implementation: reachability is a depth-first search over
//! numbers, and every counter is raised where the thing happens that it counts. Invariant: `fate`
//! is what has become of each cleanup up to the last [`settle`](Oracle::settle); what the ledger
//! has told since lies in the cleanup's own tallies. With a manual pool the two never differ for
//! longer than an operation.
//!
//! A cycle lies between two moments: its beginning, where the oracle takes a [`Snapshot`], and its
//! end. What is unreachable at the beginning is *dying*: it may be dead from then on, and is when
//! the cycle has ended. Where it is not known when a cycle begins, it may have begun when the one
//! before had ended. Then what was unreachable there must be dead at the end, and what is
//! unreachable at any moment may be.
//!
//! One thing is left open on purpose: if drop glue ends a cleanup of an object that dies in the
//! same sweep, the sweep may have queued it before or not. Then the heap's own count is taken over,
//! once it has been found to lie within those bounds.

use std::collections::{HashMap, HashSet};

use sexton::{CleanupState, GcReport, HeapStats, PoolStats};

use super::ledger::{Event, How, Id, Ledger, Number};
use super::ops::{Act, Policy, Setup};
use super::payload::{Kind, RECORD_BYTES};
use super::place::Ground;

/// The number of a heap, in the order of making.
pub(super) type HeapNumber = u32;
/// The number of a weak record, in the order of making.
pub(super) type RecordNumber = usize;

/// The models of everything that a program has made, and what is expected of it.
pub(super) struct Oracle {
    /// Whether cleanups run only when this thread runs them.
    exact: bool,
    /// Bytes that an object counts for.
    size: fn(Kind) -> u64,
    heap: HeapNumber,
    setup: Setup,
    /// The pool has been shut down.
    closed: bool,

    objects: Vec<Object>,
    /// The present heap's first object.
    base: usize,
    /// Its root, which is not in it, but is dropped with it.
    world: Id,
    /// Who is where, of the objects allocated now.
    addresses: HashMap<usize, Id>,
    records: Vec<Record>,
    base_record: RecordNumber,
    pub(super) kept: Vec<Id>,
    pub(super) weaks: Vec<RecordNumber>,
    /// Heap and object of each root that the program holds.
    pub(super) roots: Vec<(HeapNumber, Id)>,
    memory: Memory,
    /// Where the cycle began that is under way, or may be.
    snapshot: Option<Snapshot>,
    /// If it is not known how many cleanups the last cycles have queued: how many of theirs had
    /// been ended by handles.
    adrift: Option<u64>,

    cleanups: Vec<CleanupModel>,
    /// Cleanups that the ledger has told about since they were settled.
    touched: Vec<Number>,
    /// Cleanups that must have ended when they are settled next.
    doomed: Vec<Number>,
    /// Successors that cleanups have sent for.
    pub(super) rearms: Vec<u8>,
    counts: Counts,
    pool: PoolCounts,
    /// How often the panic hook should have been told, and was.
    told: [u64; 2],
    /// Cleanups run by the pool, on whatever thread.
    pub(super) pool_runs: u64,
}

pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) address: usize,
    made: bool,
    /// Not swept yet.
    allocated: bool,
    drops: u32,
    /// A weak pointer has shown that it is dead, or its slot was given to another one.
    gone: bool,
    pub(super) fields: [Option<Id>; 3],
    pub(super) list: Vec<Id>,
    pub(super) weak: Option<RecordNumber>,
    /// The record that its next downgrade gives.
    record: Option<RecordNumber>,
    /// The object that its drop glue unroots.
    root: Option<Id>,
    cleanups: Vec<Number>,
}

/// What was unreachable when a cycle began.
struct Snapshot {
    /// Whether it is known that the cycle began here. Otherwise it may have begun later.
    exact: bool,
    /// Whether there may have been dead objects that the oracle did not know to be.
    blurred: bool,
    objects: HashSet<Id>,
    records: HashSet<RecordNumber>,
    /// Whether all that is reachable has been marked: a weak pointer leads to the dead no more.
    is_marked: bool,
    /// Records that served again, or others in their places.
    reused_records: u64,
    /// Cleanups of the dying that have run, and so were queued; that their handles have ended, and
    /// may have been.
    queued: u64,
    ended: u64,
}

/// What a search from the roots comes to, of the present heap's objects and records.
struct Reachable {
    objects: Vec<bool>,
    records: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Record {
    target: Id,
    cleared: bool,
    allocated: bool,
}

/// What the present heap has in use, and what it has done.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Memory {
    cycles: u64,
    objects: u64,
    records: u64,
    bytes: u64,
    swept: u64,
    drop_panics: u64,
    /// Bytes in use at which a cycle is due, if the heap paces itself.
    trigger: u64,
    /// Bytes in use at which one is due because of the limit.
    limit_trigger: u64,
    /// Something that would fit into the empty heap was refused since the last cycle.
    refused: bool,
    registered_since: u64,
    /// Cycles that have left nothing, since something was last allocated.
    empty_cycles: u32,
    /// There has been a branch, whose list lies outside the heap. It counts, too, and the oracle
    /// does not know how long it is.
    has_lists: bool,
    /// The last cycle was in slices: what it has left for the pacer is not known.
    in_slices: bool,
}

struct CleanupModel {
    heap: HeapNumber,
    object: Id,
    act: Act,
    fate: Fate,
    ran: u32,
    released: u32,
    stops: u32,
    runs: u32,
    refused: bool,
    doomed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Not told of yet.
    Unknown,
    Armed,
    Queued,
    Ran,
    Stopped,
    Discarded,
}

impl Fate {
    fn is_pending(self) -> bool {
        matches!(self, Fate::Armed | Fate::Queued)
    }

    fn has_ended(self) -> bool {
        matches!(self, Fate::Ran | Fate::Stopped | Fate::Discarded)
    }
}

/// The cleanups of the present heap, counted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Counts {
    registered: u64,
    queued: u64,
    executed: u64,
    panicked: u64,
    stopped: u64,
    discarded: u64,
    backlog: u64,
    armed: u64,
}

/// The cleanups of the present pool, counted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct PoolCounts {
    queued: u64,
    executed: u64,
    panicked: u64,
    settled: u64,
    discarded: u64,
    backlog: u64,
}

/// What a cycle should report.
pub(super) struct Expected {
    report: Cycle,
    /// Cleanups whose objects it found dead.
    newly: Vec<Number>,
    /// Objects whose drop glue it ran.
    dropped: Vec<Id>,
    /// Whether it began and ended at one moment, and all before it was known.
    pub(super) whole: bool,
    /// Whether it is known when it began, and what was dead then.
    exact: bool,
    slack: Slack,
}

/// How far a report may be off.
#[derive(Default)]
struct Slack {
    reused_records: u64,
    queued: u64,
    ended: u64,
}

impl Expected {
    /// Cleanups whose objects it found dead, and which have not ended, as far as is known.
    pub(super) fn newly(&self) -> &[Number] {
        &self.newly
    }
}

/// The part of a report that is determined.
#[derive(Default, PartialEq, Eq, Debug)]
struct Cycle {
    cycle: u64,
    live_objects: u64,
    live_bytes: u64,
    live_weak_records: u64,
    swept_objects: u64,
    swept_bytes: u64,
    dropped_objects: u64,
    drop_panics: u64,
    cleared_weaks: u64,
}

/// Whether a session's end collects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Yes,
    No,
    /// It depends on what a registered cleanup counts for, which is not documented.
    Perhaps,
}

impl Oracle {
    /// An oracle that knows no heap yet.
    pub(super) fn new<M: Ground>(exact: bool, setup: Setup) -> Self {
        Oracle {
            exact,
            size: Kind::bytes::<M>,
            heap: 0,
            setup,
            closed: false,
            objects: Vec::new(),
            base: 0,
            world: 0,
            addresses: HashMap::new(),
            records: Vec::new(),
            base_record: 0,
            kept: Vec::new(),
            weaks: Vec::new(),
            roots: Vec::new(),
            memory: Memory::default(),
            snapshot: None,
            adrift: None,
            cleanups: Vec::new(),
            touched: Vec::new(),
            doomed: Vec::new(),
            rearms: Vec::new(),
            counts: Counts::default(),
            pool: PoolCounts::default(),
            told: [0; 2],
            pool_runs: 0,
        }
    }

    // ---- objects
    // -----------------------------------------------------------------------------------

    /// The number of the object that is made next.
    fn next_id(&self) -> Id {
        self.objects.len() as Id
    }

    pub(super) fn object(&self, id: Id) -> &Object {
        &self.objects[id as usize]
    }

    pub(super) fn object_mut(&mut self, id: Id) -> &mut Object {
        &mut self.objects[id as usize]
    }

    /// Whether an object of the kind finds room under the limit.
    pub(super) fn has_room(&self, kind: Kind) -> bool {
        self.has_room_for((self.size)(kind))
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        self.setup.limit.is_none_or(|limit| self.memory.bytes + bytes <= limit)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.memory.bytes
    }

    /// The bytes in use if all of the dying have gone.
    pub(super) fn least_bytes(&self) -> u64 {
        if self.snapshot.is_none() {
            return self.memory.bytes;
        }
        let dying = self.dying();
        let bytes: u64 = dying.iter().map(|&id| (self.size)(self.object(id).kind)).sum();
        self.memory.bytes - bytes - self.memory.records * RECORD_BYTES
    }

    /// The object that lies at an address.
    pub(super) fn at(&self, address: usize) -> Option<Id> {
        self.addresses.get(&address).copied()
    }

    // ---- deaths
    // ------------------------------------------------------------------------------------

    // These rules say what is dead, and nothing else does. Fates, counters, reports and weak
    // pointers follow from them.

    /// Whether an object must be dead when the cycle is over: everything that could not be reached
    /// when it began, and has not been since.
    fn must_be_dead(&self, id: Id) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.objects.contains(&id))
    }

    /// Likewise, of a weak record.
    fn record_must_be_dead(&self, record: RecordNumber) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.records.contains(&record))
    }

    /// Whether the cycle under way may free a record; likewise.
    fn is_dying_record(&self, record: RecordNumber) -> bool {
        let Some(snapshot) = &self.snapshot else { return false };
        let is_unreachable = || !self.reachable().records[record - self.base_record];
        snapshot.records.contains(&record) || (!snapshot.exact && is_unreachable())
    }

    /// Whether an object may be dead now, so that its drop glue and its cleanups may run:
    /// everything that had to be dead when a cycle was over, and the dying.
    pub(super) fn may_be_dead(&self, id: Id) -> bool {
        !self.object(id).allocated || self.is_dying(id)
    }

    /// Whether the cycle under way may find an object dead: what it must, or if its beginning is
    /// not known, all that is unreachable now.
    fn is_dying(&self, id: Id) -> bool {
        let Some(snapshot) = &self.snapshot else { return false };
        let is_unreachable = || {
            let present = id as usize >= self.base && self.object(id).allocated;
            present && !self.reachable().objects[id as usize - self.base]
        };
        snapshot.objects.contains(&id) || (!snapshot.exact && is_unreachable())
    }

    /// All objects of which [`is_dying`](Self::is_dying) holds.
    fn dying(&self) -> Vec<Id> {
        match &self.snapshot {
            None => Vec::new(),
            Some(snapshot) if snapshot.exact => snapshot.objects.iter().copied().collect(),
            Some(_) => {
                let live = self.reachable();
                self.present().filter(|&id| !live.objects[id as usize - self.base]).collect()
            }
        }
    }

    /// How many cleanups may have been queued that the oracle does not know to be.
    pub(super) fn dying_cleanups(&self) -> u64 {
        self.pending_of(&self.dying()).len() as u64
    }

    /// A cycle begins: here, or if that is not `exact`, now or later. `just_ended` are the cleanups
    /// that handles have ended in the step in which it begins.
    pub(super) fn begin_cycle(&mut self, exact: bool, just_ended: &[Number]) {
        let live = self.reachable();
        let records = self.base_record..self.records.len();
        let before = self.take_snapshot();
        if let Some(Snapshot { ended, .. }) = before {
            // A cycle that is over now may have queued what handles have ended since.
            self.adrift = Some(self.adrift.unwrap_or_default() + ended);
        }
        let objects: HashSet<Id> =
            self.present().filter(|&id| !live.objects[id as usize - self.base]).collect();
        // The cycle may have queued them: it may sweep in its first step, and drop glue end what
        // the sweep has queued. Those that are not settled yet are counted when they are.
        let ended = just_ended.iter().filter(|&&number| {
            let CleanupModel { object, fate, .. } = self.cleanups[number as usize];
            fate.has_ended() && objects.contains(&object)
        });
        let ended = ended.count() as u64;
        self.snapshot = Some(Snapshot {
            exact,
            blurred: before.is_some(),
            records: records
                .filter(|&at| self.records[at].allocated && !live.records[at - self.base_record])
                .collect(),
            is_marked: false,
            reused_records: 0,
            queued: 0,
            ended,
            objects,
        });
    }

    /// The cycle is over, or was none.
    fn take_snapshot(&mut self) -> Option<Snapshot> {
        let snapshot = self.snapshot.take()?;
        self.memory.records -= snapshot.reused_records;
        self.memory.bytes -= snapshot.reused_records * RECORD_BYTES;
        Some(snapshot)
    }

    /// The cycle that is under way was given up: nothing has died.
    pub(super) fn give_up_cycle(&mut self) {
        let snapshot = self.take_snapshot().expect("a cycle is under way");
        assert!(
            !snapshot.is_marked && snapshot.queued == 0,
            "a cycle was given up that had marked"
        );
        self.memory.in_slices = true;
    }

    /// An object has turned out to be dead.
    fn has_gone(&mut self, id: Id) {
        self.object_mut(id).gone = true;
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.is_marked = snapshot.exact;
        }
    }

    /// A weak pointer was followed.
    pub(super) fn upgraded(&mut self, record: RecordNumber, found: Option<Id>) {
        let target = self.target(record);
        match (found, target) {
            (None, Some(target)) if self.is_dying(target) => self.has_gone(target),
            (Some(_), Some(target)) if self.is_dying(target) => {
                assert_eq!(found, Some(target), "a weak pointer's target");
                self.lives_on(target);
            }
            _ => assert_eq!(found, target, "a weak pointer's target"),
        }
    }

    /// A dying object was reached by a weak pointer. So it lives on, and with it all that it
    /// reaches.
    fn lives_on(&mut self, id: Id) {
        let mut snapshot = self.snapshot.take().expect("an object is dying");
        assert!(!snapshot.is_marked, "object {id} was reached after what is reachable was marked");
        let mut work = vec![id];
        let mut seen = HashSet::new();
        while let Some(id) = work.pop() {
            let object = self.object(id);
            if seen.insert(id) && object.allocated {
                assert!(!object.gone && object.drops == 0, "object {id} is dead, and was reached");
                snapshot.objects.remove(&id);
                work.extend(object.fields.iter().flatten());
                work.extend(&object.list);
                object.weak.iter().for_each(|record| _ = snapshot.records.remove(record));
            }
        }
        self.snapshot = Some(snapshot);
    }

    /// An object was allocated at an address that none has at present. Others may have been given
    /// lower numbers that are told of later.
    pub(super) fn allocated(&mut self, id: Id, kind: Kind, address: usize) {
        self.made(id, kind, address, true);
        if let Some(other) = self.addresses.insert(address, id) {
            let Object { kind, drops, .. } = *self.object(other);
            let is_dropped = drops > 0 || !kind.has_drop_glue();
            let is_free = self.is_dying(other) && is_dropped;
            assert!(is_free, "object {id} was given the slot of object {other}, which lives");
            self.has_gone(other);
            let snapshot = self.snapshot.as_mut().expect("an object is dying");
            snapshot.objects.insert(other);
        }
        self.memory.objects += 1;
        self.memory.bytes += (self.size)(kind);
        self.memory.has_lists |= kind == Kind::Branch;
        self.memory.empty_cycles = 0;
    }

    /// An object was made, and found no room.
    pub(super) fn refused(&mut self, id: Id, kind: Kind) {
        self.made(id, kind, 0, false);
        self.was_refused((self.size)(kind));
    }

    /// Whether something may lie outside the heap.
    pub(super) fn has_lists(&self) -> bool {
        self.memory.has_lists
    }

    /// A weak record found no room.
    pub(super) fn record_refused(&mut self) {
        self.was_refused(RECORD_BYTES);
    }

    fn was_refused(&mut self, bytes: u64) {
        let limit = self.setup.limit.expect("a heap without a limit refuses nothing");
        self.memory.refused |= bytes <= limit;
    }

    /// Whether a session collects even if it ends by a panic.
    pub(super) fn due_in_spite_of_a_panic(&self) -> bool {
        self.memory.refused && self.setup.pace.is_some()
    }

    fn made(&mut self, id: Id, kind: Kind, address: usize, allocated: bool) {
        let object = self.place(id);
        assert!(!object.made, "object {id} was made twice");
        object.made = true;
        (object.kind, object.address, object.allocated) = (kind, address, allocated);
    }

    /// The place of an object, which was made, or of which only others with higher numbers have
    /// been told.
    fn place(&mut self, id: Id) -> &mut Object {
        let at = id as usize;
        if at >= self.objects.len() {
            self.objects.resize_with(at + 1, Object::unmade);
        }
        &mut self.objects[at]
    }

    /// A keeper was allocated, which drops a root of `object` when it is dropped.
    pub(super) fn keeps_rooted(&mut self, keeper: Id, object: Id) {
        self.object_mut(keeper).root = Some(object);
    }

    /// Whether an object has a root in its hands.
    pub(super) fn keeps_a_root(&self, id: Id) -> bool {
        self.object(id).root.is_some()
    }

    /// The objects whose roots are in the hands of objects that are not swept yet.
    fn roots_in_objects(&self) -> impl Iterator<Item = Id> + '_ {
        let dropped = |id: &Id| self.object(*id).drops == 0;
        self.present().filter(dropped).filter_map(|id| self.object(id).root)
    }

    /// The number of the heap that roots and cleanups made now belong to.
    pub(super) fn heap(&self) -> HeapNumber {
        self.heap
    }

    // ---- weak pointers
    // -----------------------------------------------------------------------------

    /// Whether an object can be downgraded under the limit.
    pub(super) fn can_downgrade(&self, object: Id) -> bool {
        let record = self.object(object).record;
        record.is_some_and(|record| !self.is_dying_record(record))
            || self.has_room_for(RECORD_BYTES)
    }

    /// A weak pointer to the object was made. The answer is its record.
    pub(super) fn downgraded(&mut self, object: Id) -> RecordNumber {
        if let Some(record) = self.object(object).record {
            let reused = u64::from(self.is_dying_record(record));
            if let Some(snapshot) = &mut self.snapshot {
                // It was marked, or was freed and another one made.
                snapshot.records.remove(&record);
                snapshot.reused_records += reused;
                // Until the cycle ends, both may count.
                self.memory.records += reused;
                self.memory.bytes += reused * RECORD_BYTES;
            }
            return record;
        }
        let record = self.records.len();
        self.records.push(Record { target: object, cleared: false, allocated: true });
        self.object_mut(object).record = Some(record);
        self.memory.records += 1;
        self.memory.bytes += RECORD_BYTES;
        record
    }

    /// What a weak pointer upgrades to.
    pub(super) fn target(&self, record: RecordNumber) -> Option<Id> {
        let Record { target, cleared, allocated } = self.records[record];
        assert!(allocated, "the program holds a weak pointer whose record the oracle thinks dead");
        (!cleared).then_some(target)
    }

    // ---- cycles
    // ------------------------------------------------------------------------------------

    /// Whether a session that ends now collects.
    pub(super) fn due(&self) -> Due {
        let Memory { bytes, trigger, limit_trigger, refused, registered_since, .. } = self.memory;
        let outside = if self.memory.has_lists { AMPLE_OUTSIDE } else { 0 };
        if self.setup.zeal {
            Due::Yes
        } else if self.setup.pace.is_none() {
            Due::No
        } else if self.setup.pause.is_some() || self.snapshot.is_some() || self.memory.in_slices {
            // It depends on how far a cycle has come.
            Due::Perhaps
        } else if refused || bytes > trigger.min(limit_trigger).saturating_add(outside) {
            Due::Yes
        } else if bytes + registered_since * AMPLE_CLEANUP_BYTES + outside <= trigger
            && bytes + outside <= limit_trigger
        {
            Due::No
        } else {
            Due::Perhaps
        }
    }

    /// The cycle has ended. It is `whole` if it began at the same moment. Then this is called
    /// before the ledger of its sweep is read, otherwise after that.
    pub(super) fn end_cycle(&mut self, whole: bool) -> Expected {
        let before = self.memory;
        let dead: Vec<Id> = self.present().filter(|&id| self.must_be_dead(id)).collect();
        // 1. Weak records: cleared if only they live, freed if they do not.
        let mut cleared_weaks = 0;
        for at in self.base_record..self.records.len() {
            let Record { target, cleared, allocated } = self.records[at];
            if allocated && self.record_must_be_dead(at) {
                self.records[at].allocated = false;
                self.memory.records -= 1;
                self.memory.bytes -= RECORD_BYTES;
                self.object_mut(target).record = None;
            } else if allocated && !cleared && self.must_be_dead(target) {
                self.records[at].cleared = true;
                cleared_weaks += 1;
            }
        }
        // 2. Objects, and with them their cleanups.
        self.bury(&dead);
        let newly = self.pending_of(&dead);
        newly.iter().for_each(|&number| self.queue(number));
        let dropped = self.with_drop_glue(&dead);
        let bombs = dead.iter().filter(|&&id| self.object(id).kind == Kind::Bomb).count() as u64;
        // 3. The accounts.
        let snapshot = self.take_snapshot().expect("a cycle has begun");
        self.memory.cycles += 1;
        self.memory.swept += dead.len() as u64;
        self.memory.drop_panics += bombs;
        self.memory.registered_since = 0;
        let live = self.memory.bytes;
        self.memory.empty_cycles += u32::from(live == 0);
        self.memory.trigger = live + live.max(self.setup.pace.unwrap_or_default());
        self.memory.limit_trigger = limit_trigger(self.setup, live);
        self.memory.refused = false;
        let whole = whole && !snapshot.blurred;
        self.memory.in_slices = !whole;
        let exact = snapshot.exact && !snapshot.blurred;
        let Snapshot { reused_records, queued, ended, .. } = snapshot;
        let slack = Slack { reused_records, queued, ended };
        let report = Cycle {
            cycle: self.memory.cycles,
            live_objects: self.memory.objects,
            live_bytes: self.memory.bytes,
            live_weak_records: self.memory.records,
            swept_objects: dead.len() as u64,
            swept_bytes: before.bytes - self.memory.bytes,
            dropped_objects: dropped.len() as u64,
            drop_panics: bombs,
            cleared_weaks,
        };
        Expected { report, newly, dropped, whole, exact, slack }
    }

    /// Of a cycle whose report was not seen, or says more than is known: compares what it dropped.
    pub(super) fn was_not_reported(&mut self, expected: &Expected) {
        self.check_glue(&expected.dropped);
        self.adrift = Some(self.adrift.unwrap_or_default() + expected.slack.ended);
    }

    /// Whether a cycle is under way, or may be.
    pub(super) fn is_collecting(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Such cycles may have queued fewer cleanups than died, or others that their handles have
    /// ended: takes over how many they did.
    pub(super) fn adopt_queued(&mut self, heap: &HeapStats) {
        if self.adrift.take().is_none() {
            return;
        }
        let before = self.counts.queued;
        let adopt = |count: &mut u64| {
            let sum = *count + heap.cleanups.queued;
            *count = sum.checked_sub(before).expect("no fewer were queued than ran");
        };
        adopt(&mut self.pool.queued);
        if self.exact {
            adopt(&mut self.pool.settled);
        }
        self.counts.queued = heap.cleanups.queued;
    }

    /// Compares a cycle's report. Called when the ledger of its sweep has been read.
    pub(super) fn check_report(&mut self, expected: &Expected, report: &GcReport) {
        let reported = Cycle {
            cycle: report.cycle,
            live_objects: report.live_objects,
            live_bytes: report.live_bytes,
            live_weak_records: report.live_weak_records,
            swept_objects: report.swept_objects,
            swept_bytes: report.swept_bytes,
            dropped_objects: report.dropped_objects,
            drop_panics: report.drop_panics,
            cleared_weaks: report.cleared_weaks,
        };
        if expected.whole {
            assert_eq!(reported, expected.report, "the report of a cycle");
        } else if expected.exact {
            let slack = &expected.slack;
            let most = expected.report.swept_bytes;
            let swept_bytes = most - slack.reused_records * RECORD_BYTES;
            assert!((swept_bytes..=most).contains(&reported.swept_bytes), "{reported:?}");
            // What is alive is not known for the moment when the sweep began.
            let known = Cycle {
                live_objects: reported.live_objects,
                live_bytes: reported.live_bytes,
                live_weak_records: reported.live_weak_records,
                swept_bytes: reported.swept_bytes,
                ..expected.report
            };
            assert_eq!(reported, known, "the report of a cycle in slices");
        }
        assert!(report.emptied_spans <= report.swept_spans);
        assert_eq!(report.published_blocks == 0, report.queued_cleanups == 0, "{report:?}");
        self.check_glue(&expected.dropped);
        if expected.whole {
            self.take_over(&expected.newly, report.queued_cleanups);
        } else if expected.exact && self.exact {
            let slack = &expected.slack;
            let least = expected.newly.len() as u64 + slack.queued;
            let queued = report.queued_cleanups;
            let more = queued.checked_sub(least).filter(|&more| more <= slack.ended);
            let more = more.unwrap_or_else(|| panic!("{queued} cleanups queued, and not {least}"));
            self.counts.queued += more;
            self.pool.queued += more;
            self.pool.settled += more;
        } else {
            self.adrift = Some(self.adrift.unwrap_or_default() + expected.slack.ended);
        }
    }

    /// The heap is being dropped. Called before the ledger of that is read; the answer goes to
    /// [`buried`](Self::buried).
    pub(super) fn tear_down(&mut self) -> Expected {
        let dead: Vec<Id> = self.present().collect();
        let dying: HashSet<Id> = self.dying().into_iter().collect();
        if let Some(snapshot) = &mut self.snapshot {
            (snapshot.objects, snapshot.exact) = (dying.clone(), true);
        }
        self.bury(&dead);
        let armed = self.pending_of(&dead);
        let dropped = self.with_drop_glue(&dead);
        let newly = match self.setup.on_drop {
            Policy::RunAll => {
                armed.iter().for_each(|&number| self.queue(number));
                armed
            }
            Policy::RunQueued => {
                for number in armed {
                    let cleanup = &mut self.cleanups[number as usize];
                    if dying.contains(&cleanup.object) {
                        // A slice may have queued it.
                        cleanup.doomed = true;
                    } else {
                        self.doom(number);
                    }
                }
                Vec::new()
            }
            Policy::Discard => {
                let mine = |c: &CleanupModel| c.heap == self.heap && c.fate.is_pending();
                let all: Vec<Number> = (0..self.cleanups.len() as Number)
                    .filter(|&number| mine(&self.cleanups[number as usize]))
                    .collect();
                all.into_iter().for_each(|number| self.doom(number));
                Vec::new()
            }
        };
        Expected {
            report: Cycle::default(),
            newly,
            dropped,
            whole: true,
            exact: true,
            slack: Slack::default(),
        }
    }

    /// Compares what the end of a heap has left, and how many cleanups the pool says it queued.
    pub(super) fn buried(&mut self, expected: &Expected, pool: &PoolStats) {
        self.check_glue(&expected.dropped);
        assert_eq!(self.object(self.world).drops, 1, "drops of the root");
        if self.snapshot.is_some() && self.setup.on_drop == Policy::RunQueued {
            // What the end did not discard had been queued.
            let of_heap = |cleanup: &CleanupModel| cleanup.heap == self.heap;
            let left = (0..self.next_number()).filter(|&number| {
                let cleanup = &self.cleanups[number as usize];
                of_heap(cleanup) && cleanup.fate == Fate::Armed
            });
            let left: Vec<Number> = left.collect();
            left.into_iter().for_each(|number| self.queue(number));
        }
        let is_known = self.snapshot.take().is_none() && self.adrift.take().is_none();
        if !is_known {
            // How many had been queued, or were then, is not known.
            let PoolCounts { queued, settled, discarded, .. } = &mut self.pool;
            (*queued, *settled) = (pool.queued, pool.ended_early);
            *discarded = pool.discarded;
        } else {
            let queued_before = self.pool.queued - expected.newly.len() as u64;
            self.take_over(&expected.newly, pool.queued - queued_before);
        }
        for cleanup in self.cleanups.iter().filter(|cleanup| cleanup.heap == self.heap) {
            assert_ne!(cleanup.fate, Fate::Armed, "a cleanup outlived its heap unqueued");
        }
    }

    /// Another heap takes the place of the one that went. The answer is its root's number.
    pub(super) fn new_heap(&mut self, setup: Setup) -> Id {
        self.heap += 1;
        self.setup = setup;
        self.base = self.objects.len();
        self.base_record = self.records.len();
        self.kept.clear();
        self.weaks.clear();
        self.counts = Counts::default();
        (self.snapshot, self.adrift) = (None, None);
        let trigger = setup.pace.unwrap_or_default();
        let limit_trigger = limit_trigger(setup, 0);
        self.memory = Memory { trigger, limit_trigger, ..Memory::default() };
        // Dropped like a token, whenever that may be: it is not for a sweep to find.
        self.world = self.next_id();
        self.made(self.world, Kind::Token, 0, false);
        self.world
    }

    /// Which objects and weak records of the present heap are reachable.
    fn reachable(&self) -> Reachable {
        let mut objects = vec![false; self.objects.len() - self.base];
        let mut records = vec![false; self.records.len() - self.base_record];
        let mut work = self.kept.clone();
        work.extend(self.roots.iter().filter(|root| root.0 == self.heap).map(|root| root.1));
        work.extend(self.roots_in_objects());
        self.weaks.iter().for_each(|&record| records[record - self.base_record] = true);
        while let Some(id) = work.pop() {
            if !std::mem::replace(&mut objects[id as usize - self.base], true) {
                let object = self.object(id);
                work.extend(object.fields.iter().flatten());
                work.extend(&object.list);
                if let Some(record) = object.weak {
                    records[record - self.base_record] = true;
                }
            }
        }
        Reachable { objects, records }
    }

    /// The objects of the present heap that are not swept yet.
    fn present(&self) -> impl Iterator<Item = Id> + '_ {
        (self.base as Id..self.next_id()).filter(|&id| self.object(id).allocated)
    }

    /// Frees objects.
    fn bury(&mut self, dead: &[Id]) {
        for &id in dead {
            let object = &mut self.objects[id as usize];
            object.allocated = false;
            if self.addresses.get(&object.address) == Some(&id) {
                self.addresses.remove(&object.address);
            }
            self.memory.objects -= 1;
            self.memory.bytes -= (self.size)(object.kind);
        }
    }

    fn with_drop_glue(&self, dead: &[Id]) -> Vec<Id> {
        dead.iter().copied().filter(|&id| self.object(id).kind.has_drop_glue()).collect()
    }

    fn check_glue(&self, dropped: &[Id]) {
        for &id in dropped {
            assert_eq!(self.object(id).drops, 1, "drops of object {id}, which was swept");
        }
    }

    // ---- cleanups
    // ----------------------------------------------------------------------------------

    /// The number of the cleanup that is registered next.
    fn next_number(&self) -> Number {
        self.cleanups.len() as Number
    }

    /// A cleanup was registered, for an object of the present heap. Others may have been given
    /// lower numbers that are told of later.
    pub(super) fn registered(&mut self, number: Number, object: Id, act: Act) {
        self.object_mut(object).cleanups.push(number);
        let at = number as usize;
        if at >= self.cleanups.len() {
            // Nothing is to be heard of them until they are told of.
            self.cleanups.resize_with(at + 1, CleanupModel::unknown);
        }
        assert_eq!(self.cleanups[at].fate, Fate::Unknown, "cleanup {number} was registered twice");
        self.cleanups[at] = CleanupModel::armed(self.heap, object, act);
        self.counts.registered += 1;
        self.counts.armed += 1;
        self.memory.registered_since += 1;
    }

    /// A heap was not made, after one object with one cleanup was: the object is dropped and the
    /// cleanup discarded.
    pub(super) fn stillborn(&mut self, object: Id, number: Number) {
        self.made(object, Kind::Token, 0, false);
        assert_eq!(number, self.next_number(), "the number of a cleanup");
        // A number that no heap has.
        self.cleanups.push(CleanupModel::armed(0, object, Act::Nothing));
        self.doom(number);
    }

    pub(super) fn fate(&self, number: Number) -> Fate {
        self.cleanups[number as usize].fate
    }

    fn pending_of(&self, dead: &[Id]) -> Vec<Number> {
        let cleanups = dead.iter().flat_map(|&id| &self.object(id).cleanups).copied();
        cleanups.filter(|&number| self.fate(number) == Fate::Armed).collect()
    }

    fn queue(&mut self, number: Number) {
        self.becomes(number, Fate::Queued);
        if self.closed {
            self.doom(number);
        }
    }

    /// A pending cleanup is discarded, if it does not end before.
    fn doom(&mut self, number: Number) {
        self.cleanups[number as usize].doomed = true;
        self.doomed.push(number);
    }

    /// The pool was shut down. What is queued is discarded, unless workers have run it.
    pub(super) fn shut_down(&mut self) {
        self.closed = true;
        let queued: Vec<Number> =
            (0..self.next_number()).filter(|&number| self.fate(number) == Fate::Queued).collect();
        queued.into_iter().for_each(|number| self.doom(number));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// A new pool takes the place of one that was shut down.
    pub(super) fn new_pool(&mut self) {
        assert_eq!(self.pool.backlog, 0, "a pool that was shut down has left cleanups");
        self.closed = false;
        self.pool = PoolCounts::default();
    }

    /// Cleanups queued in the pool and not ended.
    pub(super) fn backlog(&self) -> u64 {
        self.pool.backlog
    }

    /// Cleanups of the present heap queued and not ended.
    pub(super) fn heap_backlog(&self) -> u64 {
        self.counts.backlog
    }

    /// Takes note of what the ledger tells.
    pub(super) fn read(&mut self, ledger: &Ledger) {
        ledger.take().into_iter().for_each(|(_, event)| self.note(event));
    }

    /// Takes note of one event.
    pub(super) fn note(&mut self, event: Event) {
        match event {
            Event::Ran(number) => self.touch(number).ran += 1,
            Event::Released(number) => self.touch(number).released += 1,
            Event::Tried(how, number, true) => {
                let cleanup = self.touch(number);
                assert!(!cleanup.fate.has_ended(), "{how:?} of cleanup {number}, which had ended");
                match how {
                    How::Stop => cleanup.stops += 1,
                    How::RunNow => cleanup.runs += 1,
                }
            }
            Event::Tried(_, number, false) => self.touch(number).refused = true,
            Event::State(number, state) => {
                assert_eq!(state, CleanupState::Running, "cleanup {number}, asked by itself");
            }
            Event::Corrupt(number) => panic!("the captures of cleanup {number} have changed"),
            Event::Nested(ran) => assert_eq!(ran, 0, "cleanups do not nest"),
            Event::Rearm(left) => self.rearms.push(left),
            Event::Dropped(id) => {
                self.place(id);
                assert!(self.may_be_dead(id), "object {id} was dropped while it was reachable");
                let object = self.object_mut(id);
                object.drops += 1;
                assert_eq!(object.drops, 1, "drops of object {id}");
                if self.object(id).allocated {
                    self.has_gone(id);
                }
            }
            Event::Told => self.told[1] += 1,
        }
    }

    fn touch(&mut self, number: Number) -> &mut CleanupModel {
        self.touched.push(number);
        &mut self.cleanups[number as usize]
    }

    /// Judges every cleanup that the ledger has told about. Called when none is running.
    pub(super) fn settle(&mut self) {
        for number in std::mem::take(&mut self.touched) {
            self.settle_one(number);
        }
        for number in std::mem::take(&mut self.doomed) {
            let fate = self.fate(number);
            assert!(!fate.is_pending(), "cleanup {number} is {fate:?} and should have ended");
        }
    }

    /// A cleanup of a dying object has ended: so it was queued, unless its handle has ended it.
    fn settle_dying(&mut self, number: Number) {
        let &CleanupModel { object, fate, ran, released, stops, runs, .. } =
            &self.cleanups[number as usize];
        if fate != Fate::Armed || released == 0 || !self.is_dying(object) {
            return;
        }
        let by_handle = runs + stops > 0;
        let snapshot = self.snapshot.as_mut().expect("an object is dying");
        if by_handle {
            snapshot.ended += 1;
        } else if ran > 0 || self.closed {
            snapshot.queued += 1;
            self.queue(number);
        }
    }

    fn settle_one(&mut self, number: Number) {
        self.settle_dying(number);
        let &CleanupModel { act, fate, ran, released, stops, runs, refused, doomed, .. } =
            &self.cleanups[number as usize];
        assert!(ran <= 1, "cleanup {number} ran {ran} times");
        assert!(released <= 1, "the captures of cleanup {number} were dropped {released} times");
        assert!(ran + stops <= 1, "cleanup {number} ran {ran} times and was stopped {stops} times");
        assert!(runs <= ran, "run_now said that cleanup {number} ran {runs} times; it did {ran}");
        if released == 0 {
            assert!(ran + stops == 0, "the captures of cleanup {number} were not dropped");
            assert!(!refused, "a handle of cleanup {number} said that it has ended");
            return;
        }
        if !fate.is_pending() {
            return;
        }
        let by_handle = runs + stops == 1;
        let end = match (ran, stops) {
            (1, _) => Fate::Ran,
            (_, 1) => Fate::Stopped,
            _ => Fate::Discarded,
        };
        if end == Fate::Discarded {
            assert!(doomed, "cleanup {number} was discarded while it was {fate:?}");
        } else if fate == Fate::Armed {
            assert!(by_handle, "cleanup {number} ran while its object lived");
        }
        if fate == Fate::Queued && by_handle {
            self.pool.settled += 1;
        }
        if end == Fate::Ran && !by_handle {
            self.pool_runs += 1;
            self.pool.executed += 1;
            self.pool.panicked += u64::from(act.panics_when_run());
        }
        if end == Fate::Discarded && fate == Fate::Queued {
            self.pool.discarded += 1;
        }
        let told = match end {
            Fate::Ran => act.panics_when_run(),
            Fate::Discarded => act == Act::Bomb,
            _ => false,
        };
        self.told[0] += u64::from(told);
        self.becomes(number, end);
    }

    /// Moves a cleanup, and the counters that say where it is.
    fn becomes(&mut self, number: Number, to: Fate) {
        let cleanup = &mut self.cleanups[number as usize];
        let from = std::mem::replace(&mut cleanup.fate, to);
        let panicked = to == Fate::Ran && cleanup.act.panics_when_run();
        match (from, to) {
            (_, Fate::Queued) => {
                self.pool.queued += 1;
                self.pool.backlog += 1;
            }
            (Fate::Queued, _) => self.pool.backlog -= 1,
            _ => {}
        }
        if cleanup.heap != self.heap {
            return;
        }
        let counts = &mut self.counts;
        match from {
            Fate::Armed => counts.armed -= 1,
            _ => counts.backlog -= 1,
        }
        match to {
            Fate::Queued => {
                counts.queued += 1;
                counts.backlog += 1;
            }
            Fate::Ran => {
                counts.executed += 1;
                counts.panicked += u64::from(panicked);
            }
            Fate::Stopped => counts.stopped += 1,
            Fate::Discarded => counts.discarded += 1,
            Fate::Armed | Fate::Unknown => unreachable!("a cleanup is armed once"),
        }
    }

    /// Of the cleanups whose objects a sweep found dead, it queued `queued`. Drop glue (or, with
    /// workers, a cleanup) ended the others before the sweep came to them.
    fn take_over(&mut self, newly: &[Number], queued: u64) {
        let all = newly.len() as u64;
        assert!(queued <= all, "a sweep queued {queued} cleanups of {all}");
        if self.exact {
            let ended = newly.iter().filter(|&&number| {
                let cleanup = &self.cleanups[number as usize];
                cleanup.runs + cleanup.stops == 1
            });
            let ended = ended.count() as u64;
            assert!(queued + ended >= all, "a sweep queued {queued} cleanups of {all}");
            self.pool.settled -= all - queued;
        }
        self.pool.queued -= all - queued;
        self.counts.queued -= all - queued;
    }

    // ---- comparisons
    // -------------------------------------------------------------------------------

    /// Compares a heap's counters; those of its cleanups if none is running.
    pub(super) fn check_heap(&self, stats: &HeapStats, quiescent: bool) {
        let roots = self.roots.iter().filter(|root| root.0 == self.heap).count();
        assert_eq!(stats.roots, (roots + self.roots_in_objects().count()) as u64, "roots");
        let Memory { cycles, objects, records, bytes, swept, drop_panics, .. } = self.memory;
        assert_eq!((stats.cycles, stats.max_bytes), (cycles, self.setup.limit), "cycles and limit");
        let dying = self.dying();
        let bombs = dying.iter().filter(|&&id| self.object(id).kind == Kind::Bomb).count() as u64;
        // A record lasts as long as its object or longer.
        let dying_records = if self.snapshot.is_some() { records } else { 0 };
        let dying_bytes: u64 = dying.iter().map(|&id| (self.size)(self.object(id).kind)).sum();
        let dying_bytes = dying_bytes + dying_records * RECORD_BYTES;
        let dying = dying.len() as u64;
        for (what, is, least, most) in [
            ("objects", stats.objects, objects - dying, objects),
            ("weak records", stats.weak_records, records - dying_records, records),
            ("bytes", stats.bytes, bytes - dying_bytes, bytes),
            ("swept objects", stats.swept_objects, swept, swept + dying),
            ("panics in drop glue", stats.drop_panics, drop_panics, drop_panics + bombs),
        ] {
            assert!((least..=most).contains(&is), "{what}: {is}, and not {least} to {most}");
        }
        assert_eq!(self.object(self.world).drops, 0, "drops of the root of a living heap");
        assert!(stats.mapped_bytes >= stats.bytes);
        let is_empty = self.memory.empty_cycles >= 2 && !self.memory.in_slices;
        assert!(stats.mapped_bytes == 0 || !is_empty, "long empty, and not given back");
        let cleanups = &stats.cleanups;
        assert_eq!(cleanups.registered, self.counts.registered, "registered cleanups");
        if quiescent && (self.exact || self.adrift.is_none()) {
            let counts = Counts {
                registered: cleanups.registered,
                queued: cleanups.queued,
                executed: cleanups.executed,
                panicked: cleanups.panicked,
                stopped: cleanups.stopped,
                discarded: cleanups.discarded,
                backlog: cleanups.backlog,
                armed: cleanups.armed,
            };
            // Of the dying, some may have been queued, and some of those ended.
            let queued = counts.queued.wrapping_sub(self.counts.queued);
            let backlog = counts.backlog.wrapping_sub(self.counts.backlog);
            let is_possible = self.may_have_queued(queued, backlog);
            assert!(is_possible, "{counts:?}, and {:?} of the heap's cleanups", self.counts);
            let expected = Counts {
                queued: counts.queued,
                backlog: counts.backlog,
                armed: self.counts.armed - backlog,
                ..self.counts
            };
            assert_eq!(counts, expected, "the heap's cleanups");
        }
    }

    /// Whether as many cleanups may have been queued, and be, beside those that the oracle knows
    /// of.
    fn may_have_queued(&self, queued: u64, backlog: u64) -> bool {
        let ended = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.ended);
        let ended = ended + self.adrift.unwrap_or_default();
        backlog <= self.dying_cleanups() && (backlog..=backlog + ended).contains(&queued)
    }

    /// Compares a pool's counters and what its hook was told. Called when no cleanup is running.
    pub(super) fn check_pool(&self, stats: &PoolStats) {
        let [expected, told] = self.told;
        assert_eq!(told, expected, "panics that the hook was told of");
        let mut counts = PoolCounts {
            queued: stats.queued,
            executed: stats.executed,
            panicked: stats.panicked,
            settled: stats.ended_early,
            discarded: stats.discarded,
            backlog: stats.backlog,
        };
        assert_eq!(
            stats.queued,
            stats.executed + stats.ended_early + stats.discarded + stats.backlog,
            "{stats:?}"
        );
        if !self.exact {
            // A handle on a worker may have ended a cleanup before the sweep came to it, or after.
            counts.settled = self.pool.settled;
        }
        if !self.exact && self.adrift.is_some() {
            return;
        }
        let queued = counts.queued.wrapping_sub(self.pool.queued);
        let backlog = counts.backlog.wrapping_sub(self.pool.backlog);
        let is_possible = self.may_have_queued(queued, backlog);
        assert!(is_possible, "{counts:?}, and {:?} of the pool's cleanups", self.pool);
        if self.exact {
            counts.settled -= queued - backlog;
        }
        counts.queued -= queued;
        counts.backlog -= backlog;
        assert_eq!(counts, self.pool, "the pool's cleanups");
        // A worker may still hold a block whose cleanups have all been ended by their handles.
        assert!(stats.running == 0 || !self.exact, "{stats:?}");
        assert_eq!(stats.oldest.is_some(), stats.backlog > 0, "{stats:?}");
    }

    /// Compares what a handle says.
    pub(super) fn check_state(&self, number: Number, state: CleanupState) {
        let fate = self.fate(number);
        let agrees = match fate {
            Fate::Unknown => false,
            Fate::Armed => {
                let object = self.cleanups[number as usize].object;
                state == CleanupState::Armed
                    || (state == CleanupState::Queued && self.is_dying(object))
            }
            Fate::Queued => state == CleanupState::Queued,
            Fate::Ran => state == CleanupState::Done,
            Fate::Stopped => state == CleanupState::Stopped,
            // Once the record serves another cleanup, a handle knows only of its own `stop`.
            Fate::Discarded => matches!(state, CleanupState::Stopped | CleanupState::Done),
        };
        assert!(agrees, "cleanup {number} is {state:?} and should be {fate:?}");
    }

    /// Every object has gone, and every cleanup has ended. Called at the end of a program, when the
    /// last heap is a new one.
    pub(super) fn check_end(&self) {
        for (id, object) in self.objects.iter().enumerate() {
            let drops = u32::from(object.kind.has_drop_glue() && id != self.world as usize);
            assert!(!object.allocated && object.drops == drops, "drops of object {id}");
        }
        for (number, cleanup) in self.cleanups.iter().enumerate() {
            assert!(!cleanup.fate.is_pending(), "cleanup {number} is {:?}", cleanup.fate);
            assert_eq!(cleanup.released, 1, "drops of the captures of cleanup {number}");
        }
    }
}

impl Object {
    fn unmade() -> Self {
        Object {
            kind: Kind::Token,
            address: 0,
            made: false,
            allocated: false,
            drops: 0,
            gone: false,
            fields: [None; 3],
            list: Vec::new(),
            weak: None,
            record: None,
            root: None,
            cleanups: Vec::new(),
        }
    }
}

impl CleanupModel {
    fn unknown() -> Self {
        CleanupModel { fate: Fate::Unknown, ..CleanupModel::armed(0, 0, Act::Nothing) }
    }

    fn armed(heap: HeapNumber, object: Id, act: Act) -> Self {
        CleanupModel {
            heap,
            object,
            act,
            fate: Fate::Armed,
            ran: 0,
            released: 0,
            stops: 0,
            runs: 0,
            refused: false,
            doomed: false,
        }
    }
}

impl Act {
    fn panics_when_run(self) -> bool {
        matches!(self, Act::Panic | Act::Bomb)
    }
}

/// More than a registered cleanup counts for towards the next cycle.
const AMPLE_CLEANUP_BYTES: u64 = 1 << 10;

/// More than the lists of branches take.
const AMPLE_OUTSIDE: u64 = 64 << 10;

/// Half of what the limit leaves beside the living may be allocated.
fn limit_trigger(setup: Setup, live: u64) -> u64 {
    // What may be dead is counted in, so that it may seem to be more than the limit.
    setup.limit.map_or(u64::MAX, |limit| live + limit.saturating_sub(live) / 2)
}
