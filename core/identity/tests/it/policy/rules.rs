//! What is refused in roles and fields, and how it is said.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use skyloom_identity::{
    Access, AuthScope, BuiltIn, Effect, FieldRules, FieldSpec, GRANTED_ROLE, Method, Needs, Object,
    PERMISSIONS, PermissionSpec, Place, Places, Policy, PolicyErrorKind, Registry, Role, RoleSpec, RuleSpec,
    When,
};
use skyloom_model::{Clock as _, ManualClock};

use super::{id, principal, registry};

fn refused(patterns: &[&str]) -> (PolicyErrorKind, String) {
    let error = RoleSpec::allowing(patterns).check(&registry()).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn roles_that_say_nothing_or_something_unknown_are_refused_with_a_hint() {
    let (kind, text) = refused(&["server:strat"]);
    assert_eq!(kind, PolicyErrorKind::Unknown);
    assert!(text.contains("did you mean server:start?"), "{text}");
    let (kind, text) = refused(&["sever:*"]);
    assert_eq!(kind, PolicyErrorKind::Pattern);
    assert!(text.contains("did you mean server:*?"), "{text}");
    for nothing in [
        &["server"][..],
        &[""],
        &["!server:delete"],
        &["server:start", "!server:stop"],
        &["server:start", "!server:*"],
        &["*:nothing"],
        &[],
        &["audit:*", "!audit:read"],
        &["store:*"],
        &["server:*:start"],
    ] {
        let (kind, _) = refused(nothing);
        assert!(
            matches!(kind, PolicyErrorKind::Pattern | PolicyErrorKind::Unknown),
            "{nothing:?}: {kind:?}"
        );
    }
    for reserved in ["audit:read", "store:use"] {
        assert_eq!(refused(&[reserved]).0, PolicyErrorKind::Reserved);
    }
    let many = RoleSpec {
        rules: vec![RuleSpec::allowing(&["*"]); 65],
    };
    assert_eq!(
        many.check(&registry()).unwrap_err().kind(),
        PolicyErrorKind::TooLong
    );
    let (_, text) = refused(&[&"x:\u{1b}[31m\n".repeat(10_000)]);
    assert!(text.len() < 400 && !text.contains(char::is_control), "{text}");
}

#[test]
fn order_within_a_rule_does_not_matter() {
    let registry = registry();
    let role = |patterns: &[&str]| {
        let policy = Policy::builder(registry.clone()).custom(id(100), "r", &RoleSpec::allowing(patterns));
        let policy = policy.unwrap().build().unwrap();
        let who = principal(AuthScope::System, [id(100)]);
        let decisions = registry.iter().map(|(permission, _)| {
            let object = Object::one(registry.kind(permission), Place::System);
            policy.decide((&who).into(), permission, &object).effect
        });
        decisions.collect::<Vec<_>>()
    };
    assert_eq!(role(&["*", "!server:*"]), role(&["!server:*", "*"]));
}

#[test]
fn roles_are_data() {
    let text = json!({"rules": [
        {"allow": ["*:read"]},
        {"allow": ["server:*", "!server:delete"], "when": {"labels": {"env": ["test"]}, "second_factor": true}},
    ]});
    let spec: RoleSpec = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(serde_json::to_value(&spec).unwrap(), text);
    assert!(serde_json::from_value::<RuleSpec>(json!({"allow": ["*"], "unless": {}})).is_err());
    assert!(serde_json::from_value::<When>(json!({"lables": {}})).is_err());
}

#[test]
fn products_add_permissions_of_their_own() {
    const OWN: &[PermissionSpec] = &[PermissionSpec {
        name: "invoice:pay",
        en: "pay invoices",
        zh: "支付账单",
        access: Access::Operate,
        object: Places::PROJECT,
        reserved: false,
    }];
    let registry = Registry::new(&[PERMISSIONS, OWN]).unwrap();
    let pay = registry.permission("invoice:pay").unwrap();
    assert!(registry.matching("*").unwrap().has(pay));
    assert_eq!(registry.spec(pay).zh, "支付账单");
    assert_eq!(
        Registry::new(&[OWN, OWN]).unwrap_err().kind(),
        PolicyErrorKind::Table
    );
    const BAD: &[PermissionSpec] = &[PermissionSpec {
        name: "Invoice:*",
        ..OWN[0]
    }];
    assert_eq!(Registry::new(&[BAD]).unwrap_err().kind(), PolicyErrorKind::Table);
    let mut seen = BTreeSet::new();
    for (_, spec) in registry.iter() {
        assert!(!spec.en.is_empty() && !spec.zh.is_ascii(), "{}", spec.name);
        assert!(seen.insert(spec.name));
    }
    assert!(
        Policy::builder(Registry::new(&[OWN]).unwrap().into())
            .built_in()
            .is_err()
    );
}

#[test]
fn stored_roles_that_cannot_be_used_allow_nothing_and_are_reported() {
    let role = |n, permissions: &[&str]| Role {
        id: id(n),
        name: format!("role {n}"),
        domain: None,
        description: String::new(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        deleting: false,
        extra: serde_json::Map::new(),
        created_at: ManualClock::new().now(),
    };
    let mut usurper = role(0, &["*"]);
    usurper.id = BuiltIn::Reader.id();
    let roles = [role(100, &["server:*"]), role(101, &["gone:*"]), usurper];
    let (policy, unusable) = Policy::of(registry(), &roles).unwrap();
    let ids: Vec<_> = unusable.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [id(101), BuiltIn::Reader.id()]);
    let start = policy.registry().permission("server:start").unwrap();
    let object = Object::one("server", Place::System);
    let effect = |role| {
        let who = principal(AuthScope::System, [role]);
        policy.decide((&who).into(), start, &object).effect
    };
    assert_eq!(effect(id(100)), Effect::Allow);
    assert_eq!(effect(id(101)), Effect::Hidden);
    assert_eq!(effect(BuiltIn::Reader.id()), Effect::Forbidden);
}

#[test]
fn a_manager_gives_small_roles_in_the_own_domain_only() {
    let policy = Policy::builder(registry()).built_in().unwrap().build().unwrap();
    let grant = policy.registry().permission("grant:create").unwrap();
    let who = principal(AuthScope::Domain(id(10)), [BuiltIn::Manager.id()]);
    let effect = |role: Option<&str>, domain: u128| {
        let labels: BTreeMap<String, String> = role
            .map(|r| (GRANTED_ROLE.to_owned(), r.to_owned()))
            .into_iter()
            .collect();
        let object = Object::one("grant", Place::Domain(id(domain))).labelled(&labels);
        policy.decide((&who).into(), grant, &object).effect
    };
    assert_eq!(effect(Some("member"), 10), Effect::Allow);
    for more in [Some("admin"), Some("operator"), Some("auditor"), None] {
        assert_eq!(effect(more, 10), Effect::Forbidden);
    }
    assert_eq!(effect(Some("member"), 11), Effect::Hidden);
}

#[test]
fn roles_count_in_a_scope_alone() {
    let policy = Policy::builder(registry()).built_in().unwrap().build().unwrap();
    let read = policy.registry().permission("flavor:read").unwrap();
    let flavor = Object::one("flavor", Place::Shared);
    let effect = |scope| {
        let who = principal(scope, [BuiltIn::Admin.id()]);
        policy.decide((&who).into(), read, &flavor).effect
    };
    assert_eq!(effect(AuthScope::Project(id(20))), Effect::Allow);
    assert_eq!(effect(AuthScope::None), Effect::Hidden);
}

#[test]
fn what_is_ones_own_is_changed_in_person() {
    let policy = Policy::builder(registry()).built_in().unwrap().build().unwrap();
    let create = policy.registry().permission("credential:create").unwrap();
    let own = Object::all("credential", Place::Domain(id(10))).owned_by(id(1));
    let mut who = principal(AuthScope::Project(id(20)), [BuiltIn::Member.id()]);
    assert_eq!(policy.decide((&who).into(), create, &own).effect, Effect::Allow);
    who.via = skyloom_identity::Via::ApplicationCredential { id: id(5) };
    who.methods = vec![Method::ApplicationCredential];
    let refused = policy.explain((&who).into(), create, &own);
    assert_eq!(refused.effect, Effect::Forbidden);
    assert!(refused.to_string().contains("in the user's place"), "{refused}");
}

#[test]
fn fields_that_are_not_listed_are_neither_seen_nor_set() {
    const FIELDS: &[FieldSpec] = &[
        FieldSpec {
            kind: "server",
            field: "name",
            read: Needs::Nothing,
            write: Needs::Nothing,
        },
        FieldSpec {
            kind: "server",
            field: "status",
            read: Needs::Nothing,
            write: Needs::Never,
        },
        FieldSpec {
            kind: "server",
            field: "host",
            read: Needs::Permission("host:read"),
            write: Needs::Permission("host:update"),
        },
    ];
    let registry = registry();
    let rules = FieldRules::new(&registry, &[FIELDS]).unwrap();
    let read = registry.permission("host:read").unwrap();
    let update = registry.permission("host:update").unwrap();
    let answer = json!({"name": "a", "status": {}, "host": "h", "secret": "s"});
    let seen = |may: &dyn Fn(_) -> bool, kind: &str| {
        let mut answer = answer.as_object().unwrap().clone();
        rules.strip(kind, &mut answer, may);
        answer.keys().cloned().collect::<Vec<_>>()
    };
    let mut all = seen(&|p| p == read, "server");
    all.sort();
    assert_eq!(all, ["host", "name", "status"]);
    let mut few = seen(&|_| false, "server");
    few.sort();
    assert_eq!(few, ["name", "status"]);
    assert!(seen(&|_| true, "volume").is_empty());
    assert!(rules.check("server", ["name"], |_| false).is_ok());
    assert!(rules.check("server", ["name", "host"], |p| p == update).is_ok());
    let refused = rules
        .check("server", ["name", "status", "host"], |_| false)
        .unwrap_err();
    assert_eq!((refused.field.as_str(), refused.known), ("status", true));
    let refused = rules.check("server", ["host"], |_| false).unwrap_err();
    assert!(
        !refused.known && refused.to_string().contains("\"host\""),
        "{refused}"
    );
    assert!(rules.check("server", ["id"], |_| true).is_err());
    assert!(rules.check("volume", ["name"], |_| true).is_err());
    let hostile = "x\n".repeat(1000);
    let refused = rules.check("server", [hostile.as_str()], |_| true).unwrap_err();
    assert!(refused.field.len() <= 64 && !refused.field.contains('\n'));
    assert_eq!(rules.names("server").count(), 3);
    let wrong = [FieldSpec {
        kind: "server",
        field: "x",
        read: Needs::Permission("host:raed"),
        write: Needs::Never,
    }];
    let error = FieldRules::new(&registry, &[&wrong]).unwrap_err();
    assert!(error.hint_text().unwrap().contains("host:read"), "{error}");
}
