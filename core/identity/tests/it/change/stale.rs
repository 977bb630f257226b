//! What was built from an old snapshot changes nothing.

use std::collections::BTreeSet;

use skyloom_identity::{
    Actor, BuiltIn, ChangeError, ChangeResult, DEFAULT_DOMAIN, Doomed, Edit, Interface,
    NewApplicationCredential, NewTrust, SecretHash, Target, verify,
};
use skyloom_model::Name;
use skyloom_store::{Outcome, Revision, Txn};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::world::World;

pub(crate) fn credential(name: &str) -> NewApplicationCredential {
    NewApplicationCredential {
        name: name.to_owned(),
        description: String::new(),
        roles: None,
        secret_hash: SecretHash::of(name),
        expires_at: None,
        unrestricted: false,
        access_rules: Vec::new(),
        permissions: Vec::new(),
    }
}

pub(crate) fn trust(to: skyloom_identity::UserId, project: skyloom_model::ProjectId) -> NewTrust {
    NewTrust {
        trustee: to,
        project: Some(project),
        roles: None,
        impersonation: true,
        remaining_uses: None,
        redelegation_count: 0,
        expires_at: None,
    }
}

type Build<'a> = Box<dyn Fn(&Edit<'_>) -> ChangeResult<Txn> + 'a>;

/// Each change built twice from one snapshot: the second must not pass.
#[tokio::test]
async fn of_two_changes_from_one_snapshot_one_passes() {
    let world = World::bootstrapped().await;
    let empty = world.domain("empty").await;
    world
        .editor
        .change(|edit| edit.update_domain(empty, |d| d.enabled = false))
        .await
        .unwrap();
    let (user, other, third) = (
        world.user(DEFAULT_DOMAIN, "u").await,
        world.user(DEFAULT_DOMAIN, "v").await,
        world.user(DEFAULT_DOMAIN, "w").await,
    );
    let (group, role) = (world.group(DEFAULT_DOMAIN, "g").await, world.role("r").await);
    let (doomed_group, doomed_role) = (world.group(DEFAULT_DOMAIN, "dg").await, world.role("dr").await);
    let parent = world.project(DEFAULT_DOMAIN, None, "p").await;
    let doomed_project = world.project(DEFAULT_DOMAIN, None, "dp").await;
    let (at, member) = (Target::Project(parent), BuiltIn::Member.id());
    world
        .editor
        .change(|edit| edit.grant(at, Actor::User(user), member, false))
        .await
        .unwrap();
    world
        .editor
        .change(|edit| edit.add_member(group, other))
        .await
        .unwrap();
    let by = world.principal(user, parent);
    let held = world
        .editor
        .change(|edit| edit.create_application_credential(&by, credential("held")))
        .await
        .unwrap();
    let given = world.editor.change(|edit| {
        edit.create_trust(
            &by,
            NewTrust {
                remaining_uses: Some(9),
                ..trust(other, parent)
            },
        )
    });
    let given = given.await.unwrap();
    let service = world
        .editor
        .change(|edit| edit.create_service("compute", |_| {}))
        .await
        .unwrap()
        .id;
    world
        .editor
        .change(|edit| edit.create_region("one", |_| {}))
        .await
        .unwrap();
    world
        .editor
        .change(|edit| edit.create_region("two", |_| {}))
        .await
        .unwrap();
    let endpoint = world
        .editor
        .change(|edit| edit.create_endpoint(service, Interface::Public, "http://a", |_| {}));
    let endpoint = endpoint.await.unwrap().id;
    let limits = skyloom_store::Store::capability(&*world.store);
    let doom = |doomed| -> Build<'_> { Box::new(move |edit| Ok(edit.removal(doomed, &limits)?.unwrap())) };

    let changes: Vec<(&str, Build<'_>)> = vec![
        (
            "create domain",
            Box::new(|e| Ok(e.create_domain("new", |_| {})?.txn)),
        ),
        (
            "update domain",
            Box::new(|e| {
                Ok(e.update_domain(DEFAULT_DOMAIN, |d| d.description = "x".into())?
                    .txn)
            }),
        ),
        (
            "create user",
            Box::new(|e| Ok(e.create_user(DEFAULT_DOMAIN, "new", |_| {})?.txn)),
        ),
        (
            "update user",
            Box::new(|e| Ok(e.update_user(user, |u| u.description = "x".into())?.txn)),
        ),
        (
            "disable user",
            Box::new(|e| Ok(e.update_user(third, |u| u.enabled = false)?.txn)),
        ),
        (
            "rename user",
            Box::new(|e| Ok(e.update_user(third, |u| u.name = "zoe".into())?.txn)),
        ),
        (
            "set password",
            Box::new(|e| Ok(e.set_password(user, "h".into(), 3, None)?.txn)),
        ),
        (
            "create group",
            Box::new(|e| Ok(e.create_group(DEFAULT_DOMAIN, "new", |_| {})?.txn)),
        ),
        (
            "update group",
            Box::new(|e| Ok(e.update_group(group, |g| g.description = "x".into())?.txn)),
        ),
        ("add member", Box::new(|e| Ok(e.add_member(group, user)?.txn))),
        (
            "remove member",
            Box::new(|e| Ok(e.remove_member(group, other)?.txn)),
        ),
        (
            "create role",
            Box::new(|e| Ok(e.create_role(None, "new", |_| {})?.txn)),
        ),
        (
            "update role",
            Box::new(|e| Ok(e.update_role(role, |r| r.description = "x".into())?.txn)),
        ),
        ("imply", Box::new(|e| Ok(e.imply(role, member, false)?.txn))),
        (
            "unimply",
            Box::new(|e| Ok(e.unimply(member, BuiltIn::Reader.id())?.txn)),
        ),
        (
            "grant",
            Box::new(|e| Ok(e.grant(at, Actor::Group(group), role, true)?.txn)),
        ),
        (
            "create project",
            Box::new(|e| Ok(e.create_project(DEFAULT_DOMAIN, None, "new", |_| {})?.txn)),
        ),
        (
            "create child",
            Box::new(|e| {
                Ok(e.create_project(DEFAULT_DOMAIN, Some(parent), "child", |_| {})?
                    .txn)
            }),
        ),
        (
            "update project",
            Box::new(|e| Ok(e.update_project(parent, |p| p.spec.description = "x".into())?.txn)),
        ),
        (
            "create credential",
            Box::new(|e| Ok(e.create_application_credential(&by, credential("new"))?.txn)),
        ),
        ("consume trust", Box::new(|e| Ok(e.consume_trust(given.id)?.txn))),
        (
            "revoke token",
            Box::new(|e| Ok(e.revoke_token(Uuid::from_u128(5), world.now())?.txn)),
        ),
        (
            "create region",
            Box::new(|e| Ok(e.create_region("new", |_| {})?.txn)),
        ),
        (
            "update region",
            Box::new(|e| Ok(e.update_region("one", |r| r.description = "x".into())?.txn)),
        ),
        ("delete region", Box::new(|e| Ok(e.delete_region("two")?.txn))),
        (
            "update service",
            Box::new(|e| Ok(e.update_service(service, |s| s.name = "x".into())?.txn)),
        ),
        (
            "create endpoint",
            Box::new(|e| {
                Ok(e.create_endpoint(service, Interface::Admin, "http://b", |_| {})?
                    .txn)
            }),
        ),
        (
            "update endpoint",
            Box::new(|e| Ok(e.update_endpoint(endpoint, |n| n.url = "http://c".into())?.txn)),
        ),
        (
            "delete endpoint",
            Box::new(|e| Ok(e.delete_endpoint(endpoint)?.txn)),
        ),
        ("remove service", doom(Doomed::Service(service))),
        ("remove credential", doom(Doomed::Credential(held.id))),
        ("remove trust", doom(Doomed::Trust(given.id))),
        ("remove user", doom(Doomed::User(third))),
        ("remove group", doom(Doomed::Group(doomed_group))),
        ("remove role", doom(Doomed::Role(doomed_role))),
        ("remove project", doom(Doomed::Project(doomed_project))),
        ("remove domain", doom(Doomed::Domain(empty))),
        (
            "revoke",
            Box::new(|e| Ok(e.revoke(at, Actor::User(user), member, false)?.txn)),
        ),
    ];
    for (what, build) in changes {
        let old = world.truth().await;
        let edit = world.edit(&old);
        let (first, second) = (build(&edit).unwrap(), build(&edit).unwrap());
        assert!(!first.writes.is_empty(), "{what}");
        let done = world.commit(first).await;
        assert!(matches!(done, Outcome::Committed { .. }), "{what}: {done:?}");
        let before = world.store.revision();
        let refused = world.commit(second).await;
        assert!(matches!(refused, Outcome::Conflict { .. }), "{what} passed twice");
        assert_eq!(world.store.revision(), before, "{what}");
    }
}

/// What refers to something that is being removed meanwhile does not pass, whatever its snapshot showed.
#[tokio::test]
async fn nothing_new_refers_to_what_is_going() {
    let world = World::bootstrapped().await;
    let domain = world.domain("d").await;
    let (user, other) = (
        world.user(domain, "u").await,
        world.user(DEFAULT_DOMAIN, "o").await,
    );
    let group = world.group(domain, "g").await;
    let role = world.role("r").await;
    let project = world.project(domain, None, "p").await;
    let at = Target::Project(project);
    for actor in [Actor::User(user), Actor::User(other)] {
        world
            .editor
            .change(|edit| edit.grant(at, actor, BuiltIn::Member.id(), false))
            .await
            .unwrap();
    }
    world
        .editor
        .change(|edit| edit.update_domain(domain, |d| d.enabled = false))
        .await
        .unwrap();
    world
        .editor
        .change(|edit| edit.update_domain(domain, |d| d.enabled = true))
        .await
        .unwrap();
    let by = world.principal(user, project);
    let theirs = world.principal(other, project);
    let limits = skyloom_store::Store::capability(&*world.store);
    let (of_user, of_group, of_role, of_project) = (
        Doomed::User(user),
        Doomed::Group(group),
        Doomed::Role(role),
        Doomed::Project(project),
    );

    let references: Vec<(&str, Vec<Doomed>, Build<'_>)> = vec![
        (
            "member",
            vec![of_user, of_group],
            Box::new(|e| Ok(e.add_member(group, user)?.txn)),
        ),
        (
            "grant",
            vec![of_user, of_role, of_project],
            Box::new(|e| Ok(e.grant(at, Actor::User(user), role, false)?.txn)),
        ),
        (
            "group's",
            vec![of_group, of_role],
            Box::new(|e| Ok(e.grant(Target::System, Actor::Group(group), role, false)?.txn)),
        ),
        (
            "implied",
            vec![of_role],
            Box::new(|e| Ok(e.imply(BuiltIn::Member.id(), role, false)?.txn)),
        ),
        (
            "prior",
            vec![of_role],
            Box::new(|e| Ok(e.imply(role, BuiltIn::Member.id(), false)?.txn)),
        ),
        (
            "child",
            vec![of_project],
            Box::new(|e| Ok(e.create_project(domain, Some(project), "c", |_| {})?.txn)),
        ),
        (
            "credential",
            vec![of_user, of_project],
            Box::new(|e| Ok(e.create_application_credential(&by, credential("c"))?.txn)),
        ),
        (
            "trust from",
            vec![of_user, of_project],
            Box::new(|e| Ok(e.create_trust(&by, trust(other, project))?.txn)),
        ),
        (
            "trust to",
            vec![of_user, of_project],
            Box::new(|e| Ok(e.create_trust(&theirs, trust(user, project))?.txn)),
        ),
        (
            "default",
            vec![of_user, of_project],
            Box::new(|e| Ok(e.update_user(user, |u| u.default_project = Some(project))?.txn)),
        ),
        (
            "password",
            vec![of_user],
            Box::new(|e| Ok(e.set_password(user, "h".into(), 1, None)?.txn)),
        ),
    ];
    for (what, removals, build) in references {
        for doomed in removals {
            let old = world.truth().await;
            let late = build(&world.edit(&old)).unwrap();
            let mark = world.edit(&old).removal(doomed, &limits).unwrap().unwrap();
            let (undo, key) = {
                let key = mark.writes[0].key().clone();
                (
                    skyloom_store::Store::get(&*world.store, &key)
                        .await
                        .unwrap()
                        .unwrap()
                        .value,
                    key,
                )
            };
            let marked = world.commit(mark).await.committed().unwrap();
            let before = world.store.revision();
            assert!(
                matches!(world.commit(late).await, Outcome::Conflict { .. }),
                "{what} beside {doomed:?}"
            );
            assert_eq!(world.store.revision(), before);
            // And from a new snapshot it is refused at once.
            let new = world.truth().await;
            let refused = build(&world.edit(&new)).unwrap_err();
            assert!(
                matches!(refused, ChangeError::NotFound { .. }),
                "{what} of {doomed:?}: {refused}"
            );
            world
                .commit(Txn::new().replace(key, marked, undo))
                .await
                .committed()
                .unwrap();
        }
    }
    // The domain is enough: its users need no marks of their own.
    let old = world.truth().await;
    let late = world
        .edit(&old)
        .grant(Target::System, Actor::User(user), role, false)
        .unwrap()
        .txn;
    world
        .editor
        .change(|edit| edit.update_domain(domain, |d| d.enabled = false))
        .await
        .unwrap();
    assert!(matches!(world.commit(late).await, Outcome::Conflict { .. }));
}

#[tokio::test]
async fn of_two_renames_to_one_name_one_passes() {
    let world = World::bootstrapped().await;
    let mut drivers = JoinSet::new();
    let other = world.another(&mut drivers).await;
    for round in 0..20 {
        let (a, b) = (
            world.user(DEFAULT_DOMAIN, &format!("a{round}")).await,
            world.user(DEFAULT_DOMAIN, &format!("b{round}")).await,
        );
        let names = [format!("One {round}"), format!("one {round}")];
        let rename = async |editor: &skyloom_identity::Editor, id, name: &String| {
            editor
                .change(|edit| edit.update_user(id, |user| user.name.clone_from(name)))
                .await
        };
        let (x, y) = tokio::join!(rename(&world.editor, a, &names[0]), rename(&other, b, &names[1]));
        let lost = match (x, y) {
            (Ok(_), Err(e)) | (Err(e), Ok(_)) => e,
            both => panic!("{both:?}"),
        };
        assert!(matches!(lost, ChangeError::NameTaken { .. }), "{lost}");
    }
    assert_eq!(verify(&world.truth().await), []);
}

/// One editor makes, the other, whose directory may be behind, uses it at once.
#[tokio::test]
async fn what_another_process_has_just_made_is_found() {
    let world = World::bootstrapped().await;
    let mut drivers = JoinSet::new();
    let other = world.another(&mut drivers).await;
    for round in 0..20 {
        let name = format!("u{round}");
        let user = world.user(DEFAULT_DOMAIN, &name).await;
        other
            .change(|edit| edit.grant(Target::System, Actor::User(user), BuiltIn::Reader.id(), false))
            .await
            .unwrap();
        other.remove(Doomed::User(user), Txn::new()).await.unwrap();
        // The name is free again, also for the one that has not heard of it yet.
        let again = world.user(DEFAULT_DOMAIN, &name).await;
        assert_ne!(again, user);
    }
    assert_eq!(verify(&world.truth().await), []);
}

/// Two implications that lie apart, and would close a circle together.
#[tokio::test]
async fn no_circle_is_closed_from_two_sides() {
    let world = World::bootstrapped().await;
    let mut roles = Vec::new();
    for name in ["a", "b", "c", "d"] {
        roles.push(world.role(name).await);
    }
    let [a, b, c, d] = roles[..] else { panic!() };
    world.editor.change(|edit| edit.imply(b, c, false)).await.unwrap();
    world.editor.change(|edit| edit.imply(d, a, false)).await.unwrap();
    let old = world.truth().await;
    let edit = world.edit(&old);
    let (one, two) = (edit.imply(a, b, false).unwrap(), edit.imply(c, d, false).unwrap());
    assert!(world.commit(one.txn).await.committed() > Some(Revision(0)));
    assert!(world.commit(two.txn).await.committed().is_none());
    let refused = world.refused(|edit| edit.imply(c, d, false)).await;
    assert!(
        matches!(refused, ChangeError::Invalid { field: "implied", .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_projects_name_is_claimed_where_the_cloud_looks_too() {
    let world = World::bootstrapped().await;
    let shop = world.project(DEFAULT_DOMAIN, None, "shop").await;
    let rename = |name: &'static str| {
        world
            .editor
            .change(move |edit| edit.update_project(shop, |p| p.meta.name = Name::new(name).unwrap()))
    };
    rename("Shop").await.unwrap();
    rename("store").await.unwrap();
    assert_eq!(verify(&world.truth().await), []);
    let claims: BTreeSet<String> = world
        .all()
        .await
        .0
        .into_iter()
        .map(|kv| kv.key.to_string())
        .collect();
    let of = |name| skyloom_identity::paths::cloud_project_name(DEFAULT_DOMAIN, name).unwrap();
    assert!(claims.contains(&of("store")) && !claims.contains(&of("shop")) && !claims.contains(&of("Shop")));
}
