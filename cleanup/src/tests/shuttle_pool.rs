//! The whole crate at work: heaps that register and collect, meddlers that stop cleanups and run
//! them early, and a helping thread. Workers come, die and leave. A ledger knows the end of each
//! cleanup.

use super::fault;
use super::models::take_tails;
use crate::{
    Cleanup, CleanupState, Client, Head, Hooks, Pool, PoolConfig, Registrar, Role, Spawn, Ticket,
    WaitError, in_cleanup,
};
use sexton_sync::explored;
use sexton_sync::explorer::{Strategy, explore};
use sexton_sync::{Arc, Condvar, Mutex, thread};
use shuttle::rand::{Rng, thread_rng};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const HEAPS: usize = 3;
/// Heaps that one thread has, one after the other.
const LIVES: usize = 2;
/// Collections of one heap.
const CYCLES: usize = 3;

explored! {
    four_workers_until_all_is_done: || day(4, Shutdown::AfterWork);
    /// The pool is closed while heaps still collect: the cleanups that it does not run, it
    /// discards.
    four_workers_shut_down_amid_the_work: || day(4, Shutdown::AmidWork);
    /// When it dies, no thread is left that could look after its work.
    one_mortal_worker_until_all_is_done: || day(1, Shutdown::AfterWork);
    /// A thread that waits helps.
    a_manual_pool_until_all_is_done: || day(0, Shutdown::AfterWork);
    a_manual_pool_closed_amid_the_work: || day(0, Shutdown::AmidWork);
}

/// Or a schedule could not be replayed.
#[test]
fn nothing_but_the_schedule_decides() {
    explore(&[Strategy::Twice], || day(4, Shutdown::AmidWork));
}

/// A number below `n`, part of the schedule.
fn below(n: u32) -> u32 {
    thread_rng().gen_range(0..n)
}

// ---- the ledger
// ----------------------------------------------------------------------------------------

/// The end of one cleanup. These are the standard library's atomics: the ledger adds no scheduling
/// points.
#[derive(Default)]
struct Fate {
    panics: bool,
    ran: AtomicU32,
    dropped: AtomicU32,
    stopped: AtomicBool,
    ran_early: AtomicBool,
}

impl Fate {
    fn ran(&self) -> bool {
        self.ran.load(Ordering::Relaxed) > 0
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn ran_early(&self) -> bool {
        self.ran_early.load(Ordering::Relaxed)
    }

    fn panicked(&self) -> bool {
        self.panics && self.ran()
    }

    /// How often it ran, and how often its captures were dropped.
    fn counts(&self) -> (u32, u32) {
        (self.ran.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    fn has_ended(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) > 0
    }
}

fn count(fates: &[Arc<Fate>], which: impl Fn(&Fate) -> bool) -> u64 {
    fates.iter().filter(|fate| which(fate)).count() as u64
}

/// The captures of a cleanup.
struct Capture(Arc<Fate>);

impl Capture {
    fn run(self) {
        self.0.ran.fetch_add(1, Ordering::Relaxed);
        assert!(in_cleanup());
        if self.0.panics {
            // Not by `panic!`, whose hook would print a schedule for each of these.
            resume_unwind(Box::new("a cleanup that panics"));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

// ---- the actors
// ----------------------------------------------------------------------------------------

/// The state that the actors share.
struct World {
    pool: Arc<Pool>,
    /// Every cleanup there is. Not shuttle's lock: no scheduling points.
    fates: std::sync::Mutex<Vec<Arc<Fate>>>,
    /// Handles for the meddlers, and whether more will come.
    handles: Mutex<(Vec<Arc<Handle>>, bool)>,
    offered: Condvar,
}

struct Handle {
    cleanup: Cleanup,
    fate: Arc<Fate>,
}

/// An object with cleanups.
struct Object {
    chain: Head,
    fates: Vec<Arc<Fate>>,
}

impl World {
    /// Lets an actor act, on a thread of its own.
    fn start<R: Send + 'static>(
        self: &Arc<Self>,
        act: fn(&Arc<Self>) -> R,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || act(&world))
    }

    /// Runs a few cleanups, and leaves rests of blocks to others.
    fn help(self: &Arc<Self>) {
        for max in 1..6 {
            self.pool.run_pending(max);
        }
    }

    /// Takes the tail of whatever block is in hand over, as the monitor does with one that has
    /// stalled.
    fn requeue_tail(self: &Arc<Self>) {
        for _ in 0..12 {
            take_tails(&self.pool);
            thread::yield_now();
        }
    }

    /// Registers a cleanup in front of `chain`; half of the handles are offered to the meddlers,
    /// some twice.
    fn register(
        self: &Arc<Self>,
        registrar: &mut Registrar,
        client: &Client,
        chain: Option<Head>,
    ) -> (Head, Arc<Fate>) {
        let fate = Arc::new(Fate { panics: below(8) == 0, ..Fate::default() });
        self.fates.lock().unwrap().push(fate.clone());
        let capture = Capture(fate.clone());
        let (head, cleanup) = match below(4) {
            0 => {
                // Boxed, and a nuisance: it does what cleanups must not.
                let (world, client, handle) = (self.clone(), client.clone(), [0u8; 32]);
                registrar.register(chain, move || {
                    assert_eq!(world.pool.run_pending(1) + usize::from(handle[0]), 0);
                    let waited = client.ticket().wait(Duration::MAX);
                    assert_eq!(waited, Err(WaitError::FromCleanup));
                    capture.run();
                })
            }
            _ => registrar.register(chain, move || capture.run()),
        };
        let handle = Arc::new(Handle { cleanup, fate: fate.clone() });
        let times = below(4).saturating_sub(1);
        let mut handles = self.handles.lock();
        handles.0.extend((0..times).map(|_| handle.clone()));
        drop(handles);
        self.offered.notify_all();
        (head, fate)
    }

    /// The next handle, any of those on offer. `None`: no more will come.
    fn handle(&self) -> Option<Arc<Handle>> {
        let mut handles = self.handles.lock();
        while handles.0.is_empty() && handles.1 {
            self.offered.wait(&mut handles);
        }
        let n = handles.0.len() as u32;
        (n > 0).then(|| handles.0.swap_remove(below(n) as usize))
    }

    /// Stops cleanups and runs them early, whatever their objects do. Gives the handles, for a last
    /// look.
    fn meddle(self: &Arc<Self>) -> Vec<Arc<Handle>> {
        let mut seen = Vec::new();
        while let Some(handle) = self.handle() {
            let Handle { cleanup, fate } = &*handle;
            let mut done = true;
            match below(3) {
                0 if cleanup.stop() => {
                    assert!(!fate.stopped.swap(true, Ordering::Relaxed));
                    assert_eq!(
                        fate.counts(),
                        (0, 1),
                        "its captures are dropped when `stop` returns"
                    );
                }
                1 if cleanup.run_now() => {
                    assert!(!fate.ran_early.swap(true, Ordering::Relaxed));
                    assert_eq!(fate.counts(), (1, 1));
                }
                0 | 1 => {}
                _ => done = false,
            }
            let state = cleanup.state();
            let pending = matches!(state, CleanupState::Armed | CleanupState::Queued);
            assert!(!(done && pending), "{state:?} after its end");
            seen.push(handle);
        }
        seen
    }

    /// Waits for a heap's cleanups. In a manual pool the waiter has to run what it waits for.
    fn wait(&self, ticket: &Ticket) {
        while self.pool.max_workers() == 0 && !ticket.is_done() {
            if self.pool.run_pending(1 + below(3) as usize) == 0 {
                thread::yield_now();
            }
        }
        ticket.wait(Duration::MAX).expect("no deadline");
        assert!(ticket.is_done());
    }

    /// One thread's heaps. Gives the last one's account, with all its cleanups.
    fn mutate(self: &Arc<Self>) -> (Client, Vec<Arc<Fate>>) {
        for _ in 1..LIVES {
            self.live();
        }
        self.live()
    }

    /// One heap, from its first object to its end.
    fn live(self: &Arc<Self>) -> (Client, Vec<Arc<Fate>>) {
        let client = Client::new(&self.pool);
        let mut registrar = client.registrar();
        let mut alive: Vec<Object> = Vec::new();
        let mut dead: Vec<Arc<Fate>> = Vec::new();
        let mut all = Vec::new();
        for _ in 0..CYCLES {
            for _ in 0..=below(4) {
                let (mut chain, mut fates) = (None, Vec::new());
                for _ in 0..=below(3) {
                    let (head, fate) = self.register(&mut registrar, &client, chain);
                    chain = Some(head);
                    fates.push(fate);
                }
                all.extend(fates.iter().cloned());
                alive.push(Object { chain: chain.expect("at least one cleanup"), fates });
            }
            let (dying, others) = alive.into_iter().partition(|_| below(3) > 0);
            alive = others;
            dead.extend(collect(&client, dying));
            match below(4) {
                0 => client.discard_queued(),
                1 | 2 => {
                    self.wait(&client.ticket());
                    assert!(
                        dead.iter().all(|fate| fate.has_ended()),
                        "they have when the wait returns"
                    );
                }
                _ => {}
            }
        }
        for Object { chain, .. } in alive {
            if let Some(chain) = registrar.prune(chain) {
                registrar.discard(chain);
            }
        }
        (client, all)
    }

    /// Compares all accounts of the day.
    fn audit(&self, reported: u64, accounts: &[(Client, Vec<Arc<Fate>>)], handles: &[Arc<Handle>]) {
        // Each cleanup has come to one end.
        let fates = std::mem::take(&mut *self.fates.lock().unwrap());
        for fate in &fates {
            let (ran, dropped) = fate.counts();
            assert_eq!(dropped, 1, "its captures are dropped once");
            assert!(ran + u32::from(fate.stopped()) <= 1, "it runs, or is stopped, and once");
        }
        // The pool's account of it.
        let stats = self.pool.stats();
        assert_eq!((stats.workers, stats.asleep, stats.running), (0, 0, 0));
        assert_eq!((stats.backlog, stats.blocks, stats.oldest), (0, 0, None));
        assert_eq!(stats.queued, stats.executed + stats.ended_early + stats.discarded);
        assert_eq!(stats.executed, count(&fates, |fate| fate.ran() && !fate.ran_early()));
        assert_eq!(stats.panicked, count(&fates, |fate| fate.panicked() && !fate.ran_early()));
        assert_eq!(reported, count(&fates, Fate::panicked));
        // The heaps' accounts.
        for (client, fates) in accounts {
            let stats = client.stats();
            assert_eq!(stats.registered, fates.len() as u64);
            assert_eq!(stats.executed, count(fates, Fate::ran));
            assert_eq!(stats.panicked, count(fates, Fate::panicked));
            assert_eq!(stats.stopped, count(fates, Fate::stopped));
            assert_eq!(stats.discarded, count(fates, |fate| !fate.ran() && !fate.stopped()));
            assert_eq!((stats.backlog, stats.armed), (0, 0));
        }
        // And the handles, many of them older than their records.
        for handle in handles {
            assert!(!handle.cleanup.stop() && !handle.cleanup.run_now(), "it has ended");
            match handle.cleanup.state() {
                CleanupState::Done => assert!(!handle.fate.stopped()),
                CleanupState::Stopped => assert!(!handle.fate.ran()),
                state => panic!("{state:?} after its end"),
            }
        }
    }
}

/// One collection with two sweepers. Gives the cleanups of the dead.
fn collect(client: &Client, dying: Vec<Object>) -> Vec<Arc<Fate>> {
    let fates = dying.iter().flat_map(|object| object.fates.iter().cloned()).collect();
    let cycle = client.begin_cycle();
    let (here, there): (Vec<_>, Vec<_>) = dying.iter().map(|o| o.chain).partition(|_| below(2) > 0);
    let mut local = cycle.local_block();
    let other = cycle.local_block();
    let sweeper = thread::spawn(move || {
        let mut local = other;
        there.into_iter().for_each(|chain| local.push(chain));
        local
    });
    here.into_iter().for_each(|chain| local.push(chain));
    let other = sweeper.join().expect("the other sweeper");
    cycle.flush([local, other]);
    fates
}

/// Starts the workers, of which some die between two cleanups.
#[derive(Clone)]
struct Workers {
    /// Whether the next one is refused.
    refuse: Arc<AtomicBool>,
    threads: Arc<std::sync::Mutex<Vec<thread::JoinHandle<()>>>>,
}

impl Spawn for Workers {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if role == Role::Monitor {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.refuse.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("the first one is refused"));
        }
        let dies = below(3) == 0;
        let thread = thread::spawn(move || {
            if dies {
                fault::arm(1 + below(6));
            }
            let end = catch_unwind(AssertUnwindSafe(run));
            // That death is no failure of the model; every other one is.
            if let Err(payload) = end
                && payload.downcast_ref() != Some(&fault::FAULT)
            {
                resume_unwind(payload);
            }
        });
        self.threads.lock().unwrap().push(thread);
        Ok(())
    }
}

// ---- the model
// -----------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq)]
enum Shutdown {
    AfterWork,
    AmidWork,
}

/// A pool from its beginning to its end, and an account of it.
fn day(max_workers: usize, shutdown: Shutdown) {
    // Not where there is but one: a heap that waits by then does not try again.
    let refuse = Arc::new(AtomicBool::new(max_workers > 1));
    let workers = Workers { refuse, threads: Arc::default() };
    let reported = Arc::new(AtomicU32::new(0));
    let reports = reported.clone();
    let hook = move |_: &crate::CleanupPanic<'_>| {
        reports.fetch_add(1, Ordering::Relaxed);
    };
    let config = PoolConfig {
        max_workers,
        keep_alive: None,
        hooks: Hooks { panic: Some(Arc::new(hook)), ..Hooks::default() },
        ..PoolConfig::default()
    };
    let pool = Pool::new(config, Some(Box::new(workers.clone())));
    let world = Arc::new(World {
        pool: pool.clone(),
        fates: std::sync::Mutex::default(),
        handles: Mutex::new((Vec::new(), true)),
        offered: Condvar::new(),
    });
    let heaps: Vec<_> = (0..HEAPS).map(|_| world.start(World::mutate)).collect();
    let meddlers: Vec<_> = (0..2).map(|_| world.start(World::meddle)).collect();
    let helper = world.start(World::help);
    let taker = world.start(World::requeue_tail);
    if shutdown == Shutdown::AmidWork {
        end(&pool, &workers);
    }
    let accounts: Vec<_> = heaps.into_iter().map(|heap| heap.join().expect("a heap")).collect();
    world.handles.lock().1 = false;
    world.offered.notify_all();
    let handles: Vec<_> = meddlers.into_iter().flat_map(|m| m.join().expect("a meddler")).collect();
    helper.join().expect("the helper");
    taker.join().expect("the one who takes over");
    if shutdown == Shutdown::AfterWork {
        for (client, _) in &accounts {
            world.wait(&client.ticket());
        }
        end(&pool, &workers);
    }

    world.audit(u64::from(reported.load(Ordering::Relaxed)), &accounts, &handles);
}

/// The shutdown, as the pool's page describes it.
fn end(pool: &Pool, workers: &Workers) {
    pool.begin_shutdown();
    assert!(pool.wait_until_workers_left(Duration::MAX));
    let threads = std::mem::take(&mut *workers.threads.lock().unwrap());
    threads.into_iter().for_each(|thread| thread.join().expect("a worker"));
    pool.discard_pending();
}
