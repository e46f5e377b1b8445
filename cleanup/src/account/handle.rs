//! The user's handle of one cleanup.
//!
//! Invariant: a handle names a record by index and generation, never by address of an object. Once
//! the slot is used again, the handle has no effect on it.
//!
//! It does not know the object, nor the heap, and keeps neither alive.

use crate::account::registry::{ARMED, ENDED, Registry};
use crate::observe::description::{Description, DescriptionId};
use crate::record::head::Index;
use crate::record::tag::State;
use sexton_sync::{AtomicU64, Ordering};
use std::fmt;
use std::panic::resume_unwind;

/// Set in `name` when the cleanup was stopped through this handle. Generations have 28 bits.
const STOPPED_HERE: u64 = 1 << 63;

/// Set in `name` if the captures need no destructor; see [`Registry::stop_no_drop`].
const NO_DROP: u64 = 1 << 62;

/// Names one registered cleanup. Dropping it detaches: the cleanup runs all the same.
///
/// 16 bytes. It may outlive the object, the heap and the pool. All methods may be called from any
/// thread, at any time, also from inside a cleanup.
pub struct Cleanup {
    registry: &'static Registry,
    /// The record's index, its generation above that, perhaps [`NO_DROP`], and [`STOPPED_HERE`],
    /// which the `stop` that succeeds adds.
    name: AtomicU64,
}

/// Holds the parts of a [`Cleanup`], on their way to the caller of a registration.
///
/// Two plain words, which a function returns in registers. A handle would be put together in
/// memory. Moving it on at once, as a whole, waits for the stores of its parts: 5 ns of a
/// registration.
#[derive(Debug)]
#[must_use = "it is the only way to the handle"]
pub struct RawHandle {
    registry: &'static Registry,
    name: u64,
}

impl RawHandle {
    #[inline]
    pub(crate) fn new(
        registry: &'static Registry,
        index: Index,
        generation: u32,
        no_drop: bool,
    ) -> Self {
        let name = u64::from(generation) << 32 | u64::from(index.raw());
        RawHandle { registry, name: if no_drop { name | NO_DROP } else { name } }
    }

    /// Makes the handle.
    #[inline]
    pub fn handle(self) -> Cleanup {
        Cleanup { registry: self.registry, name: AtomicU64::new(self.name) }
    }
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Cleanup>() == 16, "a handle is 16 bytes");

/// Tells the state of a cleanup. See [`Cleanup::state`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CleanupState {
    /// Its object was alive when last looked at. It can be stopped, and run early.
    Armed,
    /// Its object is dead, and it waits for a worker. It can still be stopped, and run early.
    Queued,
    /// It is running.
    Running,
    /// It has run. A panic is an end like any other.
    Done,
    /// It was stopped, or its captures were dropped instead of running. It never runs.
    Stopped,
}

impl Cleanup {
    /// Gives index and generation of the record.
    #[inline]
    fn record(&self) -> (Index, u32) {
        let name = self.name();
        (Index::of_handle(name as u32), ((name & !(STOPPED_HERE | NO_DROP)) >> 32) as u32)
    }

    #[inline]
    fn name(&self) -> u64 {
        // Relaxed: all of it but the flag of a stop never changes, and that only informs.
        self.name.load(Ordering::Relaxed)
    }

    pub(crate) fn describe(&self, id: DescriptionId) {
        let (index, generation) = self.record();
        self.registry.storage.describe(index, generation, id);
    }

    /// Describes the cleanup, as far as it is known.
    ///
    /// Empty, unless it was registered with a label or in diagnostic mode, and nothing more once
    /// its record serves another cleanup.
    pub fn description(&self) -> Description {
        let storage = self.registry.storage;
        let (index, generation) = self.record();
        let description = storage.description(index);
        // The second look comes after: a description of a later cleanup belongs to a later
        // generation.
        if storage.state(index).0 == generation { description } else { Description::default() }
    }

    /// Stops the cleanup: it will never run.
    ///
    /// Its captures are dropped, on this thread, before this returns.
    ///
    /// `false` if it is too late: it has run, is running, or was stopped before. O(1), and
    /// O(unfinished cycles of its heap) if it was queued already.
    ///
    /// # Panics
    /// If a destructor of the captures does. The cleanup is stopped all the same.
    #[inline]
    pub fn stop(&self) -> bool {
        let (index, generation) = self.record();
        if self.name() & NO_DROP == 0 {
            return self.stop_and_drop();
        }
        self.registry.stop_no_drop(index, generation, || self.note_stop())
    }

    #[inline(never)]
    fn stop_and_drop(&self) -> bool {
        let (index, generation) = self.record();
        let Some(dropped) = self.registry.stop(index, generation, || self.note_stop()) else {
            return false;
        };
        if let Err(payload) = dropped {
            resume_unwind(payload);
        }
        true
    }

    /// Notes that the cleanup was stopped here. Called by the one call that takes the record, while
    /// it holds it. Once the slot is in use again, nothing else is known.
    #[inline]
    fn note_stop(&self) {
        // A plain store: see above.
        self.name.store(self.name() | STOPPED_HERE, Ordering::Relaxed);
    }

    /// Runs the cleanup here and now, whether its object is dead or not. It will not run again.
    ///
    /// `false` if it is too late: it has run, is running, or was stopped. A panic in it is caught,
    /// counted and given to the pool's hook, as on a worker; the answer is `true` then as well.
    /// Cost as for [`stop`](Self::stop), plus the cleanup.
    pub fn run_now(&self) -> bool {
        let (index, generation) = self.record();
        self.registry.run_now(index, generation)
    }

    /// Tells the state of the cleanup, a moment ago. O(1).
    ///
    /// Once the record serves another cleanup, this answers `Stopped` if the cleanup was stopped
    /// through this handle, and `Done` otherwise.
    pub fn state(&self) -> CleanupState {
        let storage = self.registry.storage;
        let (index, ours) = self.record();
        loop {
            let (generation, state) = storage.state(index);
            if generation != ours {
                let stopped = self.name() & STOPPED_HERE != 0;
                return if stopped { CleanupState::Stopped } else { CleanupState::Done };
            }
            return match state {
                State::Armed | State::ArmedNoDrop => {
                    // Acquire: the second look comes after this one, so that the byte belongs to
                    // the state.
                    let mark = storage.mark(index).load(Ordering::Acquire);
                    if storage.state(index) != (generation, state) {
                        continue;
                    }
                    match mark {
                        ARMED | ENDED => CleanupState::Armed,
                        _ => CleanupState::Queued,
                    }
                }
                State::Running | State::RunningDetached | State::Executing => CleanupState::Running,
                State::Done | State::DoneCounted | State::DoneFree => CleanupState::Done,
                State::Stopping
                | State::StoppingNoDrop
                | State::StoppingDetached
                | State::Dropping
                | State::Stopped
                | State::StoppedCounted
                | State::StoppedFree => CleanupState::Stopped,
            };
        }
    }
}

impl fmt::Debug for Cleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cleanup").field("state", &self.state()).finish_non_exhaustive()
    }
}
