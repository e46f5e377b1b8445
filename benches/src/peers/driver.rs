//! What every Rust peer does, and how it is repeated, timed and told: the same for all.
//!
//! Everything is done once before it is timed, so that memory is warm; but for memory itself.

use std::time::{Duration, Instant};

use crate::catalogue::{Builtin, Out, Row, Work};
use crate::heaps::{GARBAGE_PER_CYCLE, Links, OBJECT_BYTES, per};
use crate::measure::memory::{resident, tell_each, tell_spike, tell_waste};
use crate::measure::programs::{GcBench, nodes, short_lived, tell_binary_trees};

/// The programs and a list, whose objects live to the end or die at once.
pub(super) trait Programs: Default {
    /// W7: makes a tree, counts its nodes, and lets go of it.
    fn tree(&mut self, depth: usize) -> usize;

    /// W7: makes the tree that lives to the end.
    fn keep_tree(&mut self, depth: usize);

    /// W7: counts the nodes of that tree.
    fn kept_nodes(&mut self) -> usize;

    /// GCBench: makes a tree from its root downwards, and lets go of it.
    fn top_down(&mut self, depth: usize);

    /// GCBench: makes a tree from its leaves upwards, and lets go of it.
    fn bottom_up(&mut self, depth: usize);

    /// GCBench: makes the tree, top down, and the array of numbers that live to the end.
    fn keep_tree_and_array(&mut self, depth: usize, numbers: usize);

    /// GCBench: tells how long the array is that has lived to the end, beside the tree.
    fn kept_numbers(&mut self) -> usize;

    /// memory.object: makes a list of objects of 32 bytes, each linked to the one before.
    fn keep_list(&mut self, objects: usize);
}

/// A heap, or what stands for one. A row that a peer does not list is never asked for, so its
/// methods may be left out.
pub(super) trait Peer: Programs {
    const NAME: &'static str;
    /// The ids of the rows that it measures, with a blank between two.
    const ROWS: &'static str;
    /// Whether it recurses as deep as its objects are linked.
    const NEEDS_A_DEEP_STACK: bool = false;

    /// Sets what depends on the work, such as the pacing.
    fn prepare(&mut self, _work: Work) {}

    /// W1: times the allocation of objects of 32 bytes that die, as late as the collector frees.
    fn garbage(&mut self, objects: usize) -> Duration;

    /// W1@once: the same, each freed at once.
    fn garbage_at_once(&mut self, _objects: usize) -> Option<Duration> {
        None
    }

    /// W2 and W2c: times the sweep of a heap of which a share lives, and another share has
    /// something to do when it dies; empties the heap.
    fn sweep(&mut self, _objects: usize, _live: f64, _dropping: f64) -> Duration {
        unlisted::<Self>()
    }

    /// W2r: times the allocation of as many objects as have died, and tells how many.
    fn refill(&mut self, _objects: usize, _live: f64) -> (Duration, usize) {
        unlisted::<Self>()
    }

    /// W3: times the mark of a graph.
    fn mark(&mut self, _objects: usize, _links: Links) -> Duration {
        unlisted::<Self>()
    }

    /// W4.run: times a collection in which all objects die, and each has something to do.
    fn drops(&mut self, _objects: usize) -> Duration {
        unlisted::<Self>()
    }

    /// memory.size: makes objects of that many bytes, which live to the end.
    fn keep_bytes<const N: usize>(&mut self, _objects: usize) {
        unlisted::<Self>()
    }

    /// memory.spike: makes as many objects, measures the memory by `peak`, and has them die.
    fn spike(&mut self, objects: usize, peak: impl FnOnce());

    /// Ends a process that has measured. What is left may take long to free.
    fn leave(self) {
        std::mem::forget(self);
    }
}

fn rows<P: Peer>() -> Vec<&'static Row> {
    P::ROWS.split(' ').map(|id| Row::find(id).expect("a peer measures rows that exist")).collect()
}

fn unlisted<P: Peer>() -> ! {
    panic!("{} lists a row that it does not measure", P::NAME)
}

/// A peer as a contender.
pub(super) const fn builtin<P: Peer>() -> Builtin {
    Builtin { name: P::NAME, rows: rows::<P>, measure: measure::<P> }
}

fn measure<P: Peer>(work: Work, size: usize, out: &mut Out) -> Result<(), String> {
    let mut measure = || {
        let mut peer = P::default();
        peer.prepare(work);
        measure_rows(&mut peer, work, size, out);
        peer.leave();
    };
    if P::NEEDS_A_DEEP_STACK {
        return with_a_deep_stack(measure);
    }
    measure();
    Ok(())
}

fn measure_rows<P: Peer>(peer: &mut P, work: Work, size: usize, out: &mut Out) {
    let wants = |out: &Out, id: &str| P::ROWS.split(' ').any(|it| it == id) && out.wants(id);
    if Row::of(work).all(|row| !wants(out, row.id)) {
        return;
    }
    match work {
        Work::W1 => {
            peer.garbage(4 * GARBAGE_PER_CYCLE);
            out.put("W1", per(peer.garbage(size), size as u64));
            if let Some(time) = peer.garbage_at_once(size) {
                out.put("W1@once", per(time, size as u64));
            }
        }
        Work::W2 | Work::W2c => {
            let rows = [
                ("W2.0", 0.0, 0.0),
                ("W2.10", 0.1, 0.0),
                ("W2.50", 0.5, 0.0),
                ("W2.90", 0.9, 0.0),
                ("W2c.0", 0.0, 0.1),
                ("W2c.50", 0.5, 0.1),
            ];
            let prefix = format!("{work}.");
            let of_work = rows.iter().filter(|row| row.0.starts_with(&prefix));
            let mut rows = of_work.filter(|row| wants(out, row.0)).peekable();
            if let Some(&&(_, live, dropping)) = rows.peek() {
                peer.sweep(size, live, dropping);
            }
            let rows: Vec<_> = rows.collect();
            for &(id, live, dropping) in rows {
                out.put(id, per(peer.sweep(size, live, dropping), size as u64));
            }
        }
        Work::W2r => {
            peer.refill(size, 0.5);
            for (id, live) in [("W2r.50", 0.5), ("W2r.90", 0.9)] {
                let (time, count) = peer.refill(size, live);
                out.put(id, per(time, count as u64));
            }
        }
        Work::W3 => {
            for (id, links) in [
                ("W3.random", Links::Random),
                ("W3.list", Links::List),
                ("W3.shuffled", Links::Shuffled),
                ("W3.tree", Links::Tree),
                ("W3.leaves", Links::Leaves),
            ] {
                if wants(out, id) {
                    out.put(id, per(peer.mark(size, links), size as u64));
                }
            }
        }
        Work::W4 => {
            peer.drops(size);
            out.put("W4.run", per(peer.drops(size), size as u64));
        }
        Work::W7 => binary_trees(peer, size, out),
        Work::GCBench => gc_bench(peer, size, out),
        Work::Memory => memory(peer, size, out),
        _ => {}
    }
}

fn binary_trees(peer: &mut impl Peer, depth: usize, out: &mut Out) {
    let start = Instant::now();
    assert_eq!(peer.tree(depth + 1), nodes(depth + 1));
    peer.keep_tree(depth);
    for (count, depth) in short_lived(depth) {
        let found: usize = (0..count).map(|_| peer.tree(depth)).sum();
        assert_eq!(found, count * nodes(depth));
    }
    assert_eq!(peer.kept_nodes(), nodes(depth));
    tell_binary_trees(start, out);
}

fn gc_bench(peer: &mut impl Peer, stretch: usize, out: &mut Out) {
    let plan = GcBench { stretch };
    let start = Instant::now();
    peer.bottom_up(stretch);
    peer.keep_tree_and_array(plan.long_lived(), plan.array());
    for (count, depth) in plan.short_lived() {
        (0..count).for_each(|_| peer.top_down(depth));
        (0..count).for_each(|_| peer.bottom_up(depth));
    }
    assert_eq!(peer.kept_numbers(), plan.array(), "what was to live has died");
    out.put("GCBench.wall", start.elapsed().as_secs_f64() * 1e3);
}

fn memory<P: Peer>(peer: &mut P, objects: usize, out: &mut Out) {
    if P::ROWS.contains("memory.size") {
        waste::<20_000>(peer, "memory.size.20000", objects, out);
        waste::<33_000>(peer, "memory.size.33000", objects, out);
        waste::<65_544>(peer, "memory.size.65544", objects, out);
    }
    let before = resident();
    peer.keep_list(objects);
    tell_each(out, "memory.object", before, objects);
    let before = resident();
    let mut peak = None;
    peer.spike(objects, || peak = resident());
    tell_spike(out, before, peak);
}

fn waste<const N: usize>(peer: &mut impl Peer, row: &str, objects: usize, out: &mut Out) {
    let count = objects * OBJECT_BYTES / N;
    let before = resident();
    peer.keep_bytes::<N>(count);
    tell_waste(out, row, before, count * N);
}

/// Calls `f` on a thread whose stack is deep enough for a recursion over millions of objects.
fn with_a_deep_stack(f: impl FnOnce() + Send) -> Result<(), String> {
    const BYTES: usize = 4 << 30;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(BYTES);
        let thread = thread.spawn_scoped(scope, f).map_err(|error| {
            format!("there is no room for a stack of {} GiB: {error}", BYTES >> 30)
        })?;
        thread.join().map_err(|_| "it panicked".to_owned())
    })
}
