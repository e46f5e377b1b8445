//! `sexton-bench table FILE`: what `run --json` or `scale --json` has kept, as Markdown for the
//! documents, so that no figure is copied by hand. No date: the same record gives the same text.

use std::path::PathBuf;

use crate::catalogue::{SEXTON, Work};
use crate::grid::Table;
use crate::output::{Failure, print};
use crate::run::{Kind, Measured, Record, RowRecord, figure, in_figures, limit, markdown, sorted};
use crate::{pauses, scale};

/// Prints a record of `run`, `scale` or `pauses`, kept by `--json`, as Markdown.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The record
    file: PathBuf,
}

/// Reads and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let record = Record::load(&args.file).map_err(|why| {
        Failure::Usage(format!(
            "cannot make a table of {:?}: {why}; valid is a file that `sexton-bench run --json \
             FILE` or `sexton-bench scale --json FILE` has written",
            args.file
        ))
    })?;
    print(text(&record))
}

fn text(record: &Record) -> String {
    markdown(
        record,
        &match record.kind {
            Kind::Run => of_run(record),
            Kind::Scale => scale::explained(scale::grid(record).markdown()),
            Kind::Pauses => pauses::explained(pauses::grid(record).markdown()),
        },
    )
}

/// A table of Sexton's rows, one of all peers, and one of the limits.
fn of_run(record: &Record) -> String {
    const PEERS: &str =
        "All peers, the best first: the median, and behind it the ratio Sexton : peer.\n\n";
    const LIMITS: &str = "The limits of the machine.\n\n";
    let tables = [("", own(record)), (PEERS, peers(record)), (LIMITS, limits(record))];
    let tables = tables.iter().filter(|(_, table)| table.has_lines());
    let tables: Vec<String> =
        tables.map(|(heading, table)| format!("{heading}{}", table.markdown())).collect();
    tables.join("\n")
}

/// The rows of works, but for the machine's.
fn rows(record: &Record) -> impl Iterator<Item = &RowRecord> {
    record.rows.iter().filter(|row| row.work != Work::Limits.name())
}

/// A line for each row that Sexton has: its median, goal and limit, and the best peer.
fn own(record: &Record) -> Table {
    let mut table = Table::of_text();
    let names = ["row", "what", "unit", "Sexton", "goal", "met", "limit", "best peer", "ratio"];
    table.row(names.map(String::from));
    for row in rows(record) {
        let Some(spread) = row.by(SEXTON).and_then(Measured::spread) else { continue };
        let limit = limit(record, &row.id).map(|(_, value)| figure(value));
        let best = row.best_peer();
        let ratio = best.and_then(|(peer, _)| row.ratio(peer)).map(in_figures);
        let best = best.map(|(peer, spread)| format!("{} {}", peer.by, figure(spread.median)));
        let met = row.goal.map(|goal| if spread.median <= goal { "yes" } else { "**no**" });
        table.row([
            row.id.clone(),
            row.title.clone(),
            row.unit.clone(),
            in_figures(spread),
            row.goal.map(figure).unwrap_or_default(),
            met.unwrap_or_default().to_owned(),
            limit.unwrap_or_default(),
            best.unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]);
    }
    table
}

/// A line for each row that peers have, with all of them: a column for each would be two dozen.
fn peers(record: &Record) -> Table {
    let mut table = Table::of_text();
    table.row(["row", "Sexton", "peers"].map(String::from));
    for row in rows(record) {
        let cell = |it: &Measured| match (it.spread(), row.ratio(it)) {
            (None, _) => format!("{} {}", it.by, record.lack(row, it).0),
            (Some(spread), None) => format!("{} {}", it.by, figure(spread.median)),
            (Some(spread), Some(ratio)) => {
                format!("{} {} ({})", it.by, figure(spread.median), figure(ratio.median))
            }
        };
        let others = sorted(row).into_iter().filter(|it| it.by != SEXTON);
        let cells: Vec<String> = others.map(cell).collect();
        if cells.is_empty() {
            continue;
        }
        let own = row.by(SEXTON).and_then(Measured::spread);
        let own = own.map(|it| figure(it.median)).unwrap_or_default();
        table.row([row.id.clone(), own, cells.join("; ")]);
    }
    table
}

fn limits(record: &Record) -> Table {
    let mut table = Table::of_text();
    table.row(["row", "what", "unit", "median"].map(String::from));
    for row in record.rows.iter().filter(|row| row.work == Work::Limits.name()) {
        if let Some(spread) = row.results.first().and_then(Measured::spread) {
            table.row([row.id.clone(), row.title.clone(), row.unit.clone(), in_figures(spread)]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::sample;
    use crate::scale::sample as scale_sample;

    #[test]
    fn a_run_has_its_goals_its_peers_and_its_limits() {
        let text = super::text(&sample());
        for line in [
            "| W1 | alloc of 32 bytes, all garbage, collections included | ns per object \
             | 2.00 (1.00 to 3.00) | 3.00 | yes | 1.50 | box@once 10.0 | 0.200 (0.100 to 0.100) |",
            "| W1 | 2.00 | box@once 10.0 (0.200); box 12.0 (0.167); gc failed |",
            "| limit.bump | bump allocation of 32 bytes, reused | ns per object | 1.50 \
             (1.50 to 1.50) |",
            "- fewer rounds: box at W1: 2 of 3, because a round takes 12 s",
            "- skipped: go: go is not installed",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(!text.contains("2026-01-02"), "{text}");
    }

    #[test]
    fn a_goal_that_is_missed_stands_out() {
        let mut record = sample();
        record.rows[0].goal = Some(1.9);
        assert!(of_run(&record).contains("| 1.90 | **no** |"));
    }

    #[test]
    fn a_scale_has_a_line_for_every_size() {
        let text = super::text(&scale_sample());
        assert!(text.contains("\n| W2.50 | 1,000 | 3.00 (2.00 to 4.00) | 1.00 "), "{text}");
        assert!(text.contains("\n- skipped: W2 at 9,000,000 objects: it does not fit\n"), "{text}");
        assert!(text.contains("`sexton-bench scale W2`"), "{text}");
    }
}
