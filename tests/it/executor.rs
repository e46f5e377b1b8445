//! Own executor: an event loop is told that cleanups are ready, and runs them on its own thread.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};

use sexton::CleanupPool;

use crate::world::{Counter, Gate, LONG, Node, heap_on};

#[test]
fn an_event_loop_that_is_told_runs_every_cleanup_on_its_own_thread() {
    let (wake, woken) = sync_channel(1);
    let pool = CleanupPool::builder()
        .max_workers(0)
        .on_ready(move || {
            // Full means that a wake-up is on its way.
            let _ = wake.try_send(());
        })
        .build();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let (looping, seen) = (pool.clone(), ran.clone());
    let event_loop = std::thread::spawn(move || {
        while seen.lock().unwrap().len() < 50_000 {
            // No timeout that would do the work of the hook.
            woken.recv_timeout(LONG).expect("a wake-up");
            // A few at a time, as a loop with other things to do would.
            looping.run_pending(100);
        }
    });
    let mut heap = heap_on(&pool);
    for _ in 0..50 {
        heap.mutate(|mc, _| {
            for at in 0..1000 {
                let ran = ran.clone();
                mc.add_cleanup(mc.alloc(Node::new(at)), move || {
                    ran.lock().unwrap().push(std::thread::current().id());
                });
            }
        });
        heap.collect();
    }
    let id = event_loop.thread().id();
    event_loop.join().unwrap();
    assert!(ran.lock().unwrap().iter().all(|&runner| runner == id));
    heap.wait_for_cleanups(LONG).unwrap();
}

#[test]
fn who_was_told_and_has_not_come_is_not_told_again() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let pool = CleanupPool::builder()
        .max_workers(0)
        .on_ready(move || {
            count.fetch_add(1, SeqCst);
        })
        .build();
    let mut heap = heap_on(&pool);
    let ran = Counter::default();
    let queue = |heap: &mut crate::world::WorldHeap| {
        heap.mutate(|mc, _| {
            for at in 0..1000 {
                mc.add_cleanup(mc.alloc(Node::new(at)), ran.cleanup());
            }
        });
        heap.collect();
    };
    queue(&mut heap);
    queue(&mut heap);
    assert_eq!(told.load(SeqCst), 1);
    assert_eq!(pool.run_pending(1500), 1500);
    assert_eq!(told.load(SeqCst), 2, "there is more");
    assert_eq!(pool.run_pending(usize::MAX), 500);
    assert_eq!(told.load(SeqCst), 2, "there is none");
    queue(&mut heap);
    assert_eq!(told.load(SeqCst), 3);
}

#[test]
fn the_hook_cannot_run_cleanups_in_the_middle_of_a_collection() {
    let (send, receive) = channel();
    let slot: Arc<Mutex<Option<CleanupPool>>> = Arc::default();
    let own = slot.clone();
    let pool = CleanupPool::builder()
        .max_workers(0)
        .on_ready(move || {
            let pool = own.lock().unwrap().clone().expect("set before anything is queued");
            send.send(pool.run_pending(usize::MAX)).unwrap();
            panic!("and what it throws does no harm");
        })
        .build();
    *slot.lock().unwrap() = Some(pool.clone());
    let mut heap = heap_on(&pool);
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), || {}));
    heap.collect();
    assert_eq!(receive.recv_timeout(LONG), Ok(0));
    assert_eq!(pool.run_pending(usize::MAX), 1);
    *slot.lock().unwrap() = None;
}

#[test]
fn a_pool_with_workers_tells_too_and_the_workers_work() {
    let told = Counter::default();
    let count = told.clone();
    let pool = CleanupPool::builder().max_workers(1).on_ready(move || count.raise()).build();
    let mut heap = heap_on(&pool);
    let (gate, ran) = (Gate::default(), Counter::default());
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), gate.cleanup()));
    heap.collect();
    gate.wait_for(1);
    assert_eq!(pool.run_pending(usize::MAX), 0, "the worker has it");
    let before = told.get();
    heap.mutate(|mc, _| {
        for at in 0..10_000 {
            mc.add_cleanup(mc.alloc(Node::new(at)), ran.cleanup());
        }
    });
    heap.collect();
    assert_eq!(told.get(), before + 1, "told once, because no thread has looked since");
    gate.open();
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(ran.get(), 10_000);
}
