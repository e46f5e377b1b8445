//! No second session on a heap while one is open.

use sexton::Heap;

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|_, _| {
        heap.mutate(|_, _| {});
    });
}
