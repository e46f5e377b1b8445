//! `Gc`: the pointer of a session to an object of its heap.
//!
//! Invariant: a `Gc<'gc, T>` exists only within the session of brand `'gc`, in which nothing is
//! freed. So it points to a live, initialised `T`. The function that makes one (alloc, fetch,
//! upgrade) vouches for it.

use std::any::type_name;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use crate::object::trace::{Branded, Trace, Tracer};

/// Makes a type invariant in the brand `'gc`, so that no two sessions' pointers unify.
pub(crate) type Brand<'gc> = PhantomData<fn(&'gc ()) -> &'gc ()>;

/// A pointer to an object of the heap, good for one session.
///
/// One word, `Copy`, and free to follow. It cannot leave its session: keep an object by linking it
/// from the heap's root, or by [`Mutation::root`](crate::Mutation::root). Where `T` is `Sync` it
/// may go to other threads within the session, to scoped ones; they can read by it.
// Transparent, so that a `GcAtomic` can lend itself as an `Option` of one.
#[repr(transparent)]
pub struct Gc<'gc, T> {
    object: NonNull<T>,
    brand: Brand<'gc>,
}

impl<'gc, T> Gc<'gc, T> {
    /// # Safety
    ///
    /// `object` is a live object of the heap whose session is `'gc`, and stays so while that
    /// session is open.
    pub(crate) unsafe fn from_object(object: NonNull<T>) -> Self {
        Gc { object, brand: PhantomData }
    }

    /// Lends the object for as long as the session lasts.
    ///
    /// A deref lasts only as long as the borrow of the `Gc`. Not a method, so that it hides none of
    /// the object's.
    #[expect(clippy::should_implement_trait, reason = "the trait's borrow would be too short")]
    #[inline]
    pub fn as_ref(this: Self) -> &'gc T
    where
        T: 'gc,
    {
        // SAFETY: by this file's invariant the object is live and initialised for all of 'gc. There
        // is no `&mut` to it: payloads are reached through `Gc` and the tracer only.
        unsafe { this.object.as_ref() }
    }

    /// Gives the object's address. O(1).
    ///
    /// Objects never move, and no two that live at the same time, zero-sized ones included, have
    /// the same. The address is a multiple of 8, or of the type's alignment if that is more. So a
    /// tagged pointer has three bits at least. For keys of maps see [`key`](Gc::key).
    #[inline]
    pub fn as_ptr(this: Self) -> *const T {
        this.object.as_ptr()
    }

    /// Makes a pointer of an object's address.
    ///
    /// For pointers that are stored in another form, such as with a tag. A type that stores them
    /// implements [`Trace`] by hand, and reports them by this or by [`Tracer::visit_erased`].
    ///
    /// # Safety
    ///
    /// The address is what [`as_ptr`](Self::as_ptr) gave for a `Gc<T>` to an object of the heap
    /// whose session is `'gc`, with any brand. It was kept as a pointer, with its provenance, and
    /// not taken from a reference. A tag comes and goes by `map_addr`.
    ///
    /// The object is alive for all of `'gc`: a pointer to it was made, fetched or upgraded in this
    /// session, or it is reachable, or it is being traced.
    #[inline]
    pub unsafe fn from_ptr(object: *const T) -> Self {
        // SAFETY: by this function's contract it is an object's, so it is not null.
        let object = unsafe { NonNull::new_unchecked(object.cast_mut()) };
        // SAFETY: by this function's contract.
        unsafe { Gc::from_object(object) }
    }

    /// Says that the object is of another type. O(1).
    ///
    /// The heap goes on to trace and drop the object as the type that it was allocated as. For
    /// another type that is only known at run time, there is [`GcAny`](crate::GcAny).
    ///
    /// # Safety
    ///
    /// The object is a valid `U`, at each brand, for as long as there is a pointer to it as one:
    /// this, a copy in the heap, a root or a weak pointer. `U` has the size and the alignment of
    /// the type that the object was allocated as, and the same `Trace::NEEDS_TRACE`: the heap finds
    /// the object's slot by them. Changes that the `U` allows leave the object valid as the type
    /// that it was allocated as.
    ///
    /// `U` is `Send` or `Sync` only if that type is, too. Several threads use the object only as
    /// both types allow.
    #[inline]
    pub unsafe fn cast<U>(this: Self) -> Gc<'gc, U> {
        // SAFETY: by this function's contract it is a live `U`.
        unsafe { Gc::from_object(this.object.cast()) }
    }

    /// Tells whether both point to the same object. A zero-sized object has an identity too.
    #[inline]
    pub fn ptr_eq(self, other: Self) -> bool {
        self.object == other.object
    }

    /// Makes a key for maps and sets, which compares identities. O(1).
    ///
    /// Not a method, so that it hides none of the object's.
    #[inline]
    pub fn key(this: Self) -> GcKey<'gc, T> {
        GcKey { gc: this }
    }

    #[inline]
    pub(crate) fn as_address(self) -> NonNull<u8> {
        self.object.cast()
    }
}

// SAFETY: it gives what a `&T` gives, and no more: changes take the session, which stays on its
// thread. It cannot outlive the session, as little as the threads that it is sent to can.
unsafe impl<T: Sync> Send for Gc<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Gc<'_, T> {}

impl<T> Copy for Gc<'_, T> {}

impl<T> Clone for Gc<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Deref for Gc<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as for `as_ref`; the `Gc` exists within its session only.
        unsafe { self.object.as_ref() }
    }
}

/// Compares the objects, like `Rc`. For the pointers see [`ptr_eq`](Gc::ptr_eq) and
/// [`key`](Gc::key), as a derived comparison of objects that form a cycle does not end.
impl<T: PartialEq> PartialEq for Gc<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Gc<'_, T> {}

impl<T: PartialOrd> PartialOrd for Gc<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(other)
    }
}

impl<T: Ord> Ord for Gc<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl<T: Hash> Hash for Gc<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Writes the object's type and address, and not the object, which may lead back to the pointer.
/// For the object itself: `&*gc`.
impl<T> fmt::Debug for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gc<{}>({:p})", type_name::<T>(), self.object)
    }
}

impl<T: fmt::Display> fmt::Display for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T> fmt::Pointer for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Pointer::fmt(&self.object, f)
    }
}

// SAFETY: the one pointer is reported; NEEDS_TRACE is true; dropping a `Gc` does nothing; the
// family is the same pointer with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for Gc<'gc, T> {
    type Family = Gc<'static, T::Family>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        tracer.visit(*self);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for Gc<'static, F> {
    type At<'gc> = Gc<'gc, F::At<'gc>>;
}

/// Stands for an object in maps and sets: a [`Gc`] that compares identities.
///
/// Made by [`Gc::key`], for a session as well as for a payload. It is traced like the pointer that
/// it holds. So its object lives as long as the key does, and no other object takes its address. It
/// has the brand of its session, so keys of two heaps cannot be compared.
///
/// [`Weak`](crate::Weak) needs no such type, as it compares identities itself.
///
/// ```
/// # use std::collections::HashSet;
/// # use sexton_heap::{Gc, GcCell, Mutation};
/// # struct Node<'gc> { next: GcCell<Option<Gc<'gc, Node<'gc>>>> }
/// fn length<'gc>(first: Gc<'gc, Node<'gc>>) -> usize {
///     let mut seen = HashSet::new();
///     let mut next = Some(first);
///     while let Some(node) = next && seen.insert(Gc::key(node)) {
///         next = node.next.get();
///     }
///     seen.len()
/// }
/// ```
pub struct GcKey<'gc, T> {
    gc: Gc<'gc, T>,
}

impl<'gc, T> GcKey<'gc, T> {
    /// Gives the pointer. O(1).
    #[inline]
    pub fn gc(self) -> Gc<'gc, T> {
        self.gc
    }
}

impl<T> Copy for GcKey<'_, T> {}

impl<T> Clone for GcKey<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<'gc, T> From<Gc<'gc, T>> for GcKey<'gc, T> {
    #[inline]
    fn from(gc: Gc<'gc, T>) -> Self {
        Gc::key(gc)
    }
}

impl<T> PartialEq for GcKey<'_, T> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.gc.object == other.gc.object
    }
}

impl<T> Eq for GcKey<'_, T> {}

impl<T> PartialOrd for GcKey<'_, T> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Orders by address: an order that stays, and means nothing.
impl<T> Ord for GcKey<'_, T> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.gc.object.cmp(&other.gc.object)
    }
}

impl<T> Hash for GcKey<'_, T> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.gc.object.hash(state);
    }
}

impl<T> fmt::Debug for GcKey<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GcKey<{}>({:p})", type_name::<T>(), self.gc.object)
    }
}

// SAFETY: the one pointer is reported; NEEDS_TRACE is true; dropping a key does nothing; the family
// is the same key with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcKey<'gc, T> {
    type Family = GcKey<'static, T::Family>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.gc.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcKey<'static, F> {
    type At<'gc> = GcKey<'gc, F::At<'gc>>;
}
