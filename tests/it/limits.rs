//! `max_bytes`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::{CleanupPool, Gc, GcRefCell, Heap, Leaf, Pacing, Trace};

use crate::world::{Counter, Node, World, builder, calm};

#[test]
fn past_the_limit_the_value_comes_back() {
    let mut heap: Heap<()> = Heap::builder().max_bytes(100).build(|_| ());
    heap.mutate(|mc, _| {
        for value in 0..12u64 {
            mc.try_alloc(Leaf::new(value)).unwrap();
        }
        let full = mc.try_alloc(Leaf::new(12u64)).unwrap_err();
        assert_eq!((full.requested_bytes(), full.used_bytes(), full.max_bytes()), (8, 96, 100));
        let message = full.to_string();
        assert!(message.contains("max_bytes = 100"), "{message}");
        assert_eq!(full.into_value().into_inner(), 12);
    });
    heap.collect();
    heap.mutate(|mc, _| mc.try_alloc(Leaf::new(7u64)).map(drop).unwrap());
}

/// Such objects have mappings of their own, which no object of another size has.
#[test]
fn large_garbage_of_one_size_makes_room_for_objects_of_another() {
    const LIMIT: u64 = 32 << 20;
    let mut heap: Heap<()> = calm().max_bytes(LIMIT).build(|_| ());
    heap.mutate(|mc, ()| (0..95).for_each(|_| _ = mc.alloc(Leaf::new([1_u8; 300 << 10]))));
    heap.collect();
    heap.mutate(|mc, ()| {
        for _ in 0..75 {
            let place = mc.try_alloc(Leaf::new([2_u8; 400 << 10])).map_err(|full| full.to_string());
            assert_eq!(place.unwrap()[7], 2);
        }
    });
    heap.verify().unwrap();
    assert!(heap.stats().resident_bytes <= LIMIT + (1 << 20));
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
    assert_eq!(heap.stats().bytes, 500 * (8 + 8 + 32 + 64));
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

/// What a process has in memory, with a heap that is full again and again.
#[cfg(target_os = "linux")]
mod resident {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
    use std::thread;

    use sexton::{
        CleanupPool, Gc, GcMutex, Heap, HeapBuilder, Mode, Mutation, Overhead, Payload, Shared,
        Trace, Weak,
    };

    use crate::forks::apart;

    const LIMIT: u64 = 32 << 20;
    /// Blocks of queued cleanups, what the test itself holds.
    const OTHERS: u64 = 4 << 20;
    /// What a thread has: its stack, what malloc keeps for it, a list of its barrier, free records,
    /// and a first span of three types.
    const OF_A_THREAD: u64 = (1 << 20) + 3 * (64 << 10);
    const THREADS: usize = 4;

    #[derive(Trace)]
    struct Node<'gc> {
        links: [Option<Gc<'gc, Node<'gc>>>; 2],
        weak: Option<Weak<'gc, Node<'gc>>>,
    }

    #[derive(Trace, Default)]
    struct World<'gc> {
        lists: [GcMutex<Option<Gc<'gc, Node<'gc>>>>; THREADS],
    }

    /// Bytes of this process, as a line of its status has them.
    fn status(line: &str) -> u64 {
        let text = fs::read_to_string("/proc/self/status").expect("a system with /proc");
        let kib = text.lines().find_map(|text| text.strip_prefix(line)).expect("the line");
        kib.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// From here on the system refuses memory beyond what the limit may need. Addresses that
    /// nothing was written to count for the system, but not for the heap: the next records of
    /// cleanups, as many as there are, and the rest of a region.
    #[expect(unsafe_code, reason = "asks the system for a limit")]
    fn limit_addresses() {
        let most = status("VmData:") + 2 * LIMIT + (64 << 20);
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the call reads the structure, and touches no memory of this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
    }

    /// Puts objects in front of a list until there is no room: half of them with a cleanup, a
    /// quarter with a weak pointer. Gives what `HeapFull` says.
    fn fill<'gc, M: Mode>(
        mc: &Mutation<'gc, M>,
        list: &GcMutex<Option<Gc<'gc, Node<'gc>>>>,
    ) -> (u64, Overhead)
    where
        Node<'gc>: Payload<M>,
    {
        // Objects made lately, to which others have links, so that the graph is wide.
        let mut lately = vec![*list.lock(mc); 1 << 10];
        for n in 0_usize.. {
            let (one, other) = (lately[n % 1009], lately[n * 7919 % 1021]);
            // A weak record that finds no room has no error. The next object finds none either.
            let downgrade = |node| catch_unwind(AssertUnwindSafe(|| mc.downgrade(node))).ok();
            let weak = one.filter(|_| n % 4 == 0).and_then(downgrade);
            let links = [*list.lock(mc), other];
            match mc.try_alloc(Node { links, weak }) {
                Ok(node) => {
                    if n % 2 == 0 {
                        mc.add_cleanup(node, move || _ = std::hint::black_box(n));
                    }
                    lately[n % (1 << 10)] = Some(node);
                    *list.lock(mc) = Some(node);
                }
                Err(full) => return (full.used_bytes(), full.overhead()),
            }
        }
        unreachable!("the heap gets full")
    }

    fn assert_full((used, overhead): (u64, Overhead)) {
        let Overhead { metadata_bytes, cleanup_bytes, weak_bytes, mark_bytes, root_bytes, .. } =
            overhead;
        let sum = metadata_bytes + cleanup_bytes + weak_bytes + mark_bytes + root_bytes;
        assert!(used + sum <= LIMIT + Overhead::ALLOWANCE + (1 << 17), "{used} {overhead:?}");
        assert!(used + sum + overhead.free_bytes > LIMIT / 2, "{used} {overhead:?}");
        assert!(metadata_bytes > 0 && cleanup_bytes > 0 && weak_bytes > 0, "{overhead:?}");
    }

    /// Limits what this process may have. Gives what it has in memory, and a pool.
    fn limited_process() -> (u64, CleanupPool) {
        // A weak record that finds no room is expected.
        set_hook(Box::new(|panic| {
            if !panic.to_string().contains("WeakRecord") {
                eprintln!("{panic}");
            }
        }));
        let before = status("RssAnon:");
        limit_addresses();
        (before, CleanupPool::manual())
    }

    /// In zeal mode the verifier's own tables would count.
    fn limited_heap<M: Mode>(pool: &CleanupPool) -> HeapBuilder<World<'static>, M> {
        Heap::builder().zeal(false).cleanup_pool(pool).max_bytes(LIMIT)
    }

    fn assert_limited(before: u64, threads: u64) {
        // Pages of files are code. How many of them the system maps is its own affair.
        let peak = status("VmHWM:") - status("RssFile:") - before;
        assert!(
            peak <= LIMIT + Overhead::ALLOWANCE + OTHERS + threads * OF_A_THREAD,
            "{peak} bytes in memory at the peak"
        );
        assert!(peak > LIMIT / 2, "{peak}");
    }

    #[test]
    fn a_process_stays_below_limit_and_allowance() {
        apart("limits::resident::a_process_stays_below_limit_and_allowance", || {
            let (before, pool) = limited_process();
            let mut heap: Heap<World<'static>> = limited_heap(&pool).build(|_| World::default());
            for round in 0..12 {
                let full = heap.mutate(|mc, world| fill(mc, &world.lists[round % 2]));
                if round < 2 {
                    assert_full(full);
                }
                assert_limited(before, 0);
                heap.mutate(|mc, world| *world.lists[(round + 1) % 2].lock(mc) = None);
                heap.collect();
                pool.run_pending(usize::MAX);
            }
            assert_limited(before, 0);
        });
    }

    #[test]
    fn threads_stay_below_limit_and_allowance() {
        apart("limits::resident::threads_stay_below_limit_and_allowance", || {
            let (before, pool) = limited_process();
            let heap: Heap<World<'static>, Shared> =
                limited_heap(&pool).build(|_| World::default());
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (heap, pool) = (&heap, &pool);
                    scope.spawn(move || {
                        let mut mutator = heap.attach();
                        for _ in 0..8 {
                            mutator.mutate(|mc, world| fill(mc, &world.lists[thread]));
                            mutator.mutate(|mc, world| *world.lists[thread].lock(mc) = None);
                            pool.run_pending(usize::MAX);
                        }
                    });
                }
            });
            assert_limited(before, THREADS as u64);
        });
    }
}
