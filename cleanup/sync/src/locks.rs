//! Locks and condition variables: those of the standard library, or of a checker.
//!
//! `lock()` gives a guard, `wait(&mut guard)` keeps it, and nothing is ever poisoned.
//!
//! The standard library's locks, because each stands for itself. parking_lot keeps the queues of
//! all locks in one table. The child of a `fork` inherits that table, with threads in it that the
//! child does not have.

use crate::checker;
use crate::process::Process;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{PoisonError, TryLockError};

/// Locks a value. A panic of its holder does not poison it.
#[derive(Debug, Default)]
pub struct Mutex<T>(checker::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Makes an unlocked one.
    pub fn new(value: T) -> Self {
        Mutex(checker::sync::Mutex::new(value))
    }

    /// Locks it.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.guard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Locks it, unless it is taken.
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(self.guard(guard)),
            Err(TryLockError::Poisoned(error)) => Some(self.guard(error.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Locks it, unless it is taken and `home` is another process.
    ///
    /// Then a thread may have it that a `fork` has left behind. A system call if the lock is taken.
    #[track_caller]
    pub fn lock_at(&self, home: Process) -> Option<MutexGuard<'_, T>> {
        // No model forks.
        #[cfg(any(loom, shuttle))]
        return Some(self.lock()).filter(|_| home.is_current());
        #[cfg(not(any(loom, shuttle)))]
        match self.try_lock() {
            None if home.is_current() => Some(self.lock()),
            guard => guard,
        }
    }

    #[inline]
    fn guard<'a>(&'a self, inner: checker::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard {
            inner: Some(inner),
            #[cfg(any(loom, shuttle))]
            mutex: self,
        }
    }
}

/// Guards a locked value; empty only while its thread waits on a [`Condvar`].
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    inner: Option<checker::sync::MutexGuard<'a, T>>,
    /// For a wait whose deadline passes.
    #[cfg(any(loom, shuttle))]
    mutex: &'a Mutex<T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("only empty during a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("only empty during a wait")
    }
}

/// Waits and notifies. A notification that no thread waits for costs a load.
///
/// A thread that notifies has locked the mutex after its change, or during it, as ever. So it sees
/// the threads that wait for the change.
#[derive(Debug, Default)]
pub struct Condvar {
    inner: checker::sync::Condvar,
    /// Threads that wait. Written with the mutex locked. Not for the checkers, to which it would be
    /// one more atomic.
    waiting: std::sync::atomic::AtomicUsize,
}

impl Condvar {
    /// Makes one that no thread waits on.
    pub fn new() -> Self {
        Condvar { inner: checker::sync::Condvar::new(), waiting: Default::default() }
    }

    /// Waits for a notification.
    #[track_caller]
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.inner.take().expect("only empty during a wait");
        self.waiting.fetch_add(1, Relaxed);
        guard.inner = Some(self.inner.wait(inner).unwrap_or_else(PoisonError::into_inner));
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// Waits for a notification for this time. Whether the time is up.
    #[cfg(not(any(loom, shuttle)))]
    fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: std::time::Duration) -> bool {
        let inner = guard.inner.take().expect("only empty during a wait");
        self.waiting.fetch_add(1, Relaxed);
        let (inner, result) =
            self.inner.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner);
        guard.inner = Some(inner);
        self.waiting.fetch_sub(1, Relaxed);
        result.timed_out()
    }

    /// Wakes one thread that waits.
    #[track_caller]
    pub fn notify_one(&self) {
        if self.is_waited_for() {
            self.inner.notify_one();
        }
    }

    /// Wakes all threads that wait.
    #[track_caller]
    pub fn notify_all(&self) {
        if self.is_waited_for() {
            self.inner.notify_all();
        }
    }

    fn is_waited_for(&self) -> bool {
        // Relaxed: ordered by the mutex. A model has no use for the shortcut.
        cfg!(any(loom, shuttle)) || self.waiting.load(Relaxed) > 0
    }
}

/// Waits for a notification until `deadline`. Whether the deadline passed.
///
/// Without a deadline it waits for ever.
#[cfg(not(any(loom, shuttle)))]
pub fn wait_until<T>(
    condvar: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    deadline: Option<std::time::Instant>,
) -> bool {
    let Some(deadline) = deadline else {
        condvar.wait(guard);
        return false;
    };
    let time = deadline.saturating_duration_since(std::time::Instant::now());
    time.is_zero() || condvar.wait_for(guard, time)
}

/// Waits for a notification. Whether the deadline passed.
///
/// A model has no clock: a deadline always passes, at some moment, and no deadline never. Meanwhile
/// the mutex is free, as in a wait.
#[cfg(any(loom, shuttle))]
#[track_caller]
pub fn wait_until<T>(
    condvar: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    deadline: Option<std::time::Instant>,
) -> bool {
    if deadline.is_none() {
        condvar.wait(guard);
        return false;
    }
    drop(guard.inner.take());
    guard.inner = guard.mutex.lock().inner.take();
    true
}
