//! What all threads of a program share.
//!
//! Invariant: nothing here is locked while a thread waits to open a session. So a thread that has
//! one open may wait for it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use parking_lot::Mutex;
use sexton::{CleanupPool, Heap, Shared};

use super::journal::{Journal, RootNumber};
use super::payload::{AnySharedRoot, World};
use super::session;
use crate::program::cleanups::Handle;
use crate::program::ledger::{Id, Ledger, Number};
use crate::program::ops::Setup;
use crate::program::tally::modulo;

pub(super) type SharedHeap = Heap<World<'static>, Shared>;

/// Roots that any thread may use. Beside [`Common`], which cleanups own: they cannot own these.
#[derive(Default)]
pub(super) struct SharedRoots<'h> {
    /// Held while a change of one of them is written down.
    pub(super) linked: Mutex<Vec<(RootNumber, AnySharedRoot<'h>)>>,
    /// Each of an object that nothing else keeps.
    pub(super) islands: Mutex<Vec<(RootNumber, AnySharedRoot<'h>)>>,
}

pub(super) struct Common {
    pub(super) ledger: Arc<Ledger>,
    pub(super) pool: CleanupPool,
    pub(super) setup: Setup,
    ids: AtomicU32,
    numbers: AtomicU32,
    roots: AtomicU32,
    /// Of the cleanups of all threads.
    pub(super) handles: Mutex<Vec<Handle>>,
    /// Cycles that were asked for.
    pub(super) collects: AtomicU64,
    /// What calls of `run_pending` said they ran.
    pub(super) pool_ran: AtomicU64,
    /// Of threads that have ended, and of cleanups.
    pub(super) journals: Mutex<Vec<Journal>>,
    failed: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// For the cleanups, which must not keep it.
    heap: OnceLock<Weak<SharedHeap>>,
}

impl Common {
    pub(super) fn new(ledger: Arc<Ledger>, pool: CleanupPool, setup: Setup) -> Self {
        Common {
            ledger,
            pool,
            setup,
            // The first is the root's.
            ids: AtomicU32::new(1),
            numbers: AtomicU32::new(0),
            roots: AtomicU32::new(0),
            handles: Mutex::default(),
            collects: AtomicU64::new(0),
            pool_ran: AtomicU64::new(0),
            journals: Mutex::default(),
            failed: AtomicBool::new(false),
            failures: Mutex::default(),
            heap: OnceLock::new(),
        }
    }

    /// Cleanups may visit the heap from now on.
    pub(super) fn open(&self, heap: &Arc<SharedHeap>) {
        self.heap.set(Arc::downgrade(heap)).expect("a program has one heap");
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

    /// What a cleanup does that visits the heap: it attaches a mutator of its own and puts a node
    /// onto the stack; unless the thread has a mutator, or is in the middle of a cycle.
    pub(super) fn visit(self: &Arc<Self>) {
        let Some(_here) = Here::enter() else { return };
        let Some(heap) = self.heap.get().and_then(Weak::upgrade) else { return };
        let mut journal = Journal { by: (usize::MAX, 0), ..Journal::default() };
        let mut mutator = heap.attach();
        session::within(&mut mutator, &heap, self, &mut journal, 0, 0, |s| {
            s.push_node();
            s.log();
        });
        drop(mutator);
        self.journals.lock().push(journal);
    }
}

/// The current thread has a mutator of the program's heap, or had better not attach one.
pub(super) struct Here(());

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

impl Here {
    /// Takes the place, if it is free.
    pub(super) fn enter() -> Option<Here> {
        let sweeps = thread::current().name().is_some_and(|name| name.starts_with("sexton-gc-"));
        (!sweeps && !HERE.replace(true)).then(|| Here(()))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        HERE.set(false);
    }
}
