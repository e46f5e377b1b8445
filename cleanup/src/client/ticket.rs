//! Tickets, which wait for batches.
//!
//! A [`Ticket`] is the list of batches that were unfinished when it was taken. So later cycles,
//! cleanups that rearm themselves and other heaps' stalls do not prolong the wait.
//!
//! It does not know blocks or records.

use crate::account::batch::Waited;
use crate::account::registry::BatchAccount;
use crate::inside::in_cleanup;
use crate::pool::help::is_over;
use crate::pool::state::Pool;
use sexton_sync::Arc;
use std::fmt;
use std::time::{Duration, Instant};

/// Waits for the cleanups of one heap that were queued and not ended at one moment.
///
/// See [`Client::ticket`](crate::Client::ticket).
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<Pool>,
    batches: Vec<Arc<BatchAccount>>,
}

impl Ticket {
    pub(crate) fn new(pool: Arc<Pool>, batches: Vec<Arc<BatchAccount>>) -> Self {
        Ticket { pool, batches }
    }

    /// Waits until all of them have ended: run, stopped or discarded.
    ///
    /// A timeout too long for the clock means for ever.
    ///
    /// In a manual pool another thread has to run them meanwhile. If no worker could be started
    /// when the cleanups were queued, this tries again first. If there is still none, the queued
    /// cleanups run on this thread.
    ///
    /// # Errors
    /// - [`WaitError::Timeout`]: the time is up. It has the number of cleanups not ended.
    /// - [`WaitError::FromCleanup`]: this is a cleanup, which could be waiting for itself. At once.
    /// - [`WaitError::Forked`]: the pool is inherited. At once.
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
            self.pool.help_if_no_workers(|| self.is_done() || is_over(deadline));
        };
        for batch in &self.batches {
            loop {
                // Before the look: a waiter that is woken during it has to look once more.
                let wakes = batch.wakes();
                self.pool.notify_workers();
                help();
                match batch.wait(deadline, wakes) {
                    Waited::Done => break,
                    // Before the next look: its thread may not live long enough either. But not for
                    // ever: a look that fails to start a worker wakes the waiters, too.
                    Waited::Woken if !is_over(deadline) => help(),
                    Waited::Woken | Waited::TimedOut => {
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

    /// Tells whether all of them have ended. Does not wait.
    pub fn is_done(&self) -> bool {
        self.batches.iter().all(|batch| batch.is_done())
    }

    /// Counts those that have not ended yet.
    pub fn pending(&self) -> u64 {
        self.batches.iter().map(|batch| batch.pending()).sum()
    }
}

/// Tells why a wait for cleanups ended before they did.
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
    /// This process is the child of a `fork`, and the pool was made before.
    ///
    /// The pool's workers are not in this process.
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
