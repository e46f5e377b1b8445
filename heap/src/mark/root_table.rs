//! The table of a heap's dynamic roots, from which the marker starts.
//!
//! Invariant: the table holds the addresses of all objects with a root that has not been dropped.

use std::any::type_name;
use std::fmt;
use std::panic::Location;
use std::ptr::NonNull;

use sexton_sync::Mutex;
use sexton_sync::Process;

use crate::id::HeapId;
use crate::memory::address::ObjectAddress;
use crate::memory::peak::room_after_peak;

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
    /// Whether it is a [`SharedRoot`](crate::SharedRoot).
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
    slots: Mutex<Roots>,
    home: Process,
}

struct Roots {
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
    /// The scan under way has still to come to the roots before this place. It goes backwards: what
    /// is moved into a hole comes from behind it, or from where it has not been.
    ahead: usize,
    /// Objects of roots dropped before the scan came to them.
    handed_over: Vec<ObjectAddress>,
}

/// No number.
const NONE: u32 = u32::MAX;

/// One root.
struct Entry {
    object: ObjectAddress,
    kind: RootKind,
    number: u32,
}

/// What is known of a root.
#[derive(Clone, Copy)]
pub(crate) struct RootKind {
    type_name: &'static str,
    site: &'static Location<'static>,
    /// The cycle after which it was made.
    cycle: u64,
    shared: bool,
}

impl RootKind {
    pub(crate) fn of<Q>(site: &'static Location<'static>, shared: bool) -> Self {
        RootKind { type_name: type_name::<Q>(), site, cycle: 0, shared }
    }
}

impl Default for Roots {
    fn default() -> Self {
        Roots {
            roots: Vec::new(),
            places: Vec::new(),
            free: NONE,
            cycle: 0,
            dropped: 0,
            ahead: 0,
            handed_over: Vec::new(),
        }
    }
}

impl Roots {
    /// Adds a root; its number. O(1).
    fn insert(&mut self, object: ObjectAddress, kind: RootKind) -> u32 {
        // That number of roots takes 200 GB.
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
        let removed = self.roots.swap_remove(place as usize);
        if (place as usize) < self.ahead {
            self.handed_over.push(removed.object);
            self.ahead = self.ahead.min(self.roots.len());
        }
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
        RootTable { heap, slots: Mutex::new(Roots::default()), home: Process::current() }
    }

    pub(crate) fn heap(&self) -> HeapId {
        self.heap
    }

    /// Gives the bytes of the table.
    pub(crate) fn bytes(&self) -> u64 {
        let Roots { roots, places, handed_over, .. } = &*self.slots.lock();
        let bytes = roots.capacity() * size_of::<Entry>()
            + places.capacity() * size_of::<u32>()
            + handed_over.capacity() * size_of::<ObjectAddress>();
        bytes as u64
    }

    /// Begins a scan of the roots there are now. O(1).
    pub(crate) fn begin_scan(&self) {
        let mut slots = self.slots.lock();
        slots.ahead = slots.roots.len();
        slots.handed_over.clear();
    }

    /// Calls `each` with the objects of at most `most` roots of the scan. They include objects of
    /// roots that were dropped before the scan came to them. Tells whether it is over, as things
    /// stand.
    ///
    /// `each` must not make or drop roots.
    pub(crate) fn scan(&self, most: usize, mut each: impl FnMut(NonNull<u8>)) -> bool {
        let mut slots = self.slots.lock();
        let from = slots.ahead.saturating_sub(most);
        slots.roots[from..slots.ahead].iter().for_each(|root| each(root.object.0));
        slots.ahead = from;
        let kept = slots.handed_over.len().saturating_sub(most);
        slots.handed_over.drain(kept..).for_each(|object| each(object.0));
        from == 0 && kept == 0
    }

    /// Gives up a scan. O(1).
    pub(crate) fn end_scan(&self) {
        // A thread that a `fork` has left behind may have been scanning. No scan follows then.
        let Some(mut slots) = self.slots.lock_at(self.home) else { return };
        slots.ahead = 0;
        slots.handed_over = Vec::new();
    }

    /// Calls `each` with the objects of all roots that the scan has not come to.
    pub(crate) fn for_each_ahead(&self, mut each: impl FnMut(NonNull<u8>)) {
        let slots = self.slots.lock();
        let ahead = slots.roots[..slots.ahead].iter().map(|root| root.object);
        ahead.chain(slots.handed_over.iter().copied()).for_each(|object| each(object.0));
    }

    /// Calls `each` with the object of every root. It must not make or drop roots. O(roots).
    pub(crate) fn for_each(&self, mut each: impl FnMut(NonNull<u8>)) {
        self.slots.lock().roots.iter().for_each(|root| each(root.object.0));
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.lock().roots.len()
    }

    /// Tells how many roots have been dropped so far. Drop glue may drop some during a sweep, and
    /// other threads drop shared ones at any time.
    pub(crate) fn dropped(&self) -> u64 {
        self.slots.lock().dropped
    }

    /// Takes note that a cycle has begun, and gives back what only a peak has needed. O(roots).
    pub(crate) fn count_cycle(&self, cycle: u64) {
        let mut slots = self.slots.lock();
        slots.cycle = cycle;
        slots.shrink();
    }

    /// Lists the roots that have lived for at least `cycles` cycles, the oldest first. O(roots).
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

    pub(crate) fn insert(&self, object: NonNull<u8>, kind: RootKind) -> usize {
        let mut slots = self.slots.lock();
        let kind = RootKind { cycle: slots.cycle, ..kind };
        slots.insert(ObjectAddress(object), kind) as usize
    }

    pub(crate) fn remove(&self, index: usize) {
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
