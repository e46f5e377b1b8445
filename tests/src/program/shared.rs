//! Programs for several mutators of one heap: they do their shares at the same time. Then their
//! journals are replayed to the oracle, and everything is compared.
//!
//! A journal has an entry for each operation, with a stamp, what it has changed, and what it has
//! seen. When all mutators have ended, the entries of all journals and the ledger's events are put
//! in the order of their stamps and replayed. A single thread could have done it all in that order:
//!
//! - an operation takes its stamp while it holds the locks of whatever it changes or compares, so
//!   operations that touch the same thing are in the order in which they touched it;
//! - a session is open when its stamp is taken, and a cycle runs while none is. Each entry says how
//!   many cycles its session has seen completed: so the oracle knows which entries lie between two
//!   cycles, and runs its own there.
//!
//! This module holds the threads, the roots that they share, and the order in which all of that
//! ends. A program for one mutator has none of it, and the oracle can be asked after each operation
//! there. So `local` has a loop of its own.
//!
//! Threads run as they like, so a program that has failed need not fail again; it does, mostly, if
//! it is run often enough.
//!
//! Invariant: when no mutator is at work any more, every counter, state and pointer agrees with the
//! oracle.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use sexton::{
    CleanupPool, GcReport, Heap, Mutation, Mutator, Progress, Shared, VerifyError, WaitError,
};

use super::common::Common;
use super::hand::{Hand, slot};
use super::journal::{Deed, RootNumber};
use super::ledger::{Id, Probe};
use super::ops::{Crew, Op, PoolKind, Program, Setup, Step};
use super::payload::{AnySharedRoot, HERD, Kind, World};
use super::replay::Replay;
use super::session::{Door, Scribe};
use super::setup::{LONG, configure, flock, herd as herd_of, new_pool};
use super::tally::{Tally, message, modulo};
use crate::quiet::quietly;

type SharedHeap = Heap<World<'static, Shared>, Shared>;

/// Roots that any thread may use. Beside [`Common`], which cleanups own: they cannot own
/// these.
#[derive(Default)]
struct SharedRoots<'h> {
    /// Held while a change of one of them is written down.
    linked: Mutex<Vec<(RootNumber, AnySharedRoot<'h, Shared>)>>,
    /// Each of an object that nothing else keeps.
    islands: Mutex<Vec<(RootNumber, AnySharedRoot<'h, Shared>)>>,
}

/// A mutator of the heap.
struct Attached<'r, 'h> {
    heap: &'h SharedHeap,
    roots: &'r SharedRoots<'h>,
    /// `None` while it is detached.
    mutator: Option<Mutator<'h, World<'static, Shared>>>,
}

impl<'r, 'h> Attached<'r, 'h> {
    fn new(heap: &'h SharedHeap, roots: &'r SharedRoots<'h>) -> Self {
        Attached { heap, roots, mutator: None }
    }

    fn mutator(&mut self) -> &mut Mutator<'h, World<'static, Shared>> {
        self.mutator.get_or_insert_with(|| self.heap.attach())
    }
}

impl Door for Attached<'_, '_> {
    type Mode = Shared;

    fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(
            &Mutation<'gc, Shared>,
            &'gc World<'gc, Shared>,
            &dyn Fn() -> Option<GcReport>,
        ) -> T,
    ) -> T {
        let heap = self.heap;
        self.mutator().mutate(|mc, world| f(mc, world, &|| heap.last_report()))
    }

    fn collect(&mut self) -> GcReport {
        self.mutator().collect()
    }

    fn step(&mut self, budget: Duration) -> Progress {
        self.mutator().step(budget)
    }

    fn verify(&mut self) -> Result<(), VerifyError> {
        self.mutator().verify()
    }
}

/// The current thread has a mutator of the program's heap, or had better not attach one.
struct Here(());

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

impl Here {
    /// Takes the place, if it is free.
    fn enter() -> Option<Here> {
        let sweeps = thread::current().name().is_some_and(|name| name.starts_with("sexton-gc-"));
        (!sweeps && !HERE.replace(true)).then(|| Here(()))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        HERE.set(false);
    }
}

/// What a cleanup does that visits the heap: it attaches a mutator of its own and puts a node onto
/// the stack; unless the thread has a mutator, or is in the middle of a cycle.
fn visit(heap: &SharedHeap, common: &Arc<Common>, setup: Setup) {
    let Some(_here) = Here::enter() else { return };
    let roots = SharedRoots::default();
    let mut scribe = Scribe::new(common, setup, false);
    scribe.journal.by = (usize::MAX, 0);
    let mut door = Attached::new(heap, &roots);
    scribe.session(
        &mut door,
        |_| false,
        |s| {
            s.push_node();
            s.log();
        },
    );
    drop(door);
    scribe.hand_in();
}

impl<'h> Hand<Attached<'_, 'h>> {
    /// Does the steps, until one fails, here or elsewhere. What it has written down is there for
    /// the replay then.
    fn play<'p>(&mut self, number: usize, steps: impl Iterator<Item = (usize, &'p Step)>) -> Tally {
        let mut tally = Tally::default();
        let common = self.scribe.common.clone();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            self.door.mutator();
            for (at, step) in steps {
                if common.has_failed() {
                    return;
                }
                self.scribe.journal.by = (number, at);
                self.scribe.lull = step.lull;
                if step.lull & Step::BEFORE != 0 {
                    thread::yield_now();
                }
                match catch_unwind(AssertUnwindSafe(|| self.shared_step(&step.op))) {
                    Ok(true) => tally.count(&step.op),
                    Ok(false) => {}
                    Err(payload) => {
                        let message = message(&*payload);
                        common.fail(format!("step {at}, {:?}: {message}", step.op));
                    }
                }
            }
            self.leave();
        }));
        if let Err(payload) = ended {
            common.fail(format!("mutator {number}: {}", message(&*payload)));
        }
        self.scribe.hand_in();
        tally
    }

    /// Drops the roots that no other thread has, and detaches.
    fn leave(&mut self) {
        if !self.scribe.common.has_failed() {
            let roots = std::mem::take(&mut self.roots);
            self.session(|s| {
                for (root, _, handle) in roots {
                    drop(handle);
                    s.deeds.push(Deed::Unroot { root });
                }
                s.log();
            });
        }
        self.door.mutator = None;
    }

    /// Does one operation, if several mutators are what it is for; whether it had any effect.
    fn shared_step(&mut self, op: &Op) -> bool {
        let (heap, SharedRoots { linked, islands }) = (self.door.heap, self.door.roots);
        match *op {
            Op::Share { object } => self.session(|s| {
                let Some(object) = s.find(object, |_| true) else { return };
                let (root, handle) = (s.common.next_root(), object.root(s.mc).share(heap));
                let mut shared = linked.lock();
                shared.push((root, handle));
                s.deeds.push(Deed::Root { root, object: object.into() });
                s.log();
            }),
            Op::CloneShared { root } => {
                let mut shared = linked.lock();
                let Some(at) = modulo(root, shared.len()) else { return false };
                let (of, root) = (shared[at].0, self.scribe.common.next_root());
                let clone = shared[at].1.clone();
                shared.push((root, clone));
                self.scribe.write(Deed::CloneRoot { root, of })
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
                self.scribe.write(Deed::Sinking { root });
                drop(handle);
                self.scribe.write(Deed::Sunk { root })
            }
            Op::Long { most } => self.session(|s| {
                for _ in 0..most {
                    if s.mc.gc_pending() || s.alloc(Kind::Plain, true).is_none() {
                        break;
                    }
                }
                s.log();
            }),
            Op::Detach => self.door.mutator.take().is_some(),
            Op::Wait => {
                let manual = self.pool.max_workers() == 0;
                let timeout = if manual { Duration::ZERO } else { LONG };
                match heap.wait_for_cleanups(timeout) {
                    Ok(()) => {}
                    Err(WaitError::Timeout { pending }) => assert!(manual && pending > 0),
                    Err(error) => panic!("{error}"),
                }
                true
            }
            _ => self.step(op),
        }
    }

    fn island(&mut self, cleanup: bool) -> bool {
        let heap = self.door.heap;
        let mut made = None;
        let effective = self.session(|s| {
            let Some(object) = s.alloc(Kind::Token, true) else { return s.log() };
            let (root, handle) = (s.common.next_root(), object.root(s.mc).share(heap));
            s.deeds.push(Deed::Island { root, object: object.into() });
            if cleanup {
                s.register(object, s.plain());
            }
            s.log();
            made = Some((root, handle));
        });
        self.door.roots.islands.lock().extend(made);
        effective
    }
}

/// Runs a program for several mutators.
pub(super) fn run(program: &Program, crew: Crew) -> Tally {
    let mut stage = Stage::new(program, crew);
    match catch_unwind(AssertUnwindSafe(|| stage.play(program, crew))) {
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
    setup: Setup,
    common: Arc<Common>,
    replay: Replay,
}

impl Stage {
    fn new(program: &Program, crew: Crew) -> Self {
        let setup = program.setup;
        let steps = program.steps.iter().any(|step| matches!(step.op, Op::Step { .. }));
        let common = Arc::new(Common::new(steps));
        let pool = new_pool(program.pool, &common.ledger);
        let probe = Probe::new(common.next_id(), &common.ledger);
        let root = probe.id;
        if setup.bomb {
            probe.arm();
        }
        // Not where it would be verified after each session.
        let herd = crew.herd && setup.limit.is_none() && !setup.zeal;
        let members = if herd { HERD } else { flock(setup) };
        let mut told: Vec<(Id, usize)> = Vec::new();
        let builder = SharedHeap::builder().gc_threads(crew.gc_threads);
        let heap = configure(builder, &pool, setup)
            .build(|mc| World::new(probe, herd_of(mc, &common, members, &mut told)));
        let heap = Arc::new(heap);
        // The cleanups must not keep it.
        let (visited, writes) = (Arc::downgrade(&heap), Arc::downgrade(&common));
        let visits = move || {
            if let (Some(heap), Some(common)) = (visited.upgrade(), writes.upgrade()) {
                visit(&heap, &common, setup);
            }
        };
        let first = common.visit.set(Arc::new(visits));
        assert!(first.is_ok(), "a program has one heap");
        let in_slices = setup.pause.is_some() || steps;
        let mut replay = Replay::new::<Shared>(setup, false, false, in_slices);
        replay.new_heap(setup, root, told);
        if in_slices {
            replay.may_begin();
        }
        Stage { heap: Some(heap), pool, kind: program.pool, setup, common, replay }
    }

    fn play(&mut self, program: &Program, crew: Crew) -> Tally {
        // Shared roots borrow it; it goes before the stage's own.
        let heap = self.heap.clone().expect("it has been made");
        let roots = SharedRoots::default();
        let tally = self.mutate(program, crew, &heap, &roots);
        self.feed();
        self.replay.single = true;
        self.compare();
        self.collect();
        self.drop_roots(roots);
        drop(heap);
        self.collect();
        self.collect();
        if self.setup.pace.is_none() && !self.setup.zeal && !self.replay.in_slices {
            let cycles = self.heap().stats().cycles;
            assert_eq!(cycles, self.replay.due, "cycles, of which none was asked for");
        }
        if self.setup.limit.is_some() {
            // With one mutator, and nothing at hand elsewhere.
            self.replay.room_is_known = true;
            self.alone(|hand, _| {
                let kinds = [Kind::Wide, Kind::Branch, Kind::Node, Kind::Zero];
                assert!(hand.fill(&kinds, usize::MAX), "the heap is not full");
            });
            self.collect();
        }
        self.compare();
        self.end();
        tally
    }

    /// The mutators, each on its thread.
    fn mutate<'h>(
        &self,
        program: &Program,
        crew: Crew,
        heap: &'h SharedHeap,
        roots: &SharedRoots<'h>,
    ) -> Tally {
        let start = Barrier::new(crew.mutators);
        let play = |number: usize| {
            let _here = Here::enter().expect("a new thread");
            let scribe = Scribe::new(&self.common, self.setup, false);
            let mut hand = Hand::new(Attached::new(heap, roots), scribe, self.pool.clone());
            let mine =
                |(_, step): &(usize, &Step)| usize::from(step.hand) % crew.mutators == number;
            start.wait();
            quietly(|| hand.play(number, program.steps.iter().enumerate().filter(mine)))
        };
        let mut tally = Tally::default();
        thread::scope(|scope| {
            let play = &play;
            let hands: Vec<_> =
                (0..crew.mutators).map(|number| scope.spawn(move || play(number))).collect();
            for hand in hands {
                tally.add(&hand.join().expect("its panics are caught"));
            }
        });
        tally
    }

    fn heap(&self) -> &SharedHeap {
        self.heap.as_ref().expect("it has not gone")
    }

    /// Lets this thread do something, as the only mutator there is, and replays it.
    fn alone(&mut self, f: impl FnOnce(&mut Hand<Attached<'_, '_>>, &Replay)) {
        {
            let _here = Here::enter().expect("no other mutator is on this thread");
            let (heap, roots) = (self.heap(), SharedRoots::default());
            let scribe = Scribe::new(&self.common, self.setup, false);
            let mut hand = Hand::new(Attached::new(heap, &roots), scribe, self.pool.clone());
            f(&mut hand, &self.replay);
            hand.door.mutator = None;
            hand.scribe.journal.note(heap.last_report());
            hand.scribe.hand_in();
        }
        self.feed();
    }

    /// Drops all shared roots, those of islands included; the mutators have dropped their own.
    fn drop_roots(&mut self, roots: SharedRoots<'_>) {
        let SharedRoots { linked, islands } = roots;
        self.alone(|hand, _| {
            hand.session(|s| {
                for (root, handle) in linked.into_inner() {
                    drop(handle);
                    s.deeds.push(Deed::Unroot { root });
                }
                for (root, handle) in islands.into_inner() {
                    s.deeds.push(Deed::Sinking { root });
                    drop(handle);
                    s.deeds.push(Deed::Sunk { root });
                }
                s.log();
                // The session was open after that.
                s.log();
            });
        });
    }

    /// Lets all queued cleanups end, and replays what has been written down since the last time.
    fn feed(&mut self) {
        loop {
            let slices = self.heap().stats().pause.count;
            // A thread may be at a sweep. It ends, and is not started before the next slice.
            self.heap().attach().verify().expect("the heap is consistent");
            if self.kind == PoolKind::Manual {
                while self.run_pending() > 0 {}
            } else {
                self.heap().wait_for_cleanups(LONG).expect("the workers are at it");
            }
            // Cleanups that visit the heap may have queued others, or run a slice.
            let stats = self.heap().stats();
            if stats.cleanups.backlog == 0 && stats.pause.count == slices {
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
        self.replay.sync();
        self.replay.oracle.settle();
    }

    fn run_pending(&self) -> usize {
        let ran = self.pool.run_pending(usize::MAX);
        self.common.has_run(ran);
        ran
    }

    /// Collects, and compares all counters: no thread has anything at hand then.
    fn collect(&mut self) {
        self.alone(|hand, _| {
            hand.step(&Op::Collect);
            hand.step(&Op::Verify);
        });
        self.check();
    }

    /// Compares every object and every pointer.
    fn compare(&mut self) {
        self.alone(|hand, replay| {
            hand.session(|s| replay.compare(s.mc, s.world, &[]));
        });
    }

    fn check(&mut self) {
        self.replay.sync();
        let stats = self.heap().stats();
        self.replay.adopt(&stats);
        self.replay.oracle.check_heap(&stats, true);
        self.replay.check_cleanups(&self.common, &self.pool);
    }

    /// Ends the heap and the pool: everything that is to run has run after that.
    fn end(&mut self) {
        self.feed();
        self.replay.sync();
        let expected = self.replay.oracle.tear_down();
        let heap = Arc::into_inner(self.heap.take().expect("it has not gone"));
        drop(heap.expect("no visit is open"));
        // A pool with workers has been waited for.
        if self.kind == PoolKind::Manual {
            while self.run_pending() > 0 {}
        }
        let oracle = &mut self.replay.oracle;
        oracle.read(&self.common.ledger);
        oracle.settle();
        oracle.buried(&expected, &self.pool.stats());
        oracle.new_heap(Setup::PLAIN);
        self.replay.check_cleanups(&self.common, &self.pool);
        self.pool.shutdown(LONG).expect("nothing is left to run");
        assert_eq!(self.pool.stats().workers, 0, "workers after a shutdown");
        self.replay.oracle.check_end();
    }
}
