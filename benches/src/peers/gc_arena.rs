//! gc-arena: an incremental mark-sweep collector with a branded API, whose objects are in the system's allocator.
//!
//! It is told to collect as a whole instead of in steps, which is what it is fastest with, and not before as many
//! objects have been made as fit into Sexton's least heap.

use std::hint::black_box;
use std::time::Instant;

use crate::catalogue::per;
use crate::heaps::{GARBAGE_PER_CYCLE, Links, SEED};
use gc_arena::arena::Root;
use gc_arena::barrier::Write;
use gc_arena::metrics::Pacing;
use gc_arena::{Arena, Collect, Gc, Lock, Mutation, RefLock, Rootable, Static};

use crate::catalogue::{Builtin, Out, Work};
use crate::measure::memory::{resident, tell_each, tell_spike};
use crate::measure::programs::{GcBench, nodes, short_lived, tell_binary_trees};

pub(super) static GC_ARENA: Builtin = Builtin {
    name: "gc-arena",
    rows: &[
        "W1",
        "W2.0",
        "W2.10",
        "W2.50",
        "W2.90",
        "W2c.0",
        "W2c.50",
        "W2r.50",
        "W2r.90",
        "W3.random",
        "W3.list",
        "W3.shuffled",
        "W3.tree",
        "W3.leaves",
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
    match work {
        Work::W1 => w1(size, out),
        Work::W2 => w2(size, out),
        Work::W2c => w2c(size, out),
        Work::W2r => w2r(size, out),
        Work::W3 => w3(size, out),
        Work::W4 => w4(size, out),
        Work::W7 => binary_trees(size, out),
        Work::GcBench => gc_bench(size, out),
        Work::Memory => memory(size, out),
        _ => {}
    }
    Ok(())
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

fn w1(objects: usize, out: &mut Out) {
    let mut arena = arena::<Rootable![()]>(|_mc| ());
    let mut fill = |count: usize| {
        let start = Instant::now();
        for first in (0..count).step_by(1024) {
            arena.mutate(|mc, ()| {
                for n in first..count.min(first + 1024) {
                    black_box(&*Gc::new(mc, [n as u64; 4]));
                }
            });
            arena.collect_debt();
        }
        start.elapsed()
    };
    fill(4 * GARBAGE_PER_CYCLE);
    out.put("W1", per(fill(objects), objects as u64));
}

/// An object of 32 bytes without pointers.
type Plain<'gc> = Gc<'gc, [u64; 4]>;

/// One that has something to do when it dies.
type Dropping<'gc> = Gc<'gc, Static<Counted>>;

struct Counted([u64; 4]);

impl Drop for Counted {
    fn drop(&mut self) {
        black_box(self.0[0]);
    }
}

#[derive(Collect)]
#[collect(no_drop)]
struct Live<'gc> {
    plain: RefLock<Vec<Plain<'gc>>>,
    dropping: RefLock<Vec<Dropping<'gc>>>,
}

type LiveArena = Arena<Rootable![Gc<'_, Live<'_>>]>;

fn live() -> LiveArena {
    arena::<Rootable![Gc<'_, Live<'_>>]>(|mc| {
        Gc::new(mc, Live { plain: RefLock::default(), dropping: RefLock::default() })
    })
}

/// Allocates objects of which a share lives, and another share has something to do when it dies.
fn fill(arena: &mut LiveArena, objects: usize, share: f64, dropping: f64) {
    let mut rng = fastrand::Rng::with_seed(SEED);
    arena.mutate(|mc, root| {
        let root = Gc::write(mc, *root);
        let mut plain = gc_arena::barrier::field!(root, Live, plain).unlock().borrow_mut();
        let mut special = gc_arena::barrier::field!(root, Live, dropping).unlock().borrow_mut();
        for n in 0..objects {
            let words = [n as u64; 4];
            let lives = rng.f64() < share;
            if rng.f64() < dropping {
                let object = Gc::new(mc, Static(Counted(words)));
                if lives {
                    special.push(object);
                }
            } else {
                let object = Gc::new(mc, words);
                if lives {
                    plain.push(object);
                }
            }
        }
    });
}

fn clear(arena: &mut LiveArena) {
    arena.mutate(|mc, root| {
        let root = Gc::write(mc, *root);
        gc_arena::barrier::field!(root, Live, plain).unlock().borrow_mut().clear();
        gc_arena::barrier::field!(root, Live, dropping).unlock().borrow_mut().clear();
    });
    arena.finish_cycle();
}

/// Nanoseconds per object of the sweep alone.
fn sweep(arena: &mut LiveArena, objects: usize) -> f64 {
    if let Some(marked) = arena.finish_marking() {
        marked.start_sweeping();
    }
    let start = Instant::now();
    arena.finish_cycle();
    per(start.elapsed(), objects as u64)
}

fn w2(objects: usize, out: &mut Out) {
    let mut arena = live();
    fill(&mut arena, objects, 0.5, 0.0);
    clear(&mut arena);
    for (id, share) in [("W2.0", 0.0), ("W2.10", 0.1), ("W2.50", 0.5), ("W2.90", 0.9)] {
        fill(&mut arena, objects, share, 0.0);
        out.put(id, sweep(&mut arena, objects));
        clear(&mut arena);
    }
}

/// What carries a cleanup here is a type that implements `Drop`.
fn w2c(objects: usize, out: &mut Out) {
    let mut arena = live();
    fill(&mut arena, objects, 0.5, 0.1);
    clear(&mut arena);
    for (id, share) in [("W2c.0", 0.0), ("W2c.50", 0.5)] {
        fill(&mut arena, objects, share, 0.1);
        out.put(id, sweep(&mut arena, objects));
        clear(&mut arena);
    }
}

fn w2r(objects: usize, out: &mut Out) {
    let mut arena = live();
    fill(&mut arena, objects, 0.5, 0.0);
    clear(&mut arena);
    for (id, share) in [("W2r.50", 0.5), ("W2r.90", 0.9)] {
        fill(&mut arena, objects, share, 0.0);
        sweep(&mut arena, objects);
        let dead = objects - arena.metrics().total_gc_count();
        let start = Instant::now();
        arena.mutate(|mc, _| {
            for n in 0..dead {
                black_box(&*Gc::new(mc, [n as u64; 4]));
            }
        });
        out.put(id, per(start.elapsed(), dead as u64));
        clear(&mut arena);
    }
}

/// From the start of the collection to the last `drop`, which the collecting thread calls.
fn w4(cleanups: usize, out: &mut Out) {
    let mut arena = live();
    for id in [None, Some("W4.run")] {
        fill(&mut arena, cleanups, 0.0, 1.0);
        let start = Instant::now();
        arena.finish_cycle();
        let time = start.elapsed();
        id.into_iter().for_each(|id| out.put(id, per(time, cleanups as u64)));
    }
}

/// An object with two links, of 32 bytes.
#[derive(Collect)]
#[collect(no_drop)]
struct Pair<'gc> {
    left: Lock<Option<Gc<'gc, Pair<'gc>>>>,
    right: Lock<Option<Gc<'gc, Pair<'gc>>>>,
    words: [u64; 2],
}

impl<'gc> Pair<'gc> {
    fn set_left(mc: &Mutation<'gc>, this: Gc<'gc, Self>, to: Option<Gc<'gc, Self>>) {
        gc_arena::barrier::field!(Gc::write(mc, this), Pair, left).unlock().set(to);
    }

    fn set_right(mc: &Mutation<'gc>, this: Gc<'gc, Self>, to: Option<Gc<'gc, Self>>) {
        gc_arena::barrier::field!(Gc::write(mc, this), Pair, right).unlock().set(to);
    }
}

#[derive(Collect)]
#[collect(no_drop)]
struct Graph<'gc> {
    root: Option<Gc<'gc, Pair<'gc>>>,
    leaves: Vec<Plain<'gc>>,
}

/// The same graphs as Sexton's; see `Links`.
fn graph(links: Links, objects: usize) -> Arena<Rootable![Graph<'_>]> {
    arena::<Rootable![Graph<'_>]>(|mc| {
        if links == Links::Leaves {
            let leaves = (0..objects).map(|n| Gc::new(mc, [n as u64; 4])).collect();
            return Graph { root: None, leaves };
        }
        let pair = |n: usize| {
            let (left, right) = (Lock::new(None), Lock::new(None));
            Gc::new(mc, Pair { left, right, words: [n as u64; 2] })
        };
        let all: Vec<Gc<'_, Pair<'_>>> = (0..objects).map(pair).collect();
        let root = all[links.edges(objects, |from, left, right| {
            Pair::set_left(mc, all[from], left.map(|to| all[to]));
            Pair::set_right(mc, all[from], right.map(|to| all[to]));
        })];
        black_box(root.words);
        Graph { root: Some(root), leaves: Vec::new() }
    })
}

fn w3(objects: usize, out: &mut Out) {
    for (id, links) in [
        ("W3.random", Links::Random),
        ("W3.list", Links::List),
        ("W3.shuffled", Links::Shuffled),
        ("W3.tree", Links::Tree),
        ("W3.leaves", Links::Leaves),
    ] {
        let mut arena = graph(links, objects);
        arena.finish_cycle();
        let start = Instant::now();
        let marked = arena.finish_marking().is_some();
        let time = start.elapsed();
        assert!(marked && arena.metrics().total_gc_count() == objects, "{id}");
        out.put(id, per(time, objects as u64));
    }
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

fn binary_trees(depth: usize, out: &mut Out) {
    let start = Instant::now();
    let mut arena = arena::<Rootable![Option<Gc<'_, Tree<'_>>>]>(|_mc| None);
    let stretched = arena.mutate(|mc, _| bottom_up(mc, depth + 1).check());
    assert_eq!(stretched, nodes(depth + 1));
    arena.collect_debt();
    arena.mutate_root(|mc, root| *root = Some(bottom_up(mc, depth)));
    for (count, depth) in short_lived(depth) {
        let mut found = 0;
        for _ in 0..count {
            found += arena.mutate(|mc, _| bottom_up(mc, depth).check());
            arena.collect_debt();
        }
        assert_eq!(found, count * nodes(depth));
    }
    let left = arena.mutate(|_mc, root| root.map_or(0, |tree| tree.check()));
    assert_eq!(left, nodes(depth));
    tell_binary_trees(start, out);
}

#[derive(Collect, Default)]
#[collect(no_drop)]
struct Node<'gc> {
    left: Lock<Option<Gc<'gc, Node<'gc>>>>,
    right: Lock<Option<Gc<'gc, Node<'gc>>>>,
    numbers: [i32; 2],
}

#[derive(Collect, Default)]
#[collect(no_drop)]
struct Kept<'gc> {
    tree: Option<Gc<'gc, Node<'gc>>>,
    array: Option<Gc<'gc, Box<[f64]>>>,
}

fn populate<'gc>(mc: &Mutation<'gc>, node: Gc<'gc, Node<'gc>>, depth: usize) {
    if depth > 0 {
        let children = [Gc::new(mc, Node::default()), Gc::new(mc, Node::default())];
        let written: &Write<Node<'gc>> = Gc::write(mc, node);
        gc_arena::barrier::field!(written, Node, left).unlock().set(Some(children[0]));
        gc_arena::barrier::field!(written, Node, right).unlock().set(Some(children[1]));
        children.into_iter().for_each(|child| populate(mc, child, depth - 1));
    }
}

fn top_down<'gc>(mc: &Mutation<'gc>, depth: usize) -> Gc<'gc, Node<'gc>> {
    let node = Gc::new(mc, Node::default());
    populate(mc, node, depth);
    node
}

fn make<'gc>(mc: &Mutation<'gc>, depth: usize) -> Gc<'gc, Node<'gc>> {
    if depth == 0 {
        return Gc::new(mc, Node::default());
    }
    let [left, right] = [make(mc, depth - 1), make(mc, depth - 1)].map(|it| Lock::new(Some(it)));
    Gc::new(mc, Node { left, right, numbers: [0; 2] })
}

fn gc_bench(stretch: usize, out: &mut Out) {
    let plan = GcBench { stretch };
    let start = Instant::now();
    let mut arena = arena::<Rootable![Kept<'_>]>(|_mc| Kept::default());
    arena.mutate(|mc, _| {
        black_box(&*make(mc, stretch));
    });
    arena.collect_debt();
    arena.mutate_root(|mc, kept| {
        kept.tree = Some(top_down(mc, plan.long_lived()));
        let array: Box<[f64]> = (0..plan.array()).map(|n| 1.0 / (n + 1) as f64).collect();
        kept.array = Some(Gc::new(mc, array));
    });
    for (count, depth) in plan.short_lived() {
        for make_one in [top_down, make] {
            for _ in 0..count {
                arena.mutate(|mc, _| {
                    black_box(&*make_one(mc, depth));
                });
                arena.collect_debt();
            }
        }
    }
    let kept = arena.mutate(|_mc, kept| {
        let node = kept.tree.map(|tree| tree.numbers[0]);
        node.is_some() && kept.array.is_some_and(|array| array.len() == plan.array())
    });
    assert!(kept, "what was to live has died");
    out.put("GCBench.wall", start.elapsed().as_secs_f64() * 1e3);
}

/// An object of 32 bytes, linked to the one before.
#[derive(Collect)]
#[collect(no_drop)]
struct Linked<'gc> {
    before: Option<Gc<'gc, Linked<'gc>>>,
    words: [u64; 3],
}

type Last<'gc> = Option<Gc<'gc, Linked<'gc>>>;

fn linked(objects: usize) -> Arena<Rootable![Last<'_>]> {
    arena::<Rootable![Last<'_>]>(|mc| {
        let link = |before, n| Some(Gc::new(mc, Linked { before, words: [n as u64; 3] }));
        (0..objects).fold(None, link)
    })
}

fn memory(objects: usize, out: &mut Out) {
    let before = resident();
    let first = linked(objects);
    tell_each(out, "memory.object", before, objects);

    let before = resident();
    let mut second = linked(objects);
    let peak = resident();
    second.mutate_root(|_mc, root| *root = None);
    second.finish_cycle();
    second.finish_cycle();
    tell_spike(out, before, peak);
    black_box(first.mutate(|_mc, root| root.map(|object| object.words[0])));
}
