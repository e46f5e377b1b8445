//! Back-pressure: what a heap does when its cleanups queue up faster than they run.
//!
//! Invariant: it is applied after a collection, when the thread has no session open and has nothing
//! locked. A collection that has ended within a session has it applied when one ends. It is never
//! applied inside a cleanup. So whatever it runs may do whatever a cleanup may do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sexton_cleanup::{Client, in_cleanup};

use crate::pool::CleanupPool;

/// What a heap does after a collection that leaves more cleanups waiting than its high-water mark.
///
/// It is never applied in the child of a `fork` to a heap made before: nothing is queued there.
///
/// A collection that has ended within a session counts as well. The first session that ends then,
/// of any mutator, has the policy applied on its thread.
///
/// Registered cleanups take memory before they are queued, too. How many there are at most is a
/// matter of when the heap collects. What waits is bounded by the mark, one collection's cleanups,
/// and the blocks that are being run.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum BackPressure {
    /// Nothing: the backlog may grow without bound.
    ///
    /// This is the default, because each of the others makes a thread that collects wait for
    /// cleanups, or run them. Such a thread must not hold a lock that the cleanups take.
    #[default]
    None,
    /// The collecting thread runs cleanups until the backlog is down to the mark.
    ///
    /// They include those of other heaps of its pool. It stops earlier if nothing is left to take.
    Help,
    /// The collecting thread waits until the backlog is down to the mark, for this long at most.
    ///
    /// If the pool has no worker, the thread runs cleanups itself, those of other heaps too. That
    /// is so in a manual pool, with a bound of 0, and where no thread could be started. It then may
    /// overrun the time by as long as some cleanups take. It waits only for what other threads have
    /// in hand.
    Wait(Duration),
    /// The collecting thread calls this.
    ///
    /// A hook that is to bound the backlog has to run cleanups, to wait for them, or to see to it
    /// that fewer come.
    ///
    /// A panic in it comes out of `Heap::collect`, or of the `Heap::mutate` whose end collected.
    /// What that session returned is then lost.
    Call(Arc<BackPressureHook>),
}

/// A function that is told that a heap's backlog is above its mark.
pub type BackPressureHook = dyn Fn(&Backlog<'_>) + Send + Sync;

impl BackPressure {
    /// Makes a [`BackPressure::Call`] with this function.
    pub fn call(hook: impl Fn(&Backlog<'_>) + Send + Sync + 'static) -> Self {
        BackPressure::Call(Arc::new(hook))
    }
}

impl fmt::Debug for BackPressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackPressure::None => f.write_str("None"),
            BackPressure::Help => f.write_str("Help"),
            BackPressure::Wait(timeout) => f.debug_tuple("Wait").field(timeout).finish(),
            BackPressure::Call(_) => f.write_str("Call(..)"),
        }
    }
}

/// A heap's backlog, as a [`BackPressure::Call`] sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Backlog<'a> {
    /// Cleanups of the heap that are queued and have not ended.
    pub cleanups: u64,
    /// The heap's high-water mark.
    pub mark: u64,
    /// The pool that is to run them.
    pub pool: &'a CleanupPool,
}

/// A mark and what to do above it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HighWater {
    pub(crate) mark: u64,
    pub(crate) policy: BackPressure,
}

impl HighWater {
    /// Applies the policy. Called after a collection, between sessions.
    pub(crate) fn apply(&self, client: &Client, pool: &CleanupPool) {
        if matches!(self.policy, BackPressure::None) || in_cleanup() || client.pool().is_inherited()
        {
            return;
        }
        let cleanups = client.backlog();
        if cleanups <= self.mark {
            return;
        }
        match &self.policy {
            BackPressure::None => {}
            BackPressure::Help => {
                client.relieve(self.mark);
            }
            BackPressure::Wait(timeout) => {
                client.wait_for_backlog(self.mark, *timeout);
            }
            BackPressure::Call(hook) => hook(&Backlog { cleanups, mark: self.mark, pool }),
        }
    }
}
