//! A first start, and tokens of the cloud's own machines.

use std::collections::BTreeSet;

use skyloom_cloud::CreateToken;
use skyloom_identity::{AuthScope, BuiltIn, Rights, SecretHash};
use skyloom_model::{Clock as _, HostId, Resource as _, TokenHolder};
use uuid::Uuid;

use crate::world::{World, list, with_rights};

#[tokio::test]
async fn a_first_start_makes_project_and_flavors_once() {
    let world = World::new();
    let (a, b, c) = tokio::join!(
        world.cloud.bootstrap(),
        world.cloud.bootstrap(),
        world.cloud.bootstrap()
    );
    let all = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert!(all.iter().all(|b| b.project.id() == all[0].project.id()));
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
    let claims = world.documents("identity/names/project").await;
    assert_eq!(claims.len(), 1, "the name is identity's, too: {claims:?}");
}

#[tokio::test]
async fn deleted_default_flavors_stay_deleted() {
    let world = World::new();
    let admin = world.admin().await;
    let mut flavors = world.cloud.list_flavors(&admin, &list()).await.unwrap().items;
    world
        .cloud
        .delete_flavor(&admin, flavors.remove(0).id())
        .await
        .unwrap();
    world.cloud.bootstrap().await.unwrap();
    let left = world.cloud.list_flavors(&admin, &list()).await.unwrap().items;
    assert_eq!(left.len(), 3);
}

#[tokio::test]
async fn tokens_of_machines_are_shown_once_kept_as_hashes_and_taken_back() {
    let world = World::new();
    let admin = world.admin().await;
    let ask = |holder| CreateToken::new("e", holder);
    let made = world
        .cloud
        .create_token(&admin, ask(TokenHolder::Engine))
        .await
        .unwrap();
    let secret = made.secret.unwrap();
    assert_eq!(made.token.spec.hint, &secret.expose()[..8]);
    let all = world.documents("").await;
    assert!(
        all.iter()
            .all(|(k, v)| !k.contains(secret.expose()) && !v.contains(secret.expose()))
    );
    let hash = SecretHash::of(secret.expose());
    let kept = world.documents("identity/tokens").await;
    assert!(kept.values().all(|token| token.contains(hash.as_str())));
    let listed = world.cloud.list_tokens(&admin, &list()).await.unwrap().items;
    assert_eq!(listed, std::slice::from_ref(&made.token));

    world.cloud.delete_token(&admin, made.token.id()).await.unwrap();
    assert!(world.documents("identity/tokens").await.is_empty());
    let gone = world.cloud.delete_token(&admin, made.token.id()).await;
    assert_eq!(gone.unwrap_err().code(), "token.not_found");

    let refused = async |holder| world.cloud.create_token(&admin, ask(holder)).await.unwrap_err();
    let host = HostId::from_uuid(Uuid::from_u128(1));
    assert_eq!(
        refused(TokenHolder::Agent { host }).await.code(),
        "host.not_found"
    );
    let user = Uuid::from_u128(1);
    assert_eq!(
        refused(TokenHolder::User { user }).await.code(),
        "token.holder_invalid"
    );
    let late = CreateToken {
        expires_at: Some(world.clock.now()),
        ..ask(TokenHolder::Engine)
    };
    let late = world.cloud.create_token(&admin, late).await.unwrap_err();
    assert_eq!(late.code(), "token.expired");
}

/// An engine's token is the whole store: who may make tokens and not use the store makes none.
#[tokio::test]
async fn nobody_makes_a_token_that_may_do_more_than_they() {
    let world = World::new();
    let project = world.admin().await.project;
    let rights = Rights::built_in(AuthScope::System, BuiltIn::Operator).unwrap();
    let operator = with_rights("operator", rights, project);
    for holder in [
        TokenHolder::Engine,
        TokenHolder::Agent {
            host: HostId::from_uuid(Uuid::nil()),
        },
    ] {
        let refused = world
            .cloud
            .create_token(&operator, CreateToken::new("t", holder))
            .await;
        assert_eq!(refused.unwrap_err().code(), "auth.forbidden");
    }
}
