//! The protocol with one step broken: shuttle has to find it, or the models next door prove
//! nothing.
//!
//! All but two, that is. To shuttle there is one order of all atomic operations, so it cannot miss
//! a fence; loom does (see `loom_mutants.rs`).

use super::models::{Rounds, deliver, deliver_at_once};
use super::shuttle_queue::DOZENS;
use crate::protocol::mutant::Mutant;
use sexton_sync::explorer::{Strategy, explore, finds_a_failure};

/// A worker, a producer, and five times the chance to lose the last wake-up.
const PAIRS: Rounds = &[PAIR; 5];
const PAIR: &[u32] = &[1, 1];

/// Shuttle finds that the workers sleep while there is work.
fn loses_a_wake_up(
    strategy: Strategy,
    limit: usize,
    model: impl Fn() + Send + Sync + Clone + 'static,
) {
    let message = finds_a_failure(strategy, limit, model);
    assert!(message.contains("deadlock"), "it failed in another way: {message}");
}

/// About every fortieth schedule fails at random, every twelfth with few preemptions; the limits
/// are far above that.
macro_rules! lost {
    ($($name:ident: $mutant:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn at_random() {
                loses_a_wake_up(Strategy::Random, 1000, || deliver(1, 1, PAIRS, $mutant));
            }

            #[test]
            fn with_few_preemptions() {
                loses_a_wake_up(Strategy::Pct(3), 500, || deliver(1, 1, PAIRS, $mutant));
            }
        })*
    };
}

lost! {
    no_recheck: Mutant::NoRecheck;
    recheck_before_asleep_is_raised: Mutant::RecheckBeforeAnnounce;
    length_is_raised_after_the_look_at_asleep: Mutant::LengthAfterLook;
    asleep_is_raised_after_the_look_at_length: Mutant::AnnounceAfterRead;
    a_wake_up_goes_to_a_worker_that_has_not_committed: Mutant::UncommittedSignal;
}

/// Another worker may come to the block in the end. Not where each waits for all the others.
#[test]
fn four_workers_do_not_cover_it_up() {
    for mutant in [
        Mutant::NoRecheck,
        Mutant::RecheckBeforeAnnounce,
        Mutant::LengthAfterLook,
        Mutant::AnnounceAfterRead,
        Mutant::UncommittedSignal,
    ] {
        loses_a_wake_up(Strategy::Pct(4), 5000, move || deliver_at_once(4, 3, DOZENS, mutant));
    }
}

/// Should this fail one day, shuttle has learnt what a fence is for.
#[test]
fn a_missing_fence_is_for_loom_to_find() {
    for mutant in [Mutant::NoSleepFence, Mutant::NoPublishFence] {
        explore(&[Strategy::Random, Strategy::Pct(3)], move || deliver(1, 1, PAIRS, mutant));
    }
}
