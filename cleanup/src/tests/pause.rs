//! A thread that pauses at a named step of a protocol, for as long as a test wants.
//!
//! `.ci/pauses.sh` builds a copy of the crate in which a call of [`at`] stands before each line
//! whose comment names a step.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

thread_local! {
    /// Where this thread pauses.
    static PAUSE: RefCell<Option<Arc<Pause>>> = const { RefCell::new(None) };
}

/// A pause of one thread at one step, the first time it comes there.
#[derive(Debug)]
pub(crate) struct Pause {
    step: &'static str,
    /// Whether it is there, and whether it may go on.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

const DEADLINE: Duration = Duration::from_secs(60);

impl Pause {
    pub(crate) fn at(step: &'static str) -> Arc<Self> {
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

/// Pauses here, if this thread is to. Called before each step.
pub(crate) fn at(step: &'static str) {
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
        assert!(!timeout.timed_out(), "nothing ended the pause at {step}");
    }
}

#[test]
fn a_thread_pauses_at_its_step_and_at_no_other() {
    let pause = Pause::at("A2");
    let armed = pause.clone();
    let thread = std::thread::spawn(move || {
        armed.arm();
        ["A1", "A2", "A3"].into_iter().for_each(at);
    });
    assert!(pause.is_reached(|| thread.is_finished()));
    assert!(!thread.is_finished());
    pause.release();
    thread.join().expect("it goes on");
}
