//! Cleanups, from registration to run, without the heap's other work.
//!
//! - What does it cost to register a cleanup? To register one and stop it? And to box a closure and
//!   keep it in a `Vec`, which is the least that any registry must do?
//! - How fast does one thread run queued cleanups? And closures out of a mutex and a `VecDeque`, out
//!   of crossbeam's `SegQueue`, out of crossbeam's channel?
//! - How long after its publication does a cleanup start to run, on a worker that was asleep? And a
//!   closure sent to a thread that waits on a condition variable, or on crossbeam's channel?
//!
//! The rivals do less: nothing of theirs can be stopped, counted or waited for.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::hint::{black_box, spin_loop};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use sexton_bench::{add_and_stop, register, sample, suite_objects};
use sexton_cleanup::{Client, Cycle, Head, LocalBlock, Pool, PoolConfig, Registrar, Role, Spawn};

type Job = Box<dyn FnOnce() + Send>;

fn job(n: usize) -> impl FnOnce() + Send + 'static {
    move || {
        black_box(n);
    }
}

fn registration(c: &mut Criterion) {
    let count = suite_objects();
    let mut group = c.benchmark_group("cleanup/register");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("sexton", |b| {
        b.iter_custom(|iterations| sample(iterations, || register(count)));
    });
    for (name, objects) in
        [("sexton, and stop, one object", 1), ("sexton, and stop, 65,536 objects", 1 << 16)]
    {
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| sample(iterations, || add_and_stop(count, objects)));
        });
    }
    group.bench_function("Box into a Vec", |b| {
        b.iter_custom(|iterations| {
            sample(iterations, || {
                let mut jobs: Vec<Job> = Vec::with_capacity(count);
                let start = Instant::now();
                jobs.extend((0..count).map(|n| Box::new(job(n)) as Job));
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// A queue of closures, pushed to and popped by the same thread.
trait Jobs {
    fn push(&self, job: Job);
    fn pop(&self) -> Option<Job>;
}

impl Jobs for Mutex<VecDeque<Job>> {
    fn push(&self, job: Job) {
        self.lock().expect("no job panics").push_back(job);
    }

    fn pop(&self) -> Option<Job> {
        self.lock().expect("no job panics").pop_front()
    }
}

impl Jobs for crossbeam_queue::SegQueue<Job> {
    fn push(&self, job: Job) {
        crossbeam_queue::SegQueue::push(self, job);
    }

    fn pop(&self) -> Option<Job> {
        crossbeam_queue::SegQueue::pop(self)
    }
}

struct Channel {
    sender: crossbeam_channel::Sender<Job>,
    receiver: crossbeam_channel::Receiver<Job>,
}

impl Jobs for Channel {
    fn push(&self, job: Job) {
        self.sender.send(job).expect("the receiver is here");
    }

    fn pop(&self) -> Option<Job> {
        self.receiver.try_recv().ok()
    }
}

/// Times how long one thread takes to run `count` queued closures.
fn drain_jobs(jobs: &impl Jobs, count: usize) -> Duration {
    (0..count).for_each(|n| jobs.push(Box::new(job(n))));
    let start = Instant::now();
    while let Some(job) = jobs.pop() {
        job();
    }
    start.elapsed()
}

fn drain(c: &mut Criterion) {
    let count = suite_objects();
    let mut group = c.benchmark_group("cleanup/drain, one thread");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(count as u64));

    let pool = Pool::new(PoolConfig::default(), None);
    let origin = Client::new(&pool);
    let mut registrar = origin.registrar();
    group.bench_function("sexton", |b| {
        b.iter_custom(|iterations| {
            sample(iterations, || {
                let heads: Vec<Head> =
                    (0..count).map(|n| registrar.register(None, job(n)).0).collect();
                publish(&origin, heads);
                let start = Instant::now();
                assert_eq!(pool.run_pending(usize::MAX), count);
                start.elapsed()
            })
        });
    });

    let mutexed = Mutex::new(VecDeque::new());
    group.bench_function("mutex and VecDeque", |b| {
        b.iter_custom(|iterations| sample(iterations, || drain_jobs(&mutexed, count)));
    });
    let queue = crossbeam_queue::SegQueue::new();
    group.bench_function("crossbeam SegQueue", |b| {
        b.iter_custom(|iterations| sample(iterations, || drain_jobs(&queue, count)));
    });
    let (sender, receiver) = crossbeam_channel::unbounded();
    let channel = Channel { sender, receiver };
    group.bench_function("crossbeam channel", |b| {
        b.iter_custom(|iterations| sample(iterations, || drain_jobs(&channel, count)));
    });
    group.finish();
}

/// Publishes cleanups as a sweep does.
fn publish(origin: &Client, heads: Vec<Head>) {
    let (cycle, local) = queue(origin, heads);
    cycle.flush([local]);
}

fn queue(origin: &Client, heads: Vec<Head>) -> (Cycle, LocalBlock) {
    let cycle = origin.begin_cycle();
    let mut local = cycle.local_block();
    heads.into_iter().for_each(|head| local.push(head));
    (cycle, local)
}

/// Where a job tells when it started, in nanoseconds since the epoch; 0 while it has not.
#[derive(Clone)]
struct Started {
    epoch: Instant,
    at: Arc<AtomicU64>,
}

impl Started {
    fn new() -> Self {
        Started { epoch: Instant::now(), at: Arc::default() }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn tell(&self) {
        self.at.store(self.now().max(1), Ordering::Release);
    }

    /// Times from the call of `send` to when the job that it sent calls `tell`. Before the call it
    /// waits long enough for the receiving thread to fall asleep.
    fn latency(&self, send: impl FnOnce()) -> Duration {
        self.at.store(0, Ordering::Relaxed);
        let awake = Instant::now();
        while awake.elapsed() < Duration::from_micros(100) {
            spin_loop();
        }
        let sent = self.now();
        send();
        loop {
            match self.at.load(Ordering::Acquire) {
                // The other thread may need this core.
                0 => thread::yield_now(),
                started => return Duration::from_nanos(started.saturating_sub(sent)),
            }
        }
    }

    fn latencies(&self, iterations: u64, mut send: impl FnMut(Started)) -> Duration {
        (0..iterations).map(|_| self.latency(|| send(self.clone()))).sum()
    }
}

struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Spawn for Threads {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if role == Role::Monitor {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let handle = thread::Builder::new().spawn(run)?;
        self.0.lock().expect("no holder panics").push(handle);
        Ok(())
    }
}

fn wake(c: &mut Criterion) {
    let mut group = c.benchmark_group("cleanup/wake, publish to start");
    group.sample_size(50);
    let started = Started::new();

    let config = PoolConfig { max_workers: 1, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(Threads(Mutex::default()))));
    let origin = Client::new(&pool);
    let mut registrar: Registrar = origin.registrar();
    group.bench_function("sexton", |b| {
        b.iter_custom(|iterations| {
            let each = |_| {
                let tell = started.clone();
                let (head, _) = registrar.register(None, move || tell.tell());
                let (cycle, local) = queue(&origin, vec![head]);
                started.latency(|| {
                    cycle.flush([local]);
                })
            };
            (0..iterations).map(each).sum()
        });
    });
    pool.begin_shutdown();
    pool.wait_until_workers_left(Duration::from_secs(10));

    let shared: Arc<(Mutex<VecDeque<Option<Job>>>, Condvar)> = Arc::default();
    let waiter = thread::spawn({
        let shared = shared.clone();
        move || {
            loop {
                let (jobs, filled) = &*shared;
                let mut jobs = jobs.lock().expect("no job panics");
                let job = loop {
                    match jobs.pop_front() {
                        Some(job) => break job,
                        None => jobs = filled.wait(jobs).expect("no job panics"),
                    }
                };
                drop(jobs);
                match job {
                    Some(job) => job(),
                    None => return,
                }
            }
        }
    });
    let send = |job: Option<Job>| {
        shared.0.lock().expect("no job panics").push_back(job);
        shared.1.notify_one();
    };
    group.bench_function("mutex and condition variable", |b| {
        b.iter_custom(|iterations| {
            started.latencies(iterations, |tell| send(Some(Box::new(move || tell.tell()))))
        });
    });
    send(None);
    waiter.join().expect("no job panics");

    let (sender, receiver) = crossbeam_channel::unbounded::<Job>();
    let waiter = thread::spawn(move || receiver.iter().for_each(|job| job()));
    group.bench_function("crossbeam channel", |b| {
        b.iter_custom(|iterations| {
            started.latencies(iterations, |tell| {
                sender.send(Box::new(move || tell.tell())).expect("the receiver is here");
            })
        });
    });
    drop(sender);
    waiter.join().expect("no job panics");
    group.finish();
}

criterion_group! {
    name = suite;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = registration, drain, wake
}
criterion_main!(suite);
