//! Mutators that own their heap together with others.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

use sexton::{CleanupPool, Gc, GcMutex, Heap, Leaf, OwnedMutator, Pacing, Shared};
use sexton_tests::settings;

use crate::world::Token;

type Numbers = GcMutex<Vec<Gc<'static, Leaf<u64>>>>;
type NumbersHeap = Heap<Numbers, Shared>;

fn heap() -> Arc<NumbersHeap> {
    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    Arc::new(builder.build(|_| GcMutex::default()))
}

#[test]
fn threads_that_are_not_scoped_share_a_heap() {
    let heap = heap();
    let threads: Vec<_> = (0..3)
        .map(|nth| {
            let heap = heap.clone();
            thread::spawn(move || {
                let mut mutator = heap.attach_owned();
                drop(heap);
                for number in 0..100 {
                    mutator.mutate(|mc, numbers| {
                        mc.alloc(Leaf::new(number));
                        numbers.lock(mc).push(mc.alloc(Leaf::new(100 * nth + number)));
                    });
                }
                assert!(!mutator.gc_pending());
                mutator.verify().unwrap();
                mutator.heap().id()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), heap.id());
    }
    let mut mutator = heap.attach_owned();
    assert_eq!(mutator.collect().live_objects, 300);
    let mut numbers: Vec<u64> =
        mutator.mutate(|mc, numbers| numbers.lock(mc).iter().map(|number| ***number).collect());
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..300));
    assert_eq!(Arc::strong_count(&heap), 2);
    drop(mutator);
    assert_eq!(Arc::strong_count(&heap), 1);
}

#[test]
fn a_thread_has_one_mutator_be_it_owned_or_not() {
    let heap = heap();
    let owned = heap.attach_owned();
    assert!(heap.try_attach().is_err());
    assert!(heap.try_attach_owned().is_err());
    drop(owned);
    let borrowed = heap.attach();
    assert!(heap.try_attach_owned().is_err());
    drop(borrowed);
    let mut owned = heap.try_attach_owned().unwrap();
    owned.mutate(|_, _| assert!(heap.try_attach_owned().is_err()));
}

#[test]
fn the_last_mutator_drops_the_heap_and_runs_its_cleanups() {
    let (pool, token) = (CleanupPool::manual(), Token::default());
    let builder = Heap::builder().cleanup_pool(&pool).zeal(settings::zeal());
    let heap: Heap<GcMutex<Option<Gc<'static, Leaf<Token>>>>, Shared> =
        builder.build(|_| GcMutex::new(None));
    let (done, ran) = mpsc::channel();
    let mut mutator = Arc::new(heap).attach_owned();
    mutator.mutate(|mc, root| {
        let object = mc.alloc(Leaf::new(token.clone()));
        mc.add_cleanup(object, move || done.send(7).unwrap());
        *root.lock(mc) = Some(object);
    });
    mutator.collect();
    assert_eq!(token.drops(), 0);
    drop(mutator);
    assert_eq!(token.drops(), 1);
    assert_eq!(pool.run_pending(usize::MAX), 1);
    assert_eq!(ran.recv(), Ok(7));
}

#[test]
fn a_mutator_may_be_a_thread_local_variable() {
    thread_local! {
        static MUTATOR: RefCell<Option<OwnedMutator<Numbers>>> = RefCell::default();
    }
    let heap = heap();
    let there = heap.clone();
    let work = move || {
        let push = |number| {
            MUTATOR.with_borrow_mut(|mutator| {
                let mutator = mutator.get_or_insert_with(|| there.attach_owned());
                mutator.mutate(|mc, root| root.lock(mc).push(mc.alloc(Leaf::new(number))));
            });
        };
        (0..10).for_each(push);
    };
    thread::spawn(work).join().unwrap();
    // The thread has ended, and its variables have gone.
    assert_eq!(Arc::strong_count(&heap), 1);
    assert_eq!(heap.attach_owned().collect().live_objects, 10);
}

#[test]
fn a_session_that_finds_the_heap_full_is_followed_by_a_collection() {
    let builder = Heap::builder().max_bytes(4 << 20).zeal(settings::zeal());
    let heap: Arc<NumbersHeap> = Arc::new(builder.build(|_| GcMutex::default()));
    let mut mutator = heap.attach_owned();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        mutator
            .mutate(|mc, _| (0..u64::MAX).for_each(|number| _ = mc.alloc(Leaf::new([number; 64]))));
    }));
    assert!(panicked.is_err());
    assert!(heap.stats().objects < 100, "{:?}", heap.stats());
    mutator.mutate(|mc, _| _ = mc.alloc(Leaf::new(7)));
    mutator.verify().unwrap();
}
