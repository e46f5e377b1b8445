//! The contenders: Sexton, the machine, the Rust peers, and the peers in other languages, all as
//! programs of their own.
//!
//! Each measurement is a fresh process. So it does not work on the memory that another has left
//! behind, a peak of memory is its own, and a peer that crashes costs its own cells only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::child;
use super::external::{self, Listed, numbers};
use super::interrupt;
use super::machine;
use super::record::Skipped;

use super::one;
use crate::catalogue::{MACHINE, Row, SEXTON, Work};
use crate::output::Failure;
use crate::peers;

/// One that is measured.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(super) rows: Vec<Listed>,
    /// Whether it is asked for each row by name, and not for whole works.
    pub(super) are_few: bool,
    /// What its makers call it, as far as it is known.
    pub(super) version: Option<String>,
    /// `None`: this very program measures it.
    pub(super) program: Option<PathBuf>,
}

/// A number that was measured, and by whom.
pub(crate) struct Number {
    pub(crate) row: &'static Row,
    /// The name of the contender, with the variant.
    pub(crate) by: String,
    pub(crate) value: f64,
}

/// Which peers were asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Peers {
    /// All that are there.
    All,
    /// Sexton alone.
    None,
    /// These, and no others.
    Named(Vec<String>),
}

impl Peers {
    pub(crate) fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "all" => Peers::All,
            "none" => Peers::None,
            list => Peers::Named(list.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }
}

/// Finds the contenders: Sexton first and the machine, then those peers asked for that are there.
/// Builds those in other languages. Absent ones are an error if they were named, and else are
/// skipped.
pub(crate) fn find(
    peers: &Peers,
    folder: &Path,
    building: impl Fn(&str),
) -> Result<(Vec<Contender>, Vec<Skipped>), Failure> {
    let mut found = vec![Contender::builtin(SEXTON), Contender::builtin(MACHINE)];
    let mut skipped = Vec::new();
    if *peers == Peers::None {
        return Ok((found, skipped));
    }
    let (externals, gone) = match external::names(folder) {
        Ok(names) => (names, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let builtins: Vec<&str> = peers::ALL.iter().map(|it| it.name).collect();
    let mut known = [&builtins, peers::ABSENT].concat();
    known.extend(externals.iter().map(String::as_str));
    if let Peers::Named(names) = peers {
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(Failure::Usage(format!(
                "unknown peer '{name}' in --peers; valid is all, none, or some of {}",
                known.join(",")
            )));
        }
    } else if !peers::ABSENT.is_empty() {
        return Err(Failure::Usage(
            "the peers in Rust are not built in: `cargo run --release --features peers -- run ..` \
             builds them, with a C compiler; --peers none, or a list such as box,go,java, does \
             without"
                .into(),
        ));
    } else if let Some(reason) = gone {
        skipped.push(Skipped { peer: "others".into(), reason });
    }
    let is_wanted = |name: &str| match peers {
        Peers::Named(names) => names.iter().any(|it| it == name),
        _ => true,
    };
    for name in known.iter().copied().filter(|name| is_wanted(name)) {
        let contender = if builtins.contains(&name) {
            Ok(Contender::builtin(name))
        } else if peers::ABSENT.contains(&name) {
            Err("it is not built in: `cargo run --release --features peers -- run ..`".to_owned())
        } else {
            building(name);
            external::build(folder, name)
        };
        match contender {
            Ok(contender) => found.push(contender),
            Err(reason) if matches!(peers, Peers::Named(_)) => {
                return Err(Failure::Usage(format!(
                    "peer '{name}' in --peers is not available: {reason}"
                )));
            }
            Err(reason) => skipped.push(Skipped { peer: name.to_owned(), reason }),
        }
    }
    Ok((found, skipped))
}

/// The longest that one measurement may take.
const PATIENCE: Duration = Duration::from_secs(120);

impl Contender {
    fn builtin(name: &str) -> Self {
        let rows = one::rows(name).map(|row| Listed { row, variant: None });
        let (name, version) = (name.to_owned(), machine::version(name));
        Contender { name, rows: rows.collect(), are_few: false, version, program: None }
    }

    /// Keeps the rows that are wanted; of a few rows only those that are no variants.
    pub(crate) fn keep_rows(&mut self, are_few: bool, is_wanted: impl Fn(&Row) -> bool) {
        self.rows.retain(|it| is_wanted(it.row) && !(are_few && it.variant.is_some()));
        self.are_few = are_few;
    }

    /// What it measures of a work: rows, and the name under which each is kept.
    pub(crate) fn rows(&self, work: Work) -> impl Iterator<Item = (&'static Row, String)> {
        self.listed(work).map(|it| (it.row, it.name(&self.name)))
    }

    fn listed(&self, work: Work) -> impl Iterator<Item = &Listed> {
        self.rows.iter().filter(move |it| it.row.work == work)
    }

    /// Measures all its rows of a work once. Gives the numbers and, if not all could be had, why.
    pub(crate) fn measure(&self, work: Work, quick: bool) -> (Vec<Number>, Option<String>) {
        let mut found: Vec<(Listed, f64)> = Vec::new();
        let mut trouble = None;
        for row in self.listed(work) {
            let has = |found: &[(Listed, f64)]| found.iter().any(|(it, _)| it == row);
            if has(&found) {
                continue;
            }
            if interrupt::caught().is_some() {
                break;
            }
            // What came before a failure counts.
            match self.measure_row(row, quick, &mut found) {
                Ok(()) if has(&found) => {}
                Ok(()) => trouble = Some(format!("printed nothing for {}", row.id())),
                Err(reason) => trouble = Some(reason),
            }
        }
        // Rows that a peer measures together with the one that was asked for.
        found.retain(|(it, _)| !self.are_few || self.rows.contains(it));
        let numbers = found.into_iter().map(|(it, value)| {
            let by = it.name(&self.name);
            Number { row: it.row, by, value }
        });
        (numbers.collect(), trouble)
    }

    fn measure_row(
        &self,
        row: &Listed,
        quick: bool,
        found: &mut Vec<(Listed, f64)>,
    ) -> Result<(), String> {
        let (id, work) = (row.id(), row.row.work);
        let ended = if let Some(program) = &self.program {
            child::run(program.as_ref(), [&id, &row.row.size(quick).to_string()], PATIENCE)?
        } else {
            let args = [one::COMMAND, &self.name, work.name(), &work.size(quick).to_string()];
            let row = self.are_few.then_some(["--row", &id]).into_iter().flatten();
            child::run_self(args.into_iter().chain(row), PATIENCE)?
        };
        let numbers = numbers(&ended.out);
        found.extend(numbers.iter().flatten().cloned());
        if !ended.status.success() {
            return Err(ended.reason());
        }
        numbers.map(drop)
    }
}
