//! What does not run has its captures dropped, once, and is counted.

use crate::common::*;
use sexton_cleanup::{CleanupState, Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn what_a_helper_puts_back_into_a_closed_pool_is_discarded() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (table, gate) = (BatchTable::new(40), Gate::default());
    let door = gate.clone();
    let mut heads = vec![add(&mut registrar, move || door.pass()).0];
    heads.extend((0..40).map(|at| {
        let capture = table.capture(at);
        add(&mut registrar, move || capture.ran()).0
    }));
    sweep(&client, heads);
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| pool.run_pending(1));
        gate.wait_for(1);
        pool.discard_pending();
        gate.open();
        assert_eq!(helper.join().unwrap(), 1);
    });
    assert!(client.ticket().is_done());
    assert_eq!(table.ended_once(), 0);
    assert_eq!(pool.stats().blocks, 0);
}

/// A worker comes back from its cleanup in the middle of the discarding, and drops captures, too.
/// They count, on whichever thread they are dropped.
#[test]
fn discards_by_other_threads_at_the_end_of_a_shutdown_count() {
    let (pool, threads) = pool(1);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gate = Gate::default();
    let door = gate.clone();
    let mut heads = vec![add(&mut registrar, move || door.pass()).0];
    let (here, elsewhere) = (std::thread::current().id(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..400 {
        let (gate, elsewhere) = (gate.clone(), elsewhere.clone());
        let capture = OnDrop(move || {
            if std::thread::current().id() != here {
                elsewhere.fetch_add(1, Ordering::Relaxed);
            } else if elsewhere.load(Ordering::Relaxed) == 0 {
                gate.open();
                until("the worker drops one", || elsewhere.load(Ordering::Relaxed) > 0);
            }
        });
        heads.push(add(&mut registrar, move || drop(capture)).0);
    }
    sweep(&client, heads);
    gate.wait_for(1);
    pool.begin_shutdown();
    assert!(!pool.wait_until_workers_left(Duration::ZERO));
    assert_eq!(pool.discard_pending(), 400);
    assert!(pool.wait_until_workers_left(DEADLINE));
    threads.join();
    let stats = pool.stats();
    assert_eq!((stats.discarded, stats.executed, stats.backlog), (400, 1, 0));
}

/// Calls a closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_discarded_chain_is_dropped_and_counted() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(5);
    let mut chain = None;
    let handles: Vec<_> = (0..5)
        .map(|at| {
            let capture = table.capture(at);
            let (head, handle) = registrar.register(chain, move || capture.ran());
            chain = Some(head);
            handle
        })
        .collect();
    assert!(handles[2].stop());
    registrar.discard(chain.unwrap());
    assert_eq!(table.ended_once(), 0);
    assert!(handles.iter().all(|handle| handle.state() == CleanupState::Stopped));
    let stats = client.stats();
    assert_eq!((stats.discarded, stats.stopped, stats.armed), (4, 1, 0));
    assert_eq!(registrar.ended_early(), 0);
}

#[test]
fn discard_queued_takes_this_heaps_cleanups_and_no_others() {
    let pool = manual();
    let (mine, other) = (Client::new(&pool), Client::new(&pool));
    let table = BatchTable::new(600);
    for (at, client) in [&mine, &other, &mine].into_iter().enumerate() {
        let mut registrar = client.registrar();
        let heads: Vec<_> = (0..200)
            .map(|n| {
                let capture = table.capture(at * 200 + n);
                add(&mut registrar, move || capture.ran()).0
            })
            .collect();
        sweep(client, heads);
    }
    // One block is half run.
    pool.run_pending(50);
    let ticket = mine.ticket();
    mine.discard_queued();
    assert!(ticket.is_done());
    assert_eq!((mine.stats().discarded, mine.stats().executed), (350, 50));
    assert_eq!(other.stats().backlog, 200);
    assert_eq!(pool.run_pending(usize::MAX), 200);
    assert_eq!(table.ended_once(), 250);
    // What comes later runs.
    let mut registrar = mine.registrar();
    let (head, handle) = add(&mut registrar, || {});
    sweep(&mine, [head]);
    assert_eq!(pool.run_pending(1), 1);
    assert_eq!(handle.state(), CleanupState::Done);
}

#[test]
fn workers_discard_what_they_come_to() {
    let (pool, threads) = pool(1);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(1000);
    let gate = Gate::default();
    let door = gate.clone();
    let mut heads = vec![add(&mut registrar, move || door.pass()).0];
    heads.extend((0..1000).map(|at| {
        let capture = table.capture(at);
        add(&mut registrar, move || capture.ran()).0
    }));
    sweep(&client, heads);
    gate.wait_for(1);
    client.discard_queued();
    gate.open();
    client.ticket().wait(DEADLINE).unwrap();
    assert_eq!(table.ended_once(), 0);
    assert_eq!((client.stats().executed, client.stats().discarded), (1, 1000));
    shut_down(&pool, &threads);
}

#[test]
fn a_closed_pool_discards_what_heaps_still_queue() {
    let (pool, threads) = pool(1);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    shut_down(&pool, &threads);
    let table = BatchTable::new(2);
    for at in 0..2 {
        let capture = table.capture(at);
        let (head, _) = add(&mut registrar, move || capture.ran());
        sweep(&client, [head]);
        let ticket = client.ticket();
        if at == 0 {
            assert!(!ticket.is_done(), "shut down, but not closed");
            assert_eq!(pool.discard_pending(), 1);
        }
        assert!(ticket.is_done());
    }
    assert_eq!(table.ended_once(), 0);
    assert_eq!(pool.stats().discarded, 2);
}

/// Those that a helping thread has taken and not run, and those of a sweeper that is later than its
/// cycle.
#[test]
fn what_comes_to_a_closed_pool_late_is_discarded() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(11);
    let closing = pool.clone();
    let mut heads = vec![
        add(&mut registrar, move || {
            closing.discard_pending();
        })
        .0,
    ];
    heads.extend((0..10).map(|at| {
        let capture = table.capture(at);
        add(&mut registrar, move || capture.ran()).0
    }));
    sweep(&client, heads);
    let ticket = client.ticket();
    assert_eq!(pool.run_pending(1), 1, "it closes the pool");
    assert!(ticket.is_done());

    let cycle = client.begin_cycle();
    let mut late = cycle.local_block();
    let capture = table.capture(10);
    late.push(add(&mut registrar, move || capture.ran()).0);
    drop(cycle);
    drop(late);
    assert!(client.ticket().is_done());
    assert_eq!(table.ended_once(), 0);
    assert_eq!((pool.stats().discarded, pool.stats().blocks), (11, 0));
}

#[test]
fn a_pool_that_goes_drops_what_it_holds() {
    let table = BatchTable::new(10);
    let pool = manual();
    let ticket = {
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let heads: Vec<_> = (0..10)
            .map(|at| {
                let capture = table.capture(at);
                add(&mut registrar, move || capture.ran()).0
            })
            .collect();
        sweep(&client, heads);
        client.ticket()
    };
    assert_eq!(ticket.pending(), 10);
    drop(ticket);
    drop(pool);
    assert_eq!(table.ended_once(), 0);
}
