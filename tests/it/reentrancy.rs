//! What a cleanup may do: everything but wait for cleanups.
//!
//! Each promise is kept on every way by which a cleanup comes to run, see [`Way`]. What would hang
//! fails when its time is up, and says what the workers were doing.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use sexton::{
    Activity, BackPressure, Cleanup, CleanupPool, CleanupPoolBuilder, CleanupState, OnDrop, Pacing,
    Root, WaitError,
};

use crate::ledger::Ledger;
use crate::world::{
    Counter, Gate, LONG, Node, World, WorldHeap, builder, calm_heap_on, heap_on, until,
};

// ---- the stage
// -----------------------------------------------------------------------------------------

/// How a cleanup comes to run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// On a worker of a pool that has this number of them.
    Worker(usize),
    /// On the thread that runs a manual pool.
    Manual,
    /// On the thread that runs it early, by its handle. The pool has one worker.
    RunNow,
    /// On the thread of its heap, as a local cleanup. The pool has one worker.
    Local,
}

impl Way {
    fn workers(self) -> usize {
        match self {
            Way::Worker(workers) => workers,
            Way::Manual => 0,
            Way::RunNow | Way::Local => 1,
        }
    }
}

/// A heap and its pool.
struct Stage {
    way: Way,
    pool: CleanupPool,
    heap: WorldHeap,
}

/// A cleanup that has been registered, and perhaps begun.
struct Act<T> {
    handle: Option<Cleanup>,
    answer: Receiver<T>,
}

impl Stage {
    fn new(way: Way) -> Self {
        Self::with(way, CleanupPool::builder())
    }

    fn with(way: Way, pool: CleanupPoolBuilder) -> Self {
        let pool = pool.max_workers(way.workers()).build();
        // Calm: a cleanup that is to run by its handle has to be armed until then.
        Stage { way, heap: calm_heap_on(&pool), pool }
    }

    /// Registers a cleanup, and queues it. A worker may begin it at once; on the other ways it
    /// waits for `perform`.
    fn prepare<T: Send + 'static>(&mut self, act: impl FnOnce() -> T + Send + 'static) -> Act<T> {
        let (send, answer) = mpsc::channel();
        let cleanup = move || send.send(act()).unwrap();
        let local = self.way == Way::Local;
        let handle = self.heap.mutate(|mc, _| {
            let object = mc.alloc(Node::new(0));
            if local {
                mc.add_cleanup_local(object, cleanup);
                None
            } else {
                Some(mc.add_cleanup(object, cleanup))
            }
        });
        if self.way != Way::RunNow {
            self.heap.collect();
        }
        Act { handle, answer }
    }

    /// Has the cleanup run, and gives its answer.
    #[track_caller]
    fn perform<T>(&mut self, act: Act<T>) -> T {
        match self.way {
            Way::Worker(_) => {}
            Way::Manual => assert!(self.pool.run_pending(usize::MAX) > 0),
            Way::RunNow => assert!(act.handle.as_ref().unwrap().run_now()),
            Way::Local => assert_eq!(self.heap.run_local_cleanups(usize::MAX), 1),
        }
        match act.answer.recv_timeout(LONG) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => panic!("the cleanup hangs: {}", self.pool.dump()),
            Err(RecvTimeoutError::Disconnected) => panic!("the cleanup panicked"),
        }
    }

    #[track_caller]
    fn in_cleanup<T: Send + 'static>(&mut self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let act = self.prepare(act);
        self.perform(act)
    }

    /// Keeps all workers busy but the one that a cleanup of this stage needs, so that what is
    /// queued stays queued.
    fn occupy(&mut self, gate: &Gate) -> Vec<Cleanup> {
        let busy = match self.way {
            Way::Worker(workers) => workers - 1,
            _ => self.way.workers(),
        };
        let mut handles = Vec::new();
        for at in 1..=busy {
            // A block for each.
            handles.push(self.heap.mutate(|mc, _| {
                let object = mc.alloc(Node::new(0));
                mc.add_cleanup(object, gate.cleanup())
            }));
            self.heap.collect();
            gate.wait_for(at);
        }
        handles
    }
}

/// Runs what is queued until nothing is, and what that queues, too.
#[track_caller]
fn drain(pool: &CleanupPool) {
    until("the pool has run everything", || {
        pool.run_pending(usize::MAX);
        pool.stats().backlog == 0
    });
}

/// Plays a promise on a thread of its own, so that a hang fails.
fn play(way: Way, promise: fn(Stage)) {
    let (ended, end) = mpsc::channel::<()>();
    let stage = thread::spawn(move || {
        let _ended = ended;
        promise(Stage::new(way));
    });
    let waited = end.recv_timeout(2 * LONG);
    assert_eq!(waited, Err(RecvTimeoutError::Disconnected), "{way:?} hangs");
    if let Err(payload) = stage.join() {
        resume_unwind(payload);
    }
}

/// A test per promise and way.
macro_rules! promises {
    ($($(#[$attribute:meta])* fn $name:ident($stage:pat_param) $body:block)*) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            fn promise($stage: Stage) $body

            #[test]
            fn on_the_only_worker() {
                play(Way::Worker(1), promise);
            }

            #[test]
            fn on_one_of_three_workers() {
                play(Way::Worker(3), promise);
            }

            #[test]
            fn in_a_manual_pool() {
                play(Way::Manual, promise);
            }

            #[test]
            fn run_by_its_handle() {
                play(Way::RunNow, promise);
            }

            #[test]
            fn as_a_local_cleanup() {
                play(Way::Local, promise);
            }
        }
    )*};
}

/// The pools that a cleanup of this pool may have to do with: its own, others with workers, a
/// manual one.
fn pools(own: &CleanupPool) -> [CleanupPool; 4] {
    let with = |workers| CleanupPool::builder().max_workers(workers).build();
    [own.clone(), with(1), with(3), CleanupPool::manual()]
}

/// A heap with an object for each line of the two ledgers: those of the first are dead and queued,
/// those of the second live.
fn heap_with(pool: &CleanupPool, on_drop: OnDrop, queued: &Ledger, armed: &Ledger) -> WorldHeap {
    let mut heap = builder()
        .cleanup_pool(pool)
        .on_drop(on_drop)
        .drop_timeout(Duration::MAX)
        .pacing(Pacing::Manual)
        .build(|_| World::default());
    heap.mutate(|mc, world| {
        for at in 0..LINES {
            mc.add_cleanup(mc.alloc(Node::new(at as u64)), queued.cleanup(at));
            let kept = mc.alloc(Node::new(at as u64));
            world.nodes.borrow_mut(mc).push(kept);
            mc.add_cleanup(kept, armed.cleanup(at));
        }
    });
    let live = heap.collect().live_objects;
    assert_eq!((heap.stats().cleanups.queued, live), (LINES as u64, LINES as u64));
    heap.verify().unwrap();
    heap
}

/// More than a block holds.
const LINES: usize = 200;

// ---- heaps
// ---------------------------------------------------------------------------------------------

promises! {
    fn it_may_build_a_heap_use_it_and_drop_it(mut stage) {
        for on_drop in [OnDrop::RunAll, OnDrop::RunQueued, OnDrop::Discard] {
            for pool in pools(&stage.pool) {
                let (queued, armed) = (Ledger::new(LINES), Ledger::new(LINES));
                let (inner, ledgers) = (pool.clone(), (queued.clone(), armed.clone()));
                stage.in_cleanup(move || {
                    let mut heap = heap_with(&inner, on_drop, &ledgers.0, &ledgers.1);
                    let ids = heap.mutate(|_, world| {
                        world.nodes.borrow().iter().map(|node| node.id).sum::<u64>()
                    });
                    assert_eq!(ids, (0..LINES as u64).sum::<u64>());
                    // It does not wait, though its timeout is for ever.
                    drop(heap);
                });
                drain(&pool);
                match on_drop {
                    OnDrop::RunAll => {
                        queued.assert_all_ran();
                        armed.assert_all_ran();
                    }
                    OnDrop::RunQueued => {
                        queued.assert_all_ran();
                        armed.assert_none_ran();
                    }
                    OnDrop::Discard => {
                        // Other threads may have begun before the drop.
                        queued.balance(LINES);
                        armed.assert_none_ran();
                        if pool.max_workers() == 0 {
                            queued.assert_none_ran();
                        }
                    }
                }
            }
        }
    }

    /// A heap stays on its thread: here it is the worker's, and dies with it.
    fn it_may_use_a_heap_that_its_thread_keeps(stage) {
        thread_local! {
            static KEPT: RefCell<Option<WorldHeap>> = const { RefCell::new(None) };
        }
        for which in 0..4 {
            let mut stage = Stage::new(stage.way);
            let pool = pools(&stage.pool)[which].clone();
            let ledger = Ledger::new(20 * LINES);
            for round in 0..20 {
                let (pool, ledger) = (pool.clone(), ledger.clone());
                stage.in_cleanup(move || KEPT.with_borrow_mut(|kept| {
                    let heap = kept.get_or_insert_with(|| heap_on(&pool));
                    let before = heap.stats().cleanups.queued;
                    heap.mutate(|mc, world| {
                        for at in 0..LINES {
                            let node = mc.alloc(Node::new(at as u64));
                            mc.add_cleanup(node, ledger.cleanup(round * LINES + at));
                            if at % 2 == 0 {
                                world.nodes.borrow_mut(mc).push(node);
                            }
                        }
                    });
                    heap.collect();
                    let queued = heap.stats().cleanups.queued - before;
                    assert_eq!(queued as usize, LINES / 2);
                    heap.verify().unwrap();
                }));
            }
            drain(&pool);
            assert_eq!(ledger.ended(), 20 * LINES / 2);
            // The worker's thread ends, or else this one drops it.
            stage.pool.shutdown(LONG).unwrap();
            drop(KEPT.take());
            // A manual pool discards what the heap's end has queued, and says so.
            let end = pool.shutdown(LONG);
            assert!(end.is_ok() || pool.max_workers() == 0, "{end:?}");
            let ran = ledger.balance(20 * LINES);
            assert!(ran >= 20 * LINES / 2, "{ran}");
        }
    }

    fn it_may_have_cleanups_that_have_cleanups_on_the_same_pool(mut stage) {
        /// Each has three more, down to a depth.
        fn grow(pool: &CleanupPool, ran: &Counter, depth: u32) {
            ran.raise();
            if depth == 0 {
                return;
            }
            let mut heap = heap_on(pool);
            heap.mutate(|mc, _| {
                for at in 0..3 {
                    let (pool, ran) = (pool.clone(), ran.clone());
                    mc.add_cleanup(mc.alloc(Node::new(at)), move || grow(&pool, &ran, depth - 1));
                }
            });
            // Some are queued by a collection, the others by the end of the heap.
            if depth.is_multiple_of(2) {
                heap.collect();
            }
        }
        let (pool, ran) = (stage.pool.clone(), Counter::default());
        let count = ran.clone();
        stage.in_cleanup(move || grow(&pool, &count, 5));
        drain(&stage.pool);
        assert_eq!(ran.get(), (0..=5).map(|depth| 3_usize.pow(depth)).sum::<usize>());
        assert_eq!(ran.sharers(), 0);
        assert_eq!(stage.pool.stats().panicked, 0);
    }

    fn it_may_be_registered_again_by_its_heaps_thread_without_end(mut stage) {
        let rounds = 500;
        let ran = Counter::default();
        for _ in 0..rounds {
            // The answer is what the heap's thread is asked to register next.
            let count = ran.clone();
            let next = stage.in_cleanup(move || move || count.raise());
            stage.in_cleanup(next);
        }
        drain(&stage.pool);
        assert_eq!(ran.get(), rounds);
        let stats = stage.heap.stats();
        let stats = if stage.way == Way::Local { stats.local_cleanups } else { stats.cleanups };
        assert_eq!((stats.registered, stats.executed), (2 * rounds as u64, 2 * rounds as u64));
        assert_eq!((stats.backlog, stats.armed, stats.panicked), (0, 0, 0));
    }
}

// ---- other cleanups
// ------------------------------------------------------------------------------------

promises! {
    fn it_may_stop_and_run_others_armed_or_queued_or_running(mut stage) {
        let (gate, running) = (Gate::default(), Gate::default());
        let busy = stage.occupy(&gate);
        let ledger = Ledger::new(6);
        let mut other = calm_heap_on(&stage.pool);
        let handles: Vec<_> = other.mutate(|mc, world| {
            (0..6).map(|at| {
                let node = mc.alloc(Node::new(at));
                if at < 3 {
                    world.nodes.borrow_mut(mc).push(node);
                }
                mc.add_cleanup(node, ledger.cleanup(at as usize))
            }).collect()
        });
        // One more runs on a thread of its own.
        let early = other.mutate(|mc, _| {
            Arc::new(mc.add_cleanup(mc.alloc(Node::new(0)), running.cleanup()))
        });
        let runner = thread::spawn({
            let early = early.clone();
            move || early.run_now()
        });
        running.wait_for(1);
        let (go, wait) = mpsc::channel();
        let (pool, left, ran_here) = (stage.pool.clone(), ledger.clone(), early.clone());
        let act = stage.prepare(move || {
            wait.recv_timeout(LONG).unwrap();
            for (at, handle) in handles.iter().enumerate() {
                let state = if at < 3 { CleanupState::Armed } else { CleanupState::Queued };
                assert_eq!(handle.state(), state, "cleanup {at}");
                match at % 3 {
                    0 => {
                        assert!(handle.stop(), "cleanup {at}");
                        assert_eq!(left.line(at), (0, 1));
                        assert_eq!(handle.state(), CleanupState::Stopped);
                    }
                    1 => {
                        assert!(handle.run_now(), "cleanup {at}");
                        assert_eq!((left.line(at), handle.state()), ((1, 1), CleanupState::Done));
                        assert_eq!(pool.run_pending(usize::MAX), 0, "still inside a cleanup");
                    }
                    _ => continue,
                }
                assert!(!handle.stop() && !handle.run_now(), "cleanup {at}: it is too late");
            }
            for handle in busy.iter().chain([&*ran_here]) {
                assert_eq!(handle.state(), CleanupState::Running);
                assert!(!handle.stop() && !handle.run_now());
            }
            handles
        });
        // Behind the one that is to find them in the list.
        other.collect();
        go.send(()).unwrap();
        let handles = stage.perform(act);
        assert_eq!(other.stats().cleanups.stopped, 2);
        gate.open();
        running.open();
        assert!(runner.join().unwrap());
        assert_eq!(early.state(), CleanupState::Done);
        drop(other);
        drain(&stage.pool);
        assert!(handles.iter().all(|handle| !handle.stop() && !handle.run_now()));
        let lines: Vec<_> = (0..6).map(|at| ledger.line(at)).collect();
        assert_eq!(lines, [(0, 1), (1, 1), (1, 1), (0, 1), (1, 1), (1, 1)]);
    }

    fn to_itself_it_is_running_and_cannot_be_stopped_or_run(mut stage) {
        if stage.way == Way::Local {
            let own: Rc<OnceCell<sexton::LocalCleanup>> = Rc::default();
            let (me, ran) = (own.clone(), Rc::new(RefCell::new(0)));
            let count = ran.clone();
            let handle = stage.heap.mutate(|mc, _| {
                mc.add_cleanup_local(mc.alloc(Node::new(0)), move || {
                    let me = me.get().unwrap();
                    assert_eq!(me.state(), CleanupState::Running);
                    assert!(!me.stop() && !me.run_now());
                    *count.borrow_mut() += 1;
                })
            });
            own.set(handle).unwrap();
            stage.heap.collect();
            assert_eq!(stage.heap.run_local_cleanups(9), 1);
            assert_eq!((*ran.borrow(), own.get().unwrap().state()), (1, CleanupState::Done));
            assert_eq!(stage.heap.stats().local_cleanups.panicked, 0);
            return;
        }
        let own: Arc<OnceLock<Cleanup>> = Arc::default();
        let (me, ran) = (own.clone(), Counter::default());
        let (set, wait) = mpsc::channel();
        let count = ran.clone();
        let mut act = stage.prepare(move || {
            wait.recv_timeout(LONG).unwrap();
            let me = me.get().unwrap();
            assert_eq!(me.state(), CleanupState::Running);
            assert!(!me.stop() && !me.run_now());
            count.raise();
        });
        own.set(act.handle.take().unwrap()).unwrap();
        set.send(()).unwrap();
        if stage.way == Way::RunNow {
            assert!(own.get().unwrap().run_now());
        } else {
            stage.perform(act);
        }
        until("it is done", || own.get().unwrap().state() == CleanupState::Done);
        assert_eq!((ran.get(), stage.pool.stats().panicked), (1, 0));
    }
}

// ---- pools
// ---------------------------------------------------------------------------------------------

promises! {
    fn it_may_ask_its_pool_and_cleanups_do_not_nest(mut stage) {
        let gate = Gate::default();
        stage.occupy(&gate);
        let (ledger, way) = (Ledger::new(LINES), stage.way);
        let mut other = calm_heap_on(&stage.pool);
        other.mutate(|mc, _| {
            for at in 0..LINES {
                mc.add_cleanup(mc.alloc(Node::new(at as u64)), ledger.cleanup(at));
            }
        });
        let (go, wait) = mpsc::channel();
        let (pool, left) = (stage.pool.clone(), ledger.clone());
        let act = stage.prepare(move || {
            wait.recv_timeout(LONG).unwrap();
            assert_eq!((pool.run_pending(usize::MAX), left.ended()), (0, 0));
            let (stats, dump) = (pool.stats(), pool.dump());
            let running = |activity: &Activity| matches!(activity, Activity::Running { .. });
            let shown = dump.runners.iter().filter(|runner| running(&runner.activity)).count();
            // One that is run by its handle or by its heap is no runner of the pool.
            let runs = if way == Way::Manual { 1 } else { way.workers() };
            assert_eq!((stats.running, shown), (runs, runs), "{dump}");
            assert!(stats.backlog as usize >= LINES && stats.blocks > 0, "{dump}");
            assert_eq!(pool.max_workers(), way.workers());
        });
        other.collect();
        go.send(()).unwrap();
        stage.perform(act);
        gate.open();
        drop(other);
        drain(&stage.pool);
        ledger.assert_all_ran();
    }

    fn it_may_move_its_pools_bound(mut stage) {
        let ledger = Ledger::new(LINES);
        let workers = stage.way.workers();
        for bound in [workers + 2, 0, workers] {
            let bound = if stage.way == Way::Manual { 0 } else { bound };
            let pool = stage.pool.clone();
            stage.in_cleanup(move || pool.set_max_workers(bound));
            assert_eq!(stage.pool.max_workers(), bound);
            // The workers that are left have to run the next one.
            until("the surplus has left", || stage.pool.stats().workers <= bound);
            if bound == 0 && stage.way != Way::Manual {
                stage.pool.set_max_workers(1);
            }
        }
        stage.heap.mutate(|mc, _| {
            for at in 0..LINES {
                mc.add_cleanup(mc.alloc(Node::new(at as u64)), ledger.cleanup(at));
            }
        });
        stage.heap.collect();
        drain(&stage.pool);
        ledger.assert_all_ran();
    }

    /// It does not wait for the worker that it runs on, and what is queued by then is run, if there
    /// are workers.
    fn it_may_shut_its_own_pool_down(mut stage) {
        let ledger = Ledger::new(LINES);
        let mut other = calm_heap_on(&stage.pool);
        other.mutate(|mc, _| {
            for at in 0..LINES {
                mc.add_cleanup(mc.alloc(Node::new(at as u64)), ledger.cleanup(at));
            }
        });
        let (go, wait) = mpsc::channel();
        let pool = stage.pool.clone();
        let act = stage.prepare(move || {
            wait.recv_timeout(LONG).unwrap();
            let start = Instant::now();
            pool.shutdown(Duration::MAX).unwrap();
            pool.shutdown(Duration::MAX).unwrap();
            start.elapsed()
        });
        other.collect();
        go.send(()).unwrap();
        assert!(stage.perform(act) < LONG / 2, "it waited");
        stage.pool.shutdown(LONG).unwrap();
        if stage.way == Way::Manual {
            ledger.assert_none_ran();
        } else {
            ledger.assert_all_ran();
        }
        let late = Ledger::new(1);
        other.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), late.cleanup(0)));
        other.collect();
        late.assert_none_ran();
        let stats = stage.pool.stats();
        assert_eq!((stats.workers, stats.backlog), (0, 0));
        assert_eq!(stats.queued, stats.executed + stats.ended_early + stats.discarded);
    }

    fn it_may_drop_the_last_handle_but_the_heaps_of_a_pool_in_use(mut stage) {
        for pool in pools(&stage.pool).into_iter().skip(1) {
            // The heap lives on this thread, and for local cleanups the act runs here, too.
            let ledger = Ledger::new(2 * LINES);
            let mut other = heap_on(&pool);
            stage.in_cleanup(move || drop(pool));
            for half in 0..2 {
                other.mutate(|mc, _| {
                    for at in half * LINES..(half + 1) * LINES {
                        mc.add_cleanup(mc.alloc(Node::new(at as u64)), ledger.cleanup(at));
                    }
                });
                other.collect();
                drain(other.cleanup_pool());
                other.wait_for_cleanups(LONG).unwrap();
            }
            ledger.assert_all_ran();
        }
    }

    /// With work in it, and no heap any more: workers run it, and end. A manual pool has none.
    fn it_may_drop_the_last_handle_of_another_pool(mut stage) {
        for workers in [0, 1, 3] {
            let (builder, threads) = counted_threads();
            let pool = builder.max_workers(workers).build();
            let (ledger, gate) = (Ledger::new(LINES), Gate::default());
            let mut other = crate::world::builder()
                .cleanup_pool(&pool)
                .drop_timeout(Duration::ZERO)
                .build(|_| World::default());
            for _ in 0..workers {
                other.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), gate.cleanup()));
                other.collect();
            }
            gate.wait_for(workers);
            other.mutate(|mc, _| {
                for at in 0..LINES {
                    mc.add_cleanup(mc.alloc(Node::new(at as u64)), ledger.cleanup(at));
                }
            });
            drop(other);
            let took = stage.in_cleanup(move || {
                let start = Instant::now();
                drop(pool);
                start.elapsed()
            });
            assert!(took < Duration::from_secs(4), "it waited for workers that wait for us");
            assert_eq!(ledger.ended(), if workers == 0 { LINES } else { 0 });
            gate.open();
            until("its threads have ended", || Arc::strong_count(&threads) == 1);
            if workers == 0 {
                ledger.assert_none_ran();
            } else {
                ledger.assert_all_ran();
            }
        }
    }
}

/// A pool whose threads, its monitor included, hold a share of the answer until they end.
fn counted_threads() -> (CleanupPoolBuilder, Arc<()>) {
    let threads = Arc::new(());
    let share = threads.clone();
    let builder = CleanupPool::builder().spawn_hook(move |thread, body| {
        let weak = Arc::downgrade(&share);
        thread.spawn(move || {
            let _share = weak.upgrade();
            body();
        })
    });
    (builder, threads)
}

/// No other handle of the pool is left, its heap has died, and work is queued behind the cleanup.
#[test]
fn it_may_drop_the_last_handle_of_its_own_pool() {
    for workers in [1, 3] {
        let (builder, threads) = counted_threads();
        let pool = builder.max_workers(workers).build();
        let mut heap = crate::world::builder()
            .cleanup_pool(&pool)
            .drop_timeout(Duration::ZERO)
            .build(|_| World::default());
        let ledger = Ledger::new(LINES);
        let (go, wait) = mpsc::channel::<()>();
        let (send, took) = mpsc::channel();
        let last = pool.clone();
        heap.mutate(|mc, _| {
            mc.add_cleanup(mc.alloc(Node::new(0)), move || {
                wait.recv_timeout(LONG).unwrap();
                let start = Instant::now();
                drop(last);
                send.send(start.elapsed()).unwrap();
            });
        });
        heap.collect();
        heap.mutate(|mc, _| {
            for at in 0..LINES {
                mc.add_cleanup(mc.alloc(Node::new(at as u64)), ledger.cleanup(at));
            }
        });
        drop((pool, heap));
        go.send(()).unwrap();
        let took = took.recv_timeout(LONG).expect("the drop returns");
        assert!(took < Duration::from_secs(4), "it waited for itself: {took:?}");
        until("the threads have ended", || Arc::strong_count(&threads) == 1);
        ledger.assert_all_ran();
    }
}

/// The same by `run_now`, on a thread that is none of the pool's, while its workers are busy. A
/// manual pool's work has no thread then.
#[test]
fn run_by_its_handle_it_may_drop_the_last_handle_of_its_own_pool() {
    for workers in [0, 1, 3] {
        let (builder, threads) = counted_threads();
        let pool = builder.max_workers(workers).build();
        let mut heap = crate::world::builder()
            .cleanup_pool(&pool)
            .drop_timeout(Duration::ZERO)
            .build(|_| World::default());
        let (ledger, gate) = (Ledger::new(LINES), Gate::default());
        for _ in 0..workers {
            heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), gate.cleanup()));
            heap.collect();
        }
        gate.wait_for(workers);
        let handle = heap.mutate(|mc, _| {
            for at in 0..LINES {
                mc.add_cleanup(mc.alloc(Node::new(at as u64)), ledger.cleanup(at));
            }
            mc.add_cleanup(mc.alloc(Node::new(0)), move || drop(pool))
        });
        drop(heap);
        assert_eq!(ledger.ended(), 0);
        let start = Instant::now();
        assert!(handle.run_now());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "it waited for workers that wait for us: {took:?}");
        gate.open();
        until("the threads have ended", || Arc::strong_count(&threads) == 1);
        if workers == 0 {
            ledger.assert_none_ran();
        } else {
            ledger.assert_all_ran();
        }
    }
}

/// It keeps a heap on its thread that holds the last handle. The worker retires, its thread ends,
/// the heap with it, and with that the pool: on one of the pool's own threads, and outside any
/// cleanup.
#[test]
fn a_heap_that_a_worker_keeps_may_hold_the_last_handle_of_its_pool() {
    thread_local! {
        static KEPT: RefCell<Option<WorldHeap>> = const { RefCell::new(None) };
    }
    for workers in [1, 3] {
        for on_drop in [OnDrop::RunAll, OnDrop::RunQueued, OnDrop::Discard] {
            let (builder, threads) = counted_threads();
            let pool = builder.max_workers(workers).keep_alive(Duration::from_millis(10)).build();
            let (queued, armed) = (Ledger::new(LINES), Ledger::new(LINES));
            let (ledgers, inner) = ((queued.clone(), armed.clone()), pool.clone());
            let mut heap = heap_on(&pool);
            drop(pool);
            heap.mutate(|mc, _| {
                mc.add_cleanup(mc.alloc(Node::new(0)), move || {
                    KEPT.set(Some(heap_with(&inner, on_drop, &ledgers.0, &ledgers.1)));
                });
            });
            drop(heap);
            until("the threads have ended", || Arc::strong_count(&threads) == 1);
            let ran = [queued.balance(LINES), armed.balance(LINES)];
            let runs_armed = on_drop == OnDrop::RunAll;
            assert_eq!(ran, [LINES, if runs_armed { LINES } else { 0 }], "{on_drop:?}");
        }
    }
}

// ---- waiting
// -------------------------------------------------------------------------------------------

/// Does all that a thread inside a cleanup, or one that counts as if, can do with a pool and heaps
/// on it. Gives the answer to a wait without end.
fn liberties(pool: &CleanupPool) -> Result<(), WaitError> {
    let manual = CleanupPool::manual();
    let mut waits = Vec::new();
    for pool in [pool, &manual] {
        let mut heap = builder()
            .cleanup_pool(pool)
            .drop_timeout(Duration::MAX)
            .back_pressure(0, BackPressure::Wait(Duration::MAX))
            .build(|_| World::default());
        waits.push(heap.wait_for_cleanups(Duration::MAX));
        let handle = heap.mutate(|mc, world| {
            let kept = mc.alloc(Node::new(0));
            world.head.set(mc, Some(kept));
            mc.add_cleanup(mc.alloc(Node::new(1)), || {});
            mc.add_cleanup(kept, || {})
        });
        heap.collect();
        waits.push(heap.wait_for_cleanups(Duration::MAX));
        assert_eq!(pool.run_pending(usize::MAX), 0, "cleanups do not nest");
        assert!(handle.run_now(), "but by their handles");
        waits.push(heap.wait_for_cleanups(Duration::MAX));
        assert!(!pool.dump().to_string().is_empty());
    }
    assert!(waits.iter().all(|wait| *wait == waits[0]), "{waits:?}");
    waits[0]
}

promises! {
    fn waiting_for_cleanups_is_an_error_at_once(mut stage) {
        struct Last(CleanupPool, mpsc::Sender<Result<(), WaitError>>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.1.send(liberties(&self.0)).unwrap();
            }
        }
        for pool in pools(&stage.pool) {
            let (send, destructors) = mpsc::channel();
            let act = move || {
                let before = liberties(&pool);
                // In a cleanup within the cleanup, and back in the outer one.
                let mut heap = heap_on(&pool);
                let (answer, inner) = mpsc::channel();
                let (own, last) = (pool.clone(), Last(pool.clone(), send.clone()));
                let handles = heap.mutate(|mc, world| {
                    let node = mc.alloc(Node::new(0));
                    world.head.set(mc, Some(node));
                    let run = mc.add_cleanup(node, move || answer.send(liberties(&own)).unwrap());
                    [run, mc.add_cleanup(node, move || drop(last))]
                });
                assert!(handles[0].run_now());
                let inner = inner.recv().unwrap();
                // In the destructor of a capture: of one that is stopped, and of one that is
                // discarded.
                assert!(handles[1].stop());
                let mut heap = builder()
                    .cleanup_pool(&CleanupPool::manual())
                    .on_drop(OnDrop::Discard)
                    .build(|_| World::default());
                let last = Last(pool.clone(), send);
                heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), move || drop(last)));
                drop(heap);
                [before, inner, liberties(&pool)]
            };
            assert_eq!(stage.in_cleanup(act), [Err(WaitError::FromCleanup); 3]);
            let destructors: Vec<_> = destructors.try_iter().collect();
            assert_eq!(destructors, [Err(WaitError::FromCleanup); 2]);
        }
        // Not so outside, on the same thread.
        drain(&stage.pool);
        assert_eq!(liberties_outside(&stage.pool), Ok(()));
    }

    fn back_pressure_is_not_applied_in_it(mut stage) {
        let gate = Gate::default();
        stage.occupy(&gate);
        let applied = Counter::default();
        let policies = || {
            let count = applied.clone();
            [
                BackPressure::Help,
                BackPressure::Wait(Duration::MAX),
                BackPressure::call(move |backlog| {
                    assert!(backlog.cleanups > backlog.mark);
                    count.raise();
                }),
            ]
        };
        for pool in [stage.pool.clone(), CleanupPool::manual()] {
            for policy in policies() {
                let pool = pool.clone();
                stage.in_cleanup(move || {
                    let mut heap = builder()
                        .cleanup_pool(&pool)
                        .pacing(Pacing::Manual)
                        .back_pressure(3, policy)
                        .build(|_| World::default());
                    heap.mutate(|mc, _| {
                        for at in 0..LINES {
                            mc.add_cleanup(mc.alloc(Node::new(at as u64)), || {});
                        }
                    });
                    heap.collect();
                    let backlog = heap.stats().cleanups.backlog;
                    assert_eq!(backlog as usize, LINES, "no thread could run them");
                });
            }
        }
        assert_eq!(applied.get(), 0);
        // The same outside.
        for policy in policies() {
            let pool = CleanupPool::builder().max_workers(1).build();
            let called = matches!(policy, BackPressure::Call(_));
            let mut heap =
                builder().cleanup_pool(&pool).back_pressure(3, policy).build(|_| World::default());
            heap.mutate(|mc, _| {
                for at in 0..LINES {
                    mc.add_cleanup(mc.alloc(Node::new(at as u64)), || {});
                }
            });
            heap.collect();
            assert!(called || heap.stats().cleanups.backlog <= 3);
        }
        gate.open();
    }
}

/// What the same wait answers where it is allowed.
fn liberties_outside(pool: &CleanupPool) -> Result<(), WaitError> {
    let mut heap = heap_on(pool);
    heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), || {}));
    heap.collect();
    pool.run_pending(usize::MAX);
    heap.wait_for_cleanups(LONG)
}

// ---- hooks
// ---------------------------------------------------------------------------------------------

/// A pool to be known to its own hooks, and what they answer.
#[derive(Clone, Default)]
struct Hook {
    pool: Arc<Mutex<Option<CleanupPool>>>,
    answers: Arc<Mutex<Vec<Result<(), WaitError>>>>,
    busy: Arc<AtomicBool>,
}

impl Hook {
    /// To be called by a hook. What it does may call the hook again; that call does nothing.
    fn call(&self) {
        let Some(pool) = self.pool.lock().unwrap().clone() else { return };
        if !self.busy.swap(true, SeqCst) {
            let answer = liberties(&pool);
            self.answers.lock().unwrap().push(answer);
            self.busy.store(false, SeqCst);
        }
    }

    fn is_for(&self, pool: &CleanupPool) {
        *self.pool.lock().unwrap() = Some(pool.clone());
    }

    /// Some calls were made, and none could wait.
    #[track_caller]
    fn assert_told(&self) {
        until("the hook has been called", || !self.answers.lock().unwrap().is_empty());
        // What a hook queues runs, too; and a hook that knows its pool keeps it.
        let pool = self.pool.lock().unwrap().take().unwrap();
        drain(&pool);
        until("the hook has returned", || !self.busy.load(SeqCst));
        let answers = self.answers.lock().unwrap();
        assert!(answers.iter().all(|it| *it == Err(WaitError::FromCleanup)), "{answers:?}");
    }
}

promises! {
    fn its_panic_hook_may_do_what_it_may(stage) {
        let hook = Hook::default();
        let called = hook.clone();
        let builder = CleanupPool::builder().on_panic(move |_| called.call());
        let mut stage = Stage::with(stage.way, builder);
        hook.is_for(&stage.pool);
        let act = stage.prepare(|| ());
        stage.perform(act);
        let handle = stage.heap.mutate(|mc, _| {
            let node = mc.alloc(Node::new(0));
            let panics = || resume_unwind(Box::new("on purpose"));
            if stage.way == Way::Local {
                mc.add_cleanup_local(node, panics);
                None
            } else {
                Some(mc.add_cleanup(node, panics))
            }
        });
        if let (Way::RunNow, Some(handle)) = (stage.way, handle) {
            assert!(handle.run_now());
        }
        stage.heap.collect();
        stage.pool.run_pending(usize::MAX);
        stage.heap.run_local_cleanups(usize::MAX);
        hook.assert_told();
        assert_eq!(hook.answers.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_hook_for_slow_cleanups_may_do_what_a_cleanup_may() {
    for workers in [1, 3] {
        let hook = Hook::default();
        let called = hook.clone();
        let pool = CleanupPool::builder()
            .max_workers(workers)
            .on_slow(Duration::from_millis(1), move |_| called.call())
            .build();
        hook.is_for(&pool);
        let (mut heap, gate) = (heap_on(&pool), Gate::default());
        heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), gate.cleanup()));
        heap.collect();
        until("the hook has been called", || !hook.answers.lock().unwrap().is_empty());
        gate.open();
        hook.assert_told();
    }
}

#[test]
fn a_hook_for_ready_work_may_do_what_a_cleanup_may() {
    for workers in [0, 1, 3] {
        let hook = Hook::default();
        let called = hook.clone();
        let pool =
            CleanupPool::builder().max_workers(workers).on_ready(move || called.call()).build();
        hook.is_for(&pool);
        let mut heap = heap_on(&pool);
        // It is called unless a worker was quicker.
        until("the hook has been called", || {
            heap.mutate(|mc, _| {
                for at in 0..LINES {
                    mc.add_cleanup(mc.alloc(Node::new(at as u64)), || {});
                }
            });
            heap.collect();
            !hook.answers.lock().unwrap().is_empty()
        });
        hook.assert_told();
    }
}

/// The hook that starts threads and the one that is told of failures.
#[test]
fn hooks_for_threads_may_do_what_a_cleanup_may() {
    for workers in [1, 3] {
        let (starts, failures) = (Hook::default(), Hook::default());
        let (start, failure) = (starts.clone(), failures.clone());
        let first = AtomicBool::new(true);
        let pool = CleanupPool::builder()
            .max_workers(workers)
            .spawn_hook(move |thread, body| {
                start.call();
                if first.swap(false, SeqCst) {
                    return Err(io::Error::other("on purpose"));
                }
                thread.spawn(body)
            })
            .on_spawn_failure(move |_| failure.call())
            .build();
        starts.is_for(&pool);
        failures.is_for(&pool);
        let mut heap = heap_on(&pool);
        heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), || {}));
        heap.collect();
        heap.wait_for_cleanups(LONG).unwrap();
        starts.assert_told();
        failures.assert_told();
    }
}

/// It is called between sessions, not inside a cleanup.
#[test]
fn a_hook_for_back_pressure_may_wait_for_other_heaps() {
    for workers in [0, 1, 3] {
        let pool = CleanupPool::builder().max_workers(workers).build();
        let answers: Arc<Mutex<Vec<_>>> = Arc::default();
        let notes = answers.clone();
        let mut heap = builder()
            .cleanup_pool(&pool)
            .pacing(Pacing::Manual)
            .back_pressure(
                0,
                BackPressure::call(move |backlog| {
                    notes.lock().unwrap().push(liberties_outside(backlog.pool));
                }),
            )
            .build(|_| World::default());
        until("the backlog is too high once", || {
            heap.mutate(|mc, _| {
                for at in 0..LINES {
                    mc.add_cleanup(mc.alloc(Node::new(at as u64)), || {});
                }
            });
            heap.collect();
            !answers.lock().unwrap().is_empty()
        });
        assert!(answers.lock().unwrap().iter().all(Result::is_ok));
    }
}

// ---- local cleanups, which may hold what is not `Send`
// -------------------------------------------------

#[test]
fn a_local_cleanup_may_own_another_heap_and_use_it() {
    let mut heap = heap_on(&CleanupPool::manual());
    for workers in [0, 1, 3] {
        let pool = CleanupPool::builder().max_workers(workers).build();
        let (ledger, ran) = (Ledger::new(2 * LINES), Rc::new(RefCell::new(0)));
        let mut other = heap_on(&pool);
        let (entries, count) = (ledger.clone(), ran.clone());
        heap.mutate(|mc, _| {
            mc.add_cleanup_local(mc.alloc(Node::new(0)), move || {
                other.mutate(|mc, world| {
                    for at in 0..2 * LINES {
                        let node = mc.alloc(Node::new(at as u64));
                        mc.add_cleanup(node, entries.cleanup(at));
                        if at < LINES {
                            world.nodes.borrow_mut(mc).push(node);
                        }
                        let count = count.clone();
                        mc.add_cleanup_local(node, move || *count.borrow_mut() += 1);
                    }
                });
                other.collect();
                assert_eq!(other.stats().cleanups.queued as usize, LINES);
                assert_eq!(other.wait_for_cleanups(Duration::MAX), Err(WaitError::FromCleanup));
                // These are run by the thread that asks, and a cleanup may ask.
                assert_eq!(other.run_local_cleanups(10), 10);
                assert_eq!(*count.borrow(), 10);
                // And here the heap is dropped.
            });
        });
        heap.collect();
        assert_eq!(heap.run_local_cleanups(usize::MAX), 1);
        drain(&pool);
        ledger.assert_all_ran();
        assert_eq!((*ran.borrow(), Rc::strong_count(&ran)), (2 * LINES, 1));
        assert_eq!(heap.stats().local_cleanups.panicked, 0);
    }
}

#[test]
fn a_local_cleanup_may_stop_and_run_others_of_its_heap_and_drop_roots() {
    let mut heap = heap_on(&CleanupPool::manual());
    let log: Rc<RefCell<Vec<u64>>> = Rc::default();
    let note = |at| {
        let log = log.clone();
        move || log.borrow_mut().push(at)
    };
    // 0 to 2 live, 3 to 5 die with the one that meddles.
    let handles: Rc<RefCell<Vec<sexton::LocalCleanup>>> = Rc::default();
    let meddle = handles.clone();
    let root: Root<Node<'static>> = heap.mutate(|mc, world| {
        let meddler = mc.alloc(Node::new(9));
        let root = mc.root(mc.alloc(Node::new(7)));
        let held: Root<Node<'static>> = mc.root(mc.alloc(Node::new(8)));
        mc.add_cleanup_local(meddler, move || {
            let handles = meddle.take();
            for (at, handle) in handles.iter().enumerate() {
                match at % 3 {
                    0 => assert!(handle.stop() && handle.state() == CleanupState::Stopped),
                    1 => assert!(handle.run_now() && handle.state() == CleanupState::Done),
                    _ => continue,
                }
                assert!(!handle.stop() && !handle.run_now());
            }
            drop(held);
        });
        for at in 0..6 {
            let node = mc.alloc(Node::new(at));
            if at < 3 {
                world.nodes.borrow_mut(mc).push(node);
            }
            handles.borrow_mut().push(mc.add_cleanup_local(node, note(at)));
        }
        root
    });
    heap.collect();
    assert_eq!(heap.stats().roots, 2);
    // The meddler is the first in the queue.
    assert_eq!(heap.run_local_cleanups(usize::MAX), 2);
    assert_eq!((&*log.borrow(), heap.stats().roots), (&vec![1, 4, 5], 1));
    heap.collect();
    heap.verify().unwrap();
    assert_eq!(heap.stats().objects, 4, "three nodes and the one that is still rooted");
    drop(root);
    drop(heap);
    assert_eq!(*log.borrow(), [1, 4, 5, 2]);
    assert_eq!(Rc::strong_count(&log), 1);
}
