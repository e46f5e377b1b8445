//! A `Root` stays on its thread, in a `Shared` heap as well. A `SharedRoot` crosses threads.

use std::thread;

use sexton::{Heap, Leaf, Shared};

fn on_another_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(f);
    });
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    let mut mutator = heap.attach();
    let moved = mutator.mutate(|mc, _| mc.root(mc.alloc(Leaf::new(1u8))));
    let borrowed = mutator.mutate(|mc, _| mc.root(mc.alloc(Leaf::new(1u16))));
    on_another_thread(move || drop(moved));
    on_another_thread(|| println!("{borrowed:?}"));
}
