//! A `Local` heap stays on the thread that made it.

use std::thread;

use sexton::Heap;

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    thread::spawn(move || heap.collect());
}
