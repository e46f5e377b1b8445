//! The allocation context of one mutator: for each type, free slots of one span, taken a bitmap
//! word at a time.
//!
//! Free slots that lie side by side are a *run*, through which allocation bumps. Where survivors
//! lie scattered, runs are short, and their ends cannot be predicted. There the lowest bit of the
//! word's free slots is taken instead, without a branch that guesses. The word decides which of the
//! two, so that the choice is predictable.
//!
//! A type finds its slots in a small direct-mapped cache. Two types that share an entry push each
//! other out, which costs time only.
//!
//! Invariant: all free slots of a word have their `alloc` bits set, and are charged, from the
//! moment the word is taken. Those not handed out are *cached*: the run's rest, and the bits of
//! `free`. They are given back when the entry is retired, before any other part of the heap reads
//! the bitmap.
//!
//! Invariant: `reserved == taken.bytes + allowance`. The space reserves bytes for an allocator, so
//! that it need not ask for each word. `taken`, which includes the cached slots, is what it has not
//! committed to the space yet.
//!
//! Dead slots are never written to, so a refill touches no memory but the bitmap.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::{self, NonNull};

use sexton_sync::prefetch;

use crate::memory::bitmap;
use crate::memory::layout::slot_bytes;
use crate::memory::locking::Locking;
use crate::memory::phase::NO_EPOCH;
use crate::memory::space::{AllocError, CommonSpace, Space, Usage};
use crate::memory::span::SpanRef;
use crate::memory::type_info::TypeInfo;

/// Entries of the cache; a program's hot types are fewer.
pub(crate) const ENTRIES: usize = 32;

/// Words between the one that is taken and the one whose free slots are fetched.
const AHEAD: usize = 3;

/// The most free slots of a word that are fetched.
const FEW: u32 = 16;

/// The most slots taken at first: many types have few objects, and all bits that are set for slots
/// which stay free are cleared again.
const FIRST: usize = 64;

/// What one mutator allocates from.
pub(crate) struct Allocator {
    runs: [CachedRun; ENTRIES],
    /// Where the search goes on for the type of each run.
    cursors: [Option<Cursor>; ENTRIES],
    /// What it has taken since it last committed, the cached slots included.
    taken: Usage,
    /// Bytes that it may still take.
    allowance: u64,
}

/// One type's free slots at hand.
///
/// Invariant: a run with single slots is empty, and begins at the first slot of their word.
#[repr(align(32))]
struct CachedRun {
    info: *const TypeInfo,
    /// The rest of the run: from here
    next: *mut u8,
    /// to here.
    end: *mut u8,
    /// Single free slots: bits of a word.
    free: u64,
}

const _: () = assert!(size_of::<CachedRun>() == 32, "two runs are one cache line");
const _: () = assert!(align_of::<TypeInfo>() == size_of::<CachedRun>(), "no shift finds a run");

/// Where in a span the search for free slots goes on.
struct Cursor {
    span: SpanRef,
    /// The first word not yet taken.
    word: usize,
}

/// Slots that are charged and not handed out.
pub(crate) struct CachedSlots {
    pub(crate) span: SpanRef,
    run: Range<usize>,
    word: usize,
    free: u64,
}

impl Allocator {
    pub(crate) fn new() -> Self {
        Allocator {
            runs: [const { CachedRun::EMPTY }; ENTRIES],
            cursors: [const { None }; ENTRIES],
            taken: Usage::default(),
            allowance: 0,
        }
    }

    /// Takes a free slot from the type's run, or gives `None` if that is used up; then
    /// [`refill`](Self::refill).
    #[inline]
    pub(crate) fn take<T>(&mut self, info: &'static TypeInfo) -> Option<NonNull<MaybeUninit<T>>> {
        let run = &mut self.runs[entry(info)];
        if !ptr::eq(run.info, info) {
            return None;
        }
        let slot = if run.next != run.end {
            let slot = run.next;
            run.next = slot.wrapping_add(slot_bytes::<T>());
            slot
        } else if run.free != 0 {
            let bit = run.free.trailing_zeros() as usize;
            run.free &= run.free - 1;
            run.next.wrapping_add(bit * slot_bytes::<T>())
        } else {
            return None;
        };
        // Addresses of slots are never null.
        NonNull::new(slot.cast())
    }

    /// Finds more free slots for the type, one at least. Called when [`take`](Self::take) found
    /// none.
    #[inline(never)]
    pub(crate) fn refill<M: Locking>(
        &mut self,
        space: &CommonSpace<M>,
        info: &'static TypeInfo,
    ) -> Result<(), AllocError> {
        let entry = entry(info);
        if !ptr::eq(self.runs[entry].info, info) {
            space.with(|space| self.retire_run(entry, space));
        }
        let bytes = info.slot_bytes as u64;
        // What other types have cached is of no use to this one; take it back before giving up.
        if !self.reserve(space, bytes, bytes) {
            space.with(|space| self.retire(space));
            if !self.reserve(space, bytes, bytes) {
                return Err(AllocError::Limit);
            }
        }
        self.runs[entry].info = info;
        let mut has_used_one_up = false;
        loop {
            let cursor = match &mut self.cursors[entry] {
                Some(cursor) => cursor,
                none => {
                    let span = space.with(|space| space.take_span(info, has_used_one_up))?;
                    none.insert(Cursor::new(span))
                }
            };
            let Some(found) = cursor.find() else {
                self.cursors[entry] = None;
                has_used_one_up = true;
                continue;
            };
            let len = match cursor.word {
                0 if !has_used_one_up => found.len().min(FIRST),
                _ => found.len(),
            };
            let wanted = len as u64 * bytes;
            // Rarely near the limit, so rarely a division.
            let most = if self.reserve(space, wanted, bytes) {
                len
            } else {
                (self.allowance / bytes) as usize
            };
            let Some(cursor) = &mut self.cursors[entry] else { unreachable!("it was there above") };
            let slots = cursor.take(found, most);
            if space.phase().epoch() != NO_EPOCH {
                slots.for_each_word(|word, bits| cursor.span.mark_born(word, bits));
            }
            let taken = slots.len();
            self.runs[entry].fill(cursor.span, slots, info);
            self.taken.add(taken, info);
            self.allowance -= taken as u64 * bytes;
            return Ok(());
        }
    }

    /// Tells whether the allowance covers `wanted` bytes, and reserves the missing ones if it does
    /// not. The space may give fewer, or none if it cannot give enough for `least`.
    #[inline]
    fn reserve<M: Locking>(&mut self, space: &CommonSpace<M>, wanted: u64, least: u64) -> bool {
        if self.allowance < wanted {
            let (wanted, least) = (wanted - self.allowance, least.saturating_sub(self.allowance));
            // Now and then, so that others see what is in use; and this is a lock that is taken
            // anyway.
            let handed_out = self.taken.minus(self.cached_usage());
            self.taken = self.cached_usage();
            self.allowance += space.with(|space| {
                space.commit(handed_out);
                space.reserve(wanted, least)
            });
        }
        self.allowance >= wanted
    }

    /// Gives all cached slots, the spans, and the reserved bytes back to the space.
    pub(crate) fn retire(&mut self, space: &mut Space) {
        (0..ENTRIES).for_each(|entry| self.retire_run(entry, space));
        space.commit(std::mem::take(&mut self.taken));
        space.release(std::mem::take(&mut self.allowance));
    }

    fn retire_run(&mut self, entry: usize, space: &mut Space) {
        let run = std::mem::replace(&mut self.runs[entry], CachedRun::EMPTY);
        if let Some(Cursor { span, .. }) = self.cursors[entry].take() {
            let cached = run.cached_slots(span);
            cached.for_each_word(|word, slots| {
                let bits = &span.alloc_bits()[word];
                bits.set(bits.get() & !slots);
                span.unmark(word, slots);
            });
            self.taken = self.taken.minus(cached.usage());
            self.allowance += cached.usage().bytes;
            space.return_span(span);
        }
    }

    /// Gives what it has taken and not committed, the cached slots included.
    pub(crate) fn taken(&self) -> Usage {
        self.taken
    }

    /// Gives the bytes that are reserved for it and that it has not committed.
    ///
    /// There are some from its first allocation until it is retired. An exception is a heap whose
    /// limit is reached.
    pub(crate) fn reserved(&self) -> u64 {
        self.taken.bytes + self.allowance
    }

    /// Gives the bytes that it may still take.
    pub(crate) fn allowance(&self) -> u64 {
        self.allowance
    }

    /// Sums up what is cached. O(types allocated of lately).
    pub(crate) fn cached_usage(&self) -> Usage {
        self.cached_slots().fold(Usage::default(), |sum, cached| sum.plus(cached.usage()))
    }

    /// Lists what is cached.
    pub(crate) fn cached_slots(&self) -> impl Iterator<Item = CachedSlots> + '_ {
        let runs = self.runs.iter().zip(&self.cursors);
        runs.filter_map(|(run, cursor)| Some(run.cached_slots(cursor.as_ref()?.span)))
    }

    /// Lists the spans that the allocator holds.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanRef> + '_ {
        self.cursors.iter().flatten().map(|cursor| cursor.span)
    }
}

#[inline]
fn entry(info: &'static TypeInfo) -> usize {
    (&raw const *info).addr() / align_of::<TypeInfo>() % ENTRIES
}

impl CachedRun {
    const EMPTY: CachedRun =
        CachedRun { info: ptr::null(), next: ptr::null_mut(), end: ptr::null_mut(), free: 0 };

    /// Takes in slots of a span. Called with nothing cached.
    fn fill(&mut self, span: SpanRef, slots: FreeSlots, info: &TypeInfo) {
        let address = |slot: usize| span.base().as_ptr().wrapping_add(slot * info.slot_bytes);
        match slots {
            FreeSlots::Run { first, len } => {
                self.next = address(first);
                self.end = self.next.wrapping_add(len * info.slot_bytes);
            }
            FreeSlots::Scattered { word, bits } => {
                self.free = bits;
                self.next = address(word * 64);
                self.end = self.next;
            }
        }
    }

    /// Gives what is cached, all of it slots of the span.
    fn cached_slots(&self, span: SpanRef) -> CachedSlots {
        let slot_bytes = span.info().slot_bytes;
        let slot = |address: *mut u8| (address.addr() - span.base().addr().get()) / slot_bytes;
        CachedSlots {
            span,
            // An unset pointer counts from nowhere.
            run: if self.next == self.end { 0..0 } else { slot(self.next)..slot(self.end) },
            word: if self.free == 0 { 0 } else { slot(self.next) / 64 },
            free: self.free,
        }
    }
}

impl CachedSlots {
    /// Calls `each` with the words that they are in, and their bits there.
    fn for_each_word(&self, mut each: impl FnMut(usize, u64)) {
        bitmap::for_each_word(self.run.start, self.run.end, &mut each);
        if self.free != 0 {
            each(self.word, self.free);
        }
    }

    fn len(&self) -> usize {
        self.run.len() + self.free.count_ones() as usize
    }

    /// Tells what they are charged as.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        usage.add(self.len(), self.span.info());
        usage
    }

    /// Gives the slots of a bitmap word that are among them.
    pub(crate) fn in_word(&self, index: usize) -> u64 {
        let from = self.run.start.clamp(index * 64, index * 64 + 64);
        let to = self.run.end.clamp(from, index * 64 + 64);
        let run = if from < to { bitmap::mask((from % 64) as u32, (to - from) as u32) } else { 0 };
        if index == self.word { run | self.free } else { run }
    }
}

/// Free slots of one span.
enum FreeSlots {
    /// Side by side.
    Run { first: usize, len: usize },
    /// Bits of one word.
    Scattered { word: usize, bits: u64 },
}

impl FreeSlots {
    /// Calls `each` with the words that they are in, and their bits there.
    fn for_each_word(&self, mut each: impl FnMut(usize, u64)) {
        match *self {
            FreeSlots::Run { first, len } => bitmap::for_each_word(first, first + len, each),
            FreeSlots::Scattered { word, bits } => each(word, bits),
        }
    }

    fn len(&self) -> usize {
        match *self {
            FreeSlots::Run { len, .. } => len,
            FreeSlots::Scattered { bits, .. } => bits.count_ones() as usize,
        }
    }
}

impl Cursor {
    /// At the beginning of a span.
    fn new(span: SpanRef) -> Self {
        let cursor = Cursor { span, word: 0 };
        (0..AHEAD).for_each(|word| cursor.prefetch(word));
        cursor
    }

    /// Has the free slots of a word fetched, to be written to, if they are few: the processor does
    /// not foresee where they are.
    fn prefetch(&self, word: usize) {
        if word < self.span.words() {
            let free = self.free_slots(word);
            if free.count_ones() <= FEW {
                let slots = bitmap::ones_of(word, free);
                slots.for_each(|slot| prefetch::to_write(self.span.object_at(slot).as_ptr()));
            }
        }
    }

    #[inline]
    fn free_slots(&self, word: usize) -> u64 {
        !self.span.alloc_bits()[word].get() & self.span.valid(word)
    }

    /// Gives the free slots of the next word that has any. If they are one run that ends with the
    /// word, those that go on from there as well.
    fn find(&mut self) -> Option<FreeSlots> {
        self.span.looked_at();
        let alloc = self.span.alloc_bits();
        let free_slots = |word: usize| !alloc[word].get() & self.span.valid(word);
        let words = alloc.len();
        let mut bits = 0;
        while bits == 0 {
            if self.word == words {
                return None;
            }
            bits = free_slots(self.word);
            self.word += 1;
        }
        self.word -= 1;
        let word = self.word;
        let run = bits >> bits.trailing_zeros();
        if run & run.wrapping_add(1) != 0 {
            return Some(FreeSlots::Scattered { word, bits });
        }
        let first = word * 64 + bits.trailing_zeros() as usize;
        let mut end = first + run.trailing_ones() as usize;
        while end.is_multiple_of(64) && end / 64 < words {
            let more = free_slots(end / 64).trailing_ones() as usize;
            if more == 0 {
                break;
            }
            end += more;
        }
        Some(FreeSlots::Run { first, len: end - first })
    }

    /// Takes the first `most` of the slots that were found; the search goes on behind them.
    fn take(&mut self, found: FreeSlots, most: usize) -> FreeSlots {
        match found {
            FreeSlots::Run { first, len } => {
                let len = len.min(most);
                bitmap::set_range(self.span.alloc_bits(), first, first + len);
                self.word = (first + len) / 64;
                FreeSlots::Run { first, len }
            }
            FreeSlots::Scattered { word, mut bits } => {
                for _ in most..bits.count_ones() as usize {
                    bits &= !(1 << (63 - bits.leading_zeros()));
                }
                let taken = &self.span.alloc_bits()[word];
                taken.set(taken.get() | bits);
                self.prefetch(word + AHEAD);
                // If some had to stay, they will be found again.
                FreeSlots::Scattered { word, bits }
            }
        }
    }
}
