//! Weak pointers: a record per target, itself an object of the heap.
//!
//! A [`Weak`] points to its target's *weak record*, one word that holds the target's address. The
//! record lives while some `Weak` reaches it; the marker marks it by its bit alone. The target's
//! span remembers it in a lazily made table. So a target has one record, however often it is
//! downgraded.
//!
//! Invariant: at the end of mark, before any slot is swept or any cleanup is queued, the record of
//! every dead target is cleared. So a `Weak` never upgrades to an object that is about to go, and
//! no cleanup can run while one still could. Within a cycle `upgrade` asks the marks as well; see
//! `session/mutation.rs`.

use std::any::type_name;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::memory::weak_table::WeakRecord;
use crate::object::gc::{Brand, Gc};
use crate::object::trace::{Branded, Trace, Tracer};

// SAFETY: the target is not owned, so there is nothing to report and nothing that needs tracing; a
// record has no drop glue; the type carries no brand.
unsafe impl<'gc> Trace<'gc> for WeakRecord {
    type Family = WeakRecord;
    const NEEDS_TRACE: bool = false;
    const IS_WEAK_RECORD: bool = true;

    fn trace(&self, _tracer: &mut Tracer<'_>) {}
}

// SAFETY: the type carries no brand, so it is the same at every one.
unsafe impl Branded for WeakRecord {
    type At<'gc> = WeakRecord;
}

impl Tracer<'_> {
    /// Reports one weak pointer: its record stays, its target need not.
    #[inline]
    pub fn visit_weak<'gc, T: Trace<'gc>>(&mut self, weak: Weak<'gc, T>) {
        self.visit_leaf::<WeakRecord>(weak.record_address());
    }
}

/// A pointer that does not keep its target alive.
///
/// Made by [`Mutation::downgrade`](crate::Mutation::downgrade); followed by
/// [`upgrade`](Weak::upgrade). It is cleared before any cleanup of its target can run, and before
/// the target's `Drop` glue does.
pub struct Weak<'gc, T> {
    record: NonNull<WeakRecord>,
    target: PhantomData<Gc<'gc, T>>,
    brand: Brand<'gc>,
}

impl<'gc, T> Weak<'gc, T> {
    /// # Safety
    ///
    /// `record` is a live weak record of this session's heap whose target is, or was, a `T`.
    pub(crate) unsafe fn from_record(record: NonNull<WeakRecord>) -> Self {
        Weak { record, target: PhantomData, brand: PhantomData }
    }

    #[inline]
    fn record(&self) -> &WeakRecord {
        // SAFETY: a `Weak` in the hands of a session was reached or made in it, so its record is
        // live for all of 'gc.
        unsafe { self.record.as_ref() }
    }

    /// Tells whether a collection has found that the target is dead. One load.
    ///
    /// That stays so: `upgrade` gives `None` from then on. The other way round says less. A target
    /// that has died is found by the next collection, and within one `upgrade` may know before.
    ///
    /// It needs no session, so a table of weak pointers can be pruned by `retain`:
    ///
    /// ```
    /// # use sexton_heap::{GcRefCell, Leaf, Mutation, Weak};
    /// fn prune<'gc>(mc: &Mutation<'gc>, table: &GcRefCell<Vec<Weak<'gc, Leaf<u32>>>>) {
    ///     table.borrow_mut(mc).retain(|weak| !weak.is_cleared());
    /// }
    /// ```
    #[inline]
    pub fn is_cleared(self) -> bool {
        self.record().target().is_none()
    }

    /// Gives the target, or `None` if it has died. Called within the session.
    #[inline]
    pub(crate) fn target(self) -> Option<Gc<'gc, T>> {
        let target = self.record().target()?;
        // SAFETY: an uncleared target survived the last mark or is younger than it, or its record
        // is still to be cleared; nothing is swept before that is done, and the phase stays the
        // same within a session. `from_record` vouches for its type.
        Some(unsafe { Gc::from_object(target.cast()) })
    }

    /// Tells whether both were made from the same target, dead or alive; as `==` says, too.
    #[inline]
    pub fn ptr_eq(self, other: Self) -> bool {
        self.record == other.record
    }

    #[inline]
    pub(crate) fn record_address(self) -> NonNull<u8> {
        self.record.cast()
    }
}

// SAFETY: it gives a `Gc` to sessions only, and that may be sent under the same condition. Its
// record is an atomic.
unsafe impl<T: Sync> Send for Weak<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Weak<'_, T> {}

impl<T> Copy for Weak<'_, T> {}

impl<T> Clone for Weak<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

/// Compares identities: two are equal if they were made from the same target, dead or alive.
///
/// They are of one record then, which no other target has while a `Weak` leads to it. So equality,
/// order and hash stay when the target dies, and a `Weak` may be the key of a map in a payload.
impl<T> PartialEq for Weak<'_, T> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl<T> Eq for Weak<'_, T> {}

impl<T> PartialOrd for Weak<'_, T> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Orders by the record's address: an order that stays, and means nothing.
impl<T> Ord for Weak<'_, T> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.record.cmp(&other.record)
    }
}

impl<T> Hash for Weak<'_, T> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.record.hash(state);
    }
}

/// Writes the target's type and the record's address; the target itself may be dead.
impl<T> fmt::Debug for Weak<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weak<{}>({:p})", type_name::<T>(), self.record)
    }
}

// SAFETY: the one thing a `Weak` needs, its record, is reported; dropping a `Weak` does nothing;
// the family is the same pointer with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for Weak<'gc, T> {
    type Family = Weak<'static, T::Family>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        tracer.visit_weak(*self);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for Weak<'static, F> {
    type At<'gc> = Weak<'gc, F::At<'gc>>;
}
