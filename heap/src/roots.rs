//! Dynamic roots: handles that keep an object alive from outside the heap.
//!
//! Invariant: the table holds the addresses of all objects with a [`Root`] that has not been dropped;
//! the marker starts from each. A root shares the table with its heap, so one that outlives its heap
//! finds memory that is still there and an object that nobody can reach any more.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
/// cleanup that kept its own object alive would never run. A root inside the heap (in a `Leaf`) does
/// keep its object alive for ever; prefer a `Gc` field there.
pub struct Root<Q: Branded> {
    table: Rc<RootTable>,
    index: usize,
    family: PhantomData<fn() -> Q>,
}

impl<Q: Branded> Root<Q> {
    /// # Safety
    ///
    /// `object` is a live `Q::At<'_>` of the heap that `table` belongs to.
    pub(crate) unsafe fn new(
        table: &Rc<RootTable>,
        object: NonNull<u8>,
        site: &'static Location<'static>,
    ) -> Self {
        let index = table.insert::<Q>(object, site);
        Root { table: table.clone(), index, family: PhantomData }
    }

    /// The heap the object lives in.
    pub fn heap_id(&self) -> HeapId {
        self.table.heap
    }

    /// The object's address, if the root belongs to the heap of that table.
    pub(crate) fn object_in(&self, table: &Rc<RootTable>) -> Option<NonNull<u8>> {
        Rc::ptr_eq(&self.table, table).then(|| self.table.get(self.index))
    }
}

impl<Q: Branded> Clone for Root<Q> {
    /// Another root of the same object. O(1).
    #[track_caller]
    fn clone(&self) -> Self {
        let index = self.table.insert::<Q>(self.table.get(self.index), Location::caller());
        Root { table: self.table.clone(), index, family: PhantomData }
    }
}

impl<Q: Branded> Drop for Root<Q> {
    fn drop(&mut self) {
        self.table.remove(self.index);
    }
}

impl<Q: Branded> fmt::Debug for Root<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({} in {})", std::any::type_name::<Q>(), self.table.heap)
    }
}

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
}

impl fmt::Display for OldRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OldRoot { type_name, site, cycles } = self;
        write!(f, "a root of a `{type_name}`, made at {site}, has lived for {cycles} cycles")
    }
}

/// All dynamic roots of one heap.
pub(crate) struct RootTable {
    heap: HeapId,
    slots: RefCell<Slots>,
    /// Cycles the heap has run.
    cycle: Cell<u64>,
    /// Roots dropped so far.
    dropped: Cell<u64>,
}

#[derive(Default)]
struct Slots {
    objects: Vec<Option<NonNull<u8>>>,
    /// What is known of each root; means something only where there is an object.
    origins: Vec<RootOrigin>,
    free: Vec<usize>,
}

/// Where a root comes from.
#[derive(Clone, Copy)]
struct RootOrigin {
    type_name: &'static str,
    site: &'static Location<'static>,
    /// The cycle after which it was made.
    cycle: u64,
}

impl RootTable {
    pub(crate) fn new(heap: HeapId) -> Rc<Self> {
        Rc::new(RootTable {
            heap,
            slots: RefCell::default(),
            cycle: Cell::new(0),
            dropped: Cell::new(0),
        })
    }

    pub(crate) fn heap(&self) -> HeapId {
        self.heap
    }

    /// Calls `each` with the object of every root. It must not make or drop roots.
    pub(crate) fn for_each(&self, each: impl FnMut(NonNull<u8>)) {
        self.slots.borrow().objects.iter().copied().flatten().for_each(each);
    }

    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.borrow();
        slots.objects.len() - slots.free.len()
    }

    /// How many roots have been dropped so far. Drop glue may drop some during a sweep.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// A cycle has begun.
    pub(crate) fn count_cycle(&self, cycle: u64) {
        self.cycle.set(cycle);
    }

    /// The roots that have lived for at least so many cycles, the oldest first. O(roots).
    pub(crate) fn old(&self, cycles: u64) -> Vec<OldRoot> {
        let slots = self.slots.borrow();
        let mut old: Vec<OldRoot> = slots
            .objects
            .iter()
            .zip(&slots.origins)
            .filter(|(object, _)| object.is_some())
            .map(|(_, &RootOrigin { type_name, site, cycle })| OldRoot {
                type_name,
                site,
                cycles: self.cycle.get() - cycle,
            })
            .filter(|root| root.cycles >= cycles)
            .collect();
        old.sort_by_key(|root| std::cmp::Reverse(root.cycles));
        old
    }

    fn insert<Q>(&self, object: NonNull<u8>, site: &'static Location<'static>) -> usize {
        let slots = &mut *self.slots.borrow_mut();
        let type_name = std::any::type_name::<Q>();
        let origin = RootOrigin { type_name, site, cycle: self.cycle.get() };
        match slots.free.pop() {
            Some(index) => {
                slots.objects[index] = Some(object);
                slots.origins[index] = origin;
                index
            }
            None => {
                slots.objects.push(Some(object));
                slots.origins.push(origin);
                slots.objects.len() - 1
            }
        }
    }

    fn get(&self, index: usize) -> NonNull<u8> {
        self.slots.borrow().objects[index].expect("a root's slot is set until the root is dropped")
    }

    fn remove(&self, index: usize) {
        let slots = &mut *self.slots.borrow_mut();
        slots.objects[index] = None;
        self.dropped.set(self.dropped.get() + 1);
        slots.free.push(index);
    }
}
