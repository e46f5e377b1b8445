//! Sexton: a mark-sweep heap whose objects can carry *cleanups*.
//!
//! A cleanup is a function that runs some time after its object has died. A bounded set of worker
//! threads runs the cleanups. The compiler keeps a cleanup from ever reaching its object.
//!
//! ```
//! use std::time::Duration;
//! use sexton::{Gc, GcCell, Heap, Trace};
//!
//! #[derive(Trace)]
//! struct Node<'gc> { value: u64, next: GcCell<Option<Gc<'gc, Node<'gc>>>> }
//!
//! #[derive(Trace, Default)]
//! struct World<'gc> { head: GcCell<Option<Gc<'gc, Node<'gc>>>> }
//!
//! let mut heap: Heap<World<'static>> = Heap::new(|_mc| World::default());
//! heap.mutate(|mc, world| {
//!     let node = mc.alloc(Node { value: 1, next: GcCell::new(world.head.get()) });
//!     world.head.set(mc, Some(node));
//!     mc.add_cleanup(node, || println!("node 1 is gone"));
//! });
//! heap.mutate(|mc, world| world.head.set(mc, None));
//! let report = heap.collect();
//! assert_eq!(report.swept_objects, 1);
//! heap.wait_for_cleanups(Duration::from_secs(1))?; // the line has been printed
//! # Ok::<(), sexton::WaitError>(())
//! ```
//!
//! # The parts
//!
//! - A [`Heap`] owns objects. A program works on them in *sessions* ([`Heap::mutate`]), which lend
//!   it a [`Mutation`] and the heap's root. Pointers ([`Gc`], [`Weak`]) belong to their session; a
//!   [`Root`] keeps an object from one to the next.
//! - A heap has a mode: [`Local`], the default, stays on its thread; in a [`Shared`] one each
//!   thread attaches a [`Mutator`], or an [`OwnedMutator`], which has the sessions.
//! - Payloads are types that derive [`Trace`]. They are built of [`GcCell`], [`GcRefCell`],
//!   [`GcMutex`], [`GcRwLock`], [`GcOnce`], [`GcAtomic`], [`Leaf`] and the standard containers.
//!   Those of a shared heap are built of what is `Send + Sync`, so not of the first two.
//!   [`GcVec`] and [`GcMap`] are for millions of pointers, [`GcStr`] is for strings.
//! - [`Mutation::add_cleanup`] registers a cleanup and returns its handle, a [`Cleanup`].
//! - A [`CleanupPool`] runs the cleanups of dead objects. All heaps share [`CleanupPool::global`]
//!   unless told otherwise.
//!
//! # If it does not compile
//!
//! The module [`compile_errors`] says of each of the compiler's messages why it comes and how to
//! mend it.

#![forbid(unsafe_code)]

mod back_pressure;
mod gc_threads;
mod heap;
mod mutator;
mod pool;
mod threads;

#[cfg(test)]
mod tests;

pub use back_pressure::{BackPressure, BackPressureHook, Backlog};
pub use gc_threads::{GcThreadStats, gc_threads};
pub use heap::{Heap, HeapBuilder};
pub use mutator::{Mutator, OwnedMutator};
pub use pool::{CleanupPool, CleanupPoolBuilder, ShutdownTimeout};
pub use sexton_cleanup::{
    Activity, Cleanup, CleanupPanic, CleanupState, CleanupStats, Description, PoolDump, PoolStats,
    RunnerDump, SlowCleanup, SpawnFailure, WaitError,
};
#[doc(hidden)]
pub use sexton_heap::__private;
pub use sexton_heap::{
    AlreadyAttached, Branded, ExternalBytes, ExternalCharge, Gc, GcAny, GcAtomic, GcCell, GcKey,
    GcMap, GcMutex, GcMutexGuard, GcOnce, GcRef, GcRefCell, GcRefMut, GcReport, GcRwLock,
    GcRwLockReadGuard, GcRwLockWriteGuard, GcStr, GcVec, HeapFull, HeapId, HeapStats, Leaf, Local,
    LocalCleanup, Mode, Mutation, OldRoot, OnDrop, Overhead, Pacing, Payload, Progress, Quantiles,
    Quota, Root, Shared, SharedRoot, SlowSession, Trace, Tracer, VerifyError, Weak,
};

#[cfg(doc)]
#[doc = include_str!("../COMPILE-ERRORS.md")]
pub mod compile_errors {}

/// The example of the package's README, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct PackageReadme;
