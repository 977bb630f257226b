//! The work of schedules beyond the cloud's own: flows and jobs that exist only here, and the eyes on all jobs.
//!
//! `sim.mesh` is a small graph with parallel branches, jobs of the engine and of a host, and a secret lent to that host;
//! `sim.broken` is the same with one job that always fails; `sim.poison` kills whatever engine plans it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{
    FlowRegistry, Job, JobContext, JobError, JobRegistry, PlanContext, Planned, Records, Refusal,
    SettleContext, Settled, TaskFlow, Undo,
};
use skyloom_model::{
    HostId, Id, JobId, JobRecord, JobSpec, JobWant, Place, Reason, RetryPolicy, Scope, Task, TaskId, paths,
};
use skyloom_store::{DynBackend, Key, Txn};

use crate::bed::{Bed, Who};
use crate::gate::Gate;
use crate::host::HostBed;

/// What jobs of the simulator's own flows have done to the world: marks by task and job, with how often each was made.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<BTreeMap<(TaskId, JobId), Mark>>);

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    there: bool,
    made: u32,
}

impl Marks {
    /// The marks that are there.
    pub(crate) fn there(&self) -> Vec<(TaskId, JobId)> {
        let marks = self.0.lock();
        let there = marks.iter().filter(|(_, mark)| mark.there);
        there.map(|(at, _)| at.clone()).collect()
    }
}

/// Parameters of the simulator's flows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MeshParams {
    /// The host of its host jobs.
    pub(crate) host: HostId,
    /// Which of its jobs fails for good, if any.
    #[serde(default)]
    pub(crate) fails: Option<String>,
    /// Whether a secret is lent.
    #[serde(default)]
    pub(crate) secret: bool,
}

/// A flow of the simulator, by name.
#[derive(Debug)]
struct Mesh(&'static str);

/// What a process that is to be killed by a poisonous task needs.
#[derive(Debug, Clone)]
pub(crate) struct Poison {
    pub(crate) bed: Arc<Bed>,
    pub(crate) who: Who,
    pub(crate) gate: Arc<Gate>,
}

/// `sim.poison`.
#[derive(Debug)]
struct PoisonFlow(Poison);

#[derive(Debug, Serialize, Deserialize)]
struct MarkInput {
    fails: bool,
    secret: bool,
}

/// The cloud's flows and the simulator's.
pub(crate) fn flows(poison: Poison) -> FlowRegistry {
    skyloom_cloud::cloud_flows()
        .with(Mesh("sim.mesh"))
        .with(Mesh("sim.broken"))
        .with(PoisonFlow(poison))
}

impl TaskFlow for Mesh {
    fn name(&self) -> &'static str {
        self.0
    }
    fn reads(
        &self,
        _task: &Task,
        _have: &Records,
        _outputs: &std::collections::BTreeMap<skyloom_model::JobId, serde_json::Value>,
    ) -> Vec<Key> {
        Vec::new()
    }
    fn plan(&self, task: &Task, _cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let params: MeshParams = serde_json::from_value(task.params.clone())
            .map_err(|e| Reason::new("sim.bad_params", e.to_string()))?;
        let host = Place::Host(params.host);
        // a ─┬─> b (host) ─┬─> e (host)
        //    ├─> c (engine)┘
        //    └─> d (host) ──> f (engine)
        let shape: [(&str, Place, &[&str]); 6] = [
            ("a", Place::Engine, &[]),
            ("b", host, &["a"]),
            ("c", Place::Engine, &["a"]),
            ("d", host, &["a"]),
            ("e", host, &["b", "c"]),
            ("f", Place::Engine, &["d"]),
        ];
        let jobs = shape.map(|(id, place, after)| JobSpec {
            id: JobId::new(id),
            kind: "sim.mark".to_owned(),
            title: format!("make the mark {id}"),
            input: json!(MarkInput {
                fails: params.fails.as_deref() == Some(id),
                secret: params.secret && id == "b",
            }),
            after: after.iter().map(|a| JobId::new(*a)).collect(),
            place,
            retry: RetryPolicy::default(),
            weight: 1,
            timeout_ms: None,
        });
        let lend = match task.scope {
            Scope::Project(project) if params.secret => {
                vec![(project, Id::from_uuid(task.subject.id), params.host)]
            }
            _ => Vec::new(),
        };
        Ok(Planned {
            jobs: jobs.to_vec(),
            lend,
            generation: 1,
            ..Planned::default()
        })
    }
    fn settle(&self, task: &Task, _cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let Scope::Project(project) = task.scope else {
            return Ok(Settled::default());
        };
        let secrets = paths::server_secrets(project, Id::from_uuid(task.subject.id));
        let secrets = Key::parse(&secrets).map_err(|e| Reason::new("sim.bad_key", e.to_string()))?;
        Ok(Settled {
            changes: Txn::new().delete(secrets),
            result: None,
        })
    }
}

impl TaskFlow for PoisonFlow {
    fn name(&self) -> &'static str {
        "sim.poison"
    }
    fn reads(
        &self,
        _task: &Task,
        _have: &Records,
        _outputs: &std::collections::BTreeMap<skyloom_model::JobId, serde_json::Value>,
    ) -> Vec<Key> {
        Vec::new()
    }
    fn plan(&self, _task: &Task, _cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let Poison { bed, who, gate } = &self.0;
        bed.note(&who.name, "poisoned", String::new);
        gate.kill();
        bed.falls(&who.name);
        Err(Reason::new("sim.poison", "never said: nothing leaves this process any more").into())
    }
    fn settle(&self, _task: &Task, _cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        Ok(Settled::default())
    }
}

/// `sim.mark`: looks, makes one mark in the world, and takes it back.
#[derive(Debug)]
struct MarkJob {
    marks: Arc<Marks>,
    gate: Arc<Gate>,
    /// Where secrets are lent to, on hosts.
    lent: Option<(HostId, DynBackend)>,
}

impl MarkJob {
    fn at(cx: &JobContext<'_>) -> (TaskId, JobId) {
        (cx.record.task, cx.record.spec.id.clone())
    }
}

#[async_trait]
impl Job for MarkJob {
    fn kind(&self) -> &'static str {
        "sim.mark"
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: MarkInput = cx.input()?;
        if input.secret
            && let Some((host, backend)) = &self.lent
        {
            let server = Id::from_uuid(cx.record.subject.id);
            let key = Key::parse(&paths::lent(*host, server))
                .map_err(|e| JobError::permanent("sim.bad_key", e.to_string()))?;
            if backend.get(&key).await?.is_none() {
                return Err(JobError::transient("sim.not_lent", "the secret is not here"));
            }
        }
        self.gate.pass().await;
        cx.may_act()?;
        let mut marks = self.marks.0.lock();
        let mark = marks.entry(Self::at(cx)).or_default();
        if input.fails {
            mark.there = true; // half done is not nothing
            return Err(JobError::permanent("sim.fails", "this job always fails"));
        }
        if !mark.there {
            mark.there = true;
            mark.made += 1;
        }
        Ok(json!({ "made": mark.made }))
    }
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        self.gate.pass().await;
        cx.may_act()?;
        let mut marks = self.marks.0.lock();
        let mark = marks.entry(Self::at(cx)).or_default();
        if std::mem::take(&mut mark.there) {
            Ok(Undo::Undone)
        } else {
            Ok(Undo::Moot("there is no mark".to_owned()))
        }
    }
}

/// A job that the checker sees begin.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn Job>,
    bed: Arc<Bed>,
    who: Who,
}

impl Watched {
    fn begins(&self, record: &JobRecord) {
        self.bed.job_begins(&self.who, record);
    }
}

#[async_trait]
impl Job for Watched {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        debug_assert_eq!(cx.record.want, JobWant::Run);
        self.begins(cx.record);
        self.inner.run(cx).await
    }
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        debug_assert_eq!(cx.record.want, JobWant::Undo);
        self.begins(cx.record);
        self.inner.undo(cx).await
    }
}

/// All jobs of a process, with the simulator's own, under the checker's eyes.
pub(crate) fn jobs(
    cloud: JobRegistry,
    marks: &Arc<Marks>,
    poison: &Poison,
    host: Option<(&HostBed, DynBackend)>,
) -> JobRegistry {
    let lent = host.map(|(host, backend)| (host.id, backend));
    let all = cloud.with(MarkJob {
        marks: marks.clone(),
        gate: poison.gate.clone(),
        lent,
    });
    let kinds: Vec<&'static str> = all.kinds().collect();
    kinds
        .into_iter()
        .filter_map(|kind| all.get(kind).cloned())
        .fold(JobRegistry::new(), |seen, inner| {
            seen.with(Watched {
                inner,
                bed: poison.bed.clone(),
                who: poison.who.clone(),
            })
        })
}
