//! The records: one slot per registered cleanup, and the state machine of its tag.
//!
//! ```text
//!                 +-- handle: run_now --> Running  --> Done    --+
//!                 +-- handle: stop -----> Stopping --> Stopped --+
//! free --arm--> Armed                                            +--> free (same generation, until `arm`)
//!                 +-- runner: run ------> Executing -------------+
//!                 +-- runner: discard --> Dropping --------------+
//! ```
//!
//! `Armed` comes in two kinds, and so does `Stopping`. Captures that own nothing need no destructor, so nothing
//! of the user's happens between taking such a record and declaring its end: `ArmedBare` --> `StoppingBare` -->
//! `Stopped` is a compare-exchange and a store a few instructions later, for which whoever meets the record in
//! between waits. Taken in any other way it is like any other.
//!
//! Invariants, kept here whatever the callers do with their (copyable) heads:
//!
//! 1. The thunk of a slot is written only by the holder of its [`Slot`], and read out only by the holder of
//!    its [`Taken`], which exactly one thread gets per `arm`: the winner of the compare-exchange.
//! 2. A slot is freed exactly once per `arm`: by the one thread that moves its tag to a free state. So a slot
//!    is in at most one free list.
//! 3. Records never move and are never unmapped; a handle may look at its tag for ever.
//!
//! A head used twice, or after its object's death, can thus make a cleanup run early or not at all; it cannot
//! break memory. This file does not know what a batch, a block or a heap is, and it counts nothing.

use crate::observe::description::{Description, DescriptionId};
use crate::record::free_list::{Depot, FreeList};
use crate::record::thunk::{Namer, Thunk};
use sexton_sync::prefetch;
use sexton_sync::{AtomicU8, AtomicU32, AtomicU64, OnceLock, Ordering, UnsafeCell, yield_now};
use std::iter::Zip;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::slice;

/// Records of the first chunk; each further chunk is twice as large as the one before.
#[cfg(not(any(loom, shuttle)))]
const FIRST_CHUNK: u32 = 1024;
#[cfg(any(loom, shuttle))]
const FIRST_CHUNK: u32 = 4;

/// Chunks until an index needs 32 bits.
const CHUNKS: usize = 31 - FIRST_CHUNK.ilog2() as usize;

/// Fresh slots that one registrar takes at a time. Divides the chunk size, so a range never crosses chunks.
#[cfg(not(any(loom, shuttle)))]
const RANGE: u32 = 128;
#[cfg(any(loom, shuttle))]
const RANGE: u32 = 2;

/// The most records one heap's cleanups can have: an index has 31 bits, and 0 is none.
const MAX_INDEX: u32 = (1 << 31) - FIRST_CHUNK - 1;

// ---- names of records ----------------------------------------------------------------------------------

/// Which record, within its storage. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Index(pub(super) u32);

impl Index {
    /// From a number that [`raw`](Self::raw) gave; `None` for 0.
    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        (raw != 0).then_some(Index(raw))
    }

    /// From a number that [`raw`](Self::raw) gave, and that was kept unchanged.
    #[inline]
    pub(crate) fn of_handle(raw: u32) -> Self {
        debug_assert!(raw != 0);
        Index(raw)
    }

    #[inline]
    pub(crate) fn raw(self) -> u32 {
        self.0
    }

    /// How far behind `first` it is; a number beyond every length if it is in front.
    #[inline]
    pub(crate) fn since(self, first: u32) -> usize {
        self.0.wrapping_sub(first) as usize
    }
}

/// Head of one object's chain of cleanup records.
///
/// The first record's index, and whether there is a second one: a sweeper that meets a head of a single
/// record need not touch the record. 4 bytes, and so is `Option<Head>`. A head means something only to the
/// registrars and cycles of the [`Origin`](crate::Origin) it came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Head(NonZeroU32);

impl Head {
    #[inline]
    pub(crate) fn new(index: Index, many: bool) -> Self {
        debug_assert!(index.0 != 0 && index.0 <= MAX_INDEX);
        // Not 0, because the index is not; the `| 1` never runs in a correct program and costs a cycle less
        // than a check.
        Head(NonZeroU32::new(index.0 << 1 | u32::from(many)).unwrap_or(NonZeroU32::MIN))
    }

    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        NonZeroU32::new(raw).map(Head)
    }

    #[inline]
    pub(crate) fn raw(self) -> u32 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn index(self) -> Index {
        Index(self.0.get() >> 1)
    }

    /// Whether the record has a successor.
    #[inline]
    pub(crate) fn many(self) -> bool {
        self.0.get() & 1 != 0
    }
}

// ---- tags ----------------------------------------------------------------------------------------------

/// How often the slot has been armed, and what has become of the last time. 28 and 4 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

pub(crate) const MAX_GENERATION: u32 = (1 << 28) - 1;

/// The state half of a tag. A zeroed record is a free one of generation 0, which no handle ever names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum State {
    /// Ran; the slot is free.
    DoneFree = 0,
    /// Stopped or discarded; the slot is free.
    StoppedFree = 1,
    /// Ran by its handle; the slot belongs to the chain.
    Done = 2,
    /// Stopped by its handle; the slot belongs to the chain.
    Stopped = 3,
    /// `Done`, and the handle has counted the end in the batch that the record is queued in.
    DoneCounted = 4,
    /// `Stopped`, and counted likewise.
    StoppedCounted = 5,
    /// Waits for whoever takes it.
    Armed = 6,
    /// The same, and its captures need no destructor.
    ArmedBare = 7,
    /// Taken by a handle, to be run.
    Running = 8,
    /// Taken by a handle, to be dropped.
    Stopping = 9,
    /// Taken by a handle, which has nothing to drop and is about to declare the end: wait for it.
    StoppingBare = 10,
    /// Running, and the chain is gone: who took it frees the slot.
    RunningOrphan = 11,
    /// Stopping, and the chain is gone: who took it frees the slot.
    StoppingOrphan = 12,
    /// Taken by a runner, to be run. It frees the slot.
    Executing = 13,
    /// Taken by a runner, to be dropped. It frees the slot.
    Dropping = 14,
}

impl State {
    /// Ended by its handle, with the slot still in the chain.
    pub(crate) fn is_settled(self) -> bool {
        matches!(self, State::Done | State::Stopped | State::DoneCounted | State::StoppedCounted)
    }
}

impl Tag {
    #[inline]
    fn new(generation: u32, state: State) -> Self {
        Tag(generation << 4 | state as u32)
    }

    #[inline]
    fn generation(self) -> u32 {
        self.0 >> 4
    }

    #[inline]
    fn state(self) -> State {
        match self.0 & 15 {
            0 => State::DoneFree,
            1 => State::StoppedFree,
            2 => State::Done,
            3 => State::Stopped,
            4 => State::DoneCounted,
            5 => State::StoppedCounted,
            6 => State::Armed,
            7 => State::ArmedBare,
            8 => State::Running,
            9 => State::Stopping,
            10 => State::StoppingBare,
            11 => State::RunningOrphan,
            12 => State::StoppingOrphan,
            13 => State::Executing,
            14 => State::Dropping,
            _ => unreachable!("tags are made by Tag::new only"),
        }
    }

    /// Whether the state is one of the two kinds of `Armed`; cheaper than to ask for the state.
    #[inline]
    fn is_armed(self) -> bool {
        const { assert!(State::Armed as u32 | 1 == State::ArmedBare as u32) };
        self.0 & 15 | 1 == State::ArmedBare as u32
    }

    #[inline]
    fn with(self, state: State) -> Self {
        Tag::new(self.generation(), state)
    }

    /// The tag of the free slot that a settled record becomes; `None` if it is not settled.
    #[inline]
    fn freed(self) -> Option<Self> {
        // Settled states lie side by side, and the free ones, which are the first two, go with them in turn.
        const FIRST: u32 = State::Done as u32;
        const LAST: u32 = State::StoppedCounted as u32;
        const {
            assert!(State::DoneFree as u32 == 0 && State::StoppedFree as u32 == 1);
            assert!(FIRST.is_multiple_of(2) && (State::DoneCounted as u32).is_multiple_of(2));
            assert!(State::Stopped as u32 % 2 == 1 && LAST % 2 == 1 && LAST - FIRST == 3);
        }
        let state = self.0 & 15;
        (state.wrapping_sub(FIRST) <= LAST - FIRST).then_some(Tag(self.0 & !15 | state & 1))
    }
}

// ---- storage -------------------------------------------------------------------------------------------

/// One registered cleanup.
#[derive(Debug)]
pub(super) struct Record {
    /// Generation and state. Written by whoever holds the slot's [`Slot`], [`Taken`], [`Ending`] or [`Bare`]; moved by
    /// compare-exchange from `Armed` and `ArmedBare` by anybody, and by the chain's owner from the settled states,
    /// `Running` and `Stopping`.
    pub(super) tag: AtomicU32,
    /// The next record's [`Head`] in raw form; means something only while this record's own head says
    /// "many". Once the record is an orphan: the note that its chain's owner has left for the taker.
    /// Written by the chain's owner. Relaxed: a chain changes owners by way of the heap's own
    /// synchronisation and then of the full list, a note by way of the tag.
    pub(super) next: AtomicU32,
    /// The closure while the state is `Armed` or `ArmedBare`; a group of a free list while the slot is free and has one.
    pub(super) thunk: UnsafeCell<MaybeUninit<Thunk>>,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Record>() == 40, "a record is 40 bytes");

// SAFETY: the only part that is not `Sync` by itself is `thunk`, and invariants 1 and 2 give each access to
// it to one thread at a time, which got there by an Acquire of the Release behind the access before. What
// moves between threads that way is `Send`: a `Thunk` or an index.
unsafe impl Sync for Record {}

impl Record {
    #[cfg(any(loom, shuttle))]
    fn new() -> Self {
        Record {
            tag: AtomicU32::new(0),
            next: AtomicU32::new(0),
            thunk: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    #[inline]
    pub(super) fn load(&self, ordering: Ordering) -> Tag {
        Tag(self.tag.load(ordering))
    }
}

/// Records and marks of one doubling step.
#[derive(Debug)]
struct Chunk {
    records: Box<[Record]>,
    /// A byte per record, owned by `registry.rs`, which says what the values mean. Apart from the records,
    /// so that a sweeper that marks a million cleanups touches one megabyte, not forty.
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

/// All records of one registry. Grows, never shrinks.
#[derive(Debug)]
pub(crate) struct Storage {
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// The first index never handed out. Written by registrars by `fetch_add`. Relaxed: the number is all
    /// that is exchanged.
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

    /// Chunk and offset of an index.
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

    /// The byte that belongs to a record; its meaning is `registry.rs`'s.
    #[inline]
    pub(crate) fn mark(&self, index: Index) -> &AtomicU8 {
        let (chunk, offset) = Self::place(index);
        &self.chunk(chunk).marks[offset]
    }

    /// The bytes of the whole chunk that a record is in, and the index of its first record.
    pub(crate) fn marks_around(&self, index: Index) -> (&[AtomicU8], u32) {
        let (chunk, offset) = Self::place(index);
        (&self.chunk(chunk).marks, index.0 - offset as u32)
    }

    /// The head of the chain behind `head`'s first record. Asked only by the chain's owner, and before the
    /// record is freed or orphaned.
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

    /// What is known of the cleanup that the record holds, or held last.
    pub(crate) fn description(&self, index: Index) -> Description {
        let (generation, _) = self.look(index);
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

    /// Takes records out of a chain: those that `reclaim`, called once for each, says it has freed or left to
    /// another thread. Gives what is left. Asked only by the chain's owner.
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
        // The last one kept may have had settled records behind it: it has no successor now.
        let end = Head::new(last?.index(), false);
        match before_last {
            None => first = Some(end),
            Some(before) => self.set_next(before.index(), end),
        }
        first
    }

    /// Generation and state of a record. Acquire: who sees that a cleanup has ended sees what it did.
    #[inline]
    pub(crate) fn look(&self, index: Index) -> (u32, State) {
        // Pairs with the Release stores of `arm`, `Ending`, `Bare` and `pass`.
        let tag = self.record(index).load(Ordering::Acquire);
        (tag.generation(), tag.state())
    }

    /// Takes an armed record, to run its closure or to drop it. At most one caller per `arm` succeeds.
    #[inline]
    pub(crate) fn take(&'static self, index: Index, taker: Taker, to_drop: bool) -> Option<Taken> {
        let (record, mark) = self.record_and_mark(index);
        // Relaxed: only a guess; the compare-exchange decides.
        let tag = record.load(Ordering::Relaxed);
        if !tag.is_armed() {
            return None;
        }
        let taken = tag.with(match (taker, to_drop) {
            (Taker::Handle { generation }, _) if generation != tag.generation() => return None,
            (Taker::Handle { .. }, false) => State::Running,
            (Taker::Handle { .. }, true) => State::Stopping,
            (_, false) => State::Executing,
            (_, true) => State::Dropping,
        });
        #[cfg(any(loom, shuttle))]
        if let Taker::Careless = taker {
            record.tag.store(taken.0, Ordering::Relaxed);
            return Some(Taken(Ending { storage: self, record, mark, index, tag: taken }));
        }
        // Acquire: pairs with the Release in `arm`, so that the thunk is there. A failure means that another
        // thread took it: from `Armed` there is no way back to `Armed` of the same generation.
        record
            .tag
            .compare_exchange(tag.0, taken.0, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then_some(Taken(Ending { storage: self, record, mark, index, tag: taken }))
    }

    /// Takes an armed record of this generation in order to stop it, if its captures need no destructor.
    #[inline]
    pub(crate) fn take_bare(&'static self, index: Index, generation: u32) -> Option<Bare> {
        let (record, mark) = self.record_and_mark(index);
        let tag = Tag::new(generation, State::ArmedBare);
        // Not looked at before: who stops a cleanup expects to be in time, and in a short-lived one the look waits for the
        // store that armed it.
        // Acquire: pairs with the Release in `arm`, so that the mark is ours to look at. A failure: see `take`.
        record
            .tag
            .compare_exchange(
                tag.0,
                tag.with(State::StoppingBare).0,
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_ok()
            .then_some(Bare { record, mark, generation })
    }

    /// Frees a record of a live object's chain, if its handle has ended it. Gives the slot, and the head of what is behind it
    /// in the chain. Asked only by the chain's owner.
    ///
    /// Not if its handle's thread is still at it: its chain lives, and keeps the slot.
    #[inline]
    pub(crate) fn free_settled(&'static self, head: Head) -> Option<(Slot, Option<Head>)> {
        let index = head.index();
        let (record, mark) = self.record_and_mark(index);
        // Relaxed: only a guess; the compare-exchange decides.
        let tag = record.load(Ordering::Relaxed);
        let free = tag.freed()?;
        // Relaxed: see the field. Before the slot is free.
        let rest = if head.many() { record.next.load(Ordering::Relaxed) } else { 0 };
        // As in `pass`. It fails only if the head was used twice.
        record
            .tag
            .compare_exchange(tag.0, free.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some((Slot { record, mark, index, tag: free }, Head::from_raw(rest)))
    }

    /// What the chain's owner does with a record that it could not take: frees the slot if the handle is
    /// done with it, or leaves that, with a note, to the thread that is still at it. Without a note, it leaves
    /// such a record as it is.
    pub(crate) fn pass(&'static self, index: Index, note: Option<u8>) -> Passed {
        let (record, mark) = self.record_and_mark(index);
        // Relaxed: only a guess; the compare-exchange decides.
        let mut tag = record.load(Ordering::Relaxed);
        loop {
            let next = match tag.state() {
                State::Armed | State::ArmedBare => return Passed::Armed,
                State::StoppingBare => {
                    // Its handle's thread has a store left to do, and does not wait for us.
                    yield_now();
                    tag = record.load(Ordering::Relaxed);
                    continue;
                }
                State::Done | State::DoneCounted => State::DoneFree,
                State::Stopped | State::StoppedCounted => State::StoppedFree,
                State::Running => State::RunningOrphan,
                State::Stopping => State::StoppingOrphan,
                State::DoneFree
                | State::StoppedFree
                | State::RunningOrphan
                | State::StoppingOrphan
                | State::Executing
                | State::Dropping => return Passed::NotOurs,
            };
            let settled = tag.state().is_settled();
            if !settled {
                let Some(note) = note else { return Passed::Busy };
                record.next.store(u32::from(note), Ordering::Relaxed);
            }
            let next = tag.with(next);
            // Acquire: pairs with the Release in `Ending::close` and `Bare::close`; the taker is done with the thunk before the
            // slot is used again. Release: pairs with the Acquire there; our reading of `next`, and the note
            // in its place, come before the taker frees the slot.
            match record.tag.compare_exchange(tag.0, next.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if settled => {
                    let counted = matches!(tag.state(), State::DoneCounted | State::StoppedCounted);
                    return Passed::Freed(Slot { record, mark, index, tag: next }, counted);
                }
                Ok(_) => return Passed::Orphaned,
                Err(now) => tag = Tag(now),
            }
        }
    }

    /// The mutant of [`pass`](Self::pass) that does not wait for a handle that has only to declare the end.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn pass_at_once(&'static self, index: Index, note: Option<u8>) -> Passed {
        let (record, mark) = self.record_and_mark(index);
        let now = record.load(Ordering::Relaxed);
        let tag = now.with(State::StoppedFree);
        let is_freed = now.state() == State::StoppingBare
            && record
                .tag
                .compare_exchange(now.0, tag.0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if is_freed {
            return Passed::Freed(Slot { record, mark, index, tag }, false);
        }
        self.pass(index, note)
    }

    /// A range of slots that were never used.
    ///
    /// # Panics
    /// When two billion records exist.
    #[cold]
    pub(crate) fn fresh(&'static self) -> Fresh {
        // Relaxed: see the field.
        let start = self.fresh.fetch_add(RANGE, Ordering::Relaxed);
        if start > MAX_INDEX - RANGE {
            // Keep it there: a later caller must not wrap around to slots in use.
            self.fresh.fetch_sub(RANGE, Ordering::Relaxed);
            panic!("a heap cannot have more than {MAX_INDEX} cleanups registered at once");
        }
        let (chunk, offset) = Self::place(Index(start));
        let chunk = self.chunks[chunk].get_or_init(|| Chunk::new((FIRST_CHUNK << chunk) as usize));
        let range = offset..offset + RANGE as usize;
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

    /// A list of free slots, empty at first.
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

    /// Has the memory fetched, to be written soon, of `count` records, the first of which lies so many places ahead of this
    /// one in memory. There may be none so far ahead.
    #[inline]
    pub(super) fn prefetch_row(&self, from: Index, ahead: usize, count: usize) {
        let start = std::ptr::from_ref(self.record(from)).wrapping_add(ahead).cast::<u8>();
        for offset in (0..count * size_of::<Record>()).step_by(64) {
            prefetch::to_write(start.wrapping_add(offset));
        }
    }

    /// How many slots have ever been handed out.
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
    panic!(
        "a head or handle names a record that this registry never had: it belongs to another heap"
    )
}

/// What [`Storage::pass`] found.
#[derive(Debug)]
pub(crate) enum Passed {
    /// It is armed: take it.
    Armed,
    /// It had been settled by its handle; its slot is free now, and the caller's. Whether the handle had
    /// counted the end.
    Freed(Slot, bool),
    /// Its handle's thread is still at it, and will free the slot.
    Orphaned,
    /// Its handle's thread is still at it, and will leave the slot to the chain's owner.
    Busy,
    /// Another runner has it or has ended it, or the head was used twice.
    NotOurs,
}

/// Who takes a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taker {
    /// A handle, whose cleanup is of this generation. It leaves the slot to the chain's owner.
    Handle { generation: u32 },
    /// A runner, or whoever else owns the chain. It frees the slot.
    Runner,
    /// The mutant of a runner that takes without asking whether it was the first.
    #[cfg(any(loom, shuttle))]
    Careless,
}

/// A free slot, owned.
#[derive(Debug)]
#[must_use = "a slot that is dropped is lost until the process ends"]
pub(crate) struct Slot {
    pub(super) record: &'static Record,
    pub(super) mark: &'static AtomicU8,
    pub(super) index: Index,
    /// Its tag, of a free state. Only the owner changes it.
    pub(super) tag: Tag,
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}@{}", self.state(), self.generation())
    }
}

impl Slot {
    /// Whether the next generation would be one that a handle was given before. Such a slot is retired.
    #[inline]
    pub(crate) fn is_worn(&self) -> bool {
        self.tag.generation() == MAX_GENERATION
    }

    /// Arms the slot: from here on exactly one thread may take it. Gives its index and its generation.
    #[inline]
    pub(crate) fn arm<F: FnOnce() + Send + 'static>(
        self,
        next: Option<Head>,
        mark: u8,
        f: F,
    ) -> (Index, u32) {
        let record = self.record;
        let state = if Thunk::is_bare::<F>() { State::ArmedBare } else { State::Armed };
        let tag = Tag::new(self.tag.generation() + 1, state);
        if let Some(next) = next {
            // Relaxed, both: published by the Release below, or by the heap to its sweeper.
            record.next.store(next.raw(), Ordering::Relaxed);
        }
        self.mark.store(mark, Ordering::Relaxed);
        record.thunk.with_mut(|thunk| {
            // SAFETY: the slot is ours (invariant 2) and not yet armed, so nobody else looks at the cell. What a free slot holds
            // needs no drop: a group, what is left of a thunk that was moved out, or one that was bare.
            unsafe { (*thunk).write(Thunk::new(f)) };
        });
        // Release: pairs with the Acquire in `take` and `take_bare`. Every way by which another thread gets hold of a head or a
        // handle synchronises by itself, so no model can miss this; but the taker's right to the thunk
        // should not hang on how it was told.
        record.tag.store(tag.0, Ordering::Release);
        (self.index, tag.generation())
    }
}

/// A record that this thread has taken, with its closure still inside.
#[derive(Debug)]
#[must_use = "nobody else can run or drop the closure now"]
pub(crate) struct Taken(Ending);

impl Taken {
    /// Moves the closure out, so that it runs on its taker's stack and may outlive the slot's next use.
    #[inline]
    pub(crate) fn extract(self) -> (Thunk, Ending) {
        let thunk = self.0.record.thunk.with(|thunk| {
            // SAFETY: the tag was `Armed` or `ArmedBare` when we took it, so `arm` had written a thunk; we are the one that
            // took it (invariant 1), and this consumes the proof, so it is read out once.
            unsafe { thunk.cast::<Thunk>().read() }
        });
        (thunk, self.0)
    }
}

/// A record that this thread has taken and emptied, and whose end it has to declare.
#[derive(Debug)]
#[must_use = "until its end is declared, the record counts as running"]
pub(crate) struct Ending {
    storage: &'static Storage,
    record: &'static Record,
    mark: &'static AtomicU8,
    index: Index,
    /// The tag as taken.
    tag: Tag,
}

impl Ending {
    /// What is known of the cleanup, of whose closure this names the type.
    #[cold]
    pub(crate) fn describe(&self, closure: Namer) -> Description {
        let known = self.storage.description(self.index);
        Description { closure: known.closure.or(Some(closure.name())), ..known }
    }

    /// The record's byte.
    pub(crate) fn mark(&self) -> &'static AtomicU8 {
        self.mark
    }

    fn slot(&self, tag: Tag) -> Slot {
        Slot { record: self.record, mark: self.mark, index: self.index, tag }
    }

    fn is_stop(&self) -> bool {
        matches!(self.tag.state(), State::Stopping | State::Dropping)
    }

    /// Declares the end and frees the slot: for a taker that owns the chain.
    #[inline]
    pub(crate) fn free(self, freed: &mut FreeList) {
        let tag = self.tag.with(if self.is_stop() { State::StoppedFree } else { State::DoneFree });
        // A plain store: nobody moves the tag of a record that a runner has taken.
        // Release: pairs with the Acquire in `look`.
        self.record.tag.store(tag.0, Ordering::Release);
        freed.push(self.slot(tag));
    }

    /// Declares the end and leaves the slot to its chain: for a handle. `counted` says whether the handle
    /// counts the end in a batch. If the chain is gone already, its owner has left the slot to us.
    pub(crate) fn close(self, counted: bool) -> Option<Orphan> {
        let tag = self.tag.with(match (self.is_stop(), counted) {
            (false, false) => State::Done,
            (false, true) => State::DoneCounted,
            (true, false) => State::Stopped,
            (true, true) => State::StoppedCounted,
        });
        // A swap: whatever the owner did meanwhile, it is to see the end, and we are to see what it did.
        // Release: pairs with the Acquire in `pass` and `look`. Acquire: pairs with the Release in `pass`.
        let before = Tag(self.record.tag.swap(tag.0, Ordering::AcqRel));
        matches!(before.state(), State::RunningOrphan | State::StoppingOrphan)
            .then_some(Orphan(Ending { tag, ..self }))
    }
}

/// A record that this thread has taken to stop it and that has nothing to drop. Nothing of the user's may be
/// called before its end is declared: the chain's owner waits for that.
#[derive(Debug)]
#[must_use = "until its end is declared, others wait for it"]
pub(crate) struct Bare {
    record: &'static Record,
    mark: &'static AtomicU8,
    generation: u32,
}

impl Bare {
    /// The record's byte.
    #[inline]
    pub(crate) fn mark(&self) -> &'static AtomicU8 {
        self.mark
    }

    /// Declares the end and leaves the slot to its chain. `counted`: see [`Ending::close`].
    #[inline]
    pub(crate) fn close(self, counted: bool) {
        let state = if counted { State::StoppedCounted } else { State::Stopped };
        // A plain store: nobody moves the tag of a record in this state. The thunk stays where it is, like any
        // value that is forgotten.
        // Release: pairs with the Acquire in `pass` and `look`.
        self.record.tag.store(Tag::new(self.generation, state).0, Ordering::Release);
    }
}

/// A settled record whose chain is gone; the slot is to be freed by this thread.
#[derive(Debug)]
#[must_use = "nobody else will free the slot"]
pub(crate) struct Orphan(Ending);

impl Orphan {
    /// What the chain's owner has left: see [`Storage::pass`].
    pub(crate) fn note(&self) -> u8 {
        // Relaxed: ordered by the swap in `close`.
        self.0.record.next.load(Ordering::Relaxed) as u8
    }

    /// Frees the slot.
    pub(crate) fn free(self) {
        let Orphan(ending) = self;
        let free = match ending.tag.state() {
            State::Done | State::DoneCounted => State::DoneFree,
            _ => State::StoppedFree,
        };
        let tag = ending.tag.with(free);
        // Not a plain store but a compare-exchange: to a head that is (wrongly) used again the record looks
        // settled, and it may be freed from there. Only who moves the tag frees the slot.
        // Release: pairs with the Acquire in `look`.
        if ending
            .record
            .tag
            .compare_exchange(ending.tag.0, tag.0, Ordering::Release, Ordering::Relaxed)
            .is_ok()
        {
            let mut list = ending.storage.free_list();
            list.push(ending.slot(tag));
            list.give_back();
        }
    }
}

/// Slots that were never used, owned by one registrar.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Index of the next one.
    next: u32,
    slots: Zip<slice::Iter<'static, Record>, slice::Iter<'static, AtomicU8>>,
}

impl Fresh {
    /// The range that holds nothing.
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

    fn arm(storage: &'static Storage) -> (Index, u32) {
        storage.fresh().next().expect("fresh").arm(None, 0, || {})
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
    fn an_armed_record_is_taken_once() {
        let storage = storage();
        let (index, generation) = arm(storage);
        assert!(
            storage.take(index, Taker::Handle { generation: generation + 1 }, false).is_none(),
            "another generation"
        );
        let (thunk, ending) =
            storage.take(index, Taker::Handle { generation }, false).expect("armed").extract();
        assert!(storage.take(index, Taker::Runner, true).is_none(), "taken");
        thunk.run();
        assert!(ending.close(false).is_none(), "the chain is still there");
        assert_eq!(storage.look(index), (generation, State::Done));
        assert!(matches!(storage.pass(index, Some(0)), Passed::Freed(_, false)));
        assert!(matches!(storage.pass(index, Some(0)), Passed::NotOurs), "freed once");
    }

    #[test]
    fn only_captures_without_a_destructor_are_stopped_as_bare() {
        let storage = storage();
        let mut slots = storage.fresh();
        let mut arm = |boxed: Option<u8>| match boxed {
            None => slots.next().expect("fresh").arm(None, 0, || {}),
            Some(n) => {
                let boxed = Box::new(n);
                slots.next().expect("fresh").arm(None, 0, move || drop(boxed))
            }
        };
        let (owning, generation) = arm(Some(7));
        assert!(storage.take_bare(owning, generation).is_none());
        assert_eq!(storage.look(owning), (generation, State::Armed));
        let (index, generation) = arm(None);
        assert!(storage.take_bare(index, generation + 1).is_none(), "another generation");
        for (counted, state) in [(false, State::Stopped), (true, State::StoppedCounted)] {
            let (index, generation) = arm(None);
            storage.take_bare(index, generation).expect("armed").close(counted);
            assert_eq!(storage.look(index), (generation, state));
            assert!(storage.take_bare(index, generation).is_none(), "taken");
            assert!(
                matches!(storage.pass(index, Some(0)), Passed::Freed(_, was) if was == counted)
            );
        }
    }

    #[test]
    fn a_slot_whose_chain_went_first_is_freed_by_its_taker() {
        let storage = storage();
        let (index, generation) = arm(storage);
        let (thunk, ending) =
            storage.take(index, Taker::Handle { generation }, true).expect("armed").extract();
        assert!(matches!(storage.pass(index, Some(77)), Passed::Orphaned));
        drop(thunk);
        let orphan = ending.close(false).expect("left to us");
        assert_eq!(orphan.note(), 77);
        orphan.free();
        let mut list = storage.free_list();
        assert!(list.refill());
        assert_eq!(list.pop().expect("freed").index, index);
        assert!(list.pop().is_none());
    }

    #[test]
    fn a_generation_is_used_once() {
        let storage = storage();
        let (index, first) = arm(storage);
        let mut list = storage.free_list();
        storage.take(index, Taker::Runner, false).expect("armed").extract().1.free(&mut list);
        assert_eq!(storage.look(index), (first, State::DoneFree), "exact until used again");
        let (again, second) = list.pop().expect("freed").arm(None, 0, || {});
        assert_eq!((again, second), (index, first + 1));
    }

    #[test]
    fn a_slot_that_has_seen_every_generation_is_retired() {
        let storage = storage();
        let mut slot = storage.fresh().next().expect("fresh");
        slot.tag = Tag::new(MAX_GENERATION - 1, State::DoneFree);
        let (index, generation) = slot.arm(None, 0, || {});
        assert_eq!(generation, MAX_GENERATION);
        let mut list = storage.free_list();
        storage.take(index, Taker::Runner, false).expect("armed").extract().1.free(&mut list);
        assert!(list.pop().is_none());
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
        storage().look(Index(5));
    }
}
