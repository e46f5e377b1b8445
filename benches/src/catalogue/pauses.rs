//! The pauses of a program: heaps, ways to collect them, and what is measured of both.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use strum::{EnumMessage, IntoStaticStr, VariantArray};

/// A heap that is collected while its program runs. The comment on each is its title.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, ValueEnum, EnumMessage, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Shape {
    /// random graph of 32-byte objects, two links each
    Random,
    /// list
    List,
    /// complete binary tree
    Tree,
    /// random graph; one object in ten has a cleanup
    Cleanups,
    /// tree, and weak pointers to some of it
    Weaks,
    /// tree, and dynamic roots
    Roots,
    /// tree, and local cleanups
    Locals,
    /// table of `Vec<u8>` of 1 KiB
    Bytes,
    /// the random graph, its table a `Vec` in one cell
    Cell,
    /// `GcVec` of 32-byte objects
    Vector,
    /// `GcMap` of 32-byte objects
    Map,
}

impl Shape {
    pub(crate) const ALL: &'static [Shape] = Self::VARIANTS;

    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    pub(crate) fn title(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// Tells how many nodes live, and how many of what is special about the heap.
    pub(crate) fn size(self, quick: bool) -> Size {
        let (nodes, extras) = match self {
            // A gigabyte.
            Shape::Random | Shape::List | Shape::Tree | Shape::Cleanups | Shape::Cell => {
                (1 << 25, 0)
            }
            Shape::Weaks | Shape::Roots => (1 << 23, 1_000_000),
            Shape::Locals => (1 << 23, 100_000),
            // A gigabyte beside the heap.
            Shape::Bytes => (0, 1 << 20),
            Shape::Vector | Shape::Map => (0, 10_000_000),
        };
        let part = if quick { 16 } else { 1 };
        Size { nodes: nodes / part, extras: extras / part }
    }
}

/// How much of a heap lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Linked objects of 32 bytes.
    pub(crate) nodes: usize,
    /// Weak pointers, roots, local cleanups, vectors of bytes, or elements.
    pub(crate) extras: usize,
}

/// A way to collect. The comment on each is its title.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, ValueEnum, EnumMessage, IntoStaticStr, VariantArray,
)]
pub(crate) enum Way {
    /// Local, stop-the-world
    #[strum(serialize = "local-stop")]
    LocalStop,
    /// Local, slices of 1 ms (the default)
    #[strum(serialize = "local")]
    #[value(name = "local")]
    Local,
    /// Local, slices of 200 us, no huge pages
    #[strum(serialize = "local-200us")]
    #[value(name = "local-200us")]
    Local200us,
    /// Shared, stop-the-world
    #[strum(serialize = "shared-stop")]
    SharedStop,
    /// Shared, beside sessions (the default)
    #[strum(serialize = "shared")]
    Shared,
}

impl Way {
    pub(crate) const ALL: &'static [Way] = Self::VARIANTS;

    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    pub(crate) fn title(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Way::SharedStop | Way::Shared)
    }

    /// The same mode without slices.
    pub(crate) fn stopping(self) -> Way {
        if self.is_shared() { Way::SharedStop } else { Way::LocalStop }
    }

    /// Tells whether a heap of this shape can be collected so: local cleanups are for one thread.
    pub(crate) fn takes(self, shape: Shape) -> bool {
        !(self.is_shared() && shape == Shape::Locals)
    }
}

/// What is measured. The comment on each is the heading of its column.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    EnumMessage,
    IntoStaticStr,
    VariantArray,
    Serialize,
    Deserialize,
)]
pub(crate) enum Measure {
    /// wait p99
    WaitP99,
    /// wait max
    WaitMax,
    /// wall p99
    WallP99,
    /// wall p99.9
    WallP999,
    /// wall max
    WallMax,
    /// own max
    OwnMax,
    /// cycles
    Cycles,
    /// collections
    Collections,
    /// processor
    Processor,
    /// peak memory
    Peak,
}

impl Measure {
    pub(crate) const ALL: &'static [Measure] = Self::VARIANTS;

    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    pub(crate) fn heading(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Measure::Cycles => "cycles",
            Measure::Collections | Measure::Processor => "ns per object",
            Measure::Peak => "MB",
            _ => "ms",
        }
    }

    /// Tells whether it is shown as a ratio to stop-the-world.
    pub(crate) fn is_relative(self) -> bool {
        matches!(self, Measure::Collections | Measure::Processor | Measure::Peak)
    }

    /// Gives what is not to be exceeded, as it is shown: in ms, or as a ratio.
    pub(crate) fn goal(self, way: Way) -> Option<f64> {
        use Measure::*;
        match (way, self) {
            (Way::LocalStop | Way::SharedStop, _) => None,
            (_, Collections) => Some(1.1),
            (_, Peak) => Some(1.25),
            (Way::Local, WaitP99) => Some(1.2),
            (Way::Local, WaitMax | WallMax) => Some(2.0),
            (Way::Local200us, WaitP99) => Some(0.25),
            (Way::Local200us, WaitMax | WallMax) => Some(1.0),
            (Way::Shared, WaitP99) => Some(0.3),
            (Way::Shared, WaitMax | WallP999) => Some(1.0),
            (Way::Shared, WallMax) => Some(2.0),
            _ => None,
        }
    }
}

/// What a process has measured of one heap.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pauses {
    pub(crate) values: Vec<(Measure, f64)>,
    /// The longest session in each part of the run.
    pub(crate) longest: Vec<Moment>,
}

/// When a session ended, in seconds, and how long it took, in milliseconds.
pub(crate) type Moment = (f64, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_heap_is_a_sixteenth() {
        for shape in Shape::ALL {
            let (full, quick) = (shape.size(false), shape.size(true));
            assert_eq!((full.nodes / 16, full.extras / 16), (quick.nodes, quick.extras));
        }
    }

    #[test]
    fn names_on_the_command_line_are_those_in_records() {
        let same = |value: Option<clap::builder::PossibleValue>, name: &str| {
            assert_eq!(value.unwrap().get_name(), name);
        };
        Shape::ALL.iter().for_each(|it| same(it.to_possible_value(), it.name()));
        Way::ALL.iter().for_each(|it| same(it.to_possible_value(), it.name()));
    }
}
