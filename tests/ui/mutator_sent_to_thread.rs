//! A `Mutator` stays on its thread, and no other can use it from there.

use std::thread;

use sexton::{Heap, Shared};

fn on_another_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(f);
    });
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    let mut mutator = heap.attach();
    on_another_thread(|| println!("{}", mutator.gc_pending()));
    on_another_thread(move || println!("{:?}", mutator.collect()));
}
