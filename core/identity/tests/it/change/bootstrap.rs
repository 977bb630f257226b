//! The first start, and those after it.

use skyloom_identity::{
    AuthScope, BuiltIn, ChangeError, DEFAULT_DOMAIN, Doomed, FIRST_ADMIN, Target, bootstrap_secret, verify,
};
use skyloom_store::{Outcome, Txn};

use crate::world::World;

fn hash() -> Option<String> {
    Some("the hash".to_owned())
}

#[tokio::test]
async fn the_first_start_makes_an_administrator_and_the_next_ones_nothing() {
    let world = World::new().await;
    assert!(world.edit(&world.snapshot()).bootstrap_needs_secret(false));
    let refused = world.refused(|e| e.bootstrap(None, None, false)).await;
    assert!(
        matches!(
            refused,
            ChangeError::Invalid {
                field: "admin_hash",
                ..
            }
        ),
        "{refused}"
    );
    // Of two processes that start together one makes it.
    let old = world.snapshot();
    let (one, two) = (
        world.edit(&old).bootstrap(hash(), None, false),
        world.edit(&old).bootstrap(hash(), None, false),
    );
    let first = one.unwrap();
    assert!(first.record.made_admin && first.record.granted);
    assert!(matches!(world.commit(first.txn).await, Outcome::Committed { .. }));
    assert!(matches!(
        world.commit(two.unwrap().txn).await,
        Outcome::Conflict { .. }
    ));

    let at = world.truth().await;
    assert_eq!(verify(&at), []);
    for scope in [AuthScope::System, AuthScope::Domain(DEFAULT_DOMAIN)] {
        let roles = at.effective_roles(FIRST_ADMIN, scope);
        let expected = [BuiltIn::Admin, BuiltIn::Manager, BuiltIn::Member, BuiltIn::Reader].map(BuiltIn::id);
        assert_eq!(*roles, expected.into_iter().collect());
    }
    assert_eq!(at.roles().count(), 6);
    assert!(!world.edit(&at).bootstrap_needs_secret(false));
    let again = world.edit(&at).bootstrap(None, None, false).unwrap();
    assert!(again.txn.writes.is_empty() && !again.record.made_admin);
}

#[tokio::test]
async fn what_was_taken_away_comes_back_only_when_asked_for() {
    let world = World::bootstrapped().await;
    let admin = BuiltIn::Admin.id();
    let actor = skyloom_identity::Actor::User(FIRST_ADMIN);
    world
        .editor
        .change(|e| e.revoke(Target::System, actor, admin, false))
        .await
        .unwrap();
    world
        .editor
        .change(|e| e.update_user(FIRST_ADMIN, |u| u.enabled = false))
        .await
        .unwrap();
    world
        .editor
        .change(|e| e.unimply(BuiltIn::Member.id(), BuiltIn::Reader.id()))
        .await
        .unwrap();
    let done = world
        .editor
        .change(|e| e.bootstrap(None, None, false))
        .await
        .unwrap();
    assert!(
        !done.granted
            && world
                .snapshot()
                .effective_roles(FIRST_ADMIN, AuthScope::System)
                .is_empty()
    );

    let project = world.project(DEFAULT_DOMAIN, None, "p").await;
    let done = world
        .editor
        .change(|e| e.bootstrap(None, Some(project), true))
        .await
        .unwrap();
    assert!(done.granted && !done.made_admin);
    for scope in [AuthScope::System, AuthScope::Project(project)] {
        assert!(
            world
                .snapshot()
                .effective_roles(FIRST_ADMIN, scope)
                .contains(&admin)
        );
    }
    assert!(
        world
            .snapshot()
            .implication(BuiltIn::Member.id(), BuiltIn::Reader.id())
            .is_none()
    );
    assert_eq!(
        world.snapshot().password(FIRST_ADMIN).unwrap().value.hashes,
        ["a hash"]
    );

    // Also when it is gone altogether.
    world
        .editor
        .remove(Doomed::User(FIRST_ADMIN), Txn::new())
        .await
        .unwrap();
    assert!(!world.edit(&world.snapshot()).bootstrap_needs_secret(false));
    world
        .editor
        .change(|e| e.bootstrap(None, None, false))
        .await
        .unwrap();
    assert!(world.snapshot().user(FIRST_ADMIN).is_none());
    assert!(world.edit(&world.snapshot()).bootstrap_needs_secret(true));
    let done = world
        .editor
        .change(|e| e.bootstrap(hash(), None, true))
        .await
        .unwrap();
    assert!(done.made_admin && done.granted);
    assert_eq!(verify(&world.truth().await), []);
}

#[tokio::test]
async fn secrets_are_long_and_never_the_same() {
    let world = World::new().await;
    let (a, b) = (bootstrap_secret(&*world.ids), bootstrap_secret(&*world.ids));
    assert_eq!(a.expose().len(), 32);
    assert_ne!(a.expose(), b.expose());
}
