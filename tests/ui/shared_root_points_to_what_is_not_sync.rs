//! Nor does a field of the root, however well locked, lead to what is not `Sync`.

use sexton::{Gc, GcCell, GcMutex, Heap, Shared, Trace};

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<Option<Gc<'gc, Node<'gc>>>>,
}

#[derive(Trace)]
struct World<'gc> {
    node: GcMutex<Gc<'gc, Node<'gc>>>,
}

fn main() {
    let _heap: Heap<World<'static>, Shared> = Heap::new(|_| unimplemented!());
}
