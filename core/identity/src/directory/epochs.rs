//! What bearer tokens are compared with.

use std::time::Duration;

use skyloom_model::{ProjectId, Timestamp};
use uuid::Uuid;

use super::{Directory, MAX_PROJECT_DEPTH, Snapshot};
use crate::{AuthScope, DomainId, Epochs, Grounds, Holder, TokenEpochs, Via};

/// How old a directory may be whose word counts for bearer tokens.
pub const MAX_AGE: Duration = Duration::from_secs(5);

impl Snapshot {
    /// The epochs of what a token rests on. `None` when any of it is deleted, disabled or ended at `now`.
    #[must_use]
    pub fn epochs(&self, grounds: &Grounds, now: Timestamp) -> Option<TokenEpochs> {
        let user = self
            .user(grounds.user)
            .filter(|_| self.user_counts(grounds.user))?;
        if user.value.domain != grounds.domain {
            return None;
        }
        let scope = match grounds.scope {
            AuthScope::None | AuthScope::System => 0,
            AuthScope::Domain(id) => self.domain(id).filter(|_| self.domain_counts(id))?.value.epoch,
            AuthScope::Project(id) => self.project_epoch(id)?,
        };
        let credential = match grounds.via {
            Via::User => 0,
            Via::ApplicationCredential { id } => {
                let found = self
                    .credential(id)
                    .filter(|found| found.value.user == grounds.user)?;
                let ended = found
                    .value
                    .application()
                    .is_none_or(|own| Self::ended(own.expires_at, now));
                (!ended && !self.credential_roles(id, now).is_empty()).then_some(found.value.epoch)?
            }
            Via::Trust { id, trustee } => {
                let found = self.trust(id).filter(|_| self.trust_counts(id, now))?;
                let (trustor, own) = (found.value.trustor, found.value.trustee);
                (trustee == own && [trustor, own].contains(&grounds.user)).then_some(0)?
            }
            Via::ApiToken { id } => {
                let found = self.token(id)?;
                let same = matches!(&found.value.holder, Holder::User { user, scope, .. }
                    if *user == grounds.user && *scope == grounds.scope);
                (same && !Self::ended(found.value.expires_at, now)).then_some(0)?
            }
            // Hosts have certificates, and get no tokens.
            Via::Host { .. } => return None,
        };
        let domain = self.domain(grounds.domain)?.value.epoch;
        Some(TokenEpochs {
            user: user.value.epoch,
            domain,
            scope,
            credential,
        })
    }

    /// The epochs of a project, of all above it and of its domain in one number: each only grows, so the sum changes with any of them.
    fn project_epoch(&self, id: ProjectId) -> Option<u64> {
        let project = self.project(id).filter(|_| self.project_counts(id))?;
        let domain = self.domain(DomainId::from_uuid(project.value.spec.domain))?;
        let (mut sum, mut next) = (domain.value.epoch, Some(id));
        for _ in 0..MAX_PROJECT_DEPTH {
            let Some(here) = next else { break };
            let spec = &self.project(here)?.value.spec;
            sum = sum.wrapping_add(spec.epoch);
            next = spec.parent;
        }
        Some(sum)
    }
}

/// A directory that is older than [`MAX_AGE`] says nothing. Whoever verifies the first token after a quiet time waits for
/// [`Directory::is_fresh`] before.
impl Epochs for Directory {
    fn current(&self, grounds: &Grounds) -> Option<TokenEpochs> {
        self.age().filter(|age| *age <= MAX_AGE)?;
        self.snapshot().epochs(grounds, self.0.clock.now())
    }

    fn revoked(&self, token: Uuid) -> bool {
        self.snapshot().is_revoked(token)
    }
}
