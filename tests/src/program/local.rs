//! Programs for one mutator, on heaps of its own: each operation is done to the heap, its journal
//! is replayed to the oracle at once, and then everything is compared.
//!
//! This module also holds the operations that end a heap or a pool, or compare with the oracle by
//! themselves. With several threads at work the oracle is not up to date, and no heap can end.
//!
//! Invariant: after each operation the heap verifies. With a manual pool every counter, state,
//! pointer and report agrees with the oracle then; with workers the heap's objects do, and the
//! cleanups whenever they have been waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use sexton::{CleanupPool, GcReport, Heap, Local, Mutation, Progress, VerifyError, WaitError};

use super::cleanups::{Handle, Plan, Registry};
use super::common::Common;
use super::hand::{Hand, keep_in};
use super::journal::Deed;
use super::ledger::{Action, Probe, throw};
use super::ops::{Act, Op, PoolKind, Program, Setup};
use super::payload::{Kind, Seed, World};
use super::place::Ground;
use super::replay::Replay;
use super::session::{Door, Scribe};
use super::setup::{LONG, configure, flock, herd, new_pool};
use super::tally::{Tally, message};
use crate::quiet::{panics, quietly};

type LocalHeap = Heap<World<'static, Local>>;

impl Door for LocalHeap {
    type Mode = Local;

    fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(
            &Mutation<'gc, Local>,
            &'gc World<'gc, Local>,
            &dyn Fn() -> Option<GcReport>,
        ) -> T,
    ) -> T {
        let report = self.last_report();
        Heap::mutate(self, |mc, world| f(mc, world, &|| report))
    }

    fn collect(&mut self) -> GcReport {
        Heap::collect(self)
    }

    fn step(&mut self, budget: Duration) -> Progress {
        Heap::step(self, budget)
    }

    fn verify(&mut self) -> Result<(), VerifyError> {
        Heap::verify(self)
    }
}

/// Runs a program for one mutator.
pub(super) fn run(program: &Program) -> Tally {
    let mut tally = Tally::default();
    let mut machine = Machine::new(program.pool, program.setup);
    for (at, step) in program.steps.iter().enumerate() {
        let op = &step.op;
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

/// A heap, its pool, what the program holds of them, and the oracle.
struct Machine {
    /// `None` only while one heap is replaced by the next.
    hand: Option<Hand<LocalHeap>>,
    pool: CleanupPool,
    kind: PoolKind,
    common: Arc<Common>,
    replay: Replay,
}

impl Machine {
    fn new(kind: PoolKind, setup: Setup) -> Self {
        let common = Arc::new(Common::new(false));
        let pool = new_pool(kind, &common.ledger);
        let replay = Replay::new::<Local>(setup, true, kind == PoolKind::Manual, false);
        let mut machine = Machine { hand: None, pool, kind, common, replay };
        machine.make_heap(setup);
        machine
    }

    fn make_heap(&mut self, setup: Setup) {
        let probe = Probe::new(self.common.next_id(), &self.common.ledger);
        if setup.bomb {
            probe.arm();
        }
        let root = probe.id;
        let mut members = Vec::new();
        let common = &self.common;
        let heap = configure(Heap::builder(), &self.pool, setup)
            .build(|mc| World::new(probe, herd(mc, common, flock(setup), &mut members)));
        self.replay.new_heap(setup, root, members);
        let scribe = Scribe::new(&self.common, setup, true);
        self.hand = Some(Hand::new(heap, scribe, self.pool.clone()));
    }

    /// Calls `f`; if heap and oracle disagree, the answer is in what.
    fn attempt<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> Result<T, String> {
        catch_unwind(AssertUnwindSafe(|| f(self))).map_err(|payload| {
            // A heap that has gone wrong may abort the process when it is dropped, and the reason
            // would be lost.
            std::mem::forget(self.hand.take());
            let _ = self.pool.shutdown(Duration::from_secs(1));
            message(&*payload).to_owned()
        })
    }

    /// Does one operation; whether it had any effect.
    fn step(&mut self, op: &Op) -> bool {
        // Until a wait says otherwise, workers may be at it.
        self.replay.quiescent = self.is_manual();
        let effective = match *op {
            Op::AllocKeeper { object, slot } => self.alloc_keeper(object, slot),
            Op::Collect => return self.collect(),
            Op::RunPending { max } => return self.run_pending(op, max),
            Op::Wait => return self.wait(),
            Op::Rearm => self.rearm(),
            Op::NewHeap { setup } => return self.new_heap(setup),
            Op::FailToBuild => return self.fail_to_build(),
            Op::Shutdown => return self.shutdown(),
            // Some panic on purpose.
            _ => quietly(|| self.hand().step(op)),
        };
        self.feed();
        effective
    }

    fn is_manual(&self) -> bool {
        self.kind == PoolKind::Manual
    }

    fn hand(&mut self) -> &mut Hand<LocalHeap> {
        self.hand.as_mut().expect("there is a heap")
    }

    fn heap(&self) -> &LocalHeap {
        &self.hand.as_ref().expect("there is a heap").door
    }

    /// Replays what has been written down since the last time.
    fn feed(&mut self) {
        let Machine { hand, common, replay, .. } = self;
        let hand = hand.as_mut().expect("there is a heap");
        let cycles = hand.scribe.journal.note(hand.door.last_report());
        hand.scribe.hand_in();
        let journals = std::mem::take(&mut *common.journals.lock());
        replay.feed(journals, common.ledger.take(), cycles);
        self.settle();
    }

    fn settle(&mut self) {
        self.replay.oracle.read(&self.common.ledger);
        if self.replay.quiescent {
            self.replay.oracle.settle();
        }
    }

    /// The workers have been waited for: nothing runs, and nothing is queued.
    fn rest(&mut self) {
        self.replay.quiescent = true;
        self.settle();
        if !self.is_manual() {
            let backlog = self.replay.oracle.backlog();
            assert_eq!(backlog, 0, "cleanups were waited for, and have not run");
        }
    }

    // ---- operations that know the oracle, or end a heap
    // ----------------------------------------------------

    fn alloc_keeper(&mut self, object: u8, at: u8) -> bool {
        self.hand().session(|s| {
            let Some(object) = s.find(object, |_| true) else { return };
            let keeper = s.grow(Seed::Keeper(object.root(s.mc)), true);
            if let Some(keeper) = keeper {
                s.deeds.push(Deed::Keep { keeper: keeper.into(), object: object.into() });
            }
            keep_in(s, at, keeper.filter(|_| at.is_multiple_of(2)));
            s.log();
        })
    }

    /// Collects, and compares every object and pointer.
    fn collect(&mut self) -> bool {
        // A cycle that is under way ends first. What it drops may free roots, of which the oracle
        // would hear too late.
        while self.replay.oracle.is_collecting() {
            self.hand().step(&Op::Step { budget: u8::MAX });
            self.feed();
        }
        self.hand().step(&Op::Collect);
        self.feed();
        let Machine { hand, replay, .. } = self;
        let hand = hand.as_mut().expect("there is a heap");
        let roots = std::mem::take(&mut hand.roots);
        hand.session(|s| replay.compare(s.mc, s.world, &roots));
        hand.roots = roots;
        self.feed();
        true
    }

    fn run_pending(&mut self, op: &Op, max: u8) -> bool {
        let before = self.common.pool_ran.load(SeqCst);
        let effective = self.hand().step(op);
        self.feed();
        if self.replay.quiescent {
            let ran = self.common.pool_ran.load(SeqCst) - before;
            let left = self.replay.oracle.backlog();
            assert!(ran == u64::from(max) || left == 0, "{ran} of {max} were run, {left} are left");
        }
        effective
    }

    fn wait(&mut self) -> bool {
        if self.is_manual() {
            let backlog = self.replay.oracle.heap_backlog();
            let most = backlog + self.replay.oracle.dying_cleanups();
            match self.heap().wait_for_cleanups(Duration::ZERO) {
                Ok(()) => assert_eq!(backlog, 0, "the wait says that nothing is pending"),
                Err(WaitError::Timeout { pending }) => {
                    assert!((backlog..=most).contains(&pending), "{pending} are pending");
                }
                Err(error) => panic!("{error}"),
            }
        } else {
            self.heap().wait_for_cleanups(LONG).expect("the workers are at it");
            self.rest();
        }
        true
    }

    fn rearm(&mut self) -> bool {
        self.replay.oracle.read(&self.common.ledger);
        let rearms = std::mem::take(&mut self.replay.oracle.rearms);
        for &left in &rearms {
            let hand = self.hand();
            let mut handle = None;
            hand.session(|s| {
                if let Some(object) = s.alloc(Kind::Plain, true) {
                    let action = left.checked_sub(1).map(Action::Rearm);
                    let plan = Plan { action, act: Act::Rearm, ..s.plain() };
                    handle = Some(s.register(object, plan));
                }
                s.log();
            });
            hand.scribe.common.handles.lock().extend(handle);
        }
        !rearms.is_empty()
    }

    fn new_heap(&mut self, setup: Setup) -> bool {
        self.replay.sync();
        let expected = self.replay.oracle.tear_down();
        let hand = self.hand.take().expect("there is a heap");
        // Those outlive their heap.
        let roots = hand.roots;
        drop(hand.door);
        // The drop has waited for the workers.
        self.rest();
        self.replay.oracle.buried(&expected, &self.pool.stats());
        if self.replay.oracle.is_closed() {
            self.replay.check_cleanups(&self.common, &self.pool);
            self.pool = new_pool(self.kind, &self.common.ledger);
            self.replay.oracle.new_pool();
        }
        self.make_heap(setup);
        self.hand().roots = roots;
        true
    }

    fn fail_to_build(&mut self) -> bool {
        let ledger = &self.common.ledger;
        let Plan { capture, .. } = Plan::plain(self.common.next_number(), ledger);
        let (id, number) = (self.common.next_id(), capture.number);
        self.replay.oracle.stillborn(id, number);
        let mut cleanup = None;
        let panicked = panics(|| {
            let builder = Heap::<World<'static, Local>>::builder();
            configure(builder, &self.pool, Setup::PLAIN).build(|mc| {
                let token = Local::alloc(mc, Seed::Alone(Kind::Token), id, ledger, false);
                let token = token.expect("there is no limit");
                cleanup = Some((mc, token).add_cleanup(move || capture.ran()));
                throw();
            })
        });
        assert!(panicked, "a heap without a root was made");
        let cleanup = cleanup.expect("it was registered before the panic");
        self.common.handles.lock().push(Handle::new(number, cleanup));
        self.settle();
        true
    }

    fn shutdown(&mut self) -> bool {
        if self.replay.oracle.is_closed() {
            return false;
        }
        self.replay.oracle.shut_down();
        let before = self.pool.stats().discarded;
        let end = self.pool.shutdown(LONG);
        if self.pool.max_workers() == 0 {
            let discarded = self.pool.stats().discarded - before;
            let told = end.map_or_else(|end| end.discarded, |()| 0);
            assert_eq!(told, discarded, "a shutdown's answer");
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
        self.settle();
        self.replay.sync();
        let quiescent = self.replay.quiescent;
        let stats = self.heap().stats();
        if quiescent {
            self.replay.adopt(&stats);
        }
        self.replay.oracle.check_heap(&stats, quiescent);
        if quiescent {
            self.replay.check_cleanups(&self.common, &self.pool);
        } else {
            self.common.handles.lock().iter().for_each(|handle| _ = handle.look());
        }
    }

    /// Ends the heap and the pool: everything that is to run has run after that.
    fn finish(&mut self) {
        self.replay.quiescent = self.is_manual();
        for op in [Op::Collect, Op::Wait, Op::NewHeap { setup: Setup::PLAIN }] {
            self.step(&op);
            self.check();
        }
        if self.is_manual() {
            while self.step(&Op::RunPending { max: 7 }) {
                self.check();
            }
        }
        self.shutdown();
        self.check();
        self.replay.oracle.check_end();
    }
}
