//! Pointers whose type the program has forgotten: `GcAny`, addresses, casts.

use std::collections::HashSet;
use std::thread;

use sexton::{
    Gc, GcAny, GcAtomic, GcCell, GcMutex, GcRefCell, Heap, Leaf, Pacing, Shared, Trace, Weak,
};
use sexton_tests::settings;

use crate::world::Token;

#[derive(Trace)]
struct Pair<'gc> {
    left: GcCell<Option<GcAny<'gc>>>,
    right: GcCell<Option<GcAny<'gc>>>,
}

/// An integer as large as a `Pair`, and a type that differs from it by its parameter only.
#[derive(Trace)]
struct Generic<T> {
    value: T,
}

#[derive(Trace, Default)]
struct World<'gc> {
    values: GcRefCell<Vec<GcAny<'gc>>>,
}

fn heap() -> Heap<World<'static>> {
    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    builder.build(|_| World::default())
}

#[test]
fn the_way_back_is_to_the_type_that_was_allocated_and_to_no_other() {
    let mut heap = heap();
    heap.mutate(|mc, world| {
        let pair = mc.alloc(Pair { left: GcCell::new(None), right: GcCell::new(None) });
        let mut values = world.values.borrow_mut(mc);
        values.push(mc.alloc(Leaf::new(7_u64)).into());
        values.push(mc.alloc(7_u64).into());
        values.push(mc.alloc(()).into());
        values.push(mc.alloc([0_u64; 4096]).into());
        values.push(mc.alloc([0_u64; 1 << 16]).into());
        values.push(mc.alloc(Generic { value: 7_u32 }).into());
        values.push(mc.alloc(Generic { value: pair }).into());
        values.push(pair.into());
    });
    heap.collect();
    heap.mutate(|_, world| {
        for (at, &value) in world.values.borrow().iter().enumerate() {
            let is = [
                value.is::<Leaf<u64>>(),
                value.is::<u64>(),
                value.is::<()>(),
                value.is::<[u64; 4096]>(),
                value.is::<[u64; 1 << 16]>(),
                value.is::<Generic<u32>>(),
                value.is::<Generic<Gc<'_, Pair<'_>>>>(),
                value.is::<Pair<'_>>(),
            ];
            assert!(is.iter().enumerate().all(|(nth, &is)| is == (nth == at)), "{at}: {is:?}");
            assert!(!value.is::<Generic<u64>>() && !value.is::<i64>());
        }
        let values = world.values.borrow();
        assert_eq!(**values[0].downcast::<Leaf<u64>>().unwrap(), 7);
        assert_eq!(values[5].downcast::<Generic<u32>>().unwrap().value, 7);
        let pair = values[6].downcast::<Generic<Gc<'_, Pair<'_>>>>().unwrap().value;
        assert_eq!(GcAny::from(pair), values[7]);
        assert_eq!(Gc::as_ptr(pair).cast::<()>(), values[7].as_ptr());
        assert!(values[7].type_name().contains("Pair"), "{:?}", values[7]);
        assert_eq!(values.iter().collect::<HashSet<_>>().len(), values.len());
    });
}

#[test]
fn erased_pointers_keep_their_objects_and_what_these_reach() {
    let token = Token::default();
    let mut heap = heap();
    heap.mutate(|mc, world| {
        let mut list: GcAny<'_> = mc.alloc(Leaf::new(token.clone())).into();
        for _ in 0..1000 {
            let (left, right) = (Some(list), Some(mc.alloc(Leaf::new(token.clone())).into()));
            list = mc.alloc(Pair { left: GcCell::new(left), right: GcCell::new(right) }).into();
        }
        world.values.borrow_mut(mc).push(list);
    });
    assert_eq!(heap.collect().live_objects, 2001);
    heap.mutate(|mc, world| {
        let pair = world.values.borrow()[0].downcast::<Pair<'_>>().unwrap();
        let below = pair.left.get().unwrap().downcast::<Pair<'_>>().unwrap();
        // Overwritten, and so looked at by a cycle that may be under way.
        pair.left.set(mc, below.left.get());
    });
    heap.collect();
    assert_eq!((token.drops(), heap.stats().objects), (1, 1999));
    heap.mutate(|mc, world| world.values.borrow_mut(mc).clear());
    heap.collect();
    assert_eq!((token.drops(), heap.stats().objects), (1001, 0));
}

#[test]
fn erased_pointers_of_a_shared_heap_go_from_thread_to_thread() {
    type Root<'gc> = GcMutex<Vec<GcAny<'gc, Shared>>>;
    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    let heap: Heap<Root<'static>, Shared> = builder.build(|_| GcMutex::default());
    thread::scope(|scope| {
        for number in 0..4_u64 {
            let heap = &heap;
            scope.spawn(move || {
                heap.attach().mutate(|mc, root| {
                    let value = mc.alloc(Leaf::new(number));
                    let other = mc.alloc(GcAtomic::new(Some(value)));
                    let mut values = root.lock(mc);
                    values.push(value.into());
                    values.push(other.into());
                });
                _ = heap.attach().collect();
            });
        }
    });
    let mut mutator = heap.attach();
    assert_eq!(mutator.collect().live_objects, 8);
    let sum: u64 = mutator.mutate(|mc, root| {
        let values = root.lock(mc).clone();
        thread::scope(|scope| {
            let numbers = || values.iter().filter_map(|value| value.downcast::<Leaf<u64>>());
            scope.spawn(move || numbers().map(|number| **number).sum()).join().unwrap()
        })
    });
    assert_eq!(sum, 6);
    mutator.verify().unwrap();
}

#[test]
fn addresses_have_room_for_a_tag_of_three_bits() {
    let mut heap = heap();
    heap.mutate(|mc, _| {
        for _ in 0..100 {
            let addresses: [GcAny<'_>; 5] = [
                mc.alloc(()).into(),
                mc.alloc(1_u8).into(),
                mc.alloc([1_u8; 9]).into(),
                mc.alloc([1_u16; 13]).into(),
                mc.alloc(Leaf::new([1_u8; 70_001])).into(),
            ];
            assert!(addresses.iter().all(|any| any.as_ptr().addr() % 8 == 0), "{addresses:?}");
        }
    });
}

#[test]
fn a_weak_pointer_tells_without_a_session_that_it_is_cleared() {
    #[derive(Trace, Default)]
    struct Table<'gc>(GcRefCell<Vec<Weak<'gc, Leaf<u32>>>>, GcCell<Option<Gc<'gc, Leaf<u32>>>>);

    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    let mut heap: Heap<Table<'static>> = builder.build(|_| Table::default());
    heap.mutate(|mc, Table(table, kept)| {
        let values = (0..10).map(|number| mc.alloc(Leaf::new(number)));
        let weaks = values.map(|value| {
            kept.set(mc, Some(value));
            mc.downgrade(value)
        });
        let weaks: Vec<_> = weaks.collect();
        assert!(weaks.iter().all(|weak| !weak.is_cleared()));
        *table.borrow_mut(mc) = weaks;
    });
    heap.collect();
    heap.mutate(|mc, Table(table, kept)| {
        let mut table = table.borrow_mut(mc);
        assert_eq!(table.len(), 10);
        for weak in &*table {
            assert_eq!(weak.is_cleared(), weak.upgrade(mc).is_none());
        }
        table.retain(|weak| !weak.is_cleared());
        let [left] = table[..] else { panic!("{table:?}") };
        assert!(Gc::ptr_eq(left.upgrade(mc).unwrap(), kept.get().unwrap()));
        assert!(left.ptr_eq(mc.downgrade(kept.get().unwrap())));
    });
}
