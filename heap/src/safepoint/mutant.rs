//! The handshake with one step broken, for the models that must fail.
//!
//! A proof that no model can contradict is worth little. Under `--cfg loom` a handshake carries one
//! of these and leaves out or misplaces that one step. In every other build the only value is
//! [`Mutant::None`], and the questions asked of it compile to nothing.

/// Which step is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// None: the handshake as it ships.
    None,
    /// E2 is missing.
    NoEnterFence,
    /// T3 is missing.
    NoStopFence,
    /// X2 is missing.
    NoExitFence,
    /// X4 is missing.
    ExitWithoutWake,
    /// E5 is missing.
    BackOutWithoutWake,
    /// E3 comes before E1.
    LateEntry,
    /// R1 readmits no mutator, so T1 does not wait for any.
    NothingReadmitted,
    /// J2 does not wait.
    LeaveHelpersBehind,
    /// E6 does not look under the lock, if the look without it was a lucky one.
    EnterOnLuck,
    /// T1 does not look under the lock, if the look without it was a lucky one.
    StopOnLuck,
    /// T4 does not look under the lock, if the look without it was a lucky one.
    InactiveOnLuck,
    /// D2 comes after the last session.
    RetireAfterSession,
    /// D3 comes before D2.
    ForgetBeforeRetire,
}

impl Mutant {
    /// Tells whether this is the step to break.
    #[inline(always)]
    pub(crate) fn is(self, which: Mutant) -> bool {
        cfg!(all(test, loom)) && self == which
    }
}
