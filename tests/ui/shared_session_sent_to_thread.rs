//! A session of a `Shared` heap stays on its thread: another thread attaches a mutator of its own.

use std::thread;

use sexton::{Heap, Leaf, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        thread::scope(|scope| {
            scope.spawn(|| {
                mc.alloc(Leaf::new(1));
            });
        });
    });
}
