//! The context of one mutator: what it allocates from, and where it registers cleanups.
//!
//! Invariant: one thread at a time uses a context. It is its mutator's within a session that is not
//! parked, or the collecting one while the mutators are stopped. In a `Local` heap the borrow
//! checker sees to it (`&mut self`). In a `Shared` one the handshake does, which lends contexts to
//! no other thread. A session that is parked, or runs a slice, is between two calls of what is
//! here. User code that runs during a cycle (drop glue, trace glue) cannot reach it.

use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use sexton_cleanup::{Client, Registrar};
use sexton_sync::drop_quietly;

use crate::memory::allocator::Allocator;
use crate::memory::locking::Shared;
use crate::memory::mark_stack::{Marker, Pending, Strategy};
use crate::object::trace::Tracer;
use crate::policy::pacer::{CLEANUP_BYTES, Pacer};

/// The objects that a mutator's barrier has marked.
///
/// Before a session overwrites a pointer, it *shades* the old target: marks it, and leaves it here
/// for the collector. So what was reachable when the cycle began is marked when it ends.
pub(crate) struct Shaded {
    marker: Marker,
    /// Objects in the top chunk of its work list.
    waiting: usize,
    /// What trace glue has thrown. The write that it was called for went on.
    panic: Option<Box<dyn Any + Send>>,
    /// Calls of the barrier that came to look at a value.
    looks: u64,
}

impl Shaded {
    pub(crate) fn new() -> Self {
        let marker = Marker::new(Strategy::Parallel);
        Shaded { marker, waiting: 0, panic: None, looks: 0 }
    }

    /// Marks what `trace` reports, in the mark of that epoch.
    pub(crate) fn shade(&mut self, epoch: u32, trace: impl FnOnce(&mut Tracer<'_>)) {
        self.looks += 1;
        self.marker.epoch = epoch;
        let waiting = self.waiting();
        let marker = &mut self.marker;
        let traced = catch_unwind(AssertUnwindSafe(|| {
            let mut tracer = Tracer::of_barrier(marker, waiting);
            trace(&mut tracer);
            tracer.pending()
        }));
        match traced {
            Ok(waiting) => self.waiting = waiting.len,
            // The mark is given up.
            Err(payload) => self.panic.replace(payload).into_iter().for_each(drop_quietly),
        }
    }

    /// Marks an object whose type only its span knows.
    pub(crate) fn shade_object(&mut self, object: NonNull<u8>) {
        self.looks += 1;
        self.waiting = self.marker.visit_untyped(self.waiting(), object).len;
    }

    /// Hands all of it to a marker. Tells how often the barrier has looked at a value, and how many
    /// objects it hands over.
    ///
    /// # Errors
    ///
    /// What trace glue has thrown.
    pub(crate) fn hand_over(
        &mut self,
        to: &mut Marker,
        pending: &mut Pending,
    ) -> Result<(u64, u64), Box<dyn Any + Send>> {
        let waiting = self.waiting();
        let objects = self.marker.waits(self.waiting()) as u64;
        self.waiting = 0;
        *pending = to.take_over(*pending, &mut self.marker, waiting);
        match self.panic.take() {
            Some(payload) => Err(payload),
            None => Ok((std::mem::take(&mut self.looks), objects)),
        }
    }

    fn waiting(&self) -> Pending {
        Pending { len: self.waiting, next: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.looks == 0
    }

    /// Takes all that another one has.
    pub(crate) fn inherit(&mut self, other: &mut Shaded) {
        let waiting = other.waiting();
        other.waiting = 0;
        self.waiting = self.marker.take_over(self.waiting(), &mut other.marker, waiting).len;
        self.looks += std::mem::take(&mut other.looks);
        let surplus = match other.panic.take() {
            Some(payload) => self.panic.replace(payload),
            None => None,
        };
        surplus.into_iter().for_each(drop_quietly);
    }

    /// Forgets all of it: the mark is given up.
    pub(crate) fn forget(&mut self) {
        let panic = std::mem::replace(self, Shaded::new()).panic;
        panic.into_iter().for_each(drop_quietly);
    }
}

/// The bytes outside the heap that one mutator's sessions have brought, or taken away.
#[derive(Default)]
pub(crate) struct ExternalTally {
    /// What the pacer has not been told.
    untold: Cell<i64>,
    /// What the pacer has been told within the session.
    told: Cell<i64>,
    /// The most that a session has brought since the last cycle.
    step: Cell<i64>,
}

impl ExternalTally {
    /// Counts a change. Gives what the pacer has not been told.
    #[inline]
    pub(crate) fn add(&self, bytes: i64) -> i64 {
        let untold = self.untold.get().saturating_add(bytes);
        self.untold.set(untold);
        untold
    }

    /// Tells the pacer, within a session.
    pub(crate) fn tell(&self, pacer: &Pacer) {
        let untold = self.untold.take();
        self.told.set(self.told.get().saturating_add(untold));
        pacer.external().add(untold);
    }

    /// Tells the pacer, at a session's end.
    fn end_session(&self, pacer: &Pacer) {
        self.tell(pacer);
        let (brought, step) = (self.told.take(), self.step.get());
        if brought > step {
            self.step.set(brought);
            pacer.external().expect(brought.saturating_sub(step));
        }
    }
}

/// One mutator's own state.
pub struct Context<M> {
    /// Touched by every allocation, so not behind a borrow flag; see
    /// [`with_allocator`](Self::with_allocator).
    allocator: UnsafeCell<Allocator>,
    registrar: RefCell<Registrar>,
    /// Bytes of cleanup records registered that the pacer has not been told of.
    cleanup_bytes: Cell<u64>,
    external: ExternalTally,
    /// What the barrier has marked and the collector has not taken over.
    shaded: RefCell<Shaded>,
    mode: PhantomData<M>,
}

// SAFETY: by the file's invariant one thread uses it at a time, and the handshake orders each use
// before the next. An allocator points to free slots, which belong to it alone.
unsafe impl Send for Context<Shared> {}
// SAFETY: as above. A session's `Mutation`, which leads here, is not `Sync`.
unsafe impl Sync for Context<Shared> {}

impl<M> Context<M> {
    pub(crate) fn new(client: &Client) -> Self {
        Context {
            allocator: UnsafeCell::new(Allocator::new()),
            registrar: RefCell::new(client.registrar()),
            cleanup_bytes: Cell::new(0),
            external: ExternalTally::default(),
            shaded: RefCell::new(Shaded::new()),
            mode: PhantomData,
        }
    }

    /// Calls `f` with the allocator.
    #[inline]
    pub(crate) fn with_allocator<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T {
        // SAFETY: by the file's invariant no other thread is here, and the callers' closures, all
        // in this crate, run no user code and do not come back here; so this is the only reference.
        f(unsafe { &mut *self.allocator.get() })
    }

    pub(crate) fn shaded(&self) -> &RefCell<Shaded> {
        &self.shaded
    }

    pub(crate) fn registrar(&self) -> &RefCell<Registrar> {
        &self.registrar
    }

    /// Counts a registration for the pacer, which is told later.
    #[inline]
    pub(crate) fn charge_cleanup(&self) {
        self.cleanup_bytes.set(self.cleanup_bytes.get() + CLEANUP_BYTES);
    }

    /// Gives the count of the bytes that sessions bring outside the heap.
    #[inline]
    pub(crate) fn external(&self) -> &ExternalTally {
        &self.external
    }

    /// Tells the pacer what it has not been told.
    #[inline]
    pub(crate) fn report(&self, pacer: &Pacer) {
        let ExternalTally { untold, told, .. } = &self.external;
        if self.cleanup_bytes.get() as i64 | untold.get() | told.get() != 0 {
            self.report_slowly(pacer);
        }
    }

    #[inline(never)]
    fn report_slowly(&self, pacer: &Pacer) {
        let bytes = self.cleanup_bytes.take();
        if bytes > 0 {
            pacer.charge_cleanups(bytes);
        }
        self.external.end_session(pacer);
    }

    /// Does the same when a cycle begins, or the mutator goes.
    pub(crate) fn retire(&self, pacer: &Pacer) {
        self.report(pacer);
        pacer.external().expect(-self.external.step.take());
    }
}
