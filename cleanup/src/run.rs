//! Running blocks: one function for workers, manual pools and helping threads.
//!
//! Invariant: a block in the hands of a [`Run`] is either run to its end and recycled, or goes back to the
//! full list with what is left of it, whatever happens in between. Nothing is locked or borrowed while a
//! cleanup runs or captures are dropped, so both may do anything: register, stop, collect another heap.
//!
//! It does not know where the block came from, nor who waits for it.

#![forbid(unsafe_code)]

use crate::block::Cells;
use crate::cycle::Queued;
use crate::pool::Pool;
use crate::record::{FreeList, Passed};
use crate::sync::thread_local;
use crate::tally::{Counting, Runner};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(not(loom))]
thread_local! {
    /// How many runs of blocks and calls of `run_now` this thread is inside.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

#[cfg(loom)]
thread_local! {
    static DEPTH: Cell<u32> = Cell::new(0);
}

/// Whether this thread is inside a cleanup, or inside the panic hook of one.
///
/// A thread that is inside one must not wait for cleanups, and [`Pool::run_pending`] does nothing there.
pub fn in_cleanup() -> bool {
    // A thread that is being torn down, its locals gone, runs no cleanup.
    DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false)
}

/// Marks this thread as inside a cleanup, until dropped.
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn enter() -> Self {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Inside(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    }
}

/// Runs a block's cleanups, at most `max` of them; gives how many ran or were discarded. What is left goes back to
/// the full list.
pub(crate) fn run(pool: &Pool, block: Queued, runner: Runner, max: usize) -> usize {
    // `Run` is dropped, and with it a rest published, when the thread is outside again.
    let mut run = Run::new(pool, block, runner);
    let inside = Inside::enter();
    let ran = run.cleanups(max);
    drop(inside);
    ran
}

/// One block being run. Dropping it settles the accounts, at the end as in the middle.
struct Run<'a> {
    pool: &'a Pool,
    /// `None` only in `drop`.
    queued: Option<Queued>,
    runner: Runner,
    /// Slots of records that this run has brought to their end.
    freed: FreeList,
    /// Cleanups counted as ended in the shards and not yet subtracted from the batch.
    ended: u64,
}

impl<'a> Run<'a> {
    fn new(pool: &'a Pool, queued: Queued, runner: Runner) -> Self {
        let freed = queued.batch.lease().registry().storage.free_list();
        pool.totals().shards.of(runner).add(|s| &s.running, 1);
        Run { pool, queued: Some(queued), runner, freed, ended: 0 }
    }

    fn cleanups(&mut self, max: usize) -> usize {
        let Queued { block, batch } = self.queued.as_ref().expect("only drop takes it");
        let cells: &Cells = block;
        let registry = batch.lease().registry();
        let storage = &registry.storage;
        let totals = self.pool.totals();
        let shards = [totals.shards.of(self.runner), batch.shards.of(self.runner)];
        let mut ran = 0;
        while ran < max {
            let Some(head) = cells.front() else { break };
            #[cfg(all(test, not(loom)))]
            crate::tests::fault::here();
            let index = head.index();
            let discard = batch.is_discarded() || self.pool.is_closed();
            // Before the record is freed or left to another thread.
            let rest = storage.next(head);
            let Some(taken) = storage.take(index, None, discard) else {
                match storage.pass(index, batch.byte()) {
                    Passed::Freed(slot, counted) => {
                        if !counted {
                            count(&shards, &mut self.ended);
                            shards.iter().for_each(|s| s.add(|s| &s.settled, 1));
                        }
                        self.freed.push(slot);
                    }
                    Passed::Orphaned | Passed::NotOurs => {}
                    // Only ever a guess gone stale: ask again.
                    Passed::Armed => continue,
                }
                cells.advance(rest);
                continue;
            };
            // Before the call: should this thread unwind, the rest begins behind this cleanup.
            cells.advance(rest);
            let (thunk, ending) = taken.extract();
            let name = thunk.namer();
            let outcome =
                catch_unwind(AssertUnwindSafe(|| if discard { drop(thunk) } else { thunk.run() }));
            if discard {
                shards.iter().for_each(|s| s.add(|s| &s.discarded, 1));
            }
            if let Err(payload) = outcome {
                if !discard {
                    shards.iter().for_each(|s| s.add(|s| &s.panicked, 1));
                }
                totals.report(payload, name);
            }
            // The count before the declaration: who sees `Done` sees it counted.
            count(&shards, &mut self.ended);
            ending.free(&mut self.freed);
            ran += 1;
        }
        ran
    }
}

/// Counts one end.
#[inline]
fn count(shards: &[Counting<'_>; 2], ended: &mut u64) {
    shards.iter().for_each(|s| s.add(|s| &s.ended, 1));
    *ended += 1;
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let queued = self.queued.take().expect("only drop takes it");
        // 1. The slots first: whoever waits for the batch may register again at once.
        self.freed.give_back();
        self.pool.totals().shards.of(self.runner).add(|s| &s.running, u64::MAX);
        if queued.block.front().is_some() {
            // 2. A rest goes back to the list, for whoever comes next; it keeps the batch unfinished. Into a pool
            //    that has been closed meanwhile, nobody comes any more.
            queued.batch.subtract(self.ended);
            self.pool.publish([queued]);
            self.pool.discard_if_closed();
        } else {
            let Queued { block, batch } = queued;
            self.pool.recycle(block);
            // 3. Last: whoever waits for the batch finds all of this done.
            batch.subtract(self.ended);
        }
    }
}
