//! Blocks: fixed room for the cleanup records of dead objects, and the list of blocks that hold none.
//!
//! Invariant: entries `cursor..len` are unrun; only the block's owner writes to it. The fields are atomics all
//! the same, used as plain cells: it costs plain moves, and others may read the tail of a block that is being
//! run, by a [`View`](crate::block::arena::View), to take it over.
//!
//! It does not know what running an entry means.

use crate::block::arena::{Arena, Block};
use crate::record::storage::Index;
use sexton_sync::{Arc, AtomicU32, Injector, Ordering, Steal};

/// Entries of one block: with the two header words, 512 bytes.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const CAPACITY: usize = 126;
#[cfg(any(loom, shuttle))]
pub(crate) const CAPACITY: usize = 2;

/// A block's memory. All accesses are Relaxed: a block changes owners through the full list or the block free
/// list, whose Release and Acquire carry everything before. Who only views it has the lock of its owner's desk,
/// by which the owner has shown it, and gets a cursor that may be behind.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Cells {
    /// Entries filled. Written by the owner.
    len: AtomicU32,
    /// The first entry not yet begun. Written by the owner.
    cursor: AtomicU32,
    /// Indices in raw form. Written by the owner, and not any more once the block is published.
    entries: [AtomicU32; CAPACITY],
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Cells>() == 512, "a block is 512 bytes");

impl Cells {
    pub(crate) fn new() -> Self {
        Cells {
            len: AtomicU32::new(0),
            cursor: AtomicU32::new(0),
            entries: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Writes entry `at`; it counts once [`set_len`](Self::set_len) says so.
    #[inline]
    pub(crate) fn write(&self, at: usize, record: Index) {
        self.entries[at].store(record.raw(), Ordering::Relaxed);
    }

    /// Declares entries `0..len` filled.
    #[inline]
    pub(crate) fn set_len(&self, len: usize) {
        debug_assert!(len <= CAPACITY);
        self.len.store(len as u32, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    /// How many entries have been begun.
    #[inline]
    pub(crate) fn cursor(&self) -> usize {
        self.cursor.load(Ordering::Relaxed) as usize
    }

    /// Entry `at`, if the block has so many.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<Index> {
        if at < self.len() {
            Index::from_raw(self.entries[at].load(Ordering::Relaxed))
        } else {
            None
        }
    }

    /// The first entry not yet begun.
    #[inline]
    pub(crate) fn front(&self) -> Option<Index> {
        self.get(self.cursor())
    }

    /// Steps over the first entry.
    #[inline]
    pub(crate) fn advance(&self) {
        // Not one operation: the owner is the only writer.
        self.cursor.store(self.cursor() as u32 + 1, Ordering::Relaxed);
    }

    /// Takes the last entry out. For coalescing: the block has not been run.
    pub(crate) fn pop_back(&self) -> Option<Index> {
        debug_assert_eq!(self.cursor(), 0);
        let last = self.len().checked_sub(1)?;
        let record = self.get(last);
        self.set_len(last);
        record
    }

    fn clear(&self) {
        self.len.store(0, Ordering::Relaxed);
        self.cursor.store(0, Ordering::Relaxed);
    }
}

/// The block free list, and the arena behind it.
#[derive(Debug)]
pub(crate) struct Blocks {
    free: Injector<Block>,
    arena: Arc<Arena>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Blocks { free: Injector::new(), arena: Arena::new() }
    }

    /// An empty block: a recycled one if there is one.
    pub(crate) fn get(&self) -> Block {
        loop {
            match self.free.steal() {
                Steal::Success(block) => return block,
                Steal::Empty => return self.arena.carve(),
                Steal::Retry => {}
            }
        }
    }

    /// Takes a block back. What was in it is forgotten.
    pub(crate) fn recycle(&self, block: Block) {
        block.clear();
        self.free.push(block);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::record::storage::Index;

    fn record(index: u32) -> Index {
        Index::from_raw(index).expect("not 0")
    }

    #[test]
    fn a_recycled_block_is_used_before_a_new_one_is_carved() {
        let blocks = Blocks::new();
        let first = blocks.get();
        first.write(0, record(7));
        first.set_len(1);
        let address = std::ptr::from_ref::<Cells>(&first).addr();
        blocks.recycle(first);
        let again = blocks.get();
        assert_eq!(std::ptr::from_ref::<Cells>(&again).addr(), address);
        assert_eq!((again.len(), again.front()), (0, None));
    }

    #[test]
    fn blocks_that_were_run_are_used_again() {
        let pool = crate::Pool::new(crate::PoolConfig::default(), None);
        let origin = crate::Origin::new(&pool);
        let mut registrar = origin.registrar();
        let mut run = |n: usize| {
            let heads: Vec<_> = (0..n).map(|_| registrar.register(None, || {}).0).collect();
            let cycle = origin.begin_cycle();
            let mut local = cycle.local_block();
            heads.into_iter().for_each(|head| local.push(head));
            cycle.flush([local]);
            pool.run_pending(usize::MAX)
        };
        assert_eq!(run(10 * CAPACITY), 10 * CAPACITY);
        let before = pool.blocks().arena.bytes();
        (0..100).for_each(|_| assert_eq!(run(10 * CAPACITY), 10 * CAPACITY));
        assert_eq!(pool.blocks().arena.bytes(), before);
    }

    #[test]
    fn a_block_outlives_its_list() {
        let blocks = Blocks::new();
        let block = blocks.get();
        drop(blocks);
        block.write(CAPACITY - 1, record(9));
        block.set_len(CAPACITY);
        assert_eq!(block.pop_back(), Some(record(9)));
    }

    #[test]
    fn the_cursor_steps_through_the_entries() {
        let block = Blocks::new().get();
        block.write(0, record(1));
        block.write(1, record(5));
        block.set_len(2);
        assert_eq!(block.front(), Some(record(1)));
        block.advance();
        assert_eq!(block.front(), Some(record(5)));
        block.advance();
        assert_eq!((block.front(), block.cursor()), (None, 2));
    }

    #[test]
    fn the_arena_carves_512_bytes_a_block() {
        let arena = Arena::new();
        let blocks: Vec<_> = (0..1000).map(|_| arena.carve()).collect();
        assert!(blocks.iter().all(|b| std::ptr::from_ref::<Cells>(b).addr().is_multiple_of(64)));
        let bytes = arena.bytes();
        assert!(bytes < 2 * 1000 * 512 + 4096, "{bytes} bytes for 1000 blocks");
    }
}
