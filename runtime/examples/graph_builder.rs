//! Several threads build one graph: the numbers below a bound, each linked to the next of its
//! Collatz sequence, and back.
//!
//! Notice:
//! - Threads find each other's nodes through a table of weak pointers in sixteen parts, each behind
//!   a lock of its own. Nothing is counted and nothing is copied; a pointer is one word on every
//!   thread.
//! - Collections happen while they build. The thread that crosses the threshold collects at the end
//!   of its session. The others wait for that, or help.
//! - At the end only the nodes that are linked from the root are kept. The table forgets the others
//!   by itself, and a cleanup counts them. That the graph is full of cycles changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use sexton::{Gc, GcMutex, GcOnce, Heap, Mutation, Shared, Trace, Weak};

#[derive(Trace)]
struct Node<'gc> {
    number: u64,
    /// The number after this one.
    next: GcOnce<Gc<'gc, Node<'gc>>>,
    /// Those that this one comes after.
    before: GcMutex<Vec<Gc<'gc, Node<'gc>>>>,
}

#[derive(Trace, Default)]
struct World<'gc> {
    table: [GcMutex<HashMap<u64, Weak<'gc, Node<'gc>>>>; 16],
    /// What is kept: while it is built, all.
    kept: GcMutex<Vec<Gc<'gc, Node<'gc>>>>,
}

impl<'gc> World<'gc> {
    /// The number's node, and whether it is new.
    fn node(
        &self,
        mc: &Mutation<'gc, Shared>,
        number: u64,
        lost: &Arc<AtomicU64>,
    ) -> (Gc<'gc, Node<'gc>>, bool) {
        let mut part = self.table[(number % 16) as usize].lock(mc);
        if let Some(node) = part.get(&number).and_then(|weak| weak.upgrade(mc)) {
            return (node, false);
        }
        let node = mc.alloc(Node { number, next: GcOnce::new(), before: GcMutex::default() });
        part.insert(number, mc.downgrade(node));
        let lost = lost.clone();
        mc.add_cleanup(node, move || _ = lost.fetch_add(1, Relaxed));
        (node, true)
    }

    /// Links a number to those that follow, until one is linked already.
    fn follow(&self, mc: &Mutation<'gc, Shared>, start: u64, lost: &Arc<AtomicU64>) {
        let (mut node, is_new) = self.node(mc, start, lost);
        if is_new {
            self.kept.lock(mc).push(node);
        }
        while node.number != 1 && node.next.get().is_none() {
            let (next, _) = self.node(mc, collatz(node.number), lost);
            if node.next.set(mc, next).is_err() {
                // Another thread has come by here, and goes on from here.
                return;
            }
            next.before.lock(mc).push(node);
            node = next;
        }
    }
}

fn collatz(number: u64) -> u64 {
    if number.is_multiple_of(2) { number / 2 } else { 3 * number + 1 }
}

const THREADS: u64 = 4;
const STARTS: u64 = 100_000;

fn main() -> Result<(), sexton::WaitError> {
    let lost = Arc::new(AtomicU64::new(0));
    let heap: Heap<World<'static>, Shared> = Heap::new(|_mc| World::default());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (heap, lost) = (&heap, &lost);
            scope.spawn(move || {
                let mut mutator = heap.attach();
                // Each takes every fourth number, some hundred in a session.
                for first in (1..=STARTS).step_by(500) {
                    mutator.mutate(|mc, world| {
                        let mine = (first..first + 500).filter(|start| start % THREADS == thread);
                        mine.for_each(|start| world.follow(mc, start, lost));
                    });
                }
            });
        }
    });

    let mut mutator = heap.attach();
    let built = mutator.collect();
    println!(
        "{THREADS} threads built {} nodes, and collected {} times",
        built.live_objects,
        built.cycle - 1
    );
    assert_eq!(lost.load(Relaxed), 0, "all of them are linked");

    // Every sequence leads to 1, and by the links back from there: whatever is kept of the graph
    // keeps all of it. So cut those links. 27 is the small number with the long way: 111 steps.
    mutator.mutate(|mc, world| {
        for part in &world.table {
            let part = part.lock(mc);
            let nodes = part.values().filter_map(|weak| weak.upgrade(mc));
            nodes.for_each(|node| node.before.lock(mc).clear());
        }
        let (node, _) = world.node(mc, 27, &lost);
        *world.kept.lock(mc) = vec![node];
    });
    let kept = mutator.collect();
    heap.wait_for_cleanups(Duration::from_secs(5))?;
    let lost = lost.load(Relaxed);
    println!("27 keeps {} nodes; {lost} have gone, each counted by its cleanup", kept.live_objects);
    assert_eq!(kept.live_objects, 112);
    assert_eq!(lost, built.live_objects - kept.live_objects);
    Ok(())
}
