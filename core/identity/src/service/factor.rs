//! Second factors: enrolled, confirmed by a first code, taken away.

use skyloom_model::Secret;
use skyloom_store::{Error, ErrorKind, Key};

use super::{Call, Deed, Identity, SecretError};
use crate::{
    AuthError, ChangeError, Credential, CredentialId, CredentialKind, RecoveryCodes, SecondFactor, Totp,
    TotpConfig, TotpUse, Unrecorded, UserId, paths,
};

/// Recovery codes that a user gets.
const CODES: usize = 10;

/// A second factor that does nothing yet: what the device needs to know, shown once.
#[derive(Debug)]
pub struct Enrolment {
    /// Which.
    pub id: CredentialId,
    /// The secret in base32.
    pub secret: Secret<String>,
    /// The address that authenticators read from a picture.
    pub uri: Secret<String>,
}

impl Identity {
    /// A new second factor for a user. It does nothing until it is confirmed.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn enrol(
        &self,
        call: &Call<'_>,
        user: UserId,
        config: TotpConfig,
    ) -> Result<Enrolment, SecretError> {
        let name = {
            let at = self.0.directory.snapshot();
            at.user(user).map(|found| found.value.name.clone())
        };
        let name = name.ok_or_else(|| no_such("user", user.to_string()))?;
        let totp = Totp::generate(config, &*self.0.ids)?;
        let id = CredentialId::fresh(&*self.0.ids);
        let place = Key::parse(&paths::credential(user, id))
            .map_err(|e| ChangeError::from(Error::new(ErrorKind::Invalid, "make key").because(e)))?;
        let sealed = self.0.secrets.seal(&place, totp.secret()).await?;
        let factor = SecondFactor {
            sealed,
            config,
            used: TotpUse::default(),
            recovery: RecoveryCodes::default(),
            confirmed: false,
        };
        self.change(
            call,
            |edit| edit.create_second_factor_as(id, user, factor.clone()),
            |made| self.factor_deed("credential:create", made),
        )
        .await?;
        Ok(Enrolment {
            id,
            secret: totp.base32(),
            uri: totp.enrolment_uri(&self.0.config.issuer, &name),
        })
    }

    /// Confirms a second factor by a first code of it. From now on the user proves it at each login, and all its tokens end, the one in hand too.
    /// What comes out are codes for the day when the device is lost, shown once.
    ///
    /// # Errors
    /// [`SecretError`]: [`SecretError::Auth`] for a wrong code.
    pub async fn confirm(
        &self,
        call: &Call<'_>,
        user: UserId,
        id: CredentialId,
        code: &str,
    ) -> Result<Vec<Secret<String>>, SecretError> {
        let factor = self.factor(user, id)?;
        let right = self.right_code(user, id, &factor, code).await?;
        let (recovery, codes) = RecoveryCodes::generate(CODES, &*self.0.ids);
        let save = async |used: TotpUse| {
            self.change(
                call,
                |edit| {
                    unchanged(edit.snapshot().credential(id).map(|now| &now.value.kind), &factor)?;
                    edit.confirm_second_factor(id, |now| {
                        now.used = used.clone();
                        now.recovery = recovery.clone();
                    })
                },
                |made| {
                    self.factor_deed("credential:create", made)
                        .changed(&["confirmed"])
                },
            )
            .await
            .map(|_| ())
        };
        right.record(save).await?;
        Ok(codes)
    }

    /// New recovery codes in place of all former ones, for a code of the second factor: a token alone does not get them.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn renew_recovery_codes(
        &self,
        call: &Call<'_>,
        user: UserId,
        id: CredentialId,
        code: &str,
    ) -> Result<Vec<Secret<String>>, SecretError> {
        let factor = self.factor(user, id)?;
        if !factor.confirmed {
            return Err(ChangeError::Conflict("the second factor is not confirmed".to_owned()).into());
        }
        let right = self.right_code(user, id, &factor, code).await?;
        let (recovery, codes) = RecoveryCodes::generate(CODES, &*self.0.ids);
        let save = async |used: TotpUse| {
            self.change(
                call,
                |edit| {
                    unchanged(edit.snapshot().credential(id).map(|now| &now.value.kind), &factor)?;
                    edit.update_second_factor(id, |now| {
                        now.used = used.clone();
                        now.recovery = recovery.clone();
                    })
                },
                |made| self.factor_deed("credential:create", made).changed(&["recovery"]),
            )
            .await
            .map(|_| ())
        };
        right.record(save).await?;
        Ok(codes)
    }

    /// As in a login: a code has six digits, and nobody may try them all.
    async fn right_code(
        &self,
        user: UserId,
        id: CredentialId,
        factor: &SecondFactor,
        code: &str,
    ) -> Result<Unrecorded<TotpUse>, SecretError> {
        let measure = format!("factor {id}");
        let attempt = self.0.throttle.begin(&measure, "").map_err(AuthError::from)?;
        match self.0.code(user, id, factor, code).await {
            Ok(right) => {
                let right = right.map_err(AuthError::from)?;
                attempt.right();
                Ok(right)
            }
            Err(error) => {
                attempt.unanswered();
                Err(error.into())
            }
        }
    }

    fn factor(&self, user: UserId, id: CredentialId) -> Result<SecondFactor, ChangeError> {
        let at = self.0.directory.snapshot();
        let found = at.credential(id).filter(|found| found.value.user == user);
        match found.map(|found| &found.value.kind) {
            Some(CredentialKind::Totp(factor)) => Ok(factor.clone()),
            _ => Err(no_such("second factor", id.to_string())),
        }
    }

    fn factor_deed(&self, action: &'static str, made: &Credential) -> Deed {
        let at = self.0.directory.snapshot();
        let deed = Deed::new(action).on(made.id.uuid());
        match at.user(made.user) {
            Some(user) => deed.in_domain(user.value.domain),
            None => deed,
        }
    }
}

fn no_such(what: &'static str, id: String) -> ChangeError {
    let path = String::new();
    ChangeError::NotFound { what, id, path }
}

/// That a second factor is as it was when its code was looked at.
fn unchanged(now: Option<&CredentialKind>, seen: &SecondFactor) -> Result<(), ChangeError> {
    match now {
        Some(CredentialKind::Totp(now)) if now == seen => Ok(()),
        _ => Err(ChangeError::Conflict(
            "the second factor was used at the same moment".to_owned(),
        )),
    }
}
