//! Cycles in slices that the heap runs by itself, and what a program does while one stands still.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::{self, ThreadId};
use std::time::Duration;

use sexton::{
    BackPressure, CleanupPool, Gc, GcAtomic, GcCell, GcReport, Heap, Leaf, OnDrop, Pacing,
    Progress, Shared, Trace,
};

use crate::world::{Counter, LONG, Node, WorldHeap, calm, phases};

/// A list of long life, and the object that the last session has made.
#[derive(Trace, Default)]
struct World<'gc> {
    list: GcCell<Option<Gc<'gc, Link<'gc>>>>,
    last: GcCell<Option<Gc<'gc, Leaf<[u64; 8]>>>>,
}

#[derive(Trace)]
struct Link<'gc> {
    next: Option<Gc<'gc, Link<'gc>>>,
    _room: Leaf<[u64; 7]>,
}

/// The bytes of the list.
const LIVE: u64 = 64 * LINKS;
const LINKS: u64 = 100_000;

/// Steady garbage beside a list.
#[test]
fn automatic_cycles_run_in_slices_and_end_before_the_heap_has_grown_too_far() {
    for budget in [50, 200].map(Duration::from_micros) {
        let mut heap: Heap<World<'static>> = Heap::builder()
            .pause_budget(Some(budget))
            .pacing(Pacing::Automatic { min_bytes: 0, growth: 1.0 })
            .zeal(false)
            .build(|_| World::default());
        heap.mutate(|mc, world| {
            let next = (0..LINKS)
                .fold(None, |next, _| Some(mc.alloc(Link { next, _room: Leaf::new([0; 7]) })));
            world.list.set(mc, next);
        });
        heap.collect();
        let (mut ended, mut slices) = (0, 1);
        let (mut in_slices, mut most) = (0, 0);
        let mut cycle = 1;
        while ended < 8 {
            heap.mutate(|mc, world| {
                for _ in 0..1000 {
                    world.last.set(mc, Some(mc.alloc(Leaf::new([0; 8]))));
                }
            });
            let stats = heap.stats();
            most = most.max(stats.bytes);
            let report = heap.last_report().expect("there was one");
            if report.cycle > cycle {
                assert_eq!(report.cycle, cycle + 1, "no cycle ends within a session of another");
                cycle = report.cycle;
                ended += 1;
                slices += report.slices;
                in_slices += u64::from(report.slices > 1);
                assert_eq!(phases(&report), report.pause_time, "{report:?}");
                assert!(report.longest_pause <= report.pause_time);
                // What comes after the end may be the first slices of the next.
                assert!(stats.pause.count >= slices, "each slice is a pause");
                slices = stats.pause.count;
            }
        }
        heap.verify().unwrap();
        assert!(in_slices > 4, "{in_slices} cycles of {ended} ran in slices");
        // Twice what is alive is the goal. A machine with other work to do may miss it.
        assert!(most < 4 * LIVE, "the heap has grown to {most} bytes");
    }
}

thread_local! {
    /// This thread has a session open.
    static IN_SESSION: Cell<bool> = const { Cell::new(false) };
}

/// What drop glue notes: which thread it ran on.
#[derive(Default)]
struct Drops {
    here: AtomicU64,
    elsewhere: AtomicU64,
}

struct Noted(Arc<Drops>, ThreadId);

impl Drop for Noted {
    fn drop(&mut self) {
        let Noted(drops, made_on) = self;
        assert!(!IN_SESSION.get(), "drop glue runs within a session");
        let here = thread::current().id() == *made_on;
        (if here { &drops.here } else { &drops.elsewhere }).fetch_add(1, SeqCst);
    }
}

#[derive(Trace, Default)]
struct SharedWorld<'gc> {
    list: GcAtomic<'gc, Link<'gc>>,
    last: GcAtomic<'gc, Leaf<Noted>>,
}

/// Steady garbage with drop glue beside a list. It goes on until a thread has dropped some.
#[test]
fn drop_glue_runs_on_a_thread_beside_sessions_and_in_none() {
    let drops = Arc::new(Drops::default());
    let heap: Heap<SharedWorld<'static>, Shared> = Heap::builder()
        .gc_threads(2)
        .pacing(Pacing::Automatic { min_bytes: 0, growth: 1.0 })
        .pause_budget(Some(Duration::from_micros(50)))
        .zeal(false)
        .build(|_| SharedWorld::default());
    let mut mutator = heap.attach();
    mutator.mutate(|mc, world| {
        let next = (0..LINKS)
            .fold(None, |next, _| Some(mc.alloc(Link { next, _room: Leaf::new([0; 7]) })));
        world.list.store(mc, next);
    });
    mutator.collect();
    let (mut made, mut cycle) = (0, 0);
    while drops.elsewhere.load(SeqCst) == 0 || cycle < 4 {
        mutator.mutate(|mc, world| {
            IN_SESSION.set(true);
            for _ in 0..1000 {
                let noted = Noted(drops.clone(), thread::current().id());
                world.last.store(mc, Some(mc.alloc(Leaf::new(noted))));
                made += 1;
            }
            IN_SESSION.set(false);
        });
        let report = heap.last_report().expect("there was one");
        assert!(report.background_time.is_zero() || report.slices > 1, "{report:?}");
        cycle = report.cycle;
    }
    mutator.verify().unwrap();
    assert_eq!(heap.stats().drop_panics, 0);
    drop(mutator);
    drop(heap);
    assert_eq!(drops.here.load(SeqCst) + drops.elsewhere.load(SeqCst), made);
}

/// Makes dead objects with cleanups, and stops in the middle of their sweep.
fn stand_in_the_sweep(heap: &mut WorldHeap, ran: &Counter) {
    heap.mutate(|mc, _| {
        for id in 0..20_000 {
            mc.add_cleanup(mc.alloc(Node::new(id)), ran.cleanup());
        }
    });
    let before = heap.stats().cleanups.queued;
    while heap.stats().cleanups.queued == before {
        assert!(!heap.step(Duration::ZERO).is_finished());
    }
    assert!(!heap.step(Duration::ZERO).is_finished());
}

fn finish(heap: &mut WorldHeap) -> GcReport {
    loop {
        if let Progress::Finished(report) = heap.step(Duration::ZERO) {
            return report;
        }
    }
}

#[test]
fn cleanups_queued_by_a_slice_run_before_the_cycle_ends() {
    for threads in [0, 1] {
        let pool = match threads {
            0 => CleanupPool::manual(),
            _ => CleanupPool::builder().max_workers(threads).build(),
        };
        let ran = Counter::default();
        let mut heap: WorldHeap = calm().cleanup_pool(&pool).build(|_| Default::default());
        stand_in_the_sweep(&mut heap, &ran);
        let queued = heap.stats().cleanups.queued;
        while pool.run_pending(usize::MAX) > 0 {}
        assert_eq!(heap.wait_for_cleanups(LONG), Ok(()));
        assert_eq!(ran.get() as u64, queued, "nothing is held back");
        assert!(queued < 20_000, "and not all are queued");
        finish(&mut heap);
        while pool.run_pending(usize::MAX) > 0 {}
        assert_eq!(heap.wait_for_cleanups(LONG), Ok(()));
        assert_eq!(ran.get(), 20_000);
        // And with a drop in the middle, which waits for all of them.
        stand_in_the_sweep(&mut heap, &ran);
        drop(heap);
        while pool.run_pending(usize::MAX) > 0 {}
        assert_eq!((ran.get(), ran.sharers()), (40_000, 0));
    }
}

#[test]
fn a_heap_dropped_in_its_sweep_discards_what_it_has_queued() {
    let (pool, ran) = (CleanupPool::manual(), Counter::default());
    let mut heap: WorldHeap =
        calm().cleanup_pool(&pool).on_drop(OnDrop::Discard).build(|_| Default::default());
    stand_in_the_sweep(&mut heap, &ran);
    drop(heap);
    assert_eq!(pool.run_pending(usize::MAX), 0);
    assert_eq!((ran.get(), ran.sharers()), (0, 0));
}

#[test]
fn back_pressure_is_applied_at_the_end_of_a_cycle_in_slices() {
    let (pool, ran, told) = (CleanupPool::manual(), Counter::default(), Counter::default());
    let hook = {
        let told = told.clone();
        BackPressure::call(move |_| told.raise())
    };
    let mut heap: WorldHeap =
        calm().cleanup_pool(&pool).back_pressure(100, hook).build(|_| Default::default());
    stand_in_the_sweep(&mut heap, &ran);
    assert_eq!(told.get(), 0);
    finish(&mut heap);
    assert_eq!(told.get(), 1);
    stand_in_the_sweep(&mut heap, &ran);
    heap.collect();
    assert_eq!(told.get(), 2);
    while pool.run_pending(usize::MAX) > 0 {}
    assert_eq!(ran.get(), 40_000);
}
