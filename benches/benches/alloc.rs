//! Allocation.
//!
//! - What does an object of 32 bytes cost that dies at once, the collections included?
//! - And what does a `Box` from the system's allocator, freed at once, or as late as the collector
//!   frees?
//! - What does it cost to allocate into the holes that a sweep left, where half or nine tenths of the
//!   objects live? And for `Box`?

#![forbid(unsafe_code)]

use std::time::Duration;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use sexton::CleanupPool;
use sexton_bench::{
    GARBAGE_PER_CYCLE, Shape, ShapedHeap, box_garbage_at_once, box_garbage_later, box_refill,
    garbage, garbage_heap, sample, suite_objects,
};

fn all_garbage(c: &mut Criterion) {
    // A cycle's worth of objects and more, so that every iteration pays its share of collections.
    const OBJECTS: usize = 4 * GARBAGE_PER_CYCLE;
    let mut group = c.benchmark_group("alloc/all garbage, 32 bytes");
    group.throughput(Throughput::Elements(OBJECTS as u64));
    let mut heap = garbage_heap();
    group.bench_function("sexton, collections included", |b| {
        b.iter_custom(|iterations| (0..iterations).map(|_| garbage(&mut heap, OBJECTS)).sum());
    });
    group.bench_function("Box, freed at once", |b| {
        b.iter_custom(|iterations| (0..iterations).map(|_| box_garbage_at_once(OBJECTS)).sum());
    });
    group.bench_function("Box, freed a cycle later", |b| {
        b.iter_custom(|iterations| {
            (0..iterations).map(|_| box_garbage_later(OBJECTS, GARBAGE_PER_CYCLE)).sum()
        });
    });
    group.finish();
}

fn refill(c: &mut Criterion) {
    let objects = suite_objects();
    let mut group = c.benchmark_group("alloc/refill after sweep");
    group.sampling_mode(SamplingMode::Flat);
    let mut heap = ShapedHeap::new(&CleanupPool::manual());
    for live in [0.5, 0.9] {
        // As many as die, and within one part in a thousand as many as are freed of the boxes.
        let holes = dead(&mut heap, objects, live);
        group.throughput(Throughput::Elements(holes));
        let percent = format!("{} % live", live * 100.0);
        group.bench_function(BenchmarkId::new("sexton", &percent), |b| {
            b.iter_custom(|iterations| {
                sample(iterations, || refill_round(&mut heap, objects, live))
            });
        });
        group.bench_function(BenchmarkId::new("Box", &percent), |b| {
            b.iter_custom(|iterations| sample(iterations, || box_refill(objects, live).0));
        });
    }
    group.finish();
}

fn dead(heap: &mut ShapedHeap, objects: usize, live: f64) -> u64 {
    heap.fill(Shape::plain(objects, live), |_| {}).expect("memory for the suite");
    let swept = heap.collect().swept_objects;
    heap.clear();
    swept
}

fn refill_round(heap: &mut ShapedHeap, objects: usize, live: f64) -> Duration {
    heap.fill(Shape::plain(objects, live), |_| {}).expect("memory for the suite");
    let swept = heap.collect().swept_objects;
    let time = heap.refill(swept as usize);
    heap.clear();
    time
}

criterion_group! {
    name = suite;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = all_garbage, refill
}
criterion_main!(suite);
