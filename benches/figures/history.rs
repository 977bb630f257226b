//! Cost per task over a long time: servers are made and deleted at a steady pace, and each minute is compared.
//!
//! An open loop: requests come at their times, whether or not those before have ended. No passwords are made: their
//! hashing is slow on purpose and would hide all else.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skyloom::cloud::{Caller, Cloud, CreateServer};
use skyloom::model::{Clock as _, Resource as _, ServerId, SystemClock, Task, TaskState, paths};
use skyloom::sql::{SqliteConfig, SqliteStore};
use skyloom::store::{DynBackend, Key, Prefix, Table};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control;
use crate::meter::{Anyhow, Meter, progress, rss};
use crate::rig::Ends;
use crate::table::{Samples, Short, Thousands};
use crate::write;

/// Servers that exist once the pace is steady.
const SERVERS: usize = 200;
/// Tasks under way at which the cloud is said not to keep up.
const TOO_MANY: usize = 5_000;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_secs(10);
/// How far the last minute may be from the first.
const WITHIN: f64 = 0.10;

/// What a request needs.
#[derive(Clone)]
struct Client {
    cloud: Arc<Cloud>,
    admin: Caller,
    clock: SystemClock,
    ends: Arc<Ends>,
    /// Servers that are there, oldest first.
    servers: Arc<Mutex<VecDeque<ServerId>>>,
}

impl Client {
    /// Makes a server, or deletes the oldest: until its task has ended. From the facade's answer to the end.
    async fn request(self, number: usize) -> Result<Duration, Anyhow> {
        let oldest = {
            let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            let full = servers.len() >= SERVERS && !number.is_multiple_of(2);
            full.then(|| servers.pop_front()).flatten()
        };
        let (task, made) = match oldest {
            Some(server) => (self.cloud.delete_server(&self.admin, server).await?.task.id, None),
            None => {
                let mut request = CreateServer::new(format!("server-{number}"), "figures", "m1.tiny");
                request.config_drive = Some(false);
                let accepted = self.cloud.create_server(&self.admin, request).await?;
                (accepted.task.id, Some(accepted.server.id()))
            }
        };
        let begin = self.clock.monotonic();
        let ended = self.ends.of(task);
        // It may have ended before anybody listened.
        let at = if self.is_open(task).await? {
            ended.await?
        } else {
            self.clock.monotonic()
        };
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.extend(made);
        Ok(at.saturating_sub(begin))
    }

    async fn is_open(&self, task: skyloom::model::TaskId) -> Result<bool, Anyhow> {
        let key = Key::parse(&paths::active(task))?;
        Ok(self.cloud.parts().backend.get(&key).await?.is_some())
    }
}

/// One minute.
struct Minute {
    samples: Samples,
    rss: u64,
    commits: f64,
}

/// `per_second` tasks for so many `minutes`, each of `length`.
pub(crate) async fn run(
    minutes: usize,
    length: Duration,
    per_second: usize,
    dir: &Path,
    clock: SystemClock,
) -> Result<(), Anyhow> {
    let config = SqliteConfig::new(dir.join("history.db"));
    let sqlite = Arc::new(SqliteStore::open_or_create(config, Arc::new(clock)).await?);
    let store: DynBackend = sqlite.clone();
    let (starts, mut started) = mpsc::unbounded_channel();
    let local = control::open_cloud(store.clone(), dir, control::HOSTS, clock, starts).await?;
    let client = Client {
        cloud: local.cloud(),
        admin: local.admin(),
        clock,
        ends: Arc::new(Ends::watch(&store, clock).await?),
        servers: Arc::default(),
    };
    let shutdown = CancellationToken::new();
    let mut cloud = JoinSet::new();
    cloud.spawn(local.run(shutdown.clone()));
    control::import(&client.cloud, &client.admin, &store).await?;

    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second)?);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut requests: JoinSet<Result<Duration, Anyhow>> = JoinSet::new();
    let mut number = 0;
    write(format_args!(
        "\n| servers made and deleted, {per_second} tasks/s, SQLite | tasks/s | p50 | p99 | CPU each | commits each | resident memory | others' CPU |"
    ))?;
    write("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    let mut all: Vec<Minute> = Vec::with_capacity(minutes);
    for minute in 0..=minutes {
        let until = clock.monotonic() + if minute == 0 { WARM_UP } else { length };
        let commits = sqlite.stats().commits;
        let meter = Meter::start(clock)?;
        let mut took = Vec::new();
        while clock.monotonic() < until {
            tokio::select! {
                biased;
                Some(ended) = requests.join_next() => took.push(ended??),
                Some(_) = started.recv() => {}
                _ = pace.tick() => {
                    number += 1;
                    requests.spawn(client.clone().request(number));
                }
            }
            if requests.len() > TOO_MANY {
                return Err(format!("{TOO_MANY} tasks are under way: {per_second}/s is too fast").into());
            }
        }
        let samples = Samples::new(took, meter.stop()?);
        let commits = (sqlite.stats().commits - commits) as f64 / samples.count().max(1) as f64;
        let now = Minute {
            rss: rss()?,
            commits,
            samples,
        };
        if minute == 0 {
            continue;
        }
        write(now.row(&format!("minute {minute}")))?;
        progress(&format!("minute {minute} of {minutes}"));
        all.push(now);
    }
    while let Some(ended) = requests.join_next().await {
        ended??;
    }
    shutdown.cancel();
    while let Some(ended) = cloud.join_next().await {
        ended??;
    }
    check(&store).await?;
    sqlite.close().await?;
    if let (Some(first), Some(last)) = (all.first(), all.last()) {
        compare(first, last)?;
    }
    Ok(())
}

impl Minute {
    fn row(&self, name: &str) -> String {
        format!(
            "| {name} | {:.1} | {} | {} | {} | {:.1} | {:.1} MiB | {:.0} % |",
            self.samples.rate(),
            Short(self.samples.p50()),
            Short(self.samples.quantile(0.99)),
            Short(self.samples.cpu_each()),
            self.commits,
            self.rss as f64 / 1024.0,
            self.samples.cost.others_share() * 100.0
        )
    }
}

/// The last minute beside the first.
fn compare(first: &Minute, last: &Minute) -> Result<(), Anyhow> {
    let ratio = |what: &str, first: f64, last: f64| {
        let change = last / first - 1.0;
        let met = if change <= WITHIN { "met" } else { "**missed**" };
        write(format_args!(
            "- {what}: {:+.1} % (goal: within 10 %: {met})",
            change * 100.0
        ))
    };
    write("\nLast minute against the first:\n")?;
    let seconds = |d: Duration| d.as_secs_f64();
    ratio(
        "CPU per task",
        seconds(first.samples.cpu_each()),
        seconds(last.samples.cpu_each()),
    )?;
    ratio("p50", seconds(first.samples.p50()), seconds(last.samples.p50()))?;
    ratio(
        "p99",
        seconds(first.samples.quantile(0.99)),
        seconds(last.samples.quantile(0.99)),
    )?;
    ratio("resident memory", first.rss as f64, last.rss as f64)
}

/// Every task of the store is done.
async fn check(store: &DynBackend) -> Result<(), Anyhow> {
    let tasks = Table::<Task>::new(store.clone(), Prefix::parse(paths::TASKS)?)
        .list_all()
        .await?;
    let other = tasks.items.iter().filter(|t| t.value.state != TaskState::Done);
    match other.count() {
        0 => write(format_args!(
            "\nAll {} tasks are done.",
            Thousands(tasks.items.len() as f64)
        )),
        n => Err(format!("{n} tasks are not done").into()),
    }
}
