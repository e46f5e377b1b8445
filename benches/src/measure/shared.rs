//! Many threads on one heap (S1 to S5), and what a session costs in which nothing happens (S0).
//!
//! Each row is a program as a user of `Shared` mode would write it, with default settings: a
//! mutator for each thread, sessions of a thousand steps or until another thread wants to collect,
//! and collections by the pacer.

use std::collections::HashMap;
use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::heaps::{Nothing, OBJECT_BYTES, Plain, SEED, alloc_garbage, per};
use sexton::{
    Branded, CleanupPool, Gc, GcAtomic, GcMutex, Heap, Leaf, Mutation, Mutator, Payload, Shared,
    Trace, Weak,
};

use super::programs::make_trees;
use crate::catalogue::Out;
use crate::heaps::PATIENCE;

/// The numbers of threads, which the ids of rows end in.
const THREADS: [usize; 2] = [1, 2];

/// Steps between two sessions, at most.
const PER_SESSION: usize = 1024;

/// A heap whose cleanups run in a pool of its own.
fn heap<R: Branded>(
    root: impl for<'gc> FnOnce(&Mutation<'gc, Shared>) -> R::At<'gc>,
) -> Heap<R, Shared>
where
    for<'gc> R::At<'gc>: Payload<Shared>,
{
    Heap::builder().cleanup_pool(&CleanupPool::builder().build()).build(root)
}

/// Has `threads` threads work at a time, each with a mutator and told its number, and tells how
/// long that took.
fn together<R: Branded>(
    heap: &Heap<R, Shared>,
    threads: usize,
    work: impl Fn(&mut Mutator<'_, R>, usize) + Sync,
) -> Duration
where
    Heap<R, Shared>: Sync,
{
    let work = &work;
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || work(&mut heap.attach(), number));
        }
    });
    start.elapsed()
}

/// The share of a thread in `count` things.
fn part(count: usize, number: usize, threads: usize) -> Range<usize> {
    count * number / threads..count * (number + 1) / threads
}

/// A thread's own pseudo-random numbers.
fn random(number: usize) -> fastrand::Rng {
    fastrand::Rng::with_seed(SEED + number as u64)
}

/// Calls `step` with each of `steps`, in sessions that end when another thread wants to collect.
fn in_sessions<R: Branded>(
    mutator: &mut Mutator<'_, R>,
    mut steps: Range<usize>,
    mut step: impl for<'gc> FnMut(&Mutation<'gc, Shared>, &'gc R::At<'gc>, usize),
) {
    while !steps.is_empty() {
        mutator.mutate(|mc, root| {
            for nth in steps.by_ref().take(PER_SESSION) {
                step(mc, root, nth);
                if mc.gc_pending() {
                    break;
                }
            }
        });
    }
}

/// Measures with each number of threads, twice, and tells the second result: memory is warm then.
fn for_threads(
    work: &str,
    out: &mut Out,
    mut measure: impl FnMut(usize) -> Result<f64, String>,
) -> Result<(), String> {
    for threads in THREADS {
        measure(threads)?;
        out.put(&format!("{work}.{threads}"), measure(threads)?);
    }
    Ok(())
}

/// Nanoseconds to enter and to leave a session in which nothing happens, while no other thread uses
/// the heap.
pub(super) fn s0(sessions: usize, out: &mut Out) {
    let heap = heap::<Nothing>(|_mc| Nothing);
    let mut mutator = heap.attach();
    out.put("S0.session", each(sessions, || mutator.mutate(|mc, _| _ = black_box(mc))));
    let mut local = Heap::<Nothing>::new(|_mc| Nothing);
    out.put("S0.session@local", each(sessions, || local.mutate(|mc, _| _ = black_box(mc))));
}

fn each(count: usize, mut one: impl FnMut()) -> f64 {
    (0..count / 4).for_each(|_| one());
    let start = Instant::now();
    (0..count).for_each(|_| one());
    per(start.elapsed(), count as u64)
}

/// Milliseconds for each program binary-trees, of which every thread runs one.
pub(super) fn s1(depth: usize, out: &mut Out) -> Result<(), String> {
    let heap = heap::<Nothing>(|_mc| Nothing);
    for_threads("S1", out, |threads| {
        let took = together(&heap, threads, |mutator, _| make_trees(mutator, depth));
        Ok(took.as_secs_f64() * 1e3 / threads as f64)
    })
}

/// A map that finds values as long as they are kept elsewhere, and a table that keeps some.
#[derive(Trace)]
struct WeakMap<'gc> {
    shards: Vec<GcMutex<HashMap<u64, Weak<'gc, Plain>>>>,
    held: Vec<GcAtomic<'gc, Plain>>,
}

/// How many values of [`WeakMap`] have been cleaned up.
static CLEANED: AtomicU64 = AtomicU64::new(0);

impl<'gc> WeakMap<'gc> {
    fn new(held: usize) -> Self {
        WeakMap {
            shards: (0..64).map(|_| GcMutex::default()).collect(),
            held: (0..held).map(|_| GcAtomic::default()).collect(),
        }
    }

    fn shard(&self, key: u64) -> &GcMutex<HashMap<u64, Weak<'gc, Plain>>> {
        &self.shards[key as usize % self.shards.len()]
    }

    /// Whether the key has a value that lives; looks at it.
    fn find(&self, mc: &Mutation<'gc, Shared>, key: u64) -> bool {
        let weak = self.shard(key).lock(mc).get(&key).copied();
        let value = weak.and_then(|weak| weak.upgrade(mc));
        value.inspect(|value| assert_eq!(value[0], key, "the value of another key")).is_some()
    }

    fn insert(&self, mc: &Mutation<'gc, Shared>, key: u64, place: usize) {
        let value = mc.alloc(Leaf::new([key; 4]));
        mc.add_cleanup(value, || _ = CLEANED.fetch_add(1, Relaxed));
        let weak = mc.downgrade(value);
        self.shard(key).lock(mc).insert(key, weak);
        self.held[place].store(mc, Some(value));
    }

    fn clear(&self, mc: &Mutation<'gc, Shared>) {
        self.shards.iter().for_each(|shard| shard.lock(mc).clear());
        self.held.iter().for_each(|held| held.store(mc, None));
    }
}

/// Nanoseconds for each of four operations per key on a map with weak values and cleanups.
pub(super) fn s2(keys: usize, out: &mut Out) -> Result<(), String> {
    let operations = 4 * keys;
    let heap = heap::<WeakMap<'static>>(|_mc| WeakMap::new((keys / 2).max(1)));
    for_threads("S2", out, |threads| {
        CLEANED.store(0, Relaxed);
        let inserted = AtomicU64::new(0);
        let took = together(&heap, threads, |mutator, number| {
            let mut random = random(number);
            let mut count = 0;
            in_sessions(mutator, part(operations, number, threads), |mc, map, _| {
                let key = random.u64(..keys as u64);
                if random.u8(..10) == 0 || !map.find(mc, key) {
                    map.insert(mc, key, random.usize(..map.held.len()));
                    count += 1;
                }
            });
            inserted.fetch_add(count, Relaxed);
        });
        // Not timed: all values die.
        let mut mutator = heap.attach();
        mutator.mutate(|mc, map| map.clear(mc));
        mutator.collect();
        heap.wait_for_cleanups(PATIENCE).map_err(|error| error.to_string())?;
        assert_eq!(CLEANED.load(Relaxed), inserted.into_inner(), "every value is cleaned up once");
        Ok(per(took, operations as u64))
    })
}

/// Nanoseconds for each object of those that all threads allocate and none keeps.
pub(super) fn s3(objects: usize, out: &mut Out) -> Result<(), String> {
    let heap = heap::<Nothing>(|_mc| Nothing);
    for_threads("S3", out, |threads| {
        let took = together(&heap, threads, |mutator, number| {
            let own = part(objects, number, threads).len();
            for first in (0..own).step_by(PER_SESSION) {
                mutator.mutate(|mc, _| alloc_garbage(mc, PER_SESSION.min(own - first)));
            }
        });
        Ok(per(took, objects as u64))
    })
}

/// Nanoseconds for each object that is allocated with a cleanup, from the first one to the end of
/// the last cleanup.
pub(super) fn s4(cleanups: usize, out: &mut Out) -> Result<(), String> {
    // How often each has run. Left behind when the process ends: cleanups borrow nothing that ends
    // earlier.
    let ran: &'static [AtomicU32] =
        (0..cleanups).map(|_| AtomicU32::new(0)).collect::<Vec<_>>().leak();
    let heap = heap::<Nothing>(|_mc| Nothing);
    let mut rounds = 0;
    for_threads("S4", out, |threads| {
        let start = Instant::now();
        together(&heap, threads, |mutator, number| {
            in_sessions(mutator, part(cleanups, number, threads), |mc, _, nth| {
                let object = mc.alloc(Plain::new([nth as u64; 4]));
                mc.add_cleanup_with(object, &ran[nth], |ran| _ = ran.fetch_add(1, Relaxed));
            });
        });
        heap.attach().collect();
        heap.wait_for_cleanups(PATIENCE).map_err(|error| error.to_string())?;
        let took = start.elapsed();
        rounds += 1;
        let have_run = ran.iter().all(|ran| ran.load(Relaxed) == rounds);
        assert!(have_run, "every cleanup runs once");
        Ok(per(took, cleanups as u64))
    })
}

/// A node of a random graph, of which a link may change while others read it.
#[derive(Trace)]
struct Linked<'gc> {
    before: Option<Gc<'gc, Linked<'gc>>>,
    other: GcAtomic<'gc, Linked<'gc>>,
    words: Leaf<[u64; 2]>,
}

const _: () = assert!(size_of::<Linked<'_>>() == OBJECT_BYTES);

#[derive(Trace)]
struct Web<'gc> {
    heads: Vec<GcAtomic<'gc, Linked<'gc>>>,
}

impl<'gc> Web<'gc> {
    fn new(nodes: usize) -> Self {
        Web { heads: (0..(nodes / 16).max(1)).map(|_| GcAtomic::default()).collect() }
    }

    fn any(&self, random: &mut fastrand::Rng) -> &GcAtomic<'gc, Linked<'gc>> {
        &self.heads[random.usize(..self.heads.len())]
    }

    /// Adds a node. It links to what was in its place of the table before, and to what is in
    /// another: both random, but what is displaced is never lost.
    fn add(&self, mc: &Mutation<'gc, Shared>, n: usize, random: &mut fastrand::Rng) {
        let place = self.any(random);
        let other = GcAtomic::new(self.any(random).load());
        let words = Leaf::new([n as u64; 2]);
        place.store(mc, Some(mc.alloc(Linked { before: place.load(), other, words })));
    }

    /// Sets a node's changeable link to another node; all live on.
    fn change(&self, mc: &Mutation<'gc, Shared>, random: &mut fastrand::Rng) {
        if let Some(node) = self.any(random).load() {
            node.other.store(mc, self.any(random).load());
        }
    }
}

/// Pauses beside `nodes` live objects, in milliseconds: two threads allocate ten times as much
/// garbage, and now and then change a link.
pub(super) fn s5(nodes: usize, out: &mut Out) {
    const CYCLES: u64 = 10;
    /// After [`ENOUGH`] time.
    const LEAST_CYCLES: u64 = 3;
    const ENOUGH: Duration = Duration::from_secs(30);
    const THREADS: usize = 2;

    let heap = heap::<Web<'static>>(|_mc| Web::new(nodes));
    // One session, so that no collection finds the graph half built.
    heap.attach().mutate(|mc, web| {
        let mut random = random(THREADS);
        (0..nodes).for_each(|n| web.add(mc, n, &mut random));
    });

    let made = AtomicUsize::new(0);
    let start = Instant::now();
    let is_over = || {
        let cycles = heap.stats().cycles;
        cycles >= CYCLES && made.load(Relaxed) >= CYCLES as usize * nodes
            || cycles >= LEAST_CYCLES && start.elapsed() > ENOUGH
    };
    together(&heap, THREADS, |mutator, number| {
        const SESSIONS: usize = 64;
        let mut random = random(number);
        while !is_over() {
            for _ in 0..SESSIONS {
                mutator.mutate(|mc, web| {
                    alloc_garbage(mc, PER_SESSION);
                    web.change(mc, &mut random);
                });
            }
            made.fetch_add(SESSIONS * PER_SESSION, Relaxed);
        }
    });
    let pause = heap.stats().pause;
    out.put("S5.p99", pause.p99.as_secs_f64() * 1e3);
    out.put("S5.max", pause.max.as_secs_f64() * 1e3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_threads_are_the_whole() {
        for count in [0, 1, 2, 7, 1000] {
            let parts = (0..3).flat_map(|number| part(count, number, 3));
            assert!(parts.eq(0..count), "{count}");
        }
    }

    #[test]
    fn no_node_of_a_web_is_ever_lost() {
        let heap = heap::<Web<'static>>(|_mc| Web::new(1000));
        let mut mutator = heap.attach();
        mutator.mutate(|mc, web| {
            let mut random = random(0);
            (0..1000).for_each(|n| web.add(mc, n, &mut random));
            (0..1000).for_each(|_| web.change(mc, &mut random));
        });
        assert_eq!(mutator.collect().live_objects, 1000);
    }

    #[test]
    fn a_weak_map_finds_what_is_held() {
        let heap = heap::<WeakMap<'static>>(|_mc| WeakMap::new(1));
        let mut mutator = heap.attach();
        mutator.mutate(|mc, map| {
            map.insert(mc, 1, 0);
            map.insert(mc, 2, 0);
        });
        mutator.collect();
        mutator.mutate(|mc, map| {
            assert!(map.find(mc, 2));
            assert!(!map.find(mc, 1) && !map.find(mc, 3));
            map.clear(mc);
            assert!(!map.find(mc, 2));
        });
    }
}
