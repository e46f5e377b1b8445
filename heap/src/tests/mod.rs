//! Tests that look inside, and the models of the handshake and of a heap with several mutators.
//!
//! Under `--cfg loom` and `--cfg shuttle` the models run, and nothing else does.

#[cfg(not(any(loom, shuttle)))]
#[expect(unsafe_code, reason = "`Trace` by hand, which tells when it is asked")]
mod external;
#[cfg(not(any(loom, shuttle)))]
mod inside;
#[cfg(loom)]
mod loom_handshake;
#[cfg(loom)]
#[expect(unsafe_code, reason = "the derive names the facade, so here `Trace` is written by hand")]
mod loom_marking;
#[cfg(not(any(loom, shuttle)))]
#[expect(unsafe_code, reason = "the derive names the facade, and trace glue is to panic")]
mod phases;
#[cfg(shuttle)]
#[expect(unsafe_code, reason = "the derive names the facade, so here `Trace` is written by hand")]
mod shuttle_shared;
#[cfg(not(any(loom, shuttle)))]
mod slots;
