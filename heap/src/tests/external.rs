//! Bytes outside the heap in each phase of a cycle, and in both modes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use sexton_cleanup::{Client, Pool, PoolConfig};

use crate::collect::heap::RawHeap;
use crate::memory::phase::Phase;
use crate::object::trace::{Branded, Trace, Tracer};
use crate::policy::config::HeapConfig;
use crate::policy::pacer::Pacing;
use crate::policy::report::{GcReport, Progress};
use crate::{Gc, GcMutex, GcMutexGuard, Leaf, Local, Mode, Mutation, Shared};

/// An object that owns bytes, and may come to own more. It is traced, so that a mark takes steps.
type Buffer<'gc> = GcMutex<(Vec<u8>, Option<Gc<'gc, Leaf<u8>>>)>;
type Family = GcMutex<Vec<Gc<'static, Buffer<'static>>>>;

/// Bytes of the root's vector, which has room for all pointers from the beginning.
const ROOT: u64 = 1000 * 8;
/// Live objects, and as many dead ones between them.
const LIVE: usize = 400;

fn new_heap<R: Branded, M: Mode>(
    config: HeapConfig,
    root: impl for<'gc> FnOnce(&Mutation<'gc, M>) -> R::At<'gc>,
) -> RawHeap<R, M>
where
    for<'gc> R::At<'gc>: crate::Payload<M>,
{
    let pool = Pool::new(PoolConfig::default(), None);
    let config = HeapConfig { pacing: Pacing::Manual, zeal: false, ..config };
    RawHeap::new(Client::new(&pool), config, root)
}

fn buffer<'gc>(bytes: usize) -> Buffer<'gc> {
    GcMutex::new((Vec::with_capacity(bytes), None))
}

type Root<'gc> = GcMutex<Vec<Gc<'gc, Buffer<'gc>>>>;

fn fill<'gc, M: Mode>(mc: &Mutation<'gc, M>, root: &Root<'gc>)
where
    Buffer<'gc>: crate::Payload<M>,
{
    for at in 0..2 * LIVE {
        let new = mc.alloc(buffer(100));
        if at % 2 == 0 {
            root.lock(mc).push(new);
        }
    }
}

/// What a session in the middle of a cycle does: it allocates, grows, shrinks, and lets go.
fn change<'gc, M: Mode>(mc: &Mutation<'gc, M>, root: &Root<'gc>) -> u64
where
    Buffer<'gc>: crate::Payload<M>,
{
    let mut all = root.lock(mc);
    for at in 0..10 {
        all.push(mc.alloc(buffer(1000)));
        mc.alloc(buffer(7));
        all[at].lock(mc).0.reserve_exact(500);
        all[LIVE - 10 + at].lock(mc).0.shrink_to(0);
        all.swap_remove(100);
    }
    all.iter().map(|buffer| buffer.lock(mc).0.capacity() as u64).sum()
}

/// Sees what a cycle of which sessions came between finds, and what the next one does.
fn check(steps: usize, first: GcReport, known: u64, second: GcReport, live: u64) {
    // Both have seen all that lives. The first one may have come before the changes.
    let most = (LIVE * 100) as u64 + 10 * (1000 + 7 + 400) + ROOT;
    assert!((live + ROOT - 16_000..=most).contains(&first.external_bytes), "{steps}: {first:?}");
    assert!(known >= live + ROOT - 16_000, "{steps}: {known} known of {live}");
    assert_eq!(second.external_bytes, live + ROOT, "{steps}: {second:?}");
}

#[test]
fn a_sweep_counts_anew_whatever_sessions_do_in_each_phase_of_a_local_heap() {
    let mut phases = Vec::new();
    for steps in 0..40 {
        let mut heap: RawHeap<Family> =
            new_heap(HeapConfig::default(), |_| GcMutex::new(Vec::with_capacity(1000)));
        heap.mutate(|mc, root| fill(mc, root));
        let all = (2 * LIVE * 100) as u64 + ROOT;
        assert_eq!(heap.stats().external_bytes, all);
        let mut ended = None;
        for _ in 0..steps {
            if let Progress::Finished(report) = heap.step(Duration::ZERO) {
                ended = Some(report);
                break;
            }
        }
        phases.push(heap.core.phase().get());
        let before = heap.stats().external_bytes;
        let live = heap.mutate(|mc, root| change(mc, root));
        let change = 10 * (1000 + 7 + 400 - 100);
        assert_eq!(heap.stats().external_bytes, before + change);
        let first = ended.unwrap_or_else(|| {
            loop {
                if let Progress::Finished(report) = heap.step(Duration::ZERO) {
                    break report;
                }
            }
        });
        let known = heap.stats().external_bytes;
        let second = heap.collect();
        assert_eq!(heap.stats().external_bytes, live + ROOT);
        assert_eq!(second.swept_external_bytes, known.saturating_sub(live + ROOT));
        check(steps, first, known, second, live);
    }
    for phase in [Phase::Idle, Phase::Marking, Phase::Sweeping] {
        assert!(phases.contains(&phase), "{phase:?} of {phases:?}");
    }
}

#[test]
fn a_sweep_counts_anew_whatever_sessions_do_in_each_phase_of_a_shared_heap() {
    for steps in 0..12 {
        let config = HeapConfig {
            gc_threads: Some(2),
            spawn_helper: Some(Arc::new(|_, job| thread::Builder::new().spawn(job).map(drop))),
            ..HeapConfig::default()
        };
        let heap: RawHeap<Family, Shared> =
            new_heap(config, |_| GcMutex::new(Vec::with_capacity(1000)));
        let mut mutator = heap.attach().expect("it is the first");
        mutator.mutate(|mc, root| fill(mc, root));
        let mut ended = None;
        for _ in 0..steps {
            if let Progress::Finished(report) = mutator.step(Duration::ZERO) {
                ended = Some(report);
                break;
            }
        }
        let (live, _) = mutator.mutate(|mc, root| change(mc, root));
        let first = ended.unwrap_or_else(|| {
            loop {
                if let Progress::Finished(report) = mutator.step(Duration::ZERO) {
                    break report;
                }
            }
        });
        let known = heap.stats().external_bytes;
        let second = mutator.collect();
        assert_eq!(heap.stats().external_bytes, live + ROOT);
        check(steps, first, known, second, live);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Makes a heap whose work beside sessions the test has done when it likes.
fn heap_with_jobs<R: Branded>(
    root: impl for<'gc> FnOnce(&Mutation<'gc, Shared>) -> R::At<'gc>,
) -> (RawHeap<R, Shared>, Receiver<Job>)
where
    for<'gc> R::At<'gc>: crate::Payload<Shared>,
{
    let (sender, jobs) = channel::<Job>();
    let spawn = move |_, job| {
        sender.send(job).expect("the test is there");
        Ok(())
    };
    let config = HeapConfig {
        gc_threads: Some(2),
        spawn_helper: Some(Arc::new(spawn)),
        ..HeapConfig::default()
    };
    (new_heap(config, root), jobs)
}

/// A lock that a session has while the sweeper comes hides nothing from the cycle.
#[test]
fn what_a_session_has_locked_is_looked_at_when_no_session_is_open() {
    type One = GcMutex<Option<Gc<'static, Buffer<'static>>>>;
    let (heap, jobs) = heap_with_jobs::<One>(|mc| GcMutex::new(Some(mc.alloc(buffer(1000)))));
    let mut mutator = heap.attach().expect("it is the first");
    while heap.core.phase().get() != Phase::Sweeping {
        assert!(!mutator.step(Duration::ZERO).is_finished(), "the sweep is lent");
    }
    mutator.mutate(|mc, root| {
        let object = root.lock(mc).expect("it is there");
        let mut guard = object.lock(mc);
        // The last one has work. Those before it come too late.
        let jobs: Vec<Job> = jobs.try_iter().collect();
        thread::spawn(move || jobs.into_iter().for_each(|job| job())).join().expect("it ends");
        guard.0.reserve_exact(2000);
    });
    let report = loop {
        if let Progress::Finished(report) = mutator.step(Duration::ZERO) {
            break report;
        }
    };
    assert_eq!(report.external_bytes, 2000);
}

/// What a sweeper has to wait in.
struct Slow(Arc<AtomicU8>, #[expect(dead_code, reason = "it has drop glue")] Box<u8>);

/// The sweeper is in the lock; the session is about to try it.
const LOCKED: u8 = 1;
const TRIES: u8 = 2;

// SAFETY: it holds no pointer.
unsafe impl<'gc> Trace<'gc> for Slow {
    type Family = Slow;
    const NEEDS_TRACE: bool = false;

    fn trace(&self, _: &mut Tracer<'_>) {}

    fn external_bytes(&self) -> usize {
        if crate::memory::look::is_by_sweep() {
            self.0.store(LOCKED, SeqCst);
            while self.0.load(SeqCst) != TRIES {
                thread::yield_now();
            }
            (0..1000).for_each(|_| thread::yield_now());
        }
        0
    }
}

// SAFETY: no brand occurs in it.
unsafe impl Branded for Slow {
    type At<'gc> = Slow;
}

/// A sweeper's look is no lock that a session could see.
#[test]
fn a_try_lock_does_not_fail_because_of_a_sweeper() {
    type One = GcMutex<Option<Gc<'static, GcMutex<Slow>>>>;
    let state = Arc::new(AtomicU8::new(0));
    let slow = Slow(state.clone(), Box::new(0));
    let (heap, jobs) = heap_with_jobs::<One>(|mc| GcMutex::new(Some(mc.alloc(GcMutex::new(slow)))));
    let mut mutator = heap.attach().expect("it is the first");
    while heap.core.phase().get() != Phase::Sweeping {
        assert!(!mutator.step(Duration::ZERO).is_finished(), "the sweep is lent");
    }
    mutator.mutate(|mc, root| {
        let object = root.lock(mc).expect("it is there");
        let jobs: Vec<Job> = jobs.try_iter().collect();
        let sweeper = thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        while state.load(SeqCst) != LOCKED {
            thread::yield_now();
        }
        state.store(TRIES, SeqCst);
        assert!(object.try_lock(mc).is_some(), "no session has it locked");
        sweeper.join().expect("it ends");
    });
}

/// Objects without drop glue are not asked.
#[test]
fn plain_objects_are_not_looked_at() {
    struct Plain;
    // SAFETY: it holds no pointer.
    unsafe impl<'gc> Trace<'gc> for Plain {
        type Family = Plain;
        const NEEDS_TRACE: bool = false;

        fn trace(&self, _: &mut Tracer<'_>) {}

        fn external_bytes(&self) -> usize {
            panic!("a plain object was asked");
        }
    }
    // SAFETY: no brand occurs in it.
    unsafe impl Branded for Plain {
        type At<'gc> = Plain;
    }
    type Plains = GcMutex<Vec<Gc<'static, GcMutex<Plain>>>>;
    let mut heap: RawHeap<Plains, Local> = new_heap(HeapConfig::default(), |_| GcMutex::default());
    heap.mutate(|mc, root| {
        let object = mc.alloc(GcMutex::new(Plain));
        root.lock(mc).push(object);
        drop(object.lock(mc));
        mc.alloc(Leaf::new(0_u8));
    });
    heap.collect();
}

/// A payload that looks whether its own mutex is locked, whenever it is asked.
struct Watch {
    mutex: Arc<AtomicPtr<GcMutex<Watch>>>,
    asked: Arc<AtomicU8>,
    _dropped: Box<u8>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not held")
    }
}

// SAFETY: it holds no pointer.
unsafe impl<'gc> Trace<'gc> for Watch {
    type Family = Watch;
    const NEEDS_TRACE: bool = false;

    fn trace(&self, _: &mut Tracer<'_>) {}

    fn external_bytes(&self) -> usize {
        // SAFETY: it is null, or a mutex that lives as long as its content.
        if let Some(mutex) = unsafe { self.mutex.load(SeqCst).as_ref() } {
            assert_eq!(format!("{mutex:?}"), "GcMutex(<locked>)");
            self.asked.fetch_add(1, SeqCst);
        }
        0
    }
}

// SAFETY: no brand occurs in it.
unsafe impl Branded for Watch {
    type At<'gc> = Watch;
}

/// Another thread could have it otherwise. Also if the function panics that gives a part.
#[test]
fn a_guard_asks_its_value_while_it_has_the_lock() {
    let mut heap: RawHeap<(), Local> = new_heap(HeapConfig::default(), |_| ());
    let place = Arc::new(AtomicPtr::new(std::ptr::null_mut()));
    let asked = Arc::new(AtomicU8::new(0));
    let watch = Watch { mutex: place.clone(), asked: asked.clone(), _dropped: Box::new(0) };
    heap.mutate(|mc, ()| {
        let mutex = GcMutex::new(watch);
        place.store((&raw const mutex).cast_mut(), SeqCst);
        drop(mutex.lock(mc));
        assert_eq!(asked.load(SeqCst), 2, "at the beginning, and at the end");
        drop(GcMutexGuard::map(mutex.lock(mc), |watch| &mut watch.asked));
        assert_eq!(asked.load(SeqCst), 4);
        let whole = GcMutexGuard::filter_map(mutex.lock(mc), |_| None::<&mut u8>);
        drop(whole.expect_err("there is no such part"));
        assert_eq!(asked.load(SeqCst), 6);
        let panics =
            || GcMutexGuard::map(mutex.lock(mc), |_| -> &mut u8 { resume_unwind(Box::new(0)) });
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(asked.load(SeqCst), 7, "not while `f` may have it borrowed");
        let panics = || {
            GcMutexGuard::filter_map(mutex.lock(mc), |_| -> Option<&mut u8> {
                resume_unwind(Box::new(0))
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(asked.load(SeqCst), 8);
        place.store(std::ptr::null_mut(), SeqCst);
    });
}
