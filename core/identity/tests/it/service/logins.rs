//! Passwords, scopes, application credentials and delegations.

use std::collections::BTreeSet;

use skyloom_identity::{
    AuthScope, BuiltIn, ChangeError, CredentialRef, DEFAULT_DOMAIN, Doomed, FIRST_ADMIN, HashCost, LogIn,
    Method, NewApplicationCredential, NewSecret, NewTrust, Proof, ScopeAsked, SecretError, Target, UserRef,
    Via, Why,
};
use skyloom_model::Secret;
use tokio::task::JoinSet;

use super::{PASSWORD, SOURCE, Site, allows, call, in_project, log_in, named, password, rights, why};

#[tokio::test]
async fn a_password_opens_the_scopes_in_which_there_is_a_role() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("ANNA"),
    )
    .await
    .unwrap();
    assert_eq!(session.claims.sub, anna);
    assert_eq!(session.claims.scope, AuthScope::Project(project));
    assert_eq!(session.expires_at, session.claims.until());
    let found = rights(&site.identity, session.token.expose()).await.unwrap();
    assert_eq!(found.principal, session.rights.principal);
    assert_eq!(found.principal.methods, [Method::Password]);
    assert_eq!(found.principal.audit_ids, [session.claims.jti]);
    assert!(allows(&found, "server:create", project));
    assert!(!allows(&found, "project:delete", project));

    let nowhere = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Default,
    )
    .await
    .unwrap();
    assert_eq!(nowhere.claims.scope, AuthScope::None);
    assert!(nowhere.rights.principal.roles.is_empty());
    (site.identity.editor())
        .change(|edit| edit.update_user(anna, |user| user.default_project = Some(project)))
        .await
        .unwrap();
    let home = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Default,
    )
    .await
    .unwrap();
    assert_eq!(home.claims.scope, AuthScope::Project(project));
    let unscoped = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
    assert_eq!(unscoped.claims.scope, AuthScope::None);

    for scope in [
        ScopeAsked::System,
        ScopeAsked::Domain(skyloom_identity::DomainRef::Id(DEFAULT_DOMAIN)),
        in_project("nowhere"),
    ] {
        let refused = log_in(&site.identity, vec![password("anna", PASSWORD)], scope).await;
        assert_eq!(why(refused), Why::NoRole);
    }
    let told = site.audit("auth:login").await.items;
    let outcomes: Vec<_> = told
        .iter()
        .map(|entry| serde_json::to_value(&entry.outcome).unwrap())
        .collect();
    assert_eq!(outcomes.iter().filter(|o| o["type"] == "done").count(), 4);
    assert_eq!(outcomes.iter().filter(|o| o["code"] == "auth.no_role").count(), 3);
    assert!(told.iter().all(|entry| entry.object.id == Some(anna.uuid())));
    assert!(
        told.iter()
            .all(|entry| entry.source == Some("192.0.2.7".parse().unwrap()))
    );
}

#[tokio::test]
async fn the_audit_knows_why_and_the_caller_does_not() {
    let site = Site::bootstrapped().await;
    let domain = site.domain("other").await;
    let off = (site.identity.editor())
        .change(|edit| edit.create_user(domain, "off", |_| {}))
        .await
        .unwrap()
        .id;
    site.user("disabled").await;
    let disabled = site
        .identity
        .directory()
        .snapshot()
        .find_user(DEFAULT_DOMAIN, "disabled")
        .unwrap()
        .value
        .id;
    let root = site.root();
    let by = call(&root);
    let set = site
        .identity
        .set_password(&by, off, Secret::new(PASSWORD.to_owned()));
    set.await.unwrap();
    let edit = site.identity.editor();
    edit.change(|edit| edit.update_user(disabled, |user| user.enabled = false))
        .await
        .unwrap();
    edit.change(|edit| edit.update_domain(domain, |domain| domain.enabled = false))
        .await
        .unwrap();

    let by_id = |id| Proof::Password {
        user: UserRef::Id(id),
        password: Secret::new(PASSWORD.to_owned()),
    };
    let asked = [
        (password("nobody", PASSWORD), Why::UnknownUser),
        (password("disabled", "another password"), Why::WrongPassword),
        (password("disabled", PASSWORD), Why::Gone),
        (by_id(off), Why::Gone),
        (password("admin", &"x".repeat(2000)), Why::TooLong),
    ];
    for (proof, expected) in asked {
        assert_eq!(
            why(log_in(&site.identity, vec![proof], ScopeAsked::Unscoped).await),
            expected
        );
    }
    let told = site.audit("auth:login").await.items;
    let codes: Vec<_> = told
        .iter()
        .map(|entry| {
            serde_json::to_value(&entry.outcome).unwrap()["code"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let expected = [
        "auth.unknown_user",
        "auth.wrong_password",
        "auth.gone",
        "auth.gone",
        "auth.too_long",
    ];
    assert_eq!(
        BTreeSet::from_iter(codes),
        BTreeSet::from_iter(expected.map(str::to_owned))
    );
    let whole = serde_json::to_string(&told).unwrap();
    assert!(!whole.contains("nobody") && !whole.contains(PASSWORD), "{whole}");
}

#[tokio::test]
async fn an_expired_password_can_only_be_changed() {
    let mut config = super::cheap();
    config.password_days = Some(90);
    let site = Site::with(config).await;
    site.identity.bootstrap(None).await.unwrap();
    let anna = site.user("anna").await;
    let again = || {
        log_in(
            &site.identity,
            vec![password("anna", PASSWORD)],
            ScopeAsked::Unscoped,
        )
    };
    again().await.unwrap();
    site.later(91 * 86_400);
    assert_eq!(why(again().await), Why::PasswordExpired);
    (site.identity.editor())
        .change(|edit| edit.update_user(anna, |user| user.options.ignore_password_expiry = true))
        .await
        .unwrap();
    again().await.unwrap();
    (site.identity.editor())
        .change(|edit| edit.update_user(anna, |user| user.options.ignore_password_expiry = false))
        .await
        .unwrap();

    let change = |old: &'static str, new: &'static str| {
        let identity = site.identity.clone();
        async move {
            let (old, new) = (Secret::new(old.to_owned()), Secret::new(new.to_owned()));
            identity
                .change_password(&named("anna"), &old, new, SOURCE, "")
                .await
        }
    };
    assert!(matches!(
        change("wrong", "a better password").await,
        Err(SecretError::Auth(_))
    ));
    assert!(matches!(
        change(PASSWORD, "short").await,
        Err(SecretError::Password(_))
    ));
    change(PASSWORD, "a better password").await.unwrap();
    assert_eq!(why(again().await), Why::WrongPassword);
    log_in(
        &site.identity,
        vec![password("anna", "a better password")],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
    let told = site.audit("user:change-password").await.items;
    assert_eq!(told.len(), 2, "one refused, one done: {told:?}");
    (site.identity.editor())
        .change(|edit| edit.update_user(anna, |user| user.options.lock_password = true))
        .await
        .unwrap();
    let locked = change("a better password", "yet another password").await;
    assert!(matches!(
        locked,
        Err(SecretError::Change(ChangeError::Forbidden(_)))
    ));
}

#[tokio::test]
async fn a_weak_hash_is_renewed_by_a_login() {
    let mut site = Site::bootstrapped().await;
    let anna = site.user("anna").await;
    let kept = |site: &Site| {
        let at = site.identity.directory().snapshot();
        at.password(anna).unwrap().value.clone()
    };
    let before = kept(&site);
    let mut config = super::cheap();
    config.password.cost = HashCost {
        memory_kib: 128,
        passes: 2,
        lanes: 1,
    };
    let other = site.another_with(config).await;
    let session = log_in(&other, vec![password("anna", PASSWORD)], ScopeAsked::Unscoped)
        .await
        .unwrap();
    let seen = site.identity.directory();
    let renewed = seen.until(std::time::Duration::from_secs(5), |at| {
        at.password(anna).unwrap().value != before
    });
    assert!(renewed.await);
    let after = kept(&site);
    assert!(after.current().unwrap().contains("m=128,t=2"), "{after:?}");
    assert_eq!(after.changed_at, before.changed_at);
    // It ends nothing.
    rights(&site.identity, session.token.expose()).await.unwrap();
    log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn nobody_sets_the_password_of_who_may_do_more() {
    let site = Site::bootstrapped().await;
    let (boss, anna) = (site.user("boss").await, site.user("anna").await);
    site.grant(Target::Domain(DEFAULT_DOMAIN), boss, BuiltIn::Manager)
        .await;
    let by = site.principal(boss, AuthScope::Domain(DEFAULT_DOMAIN));
    let new = || Secret::new("something else entirely".to_owned());
    site.identity.set_password(&call(&by), anna, new()).await.unwrap();
    let refused = site.identity.set_password(&call(&by), FIRST_ADMIN, new()).await;
    assert!(
        matches!(refused, Err(SecretError::Change(ChangeError::Forbidden(_)))),
        "{refused:?}"
    );
    // Nor by way of a group.
    let group = (site.identity.editor())
        .change(|edit| edit.create_group(DEFAULT_DOMAIN, "rulers", |_| {}))
        .await
        .unwrap()
        .id;
    let at = site.identity.directory().snapshot();
    assert!(at.commands(&by, skyloom_identity::Actor::Group(group)));
    (site.identity.editor())
        .change(|edit| {
            let actor = skyloom_identity::Actor::Group(group);
            edit.grant(Target::System, actor, BuiltIn::Reader.id(), false)
        })
        .await
        .unwrap();
    let at = site.identity.directory().snapshot();
    assert!(!at.commands(&by, skyloom_identity::Actor::Group(group)));
    (site.identity.editor())
        .change(|edit| edit.add_member(group, anna))
        .await
        .unwrap();
    assert!(site.identity.set_password(&call(&by), anna, new()).await.is_err());
}

fn application(name: &str, secret: &NewSecret) -> NewApplicationCredential {
    NewApplicationCredential {
        name: name.to_owned(),
        description: String::new(),
        roles: None,
        secret_hash: secret.hash.clone(),
        expires_at: None,
        unrestricted: false,
        access_rules: Vec::new(),
        permissions: Vec::new(),
    }
}

fn with_secret(credential: CredentialRef, secret: &NewSecret) -> Vec<Proof> {
    vec![Proof::ApplicationCredential {
        credential,
        secret: Secret::new(secret.secret.expose().clone()),
    }]
}

#[tokio::test]
async fn an_application_credential_has_its_scope_and_no_other() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    site.grant(Target::Domain(DEFAULT_DOMAIN), anna, BuiltIn::Reader)
        .await;
    let by = site.principal(anna, AuthScope::Project(project));
    let (secret, narrow) = (NewSecret::generate(&*site.ids), NewSecret::generate(&*site.ids));
    let make = |asked: NewApplicationCredential| {
        let (identity, by) = (site.identity.clone(), by.clone());
        async move {
            let made = identity
                .editor()
                .change(|edit| edit.create_application_credential(&by, asked.clone()));
            made.await.unwrap().id
        }
    };
    let id = make(application("robot", &secret)).await;
    let narrowed = make(NewApplicationCredential {
        permissions: vec!["server:read".to_owned()],
        ..application("narrow", &narrow)
    });
    let narrowed = narrowed.await;

    let by_name = CredentialRef::Name {
        user: named("anna"),
        name: "ROBOT".to_owned(),
    };
    for which in [CredentialRef::Id(id), by_name] {
        let session = log_in(&site.identity, with_secret(which, &secret), ScopeAsked::Default)
            .await
            .unwrap();
        assert_eq!(session.claims.scope, AuthScope::Project(project));
        assert_eq!(session.claims.via, Via::ApplicationCredential { id });
        assert!(allows(&session.rights, "server:create", project));
        let bearer = session.token.expose();
        assert!(allows(
            &rights(&site.identity, bearer).await.unwrap(),
            "server:create",
            project
        ));
        // Neither asked for at once nor by way of the token.
        let again = vec![Proof::Token(Secret::new(bearer.clone()))];
        assert_eq!(
            why(log_in(&site.identity, again, ScopeAsked::Default).await),
            Why::NotRescopable
        );
    }
    for scope in [ScopeAsked::Unscoped, ScopeAsked::System] {
        let refused = log_in(&site.identity, with_secret(CredentialRef::Id(id), &secret), scope).await;
        assert_eq!(why(refused), Why::NotRescopable);
    }
    let few = log_in(
        &site.identity,
        with_secret(CredentialRef::Id(narrowed), &narrow),
        in_project("anna"),
    );
    let few = few.await.unwrap();
    assert!(allows(&few.rights, "server:read", project));
    assert!(!allows(&few.rights, "server:create", project));
    let wrong = log_in(
        &site.identity,
        with_secret(CredentialRef::Id(id), &narrow),
        ScopeAsked::Default,
    )
    .await;
    assert_eq!(why(wrong), Why::UnknownSecret);

    // What it gave goes with it, also elsewhere.
    site.identity
        .editor()
        .remove(Doomed::Credential(narrowed), skyloom_store::Txn::new())
        .await
        .unwrap();
    assert_eq!(why(rights(&site.identity, few.token.expose()).await), Why::Gone);
    let gone = log_in(
        &site.identity,
        with_secret(CredentialRef::Id(narrowed), &narrow),
        ScopeAsked::Default,
    )
    .await;
    assert_eq!(why(gone), Why::UnknownSecret);
}

#[tokio::test]
async fn access_rules_of_services_open_nothing_in_the_own_api() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let by = site.principal(anna, AuthScope::Project(project));
    let secret = NewSecret::generate(&*site.ids);
    let rule = skyloom_identity::AccessRule {
        id: uuid::Uuid::nil(),
        service: "compute".to_owned(),
        method: "GET".to_owned(),
        path: "/v2.1/servers/*".to_owned(),
    };
    let asked = NewApplicationCredential {
        access_rules: vec![rule],
        ..application("robot", &secret)
    };
    let id = (site.identity.editor())
        .change(|edit| edit.create_application_credential(&by, asked.clone()))
        .await
        .unwrap()
        .id;
    let session = log_in(
        &site.identity,
        with_secret(CredentialRef::Id(id), &secret),
        ScopeAsked::Default,
    );
    let own = session.await.unwrap().rights;
    assert!(!allows(&own, "server:read", project));
    let within = |service: &str, method: &str, path: &str| {
        let found = site.identity.within_access_rules(&own, service, method, path);
        found.is_some_and(|rights| allows(&rights, "server:read", project))
    };
    assert!(within("compute", "GET", "/v2.1/servers/7"));
    assert!(!within("compute", "DELETE", "/v2.1/servers/7"));
    assert!(!within("compute", "GET", "/v2.1/servers"));
    assert!(!within("compute", "GET", "/v2.1/servers/7/ips"));
    assert!(!within("image", "GET", "/v2.1/servers/7"));
}

#[tokio::test]
async fn a_trust_is_used_as_often_as_it_may_be() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let bert = site.user("bert").await;
    let by = site.principal(anna, AuthScope::Project(project));
    let asked = NewTrust {
        trustee: bert,
        project: Some(project),
        roles: None,
        impersonation: true,
        remaining_uses: Some(3),
        redelegation_count: 0,
        expires_at: None,
    };
    let trust = (site.identity.editor())
        .change(|edit| edit.create_trust(&by, asked.clone()))
        .await
        .unwrap()
        .id;
    let scope = || ScopeAsked::Trust(trust);
    let refused = log_in(&site.identity, vec![password("anna", PASSWORD)], scope()).await;
    assert_eq!(why(refused), Why::NoRole, "the trustor is not the trustee");

    let unscoped = log_in(
        &site.identity,
        vec![password("bert", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
    let mut tries = JoinSet::new();
    for _ in 0..8 {
        let (identity, token) = (site.identity.clone(), unscoped.token.expose().clone());
        tries.spawn(async move {
            let proofs = vec![Proof::Token(Secret::new(token))];
            identity
                .log_in(LogIn::new(proofs, ScopeAsked::Trust(trust)), SOURCE)
                .await
        });
    }
    let passed: Vec<_> = tries
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::ok)
        .collect();
    assert_eq!(passed.len(), 3);
    for session in &passed {
        assert_eq!(session.claims.sub, anna, "the trustee acts as the trustor");
        assert_eq!(
            session.claims.via,
            Via::Trust {
                id: trust,
                trustee: bert
            }
        );
        assert_eq!(session.claims.exp, unscoped.claims.exp.min(session.claims.exp));
        assert!(allows(&session.rights, "server:create", project));
        let again = vec![Proof::Token(Secret::new(session.token.expose().clone()))];
        assert_eq!(
            why(log_in(&site.identity, again, in_project("anna")).await),
            Why::NotRescopable
        );
    }
    // Taking the token away from which they were made takes them away too.
    let root = site.root();
    site.identity
        .revoke(&call(&root), &unscoped.claims)
        .await
        .unwrap();
    assert_eq!(
        why(rights(&site.identity, passed[0].token.expose()).await),
        Why::Revoked
    );
}
