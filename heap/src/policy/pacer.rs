//! The pacer: when is it worth collecting?
//!
//! It compares what has been allocated since the last cycle with what survived that cycle, and both
//! with the heap's limit. Bytes outside the heap count like those of slots. It knows neither how a
//! collection works nor when sessions end.
//!
//! Invariant: unless pacing is manual, an allocation that was refused because of the limit makes a
//! cycle due; so no heap stays full of garbage.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use sexton_sync::{Arc, Mutex, fields};

use crate::memory::external::{External, Gauge};

/// When a heap collects by itself. The question is asked at the end of every session.
///
/// A limit (`max_bytes`) makes it collect earlier, `Manual` excepted. It collects when half of what
/// the limit leaves beside `live` has been allocated, and when an allocation has been refused.
/// `min_bytes` and `growth` do not matter then.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Pacing {
    /// Collects when more than `max(min_bytes, live * growth)` bytes have been allocated.
    ///
    /// The count begins at the last cycle, and `live` are the bytes that survived it. Bytes outside
    /// the heap count in both: those that payloads own, and those [charged](crate::ExternalBytes).
    /// If a session has brought many of them, a cycle is due already when another such session
    /// would exceed the number.
    Automatic {
        /// Never collect before this many bytes have been allocated, unless the limit is near.
        ///
        /// In a `Shared` heap the number is multiplied by that of the mutators that allocate.
        /// Those were attached at the last cycle, and had allocated since the cycle before it.
        min_bytes: u64,
        /// Garbage tolerated per live byte; 1.0 lets the heap double (Go's `GOGC=100`).
        ///
        /// A value that is negative or not a number counts as 0.
        growth: f64,
    },
    /// The default: as `Automatic` with a growth of 1.0, but a small heap may grow by more.
    ///
    /// It may grow by the geometric mean of `live` and [`BALANCE_BYTES`](Pacing::BALANCE_BYTES). A
    /// heap of 8 MiB grows by 32 before the next cycle, one of 128 MiB or more doubles.
    ///
    /// A cycle costs time in proportion to `live`. With a growth of 1.0 its share for each byte
    /// allocated is the same in every heap. But the memory saved by it is worth less in a small
    /// heap. The sum of both prices is least if the heap grows by the square root of `live`. See
    /// Kirisame et al., *Optimal Heap Limits for Reducing Browser Memory Use*, OOPSLA 2022.
    Balanced {
        /// As in `Automatic`.
        min_bytes: u64,
    },
    /// Only `Heap::collect` collects, even if the heap is full.
    Manual,
}

impl Pacing {
    /// Bytes allocated before the first automatic collection, by default: 1 MiB.
    ///
    /// So a program which makes only garbage stays in a second-level cache.
    pub const DEFAULT_MIN_BYTES: u64 = 1 << 20;

    /// Live bytes from which on a heap with [`Pacing::Balanced`] doubles: 128 MiB.
    pub const BALANCE_BYTES: u64 = 128 << 20;
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing::Balanced { min_bytes: Self::DEFAULT_MIN_BYTES }
    }
}

/// The pacing of one heap. Its numbers are Relaxed: they say when to collect, and what a cycle
/// frees does not depend on them.
pub(crate) struct Pacer {
    pacing: Pacing,
    max_bytes: u64,
    /// Bytes in use, here and outside, cleanups counted in, above which the next cycle is due by
    /// the policy, or the next slice of the one under way. A thread that works in the background
    /// sets it, too.
    trigger: fields::AtomicU64,
    /// Bytes in use at which a cycle in slices is to have ended.
    goal: fields::AtomicU64,
    /// Bytes in use above which it is due because of the limit, which knows no cleanups.
    limit_trigger: AtomicU64,
    /// Bytes that a session may allocate after a slice has become due, before it has one itself.
    patience: AtomicU64,
    /// Bytes that count for the limit beside those in use.
    overhead: AtomicU64,
    /// Bytes of cleanup records registered since the last cycle, as far as mutators have told.
    cleanup_bytes: AtomicU64,
    /// Why a session's end has something to do whatever is in use: of [`REFUSED`], [`QUOTA`],
    /// [`SHORT`] and [`ENDED`].
    reasons: AtomicU8,
    external: Arc<External>,
    /// What payloads in the root own outside the heap, which no sweep sees.
    root_bytes: AtomicU64,
    /// Bytes that have survived the last cycle, and those charged at its end.
    survived: AtomicU64,
    charged: AtomicU64,
    allocating: AtomicU64,
    /// What charges that were released since then have lowered the trigger by.
    lowered: AtomicU64,
    quotas: Mutex<Vec<Arc<CountOfQuota>>>,
}

/// An allocation has been refused since the last cycle.
const REFUSED: u8 = 1;
/// Half of what a quota leaves beside what has stayed is used up.
const QUOTA: u8 = 2;
/// A quota is nearly used up.
const SHORT: u8 = 4;
/// A cycle has ended within a session, and no session's end has told of it. Nothing is to be
/// collected for that.
const ENDED: u8 = 8;

/// What is in use of a quota.
pub(crate) struct CountOfQuota {
    count: Gauge,
    most: u64,
}

impl CountOfQuota {
    /// Says whether a cycle is due.
    fn reasons(&self, count: u64) -> u8 {
        let least = self.count.least().min(count);
        let due = least.saturating_add(self.most.saturating_sub(least) / 2);
        match count > due {
            // However little is left: a cycle for each that is used would make no more room.
            false => 0,
            true if self.is_short(count) => QUOTA | SHORT,
            true => QUOTA,
        }
    }

    /// Tells whether no more than a quarter is left.
    fn is_short(&self, count: u64) -> bool {
        count > self.most - self.most / 4
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.count()
    }

    pub(crate) fn most(&self) -> u64 {
        self.most
    }
}

/// Bytes that a registered cleanup counts for: its record and its place in the span's table.
pub(crate) const CLEANUP_BYTES: u64 = 48;

impl Pacer {
    pub(crate) fn new(pacing: Pacing, max_bytes: u64) -> Self {
        let pacer = Pacer {
            pacing,
            max_bytes,
            trigger: fields::AtomicU64::new(0),
            goal: fields::AtomicU64::new(0),
            limit_trigger: AtomicU64::new(0),
            patience: AtomicU64::new(0),
            overhead: AtomicU64::new(0),
            cleanup_bytes: AtomicU64::new(0),
            reasons: AtomicU8::new(0),
            external: Arc::default(),
            root_bytes: AtomicU64::new(0),
            survived: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            allocating: AtomicU64::new(1),
            lowered: AtomicU64::new(0),
            quotas: Mutex::new(Vec::new()),
        };
        pacer.after_cycle(0, 1);
        pacer
    }

    /// Tells whether a cycle is due with this many bytes of slots in use.
    ///
    /// What a session is expected to bring outside the heap counts already. No cycle begins within
    /// a session. One that brings as much as the heap holds would begin below the trigger, and end
    /// far above it.
    #[inline]
    pub(crate) fn is_due(&self, bytes_in_use: u64) -> bool {
        self.is_due_for(bytes_in_use, !ENDED)
    }

    /// Tells whether a session's end has something to do: for a cycle that is due, or for one that
    /// has ended within a session.
    #[inline]
    pub(crate) fn is_end_due(&self, bytes_in_use: u64) -> bool {
        self.is_due_for(bytes_in_use, u8::MAX)
    }

    #[inline]
    fn is_due_for(&self, bytes_in_use: u64, reasons: u8) -> bool {
        let ahead = bytes_in_use.saturating_add(self.external.ahead());
        let cleanup_bytes = self.cleanup_bytes.load(Relaxed);
        ahead.saturating_add(cleanup_bytes) > self.trigger.load(Relaxed)
            || self.limited(ahead) > self.limit_trigger.load(Relaxed)
            || self.reasons.load(Relaxed) & reasons != 0
    }

    /// Takes note that a cycle has ended within a session. Called after
    /// [`after_cycle`](Self::after_cycle), which forgets those before.
    pub(crate) fn tell_of_end(&self) {
        self.reasons.fetch_or(ENDED, Relaxed);
    }

    /// Tells whether a cycle has ended within a session since this was asked last.
    pub(crate) fn take_end(&self) -> bool {
        self.reasons.fetch_and(!ENDED, Relaxed) & ENDED != 0
    }

    /// Gives the bytes in use, here and outside, with this many bytes of slots in use.
    #[inline]
    pub(crate) fn weight(&self, bytes_in_use: u64) -> u64 {
        bytes_in_use.saturating_add(self.external.bytes())
    }

    /// Gives the count of the bytes outside the heap.
    pub(crate) fn external(&self) -> &Arc<External> {
        &self.external
    }

    /// Sets what payloads in the root own outside the heap.
    pub(crate) fn set_root_bytes(&self, bytes: u64) {
        self.root_bytes.store(bytes, Relaxed);
    }

    /// Counts what a sweep has `seen` outside the heap, in place of what was known `before`. Gives
    /// the sum, with what the root owns.
    pub(crate) fn recount(&self, before: u64, seen: u64) -> u64 {
        let seen = seen.saturating_add(self.root_bytes.load(Relaxed));
        self.external.recount(before, seen);
        seen
    }

    /// Gives the bytes outside the heap that a mutator may keep from the others: none near a limit.
    #[inline]
    pub(crate) fn untold(&self) -> i64 {
        if self.max_bytes < u64::MAX { 0 } else { UNTOLD }
    }

    /// Takes note that a program has charged that many bytes.
    pub(crate) fn charge(&self, bytes: u64) {
        self.external.charge(bytes);
    }

    /// Takes note that a program has released that many bytes.
    ///
    /// What a cleanup releases has been counted as alive by the cycle that queued the cleanup. So
    /// the next cycle is due earlier by what that has put it off.
    pub(crate) fn release(&self, bytes: u64) {
        if self.external.release(bytes) {
            let now = self.external.charged().least();
            let then = self.charged.load(Relaxed);
            let trigger = |charged: u64| {
                let live = self.survived.load(Relaxed).saturating_add(charged);
                self.trigger_after(live, self.allocating.load(Relaxed))
            };
            let lowered = trigger(then).saturating_sub(trigger(now));
            let by = lowered.saturating_sub(self.lowered.fetch_max(lowered, Relaxed));
            // A cycle that ends at this moment may lose one of both. It costs a cycle, or puts it
            // off.
            for trigger in [&self.goal, &self.trigger] {
                trigger.store(trigger.load(Relaxed).saturating_sub(by), Relaxed);
            }
        }
    }

    /// Makes a quota of `most`.
    pub(crate) fn quota(&self, most: u64) -> Arc<CountOfQuota> {
        let quota = Arc::new(CountOfQuota { count: Gauge::default(), most });
        let mut quotas = self.quotas.lock();
        // The others are of no use to any thread.
        quotas.retain(|quota| Arc::strong_count(quota) > 1);
        quotas.push(quota.clone());
        quota
    }

    /// Takes note that `n` more are in use of a quota.
    pub(crate) fn charge_quota(&self, quota: &CountOfQuota, n: u64) {
        let reasons = quota.reasons(quota.count.charge(n));
        if reasons != 0 && self.pacing != Pacing::Manual {
            self.reasons.fetch_or(reasons, Relaxed);
        }
    }

    /// Takes note that `n` less are in use of a quota.
    pub(crate) fn release_quota(&self, quota: &CountOfQuota, n: u64) {
        quota.count.lower(quota.count.release(n).1);
    }

    /// Tells whether a quota is nearly used up.
    pub(crate) fn has_short_quota(&self) -> bool {
        self.quotas.lock().iter().any(|quota| quota.is_short(quota.count()))
    }

    /// Tells whether a slice has been due for so long that a session must not go on without one.
    pub(crate) fn is_overdue(&self, bytes_in_use: u64) -> bool {
        self.is_due(bytes_in_use.saturating_sub(self.patience.load(Relaxed)))
    }

    /// Sets how much a session may allocate after a slice has become due, before it has one itself.
    pub(crate) fn set_patience(&self, bytes: u64) {
        self.patience.store(bytes, Relaxed);
    }

    /// Gives what counts for the limit, with this many bytes in use.
    #[inline]
    fn limited(&self, bytes_in_use: u64) -> u64 {
        bytes_in_use.saturating_add(self.overhead.load(Relaxed))
    }

    /// Gives what counts for the limit, with this many bytes of slots in use.
    pub(crate) fn counted(&self, bytes_in_use: u64) -> u64 {
        self.limited(self.weight(bytes_in_use))
    }

    /// Gives the bytes in use at which this many bytes count for the limit.
    fn in_use_at(&self, limited: u64) -> u64 {
        limited.saturating_sub(self.overhead.load(Relaxed))
    }

    /// Sets how many bytes count for the limit beside those in use.
    pub(crate) fn set_overhead(&self, bytes: u64) {
        self.overhead.store(bytes, Relaxed);
    }

    /// Takes note that cleanups of `bytes` bytes have been registered.
    pub(crate) fn charge_cleanups(&self, bytes: u64) {
        self.cleanup_bytes.fetch_add(bytes, Relaxed);
    }

    /// Takes note that `bytes` bytes found no room under the limit.
    pub(crate) fn refuse(&self, bytes: u64) {
        // What does not fit into an empty heap, no cycle makes room for.
        if self.pacing != Pacing::Manual && bytes <= self.max_bytes {
            self.reasons.fetch_or(REFUSED, Relaxed);
        }
    }

    /// Tells whether an allocation that a cycle might make room for was refused since the last one.
    #[inline]
    pub(crate) fn has_refused(&self) -> bool {
        self.reasons.load(Relaxed) & REFUSED != 0
    }

    /// Sets the next triggers from what survived, for `allocating` mutators that allocate. What is
    /// charged at this moment is added to that.
    pub(crate) fn after_cycle(&self, survived: u64, allocating: u64) {
        self.reasons.store(0, Relaxed);
        self.quotas.lock().iter().for_each(|quota| _ = quota.count.begin_again());
        self.cleanup_bytes.store(0, Relaxed);
        let charged = self.external.charged().begin_again();
        let live_bytes = survived.saturating_add(charged);
        self.survived.store(survived, Relaxed);
        self.charged.store(charged, Relaxed);
        self.allocating.store(allocating, Relaxed);
        self.lowered.store(0, Relaxed);
        // Half, so that the session before the cycle has room, too: as much, at least, as has been
        // used since the last one. A cycle can be put off by no more than as much again; so near
        // the limit it is had at most twice as often as it must be. With nothing allocated it is
        // never due, however little is left.
        let limit_trigger = match self.pacing {
            Pacing::Manual => u64::MAX,
            _ => {
                let taken = self.limited(live_bytes);
                taken.saturating_add(self.max_bytes.saturating_sub(taken) / 2)
            }
        };
        let trigger = self.trigger_after(live_bytes, allocating);
        self.limit_trigger.store(limit_trigger, Relaxed);
        // A cycle in slices is to end before the limit makes it urgent.
        self.goal.store(trigger.min(self.in_use_at(limit_trigger)), Relaxed);
        self.trigger.store(trigger, Relaxed);
    }

    /// Gives the trigger after a cycle that this many bytes survived.
    fn trigger_after(&self, live_bytes: u64, allocating: u64) -> u64 {
        let least = |min_bytes: u64| min_bytes.saturating_mul(allocating.max(1));
        match self.pacing {
            Pacing::Manual => u64::MAX,
            Pacing::Automatic { min_bytes, growth } => {
                // A float-to-integer cast saturates, and takes negative and NaN to 0.
                let headroom = (live_bytes as f64 * growth) as u64;
                live_bytes.saturating_add(headroom.max(least(min_bytes)))
            }
            Pacing::Balanced { min_bytes } => {
                let mean = (live_bytes as f64 * Pacing::BALANCE_BYTES as f64).sqrt() as u64;
                live_bytes.saturating_add(mean.max(live_bytes).max(least(min_bytes)))
            }
        }
    }

    /// Gives the bytes in use at which a cycle in slices is to have ended.
    pub(crate) fn goal(&self) -> u64 {
        self.goal.load(Relaxed)
    }

    /// Puts the goal off, and the next cycle, by this many bytes.
    pub(crate) fn begin_late(&self, bytes: u64) {
        let limit = self.in_use_at(self.limit_trigger.load(Relaxed));
        let goal = self.goal.load(Relaxed).saturating_add(bytes);
        self.goal.store(goal.min(limit), Relaxed);
        self.trigger.store(self.trigger.load(Relaxed).saturating_add(bytes), Relaxed);
    }

    /// Makes the next cycle due `early` bytes before the goal, so that it ends there.
    pub(crate) fn begin_early(&self, early: u64) {
        self.trigger.store(self.goal.load(Relaxed).saturating_sub(early), Relaxed);
    }

    /// Makes the next slice of a cycle due at this many bytes in use, unless pacing is manual.
    ///
    /// Cleanups that are registered by now do not make it due earlier: the cycle is for them, too.
    pub(crate) fn set_next_slice(&self, bytes: u64) {
        if self.pacing != Pacing::Manual {
            let cleanup_bytes = self.cleanup_bytes.load(Relaxed);
            self.trigger.store(bytes.saturating_add(cleanup_bytes), Relaxed);
        }
    }

    /// Tells whether a cycle must not wait, because the heap's limit is near or was reached, or a
    /// quota is nearly used up.
    pub(crate) fn is_urgent(&self, bytes_in_use: u64) -> bool {
        self.limited(self.weight(bytes_in_use)) > self.limit_trigger.load(Relaxed)
            || self.reasons.load(Relaxed) & (REFUSED | SHORT) != 0
    }
}

/// Bytes outside the heap that a mutator of a heap without a limit keeps from the others.
const UNTOLD: i64 = 64 << 10;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    impl Pacer {
        /// Tells whether a cycle is due with `bytes` in use, and cleanups of `cleanup_bytes`
        /// registered.
        fn would_be_due(&self, bytes: u64, cleanup_bytes: u64) -> bool {
            self.cleanup_bytes.store(cleanup_bytes, Relaxed);
            self.is_due(bytes)
        }
    }

    const MIB: u64 = 1 << 20;
    const NO_LIMIT: u64 = u64::MAX;

    /// Tells whether a cycle is due above that number of bytes, and not before.
    fn is_due_above(pacer: &Pacer, bytes: u64) -> bool {
        !pacer.would_be_due(bytes, 0) && pacer.would_be_due(bytes + 1, 0)
    }

    #[test]
    fn a_cycle_is_due_when_garbage_exceeds_the_larger_of_minimum_and_growth() {
        let pacer = Pacer::new(Pacing::Automatic { min_bytes: 100, growth: 0.5 }, NO_LIMIT);
        assert!(is_due_above(&pacer, 100));
        pacer.after_cycle(1000, 1);
        assert!(is_due_above(&pacer, 1500));
        assert!(!pacer.would_be_due(1400, 100) && pacer.would_be_due(1400, 101));
        pacer.after_cycle(20, 1);
        assert!(is_due_above(&pacer, 120));
    }

    #[test]
    fn the_minimum_is_for_each_mutator_that_allocates() {
        for pacing in [
            Pacing::Automatic { min_bytes: 100, growth: 0.5 },
            Pacing::Balanced { min_bytes: 50 << 20 },
        ] {
            let pacer = Pacer::new(pacing, NO_LIMIT);
            let (Pacing::Automatic { min_bytes, .. } | Pacing::Balanced { min_bytes }) = pacing
            else {
                unreachable!("both have one")
            };
            for (allocating, times) in [(0, 1), (1, 1), (3, 3)] {
                pacer.after_cycle(16, allocating);
                assert!(is_due_above(&pacer, 16 + times * min_bytes), "{allocating}");
            }
            // Nor does it overflow.
            pacer.after_cycle(1, u64::MAX);
            assert!(!pacer.would_be_due(1 << 40, 0));
        }
    }

    #[test]
    fn a_small_heap_may_grow_by_more_than_it_holds() {
        let pacer = Pacer::new(Pacing::Balanced { min_bytes: MIB }, NO_LIMIT);
        for (live, headroom) in [
            (0, MIB),
            (1 << 10, MIB),
            (2 * MIB, 16 * MIB),
            (8 * MIB, 32 * MIB),
            (128 * MIB, 128 * MIB),
            (1 << 30, 1 << 30),
        ] {
            pacer.after_cycle(live, 1);
            assert!(is_due_above(&pacer, live + headroom), "{live}");
        }
        pacer.after_cycle(u64::MAX, 1);
        assert!(!pacer.would_be_due(u64::MAX, u64::MAX));
    }

    #[test]
    fn half_of_what_the_limit_leaves_may_be_allocated() {
        let pacer = Pacer::new(Pacing::default(), 24 * MIB);
        assert!(is_due_above(&pacer, MIB), "the minimum comes first");
        for (live, trigger) in [(8, 16), (16, 20), (22, 23)] {
            pacer.after_cycle(live * MIB, 1);
            assert!(is_due_above(&pacer, trigger * MIB), "{live}");
        }
        // The limit is above the minimum, and below what one cycle to the next may take.
        assert!(is_due_above(&Pacer::new(Pacing::default(), MIB), MIB / 2));
    }

    #[test]
    fn a_heap_that_is_almost_full_is_not_collected_for_nothing() {
        let pacer = Pacer::new(Pacing::default(), MIB);
        for left in [0, 1, 15, 16, 31] {
            pacer.after_cycle(MIB - left, 1);
            assert!(!pacer.would_be_due(MIB - left, 0), "{left}");
            // Cleanups take no room that the limit knows.
            assert!(!pacer.would_be_due(MIB - left, 1000), "{left}");
        }
        // One more would fit: it is not due yet. With that one, it is.
        pacer.after_cycle(MIB - 32, 1);
        assert!(!pacer.would_be_due(MIB - 16, 0) && pacer.would_be_due(MIB, 0));
        for tiny in [0, 1, 16] {
            assert!(is_due_above(&Pacer::new(Pacing::default(), tiny), tiny / 2), "{tiny}");
        }
    }

    #[test]
    fn a_refused_allocation_makes_a_cycle_due_once() {
        let pacer = Pacer::new(Pacing::default(), 100);
        pacer.refuse(16);
        assert!(pacer.has_refused() && pacer.would_be_due(0, 0));
        pacer.after_cycle(100, 1);
        assert!(!pacer.has_refused() && !pacer.would_be_due(100, 0));
    }

    #[test]
    fn what_could_never_fit_makes_no_cycle_due() {
        let pacer = Pacer::new(Pacing::default(), 100);
        pacer.refuse(101);
        assert!(!pacer.would_be_due(0, 0));
        pacer.refuse(100);
        assert!(pacer.would_be_due(0, 0));
    }

    #[test]
    fn with_manual_pacing_no_cycle_is_ever_due() {
        let pacer = Pacer::new(Pacing::Manual, 100);
        pacer.refuse(16);
        assert!(!pacer.would_be_due(100, u64::MAX) && !pacer.has_refused());
        pacer.after_cycle(100, 1);
        assert!(!pacer.would_be_due(100, u64::MAX));
    }

    #[test]
    fn only_cleanups_registered_since_the_last_slice_make_the_next_one_due() {
        let pacer = Pacer::new(Pacing::default(), NO_LIMIT);
        pacer.charge_cleanups(5 * MIB);
        assert!(pacer.is_due(0));
        pacer.set_next_slice(2 * MIB);
        assert!(!pacer.is_due(2 * MIB) && pacer.is_due(2 * MIB + 1));
        pacer.charge_cleanups(1);
        assert!(pacer.is_due(2 * MIB));
        pacer.set_next_slice(0);
        assert!(pacer.is_due(1), "it is due now");
    }

    #[test]
    fn odd_growths_never_overflow() {
        for growth in [f64::NAN, -1.0, f64::INFINITY] {
            for max_bytes in [0, 100, NO_LIMIT] {
                let pacer = Pacer::new(Pacing::Automatic { min_bytes: 1, growth }, max_bytes);
                pacer.after_cycle(u64::MAX / 2, 1);
                pacer.would_be_due(u64::MAX, u64::MAX);
            }
        }
    }
}
