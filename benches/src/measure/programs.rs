//! Two well-known programs as a user of Sexton would write them, with default settings.
//!
//! The plans of both, that is how many trees of which depth, are here for the peers, too.

use std::hint::black_box;
use std::time::Instant;

use crate::heaps::Nothing;
use sexton::{
    Branded, Gc, GcCell, Heap, Leaf, Local, Mode, Mutation, Mutator, Payload, Shared, Trace,
};

use super::memory::peak_mb;
use crate::catalogue::Out;

/// How many trees of which depth binary-trees makes, beside the long-lived one of depth `depth` and
/// one before it that is deeper by one.
pub(crate) fn short_lived(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    (MIN_DEPTH..=depth).step_by(2).map(move |k| (1 << (depth + MIN_DEPTH - k), k))
}

/// The depth of the smallest trees of both programs.
const MIN_DEPTH: usize = 4;

/// The nodes of a complete tree.
pub(crate) fn nodes(depth: usize) -> usize {
    (1 << (depth + 1)) - 1
}

/// The plan of GCBench for a first tree of depth `stretch`; that of Ellis, Kovac and Boehm is 18.
#[derive(Clone, Copy)]
pub(crate) struct GcBench {
    pub(crate) stretch: usize,
}

impl GcBench {
    /// The depth of the tree that lives to the end.
    pub(crate) fn long_lived(self) -> usize {
        self.stretch.saturating_sub(2)
    }

    /// The numbers in the array that lives to the end.
    pub(crate) fn array(self) -> usize {
        500_000 >> 18_usize.saturating_sub(self.stretch)
    }

    /// How many trees of which depth are made top down, and as many again bottom up.
    pub(crate) fn short_lived(self) -> impl Iterator<Item = (usize, usize)> {
        let depths = (MIN_DEPTH..=self.long_lived()).step_by(2);
        depths.map(move |depth| (2 * nodes(self.stretch) / nodes(depth), depth))
    }
}

/// Tells what a program took: its time, and the peak of memory of this process, which has run
/// nothing else.
pub(crate) fn tell_binary_trees(start: Instant, out: &mut Out) {
    out.put("W7.wall", start.elapsed().as_secs_f64() * 1e3);
    if let Some(mb) = peak_mb() {
        out.put("W7.rss", mb);
    }
}

/// A node of binary-trees: two pointers.
#[derive(Trace)]
pub(super) struct Tree<'gc> {
    children: Option<(Gc<'gc, Tree<'gc>>, Gc<'gc, Tree<'gc>>)>,
}

/// Opens sessions: a heap of one thread, or one thread's mutator of a shared heap.
pub(super) trait Sessions {
    type Mode: Mode;

    fn mutate<T>(&mut self, f: impl for<'gc> FnOnce(&Mutation<'gc, Self::Mode>) -> T) -> T;
}

impl<R: Branded> Sessions for Heap<R> {
    type Mode = Local;

    fn mutate<T>(&mut self, f: impl for<'gc> FnOnce(&Mutation<'gc>) -> T) -> T {
        Heap::mutate(self, |mc, _| f(mc))
    }
}

impl<R: Branded> Sessions for Mutator<'_, R> {
    type Mode = Shared;

    fn mutate<T>(&mut self, f: impl for<'gc> FnOnce(&Mutation<'gc, Shared>) -> T) -> T {
        Mutator::mutate(self, |mc, _| f(mc))
    }
}

fn bottom_up<'gc, M: Mode>(mc: &Mutation<'gc, M>, depth: usize) -> Gc<'gc, Tree<'gc>>
where
    Tree<'gc>: Payload<M>,
{
    let children = (depth > 0).then(|| (bottom_up(mc, depth - 1), bottom_up(mc, depth - 1)));
    mc.alloc(Tree { children })
}

impl Tree<'_> {
    fn check(&self) -> usize {
        self.children.map_or(1, |(left, right)| 1 + left.check() + right.check())
    }
}

pub(super) fn binary_trees(depth: usize, out: &mut Out) {
    let start = Instant::now();
    make_trees(&mut Heap::<Nothing>::new(|_mc| Nothing), depth);
    tell_binary_trees(start, out);
}

/// The program itself.
pub(super) fn make_trees<S: Sessions>(heap: &mut S, depth: usize)
where
    for<'gc> Tree<'gc>: Payload<S::Mode>,
{
    let stretched = heap.mutate(|mc| bottom_up(mc, depth + 1).check());
    assert_eq!(stretched, nodes(depth + 1));
    let long_lived = heap.mutate(|mc| mc.root(bottom_up(mc, depth)));
    for (count, depth) in short_lived(depth) {
        let mut found = 0;
        for _ in 0..count {
            found += heap.mutate(|mc| bottom_up(mc, depth).check());
        }
        assert_eq!(found, count * nodes(depth));
    }
    let left = heap.mutate(|mc| mc.fetch(&long_lived).check());
    assert_eq!(left, nodes(depth));
}

/// A node of GCBench: two pointers and two numbers.
#[derive(Trace, Default)]
struct Node<'gc> {
    left: GcCell<Option<Gc<'gc, Node<'gc>>>>,
    right: GcCell<Option<Gc<'gc, Node<'gc>>>>,
    numbers: Leaf<[i32; 2]>,
}

#[derive(Trace, Default)]
struct Kept<'gc> {
    tree: GcCell<Option<Gc<'gc, Node<'gc>>>>,
    array: GcCell<Option<Gc<'gc, Array>>>,
}

type Array = Leaf<Box<[f64]>>;

fn populate<'gc>(mc: &Mutation<'gc>, node: Gc<'gc, Node<'gc>>, depth: usize) {
    if depth > 0 {
        let children = [mc.alloc(Node::default()), mc.alloc(Node::default())];
        node.left.set(mc, Some(children[0]));
        node.right.set(mc, Some(children[1]));
        children.into_iter().for_each(|child| populate(mc, child, depth - 1));
    }
}

fn top_down<'gc>(mc: &Mutation<'gc>, depth: usize) -> Gc<'gc, Node<'gc>> {
    let node = mc.alloc(Node::default());
    populate(mc, node, depth);
    node
}

fn make<'gc>(mc: &Mutation<'gc>, depth: usize) -> Gc<'gc, Node<'gc>> {
    if depth == 0 {
        return mc.alloc(Node::default());
    }
    let [left, right] = [make(mc, depth - 1), make(mc, depth - 1)].map(|it| GcCell::new(Some(it)));
    mc.alloc(Node { left, right, numbers: Leaf::default() })
}

pub(super) fn gc_bench(stretch: usize, out: &mut Out) {
    let plan = GcBench { stretch };
    let start = Instant::now();
    let mut heap: Heap<Kept<'static>> = Heap::new(|_mc| Kept::default());
    heap.mutate(|mc, _| {
        black_box(&*make(mc, stretch));
    });
    heap.mutate(|mc, kept| {
        kept.tree.set(mc, Some(top_down(mc, plan.long_lived())));
        let array: Box<[f64]> = (0..plan.array()).map(|n| 1.0 / (n + 1) as f64).collect();
        kept.array.set(mc, Some(mc.alloc(Leaf::new(array))));
    });
    for (count, depth) in plan.short_lived() {
        for _ in 0..count {
            heap.mutate(|mc, _| {
                black_box(&*top_down(mc, depth));
            });
        }
        for _ in 0..count {
            heap.mutate(|mc, _| {
                black_box(&*make(mc, depth));
            });
        }
    }
    let kept = heap.mutate(|_mc, kept| {
        let node = kept.tree.get().map(|tree| tree.numbers[0]);
        node.is_some() && kept.array.get().is_some_and(|array| array.len() == plan.array())
    });
    assert!(kept, "what was to live has died");
    out.put("GCBench.wall", start.elapsed().as_secs_f64() * 1e3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_binary_trees_is_the_one_of_the_design() {
        let plan: Vec<_> = short_lived(18).collect();
        assert_eq!((plan[0], plan[7], plan.len()), ((1 << 18, 4), (1 << 4, 18), 8));
    }

    #[test]
    fn the_plan_of_gc_bench_is_the_classic_one() {
        let plan = GcBench { stretch: 18 };
        assert_eq!((plan.long_lived(), plan.array()), (16, 500_000));
        let counts: Vec<_> = plan.short_lived().collect();
        assert_eq!((counts[0], counts[6], counts.len()), ((33_824, 4), (8, 16), 7));
    }
}
