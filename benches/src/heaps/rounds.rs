//! Rounds that are timed as a whole.

use std::time::{Duration, Instant};

use sexton::{Gc, GcRefCell, Heap, Trace};

use super::shapes::{self, Plain, alloc_garbage};

/// Objects that a heap with default pacing allocates between two cycles when all of them die.
pub(crate) const GARBAGE_PER_CYCLE: usize =
    sexton::Pacing::DEFAULT_MIN_BYTES as usize / shapes::OBJECT_BYTES;

/// An empty heap with default pacing.
pub(crate) fn garbage_heap() -> Heap<Nothing> {
    Heap::new(|_mc| Nothing)
}

/// The root of a heap that keeps nothing; also an object without a size.
#[derive(Trace)]
pub(crate) struct Nothing;

/// Times `count` allocations of objects that die at once, the collections that the pacer asks for
/// included.
pub(crate) fn garbage(heap: &mut Heap<Nothing>, count: usize) -> Duration {
    const PER_SESSION: usize = 1024;
    let start = Instant::now();
    for first in (0..count).step_by(PER_SESSION) {
        heap.mutate(|mc, _| alloc_garbage(mc, PER_SESSION.min(count - first)));
    }
    start.elapsed()
}

#[derive(Trace, Default)]
struct Objects<'gc> {
    objects: GcRefCell<Vec<Gc<'gc, Plain>>>,
}

/// Times `count` cleanups that are registered and stopped again at once, going round among
/// `objects` live ones.
pub(crate) fn add_and_stop(count: usize, objects: usize) -> Duration {
    let mut heap: Heap<Objects<'static>> = Heap::new(|_mc| Objects::default());
    heap.mutate(|mc, root| {
        let made = (0..objects).map(|n| mc.alloc(shapes::plain(n)));
        root.objects.borrow_mut(mc).extend(made);
    });
    heap.mutate(|mc, root| {
        let objects = root.objects.borrow();
        let start = Instant::now();
        for (n, &object) in (0..count).zip(objects.iter().cycle()) {
            let stopped = mc.add_cleanup(object, shapes::cleanup(n)).stop();
            assert!(stopped, "the cleanup of a live object can be stopped");
        }
        start.elapsed()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_collected_by_the_pacer() {
        let mut heap = garbage_heap();
        garbage(&mut heap, 10 * GARBAGE_PER_CYCLE);
        let cycles = heap.stats().cycles;
        assert!((8..=10).contains(&cycles), "{cycles} cycles");
    }
}
