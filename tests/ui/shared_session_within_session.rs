//! No second session on a mutator while one is open, and no collection.

use sexton::{Heap, Shared};

fn session(heap: &Heap<(), Shared>) {
    let mut mutator = heap.attach();
    mutator.mutate(|_, _| {
        mutator.mutate(|_, _| {});
    });
}

fn collection(heap: &Heap<(), Shared>) {
    let mut mutator = heap.attach();
    mutator.mutate(|_, _| {
        mutator.collect();
    });
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    session(&heap);
    collection(&heap);
}
