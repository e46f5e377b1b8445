//! Entries: fixed room for the cleanup records of dead objects.
//!
//! Invariant: entries `cursor..len` are unrun; only the block's owner writes to it. The fields are
//! atomics all the same, used as plain cells, which costs plain moves. Others may read the tail of
//! a block that is being run, by a [`View`](crate::block::arena::View), to requeue it.
//!
//! It does not know what running an entry means.

use crate::record::head::Index;
use sexton_sync::{AtomicU32, Ordering};

/// Entries of one block: with the two header words, 512 bytes.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const CAPACITY: usize = 126;
#[cfg(any(loom, shuttle))]
pub(crate) const CAPACITY: usize = 2;

/// A block's memory. All accesses are Relaxed: a block changes owners through the full list or the
/// block free list, whose Release and Acquire carry everything before. A thread that only views it
/// has the lock of the owner's in-flight record, and gets a cursor that may be behind.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Cells {
    /// Entries filled. Written by the owner.
    len: AtomicU32,
    /// The first entry not yet begun. Written by the owner.
    cursor: AtomicU32,
    /// Indices in raw form. Written by the owner, and not any more once the block is published.
    entries: [AtomicU32; CAPACITY],
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Cells>() == 512, "a block is 512 bytes");

impl Cells {
    pub(crate) fn new() -> Self {
        Cells {
            len: AtomicU32::new(0),
            cursor: AtomicU32::new(0),
            entries: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Writes entry `at`; it counts once [`set_len`](Self::set_len) says so.
    #[inline]
    pub(crate) fn write(&self, at: usize, record: Index) {
        self.entries[at].store(record.raw(), Ordering::Relaxed);
    }

    /// Declares entries `0..len` filled.
    #[inline]
    pub(crate) fn set_len(&self, len: usize) {
        debug_assert!(len <= CAPACITY);
        self.len.store(len as u32, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    /// Tells how many entries have been begun.
    #[inline]
    pub(crate) fn cursor(&self) -> usize {
        self.cursor.load(Ordering::Relaxed) as usize
    }

    /// Gives entry `at`, if the block has it.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<Index> {
        if at < self.len() {
            Index::from_raw(self.entries[at].load(Ordering::Relaxed))
        } else {
            None
        }
    }

    /// Gives the first entry not yet begun.
    #[inline]
    pub(crate) fn front(&self) -> Option<Index> {
        self.get(self.cursor())
    }

    /// Steps over the first entry.
    #[inline]
    pub(crate) fn advance(&self) {
        // Not one operation: the owner is the only writer.
        self.cursor.store(self.cursor() as u32 + 1, Ordering::Relaxed);
    }

    /// Takes the last entry out. For coalescing: the block has not been run.
    pub(crate) fn pop_back(&self) -> Option<Index> {
        debug_assert_eq!(self.cursor(), 0);
        let last = self.len().checked_sub(1)?;
        let record = self.get(last);
        self.set_len(last);
        record
    }

    pub(super) fn clear(&self) {
        self.len.store(0, Ordering::Relaxed);
        self.cursor.store(0, Ordering::Relaxed);
    }
}
