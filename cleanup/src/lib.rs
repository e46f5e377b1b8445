//! Cleanup records, blocks, the full list and its workers: the half of Sexton that knows no heap.
//!
//! ```text
//! register -> (the object dies) -> local block -> full list -> claim -> run -> block free list
//! account                          client         protocol     protocol pool   block
//! ```
//!
//! A heap opens a [`Client`] of a [`Pool`]. Its mutators register cleanups through a [`Registrar`],
//! and keep a [`Head`] per object. When a collection finds objects dead, each sweeper pushes their
//! heads into a [`LocalBlock`] of the [`Cycle`]. Full blocks are published at once, the rest by
//! [`Cycle::flush`]. Workers of the pool claim blocks and run the cleanups. A [`Ticket`] waits for
//! the cleanups that are queued now. A [`Cleanup`] handle stops one cleanup, or runs it early.
//!
//! ```no_run
//! use sexton_cleanup::{Client, Pool, PoolConfig};
//!
//! let pool = Pool::new(PoolConfig::default(), None); // manual: this thread will run the cleanups
//! let client = Client::new(&pool);
//! let mut registrar = client.registrar();
//! let (head, handle) = registrar.register(None, || println!("the object is gone"));
//!
//! let cycle = client.begin_cycle();
//! let mut block = cycle.local_block();
//! block.push(head); // its object was found dead
//! assert_eq!(cycle.flush([block]).cleanups, 1);
//!
//! assert_eq!(pool.run_pending(usize::MAX), 1);
//! assert!(!handle.stop(), "too late");
//! ```
//!
//! The protocols, claim and sleep, are described in [`protocol`], with their proof.

// The layers, the lowest first: a file imports from its own layer and from those above it on this
// page. `.ci/layers.py` checks that. The doors to unsafe code are here, too: a module without one
// denies it, and the protocols' files forbid it.

mod inside;

// The promises of a queue of work, of any kind of work.
//
// Invariant: while something is unclaimed, no worker stays asleep that could take it.
#[doc = include_str!("../PROTOCOL.md")]
pub mod protocol {
    pub(crate) mod claim;
    pub(crate) mod queue;
    pub(crate) mod sleep;
}

/// Telling people: hooks, panics, descriptions, statistics.
///
/// Invariant: nothing here decides anything. A hook that panics or waits harms no one but its
/// caller.
mod observe {
    pub(crate) mod description;
    pub(crate) mod hooks;
    pub(crate) mod panic;
    pub(crate) mod stats;
}

/// Records: one slot for each registered cleanup, its state, and the lists of free slots.
///
/// Invariant: the closure of a record is taken out once, and its slot is freed once.
mod record {
    #[expect(unsafe_code, reason = "the one that takes a record moves its closure out of the cell")]
    pub(crate) mod ending;
    #[expect(unsafe_code, reason = "a free slot's cell holds the indices of other free slots")]
    pub(crate) mod free_list;
    pub(crate) mod head;
    #[expect(unsafe_code, reason = "a record's closure is in a cell that its tag's state guards")]
    pub(crate) mod slot;
    // A checker makes them one by one.
    #[cfg_attr(
        not(any(loom, shuttle)),
        expect(unsafe_code, reason = "records and marks begin as zeroed memory")
    )]
    pub(crate) mod storage;
    pub(crate) mod tag;
    #[expect(unsafe_code, reason = "closures of any type, inline in a record")]
    pub(crate) mod thunk;
}

/// Blocks: fixed room for the records of dead objects.
///
/// Invariant: a block has one owner, and only the owner writes to it.
mod block {
    #[expect(unsafe_code, reason = "blocks lie in a bump arena, behind handles that keep it alive")]
    pub(crate) mod arena;
    pub(crate) mod entries;
    pub(crate) mod free_list;
}

/// Accounts: one heap's batches and counters, and its way to the records of its pool.
///
/// Invariant: the end of a cleanup is counted once.
mod account {
    pub(crate) mod backlog;
    pub(crate) mod batch;
    pub(crate) mod counters;
    pub(crate) mod handle;
    pub(crate) mod registrar;
    pub(crate) mod registry;
    pub(crate) mod thread_slot;
    pub(crate) mod totals;
}

/// The pool: the full list, its workers, and the monitor that looks after them.
///
/// Invariant: a queued cleanup is in the full list, in the hands of one runner, or has ended.
mod pool {
    pub(crate) mod deferred_free;
    pub(crate) mod dump;
    pub(crate) mod help;
    pub(crate) mod in_flight;
    pub(crate) mod monitor;
    pub(crate) mod queued;
    pub(crate) mod run;
    mod shutdown;
    mod staffing;
    mod stalls;
    pub(crate) mod state;
    pub(crate) mod watch;
    pub(crate) mod worker;
}

/// The side of the heap: its account with one pool, its collection cycles, and its tickets.
///
/// Invariant: each record of a dead object's chain is in one block.
mod client {
    #[expect(clippy::module_inception, reason = "the layer has the name of its main type")]
    pub(crate) mod client;
    pub(crate) mod cycle;
    pub(crate) mod ticket;
}

#[cfg(test)]
mod tests;

pub use account::handle::{Cleanup, CleanupState, RawHandle};
pub use account::registrar::Registrar;
pub use client::client::Client;
pub use client::cycle::{Cycle, Flushed, LocalBlock};
pub use client::ticket::{Ticket, WaitError};
pub use inside::in_cleanup;
pub use observe::description::Description;
pub use observe::hooks::{
    Hooks, PanicHook, ReadyHook, SlowCleanup, SlowHook, SpawnFailure, SpawnHook,
};
pub use observe::panic::CleanupPanic;
pub use observe::stats::{CleanupStats, PoolStats};
pub use pool::dump::{Activity, PoolDump, RunnerDump};
pub use pool::state::{Pool, PoolConfig, Role, Spawn};
pub use record::head::Head;
