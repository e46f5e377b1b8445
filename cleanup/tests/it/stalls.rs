//! Stalls: a cleanup that does not return costs itself, and nothing else.

use crate::common::*;
use sexton_cleanup::{
    Activity, CleanupState, Client, Description, Hooks, Pool, PoolConfig, Registrar, SlowCleanup,
};
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Soon enough for a test, and not so soon that a busy machine makes every cleanup a stall.
const STALL: Duration = Duration::from_millis(5);

fn config(max_workers: usize) -> PoolConfig {
    PoolConfig { max_workers, stall_after: STALL, ..PoolConfig::default() }
}

/// `n` cleanups that are noted in the ledger; those in `stalls` wait at the gate first.
fn heads(
    registrar: &mut Registrar,
    table: &BatchTable,
    gate: &Gate,
    n: usize,
    stalls: &[usize],
) -> Vec<sexton_cleanup::Head> {
    (0..n)
        .map(|at| {
            let capture = table.capture(at);
            let gate = stalls.contains(&at).then(|| gate.clone());
            let cleanup = move || {
                if let Some(gate) = gate {
                    gate.pass();
                }
                capture.ran();
            };
            add(registrar, cleanup).0
        })
        .collect()
}

#[test]
fn one_that_blocks_for_ever_among_two_thousand_costs_exactly_itself() {
    for stalled in [0, 1, 77, 125, 126, 1999] {
        let scene = Scene::stalled(2, 2000, &[stalled]);
        // Nothing is registered, queued or asked for any more.
        scene.until_only_those_that_stall_are_left(1);
        assert_eq!((0..2000).filter(|&at| scene.table.runs(at) == 1).count(), 1999);
        assert_eq!(scene.table.runs(stalled), 0);
        assert!(scene.threads.spawned() <= 2);
        scene.end();
    }
}

/// A pool, and one heap's cleanups of which some stall.
struct Scene {
    pool: Arc<Pool>,
    threads: Threads,
    client: Client,
    registrar: Registrar,
    gate: Gate,
    table: BatchTable,
}

impl Scene {
    fn new((pool, threads): (Arc<Pool>, Threads), n: usize) -> Self {
        let client = Client::new(&pool);
        let registrar = client.registrar();
        let (gate, table) = (Gate::default(), BatchTable::new(n));
        Scene { pool, threads, client, registrar, gate, table }
    }

    /// A pool with workers, where `n` cleanups are queued, and those in `stalls` do not return.
    fn stalled(max_workers: usize, n: usize, stalls: &[usize]) -> Self {
        let mut scene = Self::new(pool_with(config(max_workers)), n);
        scene.queue(n, stalls);
        scene
    }

    fn queue(&mut self, n: usize, stalls: &[usize]) {
        let Scene { registrar, table, gate, .. } = self;
        let heads = heads(registrar, table, gate, n, stalls);
        sweep(&self.client, heads);
    }

    fn until_only_those_that_stall_are_left(&self, n: u64) {
        until("only those that stall are left", || self.client.stats().backlog == n);
    }

    /// Lets those that stall go on; then each has run once.
    fn end(self) {
        self.gate.open();
        shut_down(&self.pool, &self.threads);
        self.table.all_ran_once();
    }
}

/// Calls `act` in a paused pool, beside a helping thread that has stalled at the first of a block
/// of a hundred.
fn beside_a_stalled_helper(config: PoolConfig, act: impl FnOnce(&Scene)) {
    let mut scene = Scene::new(pool_with(config), 100);
    scene.pool.set_max_workers(0);
    scene.queue(100, &[0]);
    std::thread::scope(|scope| {
        scope.spawn(|| scene.pool.run_pending(usize::MAX));
        scene.gate.wait_for(1);
        act(&scene);
        scene.gate.open();
    });
    scene.end();
}

/// The only block there is, so no other thread is awake to see it stall.
#[test]
fn the_block_mates_of_a_stalled_cleanup_run_though_all_others_sleep() {
    let scene = Scene::stalled(2, 15, &[3]);
    scene.until_only_those_that_stall_are_left(1);
    until("who ran them has put them down", || scene.pool.stats().running == 1);
    let stats = scene.pool.stats();
    assert_eq!((stats.requeued, stats.workers), (1, 2));
    assert_eq!(scene.threads.monitors(), 1);
    scene.end();
}

#[test]
fn as_many_stalls_as_there_are_workers_but_one_cost_exactly_themselves() {
    // Three of them in one block, one behind the other.
    let scene = Scene::stalled(5, 2000, &[4, 5, 90, 1000]);
    scene.until_only_those_that_stall_are_left(4);
    scene.end();
}

#[test]
fn a_shutdown_runs_what_waits_behind_a_stalled_cleanup() {
    for _ in 0..10 {
        let scene = Scene::stalled(2, 20, &[1]);
        scene.gate.wait_for(1);
        // From here on idle workers leave, and none is added but in place of another.
        scene.pool.begin_shutdown();
        scene.until_only_those_that_stall_are_left(1);
        scene.end();
    }
}

#[test]
fn with_a_bound_of_one_the_others_wait_and_any_other_thread_can_run_them() {
    let scene = Scene::stalled(1, 300, &[10]);
    scene.gate.wait_for(1);
    assert_eq!(scene.threads.monitors(), 0, "no thread is there to requeue the tail");
    let mut ran = 0;
    until("this thread has run the rest", || {
        ran += scene.pool.run_pending(usize::MAX);
        scene.client.stats().backlog == 1
    });
    assert!(ran >= 115, "the stalled block's tail at least: {ran}");
    scene.end();
}

/// Once the time of a stall has passed, one look is enough: it does not know how long the cleanup
/// has run, nor when the next look comes.
#[test]
fn one_call_runs_all_that_waits_behind_a_stalled_cleanup() {
    for stalled in [0, 50, 1999] {
        // Any block in hand was begun longer ago.
        let impatient = PoolConfig { stall_after: Duration::from_nanos(1), ..config(1) };
        let mut scene = Scene::new(pool_with(impatient), 2000);
        scene.queue(2000, &[stalled]);
        scene.gate.wait_for(1);
        let before = scene.pool.stats();
        assert_eq!((before.requeued, scene.threads.monitors()), (0, 0));
        let ran = scene.pool.run_pending(usize::MAX) as u64;
        assert_eq!((before.executed + ran, scene.client.stats().executed), (1999, 1999));
        assert_eq!(scene.pool.run_pending(usize::MAX), 0);
        scene.end();
    }
}

/// A call that gives 0 has left nothing to be run.
#[test]
fn a_helping_thread_runs_the_tail_that_it_takes_over() {
    beside_a_stalled_helper(config(1), |scene| {
        until("the tail was requeued and run", || {
            let ran = scene.pool.run_pending(usize::MAX);
            assert_eq!(scene.pool.stats().blocks, 0);
            ran == 99
        });
    });
}

#[test]
fn helping_threads_requeue_tails_of_each_other() {
    let pool = Pool::new(config(0), None);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (table, gate) = (BatchTable::new(50), Gate::default());
    sweep(&client, heads(&mut registrar, &table, &gate, 50, &[20]));
    std::thread::scope(|scope| {
        let stalls = scope.spawn(|| pool.run_pending(usize::MAX));
        gate.wait_for(1);
        let mut ran = 0;
        until("the tail has run here", || {
            ran += pool.run_pending(usize::MAX);
            ran == 29
        });
        gate.open();
        assert_eq!(stalls.join().unwrap(), 21);
    });
    table.all_ran_once();
    assert!(client.ticket().is_done());
}

/// A runner that comes back from a stall finds the rest of the block in other hands, run or not.
/// Nothing runs twice, and no slot of it serves another cleanup too early.
#[test]
fn a_runner_that_comes_back_in_the_middle_of_its_tail_runs_nothing_twice() {
    let (pool, threads) =
        pool_with(PoolConfig { stall_after: Duration::from_millis(1), ..config(3) });
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(60_000);
    let mut handles = Vec::new();
    for round in 0..200 {
        let mut heads = Vec::new();
        for at in round * 300..(round + 1) * 300 {
            let capture = table.capture(at);
            let (head, handle) = add(&mut registrar, move || {
                if at % 97 == 0 {
                    // About as long as it takes to be found stalled: not a proof, but the race.
                    std::thread::sleep(Duration::from_micros(500 + (at % 1500) as u64));
                }
                capture.ran();
            });
            heads.push(head);
            handles.push(handle);
        }
        sweep(&client, heads);
        // Slots that came back are used at once, for objects that live.
        let alive: Vec<_> = (0..50).map(|_| add(&mut registrar, || panic!("it lives")).0).collect();
        for handle in handles.iter().step_by(7) {
            handle.stop();
        }
        alive.into_iter().for_each(|head| registrar.discard(head));
        handles.clear();
    }
    client.ticket().wait(DEADLINE).unwrap();
    shut_down(&pool, &threads);
    let ran = table.ended_once() as u64;
    let stats = client.stats();
    assert_eq!((stats.executed, stats.panicked, stats.backlog), (ran, 0, 0));
    assert_eq!(stats.executed + stats.stopped, 60_000);
    assert!(pool.stats().requeued > 0, "no tail was requeued");
}

#[test]
fn a_cleanup_stopped_in_a_tail_that_was_requeued_does_not_run() {
    let (pool, threads) = pool_with(config(2));
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gates = [Gate::default(), Gate::default()];
    let table = BatchTable::new(3);
    let mut queued = Vec::new();
    // Two stalls in one block keep both workers; the third cleanup waits in a tail of a tail.
    for gate in &gates {
        let gate = gate.clone();
        queued.push(add(&mut registrar, move || gate.pass()));
    }
    for at in 0..3 {
        let capture = table.capture(at);
        queued.push(add(&mut registrar, move || capture.ran()));
    }
    sweep(&client, queued.iter().map(|&(head, _)| head).collect::<Vec<_>>());
    gates.iter().for_each(|gate| gate.wait_for(1));
    until("the second tail is published", || pool.stats().blocks == 1);
    assert!(queued[3].1.stop());
    assert!(queued[4].1.run_now());
    assert_eq!(queued[2].1.state(), CleanupState::Queued);
    assert_eq!(client.ticket().pending(), 3);
    gates.iter().for_each(Gate::open);
    shut_down(&pool, &threads);
    assert_eq!([0, 1, 2].map(|at| (table.runs(at), table.drops(at))), [(1, 1), (0, 1), (1, 1)]);
    assert_eq!(pool.stats().requeued, 2);
}

#[test]
fn a_slow_cleanup_is_reported_once_with_label_site_and_age() {
    let heard: Arc<Mutex<Vec<SlowCleanup>>> = Arc::default();
    let notes = heard.clone();
    let hook = move |slow: &SlowCleanup| {
        assert!(sexton_cleanup::in_cleanup(), "it cannot wait for cleanups");
        notes.lock().unwrap().push(*slow);
        panic!("a hook that panics does no harm");
    };
    let slow_after = Duration::from_millis(3);
    let hooks = Hooks { slow: Some((slow_after, Arc::new(hook))), ..Hooks::default() };
    // With a bound of one, too, and in a block of its own.
    let (pool, threads) = pool_with(PoolConfig { hooks, ..config(1) });
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let gate = Gate::default();
    let door = gate.clone();
    let (head, handle) = add(&mut registrar, move || door.pass());
    let site = Location::caller();
    registrar.describe(&handle, Description::of::<()>(Some("the door"), Some(site)));
    sweep(&client, [head]);
    until("it is reported", || !heard.lock().unwrap().is_empty());
    let seen = pool.dump();
    assert!(matches!(
        seen.runners[0].activity,
        Activity::Running { cleanup, age, begun: 1, len: 1, .. }
            if cleanup.label == Some("the door") && age >= slow_after
    ));
    assert!(seen.to_string().contains("worker 0: runs \"the door\", registered at "), "{seen}");
    // Each of these looks, too.
    (0..10).for_each(|_| assert_eq!(pool.run_pending(1), 0));
    gate.open();
    shut_down(&pool, &threads);
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!((heard[0].cleanup.label, heard[0].cleanup.site), (Some("the door"), Some(site)));
    assert!(heard[0].age >= slow_after);
    assert_eq!(heard[0].worker, Some(0));
    assert_eq!(pool.stats().slow, 1);
}

#[test]
fn nothing_is_requeued_before_its_time() {
    let patient = PoolConfig { stall_after: Duration::MAX, ..config(1) };
    beside_a_stalled_helper(patient, |scene| {
        (0..10).for_each(|_| assert_eq!(scene.pool.run_pending(usize::MAX), 0));
        assert_eq!(scene.pool.stats().requeued, 0);
    });
}

/// It is not needed if no block is in hand.
#[test]
fn a_bound_that_moves_starts_no_monitor() {
    let scene = Scene::new(pool_with(config(1)), 0);
    (0..5).for_each(|max| scene.pool.set_max_workers(max));
    assert_eq!(scene.threads.monitors(), 0);
    scene.end();
}

#[test]
fn a_pool_with_nothing_to_watch_starts_no_monitor_and_an_idle_monitor_ends() {
    let keep_alive = Some(Duration::from_millis(20));
    let (pool, threads) = pool_with(PoolConfig { keep_alive, ..config(2) });
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    for _ in 0..10 {
        sweep(&client, [add(&mut registrar, || {}).0]);
        client.ticket().wait(DEADLINE).unwrap();
    }
    assert_eq!(threads.monitors(), 0, "blocks of one have no tail");
    for round in 1..=2 {
        let pair = [add(&mut registrar, || {}).0, add(&mut registrar, || {}).0];
        sweep(&client, pair);
        client.ticket().wait(DEADLINE).unwrap();
        assert_eq!(threads.monitors(), round);
        until("all threads have ended", || threads.alive() == 0);
    }
    assert_eq!(pool.stats().workers, 0);
    shut_down(&pool, &threads);
}

/// The first block that would need a monitor gets none. The next one does, and it sees to both.
#[test]
fn a_monitor_that_could_not_be_started_is_tried_again_for_the_next_block() {
    let mut scene = Scene::new(pool_with(config(3)), 10);
    scene.threads.fail_monitors(1);
    scene.queue(10, &[0]);
    scene.gate.wait_for(1);
    assert_eq!(scene.threads.monitors(), 0);
    let others = BatchTable::new(10);
    let others_heads = heads(&mut scene.registrar, &others, &scene.gate, 10, &[0]);
    sweep(&scene.client, others_heads);
    scene.until_only_those_that_stall_are_left(2);
    assert_eq!(scene.threads.monitors(), 1);
    scene.end();
    others.all_ran_once();
}

/// No thread begins another block, or asks for work: the waiter sees to it, or the publisher.
#[test]
fn a_monitor_that_could_not_be_started_is_tried_again_by_a_wait_and_by_a_publish() {
    for wait in [true, false] {
        let mut scene = Scene::new(pool_with(config(2)), 100);
        scene.threads.fail_monitors(2);
        scene.queue(100, &[0]);
        scene.gate.wait_for(1);
        let mut others = 0;
        until("only the one that stalls is left", || {
            if wait {
                let _ = scene.client.ticket().wait(Duration::ZERO);
            } else if others < 2 {
                let (head, _) = add(&mut scene.registrar, || {});
                others += sweep(&scene.client, [head]);
            }
            scene.client.stats().executed >= 99 + others
        });
        assert_eq!((scene.threads.monitors(), scene.pool.stats().spawn_failures), (1, 2));
        scene.end();
    }
}

/// The block was begun when no other thread could have helped.
#[test]
fn when_the_bound_is_raised_others_run_what_waits_behind_a_stalled_cleanup() {
    let scene = Scene::stalled(1, 100, &[0]);
    scene.gate.wait_for(1);
    assert_eq!(scene.threads.monitors(), 0);
    scene.pool.set_max_workers(2);
    scene.until_only_those_that_stall_are_left(1);
    scene.end();
}

/// Likewise, with a helping thread.
#[test]
fn when_the_bound_is_raised_from_zero_workers_run_what_waits_behind_a_stalled_helper() {
    beside_a_stalled_helper(config(1), |scene| {
        scene.pool.set_max_workers(1);
        scene.until_only_those_that_stall_are_left(1);
    });
}
