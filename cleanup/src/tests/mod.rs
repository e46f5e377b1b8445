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
// `.ci/pauses.sh` builds these.
#[cfg(pauses)]
pub(crate) mod pause;
#[cfg(pauses)]
mod pauses;

#[cfg(any(loom, shuttle))]
mod models;

#[cfg(loom)]
mod loom_claim;
#[cfg(loom)]
mod loom_queue;
#[cfg(loom)]
mod loom_record;
#[cfg(loom)]
mod loom_requeue;
#[cfg(loom)]
mod loom_ticket;

#[cfg(shuttle)]
mod shuttle_pool;
#[cfg(shuttle)]
mod shuttle_queue;
