//! Nor can a reference into an object, or the session itself.

use sexton::{Gc, Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let _escaped = heap.mutate(|mc, _| Gc::as_ref(mc.alloc(Leaf::new(1))));
    let _session = heap.mutate(|mc, _| mc);
}
