//! Proofs: what each of them shows, and that they are enough together.

use std::sync::Arc;

use skyloom_model::{Secret, Timestamp};
use subtle::ConstantTimeEq as _;

use super::ask::{CredentialRef, Proof, UserRef};
use super::verdict::{Verdict, grounds_of};
use super::{Identity, Inner};
use crate::{
    Attempt, AuthError, ChangeError, CredentialId, CredentialKind, Denied, External, Grounds, Method,
    PasswordError, RecoveryCodes, SecondFactor, Snapshot, TokenClaims, Totp, TotpUse, Unrecorded, User,
    UserId, Verdict as PasswordVerdict, Via, Why, parse_secret,
};

/// What is proven, and what the new token is made from.
pub(super) struct Proven {
    pub(super) user: UserId,
    pub(super) methods: Vec<Method>,
    /// The token that it is made from.
    pub(super) parent: Option<Arc<TokenClaims>>,
    /// A credential with a scope of its own: what the new token rests on, and its end.
    pub(super) bound: Option<(Grounds, Option<Timestamp>)>,
}

/// What is known of somebody who tries, for the audit.
#[derive(Default)]
pub(super) struct Tried {
    pub(super) user: Option<UserId>,
    pub(super) methods: Vec<Method>,
}

/// The proofs of a login, each in its place.
struct Sorted<'a> {
    first: First<'a>,
    second: Option<(&'a UserRef, Second<'a>)>,
}

enum First<'a> {
    Password(&'a UserRef, &'a Secret<String>),
    External(&'a External),
    Token(&'a str),
    Application(&'a CredentialRef, &'a str),
}

#[derive(Clone, Copy)]
enum Second<'a> {
    Code(&'a str),
    Recovery(&'a str),
}

fn sort(proofs: &[Proof]) -> Result<Sorted<'_>, Denied> {
    let (mut first, mut second) = (None, None);
    for proof in proofs {
        let twice = match proof {
            Proof::Password { user, password } => first.replace(First::Password(user, password)).is_some(),
            Proof::External { said, .. } => first.replace(First::External(said)).is_some(),
            Proof::Token(token) => first.replace(First::Token(token.expose())).is_some(),
            Proof::ApplicationCredential { credential, secret } => first
                .replace(First::Application(credential, secret.expose()))
                .is_some(),
            Proof::Totp { user, code } => second.replace((user, Second::Code(code.expose()))).is_some(),
            Proof::RecoveryCode { user, code } => {
                second.replace((user, Second::Recovery(code.expose()))).is_some()
            }
        };
        if twice {
            return Err(Why::Malformed.into());
        }
    }
    // A second factor by itself proves nothing.
    let first = first.ok_or(Why::Insufficient)?;
    if matches!(first, First::Application(..)) && second.is_some() {
        return Err(Why::Malformed.into());
    }
    Ok(Sorted { first, second })
}

fn methods(proofs: &[Proof]) -> Vec<Method> {
    let method = |proof: &Proof| match proof {
        Proof::Password { .. } => Method::Password,
        Proof::Totp { .. } | Proof::RecoveryCode { .. } => Method::Totp,
        Proof::External { .. } => Method::External,
        Proof::Token(_) => Method::Token,
        Proof::ApplicationCredential { .. } => Method::ApplicationCredential,
    };
    proofs.iter().take(4).map(method).collect()
}

impl Inner {
    /// Looks at all proofs.
    pub(super) async fn prove(
        &self,
        at: &Snapshot,
        proofs: &[Proof],
        source: &str,
        tried: &mut Tried,
    ) -> Result<Proven, AuthError> {
        tried.methods = methods(proofs);
        let Sorted { first, second } = sort(proofs)?;
        match first {
            First::Password(who, password) => {
                tried.user = who.find(at);
                let attempt = self.attempt(at, who, tried.user, source)?;
                let user = self.password(at, tried.user, password, attempt).await?;
                let (user, attempt) = user;
                let mut methods = vec![Method::Password];
                self.second_factor(at, user, second, &mut methods).await?;
                satisfied(user, &methods)?;
                right(attempt);
                Ok(Proven {
                    user: user.id,
                    methods,
                    parent: None,
                    bound: None,
                })
            }
            First::External(said) => {
                tried.user = Some(said.user_id());
                let user = at
                    .user(said.user_id())
                    .filter(|user| at.user_counts(user.value.id));
                let user = &user.ok_or(Denied::new(Why::Gone))?.value;
                let attempt = match second {
                    Some((who, _)) => self.attempt(at, who, Some(user.id), source)?,
                    None => None,
                };
                let mut methods = vec![Method::External];
                self.second_factor(at, user, second, &mut methods).await?;
                satisfied(user, &methods)?;
                right(attempt);
                Ok(Proven {
                    user: user.id,
                    methods,
                    parent: None,
                    bound: None,
                })
            }
            First::Token(token) => {
                let now = self.clock.now();
                match self.look(at, token, now)? {
                    Verdict::Bearer(claims) => self.by_bearer(at, claims, second, source, tried).await,
                    Verdict::Api(token) => {
                        let grounds = grounds_of(at, &token.value)?;
                        tried.user = Some(grounds.user);
                        if second.is_some() {
                            return Err(Denied::new(Why::Malformed).into());
                        }
                        Ok(Proven {
                            user: grounds.user,
                            methods: vec![Method::ApiToken],
                            parent: None,
                            bound: Some((grounds, token.value.expires_at)),
                        })
                    }
                }
            }
            First::Application(which, secret) => self.by_application(at, which, secret, source, tried),
        }
    }

    /// Asks whether an attempt may be made; `None` for users whose wrong passwords are not counted.
    fn attempt(
        &self,
        at: &Snapshot,
        who: &UserRef,
        found: Option<UserId>,
        source: &str,
    ) -> Result<Option<Attempt<'_>>, AuthError> {
        let user = found.and_then(|id| at.user(id));
        if user.is_some_and(|user| user.value.options.ignore_lockout_failure_attempts) {
            return Ok(None);
        }
        // By whatever name, a user has one measure.
        let name = found.map_or_else(|| who.typed(), |id| id.to_string());
        Ok(Some(self.throttle.begin(&name, source)?))
    }

    /// Compares a password. That there is no such user, or that it is disabled, shows in nothing.
    async fn password<'s>(
        &self,
        at: &'s Snapshot,
        found: Option<UserId>,
        password: &Secret<String>,
        attempt: Option<Attempt<'s>>,
    ) -> Result<(&'s User, Option<Attempt<'s>>), AuthError>
    where
        Self: 's,
    {
        let kept = found.and_then(|id| at.password(id));
        let kept = kept.and_then(|kept| kept.value.current());
        let renewed = match self.hasher.verify(password.clone(), kept).await {
            Ok(PasswordVerdict::Right { renewed }) => renewed,
            Ok(PasswordVerdict::Wrong) => {
                let why = if kept.is_some() {
                    Why::WrongPassword
                } else {
                    Why::UnknownUser
                };
                return Err(Denied::new(why).into());
            }
            Err(PasswordError::TooLong(_)) => return Err(Denied::new(Why::TooLong).into()),
            Err(error @ PasswordError::Damaged(_)) => {
                tracing::error!(user = ?found, %error, "a password cannot be compared");
                return Err(Denied::new(Why::WrongPassword).into());
            }
            Err(error) => {
                if let Some(attempt) = attempt {
                    attempt.unanswered();
                }
                return Err(AuthError::Unavailable(error.to_string()));
            }
        };
        let user = found
            .filter(|id| at.user_counts(*id))
            .and_then(|id| at.user(id))
            .ok_or(Denied::new(Why::Gone))?;
        if let (Some(new), Some(old)) = (renewed, kept) {
            let change = |edit: &crate::Edit<'_>| edit.renew_hash(user.value.id, old, &new);
            if let Err(error) = self.editor.change(change).await {
                tracing::warn!(
                    error = skyloom_model::report(&error),
                    "a renewed password hash was not kept"
                );
            }
        }
        let expired = Snapshot::ended(user.value.password_expires_at, self.clock.now());
        if expired && !user.value.options.ignore_password_expiry {
            return Err(Denied::new(Why::PasswordExpired).into());
        }
        Ok((&user.value, attempt))
    }

    async fn by_bearer(
        &self,
        at: &Snapshot,
        claims: Arc<TokenClaims>,
        second: Option<(&UserRef, Second<'_>)>,
        source: &str,
        tried: &mut Tried,
    ) -> Result<Proven, AuthError> {
        tried.user = Some(claims.sub);
        if claims.via != Via::User {
            return Err(Denied::new(Why::NotRescopable).into());
        }
        let user = &at.user(claims.sub).ok_or(Denied::new(Why::Gone))?.value;
        let mut methods = claims.methods.clone();
        let attempt = match second {
            Some((who, _)) => self.attempt(at, who, Some(user.id), source)?,
            None => None,
        };
        self.second_factor(at, user, second, &mut methods).await?;
        if !methods.contains(&Method::Token) {
            methods.push(Method::Token);
        }
        satisfied(user, &methods)?;
        right(attempt);
        Ok(Proven {
            user: user.id,
            methods,
            parent: Some(claims),
            bound: None,
        })
    }

    fn by_application(
        &self,
        at: &Snapshot,
        which: &CredentialRef,
        secret: &str,
        source: &str,
        tried: &mut Tried,
    ) -> Result<Proven, AuthError> {
        let found = which.find(at).and_then(|id| at.credential(id));
        tried.user = found.map(|found| found.value.user);
        let measure = found.map_or_else(|| which.typed(), |found| format!("credential {}", found.value.id));
        let attempt = self.throttle.begin(&measure, source)?;
        let hash = parse_secret(secret)?;
        let found = found.ok_or(Denied::new(Why::UnknownSecret))?;
        let own = found.value.application().ok_or(Denied::new(Why::UnknownSecret))?;
        if !bool::from(
            own.secret_hash
                .as_str()
                .as_bytes()
                .ct_eq(hash.as_str().as_bytes()),
        ) {
            return Err(Denied::new(Why::UnknownSecret).into());
        }
        attempt.right();
        if Snapshot::ended(own.expires_at, self.clock.now()) {
            return Err(Denied::new(Why::Expired).into());
        }
        let user = at.user(found.value.user).ok_or(Denied::new(Why::Gone))?;
        let grounds = Grounds {
            user: user.value.id,
            domain: user.value.domain,
            scope: crate::AuthScope::Project(own.project),
            via: Via::ApplicationCredential { id: found.value.id },
        };
        Ok(Proven {
            user: user.value.id,
            methods: vec![Method::ApplicationCredential],
            parent: None,
            bound: Some((grounds, own.expires_at)),
        })
    }

    /// The second factor: needed by who has one, unless the token in hand rests on it already.
    async fn second_factor(
        &self,
        at: &Snapshot,
        user: &User,
        second: Option<(&UserRef, Second<'_>)>,
        methods: &mut Vec<Method>,
    ) -> Result<(), AuthError> {
        let factors: Vec<(CredentialId, &SecondFactor)> = confirmed(at, user.id).collect();
        let Some((who, presented)) = second else {
            let needed = user.needs_second_factor || !factors.is_empty();
            if needed && !methods.contains(&Method::Totp) {
                return Err(Denied::new(Why::NoCode).into());
            }
            return Ok(());
        };
        if who.find(at) != Some(user.id) {
            return Err(Denied::new(Why::WrongCode).into());
        }
        let mut refused = Denied::new(Why::WrongCode);
        for (id, factor) in factors {
            let taken = match presented {
                Second::Code(code) => match self.code(user.id, id, factor, code).await? {
                    Ok(right) => {
                        let save = async |used: TotpUse| {
                            self.record(id, factor, |now| now.used = used.clone()).await
                        };
                        Ok(right.record(save).await?)
                    }
                    Err(why) => Err(why),
                },
                Second::Recovery(code) => match factor.recovery.verify(code) {
                    Ok(right) => {
                        let save = async |left: RecoveryCodes| {
                            self.record(id, factor, |now| now.recovery = left.clone()).await
                        };
                        Ok(right.record(save).await?)
                    }
                    Err(why) => Err(why),
                },
            };
            match taken {
                Ok(method) => {
                    if !methods.contains(&method) {
                        methods.push(method);
                    }
                    return Ok(());
                }
                Err(why) => refused = why,
            }
        }
        Err(refused.into())
    }

    pub(super) async fn code(
        &self,
        user: UserId,
        id: CredentialId,
        factor: &SecondFactor,
        code: &str,
    ) -> Result<Result<Unrecorded<TotpUse>, Denied>, AuthError> {
        let unusable = |error: &dyn std::fmt::Display| {
            tracing::error!(credential = %id, %error, "a second factor cannot be opened");
            AuthError::Unavailable("a second factor cannot be opened".to_owned())
        };
        let place =
            skyloom_store::Key::parse(&crate::paths::credential(user, id)).map_err(|e| unusable(&e))?;
        let secret = self
            .secrets
            .open(&place, &factor.sealed)
            .await
            .map_err(|e| unusable(&e))?;
        let totp = Totp::from_secret(factor.config, secret).map_err(|e| unusable(&e))?;
        Ok(totp.verify(code, self.clock.now(), &factor.used))
    }

    /// Keeps that a code was taken. Of two who show one code at the same moment, one is too late.
    async fn record(
        &self,
        id: CredentialId,
        seen: &SecondFactor,
        change: impl Fn(&mut SecondFactor),
    ) -> Result<(), AuthError> {
        let kept = self
            .editor
            .change(|edit| {
                let now = edit.snapshot().credential(id).map(|found| &found.value.kind);
                if !matches!(now, Some(CredentialKind::Totp(now)) if now == seen) {
                    return Err(ChangeError::Forbidden("the code was used at the same moment"));
                }
                edit.update_second_factor(id, &change)
            })
            .await;
        match kept {
            Ok(_) => Ok(()),
            Err(ChangeError::Store(error)) => Err(AuthError::Unavailable(skyloom_model::report(&error))),
            Err(_) => Err(Denied::new(Why::UsedCode).into()),
        }
    }
}

/// The second factors of a user that count.
pub(super) fn confirmed(at: &Snapshot, user: UserId) -> impl Iterator<Item = (CredentialId, &SecondFactor)> {
    at.credentials_of(user)
        .filter_map(|found| match &found.value.kind {
            CredentialKind::Totp(factor) if factor.confirmed => Some((found.value.id, factor)),
            _ => None,
        })
}

/// The user's own rules of which proofs are enough together.
fn satisfied(user: &User, methods: &[Method]) -> Result<(), Denied> {
    let options = &user.options;
    if !options.multi_factor_auth_enabled || options.multi_factor_auth_rules.is_empty() {
        return Ok(());
    }
    let name = |method: &Method| match method {
        Method::Password => "password",
        Method::Totp => "totp",
        Method::ApplicationCredential => "application_credential",
        Method::Token => "token",
        Method::ApiToken => "api_token",
        Method::Ec2 => "ec2",
        Method::External => "external",
        Method::Certificate => "certificate",
    };
    let has = |wanted: &String| methods.iter().any(|method| name(method) == wanted);
    if options
        .multi_factor_auth_rules
        .iter()
        .any(|rule| rule.iter().all(has))
    {
        return Ok(());
    }
    Err(Why::Insufficient.into())
}

fn right(attempt: Option<Attempt<'_>>) {
    if let Some(attempt) = attempt {
        attempt.right();
    }
}

impl Identity {
    /// Whether a user proves a second factor at each login.
    #[must_use]
    pub fn has_second_factor(&self, user: UserId) -> bool {
        let at = self.0.directory.snapshot();
        confirmed(&at, user).next().is_some()
    }
}

impl Inner {
    /// Proves a user's password alone: for changing it.
    pub(super) async fn prove_password(
        &self,
        at: &Snapshot,
        who: &UserRef,
        password: &Secret<String>,
        source: &str,
    ) -> Result<UserId, AuthError> {
        let found = who.find(at);
        let attempt = self.attempt(at, who, found, source)?;
        match self.password(at, found, password, attempt).await {
            Ok((user, attempt)) => {
                right(attempt);
                Ok(user.id)
            }
            Err(AuthError::Denied(denied)) if denied.why() == Why::PasswordExpired => {
                found.ok_or_else(|| Denied::new(Why::Gone).into())
            }
            Err(error) => Err(error),
        }
    }
}
