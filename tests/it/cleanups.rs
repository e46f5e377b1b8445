//! Cleanups, from registration to their run, through the facade.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use sexton::{CleanupPool, CleanupState, Heap, Pacing, WaitError};
use sexton_tests::settings::rounds;

use crate::ledger::Ledger;
use crate::world::{Counter, LONG, Node, World, WorldHeap, builder, manual_heap};

fn heap_in(pool: &CleanupPool) -> WorldHeap {
    builder().cleanup_pool(pool).pacing(Pacing::Manual).build(|_| World::default())
}

#[test]
fn a_hundred_thousand_cleanups_run_exactly_once_round_after_round() {
    let objects = 100_000;
    let pool = CleanupPool::builder().max_workers(2).build();
    for _ in 0..rounds() {
        let ledger = Ledger::new(objects);
        let mut heap = heap_in(&pool);
        heap.mutate(|mc, _| {
            for line in 0..objects {
                mc.add_cleanup(mc.alloc(Node::new(line as u64)), ledger.cleanup(line));
            }
        });
        heap.collect();
        assert_eq!(heap.stats().cleanups.queued as usize, objects);
        heap.wait_for_cleanups(LONG).unwrap();
        ledger.assert_all_ran();
    }
}

#[test]
fn ten_heaps_on_ten_threads_share_one_pool_and_lose_nothing() {
    let objects = 10_000;
    let pool = CleanupPool::builder().max_workers(2).build();
    for _ in 0..rounds() {
        let ledger = Ledger::new(10 * objects);
        std::thread::scope(|scope| {
            for number in 0..10 {
                let (pool, ledger) = (&pool, &ledger);
                scope.spawn(move || {
                    let mut heap = heap_in(pool);
                    heap.mutate(|mc, _| {
                        for object in 0..objects {
                            let node = mc.alloc(Node::new(object as u64));
                            mc.add_cleanup(node, ledger.cleanup(number * objects + object));
                        }
                    });
                    heap.collect();
                    heap.wait_for_cleanups(LONG).unwrap();
                    assert_eq!(heap.stats().cleanups.executed as usize, objects);
                });
            }
        });
        ledger.assert_all_ran();
    }
    assert_eq!(pool.stats().backlog, 0);
}

#[test]
fn a_cleanup_runs_only_after_its_object_has_died() {
    let pool = CleanupPool::manual();
    let mut heap = heap_in(&pool);
    let counter = Counter::default();
    let handle = heap.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        world.head.set(mc, Some(node));
        mc.add_cleanup(node, counter.cleanup())
    });
    for _ in 0..3 {
        heap.collect();
        assert_eq!((pool.run_pending(usize::MAX), handle.state()), (0, CleanupState::Armed));
    }
    heap.mutate(|mc, world| world.head.set(mc, None));
    heap.collect();
    assert_eq!(heap.stats().cleanups.queued, 1);
    assert_eq!((counter.get(), handle.state()), (0, CleanupState::Queued));
    assert_eq!(pool.run_pending(usize::MAX), 1);
    assert_eq!((counter.get(), handle.state()), (1, CleanupState::Done));
    assert_eq!(pool.run_pending(usize::MAX), 0);
}

#[test]
fn an_object_may_have_many_cleanups() {
    let pool = CleanupPool::manual();
    let mut heap = heap_in(&pool);
    let counter = Counter::default();
    let handles: Vec<_> = heap.mutate(|mc, _| {
        let node = mc.alloc(Node::new(1));
        (0..100).map(|_| mc.add_cleanup(node, counter.cleanup())).collect()
    });
    assert!(handles.iter().step_by(2).all(|handle| handle.stop()));
    heap.verify().unwrap();
    heap.collect();
    pool.run_pending(usize::MAX);
    assert_eq!(counter.get(), 50);
    for (at, handle) in handles.iter().enumerate() {
        let expected = if at % 2 == 0 { CleanupState::Stopped } else { CleanupState::Done };
        assert_eq!(handle.state(), expected, "cleanup {at}");
        assert!(!handle.stop() && !handle.run_now());
    }
}

#[test]
fn cleanups_keep_to_their_objects_in_any_order_of_registration() {
    let pool = CleanupPool::manual();
    let mut heap = heap_in(&pool);
    let objects = 10_000;
    let ran: Arc<[AtomicU8]> = (0..objects).map(|_| AtomicU8::new(0)).collect();
    heap.mutate(|mc, world| {
        let nodes: Vec<_> = (0..objects).map(|id| mc.alloc(Node::new(id as u64))).collect();
        for step in 0..objects {
            let at = (step * 7919) % objects;
            let ran = ran.clone();
            mc.add_cleanup_with(nodes[at], (at, ran), |(at, ran)| {
                ran[at].fetch_add(1, SeqCst);
            });
        }
        *world.nodes.borrow_mut(mc) = nodes;
    });
    heap.verify().unwrap();
    for divisor in [2, 3, 5, 1] {
        heap.mutate(|mc, world| {
            world.nodes.borrow_mut(mc).retain(|node| node.id % divisor != 0);
        });
        heap.collect();
        heap.verify().unwrap();
        pool.run_pending(usize::MAX);
        let alive = heap.mutate(|_, world| {
            world.nodes.borrow().iter().map(|node| node.id as usize).collect::<Vec<_>>()
        });
        let mut expected = vec![1; objects];
        alive.into_iter().for_each(|at| expected[at] = 0);
        let found: Vec<u8> = ran.iter().map(|runs| runs.load(SeqCst)).collect();
        assert!(found == expected, "after dropping the multiples of {divisor}");
    }
}

#[test]
fn stop_and_run_now_work_until_the_moment_it_runs() {
    let pool = CleanupPool::manual();
    let mut heap = heap_in(&pool);
    let counter = Counter::default();
    let handles: Vec<_> = heap.mutate(|mc, _| {
        (0..4).map(|id| mc.add_cleanup(mc.alloc(Node::new(id)), counter.cleanup())).collect()
    });
    // Two while armed, two once queued.
    assert!(handles[0].stop() && handles[1].run_now());
    assert_eq!(counter.get(), 1);
    heap.collect();
    assert_eq!(heap.stats().cleanups.backlog, 2);
    assert!(handles[2].stop() && handles[3].run_now());
    assert_eq!(counter.get(), 2);
    assert_eq!(heap.stats().cleanups.backlog, 0);
    assert_eq!(pool.run_pending(usize::MAX), 0);
    assert!(handles.iter().all(|handle| !handle.stop() && !handle.run_now()));
    assert_eq!(counter.get(), 2);
    heap.wait_for_cleanups(Duration::ZERO).unwrap();
}

#[test]
fn adding_and_stopping_without_end_keeps_memory_bounded() {
    let mut heap = manual_heap();
    let counter = Counter::default();
    heap.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        world.head.set(mc, Some(node));
        // One stays armed, and every other is stopped after its successor was added.
        mc.add_cleanup(node, counter.cleanup());
    });
    for _ in 0..20 {
        heap.mutate(|mc, world| {
            let node = world.head.get().unwrap();
            let mut last = mc.add_cleanup(node, counter.cleanup());
            for _ in 0..5000 {
                let next = mc.add_cleanup(node, counter.cleanup());
                assert!(last.stop());
                last = next;
            }
            assert!(last.stop());
        });
        heap.collect();
        heap.verify().unwrap();
    }
    heap.mutate(|mc, world| world.head.set(mc, None));
    heap.collect();
    assert_eq!(heap.stats().cleanups.queued, 1, "what was stopped is not queued");
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(counter.get(), 1);
}

#[test]
fn handles_outlive_heap_and_pool() {
    let pool = CleanupPool::manual();
    let mut heap = heap_in(&pool);
    let counter = Counter::default();
    let (ran, dropped) = heap.mutate(|mc, _| {
        let node = mc.alloc(Node::new(1));
        let ran = mc.add_cleanup(node, counter.cleanup());
        let kept = mc.alloc(Node::new(2));
        (ran, mc.add_cleanup(kept, counter.cleanup()))
    });
    heap.collect();
    pool.run_pending(1);
    drop((heap, pool));
    let states = [ran.state(), dropped.state()];
    assert_eq!(counter.get(), 1);
    assert!(states.contains(&CleanupState::Done), "{states:?}");
    assert!(states.contains(&CleanupState::Stopped), "{states:?}");
    assert!(!ran.stop() && !dropped.run_now());
    // New tenants of the same memory do not confuse old handles.
    let mut heap = manual_heap();
    heap.mutate(|mc, world| {
        for id in 0..100 {
            let node = mc.alloc(Node::new(id));
            world.nodes.borrow_mut(mc).push(node);
            mc.add_cleanup(node, counter.cleanup());
        }
    });
    assert!(!ran.stop() && !ran.run_now() && !dropped.stop() && !dropped.run_now());
    drop(heap);
    assert_eq!(counter.get(), 101);
}

#[test]
fn captures_of_any_size_are_dropped_once_whatever_happens() {
    struct Probe(Counter);
    impl Drop for Probe {
        fn drop(&mut self) {
            self.0.raise();
        }
    }
    let dropped = Counter::default();
    let pool = CleanupPool::manual();
    let mut heap = heap_in(&pool);
    let handles: Vec<_> = heap.mutate(|mc, _| {
        (0..40)
            .map(|id| {
                let probe = Probe(dropped.clone());
                let node = mc.alloc(Node::new(id));
                if id % 2 == 0 {
                    mc.add_cleanup(node, move || drop(probe))
                } else {
                    let ballast = [id; 20];
                    mc.add_cleanup(node, move || assert_eq!((ballast[19], drop(probe)), (id, ())))
                }
            })
            .collect()
    });
    assert!(handles[..10].iter().all(|handle| handle.stop()));
    assert_eq!(dropped.get(), 10);
    assert!(handles[10..20].iter().all(|handle| handle.run_now()));
    assert_eq!(dropped.get(), 20);
    heap.collect();
    assert_eq!(pool.run_pending(10), 10);
    assert_eq!(dropped.get(), 30);
    drop(heap);
    drop(pool);
    assert_eq!(dropped.get(), 40);
}

#[test]
fn a_panicking_cleanup_is_counted_and_told_and_all_others_run() {
    let (send, told) = mpsc::channel();
    let send = std::sync::Mutex::new(send);
    let pool = CleanupPool::builder()
        .max_workers(1)
        .on_panic(move |panic| send.lock().unwrap().send(panic.message.to_owned()).unwrap())
        .build();
    let mut heap = heap_in(&pool);
    let counter = Counter::default();
    heap.mutate(|mc, _| {
        for id in 0..1000 {
            let counter = counter.clone();
            mc.add_cleanup(mc.alloc(Node::new(id)), move || {
                if id % 100 == 7 {
                    std::panic::resume_unwind(Box::new(format!("cleanup {id}")));
                }
                counter.raise();
            });
        }
    });
    heap.collect();
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(counter.get(), 990);
    assert_eq!(heap.stats().cleanups.panicked, 10);
    assert_eq!(heap.stats().cleanups.executed, 1000);
    assert_eq!(pool.stats().panicked, 10);
    let mut messages: Vec<String> = told.try_iter().collect();
    messages.sort();
    let mut expected: Vec<String> = (0..10).map(|n| format!("cleanup {}", n * 100 + 7)).collect();
    expected.sort();
    assert_eq!(messages, expected);
}

#[test]
fn a_timeout_tells_how_many_are_pending() {
    let pool = CleanupPool::manual();
    let mut heap = heap_in(&pool);
    heap.mutate(|mc, _| {
        for id in 0..300 {
            mc.add_cleanup(mc.alloc(Node::new(id)), || {});
        }
    });
    heap.collect();
    pool.run_pending(123);
    match heap.wait_for_cleanups(Duration::from_millis(1)) {
        Err(WaitError::Timeout { pending, .. }) => assert_eq!(pending, 177),
        other => panic!("{other:?}"),
    }
    pool.run_pending(usize::MAX);
    heap.wait_for_cleanups(Duration::ZERO).unwrap();
}

#[test]
fn waiting_within_a_cleanup_is_an_error_and_not_a_hang() {
    let (send, receive) = mpsc::channel();
    let mut heap = manual_heap();
    heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            let inner = manual_heap();
            send.send(inner.wait_for_cleanups(LONG)).unwrap();
        });
    });
    heap.collect();
    let waited = receive.recv_timeout(LONG).expect("the cleanup runs");
    assert!(matches!(waited, Err(WaitError::FromCleanup)), "{waited:?}");
    heap.wait_for_cleanups(LONG).unwrap();
}

#[test]
fn captures_dropped_by_stop_count_as_within_a_cleanup() {
    struct Waits(mpsc::Sender<Result<(), WaitError>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.send(manual_heap().wait_for_cleanups(LONG)).unwrap();
        }
    }
    let (send, waited) = mpsc::channel();
    let mut heap = manual_heap();
    let waits = Waits(send);
    let handle = heap.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        world.head.set(mc, Some(node));
        mc.add_cleanup(node, move || drop(waits))
    });
    assert!(handle.stop());
    assert!(matches!(waited.try_recv(), Ok(Err(WaitError::FromCleanup))));
}

#[test]
fn a_cleanup_may_use_a_heap_of_its_own() {
    let counter = Counter::default();
    let mut heap = manual_heap();
    heap.mutate(|mc, _| {
        let counter = counter.clone();
        mc.add_cleanup(mc.alloc(Node::new(1)), move || {
            let mut inner = manual_heap();
            inner.mutate(|mc, _| {
                mc.add_cleanup(mc.alloc(Node::new(2)), counter.cleanup());
            });
            inner.collect();
        });
    });
    heap.collect();
    heap.wait_for_cleanups(LONG).unwrap();
    // The inner heap's cleanup runs on the same pool, after the outer one: wait for it by state.
    let deadline = std::time::Instant::now() + LONG;
    while counter.get() == 0 {
        assert!(std::time::Instant::now() < deadline, "the inner cleanup never ran");
        std::thread::yield_now();
    }
}

#[test]
fn cleanups_registered_while_others_run_are_not_lost() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let counter = Counter::default();
    let mut heap: Heap<World<'static>> = heap_in(&pool);
    for _ in 0..2000 {
        heap.mutate(|mc, _| {
            mc.add_cleanup(mc.alloc(Node::new(1)), counter.cleanup());
        });
        heap.collect();
    }
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(counter.get(), 2000);
}
