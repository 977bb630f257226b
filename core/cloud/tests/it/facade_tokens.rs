//! A first start, tokens and roles.

use std::collections::BTreeSet;
use std::time::Duration;

use skyloom_cloud::{CreateProject, CreateToken, ErrorKind};
use skyloom_model::{Clock as _, HostId, Resource as _, Role, ServerId, TokenId};
use uuid::Uuid;

use crate::facade::{flavor, keypair};
use crate::world::{World, caller, list};

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
