//! Free slots, and how threads hand them to one another.
//!
//! A list of free slots is kept in the slots themselves. It consists of groups, so that the memory
//! of several slots is fetched at once. Slots freed together are used together. But objects die in
//! no order, so one free slot says nothing of where the next one lies. In a list linked slot by
//! slot each would have to come from memory before the next one's address is known. That cost 140
//! ns a registration, where every second record of 400,000 had been freed at random. Here the first
//! slot of a *group* holds the indices of the others, and of the next group's first slot.
//!
//! A *magazine* is a bounded list of groups. It changes hands as a whole, in O(1). The magazines
//! that no thread holds lie in the storage's *depot*. A thread that needs slots takes one
//! magazine, and leaves the others to other threads.
//!
//! Invariant: a slot in a list is free, and in no other list; so what lies in its cell is the
//! list's own.

use crate::record::head::Index;
use crate::record::slot::{Record, Slot};
use crate::record::storage::{FEW, Storage};
use sexton_sync::Process;
use sexton_sync::{Mutex, Ordering};
use std::collections::VecDeque;

/// Slots of one group, its first one included: as many as have room in the cell of the first one.
const GROUP: usize = 8;

/// Slots of a full magazine.
#[cfg(not(any(loom, shuttle)))]
const MAGAZINE: usize = 256;
#[cfg(any(loom, shuttle))]
const MAGAZINE: usize = 2;

/// How many slots ahead memory is fetched where groups follow one another in a row.
const IN_ROW: usize = 56;

/// The content of a group's first slot. At [`NEXT`] stands the index of the next group's first
/// slot, 0 if there is none. Then come those of the group's other slots, and 0 in the rest.
type Group = [u32; GROUP];

const NEXT: usize = 0;

const _: () = assert!(size_of::<Group>() <= size_of::<crate::record::thunk::Thunk>());
const _: () = assert!(align_of::<Group>() <= align_of::<crate::record::thunk::Thunk>());

/// Free slots owned by one thread, used in the order in which they came.
#[derive(Debug)]
pub(crate) struct FreeList {
    storage: &'static Storage,
    /// The slots to be used next, from `at` on. They are in no group any more.
    open: Group,
    at: usize,
    /// The other slots.
    closed: Magazine,
}

/// Groups of slots, linked.
#[derive(Clone, Copy, Debug)]
struct Magazine {
    /// Index of the first group's first slot; 0 if there is no group.
    first: u32,
    /// Slots of the groups before the last one. So pushing a slot changes one count, that of its
    /// group.
    before_last: usize,
    /// The last group. Means nothing if there is no group.
    last: Option<Last>,
}

/// The last group of a list.
#[derive(Clone, Copy, Debug)]
struct Last {
    record: &'static Record,
    /// Its slots, the first one included.
    len: usize,
}

impl Magazine {
    const EMPTY: Magazine = Magazine { first: 0, before_last: 0, last: None };

    /// Tells how many slots the groups have.
    fn len(&self) -> usize {
        match self.last {
            Some(last) if self.first != 0 => self.before_last + last.len,
            _ => 0,
        }
    }

    /// Takes the first `most` slots of the first group out, or all that it has. `None` if there is
    /// no group. Called with the lock of its depot held.
    fn split(&mut self, storage: &'static Storage, most: usize) -> Option<Magazine> {
        let index = Index::from_raw(self.first)?;
        let record = storage.record(index);
        let [next, others @ ..] = read(record);
        let len = 1 + others.iter().take_while(|&&other| other != 0).count();
        let taken = len.min(most);
        if taken == len {
            self.first = next;
            if next != 0 {
                self.before_last -= len;
            }
        } else {
            // The others are a group of their own.
            let rest = &others[taken - 1..len - 1];
            let first_of_rest = storage.record(Index(rest[0]));
            let mut group = [0; GROUP];
            group[NEXT] = next;
            group[1..rest.len()].copy_from_slice(&rest[1..]);
            begin(first_of_rest, group);
            self.first = rest[0];
            if next != 0 {
                self.before_last -= taken;
            } else {
                self.last = Some(Last { record: first_of_rest, len: rest.len() });
            }
        }
        let mut group = [0; GROUP];
        group[1..taken].copy_from_slice(&others[..taken - 1]);
        begin(record, group);
        let last = Some(Last { record, len: taken });
        Some(Magazine { first: index.0, before_last: 0, last })
    }

    /// Puts another one's groups behind its own. O(1); writes to its own last group only.
    fn append(&mut self, other: Magazine) {
        if self.first == 0 {
            *self = other;
        } else if other.first != 0
            && let Some(last) = self.last
        {
            change(last.record, NEXT, other.first);
            self.before_last += last.len + other.before_last;
            self.last = other.last;
        }
    }
}

/// The magazines of a storage that no thread holds, as a queue.
///
/// The one that came back first is taken. Those that came back last are still in the cache of the
/// worker that freed them, which goes on beside them. Taking those cost a fifth of S4.
///
/// Invariant: two neighbours have more than [`MAGAZINE`] slots together, because the later one did
/// not fit into the earlier one; but for the first, of which some may have been taken. So a
/// magazine has more than half of that on average, whatever the portions in which slots came back.
#[derive(Debug)]
pub(super) struct Depot {
    /// The lock is held for a few loads and stores, once for some hundred slots. It also orders
    /// each use of a slot before the next.
    magazines: Mutex<VecDeque<Magazine>>,
    /// A `fork` may have caught the lock. In the child no magazine is taken then, and those that
    /// come back are leaked.
    home: Process,
}

impl Depot {
    pub(super) fn new() -> Self {
        Depot { magazines: Mutex::new(VecDeque::new()), home: Process::current() }
    }

    /// Takes the magazine that came back first. Gives the first slot of the next one, too.
    fn take(&self) -> Option<(Magazine, Option<Index>)> {
        let mut magazines = self.magazines.lock_at(self.home)?;
        let first = magazines.pop_front()?;
        Some((first, magazines.front().and_then(|next| Index::from_raw(next.first))))
    }

    /// Takes a few slots of the magazine that came back first. O(1).
    fn take_few(&self, storage: &'static Storage) -> Option<Magazine> {
        let mut magazines = self.magazines.lock_at(self.home)?;
        let first = magazines.front_mut()?;
        let mut few = Magazine::EMPTY;
        while few.len() < FEW as usize
            && let Some(group) = first.split(storage, FEW as usize - few.len())
        {
            few.append(group);
        }
        if first.first == 0 {
            magazines.pop_front();
        }
        Some(few)
    }

    /// Takes a magazine back, into the last one if both fit into one. O(1).
    fn put(&self, given: Magazine) {
        let Some(mut magazines) = self.magazines.lock_at(self.home) else { return };
        match magazines.back_mut() {
            Some(last) if last.len() + given.len() <= MAGAZINE => last.append(given),
            _ => magazines.push_back(given),
        }
    }
}

impl FreeList {
    pub(super) fn new(storage: &'static Storage) -> Self {
        FreeList { storage, open: [0; GROUP], at: GROUP, closed: Magazine::EMPTY }
    }

    /// Tells whether it holds as many slots as a full magazine.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.closed.len() + GROUP - self.at >= MAGAZINE
    }

    /// Appends a slot, so that slots freed in a row are used again in a row.
    #[inline]
    pub(crate) fn push(&mut self, slot: Slot) {
        if slot.is_worn() {
            return;
        }
        let Slot { index: Index(index), record, .. } = slot;
        if self.closed.first == 0 {
            self.closed.first = index;
        } else if let Some(last) = &mut self.closed.last {
            let full = last.len == GROUP;
            change(last.record, if full { NEXT } else { last.len }, index);
            if !full {
                last.len += 1;
                return;
            }
            self.closed.before_last += GROUP;
        }
        begin(record, [0; GROUP]);
        self.closed.last = Some(Last { record, len: 1 });
    }

    /// Puts a slot in front, to be used next while it is warm.
    #[inline]
    pub(crate) fn push_front(&mut self, slot: Slot) {
        if slot.is_worn() {
            return;
        }
        if self.at == 0 {
            self.close();
        }
        self.at -= 1;
        self.open[self.at] = slot.index.0;
    }

    /// Appends all of another list of the same storage. O(1).
    pub(crate) fn append(&mut self, other: &mut FreeList) {
        debug_assert!(std::ptr::eq(self.storage, other.storage));
        if self.closed.first == 0 {
            self.close();
        }
        self.closed.append(other.take());
    }

    /// Takes the first slot.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Slot> {
        if self.at == GROUP {
            if self.closed.first == 0 {
                return None;
            }
            self.open();
        }
        let index = Index(self.open[self.at]);
        self.at += 1;
        let (record, mark) = self.storage.record_and_mark(index);
        // Relaxed: no other thread changes the tag of a free slot, and it reached us together with
        // the slot.
        let tag = record.load(Ordering::Relaxed);
        Some(Slot { record, mark, index, tag })
    }

    /// Takes a magazine from the depot. Whether there was one. Called when the list is empty.
    #[cold]
    pub(crate) fn refill(&mut self) -> bool {
        debug_assert_eq!((self.closed.first, self.at), (0, GROUP));
        let Some((magazine, next)) = self.storage.depot.take() else { return false };
        self.closed = magazine;
        // Likely to be this thread's next one: its first group can be here by then.
        if let Some(next) = next {
            self.storage.prefetch(next);
        }
        true
    }

    /// Takes [`FEW`] slots from the depot, if it has as many. Whether there was one. Called when
    /// the list is empty.
    #[cold]
    pub(crate) fn refill_few(&mut self) -> bool {
        debug_assert_eq!((self.closed.first, self.at), (0, GROUP));
        let Some(few) = self.storage.depot.take_few(self.storage) else { return false };
        self.closed = few;
        true
    }

    /// Gives all slots back to the depot. O(1).
    pub(crate) fn give_back(&mut self) {
        let magazine = self.take();
        if magazine.first != 0 {
            self.storage.depot.put(magazine);
        }
    }

    /// Gives all slots back if they fill a magazine. O(1).
    pub(crate) fn give_back_if_full(&mut self) {
        if self.is_full() {
            self.give_back();
        }
    }

    /// Takes all slots out.
    fn take(&mut self) -> Magazine {
        self.close();
        std::mem::replace(&mut self.closed, Magazine::EMPTY)
    }

    /// Makes the first group's slots those to be used next. There is one.
    #[inline(never)]
    fn open(&mut self) {
        let first = Index(self.closed.first);
        let [next, others @ ..] = read(self.storage.record(first));
        let len = 1 + others.iter().take_while(|&&other| other != 0).count();
        self.at = GROUP - len;
        self.open[self.at] = first.0;
        self.open[self.at + 1..].copy_from_slice(&others[..len - 1]);
        self.closed.first = next;
        if next != 0 {
            self.closed.before_last -= len;
        }
        // They will be here when they are used, and so will the next group when this one is used
        // up. Where slots lie side by side the processor sees for itself what comes, but not early
        // enough for what is to be written.
        if next == first.0 + GROUP as u32 {
            self.storage.prefetch_row(first, IN_ROW, GROUP);
        }
        let mut previous = first.0;
        for index in self.open[self.at + 1..].iter().chain([&next]).copied() {
            if let Some(coming) = Index::from_raw(index)
                && index != previous + 1
            {
                self.storage.prefetch(coming);
            }
            previous = index;
        }
    }

    /// Makes the slots to be used next a group, if there are any.
    fn close(&mut self) {
        let Some((&first, others)) = self.open[self.at..].split_first() else { return };
        let mut group = [0; GROUP];
        group[NEXT] = self.closed.first;
        let len = 1 + others.len();
        group[1..len].copy_from_slice(others);
        let record = self.storage.record(Index(first));
        begin(record, group);
        if self.closed.first == 0 {
            self.closed.last = Some(Last { record, len });
        } else {
            self.closed.before_last += len;
        }
        self.closed.first = first;
        self.at = GROUP;
    }
}

/// Writes the group of which this is the first slot. It is in a list of this thread's, or about to
/// be.
#[inline]
fn begin(record: &Record, group: Group) {
    record.thunk.with_mut(|thunk| {
        // SAFETY: the slot is free and this thread's (invariant 2 of `slot.rs`), so no other thread
        // looks at the cell. It is large and aligned enough for a group, as asserted above.
        unsafe { thunk.cast::<Group>().write(group) };
    });
}

/// Changes an index in the group of which this is the first slot.
#[inline]
fn change(record: &Record, at: usize, index: u32) {
    record.thunk.with_mut(|thunk| {
        // SAFETY: as for `begin`, which has written a group there: the callers' record is the first
        // slot of a group.
        let group = unsafe { &mut *thunk.cast::<Group>() };
        group[at] = index;
    });
}

/// Reads the group of which this is the first slot.
#[inline]
fn read(record: &Record) -> Group {
    record.thunk.with(|thunk| {
        // SAFETY: as for `change`.
        unsafe { thunk.cast::<Group>().read() }
    })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::record::storage::tests::storage;
    use std::collections::VecDeque;

    fn indices(slots: &[Slot]) -> Vec<u32> {
        slots.iter().map(|slot| slot.index.0).collect()
    }

    fn popped(list: &mut FreeList) -> Vec<u32> {
        std::iter::from_fn(|| list.pop()).map(|slot| slot.index.0).collect()
    }

    /// Lengths around those of a group and of two.
    const LENGTHS: [usize; 11] = [0, 1, 2, 6, 7, 8, 9, 15, 16, 17, 60];

    #[test]
    fn slots_come_in_the_order_in_which_they_went() {
        let storage = storage();
        for length in LENGTHS {
            let slots: Vec<_> = storage.fresh().take(length).collect();
            let expected = indices(&slots);
            let mut list = storage.free_list();
            slots.into_iter().for_each(|slot| list.push(slot));
            assert_eq!(popped(&mut list), expected);
        }
    }

    #[test]
    fn a_few_slots_are_taken_in_order_and_the_others_stay() {
        for length in LENGTHS {
            let storage = storage();
            let slots: Vec<_> = storage.fresh().take(length).collect();
            let mut expected = indices(&slots);
            let mut list = storage.free_list();
            slots.into_iter().for_each(|slot| list.push(slot));
            list.give_back();
            let mut few = storage.free_list();
            while expected.len() > length / 2 {
                let rest = expected.split_off(expected.len().min(FEW as usize));
                assert!(few.refill_few());
                assert_eq!(popped(&mut few), expected);
                expected = rest;
            }
            // What is left can be added to, and is there as a whole.
            for slot in storage.fresh().take(3) {
                expected.push(slot.index.0);
                list.push(slot);
            }
            list.give_back();
            while few.refill() {
                let taken = popped(&mut few);
                assert_eq!(taken, expected[..taken.len()]);
                expected.drain(..taken.len());
            }
            assert_eq!(expected, []);
        }
    }

    #[test]
    fn what_is_put_in_front_comes_first() {
        let storage = storage();
        for behind in LENGTHS {
            for in_front in LENGTHS {
                let mut slots = storage.fresh();
                let mut list = storage.free_list();
                let mut expected = Vec::new();
                for slot in slots.by_ref().take(behind) {
                    expected.push(slot.index.0);
                    list.push(slot);
                }
                for slot in slots.take(in_front) {
                    expected.insert(0, slot.index.0);
                    list.push_front(slot);
                }
                assert_eq!(popped(&mut list), expected);
            }
        }
    }

    #[test]
    fn lists_keep_their_order_when_joined_and_through_the_storage() {
        let storage = storage();
        for before in LENGTHS {
            for (behind, taken) in [(0, 0), (1, 1), (3, 0), (8, 5), (9, 9), (20, 3)] {
                let mut slots = storage.fresh();
                let mut expected = Vec::new();
                let mut list = |n: usize| {
                    let mut list = storage.free_list();
                    for slot in slots.by_ref().take(n) {
                        expected.push(slot.index.0);
                        list.push(slot);
                    }
                    list
                };
                let (mut joined, mut other) = (list(before), list(behind));
                // A list of which some were taken has an open group.
                let mut again: Vec<_> = std::iter::from_fn(|| other.pop()).take(taken).collect();
                again.drain(..).rev().for_each(|slot| other.push_front(slot));
                joined.append(&mut other);
                joined.append(&mut other);
                assert_eq!(popped(&mut other), []);
                joined.give_back();
                assert_eq!(popped(&mut joined), []);
                assert_eq!(other.refill(), !expected.is_empty());
                // Appending behind a list that was refilled keeps what is in it.
                for slot in storage.fresh().take(3) {
                    expected.push(slot.index.0);
                    other.push(slot);
                }
                assert_eq!(popped(&mut other), expected);
            }
        }
    }

    /// Whatever is done to it in whatever order, a list is a queue with two ends.
    #[test]
    fn agrees_with_a_deque() {
        let storage = storage();
        let mut list = storage.free_list();
        let mut oracle = VecDeque::new();
        let mut fresh = Vec::new();
        let mut seed = 88_172_645_463_325_252_u64;
        for step in 0..20_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            if fresh.is_empty() {
                fresh.extend(storage.fresh());
            }
            // In turn mostly growing and mostly shrinking.
            let pop_up_to = if step / 500 % 2 == 0 { 12 } else { 6 };
            match seed % 16 {
                at if at >= pop_up_to => {
                    let slot = list.pop();
                    let index = slot.as_ref().map(|slot| slot.index.0);
                    assert_eq!(index, oracle.pop_front());
                    fresh.extend(slot);
                }
                0 => {
                    list.give_back();
                    assert!(list.pop().is_none());
                    assert_eq!(list.refill(), !oracle.is_empty());
                }
                1 => {
                    let mut other = storage.free_list();
                    let slots = fresh.drain(..fresh.len().min(seed as usize / 16 % 20));
                    if (seed / 512).is_multiple_of(2) {
                        let slots = slots.inspect(|slot| oracle.push_back(slot.index.0));
                        slots.for_each(|slot| other.push(slot));
                    } else {
                        let slots = slots.rev().collect::<Vec<_>>();
                        oracle.extend(slots.iter().rev().map(|slot| slot.index.0));
                        slots.into_iter().for_each(|slot| other.push_front(slot));
                    }
                    list.append(&mut other);
                }
                2..4 => {
                    let slot = fresh.pop().expect("some");
                    oracle.push_front(slot.index.0);
                    list.push_front(slot);
                }
                _ => {
                    let slot = fresh.pop().expect("some");
                    oracle.push_back(slot.index.0);
                    list.push(slot);
                }
            }
        }
        assert_eq!(oracle, popped(&mut list));
    }

    #[test]
    fn small_portions_that_come_back_are_taken_together_the_first_first() {
        let storage = storage();
        let given: Vec<Vec<u32>> = [5, 1, 11]
            .map(|length| {
                let slots: Vec<_> = storage.fresh().take(length).collect();
                let given = indices(&slots);
                let mut list = storage.free_list();
                slots.into_iter().for_each(|slot| list.push(slot));
                list.give_back();
                given
            })
            .into();
        let mut list = storage.free_list();
        assert!(list.refill());
        assert!(!storage.free_list().refill());
        let expected: Vec<u32> = given.into_iter().flatten().collect();
        assert_eq!(popped(&mut list), expected);
    }

    /// No portion that comes back makes the depot take more room or more time than slots need.
    #[test]
    fn portions_of_any_size_come_together_to_magazines() {
        let storage = storage();
        for largest in [1, 2, 9, 126, MAGAZINE] {
            let mut slots: Vec<_> = (0..40).flat_map(|_| storage.fresh()).collect();
            let mut given = indices(&slots);
            let mut size = 1;
            while !slots.is_empty() {
                size = size * 7 % largest + 1;
                let mut list = storage.free_list();
                slots.drain(..size.min(slots.len())).for_each(|slot| list.push(slot));
                list.give_back();
            }
            let mut list = storage.free_list();
            let mut taken: Vec<Vec<u32>> = Vec::new();
            while list.refill() {
                taken.push(popped(&mut list));
            }
            assert!(taken.iter().all(|magazine| magazine.len() <= MAGAZINE));
            for pair in taken.windows(2) {
                assert!(pair[0].len() + pair[1].len() > MAGAZINE, "portions of {largest} at most");
            }
            let mut taken = taken.concat();
            taken.sort_unstable();
            given.sort_unstable();
            assert_eq!(taken, given);
        }
    }

    #[test]
    fn a_list_is_given_back_when_it_fills_a_magazine() {
        let storage = storage();
        let mut list = storage.free_list();
        let mut slots = (0..5).flat_map(|_| storage.fresh());
        for n in 1..=MAGAZINE + 1 {
            list.push(slots.next().expect("fresh"));
            list.give_back_if_full();
            assert!(!list.is_full(), "after {n}");
        }
        assert_eq!(popped(&mut list).len(), 1);
        assert!(list.refill());
        assert!(list.is_full());
    }
}
