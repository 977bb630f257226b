//! Built-in role x permission x object, compared with `tests/golden/policy.txt`.

use std::fmt::Write as _;
use std::path::Path;

use skyloom_identity::{AuthScope, BuiltIn, Effect, Object, Place, Policy};

use super::{id, principal, registry};

const HEAD: &str = "\
# What each built-in role may do, by permission and by where the object lies. Kept by tests/it/policy/matrix.rs.
#
# The caller is user 1 of domain 1, in project 1, in domain 1, or in the system. A = allowed, f = forbidden (403), . = hidden (404).
# The objects, in this order:
#   1 in project 1            2 in project 2, same domain     3 in project 3, of domain 2
#   4 in domain 1             5 in domain 2                   6 in the system
#   7 shared with all         8 the caller's own, in domain 1
#
#                            project   domain    system
#                            12345678  12345678  12345678
";

#[test]
fn what_built_in_roles_may_do_is_what_the_table_says() {
    let registry = registry();
    let policy = Policy::builder(registry.clone())
        .built_in()
        .unwrap()
        .build()
        .unwrap();
    let (one, two) = (id(10), id(11));
    let scopes = [
        AuthScope::Project(id(20)),
        AuthScope::Domain(one),
        AuthScope::System,
    ];
    let project = |n, domain| Place::Project {
        id: id(n),
        domain,
        ancestors: &[],
    };
    let places = [
        project(20, one),
        project(21, one),
        project(22, two),
        Place::Domain(one),
        Place::Domain(two),
        Place::System,
        Place::Shared,
        Place::Domain(one),
    ];
    let mut text = HEAD.to_owned();
    let roles = BuiltIn::ALL.map(Some).into_iter().chain([None]);
    for role in roles {
        writeln!(text, "\n{}", role.map_or("(no role)", BuiltIn::name)).unwrap();
        for (permission, spec) in registry.iter() {
            write!(text, "  {:<25}", spec.name).unwrap();
            for scope in scopes {
                let who = principal(scope, role.map(BuiltIn::id));
                let cell: String = places
                    .iter()
                    .zip(1..)
                    .map(|(place, n)| {
                        let object = Object::one(registry.kind(permission), *place);
                        let object = if n == 8 { object.owned_by(id(1)) } else { object };
                        match policy.decide((&who).into(), permission, &object).effect {
                            Effect::Allow => 'A',
                            Effect::Forbidden => 'f',
                            Effect::Hidden => '.',
                        }
                    })
                    .collect();
                write!(text, "  {cell}").unwrap();
            }
            text.push('\n');
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/policy.txt");
    let kept = std::fs::read_to_string(&golden).unwrap_or_default();
    if kept != text {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policy.txt");
        std::fs::write(&made, &text).unwrap();
        let differ = kept.lines().zip(text.lines()).find(|(a, b)| a != b);
        panic!(
            "the decisions are others than in {}: {differ:?}. If that is wanted, copy {}",
            golden.display(),
            made.display()
        );
    }
}
