//! Servers at the facade: what one request writes, what it refuses, what happens once.

use std::collections::BTreeMap;

use skyloom_cloud::{
    Caller, CreateFlavor, CreateKeypair, CreateServer, ErrorKind, NetworkRequest, PlacementQuery, StopOptions,
};
use skyloom_model::{ImageId, Lifecycle, Resource as _, Secret, ServerId, ServerSecrets, TaskState, paths};
use skyloom_scheduler::fleet::Lack;
use skyloom_store::{ListOptions, Prefix, Revision};
use uuid::Uuid;

use crate::engine::{Engine, active_image};
use crate::world::{World, key, list, server, with_key};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl";

async fn revision(world: &World) -> Revision {
    world
        .store
        .list(&Prefix::all(), ListOptions::default().with_limit(1))
        .await
        .unwrap()
        .revision
}

async fn ready() -> (World, Caller, ImageId) {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let image = active_image(&world, &member).await;
    (world, member, image)
}

#[tokio::test]
async fn one_request_is_one_commit_and_the_password_is_nowhere() {
    let (world, member, image) = ready().await;
    let before = (revision(&world).await, world.documents("").await);
    let made = world
        .cloud
        .create_server(&with_key(&member, "k"), server("My Web", image))
        .await
        .unwrap();
    assert_eq!(revision(&world).await, Revision(before.0.0 + 1));
    let (id, task) = (made.server.id(), &made.task);
    let after = world.documents("").await;
    let new: Vec<&String> = after.keys().filter(|k| !before.1.contains_key(*k)).collect();
    let project = member.project;
    let port = made.server.spec.ports[0];
    let below = |area: &str| new.iter().find(|k| k.starts_with(area)).unwrap().to_string();
    let mut expected = [
        paths::active(task.id),
        below("events/"),
        below("idempotency/"),
        paths::resource("ports", member.scope(), port.uuid()),
        paths::resource("servers", member.scope(), id.uuid()),
        paths::server_secrets(project, id),
        paths::task(member.scope(), task.id),
    ];
    expected.sort();
    assert_eq!(new, expected.iter().collect::<Vec<_>>());

    let password = made.password.as_ref().unwrap().expose();
    assert_eq!(password.len(), 23);
    assert!(
        after.values().all(|v| !v.contains(password)),
        "no record holds the password"
    );
    assert!(!format!("{made:?}").contains(password));
    let secrets: ServerSecrets = serde_json::from_str(&after[&paths::server_secrets(project, id)]).unwrap();
    let holders = after
        .values()
        .filter(|v| v.contains(&secrets.password_hash))
        .count();
    assert_eq!(holders, 1, "its hash is in one record");

    let server = &made.server;
    assert_eq!(server.status.lifecycle, Lifecycle::Building);
    assert_eq!(server.status.activity.as_ref().unwrap().task, task.id);
    assert_eq!(
        (server.meta.name.as_str(), server.spec.hostname.as_str()),
        ("My Web", "my-web")
    );
    assert!(server.spec.config_drive && server.spec.running);
    assert_eq!(task.request_id, "req-test");
}

#[tokio::test]
async fn every_check_has_its_code_and_changes_nothing() {
    let (world, member, image) = ready().await;
    let base = || server("s", image);
    let nic = |vnic_type: &str| {
        Some(vec![NetworkRequest {
            vnic_type: Some(vnic_type.to_owned()),
            ..NetworkRequest::default()
        }])
    };
    let admin = world.admin().await;
    let small = CreateFlavor {
        name: "nano".to_owned(),
        vcpus: 1,
        memory_mib: 64,
        disk_gib: 1,
        host_labels: BTreeMap::new(),
    };
    world.cloud.create_flavor(&admin, small).await.unwrap();
    let mut heavy = crate::world::image("heavy");
    heavy.min_memory_mib = 65;
    let heavy = world.cloud.create_image(&member, heavy).await.unwrap().image.id();
    let sent = world
        .cloud
        .upload_image(&member, heavy, crate::world::bytes(crate::world::DISK), None)
        .await
        .unwrap();
    Engine::new(&world).await.carry(&sent.task.unwrap()).await;

    let before = world.documents("").await;
    let cases: Vec<(&str, CreateServer)> = vec![
        ("name.missing", CreateServer { name: None, ..base() }),
        (
            "name.invalid",
            CreateServer {
                name: Some(" ".to_owned()),
                ..base()
            },
        ),
        (
            "hostname.invalid",
            CreateServer {
                hostname: Some("a_b".to_owned()),
                ..base()
            },
        ),
        (
            "password.weak",
            CreateServer {
                password: Some(Secret::new("short".to_owned())),
                ..base()
            },
        ),
        (
            "metadata.invalid",
            CreateServer {
                metadata: [("a b".to_owned(), String::new())].into(),
                ..base()
            },
        ),
        (
            "labels.invalid",
            CreateServer {
                labels: [(String::new(), String::new())].into(),
                ..base()
            },
        ),
        (
            "user_data.too_long",
            CreateServer {
                user_data: Some("x".repeat(65_537)),
                ..base()
            },
        ),
        (
            "group.invalid",
            CreateServer {
                anti_affinity_group: Some(String::new()),
                ..base()
            },
        ),
        (
            "config_drive.needed",
            CreateServer {
                config_drive: Some(false),
                user_data: Some("x".into()),
                ..base()
            },
        ),
        (
            "network.physical_function_refused",
            CreateServer {
                networks: nic("direct-physical"),
                ..base()
            },
        ),
        (
            "network.unsupported",
            CreateServer {
                networks: nic("macvtap"),
                ..base()
            },
        ),
        (
            "network.too_many",
            CreateServer {
                networks: Some(vec![NetworkRequest::default(); 9]),
                ..base()
            },
        ),
        (
            "keypair.not_found",
            CreateServer {
                keypairs: vec!["nope".to_owned()],
                ..base()
            },
        ),
        (
            "flavor.not_found",
            CreateServer {
                flavor: "nope".to_owned(),
                ..base()
            },
        ),
        (
            "flavor.invalid",
            CreateServer {
                flavor: String::new(),
                ..base()
            },
        ),
        (
            "image.not_found",
            CreateServer {
                image: Uuid::nil().to_string(),
                ..base()
            },
        ),
        (
            "image.needs_more_memory",
            CreateServer {
                image: "heavy".into(),
                flavor: "nano".into(),
                ..base()
            },
        ),
        (
            "request.invalid",
            CreateServer {
                flavor: String::new(),
                image: String::new(),
                ..base()
            },
        ),
    ];
    for (code, request) in cases {
        let error = world.cloud.create_server(&member, request).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, ErrorKind::Invalid));
        assert!(!error.wrong_fields().is_empty(), "{code}");
    }
    assert_eq!(world.documents("").await, before, "nothing was written");
}

#[tokio::test]
async fn a_given_password_is_not_shown_and_no_config_drive_has_none() {
    let (world, member, image) = ready().await;
    let given = Some(Secret::new("correct horse".to_owned()));
    let made = world
        .cloud
        .create_server(
            &member,
            CreateServer {
                password: given,
                ..server("a", image)
            },
        )
        .await
        .unwrap();
    assert_eq!(made.password, None);
    let plain = CreateServer {
        config_drive: Some(false),
        ..server("b", image)
    };
    let made = world.cloud.create_server(&member, plain).await.unwrap();
    assert_eq!(made.password, None);
    let path = paths::server_secrets(member.project, made.server.id());
    assert!(world.store.get(&key(&path)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_repeated_create_is_one_server_and_shows_no_password() {
    let (world, member, image) = ready().await;
    let keyed = with_key(&member, "once");
    let make = || async {
        world
            .cloud
            .create_server(&keyed, server("s", image))
            .await
            .unwrap()
    };
    let (a, b, c, d) = tokio::join!(make(), make(), make(), make());
    let all = [a, b, c, d];
    assert!(
        all.iter()
            .all(|m| m.server == all[0].server && m.task == all[0].task)
    );
    assert_eq!(all.iter().filter(|m| m.password.is_some()).count(), 1);
    assert_eq!(
        world
            .cloud
            .list_servers(&member, &list())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_eq!(world.documents("active").await.len(), 1);
    let other = world
        .cloud
        .create_server(&keyed, server("t", image))
        .await
        .unwrap_err();
    assert_eq!(other.code(), "idempotency.key_reused");
}

#[tokio::test]
async fn keypairs_and_nics_are_what_was_asked_for() {
    let (world, member, image) = ready().await;
    let request = CreateKeypair {
        name: "laptop".to_owned(),
        public_key: KEY.to_owned(),
    };
    let keypair = world.cloud.create_keypair(&member, request).await.unwrap();
    let request = CreateServer {
        keypairs: vec!["laptop".to_owned(), keypair.id().to_string()],
        networks: Some(vec![NetworkRequest::default(); 3]),
        ..server("s", image)
    };
    let made = world.cloud.create_server(&member, request).await.unwrap().server;
    assert_eq!(made.spec.ssh_keys, [KEY, KEY]);
    let ports = world.cloud.list_ports(&member, &list()).await.unwrap().items;
    let of = |id| ports.iter().find(|p| p.id() == id).unwrap();
    let ports: Vec<_> = made.spec.ports.iter().map(|id| of(*id)).collect();
    let addresses: Vec<String> = ports.iter().map(|p| p.spec.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.2.15", "10.0.2.16", "10.0.2.17"]);
    assert_eq!(ports.iter().filter(|p| p.spec.gateway.is_some()).count(), 1);
    assert!(
        ports
            .iter()
            .all(|p| p.spec.server == Some(made.id()) && !p.status.bound)
    );
}

#[tokio::test]
async fn actions_fit_the_state_and_come_one_at_a_time() {
    let (mut world, member, image) = ready().await;
    let admin = world.admin().await;
    world.host(&admin, "h1").await;
    let made = world
        .cloud
        .create_server(&member, server("s", image))
        .await
        .unwrap();
    let id = made.server.id();
    let busy = world.cloud.delete_server(&member, id).await.unwrap_err();
    assert_eq!(
        (busy.code(), busy.kind(), busy.reason().retryable),
        ("server.busy", ErrorKind::Conflict, true)
    );
    let mut engine = Engine::new(&world).await;
    assert_eq!(engine.carry(&made.task).await.state, TaskState::Done);
    let start = world.cloud.start_server(&member, id).await.unwrap_err();
    assert_eq!(start.code(), "server.wrong_power_state");
    let old = Caller {
        if_match: Some(Revision(1)),
        ..member.clone()
    };
    let stale = world
        .cloud
        .stop_server(&old, id, StopOptions::default())
        .await
        .unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::PreconditionFailed);
    let long = StopOptions {
        force: false,
        timeout_seconds: Some(3601),
    };
    assert_eq!(
        world
            .cloud
            .stop_server(&member, id, long)
            .await
            .unwrap_err()
            .code(),
        "timeout.invalid"
    );
    let stop = || async { world.cloud.stop_server(&member, id, StopOptions::default()).await };
    let (a, b) = tokio::join!(stop(), stop());
    let (done, refused): (Vec<_>, Vec<_>) = [a, b].into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (1, 1));
    assert_eq!(
        refused.into_iter().next().unwrap().unwrap_err().code(),
        "server.busy"
    );
    let other = world.member(&admin, "other").await;
    let foreign = world
        .cloud
        .stop_server(&other, id, StopOptions::default())
        .await
        .unwrap_err();
    let absent = world
        .cloud
        .stop_server(&other, ServerId::from_uuid(Uuid::nil()), StopOptions::default())
        .await;
    assert_eq!(foreign, absent.unwrap_err());
}

#[tokio::test]
async fn tasks_show_their_jobs_while_they_run_and_afterwards() {
    let (mut world, member, image) = ready().await;
    let admin = world.admin().await;
    let host = world.host(&admin, "rack-7").await;
    let made = world
        .cloud
        .create_server(&member, server("s", image))
        .await
        .unwrap();
    let task = made.task.id;
    assert_eq!(
        world.cloud.task_detail(&member, task).await.unwrap().value.plan,
        None
    );
    let mut engine = Engine::new(&world).await;
    engine.drive(&made.task).await;
    let live = world.cloud.task_detail(&member, task).await.unwrap().value;
    let begun: Vec<&str> = live.jobs.iter().map(|j| j.spec.id.as_str()).collect();
    assert_eq!(begun, ["image.cache", "disk.seed"]);
    engine.carry(&made.task).await;
    let ended = world.cloud.task_detail(&member, task).await.unwrap().value;
    assert_eq!(ended.jobs.len(), ended.plan.as_ref().unwrap().jobs.len());

    let id = made.server.id();
    let operator = Caller {
        project: member.project,
        ..admin.clone()
    };
    let operator = world.cloud.server_placement(&operator, id).await.unwrap();
    let tenant = world.cloud.server_placement(&member, id).await.unwrap();
    assert_eq!((operator.task, tenant.task), (Some(task), Some(task)));
    let host = host.to_string();
    assert!(operator.placement.unwrap().to_string().contains(&host));
    let tenant = tenant.placement.unwrap();
    assert!(
        !tenant.to_string().contains(&host) && !tenant.to_string().contains("rack-7"),
        "{tenant}"
    );
    assert_eq!(tenant["considered"], 1);
    let plan = ended.plan.unwrap().placement.unwrap();
    assert_eq!(plan, tenant, "the plan says no more than that");

    let late = world.cloud.cancel_task(&member, task).await.unwrap_err();
    assert_eq!((late.code(), late.kind()), ("task.ended", ErrorKind::Conflict));
    let other = world.member(&admin, "other").await;
    assert_eq!(
        world.cloud.task_detail(&other, task).await.unwrap_err().code(),
        "task.not_found"
    );
    assert_eq!(
        world.cloud.cancel_task(&other, task).await.unwrap_err().code(),
        "task.not_found"
    );
}

#[tokio::test]
async fn without_a_host_the_server_says_why() {
    let (world, member, image) = ready().await;
    let made = world
        .cloud
        .create_server(&member, server("s", image))
        .await
        .unwrap();
    let task = Engine::new(&world).await.carry(&made.task).await;
    assert_eq!(
        (task.state, task.reason.unwrap().code.as_str()),
        (TaskState::Failed, "placement.no_host")
    );
    let failed = world
        .cloud
        .get_server(&member, made.server.id())
        .await
        .unwrap()
        .value;
    assert_eq!(failed.status.lifecycle, Lifecycle::Error);
    let fault = failed.status.fault.unwrap();
    assert_eq!(fault.code, "placement.no_host");
    assert_eq!(fault.message, "no host can run this server: 0 hosts considered");
    assert_eq!(fault.hint.as_deref(), Some("add a host"));
    assert_eq!(failed.status.activity, None);
}

#[tokio::test]
async fn questions_about_placement_are_answered_and_name_hosts_to_nobody_but_operators() {
    let mut world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let image = active_image(&world, &member).await;
    let host = world.host(&admin, "rack-7").await.to_string();
    let huge = CreateFlavor {
        name: "huge".into(),
        vcpus: 1,
        memory_mib: 1 << 21,
        disk_gib: 1,
        host_labels: BTreeMap::new(),
    };
    world.cloud.create_flavor(&admin, huge).await.unwrap();
    let of = |flavor: &str| PlacementQuery {
        flavor: Some(flavor.into()),
        ..PlacementQuery::default()
    };
    let tenant = world.cloud.explain_placement(&member, &of("huge")).await.unwrap();
    assert!(!tenant.fits);
    let tiny = server("s", image).flavor;
    let flavors: Vec<&str> = tenant.fitting_flavors.iter().map(|f| f.as_str()).collect();
    assert!(flavors.contains(&tiny.as_str()) && !flavors.contains(&"huge"));
    assert_eq!(
        tenant.report.fallen[0].reason,
        "fewer than 2097152 MiB of memory left"
    );
    assert_eq!(tenant.report.for_tenant.len(), 1, "ask for less memory");
    let fits = world.cloud.explain_placement(&member, &of(&tiny)).await.unwrap();
    assert!(fits.fits && fits.fitting_flavors.is_empty());
    for answer in [&tenant, &fits] {
        let told = serde_json::to_string(answer).unwrap();
        assert!(!told.contains(&host) && !told.contains("rack-7"), "{told}");
    }
    let operator = world.cloud.explain_placement(&admin, &of("huge")).await.unwrap();
    assert_eq!(operator.report.nearest[0].name.as_str(), "rack-7");
    let Lack::Short { have, .. } = operator.report.nearest[0].lacks[0] else {
        panic!("{:?}", operator.report.nearest)
    };
    let half = CreateFlavor {
        name: "half".into(),
        vcpus: 1,
        memory_mib: u64::from(have) / 2,
        disk_gib: 1,
        host_labels: BTreeMap::new(),
    };
    world.cloud.create_flavor(&admin, half).await.unwrap();
    let missing = world
        .cloud
        .explain_placement(&member, &PlacementQuery::default())
        .await;
    assert_eq!(missing.unwrap_err().code(), "flavor.missing");

    let forecast = world
        .cloud
        .forecast_placement(&admin, &PlacementQuery::default())
        .await
        .unwrap();
    let counted: BTreeMap<&str, u64> = forecast
        .iter()
        .map(|f| (f.flavor.as_str(), f.forecast.servers))
        .collect();
    assert_eq!((counted["huge"], counted["half"]), (0, 2));
    let several = |servers| PlacementQuery {
        servers: Some(servers),
        ..of("half")
    };
    let tested = world.cloud.test_placement(&admin, &several(3)).await.unwrap();
    assert_eq!((tested.placed, tested.hosts[0].servers), (2, 2));
    assert_eq!(tested.report.unwrap().fitting, 0);
    let one = world.cloud.test_placement(&admin, &several(1)).await.unwrap();
    assert_eq!((one.placed, one.report), (1, None));
    for servers in [0, 1001] {
        let refused = world.cloud.test_placement(&admin, &several(servers)).await;
        assert_eq!(refused.unwrap_err().code(), "servers.out_of_range");
    }
    let ask = world
        .cloud
        .forecast_placement(&member, &PlacementQuery::default())
        .await;
    assert_eq!(ask.unwrap_err().kind(), ErrorKind::Denied);
    let ask = world.cloud.test_placement(&member, &several(1)).await;
    assert_eq!(ask.unwrap_err().kind(), ErrorKind::Denied);
}
