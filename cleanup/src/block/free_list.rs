//! The block free list: the blocks that hold nothing.

use crate::block::arena::{Arena, Block};
use sexton_sync::{Arc, Injector, Mutex, Steal};

/// The block free list, and the arena behind it.
#[derive(Debug)]
pub(crate) struct Blocks {
    free: Injector<Block>,
    /// Locked to carve a block, and to begin a new arena.
    arena: Mutex<Arc<Arena>>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Blocks { free: Injector::new(), arena: Mutex::new(Arena::new()) }
    }

    /// Gives an empty block: a recycled one if there is one.
    pub(crate) fn get(&self) -> Block {
        loop {
            match self.free.steal() {
                Steal::Success(block) => return block,
                Steal::Empty => return self.arena.lock().carve(),
                Steal::Retry => {}
            }
        }
    }

    /// Drops the free blocks, and begins a new arena. Gives the bytes of the old one, if it has
    /// gone.
    ///
    /// Blocks that are in use keep it. It goes with the last of them, when they are free at a later
    /// call.
    pub(crate) fn trim(&self) -> usize {
        let old = std::mem::replace(&mut *self.arena.lock(), Arena::new());
        loop {
            match self.free.steal() {
                Steal::Success(block) => drop(block),
                Steal::Empty => break,
                Steal::Retry => {}
            }
        }
        Arc::try_unwrap(old).map_or(0, |arena| arena.bytes())
    }

    /// Takes a block back. Its entries are forgotten.
    pub(crate) fn recycle(&self, block: Block) {
        block.clear();
        self.free.push(block);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::block::entries::{CAPACITY, Cells};
    use crate::record::head::Index;

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
        let client = crate::Client::new(&pool);
        let mut registrar = client.registrar();
        let mut run = |n: usize| {
            let heads: Vec<_> = (0..n).map(|_| registrar.register(None, || {}).0).collect();
            let cycle = client.begin_cycle();
            let mut local = cycle.local_block();
            heads.into_iter().for_each(|head| local.push(head));
            cycle.flush([local]);
            pool.run_pending(usize::MAX)
        };
        assert_eq!(run(10 * CAPACITY), 10 * CAPACITY);
        let bytes = || pool.blocks().arena.lock().bytes();
        let before = bytes();
        (0..100).for_each(|_| assert_eq!(run(10 * CAPACITY), 10 * CAPACITY));
        assert_eq!(bytes(), before);
        assert_eq!(pool.trim(), before as u64);
        assert_eq!(bytes(), 0);
        assert_eq!(run(10 * CAPACITY), 10 * CAPACITY);
        assert_eq!(bytes(), before);
    }

    #[test]
    fn a_block_in_use_keeps_its_memory_through_a_trim() {
        let blocks = Blocks::new();
        let (free, used) = (blocks.get(), blocks.get());
        blocks.recycle(free);
        used.write(0, record(3));
        used.set_len(1);
        assert_eq!(blocks.trim(), 0);
        assert_eq!(used.pop_back(), Some(record(3)));
        blocks.recycle(used);
        // The one that is free now was carved before.
        assert_eq!(blocks.get().len(), 0);
        assert_eq!(blocks.trim(), 0, "nothing was carved since");
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
