//! Identity at work: what the door, Keystone's face and the drivers of a process share.
//!
//! ```text
//! proofs + scope ──log_in──> Session {token, rights}            throttled, audited; every path of a user with a second factor proves it
//! bearer ──authenticate──> Identified                           memory alone: the directory, the ring, the policy of this moment
//! change + Deed ──change, remove──> one commit with the audit's entry
//! IdentityDriver::run: directory, signing keys, audit, removals that were left, what has ended
//! ```

mod api_token;
mod ask;
mod bootstrap;
mod config;
mod deed;
mod driver;
mod external;
mod factor;
mod login;
mod prove;
mod ring;
mod rules;
mod secret;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use skyloom_model::{Clock, Ids, Timestamp, TokenId};
use skyloom_store::{Error, ErrorKind, Result, latest};

use crate::audit::{Sealer, SealerConfig, StoreAudit};
use crate::{
    AuditSink, Directory, Editor, Hasher, KeyRing, MAX_AGE, PERMISSIONS, Policy, Registry, SecretStore,
    Throttle, TokenSigner, TokenVerifier, VerifierConfig,
};

pub use api_token::MadeToken;
pub use ask::{CredentialRef, DomainRef, LogIn, ProjectRef, Proof, ScopeAsked, Session, UserRef, Valid};
pub use bootstrap::FirstSecrets;
pub use config::{Burst, IdentityConfig, IdentityParts, SigningKeys, ThrottleLimits};
pub use deed::{Call, Deed};
pub use driver::IdentityDriver;
pub use factor::Enrolment;
pub use secret::SecretError;

use rules::Rules;

/// How long a call waits for a directory that has been quiet.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who may come in, and what they may do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    secrets: Arc<dyn SecretStore>,
    audit: Arc<dyn AuditSink>,
    config: IdentityConfig,
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    editor: Editor,
    hasher: Hasher,
    throttle: Throttle,
    verifier: TokenVerifier,
    signer: RwLock<Option<Arc<TokenSigner>>>,
    /// Which signing keys it has: `(kid, revision)`. Waited for.
    ring: latest::Sender<ring::Known>,
    rules: RwLock<Arc<Rules>>,
    /// API tokens that were used since that was last written.
    uses: Mutex<BTreeMap<TokenId, Timestamp>>,
}

impl Identity {
    /// The identity in `parts.backend`, and the driver that must be run to feed it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a configuration that is not possible.
    pub fn open(parts: IdentityParts, config: IdentityConfig) -> Result<(Self, IdentityDriver)> {
        let wrong = |field: &'static str, why: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Invalid, "set up identity").with(field, why.to_string())
        };
        let IdentityParts {
            backend,
            clock,
            ids,
            secrets,
            audit,
            registry,
        } = parts;
        let registry = match registry {
            Some(registry) => registry,
            None => Arc::new(Registry::new(&[PERMISSIONS]).map_err(|e| wrong("permissions", &e))?),
        };
        let (directory, directory_driver) = Directory::new(backend.clone(), clock.clone())?;
        let (audit, own_audit) = match audit {
            Some(audit) => (audit, None),
            None => {
                let (audit, writer) = StoreAudit::new(backend.clone(), clock.clone(), ids.clone());
                let sealing = SealerConfig::new(&config.holder).with_keep_days(config.audit_days);
                let sealer = Sealer::new(backend.clone(), clock.clone(), sealing);
                (Arc::new(audit) as Arc<dyn AuditSink>, Some((writer, sealer)))
            }
        };
        let verifying = VerifierConfig {
            remembered: config.remembered_tokens,
            ..VerifierConfig::new(config.issuer.clone())
        };
        // What is built in must fit the registry: better told now than at the first call.
        let rules = Rules::of(&registry, &directory.snapshot()).map_err(|e| wrong("permissions", &e))?;
        let editor = Editor::new(directory.clone(), backend.clone(), clock.clone(), ids.clone());
        let inner = Arc::new(Inner {
            hasher: Hasher::new(&config.password, ids.clone()).map_err(|e| wrong("password", &e))?,
            throttle: Throttle::new(config.throttle(), clock.clone()),
            verifier: TokenVerifier::new(verifying, KeyRing::default()),
            signer: RwLock::new(None),
            ring: latest::Sender::new(ring::Known::default()),
            rules: RwLock::new(Arc::new(rules)),
            uses: Mutex::default(),
            directory: Arc::new(directory),
            editor,
            registry,
            config,
            audit,
            secrets,
            clock,
            ids,
        });
        let driver = IdentityDriver::new(Self(Arc::clone(&inner)), directory_driver, own_audit);
        Ok((Self(inner), driver))
    }

    /// Waits until everything has been read once and tokens can be given.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the driver has ended before.
    pub async fn ready(&self) -> Result<()> {
        self.0.directory.ready().await?;
        let mut ring = self.0.ring.subscribe();
        let known = ring.wait_for(|known| !known.is_empty()).await.map(|_| ());
        known.map_err(|_| Error::new(ErrorKind::Unavailable, "wait for a signing key"))
    }

    /// All records, in memory.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// Makes changes. What a caller asked for goes through [`Identity::change`], so that it is told.
    #[must_use]
    pub fn editor(&self) -> &Editor {
        &self.0.editor
    }

    /// Where it is written what happened.
    #[must_use]
    pub fn audit(&self) -> &Arc<dyn AuditSink> {
        &self.0.audit
    }

    /// What seals secrets.
    #[must_use]
    pub fn secrets(&self) -> &Arc<dyn SecretStore> {
        &self.0.secrets
    }

    /// The permissions that there are.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    /// How it was set up.
    #[must_use]
    pub fn config(&self) -> &IdentityConfig {
        &self.0.config
    }

    /// The rules of this moment: the built-in roles and those that are stored.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.0.rules(&self.0.directory.snapshot()).policy)
    }

    /// The time that it goes by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

impl Inner {
    /// Whether the directory can be trusted; after a quiet time it is asked first.
    async fn fresh(&self) -> std::result::Result<(), crate::AuthError> {
        if self.directory.is_fresh(MAX_AGE, PATIENCE).await {
            return Ok(());
        }
        Err(crate::AuthError::Unavailable(
            "the store does not answer".to_owned(),
        ))
    }
}
