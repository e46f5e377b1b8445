//! Which heaps the current thread has a mutator of.
//!
//! Invariant: a thread has at most one mutator of each heap. So a session is never opened within
//! another one on the same heap, nor by drop glue or trace glue within a cycle. Either would wait
//! for itself.
//!
//! One exception is a thread that ends, and whose own memory is gone already. What it does then is
//! sound, but may wait for itself.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::thread;

use sexton_sync::thread_local;

use crate::id::HeapId;

thread_local! {
    static HERE: RefCell<Vec<HeapId>> = RefCell::default();
}

/// Keeps the value that has it on its thread. It takes no room.
#[derive(Default)]
pub(crate) struct NotSend {
    /// Not `PhantomData`, which the compiler's messages would show the source of, where there is
    /// one.
    _pointers: [*const (); 0],
}

/// The current thread's place at a heap. It stays on the thread.
pub(crate) struct AttachGuard {
    heap: HeapId,
    _not_send: NotSend,
}

impl AttachGuard {
    /// Takes the place, if the thread does not have it. O(heaps that the thread is attached to).
    pub(crate) fn new(heap: HeapId) -> Result<Self, AlreadyAttached> {
        let taken = HERE.try_with(|here| {
            let mut here = here.borrow_mut();
            let free = !here.contains(&heap);
            if free {
                here.push(heap);
            }
            free
        });
        match taken {
            Ok(false) => Err(AlreadyAttached { heap }),
            // A thread that is ending, and has no more memory of its own, cannot be kept from
            // attaching twice.
            Ok(true) | Err(_) => Ok(AttachGuard { heap, _not_send: NotSend::default() }),
        }
    }

    /// Gives the place of a thread that was started to help with a cycle.
    pub(crate) fn helper(heap: HeapId) -> Option<Self> {
        Self::new(heap).ok()
    }
}

impl Drop for AttachGuard {
    fn drop(&mut self) {
        let _ending = HERE.try_with(|here| here.borrow_mut().retain(|&heap| heap != self.heap));
    }
}

/// The current thread has a mutator of that heap already, or is collecting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyAttached {
    heap: HeapId,
}

impl fmt::Display for AlreadyAttached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = thread::current();
        write!(
            f,
            "thread `{}` has a mutator of {} already, or is collecting it; valid is one at a \
             time: within a session use the `Mutation` at hand, between sessions the same mutator \
             again, and in `Drop` of a payload neither",
            thread.name().unwrap_or("unnamed"),
            self.heap
        )
    }
}

impl Error for AlreadyAttached {}
