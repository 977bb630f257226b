//! The flow engine's parts under criterion: for finding out what a change did to one of them. What an operator sees is
//! in `figures`.

#![allow(clippy::expect_used, reason = "a benchmark may panic")]

#[path = "figures/ten.rs"]
mod ten;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skyloom::flow::{
    Driver, DriverParts, Fence, InventoryFeed, Life, Planned, Rest, Slot, View, compose, decide,
};
use skyloom::model::{
    ActiveTask, Clock as _, JobId, JobRecord, JobState, OsIds, Plan, Scope, SystemClock, Task, TaskId,
    TaskState, paths,
};
use skyloom::scheduler::FleetScheduler;
use skyloom::store::{
    DynBackend, Grant, LeaseMode, LeaseName, Leases as _, MemoryConfig, MemoryStore, Revision,
};
use tokio::runtime::Builder;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A chain of so many jobs, the first half of them done.
fn half_done(jobs: usize, clock: SystemClock) -> (Task, Plan, BTreeMap<JobId, JobRecord>) {
    let (ids, now) = (OsIds::new(clock), clock.now());
    let task = ten::task(ten::FLOW, TaskId::fresh(&ids), now).expect("a task");
    let chain = (0..jobs).map(|n| ten::add(ten::step(n), n.checked_sub(1).map(ten::step)));
    let planned = Planned {
        jobs: chain.collect(),
        ..Planned::default()
    };
    let composed = compose::first_stage(&task, planned, now, &ids).expect("a plan");
    let done = (0..jobs / 2).map(|n| {
        let id = ten::step(n);
        let record = JobRecord::first(&composed.task, &composed.plan, &id, JobState::Succeeded);
        (id, record.expect("a job of the plan"))
    });
    let done = done.collect();
    (composed.task, composed.plan, done)
}

fn deciding(c: &mut Criterion) {
    let clock = SystemClock::new();
    let mut group = c.benchmark_group("decide");
    for jobs in [10, 200] {
        let (mut task, plan, records) = half_done(jobs, clock);
        for (name, state) in [("forward", TaskState::Running), ("back", TaskState::Unwinding)] {
            task.state = state;
            group.bench_function(BenchmarkId::new(name, jobs), |b| {
                let view = View {
                    task: &task,
                    plan: &plan,
                    jobs: &records,
                    now: clock.now(),
                };
                b.iter(|| decide(black_box(view)));
            });
        }
    }
    group.finish();
}

fn driving(c: &mut Criterion) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let clock = SystemClock::new();
    let memory = Arc::new(MemoryStore::new(Arc::new(clock), MemoryConfig::default()));
    let store: DynBackend = memory.clone();
    let (inventory, _feed) = InventoryFeed::new(&store).expect("an inventory");
    let driver = Driver::new(DriverParts {
        backend: store.clone(),
        flows: ten::flows(),
        jobs: ten::jobs(),
        scheduler: Arc::new(FleetScheduler::default()),
        inventory,
        clock: Arc::new(clock),
        ids: Arc::new(OsIds::new(clock)),
        engine: "bench".to_owned(),
        job_slots: 64,
    });
    let lease = LeaseName::parse(&paths::engine_lease("bench")).expect("a name");
    let hours = Duration::from_secs(12 * 3600);
    let granted = runtime.block_on(memory.grant(&lease, "bench", hours, LeaseMode::TakeOver));
    let Ok(Grant::Granted { epoch }) = granted else {
        panic!("no lease");
    };
    let life = Life {
        fence: Fence::new(lease, epoch, clock.monotonic() + hours),
        born: Revision(0),
    };
    let (slots, nudged, shutdown) = (
        Arc::new(Semaphore::new(1)),
        Notify::new(),
        CancellationToken::new(),
    );
    let ids = OsIds::new(clock);

    let mut group = c.benchmark_group("driver, memory store");
    group.throughput(Throughput::Elements(ten::STEPS as u64));
    group.bench_function("ten steps", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let id = TaskId::fresh(&ids);
                let request = ten::request(ten::FLOW, id, clock.now()).expect("a request");
                store.commit(request).await.expect("a commit");
                let mark = ActiveTask {
                    scope: Scope::System,
                    task: id,
                    priority: Default::default(),
                };
                let permit = slots.clone().acquire_owned().await.expect("a permit");
                let mut slot = Slot::taken(slots.clone(), permit);
                let rest = driver.drive(&mark, &life, &mut slot, &nudged, &shutdown).await;
                assert_eq!(rest.expect("a drive"), Rest::Ended);
            });
        });
    });
    group.finish();
}

criterion_group!(benches, deciding, driving);
criterion_main!(benches);
