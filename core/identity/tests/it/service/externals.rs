//! Logins on the word of an identity provider.

use std::sync::Arc;
use std::time::Duration;

use skyloom_identity::{
    AuthScope, BuiltIn, DEFAULT_DOMAIN, External, LogIn, Method, OidcConfig, Proof, ScopeAsked, Target, Why,
};
use skyloom_model::Clock as _;
use uuid::Uuid;

use super::{SOURCE, Site, in_project, log_in, password, why};

fn said(site: &Site, token: u128) -> External {
    External {
        issuer: "https://login.example".to_owned(),
        subject: "42".to_owned(),
        name: "ada".to_owned(),
        email: None,
        groups: Vec::new(),
        token: Uuid::from_u128(token),
        until: site.clock.now().checked_add(Duration::from_secs(60)).unwrap(),
    }
}

fn proof(said: &External) -> Proof {
    Proof::External {
        said: Box::new(said.clone()),
        provider: Arc::new(OidcConfig::new(&said.issuer, "skyloom", DEFAULT_DOMAIN)),
    }
}

#[tokio::test]
async fn who_comes_from_a_provider_is_made_and_may_do_what_is_given() {
    let site = Site::bootstrapped().await;
    let first = said(&site, 1);
    let session = log_in(&site.identity, vec![proof(&first)], ScopeAsked::Unscoped)
        .await
        .unwrap();
    let principal = &session.rights.principal;
    assert_eq!(
        (principal.user, principal.scope),
        (first.user_id(), AuthScope::None)
    );
    assert_eq!(principal.methods, [Method::External]);
    // Nothing is given to who just came.
    let project = site.project("p").await;
    let second = said(&site, 2);
    assert_eq!(
        why(log_in(&site.identity, vec![proof(&second)], in_project("p")).await),
        Why::NoRole
    );
    site.grant(Target::Project(project), first.user_id(), BuiltIn::Reader)
        .await;
    let third = said(&site, 3);
    let session = log_in(&site.identity, vec![proof(&third)], in_project("p"))
        .await
        .unwrap();
    assert_eq!(session.rights.principal.scope, AuthScope::Project(project));
    // There is no password to come in with.
    let guessed = log_in(&site.identity, vec![password("ada", "")], ScopeAsked::Unscoped).await;
    assert_eq!(why(guessed), Why::UnknownUser);
}

#[tokio::test]
async fn a_word_counts_once_and_for_enabled_users_only() {
    let site = Site::bootstrapped().await;
    let first = said(&site, 1);
    log_in(&site.identity, vec![proof(&first)], ScopeAsked::Unscoped)
        .await
        .unwrap();
    let again = log_in(&site.identity, vec![proof(&first)], ScopeAsked::Unscoped).await;
    assert_eq!(why(again), Why::UsedCode);
    let user = first.user_id();
    let disabled = site
        .identity
        .editor()
        .change(|edit| edit.update_user(user, |user| user.enabled = false));
    disabled.await.unwrap();
    let second = said(&site, 2);
    let refused = log_in(&site.identity, vec![proof(&second)], ScopeAsked::Unscoped).await;
    assert_eq!(why(refused), Why::Gone);
}

#[tokio::test]
async fn a_second_factor_here_is_asked_for_also_then() {
    let site = Site::bootstrapped().await;
    let first = said(&site, 1);
    log_in(&site.identity, vec![proof(&first)], ScopeAsked::Unscoped)
        .await
        .unwrap();
    let user = first.user_id();
    let needed = (site.identity.editor())
        .change(|edit| edit.update_user(user, |user| user.needs_second_factor = true));
    needed.await.unwrap();
    let second = said(&site, 2);
    let refused = log_in(&site.identity, vec![proof(&second)], ScopeAsked::Unscoped).await;
    assert_eq!(why(refused), Why::NoCode);
}

#[tokio::test]
async fn the_audit_tells_of_it() {
    let site = Site::bootstrapped().await;
    let first = said(&site, 1);
    let asked = LogIn::new(vec![proof(&first)], ScopeAsked::Unscoped).in_request("r1");
    site.identity.log_in(asked, SOURCE).await.unwrap();
    let page = site.audit("auth:login").await;
    let entry = page
        .items
        .iter()
        .find(|entry| entry.actor.user == Some(first.user_id()))
        .unwrap();
    assert_eq!(entry.actor.methods, [Method::External]);
}
