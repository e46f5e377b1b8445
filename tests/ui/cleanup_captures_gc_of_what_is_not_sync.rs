//! A cleanup cannot capture a `Gc`; where that points to what is not `Sync`, as most payloads of a `Local` heap are not, the
//! compiler says that first.

use sexton::{Gc, GcCell, Heap, Trace};

#[derive(Trace, Default)]
struct Node<'gc> {
    next: GcCell<Option<Gc<'gc, Node<'gc>>>>,
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let node = mc.alloc(Node::default());
        mc.add_cleanup(node, move || println!("{}", node.next.get().is_some()));
    });
}
