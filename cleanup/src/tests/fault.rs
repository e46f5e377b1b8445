//! A way to make a runner die between two cleanups, which no cleanup can do.

use sexton_sync::thread_local;
use std::cell::Cell;

thread_local! {
    /// Steps until this thread's runner dies; 0 for never.
    static COUNTDOWN: Cell<u32> = const { Cell::new(0) };
}

/// The payload that the dying runner throws.
pub(crate) const FAULT: &str = "a fault injected between two cleanups";

/// This thread's runner dies when it is about to run its `step`-th cleanup from now. The first is
/// between its claim and its first cleanup.
pub(crate) fn arm(step: u32) {
    COUNTDOWN.with(|left| left.set(step));
}

/// Called by the runner before each cleanup.
pub(crate) fn here() {
    let left = COUNTDOWN.with(Cell::get);
    if left > 0 {
        COUNTDOWN.with(|next| next.set(left - 1));
        if left == 1 {
            std::panic::resume_unwind(Box::new(FAULT));
        }
    }
}
