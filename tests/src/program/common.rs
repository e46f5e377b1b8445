//! What all threads of a program share.
//!
//! Invariant: nothing here is locked while a thread waits to open a session. So a thread that has
//! one open may wait for it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::cleanups::Handle;
use super::journal::{Journal, RootNumber};
use super::ledger::{Id, Ledger, Number};
use super::tally::modulo;

pub(super) struct Common {
    pub(super) ledger: Arc<Ledger>,
    /// Whether another thread may make a step instead of the cycle that a session's end is due.
    pub(super) others_step: bool,
    ids: AtomicU32,
    numbers: AtomicU32,
    roots: AtomicU32,
    /// Of the cleanups of all threads.
    pub(super) handles: Mutex<Vec<Handle>>,
    /// What calls of `run_pending` said they ran.
    pub(super) pool_ran: AtomicU64,
    /// Of threads that have ended, and of cleanups.
    pub(super) journals: Mutex<Vec<Journal>>,
    failed: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// How a cleanup visits the heap, if any thread may.
    pub(super) visit: OnceLock<Arc<dyn Fn() + Send + Sync>>,
}

impl Common {
    pub(super) fn new(others_step: bool) -> Self {
        Common {
            ledger: Arc::default(),
            others_step,
            ids: AtomicU32::new(0),
            numbers: AtomicU32::new(0),
            roots: AtomicU32::new(0),
            handles: Mutex::default(),
            pool_ran: AtomicU64::new(0),
            journals: Mutex::default(),
            failed: AtomicBool::new(false),
            failures: Mutex::default(),
            visit: OnceLock::new(),
        }
    }

    pub(super) fn next_id(&self) -> Id {
        self.ids.fetch_add(1, SeqCst)
    }

    pub(super) fn next_number(&self) -> Number {
        self.numbers.fetch_add(1, SeqCst)
    }

    pub(super) fn next_root(&self) -> RootNumber {
        self.roots.fetch_add(1, SeqCst)
    }

    /// One of the handles.
    pub(super) fn handle(&self, at: u8) -> Option<Handle> {
        let handles = self.handles.lock();
        Some(handles[modulo(at, handles.len())?].clone())
    }

    /// Heap and oracle disagree.
    pub(super) fn fail(&self, message: String) {
        self.failures.lock().push(message);
        self.failed.store(true, SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(SeqCst)
    }

    /// What they disagree in, first of all.
    pub(super) fn failure(&self) -> Option<String> {
        self.failures.lock().first().cloned()
    }

    /// Cleanups run by a call of `run_pending`.
    pub(super) fn has_run(&self, ran: usize) {
        self.pool_ran.fetch_add(ran as u64, SeqCst);
    }
}
