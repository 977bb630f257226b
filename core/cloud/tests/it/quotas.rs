//! Quotas at the facade: charged and given back with the resources, refused with what is in the way, put right by counting.
//! And what the audit says, in the same commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use skyloom_cloud::{Caller, CreateServer, ErrorKind, StopOptions};
use skyloom_identity::audit::{Entry, StoreAudit};
use skyloom_identity::{DEFAULT_DOMAIN, Limit, Limits, Owner, ResourceName, Slot, ledger_path};
use skyloom_model::{Clock, ImageId, Resource as _, TaskState};

use crate::engine::{Engine, active_image};
use crate::facade::keypair;
use crate::previews::{dry, previewed};
use crate::world::{World, image, server};

fn of(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

fn plain(name: &str, image: ImageId) -> CreateServer {
    CreateServer {
        config_drive: Some(false),
        ..server(name, image)
    }
}

async fn used(world: &World, owner: Owner) -> BTreeMap<String, u64> {
    let slot = Slot::load(&world.store, owner).await.unwrap();
    let used = slot
        .ledger()
        .map(|ledger| ledger.used.clone())
        .unwrap_or_default();
    used.iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(name, amount)| (name.to_string(), amount))
        .collect()
}

fn amounts(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter()
        .map(|(name, amount)| ((*name).to_owned(), *amount))
        .collect()
}

async fn limit(world: &World, owner: Owner, name: &str, most: u64) {
    let slot = Slot::load(&world.store, owner).await.unwrap();
    let limits = Limits::new().with(of(name), Limit::Most(most));
    let txn = slot.set_limits(limits, Limits::new()).unwrap();
    assert!(world.store.commit(txn).await.unwrap().committed().is_some());
}

async fn ready() -> (World, Caller, ImageId) {
    let mut world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    world.host(&admin, "h").await;
    let image = active_image(&world, &member).await;
    (world, member, image)
}

#[tokio::test]
async fn what_is_made_is_charged_and_what_goes_is_given_back() {
    let (world, member, image_id) = ready().await;
    let (cloud, owner) = (&world.cloud, Owner::Project(member.project));
    assert_eq!(used(&world, owner).await, amounts(&[("images", 1)]));
    let made = cloud.create_server(&member, plain("s", image_id)).await.unwrap();
    let key = cloud.create_keypair(&member, keypair("k")).await.unwrap();
    let all = [
        ("images", 1),
        ("keypairs", 1),
        ("memory_mib", 256),
        ("ports", 1),
        ("servers", 1),
        ("vcpus", 1),
    ];
    assert_eq!(used(&world, owner).await, amounts(&all));
    assert_eq!(used(&world, Owner::Domain(DEFAULT_DOMAIN)).await, amounts(&[]));

    let done = Engine::new(&world).await.carry(&made.task).await;
    assert_eq!(done.state, TaskState::Done);
    assert_eq!(
        used(&world, owner).await,
        amounts(&all),
        "being made changes nothing"
    );
    let deleted = cloud.delete_server(&member, made.server.id()).await.unwrap();
    assert_eq!(used(&world, owner).await, amounts(&all), "it is still there");
    let done = Engine::new(&world).await.carry(&deleted.task).await;
    assert_eq!(done.state, TaskState::Done);
    assert_eq!(
        used(&world, owner).await,
        amounts(&[("images", 1), ("keypairs", 1)]),
        "in the commit that removes it"
    );
    cloud.delete_keypair(&member, key.id()).await.unwrap();
    let gone = cloud.delete_image(&member, image_id).await.unwrap();
    Engine::new(&world).await.carry(&gone.task.unwrap()).await;
    assert_eq!(used(&world, owner).await, amounts(&[]));
}

#[tokio::test]
async fn a_create_that_fails_is_charged_until_its_server_is_deleted() {
    let (world, member, image_id) = ready().await;
    let owner = Owner::Project(member.project);
    let made = world
        .cloud
        .create_server(&member, plain("s", image_id))
        .await
        .unwrap();
    world.cloud.cancel_task(&member, made.task.id).await.unwrap();
    let ended = Engine::new(&world).await.carry(&made.task).await;
    assert_eq!(ended.state, TaskState::Cancelled);
    assert_eq!(used(&world, owner).await["servers"], 1, "its record is there");
    let deleted = world
        .cloud
        .delete_server(&member, made.server.id())
        .await
        .unwrap();
    Engine::new(&world).await.carry(&deleted.task).await;
    assert_eq!(used(&world, owner).await, amounts(&[("images", 1)]));
}

#[tokio::test]
async fn beyond_a_limit_the_error_and_the_dry_run_say_what_is_in_the_way() {
    let (world, member, image_id) = ready().await;
    let owner = Owner::Project(member.project);
    limit(&world, owner, "servers", 2).await;
    let cloud = &world.cloud;
    let make = async |name: &str| cloud.create_server(&member, plain(name, image_id)).await;
    make("a").await.unwrap();
    let shown = previewed(cloud.create_server(&dry(&member), plain("b", image_id)).await);
    let servers = shown.quota.iter().find(|q| q.resource == "servers").unwrap();
    assert_eq!((servers.used, servers.asked, servers.limit), (1, 1, Some(2)));
    assert_eq!(
        used(&world, owner).await["servers"],
        1,
        "a dry run charges nothing"
    );
    make("b").await.unwrap();
    let before = world.documents("").await;
    for refused in [
        make("c").await.unwrap_err(),
        cloud
            .create_server(&dry(&member), plain("c", image_id))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(
            (refused.kind(), refused.code()),
            (ErrorKind::Conflict, "quota.exceeded")
        );
        let message = &refused.reason().message;
        assert!(message.contains("servers is 2, 2 used, 1 asked for"), "{message}");
    }
    assert_eq!(world.documents("").await, before);

    // The domain's limit counts what its projects have together.
    let domain = Owner::Domain(DEFAULT_DOMAIN);
    limit(&world, owner, "servers", 100).await;
    limit(&world, domain, "servers", 3).await;
    cloud.recount_quotas(&world.admin().await).await.unwrap();
    assert_eq!(used(&world, domain).await["servers"], 2);
    make("c").await.unwrap();
    let refused = make("d").await.unwrap_err();
    assert!(refused.reason().message.contains("domain's quota"), "{refused}");
}

/// A plan that was shown is applied although others of the project were charged meanwhile.
#[tokio::test]
async fn no_plan_is_out_of_date_for_what_else_was_charged() {
    let (world, member, image_id) = ready().await;
    let shown = previewed(
        world
            .cloud
            .create_server(&dry(&member), plain("planned", image_id))
            .await,
    );
    world.cloud.create_keypair(&member, keypair("k")).await.unwrap();
    let applied = world
        .cloud
        .apply_plan(&member, shown.plan.unwrap())
        .await
        .unwrap();
    assert_eq!(applied.task.flow, "server.create");
    let used = used(&world, Owner::Project(member.project)).await;
    assert_eq!((used["servers"], used["keypairs"]), (1, 1));
}

#[tokio::test]
async fn counting_anew_puts_right_what_is_written_and_says_so() {
    let (world, member, image_id) = ready().await;
    let admin = world.admin().await;
    world
        .cloud
        .create_server(&member, plain("s", image_id))
        .await
        .unwrap();
    assert_eq!(world.cloud.recount_quotas(&admin).await.unwrap(), []);
    let owner = Owner::Project(member.project);
    let at = crate::world::key(&ledger_path(owner));
    let broken = skyloom_store::Value::json(&serde_json::json!({"used": {"servers": 7}})).unwrap();
    world
        .store
        .commit(skyloom_store::Txn::new().put(at, broken))
        .await
        .unwrap();
    let found = world.cloud.recount_quotas(&admin).await.unwrap();
    let servers = found.iter().find(|c| c.resource == of("servers")).unwrap();
    assert_eq!((servers.owner, servers.was, servers.is), (owner, 7, 1));
    assert_eq!(used(&world, owner).await["ports"], 1);
    assert_eq!(world.cloud.recount_quotas(&admin).await.unwrap(), []);
    let refused = world.cloud.recount_quotas(&member).await.unwrap_err();
    assert_eq!(refused.code(), "auth.forbidden");
}

#[tokio::test]
async fn each_change_is_told_in_its_commit_and_nothing_else_is() {
    let (mut world, member, image_id) = ready().await;
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let (audit, _writer) = StoreAudit::new(world.store.clone(), clock, world.ids.clone());
    world.cloud = world.cloud.clone().with_audit(Arc::new(audit));
    let (cloud, admin) = (&world.cloud, world.admin().await);
    let told = async || -> Vec<Entry> {
        let all = world.documents("audit").await;
        all.values()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect()
    };
    let caller = Caller {
        source: Some("192.0.2.7".parse().unwrap()),
        ..member.clone()
    };
    previewed(cloud.create_server(&dry(&caller), plain("s", image_id)).await);
    cloud
        .get_server(&caller, skyloom_model::ServerId::from_uuid(uuid::Uuid::nil()))
        .await
        .unwrap_err();
    assert_eq!(told().await, [], "neither looks nor dry runs");

    let made = cloud.create_server(&caller, plain("s", image_id)).await.unwrap();
    let entries = told().await;
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(entry.action.as_str(), "server:create");
    assert_eq!(entry.object.id, Some(made.server.meta.id));
    assert_eq!(entry.object.name.as_ref().unwrap().as_str(), "s");
    assert_eq!((entry.task, entry.source), (Some(made.task.id), caller.source));
    assert_eq!(entry.actor.user, Some(caller.rights.principal.user));
    assert_eq!(entry.request_id.as_str(), caller.request_id);

    cloud.create_keypair(&caller, keypair("k")).await.unwrap();
    cloud.create_keypair(&caller, keypair("k")).await.unwrap_err();
    cloud.cancel_task(&caller, made.task.id).await.unwrap();
    cloud
        .create_flavor(&admin, crate::facade::flavor("big"))
        .await
        .unwrap();
    cloud.create_image(&admin, image("mine")).await.unwrap();
    let stopped = cloud
        .stop_server(&caller, made.server.id(), StopOptions::default())
        .await;
    assert!(stopped.is_err(), "it is busy");
    let mut actions: Vec<String> = told().await.iter().map(|e| e.action.to_string()).collect();
    actions.sort();
    assert_eq!(
        actions,
        [
            "flavor:create",
            "image:create",
            "keypair:create",
            "server:create",
            "task:cancel"
        ]
    );
}
