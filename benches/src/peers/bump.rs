//! bumpalo, the ceiling: allocation without any bookkeeping, and no way to free one object and keep another.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use crate::catalogue::per;
use crate::heaps::GARBAGE_PER_CYCLE;
use bumpalo::Bump;

use crate::catalogue::{Builtin, Out, Work};
use crate::measure::memory::{resident, tell_each, tell_spike};
use crate::measure::programs::{GcBench, nodes, short_lived, tell_binary_trees};

pub(super) static BUMPALO: Builtin = Builtin {
    name: "bumpalo",
    rows: &["W1", "W7.wall", "W7.rss", "GCBench.wall", "memory.object", "memory.spike"],
    measure,
};

fn measure(work: Work, size: usize, out: &mut Out) -> Result<(), String> {
    match work {
        Work::W1 => w1(size, out),
        Work::W7 => binary_trees(size, out),
        Work::GcBench => gc_bench(size, out),
        Work::Memory => memory(size, out),
        _ => {}
    }
    Ok(())
}

/// Everything is dropped at once, as often as the collector collects.
fn w1(objects: usize, out: &mut Out) {
    let mut bump = Bump::new();
    let mut fill = |count: usize| {
        let start = Instant::now();
        for first in (0..count).step_by(GARBAGE_PER_CYCLE) {
            for n in first..count.min(first + GARBAGE_PER_CYCLE) {
                black_box(&*bump.alloc([n as u64; 4]));
            }
            bump.reset();
        }
        start.elapsed()
    };
    fill(4 * GARBAGE_PER_CYCLE);
    out.put("W1", per(fill(objects), objects as u64));
}

struct Tree<'a> {
    children: Option<(&'a Tree<'a>, &'a Tree<'a>)>,
}

fn bottom_up(bump: &Bump, depth: usize) -> &Tree<'_> {
    let children = (depth > 0).then(|| (bottom_up(bump, depth - 1), bottom_up(bump, depth - 1)));
    bump.alloc(Tree { children })
}

impl Tree<'_> {
    fn check(&self) -> usize {
        self.children.map_or(1, |(left, right)| 1 + left.check() + right.check())
    }
}

/// An arena for the long-lived tree, and one that each other tree has for itself.
fn binary_trees(depth: usize, out: &mut Out) {
    let start = Instant::now();
    let stretch = Bump::new();
    assert_eq!(bottom_up(&stretch, depth + 1).check(), nodes(depth + 1));
    drop(stretch);
    let kept = Bump::new();
    let long_lived = bottom_up(&kept, depth);
    let mut bump = Bump::new();
    for (count, depth) in short_lived(depth) {
        let mut found = 0;
        for _ in 0..count {
            found += bottom_up(&bump, depth).check();
            bump.reset();
        }
        assert_eq!(found, count * nodes(depth));
    }
    assert_eq!(long_lived.check(), nodes(depth));
    tell_binary_trees(start, out);
}

#[derive(Default)]
struct Node<'a> {
    left: Cell<Option<&'a Node<'a>>>,
    right: Cell<Option<&'a Node<'a>>>,
    numbers: [i32; 2],
}

fn populate<'a>(bump: &'a Bump, node: &'a Node<'a>, depth: usize) {
    if depth > 0 {
        let children: [&Node<'_>; 2] = [bump.alloc(Node::default()), bump.alloc(Node::default())];
        node.left.set(Some(children[0]));
        node.right.set(Some(children[1]));
        children.into_iter().for_each(|child| populate(bump, child, depth - 1));
    }
}

fn top_down(bump: &Bump, depth: usize) -> &Node<'_> {
    let node = bump.alloc(Node::default());
    populate(bump, node, depth);
    node
}

fn make(bump: &Bump, depth: usize) -> &Node<'_> {
    if depth == 0 {
        return bump.alloc(Node::default());
    }
    let [left, right] =
        [make(bump, depth - 1), make(bump, depth - 1)].map(|it| Cell::new(Some(it)));
    bump.alloc(Node { left, right, numbers: [0; 2] })
}

fn gc_bench(stretch: usize, out: &mut Out) {
    let plan = GcBench { stretch };
    let start = Instant::now();
    black_box(make(&Bump::new(), stretch));
    let kept = Bump::new();
    let tree = top_down(&kept, plan.long_lived());
    let array = kept.alloc_slice_fill_with(plan.array(), |n| 1.0 / (n + 1) as f64);
    let mut bump = Bump::new();
    for (count, depth) in plan.short_lived() {
        for _ in 0..count {
            black_box(top_down(&bump, depth));
            bump.reset();
        }
        for _ in 0..count {
            black_box(make(&bump, depth));
            bump.reset();
        }
    }
    black_box((tree.numbers, array));
    out.put("GCBench.wall", start.elapsed().as_secs_f64() * 1e3);
}

fn memory(objects: usize, out: &mut Out) {
    let fill = || {
        let bump = Bump::new();
        for n in 0..objects {
            black_box(&*bump.alloc([n as u64; 4]));
        }
        bump
    };
    let before = resident();
    let first = fill();
    tell_each(out, "memory.object", before, objects);
    let before = resident();
    let second = fill();
    let peak = resident();
    drop(second);
    tell_spike(out, before, peak);
    drop(first);
}
