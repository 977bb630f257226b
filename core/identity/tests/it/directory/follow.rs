//! How the directory follows the store.

use std::time::Duration;

use serde_json::json;
use skyloom_identity::{
    Actor, AuthScope, BuiltIn, DEFAULT_DOMAIN, Epochs as _, FIRST_ADMIN, Grounds, Problem, Target, Via,
    paths, verify,
};
use skyloom_store::{Key, Txn, Value};
use uuid::Uuid;

use crate::world::World;

#[tokio::test]
async fn an_empty_store_is_ready_and_knows_nobody() {
    let world = World::new().await;
    let at = world.snapshot();
    assert!(at.users().next().is_none());
    assert!(at.effective_roles(FIRST_ADMIN, AuthScope::System).is_empty());
    assert_eq!(verify(&at), []);
}

#[tokio::test]
async fn names_are_found_without_regard_to_case_and_only_in_their_domain() {
    let world = World::bootstrapped().await;
    let other = world.domain("Other").await;
    let alice = world.user(DEFAULT_DOMAIN, "Alice").await;
    let at = world.snapshot();
    assert_eq!(at.find_user(DEFAULT_DOMAIN, "aLiCe").unwrap().value.id, alice);
    assert!(at.find_user(other, "Alice").is_none());
    assert_eq!(at.find_domain("other").unwrap().value.id, other);
    assert_eq!(
        at.find_role(None, "READER").unwrap().value.id,
        BuiltIn::Reader.id()
    );
}

#[tokio::test]
async fn an_answer_is_not_remembered_beyond_its_snapshot() {
    let world = World::bootstrapped().await;
    let user = world.user(DEFAULT_DOMAIN, "u").await;
    let (target, actor, role) = (Target::System, Actor::User(user), BuiltIn::Member.id());
    let roles = || world.snapshot().effective_roles(user, AuthScope::System);
    assert!(roles().is_empty());
    world
        .editor
        .change(|edit| edit.grant(target, actor, role, false))
        .await
        .unwrap();
    assert_eq!(
        roles().iter().copied().collect::<Vec<_>>(),
        [BuiltIn::Reader.id(), role]
    );
    world
        .editor
        .change(|edit| edit.revoke(target, actor, role, false))
        .await
        .unwrap();
    assert!(roles().is_empty());
}

#[tokio::test]
async fn what_is_damaged_counts_as_not_there_and_is_found() {
    let world = World::bootstrapped().await;
    let put = async |path: &str, value: serde_json::Value| {
        let key = Key::parse(path).unwrap();
        let txn = Txn::new().create(key.clone(), Value::json(&value).unwrap());
        let revision = world.commit(txn).await.committed().unwrap();
        world.directory.wait_for([&key], revision).await.unwrap();
    };
    let id = Uuid::from_u128(77);
    put(&format!("identity/users/{id}"), json!({"id": "no id"})).await;
    put("identity/users/no-id", json!({})).await;
    // A grant that lies under another's key gives neither.
    let user = world.user(DEFAULT_DOMAIN, "mallory").await;
    let grant = json!({"target": {"type": "system"}, "actor": {"type": "user", "id": user},
                       "role": BuiltIn::Admin.id(), "created_at": "2026-01-01T00:00:00Z"});
    put(
        &paths::grant(Target::System, Actor::User(user), BuiltIn::Reader.id(), false),
        grant,
    )
    .await;
    // A revocation counts by its key alone.
    put(&paths::revoked(id), json!("what?")).await;
    let at = world.snapshot();
    assert_eq!(at.damaged().count(), 4);
    assert!(at.user(skyloom_model::Id::from_uuid(id)).is_none());
    assert!(at.effective_roles(user, AuthScope::System).is_empty());
    assert!(at.is_revoked(id));
    assert!(
        verify(&at)
            .iter()
            .all(|finding| matches!(finding.problem, Problem::Damaged(_)))
    );
    assert_eq!(verify(&at).len(), 4);
}

#[tokio::test]
async fn verify_finds_what_does_not_fit() {
    let world = World::bootstrapped().await;
    let user = world.user(DEFAULT_DOMAIN, "u").await;
    assert_eq!(verify(&world.snapshot()), []);
    let (mut all, revision) = world.all().await;
    // Somebody deletes records by hand.
    let gone = [paths::user(user), paths::role(BuiltIn::Manager.id())];
    all.retain(|kv| !gone.contains(&kv.key.as_str().to_owned()));
    let problems = verify(&skyloom_identity::Snapshot::of(&all, revision).unwrap());
    let has = |problem: &dyn Fn(&Problem) -> bool| problems.iter().any(|finding| problem(&finding.problem));
    assert!(has(&|p| *p == Problem::NoBuiltIn), "{problems:?}");
    assert!(has(&|p| *p == Problem::IdleClaim), "{problems:?}");
    assert!(
        has(&|p| matches!(p, Problem::Dangling(path) if *path == gone[1])),
        "{problems:?}"
    );
}

#[tokio::test]
async fn the_age_is_known_when_somebody_asks() {
    let world = World::bootstrapped().await;
    assert_eq!(world.directory.age(), None, "nobody has asked yet");
    let second = Duration::from_secs(1);
    assert!(world.directory.is_fresh(5 * second, 30 * second).await);
    world.clock.advance(4 * second);
    assert!(world.directory.age().unwrap() >= 4 * second);
    // The question has made it ask the store.
    assert!(world.directory.is_fresh(second, 30 * second).await);
    assert!(world.directory.age().unwrap() < second);
}

#[tokio::test]
async fn a_directory_without_news_says_nothing_of_tokens() {
    let world = World::bootstrapped().await;
    let grounds = Grounds {
        user: FIRST_ADMIN,
        domain: DEFAULT_DOMAIN,
        scope: AuthScope::System,
        via: Via::User,
    };
    assert_eq!(
        world.directory.current(&grounds),
        None,
        "it has not heard anything yet"
    );
    assert!(
        world
            .directory
            .is_fresh(Duration::from_secs(5), Duration::from_secs(30))
            .await
    );
    assert!(world.directory.current(&grounds).is_some());
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(world.directory.current(&grounds), None);
    let other = Grounds {
        domain: world.domain("elsewhere").await,
        ..grounds.clone()
    };
    assert!(
        world
            .directory
            .is_fresh(Duration::from_secs(5), Duration::from_secs(30))
            .await
    );
    assert_eq!(
        world.directory.current(&other),
        None,
        "the user is of another domain"
    );
    assert!(world.directory.current(&grounds).is_some());
}
