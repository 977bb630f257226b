//! `GET /v1/tasks/{id}/events`: a task to its end.

use serde_json::json;
use skyloom_model::{
    FORMAT, HostId, JobId, JobRecord, JobSpec, JobState, JobWant, Place, Plan, RetryPolicy, Run, Scope,
    StepRecord, Task, TaskId, TaskState, paths,
};
use skyloom_store::{Key, Outcome, Txn, Value};
use uuid::Uuid;

use crate::harness::{Api, Events};

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

fn put(txn: Txn, path: &str, document: &impl serde::Serialize) -> Txn {
    txn.put(key(path), Value::json(document).unwrap())
}

async fn commit(api: &Api, txn: Txn) {
    assert!(matches!(
        api.backend.commit(txn).await.unwrap(),
        Outcome::Committed { .. }
    ));
}

/// What an engine and an agent would write, step by step.
struct Work {
    task: Task,
    job: JobRecord,
    task_path: String,
    job_path: String,
}

async fn begun(api: &Api) -> Work {
    let body = json!({"name": "i", "format": "raw", "url": "https://images.example.org/i"});
    let made = api.post("/v1/images", body).await.ok(202);
    let task: Task = serde_json::from_value(made.json["task"].clone()).unwrap();
    let place = Place::Host(HostId::from_uuid(Uuid::from_u128(3)));
    let spec = JobSpec {
        id: JobId::new("fetch"),
        kind: "fetch".to_owned(),
        title: "fetch".to_owned(),
        input: json!({}),
        after: Vec::new(),
        place,
        retry: RetryPolicy::default(),
        weight: 1,
        timeout_ms: None,
    };
    let job = JobRecord {
        format: FORMAT,
        task: task.id,
        scope: task.scope,
        subject: task.subject.clone(),
        generation: 1,
        request_id: task.request_id.clone(),
        spec,
        want: JobWant::Run,
        attempt: 1,
        not_before: None,
        state: JobState::Ready,
        worker: None,
        output: None,
        error: None,
        started_at: None,
        ended_at: None,
    };
    let task_path = paths::task(Scope::Project(api.project), task.id);
    let job_path = paths::job(place, task.id, &job.spec.id);
    Work {
        task,
        job,
        task_path,
        job_path,
    }
}

impl Work {
    async fn plan(&mut self, api: &Api) {
        self.task.state = TaskState::Running;
        let plan = Plan {
            format: FORMAT,
            task: self.task.id,
            jobs: vec![self.job.spec.clone()],
            placement: None,
            made_at: self.task.created_at,
            stages: Vec::new(),
        };
        let txn = put(Txn::new(), &self.task_path, &self.task);
        let txn = put(txn, &paths::plan(self.task.id), &plan);
        commit(api, put(txn, &self.job_path, &self.job)).await;
    }

    async fn job_goes(&mut self, api: &Api, state: JobState) {
        self.job.state = state;
        commit(api, put(Txn::new(), &self.job_path, &self.job)).await;
    }

    async fn end(&mut self, api: &Api) {
        self.task.state = TaskState::Done;
        let run = Run {
            format: FORMAT,
            jobs: vec![StepRecord::of(&self.job)],
        };
        let txn = put(Txn::new(), &self.task_path, &self.task);
        let txn = put(txn, &paths::run(self.task.id), &run);
        commit(api, txn.delete(key(&self.job_path))).await;
    }
}

async fn follow(api: &Api, id: TaskId) -> Events {
    Events::of(
        api.call("GET", &format!("/v1/tasks/{id}/events"), &api.admin)
            .open()
            .await,
    )
}

/// The states of the task and of its jobs in the next event.
async fn states(events: &mut Events) -> Option<(String, Vec<String>)> {
    let event = events.next().await?;
    assert_eq!(event.event, "task");
    assert!(event.id.is_some_and(|id| id.parse::<u64>().is_ok()));
    let data = serde_json::from_str::<serde_json::Value>(&event.data).unwrap();
    let word = |v: &serde_json::Value| v["state"].as_str().unwrap().to_owned();
    Some((
        word(&data["task"]),
        data["jobs"].as_array().unwrap().iter().map(word).collect(),
    ))
}

#[tokio::test]
async fn every_step_is_shown_and_then_the_stream_ends() {
    let api = Api::new().await;
    let mut work = begun(&api).await;
    let mut events = follow(&api, work.task.id).await;
    assert_eq!(states(&mut events).await.unwrap(), ("queued".to_owned(), vec![]));
    // Another task of the project is no news.
    begun(&api).await;
    work.plan(&api).await;
    assert_eq!(
        states(&mut events).await.unwrap(),
        ("running".to_owned(), vec!["ready".to_owned()])
    );
    work.job_goes(&api, JobState::Started).await;
    assert_eq!(
        states(&mut events).await.unwrap(),
        ("running".to_owned(), vec!["started".to_owned()])
    );
    work.job_goes(&api, JobState::Succeeded).await;
    assert_eq!(
        states(&mut events).await.unwrap(),
        ("running".to_owned(), vec!["succeeded".to_owned()])
    );
    work.end(&api).await;
    assert_eq!(
        states(&mut events).await.unwrap(),
        ("done".to_owned(), vec!["succeeded".to_owned()])
    );
    assert_eq!(states(&mut events).await, None);
}

#[tokio::test]
async fn who_comes_late_sees_what_is() {
    let api = Api::new().await;
    let mut work = begun(&api).await;
    work.plan(&api).await;
    work.job_goes(&api, JobState::Started).await;
    let mut events = follow(&api, work.task.id).await;
    assert_eq!(
        states(&mut events).await.unwrap(),
        ("running".to_owned(), vec!["started".to_owned()])
    );
    work.end(&api).await;
    assert_eq!(states(&mut events).await.unwrap().0, "done");
    let mut late = follow(&api, work.task.id).await;
    assert_eq!(states(&mut late).await.unwrap().0, "done");
    assert_eq!(states(&mut late).await, None);
}

#[tokio::test]
async fn a_follower_without_news_hears_heartbeats_and_leaves_with_the_server() {
    let api = Api::new().await;
    let work = begun(&api).await;
    let mut events = follow(&api, work.task.id).await;
    states(&mut events).await.unwrap();
    assert!(events.any().await.unwrap().comment);
    api.shutdown.cancel();
    assert_eq!(events.next().await, None);
}
