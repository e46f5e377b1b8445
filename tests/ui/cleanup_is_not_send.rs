//! A cleanup runs on another thread, so what it captures is `Send`.

use std::rc::Rc;

use sexton::{Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let shared = Rc::new(1);
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        mc.add_cleanup(gc, move || println!("{shared}"));
    });
}
