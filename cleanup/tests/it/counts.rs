//! Readings of the counters beside threads that change them: the sums that are promised hold in
//! each.

use crate::common::*;
use sexton_cleanup::{Client, Pool, Registrar};
use std::sync::atomic::{AtomicBool, Ordering};

/// Cleanups registered at a time.
const ROUND: usize = 500;

/// Checks what `CleanupStats` and `PoolStats` promise.
fn check(pool: &Pool, client: &Client) {
    let heap = client.stats();
    let places = heap.armed + heap.backlog + heap.executed + heap.stopped + heap.discarded;
    assert_eq!(heap.registered, places, "{heap:?}");
    assert!(heap.backlog <= heap.queued && heap.queued <= heap.registered, "{heap:?}");
    let pool = pool.stats();
    let ends = pool.executed + pool.ended_early + pool.discarded;
    assert_eq!(pool.queued, ends + pool.backlog, "{pool:?}");
    assert!(pool.asleep <= pool.workers, "{pool:?}");
}

/// Cleanups of which some are discarded while armed, some are stopped or run by their handles, and
/// the rest by workers. The handles come before the cleanups are queued, meanwhile and afterwards.
fn round(client: &Client, registrar: &mut Registrar) {
    let (mut heads, handles): (Vec<_>, Vec<_>) = (0..ROUND).map(|_| add(registrar, || {})).unzip();
    heads.drain(..ROUND / 10).for_each(|head| registrar.discard(head));
    let end =
        |at: usize| if at.is_multiple_of(2) { handles[at].stop() } else { handles[at].run_now() };
    (0..ROUND).step_by(5).for_each(|at| _ = end(at));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..ROUND).step_by(3).for_each(|at| _ = end(at)));
        sweep(client, heads);
    });
}

#[test]
fn the_promised_sums_hold_in_every_reading_beside_running_threads() {
    let (pool, threads) = pool(2);
    let client = Client::new(&pool);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut readings = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    check(&pool, &client);
                    readings += 1;
                }
                assert!(readings > 0);
            });
        }
        let mut registrar = client.registrar();
        (0..500).for_each(|_| round(&client, &mut registrar));
        done.store(true, Ordering::Relaxed);
    });
    client.ticket().wait(DEADLINE).unwrap();
    check(&pool, &client);
    let stats = client.stats();
    assert_eq!((stats.armed, stats.backlog), (0, 0));
    shut_down(&pool, &threads);
}
