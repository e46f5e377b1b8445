//! Hints to the processor that memory will be needed soon.
//!
//! They change nothing but the time it takes.

/// Has the line at this address fetched, to be read.
#[inline]
pub fn to_read(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Has the line at this address fetched, to be written: other processors give it up.
///
/// The intrinsic with the hint for a write compiles to `prefetcht0`, unless the target has
/// `prfchw`. So this is the instruction itself.
#[inline]
pub fn to_write(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless. Each x86-64 processor decodes the
    // instruction; one that lacks it does nothing.
    unsafe {
        std::arch::asm!(
            "prefetchw [{}]",
            in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
