//! Signing keys come and go without a token that is lost on the way.

use skyloom_identity::{RingPlan, RingPolicy};

use super::*;

const POLICY: RingPolicy = RingPolicy {
    signs_for: Duration::from_secs(86_400),
    announce: Duration::from_secs(300),
    token_life: Duration::from_secs(3600),
};

/// Does what the plan says.
fn carry_out(cloud: &Cloud, records: &mut Vec<SigningKeyRecord>, plan: RingPlan) {
    if let Some(from) = plan.create {
        records.push(
            wait(SigningKeyRecord::generate(
                &cloud.vault,
                &*cloud.ids,
                cloud.clock.now(),
                from,
            ))
            .unwrap(),
        );
    }
    for update in plan.update {
        let record = records
            .iter_mut()
            .find(|record| record.kid == update.kid)
            .unwrap();
        *record = update;
    }
    records.retain(|record| !plan.delete.contains(&record.kid));
}

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

#[test]
fn no_token_is_lost_while_keys_rotate() {
    let cloud = Cloud::new();
    let mut records = Vec::new();
    let mut given: Vec<(String, i64)> = Vec::new();
    let mut kids = BTreeSet::new();
    let mut lagging: Option<KeyRing> = None;
    // Eight days in steps of four minutes: a process may lag one step behind.
    for step in 0..8 * 360 {
        let now = cloud.clock.now();
        let plan = POLICY.plan(&records, now);
        carry_out(&cloud, &mut records, plan);
        assert_eq!(
            POLICY.plan(&records, now),
            RingPlan::default(),
            "a second time there is nothing to do"
        );
        assert!((1..=3).contains(&records.len()), "{}", records.len());

        let issued = signer(&cloud.vault, &records)
            .issue(&cloud.request(), now, &*cloud.ids)
            .unwrap();
        kids.insert(kid(issued.token.expose()));
        if let Some(ring) = lagging {
            let behind = TokenVerifier::new(VerifierConfig::new(ISSUER), ring);
            behind
                .verify(issued.token.expose(), now, &cloud.now)
                .expect("a process that lags behind knows the key");
        }
        given.push((issued.token.expose().clone(), issued.claims.exp));
        given.retain(|(_, exp)| *exp > now.as_second());
        cloud.verifier.replace_ring(KeyRing::new(&records).unwrap());
        for (token, _) in &given {
            assert!(cloud.verify(token).is_ok(), "step {step}");
        }
        lagging = Some(KeyRing::new(&records).unwrap());
        cloud.clock.advance(Duration::from_secs(240));
    }
    assert_eq!(kids.len(), 8, "a key a day");
}

#[test]
fn a_key_is_known_before_it_signs_and_after_it_signed() {
    let cloud = Cloud::new();
    let start = cloud.clock.now();
    let mut records = Vec::new();
    let plan = POLICY.plan(&records, start);
    assert_eq!(plan.create, Some(start), "the first signs at once");
    carry_out(&cloud, &mut records, plan);
    let first = records[0].kid.clone();

    cloud
        .clock
        .advance(POLICY.signs_for - POLICY.announce - Duration::from_secs(1));
    assert_eq!(POLICY.plan(&records, cloud.clock.now()), RingPlan::default());
    cloud.clock.advance(Duration::from_secs(1));
    let plan = POLICY.plan(&records, cloud.clock.now());
    assert_eq!(plan.create.unwrap().duration_since(start).as_secs(), 86_400);
    carry_out(&cloud, &mut records, plan);
    let second = records[1].kid.clone();
    let signs = |records: &[SigningKeyRecord]| {
        let issued = signer(&cloud.vault, records)
            .issue(&cloud.request(), cloud.clock.now(), &*cloud.ids)
            .unwrap();
        kid(issued.token.expose())
    };
    assert_eq!(signs(&records), first);
    assert!(records.iter().all(|record| record.retired_at.is_none()));

    cloud.clock.advance(POLICY.announce);
    assert_eq!(signs(&records), second, "without a word from anybody");
    let plan = POLICY.plan(&records, cloud.clock.now());
    carry_out(&cloud, &mut records, plan);
    let retired = records.iter().find(|record| record.kid == first).unwrap();
    assert_eq!(retired.retired_at, Some(cloud.clock.now()));
    assert_eq!(signs(&records), second);

    cloud
        .clock
        .advance(POLICY.token_life + POLICY.announce - Duration::from_secs(1));
    assert_eq!(POLICY.plan(&records, cloud.clock.now()), RingPlan::default());
    cloud.clock.advance(Duration::from_secs(1));
    let plan = POLICY.plan(&records, cloud.clock.now());
    assert_eq!(
        plan,
        RingPlan {
            delete: vec![first],
            ..RingPlan::default()
        }
    );
}

#[test]
fn a_key_that_was_taken_away_takes_its_tokens_with_it() {
    let cloud = Cloud::new();
    let (token, _) = cloud.token();
    cloud.verify(&token).unwrap();
    cloud.verifier.replace_ring(KeyRing::default());
    assert_eq!(
        cloud.verify(&token),
        Err(Why::UnknownKey),
        "its signature is remembered, and that does not help it"
    );
    cloud
        .verifier
        .replace_ring(KeyRing::new(std::slice::from_ref(&cloud.record)).unwrap());
    cloud.verify(&token).unwrap();

    // Another key under the same id.
    let ids = SeededIds::new(ManualClock::new(), 5);
    let now = cloud.clock.now();
    let other = wait(SigningKeyRecord::generate(&cloud.vault, &ids, now, now)).unwrap();
    let swapped = SigningKeyRecord {
        public: other.public,
        ..cloud.record.clone()
    };
    cloud
        .verifier
        .replace_ring(KeyRing::new(std::slice::from_ref(&swapped)).unwrap());
    assert_eq!(cloud.verify(&token), Err(Why::UnknownKey));
    let error = wait(TokenSigner::open(
        SignerConfig::new(ISSUER),
        &[swapped],
        &cloud.vault,
    ))
    .unwrap_err();
    assert!(matches!(error, TokenError::DamagedKey { .. }), "{error}");
}

#[test]
fn a_retired_key_verifies_until_its_end_and_gives_no_longer_tokens() {
    let cloud = Cloud::new();
    let until = Timestamp::from_second(cloud.clock.now().as_second() + 100).unwrap();
    let retired = SigningKeyRecord {
        verify_until: Some(until),
        ..cloud.record.clone()
    };
    let records = std::slice::from_ref(&retired);
    let (token, _) = cloud.token();
    cloud.verifier.replace_ring(KeyRing::new(records).unwrap());
    cloud.verify(&token).unwrap();
    let last = signer(&cloud.vault, records)
        .issue(&cloud.request(), cloud.clock.now(), &*cloud.ids)
        .unwrap();
    assert_eq!(last.claims.until(), until);
    cloud.clock.advance(Duration::from_secs(100));
    assert_eq!(cloud.verify(&token), Err(Why::UnknownKey));
}

#[test]
fn without_a_key_there_is_no_token() {
    let cloud = Cloud::new();
    let error = signer(&cloud.vault, &[])
        .issue(&cloud.request(), cloud.clock.now(), &*cloud.ids)
        .unwrap_err();
    assert!(
        matches!(error, TokenError::NoKey) && error.reason().retryable,
        "{error}"
    );
}

#[test]
fn a_record_holds_its_private_half_sealed_only() {
    let cloud = Cloud::new();
    let place = SigningKeyRecord::place(&cloud.record.kid).unwrap();
    let seed = wait(cloud.vault.open(&place, &cloud.record.private)).unwrap();
    let text =
        serde_json::to_string(&cloud.record).unwrap() + &format!("{:?} {:?}", cloud.record, cloud.signer);
    assert!(!text.contains(&URL_SAFE_NO_PAD.encode(seed.expose())), "{text}");
    let back: SigningKeyRecord =
        serde_json::from_value(serde_json::to_value(&cloud.record).unwrap()).unwrap();
    assert_eq!(back, cloud.record);
}
