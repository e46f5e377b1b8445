//! A thread that pauses at a named step of a protocol, for as long as a test wants.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

thread_local! {
    /// Where this thread pauses.
    static PAUSE: RefCell<Option<Arc<Pause>>> = const { RefCell::new(None) };
}

/// The steps of `PROTOCOL.md` at which a thread can pause: just before each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    P1,
    P2,
    P3,
    P4,
    C1,
    C2,
    S1,
    S2,
    S4,
    S5,
    S6,
    W1,
    W2,
    W4,
    W5,
    R1,
    R3,
    L1,
    L2,
    T3,
}

/// A pause of one thread at one step, the first time it comes there.
#[derive(Debug)]
pub(crate) struct Pause {
    step: Step,
    /// Whether it is there, and whether it may go on.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

const DEADLINE: Duration = Duration::from_secs(60);

impl Pause {
    pub(crate) fn at(step: Step) -> Arc<Self> {
        Arc::new(Pause { step, state: Mutex::new((false, false)), changed: Condvar::new() })
    }

    /// Makes this thread the one that pauses.
    pub(crate) fn arm(self: &Arc<Self>) {
        PAUSE.set(Some(self.clone()));
    }

    /// Waits until the thread has come to its step, or until `otherwise`. Whether it has.
    pub(crate) fn is_reached(&self, otherwise: impl Fn() -> bool) -> bool {
        loop {
            if self.state.lock().unwrap().0 {
                return true;
            }
            if otherwise() {
                return false;
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn release(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// Called at each step.
pub(crate) fn at(step: Step) {
    // A thread whose locals are gone is past all steps.
    let pause = PAUSE.try_with(|pause| {
        let here = pause.borrow().as_ref().is_some_and(|pause| pause.step == step);
        here.then(|| pause.take()).flatten()
    });
    if let Ok(Some(pause)) = pause {
        let mut state = pause.state.lock().unwrap();
        state.0 = true;
        let (_state, timeout) =
            pause.changed.wait_timeout_while(state, DEADLINE, |state| !state.1).unwrap();
        assert!(!timeout.timed_out(), "nothing ended the pause at {step:?}");
    }
}
