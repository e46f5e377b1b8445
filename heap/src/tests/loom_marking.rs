//! Cycles beside open sessions under loom: a `Shared` heap of three objects, a thread that has the
//! work of a phase on loan, and one or two mutators.
//!
//! `MARKING.md` beside `Cargo.toml` has the protocol, and `mutants/` the patches that these models
//! find. All of it is the code that ships, but for the locks under `GcMutex` and `GcRwLock`
//! (`payload/loom_locks.rs`). Loom does not see mark bits, as no constant memory holds its atomics.
//! So a bit is seen by all threads as soon as it is set.
//!
//! What a lock guards is a cell that loom watches. An access fails that is not ordered before or
//! after each write.

use std::num::NonZero;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc as Plain;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;
use parking_lot::lock_api;
use sexton_cleanup::{Client, Pool, PoolConfig};

use crate::collect::background::{Background, Loan, Work};
use crate::collect::heap::RawHeap;
use crate::collect::until::Until;
use crate::id::HeapId;
use crate::mark::root_table::{RootKind, RootTable};
use crate::memory::cell_lock::CellLock as _;
use crate::memory::mark_stack::{Marker, Strategy};
use crate::memory::phase::Phase;
use crate::object::trace::Branded;
use crate::payload::raw::RawGcMutex;
use crate::policy::config::{HeapConfig, SpawnHelper};
use crate::safepoint::handshake::{Handshake, Stopped};
use crate::session::context::Context;
use crate::{
    Gc, GcAtomic, GcMutex, GcOnce, GcRwLock, Leaf, Mutation, Pacing, Shared, Trace, Tracer, Weak,
};

/// Explores every interleaving with at most two preemptions; `LOOM_MAX_PREEMPTIONS` sets another
/// bound.
fn explore(model: impl Fn() + Clone + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 10_000;
    let tried = Plain::new(AtomicUsize::new(0));
    let trying = tried.clone();
    builder.check(move || {
        // `.ci/mutants.sh` asks for this line.
        if trying.fetch_add(1, Relaxed) == 1 {
            println!("the first schedule passes");
        }
        spawn(model.clone()).join().unwrap();
    });
    println!("{} schedules", tried.load(Relaxed));
}

/// Starts a thread with a stack for more than loom thinks of.
fn spawn(run: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().stack_size(STACK).spawn(run).unwrap()
}

/// In words.
const STACK: usize = 1 << 15;

/// A value that loom watches.
struct Watched(UnsafeCell<()>);

// SAFETY: loom says which threads are there at the same time.
unsafe impl Sync for Watched {}

impl Watched {
    fn new() -> Self {
        Watched(UnsafeCell::new(()))
    }

    fn read(&self) {
        self.0.with(|_| ());
    }

    fn write(&self) {
        self.0.with_mut(|_| ());
    }
}

type Pointer<'gc> = Option<Gc<'gc, Node<'gc>>>;

/// A pointer under a lock.
struct Held<'gc> {
    watched: Watched,
    pointer: Pointer<'gc>,
}

impl<'gc> Held<'gc> {
    fn mutex(pointer: Pointer<'gc>) -> GcMutex<Self> {
        let mutex = GcMutex::new(Held { watched: Watched::new(), pointer });
        mutex.settle();
        mutex
    }

    fn take(&mut self) -> Pointer<'gc> {
        self.watched.write();
        self.pointer.take()
    }
}

impl<'gc> GcMutex<Held<'gc>> {
    fn take_held(&mut self) -> Pointer<'gc> {
        self.get_mut().take()
    }
}

impl std::fmt::Debug for Held<'_> {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.watched.read();
        Ok(())
    }
}

/// Tells whether a value has not been dropped, as long as its memory is there.
struct Here(AtomicBool);

impl Drop for Here {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// A pointer in a list under a lock. A list of two is a long one here, and traced in two pieces.
struct Item<'gc> {
    here: Here,
    held: Held<'gc>,
}

impl<'gc> Item<'gc> {
    fn new(pointer: Pointer<'gc>) -> Self {
        Item { here: Here(AtomicBool::new(true)), held: Held { watched: Watched::new(), pointer } }
    }
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.held.fmt(f)
    }
}

/// An object.
struct Node<'gc> {
    open: GcAtomic<'gc, Node<'gc>>,
    held: Option<GcMutex<Held<'gc>>>,
    nested: Option<GcRwLock<GcMutex<Held<'gc>>>>,
    list: Option<GcMutex<Vec<Item<'gc>>>>,
    rows: Option<GcRwLock<Vec<GcMutex<Held<'gc>>>>>,
}

impl<'gc> Node<'gc> {
    /// Makes one with an atomic pointer alone.
    fn open(pointer: Pointer<'gc>) -> Self {
        Node { open: GcAtomic::new(pointer), held: None, nested: None, list: None, rows: None }
    }

    /// Makes one with a pointer under a mutex, too.
    fn held(pointer: Pointer<'gc>) -> Self {
        Node { held: Some(Held::mutex(pointer)), ..Node::open(None) }
    }

    /// Makes one with a pointer under a mutex that is under another lock.
    fn nested(pointer: Pointer<'gc>) -> Self {
        let nested = GcRwLock::new(Held::mutex(pointer));
        nested.settle();
        Node { nested: Some(nested), ..Node::open(None) }
    }

    /// Makes one with pointers in a list under a mutex.
    fn list(pointers: [Pointer<'gc>; 2]) -> Self {
        let list = GcMutex::new(pointers.map(Item::new).into());
        list.settle();
        Node { list: Some(list), ..Node::open(None) }
    }

    /// Makes one with pointers under mutexes in a list under another lock.
    fn rows(pointers: [Pointer<'gc>; 2]) -> Self {
        let rows = GcRwLock::new(pointers.map(Held::mutex).into());
        rows.settle();
        Node { rows: Some(rows), ..Node::open(None) }
    }

    fn mutex(&self) -> &GcMutex<Held<'gc>> {
        self.held.as_ref().expect("it was made with one")
    }

    fn outer(&self) -> &GcRwLock<GcMutex<Held<'gc>>> {
        self.nested.as_ref().expect("it was made with one")
    }

    fn items(&self) -> &GcMutex<Vec<Item<'gc>>> {
        self.list.as_ref().expect("it was made with one")
    }

    fn mutexes(&self) -> &GcRwLock<Vec<GcMutex<Held<'gc>>>> {
        self.rows.as_ref().expect("it was made with one")
    }
}

/// The root. It is traced when the cycle begins, so the marker does not come to `kept` again.
struct World<'gc> {
    first: Gc<'gc, Node<'gc>>,
    kept: GcAtomic<'gc, Node<'gc>>,
    weak: GcOnce<Weak<'gc, Node<'gc>>>,
}

macro_rules! trace {
    ($name:ident: $($field:ident)*) => {
        // SAFETY: all fields that hold pointers are traced; there is no `Drop`; the family is the
        // type with its brand open.
        unsafe impl<'gc> Trace<'gc> for $name<'gc> {
            type Family = $name<'static>;
            const NEEDS_TRACE: bool = true;

            fn trace(&self, tracer: &mut Tracer<'_>) {
                $(self.$field.trace(tracer);)*
            }
        }

        // SAFETY: the same type at brand 'gc.
        unsafe impl Branded for $name<'static> {
            type At<'gc> = $name<'gc>;
        }
    };
}

trace!(Node: open held nested list rows);
trace!(World: first kept weak);

// SAFETY: the field that holds a pointer is traced; there is no `Drop`; the family is the type with
// its brand open.
unsafe impl<'gc> Trace<'gc> for Held<'gc> {
    type Family = Held<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.watched.read();
        self.pointer.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for Held<'static> {
    type At<'gc> = Held<'gc>;
}

// SAFETY: as above.
unsafe impl<'gc> Trace<'gc> for Item<'gc> {
    type Family = Item<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        assert!(self.here.0.load(Relaxed), "a value is traced that is gone");
        self.held.trace(tracer);
    }
}

// SAFETY: the same type at brand 'gc.
unsafe impl Branded for Item<'static> {
    type At<'gc> = Item<'gc>;
}

/// A heap between the begin of a cycle and its end.
struct Scene {
    heap: RawHeap<World<'static>, Shared>,
}

type Session = for<'gc> fn(&Mutation<'gc, Shared>, &'gc World<'gc>);

impl Scene {
    fn new(world: Make) -> Plain<Self> {
        let spawn: SpawnHelper = Plain::new(|_, work| {
            spawn(work);
            Ok(())
        });
        Scene::with(Pacing::Manual, Some(spawn), world)
    }

    fn with(pacing: Pacing, spawn_helper: Option<SpawnHelper>, world: Make) -> Plain<Self> {
        let pool = Pool::new(PoolConfig::default(), None);
        let config = HeapConfig {
            pacing,
            gc_threads: Some(2),
            spawn_helper,
            pause_budget: Some(Duration::ZERO),
            zeal: false,
            ..HeapConfig::default()
        };
        let heap = RawHeap::<World<'static>, Shared>::new(Client::new(&pool), config, world);
        Plain::new(Scene { heap })
    }

    fn handshake(&self) -> &Handshake<Context<Shared>> {
        self.heap.core.mutators()
    }

    /// Gives a thread that opens a session.
    fn mutator(self: &Plain<Self>, session: Session) -> thread::JoinHandle<()> {
        let scene = self.clone();
        // Before the thread starts, as it has no part in what is modelled here.
        let mutator = self.handshake().attach(Context::new(self.heap.core.client()));
        spawn(move || {
            let open = scene.handshake().enter(&mutator);
            scene.heap.session(mutator.context(), session);
            drop(open);
        })
    }

    /// Opens a session on this thread.
    fn here(&self, session: Session) {
        self.heap.attach().expect("it is the first here").mutate(session);
    }

    /// Gives a thread that attaches, opens a session, and leaves.
    fn passer(self: &Plain<Self>, session: Session) -> thread::JoinHandle<()> {
        let scene = self.clone();
        spawn(move || {
            let mut mutator = scene.heap.attach().expect("it is the first here");
            mutator.mutate(session);
        })
    }

    /// Stops the mutators, and runs a slice.
    fn slice(&self, until: Until<'_>) {
        let stopped = self.handshake().stop(false, || false, None).expect("it is not to be left");
        let ended = self.heap.run(Stopped::now(), until, &stopped);
        assert_eq!(ended.is_some(), self.heap.core.phase().get() == Phase::Idle);
    }

    /// Begins a cycle, and lends its marker.
    fn begin(&self) {
        self.slice(Until::after(Duration::ZERO));
        assert_eq!(self.heap.core.phase().get(), Phase::Marking);
    }

    /// Ends the cycle.
    fn end(&self, mutators: Vec<thread::JoinHandle<()>>, end: End) {
        if end == End::Any {
            self.slice(Until::END);
        }
        mutators.into_iter().for_each(|mutator| mutator.join().unwrap());
        if end == End::After {
            self.slice(Until::END);
        }
        self.heap.verify_stopped().unwrap();
    }
}

type Make = for<'gc> fn(&Mutation<'gc, Shared>) -> World<'gc>;

/// When the cycle ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// After the sessions: more of the bound is left for them and the thread that marks.
    After,
    /// At any moment, so that it stops the mutators.
    Any,
}

/// Begins a cycle, runs sessions beside the thread that marks, and ends the cycle. Then all that is
/// reachable has to be there.
fn beside(world: Make, sessions: &'static [Session], end: End) {
    explore(move || {
        let scene = Scene::new(world);
        scene.begin();
        scene.end(sessions.iter().map(|&session| scene.mutator(session)).collect(), end);
    });
}

/// A mutator leaves, and its shaded list stays.
#[test]
fn what_a_mutator_has_shaded_outlives_it() {
    explore(|| {
        let scene = Scene::new(atomics);
        scene.begin();
        scene.end(vec![scene.passer(move_open)], End::After);
    });
}

/// A session may begin before the cycle, which waits for it, or after.
#[test]
fn a_cycle_begins_before_a_session_or_after_it() {
    explore(|| {
        let scene = Scene::new(atomics);
        let mutator = scene.mutator(move_open);
        scene.begin();
        scene.end(vec![mutator], End::Any);
    });
}

/// Three objects in a row, by atomic pointers.
fn atomics<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let last = mc.alloc(Node::open(None));
    let middle = mc.alloc(Node::open(Some(last)));
    world(mc.alloc(Node::open(Some(middle))))
}

/// Three objects in a row, by pointers under mutexes.
fn mutexes<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let last = mc.alloc(Node::open(None));
    let middle = mc.alloc(Node::held(Some(last)));
    world(mc.alloc(Node::held(Some(middle))))
}

/// Three objects in a row, by an atomic pointer and by one under a mutex.
fn mixed<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let last = mc.alloc(Node::open(None));
    let middle = mc.alloc(Node::held(Some(last)));
    world(mc.alloc(Node::open(Some(middle))))
}

/// Two objects, by a pointer under a mutex within a reader-writer lock.
fn nested<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let last = mc.alloc(Node::open(None));
    world(mc.alloc(Node::nested(Some(last))))
}

/// Three objects, by pointers in a list under a mutex.
fn list<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let listed = [(); 2].map(|()| Some(mc.alloc(Node::open(None))));
    world(mc.alloc(Node::list(listed)))
}

/// Three objects, by pointers under mutexes in a list under another lock.
fn rows<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let listed = [(); 2].map(|()| Some(mc.alloc(Node::open(None))));
    world(mc.alloc(Node::rows(listed)))
}

/// An object that only a weak pointer leads to.
fn weak<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let last = mc.alloc(Node::open(None));
    let middle = mc.alloc(Node::open(Some(last)));
    let world = world(mc.alloc(Node::open(None)));
    world.weak.set(mc, mc.downgrade(middle)).unwrap_or_else(|_| unreachable!());
    world
}

fn world<'gc>(first: Gc<'gc, Node<'gc>>) -> World<'gc> {
    World { first, kept: GcAtomic::new(None), weak: GcOnce::new() }
}

/// Puts what is to be found to where the marker has been.
fn keep<'gc>(mc: &Mutation<'gc, Shared>, world: &World<'gc>, moved: Pointer<'gc>) {
    if moved.is_some() {
        world.kept.store(mc, moved);
    }
}

fn move_open<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    keep(mc, world, world.first.open.load());
    world.first.open.store(mc, None);
}

fn move_held<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let moved = world.first.mutex().lock(mc).take();
    keep(mc, world, moved);
}

fn try_move_held<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let moved = world.first.mutex().try_lock(mc).expect("no other session has it").take();
    keep(mc, world, moved);
}

/// Takes the third object from the second, if no other session has moved that.
fn move_second_open<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    if let Some(second) = world.first.open.load() {
        keep(mc, world, second.open.swap(mc, None));
    }
}

fn move_second_held<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    if let Some(second) = world.first.open.load() {
        let moved = second.mutex().lock(mc).take();
        keep(mc, world, moved);
    }
}

fn move_nested<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let moved = world.first.outer().write(mc).take_held();
    keep(mc, world, moved);
}

/// Locks both locks, and tells no barrier: nothing is changed.
fn format_nested<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    world.first.outer().read(mc).touch();
}

/// Formats it, although the marker may have it. No other session has.
fn format_held<'gc>(_: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    assert_eq!(format!("{:?}", world.first.mutex()), "GcMutex()", "the marker was seen");
}

/// Takes the object from the list that the marker comes to last, and empties the list. The memory
/// of it stays.
fn take_from<'gc>(list: &mut Vec<Item<'gc>>) -> Pointer<'gc> {
    let moved = list[1].held.take();
    list.clear();
    moved
}

fn move_listed<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let moved = take_from(&mut world.first.items().lock(mc));
    keep(mc, world, moved);
}

fn format_listed<'gc>(_: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let _ = format!("{:?}", world.first.items());
}

/// Locks the lock in the list that the marker comes to last, and tells no barrier.
fn format_row<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let _ = format!("{:?}", world.first.mutexes().read(mc)[1]);
}

fn upgrade<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    keep(mc, world, world.weak.get().expect("it is set").upgrade(mc));
}

/// Gives the first object a new neighbour, which the marker may see at once.
fn alloc<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let new = mc.alloc(Node::open(world.first.open.load()));
    world.first.open.store(mc, Some(new));
}

/// As `alloc`, with a neighbour that only the root leads to.
fn alloc_kept<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    world.kept.store(mc, Some(mc.alloc(Node::open(None))));
}

#[test]
fn the_thread_alone() {
    beside(mutexes, &[], End::Any);
}

#[test]
fn what_a_session_moves_is_not_lost() {
    beside(atomics, &[move_open], End::After);
    beside(atomics, &[move_open], End::Any);
}

#[test]
fn what_a_session_moves_out_of_a_mutex_is_not_lost() {
    beside(mutexes, &[move_held], End::After);
    beside(mutexes, &[move_held], End::Any);
}

#[test]
fn a_try_lock_does_not_fail_because_of_the_marker() {
    beside(mutexes, &[try_move_held], End::After);
}

#[test]
fn what_is_locked_without_a_barrier_is_traced_later() {
    beside(mutexes, &[format_held], End::After);
}

#[test]
fn two_sessions_move_what_is_open() {
    beside(atomics, &[move_open, move_second_open], End::After);
    beside(atomics, &[move_open, move_second_open], End::Any);
}

#[test]
fn two_sessions_move_an_object_and_what_it_holds() {
    beside(mixed, &[move_open, move_second_held], End::After);
}

#[test]
fn a_lock_within_a_lock_may_be_held() {
    beside(nested, &[format_nested, move_nested], End::After);
}

#[test]
fn the_thread_alone_at_a_list() {
    beside(list, &[], End::Any);
}

#[test]
fn what_a_session_moves_out_of_a_list_is_not_lost() {
    beside(list, &[move_listed], End::After);
    beside(list, &[move_listed], End::Any);
}

#[test]
fn a_list_that_is_locked_without_a_barrier_is_traced_later() {
    beside(list, &[format_listed], End::After);
}

#[test]
fn a_lock_within_a_list_may_be_held() {
    beside(rows, &[format_row], End::After);
}

#[test]
fn what_is_upgraded_is_not_lost() {
    beside(weak, &[upgrade], End::After);
    beside(weak, &[upgrade], End::Any);
}

#[test]
fn what_is_allocated_is_not_lost() {
    beside(atomics, &[alloc_kept], End::Any);
}

#[test]
fn what_is_allocated_may_be_seen_by_the_marker() {
    beside(atomics, &[alloc], End::After);
}

/// Threads that are started later.
type Backstage = Plain<std::sync::Mutex<Vec<Job>>>;
type Job = Box<dyn FnOnce() + Send>;

/// Takes the work that was lent last.
fn take(backstage: &Backstage) -> Job {
    backstage.lock().unwrap().pop().expect("work was lent")
}

/// Runs sessions beside a thread that clears, or sweeps, and ends the cycle. Then all that is
/// reachable has to be there, and `after` has to find it.
fn beside_phase(phase: Phase, world: Make, sessions: &'static [Session], end: End, after: Session) {
    explore(move || {
        let backstage = Backstage::default();
        let later = backstage.clone();
        let spawn: SpawnHelper = Plain::new(move |_, work| {
            later.lock().unwrap().push(work);
            Ok(())
        });
        let scene = Scene::with(Pacing::Manual, Some(spawn), world);
        scene.begin();
        while scene.heap.core.phase().get() != phase {
            take(&backstage)();
            scene.slice(Until::after(Duration::ZERO));
        }
        let mut threads = vec![self::spawn(take(&backstage))];
        threads.extend(sessions.iter().map(|&session| scene.mutator(session)));
        scene.end(threads, end);
        scene.mutator(after).join().unwrap();
        scene.slice(Until::END);
        scene.heap.verify_stopped().unwrap();
        let cleanups = scene.heap.core.client().stats();
        assert_eq!(cleanups.queued > 0, cleanups.registered > 0, "that of what is dead is");
        assert!(cleanups.queued <= 1 && cleanups.registered - cleanups.queued == cleanups.armed);
    });
}

/// An object that is alive, and one that is not, in one span. The root has a weak pointer to the
/// dead one.
fn half_dead<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let world = world(mc.alloc(Node::open(None)));
    let dead = mc.alloc(Node::open(None));
    world.weak.set(mc, mc.downgrade(dead)).unwrap_or_else(|_| unreachable!());
    world
}

/// The same, and both have a cleanup.
fn half_dead_with_cleanups<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let world = world(mc.alloc(Node::open(None)));
    for node in [world.first, mc.alloc(Node::open(None))] {
        mc.add_cleanup(node, || {});
    }
    world
}

/// The same, and no weak pointer leads to the record of the one that is alive.
fn half_dead_and_unknown<'gc>(mc: &Mutation<'gc, Shared>) -> World<'gc> {
    let world = world(mc.alloc(Node::open(None)));
    mc.alloc(Node::open(None));
    mc.downgrade(world.first);
    world
}

fn register<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    mc.add_cleanup(world.first, || {});
}

/// Downgrades an object whose record no weak pointer reaches.
fn downgrade<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let weak = mc.downgrade(world.first);
    world.weak.set(mc, weak).unwrap_or_else(|_| unreachable!());
}

/// Finds nothing dead.
fn find_none<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    assert!(world.weak.get().is_some_and(|weak| weak.upgrade(mc).is_none()));
}

/// Finds one record for one object.
fn find_record<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let weak = world.weak.get().expect("it is set");
    assert!(weak.upgrade(mc).is_some_and(|to| to.ptr_eq(world.first)), "it was cleared");
    assert!(weak.ptr_eq(mc.downgrade(world.first)), "an object has two records");
}

fn nothing<'gc>(_: &Mutation<'gc, Shared>, _: &'gc World<'gc>) {}

#[test]
fn what_is_dead_is_not_upgraded_while_it_is_cleared() {
    beside_phase(Phase::Clearing, half_dead, &[upgrade], End::After, find_none);
}

#[test]
fn what_is_downgraded_beside_a_clearing_has_one_record() {
    let world: Make = half_dead_and_unknown;
    beside_phase(Phase::Clearing, world, &[downgrade], End::After, find_record);
}

#[test]
fn what_is_allocated_beside_a_clearing_is_not_lost() {
    beside_phase(Phase::Clearing, half_dead, &[alloc_kept], End::Any, find_none);
}

#[test]
fn what_is_registered_beside_a_sweep_stays() {
    let world: Make = half_dead_with_cleanups;
    beside_phase(Phase::Sweeping, world, &[register], End::After, nothing);
}

#[test]
fn what_is_downgraded_beside_a_sweep_has_one_record() {
    let world: Make = half_dead_and_unknown;
    beside_phase(Phase::Sweeping, world, &[downgrade], End::After, find_record);
}

#[test]
fn what_is_allocated_beside_a_sweep_is_not_lost() {
    beside_phase(Phase::Sweeping, half_dead, &[alloc_kept], End::After, find_none);
    beside_phase(Phase::Sweeping, half_dead, &[alloc_kept], End::Any, find_none);
}

/// Runs sessions that allocate beside a collector that runs the whole cycle: within a session, if
/// it finds one where that allocates. Then all that is reachable has to be there.
fn within(world: Make, sessions: &'static [Session], after: Session) {
    explore(move || {
        let scene = Scene::with(Pacing::Manual, None, world);
        scene.begin();
        let mutators: Vec<_> = sessions.iter().map(|&session| scene.mutator(session)).collect();
        let stopped = scene.handshake().stop(true, || false, None).expect("it is not to be left");
        let within =
            if stopped.stopped.has_sessions { Until::END.within_sessions() } else { Until::END };
        scene.heap.run(stopped.stopped, within, &stopped);
        drop(stopped);
        mutators.into_iter().for_each(|mutator| mutator.join().unwrap());
        scene.here(after);
        scene.heap.verify_stopped().unwrap();
        // What is left, and one more.
        scene.slice(Until::END);
        scene.slice(Until::END);
        scene.here(after);
        scene.heap.verify_stopped().unwrap();
    });
}

/// Moves an object, and holds it while it allocates something.
fn move_slowly<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let moved = world.first.open.swap(mc, None);
    mc.alloc(Leaf::new(7));
    keep(mc, world, moved);
}

/// The same by a pointer under a mutex, which is locked meanwhile.
fn move_held_slowly<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let mut held = world.first.mutex().lock(mc);
    mc.alloc(Leaf::new(7));
    let moved = held.take();
    mc.alloc(Leaf::new(7_u8));
    keep(mc, world, moved);
}

/// Holds newborn objects while it allocates others.
fn alloc_slowly<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let new = mc.alloc(Node::open(None));
    mc.alloc(Leaf::new(7));
    let newer = mc.alloc(Node::open(Some(new)));
    mc.alloc(Leaf::new(7_u8));
    world.kept.store(mc, Some(newer));
    // The barrier looks at what was there. The mark may be over.
    world.kept.store(mc, Some(newer));
}

/// Upgrades what is alive, after it has allocated something. No drop glue keeps its span from being
/// swept meanwhile.
fn upgrade_slowly<'gc>(mc: &Mutation<'gc, Shared>, _: &'gc World<'gc>) {
    let new = mc.alloc(Leaf::new(7_u8));
    let weak = mc.downgrade(new);
    mc.alloc(Leaf::new(7));
    assert!(weak.upgrade(mc).is_some_and(|to| to.ptr_eq(new)), "it is alive");
}

/// Downgrades an object in whose span there are weak records, at first none of this one.
fn downgrade_slowly<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let weak = mc.downgrade(world.first);
    assert!(weak.upgrade(mc).is_some_and(|to| to.ptr_eq(world.first)), "it is alive");
    assert!(weak.ptr_eq(mc.downgrade(world.first)), "an object has two records");
}

/// Downgrades an object that another session may downgrade, too.
fn downgrade_too<'gc>(mc: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    let weak = mc.downgrade(world.first);
    let known = world.weak.get_or_init(mc, || weak);
    assert!(known.ptr_eq(weak), "an object has two records");
}

fn find_kept<'gc>(_: &Mutation<'gc, Shared>, world: &'gc World<'gc>) {
    assert!(world.kept.load().is_some());
}

#[test]
fn what_a_session_holds_while_it_is_parked_is_not_lost() {
    within(atomics, &[move_slowly], find_kept);
    within(mutexes, &[move_held_slowly], find_kept);
}

#[test]
fn what_is_born_before_and_after_a_session_is_parked_is_not_lost() {
    within(atomics, &[alloc_slowly], find_kept);
}

#[test]
fn what_is_alive_is_upgraded_after_a_session_was_parked() {
    within(half_dead, &[upgrade_slowly], upgrade_slowly);
}

#[test]
fn a_session_that_downgrades_is_parked_without_the_specials() {
    within(half_dead, &[downgrade_slowly], downgrade_slowly);
}

#[test]
fn what_two_sessions_downgrade_has_one_record() {
    explore(|| {
        let scene = Scene::with(Pacing::Manual, None, |mc| world(mc.alloc(Node::open(None))));
        let mutators = [scene.mutator(downgrade_too), scene.mutator(downgrade_too)];
        mutators.into_iter().for_each(|mutator| mutator.join().unwrap());
        scene.here(find_record);
        scene.heap.verify_stopped().unwrap();
        scene.slice(Until::END);
        scene.here(find_record);
        scene.heap.verify_stopped().unwrap();
    });
}

/// A session that allocates stops the others, and itself gets on with the cycle that a thread marks
/// for.
#[test]
fn a_session_gets_on_with_a_cycle_itself() {
    explore(|| {
        let spawn: SpawnHelper = Plain::new(|_, work| {
            spawn(work);
            Ok(())
        });
        let scene = Scene::with(Pacing::default(), Some(spawn), atomics);
        scene.begin();
        scene.heap.core.pacer().set_next_slice(0);
        scene.here(move_slowly);
        scene.heap.verify_stopped().unwrap();
        scene.slice(Until::END);
        scene.here(find_kept);
        scene.heap.verify_stopped().unwrap();
    });
}

/// A root is dropped while another thread scans the roots.
fn drop_root() {
    let roots = Plain::new(RootTable::new(HeapId::next()));
    let objects = [1, 2].map(|address| NonNull::without_provenance(NonZero::new(address).unwrap()));
    let kind = RootKind::of::<World<'static>>(Location::caller(), true);
    let numbers = objects.map(|object| roots.insert(object, kind));
    roots.begin_scan();
    let dropping = {
        let roots = roots.clone();
        spawn(move || roots.remove(numbers[0]))
    };
    let mut seen = Vec::new();
    while !roots.scan(1, |object| seen.push(object)) {}
    dropping.join().unwrap();
    roots.scan(1, |object| seen.push(object));
    assert!(objects.iter().all(|object| seen.contains(object)), "the scan has missed a root");
}

#[test]
fn a_root_is_found_that_is_dropped_before_the_scan_comes_to_it() {
    explore(drop_root);
}

/// A heap for which work is lent that nothing is done in: with what it is due at.
fn lender(due: u64) -> (Plain<Scene>, Plain<Background>) {
    let scene = Scene::with(Pacing::default(), None, atomics);
    scene.heap.core.pacer().set_next_slice(due);
    let background = Plain::new(Background::new(scene.heap.id()));
    (scene, background)
}

impl Scene {
    /// Lends a marker of an epoch.
    fn lend(&self, background: &Background, epoch: u32) {
        let mut marker = Marker::new(Strategy::Parallel);
        marker.epoch = epoch;
        background.lend(Loan { work: Work::Mark(marker, 0), core: self.heap.core.clone() });
    }

    /// Tells whether something is due although nothing is in use.
    fn is_due(&self) -> bool {
        self.heap.core.pacer().is_due(1)
    }
}

/// Takes back the marker, and gives its epoch.
fn recall(background: &Background) -> Option<u32> {
    let Work::Mark(marker, _) = background.recall(None).ok()??.work else {
        panic!("it is a marker")
    };
    Some(marker.epoch)
}

/// Lends a marker twice, and recalls it at any moment. A thread may be late, and find the second.
fn loans() {
    let (scene, background) = lender(7);
    let mut threads = Vec::new();
    for epoch in [1, 2] {
        // What the collector sets while it has the marker.
        scene.heap.core.pacer().set_next_slice(7);
        scene.lend(&background, epoch);
        let (sender, thread) = std::sync::mpsc::channel();
        let start = move |_, work| {
            sender.send(spawn(work)).unwrap();
            Ok(())
        };
        assert!(background.start(&start));
        // The second time, maybe the first thread is still coming.
        threads.extend(thread.try_recv());
        let returned = recall(&background).expect("the marker is lost");
        assert_eq!(returned, epoch, "it is that of another cycle");
        assert!(
            background.recall(None).is_ok_and(|work| work.is_none()),
            "the marker is in two places"
        );
        scene.heap.core.pacer().set_next_slice(7);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(!scene.is_due(), "a slice is due that has been run");
    assert_eq!(Plain::strong_count(&scene.heap.core), 2, "a thread has kept the heap");
}

#[test]
fn a_marker_on_loan_is_in_one_place() {
    explore(loans);
}

/// Recalls the first of two loans at any moment. A thread works on the second, a new one or that
/// of the first, which is late.
fn second_loan() {
    let (scene, background) = lender(1);
    let (sender, threads) = std::sync::mpsc::channel();
    let start = move |_, work| {
        sender.send(spawn(work)).unwrap();
        Ok(())
    };
    scene.lend(&background, 1);
    assert!(background.start(&start));
    assert_eq!(recall(&background), Some(1), "the marker is lost");
    scene.heap.core.pacer().set_next_slice(1);
    scene.lend(&background, 1);
    assert!(background.start(&start));
    threads.try_iter().for_each(|thread| thread.join().unwrap());
    assert!(scene.is_due(), "no thread has come for the second loan");
}

#[test]
fn a_loan_has_a_thread_although_that_of_the_last_one_is_late() {
    explore(second_loan);
}

/// A thread that has nothing left to trace makes the next slice due.
fn done() {
    let (scene, background) = lender(1);
    scene.lend(&background, 1);
    let thread = {
        let background = background.clone();
        spawn(move || background.work())
    };
    thread.join().unwrap();
    assert!(scene.is_due());
    assert!(background.recall(None).is_ok_and(|work| work.is_some()));
}

#[test]
fn a_thread_that_is_done_makes_a_slice_due() {
    explore(done);
}

/// No thread comes.
#[test]
fn a_marker_that_no_thread_takes_comes_back() {
    explore(|| {
        let (scene, background) = lender(1);
        scene.lend(&background, 1);
        assert!(background.recall(None).is_ok_and(|work| work.is_some()));
        assert!(background.recall(None).is_ok_and(|work| work.is_none()));
    });
}

/// A lock outside of every heap, and the code that ships around it.
type Lock = lock_api::Mutex<RawGcMutex, Watched>;

/// Locks it as a marker does. Tells whether it got it.
fn mark(lock: &Lock) -> bool {
    // SAFETY: the raw lock is not unlocked by it.
    let raw = unsafe { lock.raw() };
    // SAFETY: trace glue writes nothing, and the marker has the lock.
    raw.visit(&mut || unsafe { &*lock.data_ptr() }.read())
}

/// Locks it as a session's `try_lock` does. Tells whether it got it.
fn try_lock(lock: &Lock) -> bool {
    // SAFETY: the raw lock is not unlocked by it.
    let raw = unsafe { lock.raw() };
    raw.visits.retry(|| lock.try_lock()).inspect(|watched| watched.write()).is_some()
}

/// Locks it as a session's `lock` does that finds it free. It does not wait: of two threads that
/// wait, loom runs one after the other, and never the third that they wait for.
fn lock_if_free(lock: &Lock) -> bool {
    lock.try_lock().inspect(|watched| watched.write()).is_some()
}

/// Has sessions and a marker come to a lock at a time, the marker some times.
fn contend(sessions: &[fn(&Lock) -> bool], visits: usize) {
    let lock = Plain::new(Lock::new(Watched::new()));
    // SAFETY: the raw lock is not unlocked by it.
    unsafe { lock.raw() }.settle();
    let got = Plain::new(AtomicUsize::new(0));
    let threads: Vec<_> = sessions
        .iter()
        .map(|session| {
            let (lock, got, session) = (lock.clone(), got.clone(), *session);
            spawn(move || _ = got.fetch_add(usize::from(session(&lock)), Relaxed))
        })
        .collect();
    (0..visits).for_each(|_| _ = mark(&lock));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(got.load(Relaxed) > 0, "the marker has kept a session from the lock");
    assert!(mark(&lock), "it was not unlocked");
}

#[test]
fn a_marker_keeps_no_session_from_a_lock() {
    explore(|| contend(&[try_lock], 1));
}

#[test]
fn a_marker_that_comes_again_keeps_no_session_from_a_lock() {
    explore(|| contend(&[try_lock], 2));
}

#[test]
fn a_marker_keeps_no_two_sessions_from_a_lock() {
    explore(|| contend(&[try_lock, lock_if_free], 1));
}
