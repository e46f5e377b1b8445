//! Running a program: each operation is done to the heap and to the oracle, and then everything is
//! compared.
//!
//! Invariant: after each operation the heap verifies. With a manual pool every counter, state,
//! pointer and report agrees with the oracle then; with workers the heap's objects do, and the
//! cleanups whenever they have been waited for.

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use sexton::{CleanupPool, Heap, Leaf, Mutation, WaitError};

use super::cleanups::{Handle, Plan, Registry};
use super::ledger::{Action, Bomb, How, Id, Ledger, Probe, attempt, throw};
use super::ops::{Act, Op, PoolKind, Program, Setup};
use super::oracle::{self, Due, ObjectKind, RecordNumber};
use super::payload::{self, Any, AnyRoot, Keeper, Kind, Refusal, Stopper, World};
use super::setup::{LONG, configure, new_pool};
use super::tally::{Tally, message, modulo};
use crate::quiet::panics;

type Oracle = oracle::Oracle<Kind>;

/// Runs a program.
///
/// # Panics
///
/// If heap and oracle disagree. The message says after which operation, and in what.
pub fn run(program: &Program) -> Tally {
    let mut tally = Tally::default();
    let mut machine = Machine::new(program.pool, program.setup);
    for (at, op) in program.ops.iter().enumerate() {
        let effective = machine.attempt(|machine| {
            let effective = machine.step(op);
            machine.check();
            effective
        });
        match effective {
            Ok(true) => tally.count(op),
            Ok(false) => {}
            Err(message) => panic!("operation {at}, {op:?}: {message}"),
        }
    }
    machine.attempt(Machine::finish).unwrap_or_else(|message| panic!("at the end: {message}"));
    tally
}

type WorldHeap = Heap<World<'static>>;

/// A heap, its pool, what the program holds of them, and the oracle.
struct Machine {
    /// `None` only while one heap is replaced by the next.
    heap: Option<WorldHeap>,
    pool: CleanupPool,
    kind: PoolKind,
    oracle: Oracle,
    roots: Vec<AnyRoot>,
    handles: Vec<Handle>,
    ledger: Arc<Ledger>,
    /// What calls of `run_pending` said they ran.
    pool_ran: u64,
    /// Whether no cleanup can be running.
    quiescent: bool,
}

impl Machine {
    fn new(kind: PoolKind, setup: Setup) -> Self {
        let ledger = Arc::new(Ledger::default());
        let mut machine = Machine {
            heap: None,
            pool: new_pool(kind, &ledger),
            kind,
            oracle: Oracle::new(kind == PoolKind::Manual, setup),
            roots: Vec::new(),
            handles: Vec::new(),
            ledger,
            pool_ran: 0,
            quiescent: true,
        };
        machine.make_heap(setup);
        machine
    }

    fn make_heap(&mut self, setup: Setup) {
        let id = self.oracle.new_heap(setup);
        let probe = Probe { id, ledger: self.ledger.clone(), panics: setup.bomb };
        self.heap =
            Some(configure(Heap::builder(), &self.pool, setup).build(|_| World::new(probe)));
    }

    /// Calls `f`; if heap and oracle disagree, the answer is in what.
    fn attempt<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> Result<T, String> {
        catch_unwind(AssertUnwindSafe(|| f(self))).map_err(|payload| {
            // A heap that has gone wrong may abort the process when it is dropped, and the reason
            // would be lost.
            std::mem::forget(self.heap.take());
            let _ = self.pool.shutdown(Duration::from_secs(1));
            message(&*payload).to_owned()
        })
    }

    /// Does one operation; whether it had any effect.
    fn step(&mut self, op: &Op) -> bool {
        self.begin();
        match *op {
            Op::Alloc { kind, keep, fallible } => self.alloc(kind, keep, fallible),
            Op::AllocMany { kind, count, cleanups } => self.alloc_many(kind, count, cleanups),
            Op::Burst { count } => self.burst(count),
            Op::Fill { kind } => self.fill(kind),
            Op::AllocKeeper { object, keep } => self.alloc_keeper(object, keep),
            Op::AllocStopper { cleanup, run, keep } => self.alloc_stopper(cleanup, run, keep),
            Op::Link { from, to, field } => self.link(from, to, field),
            Op::Unlink { from, field } => self.unlink(from, field),
            Op::Follow { from, field } => self.follow(from, field),
            Op::Forget { object } => self.forget(object),
            Op::ForgetAll => self.forget_all(),
            Op::Root { object } => self.root(object),
            Op::CloneRoot { root } => self.clone_root(root),
            Op::Unroot { root } => self.unroot(root),
            Op::Fetch { root } => self.fetch(root),
            Op::Downgrade { object } => self.downgrade(object),
            Op::DropWeak { weak } => self.drop_weak(weak),
            Op::Upgrade { weak } => self.upgrade(weak),
            Op::StoreWeak { object, weak, clear } => self.store_weak(object, weak, clear),
            Op::AddCleanup { object, act, target, large } => {
                self.add_cleanup(object, act, target, large)
            }
            Op::AddMany { object, count } => self.add_many(object, count),
            Op::Churn { object, rounds } => self.churn(object, rounds),
            Op::Stop { cleanup, in_session } => self.end(How::Stop, cleanup, in_session),
            Op::RunNow { cleanup, in_session } => self.end(How::RunNow, cleanup, in_session),
            Op::Detach { cleanup } => self.detach(cleanup, drop),
            Op::Leak { cleanup } => self.detach(cleanup, |handle| {
                // A handle that an action shares is only dropped: forgetting it would leak the
                // count.
                if let Some(cleanup) = Arc::into_inner(handle.cleanup) {
                    // What `forget` does; clippy knows that a handle has no `Drop`, and we do not
                    // want to.
                    let _forgotten = ManuallyDrop::new(cleanup);
                }
            }),
            Op::Collect => self.collect(),
            Op::RunPending { max } => self.run_pending(max),
            Op::Wait => self.wait(),
            Op::Rearm => self.rearm(),
            Op::Panic { object } => self.panic(object),
            Op::NewHeap { setup } => self.new_heap(setup),
            Op::FailToBuild => self.fail_to_build(),
            Op::Shutdown => self.shutdown(),
        }
    }

    /// Something is about to be done: until a wait says otherwise, workers may be at it.
    fn begin(&mut self) {
        self.quiescent = self.is_manual();
    }

    fn is_manual(&self) -> bool {
        self.kind == PoolKind::Manual
    }

    // ---- sessions
    // ----------------------------------------------------------------------------------

    /// Opens a session on heap and oracle, and follows what happens at its end.
    fn session<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&Mutation<'gc>, &'gc World<'gc>, &mut Oracle, &Arc<Ledger>) -> T,
    ) -> T {
        let Machine { heap, oracle, ledger, quiescent, .. } = self;
        let heap = heap.as_mut().expect("there is a heap");
        let (result, due) = heap.mutate(|mc, world| {
            let result = f(mc, world, oracle, ledger);
            // What happens at the session's end is to be told from what happened in it.
            oracle.read(ledger);
            if *quiescent {
                oracle.settle();
            }
            (result, mc.collection_due())
        });
        self.session_ended(due);
        result
    }

    fn session_ended(&mut self, due: bool) {
        match self.oracle.due() {
            Due::Yes => assert!(due, "a cycle was due at the end of a session"),
            Due::No => assert!(!due, "no cycle was due at the end of a session"),
            Due::Perhaps => {}
        }
        if due {
            let report = self.heap().last_report().expect("the session's end has collected");
            self.collected(report);
        }
    }

    /// Opens a session that panics; what it did before that stays, and it does not collect unless
    /// it was refused something.
    fn broken_session(
        &mut self,
        f: impl for<'gc> FnOnce(&Mutation<'gc>, &'gc World<'gc>, &mut Oracle, &Arc<Ledger>),
    ) {
        let Machine { heap, oracle, ledger, .. } = self;
        let heap = heap.as_mut().expect("there is a heap");
        let panicked = panics(|| heap.mutate(|mc, world| f(mc, world, oracle, ledger)));
        assert!(panicked, "a session that should have panicked did not");
        if self.oracle.due_in_spite_of_a_panic() {
            let report = self.heap().last_report().expect("the session's end has collected");
            self.collected(report);
        }
    }

    fn heap(&self) -> &WorldHeap {
        self.heap.as_ref().expect("there is a heap")
    }

    // ---- objects
    // -----------------------------------------------------------------------------------

    fn alloc(&mut self, kind: Kind, keep: bool, fallible: bool) -> bool {
        if fallible || self.oracle.has_room(kind) {
            self.session(|mc, world, oracle, ledger| {
                if let Some((id, object)) = allocate(mc, oracle, ledger, kind, fallible)
                    && keep
                {
                    keep_object(mc, world, oracle, id, object);
                }
            });
        } else {
            let kind = without_bombs(kind);
            self.broken_session(|mc, _, oracle, ledger| {
                let id = oracle.next_id();
                oracle.refused(kind);
                let _ = payload::alloc(mc, kind, id, ledger, false);
            });
        }
        true
    }

    fn alloc_many(&mut self, kind: Kind, count: u8, cleanups: bool) -> bool {
        let count = if kind == Kind::Huge { count.min(4) } else { count };
        let handles = self.session(|mc, world, oracle, ledger| {
            let mut handles = Vec::new();
            let mut last: Option<(Id, Any<'_>)> = None;
            for _ in 0..count {
                let Some((id, object)) = allocate(mc, oracle, ledger, kind, true) else { break };
                if let Some((before, to)) = last
                    && kind.fields() > 0
                {
                    object.set_field(mc, 0, Some(to));
                    oracle.object_mut(id).fields[0] = Some(before);
                }
                if cleanups {
                    handles.push(register(
                        Plan::plain(oracle.next_number(), ledger),
                        mc,
                        oracle,
                        id,
                        object,
                    ));
                }
                last = Some((id, object));
            }
            if let Some((id, object)) = last {
                keep_object(mc, world, oracle, id, object);
            }
            handles
        });
        self.handles.extend(handles.into_iter().step_by(7));
        count > 0
    }

    fn burst(&mut self, count: u8) -> bool {
        self.session(|mc, _, oracle, ledger| {
            for _ in 0..2 * u32::from(count) {
                let made = allocate(mc, oracle, ledger, Kind::Zero, true);
                let Some((id, object)) = made else { break };
                register(Plan::plain(oracle.next_number(), ledger), mc, oracle, id, object);
            }
        });
        count > 0
    }

    fn fill(&mut self, kind: Kind) -> bool {
        let limited = self.heap().stats().max_bytes.is_some();
        limited
            && self.session(|mc, _, oracle, ledger| {
                (0..40).take_while(|_| allocate(mc, oracle, ledger, kind, true).is_some()).count()
                    < 40
            })
    }

    fn alloc_keeper(&mut self, object: u8, keep: bool) -> bool {
        if !self.oracle.has_room(Kind::Keeper) {
            return false;
        }
        let Some(at) = self.choose(object) else { return false };
        self.session(|mc, world, oracle, ledger| {
            let target = world.kept.borrow()[at];
            let id = oracle.next_id();
            let probe = Probe { id, ledger: ledger.clone(), panics: false };
            let keeper = Keeper { probe, _root: target.root(mc) };
            let object = Any::Keeper(mc.alloc(Leaf::new(keeper)));
            oracle.allocated(Kind::Keeper, object.address());
            oracle.keeps_rooted(id, oracle.kept[at]);
            if keep {
                keep_object(mc, world, oracle, id, object);
            }
        });
        true
    }

    fn alloc_stopper(&mut self, cleanup: u8, run: bool, keep: bool) -> bool {
        if self.handles.is_empty() || !self.oracle.has_room(Kind::Stopper) {
            return false;
        }
        let Handle { number, cleanup, .. } =
            &self.handles[usize::from(cleanup) % self.handles.len()];
        let (number, handle) = (*number, cleanup.clone());
        let how = if run { How::RunNow } else { How::Stop };
        self.session(|mc, world, oracle, ledger| {
            let id = oracle.next_id();
            let probe = Probe { id, ledger: ledger.clone(), panics: false };
            let stopper = Stopper { probe, how, number, handle };
            let object = Any::Stopper(mc.alloc(Leaf::new(stopper)));
            oracle.allocated(Kind::Stopper, object.address());
            if keep {
                keep_object(mc, world, oracle, id, object);
            }
        });
        true
    }

    /// A kept object, from `at` on, that something holds of.
    fn choose_where(&self, at: u8, holds: impl Fn(Kind) -> bool) -> Option<usize> {
        let kept = &self.oracle.kept;
        (0..kept.len())
            .map(|step| (usize::from(at) + step) % kept.len())
            .find(|&at| holds(self.oracle.object(kept[at]).kind))
    }

    fn choose(&self, at: u8) -> Option<usize> {
        self.choose_where(at, |_| true)
    }

    fn link(&mut self, from: u8, to: u8, field: u8) -> bool {
        let Some(from) = self.choose_where(from, |kind| kind.fields() > 0) else { return false };
        let Some(to) = self.choose(to) else { return false };
        self.session(|mc, world, oracle, _| {
            let (source, target) = (world.kept.borrow()[from], world.kept.borrow()[to]);
            let (from, to) = (oracle.kept[from], oracle.kept[to]);
            let branches = oracle.object(to).kind == Kind::Branch;
            let kind = oracle.object(from).kind;
            let field = match kind {
                Kind::Branch if field % 3 == 2 || (field % 3 == 1 && !branches) => {
                    let list = source.list().expect("a branch has a list");
                    list.borrow_mut(mc).push(target);
                    oracle.object_mut(from).list.push(to);
                    return;
                }
                Kind::Branch => usize::from(field % 3),
                _ => usize::from(field) % kind.fields(),
            };
            source.set_field(mc, field, Some(target));
            oracle.object_mut(from).fields[field] = Some(to);
        });
        true
    }

    fn unlink(&mut self, from: u8, field: u8) -> bool {
        let Some((from, edge)) = self.choose_edge(from, field) else { return false };
        self.session(|mc, world, oracle, _| {
            let source = world.kept.borrow()[from];
            let model = oracle.object_mut(oracle.kept[from]);
            match edge {
                Edge::Field(field) => {
                    source.set_field(mc, field, None);
                    model.fields[field] = None;
                }
                Edge::Item(item) => {
                    let list = source.list().expect("a branch has a list");
                    list.borrow_mut(mc).swap_remove(item);
                    model.list.swap_remove(item);
                }
            }
        });
        true
    }

    fn follow(&mut self, from: u8, field: u8) -> bool {
        let Some((from, edge)) = self.choose_edge(from, field) else { return false };
        self.session(|mc, world, oracle, _| {
            let source = world.kept.borrow()[from];
            let model = oracle.object(oracle.kept[from]);
            let (object, id) = match edge {
                Edge::Field(field) => (source.field(mc, field), model.fields[field]),
                Edge::Item(item) => {
                    let list = source.list().expect("a branch has a list");
                    (Some(list.borrow()[item]), Some(model.list[item]))
                }
            };
            let (object, id) = object.zip(id).expect("the edge was chosen among those there are");
            keep_object(mc, world, oracle, id, object);
        });
        true
    }

    /// A pointer of a kept object.
    fn choose_edge(&self, from: u8, field: u8) -> Option<(usize, Edge)> {
        let from = self.choose_where(from, |kind| kind.fields() > 0)?;
        let model = self.oracle.object(self.oracle.kept[from]);
        let fields = (0..2).filter(|&field| model.fields[field].is_some()).map(Edge::Field);
        let edges: Vec<Edge> = fields.chain((0..model.list.len()).map(Edge::Item)).collect();
        (!edges.is_empty()).then(|| (from, edges[usize::from(field) % edges.len()]))
    }

    fn forget(&mut self, object: u8) -> bool {
        let Some(at) = self.choose(object) else { return false };
        self.session(|mc, world, oracle, _| {
            world.kept.borrow_mut(mc).swap_remove(at);
            oracle.kept.swap_remove(at);
        });
        true
    }

    fn forget_all(&mut self) -> bool {
        if self.oracle.kept.is_empty() {
            return false;
        }
        self.session(|mc, world, oracle, _| {
            world.kept.borrow_mut(mc).clear();
            oracle.kept.clear();
        });
        true
    }

    // ---- roots
    // -------------------------------------------------------------------------------------

    fn root(&mut self, object: u8) -> bool {
        let Some(at) = self.choose(object) else { return false };
        let root = self.session(|mc, world, oracle, _| {
            oracle.roots.push((oracle.heap(), oracle.kept[at]));
            world.kept.borrow()[at].root(mc)
        });
        self.roots.push(root);
        true
    }

    fn clone_root(&mut self, root: u8) -> bool {
        let Some(at) = modulo(root, self.roots.len()) else { return false };
        self.roots.push(self.roots[at].clone());
        self.oracle.roots.push(self.oracle.roots[at]);
        true
    }

    fn unroot(&mut self, root: u8) -> bool {
        let Some(at) = modulo(root, self.roots.len()) else { return false };
        self.roots.swap_remove(at);
        self.oracle.roots.swap_remove(at);
        true
    }

    fn fetch(&mut self, root: u8) -> bool {
        let Some(at) = modulo(root, self.roots.len()) else { return false };
        let (heap, id) = self.oracle.roots[at];
        let root = self.roots[at].clone();
        if heap == self.oracle.heap() {
            self.session(|mc, world, oracle, _| {
                keep_object(mc, world, oracle, id, root.fetch(mc));
                // Before the session ends, so that a cycle there does not find it.
                drop(root);
            });
        } else {
            self.broken_session(|mc, _, _, _| {
                root.fetch(mc);
            });
        }
        true
    }

    // ---- weak pointers
    // -----------------------------------------------------------------------------

    fn downgrade(&mut self, object: u8) -> bool {
        let Some(at) = self.choose(object) else { return false };
        if !self.oracle.can_downgrade(self.oracle.kept[at]) {
            self.broken_session(|mc, world, oracle, _| {
                oracle.record_refused();
                world.kept.borrow()[at].downgrade(mc);
            });
            return true;
        }
        self.session(|mc, world, oracle, _| {
            let weak = world.kept.borrow()[at].downgrade(mc);
            let record = oracle.downgraded(oracle.kept[at]);
            for (other, &known) in world.weaks.borrow().iter().zip(&oracle.weaks) {
                assert_eq!(weak.is(*other), record == known, "one record for each target");
            }
            world.weaks.borrow_mut(mc).push(weak);
            oracle.weaks.push(record);
        });
        true
    }

    fn drop_weak(&mut self, weak: u8) -> bool {
        let Some(at) = modulo(weak, self.oracle.weaks.len()) else { return false };
        self.session(|mc, world, oracle, _| {
            world.weaks.borrow_mut(mc).swap_remove(at);
            oracle.weaks.swap_remove(at);
        });
        true
    }

    fn upgrade(&mut self, weak: u8) -> bool {
        let Some(at) = modulo(weak, self.oracle.weaks.len()) else { return false };
        self.session(|mc, world, oracle, _| {
            let upgraded = world.weaks.borrow()[at].upgrade(mc);
            let expected = check_target(oracle, oracle.weaks[at], upgraded);
            if let Some((id, object)) = expected.zip(upgraded) {
                keep_object(mc, world, oracle, id, object);
            }
        });
        true
    }

    fn store_weak(&mut self, object: u8, weak: u8, clear: bool) -> bool {
        let Some(at) = self.choose_where(object, |kind| kind == Kind::Node) else { return false };
        let weak = modulo(weak, self.oracle.weaks.len()).filter(|_| !clear);
        self.session(|mc, world, oracle, _| {
            let object = world.kept.borrow()[at];
            let field = object.weak().expect("a node has a weak field");
            let record = weak.map(|at| oracle.weaks[at]);
            field.set(mc, weak.map(|at| world.weaks.borrow()[at]));
            let old = std::mem::replace(&mut oracle.object_mut(oracle.kept[at]).weak, record);
            old.is_some() || record.is_some()
        })
    }

    // ---- cleanups
    // ----------------------------------------------------------------------------------

    /// A plan for the cleanup that is registered next.
    fn plan(&self, act: Act, target: u8, large: bool) -> Plan {
        let other = |how| {
            let handle = &self.handles[modulo(target, self.handles.len())?];
            Some(Action::Try(how, handle.number, handle.cleanup.clone()))
        };
        let action = match act {
            Act::Nothing => None,
            Act::Panic => Some(Action::Panic),
            Act::Bomb => Some(Action::Bomb { _capture: Bomb }),
            Act::Stop => other(How::Stop),
            Act::RunNow => other(How::RunNow),
            Act::Itself => Some(Action::Itself(Arc::default())),
            Act::Rearm => Some(Action::Rearm(target % 3)),
            Act::Nest => Some(Action::Nest(self.pool.clone())),
            Act::Linger => Some(Action::Linger),
            Act::Visit => None,
        };
        Plan { action, large, act, ..Plan::plain(self.oracle.next_number(), &self.ledger) }
    }

    fn add_cleanup(&mut self, object: u8, act: Act, target: u8, large: bool) -> bool {
        let Some(at) = self.choose(object) else { return false };
        let plan = self.plan(act, target, large);
        let handle = self.session(|mc, world, oracle, _| {
            let object = world.kept.borrow()[at];
            register(plan, mc, oracle, oracle.kept[at], object)
        });
        self.handles.push(handle);
        true
    }

    fn add_many(&mut self, object: u8, count: u8) -> bool {
        let Some(at) = self.choose(object) else { return false };
        let handles: Vec<Handle> = self.session(|mc, world, oracle, ledger| {
            let object = world.kept.borrow()[at];
            let register = |n| {
                let plan = Plan::plain(oracle.next_number(), ledger);
                let plan = Plan { large: n % 2 == 0, ..plan };
                register(plan, mc, oracle, oracle.kept[at], object)
            };
            (0..count).map(register).collect()
        });
        self.handles.extend(handles.into_iter().step_by(3));
        count > 0
    }

    fn churn(&mut self, object: u8, rounds: u8) -> bool {
        let Some(at) = self.choose(object) else { return false };
        let rounds = 4 * usize::from(rounds);
        self.session(|mc, world, oracle, ledger| {
            let object = world.kept.borrow()[at];
            // Two at a time, so that what is settled lies behind what is armed.
            let mut last: Option<Handle> = None;
            for _ in 0..rounds {
                let plan = Plan::plain(oracle.next_number(), ledger);
                let handle = register(plan, mc, oracle, oracle.kept[at], object);
                if let Some(last) = last.replace(handle) {
                    assert!(attempt(ledger, How::Stop, last.number, &last.cleanup));
                }
            }
            if let Some(last) = last {
                assert!(attempt(ledger, How::Stop, last.number, &last.cleanup));
            }
        });
        rounds > 0
    }

    fn end(&mut self, how: How, cleanup: u8, in_session: bool) -> bool {
        let Some(at) = modulo(cleanup, self.handles.len()) else { return false };
        let Handle { number, cleanup, .. } = &self.handles[at];
        let (number, cleanup) = (*number, cleanup.clone());
        let pending = self.oracle.fate(number).is_pending();
        let took = if in_session {
            self.session(|_, _, _, ledger| attempt(ledger, how, number, &cleanup))
        } else {
            attempt(&self.ledger, how, number, &cleanup)
        };
        if self.quiescent {
            assert_eq!(took, pending, "{how:?} of cleanup {number}");
        } else {
            assert!(pending || !took, "{how:?} of cleanup {number}, which had ended");
        }
        true
    }

    fn detach(&mut self, cleanup: u8, end: impl FnOnce(Handle)) -> bool {
        let Some(at) = modulo(cleanup, self.handles.len()) else { return false };
        end(self.handles.swap_remove(at));
        true
    }

    fn run_pending(&mut self, max: u8) -> bool {
        let max = usize::from(max);
        let ran = self.pool.run_pending(max);
        assert!(ran <= max);
        self.pool_ran += ran as u64;
        self.settle_if_quiescent();
        if self.quiescent {
            let left = self.oracle.backlog();
            assert!(ran == max || left == 0, "{ran} of {max} were run, and {left} are left");
        }
        ran > 0
    }

    fn wait(&mut self) -> bool {
        if self.is_manual() {
            let backlog = self.oracle.heap_backlog();
            match self.heap().wait_for_cleanups(Duration::ZERO) {
                Ok(()) => assert_eq!(backlog, 0, "the wait says that nothing is pending"),
                Err(WaitError::Timeout { pending }) => assert_eq!(pending, backlog),
                Err(error) => panic!("{error}"),
            }
        } else {
            self.heap().wait_for_cleanups(LONG).expect("the workers are at it");
            self.rest();
        }
        true
    }

    /// The workers have been waited for: nothing runs, and nothing is queued.
    fn rest(&mut self) {
        self.quiescent = true;
        self.settle_if_quiescent();
        if !self.is_manual() {
            assert_eq!(self.oracle.backlog(), 0, "cleanups were waited for, and have not run");
        }
    }

    fn settle_if_quiescent(&mut self) {
        self.oracle.read(&self.ledger);
        if self.quiescent {
            self.oracle.settle();
        }
    }

    fn rearm(&mut self) -> bool {
        self.oracle.read(&self.ledger);
        let rearms = std::mem::take(&mut self.oracle.rearms);
        for &left in &rearms {
            if !self.oracle.has_room(Kind::Plain) {
                break;
            }
            let mut plan = self.plan(Act::Rearm, 0, false);
            plan.action = left.checked_sub(1).map(Action::Rearm);
            let handle = self.session(|mc, _, oracle, ledger| {
                let made = allocate(mc, oracle, ledger, Kind::Plain, false);
                let (id, object) = made.expect("there is room");
                register(plan, mc, oracle, id, object)
            });
            self.handles.push(handle);
        }
        !rearms.is_empty()
    }

    // ---- cycles, panics and ends
    // -------------------------------------------------------------------

    fn collect(&mut self) -> bool {
        let report = self.heap.as_mut().expect("there is a heap").collect();
        self.collected(report);
        self.compare();
        true
    }

    /// The heap has collected.
    fn collected(&mut self, report: sexton::GcReport) {
        let expected = self.oracle.collect();
        self.settle_if_quiescent();
        self.oracle.check_report(&expected, &report);
    }

    /// Compares every object and every pointer with the oracle's.
    fn compare(&mut self) {
        let roots = std::mem::take(&mut self.roots);
        self.session(|mc, world, oracle, _| {
            let mut work: Vec<(Id, Any<'_>)> =
                oracle.kept.iter().copied().zip(world.kept.borrow().iter().copied()).collect();
            assert_eq!(work.len(), world.kept.borrow().len());
            for (root, &(heap, id)) in roots.iter().zip(&oracle.roots) {
                if heap == oracle.heap() {
                    work.push((id, root.fetch(mc)));
                }
            }
            let mut seen = HashSet::new();
            while let Some((id, object)) = work.pop() {
                let model = oracle.object(id);
                assert_eq!(object.address(), model.address, "the address of object {id}");
                if !seen.insert(id) {
                    continue;
                }
                assert!(object.id().is_none_or(|own| own == id), "object {id} was overwritten");
                for (field, &expected) in model.fields.iter().enumerate() {
                    let found = object.field(mc, field);
                    if field < model.kind.fields() {
                        assert_eq!(found.is_some(), expected.is_some(), "field of object {id}");
                        work.extend(expected.zip(found));
                    }
                }
                if let Some(list) = object.list() {
                    assert_eq!(list.borrow().len(), model.list.len(), "list of object {id}");
                    work.extend(model.list.iter().copied().zip(list.borrow().iter().copied()));
                }
                if let Some(field) = object.weak() {
                    assert_eq!(field.get().is_some(), model.weak.is_some(), "weak of object {id}");
                    if let Some((weak, record)) = field.get().zip(model.weak) {
                        check_target(oracle, record, weak.upgrade(mc));
                    }
                }
            }
            assert_eq!(world.weaks.borrow().len(), oracle.weaks.len());
            for (weak, &record) in world.weaks.borrow().iter().zip(&oracle.weaks) {
                check_target(oracle, record, weak.upgrade(mc));
            }
        });
        self.roots = roots;
    }

    fn panic(&mut self, object: u8) -> bool {
        let linked = self.choose(object);
        if !self.oracle.has_room(Kind::Branch) {
            return false;
        }
        let mut handle = None;
        self.broken_session(|mc, world, oracle, ledger| {
            let made = allocate(mc, oracle, ledger, Kind::Branch, true);
            let (id, object) = made.expect("there is room");
            handle =
                Some(register(Plan::plain(oracle.next_number(), ledger), mc, oracle, id, object));
            if let Some(at) = linked {
                let target = world.kept.borrow()[at];
                object.set_field(mc, 0, Some(target));
                oracle.object_mut(id).fields[0] = Some(oracle.kept[at]);
            }
            keep_object(mc, world, oracle, id, object);
            let _guard = world.kept.borrow_mut(mc);
            throw();
        });
        self.handles.extend(handle);
        true
    }

    fn new_heap(&mut self, setup: Setup) -> bool {
        let expected = self.oracle.tear_down();
        drop(self.heap.take());
        // The drop has waited for the workers.
        self.rest();
        self.oracle.buried(&expected, &self.pool.stats());
        if self.oracle.is_closed() {
            self.check_pool();
            self.pool = new_pool(self.kind, &self.ledger);
            self.oracle.new_pool();
        }
        self.make_heap(setup);
        true
    }

    fn fail_to_build(&mut self) -> bool {
        let Plan { capture, .. } = Plan::plain(self.oracle.next_number(), &self.ledger);
        let number = capture.number;
        let id = self.oracle.next_id();
        self.oracle.stillborn(Kind::Token);
        let mut cleanup = None;
        let panicked = panics(|| {
            configure(Heap::<World<'static>>::builder(), &self.pool, Setup::PLAIN).build(|mc| {
                let token = payload::alloc(mc, Kind::Token, id, &self.ledger, false);
                let token = token.expect("there is no limit");
                cleanup = Some((mc, token).add_cleanup(move || capture.ran()));
                throw();
            })
        });
        assert!(panicked, "a heap without a root was made");
        let cleanup = cleanup.expect("it was registered before the panic");
        self.handles.push(Handle::new(number, cleanup));
        if self.quiescent {
            self.settle_if_quiescent();
        }
        true
    }

    fn shutdown(&mut self) -> bool {
        if self.oracle.is_closed() {
            return false;
        }
        self.oracle.shut_down();
        let before = self.pool.stats().discarded;
        let end = self.pool.shutdown(LONG);
        if self.pool.max_workers() == 0 {
            let discarded = self.pool.stats().discarded - before;
            assert_eq!(
                end.map_or_else(|end| end.discarded, |()| 0),
                discarded,
                "a shutdown's answer"
            );
        } else {
            end.expect("no cleanup takes so long");
        }
        self.rest();
        assert_eq!(self.pool.stats().workers, 0, "workers after a shutdown");
        true
    }

    // ---- comparisons
    // -------------------------------------------------------------------------------

    /// Compares what can be compared at this moment.
    fn check(&mut self) {
        if let Err(error) = self.heap().verify() {
            panic!("{error}");
        }
        self.settle_if_quiescent();
        self.oracle.check_heap(&self.heap().stats(), self.quiescent);
        for handle in &self.handles {
            let state = handle.look();
            if self.quiescent {
                self.oracle.check_state(handle.number, state);
            }
        }
        if self.quiescent {
            self.check_pool();
        }
    }

    fn check_pool(&self) {
        self.oracle.check_pool(&self.pool.stats());
        if self.is_manual() {
            assert_eq!(self.oracle.pool_runs, self.pool_ran, "cleanups run by `run_pending`");
        }
    }

    /// Ends the heap and the pool: everything that is to run has run after that.
    fn finish(&mut self) {
        self.begin();
        self.collect();
        self.check();
        self.wait();
        self.check();
        self.new_heap(Setup::PLAIN);
        self.check();
        if self.is_manual() {
            while self.run_pending(7) {
                self.check();
            }
        }
        self.shutdown();
        self.check();
        self.oracle.check_end();
    }
}

/// A pointer of an object.
#[derive(Clone, Copy)]
enum Edge {
    Field(usize),
    /// Of a branch's list.
    Item(usize),
}

/// Registers a cleanup with heap and oracle.
fn register<'gc>(
    plan: Plan,
    mc: &Mutation<'gc>,
    oracle: &mut Oracle,
    id: Id,
    object: Any<'gc>,
) -> Handle {
    let number = oracle.registered(id, plan.act());
    assert_eq!(number, plan.capture.number, "the plan was made for another cleanup");
    plan.register((mc, object))
}

/// Allocates, and compares with the oracle whether there is room.
fn allocate<'gc>(
    mc: &Mutation<'gc>,
    oracle: &mut Oracle,
    ledger: &Arc<Ledger>,
    kind: Kind,
    fallible: bool,
) -> Option<(Id, Any<'gc>)> {
    let kind = if oracle.has_room(kind) { kind } else { without_bombs(kind) };
    match payload::alloc(mc, kind, oracle.next_id(), ledger, fallible) {
        Ok(object) => {
            assert!(oracle.has_room(kind), "an object was allocated past the limit");
            Some((oracle.allocated(kind, object.address()), object))
        }
        Err(refusal) => {
            let Refusal { requested, used, max } = refusal;
            assert_eq!((requested, used), (kind.bytes(), oracle.bytes()), "{refusal:?}");
            assert!(!oracle.has_room(kind), "refused below the limit of {max}: {refusal:?}");
            oracle.refused(kind);
            None
        }
    }
}

/// A value that is refused is dropped in the session, or by its unwinding; it must not panic there.
fn without_bombs(kind: Kind) -> Kind {
    if kind == Kind::Bomb { Kind::Token } else { kind }
}

fn keep_object<'gc>(
    mc: &Mutation<'gc>,
    world: &'gc World<'gc>,
    oracle: &mut Oracle,
    id: Id,
    object: Any<'gc>,
) {
    world.kept.borrow_mut(mc).push(object);
    oracle.kept.push(id);
}

/// Compares what a weak pointer upgraded to; the answer is what it should.
fn check_target(oracle: &Oracle, record: RecordNumber, found: Option<Any<'_>>) -> Option<Id> {
    let target = oracle.target(record);
    let address = target.map(|id| oracle.object(id).address);
    assert_eq!(found.map(Any::address), address, "what a weak pointer to {target:?} upgrades to");
    if let Some((object, id)) = found.zip(target) {
        assert!(object.id().is_none_or(|own| own == id), "object {id} was overwritten");
    }
    target
}
