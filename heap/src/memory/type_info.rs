//! What a span knows of the one type whose objects it holds.
//!
//! Invariant: a span's [`TypeInfo`] is that of every object in it; so an address is enough to trace
//! or drop an object, and the object needs no header.

use std::any::TypeId;
use std::ptr::NonNull;

use crate::mark::marker::{Marker, Pending};
use crate::memory::span::{MIN_SLOT_BYTES, SPAN_BYTES};
use crate::object::trace::{Trace, Tracer};

/// Reports the pointers of the object at the address to the marker; takes and returns what waits to be traced.
///
/// Unsafe: there is a live object of the glue's type at the address.
pub(crate) type TraceGlue = unsafe fn(NonNull<u8>, &mut Marker, Pending) -> Pending;

/// The type-erased glue of one type. Aligned so that its address makes a good cache index.
#[repr(align(64))]
pub(crate) struct TypeInfo {
    /// Which type it is, its brand left open. The info's address does not tell: one type may have several.
    pub(crate) type_id: TypeId,
    /// Distance between two slots, in bytes.
    pub(crate) slot_bytes: usize,
    pub(crate) needs_trace: bool,
    pub(crate) needs_drop: bool,
    /// Whether the type is the heap's own weak record, which no program counts as an object.
    pub(crate) is_weak_record: bool,
    /// Calls `Trace::trace` on the object at the address.
    pub(crate) trace: TraceGlue,
    /// Drops the object at the address in place.
    pub(crate) drop: unsafe fn(NonNull<u8>),
    /// The type's name, for messages.
    pub(crate) name: fn() -> &'static str,
}

impl TypeInfo {
    /// The info of `T`. Two calls may give two addresses (codegen units); an allocator then has two stocks of the type,
    /// whose spans are of one class.
    #[inline]
    pub(crate) fn of<'gc, T: Trace<'gc>>() -> &'static TypeInfo {
        &Of::<T>::INFO
    }

    /// Whether objects of the type get a span of several units each.
    pub(crate) fn is_large(&self) -> bool {
        self.slot_bytes > SPAN_BYTES
    }

    /// Bytes an object of the type counts for: its slot, or all units of its span if it is large.
    pub(crate) fn charged_bytes(&self) -> usize {
        if self.is_large() { self.slot_bytes.next_multiple_of(SPAN_BYTES) } else { self.slot_bytes }
    }
}

/// Distance between two slots of a `T`, in bytes.
pub(crate) const fn slot_bytes<T>() -> usize {
    const { assert!(align_of::<T>() <= MAX_ALIGN, "the heap aligns objects to at most 4096 bytes") }
    let align = if align_of::<T>() > 8 { align_of::<T>() } else { 8 };
    let size = if size_of::<T>() > MIN_SLOT_BYTES { size_of::<T>() } else { MIN_SLOT_BYTES };
    size.next_multiple_of(align)
}

/// The largest alignment of a payload, in bytes.
const MAX_ALIGN: usize = 4096;

struct Of<T>(T);

impl<'gc, T: Trace<'gc>> Of<T> {
    const INFO: TypeInfo = TypeInfo {
        type_id: TypeId::of::<T::Family>(),
        slot_bytes: slot_bytes::<T>(),
        needs_trace: T::NEEDS_TRACE,
        needs_drop: std::mem::needs_drop::<T>(),
        is_weak_record: T::IS_WEAK_RECORD,
        trace: trace_object::<T>,
        drop: drop_object::<T>,
        name: std::any::type_name::<T>,
    };
}

/// # Safety
///
/// `object` is a live `T`.
unsafe fn trace_object<'gc, T: Trace<'gc>>(
    object: NonNull<u8>,
    marker: &mut Marker,
    pending: Pending,
) -> Pending {
    // SAFETY: the caller says it is a live `T`; nothing writes to it while it is traced.
    let object = unsafe { object.cast::<T>().as_ref() };
    let mut tracer = Tracer::new(marker, pending);
    object.trace(&mut tracer);
    tracer.pending()
}

/// # Safety
///
/// `object` is a `T` that is dead and is not used again.
unsafe fn drop_object<T>(object: NonNull<u8>) {
    // SAFETY: by this function's contract.
    unsafe { object.cast::<T>().drop_in_place() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_size_and_alignment() {
        #[repr(align(64))]
        struct Line([u8; 65]);
        assert_eq!(slot_bytes::<()>(), 16);
        assert_eq!(slot_bytes::<[u8; 17]>(), 24);
        assert_eq!(slot_bytes::<[u64; 4]>(), 32);
        assert_eq!(slot_bytes::<u128>(), 16);
        assert_eq!(slot_bytes::<Line>(), 128);
        assert_eq!(Line([0; 65]).0.len(), 65);
    }
}
