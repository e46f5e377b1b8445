//! How far a cycle has come, for all that has to know: allocator, barrier, weak pointers.
//!
//! The phases of a cycle are `Idle -> Marking -> Clearing -> Sweeping -> Idle`. The collector
//! passes from one to the next; see `collect/cycle.rs`.
//!
//! Invariant: a cycle begins while no session is open. So a session that finds the epoch 0 when it
//! opens needs no barrier, however long it lasts.

use sexton_sync::Ordering::Relaxed;
use sexton_sync::fields::{AtomicU8, AtomicU32};

/// Says how far a cycle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No cycle is under way.
    Idle,
    /// Reachable objects are being marked.
    Marking,
    /// All of them are; the records of dead targets of weak pointers are being cleared.
    Clearing,
    /// Spans are being swept.
    Sweeping,
}

/// The phase of a heap, and the epoch of its marks.
///
/// Relaxed: written on the thread that collects, while no session is open on another. What orders
/// sessions and cycles orders these, too.
#[derive(Debug)]
pub(crate) struct PhaseCell {
    phase: AtomicU8,
    epoch: AtomicU32,
}

impl PhaseCell {
    pub(crate) fn new() -> Self {
        PhaseCell { phase: AtomicU8::new(Phase::Idle as u8), epoch: AtomicU32::new(NO_EPOCH) }
    }

    #[inline]
    pub(crate) fn get(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Marking,
            2 => Phase::Clearing,
            _ => Phase::Sweeping,
        }
    }

    /// Gives the number of the mark whose bits mean something now: from the beginning of a cycle
    /// that runs in slices to the end of its clearing. Otherwise [`NO_EPOCH`].
    ///
    /// As long as there is one, objects are born marked.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
    }

    /// Passes to a phase, with the epoch that its marks have.
    pub(crate) fn pass(&self, from: Phase, to: Phase, epoch: u32) {
        debug_assert_eq!(self.get(), from, "a step in the wrong phase");
        self.phase.store(to as u8, Relaxed);
        self.epoch.store(epoch, Relaxed);
    }
}

/// The epoch while no barrier is needed.
pub(crate) const NO_EPOCH: u32 = 0;
