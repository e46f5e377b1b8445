//! The system's memory: mapping it, having it backed by large pages, and giving it back.
//!
//! Invariant: fresh memory reads zero, and so does memory whose pages have been given back. A
//! request that the system refuses changes nothing but time and resident memory.

pub(crate) use sys::{
    give_back, map, page_bytes, prefer_huge_pages, prefer_small_pages, touch, try_huge_page, unmap,
};

/// Bytes of a large page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

#[cfg(unix)]
mod sys {
    use std::ptr::{self, NonNull};
    use std::sync::OnceLock;

    use libc::{MAP_ANON, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE};

    use super::HUGE_PAGE;
    use crate::memory::layout::SPAN_BYTES;

    /// Maps `bytes` of zeroes at a multiple of `align`, or `None` if the system refuses.
    pub(crate) fn map(bytes: usize, align: usize) -> Option<NonNull<u8>> {
        // Map too much, then give back what sticks out on both sides.
        let whole = bytes.checked_add(align)?;
        let (access, kind) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON);
        // SAFETY: a null hint and a fresh private mapping touch no memory that is in use.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), whole, access, kind, -1, 0) };
        if mapped == MAP_FAILED {
            return None;
        }
        let start = NonNull::new(mapped.cast::<u8>())?;
        let before = start.align_offset(align);
        // SAFETY: the aligned address lies within the mapping.
        let base = unsafe { start.byte_add(before) };
        // SAFETY: as above; at most one past its end.
        let end = unsafe { base.byte_add(bytes) };
        // SAFETY: the piece before the base is unused.
        unsafe { unmap_piece(start, before) };
        // SAFETY: the piece behind the end is unused.
        unsafe { unmap_piece(end, whole - before - bytes) };
        Some(base)
    }

    /// # Safety
    ///
    /// The bytes are mapped, and nothing in them is used again.
    unsafe fn unmap_piece(start: NonNull<u8>, bytes: usize) {
        if bytes > 0 {
            // SAFETY: by this function's contract.
            let result = unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
            debug_assert!(result == 0, "munmap refused a mapping of ours");
        }
    }

    /// # Safety
    ///
    /// `base` came from `map(bytes, align)`, and nothing in the mapping is used again.
    pub(crate) unsafe fn unmap(base: NonNull<u8>, bytes: usize, _align: usize) {
        // SAFETY: by this function's contract.
        unsafe { unmap_piece(base, bytes) };
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes() -> usize {
        static BYTES: OnceLock<usize> = OnceLock::new();
        *BYTES.get_or_init(|| {
            // SAFETY: the call reads a constant of the system.
            let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            usize::try_from(bytes).unwrap_or(SPAN_BYTES).max(1)
        })
    }

    /// Gives whole pages back to the system. They read zero from here on. Tells whether they have
    /// gone.
    ///
    /// # Safety
    ///
    /// The pages are mapped, and their contents are not used again. Both bounds are multiples of
    /// [`page_bytes`].
    #[cfg(target_os = "linux")]
    pub(crate) unsafe fn give_back(start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: by this function's contract.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) == 0 }
    }

    /// Does nothing: elsewhere the advice may leave the contents as they are.
    ///
    /// # Safety
    ///
    /// As on Linux.
    #[cfg(not(target_os = "linux"))]
    pub(crate) unsafe fn give_back(_start: NonNull<u8>, _bytes: usize) -> bool {
        false
    }

    /// Has the memory backed by small pages from here on. Otherwise a system may choose large ones
    /// at the first touch.
    #[cfg(target_os = "linux")]
    pub(crate) fn prefer_small_pages(start: NonNull<u8>, bytes: usize) {
        advise(start, bytes, libc::MADV_NOHUGEPAGE);
    }

    /// Has the memory backed by large pages from the first touch on, as far as there are any.
    #[cfg(target_os = "linux")]
    pub(crate) fn prefer_huge_pages(start: NonNull<u8>, bytes: usize) {
        advise(start, bytes, libc::MADV_HUGEPAGE);
    }

    /// Has all pages backed by memory, in one call instead of a fault for each.
    #[cfg(target_os = "linux")]
    pub(crate) fn touch(start: NonNull<u8>, bytes: usize) {
        advise(start, bytes, libc::MADV_POPULATE_WRITE);
    }

    /// Makes one large page of [`HUGE_PAGE`] bytes, with their contents. Where the system cannot do
    /// that at once, it may come to it in its own time.
    #[cfg(target_os = "linux")]
    pub(crate) fn try_huge_page(start: NonNull<u8>) {
        advise(start, HUGE_PAGE, libc::MADV_HUGEPAGE);
        // Since Linux 6.1.
        advise(start, HUGE_PAGE, MADV_COLLAPSE);
    }

    /// Gives advice that keeps the contents. A refusal is harmless, even of memory that is not
    /// mapped any more.
    #[cfg(target_os = "linux")]
    fn advise(start: NonNull<u8>, bytes: usize, advice: libc::c_int) {
        // SAFETY: no advice passed here changes what memory holds.
        let _refused = unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) };
    }

    /// libc names it for glibc only.
    #[cfg(target_os = "linux")]
    const MADV_COLLAPSE: libc::c_int = 25;

    /// Does nothing: the system decides.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn prefer_small_pages(_start: NonNull<u8>, _bytes: usize) {}

    /// Does nothing: the system decides.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn prefer_huge_pages(_start: NonNull<u8>, _bytes: usize) {}

    /// Does nothing: the first writes do it.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn touch(_start: NonNull<u8>, _bytes: usize) {}

    /// Does nothing: the system decides.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn try_huge_page(_start: NonNull<u8>) {
        let _ = HUGE_PAGE;
    }
}

#[cfg(not(unix))]
mod sys {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    /// Allocates `bytes` of zeroes at a multiple of `align`, or `None` if the system refuses.
    pub(crate) fn map(bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, align).ok()?;
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    ///
    /// `base` came from `map(bytes, align)`, and nothing in the mapping is used again.
    pub(crate) unsafe fn unmap(base: NonNull<u8>, bytes: usize, align: usize) {
        let layout = Layout::from_size_align(bytes, align).expect("it was valid for `map`");
        // SAFETY: by this function's contract.
        unsafe { dealloc(base.as_ptr(), layout) };
    }

    /// Bytes of a page, as far as it matters here.
    pub(crate) fn page_bytes() -> usize {
        4096
    }

    /// Does nothing: the allocator takes whole regions only.
    ///
    /// # Safety
    ///
    /// None.
    pub(crate) unsafe fn give_back(_start: NonNull<u8>, _bytes: usize) -> bool {
        false
    }

    /// Does nothing: the allocator decides.
    pub(crate) fn prefer_small_pages(_start: NonNull<u8>, _bytes: usize) {}

    /// Does nothing: the allocator decides.
    pub(crate) fn prefer_huge_pages(_start: NonNull<u8>, _bytes: usize) {}

    /// Does nothing: the first writes do it.
    pub(crate) fn touch(_start: NonNull<u8>, _bytes: usize) {}

    /// Does nothing: the allocator decides.
    pub(crate) fn try_huge_page(_start: NonNull<u8>) {}
}
