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

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::catalogue::{BEST, MACHINE, Row, SEXTON, Work};
use crate::output::{Failure, Progress, print, save, writable};
use crate::values;
pub(crate) use contender::Contender;
use contender::Peers;
pub(crate) use external::{build, default_folder, numbers};
pub(crate) use machine::Machine;
#[cfg(test)]
pub(crate) use record::sample;
pub(crate) use record::{Failed, Kind, Measured, Record, RowRecord, Skipped, Timeline};
use record::{Slow, Version};
pub(crate) use report::{figure, in_figures, limit, sorted};

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
    let rounds = args.rounds();
    let works: Vec<Work> = Work::ALL
        .iter()
        .copied()
        .filter(|&work| Row::of(work).any(|row| args.is_wanted(row)))
        .collect();
    // Before hours of measuring, and not after.
    let json = args.json.as_deref();
    writable(json)?;
    interrupt::watch();

    let peers = Peers::parse(&args.peers);
    let folder = args.peers_dir.clone().unwrap_or_else(external::default_folder);
    let progress = Progress::new();
    let (mut contenders, skipped) =
        contender::find(&peers, &folder, |name| progress.step(format_args!("building {name}")))?;
    contenders.iter_mut().for_each(|it| it.keep_rows(args.best, |row| args.is_wanted(row)));

    let start = Instant::now();
    let mut record = Record::new(Kind::Run, command(args, &works, rounds), args.quick, rounds);
    for contender in &contenders {
        let (peer, version) = (contender.name.clone(), contender.version.clone());
        record.versions.extend(version.map(|version| Version { peer, version }));
    }
    record.skipped = skipped;
    record.skipped.extend(idle(&peers, &contenders, &works));
    expect(&mut record, &contenders, &works);
    'rounds: for round in 0..=rounds {
        for &work in &works {
            let able: Vec<&Contender> =
                contenders.iter().filter(|it| it.rows(work).next().is_some()).collect();
            let title = format!("round {round} of {rounds}: {work}, {}", work.title());
            progress.step(&title);
            for nth in 0..able.len() {
                let contender = able[(nth + round) % able.len()];
                if !has_turn(&record, contender, work, round) {
                    continue;
                }
                progress.far(|| format!("{title}: {}", contender.name));
                measure(&mut record, contender, work, round, rounds_of_the_slow(args));
                if interrupt::caught().is_some() {
                    break 'rounds;
                }
            }
            record.seconds = start.elapsed().as_secs();
            // Each time, so that a run that is killed leaves something.
            save(&record, json)?;
        }
    }
    drop(progress);

    record.seconds = start.elapsed().as_secs();
    record.partial = interrupt::caught().is_some();
    save(&record, json)?;
    let record = record.shown();
    print(report::text(&record))?;
    interrupt::as_failure(json)?;
    match record.failures.iter().find(|failed| failed.by == SEXTON) {
        Some(failed) => Err(Failure::Run(format!("cannot measure: {}", failed.reason))),
        None => Ok(()),
    }
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

/// A contender that takes longer than this for all of a work, in the round that does not count, has
/// fewer of those that do. Else a run would be spent on a few collectors that mark slowly.
const LONG: Duration = Duration::from_secs(5);

/// How many: in a run of a few rows one.
fn rounds_of_the_slow(args: &Args) -> usize {
    if args.best { 1 } else { 3 }
}

/// Whether a contender does a work in this round.
fn has_turn(record: &Record, contender: &Contender, work: Work, round: usize) -> bool {
    let slow = record.slow.iter().find(|it| it.by == contender.name && it.work == work.name());
    slow.is_none_or(|slow| slow.has_turn(round, record.rounds))
}

/// How to measure the same again, but for files.
fn command(args: &Args, works: &[Work], rounds: usize) -> String {
    let mut words = vec!["sexton-bench".to_owned(), "run".to_owned()];
    if args.best {
        words.push("--best".to_owned());
    } else if !args.works.is_empty() {
        words.extend(works.iter().map(|work| work.to_string()));
    }
    words.push(format!("--peers {}", args.peers));
    if args.quick {
        words.push("--quick".to_owned());
    }
    words.push(format!("--rounds {rounds}"));
    words.join(" ")
}

/// Has a contender do a work, and records what came of it.
fn measure(
    record: &mut Record,
    contender: &Contender,
    work: Work,
    round: usize,
    rounds_of_the_slow: usize,
) {
    let start = Instant::now();
    let (numbers, trouble) = contender.measure(work, record.quick);
    let time = start.elapsed();
    if round == 0 && time > LONG && record.rounds > rounds_of_the_slow {
        let (by, work) = (contender.name.clone(), work.to_string());
        let (seconds, rounds) = (time.as_secs(), rounds_of_the_slow);
        record.slow.push(Slow { by, work, seconds, rounds });
    }
    for number in numbers {
        record.add(number.row, &number.by, round, number.value);
    }
    // What a signal has ended has not failed.
    if let Some(reason) = trouble.filter(|_| interrupt::caught().is_none()) {
        let (by, work) = (contender.name.clone(), work.to_string());
        record.failures.push(Failed { by, work, objects: None, round, reason });
    }
}
