//! The sizes of regions, spans and slots.
//!
//! A unit of 64 KiB is a span for slots that fill it well. Larger slots share a *group* of units:
//! they lie side by side across the borders of its units, so that little is left at its end. A slot
//! belongs to the span of the unit in which it begins. Slots that are larger still have a mapping
//! of their own, as long as they are.
//!
//! Invariant: of the memory of slots, metadata included, at most a ninth lies in none of them.

/// Bytes of a unit, and of the slots of a span of one unit.
pub(crate) const SPAN_BYTES: usize = 64 << 10;
/// The smallest distance between two slots.
pub(crate) const MIN_SLOT_BYTES: usize = 8;
/// Words in each of a span's bitmaps at the head of its region. A span of larger slots uses the
/// first few. One of the smallest slots has [`DENSE_WORDS`] at its own head.
pub(crate) const BITMAP_WORDS: usize = SPAN_BYTES / (2 * MIN_SLOT_BYTES) / 64;
/// Words in each of the bitmaps of a span of the smallest slots: as many as leave room for their
/// slots.
pub(crate) const DENSE_WORDS: usize = SPAN_BYTES / (64 * MIN_SLOT_BYTES + 3 * 8);
/// Bytes at the head of a span of the smallest slots that its bitmaps take.
pub(crate) const DENSE_HEAD: usize = 3 * 8 * DENSE_WORDS;
/// Regions are aligned to this many bytes. All are as large, but for those of one object.
pub(crate) const REGION_BYTES: usize = 4 << 20;
/// Units in a region.
pub(crate) const UNITS: usize = REGION_BYTES / SPAN_BYTES;
/// Units at a region's head that its metadata take.
pub(crate) const METADATA_UNITS: usize = 2;
/// Slots of more bytes have a mapping of their own.
pub(crate) const MOST_SHARED: usize = 4 * SPAN_BYTES;
/// Where the object lies in a mapping of its own, behind its metadata.
pub(crate) const OWN_HEAD: usize = MAX_ALIGN;

/// Distance between two slots of a `T`, in bytes.
pub(crate) const fn slot_bytes<T>() -> usize {
    const { assert!(align_of::<T>() <= MAX_ALIGN, "the heap aligns objects to at most 4096 bytes") }
    let align = if align_of::<T>() > MIN_SLOT_BYTES { align_of::<T>() } else { MIN_SLOT_BYTES };
    let size = if size_of::<T>() > MIN_SLOT_BYTES { size_of::<T>() } else { MIN_SLOT_BYTES };
    size.next_multiple_of(align)
}

/// Tells whether a span of such slots has its bitmaps at its own head.
#[inline]
pub(crate) const fn is_dense(slot_bytes: usize) -> bool {
    slot_bytes == MIN_SLOT_BYTES
}

/// Tells whether such a slot has a mapping of its own.
pub(crate) const fn is_own(slot_bytes: usize) -> bool {
    slot_bytes > MOST_SHARED
}

/// Gives how many units a group of such slots has: as few as waste no more than an eighth, if a
/// region holds such groups and nothing else. 1 for most slots, and for a mapping of its own.
pub(crate) const fn group_units(slot_bytes: usize) -> usize {
    let mut units = 1;
    while units < UNITS - METADATA_UNITS && !is_own(slot_bytes) {
        let slots = group_slots(slot_bytes, units) * ((UNITS - METADATA_UNITS) / units);
        if slots * slot_bytes * 9 >= REGION_BYTES * 8 {
            break;
        }
        units += 1;
    }
    units
}

/// Gives how many slots a group of that many units has.
const fn group_slots(slot_bytes: usize, units: usize) -> usize {
    if is_dense(slot_bytes) {
        DENSE_WORDS * 64 * units
    } else if is_own(slot_bytes) {
        1
    } else {
        SPAN_BYTES * units / slot_bytes
    }
}

/// The slots of one span of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanSlots {
    /// Where the first one begins in the unit.
    pub(crate) offset: usize,
    pub(crate) slots: usize,
    /// Units of the group in front of the span.
    pub(crate) index: usize,
    /// Units up to the next span of the group, or to the end of the group.
    pub(crate) units: usize,
}

/// Gives the slots that begin in the unit at `index` of a group of [`group_units`]. `None` if a
/// slot that has begun before takes all of it.
pub(crate) fn span_slots(slot_bytes: usize, units: usize, index: usize) -> Option<SpanSlots> {
    if is_own(slot_bytes) {
        return Some(SpanSlots { offset: OWN_HEAD, slots: 1, index, units: 1 });
    }
    if is_dense(slot_bytes) {
        return Some(SpanSlots { offset: DENSE_HEAD, slots: DENSE_WORDS * 64, index, units: 1 });
    }
    let all = group_slots(slot_bytes, units);
    // The first slot that begins at a unit's beginning, or behind it.
    let first_of = |unit: usize| (unit * SPAN_BYTES).div_ceil(slot_bytes).min(all);
    let (first, end) = (first_of(index), first_of(index + 1));
    if first == end {
        return None;
    }
    let next = if end == all { units } else { end * slot_bytes / SPAN_BYTES };
    let offset = first * slot_bytes - index * SPAN_BYTES;
    Some(SpanSlots { offset, slots: end - first, index, units: next - index })
}

/// The largest alignment of a payload, in bytes.
const MAX_ALIGN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_size_and_alignment() {
        #[repr(align(64))]
        struct Line([u8; 65]);
        assert_eq!(slot_bytes::<()>(), 8);
        assert_eq!(slot_bytes::<u64>(), 8);
        assert_eq!(slot_bytes::<[u8; 9]>(), 16);
        assert_eq!(slot_bytes::<[u8; 17]>(), 24);
        assert_eq!(slot_bytes::<[u64; 4]>(), 32);
        assert_eq!(slot_bytes::<u128>(), 16);
        assert_eq!(slot_bytes::<Line>(), 128);
        assert_eq!(Line([0; 65]).0.len(), 65);
    }

    /// Every size there is: slots are multiples of 8 bytes.
    fn sizes() -> impl Iterator<Item = usize> {
        (MIN_SLOT_BYTES..=4 << 20).step_by(8)
    }

    #[test]
    fn of_no_size_more_than_an_eighth_is_wasted() {
        for slot_bytes in sizes() {
            let (bytes, slots) = if is_own(slot_bytes) {
                ((OWN_HEAD + slot_bytes).next_multiple_of(4096), 1)
            } else {
                let units = group_units(slot_bytes);
                (REGION_BYTES, group_slots(slot_bytes, units) * ((UNITS - METADATA_UNITS) / units))
            };
            let waste = bytes as f64 / (slots * slot_bytes) as f64 - 1.0;
            assert!(waste <= 0.125, "{waste} of {slot_bytes} bytes");
            // The smallest have their bitmaps in the span.
            assert!(slot_bytes > 4096 || group_units(slot_bytes) == 1, "{slot_bytes}");
        }
    }

    #[test]
    fn the_slots_of_a_group_lie_side_by_side_in_the_spans_in_which_they_begin() {
        for slot_bytes in sizes().filter(|&bytes| !is_own(bytes) && !is_dense(bytes)) {
            let units = group_units(slot_bytes);
            let (mut slots, mut covered) = (0, 0);
            for unit in 0..units {
                let Some(span) = span_slots(slot_bytes, units, unit) else { continue };
                assert_eq!(unit, covered, "{slot_bytes}: a unit of no span");
                assert_eq!(unit * SPAN_BYTES + span.offset, slots * slot_bytes, "{slot_bytes}");
                // A slot's index is that of its offset in the unit, as `Span::slot_of_type` has it.
                let last = span.offset + (span.slots - 1) * slot_bytes;
                assert!(last < SPAN_BYTES && span.offset / slot_bytes == 0, "{slot_bytes}");
                slots += span.slots;
                covered += span.units;
            }
            assert_eq!((slots, covered), (group_slots(slot_bytes, units), units), "{slot_bytes}");
            assert!(slots * slot_bytes <= units * SPAN_BYTES, "{slot_bytes}");
        }
    }

    #[test]
    fn the_smallest_slots_leave_room_for_their_bitmaps() {
        let span = span_slots(8, 1, 0).expect("it has slots");
        assert_eq!((span.slots, span.units), (7808, 1));
        assert!(span.offset + span.slots * 8 <= SPAN_BYTES);
        assert_eq!(span_slots(5 * SPAN_BYTES, 1, 0).map(|span| span.offset), Some(OWN_HEAD));
    }
}
