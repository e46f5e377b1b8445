//! Both protocols together, as in `loom_queue.rs`, with more of everything than loom can explore:
//! up to 4 workers, 3 producers and 200 items.
//!
//! To shuttle, all atomic operations are sequentially consistent. It can find a step in the wrong
//! place, not one with too weak an ordering: that is loom's part.

use super::models::{Rounds, deliver, deliver_at_once, deliver_to_the_impatient};
use sexton_sync::explored;

/// Rounds in which there is too little to do for four workers, and too much.
const ROUNDS: Rounds = &[
    &[1],
    &[1, 1],
    &[2, 1],
    &[3],
    &[1, 2, 1],
    &[1],
    &[4, 1],
    &[1, 1, 1],
    &[5, 5],
    &[2, 3, 4],
    &[1, 8],
    &[1],
    &[4, 4],
    &[2, 1, 1, 1],
    &[1],
];

/// Rounds of 12 or 24 items, with three producers.
const DOZENS: Rounds = &[&[4], &[1, 1, 1, 1], &[1, 3], &[8], &[2, 6], &[3, 2, 1, 2], &[7, 1], &[4]];

/// A worker, a producer, and five times the chance to lose the last wake-up.
const PAIRS: Rounds = &[PAIR; 5];
const PAIR: &[u32] = &[1, 1];

explored! {
    one_worker_and_one_producer: || deliver(1, 1, PAIRS);
    one_worker_and_three_producers: || deliver(1, 3, ROUNDS);
    four_workers_and_three_producers: || deliver(4, 3, ROUNDS);
    four_impatient_workers_and_three_producers: ||
        deliver_to_the_impatient(4, 3, ROUNDS);
    /// No worker stays asleep because another one is awake.
    four_workers_that_wait_for_each_other: || deliver_at_once(4, 3, DOZENS);
}
