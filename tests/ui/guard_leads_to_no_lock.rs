//! A guard does not lead to its lock, which could be taken without a session then.

use parking_lot::{MutexGuard, RwLockWriteGuard};
use sexton::{GcMutex, GcRwLock, Heap};

fn main() {
    let mut heap: Heap<(GcMutex<u32>, GcRwLock<u32>)> =
        Heap::new(|_| (GcMutex::new(1), GcRwLock::new(1)));
    heap.mutate(|mc, (mutex, lock)| {
        let _mutex = MutexGuard::mutex(&mutex.lock(mc));
        let _lock = RwLockWriteGuard::rwlock(&lock.write(mc));
    });
}
