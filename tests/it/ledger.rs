//! A ledger of cleanups: a line for each, with how often it ran and how often its captures were
//! dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// The lines. A cheap handle.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<[Line]>);

#[derive(Default)]
struct Line {
    runs: AtomicU8,
    drops: AtomicU8,
}

/// What a cleanup captures. Its drop is written down.
pub(crate) struct Entry {
    ledger: Ledger,
    at: usize,
}

impl Ledger {
    pub(crate) fn new(lines: usize) -> Self {
        Ledger((0..lines).map(|_| Line::default()).collect())
    }

    /// The entry of one line; to be taken once.
    pub(crate) fn entry(&self, at: usize) -> Entry {
        Entry { ledger: self.clone(), at }
    }

    /// A cleanup that only writes down that it ran.
    pub(crate) fn cleanup(&self, at: usize) -> impl FnOnce() + Send + 'static {
        let entry = self.entry(at);
        move || entry.ran()
    }

    /// How often it ran, and how often its captures were dropped.
    pub(crate) fn line(&self, at: usize) -> (u8, u8) {
        (self.0[at].runs.load(SeqCst), self.0[at].drops.load(SeqCst))
    }

    /// How many cleanups have lost their captures, run or not.
    pub(crate) fn ended(&self) -> usize {
        self.0.iter().filter(|line| line.drops.load(SeqCst) > 0).count()
    }

    /// How many of those below `lines` ran, after a check that each has ended, none ran twice, and
    /// none dropped its captures twice.
    #[track_caller]
    pub(crate) fn balance(&self, lines: usize) -> usize {
        let ran = (0..lines).map(|at| {
            let (runs, drops) = self.line(at);
            assert!(runs <= 1 && drops == 1, "cleanup {at}: {runs} runs, {drops} drops");
            usize::from(runs)
        });
        ran.sum()
    }

    /// Each ran once, and dropped its captures once.
    #[track_caller]
    pub(crate) fn assert_all_ran(&self) {
        let lines = self.0.len();
        for at in 0..lines {
            assert_eq!(self.line(at), (1, 1), "runs and drops of cleanup {at} of {lines}");
        }
    }

    /// None ran, and each dropped its captures once.
    #[track_caller]
    pub(crate) fn assert_none_ran(&self) {
        assert_eq!(self.balance(self.0.len()), 0, "cleanups ran");
    }
}

impl Entry {
    /// The cleanup runs.
    pub(crate) fn ran(&self) {
        self.ledger.0[self.at].runs.fetch_add(1, SeqCst);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.0[self.at].drops.fetch_add(1, SeqCst);
    }
}
