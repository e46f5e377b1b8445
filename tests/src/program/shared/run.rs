//! Running a program: its mutators do their shares at the same time; then what they have written
//! down is replayed to the oracle, and everything is compared.
//!
//! Invariant: when no mutator is at work any more, every counter, state and pointer agrees with the
//! oracle.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use sexton::{CleanupPool, GcReport, Heap, Mutation, Mutator, Shared};

use super::common::{Common, Here, SharedHeap, SharedRoots};
use super::hand::Hand;
use super::ops::{Op, Program};
use super::payload::{self, Any, HERD, Kind, Node, World};
use super::replay::Replay;
use crate::program::ledger::{Id, Ledger, Probe};
use crate::program::ops::{PoolKind, Setup};
use crate::program::oracle::{ObjectKind, Oracle, RecordNumber};
use crate::program::setup::{LONG, configure, new_pool};
use crate::program::tally::{Tally, message};
use crate::quiet::quietly;

/// Runs a program.
///
/// # Panics
///
/// If heap and oracle disagree. The message says in what, and what was done last.
pub fn run(program: &Program) -> Tally<Op> {
    let mut stage = Stage::new(program);
    match catch_unwind(AssertUnwindSafe(|| stage.play(program))) {
        Ok(tally) => tally,
        Err(payload) => {
            // A heap that has gone wrong may abort the process when it is dropped, and the reason
            // would be lost.
            std::mem::forget(stage.heap.take());
            let _ = stage.pool.shutdown(Duration::from_secs(1));
            panic!("{}", message(&*payload));
        }
    }
}

/// A heap, its pool, and the oracle.
struct Stage {
    /// `None` when it has gone.
    heap: Option<Arc<SharedHeap>>,
    pool: CleanupPool,
    kind: PoolKind,
    common: Arc<Common>,
    replay: Replay,
}

impl Stage {
    fn new(program: &Program) -> Self {
        let ledger = Arc::new(Ledger::default());
        let pool = new_pool(program.pool, &ledger);
        let common = Arc::new(Common::new(ledger.clone(), pool.clone(), program.setup));
        let probe = Probe { id: 0, ledger, panics: program.setup.bomb };
        // Not where it would be verified after each session.
        let herd = program.herd && program.setup.limit.is_none() && !program.setup.zeal;
        let members = if herd { HERD } else { 0 };
        let mut herd: Vec<(Id, usize)> = Vec::new();
        let builder = Heap::<World<'static>, Shared>::builder().gc_threads(program.gc_threads);
        let heap = configure(builder, &pool, program.setup).build(|mc| {
            let nodes = (0..members).map(|_| {
                let id = common.next_id();
                let node = mc.alloc(Node::new(id));
                herd.push((id, Any::Node(node).address()));
                node
            });
            World::new(probe, nodes.collect())
        });
        let heap = Arc::new(heap);
        common.open(&heap);
        let replay = Replay::new(program.setup, herd);
        Stage { heap: Some(heap), pool, kind: program.pool, common, replay }
    }

    fn play(&mut self, program: &Program) -> Tally<Op> {
        // Shared roots borrow it; it goes before the stage's own.
        let heap = self.heap.clone().expect("it has been made");
        let roots = SharedRoots::default();
        let tally = self.mutate(program, &heap, &roots);
        self.feed();
        self.compare();
        self.collect();
        self.drop_roots(roots);
        drop(heap);
        self.collect();
        self.collect();
        if program.setup.pace.is_none() && !program.setup.zeal {
            let asked = self.common.collects.load(SeqCst);
            assert_eq!(self.heap().stats().cycles, asked, "cycles, of which none was asked for");
        }
        self.fill();
        self.compare();
        self.end();
        tally
    }

    /// The mutators, each on its thread.
    fn mutate<'h>(
        &self,
        program: &Program,
        heap: &'h SharedHeap,
        roots: &SharedRoots<'h>,
    ) -> Tally<Op> {
        let start = Barrier::new(program.mutators);
        let play = |number: usize| {
            let _here = Here::enter().expect("a new thread");
            let mut hand = Hand::new(heap, &self.common, roots, program.pool);
            let mine = |(_, step): &(usize, &super::Step)| {
                usize::from(step.hand) % program.mutators == number
            };
            start.wait();
            quietly(|| hand.play(number, program.steps.iter().enumerate().filter(mine)));
            hand.tally
        };
        let mut tally = Tally::default();
        thread::scope(|scope| {
            let play = &play;
            let hands: Vec<_> =
                (0..program.mutators).map(|number| scope.spawn(move || play(number))).collect();
            for hand in hands {
                tally.add(&hand.join().expect("its panics are caught"));
            }
        });
        tally
    }

    fn heap(&self) -> &SharedHeap {
        self.heap.as_ref().expect("it has not gone")
    }

    /// Lets all queued cleanups end, and replays what has been written down since the last time.
    fn feed(&mut self) {
        loop {
            if self.kind == PoolKind::Manual {
                while self.run_pending() > 0 {}
            } else {
                self.heap().wait_for_cleanups(LONG).expect("the workers are at it");
            }
            // Cleanups that visit the heap may have queued others.
            if self.heap().stats().cleanups.backlog == 0 {
                break;
            }
        }
        let journals = std::mem::take(&mut *self.common.journals.lock());
        let events = self.common.ledger.take();
        let cycles = self.heap().stats().cycles;
        let fed = catch_unwind(AssertUnwindSafe(|| self.replay.feed(journals, events, cycles)));
        match (self.common.failure(), fed) {
            (None, Ok(())) => {}
            (Some(failure), Ok(())) => panic!("{failure}"),
            (None, Err(payload)) => panic!("{}", message(&*payload)),
            (Some(failure), Err(payload)) => panic!("{failure}\nand: {}", message(&*payload)),
        }
        self.replay.oracle.settle();
    }

    fn run_pending(&self) -> usize {
        let ran = self.pool.run_pending(usize::MAX);
        self.common.pool_ran.fetch_add(ran as u64, SeqCst);
        ran
    }

    /// Opens a session on this thread, as the only mutator there is, and follows what happens at
    /// its end.
    fn session<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&Mutation<'gc, Shared>, &'gc World<'gc>, &mut Replay) -> T,
    ) -> T {
        let Stage { heap, replay, .. } = self;
        let heap = heap.as_ref().expect("it has not gone");
        let here = Here::enter().expect("nobody else is on this thread");
        let result = heap.attach().mutate(|mc, world| f(mc, world, replay));
        drop(here);
        if let Some(report) = heap.last_report() {
            self.cycle_has_run(report);
        }
        result
    }

    fn cycle_has_run(&mut self, report: GcReport) {
        self.replay.reported(report);
        self.feed();
    }

    /// Collects, and compares all counters: no thread has anything at hand then.
    fn collect(&mut self) {
        let heap = self.heap.as_ref().expect("it has not gone");
        let here = Here::enter().expect("nobody else is on this thread");
        let mut mutator: Mutator<'_, _> = heap.attach();
        let report = mutator.collect();
        self.common.collects.fetch_add(1, SeqCst);
        mutator.verify().unwrap_or_else(|error| panic!("{error}"));
        drop(mutator);
        drop(here);
        self.cycle_has_run(report);
        self.check();
    }

    fn check(&mut self) {
        self.replay.sync();
        let stats = self.heap().stats();
        let oracle = &mut self.replay.oracle;
        if self.replay.unreported > 0 {
            oracle.adopt_queued(&stats);
        }
        oracle.check_heap(&stats, true);
        self.check_cleanups();
    }

    /// Compares what handles and the pool say.
    fn check_cleanups(&self) {
        let oracle = &self.replay.oracle;
        for handle in &*self.common.handles.lock() {
            oracle.check_state(handle.number, handle.look());
        }
        oracle.check_pool(&self.pool.stats());
        if self.kind == PoolKind::Manual {
            let ran = self.common.pool_ran.load(SeqCst);
            assert_eq!(oracle.pool_runs, ran, "cleanups run by `run_pending`");
        }
    }

    /// Drops all shared roots, those of islands included; the mutators have dropped their own.
    fn drop_roots(&mut self, roots: SharedRoots<'_>) {
        self.session(|_, _, replay| {
            drop(roots);
            replay.unroot_all();
        });
    }

    /// Allocates until the heap is full, if it has a limit. With one mutator it is known when that
    /// is.
    fn fill(&mut self) {
        let Setup { limit: Some(limit), .. } = self.common.setup else { return };
        let common = self.common.clone();
        self.session(|mc, _, replay| {
            for kind in [Kind::Large, Kind::Branch, Kind::Node, Kind::Zero] {
                loop {
                    let id = common.next_id();
                    match payload::alloc(mc, kind, id, &common.ledger, true) {
                        Ok(object) => {
                            let oracle = &mut replay.oracle;
                            assert!(oracle.has_room(kind), "allocated past the limit");
                            oracle.allocated_as(id, kind, object.address());
                        }
                        Err(refusal) => {
                            let oracle = &replay.oracle;
                            let refused = (refusal.requested, refusal.used, refusal.max);
                            assert_eq!(refused, (kind.bytes(), oracle.bytes(), limit));
                            assert!(!oracle.has_room(kind), "refused below the limit: {refusal:?}");
                            replay.refuse(id, kind);
                            break;
                        }
                    }
                }
            }
        });
        self.collect();
    }

    /// Compares every object and every pointer with the oracle's.
    fn compare(&mut self) {
        self.session(|mc, world, replay| {
            let Replay { oracle, slots, weaks, stack, herd, .. } = replay;
            let mut work: Vec<(Id, Any<'_>)> = Vec::new();
            for (slot, &expected) in world.slots.iter().zip(&*slots) {
                let found = *slot.lock(mc);
                assert_eq!(found.is_some(), expected.is_some(), "a slot");
                work.extend(expected.zip(found));
            }
            let nodes = std::iter::successors(world.stack.load(), |node| node.next.load());
            for node in nodes.map(Any::Node) {
                let id = node.id().expect("nodes know their numbers");
                assert!(stack.contains(&id), "object {id} is on the stack, and should not be");
                work.push((id, node));
            }
            assert_eq!(work.len(), stack.len() + slots.iter().flatten().count(), "the stack");
            let members = world.herd.read(mc);
            assert_eq!(members.len(), herd.len(), "the herd");
            work.extend(herd.iter().copied().zip(members.iter().map(|&node| Any::Node(node))));
            let mut seen = HashSet::new();
            while let Some((id, object)) = work.pop() {
                let model = oracle.object(id);
                assert_eq!(object.address(), model.address, "the address of object {id}");
                if !seen.insert(id) {
                    continue;
                }
                assert!(object.id().is_none_or(|own| own == id), "object {id} was overwritten");
                let (fields, weak, list) = match (object.edges(), object.branch()) {
                    (Some(edges), _) => {
                        let edges = edges.lock(mc);
                        let next = object.node().and_then(|node| node.next.load());
                        ([edges.left, next.map(Any::Node)], edges.weak, None)
                    }
                    (None, Some(branch)) => {
                        let list = branch.list.read(mc).clone();
                        ([branch.once.get().copied(), None], None, Some(list))
                    }
                    (None, None) => ([None; 2], None, None),
                };
                for (field, (found, expected)) in fields.into_iter().zip(model.fields).enumerate() {
                    if field == 1 && stack.contains(&id) {
                        // Where they lie on the stack is not known.
                        continue;
                    }
                    assert_eq!(found.is_some(), expected.is_some(), "a field of object {id}");
                    work.extend(expected.zip(found));
                }
                let list = list.unwrap_or_default();
                assert_eq!(list.len(), model.list.len(), "the list of object {id}");
                work.extend(model.list.iter().copied().zip(list));
                assert_eq!(weak.is_some(), model.weak.is_some(), "the weak field of object {id}");
                if let Some((weak, record)) = weak.zip(model.weak) {
                    check_target(oracle, record, weak.upgrade(mc));
                }
            }
            for (slot, expected) in world.weaks.iter().zip(&*weaks) {
                let found = *slot.read(mc);
                assert_eq!(found.is_some(), expected.is_some(), "a weak slot");
                if let Some((weak, record)) = found.zip(*expected) {
                    check_target(oracle, record, weak.upgrade(mc));
                }
            }
        });
    }

    /// Ends the heap and the pool: everything that is to run has run after that.
    fn end(&mut self) {
        self.feed();
        self.replay.sync();
        let expected = self.replay.oracle.tear_down();
        let heap = Arc::into_inner(self.heap.take().expect("it has not gone"));
        drop(heap.expect("nobody visits it any more"));
        // A pool with workers has been waited for.
        if self.kind == PoolKind::Manual {
            while self.run_pending() > 0 {}
        }
        let oracle = &mut self.replay.oracle;
        oracle.read(&self.common.ledger);
        oracle.settle();
        oracle.buried(&expected, &self.pool.stats());
        oracle.new_heap(Setup::PLAIN);
        self.check_cleanups();
        self.pool.shutdown(LONG).expect("nothing is left to run");
        assert_eq!(self.pool.stats().workers, 0, "workers after a shutdown");
        self.replay.oracle.check_end();
    }
}

/// Compares what a weak pointer upgraded to.
fn check_target(oracle: &Oracle<Kind>, record: RecordNumber, found: Option<Any<'_>>) {
    let target = oracle.target(record);
    let address = target.map(|id| oracle.object(id).address);
    assert_eq!(found.map(Any::address), address, "what a weak pointer to {target:?} upgrades to");
}
