//! `Mutator` and `OwnedMutator`: one thread's access to a `Shared` heap, with the policy of when to
//! collect.
//!
//! Invariant: back-pressure is applied after a collection, by the thread that collected. The
//! mutators have been resumed by then. A collection that has ended within a session has it applied
//! by the first thread whose session ends then.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use sexton_heap::{
    AlreadyAttached, AttachedMutator, Branded, GcReport, HeapHandle, HeapWithin, Mutation,
    Progress, RawHeap, RawMutator, Shared, VerifyError,
};
use sexton_sync::drop_quietly;

use crate::heap::Heap;

/// One thread's mutator of a [`Shared`] heap: it opens sessions, and collects.
///
/// [`Heap::attach`] makes it, and it stays on its thread. Between sessions the thread may do
/// whatever it likes, wait in a lock or for input, without delaying a collection. Dropping the
/// mutator detaches the thread, and leaves the free slots it had at hand to others.
///
/// ```
/// use sexton::{Gc, GcAtomic, Heap, Shared, Trace};
///
/// #[derive(Trace)]
/// struct Node<'gc> { value: u64, next: GcAtomic<'gc, Node<'gc>> }
///
/// #[derive(Trace, Default)]
/// struct World<'gc> { head: GcAtomic<'gc, Node<'gc>> }
///
/// let heap: Heap<World<'static>, Shared> = Heap::new(|_mc| World::default());
/// std::thread::scope(|scope| {
///     for thread in 0..2 {
///         let heap = &heap;
///         scope.spawn(move || {
///             let mut mutator = heap.attach();
///             for value in 0..100 {
///                 mutator.mutate(|mc, world| {
///                     let value = thread * 100 + value;
///                     let node = mc.alloc(Node { value, next: GcAtomic::default() });
///                     // Push it to the front, and try again if another thread was quicker.
///                     let mut head = world.head.load();
///                     loop {
///                         node.next.store(mc, head);
///                         match world.head.compare_exchange(mc, head, Some(node)) {
///                             Ok(_) => break,
///                             Err(other) => head = other,
///                         }
///                     }
///                 });
///             }
///         });
///     }
/// });
/// let sum = heap.attach().mutate(|_mc, world| {
///     let nodes = std::iter::successors(world.head.load(), |node| node.next.load());
///     nodes.map(|node| node.value).sum::<u64>()
/// });
/// assert_eq!(sum, (0..200).sum());
/// ```
pub struct Mutator<'h, R: Branded> {
    heap: &'h Heap<R, Shared>,
    inner: RawMutator<'h, R>,
}

impl<R: Branded> Heap<R, Shared> {
    /// Makes a mutator for this thread, by which it opens sessions and collects.
    ///
    /// Dropping the mutator detaches the thread. The call takes locks for a moment, and some
    /// kilobytes of memory. It waits for no cycle.
    ///
    /// # Panics
    ///
    /// If the thread has a mutator of this heap, as [`try_attach`](Self::try_attach) says by an
    /// error. In the child of a `fork`, if the heap was made before.
    #[track_caller]
    pub fn attach(&self) -> Mutator<'_, R> {
        match self.try_attach() {
            Ok(mutator) => mutator,
            Err(error) => panic!("{error}"),
        }
    }

    /// Makes a mutator as [`attach`](Self::attach) does, for code that does not know its thread.
    ///
    /// A cleanup usually runs on a worker. But `run_now`, [`CleanupPool::run_pending`] and
    /// [`BackPressure::Help`] run it on a thread that may have a mutator.
    ///
    /// # Errors
    ///
    /// If the thread has a mutator of this heap. So also within a session of the heap, and in the
    /// `Drop` of a payload while the heap is collected. A session opened there would wait for
    /// itself.
    ///
    /// # Panics
    ///
    /// In the child of a `fork`, if the heap was made before.
    ///
    /// [`CleanupPool::run_pending`]: crate::CleanupPool::run_pending
    /// [`BackPressure::Help`]: crate::BackPressure::Help
    pub fn try_attach(&self) -> Result<Mutator<'_, R>, AlreadyAttached> {
        Ok(Mutator { heap: self, inner: self.inner.attach()? })
    }

    /// Makes a mutator for this thread that owns its heap together with others.
    ///
    /// It is for a thread that is not scoped: it can be a field, or a thread-local variable. The
    /// last one that owns the heap drops it, see [`OwnedMutator`].
    ///
    /// ```
    /// use std::sync::Arc;
    /// use sexton::{GcMutex, Heap, OwnedMutator, Shared};
    ///
    /// let heap: Arc<Heap<GcMutex<u64>, Shared>> = Arc::new(Heap::new(|_mc| GcMutex::new(0)));
    /// let threads = [1, 2].map(|number| {
    ///     let heap = heap.clone();
    ///     std::thread::spawn(move || {
    ///         let mut mutator: OwnedMutator<_> = heap.attach_owned();
    ///         mutator.mutate(|mc, sum| *sum.lock(mc) += number);
    ///     })
    /// });
    /// threads.into_iter().for_each(|thread| thread.join().unwrap());
    /// assert_eq!(heap.attach_owned().mutate(|mc, sum| *sum.lock(mc)), 3);
    /// ```
    ///
    /// # Panics
    ///
    /// As [`attach`](Self::attach).
    #[track_caller]
    pub fn attach_owned(self: &Arc<Self>) -> OwnedMutator<R> {
        match self.try_attach_owned() {
            Ok(mutator) => mutator,
            Err(error) => panic!("{error}"),
        }
    }

    /// Makes a mutator as [`attach_owned`](Self::attach_owned) does, unless the thread has one.
    ///
    /// # Errors
    ///
    /// As [`try_attach`](Self::try_attach).
    ///
    /// # Panics
    ///
    /// In the child of a `fork`, if the heap was made before.
    pub fn try_attach_owned(self: &Arc<Self>) -> Result<OwnedMutator<R>, AlreadyAttached> {
        Ok(OwnedMutator { inner: RawHeap::attach_within(self.clone(), |heap| &heap.inner)? })
    }
}

impl<'h, R: Branded> Mutator<'h, R> {
    /// Opens a session: calls `f` with the means to change the heap, and its root.
    ///
    /// If another thread collects, or waits to, this one waits for the end of that cycle first. It
    /// may help with the cycle. It collects when the session ends, if the pacer says so. No
    /// collection begins before. One that is under way may get on while the session allocates.
    ///
    /// A thread that wants to collect waits for this session, and all other sessions wait for that
    /// thread. So a session should not be open for long. One that is long asks
    /// [`gc_pending`](Mutation::gc_pending) now and then, and returns if so. Nor should it wait for
    /// what another thread does in a session of its own, or after one. The end of that session may
    /// collect, so the wait may last for ever. Sessions of two heaps are like two locks: threads
    /// that nest them open them in the same order.
    ///
    /// A panic in `f` ends the session and leaves the heap usable. It does not collect, with
    /// one exception: the session was refused an object because of
    /// [`max_bytes`](crate::HeapBuilder::max_bytes). Without a collection the next session would
    /// find the heap as full.
    ///
    /// # Panics
    ///
    /// If `f` does. And if the collection at the end does, for the reasons that
    /// [`collect`](Self::collect) gives: then what `f` returned is lost.
    #[inline]
    pub fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, Shared>, &'gc R::At<'gc>) -> T,
    ) -> T {
        self.mutate_and_collect(f)
    }

    /// Runs one full cycle, then applies the heap's [`BackPressure`](crate::BackPressure).
    ///
    /// The cycle begins when no session is open. It marks what the roots reach and sweeps
    /// everything. It queues the cleanups of the dead and wakes workers for them. Linear in live
    /// objects and in spans. If another thread is collecting, this waits for that, and then runs a
    /// cycle of its own.
    ///
    /// A session that does not end keeps it waiting; see
    /// [`slow_session_after`](crate::HeapBuilder::slow_session_after).
    ///
    /// # Panics
    ///
    /// - If a hand-written `Trace` panics: then nothing is swept, and the heap stays usable.
    /// - In zeal mode, if the heap fails its verification.
    /// - If the hook of a [`BackPressure::Call`](crate::BackPressure) panics.
    pub fn collect(&mut self) -> GcReport {
        self.collect_all()
    }

    /// Gets on with a collection for about `budget`, and begins one if none is under way.
    ///
    /// The other mutators are stopped meanwhile. See [`Heap::step`](crate::Heap::step).
    ///
    /// # Panics
    ///
    /// As [`collect`](Self::collect).
    pub fn step(&mut self, budget: Duration) -> Progress {
        self.step_for(budget)
    }

    /// Gives all memory back to the system that holds no object, and returns how many bytes.
    ///
    /// See [`Heap::trim`](crate::Heap::trim). It waits first until no session is open, and keeps
    /// new ones waiting until it has ended.
    ///
    /// # Panics
    ///
    /// In the child of a `fork`, if the heap was made before.
    pub fn trim(&mut self) -> u64 {
        self.inner.trim()
    }

    /// Returns whether another thread collects, or waits to.
    ///
    /// The next session of this mutator would wait for that. Within a session ask
    /// [`Mutation::gc_pending`].
    pub fn gc_pending(&self) -> bool {
        self.inner.gc_pending()
    }

    /// Returns the heap.
    pub fn heap(&self) -> &'h Heap<R, Shared> {
        self.heap
    }

    /// Recomputes reachability and all bookkeeping the slow way, and compares. For tests; O(heap).
    ///
    /// It waits first until no session is open.
    ///
    /// # Errors
    ///
    /// The first inconsistency found. It is always a bug of Sexton or of a hand-written `Trace`.
    pub fn verify(&mut self) -> Result<(), VerifyError> {
        self.inner.verify()
    }
}

/// One thread's mutator of a [`Shared`] heap that it owns together with others, by an `Arc`.
///
/// [`Heap::attach_owned`] makes it. It does all that a [`Mutator`] does, and like that it stays on
/// its thread. It borrows nothing, so a thread that is not scoped can have it.
///
/// Dropping it detaches the thread. If no other `Arc` of the heap is left, that drops the heap, on
/// this thread: the heap's [`OnDrop`](crate::OnDrop) says what this means. So let a thread that may
/// wait be the last.
pub struct OwnedMutator<R: Branded> {
    inner: AttachedMutator<R, HeapWithin<R, Heap<R, Shared>>>,
}

impl<R: Branded> OwnedMutator<R> {
    /// Opens a session, as [`Mutator::mutate`] does.
    ///
    /// # Panics
    ///
    /// As [`Mutator::mutate`].
    #[inline]
    pub fn mutate<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, Shared>, &'gc R::At<'gc>) -> T,
    ) -> T {
        self.mutate_and_collect(f)
    }

    /// Runs one full cycle, as [`Mutator::collect`] does.
    ///
    /// # Panics
    ///
    /// As [`Mutator::collect`].
    pub fn collect(&mut self) -> GcReport {
        self.collect_all()
    }

    /// Gets on with a collection for about `budget`, as [`Mutator::step`] does.
    ///
    /// # Panics
    ///
    /// As [`collect`](Self::collect).
    pub fn step(&mut self, budget: Duration) -> Progress {
        self.step_for(budget)
    }

    /// Gives memory back to the system, as [`Mutator::trim`] does.
    ///
    /// # Panics
    ///
    /// As [`Mutator::trim`].
    pub fn trim(&mut self) -> u64 {
        self.inner.trim()
    }

    /// Returns whether another thread collects, or waits to; see [`Mutator::gc_pending`].
    pub fn gc_pending(&self) -> bool {
        self.inner.gc_pending()
    }

    /// Returns the heap.
    pub fn heap(&self) -> &Arc<Heap<R, Shared>> {
        self.inner.handle().owner()
    }

    /// Compares all bookkeeping with what it finds the slow way, as [`Mutator::verify`] does.
    ///
    /// # Errors
    ///
    /// As [`Mutator::verify`].
    pub fn verify(&mut self) -> Result<(), VerifyError> {
        self.inner.verify()
    }
}

impl<R: Branded> fmt::Debug for OwnedMutator<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedMutator").field("heap", &self.heap().id()).finish_non_exhaustive()
    }
}

/// What the two mutators have in common.
trait Access<R: Branded> {
    type Handle: HeapHandle<R>;

    fn shared(&self) -> &Heap<R, Shared>;

    fn inner(&mut self) -> &mut AttachedMutator<R, Self::Handle>;

    #[inline]
    fn mutate_and_collect<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&'gc Mutation<'gc, Shared>, &'gc R::At<'gc>) -> T,
    ) -> T {
        let unwinding = CollectIfRefused { mutator: self, root: PhantomData };
        let (result, due) = unwinding.mutator.inner().mutate(f);
        std::mem::forget(unwinding);
        if let Some(due) = due
            && self.inner().collect_if_due(due)
        {
            self.shared().apply_back_pressure();
        }
        result
    }

    fn collect_all(&mut self) -> GcReport {
        let report = self.inner().collect();
        self.shared().apply_back_pressure();
        report
    }

    fn step_for(&mut self, budget: Duration) -> Progress {
        let progress = self.inner().step(budget);
        if progress.is_finished() {
            self.shared().apply_back_pressure();
        }
        progress
    }
}

impl<'h, R: Branded> Access<R> for Mutator<'h, R> {
    type Handle = &'h RawHeap<R, Shared>;

    #[inline]
    fn shared(&self) -> &Heap<R, Shared> {
        self.heap
    }

    #[inline]
    fn inner(&mut self) -> &mut AttachedMutator<R, Self::Handle> {
        &mut self.inner
    }
}

impl<R: Branded> Access<R> for OwnedMutator<R> {
    type Handle = HeapWithin<R, Heap<R, Shared>>;

    #[inline]
    fn shared(&self) -> &Heap<R, Shared> {
        self.heap()
    }

    #[inline]
    fn inner(&mut self) -> &mut AttachedMutator<R, Self::Handle> {
        &mut self.inner
    }
}

/// Dropped when a session ends by a panic, and only then.
struct CollectIfRefused<'a, R: Branded, A: Access<R> + ?Sized> {
    mutator: &'a mut A,
    root: PhantomData<fn() -> R>,
}

impl<R: Branded, A: Access<R> + ?Sized> Drop for CollectIfRefused<'_, R, A> {
    fn drop(&mut self) {
        let mutator = &mut *self.mutator;
        if mutator.shared().inner.has_refused() {
            // The session's panic goes on; a second one would end the process.
            let collected = catch_unwind(AssertUnwindSafe(|| {
                if mutator.inner().collect_if_refused() {
                    mutator.shared().apply_back_pressure();
                }
            }));
            if let Err(payload) = collected {
                drop_quietly(payload);
            }
        }
    }
}

impl<R: Branded> fmt::Debug for Mutator<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutator").field("heap", &self.heap.id()).finish_non_exhaustive()
    }
}
