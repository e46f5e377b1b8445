//! What the marker needs to know of a type: where its `Gc` pointers are.
//!
//! [`Trace`] says how to visit the pointers of one value. [`Branded`] is the same type with the
//! session's lifetime left open. By it a heap names its root type outside of every session.
//!
//! Invariant: a reachable value reports every `Gc` and `Weak` it owns, each time it is traced. The
//! derive establishes it; `verify` cannot (it walks by the same impls), so hand-written impls are
//! `unsafe`.

use std::ptr::NonNull;

use crate::memory::mark_stack::{Marker, Pending};
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
///    borrowed cell, a locked mutex.
/// 2. `NEEDS_TRACE` is `false` only if `'gc` does not occur in the type. That no value of it can
///    own a pointer is not enough. A trait can associate it with a type that does, and a generic
///    type may store that one. It goes by its parameter's constant.
/// 3. `trace` only reads: it does not change the value, not even through a cell, and takes no lock.
///    It may run on another thread than the one that made the value, while no session is open.
/// 4. Dropping the value reads no `Gc` and no `Weak`: the objects they point to may be gone. A type
///    that owns such a pointer therefore does not implement `Drop`.
/// 5. [`Family`](Trace::Family) is this very type with `'gc` replaced by `'static`.
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
}

impl<'a> Tracer<'a> {
    #[inline]
    pub(crate) fn new(marker: &'a mut Marker, pending: Pending) -> Self {
        Tracer { marker, pending }
    }

    /// Tells what waits, with what was reported here.
    #[inline]
    pub(crate) fn pending(self) -> Pending {
        self.pending
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
