//! A cleanup cannot capture a `SharedRoot`, by which it keeps its object, of a heap that may end.

use sexton::{Heap, Leaf, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let root = heap.share(&mc.root(gc));
        mc.add_cleanup(gc, move || drop(root));
    });
}
