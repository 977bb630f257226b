//! The fakes sit the exams, on a directory and in memory.
#![allow(clippy::unwrap_used, reason = "test helpers may panic")]

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use common::FakeExam;
use skyloom_hypervisor::conformance::{main as examine, network_trials, storage_trials, trials};

fn main() -> ExitCode {
    let mut all = Vec::new();
    for (kind, durable) in [("directory", true), ("memory", false)] {
        let exam = Arc::new(FakeExam::new(durable));
        let host = trials(exam.clone())
            .into_iter()
            .chain(storage_trials(exam.clone()));
        let all_three = host.chain(network_trials(exam));
        all.extend(all_three.map(|trial| trial.with_kind(kind)));
    }
    examine(all)
}
