//! The kinds of work, and the size each is done at.

use clap::ValueEnum;
use strum::{Display, EnumMessage, IntoStaticStr, VariantArray};

/// A kind of work, in the order in which they are done: what a peer is started for, once a round.
/// The comment on each is its title in help, progress and pictures.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    ValueEnum,
    Display,
    EnumMessage,
    IntoStaticStr,
    VariantArray,
)]
#[value(rename_all = "verbatim")]
pub(crate) enum Work {
    /// allocation
    W1,
    /// sweep
    W2,
    /// sweep with cleanups
    W2c,
    /// refill after a sweep
    W2r,
    /// mark
    W3,
    /// cleanups
    W4,
    /// stopping a cleanup
    W5,
    /// wake-up of a worker
    W6,
    /// binary-trees
    W7,
    /// GCBench
    GCBench,
    /// cleanups of 1 us
    W8,
    /// memory of objects and cleanups
    #[value(name = "memory")]
    #[strum(serialize = "memory")]
    Memory,
    /// writes to cells
    #[value(name = "barrier")]
    #[strum(serialize = "barrier")]
    Barrier,
    /// empty sessions
    S0,
    /// binary-trees on threads
    S1,
    /// a weak map on threads
    S2,
    /// allocation on threads
    S3,
    /// cleanups on threads
    S4,
    /// pauses of a large heap
    S5,
    /// what the machine allows
    #[value(name = "limits")]
    #[strum(serialize = "limits")]
    Limits,
}

impl Work {
    pub(crate) const ALL: &'static [Work] = Self::VARIANTS;

    /// The name it has on the command line.
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// What it is, in a few words.
    pub(crate) fn title(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// The number that says how much of it there is: objects, cleanups, keys, wake-ups, or the
    /// depth of a tree.
    pub(crate) fn size(self, quick: bool) -> usize {
        // A tree that is less deep by four has a sixteenth of the nodes.
        let (full, sixteenth) = match self {
            Work::W4 | Work::W5 | Work::W8 | Work::S2 | Work::S4 => (1_000_000, 62_500),
            Work::W6 => (500, 31),
            Work::W7 => (18, 14),
            // Less deep than W7, as there is a program for each thread.
            Work::S1 => (16, 12),
            // A gigabyte of objects.
            Work::S5 => (1 << 25, 1 << 21),
            // It has a size of its own, and is not long.
            Work::GCBench => (18, 18),
            _ => (4_000_000, 250_000),
        };
        if quick { sixteenth } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_does_a_sixteenth() {
        for &work in Work::ALL {
            let (full, quick) = (work.size(false), work.size(true));
            match work {
                Work::GCBench => assert_eq!(full, quick),
                Work::W7 | Work::S1 => assert_eq!((1 << full) / (1 << quick), 16),
                _ => assert_eq!(full / quick, 16),
            }
        }
    }
}
