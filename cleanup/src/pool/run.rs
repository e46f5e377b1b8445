//! Running blocks: one function for workers, manual pools and helping threads.
//!
//! Invariant: a block in the hands of a [`Run`] is run to its end and recycled, or its rest goes
//! back to the full list. That holds whatever happens in between. Nothing is locked or borrowed
//! while a cleanup runs or captures are dropped, so both may do anything: register, stop, collect
//! another heap.
//!
//! It does not know where the block came from, nor which threads wait for it.

#![forbid(unsafe_code)]

use crate::account::counters::{Counting, Shard};
use crate::account::registry::BatchAccount;
use crate::account::totals::Totals;
use crate::block::entries::Cells;
use crate::inside::CleanupScope;
use crate::pool::in_flight::InFlight;
use crate::pool::queued::Queued;
use crate::pool::state::Pool;
use crate::record::ending::{Skip, Taken, Taker};
use crate::record::free_list::FreeList;
use crate::record::head::Index;
use sexton_sync::AtomicU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the cleanups of a block that is in flight, at most `max` of them. Gives how many ran or
/// were discarded. The rest goes back to the full list.
pub(crate) fn run(pool: &Pool, block: Queued, in_flight: &InFlight, max: usize) -> usize {
    Run::new(pool, block, in_flight).go(max)
}

/// How many entries ahead records are fetched. Objects die in no order, and a short cleanup takes
/// less than a miss. Where records lie in a row the processor sees them coming, but not early
/// enough for a write.
const AHEAD: usize = 24;

/// One block being run. Dropping it brings the counts up to date, at the end as in the middle.
struct Run<'a> {
    pool: &'a Pool,
    in_flight: &'a InFlight,
    /// `None` only in `drop`.
    queued: Option<Queued>,
    /// Slots of records that this run has brought to their end.
    freed: FreeList,
    /// Cleanups counted as ended in the shards and not yet subtracted from the batch.
    ended: u64,
}

impl<'a> Run<'a> {
    fn new(pool: &'a Pool, queued: Queued, in_flight: &'a InFlight) -> Self {
        let freed = queued.batch.registry().storage.free_list();
        pool.totals().counters.of(in_flight.runner()).add(|s| &s.running, 1);
        // From here on the block is safe, should anything unwind.
        let run = Run { pool, in_flight, queued: Some(queued), freed, ended: 0 };
        pool.watch_if_worth_it(in_flight); // B1, B2
        run
    }

    /// Runs at most `max`. `Run` is dropped, and with it a rest published, when the thread is
    /// outside again.
    fn go(&mut self, max: usize) -> usize {
        let _scope = CleanupScope::enter();
        self.cleanups(max)
    }

    fn has_rest(&self) -> bool {
        self.queued.as_ref().is_some_and(|queued| queued.block.front().is_some())
    }

    fn cleanups(&mut self, max: usize) -> usize {
        let Queued { block, batch, .. } = self.queued.as_ref().expect("only drop takes it");
        let cells: &Cells = block;
        let storage = batch.registry().storage;
        let totals = self.pool.totals();
        let runner = self.in_flight.runner();
        let (pool, in_flight) = (self.pool, self.in_flight);
        let shards = [totals.counters.of(runner), batch.counters.of(runner)];
        let mut ran = 0;
        while ran < max {
            let Some(record) = cells.front() else { break };
            if let Some(coming) = cells.get(cells.cursor() + AHEAD) {
                storage.prefetch(coming);
            }
            #[cfg(all(test, not(loom)))]
            crate::tests::fault::here();
            if pool.is_closed() || batch.is_discarded() {
                // It stays so. The rest is none of the fast path's affair.
                let ends = Ends { shards, freed: &mut self.freed, ended: &mut self.ended };
                return ran + discard_rest(pool, in_flight, cells, batch, max - ran, ends);
            }
            let Some(taken) = storage.take(record, Taker::Runner, false) else {
                let mut ends = Ends { shards, freed: &mut self.freed, ended: &mut self.ended };
                if !ends.skip(in_flight, cells, batch, record) {
                    break;
                }
                continue;
            };
            // Before the call: should this thread unwind, the rest begins behind this cleanup.
            cells.advance();
            if in_flight.is_let_go() {
                pool.watch_if_worth_it(in_flight);
            }
            Ends { shards, freed: &mut self.freed, ended: &mut self.ended }
                .end(totals, taken, false);
            ran += 1;
        }
        ran
    }
}

/// Drops the captures of up to `max` cleanups of a block; how many there were. Called when the pool
/// is closed or the batch discarded.
///
/// In a closed pool each is counted when it is taken. The thread that closes the pool takes the
/// tail, or finds them counted.
#[cold]
#[inline(never)]
fn discard_rest(
    pool: &Pool,
    in_flight: &InFlight,
    cells: &Cells,
    batch: &BatchAccount,
    max: usize,
    mut ends: Ends<'_>,
) -> usize {
    let storage = batch.registry().storage;
    let mut dropped = 0;
    while dropped < max {
        let Some(record) = cells.front() else { break };
        let take = || storage.take(record, Taker::Runner, true).inspect(|_| cells.advance());
        let step = if pool.is_closed() {
            in_flight.step(|_| take().inspect(|_| pool.refuses_one()))
        } else {
            Some(take())
        };
        match step {
            None => break,
            Some(Some(taken)) => {
                ends.end(pool.totals(), taken, true);
                dropped += 1;
            }
            Some(None) if ends.skip(in_flight, cells, batch, record) => {}
            Some(None) => break,
        }
    }
    dropped
}

/// Where a run counts what it brings to an end, and keeps the slots.
///
/// Made where it is used, so that the loop keeps its parts in registers.
struct Ends<'a> {
    shards: [Counting<'a>; 2],
    freed: &'a mut FreeList,
    ended: &'a mut u64,
}

impl Ends<'_> {
    /// Runs a cleanup, or drops its captures.
    #[inline(always)]
    fn end(&mut self, totals: &Totals, taken: Taken, discard: bool) {
        let (thunk, ending) = taken.extract();
        let name = thunk.namer();
        let outcome =
            catch_unwind(AssertUnwindSafe(|| if discard { drop(thunk) } else { thunk.run() }));
        if let Err(payload) = outcome {
            if !discard {
                self.shards.iter().for_each(|s| s.add(|s| &s.panicked, 1));
            }
            totals.report(payload, ending.describe(name));
        }
        // The count before the declaration: a thread that sees `Done` sees it counted.
        self.count(|s| if discard { &s.discarded } else { &s.executed });
        ending.free(self.freed);
    }

    /// Deals with the front record, which could not be taken. False if another thread has the tail.
    #[cold]
    #[inline(never)]
    fn skip(
        &mut self,
        in_flight: &InFlight,
        cells: &Cells,
        batch: &BatchAccount,
        record: Index,
    ) -> bool {
        let storage = batch.registry().storage;
        let step = in_flight.step(|deferred| {
            // Without a note while others may come to the record: its handle must not free the
            // slot.
            let note = deferred.is_none().then_some(batch.byte());
            match (storage.skip(record, note), deferred) {
                (Skip::Freed(slot, counted), _) => {
                    if !counted {
                        self.count(|s| &s.ended_early);
                    }
                    self.freed.push(slot);
                }
                (Skip::Busy, Some(deferred)) => deferred.keep_busy(record),
                (Skip::Busy | Skip::Detached | Skip::NotOurs, _) => {}
                // Only ever a guess gone stale: ask again.
                (Skip::Armed, _) => return,
            }
            cells.advance();
        });
        step.is_some()
    }

    /// Counts one end, and how it came.
    #[inline]
    fn count(&mut self, way: impl Fn(&Shard) -> &AtomicU64) {
        self.shards.iter().for_each(|s| s.add(&way, 1));
        *self.ended += 1;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut transit = None;
        if self.has_rest() {
            transit = self.pool.transit();
            if transit.is_none() {
                // The pool is closed: a rest in no sight would miss the count.
                self.go(usize::MAX);
            }
        }
        let queued = self.queued.take().expect("only drop takes it");
        let (requeued, deferred) = self.in_flight.end();
        // 1. The slots first: a thread that waits for the batch may register again at once.
        match &deferred {
            None => self.freed.give_back(),
            Some(deferred) => deferred.keep(&mut self.freed),
        }
        self.pool.totals().counters.of(self.in_flight.runner()).add(|s| &s.running, u64::MAX);
        if queued.block.front().is_some() && !requeued {
            // 2. A rest goes back to the list, for the next runner. It keeps the batch unfinished.
            let batch = queued.batch.clone();
            let demand = self.pool.queue().publish([queued]);
            drop(transit);
            self.pool.published(demand);
            // Afterwards: a thread that waits for the backlog in a manual pool finds the rest.
            batch.subtract(self.ended);
            // After the PublishFence of that publish: if the pool was closed meanwhile, no other
            // thread will come.
            self.pool.discard_if_closed();
        } else {
            drop(transit);
            // A rest that was requeued is in the list already, or run.
            let Queued { block, batch, deferred: own } = queued;
            self.pool.recycle(block);
            // 3. The last of those who share entries gives all their slots back.
            drop(own);
            drop(deferred);
            // 4. Last: a thread that waits for the batch finds all of this done.
            batch.subtract(self.ended);
        }
    }
}
