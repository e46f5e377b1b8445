//! No collection while a session is open.

use sexton::Heap;

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|_, _| {
        heap.collect();
    });
}
