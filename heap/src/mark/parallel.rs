//! Marking by several threads: what one marker has too much of, others take.
//!
//! A heap's own thread begins alone (`mark.rs`). When so many objects wait that others are worth
//! their start, it puts them into *packets*, in a list that all share, and helpers (`help.rs`) join
//! it for the rest of the mark: a *parallel*. A member works on a packet as on any wide graph, but
//! for the mark bits, which it sets by read-modify-write; when others have nothing to do, it gives
//! them a packet of what has waited longest, which is likely to lead to most.
//!
//! Invariant: an object that waits is in one member's work list, or in one packet. Each of
//! `outstanding` stands for a packet that is in the list, or that a member has taken and not worked
//! off with all it has led to, but for what that member gave away. A packet's token is made before
//! the packet can be taken; so when there is no token, nothing waits, and nobody is there to find
//! more.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use crossbeam_deque::{Injector, Steal};
use sexton_cleanup::drop_quietly;
use sexton_cleanup::sync::Mutex;

use crate::memory::address::ObjectAddress;
use crate::memory::mark_stack::Marker;
use crate::safepoint::helpers::{Helpers, Job};

/// Objects in a packet: some microseconds of work at least.
pub(crate) const PACKET: usize = 512;

/// Marked objects that wait to be traced, by whoever takes them.
///
/// Each waits in one place only, so one thread traces it. `Trace` says that it may be another
/// thread than the heap's, which is inside the cycle until all members have left.
pub(crate) struct WorkPacket(Vec<ObjectAddress>);

impl WorkPacket {
    /// Of objects that wait nowhere else.
    pub(crate) fn new(objects: &[ObjectAddress]) -> Self {
        WorkPacket(objects.to_vec())
    }

    pub(crate) fn objects(&self) -> &[ObjectAddress] {
        &self.0
    }
}

/// What the members of one parallel share.
pub(crate) struct ParallelMark {
    packets: Injector<WorkPacket>,
    /// See the invariant. Relaxed: what counts is the order of this counter's own changes, in which
    /// a token is made before it is given up, because its packet passes through the list in
    /// between.
    outstanding: Line<AtomicUsize>,
    /// Members that have nothing to trace. Relaxed: it hurries the others, and no more.
    idle: Line<AtomicUsize>,
    /// Trace glue has panicked: everybody leaves. Relaxed: it hurries the others, and no more.
    aborted: Line<AtomicBool>,
    /// What it has thrown first, if not on the heap's own thread.
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Keeps what several threads write apart from its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

impl ParallelMark {
    /// Traces the objects, which are marked, and all that they lead to, on this thread with
    /// `marker` and on those of helpers: one per packet at most, and none any more once all is
    /// traced.
    ///
    /// # Panics
    ///
    /// If trace glue does, on whichever thread.
    pub(crate) fn run(waiting: &[ObjectAddress], marker: &mut Marker, helpers: &Helpers<'_>) {
        let parallel = Arc::new(ParallelMark {
            packets: Injector::new(),
            outstanding: Line::default(),
            idle: Line::default(),
            aborted: Line::default(),
            payload: Mutex::new(None),
        });
        waiting.chunks(PACKET).for_each(|objects| parallel.give(WorkPacket::new(objects)));
        helpers.with(parallel.clone(), waiting.len() / PACKET, || parallel.work(marker));
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

    /// The next packet, as soon as there is one; `None` when there will be none any more.
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

    /// Gives a packet to whoever has nothing to trace. Called by members that hold a token.
    pub(crate) fn give(&self, packet: WorkPacket) {
        self.outstanding.0.fetch_add(1, Relaxed);
        self.packets.push(packet);
    }

    /// Whether somebody has nothing to trace, and nothing to take. A guess.
    #[inline]
    pub(crate) fn is_any_idle(&self) -> bool {
        self.idle.0.load(Relaxed) > 0 && self.packets.is_empty()
    }

    /// Whether nothing waits any more, and so never will.
    fn is_done(&self) -> bool {
        self.outstanding.0.load(Relaxed) == 0
    }

    /// Whether trace glue has panicked somewhere.
    #[inline]
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.0.load(Relaxed)
    }
}

impl Job for ParallelMark {
    fn help(&self) {
        let mut marker = Marker::new();
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
    /// What a helper has thrown is still here if the heap's own thread unwinds, which must not
    /// panic again.
    fn drop(&mut self) {
        let payload = self.payload.lock().take();
        payload.into_iter().for_each(drop_quietly);
    }
}

/// Tells the others when a member unwinds.
struct AbortOnUnwind<'a>(&'a ParallelMark);

impl Drop for AbortOnUnwind<'_> {
    fn drop(&mut self) {
        self.0.aborted.0.store(true, Relaxed);
    }
}
