//! The protocol with one step broken: each of these has to fail, or the models above prove nothing.

use super::loom_record::stop_without_a_drop;
use super::loom_requeue::{fall_dormant, requeue_tail};
use super::loom_ticket::two_runners;
use super::models::{
    deliver, deliver_to_the_impatient, explore, finds_a_failure, shrink, shut_down,
};
use crate::protocol::mutant::Mutant;

/// Nothing but the race is broken: with one item, and so without a race, all goes well. A mutant
/// that never starts a worker, or none that ever leaves, would be found as well, and would show
/// nothing.
fn works_without_a_race(mutant: Mutant) {
    explore(move || deliver(1, 1, &[&[1]], mutant));
}

/// Loom finds that the workers sleep while there is work.
fn loses_a_wake_up(mutant: Mutant) {
    works_without_a_race(mutant);
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

#[test]
fn length_is_raised_before_the_push() {
    let message = finds_a_failure(|| deliver(1, 1, &[&[1, 1]], Mutant::LengthBeforePush));
    assert!(message.contains("the full list is empty"), "{message}");
}

#[test]
fn a_waker_trusts_its_unlocked_estimate() {
    works_without_a_race(Mutant::TrustEstimate);
    // It counts on a sleeper that has left.
    let message =
        finds_a_failure(|| deliver_to_the_impatient(1, 1, &[&[1, 1]], Mutant::TrustEstimate));
    assert!(message.contains("deadlock"), "{message}");
}

#[test]
fn the_flag_of_a_shutdown_is_set_without_the_lock() {
    let message = finds_a_failure(|| shut_down(Mutant::ShutdownUnlocked));
    assert!(message.contains("deadlock"), "{message}");
}

#[test]
fn a_worker_leaves_before_the_list_is_drained() {
    let message = finds_a_failure(|| shut_down(Mutant::LeaveBeforeDrained));
    assert!(message.contains("left == right"), "{message}");
}

#[test]
fn a_worker_retires_though_a_waker_has_chosen_it() {
    finds_a_failure(|| deliver_to_the_impatient(1, 1, &[&[1, 1]], Mutant::RetireThoughChosen));
}

#[test]
fn a_worker_that_retires_is_missed_among_the_sleepers_before_the_workers() {
    let message =
        finds_a_failure(|| deliver_to_the_impatient(1, 1, &[&[1, 1]], Mutant::RetireInDisorder));
    assert!(message.contains("deadlock"), "{message}");
}

#[test]
fn a_surplus_worker_goes_to_sleep() {
    let message = finds_a_failure(|| shrink(true, Mutant::SurplusSleeps));
    assert!(message.contains("deadlock"), "{message}");
}

#[test]
fn a_tail_is_requeued_without_the_records_compare_exchange() {
    finds_a_failure(|| requeue_tail(2, Mutant::TakeWithoutCompareExchange));
}

#[test]
fn a_runner_does_not_wait_for_a_stop() {
    let message = finds_a_failure(|| stop_without_a_drop(Mutant::NoWaitForStop));
    assert!(message.contains("its object lives"), "{message}");
}

#[test]
fn a_sharer_gives_its_slots_back_before_the_other_has_ended() {
    let message = finds_a_failure(|| requeue_tail(2, Mutant::NoDeferredFree));
    assert!(message.contains("its object lives"), "{message}");
}

#[test]
fn a_runner_publishes_a_tail_that_was_requeued() {
    let message = finds_a_failure(|| requeue_tail(1, Mutant::ForgetRequeue));
    assert!(message.contains("its object lives"), "{message}");
}

#[test]
fn ended_cleanups_are_counted_without_order() {
    let message = finds_a_failure(|| two_runners(Mutant::UnorderedEnds));
    assert!(message.contains("Causality violation"), "{message}");
}

#[test]
fn the_monitor_looks_before_it_says_that_it_is_dormant() {
    let message = finds_a_failure(|| fall_dormant(Mutant::DormantAfterLook));
    assert!(message.contains("deadlock"), "{message}");
}
