//! The ledger: what cleanups and drop glue report of themselves, from whatever thread they run on.
//!
//! Invariant: nothing here judges. A failed assertion within a cleanup would be caught as its
//! panic; so what happens there is written down, and the oracle, on the program's thread, compares.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sexton::{Cleanup, CleanupPool, CleanupState};

/// The number of a registered cleanup, in the order of registration.
pub(super) type Number = u32;
/// The number of an object, in the order of allocation.
pub(super) type Id = u32;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A cleanup has begun to run.
    Ran(Number),
    /// A cleanup's captures are being dropped, at the end of its run or instead of one.
    Released(Number),
    /// A handle was used to end a cleanup; whether it was this that ended it.
    Tried(How, Number, bool),
    /// A cleanup found its captures changed.
    Corrupt(Number),
    /// A cleanup asked for its own state.
    State(Number, CleanupState),
    /// A cleanup tried to run others of its pool; how many it ran.
    Nested(usize),
    /// A cleanup wants a successor, which may have this number of successors in turn.
    Rearm(u8),
    /// An object's drop glue ran.
    Dropped(Id),
    /// The pool's panic hook was told.
    Told,
}

/// The two ways to end a cleanup through its handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    Stop,
    RunNow,
}

/// A moment, as one clock tells it to all threads: no two are the same, and what happens later has
/// a higher one.
pub(super) type Stamp = u64;

/// What has happened since the oracle last looked.
#[derive(Default)]
pub(super) struct Ledger {
    clock: AtomicU64,
    events: Mutex<Vec<(Stamp, Event)>>,
}

impl Ledger {
    /// This moment.
    pub(super) fn stamp(&self) -> Stamp {
        self.clock.fetch_add(1, SeqCst)
    }

    pub(super) fn write(&self, event: Event) {
        let stamp = self.stamp();
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((stamp, event));
    }

    /// The events, and when each was written down.
    pub(super) fn take(&self) -> Vec<(Stamp, Event)> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ends a cleanup through its handle, if it can, and writes that down.
pub(super) fn attempt(ledger: &Ledger, how: How, number: Number, handle: &Cleanup) -> bool {
    let took = match how {
        // A destructor of the captures that panics does so out of `stop`, which has succeeded then.
        How::Stop => catch_unwind(AssertUnwindSafe(|| handle.stop())).unwrap_or(true),
        How::RunNow => handle.run_now(),
    };
    ledger.write(Event::Tried(how, number, took));
    took
}

/// A panic that calls no hook and prints nothing.
pub(super) fn throw() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// What every cleanup captures: 16 bytes, so that it is kept inline if nothing else is captured.
pub(super) struct Capture {
    pub(super) number: Number,
    pub(super) ledger: Arc<Ledger>,
}

impl Capture {
    pub(super) fn ran(&self) {
        self.ledger.write(Event::Ran(self.number));
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.ledger.write(Event::Released(self.number));
    }
}

/// A capture that panics when it is dropped.
pub(super) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        throw();
    }
}

/// What a cleanup does beside telling that it ran.
pub(super) enum Action {
    Panic,
    Bomb { _capture: Bomb },
    Try(How, Number, Arc<Cleanup>),
    Itself(Arc<OnceLock<Arc<Cleanup>>>),
    Rearm(u8),
    Nest(CleanupPool),
    Linger,
    Visit(Arc<dyn Fn() + Send + Sync>),
}

impl Action {
    pub(super) fn perform(&self, capture: &Capture) {
        let ledger = &*capture.ledger;
        match self {
            Action::Panic => throw(),
            Action::Bomb { .. } => {}
            Action::Try(how, number, handle) => {
                attempt(ledger, *how, *number, handle);
            }
            Action::Itself(handle) => {
                let handle = handle.get().expect("set in the session that registered this");
                ledger.write(Event::State(capture.number, handle.state()));
                attempt(ledger, How::Stop, capture.number, handle);
                attempt(ledger, How::RunNow, capture.number, handle);
            }
            Action::Rearm(left) => ledger.write(Event::Rearm(*left)),
            Action::Nest(pool) => ledger.write(Event::Nested(pool.run_pending(usize::MAX))),
            Action::Linger => (0..YIELDS).for_each(|_| std::thread::yield_now()),
            Action::Visit(visit) => visit(),
        }
    }
}

/// How long a cleanup lingers: long enough, often enough, for a worker to pass a cleanup that its
/// handle runs.
const YIELDS: u32 = 20;

/// A field that reports its drop, and panics in it if it is armed.
pub(super) struct Probe {
    pub(super) id: Id,
    pub(super) ledger: Arc<Ledger>,
    armed: AtomicBool,
}

impl Probe {
    pub(super) fn new(id: Id, ledger: &Arc<Ledger>) -> Self {
        Probe { id, ledger: ledger.clone(), armed: AtomicBool::new(false) }
    }

    pub(super) fn arm(&self) {
        self.armed.store(true, SeqCst);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.ledger.write(Event::Dropped(self.id));
        if self.armed.load(SeqCst) {
            throw();
        }
    }
}
