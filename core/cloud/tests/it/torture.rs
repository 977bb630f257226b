//! Every flow through everything that can go wrong, and what single flows promise beyond that.

use std::collections::BTreeSet;
use std::thread;

use skyloom_cloud::cloud_flows;
use skyloom_flow::harness::{Arena as _, Case, torture};

use crate::arena::Clouds;

#[test]
fn every_flow_is_tortured() {
    let tortured: BTreeSet<&str> = Clouds.cases().iter().map(|case| case.flow).collect();
    assert_eq!(
        tortured,
        cloud_flows().names().collect(),
        "each flow has a case, and each case a flow"
    );
}

#[test]
fn whatever_goes_wrong_the_world_is_as_before_or_as_asked_for() {
    all_end_well(|case| !of_volumes(case) && !moves(case) && !shelves(case));
}

#[test]
fn whatever_goes_wrong_a_guest_is_on_one_host() {
    all_end_well(moves);
}

#[test]
fn whatever_goes_wrong_a_server_is_whole_or_shelved() {
    all_end_well(shelves);
}

fn shelves(case: &Case) -> bool {
    let flows = [
        "server.clone",
        "server.shelve",
        "server.offload",
        "server.unshelve",
    ];
    let names = ["put away", "unshelved"];
    flows.contains(&case.flow) || names.iter().any(|name| case.name.contains(name))
}

fn moves(case: &Case) -> bool {
    case.flow.ends_with("migrate")
}

#[test]
fn whatever_goes_wrong_volumes_are_as_before_or_as_asked_for() {
    all_end_well(of_volumes);
}

fn of_volumes(case: &Case) -> bool {
    case.flow.starts_with("volume.") || case.flow.starts_with("snapshot.") || case.name.contains("volumes")
}

fn all_end_well(which: fn(&Case) -> bool) {
    let chosen = || Clouds.cases().into_iter().filter(which);
    let runs: Vec<Result<usize, Vec<String>>> = thread::scope(|scope| {
        let cases: Vec<_> = chosen()
            .map(|case| {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .start_paused(true)
                        .build()
                        .unwrap();
                    runtime.block_on(torture(&Clouds, &case))
                })
            })
            .collect();
        cases.into_iter().map(|case| case.join().unwrap()).collect()
    });
    let wrong: Vec<String> = runs
        .iter()
        .filter_map(|r| r.as_ref().err())
        .flatten()
        .cloned()
        .collect();
    assert!(
        wrong.is_empty(),
        "{} runs went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    for (case, runs) in chosen().zip(runs) {
        assert!(
            runs.unwrap_or_default() > 10,
            "{case}: hardly anything to go wrong"
        );
    }
}
