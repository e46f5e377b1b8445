//! The protocol with one step broken, for the models that must fail; and with a pause at a step,
//! for the tests.
//!
//! A proof that no model can contradict is worth little. Under `--cfg loom` and `--cfg shuttle` the
//! queue carries one of these, and leaves out or misplaces that one step. The tests assert that the
//! checker finds the lost wake-up. In this crate's unit tests it does so, too, to measure how soon
//! a real machine shows it. In every other build the only value is [`Mutant::None`], and the
//! questions asked of it compile to nothing.

/// A named step of `PROTOCOL.md`, at which a test can make a thread pause. Nothing in any other
/// build.
macro_rules! step {
    ($step:ident) => {
        #[cfg(all(test, not(any(loom, shuttle))))]
        crate::tests::pause::at(crate::tests::pause::Step::$step);
    };
}
pub(crate) use step;

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
    /// A wake-up may go to a worker that has announced itself and not yet joined the list. It is
    /// counted as woken, and no worker is.
    UncommittedSignal,
    /// The worker's fence is missing.
    NoSleepFence,
    /// The publisher's fence is missing.
    NoPublishFence,
    /// A publisher adds to `length` before it pushes.
    LengthBeforePush,
    /// A waker goes by what it read before it had the lock.
    TrustEstimate,
    /// The flag of a shutdown is set when the lock has been released, the sleepers woken.
    ShutdownUnlocked,
    /// A worker leaves at a shutdown without having looked whether the list is empty.
    LeaveBeforeDrained,
    /// A worker retires although a waker has chosen it.
    RetireThoughChosen,
    /// A worker that retires lowers `asleep` before `workers`.
    RetireInDisorder,
    /// A worker goes to sleep although there are more workers than there may be.
    SurplusSleeps,
    /// Two runners with the same entry take its record by load and store.
    TakeWithoutCompareExchange,
    /// A runner takes a record that is being stopped, and has nothing to drop, for one that has
    /// been stopped.
    NoWaitForStop,
    /// The sharers of entries give their slots back as they end, and not when the last one has.
    NoDeferredFree,
    /// The monitor falls dormant first, and looks for blocks in hand before it says so.
    DormantAfterLook,
    /// A runner whose tail was requeued publishes it as a rest.
    ForgetRequeue,
    /// A batch is told of ended cleanups without order.
    UnorderedEnds,
}

impl Mutant {
    /// Tells whether this is the step to break.
    #[inline(always)]
    pub(crate) fn is(self, which: Mutant) -> bool {
        cfg!(any(loom, shuttle, test)) && self == which
    }
}
