//! Spans: 64 KiB of slots for objects of one type, and the metadata that describes them.
//!
//! A span's metadata ([`Span`]: a header and three bitmaps) does not lie in the span. All metadata
//! of a region lie together at the region's head. So a sweep reads them in order and touches no
//! object. From an object's address they are a mask and a shift away.
//!
//! Spans of the smallest slots are *dense*: they have twice as many slots as there is room for in
//! bitmaps at the region's head. So their bitmaps lie in the span, in front of the first slot.
//! Whether a span is dense follows from its type, so marking finds the bitmaps without a look.
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
use crate::memory::layout::{
    BITMAP_WORDS, DENSE_HEAD, DENSE_WORDS, METADATA_UNITS, OWN_HEAD, REGION_BYTES, SPAN_BYTES,
    SpanSlots, UNITS, is_dense, slot_bytes,
};
use crate::memory::locking::Locking;
use crate::memory::pages;
use crate::memory::rank_map::RankMap;
use crate::memory::type_info::{TraceGlue, TypeInfo};
use crate::memory::weak_table::WeakTable;

const _: () = assert!(UNITS * size_of::<Span>() <= METADATA_UNITS * SPAN_BYTES);
const _: () = assert!(size_of::<Span>() <= OWN_HEAD && size_of::<Dense>() == DENSE_HEAD);

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

/// The bitmaps of a dense span.
#[repr(C)]
struct Dense {
    alloc: [Cell<u64>; DENSE_WORDS],
    mark: [AtomicU64; DENSE_WORDS],
    special: [Cell<u64>; DENSE_WORDS],
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
    /// The first slot.
    base: NonNull<u8>,
    /// `ceil(2^32 / slot_bytes)`, so that a slot's index is a multiplication; 0 of large slots.
    reciprocal: u32,
    /// Units of 64 KiB the span covers: those up to the next span of its group.
    units: u8,
    /// Units of its group in front of it.
    group_index: u8,
    /// Pages given back of which no slot has been used since.
    gone: Cell<u16>,
    /// Sweeps in a row that have found it hardly used, nothing having been allocated from it in
    /// between; or [`FRESH`].
    rests: Cell<u16>,
    weaks: RefCell<Option<Box<WeakTable>>>,
    /// Held while a session of a heap with many mutators uses `cleanups`, `special` or `weaks`.
    specials: Mutex<()>,
    /// Loom cannot see the bitmaps, which are made as zeroed memory. It sees this.
    #[cfg(loom)]
    looks: sexton_sync::fields::AtomicU32,
}

const _: () = assert!(std::mem::offset_of!(Header, base) == 64);

/// Stands for the rests of a span whose slots lie in memory that was not in use before.
const FRESH: u16 = u16::MAX;

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

    /// Writes the header of a span that is being opened, and the bitmaps of a dense one. `base` is
    /// its first slot. With `is_fresh` its memory has not been in use before.
    ///
    /// # Safety
    ///
    /// The span is closed, its bitmaps at the region's head are all zero, its slots have the
    /// type's size, and its units belong to the caller.
    pub(crate) unsafe fn open(
        self,
        info: &'static TypeInfo,
        base: NonNull<u8>,
        SpanSlots { slots, units, index, .. }: SpanSlots,
        class: u32,
        is_fresh: bool,
    ) {
        let header = Header {
            info,
            trace: info.trace,
            base,
            reciprocal: if info.is_large() { 0 } else { reciprocal(info.slot_bytes) },
            slots: slots as u32,
            class,
            units: units as u8,
            group_index: index as u8,
            gone: Cell::new(0),
            rests: Cell::new(if is_fresh { FRESH } else { 0 }),
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
        if is_dense(info.slot_bytes) {
            // SAFETY: a dense span's first slot has its bitmaps in front of it, in its unit.
            let bitmaps = unsafe { base.byte_sub(DENSE_HEAD) };
            // SAFETY: as above; no slot is there, and no reference to a closed span's bitmaps.
            unsafe { bitmaps.write_bytes(0, DENSE_HEAD) };
        }
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
        usize::from(self.header.units)
    }

    /// Gives the place of its first unit in its group, counted in units.
    pub(crate) fn group_index(&self) -> usize {
        usize::from(self.header.group_index)
    }

    /// Takes note that the span is about to be allocated from.
    ///
    /// With `fills`, its slots are about to be used. If it is fresh they get their memory in one
    /// call, which takes less time than a fault for each page.
    ///
    /// Tells whether pages had been given back, which may be in memory from here on.
    pub(crate) fn wake(&self, fills: bool) -> bool {
        if self.header.rests.replace(0) == FRESH && fills {
            // Whole pages. What is in front of the first slot is the span's, or a neighbour's in
            // its group, and keeps its contents.
            let start = self.base().map_addr(|base| {
                let page = base.get() / pages::page_bytes() * pages::page_bytes();
                std::num::NonZeroUsize::new(page).expect("no span is at address 0")
            });
            let lead = self.base().addr().get() - start.addr().get();
            pages::touch(start, lead + self.slots() * self.info().slot_bytes);
        }
        self.header.gone.get() > 0
    }

    /// Gives the bytes of its pages that are not in memory.
    pub(crate) fn gone_bytes(&self) -> usize {
        usize::from(self.header.gone.get()) * pages::page_bytes()
    }

    /// Takes note that nothing of it is in memory.
    pub(crate) fn lose(&self) {
        self.header.gone.set((self.units() * SPAN_BYTES / pages::page_bytes()) as u16);
    }

    /// Takes note that all of it may be in memory.
    pub(crate) fn regain(&self) {
        self.header.gone.set(0);
    }

    /// Takes note that a sweep has found the span hardly used. Tells whether its free pages should
    /// go: after the second such sweep in a row, and now and then after that.
    pub(crate) fn rest(&self) -> bool {
        let rests = self.header.rests.get();
        // One that nothing was allocated from stays fresh. One that has rested for as long as can
        // be counted begins anew.
        let more = if rests >= FRESH - 1 { rests } else { rests + 1 };
        self.header.rests.set(more);
        more > 1 && more.is_power_of_two()
    }

    /// Tells whether it was swept, or opened, and no allocator has had it since.
    pub(crate) fn rests(&self) -> bool {
        self.header.rests.get() > 0
    }

    /// Gives the span's pages without an object back to the system, and tells how many bytes. Does
    /// nothing if it has been allocated from since [`rest`](Self::rest).
    ///
    /// A page that it shares with the `next` span goes, too, if that has no object there.
    ///
    /// Called while no allocator holds the span, or the next one.
    pub(crate) fn give_back_free_pages(&self, next: Option<SpanRef>) -> usize {
        if self.header.rests.get() == 0 {
            return 0;
        }
        let (page, slot_bytes) = (pages::page_bytes(), self.info().slot_bytes);
        let base = self.base().addr().get();
        // What is left behind the last slot is no other span's, unless it is in a group.
        let end = if self.info().group_units == 1 {
            (base + 1).next_multiple_of(SPAN_BYTES)
        } else {
            base + self.slots() * slot_bytes
        };
        let is_free = |page_at: &usize| {
            let from = (page_at - base) / slot_bytes;
            let to = (page_at + page - base).div_ceil(slot_bytes).min(self.slots());
            bitmap::are_clear(self.alloc_bits(), from, to)
        };
        let mut bytes = 0;
        // Whole pages only. What is in front of the first slot is not the slots'.
        let mut at = base.next_multiple_of(page);
        let shared = end.next_multiple_of(page);
        let is_next_free = |next: SpanRef| {
            shared <= end + slot_bytes && bitmap::are_clear(next.alloc_bits(), 0, 1)
        };
        let end = if next.is_some_and(is_next_free) { shared } else { end / page * page };
        while at < end {
            let free = (at..end).step_by(page).take_while(is_free).count();
            if free > 0 {
                // SAFETY: pages of the span lie within its units, behind its base.
                let start = unsafe { self.base().byte_add(at - base) };
                // SAFETY: no slot on these whole pages holds an object, and no allocator has one of
                // them cached. A free slot's contents are never read.
                let gone = unsafe { pages::give_back(start, free * page) };
                bytes += if gone { free * page } else { 0 };
            }
            at += (free + 1) * page;
        }
        self.header.gone.set((bytes / page) as u16);
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

    /// Tells whether the span is dense.
    #[inline]
    pub(crate) fn is_dense(&self) -> bool {
        self.slots() > BITMAP_WORDS * 64
    }

    /// Gives the bitmaps of a dense span.
    #[inline]
    fn dense(&self) -> Option<&Dense> {
        self.is_dense().then(|| self.in_front())
    }

    /// Gives the bitmaps in front of the first slot. Called if the span is dense.
    #[inline]
    fn in_front(&self) -> &Dense {
        debug_assert!(is_dense(self.info().slot_bytes));
        // SAFETY: the base of a dense span is that far from the beginning of its unit.
        let bitmaps = unsafe { self.base().byte_sub(DENSE_HEAD) };
        // SAFETY: they were written when the span was opened. No slot is there. They are cells.
        unsafe { bitmaps.cast().as_ref() }
    }

    #[inline]
    pub(crate) fn alloc_bits(&self) -> &[Cell<u64>] {
        match self.dense() {
            None => &self.alloc[..self.words()],
            Some(dense) => &dense.alloc,
        }
    }

    #[inline]
    pub(crate) fn special_bits(&self) -> &[Cell<u64>] {
        self.looked_at();
        match self.dense() {
            None => &self.special[..self.words()],
            Some(dense) => &dense.special,
        }
    }

    /// Gives the words of [`special_bits`](Self::special_bits), of a span of type `T`, and those
    /// that no slot uses: for a look at one of them.
    #[inline]
    pub(crate) fn special_words<T>(&self) -> &[Cell<u64>] {
        self.looked_at();
        if const { is_dense(slot_bytes::<T>()) } { &self.in_front().special } else { &self.special }
    }

    #[inline]
    pub(crate) fn mark_bits(&self) -> &[AtomicU64] {
        match self.dense() {
            None => &self.mark[..self.words()],
            Some(dense) => &dense.mark,
        }
    }

    /// Gives the word of the mark bits that has a slot's bit.
    #[inline]
    fn mark_word(&self, index: usize) -> &AtomicU64 {
        match self.dense() {
            None => &self.mark[index],
            Some(dense) => &dense.mark[index],
        }
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
        let offset = (object.addr().get() - self.base().addr().get()) as u64;
        ((offset * u64::from(self.header.reciprocal)) >> 32) as usize
    }

    /// Gives the slot of an object of type `T`: [`slot_of`](Self::slot_of) without a look at the
    /// header.
    #[inline]
    pub(crate) fn slot_of_type<T>(&self, object: NonNull<u8>) -> usize {
        let bytes = const { slot_bytes::<T>() };
        if bytes > SPAN_BYTES {
            return 0;
        }
        let head = const { if is_dense(slot_bytes::<T>()) { DENSE_HEAD } else { 0 } };
        // In a group the first slot begins less than a slot's size behind the unit.
        ((object.addr().get() & (SPAN_BYTES - 1)) - head) / bytes
    }

    /// Gives the address of a slot.
    #[inline]
    pub(crate) fn object_at(&self, slot: usize) -> NonNull<u8> {
        debug_assert!(slot < self.slots());
        // SAFETY: slots of the span lie within its group, behind its base.
        unsafe { self.base().byte_add(slot * self.header.info.slot_bytes) }
    }

    /// Lets loom know that bits are about to be looked at, or changed.
    #[inline(always)]
    pub(crate) fn looked_at(&self) {
        #[cfg(loom)]
        self.header.looks.fetch_add(1, Relaxed);
    }

    /// Marks an object of type `T`, which is in the slot, without a look at the header. As
    /// [`MarkBit::set`].
    #[inline]
    pub(crate) fn mark_of_type<T>(&self, object: NonNull<u8>, slot: usize) -> bool {
        if const { is_dense(slot_bytes::<T>()) } {
            self.bit_at::<true>(object, slot).set()
        } else {
            self.bit_at::<false>(object, slot).set()
        }
    }

    /// Gives the mark bit of an object of the span, which is in the slot, and is dense or not.
    #[inline]
    pub(crate) fn bit_at<const DENSE: bool>(
        &self,
        object: NonNull<u8>,
        slot: usize,
    ) -> MarkBit<'_> {
        let word = if DENSE {
            let offset = object.addr().get() & (SPAN_BYTES - 1);
            // SAFETY: the object is in this span. That is dense, as its type says, so the bitmaps
            // are at the beginning of its unit.
            let bitmaps = unsafe { object.byte_sub(offset) };
            // SAFETY: as in `in_front`.
            let dense: &Dense = unsafe { bitmaps.cast().as_ref() };
            &dense.mark[slot / 64]
        } else {
            &self.mark[slot / 64]
        };
        MarkBit {
            #[cfg(loom)]
            span: self,
            word,
            slot,
        }
    }

    /// Gives the mark bit of a slot.
    #[inline]
    pub(crate) fn mark_of(&self, slot: usize) -> MarkBit<'_> {
        MarkBit {
            #[cfg(loom)]
            span: self,
            word: self.mark_word(slot / 64),
            slot,
        }
    }

    /// Marks an object of the span, as [`MarkBit::set_shared`].
    pub(crate) fn mark_at(&self, object: NonNull<u8>) -> bool {
        self.mark_of(self.slot_of(object)).set_shared()
    }

    /// Marks slots of one word, of objects that are about to be born.
    #[inline]
    pub(crate) fn mark_born(&self, word: usize, slots: u64) {
        // Relaxed: the objects' addresses are not known yet. A read-modify-write: other threads
        // may mark their objects in the same word.
        self.looked_at();
        self.mark_word(word).fetch_or(slots, Relaxed);
    }

    /// Takes the marks of slots back in which no object was born.
    pub(crate) fn unmark(&self, word: usize, slots: u64) {
        let marks = self.mark_word(word);
        if marks.load(Relaxed) & slots != 0 {
            // Relaxed, and a read-modify-write: as above.
            marks.fetch_and(!slots, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn is_marked(&self, slot: usize) -> bool {
        self.looked_at();
        self.mark_word(slot / 64).load(Relaxed) >> (slot % 64) & 1 != 0
    }

    pub(crate) fn is_marked_at(&self, object: NonNull<u8>) -> bool {
        self.is_marked(self.slot_of(object))
    }

    pub(crate) fn clear_marks(&self) {
        self.mark_bits().iter().for_each(|word| word.store(0, Relaxed));
    }
}

/// The mark bit of one slot.
#[derive(Clone, Copy)]
pub(crate) struct MarkBit<'a> {
    #[cfg(loom)]
    span: &'a Span,
    word: &'a AtomicU64,
    slot: usize,
}

impl MarkBit<'_> {
    /// As [`Span::looked_at`].
    #[inline(always)]
    fn looked_at(self) {
        #[cfg(loom)]
        self.span.looked_at();
    }

    /// Marks the slot; whether it was unmarked before. For a marker that works alone.
    #[inline(always)]
    pub(crate) fn set(self) -> bool {
        let (word, bit) = (self.word, 1 << (self.slot % 64));
        // Relaxed, and no read-modify-write: only one thread marks, and the sweep comes after it.
        let old = word.load(Relaxed);
        self.looked_at();
        word.store(old | bit, Relaxed);
        old & bit == 0
    }

    /// Marks the slot while other threads mark, too; whether this was the one to do it.
    #[inline]
    pub(crate) fn set_shared(self) -> bool {
        let (word, bit) = (self.word, 1 << (self.slot % 64));
        // Relaxed: who wins traces the object, whose contents were there before the cycle; the
        // sweep comes after all have been joined. A look first: most pointers lead to marked
        // objects, and a read-modify-write costs ten times as much.
        self.looked_at();
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0
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
        assert!(UNITS * size_of::<Span>() > (METADATA_UNITS - 1) * SPAN_BYTES);
    }
}
