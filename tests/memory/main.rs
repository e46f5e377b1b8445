//! Bytes outside the heap, counted by a global allocator of this test's own.
//!
//! Goal: what is allocated at a time stays below twice what lives, and 64 MB.

#![expect(unsafe_code, reason = "a global allocator is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use sexton::{
    Branded, CleanupPool, ExternalCharge, Gc, GcAtomic, GcCell, GcMap, GcMutex, GcOnce, GcRefCell,
    GcRwLock, GcVec, Heap, HeapBuilder, Leaf, Pacing, Shared, Trace,
};

/// Counts what is allocated, and the most that was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: all calls go to the system's allocator, as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: by this function's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: by this function's contract.
        unsafe { System.dealloc(place, layout) };
    }
}

/// One test at a time: they share the counts.
static TURN: Mutex<()> = Mutex::new(());

/// Measures the most that is allocated beside what was there before.
struct Peak {
    before: usize,
    _turn: MutexGuard<'static, ()>,
}

impl Peak {
    fn begin() -> Self {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        Peak { before, _turn }
    }

    fn bytes(&self) -> usize {
        PEAK.load(Relaxed) - self.before
    }

    #[track_caller]
    fn assert_in_proportion_to(&self, live: usize) {
        let (peak, goal) = (self.bytes(), 2 * live + (64 << 20));
        assert!(peak <= goal, "{peak} bytes at a time, where {live} live");
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

type Buffer = Leaf<Vec<u8>>;

/// Takes memory, and does not touch it.
fn buffer(bytes: usize) -> Buffer {
    Leaf::new(Vec::with_capacity(bytes))
}

#[derive(Trace, Default)]
struct World<'gc> {
    last: GcCell<Option<Gc<'gc, Buffer>>>,
    page: GcRefCell<Vec<Gc<'gc, Buffer>>>,
}

type WorldHeap = Heap<World<'static>>;

#[derive(Trace, Default)]
struct SharedWorld<'gc> {
    last: GcAtomic<'gc, Buffer>,
}

fn calm<R: Branded>() -> HeapBuilder<R> {
    Heap::builder().pacing(Pacing::Manual).zeal(false)
}

#[test]
fn dead_payloads_are_collected_in_proportion_to_what_lives() {
    let peak = Peak::begin();
    let mut heap: WorldHeap = Heap::new(|_| World::default());
    heap.mutate(|mc, world| world.page.borrow_mut(mc).push(mc.alloc(buffer(64 * KIB))));
    for _ in 0..20_000 {
        heap.mutate(|mc, _| _ = mc.alloc(buffer(256 * KIB)));
    }
    peak.assert_in_proportion_to(64 * KIB);
}

#[test]
fn dead_payloads_of_several_threads_are_collected_in_proportion_to_what_lives() {
    let peak = Peak::begin();
    let heap: Heap<SharedWorld<'static>, Shared> = Heap::new(|_| SharedWorld::default());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut mutator = heap.attach();
                for _ in 0..5000 {
                    mutator.mutate(|mc, world| {
                        world.last.store(mc, Some(mc.alloc(buffer(256 * KIB))));
                    });
                }
            });
        }
    });
    peak.assert_in_proportion_to(256 * KIB);
}

/// All that a document's page shows is made in one session.
#[test]
fn a_page_of_large_pictures_is_gone_when_the_next_one_is_shown() {
    let peak = Peak::begin();
    let mut heap: WorldHeap = Heap::new(|_| World::default());
    for _ in 0..100 {
        heap.mutate(|mc, world| {
            let page = (0..3).map(|_| mc.alloc(buffer(20 * MIB))).collect();
            *world.page.borrow_mut(mc) = page;
        });
    }
    peak.assert_in_proportion_to(60 * MIB);
}

#[test]
fn a_limit_is_for_payloads_too() {
    let peak = Peak::begin();
    let mut heap: WorldHeap = Heap::builder().max_bytes(MIB as u64).build(|_| World::default());
    for _ in 0..2000 {
        heap.mutate(|mc, world| world.last.set(mc, Some(mc.alloc(buffer(256 * KIB)))));
    }
    assert!(peak.bytes() < MIB + 256 * KIB, "{} bytes at a time", peak.bytes());
    let full = heap.mutate(|mc, world| {
        let before = world.last.get().map(|last| last.capacity());
        let mut kept = Vec::new();
        let full = loop {
            match mc.try_alloc(buffer(100 * KIB)) {
                Ok(buffer) => kept.push(buffer),
                Err(full) => break full,
            }
        };
        assert_eq!((before, kept.len()), (Some(256 * KIB), 7));
        full
    });
    assert_eq!(full.external_bytes(), (956 * KIB) as u64);
    assert!((956 * KIB..MIB).contains(&(full.used_bytes() as usize)), "{full}");
    assert_eq!(full.requested_bytes(), (100 * KIB + 24) as u64);
    assert!(full.to_string().contains("in use (978944 outside the heap) of max_bytes"), "{full}");
    assert_eq!(full.into_value().capacity(), 100 * KIB, "it is given back");
    // The refusal has the heap collected.
    assert_eq!(heap.stats().external_bytes, (256 * KIB) as u64);
}

/// A slot finds no room where payloads have it all.
#[test]
fn payloads_and_slots_have_one_limit() {
    let _turn = Peak::begin();
    let mut heap: WorldHeap = calm().max_bytes(MIB as u64).build(|_| World::default());
    heap.mutate(|mc, _| {
        mc.alloc(buffer(MIB - 10 * KIB));
        let slots = (0..).take_while(|_| mc.try_alloc(Leaf::new([0_u64; 16])).is_ok()).count();
        assert!((70..80).contains(&slots), "{slots} slots of 128 bytes in 10 KiB");
        let full = mc.try_alloc(buffer(10 * KIB)).expect_err("there is no room");
        assert_eq!(full.external_bytes(), (MIB - 10 * KIB) as u64);
    });
}

/// What a cell comes to own within a session makes a collection due, and is swept with the object.
#[test]
fn what_grows_in_a_cell_counts() {
    #[derive(Trace, Default)]
    struct Cells<'gc> {
        cell: GcRefCell<Vec<u8>>,
        mutex: GcMutex<Vec<u8>>,
        lock: GcRwLock<Option<Box<[u8]>>>,
        once: GcOnce<String>,
        lazy: GcOnce<Vec<u64>>,
        plain: GcCell<Option<Box<[u64; 1000]>>>,
        vec: GcVec<'gc, u64>,
        map: GcMap<'gc, String, u64>,
    }
    type CellsHeap = Heap<GcCell<Option<Gc<'static, Cells<'static>>>>>;

    let peak = Peak::begin();
    let mut heap: CellsHeap = calm().build(|_| GcCell::default());
    let before = heap.mutate(|mc, root| {
        root.set(mc, Some(mc.alloc(Cells::default())));
        NOW.load(Relaxed)
    });
    assert_eq!(heap.stats().external_bytes, 0);
    macro_rules! grows {
        ($by:expr, |$mc:ident, $cells:ident| $f:expr) => {
            let old = heap.stats().external_bytes as i64;
            heap.mutate(|$mc, root| {
                let $cells = root.get().expect("it is there");
                $f;
            });
            assert_eq!(heap.stats().external_bytes as i64 - old, $by, "{}", stringify!($f));
            let report = heap.collect();
            assert_eq!(report.external_bytes as i64 - old, $by, "a sweep: {}", stringify!($f));
            assert_eq!(report.swept_external_bytes, 0, "a sweep: {}", stringify!($f));
        };
    }
    grows!(1000, |mc, cells| cells.cell.borrow_mut(mc).reserve_exact(1000));
    grows!(-400, |mc, cells| cells.cell.borrow_mut(mc).shrink_to(600));
    grows!(-600, |mc, cells| cells.cell.take(mc));
    grows!(2000, |mc, cells| cells.mutex.lock(mc).reserve_exact(2000));
    grows!(1000, |mc, cells| { cells.mutex.try_lock(mc).expect("it is free").reserve_exact(3000) });
    grows!(5000, |mc, cells| *cells.lock.write(mc) = Some(vec![0; 5000].into()));
    grows!(-5000, |mc, cells| *cells.lock.try_write(mc).expect("it is free") = None);
    grows!(300, |mc, cells| cells.once.set(mc, String::with_capacity(300)).unwrap());
    grows!(0, |mc, cells| cells.once.set(mc, String::with_capacity(9)).unwrap_err());
    grows!(800, |mc, cells| cells.lazy.get_or_init(mc, || Vec::with_capacity(100)));
    grows!(8000, |mc, cells| cells.plain.set(mc, Some(Box::new([0; 1000]))));
    grows!(-8000, |mc, cells| cells.plain.set(mc, None));
    // Two leaves, and a page with room for four.
    grows!(8192 + 32, |mc, cells| cells.vec.extend(mc, 0..1024));
    // A guard of a part knows the whole.
    grows!(100, |mc, cells| {
        let part = sexton::GcMutexGuard::map(cells.mutex.lock(mc), |bytes| bytes);
        let mut part = sexton::GcMutexGuard::filter_map(part, |bytes| Some(bytes)).expect("a part");
        part.reserve_exact(3100);
    });
    // A leaked guard tells nothing, and leaves the lock locked.
    heap.mutate(|mc, root| {
        let cells = root.get().expect("it is there");
        let mut guard = cells.mutex.lock(mc);
        guard.reserve_exact(9000);
        std::mem::forget(guard);
    });
    let known = heap.stats().external_bytes;
    heap.mutate(|mc, root| {
        let keys = (0..1000).map(|n| (format!("a key of thirty bytes: {n:>7}"), n));
        keys.for_each(|(key, n)| _ = root.get().expect("it is there").map.insert(mc, key, n));
    });
    let with_map = heap.stats().external_bytes;
    assert!((known + 50_000..known + 150_000).contains(&with_map), "{known}, {with_map}");
    let outside = NOW.load(Relaxed) as i64 - before as i64;
    let close = (with_map as i64 + 9000 - 3100 - outside).abs();
    assert!(close < 30_000, "{with_map} bytes are known of {outside}");
    heap.mutate(|mc, root| root.get().expect("it is there").map.retain(mc, |_, n| n < 10));
    let less = heap.stats().external_bytes;
    assert!(less + 29_000 < with_map, "{with_map}, {less}");
    heap.mutate(|mc, root| root.set(mc, None));
    let report = heap.collect();
    assert_eq!((report.external_bytes, heap.stats().external_bytes), (0, 0));
    assert_eq!(report.swept_external_bytes, less);
    drop(peak);
}

/// Nothing is a `Vec` to the heap but what says so: the root's, a field's of a field, a key's.
#[test]
fn what_fields_own_is_the_sum() {
    #[derive(Trace)]
    struct Inner {
        name: String,
        numbers: Box<[u32]>,
    }
    #[derive(Trace)]
    enum Outer<'gc> {
        Empty,
        Full { inner: Inner, next: Option<Gc<'gc, Outer<'gc>>>, shared: std::sync::Arc<[u8]> },
        Leaf(#[trace(leaf)] Vec<u8>, Vec<String>),
    }
    let _turn = Peak::begin();
    let inner = || Inner { name: String::with_capacity(10), numbers: vec![0; 5].into() };
    assert_eq!(inner().external_bytes(), 30);
    let full = Outer::Full { inner: inner(), next: None, shared: vec![0; 1000].into() };
    assert_eq!(full.external_bytes(), 30);
    assert_eq!(Outer::Empty.external_bytes(), 0);
    let strings = vec![String::with_capacity(7), String::with_capacity(8)];
    assert_eq!(Outer::Leaf(vec![0; 99], strings).external_bytes(), 2 * 24 + 15);
}

/// Buffers of a C library, which the heap does not see.
#[test]
fn what_is_charged_makes_collections_due() {
    let peak = Peak::begin();
    let pool = CleanupPool::builder().max_workers(1).build();
    let mut heap: WorldHeap = Heap::builder().cleanup_pool(&pool).build(|_| World::default());
    for _ in 0..500 {
        heap.mutate(|mc, _| {
            let (buffer, external) = (Vec::<u8>::with_capacity(10 * MIB), mc.external());
            external.charge(10 << 20);
            mc.add_cleanup(mc.alloc(Leaf::new(0_u8)), move || {
                drop(buffer);
                external.release(10 << 20);
            });
        });
        // A pool is not to lag behind: this is not about back-pressure.
        heap.wait_for_cleanups(std::time::Duration::from_secs(60)).expect("it runs");
    }
    peak.assert_in_proportion_to(10 * MIB);
    heap.collect();
    heap.wait_for_cleanups(std::time::Duration::from_secs(60)).expect("it runs");
    assert_eq!(heap.stats().charged_bytes, 0);
}

/// What cleanups release lets the next cycle begin as if it had been swept.
#[test]
fn what_cleanups_release_does_not_put_the_next_cycle_off() {
    let _turn = Peak::begin();
    let pool = CleanupPool::manual();
    let mut heap: WorldHeap = Heap::builder().cleanup_pool(&pool).build(|_| World::default());
    let external = heap.mutate(|mc, _| {
        let external = mc.external();
        external.charge(1 << 30);
        let release = external.clone();
        mc.add_cleanup(mc.alloc(Leaf::new(0_u8)), move || release.release(1 << 30));
        external
    });
    let cycles = heap.stats().cycles;
    assert_eq!((cycles, pool.run_pending(usize::MAX)), (1, 1));
    // Without it a GiB more would have room.
    external.charge(64 << 20);
    heap.mutate(|_, _| {});
    assert_eq!(heap.stats().cycles, cycles + 1);
    // What is charged and released in between leaves the trigger where it is.
    for _ in 0..1000 {
        drop(external.hold(1 << 20));
    }
    heap.mutate(|_, _| {});
    assert_eq!(heap.stats().cycles, cycles + 1);
    drop(heap);
    external.release(1 << 40);
    external.charge(1);
}

/// A charge may lie in a payload, and goes with it.
#[test]
fn a_charge_is_held_by_a_payload() {
    #[derive(Trace)]
    struct Texture {
        number: u32,
        charge: ExternalCharge,
    }
    let _turn = Peak::begin();
    let mut heap: Heap<()> = calm().build(|_| ());
    heap.mutate(|mc, ()| {
        let texture = Texture { number: 7, charge: mc.external().hold(5000) };
        let texture = mc.alloc(texture);
        assert_eq!((texture.number, texture.charge.amount()), (7, 5000));
    });
    assert_eq!((heap.stats().charged_bytes, heap.stats().external_bytes), (5000, 0));
    heap.collect();
    assert_eq!(heap.stats().charged_bytes, 0);
}

/// Files that are garbage, under a limit of the system's.
#[cfg(target_os = "linux")]
mod files {
    use std::fs::File;

    use super::*;

    /// Calls `f` where 128 files may be open. Then as many as before may be.
    fn with_few_files(f: impl FnOnce()) {
        let _turn = Peak::begin();
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a limit.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) }, 0);
        let few = libc::rlimit { rlim_cur: 128, ..before };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) }, 0);
        f();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const before) }, 0);
    }

    fn open() -> File {
        File::open("/dev/null").expect("a file is left")
    }

    #[test]
    fn a_program_that_drops_files_never_fails_to_open_one() {
        with_few_files(|| {
            let mut heap: WorldHeap = Heap::new(|_| World::default());
            let files = heap.mutate(|mc, _| mc.quota(100));
            for _ in 0..2000 {
                heap.mutate(|mc, _| _ = mc.alloc(Leaf::new((open(), files.hold(1)))));
            }
            assert!(files.in_use() <= 100, "{files:?}");
            assert!(heap.stats().cycles < 100, "{} cycles", heap.stats().cycles);
        });
    }

    #[test]
    fn nor_does_one_whose_cleanups_close_them() {
        with_few_files(|| {
            let pool = CleanupPool::builder().max_workers(1).build();
            let mut heap: WorldHeap =
                Heap::builder().cleanup_pool(&pool).build(|_| World::default());
            let files = heap.mutate(|mc, _| mc.quota(100));
            for _ in 0..2000 {
                heap.mutate(|mc, _| {
                    let opened = (open(), files.hold(1));
                    mc.add_cleanup(mc.alloc(Leaf::new(0_u8)), move || drop(opened));
                });
            }
        });
    }

    #[test]
    fn nor_do_several_threads() {
        with_few_files(|| {
            let heap: Heap<SharedWorld<'static>, Shared> = Heap::new(|_| SharedWorld::default());
            let files = heap.attach().mutate(|mc, _| mc.quota(90));
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let mut mutator = heap.attach();
                        for _ in 0..1000 {
                            let opened = (open(), files.hold(1));
                            mutator.mutate(|mc, _| _ = mc.alloc(Leaf::new(opened)));
                        }
                    });
                }
            });
        });
    }
}
