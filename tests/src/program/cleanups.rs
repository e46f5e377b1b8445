//! Cleanups of op programs: from the plan for one to the handle of it.
//!
//! Invariant: a cleanup tells the ledger that it ran before it does anything else, and that its
//! captures are dropped, however it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use sexton::{Cleanup, CleanupState};

use super::ledger::{Action, Capture, Event, Ledger, Number};
use super::ops::Act;

/// A cleanup that is about to be registered.
pub(super) struct Plan {
    pub(super) capture: Capture,
    pub(super) action: Option<Action>,
    pub(super) large: bool,
    pub(super) act: Act,
}

/// Where a cleanup is registered: an object in a session.
pub(super) trait Registry: Copy {
    fn add_cleanup(self, f: impl FnOnce() + Send + 'static) -> Cleanup;
    fn add_cleanup_with<A: Send + 'static>(self, arg: A, f: fn(A)) -> Cleanup;
}

/// A cleanup that is registered.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) number: Number,
    pub(super) cleanup: Arc<Cleanup>,
    /// How far the cleanup was when last looked at.
    seen: Arc<AtomicU8>,
}

impl Plan {
    /// A plan for a cleanup that tells that it ran, and does nothing else.
    pub(super) fn plain(number: Number, ledger: &Arc<Ledger>) -> Plan {
        let capture = Capture { number, ledger: ledger.clone() };
        Plan { capture, action: None, large: false, act: Act::Nothing }
    }

    /// What it does beside.
    pub(super) fn act(&self) -> Act {
        if self.action.is_some() { self.act } else { Act::Nothing }
    }

    pub(super) fn register(self, object: impl Registry) -> Handle {
        let Plan { capture, action, large, .. } = self;
        let number = capture.number;
        let own = match &action {
            Some(Action::Itself(own)) => Some(own.clone()),
            _ => None,
        };
        let ballast = [number; 16];
        let cleanup = match (action, large) {
            (None, false) => object.add_cleanup(move || capture.ran()),
            (None, true) => object.add_cleanup(move || {
                capture.ran();
                check_ballast(&capture, ballast);
            }),
            (Some(action), false) => {
                object.add_cleanup_with((capture, action), |(capture, action)| {
                    capture.ran();
                    action.perform(&capture);
                })
            }
            (Some(action), true) => object.add_cleanup(move || {
                // Both are to go with the closure, however it ends.
                let (capture, action) = (capture, action);
                capture.ran();
                check_ballast(&capture, ballast);
                action.perform(&capture);
            }),
        };
        let handle = Handle::new(number, cleanup);
        if let Some(own) = own {
            assert!(own.set(handle.cleanup.clone()).is_ok(), "a plan is registered once");
        }
        handle
    }
}

impl Handle {
    pub(super) fn new(number: Number, cleanup: Cleanup) -> Self {
        Handle { number, cleanup: Arc::new(cleanup), seen: Arc::default() }
    }

    /// What it says of its cleanup, which never goes back.
    pub(super) fn look(&self) -> CleanupState {
        let seen = self.seen.load(SeqCst);
        let state = self.cleanup.state();
        let now = progress(state);
        assert!(now >= seen, "cleanup {} went back to {state:?}", self.number);
        self.seen.fetch_max(now, SeqCst);
        state
    }
}

/// How far a cleanup has come.
fn progress(state: CleanupState) -> u8 {
    match state {
        CleanupState::Armed => 0,
        CleanupState::Queued => 1,
        CleanupState::Running => 2,
        CleanupState::Done | CleanupState::Stopped => 3,
    }
}

fn check_ballast(capture: &Capture, ballast: [Number; 16]) {
    if ballast.iter().any(|&number| number != capture.number) {
        capture.ledger.write(Event::Corrupt(capture.number));
    }
}
