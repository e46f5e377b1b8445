//! Help for whoever collects: from mutators that wait for the end of the cycle, and from threads started for the purpose.
//!
//! Invariant: when [`Helpers::with`] returns, or unwinds, no other thread is at the job any more.
//!
//! It does not know what there is to do.

use std::sync::{Arc, OnceLock};
use std::thread;

use crate::attached::Attached;
use crate::roots::HeapId;

/// How many processors there are. Asked once: the system looks into files for it.
pub(crate) fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Work that several threads can do at a time.
pub(crate) trait Job: Send + Sync {
    /// Takes part until nothing is left to do. Does not panic.
    fn help(&self);

    /// Whether nothing is left to do. A hint: not to start a thread for it.
    fn is_over(&self) -> bool;
}

/// Threads that wait for the end of a cycle.
pub(crate) trait Waiting {
    /// Calls `work` with the number of those that are going to help with the job, `most` at most, and returns when they have left.
    fn with_help(&self, job: Arc<dyn Job>, most: usize, work: &mut dyn FnMut(usize));
}

/// Nobody waits.
pub(crate) struct Nobody;

impl Waiting for Nobody {
    fn with_help(&self, _: Arc<dyn Job>, _: usize, work: &mut dyn FnMut(usize)) {
        work(0);
    }
}

/// Who may help in one cycle.
pub(crate) struct Helpers<'a> {
    pub(crate) heap: HeapId,
    /// So many at a time, at most.
    pub(crate) most: usize,
    pub(crate) waiting: &'a dyn Waiting,
}

impl Helpers<'_> {
    /// Calls `work`, while up to `most` others help with the job: those who wait anyway, and for the rest threads that end with it.
    /// One that cannot be started is done without.
    pub(crate) fn with(&self, job: Arc<dyn Job>, most: usize, work: impl FnOnce()) {
        let most = most.min(self.most);
        let heap = self.heap;
        let mut work = Some(work);
        self.waiting.with_help(job.clone(), most, &mut |waiting| {
            thread::scope(|scope| {
                for _ in waiting..most {
                    if job.is_over() {
                        break;
                    }
                    let helper = thread::Builder::new().name("sexton-gc".to_owned());
                    let body = || {
                        // What it calls of the user's must not wait for this very cycle.
                        let _here = Attached::helper(heap);
                        job.help();
                    };
                    if helper.spawn_scoped(scope, body).is_err() {
                        break;
                    }
                }
                if let Some(work) = work.take() {
                    work();
                }
            });
        });
    }
}
