//! Guards: what `GcRefCell`, `GcMutex` and `GcRwLock` lend.
//!
//! Invariant: a guard leads to the value, and not to the lock. So a lock is taken by a session, and
//! a value is changed by one. lock_api's guards lead to the lock, which knows no sessions.
//!
//! Each guard may be of the whole value or of a part of it. So it is lock_api's mapped guard
//! inside: a second word, which the compiler mostly sees through.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use parking_lot::lock_api::{
    MappedMutexGuard, MappedRwLockReadGuard, MappedRwLockWriteGuard, MutexGuard, RwLockReadGuard,
    RwLockWriteGuard,
};

use crate::payload::raw::{RawGcMutex, RawGcRefCell, RawGcRwLock};

/// Keeps a guard on its thread, and is `Sync`. A feature of parking_lot, which any crate may switch
/// on, makes its own guards `Send`.
type NotSendButSync = PhantomData<std::sync::MutexGuard<'static, ()>>;

macro_rules! guards {
    ($($(#[$doc:meta])* $name:ident, $raw:ident, $whole:ident, $part:ident $(, $mut:tt)?;)*) => {$(
        $(#[$doc])*
        #[must_use = "dropping a guard releases the lock"]
        pub struct $name<'a, T: ?Sized> {
            value: $part<'a, $raw, T>,
            not_send: NotSendButSync,
        }

        impl<'a, T> $name<'a, T> {
            #[inline]
            pub(crate) fn new(guard: $whole<'a, $raw, T>) -> Self {
                Self::of($whole::map(guard, |value| value))
            }
        }

        impl<'a, T: ?Sized> $name<'a, T> {
            #[inline]
            fn of(value: $part<'a, $raw, T>) -> Self {
                $name { value, not_send: PhantomData }
            }

            /// Makes a guard of a part of the value. O(1), beside `f`.
            ///
            /// A panic in `f` releases the lock. Not a method, so as to hide none of the value's.
            #[inline]
            pub fn map<U: ?Sized>(
                guard: Self,
                f: impl FnOnce(&$($mut)? T) -> &$($mut)? U,
            ) -> $name<'a, U> {
                $name::of($part::map(guard.value, f))
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
                $part::try_map(guard.value, f).map($name::of).map_err(Self::of)
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
    GcMutexGuard, RawGcMutex, MutexGuard, MappedMutexGuard, mut;

    /// A [`GcRwLock`](crate::GcRwLock) that is locked to read; dropping it releases that.
    ///
    /// It stays on its thread, and gives the value by `Deref`.
    GcRwLockReadGuard, RawGcRwLock, RwLockReadGuard, MappedRwLockReadGuard;

    /// A [`GcRwLock`](crate::GcRwLock) that is locked to write; dropping it releases that.
    ///
    /// It stays on its thread, and gives the value by `Deref` and `DerefMut`.
    GcRwLockWriteGuard, RawGcRwLock, RwLockWriteGuard, MappedRwLockWriteGuard, mut;

    /// A [`GcRefCell`](crate::GcRefCell) that is borrowed to read; dropping it ends the borrow.
    ///
    /// It stays on its thread, and gives the value by `Deref`.
    GcRef, RawGcRefCell, RwLockReadGuard, MappedRwLockReadGuard;

    /// A [`GcRefCell`](crate::GcRefCell) that is borrowed to be changed; dropping it ends the
    /// borrow.
    ///
    /// It stays on its thread, and gives the value by `Deref` and `DerefMut`.
    GcRefMut, RawGcRefCell, RwLockWriteGuard, MappedRwLockWriteGuard, mut;
}
