//! Callers, names, tokens, hosts, projects; what happens once.

use std::collections::BTreeSet;
use std::time::Duration;

use skyloom_cloud::{
    Caller, CreateFlavor, CreateHost, CreateKeypair, CreateProject, CreateToken, ErrorKind, PatchHost,
};
use skyloom_model::{Claim, Clock as _, HostId, Resource as _, Resources, Role, ServerId, TokenId, paths};
use skyloom_store::{Txn, Value};
use uuid::Uuid;

use crate::world::{World, caller, key, list, with_key};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me@laptop";

fn flavor(name: &str) -> CreateFlavor {
    CreateFlavor {
        name: name.to_owned(),
        vcpus: 1,
        memory_mib: 64,
        disk_gib: 1,
        host_labels: Default::default(),
    }
}

fn keypair(name: &str) -> CreateKeypair {
    CreateKeypair {
        name: name.to_owned(),
        public_key: KEY.to_owned(),
    }
}

#[tokio::test]
async fn a_first_start_makes_project_flavors_and_one_token() {
    let world = World::new();
    let (a, b, c) = tokio::join!(
        world.cloud.bootstrap(),
        world.cloud.bootstrap(),
        world.cloud.bootstrap()
    );
    let all = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert!(all.iter().all(|b| b.project.id() == all[0].project.id()));
    let secrets: Vec<_> = all.iter().filter_map(|b| b.token.as_ref()).collect();
    assert_eq!(secrets.len(), 1, "of three processes one got the token");
    let token = world
        .cloud
        .authenticate(secrets[0].expose())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        token.spec.role,
        Role::Admin {
            project: all[0].project.id()
        }
    );
    assert!(!format!("{:?}", all[0]).contains(secrets[0].expose()));
    let again = world.cloud.bootstrap().await.unwrap();
    assert_eq!(again.token, None);
    let admin = world.admin().await;
    let flavors = world.cloud.list_flavors(&admin, &list()).await.unwrap().items;
    let names: BTreeSet<_> = flavors.iter().map(|f| f.meta.name.to_string()).collect();
    assert_eq!(
        names,
        ["m1.large", "m1.medium", "m1.small", "m1.tiny"]
            .map(String::from)
            .into()
    );
    assert_eq!(flavors.len(), 4);
}

#[tokio::test]
async fn deleted_default_flavors_stay_deleted_and_a_lost_token_is_replaced() {
    let world = World::new();
    let admin = world.admin().await;
    let tiny = world
        .cloud
        .list_flavors(&admin, &list())
        .await
        .unwrap()
        .items
        .remove(0);
    world.cloud.delete_flavor(&admin, tiny.id()).await.unwrap();
    for token in world.cloud.list_tokens(&admin, &list()).await.unwrap().items {
        world.cloud.delete_token(&admin, token.id()).await.unwrap();
    }
    let (a, b) = tokio::join!(world.cloud.bootstrap(), world.cloud.bootstrap());
    let made = [a.unwrap().token, b.unwrap().token].into_iter().flatten().count();
    assert_eq!(made, 1);
    assert_eq!(
        world
            .cloud
            .list_flavors(&admin, &list())
            .await
            .unwrap()
            .items
            .len(),
        3
    );
}

#[tokio::test]
async fn tokens_open_doors_until_they_expire_or_are_taken_back() {
    let world = World::new();
    let admin = world.admin().await;
    let end = world
        .clock
        .now()
        .checked_add(jiff::SignedDuration::from_secs(60))
        .unwrap();
    let request = CreateToken {
        name: "ci".to_owned(),
        role: Role::Member {
            project: admin.project,
        },
        expires_at: Some(end),
    };
    let made = world.cloud.create_token(&admin, request.clone()).await.unwrap();
    let secret = made.secret.unwrap();
    assert_eq!(made.token.spec.hint, &secret.expose()[..8]);
    assert_eq!(
        world.cloud.authenticate(secret.expose()).await.unwrap().unwrap(),
        made.token
    );
    for wrong in [
        "",
        "sky_",
        &secret.expose()[..46],
        &secret.expose().to_uppercase(),
        &"sky_".repeat(100),
    ] {
        assert_eq!(world.cloud.authenticate(wrong).await.unwrap(), None, "{wrong}");
    }
    let all = world.documents("").await;
    assert!(
        all.iter()
            .all(|(k, v)| !k.contains(secret.expose()) && !v.contains(secret.expose()))
    );
    world.clock.advance(Duration::from_secs(59));
    assert!(world.cloud.authenticate(secret.expose()).await.unwrap().is_some());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.cloud.authenticate(secret.expose()).await.unwrap(), None);
    let error = world.cloud.create_token(&admin, request).await.unwrap_err();
    assert_eq!(error.code(), "token.expired");

    let request = CreateToken {
        name: "e".to_owned(),
        role: Role::Engine,
        expires_at: None,
    };
    let made = world.cloud.create_token(&admin, request).await.unwrap();
    let secret = made.secret.unwrap();
    world.cloud.delete_token(&admin, made.token.id()).await.unwrap();
    assert_eq!(world.cloud.authenticate(secret.expose()).await.unwrap(), None);
    let error = world
        .cloud
        .delete_token(&admin, made.token.id())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "token.not_found");
    let role = Role::Agent {
        host: HostId::from_uuid(Uuid::from_u128(1)),
    };
    let request = CreateToken {
        name: "a".to_owned(),
        role,
        expires_at: None,
    };
    assert_eq!(
        world
            .cloud
            .create_token(&admin, request)
            .await
            .unwrap_err()
            .code(),
        "host.not_found"
    );
}

#[tokio::test]
async fn roles_are_kept() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let reader = caller(
        Role::Reader {
            project: member.project,
        },
        member.project,
    );
    let engine = caller(Role::Engine, member.project);
    let agent = caller(
        Role::Agent {
            host: HostId::from_uuid(Uuid::nil()),
        },
        member.project,
    );
    let denied = |e: skyloom_cloud::CloudError| {
        assert_eq!((e.kind(), e.code()), (ErrorKind::Denied, "role.denied"));
    };
    for not_admin in [&member, &reader, &engine, &agent] {
        denied(
            world
                .cloud
                .create_flavor(not_admin, flavor("f"))
                .await
                .unwrap_err(),
        );
        denied(world.cloud.list_hosts(not_admin, &list()).await.unwrap_err());
        let project = CreateProject {
            name: "p".to_owned(),
            description: String::new(),
        };
        denied(world.cloud.create_project(not_admin, project).await.unwrap_err());
        denied(world.cloud.list_tokens(not_admin, &list()).await.unwrap_err());
        denied(
            world
                .cloud
                .delete_token(not_admin, TokenId::from_uuid(Uuid::nil()))
                .await
                .unwrap_err(),
        );
    }
    for not_writer in [&reader, &engine, &agent] {
        denied(
            world
                .cloud
                .create_keypair(not_writer, keypair("k"))
                .await
                .unwrap_err(),
        );
        let nobody = ServerId::from_uuid(Uuid::nil());
        denied(world.cloud.delete_server(not_writer, nobody).await.unwrap_err());
    }
    for not_user in [&engine, &agent] {
        denied(world.cloud.list_servers(not_user, &list()).await.unwrap_err());
    }
    assert!(
        world
            .cloud
            .list_servers(&reader, &list())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(world.cloud.create_keypair(&member, keypair("k")).await.is_ok());
}

#[tokio::test]
async fn what_belongs_to_another_project_is_not_there() {
    let world = World::new();
    let admin = world.admin().await;
    let (one, other) = (
        world.member(&admin, "one").await,
        world.member(&admin, "other").await,
    );
    let key = world.cloud.create_keypair(&one, keypair("k")).await.unwrap();
    let foreign = world.cloud.get_keypair(&other, key.id()).await.unwrap_err();
    let absent = world
        .cloud
        .get_keypair(&other, skyloom_model::KeypairId::from_uuid(Uuid::nil()))
        .await
        .unwrap_err();
    assert_eq!(foreign, absent, "not even the words differ");
    assert_eq!(foreign.kind(), ErrorKind::NotFound);
    assert_eq!(
        world.cloud.delete_keypair(&other, key.id()).await.unwrap_err(),
        absent
    );
    assert!(
        world
            .cloud
            .list_keypairs(&other, &list())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        world.cloud.create_keypair(&other, keypair("k")).await.is_ok(),
        "names are each project's own"
    );
    let picked = Caller {
        project: one.project,
        ..admin.clone()
    };
    assert_eq!(
        world.cloud.list_keypairs(&picked, &list()).await.unwrap().items,
        [key]
    );
}

#[tokio::test]
async fn a_unique_name_is_given_once_and_again_after_its_end() {
    let world = World::new();
    let admin = world.admin().await;
    let make = || async { world.cloud.create_flavor(&admin, flavor("big")).await };
    let (a, b, c) = tokio::join!(make(), make(), make());
    let results = [a, b, c];
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .flat_map(|r| r.as_ref().err())
            .all(|e| e.code() == "flavor.name_taken")
    );
    let made = results.into_iter().find_map(Result::ok).unwrap();
    let found = world.cloud.get_flavor(&admin, made.id()).await.unwrap();
    let stale = Caller {
        if_match: Some(skyloom_store::Revision(1)),
        ..admin.clone()
    };
    let error = world.cloud.delete_flavor(&stale, made.id()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
    let fresh = Caller {
        if_match: Some(found.modified),
        ..admin.clone()
    };
    world.cloud.delete_flavor(&fresh, made.id()).await.unwrap();
    assert!(make().await.is_ok());
}

#[tokio::test]
async fn hosts_come_with_a_token_and_go_only_when_empty() {
    let world = World::new();
    let admin = world.admin().await;
    let request = CreateHost {
        name: "h1".to_owned(),
        ..CreateHost::default()
    };
    let made = world
        .cloud
        .create_host(&with_key(&admin, "k1"), request.clone())
        .await
        .unwrap();
    let id = made.host.id();
    let secret = made.token.unwrap();
    let token = world.cloud.authenticate(secret.expose()).await.unwrap().unwrap();
    assert_eq!(token.spec.role, Role::Agent { host: id });
    let replay = world
        .cloud
        .create_host(&with_key(&admin, "k1"), request.clone())
        .await
        .unwrap();
    assert_eq!(
        (replay.host.id(), replay.token),
        (id, None),
        "the token is shown once"
    );
    assert_eq!(
        world.cloud.create_host(&admin, request).await.unwrap_err().code(),
        "host.name_taken"
    );
    let bad = CreateHost {
        name: "h2".to_owned(),
        cpu_ratio: Some(-1.0),
        ..CreateHost::default()
    };
    assert_eq!(
        world.cloud.create_host(&admin, bad).await.unwrap_err().code(),
        "host.ratio_invalid"
    );

    let patch = PatchHost {
        enabled: Some(false),
        memory_ratio: Some(1.5),
        ..PatchHost::default()
    };
    let host = world.cloud.patch_host(&admin, id, patch).await.unwrap();
    assert!(!host.spec.enabled);
    assert_eq!(
        (host.spec.memory_ratio, host.spec.cpu_ratio, host.meta.generation),
        (1.5, 4.0, 2)
    );

    let server = ServerId::from_uuid(Uuid::from_u128(5));
    let claim = Claim {
        server,
        resources: Resources::default(),
        group: None,
    };
    let at = key(&paths::claim(id, server));
    let txn = Txn::new().create(at.clone(), Value::json(&claim).unwrap());
    world.store.commit(txn).await.unwrap();
    let error = world.cloud.delete_host(&admin, id).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Conflict, "host.not_empty")
    );
    assert!(error.reason().message.contains(&server.to_string()));
    world.store.commit(Txn::new().delete(at)).await.unwrap();
    world.cloud.delete_host(&admin, id).await.unwrap();
    assert_eq!(
        world.cloud.authenticate(secret.expose()).await.unwrap(),
        None,
        "its agent is out"
    );
    assert!(world.documents("ledgers").await.is_empty());
    assert_eq!(
        world.cloud.get_host(&admin, id).await.unwrap_err().code(),
        "host.not_found"
    );
}

#[tokio::test]
async fn projects_are_found_by_id_and_by_name() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let by_name = world.cloud.find_project("shop").await.unwrap();
    assert_eq!(by_name.value.id(), member.project);
    assert_eq!(
        world
            .cloud
            .find_project(&member.project.to_string())
            .await
            .unwrap(),
        by_name
    );
    for absent in ["nope", "", "../x", &Uuid::nil().to_string()] {
        assert_eq!(
            world.cloud.find_project(absent).await.unwrap_err().code(),
            "project.not_found",
            "{absent}"
        );
    }
    let again = CreateProject {
        name: "shop".to_owned(),
        description: String::new(),
    };
    assert_eq!(
        world
            .cloud
            .create_project(&admin, again)
            .await
            .unwrap_err()
            .code(),
        "project.name_taken"
    );
}

#[tokio::test]
async fn a_key_makes_a_request_happen_once() {
    let world = World::new();
    let admin = world.admin().await;
    let member = world.member(&admin, "shop").await;
    let keyed = with_key(&member, "once");
    let first = world.cloud.create_keypair(&keyed, keypair("k")).await.unwrap();
    assert_eq!(
        world.cloud.create_keypair(&keyed, keypair("k")).await.unwrap(),
        first
    );
    let other_body = world
        .cloud
        .create_keypair(&keyed, keypair("other"))
        .await
        .unwrap_err();
    assert_eq!(
        (other_body.kind(), other_body.code()),
        (ErrorKind::Invalid, "idempotency.key_reused")
    );
    let other_verb = world.cloud.delete_keypair(&keyed, first.id()).await.unwrap_err();
    assert_eq!(other_verb.code(), "idempotency.key_reused");
    let someone = Caller {
        actor: skyloom_model::Actor {
            id: "x".to_owned(),
            name: "x".to_owned(),
        },
        ..keyed.clone()
    };
    let error = world
        .cloud
        .create_keypair(&someone, keypair("k"))
        .await
        .unwrap_err();
    assert_eq!(
        error.code(),
        "keypair.name_taken",
        "another caller's key is another key"
    );
    let gone = with_key(&member, "gone");
    for _ in 0..2 {
        world.cloud.delete_keypair(&gone, first.id()).await.unwrap();
    }
    let bad = with_key(&member, "a\nb");
    assert_eq!(
        world
            .cloud
            .create_keypair(&bad, keypair("z"))
            .await
            .unwrap_err()
            .code(),
        "idempotency.key_invalid"
    );
}

#[tokio::test]
async fn old_answers_are_forgotten_and_young_ones_kept() {
    let world = World::new();
    let admin = world.admin().await;
    let keep = jiff::SignedDuration::from_hours(24);
    world
        .cloud
        .create_keypair(&with_key(&admin, "old"), keypair("a"))
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(world.cloud.forget_answers(keep).await.unwrap(), 0);
    world.clock.advance(Duration::from_secs(1));
    world
        .cloud
        .create_keypair(&with_key(&admin, "young"), keypair("b"))
        .await
        .unwrap();
    assert_eq!(world.cloud.forget_answers(keep).await.unwrap(), 1);
    assert_eq!(world.documents("idempotency").await.len(), 1);
    assert!(
        world
            .cloud
            .create_keypair(&with_key(&admin, "young"), keypair("b"))
            .await
            .is_ok()
    );
    let anew = world
        .cloud
        .create_keypair(&with_key(&admin, "old"), keypair("a"))
        .await
        .unwrap_err();
    assert_eq!(anew.code(), "keypair.name_taken");
}
