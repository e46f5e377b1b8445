//! A record, and the free slot that becomes one.
//!
//! Invariants, kept here whatever the callers do with their (copyable) heads:
//!
//! 1. The thunk of a slot is written only by the holder of its [`Slot`], and read out only by the
//!    holder of its `Taken`. Exactly one thread gets that per `arm`: the winner of the
//!    compare-exchange.
//! 2. A slot is freed exactly once per `arm`: by the one thread that moves its tag to a free state.
//!    So a slot is in at most one free list.
//! 3. Records never move and are never unmapped. A handle may look at its tag for ever.
//!
//! A head used twice, or after its object's death, can thus make a cleanup run early or not at all;
//! it cannot break memory. This layer does not know batches, blocks and heaps, and it counts
//! nothing.

use crate::record::head::{Head, Index};
use crate::record::tag::{MAX_GENERATION, State, Tag};
use crate::record::thunk::Thunk;
use sexton_sync::{AtomicU8, AtomicU32, Ordering, UnsafeCell};
use std::mem::MaybeUninit;

/// One registered cleanup.
#[derive(Debug)]
pub(super) struct Record {
    /// Generation and state. Written by the holder of the slot's [`Slot`], `Taken`, `Ending` or
    /// `NoDrop`. Moved by compare-exchange: from `Armed` and `ArmedNoDrop` by any thread, from
    /// `Running`, `Stopping` and the states of an early end by the chain's owner.
    pub(super) tag: AtomicU32,
    /// The next record's [`Head`] in raw form; means something only while this record's own head
    /// says "many". Once the record is detached: the note that its chain's owner has left for the
    /// taker. Written by the chain's owner. Relaxed: a chain changes owners by way of the heap's
    /// own synchronisation and then of the full list, a note by way of the tag.
    pub(super) next: AtomicU32,
    /// The closure while the state is `Armed` or `ArmedNoDrop`; a group of a free list while the
    /// slot is free and has one.
    pub(super) thunk: UnsafeCell<MaybeUninit<Thunk>>,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Record>() == 40, "a record is 40 bytes");

// SAFETY: the only part that is not `Sync` by itself is `thunk`. Invariants 1 and 2 give each
// access to it to one thread at a time, which got there by an Acquire of the Release behind the
// access before. The content that moves between threads that way is `Send`: a `Thunk` or an index.
unsafe impl Sync for Record {}

impl Record {
    #[cfg(any(loom, shuttle))]
    pub(super) fn new() -> Self {
        Record {
            tag: AtomicU32::new(0),
            next: AtomicU32::new(0),
            thunk: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    #[inline]
    pub(super) fn load(&self, ordering: Ordering) -> Tag {
        Tag(self.tag.load(ordering))
    }
}

/// A free slot, owned.
#[derive(Debug)]
#[must_use = "a slot that is dropped is lost until the process ends"]
pub(crate) struct Slot {
    pub(super) record: &'static Record,
    pub(super) mark: &'static AtomicU8,
    pub(super) index: Index,
    /// Its tag, of a free state. Only the owner changes it.
    pub(super) tag: Tag,
}

impl Slot {
    /// Tells whether the next generation would be one that a handle was given before. Such a slot
    /// is retired.
    #[inline]
    pub(crate) fn is_worn(&self) -> bool {
        self.tag.generation() == MAX_GENERATION
    }

    /// Arms the slot: from here on exactly one thread may take it. Gives its index and its
    /// generation.
    #[inline]
    pub(crate) fn arm<F: FnOnce() + Send + 'static>(
        self,
        next: Option<Head>,
        mark: u8,
        f: F,
    ) -> (Index, u32) {
        let record = self.record;
        let state = if Thunk::is_no_drop::<F>() { State::ArmedNoDrop } else { State::Armed };
        let tag = Tag::new(self.tag.generation() + 1, state);
        if let Some(next) = next {
            // Relaxed, both: published by the Release below, or by the heap to its sweeper.
            record.next.store(next.raw(), Ordering::Relaxed);
        }
        self.mark.store(mark, Ordering::Relaxed);
        record.thunk.with_mut(|thunk| {
            // SAFETY: the slot is ours (invariant 2) and not yet armed, so no other thread looks at
            // the cell. The content of a free slot needs no drop: a group, the remains of a thunk
            // that was moved out, or a thunk without a destructor.
            unsafe { (*thunk).write(Thunk::new(f)) };
        });
        // Release: pairs with the Acquire in `take` and `take_no_drop`. Every way by which another
        // thread gets hold of a head or a handle synchronises by itself, so no model can miss this.
        // But the taker's right to the thunk should not hang on how it was told.
        record.tag.store(tag.0, Ordering::Release);
        (self.index, tag.generation())
    }
}
