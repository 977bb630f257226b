//! A join token lets one key in, once, as one host, for a day.

use std::time::Duration;

use proptest::prelude::*;
use skyloom_model::{Clock as _, HostId, Hostname, ManualClock, SeededIds};
use skyloom_pki::{Fingerprint, JoinRefused, JoinToken, JoinTokenRecord, Lifetimes, Redeemed};

const AGAIN: Duration = Duration::from_secs(600);

fn fixture() -> (ManualClock, JoinToken, Hostname) {
    let clock = ManualClock::new();
    let ids = SeededIds::new(clock.clone(), 7);
    let name = Hostname::new("node-1").unwrap();
    let host = HostId::fresh(&ids);
    let token = JoinToken::generate(host, name.clone(), &ids, clock.now(), &Lifetimes::default());
    (clock, token, name)
}

fn key(of: u8) -> Fingerprint {
    Fingerprint::of(&[of])
}

fn first(redeemed: Redeemed) -> JoinTokenRecord {
    match redeemed {
        Redeemed::First(next) => next,
        Redeemed::Again => panic!("it was not used yet"),
    }
}

#[test]
fn it_is_used_once() {
    let (clock, token, name) = fixture();
    let text = token.token.expose();
    let record = token.record;
    let next = first(record.redeem(text, &name, &key(1), clock.now(), AGAIN).unwrap());
    assert_eq!(record.used, None, "the record of before is as it was");
    assert_eq!(next.used.as_ref().unwrap().key, key(1));
    assert_eq!(next.host, record.host);
    // Two at once: both get a next record from the same one, and the guard of the store lets one of them be written. The other reads again:
    let other = next.redeem(text, &name, &key(2), clock.now(), AGAIN);
    assert_eq!(other, Err(JoinRefused::Used));
    assert_eq!(JoinRefused::Used.reason().code, "join.used");
}

#[test]
fn a_lost_answer_is_given_again_to_the_same_key_for_a_while() {
    let (clock, token, name) = fixture();
    let text = token.token.expose();
    let used = first(
        token
            .record
            .redeem(text, &name, &key(1), clock.now(), AGAIN)
            .unwrap(),
    );
    clock.advance(AGAIN - Duration::from_secs(1));
    assert_eq!(
        used.redeem(text, &name, &key(1), clock.now(), AGAIN),
        Ok(Redeemed::Again)
    );
    assert_eq!(
        used.redeem(text, &name, &key(2), clock.now(), AGAIN),
        Err(JoinRefused::Used)
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(
        used.redeem(text, &name, &key(1), clock.now(), AGAIN),
        Err(JoinRefused::Used)
    );
}

#[test]
fn it_is_for_one_host() {
    let (clock, token, _) = fixture();
    let text = token.token.expose();
    let other = Hostname::new("node-2").unwrap();
    let refused = token.record.redeem(text, &other, &key(1), clock.now(), AGAIN);
    assert_eq!(refused, Err(JoinRefused::OtherHost));
    let loud = Hostname::new("NODE-1").unwrap();
    assert!(
        token
            .record
            .redeem(text, &loud, &key(1), clock.now(), AGAIN)
            .is_ok()
    );
}

#[test]
fn it_expires() {
    let (clock, token, name) = fixture();
    let text = token.token.expose();
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert!(
        token
            .record
            .redeem(text, &name, &key(1), clock.now(), AGAIN)
            .is_ok()
    );
    clock.advance(Duration::from_secs(1));
    let late = token.record.redeem(text, &name, &key(1), clock.now(), AGAIN);
    assert_eq!(late, Err(JoinRefused::Expired));
}

#[test]
fn another_token_opens_nothing() {
    let (clock, token, name) = fixture();
    let ids = SeededIds::new(clock.clone(), 8);
    let other = JoinToken::generate(
        token.record.host,
        name.clone(),
        &ids,
        clock.now(),
        &Lifetimes::default(),
    );
    let refused = token
        .record
        .redeem(other.token.expose(), &name, &key(1), clock.now(), AGAIN);
    assert_eq!(refused, Err(JoinRefused::Unknown));
    let text = token.token.expose();
    for wrong in [
        "",
        "skyjoin_",
        &text[1..],
        &text[..text.len() - 1],
        &format!("{text}A"),
        &text.replace('_', "/"),
    ] {
        assert_eq!(JoinToken::hash(wrong), Err(JoinRefused::Unknown), "{wrong}");
    }
    assert_eq!(JoinToken::hash(text).unwrap(), token.record.hash);
}

#[test]
fn the_record_does_not_have_the_token() {
    let (_, token, _) = fixture();
    let json = serde_json::to_string(&token.record).unwrap();
    assert!(!json.contains(token.token.expose()) && !json.contains("skyjoin_"));
    assert_eq!(
        serde_json::from_str::<JoinTokenRecord>(&json).unwrap(),
        token.record
    );
    assert!(!format!("{token:?}").contains(token.token.expose()));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}") {
        let (clock, token, name) = fixture();
        prop_assert!(token.record.redeem(&text, &name, &key(1), clock.now(), AGAIN).is_err());
    }
}
