//! The rows: everything that a run can measure, with unit and goal.
//!
//! Their ids are what peers are asked for and what a record is kept under, so they do not change.

use crate::heaps::OBJECT_BYTES;
use indicatif::BinaryBytes;

use super::work::Work::{self, *};
use Limit::{Fixed, SameAs};

/// One thing that is measured.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    /// Its name in records, and in what peers print.
    pub(crate) id: &'static str,
    /// The work it is a part of.
    pub(crate) work: Work,
    /// What it is, in words; `{}` stands for the bytes of as many objects as its size says.
    pub(crate) title: &'static str,
    /// What its numbers are.
    pub(crate) unit: &'static str,
    /// What Sexton wants to stay at or below, on the machine that the project's goals were set on.
    pub(crate) goal: Option<f64>,
    /// The row of the machine's limits that it cannot beat, and how that translates into it.
    pub(crate) limit: Option<Limit>,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
}

/// What the machine allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// What another row measured.
    SameAs(&'static str),
    /// Moving an object of 32 bytes at the bandwidth that another row measured in GB/s.
    Bandwidth(&'static str),
    /// A number that follows from what the work is.
    Fixed(f64),
}

const NS: &str = "ns per object";
const NS_CLEANUP: &str = "ns per cleanup";
const NS_WRITE: &str = "ns per write";
const BANDWIDTH: Limit = Limit::Bandwidth("limit.stream");

const fn row(id: &'static str, work: Work, title: &'static str, unit: &'static str) -> Row {
    Row { id, work, title, unit, goal: None, limit: None, more_is_better: false }
}

impl Row {
    const fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    const fn limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    const fn more_is_better(mut self) -> Self {
        self.more_is_better = true;
        self
    }

    /// Whether its numbers are of one object or cleanup, and not of a whole program or heap.
    pub(crate) fn is_by_the_piece(&self) -> bool {
        !matches!(self.work, Work::W7 | Work::S1 | Work::S5)
    }

    /// How much of it is done: as its work says, but cleanups are always as many as in W4.
    pub(crate) fn size(&self, quick: bool) -> usize {
        let work = if self.id == "memory.cleanup" { Work::W4 } else { self.work };
        work.size(quick)
    }

    /// A title of it, with its size.
    pub(crate) fn sized(&self, title: &str, quick: bool) -> String {
        let bytes = (self.size(quick) * OBJECT_BYTES) as u64;
        title.replace("{}", &BinaryBytes(bytes).to_string())
    }

    /// The row with this id.
    pub(crate) fn find(id: &str) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.id == id)
    }

    /// The rows of a work.
    pub(crate) fn of(work: Work) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(move |row| row.work == work)
    }
}

/// The rows that a user cares about first, and what a picture calls them.
pub(crate) const BEST: [(&str, &str); 6] = [
    ("W1", "Allocation, and its collections"),
    ("W2.50", "Sweep, half of the objects live"),
    ("W3.random", "Mark, random graph"),
    ("W4.run", "Cleanups, from death to the last run"),
    ("W7.wall", "The program binary-trees"),
    ("S5.max", "Longest pause, {} live"),
];

/// All rows, in the order in which they are shown.
#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    row("W1", W1, "alloc of 32 bytes, all garbage, collections included", NS)
        .goal(3.0).limit(SameAs("limit.bump")),
    row("W2.0", W2, "sweep of plain objects, 0 % live", NS)
        .goal(0.05).limit(SameAs("limit.bitmap")),
    row("W2.10", W2, "sweep of plain objects, 10 % live", NS)
        .goal(0.05).limit(SameAs("limit.bitmap")),
    row("W2.50", W2, "sweep of plain objects, 50 % live", NS)
        .goal(0.05).limit(SameAs("limit.bitmap")),
    row("W2.90", W2, "sweep of plain objects, 90 % live", NS)
        .goal(0.05).limit(SameAs("limit.bitmap")),
    row("W2c.0", W2c, "sweep, 10 % carry a cleanup, 0 % live", NS).goal(0.5),
    row("W2c.50", W2c, "sweep, 10 % carry a cleanup, 50 % live", NS).goal(0.5),
    row("W2r.50", W2r, "alloc after a sweep, 50 % live", NS).goal(5.0).limit(SameAs("limit.bump")),
    row("W2r.90", W2r, "alloc after a sweep, 90 % live", NS).goal(13.0).limit(SameAs("limit.bump")),
    row("W3.random", W3, "mark, random graph, two edges each", NS).goal(20.0).limit(BANDWIDTH),
    row("W3.list", W3, "mark, list in the order of allocation", NS).goal(3.0).limit(BANDWIDTH),
    row("W3.shuffled", W3, "mark, list in shuffled order", NS).limit(SameAs("limit.load")),
    row("W3.tree", W3, "mark, complete binary tree", NS).goal(3.0).limit(BANDWIDTH),
    row("W3.leaves", W3, "mark, array of objects without pointers", NS),
    row("W4.register", W4, "register a cleanup", NS_CLEANUP).goal(12.0),
    row("W4.run", W4, "start of the collection to last run", NS_CLEANUP).goal(15.0),
    row("W4.mixed.register", W4, "register, records reused in mixed order", NS_CLEANUP),
    row("W4.mixed.run", W4, "collection to last run, the same", NS_CLEANUP),
    row("W5", W5, "register and stop a cleanup, one object", NS_CLEANUP).goal(15.0),
    row("W5.many", W5, "register and stop, among 65,536 objects", NS_CLEANUP),
    row("W6.p50", W6, "publish to start of the cleanup, median", "ns")
        .goal(6_000.0).limit(SameAs("limit.futex.p50")),
    row("W6.p99", W6, "publish to start of the cleanup, 99th percentile", "ns")
        .goal(20_000.0).limit(SameAs("limit.futex.p99")),
    row("W6.collect.p50", W6, "start of the collection to start of the cleanup, median", "ns")
        .limit(SameAs("limit.futex.p50")),
    row("W6.collect.p99", W6, "the same, 99th percentile", "ns").limit(SameAs("limit.futex.p99")),
    row("W7.wall", W7, "binary-trees, wall time", "ms").goal(450.0),
    row("W7.rss", W7, "binary-trees, peak of resident memory", "MB").goal(80.0),
    row("GCBench.wall", GCBench, "GCBench, wall time", "ms"),
    row("W8.plain", W8, "cleanups of 1 us, 2 workers", NS_CLEANUP)
        .goal(525.0).limit(SameAs("limit.spin")),
    row("W8.stalls", W8, "1 in 1000 sleeps for 1 ms, 4 workers", NS_CLEANUP)
        .goal(645.0).limit(SameAs("limit.spin")),
    row("memory.object", Memory, "live object of 32 bytes", "bytes").goal(34.0).limit(Fixed(32.0)),
    row("memory.cleanup", Memory, "registered cleanup, on top", "bytes").goal(48.0),
    row("memory.spike", Memory, "given back two cycles after a spike", "% of the spike")
        .more_is_better(),
    row("memory.storm", Memory, "after a storm, for a survivor, one in 60,000", "bytes")
        .goal(131_072.0),
    row("memory.phases", Memory, "after five storms, a type each, one in 1,000", "bytes")
        .goal(8192.0),
    row("memory.type", Memory, "type with one live object", "bytes").goal(8192.0),
    row("memory.heap", Memory, "heap with one object and one cleanup", "bytes").goal(4096.0),
    row("memory.heap.left", Memory, "the same, left when all have gone", "bytes"),
    row("memory.heap.time", Memory, "to make such a heap", "us").goal(5.0),
    row("memory.size.20000", Memory, "waste, objects of 20,000 bytes", "% of the objects")
        .goal(12.5),
    row("memory.size.33000", Memory, "waste, objects of 33,000 bytes", "% of the objects")
        .goal(12.5),
    row("memory.size.65544", Memory, "waste, objects of 65,544 bytes", "% of the objects")
        .goal(12.5),
    row("memory.external", Memory, "peak, payloads that own 256 KiB each die, 64 KiB live", "MB")
        .goal(64.0),
    row("barrier.set", Barrier, "set of a `GcCell`; no cycle marks", NS_WRITE),
    row("barrier.borrow_mut", Barrier, "mutable borrow of a `GcRefCell`, and a write", NS_WRITE),
    row("barrier.lock", Barrier, "lock of a `GcMutex`, and a write", NS_WRITE),
    row("S0.session", S0, "enter and leave an empty session", "ns").goal(15.0),
    row("S1.1", S1, "binary-trees, 1 thread", "ms per program"),
    row("S1.2", S1, "binary-trees, 2 threads, one program each", "ms per program"),
    row("S2.1", S2, "map with weak values and cleanups, 1 thread", "ns per operation"),
    row("S2.2", S2, "map with weak values and cleanups, 2 threads", "ns per operation"),
    row("S3.1", S3, "alloc of 32 bytes, all garbage, 1 thread", NS),
    row("S3.2", S3, "alloc of 32 bytes, all garbage, 2 threads", NS),
    row("S4.1", S4, "alloc with a cleanup each, to the last run, 1 thread", NS_CLEANUP),
    row("S4.2", S4, "alloc with a cleanup each, to the last run, 2 threads", NS_CLEANUP),
    row("S5.p99", S5, "pauses beside {} of live objects, 99th percentile", "ms"),
    row("S5.max", S5, "pauses beside {} of live objects, the longest", "ms"),
    row("limit.stream", Limits, "sequential read", "GB/s").more_is_better(),
    row("limit.bitmap", Limits, "pass over two bitmaps", "ns per bit"),
    row("limit.futex.p50", Limits, "wake-up of a thread, median", "ns"),
    row("limit.futex.p99", Limits, "wake-up of a thread, 99th percentile", "ns"),
    row("limit.load", Limits, "dependent load in 128 MB", "ns"),
    row("limit.bump", Limits, "bump allocation of 32 bytes, reused", NS),
    row("limit.spin", Limits, "1 us of spinning, on 2 threads that do nothing else", "ns per spin"),
    row("limit.touch", Limits, "first touch of fresh memory", "ns per 32 bytes"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_every_work_has_rows() {
        for (n, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..n].iter().all(|other| other.id != row.id), "{}", row.id);
        }
        Work::ALL.iter().for_each(|&work| assert!(Row::of(work).next().is_some(), "{work}"));
    }

    #[test]
    fn rows_of_a_work_stand_together_in_its_order() {
        let mut works: Vec<Work> = ROWS.iter().map(|row| row.work).collect();
        works.dedup();
        assert_eq!(works, Work::ALL);
    }

    #[test]
    fn a_title_has_the_size_of_its_run() {
        let row = Row::find("S5.max").unwrap();
        let title = |quick| row.sized("beside {}", quick);
        assert_eq!([title(false), title(true)], ["beside 1.00 GiB", "beside 64.00 MiB"]);
    }

    #[test]
    fn the_rows_of_the_small_picture_exist() {
        BEST.iter().for_each(|(id, _)| assert!(Row::find(id).is_some(), "{id}"));
    }

    #[test]
    fn limits_name_rows_that_exist() {
        for row in ROWS {
            match row.limit {
                Some(Limit::SameAs(id) | Limit::Bandwidth(id)) => {
                    assert_eq!(Row::find(id).map(|row| row.work), Some(Work::Limits), "{id}");
                }
                Some(Limit::Fixed(_)) | None => {}
            }
        }
    }
}
