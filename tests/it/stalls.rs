//! Stalled cleanups: each costs itself, and its pool says which one it is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sexton::{CleanupPool, SlowCleanup, WaitError};

use crate::world::{Counter, Gate, LONG, Node, heap_on, until};

#[test]
fn one_cleanup_that_blocks_for_ever_among_two_thousand_costs_exactly_itself() {
    // With the settings a user gets.
    let pool = CleanupPool::builder().max_workers(2).build();
    for stalled in [0, 700, 1999] {
        let mut heap = heap_on(&pool);
        let (ran, gate) = (Counter::default(), Gate::default());
        heap.mutate(|mc, _| {
            for at in 0..2000 {
                let object = mc.alloc(Node::new(at));
                if at == stalled {
                    mc.add_cleanup(object, gate.cleanup());
                } else {
                    mc.add_cleanup(object, ran.cleanup());
                }
            }
        });
        heap.collect();
        // No registration, collection or wait follows: only looking.
        until("all others have run", || ran.get() == 1999);
        assert_eq!(heap.stats().cleanups.backlog, 1);
        assert_eq!(
            heap.wait_for_cleanups(Duration::from_millis(1)),
            Err(WaitError::Timeout { pending: 1 })
        );
        gate.open();
        heap.wait_for_cleanups(LONG).unwrap();
    }
}

#[test]
fn a_cleanup_that_blocks_does_not_hold_up_other_heaps_of_the_pool() {
    let pool = CleanupPool::builder().max_workers(2).build();
    let (gate, ran) = (Gate::default(), Counter::default());
    let mut stalled = heap_on(&pool);
    stalled.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), gate.cleanup()));
    stalled.collect();
    gate.wait_for(1);
    let mut other = heap_on(&pool);
    other.mutate(|mc, _| {
        for at in 0..1000 {
            mc.add_cleanup(mc.alloc(Node::new(at)), ran.cleanup());
        }
    });
    other.collect();
    other.wait_for_cleanups(LONG).unwrap();
    assert_eq!(ran.get(), 1000);
    gate.open();
}

#[test]
fn the_hook_for_slow_cleanups_names_label_site_and_age() {
    let heard: Arc<Mutex<Vec<SlowCleanup>>> = Arc::default();
    let notes = heard.clone();
    let after = Duration::from_millis(5);
    let pool = CleanupPool::builder()
        .max_workers(1)
        .on_slow(after, move |slow| notes.lock().unwrap().push(*slow))
        .build();
    let mut heap = sexton::Heap::<crate::world::World<'static>>::builder()
        .cleanup_pool(&pool)
        .diagnostics(true)
        .build(|_| Default::default());
    let gate = Gate::default();
    let line = heap.mutate(|mc, _| {
        mc.add_cleanup_labelled(mc.alloc(Node::new(0)), "the door", gate.cleanup());
        line!() - 1
    });
    heap.collect();
    until("it is reported", || !heard.lock().unwrap().is_empty());
    gate.open();
    heap.wait_for_cleanups(LONG).unwrap();
    let heard = heard.lock().unwrap();
    let [slow] = heard[..] else { panic!("reported once: {heard:?}") };
    let site = slow.cleanup.site.expect("diagnostic mode");
    assert_eq!(slow.cleanup.label, Some("the door"));
    assert_eq!((site.file(), site.line()), (file!(), line));
    assert!(slow.age >= after);
    let text = slow.to_string();
    assert!(text.starts_with("cleanup \"the door\", registered at "), "{text}");
    assert!(text.contains(" has run for "), "{text}");
}
