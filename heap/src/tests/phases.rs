//! Cycles in slices that stand still in each phase, and what may come between: a panic in trace
//! glue, the end of the heap, a whole cycle, a limit, sessions of all kinds.

use std::any::Any;
use std::collections::HashSet;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use sexton_cleanup::{Client, Pool, PoolConfig};

use crate::collect::heap::RawHeap;
use crate::collect::mutator::RawMutator;
use crate::memory::phase::Phase;
use crate::memory::span::SpanRef;
use crate::object::trace::{Branded, Trace, Tracer};
use crate::policy::config::{HeapConfig, OnDrop, SpawnHelper};
use crate::policy::pacer::Pacing;
use crate::policy::report::{GcReport, Progress};
use crate::{
    Gc, GcAtomic, GcCell, GcMutex, GcRefCell, GcRwLock, Leaf, Local, Mode, Mutation, Root, Shared,
    Weak,
};

/// Trace glue that panics once when it is set off.
#[derive(Clone, Default)]
struct Bomb(Arc<AtomicBool>);

/// What it throws.
struct Boom;

impl Bomb {
    fn arm(&self) {
        self.0.store(true, SeqCst);
    }

    fn is_armed(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// Pointers whose trace glue is a bomb.
struct Links<'gc> {
    nodes: Vec<Gc<'gc, Node<'gc>>>,
    bomb: Bomb,
}

struct Node<'gc> {
    id: usize,
    next: GcAtomic<'gc, Node<'gc>>,
    links: GcMutex<Links<'gc>>,
    /// So that there are many spans.
    _room: [u64; 24],
    _dropped: Dropped,
}

struct World<'gc> {
    links: GcMutex<Links<'gc>>,
    weaks: GcMutex<Vec<Weak<'gc, Node<'gc>>>>,
}

// SAFETY: all pointers are reported; nothing implements `Drop` that reads one; the family is the
// type with its brand open.
unsafe impl<'gc> Trace<'gc> for Links<'gc> {
    type Family = Links<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        if self.bomb.0.swap(false, SeqCst) {
            resume_unwind(Box::new(Boom));
        }
        self.nodes.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for Links<'static> {
    type At<'gc> = Links<'gc>;
}

// SAFETY: as above.
unsafe impl<'gc> Trace<'gc> for Node<'gc> {
    type Family = Node<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.next.trace(tracer);
        self.links.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for Node<'static> {
    type At<'gc> = Node<'gc>;
}

// SAFETY: as above.
unsafe impl<'gc> Trace<'gc> for World<'gc> {
    type Family = World<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.links.trace(tracer);
        self.weaks.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for World<'static> {
    type At<'gc> = World<'gc>;
}

/// How often something has happened to each node.
#[derive(Clone)]
struct Counts(Arc<Vec<AtomicUsize>>);

/// More nodes than any test makes.
const MOST: usize = 100_000;

impl Counts {
    fn new() -> Self {
        Counts(Arc::new((0..MOST).map(|_| AtomicUsize::new(0)).collect()))
    }

    fn of(&self, id: usize) -> usize {
        self.0[id].load(SeqCst)
    }

    fn add(&self, id: usize) {
        self.0[id].fetch_add(1, SeqCst);
    }
}

struct Dropped(Arc<Stagehand>, usize);

/// What drop glue does.
struct Stagehand {
    drops: Counts,
    /// Threads that have dropped something.
    droppers: Mutex<HashSet<ThreadId>>,
    /// Drops to come that panic.
    drop_panics: AtomicUsize,
    /// What the next drop does first.
    at_drop: Mutex<Option<Job>>,
}

impl Stagehand {
    fn new() -> Arc<Self> {
        Arc::new(Stagehand {
            drops: Counts::new(),
            droppers: Mutex::default(),
            drop_panics: AtomicUsize::new(0),
            at_drop: Mutex::default(),
        })
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let Dropped(hand, id) = self;
        hand.drops.add(*id);
        hand.droppers.lock().unwrap().insert(thread::current().id());
        let first = hand.at_drop.lock().unwrap().take();
        first.into_iter().for_each(|first| first());
        if hand.drop_panics.try_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            resume_unwind(Box::new(Boom));
        }
    }
}

/// What a test shares with its heap.
struct Stage {
    pool: Arc<Pool>,
    bomb: Bomb,
    hand: Arc<Stagehand>,
    cleaned: Counts,
    made: AtomicUsize,
}

impl Deref for Stage {
    type Target = Stagehand;

    fn deref(&self) -> &Stagehand {
        &self.hand
    }
}

impl Stage {
    fn new() -> Self {
        Stage {
            pool: Pool::new(PoolConfig::default(), None),
            bomb: Bomb::default(),
            hand: Stagehand::new(),
            cleaned: Counts::new(),
            made: AtomicUsize::new(0),
        }
    }

    fn links<'gc>(&self) -> GcMutex<Links<'gc>> {
        GcMutex::new(Links { nodes: Vec::new(), bomb: self.bomb.clone() })
    }

    fn node<'gc>(&self, next: Option<Gc<'gc, Node<'gc>>>) -> Node<'gc> {
        let id = self.made.fetch_add(1, SeqCst);
        Node {
            id,
            next: GcAtomic::new(next),
            links: self.links(),
            _room: [0; 24],
            _dropped: Dropped(self.hand.clone(), id),
        }
    }

    fn world<'gc>(&self) -> World<'gc> {
        World { links: self.links(), weaks: GcMutex::default() }
    }

    fn cleanup(&self, id: usize) -> impl FnOnce() + Send + 'static {
        let cleaned = self.cleaned.clone();
        move || cleaned.add(id)
    }

    /// Has the next drop tell that it has begun, and wait.
    fn gate(&self) -> (Sender<()>, Receiver<()>) {
        let ((open, opened), (come, came)) = (channel(), channel());
        *self.at_drop.lock().unwrap() = Some(Box::new(move || {
            come.send(()).expect("the test waits");
            opened.recv().expect("the test tells");
        }));
        (open, came)
    }

    /// All that was made is gone, once each.
    fn assert_all_dropped(&self) {
        for id in 0..self.made.load(SeqCst) {
            assert_eq!(self.drops.of(id), 1, "node {id}");
        }
    }
}

/// What a program does with a heap of either mode.
trait Play {
    type M: Mode;

    fn heap(&self) -> &RawHeap<World<'static>, Self::M>;
    fn session<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&Mutation<'gc, Self::M>, &'gc World<'gc>) -> T,
    ) -> T;
    fn alloc<'gc>(mc: &Mutation<'gc, Self::M>, node: Node<'gc>) -> Gc<'gc, Node<'gc>>;
    fn step(&mut self) -> Progress;
    fn collect(&mut self) -> GcReport;
    #[track_caller]
    fn verify(&mut self);

    fn phase(&self) -> Phase {
        self.heap().core.phase().get()
    }
}

impl Play for RawHeap<World<'static>> {
    type M = Local;

    fn heap(&self) -> &RawHeap<World<'static>> {
        self
    }

    fn session<T>(&mut self, f: impl for<'gc> FnOnce(&Mutation<'gc>, &'gc World<'gc>) -> T) -> T {
        self.mutate(f)
    }

    fn alloc<'gc>(mc: &Mutation<'gc>, node: Node<'gc>) -> Gc<'gc, Node<'gc>> {
        mc.alloc(node)
    }

    fn step(&mut self) -> Progress {
        RawHeap::step(self, Duration::ZERO)
    }

    fn collect(&mut self) -> GcReport {
        RawHeap::collect(self)
    }

    fn verify(&mut self) {
        RawHeap::verify(self).expect("it is consistent");
    }
}

impl Play for RawMutator<'_, World<'static>> {
    type M = Shared;

    fn heap(&self) -> &RawHeap<World<'static>, Shared> {
        self.heap
    }

    fn session<T>(
        &mut self,
        f: impl for<'gc> FnOnce(&Mutation<'gc, Shared>, &'gc World<'gc>) -> T,
    ) -> T {
        self.mutate(f).0
    }

    fn alloc<'gc>(mc: &Mutation<'gc, Shared>, node: Node<'gc>) -> Gc<'gc, Node<'gc>> {
        mc.alloc(node)
    }

    fn step(&mut self) -> Progress {
        RawMutator::step(self, Duration::ZERO)
    }

    fn collect(&mut self) -> GcReport {
        RawMutator::collect(self)
    }

    fn verify(&mut self) {
        RawMutator::verify(self).expect("it is consistent");
    }
}

fn config() -> HeapConfig {
    HeapConfig { pacing: Pacing::Manual, zeal: false, ..HeapConfig::default() }
}

fn in_local(config: HeapConfig, f: impl FnOnce(&mut RawHeap<World<'static>>, &Stage)) -> Stage {
    let stage = Stage::new();
    let mut heap = RawHeap::new(Client::new(&stage.pool), config, |_| stage.world());
    f(&mut heap, &stage);
    drop(heap);
    stage.assert_all_dropped();
    stage
}

fn in_shared(
    config: HeapConfig,
    f: impl FnOnce(&mut RawMutator<'_, World<'static>>, &Stage),
) -> Stage {
    let stage = Stage::new();
    let heap: RawHeap<World<'static>, Shared> =
        RawHeap::new(Client::new(&stage.pool), config, |_| stage.world());
    let mut mutator = heap.attach().expect("it is the first here");
    f(&mut mutator, &stage);
    drop(mutator);
    drop(heap);
    stage.assert_all_dropped();
    stage
}

/// Runs a body, generic over [`Play`], in both modes.
macro_rules! in_both_modes {
    ($body:expr) => {
        in_both_modes!(config(), $body)
    };
    ($config:expr, $body:expr) => {
        in_local($config, |play, stage| $body(play, stage));
        in_shared($config, |play, stage| $body(play, stage));
    };
}

// After the macro.
mod reports;
mod within;

/// A thread that marks in the background, and is done before the slice that has lent it the marker
/// is.
fn at_once() -> HeapConfig {
    let spawn: SpawnHelper = Arc::new(|_, body| {
        thread::spawn(body).join().expect("it catches what trace glue throws");
        Ok(())
    });
    HeapConfig { spawn_helper: Some(spawn), gc_threads: Some(2), ..config() }
}

/// Nodes that are alive, and as many that are not, side by side.
const NODES: usize = 6000;

/// Makes a list of live nodes, the last one first, with dead ones between. Even ids live. Each has
/// a cleanup. There is one weak record, which is dead.
fn fill<P: Play>(play: &mut P, stage: &Stage) {
    play.session(|mc, world| {
        let mut last = None;
        for _ in 0..NODES {
            let node = P::alloc(mc, stage.node(last));
            let dead = P::alloc(mc, stage.node(Some(node)));
            for node in [node, dead] {
                mc.add_cleanup(node, stage.cleanup(node.id));
            }
            last = Some(node);
        }
        // A heap that has no weak records is not cleared.
        last.into_iter().for_each(|last| _ = mc.downgrade(last));
        world.links.lock(mc).nodes.extend(last);
    });
}

/// The node at which a list ends that begins in the world.
fn last_of<'gc, M: Mode>(mc: &Mutation<'gc, M>, world: &World<'gc>) -> Gc<'gc, Node<'gc>> {
    let mut last = world.links.lock(mc).nodes[0];
    while let Some(next) = last.next.load() {
        last = next;
    }
    last
}

/// The ids of the list, which ends where it is to end.
fn list<P: Play>(play: &mut P, stage: &Stage) -> Vec<usize> {
    play.session(|mc, world| {
        let first = world.links.lock(mc).nodes.first().copied();
        let nodes = std::iter::successors(first, |node| node.next.load());
        let ids: Vec<usize> = nodes.map(|node| node.id).collect();
        assert!(ids.iter().all(|&id| stage.drops.of(id) == 0), "a reachable node was dropped");
        ids
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Marking,
    Clearing,
    Sweeping,
    /// The sweep of a mark that was given up.
    GivenUp,
}

const MOMENTS: [Moment; 4] = [Moment::Marking, Moment::Clearing, Moment::Sweeping, Moment::GivenUp];

/// Catches what the bomb throws.
#[track_caller]
fn boom<T>(f: impl FnOnce() -> T) {
    let thrown: Box<dyn Any + Send> = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it was to throw what trace glue has thrown"),
        Err(thrown) => thrown,
    };
    assert!(thrown.is::<Boom>(), "{:?}", thrown.downcast_ref::<&str>());
}

/// Begins a cycle, and stops in the middle of a phase.
#[track_caller]
fn stand<P: Play>(play: &mut P, stage: &Stage, moment: Moment) {
    assert_eq!(play.phase(), Phase::Idle);
    assert!(!play.step().is_finished());
    assert_eq!(play.phase(), Phase::Marking);
    let phase = match moment {
        Moment::Marking => Phase::Marking,
        Moment::Clearing => Phase::Clearing,
        Moment::Sweeping => Phase::Sweeping,
        Moment::GivenUp => {
            stage.bomb.arm();
            boom(|| play.step());
            Phase::Sweeping
        }
    };
    while play.phase() != phase {
        assert!(!play.step().is_finished());
    }
    assert!(!play.step().is_finished());
    assert_eq!(play.phase(), phase, "in the middle of it");
}

/// Ends a cycle.
fn finish<P: Play>(play: &mut P) -> GcReport {
    loop {
        if let Progress::Finished(report) = play.step() {
            return report;
        }
    }
}

/// The heap is in order, and a whole cycle leaves what is reachable, and nothing else.
fn assert_in_order<P: Play>(play: &mut P, stage: &Stage) {
    play.verify();
    let alive = list(play, stage);
    let report = play.collect();
    play.verify();
    assert_eq!(list(play, stage), alive);
    assert_eq!(report.live_objects, alive.len() as u64);
    let dropped = (0..stage.made.load(SeqCst)).filter(|&id| stage.drops.of(id) == 1).count();
    assert_eq!(dropped, stage.made.load(SeqCst) - alive.len());
}

#[test]
fn a_panic_of_trace_glue_in_a_slice_gives_the_mark_up() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        for moment in [Moment::GivenUp, Moment::Marking] {
            stand(play, stage, moment);
            play.verify();
            assert_eq!(list(play, stage).len(), NODES);
            let dropped = (0..stage.made.load(SeqCst)).any(|id| stage.drops.of(id) > 0);
            assert!(!dropped, "nothing dies of a mark that was given up");
            if moment == Moment::GivenUp {
                while play.phase() != Phase::Idle {
                    assert!(!play.step().is_finished(), "it ends without a report");
                    play.verify();
                }
            }
        }
        assert_in_order(play, stage);
    }
    in_both_modes!(body);
}

#[test]
fn a_panic_of_the_roots_trace_glue_gives_the_mark_up() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        for whole in [false, true] {
            stage.bomb.arm();
            if whole {
                boom(|| play.collect());
            } else {
                boom(|| play.step());
            }
            // A whole cycle that fails leaves nothing behind.
            assert_eq!(play.phase(), if whole { Phase::Idle } else { Phase::Sweeping });
            play.verify();
            assert_eq!(list(play, stage).len(), NODES);
            while play.phase() != Phase::Idle {
                assert!(!play.step().is_finished());
            }
        }
        assert_in_order(play, stage);
    }
    in_both_modes!(body);
}

/// The write goes on, and so does the session.
#[test]
fn a_panic_of_trace_glue_in_a_barrier_comes_out_of_the_next_step_or_collection() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        for (verifies, whole) in [(false, false), (true, false), (false, true), (true, true)] {
            stand(play, stage, Moment::Marking);
            stage.bomb.arm();
            let new = play.session(|mc, world| {
                // Older than the cycle, and not traced before the others.
                let last = last_of(mc, world);
                let mut links = last.links.lock(mc);
                assert!(!stage.bomb.is_armed(), "the barrier has looked at the content");
                let new = P::alloc(mc, stage.node(None));
                links.nodes.push(new);
                new.id
            });
            if verifies {
                play.verify();
            }
            if whole {
                boom(|| play.collect());
            } else {
                boom(|| play.step());
            }
            play.verify();
            play.session(|mc, world| {
                let last = last_of(mc, world);
                let links = last.links.lock(mc);
                assert_eq!(links.nodes.last().map(|node| node.id), Some(new));
            });
            assert_eq!(stage.drops.of(new), 0);
            while play.phase() != Phase::Idle {
                assert!(!play.step().is_finished());
            }
        }
        let report = play.collect();
        play.verify();
        assert_eq!(report.live_objects, NODES as u64 + 4);
    }
    in_both_modes!(body);
}

/// Allocation goes on after the panic, and so does the session.
#[test]
fn a_panic_of_trace_glue_within_an_allocation_comes_out_at_the_sessions_end() {
    let min_bytes = 1 << 10;
    let pacing = Pacing::Automatic { min_bytes, growth: 0.0 };
    in_local(HeapConfig { pacing, ..config() }, |heap, stage| {
        fill(heap, stage);
        assert!(!heap.step(Duration::ZERO).is_finished());
        stage.bomb.arm();
        heap.mutate(|mc, _| {
            for number in 0..100_000_u64 {
                mc.alloc(Leaf::new(number));
            }
            assert!(!stage.bomb.is_armed(), "a slice has run within the session");
        });
        assert_eq!(heap.phase(), Phase::Sweeping);
        Play::verify(heap);
        boom(|| heap.collect_if_due());
        assert_in_order(heap, stage);
    });
}

#[test]
fn a_panic_of_trace_glue_in_the_background_comes_out_of_the_next_step_or_collection() {
    in_shared(at_once(), |play, stage| {
        fill(play, stage);
        for (verifies, whole) in [(false, false), (true, false), (false, true), (true, true)] {
            // The slice that begins the mark does not come as far.
            let bomb = Bomb::default();
            play.session(|mc, world| last_of(mc, world).links.lock(mc).bomb = bomb.clone());
            bomb.arm();
            assert!(!Play::step(play).is_finished());
            assert!(!bomb.is_armed());
            if verifies {
                Play::verify(play);
            }
            if whole {
                boom(|| Play::collect(play));
            } else {
                boom(|| Play::step(play));
            }
            while play.phase() != Phase::Idle {
                assert!(!Play::step(play).is_finished());
                Play::verify(play);
            }
        }
        assert_in_order(play, stage);
    });
}

#[test]
fn a_heap_dropped_in_the_middle_of_a_cycle_drops_each_object_once() {
    fn body<P: Play>(play: &mut P, stage: &Stage, moment: Moment) {
        fill(play, stage);
        stand(play, stage, moment);
    }
    for moment in MOMENTS {
        for on_drop in [OnDrop::RunAll, OnDrop::RunQueued, OnDrop::Discard] {
            let config = || HeapConfig { on_drop, ..config() };
            let queued = AtomicUsize::new(0);
            let local = in_local(config(), |play, stage| {
                body(play, stage, moment);
                queued.store(play.client().stats().queued as usize, SeqCst);
            });
            let local_queued = queued.load(SeqCst);
            let shared = in_shared(config(), |play, stage| {
                body(play, stage, moment);
                queued.store(play.heap().client().stats().queued as usize, SeqCst);
            });
            for (stage, queued) in [(local, local_queued), (shared, queued.load(SeqCst))] {
                while stage.pool.run_pending(usize::MAX) > 0 {}
                let ran: usize = (0..MOST).map(|id| stage.cleaned.of(id)).sum();
                let expected = match on_drop {
                    OnDrop::RunAll => 2 * NODES,
                    OnDrop::RunQueued => queued,
                    OnDrop::Discard => 0,
                };
                assert_eq!(ran, expected, "{moment:?}, {on_drop:?}");
                assert_eq!(queued > 0, moment == Moment::Sweeping);
                assert!((0..MOST).all(|id| stage.cleaned.of(id) <= 1), "a cleanup ran twice");
                assert_eq!(Arc::strong_count(&stage.cleaned.0), 1, "captures are left");
            }
        }
    }
}

/// The root's long `Vec` is traced piece by piece, by a thread.
#[test]
fn a_heap_dropped_while_a_thread_marks_does_not_take_the_root_from_it() {
    type Long = Vec<Gc<'static, Leaf<u64>>>;
    for _ in 0..5 {
        let marks = Arc::new(AtomicBool::new(false));
        let spawn: SpawnHelper = {
            let marks = marks.clone();
            Arc::new(move |_, body| {
                let marks = marks.clone();
                let marking = move || {
                    marks.store(true, SeqCst);
                    body();
                };
                thread::Builder::new().spawn(marking).map(drop)
            })
        };
        let config = HeapConfig { spawn_helper: Some(spawn), gc_threads: Some(2), ..config() };
        let pool = Pool::new(PoolConfig::default(), None);
        // A vector whose memory goes back to the system, and is not to be read any more.
        let heap: RawHeap<Long, Shared> =
            RawHeap::new(Client::new(&pool), config, |mc| vec![mc.alloc(Leaf::new(7)); 4_000_000]);
        let mut mutator = heap.attach().expect("it is the first here");
        assert!(!mutator.step(Duration::ZERO).is_finished());
        drop(mutator);
        while !marks.load(SeqCst) {
            thread::yield_now();
        }
        drop(heap);
    }
}

#[test]
fn a_whole_cycle_in_the_middle_of_another_sweeps_all_that_is_dead() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        for moment in MOMENTS {
            fill(play, stage);
            stand(play, stage, moment);
            // These die while the cycle is under way: some are older, some are born marked.
            play.session(|mc, world| {
                let nodes = &mut world.links.lock(mc).nodes;
                let born = P::alloc(mc, stage.node(nodes.pop()));
                *nodes = vec![P::alloc(mc, stage.node(None))];
                mc.add_cleanup(born, stage.cleanup(born.id));
            });
            let kept = list(play, stage);
            assert_eq!(kept.len(), 1);
            let before = play.heap().last_report().map_or(0, |report| report.cycle);
            let report = play.collect();
            assert!(report.cycle > before && report.slices == 1, "it is a whole one");
            assert_eq!(report.live_objects, 1);
            let made = stage.made.load(SeqCst);
            for id in 0..made {
                assert_eq!(stage.drops.of(id), usize::from(id != kept[0]), "{moment:?}");
            }
            while stage.pool.run_pending(usize::MAX) > 0 {}
            assert_eq!(play.heap().client().stats().armed, 0);
            play.verify();
        }
    }
    in_both_modes!(body);
}

/// An object that only a `Weak` leads to, and which a session stores.
#[test]
fn weak_pointers_give_what_survives_in_each_phase() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        for moment in MOMENTS {
            fill(play, stage);
            // Behind it is another one, which nothing but the mark of this one keeps.
            let id = play.session(|mc, world| {
                let behind = P::alloc(mc, stage.node(None));
                let node = P::alloc(mc, stage.node(Some(behind)));
                *world.weaks.lock(mc) = vec![mc.downgrade(node)];
                node.id
            });
            stand(play, stage, moment);
            let survives = matches!(moment, Moment::Marking | Moment::GivenUp);
            play.session(|mc, world| {
                let target = world.weaks.lock(mc)[0].upgrade(mc);
                assert_eq!(target.map(|target| target.id), survives.then_some(id), "{moment:?}");
                world.links.lock(mc).nodes.extend(target);
            });
            play.verify();
            finish(play);
            play.verify();
            play.session(|mc, world| {
                let target = world.weaks.lock(mc)[0].upgrade(mc);
                assert_eq!(target.map(|target| target.id), survives.then_some(id));
                let behind = target.and_then(|target| target.next.load());
                assert_eq!(behind.map(|behind| behind.id), survives.then(|| id - 1));
            });
            for id in [id, id - 1] {
                assert_eq!(stage.drops.of(id), usize::from(!survives), "{moment:?}");
            }
            play.session(|mc, world| world.links.lock(mc).nodes.clear());
            play.collect();
        }
    }
    in_both_modes!(body);
}

/// A record that no `Weak` reached when the cycle began, and that `downgrade` finds.
#[test]
fn a_weak_pointer_made_again_within_a_cycle_stays() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        for moment in MOMENTS {
            fill(play, stage);
            play.session(|mc, world| {
                let first = world.links.lock(mc).nodes[0];
                assert!(mc.downgrade(first).upgrade(mc).is_some());
            });
            stand(play, stage, moment);
            play.session(|mc, world| {
                let first = world.links.lock(mc).nodes[0];
                *world.weaks.lock(mc) = vec![mc.downgrade(first)];
            });
            play.verify();
            finish(play);
            play.verify();
            play.session(|mc, world| {
                let first = world.links.lock(mc).nodes[0];
                let weak = world.weaks.lock(mc)[0];
                assert!(weak.upgrade(mc).is_some_and(|target| target.ptr_eq(first)), "{moment:?}");
                assert!(weak.ptr_eq(mc.downgrade(first)), "{moment:?}: two records of one target");
                world.links.lock(mc).nodes.clear();
            });
            play.collect();
            play.session(|mc, world| {
                assert!(world.weaks.lock(mc)[0].upgrade(mc).is_none());
            });
        }
    }
    in_both_modes!(body);
}

/// Roots are dropped, made and fetched before and after the scan comes to them.
#[test]
fn roots_that_come_and_go_during_their_scan_lose_nothing() {
    const ROOTS: usize = 10_000;
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        let mut roots: Vec<Root<Node<'static>>> = play.session(|mc, _| {
            let roots = (0..ROOTS).map(|_| {
                // What is behind it, nothing else keeps.
                let behind = P::alloc(mc, stage.node(None));
                mc.root(P::alloc(mc, stage.node(Some(behind))))
            });
            roots.collect()
        });
        let mut random = fastrand::Rng::with_seed(5);
        let mut kept: Vec<usize> = Vec::new();
        let mut is_over = false;
        while !is_over {
            is_over = play.step().is_finished();
            // Objects move from roots into the world, where the mark has been.
            for _ in 0..50 {
                let root = roots.swap_remove(random.usize(..roots.len()));
                let again = play.session(|mc, world| {
                    let node = mc.fetch(&root);
                    assert_eq!(stage.drops.of(node.id), 0);
                    if random.bool() {
                        world.links.lock(mc).nodes.push(node);
                        kept.push(node.id);
                        None
                    } else {
                        Some(mc.root(node))
                    }
                });
                roots.extend(again);
            }
            if random.u8(..) < 25 {
                play.verify();
            }
        }
        play.verify();
        for id in &kept {
            assert_eq!((stage.drops.of(*id), stage.drops.of(id - 1)), (0, 0), "node {id}");
        }
        assert!(kept.len() > 500, "{} have moved", kept.len());
        drop(roots);
        let report = play.collect();
        assert_eq!(report.live_objects, 2 * kept.len() as u64);
        play.verify();
    }
    in_both_modes!(body);
}

#[test]
fn what_is_born_between_any_two_slices_survives() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        for moment in [Moment::Sweeping, Moment::GivenUp] {
            fill(play, stage);
            let mut born = Vec::new();
            let mut is_over = false;
            while !is_over {
                if moment == Moment::GivenUp && born.len() == 300 {
                    stage.bomb.arm();
                    boom(|| play.step());
                } else {
                    is_over = play.step().is_finished();
                }
                play.session(|mc, world| {
                    // Enough to need a new span now and then.
                    for _ in 0..50 {
                        let node = P::alloc(mc, stage.node(None));
                        world.links.lock(mc).nodes.push(node);
                        born.push(node.id);
                    }
                    // And some of another type, by their records.
                    let node = world.links.lock(mc).nodes.last().copied();
                    world.weaks.lock(mc).extend(node.map(|node| mc.downgrade(node)));
                });
            }
            play.verify();
            assert!(born.iter().all(|&id| stage.drops.of(id) == 0));
            let ids: Vec<usize> = play.session(|mc, world| {
                assert!(world.weaks.lock(mc).iter().all(|weak| weak.upgrade(mc).is_some()));
                world.links.lock(mc).nodes.iter().map(|node| node.id).collect()
            });
            assert_eq!(ids[ids.len() - born.len()..], born);
            play.session(|mc, world| world.weaks.lock(mc).clear());
        }
        assert_eq!(list(play, stage).len(), NODES);
        play.collect();
        play.verify();
    }
    in_both_modes!(body);
}

/// Each write hides a part of the list from the mark, but for the barrier.
#[test]
fn what_a_session_moves_behind_the_mark_survives() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        stand(play, stage, Moment::Marking);
        let (moved, ids) = play.session(|mc, world| {
            let first = world.links.lock(mc).nodes[0];
            let mut nodes = std::iter::successors(Some(first), |node| node.next.load());
            let at = nodes.nth(NODES - 100).expect("it is as long");
            let tail = at.next.swap(mc, None).expect("it is no longer");
            let ids: Vec<usize> = std::iter::successors(Some(tail), |node| node.next.load())
                .map(|node| node.id)
                .collect();
            // Born marked, so the mark does not look into it.
            let carrier = P::alloc(mc, stage.node(Some(tail)));
            let mut links = world.links.lock(mc);
            links.nodes.push(carrier);
            (carrier.id, ids)
        });
        play.verify();
        finish(play);
        play.verify();
        assert!(ids.len() > 90 && ids.iter().all(|&id| stage.drops.of(id) == 0));
        assert_eq!(stage.drops.of(moved), 0);
    }
    in_both_modes!(body);
}

/// A node with the cells of a `Local` heap.
struct Cellar<'gc> {
    cell: GcCell<Option<Gc<'gc, Cellar<'gc>>>>,
    list: GcRefCell<Vec<Gc<'gc, Cellar<'gc>>>>,
    taken: GcRefCell<Vec<Gc<'gc, Cellar<'gc>>>>,
    _dropped: Dropped,
}

// SAFETY: as above.
unsafe impl<'gc> Trace<'gc> for Cellar<'gc> {
    type Family = Cellar<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.cell.trace(tracer);
        self.list.trace(tracer);
        self.taken.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for Cellar<'static> {
    type At<'gc> = Cellar<'gc>;
}

impl<'gc> Cellar<'gc> {
    fn new([cell, list, taken]: [Option<Gc<'gc, Cellar<'gc>>>; 3], dropped: Dropped) -> Self {
        Cellar {
            cell: GcCell::new(cell),
            list: GcRefCell::new(list.into_iter().collect()),
            taken: GcRefCell::new(taken.into_iter().collect()),
            _dropped: dropped,
        }
    }
}

/// As above, for the cells that a `Shared` heap does not take, at each step of the mark.
#[test]
fn what_a_session_takes_out_of_a_cell_survives() {
    type Family = GcRefCell<Vec<Gc<'static, Cellar<'static>>>>;
    const HEADS: usize = 300;
    let (pool, hand, mut made) = (Pool::new(PoolConfig::default(), None), Stagehand::new(), 0);
    let mut heap: RawHeap<Family> =
        RawHeap::new(Client::new(&pool), config(), |_| GcRefCell::default());
    let mut dropped = || {
        made += 1;
        Dropped(hand.clone(), made - 1)
    };
    heap.mutate(|mc, root| {
        for _ in 0..HEADS {
            let middle = [(); 3].map(|()| {
                let end = mc.alloc(Cellar::new([None; 3], dropped()));
                Some(mc.alloc(Cellar::new([Some(end), None, None], dropped())))
            });
            root.borrow_mut(mc).push(mc.alloc(Cellar::new(middle, dropped())));
        }
    });
    let mut heads = 0..HEADS;
    let mut is_over = false;
    while !is_over {
        is_over = heap.step(Duration::ZERO).is_finished();
        heap.mutate(|mc, root| {
            for at in heads.by_ref().take(40) {
                let head = root.borrow()[at];
                let moved = vec![
                    head.cell.take(mc).expect("it was there"),
                    head.list.borrow_mut(mc).pop().expect("it was there"),
                    head.taken.take(mc)[0],
                ];
                // A new one, into which no mark looks.
                let carrier = mc.alloc(Cellar {
                    cell: GcCell::new(None),
                    list: GcRefCell::new(moved),
                    taken: GcRefCell::default(),
                    _dropped: dropped(),
                });
                root.borrow_mut(mc).push(carrier);
            }
        });
        heap.verify().expect("it is consistent");
    }
    assert_eq!(heads.len(), 0, "all were taken apart within the cycle");
    assert!((0..MOST).all(|id| hand.drops.of(id) == 0), "a reachable node was dropped");
}

/// A mark that was given up leaves cells with its stamp, which the next one must not take for its
/// own.
#[test]
fn a_cell_traced_by_a_mark_that_was_given_up_is_traced_again() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        for whole in [false, true] {
            stand(play, stage, Moment::GivenUp);
            if whole {
                play.collect();
            } else {
                finish(play);
            }
            assert_eq!(list(play, stage).len(), NODES);
            // And again without a panic between.
            stand(play, stage, Moment::Marking);
            play.collect();
            stand(play, stage, Moment::Marking);
            play.session(|mc, world| {
                // Its stamp is that of the root's slice.
                let nodes = std::mem::take(&mut world.links.lock(mc).nodes);
                let carrier = P::alloc(mc, stage.node(nodes.first().copied()));
                world.links.lock(mc).nodes.push(carrier);
                carrier.links.lock(mc).nodes = nodes;
            });
            play.verify();
            finish(play);
            play.session(|mc, world| {
                let carrier = world.links.lock(mc).nodes[0];
                world.links.lock(mc).nodes = std::mem::take(&mut carrier.links.lock(mc).nodes);
            });
            assert_eq!(list(play, stage).len(), NODES);
        }
        assert_in_order(play, stage);
    }
    in_both_modes!(body);
}

/// A reader of a lock is within it when the thread comes that marks. So the thread leaves what is
/// in it to the next slice, or to the barrier of the session that writes.
#[test]
fn what_a_session_holds_locked_is_marked_when_the_sessions_are_stopped() {
    // What the thread is to do; it does so within a session.
    type Work = Box<dyn FnOnce() + Send>;
    let work: Arc<std::sync::Mutex<Option<Work>>> = Arc::default();
    let spawn: SpawnHelper = {
        let work = work.clone();
        Arc::new(move |_, body| {
            *work.lock().expect("no panic") = Some(body);
            Ok(())
        })
    };
    let config = HeapConfig { spawn_helper: Some(spawn), gc_threads: Some(2), ..config() };
    in_shared(config, |play, stage| {
        // A chain by their links, so that each is found only behind the one before.
        let ids = play.session(|mc, world| {
            let end = mc.alloc(stage.node(None));
            let middle = mc.alloc(stage.node(None));
            middle.links.lock(mc).nodes.push(end);
            let first = mc.alloc(stage.node(None));
            first.links.lock(mc).nodes.push(middle);
            for _ in 0..1000 {
                let next = world.links.lock(mc).nodes.first().copied();
                world.links.lock(mc).nodes = vec![mc.alloc(stage.node(next))];
            }
            last_of(mc, world).links.lock(mc).nodes.push(first);
            [first.id, middle.id, end.id]
        });
        assert!(!Play::step(play).is_finished());
        play.session(|mc, world| {
            let first = last_of(mc, world).links.lock(mc).nodes[0];
            let held = first.links.try_lock(mc).expect("no other thread has it");
            assert_eq!(held.nodes[0].id, ids[1]);
            let body = work.lock().expect("no panic").take().expect("the marker is on loan");
            thread::spawn(body).join().expect("it has marked");
        });
        Play::verify(play);
        finish(play);
        Play::verify(play);
        assert!(ids.iter().all(|&id| stage.drops.of(id) == 0));
    });
}

/// A lock that was leaked before the cycle is found locked, by the thread that marks and by no
/// barrier.
#[test]
fn what_lies_behind_a_leaked_guard_survives_a_mark_beside_sessions() {
    in_shared(at_once(), |play, stage| {
        fill(play, stage);
        let ids = play.session(|mc, world| {
            let last = last_of(mc, world);
            let behind = mc.alloc(stage.node(None));
            let node = mc.alloc(stage.node(Some(behind)));
            let mut guard = last.links.lock(mc);
            guard.nodes.push(node);
            std::mem::forget(guard);
            [node.id, behind.id]
        });
        for _ in 0..3 {
            finish(play);
            Play::verify(play);
            assert!(ids.iter().all(|&id| stage.drops.of(id) == 0));
        }
    });
}

/// A list whose end is such a lock, within a cell, within another lock.
struct Vault<'gc> {
    next: Option<Gc<'gc, Vault<'gc>>>,
    content: GcMutex<GcRefCell<GcMutex<Option<Gc<'gc, Vault<'gc>>>>>>,
    _dropped: Dropped,
}

// SAFETY: as above.
unsafe impl<'gc> Trace<'gc> for Vault<'gc> {
    type Family = Vault<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.next.trace(tracer);
        self.content.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for Vault<'static> {
    type At<'gc> = Vault<'gc>;
}

/// The thread that marks has the outer lock, and so the cell, and does not get the inner lock. So
/// neither is stamped.
#[test]
fn a_cell_within_a_lock_is_not_stamped_for_a_lock_within_it_that_is_held() {
    type Family = GcMutex<Option<Gc<'static, Vault<'static>>>>;
    const INNERMOST: usize = 0;
    let (pool, hand) = (Pool::new(PoolConfig::default(), None), Stagehand::new());
    let heap: RawHeap<Family, Shared> =
        RawHeap::new(Client::new(&pool), at_once(), |_| GcMutex::default());
    let mut mutator = heap.attach().expect("it is the first here");
    mutator.mutate(|mc, root| {
        let vault = |id, next, content| {
            let content = GcMutex::new(GcRefCell::new(GcMutex::new(content)));
            mc.alloc(Vault { next, content, _dropped: Dropped(hand.clone(), id) })
        };
        let innermost = vault(INNERMOST, None, None);
        let end = vault(1, None, Some(innermost));
        std::mem::forget(end.content.lock(mc).borrow().lock(mc));
        // More than the stop at which the cycle begins traces.
        let last = (2..NODES).fold(end, |last, id| vault(id, Some(last), None));
        *root.lock(mc) = Some(last);
    });
    while !mutator.step(Duration::ZERO).is_finished() {}
    mutator.verify().expect("it is consistent");
    assert_eq!(
        hand.drops.of(INNERMOST),
        0,
        "it is reachable by `get_mut` of the outer lock's content"
    );
    drop(mutator);
}

/// Manual pacing stays manual when a thread has marked.
#[test]
fn a_thread_that_has_marked_makes_nothing_due_if_pacing_is_manual() {
    in_shared(at_once(), |play, stage| {
        fill(play, stage);
        assert!(!Play::step(play).is_finished());
        let ((), due) = play.mutate(|_, _| ());
        assert!(due.is_none(), "nothing is due");
        finish(play);
    });
    // Otherwise it makes the next slice due, and nothing when that has begun.
    let threads: Arc<std::sync::Mutex<Vec<thread::JoinHandle<()>>>> = Arc::default();
    let spawn: SpawnHelper = {
        let threads = threads.clone();
        Arc::new(move |_, body| {
            threads.lock().expect("no panic").push(thread::spawn(body));
            Ok(())
        })
    };
    let pacing = Pacing::Automatic { min_bytes: u64::MAX, growth: 1.0 };
    in_shared(HeapConfig { pacing, spawn_helper: Some(spawn), ..at_once() }, |play, stage| {
        fill(play, stage);
        assert!(!Play::step(play).is_finished());
        while play.mutate(|_, _| ()).1.is_none() {
            thread::yield_now();
        }
        finish(play);
        for thread in threads.lock().expect("no panic").drain(..) {
            thread.join().expect("it catches what trace glue throws");
        }
        let ((), due) = play.mutate(|_, _| ());
        assert!(due.is_none(), "nothing is due after the cycle");
    });
}

/// The marker is lent after each slice that leaves some to mark. Without a thread it comes back,
/// and mutators mark.
#[test]
fn a_heap_that_gets_no_thread_collects_without_and_counts_how_often() {
    let asked = Arc::<AtomicUsize>::default();
    for panics in [false, true] {
        let before = asked.load(SeqCst);
        let spawn: SpawnHelper = {
            let asked = asked.clone();
            Arc::new(move |_, body| {
                asked.fetch_add(1, SeqCst);
                if panics {
                    std::panic::resume_unwind(Box::new("no thread"));
                }
                drop(body);
                Err(std::io::ErrorKind::OutOfMemory.into())
            })
        };
        in_shared(HeapConfig { spawn_helper: Some(spawn), ..at_once() }, |play, stage| {
            fill(play, stage);
            let report = finish(play);
            let asked = asked.load(SeqCst) - before;
            assert!(asked > 1, "it has tried in one of {} slices", report.slices);
            assert_eq!(report.refused_threads, asked as u64);
            assert_eq!(report.background_time, Duration::ZERO);
            assert_eq!(play.heap.stats().fallback_cycles, 1);
            assert_eq!((report.live_objects, report.swept_objects), (NODES as u64, NODES as u64));
            assert_in_order(play, stage);
        });
    }
    in_shared(at_once(), |play, stage| {
        fill(play, stage);
        let report = finish(play);
        let stats = play.heap.stats();
        assert_eq!((report.refused_threads, stats.fallback_cycles), (0, 0));
        assert_eq!(stats.background_time, report.background_time);
        assert!(!stats.background_time.is_zero());
    });
}

/// The machine is busy: the thread comes when the cycle has ended, and another one never.
#[test]
fn a_thread_that_is_late_for_a_loan_is_not_asked_for_again() {
    type Late = Vec<Option<Box<dyn FnOnce() + Send>>>;
    let late = Arc::new(std::sync::Mutex::new(Late::new()));
    let spawn: SpawnHelper = {
        let late = late.clone();
        Arc::new(move |number, body| {
            if number > 0 {
                // A helper of a sweep, which would be waited for.
                return Err(std::io::ErrorKind::OutOfMemory.into());
            }
            late.lock().expect("no panic").push(Some(body));
            Ok(())
        })
    };
    in_shared(HeapConfig { spawn_helper: Some(spawn), ..at_once() }, |play, stage| {
        fill(play, stage);
        for cycle in 1..4 {
            let report = finish(play);
            assert!(report.slices > 2, "the marker was lent more than once");
            assert_eq!(report.refused_threads, 0);
            let body = {
                let mut late = late.lock().expect("no panic");
                assert_eq!(late.len(), cycle, "threads that were asked for");
                late.last_mut().and_then(Option::take)
            };
            match body.expect("it is new") {
                // One that is never run is not coming either.
                body if cycle == 2 => drop(body),
                body => body(),
            }
        }
        assert_in_order(play, stage);
    });
}

/// A session that allocates for ever, within a cycle that others have begun.
#[test]
fn a_cycle_goes_on_within_a_session_and_runs_no_user_code_there() {
    const GARBAGE: usize = 16_000;
    let pacing = Pacing::Automatic { min_bytes: 1 << 20, growth: 0.5 };
    // As many slices as there can be.
    let pause_budget = Some(Duration::ZERO);
    in_local(HeapConfig { pacing, pause_budget, ..config() }, |heap, stage| {
        let garbage = |heap: &mut RawHeap<World<'static>>| {
            heap.mutate(|mc, _| {
                for _ in 0..GARBAGE {
                    mc.alloc(Leaf::new([0_u64; 128]));
                }
            });
        };
        fill(heap, stage);
        garbage(heap);
        heap.collect();
        // What is to die within the session: half of it can be swept there.
        heap.mutate(|mc, world| world.links.lock(mc).nodes.clear());
        fill(heap, stage);
        garbage(heap);
        assert!(!heap.step(Duration::ZERO).is_finished());
        let queued = heap.client().stats().queued;
        let dropped = || (0..MOST).map(|id| stage.drops.of(id)).sum::<usize>();
        let before = dropped();
        let mapped = heap.stats().mapped_bytes;
        let heap_now = &*heap;
        let (passed, refilled) = heap_now.session(heap_now.core.context(), |mc, _| {
            let mut passed = vec![heap_now.phase()];
            let mut refilled = 0;
            // As much as there was garbage.
            for _ in 0..GARBAGE {
                mc.alloc(Leaf::new([0_u64; 128]));
                let phase = heap_now.phase();
                if passed.last() != Some(&phase) {
                    passed.push(phase);
                }
                refilled += usize::from(phase == Phase::Sweeping);
            }
            assert_eq!(dropped(), before, "drop glue has run within an allocation");
            (passed, refilled)
        });
        assert_eq!(passed, [Phase::Marking, Phase::Clearing, Phase::Sweeping]);
        assert!(refilled > GARBAGE / 4, "{refilled} allocations came after the mark");
        assert_eq!(heap.client().stats().queued, queued, "a cleanup was queued within the session");
        let grown = heap.stats().mapped_bytes - mapped;
        let before_sweep = (GARBAGE - refilled) * 1024;
        assert!(grown < before_sweep as u64 + (4 << 20), "{grown} bytes were mapped");
        Play::verify(heap);
        finish(heap);
        assert!(dropped() > before);
        assert_in_order(heap, stage);
    });
}

/// Live objects and garbage of some sizes, in sessions that allocate less than half of what the
/// limit leaves beside what is alive.
#[test]
fn a_limit_refuses_nothing_in_slices_that_it_allows_without() {
    type Family = GcRefCell<Vec<Gc<'static, Leaf<[u64; 32]>>>>;
    const LIMIT: u64 = 8 << 20;
    let mut slices = [0, 0];
    for (nth, pause_budget) in [None, Some(Duration::ZERO)].into_iter().enumerate() {
        for seed in 0..8 {
            let pool = Pool::new(PoolConfig::default(), None);
            let mut random = fastrand::Rng::with_seed(seed);
            let pacing = Pacing::Automatic { min_bytes: LIMIT / 8, growth: 0.2 };
            let config = HeapConfig { max_bytes: LIMIT, pacing, pause_budget, ..config() };
            let mut heap: RawHeap<Family> =
                RawHeap::new(Client::new(&pool), config, |_| GcRefCell::default());
            let most = random.usize(1..10_000);
            for session in 0..300 {
                heap.mutate(|mc, root| {
                    let mut live = root.borrow_mut(mc);
                    if random.u8(..) < 30 {
                        live.truncate(random.usize(..=most));
                    }
                    // An object more than half would be one too many.
                    let mut room = (LIMIT - live.len() as u64 * 256 - (64 << 10)) / 2 - 256;
                    if random.u8(..) < 240 {
                        room = room * random.u64(..4) / 100;
                    }
                    for _ in 0..room / 256 {
                        let refused = |_| panic!("seed {seed}, session {session}: it is refused");
                        let new = mc.try_alloc(Leaf::new([0; 32])).unwrap_or_else(refused);
                        if live.len() < most && random.u8(..) < 50 {
                            live.push(new);
                        }
                    }
                });
                if let Some(report) = heap.collect_if_due() {
                    slices[nth] += usize::from(report.slices > 1);
                }
            }
            heap.verify().expect("it is consistent");
        }
    }
    assert!(slices[0] == 0 && slices[1] > 10, "{slices:?} cycles in slices");
}

/// A session that meets the limit has the garbage swept that the cycle has not come to.
#[test]
fn a_session_refused_in_the_middle_of_a_cycle_gets_the_room_of_unswept_garbage() {
    type Family = GcRefCell<Vec<Gc<'static, Leaf<[u64; 32]>>>>;
    const OBJECTS: usize = 8000;
    let automatic = Pacing::Automatic { min_bytes: 1 << 16, growth: 1.0 };
    // One in `keep` objects is alive. If all are, a slice that is due may end the cycle, and the
    // limit is reached all the same.
    for (pacing, keep) in [(Pacing::Manual, 4), (automatic, 4), (automatic, 1)] {
        for steps in 0..40 {
            let pool = Pool::new(PoolConfig::default(), None);
            // The root's vector counts, too.
            let max_bytes = OBJECTS * 256 + OBJECTS / keep * 8;
            let config = HeapConfig { max_bytes: max_bytes as u64, pacing, ..config() };
            let mut heap: RawHeap<Family> = RawHeap::new(Client::new(&pool), config, |_| {
                GcRefCell::new(Vec::with_capacity(OBJECTS / keep))
            });
            heap.mutate(|mc, root| {
                for at in 0..OBJECTS {
                    let new = mc.alloc(Leaf::new([0; 32]));
                    if at % keep == 0 {
                        root.borrow_mut(mc).push(new);
                    }
                }
            });
            let is_over = (0..steps).any(|_| heap.step(Duration::ZERO).is_finished());
            let is_under_way = heap.core.phase().get() != Phase::Idle;
            let mut got = 0;
            heap.mutate(|mc, _| {
                while mc.try_alloc(Leaf::new([0_u64; 32])).is_ok() {
                    got += 1;
                }
            });
            let expected = if is_under_way || is_over { OBJECTS - OBJECTS / keep } else { 0 };
            assert_eq!(got, expected, "after {steps} steps, {pacing:?}");
            assert_eq!(heap.has_refused(), pacing != Pacing::Manual);
            heap.verify().expect("it is consistent");
            let has_ended = is_under_way && pacing == Pacing::Manual;
            assert_eq!(heap.collect_if_due().is_some(), has_ended || pacing != Pacing::Manual);
            assert!(heap.collect_if_due().is_none(), "an end is told of once");
            heap.collect();
            let live = heap.stats().objects;
            assert_eq!(live, (OBJECTS / keep) as u64);
        }
    }
}

/// Tickets, the pool and the owner's cleanups, while a cycle stands still.
#[test]
fn what_slices_have_queued_can_be_run_and_waited_for_between_them() {
    in_local(config(), |heap, stage| {
        use std::{cell::RefCell, rc::Rc};
        for moment in [Moment::Clearing, Moment::Sweeping] {
            let ran: Rc<RefCell<Vec<usize>>> = Rc::default();
            fill(heap, stage);
            heap.mutate(|mc, world| {
                let mut links = world.links.lock(mc);
                for _ in 0..2000 {
                    let node = mc.alloc(stage.node(None));
                    let (id, ran) = (node.id, ran.clone());
                    mc.add_cleanup_local(node, move || ran.borrow_mut().push(id));
                    *world.weaks.lock(mc) = vec![mc.downgrade(node)];
                    if id % 2 == 0 {
                        links.nodes.push(node);
                    }
                }
            });
            stand(heap, stage, moment);
            let queued = heap.client().stats().queued;
            let now = heap.run_local_cleanups(usize::MAX);
            assert!(now > 0 && ran.borrow().iter().all(|id| id % 2 == 1));
            Play::verify(heap);
            // The last one is dead, and its cleanup may have run.
            heap.mutate(|mc, world| assert!(world.weaks.lock(mc)[0].upgrade(mc).is_none()));
            let ticket = heap.ticket();
            assert_eq!(ticket.pending(), heap.client().stats().backlog);
            stage.pool.run_pending(usize::MAX);
            assert!(ticket.is_done(), "a batch is held open");
            assert_eq!(heap.client().stats().executed, queued, "{moment:?}");
            assert!(moment == Moment::Clearing || queued > 0);
            finish(heap);
            heap.run_local_cleanups(usize::MAX);
            heap.mutate(|mc, world| world.links.lock(mc).nodes.clear());
            heap.collect();
            stage.pool.run_pending(usize::MAX);
            heap.run_local_cleanups(usize::MAX);
            let mut ids = ran.borrow().clone();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), ran.borrow().len(), "a local cleanup ran twice");
            assert_eq!((ids.len(), heap.stats().local_cleanups.armed), (2000, 0));
        }
    });
}

/// An epoch is not used twice, so without one each cycle runs at once.
#[test]
fn cycles_run_at_once_when_epochs_are_used_up() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        fill(play, stage);
        // Epochs are even.
        play.heap().collector.set_epoch(u32::MAX - 5);
        for _ in 0..2 {
            stand(play, stage, Moment::Sweeping);
            play.verify();
            assert!(finish(play).slices > 1);
        }
        for _ in 0..3 {
            let report = match play.step() {
                Progress::Finished(report) => report,
                Progress::Working => panic!("there is no epoch for a slice"),
            };
            assert_eq!(report.slices, 1);
            assert_in_order(play, stage);
        }
        stage.bomb.arm();
        boom(|| play.step());
        while play.phase() != Phase::Idle {
            assert!(!play.step().is_finished());
        }
        assert_in_order(play, stage);
    }
    in_both_modes!(body);
}

/// Threads come and go, with what their barriers have marked.
#[test]
fn mutators_that_attach_and_detach_within_a_cycle_lose_nothing() {
    in_shared(config(), |play, stage| {
        fill(play, stage);
        stand(play, stage, Moment::Marking);
        let heap = play.heap();
        let tail = thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut mutator = heap.attach().expect("it is the first here");
                let mutator = &mut mutator;
                mutator.session(|mc, world| {
                    let list = world.links.lock(mc).nodes[0];
                    let mut nodes = std::iter::successors(Some(list), |node| node.next.load());
                    let at = nodes.nth(NODES - 50).expect("it is as long");
                    let tail = at.next.swap(mc, None).expect("it is no longer");
                    let carrier = mc.alloc(stage.node(Some(tail)));
                    world.links.lock(mc).nodes.push(carrier);
                    std::iter::successors(Some(tail), |node| node.next.load())
                        .map(|node| node.id)
                        .collect::<Vec<_>>()
                })
            });
            other.join().expect("it found no fault")
        });
        Play::verify(play);
        finish(play);
        Play::verify(play);
        assert!(tail.len() > 40 && tail.iter().all(|&id| stage.drops.of(id) == 0));
    });
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads to work beside sessions, which a test starts when it wants to.
#[derive(Clone, Default)]
struct Backstage(Arc<Mutex<Vec<Job>>>);

impl Backstage {
    fn config(&self) -> HeapConfig {
        let Backstage(waiting) = self.clone();
        let spawn: SpawnHelper = Arc::new(move |number, work| {
            // Others help within a stop.
            if number > 0 {
                return Err(std::io::ErrorKind::OutOfMemory.into());
            }
            waiting.lock().unwrap().push(work);
            Ok(())
        });
        HeapConfig { spawn_helper: Some(spawn), gc_threads: Some(2), ..config() }
    }

    /// Takes the work that was lent last. Others come too late.
    fn take(&self) -> Job {
        let mut waiting = std::mem::take(&mut *self.0.lock().unwrap());
        waiting.pop().expect("work was lent")
    }

    /// Does that work on another thread, to its end.
    fn work(&self) {
        thread::spawn(self.take()).join().expect("it catches what is thrown");
    }
}

/// Goes on to a phase whose work is lent, with the work of those before done by threads.
#[track_caller]
fn lend(play: &mut RawMutator<'_, World<'static>>, backstage: &Backstage, phase: Phase) {
    assert!(!Play::step(play).is_finished());
    while play.phase() != phase {
        backstage.work();
        assert!(!Play::step(play).is_finished());
    }
}

#[test]
fn each_phase_is_worked_off_beside_sessions() {
    let backstage = Backstage::default();
    in_shared(backstage.config(), |play, stage| {
        fill(play, stage);
        let mut phases = Vec::new();
        let report = loop {
            if let Progress::Finished(report) = Play::step(play) {
                break report;
            }
            phases.push(play.phase());
            // A session is open, and a thread of its own drops the dead.
            let here = thread::current().id();
            play.session(|_, _| backstage.work());
            assert!(!stage.droppers.lock().unwrap().contains(&here));
            Play::verify(play);
            backstage.0.lock().unwrap().clear();
        };
        phases.dedup();
        assert_eq!(phases, [Phase::Marking, Phase::Clearing, Phase::Sweeping]);
        assert_eq!(report.live_objects, NODES as u64);
        assert_eq!(
            (report.swept_objects, report.dropped_objects, report.queued_cleanups),
            (NODES as u64, NODES as u64, NODES as u64)
        );
        assert!(report.published_blocks > 0 && report.swept_spans > report.emptied_spans);
        assert!(report.background_time > report.mark_time + report.clear_time + report.sweep_time);
        assert_eq!(report.refused_threads, 0);
        assert_in_order(play, stage);
    });
}

/// Sessions before, beside and after a clearing find the same targets.
/// Sessions beside a sweep have the slots of plain objects before drop glue runs.
#[test]
fn plain_spans_are_swept_first_beside_sessions() {
    // Some dozen spans, at the addresses that a sweep comes to last.
    const LEAVES: usize = 16_000;
    let backstage = Backstage::default();
    in_shared(backstage.config(), |play, stage| {
        play.session(|mc, _| (0..LEAVES).for_each(|_| _ = mc.alloc(Leaf::new([0_u64; 32]))));
        fill(play, stage);
        lend(play, &backstage, Phase::Sweeping);
        let heap = play.heap;
        let before = heap.core.space().committed_bytes();
        let (gate, at_gate) = stage.gate();
        let sweeping = thread::spawn(backstage.take());
        at_gate.recv().expect("something is dropped");
        let swept = before - heap.core.space().committed_bytes();
        gate.send(()).expect("the thread waits");
        sweeping.join().expect("it catches what is thrown");
        assert!(swept >= LEAVES as u64 * 256, "{swept} bytes before a drop");
        finish(play);
        assert_in_order(play, stage);
    });
}

#[test]
fn weak_pointers_give_what_survives_while_they_are_cleared() {
    let backstage = Backstage::default();
    fn found<'gc>(mc: &Mutation<'gc, Shared>, world: &World<'gc>) -> Vec<Option<usize>> {
        let weaks = world.weaks.lock(mc);
        weaks.iter().map(|weak| weak.upgrade(mc).map(|node| node.id)).collect()
    }
    in_shared(backstage.config(), |play, stage| {
        fill(play, stage);
        play.session(|mc, world| {
            let first = last_of(mc, world);
            let dead = mc.alloc(stage.node(None));
            let weaks = [first, dead].map(|node| mc.downgrade(node));
            world.weaks.lock(mc).extend(weaks);
        });
        lend(play, &backstage, Phase::Clearing);
        play.session(|mc, world| {
            let before = found(mc, world);
            assert_eq!(before, [Some(0), None]);
            // A known record, a new one, and a newborn target.
            let (first, new) = (last_of(mc, world), mc.alloc(stage.node(None)));
            world.links.lock(mc).nodes.push(new);
            let again = mc.downgrade(first);
            backstage.work();
            assert_eq!(found(mc, world), before);
            let weaks = [again, mc.downgrade(first), mc.downgrade(new)];
            assert!(weaks[0].ptr_eq(weaks[1]) && weaks[0].ptr_eq(world.weaks.lock(mc)[0]));
            world.weaks.lock(mc).extend(weaks);
        });
        Play::verify(play);
        lend(play, &backstage, Phase::Sweeping);
        let new = stage.made.load(SeqCst) - 1;
        let expected = [Some(0), None, Some(0), Some(0), Some(new)];
        play.session(|mc, world| {
            assert_eq!(found(mc, world), expected);
            backstage.work();
            assert_eq!(found(mc, world), expected);
        });
        finish(play);
        play.session(|mc, world| {
            assert_eq!(found(mc, world), expected);
            world.links.lock(mc).nodes.truncate(1);
        });
        assert_in_order(play, stage);
    });
}

/// A session uses the tables of spans that a thread is in the middle of.
#[test]
fn sessions_use_spans_that_are_being_swept() {
    let backstage = Backstage::default();
    let stage = in_shared(backstage.config(), |play, stage| {
        fill(play, stage);
        lend(play, &backstage, Phase::Sweeping);
        let (gate, at_gate) = stage.gate();
        let sweeping = thread::spawn(backstage.take());
        // The thread is within drop glue.
        at_gate.recv().expect("something is dropped");
        play.session(|mc, world| {
            let mut new = None;
            for node in live(mc, world) {
                // The old ones have cleanups, so these go in front of a chain.
                mc.add_cleanup(node, stage.cleanup(node.id));
                assert!(mc.downgrade(node).upgrade(mc).is_some_and(|to| to.ptr_eq(node)));
                let born = mc.alloc(stage.node(new));
                mc.add_cleanup(born, stage.cleanup(born.id));
                new = Some(born);
            }
            world.links.lock(mc).nodes.extend(new);
        });
        gate.send(()).expect("it waits");
        // Recalled in the middle, or not.
        Play::verify(play);
        sweeping.join().expect("it catches what is thrown");
        finish(play);
        Play::verify(play);
        assert_eq!(play.session(|mc, world| live(mc, world).count()), NODES);
        play.session(|mc, world| world.links.lock(mc).nodes.truncate(1));
        assert_in_order(play, stage);
    });
    while stage.pool.run_pending(usize::MAX) > 0 {}
    for id in 0..stage.made.load(SeqCst) {
        // Live nodes of `fill` got two.
        let expected = if id < 2 * NODES && id.is_multiple_of(2) { 2 } else { 1 };
        assert_eq!(stage.cleaned.of(id), expected, "node {id}");
    }
}

/// The list of live nodes, as a session finds it.
fn live<'gc, M: Mode>(
    mc: &Mutation<'gc, M>,
    world: &World<'gc>,
) -> impl Iterator<Item = Gc<'gc, Node<'gc>>> + use<'gc, M> {
    let first = world.links.lock(mc).nodes.first().copied();
    std::iter::successors(first, |node| node.next.load())
}

/// Sessions prune chains and stop cleanups while the clearing frees those that have ended.
#[test]
fn cleanups_that_have_ended_are_freed_beside_sessions() {
    let backstage = Backstage::default();
    let stage = in_shared(backstage.config(), |play, stage| {
        fill(play, stage);
        let stop_all = |play: &mut RawMutator<'_, World<'static>>| {
            play.session(|mc, world| {
                for node in live(mc, world) {
                    assert!(mc.add_cleanup(node, || panic!("it was stopped")).stop());
                }
            });
        };
        stop_all(play);
        lend(play, &backstage, Phase::Clearing);
        let heap = play.heap;
        let ended = || heap.core.context().registrar().borrow().ended_early();
        assert!(ended() >= NODES as u64);
        thread::scope(|scope| {
            scope.spawn(backstage.take());
            scope.spawn(move || stop_all(&mut heap.attach().expect("it is the first here")));
        });
        Play::verify(play);
        finish(play);
        assert!(ended() <= NODES as u64, "{} are left", ended());
        assert_in_order(play, stage);
    });
    while stage.pool.run_pending(usize::MAX) > 0 {}
    assert!((0..2 * NODES).all(|id| stage.cleaned.of(id) == 1));
}

/// A thread is in the middle of a phase, or comes too late, when a whole cycle runs, or the heap
/// goes.
#[test]
fn work_that_is_recalled_in_any_phase_is_neither_lost_nor_done_twice() {
    for phase in [Phase::Marking, Phase::Clearing, Phase::Sweeping] {
        for (at_work, whole) in [(false, false), (false, true), (true, false), (true, true)] {
            let backstage = Backstage::default();
            let mut threads = Vec::new();
            let stage = in_shared(backstage.config(), |play, stage| {
                fill(play, stage);
                lend(play, &backstage, phase);
                if at_work {
                    threads.push(thread::spawn(backstage.take()));
                }
                if whole {
                    assert_eq!(Play::collect(play).live_objects, NODES as u64);
                    Play::verify(play);
                    assert_eq!(list(play, stage).len(), NODES);
                }
            });
            // One that was not started finds nothing to do.
            if !at_work {
                backstage.work();
            }
            threads.into_iter().for_each(|thread| thread.join().expect("it catches all"));
            while stage.pool.run_pending(usize::MAX) > 0 {}
            assert!((0..2 * NODES).all(|id| stage.cleaned.of(id) == 1), "{phase:?}");
            assert_eq!(Arc::strong_count(&stage.cleaned.0), 1, "captures are left");
        }
    }
}

/// A mutator leaves the work to a thread that has it, and no longer than there is one.
#[test]
fn a_mutator_waits_beside_a_thread_at_work_and_takes_nothing_from_it() {
    let backstage = Backstage::default();
    in_shared(backstage.config(), |play, stage| {
        let waits = |play: &RawMutator<'_, World<'static>>| {
            play.heap.collector.wait_beside(&play.heap.core)
        };
        fill(play, stage);
        assert!(!waits(play), "no work is on loan");
        lend(play, &backstage, Phase::Sweeping);
        assert!(!waits(play), "no thread has come");
        let (gate, at_gate) = stage.gate();
        let thread = thread::spawn(backstage.take());
        at_gate.recv().expect("something is dropped");
        let (steps, pauses) = (play.heap.core.steps(), play.heap().stats().pause.count);
        assert!(waits(play), "the thread is at work");
        assert_eq!(play.heap.core.steps(), steps, "no mutator was stopped");
        assert_eq!(play.heap().stats().pause.count, pauses + 1);
        gate.send(()).expect("the thread waits");
        thread.join().expect("it catches all");
        assert!(!waits(play), "the work was given back");
        assert!(finish(play).dropped_objects > 0);
        assert_in_order(play, stage);
    });
}

#[test]
fn panics_of_drop_glue_beside_sessions_are_counted() {
    let backstage = Backstage::default();
    in_shared(backstage.config(), |play, stage| {
        fill(play, stage);
        lend(play, &backstage, Phase::Sweeping);
        stage.drop_panics.store(3, SeqCst);
        play.session(|_, _| backstage.work());
        assert_eq!(finish(play).drop_panics, 3);
        assert_eq!(play.heap().stats().drop_panics, 3);
        assert_in_order(play, stage);
    });
}

/// Drop glue on a thread beside sessions has the last handle of its own heap.
#[test]
fn a_heap_may_be_dropped_by_drop_glue_that_runs_beside_sessions() {
    let (stage, backstage) = (Arc::new(Stage::new()), Backstage::default());
    let client = Client::new(&stage.pool);
    let heap: Arc<RawHeap<World<'static>, Shared>> =
        Arc::new(RawHeap::new(client, backstage.config(), |_| stage.world()));
    let mut play = heap.attach().expect("it is the first here");
    fill(&mut play, &stage);
    lend(&mut play, &backstage, Phase::Sweeping);
    drop(play);
    *stage.at_drop.lock().unwrap() = Some(Box::new(move || drop(heap)));
    let work = backstage.take();
    let (done, is_done) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        done.send(()).expect("the test waits");
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("it waits for itself");
    thread.join().expect("it catches all");
    stage.assert_all_dropped();
    while stage.pool.run_pending(usize::MAX) > 0 {}
    assert!((0..2 * NODES).all(|id| stage.cleaned.of(id) == 1));
}

/// Pointers in one cell: some fifty pieces.
const LONG: usize = 25_000;

/// How many of some objects are marked.
fn marked<'gc, T: Trace<'gc>>(objects: &[Gc<'gc, T>]) -> usize {
    let is_marked = |object: &&Gc<'gc, T>| {
        let object = object.as_address();
        SpanRef::containing(object).is_marked_at(object)
    };
    objects.iter().filter(is_marked).count()
}

/// Puts new nodes into the world's cell.
fn fill_cell<P: Play>(play: &mut P, stage: &Stage) -> Vec<usize> {
    play.session(|mc, world| {
        let nodes: Vec<_> = (0..LONG).map(|_| P::alloc(mc, stage.node(None))).collect();
        let ids = nodes.iter().map(|node| node.id).collect();
        world.links.lock(mc).nodes = nodes;
        ids
    })
}

/// Moves the nodes of the world's cell to where no mark looks. Their vector goes back to the
/// system, and what is put off of it is not to be read any more.
fn move_all<'gc, P: Play>(
    mc: &Mutation<'gc, P::M>,
    world: &World<'gc>,
    stage: &Stage,
    before: impl FnOnce(&[Gc<'gc, Node<'gc>>]),
) {
    let carrier = P::alloc(mc, stage.node(None));
    let mut links = world.links.lock(mc);
    assert_eq!(marked(&links.nodes), links.nodes.len(), "the barrier has looked at all of them");
    before(&links.nodes);
    let mut nodes = std::mem::replace(&mut links.nodes, vec![carrier]).into_iter();
    // Two long ones, and none of the old length.
    let half = nodes.by_ref().take(LONG / 2).collect();
    carrier.links.lock(mc).nodes = half;
    let other = P::alloc(mc, stage.node(None));
    other.links.lock(mc).nodes = nodes.collect();
    links.nodes.push(other);
}

#[test]
fn a_session_that_changes_a_cell_has_all_of_it_traced_and_none_of_it_later() {
    fn body<P: Play>(play: &mut P, stage: &Stage) {
        let ids = fill_cell(play, stage);
        assert!(!play.step().is_finished());
        for _ in 0..12 {
            assert!(!play.step().is_finished());
        }
        assert_eq!(play.phase(), Phase::Marking);
        play.verify();
        play.session(|mc, world| move_all::<P>(mc, world, stage, |_| ()));
        play.verify();
        finish(play);
        play.verify();
        assert!(ids.iter().all(|&id| stage.drops.of(id) == 0), "a reachable node was dropped");
        let report = play.collect();
        assert_eq!(report.live_objects, (LONG + 2) as u64);
    }
    in_both_modes!(body);
}

/// Readers may come at any time.
#[test]
fn a_cell_that_is_only_read_is_traced_piece_by_piece() {
    type Family = GcRefCell<Vec<Gc<'static, Leaf<Dropped>>>>;
    let (pool, hand) = (Pool::new(PoolConfig::default(), None), Stagehand::new());
    let mut heap: RawHeap<Family> =
        RawHeap::new(Client::new(&pool), config(), |_| GcRefCell::default());
    heap.mutate(|mc, root| {
        let leaves = (0..LONG).map(|id| mc.alloc(Leaf::new(Dropped(hand.clone(), id))));
        *root.borrow_mut(mc) = leaves.collect();
    });
    for changes in [false, true] {
        let mut counts = Vec::new();
        while counts.is_empty() || heap.core.phase().get() == Phase::Marking {
            assert!(!heap.step(Duration::ZERO).is_finished());
            if counts.len() % 16 == 0 {
                heap.verify().expect("it is consistent");
            }
            let count = heap.mutate(|mc, root| {
                let before = marked(&root.borrow());
                if changes && before > LONG / 3 {
                    drop(root.borrow_mut(mc));
                    assert_eq!(marked(&root.borrow()), LONG, "it was lent to be changed");
                }
                before
            });
            counts.push(count);
        }
        counts.dedup();
        let most = counts.windows(2).map(|pair| pair[1] - pair[0]).max().expect("there are some");
        assert!(counts.is_sorted() && (changes || most < LONG / 4), "{counts:?}");
        let report = finish_local(&mut heap);
        assert_eq!(report.live_objects, LONG as u64);
        assert_eq!(report.barrier_looks > 0, changes);
    }
    assert!((0..LONG).all(|id| hand.drops.of(id) == 0));
}

fn finish_local<R: Branded>(heap: &mut RawHeap<R>) -> GcReport {
    loop {
        if let Progress::Finished(report) = heap.step(Duration::ZERO) {
            return report;
        }
    }
}

/// A piece of a cell may have long vectors itself, and cells, which are traced at once.
#[test]
fn vectors_and_cells_within_a_long_vector_in_a_cell_survive_what_sessions_do() {
    type Leaves<'gc> = Vec<Gc<'gc, Leaf<Dropped>>>;
    type Inner = (Leaves<'static>, GcRefCell<Leaves<'static>>);
    type Family = (GcRefCell<Vec<Inner>>, GcRefCell<Vec<Inner>>);
    /// The length of a vector in a vector. A few are long.
    fn length(at: usize) -> usize {
        match at {
            _ if at.is_multiple_of(500) => 3000,
            _ if at.is_multiple_of(50) => 500,
            _ => at % 2,
        }
    }
    let (pool, hand) = (Pool::new(PoolConfig::default(), None), Stagehand::new());
    let mut heap: RawHeap<Family> = RawHeap::new(Client::new(&pool), config(), |_| {
        (GcRefCell::default(), GcRefCell::default())
    });
    let mut random = fastrand::Rng::with_seed(11);
    let mut steps = 0;
    for round in 0..12 {
        heap.mutate(|mc, (list, other)| {
            let made = std::cell::Cell::new(0);
            let leaves = |count: usize| -> Leaves<'_> {
                let id = made.replace(made.get() + 1) % 100;
                vec![mc.alloc(Leaf::new(Dropped(hand.clone(), id))); count]
            };
            other.borrow_mut(mc).clear();
            *list.borrow_mut(mc) = (0..2500)
                .map(|at| (leaves(length(at)), GcRefCell::new(leaves(length(at + 20)))))
                .collect();
        });
        heap.collect();
        let dropped = |id: usize| hand.drops.of(id);
        let before: Vec<usize> = (0..100).map(dropped).collect();
        let mut is_over = false;
        let mut touched = round % 3 == 0;
        while !is_over {
            is_over = heap.step(Duration::ZERO).is_finished();
            steps += 1;
            if random.u8(..) < 4 {
                heap.verify().expect("it is consistent");
            }
            if heap.core.phase().get() != Phase::Marking || random.u8(..) > 40 {
                continue;
            }
            heap.mutate(|mc, (list, other)| {
                // What lies in a cell in the cell changes, and the vector stays.
                let (at, to) = (random.usize(..2500), random.usize(..2500));
                if let (Some((_, from)), Some((_, to))) =
                    (list.borrow().get(at), list.borrow().get(to))
                {
                    let moved = from.take(mc);
                    to.borrow_mut(mc).extend(moved);
                }
                if !touched && random.u8(..) < 20 {
                    touched = true;
                    // The inner cells move, and the inner vectors with them.
                    let mut moved = std::mem::take(&mut *list.borrow_mut(mc));
                    moved.shrink_to_fit();
                    moved.reverse();
                    moved.iter_mut().for_each(|(leaves, _)| leaves.shrink_to_fit());
                    other.borrow_mut(mc).extend(moved.drain(..).rev());
                }
            });
        }
        heap.verify().expect("it is consistent");
        let after: Vec<usize> = (0..100).map(dropped).collect();
        assert_eq!(after, before, "a reachable leaf was dropped");
    }
    assert!(steps > 1000, "{steps} steps");
}

/// The mark is given up with pieces waiting. The next one does not take the cell for its own.
#[test]
fn a_panic_in_a_piece_of_a_cell_gives_the_mark_up() {
    type Family = GcRefCell<Vec<Links<'static>>>;
    let stage = Stage::new();
    let mut heap: RawHeap<Family> =
        RawHeap::new(Client::new(&stage.pool), config(), |_| GcRefCell::default());
    heap.mutate(|mc, root| {
        let links = (0..LONG)
            .map(|_| Links { nodes: vec![mc.alloc(stage.node(None))], bomb: stage.bomb.clone() });
        *root.borrow_mut(mc) = links.collect();
    });
    for whole in [false, true] {
        for _ in 0..6 {
            assert!(!heap.step(Duration::ZERO).is_finished());
        }
        let nodes = |root: &GcRefCell<Vec<Links<'_>>>| {
            root.borrow().iter().map(|links| marked(&links.nodes)).sum::<usize>()
        };
        let count = heap.mutate(|_, root| nodes(root));
        assert!(count > 0 && count < LONG / 2, "{count} are marked");
        stage.bomb.arm();
        if whole {
            // It gives the mark up by itself, and traces all at once.
            boom(|| heap.collect());
        } else {
            boom(|| heap.step(Duration::ZERO));
        }
        heap.verify().expect("it is consistent");
        // What waited is not looked at, and the vector may go.
        heap.mutate(|mc, root| {
            let links = std::mem::take(&mut *root.borrow_mut(mc));
            *root.borrow_mut(mc) = links.into_iter().rev().collect();
        });
        while heap.core.phase().get() != Phase::Idle {
            assert!(!heap.step(Duration::ZERO).is_finished());
        }
        let report = finish_local(&mut heap);
        heap.verify().expect("it is consistent");
        assert!(report.slices > 20, "{} slices", report.slices);
        assert_eq!(report.live_objects, LONG as u64);
    }
    drop(heap);
    stage.assert_all_dropped();
}

/// A thread comes before a session that changes the cell, within it, or after it.
#[test]
fn a_thread_that_marks_traces_a_cell_unless_a_session_has_it_or_has_had_it() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Thread {
        Before,
        Within,
        After,
    }
    for when in [Thread::Before, Thread::Within, Thread::After] {
        let backstage = Backstage::default();
        in_shared(backstage.config(), |play, stage| {
            let ids = fill_cell(play, stage);
            // It traces the root, and so puts the cell's vector off.
            assert!(!Play::step(play).is_finished());
            if when == Thread::Before {
                backstage.work();
            }
            play.session(|mc, world| {
                type P<'h> = RawMutator<'h, World<'static>>;
                move_all::<P<'_>>(mc, world, stage, |_| {
                    if when == Thread::Within {
                        backstage.work();
                    }
                });
            });
            if when == Thread::After {
                backstage.work();
            }
            Play::verify(play);
            finish(play);
            Play::verify(play);
            assert!(ids.iter().all(|&id| stage.drops.of(id) == 0), "{when:?}");
        });
    }
}

/// Others read meanwhile, and the thread that marks traces what is behind the lock.
#[test]
fn a_thread_that_marks_traces_the_vector_behind_a_lock_beside_its_readers() {
    type Family = GcRwLock<Vec<Gc<'static, Leaf<Dropped>>>>;
    let (pool, hand) = (Pool::new(PoolConfig::default(), None), Stagehand::new());
    let backstage = Backstage::default();
    let heap: RawHeap<Family, Shared> =
        RawHeap::new(Client::new(&pool), backstage.config(), |_| GcRwLock::default());
    let mut mutator = heap.attach().expect("it is the first here");
    mutator.mutate(|mc, root| {
        let leaves = (0..LONG).map(|id| mc.alloc(Leaf::new(Dropped(hand.clone(), id))));
        *root.write(mc) = leaves.collect();
    });
    assert!(!mutator.step(Duration::ZERO).is_finished());
    mutator.mutate(|mc, root| {
        let reader = root.read(mc);
        assert!(marked(&reader) < LONG);
        backstage.work();
        assert_eq!(marked(&reader), LONG);
        drop(reader);
        drop(root.write(mc));
    });
    while !mutator.step(Duration::ZERO).is_finished() {}
    mutator.verify().expect("it is consistent");
    assert!((0..LONG).all(|id| hand.drops.of(id) == 0));
}
