//! What a heap remembers of its cycles.
//!
//! Invariant: each cycle that has swept is recorded once.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::policy::report::{GcReport, HeapStats, Quantiles};

/// The cycles of one heap.
pub(crate) struct History {
    born: Instant,
    cycles: u64,
    swept_objects: u64,
    drop_panics: u64,
    fallback_cycles: u64,
    background_time: Duration,
    assist_time: Duration,
    /// Boxed, as all that a heap without a cycle does not have.
    last_report: Option<Box<GcReport>>,
    /// When the last cycle ended.
    last_end: Instant,
    /// All pauses together.
    paused: Duration,
    pauses: Durations,
    safepoints: Durations,
}

impl History {
    pub(crate) fn new() -> Self {
        let born = Instant::now();
        History {
            born,
            cycles: 0,
            swept_objects: 0,
            drop_panics: 0,
            fallback_cycles: 0,
            background_time: Duration::ZERO,
            assist_time: Duration::ZERO,
            last_report: None,
            last_end: born,
            paused: Duration::ZERO,
            pauses: Durations::default(),
            safepoints: Durations::default(),
        }
    }

    /// Gives the number that the cycle after the last recorded one has.
    pub(crate) fn next_cycle(&self) -> u64 {
        self.cycles + 1
    }

    /// Takes note of a cycle that ends now, and adds to its report what takes history to know.
    /// Records a pause, and how much of it was the wait for sessions to end.
    pub(crate) fn record_pause(&mut self, pause: Duration, safepoint: Duration) {
        self.paused += pause;
        self.pauses.record(pause);
        self.safepoints.record(safepoint);
    }

    pub(crate) fn record(&mut self, report: GcReport) -> GcReport {
        let now = Instant::now();
        let period = now - self.last_end;
        let report =
            GcReport { mutator_utilisation: utilisation(report.pause_time, period), ..report };
        self.last_end = now;
        self.cycles = report.cycle;
        self.swept_objects += report.swept_objects;
        self.drop_panics += report.drop_panics;
        self.fallback_cycles += u64::from(report.refused_threads > 0);
        self.background_time += report.background_time;
        self.assist_time += report.assist_time;
        self.last_report = Some(Box::new(report));
        report
    }

    /// Takes note of panics in drop glue outside of cycles.
    pub(crate) fn count_drop_panics(&mut self, panics: u64) {
        self.drop_panics += panics;
    }

    pub(crate) fn last_report(&self) -> Option<GcReport> {
        self.last_report.as_deref().copied()
    }

    /// Tells what statistics it has; the others are zero.
    pub(crate) fn stats(&self) -> HeapStats {
        HeapStats {
            cycles: self.cycles,
            swept_objects: self.swept_objects,
            drop_panics: self.drop_panics,
            fallback_cycles: self.fallback_cycles,
            background_time: self.background_time,
            assist_time: self.assist_time,
            pause: self.pauses.quantiles(),
            safepoint: self.safepoints.quantiles(),
            mutator_utilisation: utilisation(self.paused, self.born.elapsed()),
            ..HeapStats::default()
        }
    }
}

/// Gives the share of `period` that was not `paused`.
fn utilisation(paused: Duration, period: Duration) -> f64 {
    if period.is_zero() { 1.0 } else { (1.0 - paused.div_duration_f64(period)).clamp(0.0, 1.0) }
}

/// A histogram of durations. Takes no memory before the first.
#[derive(Default)]
struct Durations(Option<Box<Histogram<u32>>>);

impl Durations {
    fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let histogram = self.0.get_or_insert_with(|| {
            let mut histogram = Histogram::new(2).expect("two digits are a valid precision");
            histogram.auto(true);
            Box::new(histogram)
        });
        // Resizable, it fails only where memory does, or for what is longer than centuries.
        let _lost = histogram.record(nanos);
    }

    fn quantiles(&self) -> Quantiles {
        let Some(histogram) = &self.0 else { return Quantiles::default() };
        let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        Quantiles {
            count: histogram.len(),
            median: at(0.5),
            p99: at(0.99),
            max: Duration::from_nanos(histogram.max()),
        }
    }
}
