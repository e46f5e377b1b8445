//! Tests that look inside: faults on demand, and the models of the protocols.
//!
//! Under `--cfg loom` and `--cfg shuttle` the models run, and nothing else does.

#[cfg(not(any(loom, shuttle)))]
mod death;
#[cfg(not(loom))]
pub(crate) mod fault;
#[cfg(not(any(loom, shuttle)))]
mod lock_step;
#[cfg(not(any(loom, shuttle)))]
mod monitor;
#[cfg(not(any(loom, shuttle)))]
pub(crate) mod pause;
#[cfg(not(any(loom, shuttle)))]
mod pauses;

#[cfg(any(loom, shuttle))]
mod models;

#[cfg(loom)]
mod loom_claim;
#[cfg(loom)]
mod loom_mutants;
#[cfg(loom)]
mod loom_queue;
#[cfg(loom)]
mod loom_record;
#[cfg(loom)]
mod loom_requeue;
#[cfg(loom)]
mod loom_ticket;

#[cfg(shuttle)]
mod shuttle_mutants;
#[cfg(shuttle)]
mod shuttle_pool;
#[cfg(shuttle)]
mod shuttle_queue;
