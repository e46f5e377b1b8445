//! A leaf, as an object or as the root, keeps no session either: what it holds is `'static`.

use sexton::{Heap, Leaf, Mutation};

#[derive(Clone, Copy)]
struct Context<'gc> {
    mc: &'gc Mutation<'gc>,
}

fn main() {
    let mut heap: Heap<u32> = Heap::new(|_| 1);
    heap.mutate(|mc, _| mc.alloc(Leaf::new(Context { mc })));

    type Kept = Leaf<Option<&'static Mutation<'static>>>;
    let _: Heap<Kept> = Heap::new(|mc| Leaf::new(Some(mc)));
}
