//! Help for a collection: from mutators that wait for the end of the cycle, and from threads
//! started for one phase of it.
//!
//! Invariant: when [`Helpers::with`] returns, or unwinds, no other thread is at the job any more.
//!
//! It does not know what there is to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use crate::id::HeapId;
use crate::safepoint::attached::AttachGuard;
use crate::safepoint::threads;

/// Tells how many processors there are. Asked once: the system looks into files for it.
pub(crate) fn processors() -> usize {
    // 0 until it is known. Relaxed: threads that ask at the same time find the same. Not a
    // `OnceLock`, which would keep the child of a `fork` waiting for a thread that was asking.
    static PROCESSORS: AtomicUsize = AtomicUsize::new(0);
    match PROCESSORS.load(Relaxed) {
        0 => {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            PROCESSORS.store(processors, Relaxed);
            processors
        }
        processors => processors,
    }
}

/// Work that several threads can do at a time.
pub(crate) trait Job: Send + Sync {
    /// Takes part until nothing is left to do. Does not panic.
    fn help(&self);

    /// Tells whether nothing is left to do. A hint: not to start a thread for it.
    fn is_over(&self) -> bool;
}

/// Threads that wait for the end of a cycle.
pub(crate) trait Waiting {
    /// Calls `work` with the number of those that are going to help with the job, `most` at most,
    /// and returns when they have left.
    fn with_help(&self, job: Arc<dyn Job>, most: usize, work: &mut dyn FnMut(usize));
}

/// No thread waits: the heap is `Local`, or going.
pub(crate) struct NoneWaiting;

impl Waiting for NoneWaiting {
    fn with_help(&self, _: Arc<dyn Job>, _: usize, work: &mut dyn FnMut(usize)) {
        work(0);
    }
}

/// The threads that may help in one cycle.
pub(crate) struct Helpers<'a> {
    pub(crate) heap: HeapId,
    /// The most at a time.
    pub(crate) most: usize,
    pub(crate) waiting: &'a dyn Waiting,
}

impl Helpers<'_> {
    /// Calls `work`, while up to `most` other threads help with the job. Threads that wait anyway
    /// come first; the rest are started, and end with the job. One that cannot be started is done
    /// without.
    pub(crate) fn with(&self, job: Arc<dyn Job>, most: usize, work: impl FnOnce()) {
        let most = most.min(self.most);
        let heap = self.heap;
        let mut work = Some(work);
        self.waiting.with_help(job.clone(), most, &mut |waiting| {
            thread::scope(|scope| {
                for number in waiting..most {
                    if job.is_over() {
                        break;
                    }
                    let name = threads::name("sexton", &format!("gc-{}", number + 1));
                    let helper = thread::Builder::new().name(name);
                    let body = || {
                        // What it calls of the user's must not wait for this very cycle.
                        let _here = AttachGuard::helper(heap);
                        job.help();
                    };
                    let started = threads::without_signals(|| helper.spawn_scoped(scope, body));
                    if started.is_err() {
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
