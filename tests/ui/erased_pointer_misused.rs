//! An erased pointer has the mode of its heap: one of a `Local` heap stays on its thread.

use sexton::{GcAny, GcCell, Heap, Leaf, Shared};

fn local<'gc>(value: impl Into<GcAny<'gc>>) -> GcAny<'gc> {
    value.into()
}

fn shared<'gc>(value: impl Into<GcAny<'gc, Shared>>) -> GcAny<'gc, Shared> {
    value.into()
}

fn is_send<T: Send>(_: T) {}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, ()| is_send(local(mc.alloc(Leaf::new(1)))));
    heap.mutate(|mc, ()| _ = shared(mc.alloc(GcCell::new(1))));

    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, ()| _ = mc.alloc(local(mc.alloc(Leaf::new(1)))));
}
