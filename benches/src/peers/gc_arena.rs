//! gc-arena: an incremental mark-sweep collector with a branded API, whose objects are in the
//! system's allocator.
//!
//! It is told to collect as a whole instead of in steps, which is what it is fastest with, and not
//! before as many objects have been made as fit into Sexton's least heap.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gc_arena::arena::Root;
use gc_arena::metrics::Pacing;
use gc_arena::{Arena, Collect, Gc, Lock, Mutation, Rootable, Static};

use super::driver::{Peer, Programs};
use crate::heaps::{GARBAGE_PER_CYCLE, Links, SEED};

/// What lives of a flat heap.
type Flat = Arena<Rootable![Vec<Gc<'_, ()>>]>;
type TreeRoot = Rootable![Option<Gc<'_, Tree<'_>>>];
type ListRoot = Rootable![Last<'_>];

/// An arena for each kind of root.
pub(super) struct Arenas {
    garbage: Arena<Rootable![()]>,
    flat: Flat,
    tree: Arena<TreeRoot>,
    kept: Arena<Rootable![Kept<'_>]>,
    /// Lists, which are looked at while they are there.
    lists: Vec<Arena<ListRoot>>,
}

impl Default for Arenas {
    fn default() -> Self {
        Arenas {
            garbage: arena::<Rootable![()]>(|_mc| ()),
            flat: arena::<Rootable![Vec<Gc<'_, ()>>]>(|_mc| Vec::new()),
            tree: arena::<TreeRoot>(|_mc| None),
            kept: arena::<Rootable![Kept<'_>]>(|_mc| Kept::default()),
            lists: Vec::new(),
        }
    }
}

impl Programs for Arenas {
    fn tree(&mut self, depth: usize) -> usize {
        let found = self.tree.mutate(|mc, _| bottom_up(mc, depth).check());
        self.tree.collect_debt();
        found
    }

    fn keep_tree(&mut self, depth: usize) {
        self.tree.mutate_root(|mc, root| *root = Some(bottom_up(mc, depth)));
    }

    fn kept_nodes(&mut self) -> usize {
        self.tree.mutate(|_mc, root| root.map_or(0, |tree| tree.check()))
    }

    fn top_down(&mut self, depth: usize) {
        self.kept.mutate(|mc, _| _ = black_box(&*top_down(mc, depth)));
        self.kept.collect_debt();
    }

    fn bottom_up(&mut self, depth: usize) {
        self.kept.mutate(|mc, _| _ = black_box(&*make(mc, depth)));
        self.kept.collect_debt();
    }

    fn keep_tree_and_array(&mut self, depth: usize, numbers: usize) {
        self.kept.mutate_root(|mc, kept| {
            kept.tree = Some(top_down(mc, depth));
            let array: Box<[f64]> = (0..numbers).map(|n| 1.0 / (n + 1) as f64).collect();
            kept.array = Some(Gc::new(mc, array));
        });
    }

    fn kept_numbers(&mut self) -> usize {
        self.kept.mutate(|_mc, kept| {
            black_box(kept.tree.map(|tree| tree.get().numbers));
            kept.array.map_or(0, |array| array.len())
        })
    }

    fn keep_list(&mut self, objects: usize) {
        self.lists.push(linked(objects));
    }
}

impl Peer for Arenas {
    const NAME: &'static str = "gc-arena";
    const ROWS: &'static str = "W1 W2.0 W2.10 W2.50 W2.90 W2c.0 W2c.50 W2r.50 \
        W2r.90 W3.random W3.list W3.shuffled W3.tree W3.leaves W4.run W7.wall W7.rss \
        GCBench.wall memory.object memory.spike";

    fn garbage(&mut self, objects: usize) -> Duration {
        let start = Instant::now();
        for first in (0..objects).step_by(1024) {
            self.garbage.mutate(|mc, ()| {
                for n in first..objects.min(first + 1024) {
                    black_box(&*Gc::new(mc, [n as u64; 4]));
                }
            });
            self.garbage.collect_debt();
        }
        start.elapsed()
    }

    /// The sweep alone. An object with something to do is one of a type that implements `Drop`.
    fn sweep(&mut self, objects: usize, live: f64, dropping: f64) -> Duration {
        fill(&mut self.flat, objects, live, dropping);
        let time = sweep(&mut self.flat);
        clear(&mut self.flat);
        time
    }

    fn refill(&mut self, objects: usize, live: f64) -> (Duration, usize) {
        fill(&mut self.flat, objects, live, 0.0);
        sweep(&mut self.flat);
        let dead = objects - self.flat.metrics().total_gc_count();
        let start = Instant::now();
        self.flat.mutate(|mc, _| {
            for n in 0..dead {
                black_box(&*Gc::new(mc, [n as u64; 4]));
            }
        });
        let time = start.elapsed();
        clear(&mut self.flat);
        (time, dead)
    }

    fn mark(&mut self, objects: usize, links: Links) -> Duration {
        let mut arena = graph(links, objects);
        arena.finish_cycle();
        let start = Instant::now();
        let marked = arena.finish_marking().is_some();
        let time = start.elapsed();
        assert!(marked && arena.metrics().total_gc_count() == objects, "{links:?}");
        time
    }

    /// To the last `drop`, which the collecting thread calls.
    fn drops(&mut self, objects: usize) -> Duration {
        fill(&mut self.flat, objects, 0.0, 1.0);
        let start = Instant::now();
        self.flat.finish_cycle();
        start.elapsed()
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let mut list = linked(objects);
        peak();
        list.mutate_root(|_mc, root| *root = None);
        list.finish_cycle();
        list.finish_cycle();
        self.lists.push(list);
        let first = self.lists[0].mutate(|_mc, root| root.map(|object| object.words));
        black_box(first);
    }
}

const PACING: Pacing = Pacing { min_sleep: GARBAGE_PER_CYCLE, ..Pacing::STOP_THE_WORLD };

fn arena<R>(root: impl for<'gc> FnOnce(&'gc Mutation<'gc>) -> Root<'gc, R>) -> Arena<R>
where
    R: for<'gc> Rootable<'gc>,
    for<'gc> Root<'gc, R>: Sized,
{
    let arena = Arena::new(root);
    arena.metrics().set_pacing(PACING);
    arena
}

/// Has something to do when it dies.
struct Counted([u64; 4]);

impl Drop for Counted {
    fn drop(&mut self) {
        black_box(self.0[0]);
    }
}

/// Allocates objects of which a share lives, and another share has something to do when it dies.
fn fill(arena: &mut Flat, objects: usize, share: f64, dropping: f64) {
    let mut rng = fastrand::Rng::with_seed(SEED);
    arena.mutate_root(|mc, live| {
        for n in 0..objects {
            let words = [n as u64; 4];
            let lives = rng.f64() < share;
            let object = if rng.f64() < dropping {
                Gc::erase(Gc::new(mc, Static(Counted(words))))
            } else {
                Gc::erase(Gc::new(mc, words))
            };
            if lives {
                live.push(object);
            }
        }
    });
}

fn clear(arena: &mut Flat) {
    arena.mutate_root(|_mc, live| live.clear());
    arena.finish_cycle();
}

/// Times the sweep alone.
fn sweep(arena: &mut Flat) -> Duration {
    if let Some(marked) = arena.finish_marking() {
        marked.start_sweeping();
    }
    let start = Instant::now();
    arena.finish_cycle();
    start.elapsed()
}

/// An object with two links, of 32 bytes.
#[derive(Clone, Copy, Collect)]
#[collect(no_drop)]
struct Pair<'gc> {
    left: Option<PairGc<'gc>>,
    right: Option<PairGc<'gc>>,
    words: [u64; 2],
}

type PairGc<'gc> = Gc<'gc, Lock<Pair<'gc>>>;

#[derive(Collect)]
#[collect(no_drop)]
struct Graph<'gc> {
    root: Option<PairGc<'gc>>,
    leaves: Vec<Gc<'gc, [u64; 4]>>,
}

/// The same graphs as Sexton's; see `Links`.
fn graph(links: Links, objects: usize) -> Arena<Rootable![Graph<'_>]> {
    arena::<Rootable![Graph<'_>]>(|mc| {
        if links == Links::Leaves {
            let leaves = (0..objects).map(|n| Gc::new(mc, [n as u64; 4])).collect();
            return Graph { root: None, leaves };
        }
        let pair = |n: usize| Pair { left: None, right: None, words: [n as u64; 2] };
        let all: Vec<PairGc<'_>> = (0..objects).map(|n| Gc::new(mc, Lock::new(pair(n)))).collect();
        let root = all[links.edges(objects, |from, left, right| {
            let (left, right) = (left.map(|to| all[to]), right.map(|to| all[to]));
            all[from].set(mc, Pair { left, right, ..all[from].get() });
        })];
        black_box(root.get().words);
        Graph { root: Some(root), leaves: Vec::new() }
    })
}

#[derive(Collect)]
#[collect(no_drop)]
struct Tree<'gc> {
    children: Option<(Gc<'gc, Tree<'gc>>, Gc<'gc, Tree<'gc>>)>,
}

fn bottom_up<'gc>(mc: &Mutation<'gc>, depth: usize) -> Gc<'gc, Tree<'gc>> {
    let children = (depth > 0).then(|| (bottom_up(mc, depth - 1), bottom_up(mc, depth - 1)));
    Gc::new(mc, Tree { children })
}

impl Tree<'_> {
    fn check(&self) -> usize {
        self.children.map_or(1, |(left, right)| 1 + left.check() + right.check())
    }
}

#[derive(Clone, Copy, Collect, Default)]
#[collect(no_drop)]
struct Node<'gc> {
    left: Option<NodeGc<'gc>>,
    right: Option<NodeGc<'gc>>,
    numbers: [i32; 2],
}

type NodeGc<'gc> = Gc<'gc, Lock<Node<'gc>>>;

#[derive(Collect, Default)]
#[collect(no_drop)]
struct Kept<'gc> {
    tree: Option<NodeGc<'gc>>,
    array: Option<Gc<'gc, Box<[f64]>>>,
}

fn node<'gc>(mc: &Mutation<'gc>, children: Option<[NodeGc<'gc>; 2]>) -> NodeGc<'gc> {
    let [left, right] = children.map_or([None; 2], |it| it.map(Some));
    Gc::new(mc, Lock::new(Node { left, right, numbers: [0; 2] }))
}

fn populate<'gc>(mc: &Mutation<'gc>, top: NodeGc<'gc>, depth: usize) {
    if depth > 0 {
        let children = [node(mc, None), node(mc, None)];
        let [left, right] = children.map(Some);
        top.set(mc, Node { left, right, ..top.get() });
        children.into_iter().for_each(|child| populate(mc, child, depth - 1));
    }
}

fn top_down<'gc>(mc: &Mutation<'gc>, depth: usize) -> NodeGc<'gc> {
    let top = node(mc, None);
    populate(mc, top, depth);
    top
}

fn make<'gc>(mc: &Mutation<'gc>, depth: usize) -> NodeGc<'gc> {
    node(mc, (depth > 0).then(|| [make(mc, depth - 1), make(mc, depth - 1)]))
}

/// An object of 32 bytes, linked to the one before.
#[derive(Collect)]
#[collect(no_drop)]
struct Linked<'gc> {
    before: Option<Gc<'gc, Linked<'gc>>>,
    words: [u64; 3],
}

type Last<'gc> = Option<Gc<'gc, Linked<'gc>>>;

fn linked(objects: usize) -> Arena<ListRoot> {
    arena::<ListRoot>(|mc| {
        let link = |before, n| Some(Gc::new(mc, Linked { before, words: [n as u64; 3] }));
        (0..objects).fold(None, link)
    })
}
