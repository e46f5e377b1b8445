//! A `Gc` cannot be put into a thread-local.

use std::cell::Cell;

use sexton::{Gc, Heap, Leaf};

thread_local! {
    static OUTSIDE: Cell<Option<Gc<'static, Leaf<u32>>>> = const { Cell::new(None) };
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| OUTSIDE.set(Some(mc.alloc(Leaf::new(1)))));
}
