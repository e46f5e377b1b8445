//! The heap's own hash map: a trie of pages by the bits of hashes, whose leaves are hash tables.
//!
//! Each entry keeps its hash. So no code of a user runs while a table grows or a page is split.
//!
//! Invariant: while code of a user runs that may have references into a page (`Eq`, closures), the
//! map is borrowed. A borrowed map does not begin to change.

use std::any::type_name;
use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::mem::needs_drop;

use hashbrown::HashTable;

use crate::object::gc::Gc;
use crate::object::trace::{Branded, Trace, Tracer};
use crate::payload::cells::GcCell;
use crate::payload::page::{Page, PageContent};
use crate::session::mode::{Mode, Payload};
use crate::session::mutation::Mutation;

/// Entries of a leaf. A full one is split.
const MOST: usize = 448;

/// Pages of an inner page, as a power of two.
const BITS: u32 = 4;
const FANOUT: usize = 1 << BITS;

/// Bits of a hash that its table uses for itself: the lowest, and the seven highest.
const TABLE_BITS: u32 = 9;

/// Levels that the bits between suffice for.
const LEVELS: u32 = (64 - 7 - TABLE_BITS) / BITS;

/// A hash map for any number of pointers, in which no step is long: neither a write nor a trace.
///
/// A collection in slices traces it by pages of 448 entries, in any number of slices. A write
/// reports the one entry that it removes or replaces. It grows by splitting a page, and never as a
/// whole. A `GcRefCell<HashMap<_, _>>` is traced in one step, by the collector or by the first
/// mutable borrow in a cycle, and copies all entries when it grows. So it has its place up to some
/// ten thousand entries.
///
/// Keys are of any type with `Hash` and `Eq`; to go by identity take
/// [`GcKey`](crate::GcKey). Values are `Copy`: `Gc`, `Option<Gc>`, numbers, and tuples of them. A
/// key that leaves the map is dropped at once, or by the next collection if [`clear`](Self::clear)
/// removes it.
///
/// It is a field for one thread, like [`GcCell`]. In a `Shared` heap it lies in a
/// [`GcMutex`](crate::GcMutex); the marker then takes the pages one by one, too.
///
/// ```compile_fail,E0277
/// # use sexton_heap::{GcMap, Mutation, Shared};
/// fn wrong(mc: &Mutation<'_, Shared>) {
///     mc.alloc(GcMap::<u32, u32>::new()); // not `Sync`
/// }
/// ```
///
/// `Hash` runs before the map is looked at. `Eq` and closures run while it is borrowed: they may
/// read it, and panic if they change it.
///
/// | call | steps at most |
/// |---|---|
/// | `get`, `remove` | one a level, and a look into a table of 448 entries |
/// | `insert` | the same; one in some hundred grows a table, or splits a page of 448 into 16 |
/// | `clear` | one |
/// | `retain`, `for_each` | one an entry |
/// | between two looks of a marker at the clock | some thousand entries |
///
/// There is a level for each factor of 16: four for ten million entries. The bounds fail for keys
/// whose hashes are equal in 48 bits, as those of a bad `Hash` are. They stay in one page.
///
/// ```
/// # use sexton_cleanup::{Client, Pool, PoolConfig};
/// # use sexton_heap::{Gc, GcMap, HeapConfig, Leaf, RawHeap};
/// # type World = GcMap<'static, String, Gc<'static, Leaf<u32>>>;
/// # let client = Client::new(&Pool::new(PoolConfig::default(), None));
/// # let config = HeapConfig::default();
/// # let mut heap: RawHeap<World> = RawHeap::new(client, config, |_| GcMap::default());
/// heap.mutate(|mc, map| {
///     map.insert(mc, "one".to_owned(), mc.alloc(Leaf::new(1)));
///     map.insert(mc, "two".to_owned(), mc.alloc(Leaf::new(2)));
///     assert_eq!(map.get("two").map(|leaf| **leaf), Some(2));
///     map.retain(mc, |_, leaf| **leaf > 1);
///     assert!(map.remove(mc, "one").is_none());
///     assert_eq!(map.len(), 1);
/// });
/// ```
pub struct GcMap<'gc, K, V, S = RandomState> {
    root: GcCell<Option<MapPage<'gc, K, V>>>,
    len: Cell<usize>,
    borrows: Cell<usize>,
    hasher: S,
}

type MapPage<'gc, K, V> = Gc<'gc, Page<MapContent<'gc, K, V>>>;

enum MapContent<'gc, K, V> {
    Entries(HashTable<Entry<K, V>>),
    /// One for each value of the bits of this level.
    Pages(Box<[MapPage<'gc, K, V>]>),
}

struct Entry<K, V> {
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Entry<K, V> {
    fn insert(self, table: &mut HashTable<Self>) {
        table.insert_unique(self.hash, self, |entry| entry.hash);
    }
}

impl<K, V> MapContent<'_, K, V> {
    const EMPTY: Self = MapContent::Entries(HashTable::new());

    fn entries(&self) -> &HashTable<Entry<K, V>> {
        match self {
            MapContent::Entries(entries) => entries,
            MapContent::Pages(_) => unreachable!("the path to an entry ends at a leaf"),
        }
    }

    fn entries_mut(&mut self) -> &mut HashTable<Entry<K, V>> {
        match self {
            MapContent::Entries(entries) => entries,
            MapContent::Pages(_) => unreachable!("the path to an entry ends at a leaf"),
        }
    }
}

impl<K, V> PageContent for MapContent<'_, K, V> {
    #[inline]
    fn table_bytes(&self) -> usize {
        match self {
            MapContent::Entries(entries) => entries.allocation_size(),
            MapContent::Pages(pages) => size_of_val(&**pages),
        }
    }
}

/// Gives what a key owns outside the heap.
#[inline]
fn bytes_of<'gc, K: Trace<'gc>>(key: &K) -> usize {
    if needs_drop::<K>() { key.external_bytes() } else { 0 }
}

/// Gives the place, in a page of a level, of the path to a hash. Level 0 is the topmost.
#[inline]
fn place(hash: u64, level: u32) -> usize {
    (hash >> (TABLE_BITS + BITS * level)) as usize % FANOUT
}

/// The map is borrowed, and does not change.
struct Borrowed<'a>(&'a Cell<usize>);

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<K, V> GcMap<'_, K, V> {
    /// Makes an empty map, which takes no memory.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<K, V, S> GcMap<'_, K, V, S> {
    /// Makes an empty map that hashes its keys by `hasher`.
    pub const fn with_hasher(hasher: S) -> Self {
        GcMap { root: GcCell::new(None), len: Cell::new(0), borrows: Cell::new(0), hasher }
    }

    /// Tells how many entries there are. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Tells whether there is no entry. O(1).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says that references into pages are about to be held while code of a user runs.
    fn borrow(&self) -> Borrowed<'_> {
        self.borrows.set(self.borrows.get() + 1);
        Borrowed(&self.borrows)
    }

    /// # Panics
    ///
    /// If the map is borrowed.
    #[inline]
    #[track_caller]
    fn about_to_change(&self) {
        if self.borrows.get() > 0 {
            is_borrowed::<Self>();
        }
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn is_borrowed<M>() -> ! {
    panic!("a `{}` is changed by an `Eq` or a closure that it runs", type_name::<M>())
}

impl<'gc, K: Trace<'gc>, V: Copy + Trace<'gc>, S> GcMap<'gc, K, V, S> {
    /// Removes all entries. O(1).
    ///
    /// Their keys are dropped by the next collection.
    ///
    /// # Panics
    ///
    /// If an `Eq` or a closure that the map runs calls it.
    #[track_caller]
    pub fn clear<M: Mode>(&self, mc: &Mutation<'gc, M>) {
        self.about_to_change();
        self.root.set(mc, None);
        self.len.set(0);
    }

    /// Calls `f` with each entry, in no order. O(n).
    ///
    /// `f` may read the map.
    ///
    /// # Panics
    ///
    /// If `f` does.
    pub fn for_each(&self, mut f: impl FnMut(&K, V)) {
        let _borrowed = self.borrow();
        self.for_each_leaf(|leaf| {
            // SAFETY: no page changes while the map is borrowed.
            let content = unsafe { leaf.content() };
            content.entries().iter().for_each(|entry| f(&entry.key, entry.value));
        });
    }

    /// Keeps the entries that `f` says so of, and removes the others. O(n).
    ///
    /// `f` may read the map.
    ///
    /// # Panics
    ///
    /// If `f` does, or if an `Eq` or a closure that the map runs calls it. Of a page in which `f`
    /// panics nothing is removed.
    #[track_caller]
    pub fn retain<M: Mode>(&self, mc: &Mutation<'gc, M>, mut f: impl FnMut(&K, V) -> bool) {
        self.about_to_change();
        let _borrowed = self.borrow();
        self.for_each_leaf(|leaf| {
            // SAFETY: `f` changes no page, as the map is borrowed. The reference ends before this
            // call does.
            let table = unsafe { leaf.content() }.entries();
            let removed = (0..table.num_buckets()).filter(|&bucket| {
                let entry = table.get_bucket(bucket);
                entry.is_some_and(|entry| !f(&entry.key, entry.value))
            });
            let removed: Vec<_> = removed.collect();
            if removed.is_empty() {
                return;
            }
            leaf.empties(mc);
            let removed: Vec<_> = leaf.change(mc, |content| {
                let table = content.entries_mut();
                removed.into_iter().filter_map(|bucket| take(table, bucket)).collect()
            });
            self.len.set(self.len.get() - removed.len());
            leaf.owns(
                mc,
                removed.iter().map(|entry| bytes_of(&entry.key)).fold(0, usize::saturating_add),
                0,
            );
            // Here drop glue runs, and the map is whole.
            drop(removed);
        });
    }

    /// Calls `f` with each leaf that there is now.
    fn for_each_leaf(&self, mut f: impl FnMut(MapPage<'gc, K, V>)) {
        let mut waiting: Vec<_> = self.root.get().into_iter().collect();
        while let Some(page) = waiting.pop() {
            // SAFETY: the reference ends before a page is changed.
            match unsafe { page.content() } {
                MapContent::Pages(pages) => waiting.extend(pages.iter().rev()),
                MapContent::Entries(_) => f(page),
            }
        }
    }

    /// Gives the leaf for a hash, and its level; `None` if there is no page.
    #[inline]
    fn leaf(&self, hash: u64) -> Option<(MapPage<'gc, K, V>, u32)> {
        let mut page = self.root.get()?;
        let mut level = 0;
        // SAFETY: the reference ends within the step, which changes no page.
        while let MapContent::Pages(pages) = unsafe { page.content() } {
            page = pages[place(hash, level)];
            level += 1;
        }
        Some((page, level))
    }
}

/// Takes an entry out of its place.
fn take<T>(table: &mut HashTable<T>, bucket: usize) -> Option<T> {
    Some(table.get_bucket_entry(bucket).ok()?.remove().0)
}

impl<'gc, K, V, S> GcMap<'gc, K, V, S>
where
    K: Trace<'gc> + Hash + Eq,
    V: Trace<'gc> + Copy,
    S: BuildHasher,
{
    /// Gives the value of a key.
    ///
    /// # Panics
    ///
    /// If the key's `Hash` or `Eq` does.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (leaf, bucket) = self.find(self.hash(key), key)?;
        // SAFETY: the reference ends before this call does, which changes no page.
        let table = unsafe { leaf.content() }.entries();
        table.get_bucket(bucket).map(|entry| entry.value)
    }

    /// Tells whether there is an entry with a key.
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.find(self.hash(key), key).is_some()
    }

    /// Sets the value of a key, and gives the old one. A key that is there stays.
    ///
    /// # Panics
    ///
    /// If the key's `Hash` or `Eq` does, or calls it. If it needs a page and the heap is full, as
    /// [`Mutation::alloc`]. Nothing is changed then.
    #[track_caller]
    pub fn insert<M: Mode>(&self, mc: &Mutation<'gc, M>, key: K, value: V) -> Option<V>
    where
        K: Payload<M>,
        V: Payload<M>,
    {
        let hash = self.hash(&key);
        self.about_to_change();
        if let Some((leaf, bucket)) = self.find(hash, &key) {
            // SAFETY: the reference ends before the page is changed.
            let table = unsafe { leaf.content() }.entries();
            let old = table.get_bucket(bucket)?.value;
            leaf.removes(mc, &old);
            leaf.change(mc, |content| {
                let entry = content.entries_mut().get_bucket_mut(bucket);
                entry.into_iter().for_each(|entry| entry.value = value);
            });
            return Some(old);
        }
        let leaf = self.leaf_to_insert(mc, hash);
        leaf.owns(mc, 0, bytes_of(&key));
        let entry = Entry { hash, key, value };
        leaf.change(mc, |content| entry.insert(content.entries_mut()));
        self.len.set(self.len.get() + 1);
        None
    }

    /// Removes the entry with a key, and gives its value.
    ///
    /// # Panics
    ///
    /// If the key's `Hash`, `Eq` or `Drop` does, or if one of the first two calls it.
    #[track_caller]
    pub fn remove<Q, M: Mode>(&self, mc: &Mutation<'gc, M>, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hash(key);
        self.about_to_change();
        let (leaf, bucket) = self.find(hash, key)?;
        {
            // SAFETY: the reference ends before the page is changed.
            let table = unsafe { leaf.content() }.entries();
            let entry = table.get_bucket(bucket)?;
            leaf.removes(mc, &entry.key);
            leaf.removes(mc, &entry.value);
        }
        let entry = leaf.change(mc, |content| take(content.entries_mut(), bucket))?;
        self.len.set(self.len.get() - 1);
        leaf.owns(mc, bytes_of(&entry.key), 0);
        // Here drop glue runs, and the map is whole.
        drop(entry.key);
        Some(entry.value)
    }

    /// Finds the entry of a key: its leaf, and its place in there.
    fn find<Q>(&self, hash: u64, key: &Q) -> Option<(MapPage<'gc, K, V>, usize)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let (leaf, _) = self.leaf(hash)?;
        let _borrowed = self.borrow();
        // SAFETY: no page changes while the map is borrowed.
        let table = unsafe { leaf.content() }.entries();
        let is_it = |entry: &Entry<K, V>| entry.hash == hash && entry.key.borrow() == key;
        Some((leaf, table.find_bucket_index(hash, is_it)?))
    }

    /// Gives the hash of a key. A weak hasher's bits are spread over all.
    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        let product = u128::from(self.hasher.hash_one(key)) * 0x9e37_79b9_7f4a_7c15;
        (product >> 64) as u64 ^ product as u64
    }

    /// Gives the leaf for a hash, with room for an entry. Splits a full one.
    #[track_caller]
    fn leaf_to_insert<M: Mode>(&self, mc: &Mutation<'gc, M>, hash: u64) -> MapPage<'gc, K, V> {
        loop {
            let Some((leaf, level)) = self.leaf(hash) else {
                let leaf = mc.alloc_any(Page::new(MapContent::EMPTY));
                self.root.set(mc, Some(leaf));
                return leaf;
            };
            // SAFETY: the reference ends here.
            let len = unsafe { leaf.content() }.entries().len();
            if len < MOST || level == LEVELS {
                return leaf;
            }
            self.split(mc, leaf, level);
        }
    }

    /// Makes a full leaf an inner page, and moves its entries to new leaves.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn split<M: Mode>(&self, mc: &Mutation<'gc, M>, full: MapPage<'gc, K, V>, level: u32) {
        // Twice the room that the entries need, so that the tables do not grow at once.
        let table = || MapContent::Entries(HashTable::with_capacity(2 * MOST / FANOUT));
        let pages: Box<[_]> = (0..FANOUT).map(|_| mc.alloc_any(Page::new(table()))).collect();
        full.empties(mc);
        let content =
            full.change(mc, |content| std::mem::replace(content, MapContent::Pages(pages.clone())));
        if let MapContent::Entries(entries) = content {
            for entry in entries {
                let leaf = pages[place(entry.hash, level)];
                let bytes = bytes_of(&entry.key);
                full.owns(mc, bytes, 0);
                leaf.owns(mc, 0, bytes);
                leaf.change(mc, |content| entry.insert(content.entries_mut()));
            }
        }
    }
}

impl<K, V, S: Default> Default for GcMap<'_, K, V, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

impl<'gc, K, V, S> fmt::Debug for GcMap<'gc, K, V, S>
where
    K: Trace<'gc> + fmt::Debug,
    V: Trace<'gc> + Copy + fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        self.for_each(|key, value| _ = map.entry(key, &value));
        map.finish()
    }
}

// SAFETY: the topmost page is reported; dropping it reads nothing; the family is the map with its
// brand open. The hasher is 'static, so it owns no pointer.
unsafe impl<'gc, K: Trace<'gc>, V: Trace<'gc>, S: 'static> Trace<'gc> for GcMap<'gc, K, V, S> {
    type Family = GcMap<'static, K::Family, V::Family, S>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.root.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<K: Branded, V: Branded, S: 'static> Branded for GcMap<'static, K, V, S> {
    type At<'gc> = GcMap<'gc, K::At<'gc>, V::At<'gc>, S>;
}

// SAFETY: the entries, or the pages, are traced; dropping a table drops its entries and reads none;
// the family is the content with its brand open.
unsafe impl<'gc, K: Trace<'gc>, V: Trace<'gc>> Trace<'gc> for MapContent<'gc, K, V> {
    type Family = MapContent<'static, K::Family, V::Family>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        match self {
            MapContent::Pages(pages) => pages.trace(tracer),
            MapContent::Entries(entries) => {
                tracer.spend(entries.len());
                if K::NEEDS_TRACE || V::NEEDS_TRACE {
                    for entry in entries {
                        entry.key.trace(tracer);
                        entry.value.trace(tracer);
                    }
                }
            }
        }
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<K: Branded, V: Branded> Branded for MapContent<'static, K, V> {
    type At<'gc> = MapContent<'gc, K::At<'gc>, V::At<'gc>>;
}
