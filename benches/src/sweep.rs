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

use std::fmt;
use std::time::{Duration, Instant};

use crate::catalogue::{Spread, per};
use crate::heaps::{OBJECT_BYTES, Registered, Shape, ShapedHeap};
use indicatif::HumanCount;
use sexton::{CleanupPool, GcReport};

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
    let shapes = shapes(args);
    let progress = Progress::new();
    if let &[shape] = shapes.as_slice() {
        let measured = measure(shape, args.rounds, &progress)?;
        return print(measured.table());
    }
    let mut curve = Curve::new(args.rounds);
    for shape in shapes {
        curve.add(shape, &measure(shape, args.rounds, &progress)?);
    }
    print(curve)
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

/// The medians of many shapes, a line each.
struct Curve {
    rounds: usize,
    table: Table,
    points: Vec<Point>,
}

/// What one shape has shown.
struct Point {
    shape: Shape,
    spans: u64,
    /// Nanoseconds of the whole sweep.
    sweep: f64,
}

impl Curve {
    fn new(rounds: usize) -> Self {
        let mut table = Table::of_numbers();
        let columns = [
            "objects",
            "spans",
            "live %",
            "cleanups %",
            "mark ns/live",
            "sweep ns/object",
            "sweep ns/span",
            "sweep objects/s",
            "sweep bytes/s",
            "whole ns/object",
            "whole ms",
        ];
        table.row(columns.map(String::from));
        Curve { rounds, table, points: Vec::new() }
    }

    fn add(&mut self, shape: Shape, measured: &Measured) {
        let of = |value: &dyn Fn(&Round) -> f64| measured.spread(value).map_or(0.0, |it| it.median);
        let objects = shape.objects as u64;
        let sweep = of(&|round| per(round.report.sweep_time, objects));
        let rate = 1e9 / sweep.max(1e-9);
        let whole = of(&|round| per(round.collection, objects));
        let spans = measured.rounds.last().map_or(0, |round| round.report.swept_spans);
        self.points.push(Point { shape, spans, sweep: sweep * objects as f64 });
        self.table.row([
            HumanCount(objects).to_string(),
            HumanCount(spans).to_string(),
            share(shape.live),
            share(shape.cleanups),
            nanos(of(&|round| per(round.report.mark_time, round.report.live_objects))),
            nanos(sweep),
            nanos(of(&|round| per(round.report.sweep_time, round.report.swept_spans))),
            count(rate),
            count(rate * OBJECT_BYTES as f64),
            nanos(whole),
            nanos(whole * objects as f64 / 1e6),
        ]);
    }
}

impl Curve {
    /// For each shape of which several sizes were measured: how many times the spans and how many
    /// times the sweep the largest has of the smallest.
    fn growths(&self) -> Vec<String> {
        let same = |a: &Point, b: &Point| {
            let objects = a.shape.objects;
            a.shape == Shape { objects, ..b.shape }
        };
        let groups = self.points.chunk_by(same);
        let growth = |points: &[Point]| {
            let least = points.iter().min_by_key(|it| it.spans)?;
            let most = points.iter().max_by_key(|it| it.spans)?;
            let shape = most.shape;
            (0 < least.spans && least.spans < most.spans).then(|| {
                format!(
                    "growth, {} % live, {} % with a cleanup: {:.2} times the spans, {:.2} \
                     times the sweep",
                    share(shape.live),
                    share(shape.cleanups),
                    most.spans as f64 / least.spans as f64,
                    most.sweep / least.sweep.max(1e-9),
                )
            })
        };
        groups.filter_map(growth).collect()
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = counted(self.rounds, "round");
        writeln!(f, "medians of {rounds}; objects of {OBJECT_BYTES} bytes\n")?;
        self.table.fmt(f)?;
        let growths = self.growths();
        if !growths.is_empty() {
            writeln!(f)?;
        }
        growths.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A share in percent.
fn share(part: f64) -> String {
    format!("{:.1}", 100.0 * part)
}

/// One round of a shape.
#[derive(Clone, Copy)]
struct Round {
    report: GcReport,
    registered: Registered,
    /// The whole collection, as its caller sees it.
    collection: Duration,
    /// From the end of the collection to the end of the last cleanup.
    drain: Duration,
}

/// All rounds of a shape.
#[derive(Default)]
struct Measured {
    rounds: Vec<Round>,
    /// The same shape without cleanups, if it has any: one for each of `rounds`.
    without_cleanups: Vec<Round>,
}

fn measure(shape: Shape, rounds: usize, progress: &Progress) -> Result<Measured, Failure> {
    let pool = CleanupPool::builder().build();
    let mut heap = ShapedHeap::new(&pool);
    let mut measured = Measured::default();
    let plain = Shape { cleanups: 0.0, ..shape };
    round(&mut heap, shape, progress)?;
    for _ in 0..rounds {
        measured.rounds.push(round(&mut heap, shape, progress)?);
        if shape.cleanups > 0.0 {
            measured.without_cleanups.push(round(&mut heap, plain, progress)?);
        }
        let (done, size) = (measured.rounds.len(), counted(shape.objects, "object"));
        progress.far(|| format!("{size}, {} % live: round {done} of {rounds}", share(shape.live)));
    }
    Ok(measured)
}

/// Longer than any cleanups take that will end.
const PATIENCE: Duration = Duration::from_secs(600);

fn round(heap: &mut ShapedHeap, shape: Shape, progress: &Progress) -> Result<Round, Failure> {
    let fail =
        |error: &dyn std::error::Error| Failure::Run(format!("cannot build the heap: {error}"));
    let size = shape.objects as u64;
    let far = |made| format!("filling: {} of {}", HumanCount(made), counted(size, "object"));
    let registered =
        heap.fill(shape, |made| progress.far(|| far(made as u64))).map_err(|error| fail(&error))?;
    let start = Instant::now();
    let report = heap.collect();
    let collection = start.elapsed();
    heap.wait(PATIENCE).map_err(|error| fail(&error))?;
    let drain = start.elapsed() - collection;
    // The cleanups of what lived run before the next round begins to measure.
    heap.clear();
    heap.wait(PATIENCE).map_err(|error| fail(&error))?;
    Ok(Round { report, registered, collection, drain })
}

impl Measured {
    fn spread(&self, of: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(of).collect())
    }

    /// What queueing one cleanup added to the sweep, each round against the one after it.
    fn queueing(&self) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&self.without_cleanups);
        let nanos = |round: &Round| round.report.sweep_time.as_nanos() as f64;
        let cost = pairs
            .filter(|(with, _)| with.report.queued_cleanups > 0)
            .map(|(with, none)| (nanos(with) - nanos(none)) / with.report.queued_cleanups as f64);
        Spread::of(cost.collect())
    }

    fn table(&self) -> String {
        let Some(Round { report, registered, .. }) = self.rounds.last() else {
            return String::new();
        };
        let objects = report.live_objects + report.swept_objects;
        let share = |part: u64| 100.0 * part as f64 / objects.max(1) as f64;
        let head = format!(
            "{} of {OBJECT_BYTES} bytes in {}: {} live ({:.1} %), {} with a cleanup ({:.1} %); \
             {}\n\n",
            counted(objects, "object"),
            counted(report.swept_spans, "span"),
            HumanCount(report.live_objects),
            share(report.live_objects),
            HumanCount(registered.count),
            share(registered.count),
            counted(self.rounds.len(), "round"),
        );
        let mut table = Table::of_numbers();
        table.row(["", "median", "min", "max"].map(String::from));
        let mut row = |label: &str, spread: Option<Spread>, scale: fn(f64) -> String| {
            if let Some(Spread { median, min, max }) = spread {
                table.row([label.to_owned(), scale(median), scale(min), scale(max)]);
            }
        };

        let mark = self.spread(|r| per(r.report.mark_time, r.report.live_objects));
        let sweep = self.spread(|r| per(r.report.sweep_time, objects));
        let rate = |spread: Option<Spread>| spread.map(|s| s.inverse(|ns| 1e9 / ns.max(1e-9)));
        if report.live_objects > 0 {
            row("mark, ns per live object", mark, nanos);
            row("mark, live objects/s", rate(mark), count);
        }
        row("sweep, ns per object", sweep, nanos);
        let spans = self.spread(|r| per(r.report.sweep_time, r.report.swept_spans));
        row("sweep, ns per span", spans, nanos);
        row("sweep, objects/s", rate(sweep), count);
        let bytes = |s: Spread| s.inverse(|ns| 1e9 / ns.max(1e-9) * OBJECT_BYTES as f64);
        row("sweep, bytes/s", sweep.map(bytes), count);
        if registered.count > 0 {
            let register = self.spread(|r| per(r.registered.time, r.registered.count));
            row("register, ns per cleanup", register, nanos);
        }
        if report.queued_cleanups > 0 {
            row("queue, ns per cleanup of the dead", self.queueing(), nanos);
            let drain = self.spread(|r| per(r.drain, r.report.queued_cleanups));
            row("drain after the sweep, ns per cleanup", drain, nanos);
        }
        head + &table.to_string()
    }
}

fn nanos(value: f64) -> String {
    if value.abs() < 1.0 { format!("{value:.4}") } else { format!("{value:.2}") }
}

fn count(value: f64) -> String {
    HumanCount(value as u64).to_string()
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
        let mut curve = Curve::new(1);
        for (objects, live, spans, sweep) in
            [(1000, 0.5, 2, 10.0), (4000, 0.5, 8, 50.0), (1000, 0.9, 2, 10.0)]
        {
            curve.points.push(Point { shape: Shape::plain(objects, live), spans, sweep });
        }
        let line = "growth, 50.0 % live, 0.0 % with a cleanup: 4.00 times the spans, 5.00 \
                    times the sweep";
        assert_eq!(curve.growths(), [line]);
    }
}
