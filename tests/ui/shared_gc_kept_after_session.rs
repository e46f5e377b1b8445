//! A `Gc` or `Weak` of a `Shared` heap cannot be kept after its session: collections wait for it.

use std::sync::Mutex;

use sexton::{Gc, Heap, Leaf, Shared, Weak};

static KEPT: Mutex<Option<Gc<'static, Leaf<i32>>>> = Mutex::new(None);

fn returned(heap: &Heap<(), Shared>) {
    let _escaped = heap.attach().mutate(|mc, _| mc.alloc(Leaf::new(1)));
}

fn in_a_variable(heap: &Heap<(), Shared>) {
    let mut outside: Option<Weak<'_, Leaf<i32>>> = None;
    heap.attach().mutate(|mc, _| outside = Some(mc.downgrade(mc.alloc(Leaf::new(1)))));
}

fn in_a_static(heap: &Heap<(), Shared>) {
    heap.attach().mutate(|mc, _| *KEPT.lock().unwrap() = Some(mc.alloc(Leaf::new(1))));
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    returned(&heap);
    in_a_variable(&heap);
    in_a_static(&heap);
}
