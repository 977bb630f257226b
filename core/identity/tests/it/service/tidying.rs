//! First starts, and what goes on beside the calls.

use std::time::Duration;

use skyloom_identity::{AuthScope, BuiltIn, ChangeError, DEFAULT_DOMAIN, Doomed, Proof, ScopeAsked};
use skyloom_model::Secret;
use skyloom_store::Store as _;

use super::{PASSWORD, Site, call, log_in, password, rights};

#[tokio::test]
async fn of_many_that_start_at_once_one_shows_the_secrets() {
    let mut site = Site::new().await;
    let others = [site.another().await, site.another().await, site.another().await];
    let all = others
        .iter()
        .chain([&site.identity])
        .map(|identity| identity.bootstrap(None));
    let shown: Vec<_> = futures::future::join_all(all)
        .await
        .into_iter()
        .filter_map(|made| made.unwrap())
        .collect();
    assert_eq!(shown.len(), 1);
    let first = &shown[0];
    let proof = Proof::Password {
        user: skyloom_identity::UserRef::Id(first.user),
        password: Secret::new(first.password.expose().clone()),
    };
    for identity in others.iter().chain([&site.identity]) {
        let seen = identity
            .directory()
            .until(Duration::from_secs(5), |at| at.token(first.token_id).is_some());
        assert!(seen.await);
        let found = rights(identity, first.token.expose()).await.unwrap();
        assert_eq!(found.principal.scope, AuthScope::System);
        assert!(found.principal.roles.contains(&BuiltIn::Admin.id()));
    }
    log_in(&site.identity, vec![proof], ScopeAsked::System)
        .await
        .unwrap();
    // Later starts show nothing, and change nothing.
    assert!(site.identity.bootstrap(None).await.unwrap().is_none());
}

#[tokio::test]
async fn what_somebody_left_is_brought_to_its_end() {
    let site = Site::bootstrapped().await;
    let (anna, _) = site.member("anna").await;
    let at = site.identity.directory().snapshot();
    let edit = skyloom_identity::Edit::new(&at, &*site.ids, super::now(&site));
    let first = edit
        .removal(Doomed::User(anna), &site.store.capability())
        .unwrap()
        .unwrap();
    // Whoever began it dies here.
    site.store.commit(first).await.unwrap();
    let gone = site
        .identity
        .directory()
        .until(Duration::from_secs(20), |at| at.user(anna).is_none());
    assert!(gone.await);

    let session = log_in(
        &site.identity,
        vec![password("admin", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await;
    assert!(session.is_err());
}

#[tokio::test]
async fn tokens_that_were_taken_back_are_forgotten_after_their_end() {
    let site = Site::bootstrapped().await;
    site.member("anna").await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
    let root = site.root();
    site.identity.revoke(&call(&root), &session.claims).await.unwrap();
    let jti = session.claims.jti;
    assert!(site.identity.directory().snapshot().is_revoked(jti));
    site.later(3600);
    assert!(
        site.identity
            .directory()
            .until(Duration::from_secs(20), |at| !at.is_revoked(jti))
            .await
    );
    assert!(rights(&site.identity, session.token.expose()).await.is_err());
}

#[tokio::test]
async fn a_change_and_its_telling_are_one_commit() {
    let site = Site::bootstrapped().await;
    let root = site.root();
    let by = call(&root);
    let made = site.identity.change(
        &by,
        |edit| edit.create_group(DEFAULT_DOMAIN, "readers", |_| {}),
        |group| {
            skyloom_identity::Deed::new("group:create")
                .on(group.id.uuid())
                .named(&group.name)
                .in_domain(group.domain)
        },
    );
    let group = made.await.unwrap();
    let told = site.audit("group:create").await.items;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].object.id, Some(group.id.uuid()));
    assert_eq!(told[0].actor.user, Some(root.user));
    assert_eq!(told[0].request_id.as_str(), "a request");
    let key = skyloom_store::Key::parse(&skyloom_identity::paths::group(group.id)).unwrap();
    let record = site.store.get(&key).await.unwrap().unwrap();
    let all = skyloom_store::Prefix::parse("audit").unwrap();
    let entries = site
        .store
        .list(&all, skyloom_store::ListOptions::default())
        .await
        .unwrap();
    assert!(entries.items.iter().any(|entry| entry.created == record.created));
    // What is so already is not told.
    let user = site.user("anna").await;
    let add = || {
        site.identity.change(
            &by,
            |edit| edit.add_member(group.id, user),
            |_| skyloom_identity::Deed::new("group:update"),
        )
    };
    add().await.unwrap();
    add().await.unwrap();
    assert_eq!(site.audit("group:update").await.items.len(), 1);
    let deed = || skyloom_identity::Deed::new("group:delete").on(group.id.uuid());
    site.identity
        .remove(&call(&root), Doomed::Group(group.id), deed())
        .await
        .unwrap();
    let again = site
        .identity
        .remove(&call(&root), Doomed::Group(group.id), deed())
        .await;
    assert!(matches!(again, Err(ChangeError::NotFound { .. })));
    assert_eq!(site.audit("group:delete").await.items.len(), 1);
}
