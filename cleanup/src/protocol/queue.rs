//! The full list: publishing and claiming, and the one place where the two protocols meet.
//!
//! Invariant: an item that was published is taken exactly once. While one is unclaimed, no worker
//! stays asleep, and no slot of a worker stays vacant that a thread is not about to fill. See
//! `PROTOCOL.md`.
//!
//! It does not know its items. The crate publishes blocks; the models publish numbers.

#![forbid(unsafe_code)]

use crate::protocol::claim::{Claim, Length};
use crate::protocol::sleep::{Demand, Next, Parking, Sleep, WorkerId};
use sexton_sync::{Injector, Ordering, Steal, fence};
use std::time::Duration;

/// The full list with its length and its workers.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    list: Injector<T>,
    length: Length,
    sleep: Sleep,
}

impl<T> Queue<T> {
    /// Makes a queue for at most `max` workers, which leave after an idle time of `keep_alive`.
    pub(crate) fn new(max: usize, keep_alive: Option<Duration>) -> Self {
        Queue { list: Injector::new(), length: Length::new(), sleep: Sleep::new(max, keep_alive) }
    }

    /// Publishes items, and wakes or demands a worker for each. Steps P1 to P4.
    pub(crate) fn publish(&self, items: impl IntoIterator<Item = T>) -> Demand {
        let mut n = 0;
        for item in items {
            self.list.push(item); // P1
            n += 1;
        }
        if n == 0 {
            return Demand::default();
        }
        self.length.add(n); // P2
        self.notify_workers()
    }

    /// Steps P3 and P4 alone: is there work, and a worker to be told?
    ///
    /// Publishers end with it. A waiter for the work's end begins with it, so that a worker that
    /// could not be started at the publish is tried again.
    pub(crate) fn notify_workers(&self) -> Demand {
        // PublishFence: pairs with SleepFence and LossFence in `sleep.rs`. Our addition to
        // `length` comes before our look at `asleep` and `workers`.
        fence(Ordering::SeqCst); // P3
        // P4. A length of 0 means that threads that are awake have claimed everything already.
        if self.length.get() > 0 && self.sleep.could_help() {
            self.sleep.wake(&self.length)
        } else {
            Demand::default()
        }
    }

    /// Publishes an item that a stalled worker cannot take care of. As [`publish`](Self::publish),
    /// but a worker may be added during a shutdown, too, as in place of one that died.
    pub(crate) fn publish_for_stalled(&self, item: T) -> Demand {
        self.list.push(item); // P1
        self.length.add(1); // P2
        fence(Ordering::SeqCst); // P3
        self.sleep.replace(&self.length)
    }

    /// Gives the next item for the worker that parks here, which sleeps until there is one. `None`:
    /// the worker is to leave, and no longer counted. Either the pool is shutting down and the list
    /// is empty, or there are too many workers, or it was idle for long.
    #[cfg(test)]
    pub(crate) fn next(&self, parking: &Parking) -> Option<T> {
        self.next_by(parking, || self.try_next())
    }

    /// Gives the next item, as `next` does, but `claim` asks for it.
    pub(crate) fn next_by(&self, parking: &Parking, claim: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            if self.sleep.has_surplus() && self.sleep.leave_surplus(parking.index) {
                return None;
            }
            if let Some(item) = claim() {
                return Some(item);
            }
            match self.sleep.sleep(parking, &self.length) {
                Next::Again => {}
                Next::Leave => return None,
            }
        }
    }

    /// Gives the next item, if one is unclaimed. Any thread may ask.
    #[inline]
    pub(crate) fn try_next(&self) -> Option<T> {
        let claim = self.length.try_claim()?; // C1
        Some(self.pop(claim)) // C2
    }

    /// Takes the item that the claim stands for.
    fn pop(&self, claim: Claim<'_>) -> T {
        loop {
            match self.list.steal() {
                Steal::Success(item) => {
                    claim.redeem();
                    return item;
                }
                // Another claimer was quicker with the front item; ours is behind it.
                Steal::Retry => std::hint::spin_loop(),
                Steal::Empty => {
                    claim.redeem();
                    unreachable!("a claim was granted, but the full list is empty");
                }
            }
        }
    }

    /// Tells whether the full list holds nothing, claimable or not: no publisher is between P1 and
    /// P2 either.
    pub(crate) fn is_drained(&self) -> bool {
        self.list.is_empty()
    }

    /// Demands workers for what is in the list, during a shutdown, too.
    pub(crate) fn replace(&self) -> Demand {
        fence(Ordering::SeqCst); // P3
        if self.length.get() > 0 { self.sleep.replace(&self.length) } else { Demand::default() }
    }

    /// Counts the unclaimed items, a moment ago.
    pub(crate) fn len(&self) -> usize {
        self.length.get()
    }

    /// Notes that this worker is on its thread.
    pub(crate) fn started(&self, id: WorkerId) {
        self.sleep.started(id);
    }

    /// Counts a worker out that is gone without having been told to leave. See [`Sleep::lost`].
    pub(crate) fn lost(&self, id: WorkerId) -> Demand {
        self.sleep.lost(id, &self.length)
    }

    /// Gives the length, for the models that take the steps one by one.
    #[cfg(all(test, loom))]
    pub(crate) fn length(&self) -> &Length {
        &self.length
    }

    /// Gives the workers' side, for shutdown and numbers.
    pub(crate) fn sleep(&self) -> &Sleep {
        &self.sleep
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_once_and_in_order() {
        let queue = Queue::new(0, None);
        assert!(queue.publish([1, 2, 3]).0.is_empty(), "a manual queue demands no worker");
        assert_eq!(queue.len(), 3);
        assert_eq!(std::iter::from_fn(|| queue.try_next()).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn publishing_nothing_wakes_nobody() {
        let queue = Queue::<u32>::new(1, None);
        assert!(queue.publish([]).0.is_empty());
        assert_eq!(queue.sleep().numbers().workers, 0);
    }

    #[test]
    #[should_panic(expected = "the full list is empty")]
    fn a_claim_on_an_empty_list_is_reported_as_the_bug_it_is() {
        let queue = Queue::<u32>::new(0, None);
        queue.length.add(1);
        queue.try_next();
    }
}
