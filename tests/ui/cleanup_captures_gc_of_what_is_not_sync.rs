//! A cleanup cannot capture a `Gc`. Where that points to what is not `Sync`, the compiler says that
//! first. Most payloads of a `Local` heap are not `Sync`.

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
