//! Manual pools, blocks and the flush.

use crate::common::*;
use sexton_cleanup::{
    Client, Description, Hooks, PanicHook, Pool, PoolConfig, ReadyHook, in_cleanup,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[test]
fn run_pending_runs_as_many_as_asked_and_loses_none() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(1000);
    let heads: Vec<_> = (0..1000)
        .map(|at| {
            let capture = table.capture(at);
            add(&mut registrar, move || capture.ran()).0
        })
        .collect();
    assert!(pool.is_idle());
    sweep(&client, heads);
    assert!(!pool.is_idle());
    let mut ran = 0;
    for max in (0..).step_by(7) {
        let got = pool.run_pending(max);
        assert_eq!(got, max.min(1000 - ran));
        ran += got;
        assert_eq!(client.stats().backlog as usize, 1000 - ran);
        if ran == 1000 {
            break;
        }
    }
    table.all_ran_once();
    assert!(pool.is_idle());
    assert_eq!(pool.run_pending(1), 0);
}

#[test]
fn many_threads_may_help() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(20_000);
    let heads: Vec<_> = (0..20_000)
        .map(|at| {
            let capture = table.capture(at);
            add(&mut registrar, move || capture.ran()).0
        })
        .collect();
    sweep(&client, heads);
    let ran = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = pool.run_pending(37);
                    ran.fetch_add(n, Ordering::Relaxed);
                    // A block may be in another helper's hands, to come back.
                    if n == 0 && pool.is_idle() {
                        break;
                    }
                }
            });
        }
    });
    assert_eq!(ran.into_inner(), 20_000);
    table.all_ran_once();
    let stats = pool.stats();
    assert_eq!((stats.executed, stats.running, stats.blocks), (20_000, 0, 0));
}

/// An event loop runs some at a time, and is told again as long as there are more.
#[test]
fn who_leaves_some_is_told_again_and_who_leaves_none_is_not() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let ready: ReadyHook = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let hooks = Hooks { ready: Some(ready), ..Hooks::default() };
    let pool = Pool::new(PoolConfig { hooks, ..PoolConfig::default() }, None);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let heads: Vec<_> = (0..10).map(|_| add(&mut registrar, || {}).0).collect();
    sweep(&client, heads);
    for (max, ran, calls) in [(0, 0, 2), (4, 4, 3), (4, 4, 4), (2, 2, 4), (1, 0, 4)] {
        assert_eq!(pool.run_pending(max), ran);
        assert_eq!(told.load(Ordering::Relaxed), calls, "after {ran} of at most {max}");
    }
}

#[test]
fn the_oldest_age_is_that_of_the_oldest_cycle_that_has_not_ended() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    assert_eq!(pool.stats().oldest, None);
    let begin = Instant::now();
    let (first, handle) = add(&mut registrar, || {});
    sweep(&client, [first]);
    until("the clock goes on", || begin.elapsed() > Duration::from_millis(2));
    let middle = Instant::now();
    let (second, _) = add(&mut registrar, || {});
    sweep(&client, [second]);
    let oldest = pool.stats().oldest.expect("both wait");
    assert!(oldest > Duration::from_millis(1), "{oldest:?}");
    assert!(handle.stop());
    let oldest = pool.stats().oldest.expect("the second waits");
    assert!(oldest <= middle.elapsed(), "{oldest:?}");
    assert_eq!(pool.run_pending(usize::MAX), 1);
    assert_eq!(pool.stats().oldest, None);
}

#[test]
fn relieving_runs_what_is_queued_until_the_backlog_is_low() {
    let pool = manual();
    let [client, other] = [(); 2].map(|()| Client::new(&pool));
    let queue = |client: &Client, n: usize| {
        let mut registrar = client.registrar();
        let heads: Vec<_> = (0..n).map(|_| add(&mut registrar, || {}).0).collect();
        sweep(client, heads)
    };
    queue(&client, 500);
    assert_eq!([600, 500, 450, 449].map(|mark| client.relieve(mark)), [500, 500, 450, 449]);
    assert_eq!(pool.stats().executed, 51);
    assert_eq!(client.relieve(0), 0);
    // What is in front of its own is run, too.
    queue(&other, 300);
    queue(&client, 10);
    assert_eq!(client.relieve(5), 5);
    assert!((1..300).contains(&other.backlog()));
    pool.run_pending(usize::MAX);
}

#[test]
fn relieving_ends_when_there_is_nothing_to_take() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let inner = client.clone();
    let heads = [
        add(&mut registrar, move || assert_eq!(inner.relieve(0), 2, "itself, and the other")).0,
        add(&mut registrar, || {}).0,
    ];
    sweep(&client, heads);
    assert_eq!(client.relieve(0), 0);
    assert_eq!((pool.stats().executed, pool.stats().panicked), (2, 0));
}

#[test]
fn a_closure_run_as_a_cleanup_is_inside_one_and_its_panic_is_told() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let panic: PanicHook = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let hooks = Hooks { panic: Some(panic), ..Hooks::default() };
    let client = Client::new(&Pool::new(PoolConfig { hooks, ..PoolConfig::default() }, None));
    let run = |closure: fn()| client.run_as_cleanup(closure, Description::default());
    assert!(run(|| assert!(in_cleanup())));
    assert_eq!(told.load(Ordering::Relaxed), 0);
    assert!(!run(|| std::panic::resume_unwind(Box::new("on purpose"))));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(!in_cleanup());
}

#[test]
fn a_chain_has_ended_when_all_of_it_has() {
    let client = Client::new(&manual());
    let mut registrar = client.registrar();
    let (head, first) = add(&mut registrar, || {});
    let (head, second) = registrar.register(Some(head), || {});
    for handle in [&second, &first] {
        assert!(!registrar.has_ended(head));
        assert!(handle.stop());
    }
    assert!(registrar.has_ended(head));
    registrar.discard(head);
}

#[test]
fn cleanups_do_not_nest() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let inner = pool.clone();
    let heads = [
        add(&mut registrar, move || assert_eq!(inner.run_pending(9), 0)).0,
        add(&mut registrar, || {}).0,
    ];
    // Two cycles, two blocks.
    for head in heads {
        sweep(&client, [head]);
    }
    assert_eq!(pool.run_pending(usize::MAX), 2);
    assert_eq!(client.stats().panicked, 0);
}

#[test]
fn a_flush_fills_blocks_and_publishes_no_empty_one() {
    const FULL: usize = 126;
    // What each sweeper has pushed, and the blocks it takes to hold the sum.
    for pushes in [
        vec![],
        vec![0],
        vec![0, 0, 0],
        vec![1],
        vec![1, 1, 1, 1],
        vec![0, 1, 0],
        vec![100, 100, 52],
        vec![125, 1],
        vec![125, 2],
        vec![FULL, 0],
        vec![FULL * 3, 1, FULL - 1, 0],
        vec![60, 60, 60, 60, 60],
        vec![FULL - 1, FULL - 1, FULL - 1],
    ] {
        let pool = manual();
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let sum: usize = pushes.iter().sum();
        let table = BatchTable::new(sum);
        let cycle = client.begin_cycle();
        let mut at = 0;
        let locals: Vec<_> = pushes
            .iter()
            .map(|&n| {
                let mut local = cycle.local_block();
                for _ in 0..n {
                    let capture = table.capture(at);
                    local.push(add(&mut registrar, move || capture.ran()).0);
                    at += 1;
                }
                local
            })
            .collect();
        let flushed = cycle.flush(locals);
        assert_eq!(flushed.cleanups as usize, sum, "{pushes:?}");
        assert_eq!(flushed.blocks as usize, sum.div_ceil(FULL), "{pushes:?}");
        assert_eq!(pool.stats().blocks, sum.div_ceil(FULL), "{pushes:?}");
        assert_eq!(pool.run_pending(usize::MAX), sum, "{pushes:?}");
        table.all_ran_once();
        assert!(client.ticket().is_done());
    }
}

#[test]
fn a_cycle_of_ended_cleanups_publishes_nothing() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let heads: Vec<_> = (0..300)
        .map(|_| {
            let (head, handle) = add(&mut registrar, || {});
            assert!(handle.stop());
            head
        })
        .collect();
    assert_eq!(registrar.ended_early(), 300);
    assert_eq!(sweep(&client, heads), 0);
    assert_eq!(registrar.ended_early(), 0);
    assert_eq!((pool.stats().blocks, pool.stats().queued), (0, 0));
    assert!(client.ticket().is_done(), "an empty batch is a finished one");
}

#[test]
fn a_dropped_local_block_of_ended_cleanups_publishes_nothing() {
    let pool = manual();
    let client = Client::new(&pool);
    let (head, handle) = add(&mut client.registrar(), || {});
    assert!(handle.stop());
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    local.push(head);
    drop(local);
    drop(cycle);
    assert_eq!((pool.stats().blocks, pool.stats().queued), (0, 0));
}

#[test]
fn what_a_dropped_cycle_had_collected_is_published_all_the_same() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(2);
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    for at in 0..2 {
        let capture = table.capture(at);
        local.push(add(&mut registrar, move || capture.ran()).0);
    }
    drop(cycle);
    assert_eq!(pool.run_pending(9), 0);
    drop(local);
    let ticket = client.ticket();
    assert!(!ticket.is_done());
    assert_eq!(pool.run_pending(9), 2);
    assert!(ticket.is_done());
    table.all_ran_once();
}

#[test]
fn cleanups_may_do_anything() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let ran = Arc::new(AtomicUsize::new(0));
    let (_, other) = add(&mut registrar, || panic!("stopped before"));
    let (late, now) = add(&mut registrar, {
        let ran = ran.clone();
        move || {
            ran.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (inner_pool, inner_ran) = (pool.clone(), ran.clone());
    let (head, _) = add(&mut registrar, move || {
        assert!(in_cleanup());
        assert!(other.stop());
        assert!(now.run_now());
        assert!(in_cleanup(), "still, after an inner one");
        // Another heap is born, collects and dies.
        let client = Client::new(&inner_pool);
        let mut registrar = client.registrar();
        let ran = inner_ran.clone();
        let (head, _) = add(&mut registrar, move || {
            ran.fetch_add(10, Ordering::Relaxed);
        });
        sweep(&client, [head]);
        inner_ran.fetch_add(100, Ordering::Relaxed);
    });
    sweep(&client, [head]);
    assert_eq!(pool.run_pending(usize::MAX), 2);
    assert_eq!(ran.load(Ordering::Relaxed), 111);
    assert!(registrar.has_ended(late));
    assert_eq!(client.stats().panicked, 0);
}
