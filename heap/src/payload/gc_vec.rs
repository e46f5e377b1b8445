//! The heap's own vector: a tree of pages, whose leaves have the elements.
//!
//! Invariant: all leaves are full, but for the last one with elements. Those behind it are empty.
//! So an index is the path to its element.

use std::cell::Cell;
use std::fmt;
use std::iter::successors;

use crate::object::gc::Gc;
use crate::object::trace::{Branded, Trace, Tracer};
use crate::payload::cells::GcCell;
use crate::payload::page::{Page, PageContent};
use crate::session::mode::{Mode, Payload};
use crate::session::mutation::Mutation;

/// Elements of a leaf, and pages of an inner page, as a power of two.
const BITS: u32 = 9;
const FANOUT: usize = 1 << BITS;

/// A vector for any number of pointers, in which no step is long: neither a write nor a trace.
///
/// A collection in slices traces it by pages of 512 elements, in any number of slices. A write
/// reports the one element that it overwrites. There is no growing that copies all elements. All of
/// a `GcRefCell<Vec<_>>` is traced at once by the first mutable borrow in a cycle. So a vector that
/// is changed has its place there up to some ten thousand elements.
///
/// Elements are `Copy`: `Gc`, `Option<Gc>`, numbers, and tuples of them. They are read and written
/// by value, so nothing is ever borrowed, and calls may come in any order.
///
/// It is a field for one thread, like [`GcCell`]. In a `Shared` heap it lies in a
/// [`GcMutex`](crate::GcMutex); the marker then takes the pages one by one, too.
///
/// ```compile_fail,E0277
/// # use sexton_heap::{GcVec, Mutation, Shared};
/// fn wrong(mc: &Mutation<'_, Shared>) {
///     mc.alloc(GcVec::<u32>::new()); // not `Sync`
/// }
/// ```
///
/// In the tables n is the length, and a level has 512 times the elements of the one below it. Three
/// levels have room for 134 million.
///
/// | call | steps at most |
/// |---|---|
/// | `get`, `set`, `swap`, `pop`, `swap_remove` | one a level |
/// | `push` | the same, and a new page a level |
/// | `truncate` | 512 a level |
/// | `clear` | one |
/// | between two looks of a marker at the clock | some thousand elements |
///
/// `pop` and `swap_remove` keep the pages, as `Vec` keeps its capacity. `truncate` and `clear` give
/// them to the next collection.
///
/// ```
/// # use sexton_cleanup::{Client, Pool, PoolConfig};
/// # use sexton_heap::{Gc, GcVec, HeapConfig, Leaf, RawHeap};
/// # type World = GcVec<'static, Gc<'static, Leaf<u32>>>;
/// # let client = Client::new(&Pool::new(PoolConfig::default(), None));
/// # let mut heap: RawHeap<World> = RawHeap::new(client, HeapConfig::default(), |_| GcVec::new());
/// heap.mutate(|mc, list| {
///     list.extend(mc, (0..1000).map(|n| mc.alloc(Leaf::new(n))));
///     let removed = list.swap_remove(mc, 0);
///     assert_eq!((**removed, list.len()), (0, 999));
///     assert_eq!(list.get(0).map(|last| **last), Some(999));
///     list.truncate(mc, 10);
///     assert_eq!(list.iter().map(|leaf| **leaf).max(), Some(999));
/// });
/// ```
pub struct GcVec<'gc, T> {
    root: GcCell<Option<VecPage<'gc, T>>>,
    /// Levels above the leaves.
    height: Cell<u32>,
    len: Cell<usize>,
}

type VecPage<'gc, T> = Gc<'gc, Page<VecContent<'gc, T>>>;

enum VecContent<'gc, T> {
    Values(Vec<T>),
    /// All of the level below.
    Pages(Vec<VecPage<'gc, T>>),
}

impl<'gc, T> VecContent<'gc, T> {
    fn values(&self) -> &[T] {
        match self {
            VecContent::Values(values) => values,
            VecContent::Pages(_) => unreachable!("the path to an element ends at a leaf"),
        }
    }

    fn values_mut(&mut self) -> &mut Vec<T> {
        match self {
            VecContent::Values(values) => values,
            VecContent::Pages(_) => unreachable!("the path to an element ends at a leaf"),
        }
    }

    fn pages(&self) -> &[VecPage<'gc, T>] {
        match self {
            VecContent::Pages(pages) => pages,
            VecContent::Values(_) => unreachable!("a leaf has no pages"),
        }
    }

    fn pages_mut(&mut self) -> &mut Vec<VecPage<'gc, T>> {
        match self {
            VecContent::Pages(pages) => pages,
            VecContent::Values(_) => unreachable!("a leaf has no pages"),
        }
    }
}

impl<T> PageContent for VecContent<'_, T> {
    #[inline]
    fn table_bytes(&self) -> usize {
        match self {
            VecContent::Values(values) => values.capacity() * size_of::<T>(),
            VecContent::Pages(pages) => pages.capacity() * size_of::<VecPage<'_, T>>(),
        }
    }
}

impl<T> GcVec<'_, T> {
    /// Makes an empty vector, which takes no memory.
    ///
    /// There is no `with_capacity`, as growing copies nothing.
    pub const fn new() -> Self {
        GcVec { root: GcCell::new(None), height: Cell::new(0), len: Cell::new(0) }
    }

    /// Tells how many elements there are. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Tells whether there is no element. O(1).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Ends a session that names an element that is not there.
#[cold]
#[inline(never)]
#[track_caller]
fn out_of_bounds(index: usize, len: usize) -> ! {
    panic!("index {index} is out of bounds: the `GcVec` has {len} elements")
}

/// Gives the place, in a page of a level, of the path to an element.
#[inline]
fn place(index: usize, level: u32) -> usize {
    index.checked_shr(BITS * level).unwrap_or(0) % FANOUT
}

impl<'gc, T: Copy + Trace<'gc>> GcVec<'gc, T> {
    /// Gives the element at an index, or `None` behind the last one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.len() {
            return None;
        }
        let leaf = self.leaf(index);
        // SAFETY: the reference ends before this call does, which changes no page.
        Some(unsafe { leaf.content() }.values()[place(index, 0)])
    }

    /// Puts an element behind the last one.
    ///
    /// # Panics
    ///
    /// If it needs a page and the heap is full, as [`Mutation::alloc`]. Nothing is changed then.
    #[inline]
    #[track_caller]
    pub fn push<M: Mode>(&self, mc: &Mutation<'gc, M>, value: T)
    where
        T: Payload<M>,
    {
        let len = self.len();
        let leaf = self.leaf_to_push(mc, len);
        leaf.change(mc, |content| content.values_mut().push(value));
        self.len.set(len + 1);
    }

    /// Puts all elements of an iterator behind the last one. It has no borrow while `iter` runs.
    ///
    /// # Panics
    ///
    /// As [`push`](Self::push), and if `iter` does. The elements before that stay.
    #[track_caller]
    pub fn extend<M: Mode>(&self, mc: &Mutation<'gc, M>, iter: impl IntoIterator<Item = T>)
    where
        T: Payload<M>,
    {
        for value in iter {
            self.push(mc, value);
        }
    }

    /// Removes the last element.
    #[inline]
    pub fn pop<M: Mode>(&self, mc: &Mutation<'gc, M>) -> Option<T> {
        let last = self.len().checked_sub(1)?;
        let value = self.get(last)?;
        let leaf = self.leaf(last);
        leaf.removes(mc, &value);
        leaf.change(mc, |content| _ = content.values_mut().pop());
        self.len.set(last);
        Some(value)
    }

    /// Replaces an element, and gives the old one.
    ///
    /// # Panics
    ///
    /// If the index is out of bounds.
    #[inline]
    #[track_caller]
    pub fn set<M: Mode>(&self, mc: &Mutation<'gc, M>, index: usize, value: T) -> T
    where
        T: Payload<M>,
    {
        self.replace(mc, index, value)
    }

    /// Exchanges two elements.
    ///
    /// # Panics
    ///
    /// If one of the indices is out of bounds. Nothing is changed then.
    #[track_caller]
    pub fn swap<M: Mode>(&self, mc: &Mutation<'gc, M>, a: usize, b: usize) {
        let Some(moved) = self.get(a) else { out_of_bounds(a, self.len()) };
        let other = self.replace(mc, b, moved);
        self.replace(mc, a, other);
    }

    /// Removes an element, and puts the last one in its place.
    ///
    /// # Panics
    ///
    /// If the index is out of bounds.
    #[track_caller]
    pub fn swap_remove<M: Mode>(&self, mc: &Mutation<'gc, M>, index: usize) -> T {
        let len = self.len();
        if index >= len {
            out_of_bounds(index, len);
        }
        match self.pop(mc) {
            Some(last) if index < len - 1 => self.replace(mc, index, last),
            Some(last) => last,
            None => out_of_bounds(index, len),
        }
    }

    /// Removes all elements but the first `len`. Does nothing if there are no more.
    pub fn truncate<M: Mode>(&self, mc: &Mutation<'gc, M>, len: usize) {
        if len == 0 {
            return self.clear(mc);
        }
        let (true, Some(mut page)) = (len < self.len(), self.root.get()) else { return };
        let last = len - 1;
        for level in (1..=self.height.get()).rev() {
            let at = place(last, level);
            page.empties(mc);
            page.change(mc, |content| content.pages_mut().truncate(at + 1));
            // SAFETY: the reference ends here.
            page = unsafe { page.content() }.pages()[at];
        }
        page.empties(mc);
        page.change(mc, |content| content.values_mut().truncate(place(last, 0) + 1));
        self.len.set(len);
    }

    /// Removes all elements.
    pub fn clear<M: Mode>(&self, mc: &Mutation<'gc, M>) {
        self.root.set(mc, None);
        self.height.set(0);
        self.len.set(0);
    }

    /// Gives the elements one after the other, by their index.
    ///
    /// The vector may change meanwhile. Each element is read when the iterator comes to its index.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        (0..).map_while(|index| self.get(index))
    }

    #[track_caller]
    fn replace<M: Mode>(&self, mc: &Mutation<'gc, M>, index: usize, value: T) -> T {
        let Some(old) = self.get(index) else { out_of_bounds(index, self.len()) };
        let leaf = self.leaf(index);
        leaf.removes(mc, &old);
        leaf.change(mc, |content| content.values_mut()[place(index, 0)] = value);
        old
    }

    /// Gives the leaf with the element at an index, which is there.
    #[inline]
    fn leaf(&self, index: usize) -> VecPage<'gc, T> {
        let mut page = self.root.get().expect("elements are in pages");
        for level in (1..=self.height.get()).rev() {
            // SAFETY: the reference ends within the step, which changes no page.
            page = unsafe { page.content() }.pages()[place(index, level)];
        }
        page
    }

    /// Gives the leaf for the element behind the last one. Makes the pages that lead to it.
    #[inline]
    #[track_caller]
    fn leaf_to_push<M: Mode>(&self, mc: &Mutation<'gc, M>, len: usize) -> VecPage<'gc, T> {
        // Within a leaf that has elements nothing is to be made.
        if len.is_multiple_of(FANOUT) { self.make_leaf(mc, len) } else { self.leaf(len) }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn make_leaf<M: Mode>(&self, mc: &Mutation<'gc, M>, len: usize) -> VecPage<'gc, T> {
        let new_page = |content| mc.alloc_any(Page::new(content));
        let new_leaf = || {
            // The first leaf of a vector grows with it.
            let room = if len == 0 { 0 } else { FANOUT };
            new_page(VecContent::Values(Vec::with_capacity(room)))
        };
        let mut page = self.root.get().unwrap_or_else(|| {
            let leaf = new_leaf();
            self.root.set(mc, Some(leaf));
            leaf
        });
        let levels = successors(Some(len), |&rest| Some(rest >> BITS)).skip(1);
        let height = levels.take_while(|&rest| rest > 0).count() as u32;
        while self.height.get() < height {
            page = new_page(VecContent::Pages(vec![page]));
            self.root.set(mc, Some(page));
            self.height.set(self.height.get() + 1);
        }
        for level in (1..=self.height.get()).rev() {
            // SAFETY: the reference ends within the step, before the page is changed.
            let below = unsafe { page.content() }.pages().get(place(len, level));
            page = match below.copied() {
                Some(below) => below,
                None => {
                    let is_leaf = level == 1;
                    let below =
                        if is_leaf { new_leaf() } else { new_page(VecContent::Pages(Vec::new())) };
                    page.change(mc, |content| content.pages_mut().push(below));
                    below
                }
            };
        }
        page
    }
}

impl<T> Default for GcVec<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'gc, T: Copy + Trace<'gc> + fmt::Debug> fmt::Debug for GcVec<'gc, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

// SAFETY: the topmost page is reported; there is no `Drop`; the family is the vector with its brand
// open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for GcVec<'gc, T> {
    type Family = GcVec<'static, T::Family>;
    const NEEDS_TRACE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.root.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for GcVec<'static, F> {
    type At<'gc> = GcVec<'gc, F::At<'gc>>;
}

// SAFETY: the elements, or the pages, are traced; there is no `Drop`; the family is the content
// with its brand open.
unsafe impl<'gc, T: Trace<'gc>> Trace<'gc> for VecContent<'gc, T> {
    type Family = VecContent<'static, T::Family>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        match self {
            VecContent::Values(values) => values.trace(tracer),
            VecContent::Pages(pages) => pages.trace(tracer),
        }
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for VecContent<'static, F> {
    type At<'gc> = VecContent<'gc, F::At<'gc>>;
}
