//! What Sexton and the machine measure of each work.

mod barrier;
mod limits;
pub(crate) mod memory;
pub(crate) mod pauses;
pub(crate) mod programs;
pub(crate) mod scale;
pub(crate) mod sexton;
mod sexton_cleanups;
mod shared;

use crate::catalogue::Builtin;

/// Sexton, and the machine.
pub(crate) static ALL: &[&Builtin] = &[&sexton::SEXTON, &limits::LIMITS];
