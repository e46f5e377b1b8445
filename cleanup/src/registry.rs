//! The registry: everything that belongs to one heap's cleanups, and outlives the heap.
//!
//! Registries are never freed, only recycled: the process has as many as it once had heaps at a time. That is
//! what lets a handle be a plain reference without a count, and lets registering do no read-modify-write. The
//! price: the memory of a heap's records, at their peak, is kept for the next heap and never returned to the
//! system. Generations survive recycling, so a handle that is older than the registry's present heap finds
//! its record settled.
//!
//! # Marks
//!
//! Each record has a byte that says where its object stands, apart from what has become of the cleanup:
//! `ARMED` (alive when last looked at), `SETTLED` (ended by its handle), or the byte of the batch it is queued
//! in. Invariant: **a queued cleanup is counted as ended by whoever moves its mark away from the batch's
//! byte, or by the runner that took the record.** In detail:
//!
//! - The sweeper stores the batch's byte by a plain store: no read-modify-write, and the record is not touched.
//! - A handle that has taken a record ends it and then moves the mark to `SETTLED` by compare-exchange. If it
//!   finds a batch's byte, it counts the end in that batch. If it finds `ARMED`, there is nothing to count.
//! - A sweeper's store may overwrite a `SETTLED` that it did not see coming. Then nobody has counted, and
//!   whoever frees the slot finds the batch's byte on a settled record: it counts. Meanwhile the backlog is
//!   too high by one, until the runner has passed the record.
//!
//! It does not know objects, blocks or workers.

use crate::record::{Ending, FreeList, Head, Index, Passed, Slot, State, Storage};
use crate::run::Inside;
use crate::stats::OriginStats;
use crate::sync::{Arc, AtomicU64, CachePadded, Mutex, Ordering};
use crate::tally::Totals;
use crate::ticket::Batch;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Mark of a record whose object was alive when last looked at.
pub(crate) const ARMED: u8 = 0;
/// Mark of a record that its handle has ended.
pub(crate) const SETTLED: u8 = 1;
/// The first byte that names a batch.
const FIRST_BATCH: u8 = 2;

/// One heap's records and accounts.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) storage: Storage,
    /// Handles that are inside `stop` or `run_now`. While there are any, the registry is not recycled, so
    /// that they count in the accounts of the heap they belong to.
    busy: AtomicU64,
    early: CachePadded<Early>,
    ledger: Mutex<Ledger>,
}

/// What is counted outside batches. Written by handles, registrars and sweepers, all on paths that are slow
/// anyway, by `fetch_add`. Relaxed: counters order nothing.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// Stopped through the handle.
    stopped: AtomicU64,
    /// Run through the handle, panicked ones included.
    executed: AtomicU64,
    panicked: AtomicU64,
    /// Captures dropped by [`Registrar::discard`](crate::Registrar::discard).
    discarded: AtomicU64,
    /// Settled by the handle before they were queued.
    settled: AtomicU64,
    /// Of those: no longer in a live object's chain.
    reclaimed: AtomicU64,
}

/// What the lock guards. It is held for a few loads and stores, never while user code runs.
#[derive(Debug, Default)]
struct Ledger {
    /// The present heap's pool, to report panics of `run_now` to.
    totals: Option<Arc<Totals>>,
    /// Unfinished batches, in the order of their cycles.
    live: Vec<Arc<Batch>>,
    /// The batch of each cycle that is still sweeping. Holds a hold on it.
    open: Vec<(u64, Arc<Batch>)>,
    cycles: u64,
    next_byte: u8,
    /// The counter of each registrar; written by that registrar only.
    registrars: Vec<Arc<Registered>>,
    /// What finished batches and departed registrars had counted.
    past: Past,
}

/// How many cleanups one registrar has registered. Written by it only, by plain load and store; Relaxed.
pub(crate) type Registered = CachePadded<AtomicU64>;

#[derive(Debug, Default)]
struct Past {
    registered: u64,
    queued: u64,
    executed: u64,
    panicked: u64,
    discarded: u64,
}

impl Past {
    /// Adds a batch's numbers.
    fn fold(&mut self, batch: &Batch) {
        let discarded = batch.shards.sum(|s| &s.discarded);
        let settled = batch.shards.sum(|s| &s.settled);
        let panicked = batch.shards.sum(|s| &s.panicked);
        // The parts first: an end counted meanwhile makes the rest too high, not wrap around.
        let ended = batch.shards.sum(|s| &s.ended);
        self.queued += batch.queued();
        self.executed += ended.saturating_sub(discarded + settled);
        self.panicked += panicked;
        self.discarded += discarded;
    }
}

// ---- recycling -----------------------------------------------------------------------------------------

/// The registries that no heap uses.
#[cfg(not(loom))]
static RECYCLED: Mutex<Vec<&'static Registry>> = Mutex::new(Vec::new());

/// A heap's hold on its registry: shared by the origin, its registrars and its batches. When the last of
/// them is gone, the registry can serve another heap.
#[derive(Debug)]
pub(crate) struct Lease {
    registry: &'static Registry,
}

impl Lease {
    /// Takes a recycled registry, the warmest that is at rest, or makes one.
    pub(crate) fn new(totals: &Arc<Totals>) -> Arc<Self> {
        #[cfg(not(loom))]
        let recycled = {
            let mut recycled = RECYCLED.lock();
            // Acquire: pairs with the Release in `Busy::drop`. Whoever was inside has counted before we clear.
            let at = recycled.iter().rposition(|r| r.busy.load(Ordering::Acquire) == 0);
            at.map(|at| recycled.remove(at))
        };
        #[cfg(loom)]
        let recycled: Option<&'static Registry> = None;
        let registry = recycled.unwrap_or_else(|| Box::leak(Box::new(Registry::new())));
        registry.begin(totals);
        Arc::new(Lease { registry })
    }

    pub(crate) fn registry(&self) -> &'static Registry {
        self.registry
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        #[cfg(not(loom))]
        RECYCLED.lock().push(self.registry);
    }
}

/// Says that a handle's thread is inside, until dropped.
struct Busy(&'static Registry);

impl Busy {
    fn new(registry: &'static Registry) -> Self {
        // AcqRel with the compare-exchange that follows in `take`: whoever learns of the taking, and then of
        // the lease's end, finds this count.
        registry.busy.fetch_add(1, Ordering::AcqRel);
        Busy(registry)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `Lease::new`.
        self.0.busy.fetch_sub(1, Ordering::Release);
    }
}

impl Registry {
    fn new() -> Self {
        Registry {
            storage: Storage::new(),
            busy: AtomicU64::new(0),
            early: CachePadded::default(),
            ledger: Mutex::new(Ledger::default()),
        }
    }

    /// Clears the accounts for a new heap. Called by the only thread that knows the registry as its own.
    fn begin(&self, totals: &Arc<Totals>) {
        let Early { stopped, executed, panicked, discarded, settled, reclaimed } = &*self.early;
        for counter in [stopped, executed, panicked, discarded, settled, reclaimed] {
            counter.store(0, Ordering::Relaxed);
        }
        let mut ledger = self.ledger.lock();
        debug_assert!(ledger.live.is_empty() && ledger.open.is_empty());
        debug_assert!(ledger.registrars.is_empty());
        *ledger = Ledger { totals: Some(totals.clone()), ..Ledger::default() };
    }

    // ---- handles -----------------------------------------------------------------------------------

    /// Takes the record and drops its captures.
    ///
    /// # Panics
    /// If the captures' destructors do; the cleanup is stopped all the same.
    pub(crate) fn stop(&'static self, index: Index, generation: u32) -> bool {
        if self.storage.look(index) != (generation, State::Armed) {
            return false;
        }
        let busy = Busy::new(self);
        let Some(taken) = self.storage.take(index, Some(generation), true) else { return false };
        let (thunk, ending) = taken.extract();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(thunk)));
        self.early.stopped.fetch_add(1, Ordering::Relaxed);
        self.settle(ending);
        drop(busy);
        if let Err(payload) = dropped {
            resume_unwind(payload);
        }
        true
    }

    /// Takes the record and runs it. A panic in it is counted and reported, like on a worker.
    pub(crate) fn run_now(&'static self, index: Index, generation: u32) -> bool {
        if self.storage.look(index) != (generation, State::Armed) {
            return false;
        }
        let _busy = Busy::new(self);
        let Some(taken) = self.storage.take(index, Some(generation), false) else { return false };
        let (thunk, ending) = taken.extract();
        let name = thunk.namer();
        let inside = Inside::enter();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| thunk.run())) {
            self.early.panicked.fetch_add(1, Ordering::Relaxed);
            let totals = self.ledger.lock().totals.clone();
            if let Some(totals) = totals {
                totals.report(payload, name);
            }
        }
        drop(inside);
        self.early.executed.fetch_add(1, Ordering::Relaxed);
        self.settle(ending);
        true
    }

    /// Declares the end of a record taken through its handle. See "Marks" above.
    fn settle(&'static self, ending: Ending) {
        let index = ending.index();
        let mark = self.storage.mark(index);
        // Relaxed throughout: the byte is all that is exchanged. The compare-exchanges decide who counts, and
        // a batch is found in the ledger under its lock.
        let mut now = mark.load(Ordering::Relaxed);
        let mut uncounted = None;
        while now != SETTLED {
            match mark.compare_exchange(now, SETTLED, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(ARMED) => {
                    self.early.settled.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Ok(byte) => {
                    uncounted = Some(byte);
                    break;
                }
                Err(other) => now = other,
            }
        }
        // The mark before the tag: from the moment the end is declared, the slot may be freed and used again.
        if let Some(orphan) = ending.close() {
            // The chain's owner has passed, and left slot and counting to us.
            self.count_overwritten(orphan.index(), |byte| uncounted = Some(byte));
            orphan.free();
        }
        // The end before the count: whoever learns that the batch has finished finds every cleanup ended.
        if let Some(byte) = uncounted {
            self.count_settled(byte);
        }
    }

    /// If a sweeper's store has overwritten the `SETTLED` of this record, takes it off the settled ones and
    /// gives the byte to `count`. Asked by whoever frees the slot of a settled record.
    fn count_overwritten(&self, index: Index, count: impl FnOnce(u8)) {
        // Relaxed: sweeper and handle are done with the byte, and what they did came to us with the slot.
        let byte = self.storage.mark(index).load(Ordering::Relaxed);
        if byte >= FIRST_BATCH {
            self.early.settled.fetch_sub(1, Ordering::Relaxed);
            count(byte);
        }
    }

    /// Counts one end in the unfinished batch of this byte.
    fn count_settled(&self, byte: u8) {
        let ledger = self.ledger.lock();
        let batch = ledger.live.iter().find(|b| b.byte() == byte && !b.is_done()).cloned();
        drop(ledger);
        match batch {
            Some(batch) => batch.settle_one(),
            None => debug_assert!(false, "a queued cleanup's batch has finished without it"),
        }
    }

    // ---- owners of chains --------------------------------------------------------------------------

    /// A runner passes a record that it could not take. `count` is called if the cleanup has ended and nobody
    /// has counted that.
    pub(crate) fn pass_queued(&'static self, index: Index, count: impl FnOnce()) -> Passed {
        let passed = self.storage.pass(index);
        if let Passed::Freed(_) = passed {
            self.count_overwritten(index, |_| count());
        }
        passed
    }

    /// A sweeper or registrar passes a record that its handle has settled before it was queued.
    pub(crate) fn pass_settled(&'static self, index: Index) -> Option<Slot> {
        match self.storage.pass(index) {
            Passed::Freed(slot) => Some(slot),
            Passed::Orphaned | Passed::NotOurs | Passed::Armed => None,
        }
    }

    /// Settled records were taken out of their chains.
    pub(crate) fn reclaimed(&self, n: u64) {
        if n > 0 {
            self.early.reclaimed.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Settled records that are still in chains of live objects.
    pub(crate) fn settled(&self) -> u64 {
        let reclaimed = self.early.reclaimed.load(Ordering::Relaxed);
        self.early.settled.load(Ordering::Relaxed).saturating_sub(reclaimed)
    }

    /// Drops the captures of a whole chain, outside any batch.
    pub(crate) fn discard(&'static self, chain: Head, freed: &mut FreeList) {
        let mut chain = Some(chain);
        while let Some(head) = chain {
            let index = head.index();
            // Before the slot is freed.
            chain = self.storage.next(head);
            if let Some(taken) = self.storage.take(index, None, true) {
                let (thunk, ending) = taken.extract();
                let name = thunk.namer();
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(thunk))) {
                    let totals = self.ledger.lock().totals.clone();
                    if let Some(totals) = totals {
                        totals.report(payload, name);
                    }
                }
                self.early.discarded.fetch_add(1, Ordering::Relaxed);
                ending.free(freed);
            } else {
                self.reclaimed(1);
                if let Some(slot) = self.pass_settled(index) {
                    freed.push(slot);
                }
            }
        }
    }

    // ---- the ledger --------------------------------------------------------------------------------

    /// A new registrar's counter.
    pub(crate) fn add_registrar(&self) -> Arc<Registered> {
        let registered = Arc::new(Registered::default());
        self.ledger.lock().registrars.push(registered.clone());
        registered
    }

    pub(crate) fn remove_registrar(&self, registered: &Arc<Registered>) {
        let mut ledger = self.ledger.lock();
        ledger.past.registered += registered.load(Ordering::Relaxed);
        ledger.registrars.retain(|r| !Arc::ptr_eq(r, registered));
    }

    /// A number for a new cycle.
    pub(crate) fn begin_cycle(&self) -> u64 {
        let mut ledger = self.ledger.lock();
        ledger.cycles += 1;
        ledger.cycles
    }

    /// The batch of a cycle, made at the first asking, with a hold for the asker.
    ///
    /// Unfinished batches have different bytes. When all 254 are taken, the cycle shares the newest batch:
    /// a ticket for that one then waits for this cycle, too.
    pub(crate) fn open_batch(
        &self,
        cycle: u64,
        lease: &Arc<Lease>,
        totals: &Arc<Totals>,
        workers: usize,
    ) -> Arc<Batch> {
        let mut ledger = self.ledger.lock();
        let open = ledger.open.iter().find(|(c, _)| *c == cycle);
        if let Some((_, batch)) = open {
            let held = batch.hold();
            debug_assert!(held, "the cycle's own hold keeps it unfinished");
            return batch.clone();
        }
        let batch = loop {
            if let Some(byte) = ledger.free_byte() {
                // The hold it is made with is the cycle's.
                let batch = Arc::new(Batch::new(lease, totals, workers, byte));
                ledger.live.push(batch.clone());
                break batch;
            }
            let newest = ledger.live.last().expect("254 bytes are taken").clone();
            if newest.hold() {
                break newest;
            }
            // It has just finished: its byte is free.
        };
        let held = batch.hold();
        debug_assert!(held, "the cycle's own hold keeps it unfinished");
        ledger.open.push((cycle, batch.clone()));
        batch
    }

    /// The cycle adds no more. The answer is to be released by the caller, unlocked.
    pub(crate) fn end_cycle(&self, cycle: u64) -> Option<Arc<Batch>> {
        let mut ledger = self.ledger.lock();
        let at = ledger.open.iter().position(|(c, _)| *c == cycle)?;
        Some(ledger.open.swap_remove(at).1)
    }

    /// Moves a finished batch's numbers to the past ones. Gives the ledger's reference, to be dropped
    /// unlocked.
    pub(crate) fn close_batch(&self, batch: &Batch) -> Option<Arc<Batch>> {
        let mut ledger = self.ledger.lock();
        let at = ledger.live.iter().position(|b| std::ptr::eq(&**b, batch))?;
        ledger.past.fold(batch);
        Some(ledger.live.remove(at))
    }

    /// The batches unfinished now.
    pub(crate) fn live(&self) -> Vec<Arc<Batch>> {
        self.ledger.lock().live.iter().filter(|b| !b.is_done()).cloned().collect()
    }

    /// The accounts. The lock is held for a few additions per unfinished batch.
    pub(crate) fn stats(&self) -> OriginStats {
        let early = &*self.early;
        // Ends before beginnings, so that differences may be too high and never wrap around.
        let stopped = early.stopped.load(Ordering::Relaxed);
        let early_executed = early.executed.load(Ordering::Relaxed);
        let early_panicked = early.panicked.load(Ordering::Relaxed);
        let early_discarded = early.discarded.load(Ordering::Relaxed);
        let settled = early.settled.load(Ordering::Relaxed);
        let ledger = self.ledger.lock();
        let mut sums = Past { registered: ledger.past.registered, ..Past::default() };
        let mut backlog = 0;
        for batch in &ledger.live {
            backlog += batch.pending();
            sums.fold(batch);
        }
        for registrar in &ledger.registrars {
            sums.registered += registrar.load(Ordering::Relaxed);
        }
        let queued = ledger.past.queued + sums.queued;
        OriginStats {
            registered: sums.registered,
            queued,
            executed: ledger.past.executed + sums.executed + early_executed,
            panicked: ledger.past.panicked + sums.panicked + early_panicked,
            stopped,
            discarded: ledger.past.discarded + sums.discarded + early_discarded,
            backlog,
            armed: sums.registered.saturating_sub(queued + settled + early_discarded),
        }
    }
}

impl Ledger {
    /// A byte that no unfinished batch has, in turn.
    fn free_byte(&mut self) -> Option<u8> {
        for _ in FIRST_BATCH..=u8::MAX {
            self.next_byte =
                if self.next_byte < FIRST_BATCH { FIRST_BATCH } else { self.next_byte };
            let byte = self.next_byte;
            self.next_byte = byte.checked_add(1).unwrap_or(FIRST_BATCH);
            if !self.live.iter().any(|b| b.byte() == byte && !b.is_done()) {
                return Some(byte);
            }
        }
        None
    }
}
