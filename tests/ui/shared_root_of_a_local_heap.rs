//! A `Local` heap has no roots for other threads.

use sexton::{Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let root = heap.mutate(|mc, _| mc.root(mc.alloc(Leaf::new(1))));
    let _shared = heap.share(&root);
}
