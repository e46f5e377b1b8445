//! How long a monitor with nothing to do stays.

use super::death::queue;
use crate::{Client, Hooks, Pool, PoolConfig, Role, Spawn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// Starts threads, and counts the monitors.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU32>);

impl Spawn for Counting {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.0.fetch_add(u32::from(role == Role::Monitor), Ordering::Relaxed);
        thread::spawn(run);
        Ok(())
    }
}

/// A pool whose monitor looks each millisecond, and how many monitors it has had.
fn scene(keep_alive: Duration) -> (Arc<Pool>, Arc<AtomicU32>) {
    let config = PoolConfig { keep_alive: Some(keep_alive), ..config() };
    let monitors = Counting::default();
    (Pool::new(config, Some(Box::new(monitors.clone()))), monitors.0)
}

fn config() -> PoolConfig {
    PoolConfig {
        max_workers: 2,
        stall_after: Duration::from_millis(2),
        keep_alive: Some(DEADLINE),
        ..PoolConfig::default()
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "never: {what}");
        thread::yield_now();
    }
}

fn shut_down(pool: &Pool) {
    pool.begin_shutdown();
    assert!(pool.wait_until_workers_left(DEADLINE));
}

#[test]
fn it_stays_as_long_as_an_idle_worker() {
    let (pool, monitors) = scene(DEADLINE);
    let client = Client::new(&pool);
    for _ in 0..5 {
        queue(&client, 2);
        client.ticket().wait(DEADLINE).unwrap();
        until("there is a monitor, and it is dormant", || pool.watch().rests());
    }
    assert_eq!(monitors.load(Ordering::Relaxed), 1);
    shut_down(&pool);
}

#[test]
fn it_leaves_with_the_idle_workers_and_another_one_comes_with_the_next_block() {
    let (pool, monitors) = scene(Duration::from_millis(1));
    let client = Client::new(&pool);
    for round in 1..=3 {
        queue(&client, 2);
        client.ticket().wait(DEADLINE).unwrap();
        assert_eq!(monitors.load(Ordering::Relaxed), round);
        until("the monitor is gone", || !pool.watch().exists());
    }
    shut_down(&pool);
}

/// Waits of a monitor that ticks for ever, and more than one takes that has nothing to do.
const MANY: u64 = 1000;

/// A pool whose hook for slow cleanups counts. Nothing here takes less than its time.
fn telling(config: PoolConfig) -> (Arc<Pool>, Arc<AtomicU32>) {
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    let hook = move |_: &_| _ = count.fetch_add(1, Ordering::Relaxed);
    let slow = Some((Duration::from_millis(1), Arc::new(hook) as _));
    let config = PoolConfig { hooks: Hooks { slow, ..Hooks::default() }, ..config };
    (Pool::new(config, Some(Box::new(Counting::default()))), told)
}

/// Queues a block of two cleanups that do not return before they are told.
fn two_that_stall(client: &Client) -> [Sender<()>; 2] {
    let mut registrar = client.registrar();
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    let doors = [(); 2].map(|()| {
        let (open, door) = channel();
        local.push(registrar.register(None, move || _ = door.recv()).0);
        open
    });
    cycle.flush([local]);
    doors
}

fn falls_dormant(pool: &Pool) {
    until("it is dormant", || pool.watch().rests() || pool.watch().waits() > MANY);
    assert!(pool.watch().rests(), "it goes on ticking");
}

#[test]
fn it_does_not_tick_for_cleanups_that_never_return() {
    for hook in [false, true] {
        let (pool, told) = if hook {
            telling(config())
        } else {
            (Pool::new(config(), Some(Box::new(Counting::default()))), Arc::default())
        };
        let client = Client::new(&pool);
        let doors = two_that_stall(&client);
        until("the tail has been requeued", || pool.stats().running == 2);
        falls_dormant(&pool);
        let waits = pool.watch().waits();
        assert_eq!(told.load(Ordering::Relaxed), if hook { 2 } else { 0 });
        assert_eq!(pool.stats().requeued, 1);
        // Something new to be watched brings it back.
        pool.set_max_workers(3);
        queue(&client, 2);
        until("it is back", || pool.watch().waits() > waits);
        drop(doors);
        client.ticket().wait(DEADLINE).unwrap();
        shut_down(&pool);
    }
}

#[test]
fn a_runner_that_goes_on_in_a_block_that_was_let_go_is_watched_again() {
    let (pool, told) =
        telling(PoolConfig { max_workers: 1, stall_after: Duration::MAX, ..config() });
    let client = Client::new(&pool);
    for (at, door) in two_that_stall(&client).into_iter().enumerate() {
        until("the hook is told", || told.load(Ordering::Relaxed) as usize == at + 1);
        until("it is dormant", || pool.watch().rests());
        drop(door);
    }
    client.ticket().wait(DEADLINE).unwrap();
    shut_down(&pool);
}
