//! `Shared` mode: many threads, one heap.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, LazyLock, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sexton::{
    BackPressure, Branded, CleanupPool, CleanupState, Gc, GcAtomic, GcMutex, GcOnce, GcRwLock,
    Heap, HeapBuilder, Leaf, Mutation, Mutator, OldRoot, Pacing, Shared, SharedRoot, Trace, Weak,
};

use crate::world::{Counter, Gate, LONG, Token, phases, until};

/// A node of a graph that several threads build.
#[derive(Trace)]
struct Node<'gc> {
    id: u64,
    next: GcAtomic<'gc, Node<'gc>>,
    edges: GcMutex<Vec<Gc<'gc, Node<'gc>>>>,
}

impl<'gc> Node<'gc> {
    fn new(id: u64) -> Self {
        Node { id, next: GcAtomic::default(), edges: GcMutex::default() }
    }
}

/// The root: a stack, a table, tokens, and what the tests of single building blocks need.
#[derive(Trace, Default)]
struct World<'gc> {
    head: GcAtomic<'gc, Node<'gc>>,
    nodes: GcMutex<Vec<Gc<'gc, Node<'gc>>>>,
    tokens: GcMutex<Vec<Gc<'gc, Leaf<Token>>>>,
    table: GcRwLock<HashMap<u64, Weak<'gc, Node<'gc>>>>,
    once: GcOnce<Gc<'gc, Node<'gc>>>,
}

type SharedHeap = Heap<World<'static>, Shared>;

fn builder<R: Branded>() -> HeapBuilder<R, Shared> {
    Heap::<R, Shared>::builder()
}

/// Collects when told to, also where all heaps are in zeal mode.
fn calm() -> HeapBuilder<World<'static>, Shared> {
    builder().pacing(Pacing::Manual).zeal(false)
}

fn calm_heap() -> SharedHeap {
    calm().build(|_| World::default())
}

/// Calls `work` on `threads` threads, with a mutator and the thread's number.
fn on_threads(
    heap: &SharedHeap,
    threads: u64,
    work: impl Fn(u64, Mutator<'_, World<'static>>) + Sync,
) {
    let (work, start) = (&work, &Barrier::new(threads as usize));
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || {
                let mutator = heap.attach();
                start.wait();
                work(number, mutator);
            });
        }
    });
}

/// Pushes a node onto the world's stack.
fn push<'gc>(mc: &Mutation<'gc, Shared>, world: &World<'gc>, id: u64) -> Gc<'gc, Node<'gc>> {
    let node = mc.alloc(Node::new(id));
    let mut head = world.head.load();
    loop {
        node.next.store(mc, head);
        match world.head.compare_exchange(mc, head, Some(node)) {
            Ok(_) => return node,
            Err(other) => head = other,
        }
    }
}

/// The stack's numbers, sorted.
fn ids(world: &World<'_>) -> Vec<u64> {
    let nodes = std::iter::successors(world.head.load(), |node| node.next.load());
    let mut ids: Vec<u64> = nodes.map(|node| node.id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn what_each_thread_links_is_there_for_all() {
    let heap: SharedHeap = builder().build(|_| World::default());
    on_threads(&heap, 4, |number, mut mutator| {
        for round in 0..500 {
            mutator.mutate(|mc, world| {
                push(mc, world, number * 500 + round);
                // Garbage beside it.
                (0..20).for_each(|id| _ = mc.alloc(Node::new(id)));
            });
            if round % 100 == number * 10 {
                mutator.collect();
            }
        }
    });
    let mut mutator = heap.attach();
    mutator.verify().unwrap();
    let report = mutator.collect();
    assert_eq!(report.live_objects, 2000);
    mutator.mutate(|_, world| assert!(ids(world).into_iter().eq(0..2000)));
    mutator.mutate(|mc, world| world.head.store(mc, None));
    // In zeal mode they have gone at that session's end.
    assert_eq!(mutator.collect().live_objects, 0);
    mutator.verify().unwrap();
}

#[test]
fn automatic_collections_happen_while_many_threads_allocate_and_free_what_is_dead() {
    let pacing = Pacing::Automatic { min_bytes: 1 << 18, growth: 0.5 };
    let heap: SharedHeap = builder().pacing(pacing).build(|_| World::default());
    on_threads(&heap, 3, |number, mut mutator| {
        for round in 0..2000 {
            mutator.mutate(|mc, world| {
                (0..30).for_each(|id| _ = mc.alloc(Node::new(id)));
                let node = mc.alloc(Node::new(round));
                // Each thread keeps its last 16.
                let mut nodes = world.nodes.lock(mc);
                if nodes.len() < 48 {
                    nodes.resize(48, node);
                }
                nodes[(number * 16 + round % 16) as usize] = node;
            });
        }
    });
    let stats = heap.stats();
    assert!(stats.cycles >= 10, "{stats:?}");
    // What is in use never was much more than the pacer lets it grow to: 3 times 64 KiB are at
    // hand.
    assert!(stats.mapped_bytes <= 16 << 20, "{stats:?}");
    let mut mutator = heap.attach();
    assert_eq!(mutator.collect().live_objects, 48);
    mutator.verify().unwrap();
}

#[test]
fn in_zeal_mode_every_session_of_every_thread_ends_with_a_verified_cycle() {
    let heap: SharedHeap = builder().zeal(true).build(|_| World::default());
    on_threads(&heap, 3, |number, mut mutator| {
        for round in 0..40 {
            mutator.mutate(|mc, world| {
                let node = push(mc, world, number * 40 + round);
                let weak = mc.downgrade(node);
                world.table.write(mc).insert(node.id, weak);
                mc.add_cleanup(mc.alloc(Node::new(0)), || {});
            });
            mutator.mutate(|mc, world| {
                let weak = world.table.read(mc)[&(number * 40 + round)];
                assert_eq!(weak.upgrade(mc).map(|node| node.id), Some(number * 40 + round));
            });
        }
    });
    // 240 sessions; those of three threads may end with the same cycle.
    assert!(heap.stats().cycles >= 80, "{:?}", heap.stats());
    heap.attach().mutate(|_, world| assert!(ids(world).into_iter().eq(0..120)));
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(heap.stats().cleanups.executed, 120);
}

#[test]
fn cleanups_of_one_object_registered_stopped_and_run_early_by_all_run_once_or_never() {
    let heap = calm_heap();
    let (ran, stopped, early) = (Counter::default(), AtomicU64::new(0), AtomicU64::new(0));
    heap.attach().mutate(|mc, world| _ = push(mc, world, 0));
    let handles = Mutex::new(Vec::new());
    on_threads(&heap, 4, |number, mut mutator| {
        for _ in 0..50 {
            let own: Vec<_> = mutator.mutate(|mc, world| {
                let object = world.head.load().unwrap();
                (0..20).map(|_| mc.add_cleanup(object, ran.cleanup())).collect()
            });
            handles.lock().unwrap().extend(own);
            // What others have registered as well as its own.
            for turn in 0..10 {
                let handle = handles.lock().unwrap().pop();
                match handle {
                    Some(handle) if (turn + number) % 2 == 0 => {
                        stopped.fetch_add(u64::from(handle.stop()), SeqCst);
                    }
                    Some(handle) => _ = early.fetch_add(u64::from(handle.run_now()), SeqCst),
                    None => {}
                }
            }
        }
    });
    assert_eq!(stopped.load(SeqCst) + early.load(SeqCst), 2000);
    let mut mutator = heap.attach();
    mutator.verify().unwrap();
    mutator.mutate(|mc, world| world.head.store(mc, None));
    assert_eq!(mutator.collect().queued_cleanups, 2000);
    heap.wait_for_cleanups(LONG).unwrap();
    let stats = heap.stats().cleanups;
    assert_eq!((stats.registered, stats.stopped), (4000, stopped.load(SeqCst)));
    assert_eq!(ran.get() as u64, 4000 - stopped.load(SeqCst));
    let rest = handles.into_inner().unwrap();
    assert!(rest.iter().all(|handle| handle.state() == CleanupState::Done));
}

#[test]
fn a_thread_that_waits_between_sessions_delays_no_collection() {
    let heap = calm_heap();
    let (attached, wait) = (Gate::default(), Gate::default());
    thread::scope(|scope| {
        let (heap, attached, wait) = (&heap, &attached, &wait);
        scope.spawn(move || {
            let mut mutator = heap.attach();
            mutator.mutate(|mc, world| _ = push(mc, world, 1));
            attached.open();
            wait.pass();
            mutator.mutate(|_, world| assert_eq!(ids(world), [1]));
        });
        attached.pass();
        let mut mutator = heap.attach();
        for _ in 0..10 {
            assert_eq!(mutator.collect().live_objects, 1);
        }
        wait.open();
    });
}

#[test]
fn a_collection_waits_for_the_open_session_and_sessions_wait_for_the_collection() {
    let heap = calm_heap();
    let (opened, close) = (Gate::default(), Gate::default());
    let closed = AtomicBool::new(false);
    thread::scope(|scope| {
        let (heap, opened, close, closed) = (&heap, &opened, &close, &closed);
        scope.spawn(move || {
            heap.attach().mutate(|mc, world| {
                // Linked nowhere: only the session keeps it.
                let node = mc.alloc(Node::new(7));
                opened.open();
                close.pass();
                until("the session is told", || mc.gc_pending());
                assert_eq!(node.id, 7);
                world.head.store(mc, Some(node));
                closed.store(true, SeqCst);
            });
        });
        opened.pass();
        let collector = scope.spawn(move || {
            let report = heap.attach().collect();
            assert!(closed.load(SeqCst), "it did not wait");
            report
        });
        let mut late = heap.attach();
        until("the collection is wanted", || late.gc_pending());
        close.open();
        late.mutate(|_, world| {
            assert!(closed.load(SeqCst));
            assert_eq!(ids(world), [7]);
        });
        let report = collector.join().unwrap();
        assert_eq!((report.cycle, report.live_objects), (1, 1));
        assert!(report.safepoint_time <= report.pause_time && !report.safepoint_time.is_zero());
    });
}

#[test]
fn a_long_session_can_end_when_it_is_asked_to() {
    let heap = calm_heap();
    let running = Gate::default();
    thread::scope(|scope| {
        let (heap, running) = (&heap, &running);
        let long = scope.spawn(move || {
            heap.attach().mutate(|mc, _| {
                running.open();
                let begin = Instant::now();
                while !mc.gc_pending() {
                    assert!(begin.elapsed() < LONG, "no collection was asked for");
                    mc.alloc(Node::new(1));
                }
            });
        });
        running.pass();
        let report = heap.attach().collect();
        assert!(report.swept_objects > 0 || report.cycle == 1);
        long.join().unwrap();
    });
}

/// What a panic said.
fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a text")).to_string(),
    }
}

fn refuses_to_attach(heap: &SharedHeap) {
    assert!(heap.try_attach().is_err());
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(heap.attach()))) else {
        panic!("it attached")
    };
    let message = message(panic);
    let id = heap.id().to_string();
    assert!(message.contains("has a mutator of") && message.contains(&id), "{message}");
}

#[test]
fn a_second_mutator_on_one_thread_and_a_nested_session_are_refused() {
    let (heap, other) = (calm_heap(), calm_heap());
    let mut mutator = heap.attach();
    refuses_to_attach(&heap);
    mutator.mutate(|_, _| refuses_to_attach(&heap));
    // Another heap is another matter, and this one is free again once the mutator is gone.
    mutator.mutate(|mc, world| {
        push(mc, world, 1);
        other.attach().mutate(|mc, world| _ = push(mc, world, 2));
    });
    drop(mutator);
    assert_eq!(heap.attach().mutate(|_, world| ids(world)), [1]);
    assert_eq!(other.attach().mutate(|_, world| ids(world)), [2]);
}

/// Calls a function when it is dropped.
struct OnDrop(Box<dyn Fn() + Send + Sync>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn drop_glue_cannot_open_a_session_on_the_heap_that_drops_it() {
    // By hand, on one thread and on helping ones.
    for gc_threads in [1, 3] {
        let heap = Arc::new(calm().gc_threads(gc_threads).build(|_| World::default()));
        let refused = Counter::default();
        let mut mutator = heap.attach();
        mutator.mutate(|mc, _| {
            // More than the spans that it takes to call for help.
            for _ in 0..4096 {
                let (heap, refused) = (Arc::downgrade(&heap), refused.clone());
                let attach = OnDrop(Box::new(move || {
                    let heap = heap.upgrade().expect("it is collecting");
                    heap.stats();
                    refuses_to_attach(&heap);
                    refused.raise();
                }));
                mc.alloc(Leaf::new((attach, [0u64; 128])));
            }
        });
        let report = mutator.collect();
        assert_eq!((refused.get(), report.drop_panics), (4096, 0));
    }
}

#[test]
fn a_thread_that_ends_by_a_panic_is_detached_and_the_heap_stays_usable() {
    let heap = calm_heap();
    let panicked = thread::scope(|scope| {
        let heap = &heap;
        let doomed = scope.spawn(move || {
            let mut mutator = heap.attach();
            mutator.mutate(|mc, world| {
                push(mc, world, 1);
                panic!("on purpose");
            });
        });
        doomed.join()
    });
    assert_eq!(message(panicked.unwrap_err()), "on purpose");
    let mut mutator = heap.attach();
    mutator.mutate(|mc, world| _ = push(mc, world, 2));
    assert_eq!(mutator.collect().live_objects, 2);
    mutator.verify().unwrap();
    assert_eq!(mutator.mutate(|_, world| ids(world)), [1, 2]);
}

#[test]
fn a_panic_within_a_session_leaves_its_mutator_usable_and_delays_no_collection() {
    let heap = calm_heap();
    let mut mutator = heap.attach();
    let panic = catch_unwind(AssertUnwindSafe(|| mutator.mutate(|_, _| panic!("on purpose"))));
    assert_eq!(message(panic.unwrap_err()), "on purpose");
    mutator.mutate(|mc, world| _ = push(mc, world, 1));
    thread::scope(|scope| scope.spawn(|| heap.attach().collect()).join().map(drop)).unwrap();
    assert_eq!(mutator.collect().cycle, 2);
}

#[test]
fn a_leaked_mutator_delays_nobody_and_its_heap_can_go() {
    let heap = calm_heap();
    thread::scope(|scope| {
        let leaked = scope.spawn(|| {
            let mut mutator = heap.attach();
            mutator.mutate(|mc, world| _ = push(mc, world, 1));
            std::mem::forget(mutator);
            refuses_to_attach(&heap);
        });
        leaked.join().unwrap();
    });
    assert_eq!(heap.attach().collect().live_objects, 1);
    heap.attach().verify().unwrap();
}

#[test]
fn spans_of_a_detached_mutator_are_used_by_others() {
    let heap = calm_heap();
    for _ in 0..200 {
        thread::scope(|scope| {
            scope.spawn(|| heap.attach().mutate(|mc, world| _ = push(mc, world, 0)));
        });
    }
    let mut mutator = heap.attach();
    mutator.mutate(|mc, _| (0..200).for_each(|id| _ = mc.alloc(Node::new(id))));
    let report = mutator.collect();
    assert_eq!(report.live_objects, 200);
    // All 400 fit into one span.
    assert_eq!(report.swept_spans, 1);
}

#[test]
fn a_session_that_does_not_end_is_named_with_its_thread() {
    let (told, seen) = mpsc::channel();
    let heap: SharedHeap = calm()
        .slow_session_after(Duration::from_millis(20))
        .on_slow_session(move |session| {
            _ = told.send((session.clone(), session.to_string()));
            panic!("a hook may do that");
        })
        .build(|_| World::default());
    let (opened, close) = (Gate::default(), Gate::default());
    thread::scope(|scope| {
        let (heap, opened, close) = (&heap, &opened, &close);
        let slow = thread::Builder::new().name("slow coach".into());
        let slow = slow.spawn_scoped(scope, move || {
            heap.attach().mutate(|_, _| {
                opened.open();
                close.pass();
            });
        });
        let slow = slow.unwrap().thread().id();
        opened.pass();
        let collector = scope.spawn(move || heap.attach().collect());
        // Told again, later each time, for as long as it lasts.
        let mut last = Duration::ZERO;
        for _ in 0..3 {
            let (session, text) = seen.recv_timeout(LONG).expect("the hook was not called");
            assert_eq!((session.heap, session.thread), (heap.id(), slow));
            assert_eq!(session.thread_name.as_deref(), Some("slow coach"));
            assert!(session.waited >= Duration::from_millis(20).max(last * 2), "{session:?}");
            assert!(text.contains("slow coach") && text.contains(&heap.id().to_string()), "{text}");
            last = session.waited;
        }
        close.open();
        assert!(collector.join().unwrap().safepoint_time >= last);
    });
}

#[test]
fn objects_may_go_to_scoped_threads_within_a_session() {
    let heap = calm_heap();
    let mut mutator = heap.attach();
    mutator.mutate(|mc, world| {
        (0..100).for_each(|id| _ = push(mc, world, id));
        let head = world.head.load().unwrap();
        let weak = mc.downgrade(head);
        let sums = thread::scope(|scope| {
            let sum = move || {
                let nodes = std::iter::successors(Some(head), |node| node.next.load());
                assert!(weak.ptr_eq(weak));
                nodes.map(|node| node.id).sum::<u64>()
            };
            [scope.spawn(sum), scope.spawn(sum)].map(|thread| thread.join().unwrap())
        });
        assert_eq!(sums, [4950, 4950]);
    });
}

#[test]
fn weak_pointers_made_by_many_threads_share_a_record_and_are_cleared_for_all() {
    let heap = calm_heap();
    heap.attach().mutate(|mc, world| {
        for id in 0..50 {
            let node = push(mc, world, id);
            world.nodes.lock(mc).push(node);
        }
    });
    on_threads(&heap, 4, |_, mut mutator| {
        for id in 0..50 {
            mutator.mutate(|mc, world| {
                let node = world.nodes.lock(mc)[id as usize];
                let weak = mc.downgrade(node);
                let old = world.table.write(mc).insert(id, weak);
                assert!(old.is_none_or(|old| old.ptr_eq(weak)));
            });
        }
    });
    let mut mutator = heap.attach();
    assert_eq!(mutator.collect().live_weak_records, 50);
    mutator.verify().unwrap();
    let cleared = Arc::new(AtomicU64::new(0));
    mutator.mutate(|mc, world| {
        world.head.store(mc, None);
        world.nodes.lock(mc).truncate(20);
        // Of a stack of fifty, number 19 keeps itself and those below.
        for weak in world.table.read(mc).values() {
            let (node, cleared) = (weak.upgrade(mc).unwrap(), cleared.clone());
            mc.add_cleanup(node, move || _ = cleared.fetch_add(1, SeqCst));
        }
    });
    assert_eq!(mutator.collect().cleared_weaks, 30);
    on_threads_after(mutator, &heap, |mutator| {
        mutator.mutate(|mc, world| {
            for (&id, weak) in &*world.table.read(mc) {
                assert_eq!(weak.upgrade(mc).is_some(), id < 20);
            }
        });
    });
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(cleared.load(SeqCst), 30);
}

/// Calls `check` with that mutator, and on two other threads with theirs.
fn on_threads_after(
    mut mutator: Mutator<'_, World<'static>>,
    heap: &SharedHeap,
    check: impl Fn(&mut Mutator<'_, World<'static>>) + Sync,
) {
    check(&mut mutator);
    on_threads(heap, 2, |_, mut mutator| check(&mut mutator));
}

#[test]
fn a_shared_root_keeps_its_object_across_threads_and_is_found_when_it_is_old() {
    let heap = calm_heap();
    let root: SharedRoot<'_, Node<'static>> = thread::scope(|scope| {
        let make = || share(&heap, |mc, _| mc.alloc(Node::new(5)));
        scope.spawn(make).join().unwrap()
    });
    let mut mutator = heap.attach();
    assert_eq!(mutator.collect().live_objects, 1);
    assert_eq!(heap.stats().roots, 1);
    let clones = Mutex::new(Vec::new());
    drop(mutator);
    on_threads(&heap, 3, |_, mut mutator| {
        assert_eq!(mutator.mutate(|mc, _| mc.fetch_shared(&root).id), 5);
        clones.lock().unwrap().push(root.clone());
    });
    drop(root);
    let mut mutator = heap.attach();
    mutator.collect();
    let old = heap.old_roots(1);
    assert_eq!(old.len(), 3);
    assert!(old.iter().all(|root| root.shared && root.cycles == 1));
    let text = old[0].to_string();
    assert!(text.contains("shared root") && text.contains("shared.rs"), "{text}");
    drop(clones);
    assert_eq!(mutator.collect().live_objects, 0);
}

/// A root for other threads of what `make` makes.
fn share<'h>(
    heap: &'h SharedHeap,
    make: impl for<'gc> FnOnce(&Mutation<'gc, Shared>, &'gc World<'gc>) -> Gc<'gc, Node<'gc>>,
) -> SharedRoot<'h, Node<'static>> {
    heap.attach().mutate(|mc, world| heap.share(&mc.root(make(mc, world))))
}

/// A heap that is never dropped: its shared roots are `'static`, and may be anywhere.
static ETERNAL: LazyLock<Heap<(), Shared>> =
    LazyLock::new(|| builder().pacing(Pacing::Manual).zeal(false).gc_threads(3).build(|_| ()));

/// The one way in which a cleanup can keep its own object; and drop glue that drops roots, in a
/// sweep for which helpers are called.
#[test]
fn shared_roots_of_a_heap_that_never_ends_may_be_in_cleanups_and_in_payloads() {
    let mut mutator = ETERNAL.attach();
    let number = Leaf::new(7);
    let root = mutator.mutate(|mc, ()| {
        let gc = mc.alloc(number);
        let (root, own) = (ETERNAL.share(&mc.root(gc)), ETERNAL.share(&mc.root(gc)));
        let cleanup = mc.add_cleanup(gc, move || drop(own));
        (root, cleanup)
    });
    let (root, cleanup) = root;
    for _ in 0..3 {
        assert_eq!(mutator.collect().live_objects, 1);
    }
    drop(root);
    assert_eq!(mutator.collect().live_objects, 1);
    assert_eq!(cleanup.state(), CleanupState::Armed);
    let old = ETERNAL.old_roots(4);
    assert!(matches!(&*old, [OldRoot { shared: true, .. }]), "{old:?}");
    assert!(cleanup.run_now());
    assert_eq!(mutator.collect().live_objects, 0);

    // Each keeps the next one: of all, a cycle finds one more dead.
    const CHAINS: usize = 40;
    mutator.mutate(|mc, ()| {
        for _ in 0..CHAINS {
            let last = ETERNAL.share(&mc.root(mc.alloc(number)));
            // A span each.
            mc.alloc((Leaf::new(last), [0_u8; 33_000]));
        }
    });
    let report = mutator.collect();
    assert_eq!((report.swept_objects, report.live_objects), (CHAINS as u64, CHAINS as u64));
    assert_eq!(ETERNAL.stats().roots, 0);
    assert_eq!(mutator.collect().live_objects, 0);
    mutator.verify().unwrap();
}

#[test]
fn roots_of_other_heaps_are_refused_with_both_names() {
    let (heap, other) = (calm_heap(), calm_heap());
    let root = share(&heap, |mc, _| mc.alloc(Node::new(5)));
    let fetch = || other.attach().mutate(|mc, _| mc.fetch_shared(&root).id);
    let fetched = message(catch_unwind(AssertUnwindSafe(fetch)).unwrap_err());
    let share =
        || heap.attach().mutate(|mc, _| drop(other.share(&mc.root(mc.alloc(Leaf::new(1))))));
    let shared = message(catch_unwind(AssertUnwindSafe(share)).unwrap_err());
    for message in [fetched, shared] {
        assert!(message.contains(&heap.id().to_string()), "{message}");
        assert!(message.contains(&other.id().to_string()), "{message}");
    }
    assert_eq!((heap.stats().roots, other.stats().roots), (1, 0));
}

#[test]
fn a_root_of_a_mutators_own_keeps_its_object_between_sessions() {
    let heap = calm_heap();
    let mut mutator = heap.attach();
    let root = mutator.mutate(|mc, _| mc.root(mc.alloc(Node::new(3))));
    assert_eq!(mutator.collect().live_objects, 1);
    assert_eq!(mutator.mutate(|mc, _| mc.fetch(&root).id), 3);
    drop(root);
    assert_eq!(mutator.collect().live_objects, 0);
}

#[test]
fn leaked_guards_hide_nothing_from_the_marker() {
    let heap = calm_heap();
    let mut mutator = heap.attach();
    mutator.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        let mut nodes = world.nodes.lock(mc);
        nodes.push(node);
        std::mem::forget(nodes);
        let mut table = world.table.write(mc);
        table.insert(1, mc.downgrade(node));
        std::mem::forget(table);
    });
    let report = mutator.collect();
    assert_eq!((report.live_objects, report.live_weak_records), (1, 1));
    mutator.mutate(|mc, world| {
        assert!(world.nodes.try_lock(mc).is_none());
        assert!(world.table.try_read(mc).is_none() && world.table.try_write(mc).is_none());
    });
    mutator.verify().unwrap();
}

#[test]
fn building_blocks_for_many_threads_do_what_their_names_say() {
    let heap = calm_heap();
    let made = AtomicUsize::new(0);
    on_threads(&heap, 4, |number, mut mutator| {
        mutator.mutate(|mc, world| {
            let make = || {
                made.fetch_add(1, SeqCst);
                mc.alloc(Node::new(number))
            };
            let first = *world.once.get_or_init(mc, make);
            assert!(world.once.get().unwrap().ptr_eq(first));
            assert!(world.once.set(mc, first).is_err());
        });
        for _ in 0..200 {
            mutator.mutate(|mc, world| {
                let node = mc.alloc(Node::new(number));
                // A stack of one: the thread that takes an old one has it alone.
                if let Some(old) = world.head.swap(mc, Some(node)) {
                    assert!(old.next.swap(mc, Some(node)).is_none(), "taken twice");
                }
            });
        }
    });
    assert_eq!(made.load(SeqCst), 1);
    let mut mutator = heap.attach();
    assert_eq!(mutator.collect().live_objects, 2);
}

#[test]
fn the_byte_limit_holds_for_all_mutators_together_and_a_cycle_makes_room() {
    const LIMIT: u64 = 1 << 20;
    let heap: SharedHeap = builder().max_bytes(LIMIT).zeal(false).build(|_| World::default());
    let refused = AtomicU64::new(0);
    on_threads(&heap, 4, |number, mut mutator| {
        for round in 0..100 {
            mutator.mutate(|mc, _| {
                for id in 0..200 {
                    match mc.try_alloc([round; 16].map(|_| id)) {
                        Ok(_) => {}
                        Err(full) => {
                            assert!(full.used_bytes() <= LIMIT && full.max_bytes() == LIMIT);
                            assert_eq!(full.into_value()[0], id);
                            refused.fetch_add(1, SeqCst);
                            break;
                        }
                    }
                }
            });
            assert!(heap.stats().bytes <= LIMIT, "{number}");
        }
    });
    // It went on: the garbage of 10 MB was collected in a heap of one.
    assert!(heap.stats().cycles >= 5, "{:?}, refused {refused:?}", heap.stats());
    heap.attach().verify().unwrap();
}

#[test]
fn a_session_that_panics_because_the_heap_is_full_leaves_room_for_the_next() {
    let heap: SharedHeap = builder().max_bytes(1 << 18).zeal(false).build(|_| World::default());
    let mut mutator = heap.attach();
    for _ in 0..3 {
        let fill = || {
            mutator.mutate(|mc, _| {
                loop {
                    mc.alloc([0u64; 64]);
                }
            })
        };
        let Err(panic) = catch_unwind(AssertUnwindSafe(fill));
        assert!(message(panic).contains("is full"));
        mutator.mutate(|mc, _| _ = mc.alloc([0u64; 64]));
    }
}

#[test]
fn collections_asked_for_by_many_threads_at_a_time_all_happen() {
    let heap = calm_heap();
    on_threads(&heap, 4, |number, mut mutator| {
        for round in 0..50 {
            mutator.mutate(|mc, world| _ = push(mc, world, number * 50 + round));
            mutator.collect();
        }
    });
    assert_eq!(heap.stats().cycles, 200);
    assert_eq!(heap.attach().collect().live_objects, 200);
}

#[test]
fn several_threads_sweep_and_each_drops_and_queues_once() {
    for gc_threads in [1, 2, 4] {
        let heap = calm().gc_threads(gc_threads).build(|_| World::default());
        let (token, ran) = (Token::default(), Counter::default());
        let mut mutator = heap.attach();
        for round in 0..3 {
            mutator.mutate(|mc, world| {
                // Some 170 spans with drop glue, of which a tenth lives; every third has a cleanup.
                let mut tokens = world.tokens.lock(mc);
                tokens.clear();
                for number in 0..200_000 {
                    let object = mc.alloc(Leaf::new((token.clone(), [0u64; 6])));
                    if number % 3 == 0 {
                        mc.add_cleanup(object, ran.cleanup());
                    }
                    if number % 10 == 0 {
                        tokens.push(mc.alloc(Leaf::new(token.clone())));
                    }
                }
            });
            let report = mutator.collect();
            assert_eq!(report.queued_cleanups, 66_667, "{gc_threads} threads, round {round}");
            assert_eq!(report.live_objects, 20_000);
            mutator.verify().unwrap();
        }
        // The tokens of the first two rounds' lists as well.
        assert_eq!(token.drops(), 3 * 200_000 + 2 * 20_000, "{gc_threads} threads");
        heap.wait_for_cleanups(LONG).unwrap();
        assert_eq!(ran.get(), 3 * 66_667);
    }
}

#[test]
fn threads_that_wait_for_a_cycle_help_with_it() {
    let heap = calm().gc_threads(8).build(|_| World::default());
    let dropped = Arc::new(Mutex::new(HashMap::<thread::ThreadId, usize>::new()));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Threads that only open sessions: while there is a cycle, they wait.
        let open_sessions = || {
            let mut mutator = heap.attach();
            while !stop.load(SeqCst) {
                mutator.mutate(|_, _| {});
            }
        };
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(open_sessions).thread().id()).collect();
        let mut mutator = heap.attach();
        until("one of them has dropped objects", || {
            mutator.mutate(|mc, _| {
                // Some 80 spans.
                for _ in 0..50_000 {
                    let dropped = dropped.clone();
                    let count = OnDrop(Box::new(move || {
                        *dropped.lock().unwrap().entry(thread::current().id()).or_default() += 1;
                    }));
                    mc.alloc(Leaf::new((count, [0u64; 11])));
                }
            });
            mutator.collect();
            let dropped = dropped.lock().unwrap();
            assert_eq!(dropped.values().sum::<usize>() % 50_000, 0);
            waiters.iter().any(|waiter| dropped.contains_key(waiter))
        });
        stop.store(true, SeqCst);
    });
}

#[test]
fn a_panic_in_trace_reaches_who_collects_and_everybody_goes_on() {
    struct Explosive(AtomicBool);
    // SAFETY: nothing to report; no `Drop`; no brand.
    #[expect(unsafe_code, reason = "a `Trace` that panics has to be written by hand")]
    unsafe impl<'gc> Trace<'gc> for Explosive {
        type Family = Explosive;
        const NEEDS_TRACE: bool = true;
        fn trace(&self, _: &mut sexton::Tracer<'_>) {
            assert!(!self.0.load(SeqCst), "on purpose");
        }
    }
    // SAFETY: there is no brand in it.
    #[expect(unsafe_code, reason = "as above")]
    unsafe impl Branded for Explosive {
        type At<'gc> = Explosive;
    }
    let heap: Heap<Explosive, Shared> =
        builder().pacing(Pacing::Manual).zeal(false).build(|_| Explosive(AtomicBool::new(false)));
    heap.attach().mutate(|_, root| root.0.store(true, SeqCst));
    let panic = catch_unwind(AssertUnwindSafe(|| heap.attach().collect())).unwrap_err();
    assert_eq!(message(panic), "on purpose");
    thread::scope(|scope| {
        let session = || heap.attach().mutate(|_, root| root.0.store(false, SeqCst));
        scope.spawn(session).join().unwrap();
    });
    assert_eq!(heap.attach().collect().cycle, 1);
}

#[test]
fn back_pressure_is_applied_by_who_collects_while_others_go_on() {
    let pool = CleanupPool::manual();
    let ran = Counter::default();
    let heap: SharedHeap = builder()
        .cleanup_pool(&pool)
        .back_pressure(100, BackPressure::Help)
        .pacing(Pacing::Automatic { min_bytes: 1 << 16, growth: 1.0 })
        .build(|_| World::default());
    on_threads(&heap, 3, |_, mut mutator| {
        for _ in 0..200 {
            mutator.mutate(|mc, _| {
                (0..20).for_each(|id| _ = mc.add_cleanup(mc.alloc(Node::new(id)), ran.cleanup()));
            });
        }
    });
    assert!(heap.stats().cycles > 0);
    heap.attach().collect();
    assert!(heap.stats().cleanups.backlog <= 100, "{:?}", heap.stats().cleanups);
    while pool.run_pending(usize::MAX) > 0 {}
    assert_eq!(ran.get(), 3 * 200 * 20);
}

#[test]
fn a_cleanup_may_use_its_heap_from_a_worker() {
    let pool = CleanupPool::builder().max_workers(2).build();
    let heap: Arc<SharedHeap> = Arc::new(calm().cleanup_pool(&pool).build(|_| World::default()));
    let mut mutator = heap.attach();
    mutator.mutate(|mc, _| {
        for id in 0..100 {
            let heap = Arc::downgrade(&heap);
            mc.add_cleanup(mc.alloc(Node::new(id)), move || {
                let heap = heap.upgrade().expect("it waits for us");
                heap.attach().mutate(|mc, world| _ = push(mc, world, id));
            });
        }
    });
    mutator.collect();
    heap.wait_for_cleanups(LONG).unwrap();
    mutator.collect();
    assert_eq!(mutator.mutate(|_, world| ids(world)), (0..100).collect::<Vec<_>>());
    drop(mutator);
    drop(heap);
    pool.shutdown(LONG).unwrap();
}

#[test]
fn a_cleanup_that_runs_on_an_attached_thread_can_tell() {
    let pool = CleanupPool::manual();
    let heap = Arc::new(calm().cleanup_pool(&pool).build(|_| World::default()));
    let mut mutator = heap.attach();
    let told = Counter::default();
    let handle = mutator.mutate(|mc, _| {
        let (heap, told) = (Arc::downgrade(&heap), told.clone());
        mc.add_cleanup(mc.alloc(Node::new(0)), move || {
            let error = heap.upgrade().unwrap().try_attach().unwrap_err();
            assert!(error.to_string().contains("one at a time"), "{error}");
            told.raise();
        })
    });
    assert!(handle.run_now());
    assert_eq!(told.get(), 1);
}

#[test]
fn chains_of_stopped_cleanups_are_pruned_whoever_registered_them() {
    let heap = calm_heap();
    let mut mutator = heap.attach();
    mutator.mutate(|mc, world| _ = push(mc, world, 1));
    let register = |mutator: &mut Mutator<'_, World<'static>>| {
        mutator.mutate(|mc, world| {
            let object = world.head.load().unwrap();
            let handles: Vec<_> = (0..3000).map(|_| mc.add_cleanup(object, || {})).collect();
            assert!(handles.iter().all(|handle| handle.stop()));
        });
    };
    for _ in 0..20 {
        register(&mut mutator);
        // Takes the stopped ones out of the chain.
        mutator.collect();
        mutator.verify().unwrap();
        thread::scope(|scope| _ = scope.spawn(|| register(&mut heap.attach())));
        mutator.collect();
    }
    let stats = heap.stats().cleanups;
    assert_eq!((stats.registered, stats.stopped, stats.armed), (120_000, 120_000, 0));
}

#[test]
fn dropping_the_heap_runs_all_cleanups_and_drops_all_objects() {
    let (token, ran) = (Token::default(), Counter::default());
    let heap = calm_heap();
    on_threads(&heap, 3, |_, mut mutator| {
        mutator.mutate(|mc, world| {
            let mut tokens = world.tokens.lock(mc);
            for _ in 0..100 {
                let object = mc.alloc(Leaf::new(token.clone()));
                mc.add_cleanup(object, ran.cleanup());
                tokens.push(object);
            }
        });
    });
    drop(heap);
    assert_eq!((token.drops(), ran.get()), (300, 300));
}

#[test]
fn statistics_count_no_object_that_was_not_allocated_and_soon_all_that_were() {
    let heap = calm_heap();
    let mut mutator = heap.attach();
    // Of three types, so that slots of each are at hand; and one that is larger than what is
    // granted at a time.
    mutator.mutate(|mc, _| {
        (0..5).for_each(|id| _ = mc.alloc(Node::new(id)));
        mc.alloc(Leaf::new([0u64; 5]));
        mc.alloc(Leaf::new([0u64; 1 << 16]));
    });
    assert!(heap.stats().objects <= 7, "{:?}", heap.stats());
    mutator.mutate(|mc, _| (0..100_000).for_each(|id| _ = mc.alloc(Leaf::new([id; 4]))));
    let stats = heap.stats();
    let unsettled = (64 << 10) / 32;
    assert!((100_007 - unsettled..=100_007).contains(&stats.objects), "{stats:?}");
    assert_eq!(mutator.collect().swept_objects, 100_007);
}

#[test]
fn a_small_heap_is_not_used_up_by_what_many_mutators_have_at_hand() {
    let heap: SharedHeap = calm().max_bytes(1 << 20).build(|_| World::default());
    let all = Barrier::new(40);
    thread::scope(|scope| {
        for id in 0..40 {
            let (heap, all) = (&heap, &all);
            scope.spawn(move || {
                let mut mutator = heap.attach();
                mutator.mutate(|mc, world| _ = push(mc, world, id));
                // Until all have theirs.
                all.wait();
            });
        }
    });
    assert_eq!(heap.attach().collect().live_objects, 40);
}

#[test]
fn reports_and_statistics_tell_of_pauses() {
    let heap = calm_heap();
    let mut mutator = heap.attach();
    for id in 0..20 {
        mutator.mutate(|mc, world| {
            let node = push(mc, world, id);
            mc.downgrade(node);
            mc.add_cleanup(node, || {});
            (0..2000).for_each(|_| _ = mc.add_cleanup(mc.alloc(Node::new(0)), || {}).stop());
        });
        let report = mutator.collect();
        assert_eq!(phases(&report), report.pause_time, "{report:?}");
        assert!((0.0..=1.0).contains(&report.mutator_utilisation), "{report:?}");
    }
    let stats = heap.stats();
    assert_eq!((stats.pause.count, stats.safepoint.count), (20, 20));
    assert!(stats.pause.median <= stats.pause.p99 && stats.pause.p99 <= stats.pause.max);
    assert!(stats.mutator_utilisation > 0.0 && stats.mutator_utilisation < 1.0, "{stats:?}");
}
