//! A `Shared` heap takes no payload that is not `Send`: another thread may drop it.

use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};

use sexton::{Heap, Leaf, Shared, Trace};

static MUTEX: Mutex<u32> = Mutex::new(1);

/// `Sync`, but to be unlocked by the thread that has locked it.
#[derive(Trace)]
struct Locked {
    guard: Leaf<MutexGuard<'static, u32>>,
}

#[derive(Trace)]
struct Counted {
    count: Leaf<Rc<u32>>,
}

fn main() {
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, _| {
        mc.alloc(Locked { guard: Leaf::new(MUTEX.lock().unwrap()) });
        let _ = mc.try_alloc(Counted { count: Leaf::new(Rc::new(1)) });
    });
}
