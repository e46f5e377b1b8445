//! How a step of a cycle ends.
//!
//! Invariant: a step without an end runs to the end of its cycle.

use std::time::{Duration, Instant};

use sexton_sync::Ordering::Relaxed;
use sexton_sync::fields::AtomicBool;

/// How a step ends.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    end: End<'a>,
    /// Drop glue and hooks may run.
    pub(crate) runs_user_code: bool,
    /// The cycle is likely to end in this step. So no thread is asked to go on before.
    pub(crate) is_likely_the_last: bool,
}

#[derive(Clone, Copy)]
enum End<'a> {
    /// When there is nothing left to do.
    Never,
    /// Then, after a slice of this length.
    At(Instant, Duration),
    /// When the flag says so, which another thread sets. Sessions may be open meanwhile.
    Recalled(&'a AtomicBool),
}

impl<'a> Until<'a> {
    /// At the end of the cycle.
    pub(crate) const END: Self = Until::when(End::Never);

    const fn when(end: End<'a>) -> Self {
        Until { end, runs_user_code: true, is_likely_the_last: false }
    }

    pub(crate) fn after(budget: Duration) -> Self {
        // What is so far off that it has no date does not come.
        let deadline = Instant::now().checked_add(budget);
        let end = deadline.map_or(End::Never, |deadline| End::At(deadline, budget));
        Until::when(end)
    }

    /// Beside open sessions, until the work is recalled.
    pub(crate) fn recalled(flag: &'a AtomicBool) -> Self {
        Until::when(End::Recalled(flag))
    }

    /// Tells whether sessions may be open that go on.
    pub(crate) fn is_beside(self) -> bool {
        matches!(self.end, End::Recalled(_))
    }

    /// The same, within sessions, where no drop glue runs.
    pub(crate) fn within_sessions(self) -> Self {
        Until { runs_user_code: false, ..self }
    }

    /// The same, for a step in which the cycle is likely to end.
    pub(crate) fn the_last(self) -> Self {
        Until { is_likely_the_last: true, ..self }
    }

    /// Tells whether there is time for a step that takes this long, and that can wait.
    pub(crate) fn has_time_for(self, step: Duration) -> HasTime {
        match self.end {
            // A session waits for it.
            _ if !self.runs_user_code => HasTime::No,
            End::Never | End::Recalled(_) => HasTime::Now,
            End::At(deadline, _) if Instant::now() + step <= deadline => HasTime::Now,
            // A slice that is hardly longer might never have that much time left.
            End::At(_, slice) if step > slice / 4 * 3 || self.is_likely_the_last => HasTime::No,
            End::At(..) => HasTime::Later,
        }
    }

    /// Tells whether it ends with the cycle.
    pub(crate) fn is_never(self) -> bool {
        matches!(self.end, End::Never)
    }

    pub(crate) fn is_over(self) -> bool {
        match self.end {
            End::Never => false,
            End::At(deadline, _) => Instant::now() >= deadline,
            // Relaxed: it hurries a thread, and no more.
            End::Recalled(flag) => flag.load(Relaxed),
        }
    }
}

/// Whether there is time for a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HasTime {
    No,
    /// Not now, but in the next slice.
    Later,
    Now,
}

/// Spans taken for a step at a time: so often the space is locked, and the clock looked at, if
/// nothing is dropped.
pub(crate) const SPANS: usize = if cfg!(loom) { 1 } else { 32 };
