//! A `Gc` cannot go to a thread, free or scoped, that may outlive its session.

use std::thread;

use sexton::{Heap, Leaf};

fn to_a_free_thread(heap: &mut Heap<()>) {
    heap.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        thread::spawn(move || println!("{}", **gc));
    });
}

fn to_a_scope_around_the_session(heap: &mut Heap<()>) {
    thread::scope(|scope| {
        heap.mutate(|mc, _| {
            let gc = mc.alloc(Leaf::new(1));
            scope.spawn(move || println!("{}", **gc));
        });
    });
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    to_a_free_thread(&mut heap);
    to_a_scope_around_the_session(&mut heap);
}
