//! What `scale` and `demo` have measured: a work of Sexton's at any size, with any number of
//! threads that may collect.
//!
//! As in `run`, everything is done once before it is timed. What is small is timed more often, and
//! the median is told: a sweep of 100,000 objects takes microseconds.

use super::sexton::{self, Effort};
use crate::catalogue::{Out, Row, Work};
use crate::output::Failure;

/// The works that are measured so.
pub(crate) const WORKS: [Work; 4] = [Work::W2, Work::W2c, Work::W3, Work::W4];

/// The rows of a work that are measured so.
pub(crate) fn rows(work: Work) -> &'static [&'static str] {
    match work {
        Work::W2 => &["W2.50"],
        Work::W2c => &["W2c.50"],
        Work::W3 => &["W3.random", "W3.list", "W3.tree"],
        Work::W4 => &["W4.register", "W4.run"],
        _ => &[],
    }
}

/// Bytes of memory that a work takes at its peak for each object: of the object and its cleanup, of
/// the list of all objects from which a graph is linked, which doubles as it grows, and of the
/// random order of a graph.
pub(crate) fn bytes_per_object(work: Work) -> u64 {
    match work {
        Work::W3 => 32 + 24 + 8,
        Work::W4 => 32 + 64,
        _ => 32 + 16,
    }
}

/// Measures these rows of a work.
pub(crate) fn measure(work: Work, objects: usize, threads: usize) -> Result<(), Failure> {
    let mut out = Out::new(rows(work));
    let done = sexton::measure(work, objects, Effort { threads, times: times(objects) }, &mut out);
    out.finish().and(done.map_err(Failure::Run))
}

/// Measures one row of Sexton's that many times: the median.
pub(crate) fn median(row: &Row, size: usize, times: usize) -> Result<f64, String> {
    let mut out = Out::keep(row.id);
    sexton::measure(row.work, size, Effort { threads: 1, times }, &mut out)?;
    out.kept().first().copied().ok_or_else(|| format!("{} was not measured", row.id))
}

/// So often that together they are as long as one of 4 million, but not endlessly.
fn times(objects: usize) -> usize {
    (4_000_000 / objects.max(1)).clamp(1, 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_belong_to_their_works() {
        for work in WORKS {
            let rows = rows(work);
            assert!(!rows.is_empty(), "{work}");
            rows.iter().for_each(|id| assert_eq!(Row::find(id).unwrap().work, work, "{id}"));
        }
        assert!(rows(Work::W1).is_empty());
    }

    #[test]
    fn what_is_small_is_measured_more_often() {
        assert_eq!([1, 100_000, 1_000_000, 50_000_000].map(times), [9, 9, 4, 1]);
    }
}
