//! The memory of all records of one pool, and of their marks.
//!
//! Invariant: a record never moves and is never unmapped, so a handle may look at its tag for ever.
//! A range of fresh slots is handed out once.

use crate::observe::description::{Description, DescriptionId};
use crate::record::free_list::{Depot, FreeList};
use crate::record::head::{Head, Index};
use crate::record::slot::{Record, Slot};
use crate::record::tag::{State, Tag};
use sexton_sync::prefetch;
use sexton_sync::{AtomicU8, AtomicU32, AtomicU64, OnceLock, Ordering};
use std::iter::Zip;
use std::slice;

/// Records of the first chunk; each further chunk is twice as large as the one before.
#[cfg(not(any(loom, shuttle)))]
const FIRST_CHUNK: u32 = 1024;
#[cfg(any(loom, shuttle))]
const FIRST_CHUNK: u32 = 4;

/// Chunks until an index needs 32 bits.
const CHUNKS: usize = 31 - FIRST_CHUNK.ilog2() as usize;

/// Fresh slots that one registrar takes at a time. Divides the chunk size, so a range never crosses
/// chunks.
#[cfg(not(any(loom, shuttle)))]
const RANGE: u32 = 128;
#[cfg(any(loom, shuttle))]
const RANGE: u32 = 2;

/// Slots that a registrar takes at first: few heaps have many cleanups. Divides [`RANGE`].
#[cfg(not(any(loom, shuttle)))]
pub(super) const FEW: u32 = 4;
#[cfg(any(loom, shuttle))]
pub(super) const FEW: u32 = RANGE;

/// The most records a pool's cleanups can have: an index has 31 bits, and 0 is none.
const MAX_INDEX: u32 = (1 << 31) - FIRST_CHUNK - 1;

/// Records and marks of one doubling step.
#[derive(Debug)]
struct Chunk {
    records: Box<[Record]>,
    /// A byte per record, owned by `registry.rs`, which says what the values mean. Apart from the
    /// records, so that a sweeper that marks a million cleanups touches one megabyte, not forty.
    marks: Box<[AtomicU8]>,
    /// Generation and description of each record that has one; made for the first that does.
    descriptions: OnceLock<Box<[AtomicU64]>>,
}

impl Chunk {
    #[cfg(not(any(loom, shuttle)))]
    fn new(len: usize) -> Self {
        let records = Box::<[Record]>::new_zeroed_slice(len);
        // SAFETY: zero is a valid `AtomicU32`, and `MaybeUninit` is valid whatever its bytes.
        let records = unsafe { records.assume_init() };
        let marks = Box::<[AtomicU8]>::new_zeroed_slice(len);
        // SAFETY: zero is a valid `AtomicU8`.
        let marks = unsafe { marks.assume_init() };
        Chunk { records, marks, descriptions: OnceLock::new() }
    }

    #[cfg(any(loom, shuttle))]
    fn new(len: usize) -> Self {
        Chunk {
            records: (0..len).map(|_| Record::new()).collect(),
            marks: (0..len).map(|_| AtomicU8::new(0)).collect(),
            descriptions: OnceLock::new(),
        }
    }
}

/// All records of one pool. Grows, never shrinks.
#[derive(Debug)]
pub(crate) struct Storage {
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// The first index never handed out. Written by registrars by `fetch_add`. Relaxed: the number
    /// is all that is exchanged.
    fresh: AtomicU32,
    /// The free slots that no thread has.
    pub(super) depot: Depot,
}

impl Storage {
    pub(crate) fn new() -> Self {
        Storage {
            chunks: [const { OnceLock::new() }; CHUNKS],
            fresh: AtomicU32::new(0),
            depot: Depot::new(),
        }
    }

    /// Gives chunk and offset of an index.
    #[inline]
    fn place(index: Index) -> (usize, usize) {
        let n = index.0 + FIRST_CHUNK;
        // The one changes nothing, and spares a check that there is a logarithm.
        let chunk = (n | 1).ilog2() - FIRST_CHUNK.ilog2();
        (chunk as usize, (n - (FIRST_CHUNK << chunk)) as usize)
    }

    #[inline]
    fn chunk(&self, chunk: usize) -> &Chunk {
        match self.chunks[chunk].get() {
            Some(chunk) => chunk,
            None => no_such_record(),
        }
    }

    #[inline]
    pub(super) fn record(&self, index: Index) -> &Record {
        let (chunk, offset) = Self::place(index);
        &self.chunk(chunk).records[offset]
    }

    #[inline]
    pub(super) fn record_and_mark(&self, index: Index) -> (&Record, &AtomicU8) {
        let (chunk, offset) = Self::place(index);
        let chunk = self.chunk(chunk);
        (&chunk.records[offset], &chunk.marks[offset])
    }

    /// Gives the byte that belongs to a record; its meaning is `registry.rs`'s.
    #[inline]
    pub(crate) fn mark(&self, index: Index) -> &AtomicU8 {
        let (chunk, offset) = Self::place(index);
        &self.chunk(chunk).marks[offset]
    }

    /// Gives the bytes of the whole chunk that a record is in, and the index of its first record.
    pub(crate) fn marks_around(&self, index: Index) -> (&[AtomicU8], u32) {
        let (chunk, offset) = Self::place(index);
        (&self.chunk(chunk).marks, index.0 - offset as u32)
    }

    /// Gives the head of the chain behind `head`'s first record. Asked only by the chain's owner,
    /// and before the record is freed or detached.
    #[inline]
    pub(crate) fn next(&self, head: Head) -> Option<Head> {
        if head.many() {
            // Relaxed: see the field.
            Head::from_raw(self.record(head.index()).next.load(Ordering::Relaxed))
        } else {
            None
        }
    }

    /// Describes the cleanup of this generation.
    pub(crate) fn describe(&self, index: Index, generation: u32, id: DescriptionId) {
        let (chunk, offset) = Self::place(index);
        let chunk = self.chunk(chunk);
        let descriptions = chunk
            .descriptions
            .get_or_init(|| chunk.records.iter().map(|_| AtomicU64::new(0)).collect());
        // Relaxed: one word, and it names the generation it is for.
        descriptions[offset]
            .store(u64::from(generation) << 32 | u64::from(id.0), Ordering::Relaxed);
    }

    /// Describes the cleanup that the record holds, or held last.
    pub(crate) fn description(&self, index: Index) -> Description {
        let (generation, _) = self.state(index);
        let (chunk, offset) = Self::place(index);
        let Some(descriptions) = self.chunk(chunk).descriptions.get() else {
            return Description::default();
        };
        let word = descriptions[offset].load(Ordering::Relaxed);
        if (word >> 32) as u32 == generation {
            DescriptionId(word as u32).description()
        } else {
            Description::default()
        }
    }

    /// Replaces the chain behind a record. Asked only by the chain's owner.
    pub(crate) fn set_next(&self, index: Index, next: Head) {
        // Relaxed: see the field.
        self.record(index).next.store(next.raw(), Ordering::Relaxed);
    }

    /// Takes records out of a chain: those that `reclaim`, called once for each, says it has freed
    /// or left to another thread. Gives what is left. Asked only by the chain's owner.
    pub(crate) fn prune(&self, chain: Head, mut reclaim: impl FnMut(Head) -> bool) -> Option<Head> {
        let mut rest = Some(chain);
        // The records kept: the first one's head, and the last two, whose heads may have to change.
        let mut first = None;
        let mut last: Option<Head> = None;
        let mut before_last: Option<Head> = None;
        while let Some(head) = rest {
            rest = self.next(head);
            if reclaim(head) {
                continue;
            }
            match last {
                None => first = Some(head),
                Some(last) => self.set_next(last.index(), head),
            }
            before_last = last;
            last = Some(head);
        }
        // The last one kept may have had ended records behind it: it has no successor now.
        let end = Head::new(last?.index(), false);
        match before_last {
            None => first = Some(end),
            Some(before) => self.set_next(before.index(), end),
        }
        first
    }

    /// Gives generation and state of a record. Acquire: a thread that sees that a cleanup has ended
    /// sees its effects.
    #[inline]
    pub(crate) fn state(&self, index: Index) -> (u32, State) {
        // Pairs with the Release stores of `arm`, `Ending`, `NoDrop` and `skip`.
        let tag = self.record(index).load(Ordering::Acquire);
        (tag.generation(), tag.state())
    }

    /// Takes a range of slots that were never used.
    ///
    /// # Panics
    /// When two billion records exist.
    #[cold]
    pub(crate) fn fresh(&'static self) -> Fresh {
        self.fresh_range(RANGE)
    }

    /// Takes a few of them.
    ///
    /// # Panics
    /// As [`fresh`](Self::fresh).
    #[cold]
    pub(crate) fn few_fresh(&'static self) -> Fresh {
        self.fresh_range(FEW)
    }

    /// Takes the slots up to the next multiple of `range`.
    fn fresh_range(&'static self, range: u32) -> Fresh {
        // Relaxed, both: see the field. A number that is too high stays: a later caller must not
        // wrap around to slots in use.
        let taken = self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |start| {
            (start <= MAX_INDEX - RANGE).then(|| start + range - start % range)
        });
        let Ok(start) = taken else {
            panic!("a pool cannot have more than {MAX_INDEX} cleanups registered at once");
        };
        let len = (range - start % range) as usize;
        let (chunk, offset) = Self::place(Index(start));
        let chunk = self.chunks[chunk].get_or_init(|| Chunk::new((FIRST_CHUNK << chunk) as usize));
        let range = offset..offset + len;
        let mut fresh = Fresh {
            next: start,
            slots: chunk.records[range.clone()].iter().zip(&chunk.marks[range]),
        };
        if start == 0 {
            // Index 0 is none.
            fresh.slots.next();
            fresh.next = 1;
        }
        fresh
    }

    /// Makes a list of free slots, empty at first.
    pub(crate) fn free_list(&'static self) -> FreeList {
        FreeList::new(self)
    }

    /// Has a record's memory fetched, to be written soon.
    #[inline]
    pub(crate) fn prefetch(&self, index: Index) {
        let record = std::ptr::from_ref(self.record(index));
        prefetch::to_write(record.cast());
        // Half of the records lie across two lines.
        prefetch::to_write(record.cast::<u8>().wrapping_add(size_of::<Record>() - 1));
    }

    /// Has the memory of `count` records fetched, to be written soon. The first of them lies
    /// `ahead` places behind this one in memory. There may be none so far ahead.
    #[inline]
    pub(super) fn prefetch_row(&self, from: Index, ahead: usize, count: usize) {
        let start = std::ptr::from_ref(self.record(from)).wrapping_add(ahead).cast::<u8>();
        for offset in (0..count * size_of::<Record>()).step_by(64) {
            prefetch::to_write(start.wrapping_add(offset));
        }
    }

    /// Tells how many slots have ever been handed out.
    pub(crate) fn made(&self) -> usize {
        // Relaxed: see the field.
        self.fresh.load(Ordering::Relaxed) as usize
    }

    /// Bytes mapped for records and marks.
    #[cfg(all(test, not(any(loom, shuttle))))]
    fn bytes(&self) -> usize {
        self.chunks.iter().flat_map(|c| c.get()).map(|c| c.records.len() * 41).sum()
    }
}

#[cold]
fn no_such_record() -> ! {
    panic!("a head or handle names a record that this pool never had: it belongs to another heap")
}

/// Slots that were never used, owned by one registrar.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Index of the next one.
    next: u32,
    slots: Zip<slice::Iter<'static, Record>, slice::Iter<'static, AtomicU8>>,
}

impl Fresh {
    /// Gives the range that holds nothing.
    pub(crate) fn empty() -> Self {
        Fresh { next: 0, slots: [].iter().zip(&[]) }
    }
}

impl Iterator for Fresh {
    type Item = Slot;

    #[inline]
    fn next(&mut self) -> Option<Slot> {
        let (record, mark) = self.slots.next()?;
        let index = Index(self.next);
        self.next += 1;
        Some(Slot { record, mark, index, tag: Tag(0) })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
pub(super) mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    pub(in crate::record) fn storage() -> &'static Storage {
        Box::leak(Box::new(Storage::new()))
    }

    #[test]
    fn places_follow_each_other_through_all_chunks() {
        let mut expected = (0, 0);
        for index in 0..10 * FIRST_CHUNK {
            assert_eq!(Storage::place(Index(index)), expected);
            expected.1 += 1;
            if expected.1 == (FIRST_CHUNK as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(Storage::place(Index(MAX_INDEX)).0, CHUNKS - 1);
    }

    #[test]
    fn a_storage_has_room_for_tens_of_millions_and_says_when_it_is_full() {
        let storage = storage();
        let many = 20_000_000_u32.next_multiple_of(RANGE);
        storage.fresh.store(many, Ordering::Relaxed);
        assert_eq!(storage.fresh().next().map(|slot| slot.index.0), Some(many));
        storage.fresh.store(MAX_INDEX - RANGE + 1, Ordering::Relaxed);
        // Twice: a refusal does not bring the number round to slots in use.
        for _ in 0..2 {
            let refused = catch_unwind(AssertUnwindSafe(|| storage.fresh().count()));
            assert!(refused.is_err());
            assert_eq!(storage.fresh.load(Ordering::Relaxed), MAX_INDEX - RANGE + 1);
        }
    }

    #[test]
    fn a_million_records_take_41_bytes_each_and_the_slack_of_doubling() {
        let storage = storage();
        let mut n = 0;
        while n < 1_000_000 {
            n += storage.fresh().count();
        }
        assert!(storage.bytes() <= 2 * 41 * n, "{} bytes", storage.bytes());
    }

    #[test]
    #[should_panic(expected = "belongs to another heap")]
    fn a_head_of_another_heap_is_refused() {
        storage().state(Index(5));
    }
}
