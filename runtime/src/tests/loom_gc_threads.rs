//! The threads that help to collect, under loom: no job is lost, and no thread is left behind.
//!
//! `mutants/` beside `Cargo.toml` has the patches that they find.

use std::sync::Arc as Plain;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};
use std::time::Duration;

use loom::thread;
use sexton_sync::{Arc, Condvar, Mutex};

use crate::gc_threads::GcThreads;

/// Explores every interleaving with at most two preemptions; `LOOM_MAX_PREEMPTIONS` sets another
/// bound.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    let tried = Count::new(0);
    builder.check(move || {
        // `.ci/mutants.sh` asks for this line.
        if tried.fetch_add(1, Relaxed) == 1 {
            println!("the first schedule passes");
        }
        model();
    });
}

/// Threads that retire as soon as they are idle, or never.
fn threads(keep_alive: Option<Duration>) -> Arc<GcThreads> {
    GcThreads::new(keep_alive, 3, Box::new(|_, body| Ok(thread::spawn(body))))
}

/// Jobs that are to be done.
#[derive(Default)]
struct Jobs {
    done: Mutex<usize>,
    changed: Condvar,
}

impl Jobs {
    fn give(self: &Plain<Self>, threads: &Arc<GcThreads>) {
        let jobs = self.clone();
        let job = move || {
            *jobs.done.lock() += 1;
            jobs.changed.notify_all();
        };
        threads.run(Box::new(job)).expect("there are three numbers");
    }

    /// Waits until this number is done, as a collector does for its helpers.
    fn wait(&self, count: usize) {
        let mut done = self.done.lock();
        while *done < count {
            self.changed.wait(&mut done);
        }
        assert_eq!(*done, count);
    }
}

/// The threads of a heap, after a first job that is done.
fn after_a_job(keep_alive: Option<Duration>) -> (Arc<GcThreads>, Plain<Jobs>) {
    let threads = threads(keep_alive);
    threads.add_heap();
    let jobs = Plain::<Jobs>::default();
    jobs.give(&threads);
    jobs.wait(1);
    (threads, jobs)
}

/// Gives two jobs, one after the other, and ends the heap.
fn two_jobs(keep_alive: Option<Duration>) {
    let (threads, jobs) = after_a_job(keep_alive);
    jobs.give(&threads);
    jobs.wait(2);
    threads.remove_heap();
    let stats = threads.stats();
    assert_eq!((stats.running, stats.idle, stats.refused), (0, 0, 0));
    assert!(stats.started == stats.retired && stats.started <= 2);
}

/// It may not be idle yet when the heap goes.
#[test]
fn a_thread_that_was_started_is_joined() {
    explore(|| {
        let (threads, _) = after_a_job(None);
        threads.remove_heap();
        assert_eq!(threads.stats().running, 0);
    });
}

#[test]
fn a_job_that_is_given_to_a_thread_about_to_retire_is_done() {
    explore(|| two_jobs(Some(Duration::ZERO)));
}

#[test]
fn a_job_that_is_given_to_a_thread_about_to_be_idle_is_done() {
    explore(|| two_jobs(None));
}

/// The thread is told to leave when it has not come to its job yet.
#[test]
fn a_job_that_is_given_before_the_last_heap_goes_is_done() {
    explore(|| {
        let (threads, jobs) = after_a_job(None);
        jobs.give(&threads);
        threads.remove_heap();
        assert_eq!(*jobs.done.lock(), 2, "the job is lost");
        assert_eq!(threads.stats().running, 0);
    });
}

/// Each has a thread of its own: one that waited behind the other would wait for ever.
#[test]
fn two_jobs_that_wait_for_each_other_are_done() {
    explore(|| {
        let (threads, _) = after_a_job(Some(Duration::ZERO));
        // That thread may be about to be idle, idle, about to retire, or gone.
        let both = Plain::<Jobs>::default();
        for _ in 0..2 {
            let jobs = both.clone();
            let job = move || {
                *jobs.done.lock() += 1;
                jobs.changed.notify_all();
                jobs.wait(2);
            };
            threads.run(Box::new(job)).expect("there are three numbers");
        }
        both.wait(2);
        threads.remove_heap();
        assert_eq!(threads.stats().running, 0);
    });
}

/// The last heap goes with a job that no thread has come to, while another heap comes.
#[test]
fn a_heap_that_comes_while_the_last_one_goes_has_its_job_done() {
    explore(|| {
        let threads = threads(None);
        threads.add_heap();
        let jobs = Plain::<Jobs>::default();
        jobs.give(&threads);
        let other = {
            let (threads, jobs) = (threads.clone(), jobs.clone());
            thread::spawn(move || {
                threads.add_heap();
                jobs.give(&threads);
                jobs.wait(2);
                threads.remove_heap();
            })
        };
        threads.remove_heap();
        other.join().expect("it has waited for both");
        assert_eq!(threads.stats().running, 0);
    });
}
