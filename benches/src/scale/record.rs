//! What `scale` has found, as it is kept in a file: every round's value of every row, size and number of threads.

use serde::{Deserialize, Serialize};
use sexton_bench::Spread;

use crate::catalogue::{ROWS, Row};
use crate::run::Machine;

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScaleRecord {
    /// [`KIND`]: no record of `run`.
    pub(crate) kind: String,
    /// When it began.
    pub(crate) date: String,
    /// How to measure the same again.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) cells: Vec<Cell>,
    /// What did not fit into memory, in lines.
    pub(crate) skipped: Vec<String>,
    /// What failed, in lines.
    pub(crate) failed: Vec<String>,
}

/// A row at one size, with one number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) row: String,
    pub(crate) objects: usize,
    pub(crate) threads: usize,
    /// A value for each round; `None` where it failed.
    pub(crate) values: Vec<Option<f64>>,
}

/// What the field `kind` says.
pub(crate) const KIND: &str = "scale";

impl ScaleRecord {
    /// A cell, made if it is not there yet.
    pub(crate) fn cell(&mut self, row: &str, objects: usize, threads: usize) -> &mut Cell {
        let at = self
            .cells
            .iter()
            .position(|it| (it.row.as_str(), it.objects, it.threads) == (row, objects, threads))
            .unwrap_or_else(|| {
                let values = vec![None; self.rounds];
                self.cells.push(Cell { row: row.to_owned(), objects, threads, values });
                self.cells.len() - 1
            });
        &mut self.cells[at]
    }

    fn find(&self, row: &str, objects: usize, threads: usize) -> Option<&Cell> {
        let key = (row, objects, threads);
        self.cells.iter().find(|it| (it.row.as_str(), it.objects, it.threads) == key)
    }

    /// The table: a line for each row and size, a column for each number of threads. The first line names the columns.
    pub(crate) fn grid(&self) -> Vec<Vec<String>> {
        let threads = distinct(self.cells.iter().map(|it| it.threads));
        let sizes = distinct(self.cells.iter().map(|it| it.objects));
        let mut names = vec!["".to_owned(), "objects".to_owned()];
        names.extend(threads.iter().map(|&n| in_threads(n)));
        names.extend(threads.iter().skip(1).map(|n| format!("{n} : {}", threads[0])));
        names.push("growth".to_owned());
        let mut grid = vec![names];
        let mut rows: Vec<&str> = self.cells.iter().map(|it| it.row.as_str()).collect();
        rows.dedup();
        let rows = distinct(rows.into_iter().filter_map(Row::position));
        for row in rows.into_iter().map(|nth| ROWS[nth].id) {
            for &objects in &sizes {
                grid.push(self.line(row, objects, &sizes, &threads));
            }
        }
        grid
    }

    fn line(&self, row: &str, objects: usize, sizes: &[usize], threads: &[usize]) -> Vec<String> {
        let cell = |objects, threads| self.find(row, objects, threads);
        // Its name once, and not in every line.
        let name = if objects == sizes[0] { row } else { "" };
        let mut line = vec![name.to_owned(), indicatif::HumanCount(objects as u64).to_string()];
        line.extend(threads.iter().map(|&n| match cell(objects, n) {
            None => String::new(),
            Some(cell) => cell.spread().map_or("failed".to_owned(), in_figures),
        }));
        let ratio = |a: Option<&Cell>, b: Option<&Cell>| {
            a.zip(b).and_then(|(a, b)| a.ratio(b)).map(in_figures).unwrap_or_default()
        };
        let first = threads[0];
        line.extend(threads[1..].iter().map(|&n| ratio(cell(objects, n), cell(objects, first))));
        line.push(ratio(cell(objects, first), cell(sizes[0], first)));
        line
    }
}

impl Cell {
    fn spread(&self) -> Option<Spread> {
        Spread::of(self.values.iter().copied().flatten().collect())
    }

    /// The ratio of the medians, with the least and the greatest of the ratios within a round.
    fn ratio(&self, other: &Cell) -> Option<Spread> {
        let pairs = self.values.iter().zip(&other.values);
        let ratios = pairs.filter_map(|pair| match pair {
            (&Some(own), &Some(other)) if other > 0.0 => Some(own / other),
            _ => None,
        });
        let Spread { min, max, .. } = Spread::of(ratios.collect())?;
        let (own, other) = (self.spread()?.median, other.spread()?.median);
        Some(Spread { median: own / other, min, max })
    }
}

fn distinct(values: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut values: Vec<usize> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn in_threads(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

fn in_figures(spread: Spread) -> String {
    format!("{} {}", crate::run::figure(spread.median), crate::run::range(spread))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two sizes and two numbers of threads, of which the larger was not measured on one.
    pub(crate) fn sample() -> ScaleRecord {
        let mut record = ScaleRecord {
            kind: KIND.into(),
            date: "2026-01-02T03:04:05Z".into(),
            command: "sexton-bench scale W2".into(),
            machine: Machine::this(),
            rounds: 2,
            cells: Vec::new(),
            skipped: vec!["W2 at 9,000,000 objects".into()],
            failed: vec!["W2 at 8,000 objects".into()],
        };
        for (objects, threads, values) in [
            (1000, 1, [Some(2.0), Some(4.0)]),
            (1000, 2, [Some(1.0), Some(1.0)]),
            (8000, 1, [Some(6.0), Some(6.0)]),
            (8000, 2, [None, None]),
        ] {
            record.cell("W2.50", objects, threads).values = values.into();
        }
        record
    }

    #[test]
    fn the_table_has_ratios_of_threads_and_of_sizes() {
        let lines: Vec<String> = sample().grid().iter().map(|line| line.join("|")).collect();
        assert_eq!(lines[0], "|objects|1 thread|2 threads|2 : 1|growth");
        let own = "3.00 (2.00 to 4.00)|1.00 (1.00 to 1.00)|0.333 (0.250 to 0.500)";
        assert_eq!(lines[1], format!("W2.50|1,000|{own}|1.00 (1.00 to 1.00)"));
        assert_eq!(lines[2], "|8,000|6.00 (6.00 to 6.00)|failed||2.00 (1.50 to 3.00)");
    }
}
