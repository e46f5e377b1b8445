//! The Rust peers: what else a program could use, each written as someone would who knows it well.
//!
//! All of them are given what Sexton is given: objects of 32 bytes, the same shapes, and pacing off where a phase
//! is timed.

mod boxes;
#[cfg(feature = "peers")]
mod gc_arena;

use crate::measure::Builtin;

/// Those of this build.
pub(crate) static ALL: &[&Builtin] = &[
    &boxes::BOX,
    #[cfg(feature = "peers")]
    &gc_arena::GC_ARENA,
];

/// The names of those that a build without the feature `peers` lacks.
pub(crate) const ABSENT: &[&str] = if cfg!(feature = "peers") { &[] } else { &["gc-arena"] };
