//! Each cleanup ends once: it runs, is stopped or is discarded, and its captures are dropped once.
use crate::common::*;
use sexton_cleanup::{Cleanup, CleanupState, Origin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[test]
fn every_cleanup_of_100_000_objects_runs_once() {
    let (pool, threads) = pool(2);
    let origin = Origin::new(&pool);
    let mut registrar = origin.registrar();
    let ledger = Ledger::new(100_000);
    let heads: Vec<_> = (0..100_000)
        .map(|at| {
            let capture = ledger.capture(at);
            add(&mut registrar, move || capture.ran()).0
        })
        .collect();
    assert_eq!(sweep(&origin, heads), 100_000);
    origin.ticket().wait(DEADLINE).unwrap();
    ledger.all_ran_once();
    let stats = origin.stats();
    assert_eq!((stats.registered, stats.queued, stats.executed), (100_000, 100_000, 100_000));
    assert_eq!((stats.backlog, stats.armed), (0, 0));
    shut_down(&pool, &threads);
    assert_eq!(pool.stats().executed, 100_000);
}

#[test]
fn ten_heaps_share_a_pool_and_each_gets_its_own_cleanups() {
    let (pool, threads) = pool(2);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let origin = Origin::new(&pool);
                let mut registrar = origin.registrar();
                let ledger = Ledger::new(10_000);
                for round in 0..10 {
                    let heads: Vec<_> = (0..1000)
                        .map(|at| {
                            let capture = ledger.capture(round * 1000 + at);
                            add(&mut registrar, move || capture.ran()).0
                        })
                        .collect();
                    sweep(&origin, heads);
                }
                origin.ticket().wait(DEADLINE).unwrap();
                ledger.all_ran_once();
                assert_eq!(origin.stats().executed, 10_000);
            });
        }
    });
    shut_down(&pool, &threads);
    assert_eq!((pool.stats().queued, pool.stats().executed), (100_000, 100_000));
}

/// Handles are used from other threads while the objects die and the workers run: exactly one of them wins,
/// and the accounts agree with who did.
#[test]
fn stop_and_run_now_race_with_sweeper_and_workers() {
    const OBJECTS: usize = 2000;
    const ROUNDS: usize = 30;
    let (pool, threads) = pool(2);
    for round in 0..ROUNDS {
        let origin = Origin::new(&pool);
        let mut registrar = origin.registrar();
        let ledger = Ledger::new(OBJECTS);
        let mut heads = Vec::new();
        let mut handles: Vec<Cleanup> = Vec::new();
        let mut chain = None;
        for at in 0..OBJECTS {
            let capture = ledger.capture(at);
            let (head, handle) = registrar.register(chain.take(), move || capture.ran());
            handles.push(handle);
            // Chains of one, two and three records.
            if at % 6 == 0 || at % 6 == 2 || at % 6 == 5 || at == OBJECTS - 1 {
                heads.push(head);
            } else {
                chain = Some(head);
            }
        }
        let (stopped, ran) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let handles = Arc::new(handles);
        thread::scope(|scope| {
            scope.spawn(|| {
                for handle in handles.iter().step_by(2) {
                    stopped.fetch_add(usize::from(handle.stop()), Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                for handle in handles.iter().skip(round % 3).step_by(3) {
                    ran.fetch_add(usize::from(handle.run_now()), Ordering::Relaxed);
                }
            });
            sweep(&origin, heads);
        });
        origin.ticket().wait(DEADLINE).unwrap();
        let runs = ledger.ended_once();
        let (stopped, ran) = (stopped.into_inner(), ran.into_inner());
        assert_eq!(runs + stopped, OBJECTS);
        let stats = origin.stats();
        assert_eq!(stats.executed as usize, runs, "{stats:?}");
        assert_eq!(stats.stopped as usize, stopped, "{stats:?}");
        assert!(ran <= runs);
        assert_eq!((stats.backlog, stats.armed), (0, 0), "{stats:?}");
        assert_eq!(registrar.settled(), 0, "no object is alive");
        for handle in handles.iter() {
            assert!(matches!(handle.state(), CleanupState::Done | CleanupState::Stopped));
        }
    }
    shut_down(&pool, &threads);
    let stats = pool.stats();
    assert_eq!((stats.backlog, stats.blocks, stats.running), (0, 0, 0), "{stats:?}");
}

#[test]
fn slots_are_used_again_under_races_and_no_two_cleanups_meet() {
    let (pool, threads) = pool(1);
    let origin = Origin::new(&pool);
    let mut registrar = origin.registrar();
    // Few slots, many generations: a mix-up of slots would lose or repeat a run.
    const N: usize = 200_000;
    let ledger = Ledger::new(N);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Cleanup>(64);
    let meddler = thread::spawn(move || receiver.iter().filter(Cleanup::stop).count());
    let mut batch = Vec::new();
    for at in 0..N {
        let capture = ledger.capture(at);
        let (head, handle) = add(&mut registrar, move || capture.ran());
        if at % 3 == 0 {
            sender.send(handle).unwrap();
        }
        batch.push(head);
        if batch.len() == 50 {
            sweep(&origin, batch.drain(..));
        }
    }
    drop(sender);
    let stopped = meddler.join().unwrap();
    origin.ticket().wait(DEADLINE).unwrap();
    assert_eq!(ledger.ended_once() + stopped, N);
    shut_down(&pool, &threads);
}
