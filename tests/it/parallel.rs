//! Marking by several threads finds what one thread finds, and a panic on any of them ends the
//! cycle and nothing else.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::thread::{ThreadId, current};
use std::time::Duration;

use sexton::{Branded, Gc, GcCell, GcRefCell, Heap, Pacing, Trace, Tracer};

/// More than wait before a marker calls for help.
const WIDE: usize = 100_000;

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<[Option<Gc<'gc, Node<'gc>>>; 2]>,
    number: usize,
}

#[derive(Trace, Default)]
struct World<'gc> {
    roots: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
}

/// A graph of `count` nodes with two random links each, of which every tenth node is a root.
fn random_graph(seed: u64, count: usize, threads: usize) -> Heap<World<'static>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut heap: Heap<World<'static>> =
        Heap::builder().pacing(Pacing::Manual).gc_threads(threads).build(|_| World::default());
    heap.mutate(|mc, world| {
        let nodes: Vec<_> = (0..count)
            .map(|number| mc.alloc(Node { next: GcCell::new([None; 2]), number }))
            .collect();
        for node in &nodes {
            // Some lead nowhere, so that not everything is reached.
            let links = [(); 2].map(|()| rng.bool().then(|| nodes[rng.usize(..count)]));
            node.next.set(mc, links);
        }
        *world.roots.borrow_mut(mc) = nodes.iter().copied().step_by(10).collect();
    });
    heap
}

/// The numbers of the nodes that are reached, each once.
fn reached(heap: &mut Heap<World<'static>>) -> HashSet<usize> {
    heap.mutate(|_, world| {
        let mut seen = HashSet::new();
        let mut work = world.roots.borrow().clone();
        while let Some(node) = work.pop() {
            if seen.insert(node.number) {
                work.extend(node.next.get().into_iter().flatten());
            }
        }
        seen
    })
}

#[test]
fn several_markers_find_what_one_finds() {
    for seed in 0..4 {
        let mut alone = random_graph(seed, 4 * WIDE, 1);
        let expected = reached(&mut alone).len() as u64;
        assert!((u64::try_from(WIDE).unwrap()..4 * WIDE as u64).contains(&expected));
        assert_eq!(alone.collect().live_objects, expected);
        let mut shared = random_graph(seed, 4 * WIDE, 4);
        for _ in 0..3 {
            assert_eq!(shared.collect().live_objects, expected, "seed {seed}");
        }
        assert_eq!(reached(&mut shared).len() as u64, expected, "seed {seed}");
        shared.verify().unwrap();
    }
}

/// The threads that have come somewhere.
struct Visitors {
    threads: Mutex<Vec<ThreadId>>,
    came: Condvar,
}

impl Visitors {
    const fn none() -> Self {
        Visitors { threads: Mutex::new(Vec::new()), came: Condvar::new() }
    }

    /// Lets this thread in, and waits until `count` have come, or for `patience`.
    fn meet(&self, count: usize, patience: Duration) {
        let mut threads = self.threads.lock().unwrap();
        if !threads.contains(&current().id()) {
            threads.push(current().id());
            self.came.notify_all();
        }
        drop(self.came.wait_timeout_while(threads, patience, |threads| threads.len() < count));
    }

    fn count(&self) -> usize {
        self.threads.lock().unwrap().len()
    }

    fn forget(&self) {
        self.threads.lock().unwrap().clear();
    }
}

/// Longer than threads need that come at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who has traced a [`Meeting`].
static MET: Visitors = Visitors::none();

/// If set, who may trace one without a panic.
static SPARED: Mutex<Option<ThreadId>> = Mutex::new(None);

/// An object whose trace glue waits until two threads have come to one.
struct Meeting;

#[expect(unsafe_code, reason = "only a hand-written Trace can wait and panic")]
// SAFETY: it owns no pointer; it has no drop glue; it claims to need tracing, so that it is traced.
unsafe impl<'gc> Trace<'gc> for Meeting {
    type Family = Meeting;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, _: &mut Tracer<'_>) {
        MET.meet(2, PATIENCE);
        let spared = *SPARED.lock().unwrap();
        assert!(spared.is_none_or(|spared| spared == current().id()), "a helper was told to panic");
    }
}

#[expect(unsafe_code, reason = "goes with Trace")]
// SAFETY: no brand occurs in it.
unsafe impl Branded for Meeting {
    type At<'gc> = Meeting;
}

#[derive(Trace, Default)]
struct Meetings<'gc> {
    all: GcRefCell<Vec<Gc<'gc, Meeting>>>,
}

#[test]
fn others_help_with_a_wide_graph_and_a_panic_of_theirs_ends_the_cycle_only() {
    let mut heap: Heap<Meetings<'static>> = Heap::builder()
        .pacing(Pacing::Manual)
        .zeal(false)
        .gc_threads(2)
        .build(|_| Meetings::default());
    heap.mutate(|mc, meetings| {
        let mut all = meetings.all.borrow_mut(mc);
        (0..WIDE).for_each(|_| all.push(mc.alloc(Meeting)));
    });
    assert_eq!(heap.collect().live_objects, WIDE as u64);
    assert_eq!(MET.count(), 2, "who has marked");

    MET.forget();
    *SPARED.lock().unwrap() = Some(current().id());
    let thrown = catch_unwind(AssertUnwindSafe(|| heap.collect())).unwrap_err();
    assert_eq!(thrown.downcast_ref::<&str>(), Some(&"a helper was told to panic"));

    MET.forget();
    *SPARED.lock().unwrap() = None;
    assert_eq!(heap.collect().live_objects, WIDE as u64);
    heap.verify().unwrap();
}

/// What a [`Trap`] throws.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Who has come to a [`Trap`].
static TRAPPED: Visitors = Visitors::none();

/// An object whose trace glue panics, on all of three threads at once.
struct Trap;

#[expect(unsafe_code, reason = "only a hand-written Trace can wait and panic")]
// SAFETY: as for `Meeting`.
unsafe impl<'gc> Trace<'gc> for Trap {
    type Family = Trap;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, _: &mut Tracer<'_>) {
        TRAPPED.meet(3, PATIENCE);
        panic_any(PanicsWhenDropped);
    }
}

#[expect(unsafe_code, reason = "goes with Trace")]
// SAFETY: no brand occurs in it.
unsafe impl Branded for Trap {
    type At<'gc> = Trap;
}

#[derive(Trace, Default)]
struct Traps<'gc> {
    all: GcRefCell<Vec<Gc<'gc, Trap>>>,
}

#[test]
fn when_all_markers_panic_one_panic_comes_through_and_the_others_are_dropped_quietly() {
    let mut heap: Heap<Traps<'static>> = Heap::builder()
        .pacing(Pacing::Manual)
        .zeal(false)
        .gc_threads(3)
        .build(|_| Traps::default());
    heap.mutate(|mc, traps| {
        let mut all = traps.all.borrow_mut(mc);
        (0..WIDE).for_each(|_| all.push(mc.alloc(Trap)));
    });
    let thrown = catch_unwind(AssertUnwindSafe(|| heap.collect())).unwrap_err();
    assert_eq!(TRAPPED.count(), 3, "who has marked");
    std::mem::forget(thrown.downcast::<PanicsWhenDropped>().expect("what the glue has thrown"));
}

/// Who asks for as many threads as there may be gets as many as there is work for.
#[test]
fn no_more_threads_are_started_than_have_something_to_do() {
    let mut heap: Heap<World<'static>> =
        Heap::builder().pacing(Pacing::Manual).gc_threads(usize::MAX).build(|_| World::default());
    heap.mutate(|mc, world| {
        let mut roots = world.roots.borrow_mut(mc);
        let none = || Node { next: GcCell::new([None; 2]), number: 0 };
        (0..WIDE / 2).for_each(|_| roots.push(mc.alloc(none())));
    });
    assert_eq!(heap.collect().live_objects, WIDE as u64 / 2);
}

/// How often each [`Counted`] has been traced.
static TRACED: [AtomicUsize; 4 * WIDE] = [const { AtomicUsize::new(0) }; 4 * WIDE];

/// Who has traced one of them.
static TRACERS: Visitors = Visitors::none();

/// An object that counts how often it is traced. As long as one thread alone traces such objects,
/// it takes its time, so that the others find nothing else to do.
struct Counted(usize);

#[expect(unsafe_code, reason = "only a hand-written Trace can count and wait")]
// SAFETY: it owns no pointer; it has no drop glue; it claims to need tracing, so that it is traced.
unsafe impl<'gc> Trace<'gc> for Counted {
    type Family = Counted;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, _: &mut Tracer<'_>) {
        TRACED[self.0].fetch_add(1, Relaxed);
        TRACERS.meet(2, Duration::from_millis(1));
    }
}

#[expect(unsafe_code, reason = "goes with Trace")]
// SAFETY: no brand occurs in it.
unsafe impl Branded for Counted {
    type At<'gc> = Counted;
}

#[derive(Trace, Default)]
struct Hub<'gc> {
    all: GcRefCell<Vec<Gc<'gc, Counted>>>,
}

#[derive(Trace, Default)]
struct Around<'gc> {
    hub: GcCell<Option<Gc<'gc, Hub<'gc>>>>,
    others: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
}

/// All that waits is behind one object, which one of the markers traces.
#[test]
fn a_member_gives_of_what_it_has_too_much_of_and_each_object_is_traced_once() {
    let mut heap: Heap<Around<'static>> = Heap::builder()
        .pacing(Pacing::Manual)
        .zeal(false)
        .gc_threads(2)
        .build(|_| Around::default());
    heap.mutate(|mc, around| {
        let hub = mc.alloc(Hub::default());
        hub.all.borrow_mut(mc).extend((0..TRACED.len()).map(|number| mc.alloc(Counted(number))));
        around.hub.set(mc, Some(hub));
        let node = |number| mc.alloc(Node { next: GcCell::new([None; 2]), number });
        around.others.borrow_mut(mc).extend((0..WIDE).map(node));
    });
    let report = heap.collect();
    assert_eq!(report.live_objects, (1 + TRACED.len() + WIDE) as u64);
    assert_eq!(TRACERS.count(), 2, "who has traced");
    assert_eq!(TRACED.iter().position(|count| count.load(Relaxed) != 1), None);
}

#[test]
fn a_list_needs_no_help() {
    let mut heap: Heap<World<'static>> =
        Heap::builder().pacing(Pacing::Manual).gc_threads(4).build(|_| World::default());
    heap.mutate(|mc, world| {
        let mut last = None;
        for number in 0..WIDE {
            last = Some(mc.alloc(Node { next: GcCell::new([last, None]), number }));
        }
        world.roots.borrow_mut(mc).extend(last);
    });
    assert_eq!(heap.collect().live_objects, WIDE as u64);
}
