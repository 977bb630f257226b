//! Attacks on credentials and tokens, by their numbers in the catalogue of bad inputs.

use std::time::Duration;

use skyloom_identity::{
    AuthError, AuthScope, Authenticator as _, ChangeError, CredentialRef, NewApplicationCredential,
    NewSecret, Proof, ScopeAsked, Why,
};
use skyloom_model::Secret;

use super::factors::{code, guarded};
use super::{PASSWORD, SOURCE, Site, call, in_project, log_in, named, now, password, rights, why};

#[tokio::test]
async fn attack_01_no_credentials() {
    let site = Site::bootstrapped().await;
    assert_eq!(why(site.identity.authenticate("", SOURCE).await), Why::Malformed);
    assert_eq!(
        why(log_in(&site.identity, Vec::new(), ScopeAsked::System).await),
        Why::Insufficient
    );
    assert_eq!(why(site.identity.authenticate("..", SOURCE).await), Why::Header);
    assert_eq!(
        why(site.identity.authenticate(&"a".repeat(5000), SOURCE).await),
        Why::TooLong
    );
    assert_eq!(
        why(site.identity.authenticate("sky_unknown", SOURCE).await),
        Why::UnknownSecret
    );
}

#[tokio::test]
async fn attack_02_ended_by_a_second() {
    let site = Site::bootstrapped().await;
    site.member("anna").await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    site.later(899);
    rights(&site.identity, session.token.expose()).await.unwrap();
    site.later(1);
    assert_eq!(
        why(rights(&site.identity, session.token.expose()).await),
        Why::Expired
    );
}

#[tokio::test]
async fn attack_03_other_algorithms_and_keys() {
    let site = Site::bootstrapped().await;
    site.member("anna").await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let token = session.token.expose();
    let (_, rest) = token.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    for (header, expected) in [
        (r#"{"typ":"sky+jwt","alg":"none","kid":"x"}"#, Why::Header),
        (r#"{"typ":"sky+jwt","alg":"HS256","kid":"x"}"#, Why::Header),
        (
            r#"{"typ":"sky+jwt","alg":"EdDSA","kid":"../../dev/null"}"#,
            Why::UnknownKey,
        ),
    ] {
        let forged = format!("{}.{claims}.{}", base64(header), base64("signature"));
        assert_eq!(why(rights(&site.identity, &forged).await), expected);
    }
    assert_eq!(
        why(rights(&site.identity, &format!("{token}A")).await),
        Why::Signature
    );
}

#[tokio::test]
async fn attack_04_of_who_was_taken_away_a_moment_ago() {
    let mut site = Site::bootstrapped().await;
    let (anna, _) = site.member("anna").await;
    let other = site.another().await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let root = site.root();
    let new = Secret::new("quite another password".to_owned());
    site.identity.set_password(&call(&root), anna, new).await.unwrap();
    let epoch = session.claims.epochs.user;
    let seen = other.directory().until(Duration::from_secs(5), |at| {
        at.user(anna).unwrap().value.epoch > epoch
    });
    assert!(seen.await);
    assert_eq!(why(rights(&other, session.token.expose()).await), Why::Outdated);
    let with = vec![password("anna", "quite another password")];
    let session = log_in(&other, with, in_project("anna")).await.unwrap();
    (site.identity.editor())
        .change(|edit| edit.update_user(anna, |user| user.enabled = false))
        .await
        .unwrap();
    let gone = other
        .directory()
        .until(Duration::from_secs(5), |at| !at.user_counts(anna));
    assert!(gone.await);
    assert_eq!(why(rights(&other, session.token.expose()).await), Why::Gone);
}

#[tokio::test]
async fn attack_05_taken_back_before_a_restart() {
    let mut site = Site::bootstrapped().await;
    site.member("anna").await;
    let session = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let root = site.root();
    site.identity.revoke(&call(&root), &session.claims).await.unwrap();
    let restarted = site.another().await;
    assert_eq!(
        why(rights(&restarted, session.token.expose()).await),
        Why::Revoked
    );
    assert_eq!(site.audit("token:delete").await.items.len(), 1);
}

#[tokio::test]
async fn attack_06_a_later_end_by_way_of_a_token() {
    let site = Site::bootstrapped().await;
    site.member("anna").await;
    let first = log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
    site.later(800);
    let mut ask = skyloom_identity::LogIn::new(
        vec![Proof::Token(Secret::new(first.token.expose().clone()))],
        in_project("anna"),
    );
    ask.life = Some(Duration::from_secs(1_000_000));
    let second = site.identity.log_in(ask, SOURCE).await.unwrap();
    assert!(second.expires_at <= first.expires_at);
    let mut ask = skyloom_identity::LogIn::new(vec![password("anna", PASSWORD)], ScopeAsked::Unscoped);
    ask.life = Some(Duration::from_secs(1_000_000));
    let long = site.identity.log_in(ask, SOURCE).await.unwrap();
    assert!(long.claims.exp - long.claims.iat <= 3600);
}

#[tokio::test]
async fn attack_07_a_restricted_credential_makes_another() {
    let site = Site::bootstrapped().await;
    let (anna, project) = site.member("anna").await;
    let by = site.principal(anna, AuthScope::Project(project));
    let asked = |name: &str, secret: &NewSecret, unrestricted| NewApplicationCredential {
        name: name.to_owned(),
        description: String::new(),
        roles: None,
        secret_hash: secret.hash.clone(),
        expires_at: None,
        unrestricted,
        access_rules: Vec::new(),
        permissions: vec!["server:*".to_owned()],
    };
    let make = |by: skyloom_identity::Principal, asked: NewApplicationCredential| {
        let identity = site.identity.clone();
        async move {
            identity
                .editor()
                .change(|edit| edit.create_application_credential(&by, asked.clone()))
                .await
        }
    };
    let (secret, free) = (NewSecret::generate(&*site.ids), NewSecret::generate(&*site.ids));
    let id = make(by.clone(), asked("bound", &secret, false)).await.unwrap().id;
    let free_id = make(by, asked("free", &free, true)).await.unwrap().id;
    let session = |id, secret: &NewSecret| {
        let proof = Proof::ApplicationCredential {
            credential: CredentialRef::Id(id),
            secret: Secret::new(secret.secret.expose().clone()),
        };
        log_in(&site.identity, vec![proof], ScopeAsked::Default)
    };
    let bound = session(id, &secret).await.unwrap().rights;
    let child = NewSecret::generate(&*site.ids);
    let refused = make((*bound.principal).clone(), asked("child", &child, false)).await;
    assert!(matches!(refused, Err(ChangeError::Forbidden(_))));
    // An unrestricted one may: what it makes can do no more, and dies with it.
    let parent = session(free_id, &free).await.unwrap().rights;
    let mut more = asked("child", &child, false);
    more.permissions = vec!["*".to_owned()];
    assert!(matches!(
        make((*parent.principal).clone(), more).await,
        Err(ChangeError::Forbidden(_))
    ));
    let child_id = make((*parent.principal).clone(), asked("child", &child, false))
        .await
        .unwrap()
        .id;
    let living = session(child_id, &child).await.unwrap();
    let doomed = skyloom_identity::Doomed::Credential(free_id);
    site.identity
        .editor()
        .remove(doomed, skyloom_store::Txn::new())
        .await
        .unwrap();
    assert_eq!(
        why(rights(&site.identity, living.token.expose()).await),
        Why::Gone
    );
    assert_eq!(why(session(child_id, &child).await), Why::UnknownSecret);
}

#[tokio::test]
async fn attack_09_around_the_second_factor() {
    let site = Site::bootstrapped().await;
    let anna = guarded(&site, "anna").await;
    let bert = guarded(&site, "bert").await;
    site.later(60);
    let with = |more: Vec<Proof>| {
        let mut proofs = vec![password("anna", PASSWORD)];
        proofs.extend(more);
        log_in(&site.identity, proofs, ScopeAsked::Unscoped)
    };
    let (own, others) = (anna.device.code_at(now(&site)), bert.device.code_at(now(&site)));
    assert_eq!(why(with(vec![]).await), Why::NoCode);
    assert_eq!(why(with(vec![code("anna", "")]).await), Why::NoCode);
    assert_eq!(why(with(vec![code("anna", "abcdef")]).await), Why::WrongCode);
    assert_eq!(
        why(with(vec![code("anna", &others)]).await),
        Why::WrongCode,
        "the code of somebody else"
    );
    assert_eq!(
        why(with(vec![code("bert", &others)]).await),
        Why::WrongCode,
        "somebody else"
    );
    assert_eq!(why(with(vec![code("nobody", &own)]).await), Why::WrongCode);
    assert_eq!(
        why(with(vec![code("anna", &own), code("anna", &own)]).await),
        Why::Malformed
    );
    let alone = log_in(&site.identity, vec![code("anna", &own)], ScopeAsked::Unscoped).await;
    assert_eq!(why(alone), Why::Insufficient, "a code alone");
    site.later(3600);
    let own = anna.device.code_at(now(&site));
    let wrong = vec![password("anna", "wrong"), code("anna", &own)];
    assert_eq!(
        why(log_in(&site.identity, wrong, ScopeAsked::Unscoped).await),
        Why::WrongPassword
    );
    let session = with(vec![code("anna", &own)]).await.unwrap();
    assert_eq!(
        why(with(vec![code("anna", &own)]).await),
        Why::UsedCode,
        "the same again"
    );
    // From its own token, and only from one that rests on the factor.
    let again = || vec![Proof::Token(Secret::new(session.token.expose().clone()))];
    log_in(&site.identity, again(), in_project("anna")).await.unwrap();
    let recovery = Proof::RecoveryCode {
        user: named("anna"),
        code: Secret::new(bert.recovery[0].expose().clone()),
    };
    assert_eq!(why(with(vec![recovery]).await), Why::WrongCode);
    let denied = site.audit("auth:login").await.items;
    assert!(
        denied
            .iter()
            .filter(|entry| entry.object.id == Some(anna.user.uuid()))
            .count()
            > 6
    );
}

#[tokio::test]
async fn attack_10_guessing_holds_up_the_guesser_alone() {
    let site = Site::bootstrapped().await;
    let (_, _) = site.member("anna").await;
    site.member("bert").await;
    let mut held = 0;
    for n in 0..200 {
        let guess = vec![password("anna", &format!("guess number {n}"))];
        let ask = skyloom_identity::LogIn::new(guess, ScopeAsked::Unscoped);
        match site.identity.log_in(ask, "198.51.100.9").await {
            Err(AuthError::Throttled(throttled)) => {
                assert!(throttled.retry_after > Duration::ZERO);
                held += 1;
            }
            refused => assert_eq!(why(refused), Why::WrongPassword),
        }
    }
    assert!(held >= 190, "{held}");
    // By its id there is no second budget, nor with other capitals.
    let id = site
        .identity
        .directory()
        .snapshot()
        .find_user(skyloom_identity::DEFAULT_DOMAIN, "anna")
        .unwrap()
        .value
        .id;
    let by_id = Proof::Password {
        user: skyloom_identity::UserRef::Id(id),
        password: Secret::new("guess".to_owned()),
    };
    for proof in [by_id, password("ANNA", "guess")] {
        let ask = skyloom_identity::LogIn::new(vec![proof], ScopeAsked::Unscoped);
        let refused = site.identity.log_in(ask, "198.51.100.9").await;
        assert!(matches!(refused, Err(AuthError::Throttled(_))), "{refused:?}");
    }
    // Spread over users, the source is held up; others at other places are not.
    let mut held = 0;
    for n in 0..200 {
        let guess = vec![password(&format!("nobody{n}"), "guess")];
        let ask = skyloom_identity::LogIn::new(guess, ScopeAsked::Unscoped);
        let refused = site.identity.log_in(ask, "198.51.100.9").await;
        held += usize::from(matches!(refused, Err(AuthError::Throttled(_))));
    }
    assert!(held > 150, "{held}");
    log_in(
        &site.identity,
        vec![password("bert", PASSWORD)],
        in_project("bert"),
    )
    .await
    .unwrap();
    log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        in_project("anna"),
    )
    .await
    .unwrap();
    let told = site.audit("auth:login").await.items.len();
    assert!(told <= 60, "a flood is counted: {told}");
}

#[tokio::test]
async fn attack_11_a_long_password_is_not_hashed() {
    let site = Site::bootstrapped().await;
    site.member("anna").await;
    let long = vec![password("anna", &"x".repeat(1 << 20))];
    assert_eq!(
        why(log_in(&site.identity, long, ScopeAsked::Unscoped).await),
        Why::TooLong
    );
}
