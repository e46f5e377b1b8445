//! The root of a `Shared` heap is `Send + Sync`, too.

use sexton::{Gc, GcCell, Heap, Leaf, Shared, Trace};

#[derive(Trace, Default)]
struct World<'gc> {
    head: GcCell<Option<Gc<'gc, Leaf<u32>>>>,
}

fn main() {
    let _one: Heap<World<'static>, Shared> = Heap::new(|_| World::default());
    let _other: Heap<World<'static>, Shared> = Heap::builder().build(|_| World::default());
}
