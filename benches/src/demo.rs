//! `sexton-bench demo`: the main thing in a few seconds, for a first look.
//!
//! 1. A program runs on a heap for a second: objects in cycles come and go, and each pair has a
//!    cleanup. The pacer decides when to collect, a worker thread runs the cleanups.
//! 2. Each part of a collection is timed alone, by the same functions as in `run`.
//! 3. The commands that show more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::HumanCount;
use sexton::{Gc, GcCell, GcRefCell, Heap, HeapStats, Mutation, Trace, WaitError};

use crate::catalogue::Row;
use crate::grid::Table;
use crate::heaps::SEED;
use crate::measure::scale::median;
use crate::output::{Failure, Progress, print};
use crate::run::{Machine, figure};
use crate::values::counted;

/// Shows what the heap does and what that costs, within seconds: the default.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the program, measures the parts, and prints both.
pub(crate) fn run(_: &Args) -> Result<(), Failure> {
    let progress = Progress::new();
    progress.far(|| "a program on the heap".into());
    let program = program().map_err(|error| Failure::Run(format!("cleanups: {error}")))?;
    progress.far(|| "the parts of a collection, one by one".into());
    let parts = parts().map_err(Failure::Run)?;
    drop(progress);
    print(format_args!("{}\n\n{program}\n{parts}\n{NEXT}", Machine::this()))
}

const NEXT: &str = "\
Next

  cargo run --release -- tour PATH        a directory tree in a heap; cleanups close its open files
  cargo run --release -- sweep --live 10 --cleanups 20     mark and sweep, heaps of your own shape
  cargo run --release -- scale            what an object costs in heaps of growing size; 5 minutes
  cargo run --release --features peers -- run --quick      the same on the heaps of other languages
                                          and crates; needs a C compiler, 5 minutes
  cargo run --release -- --help           all commands
";

/// A line of the demo's tables: a label, a figure, its unit and a remark.
type Line<'a> = (&'a str, String, &'a str, String);

fn table<'a>(lines: impl IntoIterator<Item = Line<'a>>) -> Table {
    let mut table = Table::of_measures();
    for (label, value, unit, remark) in lines {
        table.row([format!("  {label}"), value, unit.to_owned(), remark]);
    }
    table
}

/// Pairs that live at any time.
const PAIRS: usize = 100_000;

/// How long the program runs.
const TIME: Duration = Duration::from_secs(1);

/// One half of a pair: each leads to the other, so that every pair is a cycle.
#[derive(Trace)]
struct Half<'gc> {
    other: GcCell<Option<Gc<'gc, Half<'gc>>>>,
    number: u64,
}

#[derive(Trace)]
struct Pairs<'gc> {
    pairs: GcRefCell<Vec<Option<Gc<'gc, Half<'gc>>>>>,
}

impl<'gc> Pairs<'gc> {
    /// Makes a pair with a cleanup, and lets go of the one in its place.
    fn replace(&self, mc: &Mutation<'gc>, place: usize, number: u64, ended: &Arc<AtomicU64>) {
        let half = |other| mc.alloc(Half { other: GcCell::new(other), number });
        let first = half(None);
        first.other.set(mc, Some(half(Some(first))));
        mc.add_cleanup_with(first, ended.clone(), |ended| _ = ended.fetch_add(1, Relaxed));
        self.pairs.borrow_mut(mc)[place] = Some(first);
    }
}

/// Runs the program, and tells what it was like.
fn program() -> Result<String, WaitError> {
    let ended: Arc<AtomicU64> = Arc::default();
    let mut heap: Heap<Pairs<'static>> =
        Heap::new(|_mc| Pairs { pairs: GcRefCell::new(vec![None; PAIRS]) });
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut made = 0;
    let start = Instant::now();
    while start.elapsed() < TIME {
        heap.mutate(|mc, pairs| {
            for _ in 0..1000 {
                pairs.replace(mc, random.usize(..PAIRS), made, &ended);
                made += 1;
            }
        });
    }
    let time = start.elapsed();
    let before_the_end = ended.load(Relaxed);
    heap.mutate(|mc, pairs| pairs.pairs.borrow_mut(mc).clear());
    heap.collect();
    let start = Instant::now();
    heap.wait_for_cleanups(Duration::from_secs(60))?;
    let wait = start.elapsed();

    let HeapStats { cycles, pause, mutator_utilisation, .. } = heap.stats();
    let ms = |time: Duration| figure(time.as_secs_f64() * 1e3);
    let count = |count| HumanCount(count).to_string();
    let workers = counted(heap.cleanup_pool().max_workers(), "worker thread");
    let by = format!("by {workers}, while the program went on");
    let rate = figure(2.0 * made as f64 / time.as_secs_f64() / 1e6);
    let share = figure(100.0 * mutator_utilisation);
    #[rustfmt::skip]
    let lines: [Line<'_>; 10] = [
        ("allocated", rate, "M objects/s", "of 16 bytes; linking and collections included".into()),
        ("collections", count(cycles), "", "started by the pacer, between two sessions".into()),
        ("pauses", count(pause.count), "", "slices of a collection; the program waits".into()),
        ("pause, median", ms(pause.median), "ms", "mark, sweep, queue cleanups".into()),
        ("pause, 99th percentile", ms(pause.p99), "ms", String::new()),
        ("pause, longest", ms(pause.max), "ms", String::new()),
        ("the program ran for", share, "% of time", "the rest: pauses".into()),
        ("cleanups, run meanwhile", count(before_the_end), "", by),
        ("cleanups, run in all", count(ended.load(Relaxed)), "", format!("of {}", count(made))),
        ("wait for the last ones", ms(wait), "ms", "with a deadline, after a last cycle".into()),
    ];
    Ok(format!(
        "A program, for a second. {} live, each of two objects that lead to each other, and with\n\
         a cleanup. New pairs replace old ones.\n\n{}",
        counted(PAIRS, "pair"),
        table(lines)
    ))
}

/// Objects in each of the heaps.
const OBJECTS: usize = 1_000_000;

const ROUNDS: usize = 5;

const SWEEP: &str = "W2.50";

/// Times each part of a collection alone.
fn parts() -> Result<String, String> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (label, id, remark) in [
        ("allocate, all of it garbage", "W1", "collections included"),
        ("mark a random graph", "W3.random", "nearly every step misses the cache"),
        ("mark a tree", "W3.tree", "in the order of memory"),
        ("sweep plain objects", SWEEP, "half live"),
        ("sweep, 1 in 10 with a cleanup", "W2c.50", "half live; queues those of the dead"),
        ("register a cleanup", "W4.register", ""),
        ("collect until the last has run", "W4.run", "a million of them"),
        ("register and stop a cleanup", "W5", ""),
    ] {
        let row = Row::find(id).ok_or("a row is gone")?;
        let cost = median(row, OBJECTS, ROUNDS)?;
        let rate = (id == SWEEP).then(|| format!("; {} G objects/s", figure(1.0 / cost.max(1e-9))));
        lines.push((label, figure(cost), row.unit, remark.to_owned() + &rate.unwrap_or_default()));
    }
    let rounds = counted(ROUNDS, "round");
    Ok(format!(
        "The parts, one by one: medians of {rounds}, {} of 32 bytes, one thread\n\n{}",
        counted(OBJECTS, "object"),
        table(lines)
    ))
}
