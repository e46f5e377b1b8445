//! The sweep: what lasts from one of its steps to the next.
//!
//! Some spans at a time are taken from the space, swept while it is not locked, and sorted. A span
//! that is not sorted is on no list. So no session allocates from it, and sessions may be open
//! beside the sweep. What they may change in it are the tables of its live objects. Sweeper and
//! session hold its specials for that.
//!
//! Invariant: a span that the pass has come to is sorted, taken, being dropped, or put off.

use std::sync::Arc;

use sexton_cleanup::Cycle as CleanupCycle;

use crate::collect::huge_pages::HugePageTime;
use crate::collect::taken::Taken;
use crate::collect::until::{SPANS, Until};
use crate::memory::address::ObjectAddress;
use crate::memory::space::{Passed, Released, Space, Swept, Usage};
use crate::memory::span::SpanRef;
use crate::policy::report::GcReport;
use crate::safepoint::helpers::{Helpers, Job};
use crate::session::core::Core;
use crate::session::mode::Mode;
use crate::sweep::parallel::Sweepers;
use crate::sweep::sweeper::{Drops, SweepStats, Sweeper, look_at};

/// How far the sweep has come.
pub(crate) struct Sweeping {
    /// The mark was given up: marks are cleared, and nothing dies.
    pub(crate) given_up: bool,
    /// What was in use when the sweep began.
    before: Usage,
    /// What payloads owned outside the heap then, as far as it was known.
    external_before: u64,
    /// Objects that have to be looked at again when no session is open.
    blocked: Vec<ObjectAddress>,
    /// What is freed is counted span by span, because sessions come between. Otherwise it is
    /// counted at the end, and no old allocation bit is read.
    in_slices: bool,
    stats: SweepStats,
    taken: Taken,
    /// The span whose dead objects are being dropped, and what was in use in it.
    dropping: Option<(Passed, Drops, Usage)>,
    /// Spans with drop glue or cleanups that the pass has come to within a session, or beside
    /// sessions. A session runs none, and has the others first.
    put_off: Vec<Passed>,
    /// Cleanups queued, and blocks published for them.
    queued: u64,
    published: u64,
    /// All spans are swept, and memory of no use is being given back.
    is_swept: bool,
    /// The last step has left nothing but what waits until no session is open.
    waits: bool,
    pub(crate) huge_pages: HugePageTime,
}

/// What a step leaves to be published.
pub(crate) struct Unpublished {
    batch: CleanupCycle,
    sweepers: Vec<Sweeper>,
}

/// A span that was swept, and how.
struct ToSort {
    passed: Passed,
    swept: Swept,
    /// What was in use in it, and what is. Nothing, if that is counted at the end.
    before: Usage,
    live: Usage,
}

impl Sweeping {
    /// Begins one. Called while no session is open, and no allocator holds a span.
    pub(crate) fn begin<M: Mode>(
        core: &Core<M>,
        in_slices: bool,
        huge_pages: HugePageTime,
    ) -> Self {
        let before = core.space().with(|space| {
            // What is allocated from now on lies in swept spans, or in new ones.
            space.unlist_spans();
            space.begin_pass();
            space.usage()
        });
        let external_before = core.pacer().external().owned();
        Sweeping { before, external_before, in_slices, ..Sweeping::new(huge_pages) }
    }

    /// Begins to clear the marks of a mark that is given up.
    pub(crate) fn give_up<M: Mode>(core: &Core<M>, huge_pages: HugePageTime) -> Self {
        core.space().with(Space::begin_pass);
        Sweeping { given_up: true, ..Sweeping::new(huge_pages) }
    }

    fn new(huge_pages: HugePageTime) -> Self {
        Sweeping {
            given_up: false,
            before: Usage::default(),
            external_before: 0,
            blocked: Vec::new(),
            in_slices: false,
            stats: SweepStats::default(),
            taken: Taken::default(),
            dropping: None,
            put_off: Vec::new(),
            queued: 0,
            published: 0,
            is_swept: false,
            waits: false,
            huge_pages,
        }
    }

    /// Tells whether all spans are swept.
    pub(crate) fn is_swept(&self) -> bool {
        self.is_swept
    }

    /// Tells whether a step within sessions has nothing to do.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Sweeps, and queues cleanups.
    pub(crate) fn sweep<M: Mode>(
        &mut self,
        core: &Core<M>,
        until: Until<'_>,
        helpers: Option<&Helpers<'_>>,
    ) -> Option<Unpublished> {
        if self.is_swept {
            return None;
        }
        if self.given_up {
            self.is_swept = self.clear_marks(core, until);
            return None;
        }
        let batch = core.client().begin_cycle();
        let new_sweeper = || Sweeper::new(batch.local_block(), core.zeal());
        let helpers = helpers.filter(|_| M::SHARED && !self.in_slices);
        let together = helpers.and_then(|helpers| sweep_together(core, helpers, new_sweeper));
        let mut by_others = together.iter().flat_map(|together| together.swept()).peekable();
        let mut alone = new_sweeper();
        self.waits = false;
        let is_swept = loop {
            let is_swept = self.sweep_some(core, &mut alone, until, |span| {
                by_others.next_if(|&(other, _)| other == span).map(|(_, swept)| swept)
            });
            if let Some(is_swept) = is_swept {
                self.waits = !is_swept;
                break is_swept;
            }
            if until.is_over() {
                break false;
            }
        };
        drop(by_others);
        let mut sweepers = together.map_or_else(Vec::new, |together| together.take_sweepers());
        sweepers.push(alone);
        self.blocked.extend(sweepers.iter_mut().flat_map(Sweeper::take_blocked));
        self.stats = sweepers.iter().map(Sweeper::stats).fold(self.stats, SweepStats::plus);
        if is_swept {
            core.space().with(|space| {
                if !self.in_slices {
                    space.recount(self.before, self.stats.live);
                }
                space.begin_release();
            });
        }
        self.is_swept = is_swept;
        Some(Unpublished { batch, sweepers })
    }

    /// Publishes what a step has left.
    pub(crate) fn publish(&mut self, left: Unpublished) {
        let Unpublished { batch, sweepers } = left;
        let flushed = batch.flush(sweepers.into_iter().map(Sweeper::into_local_block));
        self.queued += flushed.cleanups;
        self.published += flushed.blocks;
    }

    /// Sweeps some spans, and sorts them. Those that `by_others` gives an outcome for have been
    /// swept. If none is left it tells whether all are swept: within a session some are not.
    ///
    /// Beside sessions the plain ones come first. A session that allocates meanwhile has their
    /// slots then, and needs no new span for as long as drop glue runs.
    fn sweep_some<M: Mode>(
        &mut self,
        core: &Core<M>,
        sweeper: &mut Sweeper,
        until: Until<'_>,
        mut by_others: impl FnMut(SpanRef) -> Option<Swept>,
    ) -> Option<bool> {
        let mut is_all = None;
        let mut to_sort = Vec::with_capacity(SPANS);
        let usage_of = |span| if self.in_slices { Usage::of(span) } else { Usage::default() };
        // Within a session another span may be in the place of the one that is being dropped. So
        // there a span is swept to its end.
        let ends = || until.runs_user_code && until.is_over();
        let puts_off = !until.runs_user_code || until.is_beside();
        'spans: for _ in 0..SPANS {
            let begun = if until.runs_user_code { self.dropping.take() } else { None };
            let (passed, mut drops, before) = match begun {
                Some(begun) => begun,
                None => {
                    let next = self.taken.next(core);
                    if puts_off
                        && next.as_ref().is_some_and(|it| Sweeper::is_busy_with::<M>(it.span))
                    {
                        self.put_off.extend(next);
                        continue;
                    }
                    if next.is_none() && !to_sort.is_empty() {
                        // They are for sessions before what takes longer.
                        break;
                    }
                    let put_off = || until.runs_user_code.then(|| self.put_off.pop()).flatten();
                    let Some(passed) = next.or_else(put_off) else {
                        is_all = Some(self.dropping.is_none() && self.put_off.is_empty());
                        break;
                    };
                    if let Some(swept) = by_others(passed.span) {
                        let (before, live) = (Usage::default(), Usage::default());
                        to_sort.push(ToSort { passed, swept, before, live });
                        continue;
                    }
                    let before = usage_of(passed.span);
                    sweeper.begin::<M>(passed.span);
                    (passed, Drops::of(passed.span), before)
                }
            };
            while !sweeper.drop_some(&mut drops, WORDS) {
                if ends() {
                    self.dropping = Some((passed, drops, before));
                    break 'spans;
                }
            }
            let swept = sweeper.end(passed.span);
            to_sort.push(ToSort { passed, swept, before, live: usage_of(passed.span) });
            if sweeper.has_queued() && ends() {
                break;
            }
        }
        core.space().with(|space| {
            for ToSort { passed, swept, before, live } in to_sort {
                space.recount(before, live);
                space.sort(passed, swept);
            }
        });
        is_all
    }

    /// Clears the marks of some spans. Tells whether none is left.
    fn clear_marks<M: Mode>(&mut self, core: &Core<M>, until: Until<'_>) -> bool {
        loop {
            for _ in 0..SPANS {
                let Some(passed) = self.taken.next(core) else { return true };
                passed.span.clear_marks();
            }
            if until.is_over() {
                return false;
            }
        }
    }

    /// Gives memory back that was of no use for a cycle, and has well used memory backed by large
    /// pages, when all spans are swept. Tells whether that is done.
    pub(crate) fn release<M: Mode>(&mut self, core: &Core<M>, until: Until<'_>) -> bool {
        while !self.given_up {
            let huge_pages = self.huge_pages.is_left(until);
            // A region is unmapped, and a large page made, while the space is not locked.
            match core.space().with(|space| space.give_back(huge_pages)) {
                Released::All => break,
                Released::Some => {}
                Released::Region(region) => drop(region),
                Released::HugePage(page) => self.huge_pages.make(page),
                Released::WellUsed => return false,
            }
            if until.is_over() {
                return false;
            }
        }
        true
    }

    /// Lists the spans that have been taken, and not sorted.
    pub(crate) fn unsorted(&self) -> impl Iterator<Item = SpanRef> + '_ {
        let dropping = self.dropping.iter().map(|(passed, ..)| passed.span);
        let put_off = self.put_off.iter().map(|passed| passed.span);
        self.taken.spans().chain(dropping).chain(put_off)
    }

    /// Counts what the sweep has seen outside the heap. Called when all is swept, and no cycle has
    /// begun since. Sessions may be open: what one of them has locked counts for nothing.
    pub(crate) fn recount_external<M: Mode>(&mut self, core: &Core<M>, report: &mut GcReport) {
        for object in std::mem::take(&mut self.blocked) {
            // SAFETY: the sweep has found it alive, and no cycle has begun since. No thread sweeps
            // or marks.
            let (bytes, _) = unsafe { look_at(object) };
            let sum = &mut self.stats.external_bytes;
            *sum = sum.saturating_add(bytes);
        }
        let seen = core.pacer().recount(self.external_before, self.stats.external_bytes);
        report.external_bytes = seen;
        report.swept_external_bytes = self.external_before.saturating_sub(seen);
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
            queued_cleanups: self.queued,
            published_blocks: self.published,
            // So far: what came before the sweep.
            born_bytes: before.bytes,
            ..*report
        };
    }
}

/// Sweeps the spans in which something must happen, with helpers. Gives `None` if there are too few
/// of them.
fn sweep_together<M: Mode>(
    core: &Core<M>,
    helpers: &Helpers<'_>,
    mut new_sweeper: impl FnMut() -> Sweeper,
) -> Option<Arc<Sweepers>> {
    if helpers.most == 0 {
        return None;
    }
    let mut spans: Vec<SpanRef> = core.space().with(|space| space.ahead().collect());
    spans.retain(|&span| Sweeper::is_busy_with::<M>(span));
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
const WORDS: usize = 2;
