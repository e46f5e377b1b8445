//! The locks under the cells: each with the stamp of the cycle that has traced its content.
//!
//! Invariant: a stamp is changed by the thread that has the lock, or by the collector while no
//! session is open.

use std::cell::Cell;

use parking_lot::lock_api::{self, GuardNoSend, RawMutex as _, RawMutexFair as _, RawRwLock as _};
#[cfg(not(loom))]
use parking_lot::{RawMutex, RawRwLock};
use sexton_sync::Ordering::{Acquire, Relaxed, Release};
use sexton_sync::fields::AtomicU16;
use sexton_sync::{fence, yield_now};

use crate::memory::cell_lock::{CellLock, Stamp};
#[cfg(loom)]
use crate::payload::loom_locks::{RawMutex, RawRwLock};

/// How often a marker or a sweeper beside sessions has come to a lock, and gone. Odd while it has
/// the lock, or tries to get it.
///
/// A session's `try_lock` is not to fail because of that. A marker may come many times in a cycle,
/// once for each piece of a long slice. To take one visit for another, a `try_lock` would have to
/// miss 32,768 of them.
pub(crate) struct Visits(AtomicU16);

impl Visits {
    const fn new() -> Self {
        Visits(AtomicU16::new(0))
    }

    /// Calls `f` with the lock that `attempt` tries to get, and gives it back by `unlock`. Tells
    /// whether it was got.
    #[inline]
    fn visit<G>(
        &self,
        attempt: impl FnOnce() -> Option<G>,
        unlock: impl FnOnce(G),
        f: &mut dyn FnMut(),
    ) -> bool {
        self.count(|| {
            let Some(guard) = attempt() else { return false };
            let _unlocked = AtEnd::new(|| unlock(guard));
            f();
            true
        })
    }

    /// Calls `f`, which tries to get the lock and gives it back.
    pub(crate) fn count<T>(&self, f: impl FnOnce() -> T) -> T {
        // Relaxed: only the marker counts, or the sweeper that has the object's span.
        let before = self.0.load(Relaxed);
        self.0.store(before.wrapping_add(1), Relaxed);
        // MarkerFence: pairs with the one in `retry`. A session that meets the marker's lock also
        // sees that the marker has come.
        fence(Release);
        let _left = AtEnd::new(|| self.0.store(before.wrapping_add(2), Release));
        f()
    }

    /// Tries to get a lock by `attempt`, again if the marker had it.
    #[inline]
    pub(crate) fn retry<T>(&self, attempt: impl Fn() -> Option<T>) -> Option<T> {
        attempt().or_else(|| self.retry_slowly(attempt))
    }

    #[cold]
    #[inline(never)]
    fn retry_slowly<T>(&self, attempt: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            // Acquire: pairs with the release in `visit`, so that the marker's unlocking is seen.
            let visits = self.0.load(Acquire);
            if visits % 2 == 1 {
                yield_now();
                continue;
            }
            let locked = attempt();
            if locked.is_some() {
                return locked;
            }
            fence(Acquire);
            if self.0.load(Relaxed) == visits {
                return None;
            }
        }
    }
}

/// Calls a function at its end, also if trace glue panics.
struct AtEnd<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> AtEnd<F> {
    fn new(f: F) -> Self {
        AtEnd(Some(f))
    }
}

impl<F: FnOnce()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// The lock of a `GcMutex`: one byte, and the stamp in what would be padding.
pub(crate) struct RawGcMutex {
    lock: RawMutex,
    pub(crate) visits: Visits,
    pub(crate) stamp: Stamp,
}

// SAFETY: the inner lock is one, and all calls go to it.
unsafe impl lock_api::RawMutex for RawGcMutex {
    const INIT: Self =
        RawGcMutex { lock: RawMutex::INIT, visits: Visits::new(), stamp: Stamp::new() };

    type Guard = <RawMutex as lock_api::RawMutex>::Guard;

    #[inline]
    fn lock(&self) -> Self::Guard {
        self.lock.lock()
    }

    #[inline]
    fn try_lock(&self) -> Option<Self::Guard> {
        self.lock.try_lock()
    }

    #[inline]
    unsafe fn unlock(&self, guard: Self::Guard) {
        // SAFETY: by this function's contract.
        unsafe { self.lock.unlock(guard) };
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.lock.is_locked()
    }
}

impl CellLock for RawGcMutex {
    #[inline]
    fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    fn count(&self, f: &mut dyn FnMut()) {
        self.visits.count(f);
    }

    #[inline]
    fn visit(&self, f: &mut dyn FnMut()) -> bool {
        // Fair: a session that waits gets it, and not the marker for the next piece.
        // SAFETY: this thread has just locked it.
        let unlock = |guard| unsafe { self.lock.unlock_fair(guard) };
        self.visits.visit(|| self.lock.try_lock(), unlock, f)
    }
}

/// The lock of a `GcRwLock`.
pub(crate) struct RawGcRwLock {
    lock: RawRwLock,
    pub(crate) visits: Visits,
    pub(crate) stamp: Stamp,
}

// SAFETY: the inner lock is one, and all calls go to it.
unsafe impl lock_api::RawRwLock for RawGcRwLock {
    const INIT: Self =
        RawGcRwLock { lock: RawRwLock::INIT, visits: Visits::new(), stamp: Stamp::new() };

    type SharedGuard = <RawRwLock as lock_api::RawRwLock>::SharedGuard;
    type ExclusiveGuard = <RawRwLock as lock_api::RawRwLock>::ExclusiveGuard;

    #[inline]
    fn lock_shared(&self) -> Self::SharedGuard {
        self.lock.lock_shared()
    }

    #[inline]
    fn try_lock_shared(&self) -> Option<Self::SharedGuard> {
        self.lock.try_lock_shared()
    }

    #[inline]
    unsafe fn unlock_shared(&self, guard: Self::SharedGuard) {
        // SAFETY: by this function's contract.
        unsafe { self.lock.unlock_shared(guard) };
    }

    #[inline]
    fn lock_exclusive(&self) -> Self::ExclusiveGuard {
        self.lock.lock_exclusive()
    }

    #[inline]
    fn try_lock_exclusive(&self) -> Option<Self::ExclusiveGuard> {
        self.lock.try_lock_exclusive()
    }

    #[inline]
    unsafe fn unlock_exclusive(&self, guard: Self::ExclusiveGuard) {
        // SAFETY: by this function's contract.
        unsafe { self.lock.unlock_exclusive(guard) };
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.lock.is_locked()
    }

    #[inline]
    fn is_locked_exclusive(&self) -> bool {
        self.lock.is_locked_exclusive()
    }
}

impl CellLock for RawGcRwLock {
    #[inline]
    fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    fn count(&self, f: &mut dyn FnMut()) {
        self.visits.count(f);
    }

    #[inline]
    fn visit(&self, f: &mut dyn FnMut()) -> bool {
        // SAFETY: this thread has just locked it.
        let unlock = |guard| unsafe { self.lock.unlock_shared(guard) };
        self.visits.visit(|| self.lock.try_lock_shared(), unlock, f)
    }
}

/// The borrow flag of a `GcRefCell`, as a lock of one thread that never waits.
pub(crate) struct RawGcRefCell {
    /// How many borrows there are; -1 for a mutable one.
    borrows: Cell<i32>,
    pub(crate) stamp: Stamp,
}

/// A mutable borrow.
const MUTABLE: i32 = -1;

// SAFETY: it is not `Sync`, so one thread at a time uses it. A mutable borrow is given only if
// there is no borrow, another one only if there is no mutable one.
unsafe impl lock_api::RawRwLock for RawGcRefCell {
    const INIT: Self = RawGcRefCell { borrows: Cell::new(0), stamp: Stamp::new() };

    type SharedGuard = GuardNoSend;
    type ExclusiveGuard = GuardNoSend;

    fn lock_shared(&self) -> Self::SharedGuard {
        self.try_lock_shared().expect("a cell does not wait")
    }

    #[inline]
    fn try_lock_shared(&self) -> Option<Self::SharedGuard> {
        let borrows = self.borrows.get();
        // Leaked borrows may be as many as there are numbers.
        (0..i32::MAX).contains(&borrows).then(|| {
            self.borrows.set(borrows + 1);
            GuardNoSend::new()
        })
    }

    #[inline]
    unsafe fn unlock_shared(&self, _: Self::SharedGuard) {
        self.borrows.set(self.borrows.get() - 1);
    }

    fn lock_exclusive(&self) -> Self::ExclusiveGuard {
        self.try_lock_exclusive().expect("a cell does not wait")
    }

    #[inline]
    fn try_lock_exclusive(&self) -> Option<Self::ExclusiveGuard> {
        (self.borrows.get() == 0).then(|| {
            self.borrows.set(MUTABLE);
            GuardNoSend::new()
        })
    }

    #[inline]
    unsafe fn unlock_exclusive(&self, _: Self::ExclusiveGuard) {
        self.borrows.set(0);
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.borrows.get() != 0
    }

    #[inline]
    fn is_locked_exclusive(&self) -> bool {
        self.borrows.get() == MUTABLE
    }
}

impl CellLock for RawGcRefCell {
    #[inline]
    fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    #[inline]
    fn visit(&self, f: &mut dyn FnMut()) -> bool {
        // It is not `Sync`. Beside open sessions it lies within a lock that the marker has.
        f();
        true
    }

    #[inline]
    fn count(&self, f: &mut dyn FnMut()) {
        f();
    }
}

/// Lets loom know of a lock's atomics, which its users then meet on any thread.
#[cfg(all(test, loom))]
impl RawGcMutex {
    pub(crate) fn settle(&self) {
        self.lock.settle();
        self.visits.0.settle();
        self.stamp.settle();
    }
}

#[cfg(all(test, loom))]
impl RawGcRwLock {
    pub(crate) fn settle(&self) {
        self.lock.settle();
        self.visits.0.settle();
        self.stamp.settle();
    }
}
