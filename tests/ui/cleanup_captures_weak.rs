//! A cleanup cannot capture a `Weak`, not even in a wrapper that claims to be `Send`.

use sexton::{Heap, Leaf, Weak};

struct Claimed<'gc>(Weak<'gc, Leaf<u32>>);

unsafe impl Send for Claimed<'_> {}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let claimed = Claimed(mc.downgrade(gc));
        mc.add_cleanup(gc, move || drop(claimed));
    });
}
