//! The Rust peers: what else a program could use, each written as someone would who knows it well.
//!
//! All of them are given what Sexton is given: objects of 32 bytes, the same shapes, and pacing off where a phase
//! is timed. Where one's objects cannot be of that size, they are as close as they come.

#[cfg(feature = "peers")]
mod bump;
#[cfg(feature = "peers")]
mod dumpster;
#[cfg(feature = "peers")]
mod gc_arena;
mod owned;
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

/// Those of this build.
pub(crate) static ALL: &[&Builtin] = &[
    &owned::BOX,
    &owned::ARC,
    #[cfg(feature = "peers")]
    &owned::BOX_MIMALLOC,
    #[cfg(feature = "peers")]
    &bump::BUMPALO,
    #[cfg(feature = "peers")]
    &gc_arena::GC_ARENA,
    #[cfg(feature = "peers")]
    &rust_gc::RUST_GC,
    #[cfg(feature = "peers")]
    &dumpster::DUMPSTER,
    #[cfg(feature = "peers")]
    &safe_gc::SAFE_GC,
];

/// The names of those that a build without the feature `peers` lacks.
pub(crate) const ABSENT: &[&str] = if cfg!(feature = "peers") {
    &[]
} else {
    &["box-mimalloc", "bumpalo", "gc-arena", "gc", "dumpster", "safe-gc"]
};

/// Calls `f` on a thread whose stack is deep enough for a recursion over millions of objects.
#[cfg(feature = "peers")]
fn with_a_deep_stack(f: impl FnOnce() + Send) -> Result<(), String> {
    const BYTES: usize = 4 << 30;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(BYTES);
        let thread = thread.spawn_scoped(scope, f).map_err(|error| {
            format!("there is no room for a stack of {} GiB: {error}", BYTES >> 30)
        })?;
        thread.join().map_err(|_| "it panicked".to_owned())
    })
}
