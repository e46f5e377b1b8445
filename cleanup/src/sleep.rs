//! Protocol 2: who sleeps, who wakes them, and when the crew grows.
//!
//! Invariant: a worker never parks while there is work that no publisher will tell it about. Either the
//! publisher sees the worker in `asleep`, or the worker sees the work in `length`; the pair of fences
//! SleepFence and PublishFence rules out that neither sees the other. `PROTOCOL.md` has the steps and the
//! proof; the step numbers in the comments are that page's.
//!
//! It does not know what the work is, and it starts no threads: it answers with a [`Demand`], and the
//! [`pool`](crate::pool) spawns outside every lock.

#![forbid(unsafe_code)]

use crate::claim::Length;
use crate::mutant::Mutant;
use crate::sync::{
    AtomicUsize, CachePadded, Condvar, Mutex, MutexGuard, Ordering, fence, wait_until,
};
use std::time::Instant;

/// The crew of one pool: its sleepers, its vacancies, and the two numbers publishers look at.
#[derive(Debug)]
pub(crate) struct Sleep {
    hints: CachePadded<Hints>,
    /// The largest number of workers; 0 for a manual pool. Never changes.
    max: usize,
    crew: Mutex<Crew>,
    /// One per worker index. Never changes.
    parkers: Box<[Parker]>,
    /// Notified, with `crew` locked, whenever a worker leaves.
    left: Condvar,
    mutant: Mutant,
}

/// What a publisher reads without the lock, to learn whether it must take it.
#[derive(Debug)]
struct Hints {
    /// Workers asleep: never less than the number really parked.
    ///
    /// Read without the lock; written only with the lock held. While it is too high, a waker may take the
    /// lock in vain; that is rare and harmless.
    asleep: AtomicUsize,
    /// Workers that exist or are being started.
    ///
    /// Read without the lock; written only with the lock held. While it is too low, a publisher may take
    /// the lock in vain. It is too high while a worker is dying; the worker's own look at `length`
    /// (step L2) makes up for it.
    workers: AtomicUsize,
}

/// What the lock guards.
#[derive(Debug)]
struct Crew {
    /// The sleepers: parked, or on the way to the parker with nothing left to decide. The last one in is
    /// the first to be woken, because its caches are warm.
    sleeping: Vec<usize>,
    /// Indices no worker has.
    vacant: Vec<usize>,
    /// One per worker index.
    posts: Box<[Post]>,
    /// Counts the posts filled so far, so that a late word about an old holder is recognised.
    serial: u64,
    /// No worker goes to sleep any more and none is added, except in place of one that died.
    shutdown: bool,
    spawn_failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Post {
    Vacant,
    /// Demanded, and not yet heard of.
    Starting(u64),
    /// On its thread.
    Started,
}

/// A worker to be started: its index, and the serial number of its post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) index: usize,
    pub(crate) serial: u64,
}

/// Workers that the work at hand calls for and that do not exist yet. They are counted already.
#[derive(Debug, Default)]
#[must_use = "these workers are counted as existing: start them or report them lost"]
pub(crate) struct Demand(pub(crate) Vec<Opening>);

/// What a worker that found nothing does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Claim again: there is work, or somebody said so.
    Again,
    /// Leave: the pool is shutting down and its list is empty. The worker is no longer counted.
    Leave,
}

impl Sleep {
    pub(crate) fn new(max: usize, mutant: Mutant) -> Self {
        Sleep {
            hints: CachePadded(Hints { asleep: AtomicUsize::new(0), workers: AtomicUsize::new(0) }),
            max,
            crew: Mutex::new(Crew {
                sleeping: Vec::with_capacity(max),
                // Popped from the end: the first worker is number 0.
                vacant: (0..max).rev().collect(),
                posts: vec![Post::Vacant; max].into_boxed_slice(),
                serial: 0,
                shutdown: false,
                spawn_failures: 0,
            }),
            parkers: (0..max).map(|_| Parker::default()).collect(),
            left: Condvar::new(),
            mutant,
        }
    }

    // ---- the worker's side -------------------------------------------------------------------------

    /// Steps S1 to S6: sleeps until there may be work.
    ///
    /// Called by worker `index` after a claim failed.
    pub(crate) fn sleep(&self, index: usize, length: &Length) -> Next {
        let early = self.mutant.is(Mutant::AnnounceAfterRead) && length.get() > 0;
        let mut crew = self.crew.lock(); // S1
        if self.mutant.is(Mutant::RecheckBeforeAnnounce) && length.get() > 0 {
            return Next::Again;
        }
        self.add_asleep(&crew, 1); // S2
        if !self.mutant.is(Mutant::NoSleepFence) {
            // SleepFence: pairs with PublishFence in `Queue::publish`. Our announcement in `asleep` comes
            // before our look at `length`; the publisher's addition to `length` before its look at `asleep`.
            fence(Ordering::SeqCst); // S3
        }
        let found = match self.mutant {
            Mutant::NoRecheck | Mutant::RecheckBeforeAnnounce => false,
            Mutant::AnnounceAfterRead => early,
            _ => length.get() > 0, // S4
        };
        if found {
            self.sub_asleep(&crew, 1);
            return Next::Again;
        }
        if self.mutant.is(Mutant::UncommittedSignal) {
            drop(crew);
            crew = self.crew.lock();
        }
        if crew.shutdown {
            self.sub_asleep(&crew, 1);
            self.vacate(&mut crew, index);
            return Next::Leave;
        }
        crew.sleeping.push(index); // S5: committed. From here on only a waker takes us off the list.
        drop(crew);
        self.parkers[index].park(); // S6
        // The waker has already done `asleep -= 1` for us.
        Next::Again
    }

    /// The worker of this opening is on its thread. Called by it, once, first of all.
    pub(crate) fn started(&self, opening: Opening) {
        let mut crew = self.crew.lock();
        if crew.posts[opening.index] == Post::Starting(opening.serial) {
            crew.posts[opening.index] = Post::Started;
        }
    }

    /// Steps L1 and L2: this worker is gone without having left through [`sleep`](Self::sleep).
    ///
    /// One that was lost before it started is not replaced here: whoever tried to start it learns of the
    /// failure, and an immediate second try could fail for ever.
    pub(crate) fn lost(&self, opening: Opening, length: &Length) -> Demand {
        let mut crew = self.crew.lock();
        let started = crew.posts[opening.index] != Post::Starting(opening.serial);
        self.vacate(&mut crew, opening.index); // L1
        if !started {
            return Demand::default();
        }
        // LossFence: pairs with PublishFence, as SleepFence does. A publisher that read a number of workers
        // with us in it made its addition to `length` visible to this look.
        fence(Ordering::SeqCst);
        // L2, without unlocking: who waits for the last worker to leave must not find none between us and the
        // one that takes our place.
        if length.get() > 0 { self.wake_for(crew, length, true) } else { Demand::default() }
    }

    /// A worker could not be started, and its post has been vacated by [`lost`](Self::lost).
    pub(crate) fn spawn_failed(&self) {
        self.crew.lock().spawn_failures += 1;
    }

    // ---- the publisher's side ----------------------------------------------------------------------

    /// Step P4: whether anybody could be woken or added. A publisher calls it after its PublishFence.
    #[inline]
    pub(crate) fn could_help(&self) -> bool {
        // Relaxed both: ordered by the fence in front, PublishFence.
        self.hints.asleep.load(Ordering::Relaxed) > 0
            || self.hints.workers.load(Ordering::Relaxed) < self.max
    }

    /// Steps W1 to W5: wakes a sleeper per unclaimed item, and demands a worker for each one left over.
    #[cold]
    pub(crate) fn wake(&self, length: &Length) -> Demand {
        self.wake_for(self.crew.lock(), length, false) // W1
    }

    fn wake_for(&self, mut crew: MutexGuard<'_, Crew>, length: &Length, replace: bool) -> Demand {
        let waiting = length.get(); // W2
        let listed = if self.mutant.is(Mutant::UncommittedSignal) {
            self.hints.asleep.load(Ordering::Relaxed)
        } else {
            crew.sleeping.len()
        };
        let n = waiting.min(listed); // W3
        let keep = crew.sleeping.len().saturating_sub(n);
        let woken = crew.sleeping.split_off(keep);
        // On their behalf: were it left to them, a second publisher would count on sleepers that are
        // already spoken for, and take the lock to find none.
        self.sub_asleep(&crew, woken.len());
        let mut demand = Demand::default();
        if !crew.shutdown || replace {
            let workers = self.hints.workers.load(Ordering::Relaxed);
            let added = (waiting - n).min(self.max - workers); // W4
            for _ in 0..added {
                let index = crew.vacant.pop().expect("an index for every worker below the maximum");
                crew.serial += 1;
                let serial = crew.serial;
                crew.posts[index] = Post::Starting(serial);
                demand.0.push(Opening { index, serial });
            }
            self.hints.workers.store(workers + added, Ordering::Relaxed);
        }
        drop(crew);
        // W5, unlocked: a worker that woke up to a locked lock would go straight back to sleep.
        for index in woken {
            self.parkers[index].unpark();
        }
        demand
    }

    // ---- shutdown ----------------------------------------------------------------------------------

    /// From now on workers leave instead of going to sleep. Those asleep are woken to find out.
    pub(crate) fn shutdown(&self) {
        let mut crew = self.crew.lock();
        crew.shutdown = true;
        let woken = std::mem::take(&mut crew.sleeping);
        self.sub_asleep(&crew, woken.len());
        drop(crew);
        for index in woken {
            self.parkers[index].unpark();
        }
    }

    /// Waits until no worker is left, or until the deadline. Whether none is left.
    pub(crate) fn wait_until_left(&self, deadline: Option<Instant>) -> bool {
        let mut crew = self.crew.lock();
        while self.hints.workers.load(Ordering::Relaxed) > 0 {
            if wait_until(&self.left, &mut crew, deadline) {
                return self.hints.workers.load(Ordering::Relaxed) == 0;
            }
        }
        true
    }

    // ---- numbers -----------------------------------------------------------------------------------

    /// (workers, asleep, spawn failures), as one instant's truth.
    pub(crate) fn numbers(&self) -> (usize, usize, u64) {
        let crew = self.crew.lock();
        (
            self.hints.workers.load(Ordering::Relaxed),
            self.hints.asleep.load(Ordering::Relaxed),
            crew.spawn_failures,
        )
    }

    fn vacate(&self, crew: &mut MutexGuard<'_, Crew>, index: usize) {
        crew.posts[index] = Post::Vacant;
        crew.vacant.push(index);
        let workers = self.hints.workers.load(Ordering::Relaxed);
        self.hints.workers.store(workers - 1, Ordering::Relaxed);
        self.left.notify_all();
    }

    /// The guard is the proof that the lock is held, so that load and store need not be one operation.
    fn add_asleep(&self, _crew: &MutexGuard<'_, Crew>, n: usize) {
        let asleep = self.hints.asleep.load(Ordering::Relaxed);
        self.hints.asleep.store(asleep + n, Ordering::Relaxed);
    }

    fn sub_asleep(&self, _crew: &MutexGuard<'_, Crew>, n: usize) {
        let asleep = self.hints.asleep.load(Ordering::Relaxed);
        self.hints.asleep.store(asleep - n, Ordering::Relaxed);
    }
}

/// Where one worker parks: a flag of its own.
///
/// Not `std::thread::park`, whose token the cleanups share: one that unparks its own thread, or consumes
/// the token, must not disturb the protocol. Every unpark belongs to exactly one park, because a waker has
/// taken the worker off the list, so the flag needs no reset before the park.
#[derive(Debug, Default)]
struct Parker {
    /// Set by the waker, cleared by the worker.
    called: Mutex<bool>,
    condvar: Condvar,
}

impl Parker {
    /// Returns once [`unpark`](Self::unpark) has been called, before or after. No timed wait: it would
    /// hide a lost wake-up.
    fn park(&self) {
        let mut called = self.called.lock();
        while !*called {
            self.condvar.wait(&mut called);
        }
        *called = false;
    }

    fn unpark(&self) {
        *self.called.lock() = true;
        self.condvar.notify_one();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn growth_stops_at_the_bound_and_at_the_work() {
        let (sleep, length) = (Sleep::new(2, Mutant::None), Length::new());
        assert!(sleep.wake(&length).0.is_empty(), "no work, no worker");
        length.add(1);
        assert_eq!(sleep.wake(&length).0.len(), 1);
        length.add(5);
        assert_eq!(sleep.wake(&length).0.len(), 1);
        assert!(!sleep.could_help());
    }

    #[test]
    fn a_worker_lost_before_it_started_is_not_replaced_at_once() {
        let (sleep, length) = (Sleep::new(1, Mutant::None), Length::new());
        length.add(1);
        let opening = sleep.wake(&length).0[0];
        assert!(sleep.lost(opening, &length).0.is_empty());
        assert_eq!(sleep.numbers().0, 0);
        assert!(sleep.could_help(), "the next publisher tries again");
        assert_eq!(sleep.wake(&length).0.len(), 1);
    }

    #[test]
    fn a_worker_that_dies_at_work_is_replaced_if_there_is_work() {
        let (sleep, length) = (Sleep::new(1, Mutant::None), Length::new());
        length.add(1);
        let opening = sleep.wake(&length).0[0];
        sleep.started(opening);
        let next = sleep.lost(opening, &length).0;
        assert_eq!(next.len(), 1);
        sleep.started(next[0]);
        length.try_claim().expect("one was added").redeem();
        assert!(sleep.lost(next[0], &length).0.is_empty());
    }

    #[test]
    fn a_late_word_about_an_old_holder_of_a_post_changes_nothing() {
        let (sleep, length) = (Sleep::new(1, Mutant::None), Length::new());
        length.add(1);
        let old = sleep.wake(&length).0[0];
        let _ = sleep.lost(old, &length);
        let new = sleep.wake(&length).0[0];
        assert_eq!(old.index, new.index);
        sleep.started(old);
        assert!(sleep.lost(new, &length).0.is_empty(), "the new one had not started");
    }

    #[test]
    fn after_shutdown_an_idle_worker_leaves_and_none_is_added() {
        let (sleep, length) = (Sleep::new(2, Mutant::None), Length::new());
        length.add(1);
        let opening = sleep.wake(&length).0[0];
        sleep.started(opening);
        sleep.shutdown();
        assert_eq!(sleep.sleep(opening.index, &length), Next::Again, "the list is drained first");
        length.try_claim().expect("one was added").redeem();
        assert_eq!(sleep.sleep(opening.index, &length), Next::Leave);
        length.add(1);
        assert!(sleep.wake(&length).0.is_empty());
        assert!(sleep.wait_until_left(None));
    }
}
