//! Bearer tokens over several processes and restarts.

use std::time::Duration;

use skyloom_identity::{AuthScope, Doomed, Method, Proof, ScopeAsked, Why};
use skyloom_model::Secret;

use super::{PASSWORD, Site, call, in_project, log_in, password, rights, why};

fn token(token: &Secret<String>) -> Vec<Proof> {
    vec![Proof::Token(Secret::new(token.expose().clone()))]
}

#[tokio::test]
async fn a_token_from_a_token_keeps_its_end_and_goes_with_it() {
    let site = Site::bootstrapped().await;
    site.member("anna").await;
    let first = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
    site.later(300);
    let second = log_in(&site.identity, token(&first.token), in_project("anna"))
        .await
        .unwrap();
    assert_eq!(second.claims.exp, first.claims.exp);
    assert_eq!(second.claims.chain, [first.claims.jti]);
    assert_eq!(second.claims.methods, [Method::Password, Method::Token]);
    let third = log_in(&site.identity, token(&second.token), ScopeAsked::Unscoped)
        .await
        .unwrap();
    assert_eq!(
        third.rights.principal.audit_ids,
        [third.claims.jti, second.claims.jti, first.claims.jti]
    );
    let root = site.root();
    site.identity.revoke(&call(&root), &second.claims).await.unwrap();
    rights(&site.identity, first.token.expose()).await.unwrap();
    assert_eq!(
        why(rights(&site.identity, second.token.expose()).await),
        Why::Revoked
    );
    assert_eq!(
        why(rights(&site.identity, third.token.expose()).await),
        Why::Revoked
    );
    assert_eq!(
        why(log_in(&site.identity, token(&third.token), ScopeAsked::Unscoped).await),
        Why::Revoked
    );
    site.later(600);
    assert_eq!(
        why(rights(&site.identity, first.token.expose()).await),
        Why::Expired
    );
}

#[tokio::test]
async fn another_process_sees_what_was_taken_away() {
    let mut site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let other = site.another().await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let bearer = session.token.expose();
    rights(&other, bearer).await.unwrap();
    let patience = Duration::from_secs(5);
    let edit = site.identity.editor();

    edit.change(|edit| edit.update_project(project, |project| project.spec.enabled = false))
        .await
        .unwrap();
    assert!(
        other
            .directory()
            .until(patience, |at| !at.project_counts(project))
            .await
    );
    assert_eq!(why(rights(&other, bearer).await), Why::Gone);
    edit.change(|edit| edit.update_project(project, |project| project.spec.enabled = true))
        .await
        .unwrap();
    assert!(
        other
            .directory()
            .until(patience, |at| at.project_counts(project))
            .await
    );
    assert_eq!(
        why(rights(&other, bearer).await),
        Why::Outdated,
        "it does not come back"
    );

    let session = log_in(&other, vec![password("anna", PASSWORD)], in_project("anna"))
        .await
        .unwrap();
    let root = site.root();
    site.identity.revoke(&call(&root), &session.claims).await.unwrap();
    let jti = session.claims.jti;
    assert!(other.directory().until(patience, |at| at.is_revoked(jti)).await);
    assert_eq!(why(rights(&other, session.token.expose()).await), Why::Revoked);

    let session = log_in(&other, vec![password("anna", PASSWORD)], in_project("anna"))
        .await
        .unwrap();
    edit.remove(Doomed::User(anna), skyloom_store::Txn::new())
        .await
        .unwrap();
    assert!(
        other
            .directory()
            .until(patience, |at| at.user(anna).is_none())
            .await
    );
    assert_eq!(why(rights(&other, session.token.expose()).await), Why::Gone);
}

#[tokio::test]
async fn roles_count_as_they_are_at_the_moment_of_the_call() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let bearer = session.token.expose();
    let actor = skyloom_identity::Actor::User(anna);
    let target = skyloom_identity::Target::Project(project);
    let own = (site.identity.editor())
        .change(|edit| {
            edit.create_role(None, "cleaner", |role| {
                role.permissions = vec!["server:delete".to_owned()]
            })
        })
        .await
        .unwrap()
        .id;
    let edit = site.identity.editor();
    edit.change(|edit| edit.grant(target, actor, own, false))
        .await
        .unwrap();
    let member = skyloom_identity::BuiltIn::Member.id();
    edit.change(|edit| edit.revoke(target, actor, member, false))
        .await
        .unwrap();
    let found = rights(&site.identity, bearer).await.unwrap();
    assert!(
        super::allows(&found, "server:delete", project),
        "the policy follows new roles"
    );
    assert!(!super::allows(&found, "server:create", project));
    edit.change(|edit| edit.update_role(own, |role| role.permissions = vec!["server:read".to_owned()]))
        .await
        .unwrap();
    let found = rights(&site.identity, bearer).await.unwrap();
    assert!(!super::allows(&found, "server:delete", project));
    edit.change(|edit| edit.revoke(target, actor, own, false))
        .await
        .unwrap();
    assert_eq!(why(rights(&site.identity, bearer).await), Why::NoRole);
}

#[tokio::test]
async fn a_token_outlives_a_restart_and_the_rotation_of_keys() {
    let mut site = Site::bootstrapped().await;
    site.member("anna").await;
    let first = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let restarted = site.another().await;
    rights(&restarted, first.token.expose()).await.unwrap();
    // Shortly before the end of the key, all get to know its successor; then that signs, and the old one still verifies.
    site.later(7 * 86_400 - 200);
    let last = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let kid =
        |session: &skyloom_identity::Session| session.token.expose().split('.').next().unwrap().to_owned();
    assert_eq!(kid(&first), kid(&last));
    let keys = |count: usize| {
        let (site, restarted) = (&site, &restarted);
        async move {
            for identity in [&site.identity, restarted] {
                let there = (identity.directory())
                    .until(Duration::from_secs(20), |at| at.signing_keys().len() == count);
                assert!(there.await, "{count} keys");
            }
        }
    };
    keys(2).await;
    site.later(600);
    rights(&restarted, last.token.expose()).await.unwrap();
    // The new one signs; nothing needs to be waited for, as it has been known for long.
    let new = log_in(&restarted, vec![password("anna", PASSWORD)], in_project("anna"))
        .await
        .unwrap();
    assert_ne!(kid(&new), kid(&last));
    rights(&site.identity, new.token.expose()).await.unwrap();
    let scope = new.claims.scope;
    assert!(matches!(scope, AuthScope::Project(_)));
    // It is retired by one look and deleted by another, after the last token of it has ended.
    let mut gone = false;
    for _ in 0..10 {
        site.later(4000);
        let directory = site.identity.directory();
        gone = directory
            .until(Duration::from_secs(3), |at| at.signing_keys().len() == 1)
            .await;
        if gone {
            break;
        }
    }
    assert!(gone);
}
