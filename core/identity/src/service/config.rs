//! What an [`super::Identity`] is made of, and how it is set up.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skyloom_model::{Clock, Ids};
use skyloom_store::DynBackend;

use crate::{
    AuditSink, HasherConfig, PasswordRules, Rate, Registry, RingPolicy, SecretStore, SignerConfig,
    ThrottleConfig,
};

/// What an identity stands on.
#[derive(Debug, Clone)]
pub struct IdentityParts {
    /// Where its records lie.
    pub backend: DynBackend,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids and secrets.
    pub ids: Arc<dyn Ids>,
    /// What seals signing keys and second factors.
    pub secrets: Arc<dyn SecretStore>,
    /// Where it is written what happened. `None`: in the store; the driver writes and seals it then.
    pub audit: Option<Arc<dyn AuditSink>>,
    /// The permissions that there are. `None`: [`crate::PERMISSIONS`].
    pub registry: Option<Arc<Registry>>,
}

/// How an identity works. All fields have a default, so a file names only what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Who gives the bearer tokens: the cloud's own name, the same in all its processes.
    pub issuer: String,
    /// Which process this is, for those who wait for its leases.
    pub holder: String,
    /// Seconds that a bearer token lives when nothing shorter is asked for.
    pub token_life_seconds: u64,
    /// Seconds that one lives at most.
    pub longest_token_life_seconds: u64,
    /// How long a key signs, and how long all know it before.
    pub signing_keys: SigningKeys,
    /// How passwords are hashed.
    pub password: HasherConfig,
    /// What a new password must be like.
    pub password_rules: PasswordRules,
    /// After how many days a password must be changed; `None`: never.
    pub password_days: Option<u32>,
    /// How wrong passwords are held back.
    pub throttle: ThrottleLimits,
    /// For how many days the audit is kept; `None`: for ever.
    pub audit_days: Option<u32>,
    /// Right signatures that are remembered (about a kilobyte each).
    pub remembered_tokens: usize,
    /// Seconds between looks for what is to be tidied up.
    pub tidy_seconds: u64,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            issuer: "skyloom".to_owned(),
            holder: "identity".to_owned(),
            token_life_seconds: 900,
            longest_token_life_seconds: 3600,
            signing_keys: SigningKeys::default(),
            password: HasherConfig::default(),
            password_rules: PasswordRules::default(),
            password_days: None,
            throttle: ThrottleLimits::default(),
            audit_days: None,
            remembered_tokens: 20_000,
            tidy_seconds: 30,
        }
    }
}

/// The life of signing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigningKeys {
    /// Seconds for which one signs.
    pub signs_for_seconds: u64,
    /// Seconds for which all processes know one before it signs.
    pub announce_seconds: u64,
}

impl Default for SigningKeys {
    fn default() -> Self {
        let policy = RingPolicy::default();
        Self {
            signs_for_seconds: policy.signs_for.as_secs(),
            announce_seconds: policy.announce.as_secs(),
        }
    }
}

/// A burst of wrong passwords, and then one each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// How many pass at once.
    pub burst: u32,
    /// Seconds in which one more may pass.
    pub every_seconds: u64,
}

impl From<Rate> for Burst {
    fn from(rate: Rate) -> Self {
        Self {
            burst: rate.burst,
            every_seconds: rate.every.as_secs(),
        }
    }
}

impl From<Burst> for Rate {
    fn from(burst: Burst) -> Self {
        Self {
            burst: burst.burst,
            every: Duration::from_secs(burst.every_seconds),
        }
    }
}

/// How wrong passwords are held back: see [`crate::Throttle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleLimits {
    /// For a user from a source.
    pub pair: Burst,
    /// For a source.
    pub source: Burst,
    /// For a user from sources where it has not logged in before.
    pub user: Burst,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        let config = ThrottleConfig::default();
        Self {
            pair: config.pair.into(),
            source: config.source.into(),
            user: config.user.into(),
        }
    }
}

impl IdentityConfig {
    pub(super) fn signer(&self) -> SignerConfig {
        SignerConfig {
            life: Duration::from_secs(self.token_life_seconds.min(self.longest_token_life_seconds)),
            longest: Duration::from_secs(self.longest_token_life_seconds),
            ..SignerConfig::new(self.issuer.clone())
        }
    }

    pub(super) fn ring(&self) -> RingPolicy {
        RingPolicy {
            signs_for: Duration::from_secs(self.signing_keys.signs_for_seconds),
            announce: Duration::from_secs(self.signing_keys.announce_seconds),
            token_life: Duration::from_secs(self.longest_token_life_seconds),
        }
    }

    pub(super) fn throttle(&self) -> ThrottleConfig {
        ThrottleConfig {
            pair: self.throttle.pair.into(),
            source: self.throttle.source.into(),
            user: self.throttle.user.into(),
            ..ThrottleConfig::default()
        }
    }
}
