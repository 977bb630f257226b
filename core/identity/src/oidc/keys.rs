//! A provider's public keys, asked for when they are needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use skyloom_model::Clock;

use super::ProviderKeys;

/// How long to wait at least between two requests for keys.
const PAUSE: Duration = Duration::from_secs(30);
/// How long keys count that have not been asked for again: a provider that withdraws a key is believed after that.
const KEEP: Duration = Duration::from_secs(3600);
/// Longest key set in bytes, most keys in it.
const LONGEST: usize = 256 << 10;
const MOST: usize = 64;

/// A key with the one algorithm that it is for.
#[derive(Clone)]
pub(super) struct ProviderKey {
    pub(super) decoding: Arc<DecodingKey>,
    pub(super) algorithm: Algorithm,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, ProviderKey>,
    asked: Option<Duration>,
    fetched: Option<Duration>,
}

pub(super) struct Keys {
    source: Arc<dyn ProviderKeys>,
    clock: Arc<dyn Clock>,
    known: RwLock<Known>,
    /// One request at a time.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What there is to say about a key.
pub(super) enum Looked {
    Found(ProviderKey),
    Unknown,
    /// The keys cannot be had.
    Away(String),
}

impl Keys {
    pub(super) fn new(source: Arc<dyn ProviderKeys>, clock: Arc<dyn Clock>) -> Self {
        Self {
            source,
            clock,
            known: RwLock::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// The key of that id.
    pub(super) async fn get(&self, kid: &str) -> Looked {
        if let Some(found) = self.fresh(kid) {
            return Looked::Found(found);
        }
        let _turn = self.turn.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(found) = self.fresh(kid) {
            return Looked::Found(found);
        }
        let now = self.clock.monotonic();
        if self
            .known
            .read()
            .asked
            .is_some_and(|at| now.saturating_sub(at) < PAUSE)
        {
            return Looked::Unknown;
        }
        self.known.write().asked = Some(now);
        let fetched = self.source.fetch().await.and_then(|text| parse(&text));
        match fetched {
            Ok(keys) => {
                let mut known = self.known.write();
                known.keys = keys;
                known.fetched = Some(now);
                known
                    .keys
                    .get(kid)
                    .cloned()
                    .map_or(Looked::Unknown, Looked::Found)
            }
            Err(error) => {
                tracing::warn!(%error, "the identity provider's keys cannot be had");
                Looked::Away(error)
            }
        }
    }

    fn fresh(&self, kid: &str) -> Option<ProviderKey> {
        let known = self.known.read();
        let now = self.clock.monotonic();
        known.fetched.filter(|at| now.saturating_sub(*at) < KEEP)?;
        known.keys.get(kid).cloned()
    }
}

/// The usable keys of a set. Keys of other kinds are left out: providers publish them for others.
fn parse(text: &[u8]) -> Result<HashMap<String, ProviderKey>, String> {
    if text.len() > LONGEST {
        return Err(format!("the key set has more than {LONGEST} bytes"));
    }
    let set: JwkSet = serde_json::from_slice(text).map_err(|e| format!("the key set is no key set: {e}"))?;
    let usable = set.keys.iter().take(MOST).filter_map(usable).collect();
    Ok(usable)
}

fn usable(jwk: &Jwk) -> Option<(String, ProviderKey)> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Algorithm::ES256,
            EllipticCurve::P384 => Algorithm::ES384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let signs = jwk
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|u| *u == PublicKeyUse::Signature);
    let fits = jwk
        .common
        .key_algorithm
        .is_none_or(|named| named.to_string() == format!("{algorithm:?}"));
    let kid = jwk.common.key_id.clone().filter(|_| signs && fits)?;
    let decoding = Arc::new(DecodingKey::from_jwk(jwk).ok()?);
    Some((kid, ProviderKey { decoding, algorithm }))
}
