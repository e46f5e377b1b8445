//! What differs between the modes of a heap, as far as its objects go: the cells that hold their
//! pointers, and what may be allocated.
//!
//! Invariant: a place is borrowed or locked as long as its guard lives. A `GcCell`, of which that
//! cannot be said, is written when the guard of a write is dropped.

use std::convert::Infallible;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sexton::{GcCell, GcMutex, GcRefCell, GcRwLock, Local, Mode, Mutation, Shared, Trace};

use super::ledger::{Id, Ledger};
use super::payload::{self, Any, AnyRoot, Refusal, Seed};

/// A mode, as op programs see it.
pub(super) trait Ground: Mode + 'static {
    /// Holds what can be copied.
    type Cell<'gc, T: Trace<'gc> + Copy + 'gc>: Place<'gc, Self, T>;
    /// Lends what it holds.
    type RefCell<'gc, T: Trace<'gc> + 'gc>: Place<'gc, Self, T>;
    /// What an object owns that keeps another one, if there is such a thing.
    type Keeps: 'static;

    /// Puts an object into the heap, by `try_alloc` if it may fail.
    fn alloc<'gc>(
        mc: &Mutation<'gc, Self>,
        seed: Seed<Self>,
        id: Id,
        ledger: &Arc<Ledger>,
        fallible: bool,
    ) -> Result<Any<'gc, Self>, Refusal>;
}

macro_rules! ground {
    ($mode:ident, $cell:ident, $ref_cell:ident, $keeps:ty) => {
        impl Ground for $mode {
            type Cell<'gc, T: Trace<'gc> + Copy + 'gc> = $cell<T>;
            type RefCell<'gc, T: Trace<'gc> + 'gc> = $ref_cell<T>;
            type Keeps = $keeps;

            fn alloc<'gc>(
                mc: &Mutation<'gc, Self>,
                seed: Seed<Self>,
                id: Id,
                ledger: &Arc<Ledger>,
                fallible: bool,
            ) -> Result<Any<'gc, Self>, Refusal> {
                payload::alloc(mc, seed, id, ledger, fallible)
            }
        }
    };
}

ground!(Local, GcCell, GcRefCell, AnyRoot<Local>);
// A root of a shared heap stays on its thread, so no object of such a heap owns one.
ground!(Shared, GcMutex, GcRwLock, Infallible);

/// What a place lends to be read.
pub(super) type Read<'s, T> = Box<dyn Deref<Target = T> + 's>;
/// What a place lends to be changed.
pub(super) type Write<'s, T> = Box<dyn DerefMut<Target = T> + 's>;

/// A cell or a lock.
pub(super) trait Place<'gc, M: Mode, T: 'gc>: Trace<'gc> {
    fn new(value: T) -> Self;
    fn read<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Read<'s, T>;
    fn write<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Write<'s, T>;
}

impl<'gc, M: Mode, T: Trace<'gc> + 'gc> Place<'gc, M, T> for GcRefCell<T> {
    fn new(value: T) -> Self {
        GcRefCell::new(value)
    }

    fn read<'s>(&'s self, _: &'s Mutation<'gc, M>) -> Read<'s, T> {
        Box::new(self.borrow())
    }

    fn write<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Write<'s, T> {
        Box::new(self.borrow_mut(mc))
    }
}

impl<'gc, M: Mode, T: Trace<'gc> + 'gc> Place<'gc, M, T> for GcMutex<T> {
    fn new(value: T) -> Self {
        GcMutex::new(value)
    }

    fn read<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Read<'s, T> {
        Box::new(self.lock(mc))
    }

    fn write<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Write<'s, T> {
        Box::new(self.lock(mc))
    }
}

impl<'gc, M: Mode, T: Trace<'gc> + 'gc> Place<'gc, M, T> for GcRwLock<T> {
    fn new(value: T) -> Self {
        GcRwLock::new(value)
    }

    fn read<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Read<'s, T> {
        Box::new(GcRwLock::read(self, mc))
    }

    fn write<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Write<'s, T> {
        Box::new(GcRwLock::write(self, mc))
    }
}

impl<'gc, M: Mode, T: Trace<'gc> + Copy + 'gc> Place<'gc, M, T> for GcCell<T> {
    fn new(value: T) -> Self {
        GcCell::new(value)
    }

    fn read<'s>(&'s self, _: &'s Mutation<'gc, M>) -> Read<'s, T> {
        Box::new(Box::new(self.get()))
    }

    fn write<'s>(&'s self, mc: &'s Mutation<'gc, M>) -> Write<'s, T> {
        Box::new(Copied { cell: self, mc, value: self.get() })
    }
}

/// The content of a cell, which is written back.
struct Copied<'s, 'gc, M: Mode, T: Trace<'gc> + Copy> {
    cell: &'s GcCell<T>,
    mc: &'s Mutation<'gc, M>,
    value: T,
}

impl<'gc, M: Mode, T: Trace<'gc> + Copy> Deref for Copied<'_, 'gc, M, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'gc, M: Mode, T: Trace<'gc> + Copy> DerefMut for Copied<'_, 'gc, M, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<'gc, M: Mode, T: Trace<'gc> + Copy> Drop for Copied<'_, 'gc, M, T> {
    fn drop(&mut self) {
        self.cell.set(self.mc, self.value);
    }
}
