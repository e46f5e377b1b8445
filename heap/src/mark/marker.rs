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
use crate::memory::cell_lock::Stamp;
use crate::memory::layout::{is_dense, slot_bytes};
use crate::memory::mark_stack::{CHUNK, Marker, Pending, Slice, SplitCell, Strategy};
use crate::memory::span::SpanRef;
use crate::safepoint::helpers::Helpers;

/// Objects whose memory is on its way to the cache. Measured on a random graph: fewer than 8 leave
/// misses uncovered, more than 32 gain nothing.
const RING: usize = 16;

/// Objects on the work list from which on the graph counts as wide. It is more than a binary tree's
/// depth, and twice the ring at least.
const WIDE: usize = 64;

/// Values of a long slice that are traced without a look at the clock: some ten microseconds. A
/// model has a few of them in all.
const PIECE: usize = if cfg!(loom) { 1 } else { 512 };

/// Objects on the work list from which on other threads are called to help: some hundred
/// microseconds of work at least.
const WORTH_HELP: usize = CHUNK / 2;

impl Marker {
    /// Sees a pointer to an object of a type that needs tracing.
    #[inline]
    pub(crate) fn visit<T>(&mut self, mut pending: Pending, object: NonNull<u8>) -> Pending {
        let span = SpanRef::containing(object);
        let slot = span.slot_of_type::<T>(object);
        match self.strategy {
            Strategy::Narrow => {
                if span.mark_of_type::<T>(object, slot)
                    && let Some(previous) = pending.next.replace(object)
                {
                    return self.put_off(pending, previous);
                }
                pending
            }
            Strategy::Wide if let Some(place) = self.work.get_mut(pending.len) => {
                *place = ObjectAddress(object);
                pending.len += usize::from(span.mark_of_type::<T>(object, slot));
                pending
            }
            _ => self.visit_slowly_by_type::<T>(pending, object, slot, true),
        }
    }

    /// Sees a pointer to an object of a type without pointers: its bit is all there is to do.
    #[inline]
    pub(crate) fn visit_leaf<T>(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        let span = SpanRef::containing(object);
        let slot = span.slot_of_type::<T>(object);
        if matches!(self.strategy, Strategy::Narrow | Strategy::Wide) {
            span.mark_of_type::<T>(object, slot);
            return pending;
        }
        self.visit_slowly_by_type::<T>(pending, object, slot, false)
    }

    /// Sees a pointer whose type only the span knows (a dynamic root).
    pub(crate) fn visit_untyped(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        if self.strategy == Strategy::Audit {
            // The verifier looks for its span itself.
            self.seen.push(ObjectAddress(object));
            return pending;
        }
        let span = SpanRef::containing(object);
        let (slot, needs_trace) = (span.slot_of(object), span.info().needs_trace);
        if span.is_dense() {
            self.visit_slowly::<true>(pending, object, slot, needs_trace)
        } else {
            self.visit_slowly::<false>(pending, object, slot, needs_trace)
        }
    }

    #[inline]
    fn visit_slowly_by_type<T>(
        &mut self,
        pending: Pending,
        object: NonNull<u8>,
        slot: usize,
        needs_trace: bool,
    ) -> Pending {
        if const { is_dense(slot_bytes::<T>()) } {
            self.visit_slowly::<true>(pending, object, slot, needs_trace)
        } else {
            self.visit_slowly::<false>(pending, object, slot, needs_trace)
        }
    }

    /// Sees any pointer, by any strategy, with the work list full or not.
    #[inline(never)]
    fn visit_slowly<const DENSE: bool>(
        &mut self,
        pending: Pending,
        object: NonNull<u8>,
        slot: usize,
        needs_trace: bool,
    ) -> Pending {
        let span = SpanRef::containing(object);
        let mark = span.bit_at::<DENSE>(object, slot);
        let is_new = match self.strategy {
            Strategy::Narrow | Strategy::Wide => mark.set(),
            Strategy::Parallel => mark.set_shared(),
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
        let mut fuel = usize::MAX;
        loop {
            if self.waits(pending) < enough {
                pending = self.drain_narrow::<false>(pending, &mut fuel);
                pending = self.drain_wide::<false>(pending, enough, &mut fuel);
            }
            if self.waits(pending) >= enough {
                if let Some(next) = pending.next.take() {
                    pending = self.push(pending, next);
                }
                let mut packets = Vec::new();
                self.take_chunks(pending, |chunk| {
                    packets.extend(chunk.chunks(PACKET).map(WorkPacket::new));
                });
                return ParallelMark::run(packets, self, helpers);
            }
            if !self.go_on(&mut pending) {
                return;
            }
        }
    }

    /// Traces about `fuel` objects, or until nothing is left to trace. Gives what waits.
    pub(crate) fn drain_some(&mut self, mut pending: Pending, mut fuel: usize) -> Pending {
        loop {
            pending = self.drain_narrow::<true>(pending, &mut fuel);
            pending = self.drain_wide::<true>(pending, usize::MAX, &mut fuel);
            if fuel == 0 || !self.go_on(&mut pending) {
                return pending;
            }
            fuel = fuel.saturating_sub(self.cost());
        }
    }

    /// Gives what an object costs, with the values traced since the last one.
    #[inline]
    fn cost(&mut self) -> usize {
        1 + std::mem::take(&mut self.spent)
    }

    /// Takes what waits outside of the top chunk, if that is used up. Tells whether something
    /// waits.
    fn go_on(&mut self, pending: &mut Pending) -> bool {
        if pending.len > 0 || pending.next.is_some() || self.open_chunk(pending) {
            return true;
        }
        self.trace_piece(pending)
    }

    /// Traces a piece of a slice that waits, or finds that it has been traced. Tells whether one
    /// waits.
    fn trace_piece(&mut self, pending: &mut Pending) -> bool {
        if let Some(piece) = take_piece(&mut self.slices) {
            // SAFETY: the values are those of a live object, and outside of every cell; so they are
            // as they were when the slice was put off.
            unsafe { self.trace_values(pending, &piece) };
            if std::mem::take(&mut self.is_blocked) {
                self.blocked_slices.push(piece);
            }
            return true;
        }
        let Some(mut cell) = self.cells.pop() else { return false };
        // SAFETY: the object that has the lock is marked, or the root. So it is there until the
        // sweep, and no object outside of a cell moves.
        let lock = unsafe { cell.lock.0.as_ref() };
        let is_traced = if self.is_beside_sessions {
            lock.visit(&mut || self.trace_piece_of(&mut cell, lock.stamp(), pending))
        } else {
            self.trace_piece_of(&mut cell, lock.stamp(), pending);
            true
        };
        if !is_traced || std::mem::take(&mut self.is_blocked) {
            self.blocked_cells.push(cell);
        } else if !cell.slices.is_empty() {
            self.cells.push(cell);
        }
        true
    }

    /// Traces a piece of a cell, unless a session has traced all of it. Called with the cell's
    /// lock, or while no session is open that changes it.
    fn trace_piece_of(&mut self, cell: &mut SplitCell, stamp: &Stamp, pending: &mut Pending) {
        if !stamp.is_begun(self.epoch) {
            // The values may be gone.
            cell.slices.clear();
            return;
        }
        let Some(piece) = take_piece(&mut cell.slices) else { return };
        // SAFETY: no session has changed the cell since the slice was put off: it would have
        // stamped it. None does now. So the values are as they were.
        unsafe { self.trace_values(pending, &piece) };
        if self.is_blocked {
            // All of it is traced again, and puts off the same.
            self.slices.clear();
            cell.slices.push(piece);
            return;
        }
        cell.slices.append(&mut self.slices);
        if cell.slices.is_empty() {
            stamp.set(self.epoch);
        }
    }

    /// # Safety
    ///
    /// The values are those of a live object, and do not change meanwhile.
    unsafe fn trace_values(&mut self, pending: &mut Pending, piece: &Slice) {
        self.spent += piece.len;
        // SAFETY: by this function's contract.
        *pending = unsafe { (piece.trace)(piece.first.0, piece.len, self, *pending) };
    }

    /// Traces until nothing waits, or until the graph is wide.
    fn drain_narrow<const BOUNDED: bool>(
        &mut self,
        mut pending: Pending,
        fuel: &mut usize,
    ) -> Pending {
        self.strategy = Strategy::Narrow;
        while pending.len < WIDE {
            if BOUNDED {
                if *fuel == 0 {
                    break;
                }
                *fuel = fuel.saturating_sub(self.cost());
            }
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
    fn drain_wide<const BOUNDED: bool>(
        &mut self,
        mut pending: Pending,
        enough: usize,
        fuel: &mut usize,
    ) -> Pending {
        if pending.len < WIDE || (BOUNDED && *fuel == 0) {
            return pending;
        }
        self.strategy = Strategy::Wide;
        let mut ring = Ring::filled_by(|| self.pop(&mut pending));
        while pending.len > 0 && pending.len < enough {
            if BOUNDED {
                if *fuel == 0 {
                    break;
                }
                *fuel = fuel.saturating_sub(self.cost());
            }
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
        while (pending.len > 0 || self.open_chunk(&mut pending)) && !parallel.is_aborted() {
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

    /// Traces about `fuel` objects beside open sessions, or until nothing is left to trace. Gives
    /// what waits.
    ///
    /// An object with a cell that a session has locked is put off until the mutators are stopped.
    pub(crate) fn drain_beside(&mut self, mut pending: Pending, mut fuel: usize) -> Pending {
        self.strategy = Strategy::Parallel;
        self.is_beside_sessions = true;
        while fuel > 0 {
            if pending.len > 0 || self.open_chunk(&mut pending) {
                let object = self.pop(&mut pending);
                pending = self.trace(pending, object);
                if std::mem::take(&mut self.is_blocked) {
                    self.blocked.push(ObjectAddress(object));
                }
            } else if !self.trace_piece(&mut pending) {
                break;
            }
            fuel = fuel.saturating_sub(self.cost());
        }
        self.is_beside_sessions = false;
        pending
    }

    /// Sees a root's object, while others mark, too.
    pub(crate) fn visit_shared(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        self.strategy = Strategy::Parallel;
        self.visit_untyped(pending, object)
    }

    #[inline]
    fn trace(&mut self, pending: Pending, object: NonNull<u8>) -> Pending {
        let trace = SpanRef::containing(object).trace_glue();
        // SAFETY: only reachable objects are seen, and those are live objects of their span's type.
        unsafe { trace(object, self, pending) }
    }

    /// Calls `each` with the pointers in the slices that wait, for the verifier.
    pub(crate) fn for_each_in_slices(&self, each: &mut dyn FnMut(NonNull<u8>)) {
        let begun = self.cells.iter().filter(|cell| {
            // SAFETY: as in `trace_piece`.
            unsafe { cell.lock.0.as_ref() }.stamp().is_begun(self.epoch)
        });
        let slices = self.slices.iter().chain(begun.flat_map(|cell| &cell.slices));
        for &Slice { first: ObjectAddress(first), len, trace, .. } in slices {
            let seen = Self::audited(|marker| {
                // SAFETY: as when the marker comes to them.
                unsafe { trace(first, len, marker, Pending::NONE) };
            });
            seen.into_iter().for_each(&mut *each);
        }
    }

    /// Gives the pointers that one object reports, for the verifier.
    pub(crate) fn pointers_of(object: NonNull<u8>) -> Vec<NonNull<u8>> {
        Self::audited(|marker| {
            marker.trace(Pending::NONE, object);
        })
    }

    /// Gives the pointers that `report` reports, for the verifier.
    pub(crate) fn audited(report: impl FnOnce(&mut Marker)) -> Vec<NonNull<u8>> {
        let mut marker = Marker::new(Strategy::Audit);
        report(&mut marker);
        marker.seen.into_iter().map(|ObjectAddress(object)| object).collect()
    }
}

/// Takes a piece of the slice that was put off last.
fn take_piece(slices: &mut Vec<Slice>) -> Option<Slice> {
    let slice = slices.last_mut()?;
    let len = slice.len.min(PIECE);
    let piece = Slice { len, ..*slice };
    slice.len -= len;
    // SAFETY: the slice has that many values more.
    slice.first = ObjectAddress(unsafe { slice.first.0.byte_add(len * slice.value_bytes) });
    if slice.len == 0 {
        slices.pop();
    }
    Some(piece)
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
