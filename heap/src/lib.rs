//! The heap half of Sexton: spans, bitmaps, allocation, mark and sweep.
//!
//! Use it through the `sexton` crate, which adds the threads and the policy. The modules in the order
//! an object meets them:
//!
//! | module | what it holds |
//! |---|---|
//! | `gc`, `cells`, `guards`, `trace` | what a program sees: pointers, payload building blocks, how a type is traced |
//! | `mutation`, `mode`, `context`, `core` | a session, and the state it changes: a mutator's own and what all share |
//! | `mutator`, `attached`, `handshake` | many mutators, and how a collection comes between their sessions |
//! | `alloc` | a mutator's bump pointers and runs |
//! | `space`, `region`, `span`, `type_info`, `bitmap`, `packed` | where objects lie, and the metadata beside them |
//! | `peak` | what tables do after a peak |
//! | `roots`, `mark`, `gang`, `weak` | what is reachable |
//! | `sweep`, `local` | what becomes of the rest |
//! | `heap`, `help`, `threads`, `pacer`, `history`, `report` | the cycle |
//! | `verify` | the checker |
//!
//! Every module that opens `unsafe` is listed below with its reason; the others are safe code.

#[path = "memory/allocator.rs"]
mod alloc;
#[path = "safepoint/attached.rs"]
mod attached;
#[path = "memory/bitmap.rs"]
mod bitmap;
#[expect(unsafe_code, reason = "cells that are traced whatever their borrow state")]
#[path = "payload/cells.rs"]
mod cells;
#[expect(
    unsafe_code,
    reason = "the allocation context without a borrow flag, and on one thread at a time"
)]
#[path = "session/context.rs"]
mod context;
#[path = "session/core.rs"]
mod core;
#[expect(unsafe_code, reason = "hands objects to other markers")]
#[path = "mark/parallel.rs"]
mod gang;
#[expect(unsafe_code, reason = "the pointer type: dereferences what the brand keeps alive")]
#[path = "object/gc.rs"]
mod gc;
#[path = "payload/guards.rs"]
mod guards;
#[path = "safepoint/handshake.rs"]
mod handshake;
#[expect(unsafe_code, reason = "casts the root between brands; has spans swept by several threads")]
#[path = "collect/heap.rs"]
mod heap;
#[path = "safepoint/helpers.rs"]
mod help;
#[path = "policy/history.rs"]
mod history;
#[path = "sweep/local_cleanups.rs"]
mod local;
#[expect(unsafe_code, reason = "calls trace glue by address; prefetches")]
#[path = "mark/marker.rs"]
mod mark;
#[path = "session/mode.rs"]
mod mode;
#[path = "safepoint/mutant.rs"]
mod mutant;
#[expect(unsafe_code, reason = "makes pointers: alloc, downgrade, fetch")]
#[path = "session/mutation.rs"]
mod mutation;
#[path = "collect/mutator.rs"]
mod mutator;
#[path = "policy/pacer.rs"]
mod pacer;
#[path = "memory/rank_map.rs"]
mod packed;
#[path = "memory/peak.rs"]
mod peak;
#[expect(unsafe_code, reason = "maps memory and places spans in it")]
#[path = "memory/region.rs"]
mod region;
#[path = "policy/report.rs"]
mod report;
#[expect(unsafe_code, reason = "remembers objects by address under their family's type")]
#[path = "object/root.rs"]
mod roots;
#[expect(unsafe_code, reason = "closes emptied spans")]
#[path = "memory/space.rs"]
mod space;
#[expect(unsafe_code, reason = "metadata by mask and shift from an object's address")]
#[path = "memory/span.rs"]
mod span;
#[expect(unsafe_code, reason = "calls drop glue by address, on several threads")]
#[path = "sweep/sweeper.rs"]
mod sweep;
#[cfg(test)]
mod tests;
#[doc(hidden)]
pub mod threads;
#[expect(unsafe_code, reason = "declares and implements the unsafe trait Trace")]
#[path = "object/trace.rs"]
mod trace;
#[expect(unsafe_code, reason = "implements Trace for foreign types")]
#[path = "payload/std_impls.rs"]
mod trace_impls;
#[expect(unsafe_code, reason = "type-erased trace and drop glue")]
#[path = "memory/type_info.rs"]
mod type_info;
#[expect(unsafe_code, reason = "reads weak records")]
#[path = "collect/verify.rs"]
mod verify;
#[expect(unsafe_code, reason = "follows weak records")]
#[path = "object/weak.rs"]
mod weak;

pub use sexton_derive::Trace;

#[doc = include_str!("../HANDSHAKE.md")]
pub mod protocol {}

pub use attached::AlreadyAttached;
pub use cells::{GcAtomic, GcCell, GcMutex, GcOnce, GcRefCell, GcRwLock, Leaf};
pub use gc::{Gc, GcKey};
pub use guards::{GcMutexGuard, GcRwLockReadGuard, GcRwLockWriteGuard};
pub use heap::{HeapConfig, OnDrop, RootedHeap};
pub use local::LocalCleanup;
pub use mode::{Local, Mode, Payload, Shared};
pub use mutation::{HeapFull, Mutation};
pub use mutator::{Due, RootedMutator, SlowSession, SlowSessionHook};
pub use pacer::Pacing;
pub use report::{GcReport, HeapStats, Quantiles};
pub use roots::{HeapId, OldRoot, Root, SharedRoot};
#[doc(hidden)]
pub use trace::private as __private;
pub use trace::{Branded, Trace, Tracer};
pub use verify::VerifyError;
pub use weak::Weak;
