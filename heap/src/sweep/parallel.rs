//! Sweeping by several threads: those spans in which something must happen.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use sexton_sync::Mutex;

use crate::memory::locking::Shared;
use crate::memory::space::Swept;
use crate::memory::span::SpanRef;
use crate::safepoint::helpers::Job;
use crate::sweep::sweeper::Sweeper;

/// Spans in which something must happen, and the sweepers that sweep them together.
pub(crate) struct Sweepers {
    spans: Vec<SpanRef>,
    /// What became of each span.
    swept: Vec<AtomicU8>,
    /// The first span that is not taken. Relaxed: the sweeper that gets a number sweeps that span.
    /// All else is ordered by the start and the end of the job.
    next: AtomicUsize,
    /// One for each that may come.
    idle: Mutex<Vec<Sweeper>>,
    done: Mutex<Vec<Sweeper>>,
}

// SAFETY: spans are cells, and each of these is swept by the sweeper that took its number.
// `Sweepers` are made only of spans whose payloads may be dropped on any thread, and that no other
// code touches meanwhile.
unsafe impl Sync for Sweepers {}

impl Sweepers {
    /// Spans that are worth a helper.
    pub(crate) const WORTH_HELP: usize = 32;

    /// # Safety
    ///
    /// The payloads are `Send`. The spans' mark bits are final. Until all helpers have left, no
    /// other code uses the spans.
    pub(crate) unsafe fn new(spans: Vec<SpanRef>, sweepers: Vec<Sweeper>) -> Self {
        Sweepers {
            swept: spans.iter().map(|_| AtomicU8::new(Swept::NOT_YET)).collect(),
            spans,
            next: AtomicUsize::new(0),
            idle: Mutex::new(sweepers),
            done: Mutex::default(),
        }
    }

    /// Tells what became of each span. Called when all have left.
    pub(crate) fn swept(&self) -> impl Iterator<Item = (SpanRef, Swept)> + '_ {
        let codes = self.swept.iter().map(|swept| Swept::from_code(swept.load(Relaxed)));
        self.spans.iter().copied().zip(codes)
    }

    /// Takes the sweepers, those that no helper came for included. Called when all have left.
    pub(crate) fn take_sweepers(&self) -> Vec<Sweeper> {
        let mut sweepers = std::mem::take(&mut *self.done.lock());
        sweepers.append(&mut self.idle.lock());
        sweepers
    }
}

impl Job for Sweepers {
    fn help(&self) {
        let Some(mut sweeper) = self.idle.lock().pop() else { return };
        while let Some((span, swept)) = {
            let number = self.next.fetch_add(1, Relaxed);
            self.spans.get(number).zip(self.swept.get(number))
        } {
            swept.store(sweeper.sweep::<Shared>(*span).code(), Relaxed);
        }
        self.done.lock().push(sweeper);
    }

    fn is_over(&self) -> bool {
        self.next.load(Relaxed) >= self.spans.len()
    }
}
