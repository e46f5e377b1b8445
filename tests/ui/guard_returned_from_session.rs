//! A guard of what is in the heap cannot leave its session, and so writes within it only.

use sexton::{GcMutex, GcRwLock, Heap, Shared};

fn main() {
    let heap: Heap<(GcMutex<u32>, GcRwLock<u32>), Shared> =
        Heap::new(|_| (GcMutex::new(1), GcRwLock::new(1)));
    let mut mutator = heap.attach();
    let _locked = mutator.mutate(|mc, root| root.0.lock(mc));
    let _read = mutator.mutate(|mc, root| root.1.read(mc));
    let _written = mutator.mutate(|mc, root| root.1.write(mc));
}
