//! Protocol 2: sleeping, waking, and the growth of the workers' number.
//!
//! Invariant: a worker never parks while there is work that no publisher will tell it about. Either
//! the publisher sees the worker in `asleep`, or the worker sees the work in `length`. The pair of
//! fences SleepFence and PublishFence rules out that neither sees the other. A worker that has
//! slept for `keep_alive` exits. It is still on the list of sleepers, so no waker counts on it, and
//! no block is stranded. `PROTOCOL.md` has the steps and the proof; the step numbers in the
//! comments are that page's.
//!
//! It does not know what the work is, and it starts no threads: it answers with a [`Demand`], and
//! the [`pool`](crate::pool::state) spawns outside every lock.

#![forbid(unsafe_code)]

use crate::protocol::claim::Length;
use sexton_sync::{
    Arc, AtomicUsize, CachePadded, Condvar, Mutex, MutexGuard, Ordering, fence, wait_until,
};
use std::time::{Duration, Instant};

/// The workers of one pool: the sleepers, the vacant slots, and the numbers that publishers look
/// at.
#[derive(Debug)]
pub(crate) struct Sleep {
    hints: CachePadded<Hints>,
    synced: Mutex<Synced>,
    /// How long a worker sleeps before it leaves, and how long the number of workers stays the
    /// same. `None`: for ever.
    keep_alive: Option<Duration>,
    /// Notified, with `synced` locked, whenever a worker leaves.
    left: Condvar,
}

/// Read by a publisher without the lock, to learn whether it must take it.
#[derive(Debug)]
struct Hints {
    /// Workers asleep: never less than the number really parked.
    ///
    /// Read without the lock; written only with the lock held. While it is too high, a waker may
    /// take the lock in vain; that is rare and harmless.
    asleep: AtomicUsize,
    /// Workers that exist or are being started.
    ///
    /// Read without the lock; written only with the lock held. While it is too low, a publisher may
    /// take the lock in vain. It is too high while a worker is dying; the worker's own look at
    /// `length` (step L2) makes up for it.
    workers: AtomicUsize,
    /// The largest number of workers; 0 for a manual pool.
    ///
    /// Read without the lock; written only with the lock held. A thread that raises it looks at
    /// `length` afterwards.
    max: AtomicUsize,
}

/// The state behind the lock.
#[derive(Debug, Default)]
struct Synced {
    /// The sleepers: parked, or on the way to the parker with nothing left to decide. The last one
    /// in is the first to be woken, because its caches are warm.
    sleeping: Vec<Sleeper>,
    /// Indices below the length of `slots` that no worker has.
    vacant: Vec<usize>,
    /// One per worker index ever used.
    slots: Vec<WorkerSlot>,
    /// Counts the slots filled so far, so that a late word about an old holder is recognised.
    serial: u64,
    /// No worker goes to sleep any more and none is added, except in place of one that died.
    shutdown: bool,
    spawn_failures: u64,
    /// Workers that have begun, on their threads, since the pool was made.
    begun: u64,
    /// Workers that left because they had slept long enough.
    retired: u64,
    /// When the number of workers last changed.
    resized: Option<Instant>,
}

/// One sleeper: its index and where it parks.
type Sleeper = (usize, Arc<Parker>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkerSlot {
    Vacant,
    /// Demanded, and not yet heard of.
    Starting(u64),
    /// On its thread.
    Started,
}

/// A worker to be started: its index, and a serial number, because an index is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerId {
    pub(crate) index: usize,
    pub(crate) serial: u64,
}

/// Workers that the work at hand calls for and that do not exist yet. They are counted already.
#[derive(Debug, Default)]
#[must_use = "these workers are counted as existing: start them or report them lost"]
pub(crate) struct Demand(pub(crate) Vec<WorkerId>);

/// The next step of a worker that found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Claim again: there is work, or a waker said so.
    Again,
    /// Leave: the pool is shutting down and its list is empty, or the worker was idle for long. It
    /// is no longer counted.
    Leave,
}

/// A worker's place: its index, and where it parks.
#[derive(Clone, Debug)]
pub(crate) struct Parking {
    pub(crate) index: usize,
    parker: Arc<Parker>,
}

impl Parking {
    pub(crate) fn new(id: WorkerId) -> Self {
        Parking { index: id.index, parker: Arc::new(Parker::default()) }
    }
}

/// The workers in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) workers: usize,
    pub(crate) asleep: usize,
    pub(crate) spawn_failures: u64,
    pub(crate) begun: u64,
    pub(crate) retired: u64,
}

impl Sleep {
    pub(crate) fn new(max: usize, keep_alive: Option<Duration>) -> Self {
        Sleep {
            hints: CachePadded::new(Hints {
                asleep: AtomicUsize::new(0),
                workers: AtomicUsize::new(0),
                max: AtomicUsize::new(max),
            }),
            synced: Mutex::new(Synced::default()),
            keep_alive,
            left: Condvar::new(),
        }
    }

    // ---- the worker's side
    // -------------------------------------------------------------------------

    /// Sleeps, steps S1 to S6, until there may be work.
    ///
    /// Called by the worker that parks here, after a claim failed.
    pub(crate) fn sleep(&self, parking: &Parking, length: &Length) -> Next {
        let mut synced = self.synced.lock(); // S1
        self.add_asleep(&synced, 1); // S2
        // SleepFence: pairs with PublishFence in `Queue::publish`. Our announcement in `asleep`
        // comes before our look at `length`; the publisher's addition to `length` before its look
        // at `asleep`.
        fence(Ordering::SeqCst); // S3
        // S4.
        if length.get() > 0 {
            self.sub_asleep(&synced, 1);
            return Next::Again;
        }
        // S5. A surplus worker does not join: were it woken for a block later, it would leave
        // without it.
        if synced.shutdown || self.has_surplus() {
            // In the order of R3.
            self.vacate(&mut synced, parking.index);
            self.sub_asleep(&synced, 1);
            return Next::Leave;
        }
        synced.sleeping.push((parking.index, parking.parker.clone())); // S5: committed.
        let mut deadline = self.keep_alive.and_then(|time| Instant::now().checked_add(time));
        drop(synced);
        // S6. Only a waker takes us off the list, or we ourselves in R1 to R3.
        while !parking.parker.park(deadline) {
            match self.retire(parking) {
                Retire::Left => return Next::Leave,
                Retire::NotYet(until) => deadline = until,
                Retire::Chosen => deadline = None,
            }
        }
        // The waker has already done `asleep -= 1` for us.
        Next::Again
    }

    /// Leaves, steps R1 to R3, after a long sleep.
    ///
    /// No look at `length`: a look would only find what a lost wake-up has left behind, and hide
    /// it.
    fn retire(&self, parking: &Parking) -> Retire {
        let mut synced = self.synced.lock(); // R1
        let Some(at) = synced.sleeping.iter().position(|&(index, _)| index == parking.index) else {
            // R2. A waker has counted on us: the unpark that belongs to this park is on its way.
            return Retire::Chosen;
        };
        // One worker leaves in `keep_alive`, and not so soon after it grew: a burst now and then
        // does not end and start threads each time.
        if let (Some(resized), Some(keep_alive)) = (synced.resized, self.keep_alive)
            && resized.elapsed() < keep_alive
        {
            return Retire::NotYet(resized.checked_add(keep_alive));
        }
        synced.sleeping.remove(at); // R3
        synced.retired += 1;
        // In this order: a publisher that reads `asleep` without us in it has to read `workers`
        // without us, too.
        self.vacate(&mut synced, parking.index);
        self.sub_asleep(&synced, 1);
        Retire::Left
    }

    /// Tells whether there are more workers than there may be, because the maximum was lowered.
    #[inline]
    pub(crate) fn has_surplus(&self) -> bool {
        // Relaxed, both: the lock decides.
        self.hints.workers.load(Ordering::Relaxed) > self.hints.max.load(Ordering::Relaxed)
    }

    /// Lets the worker of this index leave, if there are still more than there may be. Whether it
    /// has.
    ///
    /// It may have been woken for work that it now does not take. That strands nothing: see
    /// `PROTOCOL.md`.
    pub(crate) fn leave_surplus(&self, index: usize) -> bool {
        let mut synced = self.synced.lock();
        let leaves = self.has_surplus();
        if leaves {
            self.vacate(&mut synced, index);
        }
        leaves
    }

    /// Notes that this worker is on its thread. Called by it, once, first of all.
    pub(crate) fn started(&self, id: WorkerId) {
        let mut synced = self.synced.lock();
        if synced.slots[id.index] == WorkerSlot::Starting(id.serial) {
            synced.slots[id.index] = WorkerSlot::Started;
            synced.begun += 1;
        }
    }

    /// Does steps L1 and L2: this worker is gone without having left through
    /// [`sleep`](Self::sleep).
    ///
    /// One that was lost before it started is not replaced here. The thread that tried to start it
    /// learns of the failure. An immediate second try could fail for ever.
    pub(crate) fn lost(&self, id: WorkerId, length: &Length) -> Demand {
        let mut synced = self.synced.lock();
        let started = synced.slots[id.index] != WorkerSlot::Starting(id.serial);
        self.vacate(&mut synced, id.index); // L1
        // LossFence: pairs with PublishFence, as SleepFence does. A publisher that read a number of
        // workers with us in it made its addition to `length` visible to the look that follows:
        // ours at L2, or, if we had not started, that of the thread that tried to start us.
        fence(Ordering::SeqCst);
        if !started {
            return Demand::default();
        }
        // L2, with the lock still held: a thread that waits for the workers to leave sees the
        // replacement with them.
        let (woken, demand) = self.call(&mut synced, length, true);
        drop(synced);
        woken.iter().for_each(|(_, parker)| parker.unpark());
        demand
    }

    /// Counts a worker that could not be started. Its slot has been vacated by
    /// [`lost`](Self::lost).
    pub(crate) fn spawn_failed(&self) {
        self.synced.lock().spawn_failures += 1;
    }

    // ---- the publisher's side
    // ----------------------------------------------------------------------

    /// Does step P4: whether a worker could be woken or added. A publisher calls it after its
    /// PublishFence.
    #[inline]
    pub(crate) fn could_help(&self) -> bool {
        // Ordered by the fence in front, PublishFence. Acquire: pairs with the Release in
        // `sub_asleep`; a thread that does not count a retired worker among the sleepers must not
        // count it among the workers either.
        self.hints.asleep.load(Ordering::Acquire) > 0
            || self.hints.workers.load(Ordering::Relaxed) < self.hints.max.load(Ordering::Relaxed)
    }

    /// Steps W1 to W5: wakes a sleeper per unclaimed item, and demands a worker for each one left
    /// over.
    #[cold]
    pub(crate) fn wake(&self, length: &Length) -> Demand {
        self.wake_for(length, false)
    }

    /// Wakes as [`wake`](Self::wake) does, for work that a worker has left which is as good as
    /// gone.
    #[cold]
    pub(crate) fn replace(&self, length: &Length) -> Demand {
        self.wake_for(length, true)
    }

    fn wake_for(&self, length: &Length, replace: bool) -> Demand {
        let mut synced = self.synced.lock(); // W1
        let (woken, demand) = self.call(&mut synced, length, replace);
        drop(synced);
        // W5, unlocked: a worker that woke up to a locked lock would go straight back to sleep.
        woken.iter().for_each(|(_, parker)| parker.unpark());
        demand
    }

    /// Steps W2 to W4: the workers to be unparked, and those to be started.
    fn call(
        &self,
        synced: &mut MutexGuard<'_, Synced>,
        length: &Length,
        replace: bool,
    ) -> (Vec<Sleeper>, Demand) {
        let waiting = length.get(); // W2
        let n = waiting.min(synced.sleeping.len()); // W3
        let keep = synced.sleeping.len() - n;
        let woken = synced.sleeping.split_off(keep);
        // On their behalf: were it left to them, a second publisher would count on sleepers that
        // are already spoken for, and take the lock to find none.
        self.sub_asleep(synced, woken.len());
        let demand = self.demand(synced, waiting - n, replace); // W4
        (woken, demand)
    }

    /// Does step W4: demands a worker for each of these items, as far as there is room.
    fn demand(&self, synced: &mut MutexGuard<'_, Synced>, items: usize, replace: bool) -> Demand {
        let mut demand = Demand::default();
        if !synced.shutdown || replace {
            let workers = self.hints.workers.load(Ordering::Relaxed);
            let room = self.hints.max.load(Ordering::Relaxed).saturating_sub(workers);
            let added = items.min(room);
            for _ in 0..added {
                demand.0.push(synced.fill_slot());
            }
            if added > 0 {
                self.hints.workers.store(workers + added, Ordering::Relaxed);
                self.resized(synced);
            }
        }
        demand
    }

    /// Changes the largest number of workers. Surplus workers leave when they come back for work;
    /// those asleep are woken to find out. The caller looks at the work afterwards, for which there
    /// may be more workers now.
    pub(crate) fn set_max(&self, max: usize) {
        let mut synced = self.synced.lock();
        self.hints.max.store(max, Ordering::Relaxed);
        let surplus = self.hints.workers.load(Ordering::Relaxed).saturating_sub(max);
        // The longest asleep go.
        let n = surplus.min(synced.sleeping.len());
        let woken: Vec<_> = synced.sleeping.drain(..n).collect();
        self.sub_asleep(&synced, n);
        drop(synced);
        woken.iter().for_each(|(_, parker)| parker.unpark());
    }

    /// Gives the largest number of workers.
    pub(crate) fn max(&self) -> usize {
        self.hints.max.load(Ordering::Relaxed)
    }

    // ---- shutdown
    // ----------------------------------------------------------------------------------

    /// Has workers leave from now on, instead of going to sleep. Those asleep are woken to find
    /// out.
    pub(crate) fn shutdown(&self) {
        let mut synced = self.synced.lock();
        synced.shutdown = true;
        let woken = std::mem::take(&mut synced.sleeping);
        self.sub_asleep(&synced, woken.len());
        drop(synced);
        woken.iter().for_each(|(_, parker)| parker.unpark());
    }

    /// Tells whether a shutdown has begun and no worker is left.
    pub(crate) fn has_ended(&self) -> bool {
        let synced = self.synced.lock();
        synced.shutdown && self.hints.workers.load(Ordering::Relaxed) == 0
    }

    /// Tells how long a worker sleeps before it leaves.
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive
    }

    /// Waits until no worker is left, or until the deadline. Whether none is left.
    pub(crate) fn wait_until_left(&self, deadline: Option<Instant>) -> bool {
        let mut synced = self.synced.lock();
        while self.hints.workers.load(Ordering::Relaxed) > 0 {
            if wait_until(&self.left, &mut synced, deadline) {
                return self.hints.workers.load(Ordering::Relaxed) == 0;
            }
        }
        true
    }

    // ---- numbers
    // -----------------------------------------------------------------------------------

    /// Gives the numbers at one instant.
    pub(crate) fn numbers(&self) -> Numbers {
        let synced = self.synced.lock();
        Numbers {
            workers: self.hints.workers.load(Ordering::Relaxed),
            asleep: self.hints.asleep.load(Ordering::Relaxed),
            spawn_failures: synced.spawn_failures,
            begun: synced.begun,
            retired: synced.retired,
        }
    }

    /// Indices of the sleepers, those first that were the first to fall asleep.
    pub(crate) fn sleepers(&self) -> Vec<usize> {
        self.synced.lock().sleeping.iter().map(|&(index, _)| index).collect()
    }

    fn vacate(&self, synced: &mut MutexGuard<'_, Synced>, index: usize) {
        synced.slots[index] = WorkerSlot::Vacant;
        synced.vacant.push(index);
        let workers = self.hints.workers.load(Ordering::Relaxed);
        self.hints.workers.store(workers - 1, Ordering::Relaxed);
        self.resized(synced);
        self.left.notify_all();
    }

    fn resized(&self, synced: &mut MutexGuard<'_, Synced>) {
        if self.keep_alive.is_some() {
            synced.resized = Some(Instant::now());
        }
    }

    /// Raises `asleep`. The guard is the proof that the lock is held, so that load and store need
    /// not be one operation.
    fn add_asleep(&self, _synced: &MutexGuard<'_, Synced>, n: usize) {
        let asleep = self.hints.asleep.load(Ordering::Relaxed);
        // Release: a publisher may read this instead of a lowering before it.
        self.hints.asleep.store(asleep + n, Ordering::Release);
    }

    fn sub_asleep(&self, _synced: &MutexGuard<'_, Synced>, n: usize) {
        let asleep = self.hints.asleep.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `could_help`.
        self.hints.asleep.store(asleep - n, Ordering::Release);
    }
}

impl Synced {
    /// Fills a vacant slot, for a worker that is to be started.
    fn fill_slot(&mut self) -> WorkerId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(WorkerSlot::Vacant);
            self.slots.len() - 1
        });
        self.serial += 1;
        self.slots[index] = WorkerSlot::Starting(self.serial);
        WorkerId { index, serial: self.serial }
    }
}

/// How [`Sleep::retire`] ended.
enum Retire {
    /// The worker is no longer counted.
    Left,
    /// Not before then; `None` is never.
    NotYet(Option<Instant>),
    /// A waker is about to unpark the worker.
    Chosen,
}

/// Where one worker parks: a flag of its own.
///
/// Not `std::thread::park`, whose token the cleanups share: one that unparks its own thread, or
/// consumes the token, must not disturb the protocol. Every unpark belongs to exactly one park,
/// because a waker has taken the worker off the list. So the flag needs no reset before the park.
#[derive(Debug, Default)]
struct Parker {
    /// Set by the waker, cleared by the worker.
    called: Mutex<bool>,
    condvar: Condvar,
}

impl Parker {
    /// Parks until the deadline. Whether [`unpark`](Self::unpark) has been called, before or after;
    /// false if the deadline came first.
    ///
    /// The deadline is for retiring only. A worker that looked for work then would hide a lost
    /// wake-up.
    fn park(&self, deadline: Option<Instant>) -> bool {
        let mut called = self.called.lock();
        while !*called {
            if wait_until(&self.condvar, &mut called, deadline) && !*called {
                return false;
            }
        }
        *called = false;
        true
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
        let (sleep, length) = (Sleep::new(2, None), Length::new());
        assert!(sleep.wake(&length).0.is_empty(), "no work, no worker");
        length.add(1);
        assert_eq!(sleep.wake(&length).0.len(), 1);
        length.add(5);
        assert_eq!(sleep.wake(&length).0.len(), 1);
        assert!(!sleep.could_help());
    }

    #[test]
    fn a_worker_lost_before_it_started_is_not_replaced_at_once() {
        let (sleep, length) = (Sleep::new(1, None), Length::new());
        length.add(1);
        let id = sleep.wake(&length).0[0];
        assert!(sleep.lost(id, &length).0.is_empty());
        assert_eq!(sleep.numbers().workers, 0);
        assert!(sleep.could_help(), "the next publisher tries again");
        assert_eq!(sleep.wake(&length).0.len(), 1);
    }

    #[test]
    fn a_worker_that_dies_at_work_is_replaced_if_there_is_work() {
        let (sleep, length) = (Sleep::new(1, None), Length::new());
        length.add(1);
        let id = sleep.wake(&length).0[0];
        sleep.started(id);
        let next = sleep.lost(id, &length).0;
        assert_eq!(next.len(), 1);
        sleep.started(next[0]);
        length.try_claim().expect("one was added").redeem();
        assert!(sleep.lost(next[0], &length).0.is_empty());
    }

    #[test]
    fn a_late_word_about_an_old_holder_of_a_slot_changes_nothing() {
        let (sleep, length) = (Sleep::new(1, None), Length::new());
        length.add(1);
        let old = sleep.wake(&length).0[0];
        let _ = sleep.lost(old, &length);
        let new = sleep.wake(&length).0[0];
        assert_eq!(old.index, new.index);
        sleep.started(old);
        assert!(sleep.lost(new, &length).0.is_empty(), "the new one had not started");
    }

    /// Two workers for two items, both asleep now, and no thread has taken the items.
    fn two_asleep(keep_alive: Option<Duration>) -> (Sleep, Length, Vec<Parking>) {
        let (sleep, length) = (Sleep::new(3, keep_alive), Length::new());
        length.add(2);
        let parkings: Vec<_> = sleep.wake(&length).0.into_iter().map(Parking::new).collect();
        for parking in &parkings {
            let mut synced = sleep.synced.lock();
            sleep.add_asleep(&synced, 1);
            synced.sleeping.push((parking.index, parking.parker.clone()));
        }
        (sleep, length, parkings)
    }

    #[test]
    fn sleepers_are_woken_before_workers_are_added() {
        let (sleep, length, parkings) = two_asleep(None);
        assert!(sleep.wake(&length).0.is_empty(), "two items, two sleepers");
        assert_eq!((sleep.numbers().workers, sleep.numbers().asleep), (2, 0));
        assert!(parkings.iter().all(|parking| parking.parker.park(None)));
        let (sleep, length, _seats) = two_asleep(None);
        length.add(3);
        assert_eq!(sleep.wake(&length).0.len(), 1, "as far as there is room");
        assert_eq!((sleep.numbers().workers, sleep.numbers().asleep), (3, 0));
    }

    #[test]
    fn the_pool_shrinks_by_one_in_keep_alive_and_not_so_soon_after_it_grew() {
        let (sleep, _, parkings) = two_asleep(Some(Duration::from_secs(3600)));
        assert!(matches!(sleep.retire(&parkings[0]), Retire::NotYet(Some(_))), "it has just grown");
        sleep.synced.lock().resized = None;
        assert!(sleep.wake(&Length::new()).0.is_empty(), "no worker is woken, and none added");
        assert!(matches!(sleep.retire(&parkings[0]), Retire::Left), "it grew long ago");
        assert!(
            matches!(sleep.retire(&parkings[1]), Retire::NotYet(Some(_))),
            "it has just shrunk"
        );
        let numbers = sleep.numbers();
        assert_eq!((numbers.workers, numbers.asleep, numbers.retired), (1, 1, 1));
    }

    #[test]
    fn after_shutdown_an_idle_worker_leaves_and_none_is_added() {
        let (sleep, length) = (Sleep::new(2, None), Length::new());
        length.add(1);
        let id = sleep.wake(&length).0[0];
        sleep.started(id);
        sleep.shutdown();
        assert_eq!(
            sleep.sleep(&Parking::new(id), &length),
            Next::Again,
            "the list is drained first"
        );
        assert!(!sleep.wait_until_left(Some(Instant::now())), "it is still there");
        length.try_claim().expect("one was added").redeem();
        assert_eq!(sleep.sleep(&Parking::new(id), &length), Next::Leave);
        length.add(1);
        assert!(sleep.wake(&length).0.is_empty());
        assert!(sleep.wait_until_left(None));
    }
}
