//! What is not `Sync` cannot be allocated in a `Shared` heap, where several threads would see it.

use std::cell::Cell;

use sexton::{Gc, GcCell, GcRefCell, Heap, Leaf, Shared, Trace};

#[derive(Trace, Default)]
struct Node<'gc> {
    next: GcCell<Option<Gc<'gc, Node<'gc>>>>,
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        mc.alloc(Node::default());
        mc.alloc(GcRefCell::new(1));
        mc.alloc(Leaf::new(Cell::new(1)));
        let _ = mc.try_alloc(Cell::new(1));
    });
}
