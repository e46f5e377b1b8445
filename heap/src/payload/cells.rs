//! Payload building blocks: the cells, mutexes and atomics through which a program links its
//! objects, and the leaf that holds everything else.
//!
//! All pointer writes take the session. While a cycle marks, what is about to be overwritten is
//! marked first, by [`Mutation::overwrites`]. A cell that is lent to be changed is looked at once a
//! cycle. Tracing consults no borrow flag, and takes a lock only beside open sessions. No guard can
//! be live outside a session, and a leaked one must not hide its pointers from the marker.
//!
//! `GcCell` and `GcRefCell` are for one thread, and not `Sync`: a `Shared` heap takes no object
//! that has one. `GcMutex`, `GcRwLock`, `GcOnce` and `GcAtomic` are for both modes.
//!
//! A thread waits for a lock within a session, so a lock is held for no longer than the work under
//! it. A lock that is never released keeps every collection waiting. It is reported like any
//! session that does not end.

use std::any::type_name;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem::needs_drop;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use parking_lot::lock_api::{self, RawMutex as _, RawRwLock as _};
use sexton_sync::fields::AtomicPtr;
use sexton_sync::{Ordering, thread_local};

use crate::memory::cell_lock::CellLock;
use crate::memory::look;
use crate::object::gc::{Brand, Gc};
use crate::object::trace::{Branded, Trace, Tracer};
use crate::payload::charge::Charge;
use crate::payload::guards::{
    GcMutexGuard, GcRef, GcRefMut, GcRwLockReadGuard, GcRwLockWriteGuard,
};
use crate::payload::raw::{RawGcMutex, RawGcRefCell, RawGcRwLock};
use crate::payload::std_impls::known_bytes;
use crate::session::mode::Mode;
use crate::session::mutation::Mutation;

/// Ends a session of a `Local` heap that would wait for a lock.
#[cold]
#[inline(never)]
#[track_caller]
fn would_wait_for_itself<L>(instead: &str) -> ! {
    panic!(
        "a `{}` is locked already, and would wait for itself, as a `Local` heap has one thread: \
         drop the guard that there is first, or use `{instead}`",
        type_name::<L>()
    )
}

/// Tells what the content of a cell owns outside the heap: nothing if the lock is not to be had.
///
/// A thread that sweeps may come beside open sessions. A session's `try_lock` is not to fail
/// because of that. So its look counts as a visit, as a marker's does. Any other thread's does not:
/// one thread at a time counts.
fn external_bytes<'gc, T: Trace<'gc>, G: Deref<Target = T>>(
    lock: &impl CellLock,
    try_lock: impl Fn() -> Option<G>,
) -> usize {
    let look = || try_lock().map(|value| value.external_bytes());
    let bytes = if look::is_by_sweep() {
        let mut bytes = None;
        lock.count(&mut || bytes = look());
        bytes
    } else {
        look()
    };
    if bytes.is_none() {
        look::is_blocked();
    }
    bytes.unwrap_or(0)
}

/// Writes a cell with its value, or why that cannot be seen.
fn debug<T: fmt::Debug>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    value: Option<impl Deref<Target = T>>,
    otherwise: &str,
) -> fmt::Result {
    match value {
        Some(value) => f.debug_tuple(name).field(&*value).finish(),
        None => write!(f, "{name}(<{otherwise}>)"),
    }
}

/// A mutable field for `Copy` values, such as `Gc` and `Option<Gc>`.
#[derive(Default)]
pub struct GcCell<T> {
    value: UnsafeCell<T>,
}

impl<T> GcCell<T> {
    /// Makes a cell that holds `value`.
    pub const fn new(value: T) -> Self {
        GcCell { value: UnsafeCell::new(value) }
    }

    /// Replaces the value. O(1).
    #[inline]
    pub fn set<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>, value: T)
    where
        T: Trace<'gc>,
    {
        self.replace(mc, value);
    }

    /// Replaces the value and returns the old one. O(1).
    #[inline]
    pub fn replace<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>, value: T) -> T
    where
        T: Trace<'gc>,
    {
        // SAFETY: the cell is not `Sync` and lends no reference to its value, so this is the only
        // one. Trace glue does not come back here, as it writes no cell.
        let old = unsafe { &mut *self.value.get() };
        mc.overwrites(old);
        mc.replaces(old, &value);
        std::mem::replace(old, value)
    }

    /// Takes the value out and leaves the default. O(1).
    #[inline]
    pub fn take<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>) -> T
    where
        T: Default + Trace<'gc>,
    {
        self.replace(mc, T::default())
    }

    /// Gives the value back, when the cell is in no heap. O(1).
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Lends the value, to be changed without a session. O(1).
    ///
    /// It takes a mutable borrow: of what is in no heap yet, or of what a guard lends.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Copy> GcCell<T> {
    /// Gives a copy of the value. O(1).
    #[inline]
    pub fn get(&self) -> T {
        // SAFETY: the cell is not `Sync` and lends no reference, so it is not written meanwhile.
        unsafe { *self.value.get() }
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for GcCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GcCell").field(&self.get()).finish()
    }
}

// SAFETY: the value is traced; the read through the cell is exclusive of writes, because the cell
// is for one thread, and a write runs no slice of a collection; there is no `Drop`; the family is
// the cell with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcCell<T> {
    type Family = GcCell<T::Family>;
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: as above: no write is under way.
        let value = unsafe { &*self.value.get() };
        tracer.in_cell(|tracer| value.trace(tracer));
    }

    #[inline]
    fn external_bytes(&self) -> usize {
        // SAFETY: as above. An `external_bytes` writes no cell either.
        unsafe { &*self.value.get() }.external_bytes()
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcCell<F> {
    type At<'gc> = GcCell<F::At<'gc>>;
}

/// A mutable field for values of any size, with borrows checked at run time.
///
/// A collection in slices traces a long `Vec` in it piece by piece, and readers may come between.
/// The first mutable borrow in a cycle that marks may look at all that the cell holds: 5 to 15 ns
/// for each pointer. For a collection of many pointers that is changed there is
/// [`GcVec`](crate::GcVec).
///
/// A map is traced in one step, and so is all that lies in a cell within a cell.
#[derive(Default)]
pub struct GcRefCell<T> {
    value: lock_api::RwLock<RawGcRefCell, T>,
}

impl<T> GcRefCell<T> {
    /// Makes a cell that holds `value`.
    pub const fn new(value: T) -> Self {
        GcRefCell { value: lock_api::RwLock::from_raw(RawGcRefCell::INIT, value) }
    }

    /// Replaces the value and returns the old one. O(1).
    ///
    /// # Panics
    ///
    /// If it is borrowed.
    #[inline]
    #[track_caller]
    pub fn replace<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>, value: T) -> T
    where
        T: Trace<'gc>,
    {
        std::mem::replace(&mut *self.borrow_mut(mc), value)
    }

    /// Takes the value out and leaves the default. O(1).
    ///
    /// # Panics
    ///
    /// If it is borrowed.
    #[inline]
    #[track_caller]
    pub fn take<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>) -> T
    where
        T: Default + Trace<'gc>,
    {
        std::mem::take(&mut *self.borrow_mut(mc))
    }

    /// Gives the value back, when the cell is in no heap. O(1).
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Lends the value, to be changed without a session. O(1).
    ///
    /// It takes a mutable borrow: of what is in no heap yet, or of what a guard lends.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Borrows the value to read it. O(1).
    ///
    /// # Panics
    ///
    /// If it is mutably borrowed.
    #[inline]
    #[track_caller]
    pub fn borrow(&self) -> GcRef<'_, T> {
        match self.try_borrow() {
            Some(borrow) => borrow,
            None => is_borrowed::<Self>("already mutably borrowed"),
        }
    }

    /// Borrows the value to change it. O(1).
    ///
    /// # Panics
    ///
    /// If it is borrowed.
    #[inline]
    #[track_caller]
    pub fn borrow_mut<'a, 'gc: 'a, M: Mode>(&'a self, mc: &Mutation<'gc, M>) -> GcRefMut<'a, T>
    where
        T: Trace<'gc>,
    {
        match self.try_borrow_mut(mc) {
            Some(borrow) => borrow,
            None => is_borrowed::<Self>("already borrowed"),
        }
    }

    /// Borrows the value to read it, or `None` if it is mutably borrowed. O(1).
    #[inline]
    pub fn try_borrow(&self) -> Option<GcRef<'_, T>> {
        self.value.try_read().map(|guard| GcRef::new(guard, ()))
    }

    /// Borrows the value to change it, or `None` if it is borrowed. O(1).
    #[inline]
    pub fn try_borrow_mut<'a, 'gc: 'a, M: Mode>(
        &'a self,
        mc: &Mutation<'gc, M>,
    ) -> Option<GcRefMut<'a, T>>
    where
        T: Trace<'gc>,
    {
        let guard = self.value.try_write()?;
        mc.lends(self.raw(), &*guard);
        // SAFETY: the guard has the cell, and drops the charge first.
        let charge = unsafe { Charge::begin(mc.tally(), self.value.data_ptr()) };
        Some(GcRefMut::new(guard, charge))
    }

    #[inline]
    fn raw(&self) -> &RawGcRefCell {
        // SAFETY: the lock is not unlocked by it.
        unsafe { self.value.raw() }
    }
}

/// The methods of a cell that is an object, by its pointer. What they lend is good for `'gc`.
///
/// So a function may return it that has the pointer by value. For a cell that is a field of an
/// object, `Gc::as_ref(gc).field.borrow_mut(mc)` does the same.
///
/// ```
/// # use sexton_heap::{Gc, GcRefCell, GcRefMut, Mutation};
/// fn top<'gc>(stack: Gc<'gc, GcRefCell<Vec<u32>>>, mc: &Mutation<'gc>) -> GcRefMut<'gc, u32> {
///     GcRefMut::map(stack.borrow_mut(mc), |stack| stack.last_mut().expect("it has a top"))
/// }
/// ```
impl<'gc, T: 'gc> Gc<'gc, GcRefCell<T>> {
    /// [`GcRefCell::borrow`], for `'gc`. O(1).
    ///
    /// # Panics
    ///
    /// If the value is mutably borrowed.
    #[inline]
    #[track_caller]
    pub fn borrow(self) -> GcRef<'gc, T> {
        Gc::as_ref(self).borrow()
    }

    /// [`GcRefCell::try_borrow`], for `'gc`. O(1).
    #[inline]
    pub fn try_borrow(self) -> Option<GcRef<'gc, T>> {
        Gc::as_ref(self).try_borrow()
    }

    /// [`GcRefCell::borrow_mut`], for `'gc`. O(1).
    ///
    /// # Panics
    ///
    /// If the value is borrowed.
    #[inline]
    #[track_caller]
    pub fn borrow_mut<M: Mode>(self, mc: &Mutation<'gc, M>) -> GcRefMut<'gc, T>
    where
        T: Trace<'gc>,
    {
        Gc::as_ref(self).borrow_mut(mc)
    }

    /// [`GcRefCell::try_borrow_mut`], for `'gc`. O(1).
    #[inline]
    pub fn try_borrow_mut<M: Mode>(self, mc: &Mutation<'gc, M>) -> Option<GcRefMut<'gc, T>>
    where
        T: Trace<'gc>,
    {
        Gc::as_ref(self).try_borrow_mut(mc)
    }
}

/// Ends a session that borrows what it must not.
#[cold]
#[inline(never)]
#[track_caller]
fn is_borrowed<T>(how: &str) -> ! {
    panic!("{how}: a `{}`", type_name::<T>())
}

impl<T: fmt::Debug> fmt::Debug for GcRefCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "GcRefCell", self.try_borrow(), "borrowed")
    }
}

// SAFETY: the value is traced whatever the borrow flag says, but for a cell that this cycle has
// traced already. A mutable borrow of a session that is open traced it when it began. Another one
// belongs to a leaked guard, so no write is under way. There is no `Drop`. The family is the cell
// with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcRefCell<T> {
    type Family = GcRefCell<T::Family>;
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // Nothing is to be found, and a session may have it borrowed, or locked.
        if !T::NEEDS_TRACE {
            return;
        }
        tracer.cell(self.raw(), |tracer| {
            // SAFETY: as above: no write is under way.
            let value = unsafe { &*self.value.data_ptr() };
            value.trace(tracer);
        });
    }

    #[inline]
    fn external_bytes(&self) -> usize {
        if !needs_drop::<T>() {
            return 0;
        }
        external_bytes(self.raw(), || self.value.try_read())
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcRefCell<F> {
    type At<'gc> = GcRefCell<F::At<'gc>>;
}

/// A mutex for payloads: what `GcRefCell` is between threads.
///
/// In a `Local` heap one thread locks it, so a second lock is a mistake, and panics. For a value
/// that several heaps share, take a `Leaf` of an `Arc` of a `Mutex`.
///
/// A thread that marks has it locked for a piece of a long `Vec` at a time. The first lock in a
/// cycle that marks may look at all that it holds, as with [`GcRefCell`].
#[derive(Default)]
pub struct GcMutex<T> {
    value: lock_api::Mutex<RawGcMutex, T>,
}

impl<T> GcMutex<T> {
    /// Makes a mutex that holds `value`.
    pub const fn new(value: T) -> Self {
        GcMutex { value: lock_api::Mutex::from_raw(RawGcMutex::INIT, value) }
    }

    /// Locks the mutex, waiting for its holder. O(1), beside the waiting.
    ///
    /// In a `Shared` heap a session that has it locked already waits for ever, as with any mutex. A
    /// leaked guard leaves it locked, and traced all the same.
    ///
    /// # Panics
    ///
    /// In a `Local` heap, if it is locked: it would wait for itself. A scoped thread that formats
    /// it by `Debug` at this moment counts as well.
    #[inline]
    #[track_caller]
    pub fn lock<'a, 'gc: 'a, M: Mode>(&'a self, mc: &Mutation<'gc, M>) -> GcMutexGuard<'a, T>
    where
        T: Trace<'gc>,
    {
        if !M::SHARED && self.value.is_locked() {
            would_wait_for_itself::<Self>("try_lock");
        }
        let guard = self.value.lock();
        mc.lends(self.raw(), &*guard);
        // SAFETY: the guard has the lock, and drops the charge first.
        let charge = unsafe { Charge::begin(mc.tally(), self.value.data_ptr()) };
        GcMutexGuard::new(guard, charge)
    }

    /// Locks the mutex, or gives `None` if it is locked. O(1).
    #[inline]
    pub fn try_lock<'a, 'gc: 'a, M: Mode>(
        &'a self,
        mc: &Mutation<'gc, M>,
    ) -> Option<GcMutexGuard<'a, T>>
    where
        T: Trace<'gc>,
    {
        let guard = self.raw().visits.retry(|| self.value.try_lock())?;
        mc.lends(self.raw(), &*guard);
        // SAFETY: the guard has the lock, and drops the charge first.
        let charge = unsafe { Charge::begin(mc.tally(), self.value.data_ptr()) };
        Some(GcMutexGuard::new(guard, charge))
    }

    #[inline]
    fn raw(&self) -> &RawGcMutex {
        // SAFETY: the lock is not unlocked by it.
        unsafe { self.value.raw() }
    }

    /// Gives the value back, when the mutex is in no heap. O(1).
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Lends the value, to be changed without a session. O(1).
    ///
    /// It takes a mutable borrow: of what is in no heap yet, or of what a guard lends.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

#[cfg(all(test, loom))]
impl<T> GcMutex<T> {
    pub(crate) fn settle(&self) {
        // SAFETY: the raw lock is not unlocked by it.
        unsafe { self.value.raw() }.settle();
    }
}

#[cfg(all(test, loom))]
impl<T> GcMutex<T> {
    /// Has the lock for a moment, as `Debug` does, but tries once: a model of three threads has no
    /// room for more.
    pub(crate) fn touch(&self) {
        drop(self.value.try_lock());
    }
}

/// The methods of a lock that is an object, by its pointer. What they lend is good for `'gc`.
impl<'gc, T: Trace<'gc> + 'gc> Gc<'gc, GcMutex<T>> {
    /// [`GcMutex::lock`], for `'gc`. O(1), beside the waiting.
    ///
    /// # Panics
    ///
    /// In a `Local` heap, if it is locked.
    #[inline]
    #[track_caller]
    pub fn lock<M: Mode>(self, mc: &Mutation<'gc, M>) -> GcMutexGuard<'gc, T> {
        Gc::as_ref(self).lock(mc)
    }

    /// [`GcMutex::try_lock`], for `'gc`. O(1).
    #[inline]
    pub fn try_lock<M: Mode>(self, mc: &Mutation<'gc, M>) -> Option<GcMutexGuard<'gc, T>> {
        Gc::as_ref(self).try_lock(mc)
    }
}

impl<T: fmt::Debug> fmt::Debug for GcMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As in `try_lock`: a marker that has it for a moment does not count.
        debug(f, "GcMutex", self.raw().visits.retry(|| self.value.try_lock()), "locked")
    }
}

// SAFETY: the value is traced, but for a mutex that this cycle has traced already. Beside open
// sessions it is locked for that. While none is open it is not: a lock that is held then belongs to
// a leaked guard, so no write is under way. There is no `Drop`. The family is the mutex with its
// brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcMutex<T> {
    type Family = GcMutex<T::Family>;
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // Nothing is to be found, and a session may have it borrowed, or locked.
        if !T::NEEDS_TRACE {
            return;
        }
        tracer.cell(self.raw(), |tracer| {
            // SAFETY: as above: no write is under way.
            let value = unsafe { &*self.value.data_ptr() };
            value.trace(tracer);
        });
    }

    #[inline]
    fn external_bytes(&self) -> usize {
        if !needs_drop::<T>() {
            return 0;
        }
        external_bytes(self.raw(), || self.value.try_lock())
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcMutex<F> {
    type At<'gc> = GcMutex<F::At<'gc>>;
}

/// A reader-writer lock for payloads: many may read at a time, or one may write.
///
/// In a `Local` heap a lock that would have to wait panics; see [`GcMutex`]. A thread that marks
/// reads beside those that read. The first lock to write in a cycle that marks may look at all that
/// it holds, as with [`GcRefCell`].
#[derive(Default)]
pub struct GcRwLock<T> {
    value: lock_api::RwLock<RawGcRwLock, T>,
}

impl<T> GcRwLock<T> {
    /// Makes a lock that holds `value`.
    pub const fn new(value: T) -> Self {
        GcRwLock { value: lock_api::RwLock::from_raw(RawGcRwLock::INIT, value) }
    }

    /// Locks it to read, waiting for a writer and for waiting writers. O(1), beside the waiting.
    ///
    /// In a `Shared` heap a session that has it locked already may wait for ever. One that writes
    /// does; one that reads does if another waits to write. A leaked guard leaves it locked, and
    /// traced all the same.
    ///
    /// # Panics
    ///
    /// In a `Local` heap, if it is locked to write: it would wait for itself.
    #[inline]
    #[track_caller]
    pub fn read<'gc, M: Mode>(&self, _: &Mutation<'gc, M>) -> GcRwLockReadGuard<'_, T>
    where
        T: Trace<'gc>,
    {
        if !M::SHARED && self.value.is_locked_exclusive() {
            would_wait_for_itself::<Self>("try_read");
        }
        GcRwLockReadGuard::new(self.value.read(), ())
    }

    /// Locks it to read, or gives `None` if it is locked to write or waited for to write. O(1).
    #[inline]
    pub fn try_read<'gc, M: Mode>(&self, _: &Mutation<'gc, M>) -> Option<GcRwLockReadGuard<'_, T>>
    where
        T: Trace<'gc>,
    {
        self.value.try_read().map(|guard| GcRwLockReadGuard::new(guard, ()))
    }

    /// Locks it to write, waiting for all that have it locked. O(1), beside the waiting.
    ///
    /// In a `Shared` heap a session that has it locked already waits for ever.
    ///
    /// # Panics
    ///
    /// In a `Local` heap, if it is locked: it would wait for itself. A scoped thread that formats
    /// it by `Debug` at this moment counts as well.
    #[inline]
    #[track_caller]
    pub fn write<'a, 'gc: 'a, M: Mode>(&'a self, mc: &Mutation<'gc, M>) -> GcRwLockWriteGuard<'a, T>
    where
        T: Trace<'gc>,
    {
        if !M::SHARED && self.value.is_locked() {
            would_wait_for_itself::<Self>("try_write");
        }
        let guard = self.value.write();
        mc.lends(self.raw(), &*guard);
        // SAFETY: the guard has the lock, and drops the charge first.
        let charge = unsafe { Charge::begin(mc.tally(), self.value.data_ptr()) };
        GcRwLockWriteGuard::new(guard, charge)
    }

    /// Locks it to write, or gives `None` if it is locked. O(1).
    #[inline]
    pub fn try_write<'a, 'gc: 'a, M: Mode>(
        &'a self,
        mc: &Mutation<'gc, M>,
    ) -> Option<GcRwLockWriteGuard<'a, T>>
    where
        T: Trace<'gc>,
    {
        let guard = self.raw().visits.retry(|| self.value.try_write())?;
        mc.lends(self.raw(), &*guard);
        // SAFETY: the guard has the lock, and drops the charge first.
        let charge = unsafe { Charge::begin(mc.tally(), self.value.data_ptr()) };
        Some(GcRwLockWriteGuard::new(guard, charge))
    }

    #[inline]
    fn raw(&self) -> &RawGcRwLock {
        // SAFETY: the lock is not unlocked by it.
        unsafe { self.value.raw() }
    }

    /// Gives the value back, when the lock is in no heap. O(1).
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Lends the value, to be changed without a session. O(1).
    ///
    /// It takes a mutable borrow: of what is in no heap yet, or of what a guard lends.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

#[cfg(all(test, loom))]
impl<T> GcRwLock<T> {
    pub(crate) fn settle(&self) {
        // SAFETY: the raw lock is not unlocked by it.
        unsafe { self.value.raw() }.settle();
    }
}

/// The methods of a lock that is an object, by its pointer. What they lend is good for `'gc`.
impl<'gc, T: Trace<'gc> + 'gc> Gc<'gc, GcRwLock<T>> {
    /// [`GcRwLock::read`], for `'gc`. O(1), beside the waiting.
    ///
    /// # Panics
    ///
    /// In a `Local` heap, if it is locked to write.
    #[inline]
    #[track_caller]
    pub fn read<M: Mode>(self, mc: &Mutation<'gc, M>) -> GcRwLockReadGuard<'gc, T> {
        Gc::as_ref(self).read(mc)
    }

    /// [`GcRwLock::try_read`], for `'gc`. O(1).
    #[inline]
    pub fn try_read<M: Mode>(self, mc: &Mutation<'gc, M>) -> Option<GcRwLockReadGuard<'gc, T>> {
        Gc::as_ref(self).try_read(mc)
    }

    /// [`GcRwLock::write`], for `'gc`. O(1), beside the waiting.
    ///
    /// # Panics
    ///
    /// In a `Local` heap, if it is locked.
    #[inline]
    #[track_caller]
    pub fn write<M: Mode>(self, mc: &Mutation<'gc, M>) -> GcRwLockWriteGuard<'gc, T> {
        Gc::as_ref(self).write(mc)
    }

    /// [`GcRwLock::try_write`], for `'gc`. O(1).
    #[inline]
    pub fn try_write<M: Mode>(self, mc: &Mutation<'gc, M>) -> Option<GcRwLockWriteGuard<'gc, T>> {
        Gc::as_ref(self).try_write(mc)
    }
}

impl<T: fmt::Debug> fmt::Debug for GcRwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "GcRwLock", self.value.try_read(), "locked")
    }
}

// SAFETY: as for `GcMutex`. A guard that reads changes nothing but by cells within. There is no
// `Drop`. The family is the lock with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcRwLock<T> {
    type Family = GcRwLock<T::Family>;
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // Nothing is to be found, and a session may have it borrowed, or locked.
        if !T::NEEDS_TRACE {
            return;
        }
        tracer.cell(self.raw(), |tracer| {
            // SAFETY: as above: no write is under way.
            let value = unsafe { &*self.value.data_ptr() };
            value.trace(tracer);
        });
    }

    #[inline]
    fn external_bytes(&self) -> usize {
        if !needs_drop::<T>() {
            return 0;
        }
        external_bytes(self.raw(), || self.value.try_read())
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcRwLock<F> {
    type At<'gc> = GcRwLock<F::At<'gc>>;
}

/// A field that is set once, by the first session that tries, and read without a lock from then on.
pub struct GcOnce<T> {
    value: OnceLock<T>,
}

impl<T> GcOnce<T> {
    /// Makes a field that is not set yet.
    pub const fn new() -> Self {
        GcOnce { value: OnceLock::new() }
    }

    /// Gives the value, if it is set. O(1), and does not wait.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Sets the value. Waits for a thread that is setting it.
    ///
    /// # Errors
    ///
    /// The value given, if there is one already.
    ///
    /// # Panics
    ///
    /// If this thread is setting it: it would wait for itself.
    #[track_caller]
    pub fn set<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>, value: T) -> Result<(), T>
    where
        T: Trace<'gc>,
    {
        if self.value.get().is_none() {
            // Only the check: nothing that runs from here on could come back.
            drop(Setting::begin(self));
        }
        self.value.set(value)?;
        if needs_drop::<T>() {
            self.value.get().into_iter().for_each(|value| mc.brings(value));
        }
        Ok(())
    }

    /// Gives the value, set to what `f` makes if it is not set yet.
    ///
    /// Of threads that come at the same time one makes it, and the others wait. If `f` panics, it
    /// is not set.
    ///
    /// # Panics
    ///
    /// If `f` does, and if `f` comes back to set this field: it would wait for itself.
    #[inline]
    #[track_caller]
    pub fn get_or_init<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>, f: impl FnOnce() -> T) -> &T
    where
        T: Trace<'gc>,
    {
        match self.value.get() {
            Some(value) => value,
            None => {
                let _setting = Setting::begin(self);
                self.value.get_or_init(|| {
                    let value = f();
                    mc.brings(&value);
                    value
                })
            }
        }
    }

    /// Gives the value back, if it is set, when the field is in no heap. O(1).
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Lends the value, if it is set, to be changed without a session. O(1).
    ///
    /// It takes a mutable borrow: of what is in no heap yet, or of what a guard lends.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }
}

thread_local! {
    /// The `GcOnce`s that this thread is setting, by their addresses.
    static SETTING: RefCell<Vec<*const ()>> = RefCell::default();
}

/// This thread is setting a `GcOnce`.
struct Setting {
    field: *const (),
}

impl Setting {
    /// Notes it. O(fields that the thread is setting).
    #[track_caller]
    fn begin<T>(once: &GcOnce<T>) -> Self {
        let field = ptr::from_ref(once).cast();
        // A thread that is ending may have no memory of its own any more: then it is not noted.
        let again = SETTING.try_with(|fields| {
            let again = fields.borrow().contains(&field);
            fields.borrow_mut().push(field);
            again
        });
        let setting = Setting { field };
        assert!(
            !matches!(again, Ok(true)),
            "a `GcOnce<{}>` is being set already by this thread, and would wait for itself: `f` of \
             `get_or_init` must not set the same field",
            type_name::<T>()
        );
        setting
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ending = SETTING.try_with(|fields| {
            let last = fields.borrow_mut().pop();
            debug_assert_eq!(last, Some(self.field), "fields are set one within the other");
        });
    }
}

impl<T> Default for GcOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for GcOnce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "GcOnce", self.value.get(), "unset")
    }
}

// SAFETY: a value that is set is traced, and does not change. One that is being set belongs to a
// session, so it is in no snapshot. There is no `Drop`. The family is the field with its brand
// open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcOnce<T> {
    type Family = GcOnce<T::Family>;
    const NEEDS_TRACE: bool = T::NEEDS_TRACE;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Some(value) = self.value.get() {
            value.trace(tracer);
        }
    }

    #[inline]
    fn external_bytes(&self) -> usize {
        self.value.get().map_or(0, T::external_bytes)
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcOnce<F> {
    type At<'gc> = GcOnce<F::At<'gc>>;
}

/// An atomic pointer field: `Option<Gc<'gc, T>>` that several threads may change.
///
/// Every operation is acquire, release or both. So what was written to an object before its pointer
/// was stored is seen by a thread that loads the pointer.
pub struct GcAtomic<'gc, T> {
    object: AtomicPtr<T>,
    pointer: PhantomData<Gc<'gc, T>>,
    brand: Brand<'gc>,
}

impl<'gc, T> GcAtomic<'gc, T> {
    /// Makes a field that holds `value`.
    pub fn new(value: Option<Gc<'gc, T>>) -> Self {
        GcAtomic {
            object: AtomicPtr::new(into_raw(value)),
            pointer: PhantomData,
            brand: PhantomData,
        }
    }

    /// Gives the pointer back, when the field is in no heap. O(1).
    pub fn into_inner(self) -> Option<Gc<'gc, T>> {
        // SAFETY: the field holds only what `into_raw` made of a `Gc` of this brand.
        unsafe { from_raw(self.object.into_inner()) }
    }

    /// Lends the pointer, to be changed without a session. O(1).
    ///
    /// It takes a mutable borrow: of what is in no heap yet, or of what a guard lends.
    #[cfg(not(loom))] // Loom's atomics do not lend their values.
    pub fn get_mut(&mut self) -> &mut Option<Gc<'gc, T>> {
        let object = NonNull::from(self.object.get_mut());
        // SAFETY: a `Gc` is transparent around a `NonNull<T>`, so an `Option` of one has the layout
        // of a `*mut T`, and null is `None`. The field holds, and gets, pointers of this brand
        // only.
        unsafe { object.cast::<Option<Gc<'gc, T>>>().as_mut() }
    }

    /// Gives the pointer it holds.
    #[inline]
    pub fn load(&self) -> Option<Gc<'gc, T>> {
        // Acquire: pairs with the release of `store` and `compare_exchange`.
        let object = self.object.load(Ordering::Acquire);
        // SAFETY: the field holds only what `into_raw` made of a `Gc` of this brand.
        unsafe { from_raw(object) }
    }

    /// Replaces the pointer.
    #[inline]
    pub fn store<M: Mode>(&self, mc: &Mutation<'gc, M>, value: Option<Gc<'gc, T>>)
    where
        T: Trace<'gc>,
    {
        if mc.has_barrier() {
            // The old pointer has to be known.
            self.swap(mc, value);
            return;
        }
        // Release: pairs with the acquire of `load`.
        self.object.store(into_raw(value), Ordering::Release);
    }

    /// Replaces the pointer and returns the old one.
    #[inline]
    pub fn swap<M: Mode>(
        &self,
        mc: &Mutation<'gc, M>,
        value: Option<Gc<'gc, T>>,
    ) -> Option<Gc<'gc, T>>
    where
        T: Trace<'gc>,
    {
        // AcqRel: pairs with itself, `load` and `store`.
        let old = self.object.swap(into_raw(value), Ordering::AcqRel);
        // SAFETY: the field holds only what `into_raw` made of a `Gc` of this brand.
        let mut old = unsafe { from_raw(old) };
        // Afterwards: the mark does not end within the session, and another thread may have changed
        // what a look before had found.
        mc.overwrites(&mut old);
        old
    }

    /// Replaces the pointer if it is `current`; otherwise returns what it is.
    ///
    /// # Errors
    ///
    /// The pointer found, if it is not `current`.
    #[inline]
    pub fn compare_exchange<M: Mode>(
        &self,
        mc: &Mutation<'gc, M>,
        current: Option<Gc<'gc, T>>,
        new: Option<Gc<'gc, T>>,
    ) -> Result<Option<Gc<'gc, T>>, Option<Gc<'gc, T>>>
    where
        T: Trace<'gc>,
    {
        let (current, new) = (into_raw(current), into_raw(new));
        // AcqRel: pairs with itself, `load` and `store`; a failure is a load.
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        match self.object.compare_exchange(current, new, success, failure) {
            Ok(old) => {
                // SAFETY: the field holds only what `into_raw` made of a `Gc` of this brand.
                let mut old = unsafe { from_raw(old) };
                // Afterwards: as in `swap`.
                mc.overwrites(&mut old);
                Ok(old)
            }
            // SAFETY: as above.
            Err(found) => Err(unsafe { from_raw(found) }),
        }
    }
}

impl<T> Default for GcAtomic<'_, T> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<T> fmt::Debug for GcAtomic<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GcAtomic").field(&self.load()).finish()
    }
}

fn into_raw<T>(value: Option<Gc<'_, T>>) -> *mut T {
    value.map_or(ptr::null_mut(), |gc| gc.as_address().cast().as_ptr())
}

/// # Safety
///
/// `object` was made by `into_raw` from a pointer of brand `'gc`, and is reachable or of this
/// session.
unsafe fn from_raw<'gc, T>(object: *mut T) -> Option<Gc<'gc, T>> {
    // SAFETY: by this function's contract.
    NonNull::new(object).map(|object| unsafe { Gc::from_object(object) })
}

// SAFETY: the pointer is reported; there is no `Drop`; the family is the field with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcAtomic<'gc, T> {
    type Family = GcAtomic<'static, T::Family>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.load().trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcAtomic<'static, F> {
    type At<'gc> = GcAtomic<'gc, F::At<'gc>>;
}

/// Holds any Rust value that has no `Gc` in it, `Drop` and all, and gives it out by `Deref`.
///
/// The value is dropped by the sweep that finds its object dead, on the thread that collects. In a
/// `Shared` heap that may be one that helps it. The drop must not wait for a thread that opens a
/// session on the heap, as that one waits for the end of the sweep.
///
/// The heap [sees](Trace::external_bytes) what the value owns if it is of a common type: texts and
/// paths, and a `Vec`, `Box<[_]>` or `VecDeque` of numbers or of texts. It also sees a `Vec` of
/// `Vec<u8>`, a map of texts, a `RefCell` of a text or of a `Vec`, and a `Cow`. What others own is
/// for [`Mutation::external`](crate::Mutation::external), or for a type that derives `Trace`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Leaf<T: 'static> {
    value: T,
}

impl<T> Leaf<T> {
    /// Makes a leaf that holds `value`.
    pub const fn new(value: T) -> Self {
        Leaf { value }
    }

    /// Gives the value, when the leaf is not in a heap.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> From<T> for Leaf<T> {
    fn from(value: T) -> Self {
        Leaf::new(value)
    }
}

impl<T> Deref for Leaf<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

// SAFETY: a `'static` type names no session's brand, so it owns no `Gc`: there is nothing to trace,
// and its `Drop` cannot reach one.
unsafe impl<'gc, T: 'static> Trace<'gc> for Leaf<T> {
    type Family = Leaf<T>;
    const NEEDS_TRACE: bool = false;

    #[inline]
    fn trace(&self, _tracer: &mut Tracer<'_>) {}

    #[inline]
    fn external_bytes(&self) -> usize {
        known_bytes(&self.value)
    }
}

// SAFETY: the type carries no brand, so it is the same at every one.
unsafe impl<T: 'static> Branded for Leaf<T> {
    type At<'gc> = Leaf<T>;
}

/// A plain cell may stand beside `Gc` fields as long as it holds none itself.
// SAFETY: as for `Leaf`.
unsafe impl<'gc, T: 'static> Trace<'gc> for Cell<T> {
    type Family = Cell<T>;
    const NEEDS_TRACE: bool = false;

    #[inline]
    fn trace(&self, _tracer: &mut Tracer<'_>) {}
}

// SAFETY: the type carries no brand, so it is the same at every one.
unsafe impl<T: 'static> Branded for Cell<T> {
    type At<'gc> = Cell<T>;
}
