//! An erased pointer ends with its session, and is of no other.

use sexton::{GcAny, Heap, Leaf};

fn erased<'gc>(value: impl Into<GcAny<'gc>>) -> GcAny<'gc> {
    value.into()
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    let _kept = heap.mutate(|mc, ()| erased(mc.alloc(Leaf::new(1))));

    let mut other: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, ()| {
        let value = erased(mc.alloc(Leaf::new(1)));
        other.mutate(|other_mc, ()| {
            assert_ne!(value, erased(other_mc.alloc(Leaf::new(1))));
        });
    });
}
