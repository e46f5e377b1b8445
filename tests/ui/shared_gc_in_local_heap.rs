//! A pointer of a `Shared` heap cannot be stored in a `Local` one, nor the other way round.

use sexton::{Gc, GcAtomic, GcCell, Heap, Leaf, Shared};

type LocalHeap = Heap<GcCell<Option<Gc<'static, Leaf<u32>>>>>;
type SharedHeap = Heap<GcAtomic<'static, Leaf<u32>>, Shared>;

fn of_shared_in_local(shared: &SharedHeap, local: &mut LocalHeap) {
    shared.attach().mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        local.mutate(|local_mc, local_root| local_root.set(local_mc, Some(gc)));
    });
}

fn of_local_in_shared(shared: &SharedHeap, local: &mut LocalHeap) {
    local.mutate(|mc, _| {
        let gc = mc.alloc(Leaf::new(1));
        shared.attach().mutate(|shared_mc, shared_root| shared_root.store(shared_mc, Some(gc)));
    });
}

fn main() {
    let shared: SharedHeap = Heap::new(|_| GcAtomic::new(None));
    let mut local: LocalHeap = Heap::new(|_| GcCell::new(None));
    of_shared_in_local(&shared, &mut local);
    of_local_in_shared(&shared, &mut local);
}
