//! bumpalo, the ceiling: allocation without any bookkeeping, and no way to free one object and keep
//! another.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bumpalo::Bump;

use super::driver::{Peer, Programs};
use crate::heaps::GARBAGE_PER_CYCLE;

/// An arena for what lives to the end, and one that each other tree has for itself.
pub(super) struct Arenas {
    /// Left behind when the process ends.
    kept: &'static Bump,
    short: Bump,
    tree: Option<&'static Tree<'static>>,
    numbers: &'static [f64],
}

impl Default for Arenas {
    fn default() -> Self {
        let kept = Box::leak(Box::default());
        Arenas { kept, short: Bump::new(), tree: None, numbers: &[] }
    }
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

fn fill(bump: &Bump, objects: usize) {
    for n in 0..objects {
        black_box(&*bump.alloc([n as u64; 4]));
    }
}

impl Programs for Arenas {
    fn tree(&mut self, depth: usize) -> usize {
        let found = bottom_up(&self.short, depth).check();
        self.short.reset();
        found
    }

    fn keep_tree(&mut self, depth: usize) {
        // The chunk of the first, larger tree is not for the small ones.
        self.short = Bump::new();
        self.tree = Some(bottom_up(self.kept, depth));
    }

    fn kept_nodes(&mut self) -> usize {
        self.tree.map_or(0, Tree::check)
    }

    fn top_down(&mut self, depth: usize) {
        black_box(top_down(&self.short, depth));
        self.short.reset();
    }

    fn bottom_up(&mut self, depth: usize) {
        black_box(make(&self.short, depth));
        self.short.reset();
    }

    fn keep_tree_and_array(&mut self, depth: usize, numbers: usize) {
        self.short = Bump::new();
        black_box(top_down(self.kept, depth).numbers);
        self.numbers = self.kept.alloc_slice_fill_with(numbers, |n| 1.0 / (n + 1) as f64);
    }

    fn kept_numbers(&mut self) -> usize {
        black_box(self.numbers).len()
    }

    fn keep_list(&mut self, objects: usize) {
        fill(self.kept, objects);
    }
}

impl Peer for Arenas {
    const NAME: &'static str = "bumpalo";
    const ROWS: &'static str = "W1 W7.wall W7.rss GCBench.wall memory.object \
        memory.spike";

    /// Everything is dropped at once, as often as the collector collects.
    fn garbage(&mut self, objects: usize) -> Duration {
        let start = Instant::now();
        for first in (0..objects).step_by(GARBAGE_PER_CYCLE) {
            for n in first..objects.min(first + GARBAGE_PER_CYCLE) {
                black_box(&*self.short.alloc([n as u64; 4]));
            }
            self.short.reset();
        }
        start.elapsed()
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let bump = Bump::new();
        fill(&bump, objects);
        peak();
    }
}
