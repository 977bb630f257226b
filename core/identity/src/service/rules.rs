//! The rules of a moment, made anew when roles change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_store::Revision;
use uuid::Uuid;

use super::Inner;
use crate::{Narrowed, Policy, PolicyError, Registry, RoleId, Snapshot};

/// Credentials whose patterns are remembered before all are forgotten.
const MOST_REMEMBERED: usize = 10_000;

#[derive(Debug)]
pub(super) struct Rules {
    /// What the roles were when they were made: each change of a role makes it another.
    roles: Arc<BTreeMap<RoleId, BTreeSet<RoleId>>>,
    pub(super) policy: Arc<Policy>,
    narrowed: Mutex<HashMap<Uuid, (Revision, Arc<Narrowed>)>>,
}

impl Rules {
    pub(super) fn of(registry: &Arc<Registry>, at: &Snapshot) -> Result<Self, PolicyError> {
        let (policy, unusable) = Policy::of(Arc::clone(registry), at.roles().map(|role| &role.value))?;
        for (role, error) in unusable {
            tracing::error!(%role, %error, "a role allows nothing: what it names is not known here");
        }
        Ok(Self {
            roles: Arc::clone(&at.index.closures),
            policy: Arc::new(policy),
            narrowed: Mutex::default(),
        })
    }

    /// To what the patterns of a credential narrow it. Patterns that cannot be used narrow it to nothing.
    pub(super) fn narrowed(&self, id: Uuid, of: Revision, patterns: &[String]) -> Arc<Narrowed> {
        if let Some((_, known)) = self.narrowed.lock().get(&id).filter(|(at, _)| *at == of) {
            return Arc::clone(known);
        }
        let made = if patterns.is_empty() {
            Narrowed::to_nothing()
        } else {
            Narrowed::to(self.policy.registry(), patterns).unwrap_or_else(|error| {
                tracing::warn!(credential = %id, %error, "a credential reaches nothing: what it names is not known here");
                Narrowed::to_nothing()
            })
        };
        let made = Arc::new(made);
        let mut remembered = self.narrowed.lock();
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(id, (of, Arc::clone(&made)));
        made
    }
}

impl Inner {
    /// The rules of that moment.
    pub(super) fn rules(&self, at: &Snapshot) -> Arc<Rules> {
        let known = Arc::clone(&self.rules.read());
        if Arc::ptr_eq(&known.roles, &at.index.closures) {
            return known;
        }
        match Rules::of(&self.registry, at) {
            Ok(rules) => {
                let rules = Arc::new(rules);
                *self.rules.write() = Arc::clone(&rules);
                rules
            }
            // The built-in tables were looked at when this was opened: it cannot be. The former rules allow no more than was meant then.
            Err(error) => {
                tracing::error!(%error, "roles cannot be read; the former ones count");
                known
            }
        }
    }
}
