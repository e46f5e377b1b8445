//! What `map_root` lends ends with the call, and no mutator is there meanwhile.

use sexton::{Gc, Heap, Leaf, Shared};

type Value<'gc> = Gc<'gc, Leaf<u32>>;

fn main() {
    let heap: Heap<Value<'static>> = Heap::new(|mc| mc.alloc(Leaf::new(1)));
    let mut kept = None;
    let _: Heap<u32> = heap.map_root(|_, value| {
        kept = Some(value);
        **value
    });

    let heap: Heap<Value<'static>> = Heap::new(|mc| mc.alloc(Leaf::new(1)));
    let mut kept = None;
    let _: Heap<u32> = heap.map_root(|mc, _| {
        kept = Some(mc);
        1
    });

    let heap: Heap<Value<'static>, Shared> = Heap::new(|mc| mc.alloc(Leaf::new(1)));
    let mut mutator = heap.attach();
    let _: Heap<u32, Shared> = heap.map_root(|_, value| **value);
    mutator.collect();
}
