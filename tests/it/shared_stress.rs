//! Stress of one shared heap: threads that attach, detach, link, let go, register, stop, collect,
//! all at a time, while cleanups come back to the heap.
//!
//! What is proved, round after round:
//! - *No object is lost or used after its end.* Every item that is reached answers for its own
//!   number, and for that of its link; in zeal rounds dead slots are overwritten, and each cycle is
//!   verified.
//! - *Each item is dropped once, and no earlier than it may.* A second ledger has a line for each
//!   item.
//! - *Each cleanup runs once, or was stopped*, whichever threads raced for it, and its captures are
//!   dropped once.
//!
//! Each round has a seed, from which all choices come; how the threads mix is new each time. A
//! watchdog ends a round that hangs, and says what each thread was at.
//! - `SEXTON_SEED=seed` begins with the round of that seed;
//! - `SEXTON_ROUNDS=number` runs that number of rounds, `SEXTON_MINUTES=number` for that time.
//!   `.ci/soak-shared.sh` takes half an hour.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use sexton::{
    Cleanup, CleanupPool, Gc, GcAtomic, GcMutex, GcRwLock, Heap, Leaf, Mutation, Mutator, OnDrop,
    Pacing, Shared, SharedRoot, Trace, Weak,
};
use sexton_tests::settings::{number, rounds, zeal};

use crate::ledger::{Entry, Ledger};

const MUTATORS: usize = 4;
const KEYS: u64 = 256;
const PARTS: usize = 8;
const SLOTS: usize = 16;
/// What one mutator does in a round.
const TURNS: usize = 600;
const ZEAL_TURNS: usize = 60;
/// Lines of a round's ledgers.
const LINES: usize = 16_384;
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Trace)]
struct Item<'gc> {
    key: u64,
    /// `!key`: garbage does not have it.
    check: u64,
    link: GcAtomic<'gc, Item<'gc>>,
    others: GcMutex<Vec<Gc<'gc, Item<'gc>>>>,
    /// Its drop is written down.
    entry: Leaf<Option<Entry>>,
}

#[derive(Trace, Default)]
struct World<'gc> {
    table: [GcRwLock<HashMap<u64, Weak<'gc, Item<'gc>>>>; PARTS],
    strong: [GcAtomic<'gc, Item<'gc>>; SLOTS],
}

type SharedHeap = Heap<World<'static>, Shared>;

impl<'gc> Item<'gc> {
    /// It is what it says, and so is what it leads to.
    #[track_caller]
    fn is_sound(&self, mc: &Mutation<'gc, Shared>) {
        assert_eq!(self.check, !self.key, "an item is not itself");
        if let Some(link) = self.link.load() {
            assert_eq!(link.check, !link.key, "a link leads to no item");
        }
        for other in &*self.others.lock(mc) {
            assert_eq!(other.check, !other.key, "one of others is no item");
        }
    }
}

/// What the rounds have seen.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    zeal_rounds: u64,
    sessions: u64,
    items: u64,
    cleanups: u64,
    ran: u64,
    stopped: u64,
    ran_early: u64,
    cycles: u64,
    attached: u64,
    longest_pause: Duration,
}

/// Roots that wander between threads.
type Roots<'h> = Mutex<Vec<SharedRoot<'h, Item<'static>>>>;

/// One round.
struct Scene {
    heap: SharedHeap,
    items: Ledger,
    cleanups: Ledger,
    next_item: AtomicUsize,
    next_cleanup: AtomicUsize,
    handles: Mutex<Vec<Cleanup>>,
    stopped: AtomicU64,
    ran_early: AtomicU64,
    sessions: AtomicU64,
    attached: AtomicU64,
    /// What each mutator is at.
    at: [Mutex<&'static str>; MUTATORS],
}

impl Scene {
    fn new(rng: &mut Rng, zeal: bool) -> Arc<Self> {
        let pool = CleanupPool::builder().max_workers(rng.usize(1..=3)).build();
        let pacing = if rng.bool() {
            Pacing::Automatic { min_bytes: 1 << rng.u32(12..18), growth: 0.5 }
        } else {
            Pacing::Manual
        };
        let heap = Heap::<World<'static>, Shared>::builder()
            .cleanup_pool(&pool)
            .pacing(pacing)
            .zeal(zeal)
            .gc_threads(rng.usize(1..=3))
            .on_drop(OnDrop::RunAll)
            .drop_timeout(PATIENCE)
            .build(|_| World::default());
        Arc::new(Scene {
            heap,
            items: Ledger::new(LINES),
            cleanups: Ledger::new(LINES),
            next_item: AtomicUsize::new(0),
            next_cleanup: AtomicUsize::new(0),
            handles: Mutex::default(),
            stopped: AtomicU64::new(0),
            ran_early: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            attached: AtomicU64::new(0),
            at: Default::default(),
        })
    }

    /// Does a mutator's part: `turns` turns.
    fn act<'h>(&'h self, roots: &Roots<'h>, number: usize, mut rng: Rng, turns: usize) {
        let mut mutator = self.attach();
        for _ in 0..turns {
            let at = match rng.u32(0..100) {
                0..40 => "linking",
                40..60 => "looking",
                60..75 => "letting go",
                75..85 => "using handles",
                85..92 => "using roots",
                92..96 => "attaching",
                96..98 => "collecting",
                _ => "verifying",
            };
            *self.at[number].lock().unwrap() = at;
            match at {
                "linking" => self.link(&mut mutator, &mut rng),
                "looking" => self.look(&mut mutator, &mut rng),
                "letting go" => self.session(&mut mutator, |mc, world| {
                    let slot = &world.strong[rng.usize(0..SLOTS)];
                    if rng.bool() {
                        slot.store(mc, None);
                    } else if let Some(item) = slot.load() {
                        item.link.store(mc, None);
                        item.others.lock(mc).clear();
                    }
                }),
                "using handles" => self.use_handle(&mut rng),
                "using roots" => self.use_root(roots, &mut mutator, &mut rng),
                "attaching" => {
                    drop(mutator);
                    mutator = self.attach();
                }
                "collecting" => _ = mutator.collect(),
                _ => mutator.verify().expect("the heap is consistent"),
            }
        }
        *self.at[number].lock().unwrap() = "detaching";
    }

    fn attach(&self) -> Mutator<'_, World<'static>> {
        self.attached.fetch_add(1, SeqCst);
        self.heap.attach()
    }

    fn session<T>(
        &self,
        mutator: &mut Mutator<'_, World<'static>>,
        f: impl for<'gc> FnOnce(&Mutation<'gc, Shared>, &'gc World<'gc>) -> T,
    ) -> T {
        self.sessions.fetch_add(1, SeqCst);
        mutator.mutate(f)
    }

    /// A new item, with cleanups, in the table and a slot, linked with what was there.
    fn link(&self, mutator: &mut Mutator<'_, World<'static>>, rng: &mut Rng) {
        self.session(mutator, |mc, world| {
            let key = rng.u64(0..KEYS);
            let line = self.next_item.fetch_add(1, SeqCst);
            let entry = (line < LINES).then(|| self.items.entry(line));
            let item = mc.alloc(Item {
                key,
                check: !key,
                link: GcAtomic::default(),
                others: GcMutex::default(),
                entry: Leaf::new(entry),
            });
            let cleanups = (0..rng.usize(0..3)).filter_map(|_| self.add_cleanup(mc, item));
            self.handles.lock().unwrap().extend(cleanups);
            let old = world.table[key as usize % PARTS].write(mc).insert(key, mc.downgrade(item));
            if let Some(old) = old.and_then(|old| old.upgrade(mc)) {
                old.is_sound(mc);
                let mut others = old.others.lock(mc);
                others.truncate(3);
                others.push(item);
            }
            let slot = &world.strong[rng.usize(0..SLOTS)];
            if let Some(before) = slot.swap(mc, Some(item)) {
                before.is_sound(mc);
                // Chains of a length that ends by chance.
                if rng.u32(0..4) > 0 {
                    item.link.store(mc, Some(before));
                }
            }
        });
    }

    /// A cleanup that is in the ledger, if that has a line left.
    fn add_cleanup<'gc>(
        &self,
        mc: &Mutation<'gc, Shared>,
        item: Gc<'gc, Item<'gc>>,
    ) -> Option<Cleanup> {
        let line = self.next_cleanup.fetch_add(1, SeqCst);
        (line < LINES).then(|| mc.add_cleanup(item, self.cleanups.cleanup(line)))
    }

    /// Whatever a weak pointer leads to is there; so are its links.
    fn look(&self, mutator: &mut Mutator<'_, World<'static>>, rng: &mut Rng) {
        self.session(mutator, |mc, world| {
            for _ in 0..8 {
                let key = rng.u64(0..KEYS);
                let weak = world.table[key as usize % PARTS].read(mc).get(&key).copied();
                if let Some(item) = weak.and_then(|weak| weak.upgrade(mc)) {
                    assert_eq!(item.key, key);
                    item.is_sound(mc);
                }
            }
            // A cleanup for what others have made, among other threads' registrations on the same
            // object.
            if let Some(item) = world.strong[rng.usize(0..SLOTS)].load() {
                let handle = self.add_cleanup(mc, item);
                self.handles.lock().unwrap().extend(handle);
            }
        });
    }

    /// Between sessions: stops a cleanup, or runs it, whichever thread registered it.
    fn use_handle(&self, rng: &mut Rng) {
        let handle = {
            let mut handles = self.handles.lock().unwrap();
            if handles.is_empty() {
                return;
            }
            let at = rng.usize(0..handles.len());
            handles.swap_remove(at)
        };
        match rng.u32(0..4) {
            0 => self.stopped.fetch_add(u64::from(handle.stop()), SeqCst),
            1 => self.ran_early.fetch_add(u64::from(handle.run_now()), SeqCst),
            // It runs by itself.
            _ => return,
        };
        assert!(!handle.stop() && !handle.run_now(), "a cleanup ended twice");
    }

    /// Makes a root, fetches by one that another thread has made, perhaps, or drops it.
    fn use_root<'h>(
        &'h self,
        roots: &Roots<'h>,
        mutator: &mut Mutator<'_, World<'static>>,
        rng: &mut Rng,
    ) {
        let taken = roots.lock().unwrap().pop();
        match taken {
            Some(root) if rng.bool() => {
                let clone = root.clone();
                drop(root);
                self.session(mutator, |mc, _| mc.fetch_shared(&clone).is_sound(mc));
                roots.lock().unwrap().insert(0, clone);
            }
            Some(root) => drop(root),
            None => {
                let slot = rng.usize(0..SLOTS);
                let root = self.session(mutator, |mc, world| {
                    world.strong[slot].load().map(|item| self.heap.share(&mc.root(item)))
                });
                roots.lock().unwrap().extend(root);
            }
        }
    }
}

#[test]
fn many_threads_on_one_heap_lose_nothing_and_use_nothing_that_is_gone() {
    let base = number("SEXTON_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let minutes = number("SEXTON_MINUTES").map(|minutes| Duration::from_secs(minutes * 60));
    let (begin, mut tally) = (Instant::now(), Tally::default());
    println!("shared_stress: begins with SEXTON_SEED={base}");
    let is_over = |tally: &Tally| match minutes {
        Some(minutes) => begin.elapsed() >= minutes,
        None => tally.rounds >= rounds(),
    };
    let mut told = begin;
    while !is_over(&tally) {
        play(base.wrapping_add(tally.rounds), &mut tally);
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!("after {:.0?}: {tally:?}", begin.elapsed());
        }
    }
    println!("in {:.0?}: {tally:?}", begin.elapsed());
}

/// One round.
fn play(seed: u64, tally: &mut Tally) {
    let mut rng = Rng::with_seed(seed);
    // One round in four; each session ends with a cycle then, and most of the time goes by in them.
    let zeal = zeal() || rng.u32(0..4) == 0;
    let scene = Scene::new(&mut rng, zeal);
    let (done, is_done) = channel::<()>();
    let stage = {
        let scene = scene.clone();
        // A thread of its own, because a scope waits for its threads, and they may hang.
        thread::spawn(move || {
            let roots = Roots::default();
            thread::scope(|scope| {
                for number in 0..MUTATORS {
                    let (scene, roots, rng) = (&*scene, &roots, rng.fork());
                    let turns = if zeal { ZEAL_TURNS } else { TURNS };
                    scope.spawn(move || scene.act(roots, number, rng, turns));
                }
            });
            drop(done);
        })
    };
    // No thread sends: it ends when all have.
    if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        let at: Vec<_> = scene.at.iter().map(|at| *at.lock().unwrap()).collect();
        let (stats, dump) = (scene.heap.stats(), scene.heap.cleanup_pool().dump());
        panic!("the round of SEXTON_SEED={seed} hangs; mutators are {at:?}; {stats:?}; {dump:?}");
    }
    assert!(stage.join().is_ok(), "a mutator of the round of SEXTON_SEED={seed} has panicked");
    finish(scene, tally);
    tally.rounds += 1;
    tally.zeal_rounds += u64::from(zeal);
}

/// The round's end: the heap goes, and the ledgers balance.
fn finish(scene: Arc<Scene>, tally: &mut Tally) {
    let Ok(scene) = Arc::try_unwrap(scene) else { panic!("all mutators have ended") };
    let Scene { heap, items, cleanups, next_item, next_cleanup, .. } = scene;
    let mut mutator = heap.attach();
    let report = mutator.collect();
    mutator.verify().expect("the heap is consistent");
    drop(mutator);
    let stats = heap.stats();
    let (items_made, cleanups_made) =
        (next_item.into_inner(), next_cleanup.into_inner().min(LINES));
    // Those that live have not been dropped, all others have; none twice.
    let lines = items_made.min(LINES);
    let dropped = (0..lines).filter(|&line| items.line(line).1 > 0).count() as u64;
    if items_made <= LINES {
        assert_eq!(report.live_objects + dropped, items_made as u64, "items and their drops");
    }
    let (stopped, early) = (scene.stopped.into_inner(), scene.ran_early.into_inner());
    assert_eq!(
        (stats.cleanups.registered, stats.cleanups.stopped),
        (cleanups_made as u64, stopped)
    );
    drop(heap);
    items.balance(lines);
    let ran = cleanups.balance(cleanups_made) as u64;
    assert_eq!(ran + stopped, cleanups_made as u64, "cleanups ran or were stopped");
    tally.sessions += scene.sessions.into_inner();
    tally.items += items_made as u64;
    tally.cleanups += cleanups_made as u64;
    tally.ran += ran;
    tally.stopped += stopped;
    tally.ran_early += early;
    tally.cycles += stats.cycles;
    tally.attached += scene.attached.into_inner();
    tally.longest_pause = tally.longest_pause.max(stats.pause.max);
}
