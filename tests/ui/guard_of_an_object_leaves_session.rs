//! A guard of a cell or lock that is an object lives for `'gc`, and no longer.

use sexton::{Gc, GcMutex, GcRefCell, Heap, Shared};

fn main() {
    let mut heap: Heap<Gc<'static, GcRefCell<u32>>> = Heap::new(|mc| mc.alloc(GcRefCell::new(1)));
    let _guard = heap.mutate(|_, root| root.borrow());
    let _guard = heap.mutate(|mc, root| root.borrow_mut(mc));
    let heap: Heap<Gc<'static, GcMutex<u32>>, Shared> = Heap::new(|mc| mc.alloc(GcMutex::new(1)));
    let _guard = heap.attach().mutate(|mc, root| root.lock(mc));
}
