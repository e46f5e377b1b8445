//! A hand: one mutator's thread, which does its share of a program's operations.
//!
//! Invariant: whatever it does that others, or the collector, could notice, it writes down.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sexton::{Gc, Leaf, Mutator, WaitError};

use super::common::{Common, SharedHeap, SharedRoots};
use super::journal::{Deed, Field, Journal, RootNumber};
use super::ops::{Op, Step};
use super::payload::{Any, AnyRoot, Kind, SLOTS, Stopper, WEAKS, World, put};
use super::session::{self, Session};
use crate::program::cleanups::{Handle, Plan};
use crate::program::ledger::{Action, Bomb, How, Probe, attempt, throw};
use crate::program::ops::{Act, PoolKind};
use crate::program::setup::LONG;
use crate::program::tally::{Tally, message, modulo};

pub(super) struct Hand<'r, 'h> {
    heap: &'h SharedHeap,
    common: &'r Arc<Common>,
    shared: &'r SharedRoots<'h>,
    kind: PoolKind,
    /// `None` while it is detached.
    mutator: Option<Mutator<'h, World<'static>>>,
    roots: Vec<(RootNumber, AnyRoot)>,
    journal: Journal,
    lull: u8,
    /// The cycles that must have been completed when it opens a session.
    least: u64,
    pub(super) tally: Tally<Op>,
}

/// The objects of a crowd. They are a span each, and enough of them for two sweepers.
const CROWD: usize = 40;

impl<'r, 'h> Hand<'r, 'h> {
    pub(super) fn new(
        heap: &'h SharedHeap,
        common: &'r Arc<Common>,
        shared: &'r SharedRoots<'h>,
        kind: PoolKind,
    ) -> Self {
        Hand {
            heap,
            common,
            shared,
            kind,
            mutator: None,
            roots: Vec::new(),
            journal: Journal::default(),
            lull: 0,
            least: 0,
            tally: Tally::default(),
        }
    }

    /// Does the steps, until one fails, here or elsewhere. What it has written down is there for
    /// the replay then.
    pub(super) fn play<'p>(
        &mut self,
        number: usize,
        steps: impl Iterator<Item = (usize, &'p Step)>,
    ) {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            self.mutator();
            for (at, step) in steps {
                if self.common.has_failed() {
                    return;
                }
                self.journal.by = (number, at);
                self.lull = step.lull;
                if step.lull & Step::BEFORE != 0 {
                    std::thread::yield_now();
                }
                let result = catch_unwind(AssertUnwindSafe(|| self.step(&step.op)));
                match result {
                    Ok(true) => self.tally.count(&step.op),
                    Ok(false) => {}
                    Err(payload) => {
                        let message = message(&*payload);
                        self.common.fail(format!("step {at}, {:?}: {message}", step.op));
                    }
                }
            }
            self.leave();
        }));
        if let Err(payload) = ended {
            self.common.fail(format!("mutator {number}: {}", message(&*payload)));
        }
        self.common.journals.lock().push(std::mem::take(&mut self.journal));
    }

    /// Drops the roots that no other thread has, and detaches.
    fn leave(&mut self) {
        if !self.common.has_failed() {
            let roots = std::mem::take(&mut self.roots);
            self.session(|s| {
                for (root, handle) in roots {
                    drop(handle);
                    s.deeds.push(Deed::Unroot { root });
                }
                s.log();
            });
        }
        self.mutator = None;
    }

    fn mutator(&mut self) -> &mut Mutator<'h, World<'static>> {
        self.mutator.get_or_insert_with(|| self.heap.attach())
    }

    /// Opens a session. Whether anything was written down.
    fn session(&mut self, f: impl for<'s, 'gc> FnOnce(&mut Session<'s, 'gc>)) -> bool {
        let before = self.journal.entries.len();
        let Hand { heap, common, mutator, journal, lull, least, .. } = self;
        let mutator = mutator.get_or_insert_with(|| heap.attach());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            session::within(mutator, heap, common, journal, *lull, *least, f)
        }));
        match ended {
            // In zeal mode it has not ended without a cycle.
            Ok(cycle) => *least = cycle + u64::from(common.setup.zeal),
            Err(payload) => {
                let text = message(&*payload);
                let full = common.setup.limit.is_some() && text.contains(" is full: ");
                if text != ON_PURPOSE && !full {
                    resume_unwind(payload);
                }
                if let Some((id, kind)) = journal.asked.take() {
                    journal.write(common.ledger.stamp(), vec![Deed::Refused { id, kind }]);
                }
            }
        }
        self.journal.entries.len() > before
    }

    /// Does one operation; whether it had any effect.
    fn step(&mut self, op: &Op) -> bool {
        let (heap, SharedRoots { linked, islands }) = (self.heap, self.shared);
        match *op {
            Op::Alloc { kind, slot, keep, fallible } => self.session(|s| {
                let made = s.alloc(kind, fallible);
                keep_in(s, slot, made.filter(|_| keep));
                s.log();
            }),
            Op::AllocMany { kind, slot, count, cleanups } => {
                self.alloc_many(kind, slot, usize::from(count), cleanups, true)
            }
            Op::Burst { count } => self.burst(count),
            Op::Crowd { slot, keep, cleanups } => {
                self.alloc_many(Kind::Large, slot, CROWD, cleanups, keep)
            }
            Op::Fill { kind } => {
                self.common.setup.limit.is_some()
                    && self.session(|s| {
                        let _full = (0..40).all(|_| s.alloc(kind, true).is_some());
                        s.log();
                    })
            }
            Op::AllocStopper { cleanup, run, slot } => self.alloc_stopper(cleanup, run, slot),
            Op::Link { from, to, field } => self.session(|s| link(s, from, Some(to), field)),
            Op::Unlink { from, field } => self.session(|s| link(s, from, None, field)),
            Op::Follow { from, field, slot } => self.session(|s| follow(s, from, field, slot)),
            Op::Exchange { one, other } => self.session(|s| {
                let (one, other) = (slot(one), slot(other));
                s.lock_slots(vec![one, other]);
                let contents = (s.content(one), s.content(other));
                s.place(one, contents.1);
                if one != other {
                    s.place(other, contents.0);
                }
                s.log();
            }),
            Op::Copy { from, to } => self.session(|s| {
                let (from, to) = (slot(from), slot(to));
                s.lock_slots(vec![from, to]);
                let content = s.content(from);
                // What was read is compared, too.
                s.place(from, content);
                s.place(to, content);
                s.log();
            }),
            Op::Clear { slot: at } => self.session(|s| {
                s.lock_slots(vec![slot(at)]);
                if s.content(slot(at)).is_some() {
                    s.place(slot(at), None);
                    s.log();
                }
            }),
            Op::ClearAll => self.session(|s| {
                s.lock_slots((0..SLOTS).collect());
                (0..SLOTS).for_each(|slot| s.place(slot, None));
                s.log();
            }),
            Op::Push => self.session(|s| {
                s.push_node();
                s.log();
            }),
            Op::Pop { slot } => self.session(|s| pop(s, slot)),
            Op::TakeAll { slot } => self.session(|s| take_all(s, slot)),
            Op::Graft { member, object } => self.session(|s| {
                let herd = s.world.herd.read(s.mc);
                let member = modulo(member, herd.len()).map(|at| herd[at * 151 % herd.len()]);
                drop(herd);
                let Some((member, object)) = member.zip(s.find(object, |_| true)) else { return };
                let edges = s.lock_edges(&Gc::as_ref(member).edges);
                let was = edges.left.replace(object).map(Into::into);
                let (from, now) = (Any::Node(member).into(), Some(object.into()));
                s.deeds.push(Deed::Link { from, field: Field::Left, was, now });
                s.log();
            }),
            Op::Disband { sure } => self.session(|s| {
                let mut herd = s.world.herd.write(s.mc);
                if sure && !herd.is_empty() {
                    s.deeds.push(Deed::Disband { members: herd.len() });
                    herd.clear();
                    s.log();
                }
            }),
            Op::Downgrade { object, weak, other } => self.session(|s| {
                let Some(object) = s.find(object, |_| true) else { return };
                // Finds no room, perhaps.
                let pointer = object.downgrade(s.mc);
                let (weak, other) = (weak_slot(weak), weak_slot(other));
                s.lock_weaks(vec![weak, other]);
                let same = s.weak(other).is_some_and(|other| other.is(pointer));
                *s.weak(weak) = Some(pointer);
                s.deeds.push(Deed::Downgrade { object: object.into(), weak, other, same });
                s.log();
            }),
            Op::DropWeak { weak } => self.session(|s| {
                let weak = weak_slot(weak);
                s.lock_weaks(vec![weak]);
                let was = s.weak(weak).take().is_some();
                s.deeds.push(Deed::DropWeak { weak, was });
                s.log();
            }),
            Op::CopyWeak { from, to } => self.session(|s| {
                let (from, to) = (weak_slot(from), weak_slot(to));
                s.lock_weaks(vec![from, to]);
                *s.weak(to) = *s.weak(from);
                s.deeds.push(Deed::CopyWeak { from, to });
                s.log();
            }),
            Op::Upgrade { weak, slot: at } => self.session(|s| {
                s.lock_slots(vec![slot(at)]);
                let weak = weak_slot(weak);
                let Some(pointer) = s.read_weak(weak) else { return };
                let found = pointer.upgrade(s.mc);
                s.deeds.push(Deed::Upgrade { weak, found: found.map(Into::into) });
                if found.is_some() {
                    s.place(slot(at), found);
                }
                s.log();
            }),
            Op::StoreWeak { object, weak, clear } => self.session(|s| {
                let Some(object) = s.find(object, |object| object.edges().is_some()) else {
                    return;
                };
                let weak = weak_slot(weak);
                s.lock_weaks(vec![weak]);
                let pointer = if clear { None } else { *s.weak(weak) };
                s.lock_edges(object.edges().expect("it was chosen for them")).weak = pointer;
                let weak = (!clear).then_some(weak);
                s.deeds.push(Deed::StoreWeak { node: object.into(), weak });
                s.log();
            }),
            Op::AddCleanup { object, act, target, large } => {
                self.register(object, 1, |common, _| plan(common, act, target, large))
            }
            Op::AddMany { object, count } => {
                self.register(object, count, |common, n| plan(common, Act::Nothing, 0, n % 2 == 0))
            }
            Op::Churn { object, rounds } => self.churn(object, usize::from(rounds)),
            Op::Stop { cleanup, in_session } => self.end(How::Stop, cleanup, in_session),
            Op::RunNow { cleanup, in_session } => self.end(How::RunNow, cleanup, in_session),
            Op::State { cleanup } => match self.common.handle(cleanup) {
                Some(handle) => {
                    handle.look();
                    true
                }
                None => false,
            },
            Op::DropHandle { cleanup } => {
                let mut handles = self.common.handles.lock();
                let Some(at) = modulo(cleanup, handles.len()) else { return false };
                let handle = handles.swap_remove(at);
                drop(handles);
                drop(handle);
                true
            }
            Op::Root { object } => {
                let mut roots = std::mem::take(&mut self.roots);
                let effective = self.session(|s| {
                    let Some(object) = s.find(object, |_| true) else { return };
                    let root = s.common.next_root();
                    roots.push((root, object.root(s.mc)));
                    s.deeds.push(Deed::Root { root, object: object.into() });
                    s.log();
                });
                self.roots = roots;
                effective
            }
            Op::CloneRoot { root } => {
                let Some(at) = modulo(root, self.roots.len()) else { return false };
                let (of, root) = (self.roots[at].0, self.common.next_root());
                self.roots.push((root, self.roots[at].1.clone()));
                self.write(Deed::CloneRoot { root, of })
            }
            Op::Unroot { root } => {
                let Some(at) = modulo(root, self.roots.len()) else { return false };
                let (root, handle) = self.roots.swap_remove(at);
                self.session(|s| {
                    drop(handle);
                    s.deeds.push(Deed::Unroot { root });
                    s.log();
                })
            }
            Op::Fetch { root, slot: at } => {
                let Some(root) = modulo(root, self.roots.len()) else { return false };
                let (root, handle) = self.roots[root].clone();
                self.session(|s| {
                    let object = handle.fetch(s.mc);
                    // Before a cycle finds it.
                    drop(handle);
                    s.lock_slots(vec![slot(at)]);
                    s.deeds.push(Deed::Fetch { root, found: object.into() });
                    s.place(slot(at), Some(object));
                    s.log();
                })
            }
            Op::Share { object } => self.session(|s| {
                let Some(object) = s.find(object, |_| true) else { return };
                let (root, handle) = (s.common.next_root(), object.share(s.mc, heap));
                let mut shared = linked.lock();
                shared.push((root, handle));
                s.deeds.push(Deed::Root { root, object: object.into() });
                s.log();
            }),
            Op::CloneShared { root } => {
                let mut shared = linked.lock();
                let Some(at) = modulo(root, shared.len()) else { return false };
                let (of, root) = (shared[at].0, self.common.next_root());
                let clone = shared[at].1.clone();
                shared.push((root, clone));
                self.write(Deed::CloneRoot { root, of })
            }
            Op::Unshare { root } => self.session(|s| {
                let mut shared = linked.lock();
                let Some(at) = modulo(root, shared.len()) else { return };
                let (root, handle) = shared.swap_remove(at);
                drop(handle);
                s.deeds.push(Deed::Unroot { root });
                s.log();
            }),
            Op::FetchShared { root, slot: at } => self.session(|s| {
                let shared = linked.lock();
                let Some(root) = modulo(root, shared.len()) else { return };
                let object = shared[root].1.fetch(s.mc);
                s.lock_slots(vec![slot(at)]);
                s.deeds.push(Deed::Fetch { root: shared[root].0, found: object.into() });
                s.place(slot(at), Some(object));
                s.log();
            }),
            Op::Island { cleanup } => self.island(cleanup),
            Op::Sink { island } => {
                let mut islands = islands.lock();
                let Some(at) = modulo(island, islands.len()) else { return false };
                let (root, handle) = islands.swap_remove(at);
                drop(islands);
                self.write(Deed::Sinking { root });
                drop(handle);
                self.write(Deed::Sunk { root })
            }
            Op::Collect => {
                let report = self.mutator().collect();
                self.common.collects.fetch_add(1, SeqCst);
                assert!(report.cycle > self.least.saturating_sub(1), "{report:?}");
                self.least = self.journal.note(Some(report));
                true
            }
            Op::Verify => {
                self.mutator().verify().unwrap_or_else(|error| panic!("{error}"));
                true
            }
            Op::RunPending { max } => {
                let ran = self.common.pool.run_pending(usize::from(max));
                assert!(ran <= usize::from(max));
                self.common.pool_ran.fetch_add(ran as u64, SeqCst);
                ran > 0
            }
            Op::Wait => {
                let manual = self.kind == PoolKind::Manual;
                let timeout = if manual { Duration::ZERO } else { LONG };
                match self.heap.wait_for_cleanups(timeout) {
                    Ok(()) => {}
                    Err(WaitError::Timeout { pending }) => assert!(manual && pending > 0),
                    Err(error) => panic!("{error}"),
                }
                true
            }
            Op::Panic { object, slot } => self.panic(object, slot),
            Op::Long { most } => self.session(|s| {
                for _ in 0..most {
                    if s.mc.gc_pending() || s.alloc(Kind::Plain, true).is_none() {
                        break;
                    }
                }
                s.log();
            }),
            Op::Detach => self.mutator.take().is_some(),
        }
    }

    /// Writes down what was done outside of a session.
    fn write(&mut self, deed: Deed) -> bool {
        self.journal.write(self.common.ledger.stamp(), vec![deed]);
        true
    }

    // ---- allocation
    // --------------------------------------------------------------------------------

    fn alloc_many(&mut self, kind: Kind, at: u8, count: usize, cleanups: bool, keep: bool) -> bool {
        let mut handles = Vec::new();
        let effective = self.session(|s| {
            let mut last: Option<Any<'_>> = None;
            for _ in 0..count {
                let Some(object) = s.alloc(kind, true) else { break };
                if cleanups {
                    let plan = Plan::plain(s.common.next_number(), &s.common.ledger);
                    handles.push(register(s, object, plan));
                }
                if let (Some(edges), Some(to)) = (object.edges(), last) {
                    // Not held: no other thread has the object yet.
                    edges.lock(s.mc).left = Some(to);
                    let (from, now) = (object.into(), Some(to.into()));
                    s.deeds.push(Deed::Link { from, field: Field::Left, was: None, now });
                }
                last = Some(object);
            }
            keep_in(s, at, last.filter(|_| keep));
            s.log();
        });
        self.common.handles.lock().extend(handles.into_iter().step_by(7));
        effective && count > 0
    }

    fn burst(&mut self, count: u8) -> bool {
        self.session(|s| {
            for _ in 0..2 * usize::from(count) {
                let Some(object) = s.alloc(Kind::Zero, true) else { break };
                let plan = Plan::plain(s.common.next_number(), &s.common.ledger);
                register(s, object, plan);
            }
            s.log();
        })
    }

    fn alloc_stopper(&mut self, cleanup: u8, run: bool, at: u8) -> bool {
        let Some(Handle { number, cleanup, .. }) = self.common.handle(cleanup) else {
            return false;
        };
        let how = if run { How::RunNow } else { How::Stop };
        self.session(|s| {
            let id = s.common.next_id();
            let probe = Probe { id, ledger: s.common.ledger.clone(), panics: false };
            let stopper = Stopper { probe, how, number, handle: cleanup };
            match put(s.mc, Leaf::new(stopper), true) {
                Ok(stopper) => {
                    let stopper = Any::Stopper(stopper);
                    let address = stopper.address();
                    s.deeds.push(Deed::Alloc { id, kind: Kind::Stopper, address });
                    keep_in(s, at, Some(stopper).filter(|_| at.is_multiple_of(2)));
                }
                Err(refusal) => s.refused(id, Kind::Stopper, refusal),
            }
            s.log();
        })
    }

    fn island(&mut self, cleanup: bool) -> bool {
        let heap = self.heap;
        let mut made = None;
        let effective = self.session(|s| {
            let Some(object) = s.alloc(Kind::Token, true) else { return s.log() };
            let (root, handle) = (s.common.next_root(), object.share(s.mc, heap));
            s.deeds.push(Deed::Island { root, object: object.into() });
            if cleanup {
                let plan = Plan::plain(s.common.next_number(), &s.common.ledger);
                register(s, object, plan);
            }
            s.log();
            made = Some((root, handle));
        });
        self.shared.islands.lock().extend(made);
        effective
    }

    fn panic(&mut self, object: u8, at: u8) -> bool {
        let mut handle = None;
        let effective = self.session(|s| {
            let linked = s.find(object, |_| true);
            let Some(made) = s.alloc(Kind::Branch, true) else { return s.log() };
            let plan = Plan::plain(s.common.next_number(), &s.common.ledger);
            handle = Some(register(s, made, plan));
            if let (Some(item), Some(branch)) = (linked, made.branch()) {
                branch.list.write(s.mc).push(item);
                s.deeds.push(Deed::ListPush { branch: made.into(), item: item.into() });
            }
            keep_in(s, at, Some(made));
            s.log();
            let _guard = s.world.slots[slot(at)].lock(s.mc);
            throw();
        });
        self.common.handles.lock().extend(handle);
        effective
    }

    // ---- cleanups
    // ----------------------------------------------------------------------------------

    fn register(&mut self, object: u8, count: u8, plan: impl Fn(&Arc<Common>, u8) -> Plan) -> bool {
        let mut handles = Vec::new();
        let effective = self.session(|s| {
            let Some(object) = s.find(object, |_| true) else { return };
            for n in 0..count {
                let plan = plan(s.common, n);
                handles.push(register(s, object, plan));
            }
            s.log();
        });
        self.common.handles.lock().extend(handles.into_iter().step_by(2));
        effective && count > 0
    }

    fn churn(&mut self, object: u8, rounds: usize) -> bool {
        self.session(|s| {
            let Some(object) = s.find(object, |_| true) else { return };
            // Two at a time, so that what is settled lies behind what is armed.
            let mut last: Option<Handle> = None;
            for _ in 0..rounds {
                let plan = Plan::plain(s.common.next_number(), &s.common.ledger);
                let handle = register(s, object, plan);
                s.log();
                if let Some(last) = last.replace(handle) {
                    assert!(attempt(&s.common.ledger, How::Stop, last.number, &last.cleanup));
                }
            }
        })
    }

    fn end(&mut self, how: How, cleanup: u8, in_session: bool) -> bool {
        let Some(Handle { number, cleanup, .. }) = self.common.handle(cleanup) else {
            return false;
        };
        if in_session {
            self.session(|s| {
                attempt(&s.common.ledger, how, number, &cleanup);
                s.log();
            })
        } else {
            attempt(&self.common.ledger, how, number, &cleanup);
            true
        }
    }
}

/// What a session that panics on purpose says.
const ON_PURPOSE: &str = "on purpose";

fn slot(at: u8) -> usize {
    usize::from(at) % SLOTS
}

fn weak_slot(at: u8) -> usize {
    usize::from(at) % WEAKS
}

fn keep_in<'gc>(s: &mut Session<'_, 'gc>, at: u8, object: Option<Any<'gc>>) {
    if object.is_some() {
        s.lock_slots(vec![slot(at)]);
        s.place(slot(at), object);
    }
}

/// Registers a cleanup; to be written down before anybody else has the handle.
fn register<'gc>(s: &mut Session<'_, 'gc>, object: Any<'gc>, plan: Plan) -> Handle {
    let (number, act) = (plan.capture.number, plan.act());
    let handle = plan.register((s.mc, object));
    s.deeds.push(Deed::Register { object: object.into(), number, act });
    handle
}

/// A plan for a cleanup.
fn plan(common: &Arc<Common>, act: Act, target: u8, large: bool) -> Plan {
    let other = |how| {
        let handle = common.handle(target)?;
        Some(Action::Try(how, handle.number, handle.cleanup))
    };
    let action = match act {
        Act::Nothing | Act::Rearm => None,
        Act::Panic => Some(Action::Panic),
        Act::Bomb => Some(Action::Bomb { _capture: Bomb }),
        Act::Stop => other(How::Stop),
        Act::RunNow => other(How::RunNow),
        Act::Itself => Some(Action::Itself(Arc::default())),
        Act::Nest => Some(Action::Nest(common.pool.clone())),
        Act::Linger => Some(Action::Linger),
        Act::Visit => {
            let common = common.clone();
            Some(Action::Visit(Arc::new(move || common.visit())))
        }
    };
    Plan { action, large, act, ..Plan::plain(common.next_number(), &common.ledger) }
}

fn has_fields(object: Any<'_>) -> bool {
    object.edges().is_some() || object.branch().is_some()
}

/// Points a field of one object to another, or to nothing.
fn link(s: &mut Session<'_, '_>, from: u8, to: Option<u8>, field: u8) {
    let Some(source) = s.find(from, has_fields) else { return };
    let target = to.and_then(|to| s.find(to, |_| true));
    if to.is_some() && target.is_none() {
        return;
    }
    let from = source.into();
    if let Some(branch) = source.branch() {
        match target {
            Some(item) if field % 3 == 2 => {
                // Without a lock: the first thread to come.
                let seen = match field / 3 % 2 {
                    0 => *branch.once.get_or_init(s.mc, || item),
                    _ => {
                        let _lost = branch.once.set(s.mc, item);
                        *branch.once.get().expect("it is set")
                    }
                };
                s.deeds.push(Deed::Once { branch: from, seen: seen.into() });
            }
            Some(item) => {
                s.lock_list(&branch.list).push(item);
                s.deeds.push(Deed::ListPush { branch: from, item: item.into() });
            }
            None => {
                let list = s.lock_list(&branch.list);
                let Some(at) = modulo(field, list.len()) else { return };
                let was = list.swap_remove(at).into();
                s.deeds.push(Deed::ListRemove { branch: from, at, was });
            }
        }
        return s.log();
    }
    let mc = s.mc;
    let edges = s.lock_edges(source.edges().expect("it was chosen for them"));
    let now = target.map(Into::into);
    let deed = match (source.node(), target, target.and_then(Any::node)) {
        (Some(node), None, _) | (Some(node), _, Some(_)) if field % 2 == 1 => {
            let to = target.and_then(Any::node);
            let was = match field / 2 % 3 {
                0 => node.next.swap(mc, to),
                1 => {
                    let was = node.next.load();
                    node.next.store(mc, to);
                    was
                }
                _ => {
                    let was = node.next.load();
                    // One that fails before one that does not.
                    if !was.is_some_and(|was| was.ptr_eq(node)) {
                        let Err(found) = node.next.compare_exchange(mc, Some(node), to) else {
                            panic!("it points elsewhere")
                        };
                        assert_eq!(found.map(Gc::as_ptr), was.map(Gc::as_ptr));
                    }
                    let replaced = node.next.compare_exchange(mc, was, to);
                    assert!(replaced.is_ok(), "the field holds what it has just been said to hold");
                    was
                }
            };
            let was = was.map(|was| Any::Node(was).into());
            Deed::Link { from, field: Field::Next, was, now }
        }
        _ => {
            let was = std::mem::replace(&mut edges.left, target).map(Into::into);
            Deed::Link { from, field: Field::Left, was, now }
        }
    };
    s.deeds.push(deed);
    s.log();
}

/// Keeps what a field points to.
fn follow(s: &mut Session<'_, '_>, from: u8, field: u8, at: u8) {
    let Some(source) = s.find(from, has_fields) else { return };
    let from = source.into();
    s.lock_slots(vec![slot(at)]);
    let found = if let Some(branch) = source.branch() {
        if field % 3 == 2 {
            let Some(&seen) = branch.once.get() else { return };
            s.deeds.push(Deed::Once { branch: from, seen: seen.into() });
            Some(seen)
        } else {
            let list = s.read_list(&branch.list);
            let Some(at) = modulo(field, list.len()) else { return };
            let found = list[at];
            s.deeds.push(Deed::ListRead { branch: from, at, found: found.into() });
            Some(found)
        }
    } else {
        let left = s.lock_edges(source.edges().expect("it was chosen for them")).left;
        let (field, found) = match source.node() {
            Some(node) if field % 2 == 1 => (Field::Next, node.next.load().map(Any::Node)),
            _ => (Field::Left, left),
        };
        s.deeds.push(Deed::Read { from, field, found: found.map(Into::into) });
        found
    };
    if found.is_some() {
        s.place(slot(at), found);
    }
    s.log();
}

/// Takes a node from the stack. It is on it once in its life, so no thread that is late takes one
/// for the other.
fn pop(s: &mut Session<'_, '_>, at: u8) {
    let mut head = s.world.stack.load();
    let node = loop {
        let Some(node) = head else { return };
        match s.world.stack.compare_exchange(s.mc, head, node.next.load()) {
            Ok(_) => break node,
            Err(other) => head = other,
        }
    };
    // Who still looks at it will find that it is not the head any more.
    node.next.store(s.mc, None);
    let node = Any::Node(node);
    s.lock_slots(vec![slot(at)]);
    s.deeds.push(Deed::Pop { node: node.into() });
    s.place(slot(at), Some(node));
    s.log();
}

fn take_all(s: &mut Session<'_, '_>, at: u8) {
    let Some(head) = s.world.stack.swap(s.mc, None) else { return };
    let nodes = std::iter::successors(Some(head), |node| node.next.load());
    let nodes = nodes.map(|node| Any::Node(node).into()).collect();
    s.lock_slots(vec![slot(at)]);
    s.deeds.push(Deed::TakeAll { nodes });
    s.place(slot(at), Some(Any::Node(head)));
    s.log();
}
