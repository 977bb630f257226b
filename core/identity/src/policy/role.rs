//! Roles as data: lists of patterns over permission names, some under conditions; and the six that are built in.
//!
//! | role | in a project | in a domain | in the system |
//! | --- | --- | --- | --- |
//! | `reader` | sees all in it | sees its projects, users, groups, roles, quotas | sees all |
//! | `member` | also creates, changes, deletes and operates what is in it | as reader | as in a project, in every project |
//! | `manager` | as member | also runs its users, groups and projects, and gives `reader`, `member`, `manager` | the same in every domain |
//! | `operator` | as member | as reader | also runs hosts, flavors, public images, stuck tasks and the hold |
//! | `admin` | all that can be done in it | all that can be done in it | all, but the audit |
//! | `auditor` | as reader, and its audit | as reader, and its audit | as reader, the audit, and whether that is whole |
//!
//! What can be done at all from a scope is said with each permission ([`Places`](super::Places)). **The audit is the auditor's
//! alone**: an administrator may give that role, which is itself audited, but does not have it; nor can a role of one's own
//! name what is reserved.
//!
//! Roles that imply others (admin, manager, member, reader) come with them; the table says what each has by itself.
//!
//! Besides, everybody may see what kinds there are, and see and change what is their own: password, credentials, tokens,
//! delegations. To make or change such things they must call themselves, not by an application credential, API token or delegation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_model::ProjectId;

use super::registry::{PermissionSet, Registry};
use super::{PolicyError, PolicyErrorKind};
use crate::BuiltIn;

/// What a role allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSpec {
    /// Each allows something; none takes away what another allows.
    pub rules: Vec<RuleSpec>,
}

/// A part of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// `*`, `kind:*`, `*:verb`, `kind:verb`; with `!` before it what the rule shall not allow, whatever the order.
    pub allow: Vec<String>,
    /// Under which conditions: all must hold.
    #[serde(default, skip_serializing_if = "When::always")]
    pub when: When,
}

/// Conditions of a rule. Those that are left out always hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// The object has each of these labels, with one of the values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Vec<String>>,
    /// The object is in this project or in one below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<ProjectId>,
    /// The object is the caller's own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub owned: bool,
    /// The caller has proven a second factor.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub second_factor: bool,
    /// The user calls, not an application credential, an API token, a delegation or a host.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
}

impl When {
    /// Whether nothing is asked.
    #[must_use]
    pub fn always(&self) -> bool {
        *self == Self::default()
    }
}

/// Most rules of a role, patterns of a rule, and labels and values of a condition.
pub(super) const MOST: usize = 64;

impl RoleSpec {
    /// A role of one rule without conditions.
    #[must_use]
    pub fn allowing(patterns: &[&str]) -> Self {
        Self {
            rules: vec![RuleSpec::allowing(patterns)],
        }
    }

    /// Checks a role that somebody wrote.
    ///
    /// # Errors
    /// As [`Registry::matching`] for its patterns; [`PolicyErrorKind::Pattern`] for rules that allow nothing and exclusions
    /// that exclude nothing; [`PolicyErrorKind::Reserved`] for what only built-in roles may have;
    /// [`PolicyErrorKind::TooLong`] beyond 64 rules, patterns or labels.
    pub fn check(&self, registry: &Registry) -> Result<(), PolicyError> {
        if self.rules.len() > MOST {
            return Err(too_many("the role", "rules"));
        }
        for rule in &self.rules {
            let labels = &rule.when.labels;
            if rule.allow.len() > MOST || labels.len() > MOST || labels.values().any(|v| v.len() > MOST) {
                return Err(too_many("a rule", "patterns, labels or values of a label"));
            }
            let set = rule.compile(registry)?;
            let reserved = registry.iter().find(|(p, s)| s.reserved && set.has(*p));
            if let Some((_, spec)) = reserved {
                return Err(PolicyError::new(
                    PolicyErrorKind::Reserved,
                    spec.name,
                    "can be allowed by built-in roles only",
                )
                .hint("give a built-in role that has it, such as auditor"));
            }
        }
        Ok(())
    }
}

fn too_many(what: &str, of: &str) -> PolicyError {
    PolicyError::new(
        PolicyErrorKind::TooLong,
        what,
        format!("has more than {MOST} {of}"),
    )
    .hint("split it into several roles")
}

impl RuleSpec {
    /// A rule without conditions.
    #[must_use]
    pub fn allowing(patterns: &[&str]) -> Self {
        Self {
            allow: patterns.iter().map(|p| (*p).to_owned()).collect(),
            when: When::default(),
        }
    }

    /// The same under conditions.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// The permissions that the patterns allow.
    pub(super) fn compile(&self, registry: &Registry) -> Result<PermissionSet, PolicyError> {
        let mut set = PermissionSet::default();
        for pattern in self.allow.iter().filter(|p| !p.starts_with('!')) {
            set.add(&registry.matching(pattern)?);
        }
        let all = set;
        for pattern in &self.allow {
            let Some(excluded) = pattern.strip_prefix('!') else {
                continue;
            };
            let excluded = registry.matching(excluded)?;
            let mut hits = 0;
            for (permission, _) in registry.iter().filter(|(p, _)| excluded.has(*p) && all.has(*p)) {
                set.remove(permission);
                hits += 1;
            }
            if hits == 0 {
                return Err(
                    PolicyError::new(PolicyErrorKind::Pattern, pattern, "excludes nothing")
                        .hint("it takes away only what other patterns of the same rule allow"),
                );
            }
        }
        if set.is_empty() {
            let all = self.allow.join(" ");
            return Err(
                PolicyError::new(PolicyErrorKind::Pattern, &all, "is a rule that allows nothing")
                    .hint("leave it out"),
            );
        }
        Ok(set)
    }
}

/// What members do in projects, beside reading.
const WORK: &[&str] = &[
    "server:*",
    "image:create",
    "image:upload",
    "image:delete",
    "image:download",
    "volume:*",
    "snapshot:*",
    "network:*",
    "subnet:*",
    "port:*",
    "security-group:*",
    "keypair:*",
    "task:cancel",
    "plan:apply",
];

impl BuiltIn {
    /// What it allows.
    #[must_use]
    pub fn spec(self) -> RoleSpec {
        let allow = |more: &[&[&str]]| {
            let mut patterns = vec!["*:read", "image:download", "server:placement"];
            patterns.extend(more.iter().copied().flatten().filter(|p| **p != "image:download"));
            RoleSpec::allowing(&patterns)
        };
        match self {
            Self::Reader => allow(&[]),
            Self::Member => allow(&[WORK]),
            Self::Manager => {
                let mut spec = allow(&[WORK, &["project:*", "user:*", "group:*", "policy:explain"]]);
                let roles = [Self::Reader, Self::Member, Self::Manager].map(|r| r.name().to_owned());
                spec.rules
                    .push(RuleSpec::allowing(&["grant:create", "grant:delete"]).when(When {
                        labels: BTreeMap::from([(GRANTED_ROLE.to_owned(), roles.to_vec())]),
                        ..When::default()
                    }));
                spec
            }
            Self::Operator => allow(&[
                WORK,
                &[
                    "host:*",
                    "flavor:*",
                    "image:*",
                    "task:*",
                    "hold:*",
                    "quota:recount",
                    "policy:explain",
                ],
            ]),
            Self::Admin => RoleSpec::allowing(&["*", "store:use"]),
            Self::Auditor => allow(&[&["audit:read", "audit:verify", "policy:explain"]]),
        }
    }
}

/// The label that the object of `grant:create` and `grant:delete` has: the name of the role that is given, if that role is built
/// in. Others have no such label, for names of custom roles can be chosen.
pub const GRANTED_ROLE: &str = "role";

/// What everybody may do who has proven who they are, with or without roles.
pub(super) fn everyone() -> RoleSpec {
    let own = When {
        owned: true,
        ..When::default()
    };
    let changing = When {
        direct: true,
        ..own.clone()
    };
    RoleSpec {
        rules: vec![
            RuleSpec::allowing(&["kind:read"]),
            RuleSpec::allowing(&[
                "user:read",
                "grant:read",
                "credential:read",
                "token:read",
                "trust:read",
                "policy:explain",
            ])
            .when(own),
            RuleSpec::allowing(&[
                "user:change-password",
                "credential:create",
                "credential:delete",
                "token:create",
                "token:delete",
                "trust:create",
                "trust:delete",
            ])
            .when(changing),
        ],
    }
}
