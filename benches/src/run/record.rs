//! What a run has found, as it is kept in a file: every round's values, and what could not be measured.
//!
//! Invariant: all results of a record have as many values as it has rounds; `None` where a peer failed, or had no turn
//! because it is slow.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sexton_bench::Spread;

use super::machine::Machine;
use crate::catalogue::{Row, SEXTON};

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The version of this format.
    pub(crate) format: u32,
    /// When the run began.
    pub(crate) date: String,
    /// How to measure the same again.
    #[serde(default)]
    pub(crate) command: String,
    /// How long the run took, up to the last round that is kept here.
    #[serde(default)]
    pub(crate) seconds: u64,
    pub(crate) machine: Machine,
    /// Who the peers are, as far as they tell: a version each.
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
}

/// What all have measured of one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowRecord {
    pub(crate) id: String,
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
    /// `sexton`, a peer, or a variant of one, such as `go@1`.
    pub(crate) by: String,
    /// The first round, which does not count.
    pub(crate) first: Option<f64>,
    /// A value for each round that counts.
    pub(crate) values: Vec<Option<f64>>,
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
    /// 0 is the one that does not count.
    pub(crate) round: usize,
    pub(crate) reason: String,
}

const FORMAT: u32 = 1;

impl Record {
    /// A record of nothing yet.
    pub(crate) fn new(date: String, machine: Machine, quick: bool, rounds: usize) -> Self {
        Record {
            format: FORMAT,
            date,
            command: String::new(),
            seconds: 0,
            machine,
            versions: Vec::new(),
            quick,
            rounds,
            rows: Vec::new(),
            slow: Vec::new(),
            skipped: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// How many rounds count, in words.
    pub(crate) fn rounds_in_words(&self) -> String {
        if self.rounds == 1 { "1 round".into() } else { format!("{} rounds", self.rounds) }
    }

    /// Makes a place for what `by` will measure of a row.
    pub(crate) fn expect(&mut self, row: &Row, by: &str) -> &mut Measured {
        let at = match self.rows.iter().position(|it| it.id == row.id) {
            Some(at) => at,
            None => {
                self.rows.push(RowRecord {
                    id: row.id.to_owned(),
                    work: row.work.to_string(),
                    title: row.title.to_owned(),
                    unit: row.unit.to_owned(),
                    // Goals are for full sizes; only prices by the piece are the same for less.
                    goal: row.goal.filter(|_| !self.quick || row.is_by_the_piece()),
                    more_is_better: row.more_is_better,
                    results: Vec::new(),
                });
                self.rows.len() - 1
            }
        };
        let results = &mut self.rows[at].results;
        let at = results.iter().position(|it| it.by == by).unwrap_or_else(|| {
            let values = vec![None; self.rounds];
            results.push(Measured { by: by.to_owned(), first: None, values });
            results.len() - 1
        });
        &mut results[at]
    }

    /// Keeps a value of round `round`; round 0 is the one that does not count.
    pub(crate) fn add(&mut self, row: &Row, by: &str, round: usize, value: f64) {
        let measured = self.expect(row, by);
        match round.checked_sub(1) {
            None => measured.first = Some(value),
            Some(nth) => measured.values[nth] = Some(value),
        }
    }

    /// The row with this id, if it was measured.
    pub(crate) fn row(&self, id: &str) -> Option<&RowRecord> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// Why `by` has failed at a work, if it did, the last time.
    pub(crate) fn failure(&self, by: &str, work: &str) -> Option<&Failed> {
        self.failures.iter().rev().find(|failed| failed.by == by && failed.work == work)
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is none that [`save`](crate::output::save) has written; in one line.
    pub(crate) fn load(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
        let record: Record = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match record.format {
            FORMAT => Ok(record),
            format => Err(format!("its format is {format}; valid is {FORMAT}")),
        }
    }
}

impl RowRecord {
    /// What `by` has measured.
    pub(crate) fn by(&self, by: &str) -> Option<&Measured> {
        self.results.iter().find(|it| it.by == by)
    }

    /// Sexton's numbers as shares of a peer's: the ratio of the medians, with the least and the greatest of
    /// the ratios within a round. `None` unless both have values of the same round.
    pub(crate) fn ratio(&self, peer: &Measured) -> Option<Spread> {
        let own = self.by(SEXTON)?;
        let pairs = own.values.iter().zip(&peer.values);
        let ratios = pairs.filter_map(|pair| match pair {
            (&Some(own), &Some(peer)) if peer > 0.0 => Some(own / peer),
            _ => None,
        });
        let Spread { min, max, .. } = Spread::of(ratios.collect())?;
        let (own, peer) = (own.spread()?.median, peer.spread()?.median);
        (peer > 0.0).then(|| Spread { median: own / peer, min, max })
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
    /// Who has measured, without the variant.
    pub(crate) fn peer(&self) -> &str {
        self.by.split_once('@').map_or(self.by.as_str(), |(peer, _)| peer)
    }

    /// The median of the rounds that count, if one of them has a value.
    pub(crate) fn spread(&self) -> Option<Spread> {
        Spread::of(self.values.iter().copied().flatten().collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::catalogue::MACHINE;

    /// A record of two rows, with a peer that failed once, one that failed always, and one that is absent.
    pub(crate) fn sample() -> Record {
        let machine = Machine::this();
        let mut record = Record::new("2026-01-02T03:04:05Z".into(), machine, true, 3);
        let [w1, bump] = ["W1", "limit.bump"].map(|id| Row::find(id).unwrap());
        for (by, values) in [(SEXTON, [9.0, 1.0, 3.0, 2.0]), ("box", [9.0, 8.0, 12.0, 16.0])] {
            values.iter().enumerate().for_each(|(n, &value)| record.add(w1, by, n, value));
        }
        record.add(w1, "box@once", 1, 10.0);
        record.expect(w1, "gc");
        record.add(bump, MACHINE, 2, 1.5);
        record.failures.push(Failed {
            by: "gc".into(),
            work: "W1".into(),
            round: 2,
            reason: "took longer than 120 s".into(),
        });
        let by = "box".to_owned();
        record.slow.push(Slow { by, work: "W1".into(), seconds: 12, rounds: 2 });
        record.skipped.push(Skipped { peer: "go".into(), reason: "go is not installed".into() });
        record
    }

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
    fn a_quick_run_has_no_goals_for_totals() {
        let [w1, wall] = ["W1", "W7.wall"].map(|id| Row::find(id).unwrap());
        for (quick, goal) in [(true, None), (false, wall.goal)] {
            let mut record = Record::new(String::new(), Machine::this(), quick, 1);
            record.expect(w1, SEXTON);
            record.expect(wall, SEXTON);
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
        record.add(w1, "sexton@1", 1, 0.5);
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
    fn a_record_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.json");
        crate::output::save(&sample(), &file).unwrap();
        assert_eq!(Record::load(&file), Ok(sample()));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
        assert_eq!(Record::load(&file).unwrap_err(), "its format is 9; valid is 1");
    }
}
