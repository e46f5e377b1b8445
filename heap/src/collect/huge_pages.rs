//! When well used memory is backed by large pages: how much time the end of a cycle takes for that.
//!
//! To make a large page copies 2 MiB. It cannot be cut, and it can wait.

use std::time::{Duration, Instant};

use crate::collect::until::{HasTime, Until};
use crate::memory::region::HugePage;
use crate::memory::space::HugePages;

/// The time for large pages, of one cycle after the other.
#[derive(Clone, Copy)]
pub(crate) struct HugePageTime {
    /// How long the next one is expected to take.
    each: Duration,
    /// How long those of this cycle have taken,
    spent: Duration,
    /// and may take: a small part of the mark's time, as that is what large pages shorten.
    most: Duration,
}

impl HugePageTime {
    pub(crate) fn new() -> Self {
        HugePageTime { each: FIRST, spent: Duration::ZERO, most: Duration::ZERO }
    }

    /// Begins a cycle that has marked for so long.
    pub(crate) fn next_cycle(self, marked: Duration) -> Self {
        let each = self.each - self.each / 8;
        HugePageTime { each, spent: Duration::ZERO, most: marked / 8 }
    }

    /// Tells whether there is time for one. There is no limit where the program waits for all of
    /// the cycle.
    pub(crate) fn is_left(&self, until: Until<'_>) -> HugePages {
        if !until.is_never() && self.spent > self.most {
            return HugePages::No;
        }
        match until.has_time_for(self.each) {
            HasTime::No => HugePages::No,
            HasTime::Later => HugePages::Later,
            HasTime::Now => HugePages::Now,
        }
    }

    /// Makes a large page.
    pub(crate) fn make(&mut self, page: HugePage) {
        let began = Instant::now();
        page.make();
        let took = began.elapsed();
        self.spent += took;
        // A long one is believed at once: small pages cost less than a long pause.
        self.each = took.max((self.each * 3 + took) / 4);
    }
}

/// The time that the first one is expected to take.
const FIRST: Duration = Duration::from_micros(600);
