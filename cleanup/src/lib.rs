//! Cleanup records, blocks, the full list and its workers: the half of Sexton that knows no heap.
mod first;
mod panic;
mod stats;
pub use first::{
    Cleanup, CleanupState, Cycle, Flushed, Head, LocalBlock, Origin, PanicHook, Pool, PoolConfig,
    Registrar, Spawn, Ticket, WaitError, Worker, in_cleanup,
};
pub use panic::CleanupPanic;
pub use stats::{OriginStats, PoolStats};
