//! A `Gc` cannot be put into a variable that outlives its session.

use sexton::{Gc, Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let mut outside: Option<Gc<'_, Leaf<u32>>> = None;
    heap.mutate(|mc, _| outside = Some(mc.alloc(Leaf::new(1))));
}
