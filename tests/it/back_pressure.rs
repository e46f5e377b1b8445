//! Back-pressure: a storm of cleanups, each slower than an allocation, keeps to the high-water
//! mark.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use sexton::{BackPressure, CleanupPool, Pacing};

use crate::world::{Gate, LONG, Node, World, WorldHeap, builder, heap_on};

/// Cleanups of one session, and so of one collection.
const SESSION: u64 = 20_000;
const MARK: u64 = 5_000;
/// What the workers may have in hand when the list is empty, and the backlog is still above the
/// mark.
const IN_HAND: u64 = 2 * 126;

/// Longer than an allocation.
fn slow() {
    for n in 0..100 {
        black_box(n);
    }
}

/// Registers and drops `sessions` times; gives the largest backlog that a session was opened
/// beside.
fn storm(policy: BackPressure, sessions: u64) -> u64 {
    let pool = CleanupPool::builder().max_workers(1).build();
    let mut heap: WorldHeap = builder()
        .cleanup_pool(&pool)
        .pacing(Pacing::Manual)
        .back_pressure(MARK, policy)
        .drop_timeout(Duration::from_secs(120))
        .build(|_| World::default());
    let ran = Arc::new(AtomicU64::new(0));
    let mut peak = 0;
    for _ in 0..sessions {
        heap.mutate(|mc, _| {
            for at in 0..SESSION {
                let ran = ran.clone();
                mc.add_cleanup(mc.alloc(Node::new(at)), move || {
                    slow();
                    ran.fetch_add(1, SeqCst);
                });
            }
        });
        heap.collect();
        peak = peak.max(heap.stats().cleanups.backlog);
    }
    drop(heap);
    assert_eq!(ran.load(SeqCst), sessions * SESSION, "nothing is lost");
    peak
}

#[test]
fn helping_keeps_a_storm_of_ten_million_cleanups_below_the_mark() {
    let peak = storm(BackPressure::Help, 10_000_000 / SESSION);
    assert!(peak <= MARK + IN_HAND, "{peak}");
}

#[test]
fn waiting_keeps_a_storm_below_the_mark() {
    let peak = storm(BackPressure::Wait(Duration::from_secs(60)), 100);
    assert!(peak <= MARK, "{peak}");
}

#[test]
fn a_call_back_that_runs_cleanups_keeps_a_storm_below_the_mark() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let policy = BackPressure::call(move |backlog| {
        counted.fetch_add(1, SeqCst);
        assert_eq!(backlog.mark, MARK);
        assert!(backlog.cleanups > MARK);
        // Another heap's cleanups may be run as well, so ask for more than the surplus.
        backlog.pool.run_pending(backlog.cleanups as usize);
    });
    let peak = storm(policy, 100);
    assert!(peak <= MARK + IN_HAND, "{peak}");
    assert!(calls.load(SeqCst) > 0);
}

/// So that the tests above can fail.
#[test]
fn without_a_policy_the_same_storm_exceeds_the_mark() {
    let peak = storm(BackPressure::None, 100);
    assert!(peak > MARK + IN_HAND, "{peak}");
}

#[test]
fn waiting_ends_at_its_deadline_and_loses_nothing() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let mut heap = builder()
        .cleanup_pool(&pool)
        .back_pressure(0, BackPressure::Wait(Duration::from_millis(5)))
        .build(|_| World::default());
    let gate = Gate::default();
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), gate.cleanup()));
    heap.collect();
    assert_eq!(heap.stats().cleanups.backlog, 1);
    gate.open();
    heap.collect();
    heap.wait_for_cleanups(LONG).unwrap();
}

/// No thread but this one runs a manual pool's cleanups.
#[test]
fn waiting_in_a_manual_pool_runs_them_here() {
    let pool = CleanupPool::manual();
    let mut heap: WorldHeap = builder()
        .cleanup_pool(&pool)
        .pacing(Pacing::Manual)
        .back_pressure(10, BackPressure::Wait(LONG))
        .build(|_| World::default());
    for round in 1..=3 {
        heap.mutate(|mc, _| {
            (0..1000).for_each(|at| _ = mc.add_cleanup(mc.alloc(Node::new(at)), || {}));
        });
        let begin = Instant::now();
        heap.collect();
        assert!(begin.elapsed() < LONG, "it has waited in vain");
        let stats = heap.stats().cleanups;
        assert!(stats.backlog <= 10, "{stats:?}");
        assert_eq!(stats.queued, round * 1000);
    }
}

#[test]
fn it_is_applied_between_sessions_and_not_in_one() {
    let pool = CleanupPool::manual();
    let (depth, applied) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, count) = (depth.clone(), applied.clone());
    let policy = BackPressure::call(move |_| {
        assert_eq!(inside.load(SeqCst), 0, "a session is open");
        count.fetch_add(1, SeqCst);
    });
    let mut heap = builder()
        .cleanup_pool(&pool)
        .pacing(Pacing::Automatic { min_bytes: 1 << 16, growth: 1.0 })
        .back_pressure(10, policy)
        .build(|_| World::default());
    for _ in 0..20 {
        heap.mutate(|mc, _| {
            depth.fetch_add(1, SeqCst);
            for at in 0..2000 {
                mc.add_cleanup(mc.alloc(Node::new(at)), || {});
            }
            depth.fetch_sub(1, SeqCst);
        });
    }
    assert!(applied.load(SeqCst) > 0, "the pacer collects");
}

#[test]
fn it_is_not_applied_inside_a_cleanup() {
    let pool = CleanupPool::manual();
    let mut outer = heap_on(&pool);
    let inner_pool = pool.clone();
    let (ran, applied) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (done, count) = (ran.clone(), applied.clone());
    outer.mutate(|mc, _| {
        mc.add_cleanup(mc.alloc(Node::new(0)), move || {
            let mut heap = builder()
                .cleanup_pool(&inner_pool)
                .pacing(Pacing::Manual)
                .back_pressure(
                    0,
                    BackPressure::call(move |_| {
                        count.fetch_add(1, SeqCst);
                    }),
                )
                .build(|_| World::default());
            heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), || {}));
            heap.collect();
            assert_eq!(heap.stats().cleanups.queued, 1);
            done.fetch_add(1, SeqCst);
        })
    });
    outer.collect();
    pool.run_pending(usize::MAX);
    assert_eq!((ran.load(SeqCst), applied.load(SeqCst)), (1, 0));
}
