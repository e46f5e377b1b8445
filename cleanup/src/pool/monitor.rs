//! The monitor: one thread per pool that looks after the workers, while they are at work.
//!
//! At each tick it looks at the desks. A cleanup that has run for long is reported to the pool's hook; if it has
//! stalled, the tail of its block is taken over. A worker that could not be started is tried again.
//!
//! A tick is a timed wait, and sleeping workers rely on none: the monitor never looks for work that a publisher
//! should have woken somebody for. Once no block is in hand it falls *dormant*, and waits without a deadline.
//!
//! It *lets go* of a block whose tail was taken and whose cleanup was reported. A cleanup that
//! never returns does not keep it awake. A runner that goes on in such a block asks again to be
//! watched.
//!
//! Invariant: **no block in hand beside a dormant monitor, if it is to be watched.** The runner puts the block on
//! its desk and then asks whether the monitor is dormant (steps B1, B2); the monitor says that it is, and then looks
//! at the desks once more (M1, M2). Both lock the desk in between. If the runner was there first, the monitor sees
//! the block; if the monitor was, the runner sees that it is dormant, and calls it.
//!
//! Most pools never have one: it is started for the first block that needs it.

#![forbid(unsafe_code)]

use crate::pool::state::Pool;
use crate::protocol::mutant::Mutant;
use sexton_sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, wait_until};
use std::time::{Duration, Instant};

/// Ticks without a block in hand after which the monitor falls dormant: often enough that a steady stream of
/// cleanups does not pay for a wake each time.
const QUIET_TICKS: u32 = 50;

/// Ticks between two attempts to start a worker, at most.
const MOST_PATIENT: u32 = 64;

/// Whether there is a monitor, and whether it is dormant.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Nobody is looking. Read by runners after they have locked their desk; written by the monitor before it
    /// locks the desks, and by callers.
    dormant: AtomicBool,
    state: Mutex<State>,
    condvar: Condvar,
    mutant: Mutant,
    /// How often the monitor has waited.
    #[cfg(all(test, not(any(loom, shuttle))))]
    waits: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// A thread exists or is being started.
    exists: bool,
    /// Somebody wants it to look.
    called: bool,
    /// It is to end, and none is to be started.
    stopped: bool,
}

impl Watch {
    pub(crate) fn new(mutant: Mutant) -> Self {
        Watch {
            dormant: AtomicBool::new(true),
            state: Mutex::new(State::default()),
            condvar: Condvar::new(),
            mutant,
            #[cfg(all(test, not(any(loom, shuttle))))]
            waits: Default::default(),
        }
    }

    /// Step B2. True if the caller is to start a monitor.
    #[inline]
    pub(crate) fn begins(&self) -> bool {
        // Relaxed: ordered by the lock of the desk.
        self.dormant.load(Ordering::Relaxed) && self.call()
    }

    /// Has the monitor look. True if the caller is to start one.
    #[cold]
    pub(crate) fn call(&self) -> bool {
        let mut state = self.state.lock();
        if state.stopped {
            return false;
        }
        self.dormant.store(false, Ordering::Relaxed);
        state.called = true;
        let start = !std::mem::replace(&mut state.exists, true);
        drop(state);
        self.condvar.notify_one();
        start
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn exists(&self) -> bool {
        self.state.lock().exists
    }

    /// How often the monitor has waited so far.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// A monitor exists and is dormant.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn rests(&self) -> bool {
        let state = self.state.lock();
        state.exists && !state.called && self.dormant.load(Ordering::Relaxed)
    }

    /// The monitor has unwound, or could not be started.
    fn lost(&self) {
        let mut state = self.state.lock();
        state.exists = false;
        self.dormant.store(true, Ordering::Relaxed);
    }

    /// Ends the monitor, and lets none be started.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.condvar.notify_one();
    }

    /// Waits for a call, at most until `deadline`. False if the monitor is to end.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.wait_for_call(deadline);
        state.called = false;
        !state.stopped
    }

    /// Waits for a call or for the stop, at most until `deadline`.
    fn wait_for_call(&self, deadline: Option<Instant>) -> MutexGuard<'_, State> {
        #[cfg(all(test, not(any(loom, shuttle))))]
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        while !state.called && !state.stopped {
            if wait_until(&self.condvar, &mut state, deadline) {
                break;
            }
        }
        state
    }

    /// Steps M1 and M2: waits for the next call, unless `is_busy` finds a block in hand. False if the monitor is
    /// to end: because it was told to, or because nobody has called until `deadline`.
    pub(crate) fn fall_dormant(
        &self,
        deadline: Option<Instant>,
        is_busy: impl Fn() -> bool,
    ) -> bool {
        if self.mutant.is(Mutant::DormantAfterLook) {
            let busy = is_busy();
            self.dormant.store(!busy, Ordering::Relaxed);
            return busy || self.sleep(deadline);
        }
        // Relaxed: ordered by the locks of the desks.
        self.dormant.store(true, Ordering::Relaxed); // M1
        if is_busy() {
            // M2
            self.dormant.store(false, Ordering::Relaxed);
            return true;
        }
        self.sleep(deadline)
    }

    /// Waits for a call while dormant. False if the monitor is to end, and does not exist any more.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.wait_for_call(deadline);
        let called = std::mem::take(&mut state.called) && !state.stopped;
        // With the lock held: whoever calls from now on starts another one.
        state.exists = called;
        self.dormant.store(!called, Ordering::Relaxed);
        called
    }
}

/// A monitor, to be [run](Self::run) on a thread of its own. If it is dropped instead, another one is tried
/// when it is wanted again.
#[derive(Debug)]
pub(crate) struct Monitor {
    pool: Arc<Pool>,
    /// It has ended in order, and another one may be there already.
    ended: bool,
}

impl Monitor {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Monitor { pool, ended: false }
    }

    /// Watches the pool until it is shut down, or has been idle for long.
    pub(crate) fn run(mut self) {
        let watch = self.pool.watch();
        let mut quiet = Quiet::default();
        let mut patience = Patience::default();
        loop {
            let busy = self.pool.inspect(Instant::now());
            let starving = self.pool.is_starving();
            if starving && patience.is_over() {
                self.pool.retry();
            }
            let goes_on = if quiet.lasts(busy, starving) {
                patience = Patience::default();
                let deadline =
                    self.pool.keep_alive().and_then(|time| Instant::now().checked_add(time));
                watch.fall_dormant(deadline, || self.pool.is_watched())
            } else {
                watch.wait(Instant::now().checked_add(self.pool.tick()))
            };
            if !goes_on {
                self.ended = true;
                return;
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if !self.ended {
            self.pool.watch().lost();
        }
    }
}

/// For how many ticks there has been nothing to look after.
#[derive(Debug, Default)]
struct Quiet {
    ticks: u32,
}

impl Quiet {
    /// Counts one more tick. Whether it is time to fall dormant.
    fn lasts(&mut self, busy: bool, starving: bool) -> bool {
        self.ticks = if busy || starving { 0 } else { self.ticks + 1 };
        self.ticks >= QUIET_TICKS
    }
}

/// When to try again what failed: after 1, 2, 4, ... ticks.
#[derive(Debug, Default)]
struct Patience {
    ticks: u32,
    needed: u32,
}

impl Patience {
    fn is_over(&mut self) -> bool {
        self.ticks += 1;
        let over = self.ticks > self.needed;
        if over {
            self.ticks = 0;
            self.needed = (self.needed * 2).clamp(1, MOST_PATIENT);
        }
        over
    }
}

/// The longest time between two looks of a monitor that is awake, so that it falls dormant some day.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// The same while a worker could not be started, however patient the pool is with cleanups.
const STARVING_TICK: Duration = Duration::from_millis(10);

/// How often a monitor looks, for cleanups that stall or are slow after these times: at least twice in each, if that is
/// not long.
pub(crate) fn tick(
    stall_after: Duration,
    slow_after: Option<Duration>,
    is_starving: bool,
) -> Duration {
    let shortest = slow_after.map_or(stall_after, |slow| slow.min(stall_after));
    let longest = if is_starving { STARVING_TICK } else { LONGEST_TICK };
    (shortest / 2).clamp(Duration::from_millis(1), longest)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(60);

    fn far() -> (Instant, Option<Instant>) {
        let now = Instant::now();
        (now, now.checked_add(LONG))
    }

    #[test]
    fn a_wait_ends_at_its_deadline_at_a_call_and_at_the_stop() {
        let watch = Watch::new(Mutant::None);
        let (begin, tick) = (Instant::now(), Duration::from_millis(20));
        assert!(watch.wait(begin.checked_add(tick)), "it goes on");
        assert!(begin.elapsed() >= tick, "nobody called");
        assert!(watch.call());
        let (begin, deadline) = far();
        assert!(watch.wait(deadline), "it goes on");
        assert!(begin.elapsed() < LONG, "somebody called");
        let begin = Instant::now();
        assert!(watch.wait(begin.checked_add(tick)));
        assert!(begin.elapsed() >= tick, "that was the last one's call");
        watch.stop();
        let (begin, deadline) = far();
        assert!(!watch.wait(deadline), "it ends");
        assert!(begin.elapsed() < LONG, "it was stopped");
        assert!(!watch.call() && !watch.begins(), "and none is started");
    }

    #[test]
    fn a_dormant_monitor_comes_back_when_called_and_ends_when_not() {
        let watch = Watch::new(Mutant::None);
        assert!(watch.begins(), "there is none yet");
        assert!(!watch.begins() && !watch.call(), "there is one");
        // That was a call.
        let (begin, deadline) = far();
        assert!(watch.fall_dormant(deadline, || false), "it is called");
        assert!(begin.elapsed() < LONG, "somebody called");
        assert!(!watch.begins(), "it is awake");
        assert!(watch.fall_dormant(Some(begin), || true), "a block is in hand");
        assert!(!watch.begins(), "it is awake");
        let (begin, quiet) = (Instant::now(), Duration::from_millis(20));
        assert!(!watch.fall_dormant(begin.checked_add(quiet), || false), "it ends");
        assert!(begin.elapsed() >= quiet, "nobody called");
        assert!(watch.begins(), "another one is to be started");
        watch.stop();
        let (begin, deadline) = far();
        assert!(!watch.fall_dormant(deadline, || false), "it ends");
        assert!(begin.elapsed() < LONG, "it was stopped");
    }

    #[test]
    fn a_monitor_falls_dormant_after_so_many_quiet_ticks_in_a_row() {
        for (busy, starving) in [(true, false), (false, true), (true, true)] {
            let mut quiet = Quiet::default();
            for _ in 0..2 {
                for _ in 1..QUIET_TICKS {
                    assert!(!quiet.lasts(false, false));
                }
                assert!(!quiet.lasts(busy, starving));
            }
            for _ in 1..QUIET_TICKS {
                assert!(!quiet.lasts(false, false));
            }
            assert!(quiet.lasts(false, false));
        }
    }

    #[test]
    fn what_fails_is_tried_again_ever_more_rarely() {
        let mut patience = Patience::default();
        let gaps = [0; 10].map(|_| 1 + (0..).take_while(|_| !patience.is_over()).count());
        assert_eq!(gaps, [1, 2, 3, 5, 9, 17, 33, 65, 65, 65]);
    }

    #[test]
    fn a_tick_is_half_of_the_shortest_time_to_be_noticed() {
        let ms = Duration::from_millis;
        for starving in [false, true] {
            assert_eq!(tick(ms(20), None, starving), ms(10));
            assert_eq!(tick(ms(20), Some(ms(6)), starving), ms(3));
            assert_eq!(tick(ms(20), Some(ms(60)), starving), ms(10));
            assert_eq!(tick(ms(1), None, starving), ms(1));
        }
    }

    #[test]
    fn a_patient_pool_has_a_monitor_that_falls_dormant_and_tries_again_to_start_workers() {
        let ms = Duration::from_millis;
        for patience in [ms(5_000), Duration::MAX] {
            assert_eq!(tick(patience, None, false), LONGEST_TICK);
            assert_eq!(tick(patience, Some(patience), true), STARVING_TICK);
        }
    }
}
