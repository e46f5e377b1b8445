//! A cell as the marker sees it: its lock, and the stamp of the mark that has traced its content.
//!
//! Invariant: a stamp is changed by the thread that has the lock, or by the collector while no
//! session is open. Within a mark it goes from any other number to [`begun`](Stamp::begin) or
//! [`traced`](Stamp::set), and from `begun` to `traced`. It never goes back.

use std::ptr::NonNull;

use sexton_sync::Ordering::Relaxed;
use sexton_sync::fields::AtomicU32;

use crate::memory::phase::NO_EPOCH;

/// The last mark that has traced a cell, or has begun to. [`NO_EPOCH`] in a new cell.
///
/// A cell that is traced may be changed at will until the next cycle begins. All that it held when
/// the cycle began is marked. A cell that is begun has long slices, which wait in the marker. The
/// session that gets it to change it traces all of it first.
///
/// Relaxed: it is changed by the thread that has the cell to itself. A marker that reads it without
/// the cell's lock does nothing if it is the cycle's.
#[derive(Debug, Default)]
pub(crate) struct Stamp(AtomicU32);

/// From one epoch to the next. The number between them says in a stamp that the cell is begun.
pub(crate) const NEXT_EPOCH: u32 = 2;

impl Stamp {
    /// Makes that of a new cell.
    pub(crate) const fn new() -> Self {
        Stamp(AtomicU32::new(NO_EPOCH))
    }

    /// Tells whether the cell is traced.
    #[inline]
    pub(crate) fn is(&self, epoch: u32) -> bool {
        self.0.load(Relaxed) == epoch
    }

    /// Tells whether the cell is begun: slices of it may wait, and no session has changed it.
    #[inline]
    pub(crate) fn is_begun(&self, epoch: u32) -> bool {
        self.0.load(Relaxed) == epoch + 1
    }

    /// Takes note that all of the cell is traced.
    #[inline]
    pub(crate) fn set(&self, epoch: u32) {
        self.0.store(epoch, Relaxed);
    }

    /// Takes note that slices of the cell wait.
    pub(crate) fn begin(&self, epoch: u32) {
        self.0.store(epoch + 1, Relaxed);
    }
}

#[cfg(all(test, loom))]
impl Stamp {
    pub(crate) fn settle(&self) {
        self.0.settle();
    }
}

/// The lock of a cell.
pub(crate) trait CellLock {
    fn stamp(&self) -> &Stamp;

    /// Tries to get the lock, for a marker beside open sessions. It has it while `f` runs.
    ///
    /// Tells whether `f` was called.
    fn visit(&self, f: &mut dyn FnMut()) -> bool;

    /// Calls `f`, which tries to get the lock and gives it back, for a sweeper beside sessions.
    fn count(&self, f: &mut dyn FnMut());
}

/// The address of a cell's lock, as a marker keeps it.
#[derive(Clone, Copy)]
pub(crate) struct CellAddress(pub(crate) NonNull<dyn CellLock>);

// SAFETY: an address gives no access. Markers follow it, and they answer for that. A cell that
// several threads reach is `Sync`, as its heap is `Shared`.
unsafe impl Send for CellAddress {}
