//! What a guard adds to the bytes outside the heap: how much more its value owns when the guard is
//! dropped than when it was lent.
//!
//! Invariant: a charge is dropped on the thread of its session, before the session ends, and while
//! the guard that it belongs to has its cell for itself.

use std::mem::needs_drop;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;

use crate::memory::external;
use crate::object::trace::Trace;
use crate::session::context::ExternalTally;

/// Charges the difference when it is dropped. A leaked guard charges nothing; the next sweep sees.
pub(crate) struct Charge<'a> {
    /// `None` if the value's type owns nothing.
    of: Option<Of<'a>>,
}

struct Of<'a> {
    tally: &'a ExternalTally,
    content: NonNull<()>,
    measure: unsafe fn(NonNull<()>) -> usize,
    before: usize,
}

impl<'a> Charge<'a> {
    /// Begins one for what is in a cell.
    ///
    /// # Safety
    ///
    /// Until the charge is dropped the cell stays where it is, and is the caller's alone. No
    /// reference to its content is in use now, or when the charge is dropped.
    #[inline]
    pub(crate) unsafe fn begin<'gc, T: Trace<'gc>>(
        tally: &'a ExternalTally,
        content: *mut T,
    ) -> Self {
        let (true, Some(content)) = (needs_drop::<T>(), NonNull::new(content)) else {
            return Charge { of: None };
        };
        // SAFETY: by this function's contract.
        let before = unsafe { measure::<T>(content.cast()) };
        Charge { of: Some(Of { tally, content: content.cast(), measure: measure::<T>, before }) }
    }
}

/// # Safety
///
/// At the address is a `T` that does not change meanwhile, but in its cells.
unsafe fn measure<'gc, T: Trace<'gc>>(content: NonNull<()>) -> usize {
    // SAFETY: by this function's contract.
    unsafe { content.cast::<T>().as_ref() }.external_bytes()
}

impl Drop for Charge<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(Of { tally, content, measure, before }) = self.of else { return };
        // SAFETY: by the contract of `begin`.
        let after = unsafe { measure(content) };
        if after != before {
            tally.add(external::change(after) - external::change(before));
        }
    }
}

// SAFETY: a shared reference to a charge gives access to nothing.
unsafe impl Sync for Charge<'_> {}

// What it changes is two numbers, which no panic leaves half done.
impl UnwindSafe for Charge<'_> {}
impl RefUnwindSafe for Charge<'_> {}
