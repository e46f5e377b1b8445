//! The settings of a heap.

use std::env;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use crate::id::HeapId;
use crate::policy::pacer::Pacing;

/// Settings of a heap.
#[derive(Clone)]
pub struct HeapConfig {
    /// The most bytes of slots in use.
    pub max_bytes: u64,
    /// When to collect at the end of a session.
    pub pacing: Pacing,
    /// The most threads that mark, or sweep, the one that collects included.
    ///
    /// Others are asked only where there is much to do. By default it is one in a `Local` heap. In
    /// a `Shared` one it is the number of processors, four at most: its mutators leave them idle
    /// meanwhile.
    pub gc_threads: Option<usize>,
    /// Has threads help to collect; `None` to have no thread but those that wait.
    pub spawn_helper: Option<SpawnHelper>,
    /// How long a slice of an automatic cycle may take; `None` to run each cycle at once.
    pub pause_budget: Option<Duration>,
    /// Have memory that is well used backed by pages of 2 MiB.
    pub huge_pages: bool,
    /// Collect at the end of every session, overwrite dead objects, verify after every cycle.
    pub zeal: bool,
    /// Remember where cleanups were registered.
    pub diagnostics: bool,
    /// What becomes of cleanups when the heap is dropped.
    pub on_drop: OnDrop,
    /// How long a collection waits for a session before it calls the hook.
    ///
    /// In a `Local` heap it waits for none.
    pub slow_session: (Duration, SlowSessionHook),
}

impl fmt::Debug for HeapConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeapConfig {
            max_bytes,
            pacing,
            gc_threads,
            spawn_helper,
            pause_budget,
            huge_pages,
            zeal,
            diagnostics,
            on_drop,
            slow_session,
        } = self;
        f.debug_struct("HeapConfig")
            .field("max_bytes", max_bytes)
            .field("pacing", pacing)
            .field("gc_threads", gc_threads)
            .field("spawn_helper", &spawn_helper.is_some())
            .field("pause_budget", pause_budget)
            .field("huge_pages", huge_pages)
            .field("zeal", zeal)
            .field("diagnostics", diagnostics)
            .field("on_drop", on_drop)
            .field("slow_session_after", &slow_session.0)
            .finish()
    }
}

impl HeapConfig {
    /// The pause budget by default: 1 ms.
    pub const DEFAULT_PAUSE_BUDGET: Duration = Duration::from_millis(1);
}

impl Default for HeapConfig {
    fn default() -> Self {
        HeapConfig {
            max_bytes: u64::MAX,
            pacing: Pacing::default(),
            gc_threads: None,
            spawn_helper: None,
            pause_budget: Some(HeapConfig::DEFAULT_PAUSE_BUDGET),
            huge_pages: true,
            zeal: zeal_by_default(),
            diagnostics: false,
            on_drop: OnDrop::default(),
            slow_session: (
                Duration::from_secs(10),
                Arc::new(|session| eprintln!("sexton: {session}")),
            ),
        }
    }
}

/// Tells whether `SEXTON_ZEAL=1` is in the environment. Without debug assertions: no.
fn zeal_by_default() -> bool {
    cfg!(debug_assertions) && env::var_os("SEXTON_ZEAL").is_some_and(|value| value == "1")
}

/// What dropping a heap does to the cleanups of its objects.
///
/// Those that do not run have their captures dropped. Local cleanups that are to run do so on the
/// dropping thread.
///
/// In a pool with threads the drop of a `Heap` waits, up to its `drop_timeout`, for the others.
/// What has not ended by then stays queued. A pool may have no worker, because none could be
/// started or its bound is 0. Then the dropping thread runs cleanups itself, those of other heaps
/// too, and may overrun the timeout by as long as one takes.
///
/// Within a cleanup, and in a manual pool, it does not wait. A manual pool's cleanups are queued,
/// and run by the program alone. Call `CleanupPool::run_pending` until it returns 0 before the
/// pool's last handle goes, which discards what is left.
///
/// In the child of a `fork` none run, and the drop of a heap made before does not wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDrop {
    /// The end of the heap is the death of all its objects: every cleanup runs.
    #[default]
    RunAll,
    /// Cleanups that are queued already run; those of objects that lived to the end do not.
    RunQueued,
    /// No further cleanup begins to run.
    Discard,
}

/// Has a thread do a part of a cycle.
///
/// Given a number, from 1 for a helper of a phase, and what the thread is to do. It does that at
/// once, beside all others. The collection waits until it has returned, or been dropped: a thread
/// that does neither keeps the collection waiting for ever. An error, or a panic, means one helper
/// less.
pub type SpawnHelper = Arc<dyn Fn(usize, Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync>;

/// Is told about each session that a collection has waited long for, on the thread that collects.
pub type SlowSessionHook = Arc<dyn Fn(&SlowSession) + Send + Sync>;

/// A session that has been open for long while another thread waits to collect.
///
/// Every mutator that would open another session waits, too.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlowSession {
    /// The heap.
    pub heap: HeapId,
    /// The thread whose session it is.
    pub thread: ThreadId,
    /// That thread's name, if it has one.
    pub thread_name: Option<String>,
    /// How long it has been waited for.
    pub waited: Duration,
}

impl fmt::Display for SlowSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlowSession { heap, thread, thread_name, waited } = self;
        let name = thread_name.as_deref().unwrap_or("unnamed");
        write!(
            f,
            "{heap} has waited for {waited:.1?} to collect: thread `{name}` ({thread:?}) has a \
             session open, and does not end it"
        )
    }
}
