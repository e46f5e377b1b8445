//! The handshake: many mutators open and close sessions, and a collection waits until none is open.
//!
//! `HANDSHAKE.md` beside `Cargo.toml` has the protocol and why it holds; steps and fences here bear
//! its names. Invariant: while a [`StopGuard`] exists, no [`Session`] does, or each is parked.
//!
//! It knows no heap. To it a mutator is a context, lent to the session's thread and to the
//! collector only.

#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::ptr;
use std::time::{Duration, Instant};

use sexton_sync::{
    Arc, AtomicBool, CachePadded, Condvar, Mutex, MutexGuard, Ordering, fence, wait_until,
};

use crate::safepoint::helpers::{Job, Waiting, processors};

/// The mutators of one heap, and the means to stop them.
pub struct Handshake<C> {
    /// Sessions may not be opened. Read without the lock; written only with it.
    stopping: CachePadded<AtomicBool>,
    /// The collector does with sessions that are parked. Written with the lock; read without it as
    /// a hint.
    parking: AtomicBool,
    state: Mutex<State<C>>,
    /// The collector waits here: for sessions to end, for helpers to leave.
    all_inactive: Condvar,
    /// A thread that may not open a session waits here: for that to change, or for a job.
    resumed: Condvar,
    /// How often to look before a thread sleeps.
    spins: u32,
    /// How long sessions are parked at a time, while a collector waits for others.
    patience: Duration,
}

/// How long sessions are parked at a time, while a collector waits for others, which may wait for
/// them. How long they go on then, before they are parked again.
const PARKED: Duration = Duration::from_millis(1);
const RUNNING: Duration = Duration::from_millis(9);

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
    mutators: Vec<Arc<MutatorState<C>>>,
    /// How often the mutators have been resumed.
    round: u64,
    /// Mutators that wait to open a session.
    entering: usize,
    /// Of those, the ones that waited when the mutators were last resumed. No collector stops the
    /// mutators again before these are in.
    readmitted: usize,
    /// Threads that sleep at `resumed`.
    waiting: usize,
    /// What they can help with.
    job: Option<Arc<dyn Job>>,
    /// How many more threads may help.
    helper_slots: usize,
    /// Threads that help, and have not left yet.
    helping: usize,
    /// Until then no session stops the mutators: the last one has done it in vain.
    not_before: Option<Instant>,
    /// The collector does with sessions that are parked, if not at the moment.
    parks: bool,
}

/// Why a session has not stopped the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStopped {
    /// Another thread has, and this session was parked meanwhile.
    Parked,
    /// Some sessions go on, and are not parked. They may wait for this one.
    Running,
    /// A collector waits for this session to end.
    Ends,
}

/// One mutator, as the handshake sees it.
pub(crate) struct MutatorState<C> {
    /// A session is open, or is being opened. Written by the mutator's thread only.
    active: CachePadded<AtomicBool>,
    /// The session waits within an allocation. Changed by the mutator's thread, with the lock; read
    /// without it as a hint.
    parked: AtomicBool,
    context: C,
    /// The mutator's thread.
    thread: std::thread::Thread,
}

/// A session of a mutator's. Dropping it closes it.
pub(crate) struct Session<'a, C> {
    handshake: &'a Handshake<C>,
    mutator: &'a MutatorState<C>,
}

/// No session is open, or all that are open are parked, and none will be opened until this is
/// dropped.
pub(crate) struct StopGuard<'a, C> {
    handshake: &'a Handshake<C>,
    pub(crate) stopped: Stopped,
    /// The mutator whose session has stopped the others, within an allocation.
    within: Option<Arc<MutatorState<C>>>,
}

/// Since when the mutators are stopped, and how.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// When they were told.
    pub(crate) since: Instant,
    /// How long the last session went on after that.
    pub(crate) safepoint_time: Duration,
    /// Sessions are open, and wait within allocations.
    pub(crate) has_sessions: bool,
    /// One of them has stopped the others.
    pub(crate) is_assist: bool,
}

impl Stopped {
    /// In a heap of one mutator, between two sessions.
    pub(crate) fn now() -> Self {
        Stopped {
            since: Instant::now(),
            safepoint_time: Duration::ZERO,
            has_sessions: false,
            is_assist: false,
        }
    }
}

/// When to report sessions that do not end, and to what.
pub(crate) struct SlowSessionPolicy<'a> {
    pub(crate) after: Duration,
    /// Called with the thread of each session that is still open, and how long it has been waited
    /// for. Called without the lock.
    pub(crate) report: &'a dyn Fn(&std::thread::Thread, Duration),
}

impl<C> Handshake<C> {
    pub(crate) fn new() -> Self {
        Handshake {
            stopping: CachePadded::new(AtomicBool::new(false)),
            parking: AtomicBool::new(false),
            state: Mutex::new(State {
                mutators: Vec::new(),
                round: 0,
                entering: 0,
                readmitted: 0,
                waiting: 0,
                job: None,
                helper_slots: 0,
                helping: 0,
                not_before: None,
                parks: false,
            }),
            all_inactive: Condvar::new(),
            resumed: Condvar::new(),
            spins: spins(),
            patience: PARKED,
        }
    }

    /// Adds a mutator of this thread's. Does not wait: if the mutators are stopped, its first
    /// session will.
    pub(crate) fn attach(&self, context: C) -> Arc<MutatorState<C>> {
        let mutator = Arc::new(MutatorState {
            active: CachePadded::new(AtomicBool::new(false)),
            parked: AtomicBool::new(false),
            context,
            thread: std::thread::current(),
        });
        self.state.lock().mutators.push(mutator.clone());
        mutator
    }

    /// Ends a mutator, which has no session open: calls `retire` with its context in a last one,
    /// and forgets it after that.
    pub(crate) fn detach(&self, mutator: &Arc<MutatorState<C>>, retire: impl FnOnce(&C)) {
        // D1.
        let session = self.enter(mutator);
        // D2. Within the session, and on the list: a cycle uses the context, and what it is given
        // back to.
        retire(&mutator.context);
        drop(session);
        // D3.
        self.forget(mutator);
    }

    fn forget(&self, mutator: &Arc<MutatorState<C>>) {
        let mutators = &mut self.state.lock().mutators;
        // From the end, where those are that come and go while others stay.
        if let Some(at) = mutators.iter().rposition(|other| Arc::ptr_eq(other, mutator)) {
            mutators.swap_remove(at);
        }
    }

    /// Opens a session. If the mutators are stopped it waits until they are not, and helps
    /// meanwhile. Called on the mutator's thread, without a session open.
    #[inline]
    pub(crate) fn enter<'a>(&'a self, mutator: &'a MutatorState<C>) -> Session<'a, C> {
        debug_assert!(!mutator.active.load(Ordering::Relaxed), "a session is open already");
        // E1. Relaxed: a collector that sees it waits, and reads nothing of ours.
        mutator.active.store(true, Ordering::Relaxed);
        // E2. EnterFence: pairs with StopFence. Of E1 and T2, the one that comes later in the order
        // of the fences is seen by the other side, at E3 or T4.
        fence(Ordering::SeqCst);
        // E3. Acquire: pairs with the release of R1, so that the session sees what the cycle did.
        if self.stopping.load(Ordering::Acquire) {
            self.back_out(mutator);
        }
        Session { handshake: self, mutator }
    }

    /// Withdraws a session that may not be opened now. Opens it when it may.
    #[cold]
    #[inline(never)]
    fn back_out(&self, mutator: &MutatorState<C>) {
        // E4. Release: as X1; this session did nothing, but the one before did.
        mutator.active.store(false, Ordering::Release);
        let mut state = self.state.lock();
        // E5. The collector may have seen E1, and wait for us.
        self.all_inactive.notify_all();
        state.entering += 1;
        let round = state.round;
        drop(state);
        // Most cycles are short.
        self.spin_until(|| !self.is_stopping());
        // E6.
        let mut state = self.wait(self.state.lock(), false);
        self.count_in(&mut state, round);
        // E7. Relaxed: with the lock held, so that T4, which comes after T2, sees it.
        mutator.active.store(true, Ordering::Relaxed);
    }

    /// Takes note that a mutator has waited long enough, since that round.
    fn count_in(&self, state: &mut State<C>, round: u64) {
        state.entering -= 1;
        debug_assert!(state.round <= round + 1, "two cycles have gone by");
        if state.round > round {
            state.readmitted -= 1;
            if state.readmitted == 0 {
                self.resumed.notify_all();
            }
        }
    }

    /// K1. Tells whether the collector does with sessions that are parked. A hint.
    #[inline]
    pub(crate) fn is_parking(&self) -> bool {
        // Relaxed: it is looked at again with the lock held.
        self.parking.load(Ordering::Relaxed)
    }

    /// Parks the session of the mutator with this context, if the collector does with that. Called
    /// on the mutator's thread, within its session, where nothing is half done.
    #[cold]
    #[inline(never)]
    pub(crate) fn park(&self, context: &C) {
        let state = self.state.lock();
        if let Some(mutator) = state.mutator_of(context) {
            self.park_with(state, &mutator);
        }
    }

    /// Parks a session, if the collector does with that, until it does not any more.
    fn park_with<'a>(&'a self, mut state: MutexGuard<'a, State<C>>, mutator: &MutatorState<C>) {
        if !self.is_parking() {
            return;
        }
        // K2. Relaxed: with the lock held, so that T4 sees it, and all that the session has done.
        mutator.parked.store(true, Ordering::Relaxed);
        self.all_inactive.notify_all();
        state.entering += 1;
        let round = state.round;
        drop(state);
        // Most stops are short.
        self.spin_until(|| !self.is_parking());
        let mut state = self.state.lock();
        while self.is_parking() {
            self.resumed.wait(&mut state);
        }
        // K3.
        mutator.parked.store(false, Ordering::Relaxed);
        self.count_in(&mut state, round);
    }

    /// Looks `spins` times before a thread sleeps: some ten microseconds, where sleeping and being
    /// woken take some fifty. The lock tells afterwards whether it is so.
    fn spin_until(&self, is_so: impl Fn() -> bool) {
        for _ in 0..self.spins {
            if is_so() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Returns once the mutators are not stopped; helps until then. With `to_stop` it also waits
    /// until all readmitted mutators are in.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<C>>,
        to_stop: bool,
    ) -> MutexGuard<'a, State<C>> {
        // Relaxed: it is written with the lock held, which we hold.
        while self.stopping.load(Ordering::Relaxed) || (to_stop && state.readmitted > 0) {
            match state.take_helper_slot() {
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

    /// Waits until no session is open, and keeps it so. With `parks` it does with sessions that are
    /// parked, too. It asks `unless` when no other thread has the mutators stopped, and does
    /// nothing if that says so. Called on a thread that has no session open.
    ///
    /// A session that does not end is waited for without end, and reported.
    pub(crate) fn stop(
        &self,
        parks: bool,
        unless: impl FnOnce() -> bool,
        policy: Option<SlowSessionPolicy<'_>>,
    ) -> Option<StopGuard<'_, C>> {
        // T1. One at a time, and not before all are in that waited for the last.
        self.spin_until(|| !self.is_stopping());
        let mut state = self.wait(self.state.lock(), true);
        if unless() {
            return None;
        }
        let since = self.tell(&mut state, parks);
        // T4. Most sessions are short, too; to end one takes the lock.
        state = self.look_at_sessions(state);
        let mut turn_at = if parks { since.checked_add(self.patience) } else { None };
        let mut report_at = policy.as_ref().and_then(|policy| since.checked_add(policy.after));
        while self.is_any_running(&state) {
            let deadline = report_at.into_iter().chain(turn_at).min();
            if !wait_until(&self.all_inactive, &mut state, deadline) || !self.is_any_running(&state)
            {
                continue;
            }
            if turn_at.is_some() && turn_at == deadline {
                turn_at = self.take_turns();
                continue;
            }
            let Some(policy) = &policy else { continue };
            let running = state.active().filter(|mutator| !self.is_parked(mutator));
            let slow: Vec<_> = running.map(|mutator| mutator.thread.clone()).collect();
            drop(state);
            let waited = since.elapsed();
            slow.iter().for_each(|thread| (policy.report)(thread, waited));
            // Twice as late the next time: to be seen, and not to fill a log.
            report_at = since.checked_add(waited * 2);
            state = self.state.lock();
        }
        Some(self.stopped(&state, since, None))
    }

    /// Parks the session of the mutator with this context, if a collector does with that. Tells why
    /// it could not stop the others; `None` if no collector is there. Called as
    /// [`park`](Self::park).
    pub(crate) fn give_way(&self, context: &C) -> Option<NotStopped> {
        let state = self.state.lock();
        let own = state.mutator_of(context).filter(|_| self.is_stopping())?;
        Some(self.give_way_with(state, &own))
    }

    fn give_way_with(&self, state: MutexGuard<'_, State<C>>, own: &MutatorState<C>) -> NotStopped {
        let parks = state.parks;
        if self.is_parking() {
            self.park_with(state, own);
            return NotStopped::Parked;
        }
        if parks { NotStopped::Running } else { NotStopped::Ends }
    }

    /// Stops the other mutators for the session of the one with this context, within an allocation.
    /// Called as [`park`](Self::park).
    pub(crate) fn stop_within(&self, context: &C) -> Result<StopGuard<'_, C>, NotStopped> {
        let mut state = self.state.lock();
        let own = state.mutator_of(context).ok_or(NotStopped::Ends)?;
        // N1.
        loop {
            if self.is_stopping() {
                // That thread waits for this session to end, or to be parked.
                return Err(self.give_way_with(state, &own));
            }
            if state.readmitted == 0 {
                break;
            }
            self.resumed.wait(&mut state);
        }
        if state.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return Err(NotStopped::Running);
        }
        let since = self.tell(&mut state, true);
        // N2. As K2.
        own.parked.store(true, Ordering::Relaxed);
        state = self.look_at_sessions(state);
        let deadline = since.checked_add(self.patience);
        while self.is_any_running(&state) {
            if wait_until(&self.all_inactive, &mut state, deadline) && self.is_any_running(&state) {
                // N3.
                state.not_before = Instant::now().checked_add(RUNNING);
                own.parked.store(false, Ordering::Relaxed);
                self.resume(state);
                return Err(NotStopped::Running);
            }
        }
        Ok(self.stopped(&state, since, Some(own)))
    }

    /// N4. Has the session of the mutator with this context wait until it may try again to stop the
    /// others, or another thread has. A collector finds it parked meanwhile. Called as
    /// [`park`](Self::park).
    #[cold]
    #[inline(never)]
    pub(crate) fn rest(&self, context: &C) {
        let mut state = self.state.lock();
        let Some(own) = state.mutator_of(context) else { return };
        let now = Instant::now();
        let not_before = state.not_before.filter(|&not_before| not_before > now);
        let deadline = not_before.or_else(|| now.checked_add(RUNNING));
        // As K2.
        own.parked.store(true, Ordering::Relaxed);
        self.all_inactive.notify_all();
        state.entering += 1;
        let round = state.round;
        while state.round == round {
            if self.is_parking() {
                self.resumed.wait(&mut state);
                continue;
            }
            let is_over = wait_until(&self.resumed, &mut state, deadline);
            if is_over && !self.is_parking() {
                break;
            }
        }
        // As K3. A collector that parks has resumed the mutators, or goes on without this session.
        own.parked.store(false, Ordering::Relaxed);
        self.count_in(&mut state, round);
    }

    /// Tells the mutators that they are to stop. Gives the time.
    fn tell(&self, state: &mut State<C>, parks: bool) -> Instant {
        state.parks = parks;
        self.parking.store(parks, Ordering::Relaxed);
        // T2. Relaxed: what a session has to see is not ours yet.
        self.stopping.store(true, Ordering::Relaxed);
        let since = Instant::now();
        // T3. StopFence: pairs with EnterFence and ExitFence.
        fence(Ordering::SeqCst);
        since
    }

    /// Looks some times, without the lock, whether sessions that are open go on.
    fn look_at_sessions<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<C>>,
    ) -> MutexGuard<'a, State<C>> {
        let open: Vec<_> = state.active().cloned().collect();
        if self.spins > 0 && !open.is_empty() {
            drop(state);
            let runs = |mutator: &MutatorState<C>| {
                mutator.active.load(Ordering::Relaxed) && !self.is_parked(mutator)
            };
            self.spin_until(|| !open.iter().any(|mutator| runs(mutator)));
            state = self.state.lock();
        }
        state
    }

    /// Tells whether the session of a mutator is parked, and is to be. Without the lock it is a
    /// hint.
    fn is_parked(&self, mutator: &MutatorState<C>) -> bool {
        self.is_parking() && mutator.parked.load(Ordering::Relaxed)
    }

    fn is_any_running(&self, state: &State<C>) -> bool {
        state.active().any(|mutator| !self.is_parked(mutator))
    }

    /// T5. Has sessions that are parked go on for a while, as another may wait for one of them.
    /// Then has them park again. Tells when it is time for the other.
    fn take_turns(&self) -> Option<Instant> {
        let parks = !self.is_parking();
        self.parking.store(parks, Ordering::Relaxed);
        if !parks {
            self.resumed.notify_all();
        }
        // A model has no time: it comes to both ends of the first wait.
        if cfg!(any(loom, shuttle)) {
            return None;
        }
        Instant::now().checked_add(if parks { PARKED } else { RUNNING })
    }

    fn stopped(
        &self,
        state: &State<C>,
        since: Instant,
        within: Option<Arc<MutatorState<C>>>,
    ) -> StopGuard<'_, C> {
        let has_sessions = self.is_parking() && state.is_any_active();
        let is_assist = within.is_some();
        let safepoint_time = since.elapsed();
        let stopped = Stopped { since, safepoint_time, has_sessions, is_assist };
        StopGuard { handshake: self, stopped, within }
    }

    /// R1, R2.
    fn resume(&self, mut state: MutexGuard<'_, State<C>>) {
        state.round += 1;
        state.readmitted = state.entering;
        self.parking.store(false, Ordering::Relaxed);
        // R1. Release: pairs with the acquire of E3.
        self.stopping.store(false, Ordering::Release);
        drop(state);
        // R2.
        self.resumed.notify_all();
    }

    /// Tells whether sessions may not be opened. A hint to a thread that has one open, and could
    /// end it.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        // Relaxed: nothing is read on the strength of it.
        self.stopping.load(Ordering::Relaxed)
    }

    /// Tells how many mutators there are.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().mutators.len()
    }

    /// Calls `each` with the context of every mutator. Called while the mutators are stopped.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&C)) {
        self.state.lock().mutators.iter().for_each(|mutator| each(&mutator.context));
    }
}

#[cfg(all(test, not(shuttle)))]
impl<C> Handshake<C> {
    /// Threads that sleep until the mutators are resumed, or for a job.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Tells whether a session has tried in vain to stop the others.
    #[cfg(not(loom))]
    pub(crate) fn has_stopped_in_vain(&self) -> bool {
        self.state.lock().not_before.is_some()
    }
}

#[cfg(all(test, loom))]
impl<C> Handshake<C> {
    /// Makes one in which a collector waits for all sessions to park, however long it takes.
    pub(crate) fn patient() -> Self {
        Handshake { patience: Duration::MAX, ..Self::new() }
    }

    /// Mutators that wait to open a session.
    pub(crate) fn entering(&self) -> usize {
        self.state.lock().entering
    }
}

impl<C> Default for Handshake<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for Handshake<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}

impl<C> State<C> {
    fn active(&self) -> impl Iterator<Item = &Arc<MutatorState<C>>> {
        // Acquire: pairs with the release of X1 and E4, so that the collector sees what the session
        // did.
        self.mutators.iter().filter(|mutator| mutator.active.load(Ordering::Acquire))
    }

    fn is_any_active(&self) -> bool {
        self.active().next().is_some()
    }

    /// Finds a mutator by its context. O(mutators).
    fn mutator_of(&self, context: &C) -> Option<Arc<MutatorState<C>>> {
        self.mutators.iter().find(|mutator| ptr::eq(&mutator.context, context)).cloned()
    }

    fn take_helper_slot(&mut self) -> Option<Arc<dyn Job>> {
        self.helper_slots = self.helper_slots.checked_sub(1)?;
        self.helping += 1;
        self.job.clone()
    }
}

impl<C> MutatorState<C> {
    /// Gives the mutator's context: for the thread that has its session open.
    pub(crate) fn context(&self) -> &C {
        &self.context
    }
}

impl<C> Drop for Session<'_, C> {
    #[inline]
    fn drop(&mut self) {
        let Session { handshake, mutator } = self;
        // X1. Release: pairs with the acquire of T4.
        mutator.active.store(false, Ordering::Release);
        // X2. ExitFence: pairs with StopFence. Either X3 sees that the collector waits, or T4 has
        // seen X1.
        fence(Ordering::SeqCst);
        // X3. Relaxed: a thread that reads `true` takes the lock.
        if handshake.stopping.load(Ordering::Relaxed) {
            handshake.wake();
        }
    }
}

impl<C> Handshake<C> {
    /// X4. Tells the collector that a session has ended. The lock makes it come after T4's look, or
    /// before it.
    #[cold]
    #[inline(never)]
    fn wake(&self) {
        drop(self.state.lock());
        self.all_inactive.notify_all();
    }
}

impl<C> Drop for StopGuard<'_, C> {
    fn drop(&mut self) {
        let handshake = self.handshake;
        let state = handshake.state.lock();
        let is_clean = (state.helper_slots, state.helping, state.readmitted) == (0, 0, 0);
        debug_assert!(is_clean || std::thread::panicking(), "a job or a debt is left over");
        if let Some(own) = &self.within {
            own.parked.store(false, Ordering::Relaxed);
        }
        handshake.resume(state);
    }
}

impl<C> Waiting for StopGuard<'_, C> {
    fn with_help(&self, job: Arc<dyn Job>, most: usize, work: &mut dyn FnMut(usize)) {
        let handshake = self.handshake;
        // J1. Offer helper slots to the threads that wait.
        let mut state = handshake.state.lock();
        let helper_slots = most.min(state.waiting);
        state.helper_slots = helper_slots;
        state.job = Some(job);
        drop(state);
        if helper_slots > 0 {
            handshake.resumed.notify_all();
        }
        let _dismiss = Dismiss(handshake);
        work(helper_slots);
    }
}

/// J2. Withdraws the helper slots, and waits until the helpers have left.
struct Dismiss<'a, C>(&'a Handshake<C>);

impl<C> Drop for Dismiss<'_, C> {
    fn drop(&mut self) {
        let Dismiss(handshake) = self;
        let mut state = handshake.state.lock();
        state.helper_slots = 0;
        let job = mem::take(&mut state.job);
        while state.helping > 0 {
            handshake.all_inactive.wait(&mut state);
        }
        drop(state);
        drop(job);
    }
}

/// Counts a helper out, also when the job has panicked.
struct Leave<'a, C>(&'a Handshake<C>);

impl<C> Drop for Leave<'_, C> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.helping -= 1;
        drop(state);
        self.0.all_inactive.notify_all();
    }
}
