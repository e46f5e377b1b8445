//! What `run` or `scale` has found, as it is kept in a file: every round's values, and what could
//! not be measured.
//!
//! Invariant: all results of a record have as many values as it has rounds. A value is `None` if
//! the peer failed, if it had no turn because it is slow, or if the run was broken off before.

use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;
use std::{env, fs};

use crate::catalogue::Spread;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use crate::catalogue::{Moment, Row, SEXTON};
use crate::values::counted;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The version of this format.
    pub(crate) format: u32,
    #[serde(default)]
    pub(crate) kind: Kind,
    /// When the run began.
    pub(crate) date: String,
    /// How to measure the same again.
    #[serde(default)]
    pub(crate) command: String,
    /// How long the run took, up to the last value that is kept here.
    #[serde(default)]
    pub(crate) seconds: u64,
    /// Whether the run was broken off: then some rows have fewer values, or none.
    #[serde(default)]
    pub(crate) partial: bool,
    pub(crate) machine: Machine,
    /// The versions of the peers, as far as they are known.
    #[serde(default)]
    pub(crate) versions: Vec<Version>,
    /// Whether the sizes were a sixteenth.
    pub(crate) quick: bool,
    /// Rounds that count.
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<RowRecord>,
    /// Peers that had fewer rounds than the others.
    #[serde(default)]
    pub(crate) slow: Vec<Slow>,
    /// Peers that were to be measured and are absent.
    pub(crate) skipped: Vec<Skipped>,
    /// What a peer was to measure and did not.
    pub(crate) failures: Vec<Failed>,
    /// How the sessions of a program went, in a record of `pauses`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) timelines: Vec<Timeline>,
}

/// The command that has made a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Rows by contenders, at one size.
    #[default]
    Run,
    /// Rows at many sizes, by numbers of threads.
    Scale,
    /// Pauses of heaps, by ways to collect.
    Pauses,
}

/// What all have measured of one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowRecord {
    pub(crate) id: String,
    /// The size of the heap, in a record of `scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<usize>,
    pub(crate) work: String,
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) goal: Option<f64>,
    pub(crate) more_is_better: bool,
    pub(crate) results: Vec<Measured>,
}

/// What one has measured of one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// `sexton`, a peer, or a variant of one, such as `go@1`; in a record of `scale`, `2 threads`.
    pub(crate) by: String,
    /// The first round, which does not count.
    pub(crate) first: Option<f64>,
    /// A value for each round that counts.
    pub(crate) values: Vec<Option<f64>>,
}

/// The longest session in each part of a run of one program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    pub(crate) by: String,
    pub(crate) longest: Vec<Moment>,
}

/// What a peer is called by its makers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) peer: String,
    pub(crate) version: String,
}

/// A peer that takes long for a work, and had fewer rounds of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slow {
    pub(crate) by: String,
    pub(crate) work: String,
    /// What it took in the round that does not count.
    pub(crate) seconds: u64,
    /// Those of the rounds that count in which it had a turn.
    pub(crate) rounds: usize,
}

impl Slow {
    /// Whether it has a turn in round `round`, from 1, of `of`: its own are spread over the run.
    pub(crate) fn has_turn(&self, round: usize, of: usize) -> bool {
        let until = |round: usize| round * self.rounds / of;
        until(round) > until(round.saturating_sub(1))
    }

    /// `fewer rounds: go at W3: 3 of 5, because a round takes 75 s`.
    pub(crate) fn line(&self, of: usize) -> String {
        let Slow { by, work, seconds, rounds } = self;
        format!("fewer rounds: {by} at {work}: {rounds} of {of}, because a round takes {seconds} s")
    }
}

/// A peer that is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) peer: String,
    pub(crate) reason: String,
}

/// A measurement that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) by: String,
    pub(crate) work: String,
    /// The size of the heap, in a record of `scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<usize>,
    /// 0 is the one that does not count.
    pub(crate) round: usize,
    pub(crate) reason: String,
}

const FORMAT: u32 = 1;

impl Record {
    /// A record of nothing yet.
    pub(crate) fn new(kind: Kind, quick: bool, rounds: usize) -> Self {
        Record {
            format: FORMAT,
            kind,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: command_line(env::args_os()),
            seconds: 0,
            partial: true,
            machine: Machine::this(),
            versions: Vec::new(),
            quick,
            rounds,
            rows: Vec::new(),
            slow: Vec::new(),
            skipped: Vec::new(),
            failures: Vec::new(),
            timelines: Vec::new(),
        }
    }

    /// Makes a place for what `by` will measure of a row, in a heap of that size if it has many.
    pub(crate) fn expect(&mut self, row: &Row, objects: Option<usize>, by: &str) -> &mut Measured {
        let row = RowRecord {
            id: row.id.to_owned(),
            objects,
            work: row.work.to_string(),
            title: row.sized(row.title, self.quick),
            unit: row.unit.to_owned(),
            // Goals are for full sizes; only prices by the piece are the same for less.
            goal: row.goal.filter(|_| !self.quick || row.is_by_the_piece()),
            more_is_better: row.more_is_better,
            results: Vec::new(),
        };
        self.place(row, by)
    }

    /// Makes a place for what `by` will measure of a row, which may be there already.
    pub(crate) fn place(&mut self, row: RowRecord, by: &str) -> &mut Measured {
        let is_it = |it: &RowRecord| (&it.id, it.objects) == (&row.id, row.objects);
        let at = self.rows.iter().position(is_it).unwrap_or_else(|| {
            self.rows.push(row);
            self.rows.len() - 1
        });
        let results = &mut self.rows[at].results;
        let at = results.iter().position(|it| it.by == by).unwrap_or_else(|| {
            let values = vec![None; self.rounds];
            results.push(Measured { by: by.to_owned(), first: None, values });
            results.len() - 1
        });
        &mut results[at]
    }

    /// Tells whether `by` does a work in this round: one that takes long does not in each.
    pub(super) fn has_turn(&self, by: &str, work: &str, round: usize) -> bool {
        let slow = self.slow.iter().find(|it| it.by == by && it.work == work);
        slow.is_none_or(|slow| slow.has_turn(round, self.rounds))
    }

    /// The record as it is shown. If the run was broken off before a round that counts, the first
    /// one, which does not, has to do.
    pub(crate) fn shown(mut self) -> Self {
        if self.partial {
            for measured in self.rows.iter_mut().flat_map(|row| &mut row.results) {
                if measured.spread().is_none() {
                    measured.values[0] = measured.first;
                }
            }
        }
        self
    }

    /// Why a result has no value, in one word or two, and in a line.
    pub(crate) fn lack(&self, row: &RowRecord, measured: &Measured) -> (&'static str, &str) {
        let is_it = |it: &&Failed| {
            (&*it.by, &it.work, it.objects) == (measured.peer(), &row.work, row.objects)
        };
        match self.failures.iter().rev().find(is_it) {
            Some(failed) => ("failed", &failed.reason),
            None => ("not measured", ""),
        }
    }

    /// What has to be said beside the values: a line for each thing.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.slow.iter().map(|it| it.line(self.rounds)).collect();
        lines.extend(self.skipped.iter().map(|it| format!("skipped: {}: {}", it.peer, it.reason)));
        // The round that does not count may fail, too.
        let rounds = counted(self.rounds + usize::from(self.kind == Kind::Run), "round");
        // Once for each reason, however many rounds it spoilt.
        let mut told: Vec<&Failed> = Vec::new();
        for failed in &self.failures {
            let Failed { by, work, objects, reason, .. } = failed;
            let is_same = |it: &&Failed| {
                (&it.by, &it.work, &it.objects, &it.reason) == (by, work, objects, reason)
            };
            if told.iter().any(&is_same) {
                continue;
            }
            told.push(failed);
            let size = objects.map(|it| format!(", {},", counted(it, "object")));
            let (size, times) =
                (size.unwrap_or_default(), self.failures.iter().filter(is_same).count());
            lines.push(format!("failed: {by} at {work}{size} in {times} of {rounds}: {reason}"));
        }
        lines
    }

    /// How many of the results have a value, if the run was broken off; in a line.
    pub(crate) fn broken_off(&self) -> Option<String> {
        let results = || self.rows.iter().flat_map(|row| &row.results);
        let count = results().filter(|it| it.spread().is_some()).count();
        self.partial.then(|| {
            let all = counted(results().count(), "result");
            format!("PARTIAL: the run was broken off; {count} of {all} have a value")
        })
    }

    /// The row with this id, if it was measured.
    pub(crate) fn row(&self, id: &str) -> Option<&RowRecord> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// Reads a record, as it is shown.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is none that [`save`](crate::output::save) has written; in
    /// one line.
    pub(crate) fn load(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
        let record: Record = serde_json::from_str(&text)
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
        match record.format {
            FORMAT => Ok(record.shown()),
            format => Err(format!("its format is {format}; valid is {FORMAT}")),
        }
    }
}

impl RowRecord {
    /// What `by` has measured.
    pub(crate) fn by(&self, by: &str) -> Option<&Measured> {
        self.results.iter().find(|it| it.by == by)
    }

    /// Sexton's numbers as shares of a peer's.
    pub(crate) fn ratio(&self, peer: &Measured) -> Option<Spread> {
        self.by(SEXTON)?.ratio(peer)
    }

    /// The peer with the best median, if any has one.
    pub(crate) fn best_peer(&self) -> Option<(&Measured, Spread)> {
        let peers = self.results.iter().filter(|it| it.peer() != SEXTON);
        let with_spread = peers.filter_map(|it| Some((it, it.spread()?)));
        let sign = if self.more_is_better { -1.0 } else { 1.0 };
        with_spread.min_by(|(_, a), (_, b)| (sign * a.median).total_cmp(&(sign * b.median)))
    }
}

impl Measured {
    /// Keeps the value of a round; round 0 is the one that does not count.
    pub(crate) fn set(&mut self, round: usize, value: f64) {
        match round.checked_sub(1) {
            None => self.first = Some(value),
            Some(nth) => self.values[nth] = Some(value),
        }
    }

    /// The contender that has measured, without the variant.
    pub(crate) fn peer(&self) -> &str {
        self.by.split_once('@').map_or(self.by.as_str(), |(peer, _)| peer)
    }

    /// The median of the rounds that count, if one of them has a value.
    pub(crate) fn spread(&self) -> Option<Spread> {
        Spread::of(self.values.iter().copied().flatten().collect())
    }

    /// The ratio of the medians, with the least and the greatest of the ratios within a round.
    /// `None` unless both have values of the same round.
    pub(crate) fn ratio(&self, other: &Measured) -> Option<Spread> {
        let pairs = self.values.iter().zip(&other.values);
        let ratios = pairs.filter_map(|pair| match pair {
            (&Some(own), &Some(other)) if other > 0.0 => Some(own / other),
            _ => None,
        });
        let Spread { min, max, .. } = Spread::of(ratios.collect())?;
        let (own, other) = (self.spread()?.median, other.spread()?.median);
        (other > 0.0).then(|| Spread { median: own / other, min, max })
    }
}

/// How to measure the same again: a command line without the options that name files.
fn command_line(args: impl IntoIterator<Item = OsString>) -> String {
    let mut words = vec!["sexton-bench".to_owned()];
    let mut args = args.into_iter().skip(1);
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy();
        match arg.split_once('=').map_or(&*arg, |(option, _)| option) {
            "--json" | "--peers-dir" if arg.contains('=') => {}
            "--json" | "--peers-dir" => _ = args.next(),
            _ => words.push(arg.into_owned()),
        }
    }
    words.join(" ")
}

/// A record of two rows, with a peer that failed once, one that failed always, and one that is
/// absent.
#[cfg(test)]
pub(crate) fn sample() -> Record {
    use crate::catalogue::MACHINE;

    let mut record = Record::new(Kind::Run, true, 3);
    record.command = "sexton-bench run".into();
    record.date = "2026-01-02T03:04:05Z".into();
    record.partial = false;
    let [w1, bump] = ["W1", "limit.bump"].map(|id| Row::find(id).unwrap());
    for (by, values) in [(SEXTON, [9.0, 1.0, 3.0, 2.0]), ("box", [9.0, 8.0, 12.0, 16.0])] {
        values.iter().enumerate().for_each(|(n, &value)| record.expect(w1, None, by).set(n, value));
    }
    record.expect(w1, None, "box@once").set(1, 10.0);
    record.expect(w1, None, "gc");
    record.expect(bump, None, MACHINE).set(2, 1.5);
    record.failures.push(Failed {
        by: "gc".into(),
        work: "W1".into(),
        objects: None,
        round: 2,
        reason: "took longer than 120 s".into(),
    });
    let by = "box".to_owned();
    record.slow.push(Slow { by, work: "W1".into(), seconds: 12, rounds: 2 });
    record.skipped.push(Skipped { peer: "go".into(), reason: "go is not installed".into() });
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians_and_their_spread_is_of_rounds() {
        let record = sample();
        let row = record.row("W1").unwrap();
        let ratio = row.ratio(row.by("box").unwrap()).unwrap();
        // Medians 2 and 12; in the rounds 1 / 8, 3 / 12 and 2 / 16.
        assert_eq!(ratio, Spread { median: 2.0 / 12.0, min: 0.125, max: 0.25 });
        let once = row.ratio(row.by("box@once").unwrap()).unwrap();
        assert_eq!(once, Spread { median: 0.2, min: 0.1, max: 0.1 });
        assert_eq!(row.ratio(row.by("gc").unwrap()), None);
    }

    #[test]
    fn a_command_is_kept_without_its_files() {
        let args = "it run --json a W1 --peers=go --json=b --peers-dir c --quick".split(' ');
        let command = command_line(args.map(OsString::from));
        assert_eq!(command, "sexton-bench run W1 --peers=go --quick");
    }

    #[test]
    fn a_quick_run_has_no_goals_for_totals() {
        let [w1, wall] = ["W1", "W7.wall"].map(|id| Row::find(id).unwrap());
        for (quick, goal) in [(true, None), (false, wall.goal)] {
            let mut record = Record::new(Kind::Run, quick, 1);
            record.expect(w1, None, SEXTON);
            record.expect(wall, None, SEXTON);
            assert_eq!(record.row("W1").unwrap().goal, w1.goal);
            assert_eq!(record.row("W7.wall").unwrap().goal, goal);
        }
    }

    #[test]
    fn the_round_that_does_not_count_is_kept_apart() {
        let record = sample();
        let own = record.row("W1").unwrap().by(SEXTON).unwrap();
        assert_eq!(own.first, Some(9.0));
        assert_eq!(own.spread(), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
    }

    #[test]
    fn the_best_peer_is_no_variant_of_sexton_and_one_that_has_values() {
        let mut record = sample();
        let w1 = Row::find("W1").unwrap();
        record.expect(w1, None, "sexton@1").set(1, 0.5);
        let (best, spread) = record.row("W1").unwrap().best_peer().unwrap();
        assert_eq!((best.by.as_str(), spread.median), ("box@once", 10.0));
    }

    #[test]
    fn the_turns_of_the_slow_are_spread_over_the_run() {
        let slow = Slow { by: "gc".into(), work: "W3".into(), seconds: 12, rounds: 3 };
        let turns = |of: usize| (1..=of).filter(|&n| slow.has_turn(n, of)).collect::<Vec<_>>();
        assert_eq!((turns(5), turns(9)), (vec![2, 4, 5], vec![3, 6, 9]));
    }

    #[test]
    fn a_run_that_is_broken_off_has_what_was_measured_and_the_rest_is_no_failure() {
        let mut record = Record::new(Kind::Run, true, 3);
        let w1 = Row::find("W1").unwrap();
        record.expect(w1, None, SEXTON).set(0, 7.0);
        record.expect(w1, None, "box");
        let record = record.shown();
        let row = record.row("W1").unwrap();
        let [own, peer] = [SEXTON, "box"].map(|by| row.by(by).unwrap());
        assert_eq!(own.spread().map(|it| it.median), Some(7.0));
        assert_eq!((peer.spread(), record.lack(row, peer).0), (None, "not measured"));
        assert!(record.broken_off().unwrap().ends_with("1 of 2 results have a value"));
        assert_eq!(sample().broken_off(), None);
    }

    #[test]
    fn a_record_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.json");
        let record = sample();
        crate::output::save(&record, Some(&file)).unwrap();
        assert_eq!(Record::load(&file), Ok(record));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
        assert_eq!(Record::load(&file).unwrap_err(), "its format is 9; valid is 1");
    }
}
