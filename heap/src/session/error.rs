//! The error of an allocation that found no room.

use std::error::Error;
use std::fmt;

use crate::id::HeapId;
use crate::memory::space::AllocError;
use crate::policy::report::Overhead;

/// There is no room for a value; it is given back.
pub struct HeapFull<T> {
    /// The value that was not allocated.
    pub value: T,
    pub(crate) reason: HeapFullReason,
}

impl<T> HeapFull<T> {
    /// Gives the value that was not allocated.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Gives the bytes the object would have taken, those that it owns outside the heap included.
    pub fn requested_bytes(&self) -> u64 {
        self.reason.requested
    }

    /// Gives the bytes of objects' slots in use when it was asked for.
    ///
    /// Those that other mutators of a `Shared` heap had reserved are included, and those
    /// [outside the heap](Self::external_bytes).
    pub fn used_bytes(&self) -> u64 {
        self.reason.used
    }

    /// Tells what the heap took beside them.
    pub fn overhead(&self) -> Overhead {
        self.reason.overhead
    }

    /// Gives the bytes outside the heap when it was asked for.
    ///
    /// These are what payloads owned, and what was charged by an
    /// [`ExternalBytes`](crate::ExternalBytes).
    pub fn external_bytes(&self) -> u64 {
        self.reason.external
    }

    /// Gives the heap's limit in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.reason.max
    }
}

/// The reason, apart from the value, so that the message can be made without it.
pub(crate) struct HeapFullReason {
    pub(crate) heap: HeapId,
    pub(crate) type_name: &'static str,
    pub(crate) why: AllocError,
    pub(crate) requested: u64,
    pub(crate) used: u64,
    pub(crate) overhead: Overhead,
    /// Of these, bytes outside the heap.
    pub(crate) external: u64,
    pub(crate) max: u64,
}

impl fmt::Display for HeapFullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeapFullReason { heap, type_name, why, requested, used, external, overhead, max } =
            self;
        let outside = fmt::from_fn(|f| match external {
            0 => Ok(()),
            _ => write!(f, " ({external} outside the heap)"),
        });
        match why {
            AllocError::Limit => write!(
                f,
                "{heap} is full: {requested} bytes for a `{type_name}` do not fit beside the \
                 {used} in use{outside} of max_bytes = {max}{}",
                Beside(overhead)
            ),
            AllocError::System => write!(
                f,
                "{heap} is full: the system gave no memory for {requested} bytes of a \
                 `{type_name}` beside the {used} in use{outside}"
            ),
        }
    }
}

/// What beside the objects takes so much that it counts.
struct Beside<'a>(&'a Overhead);

impl fmt::Display for Beside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overhead {
            metadata_bytes,
            free_bytes,
            cleanup_bytes,
            weak_bytes,
            root_bytes,
            mark_bytes,
        } = self.0;
        if metadata_bytes + free_bytes + self.0.beside_spans() <= Overhead::ALLOWANCE {
            return Ok(());
        }
        write!(
            f,
            "; there are {metadata_bytes} bytes of metadata, {free_bytes} of free memory in spans, \
             {cleanup_bytes} of cleanups, {weak_bytes} of weak tables, {root_bytes} of roots, \
             {mark_bytes} for the next mark"
        )
    }
}

impl<T> fmt::Display for HeapFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> fmt::Debug for HeapFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeapFull({})", self.reason)
    }
}

impl<T> Error for HeapFull<T> {}
