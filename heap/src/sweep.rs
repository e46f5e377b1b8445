//! Sweep: what mark left unmarked dies.
//!
//! For a span of plain objects that is a pass over bitmap words: `alloc := mark`, `mark := 0`, and a
//! popcount; no object is touched. Only where something must happen are dead slots walked one by one:
//! those with cleanups, and those of types with drop glue.
//!
//! The order within a span is fixed (weak records were cleared before any span is swept):
//!
//! 1. the cleanup chains of dead objects are queued in the sweeper's local block;
//! 2. drop glue runs; a panic in it is caught and counted, and the sweep goes on;
//! 3. the slots are published as free.
//!
//! A [`Sweeper`] keeps all it changes to itself but for the span it is handed, so several can sweep
//! the spans of one heap side by side.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;

use sexton_cleanup::LocalBlock;

use crate::bitmap;
use crate::space::{Swept, Usage};
use crate::span::{Span, SpanRef};

/// One sweeper's output.
pub(crate) struct Sweeper {
    local: LocalBlock,
    poison: bool,
    tally: Tally,
}

/// What a sweep found.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    /// What is in use after the sweep.
    pub(crate) live: Usage,
    /// What was in use before and is not any more.
    pub(crate) swept: Usage,
    pub(crate) dropped_objects: u64,
    pub(crate) drop_panics: u64,
    pub(crate) spans: u64,
    pub(crate) emptied_spans: u64,
}

impl Sweeper {
    /// A sweeper that queues into `local` and, if `poison`, overwrites dead objects.
    pub(crate) fn new(local: LocalBlock, poison: bool) -> Self {
        Sweeper { local, poison, tally: Tally::default() }
    }

    /// The local block, for the flush, and the tally.
    pub(crate) fn finish(self) -> (LocalBlock, Tally) {
        (self.local, self.tally)
    }

    /// Sweeps one span whose mark bits are final.
    pub(crate) fn sweep(&mut self, span: SpanRef) -> Swept {
        if !span.cleanups().borrow().is_empty() {
            self.queue_cleanups(&span);
        }
        if span.info().needs_drop {
            self.drop_dead(&span);
        }
        if self.poison {
            poison_dead(&span);
        }
        let (live, dead) = publish(&span);
        self.count(&span, live, dead);
        match live as usize {
            0 => Swept::Empty,
            live if live == span.slots() => Swept::Full,
            _ => Swept::Partial,
        }
    }

    fn queue_cleanups(&mut self, span: &Span) {
        let local = &mut self.local;
        // Queueing runs no user code, so holding the table is harmless.
        span.cleanups().borrow_mut().retain_map(span.special_bits(), |slot, head| {
            if span.is_marked(slot) {
                return Some(head);
            }
            local.push(head);
            None
        });
    }

    fn drop_dead(&mut self, span: &Span) {
        let drop = span.info().drop;
        let mut dead = span.alloc_bits().iter().zip(span.mark_bits()).enumerate().flat_map(
            |(index, (alloc, mark))| bitmap::ones_of(index, alloc.get() & !mark.load(Relaxed)),
        );
        let mut dropped = 0;
        loop {
            // One catch for many objects: after a panic the walk goes on behind the culprit.
            let walked = catch_unwind(AssertUnwindSafe(|| {
                for slot in dead.by_ref() {
                    dropped += 1;
                    // SAFETY: the slot is allocated and unmarked, so it holds a dead object of the
                    // span's type, and the iterator yields it once.
                    unsafe { drop(span.object_at(slot)) };
                }
            }));
            match walked {
                Ok(()) => break,
                Err(payload) => {
                    self.tally.drop_panics += 1;
                    dispose_of_panic(payload);
                }
            }
        }
        self.tally.dropped_objects += dropped;
    }

    fn count(&mut self, span: &Span, live: u32, dead: u32) {
        let info = span.info();
        let tally = &mut self.tally;
        tally.spans += 1;
        tally.emptied_spans += u64::from(live == 0);
        tally.live.add(live as usize, info);
        tally.swept.add(dead as usize, info);
    }
}

/// `alloc := mark`, `mark := 0`; how many slots stay and how many go.
fn publish(span: &Span) -> (u32, u32) {
    let mut live = 0;
    let mut allocated = 0;
    for (alloc, mark) in span.alloc_bits().iter().zip(span.mark_bits()) {
        // Relaxed: the markers are done, and were joined before the sweep.
        let marked = mark.load(Relaxed);
        debug_assert_eq!(marked & !alloc.get(), 0, "a free slot was marked");
        live += marked.count_ones();
        allocated += alloc.get().count_ones();
        alloc.set(marked);
        mark.store(0, Relaxed);
    }
    (live, allocated - live)
}

/// Zeal: whoever still follows a pointer to a dead object finds rubbish.
fn poison_dead(span: &Span) {
    for (index, (alloc, mark)) in span.alloc_bits().iter().zip(span.mark_bits()).enumerate() {
        for slot in bitmap::ones_of(index, alloc.get() & !mark.load(Relaxed)) {
            // SAFETY: the slot's object is dead and dropped; nobody reads it again, and the slot has
            // that many bytes.
            unsafe { span.object_at(slot).write_bytes(POISON, span.info().slot_bytes) };
        }
    }
}

const POISON: u8 = 0xDB;

/// Drops a panic's payload, which may panic in turn.
pub(crate) fn dispose_of_panic(payload: Box<dyn std::any::Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
