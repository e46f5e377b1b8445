//! A cell of one heap cannot be written with the session of another.

use sexton::{Gc, GcCell, Heap, Leaf};

fn main() {
    let mut one: Heap<GcCell<Option<Gc<'static, Leaf<u32>>>>> = Heap::new(|_| GcCell::new(None));
    let mut other: Heap<()> = Heap::new(|_| ());
    one.mutate(|_, root| {
        other.mutate(|other_mc, _| root.set(other_mc, None));
    });
}
