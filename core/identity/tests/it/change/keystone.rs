//! What Keystone's clients keep here beside what identity itself needs.

use skyloom_identity::{
    Actor, AuthScope, BuiltIn, ChangeError, CredentialId, DEFAULT_DOMAIN, Doomed, Ec2Key, FileKeys, RoleId,
    SecretStore as _, Target, Vault, verify,
};
use skyloom_model::{Id, Secret};
use skyloom_store::{Key, Txn};

use crate::world::World;

async fn role_in(world: &World, domain: skyloom_identity::DomainId, name: &str) -> RoleId {
    let made = world
        .editor
        .change(|edit| edit.create_role(Some(domain), name, |_| {}))
        .await;
    made.unwrap().id
}

#[tokio::test]
async fn an_implication_between_two_domains_is_kept_and_gives_nothing() {
    let world = World::bootstrapped().await;
    let (one, two) = (world.domain("one").await, world.domain("two").await);
    let (here, there) = (
        role_in(&world, one, "here").await,
        role_in(&world, two, "there").await,
    );
    let same = role_in(&world, one, "same").await;
    for implied in [there, same, BuiltIn::Reader.id()] {
        world
            .editor
            .change(|e| e.imply(here, implied, false))
            .await
            .unwrap();
    }
    let user = world.user(one, "user").await;
    let (target, actor) = (Target::Domain(one), Actor::User(user));
    world
        .editor
        .change(|e| e.grant(target, actor, here, false))
        .await
        .unwrap();

    let at = world.snapshot();
    assert!(at.implication(here, there).is_some(), "it is kept");
    let roles = at.effective_roles(user, AuthScope::Domain(one));
    assert!(roles.contains(&same) && roles.contains(&BuiltIn::Reader.id()));
    assert!(!roles.contains(&there), "a role of another domain came with one");

    // Back again: no circle, for neither gives anything.
    world
        .editor
        .change(|e| e.imply(there, here, false))
        .await
        .unwrap();
    assert!(verify(&world.truth().await).is_empty());
    world
        .editor
        .remove(Doomed::Role(there), Txn::new())
        .await
        .unwrap();
    assert!(verify(&world.truth().await).is_empty());
}

#[tokio::test]
async fn extra_attributes_are_kept_and_bounded() {
    let world = World::bootstrapped().await;
    let made = world.editor.change(|edit| {
        edit.create_user(DEFAULT_DOMAIN, "user", |user| {
            user.extra.insert("team".to_owned(), "blue".into());
        })
    });
    let id = made.await.unwrap().id;
    let kept = world.snapshot().user(id).unwrap().value.extra.clone();
    assert_eq!(kept.get("team"), Some(&"blue".into()));
    let long = world.refused(|edit| {
        edit.update_user(id, |user| {
            user.extra.insert("team".to_owned(), "b".repeat(20_000).into());
        })
    });
    assert!(matches!(long.await, ChangeError::Invalid { field: "extra", .. }));
}

#[tokio::test]
async fn a_key_for_signed_requests_changes_its_names_and_keeps_its_place() {
    let world = World::bootstrapped().await;
    let user = world.user(DEFAULT_DOMAIN, "user").await;
    let project = world.project(DEFAULT_DOMAIN, None, "p").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    FileKeys::generate(&file, &*world.ids).unwrap();
    let keys = FileKeys::read(&file, &[], world.ids.clone()).unwrap();
    let vault = Vault::new(std::sync::Arc::new(keys), world.ids.clone());
    let place = Key::parse("identity/credentials/here").unwrap();
    let sealed = vault
        .seal(&place, &Secret::new(b"secret".to_vec()))
        .await
        .unwrap();
    let key = |access: &str| Ec2Key {
        access: access.to_owned(),
        sealed: sealed.clone(),
        project: Some(project),
    };
    let (id, other): (CredentialId, CredentialId) = (Id::fresh(&*world.ids), Id::fresh(&*world.ids));
    world
        .editor
        .change(|e| e.create_ec2_key(id, user, key("one")))
        .await
        .unwrap();
    world
        .editor
        .change(|e| e.create_ec2_key(other, user, key("two")))
        .await
        .unwrap();

    let taken = world
        .refused(|e| e.update_ec2_key(id, |key| "two".clone_into(&mut key.access)))
        .await;
    assert!(matches!(taken, ChangeError::NameTaken { .. }), "{taken}");
    let moved = world
        .refused(|e| e.update_ec2_key(id, |key| key.project = None))
        .await;
    assert!(
        matches!(moved, ChangeError::Invalid { field: "project", .. }),
        "{moved}"
    );

    world
        .editor
        .change(|e| e.update_ec2_key(id, |key| "new".clone_into(&mut key.access)))
        .await
        .unwrap();
    let at = world.snapshot();
    assert!(at.ec2_key("one").is_none());
    assert_eq!(at.ec2_key("new").map(|found| found.value.id), Some(id));
    assert!(verify(&world.truth().await).is_empty());
}

#[tokio::test]
async fn a_region_moves_but_never_into_itself() {
    let world = World::bootstrapped().await;
    let make = async |id: &'static str, parent: Option<&'static str>| {
        let parent = parent.map(str::to_owned);
        let fill = |region: &mut skyloom_identity::Region| region.parent.clone_from(&parent);
        world.editor.change(|e| e.create_region(id, fill)).await.unwrap();
    };
    make("a", None).await;
    make("b", Some("a")).await;
    make("c", Some("b")).await;
    make("d", None).await;
    let into = |id: &'static str, parent: &'static str| {
        move |edit: &skyloom_identity::Edit<'_>| {
            edit.update_region(id, |region| region.parent = Some(parent.to_owned()))
        }
    };
    for (id, parent) in [("a", "a"), ("a", "c"), ("b", "c")] {
        let refused = world.refused(into(id, parent)).await;
        assert!(
            matches!(refused, ChangeError::Invalid { field: "parent", .. }),
            "{refused}"
        );
    }
    let missing = world.refused(into("a", "x")).await;
    assert!(matches!(missing, ChangeError::NotFound { .. }), "{missing}");

    // Of two moves that would close a circle together, one does not pass: a into d below c, and d into c.
    let at = world.snapshot();
    let edit = world.edit(&at);
    let (one, two) = (into("a", "d")(&edit).unwrap(), into("d", "c")(&edit).unwrap());
    assert!(world.commit(one.txn).await.committed().is_some());
    assert!(world.commit(two.txn).await.committed().is_none());
    assert!(verify(&world.truth().await).is_empty());
}
