//! The context of one mutator: what it allocates from, and where it registers cleanups.
//!
//! Invariant: one thread at a time uses a context. It is its mutator's within a session, or the
//! collecting one while no session is open. In a `Local` heap the borrow checker sees to it
//! (`&mut self`). In a `Shared` one the handshake does, which lends contexts to no other thread.
//! User code that runs during a cycle (drop glue, trace glue) cannot reach it.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::marker::PhantomData;

use sexton_cleanup::{Client, Registrar};

use crate::memory::allocator::Allocator;
use crate::memory::locking::Shared;
use crate::policy::pacer::{CLEANUP_BYTES, Pacer};

/// One mutator's own state.
pub struct Context<M> {
    /// Touched by every allocation, so not behind a borrow flag; see
    /// [`with_allocator`](Self::with_allocator).
    allocator: UnsafeCell<Allocator>,
    registrar: RefCell<Registrar>,
    /// Bytes of cleanup records registered that the pacer has not been told of.
    cleanup_bytes: Cell<u64>,
    mode: PhantomData<M>,
}

// SAFETY: by the file's invariant one thread uses it at a time, and the handshake orders each use
// before the next. An allocator points to free slots, which belong to it alone.
unsafe impl Send for Context<Shared> {}
// SAFETY: as above. A session's `Mutation`, which leads here, is not `Sync`.
unsafe impl Sync for Context<Shared> {}

impl<M> Context<M> {
    pub(crate) fn new(client: &Client) -> Self {
        Context {
            allocator: UnsafeCell::new(Allocator::new()),
            registrar: RefCell::new(client.registrar()),
            cleanup_bytes: Cell::new(0),
            mode: PhantomData,
        }
    }

    /// Calls `f` with the allocator.
    #[inline]
    pub(crate) fn with_allocator<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T {
        // SAFETY: by the file's invariant no other thread is here, and the callers' closures, all
        // in this crate, run no user code and do not come back here; so this is the only reference.
        f(unsafe { &mut *self.allocator.get() })
    }

    pub(crate) fn registrar(&self) -> &RefCell<Registrar> {
        &self.registrar
    }

    /// Counts a registration for the pacer, which is told later.
    #[inline]
    pub(crate) fn charge_cleanup(&self) {
        self.cleanup_bytes.set(self.cleanup_bytes.get() + CLEANUP_BYTES);
    }

    /// Tells the pacer of the cleanups registered since it was told last.
    #[inline]
    pub(crate) fn report_cleanups(&self, pacer: &Pacer) {
        let bytes = self.cleanup_bytes.take();
        if bytes > 0 {
            pacer.charge_cleanups(bytes);
        }
    }
}
