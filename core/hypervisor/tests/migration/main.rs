//! Migrations: the fakes sit the exam, the exam sees bugs, and no order of failures makes two guests of one.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod pair;
mod torture;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use pair::{Bug, FakePairs};
use skyloom_hypervisor::conformance::migration_cases;

async fn passes(bug: Bug, case: &str) -> bool {
    let case = migration_cases().into_iter().find(|c| c.name == case).unwrap();
    AssertUnwindSafe(case.run(&FakePairs(bug)))
        .catch_unwind()
        .await
        .is_ok()
}

#[tokio::test]
async fn fakes_sit_the_exam() {
    for case in migration_cases() {
        assert!(
            passes(Bug::None, case.name).await,
            "{} fails without a bug",
            case.name
        );
    }
}

#[tokio::test]
async fn each_bug_of_a_migration_fails_its_case() {
    let bugs = [
        (Bug::StartsWhatWaits, "what_waits_does_not_run"),
        (
            Bug::StartsWhatWaitedOnceStopped,
            "what_waits_is_not_booted_after_a_stop",
        ),
        (Bug::StartsWhatIsHandedOver, "handed_over_never_runs_again"),
        (Bug::ForgetsThatItIsHandedOver, "handed_over_is_remembered"),
        (
            Bug::TakesOverWhatIsNotThere,
            "nothing_is_taken_over_before_it_is_complete",
        ),
        (Bug::LosesTheMemory, "guest_goes_with_its_memory"),
        (Bug::HandsOverNothing, "guest_goes_with_its_memory"),
        (Bug::HandsOverWhatIsNotReady, "busy_guest_is_forced"),
        (Bug::CancelKills, "cancel_gives_the_guest_back"),
        (Bug::CancelsWhatIsHandedOver, "handed_over_cannot_be_cancelled"),
        (Bug::UnpauseLetsTheHeldGo, "held_guest_is_not_let_go_by_others"),
        (Bug::ForcesNothing, "busy_guest_is_forced"),
        (Bug::BreaksWithItsDestination, "lost_destination_leaves_the_guest"),
        (Bug::ObeysStaleOrders, "stale_orders_change_nothing"),
        (Bug::RefusesRepeats, "verbs_may_come_twice"),
    ];
    for (bug, case) in bugs {
        assert!(!passes(bug, case).await, "{case} does not see {bug:?}");
    }
}
