//! Tests that look inside: a fault between two cleanups, and the models of the protocols.
//!
//! The models run under `--cfg loom` only, and nothing else does there.

#[cfg(not(loom))]
mod death;
#[cfg(not(loom))]
pub(crate) mod fault;
#[cfg(not(loom))]
mod lock_step;

#[cfg(loom)]
mod loom_claim;
#[cfg(loom)]
mod loom_mutants;
#[cfg(loom)]
mod loom_queue;
#[cfg(loom)]
mod loom_record;
#[cfg(loom)]
mod loom_takeover;
#[cfg(loom)]
mod loom_ticket;
#[cfg(loom)]
mod models;
