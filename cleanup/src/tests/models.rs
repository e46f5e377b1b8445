//! What the models share: the explorer, and the scenario of producers, workers and their queue.

use crate::mutant::Mutant;
use crate::queue::Queue;
use crate::sleep::{Demand, Opening};
use crate::sync::{Arc, Condvar, Mutex};
use std::sync::Once;

/// Name of the threads whose panics are expected, and not printed.
const MUST_FAIL: &str = "must fail";

/// Explores every interleaving with at most two preemptions; `LOOM_MAX_PREEMPTIONS` sets another bound.
pub(super) fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Asserts that loom finds a failure, and not in the first interleaving: who never gets anything right has more
/// broken than one step. Gives its message.
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
    let tried = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let trying = tried.clone();
    let counted = move || {
        trying.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    };
    let outcome = std::thread::Builder::new()
        .name(MUST_FAIL.into())
        .spawn(move || explore(counted))
        .expect("a thread")
        .join();
    assert!(tried.load(std::sync::atomic::Ordering::Relaxed) > 1, "the first interleaving fails");
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
    while let Some(item) = queue.next(opening.index) {
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
    let queue = Arc::new(Queue::new(workers, mutant));
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
    assert!(queue.crew().wait_until_left(None));
    assert_eq!(queue.crew().numbers(), (0, 0, 0));
    assert_eq!(queue.len(), 0);
}
