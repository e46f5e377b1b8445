//! Stress: ten heaps with four producers each, while everything goes wrong that may.
//!
//! "Ten heaps by four producers" is read like this. A heap stays on its thread, so ten threads own
//! one heap after another. To each owner belong four threads that produce cleanups: they order them
//! through a channel, get the handles back, and stop, run early and hand on what they ordered,
//! while the owner collects. Cleanups order further ones in the same way, and build heaps of their
//! own. All of them share one to ten pools, over which comes the weather: a thread that moves
//! bounds, pauses pools, helps, lets stalled cleanups go, and shuts pools down amid the work.
//!
//! What is proved is what the ledger says in the end, and not what a thread has waited for. Each
//! cleanup has run once, or was stopped, or was discarded, and no two of these. Its captures were
//! dropped once. The pools' counters and panic hooks say the same. On the way:
//! - *A stall costs itself.* With a worker more than stalled cleanups, all others end, and no
//!   thread does more for it than look.
//! - *A wait has waited.* What was queued before it has ended after it.
//! - *No wake is lost.* In the end cleanups trickle into each pool, each when the one worker is
//!   about to fall asleep.
//!
//! Each round has a seed, from which all choices come; how the threads mix is new each time. A
//! failure names the seed, and says what each thread and each worker was at.
//! - `SEXTON_SEED=seed` begins with the round of that seed;
//! - `SEXTON_ROUNDS=number` runs that number of rounds. `.ci/soak.sh` runs many.

mod cast;
mod stage;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::hint;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use sexton_tests::settings::{number, rounds};

use self::stage::{House, Kind, Post, Stage};
use crate::world::{Node, heap_on};

const HEAPS: usize = 10;
const PRODUCERS: usize = 4;
/// The most orders of a producer, and the most cleanups of an order.
const ORDERS: usize = 20;
const ORDER: usize = 50;
/// How often cleanups trickle into a pool in the end.
const TRICKLE: usize = 100;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the rounds have seen.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    heaps: u64,
    pools: u64,
    cleanups: u64,
    ran: u64,
    ran_by_handle: u64,
    stopped: u64,
    discarded: u64,
    panicked: u64,
    stalls: u64,
    tails_taken_over: u64,
    shutdowns: u64,
    shutdowns_timed_out: u64,
    bounds_moved: u64,
    starts_failed: u64,
    workers_retired: u64,
    waits: u64,
    lulls: u64,
}

#[test]
fn ten_heaps_with_four_producers_each_lose_nothing_whatever_goes_wrong() {
    let base = number("SEXTON_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let tally: Arc<Mutex<Tally>> = Arc::default();
    let (start, rounds) = (Instant::now(), rounds());
    println!("stress: begins with SEXTON_SEED={base}");
    for round in 0..rounds {
        play(base.wrapping_add(round), &tally);
        let mut tally = tally.lock().unwrap();
        tally.rounds += 1;
        // Shows that a long run goes on.
        if tally.rounds.is_multiple_of(500) || tally.rounds == rounds {
            println!("stress: {:.1?}: {tally:#?}", start.elapsed());
        }
    }
}

/// One round.
fn play(seed: u64, tally: &Arc<Mutex<Tally>>) {
    let stage = Stage::new(seed, tally);
    run_threads(&stage, cast::parts(&stage));
    let ending = stage.clone();
    run_threads(&stage, vec![("the end".to_owned(), Box::new(move |post| end(&ending, post)))]);
}

/// What a thread does.
type Part = Box<dyn FnOnce(&Post) + Send>;

/// Runs threads, and watches over them: none is joined before all have left, so that a hang is a
/// failure.
fn run_threads(stage: &Stage, parts: Vec<(String, Part)>) {
    let (leave, left) = channel::<()>();
    let mut threads = Vec::new();
    for (name, part) in parts {
        let (post, leave) = (stage.post(name), leave.clone());
        threads.push(thread::spawn(move || {
            let _leave = leave;
            part(&post);
            post.at("left");
        }));
    }
    drop(leave);
    let deadline = Instant::now() + 3 * PATIENCE;
    while left.recv_timeout(Duration::from_millis(20)) != Err(RecvTimeoutError::Disconnected) {
        stage.end_if_faulty();
        if Instant::now() > deadline {
            stage.fail("the round does not end");
        }
    }
    for thread in threads {
        if thread.join().is_err() {
            stage.fail("a thread panicked");
        }
    }
    stage.end_if_faulty();
}

/// When all heaps have gone: pools come to rest, and the books are balanced.
fn end(stage: &Stage, post: &Post) {
    let houses = stage.houses();
    for house in &houses {
        quieten(stage, house, post);
    }
    post.at("balances the books");
    houses.iter().for_each(|house| house.balance(stage));
    stage.balance(&houses);
}

/// Sees a pool come to rest by itself, and ends it.
fn quieten(stage: &Stage, house: &House, post: &Post) {
    let closing = house.is_closing();
    if !closing {
        // Nothing is queued any more, and the gate is shut. There are workers enough: whatever can
        // end, ends.
        post.at("watches all but the stalled end");
        stage.watch("all but the stalled end", || {
            house.help_if_manual();
            stage.lines_of(house).all(|at| stage.has_ended(at) || stage.is_stalled(at))
        });
    }
    house.open_for_good();
    watch_rest(stage, house, post);
    if !closing {
        if house.floor > 0 {
            post.at("lets cleanups trickle in");
            trickle(stage, house);
        }
        watch_rest(stage, house, post);
        post.at("shuts a pool down");
        let result = house.pool.shutdown(PATIENCE);
        stage.check(result.is_ok(), || format!("pool {}: {result:?}", house.number));
    }
    post.at("watches the workers leave");
    stage.watch("the workers leave", || house.pool.stats().workers == 0);
}

fn watch_rest(stage: &Stage, house: &House, post: &Post) {
    post.at("watches a pool come to rest");
    stage.watch("the pool comes to rest", || {
        house.help_if_manual();
        let stats = house.pool.stats();
        (stats.backlog, stats.running, stats.blocks) == (0, 0, 0)
    });
}

/// Cleanups by twos: the second is queued about when the first ends, and its worker, the only one,
/// falls asleep. No other worker makes good for a wake that was lost.
fn trickle(stage: &Stage, house: &House) {
    house.pool.set_max_workers(1);
    let mut heap = heap_on(&house.pool);
    let mut rng = rng(stage.seed, 50 + house.number);
    let mut queue = |wait: &dyn Fn()| {
        let kind = Kind { house: house.number, local: false, panics: false, bomb: false };
        let (at, entry) = stage.line(kind)?;
        heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), move || entry.ran()));
        wait();
        heap.collect();
        Some(at)
    };
    let mut latency = Duration::ZERO;
    for step in 0..TRICKLE {
        let start = Instant::now();
        let Some(first) = queue(&|| {}) else { return };
        if step % 10 == 0 {
            // How long it takes to wake the worker.
            while !stage.has_ended(first) && start.elapsed() < LATE {
                hint::spin_loop();
            }
            latency = start.elapsed();
        } else {
            let pause = latency.mul_f64(1.5 * rng.f64());
            let second = queue(&|| while start.elapsed() < pause {});
            stage.watch("both cleanups end", || second.is_none_or(|at| stage.has_ended(at)));
        }
        stage.watch("one cleanup ends", || stage.has_ended(first));
    }
}

/// By then a worker has been woken; or this thread does better to sleep.
const LATE: Duration = Duration::from_micros(500);

/// A generator for one thread or cleanup of a round.
fn rng(seed: u64, which: usize) -> Rng {
    // The seeds of neighbours are far apart.
    let mut rng = Rng::with_seed(seed.rotate_left(32) ^ which as u64);
    rng.u64(..);
    rng.fork()
}
