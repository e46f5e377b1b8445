//! `sexton-bench pauses`: what a program waits for its collector, and how long its sessions take.
//!
//! Each heap is collected in each way by a process of its own. In a round all ways take turns at
//! one heap, and the order moves on by one from round to round, as in `run`. Go and Java have the
//! random graph, by their row `S5`.

use std::path::PathBuf;
use std::time::Duration;

use crate::catalogue::{Measure, PauseShape as Shape, Pauses, Spread, Way, Work};
use crate::grid::Table;
use crate::measure;
use crate::output::{Failure, Progress, print, writable};
use crate::run::rounds::{self, Job, Turn};
use crate::run::{
    Contender, Kind, Measured, Record, RowRecord, Skipped, Timeline, build, child, default_folder,
    figure, interrupt, markdown, one, page,
};
use crate::values;

/// Measures pauses: what sessions wait for the collector, and how long each of them takes.
///
/// A program with one mutator on heaps of several shapes, collected in slices, beside sessions, and
/// by stopping the world. A full run takes 30 minutes a round on two cores, `--quick` three.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Heaps to measure [default: all]
    #[arg(value_name = "HEAP", value_enum, ignore_case = true)]
    shapes: Vec<Shape>,
    /// Ways to collect, with commas between them [default: all]
    #[arg(long, value_name = "LIST", value_enum, ignore_case = true, value_delimiter = ',')]
    ways: Vec<Way>,
    /// Peers to measure at the random graph: none, or names with commas between them
    #[arg(long, value_name = "LIST", default_value = "go,java")]
    peers: String,
    /// Prints a table in Markdown
    #[arg(long)]
    markdown: bool,
    /// Keeps all that was measured in a file, for `table` and `plot`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Sizes divided by 16
    #[arg(long)]
    quick: bool,
    /// Rounds, 1 to 1000
    #[arg(long, allow_negative_numbers = true, value_name = "N",
        value_parser = values::up_to_1000(), default_value = "1")]
    rounds: usize,
}

/// Measures one way to collect one heap, and prints what was measured as JSON.
#[derive(clap::Args)]
pub(crate) struct OneArgs {
    #[arg(value_enum)]
    shape: Shape,
    #[arg(value_enum)]
    way: Way,
    #[arg(long)]
    quick: bool,
}

/// The name of the subcommand that measures one.
pub(crate) const ONE: &str = "measure-pauses";

/// The longest that one process may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let json = args.json.as_deref();
    writable(json)?;
    interrupt::watch();
    let shapes = if args.shapes.is_empty() { Shape::ALL } else { &args.shapes };
    let ways = if args.ways.is_empty() { Way::ALL } else { &args.ways };

    let mut record = Record::new(Kind::Pauses, args.quick, args.rounds);
    let peers = peers(args, shapes, &mut record);
    for &shape in shapes {
        for by in ways.iter().filter(|way| way.takes(shape)).map(|way| way.name()) {
            Measure::ALL.iter().for_each(|&it| _ = place(&mut record, shape, it, by));
        }
    }
    let jobs: Vec<Job<'_>> = shapes.iter().map(|&shape| job(shape, ways, &peers)).collect();
    rounds::measure_all(&mut record, &jobs, args.rounds, json)?;
    let text = if args.markdown {
        markdown(&record, &explained(grid(&record).markdown()))
    } else {
        page(&record, &explained(grid(&record).to_string()))
    };
    rounds::finish(&record, text, json, |by| Way::ALL.iter().any(|way| way.name() == by))
}

/// A heap, the ways to collect it, and the peers at the random graph.
fn job<'a>(shape: Shape, ways: &'a [Way], peers: &'a [Contender]) -> Job<'a> {
    let way = |&way: &'a Way| Turn {
        by: way.name().to_owned(),
        measure: Box::new(move |record, round| measure(record, shape, way, round)),
    };
    let peer = |peer: &'a Contender| Turn {
        by: peer.name.clone(),
        measure: Box::new(move |record, round| measure_peer(record, peer, round)),
    };
    let ways = ways.iter().filter(|way| way.takes(shape)).map(way);
    let peers = peers.iter().filter(|_| shape == Shape::Random).map(peer);
    let title = format!("{}, {}", shape.name(), shape.title());
    Job { title, work: shape.name().to_owned(), objects: None, turns: ways.chain(peers).collect() }
}

/// Measures one, for `run`.
pub(crate) fn run_one(args: &OneArgs) -> Result<(), Failure> {
    one::end_with_the_parent();
    let pauses = measure::pauses::measure(args.shape, args.way, args.quick);
    let pauses = pauses.map_err(Failure::Run)?;
    let line = serde_json::to_string(&pauses).map_err(|error| Failure::Run(error.to_string()))?;
    print(line + "\n")
}

/// Builds the peers that are there, and tells of those that are not.
fn peers(args: &Args, shapes: &[Shape], record: &mut Record) -> Vec<Contender> {
    if args.peers == "none" || !shapes.contains(&Shape::Random) {
        return Vec::new();
    }
    let (progress, mut peers) = (Progress::new(), Vec::new());
    for name in args.peers.split(',') {
        progress.step(format_args!("building {name}"));
        match build(&default_folder(), name) {
            Ok(mut peer) => {
                peer.keep_rows(false, |row| row.work == Work::S5);
                peers.push(peer);
            }
            Err(reason) => record.skipped.push(Skipped { peer: name.to_owned(), reason }),
        }
    }
    peers
}

/// Makes a place in a record.
fn place<'a>(record: &'a mut Record, shape: Shape, measure: Measure, by: &str) -> &'a mut Measured {
    let row = RowRecord {
        id: id(shape, measure),
        objects: None,
        work: shape.name().to_owned(),
        title: format!("{}, {}", shape.title(), measure.heading()),
        unit: measure.unit().to_owned(),
        // A goal is for one way to collect, and not for a row.
        goal: None,
        more_is_better: false,
        results: Vec::new(),
    };
    record.place(row, by)
}

fn id(shape: Shape, measure: Measure) -> String {
    format!("P.{}.{}", shape.name(), measure.name())
}

/// Has a process of its own measure one way to collect one heap.
fn measure(record: &mut Record, shape: Shape, way: Way, round: usize) -> Result<(), String> {
    let args = [ONE, shape.name(), way.name()].into_iter();
    let args = args.chain(record.quick.then_some("--quick"));
    let out = child::run_self(args, PATIENCE)?.out_if_successful()?;
    let Pauses { values, longest } = serde_json::from_str(&out).map_err(|it| it.to_string())?;
    for (measure, value) in values {
        place(record, shape, measure, way.name()).set(round, value);
    }
    if shape == Shape::Random && round == 1 {
        record.timelines.push(Timeline { by: way.name().to_owned(), longest });
    }
    Ok(())
}

/// Has a peer measure the waits at the random graph.
fn measure_peer(record: &mut Record, peer: &Contender, round: usize) -> Result<(), String> {
    let (numbers, trouble) = peer.measure(Work::S5, record.quick);
    for (id, measure) in [("S5.p99", Measure::WaitP99), ("S5.max", Measure::WaitMax)] {
        for number in numbers.iter().filter(|it| it.row.id == id) {
            place(record, Shape::Random, measure, &number.by).set(round, number.value);
        }
    }
    trouble.map_or(Ok(()), Err)
}

/// Says what the columns of a table are.
pub(crate) fn explained(table: String) -> String {
    format!("{EXPLAINED}\n\n{table}")
}

const EXPLAINED: &str = "\
Milliseconds. A wait is a stop, a slice or an assist. Wall is the time of each `mutate`, with one
mutator. Own is the most processor time of the mutator's thread in one of them, without what other
programs took. The last three columns are ratios to the same mode stopping the world, in the same
round. Collections: pauses and background marking, for each object allocated. Processor: that of the
whole process, for the same. Figures are medians, with the least and the greatest of several rounds.
A figure in bold is above its goal.";

/// A line for each heap and way to collect.
pub(crate) fn grid(record: &Record) -> Table {
    let mut table = Table::of_numbers();
    let headings = Measure::ALL.iter().map(|it| it.heading().to_owned());
    table.row(["heap, collected".to_owned()].into_iter().chain(headings));
    for &shape in Shape::ALL {
        let rows: Vec<Option<&RowRecord>> =
            Measure::ALL.iter().map(|&it| record.row(&id(shape, it))).collect();
        let Some(Some(first)) = rows.first() else { continue };
        let heading = format!("{}: {}", shape.name(), size(shape, record.quick));
        table.row([heading].into_iter().chain(Measure::ALL.iter().map(|_| String::new())));
        for by in first.results.iter().map(|it| it.by.as_str()) {
            let way = Way::ALL.iter().copied().find(|way| way.name() == by);
            let title = way.map_or(by, |way| way.title());
            let cells = rows.iter().zip(Measure::ALL).map(|(row, &measure)| {
                row.map_or(String::new(), |row| cell(record, row, measure, by, way))
            });
            table.row([title.to_owned()].into_iter().chain(cells));
        }
    }
    table
}

fn size(shape: Shape, quick: bool) -> String {
    let size = shape.size(quick);
    let counts = [size.nodes, size.extras].into_iter().filter(|&count| count > 0);
    let counts: Vec<String> =
        counts.map(|count| indicatif::HumanCount(count as u64).to_string()).collect();
    format!("{} ({})", shape.title(), counts.join(", "))
}

fn cell(record: &Record, row: &RowRecord, measure: Measure, by: &str, way: Option<Way>) -> String {
    let Some(measured) = row.by(by) else { return String::new() };
    let spread = if measure.is_relative() {
        let stopping = way.and_then(|way| row.by(way.stopping().name()));
        stopping.and_then(|stopping| measured.ratio(stopping))
    } else {
        measured.spread()
    };
    let Some(Spread { median, min, max }) = spread else {
        return record.lack(row, measured).0.to_owned();
    };
    let goal = way.and_then(|way| measure.goal(way)).filter(|_| !record.quick);
    let is_missed = goal.is_some_and(|goal| median > goal);
    let figure = |value| match measure {
        Measure::Cycles => format!("{value:.0}"),
        _ => figure(value),
    };
    let mut text = figure(median);
    if is_missed {
        text = format!("**{text}**");
    }
    if record.rounds == 1 || measure == Measure::Cycles {
        return text;
    }
    format!("{text} ({} to {})", figure(min), figure(max))
}

/// A record of a random graph, collected in two ways.
#[cfg(test)]
pub(crate) fn sample() -> Record {
    let mut record = Record::new(Kind::Pauses, false, 2);
    record.command = "sexton-bench pauses random".into();
    record.partial = false;
    for (way, waits, peaks) in [
        (Way::LocalStop, [900.0, 1100.0], [100.0, 200.0]),
        (Way::Local, [1.0, 4.0], [150.0, 250.0]),
    ] {
        for (measure, values) in [(Measure::WaitMax, waits), (Measure::Peak, peaks)] {
            let values = values.map(Some).to_vec();
            place(&mut record, Shape::Random, measure, way.name()).values = values;
        }
        place(&mut record, Shape::Random, Measure::WaitP99, way.name());
        let longest = vec![(0.5, 0.01), (1.0, waits[0])];
        record.timelines.push(Timeline { by: way.name().into(), longest });
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_ratios_to_stop_the_world_and_goals() {
        let mut record = sample();
        let text = grid(&record).markdown();
        let line = |start: &str| {
            let found = text.lines().find(|line| line.starts_with(start));
            found.unwrap_or_else(|| panic!("{text}")).to_owned()
        };
        assert!(line("| heap, collected |").contains("| wait p99 | wait max | wall p99 |"));
        assert!(line("| Local, stop").contains("| 1,000 (900 to 1,100) |"), "{text}");
        assert!(line("| Local, slices").contains("| **2.50** (1.00 to 4.00) |"), "{text}");
        let ratio = "| **1.33** (1.25 to 1.50) |";
        assert!(line("| Local, slices").ends_with(ratio), "{text}");
        record.quick = true;
        assert!(!grid(&record).markdown().contains("**"), "goals are for full sizes");
    }
}
