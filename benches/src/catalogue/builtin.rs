//! A contender that this very program measures.

use super::row::Row;
use super::work::Work;
use crate::output::{Failure, print};

/// The name under which Sexton itself is kept.
pub(crate) const SEXTON: &str = "sexton";

/// The name under which the machine's limits are kept.
pub(crate) const MACHINE: &str = "machine";

/// Takes numbers and writes them to standard output at once, so that a crash loses none before it;
/// or keeps them.
pub(crate) struct Out {
    /// The rows that are wanted; all, if none is named.
    only: Vec<String>,
    kept: Option<Vec<f64>>,
    failure: Option<Failure>,
}

impl Out {
    /// Takes the numbers of these rows, or of all.
    pub(crate) fn new(only: impl IntoIterator<Item = impl ToString>) -> Self {
        let only = only.into_iter().map(|it| it.to_string()).collect();
        Out { only, kept: None, failure: None }
    }

    /// Keeps the numbers of a row.
    pub(crate) fn keep(row: &str) -> Self {
        Out { kept: Some(Vec::new()), ..Out::new([row]) }
    }

    /// The numbers that were kept.
    pub(crate) fn kept(self) -> Vec<f64> {
        self.kept.unwrap_or_default()
    }

    /// Tells whether a row is to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }

    /// A number has been measured.
    pub(crate) fn put(&mut self, row: &str, value: f64) {
        if self.failure.is_some() || !self.wants(row) {
            return;
        }
        match &mut self.kept {
            Some(kept) => kept.push(value),
            None => self.failure = print(format_args!("{row} {value}\n")).err(),
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
    /// Tells the rows that it measures.
    pub(crate) rows: fn() -> Vec<&'static Row>,
    /// Measures all its rows of a work.
    pub(crate) measure: fn(Work, usize, &mut Out) -> Result<(), String>,
}
