//! A first, plain form of the whole interface: one lock around everything. The real parts replace it.
use crate::*;
use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Call = Box<dyn FnOnce() + Send>;
struct Rec {
    state: CleanupState,
    call: Option<Call>,
    next: Option<Head>,
}
#[derive(Default)]
struct Reg {
    recs: Vec<Rec>,
    s: OriginStats,
}
/// First form.
pub struct Shared {
    reg: Mutex<Reg>,
}
/// Head of one object's chain of cleanup records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head(NonZeroU32);
/// What has become of a cleanup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CleanupState {
    /// Registered.
    Armed,
    /// Queued.
    Queued,
    /// Running.
    Running,
    /// Ran.
    Done,
    /// Will never run.
    Stopped,
}
/// Handle of one cleanup.
pub struct Cleanup {
    reg: &'static Shared,
    index: u32,
}
/// One mutator's side.
pub struct Registrar {
    reg: &'static Shared,
}
/// A heap as this crate sees it.
#[derive(Clone)]
pub struct Origin {
    reg: &'static Shared,
    pool: Arc<Pool>,
}
/// One cycle.
pub struct Cycle {
    origin: Origin,
}
/// One sweeper's cleanups.
pub struct LocalBlock {
    reg: &'static Shared,
    heads: Vec<Head>,
}
/// What a flush queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Cleanups queued.
    pub cleanups: u64,
    /// Blocks published.
    pub blocks: u64,
}
/// The batches unfinished at one moment.
pub struct Ticket {
    origin: Origin,
}
/// Why a wait ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// Deadline passed.
    Timeout {
        /// Cleanups not ended.
        pending: u64,
    },
    /// Called from a cleanup.
    FromCleanup,
}
impl std::fmt::Display for WaitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
impl std::error::Error for WaitError {}
/// The hook's type.
pub type PanicHook = Arc<dyn Fn(&CleanupPanic<'_>) + Send + Sync>;
/// How a pool is made.
#[derive(Default, Clone)]
pub struct PoolConfig {
    /// Bound; 0 = manual.
    pub max_workers: usize,
    /// Hook.
    pub panic_hook: Option<PanicHook>,
}
/// Starts threads.
pub trait Spawn: Send + Sync {
    /// Starts a thread that calls `worker.run()`.
    fn spawn(&self, worker: Worker) -> std::io::Result<()>;
}
/// A worker, to be run on a thread of its own.
pub struct Worker {
    pool: Arc<Pool>,
    left: bool,
}
#[derive(Default)]
struct Q {
    list: VecDeque<(&'static Shared, Head)>,
    workers: usize,
    shutdown: bool,
    running: usize,
    s: PoolStats,
}
/// The pool.
pub struct Pool {
    config: PoolConfig,
    spawn: Option<Box<dyn Spawn>>,
    q: Mutex<Q>,
    work: Condvar,
    done: Condvar,
}
thread_local! { static INSIDE: Cell<u32> = const { Cell::new(0) }; }
/// Whether this thread is inside a cleanup.
pub fn in_cleanup() -> bool {
    INSIDE.get() > 0
}
fn call(f: Call) -> bool {
    INSIDE.set(INSIDE.get() + 1);
    let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    INSIDE.set(INSIDE.get() - 1);
    r.is_ok()
}
impl Head {
    fn at(self) -> usize {
        self.0.get() as usize - 1
    }
}
impl Cleanup {
    /// Stops it.
    pub fn stop(&self) -> bool {
        let f = {
            let mut r = self.reg.reg.lock();
            let f = r.recs[self.index as usize].call.take();
            if f.is_some() {
                r.recs[self.index as usize].state = CleanupState::Stopped;
                r.s.stopped += 1;
            }
            f
        };
        f.is_some()
    }
    /// Runs it here.
    pub fn run_now(&self) -> bool {
        take_run(self.reg, self.index as usize)
    }
    /// Its state.
    pub fn state(&self) -> CleanupState {
        self.reg.reg.lock().recs[self.index as usize].state
    }
}
fn take_run(reg: &'static Shared, i: usize) -> bool {
    let Some(f) = ({
        let mut r = reg.reg.lock();
        let f = r.recs[i].call.take();
        if f.is_some() {
            r.recs[i].state = CleanupState::Running;
        }
        f
    }) else {
        return false;
    };
    let ok = call(f);
    let mut r = reg.reg.lock();
    r.recs[i].state = CleanupState::Done;
    r.s.executed += 1;
    r.s.panicked += u64::from(!ok);
    true
}
impl Registrar {
    /// Adds a record in front of `chain`.
    pub fn register<F: FnOnce() + Send + 'static>(
        &mut self,
        chain: Option<Head>,
        f: F,
    ) -> (Head, Cleanup) {
        let mut r = self.reg.reg.lock();
        r.recs.push(Rec {
            state: CleanupState::Armed,
            call: Some(Box::new(f)),
            next: chain,
        });
        r.s.registered += 1;
        let n = r.recs.len() as u32;
        (
            Head(NonZeroU32::new(n).expect("not zero")),
            Cleanup {
                reg: self.reg,
                index: n - 1,
            },
        )
    }
    /// Reclaims settled records of a live object's chain.
    pub fn prune(&mut self, chain: Head) -> Option<Head> {
        if self.is_settled(chain) {
            None
        } else {
            Some(chain)
        }
    }
    /// Settled records in live chains, approximately.
    pub fn settled(&self) -> u64 {
        0
    }
    /// Drops the captures of every record of the chain.
    pub fn discard(&mut self, chain: Head) {
        let mut c = Some(chain);
        while let Some(h) = c {
            let f = {
                let mut r = self.reg.reg.lock();
                c = r.recs[h.at()].next;
                let f = r.recs[h.at()].call.take();
                if f.is_some() {
                    r.recs[h.at()].state = CleanupState::Stopped;
                    r.s.discarded += 1;
                }
                f
            };
            drop(f);
        }
    }
    /// Whether all records of the chain are settled.
    pub fn is_settled(&self, chain: Head) -> bool {
        let r = self.reg.reg.lock();
        let mut c = Some(chain);
        while let Some(h) = c {
            if r.recs[h.at()].call.is_some() {
                return false;
            }
            c = r.recs[h.at()].next;
        }
        true
    }
    /// Records in the chain.
    pub fn len(&self, chain: Head) -> usize {
        let r = self.reg.reg.lock();
        let mut c = Some(chain);
        let mut n = 0;
        while let Some(h) = c {
            n += 1;
            c = r.recs[h.at()].next;
        }
        n
    }
}
impl Origin {
    /// A new heap's account.
    pub fn new(pool: &Arc<Pool>) -> Origin {
        Origin {
            reg: Box::leak(Box::new(Shared {
                reg: Mutex::default(),
            })),
            pool: pool.clone(),
        }
    }
    /// One mutator's registrar.
    pub fn registrar(&self) -> Registrar {
        Registrar { reg: self.reg }
    }
    /// Begins a cycle.
    pub fn begin_cycle(&self) -> Cycle {
        Cycle {
            origin: self.clone(),
        }
    }
    /// A ticket.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            origin: self.clone(),
        }
    }
    /// Counters.
    pub fn stats(&self) -> OriginStats {
        let mut s = self.reg.reg.lock().s;
        s.backlog = s.queued.saturating_sub(s.executed + s.stopped);
        s.armed = s.registered - s.queued;
        s
    }
    /// Discards what is queued.
    pub fn discard_queued(&self) {
        self.pool.discard_pending();
    }
    /// Its pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}
impl Cycle {
    /// A sweeper's local block.
    pub fn local_block(&self) -> LocalBlock {
        LocalBlock {
            reg: self.origin.reg,
            heads: Vec::new(),
        }
    }
    /// Publishes everything.
    pub fn flush(self, locals: impl IntoIterator<Item = LocalBlock>) -> Flushed {
        let mut n = 0;
        for l in locals {
            for h in l.heads {
                let mut r = l.reg.reg.lock();
                r.s.queued += 1;
                r.recs[h.at()].state = CleanupState::Queued;
                drop(r);
                self.origin.pool.q.lock().list.push_back((l.reg, h));
                n += 1;
            }
        }
        self.origin.pool.wake();
        Flushed {
            cleanups: n,
            blocks: n.div_ceil(122),
        }
    }
}
impl LocalBlock {
    /// Queues a dead object's cleanups.
    pub fn push(&mut self, head: Head) {
        self.heads.push(head);
    }
}
impl Ticket {
    /// Whether all have ended.
    pub fn is_done(&self) -> bool {
        self.origin.stats().backlog == 0
    }
    /// Waits for them.
    pub fn wait(&self, timeout: Duration) -> Result<(), WaitError> {
        if in_cleanup() {
            return Err(WaitError::FromCleanup);
        }
        let end = Instant::now() + timeout;
        let mut q = self.origin.pool.q.lock();
        while !self.is_done() {
            if self.origin.pool.done.wait_until(&mut q, end).timed_out() {
                return Err(WaitError::Timeout {
                    pending: self.origin.stats().backlog,
                });
            }
        }
        Ok(())
    }
}
impl Pool {
    /// A pool.
    pub fn new(config: PoolConfig, spawn: Option<Box<dyn Spawn>>) -> Arc<Pool> {
        Arc::new(Pool {
            config,
            spawn,
            q: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        })
    }
    fn wake(self: &Arc<Self>) {
        self.work.notify_all();
        let mut q = self.q.lock();
        if let Some(s) = &self.spawn
            && q.workers < self.config.max_workers
            && !q.list.is_empty()
        {
            q.workers += 1;
            drop(q);
            let _ = s.spawn(Worker {
                pool: self.clone(),
                left: false,
            });
        }
    }
    fn run_one(&self, r: &'static Shared, head: Head) -> usize {
        let mut c = Some(head);
        let mut n = 0;
        while let Some(h) = c {
            c = r.reg.lock().recs[h.at()].next;
            n += usize::from(take_run(r, h.at()));
        }
        let _q = self.q.lock();
        self.done.notify_all();
        n
    }
    /// Runs at most `max` cleanups on this thread.
    pub fn run_pending(&self, max: usize) -> usize {
        let mut n = 0;
        while n < max {
            let Some((r, h)) = self.q.lock().list.pop_front() else {
                break;
            };
            n += self.run_one(r, h);
        }
        n
    }
    /// Counters.
    pub fn stats(&self) -> PoolStats {
        let q = self.q.lock();
        PoolStats {
            workers: q.workers,
            running: q.running,
            ..q.s
        }
    }
    /// Begins the shutdown.
    pub fn begin_shutdown(&self) {
        self.q.lock().shutdown = true;
        self.work.notify_all();
    }
    /// Drops what never ran.
    pub fn discard_pending(&self) -> usize {
        let l = std::mem::take(&mut self.q.lock().list);
        let n = l.len();
        for (r, h) in l {
            Registrar { reg: r }.discard(h);
        }
        n
    }
    /// Whether nothing is queued or running.
    pub fn is_idle(&self) -> bool {
        let q = self.q.lock();
        q.list.is_empty() && q.running == 0
    }
    /// Waits until every worker has left; whether they have.
    pub fn wait_until_workers_left(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut q = self.q.lock();
        while q.workers > 0 {
            if self.done.wait_until(&mut q, end).timed_out() {
                return q.workers == 0;
            }
        }
        true
    }
}
impl Worker {
    /// The worker's number among its pool's, from 0.
    pub fn index(&self) -> usize {
        0
    }
    /// Runs cleanups until the pool shuts down.
    pub fn run(mut self) {
        loop {
            let mut q = self.pool.q.lock();
            match q.list.pop_front() {
                Some((r, h)) => {
                    q.running += 1;
                    drop(q);
                    self.pool.run_one(r, h);
                    self.pool.q.lock().running -= 1;
                }
                None if q.shutdown => break,
                None => self.pool.work.wait(&mut q),
            }
        }
        self.left = true;
    }
}
impl Drop for Worker {
    fn drop(&mut self) {
        self.pool.q.lock().workers -= 1;
        self.pool.done.notify_all();
    }
}
