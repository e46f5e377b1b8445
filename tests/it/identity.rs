//! What pointers say of themselves: their text, which follows nothing, and keys, which compare
//! identities.

use std::collections::{BTreeSet, HashMap, HashSet};

use sexton::{
    Gc, GcAtomic, GcCell, GcKey, GcMutex, GcOnce, GcRefCell, GcRwLock, Heap, Leaf, Shared, Trace,
    Weak,
};

use crate::world::calm;

/// Leads to itself by every building block.
#[derive(Trace, Debug)]
struct Knot<'gc> {
    cell: GcCell<Option<Gc<'gc, Knot<'gc>>>>,
    ref_cell: GcRefCell<Vec<Gc<'gc, Knot<'gc>>>>,
    mutex: GcMutex<Option<Gc<'gc, Knot<'gc>>>>,
    lock: GcRwLock<Option<GcKey<'gc, Knot<'gc>>>>,
    once: GcOnce<Gc<'gc, Knot<'gc>>>,
    atomic: GcAtomic<'gc, Knot<'gc>>,
    weak: GcCell<Option<Weak<'gc, Knot<'gc>>>>,
}

impl Knot<'_> {
    fn new() -> Self {
        Knot {
            cell: GcCell::default(),
            ref_cell: GcRefCell::default(),
            mutex: GcMutex::default(),
            lock: GcRwLock::default(),
            once: GcOnce::new(),
            atomic: GcAtomic::default(),
            weak: GcCell::default(),
        }
    }
}

#[test]
fn the_text_of_a_cycle_names_types_and_addresses_and_follows_nothing() {
    let mut heap: Heap<()> = calm().build(|_| ());
    heap.mutate(|mc, ()| {
        let knot = mc.alloc(Knot::new());
        knot.cell.set(mc, Some(knot));
        knot.ref_cell.borrow_mut(mc).push(knot);
        *knot.mutex.lock(mc) = Some(knot);
        *knot.lock.write(mc) = Some(Gc::key(knot));
        assert!(knot.once.set(mc, knot).is_ok());
        knot.atomic.store(mc, Some(knot));
        let weak = mc.downgrade(knot);
        knot.weak.set(mc, Some(weak));

        let name = std::any::type_name::<Knot<'_>>();
        let pointer = format!("Gc<{name}>({:p})", Gc::as_ptr(knot));
        assert_eq!(format!("{knot:?}"), pointer);
        let text = format!("{:?}", *knot);
        let key = pointer.replace("Gc<", "GcKey<");
        for part in [
            format!("cell: GcCell(Some({pointer}))"),
            format!("ref_cell: GcRefCell([{pointer}])"),
            format!("mutex: GcMutex(Some({pointer}))"),
            format!("lock: GcRwLock(Some({key}))"),
            format!("once: GcOnce({pointer})"),
            format!("atomic: GcAtomic(Some({pointer}))"),
            format!("weak: GcCell(Some(Weak<{name}>(0x"),
        ] {
            assert!(text.contains(&part), "no {part} in {text}");
        }
        let root = format!("{:?}", mc.root(knot));
        let address = format!("({:p} in heap #", Gc::as_ptr(knot));
        assert!(root.starts_with("Root<") && root.contains(&address), "{root}");

        let (_borrowed, _locked, _written) =
            (knot.ref_cell.borrow_mut(mc), knot.mutex.lock(mc), knot.lock.write(mc));
        let text = format!("{:?} {:?}", *knot, Knot::new());
        for part in ["GcRefCell(<borrowed>)", "GcMutex(<locked>)", "GcRwLock(<locked>)"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(text.contains("GcOnce(<unset>)") && text.contains("GcAtomic(None)"), "{text}");
    });
    let shared: Heap<(), Shared> = Heap::new(|_| ());
    let root = shared.attach().mutate(|mc, ()| shared.share(&mc.root(mc.alloc(Leaf::new(1)))));
    let text = format!("{root:?}");
    assert!(text.starts_with("SharedRoot<") && text.contains(" in heap #"), "{text}");
}

#[test]
fn keys_tell_objects_apart_whose_values_are_equal() {
    let mut heap: Heap<()> = calm().build(|_| ());
    heap.mutate(|mc, ()| {
        let numbers: Vec<_> = (0..100).map(|_| mc.alloc(7_u64)).collect();
        let empty: Vec<_> = (0..100).map(|_| mc.alloc(())).collect();
        assert!(numbers[0] == numbers[1] && Gc::key(numbers[0]) != Gc::key(numbers[1]));
        let hashed: HashSet<_> = numbers.iter().map(|&gc| Gc::key(gc)).collect();
        let ordered: BTreeSet<_> = empty.iter().map(|&gc| GcKey::from(gc)).collect();
        assert_eq!((hashed.len(), ordered.len()), (100, 100));
        for &gc in &numbers {
            assert!(hashed.contains(&Gc::key(gc)));
            assert!(hashed.get(&Gc::key(gc)).unwrap().gc().ptr_eq(gc));
        }
        assert!(empty.iter().all(|&gc| ordered.contains(&Gc::key(gc))));
        assert!(!hashed.contains(&Gc::key(mc.alloc(7_u64))));
    });
}

#[derive(Trace, Default)]
struct Maps<'gc> {
    strong: GcRefCell<HashMap<GcKey<'gc, Leaf<u64>>, u64>>,
    weak: GcRefCell<HashMap<Weak<'gc, Leaf<u64>>, u64>>,
}

#[test]
fn maps_in_payloads_have_keys_that_keep_their_objects_and_weak_ones_that_outlive_them() {
    let mut heap: Heap<Maps<'static>> = calm().build(|_| Maps::default());
    heap.mutate(|mc, maps| {
        for id in 0..100 {
            let kept = mc.alloc(Leaf::new(id));
            maps.strong.borrow_mut(mc).insert(Gc::key(kept), id);
            let (live, dead) = (mc.downgrade(kept), mc.downgrade(mc.alloc(Leaf::new(id + 100))));
            assert!(live == mc.downgrade(kept) && live != dead && live.cmp(&dead).is_ne());
            maps.weak.borrow_mut(mc).extend([(live, id), (dead, id + 100)]);
        }
    });
    let report = heap.collect();
    assert_eq!((report.live_objects, report.live_weak_records), (100, 200));
    assert_eq!(report.cleared_weaks, 100);
    heap.verify().unwrap();
    heap.mutate(|mc, maps| {
        // New objects take the places of the dead, and are none of the keys.
        for _ in 0..100 {
            let new = mc.alloc(Leaf::new(0));
            assert!(!maps.strong.borrow().contains_key(&Gc::key(new)));
            assert!(!maps.weak.borrow().contains_key(&mc.downgrade(new)));
        }
        for (key, &id) in &*maps.strong.borrow() {
            assert_eq!(**key.gc(), id);
            assert_eq!(maps.weak.borrow()[&mc.downgrade(key.gc())], id);
        }
        let keys: Vec<_> = maps.weak.borrow().iter().map(|(&weak, &id)| (weak, id)).collect();
        for (weak, id) in keys {
            assert_eq!(weak.upgrade(mc).is_some(), id < 100);
            assert_eq!(maps.weak.borrow()[&weak], id, "dead or alive");
        }
    });
}
