//! Decisions: a few loads each, and nothing allocated.
//!
//! ```text
//! kind fits? ─> reachable from the scope, or the caller's own? ─> within the access rules? ─> a rule of a role? ─> Allow
//!      └────────────┴──────────────────────────┴──────────────────────────┴─> readable? 403 : 404
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use skyloom_model::ProjectId;

use super::object::{Object, Place, Who};
use super::registry::{Access, Permission, PermissionSet, Places, Registry};
use super::role::{RoleSpec, RuleSpec, When, everyone};
use super::{PolicyError, PolicyErrorKind};
use crate::{AuthScope, BuiltIn, DomainId, Method, Role, RoleId, UserId, Via};

/// A rule as it is looked at.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) allows: PermissionSet,
    pub(super) when: When,
    pub(super) always: bool,
    pub(super) written: Vec<String>,
}

#[derive(Debug)]
pub(super) struct CompiledRole {
    /// `None` is what everybody has.
    pub(super) id: Option<RoleId>,
    pub(super) name: String,
    /// All that some rule allows.
    any: PermissionSet,
    pub(super) rules: Vec<Rule>,
}

/// All roles of a moment, made ready for deciding.
#[derive(Debug)]
pub struct Policy {
    pub(super) registry: Arc<Registry>,
    /// In order of ids.
    roles: Vec<CompiledRole>,
    pub(super) everyone: CompiledRole,
}

/// Puts a [`Policy`] together.
#[derive(Debug)]
pub struct PolicyBuilder {
    registry: Arc<Registry>,
    roles: BTreeMap<RoleId, CompiledRole>,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may be done.
    Allow,
    /// It may not, and the caller may know that the object is there: 403.
    Forbidden,
    /// It may not, and to the caller there is no such object: 404.
    Hidden,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Ruling {
    /// A rule of a role allows it.
    Rule {
        /// Which role; `None` is what everybody may.
        role: Option<RoleId>,
        /// Which of its rules, from 0.
        rule: usize,
    },
    /// No rule of any role allows it.
    NoRule,
    /// A rule of a role would allow it if its conditions held.
    Condition {
        /// Which role.
        role: Option<RoleId>,
        /// Which of its rules, from 0.
        rule: usize,
        /// The first condition that does not hold.
        failed: Failed,
    },
    /// The object is out of reach of the scope.
    OutOfScope,
    /// The credential's access rules leave it out.
    AccessRules,
    /// The permission is for another kind of object.
    WrongKind,
}

/// A condition that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failed {
    /// A label is missing or has another value.
    Labels,
    /// The object is not in that part of the project tree.
    Within,
    /// The object is not the caller's own.
    Owned,
    /// No second factor was proven.
    SecondFactor,
    /// Something else than the user calls.
    Direct,
}

/// A decision with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What is decided.
    pub effect: Effect,
    /// Why.
    pub rule: Ruling,
}

/// Which part of the cloud a list may cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covered {
    /// Nothing.
    Nothing,
    /// One project.
    Project(ProjectId),
    /// One domain with its projects.
    Domain(DomainId),
    /// All.
    All,
}

/// What a list may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// Which part of the cloud.
    pub scope: Covered,
    /// Whether also what is for all to see.
    pub shared: bool,
    /// Whose things also, wherever they lie.
    pub own: Option<UserId>,
    /// Whether some of it is under conditions: then each item is asked for.
    pub check_each: bool,
}

impl When {
    pub(super) fn failed(&self, who: &Who<'_>, object: &Object<'_>) -> Option<Failed> {
        let principal = who.principal;
        let labelled = |(name, values): (&String, &Vec<String>)| {
            let value = object.labels.and_then(|labels| labels.get(name));
            value.is_some_and(|value| values.contains(value))
        };
        if !self.labels.iter().all(labelled) {
            return Some(Failed::Labels);
        }
        let within = |top: ProjectId| match object.place {
            Place::Project { id, ancestors, .. } => id == top || ancestors.contains(&top),
            Place::System | Place::Shared | Place::Domain(_) => false,
        };
        if !self.within.is_none_or(within) {
            return Some(Failed::Within);
        }
        if self.owned && object.owner != Some(principal.user) {
            return Some(Failed::Owned);
        }
        if self.second_factor && !principal.methods.contains(&Method::Totp) {
            return Some(Failed::SecondFactor);
        }
        if self.direct && principal.via != Via::User {
            return Some(Failed::Direct);
        }
        None
    }
}

impl CompiledRole {
    fn new(
        id: Option<RoleId>,
        name: &str,
        spec: &RoleSpec,
        registry: &Registry,
    ) -> Result<Self, PolicyError> {
        let compiled = |rule: &RuleSpec| -> Result<Rule, PolicyError> {
            Ok(Rule {
                allows: rule.compile(registry)?,
                when: rule.when.clone(),
                always: rule.when.always(),
                written: rule.allow.clone(),
            })
        };
        let rules: Vec<Rule> = spec.rules.iter().map(compiled).collect::<Result<_, _>>()?;
        let mut any = PermissionSet::default();
        rules.iter().for_each(|rule| any.add(&rule.allows));
        Ok(Self {
            id,
            name: name.to_owned(),
            any,
            rules,
        })
    }
}

impl PolicyBuilder {
    /// With the roles that every cloud has.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Unknown`] when the registry is without the built-in table; [`PolicyErrorKind::Table`] for an id that
    /// is there already.
    pub fn built_in(mut self) -> Result<Self, PolicyError> {
        for role in BuiltIn::ALL {
            self = self.add(role.id(), role.name(), &role.spec())?;
        }
        Ok(self)
    }

    /// With a role that somebody wrote.
    ///
    /// # Errors
    /// As [`RoleSpec::check`]; [`PolicyErrorKind::Table`] for an id that is there already.
    pub fn custom(self, id: RoleId, name: &str, spec: &RoleSpec) -> Result<Self, PolicyError> {
        spec.check(&self.registry)?;
        self.add(id, name, spec)
    }

    fn add(mut self, id: RoleId, name: &str, spec: &RoleSpec) -> Result<Self, PolicyError> {
        self.insert(id, name, spec)?;
        Ok(self)
    }

    fn insert(&mut self, id: RoleId, name: &str, spec: &RoleSpec) -> Result<(), PolicyError> {
        if self.roles.contains_key(&id) {
            return Err(PolicyError::new(
                PolicyErrorKind::Table,
                name,
                "has the id of another role",
            ));
        }
        let role = CompiledRole::new(Some(id), name, spec, &self.registry)?;
        self.roles.insert(id, role);
        Ok(())
    }

    /// The policy.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Unknown`] when the registry is without the built-in table.
    pub fn build(self) -> Result<Policy, PolicyError> {
        let everyone = CompiledRole::new(None, "everyone", &everyone(), &self.registry)?;
        Ok(Policy {
            registry: self.registry,
            roles: self.roles.into_values().collect(),
            everyone,
        })
    }
}

impl Policy {
    /// A policy over these permissions, without roles as yet.
    #[must_use]
    pub fn builder(registry: Arc<Registry>) -> PolicyBuilder {
        PolicyBuilder {
            registry,
            roles: BTreeMap::new(),
        }
    }

    /// The policy of the roles that are stored, beside the built-in ones; and those that cannot be used any more (a product's
    /// permission that is gone): they are reported, and allow nothing.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Unknown`] when the registry is without the built-in table.
    pub fn of<'r>(
        registry: Arc<Registry>,
        roles: impl IntoIterator<Item = &'r Role>,
    ) -> Result<(Self, Vec<(RoleId, PolicyError)>), PolicyError> {
        let mut builder = Self::builder(registry).built_in()?;
        let mut unusable = Vec::new();
        for role in roles {
            if role.permissions.is_empty() || role.deleting {
                continue;
            }
            let rule = RuleSpec {
                allow: role.permissions.clone(),
                when: When::default(),
            };
            let spec = RoleSpec { rules: vec![rule] };
            let added = spec
                .check(&builder.registry)
                .and_then(|()| builder.insert(role.id, &role.name, &spec));
            if let Err(error) = added {
                unusable.push((role.id, error));
            }
        }
        Ok((builder.build()?, unusable))
    }

    /// The permissions that it knows.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The roles that a caller has here, those that everybody has last. Roles that this policy does not know allow nothing.
    pub(super) fn roles_of<'a>(&'a self, who: &Who<'a>) -> impl Iterator<Item = &'a CompiledRole> {
        let known = who.principal.roles.iter().filter_map(|id| {
            let at = self.roles.binary_search_by(|role| role.id.cmp(&Some(*id))).ok()?;
            self.roles.get(at)
        });
        // Roles count in a scope; who has none has no roles.
        let counted = who.principal.scope != AuthScope::None;
        known
            .filter(move |_| counted)
            .chain(std::iter::once(&self.everyone))
    }

    /// Whether the object can be reached at all from the caller's scope.
    pub(super) fn reaches(&self, who: &Who<'_>, permission: Permission, object: &Object<'_>) -> bool {
        let (principal, spec) = (who.principal, self.registry.spec(permission));
        if spec.object.has(Places::OWN) && object.owner == Some(principal.user) {
            return true;
        }
        match (principal.scope, object.place) {
            // What is for owners alone is not for the cloud's operators either: they do not act in others' names.
            (AuthScope::System, _) => spec.object != Places::OWN,
            (_, Place::Shared) => spec.access == Access::Read,
            (AuthScope::Project(mine), Place::Project { id, .. }) => {
                mine == id && spec.object.has(Places::PROJECT)
            }
            (AuthScope::Domain(mine), Place::Project { domain, .. } | Place::Domain(domain)) => {
                mine == domain && spec.object.has(Places::DOMAIN)
            }
            (AuthScope::Project(_), Place::System | Place::Domain(_))
            | (AuthScope::Domain(_), Place::System)
            | (AuthScope::None, _) => false,
        }
    }

    /// Whether it is allowed, and what decided; not yet what is told to whom it is not allowed.
    fn rule(&self, who: &Who<'_>, permission: Permission, object: &Object<'_>) -> Result<Ruling, Ruling> {
        if self.registry.kind(permission) != object.kind {
            return Err(Ruling::WrongKind);
        }
        if !self.reaches(who, permission, object) {
            return Err(Ruling::OutOfScope);
        }
        if who.narrowed.is_some_and(|n| !n.permissions().has(permission)) {
            return Err(Ruling::AccessRules);
        }
        let mut refused = Ruling::NoRule;
        for role in self.roles_of(who).filter(|role| role.any.has(permission)) {
            for (number, rule) in role.rules.iter().enumerate() {
                if !rule.allows.has(permission) {
                    continue;
                }
                let (role, rule, failed) = if rule.always {
                    (role.id, number, None)
                } else {
                    (role.id, number, rule.when.failed(who, object))
                };
                match failed {
                    None => return Ok(Ruling::Rule { role, rule }),
                    Some(failed) if refused == Ruling::NoRule => {
                        refused = Ruling::Condition { role, rule, failed };
                    }
                    Some(_) => {}
                }
            }
        }
        Err(refused)
    }

    /// Whether the caller may know that the object is there.
    pub(super) fn visible(&self, who: &Who<'_>, permission: Permission, object: &Object<'_>) -> bool {
        let read = self.registry.read_of(permission);
        if read.is_some_and(|read| self.rule(who, read, object).is_ok()) {
            return true;
        }
        // That there are hosts is in the manual; which projects and domains there are is not.
        object.collection
            && match (object.place, who.principal.scope) {
                (Place::System | Place::Shared, _) | (_, AuthScope::System) => true,
                (Place::Project { id, .. }, AuthScope::Project(mine)) => id == mine,
                (Place::Project { domain, .. } | Place::Domain(domain), AuthScope::Domain(mine)) => {
                    domain == mine
                }
                (Place::Project { .. } | Place::Domain(_), _) => false,
            }
    }

    /// May `who` do that to that? Denied unless a rule allows it.
    #[must_use]
    pub fn decide(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Decision {
        match self.rule(&who, permission, object) {
            Ok(rule) => Decision {
                effect: Effect::Allow,
                rule,
            },
            Err(rule) => Decision {
                effect: if self.visible(&who, permission, object) {
                    Effect::Forbidden
                } else {
                    Effect::Hidden
                },
                rule,
            },
        }
    }

    /// What a list by this permission may cover. A filter that asks for more is cut to it, never the other way round.
    #[must_use]
    pub fn filter_scope(&self, who: Who<'_>, permission: Permission) -> Coverage {
        let mut coverage = Coverage {
            scope: Covered::Nothing,
            shared: false,
            own: None,
            check_each: false,
        };
        if who.narrowed.is_some_and(|n| !n.permissions().has(permission)) {
            return coverage;
        }
        let (principal, spec) = (who.principal, self.registry.spec(permission));
        // A rule for what is the caller's own covers no more than that; any other may cover the whole scope.
        let (mut free, mut bound, mut own) = (false, false, false);
        for role in self.roles_of(&who) {
            for rule in role.rules.iter().filter(|rule| rule.allows.has(permission)) {
                let of_caller = (!rule.when.second_factor || principal.methods.contains(&Method::Totp))
                    && (!rule.when.direct || principal.via == Via::User);
                let of_object = !rule.when.labels.is_empty() || rule.when.within.is_some();
                match (of_caller, rule.when.owned) {
                    (false, _) => {}
                    (true, true) => (own, coverage.check_each) = (true, coverage.check_each || of_object),
                    (true, false) => (free, bound) = (free || !of_object, bound || of_object),
                }
            }
        }
        // Where one's own does not count wherever it lies, such a rule covers what is the caller's within the scope.
        let anywhere = spec.object.has(Places::OWN) || principal.scope == AuthScope::System;
        bound |= own && !anywhere;
        coverage.check_each = !free && (bound || coverage.check_each);
        let wide = free || bound;
        let owns = (own || wide) && anywhere;
        coverage.own = owns.then_some(principal.user);
        coverage.shared = wide && (spec.access == Access::Read || principal.scope == AuthScope::System);
        coverage.scope = match principal.scope {
            AuthScope::System if wide && spec.object != Places::OWN => Covered::All,
            AuthScope::Domain(id) if wide && spec.object.has(Places::DOMAIN) => Covered::Domain(id),
            AuthScope::Project(id) if wide && spec.object.has(Places::PROJECT) => Covered::Project(id),
            _ => Covered::Nothing,
        };
        coverage
    }
}
