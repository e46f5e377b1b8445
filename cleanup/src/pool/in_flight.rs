//! In-flight records: the block that each runner has in hand, for others to see and, when the
//! runner stalls, to requeue its tail.
//!
//! A runner begins a block in its record before it runs the block, and ends it there afterwards. In
//! between it does not lock: others read from the block's cursor how far it is. The *tail* of a
//! block is the entries behind the cleanup that runs. When that cleanup has run for too long, the
//! tail is copied to a new block and published: it is *requeued*.
//!
//! Invariant: **while two blocks hold the same entry, no slot of those entries' records is used
//! again.** The stalled runner may come back while its tail is being requeued, and go on. So for a
//! while it and the copy's runner may both come to a record. The record itself sees to it that its
//! closure runs once: only one of them wins the compare-exchange of
//! [`take`](crate::record::storage::Storage::take). But a slot may have been freed and armed again,
//! for an object that lives. The loser must not mistake it for the record it was told of. So all
//! runners that share entries share a [`DeferredFree`]. It keeps the slots they free until the last
//! sharer has ended its block.
//!
//! It does not know when a runner counts as stalled (see [`monitor`](crate::pool::monitor)), nor
//! which runner takes the copy.

#![forbid(unsafe_code)]

use crate::account::counters::Runner;
use crate::account::registry::BatchAccount;
use crate::block::arena::{Block, View};
use crate::block::entries::CAPACITY;
use crate::observe::description::Description;
use crate::pool::deferred_free::DeferredFree;
use crate::pool::queued::Queued;
use sexton_sync::{Arc, AtomicBool, Mutex, Ordering};
use std::time::{Duration, Instant};

/// The block that one runner has in hand.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The runner that uses the record, while one does.
    runner: Runner,
    /// Locked by the runner at the beginning and the end of a block, and where it has to know
    /// whether its tail was taken. Locked by others to look, or to take the tail. Never held while
    /// user code runs.
    in_hand: Mutex<Option<InHand>>,
    /// The monitor has let go of the block in hand. Written with that locked; read by the runner
    /// after each step of the cursor. Relaxed: see [`stays_watched`](InFlight::stays_watched).
    let_go: AtomicBool,
}

/// A block that is being run.
#[derive(Debug)]
struct InHand {
    view: View,
    batch: Arc<BatchAccount>,
    begun: Instant,
    /// Entries begun before that: in a rest, by the runner that put it back.
    before: usize,
    watched: Watched,
    /// Set once the block shares entries with another.
    deferred: Option<Arc<DeferredFree>>,
    /// Another block has a copy of the tail. Its runner sees to whatever is still unrun.
    requeued: bool,
    /// The cursor that the last look found, and when it was first found there.
    seen: Option<(usize, Instant)>,
    /// The hook has been told about the cleanup at this cursor.
    told: Option<usize>,
}

/// Whether the monitor is to look at a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    No,
    /// It is not to fall dormant.
    Yes,
    /// It was to. But while the cursor stays here there is nothing left for it to do.
    LetGo(usize),
}

impl InHand {
    /// Tells whether a runner at this cursor has begun none of it yet. The cursor moves, so a
    /// decision reads it once.
    fn is_untouched(&self, cursor: usize) -> bool {
        cursor == self.before
    }

    /// Tells whether others could take entries over from a runner at this cursor.
    fn has_tail(&self, cursor: usize) -> bool {
        // The first one to be run is its runner's own.
        let first = cursor + usize::from(self.is_untouched(cursor));
        !self.requeued && self.view.len() > first
    }
}

/// The findings of one look at a runner.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Describes the cleanup begun last. `None` if its runner has not begun any yet.
    pub(crate) running: Option<Description>,
    /// Entries begun, and entries in all.
    pub(crate) at: usize,
    pub(crate) len: usize,
    /// Since the block was begun.
    pub(crate) block_age: Duration,
    /// How long the cleanup has run for certain: since the first look that found it. For the first
    /// one, since the block was begun.
    pub(crate) age: Duration,
    pub(crate) requeued: bool,
}

impl InFlight {
    pub(crate) fn new(runner: Runner) -> Arc<Self> {
        Arc::new(InFlight { runner, in_hand: Mutex::new(None), let_go: AtomicBool::new(false) })
    }

    pub(crate) fn runner(&self) -> Runner {
        self.runner
    }

    // ---- the runner's side
    // -------------------------------------------------------------------------

    /// Begins a block.
    pub(crate) fn begin(&self, queued: &Queued) {
        self.set(&mut self.in_hand.lock(), queued);
    }

    /// Begins the block that `claim` finds, if it finds one. The record is locked meanwhile: a
    /// block that a runner has claimed is in flight for all others to see.
    pub(crate) fn begin_next(&self, claim: impl FnOnce() -> Option<Queued>) -> Option<Queued> {
        let mut in_flight = self.in_hand.lock();
        let queued = claim()?;
        self.set(&mut in_flight, &queued);
        Some(queued)
    }

    fn set(&self, in_flight: &mut Option<InHand>, queued: &Queued) {
        let before = in_flight.replace(InHand {
            view: queued.block.view(),
            batch: queued.batch.clone(),
            begun: Instant::now(),
            before: queued.block.cursor(),
            watched: Watched::No,
            deferred: queued.deferred.clone(),
            requeued: false,
            seen: None,
            told: None,
        });
        debug_assert!(before.is_none(), "a runner has one block at a time");
        self.let_go.store(false, Ordering::Relaxed);
    }

    /// Ends the block. Whether its rest belongs to others, and the slots it shares with them.
    pub(crate) fn end(&self) -> (bool, Option<Arc<DeferredFree>>) {
        let in_hand = self.in_hand.lock().take().expect("a block in hand");
        (in_hand.requeued, in_hand.deferred)
    }

    /// Calls `step` with the record locked, so that the tail is not requeued meanwhile. `None` if
    /// it has been: then the front record, and all that follow, belong to the copy's runner.
    pub(crate) fn step<R>(&self, step: impl FnOnce(Option<&DeferredFree>) -> R) -> Option<R> {
        let in_hand = self.in_hand.lock();
        let in_hand = in_hand.as_ref().expect("a block in hand");
        (!in_hand.requeued).then(|| step(in_hand.deferred.as_deref()))
    }

    /// Tells whether the monitor has let go of the block in hand, so that it has to be asked again
    /// to watch.
    #[inline]
    pub(crate) fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    // ---- the others' side
    // --------------------------------------------------------------------------

    /// Tells whether a block is in hand that is to be watched.
    pub(crate) fn is_watched(&self) -> bool {
        self.in_hand.lock().as_ref().is_some_and(|in_hand| in_hand.watched == Watched::Yes)
    }

    /// Has what is in hand watched if `worth` says so, which is told whether there is a tail that
    /// others could take. Whether it is watched. `worth` is not asked about a block that is watched
    /// already.
    pub(crate) fn is_to_be_watched(&self, worth: impl FnOnce(bool) -> bool) -> bool {
        let mut in_hand = self.in_hand.lock();
        in_hand.as_mut().is_some_and(|in_hand| {
            let tail = in_hand.has_tail(in_hand.view.cursor());
            let watched = in_hand.watched == Watched::Yes || worth(tail);
            in_hand.watched = if watched { Watched::Yes } else { Watched::No };
            self.let_go.store(false, Ordering::Relaxed);
            watched
        })
    }

    /// Tells whether the monitor still has something to do here, after a look. If not, it lets go
    /// of the block: a cleanup that never returns is not to keep it awake.
    ///
    /// There is something to do while there is a tail, if tails are ever taken. Or while the hook
    /// is still to be told about the cleanup. The runner that goes on asks to be watched again. Its
    /// step and its look at `let_go` have no fence in between, as it steps once a cleanup. But the
    /// monitor looks some more times before it falls dormant, and takes up a block again whose
    /// cursor has moved.
    pub(crate) fn stays_watched(&self, to_take: bool, to_tell: bool) -> bool {
        let mut in_hand = self.in_hand.lock();
        let Some(in_hand) = in_hand.as_mut() else { return false };
        if in_hand.watched != Watched::Yes {
            return false;
        }
        let cursor = in_hand.view.cursor();
        let tail = to_take && in_hand.has_tail(cursor);
        let news = to_tell && in_hand.told != Some(cursor);
        let stays = tail || news;
        if !stays {
            in_hand.watched = Watched::LetGo(cursor);
            self.let_go.store(true, Ordering::Relaxed);
        }
        stays
    }

    /// Looks at what is in hand, and remembers what it saw.
    pub(crate) fn snapshot(&self, now: Instant) -> Option<Snapshot> {
        let mut in_hand = self.in_hand.lock();
        let in_hand = in_hand.as_mut()?;
        let at = in_hand.view.cursor();
        let since = match in_hand.seen {
            Some((seen, since)) if seen == at => since,
            _ if at <= in_hand.before + 1 => in_hand.begun,
            _ => now,
        };
        in_hand.seen = Some((at, since));
        if matches!(in_hand.watched, Watched::LetGo(cursor) if cursor != at) {
            in_hand.watched = Watched::Yes;
            self.let_go.store(false, Ordering::Relaxed);
        }
        let running = if in_hand.is_untouched(at) { None } else { in_hand.view.get(at - 1) };
        let storage = in_hand.batch.registry().storage;
        Some(Snapshot {
            running: running.map(|record| storage.description(record)),
            at,
            len: in_hand.view.len(),
            block_age: now.saturating_duration_since(in_hand.begun),
            age: now.saturating_duration_since(since),
            requeued: in_hand.requeued,
        })
    }

    /// Tells whether the hook is still to be told about the cleanup at this cursor. Once.
    pub(crate) fn is_news(&self, at: usize) -> bool {
        let mut in_hand = self.in_hand.lock();
        in_hand.as_mut().is_some_and(|in_hand| {
            in_hand.view.cursor() == at && in_hand.told.replace(at) != Some(at)
        })
    }

    /// Copies the tail to a new block, to be published or discarded. `None` if there is none, if it
    /// was taken before, or if the runner is no longer `at` the cursor where it was found stalled.
    pub(crate) fn take_tail(
        &self,
        new_block: impl FnOnce() -> Block,
        at: Option<usize>,
    ) -> Option<Queued> {
        let mut in_hand = self.in_hand.lock();
        let in_hand = in_hand.as_mut()?;
        // It may be behind. Entries that the runner has begun meanwhile are in both blocks then,
        // like those that it begins later.
        let cursor = in_hand.view.cursor();
        if in_hand.requeued || at.is_some_and(|at| at != cursor) {
            return None;
        }
        in_hand.view.get(cursor)?;
        let block = new_block();
        let mut len = 0;
        for record in (cursor..CAPACITY).map_while(|at| in_hand.view.get(at)) {
            block.write(len, record);
            len += 1;
        }
        block.set_len(len);
        let batch = in_hand.batch.clone();
        let deferred = in_hand.deferred.get_or_insert_with(|| DeferredFree::new(&batch)).clone();
        in_hand.requeued = true;
        Some(Queued { block, batch, deferred: Some(deferred) })
    }
}

/// The in-flight records of a pool: one per worker, and as many as ever were helping threads at a
/// time.
#[derive(Debug, Default)]
pub(crate) struct Runners {
    all: Mutex<Vec<Arc<InFlight>>>,
    /// Records of helping threads that no thread uses.
    free: Mutex<Vec<Arc<InFlight>>>,
}

impl Runners {
    /// Makes a record for a worker.
    pub(crate) fn add(&self, runner: Runner) -> Arc<InFlight> {
        let in_flight = InFlight::new(runner);
        self.all.lock().push(in_flight.clone());
        in_flight
    }

    /// Removes the record of a worker that has gone.
    pub(crate) fn remove(&self, in_flight: &Arc<InFlight>) {
        self.all.lock().retain(|d| !Arc::ptr_eq(d, in_flight));
    }

    /// Lends a record to a helping thread, until dropped.
    pub(crate) fn guest(&self) -> Guest<'_> {
        let free = self.free.lock().pop();
        Guest { runners: self, in_flight: free.unwrap_or_else(|| self.add(Runner::Guest)) }
    }

    /// Gives all records.
    pub(crate) fn all(&self) -> Vec<Arc<InFlight>> {
        self.all.lock().clone()
    }
}

/// A helping thread's in-flight record.
pub(crate) struct Guest<'a> {
    runners: &'a Runners,
    in_flight: Arc<InFlight>,
}

impl std::ops::Deref for Guest<'_> {
    type Target = InFlight;
    fn deref(&self) -> &InFlight {
        &self.in_flight
    }
}

/// In-flight records of helping threads that are kept for the next ones.
const MOST_FREE_GUESTS: usize = 16;

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut free = self.runners.free.lock();
        if free.len() < MOST_FREE_GUESTS {
            free.push(self.in_flight.clone());
            return;
        }
        drop(free);
        // The monitor walks all of them at each tick.
        self.runners.remove(&self.in_flight);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::record::ending::{Ending, Taker};
    use crate::record::tag::State;
    use crate::record::thunk::Thunk;
    use crate::{Cleanup, Client, Head, Pool, PoolConfig, Ticket};
    use std::sync::mpsc::{Sender, channel};

    /// A block of cleanups in the list of a manual pool where nothing counts as stalled.
    struct Scene {
        pool: Arc<Pool>,
        client: Client,
        queued: Vec<(Head, Cleanup)>,
        ticket: Ticket,
    }

    type Closure = Box<dyn FnOnce() + Send>;

    /// `first` is called by the first cleanup, which is in hand then, and the only one.
    fn scene(
        first: impl FnOnce(&Pool, &InFlight) + Send + 'static,
        others: impl IntoIterator<Item = Closure>,
    ) -> Scene {
        let config = PoolConfig { stall_after: Duration::MAX, ..PoolConfig::default() };
        let pool = Pool::new(config, None);
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let weak = Arc::downgrade(&pool);
        let first: Closure = Box::new(move || {
            let pool = weak.upgrade().expect("it runs this");
            let [in_flight] = &pool.runners().all()[..] else { panic!("one thread, one record") };
            first(&pool, in_flight);
        });
        let queued: Vec<_> =
            [first].into_iter().chain(others).map(|f| registrar.register(None, f)).collect();
        let cycle = client.begin_cycle();
        let mut local = cycle.local_block();
        queued.iter().for_each(|&(head, _)| local.push(head));
        cycle.flush([local]);
        let ticket = client.ticket();
        Scene { pool, client, queued, ticket }
    }

    impl Scene {
        fn states(&self) -> Vec<State> {
            let storage = self.client.registry().storage;
            self.queued.iter().map(|(head, _)| storage.state(head.index()).1).collect()
        }

        /// Each cleanup has ended and is counted once, `ended_early` of them by their handles; and
        /// each slot is used again.
        fn has_ended(&self, ended_early: u64) {
            let stats = self.pool.stats();
            assert_eq!((stats.ended_early, stats.backlog, stats.panicked), (ended_early, 0, 0));
            assert!(self.ticket.is_done());
            assert_eq!(self.states(), vec![State::DoneFree; self.queued.len()]);
            // No slot is new before all free ones are used, and other tests have left free ones.
            let mut registrar = self.client.registrar();
            let slots = self.client.registry().storage.made();
            let heads: Vec<_> = (0..slots).map(|_| registrar.register(None, || {}).0).collect();
            assert!(self.queued.iter().all(|(head, _)| heads.contains(head)));
            heads.into_iter().for_each(|head| registrar.discard(head));
        }
    }

    #[test]
    fn a_tail_is_taken_once_and_only_at_the_cursor_where_its_runner_was_found() {
        let (tell, told) = channel();
        let first = move |pool: &Pool, in_flight: &InFlight| {
            for at in [0, 2, 1, 1] {
                let tail = in_flight.take_tail(|| pool.block(), Some(at));
                tell.send((at, tail.as_ref().map(|tail| tail.block.len()))).expect("it is heard");
                pool.publish(tail);
            }
        };
        let scene = scene(first, [Box::new(|| {}) as Closure, Box::new(|| {})]);
        assert_eq!(scene.pool.run_pending(usize::MAX), 3);
        let tails: Vec<_> = told.iter().collect();
        assert_eq!(tails, [(0, None), (2, None), (1, Some(2)), (1, None)]);
        scene.has_ended(0);
    }

    impl Drop for Scene {
        /// Nothing stays queued: a batch that never finishes would keep its registry for ever.
        fn drop(&mut self) {
            self.pool.run_pending(usize::MAX);
        }
    }

    /// An in-flight record, and a block of three that is never run: a copy of one that is, in the
    /// end.
    fn runner_and_block() -> (Scene, Arc<InFlight>, Queued) {
        let scene = scene(|_, _| {}, [Box::new(|| {}) as Closure, Box::new(|| {})]);
        let original = scene.pool.queue().try_next().expect("one block");
        let block = scene.pool.block();
        for at in 0..original.block.len() {
            block.write(at, original.block.get(at).expect("an entry"));
        }
        block.set_len(original.block.len());
        let copy = Queued { block, batch: original.batch.clone(), deferred: None };
        scene.pool.publish([original]);
        (scene, InFlight::new(Runner::Guest), copy)
    }

    #[test]
    fn a_runner_is_watched_while_its_block_is_to_be() {
        let (_scene, in_flight, queued) = runner_and_block();
        for watched in [false, true, false] {
            assert!(!in_flight.is_watched(), "nothing is in hand");
            in_flight.begin(&queued);
            assert!(!in_flight.is_watched(), "nothing has said so");
            assert_eq!(in_flight.is_to_be_watched(|_| watched), watched);
            assert_eq!(in_flight.is_watched(), watched);
            assert_eq!(in_flight.is_to_be_watched(|_| false), watched, "it stays so");
            in_flight.end();
        }
    }

    #[test]
    fn the_age_of_a_cleanup_counts_from_the_first_look_that_found_it() {
        let (_scene, in_flight, queued) = runner_and_block();
        let second = Duration::from_secs(1);
        assert!(in_flight.snapshot(Instant::now()).is_none(), "nothing is in hand");
        in_flight.begin(&queued);
        let begun = Instant::now();
        let look = |at: u32| {
            let snapshot = in_flight.snapshot(begun + at * second).expect("a block in hand");
            assert!(snapshot.block_age >= at * second);
            // Rounded: the block was begun a little earlier.
            (snapshot.at, snapshot.age.as_secs())
        };
        queued.block.advance();
        assert_eq!(
            [3, 4].map(look),
            [(1, 3), (1, 4)],
            "the first one has run since it was taken up"
        );
        queued.block.advance();
        assert_eq!([6, 9].map(look), [(2, 0), (2, 3)]);
        queued.block.advance();
        assert_eq!([10, 12].map(look), [(3, 0), (3, 2)]);
    }

    #[test]
    fn a_snapshot_has_no_cleanup_before_the_runner_has_begun_one() {
        let (_scene, in_flight, queued) = runner_and_block();
        let is_running =
            || in_flight.snapshot(Instant::now()).expect("a block in hand").running.is_some();
        for begun_by_another in [0, 1] {
            in_flight.begin(&queued);
            assert!(!is_running(), "{begun_by_another} have been run by another");
            queued.block.advance();
            assert!(is_running());
            in_flight.end();
        }
    }

    #[test]
    fn the_one_to_be_run_first_is_no_tail_and_neither_is_what_was_taken() {
        let (scene, in_flight, queued) = runner_and_block();
        let has_tail = || {
            let mut tail = None;
            in_flight.is_to_be_watched(|found| {
                tail = Some(found);
                false
            });
            tail.expect("it is asked for")
        };
        in_flight.begin(&queued);
        assert!(has_tail(), "two behind the first");
        queued.block.advance();
        assert!(has_tail(), "two behind the one that runs");
        queued.block.advance();
        in_flight.end();
        in_flight.begin(&queued);
        assert!(!has_tail(), "the last one is the runner's own");
        in_flight.end();
        let (_scene, in_flight, queued) = runner_and_block();
        in_flight.begin(&queued);
        queued.block.advance();
        let tail = in_flight.take_tail(|| scene.pool.block(), None).expect("two");
        assert_eq!(tail.block.len(), 2);
        let mut asked = None;
        in_flight.is_to_be_watched(|found| *asked.insert(found));
        assert_eq!(asked, Some(false), "others have it");
    }

    #[test]
    fn the_hook_is_told_of_a_cleanup_once_and_only_while_it_runs() {
        let (_scene, in_flight, queued) = runner_and_block();
        assert!(!in_flight.is_news(1), "nothing is in hand");
        in_flight.begin(&queued);
        for at in 1..=3 {
            queued.block.advance();
            assert_eq!([at - 1, at, at].map(|at| in_flight.is_news(at)), [false, true, false]);
        }
    }

    #[test]
    fn there_are_as_many_guest_records_as_there_were_guests_at_a_time() {
        let runners = Runners::default();
        for guests in [1, 2, 1, 3, 2] {
            let _guests: Vec<_> = (0..guests).map(|_| runners.guest()).collect();
        }
        assert_eq!(runners.all().len(), 3);
    }

    /// The handle's thread is inside the second cleanup when first its runner and then the copy's
    /// comes to it. It is gone before the last sharer is.
    #[test]
    fn a_record_that_its_handle_was_at_is_freed_with_the_rest_and_not_counted_again() {
        let (entered, enter) = channel();
        let (leave, left) = channel();
        let (gone, end) = channel();
        let second = move || {
            entered.send(()).expect("the test waits");
            left.recv().expect("the third tells");
        };
        let third = move || {
            leave.send(()).expect("the second waits");
            end.recv().expect("its thread tells");
        };
        let first = |pool: &Pool, in_flight: &InFlight| pool.requeue_tail(in_flight, Some(1));
        let scene = scene(first, [Box::new(second) as Closure, Box::new(third)]);
        std::thread::scope(|scope| {
            let handle = &scene.queued[1].1;
            scope.spawn(move || {
                assert!(handle.run_now());
                gone.send(()).expect("the third waits");
            });
            enter.recv().expect("it runs");
            scene.pool.run_pending(usize::MAX);
        });
        scene.has_ended(1);
    }

    /// Likewise, and it stays longer than the last sharer.
    #[test]
    fn a_record_that_its_handle_is_still_at_is_left_to_it() {
        let (entered, enter) = channel();
        let (leave, left) = channel();
        let second = move || {
            entered.send(()).expect("the test waits");
            left.recv().expect("the test tells");
        };
        let first = |pool: &Pool, in_flight: &InFlight| pool.requeue_tail(in_flight, Some(1));
        let scene = scene(first, [Box::new(second) as Closure, Box::new(|| {})]);
        let (states, pending) = std::thread::scope(|scope| {
            let handle = &scene.queued[1].1;
            scope.spawn(move || assert!(handle.run_now()));
            enter.recv().expect("it runs");
            scene.pool.run_pending(usize::MAX);
            let halfway = (scene.states(), scene.ticket.pending());
            leave.send(()).expect("the second waits");
            halfway
        });
        assert_eq!(states, [State::DoneFree, State::RunningDetached, State::DoneFree]);
        assert_eq!(pending, 1);
        scene.has_ended(1);
    }

    /// The handle has read the record's byte just before the sweeper wrote it. It does not count,
    /// so the runner that comes to the record does.
    #[test]
    fn a_record_that_its_handle_has_not_counted_is_counted_by_the_runner() {
        let (hand, taken) = channel();
        let first = move |_: &Pool, _: &InFlight| {
            let (thunk, ending): (Thunk, Ending) = taken.recv().expect("the test has it");
            thunk.run();
            assert!(ending.close(false).is_none(), "the chain is still there");
        };
        not_counted_by_its_handle(scene(first, [Box::new(|| {}) as Closure]), hand);
    }

    /// Likewise, by the last sharer.
    #[test]
    fn a_record_that_its_handle_has_not_counted_is_counted_when_the_last_sharer_goes() {
        let (hand, taken) = channel();
        let third = move || {
            let (thunk, ending): (Thunk, Ending) = taken.recv().expect("the test has it");
            thunk.run();
            assert!(ending.close(false).is_none(), "the chain is still there");
        };
        let first = |pool: &Pool, in_flight: &InFlight| pool.requeue_tail(in_flight, Some(1));
        not_counted_by_its_handle(
            scene(first, [Box::new(|| {}) as Closure, Box::new(third)]),
            hand,
        );
    }

    /// Takes the second record for its handle, and hands it to the cleanup that waits for it.
    fn not_counted_by_its_handle(scene: Scene, hand: Sender<(Thunk, Ending)>) {
        let storage = scene.client.registry().storage;
        let index = scene.queued[1].0.index();
        let taker = Taker::Handle { generation: storage.state(index).0 };
        let taken = storage.take(index, taker, false).expect("armed");
        hand.send(taken.extract()).expect("the third waits");
        scene.pool.run_pending(usize::MAX);
        scene.has_ended(1);
    }
}
