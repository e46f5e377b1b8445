//! The allocation context of one mutator: a bump pointer per type, refilled from runs of free slots.
//!
//! A *run* is a stretch of adjacent free slots of one span. Allocation bumps through it; when it is
//! used up, the next one is found in the span's `alloc` bitmap. A type finds its run in a small
//! direct-mapped cache; two types that share an entry push each other out, which costs time only.
//!
//! Invariant: all slots of a run have their `alloc` bits set from the moment the run is taken; the
//! unused ones (the *tail*) are cleared again when it is retired, before anybody reads the bitmap.
//! Dead slots are never written to, so a refill touches no memory but the bitmap.

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use crate::bitmap;
use crate::space::{NoRoom, Space};
use crate::span::SpanRef;
use crate::type_info::TypeInfo;

/// Entries of the cache; a program's hot types are fewer.
const ENTRIES: usize = 64;

/// What one mutator allocates from.
pub(crate) struct Allocator {
    runs: [Run; ENTRIES],
}

/// One type's current run.
#[repr(align(64))]
struct Run {
    info: *const TypeInfo,
    next: *mut u8,
    end: *mut u8,
    cursor: Option<Cursor>,
}

/// Where in a span the search for the next run goes on.
struct Cursor {
    span: SpanRef,
    word: usize,
    /// The free slots of that word that are not yet part of a run.
    free: u64,
}

impl Allocator {
    pub(crate) fn new() -> Self {
        const EMPTY: Run =
            Run { info: ptr::null(), next: ptr::null_mut(), end: ptr::null_mut(), cursor: None };
        Allocator { runs: [EMPTY; ENTRIES] }
    }

    /// A free slot from the type's run, or `None` if that is used up: then [`refill`](Self::refill).
    #[inline]
    pub(crate) fn bump<T>(&mut self, info: &'static TypeInfo) -> Option<NonNull<MaybeUninit<T>>> {
        let run = &mut self.runs[entry(info)];
        if run.next == run.end || !ptr::eq(run.info, info) {
            return None;
        }
        let slot = run.next;
        run.next = slot.wrapping_add(crate::type_info::slot_bytes::<T>());
        // A run's bounds are never null, and `next != end`.
        NonNull::new(slot.cast())
    }

    /// Finds the next run for the type.
    #[cold]
    #[inline(never)]
    pub(crate) fn refill(
        &mut self,
        space: &mut Space,
        info: &'static TypeInfo,
    ) -> Result<(), NoRoom> {
        if !ptr::eq(self.runs[entry(info)].info, info) {
            self.runs[entry(info)].retire(space);
            self.runs[entry(info)].info = info;
        }
        // The unused tails of other types' runs count as used; take them back before giving up.
        if space.budget() < info.charged_bytes() as u64 {
            self.retire(space);
            if space.budget() < info.charged_bytes() as u64 {
                return Err(NoRoom::Limit);
            }
        }
        let run = &mut self.runs[entry(info)];
        run.info = info;
        loop {
            let cursor = match &mut run.cursor {
                Some(cursor) => cursor,
                None => run.cursor.insert(Cursor::new(space.take_span(info)?)),
            };
            if let Some((first, found)) = cursor.next_run() {
                let affordable =
                    (space.budget() / info.charged_bytes() as u64).min(found as u64) as usize;
                if affordable < found {
                    cursor.give_back(first + affordable, first + found);
                }
                space.usage_mut().add(affordable, info);
                run.next = cursor.span.object_at(first).as_ptr();
                run.end = run.next.wrapping_add(affordable * info.slot_bytes);
                return Ok(());
            }
            run.cursor = None;
        }
    }

    /// Gives every run's unused tail, and its span, back to the space.
    pub(crate) fn retire(&mut self, space: &mut Space) {
        self.runs.iter_mut().for_each(|run| run.retire(space));
    }

    /// The unused tails: span, first slot, one past the last.
    pub(crate) fn tails(&self) -> impl Iterator<Item = (SpanRef, usize, usize)> + '_ {
        self.runs.iter().filter_map(Run::tail)
    }

    /// The spans the allocator holds.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.runs.iter().filter_map(|run| Some(run.cursor.as_ref()?.span))
    }
}

#[inline]
fn entry(info: &'static TypeInfo) -> usize {
    (&raw const *info).addr() / align_of::<TypeInfo>() % ENTRIES
}

impl Run {
    fn tail(&self) -> Option<(SpanRef, usize, usize)> {
        let span = self.cursor.as_ref()?.span;
        let slot_bytes = span.info().slot_bytes;
        let unused = (self.end.addr() - self.next.addr()) / slot_bytes;
        let first = (self.next.addr() - span.base().addr().get()) / slot_bytes;
        Some((span, first, first + unused))
    }

    fn retire(&mut self, space: &mut Space) {
        if let Some((span, first, end)) = self.tail() {
            bitmap::clear_range(span.alloc_bits(), first, end);
            space.usage_mut().remove(end - first, span.info());
            space.return_span(span);
        }
        *self =
            Run { info: ptr::null(), next: ptr::null_mut(), end: ptr::null_mut(), cursor: None };
    }
}

impl Cursor {
    fn new(span: SpanRef) -> Self {
        let mut cursor = Cursor { span, word: 0, free: 0 };
        cursor.free = cursor.free_slots(0);
        cursor
    }

    #[inline]
    fn free_slots(&self, word: usize) -> u64 {
        !self.span.alloc_bits()[word].get() & self.span.valid(word)
    }

    /// Takes the next stretch of free slots: its first slot and its length.
    fn next_run(&mut self) -> Option<(usize, usize)> {
        let words = self.span.words();
        while self.free == 0 {
            if self.word + 1 >= words {
                return None;
            }
            self.word += 1;
            self.free = self.free_slots(self.word);
        }
        let bit = self.free.trailing_zeros();
        let first = self.word * 64 + bit as usize;
        let mut len = self.take(bit);
        // A stretch that reaches the end of its word may go on in the next.
        while (first + len).is_multiple_of(64) && self.word + 1 < words {
            let next = self.free_slots(self.word + 1);
            if next & 1 == 0 {
                break;
            }
            self.word += 1;
            self.free = next;
            len += self.take(0);
        }
        Some((first, len))
    }

    /// Takes the free slots of the current word that follow each other from `bit` on.
    #[inline]
    fn take(&mut self, bit: u32) -> usize {
        let len = (self.free >> bit).trailing_ones();
        let taken = bitmap::mask(bit, len);
        let word = &self.span.alloc_bits()[self.word];
        word.set(word.get() | taken);
        self.free &= !taken;
        len as usize
    }

    /// Makes the slots `from .. to`, just taken, free again; the search goes on there.
    fn give_back(&mut self, from: usize, to: usize) {
        bitmap::clear_range(self.span.alloc_bits(), from, to);
        self.word = from / 64;
        self.free = self.free_slots(self.word);
    }
}
