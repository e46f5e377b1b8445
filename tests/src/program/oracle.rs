//! The oracle: what a heap and its cleanups should be, as a plain graph and plain counters.
//!
//! It knows the documentation, not the implementation: reachability is a depth-first search over
//! numbers, and every counter is raised where the thing happens that it counts. Invariant: `fate`
//! is what has become of each cleanup up to the last [`settle`](Oracle::settle); what the ledger
//! has told since lies in the cleanup's own tallies. With a manual pool the two never differ for
//! longer than an operation.
//!
//! One thing is left open on purpose: if drop glue ends a cleanup of an object that dies in the
//! same sweep, the sweep may have queued it before or not. Then the heap's own count is taken over,
//! once it has been found to lie within those bounds.

use std::collections::HashMap;

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
    pub(super) fields: [Option<Id>; 3],
    pub(super) list: Vec<Id>,
    pub(super) weak: Option<RecordNumber>,
    /// The record that its next downgrade gives.
    record: Option<RecordNumber>,
    /// The object that its drop glue unroots.
    root: Option<Id>,
    cleanups: Vec<Number>,
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
}

struct CleanupModel {
    heap: HeapNumber,
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

    /// The object that lies at an address.
    pub(super) fn at(&self, address: usize) -> Option<Id> {
        self.addresses.get(&address).copied()
    }

    // ---- deaths
    // ------------------------------------------------------------------------------------

    // Two rules say what is dead, and nothing else does. Fates, counters, reports and weak pointers
    // follow from them. A collector that lets an object live for a cycle longer changes them alone.

    /// Whether an object must be dead when a cycle is over: everything that could not be reached
    /// when the cycle was asked for.
    fn must_be_dead(&self, id: Id, live: &Reachable) -> bool {
        !live.objects[id as usize - self.base]
    }

    /// Likewise, of a weak record.
    fn record_must_be_dead(&self, record: RecordNumber, live: &Reachable) -> bool {
        !live.records[record - self.base_record]
    }

    /// Whether an object may be dead now, so that its drop glue and its cleanups may run:
    /// everything that had to be dead when a cycle was over.
    pub(super) fn may_be_dead(&self, id: Id) -> bool {
        !self.object(id).allocated
    }

    /// An object was allocated at an address that none has at present. Others may have been given
    /// lower numbers that are told of later.
    pub(super) fn allocated(&mut self, id: Id, kind: Kind, address: usize) {
        self.made(id, kind, address, true);
        let other = self.addresses.insert(address, id);
        assert_eq!(other, None, "object {id} was given the slot of a living one");
        self.memory.objects += 1;
        self.memory.bytes += (self.size)(kind);
        self.memory.empty_cycles = 0;
    }

    /// An object was made, and found no room.
    pub(super) fn refused(&mut self, id: Id, kind: Kind) {
        self.made(id, kind, 0, false);
        self.was_refused((self.size)(kind));
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

    /// The objects whose roots are in the hands of objects that are not swept yet.
    fn roots_in_objects(&self) -> impl Iterator<Item = Id> + '_ {
        self.present().filter_map(|id| self.object(id).root)
    }

    /// The number of the heap that roots and cleanups made now belong to.
    pub(super) fn heap(&self) -> HeapNumber {
        self.heap
    }

    // ---- weak pointers
    // -----------------------------------------------------------------------------

    /// Whether an object can be downgraded under the limit.
    pub(super) fn can_downgrade(&self, object: Id) -> bool {
        self.object(object).record.is_some() || self.has_room_for(RECORD_BYTES)
    }

    /// A weak pointer to the object was made. The answer is its record.
    pub(super) fn downgraded(&mut self, object: Id) -> RecordNumber {
        if let Some(record) = self.object(object).record {
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
        if self.setup.zeal {
            Due::Yes
        } else if self.setup.pace.is_none() {
            Due::No
        } else if refused || bytes > trigger.min(limit_trigger) {
            Due::Yes
        } else if bytes + registered_since * AMPLE_CLEANUP_BYTES <= trigger {
            Due::No
        } else {
            Due::Perhaps
        }
    }

    /// A cycle has run on the present heap. Called before the ledger of its sweep is read.
    pub(super) fn collect(&mut self) -> Expected {
        let before = self.memory;
        let live = self.reachable();
        let dead: Vec<Id> = self.present().filter(|&id| self.must_be_dead(id, &live)).collect();
        // 1. Weak records: cleared if only they live, freed if they do not.
        let mut cleared_weaks = 0;
        for at in self.base_record..self.records.len() {
            let Record { target, cleared, allocated } = self.records[at];
            if allocated && self.record_must_be_dead(at, &live) {
                self.records[at].allocated = false;
                self.memory.records -= 1;
                self.memory.bytes -= RECORD_BYTES;
                self.object_mut(target).record = None;
            } else if allocated && !cleared && self.must_be_dead(target, &live) {
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
        self.memory.cycles += 1;
        self.memory.swept += dead.len() as u64;
        self.memory.drop_panics += bombs;
        self.memory.registered_since = 0;
        let live = self.memory.bytes;
        self.memory.empty_cycles += u32::from(live == 0);
        self.memory.trigger = live + live.max(self.setup.pace.unwrap_or_default());
        self.memory.limit_trigger = limit_trigger(self.setup, live);
        self.memory.refused = false;
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
        Expected { report, newly, dropped }
    }

    /// Of a cycle whose report was not seen: compares what it dropped.
    pub(super) fn check_glue_of(&self, expected: &Expected) {
        self.check_glue(&expected.dropped);
    }

    /// Such cycles may have queued fewer cleanups than died: takes over how many they did.
    pub(super) fn adopt_queued(&mut self, heap: &HeapStats) {
        let fewer = self.counts.queued.checked_sub(heap.cleanups.queued);
        let fewer = fewer.expect("no more were queued than have died");
        self.counts.queued -= fewer;
        self.pool.queued -= fewer;
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
        assert_eq!(reported, expected.report, "the report of a cycle");
        assert!(report.emptied_spans <= report.swept_spans);
        assert_eq!(report.published_blocks == 0, report.queued_cleanups == 0, "{report:?}");
        self.check_glue(&expected.dropped);
        self.take_over(&expected.newly, report.queued_cleanups);
    }

    /// The heap is being dropped. Called before the ledger of that is read; the answer goes to
    /// [`buried`](Self::buried).
    pub(super) fn tear_down(&mut self) -> Expected {
        let dead: Vec<Id> = self.present().collect();
        self.bury(&dead);
        let armed = self.pending_of(&dead);
        let dropped = self.with_drop_glue(&dead);
        let newly = match self.setup.on_drop {
            Policy::RunAll => {
                armed.iter().for_each(|&number| self.queue(number));
                armed
            }
            Policy::RunQueued => {
                armed.into_iter().for_each(|number| self.doom(number));
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
        Expected { report: Cycle::default(), newly, dropped }
    }

    /// Compares what the end of a heap has left, and how many cleanups the pool says it queued.
    pub(super) fn buried(&mut self, expected: &Expected, pool: &PoolStats) {
        self.check_glue(&expected.dropped);
        assert_eq!(self.object(self.world).drops, 1, "drops of the root");
        let queued_before = self.pool.queued - expected.newly.len() as u64;
        self.take_over(&expected.newly, pool.queued - queued_before);
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
            self.addresses.remove(&object.address);
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
        self.cleanups[at] = CleanupModel::armed(self.heap, act);
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
        self.cleanups.push(CleanupModel::armed(0, Act::Nothing));
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

    fn settle_one(&mut self, number: Number) {
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
        let Memory { cycles, objects, records, bytes, swept, drop_panics, empty_cycles, .. } =
            self.memory;
        assert_eq!(
            (stats.cycles, stats.objects, stats.weak_records, stats.bytes),
            (cycles, objects, records, bytes),
            "cycles, objects, weak records and bytes"
        );
        assert_eq!(
            (stats.swept_objects, stats.drop_panics, stats.max_bytes),
            (swept, drop_panics, self.setup.limit),
            "swept objects, panics in drop glue and the limit"
        );
        assert_eq!(self.object(self.world).drops, 0, "drops of the root of a living heap");
        assert!(stats.mapped_bytes >= bytes);
        assert!(stats.mapped_bytes == 0 || empty_cycles < 2, "long empty, and not given back");
        let cleanups = &stats.cleanups;
        assert_eq!(cleanups.registered, self.counts.registered, "registered cleanups");
        if quiescent {
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
            assert_eq!(counts, self.counts, "the heap's cleanups");
        }
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
        assert_eq!(counts, self.pool, "the pool's cleanups");
        // A worker may still hold a block whose cleanups have all been ended by their handles.
        assert!(stats.running == 0 || !self.exact, "{stats:?}");
        assert_eq!(stats.oldest.is_some(), self.pool.backlog > 0, "{stats:?}");
    }

    /// Compares what a handle says.
    pub(super) fn check_state(&self, number: Number, state: CleanupState) {
        let fate = self.fate(number);
        let agrees = match fate {
            Fate::Unknown => false,
            Fate::Armed => state == CleanupState::Armed,
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
        CleanupModel { fate: Fate::Unknown, ..CleanupModel::armed(0, Act::Nothing) }
    }

    fn armed(heap: HeapNumber, act: Act) -> Self {
        CleanupModel {
            heap,
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

/// Half of what the limit leaves beside the living may be allocated.
fn limit_trigger(setup: Setup, live: u64) -> u64 {
    setup.limit.map_or(u64::MAX, |limit| live + (limit - live) / 2)
}
