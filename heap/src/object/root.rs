//! Dynamic roots: handles that keep an object alive from outside the heap.
//!
//! A root has an entry in its heap's table, from which the marker starts.
//!
//! Invariant: a [`Root`] shares the table with its heap. So one that outlives its heap finds memory
//! that is still there. Its object cannot be reached any more. A [`SharedRoot`] borrows the table
//! of its heap, and does not outlive it.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::id::HeapId;
use crate::mark::root_table::{RootKind, RootTable};
use crate::memory::address::ObjectAddress;
use crate::object::trace::Branded;

/// Keeps an object of a heap alive, in and between sessions, until it is dropped.
///
/// Made by [`Mutation::root`](crate::Mutation::root), read by
/// [`Mutation::fetch`](crate::Mutation::fetch). Not `Send`, so that no cleanup can hold one: a
/// cleanup that kept its own object alive would never run. A root inside the heap (in a `Leaf`)
/// does keep its object alive for ever; prefer a `Gc` field there. Of a root of a `Shared` heap,
/// `Heap::share` makes a [`SharedRoot`] for other threads.
pub struct Root<Q: Branded> {
    table: Arc<RootTable>,
    index: usize,
    /// Not to be sent, either.
    object: NonNull<u8>,
    family: PhantomData<fn() -> Q>,
}

impl<Q: Branded> Root<Q> {
    /// # Safety
    ///
    /// `object` is a live `Q::At<'_>` of the heap that `table` belongs to.
    pub(crate) unsafe fn new(
        table: &Arc<RootTable>,
        object: NonNull<u8>,
        site: &'static Location<'static>,
    ) -> Self {
        let index = table.insert(object, RootKind::of::<Q>(site, false));
        Root { table: table.clone(), index, object, family: PhantomData }
    }

    /// Gives the heap the object lives in.
    pub fn heap_id(&self) -> HeapId {
        self.table.heap()
    }

    /// Gives the object's address, if the root belongs to the heap of that table.
    pub(crate) fn object_in(&self, table: &RootTable) -> Option<NonNull<u8>> {
        ptr::eq(&*self.table, table).then_some(self.object)
    }
}

impl<Q: Branded> Clone for Root<Q> {
    /// Makes another root of the same object. O(1).
    #[track_caller]
    fn clone(&self) -> Self {
        let kind = RootKind::of::<Q>(Location::caller(), false);
        let index = self.table.insert(self.object, kind);
        Root { table: self.table.clone(), index, object: self.object, family: PhantomData }
    }
}

impl<Q: Branded> Drop for Root<Q> {
    fn drop(&mut self) {
        self.table.remove(self.index);
    }
}

impl<Q: Branded> fmt::Debug for Root<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root<{}>({:p} in {})", type_name::<Q>(), self.object, self.table.heap())
    }
}

/// Keeps an object of a `Shared` heap alive, as a [`Root`] does, and may cross threads.
///
/// Made of a root by `Heap::share`, read by
/// [`Mutation::fetch_shared`](crate::Mutation::fetch_shared), dropped on any thread.
///
/// It borrows its heap for `'h`, so it does not outlive it. Threads that are scoped may have it,
/// and so may a channel between them. A cleanup may not, because what a cleanup owns is `'static`:
///
/// ```compile_fail
/// # use sexton_heap::{Branded, Leaf, Mutation, RawHeap, Shared};
/// # fn wrong<R: Branded>(heap: &RawHeap<R, Shared>, mc: &Mutation<'_, Shared>) {
/// let gc = mc.alloc(Leaf::new(1));
/// let root = heap.share(&mc.root(gc));
/// mc.add_cleanup(gc, move || drop(root)); // `'h` must outlive `'static`
/// # }
/// ```
///
/// **A heap that is never dropped is the exception.** If it is borrowed for `'static`, from a
/// `static` or from `Box::leak`, so are its shared roots. A cleanup, or a payload, can own such a
/// root of its own object. That object then lives for ever, and its cleanups do not run.
/// `Heap::old_roots` finds it; a `Gc` field in the heap's root avoids it.
pub struct SharedRoot<'h, Q: Branded> {
    table: &'h RootTable,
    index: usize,
    object: ObjectAddress,
    family: PhantomData<fn() -> Q>,
}

impl<'h, Q: Branded> SharedRoot<'h, Q> {
    /// Makes one of a root that belongs to the heap of that table; `None` if it does not.
    pub(crate) fn of(
        root: &Root<Q>,
        table: &'h RootTable,
        site: &'static Location<'static>,
    ) -> Option<Self> {
        let object = root.object_in(table)?;
        let index = table.insert(object, RootKind::of::<Q>(site, true));
        Some(SharedRoot { table, index, object: ObjectAddress(object), family: PhantomData })
    }

    /// Gives the heap the object lives in.
    pub fn heap_id(&self) -> HeapId {
        self.table.heap()
    }

    /// Gives the object's address, if the root belongs to the heap of that table.
    pub(crate) fn object_in(&self, table: &RootTable) -> Option<NonNull<u8>> {
        ptr::eq(self.table, table).then_some(self.object.0)
    }
}

impl<Q: Branded> Clone for SharedRoot<'_, Q> {
    /// Makes another root of the same object. O(1).
    #[track_caller]
    fn clone(&self) -> Self {
        let ObjectAddress(object) = self.object;
        let index = self.table.insert(object, RootKind::of::<Q>(Location::caller(), true));
        SharedRoot { table: self.table, index, object: self.object, family: PhantomData }
    }
}

impl<Q: Branded> Drop for SharedRoot<'_, Q> {
    fn drop(&mut self) {
        self.table.remove(self.index);
    }
}

impl<Q: Branded> fmt::Debug for SharedRoot<'_, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectAddress(object) = self.object;
        write!(f, "SharedRoot<{}>({object:p} in {})", type_name::<Q>(), self.table.heap())
    }
}
