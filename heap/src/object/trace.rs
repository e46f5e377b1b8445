//! What the marker needs to know of a type: where its `Gc` pointers are.
//!
//! [`Trace`] says how to visit the pointers of one value. [`Branded`] is the same type with the
//! session's lifetime left open. By it a heap names its root type outside of every session.
//!
//! Invariant: a reachable value reports every `Gc` and `Weak` it owns, each time it is traced. The
//! derive establishes it; `verify` cannot (it walks by the same impls), so hand-written impls are
//! `unsafe`.

use std::ptr::NonNull;

use crate::memory::address::ObjectAddress;
use crate::memory::cell_lock::{CellAddress, CellLock};
use crate::memory::mark_stack::{Marker, Pending, Slice, SplitCell};
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
///    be gone when the marker comes to it: long slices, and cells with such, are traced later.
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
/// 7. [`external_bytes`](Trace::external_bytes) only reads what the value owns, as rule 3 says of
///    `trace`, and by the `external_bytes` of the cells. It follows no `Gc`, and does not panic.
/// 8. A value owns nothing that is borrowed for `'gc`: no reference into the heap, no guard, no
///    session (`&'gc Mutation<'gc>`). All of it ends with the session, and the value does not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in the heap of this session",
    label = "derive `Trace` for this type, or wrap it in `Leaf` if it is foreign and holds no `Gc`",
    note = "derive `Trace` for your own type; a foreign type that holds no `Gc` goes into \
            `Leaf<T>`, or its field is marked `#[trace(leaf)]`",
    note = "a type parameter names the session's brand: `T: Trace<'gc>` for a `Mutation<'gc>`",
    note = "a reference into the heap is no field: keep the object's `Gc`; a field that only \
            names the brand is `PhantomData<Gc<'gc, ()>>`",
    note = "a session is no field either: it goes down the stack, alone or in a type that does not \
            derive `Trace`",
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

    /// Tells how many bytes the value owns outside the heap, as far as it knows. By default none.
    ///
    /// A heap counts them beside the bytes of its slots: in its [`Pacing`](crate::Pacing), and in
    /// its limit. The derive gives the sum over the fields. The standard containers tell what they
    /// have allocated, and what their elements own. `Rc` and `Arc` share what they have, and tell
    /// 0. What no field tells is for [`Mutation::external`](crate::Mutation::external).
    ///
    /// Only types with drop glue are asked:
    ///
    /// - of a value that is allocated;
    /// - of what a cell holds, when it is lent to be changed, and again when the guard is dropped;
    /// - of each live object, by the sweep of a cycle. What all of them tell then replaces what was
    ///   known before. So mistakes never add up.
    ///
    /// A look at a container takes up to 32 elements for all of them, and ends after 256 elements
    /// in all that lie within one another. Elements without drop glue are not looked at.
    ///
    /// A cell that is locked, or mutably borrowed, tells 0. The sweep looks at it again at the end
    /// of the cycle.
    ///
    /// It may give any number. It does not panic: a panic within a sweep ends the process.
    #[inline]
    fn external_bytes(&self) -> usize {
        0
    }
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
    place: Place,
}

/// Where that lies what is traced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside of every cell. It stays as it is until the mark ends.
    Fixed,
    /// In a cell that lies there. It stays as it is until the cell's stamp says otherwise.
    Cell,
    /// In a cell within a cell, or in what a session is about to change.
    Changing,
}

impl<'a> Tracer<'a> {
    /// Makes a tracer of an object, for a marker.
    #[inline]
    pub(crate) fn new(marker: &'a mut Marker, pending: Pending) -> Self {
        Tracer { marker, pending, place: Place::Fixed }
    }

    /// Makes a tracer of what a session is about to change.
    pub(crate) fn of_barrier(marker: &'a mut Marker, pending: Pending) -> Self {
        Tracer { marker, pending, place: Place::Changing }
    }

    /// Tells what waits, with what was reported here.
    #[inline]
    pub(crate) fn pending(self) -> Pending {
        self.pending
    }

    /// Traces the content of a cell, by `trace`, unless this cycle has done so. Its long slices are
    /// put off, if it lies outside of every other cell.
    ///
    /// A cell that is stamped already may be changed by a session at this moment. What it held when
    /// the cycle began has been marked.
    ///
    /// Beside open sessions the cell is locked for it. If that fails, the object is traced again
    /// later.
    #[inline]
    pub(crate) fn cell(&mut self, lock: &(impl CellLock + 'static), trace: impl FnOnce(&mut Self)) {
        let (epoch, stamp) = (self.marker.epoch, lock.stamp());
        if epoch == NO_EPOCH {
            return self.in_cell(trace);
        }
        let is_done = stamp.is(epoch) || self.place == Place::Fixed && stamp.is_begun(epoch);
        if is_done {
            return;
        }
        if !self.marker.is_beside_sessions {
            return self.content(lock, trace);
        }
        // A session that has stamped it meanwhile traces it.
        let mut trace = Some(trace);
        let is_locked = lock.visit(&mut || match trace.take() {
            Some(trace) if !stamp.is(epoch) => self.content(lock, trace),
            _ => {}
        });
        if !is_locked {
            self.marker.is_blocked = true;
        }
    }

    /// Traces the content of a cell that this thread has to itself, and stamps the cell. It does
    /// not if something within is blocked: then the barrier has to look at it.
    #[inline]
    fn content(&mut self, lock: &(impl CellLock + 'static), trace: impl FnOnce(&mut Self)) {
        let before = self.marker.slices.len();
        let was_blocked = std::mem::replace(&mut self.marker.is_blocked, false);
        let within = if self.place == Place::Fixed { Place::Cell } else { Place::Changing };
        let place = std::mem::replace(&mut self.place, within);
        trace(self);
        self.place = place;
        if self.marker.is_blocked {
            // They are put off again when the object is traced again.
            self.marker.slices.truncate(before);
        } else if self.marker.slices.len() > before {
            self.split(lock, before);
        } else {
            lock.stamp().set(self.marker.epoch);
        }
        self.marker.is_blocked |= was_blocked;
    }

    /// Has a cell wait for its slices to be traced.
    #[cold]
    fn split(&mut self, lock: &(impl CellLock + 'static), before: usize) {
        let slices = self.marker.slices.split_off(before);
        let lock: &(dyn CellLock + 'static) = lock;
        self.marker.cells.push(SplitCell { lock: CellAddress(NonNull::from_ref(lock)), slices });
        lock.stamp().begin(self.marker.epoch);
    }

    /// Calls `trace` for the content of a cell of your own, which sessions may change.
    ///
    /// What is traced within is traced at once. A long `Vec` elsewhere is traced piece by piece,
    /// and has to stay as it is until the mark ends.
    #[inline]
    pub fn in_cell(&mut self, trace: impl FnOnce(&mut Self)) {
        let place = std::mem::replace(&mut self.place, Place::Changing);
        trace(self);
        self.place = place;
    }

    /// Traces the values of a slice. A long one is put off, to be traced piece by piece. So is one
    /// that comes after many values of the same object.
    #[inline]
    pub(crate) fn slice<'gc, T: Trace<'gc>>(&mut self, values: &[T]) {
        let is_long = values.len() > LONG || values.len() > SHORT && self.marker.spent > ENOUGH;
        if is_long && self.place != Place::Changing && self.marker.epoch != NO_EPOCH {
            return self.put_off(values);
        }
        self.spend(values.len());
        values.iter().for_each(|value| value.trace(self));
    }

    #[cold]
    fn put_off<'gc, T: Trace<'gc>>(&mut self, values: &[T]) {
        let is_fixed = self.place == Place::Fixed;
        self.marker.slices.push(Slice {
            first: ObjectAddress(NonNull::from_ref(values).cast()),
            len: values.len(),
            trace: if is_fixed { trace_values::<T, false> } else { trace_values::<T, true> },
            value_bytes: size_of::<T>(),
        });
    }

    /// Says that one step traces this many values, for the marker's next look at the clock.
    #[inline]
    pub(crate) fn spend(&mut self, values: usize) {
        self.marker.spent += values;
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

    /// Reports one strong pointer to an object whose type is not known here.
    ///
    /// For a pointer type of your own, in the `trace` of an `unsafe` implementation. It costs some
    /// instructions more than [`visit`](Self::visit), and a look at the metadata of the object's
    /// span.
    ///
    /// # Safety
    ///
    /// The address is what [`Gc::as_ptr`] gave for an object of the heap that is being traced. It
    /// was kept as a pointer, with its provenance, and not taken from a reference. The object is
    /// alive, as it is for a `Gc` that a value owns.
    #[inline]
    pub unsafe fn visit_erased(&mut self, object: NonNull<()>) {
        self.visit_untyped(object.cast());
    }

    /// Reports a live object by its address.
    #[inline]
    pub(crate) fn visit_untyped(&mut self, object: NonNull<u8>) {
        self.pending = self.marker.visit_untyped(self.pending, object);
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

/// Values of a slice that are traced in one step: some twenty microseconds of work. A model has a
/// few of them in all.
const LONG: usize = if cfg!(loom) { 1 } else { 2048 };

/// Values of a slice that are not worth to be put off.
const SHORT: usize = 32;

/// Values that one step traces before it puts off all slices but short ones.
const ENOUGH: usize = LONG;

/// # Safety
///
/// `first` is the first of `len` values of type `T`. They belong to a live object, and no session
/// changes them meanwhile. If they are not in a cell, none ever does.
unsafe fn trace_values<'gc, T: Trace<'gc>, const IN_CELL: bool>(
    first: NonNull<u8>,
    len: usize,
    marker: &mut Marker,
    pending: Pending,
) -> Pending {
    // SAFETY: by this function's contract.
    let values = unsafe { std::slice::from_raw_parts(first.cast::<T>().as_ptr(), len) };
    let place = if IN_CELL { Place::Cell } else { Place::Fixed };
    let mut tracer = Tracer { marker, pending, place };
    values.iter().for_each(|value| value.trace(&mut tracer));
    tracer.pending()
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
