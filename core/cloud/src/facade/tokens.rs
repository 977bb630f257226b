//! Tokens of the cloud's own machines: shown once, kept as hashes among the API tokens of identity.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_identity::{ApiToken, Holder, NewSecret, paths as identity_paths};
use skyloom_model::{
    Host, HostId, Meta, Name, Reason, Scope, Timestamp, Token, TokenHolder, TokenId, TokenSpec,
};
use skyloom_store::{Guard, Table, Txn, Versioned};

use super::Cloud;
use super::list::PageOf;
use super::once::Change;
use super::records::{create, prefix};
use crate::{
    Caller, CloudError, CreateToken, FieldError, ListQuery, Listed, Result, ShownOnce, TokenAccepted, checks,
};

/// Below what all tokens lie.
const TOKENS: &str = "identity/tokens";

/// A new token, and the part of a commit that makes it valid.
#[derive(Clone)]
pub(crate) struct NewToken {
    pub(crate) token: ApiToken,
    pub(crate) secret: ShownOnce,
    pub(crate) part: Txn,
}

impl Cloud {
    /// Makes a token of an engine or an agent. Those of users are made by identity.
    ///
    /// # Errors
    /// `name.invalid`, `host.not_found`, `token.expired`, `token.holder_invalid`, `auth.forbidden`.
    pub async fn create_token(&self, caller: &Caller, request: CreateToken) -> Result<TokenAccepted> {
        caller.may_in_cloud("token:create")?;
        let name = checks::text::name("name", &request.name).map_err(CloudError::field)?;
        if request.expires_at.is_some_and(|end| end <= self.now()) {
            let field = FieldError::new("expires_at", "token.expired", "it would have expired already");
            return Err(CloudError::field(field));
        }
        // Nobody hands on more than they have.
        let holder = match request.holder {
            TokenHolder::Engine => {
                caller.may_in_cloud("store:use")?;
                Holder::Engine
            }
            TokenHolder::Agent { host } => {
                caller.may_in_cloud("host:create")?;
                Holder::Agent { host }
            }
            TokenHolder::User { .. } => {
                let message = "tokens of users are not made here";
                return Err(CloudError::field(FieldError::new(
                    "holder",
                    "token.holder_invalid",
                    message,
                )));
            }
        };
        let new = self.new_token(&name, holder, request.expires_at)?;
        let done = self
            .once(caller, "tokens.create", json!(request), || {
                let new = new.clone();
                async move {
                    let guard = self.holder_exists(&new.token.holder).await?;
                    let token = shown(&new.token)?;
                    let answer = TokenAccepted { token, secret: None };
                    let id = Some(new.token.id.uuid());
                    let change = Change::new(guard.into_iter().fold(new.part, Txn::guard), answer);
                    Ok(change.told_of("token:create", id, Scope::System))
                }
                .boxed()
            })
            .await?;
        if done.fresh {
            self.wait_for_identity(&identity_paths::token(new.token.id), true)
                .await;
        }
        Ok(TokenAccepted {
            secret: done.fresh.then_some(new.secret),
            ..done.answer
        })
    }

    /// A page of all tokens.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `auth.forbidden`.
    pub async fn list_tokens(&self, caller: &Caller, query: &ListQuery) -> Result<Listed<Token>> {
        caller.may_in_cloud("token:read")?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        let wanted = |t: &ApiToken| query.name.as_deref().is_none_or(|name| t.name == name);
        let found = self.page(&[prefix(TOKENS)?], page, wanted).await?;
        Ok(Listed {
            items: found.items.iter().map(shown).collect::<Result<_>>()?,
            next: found.next,
        })
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// `token.not_found`, `auth.forbidden`.
    pub async fn delete_token(&self, caller: &Caller, id: TokenId) -> Result<()> {
        caller.may_in_cloud("token:delete")?;
        let at = identity_paths::token(id);
        let path = &at;
        let done = self
            .once(caller, "tokens.delete", json!(id), || {
                async move {
                    let found = self.read::<ApiToken>(path).await?;
                    let token = found.ok_or_else(|| CloudError::not_found("token"))?;
                    Ok(Change::new(token.delete(), ()).told_of(
                        "token:delete",
                        Some(id.uuid()),
                        Scope::System,
                    ))
                }
                .boxed()
            })
            .await?;
        if done.fresh {
            self.wait_for_identity(&at, false).await;
        }
        Ok(())
    }

    /// A token, its secret, and the part of a commit that makes it valid.
    pub(crate) fn new_token(
        &self,
        name: &Name,
        holder: Holder,
        expires_at: Option<Timestamp>,
    ) -> Result<NewToken> {
        let secret = NewSecret::generate(&*self.parts.ids);
        let token = ApiToken {
            id: TokenId::fresh(&*self.parts.ids),
            name: name.to_string(),
            holder,
            secret_hash: secret.hash,
            hint: secret.hint,
            expires_at,
            last_used: None,
            created_by: None,
            created_at: self.now(),
        };
        Ok(NewToken {
            part: create(&identity_paths::token(token.id), &token)?,
            secret: ShownOnce::new(secret.secret.expose().clone()),
            token,
        })
    }

    /// The tokens of a host's agents. All tokens are few, and this is rare.
    pub(crate) async fn tokens_of_host(&self, host: HostId) -> Result<Vec<Versioned<ApiToken>>> {
        let table = Table::<ApiToken>::new(self.parts.backend.clone(), prefix(TOKENS)?);
        let all = table.list_all().await?.items.into_iter();
        Ok(all.filter(|t| t.value.holder == Holder::Agent { host }).collect())
    }

    /// Guards that what a token is for exists.
    async fn holder_exists(&self, holder: &Holder) -> Result<Option<Guard>> {
        let Holder::Agent { host } = holder else {
            return Ok(None);
        };
        let found = self.resource::<Host>(Scope::System, host.uuid()).await?;
        let missing = || CloudError::invalid(Reason::new("host.not_found", "holder: there is no such host"));
        Ok(Some(found.ok_or_else(missing)?.unchanged()))
    }
}

/// A token as it is shown.
fn shown(token: &ApiToken) -> Result<Token> {
    let name = Name::new(&token.name).or_else(|_| Name::new(token.id.to_string()));
    let name = name.map_err(|e| CloudError::internal(e.to_string()))?;
    Ok(Token {
        meta: Meta::new(token.id.uuid(), name, Scope::System, token.created_at),
        spec: TokenSpec {
            holder: match &token.holder {
                Holder::User { user, .. } => TokenHolder::User { user: user.uuid() },
                Holder::Engine => TokenHolder::Engine,
                Holder::Agent { host } => TokenHolder::Agent { host: *host },
            },
            hint: token.hint.clone(),
            expires_at: token.expires_at,
        },
    })
}
