//! The page: a bounded part of a collection, and an object of the heap.
//!
//! A collection is a tree of pages. The marker comes to them one by one, as to any object. So no
//! step traces more than one page, and a subtree that is cut off is marked by its topmost page.
//!
//! Invariant: a page belongs to one collection, which is not `Sync`. Its content changes only in
//! [`Page::change`], and while a cycle marks beside sessions only under the page's lock.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::lock_api;

use crate::memory::external;
use crate::object::trace::{Branded, Trace, Tracer};
use crate::payload::raw::RawGcMutex;
use crate::session::mode::Mode;
use crate::session::mutation::Mutation;

/// What a page holds.
pub(crate) trait PageContent {
    /// Gives the bytes of its table. O(1), and looks at no element.
    fn table_bytes(&self) -> usize;
}

/// Holds a part of a collection.
pub(crate) struct Page<C> {
    /// What the content owns outside the heap. A sweep beside sessions reads it, and not the
    /// content, which a session changes meanwhile. Relaxed: a number for the pacer.
    bytes: AtomicUsize,
    /// Locked by a session to write beside a marker, and by that marker. Not locked to read: the
    /// collection has one user.
    content: lock_api::Mutex<RawGcMutex, C>,
}

impl<C> Page<C> {
    pub(crate) fn new(content: C) -> Self
    where
        C: PageContent,
    {
        let bytes = AtomicUsize::new(content.table_bytes());
        Page { bytes, content: lock_api::Mutex::new(content) }
    }

    /// Lends the content to read it.
    ///
    /// # Safety
    ///
    /// [`change`](Self::change) is not called while it is lent.
    #[inline]
    pub(crate) unsafe fn content(&self) -> &C {
        // SAFETY: by the file's invariant nothing but `change` writes, and it is not called.
        unsafe { &*self.content.data_ptr() }
    }

    /// Changes the content. `f` runs no code of a user, and does not come back to this page.
    ///
    /// What it removes has been shown to [`removes`](Self::removes) or [`empties`](Self::empties).
    #[inline]
    pub(crate) fn change<'gc, M: Mode, R>(
        &self,
        mc: &Mutation<'gc, M>,
        f: impl FnOnce(&mut C) -> R,
    ) -> R
    where
        C: PageContent,
    {
        let f = |content: &mut C| {
            let before = content.table_bytes();
            let result = f(content);
            let after = content.table_bytes();
            if before != after {
                self.owns(mc, before, after);
            }
            result
        };
        // A mark that begins later does not begin within this session.
        if M::SHARED && mc.has_barrier() {
            return f(&mut self.content.lock());
        }
        // SAFETY: by the file's invariant this session alone uses the page, and no marker is beside
        // it. By this function's contract no other call is under way.
        f(unsafe { &mut *self.content.data_ptr() })
    }

    /// Takes note that a part of the content owns `after` bytes outside the heap in place of
    /// `before`.
    pub(crate) fn owns<M: Mode>(&self, mc: &Mutation<'_, M>, before: usize, after: usize) {
        let bytes = self.bytes.load(Relaxed);
        self.bytes.store(bytes.saturating_add(after).saturating_sub(before), Relaxed);
        mc.tally().add(external::change(after) - external::change(before));
    }

    /// Takes note that a value is about to leave the page.
    ///
    /// Nothing has to be done if the cycle has traced the page.
    #[inline]
    pub(crate) fn removes<'gc, M: Mode, T: Trace<'gc>>(&self, mc: &Mutation<'gc, M>, value: &T) {
        mc.overwrites_unless(&self.raw().stamp, value);
    }

    /// Takes note that much of the content is about to leave the page. O(values).
    pub(crate) fn empties<'gc, M: Mode>(&self, mc: &Mutation<'gc, M>)
    where
        C: Trace<'gc>,
    {
        // SAFETY: trace glue changes nothing.
        mc.lends(self.raw(), unsafe { self.content() });
    }

    #[inline]
    fn raw(&self) -> &RawGcMutex {
        // SAFETY: the lock is not unlocked by it.
        unsafe { self.content.raw() }
    }
}

// SAFETY: as for `GcMutex`: the content is traced, but for a page that this cycle has traced
// already. Beside open sessions it is locked for that; otherwise no write is under way. There is no
// `Drop`. The family is the page with its brand open.
unsafe impl<'gc, C: Trace<'gc>> Trace<'gc> for Page<C> {
    type Family = Page<C::Family>;
    const NEEDS_TRACE: bool = C::NEEDS_TRACE;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        tracer.cell(self.raw(), |tracer| {
            // SAFETY: as above: no write is under way.
            let content = unsafe { self.content() };
            // At once: a session changes the page without a look at what waits of it.
            tracer.in_cell(|tracer| content.trace(tracer));
        });
    }

    fn external_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl<F: Branded> Branded for Page<F> {
    type At<'gc> = Page<F::At<'gc>>;
}
