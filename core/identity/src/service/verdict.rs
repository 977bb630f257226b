//! Whose a bearer's secret is, and what it allows now: from memory alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use skyloom_model::{ProjectId, Timestamp};
use uuid::Uuid;

use super::{Identity, Inner, Valid};
use crate::{
    AccessRule, ApiToken, AuthError, AuthScope, Authenticator, ChangeResult, Denied, Grounds, Holder,
    Identified, Lineage, Lineages, Method, Narrowed, Principal, Rights, Snapshot, TokenClaims, UserId, Via,
    Why, parse_secret,
};

/// Who was let in, and the token's own end.
pub(super) enum Verdict {
    Bearer(Arc<TokenClaims>),
    Api(Arc<skyloom_store::Versioned<ApiToken>>),
}

impl Inner {
    /// Looks a bearer's secret up. Nothing is awaited: whoever calls has made sure that the directory is fresh.
    pub(super) fn look(&self, at: &Snapshot, bearer: &str, now: Timestamp) -> Result<Verdict, Denied> {
        // A signed token has two dots; no secret that we give out has any.
        if bearer.bytes().filter(|byte| *byte == b'.').count() == 2 {
            return self
                .verifier
                .verify(bearer, now, &*self.directory)
                .map(Verdict::Bearer);
        }
        let hash = parse_secret(bearer)?;
        let token = at.token_of_secret(&hash).ok_or(Why::UnknownSecret)?;
        if Snapshot::ended(token.value.expires_at, now) {
            return Err(Why::Expired.into());
        }
        Ok(Verdict::Api(Arc::clone(token)))
    }

    /// The rights that rest on `grounds` now.
    pub(super) fn rights(
        &self,
        at: &Snapshot,
        grounds: &Grounds,
        methods: Vec<Method>,
        until: Option<Timestamp>,
        audit_ids: Vec<Uuid>,
    ) -> Result<Rights, Denied> {
        let (user, scope, now) = (grounds.user, grounds.scope, self.clock.now());
        if !at.user_counts(user) {
            return Err(Why::Gone.into());
        }
        let roles = match grounds.via {
            Via::User | Via::ApiToken { .. } => at.effective_roles(user, scope),
            Via::ApplicationCredential { id } => Arc::new(at.credential_roles(id, now)),
            Via::Trust { id, .. } => match scope {
                AuthScope::Project(_) => Arc::new(at.trust_roles(id, now)),
                _ => Arc::new(BTreeSet::new()),
            },
            Via::Host { .. } => return Err(Why::Gone.into()),
        };
        if roles.is_empty() && scope != AuthScope::None {
            return Err(Why::NoRole.into());
        }
        let rules = self.rules(at);
        let narrowed = narrowing(at, &grounds.via).map(|(id, of, patterns)| rules.narrowed(id, of, patterns));
        let principal = Principal {
            user,
            domain: grounds.domain,
            scope,
            roles,
            via: grounds.via.clone(),
            methods,
            until,
            audit_ids,
        };
        Ok(Rights {
            principal: Arc::new(principal),
            narrowed,
            rules: Arc::clone(&rules.policy) as Arc<dyn crate::Authorizer>,
            projects: Arc::clone(&self.directory) as Arc<dyn Lineages>,
        })
    }

    fn rights_of_claims(&self, at: &Snapshot, claims: &TokenClaims) -> Result<Rights, Denied> {
        let (methods, until) = (claims.methods.clone(), Some(claims.until()));
        self.rights(at, &claims.grounds(), methods, until, claims.audit_ids())
    }

    /// The rights of an API token of a user.
    fn rights_of_token(&self, at: &Snapshot, token: &ApiToken) -> Result<Rights, Denied> {
        let grounds = grounds_of(at, token)?;
        self.rights(at, &grounds, vec![Method::ApiToken], token.expires_at, Vec::new())
    }

    fn used(&self, token: &ApiToken, now: Timestamp) {
        let every = jiff::SignedDuration::from_secs(super::driver::USE_EVERY);
        let due = |last: Timestamp| now.duration_since(last) >= every;
        if token.last_used.is_none_or(due) {
            self.uses.lock().insert(token.id, now);
        }
    }

    fn identify(&self, bearer: &str) -> Result<Identified, Denied> {
        let (at, now) = (self.directory.snapshot(), self.clock.now());
        match self.look(&at, bearer, now)? {
            Verdict::Bearer(claims) => self.rights_of_claims(&at, &claims).map(Identified::Person),
            Verdict::Api(token) => {
                let id = token.value.id;
                let identified = match token.value.holder {
                    Holder::User { .. } => Identified::Person(self.rights_of_token(&at, &token.value)?),
                    Holder::Engine => Identified::Engine { token: id },
                    Holder::Agent { host } => Identified::Agent {
                        host,
                        token: Some(id),
                    },
                };
                self.used(&token.value, now);
                Ok(identified)
            }
        }
    }
}

/// On what an API token of a user rests.
pub(super) fn grounds_of(at: &Snapshot, token: &ApiToken) -> Result<Grounds, Denied> {
    let Holder::User { user, scope, .. } = token.holder else {
        return Err(Why::Gone.into());
    };
    Ok(Grounds {
        user,
        domain: at.user(user).ok_or(Why::Gone)?.value.domain,
        scope,
        via: Via::ApiToken { id: token.id },
    })
}

/// What narrows a credential: its id, its revision and its patterns; `None` when nothing does.
fn narrowing<'a>(at: &'a Snapshot, via: &Via) -> Option<(Uuid, skyloom_store::Revision, &'a [String])> {
    match via {
        Via::ApiToken { id } => {
            let token = at.token(*id)?;
            match &token.value.holder {
                Holder::User { permissions, .. } if !permissions.is_empty() => {
                    Some((id.uuid(), token.modified, permissions))
                }
                _ => None,
            }
        }
        Via::ApplicationCredential { id } => {
            let credential = at.credential(*id)?;
            let own = credential.value.application()?;
            (!own.permissions.is_empty() || !own.access_rules.is_empty()).then_some((
                id.uuid(),
                credential.modified,
                &own.permissions,
            ))
        }
        Via::User | Via::Trust { .. } | Via::Host { .. } => None,
    }
}

#[async_trait]
impl Authenticator for Identity {
    async fn authenticate(&self, bearer: &str, _source: &str) -> Result<Identified, AuthError> {
        self.0.fresh().await?;
        Ok(self.0.identify(bearer)?)
    }

    fn name_of(&self, user: UserId) -> Option<String> {
        let at = self.0.directory.snapshot();
        at.user(user).map(|user| user.value.name.clone())
    }
}

impl Lineages for Identity {
    fn lineage(&self, project: ProjectId) -> Option<Lineage> {
        self.0.directory.lineage(project)
    }
}

impl Identity {
    /// What a token of a user allows now, and what it says: for those who ask about a token that is not their own bearer.
    ///
    /// # Errors
    /// [`AuthError`]; those of machines are denied.
    pub async fn validate(&self, token: &str) -> Result<Valid, AuthError> {
        self.0.fresh().await?;
        let at = self.0.directory.snapshot();
        match self.0.look(&at, token, self.now())? {
            Verdict::Bearer(claims) => Ok(Valid {
                rights: self.0.rights_of_claims(&at, &claims)?,
                expires_at: Some(claims.until()),
                claims: Some(claims),
            }),
            Verdict::Api(token) => Ok(Valid {
                rights: self.0.rights_of_token(&at, &token.value)?,
                expires_at: token.value.expires_at,
                claims: None,
            }),
        }
    }

    /// Takes a bearer token back, and with it all that were made from it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn revoke(&self, call: &super::Call<'_>, claims: &TokenClaims) -> ChangeResult<()> {
        let deed = || {
            super::Deed::new("token:delete")
                .on(claims.jti)
                .in_domain(claims.dom)
        };
        let until = claims.until();
        self.change(call, |edit| edit.revoke_token(claims.jti, until), |()| deed())
            .await
    }

    /// The rights of an application credential with access rules for one call of a service outside the cloud's own API (Keystone's middleware):
    /// `None` when its rules do not allow the call. Rights without such rules stay as they are.
    #[must_use]
    pub fn within_access_rules(
        &self,
        rights: &Rights,
        service: &str,
        method: &str,
        path: &str,
    ) -> Option<Rights> {
        let Via::ApplicationCredential { id } = rights.principal.via else {
            return Some(rights.clone());
        };
        let at = self.0.directory.snapshot();
        let own = at.credential(id)?.value.application()?.clone();
        let allows = |rule: &AccessRule| rule.allows(service, method, path);
        if own.access_rules.is_empty() {
            return Some(rights.clone());
        }
        let narrowed: Option<Arc<Narrowed>> = rights.narrowed.clone().filter(|_| !own.permissions.is_empty());
        own.access_rules.iter().any(allows).then(|| Rights {
            narrowed,
            ..rights.clone()
        })
    }
}
