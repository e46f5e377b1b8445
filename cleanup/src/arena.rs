//! The arena: memory for blocks, carved and never given back until the pool goes.
//!
//! Invariant: each [`Block`] is the only handle to its memory, and keeps the arena alive. So the memory
//! outlives every handle, and who holds a block owns it.
//!
//! It does not know what the entries mean; see [`block`](crate::block).

use crate::block::Cells;
use crate::sync::{Arc, Mutex};
use bumpalo::Bump;
use std::ops::Deref;
use std::ptr::NonNull;

/// Where blocks come from when the block free list has none.
#[derive(Debug)]
pub(crate) struct Arena {
    /// bumpalo takes its chunks from the system in growing sizes. The lock is held for one bump, once in a
    /// block's life.
    bump: Mutex<Bump>,
}

impl Arena {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Arena { bump: Mutex::new(Bump::new()) })
    }

    /// Carves one more block.
    #[cold]
    pub(crate) fn carve(self: &Arc<Self>) -> Block {
        let bump = self.bump.lock();
        let cells = NonNull::from(bump.alloc_with(Cells::new));
        Block { cells, arena: self.clone() }
    }

    /// Bytes taken from the system.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn bytes(&self) -> usize {
        self.bump.lock().allocated_bytes()
    }
}

/// One block, owned: fixed room for the heads of dead objects' chains. Not `Clone`.
#[derive(Debug)]
pub(crate) struct Block {
    cells: NonNull<Cells>,
    /// Keeps the memory behind `cells`.
    #[expect(dead_code, reason = "held, not read")]
    arena: Arc<Arena>,
}

// SAFETY: a block is its owner's alone, like a `Box<Cells>`, and `Cells` is `Send` (checked below). The arena
// is shared behind its lock.
unsafe impl Send for Block {}

const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Cells>();
    is_send::<Arc<Arena>>();
};

impl Deref for Block {
    type Target = Cells;

    #[inline]
    fn deref(&self) -> &Cells {
        // SAFETY: `cells` came from `carve`, which initialised it, and bumpalo neither moves nor frees it
        // before the `Bump` goes, which `arena` prevents. Nobody ever makes a `&mut Cells`.
        unsafe { self.cells.as_ref() }
    }
}
