//! `GcAny`: a pointer to an object of any type, with the way back.
//!
//! An object needs no header for that: its span knows its type.
//!
//! Invariant: a `GcAny` points to a live object for all of `'gc`, as a `Gc` does, which it was made
//! of. The object's type fits the mode.

use std::any::TypeId;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::memory::locking::{Local, Shared};
use crate::memory::span::SpanRef;
use crate::object::gc::{Brand, Gc};
use crate::object::trace::{Branded, Trace, Tracer};
use crate::session::mode::{Mode, Payload};

/// A pointer to an object of a type that is not known at compile time.
///
/// One word, `Copy`, made of any [`Gc`] by `From`. [`downcast`](Self::downcast) leads back. It
/// keeps its object alive, as a `Gc` does. It compares identities, so it may be the key of a map.
/// It suits values that a program defines and an interpreter only passes on.
///
/// `M` is the mode of the heaps that it is for. One for `Shared` heaps is made of what is
/// `Send + Sync`, and may be sent.
///
/// ```
/// # use sexton_heap::{Gc, GcAny, Leaf, Mutation};
/// fn describe<'gc>(value: GcAny<'gc>) -> String {
///     if let Some(number) = value.downcast::<Leaf<i64>>() {
///         format!("the number {}", **number)
///     } else if let Some(text) = value.downcast::<Leaf<String>>() {
///         format!("the text {}", text.as_str())
///     } else {
///         format!("a {}", value.type_name())
///     }
/// }
///
/// fn all<'gc>(mc: &Mutation<'gc>) -> [String; 2] {
///     let (number, letter) = (mc.alloc(Leaf::new(7_i64)), mc.alloc(Leaf::new('x')));
///     [number.into(), letter.into()].map(describe)
/// }
/// ```
pub struct GcAny<'gc, M: Mode = Local> {
    object: NonNull<u8>,
    brand: Brand<'gc>,
    mode: PhantomData<M>,
}

impl<'gc, M: Mode> GcAny<'gc, M> {
    /// Tells whether the object is a `T`. O(1), with a look at the metadata of the object's span.
    #[inline]
    pub fn is<T: Trace<'gc>>(self) -> bool {
        SpanRef::containing(self.object).info().type_id == TypeId::of::<T::Family>()
    }

    /// Gives the pointer back, if the object is a `T`. O(1), as [`is`](Self::is).
    #[inline]
    pub fn downcast<T: Trace<'gc>>(self) -> Option<Gc<'gc, T>> {
        // SAFETY: it is a live object of the family of `T`, which is a `T` in this session.
        self.is::<T>().then(|| unsafe { Gc::from_object(self.object.cast()) })
    }

    /// Gives the name of the object's type, for messages.
    pub fn type_name(self) -> &'static str {
        (SpanRef::containing(self.object).info().name)()
    }

    /// Gives the object's address, as [`Gc::as_ptr`] does. O(1).
    #[inline]
    pub fn as_ptr(self) -> *const () {
        self.object.as_ptr().cast()
    }
}

impl<'gc, M: Mode, T: Trace<'gc> + Payload<M>> From<Gc<'gc, T>> for GcAny<'gc, M> {
    #[inline]
    fn from(gc: Gc<'gc, T>) -> Self {
        GcAny { object: gc.as_address(), brand: PhantomData, mode: PhantomData }
    }
}

// SAFETY: it gives what a `Gc` of an object gives that is `Send + Sync`, and that may be sent.
unsafe impl Send for GcAny<'_, Shared> {}
// SAFETY: as above.
unsafe impl Sync for GcAny<'_, Shared> {}

impl<M: Mode> Copy for GcAny<'_, M> {}

impl<M: Mode> Clone for GcAny<'_, M> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Mode> PartialEq for GcAny<'_, M> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.object == other.object
    }
}

impl<M: Mode> Eq for GcAny<'_, M> {}

impl<M: Mode> PartialOrd for GcAny<'_, M> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Orders by address: an order that stays, and means nothing.
impl<M: Mode> Ord for GcAny<'_, M> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.object.cmp(&other.object)
    }
}

impl<M: Mode> Hash for GcAny<'_, M> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.object.hash(state);
    }
}

impl<M: Mode> fmt::Debug for GcAny<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GcAny<{}>({:p})", self.type_name(), self.object)
    }
}

// SAFETY: the one pointer is reported; NEEDS_TRACE is true; dropping it does nothing; the family is
// the same pointer with its brand open.
unsafe impl<'gc, M: Mode> Trace<'gc> for GcAny<'gc, M> {
    type Family = GcAny<'static, M>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        tracer.visit_untyped(self.object);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<M: Mode> Branded for GcAny<'static, M> {
    type At<'gc> = GcAny<'gc, M>;
}
