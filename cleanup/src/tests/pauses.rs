//! A pause at every step of sleep and wake: a thread stops there, for however long, the others go
//! on, and nothing is left behind.

use super::pause::Pause;
use crate::protocol::queue::Queue;
use crate::protocol::sleep::{Demand, Parking, WorkerId};
use crate::{Cleanup, CleanupState, Client, Pool, PoolConfig, Role, Spawn};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// A queue with real threads for its workers.
#[derive(Clone)]
struct Rig {
    queue: Arc<Queue<u32>>,
    taken: Arc<Mutex<Vec<u32>>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Where the next worker to be started pauses.
    next: Arc<Mutex<Option<Arc<Pause>>>>,
}

impl Rig {
    fn new(workers: usize, keep_alive: Option<Duration>) -> Self {
        Rig {
            queue: Arc::new(Queue::new(workers, keep_alive)),
            taken: Arc::default(),
            threads: Arc::default(),
            next: Arc::default(),
        }
    }

    fn publish(&self, item: u32) {
        let demand = self.queue.publish([item]);
        self.start_workers(demand);
    }

    fn start_workers(&self, demand: Demand) {
        for id in demand.0 {
            let rig = self.clone();
            let pause = self.next.lock().unwrap().take();
            let thread = std::thread::spawn(move || rig.work(id, pause));
            self.threads.lock().unwrap().push(thread);
        }
    }

    fn work(&self, id: WorkerId, pause: Option<Arc<Pause>>) {
        pause.iter().for_each(Pause::arm);
        self.queue.started(id);
        let parking = Parking::new(id);
        while let Some(item) = self.queue.next(&parking) {
            self.taken.lock().unwrap().push(item);
            if item == DIE {
                let demand = self.queue.lost(id);
                return self.start_workers(demand);
            }
        }
    }

    fn has(&self, n: usize) -> bool {
        self.taken.lock().unwrap().len() == n
    }

    fn wait_for(&self, n: usize, what: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.has(n) {
            let (taken, numbers) =
                (self.taken.lock().unwrap().clone(), self.queue.sleep().numbers());
            assert!(Instant::now() < deadline, "{what}: {taken:?} taken, and then {numbers:?}");
            std::thread::yield_now();
        }
    }

    /// Every worker leaves, and each of `0..n` was taken once.
    fn end(self, n: u32, what: &str) {
        self.wait_for(n as usize, what);
        self.queue.sleep().shutdown();
        assert!(self.queue.sleep().wait_until_left(Instant::now().checked_add(DEADLINE)), "{what}");
        loop {
            let Some(thread) = self.threads.lock().unwrap().pop() else { break };
            thread.join().expect("a worker");
        }
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort_unstable();
        assert_eq!(taken, (0..n).collect::<Vec<_>>(), "{what}");
        assert_eq!(self.queue.len(), 0);
    }
}

/// An item whose worker dies.
const DIE: u32 = 0;

/// The worker stops at the step; a producer publishes meanwhile. Only when it has, or hangs at the
/// lock that the worker holds, the worker goes on.
fn worker_pauses(workers: usize, keep_alive: Option<Duration>, step: &'static str) -> bool {
    let what = format!("worker paused at {step}, {workers} workers");
    let rig = Rig::new(workers, keep_alive);
    let pause = Pause::at(step);
    *rig.next.lock().unwrap() = Some(pause.clone());
    rig.publish(1);
    // It comes to all steps on its own but those of its death, for which it needs an item that
    // kills it.
    let dies = matches!(step, "L1" | "L2");
    let reached = pause.is_reached(|| dies && rig.queue.sleep().numbers().asleep > 0);
    let other = rig.clone();
    let producer = std::thread::spawn(move || {
        other.publish(2);
        other.publish(3);
    });
    // No test can tell when a thread waits for a lock. But whether it has finished or not, nothing
    // may be lost.
    for _ in 0..1000 {
        std::thread::yield_now();
    }
    pause.release();
    producer.join().expect("the producer");
    rig.publish(0);
    rig.end(4, &what);
    reached
}

/// The producer stops at the step; workers come and go, and another producer publishes.
fn producer_pauses(workers: usize, step: &'static str) -> bool {
    let what = format!("producer paused at {step}, {workers} workers");
    let rig = Rig::new(workers, None);
    rig.publish(1);
    rig.wait_for(1, &what);
    let pause = Pause::at(step);
    let (first, second) = (rig.clone(), rig.clone());
    let armed = pause.clone();
    let paused = std::thread::spawn(move || {
        armed.arm();
        first.publish(2);
    });
    let reached = pause.is_reached(|| paused.is_finished());
    let other = std::thread::spawn(move || {
        second.publish(3);
        second.publish(0);
    });
    for _ in 0..1000 {
        std::thread::yield_now();
    }
    pause.release();
    paused.join().expect("the paused producer");
    other.join().expect("the other producer");
    rig.end(4, &what);
    reached
}

#[test]
fn a_worker_may_pause_at_every_step_of_claim_sleep_and_death() {
    for workers in [1, 2] {
        for step in ["C1", "C2", "S1", "S2", "S3", "S4", "S5", "S6"] {
            assert!(worker_pauses(workers, None, step), "the worker never came to {step}");
        }
        for step in ["L1", "L2"] {
            worker_pauses(workers, None, step);
        }
    }
}

#[test]
fn a_worker_may_pause_at_every_step_of_retiring() {
    for workers in [1, 2] {
        for step in ["R1", "R3"] {
            let keep_alive = Some(Duration::from_millis(1));
            assert!(worker_pauses(workers, keep_alive, step), "the worker never came to {step}");
        }
    }
}

#[test]
fn a_producer_may_pause_at_every_step_of_publish_and_wake() {
    for workers in [1, 2] {
        for step in ["P1", "P2", "P3", "P4"] {
            assert!(producer_pauses(workers, step), "the producer never came to {step}");
        }
        // Whether it wakes a worker depends on where that is; often enough it does.
        for step in ["W1", "W2", "W3", "W4", "W5"] {
            let reached = (0..20).filter(|_| producer_pauses(workers, step)).count();
            assert!(reached > 0, "the producer never came to {step}");
        }
    }
}

/// Two workers have found no work and are about to sleep when the bound is lowered to one. The one
/// too many must not go to sleep: woken for an item, it would leave without it.
#[test]
fn a_worker_that_becomes_surplus_on_its_way_to_sleep_leaves() {
    let rig = Rig::new(2, None);
    let demand = rig.queue.publish([1, 2]).0;
    assert_eq!(demand.len(), 2);
    assert!(rig.queue.try_next().is_some() && rig.queue.try_next().is_some());
    let pauses = demand.into_iter().map(|id| {
        let pause = Pause::at("S1");
        let (rig, armed) = (rig.clone(), pause.clone());
        let thread = rig.clone();
        rig.threads.lock().unwrap().push(std::thread::spawn(move || thread.work(id, Some(armed))));
        pause
    });
    let pauses: Vec<_> = pauses.collect();
    pauses.iter().for_each(|pause| assert!(pause.is_reached(|| false)));
    rig.queue.sleep().set_max(1);
    pauses.iter().for_each(|pause| pause.release());
    let deadline = Instant::now() + DEADLINE;
    while rig.queue.sleep().numbers().asleep != rig.queue.sleep().numbers().workers {
        assert!(Instant::now() < deadline, "{:?}", rig.queue.sleep().numbers());
        std::thread::yield_now();
    }
    assert!(rig.queue.sleep().numbers().workers <= 1);
    rig.publish(0);
    rig.end(1, "after the bound was lowered");
}

/// Starts threads for a real pool.
struct Plain;

impl Spawn for Plain {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if role == Role::Monitor {
            return Err(io::ErrorKind::Unsupported.into());
        }
        std::thread::spawn(run);
        Ok(())
    }
}

/// Queues one cleanup.
fn queue(client: &Client) -> Cleanup {
    let (head, handle) = client.registrar().register(None, || {});
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    local.push(head);
    cycle.flush([local]);
    handle
}

/// A publisher stops between its push and the length. Another one publishes behind it, and the
/// worker that takes its unit gets the other's block. A shutdown then must not take the list for
/// empty.
#[test]
fn a_block_that_was_overtaken_runs_before_a_shutdown_ends() {
    let config = PoolConfig { max_workers: 1, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(Plain)));
    let [slow, quick] = [Client::new(&pool), Client::new(&pool)];
    let pause = Pause::at("P2");
    let armed = pause.clone();
    let publisher = std::thread::spawn(move || {
        armed.arm();
        queue(&slow)
    });
    assert!(pause.is_reached(|| publisher.is_finished()));
    let overtaken = queue(&quick);
    let deadline = Instant::now() + DEADLINE;
    while quick.pool().stats().executed == 0 {
        assert!(Instant::now() < deadline, "the other block ran in its place");
        std::thread::yield_now();
    }
    assert_eq!(overtaken.state(), CleanupState::Queued);
    pool.begin_shutdown();
    let waiting = pool.clone();
    let waiter = std::thread::spawn(move || waiting.wait_until_workers_left(DEADLINE));
    while pool.stats().workers > 0 {
        assert!(Instant::now() < deadline, "the worker finds nothing and leaves");
        std::thread::yield_now();
    }
    assert!(!waiter.is_finished());
    pause.release();
    let published = publisher.join().expect("the publisher");
    assert!(waiter.join().expect("the waiter"));
    assert_eq!(pool.discard_pending(), 0);
    assert_eq!((overtaken.state(), published.state()), (CleanupState::Done, CleanupState::Done));
}

/// Starts workers; from a moment on, each start takes until the worker has come and gone.
#[derive(Clone, Default)]
struct ComeAndGone {
    at_once: Arc<AtomicBool>,
}

impl Spawn for ComeAndGone {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if role == Role::Monitor {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let thread = std::thread::spawn(run);
        if self.at_once.load(Ordering::SeqCst) {
            thread.join().expect("a worker");
        }
        Ok(())
    }
}

/// Two publishers stop between their push and the length; a third block is behind theirs. The
/// worker that a shutdown demands takes another block than the one it was demanded for, and is gone
/// when the shutdown looks for it. That is not a start that failed.
#[test]
fn a_worker_that_came_and_went_does_not_end_a_shutdown() {
    let config = PoolConfig { max_workers: 1, ..PoolConfig::default() };
    let spawn = ComeAndGone::default();
    let pool = Pool::new(config, Some(Box::new(spawn.clone())));
    let quick = Client::new(&pool);
    let mut slow: Vec<_> = (0..2)
        .map(|_| {
            let client = Client::new(&pool);
            let pause = Pause::at("P2");
            let armed = pause.clone();
            let publisher = std::thread::spawn(move || {
                armed.arm();
                queue(&client)
            });
            assert!(pause.is_reached(|| publisher.is_finished()));
            (pause, publisher)
        })
        .collect();
    let overtaken = queue(&quick);
    let deadline = Instant::now() + DEADLINE;
    while pool.stats().executed == 0 {
        assert!(Instant::now() < deadline, "another block ran in its place");
        std::thread::yield_now();
    }
    spawn.at_once.store(true, Ordering::SeqCst);
    pool.begin_shutdown();
    let waiting = pool.clone();
    let waiter = std::thread::spawn(move || waiting.wait_until_workers_left(DEADLINE));
    while pool.stats().workers > 0 {
        assert!(Instant::now() < deadline, "the worker finds nothing and leaves");
        std::thread::yield_now();
    }
    let (pause, second) = slow.pop().expect("the second publisher");
    slow[0].0.release();
    while pool.stats().executed < 2 {
        assert!(Instant::now() < deadline, "the second block runs");
        std::thread::yield_now();
    }
    assert!(!waiter.is_finished(), "a block is still in the list");
    pause.release();
    assert!(waiter.join().expect("the waiter"));
    assert_eq!(pool.discard_pending(), 0);
    assert_eq!(second.join().expect("the second publisher").state(), CleanupState::Done);
    for (_, publisher) in slow {
        assert_eq!(publisher.join().expect("the first publisher").state(), CleanupState::Done);
    }
    assert_eq!(overtaken.state(), CleanupState::Done);
}

/// A tail has been copied and not yet published when its first runner comes to a record that it
/// leaves to the copy, and goes. Then the copy is all there is, and it is in no list.
#[test]
fn a_shutdown_waits_for_a_tail_that_is_being_requeued() {
    let config = PoolConfig { max_workers: 1, stall_after: Duration::MAX, ..PoolConfig::default() };
    let pool = Pool::new(config, Some(Box::new(Plain)));
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (entered, enter) = std::sync::mpsc::channel();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let stalls = registrar.register(None, move || {
        entered.send(()).expect("the test waits");
        left.recv().expect("the test tells");
    });
    let stopped = registrar.register(None, || {});
    let last = registrar.register(None, || {});
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    [stalls.0, stopped.0, last.0].into_iter().for_each(|head| local.push(head));
    cycle.flush([local]);
    enter.recv().expect("the first one runs");

    let pause = Pause::at("T3");
    let (armed, taking) = (pause.clone(), pool.clone());
    let taker = std::thread::spawn(move || {
        armed.arm();
        let [in_flight] = &taking.runners().all()[..] else { panic!("one worker, one record") };
        taking.requeue_tail(in_flight, Some(1));
    });
    assert!(pause.is_reached(|| taker.is_finished()));
    assert!(stopped.1.stop());
    pool.begin_shutdown();
    leave.send(()).expect("the first one waits");
    let deadline = Instant::now() + DEADLINE;
    while pool.stats().workers > 0 {
        assert!(Instant::now() < deadline, "the worker leaves the rest to the copy");
        std::thread::yield_now();
    }
    let waiting = pool.clone();
    let waiter = std::thread::spawn(move || waiting.wait_until_workers_left(DEADLINE));
    for _ in 0..1000 {
        assert!(!waiter.is_finished(), "the copy is nowhere yet");
        std::thread::yield_now();
    }
    pause.release();
    taker.join().expect("the taker");
    assert!(waiter.join().expect("the waiter"));
    assert_eq!(pool.discard_pending(), 0);
    assert_eq!(last.1.state(), CleanupState::Done);
}
