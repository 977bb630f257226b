//! Dry runs: what they show, and that they do nothing.

use std::collections::BTreeMap;

use skyloom_cloud::{
    Caller, ChangeKind, CloudError, CreateServer, ErrorKind, PatchHost, Preview, StopOptions, SweepHost,
};
use skyloom_identity::BuiltIn;
use skyloom_model::{ImageId, OrderVerb, Resource as _, Secret, Server, TaskState, TokenHolder};

use crate::engine::{Engine, active_image};
use crate::facade::{flavor, keypair};
use crate::world::{World, caller, key, server, with_key};

/// A cloud with two hosts, an administrator in the default project, and an image of that project.
pub(crate) async fn ready() -> (World, Caller, ImageId) {
    let mut world = World::new();
    let admin = world.admin().await;
    world.host(&admin, "rack1").await;
    world.host(&admin, "rack2").await;
    let image = active_image(&world, &admin).await;
    (world, admin, image)
}

pub(crate) fn dry(caller: &Caller) -> Caller {
    Caller {
        dry_run: true,
        ..caller.clone()
    }
}

/// The preview that a dry run ended with.
#[track_caller]
pub(crate) fn previewed<T: std::fmt::Debug>(ended: Result<T, CloudError>) -> Preview {
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Previewed, "{error}");
    error.preview().unwrap().clone()
}

/// Everything but the plans that were kept.
async fn records(world: &World) -> BTreeMap<String, String> {
    let mut all = world.documents("").await;
    all.retain(|path, _| !path.starts_with("previews/"));
    all
}

fn changed(preview: &Preview, change: ChangeKind) -> Vec<&str> {
    let of = preview.changes.iter().filter(|c| c.change == change);
    of.map(|c| c.kind.as_str()).collect()
}

#[tokio::test]
async fn a_create_shows_its_steps_host_room_and_records_and_does_nothing() {
    let (world, admin, image) = ready().await;
    let before = records(&world).await;
    let keyed = dry(&with_key(&admin, "once"));
    let preview = previewed(world.cloud.create_server(&keyed, server("web", image)).await);
    assert_eq!(records(&world).await, before);

    assert_eq!(
        (preview.operation.as_str(), preview.flow.as_deref()),
        ("servers.create", Some("server.create"))
    );
    assert_eq!(preview.subject.as_ref().unwrap().name.as_str(), "web");
    let steps: Vec<(&str, Vec<&str>)> = preview
        .steps
        .iter()
        .map(|s| (s.id.as_str(), s.after.iter().map(|a| a.as_str()).collect()))
        .collect();
    assert_eq!(
        steps,
        [
            ("image.cache", vec![]),
            ("disk.root", vec!["image.cache"]),
            ("disk.seed", vec![]),
            ("vm.define", vec!["disk.root", "disk.seed"]),
            ("vm.start", vec!["vm.define"]),
        ]
    );
    let cache = &preview.steps[0];
    assert_eq!(
        (cache.kind.as_str(), cache.weight, cache.retry.max_attempts),
        ("image.cache", 10, 5)
    );

    let reservation = preview.reservation.as_ref().unwrap();
    let room = reservation.host.as_ref().unwrap();
    let tiny = world
        .cloud
        .list_flavors(&admin, &crate::world::list())
        .await
        .unwrap()
        .items;
    let tiny = tiny.iter().find(|f| f.meta.name.as_str() == "m1.tiny").unwrap();
    assert_eq!(reservation.resources, tiny.spec.resources);
    assert_eq!(room.used_before, Default::default());
    assert_eq!(room.used_after, tiny.spec.resources);
    assert!(room.capacity.memory_mib > room.used_after.memory_mib);
    assert!(["rack1", "rack2"].contains(&room.name.as_str()));
    assert!(
        preview.steps.iter().all(|s| s.place == room.name.as_str()),
        "{:?}",
        preview.steps
    );
    let placement = preview.placement.as_ref().unwrap();
    assert_eq!(placement["chosen"]["name"], room.name.as_str());

    let mut created = changed(&preview, ChangeKind::Created);
    created.sort_unstable();
    assert_eq!(
        created,
        ["claims", "plans", "ports", "secrets", "servers", "tasks"]
    );
    assert_eq!(changed(&preview, ChangeKind::Changed), ["ledgers"]);
    let web = preview.changes.iter().find(|c| c.kind == "servers").unwrap();
    assert_eq!((web.name.as_deref(), web.id), (Some("web"), None));
    let mut from: Vec<&str> = preview.made_from.iter().map(|m| m.kind.as_str()).collect();
    from.sort_unstable();
    assert_eq!(from, ["flavors", "images", "ledgers"]);
    assert_eq!(preview.later.len(), 1);
    assert!(preview.plan.is_some());

    // The key was not used up, and nothing of what a create shows once is anywhere.
    let made = world
        .cloud
        .create_server(&with_key(&admin, "once"), server("web", image))
        .await
        .unwrap();
    assert!(made.password.is_some());
}

#[tokio::test]
async fn tenants_see_nothing_of_hosts() {
    let (world, admin, image) = ready().await;
    let member = caller(BuiltIn::Member, admin.project);
    let preview = previewed(
        world
            .cloud
            .create_server(&dry(&member), server("web", image))
            .await,
    );
    let kept = world
        .cloud
        .get_plan(&member, preview.plan.unwrap())
        .await
        .unwrap()
        .value;
    assert_eq!(kept.preview, preview, "neither later");
    assert!(preview.steps.iter().all(|s| s.place == "host"));
    let reservation = preview.reservation.as_ref().unwrap();
    assert!(reservation.host.is_none() && reservation.resources.vcpus == 1);
    let text = serde_json::to_string(&preview).unwrap();
    let hosts: Vec<String> = world.hosts.keys().map(ToString::to_string).collect();
    for secret in ["rack1", "rack2", "ledgers", "claims", &hosts[0], &hosts[1]] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(
        preview.placement.as_ref().unwrap()["considered"],
        2,
        "counts are told"
    );
    // An operator sees the same plan whole.
    let whole = world
        .cloud
        .get_plan(&admin, preview.plan.unwrap())
        .await
        .unwrap()
        .value;
    assert!(whole.preview.reservation.unwrap().host.is_some());
    let listed = world
        .cloud
        .list_plans(&member, &crate::world::list())
        .await
        .unwrap()
        .items;
    assert_eq!(listed, [kept]);
}

#[tokio::test]
async fn what_would_be_refused_is_refused() {
    let (world, admin, image) = ready().await;
    let asked = |request: CreateServer| {
        let (cloud, caller) = (world.cloud.clone(), dry(&admin));
        async move { cloud.create_server(&caller, request).await.unwrap_err() }
    };
    let nowhere = CreateServer {
        host_labels: BTreeMap::from([("gpu".to_owned(), "yes".to_owned())]),
        ..server("web", image)
    };
    let no_host = asked(nowhere).await;
    assert_eq!(
        (no_host.kind(), no_host.code()),
        (ErrorKind::Conflict, "placement.no_host")
    );
    let wrong = CreateServer {
        flavor: "none".to_owned(),
        ..server("web", image)
    };
    assert_eq!(asked(wrong).await.code(), "flavor.not_found");
    let reader = caller(BuiltIn::Reader, admin.project);
    let denied = world
        .cloud
        .create_server(&dry(&reader), server("web", image))
        .await
        .unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    assert!(world.documents("previews").await.is_empty());
}

#[tokio::test]
async fn requests_with_secrets_are_shown_and_not_kept() {
    let (world, admin, image) = ready().await;
    let with_password = CreateServer {
        password: Some(Secret::new("correct horse".to_owned())),
        ..server("web", image)
    };
    let with_user_data = CreateServer {
        user_data: Some("#cloud-config\npassword: x\n".to_owned()),
        ..server("web", image)
    };
    for request in [with_password, with_user_data] {
        let preview = previewed(world.cloud.create_server(&dry(&admin), request).await);
        assert_eq!((preview.plan, preview.steps.len()), (None, 5));
    }
    assert!(world.documents("previews").await.is_empty());
}

async fn made(world: &World, admin: &Caller, image: ImageId) -> Server {
    let made = world
        .cloud
        .create_server(admin, server("web", image))
        .await
        .unwrap();
    let ended = Engine::new(world).await.carry(&made.task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    made.server
}

#[tokio::test]
async fn risks_are_said() {
    let (world, admin, image) = ready().await;
    let web = made(&world, &admin, image).await;
    let before = records(&world).await;
    let (cloud, caller, id) = (&world.cloud, dry(&admin), web.id());
    let gentle = StopOptions {
        force: false,
        timeout_seconds: Some(7),
    };
    let hard = StopOptions {
        force: true,
        timeout_seconds: None,
    };
    let stop = previewed(cloud.stop_server(&caller, id, gentle).await);
    assert_eq!(
        stop.risks,
        [
            "a guest that has not turned itself off after 7 s is forced off",
            "the step vm.stop cannot be undone"
        ]
    );
    assert_eq!(
        stop.made_from.iter().map(|m| m.kind.as_str()).collect::<Vec<_>>(),
        ["servers"]
    );
    assert!(stop.reservation.is_none());
    let reboot = previewed(cloud.reboot_server(&caller, id, hard).await);
    assert!(
        reboot.risks[0].contains("without being asked"),
        "{:?}",
        reboot.risks
    );
    let steps: Vec<&str> = reboot.steps.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(steps, ["vm.define", "vm.stop", "vm.start"]);
    let delete = previewed(cloud.delete_server(&caller, id).await);
    assert!(
        delete.risks.iter().any(|r| r.contains("disks are deleted")),
        "{:?}",
        delete.risks
    );
    let image = previewed(cloud.delete_image(&caller, image).await);
    assert!(
        image.risks.iter().any(|r| r.contains("content is deleted")),
        "{:?}",
        image.risks
    );
    assert_eq!(image.steps[0].place, "engine");
    assert_eq!(records(&world).await, before);
}

#[tokio::test]
async fn a_host_that_would_be_nearly_full_is_said_to_be() {
    let (world, admin, image) = ready().await;
    let preview = previewed(
        world
            .cloud
            .create_server(&dry(&admin), server("web", image))
            .await,
    );
    let room = preview.reservation.unwrap().host.unwrap();
    assert!(room.nearly_full.is_empty());
    let large = skyloom_cloud::CreateFlavor {
        memory_mib: room.capacity.memory_mib * 95 / 100,
        ..flavor("large")
    };
    world.cloud.create_flavor(&admin, large).await.unwrap();
    let request = CreateServer {
        flavor: "large".to_owned(),
        ..server("web", image)
    };
    let preview = previewed(world.cloud.create_server(&dry(&admin), request).await);
    let room = preview.reservation.unwrap().host.unwrap();
    assert_eq!(room.nearly_full.len(), 1);
    assert!(
        room.nearly_full[0].contains("% of its memory would be taken"),
        "{room:?}"
    );
}

#[tokio::test]
async fn every_other_mutation_shows_its_records_and_does_nothing() {
    let (mut world, admin, image) = ready().await;
    let host = world.host(&admin, "rack3").await;
    let key_record = world.cloud.create_keypair(&admin, keypair("k")).await.unwrap();
    let flavor_record = world.cloud.create_flavor(&admin, flavor("f")).await.unwrap();
    let stuck = world
        .cloud
        .create_server(&admin, server("s", image))
        .await
        .unwrap()
        .task;
    let at = key(&skyloom_model::paths::task(stuck.scope, stuck.id));
    let found = world.store.get(&at).await.unwrap().unwrap();
    let mut task: skyloom_model::Task = found.value.parse().unwrap();
    task.state = TaskState::Stuck;
    let value = skyloom_store::Value::json(&task).unwrap();
    world
        .store
        .commit(skyloom_store::Txn::new().replace(at, found.modified, value))
        .await
        .unwrap();
    let other = world
        .cloud
        .create_server(&admin, server("o", image))
        .await
        .unwrap()
        .task;

    let mut before = world.documents("").await;
    let (cloud, caller) = (&world.cloud, dry(&admin));
    let patch = PatchHost {
        enabled: Some(false),
        ..PatchHost::default()
    };
    let host_request = skyloom_cloud::CreateHost {
        name: "rack4".to_owned(),
        ..Default::default()
    };
    let project = skyloom_cloud::CreateProject {
        name: "p".to_owned(),
        ..Default::default()
    };
    let token = skyloom_cloud::CreateToken::new("t", TokenHolder::Engine);
    let tokens = cloud
        .list_tokens(&admin, &crate::world::list())
        .await
        .unwrap()
        .items;
    let (created, changed_, deleted) = (ChangeKind::Created, ChangeKind::Changed, ChangeKind::Deleted);
    for (preview, change, kinds) in [
        (
            previewed(cloud.create_flavor(&caller, flavor("g")).await),
            created,
            vec!["flavors"],
        ),
        (
            previewed(cloud.delete_flavor(&caller, flavor_record.id()).await),
            deleted,
            vec!["flavors"],
        ),
        (
            previewed(cloud.create_keypair(&caller, keypair("l")).await),
            created,
            vec!["keypairs"],
        ),
        (
            previewed(cloud.delete_keypair(&caller, key_record.id()).await),
            deleted,
            vec!["keypairs"],
        ),
        (
            previewed(cloud.create_host(&caller, host_request).await),
            created,
            vec!["hosts", "ledgers", "tokens"],
        ),
        (
            previewed(cloud.patch_host(&caller, host, patch).await),
            changed_,
            vec!["hosts"],
        ),
        (
            previewed(cloud.delete_host(&caller, host).await),
            deleted,
            vec!["hosts", "ledgers", "tokens"],
        ),
        (
            previewed(cloud.create_project(&caller, project).await),
            created,
            vec!["projects"],
        ),
        (
            previewed(cloud.create_token(&caller, token).await),
            created,
            vec!["tokens"],
        ),
        (
            previewed(cloud.delete_token(&caller, tokens[0].id()).await),
            deleted,
            vec!["tokens"],
        ),
        (
            previewed(cloud.cancel_task(&caller, other.id).await),
            changed_,
            vec!["tasks"],
        ),
        (
            previewed(cloud.order_task(&caller, stuck.id, OrderVerb::Skip, "x").await),
            changed_,
            vec!["tasks"],
        ),
        (
            previewed(cloud.create_image(&caller, crate::world::image("i")).await),
            created,
            vec!["images"],
        ),
    ] {
        let mut found = changed(&preview, change);
        found.sort_unstable();
        assert_eq!(
            (found.len(), found),
            (preview.changes.len(), kinds),
            "{}",
            preview.operation
        );
        assert!(preview.steps.is_empty() && preview.plan.is_none() && preview.flow.is_none());
    }
    let waiting = cloud
        .create_image(&admin, crate::world::image("w"))
        .await
        .unwrap()
        .image;
    let sent = cloud
        .upload_image(
            &caller,
            waiting.id(),
            crate::world::bytes(crate::world::DISK),
            None,
        )
        .await;
    let sent = previewed(sent);
    assert_eq!((sent.flow.as_deref(), sent.plan), (Some("image.import"), None));
    assert_eq!(
        world.files().iter().filter(|f| f.starts_with("staged")).count(),
        0,
        "what was sent is gone"
    );
    let mut after = world.documents("").await;
    after.retain(|path, _| !path.contains(&waiting.id().to_string()));
    // It counts the image that was made.
    let ledger = skyloom_identity::ledger_path(skyloom_identity::Owner::Project(caller.project));
    assert_ne!(after.remove(&ledger), before.remove(&ledger));
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_flow_that_cannot_be_planned_here_is_said() {
    let (mut world, admin, _) = ready().await;
    let scheduler = std::sync::Arc::new(skyloom_scheduler::FleetScheduler::default());
    world.cloud = world
        .cloud
        .with_planner(skyloom_flow::FlowRegistry::new(), scheduler);
    let host = *world.hosts.keys().next().unwrap();
    let unknown = world
        .cloud
        .sweep_host(&dry(&admin), host, SweepHost::default())
        .await
        .unwrap_err();
    assert_eq!(
        (unknown.kind(), unknown.code()),
        (ErrorKind::Conflict, "plan.unknown_flow")
    );
    assert!(unknown.to_string().contains("host.sweep"), "{unknown}");
}
