//! `max_bytes`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::{CleanupPool, Gc, GcRefCell, Heap, Leaf, Pacing, Trace};

use crate::world::{Counter, Node, World, builder, calm};

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
    let mut heap: Heap<()> = calm().max_bytes(100_000).build(|_| ());
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
fn garbage_never_takes_the_room_that_the_limit_leaves_beside_the_living() {
    type Kib = Leaf<[u8; 1024]>;
    let mut heap: Heap<GcRefCell<Vec<Gc<'static, Kib>>>> =
        Heap::builder().max_bytes(24 << 20).zeal(false).build(|_| GcRefCell::default());
    heap.mutate(|mc, live| {
        for _ in 0..8 << 10 {
            live.borrow_mut(mc).push(mc.alloc(Leaf::new([0; 1024])));
        }
    });
    let refused = (0..2000).filter(|_| {
        heap.mutate(|mc, _| (0..64).any(|_| mc.try_alloc(Leaf::new([1_u8; 1024])).is_err()))
    });
    assert_eq!(refused.count(), 0, "sessions of 64 KiB, with 16 MiB to spare");
    // 125 MiB of garbage went through 16.
    let cycles = heap.stats().cycles;
    assert!((125 / 16..=2 * 125 / 16 + 2).contains(&cycles), "{cycles}");
    heap.verify().unwrap();
}

#[test]
fn a_session_that_ends_when_a_collection_is_due_never_finds_the_heap_full_of_garbage() {
    // The limit is where the first collection would be due if there were none.
    let max = Pacing::DEFAULT_MIN_BYTES;
    let mut heap = builder().max_bytes(max).zeal(false).build(|_| World::default());
    let mut steps = 0;
    while steps < 200_000 {
        heap.mutate(|mc, _| {
            while steps < 200_000 && !mc.collection_due() {
                mc.try_alloc(Node::new(steps)).expect("nearly all is garbage");
                steps += 1;
            }
        });
    }
    assert!(heap.stats().cycles >= 8, "{:?}", heap.stats());
}

#[test]
fn after_a_refused_allocation_the_sessions_end_collects() {
    let mut heap: Heap<()> = Heap::builder().max_bytes(100 << 10).zeal(false).build(|_| ());
    // So little garbage that no cycle is due, and too much for what is wanted next.
    heap.mutate(|mc, _| (0..1400).for_each(|_| _ = mc.alloc(Leaf::new([1_u8; 32]))));
    assert_eq!(heap.stats().cycles, 0);
    let refused = heap.mutate(|mc, _| {
        assert!(!mc.collection_due());
        let refused = mc.try_alloc(Leaf::new([0_u8; 60 << 10])).is_err();
        assert!(mc.collection_due());
        refused
    });
    assert!(refused);
    assert_eq!((heap.stats().cycles, heap.stats().objects), (1, 0));
    heap.mutate(|mc, _| {
        assert!(!mc.collection_due());
        assert!(mc.try_alloc(Leaf::new([0_u8; 60 << 10])).is_ok());
    });
}

#[test]
fn a_session_that_panics_because_the_heap_is_full_leaves_no_garbage_to_the_next() {
    let mut heap = builder().max_bytes(10_000).build(|_| World::default());
    for _ in 0..10 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            heap.mutate(|mc, _| {
                for id in 0.. {
                    mc.alloc(Node::new(id));
                }
            });
        }));
        panicked.expect_err("the heap is full");
        assert_eq!(heap.stats().objects, 0);
    }
    heap.verify().unwrap();
}

#[test]
fn a_session_that_panics_because_the_heap_is_full_panics_so_whatever_the_collection_throws() {
    let pool = CleanupPool::manual();
    let mut heap = builder()
        .cleanup_pool(&pool)
        .max_bytes(10_000)
        .back_pressure(0, sexton::BackPressure::call(|_| panic!("by the hook")))
        .build(|_| World::default());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        heap.mutate(|mc, _| {
            for id in 0.. {
                mc.add_cleanup(mc.alloc(Node::new(id)), || {});
            }
        });
    }))
    .expect_err("the heap is full");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("max_bytes = 10000"), "{message}");
    assert_eq!(heap.stats().objects, 0);
}

#[test]
fn a_refused_allocation_collects_nothing_if_it_could_never_fit_or_pacing_is_manual() {
    let mut heap: Heap<()> = Heap::builder().max_bytes(1000).zeal(false).build(|_| ());
    heap.mutate(|mc, _| assert!(mc.try_alloc(Leaf::new([0_u8; 1200])).is_err()));
    assert_eq!(heap.stats().cycles, 0);
    let mut heap: Heap<()> = calm().max_bytes(1000).build(|_| ());
    heap.mutate(|mc, _| {
        while mc.try_alloc(Leaf::new(1_u8)).is_ok() {}
        assert!(!mc.collection_due());
    });
    assert_eq!(heap.stats().cycles, 0);
}

#[test]
fn a_heap_full_of_living_objects_is_not_collected_while_nothing_is_asked_of_it() {
    let mut heap = builder().max_bytes(1 << 20).zeal(false).build(|_| World::default());
    let full = |heap: &mut crate::world::WorldHeap| {
        heap.mutate(|mc, world| {
            while let Ok(node) = mc.try_alloc(Node::before(0, world.head.get())) {
                world.head.set(mc, Some(node));
            }
        });
    };
    full(&mut heap);
    let cycles = heap.stats().cycles;
    for _ in 0..100 {
        heap.mutate(|mc, world| mc.add_cleanup(world.head.get().unwrap(), || {}).stop());
    }
    assert_eq!(heap.stats().cycles, cycles);
}

#[test]
fn a_heap_of_no_bytes_refuses_everything() {
    let mut heap: Heap<()> = Heap::builder().max_bytes(0).build(|_| ());
    heap.mutate(|mc, _| assert!(mc.try_alloc(()).is_err()));
    heap.verify().unwrap();
}

/// Objects large enough that the heap's regions, and not its books, use the memory up. (Where the
/// books find none, the process aborts, as Rust programs do.)
#[derive(Trace, Default)]
struct Large<'gc>(GcRefCell<Vec<Gc<'gc, Leaf<[u8; 60_000]>>>>);

/// The child's part; does nothing unless it is the child.
#[test]
fn child_whose_address_space_is_limited() {
    if std::env::var("SEXTON_CHILD").as_deref() != Ok("no memory") {
        return;
    }
    let pool = CleanupPool::manual();
    // Calm: the checker's books need memory, too.
    let mut heap: Heap<Large<'static>> = calm().cleanup_pool(&pool).build(|_| Large::default());
    let ran = Counter::default();
    let kept = heap.mutate(|mc, large| {
        let mut kept = 0;
        loop {
            match mc.try_alloc(Leaf::new([kept as u8; 60_000])) {
                Ok(object) => {
                    if kept < 100 {
                        mc.add_cleanup(object, ran.cleanup());
                    }
                    large.0.borrow_mut(mc).push(object);
                    kept += 1;
                }
                Err(full) => {
                    let text = full.to_string();
                    assert!(text.contains("the system gave no memory for "), "{text}");
                    assert_eq!(full.into_value().into_inner()[0], kept as u8, "it comes back");
                    return kept;
                }
            }
        }
    });
    assert!(kept > 1000, "{kept}");
    heap.verify().unwrap();
    // Nothing is lost, and once there is room again the heap goes on.
    heap.mutate(|mc, large| large.0.borrow_mut(mc).clear());
    assert_eq!(heap.collect().swept_objects, kept);
    assert_eq!(pool.run_pending(usize::MAX), 100);
    assert_eq!(ran.get(), 100);
    heap.mutate(|mc, _| mc.try_alloc(Leaf::new([0_u8; 60_000])).map(drop).unwrap());
    heap.collect();
    println!("survived without memory");
}

#[test]
#[cfg(target_os = "linux")]
fn when_the_system_gives_no_memory_the_value_comes_back_and_nothing_is_lost() {
    let output = std::process::Command::new("sh")
        // Kilobytes of address space: enough to start, and for some thousand objects.
        .args([
            "-c",
            "ulimit -v 600000; exec \"$0\" --exact --nocapture \
             limits::child_whose_address_space_is_limited",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("SEXTON_CHILD", "no memory")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("survived without memory"),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
