//! Spans: 64 KiB of slots for objects of one type, and the metadata that describes them.
//!
//! A span's metadata ([`Span`]: a header and three bitmaps) does not lie in the span. All metadata
//! of a region lie together at the region's head. So a sweep reads them in order and touches no
//! object. From an object's address they are a mask and a shift away.
//!
//! Invariant: a slot holds an initialised object exactly if its `alloc` bit is set and no allocator
//! has it cached. `mark` bits are all clear outside of a cycle. The `special` bits are the keys of
//! `cleanups`. While sessions are open, these two and `weaks` are used under
//! [`hold_specials`](Span::hold_specials), by sessions and by a cycle beside them.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sexton_cleanup::Head;
// Taken by each registration in a `Shared` heap, and held for some nanoseconds. The others' locks
// are the standard library's, which cost a registration 3 ns of 35 more; see `sexton_sync`
// for why not parking_lot's.
#[cfg(not(any(loom, shuttle)))]
use parking_lot::{Mutex, MutexGuard};
#[cfg(any(loom, shuttle))]
use sexton_sync::{Mutex, MutexGuard};

use crate::memory::bitmap;
use crate::memory::layout::{BITMAP_WORDS, REGION_BYTES, SPAN_BYTES, UNITS, slot_bytes};
use crate::memory::locking::Locking;
use crate::memory::pages;
use crate::memory::rank_map::RankMap;
use crate::memory::type_info::{TraceGlue, TypeInfo};
use crate::memory::weak_table::WeakTable;

/// Units at a region's head that its metadata take.
pub(crate) const METADATA_UNITS: usize = (UNITS * size_of::<Span>()).div_ceil(SPAN_BYTES);

/// The metadata of one span.
///
/// Fields are cells because the allocator, the marker and the sweeper of a heap share spans, and
/// take turns. Only `mark` is written by several threads at once, when marking is parallel. Only
/// `specials` guards what several mutators may change.
#[repr(C, align(64))]
pub(crate) struct Span {
    header: Header,
    alloc: [Cell<u64>; BITMAP_WORDS],
    mark: [AtomicU64; BITMAP_WORDS],
    special: [Cell<u64>; BITMAP_WORDS],
}

#[repr(C, align(64))]
struct Header {
    // What marking and the sweep of a plain span read stands in the first line.
    info: &'static TypeInfo,
    /// A copy of the info's.
    trace: TraceGlue,
    slots: u32,
    class: u32,
    cleanups: RefCell<RankMap<Head>>,
    base: NonNull<u8>,
    /// `ceil(2^32 / slot_bytes)`, so that a slot's index is a multiplication; 0 in a large span.
    reciprocal: u32,
    /// Units of 64 KiB the span covers: 1 unless it is large.
    units: u32,
    /// Sweeps in a row that have found it hardly used, nothing having been allocated from it in
    /// between.
    rests: Cell<u16>,
    weaks: RefCell<Option<Box<WeakTable>>>,
    /// Held while a session of a heap with many mutators uses `cleanups`, `special` or `weaks`.
    specials: Mutex<()>,
    /// Loom cannot see the bitmaps, which are made as zeroed memory. It sees this.
    #[cfg(loom)]
    looks: sexton_sync::fields::AtomicU32,
}

const _: () = assert!(std::mem::offset_of!(Header, base) == 64);

/// The metadata of an open span.
///
/// Invariant: exists only while its region is mapped and the span is open. `Space` closes spans and
/// unmaps regions, and keeps no reference to what it closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SpanRef(NonNull<Span>);

// SAFETY: it is an address of cells, which threads use in turn. `alloc` bits belong to the
// allocator that holds the span, or to the sweeper that has it from a pass; cleanups and weak
// pointers to the holder of `specials`. All else a cycle uses while no session is open.
unsafe impl Send for SpanRef {}

impl SpanRef {
    /// Gives the span that holds the object at `object`.
    #[inline]
    pub(crate) fn containing(object: NonNull<u8>) -> SpanRef {
        let offset = object.addr().get() & (REGION_BYTES - 1);
        // SAFETY: regions are aligned to their size, so the object's offset in its region is what
        // is subtracted, and its address carries the provenance of the region's whole mapping.
        let region = unsafe { object.byte_sub(offset) };
        // SAFETY: an object's unit has metadata at the head of its region.
        unsafe { SpanRef::at(region, offset / SPAN_BYTES) }
    }

    /// # Safety
    ///
    /// `region` is the base of a mapped region, `unit` one of its units.
    #[inline]
    pub(crate) unsafe fn at(region: NonNull<u8>, unit: usize) -> SpanRef {
        // SAFETY: the metadata of all units lie at the region's head.
        SpanRef(unsafe { region.cast::<Span>().add(unit) })
    }

    /// Writes the header of a span that is being opened.
    ///
    /// # Safety
    ///
    /// The span is closed, its bitmaps are all zero, and its units belong to the caller.
    pub(crate) unsafe fn open(self, info: &'static TypeInfo, base: NonNull<u8>, class: u32) {
        let slot_bytes = info.slot_bytes;
        let header = Header {
            info,
            trace: info.trace,
            base,
            reciprocal: if info.is_large() { 0 } else { reciprocal(slot_bytes) },
            slots: (SPAN_BYTES / slot_bytes).max(1) as u32,
            class,
            units: slot_bytes.div_ceil(SPAN_BYTES) as u32,
            rests: Cell::new(0),
            cleanups: RefCell::new(RankMap::new()),
            weaks: RefCell::new(None),
            specials: Mutex::new(()),
            #[cfg(loom)]
            looks: sexton_sync::fields::AtomicU32::new(0),
        };
        #[cfg(loom)]
        header.looks.settle();
        // SAFETY: metadata memory is mapped and aligned; there is no reference to a closed span's
        // header.
        let place = unsafe { &raw mut (*self.0.as_ptr()).header };
        // SAFETY: as above.
        unsafe { place.write(header) };
    }

    /// Drops the header of a span that is being closed.
    ///
    /// # Safety
    ///
    /// The span is open, its bitmaps are all zero, and no `SpanRef` to it is used again.
    pub(crate) unsafe fn close(self) {
        // SAFETY: the span is open, so the header was written.
        let place = unsafe { &raw mut (*self.0.as_ptr()).header };
        // SAFETY: by this function's contract the header is not used again.
        unsafe { place.drop_in_place() };
    }
}

impl Deref for SpanRef {
    type Target = Span;

    #[inline]
    fn deref(&self) -> &Span {
        // SAFETY: by the type's invariant the span is open and its region mapped. All fields that
        // change while it is open are cells.
        unsafe { self.0.as_ref() }
    }
}

impl Span {
    #[inline]
    pub(crate) fn info(&self) -> &'static TypeInfo {
        self.header.info
    }

    #[inline]
    pub(crate) fn trace_glue(&self) -> TraceGlue {
        self.header.trace
    }

    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.header.base
    }

    #[inline]
    pub(crate) fn class(&self) -> u32 {
        self.header.class
    }

    #[inline]
    pub(crate) fn slots(&self) -> usize {
        self.header.slots as usize
    }

    /// Counts the allocated slots. O(words).
    pub(crate) fn allocated(&self) -> usize {
        self.alloc_bits().iter().map(|word| word.get().count_ones() as usize).sum()
    }

    pub(crate) fn units(&self) -> usize {
        self.header.units as usize
    }

    /// Takes note that the span is about to be allocated from.
    pub(crate) fn wake(&self) {
        self.header.rests.set(0);
    }

    /// Takes note that a sweep has found the span hardly used. Tells whether its free pages should
    /// go: after the second such sweep in a row, and now and then after that.
    pub(crate) fn rest(&self) -> bool {
        let rests = self.header.rests.get().saturating_add(1);
        self.header.rests.set(rests);
        rests > 1 && rests.is_power_of_two()
    }

    /// Gives the span's pages without an object back to the system, and tells how many bytes. Does
    /// nothing if it has been allocated from since [`rest`](Self::rest).
    ///
    /// Called while no allocator holds the span.
    pub(crate) fn give_back_free_pages(&self) -> usize {
        if self.header.rests.get() == 0 || self.units() != 1 {
            return 0;
        }
        let (page, slot_bytes) = (pages::page_bytes(), self.info().slot_bytes);
        let is_free = |page_at: &usize| {
            let from = page_at * page / slot_bytes;
            let to = ((page_at + 1) * page).div_ceil(slot_bytes).min(self.slots());
            bitmap::are_clear(self.alloc_bits(), from, to)
        };
        let mut bytes = 0;
        let mut at = 0;
        while at < SPAN_BYTES / page {
            let free = (at..SPAN_BYTES / page).take_while(is_free).count();
            if free > 0 {
                // SAFETY: pages of the span lie within its unit, behind its base.
                let start = unsafe { self.base().byte_add(at * page) };
                // SAFETY: no slot on these whole pages holds an object, and no allocator has one of
                // them cached. A free slot's contents are never read.
                let gone = unsafe { pages::give_back(start, free * page) };
                bytes += if gone { free * page } else { 0 };
            }
            at += free + 1;
        }
        bytes
    }

    /// Words of its bitmaps that the span uses.
    #[inline]
    pub(crate) fn words(&self) -> usize {
        self.slots().div_ceil(64)
    }

    /// Gives the slots that exist among those of the bitmap word at `index`.
    #[inline]
    pub(crate) fn valid(&self, index: usize) -> u64 {
        let rest = self.slots() - index * 64;
        if rest >= 64 { u64::MAX } else { (1 << rest) - 1 }
    }

    #[inline]
    pub(crate) fn alloc_bits(&self) -> &[Cell<u64>] {
        &self.alloc[..self.words()]
    }

    #[inline]
    pub(crate) fn special_bits(&self) -> &[Cell<u64>] {
        self.looked_at();
        &self.special[..self.words()]
    }

    /// Gives the words of [`special_bits`](Self::special_bits) and those that no slot uses: for a
    /// look at one of them.
    #[inline]
    pub(crate) fn special_words(&self) -> &[Cell<u64>; BITMAP_WORDS] {
        self.looked_at();
        &self.special
    }

    #[inline]
    pub(crate) fn mark_bits(&self) -> &[AtomicU64] {
        &self.mark[..self.words()]
    }

    /// Gives the mark bits as plain words.
    ///
    /// # Safety
    ///
    /// Until the slice is done with, no other thread touches the span's mark bits.
    #[inline]
    pub(crate) unsafe fn final_marks(&self) -> &[Cell<u64>] {
        let words = self.mark_bits();
        // SAFETY: both types are as large as a `u64`, valid for every bit pattern and open to
        // changes behind a shared reference; `AtomicU64` is aligned to no less; by this function's
        // contract no access is concurrent.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    /// Keeps other threads away from the special bits, the cleanups and the weak records of the
    /// span. Nothing is to be done in a mode with one mutator, or in a stop.
    #[inline]
    pub(crate) fn hold_specials<M: Locking>(&self) -> Option<MutexGuard<'_, ()>> {
        M::SHARED.then(|| self.header.specials.lock())
    }

    /// Gives the heads of the cleanup chains of the span's objects, keyed by `special_bits`.
    pub(crate) fn cleanups(&self) -> &RefCell<RankMap<Head>> {
        &self.header.cleanups
    }

    /// Gives the weak records of the span's objects.
    pub(crate) fn weaks(&self) -> &RefCell<Option<Box<WeakTable>>> {
        &self.header.weaks
    }

    /// Gives the slot of the object at `object`, which lies in this span.
    #[inline]
    pub(crate) fn slot_of(&self, object: NonNull<u8>) -> usize {
        let offset = (object.addr().get() & (SPAN_BYTES - 1)) as u64;
        ((offset * u64::from(self.header.reciprocal)) >> 32) as usize
    }

    /// Gives the slot of an object of type `T`: [`slot_of`](Self::slot_of) without a look at the
    /// header.
    #[inline]
    pub(crate) fn slot_of_type<T>(&self, object: NonNull<u8>) -> usize {
        let slot_bytes = const { slot_bytes::<T>() };
        if slot_bytes > SPAN_BYTES {
            return 0;
        }
        (object.addr().get() & (SPAN_BYTES - 1)) / slot_bytes
    }

    /// Gives the address of a slot.
    #[inline]
    pub(crate) fn object_at(&self, slot: usize) -> NonNull<u8> {
        debug_assert!(slot < self.slots());
        // SAFETY: slots of the span lie within its units, behind its base.
        unsafe { self.base().byte_add(slot * self.header.info.slot_bytes) }
    }

    /// Lets loom know that bits are about to be looked at, or changed.
    #[inline(always)]
    pub(crate) fn looked_at(&self) {
        #[cfg(loom)]
        self.header.looks.fetch_add(1, Relaxed);
    }

    /// Marks a slot; whether it was unmarked before. For a marker that works alone.
    #[inline]
    pub(crate) fn mark(&self, slot: usize) -> bool {
        let word = &self.mark[slot / 64];
        let bit = 1 << (slot % 64);
        // Relaxed, and no read-modify-write: only one thread marks, and the sweep comes after it.
        let old = word.load(Relaxed);
        self.looked_at();
        word.store(old | bit, Relaxed);
        old & bit == 0
    }

    /// Marks a slot while other threads mark, too; whether this was the one to do it.
    #[inline]
    pub(crate) fn mark_shared(&self, slot: usize) -> bool {
        let word = &self.mark[slot / 64];
        let bit = 1 << (slot % 64);
        // Relaxed: who wins traces the object, whose contents were there before the cycle; the
        // sweep comes after all have been joined. A look first: most pointers lead to marked
        // objects, and a read-modify-write costs ten times as much.
        self.looked_at();
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0
    }

    /// Marks an object of the span, as [`mark_shared`](Self::mark_shared).
    pub(crate) fn mark_at(&self, object: NonNull<u8>) -> bool {
        self.mark_shared(self.slot_of(object))
    }

    /// Marks slots of one word, of objects that are about to be born.
    #[inline]
    pub(crate) fn mark_born(&self, word: usize, slots: u64) {
        // Relaxed: the objects' addresses are not known yet. A read-modify-write: other threads
        // may mark their objects in the same word.
        self.looked_at();
        self.mark[word].fetch_or(slots, Relaxed);
    }

    /// Takes the marks of slots back in which no object was born.
    pub(crate) fn unmark(&self, word: usize, slots: u64) {
        if self.mark[word].load(Relaxed) & slots != 0 {
            // Relaxed, and a read-modify-write: as above.
            self.mark[word].fetch_and(!slots, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn is_marked(&self, slot: usize) -> bool {
        self.looked_at();
        self.mark[slot / 64].load(Relaxed) >> (slot % 64) & 1 != 0
    }

    pub(crate) fn is_marked_at(&self, object: NonNull<u8>) -> bool {
        self.is_marked(self.slot_of(object))
    }

    pub(crate) fn clear_marks(&self) {
        self.mark_bits().iter().for_each(|word| word.store(0, Relaxed));
    }
}

fn reciprocal(slot_bytes: usize) -> u32 {
    (1u64 << 32).div_ceil(slot_bytes as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::layout::MIN_SLOT_BYTES;

    #[test]
    fn the_reciprocal_finds_every_slot_of_every_slot_size() {
        for slot_bytes in (MIN_SLOT_BYTES..=SPAN_BYTES).step_by(8) {
            let reciprocal = u64::from(reciprocal(slot_bytes));
            for slot in 0..SPAN_BYTES / slot_bytes {
                assert_eq!((((slot * slot_bytes) as u64 * reciprocal) >> 32) as usize, slot);
            }
        }
    }

    // A checker's locks are larger.
    #[cfg(not(any(loom, shuttle)))]
    #[test]
    fn metadata_take_a_fortieth_of_a_region() {
        assert_eq!(size_of::<Span>(), 128 + 3 * 512);
        assert_eq!(METADATA_UNITS, 2);
    }
}
