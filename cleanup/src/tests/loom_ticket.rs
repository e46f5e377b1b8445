//! Tickets: the waiter returns once the last cleanup has ended, and sees what it did.

use super::models::{explore, sweep_one};
use crate::{Cleanup, CleanupState, Client, Pool, PoolConfig, Registrar};
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::time::Duration;

/// Written by a cleanup, read after the wait: loom reports a race if the end does not come before
/// the return.
struct Shared(UnsafeCell<u32>);

#[expect(unsafe_code, reason = "loom's cell is how a model asks for a happens-before relation")]
// SAFETY: loom checks each access, and fails the model if two of them race.
unsafe impl Sync for Shared {}

fn bump(shared: &Shared) {
    shared.0.with_mut(|value| {
        #[expect(unsafe_code, reason = "as above")]
        // SAFETY: loom has checked that no other thread accesses it now.
        unsafe {
            *value += 1;
        }
    });
}

/// Queues a cleanup, and gives what it writes to and its handle.
fn queue_one(client: &Client, registrar: &mut Registrar) -> (Arc<Shared>, Cleanup) {
    let shared = Arc::new(Shared(UnsafeCell::new(0)));
    let captured = shared.clone();
    let (head, handle) = registrar.register(None, move || bump(&captured));
    sweep_one(client, head);
    (shared, handle)
}

/// A cycle queues a cleanup, a helper runs it, the waiter sees that.
#[test]
fn a_waiter_sees_what_the_cleanups_did() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let (shared, _handle) = queue_one(&client, &mut registrar);
        let ticket = client.ticket();
        let helper = loom::thread::spawn(move || pool.run_pending(1));
        ticket.wait(Duration::MAX).expect("no deadline");
        assert!(ticket.is_done());
        bump(&shared);
        assert_eq!(helper.join().expect("the helper"), 1);
    });
}

/// A look, without a wait, shows as much once it finds the end.
#[test]
fn a_look_that_finds_the_end_sees_what_the_cleanup_did() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let (shared, _handle) = queue_one(&client, &mut registrar);
        let ticket = client.ticket();
        let helper = loom::thread::spawn(move || pool.run_pending(1));
        if ticket.is_done() {
            bump(&shared);
        }
        assert_eq!(helper.join().expect("the helper"), 1);
    });
}

/// A handle that finds the end sees as much.
#[test]
fn a_handle_that_finds_the_end_sees_what_the_cleanup_did() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let (shared, handle) = queue_one(&client, &mut registrar);
        let counted = client.clone();
        let looks = loom::thread::spawn(move || {
            if handle.state() == CleanupState::Done {
                bump(&shared);
                assert_eq!(counted.stats().executed, 1, "it is done, and not counted");
            }
        });
        assert_eq!(pool.run_pending(1), 1);
        looks.join().expect("the one that looks");
    });
}

/// Two runners end a batch, each with a block of its own: the waiter sees what both did, whichever
/// of them was the last. It hears of that one alone.
pub(super) fn two_runners() {
    let pool = Pool::new(PoolConfig::default(), None);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let shared: [_; 3] = std::array::from_fn(|_| Arc::new(Shared(UnsafeCell::new(0))));
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    let mut heads = Vec::new();
    for shared in &shared {
        let captured = shared.clone();
        let (head, _) = registrar.register(None, move || bump(&captured));
        heads.push(head.raw());
        local.push(head);
    }
    // The registrar has used up the slots that it has taken: there are three below index 4.
    // Two blocks: two entries fill the first.
    assert_eq!(cycle.flush([local]).cleanups, 3);
    let ticket = client.ticket();
    let runners = [(); 2].map(|()| {
        let pool = pool.clone();
        loom::thread::spawn(move || pool.run_pending(2))
    });
    ticket.wait(Duration::MAX).expect("no deadline");
    shared.iter().for_each(|shared| bump(shared));
    // Nothing is left to be done but to leave: all is counted, and each slot is there again.
    let stats = client.stats();
    assert_eq!((stats.executed, stats.backlog, pool.stats().oldest), (3, 0, None));
    for _ in &heads {
        let (head, _) = registrar.register(None, || {});
        assert!(heads.contains(&head.raw()), "a slot has not come back");
    }
    let ran: usize = runners.map(|runner| runner.join().expect("a runner")).iter().sum();
    assert_eq!(ran, 3);
}

#[test]
fn a_waiter_sees_what_two_runners_did() {
    explore(two_runners);
}

/// A batch is not done while its cycle may still add to it, even if all it has queued has ended.
#[test]
fn a_cycle_keeps_its_batch_unfinished() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let heads: Vec<_> = (0..3).map(|_| registrar.register(None, || {}).0).collect();
        let cycle = client.begin_cycle();
        let mut local = cycle.local_block();
        let helping = pool.clone();
        let helper = loom::thread::spawn(move || helping.run_pending(2));
        // Two fill a block, which is published at once; the helper may be done with it before the
        // third.
        heads.into_iter().for_each(|head| local.push(head));
        let ticket = client.ticket();
        assert!(!ticket.is_done());
        assert_eq!(cycle.flush([local]).cleanups, 3);
        let ran = helper.join().expect("the helper");
        assert!(!ticket.is_done());
        assert_eq!(ran + pool.run_pending(3), 3);
        assert!(ticket.is_done());
        assert_eq!(client.stats().executed, 3);
    });
}
