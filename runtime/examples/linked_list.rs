//! A list of a million nodes, let go of at once.
//!
//! Notice: the last line is reached. `Option<Box<Node>>` would drop the nodes by recursion, a million
//! calls deep, and overflow the stack. Here nothing is dropped node by node: mark follows a work
//! list, and sweep does not even look at dead nodes, as they have neither cleanups nor drop glue.
//! Compare the two collections: the first marks a million nodes, the second marks none.

use sexton::{Gc, GcCell, Heap, Trace};

#[derive(Trace)]
struct Node<'gc> {
    value: u64,
    next: Option<Gc<'gc, Node<'gc>>>,
}

#[derive(Trace, Default)]
struct World<'gc> {
    head: GcCell<Option<Gc<'gc, Node<'gc>>>>,
}

const NODES: u64 = 1_000_000;

fn main() {
    let mut heap: Heap<World<'static>> = Heap::new(|_mc| World::default());

    // A session holds off collection, so a long job is cut into several. What is linked from the root
    // stays from one to the next.
    for first in (0..NODES).step_by(10_000) {
        heap.mutate(|mc, world| {
            for value in first..first + 10_000 {
                let node = mc.alloc(Node { value, next: world.head.get() });
                world.head.set(mc, Some(node));
            }
        });
    }

    let sum = heap.mutate(|_mc, world| {
        let list = std::iter::successors(world.head.get(), |node| node.next);
        list.map(|node| node.value).sum::<u64>()
    });
    assert_eq!(sum, NODES * (NODES - 1) / 2);

    let full = heap.collect();
    println!("alive: {:>9} nodes, marked in {:.1?}", full.live_objects, full.mark_time);

    heap.mutate(|mc, world| world.head.set(mc, None));
    let empty = heap.collect();
    println!("swept: {:>9} nodes, in {:.1?}", empty.swept_objects, empty.sweep_time);
    assert_eq!(empty.swept_objects, NODES);
}
