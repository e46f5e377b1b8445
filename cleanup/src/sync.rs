//! The only source of atomics, fences, locks, condition variables and concurrent queues in this crate.
//!
//! Built as usual these are the standard library's atomics, parking_lot's locks and crossbeam's `Injector`.
//! Built with `--cfg loom` the same names are loom's, so that a model explores every interleaving of the code
//! that ships; built with `--cfg shuttle` they are shuttle's, which tries some interleavings of models that
//! are too large for that. The shapes are parking_lot's: `lock()` gives a guard and `wait(&mut guard)` keeps it.
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

/// A lock for what no protocol depends on; never a checker's, so it may stand in a static.
pub(crate) use parking_lot::Mutex as PlainMutex;

#[cfg(not(any(loom, shuttle)))]
mod imp {
    pub(crate) use crossbeam_deque::{Injector, Steal};
    pub use parking_lot::{Condvar, Mutex, MutexGuard};
    pub use std::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use std::thread::yield_now;
    pub use std::thread_local;

    /// Waits for a notification until `deadline`, for ever when there is none. Whether the deadline passed.
    pub fn wait_until<T>(
        condvar: &Condvar,
        guard: &mut MutexGuard<'_, T>,
        deadline: Option<std::time::Instant>,
    ) -> bool {
        match deadline {
            Some(deadline) => condvar.wait_until(guard, deadline).timed_out(),
            None => {
                condvar.wait(guard);
                false
            }
        }
    }
}

#[cfg(any(loom, shuttle))]
mod imp {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;

    #[cfg(loom)]
    use loom as checker;
    #[cfg(shuttle)]
    use shuttle as checker;

    pub use checker::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    #[cfg(test)]
    pub(crate) use checker::thread;
    pub(crate) use checker::thread::yield_now;
    pub use checker::thread_local;
    pub(crate) use crossbeam_deque::Steal;
    #[cfg(shuttle)]
    pub(crate) use shuttle::lazy_static;

    /// The checker's mutex in parking_lot's shape: a panic of its holder does not poison it.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(checker::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Mutex(checker::sync::Mutex::new(value))
        }

        #[track_caller]
        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }
    }

    /// The guard; empty only while its thread waits on a [`Condvar`].
    pub struct MutexGuard<'a, T>(Option<checker::sync::MutexGuard<'a, T>>);

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.0.as_ref().expect("only empty during a wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("only empty during a wait")
        }
    }

    /// The checker's condition variable in parking_lot's shape.
    #[derive(Debug, Default)]
    pub struct Condvar(checker::sync::Condvar);

    impl Condvar {
        pub fn new() -> Self {
            Condvar(checker::sync::Condvar::new())
        }

        #[track_caller]
        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let inner = guard.0.take().expect("only empty during a wait");
            guard.0 = Some(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
        }

        #[track_caller]
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        #[track_caller]
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// Waits for a notification. A model has no clock: a deadline passes at once, and no deadline never.
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

pub use imp::*;

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
