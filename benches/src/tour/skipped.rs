//! What the tour could not use: reported by name, up to a bound, and otherwise counted.

use std::fmt::Display;
use std::path::Path;

use crate::output::complain;

/// Lines printed before the rest is only counted.
const REPORTED: usize = 10;

/// The paths that were skipped.
#[derive(Default)]
pub(crate) struct Skipped {
    first: Vec<String>,
    total: u64,
}

impl Skipped {
    /// Notes that `path` was skipped. Names are quoted and escaped: they may hold anything.
    pub(crate) fn note(&mut self, path: &Path, why: impl Display) {
        self.total += 1;
        if self.first.len() < REPORTED {
            self.first.push(format!("skipped {path:?}: {why}"));
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Tells standard error.
    pub(crate) fn report(&self) {
        self.first.iter().for_each(complain);
        let more = self.total - self.first.len() as u64;
        if more > 0 {
            complain(format_args!("... and {more} more"));
        }
    }
}
