//! A `Shared` heap gets no root that threads cannot share, by `map_root` either.

use sexton::{GcCell, Heap, Shared};

fn main() {
    let heap: Heap<u32, Shared> = Heap::new(|_| 1);
    let _: Heap<GcCell<u32>, Shared> = heap.map_root(|_, number| GcCell::new(number));
}
