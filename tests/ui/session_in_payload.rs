//! No object keeps a session, which ends before its heap does.

use sexton::{Gc, GcCell, GcRefCell, Heap, Leaf, Mutation, Shared, Trace};

#[derive(Trace)]
struct Field<'gc> {
    mc: &'gc Mutation<'gc>,
}

#[derive(Trace)]
struct InContainers<'gc> {
    kept: GcRefCell<Vec<&'gc Mutation<'gc, Shared>>>,
}

#[derive(Trace)]
struct AsLeaf<'gc> {
    #[trace(leaf)]
    mc: Option<&'gc Mutation<'gc>>,
}

/// A context of the stack, and an object that would keep it.
#[derive(Clone, Copy)]
struct Context<'gc> {
    mc: &'gc Mutation<'gc>,
}

#[derive(Trace)]
struct KeepsContext<'gc> {
    context: GcCell<Option<Context<'gc>>>,
}

fn main() {
    let mut heap: Heap<GcCell<Option<Gc<'static, Leaf<u32>>>>> = Heap::new(|_| GcCell::new(None));
    heap.mutate(|mc, _| mc.alloc(mc));
}
