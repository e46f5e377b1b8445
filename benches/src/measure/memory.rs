//! Memory: what live objects, types and cleanups take, and what comes back after a spike. As the
//! system counts it: resident pages of this process, which has done nothing else.

use std::fs;
use std::hint::black_box;
use std::time::Instant;

use sexton::{
    Branded, CleanupPool, Gc, GcCell, GcRefCell, Heap, HeapBuilder, Leaf, Mutation, OnDrop, Pacing,
    Trace,
};

use crate::catalogue::Out;
use crate::heaps::OBJECT_BYTES;

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

/// Tells how much more has come since a reading than these bytes of objects.
pub(crate) fn tell_waste(out: &mut Out, row: &str, before: Option<f64>, bytes: usize) {
    if let (Some(before), Some(after)) = (before, resident()) {
        out.put(row, 100.0 * ((after - before) / bytes as f64 - 1.0).max(0.0));
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
    let build = || builder(&pool).build(|_mc| Last::default());

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

fn builder<R: Branded>(pool: &CleanupPool) -> HeapBuilder<R> {
    Heap::builder().cleanup_pool(pool).pacing(Pacing::Manual).on_drop(OnDrop::Discard)
}

/// Objects that fill the memory of `objects` of the usual size, but are larger.
pub(super) fn measure_sizes(objects: usize, out: &mut Out) {
    let bytes = objects * OBJECT_BYTES;
    // All heaps stay, so that no one can live in the memory of another.
    let _heaps = (
        measure_size::<20_000>("memory.size.20000", bytes, out),
        measure_size::<33_000>("memory.size.33000", bytes, out),
        measure_size::<65_544>("memory.size.65544", bytes, out),
    );
}

type Sized<const N: usize> = GcRefCell<Vec<Gc<'static, Leaf<[u8; N]>>>>;

fn measure_size<const N: usize>(row: &str, bytes: usize, out: &mut Out) -> Heap<Sized<N>> {
    let mut heap: Heap<Sized<N>> =
        builder(&CleanupPool::manual()).build(|_mc| GcRefCell::default());
    let before = resident();
    let count = heap.mutate(|mc, root| {
        let mut all = root.borrow_mut(mc);
        all.extend((0..bytes / N).map(|_| mc.alloc(Leaf::new([1; N]))));
        all.len()
    });
    tell_waste(out, row, before, count * N);
    heap
}

/// What a payload owns outside the heap.
#[derive(Trace)]
struct Buffer {
    bytes: Vec<u8>,
}

/// Payloads that die at once, each of which owns far more than it takes on the heap. Comes first:
/// the system tells the peak since the process began.
pub(super) fn measure_external(objects: usize, out: &mut Out) {
    const LIVE: usize = 64 << 10;
    const DEAD: usize = 256 << 10;
    let mut heap: Heap<GcCell<Option<Gc<'static, Buffer>>>> = Heap::new(|_mc| GcCell::new(None));
    heap.mutate(|mc, root| root.set(mc, Some(mc.alloc(Buffer { bytes: vec![1; LIVE] }))));
    let before = resident();
    for _ in 0..objects / 200 {
        heap.mutate(|mc, _root| {
            black_box(&mc.alloc(Buffer { bytes: vec![1; DEAD] }).bytes);
        });
    }
    assert_eq!(heap.mutate(|_mc, root| root.get().map(|it| it.bytes.len())), Some(LIVE));
    if let (Some(before), Some(peak)) = (before, peak_mb()) {
        out.put("memory.external", (peak - before / 1e6).max(0.0));
    }
}

/// 64 bytes, of a type for each number.
#[derive(Trace)]
struct Kind<'gc, const N: usize> {
    words: [usize; 7],
    next: Option<Gc<'gc, Kind<'gc, N>>>,
}

impl<const N: usize> Kind<'_, N> {
    fn new(number: usize) -> Self {
        Kind { words: [number; 7], next: None }
    }
}

/// The survivors of storms, a list for each kind.
#[derive(Trace, Default)]
struct Survivors<'gc> {
    first: Survivor<'gc, 0>,
    others: (Survivor<'gc, 1>, Survivor<'gc, 2>, Survivor<'gc, 3>, Survivor<'gc, 4>),
}

type SurvivorHeap = Heap<Survivors<'static>>;

type Survivor<'gc, const N: usize> = GcRefCell<Vec<Gc<'gc, Kind<'gc, N>>>>;

/// Makes `count` objects, of which one of every `one_in` lives. The others die in a cycle.
macro_rules! storm {
    ($heap:expr, $count:expr, $one_in:expr, $($list:tt).+) => {{
        for first in (0..$count).step_by(PER_SESSION) {
            $heap.mutate(|mc, root| {
                let mut list = root.$($list).+.borrow_mut(mc);
                for n in first..(first + PER_SESSION).min($count) {
                    let object = mc.alloc(Kind::new(n));
                    if n % $one_in == 0 {
                        list.push(object);
                    }
                }
            });
        }
        $heap.collect();
    }};
}

/// Storms, and what their survivors keep two cycles later.
pub(super) fn measure_storms(objects: usize, out: &mut Out) {
    let pool = CleanupPool::manual();
    let few = 1 + (objects - 1) / FEW;
    let mut heap: SurvivorHeap = builder(&pool).build(|_mc| Survivors::default());
    let before = resident();
    storm!(heap, objects, FEW, first);
    heap.collect();
    tell_each(out, "memory.storm", before, few);

    // What one type has left is of no use to the next one.
    let mut heap: SurvivorHeap = builder(&pool).build(|_mc| Survivors::default());
    let before = resident();
    storm!(heap, objects, MANY, first);
    storm!(heap, objects, MANY, others.0);
    storm!(heap, objects, MANY, others.1);
    storm!(heap, objects, MANY, others.2);
    storm!(heap, objects, MANY, others.3);
    heap.collect();
    tell_each(out, "memory.phases", before, 5 * (1 + (objects - 1) / MANY));
    let sum: usize = heap.mutate(|_mc, root| {
        root.first.borrow().iter().map(|it| it.words[0] + usize::from(it.next.is_some())).sum()
    });
    black_box(sum);
}

/// Objects of a storm of which one survives.
const FEW: usize = 60_000;
const MANY: usize = 1_000;

/// Many types, with an object each.
pub(super) fn measure_types(out: &mut Out) {
    macro_rules! each {
        ($mc:ident; $($tens:literal)*) => {{ $( each!(@ $mc, $tens; 0 1 2 3 4 5 6 7 8 9); )* }};
        (@ $mc:ident, $tens:literal; $($n:literal)*) => {{
            $( black_box($mc.alloc(Kind::<{ 10 * $tens + $n }>::new($n))); )*
        }};
    }
    let pool = CleanupPool::manual();
    let before = resident();
    let heaps: Vec<Heap<()>> = std::iter::repeat_with(|| {
        let mut heap = builder(&pool).build(|_mc| ());
        heap.mutate(|mc, ()| each!(mc; 0 1 2 3 4 5 6 7 8 9));
        heap
    })
    .take(TYPED_HEAPS)
    .collect();
    tell_each(out, "memory.type", before, 100 * heaps.len());
}

/// Heaps with a hundred types each.
const TYPED_HEAPS: usize = 10;

/// Many heaps, with one object each that has a cleanup.
pub(super) fn measure_heaps(out: &mut Out) {
    let pool = CleanupPool::manual();
    let (before, began) = (resident(), Instant::now());
    let heaps: Vec<Heap<Last<'static>>> = std::iter::repeat_with(|| {
        let mut heap = builder(&pool).build(|_mc| Last::default());
        heap.mutate(|mc, root| {
            extend(mc, root, 1);
            mc.add_cleanup(root.last.get().expect("the object"), || ());
        });
        heap
    })
    .take(SMALL_HEAPS)
    .collect();
    out.put("memory.heap.time", began.elapsed().as_secs_f64() * 1e6 / SMALL_HEAPS as f64);
    tell_each(out, "memory.heap", before, SMALL_HEAPS);
    drop(heaps);
    pool.run_pending(usize::MAX);
    tell_each(out, "memory.heap.left", before, SMALL_HEAPS);
}

/// Heaps that are alive at once.
const SMALL_HEAPS: usize = 20_000;

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
