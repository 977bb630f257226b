//! An attacker has one host's token. Whatever it tries on others, it sees nothing and changes nothing.

use serde_json::{Value as Json, json};
use skyloom_cloud::AgentScoped;
use skyloom_model::{
    AgentStatus, Clock as _, FORMAT, HostFacts, HostId, JobId, JobRecord, JobSpec, JobState, JobWant, Name,
    Place, PowerState, Resources, RetryPolicy, Scope, Subject, TaskId, VmObservation, WorkerMark, paths,
};
use skyloom_store::wire::CommitRequest;
use skyloom_store::{ErrorKind, Key, Outcome, Store as _, Txn, Value};
use uuid::Uuid;

use crate::harness::{Api, Reply};

struct Two {
    api: Api,
    a: HostId,
    b: HostId,
    /// The attacker: the agent of `a`.
    agent: String,
}

impl Two {
    async fn new() -> Self {
        let api = Api::new().await;
        let (a, agent) = api.host("host1").await;
        let (b, _) = api.host("host10").await;
        Self { api, a, b, agent }
    }

    async fn ask(&self, what: &str, body: Json) -> Reply {
        self.api
            .call("POST", &format!("/v1/store/{what}"), &self.agent)
            .json(body)
            .await
    }

    async fn commit(&self, guards: Json, writes: Json) -> Reply {
        self.ask("commit", json!({"guards": guards, "writes": writes}))
            .await
    }

    /// A transaction that must be refused, also without HTTP, and must change nothing.
    async fn denied(&self, why: &str, guards: Json, writes: Json) {
        let before = self.api.memory.revision();
        let request = json!({"guards": guards, "writes": writes});
        let txn = Txn::from(serde_json::from_value::<CommitRequest>(request).unwrap());
        let near = AgentScoped::new(self.api.backend.clone(), self.a);
        assert_eq!(
            near.commit(txn).await.unwrap_err().kind(),
            ErrorKind::Denied,
            "{why}"
        );
        let reply = self.commit(guards, writes).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code()),
            (403, "store.denied"),
            "{why}: {}",
            reply.text
        );
        assert_eq!(self.api.memory.revision(), before, "{why}");
    }

    /// Puts a record there as the engine would; its revision.
    async fn plant(&self, path: &str, document: Json) -> u64 {
        let txn = Txn::new().put(Key::parse(path).unwrap(), Value::json(&document).unwrap());
        let Outcome::Committed { revision } = self.api.backend.commit(txn).await.unwrap() else {
            panic!()
        };
        revision.0
    }
}

fn put(key: &str, value: impl serde::Serialize) -> Json {
    json!([{"put": {"key": key, "value": value}}])
}

fn task() -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(7))
}

fn job(host: HostId, state: JobState) -> JobRecord {
    JobRecord {
        format: FORMAT,
        task: task(),
        scope: Scope::System,
        subject: Subject {
            kind: "servers".to_owned(),
            id: Uuid::from_u128(9),
            name: Name::new("s").unwrap(),
        },
        generation: 3,
        request_id: "req-1".to_owned(),
        spec: JobSpec {
            id: JobId::new("vm.start"),
            kind: "vm.start".to_owned(),
            title: "start".to_owned(),
            input: json!({"path": "/srv"}),
            after: Vec::new(),
            place: Place::Host(host),
            retry: RetryPolicy::default(),
            weight: 1,
            timeout_ms: None,
        },
        want: JobWant::Run,
        attempt: 2,
        not_before: None,
        state,
        worker: None,
        output: None,
        error: None,
        started_at: None,
        ended_at: None,
    }
}

fn job_path(host: HostId) -> String {
    paths::job(Place::Host(host), task(), &JobId::new("vm.start"))
}

#[tokio::test]
async fn foreign_keys_are_not_read_listed_or_watched() {
    let two = Two::new().await;
    let (a, b) = (two.a, two.b);
    two.plant(&job_path(b), json!(job(b, JobState::Ready))).await;
    two.plant(
        &format!("secrets/{}/x", two.api.project),
        json!({"password_hash": "$6$"}),
    )
    .await;
    let others = [
        job_path(b),
        paths::agent_status(b),
        format!("vms/{b}/x"),
        format!("lent/{b}/x"),
        format!("queries/{b}/x"),
        format!("jobs/engine/{}/x", task()),
        format!("claims/{a}/x"),
        paths::ledger(a),
        paths::ledger(b),
        paths::resource("hosts", Scope::System, a.uuid()),
        format!("secrets/{}/x", two.api.project),
        format!("identity/tokens/{}", uuid::Uuid::nil()),
        format!("jobs/{a}"),
        format!("jobs/{a}0/x/y"),
        "x".to_owned(),
    ];
    for key in &others {
        two.ask("get", json!({"key": key}))
            .await
            .refused(403, "store.denied");
    }
    let prefixes = [
        String::new(),
        "jobs".to_owned(),
        "agents".to_owned(),
        "r".to_owned(),
        "identity/tokens".to_owned(),
        "secrets".to_owned(),
        format!("jobs/{b}"),
        format!("vms/{b}"),
        format!("lent/{b}"),
        format!("claims/{a}"),
        format!("jobs/{a}0"),
        format!("hosts/{a}"),
    ];
    for prefix in &prefixes {
        for what in ["list", "watch"] {
            let mut body = json!({"prefix": prefix});
            if what == "watch" {
                body["after"] = json!(0);
            }
            two.ask(what, body).await.refused(403, "store.denied");
        }
        two.ask("leases", json!({"prefix": prefix}))
            .await
            .refused(403, "store.denied");
    }
    // A page that begins after a foreign key is still the own prefix's.
    let listed = two
        .ask(
            "list",
            json!({"prefix": format!("jobs/{a}"), "after": format!("jobs/{b}/x/y")}),
        )
        .await;
    assert_eq!(listed.ok(200).json["items"], json!([]));
}

#[tokio::test]
async fn foreign_keys_are_not_written_and_not_guessed_at() {
    let two = Two::new().await;
    let (a, b) = (two.a, two.b);
    let revision = two.plant(&job_path(b), json!(job(b, JobState::Ready))).await;
    let mut done = job(b, JobState::Started);
    two.denied(
        "another's job",
        json!([{"revision": [job_path(b), revision]}]),
        put(&job_path(b), &done),
    )
    .await;
    done.spec.place = Place::Host(a);
    two.denied(
        "another's status",
        json!([]),
        put(&paths::agent_status(b), json!({})),
    )
    .await;
    two.denied("another's vm", json!([]), put(&format!("vms/{b}/x"), json!({})))
        .await;
    for (why, path) in [
        ("a task", paths::task(Scope::System, task())),
        ("the mark of a task", paths::active(task())),
        ("a plan", paths::plan(task())),
        (
            "its own labels",
            paths::resource("hosts", Scope::System, a.uuid()),
        ),
        ("a placement", format!("claims/{a}/x")),
        ("its ledger", paths::ledger(a)),
        ("a token", format!("identity/tokens/{}", uuid::Uuid::nil())),
        ("a name", format!("names/hosts/-/{}", "0".repeat(64))),
        ("an engine's job", format!("jobs/engine/{}/x", task())),
        ("outside of all", "x".to_owned()),
        ("its own area as a key", format!("vms/{a}")),
        ("a key of no record", format!("agents/{a}/labels")),
        ("a deeper key", format!("vms/{a}/x/y")),
    ] {
        two.denied(why, json!([]), put(&path, json!({}))).await;
        two.denied(why, json!([]), json!([{"delete": {"key": path}}]))
            .await;
    }
    // One good write does not carry a bad one, and guards tell nothing of others.
    let good = json!({"delete": {"key": format!("vms/{a}/x")}});
    two.denied(
        "a mixed transaction",
        json!([]),
        json!([good, {"delete": {"key": job_path(b)}}]),
    )
    .await;
    two.denied(
        "a guard on another's key",
        json!([{"absent": job_path(b)}]),
        json!([]),
    )
    .await;
    two.denied(
        "a guard on another's key",
        json!([{"revision": [job_path(b), revision]}]),
        json!([good]),
    )
    .await;
    two.denied(
        "another's lease",
        json!([{"lease": [format!("hosts/{b}"), 1]}]),
        json!([good]),
    )
    .await;
    two.denied(
        "an engine's lease",
        json!([{"lease": ["engines/e1", 1]}]),
        json!([]),
    )
    .await;
}

#[tokio::test]
async fn only_the_own_lease_can_be_had() {
    let two = Two::new().await;
    for name in [
        format!("hosts/{}", two.b),
        "engines/e1".to_owned(),
        format!("hosts/{}/x", two.a),
        format!("hosts/{}0", two.a),
        "hosts".to_owned(),
    ] {
        let grant = json!({"name": name, "holder": "me", "ttl_ms": 10_000, "mode": "take_over"});
        two.ask("lease-grant", grant).await.refused(403, "store.denied");
        two.ask("lease-renew", json!({"name": name, "epoch": 1, "ttl_ms": 10_000}))
            .await
            .refused(403, "store.denied");
        two.ask("lease-revoke", json!({"name": name, "epoch": 1}))
            .await
            .refused(403, "store.denied");
    }
    let own = format!("hosts/{}", two.a);
    let grant = json!({"name": own, "holder": "me", "ttl_ms": 10_000, "mode": "take_over"});
    let epoch = two.ask("lease-grant", grant).await.ok(200).json["granted"]["epoch"]
        .as_u64()
        .unwrap();
    assert_eq!(
        two.ask(
            "lease-renew",
            json!({"name": own, "epoch": epoch, "ttl_ms": 10_000})
        )
        .await
        .ok(200)
        .json,
        "held"
    );
    let fenced = two
        .commit(
            json!([{"lease": [own, epoch]}]),
            json!([{"delete": {"key": format!("vms/{}/x", two.a)}}]),
        )
        .await;
    assert!(fenced.ok(200).json["committed"].is_object());
}

/// Attack 74: results of old attempts and generations, twice, and of jobs that are not its own.
#[tokio::test]
async fn a_worker_reports_on_its_jobs_and_nothing_else() {
    let two = Two::new().await;
    let a = two.a;
    let path = job_path(a);
    let record = job(a, JobState::Ready);
    let revision = two.plant(&path, json!(record)).await;
    let guard = |revision: u64| json!([{"revision": [path, revision]}]);

    two.denied("without a guard", json!([]), put(&path, &record))
        .await;
    two.denied(
        "a guard on another job",
        json!([{"revision": [format!("jobs/{a}/t/j"), revision]}]),
        put(&path, &record),
    )
    .await;
    two.denied(
        "creating a job",
        json!([{"absent": format!("jobs/{a}/t/new")}]),
        put(&format!("jobs/{a}/t/new"), &record),
    )
    .await;
    two.denied(
        "removing a job",
        guard(revision),
        json!([{"delete": {"key": path}}]),
    )
    .await;

    let changed = |change: fn(&mut JobRecord)| {
        let mut new = JobRecord {
            state: JobState::Started,
            ..record.clone()
        };
        change(&mut new);
        put(&path, &new)
    };
    type Change = fn(&mut JobRecord);
    let cases: [(&str, Change); 14] = [
        ("the attempt", |j| j.attempt += 1),
        ("the generation", |j| j.generation += 1),
        ("the direction", |j| j.want = JobWant::Undo),
        ("the task", |j| j.task = TaskId::from_uuid(Uuid::from_u128(8))),
        ("the owner", |j| {
            j.scope = Scope::Project(skyloom_model::Id::from_uuid(Uuid::from_u128(1)))
        }),
        ("the subject", |j| j.subject.id = Uuid::from_u128(1)),
        ("the input", |j| j.spec.input = json!({"path": "/"})),
        ("the place", |j| j.spec.place = Place::Engine),
        ("the request", |j| j.request_id = "req-2".to_owned()),
        ("the format", |j| j.format = 9),
        ("not to be started", |j| {
            j.not_before = Some(skyloom_model::ManualClock::new().now())
        }),
        ("a state out of turn", |j| j.state = JobState::Succeeded),
        ("the engine's state", |j| j.state = JobState::Undone),
        ("another's mark", |j| {
            j.worker = Some(WorkerMark {
                lease: "hosts/other".to_owned(),
                epoch: 1,
            })
        }),
    ];
    for (why, change) in cases {
        two.denied(why, guard(revision), changed(change)).await;
    }
    let no_job = two
        .commit(guard(revision), put(&path, json!({"state": "started"})))
        .await;
    no_job.refused(422, "store.invalid");

    let mut started = JobRecord {
        state: JobState::Started,
        ..record.clone()
    };
    started.worker = Some(WorkerMark {
        lease: paths::host_lease(a),
        epoch: 1,
    });
    started.started_at = Some(two.api.clock.now());
    let first = two.commit(guard(revision), put(&path, &started)).await.ok(200);
    let next = first.json["committed"]["revision"].as_u64().unwrap();
    // The old revision, and one that is not there yet.
    for stale in [revision, next + 1] {
        let again = two.commit(guard(stale), put(&path, &started)).await.ok(200);
        assert_eq!(
            again.json,
            json!({"conflict": {"guard": 0, "current": next}}),
            "{stale}"
        );
    }
    started.state = JobState::Succeeded;
    started.output = Some(json!({"pid": 1}));
    started.ended_at = started.started_at;
    let done = two.commit(guard(next), put(&path, &started)).await.ok(200);
    let next = done.json["committed"]["revision"].as_u64().unwrap();
    two.denied(
        "a finished job",
        guard(next),
        put(
            &path,
            &JobRecord {
                output: None,
                ..started
            },
        ),
    )
    .await;
}

/// Attack 76, as far as the door goes: what is too large or is no report.
#[tokio::test]
async fn reports_must_be_what_they_say_they_are() {
    let two = Two::new().await;
    let a = two.a;
    let server = skyloom_model::ServerId::from_uuid(Uuid::from_u128(5));
    let seen = VmObservation {
        server,
        project: two.api.project,
        generation: 1,
        power: PowerState::Running,
        cause: None,
        accelerator: None,
        observed_at: two.api.clock.now(),
    };
    let vm = paths::host_vm(a, server);
    two.commit(json!([]), put(&vm, &seen)).await.ok(200);
    two.denied(
        "another server's key",
        json!([]),
        put(&format!("vms/{a}/{}", Uuid::from_u128(6)), &seen),
    )
    .await;
    two.commit(json!([]), put(&vm, json!({"power": "on fire"})))
        .await
        .refused(422, "store.invalid");
    two.commit(json!([]), json!([{"delete": {"key": vm}}]))
        .await
        .ok(200);

    let status = AgentStatus {
        incarnation: 1,
        version: "0.1.0".to_owned(),
        started_at: two.api.clock.now(),
        facts: HostFacts {
            capacity: Resources {
                vcpus: 1_000_000,
                memory_mib: 1,
                disk_gib: 1,
            },
            architecture: "x86_64".to_owned(),
            hypervisor: "fake".to_owned(),
            hypervisor_version: "1".to_owned(),
            accelerator: "fake".to_owned(),
            accelerator_reason: String::new(),
            traits: Vec::new(),
        },
        kinds: Vec::new(),
    };
    two.commit(json!([]), put(&paths::agent_status(a), &status))
        .await
        .ok(200);
    two.commit(json!([]), put(&paths::agent_status(a), json!([])))
        .await
        .refused(422, "store.invalid");
    let inventory = AgentStatus {
        version: "x".repeat(2 << 20),
        ..status
    };
    two.commit(json!([]), put(&paths::agent_status(a), &inventory))
        .await
        .refused(413, "store.too_large");
    let flood = "x".repeat(17 << 20);
    two.commit(json!([]), put(&paths::agent_status(a), flood))
        .await
        .refused(413, "body.too_large");
}

#[tokio::test]
async fn lent_secrets_are_read_only_and_questions_only_answered() {
    let two = Two::new().await;
    let a = two.a;
    let lent = format!("lent/{a}/{}", Uuid::from_u128(5));
    let revision = two.plant(&lent, json!({"password_hash": "$6$x"})).await;
    assert!(two.ask("get", json!({"key": lent})).await.ok(200).json["item"].is_object());
    two.denied(
        "writing a secret",
        json!([{"revision": [lent, revision]}]),
        put(&lent, json!({})),
    )
    .await;
    two.denied("removing a secret", json!([]), json!([{"delete": {"key": lent}}]))
        .await;

    let query = paths::query(a, Uuid::from_u128(6));
    let question = json!({"type": "console_tail", "server": Uuid::from_u128(5), "bytes": 10});
    let asked = json!({"question": question, "asked_at": "2026-01-01T00:00:00Z"});
    let revision = two.plant(&query, asked.clone()).await;
    let guard = json!([{"revision": [query, revision]}]);
    let mut answered = asked.clone();
    answered["answer"] = json!({"type": "console_tail", "text": "hello"});
    two.denied("an answer without a guard", json!([]), put(&query, &answered))
        .await;
    let other = paths::query(a, Uuid::from_u128(7));
    two.denied(
        "a question of its own",
        json!([{"absent": other}]),
        put(&other, &answered),
    )
    .await;
    let mut twisted = answered.clone();
    twisted["question"]["bytes"] = json!(11);
    two.denied("another question", guard.clone(), put(&query, &twisted))
        .await;
    two.commit(guard, put(&query, &answered)).await.ok(200);
    two.commit(json!([]), json!([{"delete": {"key": query}}]))
        .await
        .ok(200);
}
