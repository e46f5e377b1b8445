//! Labels and diagnosis: what a pool and a heap tell about a cleanup that has not run.

use std::sync::{Arc, Mutex};

use sexton::{Activity, CleanupPool, CleanupState, Description, Heap, Pacing};

use crate::world::{Gate, LONG, Node, World, WorldHeap, builder, calm, heap_on, until};

fn diagnostic_heap(pool: &CleanupPool, on: bool) -> WorldHeap {
    builder().cleanup_pool(pool).pacing(Pacing::Manual).diagnostics(on).build(|_| World::default())
}

#[test]
fn a_panic_names_label_and_site_of_its_cleanup() {
    let heard: Arc<Mutex<Vec<Description>>> = Arc::default();
    let notes = heard.clone();
    let pool = CleanupPool::builder()
        .max_workers(0)
        .on_panic(move |panic| notes.lock().unwrap().push(panic.cleanup))
        .build();
    for on in [false, true] {
        let mut heap = diagnostic_heap(&pool, on);
        let boom = || std::panic::resume_unwind(Box::new("on purpose"));
        let line = heap.mutate(|mc, _| {
            mc.add_cleanup_labelled(mc.alloc(Node::new(0)), "a label", boom);
            mc.add_cleanup(mc.alloc(Node::new(1)), boom);
            mc.add_cleanup_with(mc.alloc(Node::new(2)), 5, |n: i32| panic!("{n}"));
            line!() - 3
        });
        heap.collect();
        pool.run_pending(usize::MAX);
        let mut heard = std::mem::take(&mut *heard.lock().unwrap());
        heard.sort_by_key(|cleanup| cleanup.site.map(|site| site.line()));
        assert_eq!(heard.len(), 3);
        assert_eq!(heard.iter().filter(|cleanup| cleanup.label == Some("a label")).count(), 1);
        assert!(heard.iter().all(|cleanup| cleanup.closure.is_some()));
        let lines: Vec<_> = heard.iter().map(|cleanup| cleanup.site.map(|s| s.line())).collect();
        if on {
            assert_eq!(lines, [Some(line), Some(line + 1), Some(line + 2)]);
            assert!(heard.iter().all(|cleanup| cleanup.site.unwrap().file() == file!()));
        } else {
            assert_eq!(lines, [None; 3]);
        }
    }
}

#[test]
fn a_label_ends_with_its_cleanup_and_not_with_its_slot() {
    let pool = CleanupPool::manual();
    let mut heap = heap_on(&pool);
    let labelled =
        heap.mutate(|mc, _| mc.add_cleanup_labelled(mc.alloc(Node::new(0)), "the first", || {}));
    assert_eq!(labelled.description().label, Some("the first"));
    heap.collect();
    pool.run_pending(usize::MAX);
    // Enough to use every free slot again.
    let plain: Vec<_> = heap.mutate(|mc, _| {
        (0..500).map(|at| mc.add_cleanup(mc.alloc(Node::new(at)), || {})).collect()
    });
    assert!(plain.iter().all(|cleanup| cleanup.description() == Description::default()));
    assert_eq!(labelled.state(), CleanupState::Done);
}

#[test]
fn a_dump_shows_each_worker_what_it_runs_and_since_when_and_the_backlog() {
    let pool = CleanupPool::builder().max_workers(2).build();
    let mut heap = diagnostic_heap(&pool, true);
    assert_eq!(
        pool.dump().to_string(),
        "0 of at most 2 workers, 0 asleep; 0 cleanups wait; 0 blocks unclaimed"
    );
    let gate = Gate::default();
    heap.mutate(|mc, _| {
        mc.add_cleanup_labelled(mc.alloc(Node::new(0)), "the door", gate.cleanup());
    });
    heap.collect();
    gate.wait_for(1);
    let first = pool.dump();
    let second = pool.dump();
    assert_eq!(first.runners.len(), 1);
    let age = |dump: &sexton::PoolDump| match dump.runners[0].activity {
        Activity::Running { cleanup, age, block_age, begun, len, requeued, .. } => {
            assert_eq!((cleanup.label, begun, len, requeued), (Some("the door"), 1, 1, false));
            assert!(cleanup.site.is_some() && age <= block_age);
            age
        }
        ref other => panic!("{other:?}"),
    };
    assert!(age(&first) <= age(&second));
    assert_eq!(first.stats.backlog, 1);
    assert!(first.stats.oldest.is_some());
    let text = second.to_string();
    assert!(text.starts_with("1 of at most 2 workers, 0 asleep; 1 cleanups wait, the oldest for "));
    assert!(text.contains("\nworker 0: runs \"the door\", registered at "), "{text}");
    gate.open();
    heap.wait_for_cleanups(LONG).unwrap();
    until("it sleeps", || {
        let runners = pool.dump().runners;
        runners.len() == 1 && matches!(runners[0].activity, Activity::Asleep)
    });
}

#[test]
fn old_roots_are_listed_with_their_sites_and_the_oldest_first() {
    let mut heap: WorldHeap = calm().build(|_| World::default());
    let (first, line) = heap.mutate(|mc, _| (mc.root(mc.alloc(Node::new(0))), line!()));
    heap.collect();
    heap.collect();
    let second = heap.mutate(|mc, _| mc.root(mc.alloc(Node::new(1))));
    heap.collect();
    let clone = first.clone();
    let old = heap.old_roots(1);
    assert_eq!(old.iter().map(|root| root.cycles).collect::<Vec<_>>(), [3, 1]);
    assert_eq!((old[0].site.file(), old[0].site.line()), (file!(), line));
    assert!(old[0].type_name.contains("Node"), "{}", old[0]);
    assert_eq!(heap.old_roots(0).len(), 3, "the clone is young");
    assert_eq!(heap.old_roots(4).len(), 0);
    drop((first, second));
    heap.collect();
    assert_eq!(heap.old_roots(1).len(), 1, "a slot used again is a new root");
    drop(clone);
    let _third = heap.mutate(|mc, _| mc.root(mc.alloc(Node::new(2))));
    assert_eq!(heap.old_roots(1).len(), 0);
}

#[test]
fn a_site_is_that_of_the_user_and_not_of_the_library() {
    let pool = CleanupPool::manual();
    let mut heap: Heap<World<'static>> = diagnostic_heap(&pool, true);
    let cleanup = heap.mutate(|mc, _| mc.add_cleanup(mc.alloc(Node::new(0)), || {}));
    assert_eq!(cleanup.description().site.map(|site| site.file()), Some(file!()));
    assert!(cleanup.description().to_string().contains("diagnosis.rs:"));
}
