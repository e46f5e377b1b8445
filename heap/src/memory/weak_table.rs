//! The weak records of a span's objects, and the table that finds them.
//!
//! Invariant: a target has one record, however often it is downgraded.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use sexton_sync::Ordering::Relaxed;
use sexton_sync::fields::AtomicPtr;

use crate::memory::rank_map::RankMap;

/// What a `Weak` points to: the target's address, until the target dies.
///
/// Relaxed: sessions that upgrade may be open while it is cleared. A session that still finds the
/// address looks at the target's mark.
pub(crate) struct WeakRecord {
    target: AtomicPtr<u8>,
}

impl WeakRecord {
    pub(crate) fn of(target: NonNull<u8>) -> Self {
        WeakRecord { target: AtomicPtr::new(target.as_ptr()) }
    }

    #[inline]
    pub(crate) fn target(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.target.load(Relaxed))
    }

    /// Called when the target has died.
    pub(crate) fn clear(&self) {
        self.target.store(ptr::null_mut(), Relaxed);
    }
}

/// The weak records of one span's objects: slot -> record.
pub(crate) struct WeakTable {
    bits: Box<[Cell<u64>]>,
    records: RankMap<NonNull<WeakRecord>>,
}

impl WeakTable {
    /// Makes the table of a span whose bitmaps have that many words.
    pub(crate) fn new(words: usize) -> Self {
        let bits = std::iter::repeat_with(Cell::default).take(words).collect();
        WeakTable { bits, records: RankMap::new() }
    }

    pub(crate) fn get(&self, slot: usize) -> Option<NonNull<WeakRecord>> {
        self.records.get(&self.bits, slot)
    }

    pub(crate) fn insert(&mut self, slot: usize, record: NonNull<WeakRecord>) {
        self.records.insert(&self.bits, slot, record);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, NonNull<WeakRecord>)> + '_ {
        self.records.iter(&self.bits)
    }

    /// Keeps the records for which `keep` says so.
    pub(crate) fn retain(&mut self, keep: impl FnMut(usize, NonNull<WeakRecord>) -> bool) {
        self.records.retain(&self.bits, keep);
    }
}
