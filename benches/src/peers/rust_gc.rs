//! The crate `gc`: a mark-sweep collector whose roots are counted, and whose objects are in the
//! system's allocator.
//!
//! It marks by recursion, so it works on a thread with a stack for the longest list. Its phases
//! cannot be timed apart: W3 is a whole collection of a heap in which all is live, W2.0 one of a
//! heap in which all is dead.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gc::{Finalize, Gc, GcCell, Trace, configure, force_collect};

use super::driver::Peer;
use crate::catalogue::Work;
use crate::heaps::{GARBAGE_PER_CYCLE, Links, SEED};

/// What lives.
#[derive(Default)]
pub(super) struct Rooted {
    tree: Option<Gc<Tree>>,
    node: Option<Gc<Node>>,
    numbers: Option<Gc<Vec<f64>>>,
    list: Option<Gc<Linked>>,
}

impl Peer for Rooted {
    const NAME: &'static str = "gc";
    const ROWS: &'static str = "W1 W2.0 W2r.50 W2r.90 W3.random W3.list W3.shuffled \
        W3.tree W4.run W7.wall W7.rss GCBench.wall memory.object memory.spike";
    const NEEDS_A_DEEP_STACK: bool = true;

    fn prepare(&mut self, work: Work) {
        match work {
            Work::W1 | Work::W7 | Work::GCBench => pacing_like_sextons(),
            _ => pacing_off(),
        }
    }

    fn garbage(&mut self, objects: usize) -> Duration {
        let start = Instant::now();
        for n in 0..objects {
            black_box(plain(n).0);
        }
        start.elapsed()
    }

    /// A whole collection, in which nothing lives.
    fn sweep(&mut self, objects: usize, _live: f64, _dropping: f64) -> Duration {
        let all: Vec<_> = (0..objects).map(plain).collect();
        drop(all);
        timed_collection()
    }

    fn refill(&mut self, objects: usize, live: f64) -> (Duration, usize) {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut all: Vec<_> = (0..objects).map(plain).collect();
        all.retain(|_| rng.f64() < live);
        force_collect();
        let dead = objects - all.len();
        let time = self.garbage(dead);
        drop(all);
        force_collect();
        (time, dead)
    }

    /// A whole collection, in which all lives.
    fn mark(&mut self, objects: usize, links: Links) -> Duration {
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
        let time = timed_collection();
        black_box(root.words);
        drop(root);
        force_collect();
        time
    }

    /// To the end of the last finalizer, which the collection calls itself.
    fn drops(&mut self, objects: usize) -> Duration {
        let all: Vec<_> = (0..objects).map(|n| Gc::new(Finalized([n as u64; 4]))).collect();
        drop(all);
        timed_collection()
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
        self.list = linked(objects);
        black_box(self.list.as_ref().map(|it| (it.words, it.before.is_some())));
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let list = linked(objects);
        peak();
        drop(list);
        force_collect();
        force_collect();
    }

    /// What is left dies with the process.
    fn leave(self) {
        configure(|config| config.leak_on_drop = true);
    }
}

fn timed_collection() -> Duration {
    let start = Instant::now();
    force_collect();
    start.elapsed()
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

#[derive(Trace, Finalize)]
struct Pair {
    left: GcCell<Option<Gc<Pair>>>,
    right: GcCell<Option<Gc<Pair>>>,
    words: [u64; 2],
}

#[derive(Trace)]
struct Finalized([u64; 4]);

impl Finalize for Finalized {
    fn finalize(&self) {
        black_box(self.0[0]);
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

/// An object of 32 bytes, linked to the one before.
#[derive(Trace, Finalize)]
struct Linked {
    before: Option<Gc<Linked>>,
    words: [u64; 3],
}

fn linked(objects: usize) -> Option<Gc<Linked>> {
    (0..objects).fold(None, |before, n| Some(Gc::new(Linked { before, words: [n as u64; 3] })))
}
