//! Nor can a `Gc` or `Weak` of a `Shared` heap: other threads have sessions of their own.

use std::sync::Arc;
use std::thread;

use sexton::{Heap, Leaf, Shared};

fn to_a_free_thread(heap: &Arc<Heap<(), Shared>>) {
    heap.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        thread::spawn(move || println!("{}", **gc));
    });
}

fn to_a_scope_around_the_session(heap: &Heap<(), Shared>) {
    thread::scope(|scope| {
        heap.attach().mutate(|mc, _| {
            let weak = mc.downgrade(mc.alloc(Leaf::new(1)));
            scope.spawn(move || println!("{weak:?}"));
        });
    });
}

fn main() {
    let heap: Arc<Heap<(), Shared>> = Arc::new(Heap::new(|_| ()));
    to_a_free_thread(&heap);
    to_a_scope_around_the_session(&heap);
}
