//! Passwords, with attack 11 (passwords of a megabyte).

mod throttle;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use skyloom_identity::{
    BrokenRule, HashCost, Hasher, HasherConfig, MAX_PASSWORD, PasswordChange, PasswordError, PasswordRules,
    Verdict,
};
use skyloom_model::{Clock as _, Ids, ManualClock, Secret, SeededIds};

const CHEAP: HashCost = HashCost {
    memory_kib: 16,
    passes: 1,
    lanes: 1,
};
const RIGHT: Verdict = Verdict::Right { renewed: None };

fn ids() -> Arc<dyn Ids> {
    Arc::new(SeededIds::new(ManualClock::new(), 1))
}

fn cheap() -> Hasher {
    hasher(CHEAP, 2, 64)
}

fn hasher(cost: HashCost, at_once: usize, queue: usize) -> Hasher {
    Hasher::new(&HasherConfig { cost, at_once, queue }, ids()).unwrap()
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

#[tokio::test]
async fn the_right_password_is_told_from_others() {
    let hasher = Hasher::new(&HasherConfig::default(), ids()).unwrap();
    let kept = hasher.hash(secret("correct horse")).await.unwrap();
    assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
    assert_eq!(
        hasher.verify(secret("correct horse"), Some(&kept)).await.unwrap(),
        RIGHT
    );
    for wrong in ["correct hors", "correct horse ", "", "Correct horse"] {
        assert_eq!(
            hasher.verify(secret(wrong), Some(&kept)).await.unwrap(),
            Verdict::Wrong
        );
        assert_eq!(hasher.verify(secret(wrong), None).await.unwrap(), Verdict::Wrong);
    }
    assert_ne!(
        hasher.hash(secret("correct horse")).await.unwrap(),
        kept,
        "each has its own salt"
    );
    assert!(!format!("{hasher:?}").contains("$argon2"));
}

#[tokio::test]
async fn hashes_of_others_are_read() {
    // argon2-cffi: PasswordHasher(time_cost=2, memory_cost=65536, parallelism=1, hash_len=24).hash("password"), the vector of the reference.
    let kept = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert_eq!(
        cheap().verify(secret("password"), Some(kept)).await.unwrap(),
        RIGHT
    );
    assert_eq!(
        cheap().verify(secret("passwore"), Some(kept)).await.unwrap(),
        Verdict::Wrong
    );
}

#[tokio::test]
async fn a_weaker_hash_is_renewed_at_the_login() {
    let (weak, strong) = (
        cheap(),
        hasher(
            HashCost {
                memory_kib: 32,
                passes: 2,
                lanes: 1,
            },
            2,
            8,
        ),
    );
    let kept = weak.hash(secret("correct horse")).await.unwrap();
    assert_eq!(
        strong.verify(secret("wrong"), Some(&kept)).await.unwrap(),
        Verdict::Wrong
    );
    let Verdict::Right {
        renewed: Some(renewed),
    } = strong.verify(secret("correct horse"), Some(&kept)).await.unwrap()
    else {
        panic!("a weak hash was left as it is");
    };
    assert!(renewed.contains("$m=32,t=2,p=1$"), "{renewed}");
    assert_eq!(
        strong
            .verify(secret("correct horse"), Some(&renewed))
            .await
            .unwrap(),
        RIGHT
    );
    // A stronger one stays.
    assert_eq!(
        weak.verify(secret("correct horse"), Some(&renewed))
            .await
            .unwrap(),
        RIGHT
    );
}

#[tokio::test]
async fn what_is_no_hash_is_an_error_and_never_right() {
    let argon2i = "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA";
    for kept in [
        "",
        "plain",
        "$argon2id$",
        "$argon2id$v=19$m=16,t=1,p=1$c29tZXNhbHQ",
        "$6$salt$hash",
        argon2i,
    ] {
        for password in ["", "plain", kept] {
            let error = cheap().verify(secret(password), Some(kept)).await.unwrap_err();
            assert!(matches!(error, PasswordError::Damaged(_)), "{kept}: {error}");
        }
    }
}

#[test]
fn costs_that_make_no_sense_are_refused() {
    for cost in [
        HashCost {
            memory_kib: 7,
            ..CHEAP
        },
        HashCost { passes: 0, ..CHEAP },
        HashCost { lanes: 0, ..CHEAP },
        HashCost { lanes: 100, ..CHEAP },
    ] {
        let error = Hasher::new(
            &HasherConfig {
                cost,
                ..HasherConfig::default()
            },
            ids(),
        )
        .unwrap_err();
        assert!(matches!(error, PasswordError::Config(_)), "{error}");
    }
    Hasher::new(
        &HasherConfig {
            at_once: 0,
            ..HasherConfig::default()
        },
        ids(),
    )
    .unwrap_err();
}

/// A runtime whose only blocking thread is held until the sender is dropped: a hash can begin only then.
fn with_held_thread<T>(test: impl AsyncFnOnce(mpsc::Sender<()>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (hold, held) = mpsc::channel::<()>();
        let thread = tokio::task::spawn_blocking(move || held.recv());
        let found = test(hold).await;
        thread.await.unwrap().unwrap_err();
        found
    })
}

#[test]
fn no_hash_is_computed_over_a_password_of_a_megabyte() {
    with_held_thread(async |hold| {
        // No hash can be made as long as the thread is held, so these answers come without one.
        let (hasher, long) = (cheap(), "x".repeat(1 << 20));
        let rules = PasswordRules::default();
        let change = PasswordChange {
            name: "anna",
            former: &[],
            own_since: None,
        };
        let now = ManualClock::new().now();
        for error in [
            hasher.verify(secret(&long), None).await.unwrap_err(),
            hasher
                .verify(secret(&long), Some("$argon2id$"))
                .await
                .unwrap_err(),
            hasher
                .verify(secret(&"x".repeat(MAX_PASSWORD + 1)), None)
                .await
                .unwrap_err(),
            hasher.hash(secret(&long)).await.unwrap_err(),
            rules
                .change(&hasher, &change, secret(&long), now)
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(error, PasswordError::TooLong(_)), "{error}");
            assert!(!error.to_string().contains("xx"), "{error}");
        }
        drop(hold);
        hasher.hash(secret(&"x".repeat(MAX_PASSWORD))).await.unwrap();
    });
}

#[test]
fn what_would_wait_too_long_is_told_to_come_back() {
    with_held_thread(async |hold| {
        let hasher = hasher(CHEAP, 1, 2);
        let verify = || hasher.verify(secret("x"), None);
        let fourth = async {
            let error = verify().await.unwrap_err();
            assert!(
                matches!(error, PasswordError::Busy { retry_after } if !retry_after.is_zero()),
                "{error}"
            );
            assert!(error.reason().retryable);
            drop(hold);
        };
        // In this order: one at work, two waiting, one too many.
        let (a, b, c, ()) = tokio::join!(biased; verify(), verify(), verify(), fourth);
        for verdict in [a, b, c] {
            assert_eq!(verdict.unwrap(), Verdict::Wrong);
        }
        assert_eq!(
            verify().await.unwrap(),
            Verdict::Wrong,
            "the places are free again"
        );
    });
}

#[test]
fn work_that_nobody_waits_for_holds_its_place_until_it_ends() {
    with_held_thread(async |hold| {
        let hasher = hasher(CHEAP, 1, 0);
        let mut left = Box::pin(hasher.verify(secret("x"), None));
        assert!(futures::poll!(&mut left).is_pending());
        drop(left);
        let error = hasher.verify(secret("x"), None).await.unwrap_err();
        assert!(matches!(error, PasswordError::Busy { .. }), "{error}");
        drop(hold);
    });
}

fn rules() -> PasswordRules {
    PasswordRules {
        min_length: 8,
        history: 3,
        min_age_seconds: 60,
        refused: ["password1".to_owned(), "iloveyou".to_owned()].into(),
    }
}

#[tokio::test]
async fn a_new_password_keeps_the_rules() {
    let (rules, hasher, clock) = (rules(), cheap(), ManualClock::new());
    let change = PasswordChange {
        name: "Anna-Maria",
        former: &[],
        own_since: None,
    };
    let broken = async |new: &str| match rules.change(&hasher, &change, secret(new), clock.now()).await {
        Err(PasswordError::Rules(broken)) => broken,
        other => panic!("{other:?}"),
    };
    assert_eq!(broken("short").await, [BrokenRule::TooShort { min: 8 }]);
    assert_eq!(
        broken("äöüäöüä").await,
        [BrokenRule::TooShort { min: 8 }],
        "characters, not bytes"
    );
    assert_eq!(broken("anna-maria").await, [BrokenRule::IsName]);
    assert_eq!(broken("PassWord1").await, [BrokenRule::Usual]);
    let text = PasswordError::Rules(broken("").await).to_string();
    assert!(text.contains("fewer than 8 characters"), "{text}");
    let kept = rules
        .change(&hasher, &change, secret("correct horse"), clock.now())
        .await
        .unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        hasher
            .verify(secret("correct horse"), Some(&kept[0]))
            .await
            .unwrap(),
        RIGHT
    );
}

#[tokio::test]
async fn former_passwords_and_too_quick_changes_are_refused_to_the_user_itself() {
    let (rules, hasher, clock) = (rules(), cheap(), ManualClock::new());
    let mut former: Vec<String> = Vec::new();
    let mut since = clock.now();
    let names = ["password-a", "password-b", "password-c", "password-d"];
    for name in names {
        clock.advance(Duration::from_secs(60));
        let change = PasswordChange {
            name: "anna",
            former: &former,
            own_since: Some(since),
        };
        former = rules
            .change(&hasher, &change, secret(name), clock.now())
            .await
            .unwrap();
        since = clock.now();
    }
    assert_eq!(former.len(), 3, "the oldest is forgotten");

    clock.advance(Duration::from_secs(59));
    let own = PasswordChange {
        name: "anna",
        former: &former,
        own_since: Some(since),
    };
    let error = rules
        .change(&hasher, &own, secret("password-e"), clock.now())
        .await
        .unwrap_err();
    let PasswordError::Rules(broken) = error else {
        panic!("{error}")
    };
    assert_eq!(
        broken,
        [BrokenRule::TooSoon {
            wait: Duration::from_secs(1)
        }]
    );

    clock.advance(Duration::from_secs(1));
    for used in &names[1..] {
        let error = rules
            .change(&hasher, &own, secret(used), clock.now())
            .await
            .unwrap_err();
        let PasswordError::Rules(broken) = error else {
            panic!("{error}")
        };
        assert_eq!(broken, [BrokenRule::UsedBefore { last: 3 }]);
    }
    rules
        .change(&hasher, &own, secret(names[0]), clock.now())
        .await
        .unwrap();

    // An administrator sets what is needed, at once.
    let by_other = PasswordChange {
        own_since: None,
        ..own
    };
    rules
        .change(&hasher, &by_other, secret(names[3]), since)
        .await
        .unwrap();
}
