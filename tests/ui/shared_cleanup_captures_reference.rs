//! Nor can it capture a reference into an object, although payloads are `Sync`.

use sexton::{Gc, GcMutex, Heap, Leaf, Shared};

fn reference(heap: &Heap<(), Shared>) {
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        let number: &i32 = &**Gc::as_ref(gc);
        mc.add_cleanup(gc, move || println!("{number}"));
    });
}

fn lock(heap: &Heap<(), Shared>) {
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(GcMutex::new(1));
        let mutex: &GcMutex<i32> = Gc::as_ref(gc);
        mc.add_cleanup(gc, move || println!("{mutex:?}"));
    });
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    reference(&heap);
    lock(&heap);
}
