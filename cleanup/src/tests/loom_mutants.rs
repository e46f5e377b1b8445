//! The protocol with one step broken: each of these has to fail, or the models above prove nothing.

use super::models::{deliver, finds_a_failure};
use crate::mutant::Mutant;

/// Loom finds that the workers sleep while there is work.
fn loses_a_wake_up(mutant: Mutant) {
    let message = finds_a_failure(move || deliver(1, 1, &[&[1, 1]], mutant));
    assert!(message.contains("deadlock"), "{mutant:?} failed in another way: {message}");
}

#[test]
fn no_recheck() {
    loses_a_wake_up(Mutant::NoRecheck);
}

#[test]
fn recheck_before_asleep_is_raised() {
    loses_a_wake_up(Mutant::RecheckBeforeAnnounce);
}

#[test]
fn length_is_raised_after_the_look_at_asleep() {
    loses_a_wake_up(Mutant::LengthAfterLook);
}

#[test]
fn asleep_is_raised_after_the_look_at_length() {
    loses_a_wake_up(Mutant::AnnounceAfterRead);
}

#[test]
fn a_wake_up_goes_to_a_worker_that_has_not_committed() {
    loses_a_wake_up(Mutant::UncommittedSignal);
}

#[test]
fn the_workers_fence_is_missing() {
    loses_a_wake_up(Mutant::NoSleepFence);
}

#[test]
fn the_publishers_fence_is_missing() {
    loses_a_wake_up(Mutant::NoPublishFence);
}
