//! What a program without a collector does: `Box`, `Arc`, and `Box` on mimalloc. The owner of an object frees it;
//! nobody looks for the dead, so there is neither mark nor sweep to time.

use std::hint::black_box;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use crate::catalogue::per;
use crate::heaps::{GARBAGE_PER_CYCLE, SEED};

use crate::catalogue::{Builtin, Out, Work};
use crate::measure::memory::{resident, tell_each, tell_spike};
use crate::measure::programs::{GcBench, nodes, short_lived, tell_binary_trees};

const ROWS: &[&str] = &[
    "W1",
    "W2r.50",
    "W2r.90",
    "W7.wall",
    "W7.rss",
    "GCBench.wall",
    "memory.object",
    "memory.spike",
];

pub(super) static BOX: Builtin = Builtin { name: "box", rows: ROWS, measure: measure::<SystemBox> };

pub(super) static ARC: Builtin = Builtin { name: "arc", rows: ROWS, measure: measure::<SystemArc> };

#[cfg(feature = "peers")]
pub(super) static BOX_MIMALLOC: Builtin =
    Builtin { name: "box-mimalloc", rows: ROWS, measure: measure::<Mimalloc> };

/// A kind of pointer that owns what it points to.
trait Owner: Sized {
    type Of<T>: Deref<Target = T>;

    fn new<T>(value: T) -> Self::Of<T>;

    /// The value of a pointer that was just made.
    fn get_mut<T>(of: &mut Self::Of<T>) -> &mut T;
}

enum SystemBox {}

impl Owner for SystemBox {
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

enum SystemArc {}

impl Owner for SystemArc {
    type Of<T> = Arc<T>;

    #[inline]
    fn new<T>(value: T) -> Arc<T> {
        Arc::new(value)
    }

    #[inline]
    fn get_mut<T>(of: &mut Arc<T>) -> &mut T {
        Arc::get_mut(of).expect("nobody shares it yet")
    }
}

#[cfg(feature = "peers")]
enum Mimalloc {}

#[cfg(feature = "peers")]
impl Owner for Mimalloc {
    type Of<T> = super::mi_box::MiBox<T>;

    #[inline]
    fn new<T>(value: T) -> Self::Of<T> {
        super::mi_box::MiBox::new(value)
    }

    #[inline]
    fn get_mut<T>(of: &mut Self::Of<T>) -> &mut T {
        of
    }
}

fn measure<O: Owner>(work: Work, size: usize, out: &mut Out) -> Result<(), String> {
    match work {
        Work::W1 => w1::<O>(size, out),
        Work::W2r => w2r::<O>(size, out),
        Work::W7 => binary_trees::<O>(size, out),
        Work::GcBench => gc_bench::<O>(size, out),
        Work::Memory => memory::<O>(size, out),
        _ => {}
    }
    Ok(())
}

/// Freed as late as the collector frees, and, as a variant, at once.
fn w1<O: Owner>(objects: usize, out: &mut Out) {
    let mut ring: Vec<Option<O::Of<[u64; 4]>>> = Vec::new();
    ring.resize_with(GARBAGE_PER_CYCLE, || None);
    let mut later = |count: usize| {
        let start = Instant::now();
        for n in 0..count {
            ring[n % GARBAGE_PER_CYCLE] = Some(O::new([n as u64; 4]));
        }
        black_box(&ring);
        start.elapsed()
    };
    later(2 * GARBAGE_PER_CYCLE);
    out.put("W1", per(later(objects), objects as u64));

    let start = Instant::now();
    for n in 0..objects {
        black_box(&*O::new([n as u64; 4]));
    }
    out.put("W1@once", per(start.elapsed(), objects as u64));
}

/// Into the holes that the random dead among many have left.
fn w2r<O: Owner>(objects: usize, out: &mut Out) {
    for (id, live) in [("W2r.50", 0.5), ("W2r.90", 0.9)] {
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
        let time = start.elapsed();
        out.put(id, per(time, holes.len() as u64));
        black_box(&all);
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

fn binary_trees<O: Owner>(depth: usize, out: &mut Out) {
    let start = Instant::now();
    assert_eq!(bottom_up::<O>(depth + 1).check(), nodes(depth + 1));
    let long_lived = bottom_up::<O>(depth);
    for (count, depth) in short_lived(depth) {
        let found: usize = (0..count).map(|_| bottom_up::<O>(depth).check()).sum();
        assert_eq!(found, count * nodes(depth));
    }
    assert_eq!(long_lived.check(), nodes(depth));
    tell_binary_trees(start, out);
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

fn gc_bench<O: Owner>(stretch: usize, out: &mut Out) {
    let plan = GcBench { stretch };
    let start = Instant::now();
    black_box(&*Node::<O>::make(stretch));
    let tree = Node::<O>::top_down(plan.long_lived());
    let array: Box<[f64]> = (0..plan.array()).map(|n| 1.0 / (n + 1) as f64).collect();
    for (count, depth) in plan.short_lived() {
        (0..count).for_each(|_| drop(black_box(Node::<O>::top_down(depth))));
        (0..count).for_each(|_| drop(black_box(Node::<O>::make(depth))));
    }
    black_box((tree.numbers, &array));
    out.put("GCBench.wall", start.elapsed().as_secs_f64() * 1e3);
}

/// An object of 32 bytes, which owns the one before.
struct Linked<O: Owner> {
    before: Option<O::Of<Linked<O>>>,
    words: [u64; 3],
}

fn memory<O: Owner>(objects: usize, out: &mut Out) {
    let before = resident();
    let mut last: Option<O::Of<Linked<O>>> = None;
    for n in 0..objects {
        last = Some(O::new(Linked { before: last, words: [n as u64; 3] }));
    }
    tell_each(out, "memory.object", before, objects);
    black_box(last.as_ref().map(|it| (it.words, it.before.is_some())));

    let mut all = Vec::with_capacity(objects);
    let before = resident();
    all.extend((0..objects).map(|n| O::new([n as u64; 4])));
    let peak = resident();
    drop(all);
    tell_spike(out, before, peak);
    // Dropping it would recurse as deep as it is long.
    mem::forget(last);
}
