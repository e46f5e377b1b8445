//! Shrinking tables after a peak.
//!
//! A table that is shrunk at each cycle takes memory in proportion to its entries, not to the most
//! it ever had.

/// The most entries that are not worth moving.
const FEW: usize = 512;

/// Gives how many entries a table of `len` should have room for, if it has room for far more.
///
/// That is twice as many as it has, so it does not grow again at once. It is asked to shrink to a
/// half or less, so shrinking costs no more than growing did.
pub(crate) fn room_after_peak(len: usize, room: usize) -> Option<usize> {
    (room > FEW && room / 4 > len).then_some(len * 2)
}
