//! A pointer of one heap cannot be stored in another.

use sexton::{Gc, GcCell, Heap, Leaf};

fn main() {
    let mut one: Heap<GcCell<Option<Gc<'static, Leaf<u32>>>>> = Heap::new(|_| GcCell::new(None));
    let mut other: Heap<GcCell<Option<Gc<'static, Leaf<u32>>>>> = Heap::new(|_| GcCell::new(None));
    one.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        other.mutate(|other_mc, other_root| other_root.set(other_mc, Some(gc)));
    });
}
