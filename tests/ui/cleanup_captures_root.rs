//! A cleanup cannot capture a `Root`, which would keep its object alive.

use sexton::{Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let root = mc.root(gc);
        mc.add_cleanup(gc, move || drop(root));
    });
}
