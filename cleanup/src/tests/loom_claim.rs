//! Protocol 1: as many claims as items, and what a claim promises is there.

use super::models::explore;
use crate::protocol::claim::Length;
use crate::protocol::queue::Queue;
use sexton_sync::Arc;

#[test]
fn two_claimers_share_one_unit() {
    explore(|| {
        let length = Arc::new(Length::new());
        let other = length.clone();
        let claimer = loom::thread::spawn(move || {
            other.try_claim().map(crate::protocol::claim::Claim::redeem).is_some()
        });
        length.add(1);
        let here = length.try_claim().map(crate::protocol::claim::Claim::redeem).is_some();
        let there = claimer.join().expect("the claimer");
        let left = length.get();
        assert_eq!(usize::from(here) + usize::from(there) + left, 1);
    });
}

/// `pop` panics if it finds the list empty.
#[test]
fn a_claim_finds_an_item_whoever_published_it() {
    explore(|| {
        let queue = Arc::new(Queue::new(0, None));
        let threads: Vec<_> = (1..3)
            .map(|n| {
                let queue = queue.clone();
                loom::thread::spawn(move || {
                    assert!(queue.publish([n]).0.is_empty());
                    queue.try_next()
                })
            })
            .collect();
        let mut got: Vec<u32> = queue.try_next().into_iter().collect();
        for thread in threads {
            got.extend(thread.join().expect("a producer"));
        }
        got.extend(std::iter::from_fn(|| queue.try_next()));
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
    });
}
