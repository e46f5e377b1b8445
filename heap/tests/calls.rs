//! Everything public that a heap offers, called in any order.
//!
//! What payloads and closures own is from `malloc`. So under the address sanitizer
//! (`.ci/sanitize.sh address`) a call that reaches what is gone is reported, and so is a leak.
//!
//! A failing program says `SEXTON_SEED=seed`, with which it alone is run. `SEXTON_ROUNDS` says how
//! many are run.

#![cfg(not(any(loom, shuttle)))]

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use sexton_cleanup::{Cleanup, Client, Pool, PoolConfig, Ticket};
use sexton_heap::{
    Gc, GcMutex, GcRefCell, HeapConfig, Leaf, LocalCleanup, Mode, Mutation, OnDrop, Pacing,
    RawHeap, RawMutator, Root, Shared, SharedRoot, Weak,
};

/// A number that is freed when the object dies, and read wherever the object is.
type Number<'gc> = Gc<'gc, Leaf<Box<u64>>>;
type Numbers<'gc> = Gc<'gc, GcRefCell<Vec<Number<'gc>>>>;
type World<'gc> = GcRefCell<(Vec<Numbers<'gc>>, Vec<Weak<'gc, Leaf<Box<u64>>>>)>;
type SharedNumbers<'gc> = Gc<'gc, GcMutex<Vec<Number<'gc>>>>;
type SharedWorld<'gc> = GcMutex<(Vec<SharedNumbers<'gc>>, Vec<Weak<'gc, Leaf<Box<u64>>>>)>;

type Kept = Leaf<Box<u64>>;
type LocalHeap = RawHeap<World<'static>>;
type SharedHeap = RawHeap<SharedWorld<'static>, Shared>;

/// What each number is; anything else was read from where no number is.
const NUMBER: u64 = 0x5e_c0_11_ec_7e_d0;

fn check(number: Number<'_>) {
    assert_eq!(***number, NUMBER);
}

/// What cleanups share: how many of them there are, and how often they ran.
#[derive(Clone, Default)]
struct Ran(Arc<AtomicU64>);

impl Ran {
    /// A cleanup that owns memory, and counts.
    fn cleanup(&self) -> impl FnOnce() + Send + 'static {
        let (ran, number) = (self.0.clone(), Box::new(NUMBER));
        move || {
            assert_eq!(*number, NUMBER);
            ran.fetch_add(1, Relaxed);
        }
    }

    /// Cleanups whose captures are still there.
    fn there(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

fn config(rng: &mut Rng) -> HeapConfig {
    let min_bytes = 1 << rng.u32(6..14);
    HeapConfig {
        max_bytes: if rng.u8(0..4) == 0 { 1 << rng.u32(8..18) } else { u64::MAX },
        pacing: match rng.u8(0..3) {
            0 => Pacing::Manual,
            1 => Pacing::Automatic { min_bytes, growth: 0.5 },
            _ => Pacing::Balanced { min_bytes },
        },
        gc_threads: Some(rng.usize(1..3)),
        spawn_helper: Some(Arc::new(|_, body| thread::Builder::new().spawn(body).map(drop))),
        pause_budget: rng.bool().then(|| budget(rng)),
        zeal: rng.u8(0..4) == 0,
        diagnostics: rng.bool(),
        on_drop: rng.choice([OnDrop::RunAll, OnDrop::RunQueued, OnDrop::Discard]).unwrap(),
        ..HeapConfig::default()
    }
}

/// How long a slice may take: a step of it, or more.
fn budget(rng: &mut Rng) -> Duration {
    Duration::from_micros(rng.choice([0, 0, 20, u64::MAX]).unwrap())
}

/// What outlives sessions, and heaps.
#[derive(Default)]
struct Handles {
    cleanups: Vec<Cleanup>,
    tickets: Vec<Ticket>,
    ran: Ran,
}

impl Handles {
    /// Registers a cleanup in one of the ways there are.
    fn add_cleanup<'gc, M: Mode>(&mut self, rng: &mut Rng, mc: &Mutation<'gc, M>, gc: Number<'gc>) {
        let cleanup = self.ran.cleanup();
        self.cleanups.push(match rng.u8(0..3) {
            0 => mc.add_cleanup(gc, cleanup),
            1 => mc.add_cleanup_labelled(gc, "a label", cleanup),
            _ => mc.add_cleanup_with(gc, Box::new(cleanup), |cleanup| cleanup()),
        });
    }

    /// Something with one of the handles, be its heap there or not.
    fn step(&mut self, rng: &mut Rng, pool: &Pool) {
        match rng.u8(0..5) {
            0 => _ = pool.run_pending(rng.usize(0..20)),
            1 => _ = self.tickets.pop().map(|ticket| ticket.wait(Duration::ZERO)),
            2 => self.tickets.iter().for_each(|ticket| _ = (ticket.is_done(), ticket.pending())),
            _ => {
                let Some(at) = rng.choice(0..self.cleanups.len()) else { return };
                match rng.u8(0..4) {
                    0 => _ = self.cleanups[at].stop(),
                    1 => _ = self.cleanups[at].run_now(),
                    2 => _ = self.cleanups[at].state(),
                    _ => drop(self.cleanups.swap_remove(at)),
                }
            }
        }
    }

    /// All heaps are gone: what did not run was dropped.
    fn end(self, pool: &Pool) {
        while pool.run_pending(usize::MAX) > 0 {}
        assert!(self.tickets.iter().all(Ticket::is_done), "cleanups are left");
        assert_eq!(self.ran.there(), 0, "captures are left");
    }
}

/// What both modes of heap tell.
fn look<R: sexton_heap::Branded, M: Mode>(heap: &RawHeap<R, M>, handles: &mut Handles) {
    _ = (heap.id(), heap.has_refused(), heap.last_report().map(|report| report.cycle));
    _ = (heap.old_roots(1), heap.stats(), heap.client().stats());
    handles.tickets.push(heap.ticket());
}

/// The panic of a session that panics on purpose.
struct Panicked;

fn caught<T>(f: impl FnOnce() -> T) -> thread::Result<T> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Catches panics that a program must expect: those on purpose, that of a full heap, and that of a
/// root in another heap.
fn expected<T>(f: impl FnOnce() -> T) -> Option<T> {
    let panic = match caught(f) {
        Ok(value) => return Some(value),
        Err(panic) => panic,
    };
    let message = panic.downcast_ref::<String>().map_or("", String::as_str);
    let known = ["is full: ", "was fetched in"].iter().any(|part| message.contains(part));
    if !known && !panic.is::<Panicked>() {
        resume_unwind(panic);
    }
    None
}

/// One heap that stays on its thread, and what belongs to it.
struct Stage {
    heap: LocalHeap,
    roots: Vec<Root<Kept>>,
    locals: Vec<LocalCleanup>,
}

impl Stage {
    fn new(rng: &mut Rng, pool: &Arc<Pool>, handles: &mut Handles) -> Self {
        if rng.u8(0..8) == 0 {
            // There is no heap, and what its root has registered is gone.
            let before = handles.ran.there();
            let ran = &handles.ran;
            let made = expected(|| -> LocalHeap {
                RawHeap::new(Client::new(pool), config(rng), |mc| {
                    if let Ok(number) = mc.try_alloc(Leaf::new(Box::new(NUMBER))) {
                        mc.add_cleanup(number, ran.cleanup());
                        mc.add_cleanup_local(number, ran.cleanup());
                    }
                    resume_unwind(Box::new(Panicked))
                })
            });
            assert!(made.is_none());
            assert_eq!(handles.ran.there(), before, "captures are left");
        }
        let heap = RawHeap::new(Client::new(pool), config(rng), |_| GcRefCell::default());
        Stage { heap, roots: Vec::new(), locals: Vec::new() }
    }

    fn step(&mut self, rng: &mut Rng, handles: &mut Handles, foreign: &[Root<Kept>]) {
        match rng.u8(0..15) {
            12.. => _ = self.heap.step(budget(rng)),
            0 => _ = self.heap.collect(),
            1 => self.heap.verify().expect("it is consistent"),
            2 => _ = self.heap.run_local_cleanups(rng.usize(0..9)),
            3 => look(&self.heap, handles),
            4 => _ = self.roots.pop(),
            5 => {
                let Some(local) = rng.choice(&self.locals) else { return };
                match rng.u8(0..3) {
                    0 => _ = local.stop(),
                    1 => _ = local.run_now(),
                    _ => _ = local.state(),
                }
            }
            6 => _ = self.roots.first().cloned().map(|root| self.roots.push(root)),
            _ => {
                _ = expected(|| self.session(rng, handles, foreign));
                let ended = self.heap.collect_if_due();
                if ended.is_none() && self.heap.has_refused() {
                    self.heap.collect();
                }
            }
        }
    }

    fn session(&mut self, rng: &mut Rng, handles: &mut Handles, foreign: &[Root<Kept>]) {
        let Stage { heap, roots, locals } = self;
        heap.mutate(|mc, world| {
            for _ in 0..rng.u8(0..20) {
                let Ok(number) = mc.try_alloc(Leaf::new(Box::new(NUMBER))) else { return };
                match rng.u8(0..9) {
                    0 => {
                        let Ok(new) = mc.try_alloc(GcRefCell::new(vec![number])) else { return };
                        world.borrow_mut(mc).0.push(new);
                    }
                    1 => {
                        let world = world.borrow();
                        let Some(numbers) = rng.choice(&world.0) else { continue };
                        numbers.borrow().iter().for_each(|number| check(*number));
                        numbers.borrow_mut(mc).push(number);
                    }
                    2 => {
                        let (some, weaks) = &mut *world.borrow_mut(mc);
                        some.truncate(rng.usize(0..20));
                        weaks.truncate(rng.usize(0..20));
                    }
                    3 => {
                        let mut world = world.borrow_mut(mc);
                        world.1.iter().filter_map(|weak| weak.upgrade(mc)).for_each(check);
                        world.1.push(mc.downgrade(number));
                    }
                    4 => handles.add_cleanup(rng, mc, number),
                    5 => locals.push(mc.add_cleanup_local(number, handles.ran.cleanup())),
                    6 => roots.push(mc.root(number)),
                    7 => {
                        let Some(root) = rng.choice(&*roots) else { continue };
                        let number = mc.fetch(root);
                        check(number);
                        handles.add_cleanup(rng, mc, number);
                        locals.push(mc.add_cleanup_local(number, handles.ran.cleanup()));
                    }
                    _ => match rng.choice(foreign) {
                        Some(root) => assert!(expected(|| mc.fetch(root)).is_none()),
                        None if rng.u8(0..9) == 0 => resume_unwind(Box::new(Panicked)),
                        None => _ = (mc.collection_due(), mc.heap_id(), format!("{mc:?}")),
                    },
                }
            }
        });
    }
}

fn local_program(seed: u64) {
    let rng = &mut Rng::with_seed(seed);
    let pool = Pool::new(PoolConfig::default(), None);
    let mut handles = Handles::default();
    let mut stages = [(); 2].map(|()| Stage::new(rng, &pool, &mut handles));
    // Of heaps that are gone.
    let mut foreign: Vec<Root<Kept>> = Vec::new();
    let mut orphans: Vec<LocalCleanup> = Vec::new();
    for _ in 0..rng.u32(1..120) {
        let at = rng.usize(0..2);
        match rng.u8(0..16) {
            0 => {
                let mut new = Stage::new(rng, &pool, &mut handles);
                std::mem::swap(&mut stages[at], &mut new);
                let Stage { heap, roots, locals } = new;
                foreign.extend(roots);
                orphans.extend(locals);
                drop(heap);
            }
            1 => _ = foreign.pop().map(|root| foreign.push(root.clone())),
            2 => _ = foreign.pop(),
            3 => _ = orphans.pop().map(|local| (local.state(), local.stop(), local.run_now())),
            4..7 => handles.step(rng, &pool),
            _ => stages[at].step(rng, &mut handles, &foreign),
        }
    }
    drop(stages);
    handles.end(&pool);
}

/// What threads hand each other.
#[derive(Default)]
struct Common<'h> {
    roots: Mutex<Vec<SharedRoot<'h, Kept>>>,
}

fn shared_program(seed: u64) {
    let rng = &mut Rng::with_seed(seed);
    let pool = Pool::new(PoolConfig::default(), None);
    let heap = RawHeap::new(Client::new(&pool), config(rng), |_| GcMutex::default());
    let common = Common::default();
    let seeds = [(); 3].map(|()| rng.u64(..));
    let ends = thread::scope(|scope| {
        let run = |seed| shared_thread(Rng::with_seed(seed), &heap, &pool, &common);
        let threads = seeds.map(|seed| scope.spawn(move || run(seed)));
        threads.map(|thread| thread.join().expect("it found no fault"))
    });
    drop(common);
    drop(heap);
    ends.into_iter().for_each(|handles| handles.end(&pool));
}

fn shared_thread<'h>(
    mut rng: Rng,
    heap: &'h SharedHeap,
    pool: &Pool,
    common: &Common<'h>,
) -> Handles {
    let rng = &mut rng;
    let mut handles = Handles::default();
    let mut mutator: Option<RawMutator<'_, SharedWorld<'static>>> = None;
    for _ in 0..rng.u32(1..60) {
        match (&mut mutator, rng.u8(0..15)) {
            (_, 0) => look(heap, &mut handles),
            (_, 1) => handles.step(rng, pool),
            (_, 2) => _ = common.roots.lock().unwrap().pop(),
            (None, _) => mutator = heap.attach().ok(),
            (Some(_), 3) => assert!(heap.attach().is_err(), "a thread has one mutator"),
            (Some(_), 4) => drop(mutator.take()),
            (Some(mutator), 5) => _ = mutator.collect(),
            (Some(mutator), 6) => mutator.verify().expect("it is consistent"),
            (Some(mutator), 12..) => _ = mutator.step(budget(rng)),
            (Some(mutator), 7) => _ = (mutator.gc_pending(), mutator.collect_if_refused()),
            (Some(mutator), _) => {
                let session = expected(|| shared_session(rng, heap, mutator, &mut handles, common));
                // At once, or never.
                if let Some(Some(due)) = session
                    && rng.u8(0..4) > 0
                {
                    mutator.collect_if_due(due);
                }
            }
        }
    }
    drop(mutator);
    if rng.u8(0..10) == 0 {
        attach_for_ever(heap);
    }
    handles
}

/// Has the thread attached until the heap goes, with free slots at hand. A leak on purpose; named
/// in `.ci/lsan.supp`.
#[inline(never)]
fn attach_for_ever(heap: &SharedHeap) {
    let mut mutator = heap.attach().expect("the thread has left");
    mutator.mutate(|mc, _| _ = mc.try_alloc(Leaf::new(Box::new(NUMBER))));
    std::mem::forget(mutator);
}

fn shared_session<'h>(
    rng: &mut Rng,
    heap: &'h SharedHeap,
    mutator: &mut RawMutator<'_, SharedWorld<'static>>,
    handles: &mut Handles,
    common: &Common<'h>,
) -> Option<sexton_heap::Due> {
    let ((), due) = mutator.mutate(|mc, world| {
        for _ in 0..rng.u8(0..20) {
            let Ok(number) = mc.try_alloc(Leaf::new(Box::new(NUMBER))) else { return };
            match rng.u8(0..9) {
                0 => {
                    let Ok(new) = mc.try_alloc(GcMutex::new(vec![number])) else { return };
                    world.lock(mc).0.push(new);
                }
                1 => {
                    let numbers = rng.choice(&world.lock(mc).0).copied();
                    let Some(numbers) = numbers else { continue };
                    let mut numbers = numbers.lock(mc);
                    numbers.iter().for_each(|number| check(*number));
                    numbers.push(number);
                }
                2 => {
                    let mut world = world.lock(mc);
                    world.0.truncate(rng.usize(0..20));
                    world.1.truncate(rng.usize(0..20));
                }
                3 => {
                    let mut world = world.lock(mc);
                    world.1.iter().filter_map(|weak| weak.upgrade(mc)).for_each(check);
                    // It may find no room.
                    let Some(weak) = expected(|| mc.downgrade(number)) else { return };
                    world.1.push(weak);
                }
                4 | 5 => handles.add_cleanup(rng, mc, number),
                6 => common.roots.lock().unwrap().push(heap.share(&mc.root(number))),
                7 => {
                    let root = rng.choice(&*common.roots.lock().unwrap()).cloned();
                    let Some(root) = root else { continue };
                    let number = mc.fetch_shared(&root);
                    check(number);
                    handles.add_cleanup(rng, mc, number);
                }
                _ if rng.u8(0..20) == 0 => resume_unwind(Box::new(Panicked)),
                _ => _ = (mc.gc_pending(), mc.collection_due(), format!("{mc:?}")),
            }
        }
    });
    due
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().expect("the variable is a number"))
}

/// Runs programs, and says which one failed.
fn run(what: &str, programs: u64, program: fn(u64)) {
    let quiet = |seed| {
        if let Err(panic) = caught(|| program(seed)) {
            eprintln!("{what}: run it again with SEXTON_SEED={seed}");
            resume_unwind(panic);
        }
    };
    if let Some(seed) = number("SEXTON_SEED") {
        return quiet(seed);
    }
    let first = fastrand::u64(..);
    println!("{what}: begins with SEXTON_SEED={first}");
    let rounds = number("SEXTON_ROUNDS").unwrap_or(1);
    (0..programs * rounds).for_each(|nth| quiet(first.wrapping_add(nth)));
}

#[test]
fn a_local_heap_bears_its_calls_in_any_order() {
    run("a local heap's calls", 1000, local_program);
}

#[test]
fn a_shared_heap_bears_its_calls_in_any_order() {
    run("a shared heap's calls", 200, shared_program);
}
