//! Local cleanups: closures that are not `Send`, run by the thread that owns the heap when it asks
//! for it.
//!
//! Invariant: an armed entry's object is allocated. The entries of objects that were not marked
//! join the queue after mark and before the sweep. So no armed entry ever names a free slot.
//!
//! They know neither blocks nor workers. The compiler keeps their closures from reaching the heap,
//! as for all cleanups, with one exception. They can own a [`Root`](crate::Root), which is not
//! `Send` either. One that owns a root of its own object keeps it alive until the heap goes;
//! [`old_roots`](crate::RawHeap::old_roots) finds it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use sexton_cleanup::{CleanupState, CleanupStats, Client, Description};

use crate::memory::peak::room_after_peak;
use crate::memory::span::SpanRef;

type Closure = Box<dyn FnOnce()>;

/// The handle of one local cleanup. Dropping it detaches: the cleanup runs all the same.
///
/// It stays on the heap's thread, and may outlive the object and the heap.
pub struct LocalCleanup {
    entry: Rc<Entry>,
    table: Rc<LocalTable>,
}

struct Entry {
    /// Where the object is; looked at only while the entry is armed.
    object: NonNull<u8>,
    description: Description,
    state: Cell<CleanupState>,
    /// There while the state is `Armed` or `Queued`.
    closure: RefCell<Option<Closure>>,
}

/// What a heap knows of its local cleanups. The defaults are those of a mode that has none.
pub trait LocalCleanups {
    fn new(client: &Client) -> Self;

    /// Tells how many are armed, or have ended since they were looked at.
    fn armed(&self) -> usize {
        0
    }

    /// Looks at the first `entries` of those, and queues the ones whose objects are unmarked.
    ///
    /// The others go to the end. Called between mark and sweep. O(entries).
    fn queue_dead(&self, _entries: usize) {}

    /// Gives back the memory that only a peak has needed.
    fn shrink(&self) {}

    /// Queues the cleanups of all objects: the heap is going.
    fn queue_all(&self) {}

    /// Drops the captures of all that are armed, and of the queued ones, too, if they are to go.
    fn discard(&self, _queued_too: bool) {}

    /// Runs at most `max` queued cleanups; how many ran.
    fn run_queued(&self, _max: usize) -> usize {
        0
    }

    fn stats(&self) -> CleanupStats {
        CleanupStats::default()
    }

    /// Gives the objects of the armed entries.
    fn for_each_armed(&self, _each: &mut dyn FnMut(NonNull<u8>)) {}
}

/// For a mode in which a heap belongs to no thread.
pub struct NoLocals;

impl LocalCleanups for NoLocals {
    fn new(_: &Client) -> Self {
        NoLocals
    }
}

/// All local cleanups of one heap that have not ended.
pub struct LocalTable {
    /// Entries of objects that were alive when last looked at, and such as have been stopped or run
    /// since.
    armed: RefCell<VecDeque<Rc<Entry>>>,
    queue: RefCell<VecDeque<Rc<Entry>>>,
    client: Client,
    stats: Cell<CleanupStats>,
}

impl LocalCleanup {
    /// Stops the cleanup: it will never run. O(1).
    ///
    /// Its captures are dropped before this returns. `false` if it is too late: it has run, is
    /// running, or was stopped before.
    ///
    /// # Panics
    ///
    /// If a destructor of the captures does. The cleanup is stopped all the same.
    pub fn stop(&self) -> bool {
        let Some(closure) = self.table.take(&self.entry, CleanupState::Stopped) else {
            return false;
        };
        self.table.count(|stats| stats.stopped += 1);
        drop(closure);
        true
    }

    /// Runs the cleanup here and now, whether its object is dead or not.
    ///
    /// It will not run again. `false` if it is too late. A panic in it is caught, counted and given
    /// to the pool's hook.
    pub fn run_now(&self) -> bool {
        self.table.run(&self.entry)
    }

    /// Tells what has become of the cleanup. O(1).
    pub fn state(&self) -> CleanupState {
        self.entry.state.get()
    }
}

impl fmt::Debug for LocalCleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCleanup").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl LocalCleanups for Rc<LocalTable> {
    fn new(client: &Client) -> Self {
        Rc::new(LocalTable {
            armed: RefCell::default(),
            queue: RefCell::default(),
            client: client.clone(),
            stats: Cell::default(),
        })
    }

    fn armed(&self) -> usize {
        self.armed.borrow().len()
    }

    fn queue_dead(&self, entries: usize) {
        self.queue_unless(entries, |entry| {
            let span = SpanRef::containing(entry.object);
            // Not `slot_of`: a large object's span has one slot, and no reciprocal.
            span.is_marked_at(entry.object)
        });
    }

    fn queue_all(&self) {
        self.queue_unless(self.armed(), |_| false);
        self.shrink();
    }

    fn shrink(&self) {
        for table in [&self.armed, &self.queue] {
            let mut table = table.borrow_mut();
            if let Some(room) = room_after_peak(table.len(), table.capacity()) {
                table.shrink_to(room);
            }
        }
    }

    fn run_queued(&self, max: usize) -> usize {
        let mut ran = 0;
        while ran < max {
            // Nothing is borrowed while a cleanup runs.
            let next = self.queue.borrow_mut().pop_front();
            let Some(entry) = next else { break };
            ran += usize::from(self.run(&entry));
        }
        ran
    }

    fn discard(&self, queued_too: bool) {
        let mut doomed = std::mem::take(&mut *self.armed.borrow_mut());
        if queued_too {
            doomed.append(&mut self.queue.borrow_mut());
        }
        for entry in doomed {
            if let Some(closure) = self.take(&entry, CleanupState::Stopped) {
                // Not counted: the heap is going, and its statistics with it.
                self.client.run_as_cleanup(|| drop(closure), entry.description);
            }
        }
    }

    fn stats(&self) -> CleanupStats {
        self.stats.get()
    }

    fn for_each_armed(&self, each: &mut dyn FnMut(NonNull<u8>)) {
        for entry in self.armed.borrow().iter() {
            if entry.state.get() == CleanupState::Armed {
                each(entry.object);
            }
        }
    }
}

impl LocalTable {
    /// Adds a cleanup for the object at `object`, which is allocated.
    pub(crate) fn add(
        self: &Rc<Self>,
        object: NonNull<u8>,
        description: Description,
        closure: Closure,
    ) -> LocalCleanup {
        let entry = Rc::new(Entry {
            object,
            description,
            state: Cell::new(CleanupState::Armed),
            closure: RefCell::new(Some(closure)),
        });
        self.armed.borrow_mut().push_back(entry.clone());
        self.count(|stats| {
            stats.registered += 1;
            stats.armed += 1;
        });
        LocalCleanup { entry, table: self.clone() }
    }

    fn queue_unless(&self, entries: usize, is_alive: impl Fn(&Entry) -> bool) {
        let mut queue = self.queue.borrow_mut();
        let mut armed = self.armed.borrow_mut();
        for _ in 0..entries {
            let Some(entry) = armed.pop_front() else { break };
            if entry.state.get() != CleanupState::Armed {
                continue;
            }
            if is_alive(&entry) {
                armed.push_back(entry);
                continue;
            }
            entry.state.set(CleanupState::Queued);
            queue.push_back(entry);
            self.count(|stats| {
                stats.armed -= 1;
                stats.queued += 1;
                stats.backlog += 1;
            });
        }
    }

    fn run(&self, entry: &Entry) -> bool {
        let Some(closure) = self.take(entry, CleanupState::Running) else { return false };
        let returned = self.client.run_as_cleanup(closure, entry.description);
        entry.state.set(CleanupState::Done);
        self.count(|stats| {
            stats.executed += 1;
            stats.panicked += u64::from(!returned);
        });
        true
    }

    /// Takes the closure out, if the cleanup has not begun to end.
    fn take(&self, entry: &Entry, state: CleanupState) -> Option<Closure> {
        let closure = entry.closure.borrow_mut().take()?;
        self.count(|stats| match entry.state.get() {
            CleanupState::Armed => stats.armed -= 1,
            _ => stats.backlog -= 1,
        });
        entry.state.set(state);
        Some(closure)
    }

    fn count(&self, change: impl FnOnce(&mut CleanupStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::num::NonZero;

    use sexton_cleanup::{Pool, PoolConfig};

    use super::*;

    #[test]
    fn after_a_peak_the_tables_are_as_large_as_what_they_hold() {
        let pool = Pool::new(PoolConfig::default(), None);
        let table = <Rc<LocalTable> as LocalCleanups>::new(&Client::new(&pool));
        let object = |number| NonNull::without_provenance(NonZero::new(number).expect("not zero"));
        let room = || (table.armed.borrow().capacity(), table.queue.borrow().capacity());
        for number in 1..=100_000 {
            table.add(object(number), Description::of::<()>(None, None), Box::new(|| {}));
        }
        table.queue_unless(100_000, |entry| entry.object.addr().get() % 1000 == 0);
        table.shrink();
        assert!(room().0 < 1000 && room().1 >= 99_900, "{:?}", room());
        assert_eq!(table.run_queued(usize::MAX), 99_900);
        table.shrink();
        assert!(room().0 < 1000 && room().1 < 1000, "{:?}", room());
        table.queue_all();
        assert_eq!((table.run_queued(usize::MAX), table.stats().armed), (100, 0));
    }
}
