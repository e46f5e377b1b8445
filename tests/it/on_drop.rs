//! The end of heaps and pools.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use sexton::{CleanupPool, CleanupState, OnDrop, Pacing};

use crate::world::{Counter, Gate, LONG, Node, World, WorldHeap, builder, until};

/// A heap with `queued` cleanups of dead objects and `armed` ones of live objects.
fn heap_with(pool: &CleanupPool, on_drop: OnDrop, queued: u64, armed: u64) -> (WorldHeap, Counter) {
    let counter = Counter::default();
    let mut heap = builder()
        .cleanup_pool(pool)
        .on_drop(on_drop)
        .pacing(Pacing::Manual)
        .build(|_| World::default());
    heap.mutate(|mc, world| {
        for id in 0..queued + armed {
            let node = mc.alloc(Node::new(id));
            mc.add_cleanup(node, counter.cleanup());
            if id >= queued {
                world.nodes.borrow_mut(mc).push(node);
            }
        }
    });
    heap.collect();
    (heap, counter)
}

#[test]
fn by_default_dropping_a_heap_runs_every_cleanup() {
    let pool = CleanupPool::builder().max_workers(2).build();
    let (heap, counter) = heap_with(&pool, OnDrop::default(), 500, 700);
    drop(heap);
    assert_eq!(counter.get(), 1200);
}

#[test]
fn run_queued_runs_only_those_of_objects_already_dead() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let (heap, counter) = heap_with(&pool, OnDrop::RunQueued, 500, 700);
    drop(heap);
    assert_eq!((counter.get(), counter.sharers()), (500, 0), "every capture was dropped");
}

#[test]
fn discard_runs_none_and_drops_what_they_captured() {
    let pool = CleanupPool::manual();
    let (heap, counter) = heap_with(&pool, OnDrop::Discard, 500, 700);
    drop(heap);
    assert_eq!(pool.run_pending(usize::MAX), 0);
    assert_eq!((counter.get(), counter.sharers()), (0, 0), "every capture was dropped");
    assert_eq!(pool.stats().backlog, 0);
}

#[test]
fn a_manual_pool_is_not_waited_for() {
    let pool = CleanupPool::manual();
    let (heap, counter) = heap_with(&pool, OnDrop::RunAll, 5, 7);
    drop(heap);
    assert_eq!(counter.get(), 0);
    assert_eq!(pool.run_pending(usize::MAX), 12);
    assert_eq!(counter.get(), 12);
}

#[test]
fn a_stalled_cleanup_holds_up_a_drop_no_longer_than_its_timeout() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let (release, stalled) = mpsc::channel::<()>();
    let mut heap = builder()
        .cleanup_pool(&pool)
        .drop_timeout(Duration::from_millis(20))
        .build(|_| World::default());
    let counter = Counter::default();
    heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            let _ = stalled.recv();
        });
        mc.add_cleanup(mc.alloc(Node::new(2)), counter.cleanup());
    });
    let start = Instant::now();
    drop(heap);
    assert!(start.elapsed() < Duration::from_secs(4), "its own timeout, not the default");
    assert!(counter.get() <= 1);
    // Nothing is lost: what had not run by then runs later.
    drop(release);
    pool.shutdown(LONG).unwrap();
    assert_eq!(counter.get(), 1);
}

#[test]
fn a_heap_with_the_last_handle_leaves_what_is_late_to_the_workers() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let (release, stalled) = mpsc::channel::<()>();
    let (send, ran) = mpsc::channel();
    let mut heap = builder()
        .cleanup_pool(&pool)
        .drop_timeout(Duration::from_millis(20))
        .build(|_| World::default());
    drop(pool);
    heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            let _ = stalled.recv();
        });
        mc.add_cleanup(mc.alloc(Node::new(2)), move || send.send(()).unwrap());
    });
    let start = Instant::now();
    drop(heap);
    assert!(start.elapsed() < Duration::from_secs(4), "the pool's end adds no wait");
    drop(release);
    ran.recv_timeout(LONG).expect("the late cleanup runs");
}

/// The last handle goes with a heap that has nothing to wait for.
#[test]
fn what_one_heap_leaves_to_the_workers_no_other_heaps_end_discards() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let late = || {
        builder()
            .cleanup_pool(&pool)
            .drop_timeout(Duration::from_millis(20))
            .build(|_| World::default())
    };
    let (mut heap, other) = (late(), late());
    drop(pool);
    let (gate, counter) = (Gate::default(), Counter::default());
    heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(0)), gate.cleanup());
        for at in 1..300 {
            mc.add_cleanup(mc.alloc(Node::new(at)), counter.cleanup());
        }
    });
    heap.collect();
    gate.wait_for(1);
    drop(heap);
    let start = Instant::now();
    drop(other);
    assert!(start.elapsed() < Duration::from_secs(4), "it has nothing to wait for");
    gate.open();
    until("the late ones have run", || counter.get() == 299);
}

#[test]
fn a_shutdown_of_a_manual_pool_says_how_many_it_has_discarded() {
    let pool = CleanupPool::manual();
    let (heap, counter) = heap_with(&pool, OnDrop::Discard, 7, 0);
    let end = pool.shutdown(LONG).unwrap_err();
    assert_eq!((end.workers, end.discarded, counter.get()), (0, 7, 0));
    assert_eq!(end.to_string(), "7 queued cleanups discarded without being run");
    pool.shutdown(LONG).unwrap();
    drop(heap);
}

#[test]
fn a_shutdown_of_a_pool_that_may_have_no_workers_runs_what_is_queued() {
    let pool = CleanupPool::builder().max_workers(2).build();
    pool.set_max_workers(0);
    let (heap, counter) = heap_with(&pool, OnDrop::Discard, 300, 0);
    pool.shutdown(LONG).unwrap();
    assert_eq!(counter.get(), 300);
    drop(heap);
}

#[test]
fn a_shutdown_does_not_wait_for_a_hook_that_does_not_return() {
    let gate = Gate::default();
    let hook = gate.clone();
    let pool = CleanupPool::builder()
        .max_workers(1)
        .on_slow(Duration::from_millis(1), move |_| hook.pass())
        .build();
    let mut heap = builder().cleanup_pool(&pool).build(|_| World::default());
    let running = Gate::default();
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(1)), running.cleanup()));
    heap.collect();
    gate.wait_for(1);
    running.open();
    heap.wait_for_cleanups(LONG).unwrap();
    // Once with a deadline that has passed, once with one that is to come.
    pool.shutdown(Duration::from_millis(20)).unwrap();
    assert_eq!(pool.stats().workers, 0);
    gate.open();
    pool.shutdown(LONG).unwrap();
}

/// The thread is at work before the hook that starts it has returned.
#[test]
fn a_shutdown_joins_a_thread_whose_start_has_not_returned_yet() {
    let start = Gate::default();
    let ended = Counter::default();
    let (hook, count) = (start.clone(), ended.clone());
    let pool = CleanupPool::builder()
        .max_workers(1)
        .spawn_hook(move |thread, body| {
            let (hook_of_thread, count) = (hook.clone(), count.clone());
            let handle = thread.spawn(move || {
                body();
                hook_of_thread.pass();
                count.raise();
            });
            hook.pass();
            handle
        })
        .build();
    let ran = Gate::default();
    std::thread::scope(|scope| {
        let of_cleanup = ran.clone();
        scope.spawn(|| {
            let mut heap = builder().cleanup_pool(&pool).build(|_| World::default());
            heap.mutate(|mc, _| {
                mc.add_cleanup(mc.alloc(Node::new(1)), move || of_cleanup.pass());
            });
            heap.collect();
        });
        ran.wait_for(1);
        start.wait_for(1);
        ran.open();
        let shutdown = scope.spawn(|| {
            pool.shutdown(LONG).unwrap();
            ended.get()
        });
        // The worker has left; its thread and the call that started it have not.
        start.wait_for(2);
        start.open();
        assert_eq!(shutdown.join().unwrap(), 1, "the thread had ended");
    });
}

#[test]
fn shutdown_runs_what_is_queued_and_joins_the_workers() {
    let pool = CleanupPool::builder().max_workers(2).build();
    let (heap, counter) = heap_with(&pool, OnDrop::Discard, 5000, 0);
    pool.shutdown(LONG).unwrap();
    assert_eq!(counter.get(), 5000);
    assert_eq!(pool.stats().workers, 0);
    pool.shutdown(LONG).unwrap();
    drop(heap);
}

#[test]
fn a_shutdown_that_times_out_says_so_and_drops_captures() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let (release, stalled) = mpsc::channel::<()>();
    let (started, wait_for_start) = mpsc::channel();
    let (captured, dropped) = mpsc::channel::<()>();
    let mut heap = builder().cleanup_pool(&pool).build(|_| World::default());
    let captures = captured.clone();
    let mate = heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            started.send(()).unwrap();
            let _ = stalled.recv();
        });
        mc.add_cleanup(mc.alloc(Node::new(2)), move || drop(captures))
    });
    heap.collect();
    wait_for_start.recv_timeout(LONG).unwrap();
    let behind =
        heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(3)), move || drop(captured)));
    heap.collect();
    let timeout = pool.shutdown(Duration::from_millis(10)).unwrap_err();
    assert_eq!((timeout.workers, timeout.discarded), (1, 2), "its block-mate, and the next block");
    assert_eq!([&mate, &behind].map(|cleanup| cleanup.state()), [CleanupState::Stopped; 2]);
    assert!(dropped.recv_timeout(LONG).is_err(), "the capture was dropped");
    drop(release);
    pool.shutdown(LONG).unwrap();
}

#[test]
fn after_a_shutdown_cleanups_are_discarded_and_nobody_waits_for_them() {
    let pool = CleanupPool::builder().max_workers(1).build();
    pool.shutdown(LONG).unwrap();
    let (heap, counter) = heap_with(&pool, OnDrop::RunAll, 10, 10);
    heap.wait_for_cleanups(Duration::ZERO).unwrap();
    assert_eq!(heap.stats().cleanups.discarded, 10);
    drop(heap);
    assert_eq!(counter.get(), 0);
    assert_eq!((pool.stats().discarded, pool.stats().backlog), (20, 0));
}

#[test]
fn a_shutdown_within_a_cleanup_strands_nothing() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let (done, wait_for_it) = mpsc::channel();
    let counter = Counter::default();
    let mut heap = builder().cleanup_pool(&pool).build(|_| World::default());
    heap.mutate(|mc, _| {
        let pool = pool.clone();
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            pool.shutdown(LONG).unwrap();
            done.send(()).unwrap();
        });
    });
    heap.collect();
    wait_for_it.recv_timeout(LONG).expect("it does not wait for itself");
    // The worker leaves, and what is queued from then on is discarded.
    heap.wait_for_cleanups(LONG).unwrap();
    pool.shutdown(LONG).unwrap();
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(2)), counter.cleanup()));
    heap.collect();
    heap.wait_for_cleanups(Duration::ZERO).unwrap();
    assert_eq!((counter.get(), pool.stats().backlog), (0, 0));
}

#[test]
fn without_workers_a_shutdown_within_a_cleanup_discards_the_rest_at_once() {
    let pool = CleanupPool::manual();
    let (mut heap, counter) = heap_with(&pool, OnDrop::RunAll, 10, 0);
    let handle = heap.mutate(|mc, _| {
        let pool = pool.clone();
        mc.add_cleanup(mc.alloc(Node::new(1)), move || pool.shutdown(LONG).unwrap())
    });
    assert!(handle.run_now());
    assert_eq!((pool.run_pending(usize::MAX), counter.get()), (0, 0));
    heap.wait_for_cleanups(Duration::ZERO).unwrap();
}

#[test]
fn the_panic_hook_goes_with_its_pool() {
    let (kept, gone) = mpsc::channel::<()>();
    let pool = CleanupPool::builder()
        .max_workers(1)
        .on_panic(move |_| {
            let _ = kept.send(());
        })
        .build();
    let (heap, counter) = heap_with(&pool, OnDrop::RunAll, 3, 3);
    drop(heap);
    pool.shutdown(LONG).unwrap();
    drop(pool);
    assert_eq!(counter.get(), 6);
    assert_eq!(gone.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn the_last_handle_may_be_dropped_within_a_cleanup() {
    let (done, wait_for_it) = mpsc::channel();
    let pool = CleanupPool::builder().max_workers(1).build();
    let mut heap = builder().cleanup_pool(&pool).build(|_| World::default());
    heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            drop(pool);
            done.send(()).unwrap();
        });
    });
    heap.collect();
    // The heap holds the other handle; whichever goes last, nothing hangs.
    drop(heap);
    wait_for_it.recv_timeout(LONG).expect("the cleanup ends");
}

#[test]
fn a_heap_may_be_dropped_within_a_cleanup() {
    let (done, wait_for_it) = mpsc::channel();
    let counter = Counter::default();
    let inner_counter = counter.clone();
    let mut heap = builder().build(|_| World::default());
    heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            let (heap, _) = heap_with(CleanupPool::global(), OnDrop::RunAll, 3, 3);
            drop(heap);
            let pool = CleanupPool::manual();
            let (heap, counter) = heap_with(&pool, OnDrop::RunAll, 1, 1);
            drop(heap);
            assert_eq!((pool.run_pending(usize::MAX), counter.get()), (0, 0), "they do not nest");
            inner_counter.raise();
            done.send(()).unwrap();
        });
    });
    heap.collect();
    wait_for_it.recv_timeout(LONG).expect("the cleanup ends");
    assert_eq!(counter.get(), 1);
}

#[test]
fn workers_have_names_and_stay_within_the_bound() {
    let pool = CleanupPool::builder().max_workers(2).thread_name("undertaker").build();
    let (send, names) = mpsc::channel();
    let mut heap = builder().cleanup_pool(&pool).build(|_| World::default());
    heap.mutate(|mc, _| {
        for id in 0..10_000 {
            let send = send.clone();
            mc.add_cleanup(mc.alloc(Node::new(id)), move || {
                send.send(std::thread::current().name().map(str::to_owned)).unwrap();
            });
        }
    });
    heap.collect();
    heap.wait_for_cleanups(LONG).unwrap();
    let names: std::collections::BTreeSet<_> = names.try_iter().collect();
    assert!(names.iter().all(|name| name.as_deref().unwrap().starts_with("undertaker-")));
    assert!((1..=2).contains(&names.len()), "{names:?}");
    assert!(pool.stats().workers <= 2);
}
