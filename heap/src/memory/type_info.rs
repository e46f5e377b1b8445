//! What a span knows of the one type whose objects it holds.
//!
//! Invariant: a span's [`TypeInfo`] is that of every object in it. So an address is enough to trace
//! or drop an object, and the object needs no header.
//!
//! It is plain data. `object/glue.rs` makes it.

use std::any::TypeId;
use std::ptr::NonNull;

use crate::memory::layout::{self, SPAN_BYTES};
use crate::memory::mark_stack::{Marker, Pending};

/// Reports the pointers of the object at the address to the marker; takes and returns what waits to
/// be traced.
///
/// Unsafe: there is a live object of the glue's type at the address.
pub(crate) type TraceGlue = unsafe fn(NonNull<u8>, &mut Marker, Pending) -> Pending;

/// The type-erased glue of one type. Aligned so that its address makes a good cache index.
#[repr(align(32))]
pub(crate) struct TypeInfo {
    /// Which type it is, its brand left open. The info's address does not tell: one type may have
    /// several.
    pub(crate) type_id: TypeId,
    /// Distance between two slots, in bytes.
    pub(crate) slot_bytes: usize,
    /// Units that are opened together for the type; see [`layout::group_units`].
    pub(crate) group_units: usize,
    pub(crate) needs_trace: bool,
    pub(crate) needs_drop: bool,
    /// Whether the type is the heap's own weak record, which no program counts as an object.
    pub(crate) is_weak_record: bool,
    /// Calls `Trace::trace` on the object at the address.
    pub(crate) trace: TraceGlue,
    /// Drops the object at the address in place.
    pub(crate) drop: unsafe fn(NonNull<u8>),
    /// Tells what the object at the address owns outside the heap. Asked only if it needs a drop.
    ///
    /// Unsafe: there is a live object of the glue's type at the address.
    pub(crate) external_bytes: unsafe fn(NonNull<u8>) -> usize,
    /// The type's name, for messages.
    pub(crate) name: fn() -> &'static str,
}

const _: () = assert!(size_of::<TypeInfo>() / 32 % 2 == 1, "neighbours share few cache indices");

impl TypeInfo {
    /// Tells whether an object of the type is larger than a unit.
    pub(crate) fn is_large(&self) -> bool {
        self.slot_bytes > SPAN_BYTES
    }

    /// Tells whether an object of the type has a mapping of its own.
    pub(crate) fn is_own(&self) -> bool {
        layout::is_own(self.slot_bytes)
    }
}
