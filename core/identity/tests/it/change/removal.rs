//! What goes takes with it all that refers to it, in as many commits as that takes, and a crash between leaves nothing dangling.

use std::collections::BTreeSet;

use skyloom_identity::{
    Actor, AuthScope, BuiltIn, DEFAULT_DOMAIN, DomainId, Doomed, NewApplicationCredential, Problem, RoleId,
    Snapshot, Target, UserId, verify,
};
use skyloom_model::ProjectId;
use skyloom_store::{Store as _, Txn};

use super::stale::{credential, trust};
use crate::world::World;

/// A domain in which everything refers to everything.
struct Town {
    domain: DomainId,
    role: RoleId,
    users: Vec<UserId>,
    projects: Vec<ProjectId>,
}

async fn town(world: &World, people: usize) -> Town {
    let domain = world.domain("town").await;
    let role = world
        .editor
        .change(|e| e.create_role(Some(domain), "citizen", |_| {}))
        .await
        .unwrap()
        .id;
    let global = world.role("global").await;
    let top = world.project(domain, None, "top").await;
    let below = world.project(domain, Some(top), "below").await;
    let abroad = world.user(DEFAULT_DOMAIN, "abroad").await;
    let abroad_project = world.project(DEFAULT_DOMAIN, None, "abroad").await;
    let group = world.group(domain, "all").await;
    let abroad_group = world.group(DEFAULT_DOMAIN, "abroad").await;
    let edit = &world.editor;
    edit.change(|e| e.imply(role, BuiltIn::Reader.id(), false))
        .await
        .unwrap();
    edit.change(|e| e.imply(global, BuiltIn::Reader.id(), false))
        .await
        .unwrap();
    edit.change(|e| e.grant(Target::Domain(domain), Actor::Group(group), role, true))
        .await
        .unwrap();
    edit.change(|e| e.grant(Target::Project(top), Actor::Group(abroad_group), global, true))
        .await
        .unwrap();
    edit.change(|e| e.grant(Target::Project(top), Actor::User(abroad), role, false))
        .await
        .unwrap();
    edit.change(|e| e.grant(Target::Project(top), Actor::User(abroad), global, false))
        .await
        .unwrap();
    edit.change(|e| {
        e.grant(
            Target::Project(abroad_project),
            Actor::User(abroad),
            global,
            false,
        )
    })
    .await
    .unwrap();
    edit.change(|e| e.update_user(abroad, |u| u.default_project = Some(top)))
        .await
        .unwrap();
    let mut users = Vec::new();
    for n in 0..people {
        let user = world.user(domain, &format!("u{n}")).await;
        users.push(user);
        edit.change(|e| e.set_password(user, "h".into(), 1, None))
            .await
            .unwrap();
        edit.change(|e| e.add_member(group, user)).await.unwrap();
        edit.change(|e| e.add_member(abroad_group, user)).await.unwrap();
        edit.change(|e| e.grant(Target::Project(top), Actor::User(user), global, false))
            .await
            .unwrap();
        edit.change(|e| e.update_user(user, |u| u.default_project = Some(top)))
            .await
            .unwrap();
        let by = world.principal(user, top);
        let asked = NewApplicationCredential {
            unrestricted: true,
            ..credential(&format!("c{n}"))
        };
        edit.change(|e| e.create_application_credential(&by, asked.clone()))
            .await
            .unwrap();
        edit.change(|e| e.create_trust(&by, trust(abroad, top)))
            .await
            .unwrap();
        let theirs = world.principal(abroad, top);
        edit.change(|e| e.create_trust(&theirs, trust(user, top)))
            .await
            .unwrap();
    }
    let theirs = world.principal(abroad, top);
    edit.change(|e| e.create_application_credential(&theirs, credential("theirs")))
        .await
        .unwrap();
    assert_eq!(verify(&world.truth().await), []);
    Town {
        domain,
        role,
        users,
        projects: vec![top, below],
    }
}

/// Each step of a removal alone, with a look at everything after it.
async fn step_by_step(world: &World, doomed: Doomed) -> usize {
    let mut steps = 0;
    loop {
        let at = world.truth().await;
        let findings = verify(&at);
        assert!(
            findings.iter().all(|f| f.problem == Problem::Unfinished),
            "after {steps}: {findings:?}"
        );
        let limits = world.store.capability();
        let Some(txn) = world.edit(&at).removal(doomed, &limits).unwrap() else {
            return steps;
        };
        assert!(txn.guards.len() + txn.writes.len() <= limits.max_txn_ops);
        world.commit(txn).await.committed().unwrap();
        steps += 1;
    }
}

fn paths_with(at: &Snapshot, id: uuid::Uuid) -> Vec<String> {
    let id = id.to_string();
    let keys = at
        .grants()
        .map(|r| &r.key)
        .chain(at.members().map(|r| &r.key))
        .chain(at.credentials().map(|r| &r.key));
    let keys = keys
        .chain(at.passwords().map(|r| &r.key))
        .chain(at.users().map(|r| &r.key));
    keys.map(|key| key.to_string())
        .filter(|key| key.contains(&id))
        .collect()
}

#[tokio::test]
async fn a_user_goes_with_all_that_is_the_users() {
    let world = World::bootstrapped().await;
    let town = town(&world, 2).await;
    let user = town.users[0];
    let steps = step_by_step(&world, Doomed::User(user)).await;
    assert_eq!(steps, 2, "the mark, and all the rest");
    let at = world.truth().await;
    assert_eq!(paths_with(&at, user.uuid()), Vec::<String>::new());
    assert!(
        at.trusts()
            .all(|t| ![t.value.trustor, t.value.trustee].contains(&user))
    );
    assert_eq!(verify(&at), []);
    // The other one still has everything.
    assert!(at.credentials_of(town.users[1]).count() == 1 && at.trusts_of(town.users[1]).count() == 2);
}

#[tokio::test]
async fn from_its_mark_on_it_counts_for_nothing() {
    let world = World::bootstrapped().await;
    let town = town(&world, 1).await;
    let (user, scope) = (town.users[0], AuthScope::Project(town.projects[0]));
    assert!(!world.snapshot().effective_roles(user, scope).is_empty());
    let at = world.truth().await;
    let mark = world
        .edit(&at)
        .removal(Doomed::User(user), &world.store.capability())
        .unwrap()
        .unwrap();
    world.commit(mark).await.committed().unwrap();
    let at = world.truth().await;
    assert!(at.effective_roles(user, scope).is_empty() && at.user(user).unwrap().value.epoch == 2);
    // Somebody else brings it to its end.
    world
        .directory
        .until(std::time::Duration::from_secs(30), |at| {
            at.user(user).unwrap().value.deleting
        })
        .await;
    assert_eq!(world.editor.finish_removals().await.unwrap(), 1);
    assert!(world.snapshot().user(user).is_none());
    assert_eq!(world.editor.finish_removals().await.unwrap(), 0);
}

#[tokio::test]
async fn a_project_and_a_group_and_a_role_go_with_what_refers_to_them() {
    let world = World::bootstrapped().await;
    let town = town(&world, 3).await;
    let at = world.truth().await;
    let group = at.find_group(town.domain, "all").unwrap().value.id;
    let global = at.find_role(None, "global").unwrap().value.id;
    let abroad = at.find_user(DEFAULT_DOMAIN, "abroad").unwrap().value.id;
    step_by_step(&world, Doomed::Group(group)).await;
    // Credentials and trusts lose the role, and stay for the rest of their roles.
    let before: BTreeSet<_> = world.truth().await.credentials().map(|c| c.value.id).collect();
    step_by_step(&world, Doomed::Role(global)).await;
    let at = world.truth().await;
    assert_eq!(
        at.credentials().map(|c| c.value.id).collect::<BTreeSet<_>>(),
        before
    );
    assert!(
        at.credentials()
            .all(|c| !c.value.application().unwrap().roles.contains(&global))
    );
    step_by_step(&world, Doomed::Project(town.projects[1])).await;
    step_by_step(&world, Doomed::Project(town.projects[0])).await;
    let at = world.truth().await;
    assert!(at.credentials().next().is_none() && at.trusts().next().is_none());
    assert_eq!(at.user(abroad).unwrap().value.default_project, None);
    assert_eq!(verify(&at), []);
}

#[tokio::test]
async fn a_domain_goes_with_all_in_it_in_small_commits() {
    let world = World::with_ops(64).await;
    world.bootstrap().await;
    let town = town(&world, 12).await;
    world
        .editor
        .change(|e| e.update_domain(town.domain, |d| d.enabled = false))
        .await
        .unwrap();
    let steps = step_by_step(&world, Doomed::Domain(town.domain)).await;
    assert!(steps > 5, "{steps}");
    let at = world.truth().await;
    assert!(at.domain(town.domain).is_none() && at.role(town.role).is_none());
    assert!(at.users_in(town.domain).next().is_none() && at.projects_in(town.domain).next().is_none());
    let names = world.all().await.0.into_iter().map(|kv| kv.key.to_string());
    assert_eq!(
        names
            .filter(|key| key.contains(&town.domain.to_string()))
            .collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    assert_eq!(verify(&at), []);
}

#[tokio::test]
async fn a_removal_goes_on_where_it_stopped_and_takes_the_audit_with_its_first_commit() {
    let world = World::with_ops(64).await;
    world.bootstrap().await;
    let town = town(&world, 8).await;
    world
        .editor
        .change(|e| e.update_domain(town.domain, |d| d.enabled = false))
        .await
        .unwrap();
    let entry = skyloom_store::Key::parse("audit/entry").unwrap();
    let first = || Txn::new().create(entry.clone(), skyloom_store::Value::json(&1).unwrap());
    for _ in 0..3 {
        let at = world.truth().await;
        let txn = world
            .edit(&at)
            .removal(Doomed::Domain(town.domain), &world.store.capability())
            .unwrap()
            .unwrap();
        world.commit(txn).await.committed().unwrap();
    }
    world
        .editor
        .remove(Doomed::Domain(town.domain), first())
        .await
        .unwrap();
    assert!(world.store.get(&entry).await.unwrap().is_some());
    assert_eq!(verify(&world.truth().await), []);
    assert!(world.snapshot().domain(town.domain).is_none());
}

#[tokio::test]
async fn a_service_goes_with_its_endpoints() {
    let world = World::with_ops(32).await;
    world
        .editor
        .change(|e| e.create_service("other", |_| {}))
        .await
        .unwrap();
    let service = world
        .editor
        .change(|e| e.create_service("compute", |_| {}))
        .await
        .unwrap()
        .id;
    for n in 0..20 {
        let url = format!("http://x/{n}");
        let put = |e: &skyloom_identity::Edit<'_>| {
            e.create_endpoint(service, skyloom_identity::Interface::Public, &url, |_| {})
        };
        world.editor.change(put).await.unwrap();
    }
    assert!(step_by_step(&world, Doomed::Service(service)).await > 1);
    let at = world.truth().await;
    assert_eq!((at.services().count(), at.endpoints().count()), (1, 0));
}
