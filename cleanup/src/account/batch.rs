//! Batches: the cleanups that one collection cycle queued.
//!
//! Invariant: `remaining` is zero exactly when the cycle has stopped adding and every cleanup of it
//! has ended.
//!
//! It does not know its registry, nor its pool; see
//! [`BatchAccount`](crate::account::registry::BatchAccount).

use crate::account::backlog::BacklogWaiters;
use crate::account::counters::Counters;
use sexton_sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering, wait_until};
use std::time::Instant;

/// The hold that the cycle and each of its sweepers add to `remaining` while they may still add
/// cleanups. Larger than any number of cleanups, so that ends counted before their publication
/// cannot bring it to zero.
pub(super) const HOLD: u64 = 1 << 40;

/// The cleanups that one cycle queued.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The byte that sweepers write into the marks of this batch's records. Unique among the
    /// unfinished batches of its registry.
    byte: u8,
    /// Holds, and cleanups published and not ended. Added to by the cycle's sweepers; subtracted
    /// from by runners, a block at a time, and by handles.
    ///
    /// Subtractions are AcqRel: Release, so that who brings it to zero sees what each ended cleanup
    /// did, and Acquire, so that it does.
    remaining: AtomicU64,
    pub(crate) counters: Counters,
    /// Drop the captures instead of running. Set at most once. Relaxed: a runner that sees it late
    /// has run one more, which `discard_queued` allows.
    discard: AtomicBool,
    /// The state that waiters look at.
    told: Mutex<Told>,
    finished: Condvar,
    /// Where threads wait for the backlog of its heap to come down.
    backlog_waiters: &'static BacklogWaiters,
}

#[derive(Debug, Default)]
struct Told {
    /// It has finished.
    done: bool,
    /// Changes each time that the waiters are woken.
    wakes: u64,
}

/// How a wait for a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Done,
    TimedOut,
    /// There may be no worker, and one may be had.
    Woken,
}

impl Batch {
    /// Makes a batch with one hold.
    pub(crate) fn new(
        workers: usize,
        byte: u8,
        backlog_waiters: &'static BacklogWaiters,
    ) -> Arc<Self> {
        Arc::new(Batch {
            byte,
            remaining: AtomicU64::new(HOLD),
            counters: Counters::new(workers),
            discard: AtomicBool::new(false),
            told: Mutex::new(Told::default()),
            finished: Condvar::new(),
            backlog_waiters,
        })
    }

    pub(crate) fn byte(&self) -> u8 {
        self.byte
    }

    // ---- the sweepers' side
    // ------------------------------------------------------------------------

    /// Keeps the batch unfinished; false if it has finished already.
    pub(crate) fn hold(&self) -> bool {
        // Relaxed: holders are ordered by the lock of the batch table; the number is all that
        // matters here.
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

    /// Counts cleanups that are about to be published. Called by the owner of a hold.
    pub(super) fn add(&self, cleanups: u64) {
        self.counters.queue(cleanups);
        // Relaxed: the publication that follows is what makes the cleanups reachable.
        self.remaining.fetch_add(cleanups, Ordering::Relaxed);
    }

    // ---- the ends
    // ----------------------------------------------------------------------------------

    /// Subtracts `n` cleanups that have ended. Whether nothing is left.
    pub(super) fn subtract(&self, n: u64) -> bool {
        self.remaining.fetch_sub(n, Ordering::AcqRel) == n
    }

    /// Tells those who wait that nothing is left.
    pub(super) fn tell_done(&self) {
        self.told.lock().done = true;
        self.finished.notify_all();
    }

    // ---- what others ask
    // ---------------------------------------------------------------------------

    pub(crate) fn is_done(&self) -> bool {
        // Acquire: pairs with the Release in `subtract`; a thread that sees the end sees what the
        // cleanups did.
        self.remaining.load(Ordering::Acquire) == 0
    }

    /// Cleanups queued and not ended. See
    /// [`Reading::backlog`](crate::account::counters::Reading::backlog).
    pub(crate) fn pending(&self) -> u64 {
        self.counters.read().backlog()
    }

    pub(crate) fn discard(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_discarded(&self) -> bool {
        self.discard.load(Ordering::Relaxed)
    }

    /// Waits for the end, until the deadline, or until it is woken more often than `wakes` says.
    pub(crate) fn wait(&self, deadline: Option<Instant>, wakes: u64) -> Waited {
        let mut told = self.told.lock();
        loop {
            if told.done {
                return Waited::Done;
            }
            if told.wakes != wakes {
                return Waited::Woken;
            }
            if wait_until(&self.finished, &mut told, deadline) && !told.done {
                return Waited::TimedOut;
            }
        }
    }

    /// Tells how often the waiters have been woken.
    pub(crate) fn wakes(&self) -> u64 {
        self.told.lock().wakes
    }

    /// Has those who wait, for the batch or for its heap's backlog, look at the workers again.
    pub(crate) fn wake_waiters(&self) {
        self.told.lock().wakes += 1;
        self.finished.notify_all();
        self.backlog_waiters.tell();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::{Client, Pool, PoolConfig};

    #[test]
    fn a_wait_ends_at_a_wake_that_is_new_to_it_and_sleeps_through_none() {
        let pool = Pool::new(PoolConfig::default(), None);
        let client = Client::new(&pool);
        let cycle = client.begin_cycle();
        let (head, _) = client.registrar().register(None, || {});
        let mut local = cycle.local_block();
        local.push(head);
        cycle.flush([local]);
        let [batch] = &client.registry().live()[..] else { panic!("one cycle, one batch") };
        let now = || Some(Instant::now());
        for _ in 0..2 {
            let wakes = batch.wakes();
            assert_eq!(batch.wait(now(), wakes), Waited::TimedOut, "not woken since");
            batch.wake_waiters();
            assert_eq!(batch.wait(None, wakes), Waited::Woken);
        }
        assert_eq!(pool.run_pending(1), 1);
        assert_eq!(batch.wait(None, 0), Waited::Done, "whatever there was before");
    }
}
