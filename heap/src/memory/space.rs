//! The space: all regions of one heap, its size classes, and how many bytes are in use.
//!
//! Hands spans with free slots to allocators and takes emptied ones back from sweep. A *size class*
//! here is one type: spans are typed, so that an object needs no header.
//!
//! Invariant: every open span is in exactly one place: in its class's `partial` list, with one
//! allocator, or full and in neither. A listed span that an allocator gave back may be full, too.
//! Sweep sees all spans, and sorts them anew.
//!
//! Invariant: `usage.bytes + reserved + external <= max_bytes` when bytes are reserved. What is
//! outside the heap may grow beyond that by itself, as a `Vec` does in a cell. What the heap takes
//! beside these bytes counts, too, when more are reserved, and when a span takes memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::memory::bitmap;
use crate::memory::external::External;
use crate::memory::layout::SPAN_BYTES;
use crate::memory::locking::{Lock, Locking};
use crate::memory::peak::room_after_peak;
use crate::memory::phase::PhaseCell;
use crate::memory::region::{HugePage, Region, Unused, first_span_bytes};
#[cfg(not(any(loom, shuttle)))]
use crate::memory::shared_regions;
use crate::memory::span::SpanRef;
use crate::memory::type_info::TypeInfo;

/// The space as the mutators of a heap share it, and what can be told of it without waiting.
pub(crate) struct CommonSpace<M: Locking> {
    space: M::Lock<Space>,
    phase: PhaseCell,
    gauges: Gauges,
    max_bytes: u64,
}

/// Copies of the space's numbers, written when a change of it is complete. Relaxed: they inform,
/// each for itself.
#[derive(Default)]
struct Gauges {
    objects: AtomicU64,
    weak_records: AtomicU64,
    bytes: AtomicU64,
    metadata_bytes: AtomicU64,
    reserved: AtomicU64,
    mapped_bytes: AtomicU64,
    resident_bytes: AtomicU64,
}

impl<M: Locking> CommonSpace<M> {
    pub(crate) fn new(max_bytes: u64, huge_pages: bool) -> Self {
        let space = Lock::new(Space::new(max_bytes, huge_pages));
        CommonSpace { space, phase: PhaseCell::new(), gauges: Gauges::default(), max_bytes }
    }

    /// Tells how far the heap's cycle has come.
    #[inline]
    pub(crate) fn phase(&self) -> &PhaseCell {
        &self.phase
    }

    /// Calls `f` with the space. `f` does not come back here; user code that it runs cannot.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Space) -> T) -> T {
        self.space.with(|space| {
            let result = f(space);
            let gauges = &self.gauges;
            gauges.objects.store(space.usage.objects, Relaxed);
            gauges.weak_records.store(space.usage.weak_records, Relaxed);
            gauges.bytes.store(space.usage.bytes, Relaxed);
            gauges.metadata_bytes.store(space.metadata_bytes, Relaxed);
            gauges.reserved.store(space.reserved, Relaxed);
            gauges.mapped_bytes.store(space.mapped_bytes, Relaxed);
            gauges.resident_bytes.store(space.resident_bytes, Relaxed);
            result
        })
    }

    /// Gives the bytes in use, and bytes that allocators have at hand.
    pub(crate) fn charged_bytes(&self) -> u64 {
        self.gauges.bytes.load(Relaxed) + self.gauges.reserved.load(Relaxed)
    }

    /// Gives the bytes in use, as far as it has been committed.
    #[inline]
    pub(crate) fn committed_bytes(&self) -> u64 {
        self.gauges.bytes.load(Relaxed)
    }

    /// Tells what is in use, as far as it has been committed.
    pub(crate) fn committed(&self) -> Usage {
        let Gauges { objects, weak_records, bytes, .. } = &self.gauges;
        Usage {
            objects: objects.load(Relaxed),
            weak_records: weak_records.load(Relaxed),
            bytes: bytes.load(Relaxed),
        }
    }

    /// Gives the bytes of address space mapped, metadata included.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.gauges.mapped_bytes.load(Relaxed)
    }

    /// Gives the bytes of metadata that may be in memory.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.gauges.metadata_bytes.load(Relaxed)
    }

    /// Gives the bytes of them that may be in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.gauges.resident_bytes.load(Relaxed)
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }
}

/// All memory of one heap.
pub(crate) struct Space {
    /// What is well used is backed by pages of 2 MiB.
    huge_pages: bool,
    regions: Vec<Region>,
    /// No region before this one has room.
    first_with_room: usize,
    /// The regions before this one are ahead of the pass under way, but for the last of them, in
    /// which it is.
    cursor: usize,
    classes: Vec<Class>,
    /// By the address of a type's info, of which one type may have several; but for the first
    /// classes, which are looked at one by one.
    class_of: HashMap<usize, u32>,
    /// What allocators have told of. What they have taken since is part of `reserved`.
    usage: Usage,
    /// Bytes that allocators have been reserved and have not committed.
    reserved: u64,
    mapped_bytes: u64,
    /// The sum over the regions.
    resident_bytes: u64,
    /// Those of metadata among them, or a little more.
    metadata_bytes: u64,
    max_bytes: u64,
    /// What counts for the limit beside the bytes in use,
    overhead: u64,
    /// and what the heap has in memory beside its regions.
    beside_spans: u64,
    /// What the heap has outside, which counts, too.
    external: Arc<External>,
    allocators: u64,
}

/// Bytes in memory beyond the limit that a heap may have: some free memory in spans, and metadata.
const ALLOWANCE: u64 = 8 << 20;

/// Units that a heap takes of shared regions, before it maps regions of its own: 1 MiB.
#[cfg(not(any(loom, shuttle)))]
const SHARED_UNITS: usize = 16;

/// Classes that are found without a table.
const FEW_CLASSES: usize = 4;

/// Bytes that are reserved for an allocator at a time, if the limit is not near.
const RESERVATION: u64 = SPAN_BYTES as u64;

/// What is in use, the slots that allocators have cached included.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The program's own objects.
    pub(crate) objects: u64,
    /// Weak records, which are the heap's.
    pub(crate) weak_records: u64,
    /// Bytes of the slots of both.
    pub(crate) bytes: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, slots: usize, info: &TypeInfo) {
        *self.counter(info) += slots as u64;
        self.bytes += (slots * info.slot_bytes) as u64;
    }

    /// Counts what is in use in a span.
    pub(crate) fn of(span: SpanRef) -> Usage {
        let mut usage = Usage::default();
        usage.add(span.allocated(), span.info());
        usage
    }

    pub(crate) fn plus(self, other: Usage) -> Usage {
        Usage {
            objects: self.objects + other.objects,
            weak_records: self.weak_records + other.weak_records,
            bytes: self.bytes + other.bytes,
        }
    }

    pub(crate) fn minus(self, other: Usage) -> Usage {
        Usage {
            objects: self.objects - other.objects,
            weak_records: self.weak_records - other.weak_records,
            bytes: self.bytes - other.bytes,
        }
    }

    fn counter(&mut self, info: &TypeInfo) -> &mut u64 {
        if info.is_weak_record { &mut self.weak_records } else { &mut self.objects }
    }
}

struct Class {
    info: &'static TypeInfo,
    /// Spans with free slots that no allocator holds; taken from the end.
    partial: Vec<SpanRef>,
}

/// A span that a pass has come to.
#[derive(Clone, Copy)]
pub(crate) struct Passed {
    pub(crate) span: SpanRef,
    /// Its first unit.
    unit: u32,
    /// Where its region is. Regions stay where they are until the pass is over.
    at: usize,
}

/// Why there is no room for another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllocError {
    /// The heap's own limit.
    Limit,
    /// The system gave no memory.
    System,
}

/// What sweep made of a span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    Empty,
    /// Nearly all of it is free.
    HardlyUsed,
    Partial,
    Full,
}

impl Swept {
    /// As a number, to be left in an atomic.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// No span's code: it has not been swept.
    pub(crate) const NOT_YET: u8 = u8::MAX;

    /// # Panics
    ///
    /// If the span has not been swept.
    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            0 => Swept::Empty,
            1 => Swept::HardlyUsed,
            2 => Swept::Partial,
            3 => Swept::Full,
            _ => panic!("a span was not swept: a sweeper has panicked"),
        }
    }
}

impl Space {
    pub(crate) fn new(max_bytes: u64, huge_pages: bool) -> Self {
        Space {
            huge_pages,
            regions: Vec::new(),
            first_with_room: 0,
            cursor: 0,
            classes: Vec::new(),
            class_of: HashMap::new(),
            usage: Usage::default(),
            reserved: 0,
            mapped_bytes: 0,
            resident_bytes: 0,
            metadata_bytes: 0,
            max_bytes,
            overhead: 0,
            beside_spans: 0,
            external: Arc::default(),
            allocators: 1,
        }
    }

    /// Tells what is in use, as far as it has been committed.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Gives the bytes reserved and not committed.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Reserves bytes for an allocator that wants `wanted`, and can use `least` or more. It gives
    /// as many or more, so that the allocator need not ask for each run of slots. Near the limit it
    /// gives fewer, and 0 if `least` are not left.
    pub(crate) fn reserve(&mut self, wanted: u64, least: u64) -> u64 {
        let budget = self.max_bytes.saturating_sub(self.counted());
        if budget < least {
            return 0;
        }
        // A quarter at most of what each has a share in: what one allocator has at hand, another
        // one cannot take.
        let share = budget / (4 * self.allocators.max(1));
        let reserved = wanted.max(RESERVATION).min(share.max(least));
        self.reserved += reserved;
        reserved
    }

    /// Gives what counts for the limit.
    fn counted(&self) -> u64 {
        let here = self.usage.bytes + self.reserved + self.overhead;
        here.saturating_add(self.external.bytes())
    }

    /// Tells whether that many bytes more may be in memory.
    ///
    /// The first span of a type and an allocator is left out. It takes some pages, until it is used
    /// up and counts with the next one.
    fn has_room_for(&self, more: u64) -> bool {
        let first_spans = self.classes.len() as u64 * self.allocators * SPAN_BYTES as u64;
        let left_out = self.max_bytes.saturating_add(ALLOWANCE).saturating_add(first_spans);
        let here = self.resident_bytes + self.beside_spans + more;
        more == 0 || here.saturating_add(self.external.bytes()) <= left_out
    }

    /// Sets what counts for the limit beside the bytes in use, and what the heap has in memory
    /// beside its regions.
    pub(crate) fn set_overhead(&mut self, overhead: u64, beside_spans: u64) {
        (self.overhead, self.beside_spans) = (overhead, beside_spans);
    }

    /// Sets the count of what the heap has outside, which its limit is for, too.
    pub(crate) fn count_external(&mut self, external: Arc<External>) {
        self.external = external;
    }

    /// Sets how many allocators there are from now on.
    pub(crate) fn set_allocators(&mut self, allocators: u64) {
        self.allocators = allocators;
    }

    /// Counts as used what an allocator has taken of its reserved bytes.
    pub(crate) fn commit(&mut self, taken: Usage) {
        self.usage = self.usage.plus(taken);
        self.reserved -= taken.bytes;
    }

    /// Takes back reserved bytes for which an allocator has taken no slots.
    pub(crate) fn release(&mut self, unspent: u64) {
        self.reserved -= unspent;
    }

    /// Counts what a sweep has found: of what was in use `before`, only `live` is left. All of it
    /// had been committed.
    pub(crate) fn recount(&mut self, before: Usage, live: Usage) {
        self.usage = self.usage.minus(before).plus(live);
    }

    /// Gives the bytes that may be in memory, metadata included.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Lists every open span, in the order of the regions.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.regions.iter().flat_map(Region::spans)
    }

    pub(crate) fn partial(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.classes.iter().flat_map(|class| class.partial.iter().copied())
    }

    /// Makes a span of the type that may have free slots: one that survived a sweep, else a new
    /// one.
    ///
    /// With `fills`, the allocator has just used up another one. It is likely to use this one up as
    /// well.
    pub(crate) fn take_span(
        &mut self,
        info: &'static TypeInfo,
        fills: bool,
    ) -> Result<SpanRef, AllocError> {
        let class = self.class(info);
        if let Some(span) = self.classes[class as usize].partial.pop() {
            // What it has given back, or never had.
            let cost = span.gone_bytes() as u64;
            if !self.has_room_for(cost) {
                self.give_back_free();
                if !self.has_room_for(cost) {
                    self.return_span(span);
                    return Err(AllocError::Limit);
                }
            }
            if span.wake(fills || info.is_large()) {
                self.regain(span);
            }
            return Ok(span);
        }
        let span = self.open_span(info, class)?;
        span.wake(fills || info.is_large());
        Ok(span)
    }

    /// Takes note that pages may be in memory again that a span has given back. O(regions).
    #[cold]
    fn regain(&mut self, span: SpanRef) {
        if let Some(region) = self.regions.iter_mut().find(|region| region.holds(span.base())) {
            let was_resident = region.resident_bytes();
            region.regain(span);
            self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
        }
    }

    /// Gives a span back that may still have free slots.
    pub(crate) fn return_span(&mut self, span: SpanRef) {
        self.classes[span.class() as usize].partial.push(span);
    }

    fn class(&mut self, info: &'static TypeInfo) -> u32 {
        let classes = &mut self.classes;
        let is_it = |class: &Class| class.info.type_id == info.type_id;
        if let Some(class) = classes.iter().take(FEW_CLASSES).position(is_it) {
            return class as u32;
        }
        if classes.len() < FEW_CLASSES {
            if classes.is_empty() {
                classes.reserve_exact(1);
            }
            classes.push(Class { info, partial: Vec::new() });
            return (classes.len() - 1) as u32;
        }
        *self.class_of.entry(&raw const *info as usize).or_insert_with(|| {
            // Once for each address. Without this look, what one part of a program frees would be
            // of no use to another.
            if let Some(class) = classes.iter().position(is_it) {
                return class as u32;
            }
            classes.push(Class { info, partial: Vec::new() });
            (classes.len() - 1) as u32
        })
    }

    fn open_span(&mut self, info: &'static TypeInfo, class: u32) -> Result<SpanRef, AllocError> {
        debug_assert!(self.classes[class as usize].info.type_id == info.type_id);
        if let Some(span) = self.open_span_somewhere(info, class) {
            return Ok(span);
        }
        let cost = first_span_bytes(info);
        if !self.has_room_for(cost) {
            self.give_back_free();
            if !self.has_room_for(cost) {
                return Err(AllocError::Limit);
            }
            if let Some(span) = self.open_span_somewhere(info, class) {
                return Ok(span);
            }
        }
        let at = match self.share(info) {
            Some(at) => at,
            None => self.add(self.map(info).ok_or(AllocError::System)?),
        };
        self.open_span_in(at, info, class).ok_or(AllocError::System)
    }

    /// Maps a region that the type's spans fit into.
    fn map(&self, info: &TypeInfo) -> Option<Region> {
        if info.is_own() {
            Region::map_own(info.slot_bytes, self.huge_pages)
        } else {
            Region::map()
        }
    }

    /// Takes another unit of a region that the heap shares with others, if the heap is small and
    /// the type's spans have one unit. Gives the region's place.
    #[cfg(not(any(loom, shuttle)))]
    fn share(&mut self, info: &TypeInfo) -> Option<usize> {
        let shared = || self.regions.iter().filter(|region| region.is_shared());
        let is_one_unit = info.group_units == 1 && !info.is_own();
        if !is_one_unit || shared().map(Region::units).sum::<usize>() >= SHARED_UNITS {
            return None;
        }
        let unit = shared_regions::take(shared().next_back().and_then(Region::shared_base))?;
        let is_around = |region: &Region| region.shared_base() == Some(unit.base);
        let Some(at) = self.regions.iter().position(is_around) else {
            return Some(self.add(Region::shared(&unit)));
        };
        let region = &mut self.regions[at];
        let (bytes, was_resident) = (region.bytes(), region.resident_bytes());
        let metadata_bytes = region.metadata_bytes();
        region.add(&unit);
        self.mapped_bytes += (region.bytes() - bytes) as u64;
        self.resident_bytes += region.resident_bytes() - was_resident;
        self.metadata_bytes += region.metadata_bytes() - metadata_bytes;
        self.first_with_room = self.first_with_room.min(at);
        Some(at)
    }

    /// Gives none: a model's heaps are as many as its threads.
    #[cfg(any(loom, shuttle))]
    fn share(&mut self, _info: &TypeInfo) -> Option<usize> {
        None
    }

    /// Adds a region; its place.
    fn add(&mut self, region: Region) -> usize {
        self.mapped_bytes += region.bytes() as u64;
        self.resident_bytes += region.resident_bytes();
        self.metadata_bytes += region.metadata_bytes();
        if self.regions.is_empty() {
            // Most heaps of a program with many have one.
            self.regions.reserve_exact(1);
        }
        self.regions.push(region);
        self.regions.len() - 1
    }

    fn open_span_somewhere(&mut self, info: &'static TypeInfo, class: u32) -> Option<SpanRef> {
        for at in self.first_with_room..self.regions.len() {
            let cost = self.regions[at].cost(info);
            if cost.is_some_and(|cost| self.has_room_for(cost)) {
                return self.open_span_in(at, info, class);
            }
            if at == self.first_with_room && !self.regions[at].has_room() {
                self.first_with_room += 1;
            }
        }
        None
    }

    /// Gives back what is free: the limit is reached.
    #[cold]
    fn give_back_free(&mut self) {
        for region in &mut self.regions {
            let was_resident = region.resident_bytes();
            region.give_back_free();
            self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
        }
        self.count_metadata();
    }

    fn open_span_in(&mut self, at: usize, info: &'static TypeInfo, class: u32) -> Option<SpanRef> {
        let region = &mut self.regions[at];
        let (was_resident, metadata_bytes) = (region.resident_bytes(), region.metadata_bytes());
        let (span, others) = region.open(info, class)?;
        self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
        self.metadata_bytes += region.metadata_bytes() - metadata_bytes;
        if others != 0 {
            // SAFETY: they are the units of spans that were opened with this one.
            let others = unsafe { region.spans_of(others) };
            let partial = &mut self.classes[class as usize].partial;
            let listed = partial.len();
            partial.extend(others);
            // The lowest is taken first.
            partial[listed..].reverse();
        }
        Some(span)
    }

    fn count_metadata(&mut self) {
        self.metadata_bytes = self.regions.iter().map(Region::metadata_bytes).sum();
    }

    /// Begins a pass over all spans that are open now. It ends before the next one begins.
    pub(crate) fn begin_pass(&mut self) {
        self.regions.iter_mut().for_each(Region::begin_pass);
        self.cursor = self.regions.len();
    }

    /// Gives the next span of the pass. It goes backwards, because spans are taken from the end of
    /// a class's list.
    #[inline]
    pub(crate) fn next_of_pass(&mut self) -> Option<Passed> {
        loop {
            let at = self.cursor.checked_sub(1)?;
            if let Some((span, unit)) = self.regions[at].next_of_pass() {
                return Some(Passed { span, unit, at });
            }
            self.cursor = at;
        }
    }

    /// Lists the spans that the pass has not come to, in its order.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.regions[..self.cursor].iter().rev().flat_map(Region::ahead)
    }

    /// Takes all spans off the lists, before a sweep sorts them anew. No allocator holds one.
    pub(crate) fn unlist_spans(&mut self) {
        for Class { partial, .. } in &mut self.classes {
            let spans = partial.len();
            partial.clear();
            if let Some(room) = room_after_peak(spans, partial.capacity()) {
                partial.shrink_to(room);
            }
        }
    }

    /// Sorts a span that the pass came to, as it was swept: an emptied one is closed, a partial one
    /// listed for allocation.
    pub(crate) fn sort(&mut self, passed: Passed, swept: Swept) {
        let Passed { span, unit, at } = passed;
        if self.regions[at].is_grouped(unit) {
            return self.sort_grouped(passed, swept);
        }
        if swept == Swept::Empty {
            let region = &mut self.regions[at];
            let was_resident = region.resident_bytes();
            // SAFETY: it holds no object, so no pointer leads into it, and sweep left its bitmaps
            // zero.
            unsafe { region.close(span) };
            self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
            self.first_with_room = self.first_with_room.min(at);
            return;
        }
        self.regions[at].note(unit, span, swept != Swept::HardlyUsed);
        if swept != Swept::Full {
            self.return_span(span);
        }
    }

    /// Does the same for a span of a group. The group is closed when all of its spans are empty.
    #[cold]
    fn sort_grouped(&mut self, passed: Passed, swept: Swept) {
        let Passed { span, unit, at } = passed;
        let region = &mut self.regions[at];
        if swept != Swept::Empty {
            region.note(unit, span, swept != Swept::HardlyUsed);
        }
        let was_resident = region.resident_bytes();
        // SAFETY: if it holds no object, no pointer leads into it, and sweep left its bitmaps zero.
        let emptied = unsafe { region.sort_grouped(unit, span, swept == Swept::Empty) };
        self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
        if !region.is_grouped(unit) {
            self.first_with_room = self.first_with_room.min(at);
            return;
        }
        // SAFETY: they are the units of spans of a group that stays open.
        let spans = unsafe { region.spans_of(emptied) };
        for (span, unit) in spans.zip(bitmap::ones_of(0, emptied)) {
            self.regions[at].note(unit as u32, span, false);
            self.return_span(span);
        }
        if !matches!(swept, Swept::Empty | Swept::Full) {
            self.return_span(span);
        }
    }

    /// Lists the spans that are swept and empty, and wait for the others of their groups.
    pub(crate) fn emptied(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.regions.iter().flat_map(Region::emptied)
    }

    /// Does some of what comes after a sweep: gives back what has been of no use for a whole cycle,
    /// and finds what is to be backed by large pages. Begins with all regions after
    /// [`begin_release`](Self::begin_release), once per cycle.
    pub(crate) fn give_back(&mut self, huge_pages: HugePages) -> Released {
        while let Some(at) = self.cursor.checked_sub(1) {
            let region = &mut self.regions[at];
            let was_resident = region.resident_bytes();
            if region.give_back(Unused::ForACycle).is_some() {
                self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
                return Released::Some;
            }
            if self.huge_pages && huge_pages != HugePages::No && region.has_well_used() {
                let page = match huge_pages {
                    HugePages::Now => region.well_used(),
                    _ => None,
                };
                self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
                return page.map_or(Released::WellUsed, Released::HugePage);
            }
            self.cursor = at;
            if region.expires() {
                return Released::Region(self.remove_region(at));
            }
        }
        self.count_metadata();
        Released::All
    }

    /// Gives all memory back that holds no object, and tells how many bytes have gone at most: of a
    /// page that was never written to it cannot tell. Called while no allocator holds a span.
    ///
    /// Empty regions are unmapped, unless there is a pass under way, to which they may be known.
    pub(crate) fn trim(&mut self, passes: bool) -> u64 {
        let mut bytes = 0;
        for at in (0..self.regions.len()).rev() {
            let region = &mut self.regions[at];
            let was_resident = region.resident_bytes();
            if region.is_empty() && !passes {
                let mut region = self.remove_region(at);
                // It stays mapped.
                while region.is_shared() && region.give_back(Unused::Now).is_some() {}
                bytes += was_resident;
                continue;
            }
            region.put_to_rest();
            while let Some(gone) = region.give_back(Unused::Now) {
                bytes += gone as u64;
            }
            self.resident_bytes = self.resident_bytes + region.resident_bytes() - was_resident;
        }
        self.count_metadata();
        self.regions.shrink_to_fit();
        self.classes.iter_mut().for_each(|class| class.partial.shrink_to_fit());
        bytes
    }

    fn remove_region(&mut self, at: usize) -> Region {
        let region = self.regions.remove(at);
        self.mapped_bytes -= region.bytes() as u64;
        self.resident_bytes -= region.resident_bytes();
        self.first_with_room = self.first_with_room.min(at);
        region
    }

    /// Has [`give_back`](Self::give_back) look at all regions.
    pub(crate) fn begin_release(&mut self) {
        self.cursor = self.regions.len();
    }
}

/// Whether [`Space::give_back`] may find what is to be backed by large pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HugePages {
    No,
    /// Not now, but it says so if there is some: [`Released::WellUsed`].
    Later,
    Now,
}

/// What [`Space::give_back`] has done.
pub(crate) enum Released {
    /// All there was to do.
    All,
    Some,
    /// It has let go of a region, which is unmapped when it is dropped.
    Region(Region),
    /// This is to be made a large page.
    HugePage(HugePage),
    /// Nothing, because something is to be made a large page first.
    WellUsed,
}
