//! Second factors: every path ends in a verified one.

use skyloom_identity::{CredentialId, Doomed, Proof, ScopeAsked, SecretError, Totp, TotpConfig, UserId, Why};
use skyloom_model::Secret;
use tokio::task::JoinSet;

use super::{PASSWORD, Site, call, log_in, named, now, password, rights, why};

/// A user with a confirmed second factor, its device and its recovery codes.
pub(super) struct Guarded {
    pub(super) user: UserId,
    pub(super) factor: CredentialId,
    pub(super) device: Totp,
    pub(super) recovery: Vec<Secret<String>>,
}

pub(super) async fn guarded(site: &Site, name: &str) -> Guarded {
    let (user, project) = site.member(name).await;
    let by = site.principal(user, skyloom_identity::AuthScope::Project(project));
    let enrolment = site
        .identity
        .enrol(&call(&by), user, TotpConfig::default())
        .await
        .unwrap();
    let device = Totp::from_base32(TotpConfig::default(), enrolment.secret.expose()).unwrap();
    assert!(enrolment.uri.expose().starts_with("otpauth://totp/skyloom:"));
    let factor = enrolment.id;
    // Not confirmed, it asks for nothing.
    let before = log_in(
        &site.identity,
        vec![password(name, PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
    let wrong = site.identity.confirm(&call(&by), user, factor, "000000").await;
    assert!(matches!(wrong, Err(SecretError::Auth(_))));
    let recovery = site
        .identity
        .confirm(&call(&by), user, factor, &device.code_at(now(site)))
        .await
        .unwrap();
    assert_eq!(
        why(rights(&site.identity, before.token.expose()).await),
        Why::Outdated,
        "it was proven with less"
    );
    Guarded {
        user,
        factor,
        device,
        recovery,
    }
}

pub(super) fn code(name: &str, code: &str) -> Proof {
    Proof::Totp {
        user: named(name),
        code: Secret::new(code.to_owned()),
    }
}

#[tokio::test]
async fn a_code_counts_once() {
    let mut site = Site::bootstrapped().await;
    let anna = guarded(&site, "anna").await;
    let shown = anna.device.code_at(now(&site));
    let with = |shown: &str| vec![password("anna", PASSWORD), code("anna", shown)];
    let used = log_in(&site.identity, with(&shown), ScopeAsked::Unscoped).await;
    assert_eq!(why(used), Why::UsedCode, "it confirmed the factor");
    site.later(60);
    let shown = anna.device.code_at(now(&site));
    let other = site.another().await;
    let mut tries = JoinSet::new();
    for n in 0..6 {
        let identity = if n % 2 == 0 {
            site.identity.clone()
        } else {
            other.clone()
        };
        let proofs = with(&shown);
        tries.spawn(async move { log_in(&identity, proofs, ScopeAsked::Unscoped).await });
    }
    let passed: Vec<_> = tries
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::ok)
        .collect();
    assert_eq!(passed.len(), 1, "of those who show one code at the same moment");
    let methods = &passed[0].claims.methods;
    assert!(methods.contains(&skyloom_identity::Method::Totp), "{methods:?}");
}

#[tokio::test]
async fn a_recovery_code_counts_once_and_new_ones_replace_the_rest() {
    let site = Site::bootstrapped().await;
    let anna = guarded(&site, "anna").await;
    let with = |code: &Secret<String>| {
        let recovery = Proof::RecoveryCode {
            user: named("anna"),
            code: Secret::new(code.expose().clone()),
        };
        vec![password("anna", PASSWORD), recovery]
    };
    log_in(&site.identity, with(&anna.recovery[0]), ScopeAsked::Unscoped)
        .await
        .unwrap();
    let again = log_in(&site.identity, with(&anna.recovery[0]), ScopeAsked::Unscoped).await;
    assert_eq!(why(again), Why::WrongCode);
    site.later(60);
    let by = site.principal(anna.user, skyloom_identity::AuthScope::None);
    let shown = anna.device.code_at(now(&site));
    let wrong = site
        .identity
        .renew_recovery_codes(&call(&by), anna.user, anna.factor, "1")
        .await;
    assert!(wrong.is_err());
    let new = site
        .identity
        .renew_recovery_codes(&call(&by), anna.user, anna.factor, &shown)
        .await
        .unwrap();
    let old = log_in(&site.identity, with(&anna.recovery[1]), ScopeAsked::Unscoped).await;
    assert_eq!(why(old), Why::WrongCode);
    log_in(&site.identity, with(&new[0]), ScopeAsked::Unscoped)
        .await
        .unwrap();
    // Taken away, it is asked for no more.
    site.identity
        .editor()
        .remove(Doomed::Credential(anna.factor), skyloom_store::Txn::new())
        .await
        .unwrap();
    log_in(
        &site.identity,
        vec![password("anna", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn rules_of_a_user_ask_for_more() {
    let site = Site::bootstrapped().await;
    let anna = guarded(&site, "anna").await;
    let rules = vec![
        vec!["password".to_owned(), "totp".to_owned()],
        vec!["external".to_owned()],
    ];
    (site.identity.editor())
        .change(|edit| {
            edit.update_user(anna.user, |user| {
                user.options.multi_factor_auth_enabled = true;
                user.options.multi_factor_auth_rules = rules.clone();
            })
        })
        .await
        .unwrap();
    site.later(60);
    let proofs = vec![
        password("anna", PASSWORD),
        code("anna", &anna.device.code_at(now(&site))),
    ];
    let session = log_in(&site.identity, proofs, ScopeAsked::Unscoped)
        .await
        .unwrap();
    let again = vec![Proof::Token(Secret::new(session.token.expose().clone()))];
    log_in(&site.identity, again, ScopeAsked::Unscoped).await.unwrap();

    let bert = site.user("bert").await;
    (site.identity.editor())
        .change(|edit| {
            edit.update_user(bert, |user| {
                user.options.multi_factor_auth_enabled = true;
                user.options.multi_factor_auth_rules = rules.clone();
            })
        })
        .await
        .unwrap();
    let refused = log_in(
        &site.identity,
        vec![password("bert", PASSWORD)],
        ScopeAsked::Unscoped,
    )
    .await;
    assert_eq!(why(refused), Why::Insufficient);
}
