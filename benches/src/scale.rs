//! `sexton-bench scale`: how what an object costs changes as a heap grows, and as more threads collect it.
//!
//! As in `run`, every measurement is a process of its own, and within a round the numbers of threads alternate: each is
//! first in turn. What does not fit into memory is skipped, and said to be.

mod record;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{env, fs, thread};

use indicatif::HumanCount;

use crate::catalogue::Work;
use crate::grid::Table;
use crate::measure::scale as measured;
use crate::output::{Failure, print, save, spinner, writable};
use crate::run::{Machine, child, numbers, one};
use crate::sweep;
#[cfg(test)]
pub(crate) use record::tests::sample as tests_sample;
pub(crate) use record::{KIND, ScaleRecord};

/// Measures how the cost of an object grows with the heap, and shrinks with the threads that collect it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure: W2, W2c, W3, W4 [default: all]
    #[arg(value_name = "WORK", value_parser = work)]
    works: Vec<Work>,
    /// Objects, or cleanups in W4, 1 to 100,000,000; `4M` and `500k` are understood. A list has commas
    #[arg(long, allow_negative_numbers = true, value_name = "LIST", value_parser = sweep::objects, value_delimiter = ',', default_value = "100k,1M,10M,50M")]
    objects: Vec<usize>,
    /// The most threads that collect, 1 to 64, or a list [default: 1, 2, and as many as there are cores]
    #[arg(long, allow_negative_numbers = true, value_name = "LIST", value_parser = sweep::threads, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Rounds, 1 to 1000
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = sweep::rounds, default_value = "5")]
    rounds: usize,
    /// Keeps all that was measured in a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One of the works that have a size.
fn work(text: &str) -> Result<Work, String> {
    let found = text.parse().ok().filter(|work| measured::WORKS.contains(work));
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
    if let Some(file) = &args.json {
        writable(file)?;
    }

    let mut record = ScaleRecord {
        kind: KIND.into(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command: command(&works, &sizes, &threads, args.rounds),
        machine: Machine::this(),
        rounds: args.rounds,
        cells: Vec::new(),
        skipped: Vec::new(),
        failed: Vec::new(),
    };
    let jobs = jobs(&works, &sizes, available(), &mut record.skipped);
    if jobs.is_empty() {
        return Err(Failure::Usage(format!(
            "--objects: nothing fits into memory: {}",
            record.skipped.join("; ")
        )));
    }
    measure_all(&mut record, &jobs, &threads, args.json.as_ref())?;
    print(text(&record, &threads))?;
    match record.failed.first() {
        Some(reason) => Err(Failure::Run(format!("cannot measure: {reason}"))),
        None => Ok(()),
    }
}

fn ascending(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// How to measure the same again.
fn command(works: &[Work], sizes: &[usize], threads: &[usize], rounds: usize) -> String {
    let list =
        |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let works: Vec<&str> = works.iter().map(|work| work.name()).collect();
    let (works, sizes, threads) = (works.join(" "), list(sizes), list(threads));
    format!("sexton-bench scale {works} --objects {sizes} --threads {threads} --rounds {rounds}")
}

/// What is measured at which size: all that fits into so many bytes. The rest gets a line each.
fn jobs(
    works: &[Work],
    sizes: &[usize],
    available: Option<u64>,
    skipped: &mut Vec<String>,
) -> Vec<(Work, usize)> {
    let mut jobs = Vec::new();
    for &objects in sizes {
        for &work in works {
            // Some is left to everybody else.
            let needed = objects as u64 * measured::bytes_per_object(work) * 5 / 4;
            match available {
                Some(available) if needed > available => skipped.push(format!(
                    "{work} at {} objects: it takes about {:.1} GB, and {:.1} GB are available",
                    HumanCount(objects as u64),
                    needed as f64 / 1e9,
                    available as f64 / 1e9
                )),
                _ => jobs.push((work, objects)),
            }
        }
    }
    jobs
}

/// Bytes of memory that a process may take: those that nobody uses, if it may have so many addresses. `None` where nobody tells.
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

/// Measures it all. What fails costs its own cells.
fn measure_all(
    record: &mut ScaleRecord,
    jobs: &[(Work, usize)],
    threads: &[usize],
    json: Option<&PathBuf>,
) -> Result<(), Failure> {
    let progress = spinner();
    for round in 0..record.rounds {
        for &(work, objects) in jobs {
            for nth in 0..threads.len() {
                let threads = threads[(nth + round) % threads.len()];
                progress.set_message(format!(
                    "round {} of {}: {work}, {}: {} objects, threads: {threads}",
                    round + 1,
                    record.rounds,
                    work.title(),
                    HumanCount(objects as u64)
                ));
                progress.tick();
                for row in measured::rows(work) {
                    record.cell(row, objects, threads);
                }
                match measure(work, objects, threads) {
                    Ok(values) => {
                        for (row, value) in values {
                            record.cell(&row, objects, threads).values[round] = Some(value);
                        }
                    }
                    Err(reason) => {
                        let size = HumanCount(objects as u64);
                        let line = format!("{work} at {size} objects, threads {threads}: {reason}");
                        if !record.failed.contains(&line) {
                            record.failed.push(line);
                        }
                    }
                }
            }
        }
        // Every round, so that a run that is broken off leaves something.
        if let Some(file) = json {
            save(record, file).inspect_err(|_| progress.finish_and_clear())?;
        }
    }
    progress.finish_and_clear();
    Ok(())
}

/// Has a process of its own measure a work: rows and their values.
fn measure(work: Work, objects: usize, threads: usize) -> Result<Vec<(String, f64)>, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let [size, threads] = [objects, threads].map(|it| it.to_string());
    let args = [one::COMMAND, "sexton", work.name(), &size, "--threads", &threads];
    let args = args.map(OsStr::new);
    // Three graphs of 50 million take ten seconds, where nothing else is going on.
    let patience = Duration::from_secs(120 + 10 * (objects / 1_000_000) as u64);
    let ended = child::run(program.as_ref(), &args, patience)?;
    if !ended.status.success() {
        return Err(ended.reason());
    }
    let values = numbers(&ended.out)?;
    Ok(values.into_iter().map(|(listed, value)| (listed.row.id.to_owned(), value)).collect())
}

/// The record as text.
fn text(record: &ScaleRecord, threads: &[usize]) -> String {
    let mut text =
        format!("{}\n{}; {}\n\n", record.machine, record.date, sweep::in_rounds(record.rounds));
    text += EXPLAINED;
    text += "\n\n";
    let mut table = Table::of_numbers();
    record.grid().into_iter().for_each(|line| table.row(line));
    text += &table.to_string();
    let skipped = record.skipped.iter().map(|line| format!("skipped: {line}\n"));
    let failed = record.failed.iter().map(|line| format!("failed: {line}\n"));
    let lines: String = skipped.chain(failed).collect();
    if !lines.is_empty() {
        text += "\n";
        text += &lines;
    }
    text + sweep::note(threads)
}

/// What the columns are.
pub(crate) const EXPLAINED: &str = "\
Nanoseconds per object, or per cleanup in W4: medians (least to greatest). A ratio such as 2 : 1 is that of the times with so
many threads; below 1 more threads are faster. Growth is the cost of an object with the fewest threads, as a multiple of that in
the smallest heap: where it stays the same, the whole cost grows as the heap does.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_skipped_with_a_line() {
        let mut skipped = Vec::new();
        let works = [Work::W2, Work::W4];
        let found = jobs(&works, &[1000, 1_000_000], Some(70_000_000), &mut skipped);
        assert_eq!(found, [(Work::W2, 1000), (Work::W4, 1000), (Work::W2, 1_000_000)]);
        let line = "W4 at 1,000,000 objects: it takes about 0.1 GB, and 0.1 GB are available";
        assert_eq!(skipped, [line]);
        assert_eq!(jobs(&works, &[1 << 40], None, &mut skipped).len(), 2);
    }

    #[test]
    fn a_text_has_every_size_and_what_was_skipped() {
        let text = text(&tests_sample(), &[1, 2]);
        for words in ["W2.50", "1,000 ", "8,000 ", "skipped: W2 at 9", "failed: W2 at 8"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
