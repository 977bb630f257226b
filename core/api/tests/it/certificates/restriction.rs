//! An attacker holds one host's key: every verb, on every kind of key of other hosts and of the cloud, by certificate and by token.
//! Attacks 72, 73 and 75.

use serde_json::{Value as Json, json};
use skyloom_model::{
    HostId, Id, ImageId, JobId, JobRecord, JobSpec, JobState, JobWant, Place, RetryPolicy, Scope, ServerId,
    Subject, TaskId, Timestamp, paths,
};
use skyloom_store::{Key, ListOptions, Outcome, Prefix, Txn, Value};
use uuid::Uuid;

use super::{Client, Secure};

fn id<K: ?Sized>(n: u128) -> Id<K> {
    Id::from_uuid(Uuid::from_u128(n))
}

/// Every kind of key there is, but for the attacker's own: of `b`, of the cloud, of the attacker's own host where others write.
fn keys(a: HostId, b: HostId) -> Vec<String> {
    let (task, server): (TaskId, ServerId) = (id(7), id(9));
    let (scope, hash) = (Scope::System, "0".repeat(64));
    let end = Timestamp::UNIX_EPOCH;
    let mut keys = Vec::new();
    for host in [b, id(1)] {
        keys.extend([
            paths::job(Place::Host(host), task, &JobId::new("vm.start")),
            paths::agent_status(host),
            paths::host_vm(host, server),
            paths::guests(host),
            paths::lent(host, server),
            paths::query(host, Uuid::from_u128(3)),
        ]);
    }
    for host in [a, b] {
        keys.extend([
            paths::resource("hosts", scope, host.uuid()),
            paths::claim(host, server),
            paths::ledger(host),
            paths::host_lease(host),
            format!("pki/epochs/{host}"),
        ]);
    }
    keys.extend([
        paths::name("hosts", scope, &hash),
        paths::server_secrets(id(4), server),
        paths::task(scope, task),
        paths::active(task),
        paths::plan(task),
        paths::run(task),
        paths::job(Place::Engine, task, &JobId::new("x")),
        paths::event(scope, id(5)),
        paths::submitted(&hash),
        paths::preview(scope, Uuid::from_u128(6)),
        paths::idempotency(scope, &hash),
        paths::archived_task(scope, end, task),
        paths::archived_task_id(task),
        format!("{}/1", paths::archived_parts(task)),
        paths::archived_event(scope, id(5)),
        "identity/users/x".to_owned(),
        "identity/tokens/x".to_owned(),
        "identity/keys/x".to_owned(),
        "audit/x".to_owned(),
        "quotas/x".to_owned(),
        format!("pki/roots/{hash}"),
        "pki/turn".to_owned(),
        "pki/revoked/aa".to_owned(),
        format!("joins/{hash}"),
        "jobs".to_owned(),
        format!("jobs/{a}"),
        format!("jobs/{a}0/x/y"),
        "x".to_owned(),
    ]);
    keys
}

/// All that can be asked about a key, with what it may read of the `cloud/…` keys left out.
fn attempts(key: &str, revision: u64, reads: bool) -> Vec<(&'static str, Json)> {
    let put = json!([{"put": {"key": key, "value": {}}}]);
    let delete = json!([{"delete": {"key": key}}]);
    let commit = |guards: Json, writes: Json| ("commit", json!({"guards": guards, "writes": writes}));
    let guards = [json!([{"absent": key}]), json!([{"revision": [key, revision]}])];
    let lease = |verb: &'static str, more: Json| {
        let mut body = json!({"name": key});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        (verb, body)
    };
    let mut all = vec![
        commit(json!([]), put.clone()),
        commit(json!([]), delete.clone()),
        lease(
            "lease-grant",
            json!({"holder": "me", "ttl_ms": 1000, "mode": "take_over"}),
        ),
        lease(
            "lease-grant",
            json!({"holder": "me", "ttl_ms": 1000, "mode": "acquire"}),
        ),
        lease("lease-renew", json!({"epoch": 1, "ttl_ms": 1000})),
        lease("lease-revoke", json!({"epoch": 1})),
        commit(json!([{"lease": [key, 1]}]), json!([])),
    ];
    for guard in guards {
        all.push(commit(guard.clone(), put.clone()));
        all.push(commit(guard.clone(), delete.clone()));
        if reads {
            all.push(commit(guard, json!([])));
        }
    }
    if reads {
        all.push(("get", json!({"key": key})));
        for prefix in above(key) {
            all.push(("list", json!({"prefix": prefix})));
            all.push(("watch", json!({"prefix": prefix, "after": 0})));
            all.push(("leases", json!({"prefix": prefix})));
        }
    }
    all
}

/// The key and all that lies above it.
fn above(key: &str) -> Vec<String> {
    let mut all = vec![String::new(), key.to_owned()];
    let mut rest = key;
    while let Some((parent, _)) = rest.rsplit_once('/') {
        all.push(parent.to_owned());
        rest = parent;
    }
    all
}

async fn plant(site: &Secure, key: &str) -> u64 {
    let txn = Txn::new().put(Key::parse(key).unwrap(), Value::json(&json!({})).unwrap());
    match site.api.backend.commit(txn).await.unwrap() {
        Outcome::Committed { revision } => revision.0,
        conflict => panic!("{conflict:?}"),
    }
}

#[tokio::test]
async fn one_hosts_key_opens_nothing_else() {
    let site = Secure::new().await;
    let (mine, _) = site.joined(site.a, "host1").await;
    let by_certificate = site.client(Some(&mine));
    let by_token = site.with_token();
    let mut asked = 0;
    let own = [format!("jobs/{}", site.a)];
    for key in keys(site.a, site.b) {
        // Both where there is something and where there is nothing; what the cloud has made itself stays as it is.
        let there = site.api.backend.get(&Key::parse(&key).unwrap()).await.unwrap();
        let planted = match (&there, key.starts_with("identity/") || key.starts_with("pki/")) {
            (Some(kv), _) => kv.modified.0,
            (None, true) => 1,
            (None, false) => plant(&site, &key).await,
        };
        let before = written(&site).await;
        for (verb, body) in attempts(&key, planted, true) {
            let of_own = body["prefix"]
                .as_str()
                .is_some_and(|p| own.iter().any(|o| o == p));
            let own_lease =
                key == paths::host_lease(site.a) && (verb.starts_with("lease-") || guards_lease(&body));
            if (of_own && verb != "leases") || own_lease {
                continue;
            }
            for client in [&by_certificate, &by_token] {
                passed_not(client, verb, &body).await;
                asked += 1;
            }
        }
        assert_eq!(written(&site).await, before, "{key}: something was changed");
    }
    // What the store says of itself may be read, and not written.
    for key in [paths::INCARNATION, paths::HOLD, paths::COPYING] {
        let before = written(&site).await;
        for (verb, body) in attempts(key, 1, false) {
            for client in [&by_certificate, &by_token] {
                passed_not(client, verb, &body).await;
                asked += 1;
            }
        }
        assert_eq!(written(&site).await, before, "{key}");
    }
    assert!(asked > 2000, "{asked} attempts");
}

/// When each record was last written, and who holds what. Identity and the audit write of themselves what tokens
/// are used for.
async fn written(site: &Secure) -> (Vec<(String, u64)>, Vec<String>) {
    let (mut all, mut options) = (Vec::new(), ListOptions::default());
    loop {
        let page = site.api.backend.list(&Prefix::all(), options).await.unwrap();
        all.extend(page.items.iter().map(|kv| (kv.key.to_string(), kv.modified.0)));
        match page.items.last().filter(|_| page.more) {
            Some(last) => options = ListOptions::default().with_after(last.key.clone()),
            None => break,
        }
    }
    all.retain(|(key, _)| !key.starts_with("identity/") && !key.starts_with("audit-seals/"));
    let leases = site.api.backend.leases(&Prefix::all()).await.unwrap();
    (all, leases.iter().map(|l| format!("{l:?}")).collect())
}

fn guards_lease(body: &Json) -> bool {
    body["guards"][0]["lease"].is_array()
}

async fn passed_not(client: &Client, verb: &str, body: &Json) {
    let (status, answer) = client.store(verb, body.clone()).await;
    let how = if client.token.is_some() {
        "token"
    } else {
        "certificate"
    };
    assert_eq!(
        (status, answer["code"].as_str()),
        (403, Some("store.denied")),
        "by {how}: {verb} {body}"
    );
}

/// The job by which a host sends an image's content.
fn sends(host: HostId, image: ImageId, state: JobState) -> (String, JobRecord) {
    let job = JobRecord {
        format: skyloom_model::FORMAT,
        task: id(7),
        scope: Scope::System,
        subject: Subject {
            kind: "images".to_owned(),
            id: image.uuid(),
            name: "saved".to_owned().try_into().unwrap(),
        },
        generation: 0,
        request_id: String::new(),
        spec: JobSpec {
            id: JobId::new("image.send"),
            kind: "image.send".to_owned(),
            title: String::new(),
            input: json!({
                "image": image,
                "upload": Uuid::from_u128(8),
                "at": { "volume": Uuid::from_u128(8), "pool": { "type": "local" } },
            }),
            after: Vec::new(),
            place: Place::Host(host),
            retry: RetryPolicy::default(),
            weight: 1,
            timeout_ms: None,
        },
        want: JobWant::Run,
        attempt: 1,
        not_before: None,
        state,
        worker: None,
        output: None,
        error: None,
        started_at: None,
        ended_at: None,
    };
    (paths::job(job.spec.place, job.task, &job.spec.id), job)
}

#[tokio::test]
async fn one_hosts_key_sends_the_images_of_its_own_jobs_and_no_others() {
    let site = Secure::new().await;
    let (mine, _) = site.joined(site.a, "host1").await;
    let clients = [site.client(Some(&mine)), site.with_token()];
    let (own, foreign): (ImageId, ImageId) = (id(21), id(22));
    for (host, image, state) in [
        (site.b, foreign, JobState::Started),
        (site.a, own, JobState::Ready),
    ] {
        let (at, job) = sends(host, image, state);
        let txn = Txn::new().put(Key::parse(&at).unwrap(), Value::json(&job).unwrap());
        site.api.backend.commit(txn).await.unwrap();
    }
    for client in &clients {
        for image in [own, foreign, id(23)] {
            let (status, answer) = client.put(&format!("/v1/images/{image}/data"), "content").await;
            assert_eq!((status, answer["code"].as_str()), (404, Some("image.not_found")));
        }
    }
    let (at, job) = sends(site.a, own, JobState::Started);
    let txn = Txn::new().put(Key::parse(&at).unwrap(), Value::json(&job).unwrap());
    site.api.backend.commit(txn).await.unwrap();
    for client in &clients {
        let (status, answer) = client.put(&format!("/v1/images/{own}/data"), "content").await;
        assert_eq!((status, answer["size"].as_u64()), (200, Some(7)), "{answer}");
        let (status, _) = client.put(&format!("/v1/images/{foreign}/data"), "content").await;
        assert_eq!(status, 404);
    }
}
