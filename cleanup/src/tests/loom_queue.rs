//! Both protocols together, in the real queue with the real worker's loop: nothing published is
//! left to sleeping workers.

use super::models::{
    deliver, deliver_at_once, deliver_to_the_impatient, explore, shrink, shut_down,
};
use crate::protocol::queue::Queue;
use crate::protocol::sleep::{Next, Parking};
use sexton_sync::Arc;

/// No race here. A mutant that never starts a worker, or lets none leave, fails as well: it has
/// more broken than one step.
#[test]
fn one_worker_and_one_item() {
    explore(|| deliver(1, 1, &[&[1]]));
}

#[test]
fn one_worker_falls_asleep_while_one_producer_publishes() {
    explore(|| deliver(1, 1, &[&[1, 1]]));
}

#[test]
fn one_worker_and_two_producers() {
    explore(|| deliver(1, 2, &[&[1]]));
}

#[test]
fn two_workers_and_two_blocks() {
    explore(|| deliver(2, 1, &[&[1, 1]]));
}

/// Two cleanups that wait for each other: it is not enough that one worker is awake.
#[test]
fn two_workers_for_two_blocks_at_once() {
    explore(|| deliver_at_once(2, 1, &[&[2]]));
}

/// A worker dies while a producer publishes that may have counted on it.
#[test]
fn a_worker_dies_while_a_producer_publishes() {
    explore(|| {
        let queue = Arc::new(Queue::new(1, None));
        let first = queue.publish([1]).0[0];
        assert_eq!(queue.try_next(), Some(1));
        let dying = queue.clone();
        let worker = loom::thread::spawn(move || {
            dying.started(first);
            dying.lost(first).0.len()
        });
        let demanded = queue.publish([2]).0.len();
        let replaced = worker.join().expect("the worker");
        assert_eq!(demanded + replaced, 1, "exactly one of the two sees to it");
    });
}

/// A shutdown that waits for the workers waits for the one, too, that takes a dying one's place.
#[test]
fn a_shutdown_waits_for_a_dead_workers_successor() {
    explore(|| {
        let queue = Arc::new(Queue::new(1, None));
        let first = queue.publish([1]).0[0];
        let dying = queue.clone();
        loom::thread::spawn(move || {
            dying.started(first);
            for successor in dying.lost(first).0 {
                dying.started(successor);
                let parking = Parking::new(successor);
                while dying.next(&parking).is_some() {}
            }
        });
        queue.sleep().shutdown();
        assert!(queue.sleep().wait_until_left(None));
        assert_eq!((queue.len(), queue.sleep().numbers().workers), (0, 0));
    });
}

/// A shutdown finds the worker wherever it is, and the worker finds all there is before it leaves.
#[test]
fn a_shutdown_reaches_a_worker_that_is_falling_asleep() {
    explore(shut_down);
}

#[test]
fn a_worker_that_retires_leaves_no_item_behind() {
    explore(|| deliver_to_the_impatient(1, 1, &[&[1, 1]]));
}

#[test]
fn two_workers_that_retire_leave_no_item_behind() {
    explore(|| deliver_to_the_impatient(2, 1, &[&[1, 1]]));
}

#[test]
fn a_surplus_worker_on_its_way_to_sleep_leaves_no_item_behind() {
    explore(|| shrink(false));
}

#[test]
fn a_surplus_worker_that_falls_asleep_leaves_no_item_behind() {
    explore(|| shrink(true));
}

/// The step in isolation: a worker that announces itself and a publisher that looks cannot miss
/// each other.
#[test]
fn announce_and_look_cannot_both_miss() {
    explore(|| {
        let queue = Arc::new(Queue::new(1, None));
        let first = queue.publish([1]).0[0];
        queue.started(first);
        assert_eq!(queue.try_next(), Some(1));
        let other = queue.clone();
        let worker = loom::thread::spawn(move || {
            while other.try_next().is_none() {
                assert_eq!(other.sleep().sleep(&Parking::new(first), other.length()), Next::Again);
            }
        });
        assert!(queue.publish([2]).0.is_empty(), "the worker exists");
        worker.join().expect("the worker is told, or sees for itself");
    });
}
