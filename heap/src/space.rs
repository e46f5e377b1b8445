//! The space: all regions of one heap, its size classes, and how many bytes are in use.
//!
//! Hands spans with free slots to allocators and takes emptied ones back from sweep. A *size class*
//! here is one type: spans are typed, so that an object needs no header.
//!
//! Invariant: every open span is in exactly one place: in its class's `partial` list, in the hands of
//! one allocator, or full and in neither (one that an allocator gave back may be full, too); sweep, which sees
//! them all, sorts them anew.

use std::collections::HashMap;

use crate::region::Region;
use crate::span::{SPAN_BYTES, SpanRef};
use crate::type_info::TypeInfo;

/// All memory of one heap.
pub(crate) struct Space {
    regions: Vec<Region>,
    /// No region before this one has room.
    first_with_room: usize,
    classes: Vec<Class>,
    /// By the address of a type's info, of which one type may have several.
    class_of: HashMap<usize, u32>,
    usage: Usage,
    max_bytes: u64,
}

/// What is in use, what allocators have in stock included.
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
        self.bytes += (slots * info.charged_bytes()) as u64;
    }

    pub(crate) fn remove(&mut self, slots: usize, info: &TypeInfo) {
        *self.counter(info) -= slots as u64;
        self.bytes -= (slots * info.charged_bytes()) as u64;
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

/// Why there is no room for another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The heap's own limit.
    Limit,
    /// The system gave no memory.
    System,
}

/// What sweep made of a span.
pub(crate) enum Swept {
    Empty,
    Partial,
    Full,
}

impl Space {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Space {
            regions: Vec::new(),
            first_with_room: 0,
            classes: Vec::new(),
            class_of: HashMap::new(),
            usage: Usage::default(),
            max_bytes,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    pub(crate) fn usage_mut(&mut self) -> &mut Usage {
        &mut self.usage
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Bytes that may still be allocated.
    pub(crate) fn budget(&self) -> u64 {
        self.max_bytes.saturating_sub(self.usage.bytes)
    }

    /// How many of `slots` may still be allocated.
    #[inline]
    pub(crate) fn affordable(&self, slots: usize, info: &TypeInfo) -> usize {
        let bytes = info.charged_bytes() as u64;
        // Rarely near the limit, so rarely a division.
        if slots as u64 * bytes <= self.budget() { slots } else { (self.budget() / bytes) as usize }
    }

    /// Bytes of address space mapped, metadata included.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.bytes() as u64).sum()
    }

    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Every open span, in the order of the regions.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.regions.iter().flat_map(Region::spans)
    }

    pub(crate) fn partial(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.classes.iter().flat_map(|class| class.partial.iter().copied())
    }

    /// A span of the type that may have free slots: one that survived a sweep, else a new one.
    pub(crate) fn take_span(&mut self, info: &'static TypeInfo) -> Result<SpanRef, NoRoom> {
        let class = self.class(info);
        if let Some(span) = self.classes[class as usize].partial.pop() {
            return Ok(span);
        }
        self.open_span(info, class).ok_or(NoRoom::System)
    }

    /// Gives a span back that may still have free slots.
    pub(crate) fn return_span(&mut self, span: SpanRef) {
        self.classes[span.class() as usize].partial.push(span);
    }

    fn class(&mut self, info: &'static TypeInfo) -> u32 {
        let classes = &mut self.classes;
        *self.class_of.entry(&raw const *info as usize).or_insert_with(|| {
            // Once for each address. Without this look, what one part of a program frees would be of no use to another.
            if let Some(class) = classes.iter().position(|class| class.info.type_id == info.type_id)
            {
                return class as u32;
            }
            classes.push(Class { info, partial: Vec::new() });
            (classes.len() - 1) as u32
        })
    }

    fn open_span(&mut self, info: &'static TypeInfo, class: u32) -> Option<SpanRef> {
        debug_assert!(self.classes[class as usize].info.type_id == info.type_id);
        for (index, region) in self.regions.iter_mut().enumerate().skip(self.first_with_room) {
            if let Some(span) = region.open(info, class) {
                return Some(span);
            }
            if index == self.first_with_room && !region.has_room() {
                self.first_with_room += 1;
            }
        }
        // A heap of a few hundred objects should not cost 2 MiB.
        let huge_pages = !self.regions.is_empty();
        let mut region = Region::map(info.slot_bytes.div_ceil(SPAN_BYTES), huge_pages)?;
        let span = region.open(info, class);
        self.regions.push(region);
        span
    }

    /// Sweeps every open span with `sweep` and sorts them: the emptied ones are closed, the partial
    /// ones listed for allocation, lowest address first. No allocator holds a span meanwhile.
    pub(crate) fn sweep_spans(&mut self, mut sweep: impl FnMut(SpanRef) -> Swept) {
        self.classes.iter_mut().for_each(|class| class.partial.clear());
        // Backwards, because spans are taken from the end of the list.
        for region in self.regions.iter_mut().rev() {
            for span in region.spans() {
                match sweep(span) {
                    Swept::Empty => {
                        // SAFETY: it holds no object, so nobody points into it, and sweep left its
                        // bitmaps zero.
                        unsafe { region.close(span) };
                    }
                    Swept::Partial => self.classes[span.class() as usize].partial.push(span),
                    Swept::Full => {}
                }
            }
        }
        self.first_with_room = 0;
    }

    /// Unmaps the regions that have stayed empty; see [`Region::expires`]. Called once per cycle,
    /// after the sweep.
    pub(crate) fn release_regions(&mut self) {
        self.regions.retain_mut(|region| !region.expires());
    }
}
