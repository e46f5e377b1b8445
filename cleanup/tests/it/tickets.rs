//! Tickets: what they cover, and what they do not.

use crate::common::*;
use sexton_cleanup::{Client, Pool, WaitError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn a_ticket_times_out_with_the_true_number() {
    let (pool, threads) = pool(1);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
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
    sweep(&client, heads);
    gate.wait_for(1);
    let ticket = client.ticket();
    let wait = Duration::from_millis(1);
    assert_eq!(ticket.wait(wait), Err(WaitError::Timeout { pending: 460 }));
    // Ends through handles count at once, in the running block and in others.
    assert!(handles[50].stop() && handles[499].run_now());
    assert_eq!(ticket.wait(wait), Err(WaitError::Timeout { pending: 458 }));
    // A later cycle does not.
    let late: Vec<_> = (0..10).map(|_| add(&mut registrar, || {}).0).collect();
    sweep(&client, late);
    assert_eq!(ticket.wait(wait), Err(WaitError::Timeout { pending: 458 }));
    assert_eq!((client.stats().backlog, pool.stats().backlog), (468, 468));
    assert!(pool.stats().oldest.is_some());
    gate.open();
    ticket.wait(DEADLINE).unwrap();
    assert_eq!(ticket.pending(), 0);
    client.ticket().wait(DEADLINE).unwrap();
    assert_eq!(pool.stats().oldest, None);
    shut_down(&pool, &threads);
}

#[test]
fn a_ticket_of_nothing_is_done() {
    let pool = manual();
    let ticket = Client::new(&pool).ticket();
    assert!(ticket.is_done());
    ticket.wait(Duration::ZERO).unwrap();
}

#[test]
fn a_cleanup_is_told_that_it_cannot_wait() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let (inner, noted) = (Mutex::new(Some(client.clone())), answers.clone());
    let (head, _) = add(&mut registrar, move || {
        let client = inner.lock().unwrap().take().unwrap();
        let empty = Client::new(client.pool()).ticket();
        for ticket in [client.ticket(), empty] {
            noted.lock().unwrap().push(ticket.wait(DEADLINE));
        }
    });
    sweep(&client, [head]);
    pool.run_pending(1);
    assert_eq!(*answers.lock().unwrap(), [Err(WaitError::FromCleanup); 2]);
    assert!(WaitError::FromCleanup.to_string().contains("waiting for itself"));
    assert!(WaitError::Timeout { pending: 7 }.to_string().contains("7 cleanups"));
}

#[test]
fn a_stall_of_another_heap_does_not_prolong_the_wait() {
    let (pool, threads) = pool(2);
    let (stalled, mine) = (Client::new(&pool), Client::new(&pool));
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
fn rearm(client: &Client, gate: Arc<Mutex<bool>>) {
    let again = client.clone();
    let mut registrar = client.registrar();
    let (head, _) = add(&mut registrar, move || {
        if !*gate.lock().unwrap() {
            rearm(&again, gate);
        }
    });
    sweep(client, [head]);
}

#[test]
fn cleanups_that_rearm_themselves_do_not_prolong_the_wait() {
    let (pool, threads) = pool(1);
    let client = Client::new(&pool);
    let stop = Arc::new(Mutex::new(false));
    rearm(&client, stop.clone());
    for _ in 0..100 {
        client.ticket().wait(DEADLINE).unwrap();
    }
    *stop.lock().unwrap() = true;
    until("the last one has ended", || pool.is_idle());
    drop(client);
    shut_down(&pool, &threads);
}

/// More unfinished cycles than batches have bytes.
#[test]
fn a_thousand_unfinished_cycles_are_counted_right() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let mut handles = Vec::new();
    for _ in 0..1000 {
        let mut block = Vec::new();
        for _ in 0..3 {
            let (head, handle) = add(&mut registrar, || {});
            block.push(head);
            handles.push(handle);
        }
        sweep(&client, block);
    }
    let ticket = client.ticket();
    for handle in handles.iter().step_by(3) {
        assert!(handle.stop());
    }
    assert_eq!((ticket.pending(), client.stats().backlog), (2000, 2000));
    assert_eq!(pool.run_pending(1999), 1999);
    assert_eq!((ticket.pending(), ticket.is_done()), (1, false));
    assert_eq!(pool.run_pending(1), 1);
    assert!(ticket.is_done());
    let stats = client.stats();
    assert_eq!((stats.queued, stats.executed, stats.stopped), (3000, 2000, 1000));
    check_ended_early_in_total(&pool);
}

fn check_ended_early_in_total(pool: &Pool) {
    let stats = pool.stats();
    assert_eq!((stats.ended_early, stats.backlog, stats.blocks), (1000, 0, 0));
}
