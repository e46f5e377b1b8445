//! Workers: growth, failures, sleep, shutdown.

use crate::common::*;
use sexton_cleanup::{
    Activity, CleanupState, Client, Hooks, Pool, PoolConfig, Role, Spawn, SpawnFailure, WaitError,
};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The race of the lost wake-up, on a real machine: the worker is about to sleep whenever the next
/// block comes. With records, blocks and batches around it; `src/tests/lock_step.rs` has the queue
/// alone, and more races.
#[test]
fn in_lock_step_no_block_is_missed() {
    for (workers, rounds) in [(1, 100_000), (3, 20_000)] {
        let (pool, threads) = pool(workers);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let done = Arc::new(AtomicUsize::new(0));
        for round in 1..=rounds {
            let counter = done.clone();
            let (head, _) = add(&mut registrar, move || counter.store(round, Ordering::Release));
            sweep(&client, [head]);
            until_done(&pool, || done.load(Ordering::Acquire) == round);
        }
        assert!(threads.spawned() <= workers);
        shut_down(&pool, &threads);
    }
}

#[test]
fn a_blocked_cleanup_does_not_strand_the_others() {
    let (pool, threads) = pool(2);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gate = Gate::default();
    let door = gate.clone();
    sweep(&client, [add(&mut registrar, move || door.pass()).0]);
    gate.wait_for(1);
    assert_eq!(pool.stats().workers, 1, "one block, one worker");
    let table = BatchTable::new(2000);
    let heads: Vec<_> = (0..2000)
        .map(|at| {
            let capture = table.capture(at);
            add(&mut registrar, move || capture.ran()).0
        })
        .collect();
    // Nothing else is published afterwards.
    sweep(&client, heads);
    until("the others have run", || client.stats().backlog == 1);
    table.all_ran_once();
    assert_eq!(threads.spawned(), 2);
    gate.open();
    shut_down(&pool, &threads);
}

#[test]
fn workers_never_exceed_the_bound() {
    let (pool, threads) = pool(3);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gate = Gate::default();
    for _ in 0..10 {
        let door = gate.clone();
        sweep(&client, [add(&mut registrar, move || door.pass()).0]);
    }
    gate.wait_for(3);
    let stats = pool.stats();
    assert_eq!((stats.workers, stats.running, stats.blocks), (3, 3, 7));
    gate.open();
    client.ticket().wait(DEADLINE).unwrap();
    until("all sleep", || pool.stats().asleep == 3);
    shut_down(&pool, &threads);
    assert_eq!(threads.spawned(), 3);
}

#[test]
fn a_worker_that_cannot_be_started_is_tried_again() {
    let (pool, threads) = pool(1);
    threads.without_monitor();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    threads.fail(2);
    let mut sweep_one = || sweep(&client, [add(&mut registrar, || {}).0]);
    sweep_one();
    assert_eq!((pool.stats().workers, pool.stats().spawn_failures), (0, 1));
    // At the next publish.
    sweep_one();
    assert_eq!((pool.stats().workers, pool.stats().spawn_failures), (0, 2));
    // And when a thread waits.
    client.ticket().wait(DEADLINE).unwrap();
    assert_eq!(pool.stats().executed, 2);
    shut_down(&pool, &threads);
}

/// Nothing is published and no thread waits any more; the monitor sees to it.
#[test]
fn a_worker_that_cannot_be_started_is_tried_again_without_any_call() {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let notes = failures.clone();
    let hook = move |failure: &SpawnFailure<'_>| {
        assert_eq!(failure.error.to_string(), "told to fail");
        notes.lock().unwrap().push((failure.worker, failure.waiting_blocks));
    };
    let hooks = Hooks { spawn_failure: Some(Arc::new(hook)), ..Hooks::default() };
    let (pool, threads) = pool_with(PoolConfig { max_workers: 1, hooks, ..PoolConfig::default() });
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    threads.fail(4);
    let (head, handle) = add(&mut registrar, || {});
    sweep(&client, [head]);
    until("it has run", || handle.state() == CleanupState::Done);
    assert_eq!(pool.stats().spawn_failures, 4);
    assert_eq!(*failures.lock().unwrap(), [(Some(0), 1); 4]);
    shut_down(&pool, &threads);
}

/// More of them than fit into the time after which a monitor with nothing to do falls dormant.
#[test]
fn the_attempts_to_start_a_worker_become_rarer_and_do_not_end() {
    let tick = Duration::from_millis(1);
    let config = PoolConfig { max_workers: 1, stall_after: 2 * tick, ..PoolConfig::default() };
    let (pool, threads) = pool_with(config);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    threads.fail(9);
    let (head, handle) = add(&mut registrar, || {});
    let begin = Instant::now();
    sweep(&client, [head]);
    until("it has run", || handle.state() == CleanupState::Done);
    // 1, 2, 3, 5, 9, 17, 33, 65 and 65 ticks, of which the first, and the one after each failure,
    // take no time.
    assert!(begin.elapsed() >= 120 * tick, "{:?}", begin.elapsed());
    assert_eq!(pool.stats().spawn_failures, 9);
    shut_down(&pool, &threads);
}

#[test]
fn a_worker_too_many_leaves_before_its_next_block() {
    let (pool, threads) = pool(2);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gates = [(); 2].map(|()| Gate::default());
    for gate in &gates {
        let door = gate.clone();
        sweep(&client, [add(&mut registrar, move || door.pass()).0]);
        gate.wait_for(1);
    }
    let (head, handle) = add(&mut registrar, || {});
    sweep(&client, [head]);
    pool.set_max_workers(1);
    gates[0].open();
    until("it has left", || pool.stats().workers == 1);
    assert_eq!(handle.state(), CleanupState::Queued);
    gates[1].open();
    shut_down(&pool, &threads);
    assert_eq!(handle.state(), CleanupState::Done);
}

#[test]
fn a_dump_lists_the_workers_there_are_and_none_that_have_gone() {
    let (pool, threads) = pool(3);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gates = [(); 3].map(|()| Gate::default());
    for gate in &gates {
        let door = gate.clone();
        sweep(&client, [add(&mut registrar, move || door.pass()).0]);
        gate.wait_for(1);
    }
    let listed = || pool.dump().runners.iter().map(|runner| runner.worker).collect::<Vec<_>>();
    assert_eq!(listed(), [Some(0), Some(1), Some(2)]);
    pool.set_max_workers(2);
    gates[1].open();
    until("the second one has left", || listed() == [Some(0), Some(2)]);
    gates.iter().for_each(Gate::open);
    until("they sleep", || pool.stats().asleep == 2);
    let runners = pool.dump().runners;
    assert!(
        runners.iter().all(|runner| matches!(runner.activity, Activity::Asleep)),
        "{runners:?}"
    );
    shut_down(&pool, &threads);
    assert_eq!(listed(), []);
}

/// Fails to start the first worker, but only when told to.
#[derive(Clone, Default)]
struct FailsLate {
    gate: Gate,
    threads: Threads,
    attempts: Arc<AtomicUsize>,
}

impl Spawn for FailsLate {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if role == Role::Monitor {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            self.gate.pass();
            drop(run);
            return Err(io::Error::other("told to fail"));
        }
        self.threads.spawn(role, run)
    }
}

/// The waiter counts on a worker that is being started; that start fails, and there is no monitor.
#[test]
fn who_waits_looks_again_when_a_start_has_failed() {
    let spawn = FailsLate::default();
    let config = PoolConfig { max_workers: 1, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(spawn.clone())));
    let [first, second] = [Client::new(&pool), Client::new(&pool)];
    spawn.threads.without_monitor();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut registrar = first.registrar();
            sweep(&first, [add(&mut registrar, || {}).0]);
        });
        spawn.gate.wait_for(1);
        let mut registrar = second.registrar();
        sweep(&second, [add(&mut registrar, || {}).0]);
        let ticket = second.ticket();
        let waiter = scope.spawn(move || ticket.wait(DEADLINE));
        // Whether it waits by now or not: it must come back.
        std::thread::yield_now();
        spawn.gate.open();
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
    first.ticket().wait(DEADLINE).unwrap();
    shut_down(&pool, &spawn.threads);
}

/// Keeps the workers it is to start.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<Kept>>>);

/// The index of a worker, and its body.
type Kept = (usize, Box<dyn FnOnce() + Send>);

impl Spawn for Keep {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let Role::Worker(index) = role else { return Err(io::ErrorKind::Unsupported.into()) };
        self.0.lock().unwrap().push((index, run));
        Ok(())
    }
}

#[test]
fn a_worker_dropped_unrun_is_no_longer_counted() {
    let keep = Keep::default();
    let config = PoolConfig { max_workers: 1, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(keep.clone())));
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (head, handle) = add(&mut registrar, || {});
    sweep(&client, [head]);
    assert_eq!(pool.stats().workers, 1);
    let worker = keep.0.lock().unwrap().pop().unwrap();
    assert_eq!(worker.0, 0);
    drop(worker);
    assert_eq!(pool.stats().workers, 0);
    assert_eq!(handle.state(), CleanupState::Queued);
    // The next one gets the work.
    sweep(&client, []);
    assert_eq!(pool.stats().workers, 0, "publishing nothing demands no worker");
    let _ = client.ticket().wait(Duration::ZERO);
    let worker = keep.0.lock().unwrap().pop().unwrap();
    pool.begin_shutdown();
    worker.1();
    assert_eq!(handle.state(), CleanupState::Done);
    assert_eq!(pool.stats().workers, 0);
}

#[test]
fn workers_have_different_indices_and_those_of_workers_gone_are_used_again() {
    let keep = Keep::default();
    let config = PoolConfig { max_workers: 3, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(keep.clone())));
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let indices = || keep.0.lock().unwrap().iter().map(|worker| worker.0).collect::<Vec<_>>();
    let heads: Vec<_> = (0..300).map(|_| add(&mut registrar, || {}).0).collect();
    sweep(&client, heads);
    assert_eq!(indices(), [0, 1, 2], "three blocks");
    let gone = keep.0.lock().unwrap().remove(1);
    drop(gone);
    let _ = client.ticket().wait(Duration::ZERO);
    assert_eq!(indices(), [0, 2, 1]);
    pool.begin_shutdown();
    let workers = std::mem::take(&mut *keep.0.lock().unwrap());
    workers.into_iter().for_each(|(_, run)| run());
    assert_eq!(pool.stats().executed, 300);
}

/// No other thread can run it. The wait ended never once its deadline had passed: each start that
/// fails has the waiters look again, and the look starts again.
#[test]
fn who_waits_for_want_of_workers_stops_at_its_deadline_and_when_its_own_have_run() {
    let (pool, threads) = pool(2);
    threads.fail(usize::MAX);
    threads.without_monitor();
    let [first, second] = [(); 2].map(|()| Client::new(&pool));
    for (client, n) in [(&first, 10), (&second, 1000)] {
        let mut registrar = client.registrar();
        let heads: Vec<_> = (0..n).map(|_| add(&mut registrar, || {}).0).collect();
        sweep(client, heads);
    }
    let timeout = WaitError::Timeout { pending: 10 };
    assert_eq!(first.ticket().wait(Duration::ZERO), Err(timeout));
    assert_eq!(first.ticket().wait(DEADLINE), Ok(()));
    assert!(second.stats().backlog > 900, "{}", second.stats().backlog);
    assert_eq!(second.ticket().wait(DEADLINE), Ok(()));
}

#[test]
fn a_spawn_that_panics_has_failed() {
    struct Panics;
    impl Spawn for Panics {
        fn spawn(&self, _: Role, _: Box<dyn FnOnce() + Send>) -> io::Result<()> {
            std::panic::resume_unwind(Box::new("no thread"));
        }
    }
    for max_workers in [1, 3] {
        let config = PoolConfig { max_workers, ..PoolConfig::default() };
        let pool = Pool::new(config, Some(Box::new(Panics)));
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let heads: Vec<_> = (0..1000).map(|_| add(&mut registrar, || {}).0).collect();
        sweep(&client, heads);
        let stats = pool.stats();
        assert_eq!(stats.workers, 0);
        assert!(stats.spawn_failures >= max_workers as u64);
        client.ticket().wait(DEADLINE).unwrap();
        assert_eq!(pool.stats().executed, 1000, "by the waiter, for want of workers");
    }
}

#[test]
fn a_shutdown_drains_the_list_first() {
    for workers in [1, 2, 3] {
        let (pool, threads) = pool(workers);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let table = BatchTable::new(50_000);
        let heads: Vec<_> = (0..50_000)
            .map(|at| {
                let capture = table.capture(at);
                add(&mut registrar, move || capture.ran()).0
            })
            .collect();
        sweep(&client, heads);
        shut_down(&pool, &threads);
        table.all_ran_once();
        assert_eq!(pool.discard_pending(), 0);
    }
}

#[test]
fn a_shutdown_gives_up_at_its_deadline_and_the_rest_is_discarded() {
    let (pool, threads) = pool(1);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gate = Gate::default();
    let table = BatchTable::new(400);
    let door = gate.clone();
    let mut heads = vec![add(&mut registrar, move || door.pass()).0];
    heads.extend((0..400).map(|at| {
        let capture = table.capture(at);
        add(&mut registrar, move || capture.ran()).0
    }));
    sweep(&client, heads);
    gate.wait_for(1);
    pool.begin_shutdown();
    assert!(!pool.wait_until_workers_left(Duration::from_millis(1)));
    let discarded = pool.discard_pending();
    assert_eq!(discarded, 400, "its block-mates, too: it may never come back");
    assert_eq!(table.ended_once(), 0, "their captures were dropped");
    assert_eq!(client.ticket().pending(), 1);
    gate.open();
    assert!(pool.wait_until_workers_left(DEADLINE));
    threads.join();
    let stats = pool.stats();
    assert_eq!((stats.executed, stats.discarded, stats.backlog), (1, 400, 0));
}

/// A pool whose bound is 0 for now is no manual pool: what is queued is to run.
#[test]
fn a_shutdown_runs_the_work_of_a_paused_pool_itself() {
    let (pool, threads) = pool(2);
    pool.set_max_workers(0);
    let client = Client::new(&pool);
    let table = BatchTable::new(1000);
    let heads = {
        let mut registrar = client.registrar();
        (0..1000)
            .map(|at| {
                let capture = table.capture(at);
                add(&mut registrar, move || capture.ran()).0
            })
            .collect::<Vec<_>>()
    };
    sweep(&client, heads);
    assert!(!pool.wait_until_workers_left(Duration::ZERO), "not all has run");
    shut_down(&pool, &threads);
    table.all_ran_once();
    assert_eq!((pool.discard_pending(), threads.spawned()), (0, 0));
}

/// Its runner is inside a cleanup and cannot run others, and there is no other thread.
#[test]
fn a_shutdown_of_a_paused_pool_from_inside_a_cleanup_discards_the_rest_at_once() {
    let (pool, _threads) = pool(1);
    pool.set_max_workers(0);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let inner = pool.clone();
    let last = move || {
        inner.begin_shutdown();
        inner.discard_after_the_last();
    };
    let (first, _) = add(&mut registrar, last);
    sweep(&client, [first]);
    let (second, handle) = add(&mut registrar, || {});
    sweep(&client, [second]);
    assert_eq!(pool.run_pending(1), 1);
    assert_eq!(handle.state(), CleanupState::Stopped);
    assert_eq!((pool.stats().executed, pool.stats().discarded), (1, 1));
}

/// However patient it is with stalled cleanups.
#[test]
fn a_pool_that_takes_no_tails_over_tries_again_to_start_a_worker_without_any_call() {
    let (pool, threads) = pool_with(PoolConfig {
        max_workers: 1,
        stall_after: Duration::MAX,
        ..PoolConfig::default()
    });
    threads.fail(4);
    let client = Client::new(&pool);
    sweep(&client, [add(&mut client.registrar(), || {}).0]);
    until("it has run", || client.stats().executed == 1);
    assert_eq!(pool.stats().spawn_failures, 4);
    shut_down(&pool, &threads);
}

#[test]
fn an_idle_pool_shuts_down_at_once_and_twice() {
    let (pool, threads) = pool(2);
    shut_down(&pool, &threads);
    shut_down(&pool, &threads);
    assert!(manual().wait_until_workers_left(Duration::ZERO));
}

#[test]
fn a_worker_of_a_helping_crowd_counts_its_own() {
    for workers in [1, 2, 3] {
        let (pool, threads) = pool(workers);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let table = BatchTable::new(30_000);
        let heads: Vec<_> = (0..30_000)
            .map(|at| {
                let capture = table.capture(at);
                add(&mut registrar, move || capture.ran()).0
            })
            .collect();
        sweep(&client, heads);
        while pool.run_pending(100) > 0 {}
        client.ticket().wait(DEADLINE).unwrap();
        table.all_ran_once();
        assert_eq!(pool.stats().executed, 30_000);
        shut_down(&pool, &threads);
    }
}
