//! A session's access to its heap: allocation, cleanups, weak pointers and roots.
//!
//! Invariant: while a `Mutation<'gc>` exists, no cycle of its heap begins. A `Local` heap keeps it
//! by taking `&mut self` for both, a `Shared` one by the handshake. Its context is its own, and the
//! phase the same, from one allocation to the next. An allocation that needs memory is a safepoint:
//! a slice may run there, on this thread or while the session is parked. So no lock and no borrow
//! of the heap's is held there. Nothing here runs user code, so that is held only within a call.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, needs_drop};
use std::panic::Location;
use std::ptr::NonNull;

use sexton_cleanup::{Cleanup, Description, RawHandle};

use crate::id::HeapId;
use crate::memory::cell_lock::{CellLock, Stamp};
use crate::memory::external;
use crate::memory::locking::{Local, Shared};
use crate::memory::phase::{NO_EPOCH, Phase};
use crate::memory::space::AllocError;
use crate::memory::span::SpanRef;
use crate::memory::type_info::TypeInfo;
use crate::memory::weak_table::{WeakRecord, WeakTable};
use crate::object::gc::{Brand, Gc};
use crate::object::glue;
use crate::object::root::{Root, SharedRoot};
use crate::object::trace::{Branded, Trace, Tracer};
use crate::object::weak::Weak;
use crate::policy::external::{ExternalBytes, Quota};
use crate::safepoint::attached::NotSend;
use crate::session::context::{Context, ExternalTally};
use crate::session::core::{Assist, Core};
use crate::session::error::{HeapFull, HeapFullReason};
use crate::session::mode::{Mode, Payload};
use crate::sweep::local_cleanups::LocalCleanup;

/// A session on a heap: the proof that its objects stay where they are, and the way to change it.
///
/// Lent to the closures that make a heap, change its root or open a session, for all of `'gc`. So a
/// type of the stack can have a field `mc: &'gc Mutation<'gc>`, such as the context of a virtual
/// machine. All pointers it gives out carry its brand `'gc` and end with it. It stays on its
/// thread; pointers to what is `Sync` may go to scoped threads that end within the session.
///
/// ```compile_fail
/// # use sexton_heap::{Leaf, Mutation};
/// # struct Context<'gc> { mc: &'gc Mutation<'gc> }
/// fn wrong<'gc>(mc: &'gc Mutation<'gc>) {
///     mc.alloc(Leaf::new(Context { mc })); // no object keeps a session
/// }
/// ```
pub struct Mutation<'gc, M: Mode = Local> {
    core: &'gc Core<M>,
    context: &'gc Context<M>,
    assist: &'gc dyn Assist<M>,
    /// The epoch when the session began. A cycle that is not under way then does not begin within
    /// it, so [`NO_EPOCH`] means that no barrier is needed. Otherwise the phase is asked.
    epoch: u32,
    brand: Brand<'gc>,
    /// A context has one user at a time, on its own thread.
    _not_send: NotSend,
}

impl<'gc, M: Mode> Mutation<'gc, M> {
    /// Makes a session. Its thread is the user of the context, one of the core's, for as long as it
    /// lasts.
    #[inline]
    pub(crate) fn new(
        core: &'gc Core<M>,
        context: &'gc Context<M>,
        assist: &'gc dyn Assist<M>,
    ) -> Self {
        let epoch = core.phase().epoch();
        let _not_send = NotSend::default();
        Mutation { core, context, assist, epoch, brand: PhantomData, _not_send }
    }

    /// Takes note that the pointers in `old` are about to be overwritten.
    ///
    /// Called by cells before they change, with what they hold. Sexton's own cells call it. A cell
    /// of your own, with an `unsafe` implementation of [`Trace`], must. While a cycle marks, it
    /// marks what `old` points to: some nanoseconds a pointer. At other times it does nothing.
    ///
    /// It takes a mutable borrow, as locks within `old` are not taken to look into them. Another
    /// thread might have one.
    ///
    /// ```compile_fail
    /// # use sexton_heap::{Gc, GcMutex, Leaf, Mutation, Shared};
    /// fn wrong<'gc>(mc: &Mutation<'gc, Shared>, lock: &GcMutex<Option<Gc<'gc, Leaf<u32>>>>) {
    ///     mc.overwrites(lock); // not `&mut`
    /// }
    /// ```
    ///
    /// After Yuasa, *Real-time garbage collection on general-purpose machines*, 1990.
    #[inline]
    pub fn overwrites<T: Trace<'gc>>(&self, old: &mut T) {
        if T::NEEDS_TRACE && self.epoch != NO_EPOCH {
            self.shade(|tracer| old.trace(tracer));
        }
    }

    /// Does the same, unless the stamp says that this cycle has traced what holds `old`. The caller
    /// sees to it that no other thread changes `old` meanwhile.
    #[inline]
    pub(crate) fn overwrites_unless<T: Trace<'gc>>(&self, traced: &Stamp, old: &T) {
        if T::NEEDS_TRACE && self.epoch != NO_EPOCH && !traced.is(self.epoch) {
            self.shade(|tracer| old.trace(tracer));
        }
    }

    /// Tells whether overwritten pointers have to be looked at.
    #[inline]
    pub(crate) fn has_barrier(&self) -> bool {
        self.epoch != NO_EPOCH
    }

    /// Does the same for a cell whose content is lent to be changed, once a cycle.
    #[inline]
    pub(crate) fn lends<T: Trace<'gc>>(&self, lock: &(impl CellLock + 'static), content: &T) {
        if T::NEEDS_TRACE && self.epoch != NO_EPOCH {
            self.shade(|tracer| tracer.cell(lock, |tracer| content.trace(tracer)));
        }
    }

    /// Gives the count of what this session brings outside the heap.
    #[inline]
    pub(crate) fn tally(&self) -> &'gc ExternalTally {
        self.context.external()
    }

    /// Takes note that `new` takes the place of `old` in an object of the heap.
    #[inline]
    pub(crate) fn replaces<T: Trace<'gc>>(&self, old: &T, new: &T) {
        if needs_drop::<T>() {
            let (old, new) = (old.external_bytes(), new.external_bytes());
            if old != new {
                self.tally().add(external::change(new) - external::change(old));
            }
        }
    }

    /// Takes note that a value has come into an object of the heap.
    #[inline]
    pub(crate) fn brings<T: Trace<'gc>>(&self, value: &T) {
        if needs_drop::<T>() {
            self.tally().add(external::change(value.external_bytes()));
        }
    }

    /// Gives the way to tell the heap of bytes outside of it that it does not see.
    ///
    /// See [`ExternalBytes`]. O(1).
    pub fn external(&self) -> ExternalBytes {
        ExternalBytes::new(self.core.pacer())
    }

    /// Makes a quota of `most` things of which the system has few, such as open files.
    ///
    /// See [`Quota`]. Make it once, and clone it. O(quotas of the heap).
    pub fn quota(&self, most: u64) -> Quota {
        Quota::new(self.core.pacer(), most)
    }

    #[cold]
    #[inline(never)]
    fn shade(&self, trace: impl FnOnce(&mut Tracer<'_>)) {
        if self.core.phase().get() == Phase::Marking {
            self.context.shaded().borrow_mut().shade(self.epoch, trace);
        }
    }

    /// Tells whether an object whose weak record says so is alive. Within a cycle it has to be
    /// marked to be.
    #[cold]
    #[inline(never)]
    fn is_upgradable(&self, object: NonNull<u8>) -> bool {
        match self.core.phase().get() {
            // It may have been reachable by weak pointers only; the session can make that more.
            Phase::Marking => {
                self.context.shaded().borrow_mut().shade_object(object);
                true
            }
            // Its record has not been cleared yet.
            Phase::Clearing => SpanRef::containing(object).is_marked_at(object),
            Phase::Sweeping | Phase::Idle => true,
        }
    }

    /// Puts a value into the heap. No collection begins here, and no user code runs.
    ///
    /// A slice of one that is under way may run, if the allocation needs memory.
    ///
    /// O(1), and a few instructions unless the type's run of free slots is used up.
    ///
    /// # Panics
    ///
    /// If the heap's `max_bytes` would be exceeded or the system gives no memory; see
    /// [`try_alloc`](Self::try_alloc).
    #[inline]
    #[track_caller]
    pub fn alloc<T: Trace<'gc> + Payload<M>>(&self, value: T) -> Gc<'gc, T> {
        self.alloc_any(value)
    }

    /// [`alloc`](Self::alloc), for what the heap itself answers for as well.
    #[inline]
    #[track_caller]
    pub(crate) fn alloc_any<T: Trace<'gc>>(&self, value: T) -> Gc<'gc, T> {
        match self.try_alloc_any(value) {
            Ok(gc) => gc,
            Err(full) => out_of_room(&full.reason),
        }
    }

    /// Puts a value into the heap, or gives it back if there is no room.
    ///
    /// # Errors
    ///
    /// [`HeapFull`] with the value, if the heap's `max_bytes` would be exceeded or the system gives
    /// no memory. What the value [owns outside the heap](Trace::external_bytes) counts, too. A
    /// collection after the session may make room. It is due if the limit is the
    /// reason, unless pacing is manual or even the empty heap could not hold the object.
    ///
    /// In the middle of a collection it waits for the room that this makes. In a `Shared` heap it
    /// gives up after a second in which the collection does not get on: another session may wait
    /// for this one. It gives up at once if a thread waits for this session to end, to collect.
    ///
    /// In a `Shared` heap, bytes that other mutators have reserved count as used. They are 64 KiB
    /// each at most, and all together no more than a quarter of what was left.
    #[inline]
    pub fn try_alloc<T: Trace<'gc> + Payload<M>>(
        &self,
        value: T,
    ) -> Result<Gc<'gc, T>, HeapFull<T>> {
        self.try_alloc_any(value)
    }

    #[inline]
    pub(crate) fn try_alloc_any<T: Trace<'gc>>(&self, value: T) -> Result<Gc<'gc, T>, HeapFull<T>> {
        // Asked once: the info may have another address in another function.
        let info = glue::type_info::<T>();
        let outside = if needs_drop::<T>() { value.external_bytes() } else { 0 };
        if outside > 0 && !self.core.charge_external(self.context, self.assist, outside) {
            let reason = self.core.heap_full_reason::<T>(AllocError::Limit, outside);
            return Err(HeapFull { value, reason });
        }
        let slot = match self.context.with_allocator(|allocator| allocator.take::<T>(info)) {
            Some(slot) => Ok(slot),
            None => self.new_slot::<T>(info),
        };
        match slot {
            Ok(slot) => {
                let slot = slot.cast::<T>();
                // SAFETY: the slot is free, fits a `T`, and is ours.
                unsafe { slot.as_ptr().write(value) };
                // SAFETY: it now holds a live object of this session's heap.
                Ok(unsafe { Gc::from_object(slot) })
            }
            Err(why) => {
                self.context.external().add(-external::change(outside));
                Err(HeapFull { value, reason: self.core.heap_full_reason::<T>(why, outside) })
            }
        }
    }

    /// Out of line, with little to pass: the way to it costs the fast path no instruction.
    #[cold]
    #[inline(never)]
    fn new_slot<T>(&self, info: &'static TypeInfo) -> Result<NonNull<MaybeUninit<T>>, AllocError> {
        self.core.new_slot::<T>(self.context, self.assist, info)
    }

    /// Registers `f` to run on a worker thread some time after the object has died.
    ///
    /// An object may have any number of cleanups; their order is not specified. Takes no lock, but
    /// for that of the object's span in a `Shared` heap, and one in some hundred calls. Allocates
    /// only when `f` captures more than three words or a table has to grow. O(1) in the order of
    /// allocation; out of it a span's table makes room, which moves up to 31 KiB.
    ///
    /// A cleanup never reaches its object, unless its heap is borrowed for `'static`; see below.
    /// What `f` captures is `'static` and `Send`. So it is no
    /// `Gc`, no `Weak`, no session, no [`Root`], and no [`SharedRoot`] of a heap that is borrowed
    /// for less than `'static`. So `f` cannot keep the object alive, and cannot lead to it when it
    /// has died.
    ///
    /// ```compile_fail
    /// # use sexton_heap::{Gc, Leaf, Mutation};
    /// fn wrong<'gc>(mc: &Mutation<'gc>, gc: Gc<'gc, Leaf<u32>>) {
    ///     mc.add_cleanup(gc, move || println!("{}", **gc)); // `'gc` must outlive `'static`
    /// }
    /// ```
    ///
    /// A cleanup may open a session on its heap, if that is `Shared` and `f` owns an `Arc` or a
    /// `std::sync::Weak` of it. The session reaches what the heap's roots reach, so not an object
    /// that has died. Run early, by [`Cleanup::run_now`], it may meet its own object there, alive.
    /// An `Arc` keeps the heap until `f` has run, so prefer the `Weak`.
    ///
    /// **One way is left.** A `Shared` heap that is borrowed for `'static` is never dropped, and
    /// its [`SharedRoot`]s are `'static`. A cleanup that owns one of its own object keeps that
    /// alive for ever, and does not run. `Heap::old_roots` finds it.
    #[inline]
    #[track_caller]
    pub fn add_cleanup<T, F>(&self, gc: Gc<'gc, T>, f: F) -> Cleanup
    where
        T: Trace<'gc>,
        F: FnOnce() + Send + 'static,
    {
        let cleanup = self.register(gc, f).handle();
        if self.core.diagnostics() {
            self.core.describe(
                self.context,
                &cleanup,
                Description::of::<F>(None, Some(Location::caller())),
            );
        }
        cleanup
    }

    #[inline]
    fn register<T, F>(&self, gc: Gc<'gc, T>, f: F) -> RawHandle
    where
        T: Trace<'gc>,
        F: FnOnce() + Send + 'static,
    {
        self.core.add_cleanup::<T, F>(self.context, gc.as_address(), f)
    }

    /// Registers `f` under a label, by which the pool's hooks and its dump name it.
    ///
    /// In diagnostic mode they give the place of this call, too. See
    /// [`add_cleanup`](Self::add_cleanup).
    ///
    /// Takes a lock when the last label used was another.
    #[track_caller]
    pub fn add_cleanup_labelled<T, F>(&self, gc: Gc<'gc, T>, label: &'static str, f: F) -> Cleanup
    where
        T: Trace<'gc>,
        F: FnOnce() + Send + 'static,
    {
        let cleanup = self.register(gc, f).handle();
        // Not by `then`: the caller would be the standard library.
        let site = if self.core.diagnostics() { Some(Location::caller()) } else { None };
        self.core.describe(self.context, &cleanup, Description::of::<F>(Some(label), site));
        cleanup
    }

    /// Registers `f(arg)`; see [`add_cleanup`](Self::add_cleanup).
    #[inline]
    #[track_caller]
    pub fn add_cleanup_with<T, A>(&self, gc: Gc<'gc, T>, arg: A, f: fn(A)) -> Cleanup
    where
        T: Trace<'gc>,
        A: Send + 'static,
    {
        self.add_cleanup(gc, move || f(arg))
    }

    /// Makes a pointer to the object that does not keep it alive.
    ///
    /// O(1), and allocates one word in the heap the first time an object is downgraded.
    ///
    /// # Panics
    ///
    /// As [`alloc`](Self::alloc).
    #[track_caller]
    pub fn downgrade<T: Trace<'gc>>(&self, gc: Gc<'gc, T>) -> Weak<'gc, T> {
        let object = gc.as_address();
        let span = SpanRef::containing(object);
        let slot = span.slot_of_type::<T>(object);
        let record = self.weak_record(span, slot, None).unwrap_or_else(|| {
            // A safepoint, so the specials are not held. If another session comes before, this
            // record is garbage.
            let new = self.alloc_any(WeakRecord::of(object)).as_address().cast();
            self.weak_record(span, slot, Some(new)).unwrap_or(new)
        });
        // SAFETY: the record is live: just made, or of a target that is, and records of live
        // targets are forgotten only when no `Weak` is left. Its target is this `T`.
        unsafe { Weak::from_record(record) }
    }

    /// Finds the weak record of a slot's object. If there is none, it is to be `new`.
    fn weak_record(
        &self,
        span: SpanRef,
        slot: usize,
        new: Option<NonNull<WeakRecord>>,
    ) -> Option<NonNull<WeakRecord>> {
        let _held = span.hold_specials::<M>();
        let mut table = span.weaks().borrow_mut();
        let known = table.as_ref().and_then(|table| table.get(slot));
        match (known, new) {
            (Some(known), _) if self.core.phase().epoch() != NO_EPOCH => {
                // It may be a record that no `Weak` reached when the cycle began.
                SpanRef::containing(known.cast()).mark_at(known.cast());
            }
            (None, Some(new)) => {
                table
                    .get_or_insert_with(|| Box::new(WeakTable::new(span.words())))
                    .insert(slot, new);
            }
            _ => {}
        }
        known
    }

    /// Keeps the object alive until the [`Root`] is dropped. O(1).
    ///
    /// The place of this call is remembered; see `Heap::old_roots`.
    #[track_caller]
    pub fn root<T: Trace<'gc>>(&self, gc: Gc<'gc, T>) -> Root<T::Family> {
        // SAFETY: the object is a live `T`, which is `T::Family::At<'gc>`, of this heap.
        unsafe { Root::new(self.core.roots(), gc.as_address(), Location::caller()) }
    }

    /// Gives the object that a root keeps alive. O(1).
    ///
    /// # Panics
    ///
    /// If the root belongs to another heap; the message names both.
    #[track_caller]
    pub fn fetch<Q: Branded>(&self, root: &Root<Q>) -> Gc<'gc, Q::At<'gc>> {
        let Some(object) = root.object_in(self.core.roots()) else {
            wrong_heap(root.heap_id(), self.heap_id())
        };
        // SAFETY: roots keep their objects alive, and a `Root<Q>`'s object is a `Q` at every brand.
        unsafe { Gc::from_object(object.cast()) }
    }

    /// Tells whether the heap will collect when this session ends, as things stand.
    ///
    /// A session that runs for long should end when this says so: no collection begins within it.
    /// One that is under way goes on where the session allocates. If it ends there, what the heap
    /// does about a backlog of cleanups waits for a session's end, and this does not tell of it.
    pub fn collection_due(&self) -> bool {
        self.core.collection_due(self.context)
    }

    /// Gives the heap this session is on.
    pub fn heap_id(&self) -> HeapId {
        self.core.roots().heap()
    }
}

impl<'gc> Mutation<'gc, Shared> {
    /// Tells whether another mutator waits for this session to end, in order to collect. One load.
    ///
    /// All mutators wait then. A session that may run for long asks now and then, and returns if
    /// so.
    ///
    /// [`collection_due`](Self::collection_due) says whether this mutator will collect itself.
    #[inline]
    pub fn gc_pending(&self) -> bool {
        self.core.mutators().is_stopping()
    }

    /// Gives the object that a shared root keeps alive. O(1).
    ///
    /// # Panics
    ///
    /// If the root belongs to another heap; the message names both.
    #[track_caller]
    pub fn fetch_shared<Q: Branded>(&self, root: &SharedRoot<'_, Q>) -> Gc<'gc, Q::At<'gc>> {
        let Some(object) = root.object_in(self.core.roots()) else {
            wrong_heap(root.heap_id(), self.heap_id())
        };
        // SAFETY: roots keep their objects alive, and a `SharedRoot<Q>`'s object is a `Q` at every
        // brand.
        unsafe { Gc::from_object(object.cast()) }
    }
}

impl<'gc> Mutation<'gc, Local> {
    /// Registers `f`, which need not be `Send`, to run on this thread after the object has died.
    ///
    /// It runs when the heap's owner calls `Heap::run_local_cleanups`. For what belongs to one
    /// thread: a window, a handle of an interpreter, an `Rc`.
    ///
    /// Allocates, and each collection looks at each local cleanup. The pool has no part in it:
    /// waiting for cleanups does not wait for these.
    ///
    /// `f` cannot hold a `Gc`. It can hold a [`Root`]. With one of its own object it keeps that
    /// alive, and runs when the heap is dropped; `Heap::old_roots` finds it.
    ///
    /// `f` cannot use its own heap where that is shared as an `Rc<RefCell<Heap>>`.
    /// `run_local_cleanups` has it borrowed then, and `borrow_mut` panics ("already borrowed").
    /// That counts as a panic of the cleanup. Let `f` leave a note, in an `Rc<RefCell<Vec<_>>>` or
    /// a channel, for the program to act on afterwards.
    #[track_caller]
    pub fn add_cleanup_local<T, F>(&self, gc: Gc<'gc, T>, f: F) -> LocalCleanup
    where
        T: Trace<'gc>,
        F: FnOnce() + 'static,
    {
        // Not by `then`: the caller would be the standard library.
        let site = if self.core.diagnostics() { Some(Location::caller()) } else { None };
        let description = Description::of::<F>(None, site);
        self.context.charge_cleanup();
        self.core.locals().add(gc.as_address(), description, Box::new(f))
    }
}

impl<'gc, T> Weak<'gc, T> {
    /// Gives the target, or `None` if it has died. O(1).
    #[inline]
    pub fn upgrade<M: Mode>(self, mc: &Mutation<'gc, M>) -> Option<Gc<'gc, T>> {
        let target = self.target()?;
        if mc.epoch != NO_EPOCH && !mc.is_upgradable(target.as_address()) {
            return None;
        }
        Some(target)
    }
}

impl<M: Mode> fmt::Debug for Mutation<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mutation({})", self.heap_id())
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn out_of_room(reason: &HeapFullReason) -> ! {
    panic!("{reason}")
}

#[cold]
#[track_caller]
fn wrong_heap(of: HeapId, used_in: HeapId) -> ! {
    panic!("a root of {of} was fetched in {used_in}")
}
