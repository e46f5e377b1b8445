//! Nor can a payload own a `SharedRoot`, by which it would keep an object for ever.

use sexton::{Heap, Leaf, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        let root = heap.share(&mc.root(mc.alloc(Leaf::new(1))));
        mc.alloc(Leaf::new(root));
    });
}
