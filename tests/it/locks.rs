//! The locks of payloads: what they lend, and a session that would wait for itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::{
    Gc, GcAtomic, GcCell, GcMutex, GcMutexGuard, GcOnce, GcRefCell, GcRwLock, GcRwLockReadGuard,
    GcRwLockWriteGuard, Heap, Leaf, Shared, Trace,
};
use sexton_tests::quiet::quietly;

/// What `f` panics with.
#[track_caller]
fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let payload = quietly(|| catch_unwind(AssertUnwindSafe(|| drop(f()))));
    let payload = payload.expect_err("it should have panicked");
    payload.downcast_ref::<String>().expect("a formatted message").clone()
}

#[track_caller]
fn assert_has(message: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn a_second_lock_in_a_local_heap_panics_and_says_what_to_do() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, ()| {
        let mutex = mc.alloc(GcMutex::new(1_u32));
        let held = mutex.lock(mc);
        let message = panic_of(|| mutex.lock(mc));
        assert_has(&message, &["GcMutex<u32>", "Local", "drop the guard", "`try_lock`"]);
        drop(held);
        drop(mutex.lock(mc));

        let lock = mc.alloc(GcRwLock::new(1_u32));
        let (one, other) = (lock.read(mc), lock.read(mc));
        let message = panic_of(|| lock.write(mc));
        assert_has(&message, &["GcRwLock<u32>", "Local", "drop the guard", "`try_write`"]);
        drop((one, other));
        let held = lock.write(mc);
        assert_has(&panic_of(|| lock.write(mc)), &["GcRwLock<u32>", "`try_write`"]);
        assert_has(&panic_of(|| lock.read(mc)), &["GcRwLock<u32>", "`try_read`"]);
        drop(held);
        drop(lock.write(mc));
    });
    // A session that ends by such a panic leaves no lock behind.
    let mut heap: Heap<GcMutex<u32>> = Heap::new(|_| GcMutex::new(1));
    panic_of(|| {
        heap.mutate(|mc, root| {
            let _one = root.lock(mc);
            let _other = root.lock(mc);
        });
    });
    assert_eq!(heap.mutate(|mc, root| *root.lock(mc)), 1);
}

/// In a heap of either mode.
macro_rules! set_within_itself {
    ($mc:expr) => {{
        let mc = $mc;
        let (once, another) = (mc.alloc(GcOnce::new()), mc.alloc(GcOnce::new()));
        let init = || once.get_or_init(mc, || *once.get_or_init(mc, || 1_u32));
        assert_has(&panic_of(init), &["GcOnce<u32>", "`get_or_init`"]);
        let set = || once.get_or_init(mc, || once.set(mc, 1).map_or(2, |()| 3));
        assert_has(&panic_of(set), &["GcOnce<u32>"]);
        // It is not set, and can be, of what another one is set to.
        assert_eq!(once.get(), None);
        let value = *once.get_or_init(mc, || *another.get_or_init(mc, || 4) + 1);
        assert_eq!((value, another.get(), once.set(mc, 6)), (5, Some(&4), Err(6)));
        assert_eq!(*once.get_or_init(mc, || unreachable!("it is set")), 5);
    }};
}

#[test]
fn a_field_that_is_set_while_this_thread_is_setting_it_panics() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, ()| set_within_itself!(mc));
    let heap: Heap<(), Shared> = Heap::new(|_| ());
    heap.attach().mutate(|mc, ()| set_within_itself!(mc));
}

#[test]
fn guards_of_parts_hold_the_lock_until_they_are_dropped() {
    let mut heap: Heap<()> = Heap::new(|_| ());
    heap.mutate(|mc, ()| {
        let mutex = mc.alloc(GcMutex::new(vec![1, 2, 3]));
        let mut part = GcMutexGuard::map(mutex.lock(mc), |list| &mut list[1..]);
        part[0] = 5;
        assert!(mutex.try_lock(mc).is_none());
        let mut last = GcMutexGuard::filter_map(part, |list| list.last_mut()).unwrap();
        *last += 1;
        assert_eq!(format!("{last} {last:?}"), "4 4");
        let last = GcMutexGuard::filter_map(last, |_| None::<&mut u8>).unwrap_err();
        assert_eq!((*last, mutex.try_lock(mc).is_none()), (4, true));
        drop(last);
        assert_eq!(*mutex.try_lock(mc).unwrap(), [1, 5, 4]);

        let lock = mc.alloc(GcRwLock::new((String::from("one"), 2)));
        let mut part = GcRwLockWriteGuard::map(lock.write(mc), |pair| &mut pair.0);
        part.push('!');
        assert!(lock.try_read(mc).is_none());
        let part = GcRwLockWriteGuard::filter_map(part, |_| None::<&mut u8>).unwrap_err();
        drop(GcRwLockWriteGuard::filter_map(part, |text| text.get_mut(..1)).unwrap());
        let part = GcRwLockReadGuard::map(lock.read(mc), |pair| pair.0.as_str());
        assert_eq!(format!("{part} {part:?}"), "one! \"one!\"");
        let part = GcRwLockReadGuard::filter_map(part, |_| None::<&u8>).unwrap_err();
        let part = GcRwLockReadGuard::filter_map(part, |text| text.get(3..)).unwrap();
        assert_eq!((&*part, lock.try_write(mc).is_none()), ("!", true));
        assert!(lock.try_read(mc).is_some());
        drop(part);
        assert!(lock.try_write(mc).is_some());

        // A panic of the function leaves nothing locked.
        panic_of(|| GcMutexGuard::map(mutex.lock(mc), |list| &mut list[7]));
        assert!(mutex.try_lock(mc).is_some());
    });
}

#[test]
fn guards_are_two_words_or_six_and_none_takes_no_more() {
    assert_eq!(size_of::<GcRwLockReadGuard<'_, u8>>(), 16);
    assert_eq!(size_of::<Option<GcRwLockReadGuard<'_, u8>>>(), 16);
    // Four of them are for what the value comes to own outside the heap.
    assert_eq!(size_of::<GcMutexGuard<'_, u8>>(), 48);
    assert_eq!(size_of::<GcRwLockWriteGuard<'_, u8>>(), 48);
    assert_eq!(size_of::<Option<GcMutexGuard<'_, u8>>>(), 48);
}

#[derive(Trace)]
struct Cells<'gc> {
    cell: GcCell<Option<Gc<'gc, Leaf<u32>>>>,
    ref_cell: GcRefCell<Vec<Gc<'gc, Leaf<u32>>>>,
    mutex: GcMutex<Vec<Gc<'gc, Leaf<u32>>>>,
    lock: GcRwLock<Vec<Gc<'gc, Leaf<u32>>>>,
    once: GcOnce<Gc<'gc, Leaf<u32>>>,
    atomic: GcAtomic<'gc, Leaf<u32>>,
    unset: GcAtomic<'gc, Leaf<u32>>,
}

impl<'gc> Cells<'gc> {
    fn new(gc: Gc<'gc, Leaf<u32>>) -> Self {
        let once = GcOnce::new();
        Cells {
            cell: GcCell::default(),
            ref_cell: GcRefCell::default(),
            mutex: GcMutex::default(),
            lock: GcRwLock::default(),
            once,
            atomic: GcAtomic::default(),
            unset: GcAtomic::new(Some(gc)),
        }
    }
}

/// What all pointers of it lead to.
fn numbers(cells: Cells<'_>) -> Vec<u32> {
    let Cells { cell, ref_cell, mutex, lock, once, atomic, unset } = cells;
    let lists = [ref_cell.into_inner(), mutex.into_inner(), lock.into_inner()];
    let fields = [cell.into_inner(), once.into_inner(), atomic.into_inner(), unset.into_inner()];
    fields.into_iter().flatten().chain(lists.into_iter().flatten()).map(|gc| **gc).collect()
}

#[test]
fn what_is_in_no_heap_yet_is_changed_without_a_session_and_traced_in_the_heap() {
    let mut heap: Heap<GcCell<Option<Gc<'static, Cells<'static>>>>> =
        Heap::new(|_| GcCell::new(None));
    let changed = heap.mutate(|mc, root| {
        let new = |number| mc.alloc(Leaf::new(number));
        let make = |first| {
            let mut cells = Cells::new(new(0));
            assert!(cells.once.get_mut().is_none() && cells.atomic.get_mut().is_none());
            assert!(cells.once.set(mc, new(0)).is_ok());
            *cells.cell.get_mut() = Some(new(first));
            *cells.once.get_mut().unwrap() = new(first + 1);
            *cells.atomic.get_mut() = Some(new(first + 2));
            assert_eq!(**cells.unset.get_mut().unwrap(), 0);
            cells.unset.get_mut().take();
            cells.ref_cell.get_mut().push(new(first + 3));
            cells.mutex.get_mut().push(new(first + 4));
            cells.lock.get_mut().push(new(first + 5));
            cells
        };
        root.set(mc, Some(mc.alloc(make(1))));
        numbers(make(7))
    });
    assert_eq!(changed, [7, 8, 9, 10, 11, 12]);
    assert_eq!(heap.collect().live_objects, 7);
    heap.mutate(|mc, root| {
        let cells = root.get().unwrap();
        let fields = [cells.cell.get(), cells.once.get().copied(), cells.atomic.load()];
        assert_eq!(fields.map(|gc| **gc.unwrap()), [1, 2, 3]);
        assert!(cells.unset.load().is_none());
        let lists = (cells.ref_cell.borrow()[0], cells.mutex.lock(mc)[0], cells.lock.read(mc)[0]);
        assert_eq!((**lists.0, **lists.1, **lists.2), (4, 5, 6));
    });
}
