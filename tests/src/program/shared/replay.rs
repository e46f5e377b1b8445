//! The replay: what several threads have written down, done to the oracle one by one.
//!
//! Invariant: when an entry is replayed, the oracle is where the heap was at that moment, as far as
//! the entry can see: everything with a lower stamp has been done, and as many cycles have run as
//! its session had seen completed.
//!
//! One thing is left open on purpose: the root of an island may be dropped while a thread marks.
//! Then the island's drop glue says which it was, once it has been found to lie within those
//! bounds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::GcReport;

use super::journal::{Deed, Entry, Field, Journal, RootNumber, Sight};
use super::payload::{Kind, SLOTS, WEAKS};
use crate::program::ledger::{Event, How, Id, Number, Stamp};
use crate::program::ops::Setup;
use crate::program::oracle::{Oracle, RecordNumber};
use crate::program::tally::message;

pub(super) struct Replay {
    pub(super) oracle: Oracle<Kind>,
    setup: Setup,
    pub(super) slots: [Option<Id>; SLOTS],
    pub(super) weaks: [Option<RecordNumber>; WEAKS],
    /// The nodes on the stack, in no order.
    pub(super) stack: HashSet<Id>,
    pub(super) herd: Vec<Id>,
    roots: BTreeMap<RootNumber, Id>,
    islands: BTreeMap<RootNumber, Island>,
    /// Cycles that have run.
    cycle: u64,
    reports: BTreeMap<u64, GcReport>,
    /// Cycles whose report was not seen.
    pub(super) unreported: u64,
    /// When a session was last seen open.
    last_session: Stamp,
    /// Objects dropped since the last cycle that has run: by the next one.
    drops: Vec<(Stamp, Id)>,
    /// Objects that found no room, and were dropped by the threads that made them.
    refused: HashSet<Id>,
    objects: HashMap<Number, Id>,
    /// Cleanups that have run since a session was last seen open, but not by their handles.
    ran: Vec<Number>,
    by_handle: HashSet<Number>,
    /// Cleanups that were ended by their handles, at whatever time; since a session was last seen
    /// open; before.
    ever_ended: HashSet<Number>,
    newly_ended: Vec<Number>,
    ended: HashSet<Number>,
}

/// An object that only one root keeps.
struct Island {
    id: Id,
    /// When its root began to be dropped, and when that was over.
    sinking: Option<Stamp>,
    sunk: Option<Stamp>,
}

enum Line {
    Entry(Entry),
    Event(Event),
}

impl Replay {
    /// Of a heap that has just been made, with that herd.
    pub(super) fn new(setup: Setup, herd: Vec<(Id, usize)>) -> Self {
        let mut oracle = Oracle::new(false, setup);
        oracle.new_heap(setup);
        for &(id, address) in &herd {
            oracle.allocated_as(id, Kind::Node, address);
        }
        Replay {
            oracle,
            setup,
            slots: [None; SLOTS],
            weaks: [None; WEAKS],
            stack: HashSet::new(),
            herd: herd.into_iter().map(|(id, _)| id).collect(),
            roots: BTreeMap::new(),
            islands: BTreeMap::new(),
            cycle: 0,
            reports: BTreeMap::new(),
            unreported: 0,
            last_session: 0,
            drops: Vec::new(),
            refused: HashSet::new(),
            objects: HashMap::new(),
            ran: Vec::new(),
            by_handle: HashSet::new(),
            ever_ended: HashSet::new(),
            newly_ended: Vec::new(),
            ended: HashSet::new(),
        }
    }

    /// Replays all that has been written down since the last time, given the cycles that have run
    /// meanwhile. Called when no mutator is at work.
    ///
    /// # Panics
    ///
    /// If heap and oracle disagree. The message ends with what was replayed last.
    pub(super) fn feed(
        &mut self,
        journals: Vec<Journal>,
        events: Vec<(Stamp, Event)>,
        cycles: u64,
    ) {
        let mut lines: Vec<(Stamp, Line)> = Vec::new();
        for journal in journals {
            self.reports.extend(journal.reports);
            lines.extend(journal.entries.into_iter().map(|e| (e.stamp, Line::Entry(e))));
        }
        lines.extend(events.into_iter().map(|(stamp, event)| (stamp, Line::Event(event))));
        lines.sort_by_key(|&(stamp, _)| stamp);
        for (_, line) in &lines {
            self.look_ahead(line);
        }
        for (done, (stamp, line)) in lines.iter().enumerate() {
            self.report(&lines[..=done], |replay| match line {
                Line::Entry(entry) => replay.entry(entry),
                Line::Event(event) => replay.event(*stamp, *event),
            });
        }
        self.report(&lines, |replay| replay.catch_up(cycles, Stamp::MAX));
    }

    /// A cycle's report is known.
    pub(super) fn reported(&mut self, report: GcReport) {
        self.reports.insert(report.cycle, report);
    }

    /// An object found no room, and is dropped.
    pub(super) fn refuse(&mut self, id: Id, kind: Kind) {
        self.refused.insert(id);
        self.oracle.refused_as(id, kind);
    }

    /// Calls `f`; if it panics, says what was replayed up to then.
    fn report(&mut self, done: &[(Stamp, Line)], f: impl FnOnce(&mut Self)) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(self))) {
            let last =
                done[done.len().saturating_sub(LINES)..].iter().map(|(stamp, line)| match line {
                    Line::Entry(entry) => format!("{stamp:>6}  {entry}"),
                    Line::Event(event) => format!("{stamp:>6}  {event:?}"),
                });
            let last: Vec<String> = last.collect();
            panic!("{}\nlast of all:\n{}", message(&*payload), last.join("\n"));
        }
    }

    fn look_ahead(&mut self, line: &Line) {
        match line {
            Line::Entry(entry) => {
                for deed in &entry.deeds {
                    if let Deed::Refused { id, .. } = deed {
                        self.refused.insert(*id);
                    }
                }
            }
            &Line::Event(Event::Tried(how, number, true)) => {
                self.ever_ended.insert(number);
                if how == How::RunNow {
                    self.by_handle.insert(number);
                }
            }
            Line::Event(_) => {}
        }
    }

    fn event(&mut self, stamp: Stamp, event: Event) {
        match event {
            Event::Dropped(id) if !self.refused.contains(&id) => {
                return self.drops.push((stamp, id));
            }
            Event::Ran(number) if !self.by_handle.contains(&number) => self.ran.push(number),
            Event::Tried(_, number, true) => self.newly_ended.push(number),
            _ => {}
        }
        self.oracle.note(event);
    }

    fn entry(&mut self, entry: &Entry) {
        if let Some(cycle) = entry.cycle {
            self.catch_up(cycle, entry.stamp);
            self.last_session = entry.stamp;
            self.ended.extend(self.newly_ended.drain(..));
        }
        for deed in &entry.deeds {
            self.deed(entry.stamp, deed);
        }
    }

    // ---- cycles
    // ------------------------------------------------------------------------------------

    /// A thread has seen `cycles` cycles completed, at that moment.
    pub(super) fn catch_up(&mut self, cycles: u64, now: Stamp) {
        assert!(cycles >= self.cycle, "{cycles} cycles were seen, after {} had been", self.cycle);
        if cycles > self.cycle {
            self.run_cycles(cycles);
        }
        if let Some((stamp, id)) = self.drops.first() {
            panic!(
                "object {id} was dropped at {stamp}, while no cycle ran, \
                 or before one had begun that ended before {now}"
            );
        }
        for number in std::mem::take(&mut self.ran) {
            let object = self.objects[&number];
            assert!(
                !self.oracle.is_allocated(object),
                "cleanup {number} ran before {now}, while object {object} lived"
            );
        }
    }

    fn run_cycles(&mut self, cycles: u64) {
        let drops = std::mem::take(&mut self.drops);
        let lost = self.sink_islands(&drops);
        let mut expected = Vec::new();
        for _ in self.cycle..cycles {
            self.sync();
            expected.push(self.oracle.collect());
        }
        drops.into_iter().for_each(|(_, id)| self.oracle.note(Event::Dropped(id)));
        let first = self.cycle + 1;
        self.cycle = cycles;
        // Which of several cycles an island went in, is unknown.
        let known = expected.len() == 1 || !lost;
        for (cycle, expected) in (first..).zip(expected) {
            let Some(report) = self.reports.get(&cycle).filter(|_| known) else {
                self.unreported += 1;
                self.oracle.check_glue_of(&expected);
                continue;
            };
            let newly = expected.newly();
            let not_in = |ended: &HashSet<Number>| {
                newly.iter().filter(|number| !ended.contains(number)).count() as u64
            };
            let (least, most) = (not_in(&self.ever_ended), not_in(&self.ended));
            let queued = report.queued_cleanups;
            assert!(
                (least..=most).contains(&queued),
                "cycle {cycle} queued {queued} cleanups of {least} to {most}"
            );
            self.oracle.check_report(&expected, report);
        }
    }

    /// Drops the roots of islands whose roots were dropped before the next cycle. Whether there was
    /// one of which only the island itself could tell.
    fn sink_islands(&mut self, drops: &[(Stamp, Id)]) -> bool {
        let mut told = false;
        self.islands.retain(|_, island| {
            if island.sunk.is_some_and(|sunk| sunk < self.last_session) {
                return false;
            }
            let Some((stamp, id)) = drops.iter().find(|(_, id)| *id == island.id) else {
                return true;
            };
            told = true;
            assert!(
                island.sinking.is_some_and(|sinking| sinking < *stamp),
                "object {id} was dropped while it had a root"
            );
            false
        });
        told
    }

    /// Tells the oracle of all roots.
    pub(super) fn sync(&mut self) {
        let Replay { oracle, slots, weaks, stack, herd, roots, islands, .. } = self;
        oracle.kept.clear();
        oracle.kept.extend(slots.iter().flatten().chain(&*stack).chain(&*herd));
        oracle.weaks.clear();
        oracle.weaks.extend(weaks.iter().flatten());
        oracle.roots.clear();
        let heap = oracle.heap();
        let ids = roots.values().copied().chain(islands.values().map(|island| island.id));
        oracle.roots.extend(ids.map(|id| (heap, id)));
    }

    /// All roots, those of islands included, are dropped, in a session.
    pub(super) fn unroot_all(&mut self) {
        self.roots.clear();
        self.islands.clear();
    }

    // ---- deeds
    // -------------------------------------------------------------------------------------

    /// The object that was seen.
    fn id_of(&self, sight: Sight) -> Id {
        let id = self.oracle.at(sight.address);
        let id = id.unwrap_or_else(|| panic!("{sight:?} was seen, where there is none"));
        assert!(sight.id.is_none_or(|own| own == id), "{sight:?} was seen in place of object {id}");
        id
    }

    fn check(&self, what: &str, seen: Option<Sight>, expected: Option<Id>) -> Option<Id> {
        let seen = seen.map(|sight| self.id_of(sight));
        assert_eq!(seen, expected, "what was seen in {what}");
        seen
    }

    fn check_limit(&self) {
        let bytes = self.oracle.bytes();
        assert!(self.setup.limit.is_none_or(|limit| bytes <= limit), "{bytes} bytes are in use");
    }

    fn field(&mut self, object: Id, field: Field) -> &mut Option<Id> {
        &mut self.oracle.object_mut(object).fields[field as usize]
    }

    fn deed(&mut self, stamp: Stamp, deed: &Deed) {
        match *deed {
            Deed::Alloc { id, kind, address } => {
                self.oracle.allocated_as(id, kind, address);
                self.check_limit();
            }
            Deed::Refused { id, kind } => self.oracle.refused_as(id, kind),
            Deed::Place { slot, was, now } => {
                self.check(&format!("slot {slot}"), was, self.slots[slot]);
                self.slots[slot] = now.map(|now| self.id_of(now));
            }
            Deed::Link { from, field, was, now } => {
                let (from, now) = (self.id_of(from), now.map(|now| self.id_of(now)));
                let known = *self.field(from, field);
                self.check(&format!("{field:?} of object {from}"), was, known);
                *self.field(from, field) = now;
            }
            Deed::Read { from, field, found } => {
                let from = self.id_of(from);
                let known = *self.field(from, field);
                self.check(&format!("{field:?} of object {from}"), found, known);
            }
            Deed::ListPush { branch, item } => {
                let (branch, item) = (self.id_of(branch), self.id_of(item));
                self.oracle.object_mut(branch).list.push(item);
            }
            Deed::ListRemove { branch, at, was } => {
                let branch = self.id_of(branch);
                let known = self.oracle.object_mut(branch).list.swap_remove(at);
                self.check(&format!("the list of object {branch}"), Some(was), Some(known));
            }
            Deed::ListRead { branch, at, found } => {
                let branch = self.id_of(branch);
                let known = self.oracle.object(branch).list.get(at).copied();
                self.check(&format!("the list of object {branch}"), Some(found), known);
            }
            Deed::Once { branch, seen } => {
                let (branch, seen) = (self.id_of(branch), self.id_of(seen));
                let known = *self.field(branch, Field::Left).get_or_insert(seen);
                assert_eq!(seen, known, "what was seen in object {branch}, which is set once");
            }
            Deed::Push { node } => {
                let node = self.id_of(node);
                assert!(self.stack.insert(node));
            }
            Deed::Pop { node } => {
                let node = self.id_of(node);
                assert!(self.stack.remove(&node), "object {node} is not on the stack");
            }
            Deed::TakeAll { ref nodes } => {
                let nodes: Vec<Id> = nodes.iter().map(|&node| self.id_of(node)).collect();
                for (at, node) in nodes.iter().enumerate() {
                    assert!(self.stack.remove(node), "object {node} is not on the stack");
                    *self.field(*node, Field::Next) = nodes.get(at + 1).copied();
                }
            }
            Deed::Disband { members } => {
                assert_eq!(members, std::mem::take(&mut self.herd).len(), "the herd");
            }
            Deed::Downgrade { object, weak, other, same } => {
                let object = self.id_of(object);
                let record = self.oracle.downgraded(object);
                self.check_limit();
                let known = self.weaks[other] == Some(record);
                assert_eq!(same, known, "whether weak slot {other} is of object {object}");
                self.weaks[weak] = Some(record);
            }
            Deed::DropWeak { weak, was } => {
                let known = self.weaks[weak].take().is_some();
                assert_eq!(was, known, "whether there is something in weak slot {weak}");
            }
            Deed::CopyWeak { from, to } => self.weaks[to] = self.weaks[from],
            Deed::Upgrade { weak, found } => {
                let record = self.weaks[weak].expect("there is something in the weak slot");
                let target = self.oracle.target(record);
                self.check(&format!("weak slot {weak}"), found, target);
            }
            Deed::StoreWeak { node, weak } => {
                let node = self.id_of(node);
                self.oracle.object_mut(node).weak = weak.and_then(|weak| self.weaks[weak]);
            }
            Deed::Register { object, number, act } => {
                let object = self.id_of(object);
                self.objects.insert(number, object);
                self.oracle.registered_as(number, object, act);
            }
            Deed::Root { root, object } => {
                let object = self.id_of(object);
                self.roots.insert(root, object);
            }
            Deed::CloneRoot { root, of } => {
                self.roots.insert(root, self.roots[&of]);
            }
            Deed::Fetch { root, found } => {
                let known = self.roots[&root];
                self.check(&format!("root {root}"), Some(found), Some(known));
            }
            Deed::Unroot { root } => {
                self.roots.remove(&root).expect("it was made");
            }
            Deed::Island { root, object } => {
                let id = self.id_of(object);
                self.islands.insert(root, Island { id, sinking: None, sunk: None });
            }
            Deed::Sinking { root } => self.island(root).sinking = Some(stamp),
            // It may have gone already.
            Deed::Sunk { root } => {
                if let Some(island) = self.islands.get_mut(&root) {
                    island.sunk = Some(stamp);
                }
            }
        }
    }

    fn island(&mut self, root: RootNumber) -> &mut Island {
        self.islands.get_mut(&root).expect("it was made, and is kept")
    }
}

/// What was replayed last, as far as a failure tells of it.
const LINES: usize = 40;
