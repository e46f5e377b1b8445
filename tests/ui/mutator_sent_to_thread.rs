//! A `Mutator` stays on its thread, and no other can use it from there.

use std::thread;

use sexton::{Heap, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    let mut mutator = heap.attach();
    thread::scope(|scope| {
        scope.spawn(|| mutator.gc_pending());
        scope.spawn(move || mutator.collect());
    });
}
