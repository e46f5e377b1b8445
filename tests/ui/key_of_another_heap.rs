//! Keys of two heaps, and weak pointers of two, cannot be compared.

use sexton::{Gc, Heap, Leaf};

fn main() {
    let mut one: Heap<()> = Heap::new(|_| ());
    let mut other: Heap<()> = Heap::new(|_| ());
    one.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        other.mutate(|other_mc, _| {
            let other = other_mc.alloc(Leaf::new(1));
            let _equal = Gc::key(gc) == Gc::key(other);
        });
    });
    one.mutate(|mc, _| {
        let weak = mc.downgrade(mc.alloc(Leaf::new(1)));
        other.mutate(|other_mc, _| {
            let other = other_mc.downgrade(other_mc.alloc(Leaf::new(1)));
            let _equal = weak == other;
        });
    });
}
