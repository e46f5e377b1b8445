//! The pauses of a program with one mutator: what its sessions wait for the collector, and how long
//! each takes.
//!
//! The heap is built in one session, so that no collection finds it half built. Then the program
//! makes ten times as much garbage, and now and then changes a link. The collections are the
//! pacer's. Both modes run the same program.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sexton::{
    CleanupPool, Gc, GcAtomic, GcMap, GcMutex, GcReport, GcVec, Heap, HeapStats, Leaf, Local, Mode,
    Mutation, Mutator, OnDrop, Root, Shared, Trace, Weak,
};

use super::memory;
use crate::catalogue::{Measure, Moment, PauseShape as Shape, PauseSize as Size, Pauses, Way};
use crate::heaps::{OBJECT_BYTES, Plain, SEED};

/// Allocations of a session.
const PER_SESSION: usize = 1024;

/// The run ends with this cycle.
const CYCLES: u64 = 10;
/// After [`ENOUGH`] time. The first one is measured apart: it follows the building of the heap.
const LEAST_CYCLES: u64 = 3;
const ENOUGH: Duration = Duration::from_secs(15);

/// Bytes of an object of [`Shape::Bytes`].
const BYTES: usize = 1024;

/// An object with two links, of which one may change.
#[derive(Trace)]
struct Node<'gc> {
    before: Option<Gc<'gc, Node<'gc>>>,
    other: GcAtomic<'gc, Node<'gc>>,
    words: Leaf<[u64; 2]>,
}

const _: () = assert!(size_of::<Node<'_>>() == OBJECT_BYTES);

/// A list of weak pointers: one cell that held them all would be looked at as a whole.
#[derive(Trace)]
struct Watch<'gc> {
    next: Option<Gc<'gc, Watch<'gc>>>,
    node: Weak<'gc, Node<'gc>>,
}

type Bytes = Leaf<Vec<u8>>;

type Pointer<'gc> = Option<Gc<'gc, Node<'gc>>>;

type Element<'gc> = Gc<'gc, Plain>;

#[derive(Trace)]
struct Held<'gc> {
    /// Traced piece by piece, and each written by itself.
    heads: Vec<GcAtomic<'gc, Node<'gc>>>,
    /// In place of the heads: the first write in a cycle has all of it traced.
    cell: GcMutex<Vec<Pointer<'gc>>>,
    /// Both modes have a lock around these. The marker takes their pages one by one.
    vector: GcMutex<GcVec<'gc, Element<'gc>>>,
    map: GcMutex<GcMap<'gc, usize, Element<'gc>>>,
    watches: GcAtomic<'gc, Watch<'gc>>,
    bytes: Vec<GcAtomic<'gc, Bytes>>,
}

impl<'gc> Held<'gc> {
    fn new(shape: Shape, size: Size) -> Self {
        let (heads, cell) = match shape {
            Shape::Random | Shape::Cleanups => ((size.nodes / 16).max(1), 0),
            Shape::Cell => (0, (size.nodes / 16).max(1)),
            _ => (1, 0),
        };
        let bytes = if shape == Shape::Bytes { size.extras } else { 0 };
        Held {
            heads: (0..heads).map(|_| GcAtomic::default()).collect(),
            cell: GcMutex::new(vec![None; cell]),
            vector: GcMutex::default(),
            map: GcMutex::default(),
            watches: GcAtomic::default(),
            bytes: (0..bytes).map(|_| GcAtomic::default()).collect(),
        }
    }

    /// Gives a pointer of the table.
    fn any<M: Mode>(&self, mc: &Mutation<'gc, M>, random: &mut fastrand::Rng) -> Pointer<'gc> {
        if self.heads.is_empty() {
            let cell = self.cell.lock(mc);
            return cell[random.usize(..cell.len())];
        }
        self.heads[random.usize(..self.heads.len())].load()
    }

    /// Replaces a pointer of the table by what `f` makes of it.
    fn replace<M: Mode>(
        &self,
        mc: &Mutation<'gc, M>,
        random: &mut fastrand::Rng,
        f: impl FnOnce(Pointer<'gc>) -> Gc<'gc, Node<'gc>>,
    ) {
        if self.heads.is_empty() {
            let mut cell = self.cell.lock(mc);
            let place = random.usize(..cell.len());
            cell[place] = Some(f(cell[place]));
            return;
        }
        let head = &self.heads[random.usize(..self.heads.len())];
        head.store(mc, Some(f(head.load())));
    }
}

/// What the program needs of a mode.
trait Allocates: Mode {
    fn alloc<'gc, T>(mc: &Mutation<'gc, Self>, value: T) -> Gc<'gc, T>
    where
        T: Trace<'gc> + Send + Sync;

    /// Puts an element into the vector, in the place of another one or behind the last.
    fn put<'gc>(mc: &Mutation<'gc, Self>, held: &Held<'gc>, at: usize, element: Element<'gc>);

    /// Puts an element into the map.
    fn insert<'gc>(mc: &Mutation<'gc, Self>, held: &Held<'gc>, key: usize, element: Element<'gc>);

    /// Registers a local cleanup, where there are any.
    fn add_local_cleanup<'gc>(_: &Mutation<'gc, Self>, _: Gc<'gc, Node<'gc>>) {}
}

macro_rules! allocates {
    ($mode:ty $(, $more:item)?) => {
        impl Allocates for $mode {
            #[inline]
            fn alloc<'gc, T>(mc: &Mutation<'gc, Self>, value: T) -> Gc<'gc, T>
            where
                T: Trace<'gc> + Send + Sync,
            {
                mc.alloc(value)
            }

            fn put<'gc>(
                mc: &Mutation<'gc, Self>,
                held: &Held<'gc>,
                at: usize,
                element: Element<'gc>,
            ) {
                let vector = held.vector.lock(mc);
                if at < vector.len() {
                    vector.set(mc, at, element);
                } else {
                    vector.push(mc, element);
                }
            }

            fn insert<'gc>(
                mc: &Mutation<'gc, Self>,
                held: &Held<'gc>,
                key: usize,
                element: Element<'gc>,
            ) {
                held.map.lock(mc).insert(mc, key, element);
            }

            $($more)?
        }
    };
}

allocates!(
    Local,
    fn add_local_cleanup<'gc>(mc: &Mutation<'gc>, node: Gc<'gc, Node<'gc>>) {
        mc.add_cleanup_local(node, || _ = black_box(0));
    }
);
allocates!(Shared);

/// A heap with one mutator, in either mode.
trait Runs<M: Mode> {
    fn session(&mut self, f: &mut dyn for<'gc> FnMut(&Mutation<'gc, M>, &'gc Held<'gc>));
    fn stats(&self) -> HeapStats;
    fn last_report(&self) -> Option<GcReport>;
    fn run_local_cleanups(&mut self) {}
}

impl Runs<Local> for Heap<Held<'static>> {
    fn session(&mut self, f: &mut dyn for<'gc> FnMut(&Mutation<'gc>, &'gc Held<'gc>)) {
        self.mutate(|mc, held| f(mc, held));
    }

    fn stats(&self) -> HeapStats {
        self.stats()
    }

    fn last_report(&self) -> Option<GcReport> {
        self.last_report()
    }

    fn run_local_cleanups(&mut self) {
        self.run_local_cleanups(usize::MAX);
    }
}

impl Runs<Shared> for Mutator<'_, Held<'static>> {
    fn session(&mut self, f: &mut dyn for<'gc> FnMut(&Mutation<'gc, Shared>, &'gc Held<'gc>)) {
        self.mutate(|mc, held| f(mc, held));
    }

    fn stats(&self) -> HeapStats {
        self.heap().stats()
    }

    fn last_report(&self) -> Option<GcReport> {
        self.heap().last_report()
    }
}

/// The program.
struct Program {
    shape: Shape,
    size: Size,
    random: fastrand::Rng,
    roots: Vec<Root<Node<'static>>>,
    /// Objects allocated since the heap was built.
    made: u64,
}

impl Program {
    fn node<'gc, M: Allocates>(
        mc: &Mutation<'gc, M>,
        before: Option<Gc<'gc, Node<'gc>>>,
        other: Option<Gc<'gc, Node<'gc>>>,
    ) -> Gc<'gc, Node<'gc>> {
        let words = Leaf::new([0; 2]);
        M::alloc(mc, Node { before, other: GcAtomic::new(other), words })
    }

    /// A tree of `nodes` nodes, each made after those below it.
    fn tree<'gc, M: Allocates>(
        mc: &Mutation<'gc, M>,
        nodes: usize,
        each: &mut impl FnMut(Gc<'gc, Node<'gc>>),
    ) -> Option<Gc<'gc, Node<'gc>>> {
        let below = nodes.checked_sub(1)?;
        let left = Self::tree(mc, below / 2, each);
        let right = Self::tree(mc, below - below / 2, each);
        let node = Self::node(mc, left, right);
        each(node);
        Some(node)
    }

    /// Makes all that lives.
    fn build<'gc, M: Allocates>(&mut self, mc: &Mutation<'gc, M>, held: &Held<'gc>) {
        let Size { nodes, extras } = self.size;
        match self.shape {
            Shape::Random | Shape::Cleanups | Shape::Cell => {
                (0..nodes).for_each(|_| self.add(mc, held));
            }
            Shape::List => {
                let list = (0..nodes).fold(None, |list, _| Some(Self::node(mc, list, None)));
                held.heads[0].store(mc, list);
            }
            Shape::Tree => {
                let tree = Self::tree(mc, nodes, &mut |_| {});
                held.heads[0].store(mc, tree);
            }
            Shape::Weaks | Shape::Roots | Shape::Locals => {
                let mut left = extras;
                let shape = self.shape;
                let tree = Self::tree(mc, nodes, &mut |node| {
                    if left > 0 {
                        left -= 1;
                        self.give(shape, mc, held, node);
                    }
                });
                held.heads[0].store(mc, tree);
            }
            Shape::Bytes => {
                held.bytes.iter().for_each(|place| self.fill(mc, place));
            }
            Shape::Vector | Shape::Map => (0..extras).for_each(|at| self.put(mc, held, at)),
        }
    }

    /// Gives a node what is special about the heap.
    fn give<'gc, M: Allocates>(
        &mut self,
        shape: Shape,
        mc: &Mutation<'gc, M>,
        held: &Held<'gc>,
        node: Gc<'gc, Node<'gc>>,
    ) {
        match shape {
            Shape::Weaks => {
                let watch = Watch { next: held.watches.load(), node: mc.downgrade(node) };
                held.watches.store(mc, Some(M::alloc(mc, watch)));
            }
            Shape::Roots => self.roots.push(mc.root(node)),
            _ => M::add_local_cleanup(mc, node),
        }
    }

    /// Adds a node to a random graph. It links to what was in its place of the table before, and to
    /// what is in another: both random, but what is displaced is never lost.
    fn add<'gc, M: Allocates>(&mut self, mc: &Mutation<'gc, M>, held: &Held<'gc>) {
        let other = held.any(mc, &mut self.random);
        let has_cleanup = self.shape == Shape::Cleanups && self.random.u8(..10) == 0;
        held.replace(mc, &mut self.random, |before| {
            let node = Self::node(mc, before, other);
            if has_cleanup {
                mc.add_cleanup(node, || _ = black_box(0));
            }
            node
        });
    }

    /// Adds an element to the vector or the map, or replaces it.
    fn put<'gc, M: Allocates>(&mut self, mc: &Mutation<'gc, M>, held: &Held<'gc>, at: usize) {
        let element = M::alloc(mc, Plain::new([at as u64; 4]));
        if self.shape == Shape::Map {
            M::insert(mc, held, at, element);
        } else {
            M::put(mc, held, at, element);
        }
    }

    /// Replaces a vector of bytes.
    fn fill<'gc, M: Allocates>(&mut self, mc: &Mutation<'gc, M>, place: &GcAtomic<'gc, Bytes>) {
        place.store(mc, Some(M::alloc(mc, Leaf::new(vec![1; BYTES]))));
    }

    /// Does what a session does: makes garbage of the kind that the heap is about.
    fn step<'gc, M: Allocates>(&mut self, mc: &Mutation<'gc, M>, held: &Held<'gc>) {
        if self.shape == Shape::Bytes {
            const VECTORS: usize = 64;
            for _ in 0..VECTORS {
                let place = self.random.usize(..held.bytes.len());
                self.fill(mc, &held.bytes[place]);
            }
            self.made += VECTORS as u64;
            return;
        }
        let special = match self.shape {
            Shape::Cleanups | Shape::Weaks => PER_SESSION / 10,
            Shape::Vector | Shape::Map => PER_SESSION / 16,
            Shape::Roots => 16,
            Shape::Locals => 4,
            _ => 0,
        };
        for _ in 0..special {
            if matches!(self.shape, Shape::Vector | Shape::Map) {
                let at = self.random.usize(..self.size.extras);
                self.put(mc, held, at);
                continue;
            }
            let node = Self::node(mc, None, None);
            match self.shape {
                Shape::Cleanups => _ = mc.add_cleanup(node, || _ = black_box(0)),
                Shape::Weaks => _ = black_box(mc.downgrade(node)),
                Shape::Roots => {
                    let place = self.random.usize(..self.roots.len());
                    self.roots[place] = mc.root(node);
                }
                _ => M::add_local_cleanup(mc, node),
            }
        }
        for n in special..PER_SESSION {
            black_box(&*M::alloc(mc, Plain::new([n as u64; 4])));
        }
        self.made += PER_SESSION as u64;
        // In a tree a part of it would be lost.
        let may_change =
            matches!(self.shape, Shape::Random | Shape::List | Shape::Cleanups | Shape::Cell);
        if let Some(node) = held.any(mc, &mut self.random).filter(|_| may_change) {
            let to = held.any(mc, &mut self.random);
            node.other.store(mc, to);
        }
    }
}

/// Measures one way to collect one heap.
pub(crate) fn measure(shape: Shape, way: Way, quick: bool) -> Result<Pauses, String> {
    let budget = match way {
        Way::LocalStop | Way::SharedStop => None,
        Way::Local | Way::Shared => Some(Duration::from_millis(1)),
        Way::Local200us => Some(Duration::from_micros(200)),
    };
    // Their first touch lies within a session, and takes longer than such a budget.
    let huge_pages = way != Way::Local200us;
    if !way.takes(shape) {
        return Err(format!("a heap of {} is not collected so", shape.name()));
    }
    let size = shape.size(quick);
    let random = fastrand::Rng::with_seed(SEED);
    let program = Program { shape, size, random, roots: Vec::new(), made: 0 };
    let pool = CleanupPool::builder().build();
    if way.is_shared() {
        let heap: Heap<Held<'static>, Shared> = Heap::builder()
            .pause_budget(budget)
            .huge_pages(huge_pages)
            .cleanup_pool(&pool)
            .on_drop(OnDrop::Discard)
            .build(|_mc| Held::new(shape, size));
        Ok(run(program, heap.attach()))
    } else {
        let heap: Heap<Held<'static>> = Heap::builder()
            .pause_budget(budget)
            .huge_pages(huge_pages)
            .cleanup_pool(&pool)
            .on_drop(OnDrop::Discard)
            .build(|_mc| Held::new(shape, size));
        Ok(run(program, heap))
    }
}

fn run<M: Allocates>(mut program: Program, mut heap: impl Runs<M>) -> Pauses {
    heap.session(&mut |mc, held| program.build(mc, held));

    let mut walls = Walls::default();
    let mut collections = Duration::ZERO;
    let mut cycles = 0;
    let mut own_max = Duration::ZERO;
    // At the end of the first cycle.
    let mut first: Option<(u64, Duration)> = None;
    let begun = Instant::now();
    loop {
        // Outside the wall time: to look at it takes longer.
        let own = processor_time(Of::Thread);
        let start = Instant::now();
        heap.session(&mut |mc, held| program.step(mc, held));
        let end = Instant::now();
        own_max = own_max.max(processor_time(Of::Thread).saturating_sub(own));
        walls.add(end - begun, end - start);
        heap.run_local_cleanups();
        let Some(report) = heap.last_report().filter(|it| it.cycle > cycles) else { continue };
        cycles = report.cycle;
        if first.is_none() {
            first = Some((program.made, processor_time(Of::Process)));
            continue;
        }
        collections += report.pause_time + report.background_time;
        if cycles >= CYCLES || cycles >= LEAST_CYCLES && begun.elapsed() > ENOUGH {
            break;
        }
    }
    let (made, processor) = first.unwrap_or_default();
    let made = (program.made - made).max(1) as f64;
    let each = |time: Duration| time.as_nanos() as f64 / made;
    let pause = heap.stats().pause;
    let mut values = vec![
        (Measure::WaitP99, millis(pause.p99)),
        (Measure::WaitMax, millis(pause.max)),
        (Measure::Cycles, cycles as f64),
        (Measure::Collections, each(collections)),
    ];
    if !own_max.is_zero() {
        values.push((Measure::OwnMax, millis(own_max)));
        values.push((Measure::Processor, each(processor_time(Of::Process) - processor)));
    }
    values.extend(memory::peak_mb().map(|peak| (Measure::Peak, peak)));
    walls.tell(&mut values);
    Pauses { values, longest: walls.longest() }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Whose processor time is meant.
enum Of {
    Thread,
    Process,
}

/// The processor time so far, of this thread or of all; zero where the system does not tell.
#[cfg_attr(not(unix), expect(unused_variables, reason = "there is no clock of either"))]
fn processor_time(of: Of) -> Duration {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(match of {
            Of::Thread => ClockId::ThreadCPUTime,
            Of::Process => ClockId::ProcessCPUTime,
        });
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    #[cfg(not(unix))]
    Duration::ZERO
}

/// How long each session took.
#[derive(Default)]
struct Walls {
    /// In milliseconds.
    all: Vec<f32>,
    /// The longest of each [`Walls::PART`].
    parts: Vec<f32>,
}

impl Walls {
    const PART: Duration = Duration::from_millis(10);
    /// Points of a picture.
    const POINTS: usize = 400;

    fn add(&mut self, end: Duration, took: Duration) {
        let took = millis(took) as f32;
        self.all.push(took);
        let part = (end.as_nanos() / Self::PART.as_nanos()) as usize;
        if self.parts.len() <= part {
            self.parts.resize(part + 1, 0.0);
        }
        self.parts[part] = self.parts[part].max(took);
    }

    fn tell(&mut self, values: &mut Vec<(Measure, f64)>) {
        self.all.sort_by(f32::total_cmp);
        let count = self.all.len();
        for (measure, share) in
            [(Measure::WallP99, 0.99), (Measure::WallP999, 0.999), (Measure::WallMax, 1.0)]
        {
            let rank = ((count as f64 * share).ceil() as usize).clamp(1, count);
            values.push((measure, f64::from(self.all[rank - 1])));
        }
    }

    fn longest(&self) -> Vec<Moment> {
        let width = self.parts.len().div_ceil(Self::POINTS).max(1);
        let seconds = |parts: usize| (parts as u32 * Self::PART).as_secs_f64();
        let longest = self.parts.chunks(width).enumerate().map(|(nth, chunk)| {
            let longest = chunk.iter().copied().fold(0.0, f32::max);
            (seconds((nth + 1) * width), f64::from(longest))
        });
        longest.filter(|(_, took)| *took > 0.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(shape: Shape, nodes: usize, extras: usize) -> Program {
        let random = fastrand::Rng::with_seed(SEED);
        Program { shape, size: Size { nodes, extras }, random, roots: Vec::new(), made: 0 }
    }

    #[test]
    fn all_that_is_built_lives_on() {
        for &shape in Shape::ALL {
            let mut program = program(shape, 1000, 100);
            let size = program.size;
            let mut heap: Heap<Held<'static>> = Heap::new(|_mc| Held::new(shape, size));
            heap.mutate(|mc, held| program.build(mc, held));
            let live = match shape {
                Shape::Bytes => 100,
                // An object for each weak pointer, a page for 512 elements.
                Shape::Weaks => 1100,
                Shape::Vector | Shape::Map => 101,
                _ => 1000,
            };
            let report = heap.collect();
            assert_eq!(report.live_objects, live, "{shape:?}");
            // Nor does a session lose any. Nodes replace those that only a root held.
            heap.mutate(|mc, held| program.step(mc, held));
            let report = heap.collect();
            let new_roots = if shape == Shape::Roots { 16 } else { 0 };
            assert!((live..=live + new_roots).contains(&report.live_objects), "{shape:?}");
            assert!(report.swept_objects > 0, "{shape:?}");
        }
    }

    #[test]
    fn the_longest_session_of_each_part_is_kept() {
        let mut walls = Walls::default();
        let ms = Duration::from_millis;
        for (end, took) in [(1, 1), (5, 3), (7, 2), (35, 4)] {
            walls.add(ms(end), ms(took));
        }
        assert_eq!(walls.longest(), [(0.01, 3.0), (0.04, 4.0)]);
        let mut values = Vec::new();
        walls.tell(&mut values);
        let four = [(Measure::WallP99, 4.0), (Measure::WallP999, 4.0), (Measure::WallMax, 4.0)];
        assert_eq!(values, four);
    }
}
