//! `sexton-bench run`: every measure of the project, Sexton and its peers alternating in one run.
//!
//! 1. The contenders are found; peers in other languages are built.
//! 2. In each round, each work is done once by each contender that can do it, one after the other,
//!    each as a process of its own. The order among them moves on by one from round to round. The
//!    first round is not counted. Where one takes long, it has fewer rounds, and the output says
//!    so.
//! 3. The medians are printed, with the ratio of Sexton to each peer within this run; everything
//!    that was measured can be kept in a file.
//!
//! A contender that fails costs its own cells. Only if Sexton itself fails, the command does.

pub(crate) mod child;
mod contender;
mod external;
pub(crate) mod interrupt;
mod machine;
pub(crate) mod one;
mod record;
mod report;
pub(crate) mod rounds;

use std::path::PathBuf;

use crate::catalogue::{BEST, MACHINE, Row, SEXTON, Work};
use crate::output::{Failure, Progress, writable};
use crate::values;
pub(crate) use contender::Contender;
use contender::Peers;
pub(crate) use external::{build, default_folder, numbers};
pub(crate) use machine::Machine;
#[cfg(test)]
pub(crate) use record::Failed;
use record::Version;
#[cfg(test)]
pub(crate) use record::sample;
pub(crate) use record::{Kind, Measured, Record, RowRecord, Skipped, Timeline};
pub(crate) use report::{figure, in_figures, limit, markdown, page, sorted};
use rounds::{Job, Turn};

/// Measures Sexton and its peers side by side, by everything the project measures itself by.
///
/// A full run takes about an hour on two cores, `--best` ten minutes, `--quick` five. Ctrl-C ends a
/// run early: what was measured until then is printed, and kept by --json. The peers in Rust are
/// built by `cargo run --release --features peers -- run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure; W: one thread, S: threads that share a heap [default: all]
    #[arg(value_name = "WORK", value_enum, ignore_case = true)]
    works: Vec<Work>,
    /// Measures the six rows of the picture in the README, and nothing else
    #[arg(long, conflicts_with = "works")]
    best: bool,
    /// Peers to measure beside Sexton: all, none, or names with commas between them
    #[arg(long, value_name = "LIST", default_value = "all")]
    peers: String,
    /// Keeps all that was measured in a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Sizes divided by 16 (not GCBench's), and 2 rounds
    #[arg(long)]
    quick: bool,
    /// Rounds to count, 1 to 1000 [default: 5; with --best 3]
    #[arg(long, allow_negative_numbers = true, value_name = "N",
        value_parser = values::up_to_1000())]
    rounds: Option<usize>,
    /// Where the peers in other languages are
    #[arg(long, value_name = "FOLDER", hide = true)]
    peers_dir: Option<PathBuf>,
}

impl Args {
    fn is_wanted(&self, row: &Row) -> bool {
        if self.best {
            BEST.iter().any(|(id, _)| *id == row.id)
        } else {
            self.works.is_empty() || self.works.contains(&row.work)
        }
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick {
            2
        } else if self.best {
            3
        } else {
            5
        })
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let wanted = |work: &Work| Row::of(*work).any(|row| args.is_wanted(row));
    let works: Vec<Work> = Work::ALL.iter().copied().filter(wanted).collect();
    // Before hours of measuring, and not after.
    let json = args.json.as_deref();
    writable(json)?;
    interrupt::watch();

    let peers = Peers::parse(&args.peers);
    let folder = args.peers_dir.clone().unwrap_or_else(external::default_folder);
    let progress = Progress::new();
    let (mut contenders, skipped) =
        contender::find(&peers, &folder, |name| progress.step(format_args!("building {name}")))?;
    drop(progress);
    contenders.iter_mut().for_each(|it| it.keep_rows(args.best, |row| args.is_wanted(row)));

    let mut record = Record::new(Kind::Run, args.quick, args.rounds());
    for contender in &contenders {
        let (peer, version) = (contender.name.clone(), contender.version.clone());
        record.versions.extend(version.map(|version| Version { peer, version }));
    }
    record.skipped = skipped;
    record.skipped.extend(idle(&peers, &contenders, &works));
    expect(&mut record, &contenders, &works);
    let jobs: Vec<Job<'_>> = works.iter().map(|&work| job(&contenders, work)).collect();
    // In a run of a few rows one round is enough for what takes long.
    rounds::measure_all(&mut record, &jobs, if args.best { 1 } else { 3 }, json)?;
    let record = record.shown();
    rounds::finish(&record, report::text(&record), json, |by| by == SEXTON)
}

/// A work, and the contenders that can do it.
fn job<'a>(contenders: &'a [Contender], work: Work) -> Job<'a> {
    let able = contenders.iter().filter(|it| it.rows(work).next().is_some());
    let turn = |contender: &'a Contender| Turn {
        by: contender.name.clone(),
        measure: Box::new(move |record, round| {
            let (numbers, trouble) = contender.measure(work, record.quick);
            for number in numbers {
                record.expect(number.row, None, &number.by).set(round, number.value);
            }
            trouble.map_or(Ok(()), Err)
        }),
    };
    let title = format!("{work}, {}", work.title());
    Job { title, work: work.to_string(), objects: None, turns: able.map(turn).collect() }
}

/// Peers that were named and measure none of the works.
fn idle(peers: &Peers, contenders: &[Contender], works: &[Work]) -> Vec<Skipped> {
    if !matches!(peers, Peers::Named(_)) {
        return Vec::new();
    }
    let idles = |it: &&Contender| works.iter().all(|&work| it.rows(work).next().is_none());
    let peers = contenders.iter().filter(|it| ![SEXTON, MACHINE].contains(&it.name.as_str()));
    let skip = |it: &Contender| Skipped {
        peer: it.name.clone(),
        reason: "it measures none of what was asked for".into(),
    };
    peers.filter(idles).map(skip).collect()
}

/// Makes the places of a record, so that it is in order and shows what has failed.
fn expect(record: &mut Record, contenders: &[Contender], works: &[Work]) {
    for row in works.iter().flat_map(|&work| Row::of(work)) {
        for contender in contenders {
            let listed = contender.rows(row.work).filter(|(it, _)| it.id == row.id);
            for (_, by) in listed {
                record.expect(row, None, &by);
            }
        }
    }
}
