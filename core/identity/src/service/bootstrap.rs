//! The first start.

use skyloom_model::{ProjectId, Secret, TokenId};

use super::{Identity, SecretError};
use crate::{ChangeError, FIRST_ADMIN, NewSecret, UserId, bootstrap_secret};

/// What the first administrator is let in with: to be shown once, and kept nowhere.
#[derive(Debug)]
pub struct FirstSecrets {
    /// Who it is.
    pub user: UserId,
    /// Its password.
    pub password: Secret<String>,
    /// An API token of it in the scope of the system.
    pub token: Secret<String>,
    /// Which token.
    pub token_id: TokenId,
}

impl Identity {
    /// Makes what a new cloud needs before anybody can log in: see [`crate::Edit::bootstrap`]. The driver must be running. `None`: it has been done before,
    /// or another process was faster. Any number of processes may call it at the same moment, at each start: one of them gets the secrets.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn bootstrap(&self, project: Option<ProjectId>) -> Result<Option<FirstSecrets>, SecretError> {
        self.0.directory.ready().await.map_err(ChangeError::from)?;
        let password = bootstrap_secret(&*self.0.ids);
        let hash = self.0.hasher.hash(password.clone()).await?;
        let (token_id, token) = (TokenId::fresh(&*self.0.ids), NewSecret::generate(&*self.0.ids));
        self.0
            .editor
            .change(|edit| {
                let draft = edit.bootstrap(Some(hash.clone()), project, false)?;
                if !draft.record.made_admin {
                    return Ok(draft);
                }
                let made = edit.bootstrap_token(token_id, &token)?;
                Ok(draft.and(made.txn))
            })
            .await?;
        // By what is there, not by what was answered: an answer may be lost, and another process may have written the same records.
        let at = self.0.directory.snapshot();
        let mine = at.password(FIRST_ADMIN).and_then(|kept| kept.value.current()) == Some(&*hash);
        Ok((mine && at.token(token_id).is_some()).then_some(FirstSecrets {
            user: FIRST_ADMIN,
            password,
            token: token.secret,
            token_id,
        }))
    }
}
