//! A hand: one thread's way to do operations, through a heap of its own or a mutator of a shared
//! one.
//!
//! Invariant: whatever it does that others, or the collector, could notice, it writes down. It does
//! not know the oracle.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use sexton::{CleanupPool, Gc, HeapId, Progress};

use super::cleanups::{Handle, Plan};
use super::common::Common;
use super::journal::{Deed, Field, RootNumber};
use super::ledger::{Action, Bomb, How, attempt, throw};
use super::ops::{Act, Op};
use super::payload::{Any, AnyRoot, Kind, SLOTS, Seed, WEAKS};
use super::place::{Ground, Place};
use super::session::{Door, Scribe, Session};
use super::tally::modulo;

pub(super) struct Hand<D: Door> {
    pub(super) door: D,
    pub(super) scribe: Scribe,
    pub(super) pool: CleanupPool,
    /// Roots that no other thread has, and the heaps that they are of.
    pub(super) roots: Vec<(RootNumber, HeapId, AnyRoot<D::Mode>)>,
}

/// The objects of a crowd. They are a span each, and enough of them for two sweepers.
const CROWD: usize = 40;
/// Those that are larger than a span.
const HUGE: usize = 4;
/// As many objects as a heap is filled with at the most.
const FILL: usize = 40;
/// Cleanups that are registered and stopped in a round, where no other mutator makes them more.
const CHURN: usize = 4;

impl<D: Door> Hand<D> {
    pub(super) fn new(door: D, scribe: Scribe, pool: CleanupPool) -> Self {
        Hand { door, scribe, pool, roots: Vec::new() }
    }

    /// Opens a session. Whether anything was written down.
    pub(super) fn session(
        &mut self,
        f: impl for<'s, 'gc> FnOnce(&mut Session<'s, 'gc, D::Mode>),
    ) -> bool {
        self.scribe.session(&mut self.door, |_| false, f)
    }

    /// Does one operation; whether it had any effect.
    pub(super) fn step(&mut self, op: &Op) -> bool {
        match *op {
            Op::Alloc { kind, slot, keep, fallible } => self.session(|s| {
                let made = s.alloc(kind, fallible);
                keep_in(s, slot, made.filter(|_| keep));
                s.log();
            }),
            Op::AllocMany { kind, slot, count, cleanups } => {
                let most = if kind == Kind::Huge { HUGE } else { usize::MAX };
                self.alloc_many(kind, slot, usize::from(count).min(most), cleanups, true)
            }
            Op::Burst { count } => self.burst(count),
            Op::Crowd { slot, keep, cleanups } => {
                self.alloc_many(Kind::Wide, slot, CROWD, cleanups, keep)
            }
            Op::Fill { kind } => self.scribe.setup.limit.is_some() && self.fill(&[kind], FILL),
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
                let pointer = s.downgrade(object);
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
                let pool = self.pool.clone();
                self.register(object, 1, |common, _| plan(common, &pool, act, target, large))
            }
            Op::AddMany { object, count } => self.register(object, count, |common, n| Plan {
                large: n % 2 == 0,
                ..Plan::plain(common.next_number(), &common.ledger)
            }),
            Op::Churn { object, rounds } => {
                let each = if self.scribe.alone { CHURN } else { 1 };
                self.churn(object, each * usize::from(rounds))
            }
            Op::Stop { cleanup, in_session } => self.end(How::Stop, cleanup, in_session),
            Op::RunNow { cleanup, in_session } => self.end(How::RunNow, cleanup, in_session),
            Op::State { cleanup } => match self.scribe.common.handle(cleanup) {
                Some(handle) => {
                    handle.look();
                    true
                }
                None => false,
            },
            Op::DropHandle { cleanup } => self.take_handle(cleanup).is_some(),
            Op::Leak { cleanup } => {
                let Some(handle) = self.take_handle(cleanup) else { return false };
                // A handle that an action shares is only dropped: forgetting it would leak the
                // count.
                if let Some(cleanup) = Arc::into_inner(handle.cleanup) {
                    // What `forget` does; clippy knows that a handle has no `Drop`, and we do not
                    // want to.
                    let _forgotten = ManuallyDrop::new(cleanup);
                }
                true
            }
            Op::Root { object } => {
                let mut roots = std::mem::take(&mut self.roots);
                let effective = self.session(|s| {
                    let Some(object) = s.find(object, |_| true) else { return };
                    let root = s.common.next_root();
                    roots.push((root, s.mc.heap_id(), object.root(s.mc)));
                    s.deeds.push(Deed::Root { root, object: object.into() });
                    s.log();
                });
                self.roots = roots;
                effective
            }
            Op::CloneRoot { root } => {
                let Some(at) = modulo(root, self.roots.len()) else { return false };
                let (of, heap, handle) = self.roots[at].clone();
                let root = self.scribe.common.next_root();
                self.roots.push((root, heap, handle));
                self.scribe.write(Deed::CloneRoot { root, of })
            }
            Op::Unroot { root } => {
                let Some(at) = modulo(root, self.roots.len()) else { return false };
                let (root, _, handle) = self.roots.swap_remove(at);
                self.session(|s| {
                    drop(handle);
                    s.deeds.push(Deed::Unroot { root });
                    s.log();
                })
            }
            Op::Fetch { root, slot: at } => {
                let Some(root) = modulo(root, self.roots.len()) else { return false };
                let (root, heap, handle) = self.roots[root].clone();
                self.fetch(root, heap, handle, at)
            }
            Op::Collect => {
                self.scribe.write(Deed::Collect);
                let report = self.door.collect();
                assert!(report.cycle > self.scribe.least.saturating_sub(1), "{report:?}");
                self.scribe.least = self.scribe.journal.note(Some(report));
                true
            }
            Op::Step { budget } => {
                let progress = self.door.step(Duration::from_micros(budget.into()));
                if let Progress::Finished(report) = progress {
                    self.scribe.least = self.scribe.journal.note(Some(report));
                }
                self.scribe.write(Deed::Step { finished: progress.is_finished() })
            }
            Op::Verify => {
                self.door.verify().unwrap_or_else(|error| panic!("{error}"));
                true
            }
            Op::RunPending { max } => {
                let ran = self.pool.run_pending(usize::from(max));
                assert!(ran <= usize::from(max));
                self.scribe.common.has_run(ran);
                ran > 0
            }
            Op::Panic { object, slot } => self.panic(object, slot),
            _ => unreachable!("{op:?} is for the other mode"),
        }
    }

    /// Keeps the object of a root; if that is of another heap, panics.
    fn fetch(&mut self, root: RootNumber, of: HeapId, handle: AnyRoot<D::Mode>, at: u8) -> bool {
        let foreign = Cell::new(false);
        let effective = self.scribe.session(
            &mut self.door,
            |_| foreign.get(),
            |s| {
                foreign.set(of != s.mc.heap_id());
                let object = handle.fetch(s.mc);
                assert!(!foreign.replace(false), "a root of another heap was fetched");
                // Before a cycle finds it.
                drop(handle);
                s.lock_slots(vec![slot(at)]);
                s.deeds.push(Deed::Fetch { root, found: object.into() });
                s.place(slot(at), Some(object));
                s.log();
            },
        );
        effective || foreign.get()
    }

    fn take_handle(&self, cleanup: u8) -> Option<Handle> {
        let mut handles = self.scribe.common.handles.lock();
        let at = modulo(cleanup, handles.len())?;
        Some(handles.swap_remove(at))
    }

    // ---- allocation
    // --------------------------------------------------------------------------------

    fn alloc_many(&mut self, kind: Kind, at: u8, count: usize, cleanups: bool, keep: bool) -> bool {
        let mut handles = Vec::new();
        let effective = self.session(|s| {
            let mut last: Option<Any<'_, D::Mode>> = None;
            for _ in 0..count {
                let Some(object) = s.alloc(kind, true) else { break };
                if cleanups {
                    handles.push(s.register(object, s.plain()));
                }
                if let (Some(edges), Some(to)) = (object.edges(), last) {
                    // Not held: no other thread has the object yet.
                    edges.write(s.mc).left = Some(to);
                    let (from, now) = (object.into(), Some(to.into()));
                    s.deeds.push(Deed::Link { from, field: Field::Left, was: None, now });
                }
                last = Some(object);
            }
            keep_in(s, at, last.filter(|_| keep));
            s.log();
        });
        self.scribe.common.handles.lock().extend(handles.into_iter().step_by(7));
        effective && count > 0
    }

    /// Allocates until the heap has no room for any of the kinds, or `most` objects of one have
    /// been. Whether it is full.
    pub(super) fn fill(&mut self, kinds: &[Kind], most: usize) -> bool {
        let mut full = false;
        self.session(|s| {
            full = kinds.iter().all(|&kind| !(0..most).all(|_| s.alloc(kind, true).is_some()));
            s.log();
        });
        full
    }

    fn burst(&mut self, count: u8) -> bool {
        self.session(|s| {
            for _ in 0..2 * usize::from(count) {
                let Some(object) = s.alloc(Kind::Zero, true) else { break };
                s.register(object, s.plain());
            }
            s.log();
        })
    }

    fn alloc_stopper(&mut self, cleanup: u8, run: bool, at: u8) -> bool {
        let Some(Handle { number, cleanup, .. }) = self.scribe.common.handle(cleanup) else {
            return false;
        };
        let how = if run { How::RunNow } else { How::Stop };
        self.session(|s| {
            let stopper = s.grow(Seed::Stopper(how, number, cleanup), true);
            keep_in(s, at, stopper.filter(|_| at.is_multiple_of(2)));
            s.log();
        })
    }

    fn panic(&mut self, object: u8, at: u8) -> bool {
        let mut handle = None;
        let threw = Cell::new(false);
        let effective = self.scribe.session(
            &mut self.door,
            |_| threw.get(),
            |s| {
                let linked = s.find(object, |_| true);
                let Some(made) = s.alloc(Kind::Branch, true) else { return s.log() };
                handle = Some(s.register(made, s.plain()));
                if let (Some(item), Some(branch)) = (linked, made.branch()) {
                    branch.list.write(s.mc).push(item);
                    s.deeds.push(Deed::ListPush { branch: made.into(), item: item.into() });
                }
                keep_in(s, at, Some(made));
                s.log();
                let _guard = s.world.slots[slot(at)].write(s.mc);
                threw.set(true);
                throw();
            },
        );
        self.scribe.common.handles.lock().extend(handle);
        effective
    }

    // ---- cleanups
    // ----------------------------------------------------------------------------------

    fn register(&mut self, object: u8, count: u8, plan: impl Fn(&Common, u8) -> Plan) -> bool {
        let mut handles = Vec::new();
        let effective = self.session(|s| {
            let Some(object) = s.find(object, |_| true) else { return };
            for n in 0..count {
                handles.push(s.register(object, plan(s.common, n)));
            }
            s.log();
        });
        self.scribe.common.handles.lock().extend(handles.into_iter().step_by(2));
        effective && count > 0
    }

    fn churn(&mut self, object: u8, rounds: usize) -> bool {
        self.session(|s| {
            let Some(object) = s.find(object, |_| true) else { return };
            // Two at a time, so that what is settled lies behind what is armed.
            let mut last: Option<Handle> = None;
            for _ in 0..rounds {
                let handle = s.register(object, s.plain());
                s.log();
                if let Some(last) = last.replace(handle) {
                    assert!(attempt(&s.common.ledger, How::Stop, last.number, &last.cleanup));
                }
            }
            if let Some(last) = last {
                assert!(attempt(&s.common.ledger, How::Stop, last.number, &last.cleanup));
            }
        })
    }

    fn end(&mut self, how: How, cleanup: u8, in_session: bool) -> bool {
        let Some(Handle { number, cleanup, .. }) = self.scribe.common.handle(cleanup) else {
            return false;
        };
        if in_session {
            self.session(|s| {
                attempt(&s.common.ledger, how, number, &cleanup);
                s.log();
            })
        } else {
            attempt(&self.scribe.common.ledger, how, number, &cleanup);
            true
        }
    }
}

pub(super) fn slot(at: u8) -> usize {
    usize::from(at) % SLOTS
}

fn weak_slot(at: u8) -> usize {
    usize::from(at) % WEAKS
}

pub(super) fn keep_in<'gc, M: Ground>(
    s: &mut Session<'_, 'gc, M>,
    at: u8,
    object: Option<Any<'gc, M>>,
) {
    if object.is_some() {
        s.lock_slots(vec![slot(at)]);
        s.place(slot(at), object);
    }
}

/// A plan for a cleanup.
fn plan(common: &Common, pool: &CleanupPool, act: Act, target: u8, large: bool) -> Plan {
    let other = |how| {
        let handle = common.handle(target)?;
        Some(Action::Try(how, handle.number, handle.cleanup))
    };
    let action = match act {
        Act::Nothing => None,
        Act::Panic => Some(Action::Panic),
        Act::Bomb => Some(Action::Bomb { _capture: Bomb }),
        Act::Stop => other(How::Stop),
        Act::RunNow => other(How::RunNow),
        Act::Itself => Some(Action::Itself(Arc::default())),
        Act::Rearm => Some(Action::Rearm(target % 3)),
        Act::Nest => Some(Action::Nest(pool.clone())),
        Act::Linger => Some(Action::Linger),
        Act::Visit => common.visit.get().cloned().map(Action::Visit),
    };
    Plan { action, large, act, ..Plan::plain(common.next_number(), &common.ledger) }
}

fn has_fields<M: Ground>(object: Any<'_, M>) -> bool {
    object.edges().is_some() || object.branch().is_some()
}

/// Points a field of one object to another, or to nothing.
fn link<M: Ground>(s: &mut Session<'_, '_, M>, from: u8, to: Option<u8>, field: u8) {
    let Some(source) = s.find(from, has_fields) else { return };
    let target = to.and_then(|to| s.find(to, |_| true));
    if to.is_some() && target.is_none() {
        return;
    }
    let from = source.into();
    if let Some(branch) = source.branch() {
        match target {
            to if field % 4 == 3 => {
                let was = std::mem::replace(s.lock_mutex(branch), to).map(Into::into);
                let now = to.map(Into::into);
                s.deeds.push(Deed::Link { from, field: Field::Mutex, was, now });
            }
            Some(item) if field % 4 == 2 => {
                // Without a lock: the first thread to come.
                let seen = match field / 4 % 2 {
                    0 => *branch.once.get_or_init(s.mc, || item),
                    _ => {
                        let _lost = branch.once.set(s.mc, item);
                        *branch.once.get().expect("it is set")
                    }
                };
                s.deeds.push(Deed::Once { branch: from, seen: seen.into() });
            }
            Some(item) => {
                s.lock_list(branch).push(item);
                s.deeds.push(Deed::ListPush { branch: from, item: item.into() });
            }
            None => {
                let list = s.lock_list(branch);
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
fn follow<M: Ground>(s: &mut Session<'_, '_, M>, from: u8, field: u8, at: u8) {
    let Some(source) = s.find(from, has_fields) else { return };
    let from = source.into();
    s.lock_slots(vec![slot(at)]);
    let found = if let Some(branch) = source.branch() {
        if field % 4 == 3 {
            let found = *s.lock_mutex(branch);
            let seen = found.map(Into::into);
            s.deeds.push(Deed::Read { from, field: Field::Mutex, found: seen });
            found
        } else if field % 4 == 2 {
            let Some(&seen) = branch.once.get() else { return };
            s.deeds.push(Deed::Once { branch: from, seen: seen.into() });
            Some(seen)
        } else {
            let list = s.read_list(branch);
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
fn pop<M: Ground>(s: &mut Session<'_, '_, M>, at: u8) {
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

fn take_all<M: Ground>(s: &mut Session<'_, '_, M>, at: u8) {
    let Some(head) = s.world.stack.swap(s.mc, None) else { return };
    let nodes = std::iter::successors(Some(head), |node| node.next.load());
    let nodes = nodes.map(|node| Any::Node(node).into()).collect();
    s.lock_slots(vec![slot(at)]);
    s.deeds.push(Deed::TakeAll { nodes });
    s.place(slot(at), Some(Any::Node(head)));
    s.log();
}
