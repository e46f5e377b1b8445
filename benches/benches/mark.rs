//! Mark.
//!
//! - What does it cost to mark an object of a graph in which nearly every step misses the cache?
//! - Of a list, which gives the marker one object at a time, in order or shuffled? Of a tree?
//! - Of a wide array whose items hold no pointers, and so are marked by their bit alone?
//!
//! Every object is live, so the collections change nothing, and one heap serves all rounds. What is
//! reported is the mark phase that the collection itself timed; the time to sweep is not in it.

#![forbid(unsafe_code)]

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use sexton_bench::{Graph, Links, suite_objects};

fn mark(c: &mut Criterion) {
    let objects = suite_objects();
    let mut group = c.benchmark_group("mark");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(objects as u64));
    for (name, links) in [
        ("random graph", Links::Random),
        ("list", Links::List),
        ("list in shuffled order", Links::Shuffled),
        ("tree", Links::Tree),
        ("array of leaves", Links::Leaves),
    ] {
        let mut graph = Graph::new(links, objects, 1).expect("memory for the suite");
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| (0..iterations).map(|_| graph.collect().mark_time).sum());
        });
    }
    group.finish();
}

criterion_group! {
    name = suite;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = mark
}
criterion_main!(suite);
