//! Weak pointers.

use std::sync::mpsc;

use sexton::{Gc, GcCell, GcRefCell, Heap, Pacing, Trace, Weak};

use crate::world::{LONG, Node, Token, calm};

#[derive(Trace, Default)]
struct World<'gc> {
    strong: GcRefCell<Vec<Gc<'gc, Node<'gc>>>>,
    weak: GcRefCell<Vec<Weak<'gc, Node<'gc>>>>,
}

fn heap() -> Heap<World<'static>> {
    calm().build(|_| World::default())
}

#[test]
fn a_weak_pointer_upgrades_exactly_while_its_target_lives() {
    let mut heap = heap();
    heap.mutate(|mc, world| {
        for id in 0..1000 {
            let node = mc.alloc(Node::new(id));
            world.weak.borrow_mut(mc).push(mc.downgrade(node));
            if id % 3 == 0 {
                world.strong.borrow_mut(mc).push(node);
            }
        }
    });
    let report = heap.collect();
    assert_eq!(report.cleared_weaks, 666);
    heap.verify().unwrap();
    heap.mutate(|mc, world| {
        for (id, weak) in world.weak.borrow().iter().enumerate() {
            let upgraded = weak.upgrade(mc).map(|node| node.id as usize);
            assert_eq!(upgraded, (id % 3 == 0).then_some(id));
        }
        world.strong.borrow_mut(mc).clear();
    });
    assert_eq!(heap.collect().cleared_weaks, 334);
    heap.mutate(|mc, world| {
        assert!(world.weak.borrow().iter().all(|weak| weak.upgrade(mc).is_none()));
    });
    heap.verify().unwrap();
}

#[test]
fn a_cleared_pointer_stays_cleared_when_the_slot_is_used_again() {
    let mut heap = heap();
    heap.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        world.weak.borrow_mut(mc).push(mc.downgrade(node));
    });
    heap.collect();
    heap.mutate(|mc, world| {
        for id in 0..5000 {
            world.strong.borrow_mut(mc).push(mc.alloc(Node::new(id)));
        }
        assert!(world.weak.borrow()[0].upgrade(mc).is_none());
    });
}

#[test]
fn a_target_has_one_record_however_often_it_is_downgraded() {
    let mut heap = heap();
    heap.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        world.strong.borrow_mut(mc).push(node);
        for _ in 0..100 {
            world.weak.borrow_mut(mc).push(mc.downgrade(node));
        }
        let weaks = world.weak.borrow();
        assert!(weaks.iter().all(|weak| weak.ptr_eq(weaks[0])));
    });
    assert_eq!((heap.stats().objects, heap.stats().weak_records), (1, 1));
}

#[test]
fn records_go_when_their_last_weak_pointer_does() {
    let mut heap = heap();
    heap.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        world.strong.borrow_mut(mc).push(node);
        world.weak.borrow_mut(mc).push(mc.downgrade(node));
    });
    assert_eq!(heap.collect().live_weak_records, 1);
    heap.mutate(|mc, world| world.weak.borrow_mut(mc).clear());
    let report = heap.collect();
    assert_eq!((report.live_objects, report.live_weak_records), (1, 0));
    heap.verify().unwrap();
    // The target can be downgraded anew.
    heap.mutate(|mc, world| {
        let node = world.strong.borrow()[0];
        let weak = mc.downgrade(node);
        assert!(weak.upgrade(mc).is_some_and(|upgraded| upgraded.ptr_eq(node)));
        world.weak.borrow_mut(mc).push(weak);
    });
    assert_eq!(heap.collect().live_weak_records, 1);
}

#[test]
fn a_weak_pointer_in_garbage_is_garbage() {
    #[derive(Trace)]
    struct Back<'gc> {
        parent: GcCell<Option<Weak<'gc, Back<'gc>>>>,
        child: GcCell<Option<Gc<'gc, Back<'gc>>>>,
    }
    let mut heap: Heap<()> = Heap::builder().pacing(Pacing::Manual).build(|_| ());
    heap.mutate(|mc, _| {
        let child = mc.alloc(Back { parent: GcCell::default(), child: GcCell::default() });
        let parent = mc.alloc(Back { parent: GcCell::default(), child: GcCell::new(Some(child)) });
        child.parent.set(mc, Some(mc.downgrade(parent)));
        assert!(child.parent.get().unwrap().upgrade(mc).unwrap().ptr_eq(parent));
        assert!(parent.child.get().is_some());
    });
    heap.collect();
    assert_eq!((heap.stats().objects, heap.stats().weak_records), (0, 0));
}

#[test]
fn it_is_cleared_when_a_cleanup_of_its_target_runs() {
    let mut heap = heap();
    let (send, receive) = mpsc::channel();
    heap.mutate(|mc, world| {
        let node = mc.alloc(Node::new(1));
        world.weak.borrow_mut(mc).push(mc.downgrade(node));
        mc.add_cleanup(node, move || send.send(()).unwrap());
    });
    heap.collect();
    receive.recv_timeout(LONG).expect("the cleanup runs");
    heap.mutate(|mc, world| assert!(world.weak.borrow()[0].upgrade(mc).is_none()));
}

#[test]
fn tokens_of_dead_targets_are_dropped() {
    // A weak pointer keeps the record, not the payload.
    let token = Token::default();
    let mut heap: Heap<GcCell<Option<Weak<'static, sexton::Leaf<Token>>>>> =
        Heap::new(|_| GcCell::new(None));
    heap.mutate(|mc, weak| {
        let gc = mc.alloc(sexton::Leaf::new(token.clone()));
        weak.set(mc, Some(mc.downgrade(gc)));
    });
    heap.collect();
    assert_eq!(token.drops(), 1);
}
