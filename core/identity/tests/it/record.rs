//! Records are read tolerantly, names are what they should be.

use proptest::prelude::*;
use serde_json::json;
use skyloom_identity::{
    Actor, BuiltIn, Credential, DEFAULT_DOMAIN, Domain, Endpoint, Grant, Group, GroupId, NamePolicyError,
    Password, Region, Role, Service, Target, Trust, User, UserKind, check_name, fold_name, name_hash, paths,
};
use skyloom_model::{Id, Project};
use skyloom_store::Key;
use uuid::Uuid;

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

#[test]
fn records_without_what_is_new_and_with_what_is_unknown_are_read() {
    let at = "2026-01-01T00:00:00Z";
    let old = json!({"id": ID, "name": "n", "created_at": at, "from_the_future": {"a": 1}});
    let domain: Domain = serde_json::from_value(old.clone()).unwrap();
    assert!(domain.enabled && !domain.deleting && domain.epoch == 0);
    let user: User = serde_json::from_value(old.clone()).unwrap();
    assert!(user.enabled && user.domain == DEFAULT_DOMAIN && user.kind == UserKind::Person);
    let group: Group = serde_json::from_value(old.clone()).unwrap();
    assert_eq!(group.domain, DEFAULT_DOMAIN);
    let role: Role = serde_json::from_value(old).unwrap();
    assert!(role.domain.is_none() && role.permissions.is_empty());
    let region: Region = serde_json::from_value(json!({"id": "r", "created_at": at})).unwrap();
    assert_eq!(region.parent, None);
    let service: Service =
        serde_json::from_value(json!({"id": ID, "type": "compute", "created_at": at})).unwrap();
    assert!(service.enabled);
    let endpoint =
        json!({"id": ID, "service": ID, "interface": "public", "url": "http://x", "created_at": at});
    assert!(serde_json::from_value::<Endpoint>(endpoint).unwrap().enabled);
    let trust: Trust =
        serde_json::from_value(json!({"id": ID, "trustor": ID, "trustee": ID, "created_at": at})).unwrap();
    assert!(trust.roles.is_empty() && !trust.impersonation && trust.redelegation_count == 0);
    let grant: Grant = serde_json::from_value(json!({
        "target": {"type": "system"}, "actor": {"type": "user", "id": ID}, "role": ID, "created_at": at,
    }))
    .unwrap();
    assert!(!grant.inherited);
}

#[test]
fn projects_from_before_identity_are_of_the_default_domain_and_enabled() {
    let old = json!({
        "meta": {"id": ID, "name": "shop", "scope": "system", "generation": 1,
                 "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"},
        "spec": {"description": "The web shop."},
    });
    let project: Project = serde_json::from_value(old).unwrap();
    assert_eq!(project.spec.domain, DEFAULT_DOMAIN.uuid());
    assert!(project.spec.enabled && !project.spec.deleting && project.spec.parent.is_none());
    assert_eq!(
        (project.spec.epoch, project.spec.description.as_str()),
        (0, "The web shop.")
    );
}

#[test]
fn no_hash_is_shown() {
    let password = Password {
        user: Id::from_uuid(Uuid::nil()),
        hashes: vec!["$argon2id$canary".to_owned()],
        changed_at: skyloom_model::Timestamp::UNIX_EPOCH,
    };
    assert!(!format!("{password:?}").contains("canary"));
}

#[test]
fn built_in_roles_are_told_apart() {
    for role in BuiltIn::ALL {
        assert_eq!(BuiltIn::of(role.id()), Some(role));
    }
    assert_eq!(BuiltIn::of(Id::from_uuid(Uuid::nil())), None);
}

#[test]
fn names() {
    for good in ["a", "Alice Example", "云", &"ä".repeat(255), "a/b,c"] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    let bad = [
        ("", NamePolicyError::Empty),
        (" a", NamePolicyError::NotPrintable),
        ("a\n", NamePolicyError::NotPrintable),
        ("a\0b", NamePolicyError::NotPrintable),
        ("\u{202e}abc", NamePolicyError::NotPrintable),
        (&"ä".repeat(256), NamePolicyError::TooLong),
    ];
    for (name, why) in bad {
        assert_eq!(check_name(name), Err(why), "{name:?}");
    }
    assert_eq!(name_hash("Alice"), name_hash("aLICE"));
    assert_ne!(name_hash("Alice"), name_hash("Alicé"));
}

#[test]
fn a_credential_of_an_unknown_sort_is_no_credential() {
    let record =
        json!({"id": ID, "user": ID, "kind": {"type": "palm_reading"}, "created_at": "2026-01-01T00:00:00Z"});
    assert!(serde_json::from_value::<Credential>(record).is_err());
}

proptest! {
    #[test]
    fn targets_and_actors_are_read_as_they_are_written(bits in any::<u128>(), sort in 0..3_u8, group in any::<bool>()) {
        let id = Uuid::from_u128(bits);
        let target = match sort {
            0 => Target::System,
            1 => Target::Domain(Id::from_uuid(id)),
            _ => Target::Project(Id::from_uuid(id)),
        };
        let actor = if group { Actor::Group(GroupId::from_uuid(id)) } else { Actor::User(Id::from_uuid(id)) };
        prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        prop_assert_eq!(actor.to_string().parse::<Actor>().unwrap(), actor);
        prop_assert!(Key::parse(&paths::grant(target, actor, Id::from_uuid(id), group)).is_ok());
    }

    #[test]
    fn any_text_is_no_target_or_one_that_is_written_so(text in "\\PC{0,40}") {
        if let Ok(target) = text.parse::<Target>() {
            prop_assert_eq!(target.to_string(), text.to_lowercase());
        }
    }

    #[test]
    fn names_that_pass_make_keys_and_fold_once(name in "\\PC{1,60}") {
        if check_name(&name).is_ok() {
            prop_assert!(Key::parse(&paths::name(skyloom_identity::NameKind::User, None, &name)).is_ok());
            prop_assert_eq!(fold_name(&fold_name(&name)), fold_name(&name));
        }
    }
}
