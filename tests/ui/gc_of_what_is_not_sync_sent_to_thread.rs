//! A `Gc` or `Weak` to what is not `Sync` cannot go to a thread, not even one within the session.

use std::thread;

use sexton::{GcCell, Heap};

fn on_another_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(f);
    });
}

fn main() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let (moved, borrowed) = (mc.alloc(GcCell::new(1u8)), mc.alloc(GcCell::new(1u16)));
        on_another_thread(move || println!("{}", moved.get()));
        on_another_thread(|| println!("{}", borrowed.get()));
        let weak = mc.downgrade(mc.alloc(GcCell::new(1u32)));
        on_another_thread(move || println!("{weak:?}"));
    });
}
