//! Verifying tokens.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use parking_lot::RwLock;
use serde::Deserialize;
use skyloom_model::Timestamp;

use super::cache::{Cache, Signed, TokenHash};
use super::{ALGORITHM, Epochs, KeyRing, MAX_TOKEN, TYPE, TokenClaims};
use crate::{Denied, Why};

/// How tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierConfig {
    /// Whose tokens are taken: [`super::SignerConfig::issuer`].
    pub issuer: String,
    /// By how much the giver's clock may be ahead.
    pub ahead: Duration,
    /// For how long after its end a token is still taken.
    pub behind: Duration,
    /// How many right signatures are remembered (about a kilobyte each); 0 for none.
    pub remembered: usize,
}

impl VerifierConfig {
    /// 5 s ahead, none behind, 20,000 remembered.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            ahead: Duration::from_secs(5),
            behind: Duration::ZERO,
            remembered: 20_000,
        }
    }
}

/// Verifies tokens against the ring of now.
#[derive(Debug)]
pub struct TokenVerifier {
    config: VerifierConfig,
    ring: RwLock<Arc<KeyRing>>,
    cache: Cache,
}

/// The header: these three and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    typ: &'a str,
    alg: &'a str,
    kid: &'a str,
}

impl TokenVerifier {
    /// A verifier.
    #[must_use]
    pub fn new(config: VerifierConfig, ring: KeyRing) -> Self {
        Self {
            cache: Cache::new(config.remembered),
            config,
            ring: RwLock::new(Arc::new(ring)),
        }
    }

    /// Takes another ring: from now on its keys count and no others, also for signatures that are remembered.
    pub fn replace_ring(&self, ring: KeyRing) {
        *self.ring.write() = Arc::new(ring);
    }

    /// What a token says, if it counts now.
    ///
    /// # Errors
    /// [`Denied`]; see the picture in this module's head for what is asked, in that order.
    pub fn verify(
        &self,
        token: &str,
        now: Timestamp,
        epochs: &dyn Epochs,
    ) -> Result<Arc<TokenClaims>, Denied> {
        if token.len() > MAX_TOKEN {
            return Err(Why::TooLong.into());
        }
        let ring = Arc::clone(&self.ring.read());
        let mut hash = TokenHash::default();
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let signed = match self.cache.get(&hash) {
            Some(signed) => signed,
            None => {
                let signed = Arc::new(check(token, &ring, now)?);
                self.cache.put(hash, Arc::clone(&signed));
                signed
            }
        };
        // Nothing below is remembered.
        if ring
            .get(&signed.kid, now)
            .is_none_or(|key| key.public != signed.public)
        {
            return Err(Why::UnknownKey.into());
        }
        let claims = &signed.claims;
        self.check_claims(claims, now)?;
        match epochs.current(&claims.grounds()) {
            None => return Err(Why::Gone.into()),
            Some(current) if current != claims.epochs => return Err(Why::Outdated.into()),
            Some(_) => {}
        }
        // What was made from a token goes with it.
        if epochs.revoked(claims.jti) || claims.chain.iter().any(|parent| epochs.revoked(*parent)) {
            return Err(Why::Revoked.into());
        }
        Ok(Arc::clone(claims))
    }

    fn check_claims(&self, claims: &TokenClaims, now: Timestamp) -> Result<(), Denied> {
        if claims.iss != self.config.issuer {
            return Err(Why::Issuer.into());
        }
        let now = now.as_second();
        if now >= claims.exp.saturating_add_unsigned(self.config.behind.as_secs()) {
            return Err(Why::Expired.into());
        }
        if now.saturating_add_unsigned(self.config.ahead.as_secs()) < claims.nbf {
            return Err(Why::NotYet.into());
        }
        Ok(())
    }
}

/// All that is asked of a token's text: form, header, key, signature, claims.
fn check(token: &str, ring: &KeyRing, now: Timestamp) -> Result<Signed, Denied> {
    let (message, signature) = token.rsplit_once('.').ok_or(Why::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Why::Malformed)?;
    let decode = |part: &str| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| Denied::new(Why::Malformed))
    };
    let header = decode(header)?;
    let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| Why::Header)?;
    if header.alg != ALGORITHM || header.typ != TYPE {
        return Err(Why::Header.into());
    }
    let key = ring.get(header.kid, now).ok_or(Why::UnknownKey)?;
    // An error is a signature that is not base64.
    let right = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, Algorithm::EdDSA);
    if !right.map_err(|_| Why::Malformed)? {
        return Err(Why::Signature.into());
    }
    let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| Why::Malformed)?;
    Ok(Signed {
        kid: header.kid.to_owned(),
        public: key.public,
        claims: Arc::new(claims),
    })
}
