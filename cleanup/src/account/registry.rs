//! The registry: everything that belongs to one heap's cleanups, and outlives the heap.
//!
//! Registries and records are never freed, only recycled: a pool has as many registries as it once
//! had heaps at a time. That is what lets a handle be a plain reference without a count, and lets
//! registering do no read-modify-write. The records are those of all heaps of the pool. The price:
//! their memory, at the peak, is kept for the pool's next heaps, or for the next pool, and never
//! returned to the system. The peak is that of all threads together: each mutator holds a few
//! hundred free records at most, and a few as long as it has registered no more than that.
//! Generations survive recycling, so a handle that is older than the registry's present heap finds
//! that its record has ended.
//!
//! # Marks and counts
//!
//! Each record has a byte, apart from the record, that says where its object stands. It is `ARMED`
//! (alive when last looked at), the byte of the batch that it is queued in, or `ENDED` (ended by
//! its handle while not queued). Sweepers and handles write it by plain stores. So it is a hint
//! with one firm half. **A batch's byte is only ever written by the sweeper that queues the
//! record.** A thread that reads it knows the batch. A byte that was not read may be there all the
//! same, a moment later.
//!
//! Counting relies on the tag, not on the byte. Invariant: **the end of a queued cleanup is counted
//! once, in its batch:** by
//!
//! 1. the runner that took and ran it; or
//! 2. the handle that took it, if it read the batch's byte when the cleanup had ended. Its tag then
//!    says `Counted`, and the runner that frees the slot does not count. Or
//! 3. the runner that frees the slot of a record that ended early, if its tag does not say so; or
//! 4. the handle that was still at it when the runner skipped the record, and so was left the slot.
//!    The runner has left it the batch's byte as a note.
//!
//! In case 3 the backlog is too high by one from the moment the cleanup ends until the runner gets
//! there. It takes a handle that reads the byte just before the sweeper writes it.
//!
//! It does not know objects, blocks or workers.

use crate::account::backlog::BacklogWaiters;
use crate::account::batch::{Batch, HOLD};
use crate::account::counters::Reading;
use crate::account::thread_slot;
use crate::account::totals::Totals;
use crate::inside::CleanupScope;
use crate::observe::description::Description;
use crate::observe::stats::CleanupStats;
use crate::record::ending::{Ending, Skip, Taker};
use crate::record::free_list::FreeList;
use crate::record::head::{Head, Index};
use crate::record::slot::Slot;
use crate::record::storage::Storage;
#[cfg(not(any(loom, shuttle)))]
use sexton_sync::PerProcess;
use sexton_sync::Process;
use sexton_sync::drop_quietly;
use sexton_sync::{Arc, AtomicU64, CachePadded, Mutex, MutexGuard, OnceLock, Ordering, Weak};
use std::any::Any;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, catch_unwind};
use std::time::Instant;

/// Mark of a record whose object was alive when last looked at.
pub(crate) const ARMED: u8 = 0;
/// Mark of a record that its handle has ended while it was not queued.
pub(crate) const ENDED: u8 = 1;
/// The first byte that names a batch.
const FIRST_BATCH: u8 = 2;

/// One heap's accounts, and where its records are.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Those of its pool.
    pub(crate) storage: &'static Storage,
    #[cfg_attr(loom, expect(dead_code, reason = "a model recycles nothing"))]
    records: &'static PoolRecords,
    /// The process that made it. The child of a `fork` uses it no more than it must, and gives it
    /// to no new heap.
    home: Process,
    early_ends: CachePadded<EarlyEnds>,
    table: Mutex<BatchTable>,
    pub(crate) backlog_waiters: BacklogWaiters,
}

/// The counters outside batches. Written by handles, registrars and sweepers by `fetch_add`, but
/// for [`Stopped`].
///
/// Relaxed but for `stopped`, `executed` and `discarded`, which together say that every cleanup has
/// ended. Those are added to with Release, as the last access to the registry. They pair with the
/// Acquire in [`Registry::is_at_rest`].
#[derive(Debug, Default)]
struct EarlyEnds {
    /// Stopped through the handle.
    stopped: Stopped,
    /// Run through the handle, panicked ones included.
    executed: AtomicU64,
    panicked: AtomicU64,
    /// Captures dropped by [`Registrar::discard`](crate::Registrar::discard).
    discarded: AtomicU64,
    /// Records that had ended early, and that sweepers and discarding registrars took out of their
    /// chains.
    reclaimed: AtomicU64,
}

/// Cleanups stopped through their handles: a count for each of the first threads, and one for all
/// others.
#[derive(Debug, Default)]
struct Stopped {
    /// Each written by the thread of that number only, by plain load and store. Two kilobytes, made
    /// when more than [`FEW_STOPPED`] have been stopped.
    own: OnceLock<Box<[CachePadded<AtomicU64>; thread_slot::NUMBERS]>>,
    /// Written by the others, by `fetch_add`; at first by all.
    shared: AtomicU64,
}

/// Cleanups stopped before the threads count apart from one another.
const FEW_STOPPED: u64 = 64;

impl Stopped {
    /// Counts one. Release: see [`EarlyEnds`].
    #[inline]
    fn add_one(&self) {
        match self.own.get().and_then(|own| own.get(thread_slot::number())) {
            Some(own) => own.store(own.load(Ordering::Relaxed) + 1, Ordering::Release),
            None => self.add_one_shared(),
        }
    }

    #[cold]
    fn add_one_shared(&self) {
        // Before the count, which may be the last access to the registry.
        if self.shared.load(Ordering::Relaxed) >= FEW_STOPPED {
            self.own.get_or_init(Box::default);
        }
        self.shared.fetch_add(1, Ordering::Release);
    }

    fn own(&self) -> impl Iterator<Item = &AtomicU64> {
        self.own.get().into_iter().flat_map(|own| own.iter().map(|own| &**own))
    }

    fn sum(&self, ordering: Ordering) -> u64 {
        self.own().map(|own| own.load(ordering)).sum::<u64>() + self.shared.load(ordering)
    }

    /// Clears the counts. Called when no thread stops anything: see [`Registry::begin`].
    fn clear(&self) {
        self.own().for_each(|own| own.store(0, Ordering::Relaxed));
        self.shared.store(0, Ordering::Relaxed);
    }
}

/// The state behind the lock. The lock is held for a few loads and stores, never while user code
/// runs.
#[derive(Debug, Default)]
struct BatchTable {
    /// The present heap's pool, to report panics of `run_now` to. Weak: the registry outlives the
    /// pool, and must not keep the pool's hook, nor drop it at any moment.
    totals: Weak<Totals>,
    /// Unfinished batches, in the order of their cycles.
    live: Vec<Arc<BatchAccount>>,
    /// The batch of each cycle that is still sweeping. Holds a hold on it.
    open: Vec<(u64, Arc<BatchAccount>)>,
    cycles: u64,
    next_byte: u8,
    /// The counters of each registrar; written by that registrar only.
    registrars: Vec<Arc<RegistrarCounters>>,
    /// The counts of finished batches and departed registrars.
    retired: Retired,
}

/// The counters of one registrar. Written by it only, by plain load and store; Relaxed.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct RegistrarCounters {
    /// Cleanups registered.
    pub(crate) registered: AtomicU64,
    /// Records that had ended early, taken out of their chains.
    pub(crate) reclaimed: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Retired {
    registered: u64,
    reclaimed: u64,
    /// The cleanups that were queued.
    batches: Reading,
}

impl Retired {
    fn add(&mut self, registrar: &RegistrarCounters) {
        self.registered += registrar.registered.load(Ordering::Relaxed);
        self.reclaimed += registrar.reclaimed.load(Ordering::Relaxed);
    }
}

// ---- recycling
// -----------------------------------------------------------------------------------------

/// The records of a pool's heaps, and the registries that none of these heaps uses.
///
/// Never freed, because handles lead here. When the pool goes, another one is given them.
#[derive(Debug)]
pub(crate) struct PoolRecords {
    storage: Storage,
    /// The lock is held for a few loads and stores.
    unused: Mutex<Unused>,
    #[cfg_attr(loom, expect(dead_code, reason = "a model recycles nothing"))]
    home: Process,
}

#[derive(Debug, Default)]
struct Unused {
    registries: Vec<&'static Registry>,
    /// All that there are.
    made: usize,
}

/// The most registries that are made at a time. They are never freed. So they lie side by side, and
/// few pages that other memory is on stay because of them.
#[cfg(not(any(loom, shuttle)))]
const MOST_AT_A_TIME: usize = 512;
#[cfg(any(loom, shuttle))]
const MOST_AT_A_TIME: usize = 1;

/// The records that no pool uses.
#[cfg(not(loom))]
type Recycled = Mutex<Vec<&'static PoolRecords>>;

/// Gives those of this process.
#[cfg(not(any(loom, shuttle)))]
fn all_recycled() -> &'static Recycled {
    static RECYCLED: PerProcess<Recycled> = PerProcess::new();
    RECYCLED.get(Recycled::default)
}

#[cfg(shuttle)]
fn all_recycled() -> &'static Recycled {
    sexton_sync::lazy_static! {
        /// Those of one schedule; shuttle drops the list at its end.
        static ref RECYCLED: Recycled = Recycled::default();
    }
    &RECYCLED
}

impl PoolRecords {
    /// Gives a registry that no heap uses: the warmest that is at rest, or a new one.
    fn unused(&'static self) -> &'static Registry {
        let mut unused = self.unused.lock();
        // A model's atomics live as long as the model's run: nothing can be recycled.
        #[cfg(not(loom))]
        if let Some(at) = unused.registries.iter().rposition(|registry| registry.is_at_rest()) {
            return unused.registries.remove(at);
        }
        let count = unused.made.clamp(1, MOST_AT_A_TIME);
        let made: Box<[Registry]> = (0..count).map(|_| Registry::new(self)).collect();
        let (first, others) = Box::leak(made).split_first().expect("one or more");
        unused.registries.extend(others);
        unused.made += count;
        first
    }
}

/// A pool's hold on its records. When it goes, they can serve another pool.
#[derive(Debug)]
pub(crate) struct PoolRecordsRef(&'static PoolRecords);

impl PoolRecordsRef {
    /// Takes recycled records, or makes some.
    pub(crate) fn new() -> Self {
        PoolRecordsRef(Self::recycled().unwrap_or_else(|| {
            Box::leak(Box::new(PoolRecords {
                storage: Storage::new(),
                unused: Mutex::default(),
                home: Process::current(),
            }))
        }))
    }

    fn recycled() -> Option<&'static PoolRecords> {
        #[cfg(not(loom))]
        return all_recycled().lock().pop();
        #[cfg(loom)]
        None
    }
}

impl Drop for PoolRecordsRef {
    fn drop(&mut self) {
        #[cfg(not(loom))]
        if self.0.home.is_current() {
            all_recycled().lock().push(self.0);
        }
    }
}

/// A heap's hold on its registry: shared by the client, its registrars and its batches. When the
/// last of them is gone, the registry can serve another heap.
#[derive(Debug)]
pub(crate) struct RegistryRef {
    registry: &'static Registry,
}

impl RegistryRef {
    /// Takes an unused registry of the pool, or makes one.
    pub(crate) fn new(records: &PoolRecordsRef, totals: &Arc<Totals>) -> Arc<Self> {
        let registry = records.0.unused();
        registry.begin(totals);
        Arc::new(RegistryRef { registry })
    }

    pub(crate) fn registry(&self) -> &'static Registry {
        self.registry
    }
}

impl Drop for RegistryRef {
    fn drop(&mut self) {
        #[cfg(not(loom))]
        if self.registry.home.is_current() {
            self.registry.table.lock().rest();
            self.registry.records.unused.lock().registries.push(self.registry);
        }
    }
}

/// A batch in the accounts of its heap and of its pool. It keeps the registry from other heaps.
#[derive(Debug)]
pub(crate) struct BatchAccount {
    batch: Arc<Batch>,
    registry_ref: Arc<RegistryRef>,
    totals: Arc<Totals>,
    /// Its number in `totals`, for the age of the oldest.
    number: u64,
}

impl Deref for BatchAccount {
    type Target = Batch;
    #[inline]
    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl BatchAccount {
    /// Makes a batch with one hold.
    fn new(
        registry_ref: &Arc<RegistryRef>,
        totals: &Arc<Totals>,
        workers: usize,
        byte: u8,
    ) -> Arc<Self> {
        let batch = Batch::new(workers, byte, &registry_ref.registry().backlog_waiters);
        let number = totals.batch_begins(Instant::now(), &batch);
        Arc::new(BatchAccount {
            batch,
            registry_ref: registry_ref.clone(),
            totals: totals.clone(),
            number,
        })
    }

    #[inline]
    pub(crate) fn registry(&self) -> &'static Registry {
        self.registry_ref.registry()
    }

    /// Lets go of one hold.
    pub(crate) fn release(&self) {
        self.subtract(HOLD);
    }

    /// Counts cleanups that are about to be published. Called by the owner of a hold.
    pub(crate) fn add(&self, cleanups: u64) {
        self.totals.counters.queue(cleanups);
        self.batch.add(cleanups);
    }

    /// Subtracts `n` cleanups that have ended, and that their runner has counted in its shard.
    pub(crate) fn subtract(&self, n: u64) {
        if n > 0 {
            if self.batch.subtract(n) {
                self.finish();
            }
            self.registry().backlog_waiters.ended();
        }
    }

    /// Counts one cleanup that has ended through its handle.
    pub(crate) fn end_one_early(&self) {
        self.totals.counters.end_one_early();
        self.counters.end_one_early();
        self.subtract(1);
    }

    #[cold]
    fn finish(&self) {
        self.totals.batch_ends(self.number);
        // Out of the table first: a waiter that returns finds the client's counters complete.
        let listed = self.registry().close_batch(self);
        self.batch.tell_done();
        // Last, and with no lock held: it may be what keeps the registry out of the recycled ones.
        drop(listed);
    }
}

// User code runs between two complete steps, never in the middle of one: a panic that unwinds out
// of it leaves the registry, and so a handle, in order.
impl RefUnwindSafe for Registry {}

impl Registry {
    fn new(records: &'static PoolRecords) -> Self {
        Registry {
            storage: &records.storage,
            records,
            home: Process::current(),
            early_ends: CachePadded::default(),
            table: Mutex::new(BatchTable::default()),
            backlog_waiters: BacklogWaiters::default(),
        }
    }

    /// Tells whether every cleanup registered here has ended, and the thread that ended it is done
    /// with the registry. Asked when no reference of a heap is left. A handle's thread may still be
    /// inside a cleanup then. Its end is to be counted in the accounts of its own heap.
    #[cfg(not(loom))]
    fn is_at_rest(&self) -> bool {
        // Acquire: pairs with the Release additions; see `EarlyEnds`.
        let early_ends = self.early_ends.stopped.sum(Ordering::Acquire)
            + self.early_ends.executed.load(Ordering::Acquire)
            + self.early_ends.discarded.load(Ordering::Acquire);
        let retired = &self.table.lock().retired;
        retired.registered == retired.batches.executed + retired.batches.discarded + early_ends
    }

    /// Clears the accounts for a new heap. Called by the only thread that knows the registry as its
    /// own.
    fn begin(&self, totals: &Arc<Totals>) {
        let EarlyEnds { stopped, executed, panicked, discarded, reclaimed } = &*self.early_ends;
        stopped.clear();
        for counter in [executed, panicked, discarded, reclaimed] {
            counter.store(0, Ordering::Relaxed);
        }
        let mut table = self.table.lock();
        debug_assert!(table.live.is_empty() && table.open.is_empty());
        debug_assert!(table.registrars.is_empty());
        *table = BatchTable { totals: Arc::downgrade(totals), ..BatchTable::default() };
    }

    // ---- handles
    // -----------------------------------------------------------------------------------

    /// Stops as [`stop`](Self::stop) does, for a record whose captures need no destructor. Whether
    /// it was there to be stopped.
    #[inline]
    pub(crate) fn stop_no_drop(
        &'static self,
        index: Index,
        generation: u32,
        note: impl FnOnce(),
    ) -> bool {
        let Some(no_drop) = self.storage.take_no_drop(index, generation) else { return false };
        note();
        // As in `end_early`, but the slot is never left to us.
        let byte = no_drop.mark().load(Ordering::Relaxed);
        let counted = byte >= FIRST_BATCH;
        if !counted {
            no_drop.mark().store(ENDED, Ordering::Relaxed);
        }
        no_drop.close(counted);
        self.early_ends.stopped.add_one();
        if counted {
            self.count_early_end(byte);
        }
        true
    }

    /// Takes the record, calls `note`, and drops the captures. If a destructor panics, the cleanup
    /// is stopped all the same, and the answer is what was thrown.
    #[inline(never)]
    pub(crate) fn stop(
        &'static self,
        index: Index,
        generation: u32,
        note: impl FnOnce(),
    ) -> Option<std::thread::Result<()>> {
        let taken = self.storage.take(index, Taker::Handle { generation }, true)?;
        note();
        let (thunk, ending) = taken.extract();
        // A destructor that waited for its own heap would wait for this very cleanup's end.
        let scope = CleanupScope::enter();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(thunk)));
        drop(scope);
        self.end_early(ending, || self.early_ends.stopped.add_one());
        Some(dropped)
    }

    /// Takes the record and runs it. A panic in it is counted and reported, like on a worker.
    pub(crate) fn run_now(&'static self, index: Index, generation: u32) -> bool {
        let taker = Taker::Handle { generation };
        let Some(taken) = self.storage.take(index, taker, false) else { return false };
        let (thunk, ending) = taken.extract();
        let name = thunk.namer();
        let scope = CleanupScope::enter();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| thunk.run())) {
            self.early_ends.panicked.fetch_add(1, Ordering::Relaxed);
            self.report(payload, ending.describe(name));
        }
        drop(scope);
        // Release: see `EarlyEnds`.
        self.end_early(ending, || _ = self.early_ends.executed.fetch_add(1, Ordering::Release));
        true
    }

    /// Declares the end of a record taken through its handle, and counts it: by `count`, and
    /// perhaps in its batch. See "Marks and counts" above.
    fn end_early(&'static self, ending: Ending, count: impl FnOnce()) {
        // Relaxed, both: the byte says all that is exchanged, and a batch is found under the lock
        // of the table. Before the end is declared: after that the slot may be in use again.
        let mark = ending.mark();
        let byte = mark.load(Ordering::Relaxed);
        let mut batch = (byte >= FIRST_BATCH).then_some(byte);
        if batch.is_none() {
            mark.store(ENDED, Ordering::Relaxed);
        }
        if let Some(detached) = ending.close(batch.is_some()) {
            let note = detached.note();
            if note >= FIRST_BATCH {
                batch = Some(note);
            }
            detached.free();
        }
        // If the record is in a batch, the batch keeps the registry until we have counted there,
        // too.
        count();
        // Last: a thread that learns that the batch has finished finds every cleanup ended and
        // counted.
        if let Some(byte) = batch {
            self.count_early_end(byte);
        }
    }

    /// Counts one end in the unfinished batch of this byte.
    #[cold]
    fn count_early_end(&self, byte: u8) {
        // An inherited batch is the parent's affair: its locks may be held.
        if !self.home.is_current() {
            return;
        }
        let table = self.table.lock();
        let batch = table.live.iter().find(|b| b.byte() == byte && !b.is_done()).cloned();
        drop(table);
        match batch {
            Some(batch) => batch.end_one_early(),
            None => debug_assert!(false, "a queued cleanup's batch has finished without it"),
        }
    }

    /// Tells the hook of the present heap's pool about a panic.
    #[cold]
    fn report(&self, payload: Box<dyn Any + Send>, cleanup: Description) {
        let totals = self.table().and_then(|table| table.totals.upgrade());
        match totals {
            Some(totals) => totals.report(payload, cleanup),
            None => drop_quietly(payload),
        }
    }

    // ---- owners of chains
    // --------------------------------------------------------------------------

    /// Skips a record that its handle has ended while it was not queued, for a sweeper or
    /// registrar.
    pub(crate) fn skip_ended(&'static self, index: Index) -> Option<Slot> {
        match self.storage.skip(index, Some(ARMED)) {
            Skip::Freed(slot, _) => Some(slot),
            Skip::Detached | Skip::Busy | Skip::NotOurs | Skip::Armed => None,
        }
    }

    /// Records that had ended early were taken out of their chains.
    pub(crate) fn reclaimed(&self, n: u64) {
        if n > 0 {
            self.early_ends.reclaimed.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Records that have ended early and are still in chains of live objects. O(unfinished cycles).
    pub(crate) fn ended_early(&self) -> u64 {
        let ended = self.early_ends.stopped.sum(Ordering::Relaxed)
            + self.early_ends.executed.load(Ordering::Relaxed);
        // Without the lock, which a `fork` has caught, nothing is known, and nothing will be
        // pruned.
        let Some(sums) = self.sums() else { return 0 };
        let reclaimed = sums.reclaimed + self.early_ends.reclaimed.load(Ordering::Relaxed);
        // Those that were not queued, but for those that are in no chain any more.
        ended.saturating_sub(sums.batches.ended_early).saturating_sub(reclaimed)
    }

    /// Drops the captures of a whole chain, outside any batch. `freed` stays below a full magazine.
    pub(crate) fn discard(&'static self, chain: Head, freed: &mut FreeList) {
        let mut chain = Some(chain);
        while let Some(head) = chain {
            let index = head.index();
            // Before the slot is freed.
            chain = self.storage.next(head);
            if let Some(taken) = self.storage.take(index, Taker::Runner, true) {
                let (thunk, ending) = taken.extract();
                let name = thunk.namer();
                let scope = CleanupScope::enter();
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(thunk))) {
                    self.report(payload, ending.describe(name));
                }
                drop(scope);
                ending.free(freed);
                // Release: see `EarlyEnds`.
                self.early_ends.discarded.fetch_add(1, Ordering::Release);
            } else {
                self.reclaimed(1);
                if let Some(slot) = self.skip_ended(index) {
                    freed.push(slot);
                }
            }
            freed.give_back_if_full();
        }
    }

    // ---- the ledger
    // --------------------------------------------------------------------------------

    /// Locks the table; `None` if a thread may have it that a `fork` has left behind.
    fn table(&self) -> Option<MutexGuard<'_, BatchTable>> {
        self.table.lock_at(self.home)
    }

    /// Makes the counters of a new registrar.
    pub(crate) fn add_registrar(&self) -> Arc<RegistrarCounters> {
        let registered = Arc::new(RegistrarCounters::default());
        if let Some(mut table) = self.table() {
            table.registrars.push(registered.clone());
        }
        registered
    }

    pub(crate) fn remove_registrar(&self, registered: &Arc<RegistrarCounters>) {
        let Some(mut table) = self.table() else { return };
        table.retired.add(registered);
        // From the end, where those are that come and go while others stay.
        if let Some(at) = table.registrars.iter().rposition(|r| Arc::ptr_eq(r, registered)) {
            table.registrars.swap_remove(at);
        }
    }

    /// Gives a number for a new cycle.
    pub(crate) fn begin_cycle(&self) -> u64 {
        let mut table = self.table.lock();
        table.cycles += 1;
        table.cycles
    }

    /// Gives the batch of a cycle, made at the first asking, with a hold for the asker.
    ///
    /// Unfinished batches have different bytes. When all 254 are taken, the cycle shares the newest
    /// batch: a ticket for that one then waits for this cycle, too.
    pub(crate) fn open_batch(
        &self,
        cycle: u64,
        registry_ref: &Arc<RegistryRef>,
        totals: &Arc<Totals>,
        workers: usize,
    ) -> Arc<BatchAccount> {
        let mut table = self.table.lock();
        let open = table.open.iter().find(|(c, _)| *c == cycle);
        if let Some((_, batch)) = open {
            let held = batch.hold();
            debug_assert!(held, "the cycle's own hold keeps it unfinished");
            return batch.clone();
        }
        let batch = loop {
            if let Some(byte) = table.free_byte() {
                // The hold it is made with is the cycle's.
                let batch = BatchAccount::new(registry_ref, totals, workers, byte);
                table.live.push(batch.clone());
                break batch;
            }
            let newest = table.live.last().expect("254 bytes are taken").clone();
            if newest.hold() {
                break newest;
            }
            // It has just finished: its byte is free.
        };
        let held = batch.hold();
        debug_assert!(held, "the cycle's own hold keeps it unfinished");
        table.open.push((cycle, batch.clone()));
        batch
    }

    /// Ends a cycle: it adds no more. The answer is to be released by the caller, unlocked.
    pub(crate) fn end_cycle(&self, cycle: u64) -> Option<Arc<BatchAccount>> {
        let mut table = self.table.lock();
        let at = table.open.iter().position(|(c, _)| *c == cycle)?;
        Some(table.open.swap_remove(at).1)
    }

    /// Moves a finished batch's numbers to the past ones. Gives the table's reference, to be
    /// dropped unlocked.
    pub(crate) fn close_batch(&self, batch: &BatchAccount) -> Option<Arc<BatchAccount>> {
        let mut table = self.table.lock();
        let at = table.live.iter().position(|b| std::ptr::eq(&**b, batch))?;
        table.retired.batches += batch.counters.read();
        Some(table.live.remove(at))
    }

    /// Cleanups queued and not ended. O(unfinished cycles).
    pub(crate) fn backlog(&self) -> u64 {
        self.table().map_or(0, |table| table.live.iter().map(|batch| batch.pending()).sum())
    }

    /// Gives the batches unfinished now.
    pub(crate) fn live(&self) -> Vec<Arc<BatchAccount>> {
        let Some(table) = self.table() else { return Vec::new() };
        table.live.iter().filter(|b| !b.is_done()).cloned().collect()
    }

    /// Gives the numbers of all batches and registrars, the ends before the beginnings. The lock is
    /// held for a few additions per unfinished batch. `None` if a `fork` has caught the lock.
    fn sums(&self) -> Option<Retired> {
        let table = self.table()?;
        let mut sums = table.retired;
        table.live.iter().for_each(|batch| sums.batches += batch.counters.read());
        table.registrars.iter().for_each(|registrar| sums.add(registrar));
        Some(sums)
    }

    /// Reads the accounts. Each counter is read once, so that the promised sums hold.
    pub(crate) fn stats(&self) -> CleanupStats {
        // Acquire: pairs with the Release additions. A cleanup counted here is registered below.
        let early_ends = &*self.early_ends;
        let panicked = early_ends.panicked.load(Ordering::Relaxed);
        let run_early = early_ends.executed.load(Ordering::Acquire);
        let stopped = early_ends.stopped.sum(Ordering::Acquire);
        let discarded = early_ends.discarded.load(Ordering::Acquire);
        let Some(Retired { registered, mut batches, .. }) = self.sums() else {
            return CleanupStats::default();
        };
        let by_handles = stopped + run_early;
        // A batch may know of more by now, and a runner may count a record before its handle does.
        // These still count as queued.
        batches.ended_early = batches.ended_early.min(by_handles);
        let gone = batches.queued + (by_handles - batches.ended_early) + discarded;
        // Case 3 of "Marks and counts": ended by its handle, and in the backlog until a runner gets
        // there. Here it has ended.
        batches.ended_early += gone.saturating_sub(registered).min(batches.backlog());
        let gone = batches.queued + by_handles.saturating_sub(batches.ended_early) + discarded;
        debug_assert!(gone <= registered, "{gone} of {registered} are not armed any more");
        CleanupStats {
            registered,
            queued: batches.queued,
            executed: batches.executed + run_early,
            panicked: batches.panicked + panicked,
            stopped,
            discarded: batches.discarded + discarded,
            backlog: batches.backlog(),
            armed: registered.saturating_sub(gone),
        }
    }
}

impl BatchTable {
    /// Lets go of the memory that only a heap in use needs. Small pieces that stay would keep whole
    /// pages.
    #[cfg(not(loom))]
    fn rest(&mut self) {
        debug_assert!(self.live.is_empty() && self.open.is_empty() && self.registrars.is_empty());
        (self.live, self.open, self.registrars) = (Vec::new(), Vec::new(), Vec::new());
    }

    /// Gives a byte that no unfinished batch has, in turn.
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::Registry;
    use crate::{CleanupState, Client, Pool, PoolConfig};
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    /// Whether a new heap of its pool could be given the registry.
    fn is_free(registry: &'static Registry) -> bool {
        let unused = registry.records.unused.lock();
        unused.registries.iter().any(|&free| std::ptr::eq(free, registry) && free.is_at_rest())
    }

    /// Waits until a new heap of the pool has been given the registry. Takes as many as are listed,
    /// because the one looked for may lie under all the others.
    fn will_be_recycled(pool: &Arc<Pool>, registry: &'static Registry) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let listed = registry.records.unused.lock().registries.len();
            let clients: Vec<_> = (0..listed).map(|_| Client::new(pool)).collect();
            if clients.iter().any(|client| std::ptr::eq(client.registry(), registry)) {
                return;
            }
            assert!(Instant::now() < deadline, "the registry was not recycled");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_registry_is_recycled_when_no_thread_is_inside_and_old_handles_stay_harmless() {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let registry = client.registry();
        let mut registrar = client.registrar();
        let (entered, enter) = channel();
        let (leave, left) = channel::<()>();
        let (head, handle) = registrar.register(None, move || {
            entered.send(()).expect("the test waits");
            left.recv().expect("the test tells");
        });
        let runner = std::thread::spawn(move || {
            assert!(handle.run_now());
            handle
        });
        enter.recv().expect("it runs");
        // The heap goes while a handle's thread is inside the cleanup.
        registrar.discard(head);
        drop(registrar);
        drop(client);
        assert!(!is_free(registry), "its account is still open");
        leave.send(()).expect("it waits");
        let handle = runner.join().expect("it ran");
        will_be_recycled(&pool, registry);
        assert_eq!(handle.state(), CleanupState::Done);
        assert!(!handle.stop());
    }

    #[test]
    fn cycles_that_sweep_at_a_time_have_a_batch_each() {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let cycles = [client.begin_cycle(), client.begin_cycle()];
        let locals = cycles.each_ref().map(|cycle| {
            let mut local = cycle.local_block();
            local.push(registrar.register(None, || {}).0);
            local
        });
        assert_eq!(client.registry().live().len(), 2);
        let both = client.ticket();
        for (cycle, local) in cycles.into_iter().zip(locals) {
            cycle.flush([local]);
            assert_eq!(pool.run_pending(usize::MAX), 1);
        }
        assert!(both.is_done());
    }

    #[test]
    fn a_registry_waits_for_its_batches() {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let registry = client.registry();
        let (head, _) = client.registrar().register(None, || {});
        let cycle = client.begin_cycle();
        let mut local = cycle.local_block();
        local.push(head);
        cycle.flush([local]);
        drop(client);
        assert!(!is_free(registry));
        assert_eq!(pool.run_pending(1), 1);
        will_be_recycled(&pool, registry);
    }
}
