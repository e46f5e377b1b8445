//! Local cleanups: closures that are not `Send`, run on the owner's thread when it asks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use sexton::{CleanupPool, CleanupState, Gc, GcRefCell, Heap, Leaf, OnDrop, Pacing, Root, Trace};

use crate::world::{Node, World, WorldHeap, builder, calm, heap_on, manual_heap};

/// What has run, in order. Not `Send`.
type Log = Rc<RefCell<Vec<u64>>>;

fn note(log: &Log, at: u64) -> impl FnOnce() + 'static {
    let log = log.clone();
    move || log.borrow_mut().push(at)
}

#[test]
fn a_closure_that_is_not_send_runs_on_the_owners_thread_when_it_asks() {
    let mut heap: WorldHeap = calm().build(|_| World::default());
    let log = Log::default();
    heap.mutate(|mc, world| {
        for at in 0..10 {
            let node = mc.alloc(Node::new(at));
            mc.add_cleanup_local(node, note(&log, at));
            if at % 2 == 0 {
                world.nodes.borrow_mut(mc).push(node);
            }
        }
    });
    assert_eq!(heap.run_local_cleanups(usize::MAX), 0, "nothing is known to be dead");
    heap.collect();
    assert!(log.borrow().is_empty(), "a collection runs none");
    let stats = heap.stats().local_cleanups;
    assert_eq!((stats.registered, stats.armed), (10, 5));
    assert_eq!((stats.queued, stats.backlog), (5, 5));
    assert_eq!(heap.run_local_cleanups(3), 3);
    assert_eq!(heap.run_local_cleanups(usize::MAX), 2);
    assert_eq!(*log.borrow(), [1, 3, 5, 7, 9]);
    heap.mutate(|mc, world| world.nodes.borrow_mut(mc).clear());
    heap.collect();
    assert_eq!(heap.run_local_cleanups(usize::MAX), 5);
    let stats = heap.stats().local_cleanups;
    assert_eq!((stats.queued, stats.executed), (10, 10));
    assert_eq!((stats.armed, stats.backlog), (0, 0));
    heap.verify().unwrap();
}

#[test]
fn large_and_zero_sized_objects_have_local_cleanups_too() {
    #[derive(Trace, Default)]
    struct Kept<'gc>(GcRefCell<Vec<Gc<'gc, Leaf<[u64; 4096]>>>>);
    let mut heap: Heap<Kept<'static>> =
        Heap::builder().pacing(Pacing::Manual).build(|_| Kept::default());
    let log = Log::default();
    heap.mutate(|mc, kept| {
        let large = mc.alloc(Leaf::new([7; 4096]));
        mc.add_cleanup_local(large, note(&log, 0));
        kept.0.borrow_mut(mc).push(large);
        mc.add_cleanup_local(mc.alloc(Leaf::new([8; 4096])), note(&log, 1));
        mc.add_cleanup_local(mc.alloc(()), note(&log, 2));
    });
    heap.collect();
    heap.run_local_cleanups(usize::MAX);
    assert_eq!(*log.borrow(), [1, 2]);
}

#[test]
fn a_handle_stops_it_or_runs_it_early_once() {
    let mut heap = manual_heap();
    let log = Log::default();
    let handles: Vec<_> = heap.mutate(|mc, _| {
        (0..4).map(|at| mc.add_cleanup_local(mc.alloc(Node::new(at)), note(&log, at))).collect()
    });
    assert!(handles[0].stop() && !handles[0].stop() && !handles[0].run_now());
    assert!(handles[1].run_now() && !handles[1].run_now() && !handles[1].stop());
    heap.collect();
    assert_eq!(handles[2].state(), CleanupState::Queued);
    assert!(handles[2].stop());
    assert_eq!(heap.run_local_cleanups(usize::MAX), 1);
    assert_eq!(*log.borrow(), [1, 3]);
    assert_eq!(
        handles.iter().map(sexton::LocalCleanup::state).collect::<Vec<_>>(),
        [CleanupState::Stopped, CleanupState::Done, CleanupState::Stopped, CleanupState::Done]
    );
    assert_eq!(Rc::strong_count(&log), 1, "captures are dropped, run or not");
    let stats = heap.stats().local_cleanups;
    assert_eq!((stats.stopped, stats.executed, stats.armed, stats.backlog), (2, 2, 0, 0));
}

#[test]
fn a_panic_in_one_is_told_and_the_rest_runs() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    let pool = CleanupPool::builder()
        .max_workers(0)
        .on_panic(move |panic| notes.lock().unwrap().push(panic.message.to_owned()))
        .build();
    let mut heap = heap_on(&pool);
    let log = Log::default();
    heap.mutate(|mc, _| {
        mc.add_cleanup_local(mc.alloc(Node::new(0)), || {
            std::panic::resume_unwind(Box::new("on purpose"))
        });
        mc.add_cleanup_local(mc.alloc(Node::new(1)), note(&log, 1));
        mc.add_cleanup_local(mc.alloc(Node::new(2)), note(&log, 2));
    });
    heap.collect();
    assert_eq!(heap.run_local_cleanups(usize::MAX), 3);
    assert_eq!(*heard.lock().unwrap(), ["on purpose"]);
    assert_eq!(*log.borrow(), [1, 2]);
    assert_eq!(heap.stats().local_cleanups.panicked, 1);
}

#[test]
fn the_end_of_a_heap_runs_or_discards_them_as_its_policy_says() {
    for (policy, expected) in
        [(OnDrop::RunAll, vec![0, 1]), (OnDrop::RunQueued, vec![0]), (OnDrop::Discard, vec![])]
    {
        let pool = CleanupPool::manual();
        let mut heap: WorldHeap = builder()
            .cleanup_pool(&pool)
            .pacing(Pacing::Manual)
            .on_drop(policy)
            .build(|_| World::default());
        let log = Log::default();
        let handles = heap.mutate(|mc, world| {
            let kept = mc.alloc(Node::new(1));
            world.nodes.borrow_mut(mc).push(kept);
            let dead = mc.add_cleanup_local(mc.alloc(Node::new(0)), note(&log, 0));
            [dead, mc.add_cleanup_local(kept, note(&log, 1))]
        });
        heap.collect();
        drop(heap);
        assert_eq!(*log.borrow(), expected, "{policy:?}");
        assert_eq!(Rc::strong_count(&log), 1, "{policy:?}");
        for (at, handle) in handles.iter().enumerate() {
            let ran = expected.contains(&(at as u64));
            let state = if ran { CleanupState::Done } else { CleanupState::Stopped };
            assert_eq!(handle.state(), state);
            assert!(!handle.stop() && !handle.run_now());
        }
    }
}

#[test]
fn to_a_local_cleanup_waiting_is_an_error_as_to_any_other() {
    let mut heap = manual_heap();
    let answer = Rc::new(Cell::new(None));
    let noted = answer.clone();
    heap.mutate(|mc, _| {
        mc.add_cleanup_local(mc.alloc(Node::new(0)), move || {
            let other = manual_heap();
            noted.set(Some(other.wait_for_cleanups(crate::world::LONG)));
        });
    });
    heap.collect();
    heap.run_local_cleanups(1);
    assert_eq!(answer.get(), Some(Err(sexton::WaitError::FromCleanup)));
}

/// The compiler cannot forbid it, so `old_roots` has to find it.
#[test]
fn one_that_holds_a_root_of_its_own_object_is_found_among_the_old_roots() {
    let mut heap = manual_heap();
    let handle = heap.mutate(|mc, _| {
        let node = mc.alloc(Node::new(0));
        let root: Root<Node<'static>> = mc.root(node);
        mc.add_cleanup_local(node, move || drop(root))
    });
    for _ in 0..5 {
        heap.collect();
    }
    assert_eq!(handle.state(), CleanupState::Armed);
    let old = heap.old_roots(5);
    assert_eq!(old.len(), 1);
    assert!(old[0].type_name.contains("Node"));
    assert!(handle.stop());
    heap.collect();
    assert_eq!(heap.stats().objects, 0);
}
