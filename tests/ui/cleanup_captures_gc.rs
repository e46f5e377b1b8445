//! A cleanup cannot capture a `Gc`: not its object's own, nor any other.

use sexton::{Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        mc.add_cleanup(gc, move || println!("{}", **gc));
    });
}
