//! Nor can a reference into an object, or the session itself.

use sexton::{Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let _escaped = heap.mutate(|mc, _| mc.alloc(Leaf::new(1)).get());
    let _session = heap.mutate(|mc, _| mc);
}
