//! Sexton's own rows, but for those of the pool (`sexton_cleanups`), of programs, of memory, and of
//! many threads (`shared`).

use std::iter;

use crate::heaps::{
    GARBAGE_PER_CYCLE, Graph, Links, Round, Shape, ShapedHeap, add_and_stop, garbage, garbage_heap,
    per,
};
use sexton::{CleanupPool, GcReport};

use super::{barrier, memory, programs, sexton_cleanups, shared};
use crate::catalogue::{self, Builtin, Out, ROWS, Row, Spread, Work};

/// Sexton.
pub(super) static SEXTON: Builtin =
    Builtin { name: catalogue::SEXTON, rows, measure: measure_once };

fn rows() -> Vec<&'static Row> {
    ROWS.iter().filter(|row| row.work != Work::Limits).collect()
}

/// A row, and how it follows from what was measured.
type Told<C> = (&'static str, fn(&C) -> f64);

/// How much is done for a number.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Threads that may collect.
    pub(super) threads: usize,
    /// How often it is timed, where a work can be timed again; the median is told.
    pub(super) times: usize,
}

impl Effort {
    fn heap(self) -> ShapedHeap {
        ShapedHeap::with_threads(&CleanupPool::builder().build(), self.threads)
    }

    /// Tells medians of what `cost` gives.
    fn tell<C>(
        self,
        out: &mut Out,
        rows: &[Told<C>],
        cost: impl FnMut() -> Result<C, String>,
    ) -> Result<(), String> {
        let costs: Result<Vec<C>, String> = iter::repeat_with(cost).take(self.times).collect();
        let costs = costs?;
        for (row, of) in rows {
            let spread = Spread::of(costs.iter().map(of).collect());
            spread.into_iter().for_each(|it| out.put(row, it.median));
        }
        Ok(())
    }
}

fn measure_once(work: Work, size: usize, out: &mut Out) -> Result<(), String> {
    measure(work, size, Effort { threads: 1, times: 1 }, out)
}

pub(super) fn measure(
    work: Work,
    size: usize,
    effort: Effort,
    out: &mut Out,
) -> Result<(), String> {
    match work {
        Work::W1 => return w1(size, effort, out),
        Work::W2 => return w2(size, effort, out),
        Work::W2c => return w2c(size, effort, out),
        Work::W2r => return w2r(size, out),
        Work::W3 => return w3(size, effort, out),
        Work::W4 => return w4(size, effort, out),
        Work::W5 => return w5(size, effort, out),
        Work::W6 => return sexton_cleanups::w6(size, out),
        Work::W7 => programs::binary_trees(size, out),
        Work::W8 => return sexton_cleanups::w8(size, out),
        Work::GCBench => programs::gc_bench(size, out),
        Work::Memory => {
            memory::measure_heaps(out);
            memory::measure_external(size, out);
            memory::measure_sizes(size, out);
            memory::measure_types(out);
            memory::measure_storms(size, out);
            memory::measure(size, out);
        }
        Work::Barrier => barrier::measure(size, out),
        Work::S0 => shared::s0(size, out),
        Work::S1 => return shared::s1(size, out),
        Work::S2 => return shared::s2(size, out),
        Work::S3 => return shared::s3(size, out),
        Work::S4 => return shared::s4(size, out),
        Work::S5 => shared::s5(size, out),
        Work::Limits => {}
    }
    Ok(())
}

fn heap() -> ShapedHeap {
    ShapedHeap::new(&CleanupPool::builder().build())
}

fn w1(objects: usize, effort: Effort, out: &mut Out) -> Result<(), String> {
    let mut heap = garbage_heap();
    garbage(&mut heap, 4 * GARBAGE_PER_CYCLE);
    let cost = || Ok(per(garbage(&mut heap, objects), objects as u64));
    effort.tell(out, &[("W1", |it| *it)], cost)
}

fn w2(objects: usize, effort: Effort, out: &mut Out) -> Result<(), String> {
    let mut heap = effort.heap();
    heap.round(Shape::plain(objects, 0.5), |_| {})?;
    for (id, live) in [("W2.0", 0.0), ("W2.10", 0.1), ("W2.50", 0.5), ("W2.90", 0.9)] {
        if out.wants(id) {
            let cost = || heap.round(Shape::plain(objects, live), |_| {});
            effort.tell(out, &[(id, Round::sweep)], cost)?;
        }
    }
    Ok(())
}

fn w2c(objects: usize, effort: Effort, out: &mut Out) -> Result<(), String> {
    let mut heap = effort.heap();
    let shape = |live| Shape { cleanups: 0.1, ..Shape::plain(objects, live) };
    heap.round(shape(0.5), |_| {})?;
    for (id, live) in [("W2c.0", 0.0), ("W2c.50", 0.5)] {
        if out.wants(id) {
            effort.tell(out, &[(id, Round::sweep)], || heap.round(shape(live), |_| {}))?;
        }
    }
    if !out.wants("W2c.0@manual") {
        return Ok(());
    }

    // The same while no worker runs what has been queued.
    let pool = CleanupPool::manual();
    let mut heap = ShapedHeap::new(&pool);
    let mut sweep = |live| {
        heap.fill(shape(live), |_| {})?;
        let report = heap.collect();
        pool.run_pending(usize::MAX);
        heap.clear();
        pool.run_pending(usize::MAX);
        Ok::<_, String>(per(report.sweep_time, report.live_objects + report.swept_objects))
    };
    sweep(0.5)?;
    out.put("W2c.0@manual", sweep(0.0)?);
    out.put("W2c.50@manual", sweep(0.5)?);
    Ok(())
}

fn w2r(objects: usize, out: &mut Out) -> Result<(), String> {
    let mut heap = heap();
    let mut refill = |live| {
        heap.fill(Shape::plain(objects, live), |_| {})?;
        let swept = heap.collect().swept_objects;
        let cost = per(heap.refill(swept as usize), swept);
        heap.clear();
        Ok::<f64, String>(cost)
    };
    // A refill may take spans that were never used. Their memory is to be warm, too.
    refill(0.5)?;
    for (id, live) in [("W2r.50", 0.5), ("W2r.90", 0.9)] {
        out.put(id, refill(live)?);
    }
    Ok(())
}

fn w3(objects: usize, effort: Effort, out: &mut Out) -> Result<(), String> {
    let Effort { threads, .. } = effort;
    for (id, links, threads) in [
        ("W3.random", Links::Random, threads),
        ("W3.random@2", Links::Random, 2),
        ("W3.list", Links::List, threads),
        ("W3.shuffled", Links::Shuffled, threads),
        ("W3.tree", Links::Tree, threads),
        ("W3.leaves", Links::Leaves, threads),
    ] {
        if !out.wants(id) {
            continue;
        }
        let mut graph = Graph::new(links, objects, threads)?;
        graph.collect();
        let mark = |it: &GcReport| per(it.mark_time, it.live_objects);
        effort.tell(out, &[(id, mark)], || Ok(graph.collect()))?;
    }
    Ok(())
}

fn w4(cleanups: usize, effort: Effort, out: &mut Out) -> Result<(), String> {
    let all = Shape { cleanups: 1.0, ..Shape::plain(cleanups, 0.0) };
    let mut in_order = effort.heap();
    in_order.round(all, |_| {})?;
    let rows: [Told<Round>; 2] = [("W4.register", Round::register), ("W4.run", Round::run)];
    effort.tell(out, &rows, || in_order.round(all, |_| {}))?;

    if !out.wants("W4.mixed.register") && !out.wants("W4.mixed.run") {
        return Ok(());
    }
    // A share of the cleanups has come and gone, and has left free records in mixed order.
    let mut mixed = heap();
    let some = Shape { cleanups: 0.1, ..Shape::plain(4 * cleanups, 0.5) };
    mixed.round(all, |_| {})?;
    mixed.round(some, |_| {})?;
    mixed.round(some, |_| {})?;
    let costs = mixed.round(all, |_| {})?;
    out.put("W4.mixed.register", costs.register());
    out.put("W4.mixed.run", costs.run());
    Ok(())
}

fn w5(cleanups: usize, effort: Effort, out: &mut Out) -> Result<(), String> {
    for (id, objects) in [("W5", 1), ("W5.many", 1 << 16)] {
        if out.wants(id) {
            let cost = || Ok(per(add_and_stop(cleanups, objects), cleanups as u64));
            effort.tell(out, &[(id, |it| *it)], cost)?;
        }
    }
    Ok(())
}
