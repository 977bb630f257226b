//! An engine dies with very many open tasks; another one, of another name, takes them over.
//!
//! Each task has run a job of the engine and waits for one of a host. The first engine is dropped as it stands. While
//! nobody owns the tasks, their hosts answer. The clock starts when the dead engine's lease has run out in the store, and
//! a task has made progress when it has ended: for that it was claimed, planned on, and a further job was run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value as Json, json};
use skyloom::engine::EngineConfig;
use skyloom::flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom::model::{
    Clock as _, HostId, Id, Ids, JobId, JobRecord, JobSpec, JobState, OsIds, Place, Reason, SystemClock,
    Task, TaskId, paths,
};
use skyloom::store::{DynBackend, Key, ListOptions, Prefix, Result, Txn, Versioned};

use crate::meter::{Anyhow, Meter, progress};
use crate::rig::{Ends, Running};
use crate::table::{Samples, Short, Thousands};
use crate::{ten, write};

/// Hosts among which the tasks are spread.
const HOSTS: usize = 500;
/// How long the dead engine's lease lasts.
const LEASE: Duration = Duration::from_secs(10);
/// Commits of requests and of hosts' answers that are under way at once.
const AT_ONCE: usize = 64;
/// How often the store is looked at while waiting.
const LOOK: Duration = Duration::from_millis(5);
/// What is to be reached.
const GOAL: Duration = Duration::from_secs(5);

/// A job of the engine, one of a host, one of the engine.
#[derive(Debug)]
struct Held(Vec<HostId>);

impl TaskFlow for Held {
    fn name(&self) -> &'static str {
        "bench.held"
    }

    fn reads(&self, _: &Task, _: &Records, _: &BTreeMap<JobId, Json>) -> Vec<Key> {
        Vec::new()
    }

    fn plan(&self, task: &Task, _: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let [first, held, after] = ["first", "held", "after"].map(JobId::new);
        let host = self.0[task.id.uuid().as_u128() as usize % self.0.len()];
        let on_host = JobSpec {
            kind: "bench.held".to_owned(),
            place: Place::Host(host),
            ..ten::add(held.clone(), Some(first.clone()))
        };
        let last = JobSpec {
            input: json!(first),
            ..ten::add(after, Some(held))
        };
        Ok(Planned {
            jobs: vec![ten::add(first, None), on_host, last],
            ..Planned::default()
        })
    }

    fn settle(&self, _: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        Ok(ten::last(cx.outputs, &JobId::new("after")))
    }
}

/// The table's row for `tasks` open tasks on `store`.
pub(crate) async fn run(
    name: &str,
    store: DynBackend,
    tasks: usize,
    clock: SystemClock,
) -> Result<(), Anyhow> {
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock));
    let hosts: Vec<HostId> = (0..HOSTS).map(|_| Id::fresh(&*ids)).collect();
    let ends = Ends::watch(&store, clock).await?;
    let engine = |name: &str| {
        let config = EngineConfig::new(name).with_lease_ttl(LEASE);
        let flows = skyloom::flow::FlowRegistry::new().with(Held(hosts.clone()));
        Running::start(&store, clock, config, flows, ten::jobs())
    };

    progress(&format!("recovery on {name}: {tasks} tasks are begun"));
    let first = engine("first");
    let mut ended = Vec::with_capacity(tasks);
    let mut requests = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        let id = TaskId::fresh(&*ids);
        ended.push(ends.of(id));
        requests.push(ten::request("bench.held", id, clock.now())?);
    }
    commit_all(&store, requests).await?;
    let waiting = loop {
        let jobs = jobs_of_hosts(&store, &hosts).await?;
        if jobs.len() == tasks {
            break jobs;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    drop(first);
    let second = engine("second");

    progress(&format!(
        "recovery on {name}: the engine is dead, the hosts answer"
    ));
    let answers = waiting.iter().map(answer).collect::<Result<Vec<_>>>()?;
    commit_all(&store, answers).await?;
    if lease_expired(&store).await? {
        return Err("the hosts took longer to answer than the lease lasts".into());
    }
    while !lease_expired(&store).await? {
        tokio::time::sleep(LOOK).await;
    }
    let expired = clock.monotonic();
    let meter = Meter::start(clock)?;
    let mut took = Vec::with_capacity(tasks);
    for end in ended {
        // Not before the lease was gone: nobody may have touched a task.
        let at = end.await?;
        took.push(
            at.checked_sub(expired)
                .ok_or("a task went on under a living lease")?,
        );
    }
    let samples = Samples::new(took, meter.stop()?);
    second.stop().await?;
    let last = samples.quantile(1.0);
    write(format_args!(
        "| {name} | {} | {} | {} | {} | {} | {:.0} % | all within {}: {} |",
        Thousands(tasks as f64),
        Short(samples.quantile(0.0)),
        Short(samples.p50()),
        Short(last),
        Short(samples.cpu_each()),
        samples.cost.others_share() * 100.0,
        Short(GOAL),
        if last <= GOAL { "met" } else { "**missed**" }
    ))
}

/// The first lines of the table.
pub(crate) const HEAD: &str = "
| engine killed, another takes over | open tasks | first after | p50 | last | CPU each | others' CPU | goal |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |";

async fn commit_all(store: &DynBackend, txns: Vec<Txn>) -> Result<(), Anyhow> {
    stream::iter(txns.into_iter().map(Ok::<_, Anyhow>))
        .try_for_each_concurrent(AT_ONCE, |txn| async {
            store
                .commit(txn)
                .await?
                .committed()
                .ok_or("a commit without rivals met a conflict")?;
            Ok(())
        })
        .await
}

async fn jobs_of_hosts(store: &DynBackend, hosts: &[HostId]) -> Result<Vec<Versioned<JobRecord>>, Anyhow> {
    let pages: Vec<Vec<_>> = stream::iter(hosts)
        .map(|host| async move {
            let prefix = Prefix::parse(&paths::jobs(*host))?;
            let page = store.list(&prefix, ListOptions::default()).await?;
            page.items
                .iter()
                .map(|kv| Ok(Versioned::decode(kv)?))
                .collect::<Result<_, Anyhow>>()
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(pages.into_iter().flatten().collect())
}

/// What the host's agent commits at the end of the job.
fn answer(job: &Versioned<JobRecord>) -> Result<Txn> {
    let mut record = job.value.clone();
    record.state = JobState::Succeeded;
    record.output = Some(json!(2));
    job.replace(&record)
}

/// Whether the first engine's lease has run out.
async fn lease_expired(store: &DynBackend) -> Result<bool, Anyhow> {
    let name = paths::engine_lease("first");
    let leases = store.leases(&Prefix::parse("engines")?).await?;
    let lease = leases.iter().find(|l| l.name.as_key().as_str() == name);
    Ok(lease.is_none_or(|l| l.expired))
}
