//! How fast the slices of a cycle have to follow one another, and when the next cycle begins.
//!
//! Slices follow one another by the bytes in use, here and outside the heap. How long a cycle takes
//! goes by those of slots: what lies outside is not looked at.
//!
//! Invariant: nothing here changes what a cycle frees. A wrong number costs time or memory.

use std::time::Duration;

use crate::memory::phase::Phase;
use crate::policy::report::GcReport;
use crate::session::core::Core;
use crate::session::mode::Mode;

/// How fast slices have to follow one another.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pace {
    /// Bytes in use when the cycle began, here and outside the heap.
    pub(crate) began_at: u64,
    /// The bytes of slots among them.
    began_with: u64,
    /// The time that it is expected to take.
    pub(crate) expected: Duration,
    /// Bytes that may be allocated meanwhile.
    pub(crate) runway: u64,
    /// Bytes in use at which it should have begun.
    start: u64,
    /// Where the last cycle should have begun, if the heap was far past its goal at the end.
    overrun: Option<u64>,
    /// The time that threads have marked beside sessions in this cycle.
    pub(crate) marked_beside: Duration,
    /// What the last cycles have measured.
    rates: Rates,
    /// Bytes that the last cycle has found alive.
    live: u64,
    /// The share of a heap's headroom that is runway.
    pub(crate) share: Option<f64>,
}

/// What a cycle takes, in nanoseconds.
#[derive(Clone, Copy)]
struct Rates {
    /// The mark, for each byte that it finds alive.
    mark: f64,
    /// All else, for each byte in use at the beginning.
    rest: f64,
}

impl Default for Rates {
    /// What a first cycle is expected to take: small objects that are marked in random order.
    fn default() -> Self {
        Rates { mark: 0.6, rest: 0.05 }
    }
}

impl Rates {
    fn of(self, live: u64, bytes: u64) -> Duration {
        Duration::from_nanos((live as f64 * self.mark + bytes as f64 * self.rest) as u64)
    }
}

/// Replaces a rate by what was measured.
///
/// Wall time: a thread that lost its processor seems slow. So it is believed by and by.
fn learn(rate: &mut f64, time: Duration, bytes: u64) {
    let measured = time.as_nanos() as f64 / bytes as f64;
    *rate = measured.min(*rate * 4.0);
}

impl Pace {
    /// Gives the time that a cycle may take which begins with this many bytes in use: all of them
    /// may be alive.
    fn expect(&self, bytes: u64) -> Duration {
        self.rates.of(bytes, bytes)
    }

    /// Tells whether a cycle fits into one slice, whatever it finds alive.
    pub(crate) fn fits(&self, bytes: u64, budget: Duration) -> bool {
        bytes <= SMALL || self.expect(bytes) <= budget
    }

    /// Tells whether a cycle is likely to fit into one slice: if no more than twice as much is
    /// alive as the last time.
    pub(crate) fn is_likely_to_fit(&self, bytes: u64, budget: Duration) -> bool {
        let live = self.live.saturating_mul(2).saturating_add(SMALL).min(bytes);
        self.rates.of(live, bytes) <= budget
    }

    /// Tells how many times its runway a cycle has used up: 1 if it is on time.
    ///
    /// The slices of a late one follow one another faster, by the square of it, and are no longer.
    pub(crate) fn late(&self, bytes: u64) -> f64 {
        let used = bytes.saturating_sub(self.began_at) as f64;
        (used / self.runway.max(1) as f64).max(1.0)
    }

    /// Tells how many times longer than asked for a slice has to be: 1, until the heap has grown
    /// far past its goal, and then in proportion. If the last cycle has ended like that, it is the
    /// square.
    ///
    /// Otherwise it would grow without end while the program allocates much in each session.
    pub(crate) fn stretch(&self, bytes: u64) -> u32 {
        let goal = self.start.saturating_add(self.runway);
        let past = bytes.saturating_sub(goal) / (self.start / STRETCH_PARTS).max(LEAST_RUNWAY);
        let past = if self.overrun.is_some() { past.saturating_mul(past) } else { past };
        u32::try_from(past).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Gives the bytes in use at which a cycle should have begun that begins with `began_at`.
    ///
    /// What the last one was late by is not forgotten. If the next counted from where that has
    /// left the heap, each would let it grow by the same factor.
    fn start(&self, began_at: u64, goal: u64) -> u64 {
        self.overrun.map_or(began_at, |start| began_at.min(goal.max(start)))
    }

    pub(crate) fn begin<M: Mode>(&mut self, core: &Core<M>) {
        self.began_at = core.weight();
        self.began_with = core.bytes_in_use();
        self.marked_beside = Duration::ZERO;
        self.expected = self.expect(self.began_with);
        // A cycle may begin behind its goal: a session has allocated more than that.
        let least = (self.began_at as f64 * LEAST_SHARE) as u64;
        let goal = core.pacer().goal();
        let ahead = goal.saturating_sub(self.began_at);
        self.runway = ahead.max(least).max(LEAST_RUNWAY);
        self.start = self.start(self.began_at, goal);
    }

    /// Sets when the next slice is due: as much of the runway is used up then as of the time that
    /// is expected.
    pub(crate) fn after_slice<M: Mode>(
        &self,
        core: &Core<M>,
        spent: Duration,
        budget: Option<Duration>,
    ) {
        let Some(budget) = budget else { return };
        if core.phase().get() == Phase::Idle {
            // The mark was given up, so the cycle is still due.
            return core.pacer().set_next_slice(0);
        }
        let next = self.began_at.saturating_add(self.bytes_for(spent));
        core.pacer().set_next_slice(next.min(self.after(core, budget)));
    }

    /// Sets when the next slice is due after a wait for a thread that marks, clears or sweeps.
    pub(crate) fn after_wait<M: Mode>(&self, core: &Core<M>, waited: Duration) {
        core.pacer().set_next_slice(self.after(core, waited));
    }

    /// Gives the bytes in use at which a slice has to follow one of this length, and says how much
    /// later it may be within a session.
    ///
    /// If the cycle takes longer than expected, slices go on at the same rate, or faster.
    fn after<M: Mode>(&self, core: &Core<M>, slice: Duration) -> u64 {
        let in_use = core.weight();
        core.pacer().set_patience(self.patience(in_use));
        in_use.saturating_add(self.gap(in_use, slice))
    }

    /// Gives the bytes from a slice of this length to the next, with these bytes in use.
    fn gap(&self, in_use: u64, slice: Duration) -> u64 {
        (self.bytes_for(slice) as f64 / self.late(in_use).powi(2)) as u64
    }

    /// Gives the bytes that a session may allocate beyond.
    fn patience(&self, in_use: u64) -> u64 {
        (SHORT_SESSION as f64 / self.late(in_use).powi(2)) as u64
    }

    /// Gives the part of the runway that is for this much of the expected time.
    fn bytes_for(&self, time: Duration) -> u64 {
        let share = time.as_secs_f64() / self.expected.as_secs_f64().max(1e-9);
        (self.runway as f64 * share) as u64
    }

    /// Sets when the next cycle is due.
    pub(crate) fn after_cycle<M: Mode>(
        &mut self,
        core: &Core<M>,
        report: &mut GcReport,
        allocating: u64,
        budget: Option<Duration>,
    ) {
        let is_far_past = self.stretch(core.weight()) > 1;
        self.overrun = Some(self.start).filter(|_| is_far_past);
        let live = report.live_bytes;
        let before_sweep = report.born_bytes.saturating_sub(self.began_with);
        report.born_bytes = before_sweep + core.bytes_in_use().saturating_sub(live);
        // What was born marked has not been found alive. So it takes room, and makes none.
        let born = before_sweep.min(live);
        let owned = core.pacer().external().owned();
        core.pacer().after_cycle((live - born).saturating_add(owned), allocating);
        core.pacer().begin_late(born);
        let traced = live - born;
        let mark = report.mark_time + self.marked_beside;
        // Of little that is alive not much can be told.
        if traced >= SMALL {
            learn(&mut self.rates.mark, mark, traced);
        }
        let all = report.pause_time + report.background_time;
        learn(&mut self.rates.rest, all.saturating_sub(mark), self.began_with.max(SMALL));
        self.live = traced;
        let Some(budget) = budget else { return };
        let headroom = core.pacer().goal().saturating_sub(core.weight());
        if report.slices > 1 {
            let share = report.born_bytes as f64 / headroom.max(1) as f64;
            self.share = Some(share.clamp(LEAST_SHARE, MOST_SHARE));
        }
        let slots_at_goal = core.pacer().goal().saturating_sub(core.pacer().external().bytes());
        if !self.is_likely_to_fit(slots_at_goal, budget) {
            let share = self.share.unwrap_or(LEAST_SHARE);
            core.pacer().begin_early((headroom as f64 * share) as u64);
        }
    }
}

/// Bytes in use up to which a cycle always runs at once.
pub(crate) const SMALL: u64 = 256 << 10;

/// Bytes that a session may allocate after a slice has become due: its end is for slices, and one
/// is enough.
const SHORT_SESSION: u64 = 64 << 10;

/// Bytes that may be allocated during a cycle, at least.
pub(crate) const LEAST_RUNWAY: u64 = 64 << 10;

/// A heap that has grown past its goal by this part of it has slices twice as long.
const STRETCH_PARTS: u64 = 4;

/// The share of a heap's headroom that is left for the time of a cycle: by default and at least,
/// and at most.
pub(crate) const LEAST_SHARE: f64 = 0.05;
pub(crate) const MOST_SHARE: f64 = 0.5;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A cycle of a heap of 1 GiB, which is expected to take a second.
    fn pace() -> Pace {
        Pace {
            began_at: 1024 * MIB,
            start: 1024 * MIB,
            expected: Duration::from_secs(1),
            runway: 100 * MIB,
            ..Pace::default()
        }
    }

    #[test]
    fn a_cycle_on_time_uses_up_its_runway_with_its_time() {
        let pace = pace();
        assert_eq!(pace.bytes_for(Duration::from_millis(10)), MIB);
        assert_eq!(pace.late(1024 * MIB), 1.0);
        assert_eq!(pace.late(1124 * MIB), 1.0);
        assert_eq!(pace.gap(1124 * MIB, Duration::from_millis(10)), MIB);
    }

    #[test]
    fn a_late_cycle_has_more_slices_and_no_longer_ones() {
        let pace = pace();
        assert_eq!(pace.gap(1224 * MIB, Duration::from_millis(10)), MIB / 4);
        assert_eq!(pace.patience(1224 * MIB), SHORT_SESSION / 4);
        assert_eq!(pace.stretch(1224 * MIB), 1);
    }

    #[test]
    fn a_heap_far_past_its_goal_has_longer_slices() {
        let pace = pace();
        let goal = 1124 * MIB;
        assert_eq!(pace.stretch(goal + 256 * MIB - 1), 1);
        assert_eq!(pace.stretch(goal + 256 * MIB), 2);
        assert_eq!(pace.stretch(goal + 1024 * MIB), 5);
        let again = Pace { overrun: Some(0), ..pace };
        assert_eq!(again.stretch(goal + 1024 * MIB), 17);
        assert_eq!(pace.stretch(u64::MAX), u32::MAX);
    }

    /// A program that allocates forty times as much in a session as a slice at its end sweeps.
    #[test]
    fn a_heap_whose_cycles_are_late_does_not_grow_without_end() {
        const SLICE: u64 = MIB / 8;
        const SESSION: u64 = 40 * SLICE;
        const GOAL: u64 = 16 * MIB;
        let mut pace = Pace::default();
        let (mut in_use, mut most) = (GOAL, 0);
        for _ in 0..100 {
            pace.began_at = in_use;
            pace.start = pace.start(in_use, GOAL);
            pace.runway = LEAST_RUNWAY.max((in_use as f64 * LEAST_SHARE) as u64);
            let mut unswept = in_use;
            while unswept > 0 {
                in_use += SESSION;
                let swept = unswept.min(SLICE * u64::from(pace.stretch(in_use)));
                (unswept, in_use) = (unswept - swept, in_use - swept);
                most = most.max(in_use);
            }
            pace.overrun = Some(pace.start).filter(|_| pace.stretch(in_use) > 1);
        }
        assert!(most < 6 * GOAL, "{} MiB", most / MIB);
    }

    #[test]
    fn a_heap_that_has_grown_in_a_session_is_not_late() {
        let pace = Pace::default();
        assert_eq!(pace.start(1024 * MIB, MIB), 1024 * MIB);
    }
}
