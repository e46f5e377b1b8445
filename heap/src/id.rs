//! The number of a heap.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of a heap, unique in the process; messages name heaps by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeapId(u64);

impl HeapId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only uniqueness matters.
        HeapId(NEXT.fetch_add(1, Relaxed))
    }
}

impl fmt::Display for HeapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "heap #{}", self.0)
    }
}
