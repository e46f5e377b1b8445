//! A bounded cache of open files, each closed by its cleanup.
//!
//! # How a file is closed
//!
//! A cleanup runs when its object is gone, on another thread, so it can reach nothing of the
//! object: the compiler sees to that. What the cleanup needs, it must own. Here it owns the only
//! lasting `Arc<File>`:
//!
//! ```text
//! heap                              cleanup record
//! OpenFile { file: Weak<File> } . . . . > Arc<File>  -> descriptor
//! ```
//!
//! - While the `OpenFile` lives, its cleanup is armed and keeps the file open. A reader upgrades
//!   the weak reference for the length of a read, within a session, in which no object dies.
//! - When the `OpenFile` dies, the sweep drops its weak reference, which closes nothing, and queues
//!   the cleanup. A worker runs it and drops the last `Arc`: that is `close(2)`, on the worker. The
//!   collecting thread never closes a file, and so never waits for a slow disk.
//!
//! The other way round (the object and the cleanup share an `Arc` each) would leave it to chance
//! which one comes last. [`close`] counts only files that it saw the last of, so that the tour can
//! tell.
//!
//! # The bound
//!
//! Eviction only unlinks an object; its descriptor is closed once a collection has found it dead.
//! So the files that are open are those in the cache and those that wait to be found: the cache
//! holds [`capacity`](Limits::capacity), and at [`most_open`](Limits::most_open) it asks for a
//! collection. An evicted file that has not been collected yet is as good as new: its directory
//! entry has a weak pointer to it, through which it comes back without being opened again.

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak as WeakFile};
use std::thread::{self, ThreadId};

use sexton::{Gc, GcCell, GcRefCell, Leaf, Mutation, Trace, Weak};

use super::system;

/// A file held open for the cache.
#[derive(Trace)]
pub(crate) struct OpenFile {
    /// Upgrades as long as this object lives: its cleanup holds the `Arc`.
    file: Leaf<WeakFile<File>>,
    /// Whether the cache links it.
    cached: Cell<bool>,
}

impl OpenFile {
    /// The file's first bytes.
    pub(crate) fn read_head(&self) -> io::Result<Vec<u8>> {
        system::read_head(&self.file.upgrade().expect("the cleanup of a live object has not run"))
    }
}

/// Where a directory entry remembers the open file that was made for it.
pub(crate) type OpenSlot<'gc> = GcCell<Option<Weak<'gc, OpenFile>>>;

/// The cache: the files that eviction has not unlinked, oldest first.
#[derive(Trace, Default)]
pub(crate) struct OpenFiles<'gc> {
    files: GcRefCell<VecDeque<Gc<'gc, OpenFile>>>,
}

impl<'gc> OpenFiles<'gc> {
    /// The open file for `path`: the one that `slot` remembers if it is still there, or else a new
    /// one, at the cost of an older one if the cache is full.
    pub(crate) fn open(
        &self,
        mc: &Mutation<'gc>,
        path: &Path,
        slot: &OpenSlot<'gc>,
        log: &Arc<Log>,
    ) -> io::Result<Gc<'gc, OpenFile>> {
        if let Some(found) = slot.get().and_then(|weak| weak.upgrade(mc)) {
            log.hits.fetch_add(1, Relaxed);
            if !found.cached.replace(true) {
                self.insert(mc, found, log.limits.capacity);
            }
            return Ok(found);
        }
        let file = Arc::new(system::open_regular(path)?);
        log.note_opened();
        let weak = Leaf::new(Arc::downgrade(&file));
        let made = mc.alloc(OpenFile { file: weak, cached: Cell::new(true) });
        mc.add_cleanup_with(made, Closing { file, log: log.clone() }, close);
        slot.set(mc, Some(mc.downgrade(made)));
        self.insert(mc, made, log.limits.capacity);
        Ok(made)
    }

    fn insert(&self, mc: &Mutation<'gc>, file: Gc<'gc, OpenFile>, capacity: usize) {
        self.evict_down_to(mc, capacity - 1);
        self.files.borrow_mut(mc).push_back(file);
    }

    /// Unlinks files until `count` are left, the oldest first.
    fn evict_down_to(&self, mc: &Mutation<'gc>, count: usize) {
        let mut files = self.files.borrow_mut(mc);
        let surplus = files.len().saturating_sub(count);
        files.drain(..surplus).for_each(|oldest| oldest.cached.set(false));
    }

    /// Unlinks all files.
    pub(crate) fn evict_all(&self, mc: &Mutation<'gc>) {
        self.evict_down_to(mc, 0);
    }
}

/// What a cleanup needs to close its file: everything but the object.
struct Closing {
    file: Arc<File>,
    log: Arc<Log>,
}

fn close(Closing { file, log }: Closing) {
    let last = Arc::into_inner(file);
    let was_last = last.is_some();
    drop(last);
    log.closers.lock().unwrap_or_else(PoisonError::into_inner).insert(thread::current().id());
    if was_last {
        // Relaxed: a count; an exact reading follows a wait for the cleanup, by a ticket.
        log.closed.fetch_add(1, Relaxed);
    }
}

/// How many files may be open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Files in the cache.
    pub(crate) capacity: usize,
    /// Files open, those included that were evicted and wait to be collected.
    pub(crate) most_open: u64,
}

impl Limits {
    /// Limits far below what the process may have open, if `open` descriptors are in use already.
    pub(crate) fn below(limit: Option<u64>, open: Option<usize>) -> Self {
        let taken = open.map_or(16, |open| open as u64) + RESERVE;
        let most_open = (limit.unwrap_or(u64::MAX).saturating_sub(taken) / 2).clamp(2, MOST_OPEN);
        Limits { capacity: (most_open / 2) as usize, most_open }
    }
}

/// Descriptors left to others: directory listings, and whatever the process opens meanwhile.
const RESERVE: u64 = 8;

/// Enough for a cache to be useful, and little enough to go unnoticed.
const MOST_OPEN: u64 = 1024;

/// What happened to the files of one cache; shared with the cleanups.
pub(crate) struct Log {
    pub(crate) limits: Limits,
    pub(crate) opened: AtomicU64,
    /// Files that their cleanup closed.
    pub(crate) closed: AtomicU64,
    /// Requests that found their file open.
    pub(crate) hits: AtomicU64,
    /// The most that were open at a time, as the opening thread saw it.
    pub(crate) peak: AtomicU64,
    closers: Mutex<HashSet<ThreadId>>,
}

impl Log {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let [opened, closed, hits, peak] = Default::default();
        Arc::new(Log { limits, opened, closed, hits, peak, closers: Mutex::default() })
    }

    /// How many are open, as the opening thread sees it.
    fn open(&self) -> u64 {
        self.opened.load(Relaxed) - self.closed.load(Relaxed)
    }

    fn note_opened(&self) {
        // Relaxed: counts that only the opening thread changes.
        self.opened.fetch_add(1, Relaxed);
        self.peak.fetch_max(self.open(), Relaxed);
    }

    /// Threads that ran a cleanup.
    pub(crate) fn threads(&self) -> usize {
        self.closers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a collection should close some files, because many are open.
    pub(crate) fn is_full(&self) -> bool {
        self.open() >= self.limits.most_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_stay_well_below_the_limit_and_never_reach_zero() {
        for limit in [Some(0), Some(10), Some(64), Some(1024), Some(1 << 20), None] {
            let Limits { capacity, most_open } = Limits::below(limit, Some(4));
            assert!(capacity >= 1 && most_open >= 2, "{limit:?}");
            assert!(most_open <= MOST_OPEN, "{limit:?}");
            if let Some(limit) = limit.filter(|limit| *limit > 32) {
                assert!(most_open <= limit / 2, "{limit}");
            }
        }
    }
}
