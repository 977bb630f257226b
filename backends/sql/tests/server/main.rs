//! What the exam does not ask of stores on servers: crashes, cut lines, stalls, many processes, settings, schemas.
//!
//! Every test is run on PostgreSQL and on MariaDB. One server of each serves all tests by different table prefixes,
//! but for those that kill theirs or need other settings.

#![allow(clippy::unwrap_used, reason = "tests")]

mod crash;
mod cut;
mod limits;
mod model;
mod processes;
mod safety;
mod schema;
#[path = "../servers/mod.rs"]
mod servers;
mod stall;
mod support;
mod tls;

use std::process::ExitCode;

use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use skyloom_store_sql::Engine;

/// A test, on either kind of server.
type Test = fn(Engine) -> LocalBoxFuture<'static, ()>;

/// A test by its name.
macro_rules! test {
    ($module:ident :: $function:ident) => {
        (
            concat!(stringify!($module), "::", stringify!($function)),
            (|engine| Box::pin($module::$function(engine))) as Test,
        )
    };
}

const TESTS: &[(&str, Test)] = &[
    test!(crash::acknowledged_commits_survive_and_watchers_miss_nothing),
    test!(cut::a_commit_whose_answer_is_lost_is_found_to_have_happened),
    test!(cut::a_commit_that_never_arrived_is_known_not_to_have_happened),
    test!(cut::a_commit_that_arrives_late_does_nothing),
    test!(cut::a_silent_server_is_given_up),
    test!(limits::pages_end_before_they_are_too_large),
    test!(limits::a_full_database_refuses_what_does_not_fit_and_goes_on),
    test!(limits::what_the_server_cannot_take_is_refused),
    test!(limits::a_full_queue_refuses_after_its_wait),
    test!(limits::history_is_trimmed),
    test!(limits::callers_that_go_away_break_nothing),
    test!(limits::closing_answers_what_is_in_the_queue),
    test!(model::random_groups_answer_as_the_memory_store),
    test!(processes::every_process_sees_every_commit_once_and_in_order),
    test!(processes::calls_that_wait_together_share_a_transaction),
    test!(processes::a_withdrawn_leave_to_write_is_asked_for_again),
    test!(processes::what_was_wrong_with_one_call_does_not_spoil_the_others),
    test!(safety::unsafe_settings_are_refused),
    test!(safety::a_read_only_server_is_refused),
    test!(schema::migrating_at_the_same_time_is_done_once),
    test!(schema::newer_tables_are_refused),
    test!(schema::there_must_be_tables),
    test!(schema::clouds_of_different_prefixes_do_not_see_each_other),
    test!(schema::documents_can_be_read_with_plain_sql),
    test!(schema::few_privileges_are_enough),
    test!(stall::somebody_elses_lock_is_reported),
    test!(stall::open_transactions_elsewhere_hold_nobody_up),
    test!(tls::certificates_are_checked),
];

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for engine in [Engine::Postgres, Engine::MySql] {
        for (name, test) in TESTS {
            trials.push(Trial::test(format!("{engine}::{name}"), move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()?;
                runtime.block_on(test(engine));
                Ok(())
            }));
        }
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    servers::stop();
    conclusion.exit_code()
}
