//! `sexton-bench figures`: one row for each kind of work that Sexton is measured by, in one run.
//!
//! All rows are measured once per round, one after the other, so that a change in the machine's mood
//! meets all of them; what is compared stands next to each other. The first round warms up and is not
//! counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use sexton::{CleanupPool, Heap};
use sexton_bench::{
    GARBAGE_PER_CYCLE, Graph, NoMemory, Nothing, Shape, ShapedHeap, Spread, add_and_stop,
    box_garbage_at_once, box_garbage_later, garbage, garbage_heap, per,
};

use crate::output::{Failure, print};
use crate::sweep::{objects, rounds};
use crate::table::Table;

/// Prints a row for each kind of work: alloc, sweep, refill, mark, cleanups.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Objects in each heap, 1 to 100,000,000; `4M` and `500k` are understood
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = objects, default_value = "4M")]
    objects: usize,
    /// Rounds to measure, 1 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = rounds, default_value = "5")]
    rounds: usize,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let progress = bar();
    let mut bench = Bench::new(args.objects).map_err(|error| cannot(&error))?;
    for round in 0..=args.rounds {
        let mut nth = 0;
        let mut record = |label: &'static str, nanos: f64| {
            progress.set_message(format!("round {round} of {}: {label}", args.rounds));
            progress.tick();
            if rows.len() == nth {
                rows.push((label, Vec::new()));
            }
            if round > 0 {
                rows[nth].1.push(nanos);
            }
            nth += 1;
        };
        bench.round(&mut record).inspect_err(|_| progress.finish_and_clear())?;
    }
    progress.finish_and_clear();

    let mut table = Table::of_numbers();
    table.row(["ns each", "median", "min", "max"].map(String::from));
    for (label, values) in rows {
        if let Some(Spread { median, min, max }) = Spread::of(values) {
            table.row([label.to_owned(), nanos(median), nanos(min), nanos(max)]);
        }
    }
    print(format_args!(
        "{} objects of 32 bytes in each heap; {} rounds; {} cleanup workers at most\n\n{table}",
        HumanCount(args.objects as u64),
        args.rounds,
        bench.pool.max_workers(),
    ))
}

/// Heaps that all rounds use.
struct Bench {
    objects: usize,
    pool: CleanupPool,
    garbage: Heap<Nothing>,
    flat: ShapedHeap,
    cleanups: ShapedHeap,
    random: Graph,
    list: Graph,
    tree: Graph,
    leaves: Graph,
}

impl Bench {
    fn new(objects: usize) -> Result<Self, NoMemory> {
        let pool = CleanupPool::builder().build();
        Ok(Bench {
            objects,
            garbage: garbage_heap(),
            flat: ShapedHeap::new(&pool),
            cleanups: ShapedHeap::new(&pool),
            random: Graph::random(objects)?,
            list: Graph::list(objects)?,
            tree: Graph::tree(objects)?,
            leaves: Graph::leaves(objects)?,
            pool,
        })
    }

    /// Measures everything once and hands each row to `record`.
    fn round(&mut self, record: &mut impl FnMut(&'static str, f64)) -> Result<(), Failure> {
        let n = self.objects;
        let count = n as u64;

        record("W1   alloc, all garbage, collections included", {
            per(garbage(&mut self.garbage, 2 * n), 2 * count)
        });
        record("       Box, system allocator, freed at once", per(box_garbage_at_once(n), count));
        record("       Box, system allocator, freed 32,768 later", {
            per(box_garbage_later(n, GARBAGE_PER_CYCLE), count)
        });

        for (label, live) in [
            ("W2   sweep,  0 % live", 0.0),
            ("     sweep, 10 % live", 0.1),
            ("     sweep, 50 % live", 0.5),
            ("     sweep, 90 % live", 0.9),
        ] {
            let shape = Shape::plain(n, live);
            record(label, sweep(&mut self.flat, shape)?.sweep);
        }
        for (label, live) in [
            ("W2c  sweep, 10 % with a cleanup,  0 % live", 0.0),
            ("     sweep, 10 % with a cleanup, 50 % live", 0.5),
        ] {
            let shape = Shape { cleanups: 0.1, ..Shape::plain(n, live) };
            record(label, sweep(&mut self.flat, shape)?.sweep);
        }

        for (label, live) in
            [("W2r  refill, 50 % live, per alloc", 0.5), ("     refill, 90 % live, per alloc", 0.9)]
        {
            record(label, self.refill(live)?);
        }

        for (label, graph) in [
            ("W3   mark, random graph", &mut self.random),
            ("     mark, list", &mut self.list),
            ("     mark, tree", &mut self.tree),
            ("     mark, array of leaves", &mut self.leaves),
        ] {
            let report = graph.collect();
            record(label, per(report.mark_time, report.live_objects));
        }

        let quarter = n.div_ceil(4);
        let all = Shape { cleanups: 1.0, ..Shape::plain(quarter, 0.0) };
        let costs = sweep(&mut self.cleanups, all)?;
        record("W4   register a cleanup", costs.register);
        record("     collect start to last cleanup run, per cleanup", costs.until_run);
        // In this heap, W2c has left the records free in an order that is nobody's.
        let costs = sweep(&mut self.flat, all)?;
        record("     register, records recycled in mixed order", costs.register);
        record("     collect start to last run, the same", costs.until_run);
        for (label, objects) in [
            ("W5   register and stop a cleanup, on one object", 1),
            ("     register and stop a cleanup, among 65,536 objects", 1 << 16),
        ] {
            record(label, per(add_and_stop(quarter, objects), quarter as u64));
        }

        let mut wakes = wakes(&self.pool)?;
        wakes.sort_unstable();
        let at = |share: f64| wakes[(share * (WAKES - 1) as f64) as usize].as_nanos() as f64;
        record("W6   collect of one object to start of its cleanup, median", at(0.50));
        record("       the same, 99th percentile", at(0.99));
        Ok(())
    }

    /// Collects a flat heap with a share of `live` objects, and allocates as many as died.
    fn refill(&mut self, live: f64) -> Result<f64, Failure> {
        let shape = Shape::plain(self.objects, live);
        self.flat.fill(shape, |_| {}).map_err(|error| cannot(&error))?;
        let swept = self.flat.collect().swept_objects;
        let time = self.flat.refill(swept as usize);
        self.flat.clear();
        Ok(per(time, swept))
    }
}

/// Fills a heap to `shape`, collects, waits for the cleanups, and empties it.
fn sweep(heap: &mut ShapedHeap, shape: Shape) -> Result<Costs, Failure> {
    let registered = heap.fill(shape, |_| {}).map_err(|error| cannot(&error))?;
    let start = Instant::now();
    let report = heap.collect();
    heap.wait(PATIENCE).map_err(|error| cannot(&error))?;
    let until_run = start.elapsed();
    heap.clear();
    heap.wait(PATIENCE).map_err(|error| cannot(&error))?;
    Ok(Costs {
        sweep: per(report.sweep_time, report.live_objects + report.swept_objects),
        register: per(registered.time, registered.count),
        until_run: per(until_run, report.queued_cleanups),
    })
}

/// What one sweep cost, in nanoseconds.
struct Costs {
    /// Per object, dead or alive.
    sweep: f64,
    /// Per cleanup registered.
    register: f64,
    /// From the start of the collection to the end of the last cleanup, per cleanup queued.
    until_run: f64,
}

/// Longer than any cleanups take that will end.
const PATIENCE: Duration = Duration::from_secs(600);

/// Wake-ups measured in a round.
const WAKES: usize = 500;

/// How long it takes from the start of a collection of a heap with one dead object, whose cleanup is
/// the only one there is, until a worker of `pool` has begun to run it. The worker is asleep, as far
/// as the pool tells, when the collection begins.
fn wakes(pool: &CleanupPool) -> Result<Vec<Duration>, Failure> {
    let epoch = Instant::now();
    let started = Arc::new(AtomicU64::new(0));
    let mut heap: Heap<Nothing> = Heap::builder().cleanup_pool(pool).build(|_mc| Nothing);
    let mut wakes = Vec::with_capacity(WAKES);
    for _ in 0..WAKES {
        let started_here = started.clone();
        heap.mutate(|mc, _| {
            // Relaxed: the ticket's wait below orders it.
            let note = move || started_here.store(epoch.elapsed().as_nanos() as u64, Relaxed);
            mc.add_cleanup(mc.alloc(Nothing), note);
        });
        wait_until_asleep(pool);
        let start = epoch.elapsed();
        heap.collect();
        heap.wait_for_cleanups(PATIENCE).map_err(|error| cannot(&error))?;
        wakes.push(Duration::from_nanos(started.load(Relaxed)).saturating_sub(start));
    }
    Ok(wakes)
}

/// Waits until all workers of the pool have said that they sleep, and then long enough for the last
/// of them to do so; gives up waiting after a while, as a worker that is awake is no error.
fn wait_until_asleep(pool: &CleanupPool) {
    let start = Instant::now();
    loop {
        let stats = pool.stats();
        if stats.asleep == stats.workers || start.elapsed() > Duration::from_millis(1) {
            break;
        }
        std::hint::spin_loop();
    }
    let parked = Instant::now();
    while parked.elapsed() < Duration::from_micros(50) {
        std::hint::spin_loop();
    }
}

fn cannot(error: &dyn std::error::Error) -> Failure {
    Failure::Run(format!("cannot measure: {error}"))
}

fn nanos(value: f64) -> String {
    match value {
        _ if value < 1.0 => format!("{value:.4}"),
        _ if value < 1000.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// Progress on standard error if that is a terminal; otherwise silent.
fn bar() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{elapsed} {wide_msg}") {
        spinner.set_style(style);
    }
    spinner
}
