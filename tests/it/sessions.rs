//! Sessions: what a program sees between the opening and the end of one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::{Gc, GcAtomic, GcCell, GcMutex, GcRefCell, Heap, Leaf, Pacing, Trace};
use sexton_tests::settings::zeal;

use crate::world::{Node, World, builder, manual_heap};

#[test]
fn what_a_session_links_the_next_one_finds() {
    let mut heap = manual_heap();
    heap.mutate(|mc, world| {
        for id in 0..10 {
            world.head.set(mc, Some(mc.alloc(Node::before(id, world.head.get()))));
        }
    });
    heap.collect();
    let ids = heap.mutate(|_, world| {
        let mut ids = Vec::new();
        let mut at = world.head.get();
        while let Some(node) = at {
            ids.push(node.id);
            at = node.next.get();
        }
        ids
    });
    assert_eq!(ids, (0..10).rev().collect::<Vec<_>>());
}

#[test]
fn a_panicking_session_leaves_the_heap_usable() {
    let mut heap = manual_heap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        heap.mutate(|mc, world| {
            world.head.set(mc, Some(mc.alloc(Node::new(7))));
            let _guard = world.nodes.borrow_mut(mc);
            panic!("within a session");
        })
    }));
    assert!(panicked.is_err());
    heap.verify().unwrap();
    assert_eq!(heap.collect().live_objects, 1);
    assert_eq!(heap.mutate(|_, world| world.head.get().unwrap().id), 7);
    heap.verify().unwrap();
}

#[test]
fn a_panic_while_the_root_is_made_drops_what_was_allocated() {
    let token = crate::world::Token::default();
    let in_heap = token.clone();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _: Heap<World<'static>> = Heap::new(move |mc| {
            mc.alloc(Leaf::new(in_heap));
            panic!("no root");
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(token.drops(), 1);
}

#[test]
fn garbage_is_collected_at_the_end_of_sessions_without_being_asked_for() {
    let mut heap = builder().build(|_| World::default());
    for _ in 0..100 {
        heap.mutate(|mc, _| {
            for id in 0..1000 {
                mc.alloc(Node::new(id));
            }
        });
    }
    let stats = heap.stats();
    assert!(stats.cycles >= 2, "{stats:?}");
    assert!(stats.bytes < 4 << 20, "{stats:?}");
}

#[test]
fn with_manual_pacing_nothing_is_collected_unasked() {
    let mut heap = manual_heap();
    for _ in 0..100 {
        heap.mutate(|mc, _| {
            for id in 0..1000 {
                mc.alloc(Node::new(id));
            }
        });
    }
    assert_eq!(heap.stats().cycles, if zeal() { 100 } else { 0 });
}

#[test]
fn the_pacer_lets_the_heap_grow_by_the_live_bytes() {
    let pacing = Pacing::Automatic { min_bytes: 1 << 16, growth: 1.0 };
    // At once: in slices a cycle begins earlier.
    let builder = builder().pacing(pacing).pause_budget(None).zeal(false);
    let mut heap = builder.build(|_| World::default());
    heap.mutate(|mc, world| {
        for id in 0..100_000 {
            world.head.set(mc, Some(mc.alloc(Node::before(id, world.head.get()))));
        }
    });
    let live = heap.collect().live_bytes;
    let cycles = heap.stats().cycles;
    // One live heap's worth of garbage, a session each so that the pacer is asked often.
    let mut allocated = 0;
    while heap.stats().cycles == cycles {
        heap.mutate(|mc, _| {
            mc.alloc(Node::new(0));
        });
        allocated += live / 100_000;
    }
    assert!((live - (1 << 17)..=live + (1 << 17)).contains(&allocated), "{allocated} of {live}");
}

#[test]
fn slots_held_ready_for_a_type_do_not_bring_a_collection_closer() {
    let pacing = Pacing::Automatic { min_bytes: 1 << 16, growth: 1.0 };
    let mut heap = builder().pacing(pacing).zeal(false).build(|_| World::default());
    for id in 0..10 {
        heap.mutate(|mc, _| {
            mc.alloc(Node::new(id));
            mc.alloc(Leaf::new(id));
        });
    }
    assert_eq!((heap.stats().cycles, heap.last_report().is_none()), (0, true));
    heap.mutate(|mc, _| {
        for id in 0..2000 {
            mc.alloc(Node::new(id));
        }
    });
    assert_eq!(heap.stats().cycles, 1);
    assert_eq!(heap.last_report().unwrap().swept_objects, 2020);
}

#[test]
fn a_session_can_ask_whether_a_collection_is_due() {
    let pacing = Pacing::Automatic { min_bytes: 1 << 16, growth: 1.0 };
    let mut heap = builder().pacing(pacing).zeal(false).build(|_| World::default());
    let allocated = heap.mutate(|mc, _| {
        let mut allocated = 0;
        while !mc.collection_due() {
            allocated += mc.alloc(Node::new(1)).id * size_of::<Node<'_>>() as u64;
        }
        allocated
    });
    assert!(((1 << 16)..(1 << 16) + 1024).contains(&allocated), "{allocated}");
    assert_eq!(heap.stats().cycles, 1);
}

#[test]
fn a_pointer_hides_no_method_of_its_object_and_compares_like_it() {
    use std::collections::HashSet;
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        let cell = mc.alloc(GcCell::new(3u32));
        assert_eq!(cell.get(), 3);
        cell.set(mc, 4);
        assert_eq!(Gc::as_ref(cell).get(), 4);
        let (one, other) = (mc.alloc(7u32), mc.alloc(7u32));
        assert!(one == other && !one.ptr_eq(other));
        assert_eq!(HashSet::from([one, other]).len(), 1);
        assert_eq!(HashSet::from([Gc::as_ptr(one), Gc::as_ptr(other)]).len(), 2);
    });
}

#[test]
fn an_object_may_hold_the_handle_of_its_own_cleanup() {
    #[derive(Trace)]
    struct Owner {
        cleanup: std::cell::OnceCell<sexton::Cleanup>,
    }
    let mut heap: Heap<()> = Heap::new(|_| ());
    let counter = crate::world::Counter::default();
    heap.mutate(|mc, _| {
        let owner = mc.alloc(Owner { cleanup: std::cell::OnceCell::new() });
        let handle = mc.add_cleanup(owner, counter.cleanup());
        owner.cleanup.set(handle).unwrap();
    });
    heap.collect();
    heap.wait_for_cleanups(crate::world::LONG).unwrap();
    assert_eq!(counter.get(), 1);
}

#[test]
fn every_building_block_keeps_what_it_holds_alive() {
    #[derive(Trace)]
    struct Blocks<'gc> {
        cell: GcCell<Option<Gc<'gc, Leaf<u32>>>>,
        ref_cell: GcRefCell<Vec<Gc<'gc, Leaf<u32>>>>,
        mutex: GcMutex<Option<Gc<'gc, Leaf<u32>>>>,
        atomic: GcAtomic<'gc, Leaf<u32>>,
    }

    let mut heap: Heap<Blocks<'static>> = Heap::builder().zeal(false).build(|mc| Blocks {
        cell: GcCell::new(Some(mc.alloc(Leaf::new(1)))),
        ref_cell: GcRefCell::new(vec![mc.alloc(Leaf::new(2))]),
        mutex: GcMutex::new(Some(mc.alloc(Leaf::new(3)))),
        atomic: GcAtomic::new(Some(mc.alloc(Leaf::new(4)))),
    });
    assert_eq!(heap.collect().live_objects, 4);
    heap.mutate(|mc, blocks| {
        assert_eq!(**blocks.cell.get().unwrap(), 1);
        assert_eq!(**blocks.ref_cell.borrow()[0], 2);
        assert_eq!(**blocks.mutex.lock(mc).unwrap(), 3);
        assert_eq!(**blocks.atomic.load().unwrap(), 4);
        let old = blocks.atomic.load();
        assert!(blocks.atomic.compare_exchange(mc, None, old).is_err());
        assert!(blocks.atomic.compare_exchange(mc, old, None).is_ok());
        blocks.cell.set(mc, None);
    });
    assert_eq!(heap.collect().swept_objects, 2);
}

#[test]
fn what_a_ref_cell_held_comes_back_when_it_is_replaced() {
    let mut heap: Heap<GcRefCell<Vec<Gc<'static, Leaf<u32>>>>> =
        Heap::new(|_| GcRefCell::default());
    heap.mutate(|mc, cell| {
        let numbers = |list: &[Gc<'_, Leaf<u32>>]| list.iter().map(|n| ***n).collect::<Vec<_>>();
        assert!(cell.replace(mc, vec![mc.alloc(Leaf::new(1)), mc.alloc(Leaf::new(2))]).is_empty());
        assert_eq!(numbers(&cell.take(mc)), [1, 2]);
        assert!(cell.borrow().is_empty());
        assert_eq!(numbers(&GcRefCell::new(vec![mc.alloc(Leaf::new(3))]).into_inner()), [3]);
        let guard = cell.borrow();
        let replaced = catch_unwind(AssertUnwindSafe(|| cell.replace(mc, Vec::new())));
        assert!(replaced.is_err() && guard.is_empty(), "it is borrowed");
    });
}

#[test]
fn the_settings_of_any_heap_can_be_printed() {
    #[derive(Trace, Default)]
    struct Mute<'gc>(GcCell<Option<Gc<'gc, Leaf<u32>>>>);
    let text = format!("{:?}", Heap::<Mute<'static>>::builder().max_bytes(1234));
    assert!(text.contains("max_bytes: 1234"), "{text}");
}

#[test]
fn leaked_guards_hide_nothing_from_the_marker() {
    let mut heap = manual_heap();
    heap.mutate(|mc, world| {
        world.nodes.borrow_mut(mc).push(mc.alloc(Node::new(1)));
        std::mem::forget(world.nodes.borrow_mut(mc));
    });
    assert_eq!(heap.collect().live_objects, 1);
    heap.mutate(|_, world| assert!(world.nodes.try_borrow().is_none()));

    let mut heap: Heap<GcMutex<Option<Gc<'static, Leaf<u32>>>>> =
        Heap::new(|mc| GcMutex::new(Some(mc.alloc(Leaf::new(1)))));
    heap.mutate(|mc, mutex| std::mem::forget(mutex.lock(mc)));
    assert_eq!(heap.collect().live_objects, 1);
    heap.mutate(|mc, mutex| assert!(mutex.try_lock(mc).is_none()));
}
