//! The arena: memory for blocks, carved, and given back as a whole when none of them is left.
//!
//! Invariant: each [`Block`] is the only handle by which its memory is written, and keeps the arena
//! alive. So the memory outlives every handle, and the holder of a block owns it. A [`View`] only
//! reads, at any time.
//!
//! It does not know what the entries mean; see [`block`](crate::block::entries).

use crate::block::entries::Cells;
use crate::record::head::Index;
use bumpalo::Bump;
use sexton_sync::{Arc, Mutex};
use std::ops::Deref;
use std::ptr::NonNull;

/// Where blocks come from when the block free list has none.
#[derive(Debug)]
pub(crate) struct Arena {
    /// bumpalo takes its chunks from the system in growing sizes. The lock is held for one bump,
    /// once in a block's life.
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
    pub(crate) fn bytes(&self) -> usize {
        self.bump.lock().allocated_bytes()
    }
}

/// One block, owned: fixed room for cleanup records. Not `Clone`.
#[derive(Debug)]
pub(crate) struct Block {
    cells: NonNull<Cells>,
    /// Keeps the memory behind `cells`.
    arena: Arc<Arena>,
}

// SAFETY: a block is a shared reference to a `Cells` and a counted one to its arena. The former is
// `Sync` (checked below), the latter is shared behind a lock.
unsafe impl Send for Block {}

const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Cells>();
    is_shared::<Arc<Arena>>();
};

impl Block {
    /// Makes a second look at the block, for others than its owner.
    pub(crate) fn view(&self) -> View {
        View(Block { cells: self.cells, arena: self.arena.clone() })
    }
}

/// Reads a block that another thread owns. It does not know whether it is still the same run of the
/// block.
#[derive(Debug)]
pub(crate) struct View(Block);

impl View {
    /// Entries filled.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Entries begun.
    pub(crate) fn cursor(&self) -> usize {
        self.0.cursor()
    }

    /// Gives one entry.
    pub(crate) fn get(&self, at: usize) -> Option<Index> {
        self.0.get(at)
    }
}

impl Deref for Block {
    type Target = Cells;

    #[inline]
    fn deref(&self) -> &Cells {
        // SAFETY: `cells` came from `carve`, which initialised it, and bumpalo neither moves nor
        // frees it before the `Bump` goes, which `arena` prevents. No code ever makes a
        // `&mut Cells`.
        unsafe { self.cells.as_ref() }
    }
}
