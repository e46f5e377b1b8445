//! The Rust peers: what else a program could use, each written as an expert in it would.
//!
//! All of them are given what Sexton is given: objects of 32 bytes, the same shapes, and pacing off
//! where a phase is timed. Where one's objects cannot be of that size, they are as close as they
//! come.

#[cfg(feature = "peers")]
mod bump;
mod driver;
#[cfg(feature = "peers")]
mod dumpster;
#[cfg(feature = "peers")]
mod gc_arena;
mod owned;
mod owning;
#[cfg(feature = "peers")]
#[expect(non_local_definitions, reason = "what the derive of `gc` writes")]
mod rust_gc;
#[cfg(feature = "peers")]
mod safe_gc;

// The door to unsafe code.
#[cfg(feature = "peers")]
#[expect(unsafe_code, reason = "a box on an allocator that is not the process's own")]
mod mi_box;

use crate::catalogue::Builtin;
use driver::builtin;

/// Those of this build.
pub(crate) static ALL: &[&Builtin] = &[
    &builtin::<owned::system_box::Owned>(),
    &builtin::<owned::system_arc::Owned>(),
    #[cfg(feature = "peers")]
    &builtin::<owned::mimalloc::Owned>(),
    #[cfg(feature = "peers")]
    &builtin::<bump::Arenas>(),
    #[cfg(feature = "peers")]
    &builtin::<gc_arena::Arenas>(),
    #[cfg(feature = "peers")]
    &builtin::<rust_gc::Rooted>(),
    #[cfg(feature = "peers")]
    &builtin::<dumpster::Counted>(),
    #[cfg(feature = "peers")]
    &builtin::<safe_gc::Indexed>(),
];

/// The names of those that a build without the feature `peers` lacks.
pub(crate) const ABSENT: &[&str] = if cfg!(feature = "peers") {
    &[]
} else {
    &["box-mimalloc", "bumpalo", "gc-arena", "gc", "dumpster", "safe-gc"]
};
