//! Lists of free slots, kept in the slots themselves: in groups, so that the memory of several is fetched at once.
//!
//! Slots freed together are used together; but objects die in no order, so one free slot says nothing of where the next
//! one lies. In a list linked slot by slot each would have to come from memory before the next one's address is known
//! (140 ns a registration, where every second record of 400,000 had been freed at random). Here the first slot of a
//! *group* holds the indices of the others, and of the next group's first slot.
//!
//! Invariant: a slot in a list is free, and in no other list; so what lies in its cell is the list's own.

use super::{Index, Record, Slot, Storage};
use crate::sync::Ordering;

/// Slots of one group, its first one included: as many as have room in the cell of the first one.
const GROUP: usize = 8;

/// How many slots ahead memory is fetched where groups follow one another in a row.
const IN_ROW: usize = 56;

/// What the first slot of a group holds: at [`NEXT`] the index of the next group's first slot, 0 if there is none; then those
/// of the group's other slots, and 0 in what is left.
type Group = [u32; GROUP];

const NEXT: usize = 0;

const _: () = assert!(size_of::<Group>() <= size_of::<crate::thunk::Thunk>());
const _: () = assert!(align_of::<Group>() <= align_of::<crate::thunk::Thunk>());

/// Free slots owned by one thread, used in the order in which they came.
#[derive(Debug)]
pub(crate) struct FreeList {
    storage: &'static Storage,
    /// The slots to be used next, from `at` on. They are in no group any more.
    open: Group,
    at: usize,
    /// Index of the first group's first slot; 0 if there is no group.
    first: u32,
    /// The last group. `None` in a list that came from the storage, until it is asked for. Means nothing if there is no
    /// group.
    last: Option<Last>,
}

/// The last group of a list.
#[derive(Clone, Copy, Debug)]
struct Last {
    record: &'static Record,
    /// Its slots, the first one included.
    len: usize,
}

impl FreeList {
    pub(super) fn new(storage: &'static Storage) -> Self {
        FreeList { storage, open: [0; GROUP], at: GROUP, first: 0, last: None }
    }

    /// Appends a slot, so that slots freed in a row are used again in a row. O(1), and once O(length) after
    /// a refill.
    #[inline]
    pub(crate) fn push(&mut self, slot: Slot) {
        if slot.is_worn() {
            return;
        }
        let Slot { index: Index(index), record, .. } = slot;
        if self.first == 0 {
            self.first = index;
        } else {
            let last = self.find_last();
            let full = last.len == GROUP;
            change(last.record, if full { NEXT } else { last.len }, index);
            if !full {
                self.last = Some(Last { len: last.len + 1, ..last });
                return;
            }
        }
        begin(record, [0; GROUP]);
        self.last = Some(Last { record, len: 1 });
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

    /// Appends all of another list of the same storage. O(1), and once O(length) after a refill.
    pub(crate) fn append(&mut self, other: &mut FreeList) {
        debug_assert!(std::ptr::eq(self.storage, other.storage));
        other.close();
        if other.first == 0 {
            return;
        }
        if self.first == 0 {
            self.first = other.first;
        } else {
            change(self.find_last().record, NEXT, other.first);
        }
        self.last = other.last;
        other.first = 0;
    }

    /// Takes the first slot.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Slot> {
        if self.at == GROUP {
            if self.first == 0 {
                return None;
            }
            self.open();
        }
        let index = Index(self.open[self.at]);
        self.at += 1;
        let (record, mark) = self.storage.record_and_mark(index);
        // Relaxed: nobody else changes the tag of a free slot, and it reached us together with the slot.
        let tag = record.load(Ordering::Relaxed);
        Some(Slot { record, mark, index, tag })
    }

    /// Takes everything that was given back to the storage. Called when the list is empty.
    #[cold]
    pub(crate) fn refill(&mut self) -> bool {
        debug_assert_eq!((self.first, self.at), (0, GROUP));
        // Acquire: pairs with the Release in `give_back`, with all of them at once, because
        // read-modify-writes continue a release sequence. A swap of everything, so there is no ABA.
        self.first = self.storage.free.swap(0, Ordering::Acquire);
        self.last = None;
        self.first != 0
    }

    /// Gives all slots back to the storage, by one compare-exchange.
    pub(crate) fn give_back(&mut self) {
        self.close();
        if self.first == 0 {
            return;
        }
        let last = self.find_last();
        // Relaxed: only the number is used, and the compare-exchange checks it.
        let mut top = self.storage.free.load(Ordering::Relaxed);
        loop {
            change(last.record, NEXT, top);
            // Release: pairs with the Acquire in `refill`. The groups, and whatever was done with the slots,
            // come before.
            match self.storage.free.compare_exchange_weak(
                top,
                self.first,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => top = now,
            }
        }
        self.first = 0;
    }

    /// Makes the first group's slots those to be used next. There is one.
    #[inline(never)]
    fn open(&mut self) {
        let first = Index(self.first);
        let [next, others @ ..] = read(self.storage.record(first));
        let len = 1 + others.iter().take_while(|&&other| other != 0).count();
        self.at = GROUP - len;
        self.open[self.at] = first.0;
        self.open[self.at + 1..].copy_from_slice(&others[..len - 1]);
        self.first = next;
        // They will be here when they are used, and so will the next group when this one is used up. Where slots lie side by
        // side the processor sees for itself what comes, but not early enough for what is to be written.
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
        group[NEXT] = self.first;
        group[1..=others.len()].copy_from_slice(others);
        let record = self.storage.record(Index(first));
        begin(record, group);
        if self.first == 0 {
            self.last = Some(Last { record, len: 1 + others.len() });
        }
        self.first = first;
        self.at = GROUP;
    }

    /// The last group of a list that has one.
    #[inline]
    fn find_last(&self) -> Last {
        match self.last {
            Some(last) => last,
            None => self.walk_to_last(),
        }
    }

    #[cold]
    fn walk_to_last(&self) -> Last {
        let mut record = self.storage.record(Index(self.first));
        while let Some(next) = Index::from_raw(read(record)[NEXT]) {
            record = self.storage.record(next);
        }
        // It may have room, which nobody will miss.
        Last { record, len: GROUP }
    }
}

/// Writes the group of which this is the first slot. It is in a list of this thread's, or about to be.
#[inline]
fn begin(record: &Record, group: Group) {
    record.thunk.with_mut(|thunk| {
        // SAFETY: the slot is free and this thread's (invariant 2 of `record.rs`), so nobody else looks at the cell; it is
        // large and aligned enough for a group, as asserted above.
        unsafe { thunk.cast::<Group>().write(group) };
    });
}

/// Changes an index in the group of which this is the first slot.
#[inline]
fn change(record: &Record, at: usize, index: u32) {
    record.thunk.with_mut(|thunk| {
        // SAFETY: as for `begin`, which has written a group there: the callers' record is the first slot of a group.
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
    use crate::record::tests::storage;
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
    fn what_was_given_back_last_is_taken_first_and_all_of_it_is() {
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
        let expected: Vec<u32> = given.into_iter().rev().flatten().collect();
        assert_eq!(popped(&mut list), expected);
    }
}
