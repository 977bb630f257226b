//! Signing keys: their records, their rotation with overlap, and the public halves that verify.
//!
//! ```text
//! created ──announce──> signs_from ──signs_for──> (successor signs) retired_at ──token_life + announce──> verify_until, deleted
//! ```
//!
//! Every process knows a key for [`RingPolicy::announce`] before anybody signs with it, and as long after its last signature as a token
//! of it can live. [`RingPolicy::plan`] says what is to be done; whoever runs it writes that under the records' revisions.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};
use skyloom_model::{Ids, Secret, Timestamp};
use skyloom_store::Key;

use super::TokenError;
use crate::{Sealed, SecretStore, paths};

/// Longest id of a key.
const MAX_KID: usize = 64;

/// A signing key, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeyRecord {
    /// Its id, as tokens name it.
    pub kid: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when it signs.
    pub signs_from: Timestamp,
    /// When a successor took over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// Until when it verifies; set when it is retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_until: Option<Timestamp>,
    /// The public half, 32 bytes in base64url.
    pub public: String,
    /// The private half, sealed for this record's place.
    pub private: Sealed,
}

impl SigningKeyRecord {
    /// A new key that signs from `signs_from` on.
    ///
    /// # Errors
    /// [`TokenError::Vault`].
    pub async fn generate(
        secrets: &dyn SecretStore,
        ids: &dyn Ids,
        now: Timestamp,
        signs_from: Timestamp,
    ) -> Result<Self, TokenError> {
        let kid = ids.uuid().simple().to_string();
        let mut seed = [0; 32];
        ids.random(&mut seed);
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| TokenError::Internal(e.to_string()))?;
        let private = secrets
            .seal(&Self::place(&kid)?, &Secret::new(seed.to_vec()))
            .await?;
        Ok(Self {
            public: URL_SAFE_NO_PAD.encode(pair.public_key()),
            kid,
            created_at: now,
            signs_from,
            retired_at: None,
            verify_until: None,
            private,
        })
    }

    /// Where a key of that id lies, and for where its private half is sealed.
    ///
    /// # Errors
    /// [`TokenError::DamagedKey`] when that is no id.
    pub fn place(kid: &str) -> Result<Key, TokenError> {
        let plain = !kid.is_empty()
            && kid.len() <= MAX_KID
            && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let damaged = |what: String| TokenError::DamagedKey {
            kid: kid.to_owned(),
            what,
        };
        if !plain {
            return Err(damaged("its id is not of letters, digits and -".into()));
        }
        Key::parse(&paths::key(kid)).map_err(|e| damaged(e.to_string()))
    }

    fn damaged(&self, what: impl Into<String>) -> TokenError {
        TokenError::DamagedKey {
            kid: self.kid.clone(),
            what: what.into(),
        }
    }

    fn public(&self) -> Result<[u8; 32], TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.public).ok();
        bytes
            .and_then(|b| b.try_into().ok())
            .ok_or_else(|| self.damaged("its public half is not 32 bytes in base64url"))
    }

    pub(super) async fn open(&self, secrets: &dyn SecretStore) -> Result<EncodingKey, TokenError> {
        let seed = secrets.open(&Self::place(&self.kid)?, &self.private).await?;
        let unfit = |_| self.damaged("its halves do not belong together");
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed.expose(), &self.public()?).map_err(unfit)?;
        let document = pair
            .to_pkcs8v1()
            .map_err(|e| TokenError::Internal(e.to_string()))?;
        Ok(EncodingKey::from_ed_der(document.as_ref()))
    }
}

/// When keys change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPolicy {
    /// How long a key signs.
    pub signs_for: Duration,
    /// How long a key is known before it signs: longer than any process may lag behind or its clock be off.
    pub announce: Duration,
    /// The longest life of a token.
    pub token_life: Duration,
}

impl Default for RingPolicy {
    fn default() -> Self {
        Self {
            signs_for: Duration::from_secs(7 * 86_400),
            announce: Duration::from_secs(300),
            token_life: Duration::from_secs(3600),
        }
    }
}

/// What is to be done with the records of signing keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RingPlan {
    /// Make a key ([`SigningKeyRecord::generate`]) that signs from then on.
    pub create: Option<Timestamp>,
    /// Write these in place of the former.
    pub update: Vec<SigningKeyRecord>,
    /// Delete the keys of these ids.
    pub delete: Vec<String>,
}

impl RingPolicy {
    /// What is to be done now. Running it again after it was done finds nothing to do.
    #[must_use]
    pub fn plan(&self, records: &[SigningKeyRecord], now: Timestamp) -> RingPlan {
        let mut plan = RingPlan::default();
        let newest = records.iter().map(|record| record.signs_from).max();
        plan.create = match newest {
            None => Some(now),
            Some(newest) => {
                let (end, soonest) = (after(newest, self.signs_for), after(now, self.announce));
                (end <= soonest).then_some(end.max(soonest))
            }
        };
        let signing = records
            .iter()
            .map(|r| (r.signs_from, &r.kid))
            .filter(|(from, _)| *from <= now)
            .max();
        for record in records {
            match record.verify_until {
                Some(until) if until <= now => plan.delete.push(record.kid.clone()),
                None if signing.is_some_and(|signing| (record.signs_from, &record.kid) < signing) => {
                    plan.update.push(SigningKeyRecord {
                        retired_at: Some(now),
                        verify_until: Some(after(after(now, self.token_life), self.announce)),
                        ..record.clone()
                    });
                }
                Some(_) | None => {}
            }
        }
        plan
    }
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The public half of a key, as the ring holds it.
pub(super) struct RingKey {
    pub(super) public: [u8; 32],
    pub(super) decoding: DecodingKey,
    verify_until: Option<Timestamp>,
}

/// The keys that verify. Nothing else does: a key id is looked up here and nowhere else.
#[derive(Default)]
pub struct KeyRing(HashMap<String, RingKey>);

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kids: Vec<&String> = self.0.keys().collect();
        kids.sort_unstable();
        f.debug_tuple("KeyRing").field(&kids).finish()
    }
}

impl KeyRing {
    /// The ring of these records.
    ///
    /// # Errors
    /// [`TokenError::DamagedKey`].
    pub fn new(records: &[SigningKeyRecord]) -> Result<Self, TokenError> {
        let mut keys = HashMap::new();
        for record in records {
            SigningKeyRecord::place(&record.kid)?;
            let public = record.public()?;
            let key = RingKey {
                public,
                decoding: DecodingKey::from_ed_der(&public),
                verify_until: record.verify_until,
            };
            keys.insert(record.kid.clone(), key);
        }
        Ok(Self(keys))
    }

    /// The key of that id, if it verifies at that moment.
    pub(super) fn get(&self, kid: &str, now: Timestamp) -> Option<&RingKey> {
        self.0
            .get(kid)
            .filter(|key| key.verify_until.is_none_or(|until| now < until))
    }
}
