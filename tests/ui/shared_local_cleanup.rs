//! No local cleanups in a `Shared` heap: none of its threads is the one to run them.

use std::rc::Rc;

use sexton::{Heap, Leaf, Shared};

fn main() {
    let mut heap: Heap<(), Shared> = Heap::new(|_| ());
    let rc = Rc::new(1);
    heap.attach().mutate(|mc, _| {
        mc.add_cleanup_local(mc.alloc(Leaf::new(1)), move || drop(rc));
    });
    heap.run_local_cleanups(1);
}
