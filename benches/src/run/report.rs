//! Records as text and in Markdown; of `run`: a block for each row, and a summary.

use std::fmt::Write;

use super::record::{Kind, Measured, Record, RowRecord};
use crate::catalogue::{Limit, MACHINE, Row, SEXTON, Spread};
use crate::grid::Table;
use crate::values::counted;

/// A record of `run` as text.
pub(super) fn text(record: &Record) -> String {
    let explained = "Medians (least to greatest); the ratio is Sexton : peer, within this run.";
    page(record, &format!("{explained}\n\n{}{}", blocks(record), summary(record)))
}

/// A record as text: what was measured where, its tables, and what has to be said beside them.
pub(crate) fn page(record: &Record, tables: &str) -> String {
    let Record { date, machine, .. } = record;
    let mut text = format!("{machine}\n{date}; {}\n", effort(record));
    text.extend(record.broken_off().map(|line| line + "\n"));
    text += &format!("\n{tables}");
    with_remarks(text, record, "")
}

/// The same in Markdown. No date: the same record gives the same text.
pub(crate) fn markdown(record: &Record, tables: &str) -> String {
    let Record { command, machine, versions, .. } = record;
    let mut text = format!("`{command}`: {}.\n\n- {machine}.\n", effort(record));
    text.extend(record.broken_off().map(|line| format!("- {line}.\n")));
    let versions = versions.iter().map(|it| format!("{} is {}", it.peer, it.version));
    let versions: Vec<String> = versions.collect();
    if !versions.is_empty() {
        text += &format!("- {}.\n", versions.join("; "));
    }
    text += &format!("\n{tables}");
    with_remarks(text, record, "- ")
}

/// How much was measured, in words.
fn effort(record: &Record) -> String {
    let size = match record.kind {
        Kind::Scale => "",
        _ if record.quick => "a sixteenth of the full sizes, ",
        _ => "full sizes, ",
    };
    let first = if record.kind == Kind::Run { " and one not counted" } else { "" };
    let fewer = if record.slow.is_empty() { "" } else { ", fewer of what is slow (see below)" };
    let (rounds, minutes) = (counted(record.rounds, "round"), record.seconds.div_ceil(60));
    format!("{size}{rounds}{first}{fewer}, {minutes} min")
}

fn with_remarks(text: String, record: &Record, bullet: &str) -> String {
    let lines = record.remarks().into_iter().map(|line| format!("{bullet}{line}\n"));
    let lines: String = lines.collect();
    if lines.is_empty() { text } else { text + "\n" + &lines }
}

/// A heading for each row, and below it a line for each contender that measured it.
fn blocks(record: &Record) -> String {
    let mut table = Table::of_numbers();
    let mut headings = Vec::new();
    let mut line = 0;
    for row in &record.rows {
        headings.push((line, format!("{}  {}, {}", row.id, row.title, row.unit)));
        for measured in sorted(row) {
            table.row(cells(record, row, measured));
            line += 1;
        }
        if let Some((name, value)) = limit(record, &row.id) {
            table.row([format!("  {name}"), figure(value), String::new(), String::new()]);
            line += 1;
        }
    }
    let mut text = String::new();
    let mut headings = headings.into_iter().peekable();
    for (n, line) in table.to_string().lines().enumerate() {
        while let Some((_, heading)) = headings.next_if(|(at, _)| *at == n) {
            let _ = writeln!(text, "{heading}");
        }
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Sexton first, then the peers, the best first, and those without a value last.
pub(crate) fn sorted(row: &RowRecord) -> Vec<&Measured> {
    let mut sorted: Vec<&Measured> = row.results.iter().collect();
    let sign = if row.more_is_better { -1.0 } else { 1.0 };
    sorted.sort_by(|a, b| {
        let rank = |it: &Measured| {
            let median = it.spread().map_or(f64::INFINITY, |spread| sign * spread.median);
            (it.peer() != SEXTON, median)
        };
        let (a, b) = (rank(a), rank(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    sorted
}

fn cells(record: &Record, row: &RowRecord, measured: &Measured) -> [String; 4] {
    let name = format!("  {}", measured.by);
    let Some(spread) = measured.spread() else {
        let (word, reason) = record.lack(row, measured);
        return [name, word.into(), String::new(), reason.into()];
    };
    let remark = if measured.by == SEXTON {
        goal(row, spread.median).unwrap_or_default()
    } else {
        row.ratio(measured).map(in_figures).unwrap_or_default()
    };
    let Spread { median, min, max } = spread;
    [name, figure(median), format!("({} to {})", figure(min), figure(max)), remark]
}

fn goal(row: &RowRecord, median: f64) -> Option<String> {
    let goal = row.goal?;
    let met = if median <= goal { "met" } else { "missed" };
    Some(format!("goal {}: {met}", figure(goal)))
}

/// `12.3 (11.9 to 14.0)`.
pub(crate) fn in_figures(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{} ({} to {})", figure(median), figure(min), figure(max))
}

/// What the machine allows for a row, as far as the record knows, and what to call it.
pub(crate) fn limit(record: &Record, id: &str) -> Option<(&'static str, f64)> {
    let measured = |id: &str| Some(record.row(id)?.by(MACHINE)?.spread()?.median);
    match Row::find(id)?.limit? {
        Limit::SameAs(id) => Some((id, measured(id)?)),
        // Bytes of an object by bytes in a nanosecond.
        Limit::Bandwidth(id) => Some((id, 32.0 / measured(id)?)),
        Limit::Fixed(value) => Some(("limit", value)),
    }
}

/// A line for each row: Sexton, its goal, and the best peer.
fn summary(record: &Record) -> String {
    let mut table = Table::of_numbers();
    table.row(["", "Sexton", "goal", "best peer", "", "ratio"].map(String::from));
    for row in &record.rows {
        let Some(own) = row.by(SEXTON).and_then(Measured::spread) else { continue };
        let best = row.best_peer();
        let name = best.as_ref().map_or("", |(peer, _)| peer.by.as_str());
        let median = best.as_ref().map_or(String::new(), |(_, spread)| figure(spread.median));
        let ratio = best.and_then(|(peer, _)| row.ratio(peer)).map(in_figures);
        let goal = row.goal.map(figure).unwrap_or_default();
        let cells = [row.id.clone(), figure(own.median), goal, name.into(), median];
        let [id, own, goal, name, median] = cells;
        table.row([id, own, goal, name, median, ratio.unwrap_or_default()]);
    }
    if table.has_lines() { format!("\n{table}") } else { String::new() }
}

/// Three digits that count.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => indicatif::HumanCount(value.round() as u64).to_string(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::sample;

    #[test]
    fn every_peer_has_its_line_with_ratio_or_failure() {
        let text = text(&sample());
        let line = |start: &str| {
            let found = text.lines().find(|line| line.trim_start().starts_with(start));
            let words: Vec<&str> = found.unwrap_or_else(|| panic!("{text}")).split(' ').collect();
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("sexton "), "sexton 2.00 (1.00 to 3.00) goal 3.00: met");
        assert_eq!(line("box "), "box 12.0 (8.00 to 16.0) 0.167 (0.125 to 0.250)");
        assert_eq!(line("gc "), "gc failed took longer than 120 s");
        assert_eq!(line("limit.bump "), "limit.bump 1.50");
        let slow = "fewer rounds: box at W1: 2 of 3, because a round takes 12 s";
        assert_eq!(line("fewer rounds: "), slow);
        assert_eq!(line("skipped: "), "skipped: go: go is not installed");
        assert_eq!(line("failed: "), "failed: gc at W1 in 1 of 4 rounds: took longer than 120 s");
    }

    #[test]
    fn figures_have_three_digits_that_count() {
        for (value, text) in [
            (0.0154, "0.0154"),
            (0.5, "0.500"),
            (1.0, "1.00"),
            (12.34, "12.3"),
            (640.4, "640"),
            (23_129.4, "23,129"),
            (0.0, "0.00"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
