//! Plans that were shown: applied exactly as shown, or not at all.

use std::time::Duration;

use skyloom_cloud::{Caller, CreateServer, ErrorKind, PlanApplied, Preview, StopOptions};
use skyloom_identity::BuiltIn;
use skyloom_model::{EventKind, FlavorId, ImageId, Plan, Scope, ServerId, Task, TaskState, paths};
use uuid::Uuid;

use crate::engine::Engine;
use crate::facade::flavor;
use crate::previews::{dry, previewed, ready};
use crate::world::{World, caller, key, list, server, with_key};

async fn shown(world: &World, caller: &Caller, image: ImageId) -> Preview {
    previewed(
        world
            .cloud
            .create_server(&dry(caller), server("web", image))
            .await,
    )
}

async fn plan_of(world: &World, task: &Task) -> Plan {
    let at = key(&paths::plan(task.id));
    world
        .store
        .get(&at)
        .await
        .unwrap()
        .unwrap()
        .value
        .parse()
        .unwrap()
}

async fn refused(world: &World, caller: &Caller, id: Uuid) -> (ErrorKind, String, String) {
    let error = world.cloud.apply_plan(caller, id).await.unwrap_err();
    (
        error.kind(),
        error.code().to_owned(),
        error.reason().message.clone(),
    )
}

#[tokio::test]
async fn what_was_shown_is_what_runs() {
    let (world, admin, image) = ready().await;
    let preview = shown(&world, &admin, image).await;
    let id = preview.plan.unwrap();
    let PlanApplied { plan, task, password } = world.cloud.apply_plan(&admin, id).await.unwrap();
    assert_eq!((plan, task.state, task.plan_version), (id, TaskState::Running, 1));
    assert!(task.owner.is_none(), "any engine carries on");
    assert!(password.is_some(), "made now, shown once");
    let made = plan_of(&world, &task).await;
    let (now, then): (Vec<_>, Vec<_>) = (
        made.jobs.iter().map(|j| (&j.id, &j.title, &j.after)).collect(),
        preview
            .steps
            .iter()
            .map(|s| (&s.id, &s.title, &s.after))
            .collect(),
    );
    assert_eq!(now, then);
    let id = ServerId::from_uuid(task.subject.id);
    let placed = world.cloud.get_server(&admin, id).await.unwrap().value;
    let room = preview.reservation.as_ref().unwrap().host.as_ref().unwrap();
    assert_eq!(placed.status.placement.unwrap().host_name, room.name);
    let jobs = world.cloud.task_detail(&admin, task.id).await.unwrap().value.jobs;
    let first: Vec<&str> = jobs.iter().map(|j| j.spec.id.as_str()).collect();
    assert_eq!(first, ["image.cache", "disk.seed"], "the first jobs are out");
    let told: Vec<EventKind> = world
        .cloud
        .list_events(
            &admin,
            &skyloom_cloud::EventQuery {
                task: Some(task.id),
                ..Default::default()
            },
        )
        .await
        .unwrap()
        .items
        .iter()
        .map(|e| e.kind)
        .collect();
    assert_eq!(told, [EventKind::TaskAccepted, EventKind::TaskPlanned]);

    let ended = Engine::new(&world).await.carry(&task).await;
    assert_eq!(ended.state, TaskState::Done, "{:?}", ended.reason);
    assert_eq!(
        plan_of(&world, &task).await.jobs,
        made.jobs,
        "nobody planned anew"
    );
    let record = world.cloud.get_plan(&admin, plan).await.unwrap().value;
    assert_eq!(record.applied, Some(task.id));
}

#[tokio::test]
async fn a_plan_is_applied_once() {
    let (world, admin, image) = ready().await;
    let id = shown(&world, &admin, image).await.plan.unwrap();
    let keyed = with_key(&admin, "apply");
    let first = world.cloud.apply_plan(&keyed, id).await.unwrap();
    let again = world.cloud.apply_plan(&keyed, id).await.unwrap();
    assert_eq!(again.task.id, first.task.id);
    assert_eq!(again.password, None, "the password is shown once");
    let (kind, code, message) = refused(&world, &admin, id).await;
    assert_eq!((kind, code.as_str()), (ErrorKind::Conflict, "plan.applied"));
    assert!(message.contains(&first.task.id.to_string()), "{message}");
    let other = shown(&world, &admin, image).await.plan.unwrap();
    assert_eq!(refused(&world, &keyed, other).await.1, "idempotency.key_reused");

    // Two at once: one of them is told that it was done, or that the world has moved under it.
    let (a, b) = tokio::join!(
        world.cloud.apply_plan(&admin, other),
        world.cloud.apply_plan(&admin, other)
    );
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    won.unwrap();
    assert_eq!(lost.unwrap_err().code(), "plan.applied");
    let servers = world.cloud.list_servers(&admin, &list()).await.unwrap().items;
    assert_eq!(servers.len(), 2);
}

#[tokio::test]
async fn a_world_that_moved_is_named_and_nothing_is_done() {
    let (world, admin, image) = ready().await;
    let first = shown(&world, &admin, image).await;
    let second = shown(&world, &admin, image).await.plan.unwrap();
    world.cloud.apply_plan(&admin, first.plan.unwrap()).await.unwrap();
    // Whichever host the next would go to now: the ledger that the second plan saw has moved.
    let before = world.documents("r/servers").await;
    let host = first.reservation.unwrap().host.unwrap().name;
    let chosen = world.cloud.get_plan(&admin, second).await.unwrap().value.preview;
    let same = chosen.reservation.unwrap().host.unwrap().name == host;
    let applied = world.cloud.apply_plan(&admin, second).await;
    if same {
        let error = applied.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Conflict, "plan.world_moved")
        );
        assert!(
            error.reason().message.contains("what is free on the host"),
            "{error}"
        );
        assert!(error.reason().hint.as_deref().unwrap().contains("dry run"));
        assert_eq!(world.documents("r/servers").await, before);
    } else {
        applied.expect("another host's ledger has not moved");
    }

    // A flavor that is gone, an image that changed.
    world.cloud.create_flavor(&admin, flavor("mine")).await.unwrap();
    let request = CreateServer {
        flavor: "mine".to_owned(),
        ..server("web", image)
    };
    let plan = previewed(world.cloud.create_server(&dry(&admin), request).await)
        .plan
        .unwrap();
    let mine = world.cloud.list_flavors(&admin, &list()).await.unwrap().items;
    let mine = mine.iter().find(|f| f.meta.name.as_str() == "mine").unwrap();
    let id = FlavorId::from_uuid(mine.meta.id);
    world.cloud.delete_flavor(&admin, id).await.unwrap();
    let (_, code, message) = refused(&world, &admin, plan).await;
    assert_eq!(code, "plan.world_moved");
    assert!(message.contains("there is no flavor"), "{message}");
    world.cloud.create_flavor(&admin, flavor("mine")).await.unwrap();
    let (_, code, message) = refused(&world, &admin, plan).await;
    assert_eq!(code, "plan.world_moved");
    assert!(
        message.contains(&format!("flavors {id} has changed")),
        "{message}"
    );

    let plan = shown(&world, &admin, image).await.plan.unwrap();
    world.cloud.delete_image(&admin, image).await.unwrap();
    let (_, code, message) = refused(&world, &admin, plan).await;
    assert_eq!(code, "plan.world_moved");
    assert!(message.contains("image"), "{message}");
}

#[tokio::test]
async fn tenants_are_told_nothing_of_hosts() {
    let (world, admin, image) = ready().await;
    let member = caller(BuiltIn::Member, admin.project);
    // Enough servers that both ledgers have moved.
    let plan = shown(&world, &member, image).await.plan.unwrap();
    for _ in 0..8 {
        let id = shown(&world, &admin, image).await.plan.unwrap();
        world.cloud.apply_plan(&admin, id).await.unwrap();
    }
    let (kind, code, message) = refused(&world, &member, plan).await;
    assert_eq!((kind, code.as_str()), (ErrorKind::Conflict, "plan.world_moved"));
    assert!(message.contains("the chosen host"), "{message}");
    for host in world.hosts.keys() {
        assert!(!message.contains(&host.to_string()), "{message}");
    }
    let fresh = shown(&world, &member, image).await.plan.unwrap();
    world
        .cloud
        .apply_plan(&member, fresh)
        .await
        .expect("what tenants were shown they may apply");
}

#[tokio::test]
async fn plans_are_the_projects_own_and_last_a_day() {
    let (world, admin, image) = ready().await;
    let other = world.member(&admin, "other").await;
    let reader = caller(BuiltIn::Reader, admin.project);
    let id = shown(&world, &admin, image).await.plan.unwrap();
    assert_eq!(refused(&world, &other, id).await.1, "plan.not_found");
    assert_eq!(refused(&world, &reader, id).await.1, "auth.forbidden");
    assert!(
        world
            .cloud
            .list_plans(&other, &list())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        world
            .cloud
            .list_plans(&reader, &list())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    world.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(refused(&world, &admin, id).await.1, "plan.not_found");
    assert!(
        world
            .cloud
            .list_plans(&admin, &list())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    world.clock.advance(Duration::from_secs(1));
    world.cloud.forget_old().await.unwrap();
    assert!(world.documents("previews").await.is_empty());
}

#[tokio::test]
async fn every_verb_with_a_task_can_be_applied() {
    let (world, admin, image) = ready().await;
    let mut engine = Engine::new(&world).await;
    let id = shown(&world, &admin, image).await.plan.unwrap();
    let made = world.cloud.apply_plan(&admin, id).await.unwrap().task;
    engine.carry(&made).await;
    let server = ServerId::from_uuid(made.subject.id);
    let (cloud, caller) = (&world.cloud, dry(&admin));
    let quick = StopOptions {
        force: true,
        timeout_seconds: None,
    };
    for verb in ["reboot", "stop", "start", "delete"] {
        let preview = match verb {
            "reboot" => previewed(cloud.reboot_server(&caller, server, quick).await),
            "stop" => previewed(cloud.stop_server(&caller, server, quick).await),
            "start" => previewed(cloud.start_server(&caller, server).await),
            _ => previewed(cloud.delete_server(&caller, server).await),
        };
        let applied = cloud.apply_plan(&admin, preview.plan.unwrap()).await.unwrap();
        assert_eq!(applied.task.flow, format!("server.{verb}"));
        assert_eq!(
            plan_of(&world, &applied.task).await.jobs.len(),
            preview.steps.len()
        );
        let ended = engine.carry(&applied.task).await;
        assert_eq!(ended.state, TaskState::Done, "{verb}: {:?}", ended.reason);
    }
    let mut request = crate::world::image("fetched");
    request.url = Some("https://images.example.org/i".to_owned());
    let import = previewed(cloud.create_image(&caller, request).await);
    let applied = cloud.apply_plan(&admin, import.plan.unwrap()).await.unwrap();
    assert_eq!(engine.carry(&applied.task).await.state, TaskState::Done);
    let delete = previewed(cloud.delete_image(&caller, image).await);
    let applied = cloud.apply_plan(&admin, delete.plan.unwrap()).await.unwrap();
    assert_eq!(engine.carry(&applied.task).await.state, TaskState::Done);
    assert!(
        world
            .documents(&format!("r/images/{}/{image}", Scope::Project(admin.project)))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_plan_of_a_server_that_changed_is_not_applied() {
    let (world, admin, image) = ready().await;
    let mut engine = Engine::new(&world).await;
    let id = shown(&world, &admin, image).await.plan.unwrap();
    let made = world.cloud.apply_plan(&admin, id).await.unwrap().task;
    engine.carry(&made).await;
    let server = ServerId::from_uuid(made.subject.id);
    let stop = previewed(
        world
            .cloud
            .stop_server(&dry(&admin), server, StopOptions::default())
            .await,
    );
    let reboot = world
        .cloud
        .reboot_server(&admin, server, StopOptions::default())
        .await
        .unwrap()
        .task;
    let (_, code, message) = refused(&world, &admin, stop.plan.unwrap()).await;
    assert_eq!(code, "plan.world_moved");
    assert!(message.contains("server.reboot is under way"), "{message}");
    engine.carry(&reboot).await;
    let (_, code, message) = refused(&world, &admin, stop.plan.unwrap()).await;
    assert_eq!(code, "plan.world_moved");
    assert!(
        message.contains(&format!("servers {server} has changed")),
        "{message}"
    );
    assert_eq!(world.documents("active").await.len(), 0);
}
