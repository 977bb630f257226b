//! Histories that former versions left: this version reads them and carries the work on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;
use skyloom_cloud::{Caller, Cloud, CloudParts};
use skyloom_hypervisor::{FakeWorld, HostStorage as _};
use skyloom_identity::Rights;
use skyloom_model::{
    Claim, HostId, HostLedger, Image, ImageState, Lifecycle, OrderVerb, PowerState, Scope, Server, Task,
    TaskId, TaskState, paths,
};
use skyloom_scheduler::claim;
use skyloom_store::{Key, Txn, Value};

use crate::site::{Site, write};

#[derive(Deserialize)]
struct Golden {
    what: String,
    task: About,
    documents: BTreeMap<String, Json>,
    host: GoldenHost,
    images: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct About {
    scope: Scope,
    id: TaskId,
}

#[derive(Deserialize)]
struct GoldenHost {
    id: HostId,
    files: BTreeMap<String, Json>,
    pool: Vec<String>,
}

/// How the task of each history ends now. What had ended then stays as it was.
const ENDS: [(&str, TaskState); 23] = [
    ("create-all-jobs-done", TaskState::Done),
    ("create-cancel-asked", TaskState::Cancelled),
    ("create-cancelled", TaskState::Cancelled),
    ("create-claimed", TaskState::Done),
    ("create-done", TaskState::Done),
    ("create-failed", TaskState::Failed),
    ("create-half", TaskState::Done),
    ("create-planned", TaskState::Done),
    ("create-queued", TaskState::Done),
    ("create-started", TaskState::Done),
    ("create-stuck", TaskState::Stuck),
    ("create-undo-failed", TaskState::Failed),
    ("create-undo-started", TaskState::Failed),
    ("create-unwinding", TaskState::Failed),
    ("delete-half", TaskState::Done),
    ("delete-started", TaskState::Done),
    ("image-delete-started", TaskState::Done),
    ("import-upload-ready", TaskState::Done),
    ("import-url-fetched", TaskState::Done),
    ("import-url-publishing", TaskState::Done),
    ("import-url-ready", TaskState::Done),
    ("import-url-started", TaskState::Done),
    ("reboot-half", TaskState::Done),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1")
}

fn golden(name: &str) -> Golden {
    let text = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Puts everything where it was.
async fn restore(golden: &Golden) -> (Site, FakeWorld) {
    let site = Site::new();
    let root = site.host_folder().display().to_string();
    for (name, content) in &golden.host.files {
        let text = content.to_string().replace("{host}", &root);
        write(&site.host_folder().join(name), text.as_bytes());
    }
    for (name, content) in &golden.images {
        write(&site.folder.path().join("repo").join(name), content.as_bytes());
    }
    for (key, document) in &golden.documents {
        let text = document.to_string().replace("{host}", &root);
        let txn = Txn::new().put(Key::parse(key).unwrap(), Value::from_json_bytes(text));
        assert!(site.store.commit(txn).await.unwrap().committed().is_some());
    }
    let host = site.open_host();
    let pool: BTreeSet<PathBuf> = host.storage().contents().unwrap().into_iter().collect();
    let noted = golden
        .host
        .pool
        .iter()
        .map(|path| PathBuf::from(path.replace("{host}", &root)));
    assert_eq!(
        pool,
        noted.collect(),
        "the host's files are read as they were written"
    );
    (site, host)
}

/// The facade, and an administrator in the project.
fn operator(site: &Site, scope: Scope) -> (Cloud, Caller) {
    let Scope::Project(project) = scope else {
        panic!("a server's task of no project")
    };
    let cloud = Cloud::new(CloudParts {
        backend: site.store.clone(),
        clock: site.clock.clone(),
        ids: site.ids.clone(),
        images: site.repo.clone(),
    });
    let caller = Caller::internal("test", Rights::of_the_cloud().unwrap(), project);
    (cloud, caller)
}

async fn task(site: &Site, golden: &Golden) -> Task {
    let path = paths::task(golden.task.scope, golden.task.id);
    site.get(&path).await.unwrap()
}

#[test]
fn every_history_has_an_end() {
    let files = std::fs::read_dir(folder()).unwrap();
    let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = names
        .filter_map(|n| Some(n.strip_suffix(".json")?.to_owned()))
        .collect();
    assert_eq!(there, ENDS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[tokio::test(start_paused = true)]
async fn work_of_format_1_is_carried_on() {
    for (name, end) in ENDS {
        let golden = golden(name);
        let case = format!("{name}: {}", golden.what);
        let (site, host) = restore(&golden).await;
        let before = task(&site, &golden).await;
        let running = site.begin(Some((golden.host.id, &host)));
        if !before.state.rests() {
            let rests = || async { task(&site, &golden).await.rests() };
            site.until(&case, rests).await;
            // An undo had failed for good, which the fake host does not repeat.
            if task(&site, &golden).await.state == TaskState::Stuck {
                let (cloud, caller) = operator(&site, golden.task.scope);
                let order = cloud.order_task(&caller, golden.task.id, OrderVerb::Retry, "repaired");
                order.await.unwrap();
                site.until(&case, rests).await;
            }
        }
        // Whoever would still do something has time to.
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(running);
        let after = task(&site, &golden).await;
        assert_eq!(after.state, end, "{case}: {:?}", after.reason);
        if before.state.rests() {
            assert_eq!(after, before, "{case}");
        }
        for below in [paths::ACTIVE, paths::JOBS, "steps", "lent"] {
            assert_eq!(site.keys(below).await, Vec::<String>::new(), "{case}: {below}");
        }
        check(&site, &golden, &host, &after, &case).await;
    }
}

/// Records, host and content fit together.
async fn check(site: &Site, golden: &Golden, host: &FakeWorld, ended: &Task, case: &str) {
    let mut placed = BTreeSet::new();
    for key in site.keys("r/servers").await {
        let server: Server = site.get(&key).await.unwrap();
        let id = skyloom_model::Resource::id(&server);
        let domain = host.domain(id).unwrap();
        if server.status.placement.is_some() {
            placed.insert(id);
        }
        if ended.state == TaskState::Done {
            assert_eq!(server.status.lifecycle, Lifecycle::Active, "{case}");
            assert_eq!(server.status.power, PowerState::Running, "{case}");
            assert_eq!(domain.unwrap().power, PowerState::Running, "{case}");
        } else {
            assert_eq!(server.status.lifecycle, Lifecycle::Error, "{case}");
        }
        assert_eq!(server.status.activity, None, "{case}");
    }
    let held: BTreeSet<_> = host.storage().servers().await.unwrap().into_iter().collect();
    assert_eq!(held, placed, "{case}: disks");
    let mut sum = HostLedger::default();
    for key in site.keys(&paths::claims(golden.host.id)).await {
        let held: Claim = site.get(&key).await.unwrap();
        assert!(placed.contains(&held.server), "{case}: {key}");
        sum = claim(&sum, &held);
    }
    let ledger: HostLedger = site.get(&paths::ledger(golden.host.id)).await.unwrap();
    assert_eq!(ledger, sum, "{case}");
    for key in site.keys("r/images").await {
        let image: Image = site.get(&key).await.unwrap();
        assert_eq!(image.status.state, ImageState::Active, "{case}");
        let id = skyloom_model::Resource::id(&image);
        assert!(
            site.repo.open(id).await.is_ok(),
            "{case}: the content of an active image"
        );
    }
    assert_eq!(
        std::fs::read_dir(site.folder.path().join("repo/staged"))
            .unwrap()
            .count(),
        0,
        "{case}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_stuck_in_format_1_can_be_deleted() {
    let golden = golden("create-stuck");
    let (site, host) = restore(&golden).await;
    let running = site.begin(Some((golden.host.id, &host)));
    let stuck = task(&site, &golden).await;
    let (cloud, caller) = operator(&site, stuck.scope);
    let server = skyloom_model::Id::from_uuid(stuck.subject.id);
    let delete = cloud.delete_server(&caller, server).await.unwrap().task;
    let done = cloud.wait_for_task(&caller, delete.id).await.unwrap();
    drop(running);
    assert_eq!(done.state, TaskState::Done, "{:?}", done.reason);
    assert!(host.domains().unwrap().is_empty());
    assert!(host.storage().servers().await.unwrap().is_empty());
    assert_eq!(site.keys("claims").await, Vec::<String>::new());
}
