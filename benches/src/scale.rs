//! `sexton-bench scale`: how what an object costs changes as a heap grows, and as more threads
//! collect it.
//!
//! As in `run`, every measurement is a process of its own, and within a round the numbers of
//! threads alternate: each is first in turn. What does not fit into memory is skipped, and said to
//! be.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use clap::ValueEnum;
use indicatif::HumanCount;

use crate::catalogue::{Row, Work};
use crate::grid::Table;
use crate::measure::scale as measured;
use crate::output::{Failure, writable};
use crate::run::rounds::{self, Job, Turn};
use crate::run::{
    Kind, Measured, Record, RowRecord, Skipped, child, in_figures, interrupt, numbers, one, page,
};
use crate::values::{self, counted};

/// Measures how the cost of an object grows with the heap, and shrinks with the threads that
/// collect it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure: W2 (sweep), W2c (sweep with cleanups), W3 (mark), W4 (cleanups) [default:
    /// all]
    #[arg(value_name = "WORK", value_parser = work)]
    works: Vec<Work>,
    /// Objects, or cleanups in W4, 1 to 100,000,000; `4M` and `500k` are understood. A list has
    /// commas
    #[arg(long, allow_negative_numbers = true, value_name = "LIST", value_parser = values::objects,
        value_delimiter = ',', default_value = "100k,1M,10M,50M")]
    objects: Vec<usize>,
    /// The most threads that mark, 1 to 64, or a list. They share a large and wide graph
    /// (W3.random); one thread sweeps [default: 1, 2, and as many as there are cores]
    #[arg(long, allow_negative_numbers = true, value_name = "LIST",
        value_parser = values::threads(), value_delimiter = ',')]
    threads: Vec<usize>,
    /// Rounds, 1 to 1000
    #[arg(long, allow_negative_numbers = true, value_name = "N",
        value_parser = values::up_to_1000(), default_value = "5")]
    rounds: usize,
    /// Keeps all that was measured in a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One of the works that have a size.
fn work(text: &str) -> Result<Work, String> {
    let found = Work::from_str(text, true).ok().filter(|work| measured::WORKS.contains(work));
    found.ok_or_else(|| {
        let names = measured::WORKS.map(Work::name);
        format!("valid is {}", names.join(", "))
    })
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let is_wanted = |work: &Work| args.works.is_empty() || args.works.contains(work);
    let works: Vec<Work> = measured::WORKS.into_iter().filter(is_wanted).collect();
    let sizes = ascending(args.objects.clone());
    let threads = ascending(match args.threads.as_slice() {
        [] => vec![1, 2, thread::available_parallelism().map_or(1, usize::from).clamp(2, 64)],
        list => list.to_vec(),
    });
    let json = args.json.as_deref();
    writable(json)?;

    let mut record = Record::new(Kind::Scale, false, args.rounds);
    let jobs = jobs(&works, &sizes, available(), &mut record.skipped);
    if jobs.is_empty() {
        let skipped = record.skipped.iter().map(|it| format!("{}: {}", it.peer, it.reason));
        return Err(Failure::Usage(format!(
            "--objects: nothing fits into memory: {}",
            skipped.collect::<Vec<_>>().join("; ")
        )));
    }
    expect(&mut record, &jobs, &threads);
    interrupt::watch();
    let jobs: Vec<Job<'_>> =
        jobs.iter().map(|&(work, objects)| job(work, objects, &threads)).collect();
    rounds::measure_all(&mut record, &jobs, args.rounds, json)?;
    let text = page(&record, &explained(grid(&record).to_string()));
    rounds::finish(&record, text, json, |_| true)
}

/// A work at one size, by numbers of threads.
fn job(work: Work, objects: usize, threads: &[usize]) -> Job<'static> {
    let turn = |&threads: &usize| Turn {
        by: counted(threads, "thread"),
        measure: Box::new(move |record, round| {
            for (row, value) in measure(work, objects, threads)? {
                let by = counted(threads, "thread");
                record.expect(row, Some(objects), &by).set(round, value);
            }
            Ok(())
        }),
    };
    let title = format!("{work}, {}, {}", work.title(), counted(objects, "object"));
    let turns = threads.iter().map(turn).collect();
    Job { title, work: work.to_string(), objects: Some(objects), turns }
}

/// Makes the places of a record in order: of a row all its sizes.
fn expect(record: &mut Record, jobs: &[(Work, usize)], threads: &[usize]) {
    let mut jobs = jobs.to_vec();
    jobs.sort();
    for rows in jobs.chunk_by(|a, b| a.0 == b.0) {
        for row in measured::rows(rows[0].0).iter().filter_map(|id| Row::find(id)) {
            for &(_, objects) in rows {
                for &threads in threads {
                    record.expect(row, Some(objects), &counted(threads, "thread"));
                }
            }
        }
    }
}

fn ascending(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// What is measured at which size: all that fits into the `available` bytes. The rest gets a line
/// each.
fn jobs(
    works: &[Work],
    sizes: &[usize],
    available: Option<u64>,
    skipped: &mut Vec<Skipped>,
) -> Vec<(Work, usize)> {
    let mut jobs = Vec::new();
    for &objects in sizes {
        for &work in works {
            // Some is left to other programs.
            let needed = objects as u64 * measured::bytes_per_object(work) * 5 / 4;
            match available {
                Some(available) if needed > available => skipped.push(Skipped {
                    peer: format!("{work} at {}", counted(objects, "object")),
                    reason: format!(
                        "it takes about {:.1} GB, and {:.1} GB are available",
                        needed as f64 / 1e9,
                        available as f64 / 1e9
                    ),
                }),
                _ => jobs.push((work, objects)),
            }
        }
    }
    jobs
}

/// Bytes of memory that a process may take: those that are free, if it may have as many addresses.
/// `None` where the system does not tell.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok();
    let kib = text.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let free = kib.map(|kib| 1024 * kib);
    let least = free.into_iter().chain(addresses()).chain(cgroup());
    least.min()
}

/// The limit on addresses.
fn addresses() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        getrlimit(Resource::As).current
    }
    #[cfg(not(unix))]
    None
}

/// What a container may still take.
fn cgroup() -> Option<u64> {
    let number = |name: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Some(number("max")?.saturating_sub(number("current")?))
}

/// Has a process of its own measure a work: rows and their values.
fn measure(work: Work, objects: usize, threads: usize) -> Result<Vec<(&'static Row, f64)>, String> {
    let [size, threads] = [objects, threads].map(|it| it.to_string());
    let args = [one::COMMAND, "sexton", work.name(), &size, "--threads", &threads];
    // Three graphs of 50 million take ten seconds, where nothing else is going on.
    let patience = Duration::from_secs(120 + 10 * (objects / 1_000_000) as u64);
    let values = numbers(&child::run_self(args, patience)?.out_if_successful()?)?;
    Ok(values.into_iter().map(|(listed, value)| (listed.row, value)).collect())
}

/// A line for each row and size, a column for each number of threads.
pub(crate) fn grid(record: &Record) -> Table {
    let mut table = Table::of_numbers();
    let threads: Vec<&str> =
        record.rows.first().into_iter().flat_map(|row| &row.results).map(|it| &*it.by).collect();
    let number = |by: &str| by.split(' ').next().unwrap_or_default().to_owned();
    let first = threads.first().copied().unwrap_or_default();
    let ratios = threads.iter().skip(1).map(|by| format!("{} : {}", number(by), number(first)));
    let names = ["".to_owned(), "objects".to_owned()].into_iter();
    let columns = threads.iter().map(ToString::to_string).chain(ratios);
    table.row(names.chain(columns).chain(["growth".to_owned()]));
    for rows in record.rows.chunk_by(|a, b| a.id == b.id) {
        for row in rows {
            table.row(line(record, row, &rows[0]));
        }
    }
    table
}

/// A row at one size, beside the same at the smallest.
fn line(record: &Record, row: &RowRecord, smallest: &RowRecord) -> Vec<String> {
    // Its name once, and not in every line.
    let name = if row.objects == smallest.objects { row.id.clone() } else { String::new() };
    let mut line = vec![name, HumanCount(row.objects.unwrap_or(0) as u64).to_string()];
    line.extend(row.results.iter().map(|it| match it.spread() {
        Some(spread) => in_figures(spread),
        None => record.lack(row, it).0.to_owned(),
    }));
    let first = row.results.first();
    let ratio = |of: Option<&Measured>, to: Option<&Measured>| {
        of.zip(to).and_then(|(of, to)| of.ratio(to)).map(in_figures).unwrap_or_default()
    };
    line.extend(row.results.iter().skip(1).map(|it| ratio(Some(it), first)));
    line.push(ratio(first, smallest.results.first()));
    line
}

/// Says what the columns of a table are.
pub(crate) fn explained(table: String) -> String {
    format!("{EXPLAINED}\n\n{table}")
}

const EXPLAINED: &str = "\
Nanoseconds per object, or per cleanup in W4: medians (least to greatest). A ratio such as 2 : 1 is
that of the times with that many threads; below 1 more threads are faster. Threads share the mark of
a large and wide graph (W3.random) and nothing else; one thread sweeps. Growth is the cost of an
object with the fewest threads, as a multiple of that in the smallest heap: where it is 1, the whole
cost grows as the heap does.";

/// Two sizes and two numbers of threads, of which the larger size failed with the larger
/// number.
#[cfg(test)]
pub(crate) fn sample() -> Record {
    let mut record = Record::new(Kind::Scale, false, 2);
    record.command = "sexton-bench scale W2".into();
    record.partial = false;
    let row = Row::find("W2.50").unwrap();
    for (objects, by, values) in [
        (1000, "1 thread", [Some(2.0), Some(4.0)]),
        (1000, "2 threads", [Some(1.0), Some(1.0)]),
        (8000, "1 thread", [Some(6.0), Some(6.0)]),
        (8000, "2 threads", [None, None]),
    ] {
        record.expect(row, Some(objects), by).values = values.into();
    }
    let peer = "W2 at 9,000,000 objects".to_owned();
    record.skipped.push(Skipped { peer, reason: "it does not fit".into() });
    let (by, work, reason) = ("2 threads".into(), "W2".into(), "it broke".into());
    record.failures.push(crate::run::Failed { by, work, objects: Some(8000), round: 1, reason });
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_ratios_of_threads_and_of_sizes() {
        let text = grid(&sample()).markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| | objects | 1 thread | 2 threads | 2 : 1 | growth |");
        let own = "3.00 (2.00 to 4.00) | 1.00 (1.00 to 1.00) | 0.333 (0.250 to 0.500)";
        assert_eq!(lines[2], format!("| W2.50 | 1,000 | {own} | 1.00 (1.00 to 1.00) |"));
        let own = "6.00 (6.00 to 6.00) | failed | | 2.00 (1.50 to 3.00)";
        assert_eq!(lines[3], format!("| | 8,000 | {own} |"));
    }

    #[test]
    fn what_does_not_fit_is_skipped_with_a_line() {
        let mut skipped = Vec::new();
        let works = [Work::W2, Work::W4];
        let found = jobs(&works, &[1000, 1_000_000], Some(70_000_000), &mut skipped);
        assert_eq!(found, [(Work::W2, 1000), (Work::W4, 1000), (Work::W2, 1_000_000)]);
        let Skipped { peer, reason } = &skipped[0];
        assert_eq!(peer, "W4 at 1,000,000 objects");
        assert_eq!(reason, "it takes about 0.1 GB, and 0.1 GB are available");
        assert_eq!(jobs(&works, &[1 << 40], None, &mut skipped).len(), 2);
    }

    #[test]
    fn a_text_has_every_size_and_what_was_skipped() {
        let record = sample();
        let text = page(&record, &explained(grid(&record).to_string()));
        let failed = "failed: 2 threads at W2, 8,000 objects, in 1 of 2 rounds: it broke";
        for words in ["W2.50", "1,000 ", "8,000 ", "skipped: W2 at 9", failed] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
