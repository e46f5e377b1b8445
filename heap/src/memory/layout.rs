//! The sizes of regions, spans and slots.

/// Bytes of slots in a span of one unit.
pub(crate) const SPAN_BYTES: usize = 64 << 10;
/// The smallest distance between two slots.
pub(crate) const MIN_SLOT_BYTES: usize = 16;
/// Words in each of a span's bitmaps; a span of larger slots uses the first few.
pub(crate) const BITMAP_WORDS: usize = SPAN_BYTES / MIN_SLOT_BYTES / 64;
/// Regions are aligned to this many bytes; all but those of huge objects are as large.
pub(crate) const REGION_BYTES: usize = 4 << 20;
/// Span-sized units in a region.
pub(crate) const UNITS: usize = REGION_BYTES / SPAN_BYTES;

/// Distance between two slots of a `T`, in bytes.
pub(crate) const fn slot_bytes<T>() -> usize {
    const { assert!(align_of::<T>() <= MAX_ALIGN, "the heap aligns objects to at most 4096 bytes") }
    let align = if align_of::<T>() > 8 { align_of::<T>() } else { 8 };
    let size = if size_of::<T>() > MIN_SLOT_BYTES { size_of::<T>() } else { MIN_SLOT_BYTES };
    size.next_multiple_of(align)
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
        assert_eq!(slot_bytes::<()>(), 16);
        assert_eq!(slot_bytes::<[u8; 17]>(), 24);
        assert_eq!(slot_bytes::<[u64; 4]>(), 32);
        assert_eq!(slot_bytes::<u128>(), 16);
        assert_eq!(slot_bytes::<Line>(), 128);
        assert_eq!(Line([0; 65]).0.len(), 65);
    }
}
