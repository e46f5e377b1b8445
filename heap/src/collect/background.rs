//! Marking beside open sessions: a thread that has the marker on loan between two stops.
//!
//! The collector lends the marker when it resumes the mutators, and recalls it when it has stopped
//! them again. Meanwhile the thread marks on. What mutators shade stays in their contexts until the
//! next stop.
//!
//! Invariant: the marker is in one place: with the collector, waiting here for the thread, or with
//! the thread. A recall takes it back from wherever it is, so none is lost if no thread comes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sexton_sync::Ordering::Relaxed;
use sexton_sync::fields::{AtomicBool, AtomicU64};
use sexton_sync::{Condvar, Mutex, Process, drop_quietly};

use crate::id::HeapId;
use crate::mark::root_table::RootTable;
use crate::memory::mark_stack::{Marker, Pending};
use crate::safepoint::attached::AttachGuard;
use crate::safepoint::helpers::Spawn;

/// A marker, and what it has waiting.
pub(crate) struct Loan {
    pub(crate) marker: Marker,
    /// Objects in the top chunk of its work list.
    pub(crate) waiting: usize,
}

/// What comes back of a loan.
pub(crate) struct Returned {
    pub(crate) loan: Loan,
    /// What trace glue has thrown. The marker is of no use then.
    pub(crate) thrown: Option<Box<dyn Any + Send>>,
    /// How long the thread has marked.
    pub(crate) worked: Duration,
}

/// Where the marker of one heap is on loan.
pub(crate) struct Background {
    heap: HeapId,
    state: Mutex<State>,
    /// A `fork` may have caught the lock, and has left the thread behind.
    home: Process,
    /// The collector waits here for the marker.
    returned: Condvar,
    /// The thread is to give the marker back. Relaxed: it hurries the thread, and no more.
    recalled: AtomicBool,
    /// A thread was asked for, and has not come yet. Relaxed: the lock of the state orders it. A
    /// thread that has looked before a loan is not seen as coming after it.
    coming: AtomicBool,
}

/// A thread that was asked for. When this is dropped it has come, or never will.
struct Coming(Arc<Background>);

#[derive(Default)]
enum State {
    /// There is no loan.
    #[default]
    None,
    /// No thread has come for it yet.
    Offered(Loan),
    Working,
    Returned(Returned),
}

/// Objects traced, and roots looked at, between two looks at whether the marker is recalled. A
/// model has a few of them in all.
const OBJECTS: usize = if cfg!(loom) { 1 } else { 256 };

impl Background {
    pub(crate) fn new(heap: HeapId) -> Self {
        Background {
            heap,
            state: Mutex::default(),
            home: Process::current(),
            returned: Condvar::new(),
            recalled: AtomicBool::new(false),
            coming: AtomicBool::new(false),
        }
    }

    /// Lends the marker to a thread, which is to call [`work`](Self::work).
    pub(crate) fn lend(&self, loan: Loan) {
        self.recalled.store(false, Relaxed);
        *self.state.lock() = State::Offered(loan);
    }

    /// Takes the marker back, if it is on loan. Waits for the thread to come to the end of a step.
    ///
    /// In the child of a `fork` the thread is not there, and the marker is gone with it.
    pub(crate) fn recall(&self) -> Option<Returned> {
        self.recalled.store(true, Relaxed);
        let mut state = self.state.lock_at(self.home)?;
        loop {
            match std::mem::take(&mut *state) {
                State::None => return None,
                State::Offered(loan) => {
                    return Some(Returned { loan, thrown: None, worked: Duration::ZERO });
                }
                State::Returned(returned) => return Some(returned),
                State::Working if !self.home.is_current() => return None,
                State::Working => {
                    *state = State::Working;
                    self.returned.wait(&mut state);
                }
            }
        }
    }

    /// Marks, until nothing is left to trace or the marker is recalled. It sets `due` to 0 if
    /// nothing is left.
    pub(crate) fn work(&self, roots: &RootTable, due: &AtomicU64) {
        let mut state = self.state.lock();
        let loan = match std::mem::take(&mut *state) {
            State::Offered(loan) => loan,
            // Recalled before this thread came.
            other => {
                *state = other;
                return;
            }
        };
        *state = State::Working;
        drop(state);
        let Loan { mut marker, mut waiting } = loan;
        // Trace glue must not wait for this very cycle.
        let _here = AttachGuard::helper(self.heap);
        let began = Instant::now();
        let marked = catch_unwind(AssertUnwindSafe(|| {
            let mut is_over = false;
            while !is_over && !self.recalled.load(Relaxed) {
                let mut pending = Pending { len: waiting, next: None };
                let is_scanned =
                    roots.scan(OBJECTS, |object| pending = marker.visit_shared(pending, object));
                pending = marker.drain_beside(pending, OBJECTS);
                waiting = pending.len;
                is_over = is_scanned && waiting == 0 && marker.is_used_up();
            }
            is_over
        }));
        let (is_over, thrown) = match marked {
            Ok(is_over) => (is_over, None),
            Err(payload) => (true, Some(payload)),
        };
        if is_over {
            // Relaxed: the session that sees it takes the lock. Before the marker is given back, so
            // that what the collector sets then stays.
            due.store(0, Relaxed);
        }
        let loan = Loan { marker, waiting };
        *self.state.lock() = State::Returned(Returned { loan, thrown, worked: began.elapsed() });
        self.returned.notify_all();
    }

    /// Has a thread do the work. Tells whether one comes. If not, the marker stays on offer.
    ///
    /// That may be a thread that came too late for a loan before this one, and so has not come yet.
    /// On a busy machine each loan would ask for one more.
    pub(crate) fn start(
        self: &Arc<Self>,
        roots: &Arc<RootTable>,
        due: &Arc<AtomicU64>,
        spawn: &Spawn,
    ) -> bool {
        if self.coming.load(Relaxed) {
            return true;
        }
        self.coming.store(true, Relaxed);
        let (coming, roots, due) = (Coming(self.clone()), roots.clone(), due.clone());
        let work = Box::new(move || {
            let background = coming.0.clone();
            // Before it looks for the marker: the next loan may count on a thread that is coming.
            drop(coming);
            background.work(&roots, &due);
        });
        // The spawner is the user's.
        match catch_unwind(AssertUnwindSafe(|| spawn(0, work))) {
            Ok(started) => started.is_ok(),
            Err(payload) => {
                drop_quietly(payload);
                false
            }
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.coming.store(false, Relaxed);
    }
}
