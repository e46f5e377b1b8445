//! Strings in the heap, of all lengths.

use std::collections::HashMap;
use std::thread;

use sexton::{GcMutex, GcRefCell, GcStr, Heap, Local, Mode, Mutation, Pacing, Shared, Trace};
use sexton_tests::settings;

#[derive(Trace, Default)]
struct World<'gc> {
    texts: GcMutex<Vec<GcStr<'gc>>>,
}

fn heap<M: Mode>() -> Heap<World<'static>, M>
where
    for<'gc> World<'gc>: sexton::Payload<M>,
{
    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    builder.build(|_| World::default())
}

/// Text of that many bytes, which differs from that of other lengths in all of them.
fn text(len: usize) -> String {
    let letters = ('a'..='z').chain('A'..='Z').cycle().skip(len % 52);
    letters.take(len).collect()
}

/// All that fit into an object of up to some size, and those about the size from which on the bytes
/// are outside.
fn lengths() -> impl Iterator<Item = usize> {
    (0..700).chain((700..8100).step_by(13)).chain(8170..8200).chain([20_000, 1 << 20])
}

fn fill<'gc, M: Mode>(mc: &Mutation<'gc, M>, world: &World<'gc>) {
    for len in lengths() {
        // Garbage between those that stay.
        _ = mc.alloc_str(&text(len + 1));
        let text = mc.alloc_str(&text(len));
        world.texts.lock(mc).push(text);
    }
}

fn check(texts: &[GcStr<'_>]) {
    assert_eq!(texts.len(), lengths().count());
    for (string, len) in texts.iter().zip(lengths()) {
        assert_eq!(string.len(), len);
        assert_eq!(*string, *text(len));
    }
}

#[test]
fn strings_of_every_length_stay_as_they_are() {
    let mut heap = heap::<Local>();
    heap.mutate(fill);
    let report = heap.collect();
    assert_eq!(report.live_objects, lengths().count() as u64);
    heap.mutate(|mc, world| check(&world.texts.lock(mc)));
    // In the slots of the dead.
    heap.mutate(|mc, world| {
        let old = world.texts.lock(mc).split_off(0);
        fill(mc, world);
        check(&old);
        check(&world.texts.lock(mc));
    });
    heap.collect();
    heap.mutate(|mc, world| check(&world.texts.lock(mc)));
    heap.verify().unwrap();
}

#[test]
fn strings_of_a_shared_heap_are_read_by_all_threads() {
    let heap = heap::<Shared>();
    heap.attach().mutate(fill);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut mutator = heap.attach();
                mutator.mutate(|mc, world| {
                    let texts = world.texts.lock(mc);
                    thread::scope(|scope| _ = scope.spawn(|| check(&texts)));
                });
                mutator.collect();
                mutator.mutate(|mc, _| (0..1000).for_each(|len| _ = mc.alloc_str(&text(len))));
            });
        }
    });
    let mut mutator = heap.attach();
    assert_eq!(mutator.collect().live_objects, lengths().count() as u64);
    mutator.mutate(|mc, world| check(&world.texts.lock(mc)));
    mutator.verify().unwrap();
}

#[test]
fn a_million_strings_of_up_to_a_hundred_bytes_waste_less_than_15_percent() {
    let mut heap = heap::<Local>();
    let mut bytes = 0;
    heap.mutate(|mc, _| {
        let texts: Vec<String> = (1..=100).map(text).collect();
        for _ in 0..10_000 {
            for text in &texts {
                _ = mc.alloc_str(text);
                bytes += text.len() as u64;
            }
        }
    });
    let stats = heap.stats();
    if !settings::zeal() {
        assert_eq!(stats.objects, 1_000_000);
        let all = stats.bytes;
        assert!((bytes..bytes * 110 / 100).contains(&all), "{all} for {bytes}");
        let resident = stats.resident_bytes;
        assert!(resident < bytes * 115 / 100, "{resident} for {bytes}");
    }
}

#[test]
fn no_string_takes_more_than_an_eighth_beside_its_own_bytes() {
    let builder = Heap::builder().pacing(Pacing::Manual).zeal(false);
    let mut heap: Heap<()> = builder.build(|_| ());
    let mut before = 0;
    for len in 0..=8184 {
        heap.mutate(|mc, ()| _ = mc.alloc_str(&text(len)));
        let bytes = heap.stats().bytes;
        let most = if len < 255 { len + 8 + len / 8 } else { len + 8 + len / 8 + 8 };
        assert!(
            (len + 1..=most).contains(&((bytes - before) as usize)),
            "{len}: {}",
            bytes - before
        );
        before = bytes;
    }
    heap.mutate(|mc, ()| _ = mc.alloc_str(&text(8185)));
    assert_eq!(heap.stats().bytes - before, 24);
    assert_eq!(heap.stats().external_bytes, 8185);
    heap.collect();
    assert_eq!((heap.stats().bytes, heap.stats().external_bytes), (0, 0));
}

#[test]
fn a_string_is_refused_where_there_is_no_room() {
    let mut heap: Heap<()> =
        Heap::builder().max_bytes(1 << 20).pacing(Pacing::Manual).zeal(false).build(|_| ());
    heap.mutate(|mc, ()| {
        assert!(mc.try_alloc_str(&text(2 << 20)).is_err());
        let mut kept = 0;
        while let Ok(string) = mc.try_alloc_str(&text(1000)) {
            kept += string.len();
        }
        assert!(kept > 1 << 19, "{kept}");
    });
    heap.collect();
    heap.mutate(|mc, ()| assert_eq!(mc.alloc_str("again").as_str(), "again"));
}

#[test]
fn strings_compare_and_hash_as_what_they_say() {
    #[derive(Trace, Default)]
    struct Table<'gc>(GcRefCell<HashMap<GcStr<'gc>, u32>>);

    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    let mut heap: Heap<Table<'static>> = builder.build(|_| Table::default());
    heap.mutate(|mc, table| {
        for number in 0..1000 {
            let name = mc.alloc_str(&number.to_string());
            table.0.borrow_mut(mc).insert(name, number);
        }
    });
    assert_eq!(heap.collect().live_objects, 1000);
    heap.mutate(|mc, table| {
        assert_eq!(table.0.borrow().get("77"), Some(&77));
        let (one, other) = (mc.alloc_str("7\u{fc}"), mc.alloc_str("7\u{fc}"));
        assert!(one == other && !one.ptr_eq(other) && one.ptr_eq(one) && one == "7\u{fc}");
        assert!(mc.alloc_str("a") < mc.alloc_str("b"));
        assert_eq!(format!("{one}|{one:?}|{one:>4}|"), "7\u{fc}|\"7\u{fc}\"|  7\u{fc}|");
        assert!(!table.0.borrow().contains_key(&one));
    });
    heap.verify().unwrap();
}
