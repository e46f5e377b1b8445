//! Bytes outside the heap: how many its payloads own, and how many a program has charged to it.
//!
//! Invariant: these numbers say when to collect, and what has room under the limit. What a cycle
//! frees does not depend on them. They are Relaxed, each for itself.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The bytes outside one heap.
#[derive(Default)]
pub(crate) struct External {
    /// What payloads own, as far as it is known. Too little may have been seen of what is taken
    /// off, so that it is below zero.
    owned: AtomicI64,
    /// What a program has charged.
    charged: Gauge,
    /// What payloads own, and what sessions are expected to bring.
    ahead: AtomicI64,
}

/// The most that one change counts for: more than a process can have.
const MOST: u64 = 1 << 48;

/// Gives a number of bytes as a change.
#[inline]
pub(crate) fn change(bytes: usize) -> i64 {
    (bytes as u64).min(MOST) as i64
}

/// Adds without overflow, as a hand-written `external_bytes` may say anything.
fn add(sum: &AtomicI64, bytes: i64) {
    sum.update(Relaxed, Relaxed, |sum| sum.saturating_add(bytes));
}

impl External {
    /// Gives all bytes outside the heap.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.owned().saturating_add(self.charged.count())
    }

    /// Gives the bytes that payloads own.
    #[inline]
    pub(crate) fn owned(&self) -> u64 {
        u64::try_from(self.owned.load(Relaxed)).unwrap_or(0)
    }

    /// Gives all bytes outside the heap, and those that sessions are expected to bring.
    #[inline]
    pub(crate) fn ahead(&self) -> u64 {
        (self.ahead.load(Relaxed).max(0) as u64).saturating_add(self.charged.count())
    }

    /// Takes note that payloads own more by this number, or less.
    pub(crate) fn add(&self, bytes: i64) {
        add(&self.owned, bytes);
        add(&self.ahead, bytes);
    }

    /// Takes note that sessions are expected to bring more by this number, or less.
    pub(crate) fn expect(&self, bytes: i64) {
        add(&self.ahead, bytes);
    }

    /// Takes note that a program has charged that many bytes.
    pub(crate) fn charge(&self, bytes: u64) {
        self.charged.charge(bytes);
    }

    /// Takes note that a program has released that many bytes. Tells whether it has never had so
    /// few charged since the last cycle.
    pub(crate) fn release(&self, bytes: u64) -> bool {
        self.charged.lower(self.charged.release(bytes).1)
    }

    /// Replaces what was known at the `before` of a sweep by what the sweep has `seen`. What has
    /// been added in between stays.
    pub(crate) fn recount(&self, before: u64, seen: u64) {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.add(signed(seen) - signed(before));
    }

    /// Gives the count of what was charged.
    pub(crate) fn charged(&self) -> &Gauge {
        &self.charged
    }
}

/// A count that goes up and down, and the least that it has been since the last cycle.
#[derive(Default)]
pub(crate) struct Gauge {
    count: AtomicU64,
    least: AtomicU64,
}

impl Gauge {
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Gives the least that it has been since the last cycle: what is likely to stay.
    pub(crate) fn least(&self) -> u64 {
        self.least.load(Relaxed)
    }

    /// Counts `n` more, and gives the sum.
    pub(crate) fn charge(&self, n: u64) -> u64 {
        self.change(|count| count.saturating_add(n)).1
    }

    /// Counts `n` less. Gives the count before and after.
    pub(crate) fn release(&self, n: u64) -> (u64, u64) {
        self.change(|count| count.saturating_sub(n))
    }

    /// Takes note that the count is as low as that. Tells whether it has never been since the last
    /// cycle.
    pub(crate) fn lower(&self, count: u64) -> bool {
        count < self.least.fetch_min(count, Relaxed)
    }

    fn change(&self, f: impl Fn(u64) -> u64) -> (u64, u64) {
        let mut count = self.count();
        loop {
            match self.count.compare_exchange_weak(count, f(count), Relaxed, Relaxed) {
                Ok(before) => return (before, f(before)),
                Err(other) => count = other,
            }
        }
    }

    /// Takes note that a cycle has ended. Gives the count.
    pub(crate) fn begin_again(&self) -> u64 {
        let count = self.count();
        self.least.store(count, Relaxed);
        count
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_recount_replaces_what_was_known_before_and_keeps_what_came_since() {
        let external = External::default();
        external.add(1000);
        let before = external.owned();
        external.add(30);
        external.recount(before, 200);
        assert_eq!(external.owned(), 230);
        // A mistake of one cycle is gone after the next.
        external.add(-1_000_000);
        assert_eq!(external.owned(), 0);
    }

    #[test]
    fn the_sum_follows_all_changes() {
        let external = External::default();
        external.add(100);
        external.charge(1 << 50);
        external.charge(1 << 50);
        external.expect(7);
        assert_eq!(external.ahead(), 107 + (1 << 51));
        assert!(!external.release(1 << 51), "the least was zero");
        external.expect(-7);
        assert_eq!((external.ahead(), external.bytes()), (100, 100));
    }

    #[test]
    fn no_sum_overflows_whatever_is_counted() {
        let external = External::default();
        for _ in 0..1 << 16 {
            external.charge(u64::MAX);
            external.add(change(usize::MAX));
            external.expect(change(usize::MAX));
        }
        assert_eq!((external.ahead(), external.bytes()), (u64::MAX, u64::MAX));
        external.recount(external.owned(), u64::MAX);
        external.recount(external.owned(), 5);
        external.release(u64::MAX);
        assert_eq!(external.bytes(), 5);
    }

    #[test]
    fn a_gauge_never_overflows_and_knows_its_least() {
        let gauge = Gauge::default();
        let release = |n| gauge.lower(gauge.release(n).1);
        assert_eq!(gauge.charge(u64::MAX), u64::MAX);
        assert_eq!(gauge.charge(1), u64::MAX);
        assert_eq!(gauge.begin_again(), u64::MAX);
        assert!(release(u64::MAX - 10));
        gauge.charge(5);
        assert!(!release(5), "it has been as low");
        assert_eq!((gauge.count(), gauge.least()), (10, 10));
        assert!(release(100));
        assert_eq!((gauge.count(), gauge.least()), (0, 0));
    }
}
