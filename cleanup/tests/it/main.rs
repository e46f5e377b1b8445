//! The crate through its public interface, on real threads. The models of the protocols are in
//! `src/tests`.
#![cfg(not(any(loom, shuttle)))]

mod common;
mod counts;
mod discard;
mod handles;
mod manual;
mod memory;
mod once;
mod panics;
mod stalls;
mod tickets;
mod workers;
