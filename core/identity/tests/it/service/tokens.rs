//! API tokens.

use std::time::Duration;

use skyloom_identity::{
    AuthScope, Authenticator as _, BuiltIn, ChangeError, DEFAULT_DOMAIN, Doomed, FIRST_ADMIN, Holder,
    Identified, MadeToken, NewApiToken, Principal, Proof, ScopeAsked, Target, UserId, Via, Why,
};
use skyloom_model::{HostId, Secret, Timestamp};

use super::{PASSWORD, SOURCE, Site, allows, call, in_project, log_in, now, password, rights, why};

fn asked(user: UserId, scope: AuthScope, permissions: &[&str]) -> NewApiToken {
    NewApiToken {
        name: "a token".to_owned(),
        holder: Holder::User {
            user,
            scope,
            permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        },
        expires_at: None,
    }
}

async fn make(site: &Site, by: &Principal, asked: NewApiToken) -> Result<MadeToken, ChangeError> {
    site.identity.create_token(&call(by), asked).await
}

#[tokio::test]
async fn a_token_does_what_its_user_may_at_the_moment() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let scope = AuthScope::Project(project);
    let by = site.principal(anna, scope);
    let made = make(&site, &by, asked(anna, scope, &[])).await.unwrap();
    let narrow = make(&site, &by, asked(anna, scope, &["server:read", "server:start"]))
        .await
        .unwrap();
    let found = rights(&site.identity, made.secret.expose()).await.unwrap();
    assert_eq!(found.principal.via, Via::ApiToken { id: made.token.id });
    assert!(allows(&found, "server:create", project));
    let few = rights(&site.identity, narrow.secret.expose()).await.unwrap();
    assert!(allows(&few, "server:start", project) && !allows(&few, "server:create", project));

    let at = site.identity.directory().snapshot();
    let hint = &made.token.hint;
    assert_eq!(hint, &made.secret.expose()[..8]);
    for begin in [&hint[..6], made.secret.expose()] {
        assert!(at.tokens_from(begin).any(|found| found.value.id == made.token.id));
    }
    let kept = serde_json::to_string(&made.token).unwrap();
    assert!(!kept.contains(made.secret.expose()));

    // A bearer token that it gives is it, and no more.
    let proof = vec![Proof::Token(Secret::new(narrow.secret.expose().clone()))];
    let session = log_in(&site.identity, proof, ScopeAsked::Default).await.unwrap();
    assert!(!allows(&session.rights, "server:create", project));
    let bearer = session.token.expose();
    assert!(!allows(
        &rights(&site.identity, bearer).await.unwrap(),
        "server:create",
        project
    ));

    let actor = skyloom_identity::Actor::User(anna);
    (site.identity.editor())
        .change(|edit| edit.revoke(Target::Project(project), actor, BuiltIn::Member.id(), false))
        .await
        .unwrap();
    assert_eq!(
        why(rights(&site.identity, made.secret.expose()).await),
        Why::NoRole
    );
    site.grant(Target::Project(project), anna, BuiltIn::Reader).await;
    let reads = rights(&site.identity, made.secret.expose()).await.unwrap();
    assert!(allows(&reads, "server:read", project) && !allows(&reads, "server:create", project));

    site.identity
        .delete_token(&call(&by), narrow.token.id)
        .await
        .unwrap();
    assert_eq!(
        why(rights(&site.identity, narrow.secret.expose()).await),
        Why::UnknownSecret
    );
    assert_eq!(why(rights(&site.identity, bearer).await), Why::Gone);
    assert_eq!(site.audit("token:create").await.items.len(), 2);
    assert_eq!(site.audit("token:delete").await.items.len(), 1);
}

#[tokio::test]
async fn nobody_makes_tokens_of_who_may_do_more() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let boss = site.user("boss").await;
    site.grant(Target::Domain(DEFAULT_DOMAIN), boss, BuiltIn::Admin)
        .await;
    let scope = AuthScope::Project(project);
    let by = site.principal(boss, AuthScope::Domain(DEFAULT_DOMAIN));
    make(&site, &by, asked(anna, scope, &[])).await.unwrap();
    let forbidden = |result: Result<MadeToken, ChangeError>| {
        assert!(matches!(result, Err(ChangeError::Forbidden(_))), "{result:?}");
    };
    // Its user is an administrator of the system; also where it would count in the domain alone.
    forbidden(make(&site, &by, asked(FIRST_ADMIN, AuthScope::System, &[])).await);
    forbidden(
        make(
            &site,
            &by,
            asked(FIRST_ADMIN, AuthScope::Domain(DEFAULT_DOMAIN), &[]),
        )
        .await,
    );
    forbidden(make(&site, &by, asked(boss, AuthScope::System, &[])).await);
    let member = site.principal(anna, scope);
    forbidden(
        make(
            &site,
            &member,
            asked(boss, AuthScope::Domain(DEFAULT_DOMAIN), &[]),
        )
        .await,
    );
    forbidden(
        make(
            &site,
            &member,
            asked(anna, AuthScope::Domain(DEFAULT_DOMAIN), &[]),
        )
        .await,
    );
    let machine = |holder| NewApiToken {
        name: "engine".to_owned(),
        holder,
        expires_at: None,
    };
    forbidden(make(&site, &by, machine(Holder::Engine)).await);

    // What is narrower than a user makes none.
    let narrow = make(&site, &member, asked(anna, scope, &["token:create"]))
        .await
        .unwrap();
    let narrow = rights(&site.identity, narrow.secret.expose()).await.unwrap();
    forbidden(make(&site, &narrow.principal, asked(anna, scope, &[])).await);
    let wrong = make(&site, &member, asked(anna, scope, &["nothing:such"])).await;
    assert!(
        matches!(
            wrong,
            Err(ChangeError::Invalid {
                field: "permissions",
                ..
            })
        ),
        "{wrong:?}"
    );
    let nowhere = make(&site, &member, asked(anna, AuthScope::None, &[])).await;
    assert!(matches!(nowhere, Err(ChangeError::Invalid { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn machines_are_told_from_users() {
    let site = Site::bootstrapped().await;
    let root = site.principal(FIRST_ADMIN, AuthScope::System);
    let host = HostId::fresh(&*site.ids);
    let machine = |holder| NewApiToken {
        name: "machine".to_owned(),
        holder,
        expires_at: None,
    };
    let engine = make(&site, &root, machine(Holder::Engine)).await.unwrap();
    let agent = make(&site, &root, machine(Holder::Agent { host })).await.unwrap();
    let found = site
        .identity
        .authenticate(engine.secret.expose(), SOURCE)
        .await
        .unwrap();
    assert!(
        matches!(found, Identified::Engine { token } if token == engine.token.id),
        "{found:?}"
    );
    let found = site
        .identity
        .authenticate(agent.secret.expose(), SOURCE)
        .await
        .unwrap();
    let same = |h, token| h == host && token == Some(agent.token.id);
    assert!(
        matches!(found, Identified::Agent { host, token } if same(host, token)),
        "{found:?}"
    );
    // Neither logs in nor is asked about.
    let proof = vec![Proof::Token(Secret::new(engine.secret.expose().clone()))];
    assert_eq!(
        why(log_in(&site.identity, proof, ScopeAsked::Default).await),
        Why::Gone
    );
    assert_eq!(
        why(site.identity.validate(engine.secret.expose()).await),
        Why::Gone
    );
    let at = site.identity.directory().snapshot();
    assert_eq!(at.tokens_of_host(host).count(), 1);
    let gone = (site.identity.editor())
        .change(|edit| Ok(edit.delete_tokens_of_host(host, 10)))
        .await
        .unwrap();
    assert_eq!(gone, 1);
    let found = site.identity.authenticate(agent.secret.expose(), SOURCE).await;
    assert_eq!(why(found), Why::UnknownSecret);
}

#[tokio::test]
async fn a_token_goes_with_what_it_rests_on() {
    let site = Site::bootstrapped().await;
    let domain = site.domain("other").await;
    let secrets = |n: usize| {
        let site = &site;
        async move {
            let (user, project) = site.member(&format!("user{n}")).await;
            site.grant(Target::Domain(domain), user, BuiltIn::Reader).await;
            let by = site.principal(user, AuthScope::Project(project));
            let in_project = make(site, &by, asked(user, AuthScope::Project(project), &[]))
                .await
                .unwrap();
            let in_domain = make(site, &by, asked(user, AuthScope::Domain(domain), &[]))
                .await
                .unwrap();
            (user, project, in_project.secret, in_domain.secret)
        }
    };
    let (_, project, first, _) = secrets(1).await;
    let (user, _, second, third) = secrets(2).await;
    let (_, _, _, fourth) = secrets(3).await;
    let editor = site.identity.editor();
    let none = skyloom_store::Txn::new;
    editor.remove(Doomed::Project(project), none()).await.unwrap();
    assert_eq!(
        why(rights(&site.identity, first.expose()).await),
        Why::UnknownSecret
    );
    editor.remove(Doomed::User(user), none()).await.unwrap();
    for secret in [second, third] {
        assert_eq!(
            why(rights(&site.identity, secret.expose()).await),
            Why::UnknownSecret
        );
    }
    rights(&site.identity, fourth.expose()).await.unwrap();
    editor
        .change(|edit| edit.update_domain(domain, |d| d.enabled = false))
        .await
        .unwrap();
    assert_eq!(why(rights(&site.identity, fourth.expose()).await), Why::NoRole);
    editor.remove(Doomed::Domain(domain), none()).await.unwrap();
    assert_eq!(
        why(rights(&site.identity, fourth.expose()).await),
        Why::UnknownSecret
    );
    let at = site.identity.directory().snapshot();
    assert!(
        skyloom_identity::verify(&at).is_empty(),
        "{:?}",
        skyloom_identity::verify(&at)
    );
}

#[tokio::test]
async fn its_last_use_is_noted_now_and_then_and_its_end_ends_it() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let scope = AuthScope::Project(project);
    let by = site.principal(anna, scope);
    let mut asked = asked(anna, scope, &[]);
    asked.expires_at = Some(Timestamp::from_second(now(&site).as_second() + 1000).unwrap());
    let made = make(&site, &by, asked).await.unwrap();
    let id = made.token.id;
    let patience = Duration::from_secs(20);
    let (secret, directory) = (made.secret.expose(), site.identity.directory());
    rights(&site.identity, secret).await.unwrap();
    let first = now(&site);
    assert!(
        directory
            .until(patience, |at| at.token(id).unwrap().value.last_used
                == Some(first))
            .await
    );
    // Within five minutes nothing more is written: another change that comes later is seen, and this is not.
    site.later(200);
    rights(&site.identity, secret).await.unwrap();
    site.later(200);
    rights(&site.identity, secret).await.unwrap();
    let second = now(&site);
    assert!(
        directory
            .until(patience, |at| at.token(id).unwrap().value.last_used
                != Some(first))
            .await
    );
    assert_eq!(
        directory.snapshot().token(id).unwrap().value.last_used,
        Some(second)
    );
    let session = log_in(
        &site.identity,
        vec![Proof::Token(Secret::new(secret.clone()))],
        ScopeAsked::Default,
    );
    let session = session.await.unwrap();
    assert_eq!(
        Some(session.expires_at),
        made.token.expires_at,
        "no longer than what it is made from"
    );
    site.later(600);
    assert!(matches!(
        why(rights(&site.identity, secret).await),
        Why::Expired | Why::UnknownSecret
    ));
    assert!(
        directory.until(patience, |at| at.token(id).is_none()).await,
        "it is tidied away"
    );
    log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
}
