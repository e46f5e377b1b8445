//! Tickets: the waiter returns once the last cleanup has ended, and sees what it did.

use super::models::{explore, sweep_one};
use crate::{Origin, Pool, PoolConfig};
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::time::Duration;

/// Written by a cleanup, read after the wait: loom reports a race if the end does not come before the return.
struct Shared(UnsafeCell<u32>);

#[expect(unsafe_code, reason = "loom's cell is how a model asks for a happens-before relation")]
// SAFETY: loom checks each access, and fails the model if two of them race.
unsafe impl Sync for Shared {}

fn bump(shared: &Shared) {
    shared.0.with_mut(|value| {
        #[expect(unsafe_code, reason = "as above")]
        // SAFETY: loom has checked that nobody else accesses it now.
        unsafe {
            *value += 1;
        }
    });
}

/// Two cycles queue a cleanup each, a helper runs them, the waiter sees both.
#[test]
fn a_waiter_sees_what_the_cleanups_did() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let origin = Origin::new(&pool);
        let mut registrar = origin.registrar();
        let shared = Arc::new(Shared(UnsafeCell::new(0)));
        let captured = shared.clone();
        let (head, _handle) = registrar.register(None, move || bump(&captured));
        sweep_one(&origin, head);
        let ticket = origin.ticket();
        let helper = loom::thread::spawn(move || pool.run_pending(1));
        ticket.wait(Duration::MAX).expect("no deadline");
        assert!(ticket.is_done());
        bump(&shared);
        assert_eq!(helper.join().expect("the helper"), 1);
    });
}

/// A batch is not done while its cycle may still add to it, even if all it has queued has ended.
#[test]
fn a_cycle_keeps_its_batch_unfinished() {
    explore(|| {
        let pool = Pool::new(PoolConfig::default(), None);
        let origin = Origin::new(&pool);
        let mut registrar = origin.registrar();
        let heads: Vec<_> = (0..3).map(|_| registrar.register(None, || {}).0).collect();
        let cycle = origin.begin_cycle();
        let mut local = cycle.local_block();
        let helping = pool.clone();
        let helper = loom::thread::spawn(move || helping.run_pending(2));
        // Two fill a block, which is published at once; the helper may be done with it before the third.
        heads.into_iter().for_each(|head| local.push(head));
        let ticket = origin.ticket();
        assert!(!ticket.is_done());
        assert_eq!(cycle.flush([local]).cleanups, 3);
        let ran = helper.join().expect("the helper");
        assert!(!ticket.is_done());
        assert_eq!(ran + pool.run_pending(3), 3);
        assert!(ticket.is_done());
        assert_eq!(origin.stats().executed, 3);
    });
}
