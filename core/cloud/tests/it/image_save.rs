//! Images of disks: what is recorded, what stays on the host, and which host may send what.

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use skyloom_cloud::{Caller, CreateImage, CreateSnapshot, CreateVolume};
use skyloom_hypervisor::HostVolumes as _;
use skyloom_model::{
    DiskFormat, HostId, Image, ImageId, ImageSource, ImageState, JobId, JobRecord, JobSpec, JobState,
    JobWant, Place, Resource as _, RetryPolicy, Task, TaskState, paths,
};
use skyloom_store::{Txn, Value};
use uuid::Uuid;

use crate::engine::{Engine, active_image};
use crate::world::{DISK, World, bytes, key, server};

fn saved() -> CreateImage {
    CreateImage::new("saved", DiskFormat::Raw)
}

async fn world() -> (World, Caller, HostId, ImageId) {
    let mut world = World::new();
    let admin = world.admin().await;
    let caller = world.member(&admin, "shop").await;
    let host = world.host(&admin, "h1").await;
    let image = active_image(&world, &caller).await;
    (world, caller, host, image)
}

/// The image that comes of it, with the kinds of the jobs that made it.
async fn made(world: &World, caller: &Caller, request: CreateImage) -> (Image, Vec<String>) {
    let asked = world.cloud.create_image(caller, request).await.unwrap();
    assert_eq!(
        asked.image.status.state,
        ImageState::Saving,
        "the record is there at once"
    );
    let refused = world
        .cloud
        .delete_image(caller, asked.image.id())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "image.busy");
    let mut engine = Engine::new(world).await;
    let task = engine.carry(&asked.task.unwrap()).await;
    assert_eq!(task.state, TaskState::Done, "{:?}", task.reason);
    let image = world
        .cloud
        .get_image(caller, asked.image.id())
        .await
        .unwrap()
        .value;
    let jobs = engine.trace().iter().map(ToString::to_string).collect();
    (image, jobs)
}

#[tokio::test]
async fn a_running_servers_disk_becomes_an_image() {
    let (world, caller, host, image) = world().await;
    let old = world
        .cloud
        .create_server(&caller, server("old", image))
        .await
        .unwrap();
    Engine::new(&world).await.carry(&old.task).await;
    let id = old.server.id();
    let request = CreateImage {
        server: Some(id),
        ..saved()
    };
    let (image, jobs) = made(&world, &caller, request).await;
    assert_eq!(
        jobs,
        [
            "snapshot.take",
            "image.expect",
            "volume.create",
            "snapshot.forget",
            "image.send",
            "volume.delete",
            "image.inspect",
            "image.publish"
        ]
    );
    assert_eq!(image.status.state, ImageState::Active);
    assert_eq!(image.spec.source, ImageSource::Server { server: id });
    let fake = &world.hosts[&host].fake;
    assert!(
        fake.storage().volumes().await.unwrap().is_empty(),
        "no copy stays"
    );
    assert!(fake.domain(id).unwrap().unwrap().snapshots.is_empty());
    let free = world.cloud.get_server(&caller, id).await.unwrap().value;
    assert_eq!(free.status.activity, None);
    let content = world.cloud.open_image(&caller, image.id()).await.unwrap();
    let read = content.content.try_collect::<Vec<_>>().await.unwrap().concat();
    assert!(
        String::from_utf8(read)
            .unwrap()
            .contains(&format!("disk {id} root"))
    );
    let again = world
        .cloud
        .create_server(&caller, server("new", image.id()))
        .await;
    let ended = Engine::new(&world).await.carry(&again.unwrap().task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
}

#[tokio::test]
async fn volumes_and_snapshots_become_images() {
    let (world, caller, _, _) = world().await;
    let request = CreateVolume {
        name: "data".to_owned(),
        size_gib: Some(1),
        ..CreateVolume::default()
    };
    let volume = world.cloud.create_volume(&caller, request).await.unwrap();
    Engine::new(&world).await.carry(&volume.task).await;
    let id = volume.volume.id();
    let request = CreateImage {
        volume: Some(id),
        ..saved()
    };
    let (image, _) = made(&world, &caller, request).await;
    assert_eq!(image.spec.source, ImageSource::Volume { volume: id });
    let request = CreateSnapshot {
        name: "then".to_owned(),
        volume: Some(id),
        ..CreateSnapshot::default()
    };
    let snapshot = world.cloud.create_snapshot(&caller, request).await.unwrap();
    Engine::new(&world).await.carry(&snapshot.task).await;
    let request = CreateImage {
        snapshot: Some(snapshot.snapshot.id()),
        ..saved()
    };
    let (image, jobs) = made(&world, &caller, request).await;
    assert!(matches!(image.spec.source, ImageSource::Snapshot { .. }));
    assert!(!jobs.iter().any(|job| job.starts_with("snapshot.")));
    let volume = world.cloud.get_volume(&caller, id).await.unwrap().value;
    assert_eq!(volume.status.activity, None);
}

#[tokio::test]
async fn what_cannot_become_an_image_is_said_at_the_door() {
    let (world, caller, _, _) = world().await;
    let server = Some(skyloom_model::ServerId::from_uuid(Uuid::from_u128(1)));
    let url = Some("https://h.example/x".to_owned());
    for (request, code) in [
        (
            CreateImage {
                server,
                url,
                ..saved()
            },
            "source.ambiguous",
        ),
        (
            CreateImage {
                server,
                ..CreateImage::new("k", DiskFormat::Kernel)
            },
            "format.invalid",
        ),
        (
            CreateImage {
                server,
                sha256: Some("a".repeat(64)),
                ..saved()
            },
            "image.sha256_invalid",
        ),
        (CreateImage { server, ..saved() }, "server.not_found"),
    ] {
        let refused = world.cloud.create_image(&caller, request).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
}

async fn tell(world: &World, host: HostId, task: &Task, image: ImageId, kind: &str, state: JobState) {
    let place = Place::Host(host);
    let job = JobRecord {
        format: skyloom_model::FORMAT,
        task: task.id,
        scope: task.scope,
        subject: task.subject.clone(),
        generation: 1,
        request_id: String::new(),
        spec: JobSpec {
            id: JobId::new("image.send"),
            kind: kind.to_owned(),
            title: String::new(),
            input: json!({
                "image": image,
                "upload": Uuid::from_u128(77),
                "at": { "volume": Uuid::from_u128(77), "pool": { "type": "local" } },
            }),
            after: Vec::new(),
            place,
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
    let at = key(&paths::job(place, task.id, &job.spec.id));
    let txn = Txn::new().put(at, Value::json(&job).unwrap());
    world.store.commit(txn).await.unwrap();
}

#[tokio::test]
async fn a_host_writes_only_what_its_started_job_names() {
    let (world, caller, host, other) = world().await;
    let before = world.files();
    let waiting = world
        .cloud
        .create_image(&caller, saved())
        .await
        .unwrap()
        .image
        .id();
    let accepted = world.cloud.delete_image(&caller, waiting).await.unwrap();
    let task = accepted.task.unwrap();
    let stranger = HostId::from_uuid(Uuid::from_u128(5));
    let sends = async |host, image, length| {
        let sent = world.cloud.receive_image(host, image, bytes(DISK), length).await;
        sent.map_err(|e| e.code().to_owned())
    };
    let missing = Err("image.not_found".to_owned());
    assert_eq!(sends(host, waiting, None).await, missing, "no job at all");
    for (kind, state) in [
        ("image.cache", JobState::Started),
        ("image.send", JobState::Ready),
        ("image.send", JobState::Succeeded),
        ("image.send", JobState::UndoStarted),
    ] {
        tell(&world, host, &task, waiting, kind, state).await;
        assert_eq!(sends(host, waiting, None).await, missing, "{kind} {state:?}");
    }
    tell(&world, host, &task, waiting, "image.send", JobState::Started).await;
    assert_eq!(sends(host, other, None).await, missing, "another image");
    assert_eq!(sends(stranger, waiting, None).await, missing, "another host");
    let short = sends(host, waiting, Some(5)).await;
    assert_eq!(short, Err("image.truncated".to_owned()));
    assert_eq!(world.files(), before, "nothing is kept of all that");
    let sent = sends(host, waiting, Some(1024)).await.unwrap();
    assert_eq!(sent.size, 1024);
    let staged = format!("staged/{}", Uuid::from_u128(77));
    assert!(world.files().contains(&staged));
    // A job that is given up while the content is on its way.
    let (store, at) = (
        world.store.clone(),
        key(&paths::job(Place::Host(host), task.id, &JobId::new("image.send"))),
    );
    let last = async move {
        store.commit(Txn::new().delete(at)).await.unwrap();
        Ok(bytes::Bytes::new())
    };
    let content = bytes(DISK).chain(futures::stream::once(last)).boxed();
    let late = world.cloud.receive_image(host, waiting, content, None).await;
    assert_eq!(late.unwrap_err().code(), "image.not_found");
    assert_eq!(world.files(), before);
}
