//! Marking by several threads: what one marker has too much of, others take.
//!
//! A heap's own thread begins alone (`mark.rs`). When so many objects wait that others are worth their start, it puts them
//! into *chunks*, in a list that all share, and helpers (`help.rs`) join it for the rest of the mark: a *gang*. A member works on a chunk as on any
//! wide graph, but for the mark bits, which it sets by read-modify-write; when others have nothing to do, it gives them a chunk of
//! what has waited longest, which is likely to lead to most.
//!
//! Invariant: an object that waits is in one member's work list, or in one chunk. Each of `tokens` stands for a chunk that is in the
//! list, or that a member has taken and not worked off with all it has led to, but for what that member gave away. A chunk's token is made
//! before the chunk can be taken; so when there is no token, nothing waits, and nobody is there to find more.

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

/// Objects in a chunk: some microseconds of work at least.
pub(crate) const CHUNK: usize = 512;

/// Marked objects that wait to be traced, by whoever takes them.
///
/// Each waits in one place only, so one thread traces it. `Trace` says that it may be another thread
/// than the heap's, which is inside the cycle until all members have left.
pub(crate) struct Chunk(Vec<ObjectAddress>);

impl Chunk {
    /// Of objects that wait nowhere else.
    pub(crate) fn new(objects: &[ObjectAddress]) -> Self {
        Chunk(objects.to_vec())
    }

    pub(crate) fn objects(&self) -> &[ObjectAddress] {
        &self.0
    }
}

/// What the members of one gang share.
pub(crate) struct Gang {
    chunks: Injector<Chunk>,
    /// See the invariant. Relaxed: what counts is the order of this counter's own changes, in which a token is made before it is given
    /// up, because its chunk passes through the list in between.
    tokens: Line<AtomicUsize>,
    /// Members that have nothing to trace. Relaxed: it hurries the others, and no more.
    hungry: Line<AtomicUsize>,
    /// Trace glue has panicked: everybody leaves. Relaxed: it hurries the others, and no more.
    broken: Line<AtomicBool>,
    /// What it has thrown first, if not on the heap's own thread.
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Keeps what several threads write apart from its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

impl Gang {
    /// Traces the objects, which are marked, and all that they lead to, on this thread with `marker` and on those of helpers:
    /// one per chunk at most, and none any more once all is traced.
    ///
    /// # Panics
    ///
    /// If trace glue does, on whichever thread.
    pub(crate) fn mark(waiting: &[ObjectAddress], marker: &mut Marker, helpers: &Helpers<'_>) {
        let gang = Arc::new(Gang {
            chunks: Injector::new(),
            tokens: Line::default(),
            hungry: Line::default(),
            broken: Line::default(),
            payload: Mutex::new(None),
        });
        waiting.chunks(CHUNK).for_each(|objects| gang.give(Chunk::new(objects)));
        helpers.with(gang.clone(), waiting.len() / CHUNK, || gang.work(marker));
        let payload = gang.payload.lock().take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    fn work(&self, marker: &mut Marker) {
        let on_unwind = BreakOnUnwind(self);
        while let Some(chunk) = self.next() {
            marker.trace_chunk(&chunk, self);
            self.tokens.0.fetch_sub(1, Relaxed);
        }
        std::mem::forget(on_unwind);
    }

    /// The next chunk, as soon as there is one; `None` when there will be none any more.
    fn next(&self) -> Option<Chunk> {
        if let Some(chunk) = self.take() {
            return Some(chunk);
        }
        self.hungry.0.fetch_add(1, Relaxed);
        let next = loop {
            if let Some(chunk) = self.take() {
                break Some(chunk);
            }
            if self.is_done() || self.is_broken() {
                break None;
            }
            // Others are tracing; this lasts as long as a mark at most.
            thread::yield_now();
        };
        self.hungry.0.fetch_sub(1, Relaxed);
        next
    }

    fn take(&self) -> Option<Chunk> {
        loop {
            match self.chunks.steal() {
                Steal::Success(chunk) => return Some(chunk),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    /// Gives a chunk to whoever has nothing to trace. Called by members that hold a token.
    pub(crate) fn give(&self, chunk: Chunk) {
        self.tokens.0.fetch_add(1, Relaxed);
        self.chunks.push(chunk);
    }

    /// Whether somebody has nothing to trace, and nothing to take. A guess.
    #[inline]
    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.0.load(Relaxed) > 0 && self.chunks.is_empty()
    }

    /// Whether nothing waits any more, and so never will.
    fn is_done(&self) -> bool {
        self.tokens.0.load(Relaxed) == 0
    }

    /// Whether trace glue has panicked somewhere.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.0.load(Relaxed)
    }
}

impl Job for Gang {
    fn help(&self) {
        let mut marker = Marker::new();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.work(&mut marker))) {
            // One panic comes through; the others must not end in a second one while they are dropped.
            let mut first = self.payload.lock();
            let surplus = if first.is_none() { first.replace(payload) } else { Some(payload) };
            drop(first);
            surplus.into_iter().for_each(drop_quietly);
        }
    }

    fn is_over(&self) -> bool {
        self.is_done() || self.is_broken()
    }
}

impl Drop for Gang {
    /// What a helper has thrown is still here if the heap's own thread unwinds, which must not panic again.
    fn drop(&mut self) {
        let payload = self.payload.lock().take();
        payload.into_iter().for_each(drop_quietly);
    }
}

/// Tells the others when a member unwinds.
struct BreakOnUnwind<'a>(&'a Gang);

impl Drop for BreakOnUnwind<'_> {
    fn drop(&mut self) {
        self.0.broken.0.store(true, Relaxed);
    }
}
