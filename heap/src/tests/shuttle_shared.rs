//! A `Shared` heap under shuttle: many schedules of small programs, in zeal mode, so that each
//! cycle is verified.
//!
//! Every lock that mutators share is the checker's (`sexton_sync`), and so is every step
//! of the handshake and of the cleanups. Fields of objects are not. So a schedule changes hands
//! between operations on the heap, and not within one on a `GcAtomic`. Threads that work beside
//! sessions are the checker's. No others help: those would be the system's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sexton_cleanup::{Client, Pool, PoolConfig};
use shuttle::thread;

use crate::collect::heap::RawHeap;
use crate::object::trace::Branded;
use crate::policy::config::{HeapConfig, SpawnHelper};
use crate::{
    Gc, GcAtomic, GcOnce, Leaf, Mutation, Pacing, RawMutator, Shared, SharedRoot, Trace, Weak,
};
use sexton_sync::explored;

struct Node<'gc> {
    id: u64,
    next: GcAtomic<'gc, Node<'gc>>,
    weak: GcOnce<Weak<'gc, Node<'gc>>>,
}

// SAFETY: both fields that hold pointers are traced; there is no `Drop`; the family is the type
// with its brand open.
unsafe impl<'gc> Trace<'gc> for Node<'gc> {
    type Family = Node<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut crate::Tracer<'_>) {
        self.next.trace(tracer);
        self.weak.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for Node<'static> {
    type At<'gc> = Node<'gc>;
}

/// The root is a node, whose links are a stack.
type SharedHeap = RawHeap<Node<'static>, Shared>;

/// A heap, its cleanups' pool, and how many of them ran.
struct Scene {
    heap: SharedHeap,
    pool: Arc<Pool>,
    ran: Arc<AtomicU64>,
}

fn scene(zeal: bool, pacing: Pacing) -> Arc<Scene> {
    scene_with(HeapConfig { zeal, pacing, ..HeapConfig::default() })
}

fn scene_with(config: HeapConfig) -> Arc<Scene> {
    let pool = Pool::new(PoolConfig::default(), None);
    // A model has no clock: what may be waited for until a time is not waited for at all.
    let never = (Duration::MAX, HeapConfig::default().slow_session.1);
    let config = HeapConfig { slow_session: never, ..config };
    let heap = RawHeap::new(Client::new(&pool), config, |_| node(0));
    Arc::new(Scene { heap, pool, ran: Arc::default() })
}

fn node<'gc>(id: u64) -> Node<'gc> {
    Node { id, next: GcAtomic::default(), weak: GcOnce::new() }
}

fn push<'gc>(mc: &Mutation<'gc, Shared>, root: &Node<'gc>, id: u64) -> Gc<'gc, Node<'gc>> {
    let new = mc.alloc(node(id));
    let mut head = root.next.load();
    loop {
        new.next.store(mc, head);
        match root.next.compare_exchange(mc, head, Some(new)) {
            Ok(_) => return new,
            Err(other) => head = other,
        }
    }
}

/// Gives a session, and the cycle that it has made due: what the facade does.
fn mutate<T>(
    mutator: &mut RawMutator<'_, Node<'static>>,
    f: impl for<'gc> FnOnce(&Mutation<'gc, Shared>, &'gc Node<'gc>) -> T,
) -> T {
    let (result, due) = mutator.mutate(f);
    if let Some(due) = due {
        mutator.collect_if_due(due);
    }
    result
}

fn ids(root: &Node<'_>) -> Vec<u64> {
    let mut ids: Vec<u64> = std::iter::successors(root.next.load(), |node| node.next.load())
        .map(|node| node.id)
        .collect();
    ids.sort_unstable();
    ids
}

/// Calls `work` on `threads` threads, and ends the heap when all are done. Gives how many cleanups
/// ran.
fn on_threads(
    scene: &Arc<Scene>,
    threads: u64,
    work: impl Fn(u64, &Scene, RawMutator<'_, Node<'static>>) + Send + Sync + 'static,
) {
    let work = Arc::new(work);
    let threads: Vec<_> = (0..threads)
        .map(|number| {
            let (scene, work) = (scene.clone(), work.clone());
            thread::spawn(move || {
                let mutator = scene.heap.attach().expect("it is the first here");
                work(number, &scene, mutator);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Ends the heap; how many of its cleanups ran.
fn end(scene: Arc<Scene>) -> u64 {
    let Ok(scene) = Arc::try_unwrap(scene) else { panic!("all threads have ended") };
    let Scene { heap, pool, ran } = scene;
    drop(heap);
    while pool.run_pending(usize::MAX) > 0 {}
    ran.load(Relaxed)
}

fn link_and_collect() {
    let scene = scene(true, Pacing::Manual);
    on_threads(&scene, 3, |number, scene, mut mutator| {
        for round in 0..2 {
            mutate(&mut mutator, |mc, root| {
                let node = push(mc, root, number * 10 + round);
                let ran = scene.ran.clone();
                mc.add_cleanup(node, move || _ = ran.fetch_add(1, Relaxed));
                // Garbage with a cleanup of its own.
                let ran = scene.ran.clone();
                mc.add_cleanup(mc.alloc(Leaf::new(round)), move || _ = ran.fetch_add(1, Relaxed));
            });
        }
    });
    let mut mutator = scene.heap.attach().expect("the others have left");
    mutate(&mut mutator, |_, root| assert_eq!(ids(root), [0, 1, 10, 11, 20, 21]));
    assert_eq!(mutator.collect().live_objects, 6);
    drop(mutator);
    assert_eq!(end(scene), 12);
}

/// All register on one object, downgrade it, and stop what others have registered.
fn one_object() {
    let scene = scene(true, Pacing::Manual);
    let mut mutator = scene.heap.attach().expect("the thread is free");
    mutate(&mut mutator, |mc, root| _ = push(mc, root, 0));
    drop(mutator);
    on_threads(&scene, 3, |_, scene, mut mutator| {
        let handle = mutate(&mut mutator, |mc, root| {
            let object = root.next.load().expect("it is linked");
            let weak = mc.downgrade(object);
            assert!(object.weak.get_or_init(mc, || weak).ptr_eq(weak), "an object has one record");
            let ran = scene.ran.clone();
            mc.add_cleanup(object, move || _ = ran.fetch_add(1, Relaxed))
        });
        assert!(handle.stop());
        mutate(&mut mutator, |mc, root| {
            let object = root.next.load().expect("it is linked");
            let ran = scene.ran.clone();
            mc.add_cleanup(object, move || _ = ran.fetch_add(1, Relaxed));
            let weak = object.weak.get().expect("it was set");
            assert!(weak.upgrade(mc).is_some_and(|target| target.ptr_eq(object)));
        });
    });
    assert_eq!(end(scene), 3);
}

fn detach_while_others_collect() {
    let scene = scene(false, Pacing::Manual);
    on_threads(&scene, 3, |number, scene, mut mutator| {
        mutate(&mut mutator, |mc, root| _ = push(mc, root, number));
        drop(mutator);
        let mut mutator = scene.heap.attach().expect("it has left");
        mutator.collect();
        mutator.verify().unwrap();
    });
    assert_eq!(scene.heap.stats().cycles, 3);
    assert_eq!(scene.heap.stats().objects, 3);
    end(scene);
}

/// More than one crosses the threshold at a time; no mutator's garbage stays, and not each of them
/// collects.
fn cross_the_threshold() {
    let scene = scene(false, Pacing::Automatic { min_bytes: 64, growth: 0.0 });
    on_threads(&scene, 3, |_, _, mut mutator| {
        for _ in 0..2 {
            mutate(&mut mutator, |mc, _| (0..8).for_each(|id| _ = mc.alloc(node(id))));
        }
    });
    let stats = scene.heap.stats();
    assert!((1..=6).contains(&stats.cycles), "{stats:?}");
    let mut mutator = scene.heap.attach().expect("the others have left");
    assert_eq!(mutator.collect().live_objects, 0);
    mutator.verify().unwrap();
    drop(mutator);
    end(scene);
}

/// Shared roots are cloned and dropped while others collect.
fn shared_roots() {
    let scene = scene(true, Pacing::Manual);
    let root: SharedRoot<'_, Node<'static>> = {
        let mut mutator = scene.heap.attach().expect("the thread is free");
        mutate(&mut mutator, |mc, _| scene.heap.share(&mc.root(mc.alloc(node(7)))))
    };
    thread::scope(|scope| {
        for number in 0..3 {
            let (heap, own) = (&scene.heap, root.clone());
            scope.spawn(move || {
                let mut mutator = heap.attach().expect("it is the first here");
                let other = own.clone();
                drop(own);
                if number == 0 {
                    mutator.collect();
                }
                mutate(&mut mutator, |mc, _| assert_eq!(mc.fetch_shared(&other).id, 7));
            });
        }
        drop(root);
    });
    let mut mutator = scene.heap.attach().expect("the others have left");
    assert_eq!(mutator.collect().live_objects, 0);
    drop(mutator);
    end(scene);
}

/// A thread for the work beside sessions, and none that helps within a stop.
fn beside() -> SpawnHelper {
    Arc::new(|number, work| {
        if number > 0 {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        thread::spawn(work);
        Ok(())
    })
}

/// Cycles whose phases are worked off by threads beside sessions. These link, register, downgrade,
/// and leave garbage.
fn step_beside_sessions() {
    let scene = scene_with(HeapConfig {
        pacing: Pacing::Manual,
        zeal: false,
        gc_threads: Some(2),
        spawn_helper: Some(beside()),
        ..HeapConfig::default()
    });
    on_threads(&scene, 2, |number, scene, mut mutator| {
        for round in 0..4 {
            mutator.mutate(|mc, root| {
                let last = root.next.load();
                let node = push(mc, root, number * 10 + round);
                for node in [Some(node), last, Some(mc.alloc(self::node(99)))].into_iter().flatten()
                {
                    let ran = scene.ran.clone();
                    mc.add_cleanup(node, move || _ = ran.fetch_add(1, Relaxed));
                    let weak = mc.downgrade(node);
                    assert!(node.weak.get_or_init(mc, || weak).ptr_eq(weak), "it has one record");
                }
                if let Some(last) = last {
                    let weak = last.weak.get().expect("it was set");
                    assert!(weak.upgrade(mc).is_some_and(|target| target.ptr_eq(last)));
                }
            });
            _ = mutator.step(Duration::ZERO);
            if round == 2 {
                mutator.verify().unwrap();
            }
        }
    });
    let mut mutator = scene.heap.attach().expect("the others have left");
    mutate(&mut mutator, |_, root| assert_eq!(ids(root), [0, 1, 2, 3, 10, 11, 12, 13]));
    assert_eq!(mutator.collect().live_objects, 8);
    mutator.verify().unwrap();
    drop(mutator);
    // Each session registers on its node and on garbage, and on the last node, if there is one.
    let registered = scene.heap.client().stats().registered;
    assert!((22..=23).contains(&registered), "{registered}");
    assert_eq!(end(scene), registered);
}

/// Cycles that go on within sessions, where those allocate: on their threads, or while they are
/// parked for others.
fn step_within_sessions() {
    let scene = scene_with(HeapConfig {
        pacing: Pacing::Automatic { min_bytes: 64, growth: 0.0 },
        pause_budget: Some(Duration::ZERO),
        zeal: false,
        gc_threads: Some(2),
        spawn_helper: Some(beside()),
        ..HeapConfig::default()
    });
    on_threads(&scene, 3, |number, _, mut mutator| {
        for round in 0..3 {
            mutate(&mut mutator, |mc, root| {
                let last = root.next.load();
                let node = push(mc, root, number * 10 + round);
                let weak = mc.downgrade(node);
                // Each for itself is a safepoint.
                mc.alloc(Leaf::new([0_u64; 4]));
                mc.alloc(Leaf::new([0_u64; 6]));
                assert!(weak.upgrade(mc).is_some_and(|target| target.ptr_eq(node)));
                for node in [Some(node), last].into_iter().flatten() {
                    mc.alloc(Leaf::new([0_u64; 8]));
                    let weak = mc.downgrade(node);
                    assert!(node.weak.get_or_init(mc, || weak).ptr_eq(weak), "it has one record");
                }
            });
            if round == number {
                mutator.verify().unwrap();
            }
        }
    });
    let mut mutator = scene.heap.attach().expect("the others have left");
    mutate(&mut mutator, |_, root| assert_eq!(ids(root), [0, 1, 2, 10, 11, 12, 20, 21, 22]));
    assert_eq!(mutator.collect().live_objects, 9);
    mutator.verify().unwrap();
    drop(mutator);
    assert_eq!(end(scene), 0);
}

explored! {
    /// Sessions that link, register and leave garbage; each ends with a verified cycle.
    linked: link_and_collect;
    shared_object: one_object;
    detached: detach_while_others_collect;
    threshold: cross_the_threshold;
    roots: shared_roots;
    beside_sessions: step_beside_sessions;
    within_sessions: step_within_sessions;
}
