//! The exam, sat by the memory store alone and under every layer with quiet settings.

use std::process::ExitCode;
use std::sync::Arc;

use skyloom_model::SeededIds;
use skyloom_store::Prefix;
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
    conformance::main_all(exams.map(|exam| Arc::new(exam) as Arc<dyn Exam>))
}
