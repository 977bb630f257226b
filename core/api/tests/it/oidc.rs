//! Logging in on the word of an identity provider.

use std::sync::Arc;

use async_trait::async_trait;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value as Json, json};
use skyloom_identity::{DEFAULT_DOMAIN, OidcConfig, ProviderKeys};
use skyloom_model::Clock as _;

use crate::harness::{Api, Setup};

const ISSUER: &str = "https://login.example";

struct Provider(Vec<u8>);

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Provider")
    }
}

impl Provider {
    fn new() -> Self {
        Self(rcgen::KeyPair::generate().expect("a key").serialize_der())
    }

    fn key(&self) -> EncodingKey {
        EncodingKey::from_ec_der(&self.0)
    }

    fn token(&self, claims: &Json) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("one".to_owned());
        jsonwebtoken::encode(&header, claims, &self.key()).expect("a token")
    }
}

#[async_trait]
impl ProviderKeys for Provider {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        let mut jwk = Jwk::from_encoding_key(&self.key(), Algorithm::ES256).map_err(|e| e.to_string())?;
        jwk.common.key_id = Some("one".to_owned());
        Ok(json!({ "keys": [jwk] }).to_string().into_bytes())
    }
}

#[tokio::test]
async fn a_providers_word_is_a_login() {
    let provider = Arc::new(Provider::new());
    let keys: Arc<dyn ProviderKeys> = provider.clone();
    let api = Api::with(Setup {
        providers: vec![(OidcConfig::new(ISSUER, "skyloom", DEFAULT_DOMAIN), keys)],
        ..Setup::default()
    })
    .await;
    let now = api.clock.now().as_second();
    let claims = json!({"iss": ISSUER, "sub": "42", "aud": "skyloom", "iat": now, "exp": now + 60, "nonce": "n",
        "preferred_username": "ada"});
    let token = provider.token(&claims);
    let log_in = async |body: Json| api.call("POST", "/v1/auth/login", "").json(body).await;

    log_in(json!({"id_token": token}))
        .await
        .refused(422, "field.missing");
    log_in(json!({"id_token": token, "nonce": "n", "issuer": "https://other.example"}))
        .await
        .refused(422, "provider.not_found");
    log_in(json!({"id_token": token, "nonce": "m"}))
        .await
        .refused(401, "auth.denied");
    let session = log_in(json!({"id_token": token, "nonce": "n", "scope": "none"}))
        .await
        .ok(200);
    let bearer = session.json["token"].as_str().expect("a token").to_owned();
    let who = api.call("GET", "/v1/auth/whoami", &bearer).send().await.ok(200);
    assert_eq!(
        (&who.json["name"], &who.json["methods"]),
        (&json!("ada"), &json!(["external"]))
    );
    assert_eq!(who.json["roles"], json!([]));
    // Its word counts once.
    log_in(json!({"id_token": token, "nonce": "n"}))
        .await
        .refused(401, "auth.denied");
}

#[tokio::test]
async fn without_a_provider_there_is_nobody_to_believe() {
    let api = Api::new().await;
    let body = json!({"id_token": "a.b.c", "nonce": "n"});
    let answer = api.call("POST", "/v1/auth/login", "").json(body).await;
    answer.refused(422, "provider.not_found");
}
