//! How long a monitor with nothing to do stays.

use super::death::queue;
use crate::{Monitor, Origin, Pool, PoolConfig, Spawn, Worker};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// Starts threads, and counts the monitors.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU32>);

impl Spawn for Counting {
    fn spawn(&self, worker: Worker) -> io::Result<()> {
        thread::spawn(move || worker.run());
        Ok(())
    }

    fn spawn_monitor(&self, monitor: Monitor) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || monitor.run());
        Ok(())
    }
}

/// A pool whose monitor looks each millisecond, and how many monitors it has had.
fn scene(keep_alive: Duration) -> (Arc<Pool>, Arc<AtomicU32>) {
    let config = PoolConfig {
        max_workers: 2,
        stall_after: Duration::from_millis(2),
        keep_alive: Some(keep_alive),
        ..PoolConfig::default()
    };
    let monitors = Counting::default();
    (Pool::new(config, Some(Box::new(monitors.clone()))), monitors.0)
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
    let origin = Origin::new(&pool);
    for _ in 0..5 {
        queue(&origin, 2);
        origin.ticket().wait(DEADLINE).unwrap();
        until("there is a monitor, and it is dormant", || pool.watch().rests());
    }
    assert_eq!(monitors.load(Ordering::Relaxed), 1);
    shut_down(&pool);
}

#[test]
fn it_leaves_with_the_idle_workers_and_another_one_comes_with_the_next_block() {
    let (pool, monitors) = scene(Duration::from_millis(1));
    let origin = Origin::new(&pool);
    for round in 1..=3 {
        queue(&origin, 2);
        origin.ticket().wait(DEADLINE).unwrap();
        assert_eq!(monitors.load(Ordering::Relaxed), round);
        until("the monitor is gone", || !pool.watch().exists());
    }
    shut_down(&pool);
}
