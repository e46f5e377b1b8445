//! A session that writes down what is done in it, and holds locks until it has.
//!
//! Invariant: locks are taken in one order (slots by their number, weak slots by theirs, then one
//! object's), and all are released when what was done under them has been written down.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use sexton::{GcReport, Mutation, Progress, VerifyError};

use super::cleanups::{Handle, Plan};
use super::common::Common;
use super::journal::{Deed, Journal};
use super::ops::{Setup, Step};
use super::payload::{Any, AnyWeak, Branch, Edges, Kind, SLOTS, Seed, WEAKS, World};
use super::place::{Ground, Place, Read, Write};
use super::tally::message;

/// A way into a heap: the heap itself, or one of its mutators.
pub(super) trait Door {
    type Mode: Ground;

    /// Opens a session. What it is given last tells of the last cycle.
    fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(
            &Mutation<'gc, Self::Mode>,
            &'gc World<'gc, Self::Mode>,
            &dyn Fn() -> Option<GcReport>,
        ) -> T,
    ) -> T;
    fn collect(&mut self) -> GcReport;
    fn step(&mut self, budget: Duration) -> Progress;
    fn verify(&mut self) -> Result<(), VerifyError>;
}

/// What one thread writes with, and what it has to know for that.
pub(super) struct Scribe {
    pub(super) common: Arc<Common>,
    pub(super) journal: Journal,
    pub(super) setup: Setup,
    /// Whether no other mutator can come to the heap.
    pub(super) alone: bool,
    pub(super) lull: u8,
    /// The cycles that must have been completed when a session is opened.
    pub(super) least: u64,
    /// Entries that tell of an effect.
    pub(super) effects: usize,
}

pub(super) struct Session<'s, 'gc, M: Ground> {
    pub(super) mc: &'s Mutation<'gc, M>,
    pub(super) world: &'gc World<'gc, M>,
    pub(super) common: &'s Arc<Common>,
    scribe: &'s mut Scribe,
    /// Cycles that were completed when it was opened.
    cycle: u64,
    /// What was done since that was last written down.
    pub(super) deeds: Vec<Deed>,
    held: Held<'s, 'gc, M>,
}

/// Locks of the root, and of one object.
struct Held<'s, 'gc, M: Ground> {
    slots: [Option<Write<'s, Option<Any<'gc, M>>>>; SLOTS],
    weaks: [Option<Write<'s, Option<AnyWeak<'gc, M>>>>; WEAKS],
    weak: Option<Read<'s, Option<AnyWeak<'gc, M>>>>,
    edges: Option<Write<'s, Edges<'gc, M>>>,
    mutex: Option<Write<'s, Option<Any<'gc, M>>>>,
    list: Option<Write<'s, Vec<Any<'gc, M>>>>,
    read_list: Option<Read<'s, Vec<Any<'gc, M>>>>,
}

impl Scribe {
    pub(super) fn new(common: &Arc<Common>, setup: Setup, alone: bool) -> Self {
        let (common, journal) = (common.clone(), Journal::default());
        Scribe { common, journal, setup, alone, lull: 0, least: 0, effects: 0 }
    }

    /// Writes down what was done outside of a session.
    pub(super) fn write(&mut self, deed: Deed) -> bool {
        self.effects += 1;
        self.journal.write(self.common.ledger.stamp(), None, vec![deed]);
        true
    }

    /// Hands in what was written.
    pub(super) fn hand_in(&mut self) {
        let by = self.journal.by;
        let journal = std::mem::replace(&mut self.journal, Journal { by, ..Journal::default() });
        self.common.journals.lock().push(journal);
    }

    /// Opens a session, in which `f` does something. Whether anything was written down. The session
    /// may end by a panic of which `expected` holds, given what it said.
    pub(super) fn session<D: Door>(
        &mut self,
        door: &mut D,
        expected: impl FnOnce(&str) -> bool,
        f: impl for<'s, 'gc> FnOnce(&mut Session<'s, 'gc, D::Mode>),
    ) -> bool {
        let before = self.effects;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            door.mutate(|mc, world, report| {
                let cycle = self.journal.note(report());
                let least = self.least;
                assert!(
                    cycle >= least,
                    "cycle {least} should have run before this session, not only {cycle}"
                );
                let common = &self.common.clone();
                let (deeds, held) = (Vec::new(), Held::default());
                let mut s = Session { mc, world, common, scribe: self, cycle, deeds, held };
                s.lull(Step::OPENED);
                f(&mut s);
                assert!(s.deeds.is_empty(), "{:?} is not written down", s.deeds);
                s.lull(Step::CLOSING);
                let Session { scribe, .. } = s;
                if scribe.alone {
                    let close = Deed::Close { due: Some(mc.collection_due()) };
                    let stamp = scribe.common.ledger.stamp();
                    scribe.journal.write(stamp, Some(cycle), vec![close]);
                }
                let now = scribe.journal.note(report());
                // One that has begun before may end within the session, and no other begins.
                assert!((cycle..=cycle + 1).contains(&now), "{cycle} cycles, and then {now}");
                cycle
            })
        }));
        match ended {
            // In zeal mode it has not ended without a cycle, or another thread's slice of one.
            Ok(cycle) => {
                let collects = self.setup.zeal && !self.common.others_step;
                self.least = cycle + u64::from(collects);
            }
            Err(payload) => {
                let text = message(&*payload);
                let full = self.setup.limit.is_some() && text.contains(" is full: ");
                if !full && !expected(text) {
                    std::panic::resume_unwind(payload);
                }
                if let Some(asked) = self.journal.asked.take() {
                    self.write(asked);
                }
                if self.alone {
                    let stamp = self.common.ledger.stamp();
                    self.journal.write(stamp, None, vec![Deed::Close { due: None }]);
                }
            }
        }
        self.effects > before
    }
}

impl<M: Ground> Default for Held<'_, '_, M> {
    fn default() -> Self {
        Held {
            slots: Default::default(),
            weaks: Default::default(),
            weak: None,
            edges: None,
            mutex: None,
            list: None,
            read_list: None,
        }
    }
}

impl<'s, 'gc, M: Ground> Session<'s, 'gc, M> {
    /// Lets others go first, if the step says so.
    fn lull(&self, moment: u8) {
        if self.scribe.lull & moment != 0 {
            std::thread::yield_now();
        }
    }

    /// Writes down what was done, and releases all locks.
    pub(super) fn log(&mut self) {
        self.lull(Step::HOLDING);
        let deeds = std::mem::take(&mut self.deeds);
        self.scribe.effects += 1;
        self.scribe.journal.write(self.common.ledger.stamp(), Some(self.cycle), deeds);
        self.held = Held::default();
    }

    // ---- slots
    // -------------------------------------------------------------------------------------

    /// What is in a slot, for a moment.
    fn peek(&self, slot: usize) -> Option<Any<'gc, M>> {
        **self.world.slots[slot].read(self.mc)
    }

    /// An object of the slots, from one on, of which something holds. Called while no slot is
    /// locked.
    pub(super) fn find(
        &self,
        from: u8,
        holds: impl Fn(Any<'gc, M>) -> bool,
    ) -> Option<Any<'gc, M>> {
        let slots = (0..SLOTS).map(|step| (usize::from(from) + step) % SLOTS);
        slots.filter_map(|slot| self.peek(slot)).find(|&object| holds(object))
    }

    pub(super) fn lock_slots(&mut self, mut slots: Vec<usize>) {
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            self.held.slots[slot] = Some(self.world.slots[slot].write(self.mc));
        }
    }

    fn slot(&mut self, slot: usize) -> &mut Option<Any<'gc, M>> {
        self.held.slots[slot].as_mut().expect("it is locked")
    }

    /// What is in a locked slot.
    pub(super) fn content(&mut self, slot: usize) -> Option<Any<'gc, M>> {
        *self.slot(slot)
    }

    /// Replaces what is in a locked slot.
    pub(super) fn place(&mut self, slot: usize, now: Option<Any<'gc, M>>) {
        let was = std::mem::replace(self.slot(slot), now);
        let (was, now) = (was.map(Into::into), now.map(Into::into));
        self.deeds.push(Deed::Place { slot, was, now });
    }

    // ---- objects' locks
    // ----------------------------------------------------------------------------

    pub(super) fn lock_edges(
        &mut self,
        edges: &'gc M::Cell<'gc, Edges<'gc, M>>,
    ) -> &mut Edges<'gc, M> {
        let mc = self.mc;
        self.held.edges.insert(edges.write(mc))
    }

    /// What a branch's mutex holds.
    pub(super) fn lock_mutex(&mut self, branch: &'gc Branch<'gc, M>) -> &mut Option<Any<'gc, M>> {
        let mc = self.mc;
        self.held.mutex.insert(branch.mutex.write(mc))
    }

    pub(super) fn lock_list(&mut self, branch: &'gc Branch<'gc, M>) -> &mut Vec<Any<'gc, M>> {
        let mc = self.mc;
        self.held.list.insert(branch.list.write(mc))
    }

    pub(super) fn read_list(&mut self, branch: &'gc Branch<'gc, M>) -> &[Any<'gc, M>] {
        let mc = self.mc;
        self.held.read_list.insert(branch.list.read(mc))
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
    pub(super) fn weak(&mut self, weak: usize) -> &mut Option<AnyWeak<'gc, M>> {
        self.held.weaks[weak].as_mut().expect("it is locked")
    }

    /// What is in a weak slot, which is then locked for reading.
    pub(super) fn read_weak(&mut self, weak: usize) -> Option<AnyWeak<'gc, M>> {
        ***self.held.weak.insert(self.world.weaks[weak].read(self.mc))
    }

    // ---- allocation
    // --------------------------------------------------------------------------------

    /// Puts an object into the heap; if it is fallible and there is no room, there is none.
    pub(super) fn alloc(&mut self, kind: Kind, fallible: bool) -> Option<Any<'gc, M>> {
        self.grow(Seed::Alone(kind), fallible)
    }

    /// Likewise, of one that may need company.
    pub(super) fn grow(&mut self, seed: Seed<M>, fallible: bool) -> Option<Any<'gc, M>> {
        let (id, kind) = (self.common.next_id(), seed.kind());
        self.scribe.journal.asked = Some(Deed::Refused { id, kind, used: None, external: None });
        let made = M::alloc(self.mc, seed, id, &self.common.ledger, fallible);
        self.scribe.journal.asked = None;
        match made {
            Ok(object) => {
                self.deeds.push(Deed::Alloc { id, kind, address: object.address() });
                Some(object)
            }
            Err(refusal) => {
                let limit = self.scribe.setup.limit;
                let told = (refusal.requested, Some(refusal.max));
                assert_eq!(told, (kind.bytes::<M>(), limit), "{refusal:?}");
                // What lies outside may grow beyond the limit by itself.
                let (used, external) = (refusal.used - refusal.external, refusal.external);
                assert!(used <= refusal.max, "{refusal:?}");
                let (used, external) = (Some(used), Some(external));
                self.deeds.push(Deed::Refused { id, kind, used, external });
                None
            }
        }
    }

    /// A weak pointer to an object; finds no room, perhaps.
    pub(super) fn downgrade(&mut self, object: Any<'gc, M>) -> AnyWeak<'gc, M> {
        self.scribe.journal.asked = Some(Deed::NoRecord { object: object.into() });
        let weak = object.downgrade(self.mc);
        self.scribe.journal.asked = None;
        weak
    }

    /// Registers a cleanup; to be written down before any other thread has the handle.
    pub(super) fn register(&mut self, object: Any<'gc, M>, plan: Plan) -> Handle {
        let (number, act) = (plan.capture.number, plan.act());
        let handle = plan.register((self.mc, object));
        self.deeds.push(Deed::Register { object: object.into(), number, act });
        handle
    }

    /// A plan for a cleanup that does nothing else.
    pub(super) fn plain(&self) -> Plan {
        Plan::plain(self.common.next_number(), &self.common.ledger)
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
