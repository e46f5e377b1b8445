//! What the system counts as in memory: each test in a process of its own, on Linux.
//!
//! Bounds are twice what is expected, or more, and a tenth of what a heap takes that keeps all.

use std::fs;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use sexton::{
    Branded, CleanupPool, Gc, GcMutex, GcRefCell, Heap, HeapBuilder, Leaf, Mutation, Pacing, Root,
    Shared, Trace,
};

use crate::forks::apart;
use crate::world::{LONG, calm};

const MIB: u64 = 1 << 20;

/// 64 bytes.
type Record = Leaf<[u64; 8]>;

#[derive(Trace, Default)]
struct Records<'gc> {
    all: GcRefCell<Vec<Gc<'gc, Record>>>,
}

type RecordHeap = Heap<Records<'static>>;

/// Bytes of a line of this process's sum over all mappings.
fn sum_of(line: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("a system with /proc");
    let kib = text.lines().find_map(|text| text.strip_prefix(line)).expect("the line");
    kib.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes in memory, without those of files: how much of the program's code is in memory depends on
/// what else runs.
fn resident() -> u64 {
    sum_of("Anonymous:")
}

/// Page faults of this process so far that needed no disk.
fn faults() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").expect("a system with /proc");
    let fields = text.rsplit_once(')').expect("the program's name").1;
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}

fn small_pages() -> HeapBuilder<Records<'static>> {
    calm().huge_pages(false)
}

fn calm_shared<R: Branded>() -> HeapBuilder<R, Shared> {
    Heap::builder().pacing(Pacing::Manual).zeal(false)
}

/// Makes `count` records, and keeps one of every `one_in`.
fn storm(heap: &mut RecordHeap, count: u64, one_in: u64) {
    heap.mutate(|mc, records| {
        let mut all = records.all.borrow_mut(mc);
        for n in 0..count {
            let record = mc.alloc(Leaf::new([n; 8]));
            if n % one_in == 0 {
                all.push(record);
            }
        }
    });
}

fn assert_intact(heap: &mut RecordHeap, one_in: u64) {
    heap.mutate(|_, records| {
        for (n, record) in (0..).zip(records.all.borrow().iter()) {
            assert_eq!(***record, [n * one_in; 8]);
        }
    });
    heap.verify().unwrap();
}

/// Two objects share a page. It goes back with the one, and comes again with the other.
#[test]
fn a_page_that_a_neighbour_uses_again_counts_again() {
    type Wide = Leaf<[u8; 40_968]>;
    let mut heap: Heap<()> = calm().build(|_| ());
    let wide = |heap: &mut Heap<()>| -> Root<Wide> {
        heap.mutate(|mc, ()| mc.root(mc.alloc(Leaf::new([1; 40_968]))))
    };
    let first = wide(&mut heap);
    drop((wide(&mut heap), wide(&mut heap)));
    heap.collect();
    heap.trim();
    let without = heap.stats().resident_bytes;
    let second = wide(&mut heap);
    heap.trim();
    heap.verify().unwrap();
    assert!(heap.stats().resident_bytes > without);
    drop((first, second));
}

#[test]
fn spans_that_a_storm_has_emptied_go_back_in_the_second_cycle() {
    apart("memory::spans_that_a_storm_has_emptied_go_back_in_the_second_cycle", || {
        let mut heap = small_pages().build(|_| Records::default());
        let before = resident();
        storm(&mut heap, 1_000_000, 20_000);
        assert!(resident() - before > 60 * MIB);
        heap.collect();
        assert_eq!(heap.collect().live_objects, 50);
        // 50 spans of 64 KiB.
        let after = resident() - before;
        assert!(after < 2 * 50 * (MIB / 16), "{after}");
        assert!(heap.stats().resident_bytes < 2 * 50 * (MIB / 16));
        assert!(heap.stats().mapped_bytes > 60 * MIB);
        assert_intact(&mut heap, 20_000);
    });
}

#[test]
fn pages_of_spans_that_are_hardly_used_go_back_too() {
    apart("memory::pages_of_spans_that_are_hardly_used_go_back_too", || {
        let mut heap = small_pages().build(|_| Records::default());
        let before = resident();
        // One in each span.
        storm(&mut heap, 1_000_000, 1_000);
        heap.collect();
        heap.collect();
        let after = resident() - before;
        assert!(after < 12 * MIB, "{after}");
        assert_intact(&mut heap, 1_000);
        // They are filled again.
        storm(&mut heap, 1_000_000, 1_000_000);
        heap.verify().unwrap();
        assert!(heap.stats().mapped_bytes < 80 * MIB);
    });
}

#[test]
fn what_each_cycle_frees_and_uses_again_is_not_given_back() {
    apart("memory::what_each_cycle_frees_and_uses_again_is_not_given_back", || {
        let mut heap = small_pages().build(|_| Records::default());
        let mut cycle = |objects: u64| {
            storm(&mut heap, objects, u64::MAX);
            heap.mutate(|mc, records| records.all.borrow_mut(mc).clear());
            heap.collect();
        };
        (0..3).for_each(|_| cycle(200_000));
        let before = faults();
        // 12 MiB, 3,000 pages each.
        (0..20).for_each(|_| cycle(200_000));
        let steady = faults() - before;
        assert!(steady < 1_000, "{steady} faults");
    });
}

macro_rules! each_of_sixteen {
    ($make:ident, $mc:ident, $from:expr) => {
        each_of_sixteen!(@ $make, $mc, $from; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $make:ident, $mc:ident, $from:expr; $($n:literal)*) => {{
        $( $make::<{ $from + $n }>($mc); )*
    }};
}

/// A type for each number.
#[derive(Trace)]
struct Kind<const N: usize>([u8; 32]);

fn make<const N: usize>(mc: &Mutation<'_>) {
    black_box(mc.alloc(Kind::<N>([1; 32])).0);
}

fn make_shared<const N: usize>(mc: &Mutation<'_, Shared>) {
    black_box(mc.alloc(Kind::<N>([1; 32])).0);
}

#[test]
fn a_type_with_one_object_takes_eight_kilobytes_at_most() {
    apart("memory::a_type_with_one_object_takes_eight_kilobytes_at_most", || {
        let heaps = 16;
        let before = resident();
        let heaps: Vec<Heap<()>> = std::iter::repeat_with(|| {
            let mut heap = calm().build(|_| ());
            heap.mutate(|mc, ()| {
                each_of_sixteen!(make, mc, 0);
                each_of_sixteen!(make, mc, 16);
                each_of_sixteen!(make, mc, 32);
                each_of_sixteen!(make, mc, 48);
            });
            heap
        })
        .take(heaps)
        .collect();
        let each = (resident() - before) / (heaps.len() as u64 * 64);
        assert!(each <= 8 << 10, "{each} bytes");
    });
}

#[test]
fn a_thread_takes_few_pages_for_a_type_that_it_rarely_uses() {
    apart("memory::a_thread_takes_few_pages_for_a_type_that_it_rarely_uses", || {
        let threads = 32;
        let heap: Heap<(), Shared> = calm_shared().build(|_| ());
        let before = resident();
        let (all_have_allocated, may_end) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut mutator = heap.attach();
                    mutator.mutate(|mc, ()| each_of_sixteen!(make_shared, mc, 0));
                    all_have_allocated.wait();
                    may_end.wait();
                });
            }
            all_have_allocated.wait();
            let after = resident();
            may_end.wait();
            // The thread itself included.
            let each = (after - before) / (threads as u64 * 16);
            assert!(each <= 16 << 10, "{each} bytes");
        });
    });
}

/// An object of `N` bytes and a word. One heap holds those of all sizes: each type of a heap's root
/// is a heap's code to compile.
#[derive(Trace)]
struct Sized<'gc, const N: usize> {
    before: Option<Gc<'gc, Sized<'gc, N>>>,
    bytes: [u8; N],
}

type SizedRoot<const N: usize> = Root<Sized<'static, N>>;

/// Makes `count` objects, each with a pointer to the one before, or to `before` the first.
fn chain<const N: usize>(
    heap: &mut Heap<()>,
    before: Option<SizedRoot<N>>,
    count: usize,
) -> SizedRoot<N> {
    heap.mutate(|mc, ()| {
        let mut last = before.map(|root| mc.fetch(&root));
        for n in 0..count {
            last = Some(mc.alloc(Sized { before: last, bytes: [n as u8; N] }));
        }
        mc.root(last.expect("there is one"))
    })
}

/// Checks what 24 MB of live objects take, in memory and as the heap counts it.
fn assert_little_is_wasted<const N: usize>() {
    let slot = (N + size_of::<usize>()).next_multiple_of(8);
    let count = 24_000_000 / slot;
    // The stack through which an object of that size goes is in memory already.
    drop(chain::<N>(&mut calm().build(|_| ()), None, 1));
    let mut heap: Heap<()> = calm().build(|_| ());
    let before = resident();
    let last = chain::<N>(&mut heap, None, count);
    let live = (count * slot) as u64;
    let most = live + live / 8 + MIB / 4;
    let after = resident() - before;
    assert!(after <= most, "{slot} bytes: {after} in memory, of {live}");
    // The last region may have just been begun.
    let mapped = heap.stats().mapped_bytes;
    assert!(mapped <= most + 4 * MIB, "{slot} bytes: {mapped} mapped, of {live}");
    assert_eq!(heap.stats().bytes, live);
    // Nor do large pages take more.
    heap.collect();
    let after = resident() - before;
    assert!(after <= most + MIB / 4, "{slot} bytes: {after} in memory after a cycle, of {live}");
    heap.mutate(|mc, ()| {
        let mut next = Some(mc.fetch(&last));
        for n in (0..count).rev() {
            let object = next.expect("one for each number");
            assert!(object.bytes.iter().all(|&byte| byte == n as u8), "object {n} of {slot} bytes");
            next = object.before;
        }
    });
    heap.verify().unwrap();
}

#[test]
fn of_no_size_more_than_an_eighth_is_wasted() {
    apart("memory::of_no_size_more_than_an_eighth_is_wasted", || {
        let check = || {
            macro_rules! each {
                ($($bytes:literal)*) => { $( assert_little_is_wasted::<{ $bytes - 8 }>(); )* };
            }
            // A little more than what fills a unit well, and what lies between.
            each!(8 16 24 32 200 1_000 5_000 5_464 8_200 10_000 13_200 16_400 20_000 22_000);
            each!(33_000 40_000 50_000 65_536 65_544 80_000 100_000 131_080 150_000 200_000);
            each!(250_000 262_144 262_152 300_000 524_304 1_050_000 2_100_000 4_194_304);
        };
        // Objects go through the stack.
        let thread = thread::Builder::new().stack_size(256 << 20).spawn(check).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn large_objects_give_back_what_they_took_though_others_beside_them_live() {
    const BYTES: usize = 65_544;
    type Large = SizedRoot<{ BYTES - 8 }>;
    apart("memory::large_objects_give_back_what_they_took_though_others_beside_them_live", || {
        let mut heap: Heap<()> = calm().build(|_| ());
        let root = |heap: &mut Heap<()>| -> Large { chain(heap, None, 1) };
        let first = root(&mut heap);
        let before = resident();
        let mut all: Vec<Large> = (0..400).map(|_| root(&mut heap)).collect();
        let mut n = 0;
        all.retain(|_| {
            n += 1;
            n % 40 == 1
        });
        (0..3).for_each(|_| _ = heap.collect());
        let (after, stats) = (resident() - before, heap.stats());
        assert_eq!(stats.bytes, 11 * BYTES as u64);
        // The metadata of their spans stay, and these of those that have died.
        assert!(after < 2 * stats.bytes + MIB, "{after}");
        // Their room is used again.
        all.extend((0..380).map(|_| root(&mut heap)));
        assert!(heap.stats().mapped_bytes <= stats.mapped_bytes, "{:?}", heap.stats());
        heap.verify().unwrap();
        // When all have died, it is free for other types.
        drop((first, all));
        heap.collect();
        heap.verify().unwrap();
        heap.trim();
        assert_eq!(heap.stats().mapped_bytes, 0);
    });
}

#[test]
fn a_trim_gives_back_what_is_free_at_once() {
    apart("memory::a_trim_gives_back_what_is_free_at_once", || {
        let mut heap = small_pages().build(|_| Records::default());
        let before = resident();
        storm(&mut heap, 1_000_000, 20_000);
        heap.collect();
        assert!(resident() - before > 60 * MIB, "a cycle waits for the next one");
        let given_back = heap.trim();
        assert!(given_back > 55 * MIB, "{given_back}");
        let after = resident() - before;
        assert!(after < 4 * MIB, "{after}");
        assert_intact(&mut heap, 20_000);
        let again = heap.trim();
        assert!(again < 4 * MIB, "{again}");
        // An empty heap has no region.
        heap.mutate(|mc, records| _ = records.all.take(mc));
        heap.collect();
        heap.trim();
        assert_eq!((heap.stats().mapped_bytes, heap.stats().resident_bytes), (0, 0));
        storm(&mut heap, 1_000, 1);
        assert_intact(&mut heap, 1);
    });
}

#[test]
fn a_trim_in_the_middle_of_a_cycle_loses_nothing() {
    for steps in 0..40 {
        let mut heap = calm().build(|_| Records::default());
        storm(&mut heap, 20_000, 10);
        heap.collect();
        storm(&mut heap, 20_000, 20_000);
        let mut is_finished = false;
        for _ in 0..steps {
            is_finished |= heap.step(Duration::ZERO).is_finished();
        }
        heap.trim();
        heap.verify().unwrap();
        while !is_finished {
            is_finished = heap.step(Duration::ZERO).is_finished();
        }
        assert_eq!(heap.collect().live_objects, 2_001);
        heap.verify().unwrap();
    }
}

#[derive(Trace, Default)]
struct Held<'gc> {
    all: GcMutex<Vec<Gc<'gc, Record>>>,
}

#[test]
fn a_mutator_trims_beside_others() {
    apart("memory::a_mutator_trims_beside_others", || {
        let heap: Heap<Held<'static>, Shared> =
            calm_shared().huge_pages(false).build(|_| Held::default());
        let before = resident();
        let (allocated, trimmed) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = heap.attach();
                let mut alloc = |from: u64| {
                    other.mutate(|mc, held| {
                        let mut all = held.all.lock(mc);
                        (from..from + 100).for_each(|n| all.push(mc.alloc(Leaf::new([n; 8]))));
                    });
                };
                alloc(0);
                allocated.wait();
                trimmed.wait();
                alloc(100);
            });
            allocated.wait();
            let mut mutator = heap.attach();
            mutator.mutate(|mc, _| {
                (0..500_000_u64).for_each(|n| _ = black_box(mc.alloc(Leaf::new([n; 8]))));
            });
            mutator.collect();
            let (peak, trim, after) = (resident(), mutator.trim(), resident());
            trimmed.wait();
            assert!(peak - before > 28 * MIB, "{peak} {before}");
            assert!(trim > 28 * MIB, "{trim}");
            assert!(after - before < 6 * MIB, "{after} {before}");
        });
        let mut mutator = heap.attach();
        mutator.mutate(|mc, held| {
            for (n, record) in (0..).zip(held.all.lock(mc).iter()) {
                assert_eq!(***record, [n; 8]);
            }
        });
        assert_eq!(mutator.collect().live_objects, 200);
        mutator.verify().unwrap();
    });
}

#[test]
fn a_pool_gives_back_the_blocks_of_a_storm() {
    apart("memory::a_pool_gives_back_the_blocks_of_a_storm", || {
        let pool = CleanupPool::manual();
        let mut heap = small_pages().cleanup_pool(&pool).build(|_| Records::default());
        heap.mutate(|mc, _| {
            (0..100_000_u64).for_each(|n| {
                mc.add_cleanup(mc.alloc(Leaf::new([n; 8])), || ());
            });
        });
        heap.collect();
        assert_eq!(pool.trim(), 0, "the blocks are full");
        assert_eq!(pool.run_pending(usize::MAX), 100_000);
        heap.wait_for_cleanups(LONG).unwrap();
        pool.trim();
        // Those that are carved from now on, and no others, are all that a trim gives back.
        heap.mutate(|mc, _| _ = mc.add_cleanup(mc.alloc(Leaf::new([0_u64; 8])), || ()));
        heap.collect();
        assert_eq!(pool.run_pending(usize::MAX), 1);
        let bytes = pool.trim();
        assert!(0 < bytes && bytes < 100_000, "{bytes}");
    });
}

/// Whether the system makes a large page when it is asked to.
fn makes_huge_pages() -> bool {
    const HUGE: usize = 2 << 20;
    let mut memory = vec![1_u8; 2 * HUGE];
    let start = memory.as_mut_ptr().wrapping_add(memory.as_ptr().align_offset(HUGE));
    // SAFETY: neither advice changes what the memory holds. The second is `MADV_COLLAPSE`.
    let [advised, made] = [libc::MADV_HUGEPAGE, 25]
        .map(|advice| unsafe { libc::madvise(start.cast(), HUGE, advice) });
    advised == 0 && made == 0
}

#[test]
fn large_pages_are_for_what_is_well_used_and_survives() {
    apart("memory::large_pages_are_for_what_is_well_used_and_survives", || {
        let large = || sum_of("AnonHugePages:");
        let before = large();
        let mut heap = calm().build(|_| Records::default());
        storm(&mut heap, 500_000, 1);
        assert_eq!(large(), before, "memory begins with small pages");
        heap.collect();
        if makes_huge_pages() {
            assert!(large() > before, "30 MiB that are used to the full");
        }
        assert_intact(&mut heap, 1);
        // One in a hundred survives, so its large pages are split.
        heap.mutate(|mc, records| {
            let mut n = 0;
            records.all.borrow_mut(mc).retain(|_| {
                n += 1;
                n % 100 == 1
            });
        });
        (0..3).for_each(|_| _ = heap.collect());
        assert_eq!(large(), before, "hardly used memory has small pages");
        assert_intact(&mut heap, 100);
    });
}

/// A heap with one object, which has a cleanup.
fn small_heap(pool: &CleanupPool, n: u64) -> RecordHeap {
    let mut heap: RecordHeap = calm().cleanup_pool(pool).build(|_| Records::default());
    heap.mutate(|mc, records| {
        let record = mc.alloc(Leaf::new([n; 8]));
        mc.add_cleanup(record, || ());
        records.all.borrow_mut(mc).push(record);
    });
    heap
}

/// Bytes in memory without what the program's allocator keeps, as far as it can be told to let go.
fn resident_trimmed() -> u64 {
    #[cfg(target_env = "gnu")]
    // SAFETY: it gives back memory that is free.
    let _gone = unsafe { libc::malloc_trim(0) };
    resident()
}

/// Mappings of this process.
fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("a system with /proc").lines().count()
}

#[test]
fn a_small_heap_takes_a_few_kilobytes_and_gives_them_back() {
    apart("memory::a_small_heap_takes_a_few_kilobytes_and_gives_them_back", || {
        const HEAPS: u64 = 3_000;
        let pool = CleanupPool::manual();
        let all = || -> Vec<_> { (0..HEAPS).map(|n| small_heap(&pool, n)).collect() };
        let (before, mappings_before) = (resident(), mappings());
        let heaps = all();
        let each = (resident() - before) / HEAPS;
        assert!(each < 13 << 10, "{each} bytes");
        // One for 62 heaps, and some of the program's allocator.
        let mapped = mappings() - mappings_before;
        assert!(mapped < HEAPS as usize / 10, "{mapped} mappings");
        drop(heaps);
        assert_eq!(pool.run_pending(usize::MAX), HEAPS as usize);
        pool.trim();
        // Registries and records.
        let left = resident_trimmed().saturating_sub(before) / HEAPS;
        assert!(left < 1_200, "{left} bytes");
        let mapped = mappings() - mappings_before;
        assert!(mapped < 32, "{mapped} mappings");
        // The next ones take no more than what is left.
        let at_peak = before + each * HEAPS;
        for _ in 0..3 {
            drop(all());
            assert_eq!(pool.run_pending(usize::MAX), HEAPS as usize);
            assert!(resident() < at_peak + at_peak / 4, "{} {at_peak}", resident());
        }
    });
}

#[test]
fn few_heaps_that_stay_keep_the_memory_of_few() {
    apart("memory::few_heaps_that_stay_keep_the_memory_of_few", || {
        const HEAPS: u64 = 3_000;
        let pool = CleanupPool::manual();
        let before = resident();
        let mut heaps: Vec<_> = (0..HEAPS).map(|n| small_heap(&pool, n)).collect();
        let peak = resident() - before;
        // One in each region.
        let mut n = 0;
        heaps.retain(|_| {
            n += 1;
            n % 62 == 0
        });
        pool.run_pending(usize::MAX);
        pool.trim();
        let after = resident_trimmed() - before;
        assert!(after < peak / 4, "{after} of {peak}");
        for heap in &mut heaps {
            assert_eq!(heap.collect().live_objects, 1);
            heap.verify().unwrap();
        }
    });
}

/// They share regions, and each has a thread that collects it.
#[test]
fn heaps_of_many_threads_come_and_go_and_grow_beside_one_another() {
    const THREADS: u64 = 4;
    let begin = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let begin = &begin;
            scope.spawn(move || {
                let pool = CleanupPool::manual();
                let mut heaps = Vec::new();
                begin.wait();
                for n in 0..300 {
                    heaps.push((n, small_heap(&pool, n)));
                    // Some grow out of the shared regions.
                    if n % 50 == 0 {
                        let heap = &mut heaps.last_mut().expect("a heap").1;
                        storm(heap, 40_000, 100);
                        assert_eq!(heap.collect().live_objects, 401);
                        heap.verify().unwrap();
                    }
                    // Some go, in another order than they came.
                    if n % 3 == thread % 3 {
                        drop(heaps.swap_remove(n as usize * 7 % heaps.len()));
                    }
                }
                for (n, heap) in &mut heaps {
                    heap.collect();
                    heap.verify().unwrap();
                    heap.mutate(|_, records| assert_eq!(**records.all.borrow()[0], [*n; 8]));
                }
            });
        }
    });
}

#[test]
fn heaps_that_share_a_region_are_swept_at_the_same_time() {
    const HEAPS: u64 = 3;
    let begin = Barrier::new(HEAPS as usize);
    thread::scope(|scope| {
        for _ in 0..HEAPS {
            let begin = &begin;
            scope.spawn(move || {
                // Threads sweep beside its sessions.
                let heap: Heap<Held<'static>, Shared> =
                    Heap::builder().gc_threads(2).build(|_| Held::default());
                let mut mutator = heap.attach();
                begin.wait();
                for round in 0..50_u64 {
                    mutator.mutate(|mc, held| {
                        let mut all = held.all.lock(mc);
                        all.clear();
                        for n in 0..2_000 {
                            let record = mc.alloc(Leaf::new([round + n; 8]));
                            mc.add_cleanup(record, || ());
                            all.push(record);
                        }
                    });
                    _ = mutator.step(Duration::ZERO);
                    mutator.mutate(|mc, held| {
                        for (n, record) in (0..).zip(held.all.lock(mc).iter()) {
                            assert_eq!(***record, [round + n; 8]);
                        }
                    });
                }
                mutator.collect();
                mutator.verify().unwrap();
            });
        }
    });
}
