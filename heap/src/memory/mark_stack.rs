//! The state of a marker: the objects that wait, and how pointers are taken.
//!
//! It is data that trace glue carries from one object to the next. What a marker does with it is in
//! `mark/marker.rs`.
//!
//! Invariant: the work list grows by chunks, so no step copies more than one of them.

use std::ptr::NonNull;

use sexton_sync::prefetch;

use crate::memory::address::ObjectAddress;
use crate::memory::cell_lock::CellAddress;
use crate::memory::phase::NO_EPOCH;

/// Objects of a chunk: 256 KiB.
pub(crate) const CHUNK: usize = 1 << 15;

/// The state of one marker, but for what [`Pending`] carries.
pub(crate) struct Marker {
    /// The first `Pending::len` places are the top of the work list.
    pub(crate) work: Vec<ObjectAddress>,
    /// The rest of it: full chunks, the topmost last.
    full: Vec<Vec<ObjectAddress>>,
    /// The most chunks that there were.
    peak: usize,
    /// A chunk that was used up, so that a list whose length goes up and down asks for no memory.
    spare: Option<Vec<ObjectAddress>>,
    /// Values in a row that have been traced since the last object. Where each leads to a miss, one
    /// takes as long as an object.
    pub(crate) spent: usize,
    /// Long slices that wait to be traced piece by piece. Between two steps they lie outside of
    /// every cell.
    pub(crate) slices: Vec<Slice>,
    /// Cells with long slices.
    pub(crate) cells: Vec<SplitCell>,
    /// Objects, and pieces of slices, with a cell that a session had locked. They are traced again
    /// when the mutators are stopped.
    pub(crate) blocked: Vec<ObjectAddress>,
    pub(crate) blocked_slices: Vec<Slice>,
    pub(crate) blocked_cells: Vec<SplitCell>,
    /// What is being traced has such a cell.
    pub(crate) is_blocked: bool,
    /// Sessions may be open, so a cell is locked to be traced.
    pub(crate) is_beside_sessions: bool,
    pub(crate) strategy: Strategy,
    /// The epoch of the mark; see [`PhaseCell`](crate::memory::phase::PhaseCell).
    pub(crate) epoch: u32,
    /// What the verifier's walk has seen.
    pub(crate) seen: Vec<ObjectAddress>,
}

/// A part of a slice of values, not traced yet. The values do not change while it waits, unless it
/// is that of a [`SplitCell`].
#[derive(Clone, Copy)]
pub(crate) struct Slice {
    pub(crate) first: ObjectAddress,
    pub(crate) len: usize,
    /// Traces some of the values: the first address, and how many.
    pub(crate) trace: unsafe fn(NonNull<u8>, usize, &mut Marker, Pending) -> Pending,
    pub(crate) value_bytes: usize,
}

/// A cell whose long slices are not all traced yet.
///
/// They are as they were while the cell's stamp is `begun`. Afterwards they may be gone: a session
/// has traced them, and has changed the cell.
pub(crate) struct SplitCell {
    /// In a marked object, or in the root. So it is there until the sweep.
    pub(crate) lock: CellAddress,
    pub(crate) slices: Vec<Slice>,
}

/// How a pointer that trace glue reports is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    Narrow,
    Wide,
    /// As `Wide`, while other threads mark, too.
    Parallel,
    /// For the verifier: pointers are collected, and nothing is marked.
    Audit,
}

/// The part of a marker's state that changes with every object. It is passed to trace glue and back
/// by value: two registers.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    /// Objects in the top chunk of the work list.
    pub(crate) len: usize,
    /// The object seen last, if the strategy is `Narrow`.
    pub(crate) next: Option<NonNull<u8>>,
}

impl Pending {
    pub(crate) const NONE: Pending = Pending { len: 0, next: None };
}

impl Marker {
    pub(crate) fn new(strategy: Strategy) -> Self {
        Marker {
            work: Vec::new(),
            full: Vec::new(),
            peak: 0,
            spare: None,
            spent: 0,
            slices: Vec::new(),
            cells: Vec::new(),
            blocked: Vec::new(),
            blocked_slices: Vec::new(),
            blocked_cells: Vec::new(),
            is_blocked: false,
            is_beside_sessions: false,
            strategy,
            epoch: NO_EPOCH,
            seen: Vec::new(),
        }
    }

    /// Puts an object on the work list for as long as it takes to trace those seen after it.
    #[inline]
    pub(crate) fn put_off(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        prefetch::to_read(object.as_ptr());
        let Some(place) = self.work.get_mut(pending.len) else {
            return self.push(pending, object);
        };
        *place = ObjectAddress(object);
        pending.len += 1;
        pending
    }

    /// Puts an object on the work list, which grows if it is full.
    #[cold]
    #[inline(never)]
    pub(crate) fn push(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        if pending.len == self.work.len() {
            if pending.len < CHUNK {
                let len = (pending.len * 2).max(1 << 10);
                self.work.resize(len, ObjectAddress(NonNull::dangling()));
            } else {
                let empty = self.spare.take().unwrap_or_else(new_chunk);
                self.full.push(std::mem::replace(&mut self.work, empty));
                self.peak = self.peak.max(self.full.len());
                pending.len = 0;
            }
        }
        self.work[pending.len] = ObjectAddress(object);
        pending.len += 1;
        pending
    }

    /// Takes the object put on the work list last, and has its memory fetched. Called with one in
    /// the top chunk.
    #[inline]
    pub(crate) fn pop(&mut self, pending: &mut Pending) -> NonNull<u8> {
        pending.len -= 1;
        let ObjectAddress(object) = self.work[pending.len];
        prefetch::to_read(object.as_ptr());
        object
    }

    /// Makes the next full chunk the top one, which is used up. Tells whether there was one.
    #[inline]
    pub(crate) fn open_chunk(&mut self, pending: &mut Pending) -> bool {
        debug_assert_eq!(pending.len, 0);
        let Some(chunk) = self.full.pop() else { return false };
        self.spare = Some(std::mem::replace(&mut self.work, chunk));
        pending.len = self.work.len();
        true
    }

    /// Takes all objects that wait, chunk by chunk, and gives them to `each`.
    pub(crate) fn take_chunks(&mut self, pending: Pending, mut each: impl FnMut(&[ObjectAddress])) {
        debug_assert!(pending.next.is_none());
        self.full.drain(..).for_each(|chunk| each(&chunk));
        each(&self.work[..pending.len]);
    }

    /// Puts what a barrier's marker has waiting on this one's work list. It copies no more than a
    /// chunk.
    pub(crate) fn take_over(
        &mut self,
        mut pending: Pending,
        other: &mut Marker,
        waiting: Pending,
    ) -> Pending {
        self.full.append(&mut other.full);
        self.peak = self.peak.max(self.full.len());
        debug_assert!(
            other.slices.is_empty() && other.cells.is_empty(),
            "a barrier puts nothing off"
        );
        for &ObjectAddress(object) in &other.work[..waiting.len] {
            pending = self.push(pending, object);
        }
        pending
    }

    /// Gives the most bytes that full chunks have taken.
    pub(crate) fn peak_bytes(&self) -> u64 {
        (self.peak * CHUNK * size_of::<ObjectAddress>()) as u64
    }

    /// Tells how many objects wait, but for those in slices.
    pub(crate) fn waits(&self, pending: Pending) -> usize {
        self.full.len() * CHUNK + pending.len
    }

    /// Tells whether nothing waits beside what `Pending` says.
    pub(crate) fn is_used_up(&self) -> bool {
        self.full.is_empty() && self.slices.is_empty() && self.cells.is_empty()
    }

    /// Puts what was blocked on the work list again. Called while the mutators are stopped. It
    /// copies as much as there was.
    pub(crate) fn unblock(&mut self, mut pending: Pending) -> Pending {
        for ObjectAddress(object) in std::mem::take(&mut self.blocked) {
            pending = self.push(pending, object);
        }
        self.slices.append(&mut self.blocked_slices);
        self.cells.append(&mut self.blocked_cells);
        pending
    }

    /// Calls `each` with all objects that wait, but for those in slices.
    pub(crate) fn for_each_waiting(&self, pending: Pending, each: &mut dyn FnMut(NonNull<u8>)) {
        let full = self.full.iter().flatten().chain(&self.blocked);
        full.chain(&self.work[..pending.len]).for_each(|&ObjectAddress(object)| each(object));
        pending.next.into_iter().for_each(each);
    }
}

fn new_chunk() -> Vec<ObjectAddress> {
    vec![ObjectAddress(NonNull::dangling()); CHUNK]
}
