//! How a slice ends.
//!
//! Invariant: a slice without a deadline runs to the end of its cycle.

use std::time::{Duration, Instant};

/// How a slice ends.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    pub(crate) deadline: Option<Instant>,
    /// Drop glue and hooks may run.
    pub(crate) runs_user_code: bool,
}

impl Until {
    /// At the end of the cycle.
    pub(crate) const END: Until = Until { deadline: None, runs_user_code: true };

    pub(crate) fn after(budget: Duration) -> Self {
        // What is so far off that it has no date does not come.
        Until { deadline: Instant::now().checked_add(budget), runs_user_code: true }
    }

    pub(crate) fn is_over(self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Spans cleared or swept between two looks at the clock, if nothing is dropped.
pub(crate) const SPANS: usize = 32;
