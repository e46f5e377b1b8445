//! A mutator of a `Shared` heap: one thread's way to open sessions, and to collect.
//!
//! Invariant: a mutator stays on its thread. Its context is used within its sessions only, or by
//! the thread that has stopped all mutators.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use sexton_sync::drop_quietly;

use crate::collect::heap::RawHeap;
use crate::collect::until::Until;
use crate::collect::verify::VerifyError;
use crate::memory::locking::Shared;
use crate::object::root::{Root, SharedRoot};
use crate::object::trace::Branded;
use crate::policy::config::SlowSession;
use crate::policy::report::{GcReport, Progress};
use crate::safepoint::attached::{AlreadyAttached, AttachGuard};
use crate::safepoint::handshake::{Handshake, MutatorState, SlowSessionPolicy, StopGuard};
use crate::session::context::Context;
use crate::session::core::Core;
use crate::session::mutation::Mutation;

/// One thread's mutator of a heap.
///
/// Dropping it detaches the thread; its spans are there for others then.
///
/// The mechanism without the policy: the facade's `Mutator` wraps it.
pub struct RawMutator<'h, R: Branded> {
    pub(crate) heap: &'h RawHeap<R, Shared>,
    state: Arc<MutatorState<Context<Shared>>>,
    /// Last, so that the thread attaches again only when this mutator is gone. Keeps it on its
    /// thread.
    _here: AttachGuard,
}

impl<R: Branded> RawHeap<R, Shared> {
    /// Makes a mutator for this thread.
    ///
    /// # Errors
    ///
    /// If the thread has one, or is collecting the heap.
    ///
    /// # Panics
    ///
    /// If the heap was made before a `fork`, in another process.
    pub fn attach(&self) -> Result<RawMutator<'_, R>, AlreadyAttached> {
        self.assert_not_inherited();
        let here = AttachGuard::new(self.id())?;
        let state = self.handshake().attach(Context::new(self.core.client()));
        self.core.count_mutators();
        Ok(RawMutator { heap: self, state, _here: here })
    }

    /// Makes a root for other threads of one that this thread has. See the facade's `share`.
    ///
    /// # Panics
    ///
    /// If the root belongs to another heap; the message names both.
    #[track_caller]
    pub fn share<Q: Branded>(&self, root: &Root<Q>) -> SharedRoot<'_, Q> {
        self.assert_not_inherited();
        let shared = SharedRoot::of(root, self.core.roots(), Location::caller());
        shared.unwrap_or_else(|| panic!("a root of {} was shared in {}", root.heap_id(), self.id()))
    }

    fn handshake(&self) -> &Handshake<Context<Shared>> {
        self.core.mutators()
    }

    /// Panics if the heap is inherited from before a `fork`. A system call.
    ///
    /// Other threads may have a session of such a heap open for ever, and hold its locks.
    fn assert_not_inherited(&self) {
        assert!(
            !self.core.client().pool().is_inherited(),
            "{} was made before a `fork`, and the threads that used it are not in this process; \
             valid is to make a `Shared` heap after the `fork`, or to `exec`",
            self.id()
        );
    }
}

impl<R: Branded> RawMutator<'_, R> {
    /// Opens a session: calls `f` with the session and the root.
    ///
    /// If the session has made a cycle due, or one has ended within a session, it gives a [`Due`],
    /// for [`collect_if_due`](Self::collect_if_due).
    #[inline]
    pub fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, Shared>, &'gc R::At<'gc>) -> T,
    ) -> (T, Option<Due>) {
        let (heap, context) = (self.heap, self.state.context());
        let session = heap.handshake().enter(&self.state);
        let result = heap.session(context, f);
        // Within the session: it looks into the context.
        let is_due = heap.core.is_end_due(context);
        let due = is_due.then(|| Due::of(&heap.core, context));
        drop(session);
        (result, due)
    }

    /// Runs one full cycle, even if another mutator has just run one.
    ///
    /// # Panics
    ///
    /// If a hand-written `Trace` panics: then nothing is swept, and the heap is as before. In zeal
    /// mode, if the heap fails its verification. If the heap was made before a `fork`, in another
    /// process.
    pub fn collect(&mut self) -> GcReport {
        let stopped = self.stop();
        self.run_cycle(&stopped)
    }

    /// Runs the cycle that is due, or a slice of it, unless that has been done since.
    ///
    /// Tells whether a cycle has ended: here, or within a session since this was asked last.
    #[cold]
    #[inline(never)]
    pub fn collect_if_due(&mut self, due: Due) -> bool {
        self.heap.assert_not_inherited();
        let ends = due.collects && self.advance(due);
        self.heap.core.take_end() | ends
    }

    fn advance(&self, due: Due) -> bool {
        let RawHeap { core, collector, .. } = self.heap;
        if collector.end_swept(core).is_some() {
            return true;
        }
        if collector.wait_beside(core) {
            return false;
        }
        let parks = collector.goes_on_within_sessions(core);
        let stopped = self.stop_unless(parks, || core.steps() != due.after);
        // A session that was still open may have ended the cycle meanwhile.
        let stopped = stopped.filter(|_| core.steps() == due.after);
        stopped.is_some_and(|guard| self.heap.advance(guard.stopped, &guard).is_some())
    }

    /// Gets on with a cycle for about `budget`; see the facade's `step`.
    ///
    /// # Panics
    ///
    /// As [`collect`](Self::collect).
    pub fn step(&mut self, budget: Duration) -> Progress {
        let stopped = self.stop();
        let ended = self.heap.run(stopped.stopped, Until::after(budget), &stopped);
        ended.map_or(Progress::Working, Progress::Finished)
    }

    /// Gives all memory back that holds no object; see the facade's `trim`.
    pub fn trim(&mut self) -> u64 {
        let _stopped = self.stop();
        self.heap.trim_stopped()
    }

    /// Runs one full cycle if an object has been refused since the last one. Tells whether it did.
    pub fn collect_if_refused(&mut self) -> bool {
        let stopped = self.stop_unless(false, || !self.heap.has_refused());
        stopped.inspect(|stopped| _ = self.run_cycle(stopped)).is_some()
    }

    fn run_cycle(&self, stopped: &StopGuard<'_, Context<Shared>>) -> GcReport {
        self.heap.cycle(stopped.stopped, stopped)
    }

    /// Stops the mutators, with no session open.
    fn stop(&self) -> StopGuard<'_, Context<Shared>> {
        self.stop_unless(false, || false).expect("nothing was said against it")
    }

    /// Stops the mutators, maybe with sessions parked, unless `unless` says something against it.
    fn stop_unless(
        &self,
        parks: bool,
        unless: impl FnOnce() -> bool,
    ) -> Option<StopGuard<'_, Context<Shared>>> {
        self.heap.assert_not_inherited();
        let (after, hook) = &self.heap.slow_session;
        let report = |thread: &Thread, waited: Duration| {
            let session = SlowSession {
                heap: self.heap.id(),
                thread: thread.id(),
                thread_name: thread.name().map(str::to_owned),
                waited,
            };
            // A hook that panics must not leave the mutators stopped, nor its panic become the
            // collection's.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| hook(&session))) {
                drop_quietly(payload);
            }
        };
        let policy = SlowSessionPolicy { after: *after, report: &report };
        self.heap.handshake().stop(parks, unless, Some(policy))
    }

    /// Tells whether another mutator waits to collect, so that the next session would wait.
    pub fn gc_pending(&self) -> bool {
        self.heap.handshake().is_stopping()
    }

    /// Stops the other mutators, and compares all bookkeeping with what it finds the slow way.
    ///
    /// For tests; O(heap).
    ///
    /// # Errors
    ///
    /// The first inconsistency found.
    pub fn verify(&mut self) -> Result<(), VerifyError> {
        let _stopped = self.stop();
        self.heap.verify_stopped()
    }
}

impl<R: Branded> Drop for RawMutator<'_, R> {
    fn drop(&mut self) {
        let core = &self.heap.core;
        if core.client().pool().is_inherited() {
            // Its locks may be held for ever. No thread attaches or collects any more, so no thread
            // needs what it had at hand.
            return;
        }
        self.heap.handshake().detach(&self.state, |context| {
            core.retire_context(context);
            self.heap.collector.inherit(&mut context.shaded().borrow_mut());
        });
        core.count_mutators();
    }
}

/// Something is to be done at a session's end.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// As many cycles, and slices, had been run when that was found.
    pub(crate) after: u64,
    /// A cycle is due, or a slice of one.
    pub(crate) collects: bool,
}

impl Due {
    #[cold]
    #[inline(never)]
    fn of(core: &Core<Shared>, context: &Context<Shared>) -> Self {
        Due { after: core.steps(), collects: core.collection_due(context) }
    }
}
