//! A contender that this very program measures.

use super::work::Work;
use crate::output::{Failure, print};

/// The name under which Sexton itself is kept.
pub(crate) const SEXTON: &str = "sexton";

/// The name under which the machine's limits are kept.
pub(crate) const MACHINE: &str = "machine";

/// Takes numbers and writes them to standard output at once, so that a crash loses none before it.
pub(crate) struct Out {
    /// The rows that are wanted; all, if none is named.
    only: Vec<String>,
    failure: Option<Failure>,
}

impl Out {
    /// Takes the numbers of these rows, or of all.
    pub(crate) fn new(only: impl IntoIterator<Item = impl ToString>) -> Self {
        Out { only: only.into_iter().map(|it| it.to_string()).collect(), failure: None }
    }

    /// Tells whether a row is to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }

    /// A number has been measured.
    pub(crate) fn put(&mut self, row: &str, value: f64) {
        if self.failure.is_none() && self.wants(row) {
            self.failure = print(format_args!("{row} {value}\n")).err();
        }
    }

    /// Tells whether all numbers could be written.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }
}

/// One that can be measured in this program.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    /// The ids of the rows that it measures, with a blank between two.
    pub(crate) rows: &'static str,
    /// Measures all its rows of a work.
    pub(crate) measure: fn(Work, usize, &mut Out) -> Result<(), String>,
}
