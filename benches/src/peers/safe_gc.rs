//! safe-gc: a mark-sweep heap without unsafe code, in which pointers are indices.
//!
//! It collects when a vector of objects is full, and has no other pacing; so it is given room for
//! as many objects as Sexton makes between two collections. Its phases cannot be timed apart: W3 is
//! a whole collection of a heap in which all is live, W2.0 one of a heap in which all is dead.

use std::hint::black_box;
use std::time::{Duration, Instant};

use safe_gc::{Collector, Gc, Heap, Root, Trace};

use super::driver::{Peer, Programs};
use crate::catalogue::Work;
use crate::heaps::{GARBAGE_PER_CYCLE, Links, SEED};

/// A heap, and what lives in it.
#[derive(Default)]
pub(super) struct Indexed {
    heap: Heap,
    tree: Option<Root<Tree>>,
    node: Option<Root<Node>>,
    numbers: Option<Root<Array>>,
    list: Option<Root<Linked>>,
    /// The heap of a spike, whose memory is looked at while it is there.
    spiked: Heap,
}

impl Programs for Indexed {
    fn tree(&mut self, depth: usize) -> usize {
        let tree = bottom_up(&mut self.heap, depth);
        check(&self.heap, tree.unrooted())
    }

    fn keep_tree(&mut self, depth: usize) {
        self.tree = Some(bottom_up(&mut self.heap, depth));
    }

    fn kept_nodes(&mut self) -> usize {
        self.tree.as_ref().map_or(0, |tree| check(&self.heap, tree.unrooted()))
    }

    fn top_down(&mut self, depth: usize) {
        drop(top_down(&mut self.heap, depth));
    }

    fn bottom_up(&mut self, depth: usize) {
        drop(make(&mut self.heap, depth));
    }

    fn keep_tree_and_array(&mut self, depth: usize, numbers: usize) {
        self.node = Some(top_down(&mut self.heap, depth));
        let array = Array((0..numbers).map(|n| 1.0 / (n + 1) as f64).collect());
        self.numbers = Some(self.heap.alloc(array));
    }

    fn kept_numbers(&mut self) -> usize {
        black_box(self.node.as_ref().map(|node| self.heap.get(node).numbers));
        self.numbers.as_ref().map_or(0, |array| self.heap.get(array).0.len())
    }

    fn keep_list(&mut self, objects: usize) {
        self.list = linked(&mut self.heap, objects);
        let last = self.list.as_ref().map(|it| self.heap.get(it));
        black_box(last.map(|it| (it.words, it.before)));
    }
}

impl Peer for Indexed {
    const NAME: &'static str = "safe-gc";
    const ROWS: &'static str = "W1 W2.0 W2r.50 W2r.90 W3.random W3.list W3.shuffled \
        W3.tree W7.wall W7.rss GCBench.wall memory.object memory.spike";

    fn prepare(&mut self, work: Work) {
        if work == Work::W1 {
            reserve(&mut self.heap, GARBAGE_PER_CYCLE, || Plain([0; 4]));
        }
    }

    fn garbage(&mut self, objects: usize) -> Duration {
        allocate(&mut self.heap, objects)
    }

    /// A whole collection, in which nothing lives.
    fn sweep(&mut self, objects: usize, _live: f64, _dropping: f64) -> Duration {
        let all: Vec<_> = (0..objects).map(|n| plain(&mut self.heap, n)).collect();
        drop(all);
        let start = Instant::now();
        self.heap.gc();
        start.elapsed()
    }

    fn refill(&mut self, objects: usize, live: f64) -> (Duration, usize) {
        let mut heap = Heap::new();
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut all: Vec<_> = (0..objects).map(|n| plain(&mut heap, n)).collect();
        all.retain(|_| rng.f64() < live);
        heap.gc();
        let dead = objects - all.len();
        (allocate(&mut heap, dead), dead)
    }

    /// A whole collection, in which all lives.
    fn mark(&mut self, objects: usize, links: Links) -> Duration {
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
        let time = start.elapsed();
        black_box(heap.get(&root).words);
        time
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let list = linked(&mut self.spiked, objects);
        peak();
        drop(list);
        self.spiked.gc();
        self.spiked.gc();
    }
}

/// Times the allocation of objects that die.
fn allocate(heap: &mut Heap, objects: usize) -> Duration {
    let start = Instant::now();
    for n in 0..objects {
        let object = plain(heap, n);
        black_box(heap.get(&object).0);
    }
    start.elapsed()
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
