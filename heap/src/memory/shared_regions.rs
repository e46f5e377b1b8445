//! Regions that the heaps of a process share, so that a small heap needs no mapping of its own.
//!
//! A heap takes single units of them while it is small, for spans that are in no group. What it
//! knows of such a region is in a [`Region`](crate::memory::region::Region) of its own, which has
//! no other heap's units.
//!
//! Invariant: a unit belongs to one heap, or is free here and has zero bitmaps. Heaps share no word
//! of the mapping but through the system.
//!
//! Invariant: of the free units at most [`KEPT`], and an eighth as many as are in use, keep memory.
//! At most one region is mapped without a unit in use.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

use sexton_sync::{Mutex, PerProcess};

use crate::memory::bitmap;
use crate::memory::layout::{REGION_BYTES, SPAN_BYTES};
use crate::memory::pages;
use crate::memory::region::{ALL_FREE, metadata_pages};

/// Free units whose pages are kept for the next heap, in all of the process, where none are in use.
const KEPT: u32 = 16;

/// A unit that a heap has taken.
pub(crate) struct SharedUnit {
    /// Its region.
    pub(crate) base: NonNull<u8>,
    /// Its bit.
    pub(crate) bit: u64,
    /// Its pages have been in use and were not given back.
    pub(crate) is_touched: bool,
}

/// The shared regions of a process.
#[derive(Default)]
struct SharedRegions {
    /// By address.
    regions: BTreeMap<usize, SharedRegion>,
    /// Those with a free unit.
    with_room: BTreeSet<usize>,
    /// Those with units in `kept`.
    with_kept: BTreeSet<usize>,
    /// Units in `kept` of all regions.
    kept: u32,
    /// Units that belong to heaps.
    used: u32,
}

struct SharedRegion {
    base: NonNull<u8>,
    /// Units that belong to no heap.
    free: u64,
    /// Of those, the ones whose pages were not given back.
    kept: u64,
    /// Pages of metadata that were not given back since a unit on them was taken.
    metadata: u64,
}

// SAFETY: the mapping belongs to the region, wherever that is.
unsafe impl Send for SharedRegion {}

/// Gives the regions of this process. The child of a `fork` has none at first: the lock of its
/// parent's may have been caught.
fn all() -> &'static Mutex<SharedRegions> {
    static ALL: PerProcess<Mutex<SharedRegions>> = PerProcess::new();
    ALL.get(Mutex::default)
}

/// Takes a free unit: of the region at `near`, if that has one. `None` if the system gives no
/// memory.
///
/// It maps a region where there is none with a free unit. Otherwise it makes no system call for
/// memory. O(log regions).
pub(crate) fn take(near: Option<NonNull<u8>>) -> Option<SharedUnit> {
    all().lock().take(near)
}

/// Takes units back. Those in `touched` have been in use.
///
/// In the child of a `fork`, units of its parent are leaked. Their heaps may have been caught in
/// the middle of a change.
///
/// # Safety
///
/// The units were taken from the region at `base`, their bitmaps are zero, and nothing in them is
/// used again.
pub(crate) unsafe fn put_back(base: NonNull<u8>, units: u64, touched: u64) {
    all().lock().put_back(base, units, touched);
}

impl SharedRegions {
    fn take(&mut self, near: Option<NonNull<u8>>) -> Option<SharedUnit> {
        let near = near.map(|base| base.addr().get()).filter(|at| self.with_room.contains(at));
        let at = match near.or_else(|| self.with_room.first().copied()) {
            Some(at) => at,
            None => self.map()?,
        };
        let region = self.regions.get_mut(&at)?;
        // One that has memory first.
        let choice = if region.kept != 0 { region.kept } else { region.free };
        let bit = choice & choice.wrapping_neg();
        let is_touched = region.kept & bit != 0;
        region.free &= !bit;
        region.kept &= !bit;
        region.metadata |= metadata_pages(bit.trailing_zeros() as usize);
        self.kept -= u32::from(is_touched);
        self.used += 1;
        let unit = SharedUnit { base: region.base, bit, is_touched };
        if region.free == 0 {
            self.with_room.remove(&at);
        }
        if region.kept == 0 {
            self.with_kept.remove(&at);
        }
        Some(unit)
    }

    fn put_back(&mut self, base: NonNull<u8>, units: u64, touched: u64) {
        let at = base.addr().get();
        let Some(region) = self.regions.get_mut(&at) else { return };
        debug_assert!(region.free & units == 0, "a unit is put back twice");
        region.free |= units;
        self.used -= units.count_ones();
        self.with_room.insert(at);
        if region.free == ALL_FREE && self.with_room.len() > 1 {
            self.unmap(at);
        } else {
            region.kept |= units & touched;
            self.kept += (units & touched).count_ones();
            if region.kept != 0 {
                self.with_kept.insert(at);
            }
            if units & !touched != 0 {
                region.give_back_metadata();
            }
        }
        // All that a region keeps at once: few long runs of pages take the system less time than
        // many short ones. Where all units come back, regions are unmapped before that.
        while self.kept > KEPT + self.used / 8
            && let Some(at) = self.with_kept.pop_first()
            && let Some(region) = self.regions.get_mut(&at)
        {
            self.kept -= region.kept.count_ones();
            region.give_back_kept();
        }
    }

    /// Maps another region; its address.
    fn map(&mut self) -> Option<usize> {
        let base = pages::map(REGION_BYTES, REGION_BYTES)?;
        pages::prefer_small_pages(base, REGION_BYTES);
        let at = base.addr().get();
        self.regions.insert(at, SharedRegion { base, free: ALL_FREE, kept: 0, metadata: 0 });
        self.with_room.insert(at);
        Some(at)
    }

    /// Unmaps a region none of whose units belongs to a heap.
    fn unmap(&mut self, at: usize) {
        self.with_room.remove(&at);
        self.with_kept.remove(&at);
        let Some(region) = self.regions.remove(&at) else { return };
        self.kept -= region.kept.count_ones();
        // SAFETY: the mapping was made by `map` with these bounds. All its units are free, so no
        // heap has a pointer into it.
        unsafe { pages::unmap(region.base, REGION_BYTES, REGION_BYTES) };
    }
}

impl SharedRegion {
    /// Gives back the pages of free units and of their metadata.
    fn give_back_kept(&mut self) {
        let mut units = std::mem::take(&mut self.kept);
        while units != 0 {
            let first = units.trailing_zeros();
            let run = bitmap::mask(first, (units >> first).trailing_ones());
            units &= !run;
            let count = run.count_ones() as usize;
            self.give_back_pages(first as usize * SPAN_BYTES, count * SPAN_BYTES);
        }
        self.give_back_metadata();
    }

    /// Gives back the pages on which there is no other metadata than that of free units.
    fn give_back_metadata(&mut self) {
        let used = bitmap::ones_of(0, ALL_FREE & !self.free);
        let page = pages::page_bytes();
        let mut gone = self.metadata & !used.fold(0, |used, unit| used | metadata_pages(unit));
        self.metadata &= !gone;
        while gone != 0 {
            let first = gone.trailing_zeros();
            let run = bitmap::mask(first, (gone >> first).trailing_ones());
            gone &= !run;
            self.give_back_pages(first as usize * page, run.count_ones() as usize * page);
        }
    }

    fn give_back_pages(&mut self, offset: usize, bytes: usize) {
        // SAFETY: the offset lies within the region, whose mapping `base` covers.
        let start = unsafe { self.base.byte_add(offset) };
        // SAFETY: they are whole pages of this mapped region, with nothing but free units and their
        // metadata. Their bitmaps are zero and read zero after this; nothing else of them is read
        // before it is written.
        let _gone = unsafe { pages::give_back(start, bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::layout::{METADATA_UNITS, UNITS};

    const ALL: usize = UNITS - METADATA_UNITS;

    /// A byte in a unit.
    fn byte(unit: &SharedUnit) -> *mut u8 {
        let offset = unit.bit.trailing_zeros() as usize * SPAN_BYTES + 8;
        unit.base.as_ptr().wrapping_byte_add(offset)
    }

    fn taken(all: &mut SharedRegions, count: usize) -> Vec<SharedUnit> {
        (0..count).map(|_| all.take(None).expect("4 MiB of address space")).collect()
    }

    fn put_back(all: &mut SharedRegions, unit: &SharedUnit) {
        all.put_back(unit.base, unit.bit, unit.bit);
    }

    #[test]
    fn a_unit_has_one_owner_and_a_region_is_filled_before_the_next_is_mapped() {
        let mut all = SharedRegions::default();
        let units = taken(&mut all, 2 * ALL + 1);
        assert_eq!(all.regions.len(), 3);
        let places: BTreeSet<_> = units.iter().map(|unit| (unit.base, unit.bit)).collect();
        assert_eq!(places.len(), units.len());
        assert!(units.iter().all(|unit| unit.bit & ALL_FREE != 0 && !unit.is_touched));
        units.iter().for_each(|unit| put_back(&mut all, unit));
    }

    #[test]
    fn a_unit_comes_from_the_region_asked_for_while_that_has_one() {
        let mut all = SharedRegions::default();
        let units = taken(&mut all, 2 * ALL);
        for unit in [&units[3], &units[ALL + 3]] {
            put_back(&mut all, unit);
        }
        for unit in [&units[ALL + 3], &units[3]] {
            let again = all.take(Some(units[ALL].base)).expect("one is free");
            assert_eq!((again.base, again.bit), (unit.base, unit.bit));
        }
        units.iter().for_each(|unit| put_back(&mut all, unit));
    }

    #[test]
    fn regions_without_a_unit_in_use_go_but_for_one() {
        let mut all = SharedRegions::default();
        for _ in 0..3 {
            let units = taken(&mut all, 5 * ALL);
            assert_eq!(all.regions.len(), 5);
            units.iter().for_each(|unit| put_back(&mut all, unit));
            assert_eq!((all.regions.len(), all.with_room.len()), (1, 1));
            assert!(all.kept <= KEPT && all.used == 0);
            let kept: u32 = all.regions.values().map(|region| region.kept.count_ones()).sum();
            assert_eq!(kept, all.kept);
            assert_eq!(all.with_kept.len(), usize::from(kept != 0));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_few_free_units_keep_their_memory_and_others_do_not() {
        let mut all = SharedRegions::default();
        let units = taken(&mut all, ALL);
        // SAFETY: the units are mapped, and this test's.
        units.iter().for_each(|unit| unsafe { byte(unit).write(1) });
        units[1..].iter().for_each(|unit| put_back(&mut all, unit));
        // SAFETY: they are mapped, as the region has a unit in use.
        let kept = units[1..].iter().filter(|unit| unsafe { byte(unit).read() } == 1).count();
        assert!((1..=KEPT as usize).contains(&kept), "{kept}");
        assert_eq!(kept, all.kept as usize);
        let again = taken(&mut all, ALL - 1);
        assert_eq!(again.iter().filter(|unit| unit.is_touched).count(), kept);
        // SAFETY: as above.
        assert!(again.iter().all(|unit| unsafe { byte(unit).read() } == u8::from(unit.is_touched)));
        // SAFETY: as above.
        assert_eq!(unsafe { byte(&units[0]).read() }, 1);
        again.iter().chain(&units[..1]).for_each(|unit| put_back(&mut all, unit));
    }

    /// As an inherited heap does in the child of a `fork`, which has regions of its own.
    #[test]
    fn units_of_another_process_are_leaked() {
        let (mut parent, mut child) = (SharedRegions::default(), SharedRegions::default());
        let inherited = taken(&mut parent, 2);
        let own = taken(&mut child, 2);
        put_back(&mut child, &inherited[0]);
        let again = child.take(Some(inherited[0].base)).expect("4 MiB of address space");
        assert_eq!((again.base, child.used, child.regions.len()), (own[0].base, 3, 1));
        own.iter().chain([&again]).for_each(|unit| put_back(&mut child, unit));
        inherited.iter().for_each(|unit| put_back(&mut parent, unit));
    }

    /// One heap in each region stays: the most memory that free units could keep.
    #[test]
    fn few_units_in_use_keep_the_memory_of_few() {
        let mut all = SharedRegions::default();
        let units = taken(&mut all, 20 * ALL);
        let (stay, go): (Vec<_>, Vec<_>) = (0..).zip(&units).partition(|(at, _)| at % ALL == 0);
        for (_, unit) in go {
            put_back(&mut all, unit);
            assert!(all.kept <= KEPT + all.used / 8, "{} of {}", all.kept, all.used);
        }
        assert_eq!((all.used, all.regions.len()), (20, 20));
        stay.iter().for_each(|(_, unit)| put_back(&mut all, unit));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn metadata_of_units_in_use_stay_when_those_of_others_go() {
        let mut all = SharedRegions::default();
        let units = taken(&mut all, ALL);
        let metadata = |unit: &SharedUnit| {
            let offset =
                unit.bit.trailing_zeros() as usize * size_of::<crate::memory::span::Span>();
            unit.base.as_ptr().wrapping_byte_add(offset)
        };
        // SAFETY: metadata of mapped units, which are this test's.
        units.iter().for_each(|unit| unsafe { metadata(unit).write(1) });
        let stays = &units[ALL / 2];
        let others: Vec<_> = units.iter().filter(|unit| unit.bit != stays.bit).collect();
        others.iter().for_each(|unit| put_back(&mut all, unit));
        all.regions.values_mut().for_each(SharedRegion::give_back_kept);
        // SAFETY: as above; the region has a unit in use.
        assert_eq!(unsafe { metadata(stays).read() }, 1);
        // SAFETY: as above.
        let left = others.iter().filter(|unit| unsafe { metadata(unit).read() } == 1).count();
        // Those on the pages of the one that stays.
        let near = if pages::page_bytes() == 4096 { 6 } else { ALL };
        assert!(left <= near, "{left}");
        put_back(&mut all, stays);
    }
}
