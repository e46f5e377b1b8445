//! dumpster: reference counts, and a search for cycles among what has lost a reference. The variant
//! for one thread, which is the faster one.
//!
//! It has no sweep to time. W3 is a collection that finds the graph reachable, after its root lost
//! one of two references; it searches by recursion, so it works on a thread with a deep stack.
//! Links are set once.

use std::cell::OnceCell;
use std::hint::black_box;
use std::mem;
use std::time::{Duration, Instant};

use dumpster::Trace;
use dumpster::unsync::{Gc, collect, set_collect_condition};

use super::driver::Peer;
use super::owning::owning_peer;
use crate::catalogue::Work;
use crate::heaps::Links;

type Owner<T> = Gc<T>;
type Link<T> = OnceCell<Gc<T>>;

fn own<T: Trace>(value: T) -> Gc<T> {
    Gc::new(value)
}

fn link<T: Trace>(from: &Link<T>, to: Gc<T>) {
    assert!(from.set(to).is_ok(), "a link is set once");
}

owning_peer!(Counted {}, derive(Trace));

impl Peer for Counted {
    const NAME: &'static str = "dumpster";
    const ROWS: &'static str = "W1 W3.random W3.list W3.shuffled W3.tree W7.wall \
        W7.rss GCBench.wall memory.object memory.spike";
    const NEEDS_A_DEEP_STACK: bool = true;

    fn prepare(&mut self, work: Work) {
        if work == Work::W3 {
            set_collect_condition(|_| false);
        }
    }

    /// Freed at once, which is what it is for.
    fn garbage(&mut self, objects: usize) -> Duration {
        let start = Instant::now();
        (0..objects).for_each(|n| drop(black_box(Gc::new([n as u64; 4]))));
        start.elapsed()
    }

    fn mark(&mut self, objects: usize, links: Links) -> Duration {
        let all: Vec<_> = (0..objects).map(|_| Gc::new(Pair::default())).collect();
        let root = links.edges(objects, |from, left, right| {
            left.into_iter().for_each(|to| link(&all[from].left, all[to].clone()));
            right.into_iter().for_each(|to| link(&all[from].right, all[to].clone()));
        });
        let root = all[root].clone();
        drop(all);
        collect();
        drop(root.clone());
        let start = Instant::now();
        collect();
        let time = start.elapsed();
        black_box(root.words);
        // To drop it is a search of its own, or a recursion.
        mem::forget(root);
        time
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let all: Vec<_> = (0..objects).map(|n| Gc::new([n as u64; 4])).collect();
        peak();
        drop(all);
        collect();
        collect();
    }
}

#[derive(Trace, Default)]
struct Pair {
    left: Link<Pair>,
    right: Link<Pair>,
    words: [u64; 2],
}
