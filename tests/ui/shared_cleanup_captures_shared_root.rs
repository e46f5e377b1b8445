//! A cleanup cannot capture a `SharedRoot`, by which it would keep its own object alive, unless the heap is never dropped.

use sexton::{Heap, Leaf, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let root = heap.share(&mc.root(gc));
        mc.add_cleanup(gc, move || drop(root));
    });
}
