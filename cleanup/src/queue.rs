//! The full list: what is published, by whom it is claimed, and the one place where the two protocols meet.
//!
//! Invariant: what was published is taken exactly once, and while something is unclaimed, no worker stays
//! asleep and no vacancy stays open that somebody is not about to fill. See `PROTOCOL.md`.
//!
//! It does not know what an item is. The crate publishes blocks; the models publish numbers.

#![forbid(unsafe_code)]

use crate::claim::{Claim, Length};
use crate::mutant::Mutant;
use crate::sleep::{Demand, Next, Opening, Sleep};
use crate::sync::{Injector, Ordering, Steal, fence};

/// The full list with its length and its crew.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    list: Injector<T>,
    length: Length,
    sleep: Sleep,
    mutant: Mutant,
}

impl<T> Queue<T> {
    /// A queue for at most `max` workers. `mutant` is [`Mutant::None`] but in models.
    pub(crate) fn new(max: usize, mutant: Mutant) -> Self {
        Queue {
            list: Injector::new(),
            length: Length::new(),
            sleep: Sleep::new(max, mutant),
            mutant,
        }
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
        if self.mutant.is(Mutant::LengthAfterLook) {
            let help = self.sleep.could_help();
            self.length.add(n);
            return if help { self.sleep.wake(&self.length) } else { Demand::default() };
        }
        self.length.add(n); // P2
        self.look()
    }

    /// Steps P3 and P4 alone: is there work, and somebody to be told?
    ///
    /// Publishers end with it. A waiter for the work's end begins with it, so that a worker that could not
    /// be started at the publish is tried again.
    pub(crate) fn look(&self) -> Demand {
        if !self.mutant.is(Mutant::NoPublishFence) {
            // PublishFence: pairs with SleepFence and LossFence in `sleep.rs`. Our addition to `length`
            // comes before our look at `asleep` and `workers`.
            fence(Ordering::SeqCst); // P3
        }
        // P4. A length of 0 means that somebody awake has claimed everything already.
        if self.length.get() > 0 && self.sleep.could_help() {
            self.sleep.wake(&self.length)
        } else {
            Demand::default()
        }
    }

    /// The next item for worker `index`, which sleeps until there is one. `None`: the pool is shutting
    /// down, the list is empty, and this worker is no longer counted.
    pub(crate) fn next(&self, index: usize) -> Option<T> {
        loop {
            if let Some(item) = self.try_next() {
                return Some(item);
            }
            match self.sleep.sleep(index, &self.length) {
                Next::Again => {}
                Next::Leave => return None,
            }
        }
    }

    /// The next item, if one is unclaimed. Any thread may ask.
    #[inline]
    pub(crate) fn try_next(&self) -> Option<T> {
        let claim = self.length.try_claim()?;
        Some(self.pop(claim))
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

    /// Unclaimed items, a moment ago.
    pub(crate) fn len(&self) -> usize {
        self.length.get()
    }

    /// The worker of this opening is on its thread.
    pub(crate) fn started(&self, opening: Opening) {
        self.sleep.started(opening);
    }

    /// A worker is gone without having been told to leave. See [`Sleep::lost`].
    pub(crate) fn lost(&self, opening: Opening) -> Demand {
        self.sleep.lost(opening, &self.length)
    }

    /// The length, for the models that take the steps one by one.
    #[cfg(all(test, loom))]
    pub(crate) fn length(&self) -> &Length {
        &self.length
    }

    /// The crew, for shutdown and numbers.
    pub(crate) fn crew(&self) -> &Sleep {
        &self.sleep
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_once_and_in_order() {
        let queue = Queue::new(0, Mutant::None);
        assert!(queue.publish([1, 2, 3]).0.is_empty(), "a manual queue demands nobody");
        assert_eq!(queue.len(), 3);
        assert_eq!(std::iter::from_fn(|| queue.try_next()).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn publishing_nothing_wakes_nobody() {
        let queue = Queue::<u32>::new(1, Mutant::None);
        assert!(queue.publish([]).0.is_empty());
        assert_eq!(queue.crew().numbers(), (0, 0, 0));
    }

    #[test]
    #[should_panic(expected = "the full list is empty")]
    fn a_claim_on_an_empty_list_is_reported_as_the_bug_it_is() {
        let queue = Queue::<u32>::new(0, Mutant::None);
        queue.length.add(1);
        queue.try_next();
    }
}
