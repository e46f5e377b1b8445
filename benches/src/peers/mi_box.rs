//! `MiBox`: a `Box` on mimalloc, in a process whose other memory is the system's.
//!
//! The standard library's `Box` takes another allocator in nightly compilers only, and mimalloc as
//! the allocator of the whole process would serve the other peers, too.

use std::alloc::{GlobalAlloc, Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use mimalloc::MiMalloc;

/// Owns a value in memory of mimalloc's.
pub(super) struct MiBox<T> {
    /// Points to a live `T` in memory that `MiMalloc` gave for its layout.
    object: NonNull<T>,
    owned: PhantomData<T>,
}

impl<T> MiBox<T> {
    #[inline]
    pub(super) fn new(value: T) -> Self {
        const { assert!(size_of::<T>() > 0, "an allocator is asked for no bytes") };
        // SAFETY: the layout has a size.
        let memory = unsafe { MiMalloc.alloc(Layout::new::<T>()) };
        let Some(object) = NonNull::new(memory.cast::<T>()) else {
            handle_alloc_error(Layout::new::<T>())
        };
        // SAFETY: the memory is ours, and of a `T`'s layout.
        unsafe { object.write(value) };
        MiBox { object, owned: PhantomData }
    }
}

impl<T> Deref for MiBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the field's invariant; the borrow is ours.
        unsafe { self.object.as_ref() }
    }
}

impl<T> DerefMut for MiBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the field's invariant; the borrow is ours alone.
        unsafe { self.object.as_mut() }
    }
}

impl<T> Drop for MiBox<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the value is live, and is not used again.
        unsafe { self.object.drop_in_place() };
        // SAFETY: `new` got the memory from this allocator, for this layout.
        unsafe { MiMalloc.dealloc(self.object.as_ptr().cast(), Layout::new::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn values_are_dropped_once() {
        let count = Rc::new(());
        let mut boxes: Vec<_> = (0..1000).map(|n| MiBox::new((n, count.clone()))).collect();
        boxes[7].0 += 1;
        assert_eq!((boxes[7].0, boxes[8].0, Rc::strong_count(&count)), (8, 8, 1001));
        drop(boxes);
        assert_eq!(Rc::strong_count(&count), 1);
    }
}
