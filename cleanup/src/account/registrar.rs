//! Registering cleanups.
//!
//! Invariant: a registrar's slots are its own, so registering takes no lock and does no
//! read-modify-write, but to fetch some hundred slots; the first time a few. It never owns more
//! than a few hundred; all others that are free are there for every registrar of the pool.

use crate::account::handle::{Cleanup, RawHandle};
use crate::account::registry::{ARMED, RegistrarCounters, Registry, RegistryRef};
use crate::observe::description::{Description, DescriptionId};
use crate::record::free_list::FreeList;
use crate::record::head::Head;
use crate::record::slot::Slot;
use crate::record::storage::Fresh;
use crate::record::thunk::Thunk;
use sexton_sync::{Arc, AtomicU64, Ordering};

/// Registers the cleanups of one mutator.
///
/// Owns a few hundred free record slots at most. To make a registrar and to use it takes O(1) time,
/// whatever the heap has been through. To drop it takes O(registrars that were made later).
#[derive(Debug)]
pub struct Registrar {
    registry: &'static Registry,
    /// Used first. A magazine at most.
    free: FreeList,
    /// Used last: the slots that `free` has no room for: less than a magazine. With one list
    /// alone, a full magazine could go to and fro between here and the storage, once a slot.
    surplus: FreeList,
    fresh: Fresh,
    /// It has fetched slots before.
    has_fetched: bool,
    counts: Arc<RegistrarCounters>,
    /// The last description used, and its number.
    described: Option<(Description, DescriptionId)>,
    _registry_ref: Arc<RegistryRef>,
}

impl Registrar {
    pub(crate) fn new(registry_ref: &Arc<RegistryRef>) -> Self {
        let registry = registry_ref.registry();
        Registrar {
            registry,
            free: registry.storage.free_list(),
            surplus: registry.storage.free_list(),
            fresh: Fresh::empty(),
            has_fetched: false,
            counts: registry.add_registrar(),
            described: None,
            _registry_ref: registry_ref.clone(),
        }
    }

    /// Adds a cleanup in front of an object's chain.
    ///
    /// `None` is the chain of an object without cleanups. The answer is the chain's new head, to be
    /// kept in place of the old one, and the handle.
    ///
    /// Takes no lock, but for one registration in some hundred. Allocates when the captures exceed
    /// 24 bytes or are aligned to more than 8, and once in a while to grow. If the records in front
    /// of the chain have been stopped or run, at most two of them are reclaimed. So adding and
    /// stopping in turn on one object stays bounded.
    ///
    /// # Panics
    /// When two billion records exist. It may when `chain` comes from another heap.
    #[inline]
    pub fn register<F: FnOnce() + Send + 'static>(
        &mut self,
        chain: Option<Head>,
        f: F,
    ) -> (Head, Cleanup) {
        let (head, raw) = self.enter(chain, f);
        (head, raw.handle())
    }

    /// Registers as [`register`](Self::register) does, and gives the parts of the handle.
    ///
    /// For a caller that gives the handle to a caller of its own.
    #[inline]
    pub fn enter<F: FnOnce() + Send + 'static>(
        &mut self,
        chain: Option<Head>,
        f: F,
    ) -> (Head, RawHandle) {
        let (head, generation) = self.arm(chain, f);
        (head, RawHandle::new(self.registry, head.index(), generation, Thunk::is_no_drop::<F>()))
    }

    /// Registers, and gives the new head and the record's generation, in two registers.
    #[inline]
    fn arm<F: FnOnce() + Send + 'static>(&mut self, mut chain: Option<Head>, f: F) -> (Head, u32) {
        if let Some(head) = chain
            && let Some((slot, rest)) = self.registry.storage.free_ended(head)
        {
            chain = rest.and_then(|rest| self.prune_front(rest));
            // The warmest slot there is.
            if let Some(slot) = self.reclaimed(slot) {
                return self.arm_slot(slot, chain, f);
            }
        }
        let slot = match self.free.pop().or_else(|| self.fresh.next()) {
            Some(slot) => slot,
            None => self.refill(),
        };
        self.arm_slot(slot, chain, f)
    }

    #[inline]
    fn arm_slot<F: FnOnce() + Send + 'static>(
        &mut self,
        slot: Slot,
        chain: Option<Head>,
        f: F,
    ) -> (Head, u32) {
        let (index, generation) = slot.arm(chain, ARMED, f);
        add_one(&self.counts.registered);
        (Head::new(index, chain.is_some()), generation)
    }

    /// Describes a cleanup that was registered here.
    ///
    /// Takes a lock, and memory for the first in a while; the others' registration pays nothing for
    /// it.
    pub fn describe(&mut self, cleanup: &Cleanup, description: Description) {
        let id = match self.described {
            // The same place in the program as last time.
            Some((last, id)) if last == description => id,
            _ => DescriptionId::of(description),
        };
        self.described = Some((description, id));
        cleanup.describe(id);
    }

    #[cold]
    #[inline(never)]
    fn refill(&mut self) -> Slot {
        if let Some(slot) = self.surplus.pop() {
            std::mem::swap(&mut self.free, &mut self.surplus);
            return slot;
        }
        let is_first = !std::mem::replace(&mut self.has_fetched, true);
        let refilled = if is_first { self.free.refill_few() } else { self.free.refill() };
        if refilled && let Some(slot) = self.free.pop() {
            return slot;
        }
        let storage = self.registry.storage;
        self.fresh = if is_first { storage.few_fresh() } else { storage.fresh() };
        self.fresh.next().expect("a range holds at least one slot")
    }

    /// Takes a record that ended early off a live object's chain, if one is in front. One at most:
    /// each registration takes two off and puts one on, so the chain gets shorter.
    #[cold]
    fn prune_front(&mut self, head: Head) -> Option<Head> {
        match self.registry.storage.free_ended(head) {
            Some((slot, rest)) => {
                if let Some(slot) = self.reclaimed(slot) {
                    self.keep(slot);
                }
                rest
            }
            None => Some(head),
        }
    }

    /// Counts a record that ended early and is in no chain any more. Gives its slot, if it can be
    /// used again.
    #[inline]
    fn reclaimed(&mut self, slot: Slot) -> Option<Slot> {
        add_one(&self.counts.reclaimed);
        (!slot.is_worn()).then_some(slot)
    }

    /// Frees the record if it has ended early.
    fn reclaim(&mut self, head: Head) -> bool {
        let Some((slot, _)) = self.registry.storage.free_ended(head) else { return false };
        if let Some(slot) = self.reclaimed(slot) {
            self.keep(slot);
        }
        true
    }

    /// Keeps a slot, to be used next while it is warm. Of many, a magazine goes to the others.
    fn keep(&mut self, slot: Slot) {
        if self.free.is_full() {
            self.surplus.push(slot);
            self.surplus.give_back_if_full();
        } else {
            self.free.push_front(slot);
        }
    }

    /// Takes each record that ended early out of a live chain, and gives the rest. O(length).
    ///
    /// # Panics
    /// It may when `chain` comes from another heap.
    pub fn prune(&mut self, chain: Head) -> Option<Head> {
        let storage = self.registry.storage;
        storage.prune(chain, |head| self.reclaim(head))
    }

    /// Counts the records that ended early and are still in chains. O(unfinished cycles).
    ///
    /// Stopped, or run early, in chains of live objects.
    pub fn ended_early(&self) -> u64 {
        self.registry.ended_early()
    }

    /// Drops the captures of every cleanup in the chain without running it. The chain is used up.
    ///
    /// A panic in a destructor is given to the pool's hook, and the rest is dropped all the same.
    /// O(length).
    ///
    /// # Panics
    /// It may when `chain` comes from another heap.
    pub fn discard(&mut self, chain: Head) {
        self.registry.discard(chain, &mut self.surplus);
    }

    /// Tells whether all cleanups of the chain have been stopped or run. O(length).
    pub fn has_ended(&self, chain: Head) -> bool {
        self.heads(chain).all(|head| self.registry.storage.state(head.index()).1.has_ended_early())
    }

    /// Counts the records of the chain, ended ones included. O(length).
    pub fn len(&self, chain: Head) -> usize {
        self.heads(chain).count()
    }

    fn heads(&self, chain: Head) -> impl Iterator<Item = Head> {
        let storage = self.registry.storage;
        std::iter::successors(Some(chain), |&head| storage.next(head))
    }
}

/// Adds to a counter of this registrar's, its only writer.
#[inline]
fn add_one(counter: &AtomicU64) {
    // Relaxed, both: see `RegistrarCounters`.
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Drop for Registrar {
    fn drop(&mut self) {
        // In their order in memory, in which they are fetched best.
        for slot in self.fresh.by_ref() {
            self.surplus.push(slot);
            self.surplus.give_back_if_full();
        }
        self.surplus.give_back();
        self.free.give_back();
        self.registry.remove_registrar(&self.counts);
    }
}
