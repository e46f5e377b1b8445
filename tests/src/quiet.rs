//! Panics that are expected, or that are reported later: caught without a word on standard error.
//!
//! Invariant: only the thread that asks is quiet, and only as long as it asks; every other panic
//! goes to the hook that was there before (the test harness's, or the fuzzer's, which aborts).

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls `f`; panics on this thread meanwhile print nothing, unless one ends the process: then it
/// and the last one before it are printed after all.
pub fn quietly<T>(f: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    install();
    DEPTH.set(DEPTH.get() + 1);
    let _leave = Leave;
    f()
}

/// Whether `f` panics, as the caller expects it to.
pub fn panics<T>(f: impl FnOnce() -> T) -> bool {
    quietly(|| catch_unwind(AssertUnwindSafe(f)).is_err())
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            let text = panic.to_string();
            // The standard library's words for a panic that cannot be caught.
            let fatal =
                ["during cleanup", "cannot unwind"].iter().any(|words| text.contains(words));
            if DEPTH.get() == 0 {
                loud(panic);
            } else if fatal {
                eprintln!("{}", LAST.take().unwrap_or_default());
                loud(panic);
            } else {
                LAST.set(Some(text));
            }
        }));
    });
}
