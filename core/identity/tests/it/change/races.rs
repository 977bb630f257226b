//! What gets a new reference while somebody removes it, having seen none.

use std::sync::Arc;

use skyloom_identity::{
    Actor, BuiltIn, DEFAULT_DOMAIN, Doomed, Interface, NewApplicationCredential, NewTrust, Principal, Target,
    Via, verify,
};
use skyloom_store::{Outcome, Store as _, Txn};

use super::stale::{credential, trust};
use crate::world::World;

#[tokio::test]
async fn what_is_not_marked_first_is_not_removed_beside_a_new_reference() {
    let world = World::bootstrapped().await;
    let (user, friend) = (
        world.user(DEFAULT_DOMAIN, "u").await,
        world.user(DEFAULT_DOMAIN, "f").await,
    );
    let project = world.project(DEFAULT_DOMAIN, None, "p").await;
    let (target, member) = (Target::Project(project), BuiltIn::Member.id());
    world
        .editor
        .change(|e| e.grant(target, Actor::User(user), member, false))
        .await
        .unwrap();
    let by = world.principal(user, project);
    let unrestricted = || NewApplicationCredential {
        unrestricted: true,
        ..credential("own")
    };
    let own = world
        .editor
        .change(|e| e.create_application_credential(&by, unrestricted()))
        .await
        .unwrap();
    let given = NewTrust {
        redelegation_count: 1,
        ..trust(friend, project)
    };
    let given = world
        .editor
        .change(|e| e.create_trust(&by, given.clone()))
        .await
        .unwrap();
    let service = world
        .editor
        .change(|e| e.create_service("s", |_| {}))
        .await
        .unwrap()
        .id;
    world
        .editor
        .change(|e| e.create_region("r", |_| {}))
        .await
        .unwrap();

    let with = |via: Via| Principal {
        via,
        roles: Arc::clone(&by.roles),
        ..by.clone()
    };
    let with_own = with(Via::ApplicationCredential { id: own.id });
    let with_given = with(Via::Trust {
        id: given.id,
        trustee: friend,
    });
    let limits = world.store.capability();

    let at = world.truth().await;
    let edit = world.edit(&at);
    let removal = |doomed| edit.removal(doomed, &limits).unwrap().unwrap();
    let endpoint = |region: Option<&str>| {
        let region = region.map(str::to_owned);
        edit.create_endpoint(service, Interface::Public, "http://x", |e| e.region = region)
            .unwrap()
            .txn
    };
    let inner = edit
        .create_region("inner", |r| r.parent = Some("r".into()))
        .unwrap()
        .txn;
    let races: [(&str, Txn, Txn); 6] = [
        (
            "project",
            edit.create_project(DEFAULT_DOMAIN, Some(project), "below", |_| {})
                .unwrap()
                .txn,
            removal(Doomed::Project(project)),
        ),
        (
            "credential",
            edit.create_application_credential(&with_own, credential("child"))
                .unwrap()
                .txn,
            removal(Doomed::Credential(own.id)),
        ),
        (
            "trust",
            edit.create_trust(&with_given, trust(user, project)).unwrap().txn,
            removal(Doomed::Trust(given.id)),
        ),
        ("service", endpoint(None), removal(Doomed::Service(service))),
        (
            "region",
            endpoint(Some("r")),
            edit.delete_region("r").unwrap().txn,
        ),
        ("region around", inner, edit.delete_region("r").unwrap().txn),
    ];
    for (what, reference, removal) in races {
        // Each race begins where the snapshot was taken.
        let apart = World::new().await;
        for page in world.all().await.0.chunks(60) {
            let create =
                |txn: Txn, kv: &skyloom_store::KeyValue| txn.create(kv.key.clone(), kv.value.clone());
            apart.commit(page.iter().fold(Txn::new(), create)).await;
        }
        let here = apart.all().await.0;
        let now = |txn: Txn| Txn {
            // The same, by the revisions that this store has.
            guards: txn
                .guards
                .into_iter()
                .map(|guard| match guard {
                    skyloom_store::Guard::Revision(key, _) => {
                        let there = here.iter().find(|kv| kv.key == key).unwrap();
                        skyloom_store::Guard::Revision(key, there.modified)
                    }
                    other => other,
                })
                .collect(),
            writes: txn.writes,
        };
        let (reference, removal) = (now(reference), now(removal));
        assert!(
            matches!(apart.commit(reference).await, Outcome::Committed { .. }),
            "{what}"
        );
        assert!(
            matches!(apart.commit(removal).await, Outcome::Conflict { .. }),
            "{what} was removed"
        );
        assert_eq!(verify(&apart.truth().await), [], "{what}");
    }
}
