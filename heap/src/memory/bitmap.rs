//! Bit and word operations on side bitmaps: one bit per slot, 64 to a word, lowest bit first.
//!
//! Everything here is safe code over slices of words; which bitmap means what is `span`'s business.

use std::cell::Cell;

/// Gives the bits `from .. from + len` of a word; `from + len <= 64`, `len > 0`.
#[inline]
pub(crate) fn mask(from: u32, len: u32) -> u64 {
    debug_assert!(len > 0 && from + len <= 64);
    (u64::MAX >> (64 - len)) << from
}

#[inline]
pub(crate) fn get(bits: &[Cell<u64>], slot: usize) -> bool {
    bits[slot / 64].get() >> (slot % 64) & 1 != 0
}

#[inline]
pub(crate) fn set(bits: &[Cell<u64>], slot: usize) {
    let word = &bits[slot / 64];
    word.set(word.get() | 1 << (slot % 64));
}

/// Clears the bits `from .. to`.
#[cfg(test)]
pub(crate) fn clear_range(bits: &[Cell<u64>], from: usize, to: usize) {
    for_each_word(from, to, |word, mask| bits[word].set(bits[word].get() & !mask));
}

/// Sets the bits `from .. to`.
pub(crate) fn set_range(bits: &[Cell<u64>], from: usize, to: usize) {
    for_each_word(from, to, |word, mask| bits[word].set(bits[word].get() | mask));
}

/// Tells whether none of the bits `from .. to` is set.
pub(crate) fn are_clear(bits: &[Cell<u64>], from: usize, to: usize) -> bool {
    let mut set = 0;
    for_each_word(from, to, |word, mask| set |= bits[word].get() & mask);
    set == 0
}

/// Calls `each` with the words that the bits `from .. to` are in, and with those bits of each.
#[inline]
pub(crate) fn for_each_word(from: usize, to: usize, mut each: impl FnMut(usize, u64)) {
    let mut at = from;
    while at < to {
        let bit = at % 64;
        let len = (64 - bit).min(to - at);
        each(at / 64, mask(bit as u32, len as u32));
        at += len;
    }
}

/// `to := from`, `from := 0`, word by word; how many bits are set now.
#[inline(always)]
pub(crate) fn replace(to: &[Cell<u64>], from: &[Cell<u64>]) -> usize {
    let mut set = 0;
    for (to, from) in to.iter().zip(from) {
        let word = from.replace(0);
        to.set(word);
        set += u64::from(word.count_ones());
    }
    set as usize
}

/// Set bits before `slot`.
#[inline]
pub(crate) fn rank(bits: &[Cell<u64>], slot: usize) -> usize {
    let whole: u32 = bits[..slot / 64].iter().map(|word| word.get().count_ones()).sum();
    let below = bits[slot / 64].get() & ((1 << (slot % 64)) - 1);
    (whole + below.count_ones()) as usize
}

/// Gives the set bits, in order.
pub(crate) fn ones(bits: &[Cell<u64>]) -> impl Iterator<Item = usize> + '_ {
    bits.iter().enumerate().flat_map(|(index, word)| ones_of(index, word.get()))
}

/// Gives the set bits of the word at `index`, in order.
#[inline]
pub(crate) fn ones_of(index: usize, word: u64) -> impl Iterator<Item = usize> {
    let mut left = word;
    std::iter::from_fn(move || {
        let bit = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        (bit < 64).then_some(index * 64 + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_exactly_their_bits() {
        assert_eq!(mask(0, 64), u64::MAX);
        assert_eq!(mask(0, 1), 1);
        assert_eq!(mask(63, 1), 1 << 63);
        assert_eq!(mask(4, 3), 0b111_0000);
    }

    #[test]
    fn replacing_moves_every_bit_and_counts_them() {
        let to = [const { Cell::new(u64::MAX) }; 5];
        let from = [0, 1, u64::MAX, 1 << 63, 0b1010].map(Cell::new);
        assert_eq!(replace(&to, &from), 1 + 64 + 1 + 2);
        assert_eq!(to.map(Cell::into_inner), [0, 1, u64::MAX, 1 << 63, 0b1010]);
        assert_eq!(from.map(Cell::into_inner), [0; 5]);
    }

    #[test]
    fn ranges_rank_and_ones_agree_with_bit_by_bit() {
        let bits: [Cell<u64>; 4] = [const { Cell::new(0) }; 4];
        // Twice, each: setting what is set changes nothing.
        for _ in 0..2 {
            (0..256).filter(|slot| slot % 5 != 2).for_each(|slot| set(&bits, slot));
        }
        clear_range(&bits, 60, 131);
        for _ in 0..2 {
            set_range(&bits, 120, 129);
        }
        let expected: Vec<usize> = (0..256)
            .filter(|slot| match slot {
                120..129 => true,
                60..131 => false,
                _ => slot % 5 != 2,
            })
            .collect();
        assert_eq!(ones(&bits).collect::<Vec<_>>(), expected);
        for slot in 0..256 {
            assert_eq!(get(&bits, slot), expected.contains(&slot));
            assert_eq!(rank(&bits, slot), expected.iter().filter(|&&one| one < slot).count());
        }
    }
}
