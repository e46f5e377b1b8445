//! dumpster: reference counts, and a search for cycles among what has lost a reference. The variant
//! for one thread, which is the faster one.
//!
//! It has no sweep to time. W3 is a collection that finds the graph reachable, after its root lost
//! one of two references; it searches by recursion, so it works on a thread with a deep stack.
//! Links are set once.

use std::cell::OnceCell;
use std::hint::black_box;
use std::mem;
use std::time::{Duration, Instant};

use dumpster::Trace;
use dumpster::unsync::{Gc, collect, set_collect_condition};

use super::driver::Peer;
use crate::catalogue::Work;
use crate::heaps::Links;

/// What lives.
#[derive(Default)]
pub(super) struct Counted {
    tree: Option<Gc<Tree>>,
    node: Option<Gc<Node>>,
    numbers: Option<Gc<Vec<f64>>>,
    list: Option<Gc<Linked>>,
}

impl Peer for Counted {
    const NAME: &'static str = "dumpster";
    const ROWS: &'static str = "W1 W3.random W3.list W3.shuffled W3.tree W7.wall \
        W7.rss GCBench.wall memory.object memory.spike";
    const NEEDS_A_DEEP_STACK: bool = true;

    fn prepare(&mut self, work: Work) {
        if work == Work::W3 {
            set_collect_condition(|_| false);
        }
    }

    /// Freed at once, which is what it is for.
    fn garbage(&mut self, objects: usize) -> Duration {
        let start = Instant::now();
        (0..objects).for_each(|n| drop(black_box(Gc::new([n as u64; 4]))));
        start.elapsed()
    }

    fn mark(&mut self, objects: usize, links: Links) -> Duration {
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
        let time = start.elapsed();
        black_box(root.words);
        // To drop it is a search of its own, or a recursion.
        mem::forget(root);
        time
    }

    fn tree(&mut self, depth: usize) -> usize {
        bottom_up(depth).check()
    }

    fn keep_tree(&mut self, depth: usize) {
        self.tree = Some(bottom_up(depth));
    }

    fn kept_nodes(&mut self) -> usize {
        self.tree.as_ref().map_or(0, |tree| tree.check())
    }

    fn top_down(&mut self, depth: usize) {
        drop(black_box(top_down(depth)));
    }

    fn bottom_up(&mut self, depth: usize) {
        drop(black_box(make(depth)));
    }

    fn keep_tree_and_array(&mut self, depth: usize, numbers: usize) {
        self.node = Some(top_down(depth));
        self.numbers = Some(Gc::new((0..numbers).map(|n| 1.0 / (n + 1) as f64).collect()));
    }

    fn kept_numbers(&mut self) -> usize {
        black_box(self.node.as_ref().map(|node| node.numbers));
        self.numbers.as_ref().map_or(0, |numbers| numbers.len())
    }

    fn keep_list(&mut self, objects: usize) {
        for n in 0..objects {
            self.list = Some(Gc::new(Linked { before: self.list.take(), words: [n as u64; 3] }));
        }
        black_box(self.list.as_ref().map(|it| (it.words, it.before.is_some())));
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let all: Vec<_> = (0..objects).map(|n| Gc::new([n as u64; 4])).collect();
        peak();
        drop(all);
        collect();
        collect();
    }
}

#[derive(Trace, Default)]
struct Pair {
    left: OnceCell<Gc<Pair>>,
    right: OnceCell<Gc<Pair>>,
    words: [u64; 2],
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

/// An object of 32 bytes, linked to the one before.
#[derive(Trace)]
struct Linked {
    before: Option<Gc<Linked>>,
    words: [u64; 3],
}
