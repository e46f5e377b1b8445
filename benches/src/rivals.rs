//! What a program without a collector does instead: `Box`, and the system's allocator.

use std::hint::black_box;
use std::time::{Duration, Instant};

type Boxed = Box<[u64; 4]>;

fn boxed(n: usize) -> Boxed {
    Box::new([n as u64; 4])
}

/// Times `count` boxes that are freed as soon as they are made: the allocator's best case.
pub fn box_garbage_at_once(count: usize) -> Duration {
    let start = Instant::now();
    for n in 0..count {
        black_box(boxed(n));
    }
    start.elapsed()
}

/// Times `count` boxes of which each is freed when `delay` others have been made after it.
pub fn box_garbage_later(count: usize, delay: usize) -> Duration {
    let mut ring: Vec<Option<Boxed>> = (0..delay).map(|n| Some(boxed(n))).collect();
    let start = Instant::now();
    for n in 0..count {
        ring[n % delay] = Some(boxed(n));
    }
    black_box(&ring);
    start.elapsed()
}

/// Allocates `count` boxes, frees all but a pseudo-random share `live` of them, and times how long it
/// takes to allocate as many as were freed. Returns that number, too.
pub fn box_refill(count: usize, live: f64) -> (Duration, u64) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut boxes: Vec<Option<Boxed>> = (0..count).map(|n| Some(boxed(n))).collect();
    for slot in &mut boxes {
        if rng.f64() >= live {
            *slot = None;
        }
    }
    let mut free: Vec<&mut Option<Boxed>> = boxes.iter_mut().filter(|b| b.is_none()).collect();
    let start = Instant::now();
    for (n, slot) in free.iter_mut().enumerate() {
        **slot = Some(boxed(n));
    }
    let time = start.elapsed();
    let refilled = free.len() as u64;
    black_box(&boxes);
    (time, refilled)
}
