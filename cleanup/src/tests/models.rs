//! What the models share: the explorer, and the scenario of producers, workers and their queue.

use crate::PoolConfig;
use crate::mutant::Mutant;
use crate::queue::Queue;
use crate::sleep::{Demand, Opening, Seat};
use crate::sync::{Arc, Condvar, Mutex};
use std::sync::Once;
use std::time::Duration;

/// Name of the threads whose panics are expected, and not printed.
const MUST_FAIL: &str = "must fail";

/// How a model's pool is: nothing in it stalls. A model that looks at the clock is another one on a busy machine.
pub(super) fn config() -> PoolConfig {
    PoolConfig { stall_after: Duration::MAX, ..PoolConfig::default() }
}

/// Explores every interleaving with at most two preemptions; `LOOM_MAX_PREEMPTIONS` sets another bound.
pub(super) fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Asserts that loom finds a failure; gives its message.
pub(super) fn finds_a_failure(model: impl Fn() + Sync + Send + 'static) -> String {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(MUST_FAIL) {
                print(info);
            }
        }));
    });
    let outcome = std::thread::Builder::new()
        .name(MUST_FAIL.into())
        .spawn(move || explore(model))
        .expect("a thread")
        .join();
    match outcome {
        Ok(()) => panic!("loom found nothing wrong"),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_string(),
        },
    }
}

/// Counts what has been taken, and lets a thread wait for a number.
#[derive(Default)]
pub(super) struct Taken {
    items: Mutex<Vec<u32>>,
    condvar: Condvar,
}

impl Taken {
    pub(super) fn note(&self, item: u32) {
        self.items.lock().push(item);
        self.condvar.notify_all();
    }

    /// Waits until `n` items were taken. If they never are, loom reports the deadlock.
    pub(super) fn wait_for(&self, n: usize) -> Vec<u32> {
        let mut items = self.items.lock();
        while items.len() < n {
            self.condvar.wait(&mut items);
        }
        let mut items = items.clone();
        items.sort_unstable();
        items
    }
}

/// The worker's loop, the real one but for what it does with an item.
fn work(queue: &Queue<u32>, taken: &Taken, opening: Opening) {
    queue.started(opening);
    let seat = Seat::new(opening);
    while let Some(item) = queue.next(&seat) {
        taken.note(item);
    }
}

/// Starts the workers that a publish demands, as a pool does.
fn fulfil(queue: &Arc<Queue<u32>>, taken: &Arc<Taken>, demand: Demand) {
    for opening in demand.0 {
        let (queue, taken) = (queue.clone(), taken.clone());
        loom::thread::spawn(move || work(&queue, &taken, opening));
    }
}

/// `producers` threads publish items one by one, `each` of them, to at most `workers` workers. Everything has
/// to be taken, once, before anybody asks the workers to leave; then all of them leave.
pub(super) fn deliver(workers: usize, producers: u32, each: u32, mutant: Mutant) {
    deliver_through(Queue::new(workers, None, mutant), producers, each);
}

/// The same with workers who leave whenever they find nothing to do.
pub(super) fn deliver_to_the_impatient(workers: usize, producers: u32, each: u32, mutant: Mutant) {
    deliver_through(Queue::new(workers, Some(Duration::ZERO), mutant), producers, each);
}

fn deliver_through(queue: Queue<u32>, producers: u32, each: u32) {
    let queue = Arc::new(queue);
    let taken = Arc::new(Taken::default());
    let produce = move |producer: u32, queue: &Arc<Queue<u32>>, taken: &Arc<Taken>| {
        for item in 0..each {
            let demand = queue.publish([producer * each + item]);
            fulfil(queue, taken, demand);
        }
    };
    let others: Vec<_> = (1..producers)
        .map(|producer| {
            let (queue, taken) = (queue.clone(), taken.clone());
            loom::thread::spawn(move || produce(producer, &queue, &taken))
        })
        .collect();
    produce(0, &queue, &taken);
    let all = taken.wait_for((producers * each) as usize);
    assert_eq!(all, (0..producers * each).collect::<Vec<_>>(), "each item once");
    for other in others {
        other.join().expect("a producer");
    }
    queue.crew().shutdown();
    end(&queue);
}

/// Everybody leaves, and nothing is left.
fn end(queue: &Queue<u32>) {
    assert!(queue.crew().wait_until_left(None));
    let numbers = queue.crew().numbers();
    assert_eq!((numbers.workers, numbers.asleep), (0, 0));
    assert_eq!(queue.len(), 0);
}

/// A shutdown begins when two items have been published: both are taken before the worker leaves.
pub(super) fn shut_down(mutant: Mutant) {
    let queue = Arc::new(Queue::new(1, None, mutant));
    let taken = Arc::new(Taken::default());
    for item in 0..2 {
        let demand = queue.publish([item]);
        fulfil(&queue, &taken, demand);
    }
    queue.crew().shutdown();
    end(&queue);
    assert_eq!(taken.wait_for(2), [0, 1]);
}

/// The bound is lowered from two to one while an item is published to two workers who have just started.
pub(super) fn shrink() {
    let queue = Arc::new(Queue::new(2, None, Mutant::None));
    let taken = Arc::new(Taken::default());
    let demand = queue.publish([0, 1]);
    assert!(queue.try_next().is_some() && queue.try_next().is_some());
    fulfil(&queue, &taken, demand);
    let demand = queue.publish([2]);
    assert!(demand.0.is_empty());
    queue.crew().set_max(1);
    assert_eq!(taken.wait_for(1), [2]);
    queue.crew().shutdown();
    end(&queue);
}
