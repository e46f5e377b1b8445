//! Cleanups on the program's own thread: a manual pool, drained by an event loop.
//!
//! A program with an event loop may want no other threads, or have state that only its own thread
//! changes. Notice:
//! - Every `closed` is printed by the main thread, between two events, a few at a time. A tick's
//!   pause is bounded by the number given to `run_pending`, however many objects died at once.
//! - A cleanup must be `Send` even here, since any thread may call `run_pending`. So it sends a
//!   message, and the loop, which owns the table of connections, acts on it.

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;

use sexton::{CleanupPool, Gc, GcRefCell, Heap, Trace};

/// What the program's objects know of a connection: its number, and nothing to close.
#[derive(Trace)]
struct Session {
    connection: u32,
}

#[derive(Trace, Default)]
struct World<'gc> {
    sessions: GcRefCell<Vec<Gc<'gc, Session>>>,
}

/// The most cleanups that run in one tick.
const PER_TICK: usize = 3;

fn main() {
    let pool = CleanupPool::manual();
    let mut heap: Heap<World<'static>> =
        Heap::builder().cleanup_pool(&pool).build(|_mc| World::default());
    let (ended, endings) = mpsc::channel();
    let mut connections = HashMap::new();

    for tick in 0.. {
        // 1. An event: the first ticks open connections, then one drops all that are even.
        match tick {
            0..8 => {
                connections.insert(tick, format!("peer {tick}"));
                heap.mutate(|mc, world| {
                    let session = mc.alloc(Session { connection: tick });
                    let ended = ended.clone();
                    mc.add_cleanup(session, move || {
                        // The loop may have ended; then the message has no reader.
                        let _ = ended.send((tick, thread::current().id()));
                    });
                    world.sessions.borrow_mut(mc).push(session);
                });
            }
            8 => {
                println!("tick 8: dropping the sessions with even numbers");
                heap.mutate(|mc, world| {
                    world.sessions.borrow_mut(mc).retain(|session| session.connection % 2 == 1);
                });
                // Queues the cleanups. They do not run yet.
                let report = heap.collect();
                println!("tick 8: {} cleanups are queued", report.queued_cleanups);
            }
            _ => {}
        }

        // 2. Run a few cleanups, here, and do what they ask for.
        let ran = pool.run_pending(PER_TICK);
        for (connection, thread) in endings.try_iter() {
            assert_eq!(thread, thread::current().id());
            let peer = connections.remove(&connection).expect("each ends once");
            println!("tick {tick}: closed {peer}");
        }
        if tick > 8 && ran == 0 {
            break;
        }
    }

    println!("{} connections are left", connections.len());
    assert_eq!(connections.len(), 4);

    // The end: dropping the heap is the death of all its objects, but it only queues their
    // cleanups. No other thread runs a manual pool's. Those still queued when the pool's last
    // handle goes are discarded.
    drop(heap);
    while pool.run_pending(usize::MAX) > 0 {}
    for (connection, _) in endings.try_iter() {
        let peer = connections.remove(&connection).expect("each ends once");
        println!("end: closed {peer}");
    }
    assert!(connections.is_empty());
}
