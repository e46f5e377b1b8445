//! Each cleanup ends once: it runs, is stopped or is discarded, and its captures are dropped once.
use crate::common::*;
use sexton_cleanup::{Cleanup, CleanupState, Client};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

#[test]
fn every_cleanup_of_100_000_objects_runs_once() {
    let (pool, threads) = pool(2);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(100_000);
    let heads: Vec<_> = (0..100_000)
        .map(|at| {
            let capture = table.capture(at);
            add(&mut registrar, move || capture.ran()).0
        })
        .collect();
    assert_eq!(sweep(&client, heads), 100_000);
    client.ticket().wait(DEADLINE).unwrap();
    table.all_ran_once();
    let stats = client.stats();
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
                let client = Client::new(&pool);
                let mut registrar = client.registrar();
                let table = BatchTable::new(10_000);
                for round in 0..10 {
                    let heads: Vec<_> = (0..1000)
                        .map(|at| {
                            let capture = table.capture(round * 1000 + at);
                            add(&mut registrar, move || capture.ran()).0
                        })
                        .collect();
                    sweep(&client, heads);
                }
                client.ticket().wait(DEADLINE).unwrap();
                table.all_ran_once();
                assert_eq!(client.stats().executed, 10_000);
            });
        }
    });
    shut_down(&pool, &threads);
    assert_eq!((pool.stats().queued, pool.stats().executed), (100_000, 100_000));
}

/// Handles are used from other threads while the objects die and the workers run: exactly one of
/// them wins, and the accounts agree with that.
#[test]
fn stop_and_run_now_race_with_sweeper_and_workers() {
    const OBJECTS: usize = 2000;
    const ROUNDS: usize = 30;
    let (pool, threads) = pool(2);
    for round in 0..ROUNDS {
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let table = BatchTable::new(OBJECTS);
        let mut heads = Vec::new();
        let mut handles: Vec<Cleanup> = Vec::new();
        let mut chain = None;
        for at in 0..OBJECTS {
            let capture = table.capture(at);
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
            sweep(&client, heads);
        });
        client.ticket().wait(DEADLINE).unwrap();
        let runs = table.ended_once();
        let (stopped, ran) = (stopped.into_inner(), ran.into_inner());
        assert_eq!(runs + stopped, OBJECTS);
        let stats = client.stats();
        assert_eq!(stats.executed as usize, runs, "{stats:?}");
        assert_eq!(stats.stopped as usize, stopped, "{stats:?}");
        assert!(ran <= runs);
        assert_eq!((stats.backlog, stats.armed), (0, 0), "{stats:?}");
        assert_eq!(registrar.ended_early(), 0, "no object is alive");
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
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    // Few slots, many generations: a mix-up of slots would lose or repeat a run.
    const N: usize = 200_000;
    let table = BatchTable::new(N);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Cleanup>(64);
    let meddler = thread::spawn(move || receiver.iter().filter(Cleanup::stop).count());
    let mut batch = Vec::new();
    for at in 0..N {
        let capture = table.capture(at);
        let (head, handle) = add(&mut registrar, move || capture.ran());
        if at % 3 == 0 {
            sender.send(handle).unwrap();
        }
        batch.push(head);
        if batch.len() == 50 {
            sweep(&client, batch.drain(..));
        }
    }
    drop(sender);
    let stopped = meddler.join().unwrap();
    client.ticket().wait(DEADLINE).unwrap();
    assert_eq!(table.ended_once() + stopped, N);
    shut_down(&pool, &threads);
}

/// As above, with captures that need no destructor, and with handles that are used twice.
#[test]
fn stop_and_run_now_race_with_sweeper_and_workers_where_there_is_nothing_to_drop() {
    const OBJECTS: usize = 2000;
    const ROUNDS: usize = 30;
    static RUNS: [AtomicUsize; OBJECTS] = [const { AtomicUsize::new(0) }; OBJECTS];
    let (pool, threads) = pool(2);
    for round in 0..ROUNDS {
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        RUNS.iter().for_each(|runs| runs.store(0, Ordering::Relaxed));
        let mut heads = Vec::new();
        let mut handles: Vec<Cleanup> = Vec::new();
        let mut chain = None;
        for (at, runs) in RUNS.iter().enumerate() {
            let (head, handle) =
                registrar.register(chain.take(), move || _ = runs.fetch_add(1, Ordering::Relaxed));
            handles.push(handle);
            // Chains of one, two and three records.
            if at % 6 == 0 || at % 6 == 2 || at % 6 == 5 || at == OBJECTS - 1 {
                heads.push(head);
            } else {
                chain = Some(head);
            }
        }
        let stop = |handles: &mut dyn Iterator<Item = &Cleanup>| {
            handles.filter(|handle| handle.stop()).count()
        };
        let (stopped, ran) = thread::scope(|scope| {
            let stoppers = [
                scope.spawn(|| stop(&mut handles.iter().step_by(2))),
                scope.spawn(|| stop(&mut handles.iter().step_by(2).rev())),
            ];
            let runner = scope.spawn(|| {
                let handles = handles.iter().skip(round % 3).step_by(3);
                handles.filter(|handle| handle.run_now()).count()
            });
            sweep(&client, heads);
            // The slots that come back serve others while there are threads about that may have
            // stopped what was in them.
            let others: Vec<_> = (0..OBJECTS).map(|_| registrar.register(None, || {}).1).collect();
            let stopped: usize = stoppers.into_iter().map(|thread| thread.join().unwrap()).sum();
            let ran = runner.join().unwrap();
            assert!(others.iter().all(|other| other.state() == CleanupState::Armed));
            assert_eq!(stop(&mut others.iter()), OBJECTS);
            (stopped, ran)
        });
        client.ticket().wait(DEADLINE).unwrap();
        let runs =
            RUNS.iter().map(|runs| runs.load(Ordering::Relaxed)).inspect(|&n| assert!(n < 2));
        let runs: usize = runs.sum();
        assert_eq!(runs + stopped, OBJECTS);
        assert!(ran <= runs);
        let stats = client.stats();
        assert_eq!((stats.executed as usize, stats.stopped as usize), (runs, stopped + OBJECTS));
        assert_eq!((stats.backlog, stats.armed), (0, 0), "{stats:?}");
        for (handle, runs) in handles.iter().zip(&RUNS) {
            assert!(!handle.stop() && !handle.run_now());
            let ran = runs.load(Ordering::Relaxed) == 1;
            let expected = if ran { CleanupState::Done } else { CleanupState::Stopped };
            assert_eq!(handle.state(), expected);
        }
    }
    shut_down(&pool, &threads);
}

/// The slot of a stopped cleanup serves the next one of its object while the thread that stopped it
/// may still be counting.
#[test]
fn the_handle_of_a_slot_that_is_used_again_stops_nothing_else() {
    const ROUNDS: u64 = 20_000;
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (give, taken) = channel::<Arc<Cleanup>>();
    let stopper = thread::spawn(move || taken.iter().map(|handle| u64::from(handle.stop())).sum());
    let mut chain = None;
    let mut old: Option<Arc<Cleanup>> = None;
    let mut stopped = 0;
    for _ in 0..ROUNDS {
        let (head, handle) = registrar.register(chain, || {});
        let handle = Arc::new(handle);
        give.send(handle.clone()).unwrap();
        if let Some(old) = old.replace(handle.clone()) {
            assert_eq!(old.state(), CleanupState::Stopped);
            assert!(!old.stop() && !old.run_now());
        }
        stopped += u64::from(handle.stop());
        // By whichever of them.
        assert_eq!(handle.state(), CleanupState::Stopped);
        chain = Some(head);
    }
    drop(give);
    let by_other: u64 = stopper.join().unwrap();
    assert_eq!(stopped + by_other, ROUNDS);
    let stats = client.stats();
    assert_eq!((stats.registered, stats.stopped, stats.armed), (ROUNDS, ROUNDS, 0));
    registrar.discard(chain.unwrap());
    assert_eq!(registrar.ended_early(), 0);
}

/// Stops what it holds when its thread ends.
#[derive(Default)]
struct StopsAtTheEnd(RefCell<Vec<Cleanup>>);

impl Drop for StopsAtTheEnd {
    fn drop(&mut self) {
        assert!(self.0.take().iter().all(Cleanup::stop));
    }
}

thread_local! {
    static BEFORE: StopsAtTheEnd = StopsAtTheEnd::default();
    static AFTER: StopsAtTheEnd = StopsAtTheEnd::default();
}

/// Many threads at a time, short-lived ones among them, and some that stop cleanups while their
/// locals are destroyed. Every stop is counted, and where it belongs.
#[test]
fn each_stop_is_counted_whoever_stops() {
    const THREADS: usize = 48;
    const ROUNDS: usize = 3;
    const EACH: usize = 4000;
    let pool = manual();
    let heaps = [(); 2].map(|()| Client::new(&pool));
    let mut registrars = heaps.each_ref().map(Client::registrar);
    let all = Arc::new(Barrier::new(THREADS));
    for round in 1..=ROUNDS {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let mut handles = |n: usize| -> Vec<Cleanup> {
                    (0..n).map(|at| registrars[at % 2].register(None, || {}).1).collect()
                };
                let (own, before, after) = (handles(EACH), handles(EACH), handles(EACH));
                let all = all.clone();
                thread::spawn(move || {
                    BEFORE.with(|locals| locals.0.replace(before));
                    all.wait();
                    // Some end early, and others begin to stop when they have ended.
                    if number % 2 == 0 {
                        thread::yield_now();
                    }
                    assert!(own.iter().all(Cleanup::stop));
                    AFTER.with(|locals| locals.0.replace(after));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for heap in &heaps {
            let stats = heap.stats();
            let expected = (round * THREADS * EACH * 3 / 2) as u64;
            assert_eq!((stats.registered, stats.stopped, stats.armed), (expected, expected, 0));
        }
    }
}
