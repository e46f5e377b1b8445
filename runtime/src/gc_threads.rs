//! The threads that help to collect: one set of them for all heaps of the process.
//!
//! A heap gives its job to a thread that is idle, or to one that is started for it. A thread that
//! was idle for long retires. All leave when the last heap that has used them is dropped.
//!
//! Invariant: an accepted job has a thread of its own at once, and is run by it. There is no queue.
//! The jobs of one phase may wait for one another, and the collector waits for them all.

use std::cell::Cell;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(not(any(loom, shuttle)))]
use std::thread;
use std::time::{Duration, Instant};

#[cfg(any(loom, shuttle))]
use sexton_sync::thread;
use sexton_sync::{Arc, Condvar, Mutex, PerProcess, Process, drop_quietly, wait_until};

use crate::threads;

/// What a thread is to do.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Starts a thread of this name.
pub(crate) type Start = dyn Fn(String, Job) -> io::Result<thread::JoinHandle<()>> + Send + Sync;

/// How long a thread is idle before it retires: as long as a cleanup worker.
///
/// A start costs tens of microseconds, within a pause. Programs that collect every few seconds are
/// spared that. An idle thread costs a stack, some kilobytes of it in memory.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The most threads at a time: more than a machine has processors, and fewer than a process may
/// have.
///
/// A job beyond that is refused. It would only wait for a processor.
const MOST: usize = 1024;

/// Tells how many threads help to collect, in all heaps of this process.
///
/// A heap collects on such threads where its [`gc_threads`](crate::HeapBuilder::gc_threads) is 2 or
/// more, as it is by default in a [`Shared`](crate::Shared) heap. Takes a lock for a moment.
///
/// ```
/// let stats = sexton::gc_threads();
/// assert_eq!(stats.running as u64, stats.started - stats.retired);
/// ```
pub fn gc_threads() -> GcThreadStats {
    GcThreads::of_this_process().stats()
}

/// Counts the threads that help to collect: `running == started - retired`.
///
/// The counts are of this process, and begin anew in the child of a `fork`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcThreadStats {
    /// Threads that exist: at work, idle, or starting.
    pub running: usize,
    /// Threads that wait for a job.
    pub idle: usize,
    /// Threads ever started.
    pub started: u64,
    /// Threads that have left: idle for ten seconds, or the last heap was dropped.
    pub retired: u64,
    /// Jobs for which no thread could be started.
    ///
    /// The heap did without. [`GcReport::refused_threads`](crate::GcReport::refused_threads) counts
    /// them for a cycle.
    pub refused: u64,
}

/// A set of threads.
pub(crate) struct GcThreads {
    state: Mutex<State>,
    /// `None` is for ever.
    keep_alive: Option<Duration>,
    most: usize,
    start: Box<Start>,
    /// A `fork` may have caught the lock, and has left the threads behind.
    home: Process,
}

#[derive(Default)]
struct State {
    /// Those that exist, by their numbers.
    threads: Vec<Option<Thread>>,
    /// Those without a job, the one that came last at the end. It is the next to have one, so that
    /// the others retire.
    idle: Vec<usize>,
    /// Heaps that have used the threads.
    heaps: usize,
    /// Of threads that exist, or have retired since the last start.
    handles: Vec<thread::JoinHandle<()>>,
    started: u64,
    retired: u64,
    refused: u64,
}

#[derive(Default)]
struct Thread {
    /// Put here by a thread that has taken this one off the list of the idle.
    job: Option<Job>,
    /// It is to leave, after that job.
    leaves: bool,
    /// The thread waits here, and no other.
    told: Arc<Condvar>,
}

sexton_sync::thread_local! {
    /// This thread is one of these. Without a destructor, so it can be asked until the thread ends.
    static IS_GC_THREAD: Cell<bool> = Cell::default();
}

impl GcThreads {
    fn of_this_process() -> &'static Arc<Self> {
        static THREADS: PerProcess<Arc<GcThreads>> = PerProcess::new();
        THREADS.get(|| GcThreads::new(Some(KEEP_ALIVE), MOST, Box::new(start)))
    }

    pub(crate) fn new(keep_alive: Option<Duration>, most: usize, start: Box<Start>) -> Arc<Self> {
        let home = Process::current();
        Arc::new(GcThreads { state: Mutex::default(), keep_alive, most, start, home })
    }

    pub(crate) fn stats(&self) -> GcThreadStats {
        let state = self.state.lock();
        let State { started, retired, refused, .. } = *state;
        let running = state.threads.iter().flatten().count();
        GcThreadStats { running, idle: state.idle.len(), started, retired, refused }
    }

    /// Has a thread do the job, at once.
    ///
    /// # Errors
    ///
    /// If no thread can be started. The job is dropped.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(number) = state.idle.pop() {
            let thread = state.thread(number);
            thread.job = Some(job);
            let told = thread.told.clone();
            // Unlocked first: it would wake only to wait for the lock.
            drop(state);
            told.notify_one();
            return Ok(());
        }
        let number = state.enter();
        drop(state);
        let threads = self.clone();
        let result = if number < self.most {
            let name = threads::name("sexton", &format!("gc-{number}"));
            (self.start)(name, Box::new(move || threads.work(number, job)))
        } else {
            drop(job);
            let most = self.most;
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, format!("{most} threads are at work")))
        };
        let mut state = self.state.lock();
        match result {
            Ok(handle) => {
                #[cfg(not(any(loom, shuttle)))]
                state.handles.retain(|handle| !handle.is_finished());
                state.handles.push(handle);
                Ok(())
            }
            Err(error) => {
                state.threads[number] = None;
                state.started -= 1;
                state.refused += 1;
                let is_first = state.refused == 1;
                drop(state);
                if is_first {
                    // Once, and no panic if there is no standard error.
                    let _ = writeln!(
                        io::stderr(),
                        "sexton: cannot start a thread to collect with ({error}); heaps collect \
                         on the program's own threads"
                    );
                }
                Err(error)
            }
        }
    }

    /// Does this job, and others, until the thread is to end.
    fn work(&self, number: usize, job: Job) {
        IS_GC_THREAD.with(|is| is.set(true));
        let mut next = Some(job);
        while let Some(job) = next {
            // It tells its collector of a panic by itself.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
                drop_quietly(payload);
            }
            next = self.next(number);
        }
    }

    /// Waits for a job. `None`: the thread does not exist any more, as far as the others know.
    fn next(&self, number: usize) -> Option<Job> {
        let deadline = self.keep_alive.and_then(|time| Instant::now().checked_add(time));
        let mut state = self.state.lock();
        let told = state.thread(number).told.clone();
        if !state.thread(number).leaves {
            state.idle.push(number);
        }
        let mut is_late = false;
        loop {
            let thread = state.thread(number);
            // Before the deadline counts: a heap may have counted on this thread when it passed.
            if let Some(job) = thread.job.take() {
                return Some(job);
            }
            if thread.leaves || is_late {
                break;
            }
            is_late = wait_until(&told, &mut state, deadline);
        }
        state.idle.retain(|&idle| idle != number);
        state.threads[number] = None;
        state.retired += 1;
        None
    }

    /// Counts a heap more.
    pub(crate) fn add_heap(&self) {
        self.state.lock().heaps += 1;
    }

    /// Counts a heap less. After the last one it waits until all threads have ended.
    ///
    /// One of the threads itself waits for none. It may be the drop of a thread local there.
    pub(crate) fn remove_heap(&self) {
        let mut state = self.state.lock();
        state.heaps -= 1;
        if state.heaps > 0 {
            return;
        }
        // Those at work come to the end of a job that its heap has no use for.
        state.idle.clear();
        let leave = |thread: &mut Thread| {
            thread.leaves = true;
            thread.told.clone()
        };
        let told: Vec<_> = state.threads.iter_mut().flatten().map(leave).collect();
        let ending = if IS_GC_THREAD.with(Cell::get) {
            Vec::new()
        } else {
            std::mem::take(&mut state.handles)
        };
        drop(state);
        told.iter().for_each(|told| told.notify_one());
        for handle in ending {
            // It catches all panics but those of thread locals.
            let _ = handle.join();
        }
    }
}

impl State {
    /// Gives the thread of a number, which it has.
    fn thread(&mut self, number: usize) -> &mut Thread {
        self.threads[number].as_mut().expect("it exists until it takes itself out")
    }

    /// Counts a thread more, by the smallest number that is free.
    fn enter(&mut self) -> usize {
        let number = self.threads.iter().position(Option::is_none).unwrap_or(self.threads.len());
        if number == self.threads.len() {
            self.threads.push(None);
        }
        self.threads[number] = Some(Thread::default());
        self.started += 1;
        number
    }
}

/// Starts a thread of the system's.
#[cfg(not(any(loom, shuttle)))]
fn start(name: String, body: Job) -> io::Result<thread::JoinHandle<()>> {
    threads::without_signals(|| thread::Builder::new().name(name).spawn(body))
}

/// Models have threads of their own.
#[cfg(any(loom, shuttle))]
fn start(_: String, _: Job) -> io::Result<thread::JoinHandle<()>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// One heap's access to the threads of its process.
///
/// A heap counts from its first job on, in each process that it comes to by a `fork`.
#[derive(Default)]
pub(crate) struct Access(PerProcess<Counted>);

impl Access {
    /// Has a thread do the job, at once.
    ///
    /// # Errors
    ///
    /// If no thread can be started. The job is dropped.
    pub(crate) fn run(&self, job: Job) -> io::Result<()> {
        let Counted(threads) = self.0.get(|| Counted::new(GcThreads::of_this_process()));
        threads.run(job)
    }
}

/// A heap, counted until this is dropped.
struct Counted(Arc<GcThreads>);

impl Counted {
    fn new(threads: &Arc<GcThreads>) -> Self {
        threads.add_heap();
        Counted(threads.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Otherwise these are the threads of a parent.
        if self.0.home.is_current() {
            self.0.remove_heap();
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Barrier, mpsc};

    use sexton_cleanup::Client;
    use sexton_heap::{HeapConfig, Leaf, Pacing, Progress, RawHeap, Root, Shared};

    use super::*;
    use crate::pool::CleanupPool;

    /// Longer than a thread needs that comes at all.
    const LONG: Duration = Duration::from_secs(60);

    fn threads(keep_alive: Option<Duration>) -> Arc<GcThreads> {
        GcThreads::new(keep_alive, MOST, Box::new(start))
    }

    /// Waits until the counts are as they are to become.
    fn wait_for(threads: &GcThreads, what: &str, is: impl Fn(GcThreadStats) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is(threads.stats()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", threads.stats());
            thread::yield_now();
        }
    }

    /// Gives jobs that are all at work at the same time; the names of their threads.
    fn together(threads: &Arc<GcThreads>, jobs: usize) -> Vec<String> {
        let all = Arc::new(Barrier::new(jobs));
        let (send, names) = mpsc::channel();
        for _ in 0..jobs {
            let (all, send) = (all.clone(), send.clone());
            let job = move || {
                all.wait();
                let name = thread::current().name().expect("they have names").to_owned();
                send.send(name).expect("it is waited for");
            };
            threads.run(Box::new(job)).expect("there is room for a few threads");
        }
        let mut names: Vec<_> =
            (0..jobs).map(|_| names.recv_timeout(LONG).expect("it is done")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_thread_is_started_for_a_job_that_finds_none_idle_and_numbers_stay_small() {
        let threads = threads(None);
        threads.add_heap();
        assert_eq!(threads.stats(), GcThreadStats::default());
        let names = ["sexton-gc-0", "sexton-gc-1", "sexton-gc-2"];
        for jobs in [1, 3, 2, 3] {
            let done = together(&threads, jobs);
            // The last one to be idle is the first to have a job.
            assert!(done.iter().all(|name| names.contains(&name.as_str())), "{done:?}");
            wait_for(&threads, "all are idle", |stats| stats.idle == stats.running);
        }
        assert_eq!(together(&threads, 3), names);
        let stats = threads.stats();
        assert_eq!((stats.running, stats.started, stats.retired, stats.refused), (3, 3, 0, 0));
        threads.remove_heap();
        let stats = threads.stats();
        assert_eq!((stats.running, stats.idle, stats.started, stats.retired), (0, 0, 3, 3));
        // The numbers are free again.
        threads.add_heap();
        assert_eq!(together(&threads, 2), names[..2]);
        threads.remove_heap();
    }

    #[test]
    fn a_thread_that_is_idle_for_long_retires_and_another_one_comes_when_needed() {
        let threads = threads(Some(Duration::ZERO));
        threads.add_heap();
        for round in 1..10 {
            together(&threads, 2);
            wait_for(&threads, "both retire", |stats| stats.running == 0);
            assert_eq!(threads.stats().retired, 2 * round);
        }
        threads.remove_heap();
    }

    /// No job is lost by a thread that retires at the same moment.
    #[test]
    fn jobs_are_done_beside_threads_that_retire() {
        let threads = threads(Some(Duration::ZERO));
        threads.add_heap();
        let (send, done) = mpsc::channel();
        for round in 0..20_000 {
            let send = send.clone();
            threads.run(Box::new(move || send.send(round).expect("it is waited for"))).unwrap();
            assert_eq!(done.recv_timeout(LONG), Ok(round));
            // So that the next job meets it at all moments of its end.
            (0..round % 64).for_each(|_| std::hint::spin_loop());
        }
        threads.remove_heap();
        assert_eq!(threads.stats().running, 0);
    }

    /// Is dropped by a thread that ends.
    struct AtTheEnd(Box<dyn FnMut() + Send>);

    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    std::thread_local! {
        static AT_THE_END: Cell<Option<AtTheEnd>> = const { Cell::new(None) };
    }

    /// A thread may be done with all jobs, and not with its thread locals.
    #[test]
    fn the_end_of_the_last_heap_waits_until_the_threads_have_ended() {
        let threads = threads(None);
        let ended = Arc::new(AtomicUsize::new(0));
        (0..2).for_each(|_| threads.add_heap());
        let all = Arc::new(Barrier::new(3));
        for _ in 0..3 {
            let (all, ended) = (all.clone(), ended.clone());
            let end = AtTheEnd(Box::new(move || {
                (0..1000).for_each(|_| thread::yield_now());
                ended.fetch_add(1, SeqCst);
            }));
            let job = move || {
                AT_THE_END.set(Some(end));
                all.wait();
            };
            threads.run(Box::new(job)).unwrap();
        }
        threads.remove_heap();
        assert_eq!((ended.load(SeqCst), threads.stats().retired), (0, 0), "there is another heap");
        threads.remove_heap();
        assert_eq!((ended.load(SeqCst), threads.stats().retired), (3, 3));
    }

    /// The last heap is owned by one of the threads, which drops it in a job, or when it ends.
    #[test]
    fn the_last_heap_may_be_dropped_by_one_of_the_threads() {
        struct LastHeap(Arc<GcThreads>, mpsc::Sender<()>);

        impl Drop for LastHeap {
            fn drop(&mut self) {
                self.0.remove_heap();
                self.1.send(()).expect("it is waited for");
            }
        }

        for keep_alive in [None, Some(Duration::ZERO)] {
            let threads = threads(keep_alive);
            let (send, dropped) = mpsc::channel();
            threads.add_heap();
            let last = LastHeap(threads.clone(), send);
            let job: Job = if keep_alive.is_some() {
                let mut last = Some(last);
                let end = AtTheEnd(Box::new(move || drop(last.take())));
                Box::new(|| AT_THE_END.set(Some(end)))
            } else {
                Box::new(move || drop(last))
            };
            threads.run(job).unwrap();
            dropped.recv_timeout(LONG).expect("it waits for no thread");
            wait_for(&threads, "it leaves by itself", |stats| stats.running == 0);
        }
    }

    #[test]
    fn a_job_that_panics_is_the_end_of_no_thread() {
        let threads = threads(None);
        threads.add_heap();
        struct PanicsWhenDropped;
        impl Drop for PanicsWhenDropped {
            fn drop(&mut self) {
                // Of no size: it is forgotten, which is no leak then.
                std::panic::resume_unwind(Box::new(()));
            }
        }
        for _ in 0..3 {
            let job = || std::panic::resume_unwind(Box::new(PanicsWhenDropped));
            threads.run(Box::new(job)).unwrap();
            wait_for(&threads, "it is idle", |stats| stats.idle == 1);
        }
        assert_eq!(together(&threads, 1), ["sexton-gc-0"]);
        assert_eq!(threads.stats().started, 1);
        threads.remove_heap();
        assert_eq!(threads.stats().running, 0);
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_counted_and_its_number_is_free() {
        let fails = Arc::new(AtomicUsize::new(0));
        let flaky = {
            let fails = fails.clone();
            Box::new(move |name, body| {
                if fails.load(SeqCst) > 0 {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                start(name, body)
            })
        };
        let threads = GcThreads::new(None, 2, flaky);
        threads.add_heap();
        fails.store(1, SeqCst);
        for refused in 1..4 {
            let job = Arc::new(());
            let given = job.clone();
            let error =
                threads.run(Box::new(move || drop(given))).expect_err("none can be started");
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert_eq!(Arc::strong_count(&job), 1, "the job is dropped");
            let stats = GcThreadStats { refused, ..GcThreadStats::default() };
            assert_eq!(threads.stats(), stats);
        }
        fails.store(0, SeqCst);
        assert_eq!(together(&threads, 2), ["sexton-gc-0", "sexton-gc-1"]);
        // As many as there may be are at work, so that the next job is refused and does not wait.
        wait_for(&threads, "both are idle", |stats| stats.idle == 2);
        let gate = Arc::new(Barrier::new(3));
        for _ in 0..2 {
            let gate = gate.clone();
            let job = move || {
                gate.wait();
            };
            threads.run(Box::new(job)).unwrap();
        }
        let error = threads.run(Box::new(|| unreachable!("it is refused"))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        gate.wait();
        threads.remove_heap();
        let stats = threads.stats();
        assert_eq!((stats.running, stats.started, stats.refused), (0, 2, 4));
    }

    /// A heap that is marked by such threads, and the roots that make its mark long.
    fn heap_on(threads: &Arc<GcThreads>) -> (RawHeap<(), Shared>, Vec<Root<Leaf<u64>>>) {
        let counted = Counted::new(threads);
        let config = HeapConfig {
            spawn_helper: Some(Arc::new(move |_, job| counted.0.run(job))),
            gc_threads: Some(2),
            pacing: Pacing::Manual,
            zeal: false,
            ..HeapConfig::default()
        };
        let heap = RawHeap::new(Client::new(CleanupPool::manual().core()), config, |_| ());
        let mut mutator = heap.attach().expect("it is the first here");
        let (roots, _) = mutator.mutate(|mc, ()| {
            let object = mc.alloc(Leaf::new(7));
            (0..100_000).map(|_| mc.root(object)).collect()
        });
        drop(mutator);
        (heap, roots)
    }

    /// Runs a cycle in slices; how many threads it has not got.
    fn refused(heap: &RawHeap<(), Shared>, threads: &GcThreads) -> u64 {
        let mut mutator = heap.attach().expect("the last one is gone");
        loop {
            // The thread of the slice before is to be found.
            wait_for(threads, "it is idle", |stats| stats.idle == stats.running);
            if let Progress::Finished(report) = mutator.step(Duration::ZERO) {
                assert_eq!(report.live_objects, 1);
                return report.refused_threads;
            }
        }
    }

    #[test]
    fn heaps_share_the_threads_and_cycles_find_them_again() {
        let threads = threads(None);
        let (first, roots) = heap_on(&threads);
        for _ in 0..3 {
            assert_eq!(refused(&first, &threads), 0);
            assert_eq!(threads.stats().started, 1, "a heap has one marker");
        }
        let (second, other_roots) = heap_on(&threads);
        assert_eq!(refused(&second, &threads), 0);
        assert_eq!(threads.stats().started, 1, "heaps that take turns");
        drop((roots, first));
        assert_eq!(threads.stats().running, 1, "there is another heap");
        drop((other_roots, second));
        assert_eq!(threads.stats().running, 0);
    }

    #[test]
    fn a_heap_collects_without_a_thread_if_none_can_be_started() {
        let none = Box::new(|_, _| Err(io::ErrorKind::OutOfMemory.into()));
        let threads = GcThreads::new(None, MOST, none);
        let (heap, roots) = heap_on(&threads);
        let missing = refused(&heap, &threads);
        assert!(missing > 0);
        assert_eq!(threads.stats(), GcThreadStats { refused: missing, ..Default::default() });
        drop((roots, heap));
    }
}
