//! The rounds that are timed as a whole, and how Criterion is told of them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sexton::{CleanupPool, Gc, GcRefCell, Heap, Mode, Mutation, OnDrop, Payload, Trace};

use crate::heaps::{self, Plain};

/// Objects that a heap with default pacing allocates between two cycles when all of them die.
pub const GARBAGE_PER_CYCLE: usize =
    sexton::Pacing::DEFAULT_MIN_BYTES as usize / heaps::OBJECT_BYTES;

/// An empty heap with default pacing.
pub fn garbage_heap() -> Heap<Nothing> {
    Heap::new(|_mc| Nothing)
}

/// The root of a heap that keeps nothing; also an object without a size.
#[derive(Trace)]
pub struct Nothing;

/// Times `count` allocations of objects that die at once, the collections that the pacer asks for
/// included.
pub fn garbage(heap: &mut Heap<Nothing>, count: usize) -> Duration {
    const PER_SESSION: usize = 1024;
    let start = Instant::now();
    for first in (0..count).step_by(PER_SESSION) {
        heap.mutate(|mc, _| alloc_garbage(mc, PER_SESSION.min(count - first)));
    }
    start.elapsed()
}

/// Allocates `count` objects, and keeps none.
#[inline]
pub fn alloc_garbage<M: Mode>(mc: &Mutation<'_, M>, count: usize)
where
    Plain: Payload<M>,
{
    for n in 0..count {
        black_box(&*mc.alloc(heaps::plain(n)));
    }
}

#[derive(Trace, Default)]
struct Objects<'gc> {
    objects: GcRefCell<Vec<Gc<'gc, Plain>>>,
}

/// Times the registration of a cleanup on each of `count` objects, in the order of their allocation.
pub fn register(count: usize) -> Duration {
    let pool = CleanupPool::manual();
    let mut heap: Heap<Nothing> =
        Heap::builder().cleanup_pool(&pool).on_drop(OnDrop::Discard).build(|_mc| Nothing);
    heap.mutate(|mc, _| {
        let objects: Vec<_> = (0..count).map(|n| mc.alloc(heaps::plain(n))).collect();
        let start = Instant::now();
        for (n, object) in objects.into_iter().enumerate() {
            mc.add_cleanup(object, heaps::cleanup(n));
        }
        start.elapsed()
    })
}

/// Times `count` cleanups that are registered and stopped again at once, going round among so many
/// live `objects`.
pub fn add_and_stop(count: usize, objects: usize) -> Duration {
    let mut heap: Heap<Objects<'static>> = Heap::new(|_mc| Objects::default());
    heap.mutate(|mc, root| {
        let made = (0..objects).map(|n| mc.alloc(heaps::plain(n)));
        root.objects.borrow_mut(mc).extend(made);
    });
    heap.mutate(|mc, root| {
        let objects = root.objects.borrow();
        let start = Instant::now();
        for (n, &object) in (0..count).zip(objects.iter().cycle()) {
            let stopped = mc.add_cleanup(object, heaps::cleanup(n)).stop();
            assert!(stopped, "the cleanup of a live object can be stopped");
        }
        start.elapsed()
    })
}

/// The objects of a heap in a Criterion suite: 500,000, or 4 million if `SEXTON_BENCH_FULL` is set.
pub fn suite_objects() -> usize {
    if std::env::var_os("SEXTON_BENCH_FULL").is_some() { 4_000_000 } else { 500_000 }
}

/// For Criterion's `iter_custom`: times a few rounds, and says that all `iterations` took as long.
///
/// A round builds a heap, which takes a thousand times as long as the phase it is built for. Criterion
/// would choose its iterations by the phase, and wait for hours; so a sample is as many rounds as fit
/// into 20 ms, at least one.
pub fn sample(iterations: u64, mut round: impl FnMut() -> Duration) -> Duration {
    let start = Instant::now();
    let mut total = Duration::ZERO;
    let mut rounds = 0;
    while rounds < iterations && (rounds == 0 || start.elapsed() < SAMPLE_TIME) {
        total += round();
        rounds += 1;
    }
    let nanos = total.as_nanos().max(1) * u128::from(iterations) / u128::from(rounds.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Criterion doubles its iterations while it warms up: samples much shorter than that would let them
/// grow without bounds.
const SAMPLE_TIME: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_scaled_to_the_iterations() {
        assert_eq!(sample(7, || Duration::from_micros(3)), Duration::from_micros(21));
        assert!(sample(7, || Duration::ZERO) > Duration::ZERO);
        assert!(sample(1 << 40, || Duration::from_millis(1)) > Duration::from_secs(1 << 30));
    }

    #[test]
    fn garbage_is_collected_by_the_pacer() {
        let mut heap = garbage_heap();
        garbage(&mut heap, 10 * GARBAGE_PER_CYCLE);
        let cycles = heap.stats().cycles;
        assert!((8..=10).contains(&cycles), "{cycles} cycles");
    }
}
