//! A pointer of one mutator's session is of no use in another's, although both are of one heap.

use sexton::{Gc, GcAtomic, Heap, Leaf, Mutation, Shared};

fn store<'gc>(
    root: &GcAtomic<'gc, Leaf<u32>>,
    mc: &Mutation<'gc, Shared>,
    gc: Gc<'gc, Leaf<u32>>,
) {
    root.store(mc, Some(gc));
}

fn main() {
    let heap: Heap<GcAtomic<'static, Leaf<u32>>, Shared> = Heap::new(|_| GcAtomic::new(None));
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                heap.attach().mutate(|mc, root| store(root, mc, gc));
            });
        });
    });
}
