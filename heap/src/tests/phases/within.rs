//! Cycles that go on within sessions of a `Shared` heap, where those allocate.

use std::panic::resume_unwind;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use sexton_cleanup::Description;

use super::*;
use crate::collect::mutator::Due;
use crate::session::mode::Payload;

/// Threads that work beside sessions, each started at once.
fn beside() -> HeapConfig {
    let spawn: SpawnHelper = Arc::new(|number, work| {
        // Others help within a stop.
        if number > 0 {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        thread::Builder::new().spawn(work).map(drop)
    });
    HeapConfig { spawn_helper: Some(spawn), ..alone() }
}

/// No thread works beside sessions.
fn alone() -> HeapConfig {
    let pacing = Pacing::Automatic { min_bytes: 1 << 20, growth: 0.5 };
    HeapConfig { gc_threads: Some(2), pacing, ..config() }
}

/// Allocates what is garbage at once, until `is_over`. Gives the phases that it has seen.
fn allocate_until<M: Mode>(
    heap: &RawHeap<World<'static>, M>,
    mc: &Mutation<'_, M>,
    mut is_over: impl FnMut() -> bool,
) -> Vec<Phase>
where
    Leaf<[u64; 32]>: Payload<M>,
{
    let mut passed = vec![heap.core.phase().get()];
    let began = Instant::now();
    while !is_over() {
        assert!(began.elapsed() < Duration::from_secs(60), "it stays in {passed:?}");
        // More than a refill.
        (0..256).for_each(|_| _ = mc.alloc(Leaf::new([0_u64; 32])));
        let phase = heap.core.phase().get();
        if passed.last() != Some(&phase) {
            passed.push(phase);
        }
        // What is waited for may need the processor.
        thread::yield_now();
    }
    passed
}

impl Stage {
    fn dropped(&self) -> usize {
        (0..MOST).filter(|&id| self.drops.of(id) > 0).count()
    }
}

/// Runs a body whose threads wait for one another for ever if it fails. They are left behind then.
#[track_caller]
fn in_shared_and_in_time(
    config: HeapConfig,
    f: impl FnOnce(&mut RawMutator<'_, World<'static>>, &Stage) + Send + 'static,
) {
    let (ended, is_over) = channel();
    let body = thread::spawn(move || {
        in_shared(config, f);
        _ = ended.send(());
    });
    // If the body panics no sender is left, and the panic is the one to show.
    match is_over.recv_timeout(Duration::from_secs(60)) {
        Err(RecvTimeoutError::Timeout) => panic!("its threads wait for one another"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
    }
    body.join().unwrap_or_else(|payload| resume_unwind(payload));
}

/// Opens a session on this thread that waits for a lock of another one, and says so before.
fn wait_for_weaks(heap: &RawHeap<World<'static>, Shared>, at_lock: &Sender<()>) {
    let mut waits = heap.attach().expect("it is the first here");
    waits.mutate(|mc, world| {
        at_lock.send(()).expect("the test waits");
        assert!(world.weaks.lock(mc).is_empty());
    });
}

/// Makes `NODES` live nodes and three times as many dead ones, and begins a cycle.
fn begin(play: &mut RawMutator<'_, World<'static>>, stage: &Stage) {
    fill(play, stage);
    play.session(|mc, world| world.links.lock(mc).nodes.clear());
    fill(play, stage);
    assert!(!Play::step(play).is_finished());
}

#[test]
fn a_cycle_ends_within_a_session_that_allocates() {
    in_shared(beside(), |play, stage| {
        begin(play, stage);
        let (heap, here) = (play.heap, thread::current().id());
        let is_over = || heap.core.phase().get() == Phase::Idle;
        play.session(|mc, world| {
            // What the session holds: behind a guard, on the stack, and newborn.
            let mut held = world.links.lock(mc);
            let first = held.nodes[0];
            let second = first.next.swap(mc, None).expect("it is linked");
            let new = mc.alloc(stage.node(Some(second)));
            let passed = allocate_until(heap, mc, is_over);
            assert!(passed[0] != Phase::Idle, "it has ended too soon");
            for node in [first, second, new] {
                assert_eq!(stage.drops.of(node.id), 0, "the session holds it");
            }
            first.next.store(mc, Some(new));
            let mut rounds = 0..1000;
            let passed = allocate_until(heap, mc, || rounds.next().is_none());
            assert_eq!(passed, [Phase::Idle], "a cycle has begun within a session");
            assert!(mc.collection_due());
            held.nodes[0] = first;
        });
        assert_eq!(stage.dropped(), 3 * NODES, "what was dead");
        assert!(!stage.droppers.lock().unwrap().contains(&here), "`alloc` has run drop glue");
        let report = heap.last_report().expect("it has ended");
        assert_eq!((report.cycle, report.swept_objects), (1, 3 * NODES as u64));
        assert_eq!(report.queued_cleanups, 3 * NODES as u64);
        assert!(!report.assist_time.is_zero() && report.assist_time < report.pause_time);
        assert_eq!(heap.stats().assist_time, report.assist_time);
        assert!(report.background_time > Duration::ZERO);
        Play::verify(play);
        assert_eq!(list(play, stage).len(), NODES + 1);
        assert_in_order(play, stage);
    });
}

/// Without a thread what has drop glue waits for the end of the session, and all else does not.
#[test]
fn drop_glue_waits_for_the_end_of_a_session_that_allocates() {
    in_shared(alone(), |play, stage| {
        play.session(|mc, _| (0..NODES).for_each(|_| _ = mc.alloc(Leaf::new([0_u64; 32]))));
        begin(play, stage);
        let heap = play.heap;
        let bytes = || heap.core.space().committed_bytes();
        play.session(|mc, _| {
            let mut most = 0;
            allocate_until(heap, mc, || {
                most = most.max(bytes());
                // The leaves are swept.
                heap.core.phase().get() == Phase::Sweeping && bytes() + (1 << 20) < most
            });
            let mut rounds = 0..1000;
            let passed = allocate_until(heap, mc, || rounds.next().is_none());
            assert_eq!(passed, [Phase::Sweeping]);
            assert_eq!(stage.dropped(), 0, "`alloc` has run drop glue");
            assert_eq!(heap.client().stats().queued, 0);
        });
        Play::verify(play);
        finish(play);
        assert_eq!(stage.dropped(), 3 * NODES);
        assert_in_order(play, stage);
    });
}

/// A session that allocates is parked, for the slices that the ends of others run.
#[test]
fn the_ends_of_sessions_get_on_with_a_cycle_within_another_that_allocates() {
    in_shared(beside(), |play, stage| {
        begin(play, stage);
        let heap = play.heap;
        let is_over = || heap.core.phase().get() == Phase::Idle;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = heap.attach().expect("it is the first here");
                while !is_over() {
                    let ((), due) = other.mutate(|mc, _| _ = mc.alloc(Leaf::new(7)));
                    due.into_iter().for_each(|due| _ = other.collect_if_due(due));
                }
            });
            play.session(|mc, _| _ = allocate_until(heap, mc, is_over));
        });
        assert_eq!(stage.dropped(), 3 * NODES);
        assert_eq!(list(play, stage).len(), NODES);
        assert_in_order(play, stage);
    });
}

/// One session allocates while it has a lock that another one waits for. A stop that waits for both
/// does not keep the first one from going on.
#[test]
fn a_session_that_is_waited_for_is_not_parked_for_long() {
    // No slice is due but the one that the test runs.
    in_shared_and_in_time(config(), |play, stage| {
        begin(play, stage);
        let heap = play.heap;
        let (at_lock, is_at_lock) = channel();
        thread::scope(|scope| {
            play.session(|mc, world| {
                let held = world.weaks.lock(mc);
                scope.spawn(move || wait_for_weaks(heap, &at_lock));
                is_at_lock.recv().expect("the other is about to wait");
                let stops = scope.spawn(move || {
                    let mut stops = heap.attach().expect("it is the first here");
                    stops.collect_if_due(Due { after: heap.core.steps(), collects: true })
                });
                allocate_until(heap, mc, || mc.gc_pending());
                // Some dozen refills.
                let mut rounds = 0..20;
                allocate_until(heap, mc, || rounds.next().is_none());
                assert!(mc.gc_pending(), "one of the three went on without the others");
                drop(held);
                // The one that has waited ends, or has ended, and so this one is not.
                let steps = heap.core.steps();
                allocate_until(heap, mc, || stops.is_finished() || heap.core.steps() > steps);
            });
        });
        finish(play);
        assert_in_order(play, stage);
    });
}

/// Drop glue on a thread waits for what a session has, which allocates and finds a slice due.
#[test]
fn a_session_does_not_wait_for_drop_glue_that_waits_for_it() {
    let backstage = Backstage::default();
    let pacing = alone().pacing;
    let config = HeapConfig { pacing, ..backstage.config() };
    in_shared_and_in_time(config, move |play, stage| {
        begin(play, stage);
        while play.phase() != Phase::Sweeping {
            backstage.work();
            assert!(!Play::step(play).is_finished());
        }
        let (gate, at_gate) = stage.gate();
        let sweeping = thread::spawn(backstage.take());
        at_gate.recv().expect("something is dropped");
        let heap = play.heap;
        play.session(|mc, _| {
            let steps = heap.core.steps();
            allocate_until(heap, mc, || heap.core.steps() >= steps + 3);
            assert_eq!(heap.core.phase().get(), Phase::Sweeping);
            gate.send(()).expect("it waits");
        });
        sweeping.join().expect("it catches what is thrown");
        Play::verify(play);
        finish(play);
        assert_eq!(stage.dropped(), 3 * NODES);
        assert_in_order(play, stage);
    });
}

/// Trace glue that panics in a slice within a session: the session goes on.
#[test]
fn a_panic_of_trace_glue_within_a_session_comes_out_at_its_end() {
    in_shared(alone(), |play, stage| {
        begin(play, stage);
        let heap = play.heap;
        stage.bomb.arm();
        let ((), due) = play.mutate(|mc, _| {
            allocate_until(heap, mc, || !stage.bomb.is_armed());
            let mut rounds = 0..100;
            allocate_until(heap, mc, || rounds.next().is_none());
        });
        let due = due.expect("what was thrown is due");
        boom(|| play.collect_if_due(due));
        assert_eq!(stage.dropped(), 0);
        assert_in_order(play, stage);
    });
}

/// A session downgrades while another runs slices, which look into the tables of weak pointers.
#[test]
fn a_session_that_downgrades_is_parked_with_nothing_locked() {
    in_shared(beside(), |play, stage| {
        fill(play, stage);
        let heap = play.heap;
        for _ in 0..3 {
            assert!(!Play::step(play).is_finished());
            play.session(|mc, world| {
                let mut weaks = Vec::new();
                let is_over = || heap.core.phase().get() == Phase::Idle;
                allocate_until(heap, mc, || {
                    let start = world.links.lock(mc).nodes.first().copied();
                    let nodes = std::iter::successors(start, |node| node.next.load());
                    weaks = nodes.map(|node| mc.downgrade(node)).collect();
                    is_over()
                });
                let alive = weaks.iter().filter(|weak| weak.upgrade(mc).is_some()).count();
                assert_eq!(alive, NODES);
            });
            Play::verify(play);
        }
        assert_in_order(play, stage);
    });
}

/// What the limit refuses without a slice is there with one.
#[test]
fn a_session_that_meets_the_limit_gets_the_room_of_unswept_garbage() {
    in_shared(small(alone()), |play, stage| {
        assert_eq!(fill_up(play), SMALL);
        assert_eq!(fill_up(play), 0);
        assert!(!Play::step(play).is_finished());
        assert_eq!(fill_up(play), SMALL);
        assert_in_order(play, stage);
    });
}

/// What follows a cycle may run the user's code, and so waits for the end of a session.
#[test]
fn the_end_of_a_session_tells_of_a_cycle_that_has_ended_within_one() {
    let limited = HeapConfig { max_bytes: 1 << 20, ..alone() };
    in_shared(HeapConfig { pacing: Pacing::Manual, ..limited }, |play, stage| {
        let fill_up = |play: &mut RawMutator<'_, World<'static>>| {
            let ((), due) =
                play.mutate(|mc, _| while mc.try_alloc(Leaf::new([0_u64; 32])).is_ok() {});
            due
        };
        assert!(fill_up(play).is_none(), "no cycle has ended");
        assert!(!Play::step(play).is_finished());
        let (due, cycles) = (fill_up(play).expect("one has ended"), play.heap.stats().cycles);
        // Nor is what a thread is told that cannot act on it.
        let mut in_cleanup = None;
        let heap = play.heap;
        let work = || in_cleanup = Some(play.collect_if_due(due));
        heap.core.client().run_as_cleanup(work, Description::of::<Phase>(None, None));
        assert_eq!(in_cleanup, Some(false));
        assert!(play.collect_if_due(due));
        assert!(!play.collect_if_due(due), "it is told of once");
        assert!(fill_up(play).is_none());
        assert_eq!(play.heap.stats().cycles, cycles, "no cycle was due");
        assert_in_order(play, stage);
    });
}

/// A mutator finds a cycle due while another one runs it. It waits where it can help.
#[test]
fn a_mutator_with_a_cycle_due_is_there_to_help_with_that_of_another() {
    in_shared(config(), |play, stage| {
        fill(play, stage);
        play.session(|mc, world| world.links.lock(mc).nodes.clear());
        let heap = play.heap;
        let due = Due { after: heap.core.steps(), collects: true };
        let (gate, at_gate) = stage.gate();
        thread::scope(|scope| {
            let waits = scope.spawn(move || {
                at_gate.recv().expect("something is dropped");
                thread::scope(|scope| {
                    let other = scope.spawn(|| {
                        let mut other = heap.attach().expect("it is the first here");
                        other.collect_if_due(due)
                    });
                    let began = Instant::now();
                    let mut waits = false;
                    while !waits && began.elapsed() < Duration::from_secs(30) {
                        thread::yield_now();
                        waits = heap.core.mutators().waiting() == 1;
                    }
                    gate.send(()).expect("a drop waits");
                    assert!(!other.join().expect("it does not panic"), "it has run a second one");
                    waits
                })
            });
            assert!(Play::collect(play).dropped_objects > 0);
            assert!(waits.join().expect("it does not panic"), "it waits where no job is offered");
        });
        assert_in_order(play, stage);
    });
}

/// Objects of 256 bytes that a heap of `small` has room for.
const SMALL: usize = 8000;

/// Nothing collects but `step` and sessions that meet the limit.
fn small(config: HeapConfig) -> HeapConfig {
    HeapConfig { max_bytes: (SMALL * 256) as u64, pacing: Pacing::Manual, ..config }
}

/// Allocates garbage until the limit is met. Gives how much.
fn fill_up(play: &mut RawMutator<'_, World<'static>>) -> usize {
    play.session(|mc, _| {
        let objects = || mc.try_alloc(Leaf::new([0_u64; 32])).is_ok().then_some(());
        std::iter::from_fn(objects).count()
    })
}

/// Another session goes on without an allocation for longer than the one that needs room tries to
/// stop it. It does not wait for that one, so it ends.
#[test]
fn a_session_that_meets_the_limit_waits_for_one_that_goes_on() {
    in_shared(small(alone()), |play, stage| {
        assert_eq!(fill_up(play), SMALL);
        assert!(!Play::step(play).is_finished());
        let heap = play.heap;
        let (open, is_open) = channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut goes_on = heap.attach().expect("it is the first here");
                goes_on.mutate(|_, _| {
                    open.send(()).expect("the test waits");
                    let began = Instant::now();
                    while !heap.core.mutators().has_stopped_in_vain() {
                        assert!(began.elapsed() < Duration::from_secs(60), "no session needs room");
                        thread::yield_now();
                    }
                });
            });
            is_open.recv().expect("the other is open");
            assert_eq!(fill_up(play), SMALL);
        });
        assert_in_order(play, stage);
    });
}

/// Another session waits for one that needs room, which is refused in the end.
#[test]
fn a_session_that_meets_the_limit_and_is_waited_for_is_refused() {
    in_shared_and_in_time(small(alone()), |play, stage| {
        assert_eq!(fill_up(play), SMALL);
        assert!(!Play::step(play).is_finished());
        let heap = play.heap;
        let (at_lock, is_at_lock) = channel();
        thread::scope(|scope| {
            play.session(|mc, world| {
                let held = world.weaks.lock(mc);
                scope.spawn(move || wait_for_weaks(heap, &at_lock));
                is_at_lock.recv().expect("the other is about to wait");
                let is_refused = |_| mc.try_alloc(Leaf::new([0_u64; 32])).is_err();
                assert!((0..=SMALL).any(is_refused));
                drop(held);
            });
        });
        assert_eq!(fill_up(play), SMALL);
        assert_in_order(play, stage);
    });
}

/// A collector waits for the session that needs room to end, so the session cannot stop the others.
#[test]
fn a_session_that_meets_the_limit_does_not_wait_for_a_collector_that_waits_for_it() {
    in_shared_and_in_time(small(alone()), |play, stage| {
        assert_eq!(fill_up(play), SMALL);
        assert!(!Play::step(play).is_finished());
        let heap = play.heap;
        thread::scope(|scope| {
            play.session(|mc, _| {
                scope.spawn(move || {
                    let mut collects = heap.attach().expect("it is the first here");
                    collects.collect();
                });
                while !mc.gc_pending() {
                    thread::yield_now();
                }
                assert!(mc.try_alloc(Leaf::new([0_u64; 32])).is_err());
            });
        });
        assert_eq!(fill_up(play), SMALL);
        assert_in_order(play, stage);
    });
}

/// The mark that a session needs to the end does not keep the others stopped for all of it.
#[test]
fn a_session_that_meets_the_limit_stops_the_others_for_slices() {
    // A slice traces as few objects as it can.
    let shortest = HeapConfig { pause_budget: Some(Duration::ZERO), ..alone() };
    in_shared(HeapConfig { max_bytes: 8 << 20, ..small(shortest) }, |play, stage| {
        fill(play, stage);
        let garbage = fill_up(play);
        assert!(!Play::step(play).is_finished());
        let steps = play.heap.core.steps();
        let got = fill_up(play);
        assert!(got > garbage / 10 * 9, "{got} of {garbage}");
        assert!(play.heap.core.steps() - steps > NODES as u64 / 1024);
        assert_in_order(play, stage);
    });
}

/// What drop glue keeps a thread busy with makes room, too, and no session runs it.
#[test]
fn a_session_that_meets_the_limit_waits_for_a_thread_that_runs_drop_glue() {
    in_shared(HeapConfig { max_bytes: 16 << 20, ..small(beside()) }, |play, stage| {
        begin(play, stage);
        let here = thread::current().id();
        play.session(|mc, _| while mc.try_alloc(Leaf::new([0_u64; 32])).is_ok() {});
        assert_eq!(stage.dropped(), 3 * NODES, "what was dead");
        assert!(!stage.droppers.lock().unwrap().contains(&here), "`alloc` has run drop glue");
        assert_in_order(play, stage);
    });
}

/// Sessions of some threads, of which each allocates a sixteenth of the limit, and keeps nothing.
/// With a cycle due at a half, all together never need more.
#[test]
fn threads_that_make_garbage_below_the_limit_are_never_refused() {
    const THREADS: usize = 3;
    let pacing = Pacing::Automatic { min_bytes: 1 << 18, growth: 1.0 };
    for config in [alone(), beside()] {
        let config = HeapConfig { pacing, ..small(config) };
        in_shared(config, |play, stage| {
            let heap = play.heap;
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(move || {
                        let mut mutator = heap.attach().expect("it is the first here");
                        for session in 0..400 {
                            let ((), due) = mutator.mutate(|mc, _| {
                                for at in 0..SMALL / 16 {
                                    let refused = |full| panic!("session {session}: {full}");
                                    mc.try_alloc(Leaf::new([0_u64; 32])).unwrap_or_else(refused);
                                    if at % 64 == 0 {
                                        thread::yield_now();
                                    }
                                }
                            });
                            due.into_iter().for_each(|due| _ = mutator.collect_if_due(due));
                        }
                    });
                }
            });
            assert!(heap.stats().cycles > 10);
            assert_in_order(play, stage);
        });
    }
}

/// A payload that must not be traced while a session has it locked.
struct Private<'gc> {
    is_locked: Arc<AtomicBool>,
    was_traced: Arc<AtomicBool>,
    others: Vec<Gc<'gc, Guarded<'gc>>>,
}

struct Guarded<'gc>(GcMutex<Private<'gc>>);

impl Guarded<'_> {
    fn new(is_locked: &Arc<AtomicBool>, was_traced: &Arc<AtomicBool>) -> Self {
        Guarded(GcMutex::new(Private {
            is_locked: is_locked.clone(),
            was_traced: was_traced.clone(),
            others: Vec::new(),
        }))
    }
}

// SAFETY: all pointers are reported; nothing implements `Drop` that reads one; the family is the
// type with its brand open.
unsafe impl<'gc> Trace<'gc> for Private<'gc> {
    type Family = Private<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.was_traced.fetch_or(self.is_locked.load(SeqCst), SeqCst);
        self.others.trace(tracer);
    }
}

// SAFETY: as above.
unsafe impl<'gc> Trace<'gc> for Guarded<'gc> {
    type Family = Guarded<'static>;
    const NEEDS_TRACE: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.0.trace(tracer);
    }
}

// SAFETY: as above.
unsafe impl Branded for Private<'static> {
    type At<'gc> = Private<'gc>;
}

// SAFETY: as above.
unsafe impl Branded for Guarded<'static> {
    type At<'gc> = Guarded<'gc>;
}

/// With a quota short a session's end runs the rest of the mark, although another session is
/// parked. What that one has locked is not read, by no thread that could help.
#[test]
fn no_helper_traces_what_a_parked_session_has_locked() {
    const WIDE: usize = 40_000;
    const LOCKED: usize = 1000;
    let helped = Arc::new(AtomicUsize::new(0));
    let spawn: SpawnHelper = {
        let helped = helped.clone();
        Arc::new(move |number, work| {
            if number == 0 {
                return Err(std::io::ErrorKind::OutOfMemory.into());
            }
            helped.fetch_add(1, SeqCst);
            thread::Builder::new().spawn(work).map(drop)
        })
    };
    let pacing = Pacing::Automatic { min_bytes: 1 << 40, growth: 1.0 };
    let config = HeapConfig { gc_threads: Some(3), spawn_helper: Some(spawn), pacing, ..config() };
    let client = Client::new(&Pool::new(PoolConfig::default(), None));
    let was_traced = Arc::new(AtomicBool::new(false));
    let never = Arc::new(AtomicBool::new(false));
    let heap: RawHeap<Guarded<'static>, Shared> =
        RawHeap::new(client, config, |_| Guarded::new(&never, &was_traced));
    let heap = &heap;
    let mut mutator = heap.attach().expect("it is the first here");
    let (quota, _) = mutator.mutate(|mc, root| {
        let others = (0..WIDE).map(|_| mc.alloc(Guarded::new(&Arc::default(), &was_traced)));
        root.0.lock(mc).others.extend(others);
        mc.quota(4)
    });
    assert!(!mutator.step(Duration::ZERO).is_finished());
    let (ready, is_ready) = channel();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut mutator = heap.attach().expect("it is the first here");
            mutator.mutate(|mc, root| {
                let others = root.0.lock(mc).others.clone();
                let chosen = others.iter().step_by(WIDE / LOCKED);
                let locked: Vec<_> = chosen
                    .map(|one| {
                        let guard = one.0.lock(mc);
                        guard.is_locked.store(true, SeqCst);
                        guard
                    })
                    .collect();
                ready.send(()).expect("the test waits");
                let began = Instant::now();
                while !is_over.load(SeqCst) {
                    assert!(began.elapsed() < Duration::from_secs(60), "the cycle does not end");
                    mc.alloc(Leaf::new([0_u64; 32]));
                }
                locked.iter().for_each(|guard| guard.is_locked.store(false, SeqCst));
            });
        });
        is_ready.recv().expect("it locks all of them");
        let ((), due) = mutator.mutate(|_, _| quota.charge(4));
        mutator.collect_if_due(due.expect("the quota is used up"));
        is_over.store(true, SeqCst);
    });
    assert!(!was_traced.load(SeqCst), "a locked cell was read");
    assert_eq!(helped.load(SeqCst), 0, "a thread has helped beside a parked session");
    drop(quota);
    drop(mutator);
}
