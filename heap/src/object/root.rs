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

use sexton_cleanup::Process;
use sexton_cleanup::sync::Mutex;

use crate::id::HeapId;
use crate::memory::peak::room_after_peak;
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
    home: Process,
}

struct Slots {
    /// The roots. They lie side by side, whichever have been dropped, so a mark visits no more than
    /// there are.
    roots: Vec<Entry>,
    /// Maps the number of a root, which its handle has, to its place in `roots`. For a free number:
    /// the next free one.
    places: Vec<u32>,
    /// The first free number, or [`NONE`].
    free: u32,
    /// Cycles the heap has run.
    cycle: u64,
    /// Roots dropped so far.
    dropped: u64,
}

/// No number.
const NONE: u32 = u32::MAX;

/// One root.
struct Entry {
    object: Object,
    kind: RootKind,
    number: u32,
}

/// What is known of a root.
#[derive(Clone, Copy)]
struct RootKind {
    type_name: &'static str,
    site: &'static Location<'static>,
    /// The cycle after which it was made.
    cycle: u64,
    shared: bool,
}

impl RootKind {
    fn of<Q>(site: &'static Location<'static>, shared: bool) -> Self {
        RootKind { type_name: type_name::<Q>(), site, cycle: 0, shared }
    }
}

impl Default for Slots {
    fn default() -> Self {
        Slots { roots: Vec::new(), places: Vec::new(), free: NONE, cycle: 0, dropped: 0 }
    }
}

impl Slots {
    /// Adds a root; its number. O(1).
    fn insert(&mut self, object: Object, kind: RootKind) -> u32 {
        // So many take 200 GB.
        assert!(self.roots.len() < NONE as usize, "a heap has fewer than four billion roots");
        let place = self.roots.len() as u32;
        let number = self.free;
        let number = match self.places.get_mut(number as usize) {
            Some(next) => {
                self.free = std::mem::replace(next, place);
                number
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        self.roots.push(Entry { object, kind, number });
        number
    }

    /// Takes the root of that number out. O(1).
    fn remove(&mut self, number: u32) {
        let place = std::mem::replace(&mut self.places[number as usize], self.free);
        self.free = number;
        self.roots.swap_remove(place as usize);
        if let Some(moved) = self.roots.get(place as usize) {
            self.places[moved.number as usize] = place;
        }
    }

    /// Gives back the memory that only a peak has needed. O(roots), and O(numbers) where some are
    /// given up.
    ///
    /// Numbers in use stay as they are. So `places`, at four bytes each, goes on to the highest of
    /// them.
    fn shrink(&mut self) {
        if let Some(room) = room_after_peak(self.roots.len(), self.roots.capacity()) {
            self.roots.shrink_to(room);
        }
        if room_after_peak(self.roots.len(), self.places.capacity()).is_none() {
            return;
        }
        let used = self.roots.iter().map(|root| root.number as usize + 1).max().unwrap_or(0);
        if let Some(room) = room_after_peak(used, self.places.capacity()) {
            self.places.truncate(used);
            self.places.shrink_to(room);
            self.free = NONE;
            // The lowest comes first, so that high ones fall out of use.
            for number in (0..used).rev() {
                let root = self.roots.get(self.places[number] as usize);
                if root.is_none_or(|root| root.number as usize != number) {
                    self.places[number] = std::mem::replace(&mut self.free, number as u32);
                }
            }
        }
    }
}

impl RootTable {
    pub(crate) fn new(heap: HeapId) -> Self {
        RootTable { heap, slots: Mutex::new(Slots::default()), home: Process::current() }
    }

    pub(crate) fn heap(&self) -> HeapId {
        self.heap
    }

    /// Calls `each` with the object of every root. It must not make or drop roots. O(roots).
    pub(crate) fn for_each(&self, mut each: impl FnMut(NonNull<u8>)) {
        self.slots.lock().roots.iter().for_each(|root| each(root.object.0));
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.lock().roots.len()
    }

    /// How many roots have been dropped so far. Drop glue may drop some during a sweep, other threads shared ones at any time.
    pub(crate) fn dropped(&self) -> u64 {
        self.slots.lock().dropped
    }

    /// Takes note that a cycle has begun, and gives back what only a peak has needed. O(roots).
    pub(crate) fn count_cycle(&self, cycle: u64) {
        let mut slots = self.slots.lock();
        slots.cycle = cycle;
        slots.shrink();
    }

    /// The roots that have lived for at least so many cycles, the oldest first. O(roots).
    pub(crate) fn old(&self, cycles: u64) -> Vec<OldRoot> {
        let slots = self.slots.lock();
        let roots = slots.roots.iter().map(|root| {
            let RootKind { type_name, site, cycle, shared } = root.kind;
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
        slots.insert(Object(object), kind) as usize
    }

    fn remove(&self, index: usize) {
        // A thread that a `fork` has left behind may have been dropping a root, too.
        let Some(mut slots) = self.slots.lock_at(self.home) else { return };
        slots.remove(index as u32);
        slots.dropped += 1;
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn insert(table: &RootTable, object: usize) -> usize {
        let object = NonNull::without_provenance(object.try_into().expect("not zero"));
        table.insert(object, RootKind::of::<u8>(Location::caller(), false))
    }

    fn objects(table: &RootTable) -> Vec<usize> {
        let mut objects = Vec::new();
        table.for_each(|object| objects.push(object.addr().get()));
        objects.sort_unstable();
        objects
    }

    /// Room for roots, and for numbers.
    fn room(table: &RootTable) -> (usize, usize) {
        let slots = table.slots.lock();
        (slots.roots.capacity(), slots.places.capacity())
    }

    #[test]
    fn after_a_peak_a_table_is_as_large_as_what_it_holds() {
        let table = RootTable::new(HeapId::next());
        for step in [1000, 100, 10] {
            let numbers: Vec<usize> = (1..=100_000).map(|object| insert(&table, object)).collect();
            table.count_cycle(1);
            assert!(room(&table).0 >= 100_000);
            // Survivors are scattered, and the youngest is among them.
            let (dead, alive): (Vec<usize>, _) =
                (1..=100_000).partition(|object| object % step > 0);
            dead.iter().for_each(|object| table.remove(numbers[object - 1]));
            table.count_cycle(2);
            assert_eq!(objects(&table), alive);
            assert!(room(&table).0 < 4 * alive.len() + 1000, "{:?}", room(&table));
            // All but the oldest of them.
            alive[1..].iter().for_each(|object| table.remove(numbers[object - 1]));
            table.count_cycle(3);
            assert_eq!(objects(&table), [alive[0]]);
            let (roots, numbers_room) = room(&table);
            assert!(roots < 1000 && numbers_room < 5000, "{:?}", room(&table));
            table.remove(numbers[alive[0] - 1]);
        }
        assert_eq!((table.dropped(), table.len()), (300_000, 0));
    }

    /// Peaks of all heights, each thinned out at random.
    #[test]
    fn agrees_with_a_map_whatever_came_before() {
        let table = RootTable::new(HeapId::next());
        let mut alive = BTreeMap::new();
        let mut seed = 88_172_645_463_325_252_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize % below
        };
        for round in 1..200 {
            let most = 1 << random(13);
            for object in 1..=random(most) {
                let old = alive.insert(insert(&table, object), object);
                assert_eq!(old, None, "a number in use was given again");
            }
            let of = random(9) + 1;
            alive.retain(|&number, _| {
                let stays = random(10) >= of;
                if !stays {
                    table.remove(number);
                }
                stays
            });
            table.count_cycle(round);
            let mut expected: Vec<usize> = alive.values().copied().collect();
            expected.sort_unstable();
            assert_eq!(objects(&table), expected, "round {round}");
        }
    }
}
