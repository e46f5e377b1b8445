//! safe-gc: a mark-sweep heap without unsafe code, in which pointers are indices.
//!
//! It collects when a vector of objects is full, and has no other pacing; so it is given room for as many objects
//! as Sexton makes between two collections. Its phases cannot be timed apart: W3 is a whole collection of a heap in
//! which all is live, W2.0 one of a heap in which all is dead.

use std::hint::black_box;
use std::time::Instant;

use crate::catalogue::per;
use crate::heaps::{GARBAGE_PER_CYCLE, Links, SEED};
use safe_gc::{Collector, Gc, Heap, Root, Trace};

use crate::catalogue::{Builtin, Out, Work};
use crate::measure::memory::{resident, tell_each, tell_spike};
use crate::measure::programs::{GcBench, nodes, short_lived, tell_binary_trees};

pub(super) static SAFE_GC: Builtin = Builtin {
    name: "safe-gc",
    rows: &[
        "W1",
        "W2.0",
        "W2r.50",
        "W2r.90",
        "W3.random",
        "W3.list",
        "W3.shuffled",
        "W3.tree",
        "W7.wall",
        "W7.rss",
        "GCBench.wall",
        "memory.object",
        "memory.spike",
    ],
    measure,
};

fn measure(work: Work, size: usize, out: &mut Out) -> Result<(), String> {
    match work {
        Work::W1 => w1(size, out),
        Work::W2 => w2(size, out),
        Work::W2r => w2r(size, out),
        Work::W3 => w3(size, out),
        Work::W7 => binary_trees(size, out),
        Work::GcBench => gc_bench(size, out),
        Work::Memory => memory(size, out),
        _ => {}
    }
    Ok(())
}

struct Plain([u64; 4]);

impl Trace for Plain {
    fn trace(&self, _collector: &mut Collector) {}
}

fn plain(heap: &mut Heap, n: usize) -> Root<Plain> {
    heap.alloc(Plain([n as u64; 4]))
}

/// Makes room for `count` objects.
fn reserve<T: Trace>(heap: &mut Heap, count: usize, make: impl Fn() -> T) {
    let all: Vec<Root<T>> = (0..count).map(|_| heap.alloc(make())).collect();
    drop(all);
    heap.gc();
}

fn w1(objects: usize, out: &mut Out) {
    let mut heap = Heap::new();
    reserve(&mut heap, GARBAGE_PER_CYCLE, || Plain([0; 4]));
    let start = Instant::now();
    for n in 0..objects {
        let object = plain(&mut heap, n);
        black_box(heap.get(&object).0);
    }
    out.put("W1", per(start.elapsed(), objects as u64));
}

fn w2(objects: usize, out: &mut Out) {
    let mut heap = Heap::new();
    for id in [None, Some("W2.0")] {
        let all: Vec<_> = (0..objects).map(|n| plain(&mut heap, n)).collect();
        drop(all);
        let start = Instant::now();
        heap.gc();
        let time = start.elapsed();
        id.into_iter().for_each(|id| out.put(id, per(time, objects as u64)));
    }
}

fn w2r(objects: usize, out: &mut Out) {
    for (id, live) in [("W2r.50", 0.5), ("W2r.90", 0.9)] {
        let mut heap = Heap::new();
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut all: Vec<_> = (0..objects).map(|n| plain(&mut heap, n)).collect();
        all.retain(|_| rng.f64() < live);
        heap.gc();
        let dead = objects - all.len();
        let start = Instant::now();
        for n in 0..dead {
            let object = plain(&mut heap, n);
            black_box(heap.get(&object).0);
        }
        out.put(id, per(start.elapsed(), dead as u64));
    }
}

#[derive(Default)]
struct Pair {
    left: Option<Gc<Pair>>,
    right: Option<Gc<Pair>>,
    words: [u64; 2],
}

impl Trace for Pair {
    fn trace(&self, collector: &mut Collector) {
        self.left.into_iter().chain(self.right).for_each(|it| collector.edge(it));
    }
}

fn w3(objects: usize, out: &mut Out) {
    for (id, links) in [
        ("W3.random", Links::Random),
        ("W3.list", Links::List),
        ("W3.shuffled", Links::Shuffled),
        ("W3.tree", Links::Tree),
    ] {
        let mut heap = Heap::new();
        let all: Vec<_> = (0..objects).map(|_| heap.alloc(Pair::default())).collect();
        let root = links.edges(objects, |from, left, right| {
            let pair = heap.get_mut(&all[from]);
            pair.left = left.map(|to| all[to].unrooted());
            pair.right = right.map(|to| all[to].unrooted());
        });
        let root = all[root].clone();
        drop(all);
        heap.gc();
        let start = Instant::now();
        heap.gc();
        out.put(id, per(start.elapsed(), objects as u64));
        black_box(heap.get(&root).words);
    }
}

struct Tree {
    children: Option<(Gc<Tree>, Gc<Tree>)>,
}

impl Trace for Tree {
    fn trace(&self, collector: &mut Collector) {
        if let Some((left, right)) = self.children {
            collector.edge(left);
            collector.edge(right);
        }
    }
}

fn bottom_up(heap: &mut Heap, depth: usize) -> Root<Tree> {
    if depth == 0 {
        return heap.alloc(Tree { children: None });
    }
    // The roots keep them while their parent is made.
    let (left, right) = (bottom_up(heap, depth - 1), bottom_up(heap, depth - 1));
    heap.alloc(Tree { children: Some((left.unrooted(), right.unrooted())) })
}

fn check(heap: &Heap, tree: Gc<Tree>) -> usize {
    heap.get(tree).children.map_or(1, |(left, right)| 1 + check(heap, left) + check(heap, right))
}

fn binary_trees(depth: usize, out: &mut Out) {
    let start = Instant::now();
    let mut heap = Heap::new();
    let made_and_checked = |heap: &mut Heap, depth| {
        let tree = bottom_up(heap, depth);
        check(heap, tree.unrooted())
    };
    assert_eq!(made_and_checked(&mut heap, depth + 1), nodes(depth + 1));
    let long_lived = bottom_up(&mut heap, depth);
    for (count, depth) in short_lived(depth) {
        let found: usize = (0..count).map(|_| made_and_checked(&mut heap, depth)).sum();
        assert_eq!(found, count * nodes(depth));
    }
    assert_eq!(check(&heap, long_lived.unrooted()), nodes(depth));
    tell_binary_trees(start, out);
}

#[derive(Default)]
struct Node {
    left: Option<Gc<Node>>,
    right: Option<Gc<Node>>,
    numbers: [i32; 2],
}

impl Trace for Node {
    fn trace(&self, collector: &mut Collector) {
        self.left.into_iter().chain(self.right).for_each(|it| collector.edge(it));
    }
}

struct Array(Box<[f64]>);

impl Trace for Array {
    fn trace(&self, _collector: &mut Collector) {}
}

fn populate(heap: &mut Heap, of: Gc<Node>, depth: usize) {
    if depth > 0 {
        let [left, right] = [heap.alloc(Node::default()), heap.alloc(Node::default())];
        // Linked to a tree that is rooted, so they need not be.
        let children = [left.unrooted(), right.unrooted()];
        let node = heap.get_mut(of);
        (node.left, node.right) = (Some(children[0]), Some(children[1]));
        drop((left, right));
        children.into_iter().for_each(|child| populate(heap, child, depth - 1));
    }
}

fn top_down(heap: &mut Heap, depth: usize) -> Root<Node> {
    let top = heap.alloc(Node::default());
    populate(heap, top.unrooted(), depth);
    top
}

fn make(heap: &mut Heap, depth: usize) -> Root<Node> {
    if depth == 0 {
        return heap.alloc(Node::default());
    }
    let (left, right) = (make(heap, depth - 1), make(heap, depth - 1));
    let (left, right) = (Some(left.unrooted()), Some(right.unrooted()));
    heap.alloc(Node { left, right, numbers: [0; 2] })
}

fn gc_bench(stretch: usize, out: &mut Out) {
    let plan = GcBench { stretch };
    let start = Instant::now();
    let mut heap = Heap::new();
    drop(make(&mut heap, stretch));
    let tree = top_down(&mut heap, plan.long_lived());
    let array = Array((0..plan.array()).map(|n| 1.0 / (n + 1) as f64).collect());
    let array = heap.alloc(array);
    for (count, depth) in plan.short_lived() {
        (0..count).for_each(|_| drop(top_down(&mut heap, depth)));
        (0..count).for_each(|_| drop(make(&mut heap, depth)));
    }
    black_box((heap.get(&tree).numbers, heap.get(&array).0.len()));
    out.put("GCBench.wall", start.elapsed().as_secs_f64() * 1e3);
}

/// An object of 32 bytes, linked to the one before.
struct Linked {
    before: Option<Gc<Linked>>,
    words: [u64; 2],
}

impl Trace for Linked {
    fn trace(&self, collector: &mut Collector) {
        self.before.into_iter().for_each(|it| collector.edge(it));
    }
}

fn linked(heap: &mut Heap, objects: usize) -> Option<Root<Linked>> {
    let mut last: Option<Root<Linked>> = None;
    for n in 0..objects {
        let before = last.as_ref().map(Root::unrooted);
        last = Some(heap.alloc(Linked { before, words: [n as u64; 2] }));
    }
    last
}

fn memory(objects: usize, out: &mut Out) {
    let mut first = Heap::new();
    let before = resident();
    let kept = linked(&mut first, objects);
    tell_each(out, "memory.object", before, objects);

    let mut second = Heap::new();
    let before = resident();
    let dies = linked(&mut second, objects);
    let peak = resident();
    drop(dies);
    second.gc();
    second.gc();
    tell_spike(out, before, peak);
    black_box(kept.map(|object| (first.get(&object).words, first.get(&object).before)));
}
