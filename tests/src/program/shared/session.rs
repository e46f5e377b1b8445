//! A session that writes down what is done in it, and holds locks until it has.
//!
//! Invariant: locks are taken in one order (slots by their number, weak slots by theirs, then one
//! object's), and all are released when what was done under them has been written down.

use std::sync::Arc;

use sexton::{
    GcMutex, GcMutexGuard, GcRwLock, GcRwLockReadGuard, GcRwLockWriteGuard, Mutation, Mutator,
    Shared,
};

use super::common::{Common, SharedHeap};
use super::journal::{Deed, Entry, Journal};
use super::ops::Step;
use super::payload::{self, Any, AnyWeak, Edges, Kind, SLOTS, WEAKS, World};
use crate::program::ledger::Id;
use crate::program::oracle::ObjectKind;

pub(super) struct Session<'s, 'gc> {
    pub(super) mc: &'s Mutation<'gc, Shared>,
    pub(super) world: &'gc World<'gc>,
    pub(super) common: &'s Arc<Common>,
    journal: &'s mut Journal,
    lull: u8,
    /// Cycles that were completed when it was opened.
    cycle: u64,
    /// What was done since that was last written down.
    pub(super) deeds: Vec<Deed>,
    held: Held<'gc>,
}

/// Locks of the root, and of one object.
#[derive(Default)]
struct Held<'gc> {
    slots: [Option<GcMutexGuard<'gc, Option<Any<'gc>>>>; SLOTS],
    weaks: [Option<GcRwLockWriteGuard<'gc, Option<AnyWeak<'gc>>>>; WEAKS],
    weak: Option<GcRwLockReadGuard<'gc, Option<AnyWeak<'gc>>>>,
    edges: Option<GcMutexGuard<'gc, Edges<'gc>>>,
    list: Option<GcRwLockWriteGuard<'gc, Vec<Any<'gc>>>>,
    read_list: Option<GcRwLockReadGuard<'gc, Vec<Any<'gc>>>>,
}

/// Opens a session, in which `f` does something. At least `least` cycles have been completed by
/// then. The answer is how many have.
pub(super) fn within(
    mutator: &mut Mutator<'_, World<'static>>,
    heap: &SharedHeap,
    common: &Arc<Common>,
    journal: &mut Journal,
    lull: u8,
    least: u64,
    f: impl for<'s, 'gc> FnOnce(&mut Session<'s, 'gc>),
) -> u64 {
    mutator.mutate(|mc, world| {
        let cycle = journal.note(heap.last_report());
        assert!(
            cycle >= least,
            "cycle {least} should have run before this session, not only {cycle}"
        );
        let deeds = Vec::new();
        let held = Held::default();
        let mut s = Session { mc, world, common, journal, lull, cycle, deeds, held };
        s.lull(Step::OPENED);
        f(&mut s);
        assert!(s.deeds.is_empty(), "{:?} is not written down", s.deeds);
        s.lull(Step::CLOSING);
        let now = journal.note(heap.last_report());
        assert_eq!(now, cycle, "cycles completed at the end of a session, and at its beginning");
        cycle
    })
}

impl<'gc> Session<'_, 'gc> {
    /// Lets others go first, if the step says so.
    fn lull(&self, moment: u8) {
        if self.lull & moment != 0 {
            std::thread::yield_now();
        }
    }

    /// Writes down what was done, and releases all locks.
    pub(super) fn log(&mut self) {
        self.lull(Step::HOLDING);
        let deeds = std::mem::take(&mut self.deeds);
        let Journal { by, entries, .. } = &mut *self.journal;
        let stamp = self.common.ledger.stamp();
        entries.push(Entry { stamp, by: *by, cycle: Some(self.cycle), deeds });
        self.held = Held::default();
    }

    // ---- slots
    // -------------------------------------------------------------------------------------

    /// What is in a slot, for a moment.
    fn peek(&self, slot: usize) -> Option<Any<'gc>> {
        *self.world.slots[slot].lock(self.mc)
    }

    /// An object of the slots, from one on, of which something holds. Called while no slot is
    /// locked.
    pub(super) fn find(&self, from: u8, holds: impl Fn(Any<'gc>) -> bool) -> Option<Any<'gc>> {
        let slots = (0..SLOTS).map(|step| (usize::from(from) + step) % SLOTS);
        slots.filter_map(|slot| self.peek(slot)).find(|&object| holds(object))
    }

    pub(super) fn lock_slots(&mut self, mut slots: Vec<usize>) {
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            self.held.slots[slot] = Some(self.world.slots[slot].lock(self.mc));
        }
    }

    fn slot(&mut self, slot: usize) -> &mut Option<Any<'gc>> {
        self.held.slots[slot].as_mut().expect("it is locked")
    }

    /// What is in a locked slot.
    pub(super) fn content(&mut self, slot: usize) -> Option<Any<'gc>> {
        *self.slot(slot)
    }

    /// Replaces what is in a locked slot.
    pub(super) fn place(&mut self, slot: usize, now: Option<Any<'gc>>) {
        let was = std::mem::replace(self.slot(slot), now);
        let (was, now) = (was.map(Into::into), now.map(Into::into));
        self.deeds.push(Deed::Place { slot, was, now });
    }

    // ---- objects' locks
    // ----------------------------------------------------------------------------

    pub(super) fn lock_edges(&mut self, edges: &'gc GcMutex<Edges<'gc>>) -> &mut Edges<'gc> {
        let mc = self.mc;
        self.held.edges.insert(edges.lock(mc))
    }

    pub(super) fn lock_list(&mut self, list: &'gc GcRwLock<Vec<Any<'gc>>>) -> &mut Vec<Any<'gc>> {
        let mc = self.mc;
        self.held.list.insert(list.write(mc))
    }

    pub(super) fn read_list(&mut self, list: &'gc GcRwLock<Vec<Any<'gc>>>) -> &[Any<'gc>] {
        let mc = self.mc;
        self.held.read_list.insert(list.read(mc))
    }

    // ---- weak slots
    // --------------------------------------------------------------------------------

    pub(super) fn lock_weaks(&mut self, mut weaks: Vec<usize>) {
        weaks.sort_unstable();
        weaks.dedup();
        for weak in weaks {
            self.held.weaks[weak] = Some(self.world.weaks[weak].write(self.mc));
        }
    }

    /// What is in a locked weak slot.
    pub(super) fn weak(&mut self, weak: usize) -> &mut Option<AnyWeak<'gc>> {
        self.held.weaks[weak].as_mut().expect("it is locked")
    }

    /// What is in a weak slot, which is then locked for reading.
    pub(super) fn read_weak(&mut self, weak: usize) -> Option<AnyWeak<'gc>> {
        **self.held.weak.insert(self.world.weaks[weak].read(self.mc))
    }

    // ---- allocation
    // --------------------------------------------------------------------------------

    /// Puts an object into the heap; if it is fallible and there is no room, there is none.
    pub(super) fn alloc(&mut self, kind: Kind, fallible: bool) -> Option<Any<'gc>> {
        let limited = self.common.setup.limit.is_some();
        let kind = if limited { kind.without_bomb() } else { kind };
        let id = self.common.next_id();
        self.journal.asked = Some((id, kind));
        let made = payload::alloc(self.mc, kind, id, &self.common.ledger, fallible);
        self.journal.asked = None;
        match made {
            Ok(object) => {
                self.deeds.push(Deed::Alloc { id, kind, address: object.address() });
                Some(object)
            }
            Err(refusal) => {
                self.refused(id, kind, refusal);
                None
            }
        }
    }

    pub(super) fn refused(&mut self, id: Id, kind: Kind, refusal: payload::Refusal) {
        let limit = self.common.setup.limit;
        assert_eq!((refusal.requested, Some(refusal.max)), (kind.bytes(), limit), "{refusal:?}");
        assert!(refusal.used <= refusal.max, "{refusal:?}");
        self.deeds.push(Deed::Refused { id, kind });
    }

    /// Puts a new node onto the stack.
    pub(super) fn push_node(&mut self) {
        let Some(object) = self.alloc(Kind::Node, true) else { return };
        self.deeds.push(Deed::Push { node: object.into() });
        // Before others can have it.
        self.log();
        let node = object.node().expect("it was made as one");
        let mut head = self.world.stack.load();
        loop {
            node.next.store(self.mc, head);
            match self.world.stack.compare_exchange(self.mc, head, Some(node)) {
                Ok(_) => break,
                Err(other) => head = other,
            }
        }
    }
}
