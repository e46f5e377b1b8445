//! The sweep: what lasts from one of its steps to the next.
//!
//! Invariant: a span that the pass has come to is sorted, being dropped, or put off.

use std::sync::Arc;

use crate::collect::until::{SPANS, Until};
use crate::memory::space::{Passed, Space, Swept as SweptSpan, Usage};
use crate::memory::span::SpanRef;
use crate::policy::report::GcReport;
use crate::safepoint::helpers::{Helpers, Job};
use crate::session::core::Core;
use crate::session::mode::Mode;
use crate::sweep::parallel::Sweepers;
use crate::sweep::sweeper::{Drops, SweepStats, Sweeper};

/// How far the sweep has come.
#[derive(Default)]
pub(crate) struct Sweeping {
    /// The mark was given up: marks are cleared, and nothing dies.
    pub(crate) given_up: bool,
    /// What was in use when the sweep began.
    pub(crate) before: Usage,
    /// What is freed is counted span by span, because sessions come between. Otherwise it is
    /// counted at the end, and no old allocation bit is read.
    pub(crate) in_slices: bool,
    pub(crate) stats: SweepStats,
    /// The span whose dead objects are being dropped, and what was in use in it.
    pub(crate) dropping: Option<(Passed, Drops, Usage)>,
    /// Spans that the pass has come to within a session, which does not run drop glue.
    pub(crate) put_off: Vec<Passed>,
    /// All spans are swept, and empty regions are being released.
    pub(crate) is_swept: bool,
}

/// How far a step of the sweep has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    Some,
    /// But for what cannot be swept within a session.
    AllForNow,
    All,
}

impl Sweeping {
    /// Sweeps some spans. Those that `by_others` gives an outcome for have been swept.
    pub(crate) fn sweep_some(
        &mut self,
        space: &mut Space,
        sweeper: &mut Sweeper,
        until: Until,
        mut by_others: impl FnMut(SpanRef) -> Option<SweptSpan>,
    ) -> Swept {
        for _ in 0..SPANS {
            let begun = if until.runs_user_code { self.dropping.take() } else { None };
            let (passed, mut drops, before) = match begun {
                Some(begun) => begun,
                None => {
                    let put_off = if until.runs_user_code { self.put_off.pop() } else { None };
                    let Some(passed) = put_off.or_else(|| space.next_of_pass()) else {
                        let is_all = self.dropping.is_none() && self.put_off.is_empty();
                        return if is_all { Swept::All } else { Swept::AllForNow };
                    };
                    if !until.runs_user_code && Sweeper::is_busy_with(passed.span) {
                        self.put_off.push(passed);
                        continue;
                    }
                    if let Some(swept) = by_others(passed.span) {
                        space.sort(passed, swept);
                        continue;
                    }
                    let before =
                        if self.in_slices { Usage::of(passed.span) } else { Usage::default() };
                    sweeper.begin(passed.span);
                    (passed, Drops::of(passed.span), before)
                }
            };
            while !sweeper.drop_some(&mut drops, WORDS) {
                // Within a session another span may be in that place. So this one is swept to its
                // end.
                if until.runs_user_code && until.is_over() {
                    self.dropping = Some((passed, drops, before));
                    return Swept::Some;
                }
            }
            let swept = sweeper.end(passed.span);
            if self.in_slices {
                space.recount(before, Usage::of(passed.span));
            }
            space.sort(passed, swept);
        }
        Swept::Some
    }

    /// Reports what all of the sweep has found.
    pub(crate) fn report(&self, report: &mut GcReport) {
        let Sweeping { before, stats, .. } = self;
        *report = GcReport {
            live_objects: stats.live.objects,
            live_bytes: stats.live.bytes,
            live_weak_records: stats.live.weak_records,
            swept_objects: before.objects - stats.live.objects,
            swept_bytes: before.bytes - stats.live.bytes,
            dropped_objects: stats.dropped_objects,
            drop_panics: stats.drop_panics,
            swept_spans: stats.spans,
            emptied_spans: stats.emptied_spans,
            // So far: what came before the sweep.
            born_bytes: before.bytes,
            ..*report
        };
    }
}

/// Clears the marks of some spans. Tells whether none is left.
pub(crate) fn clear_marks<M: Mode>(core: &Core<M>, until: Until) -> bool {
    loop {
        let is_over = core.space().with(|space| {
            for _ in 0..SPANS {
                let Some(passed) = space.next_of_pass() else { return true };
                passed.span.clear_marks();
            }
            false
        });
        if is_over || until.is_over() {
            return is_over;
        }
    }
}

/// Sweeps the spans in which something must happen, with helpers. Gives `None` if there are too few
/// of them.
pub(crate) fn sweep_together(
    space: &Space,
    helpers: &Helpers<'_>,
    mut new_sweeper: impl FnMut() -> Sweeper,
) -> Option<Arc<Sweepers>> {
    if helpers.most == 0 {
        return None;
    }
    let spans: Vec<SpanRef> = space.ahead().filter(|&span| Sweeper::is_busy_with(span)).collect();
    if spans.len() < Sweepers::WORTH_HELP {
        return None;
    }
    let most = helpers.most.min(spans.len() / Sweepers::WORTH_HELP);
    let sweepers = (0..=most).map(|_| new_sweeper()).collect();
    // SAFETY: called in a cycle of a `Shared` heap, whose payloads are `Send`; marking is over;
    // what is left of the sweep begins when all have left.
    let sweepers = Arc::new(unsafe { Sweepers::new(spans, sweepers) });
    helpers.with(sweepers.clone(), most, || sweepers.help());
    Some(sweepers)
}

/// Bitmap words whose dead objects are dropped between two looks at the clock.
pub(crate) const WORDS: usize = 2;
