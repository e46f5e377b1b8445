//! The crate `gc`: a mark-sweep collector whose roots are counted, and whose objects are in the system's allocator.
//!
//! It marks by recursion, so it works on a thread with a stack for the longest list. Its phases cannot be timed
//! apart: W3 is a whole collection of a heap in which all is live, W2.0 one of a heap in which all is dead.

use std::hint::black_box;
use std::time::Instant;

use crate::catalogue::per;
use crate::heaps::{GARBAGE_PER_CYCLE, Links, SEED};
use gc::{Finalize, Gc, GcCell, Trace, configure, force_collect};

use super::with_a_deep_stack;
use crate::catalogue::{Builtin, Out, Work};
use crate::measure::memory::{resident, tell_each, tell_spike};
use crate::measure::programs::{GcBench, nodes, short_lived, tell_binary_trees};

pub(super) static RUST_GC: Builtin = Builtin {
    name: "gc",
    rows: &[
        "W1",
        "W2.0",
        "W2r.50",
        "W2r.90",
        "W3.random",
        "W3.list",
        "W3.shuffled",
        "W3.tree",
        "W4.run",
        "W7.wall",
        "W7.rss",
        "GCBench.wall",
        "memory.object",
        "memory.spike",
    ],
    measure,
};

fn measure(work: Work, size: usize, out: &mut Out) -> Result<(), String> {
    with_a_deep_stack(|| {
        match work {
            Work::W1 => w1(size, out),
            Work::W2 => w2(size, out),
            Work::W2r => w2r(size, out),
            Work::W3 => w3(size, out),
            Work::W4 => w4(size, out),
            Work::W7 => binary_trees(size, out),
            Work::GcBench => gc_bench(size, out),
            Work::Memory => memory(size, out),
            _ => {}
        }
        // What is left dies with the process.
        configure(|config| config.leak_on_drop = true);
    })
}

/// Collects only when told to.
fn pacing_off() {
    configure(|config| config.threshold = usize::MAX);
}

/// Collects not before as much has been made as Sexton makes, and so that the heap doubles.
fn pacing_like_sextons() {
    configure(|config| {
        config.threshold = GARBAGE_PER_CYCLE * 32;
        config.used_space_ratio = 0.5;
    });
}

#[derive(Trace, Finalize)]
struct Plain([u64; 4]);

fn plain(n: usize) -> Gc<Plain> {
    Gc::new(Plain([n as u64; 4]))
}

fn w1(objects: usize, out: &mut Out) {
    pacing_like_sextons();
    let fill = |count: usize| {
        let start = Instant::now();
        for n in 0..count {
            black_box(plain(n).0);
        }
        start.elapsed()
    };
    fill(4 * GARBAGE_PER_CYCLE);
    out.put("W1", per(fill(objects), objects as u64));
}

fn w2(objects: usize, out: &mut Out) {
    pacing_off();
    for id in [None, Some("W2.0")] {
        let all: Vec<_> = (0..objects).map(plain).collect();
        drop(all);
        let start = Instant::now();
        force_collect();
        let time = start.elapsed();
        id.into_iter().for_each(|id| out.put(id, per(time, objects as u64)));
    }
}

fn w2r(objects: usize, out: &mut Out) {
    pacing_off();
    for (id, live) in [("W2r.50", 0.5), ("W2r.90", 0.9)] {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut all: Vec<_> = (0..objects).map(plain).collect();
        all.retain(|_| rng.f64() < live);
        force_collect();
        let dead = objects - all.len();
        let start = Instant::now();
        for n in 0..dead {
            black_box(plain(n).0);
        }
        out.put(id, per(start.elapsed(), dead as u64));
        drop(all);
        force_collect();
    }
}

#[derive(Trace, Finalize)]
struct Pair {
    left: GcCell<Option<Gc<Pair>>>,
    right: GcCell<Option<Gc<Pair>>>,
    words: [u64; 2],
}

fn w3(objects: usize, out: &mut Out) {
    pacing_off();
    for (id, links) in [
        ("W3.random", Links::Random),
        ("W3.list", Links::List),
        ("W3.shuffled", Links::Shuffled),
        ("W3.tree", Links::Tree),
    ] {
        let pair = |n: usize| {
            let (left, right) = (GcCell::new(None), GcCell::new(None));
            Gc::new(Pair { left, right, words: [n as u64; 2] })
        };
        let all: Vec<_> = (0..objects).map(pair).collect();
        let root = links.edges(objects, |from, left, right| {
            *all[from].left.borrow_mut() = left.map(|to| all[to].clone());
            *all[from].right.borrow_mut() = right.map(|to| all[to].clone());
        });
        let root = all[root].clone();
        drop(all);
        force_collect();
        let start = Instant::now();
        force_collect();
        out.put(id, per(start.elapsed(), objects as u64));
        black_box(root.words);
        drop(root);
        force_collect();
    }
}

#[derive(Trace)]
struct Finalized([u64; 4]);

impl Finalize for Finalized {
    fn finalize(&self) {
        black_box(self.0[0]);
    }
}

/// From the start of the collection to the end of the last finalizer, which it calls itself.
fn w4(cleanups: usize, out: &mut Out) {
    pacing_off();
    for id in [None, Some("W4.run")] {
        let all: Vec<_> = (0..cleanups).map(|n| Gc::new(Finalized([n as u64; 4]))).collect();
        drop(all);
        let start = Instant::now();
        force_collect();
        let time = start.elapsed();
        id.into_iter().for_each(|id| out.put(id, per(time, cleanups as u64)));
    }
}

#[derive(Trace, Finalize)]
struct Tree {
    children: Option<(Gc<Tree>, Gc<Tree>)>,
}

fn bottom_up(depth: usize) -> Gc<Tree> {
    let children = (depth > 0).then(|| (bottom_up(depth - 1), bottom_up(depth - 1)));
    Gc::new(Tree { children })
}

impl Tree {
    fn check(&self) -> usize {
        self.children.as_ref().map_or(1, |(left, right)| 1 + left.check() + right.check())
    }
}

fn binary_trees(depth: usize, out: &mut Out) {
    pacing_like_sextons();
    let start = Instant::now();
    assert_eq!(bottom_up(depth + 1).check(), nodes(depth + 1));
    let long_lived = bottom_up(depth);
    for (count, depth) in short_lived(depth) {
        let found: usize = (0..count).map(|_| bottom_up(depth).check()).sum();
        assert_eq!(found, count * nodes(depth));
    }
    assert_eq!(long_lived.check(), nodes(depth));
    tell_binary_trees(start, out);
}

#[derive(Trace, Finalize)]
struct Node {
    left: GcCell<Option<Gc<Node>>>,
    right: GcCell<Option<Gc<Node>>>,
    numbers: [i32; 2],
}

fn node(left: Option<Gc<Node>>, right: Option<Gc<Node>>) -> Gc<Node> {
    Gc::new(Node { left: GcCell::new(left), right: GcCell::new(right), numbers: [0; 2] })
}

fn populate(of: &Gc<Node>, depth: usize) {
    if depth > 0 {
        let children = [node(None, None), node(None, None)];
        children.iter().for_each(|child| populate(child, depth - 1));
        let [left, right] = children;
        *of.left.borrow_mut() = Some(left);
        *of.right.borrow_mut() = Some(right);
    }
}

fn top_down(depth: usize) -> Gc<Node> {
    let top = node(None, None);
    populate(&top, depth);
    top
}

fn make(depth: usize) -> Gc<Node> {
    if depth == 0 { node(None, None) } else { node(Some(make(depth - 1)), Some(make(depth - 1))) }
}

fn gc_bench(stretch: usize, out: &mut Out) {
    pacing_like_sextons();
    let plan = GcBench { stretch };
    let start = Instant::now();
    black_box(make(stretch).numbers);
    let tree = top_down(plan.long_lived());
    let array: Vec<f64> = (0..plan.array()).map(|n| 1.0 / (n + 1) as f64).collect();
    let array = Gc::new(array);
    for (count, depth) in plan.short_lived() {
        (0..count).for_each(|_| drop(black_box(top_down(depth))));
        (0..count).for_each(|_| drop(black_box(make(depth))));
    }
    black_box((tree.numbers, array.len()));
    out.put("GCBench.wall", start.elapsed().as_secs_f64() * 1e3);
}

/// An object of 32 bytes, linked to the one before.
#[derive(Trace, Finalize)]
struct Linked {
    before: Option<Gc<Linked>>,
    words: [u64; 3],
}

fn linked(objects: usize) -> Option<Gc<Linked>> {
    (0..objects).fold(None, |before, n| Some(Gc::new(Linked { before, words: [n as u64; 3] })))
}

fn memory(objects: usize, out: &mut Out) {
    pacing_off();
    let before = resident();
    let first = linked(objects);
    tell_each(out, "memory.object", before, objects);
    let before = resident();
    let second = linked(objects);
    let peak = resident();
    drop(second);
    force_collect();
    force_collect();
    tell_spike(out, before, peak);
    black_box(first.map(|object| (object.words, object.before.is_some())));
}
