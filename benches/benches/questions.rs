//! Questions about single operations, for Criterion:
//! `cargo bench -p sexton-bench --features criterion`.
//!
//! - What does an object cost, from allocation to the end of its sweep? And a `Box`?
//! - What does an attached cleanup cost the sweep of a heap of which nine in ten objects live?
//! - What does it cost to register a cleanup and stop it? And to box a closure into a `Vec`?
//! - How long after a collection has a cleanup run, on a worker that was asleep? And a closure that
//!   is handed to a thread behind a mutex and a condition variable?
//!
//! The rivals do less: none of theirs can be stopped, counted or waited for. `sexton-bench run` has
//! the whole table; Criterion compares two versions of one operation and says whether they differ.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sexton::{CleanupPool, Gc, GcRefCell, Heap, Leaf, Pacing, Trace};

const OBJECTS: usize = 100_000;

type Object = Leaf<[u64; 4]>;

#[derive(Trace, Default)]
struct World<'gc> {
    live: GcRefCell<Vec<Gc<'gc, Object>>>,
}

fn heap(pool: &CleanupPool) -> Heap<World<'static>> {
    Heap::builder().cleanup_pool(pool).pacing(Pacing::Manual).build(|_mc| World::default())
}

/// Makes a heap of which nine objects in ten live, and `cleanups` in a hundred have a cleanup.
fn shaped(pool: &CleanupPool, cleanups: usize) -> Heap<World<'static>> {
    let mut heap = heap(pool);
    heap.mutate(|mc, world| {
        let mut live = world.live.borrow_mut(mc);
        for i in 0..OBJECTS {
            let object = mc.alloc(Leaf::new([i as u64; 4]));
            if i % 100 < cleanups {
                mc.add_cleanup(object, || ());
            }
            if i % 10 != 0 {
                live.push(object);
            }
        }
    });
    heap
}

fn alloc(c: &mut Criterion) {
    let mut group = c.benchmark_group("an object of 32 bytes, allocated and collected");
    group.throughput(Throughput::Elements(OBJECTS as u64));
    let mut heap = heap(&CleanupPool::manual());
    group.bench_function("sexton", |b| {
        b.iter(|| {
            heap.mutate(|mc, _| {
                (0..OBJECTS).for_each(|i| _ = black_box(mc.alloc(Leaf::new([i as u64; 4]))));
            });
            heap.collect().swept_objects
        });
    });
    group.bench_function("Box", |b| {
        b.iter(|| (0..OBJECTS).for_each(|i| drop(black_box(Box::new([i as u64; 4])))));
    });
    group.finish();
}

fn sweep(c: &mut Criterion) {
    let mut group = c.benchmark_group("a collection, nine in ten objects live");
    group.throughput(Throughput::Elements(OBJECTS as u64));
    for (name, cleanups) in [("no cleanup", 0), ("one in ten with a cleanup", 10)] {
        let pool = CleanupPool::manual();
        group.bench_function(name, |b| {
            b.iter_batched(
                || shaped(&pool, cleanups),
                |mut heap| {
                    black_box(heap.collect().swept_objects);
                    heap
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn register(c: &mut Criterion) {
    let mut group = c.benchmark_group("a cleanup, registered and stopped");
    let mut heap = heap(&CleanupPool::manual());
    group.bench_function("sexton", |b| {
        heap.mutate(|mc, world| {
            let object = mc.alloc(Leaf::new([0; 4]));
            world.live.borrow_mut(mc).push(object);
            b.iter(|| mc.add_cleanup(object, || ()).stop());
        });
    });
    group.bench_function("Box into a Vec and out of it", |b| {
        let mut jobs: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        b.iter(|| {
            let n = jobs.len();
            jobs.push(black_box(Box::new(move || _ = black_box(n))));
            jobs.pop().is_some()
        });
    });
    group.finish();
}

/// Jobs for one thread, behind a lock.
#[derive(Default)]
struct Jobs {
    queue: Mutex<VecDeque<Arc<Done>>>,
    some: Condvar,
}

/// A flag that the asking thread looks at, as long as it takes.
#[derive(Default)]
struct Done(Mutex<bool>, Condvar);

impl Done {
    fn set(&self) {
        *self.0.lock().expect("no holder panics") = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let done = self.0.lock().expect("no holder panics");
        drop(self.1.wait_while(done, |done| !*done).expect("no holder panics"));
    }
}

fn wake(c: &mut Criterion) {
    let mut group = c.benchmark_group("from a death to its cleanup's end, worker asleep");
    let pool = CleanupPool::builder().max_workers(1).keep_alive(Duration::MAX).build();
    let mut heap = heap(&pool);
    group.bench_function("sexton", |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let done = Arc::new(Done::default());
                let told = done.clone();
                heap.mutate(|mc, _| {
                    _ = mc.add_cleanup(mc.alloc(Leaf::new([0; 4])), move || told.set());
                });
                let start = Instant::now();
                heap.collect();
                done.wait();
                total += start.elapsed();
            }
            total
        });
    });
    group.bench_function("mutex and condition variable", |b| {
        let jobs = Arc::new(Jobs::default());
        let worker = jobs.clone();
        // It ends with the process.
        thread::spawn(move || {
            loop {
                let queue = worker.queue.lock().expect("no holder panics");
                let empty = |queue: &mut VecDeque<_>| queue.is_empty();
                let mut queue = worker.some.wait_while(queue, empty).expect("no holder panics");
                let job = queue.pop_front();
                drop(queue);
                job.iter().for_each(|done| done.set());
            }
        });
        b.iter(|| {
            let done = Arc::new(Done::default());
            jobs.queue.lock().expect("no holder panics").push_back(done.clone());
            jobs.some.notify_one();
            done.wait();
        });
    });
    group.finish();
}

criterion_group!(questions, alloc, sweep, register, wake);
criterion_main!(questions);
