//! Common parts of the models: loom's explorer, and the scenario of producers, workers and their
//! queue.

use crate::Pool;
use crate::protocol::queue::Queue;
use crate::protocol::sleep::{Demand, Parking, WorkerId};
use sexton_sync::{Arc, Condvar, Mutex, thread};
#[cfg(loom)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Explores every interleaving with at most two preemptions; `LOOM_MAX_PREEMPTIONS` sets another
/// bound.
#[cfg(loom)]
pub(super) fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 10_000;
    let tried = AtomicUsize::new(0);
    builder.check(move || {
        // `.ci/mutants.sh` asks for this line.
        if tried.fetch_add(1, Ordering::Relaxed) == 1 {
            println!("the first schedule passes");
        }
        model();
    });
}

/// The items that each producer publishes: rounds, and in each round a number of items at a time.
/// After a round the producers wait until everything has been taken. So each round ends with a
/// publication that has no next one to cover up for a lost wake-up.
pub(super) type Rounds = &'static [&'static [u32]];

/// `producers` threads publish items for at most `workers` workers. Everything has to be taken,
/// once, before the workers are asked to leave. Then all of them leave.
pub(super) fn deliver(workers: usize, producers: u32, rounds: Rounds) {
    scenario(Queue::new(workers, None), 1, producers, rounds);
}

/// Likewise, with workers who leave whenever they find nothing to do.
pub(super) fn deliver_to_the_impatient(workers: usize, producers: u32, rounds: Rounds) {
    scenario(Queue::new(workers, Some(Duration::ZERO)), 1, producers, rounds);
}

/// Likewise, but each worker holds its item until all workers have one. So it is not enough that
/// one worker is awake and will come to everything in the end. Each round has to publish a multiple
/// of `workers` items.
pub(super) fn deliver_at_once(workers: usize, producers: u32, rounds: Rounds) {
    scenario(Queue::new(workers, None), workers, producers, rounds);
}

fn scenario(queue: Queue<u32>, at_once: usize, producers: u32, rounds: Rounds) {
    let queue = Arc::new(queue);
    let taken = Arc::new(Taken { at_once, ..Taken::default() });
    let each: u32 = rounds.iter().flat_map(|portions| portions.iter()).sum();
    let produce = move |producer: u32, queue: &Arc<Queue<u32>>, taken: &Arc<Taken>| {
        let mut published = 0;
        for portions in rounds {
            for portion in portions.iter() {
                let first = producer * each + published;
                let demand = queue.publish(first..first + portion);
                start_workers(queue, taken, demand);
                published += portion;
            }
            taken.wait_for((producers * published) as usize);
        }
    };
    let others: Vec<_> = (1..producers)
        .map(|producer| {
            let (queue, taken) = (queue.clone(), taken.clone());
            thread::spawn(move || produce(producer, &queue, &taken))
        })
        .collect();
    produce(0, &queue, &taken);
    for other in others {
        other.join().expect("a producer");
    }
    assert_eq!(taken.sorted(), (0..producers * each).collect::<Vec<_>>(), "each item once");
    queue.sleep().shutdown();
    end(&queue);
}

/// Every worker leaves, and nothing is left.
fn end(queue: &Queue<u32>) {
    assert!(queue.sleep().wait_until_left(None));
    let numbers = queue.sleep().numbers();
    assert_eq!((numbers.workers, numbers.asleep), (0, 0));
    assert_eq!(queue.len(), 0);
}

/// A shutdown begins when two items have been published: both are taken before the worker leaves.
#[cfg(loom)]
pub(super) fn shut_down() {
    let queue = Arc::new(Queue::new(1, None));
    let taken = Arc::new(Taken::default());
    for item in 0..2 {
        let demand = queue.publish([item]);
        start_workers(&queue, &taken, demand);
    }
    queue.sleep().shutdown();
    end(&queue);
    assert_eq!(taken.sorted(), [0, 1]);
}

/// The bound is lowered from two to one while two workers fall asleep; an item is published before
/// that, or when those who stayed sleep.
#[cfg(loom)]
pub(super) fn shrink(asleep: bool) {
    let queue = Arc::new(Queue::new(2, None));
    let taken = Arc::new(Taken::default());
    let publish = |items: &[u32]| {
        let demand = queue.publish(items.iter().copied());
        start_workers(&queue, &taken, demand);
    };
    publish(&[0, 1]);
    taken.wait_for(2);
    if asleep {
        queue.sleep().set_max(1);
        while queue.sleep().numbers().asleep < queue.sleep().numbers().workers {
            thread::yield_now();
        }
        publish(&[2]);
    } else {
        publish(&[2]);
        queue.sleep().set_max(1);
    }
    taken.wait_for(3);
    queue.sleep().shutdown();
    end(&queue);
}

/// Starts the workers that a publish demands, as a pool does.
fn start_workers(queue: &Arc<Queue<u32>>, taken: &Arc<Taken>, demand: Demand) {
    for id in demand.0 {
        let (queue, taken) = (queue.clone(), taken.clone());
        thread::spawn(move || work(&queue, &taken, id));
    }
}

/// The worker's loop, the real one but for what it does with an item.
fn work(queue: &Queue<u32>, taken: &Taken, id: WorkerId) {
    queue.started(id);
    let parking = Parking::new(id);
    while let Some(item) = queue.next(&parking) {
        taken.note(item);
    }
}

/// Counts what has been taken, and lets a thread wait for a number.
#[derive(Default)]
struct Taken {
    items: Mutex<Vec<u32>>,
    condvar: Condvar,
    /// How many have to be taken before one is done with.
    at_once: usize,
}

impl Taken {
    fn note(&self, item: u32) {
        let mut items = self.items.lock();
        items.push(item);
        let n = items.len();
        drop(items);
        self.condvar.notify_all();
        if self.at_once > 1 {
            self.wait_for(n.next_multiple_of(self.at_once));
        }
    }

    /// Waits until `n` items were taken. If they never are, the checker reports the deadlock.
    fn wait_for(&self, n: usize) {
        let mut items = self.items.lock();
        while items.len() < n {
            self.condvar.wait(&mut items);
        }
    }

    fn sorted(&self) -> Vec<u32> {
        let mut items = self.items.lock().clone();
        items.sort_unstable();
        items
    }
}

/// Requeues the tail of every block in hand, as the monitor does with one that has stalled.
pub(super) fn take_tails(pool: &Pool) {
    for in_flight in pool.runners().all() {
        if let Some(snapshot) = in_flight.snapshot(Instant::now()) {
            pool.requeue_tail(&in_flight, Some(snapshot.at));
        }
    }
}

/// A whole cycle that finds one object dead.
#[cfg(loom)]
pub(super) fn sweep_one(client: &crate::Client, head: crate::Head) {
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    local.push(head);
    cycle.flush([local]);
}
