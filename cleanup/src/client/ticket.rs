//! Batches, and tickets that wait for them.
//!
//! A [`Batch`] is what one collection cycle queued. Invariant: `remaining` is zero exactly when the cycle has
//! stopped adding and every cleanup of it has ended; whoever brings it to zero says so, once.
//!
//! A [`Ticket`] is the list of batches that were unfinished when it was taken. So later cycles, cleanups that
//! rearm themselves and other heaps' stalls do not prolong the wait.
//!
//! It does not know blocks or records; it is told numbers.

use crate::account::counters::{Tally, Totals};
use crate::account::registry::Lease;
use crate::inside::in_cleanup;
use crate::pool::state::{Pool, is_over};
use crate::protocol::mutant::Mutant;
use sexton_sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering, wait_until};
use std::fmt;
use std::time::{Duration, Instant};

/// What the cycle and each of its sweepers add to `remaining` while they may still add cleanups. Larger than
/// any number of cleanups, so that ends counted before their publication cannot bring it to zero.
const HOLD: u64 = 1 << 40;

/// The cleanups that one cycle queued.
#[derive(Debug)]
pub(crate) struct Batch {
    lease: Arc<Lease>,
    totals: Arc<Totals>,
    /// What sweepers write into the marks of this batch's records. Unique among the unfinished batches of
    /// its registry.
    byte: u8,
    /// Its number in `totals`, for the age of the oldest.
    number: u64,
    /// Holds, and cleanups published and not ended. Added to by the cycle's sweepers; subtracted from by
    /// runners, a block at a time, and by handles.
    ///
    /// Subtractions are AcqRel: Release, so that who brings it to zero sees what each ended cleanup did, and
    /// Acquire, so that it does.
    remaining: AtomicU64,
    pub(crate) tally: Tally,
    /// Drop the captures instead of running. Set at most once. Relaxed: a runner that sees it late has run
    /// one more, which `discard_queued` allows.
    discard: AtomicBool,
    /// What the waiters are told.
    told: Mutex<Told>,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    /// It has finished.
    done: bool,
    /// Changes with each nudge.
    nudges: u64,
}

/// How a wait for a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Done,
    TimedOut,
    /// There may be no worker, and one may be had.
    Nudged,
}

impl Batch {
    /// A batch with one hold.
    pub(crate) fn new(
        lease: &Arc<Lease>,
        totals: &Arc<Totals>,
        workers: usize,
        byte: u8,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Batch {
            lease: lease.clone(),
            totals: totals.clone(),
            byte,
            number: totals.batch_begins(Instant::now(), this),
            remaining: AtomicU64::new(HOLD),
            tally: Tally::new(workers),
            discard: AtomicBool::new(false),
            told: Mutex::new(Told::default()),
            finished: Condvar::new(),
        })
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(crate) fn byte(&self) -> u8 {
        self.byte
    }

    // ---- the sweepers' side ------------------------------------------------------------------------

    /// Keeps the batch unfinished; false if it has finished already.
    pub(crate) fn hold(&self) -> bool {
        // Relaxed: holders are ordered by the ledger's lock; the number is all that matters here.
        let mut remaining = self.remaining.load(Ordering::Relaxed);
        while remaining != 0 {
            match self.remaining.compare_exchange_weak(
                remaining,
                remaining + HOLD,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => remaining = now,
            }
        }
        false
    }

    /// Lets go of one hold.
    pub(crate) fn release(&self) {
        self.subtract(HOLD);
    }

    /// Counts cleanups that are about to be published. Called by the owner of a hold.
    pub(crate) fn add(&self, cleanups: u64) {
        self.totals.tally.queue(cleanups);
        self.tally.queue(cleanups);
        // Relaxed: the publication that follows is what makes the cleanups reachable.
        self.remaining.fetch_add(cleanups, Ordering::Relaxed);
    }

    // ---- the ends ----------------------------------------------------------------------------------

    /// `n` cleanups have ended, and their runner has counted them in its shard.
    pub(crate) fn subtract(&self, n: u64) {
        if n > 0 {
            let unordered = self.totals.mutant.is(Mutant::UnorderedEnds);
            let order = if unordered { Ordering::Relaxed } else { Ordering::AcqRel };
            if self.remaining.fetch_sub(n, order) == n {
                self.finish();
            }
            self.lease.registry().relief.ended();
        }
    }

    /// One cleanup has ended through its handle.
    pub(crate) fn settle_one(&self) {
        self.totals.tally.settle_one();
        self.tally.settle_one();
        self.subtract(1);
    }

    #[cold]
    fn finish(&self) {
        self.totals.batch_ends(self.number);
        // Out of the ledger first: a waiter that returns finds the origin's counters complete.
        let listed = self.lease.registry().close_batch(self);
        self.told.lock().done = true;
        self.finished.notify_all();
        // Last, and with no lock held: it may be what keeps the registry out of the recycled ones.
        drop(listed);
    }

    // ---- what others ask ---------------------------------------------------------------------------

    pub(crate) fn is_done(&self) -> bool {
        // Acquire: pairs with the Release in `subtract`; who sees the end sees what the cleanups did.
        self.remaining.load(Ordering::Acquire) == 0
    }

    /// Cleanups queued and not ended. See [`Reading::backlog`](crate::account::counters::Reading::backlog).
    pub(crate) fn pending(&self) -> u64 {
        self.tally.read().backlog()
    }

    pub(crate) fn discard(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_discarded(&self) -> bool {
        self.discard.load(Ordering::Relaxed)
    }

    /// Waits for the end, until the deadline, or for a nudge that is not in `nudges` yet.
    fn wait(&self, deadline: Option<Instant>, nudges: u64) -> Waited {
        let mut told = self.told.lock();
        loop {
            if told.done {
                return Waited::Done;
            }
            if told.nudges != nudges {
                return Waited::Nudged;
            }
            if wait_until(&self.finished, &mut told, deadline) && !told.done {
                return Waited::TimedOut;
            }
        }
    }

    /// How often those who wait have been nudged.
    fn nudges(&self) -> u64 {
        self.told.lock().nudges
    }

    /// Has those who wait, for the batch or for its heap's backlog, look at the workers again.
    pub(crate) fn nudge(&self) {
        self.told.lock().nudges += 1;
        self.finished.notify_all();
        self.lease.registry().relief.tell();
    }
}

/// The cleanups of one heap that were queued and not ended at one moment. See
/// [`Origin::ticket`](crate::Origin::ticket).
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<Pool>,
    batches: Vec<Arc<Batch>>,
}

impl Ticket {
    pub(crate) fn new(pool: Arc<Pool>, batches: Vec<Arc<Batch>>) -> Self {
        Ticket { pool, batches }
    }

    /// Waits until all of them have ended: run, stopped or discarded. A timeout too long for the clock means
    /// for ever.
    ///
    /// In a manual pool somebody has to run them meanwhile. If no worker could be started when the cleanups were
    /// queued, this tries again first, and if there is still none, runs what is queued on this thread.
    ///
    /// # Errors
    /// [`WaitError::Timeout`] with the number not ended when the time is up; [`WaitError::FromCleanup`],
    /// always and at once, when called from inside a cleanup: it could be waiting for itself;
    /// [`WaitError::Forked`], always and at once, in an inherited pool.
    pub fn wait(&self, timeout: Duration) -> Result<(), WaitError> {
        if in_cleanup() {
            return Err(WaitError::FromCleanup);
        }
        if self.pool.is_inherited() {
            return Err(WaitError::Forked);
        }
        if self.batches.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now().checked_add(timeout);
        let help = || {
            self.pool.help_for_want_of_workers(|| self.is_done() || is_over(deadline));
        };
        for batch in &self.batches {
            loop {
                // Before the look: who is nudged during it has to look once more.
                let nudges = batch.nudges();
                self.pool.look();
                help();
                match batch.wait(deadline, nudges) {
                    Waited::Done => break,
                    // Before the next look: its thread may not live long enough either. But not for ever: a look that
                    // fails to start a worker nudges, too.
                    Waited::Nudged if !is_over(deadline) => help(),
                    Waited::Nudged | Waited::TimedOut => {
                        let pending = self.pending();
                        // Zero: the last one ended just now, and only the telling is left.
                        return if pending == 0 {
                            Ok(())
                        } else {
                            Err(WaitError::Timeout { pending })
                        };
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether all of them have ended. Does not wait.
    pub fn is_done(&self) -> bool {
        self.batches.iter().all(|batch| batch.is_done())
    }

    /// How many of them have not ended yet.
    pub fn pending(&self) -> u64 {
        self.batches.iter().map(|batch| batch.pending()).sum()
    }
}

/// Why a wait for cleanups ended before they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The time was up.
    Timeout {
        /// Cleanups covered by the wait that had not ended.
        pending: u64,
    },
    /// The wait was asked for from inside a cleanup.
    FromCleanup,
    /// This process is the child of a `fork`, and the pool was made before: its workers are not in this process.
    Forked,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Timeout { pending } => {
                write!(f, "the time was up with {pending} cleanups not ended")
            }
            WaitError::FromCleanup => {
                write!(f, "a cleanup cannot wait for cleanups: it could be waiting for itself")
            }
            WaitError::Forked => write!(
                f,
                "the pool was made before a `fork`, and its workers are not in this process; valid \
                 is to make heaps and pools after the `fork`, or to `exec`"
            ),
        }
    }
}

impl std::error::Error for WaitError {}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::{Origin, PoolConfig};

    #[test]
    fn a_wait_ends_at_a_nudge_that_is_new_to_it_and_sleeps_through_none() {
        let pool = Pool::new(PoolConfig::default(), None);
        let origin = Origin::new(&pool);
        let cycle = origin.begin_cycle();
        let (head, _) = origin.registrar().register(None, || {});
        let mut local = cycle.local_block();
        local.push(head);
        cycle.flush([local]);
        let [batch] = &origin.registry().live()[..] else { panic!("one cycle, one batch") };
        let now = || Some(Instant::now());
        for _ in 0..2 {
            let nudges = batch.nudges();
            assert_eq!(batch.wait(now(), nudges), Waited::TimedOut, "nobody has nudged since");
            batch.nudge();
            assert_eq!(batch.wait(None, nudges), Waited::Nudged);
        }
        assert_eq!(pool.run_pending(1), 1);
        assert_eq!(batch.wait(None, 0), Waited::Done, "whatever there was before");
    }
}
