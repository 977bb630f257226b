//! API tokens.

use skyloom_model::{HostId, Timestamp, TokenId};
use skyloom_store::Txn;

use super::{ChangeError, ChangeResult, Draft, Edit, checked_name, create, together};
use crate::{Actor, ApiToken, AuthScope, Holder, NewSecret, Principal, Snapshot, UserId, Via, paths};

/// Most patterns that a token or credential is narrowed to.
const MAX_PATTERNS: usize = 64;
/// Tokens whose use is written in one commit: a guard and a write each.
pub(crate) const MAX_USES: usize = 32;

/// What is asked for in a new API token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiToken {
    /// What it is called.
    pub name: String,
    /// Who will act with it.
    pub holder: Holder,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

impl Edit<'_> {
    /// Makes an API token; the secret goes to its holder and nowhere else.
    ///
    /// A user makes its own; one of somebody else is made by whom that somebody cannot outdo, and only for a scope within that
    /// one's own. Those of engines and agents are for who runs the system: `by` must be of the system's scope. That a host is
    /// there is for the caller to look at.
    ///
    /// # Errors
    /// `Forbidden`, `Invalid`, `NotFound` (user, project, domain).
    pub fn create_token(
        &self,
        by: &Principal,
        asked: NewApiToken,
        secret: &NewSecret,
    ) -> ChangeResult<Draft<ApiToken>> {
        checked_patterns(&asked)?;
        let on = match &asked.holder {
            Holder::User { user, scope, .. } => {
                self.may_make_tokens(by)?;
                // Who is here by a login could choose each scope of its own as well.
                let own = *user == by.user && by.via == Via::User;
                let may = own || self.at.covers(by, *scope) && self.at.commands(by, Actor::User(*user));
                if !may {
                    return Err(ChangeError::Forbidden(
                        "nobody makes tokens of somebody who may do more than themselves",
                    ));
                }
                self.on_scope_of(*user, *scope)?
            }
            Holder::Engine | Holder::Agent { .. } if by.scope != AuthScope::System => {
                return Err(ChangeError::Forbidden(
                    "tokens of machines are made in the scope of the system",
                ));
            }
            Holder::Engine | Holder::Agent { .. } => {
                self.may_make_tokens(by)?;
                Txn::new()
            }
        };
        let draft = self.new_token(TokenId::fresh(self.ids), Some(by.user), asked, secret)?;
        Ok(Draft::new(draft.record, together([on, draft.txn])))
    }

    /// A token whose holder the caller has made sure of.
    pub(super) fn new_token(
        &self,
        id: TokenId,
        by: Option<UserId>,
        asked: NewApiToken,
        secret: &NewSecret,
    ) -> ChangeResult<Draft<ApiToken>> {
        checked_name(&asked.name)?;
        if Snapshot::ended(asked.expires_at, self.now) {
            return Err(ChangeError::invalid("expires_at", "has passed"));
        }
        let token = ApiToken {
            id,
            name: asked.name,
            holder: asked.holder,
            secret_hash: secret.hash.clone(),
            hint: secret.hint.clone(),
            expires_at: asked.expires_at,
            last_used: None,
            created_by: by,
            created_at: self.now,
        };
        let txn = create(&paths::token(id), &token)?;
        Ok(Draft::new(token, txn))
    }

    /// That a user has a role in a scope, and what both rest on.
    fn on_scope_of(&self, user: UserId, scope: AuthScope) -> ChangeResult<Txn> {
        let on_scope = match scope {
            AuthScope::None => return Err(ChangeError::invalid("scope", "a token needs one")),
            AuthScope::System => Txn::new(),
            AuthScope::Domain(domain) => self.on_domain(domain)?,
            AuthScope::Project(project) => self.on_project(project)?,
        };
        let on_user = self.on_user(user)?;
        if self.at.effective_roles(user, scope).is_empty() {
            return Err(ChangeError::Forbidden("the user has no role in that scope"));
        }
        Ok(together([on_user, on_scope]))
    }

    /// A token does not end with what it was made with, so nothing narrower than a user makes one.
    fn may_make_tokens(&self, by: &Principal) -> ChangeResult<()> {
        let whole = match by.via {
            Via::User => true,
            Via::ApiToken { id } => self.at.token(id).is_some_and(|token| {
                matches!(&token.value.holder, Holder::User { permissions, .. } if permissions.is_empty())
            }),
            Via::ApplicationCredential { .. } | Via::Trust { .. } | Via::Host { .. } => false,
        };
        if whole {
            return Ok(());
        }
        Err(ChangeError::Forbidden(
            "tokens are made by users themselves, not with a credential that can do less",
        ))
    }

    /// Takes an API token back.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_token(&self, id: TokenId) -> ChangeResult<Draft<ApiToken>> {
        let old = Self::found(self.at.token(id), "token", id, paths::token(id))?;
        Ok(Draft::new(old.value.clone(), old.delete()))
    }

    /// Takes back all tokens of a host's agent: up to `most` of them; tells how many.
    #[must_use]
    pub fn delete_tokens_of_host(&self, host: HostId, most: usize) -> Draft<usize> {
        let parts: Vec<Txn> = self
            .at
            .tokens_of_host(host)
            .take(most)
            .map(|token| token.delete())
            .collect();
        Draft::new(parts.len(), together(parts))
    }

    /// Forgets at most `most` tokens that have ended; tells how many.
    #[must_use]
    pub fn prune_tokens(&self, most: usize) -> Draft<usize> {
        let ended = (self.at.tokens()).filter(|token| Snapshot::ended(token.value.expires_at, self.now));
        let parts: Vec<Txn> = ended.take(most).map(|token| token.delete()).collect();
        Draft::new(parts.len(), together(parts))
    }

    /// Notes when tokens were last used; tells how many of them are still there. Never turns a clock back.
    ///
    /// # Errors
    /// Those of encoding.
    pub(crate) fn note_uses(&self, uses: &[(TokenId, Timestamp)]) -> ChangeResult<Draft<usize>> {
        let mut parts = Vec::new();
        for (id, at) in uses.iter().take(MAX_USES) {
            let Some(token) = self
                .at
                .token(*id)
                .filter(|t| t.value.last_used.is_none_or(|last| last < *at))
            else {
                continue;
            };
            let mut used = token.value.clone();
            used.last_used = Some(*at);
            parts.push(token.replace(&used)?);
        }
        Ok(Draft::new(parts.len(), together(parts)))
    }
}

fn checked_patterns(asked: &NewApiToken) -> ChangeResult<()> {
    match &asked.holder {
        Holder::User { permissions, .. } => check_patterns("permissions", permissions),
        Holder::Engine | Holder::Agent { .. } => Ok(()),
    }
}

/// That patterns of permissions are of a sane number and size; whether they name any is said by the registry.
pub(super) fn check_patterns(field: &'static str, patterns: &[String]) -> ChangeResult<()> {
    let bad =
        |pattern: &String| pattern.is_empty() || pattern.len() > 255 || pattern.chars().any(char::is_control);
    if patterns.len() > MAX_PATTERNS || patterns.iter().any(bad) {
        let why = format!("at most {MAX_PATTERNS} patterns of 1 to 255 printable characters are allowed");
        return Err(ChangeError::invalid(field, why));
    }
    Ok(())
}
