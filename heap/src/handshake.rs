//! The handshake: many mutators open and close sessions, and who collects waits until none is open.
//!
//! `HANDSHAKE.md` beside `Cargo.toml` has the protocol and why it holds; steps and fences here bear its names. Invariant: while a
//! [`Stopped`] exists, no [`Session`] does.
//!
//! It knows no heap: to it a mutator is a post with a context that it lends to nobody but the session's thread and the collector.

#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::time::{Duration, Instant};

use sexton_cleanup::sync::{
    Arc, AtomicBool, CachePadded, Condvar, Mutex, MutexGuard, Ordering, fence, wait_until,
};

use crate::help::{Job, Waiting, processors};
use crate::mutant::Mutant;

/// The mutators of one heap, and the means to stop them.
pub struct Handshake<C> {
    /// Sessions may not be opened. Read without the lock; written only with it.
    stopping: CachePadded<AtomicBool>,
    state: Mutex<State<C>>,
    /// Whoever stopped the mutators waits here: for sessions to end, for helpers to leave.
    quiet: Condvar,
    /// Whoever may not open a session waits here: for that to change, or for a job.
    resumed: Condvar,
    /// How often to look before a thread sleeps.
    spins: u32,
    mutant: Mutant,
}

/// On one processor nothing changes while one looks. A model looks once: it has no time, but it has
/// to come to both outcomes of a look.
fn spins() -> u32 {
    if cfg!(any(loom, shuttle)) {
        1
    } else if processors() == 1 {
        0
    } else {
        1000
    }
}

struct State<C> {
    posts: Vec<Arc<Post<C>>>,
    /// How often the mutators have been resumed.
    round: u64,
    /// Mutators that wait to open a session.
    entering: usize,
    /// Of those, the ones that waited when the mutators were last resumed: nobody stops them again before they are in.
    owed: usize,
    /// Threads that sleep at `resumed`.
    waiting: usize,
    /// What they can help with.
    job: Option<Arc<dyn Job>>,
    /// So many more may help.
    seats: usize,
    /// Threads that help, and have not left yet.
    helping: usize,
}

/// One mutator, as the handshake sees it.
pub(crate) struct Post<C> {
    /// A session is open, or is being opened. Written by the mutator's thread only.
    active: CachePadded<AtomicBool>,
    context: C,
    /// The mutator's thread.
    thread: std::thread::Thread,
}

/// A session of a mutator's. Dropping it closes it.
pub(crate) struct Session<'a, C> {
    handshake: &'a Handshake<C>,
    post: &'a Post<C>,
}

/// No session is open, and none will be until this is dropped.
pub(crate) struct Stopped<'a, C> {
    handshake: &'a Handshake<C>,
    /// When the mutators were told.
    pub(crate) since: Instant,
    /// How long the last session went on after that.
    pub(crate) safepoint_time: Duration,
}

/// When to complain about sessions that do not end, and to whom.
pub(crate) struct Patience<'a> {
    pub(crate) after: Duration,
    /// Told the thread of each session that is still open, and how long it has been waited for. Called without the lock.
    pub(crate) complain: &'a dyn Fn(&std::thread::Thread, Duration),
}

impl<C> Handshake<C> {
    pub(crate) fn new(mutant: Mutant) -> Self {
        Handshake {
            stopping: CachePadded::new(AtomicBool::new(false)),
            state: Mutex::new(State {
                posts: Vec::new(),
                round: 0,
                entering: 0,
                owed: 0,
                waiting: 0,
                job: None,
                seats: 0,
                helping: 0,
            }),
            quiet: Condvar::new(),
            resumed: Condvar::new(),
            spins: spins(),
            mutant,
        }
    }

    /// Adds a mutator of this thread's. Waits for nobody: if the mutators are stopped, its first session will wait.
    pub(crate) fn attach(&self, context: C) -> Arc<Post<C>> {
        let post = Arc::new(Post {
            active: CachePadded::new(AtomicBool::new(false)),
            context,
            thread: std::thread::current(),
        });
        self.state.lock().posts.push(post.clone());
        post
    }

    /// Ends a mutator, which has no session open: calls `retire` with its context in a last one, and
    /// forgets it after that.
    pub(crate) fn detach(&self, post: &Arc<Post<C>>, retire: impl FnOnce(&C)) {
        // D1.
        let mut session = Some(self.enter(post));
        if self.mutant.is(Mutant::RetireAfterSession) {
            session = None;
        }
        if self.mutant.is(Mutant::ForgetBeforeRetire) {
            self.forget(post);
        }
        // D2. Within the session, and on the list: a cycle uses the context, and what it is given
        // back to.
        retire(&post.context);
        drop(session);
        // D3.
        self.forget(post);
    }

    fn forget(&self, post: &Arc<Post<C>>) {
        let posts = &mut self.state.lock().posts;
        // From the end, where those are that come and go while others stay.
        if let Some(at) = posts.iter().rposition(|other| Arc::ptr_eq(other, post)) {
            posts.swap_remove(at);
        }
    }

    /// Opens a session. If the mutators are stopped it waits until they are not, and helps meanwhile. Called on the mutator's
    /// thread, without a session open.
    #[inline]
    pub(crate) fn enter<'a>(&'a self, post: &'a Post<C>) -> Session<'a, C> {
        debug_assert!(!post.active.load(Ordering::Relaxed), "a session is open already");
        let late = self.mutant.is(Mutant::LateEntry) && !self.is_stopping();
        // E1. Relaxed: who sees it waits, and reads nothing of ours.
        post.active.store(true, Ordering::Relaxed);
        // E2. EnterFence: pairs with StopFence. Of E1 and T2, the one that comes later in the order of the fences is seen by the
        // other side, at E3 or T4.
        if !self.mutant.is(Mutant::NoEnterFence) {
            fence(Ordering::SeqCst);
        }
        // E3. Acquire: pairs with the release of R1, so that the session sees what the cycle did.
        if !late && self.stopping.load(Ordering::Acquire) {
            self.back_out(post);
        }
        Session { handshake: self, post }
    }

    /// A session may not be opened now. Opens it when it may.
    #[cold]
    #[inline(never)]
    fn back_out(&self, post: &Post<C>) {
        // E4. Release: as X1; this session did nothing, but the one before did.
        post.active.store(false, Ordering::Release);
        let mut state = self.state.lock();
        // E5. Whoever stops us may have seen E1, and wait for us.
        if !self.mutant.is(Mutant::BackOutWithoutWake) {
            self.quiet.notify_all();
        }
        state.entering += 1;
        let round = state.round;
        drop(state);
        // Most cycles are short.
        let lucky = self.spin_until(|| !self.is_stopping());
        // E6.
        let mut state = self.state.lock();
        if !(lucky && self.mutant.is(Mutant::EnterOnLuck)) {
            state = self.wait(state, false);
        }
        state.entering -= 1;
        debug_assert!(state.round <= round + 1, "two cycles have gone by");
        if state.round > round && !self.mutant.is(Mutant::NothingOwed) {
            state.owed -= 1;
            if state.owed == 0 {
                self.resumed.notify_all();
            }
        }
        // E7. Relaxed: with the lock held, so that T4, which comes after T2, sees it.
        post.active.store(true, Ordering::Relaxed);
    }

    /// Looks so often before a thread sleeps: some ten microseconds, where sleeping and being woken take some fifty. Whether it saw what it
    /// looked for.
    fn spin_until(&self, is_so: impl Fn() -> bool) -> bool {
        (0..self.spins).any(|_| {
            let so = is_so();
            if !so {
                std::hint::spin_loop();
            }
            so
        })
    }

    /// Returns once the mutators are not stopped and, for one that would stop them, nothing is owed; helps until then.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<C>>,
        to_stop: bool,
    ) -> MutexGuard<'a, State<C>> {
        // Relaxed: it is written with the lock held, which we hold.
        while self.stopping.load(Ordering::Relaxed) || (to_stop && state.owed > 0) {
            match state.take_seat() {
                Some(job) => {
                    drop(state);
                    let leave = Leave(self);
                    job.help();
                    drop(job);
                    drop(leave);
                    state = self.state.lock();
                }
                None => {
                    state.waiting += 1;
                    self.resumed.wait(&mut state);
                    state.waiting -= 1;
                }
            }
        }
        state
    }

    /// Waits until no session is open and keeps it so; or, if `unless` says so when nobody else has the mutators stopped, does
    /// nothing. Called on a thread that has no session open.
    ///
    /// A session that does not end is waited for without end, and complained about.
    pub(crate) fn stop(
        &self,
        unless: impl FnOnce() -> bool,
        patience: Option<Patience<'_>>,
    ) -> Option<Stopped<'_, C>> {
        // T1. One at a time, and not before all are in that waited for the last.
        let lucky = self.spin_until(|| !self.is_stopping());
        let mut state = self.state.lock();
        if !(lucky && self.mutant.is(Mutant::StopOnLuck)) {
            state = self.wait(state, true);
        }
        if unless() {
            return None;
        }
        // T2. Relaxed: what a session has to see is not ours yet.
        self.stopping.store(true, Ordering::Relaxed);
        let since = Instant::now();
        // T3. StopFence: pairs with EnterFence and ExitFence.
        if !self.mutant.is(Mutant::NoStopFence) {
            fence(Ordering::SeqCst);
        }
        // T4. Most sessions are short, too; whoever ends one needs the lock.
        let open: Vec<_> = state.active().cloned().collect();
        let mut lucky = false;
        if self.spins > 0 && !open.is_empty() {
            drop(state);
            lucky =
                self.spin_until(|| open.iter().all(|post| !post.active.load(Ordering::Relaxed)));
            state = self.state.lock();
        }
        let trusting = lucky && self.mutant.is(Mutant::QuietOnLuck);
        let mut complain_at =
            patience.as_ref().and_then(|patience| since.checked_add(patience.after));
        while !trusting && state.is_any_active() {
            if !wait_until(&self.quiet, &mut state, complain_at) {
                continue;
            }
            let Some(patience) = &patience else { continue };
            let slow: Vec<_> = state.active().map(|post| post.thread.clone()).collect();
            drop(state);
            let waited = since.elapsed();
            slow.iter().for_each(|thread| (patience.complain)(thread, waited));
            // Twice as late the next time: to be seen, and not to fill a log.
            complain_at = since.checked_add(waited * 2);
            state = self.state.lock();
        }
        drop(state);
        Some(Stopped { handshake: self, since, safepoint_time: since.elapsed() })
    }

    /// Whether sessions may not be opened. A hint to whoever has one open, and could end it.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        // Relaxed: nothing is read on the strength of it.
        self.stopping.load(Ordering::Relaxed)
    }

    /// How many mutators there are.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().posts.len()
    }

    /// Calls `each` with the context of every mutator. Called while no session is open.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&C)) {
        self.state.lock().posts.iter().for_each(|post| each(&post.context));
    }
}

#[cfg(all(test, loom))]
impl<C> Handshake<C> {
    /// Threads that sleep until the mutators are resumed, or for a job.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Mutators that wait to open a session.
    pub(crate) fn entering(&self) -> usize {
        self.state.lock().entering
    }
}

impl<C> Default for Handshake<C> {
    fn default() -> Self {
        Self::new(Mutant::None)
    }
}

impl<C> fmt::Debug for Handshake<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}

impl<C> State<C> {
    fn active(&self) -> impl Iterator<Item = &Arc<Post<C>>> {
        // Acquire: pairs with the release of X1 and E4, so that the collector sees what the session did.
        self.posts.iter().filter(|post| post.active.load(Ordering::Acquire))
    }

    fn is_any_active(&self) -> bool {
        self.active().next().is_some()
    }

    fn take_seat(&mut self) -> Option<Arc<dyn Job>> {
        self.seats = self.seats.checked_sub(1)?;
        self.helping += 1;
        self.job.clone()
    }
}

impl<C> Post<C> {
    /// The mutator's context: for the thread that has its session open.
    pub(crate) fn context(&self) -> &C {
        &self.context
    }
}

impl<C> Drop for Session<'_, C> {
    #[inline]
    fn drop(&mut self) {
        let Session { handshake, post } = self;
        // X1. Release: pairs with the acquire of T4.
        post.active.store(false, Ordering::Release);
        // X2. ExitFence: pairs with StopFence. Either X3 sees that somebody waits, or T4 has seen X1.
        if !handshake.mutant.is(Mutant::NoExitFence) {
            fence(Ordering::SeqCst);
        }
        // X3. Relaxed: who reads `true` takes the lock.
        if handshake.stopping.load(Ordering::Relaxed) {
            handshake.wake();
        }
    }
}

impl<C> Handshake<C> {
    /// X4. Tells whoever waits for sessions to end that one has. The lock makes it come after T4's look, or before it.
    #[cold]
    #[inline(never)]
    fn wake(&self) {
        if self.mutant.is(Mutant::ExitWithoutWake) {
            return;
        }
        drop(self.state.lock());
        self.quiet.notify_all();
    }
}

impl<C> Drop for Stopped<'_, C> {
    fn drop(&mut self) {
        let handshake = self.handshake;
        let mut state = handshake.state.lock();
        let is_clean = (state.seats, state.helping, state.owed) == (0, 0, 0);
        debug_assert!(is_clean || std::thread::panicking(), "a job or a debt is left over");
        state.round += 1;
        if !handshake.mutant.is(Mutant::NothingOwed) {
            state.owed = state.entering;
        }
        // R1. Release: pairs with the acquire of E3.
        handshake.stopping.store(false, Ordering::Release);
        drop(state);
        // R2.
        handshake.resumed.notify_all();
    }
}

impl<C> Waiting for Stopped<'_, C> {
    fn with_help(&self, job: Arc<dyn Job>, most: usize, work: &mut dyn FnMut(usize)) {
        let handshake = self.handshake;
        // J1. Offer seats to those that wait.
        let mut state = handshake.state.lock();
        let seats = most.min(state.waiting);
        state.seats = seats;
        state.job = Some(job);
        drop(state);
        if seats > 0 {
            handshake.resumed.notify_all();
        }
        let _dismiss = Dismiss(handshake);
        work(seats);
    }
}

/// J2. Offers no more seats, and waits until the helpers have left.
struct Dismiss<'a, C>(&'a Handshake<C>);

impl<C> Drop for Dismiss<'_, C> {
    fn drop(&mut self) {
        let Dismiss(handshake) = self;
        let mut state = handshake.state.lock();
        state.seats = 0;
        let job = mem::take(&mut state.job);
        while state.helping > 0 && !handshake.mutant.is(Mutant::LeaveHelpersBehind) {
            handshake.quiet.wait(&mut state);
        }
        drop(state);
        drop(job);
    }
}

/// Takes a helper's leave, be it that the job is done or that it has panicked.
struct Leave<'a, C>(&'a Handshake<C>);

impl<C> Drop for Leave<'_, C> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.helping -= 1;
        drop(state);
        self.0.quiet.notify_all();
    }
}
