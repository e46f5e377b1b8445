//! mimalloc as an allocator of its own, in a process whose other memory is the system's: as the
//! allocator of the whole process it would serve the other peers, too.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};

use allocator_api2::alloc::{AllocError, Allocator};
use mimalloc::MiMalloc;

/// What a `Box` on mimalloc takes its memory from.
pub(super) struct Mi;

// SAFETY: a block of `MiMalloc`'s is valid until it is given back, whatever becomes of `Mi`.
unsafe impl Allocator for Mi {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        assert!(layout.size() > 0, "an allocator is asked for no bytes");
        // SAFETY: the layout has a size.
        let memory = unsafe { MiMalloc.alloc(layout) };
        NonNull::new(ptr::slice_from_raw_parts_mut(memory, layout.size())).ok_or(AllocError)
    }

    #[inline]
    unsafe fn deallocate(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: by the contract of this method, `allocate` gave the memory, for this layout.
        unsafe { MiMalloc.dealloc(memory.as_ptr(), layout) };
    }
}
