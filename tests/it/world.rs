//! The payload types that most tests build their heaps of.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use sexton::{
    Branded, Cleanup, CleanupPool, Gc, GcCell, GcRefCell, GcReport, Heap, HeapBuilder, Leaf,
    Pacing, Trace,
};

/// A node of a graph: a list link, any number of edges, and a number.
#[derive(Trace)]
pub(crate) struct Node<'gc> {
    pub(crate) id: u64,
    pub(crate) next: GcCell<Option<Gc<'gc, Node<'gc>>>>,
    pub(crate) edges: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
}

impl<'gc> Node<'gc> {
    pub(crate) fn new(id: u64) -> Self {
        Node { id, next: GcCell::new(None), edges: GcRefCell::default() }
    }

    pub(crate) fn before(id: u64, next: Option<Gc<'gc, Node<'gc>>>) -> Self {
        Node { id, next: GcCell::new(next), edges: GcRefCell::default() }
    }
}

/// The root: one list and any number of other nodes and tokens.
#[derive(Trace, Default)]
pub(crate) struct World<'gc> {
    pub(crate) head: GcCell<Option<Gc<'gc, Node<'gc>>>>,
    pub(crate) nodes: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
    pub(crate) tokens: GcRefCell<Vec<Gc<'gc, Leaf<Token>>>>,
}

pub(crate) type WorldHeap = Heap<World<'static>>;

pub(crate) fn builder() -> HeapBuilder<World<'static>> {
    Heap::builder()
}

/// A heap that collects only when told to; and at each session, in zeal mode.
pub(crate) fn manual_heap() -> WorldHeap {
    builder().pacing(Pacing::Manual).build(|_| World::default())
}

/// A heap on this pool that collects only when told to; and at each session, in zeal mode.
pub(crate) fn heap_on(pool: &CleanupPool) -> WorldHeap {
    builder().cleanup_pool(pool).pacing(Pacing::Manual).build(|_| World::default())
}

/// Settings of a heap that collects only when told to, where all others are in zeal mode, too. For
/// tests that count collections, or in which something is to happen between an object's death and
/// its discovery.
pub(crate) fn calm<R: Branded>() -> HeapBuilder<R> {
    Heap::builder().pacing(Pacing::Manual).zeal(false)
}

/// A [`calm`] heap on this pool.
pub(crate) fn calm_heap_on(pool: &CleanupPool) -> WorldHeap {
    calm().cleanup_pool(pool).build(|_| World::default())
}

/// All phases of a cycle together.
pub(crate) fn phases(report: &GcReport) -> Duration {
    let GcReport { safepoint_time, mark_time, clear_time, .. } = *report;
    let GcReport { sweep_time, flush_time, release_time, .. } = *report;
    safepoint_time + mark_time + clear_time + sweep_time + flush_time + release_time
}

/// Registers a cleanup for an object each, and queues them.
pub(crate) fn queue<F: FnOnce() + Send + 'static>(
    heap: &mut WorldHeap,
    cleanups: impl IntoIterator<Item = F>,
) -> Vec<Cleanup> {
    let handles = heap.mutate(|mc, _| {
        cleanups.into_iter().map(|f| mc.add_cleanup(mc.alloc(Node::new(0)), f)).collect()
    });
    heap.collect();
    handles
}

/// Counts its drops.
#[derive(Clone, Default)]
pub(crate) struct Token {
    dropped: Arc<AtomicUsize>,
}

impl Token {
    pub(crate) fn drops(&self) -> usize {
        self.dropped.load(SeqCst)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// A count that cleanups raise.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// How many clones there are beside this one: those that cleanups capture.
    pub(crate) fn sharers(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    pub(crate) fn raise(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    /// A cleanup that raises the count.
    pub(crate) fn cleanup(&self) -> impl FnOnce() + Send + 'static {
        let counter = self.clone();
        move || counter.raise()
    }
}

/// Waits for a condition; panics with `what` when it takes too long.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A door that cleanups wait at until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    pub(crate) fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 += 1;
        self.0.1.notify_all();
        let waited = self.0.1.wait_timeout_while(state, LONG, |state| !state.0).unwrap();
        assert!(!waited.1.timed_out(), "the gate stayed closed");
    }

    /// Waits until `n` have come to the door.
    #[track_caller]
    pub(crate) fn wait_for(&self, n: usize) {
        let state = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(state, LONG, |state| state.1 < n).unwrap();
        assert!(!waited.1.timed_out(), "fewer than {n} came to the gate");
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }

    /// A cleanup that waits at the door.
    pub(crate) fn cleanup(&self) -> impl FnOnce() + Send + 'static {
        let gate = self.clone();
        move || gate.pass()
    }
}

/// Far more than anything here takes; a test that gets there has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);
