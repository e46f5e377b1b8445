//! Mark: an explicit work list over the graph of reachable objects.
//!
//! An object is marked, by its bit, when it is first seen. If its type has pointers, it is put on
//! the work list. So the list holds each object at most once, and a chain of any length needs no
//! stack.
//!
//! How the list is worked off depends on the graph, and the marker notices as it goes:
//!
//! - *Narrow* (fewer than [`WIDE`] objects wait: lists, trees): the object seen last is traced
//!   next. It stays in a register, so that a list costs one dependent load a node and nothing else.
//! - *Wide*: between the list and the scan stands a ring of objects whose memory is on its way to
//!   the cache. Whether an object had been seen before is a coin toss here, so it is answered
//!   without a branch.
//!
//! A marker begins alone. A graph that is large and wide is shared with others; see
//! [`ParallelMark`].
//!
//! Invariant: each object that waits is marked, and waits once: in [`Pending`], the work list, the
//! ring or a packet. Each marked object with pointers waits or has been traced.

use std::ptr::NonNull;

use crate::mark::parallel::{PACKET, ParallelMark, WorkPacket};
use crate::memory::address::ObjectAddress;
use crate::memory::mark_stack::{Marker, Pending, Strategy};
use crate::memory::span::SpanRef;
use crate::safepoint::helpers::Helpers;

/// Objects whose memory is on its way to the cache. Measured on a random graph: fewer than 8 leave
/// misses uncovered, more than 32 gain nothing.
const RING: usize = 16;

/// Objects on the work list from which on the graph counts as wide. It is more than a binary tree's
/// depth, and twice the ring at least.
const WIDE: usize = 64;

/// Objects on the work list from which on other threads are called to help: some hundred
/// microseconds of work at least.
const WORTH_HELP: usize = 1 << 15;

impl Marker {
    /// Sees a pointer to an object of a type that needs tracing.
    #[inline]
    pub(crate) fn visit<T>(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        let span = SpanRef::containing(object);
        let slot = span.slot_of_type::<T>(object);
        match self.strategy {
            Strategy::Narrow => {
                if span.mark(slot)
                    && let Some(previous) = pending.next.replace(object)
                {
                    return self.put_off(pending, previous);
                }
                pending
            }
            Strategy::Wide if let Some(place) = self.work.get_mut(pending.len) => {
                *place = ObjectAddress(object);
                pending.len += usize::from(span.mark(slot));
                pending
            }
            _ => self.visit_slowly(pending, object, slot, true),
        }
    }

    /// Sees a pointer to an object of a type without pointers: its bit is all there is to do.
    #[inline]
    pub(crate) fn visit_leaf<T>(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        let span = SpanRef::containing(object);
        let slot = span.slot_of_type::<T>(object);
        if matches!(self.strategy, Strategy::Narrow | Strategy::Wide) {
            span.mark(slot);
            return pending;
        }
        self.visit_slowly(pending, object, slot, false)
    }

    /// Sees a pointer whose type only the span knows (a dynamic root).
    pub(crate) fn visit_untyped(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        if self.strategy == Strategy::Audit {
            // The verifier looks for its span itself.
            self.seen.push(ObjectAddress(object));
            return pending;
        }
        let span = SpanRef::containing(object);
        self.visit_slowly(pending, object, span.slot_of(object), span.info().needs_trace)
    }

    /// Sees any pointer, by any strategy, with the work list full or not.
    #[inline(never)]
    fn visit_slowly(
        &mut self,
        pending: Pending,
        object: NonNull<u8>,
        slot: usize,
        needs_trace: bool,
    ) -> Pending {
        let span = SpanRef::containing(object);
        let is_new = match self.strategy {
            Strategy::Narrow | Strategy::Wide => span.mark(slot),
            Strategy::Parallel => span.mark_shared(slot),
            Strategy::Audit => {
                self.seen.push(ObjectAddress(object));
                return pending;
            }
        };
        if !(is_new && needs_trace) {
            return pending;
        }
        self.put_off(pending, object)
    }

    /// Traces until nothing is left to trace, with the helpers if the graph is large and wide.
    pub(crate) fn drain(&mut self, mut pending: Pending, helpers: &Helpers<'_>) {
        let enough = if helpers.most > 0 { WORTH_HELP } else { usize::MAX };
        while pending.len > 0 || pending.next.is_some() {
            pending = self.drain_narrow(pending);
            pending = self.drain_wide(pending, enough);
            if pending.len >= enough {
                let waiting = std::mem::take(&mut self.work);
                return ParallelMark::run(&waiting[..pending.len], self, helpers);
            }
        }
    }

    /// Traces until nothing waits, or until the graph is wide.
    fn drain_narrow(&mut self, mut pending: Pending) -> Pending {
        self.strategy = Strategy::Narrow;
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

    /// Traces a wide graph until the work list was empty once, or there is `enough` on it.
    fn drain_wide(&mut self, mut pending: Pending, enough: usize) -> Pending {
        if pending.len < WIDE {
            return pending;
        }
        self.strategy = Strategy::Wide;
        let mut ring = Ring::filled_by(|| self.pop(&mut pending));
        while pending.len > 0 && pending.len < enough {
            let object = ring.replace(self.pop(&mut pending));
            pending = self.trace(pending, object);
        }
        if pending.len > 0 {
            return ring.0.iter().fold(pending, |pending, &object| self.push(pending, object));
        }
        ring.in_order().fold(pending, |pending, object| self.trace(pending, object))
    }

    /// Traces what is in the packet and all it leads to, but for what is given to other markers.
    pub(crate) fn trace_packet(&mut self, packet: &WorkPacket, parallel: &ParallelMark) {
        self.strategy = Strategy::Parallel;
        let objects = packet.objects().iter();
        let mut pending = objects
            .fold(Pending::NONE, |pending, &ObjectAddress(object)| self.push(pending, object));
        while pending.len > 0 && !parallel.is_aborted() {
            if pending.len < RING {
                let object = self.pop(&mut pending);
                pending = self.trace(pending, object);
                continue;
            }
            let mut ring = Ring::filled_by(|| self.pop(&mut pending));
            while pending.len > 0 {
                let object = ring.replace(self.pop(&mut pending));
                pending = self.trace(pending, object);
                if pending.len > 2 * PACKET && parallel.is_any_idle() {
                    parallel.give(WorkPacket::new(&self.work[..PACKET]));
                    self.work.copy_within(pending.len - PACKET..pending.len, 0);
                    pending.len -= PACKET;
                }
            }
            pending = ring.in_order().fold(pending, |pending, object| self.trace(pending, object));
        }
    }

    #[inline]
    fn trace(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        let trace = SpanRef::containing(object).trace_glue();
        // SAFETY: only reachable objects are seen, and those are live objects of their span's type.
        unsafe { trace(object, self, pending) }
    }

    /// Gives the pointers that one object reports, for the verifier.
    pub(crate) fn pointers_of(object: NonNull<u8>) -> Vec<NonNull<u8>> {
        Self::audited(|marker| {
            marker.trace(Pending::NONE, object);
        })
    }

    /// Gives the pointers that `report` reports, for the verifier.
    pub(crate) fn audited(report: impl FnOnce(&mut Marker)) -> Vec<NonNull<u8>> {
        let mut marker = Marker { work: Vec::new(), strategy: Strategy::Audit, seen: Vec::new() };
        report(&mut marker);
        marker.seen.into_iter().map(|ObjectAddress(object)| object).collect()
    }
}

/// Objects between the work list and the scan, whose memory is on its way to the cache.
struct Ring([NonNull<u8>; RING], usize);

impl Ring {
    fn filled_by(mut next: impl FnMut() -> NonNull<u8>) -> Self {
        Ring([(); RING].map(|()| next()), 0)
    }

    /// Puts an object in the place of the oldest, and gives that.
    #[inline]
    fn replace(&mut self, object: NonNull<u8>) -> NonNull<u8> {
        let Ring(objects, oldest) = self;
        let old = std::mem::replace(&mut objects[*oldest], object);
        *oldest = (*oldest + 1) % RING;
        old
    }

    /// Gives the objects, the oldest first.
    fn in_order(self) -> impl Iterator<Item = NonNull<u8>> {
        let Ring(objects, oldest) = self;
        (0..RING).map(move |at| objects[(oldest + at) % RING])
    }
}
