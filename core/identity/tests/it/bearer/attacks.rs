//! Tokens that were not given by us, or not like this, or not for now.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use proptest::prelude::*;

use super::*;

fn claims(cloud: &Cloud) -> Value {
    serde_json::to_value(cloud.token().1).unwrap()
}

#[test]
fn a_forged_token_that_says_the_right_things_would_pass() {
    // Else the other tests of this file would show nothing.
    let cloud = Cloud::new();
    cloud
        .verify(&cloud.forged(&cloud.header(), &claims(&cloud)))
        .unwrap();
}

#[test]
fn no_other_algorithm_type_or_header_is_taken() {
    let cloud = Cloud::new();
    let claims = claims(&cloud);
    let changes = [
        ("alg", json!("none")),
        ("alg", json!("None")),
        ("alg", json!("")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("alg", json!("eddsa")),
        ("alg", json!(["EdDSA"])),
        ("alg", Value::Null),
        ("typ", json!("JWT")),
        ("typ", Value::Null),
        ("kid", Value::Null),
        ("jku", json!("https://evil.example/keys")),
        (
            "jwk",
            json!({"kty": "OKP", "crv": "Ed25519", "x": cloud.record.public}),
        ),
        ("x5u", json!("file:///etc/passwd")),
        ("crit", json!(["exp"])),
        ("zip", json!("DEF")),
        ("b64", json!(false)),
    ];
    for (name, value) in changes {
        let mut header = cloud.header();
        header[name] = value;
        assert_eq!(
            cloud.verify(&cloud.forged(&header, &claims)),
            Err(Why::Header),
            "{header}"
        );
    }
    let twice = format!(
        r#"{{"typ":"sky+jwt","alg":"none","alg":"EdDSA","kid":"{}"}}"#,
        cloud.record.kid
    );
    let (token, _) = cloud.token();
    let rest = token.split_once('.').unwrap().1;
    assert_eq!(
        cloud.verify(&format!("{}.{rest}", URL_SAFE_NO_PAD.encode(twice))),
        Err(Why::Header)
    );
}

#[test]
fn no_signature_and_one_by_the_public_key_are_refused() {
    let cloud = Cloud::new();
    let claims = claims(&cloud);
    let public = URL_SAFE_NO_PAD.decode(&cloud.record.public).unwrap();
    for alg in ["none", "HS256", "EdDSA"] {
        let mut header = cloud.header();
        header["alg"] = json!(alg);
        let message = message(&header, &claims);
        for secret in [public.as_slice(), cloud.record.public.as_bytes(), b""] {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            for signature in [
                "".to_owned(),
                URL_SAFE_NO_PAD.encode(tag),
                URL_SAFE_NO_PAD.encode([0; 64]),
            ] {
                let why = cloud.verify(&format!("{message}.{signature}")).unwrap_err();
                assert!(matches!(why, Why::Header | Why::Signature), "{why:?}");
            }
        }
        cloud.verify(&message).unwrap_err();
    }
}

#[test]
fn a_key_id_is_looked_up_in_the_ring_and_nowhere_else() {
    let cloud = Cloud::new();
    let claims = claims(&cloud);
    let long = "k".repeat(1000);
    let kids = [
        "",
        "unknown",
        "../../dev/null",
        "/dev/null",
        "file:///dev/null",
        "' OR 1=1 --",
        "\u{0}",
        &long,
        "identity/keys/k",
    ];
    for kid in kids {
        let mut header = cloud.header();
        header["kid"] = json!(kid);
        let why = cloud.verify(&cloud.forged(&header, &claims)).unwrap_err();
        assert!(matches!(why, Why::UnknownKey | Why::Header), "{kid}: {why:?}");
        let record = SigningKeyRecord {
            kid: kid.into(),
            ..cloud.record.clone()
        };
        let plain = kid == "unknown";
        assert_eq!(KeyRing::new(&[record]).is_ok(), plain, "{kid}");
    }
    // Another cloud's key under our id, and ours under another's.
    let other = Cloud::new();
    let theirs = other.vault.clone();
    let ids = SeededIds::new(ManualClock::new(), 99);
    let now = cloud.clock.now();
    let mut record = wait(SigningKeyRecord::generate(&theirs, &ids, now, now)).unwrap();
    let foreign = signer(&theirs, std::slice::from_ref(&record));
    let token = foreign.issue(&cloud.request(), now, &ids).unwrap().token;
    assert_eq!(cloud.verify(token.expose()), Err(Why::UnknownKey));
    record.kid = cloud.record.kid.clone();
    let error = wait(TokenSigner::open(SignerConfig::new(ISSUER), &[record], &theirs)).unwrap_err();
    assert!(
        matches!(error, TokenError::Vault(_)),
        "a sealed key moved to another record: {error}"
    );
}

#[test]
fn a_token_counts_from_its_begin_to_the_second_before_its_end() {
    let cloud = Cloud::new();
    let claims = claims(&cloud);
    let now = cloud.clock.now().as_second();
    let with = |name: &str, second: i64| {
        let mut claims = claims.clone();
        claims[name] = json!(second);
        cloud.verify(&cloud.forged(&cloud.header(), &claims)).map(|_| ())
    };
    assert_eq!(with("exp", now + 1), Ok(()));
    assert_eq!(with("exp", now), Err(Why::Expired));
    assert_eq!(with("exp", now - 1), Err(Why::Expired));
    assert_eq!(with("exp", i64::MIN), Err(Why::Expired));
    assert_eq!(with("nbf", now), Ok(()));
    assert_eq!(with("nbf", now + 5), Ok(()), "clocks differ a little");
    assert_eq!(with("nbf", now + 6), Err(Why::NotYet));
    assert_eq!(with("nbf", i64::MAX), Err(Why::NotYet));

    // Also when its signature is remembered.
    let (token, _) = cloud.token();
    cloud.clock.advance(Duration::from_millis(899_200));
    cloud.verify(&token).unwrap();
    cloud.clock.advance(Duration::from_millis(100));
    assert_eq!(cloud.verify(&token), Err(Why::Expired));
}

#[test]
fn a_token_of_another_issuer_is_refused() {
    let cloud = Cloud::new();
    let mut claims = claims(&cloud);
    for issuer in [
        json!("https://cloud.example/"),
        json!("https://evil.example"),
        json!(""),
    ] {
        claims["iss"] = issuer;
        assert_eq!(
            cloud.verify(&cloud.forged(&cloud.header(), &claims)),
            Err(Why::Issuer)
        );
    }
}

#[test]
fn claims_of_another_form_are_refused() {
    let cloud = Cloud::new();
    let claims = claims(&cloud);
    for name in claims.as_object().unwrap().keys() {
        for value in [Value::Null, json!({}), json!([1]), json!(1.5), json!("x")] {
            let mut claims = claims.clone();
            claims[name] = value;
            let why = cloud
                .verify(&cloud.forged(&cloud.header(), &claims))
                .map(|_| ())
                .unwrap_err();
            assert!(matches!(why, Why::Malformed | Why::Issuer), "{name}: {why:?}");
        }
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(
            cloud.verify(&cloud.forged(&cloud.header(), &claims)),
            Err(Why::Malformed),
            "without {name}"
        );
    }
    for text in [json!([]), json!("x"), json!(1), Value::Null] {
        assert_eq!(
            cloud.verify(&cloud.forged(&cloud.header(), &text)),
            Err(Why::Malformed)
        );
    }
}

#[test]
fn what_is_long_is_not_parsed() {
    let cloud = Cloud::new();
    let mut claims = claims(&cloud);
    claims["more"] = json!("x".repeat(4096));
    assert_eq!(
        cloud.verify(&cloud.forged(&cloud.header(), &claims)),
        Err(Why::TooLong)
    );
    assert_eq!(cloud.verify(&".".repeat(1 << 20)), Err(Why::TooLong));
    assert_ne!(cloud.verify(&".".repeat(4096)), Err(Why::TooLong));
    let methods = vec![Method::Password; 1000];
    let request = TokenRequest {
        methods,
        ..cloud.request()
    };
    let error = cloud
        .signer
        .issue(&request, cloud.clock.now(), &*cloud.ids)
        .unwrap_err();
    assert!(matches!(error, TokenError::TooLong(_)), "{error}");
}

#[test]
fn cut_tokens_and_other_texts_are_refused() {
    let cloud = Cloud::new();
    let (token, _) = cloud.token();
    for end in 0..token.len() {
        cloud.verify(&token[..end]).unwrap_err();
        cloud.verify(&token[token.len() - end..]).unwrap_err();
    }
    for text in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}A"),
    ] {
        cloud.verify(&text).unwrap_err();
    }
    cloud.verify(&token).unwrap();
}

#[test]
fn all_denials_look_alike() {
    let cloud = Cloud::new();
    let (token, _) = cloud.token();
    *cloud.now.epochs.lock() = None;
    let now = cloud.clock.now();
    let denials = [&token, "", "a.b.c", &".".repeat(5000)]
        .map(|t| cloud.verifier.verify(t, now, &cloud.now).unwrap_err());
    let whys: BTreeSet<String> = denials.iter().map(|d| d.why().to_string()).collect();
    assert!(whys.len() >= 3, "{whys:?}");
    let shown: BTreeSet<String> = denials.iter().map(|d| format!("{d} {}", d.reason())).collect();
    assert_eq!(shown.len(), 1, "{shown:?}");
}

/// One cloud and token for all cases: what is refused leaves nothing behind.
static SHARED: LazyLock<(Cloud, String)> = LazyLock::new(|| {
    let cloud = Cloud::new();
    let token = cloud.token().0;
    (cloud, token)
});

#[test]
fn each_flipped_bit_is_refused() {
    let (cloud, token) = &*SHARED;
    let mut tried = 0;
    for bit in 0..token.len() * 8 {
        let mut bytes = token.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(text) = String::from_utf8(bytes) {
            cloud.verify(&text).unwrap_err();
            tried += 1;
        }
    }
    assert!(tried > 1000, "{tried}");
    cloud.verify(token).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn changed_characters_are_refused(changes in proptest::collection::vec((0.0f64..1.0, "[A-Za-z0-9_.=+/-]"), 1..4)) {
        let (cloud, token) = &*SHARED;
        let mut text: Vec<char> = token.chars().collect();
        for (at, c) in changes {
            let at = (at * token.len() as f64) as usize;
            text[at] = c.chars().next().unwrap();
        }
        let text: String = text.into_iter().collect();
        prop_assume!(text != *token);
        prop_assert!(cloud.verify(&text).is_err());
    }

    #[test]
    fn no_text_makes_it_panic_or_pass(text in ".{0,200}") {
        prop_assert!(SHARED.0.verify(&text).is_err());
    }

    #[test]
    fn no_header_and_claims_make_it_panic(header in ".{0,80}", claims in ".{0,80}") {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let text = format!("{}.{}.{}", part(&header), part(&claims), part("x"));
        prop_assert!(SHARED.0.verify(&text).is_err());
    }
}
