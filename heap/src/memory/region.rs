//! Regions: the address space spans are carved from.
//!
//! A region is 4 MiB, aligned to 4 MiB, and mapped from the system in one piece. Its first units
//! hold the metadata of all its spans, the others are spans. An object too large for that has a
//! region of its own, longer, with the same head.
//!
//! Invariant: a unit is free, and then its bitmaps are zero; or it belongs to one open span. The
//! span's first unit has its bit in `open`. A region does not know what is in a span.

use std::ptr::NonNull;

use crate::memory::bitmap;
use crate::memory::layout::{REGION_BYTES, SPAN_BYTES, UNITS};
use crate::memory::span::{METADATA_UNITS, SpanRef};
use crate::memory::type_info::TypeInfo;

/// One mapping of span units with their metadata.
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: usize,
    /// Units that belong to no span.
    free: u64,
    /// First units of open spans.
    open: u64,
    /// Of those, the spans that the pass under way over all spans has not come to. A span opened
    /// meanwhile is not among them.
    ahead: u64,
    /// Cycles in a row after which it was empty, nothing having been opened in between.
    empty_cycles: u32,
}

// SAFETY: the mapping belongs to the region, wherever that is.
unsafe impl Send for Region {}

impl Region {
    /// Maps a region with room for a span of `units`; `None` if the system gives no memory.
    ///
    /// With `huge_pages`, the system is asked to back it by pages of 2 MiB. A random walk over many
    /// objects then misses the translation cache less, and fresh memory is a hundred times cheaper.
    /// But it comes in pieces of that size.
    pub(crate) fn map(units: usize, huge_pages: bool) -> Option<Region> {
        let bytes = ((METADATA_UNITS + units) * SPAN_BYTES).max(REGION_BYTES);
        let base = sys::map(bytes, REGION_BYTES)?;
        if huge_pages {
            sys::prefer_huge_pages(base, bytes);
        }
        Some(Region { base, bytes, free: ALL_FREE, open: 0, ahead: 0, empty_cycles: 0 })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes note that a cycle has ended; whether the region should be unmapped now. A region that
    /// has just become empty is likely to be filled again. One that stayed empty for a whole cycle
    /// goes. One made for a single huge object goes at once.
    pub(crate) fn expires(&mut self) -> bool {
        self.empty_cycles = if self.is_empty() { self.empty_cycles + 1 } else { 0 };
        self.empty_cycles > 1 || (self.is_empty() && self.bytes > REGION_BYTES)
    }

    /// Tells whether a span of one unit would find room.
    pub(crate) fn has_room(&self) -> bool {
        self.free != 0
    }

    /// Opens a span in the first gap that fits, lowest address first: recently emptied spans near
    /// the front are the warm ones.
    pub(crate) fn open(&mut self, info: &'static TypeInfo, class: u32) -> Option<SpanRef> {
        let units = info.slot_bytes.div_ceil(SPAN_BYTES);
        let taken = self.units_of(units, first_gap(self.free, self.in_region(units))?);
        let unit = taken.trailing_zeros() as usize;
        // SAFETY: the unit lies within the region, whose mapping `base` covers.
        let place = unsafe { self.base.byte_add(unit * SPAN_BYTES) };
        // SAFETY: the region is mapped and has that unit.
        let span = unsafe { SpanRef::at(self.base, unit) };
        // SAFETY: the units were free, so the span is closed and its bitmaps are zero.
        unsafe { span.open(info, place, class) };
        self.free &= !taken;
        self.open |= 1 << unit;
        self.empty_cycles = 0;
        Some(span)
    }

    /// Takes back the units of an open span of this region.
    ///
    /// # Safety
    ///
    /// Nothing in the span is used again, and its bitmaps are zero.
    pub(crate) unsafe fn close(&mut self, span: SpanRef) {
        let unit = (span.base().addr().get() - self.base.addr().get()) / SPAN_BYTES;
        debug_assert!(self.open >> unit & 1 != 0);
        let units = self.units_of(span.units(), unit);
        // SAFETY: the span is open, and by this function's contract done with.
        unsafe { span.close() };
        self.free |= units;
        self.open &= !(1 << unit);
        debug_assert!(self.ahead >> unit & 1 == 0, "a pass would come to a closed span");
    }

    /// Begins a pass over the open spans.
    pub(crate) fn begin_pass(&mut self) {
        self.ahead = self.open;
    }

    /// Gives the next span of the pass, in address order, which is the pass's from here on.
    #[inline]
    pub(crate) fn next_of_pass(&mut self) -> Option<SpanRef> {
        if self.ahead == 0 {
            return None;
        }
        let unit = self.ahead.trailing_zeros() as usize;
        self.ahead &= self.ahead - 1;
        // SAFETY: bits of `ahead` are among those of `open`, units of this mapped region.
        Some(unsafe { SpanRef::at(self.base, unit) })
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

    /// Tells whether an address lies in one of the region's units (not in its metadata).
    pub(crate) fn holds(&self, address: NonNull<u8>) -> bool {
        let offset = address.addr().get().wrapping_sub(self.base.addr().get());
        (METADATA_UNITS * SPAN_BYTES..self.bytes).contains(&offset)
    }

    /// Gives the open span that covers an address of the region, if any, found without trusting
    /// metadata.
    pub(crate) fn span_at(&self, address: NonNull<u8>) -> Option<SpanRef> {
        self.spans().find(|span| {
            let from = span.base().addr().get();
            (from..from + span.units() * SPAN_BYTES).contains(&address.addr().get())
        })
    }

    /// Gives how many units a span takes of the mask. An object larger than a region lies in a
    /// mapping of its own, and takes every unit of the mask.
    fn in_region(&self, units: usize) -> usize {
        if self.bytes > REGION_BYTES { UNITS - METADATA_UNITS } else { units }
    }

    fn units_of(&self, units: usize, first: usize) -> u64 {
        bitmap::mask(first as u32, self.in_region(units) as u32)
    }
}

const ALL_FREE: u64 = u64::MAX << METADATA_UNITS;

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
        // SAFETY: the mapping was made by `map` with these bounds; no span is open in it.
        unsafe { sys::unmap(self.base, self.bytes, REGION_BYTES) };
    }
}

#[cfg(unix)]
mod sys {
    use std::ptr::NonNull;

    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    /// Maps `bytes` of zeroes at a multiple of `align`, or `None` if the system refuses.
    pub(super) fn map(bytes: usize, align: usize) -> Option<NonNull<u8>> {
        // Map too much, then give back what sticks out on both sides.
        let whole = bytes.checked_add(align)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint and a fresh private mapping touch no memory that is in use.
        let mapped =
            unsafe { mmap_anonymous(std::ptr::null_mut(), whole, protection, MapFlags::PRIVATE) };
        let start = NonNull::new(mapped.ok()?.cast::<u8>())?;
        let before = start.align_offset(align);
        // SAFETY: the aligned address lies within the mapping.
        let base = unsafe { start.byte_add(before) };
        // SAFETY: as above; at most one past its end.
        let end = unsafe { base.byte_add(bytes) };
        // SAFETY: the piece before the base is unused.
        unsafe { unmap_piece(start, before) };
        // SAFETY: the piece behind the end is unused.
        unsafe { unmap_piece(end, whole - before - bytes) };
        Some(base)
    }

    /// Asks for large pages; a system that has none, or none left, goes on with small ones.
    pub(super) fn prefer_huge_pages(base: NonNull<u8>, bytes: usize) {
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, madvise};
            // SAFETY: this advice does not change what the memory holds, and the mapping is ours.
            let _refused = unsafe { madvise(base.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (base, bytes);
    }

    /// # Safety
    ///
    /// The bytes are mapped, and nothing in them is used again.
    unsafe fn unmap_piece(start: NonNull<u8>, bytes: usize) {
        if bytes > 0 {
            // SAFETY: by this function's contract.
            let unmapped = unsafe { munmap(start.as_ptr().cast(), bytes) };
            debug_assert!(unmapped.is_ok(), "munmap refused a mapping of ours");
        }
    }

    /// # Safety
    ///
    /// `base` came from `map(bytes, align)`, and nothing in the mapping is used again.
    pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize, _align: usize) {
        // SAFETY: by this function's contract.
        unsafe { unmap_piece(base, bytes) };
    }
}

#[cfg(not(unix))]
mod sys {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    /// Allocates `bytes` of zeroes at a multiple of `align`, or `None` if the system refuses.
    pub(super) fn map(bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, align).ok()?;
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// Nothing: the allocator decides.
    pub(super) fn prefer_huge_pages(_base: NonNull<u8>, _bytes: usize) {}

    /// # Safety
    ///
    /// `base` came from `map(bytes, align)`, and nothing in the mapping is used again.
    pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize, align: usize) {
        let layout = Layout::from_size_align(bytes, align).expect("it was valid for `map`");
        // SAFETY: by this function's contract.
        unsafe { dealloc(base.as_ptr(), layout) };
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
        let region = Region::map(1, false).expect("4 MiB of address space");
        assert_eq!(region.base.addr().get() % REGION_BYTES, 0);
        assert_eq!(region.bytes(), REGION_BYTES);
        let huge = Region::map(100, true).expect("6.5 MiB of address space");
        assert_eq!(huge.bytes(), 102 * SPAN_BYTES);
    }
}
