//! A session, and a context that holds it, stays within the call that lent it.

use std::any::Any;
use std::cell::RefCell;

use sexton::{Heap, Mutation, Shared};

#[derive(Clone, Copy)]
struct Context<'gc> {
    mc: &'gc Mutation<'gc>,
    root: &'gc u32,
}

thread_local! {
    static KEPT: RefCell<Option<&'static Mutation<'static>>> = RefCell::default();
}

fn main() {
    let mut heap: Heap<u32> = Heap::new(|_| 1);
    let _context = heap.mutate(|mc, root| Context { mc, root });

    let mut kept = None;
    heap.mutate(|mc, _| kept = Some(mc));

    heap.mutate(|mc, _| KEPT.with(|kept| *kept.borrow_mut() = Some(mc)));

    let _any: Box<dyn Any> = heap.mutate(|mc, root| Box::new(Context { mc, root }));

    let mut of_the_root = None;
    let _: Heap<u32> = Heap::new(|mc| {
        of_the_root = Some(mc);
        1
    });

    let shared: Heap<u32, Shared> = Heap::new(|_| 1);
    let _mc = shared.attach().mutate(|mc, _| mc);
}
