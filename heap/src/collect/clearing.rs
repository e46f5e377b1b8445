//! The clearing: between mark and sweep, what was unmarked is no target any more.
//!
//! Local cleanups of unmarked objects are queued, weak records of unmarked targets are cleared, and
//! records of cleanups that have ended early are freed.
//!
//! Invariant: it is done before any span is swept. A span's tables are changed while its specials
//! are held. So sessions may be open beside it.

use sexton_cleanup::Registrar;

use crate::collect::taken::Taken;
use crate::collect::until::{SPANS, Until};
use crate::mark::weaks;
use crate::memory::space::Space;
use crate::memory::span::SpanRef;
use crate::session::core::Core;
use crate::session::mode::Mode;
use crate::sweep::local_cleanups::LocalCleanups;

/// How far the clearing has come.
pub(crate) struct Clearing {
    /// Local cleanups to look at.
    locals: usize,
    /// Whether records of cleanups that have ended early are to be freed.
    prunes: bool,
    /// Whether there is something to do in spans.
    passes: bool,
    taken: Taken,
    /// Weak records cleared so far.
    pub(crate) cleared: u64,
}

impl Clearing {
    /// Begins one. Called while no session is open.
    pub(crate) fn begin<M: Mode>(core: &Core<M>) -> Self {
        let prunes = core.context().registrar().borrow().ended_early() >= PRUNE_AT;
        // A record that is not committed was born marked, and so was its target, or it is held.
        let weak_records = core.space().with(|space: &mut Space| {
            space.begin_pass();
            space.usage().weak_records
        });
        let passes = prunes || weak_records > 0;
        let locals = core.locals().armed();
        Clearing { locals, prunes, passes, taken: Taken::default(), cleared: 0 }
    }

    /// Tells whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.locals == 0 && !self.passes
    }

    /// Clears. Tells whether that is done.
    pub(crate) fn clear<M: Mode>(&mut self, core: &Core<M>, until: Until<'_>) -> bool {
        while self.locals > 0 {
            let entries = self.locals.min(ENTRIES);
            core.locals().queue_dead(entries);
            self.locals -= entries;
            if self.locals > 0 && until.is_over() {
                return false;
            }
        }
        let is_done = !self.passes || self.clear_spans(core, until);
        if is_done {
            core.locals().shrink();
        }
        is_done
    }

    fn clear_spans<M: Mode>(&mut self, core: &Core<M>, until: Until<'_>) -> bool {
        // In a `Shared` heap the own context is the collector's while no session is open, and no
        // other thread's. It will register nothing more: what is freed is to go back, for others.
        let mut passing = (M::SHARED && self.prunes).then(|| core.client().registrar());
        let mut own = (!M::SHARED).then(|| core.context().registrar().borrow_mut());
        let mut registrar = passing.as_mut().or(own.as_deref_mut());
        loop {
            for _ in 0..SPANS {
                let Some(passed) = self.taken.next(core) else { return true };
                let _held = passed.span.hold_specials::<M>();
                let is_busy = self.prunes || passed.span.weaks().borrow().is_some();
                self.cleared += weaks::clear_dead(passed.span);
                if let Some(registrar) = registrar.as_mut().filter(|_| self.prunes) {
                    prune(passed.span, registrar);
                }
                // A span may have thousands of records.
                if is_busy {
                    break;
                }
            }
            if until.is_over() {
                return false;
            }
        }
    }
}

/// Frees the records of cleanups that were stopped or run early. They stay in their objects' chains
/// until they make up much of what there is.
fn prune(span: SpanRef, registrar: &mut Registrar) {
    let mut cleanups = span.cleanups().borrow_mut();
    if !cleanups.is_empty() {
        cleanups.retain_map(span.special_bits(), |_, head| registrar.prune(head));
    }
}

/// Records of cleanups that have ended early, worth a pass over all chains.
const PRUNE_AT: u64 = 1024;

/// Local cleanups looked at between two looks at the clock.
const ENTRIES: usize = 256;
