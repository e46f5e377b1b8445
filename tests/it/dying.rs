//! Panics, in all the places where user code runs, and threads that cannot be had: nothing is lost,
//! and the counts stay true.

use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use sexton::{BackPressure, CleanupPool, CleanupPoolBuilder, CleanupState, OnDrop, Pacing};

use crate::ledger::Ledger;
use crate::world::{Counter, Gate, LONG, Node, World, WorldHeap, builder, heap_on, queue, until};

/// Panics when it is dropped, with what panics when it is dropped, and so on, this many times.
pub(crate) struct Bomb(pub(crate) u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            throw_bomb(self.0 - 1);
        }
    }
}

/// Panics without a word, with what panics when it is dropped, and so on, `fuse` times.
///
/// What is thrown has a type of its own for each number, and owns no memory: in the end it has to
/// be leaked.
pub(crate) fn throw_bomb(fuse: u32) -> ! {
    #[derive(Default)]
    struct Dud;
    #[derive(Default)]
    struct Lit<B: Default + Send + 'static>(PhantomData<fn() -> B>);
    impl<B: Default + Send + 'static> Drop for Lit<B> {
        fn drop(&mut self) {
            resume_unwind(Box::new(B::default()));
        }
    }
    match fuse {
        0 => resume_unwind(Box::new(Dud)),
        1 => resume_unwind(Box::new(Lit::<Dud>::default())),
        2 => resume_unwind(Box::new(Lit::<Lit<Dud>>::default())),
        _ => resume_unwind(Box::new(Lit::<Lit<Lit<Dud>>>::default())),
    }
}

/// Runs what is queued, and checks that a pool at rest counts as it should.
#[track_caller]
fn settle(pool: &CleanupPool) {
    until("the pool is at rest", || {
        pool.run_pending(usize::MAX);
        let stats = pool.stats();
        (stats.backlog, stats.running, stats.blocks) == (0, 0, 0)
    });
    let stats = pool.stats();
    assert_eq!(stats.queued, stats.executed + stats.ended_early + stats.discarded, "{stats:?}");
    assert!(stats.workers <= stats.max_workers && stats.panicked <= stats.executed, "{stats:?}");
    assert_eq!(stats.oldest, None);
    let workers = pool.dump().runners.iter().filter(|runner| runner.worker.is_some()).count();
    // A worker on its way out has no in-flight record any more, one on its way in none yet.
    assert!(workers <= stats.max_workers, "{}", pool.dump());
}

// ---- panics
// --------------------------------------------------------------------------------------------

fn panic_in_every(kth: usize) {
    let cleanups = 100_000;
    for workers in [0, 1, 3] {
        let told = Counter::default();
        let count = told.clone();
        let pool =
            CleanupPool::builder().max_workers(workers).on_panic(move |_| count.raise()).build();
        let (mut heap, ledger) = (heap_on(&pool), Ledger::new(cleanups));
        queue(
            &mut heap,
            (0..cleanups).map(|at| {
                let entry = ledger.entry(at);
                move || {
                    entry.ran();
                    if at % kth == 0 {
                        resume_unwind(Box::new(at));
                    }
                }
            }),
        );
        if workers == 0 {
            assert_eq!(pool.run_pending(usize::MAX), cleanups);
        }
        heap.wait_for_cleanups(LONG).unwrap();
        ledger.assert_all_ran();
        let panics = cleanups.div_ceil(kth);
        assert_eq!(told.get(), panics);
        let stats = heap.stats().cleanups;
        assert_eq!((stats.executed, stats.panicked), (cleanups as u64, panics as u64));
        settle(&pool);
        let stats = pool.stats();
        assert_eq!((stats.executed, stats.panicked), (cleanups as u64, panics as u64));
    }
}

#[test]
fn a_hundred_thousand_cleanups_run_though_every_one_panics() {
    panic_in_every(1);
}

#[test]
fn a_hundred_thousand_cleanups_run_though_every_second_one_panics() {
    panic_in_every(2);
}

#[test]
fn a_hundred_thousand_cleanups_run_though_every_seventh_one_panics() {
    panic_in_every(7);
}

#[test]
fn a_hundred_thousand_cleanups_run_though_every_thousandth_one_panics() {
    panic_in_every(1000);
}

/// What cleanups throw panics when it is dropped, with what panics when it is dropped, and so on;
/// so does what the hook throws.
#[test]
fn neither_a_hook_that_panics_nor_bombs_as_payloads_harm_anybody() {
    for workers in [0, 1, 3] {
        for (fuse, hook_panics) in (0..=3).flat_map(|fuse| [(fuse, false), (fuse, true)]) {
            let told = Counter::default();
            let count = told.clone();
            let pool = CleanupPool::builder()
                .max_workers(workers)
                .on_panic(move |panic| {
                    assert!(panic.message.contains("not a string"));
                    count.raise();
                    if hook_panics {
                        throw_bomb(fuse);
                    }
                })
                .build();
            let (mut heap, ledger) = (heap_on(&pool), Ledger::new(600));
            let handles = queue(
                &mut heap,
                (0..600).map(|at| {
                    let entry = ledger.entry(at);
                    move || {
                        entry.ran();
                        if at % 3 > 0 {
                            throw_bomb(fuse);
                        }
                    }
                }),
            );
            // Some by their handles, on this thread.
            let here = handles.iter().step_by(10).filter(|handle| handle.run_now()).count();
            pool.run_pending(usize::MAX);
            heap.wait_for_cleanups(LONG).unwrap();
            ledger.assert_all_ran();
            assert_eq!(told.get(), 400);
            assert_eq!(heap.stats().cleanups.panicked, 400);
            settle(&pool);
            assert_eq!(pool.stats().ended_early as usize, here);
        }
    }
}

#[test]
fn a_panic_in_the_destructor_of_a_capture_is_one_of_its_cleanup() {
    for workers in [0, 1, 3] {
        for fuse in 1..=3 {
            let pool = CleanupPool::builder().max_workers(workers).build();
            let (mut heap, ledger) = (heap_on(&pool), Ledger::new(300));
            queue(
                &mut heap,
                (0..300).map(|at| {
                    let (entry, bomb) =
                        (ledger.entry(at), Bomb(if at % 3 == 0 { fuse } else { 0 }));
                    move || {
                        entry.ran();
                        drop((entry, bomb));
                    }
                }),
            );
            pool.run_pending(usize::MAX);
            heap.wait_for_cleanups(LONG).unwrap();
            ledger.assert_all_ran();
            assert_eq!(heap.stats().cleanups.panicked, 100);
            settle(&pool);
        }
    }
}

/// The thread that stops a cleanup gets the panic of its captures, and finds it stopped.
#[test]
fn a_panic_in_a_capture_of_a_stopped_cleanup_goes_to_who_stopped_it() {
    for workers in [0, 1] {
        let (pool, gate) = (CleanupPool::builder().max_workers(workers).build(), Gate::default());
        let (mut heap, ledger) = (heap_on(&pool), Ledger::new(200));
        if workers > 0 {
            queue(&mut heap, [gate.cleanup()]);
            gate.wait_for(1);
        }
        let handles = queue(
            &mut heap,
            (0..200).map(|at| {
                let (entry, bomb) = (ledger.entry(at), Bomb(2));
                move || {
                    entry.ran();
                    std::mem::forget(bomb);
                }
            }),
        );
        for handle in &handles[..100] {
            let thrown = catch_unwind(AssertUnwindSafe(|| handle.stop())).unwrap_err();
            std::mem::forget(thrown);
            assert_eq!(handle.state(), CleanupState::Stopped);
        }
        gate.open();
        pool.run_pending(usize::MAX);
        heap.wait_for_cleanups(LONG).unwrap();
        assert_eq!(ledger.balance(200), 100);
        let stats = heap.stats().cleanups;
        assert_eq!((stats.stopped, stats.panicked, stats.backlog), (100, 0, 0));
        settle(&pool);
    }
}

#[test]
fn a_panic_in_the_destructor_of_a_capture_does_not_stop_a_discard() {
    for workers in [0, 1] {
        for on_drop in [OnDrop::Discard, OnDrop::RunQueued] {
            let told = Counter::default();
            let count = told.clone();
            let pool = CleanupPool::builder()
                .max_workers(workers)
                .on_panic(move |_| count.raise())
                .build();
            let (gate, ledger) = (Gate::default(), Ledger::new(400));
            let mut busy = heap_on(&pool);
            if workers > 0 {
                queue(&mut busy, [gate.cleanup()]);
                gate.wait_for(1);
            }
            let mut heap = builder()
                .cleanup_pool(&pool)
                .pacing(Pacing::Manual)
                .on_drop(on_drop)
                .drop_timeout(Duration::ZERO)
                .build(|_| World::default());
            heap.mutate(|mc, world| {
                for at in 0..400 {
                    let (entry, bomb) = (ledger.entry(at), Bomb(2));
                    let node = mc.alloc(Node::new(at as u64));
                    if at % 2 == 0 {
                        world.nodes.borrow_mut(mc).push(node);
                    }
                    mc.add_cleanup(node, move || {
                        entry.ran();
                        std::mem::forget(bomb);
                    });
                }
            });
            heap.collect();
            drop(heap);
            gate.open();
            settle(&pool);
            let ran = if on_drop == OnDrop::Discard { 0 } else { 200 };
            assert_eq!((ledger.balance(400), told.get()), (ran, 400 - ran), "{on_drop:?}");
        }
    }
}

#[test]
fn a_panic_hook_may_shut_its_pool_down() {
    for workers in [0, 1, 3] {
        let slot: Arc<Mutex<Option<CleanupPool>>> = Arc::default();
        let own = slot.clone();
        let told = Counter::default();
        let count = told.clone();
        let pool = CleanupPool::builder()
            .max_workers(workers)
            .on_panic(move |_| {
                count.raise();
                let pool = own.lock().unwrap().clone();
                pool.expect("set before anything panics").shutdown(Duration::MAX).unwrap();
            })
            .build();
        *slot.lock().unwrap() = Some(pool.clone());
        let (mut heap, ledger) = (heap_on(&pool), Ledger::new(1000));
        // Not before everything is queued.
        let gate = Gate::default();
        queue(
            &mut heap,
            (0..1000).map(|at| {
                let (entry, gate) = (ledger.entry(at), (at % 100 == 50).then(|| gate.clone()));
                move || {
                    entry.ran();
                    if let Some(gate) = gate {
                        gate.pass();
                        resume_unwind(Box::new("on purpose"));
                    }
                }
            }),
        );
        gate.open();
        if workers == 0 {
            pool.run_pending(usize::MAX);
        }
        until("the hook has been called", || told.get() > 0);
        pool.shutdown(LONG).unwrap();
        heap.wait_for_cleanups(LONG).unwrap();
        let ran = ledger.balance(1000);
        if workers == 0 {
            assert!((1..1000).contains(&ran), "the first panic ends it: {ran}");
            assert_eq!(told.get(), 1);
        } else {
            assert_eq!((ran, told.get()), (1000, 10), "workers drain the list before they leave");
        }
        let stats = heap.stats().cleanups;
        assert_eq!((stats.executed as usize, stats.discarded as usize), (ran, 1000 - ran));
        settle(&pool);
        assert_eq!(pool.stats().workers, 0);
        *slot.lock().unwrap() = None;
    }
}

// ---- threads that cannot be had
// ------------------------------------------------------------------------

/// Why there is no thread.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// The hook says so.
    Fails,
    /// The hook panics, with a bomb.
    Panics,
    /// The hook forgets what the thread was to do.
    Forgets,
    /// The thread dies of its own preparations, before it does what it was to do.
    Dies,
    /// The system has no such stack.
    NoStack,
}

impl Want {
    /// Does not start the thread, in its own way.
    fn start(self, thread: Builder, body: Body) -> io::Result<JoinHandle<()>> {
        match self {
            Want::Fails => Err(io::Error::other("on purpose")),
            Want::Panics => throw_bomb(2),
            Want::Forgets => {
                drop(body);
                thread.spawn(|| {})
            }
            Want::Dies => thread.spawn(move || {
                let _body = body;
                resume_unwind(Box::new("its preparations"));
            }),
            Want::NoStack => thread.stack_size(1 << 60).spawn(body),
        }
    }
}

type Body = Box<dyn FnOnce() + Send>;

/// A pool that wants threads, the first `failures` times it asks for one.
fn wanting(want: Want, failures: usize) -> (CleanupPoolBuilder, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let builder = CleanupPool::builder().spawn_hook(move |thread, body| {
        if count.fetch_add(1, SeqCst) >= failures {
            return thread.spawn(body);
        }
        want.start(thread, body)
    });
    (builder, asked)
}

/// Those of which the pool learns before it stops looking.
const WANTS: [Want; 4] = [Want::Fails, Want::Panics, Want::Forgets, Want::NoStack];

/// A pool that never gets a thread, and a heap with a thousand queued cleanups.
fn deserted(want: Want, workers: usize) -> (CleanupPool, WorldHeap, Ledger) {
    let told = Counter::default();
    let count = told.clone();
    let (builder, asked) = wanting(want, usize::MAX);
    let pool = builder.max_workers(workers).on_spawn_failure(move |_| count.raise()).build();
    let (mut heap, ledger) = (heap_on(&pool), Ledger::new(1000));
    queue(&mut heap, (0..1000).map(|at| ledger.cleanup(at)));
    until("no worker is left", || pool.stats().workers == 0);
    assert!(asked.load(SeqCst) > 0);
    assert_eq!(ledger.ended(), 0, "{want:?}");
    if !matches!(want, Want::Forgets | Want::Dies) {
        assert!(pool.stats().spawn_failures > 0 && told.get() > 0, "{want:?}");
    }
    (pool, heap, ledger)
}

fn a_wait_runs_the_work(want: Want) {
    for workers in [1, 3] {
        let (pool, heap, ledger) = deserted(want, workers);
        if let Err(error) = heap.wait_for_cleanups(LONG / 12) {
            panic!("{want:?}, {workers} workers: {error}; {}", pool.dump());
        }
        ledger.assert_all_ran();
        settle(&pool);
        assert_eq!(pool.stats().executed, 1000);
    }
}

#[test]
fn without_threads_a_wait_runs_the_work() {
    WANTS.into_iter().for_each(a_wait_runs_the_work);
}

#[test]
fn without_threads_that_live_long_enough_a_wait_runs_the_work() {
    a_wait_runs_the_work(Want::Dies);
}

fn the_end_of_a_heap_runs_the_work(want: Want) {
    for workers in [1, 3] {
        let (pool, heap, ledger) = deserted(want, workers);
        drop(heap);
        assert_eq!(ledger.ended(), 1000, "{want:?}, {workers} workers: {}", pool.dump());
        ledger.assert_all_ran();
        settle(&pool);
    }
}

#[test]
fn without_threads_the_end_of_a_heap_runs_the_work() {
    WANTS.into_iter().for_each(the_end_of_a_heap_runs_the_work);
}

#[test]
fn without_threads_that_live_long_enough_the_end_of_a_heap_runs_the_work() {
    the_end_of_a_heap_runs_the_work(Want::Dies);
}

#[test]
fn without_threads_run_pending_runs_the_work() {
    for want in WANTS.into_iter().chain([Want::Dies]) {
        for workers in [1, 3] {
            let (pool, heap, ledger) = deserted(want, workers);
            assert_eq!(pool.run_pending(300), 300);
            // Another worker may have been asked for, for the rest of a block.
            assert_eq!(pool.run_pending(usize::MAX), 700);
            ledger.assert_all_ran();
            heap.wait_for_cleanups(Duration::ZERO).unwrap();
            settle(&pool);
        }
    }
}

/// `Help`, which runs it anyway, and `Wait`, which would wait for no worker.
fn back_pressure_runs_the_work(want: Want) {
    for policy in [BackPressure::Help, BackPressure::Wait(LONG / 12)] {
        let pool = wanting(want, usize::MAX).0.max_workers(2).build();
        let mut heap = builder()
            .cleanup_pool(&pool)
            .pacing(Pacing::Manual)
            .back_pressure(100, policy.clone())
            .build(|_| World::default());
        let ledger = Ledger::new(5000);
        for round in 0..5 {
            let lines = round * 1000..(round + 1) * 1000;
            queue(&mut heap, lines.map(|at| ledger.cleanup(at)));
            let backlog = heap.stats().cleanups.backlog;
            assert!(backlog <= 100, "{want:?}, {policy:?}: {backlog} wait");
        }
        heap.wait_for_cleanups(LONG / 12).unwrap();
        ledger.assert_all_ran();
    }
}

#[test]
fn without_threads_back_pressure_runs_the_work() {
    WANTS.into_iter().for_each(back_pressure_runs_the_work);
}

#[test]
fn without_threads_that_live_long_enough_back_pressure_runs_the_work() {
    back_pressure_runs_the_work(Want::Dies);
}

/// It says whether all have run; and no other thread could run them.
#[test]
fn without_threads_a_shutdown_runs_the_work_or_says_that_it_has_not() {
    for want in WANTS.into_iter().chain([Want::Dies]) {
        for (workers, timeout) in [(1, LONG), (3, LONG), (1, Duration::ZERO), (3, Duration::ZERO)] {
            let (pool, heap, ledger) = deserted(want, workers);
            let case = format!("{want:?}, {workers} workers, {timeout:?}");
            let start = Instant::now();
            let answer = pool.shutdown(timeout);
            assert!(start.elapsed() < LONG / 2, "{case}");
            let ran = ledger.balance(1000);
            assert_eq!(answer.is_ok(), ran == 1000, "{case}: {answer:?}, {ran} of 1000 ran");
            assert_eq!(answer.is_ok(), !timeout.is_zero(), "{case}: {answer:?}");
            settle(&pool);
            drop(heap);
        }
    }
}

/// No thread waits, and nothing else is queued: the pool has to try again of its own accord.
fn is_tried_again_without_any_call(want: Want) {
    // One block, and several.
    for cleanups in [100, 1000] {
        for (workers, failures) in [(1, 1), (1, 2), (1, 7), (3, 1), (3, 2), (3, 7)] {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            let pool = CleanupPool::builder()
                .max_workers(workers)
                .spawn_hook(move |thread, body| {
                    // The monitor, who is to try again, gets its thread.
                    let monitor = format!("{thread:?}").contains("-mon\"");
                    if monitor || count.fetch_add(1, SeqCst) >= failures {
                        return thread.spawn(body);
                    }
                    want.start(thread, body)
                })
                .build();
            let (mut heap, ledger) = (heap_on(&pool), Ledger::new(cleanups));
            queue(&mut heap, (0..cleanups).map(|at| ledger.cleanup(at)));
            let deadline = Instant::now() + LONG / 6;
            while ledger.ended() < cleanups {
                let case = format!("{want:?}, {workers} workers, {failures} failures");
                assert!(Instant::now() < deadline, "{case}: {}", pool.dump());
                thread::yield_now();
            }
            ledger.assert_all_ran();
            settle(&pool);
            let failed = pool.stats().spawn_failures as usize;
            assert!(failed <= failures && asked.load(SeqCst) > failed);
            pool.shutdown(LONG).unwrap();
        }
    }
}

#[test]
fn what_fails_for_a_while_is_tried_again_without_any_call() {
    [Want::Fails, Want::Panics].into_iter().for_each(is_tried_again_without_any_call);
}

#[test]
fn a_thread_that_dies_before_it_is_a_worker_is_replaced_without_any_call() {
    [Want::Forgets, Want::Dies].into_iter().for_each(is_tried_again_without_any_call);
}

/// The monitor, too, cannot be had at first.
fn is_made_good_by_a_wait(want: Want) {
    for (workers, failures) in [(1, 1), (1, 2), (1, 7), (3, 1), (3, 2), (3, 7)] {
        let (builder, asked) = wanting(want, failures);
        let pool = builder.max_workers(workers).build();
        let (mut heap, ledger) = (heap_on(&pool), Ledger::new(1000));
        for round in 0..10 {
            let lines = round * 100..(round + 1) * 100;
            queue(&mut heap, lines.map(|at| ledger.cleanup(at)));
            if let Err(error) = heap.wait_for_cleanups(LONG / 6) {
                let case = format!("{want:?}, {workers} workers, {failures} failures");
                panic!("{case}, round {round}: {error}; {}", pool.dump());
            }
        }
        ledger.assert_all_ran();
        settle(&pool);
        assert!(asked.load(SeqCst) > 0);
        pool.shutdown(LONG).unwrap();
    }
}

#[test]
fn what_fails_for_a_while_is_made_good_by_a_wait() {
    [Want::Fails, Want::Panics, Want::Forgets].into_iter().for_each(is_made_good_by_a_wait);
}

#[test]
fn threads_that_die_before_they_are_workers_are_made_good_by_a_wait() {
    is_made_good_by_a_wait(Want::Dies);
}
