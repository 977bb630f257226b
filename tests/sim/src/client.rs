//! Clients: they call the API as programs do, repeat under the same key when they got no answer, and remember what they
//! were told.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use skyloom_cloud::{
    Caller, Cloud, CloudError, CreateServer, ErrorKind, LiveMigrateServer, MigrateServer, StopOptions,
    SweepHost,
};
use skyloom_identity::Rights;
use skyloom_model::{
    ActiveTask, FORMAT, HostId, Id, ImageId, Name, OrderVerb, Priority, Progress, ProjectId, Resource as _,
    ServerAction, ServerId, Subject, Task, TaskId, TaskState, paths,
};
use skyloom_store::{Key, Outcome, Txn, Value};
use tokio_util::sync::CancellationToken;

use crate::bed::Bed;
use crate::faults::Kind;
use crate::rng::Rng;
use crate::swarm::{Operation, Step};
use crate::work::MeshParams;

/// Tries of one call.
const TRIES: usize = 10;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(40);
/// The sizes that clients ask for.
const FLAVORS: [&str; 2] = ["m1.tiny", "m1.small"];

/// Where clients find the API.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) bed: Arc<Bed>,
    api: Mutex<Option<(Arc<Cloud>, CancellationToken)>>,
}

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) enum Failed {
    /// No answer: it may have happened.
    Lost,
    /// The API says no.
    Said(CloudError),
}

impl Failed {
    fn again(&self) -> bool {
        match self {
            Self::Lost => true,
            Self::Said(error) => matches!(
                error.kind(),
                ErrorKind::Unavailable
                    | ErrorKind::Timeout
                    | ErrorKind::Internal
                    | ErrorKind::TooManyRequests
            ),
        }
    }

    /// How long the API wants to be left alone.
    fn wait(&self) -> Duration {
        match self {
            Self::Lost => Duration::ZERO,
            Self::Said(error) => error.wait().unwrap_or_default(),
        }
    }
}

impl Door {
    pub(crate) fn new(bed: Arc<Bed>) -> Self {
        Self {
            bed,
            api: Mutex::new(None),
        }
    }

    /// The API process is there; `ended` says when it no longer is.
    pub(crate) fn open(&self, cloud: Arc<Cloud>, ended: CancellationToken) {
        *self.api.lock() = Some((cloud, ended));
    }

    /// The API process is gone.
    pub(crate) fn close(&self) {
        if let Some((_, ended)) = self.api.lock().take() {
            ended.cancel();
        }
    }

    async fn call<T>(
        &self,
        rng: &mut Rng,
        call: impl FnOnce(Arc<Cloud>) -> BoxFuture<'static, Result<T, CloudError>>,
    ) -> Result<T, Failed> {
        let (there, back) = (rng.below(5), rng.below(5));
        let lose_request = self.bed.weather.bites(rng, Kind::LoseRequest);
        let lose_answer = self.bed.weather.bites(rng, Kind::LoseAnswer);
        tokio::time::sleep(Duration::from_millis(1 + there)).await;
        let api = self.api.lock().clone();
        let Some((cloud, ended)) = api.filter(|_| !lose_request) else {
            return Err(Failed::Lost);
        };
        let answer = tokio::select! {
            biased;
            () = ended.cancelled() => return Err(Failed::Lost),
            () = tokio::time::sleep(PATIENCE) => return Err(Failed::Lost),
            answer = call(cloud) => answer,
        };
        tokio::time::sleep(Duration::from_millis(1 + back)).await;
        if lose_answer || ended.is_cancelled() {
            return Err(Failed::Lost);
        }
        answer.map_err(Failed::Said)
    }
}

/// What all clients know.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) rights: Rights,
    pub(crate) door: Arc<Door>,
    pub(crate) project: ProjectId,
    pub(crate) image: ImageId,
    pub(crate) hosts: Arc<[HostId]>,
    /// Whether creates may wait for room: not where clocks are set back, for then they wait by that much longer.
    pub(crate) waits: bool,
}

/// A client with what it remembers.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    pub(crate) terms: Terms,
    seed: u64,
    pub(crate) rng: Rng,
    servers: Vec<ServerId>,
    last: Option<TaskId>,
}

impl Client {
    pub(crate) fn new(number: usize, terms: Terms, seed: u64) -> Self {
        Self::named(format!("client-{number}"), terms, seed)
    }

    /// A client with a stream of chance of its own.
    pub(crate) fn named(name: String, terms: Terms, seed: u64) -> Self {
        Self {
            rng: Rng::of(seed, &name),
            seed,
            name,
            terms,
            servers: Vec::new(),
            last: None,
        }
    }

    pub(crate) async fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
            // What a step draws is its own, whatever the steps before it met.
            self.rng = Rng::of(self.seed, &format!("step-{}", step.number));
            let task = self.step(&step).await;
            if let Some(task) = task {
                self.terms.door.bed.checker(|c| c.acknowledge(task));
                self.terms.door.bed.note(&self.name, "told", || {
                    format!("{:?} is task {task}", step.operation)
                });
                self.last = Some(task);
                if step.waits {
                    self.wait(task).await;
                }
            }
        }
    }

    /// Gives the same order for all of `tasks`.
    pub(crate) async fn order(mut self, tasks: Vec<TaskId>, verb: OrderVerb) {
        for task in tasks {
            let caller = self.caller(Some(format!("{verb:?}-{task}")));
            self.insist(|cloud| {
                let caller = caller.clone();
                async move {
                    cloud
                        .order_task(&caller, task, verb, "the simulator's operator")
                        .await
                }
                .boxed()
            })
            .await;
        }
    }

    pub(crate) fn caller(&self, key: Option<String>) -> Caller {
        let project = self.terms.project;
        Caller {
            request_id: key.clone().unwrap_or_else(|| self.name.clone()),
            idempotency_key: key,
            ..Caller::internal(&self.name, self.terms.rights.clone(), project)
        }
    }

    async fn step(&mut self, step: &Step) -> Option<TaskId> {
        let caller = self.caller(Some(format!("key-{}", step.number)));
        let server = |pick: u64| {
            let index = pick.checked_rem(self.servers.len() as u64)?;
            self.servers.get(index as usize).copied()
        };
        match step.operation.clone() {
            Operation::Create { flavor, start, group } => {
                let request = CreateServer {
                    name: Some(format!("s{}", step.number)),
                    image: self.terms.image.to_string(),
                    flavor: FLAVORS[flavor].to_owned(),
                    config_drive: Some(false),
                    anti_affinity_group: group.then(|| "group".to_owned()),
                    start: Some(start),
                    wait_for_room_seconds: (self.terms.waits && step.number.is_multiple_of(4)).then_some(20),
                    ..CreateServer::default()
                };
                let made = self
                    .insist(|cloud| {
                        let (caller, request) = (caller.clone(), request.clone());
                        async move { cloud.create_server(&caller, request).await }.boxed()
                    })
                    .await?;
                self.servers.push(made.server.id());
                Some(made.task.id)
            }
            Operation::Start { pick } => {
                let id = server(pick)?;
                self.act(
                    move |cloud, caller| async move { cloud.start_server(&caller, id).await }.boxed(),
                    caller,
                )
                .await
            }
            Operation::Stop { pick, force } => {
                let (id, options) = (server(pick)?, stop(force));
                self.act(
                    move |cloud, caller| async move { cloud.stop_server(&caller, id, options).await }.boxed(),
                    caller,
                )
                .await
            }
            Operation::Reboot { pick } => {
                let (id, options) = (server(pick)?, stop(false));
                self.act(
                    move |cloud, caller| {
                        async move { cloud.reboot_server(&caller, id, options).await }.boxed()
                    },
                    caller,
                )
                .await
            }
            Operation::Delete { pick } => {
                let id = server(pick)?;
                self.act(
                    move |cloud, caller| async move { cloud.delete_server(&caller, id).await }.boxed(),
                    caller,
                )
                .await
            }
            Operation::Migrate { pick, live: true } => {
                let (id, request) = (server(pick)?, LiveMigrateServer::default());
                self.act(
                    move |cloud, caller| {
                        let request = request.clone();
                        async move { cloud.live_migrate_server(&caller, id, request).await }.boxed()
                    },
                    caller,
                )
                .await
            }
            Operation::Migrate { pick, live: false } => {
                let request = MigrateServer {
                    timeout_seconds: Some(5),
                    ..MigrateServer::default()
                };
                let id = server(pick)?;
                self.act(
                    move |cloud, caller| {
                        let request = request.clone();
                        async move { cloud.migrate_server(&caller, id, request).await }.boxed()
                    },
                    caller,
                )
                .await
            }
            Operation::Act { pick, action } => {
                let id = server(pick)?;
                let options = match action {
                    ServerAction::Shelve => json!(stop(false)),
                    _ => serde_json::Value::Null,
                };
                let done = self
                    .insist(|cloud| {
                        let (caller, options) = (caller.clone(), options.clone());
                        async move { cloud.act_on_server(&caller, id, action, options).await }.boxed()
                    })
                    .await?;
                done.task.map(|task| task.id)
            }
            Operation::Cancel => {
                let last = self.last?;
                self.insist(|cloud| {
                    let caller = caller.clone();
                    async move { cloud.cancel_task(&caller, last).await }.boxed()
                })
                .await
                .map(|done| done.task.id)
            }
            Operation::Mesh { host, fails, secret } => {
                let flow = if fails.is_some() { "sim.broken" } else { "sim.mesh" };
                let params = MeshParams {
                    host: self.terms.hosts[host],
                    fails: fails.map(str::to_owned),
                    secret,
                };
                self.submit(flow, json!(params), secret, step.number).await
            }
            Operation::Sweep { host, remove } => {
                let (host, options) = (self.terms.hosts[host], SweepHost { remove });
                self.insist(|cloud| {
                    let caller = caller.clone();
                    async move { cloud.sweep_host(&caller, host, options).await }.boxed()
                })
                .await
                .map(|done| done.task.id)
            }
            Operation::Poison => self.submit("sim.poison", json!({}), false, step.number).await,
        }
    }

    async fn act(
        &mut self,
        call: impl Fn(Arc<Cloud>, Caller) -> BoxFuture<'static, Result<skyloom_cloud::ServerTask, CloudError>>,
        caller: Caller,
    ) -> Option<TaskId> {
        self.insist(|cloud| call(cloud, caller.clone()))
            .await
            .map(|done| done.task.id)
    }

    /// Calls until there is an answer, or patience ends.
    async fn insist<T>(
        &mut self,
        call: impl Fn(Arc<Cloud>) -> BoxFuture<'static, Result<T, CloudError>>,
    ) -> Option<T> {
        self.ask(TRIES, call).await.ok()
    }

    /// Calls until there is an answer, `tries` times at most.
    pub(crate) async fn ask<T>(
        &mut self,
        tries: usize,
        call: impl Fn(Arc<Cloud>) -> BoxFuture<'static, Result<T, CloudError>>,
    ) -> Result<T, Failed> {
        let mut last = Failed::Lost;
        for _ in 0..tries {
            match self.terms.door.call(&mut self.rng, &call).await {
                Ok(done) => return Ok(done),
                Err(failed) => {
                    let bed = &self.terms.door.bed;
                    bed.note(&self.name, "failed", || format!("{failed:?}"));
                    if !failed.again() {
                        return Err(failed);
                    }
                    last = failed;
                }
            }
            let pause = Duration::from_millis(self.rng.within(200, 5_000));
            tokio::time::sleep(pause.max(last.wait())).await;
        }
        Err(last)
    }

    /// Waits until a task has come to rest, looking now and then.
    async fn wait(&mut self, task: TaskId) {
        let caller = self.caller(None);
        for _ in 0..200 {
            let pause = self.rng.within(500, 3_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let looked = self
                .terms
                .door
                .call(&mut self.rng, |cloud| {
                    let caller = caller.clone();
                    async move { cloud.get_task(&caller, task).await }.boxed()
                })
                .await;
            match looked {
                Ok(found) if found.value.state.rests() => return,
                Err(Failed::Said(error)) if error.kind() == ErrorKind::NotFound => {
                    self.terms
                        .door
                        .bed
                        .violated("I2", format!("task {task} was acknowledged and is not found"));
                    return;
                }
                _ => {}
            }
        }
    }

    /// Submits a task of the simulator's own flows, as the facade submits the cloud's.
    async fn submit(
        &mut self,
        flow: &str,
        params: serde_json::Value,
        secret: bool,
        number: usize,
    ) -> Option<TaskId> {
        let mut drawn = || u128::from(self.rng.next());
        let id = |bits: u128| uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
        let (task_id, subject) = (id(drawn() << 64 | drawn()), id(drawn() << 64 | drawn()));
        let caller = self.caller(Some(format!("key-{number}")));
        let (scope, name) = (caller.scope(), Name::new("mesh").ok()?);
        let flow = flow.to_owned();
        let make = move |now| Task {
            format: FORMAT,
            id: Id::from_uuid(task_id),
            scope,
            flow: flow.clone(),
            subject: Subject {
                kind: "meshes".to_owned(),
                id: subject,
                name: name.clone(),
            },
            params: params.clone(),
            actor: caller.actor.clone(),
            request_id: caller.request_id.clone(),
            idempotency_key: caller.idempotency_key.clone(),
            state: TaskState::Queued,
            reason: None,
            progress: Progress::default(),
            owner: None,
            cancel: false,
            priority: Priority::Normal,
            deadline: None,
            plan_version: 0,
            resume: None,
            orders: Vec::new(),
            result: None,
            created_at: now,
            planned_at: None,
            ended_at: None,
        };
        let project = self.terms.project;
        self.insist(|cloud| {
            let make = make.clone();
            async move {
                let parts = cloud.parts();
                let task = make(parts.clock.now());
                let key = |path: &str| Key::parse(path);
                let mark = ActiveTask::of(&task);
                let mut txn = Txn::new()
                    .create(key(&paths::task(scope, task.id))?, Value::json(&task)?)
                    .create(key(&paths::active(task.id))?, Value::json(&mark)?);
                if secret {
                    let at = paths::server_secrets(project, Id::from_uuid(subject));
                    txn = txn.create(key(&at)?, Value::json(&json!({"password_hash": "x"}))?);
                }
                match parts.backend.commit(txn).await? {
                    // Also when it was there already: by an earlier try of this client.
                    Outcome::Committed { .. } | Outcome::Conflict { .. } => Ok(task.id),
                }
            }
            .boxed()
        })
        .await
    }
}

fn stop(force: bool) -> StopOptions {
    StopOptions {
        force,
        timeout_seconds: Some(5),
    }
}
