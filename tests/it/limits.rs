//! `max_bytes`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::{Heap, Leaf, Pacing};

use crate::world::{Node, World, builder};

#[test]
fn past_the_limit_the_value_comes_back() {
    let mut heap: Heap<()> = Heap::builder().max_bytes(100).build(|_| ());
    heap.mutate(|mc, _| {
        for value in 0..6u64 {
            mc.try_alloc(Leaf::new(value)).unwrap();
        }
        let full = mc.try_alloc(Leaf::new(6u64)).unwrap_err();
        assert_eq!((full.requested_bytes(), full.used_bytes(), full.max_bytes()), (16, 96, 100));
        let message = full.to_string();
        assert!(message.contains("max_bytes = 100"), "{message}");
        assert_eq!(full.into_value().into_inner(), 6);
    });
    heap.collect();
    heap.mutate(|mc, _| mc.try_alloc(Leaf::new(7u64)).map(drop).unwrap());
}

#[test]
fn alloc_past_the_limit_panics_and_leaves_the_heap_usable() {
    let mut heap = builder().max_bytes(10_000).build(|_| World::default());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        heap.mutate(|mc, world| {
            for id in 0.. {
                world.head.set(mc, Some(mc.alloc(Node::before(id, world.head.get()))));
            }
        });
    }))
    .expect_err("the heap is full");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("max_bytes = 10000"), "{message}");
    heap.verify().unwrap();
    heap.mutate(|mc, world| world.head.set(mc, None));
    heap.collect();
    heap.mutate(|mc, _| mc.alloc(Node::new(1)).id);
    heap.verify().unwrap();
}

#[test]
fn the_limit_counts_objects_not_the_slots_held_ready_for_them() {
    // Each type holds a run ready; together they would exceed the limit long before the objects do.
    let mut heap: Heap<()> =
        Heap::builder().max_bytes(100_000).pacing(Pacing::Manual).zeal(false).build(|_| ());
    heap.mutate(|mc, _| {
        for value in 0..500u64 {
            mc.try_alloc(Leaf::new(value as u8)).unwrap();
            mc.try_alloc(Leaf::new(value as u16)).unwrap();
            mc.try_alloc(Leaf::new([value; 4])).unwrap();
            mc.try_alloc(Leaf::new([value; 8])).unwrap();
        }
    });
    assert_eq!(heap.stats().bytes, 500 * (16 + 16 + 32 + 64));
    heap.verify().unwrap();
}

#[test]
fn a_heap_of_no_bytes_refuses_everything() {
    let mut heap: Heap<()> = Heap::builder().max_bytes(0).build(|_| ());
    heap.mutate(|mc, _| assert!(mc.try_alloc(()).is_err()));
    heap.verify().unwrap();
}
