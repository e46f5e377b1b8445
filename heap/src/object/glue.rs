//! The glue of a type: its [`TypeInfo`], made here for the memory that knows no types.
//!
//! Invariant: the functions of a type's info are called with objects of that type only.

use std::any::TypeId;
use std::ptr::NonNull;

use crate::memory::layout::{group_units, slot_bytes};
use crate::memory::mark_stack::{Marker, Pending};
use crate::memory::type_info::TypeInfo;
use crate::object::trace::{Trace, Tracer};

/// Gives the info of `T`. Two calls may give two addresses (codegen units). An allocator then has
/// two runs of the type, whose spans are of one class.
#[inline]
pub(crate) fn type_info<'gc, T: Trace<'gc>>() -> &'static TypeInfo {
    &Of::<T>::INFO
}

struct Of<T>(T);

impl<'gc, T: Trace<'gc>> Of<T> {
    const INFO: TypeInfo = TypeInfo {
        type_id: TypeId::of::<T::Family>(),
        slot_bytes: slot_bytes::<T>(),
        group_units: const { group_units(slot_bytes::<T>()) },
        needs_trace: T::NEEDS_TRACE,
        needs_drop: std::mem::needs_drop::<T>(),
        is_weak_record: T::IS_WEAK_RECORD,
        trace: trace_object::<T>,
        drop: drop_object::<T>,
        external_bytes: external_bytes_of::<T>,
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
/// `object` is a live `T`.
unsafe fn external_bytes_of<'gc, T: Trace<'gc>>(object: NonNull<u8>) -> usize {
    // SAFETY: the caller says it is a live `T`. What a session may change of it meanwhile is read
    // by the cells' own `external_bytes`.
    unsafe { object.cast::<T>().as_ref() }.external_bytes()
}

/// # Safety
///
/// `object` is a `T` that is dead and is not used again.
unsafe fn drop_object<T>(object: NonNull<u8>) {
    // SAFETY: by this function's contract.
    unsafe { object.cast::<T>().drop_in_place() };
}
