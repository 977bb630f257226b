//! Each method of the facade takes its own permission and no other; conditions on labels hold; lists are cut.

mod conditions;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use skyloom_cloud::{
    Caller, Cloud, CloudError, CreateHost, CreateProject, CreateServer, CreateToken, ErrorKind, EventQuery,
    PatchHost, PlacementQuery, StopOptions, SweepHost, TaskQuery,
};
use skyloom_identity::{
    AuthScope, BuiltIn, Object, PERMISSIONS, Place, Policy, Registry, Rights, RoleId, RoleSpec, RuleSpec,
    When,
};
use skyloom_model::{
    FlavorId, HostId, ImageId, KeypairId, OrderVerb, PortId, ProjectId, Resource as _, ServerId, TaskId,
    TokenHolder, TokenId,
};
use uuid::Uuid;

use crate::engine::active_image;
use crate::facade::{flavor, keypair};
use crate::world::{World, bytes, caller, image, list, server, with_rights};

/// Somebody with one role of our own.
fn holder(scope: AuthScope, rules: Vec<RuleSpec>, project: ProjectId) -> Caller {
    let registry = Arc::new(Registry::new(&[PERMISSIONS]).unwrap());
    let id = RoleId::from_uuid(Uuid::from_u128(0xABC));
    let policy = Policy::builder(registry)
        .built_in()
        .unwrap()
        .custom(id, "ours", &RoleSpec { rules })
        .unwrap()
        .build()
        .unwrap();
    let mut rights = Rights::built_in(scope, BuiltIn::Reader).unwrap();
    let principal = Arc::make_mut(&mut rights.principal);
    principal.roles = Arc::new([id].into());
    rights.rules = Arc::new(policy);
    with_rights("holder", rights, project)
}

type Call = for<'a> fn(&'a Cloud, &'a Caller, &'a Made) -> BoxFuture<'a, Result<(), CloudError>>;

/// What the calls are about. All of it is there.
struct Made {
    project: ProjectId,
    server: ServerId,
    task: TaskId,
    image: ImageId,
    keypair: KeypairId,
    port: PortId,
    host: HostId,
    flavor: FlavorId,
    token: TokenId,
}

macro_rules! call {
    ($cloud:ident, $caller:ident, $made:ident, $call:expr) => {
        |$cloud, $caller, $made| {
            let _ = &$made;
            async move { $call.await.map(drop) }.boxed()
        }
    };
}

fn of_flavor(flavor: FlavorId) -> PlacementQuery {
    PlacementQuery {
        flavor: Some(flavor.to_string()),
        ..PlacementQuery::default()
    }
}

/// Each call with the permissions that it takes.
const CALLS: &[(&[&str], Call)] = &[
    (
        &["server:create", "flavor:read", "image:read"],
        call!(
            cloud,
            caller,
            made,
            cloud.create_server(caller, plain("n", made.image))
        ),
    ),
    (
        &["server:read"],
        call!(cloud, caller, made, cloud.list_servers(caller, &list())),
    ),
    (
        &["server:read"],
        call!(cloud, caller, made, cloud.get_server(caller, made.server)),
    ),
    (
        &["server:start"],
        call!(cloud, caller, made, cloud.start_server(caller, made.server)),
    ),
    (
        &["server:stop"],
        call!(
            cloud,
            caller,
            made,
            cloud.stop_server(caller, made.server, StopOptions::default())
        ),
    ),
    (
        &["server:reboot"],
        call!(
            cloud,
            caller,
            made,
            cloud.reboot_server(caller, made.server, StopOptions::default())
        ),
    ),
    (
        &["server:delete"],
        call!(cloud, caller, made, cloud.delete_server(caller, made.server)),
    ),
    (
        &["server:console"],
        call!(cloud, caller, made, cloud.console_tail(caller, made.server, 1)),
    ),
    (
        &["server:console"],
        call!(cloud, caller, made, cloud.screenshot(caller, made.server)),
    ),
    (
        &["server:placement"],
        call!(cloud, caller, made, cloud.server_placement(caller, made.server)),
    ),
    (
        &["server:placement", "flavor:read"],
        call!(
            cloud,
            caller,
            made,
            cloud.explain_placement(caller, &of_flavor(made.flavor))
        ),
    ),
    (
        &["host:read", "flavor:read"],
        call!(
            cloud,
            caller,
            made,
            cloud.forecast_placement(caller, &of_flavor(made.flavor))
        ),
    ),
    (
        &["host:read", "flavor:read"],
        call!(
            cloud,
            caller,
            made,
            cloud.test_placement(caller, &of_flavor(made.flavor))
        ),
    ),
    (
        &["flavor:read"],
        call!(cloud, caller, made, cloud.list_flavors(caller, &list())),
    ),
    (
        &["flavor:read"],
        call!(cloud, caller, made, cloud.get_flavor(caller, made.flavor)),
    ),
    (
        &["flavor:create"],
        call!(cloud, caller, made, cloud.create_flavor(caller, flavor("f"))),
    ),
    (
        &["flavor:delete"],
        call!(cloud, caller, made, cloud.delete_flavor(caller, made.flavor)),
    ),
    (
        &["image:read"],
        call!(cloud, caller, made, cloud.list_images(caller, &list())),
    ),
    (
        &["image:read"],
        call!(cloud, caller, made, cloud.get_image(caller, made.image)),
    ),
    (
        &["image:create"],
        call!(cloud, caller, made, cloud.create_image(caller, image("i"))),
    ),
    (
        &["image:create", "image:publish"],
        call!(cloud, caller, made, {
            let mut public = image("p");
            public.public = true;
            cloud.create_image(caller, public)
        }),
    ),
    (
        &["image:upload"],
        call!(
            cloud,
            caller,
            made,
            cloud.upload_image(caller, made.image, bytes(b"x"), None)
        ),
    ),
    (
        &["image:download"],
        call!(cloud, caller, made, cloud.open_image(caller, made.image)),
    ),
    (
        &["image:delete"],
        call!(cloud, caller, made, cloud.delete_image(caller, made.image)),
    ),
    (
        &["keypair:read"],
        call!(cloud, caller, made, cloud.list_keypairs(caller, &list())),
    ),
    (
        &["keypair:read"],
        call!(cloud, caller, made, cloud.get_keypair(caller, made.keypair)),
    ),
    (
        &["keypair:create"],
        call!(cloud, caller, made, cloud.create_keypair(caller, keypair("k2"))),
    ),
    (
        &["keypair:delete"],
        call!(cloud, caller, made, cloud.delete_keypair(caller, made.keypair)),
    ),
    (
        &["port:read"],
        call!(cloud, caller, made, cloud.list_ports(caller, &list())),
    ),
    (
        &["port:read"],
        call!(cloud, caller, made, cloud.get_port(caller, made.port)),
    ),
    (
        &["host:read"],
        call!(cloud, caller, made, cloud.list_hosts(caller, &list())),
    ),
    (
        &["host:read"],
        call!(cloud, caller, made, cloud.get_host(caller, made.host)),
    ),
    (
        &["host:create"],
        call!(
            cloud,
            caller,
            made,
            cloud.create_host(
                caller,
                CreateHost {
                    name: "h2".to_owned(),
                    ..CreateHost::default()
                }
            )
        ),
    ),
    (
        &["host:update"],
        call!(
            cloud,
            caller,
            made,
            cloud.patch_host(caller, made.host, PatchHost::default())
        ),
    ),
    (
        &["host:delete"],
        call!(cloud, caller, made, cloud.delete_host(caller, made.host)),
    ),
    (
        &["host:sweep"],
        call!(
            cloud,
            caller,
            made,
            cloud.sweep_host(caller, made.host, SweepHost { remove: false })
        ),
    ),
    (
        &["task:read"],
        call!(
            cloud,
            caller,
            made,
            cloud.list_tasks(caller, &TaskQuery::default())
        ),
    ),
    (
        &["task:read"],
        call!(cloud, caller, made, cloud.get_task(caller, made.task)),
    ),
    (
        &["task:read"],
        call!(cloud, caller, made, cloud.task_detail(caller, made.task)),
    ),
    (
        &["task:cancel"],
        call!(cloud, caller, made, cloud.cancel_task(caller, made.task)),
    ),
    (
        &["task:retry"],
        call!(
            cloud,
            caller,
            made,
            cloud.order_task(caller, made.task, OrderVerb::Retry, "why")
        ),
    ),
    (
        &["task:skip"],
        call!(
            cloud,
            caller,
            made,
            cloud.order_task(caller, made.task, OrderVerb::Skip, "why")
        ),
    ),
    (
        &["task:abandon"],
        call!(
            cloud,
            caller,
            made,
            cloud.order_task(caller, made.task, OrderVerb::Abandon, "why")
        ),
    ),
    (
        &["event:read"],
        call!(
            cloud,
            caller,
            made,
            cloud.list_events(caller, &EventQuery::default())
        ),
    ),
    (
        &["plan:read"],
        call!(cloud, caller, made, cloud.list_plans(caller, &list())),
    ),
    (
        &["hold:read"],
        call!(cloud, caller, made, cloud.hold_status(caller)),
    ),
    (
        &["hold:set"],
        call!(cloud, caller, made, cloud.set_hold(caller, "why")),
    ),
    (
        &["hold:adopt"],
        call!(cloud, caller, made, cloud.adopt_guests(caller)),
    ),
    (
        &["hold:release"],
        call!(cloud, caller, made, cloud.release_hold(caller, true)),
    ),
    (
        &["project:read"],
        call!(cloud, caller, made, cloud.list_projects(caller, &list())),
    ),
    (
        &["project:read"],
        call!(cloud, caller, made, cloud.get_project(caller, made.project)),
    ),
    (
        &["project:create"],
        call!(
            cloud,
            caller,
            made,
            cloud.create_project(
                caller,
                CreateProject {
                    name: "p2".to_owned(),
                    ..Default::default()
                }
            )
        ),
    ),
    (
        &["token:read"],
        call!(cloud, caller, made, cloud.list_tokens(caller, &list())),
    ),
    (
        &["token:create", "host:create"],
        call!(cloud, caller, made, {
            let holder = TokenHolder::Agent { host: made.host };
            cloud.create_token(caller, CreateToken::new("t", holder))
        }),
    ),
    (
        &["token:delete"],
        call!(cloud, caller, made, cloud.delete_token(caller, made.token)),
    ),
];

/// Something of every kind, in a new cloud.
async fn furnished() -> (World, Made) {
    let mut world = World::new();
    let admin = world.admin().await;
    let host = world.host(&admin, "h").await;
    let image = active_image(&world, &admin).await;
    let made = world
        .cloud
        .create_server(&admin, plain("s", image))
        .await
        .unwrap();
    let key = world.cloud.create_keypair(&admin, keypair("k")).await.unwrap();
    let flavors = world.cloud.list_flavors(&admin, &list()).await.unwrap().items;
    let tokens = world.cloud.list_tokens(&admin, &list()).await.unwrap().items;
    let made = Made {
        project: admin.project,
        server: made.server.id(),
        task: made.task.id,
        image,
        keypair: key.id(),
        port: made.server.spec.ports[0],
        host,
        flavor: flavors
            .iter()
            .find(|f| f.meta.name.as_str() != "m1.tiny")
            .unwrap()
            .id(),
        token: tokens[0].id(),
    };
    (world, made)
}

fn refused(result: &Result<(), CloudError>) -> bool {
    matches!(result, Err(e) if matches!(e.kind(), ErrorKind::Denied))
}

fn hidden(result: &Result<(), CloudError>) -> bool {
    matches!(result, Err(e) if e.kind() == ErrorKind::NotFound)
}

/// Whoever has all permissions but one that a call takes does not make it; whoever has those alone does.
#[tokio::test]
async fn each_call_takes_its_permission_and_no_other() {
    for (number, (needs, call)) in CALLS.iter().enumerate() {
        let (world, made) = furnished().await;
        for missing in *needs {
            let rule = RuleSpec::allowing(&["*", &format!("!{missing}")]);
            let lame = holder(AuthScope::System, vec![rule], made.project);
            let before = world.documents("").await;
            let result = call(&world.cloud, &lame, &made).await;
            let named = matches!(&result, Err(e) if e.code().ends_with(".not_found"));
            assert!(
                refused(&result) || hidden(&result) || named,
                "call {number} without {missing}: {result:?}"
            );
            if refused(&result) {
                let error = result.unwrap_err();
                assert_eq!(error.code(), "auth.forbidden");
                assert!(error.reason().message.contains(missing), "{error}");
            }
            assert_eq!(
                world.documents("").await,
                before,
                "call {number}: nothing happened"
            );
        }
        let able = holder(AuthScope::System, vec![RuleSpec::allowing(needs)], made.project);
        let result = call(&world.cloud, &able, &made).await;
        assert!(
            !refused(&result) && !hidden(&result),
            "call {number} with {needs:?} alone: {result:?}"
        );
    }
}

/// Somebody with every permission in another project sees nothing and changes nothing here.
#[tokio::test]
async fn what_is_of_another_project_is_not_there() {
    let (world, made) = furnished().await;
    let admin = world.admin().await;
    let stranger = world.member(&admin, "other").await;
    let before = world.documents("r").await;
    for (number, (needs, call)) in CALLS.iter().enumerate() {
        if !["server", "keypair", "port", "task"].contains(&needs[0].split(':').next().unwrap()) {
            continue;
        }
        if let Err(error) = call(&world.cloud, &stranger, &made).await {
            let known = ["keypair:create"].contains(&needs[0]);
            assert!(!known, "call {number}: {error}");
        }
    }
    let after = world.documents("r").await;
    assert!(before.iter().all(|(key, text)| after.get(key) == Some(text)));
}

/// Without a password, whose hash takes its time.
fn plain(name: &str, image: ImageId) -> CreateServer {
    CreateServer {
        config_drive: Some(false),
        ..server(name, image)
    }
}
