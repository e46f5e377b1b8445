//! Regions: the address space spans are carved from.
//!
//! A region is 4 MiB, aligned to 4 MiB, and mapped from the system in one piece. Its first units
//! hold the metadata of all its spans, the others are spans. An object too large for that has a
//! region of its own. That is as long as the object, which lies in its first unit, behind the
//! metadata of one span.
//!
//! Slots that do not fill a unit well lie across a *group* of units, with a span for each unit in
//! which slots begin. The spans of a group are opened together. They are closed together, when a
//! pass has found all of them empty.
//!
//! Its memory is small pages at first, so that a span takes as much as has been written to. What is
//! well used becomes two large pages; see [`Region::well_used`]. What has been of no use for a
//! whole cycle goes back; see [`Region::give_back`].
//!
//! A mapping may be shared with other heaps; see
//! [`shared_regions`]. Then a heap's `Region` is its part of it:
//! the units that it owns. They serve spans of one unit.
//!
//! Invariant: a unit of the heap's is free, and then its bitmaps at the region's head are zero; or
//! it belongs to one open span. The span's first unit has its bit in `open`. A region does not know
//! what is in a span.
//!
//! Invariant: a unit without its bit in `touched` is free, and takes no memory.

use std::ptr::NonNull;

use crate::memory::bitmap;
use crate::memory::layout::{
    METADATA_UNITS, OWN_HEAD, REGION_BYTES, SPAN_BYTES, SpanSlots, UNITS, span_slots,
};
use crate::memory::pages::{self, HUGE_PAGE};
#[cfg(not(any(loom, shuttle)))]
use crate::memory::shared_regions::{self, SharedUnit};
use crate::memory::span::{Span, SpanRef};
use crate::memory::type_info::TypeInfo;

/// Gives how many bytes of memory a span of the type takes, or the first one of a group.
pub(crate) fn first_span_bytes(info: &TypeInfo) -> u64 {
    if info.is_own() {
        return info.slot_bytes as u64;
    }
    let first = span_slots(info.slot_bytes, info.group_units, 0);
    (first.map_or(1, |slots| slots.units) * SPAN_BYTES) as u64
}

/// One mapping of span units with their metadata, or a heap's part of a shared one.
pub(crate) struct Region {
    base: NonNull<u8>,
    /// Bytes of the mapping.
    bytes: usize,
    /// Units that can belong to spans: [`ALL_FREE`], or [`OWN`], or those that the heap has taken
    /// of a shared mapping.
    owned: u64,
    /// The mapping has units of other heaps.
    is_shared: bool,
    /// Units that belong to no span.
    free: u64,
    /// First units of open spans.
    open: u64,
    /// Those of spans in groups of several units.
    grouped: u64,
    /// Of those, the spans that the last pass has not sorted.
    unsorted: u64,
    /// Of those, the spans that the pass has found empty, and that are on no list until all of
    /// their group are sorted.
    emptied: u64,
    /// Of those, the spans that the pass under way over all spans has not come to. A span opened
    /// meanwhile is not among them.
    ahead: u64,
    /// Cycles in a row after which it was empty, nothing having been opened in between.
    empty_cycles: u32,
    /// Units that have been open since their pages were mapped, or given back.
    touched: u64,
    /// Pages of metadata that have been written to since then.
    metadata: u64,
    /// Units that were free at the end of the last cycle and have been since.
    rested: u64,
    /// Units of spans that the last sweep has found well used.
    well_used: u64,
    /// Units that were opened again in the last cycle, after they had been freed.
    reused: u64,
    /// First units of spans that are hardly used and have been at rest, so that their free pages
    /// are to go.
    at_rest: u64,
    /// The units of large pages.
    huge: u64,
    /// Bytes of pages that open spans have given back.
    gone: usize,
    resident_bytes: u64,
}

/// How long something has to have been of no use before its pages are given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unused {
    /// For a whole cycle. A large page stays whole unless half of it is.
    ForACycle,
    /// Now.
    Now,
}

/// Memory that is to be backed by one large page.
#[derive(Debug)]
pub(crate) struct HugePage(NonNull<u8>);

impl HugePage {
    /// Has the system make it. That copies all of it, and takes a good part of a millisecond.
    pub(crate) fn make(self) {
        pages::try_huge_page(self.0);
    }
}

// SAFETY: the mapping belongs to the region, wherever that is.
unsafe impl Send for Region {}

impl Region {
    /// Maps a region for all types that share regions; `None` if the system gives no memory.
    pub(crate) fn map() -> Option<Region> {
        let base = pages::map(REGION_BYTES, REGION_BYTES)?;
        pages::prefer_small_pages(base, REGION_BYTES);
        Some(Region::new(base, REGION_BYTES, ALL_FREE, false))
    }

    /// Maps a region of its own for an object of that size.
    ///
    /// With `huge_pages`, an object that is larger than other regions is backed by pages of 2 MiB
    /// from the beginning: all of it is about to be written.
    pub(crate) fn map_own(slot_bytes: usize, huge_pages: bool) -> Option<Region> {
        let bytes = (OWN_HEAD + slot_bytes).next_multiple_of(pages::page_bytes());
        let base = pages::map(bytes, REGION_BYTES)?;
        if huge_pages && bytes > REGION_BYTES {
            pages::prefer_huge_pages(base, bytes);
        } else {
            pages::prefer_small_pages(base, bytes);
        }
        Some(Region::new(base, bytes, OWN, false))
    }

    /// Makes a heap's part of a shared mapping, with one unit in it.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn shared(unit: &SharedUnit) -> Region {
        let mut region = Region::new(unit.base, REGION_BYTES, 0, true);
        region.add(unit);
        region
    }

    /// Adds another unit of the shared mapping.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn add(&mut self, unit: &SharedUnit) {
        debug_assert!(self.is_shared && self.base == unit.base && self.owned & unit.bit == 0);
        self.owned |= unit.bit;
        self.free |= unit.bit;
        if unit.is_touched {
            self.touched |= unit.bit;
            self.count_resident();
        }
    }

    fn new(base: NonNull<u8>, bytes: usize, owned: u64, is_shared: bool) -> Region {
        Region {
            base,
            bytes,
            owned,
            is_shared,
            free: owned,
            open: 0,
            grouped: 0,
            unsorted: 0,
            emptied: 0,
            ahead: 0,
            empty_cycles: 0,
            touched: 0,
            metadata: 0,
            rested: 0,
            well_used: 0,
            reused: 0,
            at_rest: 0,
            huge: 0,
            gone: 0,
            resident_bytes: 0,
        }
    }

    /// Tells whether it was mapped for one object.
    fn is_own(&self) -> bool {
        self.owned == OWN
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Gives the bytes of address space that are the heap's: the mapping, or the units that it owns
    /// and their metadata.
    pub(crate) fn bytes(&self) -> usize {
        if self.is_shared { self.units() * UNIT_BYTES } else { self.bytes }
    }

    /// Counts the units that are the heap's.
    pub(crate) fn units(&self) -> usize {
        self.owned.count_ones() as usize
    }

    /// Tells whether it is a heap's part of a shared mapping.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Gives the base of its mapping, if that is shared.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn shared_base(&self) -> Option<NonNull<u8>> {
        self.is_shared.then_some(self.base)
    }

    /// Gives the bytes that may be in memory: what has been in use, and was not given back.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// Tells whether what it knows of its units holds together. For the verifier.
    pub(crate) fn is_consistent(&self) -> bool {
        let spans = self.spans().map(|span| units_of(span.units(), self.unit_of(span)));
        let used = spans.fold(0, |used, units| used | units);
        let grouped = self.spans().filter(|span| span.info().group_units > 1);
        used == self.owned & !self.free
            && self.free & !self.owned == 0
            && !(self.is_shared && (self.huge | self.grouped | self.touched & !self.owned) != 0)
            && self.grouped == grouped.fold(0, |grouped, span| grouped | 1 << self.unit_of(span))
            && (self.unsorted | self.emptied) & !self.grouped == 0
            && used & !self.touched == 0
            && (self.well_used | self.at_rest) & !used == 0
            && self.at_rest & !self.open == 0
            && self.rested & !self.free == 0
            && self.gone == self.spans().map(|span| span.gone_bytes()).sum()
    }

    /// Gives the bytes of metadata that may be in memory.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let bytes = if self.is_shared {
            self.touched.count_ones() as usize * size_of::<Span>()
        } else {
            self.metadata.count_ones() as usize * pages::page_bytes()
        };
        bytes as u64
    }

    /// Takes note that all of a span may be in memory.
    pub(crate) fn regain(&mut self, span: SpanRef) {
        self.gone -= span.gone_bytes();
        span.regain();
        self.count_resident();
    }

    /// Called when `touched`, `metadata` or `gone` has changed.
    fn count_resident(&mut self) {
        let units = self.touched.count_ones() as usize * SPAN_BYTES;
        self.resident_bytes = match self.touched {
            0 if self.is_own() => 0,
            _ if self.is_own() => self.bytes as u64,
            _ => self.metadata_bytes() + (units - self.gone) as u64,
        };
    }

    /// Takes note that a cycle has ended; whether the region should be unmapped now. A region that
    /// has just become empty is likely to be filled again. One that stayed empty for a whole cycle
    /// goes. One made for an object larger than other regions goes at once.
    pub(crate) fn expires(&mut self) -> bool {
        self.reused &= !(self.free & self.rested);
        self.rested = self.free;
        self.empty_cycles = if self.is_empty() { self.empty_cycles + 1 } else { 0 };
        self.empty_cycles > 1 || (self.is_empty() && self.bytes > REGION_BYTES)
    }

    /// Tells whether a span of one unit would find room, or another object that it was mapped for.
    pub(crate) fn has_room(&self) -> bool {
        self.free != 0
    }

    /// Opens a span, or a group of them, in the first gap that fits, lowest address first: recently
    /// emptied spans near the front are the warm ones. Gives the first span, and the units of the
    /// others.
    pub(crate) fn open(&mut self, info: &'static TypeInfo, class: u32) -> Option<(SpanRef, u64)> {
        let taken = self.gap_for(info)?;
        let first = taken.trailing_zeros() as usize;
        let is_fresh = self.touched & taken == 0 && self.bytes <= REGION_BYTES;
        let mut opened = 0;
        for index in 0..info.group_units {
            if let Some(slots) = span_slots(info.slot_bytes, info.group_units, index) {
                let unit = first + index;
                opened |= 1 << unit;
                // SAFETY: the units were free, so the span is closed and its bitmaps are zero.
                unsafe { self.open_span(unit, info, slots, class, is_fresh) };
            }
        }
        self.free &= !taken;
        self.open |= opened;
        self.grouped |= if info.group_units > 1 { opened } else { 0 };
        self.empty_cycles = 0;
        self.rested &= !taken;
        self.reused |= taken & self.touched;
        let pages = bitmap::ones_of(0, opened).fold(0, |pages, unit| pages | metadata_pages(unit));
        let (touched, metadata) = (self.touched | taken, self.metadata | pages);
        if self.touched & taken == 0 {
            // Nothing of the others is in memory before an allocator takes them.
            // SAFETY: they are open.
            for span in unsafe { self.spans_of(opened & !(1 << first)) } {
                span.lose();
                self.gone += span.gone_bytes();
            }
        }
        if (touched, metadata) != (self.touched, self.metadata) {
            (self.touched, self.metadata) = (touched, metadata);
            self.count_resident();
        }
        // SAFETY: the unit is that of the first span, in this mapped region.
        Some((unsafe { SpanRef::at(self.base, first) }, opened & !(1 << first)))
    }

    /// Gives how many bytes of memory [`open`](Self::open) would take. `None` if there is no gap.
    pub(crate) fn cost(&self, info: &TypeInfo) -> Option<u64> {
        let taken = self.gap_for(info)?;
        let units = taken & !self.touched;
        Some(match units {
            _ if self.is_own() => u64::from(units.count_ones()) * self.bytes as u64,
            _ if units == taken => first_span_bytes(info),
            _ => u64::from(units.count_ones()) * SPAN_BYTES as u64,
        })
    }

    /// Gives free units for a span of the type, or a group.
    fn gap_for(&self, info: &TypeInfo) -> Option<u64> {
        let fits = if info.is_own() {
            // Used for another object if that is not much smaller.
            let bytes = OWN_HEAD + info.slot_bytes;
            self.is_own() && (bytes..=bytes + bytes / 16).contains(&self.bytes)
        } else {
            !self.is_own() && (info.group_units == 1 || !self.is_shared)
        };
        let first = if fits { first_gap(self.free, info.group_units)? } else { return None };
        Some(units_of(info.group_units, first))
    }

    /// # Safety
    ///
    /// The span at the unit is closed, and its bitmaps are zero. The slots are of the type's size,
    /// and lie in free units.
    unsafe fn open_span(
        &self,
        unit: usize,
        info: &'static TypeInfo,
        slots: SpanSlots,
        class: u32,
        is_fresh: bool,
    ) {
        // SAFETY: the unit lies within the region, whose mapping `base` covers.
        let place = unsafe { self.base.byte_add(unit * SPAN_BYTES + slots.offset) };
        // SAFETY: the region is mapped and has that unit.
        let span = unsafe { SpanRef::at(self.base, unit) };
        // SAFETY: by this function's contract.
        unsafe { span.open(info, place, slots, class, is_fresh) };
    }

    /// Gives the spans of units, in address order.
    ///
    /// # Safety
    ///
    /// The units are those of open spans.
    pub(crate) unsafe fn spans_of(&self, units: u64) -> impl Iterator<Item = SpanRef> + use<> {
        let base = self.base;
        // SAFETY: units of open spans are units of this mapped region.
        bitmap::ones_of(0, units).map(move |unit| unsafe { SpanRef::at(base, unit) })
    }

    /// Takes back the units of an open span of this region that is in no group.
    ///
    /// # Safety
    ///
    /// Nothing in the span is used again, and its bitmaps are zero.
    pub(crate) unsafe fn close(&mut self, span: SpanRef) {
        let unit = self.unit_of(span);
        debug_assert!(self.open >> unit & 1 != 0 && self.grouped >> unit & 1 == 0);
        // SAFETY: by this function's contract.
        unsafe { self.close_spans(1 << unit) };
    }

    /// # Safety
    ///
    /// The units are those of open spans. Nothing in these is used again, and their bitmaps are
    /// zero.
    unsafe fn close_spans(&mut self, opened: u64) {
        // SAFETY: by this function's contract.
        for (span, unit) in unsafe { self.spans_of(opened) }.zip(bitmap::ones_of(0, opened)) {
            self.free |= units_of(span.units(), unit);
            if span.gone_bytes() > 0 {
                self.regain(span);
            }
            // SAFETY: the span is open, and by this function's contract done with.
            unsafe { span.close() };
        }
        self.open &= !opened;
        self.grouped &= !opened;
        self.well_used &= !self.free;
        self.at_rest &= !opened;
        debug_assert!(self.ahead & opened == 0, "a pass would come to a closed span");
    }

    /// Tells whether the open span of a unit is in a group.
    #[inline]
    pub(crate) fn is_grouped(&self, unit: u32) -> bool {
        self.grouped >> unit & 1 != 0
    }

    /// Sorts a span of a group, which the pass came to. When all of the group are sorted, it closes
    /// them if all are empty. Otherwise it gives the units of the empty ones.
    ///
    /// # Safety
    ///
    /// If `is_empty`, the span's bitmaps are zero, and nothing in it is used again but by an
    /// allocator that gets it from a list.
    pub(crate) unsafe fn sort_grouped(&mut self, unit: u32, span: SpanRef, is_empty: bool) -> u64 {
        self.unsorted &= !(1 << unit);
        self.emptied |= u64::from(is_empty) << unit;
        let spans = self.group_around(unit, span);
        let emptied = self.emptied & spans;
        if self.unsorted & spans != 0 {
            return 0;
        }
        self.emptied &= !spans;
        if emptied != spans {
            return emptied;
        }
        // SAFETY: all of them were found empty since the pass began, and were on no list since.
        unsafe { self.close_spans(spans) };
        0
    }

    /// Gives the units of the spans of a span's group.
    fn group_around(&self, unit: u32, span: SpanRef) -> u64 {
        let first = unit as usize - span.group_index();
        self.open & units_of(span.info().group_units, first)
    }

    /// Gives the spans that a pass has found empty, and that are on no list yet.
    pub(crate) fn emptied(&self) -> impl Iterator<Item = SpanRef> + use<> {
        // SAFETY: they are open until their group is closed.
        unsafe { self.spans_of(self.emptied) }
    }

    /// Takes note of what a sweep has found in the open span of a unit: enough live objects, or so
    /// few that its free pages are worth giving back.
    #[inline]
    pub(crate) fn note(&mut self, unit: u32, span: SpanRef, is_well_used: bool) {
        // Those of several units have one slot. Of the others the header's second line is not read.
        let more = if span.slots() == 1 { span.units() } else { 1 };
        let units = units_of(more, unit as usize);
        if is_well_used {
            self.well_used |= units;
        } else {
            self.well_used &= !units;
            if span.rest() {
                self.at_rest |= 1 << unit;
            }
        }
    }

    /// Gives a half of the region that is to be one large page from now on. Nearly all of it is
    /// spans that have survived a sweep and are well used, or is freed and used again in each
    /// cycle.
    pub(crate) fn well_used(&mut self) -> Option<HugePage> {
        let half = self.next_well_used()?;
        self.huge |= half;
        // All of it is in memory then.
        self.touched |= half & ALL_FREE;
        // SAFETY: they are units of open spans.
        unsafe { self.spans_of(self.open & half) }.for_each(|span| self.regain(span));
        self.count_resident();
        // SAFETY: the unit lies within the region, whose mapping `base` covers.
        Some(HugePage(unsafe { self.base.byte_add(half.trailing_zeros() as usize * SPAN_BYTES) }))
    }

    /// Tells whether [`well_used`](Self::well_used) would give one.
    pub(crate) fn has_well_used(&self) -> bool {
        self.next_well_used().is_some()
    }

    fn next_well_used(&self) -> Option<u64> {
        // One that stayed free for a cycle is not looked at: it has just been given back.
        let used = self.well_used | self.reused | !ALL_FREE;
        HALVES.into_iter().find(|half| {
            !self.is_own()
                && !self.is_shared
                && self.huge & half == 0
                && (used & half).count_ones() + FEW_UNITS >= half.count_ones()
        })
    }

    /// Gives some pages that are of no use back to the system, and tells how many bytes. `None`:
    /// there are no more of them. Called with at most one run of pages, or one span, to bound the
    /// time that takes.
    ///
    /// A unit that is freed and used again in each cycle is never given back. Nor is a well used
    /// span, nor one that was allocated from since the sweep before the last.
    pub(crate) fn give_back(&mut self, unused: Unused) -> Option<usize> {
        if self.is_own() {
            return None;
        }
        let free = match unused {
            Unused::ForACycle => self.free & self.rested,
            Unused::Now => self.free,
        };
        let units = self.splitting(free & self.touched | self.at_rest, unused);
        if units != 0 {
            return Some(self.give_back_units(units));
        }
        self.give_back_metadata(free)
    }

    /// Gives all free units back, and nothing of open spans: these may be being swept.
    pub(crate) fn give_back_free(&mut self) {
        if self.is_own() && self.free & self.touched != 0 {
            (self.touched, self.metadata) = (0, 0);
            self.count_resident();
            self.give_back_pages(0, self.bytes);
        }
        while self.free & self.touched != 0 {
            self.give_back_units(self.free & self.touched);
        }
    }

    /// Has [`give_back`](Self::give_back) look at all spans for free pages, but for those on large
    /// pages that are well used. Called while no allocator holds one.
    pub(crate) fn put_to_rest(&mut self) {
        self.spans().for_each(|span| _ = span.rest());
        self.at_rest = self.open & !(self.well_used & self.huge);
    }

    /// Of units to give back, leaves those whose large page is to stay.
    fn splitting(&self, units: u64, unused: Unused) -> u64 {
        let splits = |half: &u64| {
            self.huge & half == 0
                || unused == Unused::Now
                || (units & half).count_ones() * 2 >= half.count_ones()
        };
        HALVES.into_iter().filter(splits).fold(0, |sum, half| sum | units & half)
    }

    fn give_back_units(&mut self, units: u64) -> usize {
        let first = units.trailing_zeros();
        if let Some(half) = HALVES.into_iter().find(|half| half & self.huge & 1 << first != 0) {
            self.huge &= !half;
            // SAFETY: the unit lies within the region, whose mapping `base` covers.
            let start = unsafe { self.base.byte_add(half.trailing_zeros() as usize * SPAN_BYTES) };
            // Otherwise the system would make it one again.
            pages::prefer_small_pages(start, HUGE_PAGE);
        }
        if self.at_rest >> first & 1 != 0 {
            self.at_rest &= !(1 << first);
            // SAFETY: bits of `at_rest` are among those of `open`, units of this mapped region.
            let span = unsafe { SpanRef::at(self.base, first as usize) };
            self.gone -= span.gone_bytes();
            let next = self.next_at_rest(first, span);
            let bytes = span.give_back_free_pages(next);
            self.gone += span.gone_bytes();
            self.count_resident();
            return bytes;
        }
        let len = (units & !self.at_rest) >> first;
        let run = bitmap::mask(first, len.trailing_ones().min(RUN));
        self.touched &= !run;
        self.reused &= !run;
        self.count_resident();
        self.give_back_pages(first as usize * SPAN_BYTES, run.count_ones() as usize * SPAN_BYTES)
    }

    /// Gives the next span of a span's group, if no allocator has it.
    fn next_at_rest(&self, first: u32, span: SpanRef) -> Option<SpanRef> {
        let next = 1_u64.checked_shl(first + span.units() as u32)?;
        // SAFETY: the unit is that of an open span.
        let next = unsafe { self.spans_of(self.group_around(first, span) & next) }.next();
        next.filter(|next| next.rests())
    }

    /// Gives back a run of pages on which there is metadata only of the units in `free`.
    fn give_back_metadata(&mut self, free: u64) -> Option<usize> {
        // Those of a shared mapping are not this heap's alone.
        if free == 0 || self.huge & 1 != 0 || self.is_shared {
            return None;
        }
        let used = bitmap::ones_of(0, ALL_FREE & !free);
        let pages = self.metadata & !used.fold(0, |pages, unit| pages | metadata_pages(unit));
        if pages == 0 {
            return None;
        }
        let first = pages.trailing_zeros();
        let run = bitmap::mask(first, (pages >> first).trailing_ones());
        self.metadata &= !run;
        self.count_resident();
        let page = pages::page_bytes();
        Some(self.give_back_pages(first as usize * page, run.count_ones() as usize * page))
    }

    /// Gives back pages that hold no span, and no metadata of one. What they held is zero, or is
    /// not read again. Gives the bytes that have gone.
    fn give_back_pages(&mut self, offset: usize, bytes: usize) -> usize {
        // SAFETY: the offset lies within the region, whose mapping `base` covers.
        let start = unsafe { self.base.byte_add(offset) };
        // SAFETY: they are whole pages of this mapped region. A closed span's bitmaps are zero and
        // read zero after this; nothing else of it is read before it is opened, which writes it.
        if unsafe { pages::give_back(start, bytes) } { bytes } else { 0 }
    }

    /// Begins a pass over the open spans.
    pub(crate) fn begin_pass(&mut self) {
        self.ahead = self.open;
        (self.unsorted, self.emptied) = (self.grouped, 0);
    }

    /// Gives the next span of the pass, in address order, which is the pass's from here on; and its
    /// first unit.
    #[inline]
    pub(crate) fn next_of_pass(&mut self) -> Option<(SpanRef, u32)> {
        if self.ahead == 0 {
            return None;
        }
        let unit = self.ahead.trailing_zeros();
        self.ahead &= self.ahead - 1;
        // SAFETY: bits of `ahead` are among those of `open`, units of this mapped region.
        Some((unsafe { SpanRef::at(self.base, unit as usize) }, unit))
    }

    /// Gives the spans that the pass has not come to, in address order.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = SpanRef> + use<> {
        let base = self.base;
        // SAFETY: as above.
        bitmap::ones_of(0, self.ahead).map(move |unit| unsafe { SpanRef::at(base, unit) })
    }

    /// Gives the open spans, in address order.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanRef> + use<> {
        let base = self.base;
        // SAFETY: set bits of `open` are units of this mapped region.
        bitmap::ones_of(0, self.open).map(move |unit| unsafe { SpanRef::at(base, unit) })
    }

    /// Tells whether an address lies in one of the heap's units of the region (not in its
    /// metadata).
    pub(crate) fn holds(&self, address: NonNull<u8>) -> bool {
        let offset = address.addr().get().wrapping_sub(self.base.addr().get());
        let head = if self.is_own() { OWN_HEAD } else { METADATA_UNITS * SPAN_BYTES };
        (head..self.bytes).contains(&offset)
            && (!self.is_shared || self.owned >> (offset / SPAN_BYTES) & 1 != 0)
    }

    /// Gives the open span that covers an address of the region, if any, found without trusting
    /// metadata.
    pub(crate) fn span_at(&self, address: NonNull<u8>) -> Option<SpanRef> {
        self.spans().find(|span| {
            let from = span.base().addr().get();
            (from..from + span.slots() * span.info().slot_bytes).contains(&address.addr().get())
        })
    }

    /// Gives the first unit of a span of this region.
    fn unit_of(&self, span: SpanRef) -> usize {
        (span.base().addr().get() - self.base.addr().get()) / SPAN_BYTES
    }
}

/// All units that can hold spans.
pub(crate) const ALL_FREE: u64 = u64::MAX << METADATA_UNITS;

/// Bytes of a unit with its metadata.
const UNIT_BYTES: usize = SPAN_BYTES + size_of::<Span>();

/// The unit of an object that has a region of its own. It begins in it.
const OWN: u64 = 1;

/// Gives `units` units from the first one on.
fn units_of(units: usize, first: usize) -> u64 {
    bitmap::mask(first as u32, units as u32)
}

/// The units of each large page.
const HALVES: [u64; 2] = [u32::MAX as u64, (u32::MAX as u64) << 32];

const _: () = assert!(HUGE_PAGE * HALVES.len() == REGION_BYTES && UNITS == 64);

/// Units of a large page that need not be well used.
const FEW_UNITS: u32 = 2;

/// The most units that are given back in one call: some ten microseconds.
const RUN: u32 = 16;

/// Gives the pages that a unit's metadata lies on, one bit each.
pub(crate) fn metadata_pages(unit: usize) -> u64 {
    let (from, to) = (unit * size_of::<Span>(), (unit + 1) * size_of::<Span>());
    let first = from / pages::page_bytes();
    bitmap::mask(first as u32, (to.div_ceil(pages::page_bytes()) - first) as u32)
}

const _: () = assert!(METADATA_UNITS * SPAN_BYTES / 4096 <= 64, "a bit for each page of metadata");

/// Gives the first `units` adjacent set bits.
fn first_gap(free: u64, units: usize) -> Option<usize> {
    if units > UNITS {
        return None;
    }
    let mut starts = free;
    for shift in 1..units {
        starts &= free >> shift;
    }
    (starts != 0).then(|| starts.trailing_zeros() as usize)
}

impl Drop for Region {
    fn drop(&mut self) {
        debug_assert!(self.is_empty(), "a region is unmapped while spans in it are open");
        #[cfg(not(any(loom, shuttle)))]
        if self.is_shared {
            // SAFETY: the units were taken from there. They are free, so their bitmaps are zero,
            // and no span in them is open. One that is open would be leaked.
            unsafe { shared_regions::put_back(self.base, self.free, self.touched) };
            return;
        }
        // SAFETY: the mapping was made by `map` with these bounds; no span is open in it.
        unsafe { pages::unmap(self.base, self.bytes, REGION_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found_where_they_fit() {
        assert_eq!(first_gap(0b0110_1110, 1), Some(1));
        assert_eq!(first_gap(0b0110_1110, 3), Some(1));
        assert_eq!(first_gap(0b0110_1110, 4), None);
        assert_eq!(first_gap(ALL_FREE, UNITS - METADATA_UNITS), Some(METADATA_UNITS));
        assert_eq!(first_gap(ALL_FREE, UNITS - METADATA_UNITS + 1), None);
        assert_eq!(first_gap(ALL_FREE, 1000), None);
    }

    #[test]
    fn regions_are_aligned_and_zeroed() {
        let region = Region::map().expect("4 MiB of address space");
        assert_eq!(region.base.addr().get() % REGION_BYTES, 0);
        assert_eq!(region.bytes(), REGION_BYTES);
        let huge = Region::map_own(100 * SPAN_BYTES, true).expect("6.5 MiB of address space");
        assert_eq!(huge.bytes(), (100 * SPAN_BYTES + 4096).next_multiple_of(pages::page_bytes()));
    }

    // A checker's atomics are of its models.
    #[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
    mod on_linux {
        use super::*;
        use crate::object::glue;

        fn region() -> Region {
            Region::map().expect("4 MiB of address space")
        }

        /// Opens a span and fills its slots.
        fn fill(region: &mut Region) -> SpanRef {
            let info = glue::type_info::<[u64; 8]>();
            let (span, _) = region.open(info, 0).expect("a free unit");
            for slot in 0..span.slots() {
                bitmap::set(span.alloc_bits(), slot);
                // SAFETY: the slot has 64 bytes.
                unsafe { span.object_at(slot).write_bytes(1, 64) };
            }
            span
        }

        fn empty(region: &mut Region, span: SpanRef) {
            span.alloc_bits().iter().for_each(|word| word.set(0));
            // SAFETY: nothing of it is used again.
            unsafe { region.close(span) };
        }

        fn byte(place: NonNull<u8>) -> u8 {
            // SAFETY: called with places in a mapped region.
            unsafe { place.read() }
        }

        fn give_all_back(region: &mut Region, unused: Unused) -> usize {
            std::iter::from_fn(|| region.give_back(unused)).sum()
        }

        #[test]
        fn a_unit_goes_back_when_it_was_free_for_a_whole_cycle() {
            let mut region = region();
            let (gone, stays) = (fill(&mut region), fill(&mut region));
            let place = gone.base();
            empty(&mut region, gone);
            assert_eq!(give_all_back(&mut region, Unused::ForACycle), 0, "freed in this cycle");
            assert!(!region.expires());
            assert_eq!(byte(place), 1);
            assert!(give_all_back(&mut region, Unused::ForACycle) >= SPAN_BYTES);
            assert_eq!(give_all_back(&mut region, Unused::ForACycle), 0, "once");
            assert_eq!((byte(place), byte(stays.base())), (0, 1));
            assert_eq!(stays.allocated(), stays.slots());
            assert!(region.is_consistent());
            empty(&mut region, stays);
        }

        #[test]
        fn a_unit_that_was_used_in_between_stays() {
            let mut region = region();
            let first = fill(&mut region);
            empty(&mut region, first);
            assert!(!region.expires());
            let again = fill(&mut region);
            empty(&mut region, again);
            assert_eq!(give_all_back(&mut region, Unused::ForACycle), 0);
            assert!(give_all_back(&mut region, Unused::Now) >= SPAN_BYTES, "a trim does not ask");
        }

        #[test]
        fn metadata_go_back_page_by_page_and_read_zero() {
            let mut region = region();
            let spans: Vec<SpanRef> = (0..30).map(|_| fill(&mut region)).collect();
            let (last, others) = spans.split_last().expect("there are 30");
            others.iter().for_each(|&span| empty(&mut region, span));
            let given_back = give_all_back(&mut region, Unused::Now);
            assert!(given_back > 29 * SPAN_BYTES, "{given_back}");
            assert_eq!(last.allocated(), last.slots());
            // The first one again, on fresh metadata.
            let again = fill(&mut region);
            assert_eq!((again, again.allocated()), (spans[0], again.slots()));
            empty(&mut region, again);
            empty(&mut region, *last);
        }

        #[test]
        fn free_pages_of_a_span_at_rest_go_back_and_no_others() {
            let mut region = region();
            let span = fill(&mut region);
            let kept = [0, 500, 501, 1023];
            span.alloc_bits().iter().for_each(|word| word.set(0));
            kept.iter().for_each(|&slot| bitmap::set(span.alloc_bits(), slot));
            let unit = METADATA_UNITS as u32;
            region.note(unit, span, false);
            assert_eq!(give_all_back(&mut region, Unused::ForACycle), 0, "one sweep");
            region.note(unit, span, false);
            // It was taken for allocation in between.
            span.wake(false);
            assert_eq!(give_all_back(&mut region, Unused::ForACycle), 0);
            region.note(unit, span, false);
            region.note(unit, span, false);
            let pages = SPAN_BYTES / pages::page_bytes();
            let used = kept.map(|slot| slot * 64 / pages::page_bytes());
            let free = pages - used.into_iter().collect::<std::collections::HashSet<_>>().len();
            assert_eq!(give_all_back(&mut region, Unused::ForACycle), free * pages::page_bytes());
            kept.iter().for_each(|&slot| assert_eq!(byte(span.object_at(slot)), 1));
            assert!(pages < 4 || byte(span.object_at(800)) == 0);
            empty(&mut region, span);
        }

        #[test]
        fn a_half_is_a_large_page_when_nearly_all_of_it_is_well_used() {
            let mut region = region();
            let spans: Vec<SpanRef> = (0..62).map(|_| fill(&mut region)).collect();
            assert!(!region.has_well_used(), "no sweep has seen it");
            let note = |region: &mut Region, spans: &[SpanRef], first: usize, is_well_used| {
                for (at, &span) in spans.iter().enumerate() {
                    region.note((METADATA_UNITS + first + at) as u32, span, is_well_used);
                }
            };
            note(&mut region, &spans[..27], 0, true);
            assert!(!region.has_well_used());
            note(&mut region, &spans[27..28], 27, true);
            region.well_used().expect("28 of 30").make();
            assert!(region.well_used().is_none(), "once; and the second half is not yet");
            note(&mut region, &spans[28..], 28, true);
            region.well_used().expect("the second half").make();
            // A few free units stay, half of them do not.
            spans[..10].iter().for_each(|&span| empty(&mut region, span));
            region.expires();
            assert_eq!(give_all_back(&mut region, Unused::ForACycle), 0);
            spans[10..20].iter().for_each(|&span| empty(&mut region, span));
            region.expires();
            assert_eq!(give_all_back(&mut region, Unused::ForACycle) / SPAN_BYTES, 20);
            spans[20..].iter().for_each(|&span| assert_eq!(byte(span.object_at(7)), 1));
            spans[20..].iter().for_each(|&span| empty(&mut region, span));
        }

        #[test]
        fn units_that_each_cycle_uses_again_become_a_large_page() {
            let mut region = region();
            for cycle in 0..3 {
                let spans: Vec<SpanRef> = (0..62).map(|_| fill(&mut region)).collect();
                spans.into_iter().for_each(|span| empty(&mut region, span));
                assert_eq!(region.has_well_used(), cycle > 0);
                region.expires();
            }
            region.well_used().expect("the first half").make();
        }
    }
}
