//! Guards: what `GcRefCell`, `GcMutex` and `GcRwLock` lend.
//!
//! Invariant: a guard leads to the value, and not to the lock. So a lock is taken by a session, and
//! a value is changed by one. lock_api's guards lead to the lock, which knows no sessions.
//!
//! A guard to write has the [`Charge`] for what its value comes to own outside the heap. So it ends
//! with its session.
//!
//! Each guard may be of the whole value or of a part of it. So it is lock_api's mapped guard
//! inside: a second word, which the compiler mostly sees through.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use parking_lot::lock_api::{
    MappedMutexGuard, MappedRwLockReadGuard, MappedRwLockWriteGuard, MutexGuard, RwLockReadGuard,
    RwLockWriteGuard,
};

use crate::payload::charge::Charge;
use crate::payload::raw::{RawGcMutex, RawGcRefCell, RawGcRwLock};

/// Keeps a guard on its thread, and is `Sync`. A feature of parking_lot, which any crate may switch
/// on, makes its own guards `Send`.
type NotSendButSync = PhantomData<std::sync::MutexGuard<'static, ()>>;

macro_rules! guards {
    ($(
        $(#[$doc:meta])*
        $name:ident, $raw:ident, $whole:ident, $part:ident, $charge:ty $(, $mut:tt)?;
    )*) => {$(
        $(#[$doc])*
        #[must_use = "dropping a guard releases the lock"]
        pub struct $name<'a, T: ?Sized> {
            // First, so that it is dropped under the lock.
            charge: $charge,
            value: $part<'a, $raw, T>,
            not_send: NotSendButSync,
        }

        impl<'a, T> $name<'a, T> {
            #[inline]
            pub(crate) fn new(guard: $whole<'a, $raw, T>, charge: $charge) -> Self {
                Self::of($whole::map(guard, |value| value), charge)
            }
        }

        impl<'a, T: ?Sized> $name<'a, T> {
            #[inline]
            fn of(value: $part<'a, $raw, T>, charge: $charge) -> Self {
                $name { charge, value, not_send: PhantomData }
            }

            /// Makes a guard of a part of the value. O(1), beside `f`.
            ///
            /// A panic in `f` releases the lock. Not a method, so as to hide none of the value's.
            #[inline]
            pub fn map<U: ?Sized>(
                guard: Self,
                f: impl FnOnce(&$($mut)? T) -> &$($mut)? U,
            ) -> $name<'a, U> {
                let $name { charge, value, .. } = guard;
                // If `f` panics it is forgotten, which the next cycle makes good: to drop it reads
                // the value, which `f` has borrowed.
                let charge = ManuallyDrop::new(charge);
                let part = $part::map(value, f);
                $name::of(part, ManuallyDrop::into_inner(charge))
            }

            /// Makes a guard of a part of the value, if there is that part. O(1), beside `f`.
            ///
            /// A panic in `f` releases the lock. Not a method, so as to hide none of the value's.
            ///
            /// # Errors
            ///
            /// The guard given, if `f` returns `None`.
            #[inline]
            pub fn filter_map<U: ?Sized>(
                guard: Self,
                f: impl FnOnce(&$($mut)? T) -> Option<&$($mut)? U>,
            ) -> Result<$name<'a, U>, Self> {
                let $name { charge, value, .. } = guard;
                // As above.
                let charge = ManuallyDrop::new(charge);
                let part = $part::try_map(value, f);
                let charge = ManuallyDrop::into_inner(charge);
                match part {
                    Ok(part) => Ok($name::of(part, charge)),
                    Err(whole) => Err(Self::of(whole, charge)),
                }
            }
        }

        impl<T: ?Sized> Deref for $name<'_, T> {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                &self.value
            }
        }

        $(impl<T: ?Sized> DerefMut for $name<'_, T> {
            #[inline]
            fn deref_mut(&$mut self) -> &mut T {
                &mut self.value
            }
        })?

        impl<T: ?Sized + fmt::Debug> fmt::Debug for $name<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $name<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    )*};
}

guards! {
    /// A [`GcMutex`](crate::GcMutex) that is locked; dropping it unlocks that.
    ///
    /// It stays on its thread, and gives the value by `Deref` and `DerefMut`.
    GcMutexGuard, RawGcMutex, MutexGuard, MappedMutexGuard, Charge<'a>, mut;

    /// A [`GcRwLock`](crate::GcRwLock) that is locked to read; dropping it releases that.
    ///
    /// It stays on its thread, and gives the value by `Deref`.
    GcRwLockReadGuard, RawGcRwLock, RwLockReadGuard, MappedRwLockReadGuard, ();

    /// A [`GcRwLock`](crate::GcRwLock) that is locked to write; dropping it releases that.
    ///
    /// It stays on its thread, and gives the value by `Deref` and `DerefMut`.
    GcRwLockWriteGuard, RawGcRwLock, RwLockWriteGuard, MappedRwLockWriteGuard, Charge<'a>, mut;

    /// A [`GcRefCell`](crate::GcRefCell) that is borrowed to read; dropping it ends the borrow.
    ///
    /// It stays on its thread, and gives the value by `Deref`.
    GcRef, RawGcRefCell, RwLockReadGuard, MappedRwLockReadGuard, ();

    /// A [`GcRefCell`](crate::GcRefCell) that is borrowed to be changed; dropping it ends the
    /// borrow.
    ///
    /// It stays on its thread, and gives the value by `Deref` and `DerefMut`.
    GcRefMut, RawGcRefCell, RwLockWriteGuard, MappedRwLockWriteGuard, Charge<'a>, mut;
}
