//! What a program without a collector does: `Box`, `Arc`, and `Box` on mimalloc. The owner of an
//! object frees it; there is no search for the dead, so there is neither mark nor sweep to time.

use std::hint::black_box;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::Peer;
use crate::heaps::{GARBAGE_PER_CYCLE, SEED};

/// A kind of pointer that owns what it points to.
pub(super) trait Owner: Sized {
    const NAME: &'static str;

    type Of<T>: Deref<Target = T>;

    fn new<T>(value: T) -> Self::Of<T>;

    /// The value of a pointer that was just made.
    fn get_mut<T>(of: &mut Self::Of<T>) -> &mut T;
}

pub(super) enum SystemBox {}

impl Owner for SystemBox {
    const NAME: &'static str = "box";

    type Of<T> = Box<T>;

    #[inline]
    fn new<T>(value: T) -> Box<T> {
        Box::new(value)
    }

    #[inline]
    fn get_mut<T>(of: &mut Box<T>) -> &mut T {
        of
    }
}

pub(super) enum SystemArc {}

impl Owner for SystemArc {
    const NAME: &'static str = "arc";

    type Of<T> = Arc<T>;

    #[inline]
    fn new<T>(value: T) -> Arc<T> {
        Arc::new(value)
    }

    #[inline]
    fn get_mut<T>(of: &mut Arc<T>) -> &mut T {
        Arc::get_mut(of).expect("it is not shared yet")
    }
}

#[cfg(feature = "peers")]
pub(super) enum Mimalloc {}

#[cfg(feature = "peers")]
impl Owner for Mimalloc {
    const NAME: &'static str = "box-mimalloc";

    type Of<T> = allocator_api2::boxed::Box<T, super::mi_box::Mi>;

    #[inline]
    fn new<T>(value: T) -> Self::Of<T> {
        allocator_api2::boxed::Box::new_in(value, super::mi_box::Mi)
    }

    #[inline]
    fn get_mut<T>(of: &mut Self::Of<T>) -> &mut T {
        of
    }
}

/// What lives.
pub(super) struct Owned<O: Owner> {
    ring: Vec<Option<O::Of<[u64; 4]>>>,
    tree: Option<O::Of<Tree<O>>>,
    node: Option<O::Of<Node<O>>>,
    numbers: Box<[f64]>,
    list: Option<O::Of<Linked<O>>>,
}

impl<O: Owner> Default for Owned<O> {
    fn default() -> Self {
        Owned { ring: Vec::new(), tree: None, node: None, numbers: Box::default(), list: None }
    }
}

impl<O: Owner> Peer for Owned<O> {
    const NAME: &'static str = O::NAME;
    const ROWS: &'static str =
        "W1 W2r.50 W2r.90 W7.wall W7.rss GCBench.wall memory.object memory.spike";

    fn garbage(&mut self, objects: usize) -> Duration {
        self.ring.resize_with(GARBAGE_PER_CYCLE, || None);
        let start = Instant::now();
        for n in 0..objects {
            self.ring[n % GARBAGE_PER_CYCLE] = Some(O::new([n as u64; 4]));
        }
        black_box(&self.ring);
        start.elapsed()
    }

    fn garbage_at_once(&mut self, objects: usize) -> Option<Duration> {
        let start = Instant::now();
        for n in 0..objects {
            black_box(&*O::new([n as u64; 4]));
        }
        Some(start.elapsed())
    }

    /// Into the holes that the random dead among many have left.
    fn refill(&mut self, objects: usize, live: f64) -> (Duration, usize) {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut all: Vec<_> = (0..objects).map(|n| Some(O::new([n as u64; 4]))).collect();
        for slot in &mut all {
            if rng.f64() >= live {
                *slot = None;
            }
        }
        let mut holes: Vec<_> = all.iter_mut().filter(|slot| slot.is_none()).collect();
        let start = Instant::now();
        for (n, slot) in holes.iter_mut().enumerate() {
            **slot = Some(O::new([n as u64; 4]));
        }
        let (time, count) = (start.elapsed(), holes.len());
        black_box(&all);
        (time, count)
    }

    fn tree(&mut self, depth: usize) -> usize {
        bottom_up::<O>(depth).check()
    }

    fn keep_tree(&mut self, depth: usize) {
        self.tree = Some(bottom_up::<O>(depth));
    }

    fn kept_nodes(&mut self) -> usize {
        self.tree.as_ref().map_or(0, |tree| tree.check())
    }

    fn top_down(&mut self, depth: usize) {
        drop(black_box(Node::<O>::top_down(depth)));
    }

    fn bottom_up(&mut self, depth: usize) {
        drop(black_box(Node::<O>::make(depth)));
    }

    fn keep_tree_and_array(&mut self, depth: usize, numbers: usize) {
        self.node = Some(Node::<O>::top_down(depth));
        self.numbers = (0..numbers).map(|n| 1.0 / (n + 1) as f64).collect();
    }

    fn kept_numbers(&mut self) -> usize {
        black_box(self.node.as_ref().map(|node| node.numbers));
        black_box(&self.numbers).len()
    }

    fn keep_list(&mut self, objects: usize) {
        for n in 0..objects {
            self.list = Some(O::new(Linked { before: self.list.take(), words: [n as u64; 3] }));
        }
        black_box(self.list.as_ref().map(|it| (it.words, it.before.is_some())));
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let all: Vec<_> = (0..objects).map(|n| O::new([n as u64; 4])).collect();
        peak();
        drop(all);
    }
}

struct Tree<O: Owner> {
    children: Option<[O::Of<Tree<O>>; 2]>,
}

fn bottom_up<O: Owner>(depth: usize) -> O::Of<Tree<O>> {
    let children = (depth > 0).then(|| [bottom_up::<O>(depth - 1), bottom_up::<O>(depth - 1)]);
    O::new(Tree { children })
}

impl<O: Owner> Tree<O> {
    fn check(&self) -> usize {
        self.children.as_ref().map_or(1, |[left, right]| 1 + left.check() + right.check())
    }
}

struct Node<O: Owner> {
    left: Option<O::Of<Node<O>>>,
    right: Option<O::Of<Node<O>>>,
    numbers: [i32; 2],
}

impl<O: Owner> Node<O> {
    fn leaf() -> O::Of<Self> {
        O::new(Node { left: None, right: None, numbers: [0; 2] })
    }

    fn populate(&mut self, depth: usize) {
        if depth > 0 {
            let left = self.left.insert(Self::leaf());
            let right = self.right.insert(Self::leaf());
            O::get_mut(left).populate(depth - 1);
            O::get_mut(right).populate(depth - 1);
        }
    }

    fn top_down(depth: usize) -> O::Of<Self> {
        let mut node = Self::leaf();
        O::get_mut(&mut node).populate(depth);
        node
    }

    fn make(depth: usize) -> O::Of<Self> {
        if depth == 0 {
            return Self::leaf();
        }
        let (left, right) = (Some(Self::make(depth - 1)), Some(Self::make(depth - 1)));
        O::new(Node { left, right, numbers: [0; 2] })
    }
}

/// An object of 32 bytes, which owns the one before.
struct Linked<O: Owner> {
    before: Option<O::Of<Linked<O>>>,
    words: [u64; 3],
}
