//! The crate `gc`: a mark-sweep collector whose roots are counted, and whose objects are in the
//! system's allocator.
//!
//! It marks by recursion, so it works on a thread with a stack for the longest list. Its phases
//! cannot be timed apart: W3 is a whole collection of a heap in which all is live, W2.0 one of a
//! heap in which all is dead.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gc::{Finalize, Gc, GcCell, Trace, configure, force_collect};

use super::driver::Peer;
use super::owning::owning_peer;
use crate::catalogue::Work;
use crate::heaps::{GARBAGE_PER_CYCLE, Links, SEED};

type Owner<T> = Gc<T>;
type Link<T> = GcCell<Option<Gc<T>>>;

fn own<T: Trace>(value: T) -> Gc<T> {
    Gc::new(value)
}

fn link<T: Trace>(from: &Link<T>, to: Gc<T>) {
    *from.borrow_mut() = Some(to);
}

owning_peer!(Rooted {}, derive(Trace, Finalize));

impl Peer for Rooted {
    const NAME: &'static str = "gc";
    const ROWS: &'static str = "W1 W2.0 W2r.50 W2r.90 W3.random W3.list W3.shuffled \
        W3.tree W4.run W7.wall W7.rss GCBench.wall memory.object memory.spike";
    const NEEDS_A_DEEP_STACK: bool = true;

    fn prepare(&mut self, work: Work) {
        match work {
            Work::W1 | Work::W7 | Work::GCBench => pacing_like_sextons(),
            _ => pacing_off(),
        }
    }

    fn garbage(&mut self, objects: usize) -> Duration {
        let start = Instant::now();
        for n in 0..objects {
            black_box(plain(n).0);
        }
        start.elapsed()
    }

    /// A whole collection, in which nothing lives.
    fn sweep(&mut self, objects: usize, _live: f64, _dropping: f64) -> Duration {
        let all: Vec<_> = (0..objects).map(plain).collect();
        drop(all);
        timed_collection()
    }

    fn refill(&mut self, objects: usize, live: f64) -> (Duration, usize) {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut all: Vec<_> = (0..objects).map(plain).collect();
        all.retain(|_| rng.f64() < live);
        force_collect();
        let dead = objects - all.len();
        let time = self.garbage(dead);
        drop(all);
        force_collect();
        (time, dead)
    }

    /// A whole collection, in which all lives.
    fn mark(&mut self, objects: usize, links: Links) -> Duration {
        let all: Vec<_> = (0..objects).map(|_| own(Pair::default())).collect();
        let root = links.edges(objects, |from, left, right| {
            left.into_iter().for_each(|to| link(&all[from].left, all[to].clone()));
            right.into_iter().for_each(|to| link(&all[from].right, all[to].clone()));
        });
        let root = all[root].clone();
        drop(all);
        force_collect();
        let time = timed_collection();
        black_box(root.words);
        drop(root);
        force_collect();
        time
    }

    /// To the end of the last finalizer, which the collection calls itself.
    fn drops(&mut self, objects: usize) -> Duration {
        let all: Vec<_> = (0..objects).map(|n| Gc::new(Finalized([n as u64; 4]))).collect();
        drop(all);
        timed_collection()
    }

    fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
        let list = linked(objects);
        peak();
        drop(list);
        force_collect();
        force_collect();
    }

    /// What is left dies with the process.
    fn leave(self) {
        configure(|config| config.leak_on_drop = true);
    }
}

fn timed_collection() -> Duration {
    let start = Instant::now();
    force_collect();
    start.elapsed()
}

/// Collects only when told to.
fn pacing_off() {
    configure(|config| config.threshold = usize::MAX);
}

/// Collects not before as much has been made as Sexton makes, and so that the heap doubles.
fn pacing_like_sextons() {
    configure(|config| {
        config.threshold = GARBAGE_PER_CYCLE * 32;
        config.used_space_ratio = 0.5;
    });
}

#[derive(Trace, Finalize)]
struct Plain([u64; 4]);

fn plain(n: usize) -> Gc<Plain> {
    Gc::new(Plain([n as u64; 4]))
}

#[derive(Trace, Finalize, Default)]
struct Pair {
    left: Link<Pair>,
    right: Link<Pair>,
    words: [u64; 2],
}

#[derive(Trace)]
struct Finalized([u64; 4]);

impl Finalize for Finalized {
    fn finalize(&self) {
        black_box(self.0[0]);
    }
}
