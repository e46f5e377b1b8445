//! What guards the memory of a heap: cells where one thread uses it, locks where many do.
//!
//! Invariant: a heap has one mode for life, its type's. So a `Local` heap is never reached by two
//! threads.

use std::cell::RefCell;

use sexton_sync::Mutex;

/// The default mode of a heap: one mutator, on one thread, and payloads of any kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

/// The mode of a heap that any number of threads use. Payloads are `Send + Sync`.
///
/// Each thread attaches a mutator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared;

/// How the memory of a heap of the mode is guarded. Not to be named outside.
pub trait Locking: 'static {
    /// Whether several threads may use the heap.
    const SHARED: bool;
    /// Guards what all mutators of a heap change.
    type Lock<T>: Lock<T>;
}

impl Locking for Local {
    const SHARED: bool = false;
    type Lock<T> = RefCell<T>;
}

impl Locking for Shared {
    const SHARED: bool = true;
    type Lock<T> = Mutex<T>;
}

/// A value that is reached by one caller at a time.
pub trait Lock<T> {
    fn new(value: T) -> Self;

    /// Calls `f` with the value. `f` does not come back here.
    fn with<U>(&self, f: impl FnOnce(&mut T) -> U) -> U;

    /// Does the same, unless another caller is there.
    fn try_with<U>(&self, f: impl FnOnce(&mut T) -> U) -> Option<U>;
}

impl<T> Lock<T> for RefCell<T> {
    fn new(value: T) -> Self {
        RefCell::new(value)
    }

    #[inline]
    fn with<U>(&self, f: impl FnOnce(&mut T) -> U) -> U {
        f(&mut self.borrow_mut())
    }

    fn try_with<U>(&self, f: impl FnOnce(&mut T) -> U) -> Option<U> {
        self.try_borrow_mut().ok().map(|mut value| f(&mut value))
    }
}

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Mutex::new(value)
    }

    #[inline]
    fn with<U>(&self, f: impl FnOnce(&mut T) -> U) -> U {
        f(&mut self.lock())
    }

    fn try_with<U>(&self, f: impl FnOnce(&mut T) -> U) -> Option<U> {
        self.try_lock().map(|mut value| f(&mut value))
    }
}
