//! Each refusal says which sort it is.

use skyloom_identity::{
    Actor, BuiltIn, ChangeError, DEFAULT_DOMAIN, Doomed, Interface, MAX_PROJECT_DEPTH, Target,
};
use skyloom_model::Id;
use skyloom_store::Txn;
use uuid::Uuid;

use crate::world::{World, id_of};

macro_rules! refused {
    ($found:expr, $sort:pat) => {
        let found = $found;
        assert!(matches!(found, $sort), "{found:?}");
    };
}

#[tokio::test]
async fn what_is_not_there() {
    let world = World::bootstrapped().await;
    let id = Uuid::from_u128(99);
    let user = world.user(DEFAULT_DOMAIN, "u").await;
    let role = BuiltIn::Reader.id();
    refused!(
        world
            .refused(|e| e.update_domain(Id::from_uuid(id), |_| {}))
            .await,
        ChangeError::NotFound { what: "domain", .. }
    );
    refused!(
        world
            .refused(|e| e.create_user(Id::from_uuid(id), "x", |_| {}))
            .await,
        ChangeError::NotFound { what: "domain", .. }
    );
    refused!(
        world.refused(|e| e.update_user(Id::from_uuid(id), |_| {})).await,
        ChangeError::NotFound { what: "user", .. }
    );
    refused!(
        world.refused(|e| e.update_group(Id::from_uuid(id), |_| {})).await,
        ChangeError::NotFound { what: "group", .. }
    );
    refused!(
        world.refused(|e| e.update_role(Id::from_uuid(id), |_| {})).await,
        ChangeError::NotFound { what: "role", .. }
    );
    refused!(
        world
            .refused(|e| e.update_project(Id::from_uuid(id), |_| {}))
            .await,
        ChangeError::NotFound { what: "project", .. }
    );
    refused!(
        world.refused(|e| e.add_member(Id::from_uuid(id), user)).await,
        ChangeError::NotFound { what: "group", .. }
    );
    refused!(
        world.refused(|e| e.remove_member(Id::from_uuid(id), user)).await,
        ChangeError::NotFound {
            what: "membership",
            ..
        }
    );
    refused!(
        world
            .refused(|e| e.revoke(Target::System, Actor::User(user), role, false))
            .await,
        ChangeError::NotFound { what: "grant", .. }
    );
    refused!(
        world.refused(|e| e.unimply(role, role)).await,
        ChangeError::NotFound {
            what: "implication",
            ..
        }
    );
    refused!(
        world.refused(|e| e.consume_trust(Id::from_uuid(id))).await,
        ChangeError::NotFound { what: "trust", .. }
    );
    refused!(
        world.refused(|e| e.update_region("x", |_| {})).await,
        ChangeError::NotFound { what: "region", .. }
    );
    refused!(
        world
            .refused(|e| e.update_service(Id::from_uuid(id), |_| {}))
            .await,
        ChangeError::NotFound { what: "service", .. }
    );
    refused!(
        world.refused(|e| e.delete_endpoint(Id::from_uuid(id))).await,
        ChangeError::NotFound { what: "endpoint", .. }
    );
    refused!(
        world
            .refused(|e| e.update_second_factor(Id::from_uuid(id), |_| {}))
            .await,
        ChangeError::NotFound {
            what: "second factor",
            ..
        }
    );
    for doomed in [
        Doomed::Domain(Id::from_uuid(id)),
        Doomed::User(Id::from_uuid(id)),
        Doomed::Group(Id::from_uuid(id)),
        Doomed::Role(Id::from_uuid(id)),
        Doomed::Project(Id::from_uuid(id)),
        Doomed::Credential(Id::from_uuid(id)),
        Doomed::Trust(Id::from_uuid(id)),
        Doomed::Service(Id::from_uuid(id)),
    ] {
        refused!(
            world.editor.remove(doomed, Txn::new()).await.unwrap_err(),
            ChangeError::NotFound { .. }
        );
    }
}

#[tokio::test]
async fn names_that_are_taken() {
    let world = World::bootstrapped().await;
    let other = world.domain("other").await;
    world.user(DEFAULT_DOMAIN, "Bob").await;
    world.user(other, "bob").await;
    world.group(DEFAULT_DOMAIN, "staff").await;
    world.project(DEFAULT_DOMAIN, None, "shop").await;
    world.project(other, None, "shop").await;
    refused!(
        world.refused(|e| e.create_domain("OTHER", |_| {})).await,
        ChangeError::NameTaken { .. }
    );
    refused!(
        world
            .refused(|e| e.create_user(DEFAULT_DOMAIN, "bOB", |_| {}))
            .await,
        ChangeError::NameTaken { .. }
    );
    refused!(
        world
            .refused(|e| e.create_group(DEFAULT_DOMAIN, "Staff", |_| {}))
            .await,
        ChangeError::NameTaken { .. }
    );
    refused!(
        world.refused(|e| e.create_role(None, "Admin", |_| {})).await,
        ChangeError::NameTaken { .. }
    );
    refused!(
        world
            .refused(|e| e.create_project(DEFAULT_DOMAIN, None, "SHOP", |_| {}))
            .await,
        ChangeError::NameTaken { .. }
    );
    // A role of a domain is another than the global one.
    world
        .editor
        .change(|e| e.create_role(Some(other), "admin", |_| {}))
        .await
        .unwrap();
    // One may be called otherwise in the writing alone.
    let bob = world.snapshot().find_user(other, "bob").unwrap().value.id;
    world
        .editor
        .change(|e| e.update_user(bob, |u| u.name = "Bob".into()))
        .await
        .unwrap();
}

#[tokio::test]
async fn values_that_are_wrong() {
    let world = World::bootstrapped().await;
    let user = world.user(DEFAULT_DOMAIN, "u").await;
    let other = world.domain("other").await;
    let project = world.project(DEFAULT_DOMAIN, None, "p").await;
    let own = world
        .editor
        .change(|e| e.create_role(Some(other), "own", |_| {}))
        .await
        .unwrap()
        .id;
    refused!(
        world.refused(|e| e.create_user(DEFAULT_DOMAIN, "", |_| {})).await,
        ChangeError::Invalid { field: "name", .. }
    );
    refused!(
        world
            .refused(|e| e.create_user(DEFAULT_DOMAIN, "x", |u| u.epoch = 7))
            .await,
        ChangeError::Invalid { field: "epoch", .. }
    );
    refused!(
        world
            .refused(|e| e.create_user(DEFAULT_DOMAIN, "x", |u| u.description = "x".repeat(1025)))
            .await,
        ChangeError::Invalid {
            field: "description",
            ..
        }
    );
    refused!(
        world.refused(|e| e.update_user(user, |u| u.domain = other)).await,
        ChangeError::Invalid { field: "domain", .. }
    );
    refused!(
        world
            .refused(|e| e.update_user(user, |u| u.deleting = true))
            .await,
        ChangeError::Invalid {
            field: "deleting",
            ..
        }
    );
    refused!(
        world
            .refused(|e| e.update_user(user, |u| u.options.multi_factor_auth_rules = vec![vec![]]))
            .await,
        ChangeError::Invalid { field: "options", .. }
    );
    refused!(
        world
            .refused(|e| e.update_domain(other, |d| d.name = "a\n".into()))
            .await,
        ChangeError::Invalid { field: "name", .. }
    );
    refused!(
        world
            .refused(|e| e.update_role(BuiltIn::Reader.id(), |r| r.permissions.push("*".into())))
            .await,
        ChangeError::Invalid {
            field: "permissions",
            ..
        }
    );
    refused!(
        world
            .refused(|e| e.create_role(None, "x", |r| r.permissions = vec![String::new()]))
            .await,
        ChangeError::Invalid {
            field: "permissions",
            ..
        }
    );
    refused!(
        world
            .refused(|e| e.update_project(project, |p| p.spec.parent = Some(project)))
            .await,
        ChangeError::Invalid { field: "parent", .. }
    );
    refused!(
        world
            .refused(|e| e.update_project(project, |p| p.spec.tags = ["a/b".to_owned()].into()))
            .await,
        ChangeError::Invalid { field: "tags", .. }
    );
    refused!(
        world
            .refused(|e| e.create_project(other, Some(project), "x", |_| {}))
            .await,
        ChangeError::Invalid { field: "parent", .. }
    );
    refused!(
        world
            .refused(|e| e.grant(Target::System, Actor::User(user), BuiltIn::Reader.id(), true))
            .await,
        ChangeError::Invalid {
            field: "inherited",
            ..
        }
    );
    refused!(
        world
            .refused(|e| e.grant(Target::Project(project), Actor::User(user), own, false))
            .await,
        ChangeError::Invalid { field: "role", .. }
    );
    refused!(
        world
            .refused(|e| e.grant(Target::System, Actor::User(user), own, false))
            .await,
        ChangeError::Invalid { field: "role", .. }
    );
    refused!(
        world.refused(|e| e.imply(BuiltIn::Reader.id(), own, false)).await,
        ChangeError::Invalid { field: "implied", .. }
    );
    refused!(
        world
            .refused(|e| e.imply(BuiltIn::Reader.id(), BuiltIn::Manager.id(), false))
            .await,
        ChangeError::Invalid { field: "implied", .. }
    );
    refused!(
        world.refused(|e| e.create_region("", |_| {})).await,
        ChangeError::Invalid { field: "id", .. }
    );
    refused!(
        world.refused(|e| e.create_service("", |_| {})).await,
        ChangeError::Invalid { field: "type", .. }
    );
    let service = world
        .editor
        .change(|e| e.create_service("s", |_| {}))
        .await
        .unwrap()
        .id;
    refused!(
        world
            .refused(|e| e.create_endpoint(service, Interface::Public, "a b", |_| {}))
            .await,
        ChangeError::Invalid { field: "url", .. }
    );
}

#[tokio::test]
async fn what_leads_to_admin_must_be_meant() {
    let world = World::bootstrapped().await;
    let (role, above) = (world.role("r").await, world.role("above").await);
    refused!(
        world.refused(|e| e.imply(role, BuiltIn::Admin.id(), false)).await,
        ChangeError::Forbidden(_)
    );
    world
        .editor
        .change(|e| e.imply(role, BuiltIn::Admin.id(), true))
        .await
        .unwrap();
    refused!(
        world.refused(|e| e.imply(above, role, false)).await,
        ChangeError::Forbidden(_)
    );
}

#[tokio::test]
async fn what_is_in_use_or_does_not_fit() {
    let world = World::bootstrapped().await;
    let domain = world.domain("d").await;
    let top = world.project(domain, None, "top").await;
    let below = world.project(domain, Some(top), "below").await;
    let remove = async |doomed| world.editor.remove(doomed, Txn::new()).await.unwrap_err();
    refused!(
        remove(Doomed::Project(top)).await,
        ChangeError::InUse { what: "project", .. }
    );
    refused!(remove(Doomed::Domain(domain)).await, ChangeError::Conflict(_));
    refused!(
        remove(Doomed::Domain(DEFAULT_DOMAIN)).await,
        ChangeError::InUse { what: "domain", .. }
    );
    refused!(
        remove(Doomed::Role(BuiltIn::Reader.id())).await,
        ChangeError::InUse { what: "role", .. }
    );
    world
        .editor
        .change(|e| e.update_project(top, |p| p.spec.enabled = false))
        .await
        .unwrap();
    refused!(
        world
            .refused(|e| e.create_project(domain, Some(below), "x", |_| {}))
            .await,
        ChangeError::Conflict(_)
    );
    world
        .editor
        .change(|e| e.create_region("r", |_| {}))
        .await
        .unwrap();
    world
        .editor
        .change(|e| e.create_region("inner", |r| r.parent = Some("r".into())))
        .await
        .unwrap();
    refused!(
        world.refused(|e| e.create_region("r", |_| {})).await,
        ChangeError::Conflict(_)
    );
    refused!(
        world.refused(|e| e.delete_region("r")).await,
        ChangeError::InUse { what: "region", .. }
    );
    let service = world
        .editor
        .change(|e| e.create_service("s", |_| {}))
        .await
        .unwrap()
        .id;
    let put = |e: &skyloom_identity::Edit<'_>| {
        e.create_endpoint(service, Interface::Public, "http://x", |n| {
            n.region = Some("inner".into())
        })
    };
    world.editor.change(put).await.unwrap();
    refused!(
        world.refused(|e| e.delete_region("inner")).await,
        ChangeError::InUse { what: "region", .. }
    );
}

#[tokio::test]
async fn projects_lie_no_deeper_than_they_may() {
    let world = World::bootstrapped().await;
    let mut parent = None;
    for depth in 0..MAX_PROJECT_DEPTH {
        parent = Some(world.project(DEFAULT_DOMAIN, parent, &format!("p{depth}")).await);
    }
    refused!(
        world
            .refused(|e| e.create_project(DEFAULT_DOMAIN, parent, "deeper", |_| {}))
            .await,
        ChangeError::Invalid { field: "parent", .. }
    );
    assert!(world.snapshot().project_counts(parent.unwrap()));
}

#[tokio::test]
async fn epochs_grow_exactly_when_tokens_must_end() {
    let world = World::bootstrapped().await;
    let domain = world.domain("d").await;
    let user = world.user(domain, "u").await;
    let project = world.project(domain, None, "p").await;
    let of_user = || world.snapshot().user(user).unwrap().value.epoch;
    world
        .editor
        .change(|e| e.update_user(user, |u| u.name = "v".into()))
        .await
        .unwrap();
    world
        .editor
        .change(|e| e.grant(Target::System, Actor::User(user), BuiltIn::Reader.id(), false))
        .await
        .unwrap();
    assert_eq!(of_user(), 0);
    world
        .editor
        .change(|e| e.update_user(user, |u| u.enabled = false))
        .await
        .unwrap();
    assert_eq!(of_user(), 1);
    world
        .editor
        .change(|e| e.update_user(user, |u| u.enabled = true))
        .await
        .unwrap();
    assert_eq!(of_user(), 1);
    world
        .editor
        .change(|e| e.set_password(user, "one".into(), 2, None))
        .await
        .unwrap();
    world
        .editor
        .change(|e| e.set_password(user, "two".into(), 2, None))
        .await
        .unwrap();
    world
        .editor
        .change(|e| e.set_password(user, "three".into(), 2, Some(world.now())))
        .await
        .unwrap();
    assert_eq!(of_user(), 4);
    assert_eq!(
        world.snapshot().password(user).unwrap().value.hashes,
        ["three", "two"]
    );
    let done = world
        .editor
        .change(|e| e.update_project(project, |p| p.spec.enabled = false))
        .await
        .unwrap();
    assert_eq!(
        (done.spec.epoch, done.meta.generation, id_of(&done)),
        (1, 2, project)
    );
    let done = world
        .editor
        .change(|e| e.update_domain(domain, |d| d.description = "x".into()))
        .await
        .unwrap();
    assert_eq!(done.epoch, 0);
    let done = world
        .editor
        .change(|e| e.update_domain(domain, |d| d.enabled = false))
        .await
        .unwrap();
    assert_eq!(done.epoch, 1);
}

#[tokio::test]
async fn what_is_so_already_is_not_written_again() {
    let world = World::bootstrapped().await;
    let (user, group) = (
        world.user(DEFAULT_DOMAIN, "u").await,
        world.group(DEFAULT_DOMAIN, "g").await,
    );
    for _ in 0..2 {
        world.editor.change(|e| e.add_member(group, user)).await.unwrap();
        world
            .editor
            .change(|e| e.grant(Target::System, Actor::Group(group), BuiltIn::Reader.id(), false))
            .await
            .unwrap();
        world
            .editor
            .change(|e| e.revoke_token(Uuid::from_u128(3), world.now()))
            .await
            .unwrap();
    }
    let before = world.store.revision();
    world.editor.change(|e| e.add_member(group, user)).await.unwrap();
    assert_eq!(world.store.revision(), before);
    // A token that has ended by itself is forgotten.
    assert_eq!(world.editor.change(|e| Ok(e.prune_revoked(10))).await.unwrap(), 0);
    world.clock.advance(std::time::Duration::from_secs(1));
    assert!(world.snapshot().is_revoked(Uuid::from_u128(3)));
    assert_eq!(world.editor.change(|e| Ok(e.prune_revoked(10))).await.unwrap(), 1);
    assert!(!world.snapshot().is_revoked(Uuid::from_u128(3)));
}
