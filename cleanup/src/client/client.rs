//! A heap as this crate sees it: its account with one pool.
//!
//! It does not know objects: the owner of a chain's head says which object it belongs to.

use crate::account::registrar::Registrar;
use crate::account::registry::{BatchAccount, Registry, RegistryRef};
use crate::client::cycle::Cycle;
use crate::client::ticket::Ticket;
use crate::inside::{CleanupScope, in_cleanup};
use crate::observe::description::Description;
use crate::observe::stats::CleanupStats;
use crate::pool::help::is_over;
use crate::pool::state::Pool;
use sexton_sync::Arc;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Connects a heap to one pool. Cheap to clone; all clones are the same account.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Arc<Pool>,
    registry_ref: Arc<RegistryRef>,
}

impl Client {
    /// Opens an account for a new heap, with a pool of this process.
    ///
    /// Reuses the registry of a former heap of the pool, if there is one.
    pub fn new(pool: &Arc<Pool>) -> Client {
        Client { pool: pool.clone(), registry_ref: RegistryRef::new(pool.records(), pool.totals()) }
    }

    /// Makes the registering side of one mutator.
    pub fn registrar(&self) -> Registrar {
        Registrar::new(&self.registry_ref)
    }

    /// Begins a collection cycle. Allocates nothing; the first cleanup that is queued does.
    pub fn begin_cycle(&self) -> Cycle {
        Cycle::new(self.clone())
    }

    /// Makes a ticket for the cleanups of this heap that are queued and not ended now.
    pub fn ticket(&self) -> Ticket {
        Ticket::new(self.pool.clone(), self.registry().live())
    }

    /// Counts the cleanups queued and not ended now. O(unfinished cycles).
    pub fn backlog(&self) -> u64 {
        self.registry().backlog()
    }

    /// Waits until at most `at_most` cleanups of this heap are queued and not ended.
    ///
    /// Gives how many are, in the end. A timeout too long for the clock means for ever. From inside
    /// a cleanup it does not wait.
    ///
    /// In a pool without workers, manual ones included, it runs cleanups of the pool meanwhile. In
    /// an inherited pool it does not wait.
    pub fn wait_for_backlog(&self, at_most: u64, timeout: Duration) -> u64 {
        if !in_cleanup() && !self.pool.is_inherited() {
            let deadline = Instant::now().checked_add(timeout);
            let is_low = || self.backlog() <= at_most;
            let help = || self.pool.help_without_workers(|| is_low() || is_over(deadline));
            loop {
                self.pool.notify_workers();
                help();
                // Until it is low, or there is no worker left to count on.
                let is_news = || is_low() || self.pool.is_deserted();
                let told = self.registry().backlog_waiters.wait(deadline, is_news);
                if !told || is_low() || is_over(deadline) {
                    break;
                }
                // Before the next look: its thread may not live long enough either.
                help();
            }
        }
        self.backlog()
    }

    /// Runs cleanups of the pool here until at most `at_most` of this heap are queued.
    ///
    /// Those of other heaps are included. It ends earlier when there is none left to take. Gives
    /// how many are queued in the end. From inside a cleanup, and in an inherited pool, it runs
    /// none.
    pub fn relieve(&self, at_most: u64) -> u64 {
        if self.pool.is_inherited() {
            return self.backlog();
        }
        loop {
            let backlog = self.backlog();
            let surplus = usize::try_from(backlog.saturating_sub(at_most)).unwrap_or(usize::MAX);
            if surplus == 0 || self.pool.run_here(surplus.min(PORTION)) == 0 {
                return backlog;
            }
        }
    }

    /// Runs a closure here as one of this heap's cleanups, though it was never registered.
    ///
    /// To the closure it is one, and a panic is given to the hook. Whether it returned. Counted
    /// nowhere.
    pub fn run_as_cleanup(&self, closure: impl FnOnce(), description: Description) -> bool {
        let scope = CleanupScope::enter();
        let outcome = catch_unwind(AssertUnwindSafe(closure));
        let returned = outcome.is_ok();
        if let Err(payload) = outcome {
            self.pool.totals().report(payload, description);
        }
        drop(scope);
        returned
    }

    /// Reads the counters. Never waits for a cleanup or a cycle; O(unfinished cycles).
    pub fn stats(&self) -> CleanupStats {
        self.registry().stats()
    }

    /// Drops the captures of what is queued and not running, instead of running it.
    ///
    /// In a manual pool this happens here and now; in a pool with workers, when one of them comes
    /// to it. Cleanups that are queued later run as usual. O(blocks in the full list) in a manual
    /// pool.
    pub fn discard_queued(&self) {
        for batch in self.registry().live() {
            batch.discard();
        }
        self.pool.help_to_discard();
    }

    /// Counts the records of all heaps of the pool, free ones included. O(1).
    ///
    /// A record takes 41 bytes, and 8 more where cleanups are described. Records that a former pool
    /// has left to this one are among them. No record is ever given back to the system.
    pub fn records(&self) -> usize {
        self.registry().storage.made()
    }

    /// Gives the pool that runs this heap's cleanups.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn registry(&self) -> &'static Registry {
        self.registry_ref.registry()
    }

    pub(crate) fn open_batch(&self, cycle: u64) -> Arc<BatchAccount> {
        let pool = &self.pool;
        self.registry().open_batch(cycle, &self.registry_ref, pool.totals(), pool.max_workers())
    }
}

/// Cleanups that a relieving thread runs between two looks at the backlog.
const PORTION: usize = 64;
