//! A `Gc` cannot be what a session returns.

use sexton::{Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let _escaped = heap.mutate(|mc, _| mc.alloc(Leaf::new(1)));
}
