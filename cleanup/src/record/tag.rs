//! The tag of a record: how often its slot was armed, and the state of the last time.
//!
//! ```text
//!                 +-- handle: run_now --> Running  --> Done    --+
//!                 +-- handle: stop -----> Stopping --> Stopped --+
//! free --arm--> Armed                                            +--> free
//!                 +-- runner: run ------> Executing -------------+
//!                 +-- runner: discard --> Dropping --------------+
//! ```
//!
//! A free slot keeps its generation until it is armed again.
//!
//! `Armed` comes in two kinds, and so does `Stopping`. Captures that own nothing need no
//! destructor. So no code of the user runs between taking such a record and declaring its end.
//! `ArmedNoDrop` --> `StoppingNoDrop` --> `Stopped` is a compare-exchange, and a store a few
//! instructions later. A thread that meets the record in between waits for that store. Taken in any
//! other way it is like any other.

use std::fmt;

/// How often the slot has been armed, and what has become of the last time. 28 and 4 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(pub(super) u32);

pub(crate) const MAX_GENERATION: u32 = (1 << 28) - 1;

/// The state half of a tag. A zeroed record is a free one of generation 0, which no handle ever
/// names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum State {
    /// Ran; the slot is free.
    DoneFree = 0,
    /// Stopped or discarded; the slot is free.
    StoppedFree = 1,
    /// Ran by its handle; the slot belongs to the chain.
    Done = 2,
    /// Stopped by its handle; the slot belongs to the chain.
    Stopped = 3,
    /// `Done`, and the handle has counted the end in the batch that the record is queued in.
    DoneCounted = 4,
    /// `Stopped`, and counted likewise.
    StoppedCounted = 5,
    /// Waits for the thread that takes it.
    Armed = 6,
    /// The same, and its captures need no destructor.
    ArmedNoDrop = 7,
    /// Taken by a handle, to be run.
    Running = 8,
    /// Taken by a handle, to be dropped.
    Stopping = 9,
    /// Taken by a handle, which has nothing to drop and is about to declare the end: wait for it.
    StoppingNoDrop = 10,
    /// Running, and the chain is gone: the taker frees the slot.
    RunningDetached = 11,
    /// Stopping, and the chain is gone: the taker frees the slot.
    StoppingDetached = 12,
    /// Taken by a runner, to be run. It frees the slot.
    Executing = 13,
    /// Taken by a runner, to be dropped. It frees the slot.
    Dropping = 14,
}

impl State {
    /// Tells whether its handle has ended it, with the slot still in the chain.
    pub(crate) fn has_ended_early(self) -> bool {
        matches!(self, State::Done | State::Stopped | State::DoneCounted | State::StoppedCounted)
    }
}

impl Tag {
    #[inline]
    pub(super) fn new(generation: u32, state: State) -> Self {
        Tag(generation << 4 | state as u32)
    }

    #[inline]
    pub(super) fn generation(self) -> u32 {
        self.0 >> 4
    }

    #[inline]
    pub(super) fn state(self) -> State {
        match self.0 & 15 {
            0 => State::DoneFree,
            1 => State::StoppedFree,
            2 => State::Done,
            3 => State::Stopped,
            4 => State::DoneCounted,
            5 => State::StoppedCounted,
            6 => State::Armed,
            7 => State::ArmedNoDrop,
            8 => State::Running,
            9 => State::Stopping,
            10 => State::StoppingNoDrop,
            11 => State::RunningDetached,
            12 => State::StoppingDetached,
            13 => State::Executing,
            14 => State::Dropping,
            _ => unreachable!("tags are made by Tag::new only"),
        }
    }

    /// Tells whether the state is one of the two kinds of `Armed`; cheaper than to ask for the
    /// state.
    #[inline]
    pub(super) fn is_armed(self) -> bool {
        const { assert!(State::Armed as u32 | 1 == State::ArmedNoDrop as u32) };
        self.0 & 15 | 1 == State::ArmedNoDrop as u32
    }

    #[inline]
    pub(super) fn with(self, state: State) -> Self {
        Tag::new(self.generation(), state)
    }

    /// Gives the tag of the free slot that an ended record becomes; `None` if it has not ended
    /// early.
    #[inline]
    pub(super) fn freed(self) -> Option<Self> {
        // The states of an early end lie side by side, and the free ones, which are the first two,
        // go with them in turn.
        const FIRST: u32 = State::Done as u32;
        const LAST: u32 = State::StoppedCounted as u32;
        const {
            assert!(State::DoneFree as u32 == 0 && State::StoppedFree as u32 == 1);
            assert!(FIRST.is_multiple_of(2) && (State::DoneCounted as u32).is_multiple_of(2));
            assert!(State::Stopped as u32 % 2 == 1 && LAST % 2 == 1 && LAST - FIRST == 3);
        }
        let state = self.0 & 15;
        (state.wrapping_sub(FIRST) <= LAST - FIRST).then_some(Tag(self.0 & !15 | state & 1))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.state(), self.generation())
    }
}
