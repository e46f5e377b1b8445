//! Sweep.
//!
//! - What does it cost to sweep plain objects, and does it matter how many of them live?
//! - What does it add if one in ten carries a cleanup?
//! - What does it add if the dead have drop glue, which must run?
//!
//! What is reported is the sweep phase that the collection itself timed, the publishing of cleanups
//! included and their running not. Throughput counts all objects, dead and alive.

#![forbid(unsafe_code)]

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use sexton::CleanupPool;
use sexton_bench::{Shape, ShapedHeap, sample, suite_objects};

fn sweep(c: &mut Criterion) {
    let objects = suite_objects();
    // Nobody runs cleanups while a sweep is timed.
    let pool = CleanupPool::manual();
    let mut heap = ShapedHeap::new(&pool);
    let mut group = c.benchmark_group("sweep");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(objects as u64));
    for (kind, cleanups, dropping) in
        [("plain", 0.0, false), ("1 in 10 with a cleanup", 0.1, false), ("drop glue", 0.0, true)]
    {
        for live in [0.0, 0.1, 0.5, 0.9] {
            let shape = Shape { objects, live, cleanups, dropping };
            group.bench_function(format!("{kind}/{} % live", live * 100.0), |b| {
                b.iter_custom(|iterations| sample(iterations, || round(&mut heap, &pool, shape)));
            });
        }
    }
    group.finish();
}

fn round(heap: &mut ShapedHeap, pool: &CleanupPool, shape: Shape) -> Duration {
    heap.fill(shape, |_| {}).expect("memory for the suite");
    let time = heap.collect().sweep_time;
    heap.clear();
    pool.run_pending(usize::MAX);
    time
}

criterion_group! {
    name = suite;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = sweep
}
criterion_main!(suite);
