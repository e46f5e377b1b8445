//! Sweep: what mark left unmarked dies.
//!
//! For a span of plain objects that is a pass over bitmap words: `alloc := mark`, `mark := 0`, and
//! a popcount. No object is touched, and the old `alloc` bits are not even read. Only where
//! something must happen are dead slots walked one by one: those with cleanups, and those of types
//! with drop glue.
//!
//! The order within a span is fixed (weak records were cleared before any span is swept):
//!
//! 1. the cleanup chains of dead objects are taken, and queued in the sweeper's local block;
//! 2. drop glue runs; a panic in it is caught and counted, and the sweep goes on. Live objects of
//!    types with drop glue are asked what they own outside the heap;
//! 3. the slots are published as free.
//!
//! A [`Sweeper`] keeps all it changes to itself but for the span it is handed. So several can sweep
//! the spans of one heap side by side, as in `parallel.rs`. They share only spans in which
//! something must happen: a plain span is swept in less time than it takes to hand it over. Drop
//! glue runs on their threads, so only in heaps whose payloads are `Send`.

use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;

use sexton_cleanup::{Head, LocalBlock};

use sexton_sync::drop_quietly;

use crate::memory::address::ObjectAddress;
use crate::memory::bitmap;
use crate::memory::locking::Locking;
use crate::memory::look;
use crate::memory::space::{Swept, Usage};
use crate::memory::span::{Span, SpanRef};

/// A span with fewer live objects than this part of its slots is hardly used.
const HARDLY: usize = 4;

/// How far the drop of a span's dead objects has come.
pub(crate) struct Drops {
    span: SpanRef,
    /// The first bitmap word whose dead objects are not dropped.
    word: usize,
}

impl Drops {
    /// None of them are dropped.
    pub(crate) fn of(span: SpanRef) -> Self {
        Drops { span, word: 0 }
    }
}

/// One sweeper's output.
pub(crate) struct Sweeper {
    local: LocalBlock,
    poison: bool,
    stats: SweepStats,
    /// The chains of a span's dead objects. Kept, as the room is needed again.
    heads: Vec<Head>,
    /// The last span had such chains.
    has_queued: bool,
    /// Live objects with a lock that a session had, so that the bytes behind it were not seen.
    blocked: Vec<ObjectAddress>,
}

/// The most objects that are looked at again.
const MOST_BLOCKED: usize = 1024;

/// What a sweep found.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct SweepStats {
    /// What is in use after the sweep.
    pub(crate) live: Usage,
    pub(crate) dropped_objects: u64,
    pub(crate) drop_panics: u64,
    pub(crate) spans: u64,
    pub(crate) emptied_spans: u64,
    /// Bytes that live objects own outside the heap.
    pub(crate) external_bytes: u64,
}

impl SweepStats {
    pub(crate) fn plus(self, other: SweepStats) -> SweepStats {
        SweepStats {
            live: self.live.plus(other.live),
            dropped_objects: self.dropped_objects + other.dropped_objects,
            drop_panics: self.drop_panics + other.drop_panics,
            spans: self.spans + other.spans,
            emptied_spans: self.emptied_spans + other.emptied_spans,
            external_bytes: self.external_bytes.saturating_add(other.external_bytes),
        }
    }
}

/// Calls `sweep`, and ends the process if it panics.
///
/// Spans that were not swept keep their marks, which the next cycle would take for its own. No
/// panic is expected here: those of drop glue and of hooks are caught where they come from.
pub(crate) fn or_abort<T>(sweep: impl FnOnce() -> T) -> T {
    struct Unfinished;

    impl Drop for Unfinished {
        fn drop(&mut self) {
            std::process::abort();
        }
    }

    let unfinished = Unfinished;
    let swept = sweep();
    mem::forget(unfinished);
    swept
}

impl Sweeper {
    /// Tells whether something must happen in a span, beyond its bitmaps.
    pub(crate) fn is_busy_with<M: Locking>(span: SpanRef) -> bool {
        let _held = span.hold_specials::<M>();
        span.info().needs_drop || !span.cleanups().borrow().is_empty()
    }

    /// Makes a sweeper that queues into `local` and, if `poison`, overwrites dead objects.
    pub(crate) fn new(local: LocalBlock, poison: bool) -> Self {
        let stats = SweepStats::default();
        let (heads, blocked) = (Vec::new(), Vec::new());
        Sweeper { local, poison, stats, heads, has_queued: false, blocked }
    }

    /// Tells what it has found so far.
    pub(crate) fn stats(&self) -> SweepStats {
        self.stats
    }

    /// Takes the objects that have to be looked at again.
    pub(crate) fn take_blocked(&mut self) -> Vec<ObjectAddress> {
        mem::take(&mut self.blocked)
    }

    /// Gives the local block, for the flush.
    pub(crate) fn into_local_block(self) -> LocalBlock {
        self.local
    }

    /// Tells whether the last span had cleanups to be queued.
    pub(crate) fn has_queued(&self) -> bool {
        self.has_queued
    }

    /// Sweeps one span whose mark bits are final.
    pub(crate) fn sweep<M: Locking>(&mut self, span: SpanRef) -> Swept {
        self.begin::<M>(span);
        let mut drops = Drops::of(span);
        self.drop_some(&mut drops, usize::MAX);
        self.end(span)
    }

    /// Begins to sweep a span: queues the cleanups of its dead objects. It goes on with
    /// [`drop_some`](Self::drop_some), if something is to be dropped, and ends with
    /// [`end`](Self::end).
    pub(crate) fn begin<M: Locking>(&mut self, span: SpanRef) {
        // Relaxed: the markers are done. They were joined before the sweep, or it was begun while
        // no session was open.
        let is_live = |index: usize| span.mark_bits()[index].load(Relaxed);
        // A session beside the sweep may register a cleanup of a live object.
        let held = span.hold_specials::<M>();
        let mut cleanups = span.cleanups().borrow_mut();
        if !cleanups.is_empty() {
            let heads = &mut self.heads;
            cleanups.retain_words(span.special_bits(), is_live, |head| heads.push(head));
        }
        drop(cleanups);
        drop(held);
        self.has_queued = !self.heads.is_empty();
        // Nothing is held any more: a block that gets full is published, which may call the pool's
        // hooks.
        self.heads.drain(..).for_each(|head| self.local.push(head));
    }

    /// Ends the sweep of a span whose dead objects are dropped.
    pub(crate) fn end(&mut self, span: SpanRef) -> Swept {
        let live = free_unmarked(&span);
        self.count(&span, live);
        match live {
            0 => Swept::Empty,
            live if live == span.slots() => Swept::Full,
            live if live < span.slots() / HARDLY => Swept::HardlyUsed,
            _ => Swept::Partial,
        }
    }

    /// Drops, and in zeal mode overwrites, the dead objects of at most `words` bitmap words. Tells
    /// whether none is left.
    ///
    /// The slots of a word are freed before its objects are dropped. So no object is dropped twice,
    /// whatever its `Drop` does.
    pub(crate) fn drop_some(&mut self, drops: &mut Drops, words: usize) -> bool {
        let span = drops.span;
        let needs_drop = span.info().needs_drop;
        if !needs_drop && !self.poison {
            return true;
        }
        for _ in 0..words {
            let Some(alloc) = span.alloc_bits().get(drops.word) else { return true };
            let live = span.mark_bits()[drops.word].load(Relaxed);
            let dead = alloc.get() & !live;
            alloc.set(alloc.get() & live);
            if needs_drop && dead != 0 {
                self.drop_dead(&span, drops.word, dead);
            }
            if needs_drop && live != 0 {
                self.look_at_live(&span, drops.word, live);
            }
            if self.poison {
                poison_dead(&span, drops.word, dead);
            }
            drops.word += 1;
        }
        drops.word == span.words()
    }

    fn drop_dead(&mut self, span: &Span, word: usize, dead: u64) {
        let drop = span.info().drop;
        self.stats.dropped_objects += u64::from(dead.count_ones());
        let mut dead = bitmap::ones_of(word, dead);
        loop {
            // One catch for many objects: after a panic the walk goes on behind the culprit.
            let walked = catch_unwind(AssertUnwindSafe(|| {
                for slot in dead.by_ref() {
                    // SAFETY: the slot was allocated and unmarked, so it holds a dead object of the
                    // span's type. It is free from here on, so it is not dropped again.
                    unsafe { drop(span.object_at(slot)) };
                }
            }));
            match walked {
                Ok(()) => break,
                Err(payload) => {
                    self.stats.drop_panics += 1;
                    drop_quietly(payload);
                }
            }
        }
    }

    /// Sums up what live objects own outside the heap.
    fn look_at_live(&mut self, span: &Span, word: usize, live: u64) {
        for slot in bitmap::ones_of(word, live) {
            let object = ObjectAddress(span.object_at(slot));
            // SAFETY: the object is marked, so it is alive until the next sweep.
            let (bytes, is_blocked) = unsafe { look_at(object) };
            let sum = &mut self.stats.external_bytes;
            *sum = sum.saturating_add(bytes);
            if is_blocked && self.blocked.len() < MOST_BLOCKED {
                self.blocked.push(object);
            }
        }
    }

    fn count(&mut self, span: &Span, live: usize) {
        let stats = &mut self.stats;
        stats.spans += 1;
        stats.emptied_spans += u64::from(live == 0);
        stats.live.add(live, span.info());
    }
}

/// Tells what an object owns outside the heap, and whether something could not be seen.
///
/// # Safety
///
/// The object is alive. No other thread looks at it on behalf of a sweep, and none marks.
pub(crate) unsafe fn look_at(object: ObjectAddress) -> (u64, bool) {
    let glue = SpanRef::containing(object.0).info().external_bytes;
    // SAFETY: the object is alive, and of its span's type.
    let (bytes, is_blocked) = look::by_sweep(|| unsafe { glue(object.0) });
    (bytes as u64, is_blocked)
}

/// `alloc := mark`, `mark := 0`; how many slots stay.
fn free_unmarked(span: &Span) -> usize {
    span.looked_at();
    // SAFETY: the markers are done, and were joined before the sweep; a span has one sweeper; while
    // spans are swept no session marks, and none allocates from one that is not sorted.
    let mark = unsafe { span.final_marks() };
    let alloc = span.alloc_bits();
    debug_assert!(
        mark.iter().zip(alloc).all(|(mark, alloc)| mark.get() & !alloc.get() == 0),
        "a free slot was marked"
    );
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vpopcntdq")
        && is_x86_feature_detected!("popcnt")
    {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { replace_with_avx512(alloc, mark) };
    } else if is_x86_feature_detected!("popcnt") && is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        return unsafe { replace_with_popcnt(alloc, mark) };
    }
    bitmap::replace(alloc, mark)
}

/// [`bitmap::replace`] for processors that count the bits of eight words at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq,popcnt")]
fn replace_with_avx512(to: &[Cell<u64>], from: &[Cell<u64>]) -> usize {
    bitmap::replace(to, from)
}

/// [`bitmap::replace`] for processors that count the bits of a word. It is ten times faster than
/// shifts and masks, which the target's baseline uses.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,avx2")]
fn replace_with_popcnt(to: &[Cell<u64>], from: &[Cell<u64>]) -> usize {
    bitmap::replace(to, from)
}

/// Zeal: a stale pointer to a dead object leads to rubbish.
fn poison_dead(span: &Span, word: usize, dead: u64) {
    for slot in bitmap::ones_of(word, dead) {
        // SAFETY: the slot's object is dead and dropped, and is not read again; the slot has that
        // many bytes.
        unsafe { span.object_at(slot).write_bytes(POISON, span.info().slot_bytes) };
    }
}

const POISON: u8 = 0xDB;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Of the functions for this processor and for lesser ones, a sweep calls one; so each is
    /// called here.
    #[test]
    fn marks_replace_allocation_bits_in_the_same_way_on_every_processor() {
        let from = || [0, 1, u64::MAX, 0x0123_4567_89ab_cdef, 1 << 63, 0, 7, 0, 5].map(Cell::new);
        type Way = fn(&[Cell<u64>], &[Cell<u64>]) -> usize;
        let mut ways: Vec<Way> = vec![bitmap::replace];
        if is_x86_feature_detected!("popcnt") && is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            ways.push(|to, from| unsafe { replace_with_popcnt(to, from) });
        }
        if is_x86_feature_detected!("avx512vpopcntdq") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: as above.
            ways.push(|to, from| unsafe { replace_with_avx512(to, from) });
        }
        for way in ways {
            let (to, from, expected) = (from(), from(), from());
            to.iter().for_each(|word| word.set(!word.get()));
            assert_eq!(way(&to, &from), 1 + 64 + 32 + 1 + 3 + 2);
            assert_eq!((to, from), (expected, [const { Cell::new(0) }; 9]));
        }
    }
}
