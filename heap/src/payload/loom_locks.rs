//! What stands in for parking_lot's raw locks under loom, which does not see into those.
//!
//! They take and give the lock by the same orderings, and look first, as those do. A thread that
//! waits looks again and again.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use parking_lot::lock_api::{self, GuardNoSend};
use sexton_sync::fields::{AtomicBool, AtomicU32};
use sexton_sync::yield_now;

/// Stands in for a mutex.
pub(crate) struct RawMutex(AtomicBool);

// SAFETY: only one thread at a time makes `true` of `false`, and it alone makes `false` of it.
unsafe impl lock_api::RawMutex for RawMutex {
    const INIT: Self = RawMutex(AtomicBool::new(false));

    type Guard = GuardNoSend;

    fn lock(&self) -> Self::Guard {
        wait(|| self.try_lock())
    }

    fn try_lock(&self) -> Option<Self::Guard> {
        let is_free =
            !self.0.load(Relaxed) && self.0.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        is_free.then(GuardNoSend::new)
    }

    unsafe fn unlock(&self, _: Self::Guard) {
        self.0.store(false, Release);
    }

    fn is_locked(&self) -> bool {
        self.0.load(Relaxed)
    }
}

// SAFETY: as above. A thread that waits takes part in no queue.
unsafe impl lock_api::RawMutexFair for RawMutex {
    unsafe fn unlock_fair(&self, guard: Self::Guard) {
        // SAFETY: by this function's contract.
        unsafe { lock_api::RawMutex::unlock(self, guard) };
    }
}

/// Stands in for a reader-writer lock: how many read, or [`WRITER`].
pub(crate) struct RawRwLock(AtomicU32);

const WRITER: u32 = u32::MAX;

// SAFETY: a reader makes `n + 1` of `n`, which is not `WRITER`; a writer makes `WRITER` of 0. Each
// takes back what it has made.
unsafe impl lock_api::RawRwLock for RawRwLock {
    const INIT: Self = RawRwLock(AtomicU32::new(0));

    type SharedGuard = GuardNoSend;
    type ExclusiveGuard = GuardNoSend;

    fn lock_shared(&self) -> Self::SharedGuard {
        wait(|| self.try_lock_shared())
    }

    fn try_lock_shared(&self) -> Option<Self::SharedGuard> {
        let mut readers = self.0.load(Relaxed);
        while readers != WRITER {
            match self.0.compare_exchange(readers, readers + 1, Acquire, Relaxed) {
                Ok(_) => return Some(GuardNoSend::new()),
                Err(found) => readers = found,
            }
        }
        None
    }

    unsafe fn unlock_shared(&self, _: Self::SharedGuard) {
        self.0.fetch_sub(1, Release);
    }

    fn lock_exclusive(&self) -> Self::ExclusiveGuard {
        wait(|| self.try_lock_exclusive())
    }

    fn try_lock_exclusive(&self) -> Option<Self::ExclusiveGuard> {
        let is_free = self.0.load(Relaxed) == 0
            && self.0.compare_exchange(0, WRITER, Acquire, Relaxed).is_ok();
        is_free.then(GuardNoSend::new)
    }

    unsafe fn unlock_exclusive(&self, _: Self::ExclusiveGuard) {
        self.0.store(0, Release);
    }

    fn is_locked(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn is_locked_exclusive(&self) -> bool {
        self.0.load(Relaxed) == WRITER
    }
}

fn wait<T>(attempt: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(guard) = attempt() {
            return guard;
        }
        yield_now();
    }
}

#[cfg(test)]
impl RawMutex {
    pub(crate) fn settle(&self) {
        self.0.settle();
    }
}

#[cfg(test)]
impl RawRwLock {
    pub(crate) fn settle(&self) {
        self.0.settle();
    }
}
