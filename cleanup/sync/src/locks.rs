//! The only source of atomics, fences, locks, condition variables and concurrent queues in this crate.
//!
//! Built as usual these are the standard library's atomics and locks, and crossbeam's `Injector`.
//! Built with `--cfg loom` the same names are loom's, so that a model explores every interleaving of the code
//! that ships; built with `--cfg shuttle` they are shuttle's, which tries some interleavings of models that
//! are too large for that. `lock()` gives a guard, `wait(&mut guard)` keeps it, and nothing is ever poisoned.
//!
//! The standard library's locks, because each stands for itself. parking_lot's have the queues of all locks in one
//! table. The child of a `fork` inherits that table, with the threads in it that it does not have.
//!
//! The two checkers know different things. Loom knows the orderings of atomics and checks every access to an
//! `UnsafeCell`. To shuttle every atomic operation is sequentially consistent, fences say nothing, and a
//! cell is a cell.
//!
//! Two things stay the standard library's in models. `Arc` is one: the models are about the protocols, and
//! a counted pointer adds branches without adding questions. `OnceLock` is the other: what it holds is made
//! without a scheduling point, so no checker sees it half made.

pub use std::sync::Arc;
pub(crate) use std::sync::{OnceLock, Weak};

use crate::process::Process;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
#[cfg(not(any(loom, shuttle)))]
use std::sync::TryLockError;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;
#[cfg(not(any(loom, shuttle)))]
use std as checker;

pub use checker::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use checker::thread::yield_now;
pub use checker::thread_local;

/// A mutex that a panic of its holder does not poison.
#[derive(Debug, Default)]
pub struct Mutex<T>(checker::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// An unlocked one.
    pub fn new(value: T) -> Self {
        Mutex(checker::sync::Mutex::new(value))
    }

    /// Locks it.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Locks it, unless it is taken and `home` is another process: then a thread may have it that a `fork` has left
    /// behind. A system call if the lock is taken.
    #[track_caller]
    pub fn lock_at(&self, home: Process) -> Option<MutexGuard<'_, T>> {
        // No model forks.
        #[cfg(any(loom, shuttle))]
        return Some(self.lock()).filter(|_| home.is_current());
        #[cfg(not(any(loom, shuttle)))]
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard(Some(guard))),
            Err(TryLockError::Poisoned(error)) => Some(MutexGuard(Some(error.into_inner()))),
            Err(TryLockError::WouldBlock) if home.is_current() => Some(self.lock()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The guard; empty only while its thread waits on a [`Condvar`].
#[derive(Debug)]
pub struct MutexGuard<'a, T>(Option<checker::sync::MutexGuard<'a, T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("only empty during a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("only empty during a wait")
    }
}

/// A condition variable that keeps the guard. A notification that nobody waits for costs a load.
///
/// Who notifies has locked the mutex after the change that it tells of, or before, as ever: so it sees who waits for that.
#[derive(Debug, Default)]
pub struct Condvar {
    inner: checker::sync::Condvar,
    /// Threads that wait. Written with the mutex locked. Not for the checkers, to which it would be one more atomic.
    waiting: std::sync::atomic::AtomicUsize,
}

impl Condvar {
    /// One that nobody waits on.
    pub fn new() -> Self {
        Condvar { inner: checker::sync::Condvar::new(), waiting: Default::default() }
    }

    /// Waits for a notification.
    #[track_caller]
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.0.take().expect("only empty during a wait");
        self.waiting.fetch_add(1, Relaxed);
        guard.0 = Some(self.inner.wait(inner).unwrap_or_else(PoisonError::into_inner));
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// Waits for a notification for so long. Whether the time is up.
    #[cfg(not(any(loom, shuttle)))]
    fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: std::time::Duration) -> bool {
        let inner = guard.0.take().expect("only empty during a wait");
        self.waiting.fetch_add(1, Relaxed);
        let (inner, result) =
            self.inner.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner);
        guard.0 = Some(inner);
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

/// Waits for a notification until `deadline`, for ever when there is none. Whether the deadline passed.
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

/// Waits for a notification. A model has no clock: a deadline passes at once, and no deadline never.
#[cfg(any(loom, shuttle))]
#[track_caller]
pub fn wait_until<T>(
    condvar: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    deadline: Option<std::time::Instant>,
) -> bool {
    if deadline.is_none() {
        condvar.wait(guard);
    }
    deadline.is_some()
}

#[cfg(not(any(loom, shuttle)))]
pub(crate) use crossbeam_deque::{Injector, Steal};

#[cfg(any(loom, shuttle))]
mod imp {
    use super::{AtomicUsize, Ordering};

    #[cfg(test)]
    pub(crate) use super::checker::thread;
    pub(crate) use crossbeam_deque::Steal;
    #[cfg(shuttle)]
    pub(crate) use shuttle::lazy_static;

    /// Stands in for crossbeam's `Injector`, which knows no checker: first in, first out.
    ///
    /// No stronger than the real one. The load of `tail` may give an old value, and `Empty` then is the answer
    /// of a thread with no right to ask: a stand-in behind a mutex would order all pushes and steals, and hide
    /// a claim without order. But steals synchronise with one another, as the real one's do by its `head`
    /// (loaded with Acquire, moved by a SeqCst compare-exchange); protocol 1 needs that.
    #[derive(Debug)]
    pub(crate) struct Injector<T> {
        /// How many have been stolen.
        head: AtomicUsize,
        /// How many have been pushed.
        tail: AtomicUsize,
        /// All that were ever pushed. Not the checker's mutex: it is to add no order.
        items: std::sync::Mutex<Vec<Option<T>>>,
    }

    impl<T> Injector<T> {
        pub(crate) fn new() -> Self {
            Injector {
                head: AtomicUsize::new(0),
                tail: AtomicUsize::new(0),
                items: std::sync::Mutex::default(),
            }
        }

        #[track_caller]
        pub(crate) fn push(&self, value: T) {
            self.items.lock().expect("not poisoned").push(Some(value));
            // Release: pairs with the Acquire in `steal`.
            self.tail.fetch_add(1, Ordering::Release);
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.head.load(Ordering::Acquire) >= self.tail.load(Ordering::Acquire)
        }

        #[track_caller]
        pub(crate) fn steal(&self) -> Steal<T> {
            // Acquire, and AcqRel below: a stealer knows what those before it knew.
            let head = self.head.load(Ordering::Acquire);
            if head >= self.tail.load(Ordering::Acquire) {
                return Steal::Empty;
            }
            match self.head.compare_exchange(head, head + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    let item = self.items.lock().expect("not poisoned")[head].take();
                    Steal::Success(item.expect("each is stolen once"))
                }
                Err(_) => Steal::Retry,
            }
        }
    }
}

#[cfg(any(loom, shuttle))]
pub(crate) use imp::*;

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// A cell whose content is reached through a raw pointer; loom's checks every access.
#[cfg(not(loom))]
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// As built elsewhere, records begin as zeroed memory.
    #[cfg(shuttle)]
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Hands out the pointer for reading.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Hands out the pointer for writing.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Keeps its content on cache lines of its own: 128 bytes, because some processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CachePadded<T>(pub T);

impl<T> std::ops::Deref for CachePadded<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}
