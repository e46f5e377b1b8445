//! What the integration tests share: pools on real threads, and waiting for conditions with a
//! deadline.

use sexton_cleanup::{Cleanup, Client, Head, Pool, PoolConfig, Registrar, Role, Spawn};
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than anything here takes, and short enough to tell a hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Starts threads, and can be told to fail.
#[derive(Clone, Default)]
pub(crate) struct Threads(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    threads: Vec<JoinHandle<()>>,
    failures: usize,
    spawned: usize,
    monitors: usize,
    monitor_failures: usize,
}

impl Threads {
    /// The next `n` spawns fail.
    pub(crate) fn fail(&self, n: usize) {
        self.0.lock().unwrap().failures = n;
    }

    /// No monitor is started.
    pub(crate) fn without_monitor(&self) {
        self.fail_monitors(usize::MAX);
    }

    /// The next `n` attempts to start a monitor fail.
    pub(crate) fn fail_monitors(&self, n: usize) {
        self.0.lock().unwrap().monitor_failures = n;
    }

    pub(crate) fn spawned(&self) -> usize {
        self.0.lock().unwrap().spawned
    }

    pub(crate) fn monitors(&self) -> usize {
        self.0.lock().unwrap().monitors
    }

    /// Threads that have not ended.
    pub(crate) fn alive(&self) -> usize {
        self.0.lock().unwrap().threads.iter().filter(|thread| !thread.is_finished()).count()
    }

    /// Joins every thread started so far.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut self.0.lock().unwrap().threads);
        for thread in threads {
            thread.join().expect("a worker's thread panicked");
        }
    }
}

impl Spawn for Threads {
    fn spawn(&self, role: Role, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let failures = match role {
            Role::Worker(_) => &mut state.failures,
            Role::Monitor => &mut state.monitor_failures,
        };
        if *failures > 0 {
            let never = *failures == usize::MAX;
            *failures -= usize::from(!never);
            drop(state);
            drop(run);
            return Err(if never {
                io::ErrorKind::Unsupported.into()
            } else {
                io::Error::other("told to fail")
            });
        }
        let name = match role {
            Role::Worker(index) => {
                state.spawned += 1;
                format!("cleanup-{index}")
            }
            Role::Monitor => {
                state.monitors += 1;
                "monitor".into()
            }
        };
        state.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }
}

/// A pool with workers on real threads.
pub(crate) fn pool(max_workers: usize) -> (Arc<Pool>, Threads) {
    pool_with(PoolConfig { max_workers, ..PoolConfig::default() })
}

/// A pool with workers on real threads, and other settings.
pub(crate) fn pool_with(config: PoolConfig) -> (Arc<Pool>, Threads) {
    let threads = Threads::default();
    (Pool::new(config, Some(Box::new(threads.clone()))), threads)
}

pub(crate) fn manual() -> Arc<Pool> {
    Pool::new(PoolConfig::default(), None)
}

/// Shuts a pool down in order, and checks that nothing is left.
pub(crate) fn shut_down(pool: &Arc<Pool>, threads: &Threads) {
    pool.begin_shutdown();
    assert!(pool.wait_until_workers_left(DEADLINE), "workers are still there: {}", pool.dump());
    threads.join();
    assert_eq!(pool.stats().workers, 0);
}

/// Queues the chains of dead objects, in one cycle with one sweeper.
pub(crate) fn sweep(client: &Client, heads: impl IntoIterator<Item = Head>) -> u64 {
    let cycle = client.begin_cycle();
    let mut block = cycle.local_block();
    heads.into_iter().for_each(|head| block.push(head));
    cycle.flush([block]).cleanups
}

/// A dead object with one cleanup.
pub(crate) fn add(registrar: &mut Registrar, f: impl FnOnce() + Send + 'static) -> (Head, Cleanup) {
    registrar.register(None, f)
}

/// Waits for a condition; panics with `what` when the deadline passes.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Waits for work to be done, while no thread publishes more. Panics with a dump when the deadline
/// passes, and at once if blocks lie beside workers that are all asleep: no thread would ever wake
/// them.
pub(crate) fn until_done(pool: &Pool, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut tries = 0_u32;
    while !is_done() {
        tries += 1;
        if tries < 300 {
            // About as long as a worker takes to wake up, if there is a processor for it.
            std::hint::spin_loop();
            continue;
        }
        std::thread::yield_now();
        if tries.is_multiple_of(8) {
            let stats = pool.stats();
            let lost = stats.blocks > 0 && stats.asleep == stats.workers && !is_done();
            assert!(!lost, "a lost wake-up: {}", pool.dump());
            assert!(Instant::now() < deadline, "waited in vain: {}", pool.dump());
        }
    }
}

/// A door that cleanups wait at.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    /// Waits until the door is open.
    pub(crate) fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 += 1;
        self.0.1.notify_all();
        let (state, timeout) =
            self.0.1.wait_timeout_while(state, DEADLINE, |state| !state.0).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "nothing opened the gate");
    }

    /// Waits until `n` have come to the door.
    pub(crate) fn wait_for(&self, n: usize) {
        let state = self.0.0.lock().unwrap();
        let (state, timeout) =
            self.0.1.wait_timeout_while(state, DEADLINE, |state| state.1 < n).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "fewer than {n} came to the gate");
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }
}

/// How often each of `n` cleanups ran, and how often its captures were dropped.
pub(crate) struct BatchTable {
    entries: Arc<Vec<Entry>>,
}

#[derive(Default)]
struct Entry {
    runs: std::sync::atomic::AtomicU32,
    drops: std::sync::atomic::AtomicU32,
}

/// Captured by a cleanup; counts its own end.
pub(crate) struct Capture {
    entries: Arc<Vec<Entry>>,
    at: usize,
}

impl Capture {
    pub(crate) fn ran(&self) {
        self.entries[self.at].runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.entries[self.at].drops.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl BatchTable {
    pub(crate) fn new(n: usize) -> Self {
        BatchTable { entries: Arc::new((0..n).map(|_| Entry::default()).collect()) }
    }

    pub(crate) fn capture(&self, at: usize) -> Capture {
        Capture { entries: self.entries.clone(), at }
    }

    pub(crate) fn runs(&self, at: usize) -> u32 {
        self.entries[at].runs.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn drops(&self, at: usize) -> u32 {
        self.entries[at].drops.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Every cleanup ran once, and dropped its captures once.
    pub(crate) fn all_ran_once(&self) {
        for at in 0..self.entries.len() {
            assert_eq!((self.runs(at), self.drops(at)), (1, 1), "cleanup {at}");
        }
    }

    /// How many ran, after checking that none ran twice and each dropped its captures once.
    pub(crate) fn ended_once(&self) -> usize {
        (0..self.entries.len())
            .map(|at| {
                assert!(self.runs(at) <= 1, "cleanup {at} ran {} times", self.runs(at));
                assert_eq!(self.drops(at), 1, "captures of cleanup {at}");
                self.runs(at) as usize
            })
            .sum()
    }
}
