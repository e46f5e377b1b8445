//! A mutator that owns its heap stays on its thread, too: what crosses threads is the heap's `Arc`.

use std::sync::Arc;
use std::thread;

use sexton::{Heap, OwnedMutator, Shared};

fn main() {
    let heap: Arc<Heap<u32, Shared>> = Arc::new(Heap::new(|_| 1));
    let mut mutator: OwnedMutator<u32> = heap.attach_owned();
    thread::spawn(move || mutator.collect());
}
