//! How fast the slices of a cycle have to follow one another, and when the next cycle begins.
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
    /// Bytes in use when the cycle began.
    pub(crate) began_at: u64,
    /// The time that it is expected to take.
    pub(crate) expected: Duration,
    /// Bytes that may be allocated meanwhile.
    pub(crate) runway: u64,
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
    *rate = measured.min(*rate * 2.0);
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
    /// A late one gets longer slices. Otherwise the heap would grow while the program allocates
    /// faster than it is collected.
    pub(crate) fn late(&self, bytes: u64) -> u32 {
        let times = bytes.saturating_sub(self.began_at) / self.runway.max(1);
        u32::try_from(times).unwrap_or(u32::MAX).max(1)
    }

    pub(crate) fn begin<M: Mode>(&mut self, core: &Core<M>) {
        self.began_at = core.bytes_in_use();
        self.marked_beside = Duration::ZERO;
        self.expected = self.expect(self.began_at);
        // A cycle may begin behind its goal: a session has allocated more than that.
        let least = (self.began_at as f64 * LEAST_SHARE) as u64;
        let ahead = core.pacer().goal().saturating_sub(self.began_at);
        self.runway = ahead.max(least).max(LEAST_RUNWAY);
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
        let bytes_for = |time: Duration| {
            let share = time.as_secs_f64() / self.expected.as_secs_f64().max(1e-9);
            (self.runway as f64 * share) as u64
        };
        // If it takes longer than expected, slices go on at the same rate.
        let next = self.began_at.saturating_add(bytes_for(spent));
        let at_most = core.bytes_in_use().saturating_add(bytes_for(budget));
        core.pacer().set_next_slice(next.min(at_most));
    }

    /// Sets when the next cycle is due.
    pub(crate) fn after_cycle<M: Mode>(
        &mut self,
        core: &Core<M>,
        report: &mut GcReport,
        allocating: u64,
        budget: Option<Duration>,
    ) {
        let live = report.live_bytes;
        let before_sweep = report.born_bytes.saturating_sub(self.began_at);
        report.born_bytes = before_sweep + core.bytes_in_use().saturating_sub(live);
        // What was born marked has not been found alive. So it takes room, and makes none.
        let born = before_sweep.min(live);
        core.pacer().after_cycle(live - born, allocating);
        core.pacer().begin_late(born);
        let traced = live - born;
        let mark = report.mark_time + self.marked_beside;
        // Of little that is alive not much can be told.
        if traced >= SMALL {
            learn(&mut self.rates.mark, mark, traced);
        }
        let all = report.pause_time + report.background_time;
        learn(&mut self.rates.rest, all.saturating_sub(mark), self.began_at.max(SMALL));
        self.live = traced;
        let Some(budget) = budget else { return };
        let headroom = core.pacer().goal().saturating_sub(core.bytes_in_use());
        if report.slices > 1 {
            let share = report.born_bytes as f64 / headroom.max(1) as f64;
            self.share = Some(share.clamp(LEAST_SHARE, MOST_SHARE));
        }
        if !self.is_likely_to_fit(core.pacer().goal(), budget) {
            let share = self.share.unwrap_or(LEAST_SHARE);
            core.pacer().begin_early((headroom as f64 * share) as u64);
        }
    }
}

/// Bytes in use up to which a cycle always runs at once.
pub(crate) const SMALL: u64 = 256 << 10;

/// Bytes that may be allocated during a cycle, at least.
pub(crate) const LEAST_RUNWAY: u64 = 64 << 10;

/// The share of a heap's headroom that is left for the time of a cycle: by default and at least,
/// and at most.
pub(crate) const LEAST_SHARE: f64 = 0.05;
pub(crate) const MOST_SHARE: f64 = 0.5;
