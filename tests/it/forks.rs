//! What heaps and pools made before a `fork` do in the child: nothing that waits, and they say so.
//!
//! A test forks in a process of its own, this binary started again for that one test. There it is
//! the only test, so that no other test's thread holds a lock when it forks. An alarm ends a child
//! that hangs.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, atomic::AtomicBool};
use std::thread;
use std::time::{Duration, Instant};

use sexton::{
    BackPressure, Branded, Cleanup, CleanupPool, Gc, GcAtomic, GcCell, Heap, Leaf, Mutation,
    OnDrop, Pacing, Payload, Progress, Root, Shared, Trace, WaitError, gc_threads,
};
use sexton_tests::quiet::quietly;
use sexton_tests::settings::number;

use crate::world::{LONG, calm};

/// How long a child may take before the alarm ends it. It takes some milliseconds.
const ALARM_SECONDS: u32 = 30;

/// Nothing in a child waits. A drop that did would take five seconds.
const AT_ONCE: Duration = Duration::from_secs(3);

/// The exit code of a process that has come to the end of its test; no other end has it.
const DONE: i32 = 42;

/// Set in a process that is there for one test.
const APART: &str = "SEXTON_APART";

/// Runs a test in a process of its own.
pub(crate) fn apart(test: &str, body: impl FnOnce()) {
    let errors = apart_with([], test, body);
    eprint!("{errors}");
}

/// Runs a test in a process of its own, with these variables; what it writes to standard error.
pub(crate) fn apart_with<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    test: &str,
    body: impl FnOnce(),
) -> String {
    if env::var_os(APART).is_some() {
        body();
        process::exit(DONE);
    }
    let output = Command::new(env::current_exe().expect("this test's binary"))
        .args([test, "--exact", "--nocapture"])
        .env(APART, "1")
        .envs(variables)
        .stdout(Stdio::null())
        .output()
        .expect("it was started once");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(DONE), "{}: {errors}", output.status);
    errors
}

/// Forks, calls `body` in the child, and waits for its end.
fn in_a_child(body: impl FnOnce()) {
    // SAFETY: the child does what is tested here: it uses Sexton, which is to stand that. The C
    // library makes its own allocator good in the child, and the standard library's locks are not
    // held: no other thread prints.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child");
    if child == 0 {
        // SAFETY: asks for a signal, whose default is to end the process.
        unsafe { libc::alarm(ALARM_SECONDS) };
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: ends the process, and runs nothing.
        unsafe { libc::_exit(failed.into()) };
    }
    let mut status = 0;
    // SAFETY: `status` is there to be written to.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    let hung = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM;
    assert!(!hung, "the child hung");
    assert_eq!(status, 0, "the child's status");
}

fn at_once<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    assert!(start.elapsed() < AT_ONCE, "{what} took {:?}", start.elapsed());
    result
}

/// What a panic that is expected said.
fn message_of<T>(f: impl FnOnce() -> T) -> String {
    let panic = quietly(|| catch_unwind(AssertUnwindSafe(f)).err().expect("it panics"));
    *panic.downcast::<String>().expect("a message with something in it")
}

#[derive(Trace, Default)]
struct World<'gc> {
    current: GcCell<Option<Gc<'gc, Leaf<u64>>>>,
}

/// Cleanups that have run in this process, and captures that have gone, after a run or instead of
/// one.
#[derive(Default)]
struct Counts {
    ran: AtomicUsize,
    gone: AtomicUsize,
}

struct Capture(Arc<Counts>);

impl Capture {
    fn run(self) {
        self.0.ran.fetch_add(1, SeqCst);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, SeqCst);
    }
}

/// Objects with a cleanup each, all of them dead; the handle of the last one's.
fn litter(heap: &mut Heap<World<'static>>, objects: u64, counts: &Arc<Counts>) -> Cleanup {
    heap.mutate(|mc, world| {
        let handles = (0..objects).map(|number| {
            let object = mc.alloc(Leaf::new(number));
            world.current.set(mc, Some(object));
            let capture = Capture(counts.clone());
            mc.add_cleanup(object, || capture.run())
        });
        let last = handles.last().expect("more than none");
        world.current.set(mc, None);
        last
    })
}

fn heap_on(pool: &CleanupPool) -> Heap<World<'static>> {
    calm().cleanup_pool(pool).build(|_| World::default())
}

/// All that a child can do to a heap and its pool that its parent has made.
fn use_what_is_inherited(mut heap: Heap<World<'static>>, pool: CleanupPool, queued: &Cleanup) {
    let counts = Arc::<Counts>::default();
    let before = heap.stats().cleanups;
    litter(&mut heap, 1000, &counts);
    let report = at_once("a collection", || heap.collect());
    assert_eq!(report.queued_cleanups, 0, "no thread would run them");
    assert_eq!((counts.ran.load(SeqCst), counts.gone.load(SeqCst)), (0, 1000));
    assert_eq!(heap.stats().cleanups.discarded, before.discarded + before.armed + 1000);
    heap.verify().unwrap();

    assert_eq!(at_once("a wait", || heap.wait_for_cleanups(LONG)), Err(WaitError::Forked));
    let stats = at_once("stats", || pool.stats());
    assert_eq!((stats.workers, stats.asleep, stats.running), (0, 0, 0));
    assert!(at_once("a dump", || pool.dump()).runners.is_empty());
    at_once("a bound", || pool.set_max_workers(pool.max_workers()));
    assert_eq!(at_once("a look for work", || pool.run_pending(usize::MAX)), 0);
    let error = at_once("a shutdown", || pool.shutdown(LONG)).expect_err("no thread to shut down");
    assert!(error.forked, "{error:?}");
    assert!(error.to_string().contains("`fork`"), "{error}");
    // What the parent has queued is the parent's; but a handle may take it, as it may there.
    at_once("a stop", || queued.stop());

    let message = message_of(|| heap_on(&pool));
    assert!(message.contains("made before a `fork`"), "{message}");

    let armed = litter(&mut heap, 1000, &counts);
    assert!(at_once("an early run", || armed.run_now()));
    at_once("the drop of the heap", || drop(heap));
    assert_eq!((counts.ran.load(SeqCst), counts.gone.load(SeqCst)), (1, 2000));
    at_once("the drop of the pool", || drop(pool));
}

/// What is made in the child works there.
fn make_new_ones() {
    let counts = Arc::<Counts>::default();
    let pool = CleanupPool::builder().build();
    let own = heap_on(&pool);
    let global = Heap::new(|_| World::default());
    for mut heap in [own, global] {
        heap.mutate(|mc, _| {
            let capture = Capture(counts.clone());
            mc.add_cleanup_labelled(mc.alloc(Leaf::new(0)), "made in the child", || capture.run());
        });
        litter(&mut heap, 999, &counts);
        heap.collect();
        assert_eq!(heap.wait_for_cleanups(LONG), Ok(()));
    }
    assert_eq!(pool.shutdown(LONG), Ok(()));
    assert_eq!((counts.ran.load(SeqCst), counts.gone.load(SeqCst)), (2000, 2000));
}

/// A heap on the pool, `queued` of whose cleanups have been queued, forks so often.
fn fork_with(pool: CleanupPool, queued: u64, wait: bool, forks: u64) {
    let counts = Arc::<Counts>::default();
    let mut heap = Some(heap_on(&pool));
    let mut made = 0;
    for fork in 0..forks {
        let own = heap.as_mut().expect("only children take it");
        let mut last = litter(own, 1, &counts);
        made += 1;
        // Not more than it can be kept busy with.
        if queued > 0 && pool.stats().backlog < queued {
            last = litter(own, queued, &counts);
            made += queued;
        }
        own.collect();
        if wait {
            own.wait_for_cleanups(LONG).unwrap();
        }
        in_a_child(|| {
            // Many children: one in sixteen starts threads, which takes the longest.
            if fork % 16 == 0 {
                make_new_ones();
            }
            use_what_is_inherited(heap.take().expect("there is one"), pool.clone(), &last);
            if fork % 16 == 1 {
                make_new_ones();
            }
        });
    }
    // To the parent nothing has happened.
    if pool.max_workers() == 0 {
        pool.run_pending(usize::MAX);
    }
    let heap = heap.expect("only children take it");
    assert_eq!(heap.wait_for_cleanups(LONG), Ok(()));
    assert_eq!(counts.ran.load(SeqCst) as u64, made);
}

#[test]
fn before_the_pool_has_started_a_thread() {
    apart("forks::before_the_pool_has_started_a_thread", || {
        let pool = CleanupPool::builder().build();
        let mut heap = heap_on(&pool);
        let last = litter(&mut heap, 1, &Arc::default());
        in_a_child(|| {
            use_what_is_inherited(heap, pool, &last);
            make_new_ones();
        });
    });
}

#[test]
fn while_the_workers_sleep() {
    apart("forks::while_the_workers_sleep", || {
        fork_with(CleanupPool::builder().max_workers(2).build(), 1000, true, 32);
    });
}

/// Worker, monitor and waiters are wherever they happen to be, with whatever locked. `SEXTON_FORKS`
/// says how often.
#[test]
fn while_the_workers_are_at_work() {
    apart("forks::while_the_workers_are_at_work", || {
        let forks = number("SEXTON_FORKS").unwrap_or(256);
        fork_with(CleanupPool::builder().max_workers(2).build(), 100_000, false, forks);
    });
}

#[test]
fn with_a_manual_pool() {
    apart("forks::with_a_manual_pool", || fork_with(CleanupPool::manual(), 1000, false, 32));
}

#[test]
fn no_policy_waits_in_a_child() {
    apart("forks::no_policy_waits_in_a_child", || {
        let pool = CleanupPool::builder().max_workers(1).build();
        let hook =
            BackPressure::call(|_| panic!("nothing is queued, so there is nothing to bound"));
        for policy in [BackPressure::Help, BackPressure::Wait(LONG), hook] {
            let mut heap = Heap::builder()
                .cleanup_pool(&pool)
                .pacing(Pacing::Manual)
                .on_drop(OnDrop::Discard)
                .drop_timeout(LONG)
                .back_pressure(0, policy)
                .build(|_| World::default());
            in_a_child(|| {
                let counts = Arc::<Counts>::default();
                litter(&mut heap, 1000, &counts);
                at_once("a collection", || heap.collect());
                litter(&mut heap, 1000, &counts);
                at_once("the drop of the heap", || drop(heap));
                assert_eq!((counts.ran.load(SeqCst), counts.gone.load(SeqCst)), (0, 2000));
            });
        }
    });
}

#[derive(Trace, Default)]
struct Common<'gc> {
    current: GcAtomic<'gc, Leaf<u64>>,
}

fn use_common<'gc>(mc: &Mutation<'gc, Shared>, common: &Common<'gc>) {
    let object = mc.alloc(Leaf::new(7));
    common.current.store(mc, Some(object));
    mc.add_cleanup(object, || {});
}

/// Other threads are in sessions of a `Shared` heap, collect it, and have roots of it.
#[test]
fn with_a_shared_heap_in_use() {
    apart("forks::with_a_shared_heap_in_use", || {
        let heap = Arc::new(Heap::<Common<'static>, Shared>::new(|_| Common::default()));
        let over = Arc::new(AtomicBool::new(false));
        let threads = [(); 2].map(|()| {
            let (heap, over) = (heap.clone(), over.clone());
            thread::spawn(move || {
                let mut mutator = heap.attach();
                while !over.load(SeqCst) {
                    let root = mutator.mutate(|mc, common| {
                        (0..100).for_each(|_| use_common(mc, common));
                        common.current.load().map(|object| mc.root(object))
                    });
                    drop(root);
                    mutator.collect();
                }
            })
        });
        let root = heap.attach().mutate(|mc, _| heap.share(&mc.root(mc.alloc(Leaf::new(8)))));
        let mut root = Some(root);
        for fork in 0..64 {
            let mut mutator = heap.attach();
            mutator.mutate(use_common);
            // Of this thread alone, so that the child drops it.
            let mut own = Some(Heap::<Common<'static>, Shared>::new(|_| Common::default()));
            own.iter().for_each(|own| own.attach().mutate(use_common));
            in_a_child(|| {
                for message in
                    [message_of(|| mutator.collect()), message_of(|| heap.try_attach().is_ok())]
                {
                    assert!(message.contains("made before a `fork`"), "{message}");
                }
                let waited = at_once("a wait", || heap.wait_for_cleanups(LONG));
                assert_eq!(waited, Err(WaitError::Forked));
                at_once("the drop of a root", || drop(root.take()));
                at_once("the drop of a mutator", || drop(mutator));
                at_once("the drop of a heap", || drop(own.take()));
                if fork % 16 == 0 {
                    let heap = Heap::<Common<'static>, Shared>::new(|_| Common::default());
                    thread::scope(|scope| {
                        for _ in 0..3 {
                            scope.spawn(|| {
                                let mut mutator = heap.attach();
                                for _ in 0..10 {
                                    mutator.mutate(use_common);
                                    mutator.collect();
                                }
                            });
                        }
                    });
                    assert_eq!(heap.wait_for_cleanups(LONG), Ok(()));
                }
            });
        }
        over.store(true, SeqCst);
        for thread in threads {
            thread.join().expect("it is not told of the forks");
        }
    });
}

/// A heap that is collected when the test says so, on a thread.
pub(crate) fn calm_shared<R: Branded>() -> Heap<R, Shared>
where
    for<'gc> R::At<'gc>: Payload<Shared> + Default,
{
    let builder = Heap::builder().pacing(Pacing::Manual).gc_threads(2).zeal(false);
    builder.build(|_| Default::default())
}

/// Makes as many roots as keep a thread marking for a while.
pub(crate) fn many_roots<R: Branded>(heap: &Heap<R, Shared>) -> Vec<Root<Leaf<u64>>> {
    heap.attach().mutate(|mc, _| {
        let object = mc.alloc(Leaf::new(7));
        (0..100_000).map(|_| mc.root(object)).collect()
    })
}

/// Runs a cycle in slices, between which a thread marks; how many threads it could not have.
pub(crate) fn finish<R: Branded>(heap: &Heap<R, Shared>) -> u64 {
    let mut mutator = heap.attach();
    loop {
        if let Progress::Finished(report) = mutator.step(Duration::ZERO) {
            assert_eq!(report.live_objects, 1);
            return report.refused_threads;
        }
    }
}

/// A thread scans the roots of a `Shared` heap, and so mostly holds their lock.
#[test]
fn while_a_thread_marks() {
    apart("forks::while_a_thread_marks", || {
        for _ in 0..20 {
            let heap: Heap<Common<'static>, Shared> = calm_shared();
            let roots = many_roots(&heap);
            let mut mutator = heap.attach();
            assert!(!mutator.step(Duration::ZERO).is_finished());
            drop(mutator);
            let mut own = Some((heap, roots));
            in_a_child(|| at_once("the drop of a heap and its roots", || drop(own.take())));
        }
    });
}

/// A child has none of the threads that collect, and starts its own: for a heap that it has
/// inherited, and for one that it makes.
#[test]
fn the_threads_that_collect_are_the_childs_own() {
    apart("forks::the_threads_that_collect_are_the_childs_own", || {
        const WIDE: usize = 100_000;
        let mut local: Heap<World<'static>> =
            Heap::builder().pacing(Pacing::Manual).gc_threads(2).build(|_| World::default());
        let roots: Vec<_> =
            local.mutate(|mc, _| (0..WIDE).map(|_| mc.root(mc.alloc(World::default()))).collect());
        let mut own = Some((local, roots));
        for _ in 0..16 {
            let (local, _) = own.as_mut().expect("only children take it");
            local.collect();
            let before = gc_threads();
            assert!(before.started > 0, "it is wide");
            in_a_child(|| {
                let none = gc_threads();
                assert_eq!((none.running, none.started, none.refused), (0, 0, 0));
                let (mut local, roots) = own.take().expect("there is one");
                let report = at_once("a collection", || local.collect());
                assert_eq!((report.live_objects, report.refused_threads), (WIDE as u64, 0));
                assert!(gc_threads().started > 0, "it is wide in the child, too");
                let shared: Heap<Common<'static>, Shared> = calm_shared();
                let shared_roots = many_roots(&shared);
                finish(&shared);
                assert!(gc_threads().running > 0);
                at_once("the drop of the inherited heap", || drop((local, roots)));
                assert!(gc_threads().running > 0, "another heap has used them");
                at_once("the drop of the child's own", || drop((shared, shared_roots)));
                assert_eq!(gc_threads().running, 0);
            });
            assert_eq!(gc_threads().started, before.started, "nothing has happened here");
        }
        drop(own);
        assert_eq!(gc_threads().running, 0);
    });
}

/// A thread sweeps a `Shared` heap, within drop glue or with the space locked.
#[test]
fn while_a_thread_sweeps() {
    apart("forks::while_a_thread_sweeps", || {
        for _ in 0..20 {
            let heap: Heap<Common<'static>, Shared> =
                Heap::builder().pacing(Pacing::Manual).gc_threads(2).build(|_| Common::default());
            let mut mutator = heap.attach();
            let dropped = Arc::new(AtomicUsize::new(0));
            mutator.mutate(|mc, _| {
                for number in 0..200_000 {
                    mc.add_cleanup(mc.alloc(Leaf::new(Slow(dropped.clone(), number))), || {});
                }
            });
            // The steps before the sweep drop nothing.
            while dropped.load(SeqCst) == 0 {
                assert!(!mutator.step(Duration::ZERO).is_finished());
            }
            drop(mutator);
            let mut own = Some(heap);
            in_a_child(|| at_once("the drop of a heap", || drop(own.take())));
            drop(own);
            assert_eq!(dropped.load(SeqCst), 200_000);
        }
    });
}

/// Takes a moment to be dropped.
struct Slow(Arc<AtomicUsize>, u64);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        std::hint::black_box((0..self.1 % 64).sum::<u64>());
    }
}
