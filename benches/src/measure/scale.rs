//! What `scale` has measured: a work of Sexton's at any size, with any number of threads that may
//! collect.
//!
//! As in `run`, everything is done once before it is timed. What is small is timed more often, and
//! the median is told: a sweep of 100,000 objects takes microseconds.

use crate::catalogue::{Spread, per};
use crate::heaps::{Graph, Links, Shape, ShapedHeap};
use sexton::CleanupPool;

use super::sexton::{Costs, sweep};
use crate::catalogue::Out;
use crate::catalogue::Work;

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

pub(crate) fn measure(
    work: Work,
    objects: usize,
    threads: usize,
    out: &mut Out,
) -> Result<(), String> {
    match work {
        Work::W2 => sweeps(Shape::plain(objects, 0.5), threads, out, &[("W2.50", |it| it.sweep)]),
        Work::W2c => {
            let shape = Shape { cleanups: 0.1, ..Shape::plain(objects, 0.5) };
            sweeps(shape, threads, out, &[("W2c.50", |it| it.sweep)])
        }
        Work::W3 => marks(objects, threads, out),
        Work::W4 => {
            let shape = Shape { cleanups: 1.0, ..Shape::plain(objects, 0.0) };
            let told: &[Told] = &[("W4.register", |it| it.register), ("W4.run", |it| it.until_run)];
            sweeps(shape, threads, out, told)
        }
        _ => Ok(()),
    }
}

/// A row, and which of the costs it is.
type Told = (&'static str, fn(&Costs) -> f64);

fn sweeps(shape: Shape, threads: usize, out: &mut Out, told: &[Told]) -> Result<(), String> {
    let mut heap = ShapedHeap::with_threads(&CleanupPool::builder().build(), threads);
    sweep(&mut heap, shape)?;
    let costs: Result<Vec<Costs>, String> =
        (0..repeats(shape.objects)).map(|_| sweep(&mut heap, shape)).collect();
    let costs = costs?;
    for (row, cost) in told {
        tell_median(out, row, costs.iter().map(cost).collect());
    }
    Ok(())
}

fn marks(objects: usize, threads: usize, out: &mut Out) -> Result<(), String> {
    for (row, links) in
        [("W3.random", Links::Random), ("W3.list", Links::List), ("W3.tree", Links::Tree)]
    {
        let mut graph = Graph::new(links, objects, threads).map_err(|error| error.to_string())?;
        graph.collect();
        let mark = |_| {
            let report = graph.collect();
            per(report.mark_time, report.live_objects)
        };
        tell_median(out, row, (0..repeats(objects)).map(mark).collect());
    }
    Ok(())
}

fn tell_median(out: &mut Out, row: &str, values: Vec<f64>) {
    if let Some(spread) = Spread::of(values) {
        out.put(row, spread.median);
    }
}

/// So often that together they are as long as one of 4 million, but not endlessly.
fn repeats(objects: usize) -> usize {
    (4_000_000 / objects.max(1)).clamp(1, 9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Row;

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
        assert_eq!([1, 100_000, 1_000_000, 50_000_000].map(repeats), [9, 9, 4, 1]);
    }
}
