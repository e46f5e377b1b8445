//! One collection cycle's output: local blocks, and the flush that publishes what is left in them.
//!
//! Invariant: each record of a chain that was pushed is in exactly one block: a sweeper's local
//! block, then one in the full list. An empty block is never published.
//!
//! It does not know how objects are found dead.

use crate::account::registry::BatchAccount;
use crate::account::registry::{ARMED, ENDED};
use crate::block::arena::Block;
use crate::block::entries::CAPACITY;
use crate::client::client::Client;
use crate::pool::queued::Queued;
use crate::record::free_list::FreeList;
use crate::record::head::{Head, Index};
use sexton_sync::{Arc, AtomicU8, Ordering};

/// Collects the cleanups of one cycle. Ends with [`flush`](Self::flush), or by being dropped.
#[derive(Debug)]
pub struct Cycle {
    client: Client,
    /// `None` if the heap is inherited: nothing is queued, the captures are dropped.
    number: Option<u64>,
}

/// Counts the cleanups that a cycle has queued. See [`Cycle::flush`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// Cleanups queued by the flushed local blocks, those published before the flush included.
    pub cleanups: u64,
    /// Blocks published for them.
    pub blocks: u64,
}

impl Cycle {
    pub(crate) fn new(client: Client) -> Self {
        let inherited = client.pool().is_inherited();
        let number = (!inherited).then(|| client.registry().begin_cycle());
        Cycle { client, number }
    }

    /// Makes a block for one sweeper.
    ///
    /// The sweeper may be on another thread. Takes its memory at the first push.
    pub fn local_block(&self) -> LocalBlock {
        LocalBlock::new(self.client.clone(), self.number)
    }

    /// Publishes the rest of the local blocks, and wakes workers for it.
    ///
    /// Called after the last sweeper of the cycle is done, with the local blocks of all of them.
    ///
    /// Entries of partly filled blocks are moved together, so that as few blocks as possible are
    /// published. Blocks that become empty go back to the block free list. O(local blocks).
    ///
    /// If the pool has been shut down and told to discard, the captures are dropped here. So they
    /// are if the pool was made before a `fork`.
    pub fn flush(self, locals: impl IntoIterator<Item = LocalBlock>) -> Flushed {
        let mut locals: Vec<LocalBlock> = locals.into_iter().collect();
        debug_assert!(
            locals.iter().all(|l| l.cycle == self.number),
            "a local block of another cycle"
        );
        // 1. Collect the partial blocks, and count what they hold, while their sweepers' holds keep
        //    the batch unfinished.
        let mut flushed = Flushed::default();
        let mut partial = Vec::new();
        for local in &mut locals {
            if let Some(queued) = local.take() {
                partial.push(queued);
            }
            flushed.cleanups += local.flushed.cleanups;
            flushed.blocks += local.flushed.blocks;
        }
        // 2. Coalesce.
        let pool = self.client.pool();
        if self.number.is_none() {
            return flushed;
        }
        let full = coalesce(partial, |empty| pool.recycle(empty));
        flushed.blocks += full.len() as u64;
        // 3. Publish all of them at once, with one look at the sleepers.
        pool.publish(full);
        // 4. Let go of the sweepers' holds and of the cycle's; the batch can finish now.
        drop(locals);
        drop(self);
        flushed
    }
}

impl Drop for Cycle {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        if let Some(batch) = self.client.registry().end_cycle(number) {
            batch.release();
        }
        self.client.pool().discard_if_closed();
    }
}

/// Moves entries together until at most one block is partly filled. Gives the blocks that hold
/// entries.
fn coalesce(mut blocks: Vec<Queued>, mut recycle: impl FnMut(Block)) -> Vec<Queued> {
    // The fullest first; they are topped up from the emptiest, so that few entries move.
    blocks.sort_by_key(|queued| std::cmp::Reverse(queued.block.len()));
    let mut at = 0;
    while at + 1 < blocks.len() {
        let len = blocks[at].block.len();
        if len == CAPACITY {
            at += 1;
            continue;
        }
        let Some(record) = blocks.last().and_then(|queued| queued.block.pop_back()) else {
            blocks.pop().into_iter().for_each(|queued| recycle(queued.block));
            continue;
        };
        blocks[at].block.write(len, record);
        blocks[at].block.set_len(len + 1);
    }
    if blocks.last().is_some_and(|queued| queued.block.len() == 0) {
        blocks.pop().into_iter().for_each(|queued| recycle(queued.block));
    }
    blocks
}

/// Holds one sweeper's cleanups that are not published yet. Dropping it publishes them.
#[derive(Debug)]
pub struct LocalBlock {
    /// The marks of the chunk that the last head was in, and the index of its first record. Empty
    /// unless there is a block to write to, so that one comparison asks for both.
    marks: &'static [AtomicU8],
    first: u32,
    /// The batch's byte. Means something only if there is a block.
    byte: u8,
    /// Entries written to the block: one per cleanup.
    len: usize,
    block: Option<Block>,
    /// The batch, with a hold on it; from the first push on.
    batch: Option<Arc<BatchAccount>>,
    client: Client,
    cycle: Option<u64>,
    /// Chains of an inherited heap, to be discarded when the sweep is over. There is never a block,
    /// then.
    doomed: Vec<Head>,
    /// Records met that had ended early.
    reclaimed: u64,
    /// Their slots.
    freed: FreeList,
    /// The cleanups and blocks that this sweeper has published so far.
    flushed: Flushed,
}

impl LocalBlock {
    fn new(client: Client, cycle: Option<u64>) -> Self {
        LocalBlock {
            marks: &[],
            first: 0,
            byte: ARMED,
            len: 0,
            block: None,
            batch: None,
            freed: client.registry().storage.free_list(),
            client,
            cycle,
            doomed: Vec::new(),
            reclaimed: 0,
            flushed: Flushed::default(),
        }
    }

    /// Queues a dead object's chain.
    ///
    /// Called once per chain, by the sweeper that found the object dead. From then on the chain
    /// belongs to this crate.
    ///
    /// If all of the chain's cleanups were stopped or run early, it is reclaimed instead. When the
    /// block is full it is published, which may wake or start a worker. O(1) for a single record,
    /// which is not touched; O(length) for a longer chain, whose records become entries of their
    /// own.
    ///
    /// # Panics
    /// It may when `head` comes from another heap.
    #[inline]
    pub fn push(&mut self, head: Head) {
        let offset = head.index().since(self.first);
        let Some(mark) = self.marks.get(offset) else { return self.push_elsewhere(head) };
        // Relaxed, both: a hint; see "Marks and counts" in `registry.rs`.
        if head.many() || mark.load(Ordering::Relaxed) != ARMED {
            return self.push_chain(head);
        }
        mark.store(self.byte, Ordering::Relaxed);
        self.write(head.index());
    }

    /// Writes an entry. Called with a block.
    #[inline]
    fn write(&mut self, record: Index) {
        let Some(block) = &self.block else {
            unreachable!("there is a block while there are marks")
        };
        block.write(self.len, record);
        self.len += 1;
        if self.len == CAPACITY {
            self.publish();
        }
    }

    /// Pushes a head that comes first, or whose record is in another chunk than the last one's.
    #[cold]
    #[inline(never)]
    fn push_elsewhere(&mut self, head: Head) {
        let Some(cycle) = self.cycle else { return self.doomed.push(head) };
        self.begin_block(cycle);
        (self.marks, self.first) = self.client.registry().storage.marks_around(head.index());
        self.push(head);
    }

    /// Makes sure that there is a block to write to.
    fn begin_block(&mut self, cycle: u64) {
        if self.block.is_none() {
            let batch = self.batch.get_or_insert_with(|| self.client.open_batch(cycle));
            self.byte = batch.byte();
            self.block = Some(self.client.pool().block());
            self.len = 0;
        }
    }

    /// Pushes a chain of several records, or one whose record has ended early.
    #[cold]
    #[inline(never)]
    fn push_chain(&mut self, head: Head) {
        let cycle = self.cycle.expect("there are marks only where there is a block");
        let registry = self.client.registry();
        let storage = registry.storage;
        // Records that ended early are freed here, so that only the others are queued and counted.
        let mut rest = storage.prune(head, |head| {
            // Relaxed: `ENDED` is no hint. It was written after the taking, and there is no way
            // back.
            let ended_early = storage.mark(head.index()).load(Ordering::Relaxed) == ENDED;
            if ended_early {
                self.reclaimed += 1;
                if let Some(slot) = registry.skip_ended(head.index()) {
                    self.freed.push(slot);
                    self.freed.give_back_if_full();
                }
            }
            ended_early
        });
        while let Some(head) = rest {
            // Before the entry: a full block is published, and its records are not ours to read
            // then.
            rest = storage.next(head);
            self.begin_block(cycle);
            storage.mark(head.index()).store(self.byte, Ordering::Relaxed);
            self.write(head.index());
        }
    }

    /// Takes the block out, ready to be published, its cleanups counted.
    fn take(&mut self) -> Option<Queued> {
        let block = self.block.take()?;
        self.marks = &[];
        if self.len == 0 {
            self.client.pool().recycle(block);
            return None;
        }
        block.set_len(self.len);
        let batch = self.batch.as_ref().expect("a block comes with a batch").clone();
        batch.add(self.len as u64);
        self.flushed.cleanups += self.len as u64;
        Some(Queued { block, batch, deferred: None })
    }

    #[cold]
    #[inline(never)]
    fn publish(&mut self) {
        if let Some(queued) = self.take() {
            self.flushed.blocks += 1;
            self.client.pool().publish([queued]);
        }
    }
}

impl Drop for LocalBlock {
    fn drop(&mut self) {
        if self.cycle.is_none() {
            let registry = self.client.registry();
            self.doomed.drain(..).for_each(|head| registry.discard(head, &mut self.freed));
            self.freed.give_back();
            return;
        }
        self.publish();
        self.freed.give_back();
        self.client.registry().reclaimed(self.reclaimed);
        if let Some(batch) = self.batch.take() {
            batch.release();
        }
        // For one that is later than its cycle.
        self.client.pool().discard_if_closed();
    }
}
