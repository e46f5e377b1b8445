//! Marking by several threads: what one marker has too much of, others take.
//!
//! The thread that collects begins alone (`marker.rs`). When enough objects wait to be worth the
//! start of helpers (`helpers.rs`), it puts them into *packets*, in a list that all share. Helpers
//! join it for the rest of the mark. Each works on a packet as on any wide graph, but sets mark
//! bits by read-modify-write. When others are idle, it gives them a packet of the objects that have
//! waited longest. Those are likely to lead to most.
//!
//! Invariant: an object that waits is in one marker's work list, or in one packet. `outstanding`
//! counts the packets that are in the list, or that a marker has taken and not finished. A packet
//! is finished when all it has led to is traced or given away. A packet is counted before it can be
//! taken. So when `outstanding` is 0, nothing waits, and no marker is there to find more.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use crossbeam_deque::{Injector, Steal};
use sexton_sync::Mutex;
use sexton_sync::drop_quietly;

use crate::memory::address::ObjectAddress;
use crate::memory::mark_stack::{Marker, Strategy};
use crate::safepoint::helpers::{Helpers, Job};

/// Objects in a packet: some microseconds of work at least.
pub(crate) const PACKET: usize = 512;

/// Marked objects that wait to be traced by the marker that takes them.
///
/// Each waits in one place only, so one thread traces it. `Trace` says that it may be another
/// thread than the heap's. That one is inside the cycle until all markers have left.
pub(crate) struct WorkPacket(Vec<ObjectAddress>);

impl WorkPacket {
    /// Makes a packet of objects that wait nowhere else.
    pub(crate) fn new(objects: &[ObjectAddress]) -> Self {
        WorkPacket(objects.to_vec())
    }

    pub(crate) fn objects(&self) -> &[ObjectAddress] {
        &self.0
    }
}

/// What the markers of one parallel mark share.
pub(crate) struct ParallelMark {
    packets: Injector<WorkPacket>,
    /// See the invariant. Relaxed: what counts is the order of this counter's own changes. A packet
    /// is counted before it is uncounted, because it passes through the list in between.
    outstanding: Line<AtomicUsize>,
    /// Markers that have nothing to trace. Relaxed: it hurries the others, and no more.
    idle: Line<AtomicUsize>,
    /// Trace glue has panicked: all markers leave. Relaxed: it hurries the others, and no more.
    aborted: Line<AtomicBool>,
    /// The first payload that it has thrown, if not on the thread that collects.
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Keeps what several threads write apart from its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

impl ParallelMark {
    /// Traces the packets' objects, which are marked, and all that they lead to. It uses this
    /// thread, with `marker`, and helpers: one per packet at most. No helper is left when it
    /// returns.
    ///
    /// # Panics
    ///
    /// If trace glue does, on any of the threads.
    pub(crate) fn run(packets: Vec<WorkPacket>, marker: &mut Marker, helpers: &Helpers<'_>) {
        let parallel = Arc::new(ParallelMark {
            packets: Injector::new(),
            outstanding: Line::default(),
            idle: Line::default(),
            aborted: Line::default(),
            payload: Mutex::new(None),
        });
        let most = packets.len();
        packets.into_iter().for_each(|packet| parallel.give(packet));
        helpers.with(parallel.clone(), most, || parallel.work(marker));
        let payload = parallel.payload.lock().take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    fn work(&self, marker: &mut Marker) {
        let on_unwind = AbortOnUnwind(self);
        while let Some(packet) = self.next() {
            marker.trace_packet(&packet, self);
            self.outstanding.0.fetch_sub(1, Relaxed);
        }
        std::mem::forget(on_unwind);
    }

    /// Gives the next packet, as soon as there is one; `None` when there will be none any more.
    fn next(&self) -> Option<WorkPacket> {
        if let Some(packet) = self.take() {
            return Some(packet);
        }
        self.idle.0.fetch_add(1, Relaxed);
        let next = loop {
            if let Some(packet) = self.take() {
                break Some(packet);
            }
            if self.is_done() || self.is_aborted() {
                break None;
            }
            // Others are tracing; this lasts as long as a mark at most.
            thread::yield_now();
        };
        self.idle.0.fetch_sub(1, Relaxed);
        next
    }

    fn take(&self) -> Option<WorkPacket> {
        loop {
            match self.packets.steal() {
                Steal::Success(packet) => return Some(packet),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    /// Gives a packet to a marker that has nothing to trace. Called by markers that have a packet.
    pub(crate) fn give(&self, packet: WorkPacket) {
        self.outstanding.0.fetch_add(1, Relaxed);
        self.packets.push(packet);
    }

    /// Tells whether a marker has nothing to trace, and nothing to take. A guess.
    #[inline]
    pub(crate) fn is_any_idle(&self) -> bool {
        self.idle.0.load(Relaxed) > 0 && self.packets.is_empty()
    }

    /// Tells whether nothing waits any more, and so never will.
    fn is_done(&self) -> bool {
        self.outstanding.0.load(Relaxed) == 0
    }

    /// Tells whether trace glue has panicked somewhere.
    #[inline]
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.0.load(Relaxed)
    }
}

impl Job for ParallelMark {
    fn help(&self) {
        let mut marker = Marker::new(Strategy::Parallel);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.work(&mut marker))) {
            // One panic comes through; the others must not end in a second one while they are
            // dropped.
            let mut first = self.payload.lock();
            let surplus = if first.is_none() { first.replace(payload) } else { Some(payload) };
            drop(first);
            surplus.into_iter().for_each(drop_quietly);
        }
    }

    fn is_over(&self) -> bool {
        self.is_done() || self.is_aborted()
    }
}

impl Drop for ParallelMark {
    /// Drops what a helper has thrown. It is still here if the collecting thread unwinds, which
    /// must not panic again.
    fn drop(&mut self) {
        let payload = self.payload.lock().take();
        payload.into_iter().for_each(drop_quietly);
    }
}

/// Tells the others when a marker unwinds.
struct AbortOnUnwind<'a>(&'a ParallelMark);

impl Drop for AbortOnUnwind<'_> {
    fn drop(&mut self) {
        self.0.aborted.0.store(true, Relaxed);
    }
}
