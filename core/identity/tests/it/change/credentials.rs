//! What is handed on is never more than what one has, and goes with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skyloom_identity::{
    AccessRule, Actor, AuthScope, BuiltIn, ChangeError, Credential, DEFAULT_DOMAIN, Doomed, Grounds,
    NewApplicationCredential, NewTrust, Principal, RoleId, SecretHash, Target, Trust, UserId, Via, verify,
};
use skyloom_model::ProjectId;
use skyloom_store::Txn;

use super::stale::{credential, trust};
use crate::world::World;

struct Setting {
    world: World,
    user: UserId,
    friend: UserId,
    project: ProjectId,
}

impl Setting {
    async fn new() -> Self {
        let world = World::bootstrapped().await;
        let (user, friend) = (
            world.user(DEFAULT_DOMAIN, "user").await,
            world.user(DEFAULT_DOMAIN, "friend").await,
        );
        let project = world.project(DEFAULT_DOMAIN, None, "p").await;
        let this = Self {
            world,
            user,
            friend,
            project,
        };
        this.give(user, BuiltIn::Member).await;
        this
    }
    async fn give(&self, user: UserId, role: BuiltIn) {
        let (target, actor) = (Target::Project(self.project), Actor::User(user));
        self.world
            .editor
            .change(|e| e.grant(target, actor, role.id(), false))
            .await
            .unwrap();
    }
    async fn take(&self, role: BuiltIn) {
        let (target, actor) = (Target::Project(self.project), Actor::User(self.user));
        self.world
            .editor
            .change(|e| e.revoke(target, actor, role.id(), false))
            .await
            .unwrap();
    }
    fn by(&self) -> Principal {
        self.world.principal(self.user, self.project)
    }
    /// The caller as it is with that credential.
    fn with(&self, credential: &Credential) -> Principal {
        let roles = self
            .world
            .snapshot()
            .credential_roles(credential.id, self.world.now());
        let via = Via::ApplicationCredential { id: credential.id };
        Principal {
            roles: Arc::new(roles),
            via,
            ..self.by()
        }
    }
    async fn make(&self, by: &Principal, asked: NewApplicationCredential) -> Result<Credential, ChangeError> {
        self.world
            .editor
            .change(|e| e.create_application_credential(by, asked.clone()))
            .await
    }
    async fn entrust(&self, by: &Principal, asked: NewTrust) -> Result<Trust, ChangeError> {
        self.world
            .editor
            .change(|e| e.create_trust(by, asked.clone()))
            .await
    }
    fn roles(&self, credential: &Credential) -> BTreeSet<RoleId> {
        self.world
            .snapshot()
            .credential_roles(credential.id, self.world.now())
    }
    fn grounds(&self, via: Via) -> Grounds {
        Grounds {
            user: self.user,
            domain: DEFAULT_DOMAIN,
            scope: AuthScope::Project(self.project),
            via,
        }
    }
    async fn remove(&self, doomed: Doomed) {
        self.world.editor.remove(doomed, Txn::new()).await.unwrap();
        assert_eq!(verify(&self.world.truth().await), []);
    }
}

fn ids<const N: usize>(roles: [BuiltIn; N]) -> BTreeSet<RoleId> {
    roles.map(BuiltIn::id).into()
}

fn refused<T: std::fmt::Debug>(made: Result<T, ChangeError>) {
    assert!(matches!(made, Err(ChangeError::Forbidden(_))), "{made:?}");
}

#[tokio::test]
async fn a_credential_has_never_more_roles_than_its_user_has_now() {
    let at = Setting::new().await;
    let own = at.make(&at.by(), credential("own")).await.unwrap();
    assert_eq!(at.roles(&own), ids([BuiltIn::Member, BuiltIn::Reader]));
    assert_eq!(
        at.world
            .snapshot()
            .credential_of_secret(&SecretHash::of("own"))
            .unwrap()
            .value
            .id,
        own.id
    );
    assert_eq!(
        at.world
            .snapshot()
            .find_credential(at.user, "OWN")
            .unwrap()
            .value
            .id,
        own.id
    );
    // What the user gets later it does not have; what the user loses it loses at once.
    at.give(at.user, BuiltIn::Admin).await;
    assert_eq!(at.roles(&own), ids([BuiltIn::Member, BuiltIn::Reader]));
    at.take(BuiltIn::Admin).await;
    at.take(BuiltIn::Member).await;
    at.give(at.user, BuiltIn::Reader).await;
    assert_eq!(at.roles(&own), ids([BuiltIn::Reader]));
    at.world
        .editor
        .change(|e| e.update_user(at.user, |u| u.enabled = false))
        .await
        .unwrap();
    assert!(at.roles(&own).is_empty());
    let wants_more = NewApplicationCredential {
        roles: Some(ids([BuiltIn::Admin])),
        ..credential("more")
    };
    refused(
        at.make(
            &Principal {
                roles: Arc::new(ids([BuiltIn::Reader])),
                ..at.by()
            },
            wants_more,
        )
        .await,
    );
}

#[tokio::test]
async fn a_restricted_credential_makes_and_deletes_none() {
    let at = Setting::new().await;
    let restricted = at.make(&at.by(), credential("restricted")).await.unwrap();
    let by = at.with(&restricted);
    refused(at.make(&by, credential("child")).await);
    refused(at.entrust(&by, trust(at.friend, at.project)).await);
    let snapshot = at.world.snapshot();
    refused(at.world.edit(&snapshot).may_delete_credential(&by, restricted.id));
    at.world
        .edit(&snapshot)
        .may_delete_credential(&at.by(), restricted.id)
        .unwrap();
    let other = at.world.principal(at.friend, at.project);
    let found = at
        .world
        .edit(&snapshot)
        .may_delete_credential(&other, restricted.id);
    assert!(matches!(found, Err(ChangeError::NotFound { .. })));
}

#[tokio::test]
async fn what_a_credential_makes_is_no_more_than_itself_and_ends_with_it() {
    let at = Setting::new().await;
    let end = at.world.now().checked_add(Duration::from_secs(100)).unwrap();
    let rule = |path: &str| AccessRule {
        id: uuid::Uuid::from_u128(1),
        service: "compute".to_owned(),
        method: "GET".to_owned(),
        path: path.to_owned(),
    };
    let parent = NewApplicationCredential {
        unrestricted: true,
        expires_at: Some(end),
        roles: Some(ids([BuiltIn::Reader])),
        access_rules: vec![rule("/v1/servers")],
        permissions: Vec::new(),
        ..credential("parent")
    };
    let parent = at.make(&at.by(), parent).await.unwrap();
    let by = at.with(&parent);
    let child = NewApplicationCredential {
        unrestricted: true,
        expires_at: Some(end),
        access_rules: vec![rule("/v1/servers")],
        permissions: Vec::new(),
        ..credential("child")
    };
    let wrong: [NewApplicationCredential; 4] = [
        NewApplicationCredential {
            roles: Some(ids([BuiltIn::Member])),
            ..child.clone()
        },
        NewApplicationCredential {
            expires_at: None,
            ..child.clone()
        },
        NewApplicationCredential {
            access_rules: Vec::new(),
            permissions: Vec::new(),
            ..child.clone()
        },
        NewApplicationCredential {
            access_rules: vec![rule("/v1/images")],
            permissions: Vec::new(),
            ..child.clone()
        },
    ];
    for wrong in wrong {
        refused(at.make(&by, wrong).await);
    }
    // A principal that claims more roles than the credential has gets no more either.
    refused(
        at.make(
            &Principal {
                via: by.via.clone(),
                ..at.by()
            },
            NewApplicationCredential {
                roles: Some(ids([BuiltIn::Member])),
                ..child.clone()
            },
        )
        .await,
    );
    let child = at.make(&by, child).await.unwrap();
    assert_eq!(at.roles(&child), ids([BuiltIn::Reader]));
    let made = at
        .entrust(
            &by,
            NewTrust {
                expires_at: Some(end),
                ..trust(at.friend, at.project)
            },
        )
        .await
        .unwrap();
    refused(at.entrust(&by, trust(at.friend, at.project)).await);
    let via = Via::ApplicationCredential { id: child.id };
    assert!(
        at.world
            .snapshot()
            .epochs(&at.grounds(via.clone()), at.world.now())
            .is_some()
    );
    assert_eq!(
        at.world.snapshot().trust_roles(made.id, at.world.now()),
        ids([BuiltIn::Reader])
    );
    at.remove(Doomed::Credential(parent.id)).await;
    assert!(at.world.snapshot().credential(child.id).is_none() && at.roles(&child).is_empty());
    assert!(at.world.snapshot().trust(made.id).is_none());
    assert!(
        at.world
            .snapshot()
            .epochs(&at.grounds(via), at.world.now())
            .is_none()
    );
}

#[tokio::test]
async fn credentials_and_trusts_end() {
    let at = Setting::new().await;
    let end = at.world.now().checked_add(Duration::from_secs(100)).unwrap();
    let own = NewApplicationCredential {
        expires_at: Some(end),
        ..credential("own")
    };
    let own = at.make(&at.by(), own).await.unwrap();
    let given = at
        .entrust(
            &at.by(),
            NewTrust {
                expires_at: Some(end),
                ..trust(at.friend, at.project)
            },
        )
        .await
        .unwrap();
    at.world.clock.advance(Duration::from_secs(99));
    assert!(!at.roles(&own).is_empty());
    assert!(at.world.snapshot().trust_counts(given.id, at.world.now()));
    at.world.clock.advance(Duration::from_secs(1));
    assert!(at.roles(&own).is_empty());
    assert!(!at.world.snapshot().trust_counts(given.id, at.world.now()));
    let past = NewApplicationCredential {
        expires_at: Some(end),
        ..credential("past")
    };
    assert!(matches!(
        at.make(&at.by(), past).await,
        Err(ChangeError::Invalid {
            field: "expires_at",
            ..
        })
    ));
}

#[tokio::test]
async fn a_trust_gives_the_trustors_roles_while_both_sides_are_there() {
    let at = Setting::new().await;
    refused(
        at.entrust(
            &at.by(),
            NewTrust {
                roles: Some(ids([BuiltIn::Admin])),
                ..trust(at.friend, at.project)
            },
        )
        .await,
    );
    let given = at.entrust(&at.by(), trust(at.friend, at.project)).await.unwrap();
    let roles = || at.world.snapshot().trust_roles(given.id, at.world.now());
    let via = || Via::Trust {
        id: given.id,
        trustee: at.friend,
    };
    assert_eq!(roles(), ids([BuiltIn::Member, BuiltIn::Reader]));
    assert!(
        at.world
            .snapshot()
            .epochs(&at.grounds(via()), at.world.now())
            .is_some()
    );
    for side in [at.user, at.friend] {
        at.world
            .editor
            .change(|e| e.update_user(side, |u| u.enabled = false))
            .await
            .unwrap();
        assert!(roles().is_empty());
        assert!(
            at.world
                .snapshot()
                .epochs(&at.grounds(via()), at.world.now())
                .is_none()
        );
        at.world
            .editor
            .change(|e| e.update_user(side, |u| u.enabled = true))
            .await
            .unwrap();
    }
    at.take(BuiltIn::Member).await;
    assert!(roles().is_empty());
}

#[tokio::test]
async fn the_uses_of_a_trust_are_counted() {
    let at = Setting::new().await;
    let given = at
        .entrust(
            &at.by(),
            NewTrust {
                remaining_uses: Some(2),
                ..trust(at.friend, at.project)
            },
        )
        .await
        .unwrap();
    for left in [1, 0] {
        let used = at
            .world
            .editor
            .change(|e| e.consume_trust(given.id))
            .await
            .unwrap();
        assert_eq!(used.remaining_uses, Some(left));
    }
    refused(at.world.editor.change(|e| e.consume_trust(given.id)).await);
}

#[tokio::test]
async fn a_trust_is_handed_on_with_no_more_than_it_has_and_goes_with_it() {
    let at = Setting::new().await;
    let third = at.world.user(DEFAULT_DOMAIN, "third").await;
    let given = NewTrust {
        redelegation_count: 2,
        ..trust(at.friend, at.project)
    };
    let given = at.entrust(&at.by(), given).await.unwrap();
    let with = |trust: &Trust| Principal {
        roles: Arc::new(at.world.snapshot().trust_roles(trust.id, at.world.now())),
        via: Via::Trust {
            id: trust.id,
            trustee: trust.trustee,
        },
        ..at.by()
    };
    refused(
        at.entrust(
            &with(&given),
            NewTrust {
                redelegation_count: 2,
                ..trust(third, at.project)
            },
        )
        .await,
    );
    refused(
        at.entrust(
            &with(&given),
            NewTrust {
                remaining_uses: Some(1),
                ..trust(third, at.project)
            },
        )
        .await,
    );
    refused(
        at.entrust(
            &with(&given),
            NewTrust {
                roles: Some(ids([BuiltIn::Admin])),
                ..trust(third, at.project)
            },
        )
        .await,
    );
    let next = at.entrust(&with(&given), trust(third, at.project)).await.unwrap();
    assert_eq!((next.trustor, next.redelegated_from), (at.user, Some(given.id)));
    assert_eq!(
        at.world.snapshot().trust_roles(next.id, at.world.now()),
        ids([BuiltIn::Member, BuiltIn::Reader])
    );
    refused(at.entrust(&with(&next), trust(at.friend, at.project)).await);
    // A trust is no credential: it makes none.
    refused(at.make(&with(&given), credential("c")).await);
    at.world
        .editor
        .change(|e| e.update_user(at.friend, |u| u.enabled = false))
        .await
        .unwrap();
    assert!(
        !at.world.snapshot().trust_counts(next.id, at.world.now()),
        "it rests on one whose trustee is disabled"
    );
    at.remove(Doomed::Trust(given.id)).await;
    assert!(at.world.snapshot().trust(next.id).is_none());
}

#[tokio::test]
async fn tokens_for_a_project_end_with_what_is_above_it() {
    let at = Setting::new().await;
    let domain = at.world.domain("d").await;
    let top = at.world.project(domain, None, "top").await;
    let below = at.world.project(domain, Some(top), "below").await;
    let grounds = Grounds {
        scope: AuthScope::Project(below),
        ..at.grounds(Via::User)
    };
    let epochs = || at.world.snapshot().epochs(&grounds, at.world.now());
    let mut before = epochs().unwrap();
    let set = async |on: bool| {
        at.world
            .editor
            .change(|e| e.update_project(top, |p| p.spec.enabled = on))
            .await
            .unwrap();
    };
    let set_domain = async |on: bool| {
        at.world
            .editor
            .change(|e| e.update_domain(domain, |d| d.enabled = on))
            .await
            .unwrap();
    };
    set(false).await;
    assert_eq!(epochs(), None);
    set(true).await;
    assert_ne!(epochs(), Some(before), "what was given before stays ended");
    before = epochs().unwrap();
    set_domain(false).await;
    assert_eq!(epochs(), None);
    set_domain(true).await;
    assert_ne!(epochs(), Some(before));
}
