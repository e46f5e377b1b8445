//! The type of a heap's root is named, not inferred.

use sexton::{Gc, GcCell, Heap, Trace};

#[derive(Trace, Default)]
struct World<'gc> {
    head: GcCell<Option<Gc<'gc, u32>>>,
}

fn main() {
    let mut heap = Heap::new(|_mc| World::default());
    heap.mutate(|mc, world| world.head.set(mc, None));
}
