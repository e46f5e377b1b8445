//! A closure with its type forgotten, in 32 bytes: small captures inline, larger ones boxed.
//!
//! Invariant: a [`Thunk`] owns one closure that has been neither run nor dropped. Running it and
//! dropping it both consume it, so its captures are dropped exactly once.
//!
//! It does not know why it is run, or on which thread; that the closure is `Send` is all it needs.

use std::mem::{ManuallyDrop, MaybeUninit};

/// Where the captures lie: 24 bytes, aligned to 8, or the pointer to a box of them.
type Payload = MaybeUninit<[u64; 3]>;

/// Does one of three things with the closure that the pointer points to, and names its type.
///
/// # Safety
/// `Run` and `Drop` read the closure out. The pointer must be to the payload of a thunk made
/// together with this function. No later call may be `Run` or `Drop`. `Name` looks at nothing.
type Function = unsafe fn(*mut Payload, Op) -> &'static str;

/// The operation on the closure.
#[derive(Clone, Copy)]
enum Op {
    Run,
    Drop,
    Name,
}

/// An owned `FnOnce() + Send + 'static`.
pub(crate) struct Thunk {
    function: Function,
    payload: Payload,
}

impl Thunk {
    /// Whether closures of type `F` are kept inline.
    const fn fits<F>() -> bool {
        size_of::<F>() <= size_of::<Payload>() && align_of::<F>() <= align_of::<Payload>()
    }

    /// Whether a thunk of such a closure may as well be forgotten as dropped.
    pub(crate) const fn is_no_drop<F>() -> bool {
        Self::fits::<F>() && !std::mem::needs_drop::<F>()
    }

    /// Takes the closure in. Allocates only when its captures exceed 24 bytes or are aligned to
    /// more than 8.
    #[inline]
    pub(crate) fn new<F: FnOnce() + Send + 'static>(f: F) -> Self {
        let mut payload = Payload::uninit();
        if Self::fits::<F>() {
            // SAFETY: `fits` checked that the payload is large and aligned enough for an `F`.
            unsafe { payload.as_mut_ptr().cast::<F>().write(f) };
            Thunk { function: inline::<F>, payload }
        } else {
            let boxed = Box::into_raw(Box::new(f));
            // SAFETY: a thin pointer is 8 bytes at most, aligned to 8 at most.
            unsafe { payload.as_mut_ptr().cast::<*mut F>().write(boxed) };
            Thunk { function: boxed_closure::<F>, payload }
        }
    }

    /// Calls the closure. If it panics, its captures have been dropped by the unwinding.
    #[inline]
    pub(crate) fn run(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: function and payload were made together in `new`. `self` is consumed without its
        // `Drop`, so this is the only call that reads the closure out.
        unsafe { (this.function)(&raw mut this.payload, Op::Run) };
    }

    /// Gives a function that names the closure's type. It may be called after the thunk is gone.
    #[inline]
    pub(crate) fn namer(&self) -> Namer {
        Namer(self.function)
    }
}

impl Drop for Thunk {
    fn drop(&mut self) {
        // SAFETY: function and payload were made together in `new`, and `run` suppresses this
        // destructor, so this is the only call that reads the closure out.
        unsafe { (self.function)(&raw mut self.payload, Op::Drop) };
    }
}

/// Names the type of a closure; see [`Thunk::namer`].
#[derive(Clone, Copy)]
pub(crate) struct Namer(Function);

impl Namer {
    pub(crate) fn name(self) -> &'static str {
        // SAFETY: `Name` looks at nothing behind the pointer.
        unsafe { (self.0)(std::ptr::null_mut(), Op::Name) }
    }
}

/// Handles, as their [`Function`], closures kept inline.
unsafe fn inline<F: FnOnce()>(payload: *mut Payload, op: Op) -> &'static str {
    match op {
        Op::Run => {
            // SAFETY: the caller promises the payload of a thunk made with `inline::<F>`, whose
            // closure no other call reads out.
            let f = unsafe { payload.cast::<F>().read() };
            f();
        }
        Op::Drop => {
            // SAFETY: as for `Run`.
            unsafe { payload.cast::<F>().drop_in_place() };
        }
        Op::Name => {}
    }
    std::any::type_name::<F>()
}

/// Handles, as their [`Function`], boxed closures.
unsafe fn boxed_closure<F: FnOnce()>(payload: *mut Payload, op: Op) -> &'static str {
    if let Op::Run | Op::Drop = op {
        // SAFETY: the caller promises the payload of a thunk made with `boxed_closure::<F>`.
        let pointer = unsafe { payload.cast::<*mut F>().read() };
        // SAFETY: the pointer came out of `Box::into_raw`, and no other call reads the closure out.
        let f = unsafe { Box::from_raw(pointer) };
        if let Op::Run = op {
            f();
        }
    }
    std::any::type_name::<F>()
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[repr(align(64))]
    struct Aligned(Arc<AtomicU32>);

    /// Runs or drops a closure that captures a counter; gives (calls, captures alive).
    fn outcome(run: bool, make: impl FnOnce(Arc<AtomicU32>) -> Thunk) -> (u32, usize) {
        let calls = Arc::new(AtomicU32::new(0));
        let thunk = make(calls.clone());
        assert_eq!(Arc::strong_count(&calls), 2);
        if run {
            thunk.run();
        } else {
            drop(thunk);
        }
        (calls.load(Ordering::Relaxed), Arc::strong_count(&calls) - 1)
    }

    fn small(calls: Arc<AtomicU32>) -> Thunk {
        Thunk::new(move || {
            calls.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn large(calls: Arc<AtomicU32>) -> Thunk {
        let ballast = [1_u64; 9];
        Thunk::new(move || {
            calls.fetch_add(ballast[3] as u32, Ordering::Relaxed);
        })
    }

    fn aligned(calls: Arc<AtomicU32>) -> Thunk {
        let calls = Aligned(calls);
        Thunk::new(move || {
            let calls = &calls;
            assert_eq!(std::ptr::from_ref(calls).addr() % 64, 0);
            calls.0.fetch_add(1, Ordering::Relaxed);
        })
    }

    #[test]
    fn running_calls_once_and_drops_the_captures() {
        assert_eq!(outcome(true, small), (1, 0));
        assert_eq!(outcome(true, large), (1, 0));
        assert_eq!(outcome(true, aligned), (1, 0));
    }

    #[test]
    fn dropping_drops_the_captures_without_a_call() {
        assert_eq!(outcome(false, small), (0, 0));
        assert_eq!(outcome(false, large), (0, 0));
        assert_eq!(outcome(false, aligned), (0, 0));
    }

    #[test]
    fn captures_are_dropped_when_the_closure_panics() {
        let calls = Arc::new(AtomicU32::new(0));
        let held = calls.clone();
        let thunk = Thunk::new(move || {
            let _held = held;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thunk.run())).is_err());
        assert_eq!(Arc::strong_count(&calls), 1);
    }

    #[test]
    fn the_name_is_the_path_of_the_closure() {
        assert!(small(Arc::default()).namer().name().contains("thunk::tests::small"));
    }

    #[test]
    fn only_what_fits_in_size_and_alignment_is_inline() {
        #[repr(align(16))]
        struct Wide(#[expect(dead_code, reason = "for its size")] u64);
        assert!(Thunk::fits::<[u64; 3]>());
        assert!(!Thunk::fits::<[u64; 4]>(), "too large");
        assert!(!Thunk::fits::<Wide>(), "small enough, but a payload is aligned to 8");
    }

    #[test]
    fn only_what_is_inline_and_without_a_destructor_needs_no_drop() {
        assert!(Thunk::is_no_drop::<[u64; 3]>());
        assert!(!Thunk::is_no_drop::<[u64; 4]>(), "a box");
        assert!(!Thunk::is_no_drop::<Box<u64>>());
    }

    #[test]
    fn a_thunk_is_32_bytes() {
        assert_eq!(size_of::<Thunk>(), 32);
    }
}
