//! Ledgers under contention, against a model, and counted anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use proptest::prelude::*;
use skyloom_identity::{
    Amounts, COUNTED, Exceeded, Limit, Limits, Owner, QuotaError, Quotas, ResourceName, Slot,
};
use skyloom_model::{Id, ManualClock};
use skyloom_store::{DynBackend, Key, MemoryConfig, MemoryStore, Outcome, Txn, Value};
use uuid::Uuid;

fn id<K: ?Sized>(n: u128) -> Id<K> {
    Id::from_uuid(Uuid::from_u128(n))
}

fn name(name: &str) -> ResourceName {
    name.parse().unwrap()
}

fn amounts(of: &[(&str, u64)]) -> Amounts {
    of.iter()
        .fold(Amounts::new(), |all, (n, amount)| all.and(name(n), *amount))
}

fn limits(of: &[(&str, u64)]) -> Limits {
    of.iter().fold(Limits::new(), |all, (n, most)| {
        all.with(name(n), Limit::Most(*most))
    })
}

fn store() -> DynBackend {
    Arc::new(MemoryStore::new(
        Arc::new(ManualClock::new()),
        MemoryConfig::default(),
    ))
}

async fn load(store: &DynBackend, defaults: &Limits) -> Quotas {
    Quotas::load(store, defaults.clone(), id(1), id(2)).await.unwrap()
}

async fn commit(store: &DynBackend, txn: Txn) -> bool {
    store.commit(txn).await.unwrap().committed().is_some()
}

/// A resource and its charge in one commit, as every create does it.
async fn create(
    store: &DynBackend,
    defaults: &Limits,
    n: usize,
    asked: &Amounts,
) -> Result<(), Vec<Exceeded>> {
    loop {
        let quotas = load(store, defaults).await;
        let charge = match quotas.charge(asked) {
            Ok(charge) => charge,
            Err(QuotaError::Exceeded(why)) => return Err(why),
            Err(QuotaError::Store(error)) => panic!("{error}"),
        };
        tokio::task::yield_now().await;
        let key = Key::parse(&format!("r/servers/{n}")).unwrap();
        let txn = charge.create(key, Value::json("server").unwrap());
        if matches!(store.commit(txn).await.unwrap(), Outcome::Committed { .. }) {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_creates_at_the_limit_less_one_exactly_one_passes() {
    let store = store();
    let defaults = limits(&[("servers", 10)]);
    let quotas = load(&store, &defaults).await;
    assert!(commit(&store, quotas.charge(&amounts(&[("servers", 9)])).unwrap()).await);
    let one = amounts(&[("servers", 1)]);
    let creates = (0..64).map(|n| {
        let (store, defaults, one) = (store.clone(), defaults.clone(), one.clone());
        async move { create(&store, &defaults, n, &one).await }
    });
    let mut set = tokio::task::JoinSet::new();
    creates.for_each(|create| {
        set.spawn(create);
    });
    let answers = set.join_all().await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
    for why in answers.into_iter().filter_map(Result::err) {
        assert_eq!(
            why,
            [Exceeded {
                owner: Owner::Project(id(2)),
                resource: name("servers"),
                limit: 10,
                used: 10,
                asked: 1
            }]
        );
        let reason = QuotaError::Exceeded(why).reason();
        assert_eq!(reason.code, "quota.exceeded");
        assert!(
            reason.message.contains("servers is 10, 10 used, 1 asked for"),
            "{reason}"
        );
    }
    let servers =
        skyloom_store::Table::<String>::new(store.clone(), skyloom_store::Prefix::parse("r").unwrap());
    assert_eq!(servers.list_all().await.unwrap().items.len(), 1);
    assert_eq!(load(&store, &defaults).await.project.used(&name("servers")), 10);
}

#[tokio::test]
async fn several_resources_are_charged_together_or_not_at_all() {
    let store = store();
    let defaults = limits(&[("servers", 10), ("vcpus", 3)]);
    let asked = amounts(&[("servers", 1), ("vcpus", 2), ("images", 5)]);
    assert!(create(&store, &defaults, 0, &asked).await.is_ok());
    let why = create(&store, &defaults, 1, &asked).await.unwrap_err();
    assert_eq!(
        (why.len(), why[0].resource.as_str(), why[0].used, why[0].limit),
        (1, "vcpus", 2, 3)
    );
    let usage = load(&store, &defaults).await.usage();
    let seen: Vec<_> = usage
        .iter()
        .map(|u| (u.resource.as_str(), u.used, u.limit))
        .collect();
    assert_eq!(
        seen,
        [
            ("images", 5, None),
            ("servers", 1, Some(10)),
            ("vcpus", 2, Some(3))
        ]
    );
    // Two parts made of one reading: the second of them must not go through.
    let quotas = load(&store, &defaults).await;
    let one = amounts(&[("vcpus", 1)]);
    let (a, b) = (quotas.charge(&one).unwrap(), quotas.charge(&one).unwrap());
    assert!(commit(&store, a).await && !commit(&store, b).await);
    assert_eq!(load(&store, &defaults).await.project.used(&name("vcpus")), 3);
}

#[tokio::test]
async fn the_narrower_limit_wins_and_the_domain_bounds_the_sum() {
    let store = store();
    let defaults = limits(&[("servers", 5), ("ports", 5), ("images", 5)]);
    let quotas = load(&store, &defaults).await;
    let each = limits(&[("ports", 7), ("images", 7)]);
    let total = limits(&[("servers", 3)]);
    assert!(commit(&store, quotas.domain.set_limits(total, each).unwrap()).await);
    // What was read before the limits were set charges nothing any more.
    assert!(!commit(&store, quotas.charge(&amounts(&[("servers", 1)])).unwrap()).await);
    let own = Limits::new().with(name("images"), Limit::Unlimited);
    assert!(commit(&store, quotas.project.set_limits(own, Limits::new()).unwrap()).await);
    let quotas = load(&store, &defaults).await;
    assert_eq!(quotas.limit(&name("servers")), Limit::Most(5));
    assert_eq!(quotas.limit(&name("ports")), Limit::Most(7));
    assert_eq!(quotas.limit(&name("images")), Limit::Unlimited);
    assert!(quotas.exceeded(&amounts(&[("images", u64::MAX)])).is_empty());
    let why = quotas.exceeded(&amounts(&[("servers", 4)]));
    assert_eq!(
        (why.len(), why[0].owner, why[0].limit),
        (1, Owner::Domain(id(1)), 3)
    );
    assert!(
        why[0]
            .to_string()
            .starts_with("the domain's quota of servers is 3"),
        "{}",
        why[0]
    );
    // Another project of the domain counts too.
    let other = Quotas::load(&store, defaults.clone(), id(1), id(3))
        .await
        .unwrap();
    assert!(commit(&store, other.charge(&amounts(&[("servers", 2)])).unwrap()).await);
    let why = create(&store, &defaults, 0, &amounts(&[("servers", 2)]))
        .await
        .unwrap_err();
    assert_eq!((why[0].owner, why[0].used), (Owner::Domain(id(1)), 2));
    let sum = amounts(&[("servers", u64::MAX)]);
    assert_eq!(
        load(&store, &defaults).await.exceeded(&sum).len(),
        2,
        "no sum runs over"
    );
}

#[tokio::test]
async fn what_drifted_is_reported_and_counted_anew() {
    let store = store();
    let defaults = Limits::new();
    assert!(
        create(&store, &defaults, 0, &amounts(&[("servers", 2), ("ports", 1)]))
            .await
            .is_ok()
    );
    let quotas = load(&store, &defaults).await;
    let (txn, drift) = quotas
        .give_back(&amounts(&[("servers", 3), ("ports", 1)]))
        .unwrap();
    assert_eq!(drift.len(), 1);
    assert_eq!(
        (drift[0].resource.as_str(), drift[0].used, drift[0].given_back),
        ("servers", 2, 3)
    );
    assert!(commit(&store, txn).await);
    let slot = Slot::load(&store, Owner::Project(id(2))).await.unwrap();
    assert_eq!(slot.used(&name("servers")), 0);
    let actual = amounts(&[("servers", 4), ("images", 1)]);
    let (txn, corrections) = slot.correct(&actual).unwrap();
    let seen: Vec<_> = corrections
        .iter()
        .map(|c| (c.resource.as_str(), c.was, c.is))
        .collect();
    assert_eq!(seen, [("images", 0, 1), ("servers", 0, 4)]);
    // A charge in between is not overwritten by what was counted before it.
    assert!(
        create(&store, &defaults, 1, &amounts(&[("servers", 1)]))
            .await
            .is_ok()
    );
    assert!(!commit(&store, txn).await);
    let slot = Slot::load(&store, Owner::Project(id(2))).await.unwrap();
    assert!(commit(&store, slot.correct(&actual).unwrap().0).await);
    let slot = Slot::load(&store, Owner::Project(id(2))).await.unwrap();
    assert!(slot.recount(&actual).is_empty());
}

#[test]
fn names_of_resources_are_checked() {
    for good in COUNTED {
        assert!(ResourceName::new(good).is_ok());
    }
    for bad in ["", "Servers", "a b", "1a", "a/b", "_a", "ä", &"a".repeat(64)] {
        assert!(ResourceName::new(bad).is_err(), "{bad:?}");
        assert!(serde_json::from_value::<ResourceName>(bad.into()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn charges_and_returns_equal_a_model(steps in prop::collection::vec((any::<bool>(), 0_usize..3, 0_u64..6), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = store();
            let defaults = limits(&[("servers", 10), ("vcpus", 7)]);
            let mut model: BTreeMap<&str, u64> = BTreeMap::new();
            for (charge, which, amount) in steps {
                let resource = COUNTED[which];
                let quotas = load(&store, &defaults).await;
                let used = model.entry(resource).or_default();
                let asked = amounts(&[(resource, amount)]);
                if charge {
                    let most = [10, 7, u64::MAX][which];
                    match quotas.charge(&asked) {
                        Ok(txn) => {
                            *used += amount;
                            assert!(*used <= most && commit(&store, txn).await);
                        }
                        Err(QuotaError::Exceeded(why)) => {
                            assert!(*used + amount > most);
                            assert_eq!((why[0].used, why[0].limit, why[0].asked), (*used, most, amount));
                        }
                        Err(QuotaError::Store(error)) => panic!("{error}"),
                    }
                } else {
                    let (txn, drift) = quotas.give_back(&asked).unwrap();
                    assert_eq!(drift.is_empty(), amount <= *used);
                    *used = used.saturating_sub(amount);
                    assert!(commit(&store, txn).await);
                }
                let now = load(&store, &defaults).await;
                assert!(model.iter().all(|(n, used)| now.project.used(&name(n)) == *used));
            }
        });
    }

    #[test]
    fn at_the_same_time_too(asked in prop::collection::vec(1_u64..5, 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = store();
            let defaults = limits(&[("servers", 12)]);
            let creates = asked.iter().enumerate().map(|(n, asked)| {
                let (store, defaults) = (&store, &defaults);
                async move { create(store, defaults, n, &amounts(&[("servers", *asked)])).await.map(|()| *asked) }
            });
            let answers = join_all(creates).await;
            let sum: u64 = answers.iter().flatten().sum();
            let used = load(&store, &defaults).await.project.used(&name("servers"));
            assert!(sum == used && used <= 12);
            for why in answers.iter().filter_map(|a| a.as_ref().err()) {
                assert!(why[0].used + why[0].asked > 12);
            }
        });
    }
}
