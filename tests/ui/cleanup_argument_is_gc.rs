//! A cleanup cannot get a `Gc` as its argument.

use sexton::{Gc, Heap, Leaf};

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        mc.add_cleanup_with(gc, gc, |gc: Gc<'_, Leaf<u32>>| println!("{}", **gc));
    });
}
