//! A heap names its root type with the brand set to `'static`.

use sexton::{Gc, Heap, Leaf, Trace};

#[derive(Trace)]
struct World<'gc> {
    head: Option<Gc<'gc, Leaf<u32>>>,
}

struct App<'a> {
    heap: Heap<World<'a>>,
}

fn main() {}
