//! Tests that need the heap's insides: the checker finds planted faults, and runs find every free
//! slot.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Arc, Barrier, LazyLock};
use std::{env, mem, thread};

use sexton_cleanup::{Client, Pool, PoolConfig};

use crate::collect::heap::RawHeap;
use crate::memory::allocator::{Allocator, ENTRIES};
use crate::memory::bitmap;
use crate::memory::layout::{DENSE_WORDS, MIN_SLOT_BYTES, SPAN_BYTES};
use crate::memory::region::Region;
use crate::memory::space::{AllocError, CommonSpace, Space, Swept};
use crate::memory::span::{Span, SpanRef};
use crate::memory::type_info::TypeInfo;
use crate::object::glue;
use crate::policy::config::HeapConfig;
use crate::policy::pacer::Pacing;
use crate::{Gc, GcMutex, GcRefCell, Leaf, Local, Shared};

type Family = GcRefCell<Vec<Gc<'static, Leaf<u64>>>>;
type TestHeap = RawHeap<Family>;
type SharedFamily = GcMutex<Vec<Gc<'static, Leaf<u64>>>>;
type TestSharedHeap = RawHeap<SharedFamily, Shared>;

/// Makes a heap of 100 live objects among 300.
fn heap() -> TestHeap {
    let pool = Pool::new(PoolConfig::default(), None);
    let config = HeapConfig { pacing: Pacing::Manual, zeal: false, ..HeapConfig::default() };
    let mut heap: TestHeap = RawHeap::new(Client::new(&pool), config, |_| GcRefCell::default());
    heap.mutate(|mc, root| {
        for value in 0..300 {
            let leaf = mc.alloc(Leaf::new(value));
            if value % 3 == 0 {
                root.borrow_mut(mc).push(leaf);
            }
        }
    });
    heap.collect();
    heap.verify().expect("nothing is wrong yet");
    heap
}

fn shared_heap(pacing: Pacing) -> TestSharedHeap {
    let pool = Pool::new(PoolConfig::default(), None);
    let config = HeapConfig {
        pacing,
        zeal: false,
        gc_threads: Some(2),
        spawn_helper: Some(Arc::new(|_, body| thread::Builder::new().spawn(body).map(drop))),
        ..HeapConfig::default()
    };
    RawHeap::new(Client::new(&pool), config, |_| GcMutex::default())
}

/// Plants a fault, which must be undone by `undo`, and returns what the checker says.
fn complaint(
    heap: &mut TestHeap,
    fault: impl FnOnce(SpanRef),
    undo: impl FnOnce(SpanRef),
) -> String {
    let span = first_span(heap);
    fault(span);
    let error = heap.verify().expect_err("the checker must see the fault");
    undo(span);
    heap.verify().expect("the fault was undone");
    error.to_string()
}

#[test]
fn the_checker_sees_a_reachable_object_that_is_not_allocated() {
    let complaint = complaint(
        &mut heap(),
        |span| bitmap::clear_range(span.alloc_bits(), 3, 4),
        |span| bitmap::set(span.alloc_bits(), 3),
    );
    assert!(complaint.contains("is not an allocated slot"), "{complaint}");
}

#[test]
fn the_checker_sees_a_mark_left_over() {
    let complaint =
        complaint(&mut heap(), |span| assert!(span.mark_of(5).set()), |span| span.clear_marks());
    assert!(complaint.contains("marks between cycles"), "{complaint}");
}

#[test]
fn the_checker_sees_a_special_bit_without_a_chain() {
    let complaint = complaint(
        &mut heap(),
        |span| bitmap::set(span.special_bits(), 3),
        |span| bitmap::clear_range(span.special_bits(), 3, 4),
    );
    assert!(complaint.contains("1 special bits for 0 cleanup chains"), "{complaint}");
}

#[test]
fn the_checker_sees_a_slot_that_is_counted_wrong() {
    let complaint = complaint(
        &mut heap(),
        |span| bitmap::set(span.alloc_bits(), 1),
        |span| bitmap::clear_range(span.alloc_bits(), 1, 2),
    );
    assert!(complaint.contains("usage is"), "{complaint}");
}

#[test]
fn the_checker_sees_a_span_that_no_allocation_would_find() {
    let heap = heap();
    let span = first_span(&heap);
    let taken =
        heap.core.space().with(|space| space.take_span(span.info(), false)).expect("it is partial");
    assert_eq!(taken, span);
    let error = heap.verify().expect_err("no list has the span");
    assert!(error.to_string().contains("no allocation would find"), "{error}");
    heap.core.space().with(|space| space.return_span(span));
    heap.verify().expect("the span is back");
}

#[test]
fn a_cycle_takes_stopped_records_out_of_the_chains_of_living_objects() {
    let mut heap = heap();
    heap.mutate(|mc, root| {
        let object = root.borrow()[0];
        let handles: Vec<_> = (0..5000).map(|_| mc.add_cleanup(object, || {})).collect();
        assert!(handles.iter().skip(1).all(|handle| handle.stop()));
    });
    assert_eq!(heap.core.context().registrar().borrow().ended_early(), 4999);
    heap.collect();
    assert_eq!(heap.core.context().registrar().borrow().ended_early(), 0);
    assert_eq!(heap.stats().cleanups.armed, 1);
    heap.verify().expect("the chain is whole");
}

#[test]
fn in_zeal_mode_dead_objects_are_overwritten_and_living_ones_are_not() {
    for zeal in [false, true] {
        let pool = Pool::new(PoolConfig::default(), None);
        let config = HeapConfig { pacing: Pacing::Manual, zeal, ..HeapConfig::default() };
        let mut heap: TestHeap = RawHeap::new(Client::new(&pool), config, |mc| {
            mc.alloc(Leaf::new(0x1111_u64));
            GcRefCell::new(vec![mc.alloc(Leaf::new(0x2222_u64))])
        });
        heap.collect();
        let span = first_span(&heap);
        #[expect(unsafe_code, reason = "to see what is in a dead slot")]
        let word = |slot| {
            // SAFETY: the span is open, so the slot's memory is mapped, and whatever is in it is a
            // number.
            unsafe { span.object_at(slot).cast::<u64>().read() }
        };
        let dead = if zeal { 0xDBDB_DBDB_DBDB_DBDB } else { 0x1111 };
        assert_eq!((word(0), word(1)), (dead, 0x2222));
    }
}

#[test]
fn in_zeal_mode_the_dead_are_overwritten_in_every_slot_of_a_span() {
    let slots = DENSE_WORDS * 64;
    for lives in [true, false] {
        let is_live = |slot: usize| slot.is_multiple_of(3) == lives;
        let pool = Pool::new(PoolConfig::default(), None);
        let config = HeapConfig { pacing: Pacing::Manual, zeal: true, ..HeapConfig::default() };
        let mut heap: TestHeap = RawHeap::new(Client::new(&pool), config, |_| GcRefCell::default());
        heap.mutate(|mc, root| {
            for slot in 0..slots {
                let leaf = mc.alloc(Leaf::new(slot as u64));
                if is_live(slot) {
                    root.borrow_mut(mc).push(leaf);
                }
            }
        });
        let span = first_span(&heap);
        heap.collect();
        for slot in 0..slots {
            #[expect(unsafe_code, reason = "to see what is in a dead slot")]
            // SAFETY: the span is open, so the slot's memory is mapped, and whatever is in it is a
            // number.
            let word = unsafe { span.object_at(slot).cast::<u64>().read() };
            let expected = if is_live(slot) { slot as u64 } else { 0xDBDB_DBDB_DBDB_DBDB };
            assert_eq!(word, expected, "slot {slot}");
        }
    }
}

#[test]
fn runs_hand_out_every_free_slot_once_and_no_other() {
    let info = glue::type_info::<Leaf<u64>>();
    let slots = DENSE_WORDS * 64;
    // Patterns of slots taken before: none, all but a few, alternating, and blocks across words.
    let patterns: [fn(usize) -> bool; 6] = [
        |_| false,
        |slot| !slot.is_multiple_of(1000),
        |slot| slot.is_multiple_of(2),
        |slot| slot / 100 % 2 == 0,
        |slot| slot / 64 % 3 == 1,
        |slot| (slot * 7919) % 10 < 9,
    ];
    for (number, taken) in patterns.into_iter().enumerate() {
        let space = CommonSpace::<Local>::new(u64::MAX, true);
        let mut allocator = Allocator::new();
        let span = space.with(|space| space.take_span(info, false)).expect("memory");
        (0..slots)
            .filter(|&slot| taken(slot))
            .for_each(|slot| bitmap::set(span.alloc_bits(), slot));
        space.with(|space| space.return_span(span));
        let mut handed_out = BTreeSet::new();
        let free = (0..slots).filter(|&slot| !taken(slot)).collect::<BTreeSet<_>>();
        while handed_out.len() < free.len() {
            let Some(slot) = allocator.take::<Leaf<u64>>(info) else {
                allocator.refill(&space, info).expect("memory");
                continue;
            };
            assert_eq!(SpanRef::containing(slot.cast()), span, "pattern {number}");
            assert!(handed_out.insert(span.slot_of(slot.cast())), "pattern {number}");
        }
        assert_eq!(handed_out, free, "pattern {number}");
        close(space, allocator);
    }
}

#[test]
fn the_byte_limit_cuts_a_run_short_and_lets_go_of_it_again() {
    let info = glue::type_info::<Leaf<u64>>();
    let space = CommonSpace::<Local>::new(1000, true);
    let mut allocator = Allocator::new();
    let mut count = 0;
    let refused = loop {
        match allocator.take::<Leaf<u64>>(info) {
            Some(_) => count += 1,
            None => match allocator.refill(&space, info) {
                Ok(()) => {}
                Err(why) => break why,
            },
        }
    };
    assert_eq!((count, refused), (1000 / 8, AllocError::Limit));
    assert_eq!(space.committed().bytes, 1000);
    close(space, allocator);
}

#[test]
fn the_byte_limit_holds_where_free_slots_lie_scattered() {
    let info = glue::type_info::<Leaf<u64>>();
    let space = CommonSpace::<Local>::new(1000, true);
    let mut allocator = Allocator::new();
    let span = space.with(|space| space.take_span(info, false)).expect("memory");
    (0..span.slots()).step_by(2).for_each(|slot| bitmap::set(span.alloc_bits(), slot));
    space.with(|space| space.return_span(span));
    let mut slots = BTreeSet::new();
    let refused = loop {
        match allocator.take::<Leaf<u64>>(info) {
            Some(slot) => assert!(slots.insert(span.slot_of(slot.cast()))),
            None => match allocator.refill(&space, info) {
                Ok(()) => {}
                Err(why) => break why,
            },
        }
    };
    assert_eq!((slots.len(), refused), (1000 / 8, AllocError::Limit));
    assert!(slots.iter().copied().eq((1..).step_by(2).take(1000 / 8)));
    close(space, allocator);
}

#[test]
fn after_a_cycle_only_spans_with_free_slots_are_listed_for_allocation() {
    let mut heap = heap();
    heap.mutate(|mc, root| {
        // More than a span can hold.
        let some = (0..9000).map(|value| mc.alloc(Leaf::new(value)));
        root.borrow_mut(mc).extend(some);
    });
    heap.collect();
    heap.core.space().with(|space| {
        let live = |span: &SpanRef| bitmap::ones(span.alloc_bits()).count();
        let is_full = |span: &SpanRef| live(span) == span.slots();
        let counts = space.spans().map(|span| (live(&span), span.slots())).collect::<Vec<_>>();
        assert_eq!(counts.iter().filter(|(live, slots)| live == slots).count(), 1, "{counts:?}");
        assert_eq!(space.partial().count(), counts.len() - 1, "{counts:?}");
        assert!(!space.partial().any(|span| is_full(&span)));
    });
}

#[test]
fn the_weak_records_of_a_span_go_with_the_last_one_and_the_checker_looks_at_them() {
    let mut heap = heap();
    let tables = |heap: &TestHeap| {
        let has_table = |span: &SpanRef| span.weaks().borrow().is_some();
        heap.core.space().with(|space| space.spans().filter(has_table).count())
    };
    heap.mutate(|mc, root| {
        let weak = mc.downgrade(root.borrow()[0]);
        assert!(weak.upgrade(mc).is_some());
    });
    assert_eq!(tables(&heap), 1);
    heap.mutate(|mc, root| _ = root.borrow_mut(mc).remove(0));
    // Its slot is freed behind its back.
    let complaint = complaint(
        &mut heap,
        |span| bitmap::clear_range(span.alloc_bits(), 0, 1),
        |span| bitmap::set(span.alloc_bits(), 0),
    );
    assert!(complaint.contains("a free slot has a weak record"), "{complaint}");
    heap.collect();
    assert_eq!(tables(&heap), 0);
}

#[test]
fn the_checker_sees_a_local_cleanup_of_a_free_slot() {
    let mut heap = heap();
    let object = heap.mutate(|mc, _| {
        let leaf = mc.alloc(Leaf::new(7));
        mc.add_cleanup_local(leaf, || {});
        leaf.as_address()
    });
    let span = SpanRef::containing(object);
    let slot = span.slot_of(object);
    let complaint = complaint(
        &mut heap,
        |_| bitmap::clear_range(span.alloc_bits(), slot, slot + 1),
        |_| bitmap::set(span.alloc_bits(), slot),
    );
    assert!(complaint.contains("1 local cleanups are armed for free slots"), "{complaint}");
}

#[test]
fn types_that_share_a_cache_entry_push_each_other_out_and_get_their_own_spans() {
    // The distance in memory between the first and the last is a multiple of the cache's size.
    static INFOS: LazyLock<Vec<TypeInfo>> = LazyLock::new(|| {
        let like = glue::type_info::<Leaf<u64>>();
        let other = glue::type_info::<Leaf<i64>>().type_id;
        let mut infos: Vec<_> = (0..ENTRIES).map(|_| TypeInfo { ..*like }).collect();
        infos.push(TypeInfo { type_id: other, ..*like });
        infos
    });
    let space = CommonSpace::<Local>::new(u64::MAX, true);
    let mut allocator = Allocator::new();
    let mut slots = BTreeSet::new();
    for round in 0..1000 {
        let info = &INFOS[if round % 3 == 0 { 0 } else { ENTRIES }];
        let slot = loop {
            match allocator.take::<Leaf<u64>>(info) {
                Some(slot) => break slot,
                None => allocator.refill(&space, info).expect("memory"),
            }
        };
        assert!(std::ptr::eq(SpanRef::containing(slot.cast()).info(), info), "round {round}");
        assert!(slots.insert(slot.addr()), "round {round}: a slot was handed out twice");
    }
    // One span each, given back at each change and taken again.
    assert_eq!(space.with(|space| space.spans().count()), 2);
    close(space, allocator);
}

#[test]
fn a_group_is_closed_when_all_of_its_spans_are_empty_and_listed_otherwise() {
    type Large = Leaf<[u64; 4097]>;
    let info = glue::type_info::<Large>();
    let units = info.group_units;
    assert!(units > 2);
    for (kept, backwards) in [None, Some(0), Some(1), Some(units - 1)]
        .into_iter()
        .flat_map(|kept| [(kept, false), (kept, true)])
    {
        let space = CommonSpace::<Local>::new(u64::MAX, true);
        let mut allocator = Allocator::new();
        let mut slots = BTreeSet::new();
        // A group, to its last slot.
        while space.with(|space| space.partial().count()) > 0 || slots.is_empty() {
            allocator.refill(&space, info).expect("memory");
            while let Some(slot) = allocator.take::<Large>(info) {
                assert!(slots.insert(slot.addr().get()));
            }
        }
        assert!(slots.iter().zip(slots.iter().skip(1)).all(|(one, next)| next - one == 8 * 4097));
        space.with(|space| {
            allocator.retire(space);
            space.unlist_spans();
            space.begin_pass();
            let mut passed: Vec<_> = std::iter::from_fn(|| space.next_of_pass()).collect();
            assert_eq!(passed.len(), units);
            let is_kept = |span: SpanRef| kept == Some(span.group_index());
            if backwards {
                passed.reverse();
            }
            let empty = units - usize::from(kept.is_some());
            for (number, passed) in passed.iter().enumerate() {
                assert_eq!(space.partial().count(), 0, "{kept:?}: a span is listed too early");
                assert_eq!(space.spans().count(), units, "{kept:?}: closed after {number}");
                if is_kept(passed.span) {
                    space.sort(*passed, Swept::Full);
                } else {
                    bitmap::clear_range(passed.span.alloc_bits(), 0, passed.span.slots());
                    space.sort(*passed, Swept::Empty);
                }
            }
            assert_eq!(space.emptied().count(), 0);
            let (open, listed) = if kept.is_some() { (units, empty) } else { (0, 0) };
            assert_eq!(
                (space.spans().count(), space.partial().count()),
                (open, listed),
                "{kept:?}"
            );
            assert!(space.regions().iter().all(|region| region.is_consistent()));
        });
        close(space, allocator);
    }
}

/// Only spans of one unit, and only the first of them, lie in regions of several heaps.
#[test]
fn a_heap_takes_single_units_of_shared_regions_and_maps_its_own_regions_for_the_rest() {
    type Alone = Leaf<[u64; 1024]>;
    type InGroup = Leaf<[u64; 4097]>;
    type Own = Leaf<[u64; 40_000]>;
    let infos =
        [glue::type_info::<InGroup>(), glue::type_info::<Own>(), glue::type_info::<Alone>()];
    assert_eq!(
        infos.map(|info| (info.group_units > 1, info.is_own())),
        [(true, false), (false, true), (false, false)]
    );
    let shared_units = |space: &Space| -> usize {
        space.regions().iter().filter(|region| region.is_shared()).map(Region::units).sum()
    };
    let spaces: [_; 2] = std::array::from_fn(|_| CommonSpace::<Local>::new(u64::MAX, true));
    let mut units = BTreeSet::new();
    let mut allocators: [_; 2] = std::array::from_fn(|_| Allocator::new());
    for (space, allocator) in spaces.iter().zip(&mut allocators) {
        let info = infos[2];
        for taken in 1..=40 {
            let span = space.with(|space| space.take_span(info, false)).expect("memory");
            assert!(units.insert(span.base()), "a unit of two spans");
            bitmap::set(span.alloc_bits(), 0);
            space.with(|space| {
                assert_eq!(shared_units(space), taken.min(16));
                assert!(space.regions().iter().all(|region| region.is_consistent()));
                assert!(
                    space.regions().iter().filter(|region| region.holds(span.base())).count() == 1
                );
            });
        }
        // Two units side by side are free, and yet of no use to a group.
        space.with(|space| {
            space.begin_pass();
            while let Some(passed) = space.next_of_pass() {
                bitmap::clear_range(passed.span.alloc_bits(), 0, passed.span.slots());
                space.sort(passed, Swept::Empty);
            }
            assert_eq!((space.spans().count(), shared_units(space)), (0, 16));
        });
        for info in &infos[..2] {
            allocator.refill(space, info).expect("memory");
            space.with(|space| {
                let shared = space.regions().iter().filter(|region| region.is_shared());
                assert!(shared.flat_map(Region::spans).next().is_none(), "a span of several units");
                allocator.retire(space);
            });
        }
    }
    for (space, allocator) in spaces.into_iter().zip(allocators) {
        close(space, allocator);
    }
}

/// Its part of a shared mapping counts, no more of it, and goes alone.
#[test]
fn a_heap_counts_its_units_of_shared_regions_and_gives_them_back() {
    let info = glue::type_info::<Leaf<[u64; 2]>>();
    let unit = SPAN_BYTES + size_of::<Span>();
    let [going, staying] = [(); 2].map(|()| CommonSpace::<Local>::new(u64::MAX, true));
    let [gone, spans] = [&going, &staying].map(|space| {
        let taken = (1..=3).map(|units| {
            let span = space.with(|space| space.take_span(info, false)).expect("memory");
            span.alloc_bits().iter().for_each(|word| word.set(u64::MAX));
            assert_eq!(space.mapped_bytes(), (units * unit) as u64);
            // What another heap has left there is in memory.
            assert!(space.resident_bytes() <= space.mapped_bytes());
            assert!(space.resident_bytes() >= (units * SPAN_BYTES) as u64);
            assert_eq!(space.metadata_bytes(), (units * size_of::<Span>()) as u64);
            span
        });
        taken.collect::<BTreeSet<SpanRef>>()
    });
    assert!(gone.is_disjoint(&spans));
    going.with(|space| {
        space.begin_pass();
        while let Some(passed) = space.next_of_pass() {
            bitmap::clear_range(passed.span.alloc_bits(), 0, passed.span.slots());
            space.sort(passed, Swept::Empty);
        }
        assert!(space.trim(false) >= 3 * SPAN_BYTES as u64);
    });
    assert_eq!((going.mapped_bytes(), going.resident_bytes(), going.metadata_bytes()), (0, 0, 0));
    staying.with(|space| {
        assert_eq!(space.spans().collect::<BTreeSet<_>>(), spans);
        assert!(space.regions().iter().all(Region::is_consistent));
    });
    assert!(spans.iter().all(|span| span.allocated() == span.slots()));
    for space in [going, staying] {
        close(space, Allocator::new());
    }
}

/// A pool's heaps share its records. Each counts its own, also when they are free again.
#[test]
fn the_cleanups_of_another_heap_of_the_pool_do_not_count_for_the_limit() {
    let pool = Pool::new(PoolConfig::default(), None);
    let heap = || -> TestHeap {
        let config = HeapConfig { pacing: Pacing::Manual, ..HeapConfig::default() };
        RawHeap::new(Client::new(&pool), config, |_| GcRefCell::default())
    };
    let (mut one, other) = (heap(), heap());
    one.mutate(|mc, _| {
        for n in 0..10_000 {
            mc.add_cleanup(mc.alloc(Leaf::new(n)), || ());
        }
    });
    let bytes = |heap: &TestHeap| heap.stats().overhead.cleanup_bytes;
    assert!(bytes(&one) >= 410_000, "{}", bytes(&one));
    assert_eq!(bytes(&other), 0);
    one.collect();
    assert_eq!(pool.run_pending(usize::MAX), 10_000);
    assert!(bytes(&one) >= 410_000, "{}", bytes(&one));
    assert_eq!((bytes(&other), bytes(&heap())), (0, 0));
}

/// What one heap gives back is the next one's, as new.
#[test]
fn a_shared_unit_that_changes_hands_has_no_bits_set() {
    type Alone = Leaf<[u64; 2]>;
    let info = glue::type_info::<Alone>();
    for _ in 0..100 {
        let space = CommonSpace::<Local>::new(u64::MAX, true);
        for _ in 0..3 {
            let span = space.with(|space| space.take_span(info, true)).expect("memory");
            assert_eq!(span.allocated(), 0);
            span.alloc_bits().iter().for_each(|word| word.set(u64::MAX));
        }
        close(space, Allocator::new());
    }
}

#[test]
fn what_is_free_is_found_under_each_address_that_a_type_info_has() {
    static INFOS: LazyLock<[TypeInfo; 2]> =
        LazyLock::new(|| [(); 2].map(|()| TypeInfo { ..*glue::type_info::<Leaf<u64>>() }));
    let space = CommonSpace::<Local>::new(u64::MAX, true);
    for _ in 0..3 {
        for info in &*INFOS {
            let mut allocator = Allocator::new();
            allocator.refill(&space, info).expect("memory");
            assert!(allocator.take::<Leaf<u64>>(info).is_some());
            space.with(|space| allocator.retire(space));
        }
    }
    assert_eq!(space.with(|space| space.spans().count()), 1);
    close(space, Allocator::new());
}

/// Run by the test below, in a process of its own.
#[test]
fn child_whose_sweep_panics() {
    let Ok(mode) = env::var("SEXTON_CHILD") else { return };
    // A table that stays borrowed is found when its span is swept, and nowhere before.
    let plant = |span: SpanRef| mem::forget(span.cleanups().borrow_mut());
    // At once: what is planted has the end of the heap panic, too.
    let told = |collected: thread::Result<()>| println!("is over: {}", collected.is_ok());
    if mode == "local" {
        let mut heap = heap();
        plant(first_span(&heap));
        told(catch_unwind(AssertUnwindSafe(|| _ = heap.collect())));
    } else {
        let heap = shared_heap(Pacing::Manual);
        let mut mutator = heap.attach().expect("it is the first here");
        mutator.mutate(|mc, _| {
            // With drop glue, and in spans enough to be swept by two.
            (0..5000).for_each(|value| _ = mc.alloc(Leaf::new((Box::new(value), [0_u64; 63]))));
        });
        heap.core.space().with(|space| plant(space.spans().next().expect("one is open")));
        told(catch_unwind(AssertUnwindSafe(|| _ = mutator.collect())));
    }
}

#[test]
fn a_sweep_that_panics_ends_the_process_whoever_sweeps() {
    for mode in ["local", "shared"] {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "tests::inside::child_whose_sweep_panics"])
            .env("SEXTON_CHILD", mode)
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && !text.contains("is over"), "{mode}: {text}{errors}");
        assert!(errors.contains("borrowed"), "{mode}: {text}{errors}");
    }
}

#[test]
fn the_minimum_of_garbage_is_for_each_mutator_that_allocates() {
    let min_bytes = 1 << 16;
    // Objects that one mutator makes before a cycle is due. Of the others, the busy ones allocated
    // before the last cycle, and the idle ones never.
    let garbage = |busy: usize, idle: usize| {
        let heap = shared_heap(Pacing::Automatic { min_bytes, growth: 0.0 });
        let step = Barrier::new(busy + idle + 1);
        thread::scope(|scope| {
            for number in 0..busy + idle {
                let (heap, step) = (&heap, &step);
                scope.spawn(move || {
                    let mut mutator = heap.attach().expect("it is the first here");
                    if number < busy {
                        mutator.mutate(|mc, _| _ = mc.alloc(Leaf::new(0_u64)));
                    }
                    step.wait();
                    step.wait();
                });
            }
            let mut mutator = heap.attach().expect("it is the first here");
            step.wait();
            mutator.mutate(|mc, _| _ = mc.alloc(Leaf::new(0_u64)));
            mutator.collect();
            let mut objects = 1;
            while mutator.mutate(|mc, _| _ = mc.alloc(Leaf::new(0_u64))).1.is_none() {
                objects += 1;
            }
            step.wait();
            objects
        })
    };
    let above = |bytes: u64| bytes / MIN_SLOT_BYTES as u64 + 1;
    for (busy, idle) in [(0, 0), (0, 24), (3, 0), (3, 24)] {
        let times = busy as u64 + 1;
        assert_eq!(garbage(busy, idle), above(times * min_bytes), "{busy} busy, {idle} idle");
    }
}

/// Ends a space whose slots hold nothing that needs dropping.
fn close(space: CommonSpace<Local>, mut allocator: Allocator) {
    space.with(|space| {
        allocator.retire(space);
        space.unlist_spans();
        space.begin_pass();
        while let Some(passed) = space.next_of_pass() {
            bitmap::clear_range(passed.span.alloc_bits(), 0, passed.span.slots());
            space.sort(passed, Swept::Empty);
        }
    });
}

fn first_span(heap: &TestHeap) -> SpanRef {
    heap.core.space().with(|space| space.spans().next()).expect("one span is open")
}

/// A type whose slots fill units badly has its first span in a group of up to 61 units. Of those
/// no more counts than an allocator has taken.
#[test]
fn a_limit_counts_nothing_of_a_group_that_no_allocator_has_taken() {
    const LIMIT: u64 = 1 << 20;
    let pool = Pool::new(PoolConfig::default(), None);
    let config = HeapConfig {
        pacing: Pacing::Manual,
        zeal: false,
        max_bytes: LIMIT,
        ..HeapConfig::default()
    };
    let mut heap: TestHeap = RawHeap::new(Client::new(&pool), config, |_| GcRefCell::default());
    heap.mutate(|mc, _| {
        macro_rules! alloc {
            ($($kib:literal)*) => {
                $(mc.try_alloc(Leaf::new([0_u8; $kib << 10])).expect("it is below the limit");)*
            };
        }
        alloc!(66 70 75 81 90 97 105 111 119);
        // Others of a group count when they are taken, and the limit is met.
        let more = std::iter::from_fn(|| mc.try_alloc(Leaf::new([0_u8; 66 << 10])).ok());
        assert!(more.take(20).count() < 20);
    });
    let stats = heap.stats();
    assert!(stats.resident_bytes < 6 << 20, "{stats:?}");
    heap.verify().expect("the counts are right");
    heap.collect();
    heap.verify().expect("the counts are right");
}
