//! Faults on purpose, for `.ci/sanitize.sh` to show that a sanitizer sees them before it trusts its
//! silence.
//!
//! The argument names the fault. Some are plain; the others go through Sexton, and so also show
//! that its code is watched, and that the watcher follows memory from a session through the sweep
//! to a worker. `handed-over` is no fault but the twin of `not-waited-for`: the same accesses, in
//! the order that Sexton promises.
//!
//! An example only because cargo builds those without running them.

#![expect(unsafe_code, reason = "a fault needs a pointer that the compiler does not check")]

use std::cell::UnsafeCell;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use sexton::{Cleanup, CleanupPool, CleanupState, Heap, Leaf, Pacing};

fn main() {
    let fault = std::env::args().nth(1);
    match fault.as_deref() {
        // For the address sanitizer, which finds leaks, too.
        Some("leak") => leak(),
        Some("leaked-heap") => leaked_heap(),
        Some("use-after-free") => use_after_free(),
        Some("use-after-sweep") => use_after_sweep(),
        Some("use-after-cleanup") => use_after_cleanup(),
        // For the thread sanitizer.
        Some("race") => race(),
        Some("not-waited-for") => not_waited_for(),
        Some("handed-over") => handed_over(),
        other => panic!("no such fault: {other:?}"),
    }
}

fn heap() -> Heap<()> {
    let pool = CleanupPool::builder().max_workers(1).build();
    Heap::builder().cleanup_pool(&pool).pacing(Pacing::Manual).build(|_| ())
}

const LONG: Duration = Duration::from_secs(60);

// ---- leaks
// ---------------------------------------------------------------------------------------------

/// Many, because a copy of the last pointer may survive in a register or on the stack.
fn leak() {
    for byte in 0..100 {
        std::mem::forget(black_box(Box::new([byte; 100])));
    }
}

/// What objects own is lost with their heap: nothing but slots points to it, and those are in no
/// memory of `malloc`'s.
fn leaked_heap() {
    let mut heap = heap();
    heap.mutate(|mc, _| {
        for number in 0..100 {
            mc.alloc(Leaf::new(format!("object {number}")));
        }
    });
    std::mem::forget(heap);
}

// ---- uses of freed memory
// ------------------------------------------------------------------------------

/// Reads what the pointer points to, whether or not anything is there.
fn read(pointer: *const u64) -> u64 {
    // SAFETY: none. This is the fault.
    unsafe { pointer.read_volatile() }
}

fn use_after_free() {
    let freed = Box::new(7);
    let pointer = &raw const *freed;
    drop(freed);
    println!("{}", read(pointer));
}

/// Drop glue frees what an object owns, on the collecting thread.
fn use_after_sweep() {
    let mut heap = heap();
    let pointer = heap.mutate(|mc, _| &raw const ***mc.alloc(Leaf::new(Box::new(7))));
    assert_eq!(read(pointer), 7);
    heap.collect();
    println!("{}", read(pointer));
}

/// What a cleanup captured is freed when it has run, on a worker.
fn use_after_cleanup() {
    let mut heap = heap();
    let captured = Box::new(7);
    let pointer = &raw const *captured;
    heap.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(()), move || assert_eq!(*captured, 7));
    });
    assert_eq!(read(pointer), 7);
    heap.collect();
    heap.wait_for_cleanups(LONG).expect("one short cleanup");
    println!("{}", read(pointer));
}

// ---- races
// ---------------------------------------------------------------------------------------------

/// A number that is no atomic and that all threads write all the same.
struct Shared(UnsafeCell<u64>);

// SAFETY: none. Whether its users take turns is what the thread sanitizer is to tell.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared(UnsafeCell::new(0));

impl Shared {
    fn add_one(&self) -> u64 {
        // SAFETY: as for `Sync`.
        let now = unsafe { self.0.get().read_volatile() } + 1;
        // SAFETY: as for `Sync`.
        unsafe { self.0.get().write_volatile(now) };
        now
    }
}

/// Two threads write one after the other, and nothing orders them: the flags are relaxed.
///
/// The first one stays until the second has written. On its way out it would release locks and
/// counts, and the second, had it to do with one of those meanwhile, would rightly come after it.
static FIRST_WROTE: AtomicBool = AtomicBool::new(false);
static SECOND_WROTE: AtomicBool = AtomicBool::new(false);

fn write_first() {
    SHARED.add_one();
    FIRST_WROTE.store(true, Relaxed);
    while !SECOND_WROTE.load(Relaxed) {
        spin_loop();
    }
}

fn write_second() {
    while !FIRST_WROTE.load(Relaxed) {
        spin_loop();
    }
    SHARED.add_one();
    SECOND_WROTE.store(true, Relaxed);
}

fn race() {
    thread::scope(|scope| {
        scope.spawn(write_first);
        write_second();
    });
}

/// A heap with one object, which has died, and its cleanup's handle. The session writes, too.
fn write_and_queue(cleanup: fn()) -> (Heap<()>, Cleanup) {
    let mut heap = heap();
    let handle = heap.mutate(|mc, _| {
        let handle = mc.add_cleanup(mc.alloc(()), cleanup);
        SHARED.add_one();
        handle
    });
    heap.collect();
    (heap, handle)
}

/// The collection orders the session's write and the cleanup's. Nothing orders the cleanup's and
/// the second.
fn not_waited_for() {
    let _heap = write_and_queue(write_first);
    write_second();
}

/// The collecting thread has left the collection. Relaxed, like the flags above.
static COLLECTED: AtomicBool = AtomicBool::new(false);

/// Waits until nothing but the way its end is learnt of can order its write and what comes after.
fn write_once_collected() {
    while !COLLECTED.load(Relaxed) {
        spin_loop();
    }
    SHARED.add_one();
}

/// Either way to learn that a cleanup has ended shows what it has done.
fn handed_over() {
    let (heap, _) = write_and_queue(write_once_collected);
    COLLECTED.store(true, Relaxed);
    heap.wait_for_cleanups(LONG).expect("one short cleanup");
    assert_eq!(SHARED.add_one(), 3);

    COLLECTED.store(false, Relaxed);
    let (_heap, handle) = write_and_queue(write_once_collected);
    COLLECTED.store(true, Relaxed);
    while handle.state() != CleanupState::Done {
        spin_loop();
    }
    assert_eq!(SHARED.add_one(), 6);
}
