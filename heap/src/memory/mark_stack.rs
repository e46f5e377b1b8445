//! The state of a marker: the objects that wait, and how pointers are taken.
//!
//! It is data that trace glue carries from one object to the next. What a marker does with it is in
//! `mark/marker.rs`.

use std::ptr::NonNull;

use sexton_sync::prefetch;

use crate::memory::address::ObjectAddress;

/// The state of one marker, but for what [`Pending`] carries.
pub(crate) struct Marker {
    /// The first `Pending::len` places are the work list.
    pub(crate) work: Vec<ObjectAddress>,
    pub(crate) strategy: Strategy,
    /// What the verifier's walk has seen.
    pub(crate) seen: Vec<ObjectAddress>,
}

/// How a pointer that trace glue reports is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    Narrow,
    Wide,
    /// As `Wide`, while other threads mark, too.
    Parallel,
    /// For the verifier: pointers are collected, and nothing is marked.
    Audit,
}

/// The part of a marker's state that changes with every object. It is passed to trace glue and back
/// by value: two registers.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    /// Objects on the work list.
    pub(crate) len: usize,
    /// The object seen last, if the strategy is `Narrow`.
    pub(crate) next: Option<NonNull<u8>>,
}

impl Pending {
    pub(crate) const NONE: Pending = Pending { len: 0, next: None };
}

impl Marker {
    pub(crate) fn new() -> Self {
        Marker { work: Vec::new(), strategy: Strategy::Narrow, seen: Vec::new() }
    }

    /// Puts an object on the work list for as long as it takes to trace those seen after it.
    #[inline]
    pub(crate) fn put_off(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        prefetch::to_read(object.as_ptr());
        let Some(place) = self.work.get_mut(pending.len) else {
            return self.push(pending, object);
        };
        *place = ObjectAddress(object);
        pending.len += 1;
        pending
    }

    /// Puts an object on the work list, which grows if it is full.
    #[cold]
    #[inline(never)]
    pub(crate) fn push(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        if pending.len == self.work.len() {
            self.work.resize((pending.len * 2).max(1 << 10), ObjectAddress(NonNull::dangling()));
        }
        self.work[pending.len] = ObjectAddress(object);
        pending.len += 1;
        pending
    }

    /// Takes the object put on the work list last, and has its memory fetched.
    #[inline]
    pub(crate) fn pop(&mut self, pending: &mut Pending) -> NonNull<u8> {
        pending.len -= 1;
        let ObjectAddress(object) = self.work[pending.len];
        prefetch::to_read(object.as_ptr());
        object
    }
}
