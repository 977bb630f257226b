//! Delegations.

use std::collections::BTreeSet;

use skyloom_model::{ProjectId, Timestamp};
use skyloom_store::Txn;

use super::{ChangeError, ChangeResult, Draft, Edit, create, rest_on, together, touch};
use crate::directory::MAX_CHAIN;
use crate::{Principal, RoleId, Snapshot, Trust, TrustId, UserId, Via, paths};

/// What is asked for in a new trust.
#[derive(Debug, Clone)]
pub struct NewTrust {
    /// Who may act.
    pub trustee: UserId,
    /// Where; `None`: it delegates no roles.
    pub project: Option<ProjectId>,
    /// Which roles; `None`: all that count for the caller.
    pub roles: Option<BTreeSet<RoleId>>,
    /// Whether the trustee acts as the trustor.
    pub impersonation: bool,
    /// How often it can be used; `None`: any number of times.
    pub remaining_uses: Option<u32>,
    /// How often it can be handed on.
    pub redelegation_count: u32,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

impl Edit<'_> {
    /// Makes a trust of the caller for somebody else. With a trust in hand: hands that on, with no more than it has.
    ///
    /// # Errors
    /// `Forbidden` (roles that the caller does not have, a restricted credential, a trust that is not to be handed on), `Invalid`, `NotFound`.
    pub fn create_trust(&self, by: &Principal, asked: NewTrust) -> ChangeResult<Draft<Trust>> {
        if Snapshot::ended(asked.expires_at, self.now) {
            return Err(ChangeError::invalid("expires_at", "has passed"));
        }
        if asked.remaining_uses == Some(0) {
            return Err(ChangeError::invalid(
                "remaining_uses",
                "a trust can be used once at least",
            ));
        }
        if asked.redelegation_count as usize >= MAX_CHAIN {
            return Err(ChangeError::invalid(
                "redelegation_count",
                format!("is {} at most", MAX_CHAIN - 1),
            ));
        }
        let (trustor, source, credential) = match by.via {
            Via::Trust { id, .. } => {
                let found = Self::found(self.at.trust(id), "trust", id, paths::trust(id))?;
                (found.value.trustor, Some(found), None)
            }
            _ => (by.user, None, self.may_hand_on(by)?),
        };
        let on = [self.on_user(trustor)?, self.on_user(asked.trustee)?];
        let (roles, on_roles) = match asked.project {
            Some(project) => {
                let on_project = self.on_project(project)?;
                let (roles, on_roles) = self.roles_of(by, project, asked.roles.as_ref())?;
                (roles, together([on_project, on_roles]))
            }
            None if asked.roles.iter().any(|roles| !roles.is_empty()) => {
                return Err(ChangeError::invalid("roles", "need a project to count in"));
            }
            None => (BTreeSet::new(), Txn::new()),
        };
        let on_source = match source {
            Some(source) => {
                within(&source.value, &asked, &roles, self.now)?;
                touch(source)?
            }
            None => Txn::new(),
        };
        let on_credential = match credential.and_then(|id| self.at.credential(id)) {
            Some(credential) => {
                let end = credential.value.application().and_then(|own| own.expires_at);
                if end.is_some_and(|end| asked.expires_at.is_none_or(|asked| asked > end)) {
                    return Err(ChangeError::Forbidden(
                        "what a credential makes ends no later than itself",
                    ));
                }
                touch(credential)?
            }
            None => Txn::new(),
        };
        let trust = Trust {
            id: TrustId::fresh(self.ids),
            trustor,
            trustee: asked.trustee,
            project: asked.project,
            roles,
            impersonation: asked.impersonation,
            remaining_uses: asked.remaining_uses,
            redelegation_count: asked.redelegation_count,
            redelegated_from: source.map(|source| source.value.id),
            credential,
            expires_at: asked.expires_at,
            created_at: self.now,
        };
        let made = create(&paths::trust(trust.id), &trust)?;
        let txn = together(on.into_iter().chain([on_roles, on_source, on_credential, made]));
        Ok(Draft::new(trust, txn))
    }

    /// Uses a trust once, when its uses are counted: of two who take the last one, one loses.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden` (it has ended, is used up, or one of both sides is disabled).
    pub fn consume_trust(&self, id: TrustId) -> ChangeResult<Draft<Trust>> {
        let old = Self::found(self.at.trust(id), "trust", id, paths::trust(id))?;
        let mut trust = old.value.clone();
        if !self.at.trust_counts(id, self.now) {
            return Err(ChangeError::Forbidden(
                "the trust has ended, or one of its sides is disabled",
            ));
        }
        match &mut trust.remaining_uses {
            None => return Ok(Draft::new(trust, rest_on(old))),
            Some(0) => {
                return Err(ChangeError::Forbidden(
                    "the trust has been used as often as it may be",
                ));
            }
            Some(left) => *left -= 1,
        }
        let txn = old.replace(&trust)?;
        Ok(Draft::new(trust, txn))
    }
}

/// That what is asked for is no more than `source` has.
fn within(source: &Trust, asked: &NewTrust, roles: &BTreeSet<RoleId>, now: Timestamp) -> ChangeResult<()> {
    let refused = |why| Err(ChangeError::Forbidden(why));
    if source.redelegation_count == 0 || asked.redelegation_count >= source.redelegation_count {
        return refused("the trust may not be handed on so often");
    }
    if asked.project != source.project || !roles.is_subset(&source.roles) {
        return refused("a trust that is handed on has no more roles than before");
    }
    if asked.impersonation && !source.impersonation {
        return refused("a trust that is handed on lets nobody be the trustor who could not before");
    }
    if source.remaining_uses.is_some() || asked.remaining_uses.is_some() {
        return refused("a trust whose uses are counted is not handed on");
    }
    if Snapshot::ended(source.expires_at, now)
        || source
            .expires_at
            .is_some_and(|end| asked.expires_at.is_none_or(|asked| asked > end))
    {
        return refused("a trust that is handed on ends no later than before");
    }
    Ok(())
}
