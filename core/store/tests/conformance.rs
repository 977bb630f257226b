//! The exam, sat by the memory store alone and under every layer with quiet settings.

use std::process::ExitCode;
use std::sync::Arc;

use skyloom_model::SeededIds;
use skyloom_store::Prefix;
use skyloom_store::conformance::soak::{self, Amount};
use skyloom_store::conformance::{self, Exam, MemoryExam};
use skyloom_store::layer::{
    Chaos, ChaosConfig, Limit, LimitConfig, Observe, Prefixed, Retry, RetryConfig, StandardConfig, Timeout,
    TimeoutConfig, standard,
};

fn main() -> ExitCode {
    let part = Prefix::parse("clouds/one").expect("a prefix");
    let exams: [MemoryExam; 8] = [
        MemoryExam::new(),
        MemoryExam::wrapped("retry", |store, clock| {
            Arc::new(Retry::new(
                store,
                RetryConfig::default(),
                Arc::new(SeededIds::new(clock, 1)),
            ))
        }),
        MemoryExam::wrapped("timeout", |store, _| {
            Arc::new(Timeout::new(store, TimeoutConfig::default()))
        }),
        MemoryExam::wrapped("limit", |store, _| {
            Arc::new(Limit::new(store, LimitConfig::default().with_calls(2)))
        }),
        MemoryExam::wrapped("prefix", move |store, _| {
            Arc::new(Prefixed::new(store, part.clone()))
        }),
        MemoryExam::wrapped("observe", |store, clock| {
            Arc::new(Observe::new(store, Arc::new(clock)))
        }),
        MemoryExam::wrapped("chaos", |store, _| {
            Arc::new(Chaos::new(store, ChaosConfig::default(), 1))
        }),
        MemoryExam::wrapped("standard", |store, clock| {
            let ids = Arc::new(SeededIds::new(clock.clone(), 1));
            standard(store, StandardConfig::default(), Arc::new(clock), ids)
        }),
    ];
    let exams = exams.map(|exam| Arc::new(exam) as Arc<dyn Exam>);
    let long = [&exams[0], &exams[7]].map(|exam| soak::trials(exam.clone(), amount()));
    let all = exams.iter().cloned().flat_map(conformance::trials);
    conformance::conclude(all.chain(long.into_iter().flatten()).collect())
}

/// How long the long part is, from the environment.
#[expect(clippy::disallowed_methods, reason = "a test is told by whoever runs it")]
fn amount() -> Amount {
    Amount::parse(std::env::var("SKYLOOM_SOAK").ok().as_deref()).expect("HISTORIES,CHANGES[,SEED]")
}
