//! Collections: what survives, what dies, and what becomes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use sexton::{Gc, GcCell, GcRefCell, Heap, Leaf, Pacing, Trace};
use sexton_tests::settings::zeal;

use crate::world::{Counter, LONG, Node, Token, World, WorldHeap, calm, manual_heap, phases};

#[test]
fn a_list_of_ten_million_nodes_is_collected_without_stack_overflow() {
    #[derive(Trace)]
    struct Link<'gc> {
        next: GcCell<Option<Gc<'gc, Link<'gc>>>>,
    }
    type Root = GcCell<Option<Gc<'static, Link<'static>>>>;
    let length = 10_000_000;
    let mut heap: Heap<Root> = calm().build(|_| GcCell::new(None));
    heap.mutate(|mc, root| {
        for _ in 0..length {
            root.set(mc, Some(mc.alloc(Link { next: GcCell::new(root.get()) })));
        }
    });
    assert_eq!(heap.collect().live_objects, length);
    heap.mutate(|mc, root| root.set(mc, None));
    let report = heap.collect();
    assert_eq!((report.live_objects, report.swept_objects), (0, length));
}

#[test]
fn a_cyclic_graph_of_a_million_nodes_is_reclaimed() {
    let mut heap: WorldHeap = calm().build(|_| World::default());
    let size = 1_000_000;
    heap.mutate(|mc, world| {
        let nodes: Vec<_> = (0..size).map(|id| mc.alloc(Node::new(id))).collect();
        for (at, node) in nodes.iter().enumerate() {
            node.next.set(mc, Some(nodes[(at * 7919 + 13) % nodes.len()]));
            node.edges.borrow_mut(mc).push(nodes[(at + 1) % nodes.len()]);
        }
        world.head.set(mc, Some(nodes[0]));
    });
    assert_eq!(heap.collect().live_objects, size);
    heap.mutate(|mc, world| world.head.set(mc, None));
    let report = heap.collect();
    assert_eq!((report.live_objects, report.swept_objects), (0, size));
    assert_eq!(report.dropped_objects, size, "the edge vectors were freed");
}

/// Each object has one way to it, and many wait at a time: no other way would find one that is left
/// out.
#[test]
fn every_object_of_a_graph_of_any_width_is_reached() {
    let mut heap: WorldHeap = calm().build(|_| World::default());
    let widths = (1..100).chain([127, 128, 129, 1000, 1023, 1024, 1025, 5000]);
    for width in widths {
        heap.mutate(|mc, world| {
            let mut nodes = world.nodes.borrow_mut(mc);
            nodes.clear();
            nodes.extend((0..width).map(|id| {
                let end = mc.alloc(Node::new(id));
                mc.alloc(Node::before(id, Some(mc.alloc(Node::before(id, Some(end))))))
            }));
        });
        assert_eq!(heap.collect().live_objects, 3 * width, "{width} in a row");
        heap.verify().unwrap();
    }
}

#[test]
fn freed_slots_are_used_again() {
    let mut heap = manual_heap();
    let mut mapped = Vec::new();
    for _ in 0..20 {
        heap.mutate(|mc, _| {
            for id in 0..100_000 {
                mc.alloc(Node::new(id));
            }
        });
        heap.collect();
        mapped.push(heap.stats().mapped_bytes);
    }
    assert!(mapped.iter().all(|&bytes| bytes == mapped[0]), "{mapped:?}");
}

#[test]
fn holes_between_survivors_are_filled() {
    let mut heap = manual_heap();
    heap.mutate(|mc, world| {
        for id in 0..50_000 {
            let node = mc.alloc(Node::new(id));
            if id % 3 == 0 {
                world.nodes.borrow_mut(mc).push(node);
            }
        }
    });
    let survivors = heap.collect().live_objects;
    let mapped = heap.stats().mapped_bytes;
    heap.mutate(|mc, world| {
        for id in 0..50_000 - survivors {
            world.nodes.borrow_mut(mc).push(mc.alloc(Node::new(1_000_000 + id)));
        }
    });
    assert_eq!(heap.stats().mapped_bytes, mapped);
    heap.verify().unwrap();
    heap.mutate(|_, world| {
        let nodes = world.nodes.borrow();
        let (old, new) = nodes.split_at(survivors as usize);
        assert!(old.iter().enumerate().all(|(at, node)| node.id == 3 * at as u64));
        assert!(new.iter().enumerate().all(|(at, node)| node.id == 1_000_000 + at as u64));
    });
}

#[test]
fn memory_of_a_spike_goes_back_to_the_system_within_two_cycles() {
    let mut heap = manual_heap();
    heap.mutate(|mc, _| {
        for id in 0..1_000_000 {
            mc.alloc(Node::new(id));
        }
    });
    assert!(heap.stats().mapped_bytes > 40 << 20);
    heap.collect();
    heap.collect();
    assert_eq!(heap.stats().mapped_bytes, 0);
}

#[test]
fn zero_sized_objects_have_an_identity_and_cleanups_of_their_own() {
    let mut heap: Heap<GcRefCell<Vec<Gc<'static, ()>>>> = Heap::new(|_| GcRefCell::default());
    let counters = [Counter::default(), Counter::default()];
    heap.mutate(|mc, units| {
        let (first, second) = (mc.alloc(()), mc.alloc(()));
        assert!(!first.ptr_eq(second));
        mc.add_cleanup(first, counters[0].cleanup());
        mc.add_cleanup(second, counters[1].cleanup());
        units.borrow_mut(mc).push(second);
    });
    heap.collect();
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(counters.map(|counter| counter.get()), [1, 0]);
}

#[test]
fn large_and_huge_objects_live_and_die_like_others() {
    #[derive(Trace)]
    struct Block<'gc, const N: usize> {
        bytes: Leaf<[u8; N]>,
        next: GcCell<Option<Gc<'gc, Leaf<u64>>>>,
    }
    #[derive(Trace, Default)]
    struct Root<'gc> {
        page: GcCell<Option<Gc<'gc, Block<'gc, 5000>>>>,
        span: GcCell<Option<Gc<'gc, Block<'gc, 65_000>>>>,
        large: GcCell<Option<Gc<'gc, Block<'gc, 200_000>>>>,
        huge: GcCell<Option<Gc<'gc, Block<'gc, 5_000_000>>>>,
    }

    // Values of megabytes are built on the stack on their way to the heap.
    let test = || {
        let mut heap: Heap<Root<'static>> = calm().build(|_| Root::default());
        let counter = Counter::default();
        heap.mutate(|mc, root| {
            macro_rules! fill {
                ($field:ident, $byte:expr) => {{
                    let next = GcCell::new(Some(mc.alloc(Leaf::new($byte))));
                    let block = mc.alloc(Block { bytes: Leaf::new([$byte as u8; _]), next });
                    mc.add_cleanup(block, counter.cleanup());
                    root.$field.set(mc, Some(block));
                }};
            }
            for byte in [1, 2] {
                fill!(page, byte);
                fill!(span, byte);
                fill!(large, byte);
                fill!(huge, byte);
            }
        });
        heap.verify().unwrap();
        let report = heap.collect();
        assert_eq!((report.live_objects, report.swept_objects), (8, 8));
        heap.verify().unwrap();
        heap.mutate(|_, root| {
            let huge = root.huge.get().unwrap();
            assert!(huge.bytes.iter().all(|&byte| byte == 2));
            assert_eq!(**huge.next.get().unwrap(), 2);
            assert!(root.page.get().unwrap().bytes.iter().all(|&byte| byte == 2));
            assert!(root.span.get().unwrap().bytes.iter().all(|&byte| byte == 2));
            assert!(root.large.get().unwrap().bytes.iter().all(|&byte| byte == 2));
        });
        heap.mutate(|mc, root| {
            root.huge.set(mc, None);
            root.large.set(mc, None);
        });
        assert_eq!(heap.collect().swept_objects, 4);
        heap.wait_for_cleanups(LONG).unwrap();
        assert_eq!(counter.get(), 6);
        drop(heap);
        assert_eq!(counter.get(), 8);
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn alignment_of_payloads_is_kept() {
    #[derive(Clone, Copy)]
    #[repr(align(256))]
    struct Aligned(u8);
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, _| {
        for byte in 0..100 {
            let gc = mc.alloc(Leaf::new(Aligned(byte)));
            assert_eq!(&raw const **gc as usize % 256, 0);
            assert_eq!(gc.0, byte);
        }
    });
}

#[test]
fn drop_glue_runs_once_for_the_dead_and_not_for_the_living() {
    let mut heap = manual_heap();
    let tokens: Vec<Token> = (0..1000).map(|_| Token::default()).collect();
    heap.mutate(|mc, world| {
        for (at, token) in tokens.iter().enumerate() {
            let gc = mc.alloc(Leaf::new(token.clone()));
            if at % 4 == 0 {
                world.tokens.borrow_mut(mc).push(gc);
            }
        }
    });
    for _ in 0..3 {
        heap.collect();
        for (at, token) in tokens.iter().enumerate() {
            assert_eq!(token.drops(), usize::from(at % 4 != 0), "token {at}");
        }
    }
    drop(heap);
    assert!(tokens.iter().all(|token| token.drops() == 1));
}

#[test]
fn a_panic_in_drop_glue_is_counted_and_the_sweep_goes_on() {
    struct Bomb(Arc<AtomicUsize>, usize);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            if self.1.is_multiple_of(10) {
                // Not `panic!`: no message for each of them.
                std::panic::resume_unwind(Box::new("bomb"));
            }
        }
    }
    let mut heap: Heap<()> = Heap::builder().zeal(false).build(|_| ());
    let dropped = Arc::new(AtomicUsize::new(0));
    heap.mutate(|mc, _| {
        for at in 0..1000 {
            mc.alloc(Leaf::new(Bomb(dropped.clone(), at)));
        }
    });
    let report = heap.collect();
    assert_eq!((report.drop_panics, report.dropped_objects), (100, 1000));
    assert_eq!(dropped.load(SeqCst), 1000);
    assert_eq!(heap.stats().drop_panics, 100);
    heap.verify().unwrap();
}

#[test]
fn drop_glue_may_use_other_heaps_roots_and_handles() {
    struct Busy {
        root: Option<sexton::Root<Leaf<u32>>>,
        cleanup: sexton::Cleanup,
        heap: Heap<World<'static>>,
    }
    impl Drop for Busy {
        fn drop(&mut self) {
            self.root = None;
            assert!(self.cleanup.stop());
            self.heap.mutate(|mc, _| mc.alloc(Node::new(1)).id);
            assert_eq!(self.heap.collect().live_objects, 0);
        }
    }
    let mut heap: Heap<GcCell<Option<Gc<'static, Leaf<u32>>>>> =
        Heap::builder().zeal(false).build(|_| GcCell::new(None));
    let counter = Counter::default();
    heap.mutate(|mc, kept| {
        let leaf = mc.alloc(Leaf::new(5));
        kept.set(mc, Some(leaf));
        let busy = Busy {
            root: Some(mc.root(leaf)),
            cleanup: mc.add_cleanup(leaf, counter.cleanup()),
            heap: manual_heap(),
        };
        mc.alloc(Leaf::new(busy));
    });
    let report = heap.collect();
    assert_eq!((report.live_objects, report.swept_objects, report.drop_panics), (1, 1, 0));
    assert_eq!(heap.stats().roots, 0);
    drop(heap);
    assert_eq!(counter.get(), 0);
}

#[test]
fn objects_of_many_types_do_not_mix() {
    // More types than the allocator's cache has entries.
    #[derive(Trace)]
    struct Of<const N: usize>([u64; N]);
    macro_rules! each {
        ($mc:expr, $check:expr, $($n:literal)*) => {$(
            let gc = $mc.alloc(Of::<$n>([$n; $n]));
            $check.push(Box::new(move || assert!(gc.0.iter().all(|&word| word == $n))));
        )*};
    }
    let mut heap: Heap<()> = Heap::builder().pacing(Pacing::Manual).build(|_| ());
    heap.mutate(|mc, _| {
        let mut checks: Vec<Box<dyn Fn() + '_>> = Vec::new();
        for _ in 0..100 {
            each!(mc, checks,
                1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30
                31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57
                58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80);
        }
        checks.iter().for_each(|check| check());
    });
    assert_eq!(heap.collect().swept_objects, if zeal() { 0 } else { 8000 });
    heap.verify().unwrap();
}

#[test]
fn reports_count_objects_and_bytes() {
    let mut heap: WorldHeap = calm().build(|_| World::default());
    heap.mutate(|mc, world| {
        for id in 0..10 {
            world.nodes.borrow_mut(mc).push(mc.alloc(Node::new(id)));
            mc.alloc(Leaf::new(id));
        }
    });
    let node = size_of::<Node<'static>>() as u64;
    assert_eq!(heap.stats().objects, 20);
    assert_eq!(heap.stats().bytes, 10 * node + 10 * 8);
    let report = heap.collect();
    assert_eq!(report.cycle, 1);
    assert_eq!((report.live_objects, report.live_bytes), (10, 10 * node));
    assert_eq!((report.swept_objects, report.swept_bytes), (10, 80));
    assert_eq!((report.swept_spans, report.emptied_spans), (2, 1));
    let again = heap.collect();
    assert_eq!((again.swept_spans, again.emptied_spans), (1, 0));
    assert_eq!((heap.stats().objects, heap.stats().swept_objects), (10, 10));
}

#[test]
fn empty_heaps_are_collected_and_dropped_like_others() {
    let mut heap = manual_heap();
    assert_eq!(heap.collect().live_objects, 0);
    assert_eq!(heap.collect().cycle, 2);
    heap.verify().unwrap();
}

#[test]
fn a_panicking_trace_sweeps_nothing_and_leaves_the_heap_usable() {
    use sexton::{Branded, Tracer};
    use std::cell::Cell;
    use std::rc::Rc;

    struct Grenade {
        armed: Rc<Cell<bool>>,
    }
    // A hand-written `Trace` that breaks no rule but panics.
    #[expect(unsafe_code, reason = "only a hand-written Trace can panic")]
    // SAFETY: it holds no pointer and implements no `Drop`.
    unsafe impl<'gc> Trace<'gc> for Grenade {
        type Family = Grenade;
        const NEEDS_TRACE: bool = true;
        fn trace(&self, _: &mut Tracer<'_>) {
            if self.armed.get() {
                std::panic::resume_unwind(Box::new("while tracing"));
            }
        }
    }
    #[expect(unsafe_code, reason = "goes with Trace")]
    // SAFETY: it carries no brand.
    unsafe impl Branded for Grenade {
        type At<'gc> = Grenade;
    }

    #[derive(Trace)]
    struct Root<'gc> {
        tokens: GcRefCell<Vec<Gc<'gc, Leaf<Token>>>>,
        grenade: Gc<'gc, Grenade>,
    }
    let (armed, token) = (Rc::new(Cell::new(true)), Token::default());
    let mut heap: Heap<Root<'static>> = Heap::builder().zeal(false).build(|mc| Root {
        tokens: GcRefCell::default(),
        grenade: mc.alloc(Grenade { armed: armed.clone() }),
    });
    heap.mutate(|mc, root| {
        root.tokens.borrow_mut(mc).push(mc.alloc(Leaf::new(token.clone())));
        mc.alloc(Leaf::new(token.clone()));
        assert!(root.grenade.armed.get());
    });
    let panic = catch_unwind(AssertUnwindSafe(|| heap.collect())).expect_err("tracing panics");
    assert_eq!(panic.downcast_ref(), Some(&"while tracing"));
    assert_eq!((token.drops(), heap.stats().cycles), (0, 0));
    heap.mutate(|_, root| assert_eq!(root.tokens.borrow().len(), 1));
    armed.set(false);
    heap.verify().unwrap();
    let report = heap.collect();
    assert_eq!((report.live_objects, report.swept_objects, token.drops()), (2, 1, 1));
    heap.verify().unwrap();
}

/// Where a cycle has most to do differs from heap to heap; none of it is outside of all phases.
#[test]
fn the_phases_of_a_cycle_add_up_to_its_pause() {
    let many = 20_000;
    let mut heap = calm().build(|_| World::default());
    let collect = |of: &str, heap: &mut WorldHeap| {
        let report = heap.collect();
        assert_eq!(phases(&report), report.pause_time, "{of}: {report:?}");
        assert_eq!(heap.last_report().map(|report| phases(&report)), Some(report.pause_time));
    };
    collect("nothing", &mut heap);
    heap.mutate(|mc, _| {
        for id in 0..many {
            assert!(mc.add_cleanup(mc.alloc(Node::new(id)), || {}).stop());
        }
    });
    collect("settled cleanups", &mut heap);
    let roots: Vec<_> = heap.mutate(|mc, _| {
        let node = mc.alloc(Node::new(0));
        (0..many).map(|_| mc.root(node)).collect()
    });
    collect("roots", &mut heap);
    drop(roots);
    collect("roots dropped", &mut heap);
    heap.mutate(|mc, world| {
        for id in 0..many {
            let node = mc.alloc(Node::new(id));
            mc.downgrade(node);
            mc.add_cleanup(node, || {});
            world.nodes.borrow_mut(mc).push(node);
        }
    });
    collect("weak pointers", &mut heap);
    heap.mutate(|mc, world| {
        for node in std::mem::take(&mut *world.nodes.borrow_mut(mc)) {
            mc.add_cleanup_local(node, || {});
            mc.add_cleanup(node, || {});
        }
    });
    collect("cleanups and drop glue", &mut heap);
    heap.mutate(|mc, _| {
        (0..400).for_each(|_| _ = mc.alloc(Leaf::new([0_u64; 1 << 15])));
    });
    for _ in 0..10 {
        collect("regions to release", &mut heap);
    }
    assert!(heap.stats().mapped_bytes < 50 << 20, "regions were released");
}
