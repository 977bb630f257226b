//! Many agents: what they cost when nothing happens, and how they come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use skyloom_flow::LeaseKeeper;
use skyloom_model::{Clock as _, HostId, OsIds, Secret, SystemClock, paths};
use skyloom_store::layer::{self, StandardConfig};
use skyloom_store::{DynBackend, LeaseName, Mirror, Prefix};
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::child::Api;
use crate::{AnyError, say};

/// As [`skyloom_agent`]'s default.
const TTL: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(15);
const WATCHED: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Added {
    host: Host,
    token: String,
}
#[derive(Deserialize)]
struct Host {
    meta: Meta,
}
#[derive(Deserialize)]
struct Meta {
    id: HostId,
}

/// Agents at work; dropping it ends them.
struct Fleet {
    holding: Arc<AtomicUsize>,
    all: usize,
    _work: JoinSet<()>,
}

impl Fleet {
    async fn start(api: &Api, hosts: &[Added]) -> Result<Self, AnyError> {
        let holding = Arc::new(AtomicUsize::new(0));
        let mut work = JoinSet::new();
        let clock = Arc::new(SystemClock::new());
        let ids = Arc::new(OsIds::new(clock.clone()));
        for Added { host, token } in hosts {
            let config = RemoteConfig::new(&api.url, Secret::new(token.clone()));
            let store: DynBackend = Arc::new(RemoteStore::open(config)?);
            let store = layer::standard(store, StandardConfig::default(), clock.clone(), ids.clone());
            let id = host.meta.id;
            for area in [paths::jobs(id), paths::queries(id), "cloud".to_owned()] {
                let (mirror, driver) = Mirror::<serde_json::Value>::new(store.clone(), Prefix::parse(&area)?);
                work.spawn(async move {
                    let _mirror = mirror;
                    driver.run(CancellationToken::new()).await;
                });
            }
            let name = LeaseName::parse(&paths::host_lease(id))?;
            let (keeper, mut granted) = LeaseKeeper::new(store, clock.clone(), name, "agent", TTL);
            work.spawn(keeper.run(CancellationToken::new()));
            let holding = holding.clone();
            work.spawn(async move {
                let mut held = false;
                while granted.changed().await.is_ok() {
                    let now = granted.borrow().is_some();
                    match (held, now) {
                        (false, true) => drop(holding.fetch_add(1, Ordering::Relaxed)),
                        (true, false) => drop(holding.fetch_sub(1, Ordering::Relaxed)),
                        _ => {}
                    }
                    held = now;
                }
            });
            // They are not switched on in one instant either.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let fleet = Self {
            holding,
            all: hosts.len(),
            _work: work,
        };
        fleet.complete().await;
        Ok(fleet)
    }

    /// Waits until every agent holds its lease.
    async fn complete(&self) {
        while self.holding.load(Ordering::Relaxed) < self.all {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn add_hosts(api: &Api, many: usize) -> Result<Vec<Added>, AnyError> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()?;
    let add = |n: usize| {
        let call = client
            .post(format!("{}/v1/hosts", api.url))
            .bearer_auth(&api.admin);
        let call = call.json(&json!({"name": format!("h{n}")}));
        async { Ok::<_, AnyError>(call.send().await?.error_for_status()?.json().await?) }
    };
    let added: Vec<_> = futures::stream::iter(0..many)
        .map(add)
        .buffer_unordered(32)
        .collect()
        .await;
    added.into_iter().collect()
}

pub(crate) async fn idle(many: usize) -> Result<(), AnyError> {
    let mut api = Api::start().await?;
    let hosts = add_hosts(&api, many).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let base = api.memory()?;
    let fleet = Fleet::start(&api, &hosts).await?;
    tokio::time::sleep(SETTLE).await;
    api.arrivals().await?;
    let clock = SystemClock::new();
    let (begin, before) = (clock.monotonic(), api.processor()?);
    tokio::time::sleep(WATCHED).await;
    let (took, used) = (
        (clock.monotonic() - begin).as_secs_f64(),
        api.processor()? - before,
    );
    let requests: u64 = api.arrivals().await?.iter().sum();
    let with = api.memory()?;
    drop(fleet);
    let each = with.saturating_sub(base) as f64 / many as f64 / 1024.0;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    say(&format!(
        "\n| {many} idle agents on one API process (SQLite) | measured | goal |\n| --- | --- | --- |"
    ));
    say(&format!(
        "| memory per agent | {each:.1} KiB ({:.1} MiB before, {:.1} MiB with) | {} |",
        mib(base),
        mib(with),
        verdict("<= 64 KiB", each <= 64.0)
    ));
    say(&format!(
        "| processor | {:.1} % of a core, at {:.0} requests/s | |",
        100.0 * used / took,
        requests as f64 / took
    ));
    Ok(())
}

pub(crate) fn verdict(goal: &str, met: bool) -> String {
    if met {
        format!("{goal}: met")
    } else {
        format!("{goal}: **missed**")
    }
}

/// The most requests in any second, and in any tenth of one.
fn peaks(tenths: &[u64]) -> (u64, u64) {
    let second = tenths.windows(10).map(|w| w.iter().sum()).max();
    (second.unwrap_or(0), tenths.iter().copied().max().unwrap_or(0))
}

pub(crate) async fn outages(many: usize, seconds: u64) -> Result<(), AnyError> {
    let mut api = Api::start().await?;
    let hosts = add_hosts(&api, many).await?;
    let fleet = Fleet::start(&api, &hosts).await?;
    tokio::time::sleep(SETTLE).await;
    api.arrivals().await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let quiet = api.arrivals().await?;
    let outage = Duration::from_secs(seconds);
    let clock = SystemClock::new();

    api.command("down").await?;
    tokio::time::sleep(outage).await;
    let during = api.arrivals().await?;
    api.command("up").await?;
    let store = recover(&mut api, &fleet, &clock).await?;
    tokio::time::sleep(TTL).await;
    api.arrivals().await?;

    api.command(&format!("restart {}", outage.as_millis())).await?;
    tokio::time::sleep(outage).await;
    let restart = recover(&mut api, &fleet, &clock).await?;
    drop(fleet);

    let row = |what: &str, tenths: &[u64], back: Option<f64>| {
        let (second, tenth) = peaks(tenths);
        let back = back.map_or(String::new(), |s| format!("{s:.1} s"));
        say(&format!("| {what} | {second}/s | {tenth} | {back} |"));
    };
    say(&format!(
        "\n| {many} agents, requests at the API | peak second | peak tenth | all leases held after |\n| --- | --- | --- | --- |"
    ));
    row("nothing happens", &quiet, None);
    row(&format!("the store is away for {seconds} s"), &during, None);
    row("the store is back", &store.0, Some(store.1));
    row(
        &format!("the API is back after {seconds} s"),
        &restart.0,
        Some(restart.1),
    );
    Ok(())
}

/// Waits until all are back; the arrivals meanwhile, and for a while after.
async fn recover(api: &mut Api, fleet: &Fleet, clock: &SystemClock) -> Result<(Vec<u64>, f64), AnyError> {
    let begin = clock.monotonic();
    // Leases run out during an outage: who holds one again is back.
    tokio::time::timeout(Duration::from_secs(120), fleet.complete()).await?;
    let took = (clock.monotonic() - begin).as_secs_f64();
    tokio::time::sleep(TTL).await;
    Ok((api.arrivals().await?, took))
}
