//! The monitor: one thread per pool that looks after the workers, while they are at work.
//!
//! At each tick it looks at the runners. A cleanup that has run for long is reported to the pool's
//! hook. If it has stalled, the tail of its block is requeued. A worker that could not be started
//! is tried again.
//!
//! A tick is a timed wait, and sleeping workers rely on none. The monitor never looks for work that
//! a publisher should have woken a worker for. Once no block is in hand it falls *dormant*, and
//! waits without a deadline.
//!
//! It *lets go* of a block whose tail was requeued and whose cleanup was reported. A cleanup that
//! never returns does not keep it awake. A runner that goes on in such a block asks again to be
//! watched.
//!
//! Most pools never have one: it is started for the first block that needs it.

#![forbid(unsafe_code)]

use crate::pool::state::Pool;
use sexton_sync::Arc;
use std::time::{Duration, Instant};

/// Ticks without a block in hand after which the monitor falls dormant. Many, so that a steady
/// stream of cleanups does not pay for a wake each time.
const MOST_IDLE_TICKS: u32 = 50;

/// Ticks between two attempts to start a worker, at most.
const LONGEST_BACKOFF: u32 = 64;

/// A monitor, to be [run](Self::run) on a thread of its own. If it is dropped instead, another one
/// is tried when it is wanted again.
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
        let mut idle = IdleTicks::default();
        let mut backoff = Backoff::default();
        loop {
            let busy = self.pool.inspect(Instant::now());
            let starving = self.pool.is_starving();
            if starving && backoff.is_over() {
                self.pool.retry();
            }
            let goes_on = if idle.lasts(busy, starving) {
                backoff = Backoff::default();
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
struct IdleTicks {
    ticks: u32,
}

impl IdleTicks {
    /// Counts one more tick. Whether it is time to fall dormant.
    fn lasts(&mut self, busy: bool, starving: bool) -> bool {
        self.ticks = if busy || starving { 0 } else { self.ticks + 1 };
        self.ticks >= MOST_IDLE_TICKS
    }
}

/// When to try again what failed: after 1, 2, 4, ... ticks.
#[derive(Debug, Default)]
struct Backoff {
    ticks: u32,
    needed: u32,
}

impl Backoff {
    fn is_over(&mut self) -> bool {
        self.ticks += 1;
        let over = self.ticks > self.needed;
        if over {
            self.ticks = 0;
            self.needed = (self.needed * 2).clamp(1, LONGEST_BACKOFF);
        }
        over
    }
}

/// The longest time between two looks of a monitor that is awake, so that it falls dormant some
/// day.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// The same while a worker could not be started, however long `stall_after` is.
const STARVING_TICK: Duration = Duration::from_millis(10);

/// Tells how often a monitor looks, for cleanups that stall or are slow after these times: at least
/// twice in each, if that is not long.
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

    #[test]
    fn a_monitor_falls_dormant_after_fifty_idle_ticks_in_a_row() {
        for (busy, starving) in [(true, false), (false, true), (true, true)] {
            let mut idle = IdleTicks::default();
            for _ in 0..2 {
                for _ in 1..MOST_IDLE_TICKS {
                    assert!(!idle.lasts(false, false));
                }
                assert!(!idle.lasts(busy, starving));
            }
            for _ in 1..MOST_IDLE_TICKS {
                assert!(!idle.lasts(false, false));
            }
            assert!(idle.lasts(false, false));
        }
    }

    #[test]
    fn what_fails_is_tried_again_ever_more_rarely() {
        let mut backoff = Backoff::default();
        let gaps = [0; 10].map(|_| 1 + (0..).take_while(|_| !backoff.is_over()).count());
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
        for long in [ms(5_000), Duration::MAX] {
            assert_eq!(tick(long, None, false), LONGEST_TICK);
            assert_eq!(tick(long, Some(long), true), STARVING_TICK);
        }
    }
}
