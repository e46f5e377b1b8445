//! A `Gc` cannot go to another thread, not even to one that ends within the session.

use std::thread;

use sexton::{Heap, Leaf};

fn on_another_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(f);
    });
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        on_another_thread(|| println!("{}", **gc));
        on_another_thread(move || println!("{}", **gc));
    });
}
