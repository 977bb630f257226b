//! Images at the facade: own and public, names, sending content.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use skyloom_cloud::{Caller, ErrorKind};
use skyloom_model::{
    FORMAT, HostId, ImageState, JobId, JobRecord, JobSpec, JobState, JobWant, Place, Resource as _,
    RetryPolicy, TaskState, paths,
};
use skyloom_store::{Key, Txn, Value};
use uuid::Uuid;

use crate::engine::{Engine, FixedFetch};
use crate::world::{DISK, World, bytes, image, list, server, with_key};

#[tokio::test]
async fn sent_content_becomes_an_image() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let made = world.cloud.create_image(&member, image("i")).await.unwrap();
    assert_eq!((made.image.status.state, &made.task), (ImageState::Queued, &None));
    let id = made.image.id();
    assert_eq!(
        world.cloud.open_image(&member, id).await.unwrap_err().code(),
        "image.not_active"
    );
    let accepted = world
        .cloud
        .upload_image(&member, id, bytes(DISK), Some(1024))
        .await
        .unwrap();
    assert_eq!(accepted.image.status.state, ImageState::Importing);
    let again = world
        .cloud
        .upload_image(&member, id, bytes(DISK), None)
        .await
        .unwrap_err();
    assert_eq!(again.code(), "image.not_waiting");
    assert_eq!(world.files().len(), 1, "the refused content is gone");
    assert_eq!(
        world.cloud.delete_image(&member, id).await.unwrap_err().code(),
        "image.busy"
    );

    let mut engine = Engine::new(&world).await;
    let task = engine.carry(&accepted.task.unwrap()).await;
    assert_eq!(task.state, TaskState::Done, "{:?}", task.reason);
    assert_eq!(engine.trace(), ["image.inspect", "image.publish"]);
    let active = world.cloud.get_image(&member, id).await.unwrap().value;
    assert_eq!(active.status.state, ImageState::Active);
    assert_eq!(
        (active.status.size_bytes, active.status.virtual_size_bytes),
        (1024, 1024)
    );
    let content = world.cloud.open_image(&member, id).await.unwrap();
    assert_eq!(content.size, 1024);
    let read: Vec<Bytes> = content.content.try_collect().await.unwrap();
    assert_eq!(read.concat(), DISK);

    let other = world.member(&admin, "other").await;
    assert_eq!(
        world.cloud.open_image(&other, id).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let host = HostId::from_uuid(Uuid::nil());
    assert_eq!(
        world
            .cloud
            .open_image_for_host(Some(host), id)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound,
        "a host without a job for it"
    );
    let spec = JobSpec {
        id: JobId::new("image.cache"),
        kind: "image.cache".to_owned(),
        title: String::new(),
        input: serde_json::json!({"image": {"id": id, "sha256": "", "format": "raw", "size_bytes": 1024}}),
        after: Vec::new(),
        place: Place::Host(host),
        retry: RetryPolicy::default(),
        weight: 1,
        timeout_ms: None,
    };
    let path = paths::job(spec.place, task.id, &spec.id);
    let job = JobRecord {
        format: FORMAT,
        task: task.id,
        scope: task.scope,
        subject: task.subject.clone(),
        generation: 1,
        request_id: String::new(),
        spec,
        want: JobWant::Run,
        attempt: 1,
        not_before: None,
        state: JobState::Started,
        worker: None,
        output: None,
        error: None,
        started_at: None,
        ended_at: None,
    };
    let key = Key::parse(&path).unwrap();
    let put = Txn::new().create(key.clone(), Value::json(&job).unwrap());
    world.store.commit(put).await.unwrap();
    assert_eq!(
        world
            .cloud
            .open_image_for_host(Some(host), id)
            .await
            .unwrap()
            .size,
        1024,
        "hosts read what they need"
    );
    world.store.commit(Txn::new().delete(key)).await.unwrap();

    let gone = world.cloud.delete_image(&member, id).await.unwrap();
    let refused = world
        .cloud
        .create_server(&member, server("s", id))
        .await
        .unwrap_err();
    assert_eq!(
        refused.code(),
        "image.not_active",
        "no new servers while it is deleted"
    );
    engine.carry(&gone.task.unwrap()).await;
    assert!(world.files().is_empty());
    assert_eq!(
        world.cloud.get_image(&member, id).await.unwrap_err().code(),
        "image.not_found"
    );
}

#[tokio::test]
async fn refused_content_leaves_nothing_and_may_be_sent_again() {
    let world = World::new();
    let admin = world.admin().await;
    let id = world
        .cloud
        .create_image(&admin, image("i"))
        .await
        .unwrap()
        .image
        .id();
    let short = world
        .cloud
        .upload_image(&admin, id, bytes(DISK), Some(4096))
        .await
        .unwrap_err();
    assert_eq!(
        (short.kind(), short.code()),
        (ErrorKind::BadRequest, "image.truncated")
    );
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]).boxed();
    let broken = world
        .cloud
        .upload_image(&admin, id, broken, None)
        .await
        .unwrap_err();
    assert_eq!(
        (broken.kind(), broken.code()),
        (ErrorKind::BadRequest, "image.content_broke_off")
    );
    let chunk = Bytes::from(vec![0; 1 << 20]);
    let large = stream::iter([Ok(chunk.clone()), Ok(chunk)]).boxed();
    let large = world
        .cloud
        .upload_image(&admin, id, large, None)
        .await
        .unwrap_err();
    assert_eq!(
        (large.kind(), large.code()),
        (ErrorKind::TooLarge, "image.too_large")
    );
    assert!(world.files().is_empty());

    // The inspector refuses: the image is in error, and the owner may send something better.
    let bad = world
        .cloud
        .upload_image(&admin, id, bytes(b"QFI\xfb is a qcow2, not raw"), None)
        .await
        .unwrap();
    let mut engine = Engine::new(&world).await;
    let task = engine.carry(&bad.task.unwrap()).await;
    assert_eq!(task.state, TaskState::Failed);
    let status = world.cloud.get_image(&admin, id).await.unwrap().value.status;
    assert_eq!(status.state, ImageState::Error);
    assert!(status.fault.unwrap().code.starts_with("image."));
    assert!(world.files().is_empty());
    let better = world
        .cloud
        .upload_image(&admin, id, bytes(DISK), None)
        .await
        .unwrap();
    assert_eq!(engine.carry(&better.task.unwrap()).await.state, TaskState::Done);
}

#[tokio::test]
async fn the_same_content_under_the_same_key_is_taken_once() {
    let world = World::new();
    let admin = world.admin().await;
    let id = world
        .cloud
        .create_image(&admin, image("i"))
        .await
        .unwrap()
        .image
        .id();
    let keyed = with_key(&admin, "k");
    let send = |content| world.cloud.upload_image(&keyed, id, bytes(content), None);
    let first = send(DISK).await.unwrap();
    assert_eq!(send(DISK).await.unwrap(), first);
    assert_eq!(send(b"other").await.unwrap_err().code(), "idempotency.key_reused");
    assert_eq!(world.files().len(), 1, "one content waits for its import");
    let task = Engine::new(&world)
        .await
        .carry(first.task.as_ref().unwrap())
        .await;
    assert_eq!(task.state, TaskState::Done);
    assert_eq!(send(DISK).await.unwrap(), first, "also afterwards");
    assert_eq!(world.files(), [format!("images/{id}")]);
}

#[tokio::test]
async fn fetched_content_is_measured_against_the_claim() {
    let world = World::new();
    let admin = world.admin().await;
    let mut request = image("i");
    request.url = Some("https://example.org/i".to_owned());
    request.sha256 = Some("AB".repeat(32));
    let wrong = world.cloud.create_image(&admin, request.clone()).await.unwrap();
    let mut engine = Engine::new(&world).await;
    let task = engine.carry(wrong.task.as_ref().unwrap()).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "image.checksum_mismatch")
    );
    assert_eq!(
        engine.trace(),
        ["image.fetch", "image.inspect", "-image.inspect", "-image.fetch"]
    );
    assert!(world.files().is_empty());
    let refused = world
        .cloud
        .upload_image(&admin, wrong.image.id(), bytes(DISK), None)
        .await
        .unwrap_err();
    assert_eq!(
        refused.code(),
        "image.not_waiting",
        "content comes from where its owner said"
    );

    request.sha256 = None;
    let right = world.cloud.create_image(&admin, request.clone()).await.unwrap();
    assert_eq!(
        engine.carry(right.task.as_ref().unwrap()).await.state,
        TaskState::Done
    );
    drop(engine);

    let reason = skyloom_model::Reason::new("url.cut_off", "half of it");
    let mut engine = Engine::with_fetch(&world, FixedFetch(Err(reason))).await;
    let cut = world.cloud.create_image(&admin, request).await.unwrap();
    let task = engine.carry(cut.task.as_ref().unwrap()).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "url.cut_off")
    );
    assert_eq!(world.files().len(), 1, "half a download is not kept");
}

#[tokio::test]
async fn public_images_are_everybodys_to_use_and_administrators_to_change() {
    let world = World::new();
    let admin = world.admin().await;
    let (one, other) = (
        world.member(&admin, "one").await,
        world.member(&admin, "other").await,
    );
    let mut public = image("debian");
    public.public = true;
    assert_eq!(
        world
            .cloud
            .create_image(&one, public.clone())
            .await
            .unwrap_err()
            .code(),
        "auth.forbidden"
    );
    let shared = world.cloud.create_image(&admin, public).await.unwrap().image;
    let own = world.cloud.create_image(&one, image("mine")).await.unwrap().image;
    let ids = |caller: Caller| {
        let world = &world;
        async move {
            let all = world.cloud.list_images(&caller, &list()).await.unwrap().items;
            all.into_iter().map(|i| i.id()).collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(one.clone()).await, [own.id(), shared.id()]);
    assert_eq!(ids(other.clone()).await, [shared.id()]);
    assert_eq!(
        world
            .cloud
            .delete_image(&one, shared.id())
            .await
            .unwrap_err()
            .code(),
        "auth.forbidden"
    );
    let sent = world
        .cloud
        .upload_image(&one, shared.id(), bytes(DISK), None)
        .await
        .unwrap_err();
    assert_eq!(sent.code(), "auth.forbidden");
    assert!(world.files().is_empty());
    let pages = skyloom_cloud::ListQuery {
        limit: Some(1),
        ..list()
    };
    let first = world.cloud.list_images(&one, &pages).await.unwrap();
    let next = skyloom_cloud::ListQuery {
        cursor: first.next,
        ..pages
    };
    assert_eq!(
        world.cloud.list_images(&one, &next).await.unwrap().items[0].id(),
        shared.id()
    );
}

#[tokio::test]
async fn an_ambiguous_name_is_not_guessed() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let a = world
        .cloud
        .create_image(&member, image("debian"))
        .await
        .unwrap()
        .image;
    let mut request = server("s", a.id());
    request.image = "debian".to_owned();
    let one = world
        .cloud
        .create_server(&member, request.clone())
        .await
        .unwrap_err();
    assert_eq!(one.code(), "image.not_active", "found by its name");
    let mut public = image("debian");
    public.public = true;
    let b = world.cloud.create_image(&admin, public).await.unwrap().image;
    let error = world.cloud.create_server(&member, request).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Conflict, "image.name_ambiguous")
    );
    assert!(
        [a.id(), b.id()]
            .iter()
            .all(|id| error.reason().message.contains(&id.to_string()))
    );
}
