//! Any changes in any order, from two processes at once, leave records that fit together and a directory that shows what is there.

use std::time::Duration;

use proptest::prelude::*;
use skyloom_identity::{
    Actor, AuthScope, BuiltIn, ChangeError, DEFAULT_DOMAIN, DomainId, Doomed, Editor, Method,
    NewApplicationCredential, Principal, Problem, Snapshot, Target, Via, verify,
};
use skyloom_model::ProjectId;
use skyloom_store::{Store as _, Txn};
use tokio::task::JoinSet;

use super::stale::{credential, trust};
use crate::world::World;

/// What to do, and numbers that choose with what.
type Step = (u8, usize, usize, usize, bool);

fn pick<T: Copy>(all: &[T], n: usize) -> Option<T> {
    (!all.is_empty()).then(|| all[n % all.len()])
}

/// One step; what it cannot choose anything for is left out. Refusals that say why are right answers.
async fn step(editor: &Editor, (what, a, b, c, flag): Step) -> Option<()> {
    let at = editor.directory().snapshot();
    let domains: Vec<_> = at.domains().map(|r| r.value.id).collect();
    let users: Vec<_> = at.users().map(|r| r.value.id).collect();
    let groups: Vec<_> = at.groups().map(|r| r.value.id).collect();
    let roles: Vec<_> = at.roles().map(|r| r.value.id).collect();
    let projects: Vec<_> = at
        .projects()
        .map(|r| ProjectId::from_uuid(r.value.meta.id))
        .collect();
    let credentials: Vec<_> = at.credentials().map(|r| r.value.id).collect();
    let trusts: Vec<_> = at.trusts().map(|r| r.value.id).collect();
    let name = format!("n{}", c % 5);
    let target = || match a % 5 {
        0 => Some(Target::System),
        1 => pick(&domains, b).map(Target::Domain),
        _ => pick(&projects, b).map(Target::Project),
    };
    let actor = || {
        if flag {
            pick(&users, c).map(Actor::User)
        } else {
            pick(&groups, c).map(Actor::Group)
        }
    };
    let result = match what % 20 {
        0 => editor.change(|e| e.create_domain(&name, |_| {})).await.map(drop),
        1 | 2 => {
            let domain = pick(&domains, a)?;
            editor
                .change(|e| e.create_user(domain, &name, |_| {}))
                .await
                .map(drop)
        }
        3 => {
            let domain = pick(&domains, a)?;
            editor
                .change(|e| e.create_group(domain, &name, |_| {}))
                .await
                .map(drop)
        }
        4 => {
            let domain = pick(&domains, a).filter(|_| flag);
            editor
                .change(|e| e.create_role(domain, &name, |_| {}))
                .await
                .map(drop)
        }
        5 | 6 => {
            let parent = pick(&projects, a).filter(|_| flag);
            let of = parent
                .and_then(|id| at.project(id))
                .map(|p| DomainId::from_uuid(p.value.spec.domain));
            let domain = of.or(pick(&domains, b))?;
            editor
                .change(|e| e.create_project(domain, parent, &name, |_| {}))
                .await
                .map(drop)
        }
        7 => {
            let (group, user) = (pick(&groups, a)?, pick(&users, b)?);
            editor.change(|e| e.add_member(group, user)).await.map(drop)
        }
        8 | 9 => {
            let (target, actor, role) = (target()?, actor()?, pick(&roles, c)?);
            editor
                .change(|e| e.grant(target, actor, role, b % 2 == 0))
                .await
                .map(drop)
        }
        10 => {
            let (prior, implied) = (pick(&roles, a)?, pick(&roles, b)?);
            editor.change(|e| e.imply(prior, implied, flag)).await.map(drop)
        }
        11 | 12 => {
            let (user, project) = (pick(&users, a)?, pick(&projects, b)?);
            let (target, actor) = (Target::Project(project), Actor::User(user));
            let given = editor.change(|e| e.grant(target, actor, BuiltIn::Member.id(), false));
            given.await.ok()?;
            let by = principal(&editor.directory().snapshot(), user, project)?;
            if what % 20 == 11 {
                let asked = NewApplicationCredential {
                    unrestricted: flag,
                    ..credential(&name)
                };
                editor
                    .change(|e| e.create_application_credential(&by, asked.clone()))
                    .await
                    .map(drop)
            } else {
                let to = pick(&users, c)?;
                editor
                    .change(|e| e.create_trust(&by, trust(to, project)))
                    .await
                    .map(drop)
            }
        }
        13 => {
            let user = pick(&users, a)?;
            let project = pick(&projects, b).filter(|_| flag);
            let change = |e: &skyloom_identity::Edit<'_>| {
                e.update_user(user, |u| {
                    u.name.clone_from(&name);
                    u.default_project = project;
                })
            };
            editor.change(change).await.map(drop)
        }
        14 => {
            let user = pick(&users, a)?;
            editor
                .change(|e| e.set_password(user, name.clone(), 2, None))
                .await
                .map(drop)
        }
        15 => {
            let (domain, project) = (pick(&domains, a)?, pick(&projects, b));
            if flag {
                editor
                    .change(|e| e.update_domain(domain, |d| d.enabled = !d.enabled))
                    .await
                    .map(drop)
            } else {
                let project = project?;
                editor
                    .change(|e| e.update_project(project, |p| p.spec.enabled = !p.spec.enabled))
                    .await
                    .map(drop)
            }
        }
        16 => {
            let grants: Vec<_> = at
                .grants()
                .map(|g| (g.value.target, g.value.actor, g.value.role, g.value.inherited))
                .collect();
            let (target, actor, role, inherited) = pick(&grants, a)?;
            editor
                .change(|e| e.revoke(target, actor, role, inherited))
                .await
                .map(drop)
        }
        _ => {
            let doomed = match b % 7 {
                0 => pick(&domains, a).map(Doomed::Domain),
                1 => pick(&users, a).map(Doomed::User),
                2 => pick(&groups, a).map(Doomed::Group),
                3 => pick(&roles, a).map(Doomed::Role),
                4 => pick(&projects, a).map(Doomed::Project),
                5 => pick(&credentials, a).map(Doomed::Credential),
                _ => pick(&trusts, a).map(Doomed::Trust),
            };
            editor.remove(doomed?, Txn::new()).await
        }
    };
    match result {
        Ok(()) => {}
        Err(ChangeError::Store(error)) => panic!("{error}"),
        Err(_) => {}
    }
    Some(())
}

fn principal(at: &Snapshot, user: skyloom_identity::UserId, project: ProjectId) -> Option<Principal> {
    let scope = AuthScope::Project(project);
    Some(Principal {
        user,
        domain: at.user(user)?.value.domain,
        scope,
        roles: at.effective_roles(user, scope),
        via: Via::User,
        methods: vec![Method::Password],
        until: None,
        audit_ids: Vec::new(),
    })
}

/// That two snapshots say the same.
fn same(a: &Snapshot, b: &Snapshot) {
    macro_rules! equal {
        ($($all:ident),*) => { $( assert!(a.$all().eq(b.$all()), stringify!($all)); )* };
    }
    equal!(
        domains,
        users,
        groups,
        roles,
        projects,
        members,
        grants,
        implications,
        credentials,
        passwords,
        trusts,
        revoked
    );
    for user in a.users() {
        let id = user.value.id;
        assert_eq!(a.scopes_of(id), b.scopes_of(id));
        for scope in a.scopes_of(id) {
            assert_eq!(a.effective_roles(id, scope), b.effective_roles(id, scope));
        }
        assert!(a.groups_of(id).eq(b.groups_of(id)) && a.credentials_of(id).eq(b.credentials_of(id)));
        assert!(
            a.trusts_of(id).eq(b.trusts_of(id))
                && a.grants_to(Actor::User(id)).eq(b.grants_to(Actor::User(id)))
        );
    }
    for domain in a.domains() {
        let id = domain.value.id;
        assert!(a.users_in(id).eq(b.users_in(id)) && a.projects_in(id).eq(b.projects_in(id)));
        assert!(
            a.grants_on(Target::Domain(id))
                .eq(b.grants_on(Target::Domain(id)))
        );
    }
    assert_eq!(verify(a), verify(b));
}

async fn play(one: Vec<Step>, two: Vec<Step>, crash: Option<Step>) {
    let world = World::bootstrapped().await;
    let mut drivers = JoinSet::new();
    let other = world.another(&mut drivers).await;
    // Somebody stopped in the middle of a removal.
    if let Some((_, n, kind, steps, _)) = crash {
        let (user, group) = (
            world.user(DEFAULT_DOMAIN, "n0").await,
            world.group(DEFAULT_DOMAIN, "n0").await,
        );
        world.editor.change(|e| e.add_member(group, user)).await.unwrap();
        world
            .editor
            .change(|e| e.grant(Target::System, Actor::User(user), BuiltIn::Reader.id(), false))
            .await
            .unwrap();
        let doomed = if kind % 2 == 0 {
            Doomed::User(user)
        } else {
            Doomed::Group(group)
        };
        for _ in 0..=(n ^ steps) % 2 {
            let at = world.truth().await;
            if let Some(txn) = world
                .edit(&at)
                .removal(doomed, &world.store.capability())
                .unwrap()
            {
                world.commit(txn).await.committed().unwrap();
            }
        }
    }
    let run = async |editor: &Editor, steps: Vec<Step>| {
        for next in steps {
            step(editor, next).await;
        }
    };
    tokio::join!(run(&world.editor, one), run(&other, two));
    let findings = verify(&world.truth().await);
    // A domain cannot be removed twice at once, but one of both may have been refused on the way; that is to be seen and ended.
    assert!(
        findings.iter().all(|f| f.problem == Problem::Unfinished),
        "{findings:?}"
    );
    let caught_up = |editor: &Editor, revision| {
        let directory = editor.directory().clone();
        async move {
            directory
                .until(Duration::from_secs(30), |at| at.revision() >= revision)
                .await
        }
    };
    let newest = async || {
        let below = skyloom_store::Prefix::parse("identity").unwrap();
        let all = world.all().await.0;
        all.iter()
            .filter(|kv| below.covers(&kv.key))
            .map(|kv| kv.modified)
            .max()
            .unwrap()
    };
    assert!(caught_up(&world.editor, newest().await).await);
    world.editor.finish_removals().await.unwrap();
    let truth = world.truth().await;
    assert_eq!(verify(&truth), []);
    for editor in [&world.editor, &other] {
        // Deletions leave no revision behind: until it shows the same keys.
        let all = |at: &Snapshot| {
            (
                at.grants().count(),
                at.members().count(),
                at.users().count(),
                at.projects().count(),
                at.trusts().count(),
                at.credentials().count(),
            )
        };
        assert!(
            editor
                .directory()
                .until(Duration::from_secs(30), |at| all(at) == all(&truth))
                .await
        );
        assert!(caught_up(editor, newest().await).await);
        same(&editor.directory().snapshot(), &truth);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn records_always_fit_together(
        one in prop::collection::vec(any::<Step>(), 0..60),
        two in prop::collection::vec(any::<Step>(), 0..60),
        crash in any::<Option<Step>>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(one, two, crash));
    }
}
