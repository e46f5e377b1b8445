//! Cleanup records, blocks, the full list and its workers: the half of Sexton that knows no heap.
//!
//! ```text
//! register -> (the object dies) -> local block -> full list -> claim -> run -> block free list
//!    origin                            cycle         queue      claim    run       block
//! ```
//!
//! A heap opens an [`Origin`] with a [`Pool`]. Its mutators register cleanups through a [`Registrar`] and keep
//! a [`Head`] per object. When a collection finds objects dead, each sweeper pushes their heads into a
//! [`LocalBlock`] of the [`Cycle`]; full blocks are published at once, the rest by [`Cycle::flush`]. Workers
//! of the pool claim blocks and run the cleanups. A [`Ticket`] waits for what is queued now; a [`Cleanup`]
//! handle stops one cleanup, or runs it early.
//!
//! ```no_run
//! use sexton_cleanup::{Origin, Pool, PoolConfig};
//!
//! let pool = Pool::new(PoolConfig::default(), None); // manual: this thread will run the cleanups
//! let origin = Origin::new(&pool);
//! let mut registrar = origin.registrar();
//! let (head, handle) = registrar.register(None, || println!("the object is gone"));
//!
//! let cycle = origin.begin_cycle();
//! let mut block = cycle.local_block();
//! block.push(head); // its object was found dead
//! assert_eq!(cycle.flush([block]).cleanups, 1);
//!
//! assert_eq!(pool.run_pending(usize::MAX), 1);
//! assert!(!handle.stop(), "too late");
//! ```
//!
//! The two protocols, claim and sleep, are described in [`protocol`], with their proof.

#[path = "block/entries.rs"]
mod block;
#[path = "protocol/claim.rs"]
mod claim;
#[path = "client/cycle.rs"]
mod cycle;
#[path = "observe/description.rs"]
mod describe;
#[path = "pool/in_flight.rs"]
mod desk;
#[path = "pool/dump.rs"]
mod dump;
#[path = "account/handle.rs"]
mod handle;
#[path = "observe/hooks.rs"]
mod hooks;
#[path = "pool/monitor.rs"]
mod monitor;
#[path = "protocol/mutant.rs"]
mod mutant;
#[path = "client/client.rs"]
mod origin;
#[path = "observe/panic.rs"]
mod panic;
#[path = "pool/state.rs"]
mod pool;
#[path = "protocol/queue.rs"]
mod queue;
#[path = "account/registry.rs"]
mod registry;
#[path = "account/backlog.rs"]
mod relief;
#[path = "pool/run.rs"]
mod run;
#[path = "protocol/sleep.rs"]
mod sleep;
#[path = "observe/stats.rs"]
mod stats;
#[path = "account/counters.rs"]
mod tally;
#[path = "account/thread_slot.rs"]
mod thread;
#[path = "client/ticket.rs"]
mod ticket;
#[path = "pool/worker.rs"]
mod worker;

// The doors to unsafe code. It is denied everywhere else, and the protocols' files forbid it.
#[expect(unsafe_code, reason = "blocks live in a bump arena, behind handles that keep it alive")]
#[path = "block/arena.rs"]
mod arena;
#[expect(unsafe_code, reason = "a record's closure is in a cell that the state of its tag guards")]
#[path = "record/storage.rs"]
mod record;
#[expect(unsafe_code, reason = "closures of any type, inline in a record")]
#[path = "record/thunk.rs"]
mod thunk;

#[cfg(test)]
mod tests;

#[doc = include_str!("../PROTOCOL.md")]
pub mod protocol {}

pub use cycle::{Cycle, Flushed, LocalBlock};
pub use describe::Description;
pub use dump::{Activity, PoolDump, RunnerDump};
pub use handle::{Cleanup, CleanupState, Receipt};
pub use hooks::{Hooks, PanicHook, ReadyHook, SlowCleanup, SlowHook, SpawnFailure, SpawnHook};
pub use monitor::Monitor;
pub use origin::{Origin, Registrar};
pub use panic::CleanupPanic;
pub use pool::{Pool, PoolConfig, Spawn};
pub use record::Head;
pub use run::in_cleanup;
#[doc(hidden)]
pub use sexton_sync::{self as sync, PerProcess, Process, drop_quietly, prefetch};
pub use stats::{CleanupStats, PoolStats};
pub use ticket::{Ticket, WaitError};
pub use worker::Worker;
