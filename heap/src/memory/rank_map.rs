//! A map from the slots of one span to values. It has a bit per slot, and the values of the set
//! bits side by side in slot order.
//!
//! A slot's value stands at the rank of its bit. So a table costs nothing for slots without a
//! value, and a pass over all of them reads memory in order. Measured at sweep, cold: 3 to 5 ns a
//! value, against 16 to 28 for a word per slot.
//!
//! Invariant: the number of set bits is the number of values. The bitmap belongs to the caller, who
//! changes it through this type only.

use std::cell::Cell;

use crate::memory::bitmap;
use crate::memory::peak::room_after_peak;

/// The values of a packed map; its bitmap is lent at each call.
pub(crate) struct RankMap<V> {
    values: Vec<V>,
    /// No bit at or above this slot is set; so an insertion there is a push.
    top: usize,
}

/// Where a value is; see [`RankMap::place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl<V: Copy> RankMap<V> {
    pub(crate) const fn new() -> Self {
        RankMap { values: Vec::new(), top: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn get(&self, bits: &[Cell<u64>], slot: usize) -> Option<V> {
        bitmap::get(bits, slot).then(|| self.values[bitmap::rank(bits, slot)])
    }

    /// Where a slot's value is, until another slot is given one or loses its own.
    #[inline]
    pub(crate) fn place(&self, bits: &[Cell<u64>], slot: usize) -> Option<Place> {
        if !bitmap::get(bits, slot) {
            return None;
        }
        // Where every slot up to the last has a value, there is nothing to count.
        let at = if self.values.len() == self.top { slot } else { bitmap::rank(bits, slot) };
        Some(Place(at))
    }

    #[inline]
    pub(crate) fn at(&self, place: Place) -> V {
        self.values[place.0]
    }

    #[inline]
    pub(crate) fn set(&mut self, place: Place, value: V) {
        self.values[place.0] = value;
    }

    /// Gives a value to a slot that has none. O(1) in slot order (the order of allocation), else a
    /// rank and a move of the values behind it: at most 31 KiB.
    #[inline]
    pub(crate) fn insert(&mut self, bits: &[Cell<u64>], slot: usize, value: V) {
        debug_assert!(!bitmap::get(bits, slot));
        if slot >= self.top {
            self.values.push(value);
            self.top = slot + 1;
        } else {
            self.insert_between(bits, slot, value);
        }
        bitmap::set(bits, slot);
    }

    #[cold]
    #[inline(never)]
    fn insert_between(&mut self, bits: &[Cell<u64>], slot: usize, value: V) {
        self.values.insert(bitmap::rank(bits, slot), value);
    }

    pub(crate) fn iter<'a>(
        &'a self,
        bits: &'a [Cell<u64>],
    ) -> impl Iterator<Item = (usize, V)> + 'a {
        bitmap::ones(bits).zip(self.values.iter().copied())
    }

    /// Keeps the slots for which `keep` says so.
    pub(crate) fn retain(&mut self, bits: &[Cell<u64>], mut keep: impl FnMut(usize, V) -> bool) {
        self.retain_map(bits, |slot, value| keep(slot, value).then_some(value));
    }

    /// Keeps the slots that are set in the words of `keep`, and hands the values of the others to
    /// `gone`, in slot order. Word by word: where all of a word's slots stay, or all go, they are
    /// not looked at one by one.
    pub(crate) fn retain_words(
        &mut self,
        bits: &[Cell<u64>],
        keep: impl Fn(usize) -> u64,
        mut gone: impl FnMut(V),
    ) {
        let Some(&any) = self.values.first() else { return };
        let mut of_word_gone = [any; 64];
        let mut read = 0;
        let mut write = 0;
        let mut top = 0;
        for (index, word) in bits.iter().enumerate() {
            let set = word.get();
            let kept = set & keep(index);
            let count = set.count_ones() as usize;
            let of_word = read..read + count;
            read += count;
            if kept == 0 {
                self.values[of_word].iter().for_each(|&value| gone(value));
                word.set(0);
                continue;
            }
            top = index * 64 + 64 - kept.leading_zeros() as usize;
            if kept == set {
                if write < of_word.start {
                    self.values.copy_within(of_word, write);
                }
                write += count;
                continue;
            }
            word.set(kept);
            // Who lives and who dies is a toss of a coin, so it is not asked by a branch: each
            // value is written to both places, and stays in one.
            let mut dead = 0;
            for (slot, at) in bitmap::ones_of(0, set).zip(of_word) {
                let value = self.values[at];
                let lives = (kept >> slot & 1) as usize;
                self.values[write] = value;
                write += lives;
                of_word_gone[dead % 64] = value;
                dead += 1 - lives;
            }
            of_word_gone[..dead].iter().for_each(|&value| gone(value));
        }
        self.shrink(write, top);
    }

    /// Replaces each value by what `map` makes of it, and drops the slot where that is `None`.
    pub(crate) fn retain_map(
        &mut self,
        bits: &[Cell<u64>],
        mut map: impl FnMut(usize, V) -> Option<V>,
    ) {
        let mut read = 0;
        let mut write = 0;
        let mut top = 0;
        for (index, word) in bits.iter().enumerate() {
            let mut left = word.get();
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                match map(index * 64 + bit, self.values[read]) {
                    Some(value) => {
                        self.values[write] = value;
                        write += 1;
                        top = index * 64 + bit + 1;
                    }
                    None => word.set(word.get() & !(1 << bit)),
                }
                read += 1;
            }
        }
        self.shrink(write, top);
    }

    /// Forgets all but the first `len` values; no bit at or above `top` is set any more.
    fn shrink(&mut self, len: usize, top: usize) {
        self.top = top;
        self.values.truncate(len);
        if len == 0 {
            self.values = Vec::new();
        } else if let Some(room) = room_after_peak(len, self.values.capacity()) {
            self.values.shrink_to(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn bits() -> [Cell<u64>; 8] {
        [const { Cell::new(0) }; 8]
    }

    /// Makes a table with one hole has as many values as slots before its last one. If the end is
    /// noted one too low, the count of values says that there is no hole.
    #[test]
    fn a_value_is_found_where_one_slot_before_it_has_none() {
        const LEN: usize = 130;
        type Way = fn(&mut RankMap<usize>, &[Cell<u64>], usize);
        let removals: [Way; 2] = [
            |packed, bits, hole| packed.retain(bits, |slot, _| slot != hole && slot < LEN),
            |packed, bits, hole| {
                let keep = |word: usize| {
                    let is_kept = |bit: &usize| {
                        let slot = word * 64 + bit;
                        slot != hole && slot < LEN
                    };
                    (0..64).filter(is_kept).fold(0, |word, bit| word | 1 << bit)
                };
                packed.retain_words(bits, keep, |_| ());
            },
        ];
        let check = |packed: &RankMap<usize>, bits: &[Cell<u64>], hole: usize| {
            for slot in 0..LEN + 2 {
                let found = packed.place(bits, slot).map(|place| packed.at(place));
                let expected = (slot != hole && slot < LEN).then_some(slot);
                assert_eq!(found, expected, "with a hole at {hole}");
            }
        };
        for hole in 0..LEN - 1 {
            let (bits, mut packed) = (bits(), RankMap::new());
            (0..LEN).filter(|&slot| slot != hole).for_each(|slot| packed.insert(&bits, slot, slot));
            check(&packed, &bits, hole);
            for remove in removals {
                let (bits, mut packed) = (self::bits(), RankMap::new());
                // One more at the end, so that the end moves down to what is looked at.
                (0..=LEN).for_each(|slot| packed.insert(&bits, slot, slot));
                remove(&mut packed, &bits, hole);
                check(&packed, &bits, hole);
            }
        }
    }

    #[test]
    fn a_value_is_found_whether_or_not_all_slots_before_it_have_one() {
        let bits = bits();
        let mut packed = RankMap::new();
        let found =
            |packed: &RankMap<usize>, slot| packed.place(&bits, slot).map(|place| packed.at(place));
        for slot in (0..130).chain(140..150) {
            packed.insert(&bits, slot, slot);
            assert_eq!(found(&packed, slot), Some(slot));
            assert_eq!(found(&packed, slot / 2), Some(slot / 2));
            assert_eq!(found(&packed, slot + 1), None);
        }
        packed.retain(&bits, |slot, _| slot != 7);
        assert_eq!([6, 7, 149].map(|slot| found(&packed, slot)), [Some(6), None, Some(149)]);
    }

    /// Insertions in any order, and every way to thin out, one after the other.
    #[test]
    fn agrees_with_a_btree_map_whatever_came_before() {
        let bits = bits();
        let mut packed = RankMap::new();
        let mut oracle = BTreeMap::new();
        let mut seed = 88_172_645_463_325_252_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..2000u32 {
            for value in 0..random() % 40 {
                let slot = (random() % 512) as usize;
                let value = (round, value);
                if oracle.insert(slot, value).is_some() {
                    let place = packed.place(&bits, slot).expect("it has one");
                    packed.set(place, value);
                } else {
                    packed.insert(&bits, slot, value);
                }
            }
            // Of the words, some go, some stay, and the others are mixed.
            let keep = [(); 8].map(|()| match random() % 4 {
                0 => 0,
                1 => u64::MAX,
                _ => random() | random(),
            });
            let stays = |slot: usize| keep[slot / 64] >> (slot % 64) & 1 != 0;
            let went: Vec<_> =
                oracle.iter().filter(|(slot, _)| !stays(**slot)).map(|(_, &value)| value).collect();
            let mut gone = Vec::new();
            match round % 3 {
                0 => packed.retain_words(&bits, |index| keep[index], |value| gone.push(value)),
                1 => packed.retain(&bits, |slot, value| {
                    stays(slot) || {
                        gone.push(value);
                        false
                    }
                }),
                _ => packed.retain_map(&bits, |slot, value| {
                    if !stays(slot) {
                        gone.push(value);
                        return None;
                    }
                    Some((value.0, value.1 + 1000))
                }),
            }
            oracle.retain(|&slot, _| stays(slot));
            if round % 3 == 2 {
                oracle.values_mut().for_each(|value| value.1 += 1000);
            }
            assert_eq!(gone, went);
            assert!(packed.iter(&bits).eq(oracle.iter().map(|(&slot, &value)| (slot, value))));
            assert_eq!((packed.len(), packed.is_empty()), (oracle.len(), oracle.is_empty()));
        }
        for slot in 0..512 {
            assert_eq!(packed.get(&bits, slot), oracle.get(&slot).copied());
        }
    }

    #[test]
    fn an_emptied_map_gives_its_memory_back() {
        let bits = bits();
        let mut packed = RankMap::new();
        (0..512).for_each(|slot| packed.insert(&bits, slot, slot));
        assert_eq!(packed.len(), 512);
        packed.retain(&bits, |_, _| false);
        assert_eq!((packed.len(), packed.values.capacity()), (0, 0));
        assert!(bits.iter().all(|word| word.get() == 0));
    }

    #[test]
    fn a_map_that_few_are_left_in_gives_most_of_its_memory_back() {
        let bits = [const { Cell::new(0) }; 64];
        let mut packed = RankMap::new();
        (0..4096).for_each(|slot| packed.insert(&bits, slot, slot));
        packed.retain(&bits, |slot, _| slot % 1000 == 7);
        assert!(packed.iter(&bits).map(|(_, value)| value).eq((7..4096).step_by(1000)));
        assert!(packed.values.capacity() < 100, "{}", packed.values.capacity());
    }
}
