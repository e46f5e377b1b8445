//! Locks, atomics and their stand-ins under loom and shuttle: the lowest layer of Sexton.
//!
//! This crate is the only source of atomics, fences, locks, condition variables and concurrent
//! queues in Sexton. Built as usual, these are the standard library's atomics and locks, and
//! crossbeam's `Injector`. Built with `--cfg loom`, the same names are loom's, and a model explores
//! every interleaving of the code that ships. Built with `--cfg shuttle`, they are shuttle's, which
//! tries some schedules of models that are too large for loom.
//!
//! The two checkers know different things. Loom knows the orderings of atomics, and checks every
//! access to an [`UnsafeCell`]. To shuttle every atomic operation is sequentially consistent, a
//! fence says nothing, and a cell is a cell.
//!
//! Two things stay the standard library's in models. One is [`Arc`], as a counted pointer adds
//! branches to a model and no questions. The other is [`OnceLock`], whose content is made without a
//! scheduling point. So no checker sees it half made.

#[cfg(shuttle)]
#[doc(hidden)]
pub mod explorer;
#[cfg(any(loom, shuttle))]
mod injector;

pub mod fields;

mod cell;
mod locks;
mod panic;
mod process;

// The door to unsafe code.
#[expect(unsafe_code, reason = "the instructions that prefetch")]
pub mod prefetch;

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;
#[cfg(not(any(loom, shuttle)))]
use std as checker;

pub use cell::UnsafeCell;
pub use checker::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(any(loom, shuttle))]
pub use checker::thread;
pub use checker::thread::yield_now;
pub use checker::thread_local;
#[cfg(not(any(loom, shuttle)))]
pub use crossbeam_deque::Injector;
pub use crossbeam_deque::Steal;
pub use crossbeam_utils::CachePadded;
#[cfg(any(loom, shuttle))]
pub use injector::Injector;
pub use locks::{Condvar, Mutex, MutexGuard, wait_until};
pub use panic::drop_quietly;
pub use process::{PerProcess, Process};
#[cfg(shuttle)]
pub use shuttle::lazy_static;
pub use std::sync::{Arc, OnceLock, Weak};
