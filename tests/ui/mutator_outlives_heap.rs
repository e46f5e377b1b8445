//! A `Mutator` cannot outlive its heap, which cannot be taken apart while one is attached.

use sexton::{Heap, Mutator, Shared};

fn returned() -> Mutator<'static, ()> {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach()
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    let mut mutator = heap.attach();
    drop(heap);
    mutator.collect();
    returned();
}
