//! A cleanup of a `Shared` heap's object cannot capture a `Gc`, although that is `Send`.

use sexton::{Heap, Leaf, Shared};

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        mc.add_cleanup(gc, move || println!("{}", **gc));
    });
}
