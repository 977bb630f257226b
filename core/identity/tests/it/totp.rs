//! One-time codes: the vectors of RFC 6238, and attack 9: what is not a fresh code of that user is refused.

use std::convert::Infallible;
use std::sync::Mutex;

use proptest::prelude::*;
use skyloom_identity::{
    Method, RecoveryCodes, Totp, TotpAlgorithm, TotpConfig, TotpError, TotpUse, Unrecorded, Why,
};
use skyloom_model::{ManualClock, Secret, SeededIds, Timestamp};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn totp(config: TotpConfig, secret: &[u8]) -> Totp {
    Totp::from_secret(config, Secret::new(secret.to_vec())).unwrap()
}

fn fresh(seed: u64) -> Totp {
    Totp::generate(TotpConfig::default(), &SeededIds::new(ManualClock::new(), seed)).unwrap()
}

/// Saves what is to be recorded.
async fn saved<T>(unrecorded: Unrecorded<T>) -> T {
    let mut record = None;
    let method = unrecorded
        .record(async |next| {
            record = Some(next);
            Ok::<(), Infallible>(())
        })
        .await
        .unwrap();
    assert_eq!(method, Method::Totp);
    record.unwrap()
}

#[test]
fn the_vectors_of_rfc_6238() {
    let twenty = b"12345678901234567890";
    let long = b"1234567890123456789012345678901234567890123456789012345678901234";
    let cases = [
        (59, "94287082", "46119246", "90693936"),
        (1_111_111_109, "07081804", "68084774", "25091201"),
        (1_111_111_111, "14050471", "67062674", "99943326"),
        (1_234_567_890, "89005924", "91819424", "93441116"),
        (2_000_000_000, "69279037", "90698825", "38618901"),
        (20_000_000_000, "65353130", "77737706", "47863826"),
    ];
    for (second, sha1, sha256, sha512) in cases {
        for (algorithm, secret, code) in [
            (TotpAlgorithm::Sha1, &twenty[..], sha1),
            (TotpAlgorithm::Sha256, &long[..32], sha256),
            (TotpAlgorithm::Sha512, &long[..], sha512),
        ] {
            let config = TotpConfig {
                algorithm,
                digits: 8,
                ..TotpConfig::default()
            };
            assert_eq!(
                totp(config, secret).code_at(at(second)),
                code,
                "{algorithm:?} at {second}"
            );
        }
    }
    // RFC 4226, appendix D: the codes of counters 0 and 9.
    let six = totp(TotpConfig::default(), twenty);
    assert_eq!(six.code_at(at(0)), "755224");
    assert_eq!(six.code_at(at(9 * 30)), "520489");
}

#[tokio::test]
async fn a_code_counts_once_and_so_do_those_before_it() {
    let totp = fresh(1);
    let (now, used) = (at(1_800_000_000), TotpUse::default());
    let code = totp.code_at(now);
    let used = saved(totp.verify(&code, now, &used).unwrap()).await;
    assert_eq!(totp.verify(&code, now, &used).unwrap_err().why(), Why::UsedCode);
    let before = totp.code_at(at(1_800_000_000 - 30));
    assert_eq!(totp.verify(&before, now, &used).unwrap_err().why(), Why::UsedCode);
    let next = totp.code_at(at(1_800_000_000 + 30));
    let used = saved(totp.verify(&next, now, &used).unwrap()).await;
    assert_eq!(totp.verify(&code, now, &used).unwrap_err().why(), Why::UsedCode);
    // The state survives its record.
    let used: TotpUse = serde_json::from_str(&serde_json::to_string(&used).unwrap()).unwrap();
    assert_eq!(totp.verify(&next, now, &used).unwrap_err().why(), Why::UsedCode);
}

#[tokio::test]
async fn what_could_not_be_saved_proves_nothing() {
    let totp = fresh(1);
    let now = at(1_800_000_000);
    let right = totp.verify(&totp.code_at(now), now, &TotpUse::default()).unwrap();
    let lost = right.record(async |_| Err("the other login was first")).await;
    assert_eq!(lost.unwrap_err(), "the other login was first");
}

#[test]
fn a_clock_may_be_one_step_off() {
    let totp = fresh(2);
    let (now, used) = (1_800_000_000, TotpUse::default());
    for off in [-30, 0, 30] {
        let right = totp.verify(&totp.code_at(at(now + off)), at(now), &used);
        assert!(right.is_ok(), "{off}");
    }
    for off in [-90, -60, 60, 90, 3600] {
        let denied = totp
            .verify(&totp.code_at(at(now + off)), at(now), &used)
            .unwrap_err();
        assert_eq!(denied.why(), Why::WrongCode, "{off}");
    }
    let strict = TotpConfig {
        skew: 0,
        ..TotpConfig::default()
    };
    let strict = Totp::from_secret(strict, totp.secret().clone()).unwrap();
    assert!(strict.verify(&strict.code_at(at(now)), at(now), &used).is_ok());
    strict
        .verify(&strict.code_at(at(now - 30)), at(now), &used)
        .unwrap_err();
}

#[test]
fn no_code_any_text_and_codes_of_others_are_refused() {
    let (mine, theirs) = (fresh(3), fresh(4));
    let (now, used) = (at(1_800_000_000), TotpUse::default());
    assert_eq!(mine.verify("", now, &used).unwrap_err().why(), Why::NoCode);
    let right = mine.code_at(now);
    let variants = [
        theirs.code_at(now),
        format!(" {right}"),
        format!("{right} "),
        format!("{right}0"),
        right[1..].to_owned(),
        format!("+{}", &right[1..]),
        "000000".to_owned(),
        "٠١٢٣٤٥".to_owned(),
        "null".to_owned(),
        "1".repeat(1 << 20),
    ];
    for text in variants {
        let denied = mine.verify(&text, now, &used).unwrap_err();
        assert_eq!(denied.why(), Why::WrongCode);
        assert_eq!(
            denied.to_string(),
            mine.verify("", now, &used).unwrap_err().to_string()
        );
    }
}

#[test]
fn enrolment_shows_what_authenticators_read() {
    let totp = totp(TotpConfig::default(), b"12345678901234567890");
    assert_eq!(
        totp.enrolment_uri("Sky & loom", "anna@example.org/x").expose(),
        "otpauth://totp/Sky%20%26%20loom:anna%40example.org%2Fx?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
         &issuer=Sky%20%26%20loom&algorithm=SHA1&digits=6&period=30"
    );
    let typed = Totp::from_base32(TotpConfig::default(), "gezd gnbv gy3t qojq gezd gnbv gy3t qojq").unwrap();
    assert_eq!(typed.base32().expose(), totp.base32().expose());
    assert!(!format!("{totp:?}").contains("49, 50"), "{totp:?}");
}

#[test]
fn what_makes_no_second_factor_is_refused() {
    for config in [
        TotpConfig {
            digits: 5,
            ..TotpConfig::default()
        },
        TotpConfig {
            digits: 9,
            ..TotpConfig::default()
        },
        TotpConfig {
            period: 0,
            ..TotpConfig::default()
        },
        TotpConfig {
            skew: 3,
            ..TotpConfig::default()
        },
    ] {
        let error = Totp::from_secret(config, Secret::new(vec![7; 20])).unwrap_err();
        assert!(matches!(error, TotpError::Config { .. }), "{error}");
    }
    let of = |bytes| Totp::from_secret(TotpConfig::default(), Secret::new(bytes)).unwrap_err();
    assert_eq!(of(vec![]), TotpError::Length(0));
    assert_eq!(of(vec![7; 129]), TotpError::Length(129));
    let text = Totp::from_base32(TotpConfig::default(), "not base32!").unwrap_err();
    assert_eq!(text, TotpError::Base32);
}

#[tokio::test]
async fn each_recovery_code_opens_once() {
    let ids = SeededIds::new(ManualClock::new(), 5);
    let (codes, shown) = RecoveryCodes::generate(10, &ids);
    let (theirs, _) = RecoveryCodes::generate(10, &ids);
    assert_eq!((codes.left(), shown.len()), (10, 10));
    let first = shown[0].expose();
    assert_eq!((first.len(), first.matches('-').count()), (19, 3), "{first}");
    let kept = serde_json::to_string(&codes).unwrap();
    assert!(
        shown
            .iter()
            .all(|code| !kept.contains(&code.expose().replace('-', "").to_uppercase()))
    );

    assert_eq!(theirs.verify(first).unwrap_err().why(), Why::WrongCode);
    for text in ["x", "aaaa-aaaa-aaaa-aaaa", &"a".repeat(1 << 20)] {
        assert_eq!(codes.verify(text).unwrap_err().why(), Why::WrongCode);
    }
    assert_eq!(codes.verify("").unwrap_err().why(), Why::NoCode);

    let left = saved(codes.verify(&first.to_uppercase().replace('-', " ")).unwrap()).await;
    assert_eq!(left.left(), 9);
    assert_eq!(left.verify(first).unwrap_err().why(), Why::WrongCode);
    let left = saved(left.verify(shown[9].expose()).unwrap()).await;
    assert_eq!(left.left(), 8);
    assert_eq!(
        RecoveryCodes::default().verify(first).unwrap_err().why(),
        Why::WrongCode
    );
}

#[tokio::test]
async fn of_two_logins_with_one_code_the_store_lets_one_through() {
    let totp = fresh(6);
    let now = at(1_800_000_000);
    let code = totp.code_at(now);
    // A record under a guard on its revision: who read the former one loses.
    let record = Mutex::new((0u32, TotpUse::default()));
    let save = |seen: u32, next: TotpUse| {
        let mut record = record.lock().unwrap();
        if record.0 != seen {
            return Err("conflict");
        }
        *record = (seen + 1, next);
        Ok(())
    };
    let (a, b) = {
        let read = record.lock().unwrap().clone();
        (
            totp.verify(&code, now, &read.1).unwrap(),
            totp.verify(&code, now, &read.1).unwrap(),
        )
    };
    assert_eq!(a.record(async |next| save(0, next)).await, Ok(Method::Totp));
    assert_eq!(b.record(async |next| save(0, next)).await, Err("conflict"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_pass(text in ".{0,12}", seed in 0u64..100) {
        let totp = fresh(seed);
        let now = at(1_800_000_000);
        let right: Vec<String> = [-30, 0, 30].iter().map(|o| totp.code_at(at(1_800_000_000 + o))).collect();
        let passed = totp.verify(&text, now, &TotpUse::default()).is_ok();
        prop_assert_eq!(passed, right.contains(&text));
    }
}
