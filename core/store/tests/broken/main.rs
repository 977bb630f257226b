//! The exam examined: stores that are broken on purpose fail, in the cases that are there for it.
//!
//! They run on one thread with paused time: a case that waits for an event that never comes fails at once.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod store;

use std::sync::Arc;

use skyloom_store::conformance::soak::{self, Amount};
use skyloom_store::conformance::{Case, MemoryExam, Verdict, cases_for, run_case};

use self::store::{Broken, Fault};

/// The names of those cases, of all that there are, that this store fails.
fn failed(fault: Fault, asked: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let exam = MemoryExam::wrapped("broken", move |store, _| Arc::new(Broken::new(store, fault)));
    let fails = |case: &Case| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run_case(&exam, *case)).is_err()
    };
    let cases = cases_for(&exam).into_iter().filter(|case| asked(case.name));
    cases.filter(fails).map(|case| case.name).collect()
}

#[track_caller]
fn must_fail(fault: Fault, cases: &[&str]) {
    let failed = failed(fault, |name| cases.contains(&name));
    let passed: Vec<_> = cases.iter().filter(|case| !failed.contains(case)).collect();
    assert!(
        passed.is_empty(),
        "{fault:?} passes {passed:?}, or there are no such cases"
    );
}

#[test]
fn a_sound_store_passes() {
    assert_eq!(failed(Fault::Sound, |_| true), [""; 0]);
}

#[test]
fn commits_that_are_not_atomic() {
    must_fail(
        Fault::CommitsPiecemeal,
        &[
            "commit::many_writes_share_one_revision",
            "watch::one_event_per_commit",
            "list::pages_are_of_one_revision_while_others_write",
            "race::counters_lose_nothing",
            "race::transfers_keep_the_sum",
        ],
    );
    let races = [
        "race::counters_lose_nothing",
        "race::one_of_many_creates_wins",
        "race::transfers_keep_the_sum",
    ];
    must_fail(Fault::ChecksTooEarly, &races);
}

#[test]
fn guards_that_are_not_kept() {
    must_fail(
        Fault::IgnoresLeaseGuards,
        &[
            "fence::another_epoch_does_not_write",
            "fence::without_a_lease_nobody_writes",
            "fence::after_its_end_nobody_writes",
            "fence::after_revocation_nobody_writes",
            "fence::after_a_take_over_the_former_holder_does_not_write",
        ],
    );
    must_fail(
        Fault::IgnoresRevisionGuards,
        &[
            "commit::replace_of_a_changed_document_conflicts",
            "race::counters_lose_nothing",
        ],
    );
    must_fail(
        Fault::VagueConflicts,
        &[
            "commit::create_conflicts_when_it_is_there",
            "commit::the_first_failed_guard_is_reported",
        ],
    );
}

#[test]
fn reads_that_lie() {
    must_fail(
        Fault::PrefixWithoutDelimiter,
        &[
            "key::a_prefix_ends_at_a_delimiter",
            "watch::a_prefix_ends_at_a_delimiter",
            "key::the_prefix_itself_is_not_below_it",
        ],
    );
    must_fail(Fault::StaleReads, &["read::get_sees_a_commit_at_once"]);
    must_fail(
        Fault::IgnoresListRevision,
        &[
            "list::as_of_an_older_revision",
            "list::as_of_every_revision",
            "list::as_of_an_older_revision_in_pages",
        ],
    );
    must_fail(
        Fault::PagesOverlap,
        &[
            "list::pages_cover_everything_once",
            "key::order_holds_across_pages",
        ],
    );
    must_fail(Fault::LosesDigits, &["value::numbers_keep_their_value"]);
    must_fail(
        Fault::CreatedForEver,
        &["commit::a_document_created_again_is_a_new_one"],
    );
}

#[test]
fn watches_that_lie() {
    must_fail(
        Fault::SkipsEvents,
        &[
            "watch::commits_come_in_order",
            "watch::from_the_beginning",
            "race::a_watcher_sees_every_commit_of_all_writers",
            "follow::a_replayed_history_equals_a_listing",
        ],
    );
    must_fail(
        Fault::SplitsCommits,
        &["watch::one_event_per_commit", "watch::large_commits"],
    );
    must_fail(
        Fault::HidesDeletes,
        &[
            "watch::deletes_are_seen",
            "follow::a_replayed_history_equals_a_listing",
        ],
    );
    must_fail(
        Fault::RepeatsOnResume,
        &[
            "watch::from_every_revision",
            "watch::resuming_delivers_nothing_twice",
        ],
    );
    must_fail(Fault::NoGaps, &["gap::from_a_compacted_revision"]);
    must_fail(
        Fault::ForgetsBacklog,
        &[
            "watch::from_the_beginning",
            "watch::from_every_revision",
            "gap::from_a_revision_that_is_not_reached",
        ],
    );
}

#[test]
fn leases_that_lie() {
    must_fail(
        Fault::LeasesMakeRevisions,
        &["lease::no_revisions_and_no_events", "lease::names_are_no_keys"],
    );
    must_fail(
        Fault::EpochsStartAgain,
        &["lease::revoking_frees", "lease::epochs_grow_across_every_end"],
    );
    must_fail(
        Fault::RenewsTheDead,
        &[
            "lease::what_ran_out_cannot_be_renewed",
            "lease::an_old_epoch_cannot_renew",
            "lease::a_name_is_taken_over",
        ],
    );
}

#[test]
fn refusals_that_are_not_made() {
    must_fail(
        Fault::NoLimits,
        &[
            "refusal::a_key_written_twice",
            "refusal::a_key_put_and_deleted",
            "refusal::a_value_that_is_no_json",
        ],
    );
}

/// What the long part says of this store: of answers, and of watches.
fn soaked(fault: Fault) -> [Verdict; 2] {
    let amount = Amount {
        histories: 20,
        changes: 4_000,
        seed: 7,
    };
    let exam = MemoryExam::wrapped("broken", move |store, _| Arc::new(Broken::new(store, fault)));
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    [
        runtime().block_on(soak::histories(&exam, amount)),
        runtime().block_on(soak::watched(&exam, amount)),
    ]
}

#[test]
fn a_sound_store_passes_the_long_part() {
    for verdict in soaked(Fault::Sound) {
        verdict.unwrap();
    }
}

#[test]
fn the_long_part_sees_wrong_answers() {
    for fault in [
        Fault::StaleReads,
        Fault::ChecksTooEarly,
        Fault::IgnoresRevisionGuards,
    ] {
        assert!(soaked(fault)[0].is_err(), "{fault:?}");
    }
}

#[test]
fn the_long_part_sees_wrong_watches() {
    let faults = [
        Fault::SkipsEvents,
        Fault::SplitsCommits,
        Fault::HidesDeletes,
        Fault::RepeatsOnResume,
        Fault::ForgetsBacklog,
        Fault::CommitsPiecemeal,
    ];
    for fault in faults {
        assert!(soaked(fault)[1].is_err(), "{fault:?}");
    }
}
