//! The heap half of Sexton: spans, bitmaps, allocation, mark and sweep.
//!
//! Use it through the `sexton` crate, which adds the threads and the policy.
//!
//! The modules below are layers, the lowest first. A layer imports from lower ones only, and
//! `.ci/layers.py` checks that. Each module that opens `unsafe` is listed here with its reason. All
//! others are safe code.

mod id;

mod memory {
    //! Where objects lie, and the metadata beside them.
    //!
    //! Invariant: a slot holds an initialised object exactly if its `alloc` bit is set and no
    //! allocator has it cached.

    #[expect(unsafe_code, reason = "an address crosses threads")]
    pub(crate) mod address;
    pub(crate) mod allocator;
    pub(crate) mod bitmap;
    #[expect(unsafe_code, reason = "the address of a lock crosses threads")]
    pub(crate) mod cell_lock;
    pub(crate) mod external;
    pub(crate) mod layout;
    pub(crate) mod locking;
    pub(crate) mod look;
    pub(crate) mod mark_stack;
    #[expect(unsafe_code, reason = "maps memory, and gives it back")]
    pub(crate) mod pages;
    pub(crate) mod peak;
    pub(crate) mod phase;
    pub(crate) mod rank_map;
    #[expect(unsafe_code, reason = "places spans in mapped memory")]
    pub(crate) mod region;
    #[cfg(not(any(loom, shuttle)))]
    #[expect(unsafe_code, reason = "unmaps regions that no heap uses")]
    pub(crate) mod shared_regions;
    #[expect(unsafe_code, reason = "closes emptied spans")]
    pub(crate) mod space;
    #[expect(unsafe_code, reason = "metadata by mask and shift from an object's address")]
    pub(crate) mod span;
    pub(crate) mod type_info;
    pub(crate) mod weak_table;
}

mod safepoint {
    //! How a collection comes between the sessions of many mutators, and which threads help it.
    //!
    //! Invariant: while the mutators are stopped, no session is open.

    pub(crate) mod attached;
    pub(crate) mod handshake;
    pub(crate) mod helpers;
}

mod policy {
    //! The settings of a heap, when it collects, and its reports.
    //!
    //! Invariant: nothing here changes which objects live. A wrong number costs time or memory, and
    //! never soundness.

    pub(crate) mod config;
    pub(crate) mod external;
    pub(crate) mod history;
    pub(crate) mod pacer;
    pub(crate) mod report;
}

mod mark {
    //! Which objects are reachable.
    //!
    //! Invariant: each marked object with pointers waits exactly once, or has been traced.

    #[expect(unsafe_code, reason = "calls trace glue by address")]
    pub(crate) mod marker;
    pub(crate) mod parallel;
    pub(crate) mod root_table;
    #[expect(unsafe_code, reason = "clears weak records")]
    pub(crate) mod weaks;
}

mod sweep {
    //! What becomes of the objects that are not marked.
    //!
    //! Invariant: the cleanups of a dead object are queued before its slot is free.

    pub(crate) mod local_cleanups;
    #[expect(unsafe_code, reason = "has spans swept by several threads")]
    pub(crate) mod parallel;
    #[expect(unsafe_code, reason = "calls drop glue by address")]
    pub(crate) mod sweeper;
}

mod object {
    //! The pointers that a program holds, and how the objects behind them are traced.
    //!
    //! Invariant: a pointer of brand `'gc` leads to a live object for all of `'gc`.

    #[expect(unsafe_code, reason = "the pointer type: dereferences what the brand keeps alive")]
    pub(crate) mod gc;
    #[expect(unsafe_code, reason = "type-erased trace and drop glue")]
    pub(crate) mod glue;
    #[expect(unsafe_code, reason = "remembers objects by address under their family's type")]
    pub(crate) mod root;
    #[expect(unsafe_code, reason = "declares and implements the unsafe trait Trace")]
    pub(crate) mod trace;
    #[expect(unsafe_code, reason = "follows weak records")]
    pub(crate) mod weak;
}

mod session {
    //! A session, and the state that it changes: its mutator's own, and what all mutators share.
    //!
    //! Invariant: a mutator's context has one user at a time, and no cycle runs while a session is
    //! open.

    #[expect(
        unsafe_code,
        reason = "the allocation context without a borrow flag, and on one thread at a time"
    )]
    pub(crate) mod context;
    pub(crate) mod core;
    pub(crate) mod error;
    pub(crate) mod mode;
    #[expect(unsafe_code, reason = "makes pointers: alloc, downgrade, fetch")]
    pub(crate) mod mutation;
}

mod payload {
    //! The types that a program builds its objects from.
    //!
    //! Invariant: a pointer within an object changes only by a call that takes the session.

    #[expect(unsafe_code, reason = "cells that are traced whatever their borrow state")]
    pub(crate) mod cells;
    #[expect(unsafe_code, reason = "looks at what a guard has lent, under its lock")]
    pub(crate) mod charge;
    #[expect(unsafe_code, reason = "makes a pointer of a type that it has checked")]
    pub(crate) mod gc_any;
    #[expect(unsafe_code, reason = "reads pages; implements Trace")]
    pub(crate) mod gc_map;
    #[expect(unsafe_code, reason = "reads strings of several classes by one pointer")]
    pub(crate) mod gc_str;
    #[expect(unsafe_code, reason = "reads pages; implements Trace")]
    pub(crate) mod gc_vec;
    pub(crate) mod guards;
    #[cfg(loom)]
    #[expect(unsafe_code, reason = "implements the lock traits")]
    pub(crate) mod loom_locks;
    #[expect(unsafe_code, reason = "a cell that a session and a marker beside it share")]
    pub(crate) mod page;
    #[expect(unsafe_code, reason = "implements the lock traits by other locks")]
    pub(crate) mod raw;
    #[expect(unsafe_code, reason = "implements Trace for foreign types")]
    pub(crate) mod std_impls;
}

mod collect {
    //! The heap with its root, its mutators, the cycle, and the checker.
    //!
    //! Invariant: between two cycles each reachable object is live, and each mark bit is clear.
    //! Each cleanup of a swept object has been queued or has ended.

    pub(crate) mod background;
    pub(crate) mod clearing;
    pub(crate) mod cycle;
    #[expect(unsafe_code, reason = "casts the root between brands")]
    pub(crate) mod heap;
    pub(crate) mod huge_pages;
    pub(crate) mod mutator;
    pub(crate) mod pace;
    #[expect(unsafe_code, reason = "has spans swept by several threads")]
    pub(crate) mod sweeping;
    pub(crate) mod taken;
    pub(crate) mod until;
    #[expect(unsafe_code, reason = "reads weak records")]
    pub(crate) mod verify;
}

#[cfg(test)]
mod tests;

pub use sexton_derive::Trace;

#[doc = include_str!("../HANDSHAKE.md")]
pub mod protocol {}

#[doc = include_str!("../MARKING.md")]
pub mod marking {}

pub use collect::heap::RawHeap;
pub use collect::mutator::{AttachedMutator, Due, HeapHandle, HeapWithin, RawMutator};
pub use collect::verify::VerifyError;
pub use id::HeapId;
pub use mark::root_table::OldRoot;
pub use memory::locking::{Local, Shared};
pub use object::gc::{Gc, GcKey};
pub use object::root::{Root, SharedRoot};
#[doc(hidden)]
pub use object::trace::private as __private;
pub use object::trace::{Branded, Trace, Tracer};
pub use object::weak::Weak;
pub use payload::cells::{GcAtomic, GcCell, GcMutex, GcOnce, GcRefCell, GcRwLock, Leaf};
pub use payload::gc_any::GcAny;
pub use payload::gc_map::GcMap;
pub use payload::gc_str::GcStr;
pub use payload::gc_vec::GcVec;
pub use payload::guards::{GcMutexGuard, GcRef, GcRefMut, GcRwLockReadGuard, GcRwLockWriteGuard};
pub use policy::config::{HeapConfig, OnDrop, SlowSession, SlowSessionHook, SpawnHelper};
pub use policy::external::{ExternalBytes, ExternalCharge, Quota};
pub use policy::pacer::Pacing;
pub use policy::report::{GcReport, HeapStats, Overhead, Progress, Quantiles};
pub use safepoint::attached::AlreadyAttached;
pub use session::error::HeapFull;
pub use session::mode::{Mode, Payload};
pub use session::mutation::Mutation;
pub use sweep::local_cleanups::LocalCleanup;
