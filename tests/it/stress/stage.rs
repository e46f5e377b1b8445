//! What a round is played on: its pools, its ledger, and what each thread is at.
//!
//! Invariant: a check that fails is written down as a fault. An assertion within a cleanup would be
//! a panic among others.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use sexton::{Cleanup, CleanupPool, CleanupState};

use super::{HEAPS, ORDER, ORDERS, PATIENCE, PRODUCERS, Tally, rng};
use crate::dying::throw_bomb;
use crate::ledger::{Entry, Ledger};
use crate::world::Gate;

/// Room for what producers order, and half as many that cleanups order.
const LINES: usize = HEAPS * PRODUCERS * ORDERS * ORDER * 3 / 2;

/// The name of all workers.
const WORKER: &str = "stressed";

pub(super) struct Stage {
    pub(super) seed: u64,
    pub(super) tally: Arc<Mutex<Tally>>,
    ledger: Ledger,
    lines: Box<[Line]>,
    /// How many lines are in use.
    used: AtomicUsize,
    /// All pools there have been; the last is open.
    houses: Mutex<Vec<Arc<House>>>,
    /// Pools that may still be shut down amid the work.
    storms: AtomicUsize,
    /// What producers keep to the end.
    kept: Mutex<Vec<Held>>,
    faults: Mutex<Vec<String>>,
    posts: Mutex<Vec<(String, Post)>>,
}

/// What a thread is at.
#[derive(Clone)]
pub(super) struct Post(Arc<Mutex<&'static str>>);

impl Post {
    pub(super) fn at(&self, what: &'static str) {
        *self.0.lock().unwrap() = what;
    }
}

/// What is known of a cleanup beside its runs and drops.
#[derive(Default)]
struct Line {
    kind: OnceLock<Kind>,
    /// How often `stop` said that it has stopped it, and `run_now` that it has run it.
    stopped: AtomicU8,
    run_by_handle: AtomicU8,
    /// Threads that are about to end it by its handle.
    in_hand: AtomicU8,
    /// It waits at the gate.
    stalled: AtomicBool,
    /// Its object lived until its heap was dropped, and that heap does not run those.
    outlived: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Its pool.
    pub(super) house: usize,
    pub(super) local: bool,
    /// Its run panics.
    pub(super) panics: bool,
    /// The drop of its captures panics.
    pub(super) bomb: bool,
}

/// What has become of a cleanup.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Ran,
    RanByHandle,
    Stopped,
    Discarded,
}

/// A cleanup's line, and its handle.
pub(super) type Held = (usize, Arc<Cleanup>);

impl Stage {
    pub(super) fn new(seed: u64, tally: &Arc<Mutex<Tally>>) -> Arc<Stage> {
        let mut rng = rng(seed, usize::MAX);
        let stage = Arc::new(Stage {
            seed,
            tally: tally.clone(),
            ledger: Ledger::new(LINES),
            lines: (0..LINES).map(|_| Line::default()).collect(),
            used: AtomicUsize::new(0),
            houses: Mutex::default(),
            storms: AtomicUsize::new(rng.usize(0..6)),
            kept: Mutex::default(),
            faults: Mutex::default(),
            posts: Mutex::default(),
        });
        for _ in 0..rng.usize(1..=HEAPS) {
            stage.open_house(&mut rng);
        }
        stage
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().unwrap());
    }

    // ---- pools
    // -------------------------------------------------------------------------------------

    fn open_house(&self, rng: &mut Rng) {
        self.count(|tally| tally.pools += 1);
        let mut houses = self.houses.lock().unwrap();
        let number = houses.len();
        houses.push(Arc::new(House::new(number, rng)));
    }

    pub(super) fn houses(&self) -> Vec<Arc<House>> {
        self.houses.lock().unwrap().clone()
    }

    /// Any pool, but not often one that has been shut down.
    pub(super) fn house(&self, rng: &mut Rng) -> Arc<House> {
        let houses = self.houses.lock().unwrap();
        let house = &houses[rng.usize(0..houses.len())];
        let last = &houses[houses.len() - 1];
        if house.is_closing() && rng.u32(0..4) > 0 { last.clone() } else { house.clone() }
    }

    /// Shuts a pool down, amid the work, unless there have been enough of that.
    pub(super) fn storm(&self, house: &House, rng: &mut Rng) {
        let left = self.storms.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if left.is_err() || house.closing.swap(true, SeqCst) {
            return;
        }
        self.open_house(rng);
        let patient = rng.bool();
        if patient {
            house.open();
        }
        let timeout = Duration::from_millis(rng.u64(0..10));
        let result = house.pool.shutdown(if patient { PATIENCE } else { timeout });
        self.count(|tally| tally.shutdowns += 1);
        // Without a worker left, the error is of what was discarded: in a manual pool, or because
        // it was queued too late.
        let timed_out = result.is_err_and(|end| end.workers > 0);
        if timed_out {
            self.count(|tally| tally.shutdowns_timed_out += 1);
        }
        self.check(!(patient && timed_out), || {
            format!("{result:?} though nothing stalls: {}", house.pool.dump())
        });
    }

    // ---- cleanups
    // ----------------------------------------------------------------------------------

    /// A line for one more cleanup, if there is room.
    pub(super) fn line(&self, kind: Kind) -> Option<(usize, Entry)> {
        let one_more = |used| (used < LINES).then_some(used + 1);
        let at = self.used.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        self.lines[at].kind.set(kind).expect("a new line");
        Some((at, self.ledger.entry(at)))
    }

    pub(super) fn lines_of(&self, house: &House) -> impl Iterator<Item = usize> {
        let number = house.number;
        // A line is in use a moment before it says whose it is.
        let kind = move |at: &usize| self.lines[*at].kind.get();
        (0..self.used.load(SeqCst)).filter(move |at| kind(at).is_none_or(|k| k.house == number))
    }

    pub(super) fn has_ended(&self, at: usize) -> bool {
        self.ledger.line(at).1 > 0
    }

    /// Whether it has ended, or is being ended by its handle: then it need not have been queued.
    pub(super) fn has_ended_or_is_in_hand(&self, at: usize) -> bool {
        // Looked at again: it may have left the hand in between.
        let in_hand = || self.lines[at].in_hand.load(SeqCst) > 0;
        self.has_ended(at) || in_hand() || self.has_ended(at)
    }

    pub(super) fn is_stalled(&self, at: usize) -> bool {
        self.lines[at].stalled.load(SeqCst)
    }

    /// Waits at the gate, unless as many do as may.
    pub(super) fn stall(&self, at: usize, house: &House) {
        // On a worker: a thread that helps has something else to do.
        let helps = thread::current().name().is_none_or(|name| !name.starts_with(WORKER));
        let one_more = |stalled| (stalled + 1 < house.floor).then_some(stalled + 1);
        if helps || house.stalled.fetch_update(SeqCst, SeqCst, one_more).is_err() {
            return;
        }
        let gate = house.gate.lock().unwrap().clone();
        // Later than that: the thread that closes says so first, and then opens the gate.
        if !house.is_closing() {
            self.count(|tally| tally.stalls += 1);
            self.lines[at].stalled.store(true, SeqCst);
            gate.pass();
            self.lines[at].stalled.store(false, SeqCst);
        }
        house.stalled.fetch_sub(1, SeqCst);
    }

    /// Tries to end a cleanup by its handle, and looks whether that did what it says.
    pub(super) fn meddle(&self, (at, handle): &Held, stop: bool) {
        let line = &self.lines[*at];
        line.in_hand.fetch_add(1, SeqCst);
        let took = if stop {
            // Though its captures panic it has been stopped. What they throw may panic again.
            catch_unwind(AssertUnwindSafe(|| handle.stop())).unwrap_or_else(|thrown| {
                mem::forget(thrown);
                true
            })
        } else {
            handle.run_now()
        };
        if took {
            let (count, runs) = if stop { (&line.stopped, 0) } else { (&line.run_by_handle, 1) };
            count.fetch_add(1, SeqCst);
            let found = self.ledger.line(*at);
            self.check(found == (runs, 1), || {
                format!("{} took cleanup {at}; its runs and drops: {found:?}", how(stop))
            });
        }
        line.in_hand.fetch_sub(1, SeqCst);
    }

    /// It was stopped by a handle that is none of ours.
    pub(super) fn was_stopped(&self, at: usize) {
        self.lines[at].stopped.fetch_add(1, SeqCst);
    }

    pub(super) fn outlives_its_heap(&self, at: usize) {
        self.lines[at].outlived.store(true, SeqCst);
    }

    pub(super) fn keep(&self, handles: Vec<Held>) {
        self.kept.lock().unwrap().extend(handles);
    }

    // ---- faults
    // ------------------------------------------------------------------------------------

    pub(super) fn post(&self, name: String) -> Post {
        let post = Post(Arc::new(Mutex::new("begins")));
        self.posts.lock().unwrap().push((name, post.clone()));
        post
    }

    pub(super) fn check(&self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.lock().unwrap().push(fault());
        }
    }

    /// Waits for something that is to come by itself; a fault if it does not.
    pub(super) fn watch(&self, what: &str, mut come: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !come() && !self.is_faulty() {
            self.check(Instant::now() < deadline, || format!("in vain: until {what}"));
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn is_faulty(&self) -> bool {
        !self.faults.lock().unwrap().is_empty()
    }

    pub(super) fn end_if_faulty(&self) {
        if self.is_faulty() {
            self.fail("faults were found");
        }
    }

    /// Ends the test, and says what each thread was at.
    pub(super) fn fail(&self, what: &str) -> ! {
        let mut report = format!("{what}\nagain with: SEXTON_SEED={}\n", self.seed);
        let rounds = self.tally.lock().unwrap().rounds;
        report += &format!("found in round {}\n", rounds + 1);
        for fault in self.faults.lock().unwrap().iter().take(20) {
            report += &format!("fault: {fault}\n");
        }
        for (name, post) in self.posts.lock().unwrap().iter() {
            let post = *post.0.lock().unwrap();
            if post != "left" {
                report += &format!("{name}: {post}\n");
            }
        }
        for house in self.houses() {
            let lines = self.lines_of(&house);
            let open: Vec<_> = lines.filter(|&at| !self.has_ended(at)).take(20).collect();
            let (floor, closing) = (house.floor, house.is_closing());
            report += &format!(
                "pool {}, floor {floor}, closing {closing}; open lines: {open:?}\n{}\n{:?}\n",
                house.number,
                house.pool.dump(),
                house.pool.stats()
            );
        }
        panic!("{report}");
    }

    // ---- the end
    // -----------------------------------------------------------------------------------

    /// What has become of a cleanup; a fault, if that is not one thing.
    fn fate(&self, at: usize) -> Fate {
        let line = &self.lines[at];
        let ends =
            (self.ledger.line(at), line.stopped.load(SeqCst), line.run_by_handle.load(SeqCst));
        match ends {
            ((1, 1), 0, 0) => Fate::Ran,
            ((1, 1), 0, 1) => Fate::RanByHandle,
            ((0, 1), 1, 0) => Fate::Stopped,
            ((0, 1), 0, 0) => Fate::Discarded,
            _ => {
                let kind = line.kind.get();
                self.check(false, || {
                    format!(
                        "cleanup {at}: ((runs, drops), stopped, run by handle): {ends:?}; {kind:?}"
                    )
                });
                Fate::Discarded
            }
        }
    }

    /// Each cleanup has had one end, and its handle knows which.
    pub(super) fn balance(&self, houses: &[Arc<House>]) {
        let used = self.used.load(SeqCst);
        for at in 0..used {
            let fate = self.fate(at);
            let kind = self.lines[at].kind.get().expect("every line was given out");
            self.count(|tally| match fate {
                Fate::Ran => tally.ran += 1,
                Fate::RanByHandle => tally.ran_by_handle += 1,
                Fate::Stopped => tally.stopped += 1,
                Fate::Discarded => tally.discarded += 1,
            });
            let ran = matches!(fate, Fate::Ran | Fate::RanByHandle);
            self.count(|tally| tally.panicked += u64::from(ran && kind.panics));
        }
        for (at, handle) in self.kept.lock().unwrap().iter() {
            let (fate, state) = (self.fate(*at), handle.state());
            let agree = match fate {
                Fate::Ran | Fate::RanByHandle => state == CleanupState::Done,
                Fate::Stopped => state == CleanupState::Stopped,
                // Its record may serve another one.
                Fate::Discarded => matches!(state, CleanupState::Stopped | CleanupState::Done),
            };
            self.check(agree, || format!("cleanup {at}: {fate:?}, but its handle says {state:?}"));
        }
        self.count(|tally| {
            tally.cleanups += used as u64;
            for stats in houses.iter().map(|house| house.pool.stats()) {
                tally.tails_taken_over += stats.requeued;
                tally.starts_failed += stats.spawn_failures;
                tally.workers_retired += stats.retired;
            }
        });
    }
}

fn how(stop: bool) -> &'static str {
    if stop { "stop" } else { "run_now" }
}

/// A pool, and what belongs to it.
pub(super) struct House {
    pub(super) number: usize,
    pub(super) pool: CleanupPool,
    /// The bound is never less, but in a pause; 0 for a manual pool. One less may stall.
    pub(super) floor: usize,
    gate: Mutex<Gate>,
    /// Cleanups at the gate.
    stalled: AtomicUsize,
    /// Nothing is to stall any more.
    closing: AtomicBool,
    /// Calls of the panic hook.
    told: Arc<AtomicUsize>,
}

impl House {
    fn new(number: usize, rng: &mut Rng) -> House {
        let (told, floor) = (Arc::new(AtomicUsize::new(0)), rng.usize(0..=3));
        let (count, panics) = (told.clone(), rng.u32(0..8) == 0);
        let mut pool = CleanupPool::builder()
            .max_workers(floor)
            .thread_name(WORKER)
            .stall_after(Duration::from_millis(rng.u64(1..4)))
            .on_panic(move |_| {
                count.fetch_add(1, SeqCst);
                if panics {
                    throw_bomb(1);
                }
            });
        if rng.bool() {
            pool = pool.keep_alive(Duration::from_millis(rng.u64(1..5)));
        }
        if rng.bool() {
            pool = pool.on_slow(Duration::from_millis(2), |_| {});
        }
        if rng.bool() {
            // One worker in `each` cannot be started, in one way or another. The monitor, which
            // tries again, can.
            let (each, asked) = (rng.usize(2..6), AtomicUsize::new(0));
            pool = pool.spawn_hook(move |thread, body| {
                let monitor = format!("{thread:?}").contains("-mon\"");
                let asked = if monitor { 0 } else { 1 + asked.fetch_add(1, SeqCst) };
                if !asked.is_multiple_of(each) || asked == 0 {
                    return thread.spawn(body);
                }
                match asked / each % 4 {
                    0 => Err(io::Error::other("on purpose")),
                    1 => throw_bomb(1),
                    2 => {
                        drop(body);
                        thread.spawn(|| {})
                    }
                    _ => thread.spawn(move || {
                        let _body = body;
                        resume_unwind(Box::new("its preparations"));
                    }),
                }
            });
        }
        House {
            number,
            pool: pool.build(),
            floor,
            gate: Mutex::default(),
            stalled: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            told,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    pub(super) fn has_stalled(&self) -> bool {
        self.stalled.load(SeqCst) > 0
    }

    /// Lets the stalled cleanups go. Others may stall.
    pub(super) fn open(&self) {
        mem::take(&mut *self.gate.lock().unwrap()).open();
    }

    pub(super) fn open_for_good(&self) {
        self.closing.store(true, SeqCst);
        self.open();
    }

    pub(super) fn help_if_manual(&self) {
        if self.floor == 0 {
            self.pool.run_pending(usize::MAX);
        }
    }

    /// Moves the bound, not below the floor.
    pub(super) fn move_bound(&self, stage: &Stage, rng: &mut Rng) {
        if self.floor > 0 {
            stage.count(|tally| tally.bounds_moved += 1);
            self.pool.set_max_workers(self.floor + rng.usize(0..3));
        }
    }

    /// The pool, at rest, has counted what the ledger says.
    pub(super) fn balance(&self, stage: &Stage) {
        let (mut queued_or_in_hand, mut executed, mut panicked) = (0, 0, 0);
        let (mut discarded, mut by_handle, mut told) = (0, 0, 0);
        for at in stage.lines_of(self) {
            let kind = stage.lines[at].kind.get().expect("every line was given out");
            let fate = stage.fate(at);
            let ran = matches!(fate, Fate::Ran | Fate::RanByHandle);
            told += u64::from(ran && kind.panics || fate == Fate::Discarded && kind.bomb);
            // The pool has never heard of these.
            let outlived = stage.lines[at].outlived.load(SeqCst);
            stage.check(!(outlived && fate == Fate::Ran), || {
                format!("cleanup {at} outlived its heap, and ran")
            });
            if kind.local || outlived && fate == Fate::Discarded {
                continue;
            }
            queued_or_in_hand += 1;
            match fate {
                Fate::Ran => executed += 1,
                Fate::Discarded => discarded += 1,
                Fate::RanByHandle | Fate::Stopped => by_handle += 1,
            }
            panicked += u64::from(fate == Fate::Ran && kind.panics);
        }
        let stats = self.pool.stats();
        let expected = (executed, panicked, discarded, told);
        let heard = self.told.load(SeqCst) as u64;
        let found = (stats.executed, stats.panicked, stats.discarded, heard);
        stage.check(found == expected, || {
            format!(
                "pool {}: (executed, panicked, discarded, told) are {found:?}, \
                 by the ledger {expected:?}",
                self.number
            )
        });
        // Those that their handles ended before they were queued are not in the pool's books.
        let ends = stats.executed + stats.ended_early + stats.discarded;
        let plausible = stats.ended_early <= by_handle && stats.queued <= queued_or_in_hand;
        stage.check(stats.queued == ends && plausible && stats.oldest.is_none(), || {
            format!("pool {}: {stats:?}, {by_handle} ended by handle", self.number)
        });
    }
}
