//! A runner that dies between two cleanups loses nothing.

use super::fault;
use crate::{Client, Pool, PoolConfig, Role, Spawn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Queues `n` cleanups that count themselves.
pub(super) fn queue(client: &Client, n: u32) -> Arc<AtomicU32> {
    let ran = Arc::new(AtomicU32::new(0));
    let mut registrar = client.registrar();
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    for _ in 0..n {
        let ran = ran.clone();
        let (head, _) = registrar.register(None, move || {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        local.push(head);
    }
    cycle.flush([local]);
    ran
}

#[test]
fn the_rest_of_its_block_goes_back_to_the_list() {
    let pool = Pool::new(PoolConfig::default(), None);
    let client = Client::new(&pool);
    let ran = queue(&client, 50);
    fault::arm(20);
    assert!(catch_unwind(AssertUnwindSafe(|| pool.run_pending(usize::MAX))).is_err());
    assert_eq!(ran.load(Ordering::Relaxed), 19);
    assert!(!crate::in_cleanup());
    let stats = pool.stats();
    assert_eq!((stats.blocks, stats.backlog, stats.running), (1, 31, 0));
    assert_eq!(client.ticket().pending(), 31);
    assert_eq!(pool.run_pending(usize::MAX), 31);
    assert_eq!(ran.load(Ordering::Relaxed), 50);
    assert!(client.ticket().is_done());
}

/// Starts threads of which the first dies after its tenth cleanup.
struct Mortal(Mutex<u32>);

impl Spawn for Mortal {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if role == Role::Monitor {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut spawned = self.0.lock().unwrap();
        *spawned += 1;
        let first = *spawned == 1;
        std::thread::spawn(move || {
            if first {
                fault::arm(10);
            }
            run();
        });
        Ok(())
    }
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let config = PoolConfig { max_workers: 1, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(Mortal(Mutex::new(0)))));
    let client = Client::new(&pool);
    let ran = queue(&client, 1000);
    client.ticket().wait(Duration::from_secs(60)).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1000);
    assert_eq!(pool.stats().workers, 1);
    pool.begin_shutdown();
    assert!(pool.wait_until_workers_left(Duration::from_secs(60)));
}
