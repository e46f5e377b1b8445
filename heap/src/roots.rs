//! Dynamic roots: handles that keep an object alive from outside the heap.
//!
//! Invariant: the table holds the addresses of all objects with a [`Root`] that has not been
//! dropped; the marker starts from each. A root shares the table with its heap, so one that
//! outlives its heap finds memory that is still there and an object that nobody can reach any more.
//! A [`SharedRoot`] borrows the table of its heap, and does not outlive it.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sexton_cleanup::sync::Mutex;

use crate::trace::Branded;

/// The number of a heap, unique in the process; messages name heaps by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeapId(u64);

impl HeapId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only uniqueness matters.
        HeapId(NEXT.fetch_add(1, Relaxed))
    }
}

impl fmt::Display for HeapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "heap #{}", self.0)
    }
}

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

    /// The heap the object lives in.
    pub fn heap_id(&self) -> HeapId {
        self.table.heap
    }

    /// The object's address, if the root belongs to the heap of that table.
    pub(crate) fn object_in(&self, table: &RootTable) -> Option<NonNull<u8>> {
        ptr::eq(&*self.table, table).then_some(self.object)
    }
}

impl<Q: Branded> Clone for Root<Q> {
    /// Another root of the same object. O(1).
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
        write!(f, "Root<{}>({:p} in {})", type_name::<Q>(), self.object, self.table.heap)
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
/// # use sexton_heap::{Branded, Leaf, Mutation, RootedHeap, Shared};
/// # fn wrong<R: Branded>(heap: &RootedHeap<R, Shared>, mc: &Mutation<'_, Shared>) {
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
    object: Object,
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
        Some(SharedRoot { table, index, object: Object(object), family: PhantomData })
    }

    /// The heap the object lives in.
    pub fn heap_id(&self) -> HeapId {
        self.table.heap
    }

    /// The object's address, if the root belongs to the heap of that table.
    pub(crate) fn object_in(&self, table: &RootTable) -> Option<NonNull<u8>> {
        ptr::eq(self.table, table).then_some(self.object.0)
    }
}

impl<Q: Branded> Clone for SharedRoot<'_, Q> {
    /// Another root of the same object. O(1).
    #[track_caller]
    fn clone(&self) -> Self {
        let Object(object) = self.object;
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
        let Object(object) = self.object;
        write!(f, "SharedRoot<{}>({object:p} in {})", type_name::<Q>(), self.table.heap)
    }
}

/// The address of an object that a root keeps alive.
#[derive(Clone, Copy)]
struct Object(NonNull<u8>);

// SAFETY: an address gives no access. It is followed in sessions and by markers only, who answer for what they do; in a `Shared` heap, where
// the table is used by several threads, the object is `Send + Sync`.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

/// A root that has lived for long. See `Heap::old_roots`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OldRoot {
    /// The type of the object it keeps alive, with its brand left open.
    pub type_name: &'static str,
    /// Where it was made.
    pub site: &'static Location<'static>,
    /// Cycles since then.
    pub cycles: u64,
    /// Whether it is a [`SharedRoot`].
    pub shared: bool,
}

impl fmt::Display for OldRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OldRoot { type_name, site, cycles, shared } = self;
        let kind = if *shared { "shared root" } else { "root" };
        write!(f, "a {kind} of a `{type_name}`, made at {site}, has lived for {cycles} cycles")
    }
}

/// All dynamic roots of one heap.
pub(crate) struct RootTable {
    heap: HeapId,
    /// Held for a few loads and stores, or to visit all roots; never while user code runs.
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    objects: Vec<Option<Object>>,
    /// What is known of each root; means something only where there is an object.
    kinds: Vec<RootKind>,
    free: Vec<usize>,
    /// Cycles the heap has run.
    cycle: u64,
    /// Roots dropped so far.
    dropped: u64,
}

/// What is known of a root.
#[derive(Clone, Copy)]
struct RootKind {
    type_name: &'static str,
    site: &'static Location<'static>,
    shared: bool,
    /// The cycle after which it was made.
    cycle: u64,
}

impl RootKind {
    fn of<Q>(site: &'static Location<'static>, shared: bool) -> Self {
        RootKind { type_name: type_name::<Q>(), site, shared, cycle: 0 }
    }
}

impl RootTable {
    pub(crate) fn new(heap: HeapId) -> Self {
        RootTable { heap, slots: Mutex::new(Slots::default()) }
    }

    pub(crate) fn heap(&self) -> HeapId {
        self.heap
    }

    /// Calls `each` with the object of every root. It must not make or drop roots.
    pub(crate) fn for_each(&self, mut each: impl FnMut(NonNull<u8>)) {
        self.slots.lock().objects.iter().flatten().for_each(|object| each(object.0));
    }

    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.lock();
        slots.objects.len() - slots.free.len()
    }

    /// How many roots have been dropped so far. Drop glue may drop some during a sweep, other threads shared ones at any time.
    pub(crate) fn dropped(&self) -> u64 {
        self.slots.lock().dropped
    }

    /// A cycle has begun.
    pub(crate) fn count_cycle(&self, cycle: u64) {
        self.slots.lock().cycle = cycle;
    }

    /// The roots that have lived for at least so many cycles, the oldest first. O(roots).
    pub(crate) fn old(&self, cycles: u64) -> Vec<OldRoot> {
        let slots = self.slots.lock();
        let roots = slots.objects.iter().zip(&slots.kinds);
        let roots = roots.filter(|(object, _)| object.is_some()).map(|(_, kind)| {
            let &RootKind { type_name, site, shared, cycle } = kind;
            OldRoot { type_name, site, cycles: slots.cycle - cycle, shared }
        });
        let mut old: Vec<OldRoot> = roots.filter(|root| root.cycles >= cycles).collect();
        drop(slots);
        old.sort_by_key(|root| std::cmp::Reverse(root.cycles));
        old
    }

    fn insert(&self, object: NonNull<u8>, kind: RootKind) -> usize {
        let mut slots = self.slots.lock();
        let kind = RootKind { cycle: slots.cycle, ..kind };
        match slots.free.pop() {
            Some(index) => {
                slots.objects[index] = Some(Object(object));
                slots.kinds[index] = kind;
                index
            }
            None => {
                slots.objects.push(Some(Object(object)));
                slots.kinds.push(kind);
                slots.objects.len() - 1
            }
        }
    }

    fn remove(&self, index: usize) {
        let mut slots = self.slots.lock();
        slots.objects[index] = None;
        slots.dropped += 1;
        slots.free.push(index);
    }
}
