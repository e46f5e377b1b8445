//! The pacer: when is it worth collecting?
//!
//! It compares what has been allocated since the last cycle with what survived that cycle. It knows
//! neither how a collection works nor when sessions end; the heap asks it there.

/// When a heap collects by itself. The question is asked at the end of every session.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Pacing {
    /// Collect when the bytes allocated since the last cycle exceed `max(min_bytes, live * growth)`,
    /// where `live` are the bytes that survived it.
    Automatic {
        /// Never collect before this many bytes have been allocated.
        min_bytes: u64,
        /// Garbage tolerated per live byte; 1.0 lets the heap double (Go's `GOGC=100`). A value
        /// that is negative or not a number counts as 0.
        growth: f64,
    },
    /// The default: as `Automatic` with a growth of 1.0, but a small heap may grow by more, by the geometric mean of `live`
    /// and [`BALANCE_BYTES`](Pacing::BALANCE_BYTES). A heap of 8 MiB grows by 32 before the next cycle, one of 128 MiB or more
    /// doubles.
    ///
    /// A cycle costs time in proportion to `live`, and so does a byte allocated if cycles are as far apart as `live` is
    /// large, whatever that is; but the memory saved by it is worth less in a small heap. Where the sum of both prices is
    /// least, the heap grows by the square root of `live` (Kirisame et al., *Optimal Heap Limits for Reducing Browser
    /// Memory Use*, OOPSLA 2022).
    Balanced {
        /// Never collect before this many bytes have been allocated.
        min_bytes: u64,
    },
    /// Only `Heap::collect` collects.
    Manual,
}

impl Pacing {
    /// Bytes allocated before the first automatic collection, by default: small enough that a
    /// program which makes only garbage stays in a second-level cache.
    pub const DEFAULT_MIN_BYTES: u64 = 1 << 20;

    /// Live bytes from which on a heap with [`Pacing::Balanced`] doubles before the next cycle.
    pub const BALANCE_BYTES: u64 = 128 << 20;
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing::Balanced { min_bytes: Self::DEFAULT_MIN_BYTES }
    }
}

/// The pacing of one heap.
pub(crate) struct Pacer {
    pacing: Pacing,
    /// Bytes in use at which the next cycle is due.
    trigger: u64,
}

/// Bytes that a registered cleanup counts for: its record and its place in the span's table.
pub(crate) const CLEANUP_BYTES: u64 = 48;

impl Pacer {
    pub(crate) fn new(pacing: Pacing) -> Self {
        let mut pacer = Pacer { pacing, trigger: 0 };
        pacer.after_cycle(0);
        pacer
    }

    /// Whether a cycle is due with this many bytes in use.
    #[inline]
    pub(crate) fn is_due(&self, bytes_in_use: u64) -> bool {
        bytes_in_use > self.trigger
    }

    /// Sets the next trigger from what survived.
    pub(crate) fn after_cycle(&mut self, live_bytes: u64) {
        self.trigger = match self.pacing {
            Pacing::Manual => u64::MAX,
            Pacing::Automatic { min_bytes, growth } => {
                // A float-to-integer cast saturates, and takes negative and NaN to 0.
                let headroom = (live_bytes as f64 * growth) as u64;
                live_bytes.saturating_add(headroom.max(min_bytes))
            }
            Pacing::Balanced { min_bytes } => {
                let mean = (live_bytes as f64 * Pacing::BALANCE_BYTES as f64).sqrt() as u64;
                live_bytes.saturating_add(mean.max(live_bytes).max(min_bytes))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_due_when_garbage_exceeds_the_larger_of_minimum_and_growth() {
        let mut pacer = Pacer::new(Pacing::Automatic { min_bytes: 100, growth: 0.5 });
        assert!(!pacer.is_due(100) && pacer.is_due(101));
        pacer.after_cycle(1000);
        assert!(!pacer.is_due(1500) && pacer.is_due(1501));
        pacer.after_cycle(20);
        assert!(!pacer.is_due(120) && pacer.is_due(121));
    }

    #[test]
    fn a_small_heap_may_grow_by_more_than_it_holds() {
        const MIB: u64 = 1 << 20;
        let mut pacer = Pacer::new(Pacing::Balanced { min_bytes: MIB });
        for (live, headroom) in [
            (0, MIB),
            (1 << 10, MIB),
            (2 * MIB, 16 * MIB),
            (8 * MIB, 32 * MIB),
            (128 * MIB, 128 * MIB),
            (1 << 30, 1 << 30),
        ] {
            pacer.after_cycle(live);
            assert!(!pacer.is_due(live + headroom) && pacer.is_due(live + headroom + 1), "{live}");
        }
        pacer.after_cycle(u64::MAX);
        assert!(!pacer.is_due(u64::MAX));
    }

    #[test]
    fn odd_growths_never_overflow() {
        for growth in [f64::NAN, -1.0, f64::INFINITY] {
            let mut pacer = Pacer::new(Pacing::Automatic { min_bytes: 1, growth });
            pacer.after_cycle(u64::MAX / 2);
            pacer.is_due(u64::MAX);
        }
        assert!(!Pacer::new(Pacing::Manual).is_due(u64::MAX - 1));
    }
}
