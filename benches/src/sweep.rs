//! `sexton-bench sweep`: what a collection of a heap of a given shape costs, or of heaps of many
//! shapes.
//!
//! One heap is filled to the shape, collected and emptied, round after round, on memory that is
//! warm after the first one, which is not counted. Where objects carry cleanups, every other round
//! leaves them out: the difference of the two sweeps is what queueing the cleanups cost.
//!
//! Several shapes give a curve: a line for each combination of what was listed, with what an object
//! and a span cost. Where that stays the same while they become more, the cost of a collection
//! grows as they do; a line below the curve says so for each shape of which several sizes were
//! measured.

use std::time::Duration;

use crate::catalogue::Spread;
use crate::heaps::{OBJECT_BYTES, Round, Shape, ShapedHeap, per};
use indicatif::HumanCount;
use sexton::CleanupPool;

use crate::grid::Table;
use crate::output::{Failure, Progress, print};
use crate::values::{self, counted};

/// Measures mark and sweep of a heap of 32-byte objects, or of several.
///
/// Every list gives a line for each of its values, combined with those of the others. One thread
/// marks and sweeps.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Objects in the heap, 1 to 100,000,000; `4M` and `500k` are understood. A list has commas
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = values::objects,
        value_delimiter = ',', default_value = "4M")]
    objects: Vec<usize>,
    /// The share of them that lives, in percent, 0 to 100, or a list
    #[arg(long, allow_negative_numbers = true, value_name = "PERCENT",
        value_parser = values::percent, value_delimiter = ',', default_value = "50")]
    live: Vec<f64>,
    /// The share of them that carries a cleanup, in percent, 0 to 100, or a list
    #[arg(long, allow_negative_numbers = true, value_name = "PERCENT",
        value_parser = values::percent, value_delimiter = ',', default_value = "0")]
    cleanups: Vec<f64>,
    /// Rounds to measure, 1 to 1000
    #[arg(long, allow_negative_numbers = true, value_name = "N",
        value_parser = values::up_to_1000(), default_value = "7")]
    rounds: usize,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let progress = Progress::new();
    let measure = |shape| measure(shape, args.rounds, &progress);
    let measured: Result<Vec<_>, Failure> = shapes(args).into_iter().map(measure).collect();
    drop(progress);
    match measured?.as_slice() {
        [one] => print(table(one)),
        many => print(curve(many, args.rounds)),
    }
}

/// Every combination of what was listed; the number of objects changes fastest.
fn shapes(args: &Args) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for &cleanups in &args.cleanups {
        for &live in &args.live {
            let shape = |&objects| Shape { cleanups, ..Shape::plain(objects, live) };
            shapes.extend(args.objects.iter().map(shape));
        }
    }
    shapes
}

/// One round of a shape, and if it has cleanups, one of the same shape without them.
type Pair = (Round, Option<Round>);

/// All rounds of a shape; at least one.
struct Measured {
    shape: Shape,
    rounds: Vec<Pair>,
}

fn measure(shape: Shape, rounds: usize, progress: &Progress) -> Result<Measured, Failure> {
    let mut heap = ShapedHeap::new(&CleanupPool::builder().build());
    let mut round = |shape: Shape| {
        let size = counted(shape.objects, "object");
        let far = |made| format!("filling: {} of {size}", HumanCount(made as u64));
        heap.round(shape, |made| progress.far(|| far(made))).map_err(Failure::Run)
    };
    let plain = Shape { cleanups: 0.0, ..shape };
    round(shape)?;
    let mut measured = Vec::new();
    for done in 1..=rounds {
        let with = round(shape)?;
        let without = (shape.cleanups > 0.0).then(|| round(plain)).transpose()?;
        measured.push((with, without));
        let size = counted(shape.objects, "object");
        progress.far(|| format!("{size}, {} % live: round {done} of {rounds}", share(shape.live)));
    }
    Ok(Measured { shape, rounds: measured })
}

/// What a round shows, if it does: its label, its column in a curve if it has one, and how it is
/// written.
type Figure = (&'static str, &'static str, fn(f64) -> String, fn(&Measured) -> Option<Spread>);

#[rustfmt::skip]
const FIGURES: [Figure; 11] = [
    ("mark, ns per live object", "mark ns/live", nanos, |it| it.spread(mark)),
    ("mark, live objects/s", "", count, |it| it.rates(mark)),
    ("sweep, ns per object", "sweep ns/object", nanos, |it| it.spread(sweep)),
    ("sweep, ns per span", "sweep ns/span", nanos,
        |it| it.spread(|(it, _)| each(it.report.sweep_time, it.report.swept_spans))),
    ("sweep, objects/s", "sweep objects/s", count, |it| it.rates(sweep)),
    ("sweep, bytes/s", "sweep bytes/s", count,
        |it| it.rates(|it| Some(sweep(it)? / OBJECT_BYTES as f64))),
    ("whole, ns per object", "whole ns/object", nanos,
        |it| it.spread(|(it, _)| each(it.collection, it.objects()))),
    ("whole, ms", "whole ms", nanos,
        |it| it.spread(|(it, _)| Some(it.collection.as_secs_f64() * 1e3))),
    ("register, ns per cleanup", "", nanos,
        |it| it.spread(|(it, _)| each(it.registered.time, it.registered.count))),
    ("queue, ns per cleanup of the dead", "", nanos, |it| it.spread(queue)),
    ("drain after the sweep, ns per cleanup", "", nanos,
        |it| it.spread(|(it, _)| each(it.until_run - it.collection, it.report.queued_cleanups))),
];

fn mark((Round { report, .. }, _): &Pair) -> Option<f64> {
    each(report.mark_time, report.live_objects)
}

fn sweep((it, _): &Pair) -> Option<f64> {
    Some(it.sweep())
}

/// What queueing one cleanup added to the sweep.
fn queue((with, without): &Pair) -> Option<f64> {
    let added = sweep_nanos(with) - sweep_nanos(without.as_ref()?);
    let queued = with.report.queued_cleanups;
    (queued > 0).then(|| added / queued as f64)
}

fn sweep_nanos(round: &Round) -> f64 {
    round.report.sweep_time.as_nanos() as f64
}

fn each(time: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| per(time, count))
}

/// A share in percent.
fn share(part: f64) -> String {
    format!("{:.1}", 100.0 * part)
}

fn nanos(value: f64) -> String {
    if value.abs() < 1.0 { format!("{value:.4}") } else { format!("{value:.2}") }
}

fn count(value: f64) -> String {
    HumanCount(value as u64).to_string()
}

impl Measured {
    fn last(&self) -> &Round {
        &self.rounds.last().expect("one round at least").0
    }

    fn spread(&self, of: impl Fn(&Pair) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(of).collect())
    }

    /// How many a second, from the nanoseconds that each takes.
    fn rates(&self, of: impl Fn(&Pair) -> Option<f64>) -> Option<Spread> {
        self.spread(of).map(|it| it.inverse(|nanos| 1e9 / nanos.max(1e-9)))
    }
}

/// One shape: a line for each figure.
fn table(measured: &Measured) -> String {
    let last @ Round { report, registered, .. } = measured.last();
    let share = |part: u64| share(part as f64 / last.objects().max(1) as f64);
    let head = format!(
        "{} of {OBJECT_BYTES} bytes in {}: {} live ({} %), {} with a cleanup ({} %); {}\n\n",
        counted(last.objects(), "object"),
        counted(report.swept_spans, "span"),
        HumanCount(report.live_objects),
        share(report.live_objects),
        HumanCount(registered.count),
        share(registered.count),
        counted(measured.rounds.len(), "round"),
    );
    let mut table = Table::of_numbers();
    table.row(["", "median", "min", "max"].map(String::from));
    for (label, _, write, of) in FIGURES {
        if let Some(Spread { median, min, max }) = of(measured) {
            table.row([label.to_owned(), write(median), write(min), write(max)]);
        }
    }
    head + &table.to_string()
}

/// Many shapes: the medians of each in a line.
fn curve(measured: &[Measured], rounds: usize) -> String {
    let figures = || FIGURES.into_iter().filter(|(_, column, ..)| !column.is_empty());
    let mut table = Table::of_numbers();
    let names = ["objects", "spans", "live %", "cleanups %"].into_iter();
    table.row(names.chain(figures().map(|it| it.1)).map(String::from));
    for it in measured {
        let Shape { objects, live, cleanups } = it.shape;
        let sizes = [objects as u64, it.last().report.swept_spans];
        let shape = sizes.map(|it| HumanCount(it).to_string()).into_iter();
        let shape = shape.chain([live, cleanups].map(share));
        table.row(
            shape
                .chain(figures().map(|(_, _, write, of)| {
                    of(it).map(|it| write(it.median)).unwrap_or_default()
                })),
        );
    }
    let rounds = counted(rounds, "round");
    let growths = growths(measured);
    let between = if growths.is_empty() { "" } else { "\n" };
    format!("medians of {rounds}; objects of {OBJECT_BYTES} bytes\n\n{table}{between}{growths}")
}

/// For each shape of which several sizes were measured: how many times the spans and how many times
/// the sweep the largest has of the smallest.
fn growths(measured: &[Measured]) -> String {
    let same = |a: &Measured, b: &Measured| {
        let objects = a.shape.objects;
        a.shape == Shape { objects, ..b.shape }
    };
    let growth = |measured: &[Measured]| {
        let spans = |it: &&Measured| it.last().report.swept_spans;
        let (least, most) =
            (measured.iter().min_by_key(spans)?, measured.iter().max_by_key(spans)?);
        let sweep = |it: &Measured| it.spread(|it| Some(sweep_nanos(&it.0))).map(|it| it.median);
        (0 < spans(&least) && spans(&least) < spans(&most)).then_some(())?;
        Some(format!(
            "growth, {} % live, {} % with a cleanup: {:.2} times the spans, {:.2} times the \
             sweep\n",
            share(most.shape.live),
            share(most.shape.cleanups),
            spans(&most) as f64 / spans(&least) as f64,
            sweep(most)? / sweep(least)?.max(1e-9),
        ))
    };
    measured.chunk_by(same).filter_map(growth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_combined_and_objects_change_fastest() {
        let args =
            Args { objects: vec![1, 2], live: vec![0.0, 0.5], cleanups: vec![0.25], rounds: 1 };
        let shape = |objects, live| Shape { cleanups: 0.25, ..Shape::plain(objects, live) };
        let expected = [shape(1, 0.0), shape(2, 0.0), shape(1, 0.5), shape(2, 0.5)];
        assert_eq!(shapes(&args), expected);
    }

    #[test]
    fn growth_is_told_of_shapes_with_several_sizes() {
        let measured = |(objects, live, swept_spans, nanos)| {
            let sweep_time = Duration::from_nanos(nanos);
            let mut report = sexton::GcReport::default();
            (report.swept_spans, report.sweep_time) = (swept_spans, sweep_time);
            let rounds = vec![(Round { report, ..Round::default() }, None)];
            Measured { shape: Shape::plain(objects, live), rounds }
        };
        let all = [(1000, 0.5, 2, 10), (4000, 0.5, 8, 50), (1000, 0.9, 2, 10)].map(measured);
        let line = "growth, 50.0 % live, 0.0 % with a cleanup: 4.00 times the spans, 5.00 \
                    times the sweep\n";
        assert_eq!(growths(&all), line);
    }
}
