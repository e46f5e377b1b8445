//! A cleanup in a `Shared` heap cannot capture a `Root`, which would keep its object alive.

use sexton::{Heap, Leaf, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let root = mc.root(gc);
        mc.add_cleanup(gc, move || drop(root));
    });
}
