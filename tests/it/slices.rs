//! Cycles in slices: whatever sessions do between two of them, nothing reachable dies, and nothing
//! unreachable lives for longer than one cycle more.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use sexton::{
    BackPressure, CleanupPool, Gc, GcAtomic, GcCell, GcMutex, GcRefCell, GcRwLock, Heap, Leaf,
    Mutation, Pacing, Progress, Root, Shared, Trace, Weak,
};

/// A node with a link of each kind.
#[derive(Trace)]
struct Node<'gc> {
    id: usize,
    cell: GcCell<Option<Gc<'gc, Node<'gc>>>>,
    list: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
    mutex: GcMutex<Option<Gc<'gc, Node<'gc>>>>,
    lock: GcRwLock<Option<Gc<'gc, Node<'gc>>>>,
    weak: GcCell<Option<Weak<'gc, Node<'gc>>>>,
    /// Long enough to be traced piece by piece.
    fixed: Vec<Option<Gc<'gc, Node<'gc>>>>,
    dropped: Leaf<Dropped>,
}

#[derive(Trace, Default)]
struct World<'gc> {
    nodes: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
    weaks: GcRefCell<Vec<(usize, Weak<'gc, Node<'gc>>)>>,
}

struct Dropped(Arc<Vec<AtomicUsize>>, usize);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0[self.1].fetch_add(1, SeqCst);
    }
}

/// What the program believes of a node.
#[derive(Clone, Default)]
struct Model {
    cell: Option<usize>,
    list: Vec<usize>,
    mutex: Option<usize>,
    lock: Option<usize>,
    fixed: Vec<usize>,
    weak: Option<usize>,
}

const MOST: usize = 4000;

struct Play {
    heap: Heap<World<'static>>,
    pool: CleanupPool,
    random: fastrand::Rng,
    model: HashMap<usize, Model>,
    in_world: Vec<usize>,
    rooted: Vec<(usize, Root<Node<'static>>)>,
    next: usize,
    drops: Arc<Vec<AtomicUsize>>,
    cleaned: Arc<Vec<AtomicUsize>>,
    local: Rc<std::cell::RefCell<Vec<usize>>>,
    with_local: HashSet<usize>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let counts = || Arc::new((0..MOST).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let pool = CleanupPool::manual();
        Play {
            heap: Heap::builder()
                .cleanup_pool(&pool)
                .pacing(Pacing::Manual)
                .zeal(false)
                .build(|_| World::default()),
            pool,
            random: fastrand::Rng::with_seed(seed),
            model: HashMap::new(),
            in_world: Vec::new(),
            rooted: Vec::new(),
            next: 0,
            drops: counts(),
            cleaned: counts(),
            local: Rc::default(),
            with_local: HashSet::new(),
        }
    }

    fn reachable(&self) -> HashSet<usize> {
        let mut seen = HashSet::new();
        let mut work: Vec<usize> = self.in_world.clone();
        work.extend(self.rooted.iter().map(|(id, _)| *id));
        while let Some(id) = work.pop() {
            if seen.insert(id) {
                let node = &self.model[&id];
                work.extend(node.cell.iter().chain(&node.mutex).chain(&node.lock));
                work.extend(node.list.iter().chain(&node.fixed));
            }
        }
        seen
    }

    /// Everything reachable is intact, and what a `Weak` gives is what it pointed to.
    fn check(&mut self) {
        self.heap.verify().unwrap();
        let (model, in_world, rooted) = (&self.model, &self.in_world, &self.rooted);
        let drops = &self.drops;
        self.heap.mutate(|mc, world| {
            let mut seen = HashSet::new();
            let mut work: Vec<Gc<'_, Node<'_>>> = world.nodes.borrow().clone();
            assert_eq!(work.iter().map(|node| node.id).collect::<Vec<_>>(), *in_world);
            work.extend(rooted.iter().map(|(_, root)| mc.fetch(root)));
            while let Some(node) = work.pop() {
                if !seen.insert(node.id) {
                    continue;
                }
                assert_eq!(drops[node.id].load(SeqCst), 0, "a reachable node was dropped");
                let m = &model[&node.id];
                assert_eq!(node.cell.get().map(|n| n.id), m.cell);
                assert_eq!(node.mutex.lock(mc).map(|n| n.id), m.mutex);
                assert_eq!(node.lock.read(mc).map(|n| n.id), m.lock);
                assert_eq!(node.list.borrow().iter().map(|n| n.id).collect::<Vec<_>>(), m.list);
                if let Some(weak) = node.weak.get()
                    && let Some(target) = weak.upgrade(mc)
                {
                    assert_eq!(Some(target.id), m.weak);
                    assert_eq!(drops[target.id].load(SeqCst), 0);
                }
                work.extend(node.cell.get());
                work.extend(*node.mutex.lock(mc));
                work.extend(*node.lock.read(mc));
                work.extend(node.list.borrow().iter().copied());
                work.extend(node.fixed.iter().flatten().copied());
            }
        });
    }

    fn session(&mut self) {
        let Play { heap, random, model, in_world, next, drops, cleaned, local, with_local, .. } =
            self;
        let rooted = &mut self.rooted;
        heap.mutate(|mc, world| {
            for _ in 0..random.usize(1..12) {
                Self::op(
                    mc, world, random, model, in_world, rooted, next, drops, cleaned, local,
                    with_local,
                );
            }
        });
        if !self.rooted.is_empty() && self.random.u8(..) < 60 {
            let at = self.random.usize(..self.rooted.len());
            self.rooted.swap_remove(at);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one struct, borrowed one by one")]
    fn op<'gc>(
        mc: &Mutation<'gc>,
        world: &World<'gc>,
        random: &mut fastrand::Rng,
        model: &mut HashMap<usize, Model>,
        in_world: &mut Vec<usize>,
        rooted: &mut Vec<(usize, Root<Node<'static>>)>,
        next: &mut usize,
        drops: &Arc<Vec<AtomicUsize>>,
        cleaned: &Arc<Vec<AtomicUsize>>,
        local: &Rc<std::cell::RefCell<Vec<usize>>>,
        with_local: &mut HashSet<usize>,
    ) {
        // A walk from a random start: what a program holds on its stack.
        let pick = |random: &mut fastrand::Rng| -> Option<Gc<'gc, Node<'gc>>> {
            if random.u8(..) < 40 {
                // By a weak pointer: perhaps the only way to it.
                let weaks = world.weaks.borrow();
                if !weaks.is_empty() {
                    let (id, weak) = weaks[random.usize(..weaks.len())];
                    if let Some(node) = weak.upgrade(mc) {
                        assert_eq!(node.id, id);
                        return Some(node);
                    }
                }
            }
            let nodes = world.nodes.borrow();
            let mut node = if !rooted.is_empty() && random.bool() {
                mc.fetch(&rooted[random.usize(..rooted.len())].1)
            } else if nodes.is_empty() {
                return None;
            } else {
                nodes[random.usize(..nodes.len())]
            };
            for _ in 0..random.usize(..4) {
                let onward = match random.u8(..4) {
                    0 => node.cell.get(),
                    1 => *node.mutex.lock(mc),
                    2 => node.list.borrow().first().copied(),
                    _ => node.fixed.iter().flatten().next().copied(),
                };
                node = onward.unwrap_or(node);
            }
            Some(node)
        };
        let node = pick(random);
        let other = pick(random);
        let op = random.u8(..16);
        match (op, node) {
            (0..4, _) | (_, None) => {
                if *next == MOST {
                    return;
                }
                let id = *next;
                *next += 1;
                let long = random.u8(..) < 10;
                let len = if long { 5000 } else { random.usize(..3) };
                let links: Vec<_> =
                    (0..len).map(|at| if at % 7 == 0 { other } else { node }).collect();
                let fixed: HashSet<usize> = links.iter().flatten().map(|n| n.id).collect();
                // So may the list, which sessions change.
                let listed = if random.u8(..) < 10 { 5000 } else { 1 };
                let list: Vec<_> = std::iter::repeat_n(node, listed).flatten().collect();
                let in_list = list.iter().map(|n| n.id).collect();
                let new = mc.alloc(Node {
                    id,
                    cell: GcCell::new(other),
                    list: GcRefCell::new(list),
                    mutex: GcMutex::default(),
                    lock: GcRwLock::default(),
                    weak: GcCell::new(None),
                    fixed: links,
                    dropped: Leaf::new(Dropped(drops.clone(), id)),
                });
                model.insert(
                    id,
                    Model {
                        cell: other.map(|n| n.id),
                        list: in_list,
                        fixed: fixed.into_iter().collect(),
                        ..Model::default()
                    },
                );
                if random.bool() {
                    let cleaned = cleaned.clone();
                    mc.add_cleanup(new, move || _ = cleaned[id].fetch_add(1, SeqCst));
                }
                if random.u8(..) < 60 {
                    let local = local.clone();
                    mc.add_cleanup_local(new, move || local.borrow_mut().push(id));
                    with_local.insert(id);
                }
                match random.u8(..4) {
                    0 => rooted.push((id, mc.root(new))),
                    1 => world.weaks.borrow_mut(mc).push((id, mc.downgrade(new))),
                    _ => {
                        world.nodes.borrow_mut(mc).push(new);
                        in_world.push(id);
                    }
                }
            }
            (4, Some(node)) => {
                node.cell.set(mc, other);
                model.get_mut(&node.id).unwrap().cell = other.map(|n| n.id);
            }
            (5, Some(node)) => {
                // Moves a pointer to a place that the mark may have passed.
                let moved = node.cell.take(mc);
                model.get_mut(&node.id).unwrap().cell = None;
                if let Some(other) = other {
                    other.list.borrow_mut(mc).extend(moved);
                    model.get_mut(&other.id).unwrap().list.extend(moved.map(|n| n.id));
                }
            }
            (6 | 7, Some(node)) => {
                let mut list = node.list.borrow_mut(mc);
                let m = model.get_mut(&node.id).unwrap();
                if list.len() > 3 {
                    // With its memory.
                    *list = Vec::new();
                    m.list.clear();
                } else {
                    list.extend(other);
                    m.list.extend(other.map(|n| n.id));
                }
            }
            (8, Some(node)) => {
                *node.mutex.lock(mc) = other;
                model.get_mut(&node.id).unwrap().mutex = other.map(|n| n.id);
            }
            (9, Some(node)) => {
                *node.lock.write(mc) = other;
                model.get_mut(&node.id).unwrap().lock = other.map(|n| n.id);
            }
            (10, Some(node)) => {
                node.weak.set(mc, other.map(|n| mc.downgrade(n)));
                model.get_mut(&node.id).unwrap().weak = other.map(|n| n.id);
            }
            (11 | 12, Some(node)) => rooted.push((node.id, mc.root(node))),
            _ => {
                let mut nodes = world.nodes.borrow_mut(mc);
                if nodes.len() > 3 {
                    let at = random.usize(..nodes.len());
                    nodes.swap_remove(at);
                    in_world.swap_remove(at);
                }
            }
        }
    }

    /// All that is unreachable now is gone, once, and its cleanups are queued.
    fn collect_and_check(&mut self) {
        let reachable = self.reachable();
        self.heap.collect();
        self.check();
        self.pool.run_pending(usize::MAX);
        self.heap.run_local_cleanups(usize::MAX);
        for id in 0..self.next {
            let dropped = self.drops[id].load(SeqCst);
            assert_eq!(dropped, usize::from(!reachable.contains(&id)), "node {id}");
            if reachable.contains(&id) {
                assert_eq!(self.cleaned[id].load(SeqCst), 0, "the cleanup of a live node ran");
            }
        }
        let local = self.local.borrow();
        let ran: HashSet<usize> = local.iter().copied().collect();
        assert_eq!(ran.len(), local.len(), "a local cleanup ran twice");
        for id in &self.with_local {
            assert_eq!(ran.contains(id), !reachable.contains(id), "the local cleanup of node {id}");
        }
    }
}

#[test]
fn whatever_sessions_do_between_slices_no_reachable_object_dies() {
    for seed in 0..12 {
        let mut play = Play::new(seed);
        let mut cycles = 0;
        for step in 0..600 {
            play.session();
            for _ in 0..play.random.usize(..3) {
                let micros = if play.random.bool() { 0 } else { 50 };
                cycles += usize::from(play.heap.step(Duration::from_micros(micros)).is_finished());
            }
            if step % 5 == 0 {
                play.check();
            }
            if play.random.u8(..) < 2 {
                play.collect_and_check();
            }
        }
        assert!(cycles > 3, "{cycles} cycles in slices");
        play.collect_and_check();
    }
}

/// What died before a cycle in slices began is gone when it ends.
#[test]
fn a_cycle_in_slices_frees_what_was_unreachable_when_it_began() {
    let mut play = Play::new(7);
    for _ in 0..200 {
        play.session();
    }
    play.collect_and_check();
    play.session();
    let (dead, all) = (play.reachable(), play.next);
    while !play.heap.step(Duration::ZERO).is_finished() {
        play.session();
    }
    play.check();
    for id in (0..all).filter(|id| !dead.contains(id)) {
        assert_eq!(play.drops[id].load(SeqCst), 1, "node {id} was unreachable at the beginning");
    }
}

/// A node that several threads change.
#[derive(Trace)]
struct Knot<'gc> {
    id: usize,
    atomic: GcAtomic<'gc, Knot<'gc>>,
    mutex: GcMutex<Vec<Gc<'gc, Knot<'gc>>>>,
    lock: GcRwLock<Option<Gc<'gc, Knot<'gc>>>>,
    /// A lock within a lock.
    nested: GcRwLock<Vec<GcMutex<Option<Gc<'gc, Knot<'gc>>>>>>,
    fixed: Vec<Gc<'gc, Knot<'gc>>>,
    dropped: Leaf<Dropped>,
}

#[derive(Trace)]
struct Net<'gc> {
    heads: Vec<GcAtomic<'gc, Knot<'gc>>>,
    weaks: GcMutex<Vec<(usize, Weak<'gc, Knot<'gc>>)>>,
}

impl<'gc> Knot<'gc> {
    fn assert_alive(&self) -> &Self {
        let Dropped(counts, id) = &*self.dropped;
        assert_eq!((*id, counts[*id].load(SeqCst)), (self.id, 0), "a reachable node was dropped");
        self
    }
}

fn change_net<'gc>(
    mc: &Mutation<'gc, Shared>,
    net: &Net<'gc>,
    random: &mut fastrand::Rng,
    next: &AtomicUsize,
    drops: &Arc<Vec<AtomicUsize>>,
) {
    let head = |random: &mut fastrand::Rng| &net.heads[random.usize(..net.heads.len())];
    let walk = |random: &mut fastrand::Rng| -> Option<Gc<'gc, Knot<'gc>>> {
        if random.u8(..) < 30 {
            let weaks = net.weaks.lock(mc);
            if !weaks.is_empty() {
                let (id, weak) = weaks[random.usize(..weaks.len())];
                if let Some(node) = weak.upgrade(mc) {
                    assert_eq!(node.assert_alive().id, id);
                    return Some(node);
                }
            }
        }
        let mut node = head(random).load()?;
        for _ in 0..random.usize(..6) {
            node.assert_alive();
            let onward = match random.u8(..5) {
                0 => node.atomic.load(),
                1 => node.mutex.lock(mc).first().copied(),
                2 => *node.lock.read(mc),
                3 => node.nested.read(mc).first().and_then(|inner| *inner.lock(mc)),
                _ => node.fixed.first().copied(),
            };
            node = onward.unwrap_or(node);
        }
        node.assert_alive();
        Some(node)
    };
    let (node, other) = (walk(random), walk(random));
    let Some(node) = node.filter(|_| random.u8(..) < 180) else {
        let id = next.fetch_add(1, SeqCst);
        if id >= drops.len() {
            return;
        }
        let links: Vec<_> = node.into_iter().chain(other).collect();
        // Long enough to be traced piece by piece.
        let long = if random.u8(..) < 10 { 3000 } else { 1 };
        let new = mc.alloc(Knot {
            id,
            atomic: GcAtomic::new(other),
            mutex: GcMutex::new(links.repeat(long)),
            lock: GcRwLock::new(node),
            nested: GcRwLock::new(vec![GcMutex::new(other), GcMutex::new(node)]),
            fixed: links,
            dropped: Leaf::new(Dropped(drops.clone(), id)),
        });
        if random.u8(..) < 60 {
            net.weaks.lock(mc).push((id, mc.downgrade(new)));
        } else {
            head(random).store(mc, Some(new));
        }
        return;
    };
    match random.u8(..10) {
        0 => node.atomic.store(mc, other),
        1 => _ = node.atomic.swap(mc, other),
        2 => _ = node.atomic.compare_exchange(mc, node.atomic.load(), other),
        3 => *node.lock.write(mc) = other,
        4 => {
            let mut list = node.mutex.lock(mc);
            if list.len() > 3 {
                *list = Vec::new();
            }
            list.extend(other);
        }
        5 => {
            // Within a reader's guard.
            let nested = node.nested.read(mc);
            if let Some(inner) = nested.first() {
                let moved = inner.lock(mc).take();
                std::thread::yield_now();
                *inner.lock(mc) = other.or(moved);
            }
        }
        6 => *node.nested.write(mc) = vec![GcMutex::new(other)],
        7 => {
            // Nothing but this session and the marker ever has it.
            let own = mc.alloc(Knot {
                id: node.id,
                atomic: GcAtomic::new(None),
                mutex: GcMutex::new(vec![node]),
                lock: GcRwLock::default(),
                nested: GcRwLock::default(),
                fixed: vec![],
                dropped: Leaf::new(Dropped(Arc::new(Vec::new()), usize::MAX)),
            });
            assert!(own.mutex.try_lock(mc).is_some());
        }
        8 => {
            let held = node.mutex.lock(mc);
            std::thread::yield_now();
            held.iter().for_each(|node| _ = node.assert_alive());
        }
        _ => head(random).store(mc, other),
    }
}

/// A thread marks beside the sessions of others, who lock what it comes to.
#[test]
fn a_thread_that_marks_beside_open_sessions_loses_nothing() {
    let drops: Arc<Vec<AtomicUsize>> =
        Arc::new((0..60_000).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
    let next = AtomicUsize::new(0);
    let heap: Heap<Net<'static>, Shared> = Heap::builder()
        .pacing(Pacing::Manual)
        .zeal(false)
        .gc_threads(2)
        .cleanup_pool(&CleanupPool::manual())
        .build(|_| Net {
            heads: (0..64).map(|_| GcAtomic::new(None)).collect(),
            weaks: GcMutex::default(),
        });
    let finished = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (heap, next, drops, finished) = (&heap, &next, &drops, &finished);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut mutator = heap.attach();
                while next.load(SeqCst) < drops.len() {
                    mutator.mutate(|mc, net| {
                        for _ in 0..random.usize(1..40) {
                            change_net(mc, net, &mut random, next, drops);
                        }
                    });
                    if random.u8(..) < 40 {
                        let step = mutator.step(Duration::from_micros(random.u64(..100)));
                        finished.fetch_add(usize::from(step.is_finished()), SeqCst);
                    }
                    if random.u16(..) < 200 {
                        mutator.verify().unwrap();
                    }
                }
            });
        }
    });
    assert!(finished.load(SeqCst) > 3, "{finished:?} cycles");
    let mut mutator = heap.attach();
    let report = mutator.collect();
    mutator.verify().unwrap();
    assert!(report.live_objects > 0);
    drop(mutator);
    drop(heap);
    let dropped: Vec<usize> = drops.iter().map(|drops| drops.load(SeqCst)).collect();
    assert!(dropped.iter().all(|&drops| drops == 1), "each node is dropped once");
}

#[derive(Trace)]
struct Link<'gc> {
    _next: Option<Gc<'gc, Link<'gc>>>,
    _words: [u64; 3],
}

#[derive(Trace, Default)]
struct Chain<'gc> {
    head: GcCell<Option<Gc<'gc, Link<'gc>>>>,
}

/// A cycle in which all has died tells nothing of what it takes to mark.
#[test]
fn a_heap_that_is_filled_again_is_collected_in_slices_again() {
    const LARGE: u64 = 16 << 20;
    let fill = |heap: &mut Heap<Chain<'static>>| {
        let mut large_cycles = HashMap::new();
        while heap.stats().bytes < 6 * LARGE {
            heap.mutate(|mc, chain| {
                for _ in 0..100 {
                    let link = Link { _next: chain.head.get(), _words: [0; 3] };
                    chain.head.set(mc, Some(mc.alloc(link)));
                }
            });
            let report = heap.last_report().filter(|report| report.live_bytes > LARGE);
            large_cycles.extend(report.map(|report| (report.cycle, report.slices)));
        }
        assert!(large_cycles.values().all(|&slices| slices > 1), "{large_cycles:?}");
        assert!(!large_cycles.is_empty(), "the heap was not collected while it was large");
    };
    let mut heap: Heap<Chain<'static>> = Heap::builder().zeal(false).build(|_| Chain::default());
    fill(&mut heap);
    heap.mutate(|mc, chain| chain.head.set(mc, None));
    assert_eq!(heap.collect().live_objects, 0);
    fill(&mut heap);
}

/// What a root may hold that is long, in a cell or not.
#[derive(Trace, Default)]
struct Long<'gc> {
    cell: GcRefCell<Vec<Number<'gc>>>,
    mutex: GcMutex<Vec<Number<'gc>>>,
    lock: GcRwLock<Box<[Number<'gc>]>>,
    queue: GcRefCell<VecDeque<Number<'gc>>>,
    heap: GcRefCell<Vec<BinaryHeap<Number<'gc>>>>,
    boxed: GcCell<Option<Gc<'gc, Box<[Number<'gc>]>>>>,
}

type Number<'gc> = Gc<'gc, Leaf<u32>>;

/// No step is longer because a vector is. A slice without a budget ends with the first look at the
/// clock, so the number of slices says how much is traced between two looks.
#[test]
fn a_vector_of_any_length_in_a_cell_is_traced_piece_by_piece() {
    const LEN: usize = 2_000_000;
    /// Values between two looks, at most. It is a few thousand objects, or eight values for each.
    const LOOK: usize = 40_000;
    type Fill = for<'gc> fn(&Mutation<'gc>, &Long<'gc>, Vec<Number<'gc>>);
    let fills: [(&str, Fill); 6] = [
        ("GcRefCell<Vec>", |mc, long, all| *long.cell.borrow_mut(mc) = all),
        ("GcMutex<Vec>", |mc, long, all| *long.mutex.lock(mc) = all),
        ("GcRwLock<Box<[]>>", |mc, long, all| *long.lock.write(mc) = all.into()),
        ("GcRefCell<VecDeque>", |mc, long, all| *long.queue.borrow_mut(mc) = all.into()),
        ("GcRefCell<Vec<BinaryHeap>>", |mc, long, all| {
            // None is long, but all together are.
            let heaps = all.chunks(1000).map(|some| some.iter().copied().collect());
            *long.heap.borrow_mut(mc) = heaps.collect();
        }),
        ("Gc<Box<[]>>", |mc, long, all| long.boxed.set(mc, Some(mc.alloc(all.into())))),
    ];
    for (name, fill) in fills {
        let mut heap: Heap<Long<'static>> = Heap::builder()
            .pacing(Pacing::Manual)
            .zeal(false)
            .cleanup_pool(&CleanupPool::manual())
            .build(|_| Long::default());
        heap.mutate(|mc, long| fill(mc, long, vec![mc.alloc(Leaf::new(7)); LEN]));
        let report = loop {
            if let Progress::Finished(report) = heap.step(Duration::ZERO) {
                break report;
            }
        };
        assert!(report.slices > (LEN / LOOK) as u64, "{name}: {} slices", report.slices);
        assert_eq!(report.swept_objects, 0);
        heap.verify().unwrap();
    }
}

/// A root that a session changes on any thread.
#[derive(Trace, Default)]
struct SharedChain<'gc> {
    head: GcAtomic<'gc, Link<'gc>>,
}

/// A session of a `Shared` heap that allocates for ever: a cycle that has begun before ends within
/// it. What was dead then is freed. What dies within the session waits for the next cycle, which
/// begins when the session has ended.
#[test]
fn a_cycle_ends_within_a_session_that_allocates_for_ever() {
    const LINKS: u64 = 20_000;
    let heap: Heap<SharedChain<'static>, Shared> = Heap::builder()
        .zeal(false)
        .gc_threads(2)
        .pacing(Pacing::Automatic { min_bytes: 64 << 20, growth: 1.0 })
        .cleanup_pool(&CleanupPool::manual())
        .build(|_| SharedChain::default());
    fn push(mc: &Mutation<'_, Shared>) {
        let mut last = None;
        (0..LINKS).for_each(|_| last = Some(mc.alloc(Link { _next: last, _words: [0; 3] })));
    }
    let mut mutator = heap.attach();
    mutator.mutate(|mc, chain| {
        push(mc);
        chain.head.store(mc, Some(mc.alloc(Link { _next: None, _words: [7; 3] })));
    });
    assert!(!mutator.step(Duration::ZERO).is_finished());
    mutator.mutate(|mc, chain| {
        let began = std::time::Instant::now();
        while heap.stats().cycles == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "the cycle does not end");
            push(mc);
            std::thread::yield_now();
        }
        let report = heap.last_report().expect("one has ended");
        assert_eq!(report.swept_objects, LINKS, "what was dead when it began: {report:?}");
        // None begins, however much is garbage.
        (0..300).for_each(|_| push(mc));
        assert_eq!(heap.stats().cycles, 1);
        assert!(mc.collection_due());
        assert_eq!(chain.head.load().map(|kept| kept._words), Some([7; 3]));
    });
    assert_eq!(mutator.collect().live_objects, 1);
    mutator.verify().unwrap();
}

/// A cycle that ends within a session has queued its cleanups by then. The session's end waits for
/// them, and not that of the next cycle.
#[test]
fn back_pressure_follows_a_cycle_that_has_ended_within_a_session() {
    const CLEANUPS: u64 = 5_000;
    let pool = CleanupPool::manual();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let policy = BackPressure::call(move |backlog| {
        counted.fetch_add(1, SeqCst);
        assert_eq!(backlog.cleanups, CLEANUPS);
        backlog.pool.run_pending(backlog.cleanups as usize);
    });
    let heap: Heap<SharedChain<'static>, Shared> = Heap::builder()
        .zeal(false)
        .gc_threads(2)
        .pacing(Pacing::Automatic { min_bytes: 64 << 20, growth: 1.0 })
        .cleanup_pool(&pool)
        .back_pressure(10, policy)
        .build(|_| SharedChain::default());
    let mut mutator = heap.attach();
    mutator.mutate(|mc, _| {
        let link = || mc.alloc(Link { _next: None, _words: [0; 3] });
        (0..CLEANUPS).for_each(|_| _ = mc.add_cleanup(link(), || {}));
    });
    assert!(!mutator.step(Duration::ZERO).is_finished());
    mutator.mutate(|mc, _| {
        let began = std::time::Instant::now();
        while heap.stats().cycles == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "the cycle does not end");
            (0..10_000).for_each(|_| _ = mc.alloc(Link { _next: None, _words: [0; 3] }));
            std::thread::yield_now();
        }
        assert_eq!(heap.stats().cleanups.backlog, CLEANUPS);
        assert_eq!(calls.load(SeqCst), 0, "no user code runs within a session");
    });
    assert_eq!(calls.load(SeqCst), 1);
    assert_eq!(heap.stats().cleanups.backlog, 0);
    mutator.mutate(|_, _| ());
    assert_eq!(calls.load(SeqCst), 1);
}
