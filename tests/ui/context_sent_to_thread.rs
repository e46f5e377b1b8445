//! A context stays on the thread of its session, as the session does.

use std::thread;

use sexton::{Heap, Mutation, Shared};

#[derive(Clone, Copy)]
struct Context<'gc> {
    mc: &'gc Mutation<'gc, Shared>,
}

fn main() {
    let heap: Heap<u32, Shared> = Heap::new(|_| 1);
    heap.attach().mutate(|mc, _| {
        let context = Context { mc };
        thread::scope(|scope| {
            scope.spawn(move || context.mc.gc_pending());
        });
    });
}
