//! The objects that are measured, and heaps built of them: flat ones of a given shape for alloc and
//! sweep, linked ones for mark.
//!
//! Everything is built in sessions of bounded size. So a session is never the reason why a
//! measurement behaves as it does, and progress can be shown between two.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sexton::{
    CleanupPool, Gc, GcCell, GcRefCell, GcReport, Heap, Leaf, Mode, Mutation, OnDrop, Pacing,
    Payload, Trace,
};

/// An object without pointers, cleanups or drop glue: four words.
pub(crate) type Plain = Leaf<[u64; 4]>;

/// Bytes of each kind of object here.
pub(crate) const OBJECT_BYTES: usize = 32;

/// An object with two links, of the same size.
#[derive(Trace)]
pub(crate) struct Pair<'gc> {
    left: GcCell<Option<Gc<'gc, Pair<'gc>>>>,
    right: GcCell<Option<Gc<'gc, Pair<'gc>>>>,
    words: Leaf<[u64; 2]>,
}

const _: () = assert!(size_of::<Plain>() == OBJECT_BYTES);
const _: () = assert!(size_of::<Pair<'_>>() == OBJECT_BYTES);

/// Objects allocated in one session.
const PER_SESSION: usize = 1 << 16;

/// Allocates `count` objects, and keeps none.
#[inline]
pub(crate) fn alloc_garbage<M: Mode>(mc: &Mutation<'_, M>, count: usize)
where
    Plain: Payload<M>,
{
    for n in 0..count {
        black_box(&*mc.alloc(plain(n)));
    }
}

/// Longer than any cleanups take that will end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Nanoseconds for each of `count`; 0 if there were none.
pub(crate) fn per(time: Duration, count: u64) -> f64 {
    if count == 0 { 0.0 } else { time.as_nanos() as f64 / count as f64 }
}

/// The seed of all pseudo-random choices.
pub(crate) const SEED: u64 = 0x5e37_0b5e;

/// A flat heap: a number of objects, of which a share is live and a share carries a cleanup, both
/// spread pseudo-randomly and independently of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Objects allocated.
    pub(crate) objects: usize,
    /// The share of them that lives, 0 to 1.
    pub(crate) live: f64,
    /// The share of them that carries a cleanup, 0 to 1.
    pub(crate) cleanups: f64,
}

impl Shape {
    /// Plain objects, none with a cleanup.
    pub(crate) fn plain(objects: usize, live: f64) -> Self {
        Shape { objects, live, cleanups: 0.0 }
    }
}

/// Tells that the system gave no memory for a heap of the shape asked for.
fn no_memory(objects: usize) -> String {
    format!("cannot build the heap: the system gave no memory after {objects} objects")
}

/// A heap that is filled to a [`Shape`], collected, emptied, and filled again, on warm memory.
pub(crate) struct ShapedHeap {
    heap: Heap<Live<'static>>,
}

/// The live objects of a flat heap, in the order of their allocation.
#[derive(Trace, Default)]
struct Live<'gc> {
    objects: GcRefCell<Vec<Gc<'gc, Plain>>>,
}

impl ShapedHeap {
    /// An empty heap whose cleanups run in `pool`, and which one thread collects.
    pub(crate) fn new(pool: &CleanupPool) -> Self {
        Self::with_threads(pool, 1)
    }

    /// An empty heap whose cleanups run in `pool`, and which up to `threads` threads collect.
    pub(crate) fn with_threads(pool: &CleanupPool, threads: usize) -> Self {
        let heap = Heap::builder()
            .gc_threads(threads)
            .cleanup_pool(pool)
            .pacing(Pacing::Manual)
            // The cleanups of what is left when the numbers are known need not run.
            .on_drop(OnDrop::Discard)
            .build(|_mc| Live::default());
        ShapedHeap { heap }
    }

    /// Allocates the objects of `shape` and registers their cleanups; calls `progress` with the
    /// number of objects after every session. Returns the cleanups registered and the time that
    /// took.
    ///
    /// # Errors
    ///
    /// If the system gives no memory. What was built stays until [`clear`](Self::clear).
    pub(crate) fn fill(
        &mut self,
        shape: Shape,
        mut progress: impl FnMut(usize),
    ) -> Result<Registered, String> {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut registered = Registered::default();
        let expected = (shape.objects as f64 * shape.live) as usize;
        // Room for all that live, so that growing the list is not measured.
        let reserved =
            self.heap.mutate(|mc, live| live.objects.borrow_mut(mc).try_reserve(expected).is_ok());
        reserved.then_some(()).ok_or_else(|| no_memory(0))?;
        for first in (0..shape.objects).step_by(PER_SESSION) {
            let count = PER_SESSION.min(shape.objects - first);
            self.heap
                .mutate(|mc, live| fill_some(mc, live, count, shape, &mut rng, &mut registered))
                .map_err(|some| no_memory(first + some))?;
            progress(first + count);
        }
        Ok(registered)
    }

    /// Times how long `count` further plain objects take to allocate; none of them is linked.
    pub(crate) fn refill(&mut self, count: usize) -> Duration {
        let start = Instant::now();
        for first in (0..count).step_by(PER_SESSION) {
            self.heap.mutate(|mc, _| alloc_garbage(mc, PER_SESSION.min(count - first)));
        }
        start.elapsed()
    }

    /// One full cycle.
    pub(crate) fn collect(&mut self) -> GcReport {
        self.heap.collect()
    }

    /// Waits for the cleanups queued so far.
    fn wait(&self) -> Result<(), String> {
        self.heap.wait_for_cleanups(PATIENCE).map_err(|error| error.to_string())
    }

    /// Fills the heap to `shape`, collects, waits for the cleanups, and empties it.
    ///
    /// # Errors
    ///
    /// As [`fill`](Self::fill), or if cleanups take too long.
    pub(crate) fn round(
        &mut self,
        shape: Shape,
        progress: impl FnMut(usize),
    ) -> Result<Round, String> {
        let registered = self.fill(shape, progress)?;
        let start = Instant::now();
        let report = self.collect();
        let collection = start.elapsed();
        self.wait()?;
        let until_run = start.elapsed();
        // The cleanups of what lived run before the next round begins to measure.
        self.clear();
        self.wait()?;
        Ok(Round { report, registered, collection, until_run })
    }

    /// Lets every object go and collects, so that the next round begins with an empty heap on
    /// memory that was used before.
    pub(crate) fn clear(&mut self) -> GcReport {
        self.heap.mutate(|mc, live| {
            live.objects.borrow_mut(mc).clear();
        });
        self.heap.collect()
    }
}

/// Cleanups that were registered, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registered {
    /// How many.
    pub(crate) count: u64,
    /// The time for all of them.
    pub(crate) time: Duration,
}

/// What one round on a heap has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) report: GcReport,
    pub(crate) registered: Registered,
    /// The whole collection, as its caller sees it.
    pub(crate) collection: Duration,
    /// From the start of the collection to the end of the last cleanup.
    pub(crate) until_run: Duration,
}

impl Round {
    /// All objects, dead or alive.
    pub(crate) fn objects(&self) -> u64 {
        self.report.live_objects + self.report.swept_objects
    }

    /// Nanoseconds of the sweep, for each object.
    pub(crate) fn sweep(&self) -> f64 {
        per(self.report.sweep_time, self.objects())
    }

    /// Nanoseconds for each cleanup that was registered.
    pub(crate) fn register(&self) -> f64 {
        per(self.registered.time, self.registered.count)
    }

    /// Nanoseconds from the start of the collection to the end of the last cleanup, for each.
    pub(crate) fn run(&self) -> f64 {
        per(self.until_run, self.report.queued_cleanups)
    }
}

/// Allocates `count` objects, links the live ones from `live`, and registers cleanups; or tells how
/// many there was memory for.
fn fill_some<'gc>(
    mc: &Mutation<'gc>,
    live: &Live<'gc>,
    count: usize,
    shape: Shape,
    rng: &mut fastrand::Rng,
    registered: &mut Registered,
) -> Result<(), usize> {
    let mut live = live.objects.borrow_mut(mc);
    let mut with_cleanup = Vec::new();
    for made in 0..count {
        let object = mc.try_alloc(plain(made)).map_err(|_full| made)?;
        // `f64()` is below 1, so a share of 1 takes all and a share of 0 none.
        if rng.f64() < shape.live {
            live.push(object);
        }
        if rng.f64() < shape.cleanups {
            with_cleanup.push(object);
        }
    }
    let start = Instant::now();
    for (n, &object) in with_cleanup.iter().enumerate() {
        mc.add_cleanup(object, cleanup(n));
    }
    registered.time += start.elapsed();
    registered.count += with_cleanup.len() as u64;
    Ok(())
}

pub(super) fn plain(n: usize) -> Plain {
    Leaf::new([n as u64; 4])
}

/// A cleanup that captures a word and does nothing with it.
pub(super) fn cleanup(n: usize) -> impl FnOnce() + Send + 'static {
    move || {
        black_box(n);
    }
}

/// A linked heap to mark: every object is live, and reached from one root.
pub(crate) struct Graph {
    heap: Heap<Linked<'static>>,
}

#[derive(Trace, Default)]
struct Linked<'gc> {
    root: GcCell<Option<Gc<'gc, Pair<'gc>>>>,
    leaves: GcRefCell<Vec<Gc<'gc, Plain>>>,
    /// All objects, while the graph is being linked.
    all: GcRefCell<Vec<Gc<'gc, Pair<'gc>>>>,
}

/// How the objects of a [`Graph`] are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// Two edges from each object: one to its successor in a random order of all, so that one root
    /// reaches everything, and one to any other. Nearly every step misses the cache.
    Random,
    /// A list in the order of allocation.
    List,
    /// A list in random order: every step misses the cache, and there is nothing else to do
    /// meanwhile.
    Shuffled,
    /// A complete binary tree, the parents allocated before their children, level by level.
    Tree,
    /// One wide array of objects without pointers.
    Leaves,
}

impl Links {
    /// Calls `set` once with each of `objects` that has edges, and the one or two that they lead
    /// to. Returns the one from which all are reached. `Leaves` have no edges.
    pub(crate) fn edges(
        self,
        objects: usize,
        mut set: impl FnMut(usize, Option<usize>, Option<usize>),
    ) -> usize {
        assert!(objects > 0, "a graph of {objects} objects; valid is 1 or more");
        let there = |to: usize| (to < objects).then_some(to);
        match self {
            Links::List => (1..objects).for_each(|to| set(to - 1, Some(to), None)),
            Links::Tree => {
                let parents = (0..objects).take_while(|from| 2 * from + 1 < objects);
                parents.for_each(|from| set(from, there(2 * from + 1), there(2 * from + 2)));
            }
            Links::Random | Links::Shuffled => {
                let mut rng = fastrand::Rng::with_seed(SEED);
                let mut order: Vec<usize> = (0..objects).collect();
                rng.shuffle(&mut order);
                for step in order.windows(2) {
                    let other = (self == Links::Random).then(|| rng.usize(..objects));
                    set(step[0], Some(step[1]), other);
                }
                return order[0];
            }
            Links::Leaves => {}
        }
        0
    }
}

impl Graph {
    /// A graph of live objects, which up to `threads` threads collect.
    ///
    /// # Errors
    ///
    /// If the system gives no memory.
    pub(crate) fn new(links: Links, objects: usize, threads: usize) -> Result<Self, String> {
        let heap = Heap::builder()
            .gc_threads(threads)
            .pacing(Pacing::Manual)
            .build(|_mc| Linked::default());
        let mut graph = Graph { heap };
        if links == Links::Leaves {
            in_sessions(&mut graph.heap, objects, |mc, linked, n| {
                let leaf = mc.try_alloc(plain(n)).ok()?;
                linked.leaves.borrow_mut(mc).push(leaf);
                Some(())
            })?;
        } else {
            graph.link(objects, links)?;
        }
        Ok(graph)
    }

    /// Allocates the objects, and links them.
    fn link(&mut self, objects: usize, links: Links) -> Result<(), String> {
        in_sessions(&mut self.heap, objects, |mc, linked, n| {
            let words = Leaf::new([n as u64; 2]);
            let pair = Pair { left: GcCell::default(), right: GcCell::default(), words };
            linked.all.borrow_mut(mc).push(mc.try_alloc(pair).ok()?);
            Some(())
        })?;
        self.heap.mutate(|mc, linked| {
            let all = std::mem::take(&mut *linked.all.borrow_mut(mc));
            let root = links.edges(objects, |from, left, right| {
                all[from].left.set(mc, left.map(|to| all[to]));
                all[from].right.set(mc, right.map(|to| all[to]));
            });
            linked.root.set(mc, Some(all[root]));
        });
        Ok(())
    }

    /// One full cycle, which marks every object.
    pub(crate) fn collect(&mut self) -> GcReport {
        self.heap.collect()
    }
}

/// Calls `make` with each number below `count`, in sessions of bounded size, until one returns
/// `None` for want of memory.
fn in_sessions(
    heap: &mut Heap<Linked<'static>>,
    count: usize,
    make: impl for<'gc> Fn(&Mutation<'gc>, &Linked<'gc>, usize) -> Option<()>,
) -> Result<(), String> {
    for first in (0..count).step_by(PER_SESSION) {
        let numbers = first..count.min(first + PER_SESSION);
        let failed =
            heap.mutate(|mc, linked| numbers.into_iter().find(|&n| make(mc, linked, n).is_none()));
        if let Some(objects) = failed {
            return Err(no_memory(objects));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_what_was_asked_for() {
        let pool = CleanupPool::manual();
        let mut heap = ShapedHeap::new(&pool);
        let shape = Shape { objects: 200_000, live: 0.25, cleanups: 0.5 };
        for _ in 0..2 {
            let registered = heap.fill(shape, |_| {}).unwrap();
            let report = heap.collect();
            assert_eq!(report.live_objects + report.swept_objects, 200_000);
            assert!(report.live_objects.abs_diff(50_000) < 2_000, "{report:?}");
            assert!(registered.count.abs_diff(100_000) < 2_000, "{registered:?}");
            assert!(report.queued_cleanups.abs_diff(75_000) < 2_000, "{report:?}");
            assert_eq!(heap.clear().live_objects, 0);
            pool.run_pending(usize::MAX);
        }
    }

    #[test]
    fn shares_of_none_and_all_are_exact() {
        let mut heap = ShapedHeap::new(&CleanupPool::manual());
        for (live, expected) in [(0.0, 0), (1.0, 70_000)] {
            heap.fill(Shape::plain(70_000, live), |_| {}).unwrap();
            assert_eq!(heap.collect().live_objects, expected);
            heap.clear();
        }
    }

    #[test]
    fn every_object_of_a_graph_is_live() {
        for links in [Links::Random, Links::List, Links::Shuffled, Links::Tree, Links::Leaves] {
            let mut graph = Graph::new(links, 1000, 1).unwrap();
            assert_eq!(graph.collect().live_objects, 1000, "{links:?}");
        }
    }
}
