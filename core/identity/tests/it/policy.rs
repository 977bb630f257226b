//! Decisions against a table that people can read, against a naive interpreter, and against their own explanations.

mod matrix;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use skyloom_identity::{
    Access, AuthScope, BuiltIn, Covered, DomainId, Effect, Method, Narrowed, Object, PERMISSIONS, Place,
    Places, Policy, Principal, Registry, RoleId, RoleSpec, RuleSpec, Ruling, UserId, Via, When,
};
use skyloom_model::{Id, ProjectId, TokenId};
use uuid::Uuid;

pub(super) fn id<K: ?Sized>(n: u128) -> Id<K> {
    Id::from_uuid(Uuid::from_u128(n))
}

pub(super) fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(&[PERMISSIONS]).unwrap())
}

pub(super) fn principal(scope: AuthScope, roles: impl IntoIterator<Item = RoleId>) -> Principal {
    Principal {
        user: id(1),
        domain: id(10),
        scope,
        roles: Arc::new(roles.into_iter().collect()),
        via: Via::User,
        methods: vec![Method::Password],
        until: None,
        audit_ids: Vec::new(),
    }
}

const PATTERNS: [&str; 14] = [
    "*",
    "*:read",
    "server:*",
    "server:start",
    "user:*",
    "project:*",
    "credential:*",
    "*:delete",
    "!server:delete",
    "!*:read",
    "!server:*",
    "!user:delete",
    "flavor:read",
    "!credential:create",
];

const KINDS: [&str; 6] = ["server", "user", "project", "flavor", "credential", "audit"];

fn when() -> impl Strategy<Value = When> {
    let label = prop_oneof![4 => Just(None), 1 => Just(Some("prod")), 1 => Just(Some("test"))];
    let within = prop_oneof![4 => Just(None), 1 => (20_u128..24).prop_map(Some)];
    let flag = || prop::bool::weighted(0.2);
    (label, within, flag(), flag(), flag()).prop_map(|(label, within, owned, second_factor, direct)| When {
        labels: label
            .map(|l| ("env".to_owned(), vec![l.to_owned(), "any".to_owned()]))
            .into_iter()
            .collect(),
        within: within.map(id),
        owned,
        second_factor,
        direct,
    })
}

fn rule() -> impl Strategy<Value = RuleSpec> {
    let allow = prop::sample::subsequence(PATTERNS.to_vec(), 1..5);
    (allow, when()).prop_map(|(allow, when)| RuleSpec::allowing(&allow).when(when))
}

/// Roles that a registry takes.
fn role() -> impl Strategy<Value = RoleSpec> {
    prop::collection::vec(rule(), 0..4).prop_map(|rules| {
        let registry = registry();
        let usable = |rule: &RuleSpec| {
            let spec = RoleSpec {
                rules: vec![rule.clone()],
            };
            spec.check(&registry).is_ok()
        };
        RoleSpec {
            rules: rules.into_iter().filter(usable).collect(),
        }
    })
}

#[derive(Debug, Clone)]
struct Thing {
    kind: &'static str,
    place: u8,
    project: u128,
    ancestors: Vec<ProjectId>,
    owner: Option<UserId>,
    labels: Option<BTreeMap<String, String>>,
    collection: bool,
}

impl Thing {
    fn domain(&self) -> DomainId {
        // Projects 20 and 21 are of domain 10, the others of 11.
        id(if self.project < 22 { 10 } else { 11 })
    }
    fn object(&self) -> Object<'_> {
        let place = match self.place {
            0 => Place::System,
            1 => Place::Shared,
            2 => Place::Domain(self.domain()),
            _ => Place::Project {
                id: id(self.project),
                domain: self.domain(),
                ancestors: &self.ancestors,
            },
        };
        Object {
            kind: self.kind,
            place,
            owner: self.owner,
            labels: self.labels.as_ref(),
            collection: self.collection,
        }
    }
}

fn thing() -> impl Strategy<Value = Thing> {
    let label = prop::option::of(prop::sample::select(vec!["prod", "test", "other"]));
    (
        prop::sample::select(KINDS.to_vec()),
        0_u8..6,
        20_u128..24,
        prop::collection::vec((20_u128..24).prop_map(id), 0..3),
        prop::option::of((1_u128..3).prop_map(id)),
        label,
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(kind, place, project, ancestors, owner, label, collection)| Thing {
                kind,
                place,
                project,
                ancestors,
                owner,
                labels: label.map(|l| BTreeMap::from([("env".to_owned(), l.to_owned())])),
                collection,
            },
        )
}

fn caller() -> impl Strategy<Value = Principal> {
    let scope = prop_oneof![
        Just(AuthScope::System),
        Just(AuthScope::None),
        (10_u128..12).prop_map(|d| AuthScope::Domain(id(d))),
        (20_u128..24).prop_map(|p| AuthScope::Project(id(p))),
    ];
    (scope, any::<bool>(), any::<bool>()).prop_map(|(scope, totp, direct)| {
        let mut principal = principal(scope, []);
        if totp {
            principal.methods.push(Method::Totp);
        }
        if !direct {
            principal.via = Via::ApiToken {
                id: TokenId::from_uuid(Uuid::nil()),
            };
        }
        principal
    })
}

/// Reads the rules as the documentation says them, one by one, without bits.
fn interpret(
    registry: &Registry,
    roles: &[&RoleSpec],
    who: &Principal,
    name: &str,
    object: &Object<'_>,
) -> bool {
    let matches = |pattern: &str| {
        let (kind, verb) = name.split_once(':').unwrap();
        let wild = match pattern.split_once(':') {
            None => true,
            Some(("*", v)) => v == verb,
            Some((k, "*")) => k == kind,
            Some(_) => return pattern == name,
        };
        wild && !["store:use", "audit:read", "audit:verify"].contains(&name)
    };
    let spec = registry.spec(registry.permission(name).unwrap());
    let mine = object.owner == Some(who.user);
    let reach = match (who.scope, object.place) {
        _ if mine && spec.object.has(Places::OWN) => true,
        (AuthScope::System, _) => spec.object != Places::OWN,
        (_, Place::Shared) => spec.access == Access::Read,
        (AuthScope::Project(p), Place::Project { id, .. }) => p == id && spec.object.has(Places::PROJECT),
        (AuthScope::Domain(d), Place::Project { domain, .. } | Place::Domain(domain)) => {
            d == domain && spec.object.has(Places::DOMAIN)
        }
        _ => false,
    };
    let own = When {
        owned: true,
        ..When::default()
    };
    let direct = When {
        direct: true,
        ..own.clone()
    };
    let everyone = [
        RuleSpec::allowing(&["kind:read"]),
        RuleSpec::allowing(&["user:read", "credential:read"]).when(own),
        RuleSpec::allowing(&["user:change-password", "credential:create", "credential:delete"]).when(direct),
    ];
    let counted = roles.iter().filter(|_| who.scope != AuthScope::None);
    let mut rules = counted.flat_map(|role| &role.rules).chain(&everyone);
    reach
        && name.split(':').next() == Some(object.kind)
        && rules.any(|rule| {
            let (no, yes): (Vec<&String>, Vec<&String>) = rule.allow.iter().partition(|p| p.starts_with('!'));
            let w = &rule.when;
            let inside = |top: &ProjectId| match object.place {
                Place::Project { id, ancestors, .. } => id == *top || ancestors.contains(top),
                _ => false,
            };
            yes.iter().any(|p| matches(p))
                && !no.iter().any(|p| matches(&p[1..]))
                && w.labels.iter().all(|(k, v)| {
                    object
                        .labels
                        .is_some_and(|l| l.get(k).is_some_and(|value| v.contains(value)))
                })
                && w.within.iter().all(inside)
                && (!w.owned || mine)
                && (!w.second_factor || who.methods.contains(&Method::Totp))
                && (!w.direct || who.via == Via::User)
        })
}

fn policy(roles: &[RoleSpec]) -> Policy {
    let mut builder = Policy::builder(registry());
    for (spec, n) in roles.iter().zip(100..) {
        builder = builder.custom(id(n), "custom", spec).unwrap();
    }
    builder.build().unwrap()
}

fn with(who: &Principal, roles: impl IntoIterator<Item = u128>) -> Principal {
    let roles: BTreeSet<RoleId> = roles.into_iter().map(id).collect();
    Principal {
        roles: Arc::new(roles),
        ..who.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn decisions_are_those_of_a_naive_interpreter_and_of_their_explanation(
        roles in prop::collection::vec(role(), 0..4), who in caller(), thing in thing(),
    ) {
        let policy = policy(&roles);
        let registry = policy.registry().clone();
        let who = with(&who, 100..100 + roles.len() as u128);
        let specs: Vec<&RoleSpec> = roles.iter().collect();
        let object = thing.object();
        for (permission, spec) in registry.iter().filter(|(p, _)| KINDS.contains(&registry.kind(*p))) {
            let decision = policy.decide((&who).into(), permission, &object);
            let naive = interpret(&registry, &specs, &who, spec.name, &object);
            prop_assert_eq!(decision.effect == Effect::Allow, naive, "{}", spec.name);
            // What is hidden cannot be read, what is forbidden can, or is a collection.
            let read = interpret(&registry, &specs, &who, &format!("{}:read", object.kind), &object);
            if registry.kind(permission) == object.kind && !naive && !object.collection {
                prop_assert_eq!(decision.effect == Effect::Forbidden, read);
            }
            let explained = policy.explain((&who).into(), permission, &object);
            prop_assert_eq!(explained.decision(), decision);
            let text = explained.to_string();
            prop_assert!(text.contains("because") && text.contains(spec.name));
        }
    }

    #[test]
    fn a_role_more_takes_nothing_away(
        roles in prop::collection::vec(role(), 1..4), who in caller(), thing in thing(),
    ) {
        let policy = policy(&roles);
        let n = roles.len() as u128;
        let (fewer, more) = (with(&who, 100..100 + n - 1), with(&who, 100..100 + n));
        for (permission, _) in policy.registry().iter() {
            let before = policy.decide((&fewer).into(), permission, &thing.object()).effect;
            let after = policy.decide((&more).into(), permission, &thing.object()).effect;
            // Allowed stays allowed, and what can be seen stays in sight.
            prop_assert!(after <= before, "{before:?} became {after:?}");
        }
    }

    #[test]
    fn a_custom_role_never_exceeds_its_patterns(role in role(), who in caller(), thing in thing()) {
        let policy = policy(std::slice::from_ref(&role));
        let registry = policy.registry();
        let who = with(&who, [100]);
        for (permission, spec) in registry.iter() {
            let decision = policy.decide((&who).into(), permission, &thing.object());
            if let Ruling::Rule { role: Some(_), rule } = decision.rule {
                let positive = role.rules[rule].allow.iter().filter(|p| !p.starts_with('!'));
                let negative = role.rules[rule].allow.iter().filter_map(|p| p.strip_prefix('!'));
                let covered = |p: &str| registry.matching(p).unwrap().has(permission);
                prop_assert!(positive.map(String::as_str).any(covered), "{}", spec.name);
                prop_assert!(!negative.into_iter().any(covered), "{}", spec.name);
                prop_assert!(!spec.reserved);
            }
        }
    }

    #[test]
    fn lists_cover_what_may_be_read_and_never_more(
        roles in prop::collection::vec(role(), 0..4), who in caller(), thing in thing(),
    ) {
        let policy = policy(&roles);
        let who = with(&who, 100..100 + roles.len() as u128);
        let mut object = thing.object();
        object.collection = false;
        let Ok(read) = policy.registry().permission(&format!("{}:read", thing.kind)) else { return Ok(()) };
        let coverage = policy.filter_scope((&who).into(), read);
        let in_scope = match (coverage.scope, object.place) {
            (Covered::All, _) => true,
            (Covered::Project(mine), Place::Project { id, .. }) => mine == id,
            (Covered::Domain(mine), Place::Project { domain, .. } | Place::Domain(domain)) => mine == domain,
            _ => false,
        };
        let shared = coverage.shared && object.place == Place::Shared;
        let own = coverage.own.is_some() && coverage.own == object.owner;
        let allowed = policy.decide((&who).into(), read, &object).effect == Effect::Allow;
        prop_assert!(!allowed || in_scope || shared || own, "left out: {coverage:?}");
        if !coverage.check_each {
            prop_assert!(allowed || !(in_scope || shared || own), "too much: {coverage:?}");
        }
    }

    #[test]
    fn access_rules_only_narrow(pattern in prop::sample::select(vec!["*:read", "server:*", "user:delete"]),
                                who in caller(), thing in thing()) {
        let policy = policy(&[RoleSpec::allowing(&["*"])]);
        let who = with(&who, [100]);
        let narrowed = Narrowed::to(policy.registry(), &[pattern.to_owned()]).unwrap();
        for (permission, _) in policy.registry().iter() {
            let free = policy.decide((&who).into(), permission, &thing.object()).effect;
            let bound = policy.decide(skyloom_identity::Who::from(&who).narrowed(&narrowed), permission, &thing.object());
            let inside = narrowed.permissions().has(permission);
            prop_assert_eq!(bound.effect == Effect::Allow, inside && free == Effect::Allow);
        }
    }
}

#[test]
fn a_rule_for_ones_own_lists_what_is_so_within_the_scope() {
    let owned = RuleSpec {
        allow: vec!["*".into()],
        when: When {
            owned: true,
            ..When::default()
        },
    };
    let policy = policy(&[RoleSpec { rules: vec![owned] }]);
    let read = policy.registry().permission("project:read").unwrap();
    let domain = Id::from_uuid(Uuid::from_u128(10));
    let who = with(&principal(AuthScope::Domain(domain), []), [100]);
    let coverage = policy.filter_scope((&who).into(), read);
    assert_eq!(
        (coverage.scope, coverage.check_each),
        (Covered::Domain(domain), true)
    );
    assert_eq!(coverage.own, None);
}

#[test]
fn the_built_in_roles_can_be_compiled_and_the_audit_is_the_auditors_alone() {
    let policy = Policy::builder(registry()).built_in().unwrap().build().unwrap();
    let read = policy.registry().permission("audit:read").unwrap();
    for role in BuiltIn::ALL {
        let who = principal(AuthScope::System, [role.id()]);
        let decision = policy.decide((&who).into(), read, &Object::all("audit", Place::System));
        assert_eq!(
            decision.effect == Effect::Allow,
            role == BuiltIn::Auditor,
            "{role:?}"
        );
    }
}
