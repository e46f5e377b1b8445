//! Requeueing: a runner and the runner of its tail come to the same records, and the monitor misses
//! no block.

use super::models::{explore, sweep_one, take_tails};
use crate::account::counters::Runner;
use crate::{Cleanup, Client, Hooks, Pool, PoolConfig, Registrar};
use sexton_sync::{Arc, Condvar, Mutex};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// How often each of two cleanups ran. Not loom's: counting adds no branches.
type Runs = Arc<[AtomicU32; 2]>;

/// One block of two cleanups in the list of a manual pool. No slot is left that was never used, so
/// the registrar's next cleanup gets the first slot that is free again, if one is.
fn two_queued(pool: &Arc<Pool>) -> (Client, Registrar, Runs, Vec<Cleanup>) {
    let client = Client::new(pool);
    let mut registrar = client.registrar();
    let runs: Runs = Arc::default();
    let mut handles = Vec::new();
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    for at in 0..2 {
        let runs = runs.clone();
        let (head, handle) = registrar.register(None, move || {
            runs[at].fetch_add(1, Ordering::Relaxed);
        });
        local.push(head);
        handles.push(handle);
    }
    let (unused, _) = registrar.register(None, || {});
    registrar.discard(unused);
    let (kept, _) = registrar.register(None, || {});
    std::hint::black_box(kept);
    cycle.flush([local]);
    (client, registrar, runs, handles)
}

/// One thread runs the block, or a part of it. Another requeues its tail at any moment and runs it.
/// Then it registers a cleanup of an object that lives, which may get a slot that came back.
pub(super) fn requeue_tail(at_most: usize) {
    let pool = Pool::new(PoolConfig::default(), None);
    let (client, mut registrar, runs, handles) = two_queued(&pool);
    let other = pool.clone();
    let owner = loom::thread::spawn(move || other.run_pending(at_most));
    take_tails(&pool);
    let mut ran = pool.run_pending(2);
    let (_, alive) = registrar.register(None, || panic!("its object lives"));
    ran += owner.join().expect("the owner");
    // Both are through. Whatever slots they have given back hold cleanups of objects that live now,
    // so an entry that is left in some block leads to one.
    let rearmed: [_; 4] =
        std::array::from_fn(|_| registrar.register(None, || panic!("its object lives")).1);
    ran += pool.run_pending(2);
    let is_armed = |handle: &Cleanup| handle.state() == crate::CleanupState::Armed;
    assert!(rearmed.iter().all(is_armed), "its object lives");
    assert_eq!([0, 1].map(|at| runs[at].load(Ordering::Relaxed)), [1, 1], "each once");
    assert_eq!(alive.state(), crate::CleanupState::Armed, "its object lives");
    assert_eq!(ran, 2);
    assert_eq!((client.stats().backlog, client.stats().executed), (0, 2));
    assert!(client.ticket().is_done());
    drop(handles);
}

#[test]
fn each_entry_of_a_tail_that_was_requeued_runs_once() {
    explore(|| requeue_tail(2));
}

/// Its runner stops in the middle: the remainder is a rest, or it is in the copy by then.
#[test]
fn each_entry_of_a_rest_whose_tail_was_requeued_runs_once() {
    explore(|| requeue_tail(1));
}

/// A handle stops the second cleanup meanwhile: exactly one of the three gets it, and its slot
/// comes back once.
#[test]
fn stop_against_both_sharers_of_a_tail() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let (client, mut registrar, runs, mut handles) = two_queued(&pool);
        let (other, handle) = (pool.clone(), handles.pop().expect("two"));
        let owner = loom::thread::spawn(move || other.run_pending(2));
        let stopper = loom::thread::spawn(move || handle.stop());
        take_tails(&pool);
        pool.run_pending(2);
        owner.join().expect("the owner");
        let stopped = stopper.join().expect("the stopper");
        pool.run_pending(2);
        let runs = [0, 1].map(|at| runs[at].load(Ordering::Relaxed));
        assert_eq!(runs, [1, u32::from(!stopped)]);
        let stats = client.stats();
        assert_eq!((stats.backlog, stats.stopped), (0, u64::from(stopped)));
        assert!(client.ticket().is_done());
        // Each slot came back once: the next records are four different ones.
        let heads: Vec<_> = (0..4).map(|_| registrar.register(None, || {}).0.raw()).collect();
        let different: std::collections::BTreeSet<_> = heads.iter().collect();
        assert_eq!(different.len(), 4);
    });
}

/// A runner takes a block up while the monitor falls dormant: the monitor sees it, or is called.
pub(super) fn fall_dormant() {
    let pool = Pool::new(PoolConfig::default(), None);
    let _parts = two_queued(&pool);
    let in_flight = pool.runners().add(Runner::Worker(0));
    let queued = pool.queue().try_next().expect("one block");
    assert!(pool.watch().call(), "there is none yet");
    let other = pool.clone();
    let monitor = loom::thread::spawn(move || {
        while !other.is_watched() {
            assert!(other.watch().fall_dormant(None, || other.is_watched()));
        }
    });
    in_flight.begin(&queued);
    in_flight.is_to_be_watched(|_| true);
    assert!(!pool.watch().begins(), "there is one");
    monitor.join().expect("it sees the block");
    in_flight.end();
    pool.publish([queued]);
}

#[test]
fn no_block_in_hand_beside_a_dormant_monitor() {
    explore(fall_dormant);
}

/// A look beside a runner of a rest names the cleanup that this runner has begun, or none. Another
/// runner had begun the one before.
#[test]
fn a_look_names_no_cleanup_that_its_runner_has_not_begun() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let (client, ..) = two_queued(&pool);
        assert_eq!(pool.run_pending(1), 1);
        let in_flight = pool.runners().add(Runner::Worker(0));
        let queued = pool.queue().try_next().expect("the rest");
        in_flight.begin(&queued);
        let other = in_flight.clone();
        let looker = loom::thread::spawn(move || {
            let snapshot = other.snapshot(Instant::now()).expect("a block in hand");
            assert_eq!(snapshot.running.is_some(), snapshot.at > 1, "begun: {}", snapshot.at);
        });
        queued.block.advance();
        looker.join().expect("the looker");
        in_flight.end();
        pool.recycle(queued.block);
        std::mem::forget((queued.batch, client));
    });
}

/// A pool is closed while a runner has a block in hand, or puts its rest back. Each cleanup that
/// does not run is counted by then, on whichever thread its captures are dropped.
#[test]
fn a_close_has_counted_all_that_it_discards() {
    for max in [1, 2] {
        explore(move || {
            let pool = Pool::new(PoolConfig::default(), None);
            let (_origin, _registrar, runs, _) = two_queued(&pool);
            let other = pool.clone();
            let runner = loom::thread::spawn(move || other.run_pending(max));
            let discarded = pool.discard_pending();
            runner.join().expect("the runner");
            let ran: u32 = runs.iter().map(|runs| runs.load(Ordering::Relaxed)).sum();
            assert_eq!(discarded + ran as usize, 2);
            assert_eq!(pool.stats().discarded, discarded as u64);
        });
    }
}

/// Likewise, while a tail is requeued.
#[test]
fn a_close_has_counted_all_though_a_tail_moves() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let (_origin, _registrar, runs, _) = two_queued(&pool);
        let (runner, taker) = (pool.clone(), pool.clone());
        let runner = loom::thread::spawn(move || runner.run_pending(2));
        let taker = loom::thread::spawn(move || take_tails(&taker));
        let discarded = pool.discard_pending();
        runner.join().expect("the runner");
        taker.join().expect("the taker");
        let ran: u32 = runs.iter().map(|runs| runs.load(Ordering::Relaxed)).sum();
        assert_eq!(discarded + ran as usize, 2);
    });
}

/// The owner of the threads is told that there is work, or sees it.
#[test]
fn who_is_told_that_work_is_ready_misses_none() {
    explore(|| {
        let told = Arc::new((Mutex::new(0_u32), Condvar::new()));
        let teller = told.clone();
        let ready = move || {
            *teller.0.lock() += 1;
            teller.1.notify_all();
        };
        let hooks = Hooks { ready: Some(std::sync::Arc::new(ready)), ..Hooks::default() };
        let pool = Pool::new(PoolConfig { hooks, ..PoolConfig::default() }, None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let other = pool.clone();
        let owner = loom::thread::spawn(move || {
            let mut ran = 0;
            while ran < 2 {
                let mut calls = told.0.lock();
                while *calls == 0 {
                    told.1.wait(&mut calls);
                }
                *calls = 0;
                drop(calls);
                ran += other.run_pending(2);
            }
        });
        for _ in 0..2 {
            let (head, _) = registrar.register(None, || {});
            sweep_one(&client, head);
        }
        owner.join().expect("it runs both");
    });
}

/// Likewise where no batch ends with it, whose end takes locks that would order the look.
#[test]
fn a_wait_for_some_of_the_backlog_ends_when_it_is_low() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let cycle = client.begin_cycle();
        let mut local = cycle.local_block();
        // Two fill a block, which is published; their cycle goes on.
        for _ in 0..2 {
            local.push(registrar.register(None, || {}).0);
        }
        let runner = loom::thread::spawn(move || pool.run_pending(2));
        // Not by `wait_for_backlog`, which helps in a manual pool.
        assert!(client.registry().backlog_waiters.wait(None, || client.backlog() == 0));
        assert_eq!(runner.join().expect("the runner"), 2);
        assert_eq!(cycle.flush([local]).cleanups, 2);
    });
}

/// A thread that waits for the backlog to come down is told when it has.
#[test]
fn a_wait_for_the_backlog_ends_when_it_is_low() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let (client, _registrar, _, _) = two_queued(&pool);
        let other = pool.clone();
        let runner = loom::thread::spawn(move || other.run_pending(2));
        assert_eq!(client.wait_for_backlog(0, std::time::Duration::MAX), 0);
        runner.join().expect("the runner");
    });
}
