//! Tickets: what they cover, and what they do not.

use crate::common::*;
use sexton_cleanup::{Origin, Pool, WaitError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn a_ticket_times_out_with_the_true_number() {
    let (pool, threads) = pool(1);
    let origin = Origin::new(&pool);
    let mut registrar = origin.registrar();
    let gate = Gate::default();
    let mut handles = Vec::new();
    let heads: Vec<_> = (0..500)
        .map(|at| {
            let door = gate.clone();
            let (head, handle) = add(&mut registrar, move || {
                if at == 40 {
                    door.pass();
                }
            });
            handles.push(handle);
            head
        })
        .collect();
    sweep(&origin, heads);
    gate.wait_for(1);
    let ticket = origin.ticket();
    let wait = Duration::from_millis(1);
    assert_eq!(ticket.wait(wait), Err(WaitError::Timeout { pending: 460 }));
    // Ends through handles count at once, in the running block and in others.
    assert!(handles[50].stop() && handles[499].run_now());
    assert_eq!(ticket.wait(wait), Err(WaitError::Timeout { pending: 458 }));
    // A later cycle does not.
    let late: Vec<_> = (0..10).map(|_| add(&mut registrar, || {}).0).collect();
    sweep(&origin, late);
    assert_eq!(ticket.wait(wait), Err(WaitError::Timeout { pending: 458 }));
    assert_eq!((origin.stats().backlog, pool.stats().backlog), (468, 468));
    assert!(pool.stats().oldest.is_some());
    gate.open();
    ticket.wait(DEADLINE).unwrap();
    assert_eq!(ticket.pending(), 0);
    origin.ticket().wait(DEADLINE).unwrap();
    assert_eq!(pool.stats().oldest, None);
    shut_down(&pool, &threads);
}

#[test]
fn a_ticket_of_nothing_is_done() {
    let pool = manual();
    let ticket = Origin::new(&pool).ticket();
    assert!(ticket.is_done());
    ticket.wait(Duration::ZERO).unwrap();
}

#[test]
fn a_cleanup_is_told_that_it_cannot_wait() {
    let pool = manual();
    let origin = Origin::new(&pool);
    let mut registrar = origin.registrar();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let (inner, noted) = (Mutex::new(Some(origin.clone())), answers.clone());
    let (head, _) = add(&mut registrar, move || {
        let origin = inner.lock().unwrap().take().unwrap();
        let empty = Origin::new(origin.pool()).ticket();
        for ticket in [origin.ticket(), empty] {
            noted.lock().unwrap().push(ticket.wait(DEADLINE));
        }
    });
    sweep(&origin, [head]);
    pool.run_pending(1);
    assert_eq!(*answers.lock().unwrap(), [Err(WaitError::FromCleanup); 2]);
    assert!(WaitError::FromCleanup.to_string().contains("waiting for itself"));
    assert!(WaitError::Timeout { pending: 7 }.to_string().contains("7 cleanups"));
}

#[test]
fn a_stall_of_another_heap_does_not_prolong_the_wait() {
    let (pool, threads) = pool(2);
    let (stalled, mine) = (Origin::new(&pool), Origin::new(&pool));
    let gate = Gate::default();
    let door = gate.clone();
    let mut registrar = stalled.registrar();
    sweep(&stalled, [add(&mut registrar, move || door.pass()).0]);
    gate.wait_for(1);
    let mut registrar = mine.registrar();
    sweep(&mine, [add(&mut registrar, || {}).0]);
    mine.ticket().wait(DEADLINE).unwrap();
    assert!(!stalled.ticket().is_done());
    gate.open();
    stalled.ticket().wait(DEADLINE).unwrap();
    shut_down(&pool, &threads);
}

/// Each cleanup of this chain registers and queues the next one, until the gate is open.
fn rearm(origin: &Origin, gate: Arc<Mutex<bool>>) {
    let again = origin.clone();
    let mut registrar = origin.registrar();
    let (head, _) = add(&mut registrar, move || {
        if !*gate.lock().unwrap() {
            rearm(&again, gate);
        }
    });
    sweep(origin, [head]);
}

#[test]
fn cleanups_that_rearm_themselves_do_not_prolong_the_wait() {
    let (pool, threads) = pool(1);
    let origin = Origin::new(&pool);
    let stop = Arc::new(Mutex::new(false));
    rearm(&origin, stop.clone());
    for _ in 0..100 {
        origin.ticket().wait(DEADLINE).unwrap();
    }
    *stop.lock().unwrap() = true;
    until("the last one has ended", || pool.is_idle());
    drop(origin);
    shut_down(&pool, &threads);
}

/// More unfinished cycles than batches have bytes.
#[test]
fn a_thousand_unfinished_cycles_are_counted_right() {
    let pool = manual();
    let origin = Origin::new(&pool);
    let mut registrar = origin.registrar();
    let mut handles = Vec::new();
    for _ in 0..1000 {
        let mut block = Vec::new();
        for _ in 0..3 {
            let (head, handle) = add(&mut registrar, || {});
            block.push(head);
            handles.push(handle);
        }
        sweep(&origin, block);
    }
    let ticket = origin.ticket();
    for handle in handles.iter().step_by(3) {
        assert!(handle.stop());
    }
    assert_eq!((ticket.pending(), origin.stats().backlog), (2000, 2000));
    assert_eq!(pool.run_pending(1999), 1999);
    assert_eq!((ticket.pending(), ticket.is_done()), (1, false));
    assert_eq!(pool.run_pending(1), 1);
    assert!(ticket.is_done());
    let stats = origin.stats();
    assert_eq!((stats.queued, stats.executed, stats.stopped), (3000, 2000, 1000));
    check_settled_in_total(&pool);
}

fn check_settled_in_total(pool: &Pool) {
    let stats = pool.stats();
    assert_eq!((stats.settled, stats.backlog, stats.blocks), (1000, 0, 0));
}
