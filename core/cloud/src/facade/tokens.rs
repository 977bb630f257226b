//! API tokens: shown once, kept as hashes.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{
    Host, Meta, Name, Project, Reason, Role, Scope, Timestamp, Token, TokenId, TokenSpec, paths,
};
use skyloom_store::{Txn, Versioned};

use super::Cloud;
use super::once::Change;
use super::records::{create, prefix};
use crate::{
    Caller, CloudError, CreateToken, FieldError, ListQuery, Listed, Result, ShownOnce, TokenAccepted, checks,
    hash,
};

/// Below what all tokens lie.
const TOKENS: &str = "token-hashes";

impl Cloud {
    /// Whose secret this is, if it is valid now. The look-up goes by the secret's hash, so nothing is compared byte by
    /// byte that a caller could measure.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn authenticate(&self, secret: &str) -> Result<Option<Token>> {
        if secret.len() > 256 || !secret.starts_with("sky_") {
            return Ok(None);
        }
        let found = self
            .read::<Token>(&paths::token_hash(&hash::sha256(secret.as_bytes())))
            .await?;
        let now = self.now();
        Ok(found
            .map(|t| t.value)
            .filter(|t| t.spec.expires_at.is_none_or(|end| now < end)))
    }

    /// Makes a token. Administrators only.
    ///
    /// # Errors
    /// `name.invalid`, `project.not_found`, `host.not_found`, `token.expired`, `role.denied`.
    pub async fn create_token(&self, caller: &Caller, request: CreateToken) -> Result<TokenAccepted> {
        caller.may_operate()?;
        let name = checks::text::name("name", &request.name).map_err(CloudError::field)?;
        if request.expires_at.is_some_and(|end| end <= self.now()) {
            let field = FieldError::new("expires_at", "token.expired", "it would have expired already");
            return Err(CloudError::field(field));
        }
        let (token, secret, part) = self.new_token(name, request.role.clone(), request.expires_at)?;
        let done = self
            .once(caller, "tokens.create", json!(request), || {
                let (token, part, role) = (token.clone(), part.clone(), request.role.clone());
                async move {
                    let guard = self.role_exists(&role).await?;
                    let answer = TokenAccepted { token, secret: None };
                    Ok(Change::new(part.and(guard), answer))
                }
                .boxed()
            })
            .await?;
        Ok(TokenAccepted {
            secret: done.fresh.then_some(secret),
            ..done.answer
        })
    }

    /// A page of all tokens, in no particular order. Administrators only.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`, `role.denied`.
    pub async fn list_tokens(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Token>> {
        caller.may_operate()?;
        self.list_resources(&[prefix(TOKENS)?], query).await
    }

    /// Takes a token back. Administrators only.
    ///
    /// # Errors
    /// `token.not_found`, `role.denied`.
    pub async fn delete_token(&self, caller: &Caller, id: TokenId) -> Result<()> {
        caller.may_operate()?;
        self.once(caller, "tokens.delete", json!(id), || {
            async move {
                let found = self.tokens_where(|t| t.meta.id == id.uuid()).await?;
                let token = found.first().ok_or_else(|| CloudError::not_found("token"))?;
                Ok(Change::new(token.delete(), ()))
            }
            .boxed()
        })
        .await?;
        Ok(())
    }

    /// A token, its secret, and the part of a commit that makes it valid.
    pub(crate) fn new_token(
        &self,
        name: Name,
        role: Role,
        expires_at: Option<Timestamp>,
    ) -> Result<(Token, ShownOnce, Txn)> {
        let secret = hash::token_secret(&*self.parts.ids);
        let token = Token {
            meta: Meta::new(self.parts.ids.uuid(), name, Scope::System, self.now()),
            spec: TokenSpec {
                role,
                hint: secret.chars().take(8).collect(),
                expires_at,
            },
        };
        let part = create(&paths::token_hash(&hash::sha256(secret.as_bytes())), &token)?;
        Ok((token, ShownOnce::new(secret), part))
    }

    /// All tokens that fit. They are few, and this is rare.
    pub(crate) async fn tokens_where(&self, keep: impl Fn(&Token) -> bool) -> Result<Vec<Versioned<Token>>> {
        let table = skyloom_store::Table::<Token>::new(self.parts.backend.clone(), prefix(TOKENS)?);
        let all = table.list_all().await?;
        Ok(all.items.into_iter().filter(|t| keep(&t.value)).collect())
    }

    /// Guards that what a role names exists.
    async fn role_exists(&self, role: &Role) -> Result<Txn> {
        let missing = |what: &str| {
            let reason = Reason::new(
                format!("{what}.not_found"),
                format!("role: there is no such {what}"),
            );
            CloudError::invalid(reason)
        };
        let guard = match role {
            Role::Engine => return Ok(Txn::new()),
            Role::Admin { project } | Role::Member { project } | Role::Reader { project } => self
                .resource::<Project>(Scope::System, project.uuid())
                .await?
                .ok_or_else(|| missing("project"))?
                .unchanged(),
            Role::Agent { host } => self
                .resource::<Host>(Scope::System, host.uuid())
                .await?
                .ok_or_else(|| missing("host"))?
                .unchanged(),
        };
        Ok(Txn::new().guard(guard))
    }
}
