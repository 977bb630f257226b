//! Placements a second: by engines, of tasks whose plan carries a claim, and by clients that claim and do nothing else.
//!
//! The hosts are records, nothing runs on them; a claim of its own fills each so far that between none and [`ROOM`] more servers fit.
//! A task is placed when its plan is committed together with its claim, under a compare of the host's ledger; it has no job, so a second
//! commit ends it, and only then its caller goes on. At the end every ledger is compared with the claims below it and with its host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::{TryStreamExt as _, stream};
use serde_json::Value as Json;
use skyloom::engine::EngineConfig;
use skyloom::flow::{
    FlowRegistry, InventoryFeed, JobRegistry, PlanContext, Planned, Records, Refusal, SettleContext, Settled,
    TaskFlow,
};
use skyloom::model::{
    Claim, Clock as _, Host, HostFacts, HostId, HostLedger, HostSpec, HostStatus, Id, Ids, JobId, Meta, Name,
    OsIds, Reason, Resource as _, Resources, Scope, ServerId, SystemClock, Task, TaskId, paths,
};
use skyloom::scheduler::{FleetScheduler, HostView, Placement, Request, Scheduler as _};
use skyloom::store::{DynBackend, Guard, Key, Outcome, Prefix, Revision, Table, Txn, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::meter::{Anyhow, Meter, progress};
use crate::rig::{Ends, Running};
use crate::table::{Samples, Short, Thousands};
use crate::{ten, write};

const FLOW: &str = "bench.place";
/// The most servers that a host has room for in the beginning.
const ROOM: u64 = 10;
/// What a server takes.
const SERVER: Resources = Resources {
    vcpus: 2,
    memory_mib: 4_096,
    disk_gib: 20,
};
/// What a host has.
const HOST: Resources = Resources {
    vcpus: 64,
    memory_mib: 256 * 1_024,
    disk_gib: 4_000,
};
/// Commits under way while the hosts are made.
const AT_ONCE: usize = 64;

/// The first lines of the table.
pub(crate) const HEAD: &str = "
| placed | hosts | engines | in flight | per second | p50 | p99 | CPU each | conflicts per placement | overcommitted | others' CPU | goal |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | --- |";

/// Places the server whose id is the task's.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Plans made, those that lost their commit too.
    plans: Arc<AtomicU64>,
}

impl TaskFlow for Place {
    fn name(&self) -> &'static str {
        FLOW
    }

    fn reads(&self, _: &Task, _: &Records, _: &BTreeMap<JobId, Json>) -> Vec<Key> {
        Vec::new()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        self.plans.fetch_add(1, Ordering::Relaxed);
        let request = request(ServerId::from_uuid(task.id.uuid()));
        let placed = cx.scheduler.place(&request, cx.inventory);
        let placed = placed.map_err(|no| Refusal::Fail(no.reason()))?;
        let bad = |e: &dyn std::fmt::Display| Refusal::Fail(Reason::new("bench", e.to_string()));
        Ok(Planned {
            placement: Some(serde_json::to_value(&placed.report).map_err(|e| bad(&e))?),
            changes: claiming(&placed).map_err(|e| bad(&e))?,
            ..Planned::default()
        })
    }

    fn settle(&self, _: &Task, _: &SettleContext<'_>) -> Result<Settled, Reason> {
        Ok(Settled::default())
    }
}

fn request(server: ServerId) -> Request {
    Request::new(server, SERVER, "x86_64")
}

/// The claim and the ledger with it, if nobody has changed that.
fn claiming(placed: &Placement) -> Result<Txn, Anyhow> {
    let at = Key::parse(&paths::ledger(placed.host))?;
    let as_read = match placed.ledger_revision {
        0 => Guard::Absent(at.clone()),
        revision => Guard::Revision(at.clone(), Revision(revision)),
    };
    let claim = Key::parse(&paths::claim(placed.host, placed.claim.server))?;
    Ok(Txn::new()
        .guard(as_read)
        .put(at, Value::json(&placed.ledger_after)?)
        .create(claim, Value::json(&placed.claim)?))
}

/// Writes the hosts, their ledgers and what fills them.
pub(crate) async fn hosts(store: &DynBackend, hosts: usize, clock: SystemClock) -> Result<(), Anyhow> {
    progress(&format!("{hosts} hosts are made"));
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock));
    let mut txns = Vec::with_capacity(hosts);
    for number in 0..hosts {
        let id = HostId::fresh(&*ids);
        let name = Name::new(format!("host-{number}"))?;
        let host = Host {
            meta: Meta::new(id.uuid(), name, Scope::System, clock.now()),
            spec: HostSpec::default(),
            status: HostStatus {
                reachable: true,
                facts: Some(facts()),
                ..HostStatus::default()
            },
        };
        // Spread evenly, and the same in each run.
        let room = SERVER.memory_mib * (number as u64 % (ROOM + 1));
        let filler = Resources {
            memory_mib: HOST.memory_mib - room,
            ..Resources::default()
        };
        let claim = Claim {
            server: ServerId::fresh(&*ids),
            scope: None,
            resources: filler,
            group: None,
        };
        let ledger = skyloom::scheduler::claim(&HostLedger::default(), &claim);
        let at = Key::parse(&paths::resource(Host::KIND, Scope::System, id.uuid()))?;
        txns.push(
            Txn::new()
                .create(at, Value::json(&host)?)
                .create(Key::parse(&paths::ledger(id))?, Value::json(&ledger)?)
                .create(Key::parse(&paths::claim(id, claim.server))?, Value::json(&claim)?),
        );
    }
    stream::iter(txns.into_iter().map(Ok::<_, Anyhow>))
        .try_for_each_concurrent(AT_ONCE, |txn| async {
            store
                .commit(txn)
                .await?
                .committed()
                .ok_or("a host is there already")?;
            Ok(())
        })
        .await
}

fn facts() -> HostFacts {
    HostFacts {
        capacity: HOST,
        architecture: "x86_64".to_owned(),
        hypervisor: "fake".to_owned(),
        hypervisor_version: "1".to_owned(),
        accelerator: "fake".to_owned(),
        accelerator_reason: "simulated".to_owned(),
        traits: Vec::new(),
    }
}

/// A row: `tasks` tasks from `callers` callers, placed by `engines` engines.
pub(crate) async fn by_engines(
    name: &str,
    store: &DynBackend,
    (engines, callers, tasks): (usize, usize, usize),
    goal: Option<f64>,
    clock: SystemClock,
) -> Result<(), Anyhow> {
    progress(&format!("placed tasks on {name}, {engines} engines"));
    let before = audit(store).await?;
    let flow = Place::default();
    let ends = Arc::new(Ends::watch(store, clock).await?);
    let start = |number| {
        let config = EngineConfig::new(format!("engine-{number}"));
        let flows = FlowRegistry::new().with(flow.clone());
        Running::start(store, clock, config, flows, JobRegistry::new())
    };
    let running: Vec<Running> = (0..engines).map(start).collect();
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock));
    // The engines' caches are full when they have done something.
    closed_loop(store, &ends, &ids, (callers, callers), clock).await?;
    let warm = flow.plans.load(Ordering::Relaxed);
    let samples = closed_loop(store, &ends, &ids, (callers, tasks), clock).await?;
    let plans = flow.plans.load(Ordering::Relaxed) - warm;
    for engine in running {
        engine.stop().await?;
    }
    let after = audit(store).await?;
    if after.claims != before.claims + callers + tasks {
        return Err(format!(
            "{} claims for {} tasks",
            after.claims - before.claims,
            callers + tasks
        )
        .into());
    }
    row(
        &format!("tasks, {name}"),
        (&after, engines, callers),
        &samples,
        plans - tasks as u64,
        goal,
    )
}

/// `callers` callers of which each asks for its next task when the one before has ended.
async fn closed_loop(
    store: &DynBackend,
    ends: &Arc<Ends>,
    ids: &Arc<dyn Ids>,
    (callers, tasks): (usize, usize),
    clock: SystemClock,
) -> Result<Samples, Anyhow> {
    let left = Arc::new(AtomicUsize::new(tasks));
    let meter = Meter::start(clock)?;
    let mut work = JoinSet::new();
    for _ in 0..callers {
        let (store, ends, ids, left) = (store.clone(), ends.clone(), ids.clone(), left.clone());
        work.spawn(async move {
            let mut took = Vec::new();
            while one_less(&left) {
                let id = TaskId::fresh(&*ids);
                let begin = clock.monotonic();
                let end = ends.of(id);
                let txn = ten::request(FLOW, id, clock.now())?;
                store
                    .commit(txn)
                    .await?
                    .committed()
                    .ok_or("a request met a conflict")?;
                end.await?;
                took.push(clock.monotonic().saturating_sub(begin));
            }
            Ok::<_, Anyhow>(took)
        });
    }
    collect(work, meter).await
}

fn one_less(left: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

async fn collect(
    mut work: JoinSet<Result<Vec<std::time::Duration>, Anyhow>>,
    meter: Meter,
) -> Result<Samples, Anyhow> {
    let mut took = Vec::new();
    while let Some(done) = work.join_next().await {
        took.extend(done??);
    }
    Ok(Samples::new(took, meter.stop()?))
}

/// A row: `clients` clients decide on one inventory and commit the claim, and nothing else.
pub(crate) async fn by_clients(
    name: &str,
    store: &DynBackend,
    (clients, claims): (usize, usize),
    goal: Option<f64>,
    clock: SystemClock,
) -> Result<(), Anyhow> {
    progress(&format!("claims on {name}, {clients} clients"));
    let before = audit(store).await?;
    let (feed, driver) = InventoryFeed::new(store)?;
    let shutdown = CancellationToken::new();
    let mut following = JoinSet::new();
    following.spawn(driver.run(shutdown.clone()));
    feed.ready().await?;
    while feed.with(|hosts| hosts.len()) < before.hosts {
        tokio::task::yield_now().await;
    }
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock));
    let (left, conflicts) = (Arc::new(AtomicUsize::new(claims)), Arc::new(AtomicU64::new(0)));
    let meter = Meter::start(clock)?;
    let mut work = JoinSet::new();
    for _ in 0..clients {
        let (store, feed, ids) = (store.clone(), feed.clone(), ids.clone());
        let (left, conflicts) = (left.clone(), conflicts.clone());
        work.spawn(async move {
            let (scheduler, mut took) = (FleetScheduler::default(), Vec::new());
            while one_less(&left) {
                let request = request(Id::fresh(&*ids));
                let begin = clock.monotonic();
                loop {
                    let placed = feed.with(|hosts| scheduler.place(&request, hosts))?;
                    match store.commit(claiming(&placed)?).await? {
                        Outcome::Committed { .. } => break,
                        Outcome::Conflict { current, .. } => {
                            conflicts.fetch_add(1, Ordering::Relaxed);
                            if let Some(revision) = current {
                                feed.wait_for(revision).await;
                            }
                        }
                    }
                }
                took.push(clock.monotonic().saturating_sub(begin));
            }
            Ok::<_, Anyhow>(took)
        });
    }
    let samples = collect(work, meter).await?;
    shutdown.cancel();
    while following.join_next().await.is_some() {}
    let after = audit(store).await?;
    if after.claims != before.claims + claims {
        return Err(format!("{} claims for {claims} placements", after.claims - before.claims).into());
    }
    row(
        &format!("claims alone, {name}"),
        (&after, 0, clients),
        &samples,
        conflicts.load(Ordering::Relaxed),
        goal,
    )
}

fn row(
    what: &str,
    (audit, engines, in_flight): (&Audit, usize, usize),
    samples: &Samples,
    conflicts: u64,
    goal: Option<f64>,
) -> Result<(), Anyhow> {
    let met = |goal: f64| {
        if samples.rate() >= goal {
            "met"
        } else {
            "**missed**"
        }
    };
    write(format_args!(
        "| {what} | {} | {engines} | {in_flight} | {} | {} | {} | {} | {:.3} | {} hosts | {:.0} % | {} |",
        Thousands(audit.hosts as f64),
        Thousands(samples.rate()),
        Short(samples.p50()),
        Short(samples.quantile(0.99)),
        Short(samples.cpu_each()),
        conflicts as f64 / samples.count() as f64,
        audit.overcommitted,
        samples.cost.others_share() * 100.0,
        goal.map_or("-".to_owned(), |goal| format!(
            "≥ {}/s: {}",
            Thousands(goal),
            met(goal)
        )),
    ))
}

/// What all ledgers and claims say.
struct Audit {
    hosts: usize,
    claims: usize,
    /// Hosts with more taken than they offer.
    overcommitted: usize,
}

/// Adds up the claims of each host. A ledger that says otherwise is an error.
async fn audit(store: &DynBackend) -> Result<Audit, Anyhow> {
    let hosts = all::<Host>(store, &paths::scoped(Host::KIND, Scope::System)).await?;
    let mut taken: BTreeMap<HostId, HostLedger> = BTreeMap::new();
    let claims = all::<Claim>(store, paths::CLAIMS).await?;
    for (key, claim) in &claims {
        let host: HostId = key.segments().nth(1).ok_or("a claim of no host")?.parse()?;
        let ledger = taken.entry(host).or_default();
        *ledger = skyloom::scheduler::claim(ledger, claim);
    }
    let ledgers = all::<HostLedger>(store, paths::LEDGERS).await?;
    let ledgers: BTreeMap<HostId, HostLedger> = ledgers
        .into_iter()
        .map(|(key, ledger)| Ok((key.last().parse()?, ledger)))
        .collect::<Result<_, Anyhow>>()?;
    if ledgers != taken {
        return Err("the ledgers are not the sums of the claims".into());
    }
    let over = |(_, host): &&(Key, Host)| {
        let used = ledgers.get(&host.id()).map(|l| l.used).unwrap_or_default();
        let all = HostView::of(host, HostLedger::default(), 0).effective();
        used.vcpus > all.vcpus || used.memory_mib > all.memory_mib || used.disk_gib > all.disk_gib
    };
    Ok(Audit {
        hosts: hosts.len(),
        claims: claims.len(),
        overcommitted: hosts.iter().filter(over).count(),
    })
}

async fn all<T: skyloom::store::Document>(store: &DynBackend, below: &str) -> Result<Vec<(Key, T)>, Anyhow> {
    let table = Table::<T>::new(store.clone(), Prefix::parse(below)?);
    let found = table.list_all().await?.items.into_iter();
    Ok(found.map(|record| (record.key, record.value)).collect())
}
