//! dumpster: reference counts, and a search for cycles among what has lost a reference. The variant for one
//! thread, which is the faster one.
//!
//! It has no sweep to time. W3 is a collection that finds the graph reachable, after its root lost one of two
//! references; it searches by recursion, so it works on a thread with a deep stack. Links are set once.

use std::cell::OnceCell;
use std::hint::black_box;
use std::mem;
use std::time::Instant;

use crate::catalogue::per;
use crate::heaps::Links;
use dumpster::Trace;
use dumpster::unsync::{Gc, collect, set_collect_condition};

use super::with_a_deep_stack;
use crate::catalogue::{Builtin, Out, Work};
use crate::measure::memory::{resident, tell_each, tell_spike};
use crate::measure::programs::{GcBench, nodes, short_lived, tell_binary_trees};

pub(super) static DUMPSTER: Builtin = Builtin {
    name: "dumpster",
    rows: &[
        "W1",
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
    with_a_deep_stack(|| match work {
        Work::W1 => w1(size, out),
        Work::W3 => w3(size, out),
        Work::W7 => binary_trees(size, out),
        Work::GcBench => gc_bench(size, out),
        Work::Memory => memory(size, out),
        _ => {}
    })
}

/// Freed at once, which is what it is for.
fn w1(objects: usize, out: &mut Out) {
    let start = Instant::now();
    (0..objects).for_each(|n| drop(black_box(Gc::new([n as u64; 4]))));
    out.put("W1", per(start.elapsed(), objects as u64));
}

#[derive(Trace, Default)]
struct Pair {
    left: OnceCell<Gc<Pair>>,
    right: OnceCell<Gc<Pair>>,
    words: [u64; 2],
}

fn w3(objects: usize, out: &mut Out) {
    set_collect_condition(|_| false);
    for (id, links) in [
        ("W3.random", Links::Random),
        ("W3.list", Links::List),
        ("W3.shuffled", Links::Shuffled),
        ("W3.tree", Links::Tree),
    ] {
        let all: Vec<_> = (0..objects).map(|_| Gc::new(Pair::default())).collect();
        let root = links.edges(objects, |from, left, right| {
            left.map(|to| all[from].left.set(all[to].clone()));
            right.map(|to| all[from].right.set(all[to].clone()));
        });
        let root = all[root].clone();
        drop(all);
        collect();
        drop(root.clone());
        let start = Instant::now();
        collect();
        out.put(id, per(start.elapsed(), objects as u64));
        black_box(root.words);
        // To drop it is a search of its own, or a recursion.
        mem::forget(root);
    }
}

#[derive(Trace)]
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

#[derive(Trace, Default)]
struct Node {
    left: OnceCell<Gc<Node>>,
    right: OnceCell<Gc<Node>>,
    numbers: [i32; 2],
}

fn populate(of: &Node, depth: usize) {
    if depth > 0 {
        let left = of.left.get_or_init(Gc::default);
        let right = of.right.get_or_init(Gc::default);
        populate(left, depth - 1);
        populate(right, depth - 1);
    }
}

fn top_down(depth: usize) -> Gc<Node> {
    let top = Gc::new(Node::default());
    populate(&top, depth);
    top
}

fn make(depth: usize) -> Gc<Node> {
    if depth == 0 {
        return Gc::default();
    }
    let [left, right] = [make(depth - 1), make(depth - 1)].map(OnceCell::from);
    Gc::new(Node { left, right, numbers: [0; 2] })
}

fn gc_bench(stretch: usize, out: &mut Out) {
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
#[derive(Trace)]
struct Linked {
    before: Option<Gc<Linked>>,
    words: [u64; 3],
}

fn memory(objects: usize, out: &mut Out) {
    let before = resident();
    let first =
        (0..objects).fold(None, |before, n| Some(Gc::new(Linked { before, words: [n as u64; 3] })));
    tell_each(out, "memory.object", before, objects);

    let mut all = Vec::with_capacity(objects);
    let before = resident();
    all.extend((0..objects).map(|n| Gc::new([n as u64; 4])));
    let peak = resident();
    drop(all);
    collect();
    collect();
    tell_spike(out, before, peak);
    black_box(first.as_ref().map(|object| (object.words, object.before.is_some())));
    mem::forget(first);
}
