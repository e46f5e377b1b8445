//! The work of a phase beside open sessions: a thread has it on loan between two stops.
//!
//! The collector lends the work when it resumes the mutators, and recalls it when it has stopped
//! them again. Meanwhile the thread marks, clears or sweeps on. The phase changes only while the
//! work is not on loan.
//!
//! Invariant: the work is in one place: with the collector, waiting here for the thread, or with
//! the thread. A recall takes it back from wherever it is, so none is lost if no thread comes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sexton_cleanup::Description;
use sexton_sync::Ordering::Relaxed;
use sexton_sync::fields::AtomicBool;
use sexton_sync::{Condvar, Mutex, Process, drop_quietly, wait_until};

use crate::collect::clearing::Clearing;
use crate::collect::sweeping::Sweeping;
use crate::collect::until::Until;
use crate::id::HeapId;
use crate::memory::locking::Shared;
use crate::memory::mark_stack::{Marker, Pending};
use crate::safepoint::attached::AttachGuard;
use crate::safepoint::helpers::Spawn;
use crate::session::core::Core;
use crate::sweep::sweeper::or_abort;

/// What is to be done in a phase.
pub(crate) enum Work {
    /// With the objects in the top chunk of the marker's work list.
    Mark(Marker, usize),
    Clear(Clearing),
    Sweep(Sweeping),
}

/// Work, and the heap that it is done for.
pub(crate) struct Loan {
    pub(crate) work: Work,
    pub(crate) core: Arc<Core<Shared>>,
}

/// What comes back of a loan.
pub(crate) struct Returned {
    pub(crate) work: Work,
    /// What trace glue has thrown. The marker is of no use then.
    pub(crate) thrown: Option<Box<dyn Any + Send>>,
    /// How long the thread has worked.
    pub(crate) worked: Duration,
    /// Nothing is left to do.
    pub(crate) is_used_up: bool,
}

/// The thread has not given the work back in time. It will.
#[derive(Debug)]
pub(crate) struct Late;

/// Where the work of one heap is on loan.
pub(crate) struct Background {
    heap: HeapId,
    state: Mutex<State>,
    /// A `fork` may have caught the lock, and has left the thread behind.
    home: Process,
    /// The collector waits here for the work.
    returned: Condvar,
    /// The thread is to give the work back. Relaxed: it hurries the thread, and no more.
    recalled: AtomicBool,
    /// A thread was asked for, and has not come yet. Relaxed: the lock of the state orders it. A
    /// thread that has looked before a loan is not seen as coming after it.
    coming: AtomicBool,
    /// The thread has nothing left to do, and gives the work back. Relaxed: it hurries a stop, and
    /// no more.
    done: AtomicBool,
}

/// A thread that was asked for. When this is dropped it has come, or never will.
struct Coming(Arc<Background>);

#[derive(Default)]
enum State {
    /// There is no loan.
    #[default]
    None,
    /// No thread has come for it yet.
    Offered(Box<Loan>),
    /// The thread calls what is here, when it has given the work back.
    Working(Option<Box<dyn FnOnce() + Send>>),
    Returned(Box<Returned>),
}

/// Objects traced, and roots looked at, between two looks at whether the marker is recalled. A
/// model has a few of them in all.
const OBJECTS: usize = if cfg!(loom) { 1 } else { 256 };

impl Work {
    /// Goes on with it until it is recalled. Tells whether it is used up.
    fn go_on(&mut self, core: &Core<Shared>, until: Until<'_>) -> bool {
        match self {
            Work::Mark(marker, waiting) => mark(marker, waiting, core, until),
            // A panic from here on would leave marks to the next cycle.
            Work::Clear(clearing) => or_abort(|| clearing.clear(core, until)),
            Work::Sweep(sweeping) => or_abort(|| {
                if let Some(unpublished) = sweeping.sweep(core, until, None) {
                    sweeping.publish(unpublished);
                }
                sweeping.is_swept() && sweeping.release(core, until)
            }),
        }
    }
}

/// Marks until nothing is left to trace, or the marker is recalled. Tells whether nothing is left.
fn mark(marker: &mut Marker, waiting: &mut usize, core: &Core<Shared>, until: Until<'_>) -> bool {
    while !until.is_over() {
        let mut pending = Pending { len: *waiting, next: None };
        let is_scanned =
            core.roots().scan(OBJECTS, |object| pending = marker.visit_shared(pending, object));
        pending = marker.drain_beside(pending, OBJECTS);
        *waiting = pending.len;
        if is_scanned && *waiting == 0 && marker.is_used_up() {
            return true;
        }
    }
    false
}

impl Background {
    pub(crate) fn new(heap: HeapId) -> Self {
        Background {
            heap,
            state: Mutex::default(),
            home: Process::current(),
            returned: Condvar::new(),
            recalled: AtomicBool::new(false),
            coming: AtomicBool::new(false),
            done: AtomicBool::new(false),
        }
    }

    /// Lends work to a thread, which is to call [`work`](Self::work).
    pub(crate) fn lend(&self, loan: Loan) {
        self.recalled.store(false, Relaxed);
        self.done.store(false, Relaxed);
        *self.state.lock() = State::Offered(Box::new(loan));
    }

    /// Takes the work back, if it is on loan. Waits for the thread to come to the end of a step,
    /// with a deadline until then.
    ///
    /// In the child of a `fork` the thread is not there, and the work is gone with it.
    pub(crate) fn recall(&self, deadline: Option<Instant>) -> Result<Option<Returned>, Late> {
        self.recalled.store(true, Relaxed);
        let Some(mut state) = self.state.lock_at(self.home) else { return Ok(None) };
        let mut is_late = false;
        loop {
            match std::mem::take(&mut *state) {
                State::None => return Ok(None),
                State::Offered(loan) => {
                    let (work, worked) = (loan.work, Duration::ZERO);
                    return Ok(Some(Returned { work, thrown: None, worked, is_used_up: false }));
                }
                State::Returned(returned) => return Ok(Some(*returned)),
                working @ State::Working(_) => {
                    *state = working;
                    if !self.home.is_current() {
                        return Ok(None);
                    }
                    if is_late {
                        return Err(Late);
                    }
                    is_late = wait_until(&self.returned, &mut state, deadline);
                }
            }
        }
    }

    /// Tells whether the thread has given the work back, with nothing left to do.
    pub(crate) fn is_used_up(&self) -> bool {
        let state = self.state.lock_at(self.home);
        state.is_some_and(|state| matches!(&*state, State::Returned(work) if work.is_used_up))
    }

    /// Waits while the thread works, for so long at most. Tells whether it is still at work then.
    pub(crate) fn wait(&self, most: Duration) -> bool {
        let Some(mut state) = self.state.lock_at(self.home) else { return false };
        let deadline = Instant::now() + most;
        loop {
            let is_on_loan = matches!(*state, State::Offered(_) | State::Working(_));
            if !is_on_loan || !self.home.is_current() {
                return false;
            }
            if wait_until(&self.returned, &mut state, Some(deadline)) {
                // A thread that has not come yet may never do.
                return matches!(*state, State::Working(_));
            }
        }
    }

    /// Tells whether the thread has nothing left to do, and is about to give the work back.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    /// Tells whether a `fork` has left the thread behind, with the work.
    pub(crate) fn is_left_behind(&self) -> bool {
        match self.state.lock_at(self.home) {
            Some(state) => matches!(*state, State::Working(_)) && !self.home.is_current(),
            None => true,
        }
    }

    /// Has the thread call what `end` gives when it has given the work back, which is soon. Tells
    /// whether a thread has the work.
    pub(crate) fn leave(&self, end: impl FnOnce() -> Box<dyn FnOnce() + Send>) -> bool {
        let mut state = self.state.lock();
        let State::Working(after) = &mut *state else { return false };
        *after = Some(end());
        self.recalled.store(true, Relaxed);
        true
    }

    /// Works, until nothing is left to do or the work is recalled. If nothing is left it makes the
    /// next stop due.
    pub(crate) fn work(&self) {
        let mut state = self.state.lock();
        let Loan { mut work, core } = match std::mem::take(&mut *state) {
            State::Offered(loan) => *loan,
            // Recalled before this thread came.
            other => {
                *state = other;
                return;
            }
        };
        *state = State::Working(None);
        drop(state);
        // Trace and drop glue must not wait for this very cycle.
        let here = AttachGuard::helper(self.heap);
        let began = Instant::now();
        let until = Until::recalled(&self.recalled);
        let (mut is_used_up, mut thrown) = (true, None);
        let work_on = || match catch_unwind(AssertUnwindSafe(|| work.go_on(&core, until))) {
            Ok(done) => is_used_up = done,
            Err(payload) => thrown = Some(payload),
        };
        // Nor for cleanups, which it may have queued and not published. A cleanup does not wait.
        core.client().run_as_cleanup(work_on, Description::of::<Work>(None, None));
        if is_used_up {
            self.done.store(true, Relaxed);
            // Before the work is given back, so that what the collector sets then stays.
            core.pacer().set_next_slice(0);
        }
        // And so is this: the heap's end does not wait for it.
        drop(core);
        drop(here);
        let returned = Returned { work, thrown, worked: began.elapsed(), is_used_up };
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut *state, State::Returned(Box::new(returned)));
        drop(state);
        self.returned.notify_all();
        if let State::Working(Some(end)) = before {
            end();
        }
    }

    /// Has a thread do the work. Tells whether one comes. If not, the work stays on offer.
    ///
    /// That may be a thread that came too late for a loan before this one, and so has not come yet.
    /// On a busy machine each loan would ask for one more.
    pub(crate) fn start(self: &Arc<Self>, spawn: &Spawn) -> bool {
        if self.coming.load(Relaxed) {
            return true;
        }
        self.coming.store(true, Relaxed);
        let coming = Coming(self.clone());
        let work = Box::new(move || {
            let background = coming.0.clone();
            // Before it looks for the work: the next loan may count on a thread that is coming.
            drop(coming);
            background.work();
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
