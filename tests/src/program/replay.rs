//! The replay: journals, done to the oracle entry by entry. With one hand that is after each
//! operation; with several, when none is at work any more.
//!
//! Invariant: when an entry is replayed, the oracle is where the heap was at that moment, as far as
//! the entry can see: everything with a lower stamp has been done, and as many cycles have run as
//! its session had seen completed, or one more.
//!
//! One thing is left open on purpose: the root of an island may be dropped while a thread marks.
//! Then the island's drop glue says which it was, once it has been found to lie within those
//! bounds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;

use sexton::{CleanupPool, GcReport, HeapId, HeapStats, Mutation};

use super::common::Common;
use super::journal::{Deed, Entry, Field, Journal, RootNumber, Sight};
use super::ledger::{Event, How, Id, Number, Stamp};
use super::ops::Setup;
use super::oracle::{Due, HeapNumber, Oracle, RecordNumber};
use super::payload::{Any, AnyRoot, AnyWeak, Kind, SLOTS, WEAKS, World};
use super::place::{Ground, Place};
use super::tally::message;

pub(super) struct Replay {
    pub(super) oracle: Oracle,
    setup: Setup,
    /// Whether a cycle may take several slices of which nothing is known but the end.
    pub(super) in_slices: bool,
    /// Whether no other hand is at work now. Then a cycle that is asked for begins afterwards.
    pub(super) single: bool,
    /// Whether a cycle is under way, as far as that is known.
    under_way: UnderWay,
    /// What may have moved a cycle since cycles were counted.
    turn: Turn,
    /// Whether all is determined, but for when a cleanup runs: only one hand is at work.
    pub(super) alone: bool,
    /// Whether that is determined, too: cleanups run only when this thread runs them.
    exact: bool,
    /// Whether none can be running.
    pub(super) quiescent: bool,
    /// Whether it is known how much room there is, to the byte.
    pub(super) room_is_known: bool,
    pub(super) slots: [Option<Id>; SLOTS],
    pub(super) weaks: [Option<RecordNumber>; WEAKS],
    /// The nodes on the stack, in no order.
    pub(super) stack: HashSet<Id>,
    pub(super) herd: Vec<Id>,
    roots: BTreeMap<RootNumber, (HeapNumber, Id)>,
    islands: BTreeMap<RootNumber, Island>,
    /// Cycles that have run.
    cycle: u64,
    /// Cycles that should have: those asked for, and those due at the ends of sessions, as far as
    /// they are determined.
    pub(super) due: u64,
    reports: BTreeMap<u64, GcReport>,
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
    /// open, or with one hand in this operation; before.
    ever_ended: HashSet<Number>,
    newly_ended: Vec<Number>,
    ended: HashSet<Number>,
}

/// Whether a cycle is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum UnderWay {
    No,
    Yes,
    /// One had ended within a session or at its end. If within, the end began another.
    Perhaps,
}

/// What moves a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Nothing but a session, which may have ended one.
    Session,
    /// A step, with which one ended or did not.
    Step(bool),
    /// The end of a session in which something was due.
    Due,
    /// One that runs at once, after the one under way was ended or given up.
    Whole,
    /// Likewise, or as [`Turn::Session`].
    PerhapsWhole,
}

/// An object that only one root keeps.
struct Island {
    id: Id,
    /// When its root began to be dropped, and when that was over.
    sinking: Option<Stamp>,
    sunk: Option<Stamp>,
}

/// Where a cycle begins or ends.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Begin,
    /// Now or later.
    MayBegin,
    End,
    GiveUp,
    /// One begins and ends.
    Whole,
}

enum Line {
    Entry(Entry),
    Event(Event),
}

impl Replay {
    /// Of no heap yet. Either there is one hand, or several; with one, cleanups may be `exact`.
    pub(super) fn new<M: Ground>(setup: Setup, alone: bool, exact: bool, in_slices: bool) -> Self {
        Replay {
            oracle: Oracle::new::<M>(exact, setup),
            setup,
            in_slices,
            single: alone,
            under_way: UnderWay::No,
            turn: Turn::Session,
            alone,
            exact,
            quiescent: true,
            room_is_known: alone,
            slots: [None; SLOTS],
            weaks: [None; WEAKS],
            stack: HashSet::new(),
            herd: Vec::new(),
            roots: BTreeMap::new(),
            islands: BTreeMap::new(),
            cycle: 0,
            due: 0,
            reports: BTreeMap::new(),
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

    /// A heap was made, in place of one that has gone. Its root has this number.
    pub(super) fn new_heap(&mut self, setup: Setup, root: Id, herd: Vec<(Id, usize)>) {
        assert_eq!(self.oracle.new_heap(setup), root, "the number of the root");
        self.setup = setup;
        self.slots = [None; SLOTS];
        self.weaks = [None; WEAKS];
        self.stack.clear();
        (self.cycle, self.due) = (0, 0);
        self.under_way = UnderWay::No;
        self.turn = Turn::Session;
        self.reports.clear();
        for &(id, address) in &herd {
            self.oracle.allocated(id, Kind::Node, address);
        }
        self.herd = herd.into_iter().map(|(id, _)| id).collect();
    }

    /// A cycle may begin from now on, and it will not be told.
    pub(super) fn may_begin(&mut self) {
        self.sync();
        self.oracle.begin_cycle(false, &[]);
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
        if self.alone {
            // No cycle that begins or runs at once from now on can have queued them.
            self.ended.extend(self.newly_ended.drain(..));
        }
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
        // A session may be open while a cycle ends. No other begins before that session's end.
        let most = if self.in_slices { cycles + 1 } else { cycles };
        assert!(most >= self.cycle, "{cycles} cycles were seen, after {} had been", self.cycle);
        let cycles = cycles.max(self.cycle);
        let moments = self.moments(cycles - self.cycle);
        if !moments.is_empty() {
            self.run_cycles(cycles, moments);
        }
        if self.drops.is_empty() && self.ran.is_empty() {
            return;
        }
        let drops = std::mem::take(&mut self.drops);
        self.sink_islands(&drops);
        self.sync();
        for (stamp, id) in drops {
            assert!(
                self.oracle.may_be_dead(id),
                "object {id} was dropped at {stamp}, while no cycle ran, \
                 or before one had begun that ended before {now}"
            );
            self.oracle.note(Event::Dropped(id));
        }
        if !self.quiescent {
            // A handle may have run one, and not have said so yet.
            return;
        }
        for number in std::mem::take(&mut self.ran) {
            let object = self.objects[&number];
            assert!(
                self.oracle.may_be_dead(object),
                "cleanup {number} ran before {now}, while object {object} lived"
            );
        }
    }

    /// What has happened since cycles were counted, given how many have ended since then.
    fn moments(&mut self, ended: u64) -> Vec<Moment> {
        use Moment::{Begin, End, GiveUp, MayBegin, Whole};
        let turn = std::mem::replace(&mut self.turn, Turn::Session);
        if !self.alone {
            let mut moments = Vec::new();
            for left in (0..ended).rev() {
                match (self.in_slices, turn) {
                    (true, Turn::Whole) if left == 0 => moments.push(Whole),
                    (true, _) => moments.push(End),
                    (false, _) => moments.push(Whole),
                }
                if self.in_slices {
                    moments.push(MayBegin);
                }
            }
            return moments;
        }
        use UnderWay::{No, Perhaps, Yes};
        let before = self.under_way;
        let older = u64::from(before != No);
        // What was due runs at once unless it is in slices, or goes on with one that is.
        let at_once = self.setup.zeal || self.setup.pause.is_none();
        let turn = if turn == Turn::Due && at_once { Turn::Whole } else { turn };
        let possible = match turn {
            Turn::Session => 0..=older,
            Turn::Step(finished) => u64::from(finished)..=u64::from(finished),
            Turn::Due | Turn::PerhapsWhole => 0..=1 + older,
            Turn::Whole => 1..=1 + older,
        };
        assert!(possible.contains(&ended), "{ended} cycles ended, and not {possible:?}: {turn:?}");
        // An end after which objects may be dead that are not known to be.
        let end = || if before == Perhaps { vec![End, MayBegin] } else { vec![End] };
        let (moments, after) = match (turn, before, ended) {
            (Turn::Session | Turn::PerhapsWhole, _, 0) => (vec![], before),
            (Turn::Session, _, _) => (end(), No),
            (Turn::Step(false) | Turn::Due, No, 0) => (vec![Begin], Yes),
            (Turn::Step(false) | Turn::Due, _, 0) => (vec![], before),
            (Turn::Step(_), No, _) => (vec![Whole], No),
            (Turn::Step(_), _, _) => (end(), No),
            (Turn::Due, No, _) => (vec![Whole], No),
            (Turn::Due, _, 1) => (vec![End, MayBegin], Perhaps),
            (Turn::PerhapsWhole, Yes | Perhaps, 1) => (vec![End, MayBegin], Perhaps),
            (Turn::Whole, Yes, 1) => (vec![GiveUp, Whole], No),
            (_, No | Perhaps, 1) => (vec![Whole], No),
            // Which of both cycles a keeper went in, is unknown, and so whether its root was there
            // when the second began.
            (_, Perhaps, _) if self.has_dropped_a_keeper() => {
                (vec![End, MayBegin, End, MayBegin], Perhaps)
            }
            (_, _, _) => (end().into_iter().chain([Whole]).collect(), No),
        };
        self.under_way = after;
        moments
    }

    fn has_dropped_a_keeper(&self) -> bool {
        self.drops.iter().any(|&(_, id)| self.oracle.keeps_a_root(id))
    }

    fn run_cycles(&mut self, cycles: u64, moments: Vec<Moment>) {
        let drops = std::mem::take(&mut self.drops);
        let lost = self.sink_islands(&drops);
        let mut drops = Some(drops);
        let mut expected = Vec::new();
        let last = moments.iter().rposition(|moment| matches!(moment, Moment::End | Moment::Whole));
        for (at, moment) in moments.into_iter().enumerate() {
            self.sync();
            match moment {
                Moment::Begin => self.oracle.begin_cycle(true, &self.newly_ended),
                Moment::MayBegin => self.oracle.begin_cycle(false, &self.newly_ended),
                Moment::GiveUp => self.oracle.give_up_cycle(),
                Moment::Whole => {
                    self.oracle.begin_cycle(true, &self.newly_ended);
                    expected.push(self.oracle.end_cycle(true));
                }
                Moment::End => {
                    // What ends a cycle was seen in slices before, or in this one.
                    if last == Some(at) {
                        self.note_drops(drops.take());
                    }
                    expected.push(self.oracle.end_cycle(false));
                }
            }
        }
        if last.is_none() {
            self.drops = drops.unwrap_or_default();
            return;
        }
        self.note_drops(drops);
        let first = self.cycle + 1;
        self.cycle = cycles;
        // Which of several cycles an island went in, is unknown.
        let known = expected.len() == 1 || !lost;
        for (cycle, expected) in (first..).zip(expected) {
            let known = known && (expected.whole || !self.in_slices);
            let Some(report) = self.reports.get(&cycle).filter(|_| known) else {
                self.oracle.was_not_reported(&expected);
                continue;
            };
            let newly = expected.newly();
            let not_in = |ended: &HashSet<Number>| {
                newly.iter().filter(|number| !ended.contains(number)).count() as u64
            };
            let (least, most) = (not_in(&self.ever_ended), not_in(&self.ended));
            let queued = report.queued_cleanups;
            assert!(
                !self.quiescent || !expected.whole || (least..=most).contains(&queued),
                "cycle {cycle} queued {queued} cleanups of {least} to {most}"
            );
            self.oracle.check_report(&expected, report);
        }
    }

    /// Takes note of drops. If there can be no others, of what they have ended.
    fn note_drops(&mut self, drops: Option<Vec<(Stamp, Id)>>) {
        drops.into_iter().flatten().for_each(|(_, id)| self.oracle.note(Event::Dropped(id)));
        if self.exact {
            self.oracle.settle();
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
        let islands = islands.values().map(|island| (heap, island.id));
        oracle.roots.extend(roots.values().copied().chain(islands));
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
        let bytes = self.oracle.least_bytes();
        assert!(self.setup.limit.is_none_or(|limit| bytes <= limit), "{bytes} bytes are in use");
    }

    fn field(&mut self, object: Id, field: Field) -> &mut Option<Id> {
        &mut self.oracle.object_mut(object).fields[field as usize]
    }

    fn deed(&mut self, stamp: Stamp, deed: &Deed) {
        match *deed {
            Deed::Alloc { id, kind, address } => {
                if self.oracle.at(address).is_some() {
                    self.sync();
                }
                self.oracle.allocated(id, kind, address);
                self.check_limit();
            }
            Deed::Refused { id, kind, used, external } => {
                if self.room_is_known {
                    let (bytes, room) = (self.oracle.bytes(), self.oracle.has_room(kind));
                    // A panic does not say how much is outside.
                    let has_outside = external != Some(0) && self.oracle.has_lists();
                    assert!(!room || has_outside, "refused below the limit, beside {bytes} bytes");
                    let used = used.unwrap_or(bytes);
                    let is_known = used == bytes || used < bytes && self.oracle.is_collecting();
                    assert!(is_known, "refused beside {used} bytes, and not {bytes}");
                }
                self.oracle.refused(id, kind);
            }
            Deed::Keep { keeper, object } => {
                let (keeper, object) = (self.id_of(keeper), self.id_of(object));
                self.oracle.keeps_rooted(keeper, object);
            }
            Deed::NoRecord { object } => {
                let object = self.id_of(object);
                self.sync();
                let refused = !self.room_is_known || !self.oracle.can_downgrade(object);
                let refused = refused || self.oracle.has_lists();
                assert!(refused, "a weak pointer was refused below the limit");
                self.oracle.record_refused();
            }
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
                self.sync();
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
                let found = found.map(|found| self.id_of(found));
                self.sync();
                self.oracle.upgraded(record, found);
            }
            Deed::StoreWeak { node, weak } => {
                let node = self.id_of(node);
                self.oracle.object_mut(node).weak = weak.and_then(|weak| self.weaks[weak]);
            }
            Deed::Register { object, number, act } => {
                let object = self.id_of(object);
                self.objects.insert(number, object);
                self.oracle.registered(number, object, act);
            }
            Deed::Root { root, object } => {
                let object = self.id_of(object);
                self.roots.insert(root, (self.oracle.heap(), object));
            }
            Deed::CloneRoot { root, of } => {
                self.roots.insert(root, self.roots[&of]);
            }
            Deed::Fetch { root, found } => {
                let known = self.roots[&root].1;
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
            Deed::Collect => {
                self.due += 1;
                if self.single {
                    self.turn = Turn::Whole;
                }
            }
            Deed::Step { finished } => {
                self.turn = Turn::Step(finished);
                self.sync();
            }
            Deed::Close { due: Some(due) } => {
                match self.oracle.due() {
                    Due::Yes => assert!(due, "a cycle was due at the end of a session"),
                    Due::No => assert!(!due, "no cycle was due at the end of a session"),
                    Due::Perhaps => {}
                }
                self.turn = if due { Turn::Due } else { Turn::Session };
                // What happens at the session's end is told from what happened in it.
                if self.exact {
                    self.oracle.settle();
                }
            }
            // What it did before the panic stays.
            Deed::Close { due: None } => {
                self.turn = match self.oracle.due_in_spite_of_a_panic() {
                    true if self.setup.pause.is_none() && self.under_way == UnderWay::No => {
                        Turn::Whole
                    }
                    true => Turn::PerhapsWhole,
                    false => Turn::Session,
                };
            }
        }
    }

    fn island(&mut self, root: RootNumber) -> &mut Island {
        self.islands.get_mut(&root).expect("it was made, and is kept")
    }

    // ---- comparisons
    // -------------------------------------------------------------------------------

    /// Compares every object and every pointer of a heap with the oracle's.
    pub(super) fn compare<'gc, M: Ground>(
        &self,
        mc: &Mutation<'gc, M>,
        world: &'gc World<'gc, M>,
        own: &[(RootNumber, HeapId, AnyRoot<M>)],
    ) {
        let mut work: Vec<(Id, Any<'gc, M>)> = Vec::new();
        for (slot, &expected) in world.slots.iter().zip(&self.slots) {
            let found = **slot.read(mc);
            assert_eq!(found.is_some(), expected.is_some(), "a slot");
            work.extend(expected.zip(found));
        }
        let nodes = std::iter::successors(world.stack.load(), |node| node.next.load());
        let before = work.len();
        for node in nodes.map(Any::Node) {
            let id = node.id().expect("nodes know their numbers");
            assert!(self.stack.contains(&id), "object {id} is on the stack, and should not be");
            work.push((id, node));
        }
        assert_eq!(work.len() - before, self.stack.len(), "the stack");
        let members = world.herd.read(mc);
        assert_eq!(members.len(), self.herd.len(), "the herd");
        work.extend(self.herd.iter().copied().zip(members.iter().map(|&node| Any::Node(node))));
        for (root, _, handle) in own.iter().filter(|(_, heap, _)| *heap == mc.heap_id()) {
            work.push((self.roots[root].1, handle.fetch(mc)));
        }
        let mut seen = HashSet::new();
        while let Some((id, object)) = work.pop() {
            let model = self.oracle.object(id);
            assert_eq!(object.address(), model.address, "the address of object {id}");
            if !seen.insert(id) {
                continue;
            }
            assert!(object.id().is_none_or(|own| own == id), "object {id} was overwritten");
            let (mut fields, mut weak, mut list) = ([None; 3], None, Vec::new());
            if let Some(edges) = object.edges() {
                let edges = edges.read(mc);
                fields[Field::Left as usize] = edges.left;
                weak = edges.weak;
            }
            if let Some(node) = object.node() {
                fields[Field::Next as usize] = node.next.load().map(Any::Node);
            }
            if let Some(branch) = object.branch() {
                fields[Field::Left as usize] = branch.once.get().copied();
                fields[Field::Mutex as usize] = *branch.mutex.lock(mc);
                list = branch.list.read(mc).to_vec();
            }
            for (field, (found, expected)) in fields.into_iter().zip(model.fields).enumerate() {
                if field == Field::Next as usize && self.stack.contains(&id) {
                    // Where they lie on the stack is not known.
                    continue;
                }
                assert_eq!(found.is_some(), expected.is_some(), "a field of object {id}");
                work.extend(expected.zip(found));
            }
            assert_eq!(list.len(), model.list.len(), "the list of object {id}");
            work.extend(model.list.iter().copied().zip(list));
            self.check_weak(mc, weak, model.weak, &format!("the weak field of object {id}"));
        }
        for (slot, &expected) in world.weaks.iter().zip(&self.weaks) {
            self.check_weak(mc, **slot.read(mc), expected, "a weak slot");
        }
    }

    /// Takes over what the oracle cannot know of cycles that ended in one operation.
    pub(super) fn adopt(&mut self, stats: &HeapStats) {
        if !(self.alone && self.oracle.is_collecting()) {
            self.oracle.adopt_queued(stats);
        }
    }

    /// Compares what handles and the pool say. Called when no cleanup is running.
    pub(super) fn check_cleanups(&self, common: &Common, pool: &CleanupPool) {
        for handle in &*common.handles.lock() {
            self.oracle.check_state(handle.number, handle.look());
        }
        self.oracle.check_pool(&pool.stats());
        if pool.max_workers() == 0 {
            let ran = common.pool_ran.load(SeqCst);
            assert_eq!(self.oracle.pool_runs, ran, "cleanups run by `run_pending`");
        }
    }

    /// Compares a weak pointer, and what it upgrades to.
    fn check_weak<'gc, M: Ground>(
        &self,
        mc: &Mutation<'gc, M>,
        found: Option<AnyWeak<'gc, M>>,
        expected: Option<RecordNumber>,
        what: &str,
    ) {
        assert_eq!(found.is_some(), expected.is_some(), "{what}");
        let Some((weak, record)) = found.zip(expected) else { return };
        let upgraded = weak.upgrade(mc);
        let target = self.oracle.target(record);
        if upgraded.is_none() && target.is_some_and(|target| self.oracle.may_be_dead(target)) {
            return;
        }
        let address = target.map(|id| self.oracle.object(id).address);
        let found = upgraded;
        assert_eq!(found.map(Any::address), address, "{what} upgrades to {target:?}");
        if let Some((object, id)) = found.zip(target) {
            assert!(object.id().is_none_or(|own| own == id), "object {id} was overwritten");
        }
    }
}

/// What was replayed last, as far as a failure tells of it.
const LINES: usize = 40;
