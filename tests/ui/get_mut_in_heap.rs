//! What is in the heap is not changed without a session.

use sexton::{Gc, GcAtomic, GcCell, GcMutex, Heap, Leaf};

fn main() {
    let mut heap: Heap<GcCell<u32>> = Heap::new(|_| GcCell::new(1));
    heap.mutate(|mc, root| {
        *root.get_mut() = 2;
        let mutex = mc.alloc(GcMutex::new(1));
        *mutex.get_mut() = 2;
        let atomic = mc.alloc(GcAtomic::new(Some(mc.alloc(Leaf::new(1)))));
        let _inner = GcAtomic::into_inner(*atomic);
        let _other = Gc::as_ref(mutex).into_inner();
    });
}
