//! A cleanup cannot capture a reference into an object.

use sexton::{Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let inside: &u32 = gc.get();
        mc.add_cleanup(gc, move || println!("{inside}"));
    });
}
