//! Tests that look inside, and the models of the handshake.
//!
//! Under `--cfg loom` the models run, and nothing else does.

#[cfg(not(any(loom, shuttle)))]
mod inside;
#[cfg(loom)]
mod loom_handshake;
