//! What the marker needs to know of a type: where its `Gc` pointers are.
//!
//! [`Trace`] says how to visit the pointers of one value. [`Branded`] is the same type with the
//! session's lifetime left open. By it a heap names its root type outside of every session.
//!
//! Invariant: a reachable value reports every `Gc` and `Weak` it owns, each time it is traced. The
//! derive establishes it; `verify` cannot (it walks by the same impls), so hand-written impls are
//! `unsafe`.

use std::ptr::NonNull;

use sexton_sync::Ordering::Relaxed;
use sexton_sync::fields::AtomicU32;

use crate::memory::address::ObjectAddress;
use crate::memory::mark_stack::{Marker, Pending, Slice, VALUES_PER_OBJECT};
use crate::memory::phase::NO_EPOCH;
use crate::object::gc::Gc;

/// A type that may live in the heap of a session branded `'gc`.
///
/// Derive it: `#[derive(Trace)]` works on structs and enums, generic ones too.
///
/// # Safety
///
/// An implementation promises all of these; the collector frees objects on the strength of them.
///
/// 1. [`trace`](Trace::trace) calls `trace` on every field that can own a `Gc<'gc, _>` or
///    `Weak<'gc, _>`, directly or inside other values. It does so in any state of the value: a
///    borrowed cell, a locked mutex. It does so for the field itself, and not for a copy, which may
///    be gone when the marker comes to it: a long slice is traced later.
/// 2. `NEEDS_TRACE` is `false` only if `'gc` does not occur in the type. That no value of it can
///    own a pointer is not enough. A trait can associate it with a type that does, and a generic
///    type may store that one. It goes by its parameter's constant.
/// 3. `trace` only reads: it does not change the value, not even through a cell, and takes no lock.
///    It may run on any thread, beside open sessions, and more than once for a value. So it reads
///    nothing that a session may change, but by the `trace` of Sexton's cells.
/// 4. Dropping the value reads no `Gc` and no `Weak`: the objects they point to may be gone. A type
///    that owns such a pointer therefore does not implement `Drop`. In a `Shared` heap a value may
///    be dropped on any thread, beside open sessions.
/// 5. [`Family`](Trace::Family) is this very type with `'gc` replaced by `'static`.
/// 6. The pointers that a value owns change only through Sexton's cells. A cell of your own tells
///    [`Mutation::overwrites`](crate::Mutation::overwrites) of the old value before it changes, and
///    traces what it holds within [`Tracer::in_cell`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in the heap of this session",
    label = "derive `Trace` for this type, or wrap it in `Leaf` if it is foreign and holds no `Gc`",
    note = "derive `Trace` for your own type; a foreign type that holds no `Gc` goes into \
            `Leaf<T>`, or its field is marked `#[trace(leaf)]`",
    note = "a type parameter names the session's brand: `T: Trace<'gc>` for a `Mutation<'gc>`",
    note = "a reference into the heap is no field: keep the object's `Gc`; a field that only \
            names the brand is `PhantomData<Gc<'gc, ()>>`",
    note = "a pointer of another session or of another heap is of another brand"
)]
pub unsafe trait Trace<'gc>: Sized {
    /// The type with its brand left open; see [`Branded`].
    type Family: Branded<At<'gc> = Self>;

    /// Whether the brand `'gc` occurs in the type, so that its values can own a `Gc` or a `Weak`.
    ///
    /// Objects of types without are marked by their bit alone and never visited.
    const NEEDS_TRACE: bool;

    /// Whether it is the heap's own weak record, which reports tell from the program's objects.
    #[doc(hidden)]
    const IS_WEAK_RECORD: bool = false;

    /// Reports every pointer the value owns to `tracer`.
    fn trace(&self, tracer: &mut Tracer<'_>);
}

/// A heap type with its brand left open: what `Node<'static>` is to `Node<'gc>`.
///
/// Implemented by the derive. It is how [`Root`](crate::Root) and `Heap` name a type that exists,
/// as values, only within sessions.
///
/// # Safety
///
/// `At<'gc>` must be `Self` with `'static` replaced by `'gc` in brand position, and nothing else:
/// the collector converts between them by a pointer cast.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the `'static` form of a heap type",
    label = "derive `Trace` for it, and name it with its brand set to `'static`, like \
             `World<'static>`"
)]
pub unsafe trait Branded: 'static {
    /// The type as a session of brand `'gc` sees it.
    type At<'gc>: Trace<'gc, Family = Self>;
}

/// The visitor that [`Trace::trace`] reports pointers to.
///
/// Reporting is cheap and never recurses: a pointer goes onto the marker's work list.
pub struct Tracer<'a> {
    marker: &'a mut Marker,
    pending: Pending,
    /// What is traced stays as it is until the mark ends: it is the collector that traces, and not
    /// the content of a cell.
    is_fixed: bool,
}

impl<'a> Tracer<'a> {
    /// Makes a tracer of an object, for a marker.
    #[inline]
    pub(crate) fn new(marker: &'a mut Marker, pending: Pending) -> Self {
        Tracer { marker, pending, is_fixed: true }
    }

    /// Makes a tracer of what a session is about to change.
    pub(crate) fn of_barrier(marker: &'a mut Marker, pending: Pending) -> Self {
        Tracer { marker, pending, is_fixed: false }
    }

    /// Tells what waits, with what was reported here.
    #[inline]
    pub(crate) fn pending(self) -> Pending {
        self.pending
    }

    /// Traces the content of a cell, by `trace`, unless this cycle has done so.
    ///
    /// A cell that is stamped already may be changed by a session at this moment. What it held when
    /// the cycle began has been marked.
    ///
    /// Beside open sessions the cell lies within a lock that the marker has. What lies within the
    /// cell may be blocked, as in [`locked`](Self::locked).
    #[inline]
    pub(crate) fn cell(&mut self, stamp: &Stamp, trace: impl FnOnce(&mut Self)) {
        if self.marker.is_beside_sessions && !stamp.is(self.marker.epoch) {
            return self.locked(stamp, trace);
        }
        if self.marker.epoch != NO_EPOCH && !stamp.renew(self.marker.epoch) {
            return;
        }
        self.in_cell(trace);
    }

    /// Traces the content of a lock, as [`cell`](Self::cell). Beside open sessions `locked` locks it
    /// and traces; if it cannot, it gives `None`, and the owner is traced again later.
    #[inline]
    pub(crate) fn lock(
        &mut self,
        stamp: &Stamp,
        trace: impl FnOnce(&mut Self),
        locked: impl FnOnce(&mut Self) -> Option<()>,
    ) {
        if !self.marker.is_beside_sessions {
            return self.cell(stamp, trace);
        }
        // A session that has stamped it traces it, if it has not done so yet.
        if !stamp.is(self.marker.epoch) && locked(self).is_none() {
            self.marker.is_blocked = true;
        }
    }

    /// Traces the content of a cell that this thread has to itself. It is stamped, unless something
    /// within is blocked: then the barrier has to look at it.
    #[inline]
    pub(crate) fn locked(&mut self, stamp: &Stamp, trace: impl FnOnce(&mut Self)) {
        let was_blocked = std::mem::replace(&mut self.marker.is_blocked, false);
        self.in_cell(trace);
        if !self.marker.is_blocked {
            stamp.renew(self.marker.epoch);
        }
        self.marker.is_blocked |= was_blocked;
    }

    /// Calls `trace` for the content of a cell of your own, which sessions may change.
    ///
    /// What is traced within is traced at once. A long `Vec` elsewhere is traced piece by piece,
    /// and has to stay as it is until the mark ends.
    #[inline]
    pub fn in_cell(&mut self, trace: impl FnOnce(&mut Self)) {
        let is_fixed = std::mem::replace(&mut self.is_fixed, false);
        trace(self);
        self.is_fixed = is_fixed;
    }

    /// Traces the values of a slice. A long one is put off, to be traced piece by piece.
    #[inline]
    pub(crate) fn slice<'gc, T: Trace<'gc>>(&mut self, values: &[T]) {
        if values.len() > LONG && self.is_fixed && self.marker.epoch != NO_EPOCH {
            self.marker.slices.push(Slice {
                first: ObjectAddress(NonNull::from_ref(values).cast()),
                len: values.len(),
                trace: trace_values::<T>,
                value_bytes: size_of::<T>(),
            });
            return;
        }
        self.spend(values.len());
        values.iter().for_each(|value| value.trace(self));
    }

    /// Says that one step traces this many values, for the marker's next look at the clock.
    #[inline]
    pub(crate) fn spend(&mut self, values: usize) {
        self.marker.spent += values / VALUES_PER_OBJECT;
    }

    /// Reports one strong pointer.
    ///
    /// Implementations for containers call their items' `trace` instead.
    #[inline]
    pub fn visit<'gc, T: Trace<'gc>>(&mut self, gc: Gc<'gc, T>) {
        let object = gc.as_address();
        self.pending = if T::NEEDS_TRACE {
            self.marker.visit::<T>(self.pending, object)
        } else {
            self.marker.visit_leaf::<T>(self.pending, object)
        };
    }

    /// Reports an object of a type without pointers, by its address.
    #[inline]
    pub(crate) fn visit_leaf<T>(&mut self, object: NonNull<u8>) {
        self.pending = self.marker.visit_leaf::<T>(self.pending, object);
    }

    /// Lends no values, by `&mut`; called by the derive, whose checks of fields never run.
    #[doc(hidden)]
    #[inline(always)]
    pub fn none<'v, T>(&mut self) -> [&'v mut T; 0] {
        []
    }

    /// Asks at compile time that a field is a leaf; called by the derive.
    ///
    /// The `&mut` makes `T` the field's own type, in whose place a `&` also takes one of longer
    /// lifetimes.
    #[doc(hidden)]
    #[inline(always)]
    pub fn leaf<T: 'static>(&mut self, _field: &mut T) {}

    /// Asks at compile time that a type which derives `Trace` does not implement `Drop`.
    ///
    /// Called by the derive.
    #[doc(hidden)]
    #[inline(always)]
    pub fn derived<T>(&mut self)
    where
        T: private::MustNotImplementDropAsItDerivesTrace<HasDrop = private::No>,
    {
    }
}

/// Values of a slice that are traced in one step: some twenty microseconds of work.
const LONG: usize = 2048;

/// # Safety
///
/// `first` is the first of `len` values of type `T`. They belong to a live object, and no session
/// changes them.
unsafe fn trace_values<'gc, T: Trace<'gc>>(
    first: NonNull<u8>,
    len: usize,
    marker: &mut Marker,
    pending: Pending,
) -> Pending {
    // SAFETY: by this function's contract.
    let values = unsafe { std::slice::from_raw_parts(first.cast::<T>().as_ptr(), len) };
    let mut tracer = Tracer::new(marker, pending);
    values.iter().for_each(|value| value.trace(&mut tracer));
    tracer.pending()
}

/// The last cycle whose mark has traced a cell, or whose barrier has. 0 in a new cell.
///
/// Such a cell may be changed at will until the next cycle begins. All that it held when the cycle
/// began is marked.
///
/// Relaxed: it is changed by the thread that has the cell to itself. A marker that reads it without
/// the cell's lock does nothing if it is the cycle's.
#[derive(Debug, Default)]
pub(crate) struct Stamp(AtomicU32);

impl Stamp {
    /// Makes that of a new cell.
    pub(crate) const fn new() -> Self {
        Stamp(AtomicU32::new(NO_EPOCH))
    }

    /// Tells whether it is that of an epoch.
    #[inline]
    pub(crate) fn is(&self, epoch: u32) -> bool {
        self.0.load(Relaxed) == epoch
    }

    /// Stamps the cell with an epoch. Tells whether it had another stamp.
    #[inline]
    pub(crate) fn renew(&self, epoch: u32) -> bool {
        let is_other = self.0.load(Relaxed) != epoch;
        if is_other {
            self.0.store(epoch, Relaxed);
        }
        is_other
    }
}

#[cfg(all(test, loom))]
impl Stamp {
    pub(crate) fn settle(&self) {
        self.0.settle();
    }
}

/// What only the derive's output names.
pub mod private {
    /// The answer of a type that implements `Drop`.
    #[derive(Debug)]
    pub struct Yes(());

    /// The answer of a type that derives `Trace`.
    #[derive(Debug)]
    pub struct No(());

    /// Implemented for every type with `Drop`, and by the derive for those that derive `Trace`.
    ///
    /// A type that is both has two implementations, and does not compile.
    pub trait MustNotImplementDropAsItDerivesTrace {
        /// Whether the type implements `Drop`.
        type HasDrop;
    }

    #[expect(drop_bounds, reason = "it is about types that implement `Drop` themselves")]
    impl<D: Drop> MustNotImplementDropAsItDerivesTrace for D {
        type HasDrop = Yes;
    }
}
