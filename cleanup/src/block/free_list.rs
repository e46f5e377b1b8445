//! The block free list: the blocks that hold nothing.

use crate::block::arena::{Arena, Block};
use sexton_sync::{Arc, Injector, Steal};

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

    /// Gives an empty block: a recycled one if there is one.
    pub(crate) fn get(&self) -> Block {
        loop {
            match self.free.steal() {
                Steal::Success(block) => return block,
                Steal::Empty => return self.arena.carve(),
                Steal::Retry => {}
            }
        }
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
