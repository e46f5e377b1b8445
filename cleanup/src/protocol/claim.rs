//! Protocol 1: the length of the full list, and the claim that entitles to a pop.
//!
//! Invariant: `length` plus the claims in hand never exceeds the number of items in the full list.
//! So the holder of a [`Claim`] will find one, and a thread without a claim has no reason to look.
//!
//! It does not know the items of the list, nor the sleepers; see [`queue`](crate::protocol::queue)
//! and [`sleep`](crate::protocol::sleep). `PROTOCOL.md` has the proof.

#![forbid(unsafe_code)]

use sexton_sync::{AtomicUsize, CachePadded, Ordering};

/// How many items of the full list are unclaimed.
#[derive(Debug)]
pub(crate) struct Length {
    /// Written by publishers (add) and claimers (decrement), always by read-modify-write, so that
    /// the additions of all publishers form one release sequence. Read without a lock by every
    /// thread.
    length: CachePadded<AtomicUsize>,
}

impl Length {
    pub(crate) fn new() -> Self {
        Length { length: CachePadded::new(AtomicUsize::new(0)) }
    }

    /// Makes `n` items claimable. Called only after all of them were pushed.
    #[inline]
    pub(crate) fn add(&self, n: usize) {
        // Release: pairs with the Acquire of `try_claim`. The pushes come before the claim they
        // allow.
        self.length.fetch_add(n, Ordering::Release);
    }

    /// Gives the number of unclaimed items a moment ago.
    ///
    /// Relaxed: a reader that must not miss an addition puts a SeqCst fence in front, the one named
    /// SleepFence or PublishFence where it stands.
    #[inline]
    pub(crate) fn get(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Takes one unit of length, if there is one: `n -> n - 1` for `n > 0`, by compare-exchange.
    ///
    /// A plain subtraction would have to be undone at zero, and in between another claimer would
    /// see a length that is too small.
    #[inline]
    pub(crate) fn try_claim(&self) -> Option<Claim<'_>> {
        // Relaxed: only a guess; the compare-exchange decides.
        let mut n = self.length.load(Ordering::Relaxed);
        while n > 0 {
            // Acquire: pairs with the Release in `add`, with all of them at once, because
            // read-modify-writes continue a release sequence. Relaxed on failure: the value is only
            // the next guess.
            match self.length.compare_exchange_weak(n, n - 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(Claim { length: self }),
                Err(now) => n = now,
            }
        }
        None
    }
}

/// The right to take exactly one item from the full list. No claim, no pop; neither `Copy` nor
/// `Clone`.
///
/// Dropping an unused claim gives the unit back, so that the item is not stranded.
#[derive(Debug)]
#[must_use = "a claim stands for an item that no other thread will take"]
pub(crate) struct Claim<'a> {
    length: &'a Length,
}

impl Claim<'_> {
    /// Uses the claim up: its item has been taken.
    #[inline]
    pub(crate) fn redeem(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.length.add(1);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_claims_as_were_added() {
        let length = Length::new();
        assert!(length.try_claim().is_none());
        length.add(2);
        let first = length.try_claim().expect("two were added");
        let second = length.try_claim().expect("two were added");
        assert!(length.try_claim().is_none());
        first.redeem();
        second.redeem();
        assert_eq!(length.get(), 0);
    }

    #[test]
    fn an_unused_claim_is_given_back() {
        let length = Length::new();
        length.add(1);
        drop(length.try_claim());
        assert_eq!(length.get(), 1);
    }
}
