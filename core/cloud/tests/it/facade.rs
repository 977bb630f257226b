//! Names, hosts, projects; what happens once.

use std::time::Duration;

use skyloom_cloud::{Caller, CreateFlavor, CreateHost, CreateKeypair, CreateProject, ErrorKind, PatchHost};
use skyloom_model::{Claim, Resource as _, Resources, ServerId, TokenHolder, paths};
use skyloom_store::{Txn, Value};
use uuid::Uuid;

use crate::world::{World, key, list, with_key};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me@laptop";

pub(crate) fn flavor(name: &str) -> CreateFlavor {
    CreateFlavor {
        name: name.to_owned(),
        vcpus: 1,
        memory_mib: 64,
        disk_gib: 1,
        host_labels: Default::default(),
    }
}

pub(crate) fn keypair(name: &str) -> CreateKeypair {
    CreateKeypair {
        name: name.to_owned(),
        public_key: KEY.to_owned(),
    }
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
    let tokens = || async { world.cloud.list_tokens(&admin, &list()).await.unwrap().items };
    assert_eq!(tokens().await[0].spec.holder, TokenHolder::Agent { host: id });
    assert!(secret.expose().starts_with(&tokens().await[0].spec.hint));
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
        scope: None,
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
    assert_eq!(tokens().await, [], "its agent is out");
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
        ..Default::default()
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
    world
        .cloud
        .create_keypair(&with_key(&admin, "old"), keypair("a"))
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(world.cloud.forget_old().await.unwrap(), 0);
    world.clock.advance(Duration::from_secs(1));
    world
        .cloud
        .create_keypair(&with_key(&admin, "young"), keypair("b"))
        .await
        .unwrap();
    assert_eq!(world.cloud.forget_old().await.unwrap(), 1);
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
