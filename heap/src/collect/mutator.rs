//! A mutator of a `Shared` heap: one thread's way to open sessions, and to collect.
//!
//! Invariant: a mutator stays on its thread. Its context is used within its sessions only, or by
//! the thread that has stopped all mutators.

use std::marker::PhantomData;
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
use crate::session::mode::Mode;
use crate::session::mutation::Mutation;

/// One thread's mutator of a heap, which it borrows.
pub type RawMutator<'h, R> = AttachedMutator<R, &'h RawHeap<R, Shared>>;

/// One thread's mutator of a heap, which `H` leads to: a reference, or a [`HeapWithin`] an `Arc`.
///
/// Dropping it detaches the thread; its spans are there for others then.
///
/// The mechanism without the policy: the facade's `Mutator` and `OwnedMutator` wrap it.
pub struct AttachedMutator<R: Branded, H: HeapHandle<R>> {
    state: Arc<MutatorState<Context<Shared>>>,
    /// Behind the state, so that the thread attaches again only when this mutator is gone. Keeps it
    /// on its thread.
    _here: AttachGuard,
    /// Last, as the heap may go with it.
    pub(crate) heap: H,
    root: PhantomData<fn() -> R>,
}

/// Leads a mutator to its heap, the same one each time.
pub trait HeapHandle<R: Branded>: handle::Handle<R> {}

impl<R: Branded, H: handle::Handle<R>> HeapHandle<R> for H {}

mod handle {
    use super::*;

    /// What a [`HeapHandle`] is. It cannot be named outside, where it might lead elsewhere.
    pub trait Handle<R: Branded> {
        fn heap(&self) -> &RawHeap<R, Shared>;
    }

    impl<R: Branded> Handle<R> for &RawHeap<R, Shared> {
        #[inline]
        fn heap(&self) -> &RawHeap<R, Shared> {
            self
        }
    }

    impl<R: Branded, O> Handle<R> for HeapWithin<R, O> {
        #[inline]
        fn heap(&self) -> &RawHeap<R, Shared> {
            let heap = (self.find)(&self.owner);
            assert!(Arc::ptr_eq(&heap.core, &self.core), "the way to the heap leads to another");
            heap
        }
    }
}

/// Keeps what owns a heap, for a mutator that owns its way there.
pub struct HeapWithin<R: Branded, O> {
    /// By which it is the same heap each time. First: the heap is the last to drop its core.
    core: Arc<Core<Shared>>,
    find: fn(&O) -> &RawHeap<R, Shared>,
    owner: Arc<O>,
}

impl<R: Branded, O> HeapWithin<R, O> {
    /// Gives what owns the heap.
    pub fn owner(&self) -> &Arc<O> {
        &self.owner
    }
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
        AttachedMutator::new(self)
    }

    /// Makes a mutator for this thread that keeps the owner of its heap.
    ///
    /// `find` gives the heap that the owner has.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    ///
    /// # Panics
    ///
    /// As [`attach`](Self::attach). Its calls and its drop do if
    /// `find` gives another heap than it did here.
    pub fn attach_within<O>(
        owner: Arc<O>,
        find: fn(&O) -> &RawHeap<R, Shared>,
    ) -> Result<AttachedMutator<R, HeapWithin<R, O>>, AlreadyAttached> {
        let core = find(&owner).core.clone();
        AttachedMutator::new(HeapWithin { core, find, owner })
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
}

impl<R: Branded, M: Mode> RawHeap<R, M> {
    /// Panics if the heap is inherited from before a `fork`. A system call.
    ///
    /// Other threads may have a session of such a heap open for ever, and hold its locks.
    pub(crate) fn assert_not_inherited(&self) {
        assert!(
            !self.core.client().pool().is_inherited(),
            "{} was made before a `fork`, and the threads that used it are not in this process; \
             valid is to make a `Shared` heap after the `fork`, or to `exec`",
            self.id()
        );
    }
}

impl<R: Branded, H: HeapHandle<R>> AttachedMutator<R, H> {
    fn new(handle: H) -> Result<Self, AlreadyAttached> {
        let heap = handle.heap();
        heap.assert_not_inherited();
        let here = AttachGuard::new(heap.id())?;
        let state = heap.handshake().attach(Context::new(heap.core.client()));
        heap.core.count_mutators();
        Ok(AttachedMutator { state, _here: here, heap: handle, root: PhantomData })
    }

    /// Gives what leads to the heap.
    pub fn handle(&self) -> &H {
        &self.heap
    }

    /// Opens a session: calls `f` with the session and the root.
    ///
    /// If the session has made a cycle due, or one has ended within a session, it gives a [`Due`],
    /// for [`collect_if_due`](Self::collect_if_due).
    #[inline]
    pub fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, Shared>, &'gc R::At<'gc>) -> T,
    ) -> (T, Option<Due>) {
        let (heap, context) = (self.heap.heap(), self.state.context());
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
        let heap = self.heap.heap();
        heap.assert_not_inherited();
        let ends = due.collects && self.advance(due);
        heap.core.take_end() | ends
    }

    fn advance(&self, due: Due) -> bool {
        let heap = self.heap.heap();
        let RawHeap { core, collector, .. } = heap;
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
        stopped.is_some_and(|guard| heap.advance(guard.stopped, &guard).is_some())
    }

    /// Gets on with a cycle for about `budget`; see the facade's `step`.
    ///
    /// # Panics
    ///
    /// As [`collect`](Self::collect).
    pub fn step(&mut self, budget: Duration) -> Progress {
        let stopped = self.stop();
        let ended = self.heap.heap().run(stopped.stopped, Until::after(budget), &stopped);
        ended.map_or(Progress::Working, Progress::Finished)
    }

    /// Gives all memory back that holds no object; see the facade's `trim`.
    pub fn trim(&mut self) -> u64 {
        let _stopped = self.stop();
        self.heap.heap().trim_stopped()
    }

    /// Runs one full cycle if an object has been refused since the last one. Tells whether it did.
    pub fn collect_if_refused(&mut self) -> bool {
        let stopped = self.stop_unless(false, || !self.heap.heap().has_refused());
        stopped.inspect(|stopped| _ = self.run_cycle(stopped)).is_some()
    }

    fn run_cycle(&self, stopped: &StopGuard<'_, Context<Shared>>) -> GcReport {
        self.heap.heap().cycle(stopped.stopped, stopped)
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
        let heap = self.heap.heap();
        heap.assert_not_inherited();
        let (after, hook) = &heap.slow_session;
        let report = |thread: &Thread, waited: Duration| {
            let session = SlowSession {
                heap: heap.id(),
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
        heap.handshake().stop(parks, unless, Some(policy))
    }

    /// Tells whether another mutator waits to collect, so that the next session would wait.
    pub fn gc_pending(&self) -> bool {
        self.heap.heap().handshake().is_stopping()
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
        self.heap.heap().verify_stopped()
    }
}

impl<R: Branded, H: HeapHandle<R>> Drop for AttachedMutator<R, H> {
    fn drop(&mut self) {
        let heap = self.heap.heap();
        let core = &heap.core;
        if core.client().pool().is_inherited() {
            // Its locks may be held for ever. No thread attaches or collects any more, so no thread
            // needs what it had at hand.
            return;
        }
        heap.handshake().detach(&self.state, |context| {
            core.retire_context(context);
            heap.collector.inherit(&mut context.shaded().borrow_mut());
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
