//! Taking a record, and declaring its end.

use crate::observe::description::Description;
use crate::record::free_list::FreeList;
use crate::record::head::{Head, Index};
use crate::record::slot::{Record, Slot};
use crate::record::storage::Storage;
use crate::record::tag::{State, Tag};
use crate::record::thunk::{Namer, Thunk};
use sexton_sync::{AtomicU8, Ordering, yield_now};

impl Storage {
    /// Takes an armed record, to run its closure or to drop it. At most one caller per `arm`
    /// succeeds.
    #[inline]
    pub(crate) fn take(&'static self, index: Index, taker: Taker, to_drop: bool) -> Option<Taken> {
        let (record, mark) = self.record_and_mark(index);
        // Relaxed: only a guess; the compare-exchange decides.
        let tag = record.load(Ordering::Relaxed);
        if !tag.is_armed() {
            return None;
        }
        let taken = tag.with(match (taker, to_drop) {
            (Taker::Handle { generation }, _) if generation != tag.generation() => return None,
            (Taker::Handle { .. }, false) => State::Running,
            (Taker::Handle { .. }, true) => State::Stopping,
            (Taker::Runner, false) => State::Executing,
            (Taker::Runner, true) => State::Dropping,
        });
        // Acquire: pairs with the Release in `arm`, so that the thunk is there. A failure means
        // that another thread took it: from `Armed` there is no way back to `Armed` of the same
        // generation.
        record
            .tag
            .compare_exchange(tag.0, taken.0, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then_some(Taken(Ending { storage: self, record, mark, index, tag: taken }))
    }

    /// Takes an armed record of this generation in order to stop it, if its captures need no
    /// destructor.
    #[inline]
    pub(crate) fn take_no_drop(&'static self, index: Index, generation: u32) -> Option<NoDrop> {
        let (record, mark) = self.record_and_mark(index);
        let tag = Tag::new(generation, State::ArmedNoDrop);
        // Not looked at before: a stop is expected to be in time, and for a short-lived cleanup the
        // look waits for the store that armed it. Acquire: pairs with the Release in `arm`, so that
        // the mark is ours to look at. A failure: see `take`.
        record
            .tag
            .compare_exchange(
                tag.0,
                tag.with(State::StoppingNoDrop).0,
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_ok()
            .then_some(NoDrop { record, mark, generation })
    }

    /// Frees a record of a live object's chain, if its handle has ended it. Gives the slot, and the
    /// head of what is behind it in the chain. Asked only by the chain's owner.
    ///
    /// Not if its handle's thread is still at it: its chain lives, and keeps the slot.
    #[inline]
    pub(crate) fn free_ended(&'static self, head: Head) -> Option<(Slot, Option<Head>)> {
        let index = head.index();
        let (record, mark) = self.record_and_mark(index);
        // Relaxed: only a guess; the compare-exchange decides.
        let tag = record.load(Ordering::Relaxed);
        let free = tag.freed()?;
        // Relaxed: see the field. Before the slot is free.
        let rest = if head.many() { record.next.load(Ordering::Relaxed) } else { 0 };
        // As in `pass`. It fails only if the head was used twice.
        record
            .tag
            .compare_exchange(tag.0, free.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some((Slot { record, mark, index, tag: free }, Head::from_raw(rest)))
    }

    /// Skips a record that the chain's owner could not take. Frees the slot if the handle is done
    /// with it, or leaves that, with a note, to the thread that is still at it. Without a note, it
    /// leaves such a record as it is.
    pub(crate) fn skip(&'static self, index: Index, note: Option<u8>) -> Skip {
        let (record, mark) = self.record_and_mark(index);
        // Relaxed: only a guess; the compare-exchange decides.
        let mut tag = record.load(Ordering::Relaxed);
        loop {
            let next = match tag.state() {
                State::Armed | State::ArmedNoDrop => return Skip::Armed,
                State::StoppingNoDrop => {
                    // Its handle's thread has a store left to do, and does not wait for us.
                    yield_now();
                    tag = record.load(Ordering::Relaxed);
                    continue;
                }
                State::Done | State::DoneCounted => State::DoneFree,
                State::Stopped | State::StoppedCounted => State::StoppedFree,
                State::Running => State::RunningDetached,
                State::Stopping => State::StoppingDetached,
                State::DoneFree
                | State::StoppedFree
                | State::RunningDetached
                | State::StoppingDetached
                | State::Executing
                | State::Dropping => return Skip::NotOurs,
            };
            let ended_early = tag.state().has_ended_early();
            if !ended_early {
                let Some(note) = note else { return Skip::Busy };
                record.next.store(u32::from(note), Ordering::Relaxed);
            }
            let next = tag.with(next);
            // Acquire: pairs with the Release in `Ending::close` and `NoDrop::close`; the taker is
            // done with the thunk before the slot is used again. Release: pairs with the Acquire
            // there; our reading of `next`, and the note in its place, come before the taker frees
            // the slot.
            match record.tag.compare_exchange(tag.0, next.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if ended_early => {
                    let counted = matches!(tag.state(), State::DoneCounted | State::StoppedCounted);
                    return Skip::Freed(Slot { record, mark, index, tag: next }, counted);
                }
                Ok(_) => return Skip::Detached,
                Err(now) => tag = Tag(now),
            }
        }
    }
}

/// The findings of [`Storage::skip`].
#[derive(Debug)]
pub(crate) enum Skip {
    /// It is armed: take it.
    Armed,
    /// Its handle had ended it early; its slot is free now, and the caller's. Whether the handle
    /// had counted the end.
    Freed(Slot, bool),
    /// Its handle's thread is still at it, and will free the slot.
    Detached,
    /// Its handle's thread is still at it, and will leave the slot to the chain's owner.
    Busy,
    /// Another runner has it or has ended it, or the head was used twice.
    NotOurs,
}

/// The taker of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taker {
    /// A handle, whose cleanup is of this generation. It leaves the slot to the chain's owner.
    Handle { generation: u32 },
    /// A runner, or another owner of the chain. It frees the slot.
    Runner,
}

/// A record that this thread has taken, with its closure still inside.
#[derive(Debug)]
#[must_use = "no other thread can run or drop the closure now"]
pub(crate) struct Taken(Ending);

impl Taken {
    /// Moves the closure out, so that it runs on its taker's stack and may outlive the slot's next
    /// use.
    #[inline]
    pub(crate) fn extract(self) -> (Thunk, Ending) {
        let thunk = self.0.record.thunk.with(|thunk| {
            // SAFETY: the tag was `Armed` or `ArmedNoDrop` when we took it, so `arm` had written a
            // thunk; only we took it (invariant 1). This consumes the proof, so it is read out
            // once.
            unsafe { thunk.cast::<Thunk>().read() }
        });
        (thunk, self.0)
    }
}

/// A record that this thread has taken and emptied, and whose end it has to declare.
#[derive(Debug)]
#[must_use = "until its end is declared, the record counts as running"]
pub(crate) struct Ending {
    storage: &'static Storage,
    record: &'static Record,
    mark: &'static AtomicU8,
    index: Index,
    /// The tag as taken.
    tag: Tag,
}

impl Ending {
    /// Describes the cleanup. `closure` names the type of its closure.
    #[cold]
    pub(crate) fn describe(&self, closure: Namer) -> Description {
        let known = self.storage.description(self.index);
        Description { closure: known.closure.or(Some(closure.name())), ..known }
    }

    /// Gives the record's byte.
    pub(crate) fn mark(&self) -> &'static AtomicU8 {
        self.mark
    }

    fn slot(&self, tag: Tag) -> Slot {
        Slot { record: self.record, mark: self.mark, index: self.index, tag }
    }

    fn is_stop(&self) -> bool {
        matches!(self.tag.state(), State::Stopping | State::Dropping)
    }

    /// Declares the end and frees the slot: for a taker that owns the chain.
    #[inline]
    pub(crate) fn free(self, freed: &mut FreeList) {
        let tag = self.tag.with(if self.is_stop() { State::StoppedFree } else { State::DoneFree });
        // A plain store: no other thread moves the tag of a record that a runner has taken.
        // Release: pairs with the Acquire in `look`.
        self.record.tag.store(tag.0, Ordering::Release);
        freed.push(self.slot(tag));
    }

    /// Declares the end and leaves the slot to its chain: for a handle. `counted` says whether the
    /// handle counts the end in a batch. If the chain is gone already, its owner has left the slot
    /// to us.
    pub(crate) fn close(self, counted: bool) -> Option<Detached> {
        let tag = self.tag.with(match (self.is_stop(), counted) {
            (false, false) => State::Done,
            (false, true) => State::DoneCounted,
            (true, false) => State::Stopped,
            (true, true) => State::StoppedCounted,
        });
        // A swap: whatever the owner did meanwhile, it is to see the end, and we are to see what it
        // did. Release: pairs with the Acquire in `pass` and `look`. Acquire: pairs with the
        // Release in `pass`.
        let before = Tag(self.record.tag.swap(tag.0, Ordering::AcqRel));
        matches!(before.state(), State::RunningDetached | State::StoppingDetached)
            .then_some(Detached(Ending { tag, ..self }))
    }
}

/// A record that this thread has taken to stop it and that has nothing to drop. Nothing of the
/// user's may be called before its end is declared: the chain's owner waits for that.
#[derive(Debug)]
#[must_use = "until its end is declared, others wait for it"]
pub(crate) struct NoDrop {
    record: &'static Record,
    mark: &'static AtomicU8,
    generation: u32,
}

impl NoDrop {
    /// Gives the record's byte.
    #[inline]
    pub(crate) fn mark(&self) -> &'static AtomicU8 {
        self.mark
    }

    /// Declares the end and leaves the slot to its chain. `counted`: see [`Ending::close`].
    #[inline]
    pub(crate) fn close(self, counted: bool) {
        let state = if counted { State::StoppedCounted } else { State::Stopped };
        // A plain store: no other thread moves the tag of a record in this state. The thunk stays
        // where it is, like any value that is forgotten. Release: pairs with the Acquire in `pass`
        // and `look`.
        self.record.tag.store(Tag::new(self.generation, state).0, Ordering::Release);
    }
}

/// A record that ended early and whose chain is gone. The slot is to be freed by this thread.
#[derive(Debug)]
#[must_use = "no other thread will free the slot"]
pub(crate) struct Detached(Ending);

impl Detached {
    /// Gives the note that the chain's owner has left: see [`Storage::skip`].
    pub(crate) fn note(&self) -> u8 {
        // Relaxed: ordered by the swap in `close`.
        self.0.record.next.load(Ordering::Relaxed) as u8
    }

    /// Frees the slot.
    pub(crate) fn free(self) {
        let Detached(ending) = self;
        let free = match ending.tag.state() {
            State::Done | State::DoneCounted => State::DoneFree,
            _ => State::StoppedFree,
        };
        let tag = ending.tag.with(free);
        // Not a plain store but a compare-exchange: to a head that is (wrongly) used again the
        // record looks ended, and it may be freed from there. Only who moves the tag frees the
        // slot. Release: pairs with the Acquire in `look`.
        if ending
            .record
            .tag
            .compare_exchange(ending.tag.0, tag.0, Ordering::Release, Ordering::Relaxed)
            .is_ok()
        {
            let mut list = ending.storage.free_list();
            list.push(ending.slot(tag));
            list.give_back();
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::record::storage::tests::storage;
    use crate::record::tag::MAX_GENERATION;

    fn arm(storage: &'static Storage) -> (Index, u32) {
        storage.fresh().next().expect("fresh").arm(None, 0, || {})
    }

    #[test]
    fn an_armed_record_is_taken_once() {
        let storage = storage();
        let (index, generation) = arm(storage);
        assert!(
            storage.take(index, Taker::Handle { generation: generation + 1 }, false).is_none(),
            "another generation"
        );
        let (thunk, ending) =
            storage.take(index, Taker::Handle { generation }, false).expect("armed").extract();
        assert!(storage.take(index, Taker::Runner, true).is_none(), "taken");
        thunk.run();
        assert!(ending.close(false).is_none(), "the chain is still there");
        assert_eq!(storage.state(index), (generation, State::Done));
        assert!(matches!(storage.skip(index, Some(0)), Skip::Freed(_, false)));
        assert!(matches!(storage.skip(index, Some(0)), Skip::NotOurs), "freed once");
    }

    #[test]
    fn only_captures_without_a_destructor_are_stopped_without_a_drop() {
        let storage = storage();
        let mut slots = storage.fresh();
        let mut arm = |boxed: Option<u8>| match boxed {
            None => slots.next().expect("fresh").arm(None, 0, || {}),
            Some(n) => {
                let boxed = Box::new(n);
                slots.next().expect("fresh").arm(None, 0, move || drop(boxed))
            }
        };
        let (owning, generation) = arm(Some(7));
        assert!(storage.take_no_drop(owning, generation).is_none());
        assert_eq!(storage.state(owning), (generation, State::Armed));
        let (index, generation) = arm(None);
        assert!(storage.take_no_drop(index, generation + 1).is_none(), "another generation");
        for (counted, state) in [(false, State::Stopped), (true, State::StoppedCounted)] {
            let (index, generation) = arm(None);
            storage.take_no_drop(index, generation).expect("armed").close(counted);
            assert_eq!(storage.state(index), (generation, state));
            assert!(storage.take_no_drop(index, generation).is_none(), "taken");
            assert!(matches!(storage.skip(index, Some(0)), Skip::Freed(_, was) if was == counted));
        }
    }

    #[test]
    fn a_slot_whose_chain_went_first_is_freed_by_its_taker() {
        let storage = storage();
        let (index, generation) = arm(storage);
        let (thunk, ending) =
            storage.take(index, Taker::Handle { generation }, true).expect("armed").extract();
        assert!(matches!(storage.skip(index, Some(77)), Skip::Detached));
        drop(thunk);
        let detached = ending.close(false).expect("left to us");
        assert_eq!(detached.note(), 77);
        detached.free();
        let mut list = storage.free_list();
        assert!(list.refill());
        assert_eq!(list.pop().expect("freed").index, index);
        assert!(list.pop().is_none());
    }

    #[test]
    fn a_generation_is_used_once() {
        let storage = storage();
        let (index, first) = arm(storage);
        let mut list = storage.free_list();
        storage.take(index, Taker::Runner, false).expect("armed").extract().1.free(&mut list);
        assert_eq!(storage.state(index), (first, State::DoneFree), "exact until used again");
        let (again, second) = list.pop().expect("freed").arm(None, 0, || {});
        assert_eq!((again, second), (index, first + 1));
    }

    #[test]
    fn a_slot_that_has_seen_every_generation_is_retired() {
        let storage = storage();
        let mut slot = storage.fresh().next().expect("fresh");
        slot.tag = Tag::new(MAX_GENERATION - 1, State::DoneFree);
        let (index, generation) = slot.arm(None, 0, || {});
        assert_eq!(generation, MAX_GENERATION);
        let mut list = storage.free_list();
        storage.take(index, Taker::Runner, false).expect("armed").extract().1.free(&mut list);
        assert!(list.pop().is_none());
    }
}
