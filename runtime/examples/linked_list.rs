//! A list of a million nodes, let go of at once: in a heap of one thread's own, and in one that two
//! threads share.
//!
//! Notice:
//! - The last line is reached. `Option<Box<Node>>` would drop the nodes by recursion, a million
//!   calls deep, and overflow the stack. Here nothing is dropped node by node. Mark follows a work
//!   list. Sweep does not look at dead nodes, as they have neither cleanups nor drop glue.
//! - Compare the two collections of each heap: the first marks a million nodes, the second marks
//!   none.
//! - The types and `push` are the same for both modes. A link that only one thread changes could be
//!   a `GcCell`; a shared heap would not take it, and says so when it is compiled.

use std::thread;

use sexton::{GcAtomic, GcReport, Heap, Mode, Mutation, Payload, Shared, Trace};

#[derive(Trace)]
struct Node<'gc> {
    value: u64,
    next: GcAtomic<'gc, Node<'gc>>,
}

#[derive(Trace, Default)]
struct World<'gc> {
    head: GcAtomic<'gc, Node<'gc>>,
}

impl<'gc> World<'gc> {
    /// Puts a node in front of the list. Several threads may.
    fn push<M: Mode>(&self, mc: &Mutation<'gc, M>, value: u64)
    where
        Node<'gc>: Payload<M>,
    {
        let node = mc.alloc(Node { value, next: GcAtomic::default() });
        let mut head = self.head.load();
        loop {
            node.next.store(mc, head);
            match self.head.compare_exchange(mc, head, Some(node)) {
                Ok(_) => return,
                Err(quicker) => head = quicker,
            }
        }
    }

    fn sum(&self) -> u64 {
        std::iter::successors(self.head.load(), |node| node.next.load())
            .map(|node| node.value)
            .sum()
    }
}

const NODES: u64 = 1_000_000;
/// A session holds off collection, so a long job is cut into several. What is linked from the root
/// stays from one to the next.
const PER_SESSION: u64 = 10_000;

fn main() {
    on_one_thread();
    on_two_threads();
}

fn on_one_thread() {
    let mut heap: Heap<World<'static>> = Heap::new(|_mc| World::default());
    for first in (0..NODES).step_by(PER_SESSION as usize) {
        heap.mutate(|mc, world| {
            (first..first + PER_SESSION).for_each(|value| world.push(mc, value));
        });
    }
    assert_eq!(heap.mutate(|_mc, world| world.sum()), NODES * (NODES - 1) / 2);

    let full = heap.collect();
    heap.mutate(|mc, world| world.head.store(mc, None));
    tell("one thread ", full, heap.collect());
}

fn on_two_threads() {
    let heap: Heap<World<'static>, Shared> = Heap::new(|_mc| World::default());
    thread::scope(|scope| {
        for half in [0..NODES / 2, NODES / 2..NODES] {
            let heap = &heap;
            scope.spawn(move || {
                let mut mutator = heap.attach();
                for first in half.step_by(PER_SESSION as usize) {
                    let values = first..first + PER_SESSION;
                    mutator.mutate(|mc, world| values.for_each(|value| world.push(mc, value)));
                }
            });
        }
    });
    let mut mutator = heap.attach();
    assert_eq!(mutator.mutate(|_mc, world| world.sum()), NODES * (NODES - 1) / 2);

    let full = mutator.collect();
    mutator.mutate(|mc, world| world.head.store(mc, None));
    tell("two threads", full, mutator.collect());
}

fn tell(who: &str, full: GcReport, empty: GcReport) {
    println!("{who}: alive {:>9} nodes, marked in {:.1?}", full.live_objects, full.mark_time);
    println!("{who}: swept {:>9} nodes, in {:.1?}", empty.swept_objects, empty.sweep_time);
    assert_eq!((full.live_objects, empty.swept_objects), (NODES, NODES));
}
