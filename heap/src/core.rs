//! The core of a heap: all its state behind shared references, for the sessions that change it.
//!
//! What belongs to one mutator (its allocation context and its registrar) is kept apart from what all
//! mutators of a heap would share (the space, the roots, the origin).
//!
//! Invariant: a core is used by one thread at a time, and user code that runs during a cycle (drop glue, trace
//! glue) cannot reach it: whoever runs a cycle has the heap's `&mut`.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;

use sexton_cleanup::{Cleanup, Description, Origin, Receipt, Registrar};

use crate::alloc::Allocator;
use crate::heap::HeapConfig;
use crate::local::{LocalCleanup, LocalTable};
use crate::mutation::Full;
use crate::pacer::{CLEANUP_BYTES, Pacer};
use crate::roots::{HeapId, RootTable};
use crate::space::{NoRoom, Space, Usage};
use crate::span::SpanRef;
use crate::trace::Trace;
use crate::type_info::TypeInfo;

/// All state of one heap but its root.
pub(crate) struct Core {
    mutator: Mutator,
    space: RefCell<Space>,
    roots: Rc<RootTable>,
    origin: Origin,
    pacer: RefCell<Pacer>,
    zeal: bool,
    diagnostics: bool,
    locals: Rc<LocalTable>,
}

/// The context of one mutator.
struct Mutator {
    /// Touched by every allocation, so not behind a borrow flag; see `allocator`.
    allocator: UnsafeCell<Allocator>,
    registrar: RefCell<Registrar>,
    /// Bytes of cleanup records registered since the last cycle.
    cleanup_bytes: Cell<u64>,
}

impl Core {
    pub(crate) fn new(origin: Origin, config: &HeapConfig) -> Self {
        Core {
            mutator: Mutator {
                allocator: UnsafeCell::new(Allocator::new()),
                registrar: RefCell::new(origin.registrar()),
                cleanup_bytes: Cell::new(0),
            },
            space: RefCell::new(Space::new(config.max_bytes)),
            roots: RootTable::new(HeapId::next()),
            locals: LocalTable::new(origin.clone()),
            origin,
            pacer: RefCell::new(Pacer::new(config.pacing, config.max_bytes)),
            zeal: config.zeal,
            diagnostics: config.diagnostics,
        }
    }

    pub(crate) fn roots(&self) -> &Rc<RootTable> {
        &self.roots
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn space(&self) -> &RefCell<Space> {
        &self.space
    }

    pub(crate) fn registrar(&self) -> &RefCell<Registrar> {
        &self.mutator.registrar
    }

    pub(crate) fn locals(&self) -> &Rc<LocalTable> {
        &self.locals
    }

    /// Whether registrations remember where they were made.
    #[inline]
    pub(crate) fn diagnostics(&self) -> bool {
        self.diagnostics
    }

    /// Describes a cleanup of this heap.
    #[cold]
    pub(crate) fn describe(&self, cleanup: &Cleanup, description: Description) {
        self.mutator.registrar.borrow_mut().describe(cleanup, description);
    }

    /// A local cleanup of the object at `object`.
    pub(crate) fn add_local_cleanup(
        &self,
        object: NonNull<u8>,
        description: Description,
        f: Box<dyn FnOnce()>,
    ) -> LocalCleanup {
        self.charge_cleanup();
        self.locals.add(object, description, f)
    }

    /// Counts a registration for the pacer.
    #[inline]
    fn charge_cleanup(&self) {
        let cleanup_bytes = &self.mutator.cleanup_bytes;
        cleanup_bytes.set(cleanup_bytes.get() + CLEANUP_BYTES);
    }

    /// What is in use, what is in stock included. O(1).
    pub(crate) fn usage(&self) -> Usage {
        self.space.borrow().usage()
    }

    /// What is in use. O(types allocated of lately).
    pub(crate) fn exact_usage(&self) -> Usage {
        let mut usage = self.usage();
        self.with_allocator(|allocator| {
            for unused in allocator.unused() {
                usage.remove(unused.len(), unused.span.info());
            }
        });
        usage
    }

    /// Whether the pacer, or zeal, asks for a cycle. O(1) while the answer is no.
    pub(crate) fn collection_due(&self) -> bool {
        let is_due = |usage: Usage| {
            self.pacer.borrow().is_due(usage.bytes, self.mutator.cleanup_bytes.get())
        };
        // The cheap number is never too low.
        self.zeal || (is_due(self.usage()) && is_due(self.exact_usage()))
    }

    /// Whether a session has been refused an object that a cycle might make room for.
    pub(crate) fn has_refused(&self) -> bool {
        self.pacer.borrow().has_refused()
    }

    /// Sets when the next cycle is due.
    pub(crate) fn pace(&self, live_bytes: u64) {
        self.mutator.cleanup_bytes.set(0);
        self.pacer.borrow_mut().after_cycle(live_bytes);
    }

    /// Calls `f` with the allocation context.
    #[inline]
    pub(crate) fn with_allocator<T>(&self, f: impl FnOnce(&mut Allocator) -> T) -> T {
        // SAFETY: a core is not `Sync`, and the callers' closures, all in this crate, run no user code
        // and do not come back here; so this is the only reference.
        f(unsafe { &mut *self.mutator.allocator.get() })
    }

    /// A free slot for a `T`, which the caller fills at once.
    #[inline]
    pub(crate) fn alloc_slot<'gc, T: Trace<'gc>>(&self) -> Result<NonNull<T>, NoRoom> {
        let info = TypeInfo::of::<T>();
        let slot = match self.with_allocator(|allocator| allocator.take::<T>(info)) {
            Some(slot) => slot,
            None => self.alloc_slot_slowly::<T>(info)?,
        };
        Ok(slot.cast())
    }

    #[inline(never)]
    fn alloc_slot_slowly<T>(
        &self,
        info: &'static TypeInfo,
    ) -> Result<NonNull<MaybeUninit<T>>, NoRoom> {
        let slot = self.with_allocator(|allocator| {
            allocator.refill(&mut self.space.borrow_mut(), info)?;
            Ok(allocator.take(info).expect("a refilled stock is not empty"))
        });
        // Not if the system has no memory: a cycle takes some itself.
        if let Err(NoRoom::Limit) = slot {
            self.pacer.borrow_mut().refuse(info.charged_bytes() as u64);
        }
        slot
    }

    /// Why a `T` found no room, for the user.
    #[cold]
    pub(crate) fn full<'gc, T: Trace<'gc>>(&self, why: NoRoom) -> Full {
        let space = self.space.borrow();
        Full {
            heap: self.roots.heap(),
            type_name: std::any::type_name::<T>(),
            why,
            requested: TypeInfo::of::<T>().charged_bytes() as u64,
            used: space.usage().bytes,
            max: space.max_bytes(),
        }
    }

    #[inline]
    pub(crate) fn add_cleanup<F>(&self, span: SpanRef, slot: usize, f: F) -> Receipt
    where
        F: FnOnce() + Send + 'static,
    {
        self.charge_cleanup();
        let mut registrar = self.mutator.registrar.borrow_mut();
        let mut cleanups = span.cleanups().borrow_mut();
        let place = cleanups.place(span.special_words(), slot);
        // One call for both cases, so that it is made part of this function.
        let (head, receipt) = registrar.enter(place.map(|place| cleanups.at(place)), f);
        match place {
            Some(place) => cleanups.set(place, head),
            None => cleanups.insert(span.special_words(), slot, head),
        }
        receipt
    }
}
