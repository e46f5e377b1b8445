//! A `Local` heap stays on the thread that made it.

use std::thread;

use sexton::Heap;

fn on_another_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(f);
    });
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    on_another_thread(move || println!("{:?}", heap.collect()));
}
