//! Memory: what live objects and cleanups take, and what comes back after a spike. As the system
//! counts it: resident pages of this process, which has done nothing else.

use std::fs;
use std::hint::black_box;

use sexton::{CleanupPool, Gc, GcCell, Heap, Leaf, Mutation, OnDrop, Pacing, Trace};

use crate::catalogue::Out;

/// Bytes of this process that are in memory; `None` where the system does not tell.
pub(crate) fn resident() -> Option<f64> {
    status("VmRSS:").map(|kib| kib * 1024.0)
}

/// The most megabytes that this process ever had in memory.
pub(crate) fn peak_mb() -> Option<f64> {
    status("VmHWM:").map(|kib| kib * 1024.0 / 1e6)
}

fn status(field: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Tells the bytes that have come since a reading, for each of `count` things.
pub(crate) fn tell_each(out: &mut Out, row: &str, before: Option<f64>, count: usize) {
    if let (Some(before), Some(after)) = (before, resident()) {
        out.put(row, (after - before).max(0.0) / count as f64);
    }
}

/// The share of a spike that is gone.
pub(crate) fn tell_spike(out: &mut Out, before: Option<f64>, peak: Option<f64>) {
    if let (Some(before), Some(peak), Some(after)) = (before, peak, resident()) {
        let share = (peak - after) / (peak - before).max(1.0);
        out.put("memory.spike", 100.0 * share.clamp(0.0, 1.0));
    }
}

/// An object of 32 bytes, linked to the one before: nothing but the objects takes memory.
#[derive(Trace)]
struct Linked<'gc> {
    before: Option<Gc<'gc, Linked<'gc>>>,
    words: Leaf<[u64; 3]>,
}

#[derive(Trace, Default)]
struct Last<'gc> {
    last: GcCell<Option<Gc<'gc, Linked<'gc>>>>,
}

const PER_SESSION: usize = 1 << 16;

fn extend<'gc>(mc: &Mutation<'gc>, root: &Last<'gc>, count: usize) {
    for n in 0..count {
        let object = Linked { before: root.last.get(), words: Leaf::new([n as u64; 3]) };
        root.last.set(mc, Some(mc.alloc(object)));
    }
}

fn fill(heap: &mut Heap<Last<'static>>, objects: usize) {
    for first in (0..objects).step_by(PER_SESSION) {
        heap.mutate(|mc, root| extend(mc, root, PER_SESSION.min(objects - first)));
    }
}

pub(super) fn measure(objects: usize, out: &mut Out) {
    let pool = CleanupPool::manual();
    let build = || -> Heap<Last<'static>> {
        Heap::builder()
            .cleanup_pool(&pool)
            .pacing(Pacing::Manual)
            .on_drop(OnDrop::Discard)
            .build(|_mc| Last::default())
    };

    // 1. Objects. The heap stays, so that the next one cannot live in its memory.
    let mut first = build();
    let before = resident();
    fill(&mut first, objects);
    tell_each(out, "memory.object", before, objects);

    // 2. A cleanup for each of a quarter of them.
    let cleanups = objects / 4;
    let before = resident();
    first.mutate(|mc, root| {
        let mut next = root.last.get();
        for n in 0..cleanups {
            let Some(object) = next else { break };
            mc.add_cleanup(object, move || {
                black_box(n);
            });
            next = object.before;
        }
    });
    tell_each(out, "memory.cleanup", before, cleanups);

    // 3. A spike: as many objects again, all of which die.
    let mut second = build();
    let before = resident();
    fill(&mut second, objects);
    let peak = resident();
    second.mutate(|mc, root| root.last.set(mc, None));
    second.collect();
    second.collect();
    tell_spike(out, before, peak);
    black_box(first.mutate(|_mc, root| root.last.get().map(|object| object.words[0])));
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_is_resident() {
        let before = resident().unwrap();
        let much = vec![1_u8; 64 << 20];
        let after = resident().unwrap();
        assert!(after - before > 50e6, "{before} {after}");
        assert!(peak_mb().unwrap() * 1e6 >= after);
        drop(black_box(much));
    }
}
