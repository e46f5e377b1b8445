//! `map_root`: a heap goes on with another root.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sexton::{
    CleanupPool, Gc, GcMutex, Heap, Leaf, Local, Mode, Pacing, Payload, Progress, Root, Shared,
    Trace, Weak,
};
use sexton_tests::settings;

use crate::world::Token;

#[derive(Trace)]
struct Node<'gc> {
    id: u64,
    below: Option<Gc<'gc, Node<'gc>>>,
}

/// Has more than a marker looks at in one step, within cells and outside.
#[derive(Trace)]
struct Before<'gc> {
    fixed: Vec<Gc<'gc, Node<'gc>>>,
    cell: GcMutex<Vec<Gc<'gc, Node<'gc>>>>,
    unused: Gc<'gc, Leaf<Token>>,
    bytes: Vec<u8>,
}

#[derive(Trace)]
struct After<'gc> {
    nodes: GcMutex<Box<[Gc<'gc, Node<'gc>>]>>,
}

const NODES: u64 = 5000;

fn make<M: Mode>(token: &Token, pool: &CleanupPool) -> Heap<Before<'static>, M>
where
    Leaf<Token>: Payload<M>,
    for<'gc> Before<'gc>: Payload<M>,
    for<'gc> Node<'gc>: Payload<M>,
{
    let builder = Heap::builder().cleanup_pool(pool).pacing(Pacing::Manual).zeal(settings::zeal());
    builder.build(|mc| {
        let node = |id| {
            let below = Some(mc.alloc(Node { id: NODES + id, below: None }));
            mc.alloc(Node { id, below })
        };
        Before {
            fixed: (0..NODES).filter(|id| id % 2 == 0).map(node).collect(),
            cell: GcMutex::new((0..NODES).filter(|id| id % 2 == 1).map(node).collect()),
            unused: mc.alloc(Leaf::new(token.clone())),
            bytes: vec![0; 1 << 20],
        }
    })
}

fn map<M: Mode>(heap: Heap<Before<'static>, M>) -> Heap<After<'static>, M>
where
    for<'gc> After<'gc>: Payload<M>,
    for<'gc> Node<'gc>: Payload<M>,
{
    heap.map_root(|mc, Before { fixed, cell, .. }| {
        // Where the old vectors were, there is something else now.
        let nodes = fixed.into_iter().chain(cell.into_inner());
        let nodes = nodes.map(|node| mc.alloc(Node { id: 2 * NODES + node.id, below: Some(node) }));
        After { nodes: GcMutex::new(nodes.collect()) }
    })
}

fn check(nodes: &[Gc<'_, Node<'_>>]) {
    let id = |node: Gc<'_, Node<'_>>| node.id;
    let mut ids = Vec::new();
    for &node in nodes {
        let below = node.below.unwrap();
        assert_eq!((id(node), id(below.below.unwrap())), (2 * NODES + below.id, NODES + below.id));
        ids.push(below.id);
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..NODES));
}

/// After a number of steps of a cycle, from none to all.
#[test]
fn the_root_of_a_local_heap_changes_at_any_point_of_a_cycle() {
    let pool = CleanupPool::manual();
    let mut is_finished = false;
    let mut steps = 0;
    while !is_finished {
        let token = Token::default();
        let mut heap: Heap<_, Local> = make(&token, &pool);
        heap.mutate(|mc, _| (0..1000).for_each(|id| _ = mc.alloc(Node { id, below: None })));
        for _ in 0..steps {
            is_finished |= matches!(heap.step(Duration::ZERO), Progress::Finished(_));
        }
        let mut heap = map(heap);
        heap.verify().unwrap();
        let report = heap.collect();
        assert_eq!(report.live_objects, 3 * NODES, "after {steps} steps");
        assert_eq!(token.drops(), 1);
        heap.mutate(|mc, root| check(&root.nodes.lock(mc)));
        heap.verify().unwrap();
        steps += 1 + steps / 4;
    }
    assert!(steps > 5, "{steps}");
}

#[test]
fn the_root_of_a_shared_heap_changes_at_any_point_of_a_cycle() {
    let pool = CleanupPool::manual();
    let mut is_finished = false;
    let mut steps = 0;
    while !is_finished {
        let token = Token::default();
        let heap: Heap<_, Shared> = make(&token, &pool);
        let mut mutator = heap.attach();
        mutator.mutate(|mc, _| (0..1000).for_each(|id| _ = mc.alloc(Node { id, below: None })));
        for _ in 0..steps {
            is_finished |= matches!(mutator.step(Duration::ZERO), Progress::Finished(_));
        }
        drop(mutator);
        let heap = map(heap);
        let mut mutator = heap.attach();
        mutator.verify().unwrap();
        let report = mutator.collect();
        assert_eq!(report.live_objects, 3 * NODES, "after {steps} steps");
        assert_eq!(token.drops(), 1);
        mutator.mutate(|mc, root| check(&root.nodes.lock(mc)));
        mutator.verify().unwrap();
        steps += 1 + steps / 4;
    }
    assert!(steps > 1, "{steps}");
}

#[test]
fn the_objects_their_roots_weak_pointers_and_cleanups_stay() {
    #[derive(Trace)]
    struct Watch<'gc>(Weak<'gc, Leaf<Token>>, Weak<'gc, Leaf<Token>>);

    let pool = CleanupPool::manual();
    let (unused, rooted) = (Token::default(), Token::default());
    let mut heap: Heap<_, Local> = make(&unused, &pool);
    let root: Root<Leaf<Token>> = heap.mutate(|mc, before| {
        mc.add_cleanup(before.unused, || {});
        mc.root(mc.alloc(Leaf::new(rooted.clone())))
    });
    let (id, cycles) = (heap.id(), heap.stats().cycles);
    let mut heap: Heap<Watch<'static>> = heap
        .map_root(|mc, before| Watch(mc.downgrade(before.unused), mc.downgrade(mc.fetch(&root))));
    assert_eq!((heap.id(), heap.stats().cycles), (id, cycles));
    heap.mutate(|mc, watch| {
        assert!(settings::zeal() || watch.0.upgrade(mc).is_some());
        assert!(Gc::ptr_eq(watch.1.upgrade(mc).unwrap(), mc.fetch(&root)));
    });
    assert!(settings::zeal() || unused.drops() == 0);
    heap.collect();
    assert_eq!((unused.drops(), rooted.drops()), (1, 0));
    assert_eq!(pool.run_pending(usize::MAX), 1);
    drop(root);
    heap.collect();
    heap.mutate(|mc, watch| assert!(watch.1.upgrade(mc).is_none()));
    assert_eq!(rooted.drops(), 1);
}

#[test]
fn what_the_root_owns_outside_goes_with_it() {
    fn mapped<M: Mode>() -> Vec<u64>
    where
        Leaf<Token>: Payload<M>,
        for<'gc> Before<'gc>: Payload<M>,
        for<'gc> After<'gc>: Payload<M>,
        for<'gc> Node<'gc>: Payload<M>,
    {
        let heap = make::<M>(&Token::default(), &CleanupPool::manual());
        let before = heap.stats().external_bytes;
        let heap = map(heap);
        let after = heap.stats().external_bytes;
        vec![before >> 20, after >> 20, after / (8 * NODES)]
    }
    assert_eq!(mapped::<Local>(), [1, 0, 1]);
    assert_eq!(mapped::<Shared>(), [1, 0, 1]);
}

#[test]
fn a_panic_while_the_root_is_mapped_drops_the_heap() {
    fn panics<M: Mode>()
    where
        (): Payload<M>,
        Leaf<Token>: Payload<M>,
        for<'gc> Before<'gc>: Payload<M>,
        for<'gc> Node<'gc>: Payload<M>,
    {
        let (token, pool) = (Token::default(), CleanupPool::manual());
        let heap = make::<M>(&token, &pool);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _: Heap<(), M> = heap.map_root(|mc, before| {
                mc.add_cleanup(before.unused, || {});
                assert_eq!(token.drops(), 0);
                panic!("no root");
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(token.drops(), 1);
        assert_eq!(pool.run_pending(usize::MAX), 1);
    }
    panics::<Local>();
    panics::<Shared>();
}
