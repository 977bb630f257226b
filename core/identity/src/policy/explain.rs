//! Why: every rule that was looked at, and which one decided. As data and as text.

use std::fmt;

use serde::Serialize;

use super::decide::{Decision, Effect, Failed, Policy, Ruling};
use super::object::{Object, Who};
use super::registry::Permission;
use crate::RoleId;

/// What a rule said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "condition")]
pub enum Said {
    /// It is not about this permission.
    NotAboutIt,
    /// Its conditions do not hold.
    ConditionFailed(Failed),
    /// It allows this.
    Allows,
}

/// A rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Of which role; `None` is what everybody may.
    pub role: Option<RoleId>,
    /// That role's name.
    pub name: String,
    /// Which of its rules, from 0.
    pub rule: usize,
    /// Its patterns.
    pub patterns: Vec<String>,
    /// What it said.
    pub said: Said,
}

/// A decision and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked for.
    pub permission: &'static str,
    /// On what kind of object.
    pub kind: String,
    /// Whether the permission is for that kind.
    pub kind_fits: bool,
    /// Whether the object can be reached from the caller's scope, or is their own.
    pub reachable: bool,
    /// Whether the credential's access rules leave it in.
    pub within_access_rules: bool,
    /// Whether the caller may know that the object is there.
    pub visible: bool,
    /// Roles of the caller that this policy does not know.
    pub unknown_roles: Vec<RoleId>,
    /// Every rule of every role of the caller, in the order in which they are asked.
    pub rules: Vec<Considered>,
    /// What is decided.
    pub effect: Effect,
    /// What decided.
    pub rule: Ruling,
}

impl Explanation {
    /// The decision that it explains.
    #[must_use]
    pub fn decision(&self) -> Decision {
        Decision {
            effect: self.effect,
            rule: self.rule,
        }
    }
}

impl Policy {
    /// The same as [`Policy::decide`], with all that led to it.
    #[must_use]
    pub fn explain(&self, who: Who<'_>, permission: Permission, object: &Object<'_>) -> Explanation {
        let spec = self.registry.spec(permission);
        let mut rules = Vec::new();
        let mut known = Vec::new();
        for role in self.roles_of(&who) {
            known.extend(role.id);
            rules.extend(role.rules.iter().enumerate().map(|(number, rule)| Considered {
                role: role.id,
                name: role.name.clone(),
                rule: number,
                patterns: rule.written.clone(),
                said: match rule.when.failed(&who, object) {
                    _ if !rule.allows.has(permission) => Said::NotAboutIt,
                    Some(failed) => Said::ConditionFailed(failed),
                    None => Said::Allows,
                },
            }));
        }
        let kind_fits = self.registry.kind(permission) == object.kind;
        let reachable = self.reaches(&who, permission, object);
        let within_access_rules = who.narrowed.is_none_or(|n| n.permissions().has(permission));
        let visible = self.visible(&who, permission, object);
        let allows = rules.iter().find(|rule| rule.said == Said::Allows);
        let failed = rules.iter().find_map(|rule| match rule.said {
            Said::ConditionFailed(failed) => Some(Ruling::Condition {
                role: rule.role,
                rule: rule.rule,
                failed,
            }),
            Said::NotAboutIt | Said::Allows => None,
        });
        let (allowed, rule) = match allows {
            _ if !kind_fits => (false, Ruling::WrongKind),
            _ if !reachable => (false, Ruling::OutOfScope),
            _ if !within_access_rules => (false, Ruling::AccessRules),
            Some(rule) => (
                true,
                Ruling::Rule {
                    role: rule.role,
                    rule: rule.rule,
                },
            ),
            None => (false, failed.unwrap_or(Ruling::NoRule)),
        };
        let effect = match (allowed, visible) {
            (true, _) => Effect::Allow,
            (false, true) => Effect::Forbidden,
            (false, false) => Effect::Hidden,
        };
        let unknown = who.principal.roles.iter().filter(|id| !known.contains(id));
        Explanation {
            permission: spec.name,
            kind: object.kind.to_owned(),
            kind_fits,
            reachable,
            within_access_rules,
            visible,
            unknown_roles: unknown.copied().collect(),
            rules,
            effect,
            rule,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Labels => "the object's labels are others",
            Self::Within => "the object is in another part of the project tree",
            Self::Owned => "the object is not the caller's own",
            Self::SecondFactor => "no second factor was proven",
            Self::Direct => "a credential or delegation calls in the user's place",
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match self.effect {
            Effect::Allow => "allowed",
            Effect::Forbidden => "forbidden (403)",
            Effect::Hidden => "hidden (404)",
        };
        writeln!(f, "{} on {}: {effect}", self.permission, self.kind)?;
        let name = |role: &Option<RoleId>| {
            let rule = self.rules.iter().find(|rule| rule.role == *role);
            rule.map_or("?", |rule| rule.name.as_str())
        };
        match &self.rule {
            Ruling::Rule { role, rule } => writeln!(f, "  because rule {rule} of {} allows it", name(role))?,
            Ruling::NoRule => writeln!(f, "  because no rule of any role allows it")?,
            Ruling::Condition { role, rule, failed } => {
                writeln!(
                    f,
                    "  because rule {rule} of {} does not hold: {failed}",
                    name(role)
                )?;
            }
            Ruling::OutOfScope => writeln!(f, "  because the object is out of reach of the caller's scope")?,
            Ruling::AccessRules => writeln!(f, "  because the credential's access rules leave it out")?,
            Ruling::WrongKind => writeln!(f, "  because the permission is for another kind of object")?,
        }
        if self.effect == Effect::Hidden {
            writeln!(f, "  and the caller may not know that the object is there")?;
        }
        for rule in &self.rules {
            let said = match rule.said {
                Said::NotAboutIt => "not about it".to_owned(),
                Said::ConditionFailed(failed) => failed.to_string(),
                Said::Allows => "allows it".to_owned(),
            };
            let patterns = rule.patterns.join(" ");
            writeln!(f, "  {} rule {} [{patterns}]: {said}", rule.name, rule.rule)?;
        }
        for role in &self.unknown_roles {
            writeln!(
                f,
                "  role {role} is not known here or does not count in this scope"
            )?;
        }
        Ok(())
    }
}
