//! The life of a pool's threads: names, stacks, growth, retirement, a bound that changes, the end
//! of the process.

use std::collections::BTreeSet;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sexton::{CleanupPool, CleanupPoolBuilder, Heap, Pacing};

use crate::world::{Counter, Gate, LONG, Node, World, WorldHeap, heap_on, until};

/// Counts the threads that a pool starts.
fn counting(builder: CleanupPoolBuilder) -> (CleanupPool, Arc<AtomicUsize>) {
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let builder = builder.spawn_hook(move |thread, body| {
        count.fetch_add(1, SeqCst);
        thread.spawn(body)
    });
    (builder.build(), started)
}

/// Queues `n` cleanups in blocks of their own, all of which wait at the gate.
fn stall(heap: &mut WorldHeap, gate: &Gate, n: u64) {
    for at in 0..n {
        heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(at)), gate.cleanup()));
        heap.collect();
    }
}

#[test]
fn idle_workers_retire_one_by_one_down_to_none_and_come_back() {
    let keep_alive = Duration::from_millis(20);
    let (pool, started) = counting(CleanupPool::builder().max_workers(3).keep_alive(keep_alive));
    let mut heap = heap_on(&pool);
    for round in 1..=2 {
        let gate = Gate::default();
        stall(&mut heap, &gate, 3);
        gate.wait_for(3);
        assert_eq!(pool.stats().workers, 3);
        let idle_since = Instant::now();
        gate.open();
        heap.wait_for_cleanups(LONG).unwrap();
        until("all have retired", || pool.stats().workers == 0);
        assert!(idle_since.elapsed() >= 3 * keep_alive, "one in each keep_alive");
        assert_eq!(pool.stats().retired, 3 * round);
        assert_eq!(started.load(SeqCst) as u64, 3 * round);
    }
}

/// Hysteresis: a pool that is used now and then, but more often than it would retire, keeps what it
/// has.
#[test]
fn a_trickle_of_cleanups_does_not_start_a_thread_each_time() {
    let (pool, started) =
        counting(CleanupPool::builder().max_workers(2).keep_alive(Duration::from_secs(20)));
    let mut heap = heap_on(&pool);
    for at in 0..200 {
        heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(at)), || {}));
        heap.collect();
        heap.wait_for_cleanups(LONG).unwrap();
    }
    assert!(started.load(SeqCst) <= 2);
    assert_eq!(pool.stats().retired, 0);
}

#[test]
fn the_bound_can_be_raised_and_lowered_while_work_waits() {
    let pool = CleanupPool::builder().max_workers(1).build();
    let mut heap = heap_on(&pool);
    let gate = Gate::default();
    stall(&mut heap, &gate, 6);
    gate.wait_for(1);
    assert_eq!(pool.stats().workers, 1);
    // Raising it is enough: nothing is queued afterwards.
    pool.set_max_workers(4);
    gate.wait_for(4);
    assert_eq!((pool.stats().workers, pool.max_workers()), (4, 4));
    pool.set_max_workers(2);
    assert_eq!(pool.stats().workers, 4, "who has a cleanup in hand stays");
    gate.open();
    heap.wait_for_cleanups(LONG).unwrap();
    until("the surplus has left", || pool.stats().workers == 2);
    let ran = Counter::default();
    heap.mutate(|mc, _| {
        for at in 0..10_000 {
            mc.add_cleanup(mc.alloc(Node::new(at)), ran.cleanup());
        }
    });
    heap.collect();
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(ran.get(), 10_000);
    assert!(pool.stats().workers <= 2);
}

#[test]
fn a_bound_of_zero_pauses_a_pool_and_loses_nothing() {
    let pool = CleanupPool::builder().max_workers(2).build();
    let mut heap = heap_on(&pool);
    let ran = Counter::default();
    pool.set_max_workers(0);
    let queue = |heap: &mut WorldHeap| {
        heap.mutate(|mc, _| {
            for at in 0..1000 {
                mc.add_cleanup(mc.alloc(Node::new(at)), ran.cleanup());
            }
        });
        heap.collect();
    };
    queue(&mut heap);
    assert_eq!((pool.stats().workers, ran.get()), (0, 0));
    pool.set_max_workers(2);
    until("they run without another call", || ran.get() == 1000);
    // All leave, asleep or not.
    pool.set_max_workers(0);
    until("all have left", || pool.stats().workers == 0);
    queue(&mut heap);
    assert_eq!(ran.get(), 1000);
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(ran.get(), 2000, "the waiter ran them");
}

#[test]
#[should_panic(expected = "max_workers is 4097; valid is 0 to 4096")]
fn a_bound_beyond_reason_is_refused() {
    CleanupPool::builder().build().set_max_workers(4097);
}

#[test]
#[should_panic(expected = "max_workers is 1 for a manual pool")]
fn a_manual_pool_gets_no_workers() {
    CleanupPool::manual().set_max_workers(1);
}

#[test]
fn threads_have_the_names_and_the_stacks_that_were_asked_for_and_are_joined() {
    let names: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let noted = names.clone();
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let pool = CleanupPool::builder()
        .max_workers(2)
        .thread_name("sweeper")
        .stack_size(64 << 20)
        .spawn_hook(move |thread, body| {
            let (noted, count) = (noted.clone(), count.clone());
            thread.spawn(move || {
                let name = std::thread::current().name().map(str::to_owned);
                noted.lock().unwrap().extend(name);
                body();
                count.fetch_add(1, SeqCst);
            })
        })
        .build();
    /// Needs 32 MiB of stack, sixteen times the usual.
    fn deep(depth: u32) -> u64 {
        let frame = std::hint::black_box([1_u8; 32 << 10]);
        if depth == 0 { 1 } else { u64::from(frame[7]) + deep(depth - 1) }
    }
    let mut heap = heap_on(&pool);
    let gate = Gate::default();
    stall(&mut heap, &gate, 2);
    gate.wait_for(2);
    let (sum, pair) = (Arc::new(AtomicUsize::new(0)), Counter::default());
    heap.mutate(|mc, _| {
        let sum = sum.clone();
        mc.add_cleanup(mc.alloc(Node::new(0)), move || {
            sum.store(deep(1000) as usize, SeqCst);
        });
        // With a tail, so that there is something for the monitor to watch.
        mc.add_cleanup(mc.alloc(Node::new(1)), pair.cleanup());
    });
    heap.collect();
    gate.open();
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(sum.load(SeqCst), 1001);
    pool.shutdown(LONG).unwrap();
    let names = names.lock().unwrap();
    assert_eq!(
        names.iter().map(String::as_str).collect::<Vec<_>>(),
        ["sweeper-0", "sweeper-1", "sweeper-mon"]
    );
    assert_eq!(ended.load(SeqCst), 3, "shutdown has joined them all");
}

#[test]
fn a_spawn_that_fails_for_real_is_told_and_loses_nothing() {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let notes = failures.clone();
    let pool = CleanupPool::builder()
        .max_workers(2)
        // More address space than there is.
        .stack_size(1 << 60)
        .on_spawn_failure(move |failure| {
            notes.lock().unwrap().push((failure.worker, failure.to_string()));
        })
        .build();
    let mut heap = heap_on(&pool);
    let ran = Counter::default();
    heap.mutate(|mc, _| {
        for at in 0..1000 {
            mc.add_cleanup(mc.alloc(Node::new(at)), ran.cleanup());
        }
    });
    heap.collect();
    let stats = pool.stats();
    assert_eq!((stats.workers, stats.executed, stats.backlog), (0, 0, 1000));
    assert!(stats.spawn_failures > 0);
    let told = failures.lock().unwrap().clone();
    assert!(told.iter().any(|(worker, _)| *worker == Some(0)), "{told:?}");
    assert!(told[0].1.contains("could not be started: "), "{told:?}");
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(ran.get(), 1000, "the waiter ran them, for want of workers");
    // Without a waiter: the thread that asks.
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), ran.cleanup()));
    heap.collect();
    assert_eq!(pool.run_pending(usize::MAX), 1);
    // And the end of the heap.
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), ran.cleanup()));
    drop(heap);
    assert_eq!(ran.get(), 1002);
}

#[test]
fn a_spawn_that_fails_for_a_while_is_tried_again_without_any_call() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = attempts.clone();
    let pool = CleanupPool::builder()
        .max_workers(1)
        .spawn_hook(move |thread, body| {
            let monitor = format!("{thread:?}").contains("-mon\"");
            if !monitor && count.fetch_add(1, SeqCst) < 5 {
                return Err(io::Error::other("not yet"));
            }
            thread.spawn(body)
        })
        .build();
    let mut heap = heap_on(&pool);
    let ran = Counter::default();
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), ran.cleanup()));
    heap.collect();
    until("it has run", || ran.get() == 1);
    assert_eq!(attempts.load(SeqCst), 6);
    assert_eq!(pool.stats().spawn_failures, 5);
}

/// The child's part; does nothing unless it is the child.
#[test]
fn child_that_exits_during_a_drain() {
    let how = std::env::var("SEXTON_CHILD").unwrap_or_default();
    if !["exit", "return"].contains(&how.as_str()) {
        return;
    }
    let mut heap: Heap<World<'static>> =
        Heap::builder().pacing(Pacing::Manual).build(|_| World::default());
    let started = Counter::default();
    heap.mutate(|mc, _| {
        for at in 0..200_000 {
            let started = started.clone();
            mc.add_cleanup(mc.alloc(Node::new(at)), move || {
                started.raise();
                std::hint::black_box(vec![0_u8; 4096]);
            });
        }
    });
    heap.collect();
    until("the drain has begun", || started.get() > 0);
    match how.as_str() {
        "exit" => std::process::exit(0),
        // The heap is leaked, and the workers run on while the test's process returns from `main`.
        _ => std::mem::forget(heap),
    }
}

/// The child's part; does nothing unless it is the child.
#[test]
fn child_that_aborts_on_panic() {
    if std::env::var("SEXTON_CHILD").as_deref() != Ok("abort") {
        return;
    }
    let pool = CleanupPool::builder()
        .max_workers(0)
        .on_panic(|panic| println!("told of: {}", panic.message))
        .abort_on_panic(true)
        .build();
    let mut heap = heap_on(&pool);
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), || panic!("on purpose")));
    heap.collect();
    pool.run_pending(1);
    println!("still there");
}

#[test]
fn a_panic_ends_the_process_if_that_was_asked_for() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "lifecycle::child_that_aborts_on_panic"])
        .env("SEXTON_CHILD", "abort")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    assert!(text.contains("told of: on purpose") && !text.contains("still there"), "{text}");
}

#[test]
fn a_process_may_exit_in_the_middle_of_a_drain() {
    for how in ["exit", "return"] {
        for _ in 0..5 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "lifecycle::child_that_exits_during_a_drain"])
                .env("SEXTON_CHILD", how)
                // It leaves behind what has not run, on purpose; the leak sanitizer is not to mind.
                .env("ASAN_OPTIONS", "detect_leaks=0")
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + LONG;
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if Instant::now() > deadline {
                    child.kill().unwrap();
                    panic!("a process that should {how} hangs");
                }
                std::thread::yield_now();
            };
            assert!(status.success(), "{how}: {status}");
        }
    }
}
