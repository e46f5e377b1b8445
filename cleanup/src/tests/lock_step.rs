//! Lock-step: the races of the protocols on a real machine, as often as possible.
//!
//! The next item is published just when the worker, done with the last one, is on its way to sleep.
//! It comes a little earlier or later each time. These are the real queue and the real worker's
//! loop, without cleanups around them. They make hundreds of thousands of tries a second. A model
//! has every interleaving, but of a few steps only.
//!
//! A lost wake-up is not guessed at by a clock. When all publishers have returned, an unclaimed
//! item beside workers that are all asleep *is* one, and is found at once.

use crate::account::counters::Runner;
use crate::protocol::queue::Queue;
use crate::protocol::sleep::{Demand, Parking, WorkerId};
use crate::{Client, Pool, PoolConfig};
use sexton_sync::CachePadded;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rounds of the cheap scenarios: those in which no thread has to be found for a worker.
const ROUNDS: u64 = 200_000;

/// Longer than anything here takes. A lost wake-up is found long before; this is for what is not
/// thought of.
const DEADLINE: Duration = Duration::from_secs(30);

/// Lets a few hundred nanoseconds pass at most, another time each round, so that all moments have
/// their turn.
fn sweep(round: u64) {
    for step in 0..round * 7 % 509 {
        std::hint::black_box(step);
    }
}

/// Spins, about as long as a thread takes to wake up if there is a processor for it, and yields
/// from then on. Whether it has spun.
fn spin_or_yield(tries: &mut u32) -> bool {
    *tries = tries.saturating_add(1);
    let spins = *tries < 300;
    if spins {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
    spins
}

// ---- threads
// -------------------------------------------------------------------------------------------

/// Threads that become workers and cease to be, as often as needed, without being started each
/// time.
struct Hosts {
    jobs: Arc<(Mutex<Jobs>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Box<dyn FnOnce() + Send>>,
    end: bool,
}

impl Hosts {
    fn new(threads: usize) -> Self {
        let jobs = Arc::<(Mutex<Jobs>, Condvar)>::default();
        let threads = (0..threads)
            .map(|_| {
                let jobs = jobs.clone();
                std::thread::spawn(move || {
                    loop {
                        let wait = |jobs: &mut Jobs| jobs.queue.is_empty() && !jobs.end;
                        let mut jobs = jobs.1.wait_while(jobs.0.lock().unwrap(), wait).unwrap();
                        let Some(job) = jobs.queue.pop_front() else { return };
                        drop(jobs);
                        job();
                    }
                })
            })
            .collect();
        Hosts { jobs, threads: Mutex::new(threads) }
    }

    fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.0.lock().unwrap().queue.push_back(Box::new(job));
        self.jobs.1.notify_one();
    }

    /// Ends the threads. Those of a run that has failed may sleep for ever; they are left.
    fn end(&self, join: bool) {
        self.jobs.0.lock().unwrap().end = true;
        self.jobs.1.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap());
        if join {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    }
}

// ---- the scene
// -----------------------------------------------------------------------------------------

/// How the workers of a scene behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// They sleep when there is nothing to do.
    Stays,
    /// They leave as soon as they have slept for no time at all.
    Retires,
    /// They die after each item.
    Dies,
}

/// The scene that is tried, round after round.
#[derive(Clone, Copy, Debug)]
struct Scene {
    workers: usize,
    /// Threads that publish in the same moment.
    producers: usize,
    /// Items that each of them publishes at once.
    items: u64,
    life: Life,
    /// The bound goes down to nothing and up again behind each publish.
    bound_moves: bool,
    rounds: u64,
}

const PLAIN: Scene = Scene {
    workers: 1,
    producers: 1,
    items: 1,
    life: Life::Stays,
    bound_moves: false,
    rounds: ROUNDS,
};

struct Stage {
    queue: Queue<u64>,
    hosts: Arc<Hosts>,
    life: Life,
    /// Items taken, and their sum.
    taken: CachePadded<AtomicU64>,
    sum: AtomicU64,
    /// The round that producers may publish for.
    round: CachePadded<AtomicU64>,
    /// Publications of all rounds that have returned.
    published: CachePadded<AtomicU64>,
    /// The first failure.
    failure: Mutex<Option<String>>,
    failed: AtomicBool,
}

impl Stage {
    fn new(scene: Scene, hosts: &Arc<Hosts>) -> Arc<Self> {
        let keep_alive = (scene.life == Life::Retires).then_some(Duration::ZERO);
        Arc::new(Stage {
            queue: Queue::new(scene.workers, keep_alive),
            hosts: hosts.clone(),
            life: scene.life,
            taken: CachePadded::new(AtomicU64::new(0)),
            sum: AtomicU64::new(0),
            round: CachePadded::new(AtomicU64::new(0)),
            published: CachePadded::new(AtomicU64::new(0)),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
        })
    }

    fn fail(&self, what: String) {
        self.failure.lock().unwrap().get_or_insert(what);
        self.failed.store(true, Ordering::Release);
    }

    /// The state of the scene, for a message.
    fn describe(&self) -> String {
        let numbers = self.queue.sleep().numbers();
        format!(
            "{} items unclaimed, {} of at most {} workers, asleep: {:?}",
            self.queue.len(),
            numbers.workers,
            self.queue.sleep().max(),
            self.queue.sleep().sleepers(),
        )
    }

    /// Whether an item lies beside workers who are all asleep. Asked when no publisher is on its
    /// way.
    fn has_lost_a_wake_up(&self) -> bool {
        // In this order. No thread publishes, so an item that is unclaimed at the end was unclaimed
        // all the time.
        let asleep = self.queue.sleep().sleepers().len();
        let workers = self.queue.sleep().numbers().workers;
        asleep == workers && self.queue.len() > 0
    }

    /// Waits until `enough`. False if something has failed, or fails now: with `publications`, when
    /// all those have returned and a wake-up was lost.
    fn wait(&self, round: u64, publications: Option<u64>, enough: impl Fn() -> bool) -> bool {
        let mut tries = 0_u32;
        let mut deadline = None;
        while !enough() {
            if self.failed.load(Ordering::Acquire) {
                return false;
            }
            if spin_or_yield(&mut tries) || !tries.is_multiple_of(8) {
                continue;
            }
            if publications == Some(self.published.load(Ordering::Acquire))
                && self.has_lost_a_wake_up()
            {
                self.fail(format!("round {round}: a lost wake-up: {}", self.describe()));
                return false;
            }
            if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + DEADLINE) {
                self.fail(format!("round {round} does not end: {}", self.describe()));
                return false;
            }
        }
        true
    }
}

/// The text of a panic's payload.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// The worker's loop, the real one but for what it does with an item.
fn work(stage: &Arc<Stage>, id: WorkerId) {
    let queue = &stage.queue;
    queue.started(id);
    let parking = Parking::new(id);
    let worked = catch_unwind(AssertUnwindSafe(|| {
        while let Some(item) = queue.next(&parking) {
            stage.sum.fetch_add(item, Ordering::Relaxed);
            stage.taken.fetch_add(1, Ordering::Release);
            // It takes a publisher on another processor some time to see this, and the worker to
            // see what it publishes then. In that time the worker would have fallen asleep.
            sweep(item);
            if stage.life == Life::Dies {
                let demand = queue.lost(id);
                start_workers(stage, demand);
                return;
            }
        }
    }));
    if let Err(payload) = worked {
        stage.fail(format!("a worker panicked: {}", message(&*payload)));
    }
}

/// Finds threads for the workers that a publish demands, as a pool does.
fn start_workers(stage: &Arc<Stage>, demand: Demand) {
    for id in demand.0 {
        let worker = stage.clone();
        stage.hosts.run(move || work(&worker, id));
    }
}

/// One producer's part of a round.
fn publish(scene: Scene, stage: &Arc<Stage>, round: u64) {
    let demand = stage.queue.publish((0..scene.items).map(|_| round));
    start_workers(stage, demand);
    if scene.bound_moves {
        for bound in [0, scene.workers] {
            stage.queue.sleep().set_max(bound);
            let demand = stage.queue.notify_workers();
            start_workers(stage, demand);
        }
    }
    stage.published.fetch_add(1, Ordering::Release);
}

/// Plays a scene, on this thread as the first producer. How many rounds went well, and what went
/// wrong.
fn play(scene: Scene) -> (u64, Option<String>) {
    let hosts = Arc::new(Hosts::new(scene.workers));
    let stage = Stage::new(scene, &hosts);
    let others: Vec<_> = (1..scene.producers)
        .map(|_| {
            let stage = stage.clone();
            std::thread::spawn(move || {
                for round in 1..=scene.rounds {
                    if !stage.wait(round, None, || stage.round.load(Ordering::Acquire) >= round) {
                        return;
                    }
                    publish(scene, &stage, round);
                }
            })
        })
        .collect();
    let each = scene.producers as u64 * scene.items;
    let mut went_well = 0;
    for round in 1..=scene.rounds {
        stage.round.store(round, Ordering::Release);
        publish(scene, &stage, round);
        let enough = || stage.taken.load(Ordering::Acquire) >= round * each;
        if !stage.wait(round, Some(round * scene.producers as u64), enough) {
            break;
        }
        went_well = round;
    }
    others.into_iter().for_each(|producer| producer.join().unwrap());
    if went_well == scene.rounds {
        stage.queue.sleep().shutdown();
        if !stage.queue.sleep().wait_until_left(Some(Instant::now() + DEADLINE)) {
            stage.fail(format!("workers are still there: {}", stage.describe()));
        }
        let sum = each * scene.rounds * (scene.rounds + 1) / 2;
        if stage.sum.load(Ordering::Relaxed) != sum || stage.queue.len() > 0 {
            stage.fail(format!("not each item was taken once: {}", stage.describe()));
        }
        let numbers = stage.queue.sleep().numbers();
        if (numbers.workers, numbers.asleep) != (0, 0) {
            stage.fail(format!("the numbers are wrong at the end: {numbers:?}"));
        }
    }
    let failure = stage.failure.lock().unwrap().take();
    hosts.end(failure.is_none());
    (went_well, failure)
}

// ---- the end of a pool
// ---------------------------------------------------------------------------------

/// A queue of its own each round: two items are published, and a shutdown begins. It begins at
/// once, or when one or both have been taken, or just behind the second one. That is published
/// while the worker falls asleep. Both are taken, and every worker leaves. How many rounds went
/// well, and what went wrong.
fn shut_down(workers: usize, rounds: u64) -> (u64, Option<String>) {
    let hosts = Arc::new(Hosts::new(workers));
    for round in 0..rounds {
        let stage = Stage::new(Scene { workers, ..PLAIN }, &hosts);
        let publish = |publication| {
            let demand = stage.queue.publish([round]);
            start_workers(&stage, demand);
            stage.published.store(publication, Ordering::Release);
        };
        let taken = |n| {
            let published = stage.published.load(Ordering::Acquire);
            stage.wait(round, Some(published), || stage.taken.load(Ordering::Acquire) >= n)
        };
        publish(1);
        let goes_on = match round % 4 {
            0 => {
                publish(2);
                true
            }
            1 => {
                publish(2);
                taken(1)
            }
            2 => {
                taken(1) && {
                    publish(2);
                    true
                }
            }
            _ => {
                publish(2);
                taken(2)
            }
        };
        if goes_on {
            stage.queue.sleep().shutdown();
            if !stage.queue.sleep().wait_until_left(Some(Instant::now() + DEADLINE)) {
                stage.fail(format!("round {round}: workers stay: {}", stage.describe()));
            } else if stage.taken.load(Ordering::Acquire) != 2 {
                stage.fail(format!("round {round}: not drained: {}", stage.describe()));
            }
        }
        let failure = stage.failure.lock().unwrap().take();
        if failure.is_some() {
            hosts.end(false);
            return (round, failure);
        }
    }
    hosts.end(true);
    (rounds, None)
}

// ---- the monitor
// ---------------------------------------------------------------------------------------

/// A runner takes a block up just when the monitor falls dormant. The monitor sees it, or is
/// called. How many rounds went well, and what went wrong.
fn fall_dormant(rounds: u64) -> (u64, Option<String>) {
    let pool = Pool::new(PoolConfig::default(), None);
    let client = Client::new(&pool);
    let cycle = client.begin_cycle();
    let mut local = cycle.local_block();
    local.push(client.registrar().register(None, || {}).0);
    cycle.flush([local]);
    let queued = pool.queue().try_next().expect("one block");
    let in_flight = pool.runners().add(Runner::Worker(0));
    assert!(pool.watch().call(), "there is no monitor yet");
    let round = Arc::new(CachePadded::new(AtomicU64::new(0)));
    let seen = Arc::new(CachePadded::new(AtomicU64::new(0)));
    let monitor = {
        let (pool, round, seen) = (pool.clone(), round.clone(), seen.clone());
        std::thread::spawn(move || {
            // Ends when it is told to.
            while pool.watch().fall_dormant(None, || pool.is_watched()) {
                let (mut now, mut tries) = (round.load(Ordering::Acquire), 0);
                while pool.is_watched() {
                    seen.store(now, Ordering::Release);
                    spin_or_yield(&mut tries);
                    now = round.load(Ordering::Acquire);
                }
            }
        })
    };
    let mut answer = (rounds, None);
    for now in 1..=rounds {
        // As long as the monitor takes to see that the last one has ended, and to say that it is
        // dormant.
        sweep(now);
        round.store(now, Ordering::Release);
        in_flight.begin(&queued);
        in_flight.is_to_be_watched(|_| true);
        let called_in_vain = pool.watch().begins();
        let deadline = Instant::now() + DEADLINE;
        let mut tries = 0_u32;
        while seen.load(Ordering::Acquire) < now && Instant::now() < deadline {
            spin_or_yield(&mut tries);
        }
        in_flight.end();
        if called_in_vain || seen.load(Ordering::Acquire) < now {
            answer =
                (now - 1, Some(format!("round {now}: a block in hand beside a dormant monitor")));
            break;
        }
    }
    pool.watch().stop();
    monitor.join().unwrap();
    pool.publish([queued]);
    assert_eq!(pool.run_pending(1), 1);
    answer
}

// ---- the promises
// --------------------------------------------------------------------------------------

/// One of these at a time: they need two processors for themselves.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays a scene in which all has to go well, with one worker and with three.
#[track_caller]
fn goes_well(scene: Scene) {
    let _alone = alone();
    // With several the moment is hit more rarely: some other one is awake.
    for (workers, rounds) in [(1, scene.rounds), (3, scene.rounds / 10)] {
        let scene = Scene { workers, rounds, ..scene };
        if let (rounds, Some(failure)) = play(scene) {
            panic!("after {rounds} rounds of {scene:?}: {failure}");
        }
    }
}

#[test]
fn no_item_published_while_a_worker_falls_asleep_is_missed() {
    goes_well(PLAIN);
}

#[test]
fn no_item_of_two_publishers_is_missed() {
    goes_well(Scene { producers: 2, rounds: ROUNDS / 10, ..PLAIN });
}

#[test]
fn no_item_of_many_published_at_once_is_missed() {
    goes_well(Scene { producers: 2, items: 5, rounds: ROUNDS / 40, ..PLAIN });
}

#[test]
fn no_item_published_while_a_worker_retires_is_missed() {
    goes_well(Scene { life: Life::Retires, rounds: ROUNDS / 10, ..PLAIN });
}

#[test]
fn no_item_published_while_a_worker_dies_is_missed() {
    goes_well(Scene { life: Life::Dies, rounds: ROUNDS / 10, ..PLAIN });
}

#[test]
fn no_item_published_while_the_bound_moves_is_missed() {
    goes_well(Scene { bound_moves: true, rounds: ROUNDS / 10, ..PLAIN });
}

#[test]
fn a_shutdown_at_any_moment_drains_the_list_and_leaves_nobody_behind() {
    let _alone = alone();
    for workers in [1, 3] {
        if let (rounds, Some(failure)) = shut_down(workers, ROUNDS / 10) {
            panic!("after {rounds} rounds with {workers} workers: {failure}");
        }
    }
}

#[test]
fn no_block_taken_up_while_the_monitor_falls_dormant_is_missed() {
    let _alone = alone();
    if let (rounds, Some(failure)) = fall_dormant(ROUNDS / 4) {
        panic!("after {rounds} rounds: {failure}");
    }
}
