//! Totals: the counters of a pool over all its heaps, and its unfinished batches.
//!
//! Invariant: each unfinished batch is listed, the oldest first.

use crate::account::batch::Batch;
use crate::account::counters::Counters;
use crate::observe::description::Description;
use crate::observe::hooks::Hooks;
use sexton_sync::{Arc, AtomicU64, Mutex, Ordering, Weak, drop_quietly};
use std::any::Any;
use std::fmt;
use std::time::Instant;

/// The counters of a pool, and the hook it reports to. Shared by the pool, its batches and the
/// registries of its heaps, because a handle may end a queued cleanup without ever seeing the pool.
pub(crate) struct Totals {
    pub(crate) counters: Counters,
    /// Each unfinished batch, the oldest first.
    waiting: Mutex<Vec<Waiting>>,
    next: AtomicU64,
    pub(crate) hooks: Hooks,
}

/// An unfinished batch: its number, its start, and itself, for those who wait for it.
struct Waiting {
    number: u64,
    start: Instant,
    batch: Weak<Batch>,
}

impl Totals {
    pub(crate) fn new(workers: usize, hooks: Hooks) -> Arc<Self> {
        Arc::new(Totals {
            counters: Counters::new(workers),
            waiting: Mutex::new(Vec::new()),
            next: AtomicU64::new(0),
            hooks,
        })
    }

    /// Lists a batch that begins. Gives its number.
    pub(crate) fn batch_begins(&self, start: Instant, batch: &Arc<Batch>) -> u64 {
        let mut waiting = self.waiting.lock();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        waiting.push(Waiting { number, start, batch: Arc::downgrade(batch) });
        number
    }

    pub(crate) fn batch_ends(&self, number: u64) {
        self.waiting.lock().retain(|waiting| waiting.number != number);
    }

    /// Has every thread that waits for a batch look at the workers again.
    pub(crate) fn wake_waiters(&self) {
        // Unlocked: a batch has locks of its own.
        let batches: Vec<_> =
            self.waiting.lock().iter().filter_map(|waiting| waiting.batch.upgrade()).collect();
        batches.iter().for_each(|batch| batch.wake_waiters());
    }

    /// Tells when the oldest unfinished batch began.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.waiting.lock().first().map(|waiting| waiting.start)
    }

    /// Tells the hook about a panic and drops what was thrown. Does not unwind.
    #[cold]
    pub(crate) fn report(&self, payload: Box<dyn Any + Send>, cleanup: Description) {
        self.hooks.panicked(&*payload, cleanup);
        drop_quietly(payload);
    }
}

impl fmt::Debug for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totals").field("counters", &self.counters).finish_non_exhaustive()
    }
}
