//! API tokens: made, found by what is left of their secrets, taken back.

use std::sync::Arc;

use skyloom_model::{Secret, TokenId};
use skyloom_store::Versioned;

use super::{Call, Deed, Identity};
use crate::{ApiToken, ChangeError, ChangeResult, Holder, NewApiToken, NewSecret, Snapshot};

/// A new API token.
#[derive(Debug)]
pub struct MadeToken {
    /// What is kept of it.
    pub token: ApiToken,
    /// The secret: shown once.
    pub secret: Secret<String>,
}

impl Identity {
    /// Makes an API token: see [`crate::Edit::create_token`] for who may make which. That the host of an agent is there is for the caller to look at.
    ///
    /// # Errors
    /// As [`crate::Edit::create_token`]; `Invalid` for patterns that name no permission.
    pub async fn create_token(&self, call: &Call<'_>, asked: NewApiToken) -> ChangeResult<MadeToken> {
        if let Holder::User { permissions, .. } = &asked.holder {
            self.check_patterns("permissions", permissions)?;
        }
        let secret = NewSecret::generate(&*self.0.ids);
        let token = self
            .change(
                call,
                |edit| edit.create_token(call.by, asked.clone(), &secret),
                |token| self.token_deed("token:create", token),
            )
            .await?;
        Ok(MadeToken {
            token,
            secret: secret.secret,
        })
    }

    /// Takes an API token back. Whether the caller may, has been decided before.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_token(&self, call: &Call<'_>, id: TokenId) -> ChangeResult<ApiToken> {
        self.change(
            call,
            |edit| edit.delete_token(id),
            |token| self.token_deed("token:delete", token),
        )
        .await
    }

    /// A secret for a program: an application credential, say.
    #[must_use]
    pub fn new_secret(&self) -> NewSecret {
        NewSecret::generate(&*self.0.ids)
    }

    fn token_deed(&self, action: &'static str, token: &ApiToken) -> Deed {
        let deed = Deed::new(action).on(token.id.uuid()).named(&token.name);
        match &token.holder {
            Holder::User { scope, .. } => deed.in_scope(self, *scope),
            Holder::Engine | Holder::Agent { .. } => deed,
        }
    }

    /// Refuses patterns that name no permission of this cloud.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn check_patterns(&self, field: &'static str, patterns: &[String]) -> ChangeResult<()> {
        if patterns.is_empty() {
            return Ok(());
        }
        match crate::Narrowed::to(&self.0.registry, patterns) {
            Ok(_) => Ok(()),
            Err(error) => Err(ChangeError::Invalid {
                field,
                why: error.to_string(),
            }),
        }
    }
}

impl Snapshot {
    /// The API tokens whose secrets begin so: with what is kept of them in clear, so a whole secret finds its token too.
    pub fn tokens_from<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = &'a Arc<Versioned<ApiToken>>> {
        self.tokens()
            .filter(move |token| token.value.hint.starts_with(begin) || begin.starts_with(&token.value.hint))
    }
}
