//! The function that makes the root makes the heap's root type.

use sexton::{Heap, Leaf};

fn main() {
    let heap: Heap<Option<Leaf<u32>>> = Heap::new(|_| Leaf::new(1));
}
