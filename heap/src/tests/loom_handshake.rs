//! The handshake under loom: small programs of mutators and collectors.
//!
//! `mutants/` beside `Cargo.toml` has the patches that they find.
//!
//! Contexts are cells that loom watches. An access fails if another thread has one at the same
//! time, or one that is not ordered before it.

use std::sync::Arc as Plain;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::thread;

use crate::safepoint::handshake::{Handshake, Session};
use crate::safepoint::helpers::{Job, Waiting};

type Watched = UnsafeCell<u32>;

/// Explores every interleaving with at most two preemptions; `LOOM_MAX_PREEMPTIONS` sets another
/// bound.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_up_to(2, model);
}

/// The same with another bound.
fn explore_up_to(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    let tried = AtomicUsize::new(0);
    builder.check(move || {
        // `.ci/mutants.sh` asks for this line.
        if tried.fetch_add(1, Relaxed) == 1 {
            println!("the first schedule passes");
        }
        model();
    });
}

#[expect(clippy::arc_with_non_send_sync, reason = "contexts that loom watches are neither")]
fn handshake() -> Plain<Handshake<Watched>> {
    Plain::new(Handshake::new())
}

fn touch(context: &Watched) {
    context.with_mut(|_| ());
}

/// Gives a thread that attaches, opens `sessions` sessions, and detaches.
fn mutator(handshake: &Plain<Handshake<Watched>>, sessions: usize) -> thread::JoinHandle<()> {
    let handshake = handshake.clone();
    // Before the thread starts: who attaches late is another model.
    let mutator = handshake.attach(UnsafeCell::new(0));
    thread::spawn(move || {
        for _ in 0..sessions {
            let session: Session<'_, _> = handshake.enter(&mutator);
            touch(mutator.context());
            drop(session);
        }
        handshake.detach(&mutator, touch);
    })
}

/// Stops the mutators once, and uses all their contexts.
fn collect(handshake: &Handshake<Watched>) {
    let stopped = handshake.stop(false, || false, None);
    handshake.for_each(touch);
    drop(stopped);
}

/// Runs `mutators` mutators with `sessions` sessions each, and this thread, which collects `cycles`
/// times.
fn program(mutators: usize, sessions: usize, cycles: usize) {
    let handshake = handshake();
    let threads: Vec<_> = (0..mutators).map(|_| mutator(&handshake, sessions)).collect();
    (0..cycles).for_each(|_| collect(&handshake));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// No race here: the mutator has gone before the cycle begins, or comes when it is over.
#[test]
fn a_cycle_between_two_mutators() {
    explore(|| {
        let handshake = handshake();
        mutator(&handshake, 1).join().unwrap();
        collect(&handshake);
        mutator(&handshake, 1).join().unwrap();
    });
}

#[test]
fn one_session_and_one_cycle_take_turns() {
    explore(|| program(1, 1, 1));
}

#[test]
fn a_session_and_a_cycle_take_turns() {
    explore(|| program(1, 2, 2));
}

#[test]
fn two_mutators_and_a_cycle_take_turns() {
    explore(|| program(2, 1, 1));
}

#[test]
fn two_collectors_take_turns() {
    explore(|| {
        let handshake = handshake();
        let mutator = mutator(&handshake, 1);
        let other = {
            let handshake = handshake.clone();
            thread::spawn(move || collect(&handshake))
        };
        collect(&handshake);
        other.join().unwrap();
        mutator.join().unwrap();
    });
}

#[test]
fn whoever_collects_only_if_it_is_due_leaves_it_to_the_other() {
    explore(|| {
        let handshake = handshake();
        let due = Plain::new(loom::sync::atomic::AtomicUsize::new(1));
        let ran = Plain::new(loom::sync::atomic::AtomicUsize::new(0));
        let collect_if_due = {
            let (handshake, due, ran) = (handshake.clone(), due, ran.clone());
            move || {
                if let Some(_stopped) = handshake.stop(false, || due.load(Relaxed) == 0, None) {
                    due.store(0, Relaxed);
                    ran.fetch_add(1, Relaxed);
                }
            }
        };
        let other = thread::spawn(collect_if_due.clone());
        collect_if_due();
        other.join().unwrap();
        assert_eq!(ran.load(Relaxed), 1);
    });
}

#[test]
fn a_mutator_that_attaches_late_waits_as_well() {
    explore(|| {
        let handshake = handshake();
        let late = {
            let handshake = handshake.clone();
            thread::spawn(move || {
                let mutator = handshake.attach(UnsafeCell::new(0));
                drop(handshake.enter(&mutator));
                touch_in_session(&handshake, &mutator);
                handshake.detach(&mutator, touch);
            })
        };
        collect(&handshake);
        late.join().unwrap();
    });
}

fn touch_in_session(
    handshake: &Handshake<Watched>,
    mutator: &crate::safepoint::handshake::MutatorState<Watched>,
) {
    let session = handshake.enter(mutator);
    touch(mutator.context());
    drop(session);
}

/// What sessions and cycles use in turn, without the handshake's lock, which would order the uses.
struct Heap(Watched, loom::sync::atomic::AtomicUsize);

// SAFETY: no code follows the cell's pointers; loom says who is there at the same time as another.
#[expect(unsafe_code, reason = "a cell that loom watches is not `Sync`")]
unsafe impl Sync for Heap {}

impl Heap {
    fn new() -> Plain<Self> {
        Plain::new(Heap(UnsafeCell::new(0), loom::sync::atomic::AtomicUsize::new(0)))
    }

    /// Loom changes threads at atomics only, so there is one on either side. They are Relaxed, and
    /// order nothing.
    fn touch(&self) {
        self.1.fetch_add(1, Relaxed);
        touch(&self.0);
        self.1.fetch_add(1, Relaxed);
    }
}

/// Stops the mutators once, and uses the heap.
fn collect_heap(handshake: &Handshake<Watched>, heap: &Heap) {
    let stopped = handshake.stop(false, || false, None);
    heap.touch();
    drop(stopped);
}

/// Gives a mutator leaves while another thread collects: what its last session does to the heap
/// comes before the cycle, or after it.
fn leave() {
    let (handshake, heap) = (handshake(), Heap::new());
    let mutator = handshake.attach(UnsafeCell::new(0));
    let leaves = {
        let (handshake, heap) = (handshake.clone(), heap.clone());
        thread::spawn(move || {
            handshake.detach(&mutator, |_| heap.touch());
        })
    };
    collect_heap(&handshake, &heap);
    leaves.join().unwrap();
    assert_eq!(handshake.len(), 0);
}

#[test]
fn a_mutator_that_leaves_gives_back_outside_a_cycle() {
    explore(leave);
}

/// Work on a cell that the collector uses before and after.
struct Work(Watched, loom::sync::atomic::AtomicUsize);

// SAFETY: no code follows the cell's pointers; loom says who is there at the same time as another.
#[expect(unsafe_code, reason = "a cell that loom watches is not `Sync`")]
unsafe impl Sync for Work {}

impl Job for Work {
    fn help(&self) {
        // One at a time: this is about the job's end.
        if self.1.fetch_add(1, Relaxed) == 0 {
            touch(&self.0);
        }
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Gives a mutator that waits for a session helps; when the job is over, it has left.
fn job() {
    let handshake = handshake();
    let stopped = handshake.stop(false, || false, None).expect("it is not to be left");
    let thread = mutator(&handshake, 1);
    while handshake.waiting() == 0 {
        thread::yield_now();
    }
    let work = Plain::new(Work(UnsafeCell::new(0), loom::sync::atomic::AtomicUsize::new(0)));
    touch(&work.0);
    let job: Plain<dyn Job> = work.clone();
    stopped.with_help(job, 1, &mut |helper_slots| assert_eq!(helper_slots, 1));
    touch(&work.0);
    drop(stopped);
    thread.join().unwrap();
}

#[test]
fn helpers_have_left_when_the_job_is_over() {
    explore(job);
}

/// Gives a collector that stops the mutators again at once; `enter` asserts that no mutator waits
/// for two cycles.
fn impatient() {
    let handshake = handshake();
    let stopped = handshake.stop(false, || false, None);
    let thread = mutator(&handshake, 1);
    while handshake.entering() == 0 {
        thread::yield_now();
    }
    drop(stopped);
    collect(&handshake);
    thread.join().unwrap();
}

#[test]
fn nobody_waits_for_two_cycles() {
    explore(impatient);
}

/// Gives a session that one cycle has put off comes to the next: the mutators have been resumed,
/// and are stopped again.
fn luck_at_the_door() {
    let (handshake, heap) = (handshake(), Heap::new());
    let mutator = handshake.attach(UnsafeCell::new(0));
    let done = Plain::new(loom::sync::atomic::AtomicBool::new(false));
    let mutator = {
        let (handshake, heap, done) = (handshake.clone(), heap.clone(), done.clone());
        thread::spawn(move || {
            let session = handshake.enter(&mutator);
            heap.touch();
            drop(session);
            done.store(true, Relaxed);
        })
    };
    drop(handshake.stop(false, || false, None));
    // It may be through, if it did not read of that cycle.
    while handshake.entering() == 0 && !done.load(Relaxed) {
        thread::yield_now();
    }
    collect_heap(&handshake, &heap);
    mutator.join().unwrap();
}

#[test]
fn a_session_that_saw_the_mutators_resumed_looks_again() {
    explore(luck_at_the_door);
}

/// Two threads that collect, and no session to wait for.
fn luck_of_a_collector() {
    let (handshake, heap) = (handshake(), Heap::new());
    let other = {
        let (handshake, heap) = (handshake.clone(), heap.clone());
        thread::spawn(move || collect_heap(&handshake, &heap))
    };
    collect_heap(&handshake, &heap);
    other.join().unwrap();
}

#[test]
fn a_collector_that_saw_the_mutators_resumed_looks_again() {
    explore(luck_of_a_collector);
}

/// A session ends while the collector looks whether it has.
fn luck_at_the_end() {
    let (handshake, heap) = (handshake(), Heap::new());
    let mutator = handshake.attach(UnsafeCell::new(0));
    let mutator = {
        let (handshake, heap) = (handshake.clone(), heap.clone());
        thread::spawn(move || {
            let session = handshake.enter(&mutator);
            heap.touch();
            // It goes on for a while.
            thread::yield_now();
            drop(session);
        })
    };
    collect_heap(&handshake, &heap);
    mutator.join().unwrap();
}

#[test]
fn a_collector_that_saw_a_session_end_looks_again() {
    explore(luck_at_the_end);
}

/// Gives a thread with a session that touches its context and the heap, parks if it is to, and
/// touches them again.
fn parks(handshake: &Plain<Handshake<Watched>>, heap: &Plain<Heap>) -> thread::JoinHandle<()> {
    let (handshake, heap) = (handshake.clone(), heap.clone());
    let mutator = handshake.attach(UnsafeCell::new(0));
    thread::spawn(move || {
        let session = handshake.enter(&mutator);
        touch_all(&mutator, &heap);
        handshake.park(mutator.context());
        touch_all(&mutator, &heap);
        drop(session);
    })
}

fn touch_all(mutator: &crate::safepoint::handshake::MutatorState<Watched>, heap: &Heap) {
    touch(mutator.context());
    heap.touch();
}

/// Stops the mutators with sessions parked, or ended, and uses all that they use.
fn collect_parked(handshake: &Handshake<Watched>, heap: &Heap) {
    let stopped = handshake.stop(true, || false, None);
    handshake.for_each(touch);
    heap.touch();
    drop(stopped);
}

/// A session is parked, or ends, or goes on when the collector has waited for it long enough.
fn park() {
    let (handshake, heap) = (handshake(), Heap::new());
    let session = parks(&handshake, &heap);
    collect_parked(&handshake, &heap);
    session.join().unwrap();
}

#[test]
fn a_session_is_parked_while_a_collector_is_at_work() {
    explore(park);
}

/// A collector that waits for ever for a session to be parked is woken by it.
#[expect(clippy::arc_with_non_send_sync, reason = "contexts that loom watches are neither")]
fn patient() {
    let (handshake, heap) = (Plain::new(Handshake::patient()), Heap::new());
    let mutator = handshake.attach(UnsafeCell::new(0));
    let has_entered = Plain::new(loom::sync::atomic::AtomicBool::new(false));
    let session = {
        let (handshake, heap, has_entered) = (handshake.clone(), heap.clone(), has_entered.clone());
        thread::spawn(move || {
            let session = handshake.enter(&mutator);
            has_entered.store(true, Relaxed);
            touch_all(&mutator, &heap);
            while !handshake.is_parking() {
                thread::yield_now();
            }
            handshake.park(mutator.context());
            touch_all(&mutator, &heap);
            drop(session);
        })
    };
    while !has_entered.load(Relaxed) {
        thread::yield_now();
    }
    collect_parked(&handshake, &heap);
    session.join().unwrap();
}

#[test]
fn a_collector_is_woken_by_a_session_that_is_parked() {
    explore(patient);
}

/// One session is parked, and another is not. When the collector has waited for that long enough,
/// the first one goes on.
fn take_turns() {
    let (handshake, heap) = (handshake(), Heap::new());
    let entered = Plain::new((sexton_sync::Mutex::new(0), sexton_sync::Condvar::new()));
    let sessions = [true, false].map(|parks| {
        let (handshake, heap, entered) = (handshake.clone(), heap.clone(), entered.clone());
        let mutator = handshake.attach(UnsafeCell::new(0));
        thread::spawn(move || {
            let session = handshake.enter(&mutator);
            *entered.0.lock() += 1;
            entered.1.notify_all();
            if parks {
                while !handshake.is_stopping() {
                    thread::yield_now();
                }
                handshake.park(mutator.context());
                touch_all(&mutator, &heap);
            }
            drop(session);
        })
    });
    let mut count = entered.0.lock();
    while *count < 2 {
        entered.1.wait(&mut count);
    }
    drop(count);
    collect_parked(&handshake, &heap);
    sessions.into_iter().for_each(|session| session.join().unwrap());
}

#[test]
fn a_session_that_was_parked_in_vain_is_waited_for() {
    // The third is to be late for the lock.
    explore_up_to(3, take_turns);
}

/// A session is parked, and another collector wants none to be open.
fn park_and_end() {
    let (handshake, heap) = (handshake(), Heap::new());
    let session = parks(&handshake, &heap);
    collect_parked(&handshake, &heap);
    let stopped = handshake.stop(false, || false, None);
    assert!(stopped.as_ref().is_some_and(|stopped| !stopped.stopped.has_sessions));
    handshake.for_each(touch);
    heap.touch();
    drop(stopped);
    session.join().unwrap();
}

#[test]
fn a_session_that_was_parked_has_ended_when_none_is_to_be_open() {
    explore(park_and_end);
}

/// Gives a thread with a session that stops the others, if it can.
fn stops(handshake: &Plain<Handshake<Watched>>, heap: &Plain<Heap>) -> thread::JoinHandle<()> {
    let (handshake, heap) = (handshake.clone(), heap.clone());
    let mutator = handshake.attach(UnsafeCell::new(0));
    thread::spawn(move || {
        let session = handshake.enter(&mutator);
        touch(mutator.context());
        if let Ok(_stopped) = handshake.stop_within(mutator.context()) {
            handshake.for_each(touch);
            heap.touch();
        }
        touch(mutator.context());
        drop(session);
    })
}

/// Two sessions stop each other, or are parked by each other.
#[test]
fn sessions_that_stop_each_other_take_turns() {
    explore(|| {
        let (handshake, heap) = (handshake(), Heap::new());
        let threads = [stops(&handshake, &heap), stops(&handshake, &heap)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A session stops the others while a collector waits for its end.
#[test]
fn a_session_does_not_wait_for_a_collector_that_waits_for_its_end() {
    explore(|| {
        let (handshake, heap) = (handshake(), Heap::new());
        let thread = stops(&handshake, &heap);
        collect_heap(&handshake, &heap);
        thread.join().unwrap();
    });
}

/// A session stops the others while one of them enters, or ends.
#[test]
fn a_session_that_stops_the_others_has_none_beside_it() {
    explore(|| {
        let (handshake, heap) = (handshake(), Heap::new());
        let mutator = mutator(&handshake, 1);
        let thread = stops(&handshake, &heap);
        thread.join().unwrap();
        mutator.join().unwrap();
    });
}

/// Gives a thread with a session that rests.
fn rests(handshake: &Plain<Handshake<Watched>>, heap: &Plain<Heap>) -> thread::JoinHandle<()> {
    let (handshake, heap) = (handshake.clone(), heap.clone());
    let mutator = handshake.attach(UnsafeCell::new(0));
    thread::spawn(move || {
        let session = handshake.enter(&mutator);
        touch_all(&mutator, &heap);
        handshake.rest(mutator.context());
        touch_all(&mutator, &heap);
        drop(session);
    })
}

/// A session rests, and a collector does with that, or waits for its end.
#[test]
fn a_session_that_rests_is_parked_for_a_collector() {
    for parks in [true, false] {
        // The session is to come first, and both are to be late for the lock.
        explore_up_to(3, move || {
            let (handshake, heap) = (handshake(), Heap::new());
            let session = rests(&handshake, &heap);
            let stopped = handshake.stop(parks, || false, None);
            handshake.for_each(touch);
            heap.touch();
            drop(stopped);
            session.join().unwrap();
        });
    }
}

/// A session rests while another one stops the mutators.
#[test]
fn a_session_that_rests_is_parked_for_another() {
    explore(|| {
        let (handshake, heap) = (handshake(), Heap::new());
        let threads = [stops(&handshake, &heap), rests(&handshake, &heap)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
