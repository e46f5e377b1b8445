//! The names of records: an index, and the head of a chain.

use std::num::NonZeroU32;

/// Which record, within its storage. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Index(pub(super) u32);

impl Index {
    /// Makes it from a number that [`raw`](Self::raw) gave; `None` for 0.
    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        (raw != 0).then_some(Index(raw))
    }

    /// Makes it from a number that [`raw`](Self::raw) gave, and that was kept unchanged.
    #[inline]
    pub(crate) fn of_handle(raw: u32) -> Self {
        debug_assert!(raw != 0);
        Index(raw)
    }

    #[inline]
    pub(crate) fn raw(self) -> u32 {
        self.0
    }

    /// Tells how far behind `first` it is; a number beyond every length if it is in front.
    #[inline]
    pub(crate) fn since(self, first: u32) -> usize {
        self.0.wrapping_sub(first) as usize
    }
}

/// Names the first of one object's chain of cleanup records.
///
/// It is the first record's index, and whether there is a second one. A sweeper that meets a head
/// of a single record need not touch the record. 4 bytes, and so is `Option<Head>`. A head means
/// something only to the registrars and cycles of the [`Client`](crate::Client) it came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Head(NonZeroU32);

impl Head {
    #[inline]
    pub(crate) fn new(index: Index, many: bool) -> Self {
        debug_assert!(index.0 != 0 && index.0 < 1 << 31);
        // Not 0, because the index is not; the `| 1` never runs in a correct program and costs a
        // cycle less than a check.
        Head(NonZeroU32::new(index.0 << 1 | u32::from(many)).unwrap_or(NonZeroU32::MIN))
    }

    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        NonZeroU32::new(raw).map(Head)
    }

    #[inline]
    pub(crate) fn raw(self) -> u32 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn index(self) -> Index {
        Index(self.0.get() >> 1)
    }

    /// Tells whether the record has a successor.
    #[inline]
    pub(crate) fn many(self) -> bool {
        self.0.get() & 1 != 0
    }
}
