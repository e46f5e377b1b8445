//! Sexton: a mark-sweep heap whose objects can carry *cleanups*, functions that a bounded set of
//! worker threads runs some time after the object has died, and that the compiler keeps from ever
//! reaching it.
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
//! - A [`Heap`] owns objects. A program works on them in *sessions* ([`Heap::mutate`]), which lend it
//!   a [`Mutation`] and the heap's root. Pointers ([`Gc`], [`Weak`]) belong to their session; a
//!   [`Root`] keeps an object from one to the next.
//! - A heap has a mode: [`Local`], the default, stays on its thread; in a [`Shared`] one each thread attaches a [`Mutator`], which has the sessions.
//! - Payloads are types that derive [`Trace`], built of [`GcCell`], [`GcRefCell`], [`GcMutex`], [`GcRwLock`], [`GcOnce`],
//!   [`GcAtomic`], [`Leaf`] and the standard containers; those of a shared heap of what is `Send + Sync`, so not of the first two.
//! - [`Mutation::add_cleanup`] registers a cleanup and returns its handle, a [`Cleanup`].
//! - A [`CleanupPool`] runs the cleanups of dead objects. All heaps share [`CleanupPool::global`]
//!   unless told otherwise.
//!
//! # If it does not compile
//!
//! | the compiler says | because | do this |
//! |---|---|---|
//! | "`P` cannot live in the heap of this session", "`World` is not the `'static` form of a heap type" | `P` does not implement [`Trace`] | derive it; wrap a foreign type without a `Gc` in [`Leaf`], or mark its field `#[trace(leaf)]` |
//! | "`UnsafeCell<..>`", "`RefCell<..>`" or "`Rc<..>` cannot be shared between threads safely", or "sent", and further down "required for `P` to implement `Payload<Shared>`"; or "`P` cannot live in a heap of mode `Shared`" | several threads use a [`Shared`] heap, and any of them may drop what is in it; so `P`, and all that its fields lead to, is `Send + Sync` | [`GcAtomic`], [`GcMutex`], [`GcRwLock`] or [`GcOnce`] in place of [`GcCell`] and [`GcRefCell`], which the notes in between name with the types that hold them; `Arc` in place of `Rc` |
//! | "lifetime may not live long enough", "`'gc` must outlive `'static`", at a field of `RefCell<Option<Gc>>`, `Cell`, `OnceCell` or `Mutex` | these change pointers without a session | [`GcRefCell`], [`GcCell`], [`GcOnce`], [`GcMutex`] or [`GcAtomic`] |
//! | the same, at a field of `Rc<Gc>` or `Arc<Gc>` | shared ownership outlives sessions | the `Gc` alone, which is `Copy` and shares the object; or a [`Root`] outside the heap |
//! | the same, at a field of `&'a str` or another reference | a payload borrows nothing but what is static | own it (`String`, `Box<str>`), or keep a `Gc` |
//! | "borrowed data escapes outside of closure", "`UnsafeCell<..>` cannot be shared between threads safely", or "`NonNull<..>`", "`Rc<..>` cannot be sent", at `add_cleanup` | the closure captures a [`Gc`], a [`Weak`], a [`Root`], the session, a reference into an object, or something else that another thread may not have | copy out what the cleanup needs before, and `move` only that |
//! | "`..` cannot be sent between threads safely", or "shared", at `thread::spawn` or in a scope | a [`Local`] heap stays on the thread that made it, and so do a session, a [`Mutator`] and a [`Root`]; a `Gc` goes to scoped threads within its session if it points to what is `Sync` | make the heap there, and send plain values; or a `Heap<_, Shared>`, to which each thread [attaches](Heap::attach); a [`SharedRoot`] |
//! | "cannot borrow `heap`", or `mutator`, "as mutable more than once", inside `mutate` | a session is open already; they do not nest, and `collect` waits for the end | pass `mc` and the root down; collect after the session |
//! | "borrowed data escapes outside of closure", "lifetime may not live long enough", at a `Gc` that leaves `mutate`, be it to another thread | a pointer ends with its session | return the value; reach the object from the root, on another thread in a session of its own; or keep a [`Root`] ([`Mutation::root`], [`Mutation::fetch`]) |
//! | "conflicting implementations of trait `MustNotImplementDropAsItDerivesTrace`" | a type that derives `Trace` implements `Drop`, which could read dead objects | move what needs dropping into a field of its own type, in a [`Leaf`]; or register a cleanup |

#![forbid(unsafe_code)]

mod back_pressure;
mod heap;
mod mutator;
mod pool;

pub use back_pressure::{BackPressure, BackPressureHook, Backlog};
pub use heap::{Heap, HeapBuilder, OnDrop};
pub use mutator::Mutator;
pub use pool::{CleanupPool, CleanupPoolBuilder, ShutdownTimeout};
pub use sexton_cleanup::{
    Activity, Cleanup, CleanupPanic, CleanupState, CleanupStats, Description, PoolDump, PoolStats,
    RunnerDump, SlowCleanup, SpawnFailure, WaitError,
};
#[doc(hidden)]
pub use sexton_heap::__private;
pub use sexton_heap::{
    AlreadyAttached, Branded, Gc, GcAtomic, GcCell, GcMutex, GcOnce, GcRefCell, GcReport, GcRwLock,
    HeapFull, HeapId, HeapStats, Leaf, Local, LocalCleanup, Mode, Mutation, OldRoot, Pacing,
    Payload, Quantiles, Root, Shared, SharedRoot, SlowSession, Trace, Tracer, VerifyError, Weak,
};

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The guide's programs, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../docs/GUIDE.md")]
struct Guide;
