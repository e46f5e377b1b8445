//! How soon a cleanup starts (W6), and how many run at a time (W8).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::heaps::{Nothing, per};
use sexton::{CleanupPool, Heap, Pacing};
use sexton_cleanup::{Client, Pool, PoolConfig, Role, Spawn};

use crate::catalogue::Out;
use crate::heaps::PATIENCE;

/// From publish to start, and from the start of a collection to the start of the cleanup of the one
/// object that it finds dead; both with one worker, which was asleep.
pub(super) fn w6(wakes: usize, out: &mut Out) -> Result<(), String> {
    let mut from_publish = publishes(wakes);
    out.put("W6.p50", nanos_at(&mut from_publish, 0.50));
    out.put("W6.p99", nanos_at(&mut from_publish, 0.99));
    let mut from_collection = collections(wakes)?;
    out.put("W6.collect.p50", nanos_at(&mut from_collection, 0.50));
    out.put("W6.collect.p99", nanos_at(&mut from_collection, 0.99));
    Ok(())
}

/// Where a cleanup tells when it started, in nanoseconds since the epoch; 0 while it has not.
#[derive(Clone)]
pub(super) struct Started {
    epoch: Instant,
    at: Arc<AtomicU64>,
}

impl Started {
    pub(super) fn new() -> Self {
        Started { epoch: Instant::now(), at: Arc::default() }
    }

    pub(super) fn now(&self) -> u64 {
        (self.epoch.elapsed().as_nanos() as u64).max(1)
    }

    /// Tells that it starts now.
    pub(super) fn tell(&self) {
        // Release: pairs with the acquire in `since`.
        self.at.store(self.now(), Ordering::Release);
    }

    /// A cleanup that tells.
    fn cleanup(&self) -> impl FnOnce() + Send + 'static {
        let started = self.clone();
        move || started.tell()
    }

    /// Waits until the cleanup has told, and gives the time from `sent`.
    pub(super) fn since(&self, sent: u64) -> Duration {
        let start = Instant::now();
        loop {
            match self.at.swap(0, Ordering::Acquire) {
                // The worker may need this processor.
                0 if start.elapsed() > Duration::from_micros(200) => thread::yield_now(),
                0 => std::hint::spin_loop(),
                started => return Duration::from_nanos(started.saturating_sub(sent)),
            }
        }
    }
}

/// Starts threads that are not joined: they leave when the pool is told to end.
struct Threads;

impl Spawn for Threads {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if role == Role::Monitor {
            return Err(io::ErrorKind::Unsupported.into());
        }
        thread::Builder::new().spawn(run).map(drop)
    }
}

/// The pool alone: the clock starts right before the call that publishes a block of one cleanup.
fn publishes(count: usize) -> Vec<Duration> {
    let config = PoolConfig { max_workers: 1, keep_alive: None, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(Threads)));
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let started = Started::new();
    let mut times = Vec::with_capacity(count);
    // The first one starts the worker.
    for nth in 0..=count {
        let (head, _) = registrar.register(None, started.cleanup());
        let cycle = client.begin_cycle();
        let mut local = cycle.local_block();
        local.push(head);
        pause();
        let sent = started.now();
        cycle.flush([local]);
        let time = started.since(sent);
        if nth > 0 {
            times.push(time);
        }
    }
    pool.begin_shutdown();
    pool.wait_until_workers_left(PATIENCE);
    times
}

/// With a heap: the clock starts right before the collection.
fn collections(count: usize) -> Result<Vec<Duration>, String> {
    let pool = CleanupPool::builder().max_workers(1).keep_alive(Duration::MAX).build();
    let mut heap: Heap<Nothing> =
        Heap::builder().cleanup_pool(&pool).pacing(Pacing::Manual).build(|_mc| Nothing);
    let started = Started::new();
    let mut times = Vec::with_capacity(count);
    for nth in 0..=count {
        heap.mutate(|mc, _| {
            mc.add_cleanup(mc.alloc(Nothing), started.cleanup());
        });
        pause();
        let sent = started.now();
        heap.collect();
        let time = started.since(sent);
        heap.wait_for_cleanups(PATIENCE).map_err(|error| error.to_string())?;
        if nth > 0 {
            times.push(time);
        }
    }
    Ok(times)
}

/// Cleanups that take a microsecond each: how close the workers come to the machine's best.
pub(super) fn w8(cleanups: usize, out: &mut Out) -> Result<(), String> {
    // Rounds before, so that threads run and records are warm.
    busy(cleanups.div_ceil(20), 2, usize::MAX)?;
    out.put("W8.plain", busy(cleanups, 2, usize::MAX)?);
    out.put("W8.stalls", busy(cleanups, 4, 1000)?);
    Ok(())
}

/// Nanoseconds per cleanup from the start of the collection to the end of the last one. One in
/// `stalls` sleeps for a millisecond; the others spin for a microsecond.
fn busy(cleanups: usize, workers: usize, stalls: usize) -> Result<f64, String> {
    let pool = CleanupPool::builder().max_workers(workers).build();
    let mut heap: Heap<Nothing> =
        Heap::builder().cleanup_pool(&pool).pacing(Pacing::Manual).build(|_mc| Nothing);
    heap.mutate(|mc, _| {
        for n in 1..=cleanups {
            let object = mc.alloc(Nothing);
            if n % stalls == 0 {
                mc.add_cleanup(object, || thread::sleep(Duration::from_millis(1)));
            } else {
                mc.add_cleanup(object, spin_for_a_microsecond);
            }
        }
    });
    let start = Instant::now();
    heap.collect();
    heap.wait_for_cleanups(PATIENCE).map_err(|error| error.to_string())?;
    Ok(per(start.elapsed(), cleanups as u64))
}

pub(super) fn spin_for_a_microsecond() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(1) {
        std::hint::spin_loop();
    }
}

/// Waits until a thread that was woken before is asleep again.
pub(super) fn pause() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(100) {
        std::hint::spin_loop();
    }
}

/// The time below which a share of the times lies, in nanoseconds; sorts them.
pub(super) fn nanos_at(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((share * last as f64).round() as usize).map_or(0.0, |time| time.as_nanos() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_nanos).collect();
        assert_eq!(nanos_at(&mut times, 0.0), 1.0);
        assert_eq!(nanos_at(&mut times, 0.99), 99.0);
        assert_eq!(nanos_at(&mut times, 1.0), 100.0);
        assert_eq!(nanos_at(&mut [], 0.5), 0.0);
    }
}
