//! The hooks: how a pool talks to its user.
//!
//! Invariant: a hook that panics does no harm. A hook that waits for cleanups gets
//! [`WaitError::FromCleanup`](crate::WaitError), never a hang: to this crate it is inside a
//! cleanup.

#![forbid(unsafe_code)]

use crate::inside::CleanupScope;
use crate::observe::description::Description;
use crate::observe::panic::CleanupPanic;
use sexton_sync::{Arc, drop_quietly};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use std::{fmt, io};

/// Is told about each cleanup that panicked, on the thread that ran it.
pub type PanicHook = Arc<dyn Fn(&CleanupPanic<'_>) + Send + Sync>;
/// Is told about each cleanup that has run for long, on the monitor's thread or a helping one.
pub type SlowHook = Arc<dyn Fn(&SlowCleanup) + Send + Sync>;
/// Is told about each thread that could not be started, on the thread that wanted it.
pub type SpawnHook = Arc<dyn Fn(&SpawnFailure<'_>) + Send + Sync>;
/// Is told that cleanups wait, on the thread that queued them.
pub type ReadyHook = Arc<dyn Fn() + Send + Sync>;

/// Holds the hooks of a pool.
#[derive(Clone, Default)]
pub struct Hooks {
    /// A cleanup panicked.
    pub panic: Option<PanicHook>,
    /// End the process when a cleanup panics, after the hook was told.
    pub abort_on_panic: bool,
    /// A cleanup runs for longer than this.
    pub slow: Option<(Duration, SlowHook)>,
    /// A thread could not be started.
    pub spawn_failure: Option<SpawnHook>,
    /// There is work for [`Pool::run_pending`](crate::Pool::run_pending).
    pub ready: Option<ReadyHook>,
}

impl Hooks {
    pub(crate) fn panicked(&self, payload: &(dyn Any + Send), cleanup: Description) {
        if let Some(hook) = &self.panic {
            call(|| hook(&CleanupPanic::new(payload, cleanup)));
        }
        if self.abort_on_panic {
            std::process::abort();
        }
    }

    pub(crate) fn spawn_failed(&self, failure: &SpawnFailure<'_>) {
        if let Some(hook) = &self.spawn_failure {
            call(|| hook(failure));
        }
    }
}

/// Calls a hook.
pub(crate) fn call(hook: impl FnOnce()) {
    let scope = CleanupScope::enter();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(hook)) {
        drop_quietly(payload);
    }
    drop(scope);
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("panic", &self.panic.is_some())
            .field("abort_on_panic", &self.abort_on_panic)
            .field("slow", &self.slow.as_ref().map(|(after, _)| after))
            .field("spawn_failure", &self.spawn_failure.is_some())
            .field("ready", &self.ready.is_some())
            .finish()
    }
}

/// Reports a cleanup that has run for long to its pool's hook.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SlowCleanup {
    /// Describes it, as far as it is known.
    pub cleanup: Description,
    /// For how long it has run at least.
    ///
    /// It is looked at from time to time, so it may have run for a little more.
    pub age: Duration,
    /// The worker that runs it; `None` for a helping thread.
    pub worker: Option<usize>,
}

impl fmt::Display for SlowCleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cleanup {} has run for {:?}", self.cleanup, self.age)
    }
}

/// Reports a thread that could not be started.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SpawnFailure<'a> {
    /// Why.
    pub error: &'a io::Error,
    /// The worker it was for; `None` for the monitor.
    pub worker: Option<usize>,
    /// Blocks of cleanups that wait for a worker.
    pub waiting_blocks: usize,
}

impl fmt::Display for SpawnFailure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker {
            Some(index) => write!(f, "cleanup worker {index} could not be started: {}", self.error),
            None => write!(f, "the cleanup monitor could not be started: {}", self.error),
        }
    }
}
