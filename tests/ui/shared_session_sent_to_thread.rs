//! A session of a `Shared` heap stays on its thread: another thread attaches a mutator of its own.

use std::thread;

use sexton::{Heap, Leaf, Shared};

fn on_another_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(f);
    });
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        on_another_thread(|| {
            mc.alloc(Leaf::new(1));
        });
    });
}
