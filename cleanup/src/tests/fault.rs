//! A way to make a runner die between two cleanups, which no cleanup can do.

use std::cell::Cell;

thread_local! {
    /// Steps until this thread's runner dies; 0 for never.
    static COUNTDOWN: Cell<u32> = const { Cell::new(0) };
}

/// This thread's runner dies when it is about to run its `step`-th cleanup from now.
pub(crate) fn arm(step: u32) {
    COUNTDOWN.set(step);
}

/// Called by the runner before each cleanup.
pub(crate) fn here() {
    let left = COUNTDOWN.get();
    if left > 0 {
        COUNTDOWN.set(left - 1);
        if left == 1 {
            std::panic::resume_unwind(Box::new("a fault injected between two cleanups"));
        }
    }
}
