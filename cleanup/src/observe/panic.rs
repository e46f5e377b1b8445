//! The report of a cleanup that panicked.

use crate::observe::description::Description;
use std::any::Any;
use std::fmt;

/// Reports a cleanup that panicked to its pool's hook.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct CleanupPanic<'a> {
    /// The panic's message, or a fixed text when the payload is not a string.
    pub message: &'a str,
    /// The payload that was thrown.
    pub payload: &'a (dyn Any + Send),
    /// Describes the cleanup: its closure's type at least.
    pub cleanup: Description,
}

impl<'a> CleanupPanic<'a> {
    pub(crate) fn new(payload: &'a (dyn Any + Send), cleanup: Description) -> Self {
        let message = if let Some(text) = payload.downcast_ref::<&'static str>() {
            text
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text.as_str()
        } else {
            "(the panic's payload is not a string)"
        };
        CleanupPanic { message, payload, cleanup }
    }
}

impl fmt::Debug for CleanupPanic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanupPanic")
            .field("message", &self.message)
            .field("cleanup", &self.cleanup)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for CleanupPanic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cleanup {} panicked: {}", self.cleanup, self.message)
    }
}
