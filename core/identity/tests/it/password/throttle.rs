//! Attack 10: guessing by the thousand, and who can still log in meanwhile.

use proptest::prelude::*;
use skyloom_identity::{Attempt, Rate, Throttle, ThrottleConfig, Throttled, source_of};

use super::*;

const CONFIG: ThrottleConfig = ThrottleConfig {
    pair: Rate {
        burst: 5,
        every: Duration::from_secs(20),
    },
    source: Rate {
        burst: 20,
        every: Duration::from_secs(3),
    },
    user: Rate {
        burst: 50,
        every: Duration::from_secs(2),
    },
    proven: Duration::from_secs(3600),
    entries: 20_000,
};

fn throttle(config: ThrottleConfig) -> (Throttle, ManualClock) {
    let clock = ManualClock::new();
    (Throttle::new(config, Arc::new(clock.clone())), clock)
}

/// Logs in as the cloud would: the hash is compared only when the throttle lets it.
async fn login(
    throttle: &Throttle,
    hasher: &Hasher,
    who: (&str, &str),
    password: &str,
    kept: Option<&str>,
) -> Result<bool, Throttled> {
    let attempt: Attempt<'_> = throttle.begin(who.0, who.1)?;
    match hasher.verify(secret(password), kept).await.unwrap() {
        Verdict::Right { .. } => {
            attempt.right();
            Ok(true)
        }
        Verdict::Wrong => {
            attempt.wrong();
            Ok(false)
        }
    }
}

/// User and source of the n-th guess.
type Spread = fn(usize) -> (String, String);

#[tokio::test]
async fn ten_thousand_wrong_passwords_are_held_back_and_others_log_in() {
    let hasher = cheap();
    let kept = hasher.hash(secret("right")).await.unwrap();
    let kept = Some(kept.as_str());
    // From where, and on whom: one user, many users, many sources, both.
    let spreads: [(&str, Spread, usize); 4] = [
        (
            "one user from one source",
            |_| ("anna".into(), "10.0.0.1".into()),
            5,
        ),
        (
            "many users from one source",
            |n| (format!("user{n}"), "10.0.0.1".into()),
            20,
        ),
        (
            "one user from many sources",
            |n| ("anna".into(), format!("10.1.{}.{}", n / 250, n % 250)),
            50,
        ),
        (
            "a hundred users from a hundred sources",
            |n| (format!("user{}", n % 100), format!("10.2.0.{}", n / 100)),
            2000,
        ),
    ];
    for (name, spread, most) in spreads {
        let (throttle, _clock) = throttle(CONFIG);
        assert_eq!(
            login(&throttle, &hasher, ("anna", "desk"), "right", kept).await,
            Ok(true),
            "anna's source is proven"
        );
        let mut compared = 0;
        for n in 0..10_000 {
            let (user, source) = spread(n);
            // Half of the users do not exist: it makes no difference.
            let there = kept.filter(|_| n % 2 == 0);
            match login(&throttle, &hasher, (&user, &source), "guess", there).await {
                Ok(right) => {
                    assert!(!right);
                    compared += 1;
                }
                Err(throttled) => assert!(!throttled.retry_after.is_zero()),
            }
        }
        assert!(compared <= most, "{name}: {compared} were compared");
        assert!(compared >= 5, "{name}: {compared}");
        for who in [
            ("anna", "desk"),
            ("berta", "desk"),
            ("berta", "home"),
            ("carl", "office"),
        ] {
            assert_eq!(
                login(&throttle, &hasher, who, "right", kept).await,
                Ok(true),
                "{name}: {who:?}"
            );
        }
    }
}

#[test]
fn addresses_that_are_free_to_somebody_count_as_one() {
    for (address, source) in [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
    ] {
        assert_eq!(source_of(address.parse().unwrap()), source);
    }
}

#[test]
fn known_and_unknown_users_are_held_back_alike() {
    let (throttle, _clock) = throttle(CONFIG);
    let answers = |user: &str, source: &str| -> Vec<Option<Throttled>> {
        (0..10).map(|_| throttle.begin(user, source).err()).collect()
    };
    let known = answers("anna", "a");
    assert_eq!(known, answers("nobody", "b"));
    assert_eq!(known.iter().filter(|answer| answer.is_none()).count(), 5);
}

#[test]
fn one_more_passes_each_time() {
    let (throttle, clock) = throttle(CONFIG);
    let count = || (0..100).filter(|_| throttle.begin("anna", "a").is_ok()).count();
    assert_eq!(count(), 5);
    clock.advance(Duration::from_secs(19));
    assert_eq!(count(), 0);
    let retry_after = throttle.begin("anna", "a").unwrap_err().retry_after;
    assert_eq!(retry_after, Duration::from_secs(1));
    clock.advance(retry_after);
    assert_eq!(count(), 1);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(count(), 5);
}

#[test]
fn attempts_at_the_same_moment_gain_nothing() {
    let (throttle, _clock) = throttle(CONFIG);
    let open: Vec<Attempt<'_>> = (0..100)
        .filter_map(|_| throttle.begin("anna", "a").ok())
        .collect();
    assert_eq!(open.len(), 5);
    // Unanswered ones are given back.
    open.into_iter().for_each(Attempt::unanswered);
    assert_eq!(
        (0..100).filter(|_| throttle.begin("anna", "a").is_ok()).count(),
        5
    );
}

#[test]
fn an_account_of_its_own_does_not_wash_a_source_clean() {
    let (throttle, _clock) = throttle(CONFIG);
    let mut guesses = 0;
    for n in 0..1000 {
        guesses += usize::from(throttle.begin(&format!("user{n}"), "evil").is_ok());
        if let Ok(own) = throttle.begin("mallory", "evil") {
            own.right();
        }
    }
    assert_eq!(guesses, 20);
}

#[test]
fn a_proven_source_is_held_back_for_its_own_guesses_only() {
    let (throttle, clock) = throttle(CONFIG);
    throttle.begin("anna", "desk").unwrap().right();
    // Somebody at the same desk guesses at many, somebody elsewhere at anna.
    for n in 0..1000 {
        let _ = throttle.begin(&format!("user{n}"), "desk");
        let _ = throttle.begin("anna", &format!("source{n}"));
    }
    throttle.begin("berta", "desk").unwrap_err();
    throttle.begin("anna", "home").unwrap_err();
    for _ in 0..50 {
        throttle.begin("anna", "desk").unwrap().right();
    }
    assert_eq!(
        (0..100)
            .filter(|_| throttle.begin("anna", "desk").is_ok())
            .count(),
        5
    );
    // It does not last for ever.
    throttle.begin("anna", "desk").unwrap_err();
    clock.advance(Duration::from_secs(3600));
    for n in 0..1000 {
        let _ = throttle.begin("anna", &format!("source{n}"));
    }
    throttle.begin("anna", "desk").unwrap_err();
}

#[test]
fn own_logins_do_not_stand_in_each_others_way() {
    let (throttle, _clock) = throttle(CONFIG);
    throttle.begin("robot", "ci").unwrap().right();
    let open: Vec<Attempt<'_>> = (0..100)
        .filter_map(|_| throttle.begin("robot", "ci").ok())
        .collect();
    assert_eq!(open.len(), 100);
    open.into_iter().for_each(Attempt::right);
    throttle.begin("robot", "ci").unwrap().right();
}

#[test]
fn a_flood_of_other_names_does_not_make_it_forget() {
    // Sources are free to this attacker; the tables are small.
    let free = Rate {
        burst: u32::MAX,
        every: Duration::from_millis(1),
    };
    let (throttle, clock) = throttle(ThrottleConfig {
        entries: 100,
        source: free,
        user: free,
        ..CONFIG
    });
    (0..100).for_each(|_| drop(throttle.begin("anna", "evil")));
    throttle.begin("anna", "evil").unwrap_err();
    for n in 0..10_000 {
        let _ = throttle.begin(&format!("user{n}"), "evil");
    }
    throttle.begin("anna", "evil").unwrap_err();
    clock.advance(Duration::from_secs(20));
    assert_eq!(
        (0..10).filter(|_| throttle.begin("anna", "evil").is_ok()).count(),
        1
    );
}

proptest! {
    #[test]
    fn no_order_of_events_lets_more_through(steps in proptest::collection::vec((0u8..4, 0u64..30), 1..200)) {
        let (throttle, clock) = throttle(CONFIG);
        let (mut wrong, mut passed) = (0u64, 0u64);
        for (what, seconds) in steps {
            match what {
                0 => {
                    clock.advance(Duration::from_secs(seconds));
                    passed += seconds;
                }
                1 => throttle.begin("anna", "evil").into_iter().for_each(Attempt::unanswered),
                _ => wrong += throttle.begin("anna", "evil").into_iter().map(Attempt::wrong).count() as u64,
            }
        }
        prop_assert!(wrong <= 5 + passed / 20, "{wrong} in {passed} s");
    }
}
