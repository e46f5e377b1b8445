//! Records are used again, by any thread that needs some.
//!
//! Their number is bounded by the most cleanups alive at a time, and their number costs no time.

use crate::common::*;
use sexton_cleanup::{CleanupState, Client, Pool, Registrar};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An account with a pool to which no former pool has left records.
fn new_client() -> (Arc<Pool>, Client) {
    let mut recycled = Vec::new();
    loop {
        let pool = manual();
        let client = Client::new(&pool);
        if client.records() == 0 {
            return (pool, client);
        }
        recycled.push((pool, client));
    }
}

/// Registers cleanups of objects that die at once, and runs them.
fn live_and_die(pool: &Pool, client: &Client, registrar: &mut Registrar, n: usize) {
    let heads: Vec<_> = (0..n).map(|_| add(registrar, || {}).0).collect();
    sweep(client, heads);
    assert_eq!(pool.run_pending(usize::MAX), n);
}

/// Asserts that there are at most 1.2 times as many records as cleanups were alive at a time.
fn assert_few_records(client: &Client) {
    assert!(client.records() <= PEAK + PEAK / 5, "{} records for {PEAK}", client.records());
}

/// Cleanups alive at a time. A fifth of it is more than what eight mutators may hold on to.
const PEAK: usize = 30_000;

/// One mutator registers a single cleanup, and the other all the others, again and again.
#[test]
fn mutators_that_take_turns_use_the_same_records() {
    let (pool, client) = new_client();
    for _ in 0..50 {
        let mut first = client.registrar();
        live_and_die(&pool, &client, &mut first, 1);
        live_and_die(&pool, &client, &mut client.registrar(), PEAK);
    }
    assert_few_records(&client);
}

/// The others register one cleanup each after each turn.
#[test]
fn attached_mutators_that_take_turns_use_the_same_records() {
    let (pool, client) = new_client();
    let mut registrars: Vec<_> = (0..8).map(|_| client.registrar()).collect();
    for turn in 0..registrars.len() {
        live_and_die(&pool, &client, &mut registrars[turn], PEAK);
        registrars.iter_mut().for_each(|idle| live_and_die(&pool, &client, idle, 1));
    }
    assert_few_records(&client);
}

/// Records of discarded cleanups come back, too. So do those of stopped ones: by pruning, by a
/// sweep, or by the next registration on the same object.
#[test]
fn mutators_that_take_turns_use_records_of_cleanups_that_never_ran() {
    let (_pool, client) = new_client();
    let mut registrars: Vec<_> = (0..8).map(|_| client.registrar()).collect();
    for registrar in &mut registrars {
        let heads: Vec<_> = (0..PEAK).map(|_| add(registrar, || {}).0).collect();
        heads.into_iter().for_each(|head| registrar.discard(head));
        for ends in [prune, sweep_ended, register_again] {
            let mut chains = Vec::new();
            let mut handles = Vec::new();
            for _ in 0..PEAK / 4 {
                let mut chain = None;
                for _ in 0..4 {
                    let (head, handle) = registrar.register(chain, || {});
                    chain = Some(head);
                    handles.push(handle);
                }
                chains.extend(chain);
            }
            assert!(handles.iter().all(|handle| handle.stop()));
            ends(&client, registrar, chains);
            assert_eq!(registrar.ended_early(), 0);
        }
    }
    assert_few_records(&client);
}

/// Each takes a few, and leaves them to the pool. Handles of heaps that are gone do nothing to
/// them.
#[test]
fn heaps_with_one_cleanup_each_take_few_records_and_leave_them_to_the_next() {
    const HEAPS: usize = 1_000;
    let (pool, client) = new_client();
    let mut old = Vec::new();
    for _ in 0..5 {
        let mut heaps: Vec<_> = (0..HEAPS)
            .map(|_| {
                let client = Client::new(&pool);
                let mut registrar = client.registrar();
                let (head, handle) = add(&mut registrar, || {});
                old.push(handle);
                (client, registrar, head)
            })
            .collect();
        assert!(client.records() <= 4 * HEAPS + 4, "{}", client.records());
        let (gone, alive) = old.split_at(old.len() - HEAPS);
        assert!(gone.iter().all(|handle| !handle.stop() && !handle.run_now()));
        assert!(alive.iter().all(|handle| handle.state() == CleanupState::Armed));
        // Half of them die in a sweep.
        for (client, _, head) in heaps.drain(..HEAPS / 2) {
            sweep(&client, [head]);
        }
        assert_eq!(pool.run_pending(usize::MAX), HEAPS / 2);
        heaps.into_iter().for_each(|(_, mut registrar, head)| registrar.discard(head));
    }
}

type Chains = Vec<sexton_cleanup::Head>;

fn prune(_: &Client, registrar: &mut Registrar, chains: Chains) {
    assert!(chains.into_iter().all(|chain| registrar.prune(chain).is_none()));
}

fn sweep_ended(client: &Client, _: &mut Registrar, chains: Chains) {
    assert_eq!(sweep(client, chains), 0);
}

fn register_again(_: &Client, registrar: &mut Registrar, chains: Chains) {
    for mut chain in chains {
        // Two of four are reclaimed by each of the first two registrations.
        for _ in 0..3 {
            let (head, handle) = registrar.register(Some(chain), || {});
            assert!(handle.stop());
            chain = head;
        }
        assert!(registrar.prune(chain).is_none());
    }
}

/// It takes 20 times as long at most after half a million cleanups. A walk over their records would
/// take a thousand times as long.
#[test]
fn a_mutator_for_one_cleanup_costs_the_same_whatever_its_heap_has_been_through() {
    /// The least of many: other tests run beside this one.
    fn cost(client: &Client) -> Duration {
        let once = || {
            let start = Instant::now();
            let mut registrar = client.registrar();
            std::hint::black_box(add(&mut registrar, || {}));
            drop(registrar);
            start.elapsed()
        };
        (0..200).map(|_| once()).min().expect("200")
    }
    let (pool, client) = new_client();
    let before = cost(&client);
    live_and_die(&pool, &client, &mut client.registrar(), 500_000);
    let after = cost(&client);
    assert!(after <= 20 * before, "{after:?}, and {before:?} before");
}
