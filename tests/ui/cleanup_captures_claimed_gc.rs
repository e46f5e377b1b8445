//! A `Gc` to what is not `Sync` is not `Send`. In a wrapper that claims to be, it still cannot
//! outlive its session.

use sexton::{Gc, GcCell, Heap};

struct Claimed<'gc>(Gc<'gc, GcCell<u32>>);

unsafe impl Send for Claimed<'_> {}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let gc = mc.alloc(GcCell::new(1));
        let claimed = Claimed(gc);
        mc.add_cleanup(gc, move || drop(claimed));
    });
}
