//! The kinds of work, and the size each is done at.

use std::fmt;

use clap::ValueEnum;
use clap::builder::PossibleValue;

/// A kind of work: what a peer is started for, once a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Allocation of what dies at once, collections included.
    W1,
    /// Sweep of plain objects.
    W2,
    /// Sweep where one in ten carries a cleanup.
    W2c,
    /// Allocation into what a sweep left free.
    W2r,
    /// Mark.
    W3,
    /// Cleanups: registration, and from the collection to the last run.
    W4,
    /// A cleanup registered and stopped.
    W5,
    /// From publish to the start of a cleanup, on an idle worker.
    W6,
    /// The program binary-trees.
    W7,
    /// Cleanups that take their time.
    W8,
    /// The program GCBench.
    GcBench,
    /// Bytes that live objects and cleanups take.
    Memory,
    /// Sessions without anything in them.
    S0,
    /// The program binary-trees, once for each thread, on one heap.
    S1,
    /// A map with weak values and cleanups, shared by threads.
    S2,
    /// Allocation by many threads of what dies at once.
    S3,
    /// The same, each object with a cleanup.
    S4,
    /// Pauses of a large heap.
    S5,
    /// What the machine itself can do.
    Limits,
}

impl Work {
    /// All of them, in the order in which they are done.
    pub(crate) const ALL: [Work; 19] = [
        Work::W1,
        Work::W2,
        Work::W2c,
        Work::W2r,
        Work::W3,
        Work::W4,
        Work::W5,
        Work::W6,
        Work::W7,
        Work::GcBench,
        Work::W8,
        Work::Memory,
        Work::S0,
        Work::S1,
        Work::S2,
        Work::S3,
        Work::S4,
        Work::S5,
        Work::Limits,
    ];

    /// The name it has on the command line.
    pub(crate) fn name(self) -> &'static str {
        self.about().0
    }

    /// What it is, in a few words.
    pub(crate) fn title(self) -> &'static str {
        self.about().1
    }

    fn about(self) -> (&'static str, &'static str) {
        match self {
            Work::W1 => ("W1", "allocation"),
            Work::W2 => ("W2", "sweep"),
            Work::W2c => ("W2c", "sweep with cleanups"),
            Work::W2r => ("W2r", "refill after a sweep"),
            Work::W3 => ("W3", "mark"),
            Work::W4 => ("W4", "cleanups"),
            Work::W5 => ("W5", "stopping a cleanup"),
            Work::W6 => ("W6", "wake-up of a worker"),
            Work::W7 => ("W7", "binary-trees"),
            Work::W8 => ("W8", "cleanups of 1 us"),
            Work::GcBench => ("GCBench", "GCBench"),
            Work::Memory => ("memory", "memory of objects and cleanups"),
            Work::S0 => ("S0", "empty sessions"),
            Work::S1 => ("S1", "binary-trees on threads"),
            Work::S2 => ("S2", "a weak map on threads"),
            Work::S3 => ("S3", "allocation on threads"),
            Work::S4 => ("S4", "cleanups on threads"),
            Work::S5 => ("S5", "pauses of a large heap"),
            Work::Limits => ("limits", "what the machine allows"),
        }
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
            Work::GcBench => (18, 18),
            _ => (4_000_000, 250_000),
        };
        if quick { sixteenth } else { full }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueEnum for Work {
    fn value_variants<'a>() -> &'a [Self] {
        &Work::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.title()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_does_a_sixteenth() {
        for work in Work::ALL {
            let (full, quick) = (work.size(false), work.size(true));
            match work {
                Work::GcBench => assert_eq!(full, quick),
                Work::W7 | Work::S1 => assert_eq!((1 << full) / (1 << quick), 16),
                _ => assert_eq!(full / quick, 16),
            }
        }
    }
}
