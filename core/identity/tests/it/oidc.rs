//! Logging in on a provider's word: what is asked of its tokens, and the users that come of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use serde_json::{Value, json};
use skyloom_identity::{
    AuthError, ChangeError, DEFAULT_DOMAIN, External, Oidc, OidcConfig, ProviderKeys, Why,
};
use skyloom_model::{Clock as _, ManualClock};

use crate::world::World;

const ISSUER: &str = "https://login.example/realms/one";
const CLIENT: &str = "skyloom";
const NONCE: &str = "a random text";

/// A provider with keys by id.
#[derive(Default)]
struct Provider {
    keys: Mutex<Vec<(String, Vec<u8>)>>,
    others: Mutex<Vec<Value>>,
    asked: AtomicUsize,
    away: Mutex<bool>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Provider")
    }
}

impl Provider {
    fn add_key(&self, kid: &str) {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        self.keys.lock().push((kid.to_owned(), pkcs8.as_ref().to_vec()));
    }

    fn sign(&self, kid: &str, header: &Value, claims: &Value) -> String {
        let keys = self.keys.lock();
        let der = &keys.iter().find(|(id, _)| id == kid).unwrap().1;
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_ec_der(der);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }
}

#[async_trait]
impl ProviderKeys for Provider {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if *self.away.lock() {
            return Err("nobody answers".to_owned());
        }
        let keys = self.keys.lock().clone();
        let own = keys.iter().map(|(kid, der)| {
            let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(der), Algorithm::ES256).unwrap();
            jwk.common.key_id = Some(kid.clone());
            serde_json::to_value(jwk).unwrap()
        });
        let all: Vec<Value> = own.chain(self.others.lock().iter().cloned()).collect();
        Ok(json!({ "keys": all }).to_string().into_bytes())
    }
}

struct Scene {
    clock: ManualClock,
    provider: Arc<Provider>,
    oidc: Oidc,
}

impl Scene {
    fn new() -> Self {
        let clock = ManualClock::new();
        let provider = Arc::new(Provider::default());
        provider.add_key("one");
        let config = OidcConfig::new(ISSUER, CLIENT, DEFAULT_DOMAIN);
        let oidc = Oidc::new(config, provider.clone(), Arc::new(clock.clone()));
        Self {
            clock,
            provider,
            oidc,
        }
    }

    fn claims(&self) -> Value {
        let now = self.clock.now().as_second();
        json!({"iss": ISSUER, "sub": "42", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": NONCE,
            "preferred_username": "ada", "email": "ada@login.example", "email_verified": true,
            "groups": ["developers", "unknown"]})
    }

    fn token_with(&self, changes: Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.provider.sign(
            "one",
            &json!({"alg": "ES256", "kid": "one", "typ": "JWT"}),
            &claims,
        )
    }

    async fn why(&self, token: &str) -> Why {
        match self.oidc.verify(token, NONCE).await {
            Err(AuthError::Denied(denied)) => denied.why(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_right_token_tells_who_it_is() {
    let scene = Scene::new();
    let token = scene.token_with(json!({}));
    let external = scene.oidc.verify(&token, NONCE).await.unwrap();
    assert_eq!(
        (
            external.subject.as_str(),
            external.name.as_str(),
            external.email.as_deref()
        ),
        ("42", "ada", Some("ada@login.example"))
    );
    assert!(external.groups.is_empty(), "no group of the provider is one here");
    let again = scene.oidc.verify(&token, NONCE).await.unwrap();
    assert_eq!(again, external);
    assert_eq!(scene.provider.asked.load(Ordering::Relaxed), 1);
    let unverified = scene.token_with(json!({"email_verified": false}));
    assert_eq!(scene.oidc.verify(&unverified, NONCE).await.unwrap().email, None);
}

#[tokio::test]
async fn the_same_subject_of_another_provider_is_somebody_else() {
    let scene = Scene::new();
    let one = scene
        .oidc
        .verify(&scene.token_with(json!({})), NONCE)
        .await
        .unwrap();
    let other = External {
        issuer: "https://login.example/realms/on".to_owned(),
        subject: "e42".to_owned(),
        ..one.clone()
    };
    assert_ne!(one.user_id(), other.user_id());
    let renamed = External {
        name: "countess".to_owned(),
        ..one.clone()
    };
    assert_eq!(one.user_id(), renamed.user_id());
}

#[tokio::test]
async fn tokens_for_others_of_others_or_of_other_times_are_refused() {
    let scene = Scene::new();
    let now = scene.clock.now().as_second();
    for (changes, why) in [
        (json!({"iss": "https://login.example/realms/one/"}), Why::Issuer),
        (json!({"aud": "other"}), Why::Audience),
        (json!({"aud": []}), Why::Audience),
        (json!({"aud": [CLIENT, "other"]}), Why::Audience),
        (json!({"aud": [CLIENT, "other"], "azp": "other"}), Why::Audience),
        (json!({"azp": "other"}), Why::Audience),
        (json!({"nonce": "another"}), Why::Audience),
        (json!({"nonce": null}), Why::Audience),
        (json!({"exp": now - 61}), Why::Expired),
        (json!({"iat": now - 700, "exp": now + 3600}), Why::Expired),
        (json!({"iat": now + 61}), Why::NotYet),
        (json!({"nbf": now + 61}), Why::NotYet),
        (json!({"sub": ""}), Why::Malformed),
        (json!({"sub": "x".repeat(256)}), Why::Malformed),
        (json!({"exp": 1e300}), Why::Malformed),
        (json!({"exp": "soon"}), Why::Malformed),
    ] {
        assert_eq!(
            scene.why(&scene.token_with(changes.clone())).await,
            why,
            "{changes}"
        );
    }
    let many = scene.token_with(json!({"aud": [CLIENT, "other"], "azp": CLIENT}));
    assert!(scene.oidc.verify(&many, NONCE).await.is_ok());
    assert!(matches!(
        scene.oidc.verify(&many, "").await,
        Err(AuthError::Denied(_))
    ));
}

#[tokio::test]
async fn the_key_says_which_algorithm() {
    let scene = Scene::new();
    let claims = scene.claims();
    for header in [
        json!({"alg": "none", "kid": "one"}),
        json!({"alg": "HS256", "kid": "one"}),
        json!({"alg": "RS256", "kid": "one"}),
        json!({"alg": "es256", "kid": "one"}),
        json!({"alg": "ES256", "kid": "one", "crit": ["x"]}),
        json!({"alg": "ES256"}),
    ] {
        let token = scene.provider.sign("one", &header, &claims);
        assert_eq!(scene.why(&token).await, Why::Header, "{header}");
    }
    // Not signed at all, signed by another key, changed after signing.
    let good = scene.token_with(json!({}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(scene.why(&format!("{message}.")).await, Why::Signature);
    scene.provider.add_key("two");
    let other = scene
        .provider
        .sign("two", &json!({"alg": "ES256", "kid": "one"}), &claims);
    assert_eq!(scene.why(&other).await, Why::Signature);
    let (header, _) = message.split_once('.').unwrap();
    let mut changed = claims.clone();
    changed["sub"] = json!("1");
    let changed = URL_SAFE_NO_PAD.encode(changed.to_string());
    assert_eq!(
        scene.why(&format!("{header}.{changed}.{signature}")).await,
        Why::Signature
    );
    for bad in ["", ".", "..", "a.b", &"x".repeat(20_000)] {
        assert!(
            matches!(scene.oidc.verify(bad, NONCE).await, Err(AuthError::Denied(_))),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn new_keys_are_found_and_made_up_ones_are_not_asked_for_each_time() {
    let scene = Scene::new();
    let asked = || scene.provider.asked.load(Ordering::Relaxed);
    assert!(
        scene
            .oidc
            .verify(&scene.token_with(json!({})), NONCE)
            .await
            .is_ok()
    );
    scene.provider.add_key("two");
    let token = |kid: &str| {
        let key = if kid == "two" { "two" } else { "one" };
        scene
            .provider
            .sign(key, &json!({"alg": "ES256", "kid": kid}), &scene.claims())
    };
    for n in 0..20 {
        assert_eq!(scene.why(&token(&format!("made up {n}"))).await, Why::UnknownKey);
    }
    assert_eq!(asked(), 1, "not within half a minute of the last time");
    scene.clock.advance(Duration::from_secs(31));
    assert!(scene.oidc.verify(&token("two"), NONCE).await.is_ok());
    assert_eq!(asked(), 2);
    // A key that is withdrawn counts no longer than an hour.
    let keep = scene.provider.keys.lock().split_off(1);
    let first = std::mem::replace(&mut *scene.provider.keys.lock(), keep);
    scene.clock.advance(Duration::from_secs(3601));
    let claims = scene.claims();
    scene.provider.keys.lock().extend(first);
    let old = scene
        .provider
        .sign("one", &json!({"alg": "ES256", "kid": "one"}), &claims);
    scene.provider.keys.lock().truncate(1);
    assert_eq!(scene.why(&old).await, Why::UnknownKey);
}

#[tokio::test]
async fn a_provider_that_is_away_is_no_denial() {
    let scene = Scene::new();
    *scene.provider.away.lock() = true;
    let answer = scene.oidc.verify(&scene.token_with(json!({})), NONCE).await;
    assert!(matches!(answer, Err(AuthError::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn shared_secrets_in_a_key_set_are_no_keys() {
    let scene = Scene::new();
    let secret =
        json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("secret"), "kid": "shared", "alg": "HS256"});
    scene.provider.others.lock().push(secret);
    let key = EncodingKey::from_secret(b"secret");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "kid": "shared"})),
        part(&scene.claims())
    );
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    assert_eq!(
        scene.why(&format!("{message}.{signature}")).await,
        Why::UnknownKey
    );
}

#[tokio::test]
async fn a_user_is_made_once_and_a_token_counts_once() {
    let world = World::bootstrapped().await;
    let scene = Scene::new();
    let group = world
        .editor
        .change(|e| e.create_group(DEFAULT_DOMAIN, "developers", |_| {}))
        .await
        .unwrap();
    let own = world
        .editor
        .change(|e| e.create_group(DEFAULT_DOMAIN, "own", |_| {}))
        .await
        .unwrap();
    let mut config = OidcConfig::new(ISSUER, CLIENT, DEFAULT_DOMAIN);
    config.groups.insert("developers".to_owned(), group.id);
    let oidc = Oidc::new(
        config.clone(),
        scene.provider.clone(),
        Arc::new(scene.clock.clone()),
    );
    let told = async |changes| oidc.verify(&scene.token_with(changes), NONCE).await.unwrap();

    // The name is somebody's here already, who keeps it.
    world
        .editor
        .change(|e| e.create_user(DEFAULT_DOMAIN, "ada", |_| {}))
        .await
        .unwrap();
    let first = told(json!({})).await;
    let user = world
        .editor
        .change(|e| e.external_user(&first, &config))
        .await
        .unwrap();
    assert_eq!(user.id, first.user_id());
    assert!(user.name.starts_with("ada#"), "{}", user.name);
    assert!(world.snapshot().member(group.id, user.id).is_some());
    let again = world.editor.change(|e| e.external_user(&first, &config)).await;
    assert!(matches!(again, Err(ChangeError::Conflict(_))), "{again:?}");

    // The provider takes the group away; a group that it does not name stays.
    world
        .editor
        .change(|e| e.add_member(own.id, user.id))
        .await
        .unwrap();
    let second = told(json!({"groups": [], "iat": scene.clock.now().as_second() - 1})).await;
    let same = world
        .editor
        .change(|e| e.external_user(&second, &config))
        .await
        .unwrap();
    assert_eq!(same.id, user.id);
    assert!(world.snapshot().member(group.id, user.id).is_none());
    assert!(world.snapshot().member(own.id, user.id).is_some());
}
