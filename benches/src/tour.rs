//! `sexton-bench tour`: a real directory tree as a file index in the heap.
//!
//! It is what the heap is for, in small: a graph full of cycles that grows session by session; a
//! cache of scarce things (open files) that cleanups give back; weak pointers between the two.
//!
//! 1. The tree is listed. Then every regular file's first bytes are read, through the cache.
//!    Whenever many files are open, a collection finds the evicted ones, and a ticket waits until
//!    their cleanups have closed them.
//! 2. The files read last are looked at again, which finds some of them still open.
//! 3. All open files are evicted, collected and waited for: what lives now is the complete index.
//! 4. The index is let go of and collected: everything is dead.
//!
//! Whatever cannot be used on the way is skipped and reported. Only `PATH` itself must be a
//! directory that can be listed.

mod index;
mod open_files;
mod skipped;
mod system;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, io};

use indicatif::{BinaryBytes, HumanCount};
use sexton::{GcReport, Heap, Pacing};
use walkdir::WalkDir;

use crate::grid::Table;
use crate::output::{Failure, Progress, print};
use crate::values::counted;
use index::{FILES_PER_SESSION, Found, Index, Step};
use open_files::{Limits, Log};
use skipped::Skipped;

/// Indexes a real directory tree in the heap, with a bounded cache of open files that cleanups
/// close, and prints what that took.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory to index
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// Makes the tour and prints its table.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    check(&args.path)?;
    let before = system::open_descriptors();
    let limits = Limits::below(system::descriptor_limit(), before);
    let mut tour = Tour::new(Log::new(limits));
    let result = tour.make(&args.path);
    tour.progress.clear();
    tour.skipped.report();
    result?;
    let after = system::open_descriptors();
    print(tour.table(&args.path, before, after))?;
    match (before, after) {
        (Some(before), Some(after)) if before != after => Err(Failure::Run(format!(
            "{} open, and {before} before: some were not closed",
            counted(after, "file descriptor")
        ))),
        _ => Ok(()),
    }
}

/// Whether `path` is a directory that can be listed.
fn check(path: &Path) -> Result<(), Failure> {
    let unusable = |why: String| {
        Failure::Usage(format!(
            "no tour of {path:?}: {why}; PATH is a directory that can be listed"
        ))
    };
    let listed = || match fs::metadata(path)? {
        it if system::is_removed(&it) => Err(io::Error::other("it has been removed")),
        it if it.is_dir() => fs::read_dir(path)?.next().transpose().map(drop),
        _ => Err(io::Error::other("it is not a directory")),
    };
    listed().map_err(|error| unusable(error.to_string()))
}

/// A tour under way.
struct Tour {
    heap: Heap<Index<'static>>,
    log: Arc<Log>,
    found: Found,
    skipped: Skipped,
    /// The collections so far.
    reports: Vec<GcReport>,
    /// The cycle that found the complete index alive.
    complete: GcReport,
    progress: Progress,
    start: Instant,
    time: Duration,
}

/// Longer than any close takes that is going to end.
const PATIENCE: Duration = Duration::from_secs(30);

impl Tour {
    fn new(log: Arc<Log>) -> Self {
        // The scarce thing here is descriptors, of which the pacer knows nothing: the tour collects
        // when it runs out of them.
        let heap = Heap::builder().pacing(Pacing::Manual).build(|_mc| Index::default());
        Tour {
            heap,
            log,
            found: Found::default(),
            skipped: Skipped::default(),
            reports: Vec::new(),
            complete: GcReport::default(),
            progress: Progress::new(),
            start: Instant::now(),
            time: Duration::ZERO,
        }
    }

    fn make(&mut self, path: &Path) -> Result<(), Failure> {
        // 1. List and read.
        self.list(path);
        self.read()?;

        // 2. Look again at twice as many files as the cache holds.
        let Tour { heap, log, .. } = self;
        heap.mutate(|mc, index| index.look_again(mc, log, 2 * log.limits.capacity));

        // 3. Close all files; keep the index.
        self.complete = self.close_files()?;

        // 4. Let go of the index.
        self.heap.mutate(|mc, index| index.clear(mc));
        self.collect_and_wait()?;
        self.time = self.start.elapsed();
        Ok(())
    }

    /// Lists the tree. No file is open yet, so one descriptor is enough.
    fn list(&mut self, path: &Path) {
        let mut entries = WalkDir::new(path).max_open(1).into_iter().peekable();
        while entries.peek().is_some() {
            let Tour { heap, found, skipped, .. } = self;
            heap.mutate(|mc, index| {
                for entry in entries.by_ref().take(FILES_PER_SESSION) {
                    match entry {
                        Ok(entry) => index.add(mc, &entry, found, skipped),
                        Err(error) => skipped.note(error.path().unwrap_or(path), &error),
                    }
                }
            });
            self.show_progress();
        }
    }

    /// Reads all files, and collects whenever too many are open.
    fn read(&mut self) -> Result<(), Failure> {
        let mut none_are_open = false;
        loop {
            let Tour { heap, log, found, skipped, .. } = self;
            let step =
                heap.mutate(|mc, index| index.read_next(mc, log, found, skipped, none_are_open));
            self.show_progress();
            match step {
                Step::Finished => return Ok(()),
                Step::More => {}
                Step::CollectFirst => _ = self.collect_and_wait()?,
                Step::OutOfDescriptors => _ = self.close_files()?,
            }
            none_are_open = step == Step::OutOfDescriptors;
        }
    }

    /// Evicts all open files, and waits until they are closed.
    fn close_files(&mut self) -> Result<GcReport, Failure> {
        self.heap.mutate(|mc, index| index.evict_all(mc));
        self.collect_and_wait()
    }

    /// Collects, and waits by a ticket for the cleanups that this queued.
    fn collect_and_wait(&mut self) -> Result<GcReport, Failure> {
        let report = self.heap.collect();
        self.reports.push(report);
        self.heap
            .wait_for_cleanups(PATIENCE)
            .map_err(|error| Failure::Run(format!("files are not closed: {error}")))?;
        Ok(report)
    }

    fn show_progress(&self) {
        self.progress.far(|| {
            let directories = counted(self.found.directories, "directory");
            let files = counted(self.found.files, "file");
            let opened = HumanCount(self.log.opened.load(Relaxed));
            let collections = counted(self.reports.len(), "collection");
            format!("{directories}, {files}, {opened} opened, {collections}")
        });
    }

    fn table(&self, path: &Path, before: Option<usize>, after: Option<usize>) -> String {
        let Tour { found, reports, log, complete, .. } = self;
        let n = HumanCount;
        let noted = |count: &AtomicU64| n(count.load(Relaxed));
        let descriptors = |count: Option<usize>| count.map_or("n/a".to_owned(), |n| n.to_string());
        let phase = |of: fn(&GcReport) -> Duration| {
            let total: Duration = reports.iter().map(of).sum();
            let longest = reports.iter().map(of).max().unwrap_or_default();
            let count = counted(reports.len(), "collection");
            format!("{total:.1?} in {count}, the longest {longest:.1?}")
        };
        let swept: u64 = reports.iter().map(|it| it.live_objects + it.swept_objects).sum();
        let seconds: f64 = reports.iter().map(|it| it.sweep_time.as_secs_f64()).sum();
        let rate = n((swept as f64 / seconds.max(1e-9)) as u64);
        let index =
            [(found.directories, "directory"), (found.files, "file"), (found.links, "link")]
                .map(|(count, one)| counted(count, one))
                .join(", ");
        let (opened, hits, peak) = (noted(&log.opened), noted(&log.hits), noted(&log.peak));
        let (allowed, read) = (n(log.limits.most_open), BinaryBytes(found.bytes_read));
        let cleanups = self.heap.stats().cleanups;
        let (registered, run) = (n(cleanups.registered), n(cleanups.executed));
        let (pending, closed) = (n(cleanups.backlog + cleanups.armed), noted(&log.closed));
        let workers = self.heap.cleanup_pool().max_workers();
        let mut table = Table::of_text();
        for (label, text) in [
            ("index", format!("{index}; {} skipped; {:.1?}", n(self.skipped.total()), self.time)),
            (
                "open files",
                format!(
                    "{opened} opened, {hits} reused, {peak} open at most of {allowed} allowed; \
                     {read} read"
                ),
            ),
            ("objects", format!("{} in the complete index", n(complete.live_objects))),
            ("bytes", BinaryBytes(complete.live_bytes).to_string()),
            ("mark", phase(|it| it.mark_time)),
            ("sweep", phase(|it| it.sweep_time)),
            ("sweep throughput", format!("{rate} objects/s")),
            (
                "cleanups",
                format!(
                    "{registered} registered / {run} run / {pending} pending; files they closed: \
                     {closed}"
                ),
            ),
            ("workers", format!("{} used of {workers}", log.threads())),
            (
                "file descriptors",
                format!("{} before / {} after", descriptors(before), descriptors(after)),
            ),
        ] {
            table.row([label.to_owned(), text]);
        }
        format!("sexton-bench tour of {path:?}\n\n{table}")
    }
}
