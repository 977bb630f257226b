//! Secrets that are shown once.

use proptest::prelude::*;
use skyloom_identity::{NewSecret, SecretHash, Why, parse_secret};
use skyloom_model::{ManualClock, SeededIds};

fn new(seed: u64) -> NewSecret {
    NewSecret::generate(&SeededIds::new(ManualClock::new(), seed))
}

#[test]
fn a_secret_has_its_form_and_is_found_by_its_hash() {
    let new = new(3);
    let text = new.secret.expose();
    assert_eq!(text.len(), 53);
    assert!(text.starts_with("sky_") && text.starts_with(&new.hint));
    assert_eq!(new.hint.len(), 8);
    assert_eq!(parse_secret(text).unwrap(), new.hash);
    assert!(!format!("{new:?}").contains(&text[8..]), "{new:?}");
}

#[test]
fn secrets_of_before_are_found_as_they_are() {
    // `printf %s … | sha256sum`
    let old = "sky_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(old.len(), 47);
    assert_eq!(parse_secret(old).unwrap(), SecretHash::of(old));
    assert_eq!(
        parse_secret("abc").unwrap().as_str(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn typos_are_told_without_a_look_up() {
    let new = new(4);
    let text = new.secret.expose();
    for at in 4..text.len() {
        let other = if text.as_bytes()[at] == b'x' { 'y' } else { 'x' };
        let typo = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        assert_eq!(
            parse_secret(&typo).unwrap_err().why(),
            Why::MistypedSecret,
            "{typo}"
        );
    }
}

#[test]
fn what_no_secret_is_never_gets_to_a_look_up() {
    assert_eq!(parse_secret("").unwrap_err().why(), Why::Malformed);
    assert_eq!(parse_secret("sky_ a").unwrap_err().why(), Why::Malformed);
    assert_eq!(parse_secret("sky_\n").unwrap_err().why(), Why::Malformed);
    assert_eq!(parse_secret("sky_ä").unwrap_err().why(), Why::Malformed);
    assert_eq!(parse_secret(&"a".repeat(257)).unwrap_err().why(), Why::TooLong);
    assert_eq!(
        parse_secret(&"a".repeat(1 << 20)).unwrap_err().why(),
        Why::TooLong
    );
}

#[test]
fn all_denials_look_alike() {
    let (a, b) = (
        parse_secret("").unwrap_err(),
        parse_secret(&"a".repeat(300)).unwrap_err(),
    );
    assert_ne!(a, b);
    assert_eq!(a.to_string(), b.to_string());
    assert_eq!(a.reason(), b.reason());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}") {
        let _ = parse_secret(&text);
    }

    #[test]
    fn no_two_secrets_are_alike(a in 0u64..1_000_000, b in 0u64..1_000_000) {
        prop_assume!(a != b);
        prop_assert_ne!(new(a).hash, new(b).hash);
    }
}
