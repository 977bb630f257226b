//! Logging in: proofs become a bearer token.
//!
//! Everything is read from one snapshot, the epochs of the token too: what changed while a password was being compared has ended the token
//! before it is given.

use std::net::IpAddr;
use std::sync::Arc;

use skyloom_model::Timestamp;

use super::ask::{LogIn, ScopeAsked, Session};
use super::prove::{Proven, Tried};
use super::{Identity, Inner};
use crate::audit::{AuditActor, AuditObject, AuditOutcome, AuditScope, Entry, EntryId, Text, Word};
use crate::{
    AuthError, AuthScope, ChangeError, Denied, Grounds, Snapshot, TokenError, TokenRequest, TrustId, UserId,
    Via, Why,
};

/// How a login stands in the audit.
const ACTION: Word = Word::new("auth:login");

/// What the new token rests on.
struct Chosen {
    grounds: Grounds,
    not_after: Option<Timestamp>,
    /// A delegation whose uses are counted.
    counted: Option<TrustId>,
}

impl Identity {
    /// Lets somebody in. Wrong answers are held back by user and `source` (see [`crate::source_of`]); what was wrong is told to the audit alone.
    ///
    /// A user with a second factor proves it on every path but those of programs (application credentials and API tokens, which the user made).
    /// A token made from a token ends no later than that, and with it. What an application credential, an API token or a delegation gave keeps its
    /// scope for ever.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn log_in(&self, asked: LogIn, source: &str) -> Result<Session, AuthError> {
        self.0.fresh().await?;
        let mut tried = Tried::default();
        let session = self.0.try_log_in(&asked, source, &mut tried).await;
        let told = match &session {
            Ok(session) => {
                let (actor, ids) = (
                    AuditActor::from(&*session.rights.principal),
                    session.claims.audit_ids(),
                );
                Some((actor, AuditOutcome::Done, ids))
            }
            Err(error) => {
                denial(error).map(|outcome| (AuditActor::unknown(tried.methods), outcome, Vec::new()))
            }
        };
        if let Some((actor, outcome, token_audit_ids)) = told {
            let entry = self
                .0
                .attempted(ACTION, tried.user, actor, outcome, source, &asked.request_id);
            let entry = Entry {
                token_audit_ids,
                ..entry
            };
            self.0.tell(entry).await?;
        }
        session
    }
}

impl Inner {
    async fn try_log_in(&self, asked: &LogIn, source: &str, tried: &mut Tried) -> Result<Session, AuthError> {
        self.introduce(&asked.proofs).await?;
        let at = self.directory.snapshot();
        let proven = self.prove(&at, &asked.proofs, source, tried).await?;
        let chosen = self.choose(&at, &proven, &asked.scope)?;
        let now = self.clock.now();
        let epochs = at.epochs(&chosen.grounds, now).ok_or(Denied::new(Why::Gone))?;
        // Before anything is given or used up: there must be something that it allows.
        self.rights(&at, &chosen.grounds, proven.methods.clone(), None, Vec::new())?;
        if let Some(trust) = chosen.counted {
            self.consume(trust).await?;
        }
        let signer = self.signer.read().clone();
        let signer = signer.ok_or_else(|| AuthError::Unavailable(TokenError::NoKey.to_string()))?;
        let request = TokenRequest {
            grounds: chosen.grounds.clone(),
            methods: proven.methods.clone(),
            epochs,
            life: asked.life,
            not_after: chosen.not_after,
            parent: proven.parent.as_deref(),
        };
        let issued = signer.issue(&request, now, &*self.ids).map_err(refused)?;
        let until = issued.claims.until();
        let audit_ids = issued.claims.audit_ids();
        let rights = self.rights(&at, &chosen.grounds, proven.methods, Some(until), audit_ids)?;
        Ok(Session {
            token: issued.token,
            rights,
            claims: Arc::new(issued.claims),
            expires_at: until,
        })
    }

    /// The scope of the new token, and what it rests on there.
    fn choose(&self, at: &Snapshot, proven: &Proven, asked: &ScopeAsked) -> Result<Chosen, Denied> {
        let user = &at.user(proven.user).ok_or(Why::Gone)?.value;
        if let Some((grounds, not_after)) = &proven.bound {
            let same = match asked {
                ScopeAsked::Default => true,
                ScopeAsked::Unscoped | ScopeAsked::Trust(_) => false,
                ScopeAsked::System => grounds.scope == AuthScope::System,
                ScopeAsked::Domain(domain) => domain
                    .find(at)
                    .is_some_and(|id| grounds.scope == AuthScope::Domain(id)),
                ScopeAsked::Project(project) => project
                    .find(at)
                    .is_some_and(|id| grounds.scope == AuthScope::Project(id)),
            };
            if !same {
                return Err(Why::NotRescopable.into());
            }
            return Ok(Chosen {
                grounds: grounds.clone(),
                not_after: *not_after,
                counted: None,
            });
        }
        let own = |scope| Chosen {
            grounds: Grounds {
                user: user.id,
                domain: user.domain,
                scope,
                via: Via::User,
            },
            not_after: None,
            counted: None,
        };
        let scope = match asked {
            ScopeAsked::Unscoped => AuthScope::None,
            ScopeAsked::Default => user
                .default_project
                .map(AuthScope::Project)
                .filter(|scope| !at.effective_roles(user.id, *scope).is_empty())
                .unwrap_or(AuthScope::None),
            ScopeAsked::System => AuthScope::System,
            ScopeAsked::Domain(domain) => AuthScope::Domain(domain.find(at).ok_or(Why::NoRole)?),
            ScopeAsked::Project(project) => AuthScope::Project(project.find(at).ok_or(Why::NoRole)?),
            ScopeAsked::Trust(id) => return self.by_trust(at, proven, *id),
        };
        Ok(own(scope))
    }

    fn by_trust(&self, at: &Snapshot, proven: &Proven, id: TrustId) -> Result<Chosen, Denied> {
        let trust = at.trust(id).filter(|found| found.value.trustee == proven.user);
        let trust = &trust.ok_or(Why::NoRole)?.value;
        if !at.trust_counts(id, self.clock.now()) || trust.remaining_uses == Some(0) {
            return Err(Why::Gone.into());
        }
        let user = if trust.impersonation {
            trust.trustor
        } else {
            trust.trustee
        };
        Ok(Chosen {
            grounds: Grounds {
                user,
                domain: at.user(user).ok_or(Why::Gone)?.value.domain,
                scope: trust.project.map_or(AuthScope::None, AuthScope::Project),
                via: Via::Trust {
                    id,
                    trustee: trust.trustee,
                },
            },
            not_after: trust.expires_at,
            counted: trust.remaining_uses.map(|_| id),
        })
    }

    /// Uses a delegation once. Of two who take the last use, one loses.
    async fn consume(&self, trust: TrustId) -> Result<(), AuthError> {
        match self.editor.change(|edit| edit.consume_trust(trust)).await {
            Ok(_) => Ok(()),
            Err(ChangeError::Store(error)) => Err(AuthError::Unavailable(skyloom_model::report(&error))),
            Err(_) => Err(Denied::new(Why::Gone).into()),
        }
    }

    /// What is told of somebody who tried to prove who they are.
    pub(super) fn attempted(
        &self,
        action: Word,
        user: Option<UserId>,
        actor: AuditActor,
        outcome: AuditOutcome,
        source: &str,
        request_id: &str,
    ) -> Entry {
        let at = self.directory.snapshot();
        let domain = user.and_then(|id| at.user(id)).map(|user| user.value.domain);
        Entry {
            id: EntryId::fresh(&*self.ids),
            at: self.clock.now(),
            request_id: Text::new(request_id),
            actor,
            source: address(source),
            action,
            object: AuditObject {
                kind: Word::new("user"),
                id: user.map(UserId::uuid),
                name: None,
                scope: domain.map_or(AuditScope::System, |id| AuditScope::Domain { id }),
            },
            outcome,
            task: None,
            changes: Vec::new(),
            token_audit_ids: Vec::new(),
            repeated: None,
        }
    }

    /// It is told before it is answered.
    pub(super) async fn tell(&self, entry: Entry) -> Result<(), AuthError> {
        match self.audit.record(entry).await {
            Ok(_) => Ok(()),
            Err(error) => Err(AuthError::Unavailable(skyloom_model::report(&error))),
        }
    }
}

/// How an attempt that failed stands in the audit; `None`: nothing was looked at.
pub(super) fn denial(error: &AuthError) -> Option<AuditOutcome> {
    let code = match error {
        AuthError::Denied(denied) => denied.why().code(),
        AuthError::Throttled(_) => "auth.throttled",
        AuthError::Unavailable(_) => return None,
    };
    Some(AuditOutcome::Denied {
        code: Word::new(code),
    })
}

/// The address, or the network, of a source as [`crate::source_of`] writes it.
pub(super) fn address(source: &str) -> Option<IpAddr> {
    source.split('/').next()?.parse().ok()
}

fn refused(error: TokenError) -> AuthError {
    match error {
        TokenError::Ended => Denied::new(Why::Expired).into(),
        TokenError::ChainTooLong | TokenError::ParentOfAnother => Denied::new(Why::NotRescopable).into(),
        error => AuthError::Unavailable(skyloom_model::report(&error)),
    }
}
