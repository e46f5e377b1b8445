//! A type without `Trace` is no payload. The advice is to derive it, not to borrow the value.

use sexton::Heap;

struct Point(u32);

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        mc.alloc(Point(1));
    });
}
