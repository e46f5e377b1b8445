//! What the machine can do at best, measured like everything else: what no heap can beat.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::heaps::{OBJECT_BYTES, SEED, per};

use super::sexton_cleanups::{Started, nanos_at, pause, spin_for_a_microsecond};
use crate::catalogue::{Builtin, MACHINE, Out, Row, Work};

/// The machine that all others are measured on.
pub(super) static LIMITS: Builtin =
    Builtin { name: MACHINE, rows: || Row::of(Work::Limits).collect(), measure };

/// Bytes that no cache holds.
const MUCH: usize = 128 << 20;

fn measure(work: Work, objects: usize, out: &mut Out) -> Result<(), String> {
    if work != Work::Limits {
        return Ok(());
    }
    out.put("limit.stream", stream());
    out.put("limit.bitmap", bitmap(objects));
    let mut wakes = wakes(2000);
    out.put("limit.futex.p50", nanos_at(&mut wakes, 0.50));
    out.put("limit.futex.p99", nanos_at(&mut wakes, 0.99));
    out.put("limit.load", load());
    out.put("limit.bump", bump(objects));
    out.put("limit.spin", spin());
    out.put("limit.touch", touch());
    Ok(())
}

/// Gigabytes that one thread reads in a second, in order.
fn stream() -> f64 {
    let words = vec![1_u64; MUCH / size_of::<u64>()];
    let start = Instant::now();
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
    let time = start.elapsed();
    black_box(sum);
    MUCH as f64 / time.as_nanos() as f64
}

/// Nanoseconds per object to do to bitmaps what a sweep does: `alloc := mark`, and count what has
/// died.
fn bitmap(objects: usize) -> f64 {
    let words = objects.div_ceil(64);
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mark: Vec<u64> = (0..words).map(|_| rng.u64(..)).collect();
    let mut alloc = vec![u64::MAX; words];
    // Out of the nearest caches, as after a mark.
    black_box(stream());
    let start = Instant::now();
    let mut dead = 0;
    for (alloc, mark) in alloc.iter_mut().zip(&mark) {
        dead += (*alloc & !mark).count_ones();
        *alloc = *mark;
    }
    let time = start.elapsed();
    black_box((dead, alloc));
    per(time, 64 * words as u64)
}

/// How long a thread that parks takes from being woken to running.
fn wakes(count: usize) -> Vec<Duration> {
    let started = Started::new();
    // The thread leaves when nothing can wake it any more.
    let woken = Arc::new(AtomicBool::new(false));
    let sleeper = thread::spawn({
        let (woken, started) = (Arc::downgrade(&woken), started.clone());
        move || {
            while let Some(woken) = woken.upgrade() {
                if woken.swap(false, Ordering::Acquire) {
                    started.tell();
                }
                drop(woken);
                thread::park();
            }
        }
    });
    let wake = |_| {
        pause();
        let sent = started.now();
        woken.store(true, Ordering::Release);
        sleeper.thread().unpark();
        started.since(sent)
    };
    let times = (0..count).map(wake).collect();
    drop(woken);
    sleeper.thread().unpark();
    let _ = sleeper.join();
    times
}

/// Nanoseconds for a load whose address the load before it gave, anywhere in memory.
fn load() -> f64 {
    const LOADS: u64 = 2_000_000;
    // One cycle through all places (Sattolo's shuffle).
    let mut next: Vec<u32> = (0..(MUCH / size_of::<u32>()) as u32).collect();
    let mut rng = fastrand::Rng::with_seed(SEED);
    for n in (1..next.len()).rev() {
        next.swap(n, rng.usize(..n));
    }
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..LOADS {
        at = next[at as usize];
    }
    let time = start.elapsed();
    black_box(at);
    per(time, LOADS)
}

/// Nanoseconds to write an object behind the one before, in memory that is used again and again.
fn bump(objects: usize) -> f64 {
    const CAPACITY: usize = (1 << 20) / OBJECT_BYTES;
    let mut arena: Vec<[u64; 4]> = Vec::with_capacity(CAPACITY);
    let mut fill = |count: usize| {
        let start = Instant::now();
        for n in 0..count {
            if arena.len() == arena.capacity() {
                arena.clear();
            }
            arena.push([n as u64; 4]);
            black_box(arena.last());
        }
        start.elapsed()
    };
    fill(2 * CAPACITY);
    per(fill(objects), objects as u64)
}

/// Nanoseconds from one end of a cleanup of `W8` to the next, if two threads do nothing else: more
/// than half a microsecond, because it looks at the clock until the time is over, and a look takes
/// time.
fn spin() -> f64 {
    const EACH: u64 = 100_000;
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..EACH).for_each(|_| spin_for_a_microsecond()));
        }
    });
    per(start.elapsed(), 2 * EACH)
}

/// Nanoseconds to write an object to memory that the system has just given.
fn touch() -> f64 {
    const OBJECTS: usize = MUCH / OBJECT_BYTES;
    let mut fresh: Vec<[u64; 4]> = Vec::with_capacity(OBJECTS);
    let start = Instant::now();
    for n in 0..OBJECTS {
        fresh.push([n as u64; 4]);
    }
    let time = start.elapsed();
    black_box(&fresh);
    per(time, OBJECTS as u64)
}
