//! A `SharedRoot` borrows its heap, and does not outlive it.

use sexton::{Heap, Leaf, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    let root = heap.attach().mutate(|mc, _| heap.share(&mc.root(mc.alloc(Leaf::new(1)))));
    drop(heap);
    drop(root);
}
