//! Passwords: set by who manages users, changed by the users themselves.

use std::sync::Arc;
use std::time::Duration;

use skyloom_model::{Reason, Secret, Timestamp};

use super::ask::UserRef;
use super::login::{address, denial};
use super::{Call, Deed, Identity};
use crate::audit::{AuditActor, Word};
use crate::{
    Actor, AuthError, AuthScope, ChangeError, DomainId, Method, PasswordChange, PasswordError, Principal,
    Snapshot, TotpError, User, UserId, VaultError, Via,
};

/// A secret was not set or changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The old one was not accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The new one is not allowed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// It was not kept.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// It was not sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The second factor makes no sense.
    #[error(transparent)]
    Totp(#[from] TotpError),
}

impl SecretError {
    /// The same as data, where it is not an [`AuthError`] or a [`ChangeError`], which the face puts in its own words.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Password(error) => Some(error.reason()),
            Self::Vault(error) => Some(error.reason()),
            Self::Totp(error) => Some(Reason::new("totp.invalid", error.to_string())),
            Self::Auth(_) | Self::Change(_) => None,
        }
    }
}

/// What the new password of a user comes to.
struct New {
    hash: String,
    keep: usize,
    expires_at: Option<Timestamp>,
}

impl Identity {
    fn password_end(&self, ignored: bool) -> Option<Timestamp> {
        let days = self.0.config.password_days.filter(|_| !ignored)?;
        let life = jiff::SignedDuration::try_from(Duration::from_secs(u64::from(days) * 86_400)).ok()?;
        self.now().checked_add(life).ok()
    }

    async fn new_password(
        &self,
        at: &Snapshot,
        user: &User,
        own: bool,
        new: Secret<String>,
    ) -> Result<New, PasswordError> {
        let kept = at.password(user.id);
        let change = PasswordChange {
            name: &user.name,
            former: kept.map_or(&[], |kept| &kept.value.hashes),
            own_since: kept.filter(|_| own).map(|kept| kept.value.changed_at),
        };
        let rules = &self.0.config.password_rules;
        let hashes = rules.change(&self.0.hasher, &change, new, self.now()).await?;
        let keep = hashes.len();
        Ok(New {
            hash: hashes.into_iter().next().unwrap_or_default(),
            keep,
            expires_at: self.password_end(user.options.ignore_password_expiry),
        })
    }

    /// Makes a user, with a password if there is one.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn create_user(
        &self,
        call: &Call<'_>,
        domain: DomainId,
        name: &str,
        password: Option<Secret<String>>,
        fill: impl Fn(&mut User),
    ) -> Result<User, SecretError> {
        let hash = match password {
            None => None,
            Some(new) => {
                let broken = self.0.config.password_rules.check(&new, name);
                if !broken.is_empty() {
                    return Err(PasswordError::Rules(broken).into());
                }
                Some(self.0.hasher.hash(new).await?)
            }
        };
        let made = self.change(
            call,
            |edit| {
                edit.create_user_with(domain, name, hash.clone(), |user| {
                    fill(user);
                    if hash.is_some() {
                        user.password_expires_at = self.password_end(user.options.ignore_password_expiry);
                    }
                })
            },
            |user| {
                Deed::new("user:create")
                    .on(user.id.uuid())
                    .named(&user.name)
                    .in_domain(user.domain)
            },
        );
        Ok(made.await?)
    }

    /// Sets the password of a user, whatever it was. All tokens of the user end. Nobody sets that of somebody who may do more.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn set_password(
        &self,
        call: &Call<'_>,
        id: UserId,
        new: Secret<String>,
    ) -> Result<(), SecretError> {
        let at = self.0.directory.snapshot();
        let user = at.user(id).ok_or_else(|| gone(id))?;
        let new = self.new_password(&at, &user.value, false, new).await?;
        let set = self.change(
            call,
            |edit| {
                if id != call.by.user && !edit.snapshot().commands(call.by, Actor::User(id)) {
                    return Err(ChangeError::Forbidden(
                        "nobody sets the password of somebody who may do more than themselves",
                    ));
                }
                edit.set_password(id, new.hash.clone(), new.keep, new.expires_at)
            },
            |user| told("user:set-password", user),
        );
        set.await?;
        Ok(())
    }

    /// A user changes its own password by showing the old one; also one that has expired. All its tokens end. What is tried is held back as
    /// in a login.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn change_password(
        &self,
        who: &UserRef,
        old: &Secret<String>,
        new: Secret<String>,
        source: &str,
        request_id: &str,
    ) -> Result<(), SecretError> {
        self.0.fresh().await?;
        let at = self.0.directory.snapshot();
        let id = match self.0.prove_password(&at, who, old, source).await {
            Ok(id) => id,
            Err(error) => {
                if let Some(outcome) = denial(&error) {
                    let action = Word::new("user:change-password");
                    let actor = AuditActor::unknown(vec![Method::Password]);
                    let entry = self
                        .0
                        .attempted(action, who.find(&at), actor, outcome, source, request_id);
                    self.0.tell(entry).await?;
                }
                return Err(error.into());
            }
        };
        let user = at.user(id).ok_or_else(|| gone(id))?;
        if user.value.options.lock_password {
            return Err(ChangeError::Forbidden("this user cannot change the own password").into());
        }
        let new = self.new_password(&at, &user.value, true, new).await?;
        let by = Principal {
            user: id,
            domain: user.value.domain,
            scope: AuthScope::None,
            roles: Arc::default(),
            via: Via::User,
            methods: vec![Method::Password],
            until: None,
            audit_ids: Vec::new(),
        };
        let call = Call {
            by: &by,
            source: address(source),
            request_id,
        };
        let shown = at.password(id).map(|kept| kept.value.changed_at);
        let changed = self.change(
            &call,
            |edit| {
                // What was shown is the password in force, not one that was in force when this began.
                if edit.snapshot().password(id).map(|kept| kept.value.changed_at) != shown {
                    return Err(ChangeError::Conflict(
                        "the password was changed at the same moment".to_owned(),
                    ));
                }
                edit.set_password(id, new.hash.clone(), new.keep, new.expires_at)
            },
            |user| told("user:change-password", user),
        );
        changed.await?;
        Ok(())
    }
}

fn told(action: &'static str, user: &User) -> Deed {
    Deed::new(action)
        .on(user.id.uuid())
        .named(&user.name)
        .in_domain(user.domain)
        .changed(&["password"])
}

fn gone(id: UserId) -> ChangeError {
    ChangeError::NotFound {
        what: "user",
        id: id.to_string(),
        path: String::new(),
    }
}
