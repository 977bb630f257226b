//! One run: a world, its processes, one task, one trouble; and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use skyloom_model::{ActiveTask, Clock, JobRecord, OrderVerb, Plan, Run, StepRecord, Task, TaskState, paths};
use skyloom_store::{DynBackend, Key, ListOptions, Prefix};
use tokio::sync::mpsc;

use super::lives::Lives;
use super::script::{Process, Script, Trouble};
use super::{Digest, World};

/// A task that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(12 * 3600);
/// How long it is watched whether an ended task stays ended.
const QUIET: Duration = Duration::from_secs(60);
/// When a task is looked at although nothing was committed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What came of a run.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) task: Task,
    /// Its jobs in the order of the plan.
    pub(super) jobs: Vec<JobRecord>,
    pub(super) digest: Digest,
    pub(super) tally: BTreeMap<String, u64>,
    pub(super) left: Vec<String>,
    /// Commits of its processes.
    pub(super) commits: usize,
    /// What the outside looked like after each commit; of plain runs only.
    pub(super) passed: BTreeSet<Digest>,
}

/// Carries a task of `world` to its end with nothing in its way.
///
/// # Errors
/// What kept it from ending.
pub async fn carry(world: &Arc<dyn World>, clock: &Arc<dyn Clock>, task: &Task) -> Result<Task, String> {
    let (script, mut deaths) = Script::new(world.clone(), Trouble::None, None);
    let mut lives = Lives::begin(world.clone(), clock.clone(), script.clone())?;
    let ended = attend(&mut lives, &script, &mut deaths, task).await;
    lives.end().await;
    ended
}

/// Has the world's change asked for and carried out, with `trouble` in its way.
pub(super) async fn run(
    world: &Arc<dyn World>,
    clock: &Arc<dyn Clock>,
    trouble: Trouble,
    turn: Option<String>,
) -> Result<Ran, String> {
    let (script, mut deaths) = Script::new(world.clone(), trouble, turn);
    let mut lives = Lives::begin(world.clone(), clock.clone(), script.clone())?;
    // Everybody is at work before the task is asked for, as they are in a cloud.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let task = world.ask().await;
    let ended = attend(&mut lives, &script, &mut deaths, &task).await?;
    let digest = world.digest().await;
    watch_quiet(&mut lives, &mut deaths).await?;
    lives.end().await;
    let backend = world.backend();
    let after: Task = read(&backend, &paths::task(task.scope, task.id))
        .await?
        .ok_or("the task is gone")?;
    if after != ended || world.digest().await != digest {
        return Err("something went on after the task had ended".to_owned());
    }
    let mut left = world.leftovers(&ended).await;
    for below in [paths::ACTIVE, paths::JOBS, paths::STEPS, "lent"] {
        let prefix = Prefix::parse(below).map_err(|e| e.to_string())?;
        let page = backend
            .list(&prefix, ListOptions::default())
            .await
            .map_err(|e| e.to_string())?;
        left.extend(page.items.iter().map(|kv| kv.key.to_string()));
    }
    let plan: Option<Plan> = read(&backend, &paths::plan(task.id)).await?;
    let run: Option<Run> = read(&backend, &paths::run(task.id)).await?;
    let steps = run.map(|run| run.jobs).unwrap_or_default().into_iter();
    let whole = |step: StepRecord| plan.as_ref().and_then(|plan| step.whole(&ended, plan));
    let jobs = steps.filter_map(whole).collect();
    Ok(Ran {
        task: ended,
        jobs,
        digest,
        tally: world.tally().await,
        left,
        commits: script.commits(),
        passed: script.passed(),
    })
}

/// Buries, renews and, where the script has it so, repairs, until the task has ended.
async fn attend(
    lives: &mut Lives,
    script: &Arc<Script>,
    deaths: &mut mpsc::UnboundedReceiver<Process>,
    task: &Task,
) -> Result<Task, String> {
    let backend = script.world.backend();
    let mut changes = script.changes();
    script.asked(task.id);
    lives.carry(ActiveTask::of(task));
    let until = tokio::time::Instant::now() + PATIENCE;
    let path = paths::task(task.scope, task.id);
    loop {
        let now: Task = read(&backend, &path).await?.ok_or("the task is gone")?;
        if now.state.ended() {
            return Ok(now);
        }
        if now.state == TaskState::Stuck && now.orders.iter().all(|order| order.carried_out) {
            if !matches!(script.trouble, Trouble::Stuck(_)) || !now.orders.is_empty() {
                return Err(format!("stuck: {:?}", now.reason));
            }
            script.repair();
            script.world.order(task.id, OrderVerb::Retry).await;
        }
        if tokio::time::Instant::now() > until {
            return Err(format!("it does not end: {:?}, {:?}", now.state, now.reason));
        }
        tokio::select! {
            biased;
            Some(died) = deaths.recv() => lives.renew(died).await?,
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Lets everybody live on for a while.
async fn watch_quiet(lives: &mut Lives, deaths: &mut mpsc::UnboundedReceiver<Process>) -> Result<(), String> {
    let until = tokio::time::Instant::now() + QUIET;
    loop {
        tokio::select! {
            biased;
            Some(died) = deaths.recv() => lives.renew(died).await?,
            () = tokio::time::sleep_until(until) => return Ok(()),
        }
    }
}

async fn read<T: DeserializeOwned>(backend: &DynBackend, path: &str) -> Result<Option<T>, String> {
    let key = Key::parse(path).map_err(|e| e.to_string())?;
    let found = backend.get(&key).await.map_err(|e| e.to_string())?;
    found
        .map(|kv| kv.value.parse().map_err(|e| e.to_string()))
        .transpose()
}
