//! Help for a collection: from mutators that wait for the end of the cycle, and from the runtime's
//! threads.
//!
//! Invariant: when [`Helpers::with`] returns, or unwinds, no other thread is at the job any more.
//!
//! It does not know what there is to do, and owns no thread.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use sexton_sync::{Condvar, Mutex, drop_quietly};

use crate::id::HeapId;
use crate::safepoint::attached::AttachGuard;

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
    /// Finds the others.
    pub(crate) spawn: Option<&'a Spawn>,
    /// Those that could not be started.
    pub(crate) refused: Cell<u64>,
}

/// Has a thread do something at once, given a number.
pub(crate) type Spawn = dyn Fn(usize, Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync;

impl Helpers<'_> {
    /// There are none.
    pub(crate) fn none(heap: HeapId) -> Self {
        Helpers { heap, most: 0, waiting: &NoneWaiting, spawn: None, refused: Cell::new(0) }
    }

    /// Calls `work`, while up to `most` other threads help with the job. Threads that wait anyway
    /// come first; the rest are started, and end with the job. One that cannot be started is done
    /// without.
    pub(crate) fn with(&self, job: Arc<dyn Job>, most: usize, work: impl FnOnce()) {
        let most = most.min(self.most);
        let mut work = Some(work);
        self.waiting.with_help(job.clone(), most, &mut |waiting| {
            let started = Started::default();
            if let Some(spawn) = self.spawn {
                for number in waiting..most {
                    if job.is_over() {
                        break;
                    }
                    let (heap, helper) = (self.heap, started.helper(job.clone()));
                    let help = Box::new(move || helper.help(heap));
                    // The spawner is the user's. In a sweep no panic may come through.
                    let start = catch_unwind(AssertUnwindSafe(|| spawn(number + 1, help)));
                    if matches!(start, Ok(Ok(()))) {
                        continue;
                    }
                    start.err().into_iter().for_each(drop_quietly);
                    self.refused.update(|refused| refused + 1);
                    break;
                }
            }
            if let Some(work) = work.take() {
                work();
            }
        });
    }
}

/// The threads that were started for a job. Dropping it waits until they have left the job.
#[derive(Default)]
struct Started(Arc<Present>);

#[derive(Default)]
struct Present {
    count: Mutex<usize>,
    /// A helper has left.
    left: Condvar,
}

/// One of them, or one that is about to start. Dropping it leaves the job.
struct Helper {
    /// There until it leaves.
    job: Option<Arc<dyn Job>>,
    present: Arc<Present>,
}

impl Started {
    fn helper(&self, job: Arc<dyn Job>) -> Helper {
        let Started(present) = self;
        *present.count.lock() += 1;
        Helper { job: Some(job), present: present.clone() }
    }
}

impl Helper {
    fn help(&self, heap: HeapId) {
        // User code that the job calls must not wait for this very cycle.
        let _here = AttachGuard::helper(heap);
        self.job.iter().for_each(|job| job.help());
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Started(present) = self;
        let mut count = present.count.lock();
        while *count > 0 {
            present.left.wait(&mut count);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let Helper { job, present } = self;
        // First, so that no job outlives its cycle.
        drop(job.take());
        *present.count.lock() -= 1;
        present.left.notify_all();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Each helper stays until the work is done, and then for a while.
    #[derive(Default)]
    struct Slow {
        work_is_done: AtomicBool,
        left: AtomicUsize,
    }

    impl Job for Slow {
        fn help(&self) {
            while !self.work_is_done.load(Relaxed) {
                thread::yield_now();
            }
            (0..1000).for_each(|_| thread::yield_now());
            self.left.fetch_add(1, Relaxed);
        }

        fn is_over(&self) -> bool {
            false
        }
    }

    /// How many helpers have left when the work has ended, with threads that `spawn` starts.
    fn left(spawn: &Spawn) -> usize {
        let heap = HeapId::next();
        let helpers = Helpers { most: 3, spawn: Some(spawn), ..Helpers::none(heap) };
        let job = Arc::new(Slow::default());
        helpers.with(job.clone(), 3, || job.work_is_done.store(true, Relaxed));
        assert_eq!(Arc::strong_count(&job), 1, "a helper still has the job");
        job.left.load(Relaxed)
    }

    #[test]
    fn no_helper_is_left_behind() {
        fn start(body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
            thread::Builder::new().spawn(body).map(drop)
        }
        assert_eq!(left(&|_, body| start(body)), 3);
        assert_eq!(
            left(&|number, body| if number < 3 {
                start(body)
            } else {
                Err(io::ErrorKind::OutOfMemory.into())
            }),
            2
        );
        // A spawner that forgets what it was asked to run costs its help, and no more.
        let forget = |number, body| {
            if number < 3 {
                start(body)?;
            }
            Ok(())
        };
        assert_eq!(left(&forget), 2);
    }
}
