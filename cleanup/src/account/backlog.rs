//! Waiting until a heap's backlog has come down.
//!
//! Invariant: a waiter returns once the backlog is low enough, or at its deadline. After each block
//! a runner asks whether a thread waits, and pays one fence for it.
//!
//! It does not know how high is too high: back-pressure is the policy of the heap.

#![forbid(unsafe_code)]

use sexton_sync::{AtomicUsize, Condvar, Mutex, Ordering, fence, wait_until};
use std::time::Instant;

/// Where the threads wait that have queued too much.
#[derive(Debug, Default)]
pub(crate) struct BacklogWaiters {
    /// Threads that wait, or are about to. Written with the lock held; read by runners after a
    /// fence.
    waiting: AtomicUsize,
    lock: Mutex<()>,
    condvar: Condvar,
}

impl BacklogWaiters {
    /// Notes that some cleanups have ended, and been counted. Called with nothing locked.
    #[inline]
    pub(crate) fn ended(&self) {
        // BacklogFence: pairs with that in `wait`. Our count of the ends comes before our look at
        // `waiting`, the waiter's announcement before its look at the counts.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.tell();
        }
    }

    /// Has those who wait look again.
    #[cold]
    pub(crate) fn tell(&self) {
        // Locked, so that a waiter between its look and its wait is not missed.
        let _lock = self.lock.lock();
        self.condvar.notify_all();
    }

    /// Waits until `enough`, or until the deadline. Whether it is enough.
    pub(crate) fn wait(&self, deadline: Option<Instant>, enough: impl Fn() -> bool) -> bool {
        let mut lock = self.lock.lock();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // BacklogFence.
        fence(Ordering::SeqCst);
        let mut relieved = enough();
        while !relieved && !wait_until(&self.condvar, &mut lock, deadline) {
            relieved = enough();
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        relieved || enough()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Duration;

    /// True from the `n`-th look on.
    fn from_look(n: u32) -> impl Fn() -> bool {
        let looks = Cell::new(0);
        move || {
            looks.set(looks.get() + 1);
            looks.get() >= n
        }
    }

    #[test]
    fn who_waits_looks_at_each_end_until_it_is_enough() {
        let backlog_waiters = BacklogWaiters::default();
        let deadline = Instant::now().checked_add(Duration::from_secs(60));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| backlog_waiters.wait(deadline, from_look(3)));
            while !waiter.is_finished() {
                backlog_waiters.ended();
                std::thread::yield_now();
            }
            assert!(waiter.join().expect("the waiter"));
        });
        assert_eq!(backlog_waiters.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_has_enough_does_not_wait_and_who_is_too_late_looks_once_more() {
        let backlog_waiters = BacklogWaiters::default();
        assert!(backlog_waiters.wait(None, from_look(1)));
        assert!(backlog_waiters.wait(Some(Instant::now()), from_look(2)));
        assert!(!backlog_waiters.wait(Some(Instant::now()), from_look(3)));
    }
}
