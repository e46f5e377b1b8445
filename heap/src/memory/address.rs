//! The address of an object, as tables keep it.

use std::ptr::NonNull;

/// The address of an object, for tables that several threads use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ObjectAddress(pub(crate) NonNull<u8>);

// SAFETY: an address gives no access. Sessions and markers follow it, and they answer for that. An
// object that several threads reach is `Send + Sync`, as its heap is `Shared`.
unsafe impl Send for ObjectAddress {}
// SAFETY: as above.
unsafe impl Sync for ObjectAddress {}
