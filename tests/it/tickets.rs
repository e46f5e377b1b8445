//! `wait_for_cleanups`: what it waits for, for how long, and what it counts.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sexton::{Cleanup, CleanupPool, CleanupState, OnDrop, Pacing, WaitError};

use crate::ledger::Ledger;
use crate::world::{
    Counter, Gate, LONG, Node, World, WorldHeap, builder, calm_heap_on, heap_on, queue, until,
};

fn pool(workers: usize) -> CleanupPool {
    CleanupPool::builder().max_workers(workers).build()
}

/// A heap of which the ledger's thousand cleanups are queued behind some that keep all workers at
/// the gate.
fn beside_stuck_workers(
    pool: &CleanupPool,
    workers: usize,
    gate: &Gate,
    ledger: &Ledger,
) -> WorldHeap {
    let mut heap = heap_on(pool);
    for _ in 0..workers {
        queue(&mut heap, [gate.cleanup()]);
    }
    gate.wait_for(workers);
    queue(&mut heap, (0..1000).map(|at| ledger.cleanup(at)));
    heap
}

/// What a wait of this time finds pending; 0 if it was in time.
#[track_caller]
fn pending(heap: &WorldHeap, timeout: Duration) -> u64 {
    match heap.wait_for_cleanups(timeout) {
        Ok(()) => 0,
        Err(WaitError::Timeout { pending, .. }) => {
            assert!(pending > 0, "a timeout over nothing");
            pending
        }
        other => panic!("{other:?}"),
    }
}

// ---- what is waited for
// --------------------------------------------------------------------------------

#[test]
fn what_was_queued_has_ended_when_it_returns_and_its_memory_is_seen() {
    for workers in [1, 3] {
        let (pool, objects) = (pool(workers), 2000);
        let mut heap = heap_on(&pool);
        for _ in 0..20 {
            let ledger = Ledger::new(objects);
            queue(&mut heap, (0..objects).map(|at| ledger.cleanup(at)));
            heap.wait_for_cleanups(LONG).unwrap();
            ledger.assert_all_ran();
            assert_eq!(heap.stats().cleanups.backlog, 0);
        }
    }
}

#[test]
fn armed_cleanups_are_not_waited_for() {
    for workers in [0, 1, 3] {
        let pool = pool(workers);
        let mut heap = calm_heap_on(&pool);
        heap.mutate(|mc, world| {
            let node = mc.alloc(Node::new(0));
            world.head.set(mc, Some(node));
            mc.add_cleanup(node, || {});
        });
        heap.collect();
        heap.wait_for_cleanups(Duration::MAX).unwrap();
        assert_eq!(heap.stats().cleanups.armed, 1);
        // Nor is one whose object has died, before a collection has found that out.
        heap.mutate(|mc, world| world.head.set(mc, None));
        heap.wait_for_cleanups(Duration::MAX).unwrap();
        assert_eq!(heap.stats().cleanups.armed, 1);
        heap.collect();
        assert_eq!(heap.stats().cleanups.armed, 0);
        if workers == 0 {
            assert_eq!((pending(&heap, Duration::ZERO), pool.run_pending(9)), (1, 1));
        }
        heap.wait_for_cleanups(LONG).unwrap();
        assert_eq!(heap.stats().cleanups.executed, 1);
    }
}

#[test]
fn several_collections_are_waited_for_at_once() {
    for workers in [0, 1, 3] {
        let (pool, ledger) = (pool(workers), Ledger::new(3000));
        let mut heap = heap_on(&pool);
        for round in 0..300 {
            queue(&mut heap, (round * 10..round * 10 + 10).map(|at| ledger.cleanup(at)));
        }
        if workers == 0 {
            assert_eq!(pending(&heap, Duration::ZERO), 3000);
            assert_eq!(pool.run_pending(2999), 2999);
            assert_eq!(pending(&heap, Duration::ZERO), 1);
            assert_eq!(pool.run_pending(usize::MAX), 1);
        }
        heap.wait_for_cleanups(LONG).unwrap();
        ledger.assert_all_ran();
    }
}

/// Each begins the next one, in a heap of its own on the same pool, until it is told to stop.
fn rearm(pool: &CleanupPool, stop: &Arc<AtomicBool>, times: &Counter) {
    times.raise();
    if stop.load(SeqCst) {
        return;
    }
    let mut heap = heap_on(pool);
    let (pool, stop, times) = (pool.clone(), stop.clone(), times.clone());
    queue(&mut heap, [move || rearm(&pool, &stop, &times)]);
}

#[test]
fn cleanups_that_rearm_themselves_for_ever_do_not_prolong_a_wait() {
    for workers in [1, 3] {
        let (pool, stop, times) =
            (pool(workers), Arc::new(AtomicBool::new(false)), Counter::default());
        let mut heap = heap_on(&pool);
        for round in 0..200 {
            // They begin among what is waited for, more of them each time.
            let ledger = Ledger::new(50);
            queue(
                &mut heap,
                (0..50).map(|at| {
                    let (pool, stop, times) = (pool.clone(), stop.clone(), times.clone());
                    let entry = ledger.entry(at);
                    move || {
                        entry.ran();
                        if at == 25 && round % 10 == 0 {
                            rearm(&pool, &stop, &times);
                        }
                    }
                }),
            );
            heap.wait_for_cleanups(LONG).unwrap();
            ledger.assert_all_ran();
        }
        let before = times.get();
        until("they go on", || times.get() > before + 20);
        stop.store(true, SeqCst);
        until("they have stopped", || pool.stats().backlog == 0);
        assert_eq!(times.sharers(), 0);
    }
}

#[test]
fn stalls_of_other_heaps_do_not_prolong_a_wait() {
    for workers in [2, 3] {
        let (pool, gate) = (pool(workers), Gate::default());
        let mut others: Vec<_> = (1..workers).map(|_| heap_on(&pool)).collect();
        for other in &mut others {
            queue(other, [gate.cleanup()]);
        }
        gate.wait_for(workers - 1);
        let mut heap = heap_on(&pool);
        let ledger = Ledger::new(1000);
        queue(&mut heap, (0..1000).map(|at| ledger.cleanup(at)));
        heap.wait_for_cleanups(LONG).unwrap();
        ledger.assert_all_ran();
        assert!(others.iter().all(|other| pending(other, Duration::ZERO) == 1));
        gate.open();
        assert!(others.iter().all(|other| pending(other, LONG) == 0));
    }
}

// ---- for how long
// --------------------------------------------------------------------------------------

#[test]
fn a_timeout_comes_at_its_time_and_neither_before_nor_much_later() {
    for workers in [1, 3] {
        let (pool, gate) = (pool(workers), Gate::default());
        let mut heap = heap_on(&pool);
        queue(&mut heap, [gate.cleanup()]);
        for timeout in [0, 1, 20, 100].map(Duration::from_millis) {
            let start = Instant::now();
            assert_eq!(pending(&heap, timeout), 1);
            let took = start.elapsed();
            assert!(took >= timeout && took < timeout + LONG / 2, "{took:?} for {timeout:?}");
        }
        gate.open();
        // A wait for ever ends with what it waits for.
        heap.wait_for_cleanups(Duration::MAX).unwrap();
    }
}

#[test]
fn in_a_manual_pool_a_wait_runs_nothing_and_ends_at_its_time() {
    let pool = pool(0);
    let (mut heap, ledger) = (heap_on(&pool), Ledger::new(300));
    queue(&mut heap, (0..300).map(|at| ledger.cleanup(at)));
    assert_eq!(pending(&heap, Duration::from_millis(5)), 300);
    assert_eq!(ledger.ended(), 0);
    // Unless another thread runs them.
    thread::scope(|scope| {
        scope.spawn(|| until("they have run", || pool.run_pending(7) == 0));
        heap.wait_for_cleanups(LONG).unwrap();
    });
    ledger.assert_all_ran();
}

#[test]
fn a_wait_ends_when_a_shutdown_discards_what_it_waits_for() {
    for workers in [1, 3] {
        let (pool, gate, ledger) = (pool(workers), Gate::default(), Ledger::new(1000));
        let (pool, gate, ledger) = (&pool, &gate, &ledger);
        thread::scope(|scope| {
            scope.spawn(move || {
                let heap = beside_stuck_workers(pool, workers, gate, ledger);
                heap.wait_for_cleanups(LONG).unwrap();
                ledger.assert_none_ran();
                assert_eq!(heap.stats().cleanups.discarded, 1000);
            });
            gate.wait_for(workers);
            until("they are queued", || pool.stats().backlog as usize == 1000 + workers);
            let timeout = pool.shutdown(Duration::from_millis(1)).unwrap_err();
            assert_eq!((timeout.workers, timeout.discarded), (workers, 1000));
            gate.open();
        });
        pool.shutdown(LONG).unwrap();
    }
}

// ---- what is counted
// -----------------------------------------------------------------------------------

/// What has become of each cleanup says how many are pending.
#[track_caller]
fn truth(handles: &[Cleanup]) -> u64 {
    let is_pending =
        |handle: &&Cleanup| matches!(handle.state(), CleanupState::Queued | CleanupState::Running);
    handles.iter().filter(is_pending).count() as u64
}

#[test]
fn a_timeout_counts_what_is_pending_while_some_are_stopped_run_early_and_panic() {
    for workers in [0, 1] {
        let (pool, gate) = (pool(workers), Gate::default());
        let (mut heap, mut other) = (heap_on(&pool), heap_on(&pool));
        if workers > 0 {
            queue(&mut other, [gate.cleanup()]);
            gate.wait_for(1);
        }
        let ledger = Ledger::new(1000);
        let handles = queue(
            &mut heap,
            (0..1000).map(|at| {
                let entry = ledger.entry(at);
                move || {
                    entry.ran();
                    if at % 5 == 0 {
                        resume_unwind(Box::new("on purpose"));
                    }
                }
            }),
        );
        let mut left = 1000;
        for (at, handle) in handles.iter().enumerate() {
            let ended = match at % 7 {
                0 | 1 => handle.stop(),
                2 | 3 => handle.run_now(),
                4 => pool.run_pending(usize::from(workers == 0)) == 1,
                _ => false,
            };
            left -= u64::from(ended);
            // What the others hold up does not count, and what was stopped or has panicked is at
            // its end.
            assert_eq!(pending(&heap, Duration::ZERO), left, "after cleanup {at}");
        }
        assert_eq!(truth(&handles), left);
        let stats = heap.stats().cleanups;
        assert_eq!(stats.executed + stats.stopped, 1000 - left);
        assert!(stats.panicked > 50, "{stats:?}");
        gate.open();
        pool.run_pending(usize::MAX);
        heap.wait_for_cleanups(LONG).unwrap();
        assert_eq!(ledger.balance(1000) as u64, heap.stats().cleanups.executed);
    }
}

#[test]
fn a_timeout_never_counts_too_few_nor_more_than_are_at_their_end_just_now() {
    for workers in [1, 3] {
        for round in 0..20 {
            let (pool, ledger) = (pool(workers), Ledger::new(5000));
            let mut heap = heap_on(&pool);
            let handles = queue(
                &mut heap,
                (0..5000).map(|at| {
                    let entry = ledger.entry(at);
                    move || {
                        entry.ran();
                        if at % 100 == round {
                            resume_unwind(Box::new("on purpose"));
                        }
                    }
                }),
            );
            let unfinished = || 5000 - ledger.ended() as u64;
            thread::scope(|scope| {
                // Two threads that stop, or run early, what they can.
                for part in [0, 1] {
                    let handles = &handles;
                    scope.spawn(move || {
                        for (at, handle) in handles.iter().enumerate().rev() {
                            match (at + part) % 6 {
                                0 => handle.stop(),
                                1 => handle.run_now(),
                                _ => continue,
                            };
                        }
                    });
                }
                loop {
                    let before = unfinished();
                    let pending = pending(&heap, Duration::ZERO);
                    let after = unfinished();
                    assert!(pending >= after, "{pending} pending, {after} unfinished");
                    // Each thread may have dropped the captures of one, and not counted it.
                    let most = before + workers as u64 + 2;
                    assert!(pending <= most, "{pending} pending, {before} unfinished before");
                    if pending == 0 {
                        break;
                    }
                }
            });
            let stats = heap.stats().cleanups;
            assert_eq!(ledger.balance(5000) as u64, stats.executed);
            assert_eq!(stats.executed + stats.stopped, 5000);
        }
    }
}

#[test]
fn over_stalled_cleanups_exactly_they_are_pending_after_the_take_over() {
    for (workers, stalls) in [(2, vec![0]), (2, vec![77]), (3, vec![3, 4]), (3, vec![10, 400])] {
        let pool = CleanupPool::builder()
            .max_workers(workers)
            .stall_after(Duration::from_millis(2))
            .build();
        let (mut heap, gate, ledger) = (heap_on(&pool), Gate::default(), Ledger::new(500));
        let handles = queue(
            &mut heap,
            (0..500).map(|at| {
                let (entry, gate) = (ledger.entry(at), stalls.contains(&at).then(|| gate.clone()));
                move || {
                    if let Some(gate) = gate {
                        gate.pass();
                    }
                    entry.ran();
                }
            }),
        );
        let stalled = stalls.len() as u64;
        until("the others have ended", || {
            let pending = pending(&heap, Duration::from_millis(1));
            assert!(pending >= stalled, "{pending} pending, {stalled} stalled");
            pending == stalled
        });
        assert_eq!((ledger.ended() as u64, truth(&handles)), (500 - stalled, stalled));
        assert!(pool.stats().requeued > 0);
        for &at in &stalls {
            assert_eq!(handles[at].state(), CleanupState::Running, "{stalls:?}");
        }
        gate.open();
        heap.wait_for_cleanups(LONG).unwrap();
        ledger.assert_all_ran();
    }
}

/// A bound of one: no worker takes over, and a wait says what waits behind the stall.
#[test]
fn with_one_worker_all_behind_a_stall_are_pending() {
    let (pool, gate) = (pool(1), Gate::default());
    let (mut heap, ledger) = (heap_on(&pool), Ledger::new(500));
    let handles = queue(
        &mut heap,
        (0..500).map(|at| {
            let (entry, gate) = (ledger.entry(at), (at == 100).then(|| gate.clone()));
            move || {
                if let Some(gate) = gate {
                    gate.pass();
                }
                entry.ran();
            }
        }),
    );
    gate.wait_for(1);
    let left = truth(&handles);
    assert!((1..=500).contains(&left));
    assert_eq!(pending(&heap, Duration::from_millis(50)), left);
    assert_eq!(ledger.ended() as u64, 500 - left);
    gate.open();
    heap.wait_for_cleanups(LONG).unwrap();
    ledger.assert_all_ran();
}

// ---- who runs what is waited for
// -----------------------------------------------------------------------

/// There is no other thread: the bound was lowered to nothing while the wait went on.
#[test]
fn a_wait_outlives_its_pools_workers() {
    for workers in [1, 3] {
        let (pool, gate, ledger) = (pool(workers), Gate::default(), Ledger::new(1000));
        let (pool, gate, ledger) = (&pool, &gate, &ledger);
        thread::scope(|scope| {
            scope.spawn(move || {
                let heap = beside_stuck_workers(pool, workers, gate, ledger);
                heap.wait_for_cleanups(LONG / 4).unwrap();
                ledger.assert_all_ran();
            });
            gate.wait_for(workers);
            until("they are queued", || pool.stats().backlog as usize == 1000 + workers);
            // The wait is about to begin, or has begun.
            thread::sleep(Duration::from_millis(20));
            pool.set_max_workers(0);
            gate.open();
        });
    }
}

/// There is no worker: the pool is paused, and another thread puts the rest of a block back that it
/// has begun.
#[test]
fn a_wait_takes_up_what_a_helping_thread_puts_back() {
    let pool = CleanupPool::builder().max_workers(1).stall_after(LONG).build();
    pool.set_max_workers(0);
    let (gate, ledger) = (Gate::default(), Ledger::new(100));
    let (pool, gate, ledger) = (&pool, &gate, &ledger);
    let (begun, wait) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut heap = heap_on(pool);
            // One block; whichever is first waits.
            queue(
                &mut heap,
                (0..100).map(|at| {
                    let (entry, gate) = (ledger.entry(at), gate.clone());
                    move || {
                        gate.pass();
                        entry.ran();
                    }
                }),
            );
            begun.send(()).unwrap();
            gate.wait_for(1);
            heap.wait_for_cleanups(LONG / 4).unwrap();
            ledger.assert_all_ran();
        });
        scope.spawn(move || {
            wait.recv_timeout(LONG).unwrap();
            assert_eq!(pool.run_pending(1), 1);
        });
        gate.wait_for(1);
        // The wait is about to begin, or has begun.
        thread::sleep(Duration::from_millis(20));
        gate.open();
    });
}

#[test]
fn dropping_a_heap_waits_as_a_wait_does() {
    for workers in [1, 3] {
        let (pool, gate, ledger) = (pool(workers), Gate::default(), Ledger::new(500));
        let mut heap = builder()
            .cleanup_pool(&pool)
            .pacing(Pacing::Manual)
            .on_drop(OnDrop::RunAll)
            .drop_timeout(Duration::from_millis(30))
            .build(|_| World::default());
        for _ in 0..workers {
            queue(&mut heap, [gate.cleanup()]);
        }
        gate.wait_for(workers);
        queue(&mut heap, (0..500).map(|at| ledger.cleanup(at)));
        let start = Instant::now();
        drop(heap);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(30) && took < Duration::from_secs(4), "{took:?}");
        assert_eq!(ledger.ended(), 0);
        gate.open();
        // The rest is late, and not lost.
        until("it has run", || pool.stats().backlog == 0);
        ledger.assert_all_ran();
    }
}
