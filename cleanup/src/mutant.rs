//! The protocol with one step broken, for the models that must fail.
//!
//! A proof that no model can contradict is worth little. Under `--cfg loom` and `--cfg shuttle` the queue carries
//! one of these and leaves out or misplaces that one step; the tests assert that the checker finds the lost
//! wake-up. In every other build the only value is [`Mutant::None`], and the questions asked of it compile to
//! nothing.

/// Which step is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(test, any(loom, shuttle))),
    expect(dead_code, reason = "broken only in the models")
)]
pub(crate) enum Mutant {
    /// None: the protocol as it ships.
    None,
    /// A worker does not look at `length` again before it parks.
    NoRecheck,
    /// A worker looks at `length` under the lock, but before it announces itself in `asleep`.
    RecheckBeforeAnnounce,
    /// A publisher adds to `length` after it has looked at `asleep`.
    LengthAfterLook,
    /// A worker looks at `length` before it takes the lock, and announces itself after that.
    AnnounceAfterRead,
    /// A wake-up may go to a worker that has announced itself and not yet joined the list: it is counted
    /// as woken, and nobody is.
    UncommittedSignal,
    /// The worker's fence is missing.
    NoSleepFence,
    /// The publisher's fence is missing.
    NoPublishFence,
}

impl Mutant {
    /// Whether this is the step to break.
    #[inline(always)]
    pub(crate) fn is(self, which: Mutant) -> bool {
        cfg!(any(loom, shuttle)) && self == which
    }
}
