//! An object of one heap cannot be allocated holding a pointer of another.

use sexton::{Heap, Leaf};

fn main() {
    let mut one: Heap<()> = Heap::new(|_| ());
    let mut other: Heap<()> = Heap::new(|_| ());
    one.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        other.mutate(|other_mc, _| {
            other_mc.alloc(Some(gc));
        });
    });
}
