//! Whether this thread is inside a cleanup.
//!
//! Invariant: the depth of a thread is the number of its scopes that have not been dropped.

#![forbid(unsafe_code)]

use sexton_sync::thread_local;
use std::cell::Cell;

#[cfg(not(loom))]
thread_local! {
    /// How many runs of blocks and calls of `run_now` this thread is inside.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

#[cfg(loom)]
thread_local! {
    static DEPTH: Cell<u32> = Cell::new(0);
}

/// Tells whether this thread is inside a cleanup, or inside the panic hook of one.
///
/// A thread that is inside one must not wait for cleanups, and
/// [`Pool::run_pending`](crate::Pool::run_pending) does nothing there.
pub fn in_cleanup() -> bool {
    // A thread that is being torn down, its locals gone, runs no cleanup.
    DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false)
}

/// Marks this thread as inside a cleanup, until dropped.
pub(crate) struct CleanupScope(());

impl CleanupScope {
    pub(crate) fn enter() -> Self {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        CleanupScope(())
    }
}

impl Drop for CleanupScope {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    }
}
