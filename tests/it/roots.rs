//! Dynamic roots.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::{Gc, GcCell, Leaf, Root, Trace};

use crate::world::{Node, manual_heap};

#[test]
fn a_root_keeps_its_object_and_all_it_reaches_until_it_is_dropped() {
    let mut heap = manual_heap();
    let root = heap.mutate(|mc, _| {
        let inner = mc.alloc(Node::new(1));
        mc.root(mc.alloc(Node::before(2, Some(inner))))
    });
    assert_eq!(heap.collect().live_objects, 2);
    heap.mutate(|mc, _| {
        let node = mc.fetch(&root);
        assert_eq!((node.id, node.next.get().unwrap().id), (2, 1));
    });
    drop(root);
    assert_eq!(heap.collect().swept_objects, 2);
}

#[test]
fn each_clone_of_a_root_keeps_the_object() {
    let mut heap = manual_heap();
    let root = heap.mutate(|mc, _| mc.root(mc.alloc(Node::new(1))));
    let clone = root.clone();
    drop(root);
    assert_eq!(heap.collect().live_objects, 1);
    assert_eq!(heap.stats().roots, 1);
    assert_eq!(heap.mutate(|mc, _| mc.fetch(&clone).id), 1);
    drop(clone);
    assert_eq!(heap.collect().live_objects, 0);
}

#[test]
fn a_roots_type_is_inferred_and_can_be_named() {
    #[derive(Trace)]
    struct Pair<'gc, T> {
        left: Gc<'gc, T>,
        right: Option<Gc<'gc, T>>,
    }
    let mut heap = manual_heap();
    let root: Root<Pair<'static, Leaf<String>>> = heap.mutate(|mc, _| {
        let left = mc.alloc(Leaf::new("left".to_owned()));
        mc.root(mc.alloc(Pair { left, right: None }))
    });
    heap.collect();
    heap.mutate(|mc, _| {
        let pair = mc.fetch(&root);
        assert_eq!(pair.left.as_str(), "left");
        assert!(pair.right.is_none());
    });
}

#[test]
fn a_root_fetched_in_another_heap_panics_with_both_heaps() {
    let mut mine = manual_heap();
    let mut other = manual_heap();
    let root = mine.mutate(|mc, _| mc.root(mc.alloc(Node::new(1))));
    let panic = catch_unwind(AssertUnwindSafe(|| other.mutate(|mc, _| mc.fetch(&root).id)))
        .expect_err("fetching in another heap");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(
        message.contains(&mine.id().to_string()) && message.contains(&other.id().to_string()),
        "{message}"
    );
    // Neither heap is the worse for it.
    assert_eq!(mine.mutate(|mc, _| mc.fetch(&root).id), 1);
    other.verify().unwrap();
}

#[test]
fn a_root_may_outlive_its_heap() {
    let mut heap = manual_heap();
    let root = heap.mutate(|mc, _| mc.root(mc.alloc(Node::new(1))));
    drop(heap);
    let clone = root.clone();
    drop(root);
    let mut other = manual_heap();
    let fetched = catch_unwind(AssertUnwindSafe(|| other.mutate(|mc, _| mc.fetch(&clone).id)));
    assert!(fetched.is_err());
}

#[test]
fn a_root_kept_in_a_leaf_pins_its_object() {
    let mut heap = manual_heap();
    heap.mutate(|mc, _| {
        let cell = mc.alloc(GcCell::new(1u32));
        let root = mc.root(cell);
        mc.alloc(Leaf::new(root));
    });
    // The leaf dies, and its root with it; the object goes a cycle later.
    let first = heap.collect().swept_objects;
    let second = heap.collect().swept_objects;
    assert_eq!(heap.stats().objects, 0, "{first} {second}");
}
