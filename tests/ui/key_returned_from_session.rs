//! A key cannot leave its session, after which another object may have its address.

use sexton::{Gc, Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let _key = heap.mutate(|mc, _| Gc::key(mc.alloc(Leaf::new(1))));
}
