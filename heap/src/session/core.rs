//! The core of a heap: all its state but the root, behind shared references, for the sessions that
//! change it.
//!
//! What belongs to one mutator is in its [`Context`]; what all of them share is here: the space,
//! the roots, the client, the pacer. In a `Local` heap, whose one context is the heap's own,
//! nothing here takes a lock but making and dropping roots, and taking units of shared regions.
//!
//! Locks are taken in this order: a span's specials, the space, the shared regions. The thread that
//! has the mutators stopped takes the handshake's and the space's in either order, as it is alone.
//! Roots and history are locked for themselves. A thread that works beside sessions has none of
//! these while it calls user code.
//!
//! Invariant: user code that runs during a cycle (drop glue, trace glue) has no session. So it can
//! reach nothing of this that is locked or borrowed.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sexton_cleanup::{Cleanup, CleanupStats, Client, Description, RawHandle, in_cleanup};

use crate::id::HeapId;
use crate::mark::root_table::RootTable;
use crate::memory::external;
use crate::memory::layout::{DENSE_WORDS, SPAN_BYTES};
use crate::memory::phase::{Phase, PhaseCell};
use crate::memory::space::{AllocError, CommonSpace, Usage};
use crate::memory::span::SpanRef;
use crate::memory::type_info::TypeInfo;
use crate::object::glue;
use crate::object::trace::Trace;
use crate::policy::config::HeapConfig;
use crate::policy::pacer::{CLEANUP_BYTES, Pacer};
use crate::policy::report::Overhead;
use crate::session::context::Context;
use crate::session::error::HeapFullReason;
use crate::session::mode::Mode;
use crate::session::mode::parts::Mutators;
use crate::sweep::local_cleanups::LocalCleanups;

/// Gets on with a cycle within a session, which allocates. Called by the session with the context,
/// which has nothing of the core borrowed.
pub(crate) trait Assist<M: Mode> {
    /// Runs a slice of the cycle that is under way.
    fn assist(&self, core: &Core<M>, context: &Context<M>);

    /// Gets on with the cycle that is under way, for a session that has found no room: runs some of
    /// it, or waits for a thread that does. Tells whether to call it again if there is no room yet.
    fn make_room(&self, core: &Core<M>, context: &Context<M>, wait: &mut Wait) -> bool;

    /// Takes note that a session has waited so long for room, in more than one step.
    fn record_wait(&self, waited: Duration);
}

/// The wait of a session for room.
pub(crate) struct Wait {
    /// Since when it waits, and the cycle has not got on.
    pub(crate) in_vain_since: Instant,
    /// How often the cycle had got on by then.
    pub(crate) advances: u64,
}

/// Bytes of an address in a table.
const ADDRESS_BYTES: u64 = size_of::<usize>() as u64;

/// Bytes of a table of weak records, but for its entries: its bitmap, for the most part.
const TABLE_BYTES: u64 = 8 * DENSE_WORDS as u64 + 64;

/// Bytes of a local cleanup whose closure owns some words.
const LOCAL_BYTES: u64 = 192;

/// All state of one heap but its root.
pub(crate) struct Core<M: Mode> {
    /// The heap's own context: its mutator's in a `Local` heap. In a `Shared` one it is used to
    /// make the root, and by the collecting thread.
    context: Context<M>,
    mutators: M::Mutators,
    space: CommonSpace<M>,
    roots: Arc<RootTable>,
    client: Client,
    pacer: Arc<Pacer>,
    zeal: bool,
    diagnostics: bool,
    locals: M::Locals,
    steps: AtomicU64,
    /// The most records of cleanups that the heap is known to have had. They are the pool's when
    /// they are free, and stay in memory.
    records: AtomicU64,
    /// Of 1,024 bytes in use at the last mark, bytes that its work list has needed beside them.
    mark_share: AtomicU64,
}

impl<M: Mode> Core<M> {
    pub(crate) fn new(client: Client, config: &HeapConfig) -> Self {
        let pacer = Arc::new(Pacer::new(config.pacing, config.max_bytes));
        let space = CommonSpace::new(config.max_bytes, config.huge_pages);
        space.with(|space| space.count_external(pacer.external().clone()));
        Core {
            context: Context::new(&client),
            mutators: M::Mutators::default(),
            space,
            roots: Arc::new(RootTable::new(HeapId::next())),
            locals: M::Locals::new(&client),
            records: AtomicU64::new(0),
            mark_share: AtomicU64::new(0),
            client,
            pacer,
            zeal: config.zeal,
            diagnostics: config.diagnostics,
            steps: AtomicU64::new(0),
        }
    }

    /// Gives the heap's own context.
    pub(crate) fn context(&self) -> &Context<M> {
        &self.context
    }

    pub(crate) fn mutators(&self) -> &M::Mutators {
        &self.mutators
    }

    /// Calls `each` with the heap's own context and with those of all mutators. Called while the
    /// mutators are stopped.
    pub(crate) fn for_each_context(&self, mut each: impl FnMut(&Context<M>)) {
        each(&self.context);
        self.mutators.for_each(each);
    }

    pub(crate) fn roots(&self) -> &Arc<RootTable> {
        &self.roots
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn space(&self) -> &CommonSpace<M> {
        &self.space
    }

    /// Tells how far the heap's cycle has come.
    #[inline]
    pub(crate) fn phase(&self) -> &PhaseCell {
        self.space.phase()
    }

    pub(crate) fn pacer(&self) -> &Arc<Pacer> {
        &self.pacer
    }

    pub(crate) fn locals(&self) -> &M::Locals {
        &self.locals
    }

    /// Tells whether to collect at the end of every session, overwrite dead objects, verify every
    /// cycle.
    pub(crate) fn zeal(&self) -> bool {
        self.zeal
    }

    /// Tells whether registrations remember where they were made.
    #[inline]
    pub(crate) fn diagnostics(&self) -> bool {
        self.diagnostics
    }

    /// Gives all cached slots and reserved bytes back to the space, and tells the pacer of all
    /// cleanups. Returns how many mutators have allocated since it was called last. Called while
    /// the mutators are stopped.
    pub(crate) fn retire_contexts(&self) -> u64 {
        let mut allocating = 0;
        self.for_each_context(|context| allocating += u64::from(self.retire_context(context)));
        allocating
    }

    /// Does the same for one of them, whose session this is. Tells whether it has allocated.
    pub(crate) fn retire_context(&self, context: &Context<M>) -> bool {
        context.retire(&self.pacer);
        context.with_allocator(|allocator| {
            let has_allocated = allocator.reserved() > 0;
            self.space.with(|space| allocator.retire(space));
            has_allocated
        })
    }

    /// Tells whether the pacer, or zeal, asks for a cycle. O(1) while the answer is no.
    ///
    /// Approximate: allocations that other mutators have not committed yet are not counted. These
    /// are at most 64 KiB each, or one larger object.
    pub(crate) fn collection_due(&self, context: &Context<M>) -> bool {
        self.asks(context, Pacer::is_due)
    }

    /// Tells whether the session's end has something to do: a cycle is due, or one that has ended
    /// within a session is to be told of. As [`collection_due`](Self::collection_due).
    pub(crate) fn is_end_due(&self, context: &Context<M>) -> bool {
        self.asks(context, Pacer::is_end_due)
    }

    /// Tells whether a cycle has ended within a session, and its end was not told of. Called
    /// between sessions.
    ///
    /// Not within a cleanup, which does not wait for others: a thread that can is told later.
    pub(crate) fn take_end(&self) -> bool {
        !in_cleanup() && self.pacer.take_end()
    }

    /// Asks the pacer, or zeal, with the bytes in use.
    fn asks(&self, context: &Context<M>, is_due: impl Fn(&Pacer, u64) -> bool) -> bool {
        context.report(&self.pacer);
        context.with_allocator(|allocator| {
            let taken = self.space.committed_bytes() + allocator.taken().bytes;
            let is_due = |taken| is_due(&self.pacer, taken);
            // The cheap number is never too low.
            self.zeal || (is_due(taken) && is_due(taken - allocator.cached_usage().bytes))
        })
    }

    /// Tells how many cycles, and slices of cycles, have been run. Relaxed: a number to compare
    /// with another one.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// Tells whether a session has been refused an object that a cycle might make room for.
    pub(crate) fn has_refused(&self) -> bool {
        self.pacer.has_refused()
    }

    /// Takes note that a cycle has been run, or a slice of one.
    pub(crate) fn count_step(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    /// Gives the bytes in use, as far as it is known: see
    /// [`collection_due`](Self::collection_due).
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let mut taken = self.space.committed_bytes();
        if !M::SHARED {
            taken += self.context.with_allocator(|allocator| {
                allocator.taken().bytes - allocator.cached_usage().bytes
            });
        }
        taken
    }

    /// Sums up what the heap takes beside the slots in use. O(mutators + unfinished cycles).
    pub(crate) fn overhead(&self) -> Overhead {
        let usage = self.space.committed();
        let CleanupStats { armed, backlog, .. } = self.client.stats();
        let records = self.records.fetch_max(armed + backlog, Relaxed).max(armed + backlog);
        let (metadata_bytes, spans) = (self.space.metadata_bytes(), self.space.resident_bytes());
        let tables = usage.weak_records.min(spans / SPAN_BYTES as u64);
        Overhead {
            metadata_bytes,
            free_bytes: spans.saturating_sub(metadata_bytes + usage.bytes),
            cleanup_bytes: records * CLEANUP_BYTES + self.locals.armed() as u64 * LOCAL_BYTES,
            weak_bytes: usage.weak_records * 2 * ADDRESS_BYTES + tables * TABLE_BYTES,
            root_bytes: self.roots.bytes(),
            mark_bytes: usage.bytes / 1024 * self.mark_share.load(Relaxed),
        }
    }

    /// Takes note that the work list of a mark has taken that many bytes.
    pub(crate) fn note_mark(&self, bytes: u64) {
        let share = bytes / (self.space.committed_bytes() / 1024).max(1);
        self.mark_share.store(share, Relaxed);
    }

    /// Tells space and pacer what the heap takes beside the slots in use, if that matters, and what
    /// the context has not told of the bytes outside.
    fn tell_overhead(&self, context: &Context<M>) {
        if self.space.max_bytes() < u64::MAX {
            context.external().tell(&self.pacer);
            let overhead = self.overhead();
            let counted = overhead.counted();
            self.pacer.set_overhead(counted);
            self.space.with(|space| space.set_overhead(counted, overhead.beside_spans()));
        }
    }

    /// Gives the bytes that payloads own outside the heap, as far as it is known.
    pub(crate) fn owned_outside(&self) -> u64 {
        let untold = if M::SHARED { 0 } else { self.context.external().add(0) };
        self.pacer.external().owned().saturating_add_signed(untold)
    }

    /// Gives the bytes in use, those outside the heap included, as far as it is known.
    pub(crate) fn weight(&self) -> u64 {
        self.pacer.weight(self.bytes_in_use())
    }

    /// Takes note that an object brings `bytes` bytes outside the heap. Tells whether there is room
    /// for them. If not, nothing has been counted.
    #[inline]
    pub(crate) fn charge_external(
        &self,
        context: &Context<M>,
        assist: &dyn Assist<M>,
        bytes: usize,
    ) -> bool {
        let bytes = external::change(bytes);
        let untold = context.external().add(bytes);
        untold < self.pacer.untold() || self.tell_external(context, assist, bytes)
    }

    /// Tells the others of what was counted. `bytes` of it are taken back if there is no room.
    #[cold]
    #[inline(never)]
    fn tell_external(&self, context: &Context<M>, assist: &dyn Assist<M>, bytes: i64) -> bool {
        context.external().tell(&self.pacer);
        self.tell_overhead(context);
        let has_room = || self.pacer.counted(self.space.charged_bytes()) <= self.space.max_bytes();
        if has_room() {
            return true;
        }
        // What has been reserved, and is not in use, makes room.
        context.with_allocator(|allocator| self.space.with(|space| allocator.retire(space)));
        let found = self.find_room(context, assist, || {
            context.with_allocator(|allocator| self.space.with(|space| allocator.retire(space)));
            if has_room() { Ok(()) } else { Err(AllocError::Limit) }
        });
        if found.is_ok() {
            return true;
        }
        context.external().add(-bytes);
        context.external().tell(&self.pacer);
        self.pacer.refuse(bytes.unsigned_abs());
        false
    }

    /// Takes note that a mutator has come, or gone.
    pub(crate) fn count_mutators(&self) {
        let mutators = self.mutators.len() as u64;
        self.space.with(|space| space.set_allocators(mutators));
    }

    /// Lets a cycle go on, within a session that is about to take memory. Called where the session
    /// has nothing half done, and holds no lock of the heap's.
    pub(crate) fn safepoint(&self, context: &Context<M>, assist: &dyn Assist<M>) {
        // A session that ends soon is left alone: its end is for slices.
        let is_overdue =
            || self.phase().get() != Phase::Idle && self.asks(context, Pacer::is_overdue);
        if self.mutators.is_parking() && !self.is_inherited() {
            self.mutators.park(context);
        }
        if is_overdue() && !self.is_inherited() {
            assist.assist(self, context);
        }
    }

    /// Calls `attempt` until it finds room under the limit, or the cycle that is under way makes no
    /// more. A cycle without slices would have swept by now what that one frees.
    #[cold]
    #[inline(never)]
    fn find_room<T>(
        &self,
        context: &Context<M>,
        assist: &dyn Assist<M>,
        mut attempt: impl FnMut() -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        let (mut goes_on, mut steps, began) = (true, 0, Instant::now());
        let mut wait = Wait { in_vain_since: began, advances: 0 };
        loop {
            // Asked before: what a cycle has freed that has ended by now, the attempt finds.
            let is_idle = self.phase().get() == Phase::Idle;
            let found = attempt();
            let is_over = !goes_on || is_idle || !matches!(found, Err(AllocError::Limit));
            if is_over || steps == 0 && self.is_inherited() {
                if steps > 1 {
                    assist.record_wait(began.elapsed());
                }
                return found;
            }
            goes_on = assist.make_room(self, context, &mut wait);
            steps += 1;
        }
    }

    /// Tells whether a `Shared` heap was made before a `fork`, in another process: its other
    /// sessions stand still. A system call.
    fn is_inherited(&self) -> bool {
        M::SHARED && self.client.pool().is_inherited()
    }

    /// Gives a free slot for a `T` when the context has none at hand. The caller fills it at once.
    pub(crate) fn new_slot<T>(
        &self,
        context: &Context<M>,
        assist: &dyn Assist<M>,
        info: &'static TypeInfo,
    ) -> Result<NonNull<MaybeUninit<T>>, AllocError> {
        self.safepoint(context, assist);
        self.tell_overhead(context);
        let refill = || {
            context.with_allocator(|allocator| {
                allocator.refill(&self.space, info)?;
                Ok(allocator.take(info).expect("a refilled run is not empty"))
            })
        };
        let mut slot = refill();
        if let Err(AllocError::Limit) = slot {
            slot = self.find_room(context, assist, || {
                self.tell_overhead(context);
                refill()
            });
        }
        // Not if the system has no memory: a cycle takes some itself.
        if let Err(AllocError::Limit) = slot {
            self.pacer.refuse(info.slot_bytes as u64);
        }
        slot
    }

    /// Why a `T` found no room, for the user.
    #[cold]
    pub(crate) fn heap_full_reason<'gc, T: Trace<'gc>>(
        &self,
        why: AllocError,
        outside: usize,
    ) -> HeapFullReason {
        let external = self.pacer.external().bytes();
        HeapFullReason {
            heap: self.roots.heap(),
            type_name: std::any::type_name::<T>(),
            why,
            requested: (glue::type_info::<T>().slot_bytes as u64).saturating_add(outside as u64),
            used: self.space.charged_bytes().saturating_add(external),
            external,
            overhead: self.overhead(),
            max: self.space.max_bytes(),
        }
    }

    /// Registers a cleanup of an object of type `T`.
    #[inline]
    pub(crate) fn add_cleanup<T, F>(
        &self,
        context: &Context<M>,
        object: NonNull<u8>,
        f: F,
    ) -> RawHandle
    where
        F: FnOnce() + Send + 'static,
    {
        let span = SpanRef::containing(object);
        let slot = span.slot_of_type::<T>(object);
        context.charge_cleanup();
        let mut registrar = context.registrar().borrow_mut();
        let _held = span.hold_specials::<M>();
        let mut cleanups = span.cleanups().borrow_mut();
        let place = cleanups.place(span.special_words::<T>(), slot);
        // One call for both cases, so that it is made part of this function.
        let (head, receipt) = registrar.enter(place.map(|place| cleanups.at(place)), f);
        match place {
            Some(place) => cleanups.set(place, head),
            None => cleanups.insert(span.special_words::<T>(), slot, head),
        }
        receipt
    }

    /// Describes a cleanup registered in the context.
    #[cold]
    pub(crate) fn describe(
        &self,
        context: &Context<M>,
        cleanup: &Cleanup,
        description: Description,
    ) {
        context.registrar().borrow_mut().describe(cleanup, description);
    }

    /// Tells what is in use, without waiting. What is in the heap's own context is counted exactly.
    /// What other mutators have taken lately is not counted.
    pub(crate) fn usage(&self) -> Usage {
        let committed = self.space.committed();
        if M::SHARED {
            return committed;
        }
        self.context.with_allocator(|allocator| {
            committed.plus(allocator.taken()).minus(allocator.cached_usage())
        })
    }
}
