//! The rounds of a run: in each, all take turns at each job, and the order among them moves on by
//! one from round to round.
//!
//! Each turn is a process of its own. One that fails costs its own values, and a signal ends the
//! run with what was measured until then.

use std::path::Path;
use std::time::{Duration, Instant};

use super::interrupt;
use super::record::{Failed, Kind, Record, Slow};
use crate::output::{Failure, Progress, print, save};

/// What several take turns at.
pub(crate) struct Job<'a> {
    /// What it is, for progress.
    pub(crate) title: String,
    /// The work, by the name that failures are kept under.
    pub(crate) work: String,
    /// The size of the heap, where there are many sizes.
    pub(crate) objects: Option<usize>,
    pub(crate) turns: Vec<Turn<'a>>,
}

/// One that takes turns.
pub(crate) struct Turn<'a> {
    pub(crate) by: String,
    pub(crate) measure: Box<Measure<'a>>,
}

/// Measures and records, in a round of that number; or tells why it was not all that was asked for.
type Measure<'a> = dyn Fn(&mut Record, usize) -> Result<(), String> + 'a;

/// What takes longer than this in the round that does not count has fewer of those that do. Else a
/// run would be spent on a few collectors that mark slowly.
const LONG: Duration = Duration::from_secs(5);

/// Measures everything, until a signal: rounds from 1, and in a record of `run` the one before that
/// does not count. What takes long has `few` rounds. Keeps the record in `json`.
pub(crate) fn measure_all(
    record: &mut Record,
    jobs: &[Job<'_>],
    few: usize,
    json: Option<&Path>,
) -> Result<(), Failure> {
    let progress = Progress::new();
    let start = Instant::now();
    let first = usize::from(record.kind != Kind::Run);
    'rounds: for round in first..=record.rounds {
        for Job { title, work, objects, turns } in jobs {
            let title = format!("round {round} of {}: {title}", record.rounds);
            progress.step(&title);
            for nth in 0..turns.len() {
                let Turn { by, measure } = &turns[(nth + round) % turns.len()];
                if !record.has_turn(by, work, round) {
                    continue;
                }
                progress.far(|| format!("{title}: {by}"));
                let began = Instant::now();
                let done = measure(record, round);
                // What a signal has ended has not failed.
                if interrupt::caught().is_some() {
                    break 'rounds;
                }
                let (by, work, time) = (by.clone(), work.clone(), began.elapsed());
                if round == 0 && time > LONG && record.rounds > few {
                    let (by, work, seconds) = (by.clone(), work.clone(), time.as_secs());
                    record.slow.push(Slow { by, work, seconds, rounds: few });
                }
                if let Err(reason) = done {
                    record.failures.push(Failed { by, work, objects: *objects, round, reason });
                }
            }
            record.seconds = start.elapsed().as_secs();
            // Each time, so that a run that is killed leaves something.
            save(record, json)?;
        }
    }
    record.seconds = start.elapsed().as_secs();
    record.partial = interrupt::caught().is_some();
    save(record, json)
}

/// Prints what came of it. A signal, and a failure of one that `is_own`, are the command's, too.
pub(crate) fn finish(
    record: &Record,
    text: String,
    json: Option<&Path>,
    is_own: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    print(text)?;
    interrupt::as_failure(json)?;
    match record.failures.iter().find(|failed| is_own(&failed.by)) {
        Some(failed) => Err(Failure::Run(format!("cannot measure: {}", failed.reason))),
        None => Ok(()),
    }
}
