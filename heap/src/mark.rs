//! Mark: an explicit work list over the graph of reachable objects.
//!
//! An object is marked when it is first seen, by its bit, and put on the work list if its type has
//! pointers; so the list holds each object at most once, and a chain of any length needs no stack.
//!
//! How the list is worked off depends on the graph, and the marker notices as it goes:
//!
//! - *Narrow* (fewer than [`WIDE`] objects wait: lists, trees): the object seen last is traced next. It stays in a
//!   register, so that a list costs one dependent load a node and nothing else.
//! - *Wide*: between the list and the scan stands a ring of objects whose memory is on its way to the cache.
//!   Whether an object had been seen before is a coin toss here, so it is answered without a branch.
//!
//! Invariant: every object that waits ([`Pending`], the work list, the ring) is marked and waits once, and every marked object
//! with pointers waits or has been traced.

use std::ptr::NonNull;

use sexton_cleanup::prefetch;

use crate::span::SpanRef;
use crate::trace::Trace;

/// Objects whose memory is on its way to the cache. Measured on a random graph: fewer than 8 leave misses uncovered,
/// more than 32 gain nothing.
const RING: usize = 16;

/// Objects on the work list from which on the graph counts as wide. More than a binary tree's depth; twice the ring at least.
const WIDE: usize = 64;

/// The state of one marker, but for what [`Pending`] carries.
pub(crate) struct Marker {
    /// The first `Pending::len` places are the work list.
    work: Vec<NonNull<u8>>,
    mode: Mode,
    /// What the verifier's walk has seen.
    seen: Vec<NonNull<u8>>,
}

/// How a pointer that trace glue reports is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Narrow,
    Wide,
    /// For the verifier: pointers are collected, and nothing is marked.
    Audit,
}

/// The part of a marker's state that changes with every object. Passed to trace glue and back by value: two registers.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    /// Objects on the work list.
    len: usize,
    /// The object seen last, if the mode is narrow.
    next: Option<NonNull<u8>>,
}

impl Pending {
    pub(crate) const NONE: Pending = Pending { len: 0, next: None };
}

impl Marker {
    pub(crate) fn new() -> Self {
        Marker { work: Vec::new(), mode: Mode::Narrow, seen: Vec::new() }
    }

    /// Sees a pointer to an object of a type that needs tracing.
    #[inline]
    pub(crate) fn visit<'gc, T: Trace<'gc>>(
        &mut self,
        mut pending: Pending,
        object: NonNull<u8>,
    ) -> Pending {
        if self.mode == Mode::Narrow {
            let span = SpanRef::containing(object);
            if span.mark(span.slot_of_type::<T>(object))
                && let Some(previous) = pending.next.replace(object)
            {
                return self.put_off(pending, previous);
            }
            return pending;
        }
        let Some(place) = self.work.get_mut(pending.len) else {
            return self.visit_slowly(pending, object);
        };
        let span = SpanRef::containing(object);
        *place = object;
        pending.len += usize::from(span.mark(span.slot_of_type::<T>(object)));
        pending
    }

    /// Sees a pointer to an object of a type without pointers: its bit is all there is to do.
    #[inline]
    pub(crate) fn visit_leaf<T>(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        if self.mode == Mode::Audit {
            return self.visit_slowly(pending, object);
        }
        let span = SpanRef::containing(object);
        span.mark(span.slot_of_type::<T>(object));
        pending
    }

    /// Sees a pointer whose type only the span knows (a dynamic root).
    pub(crate) fn visit_untyped(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        self.visit_slowly(pending, object)
    }

    /// Sees any pointer, in any mode, with the work list full or not.
    #[cold]
    #[inline(never)]
    fn visit_slowly(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        if self.mode == Mode::Audit {
            self.seen.push(object);
            return pending;
        }
        let span = SpanRef::containing(object);
        if span.mark(span.slot_of(object)) && span.info().needs_trace {
            return self.push(pending, object);
        }
        pending
    }

    /// Puts an object on the work list for as long as it takes to trace those seen after it.
    #[inline]
    fn put_off(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        prefetch::to_read(object.as_ptr());
        let Some(place) = self.work.get_mut(pending.len) else {
            return self.push(pending, object);
        };
        *place = object;
        pending.len += 1;
        pending
    }

    /// Puts an object on the work list, which grows if it is full.
    #[cold]
    #[inline(never)]
    fn push(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        if pending.len == self.work.len() {
            self.work.resize((pending.len * 2).max(1 << 10), NonNull::dangling());
        }
        self.work[pending.len] = object;
        pending.len += 1;
        pending
    }

    /// Traces until nothing is left to trace.
    pub(crate) fn drain(&mut self, mut pending: Pending) {
        while pending.len > 0 || pending.next.is_some() {
            pending = self.drain_narrow(pending);
            pending = self.drain_wide(pending);
        }
    }

    /// Until nothing waits, or so many that the graph is wide.
    fn drain_narrow(&mut self, mut pending: Pending) -> Pending {
        self.mode = Mode::Narrow;
        while pending.len < WIDE {
            let object = match pending.next.take() {
                Some(object) => object,
                None if pending.len > 0 => self.pop(&mut pending),
                None => return pending,
            };
            pending = self.trace(pending, object);
        }
        match pending.next.take() {
            Some(object) => self.push(pending, object),
            None => pending,
        }
    }

    /// If the graph is wide: until the work list was empty once.
    fn drain_wide(&mut self, mut pending: Pending) -> Pending {
        if pending.len < WIDE {
            return pending;
        }
        self.mode = Mode::Wide;
        let mut ring = [(); RING].map(|()| self.pop(&mut pending));
        let mut oldest = 0;
        while pending.len > 0 {
            let coming = self.pop(&mut pending);
            let object = std::mem::replace(&mut ring[oldest], coming);
            oldest = (oldest + 1) % RING;
            pending = self.trace(pending, object);
        }
        for at in 0..RING {
            pending = self.trace(pending, ring[(oldest + at) % RING]);
        }
        pending
    }

    /// Takes the object put on the work list last, and has its memory fetched.
    #[inline]
    fn pop(&mut self, pending: &mut Pending) -> NonNull<u8> {
        pending.len -= 1;
        let object = self.work[pending.len];
        prefetch::to_read(object.as_ptr());
        object
    }

    #[inline]
    fn trace(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        let trace = SpanRef::containing(object).trace_glue();
        // SAFETY: only reachable objects are seen, and those are live objects of their span's type.
        unsafe { trace(object, self, pending) }
    }

    /// The pointers that one object reports, for the verifier.
    pub(crate) fn pointers_of(object: NonNull<u8>) -> Vec<NonNull<u8>> {
        Self::audited(|marker| {
            marker.trace(Pending::NONE, object);
        })
    }

    /// The pointers that `report` reports, for the verifier.
    pub(crate) fn audited(report: impl FnOnce(&mut Marker)) -> Vec<NonNull<u8>> {
        let mut marker = Marker { work: Vec::new(), mode: Mode::Audit, seen: Vec::new() };
        report(&mut marker);
        marker.seen
    }
}
