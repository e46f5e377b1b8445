//! Whether there is a monitor, and whether it is dormant.
//!
//! Invariant: **no block in hand beside a dormant monitor, if it is to be watched.** The runner
//! begins the block and then asks whether the monitor is dormant (steps B1, B2). The monitor says
//! that it is, and then looks at the runners once more (M1, M2). Both lock the in-flight record in
//! between. If the runner was there first, the monitor sees the block; if the monitor was, the
//! runner sees that it is dormant, and calls it.

#![forbid(unsafe_code)]

use sexton_sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, wait_until};
use std::time::Instant;

/// Whether there is a monitor, and whether it is dormant.
#[derive(Debug)]
pub(crate) struct Watch {
    /// No monitor is looking. Read by runners after they have locked their in-flight record.
    /// Written by the monitor before it locks those, and by callers.
    dormant: AtomicBool,
    state: Mutex<State>,
    condvar: Condvar,
    /// How often the monitor has waited.
    #[cfg(all(test, not(any(loom, shuttle))))]
    waits: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// A thread exists or is being started.
    exists: bool,
    /// Another thread wants it to look.
    called: bool,
    /// It is to end, and none is to be started.
    stopped: bool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Watch {
            dormant: AtomicBool::new(true),
            state: Mutex::new(State::default()),
            condvar: Condvar::new(),
            #[cfg(all(test, not(any(loom, shuttle))))]
            waits: Default::default(),
        }
    }

    /// Does step B2. True if the caller is to start a monitor.
    #[inline]
    pub(crate) fn begins(&self) -> bool {
        // Relaxed: ordered by the lock of the in-flight record.
        self.dormant.load(Ordering::Relaxed) && self.call()
    }

    /// Has the monitor look. True if the caller is to start one.
    #[cold]
    pub(crate) fn call(&self) -> bool {
        let mut state = self.state.lock();
        if state.stopped {
            return false;
        }
        self.dormant.store(false, Ordering::Relaxed);
        state.called = true;
        let start = !std::mem::replace(&mut state.exists, true);
        drop(state);
        self.condvar.notify_one();
        start
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn exists(&self) -> bool {
        self.state.lock().exists
    }

    /// Tells how often the monitor has waited so far.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Tells whether a monitor exists and is dormant.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn rests(&self) -> bool {
        let state = self.state.lock();
        state.exists && !state.called && self.dormant.load(Ordering::Relaxed)
    }

    /// Notes that the monitor has unwound, or could not be started.
    pub(super) fn lost(&self) {
        let mut state = self.state.lock();
        state.exists = false;
        self.dormant.store(true, Ordering::Relaxed);
    }

    /// Ends the monitor, and lets none be started.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.condvar.notify_one();
    }

    /// Waits for a call, at most until `deadline`. False if the monitor is to end.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.wait_for_call(deadline);
        state.called = false;
        !state.stopped
    }

    /// Waits for a call or for the stop, at most until `deadline`.
    fn wait_for_call(&self, deadline: Option<Instant>) -> MutexGuard<'_, State> {
        #[cfg(all(test, not(any(loom, shuttle))))]
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        while !state.called && !state.stopped {
            if wait_until(&self.condvar, &mut state, deadline) {
                break;
            }
        }
        state
    }

    /// Steps M1 and M2: waits for the next call, unless `is_busy` finds a block in hand. False if
    /// the monitor is to end: because it was told to, or because no thread has called until
    /// `deadline`.
    pub(crate) fn fall_dormant(
        &self,
        deadline: Option<Instant>,
        is_busy: impl Fn() -> bool,
    ) -> bool {
        // Relaxed: ordered by the locks of the in-flight records.
        self.dormant.store(true, Ordering::Relaxed); // M1
        if is_busy() {
            // M2
            self.dormant.store(false, Ordering::Relaxed);
            return true;
        }
        self.sleep(deadline)
    }

    /// Waits for a call while dormant. False if the monitor is to end, and does not exist any more.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.wait_for_call(deadline);
        let called = std::mem::take(&mut state.called) && !state.stopped;
        // With the lock held: a caller from now on starts another one.
        state.exists = called;
        self.dormant.store(!called, Ordering::Relaxed);
        called
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(60);

    fn far() -> (Instant, Option<Instant>) {
        let now = Instant::now();
        (now, now.checked_add(LONG))
    }

    #[test]
    fn a_wait_ends_at_its_deadline_at_a_call_and_at_the_stop() {
        let watch = Watch::new();
        let (begin, tick) = (Instant::now(), Duration::from_millis(20));
        assert!(watch.wait(begin.checked_add(tick)), "it goes on");
        assert!(begin.elapsed() >= tick, "no call came");
        assert!(watch.call());
        let (begin, deadline) = far();
        assert!(watch.wait(deadline), "it goes on");
        assert!(begin.elapsed() < LONG, "a call came");
        let begin = Instant::now();
        assert!(watch.wait(begin.checked_add(tick)));
        assert!(begin.elapsed() >= tick, "that was the last one's call");
        watch.stop();
        let (begin, deadline) = far();
        assert!(!watch.wait(deadline), "it ends");
        assert!(begin.elapsed() < LONG, "it was stopped");
        assert!(!watch.call() && !watch.begins(), "and none is started");
    }

    #[test]
    fn a_dormant_monitor_comes_back_when_called_and_ends_when_not() {
        let watch = Watch::new();
        assert!(watch.begins(), "there is none yet");
        assert!(!watch.begins() && !watch.call(), "there is one");
        // That was a call.
        let (begin, deadline) = far();
        assert!(watch.fall_dormant(deadline, || false), "it is called");
        assert!(begin.elapsed() < LONG, "a call came");
        assert!(!watch.begins(), "it is awake");
        assert!(watch.fall_dormant(Some(begin), || true), "a block is in hand");
        assert!(!watch.begins(), "it is awake");
        let (begin, quiet) = (Instant::now(), Duration::from_millis(20));
        assert!(!watch.fall_dormant(begin.checked_add(quiet), || false), "it ends");
        assert!(begin.elapsed() >= quiet, "no call came");
        assert!(watch.begins(), "another one is to be started");
        watch.stop();
        let (begin, deadline) = far();
        assert!(!watch.fall_dormant(deadline, || false), "it ends");
        assert!(begin.elapsed() < LONG, "it was stopped");
    }
}
