//! Logging in on the word of an identity provider (OpenID Connect), with users made when they come.
//!
//! ```text
//! ID token ──Oidc::verify──> External {issuer, subject, name, groups, id, until} ──Edit::external_user──> User, memberships
//!     ↑ form, algorithm, key, signature, issuer, audience, times, nonce        └ each token once, by a record in the same commit
//! ```
//!
//! * A user of a provider has an id that is a hash of issuer and subject: it is found again whatever it is called, and nobody
//!   else can have it.
//! * Exactly one public-key algorithm is taken for a key: the one that its type says. `none` and shared secrets are not known here.
//! * Keys come from a [`ProviderKeys`]; an unknown key has them asked for again, but not more often than every half minute, so that made-up
//!   key ids do not become requests.

mod keys;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use skyloom_model::{Clock, Timestamp};
use uuid::Uuid;

use crate::{DomainId, GroupId, UserId};

/// How one provider is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// Its name, exactly as in its tokens: an `https` address.
    pub issuer: String,
    /// For whom its tokens must be: the id under which it knows this cloud.
    pub client_id: String,
    /// Where its users go.
    pub domain: DomainId,
    /// The claim that a new user's name is made of.
    pub name_claim: String,
    /// The claim that lists a user's groups.
    pub groups_claim: String,
    /// Which of them are which groups here. A user is in these groups exactly while the provider says so; other groups are not touched.
    pub groups: BTreeMap<String, GroupId>,
    /// By how much the provider's clock may be off.
    pub leeway: Duration,
    /// How old a token may be that somebody logs in with, whatever its own end is.
    pub longest: Duration,
}

impl OidcConfig {
    /// A minute off at most, ten minutes old at most, names from `preferred_username`, groups from `groups`.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>, domain: DomainId) -> Self {
        Self {
            issuer: issuer.into(),
            client_id: client_id.into(),
            domain,
            name_claim: "preferred_username".to_owned(),
            groups_claim: "groups".to_owned(),
            groups: BTreeMap::new(),
            leeway: Duration::from_secs(60),
            longest: Duration::from_secs(600),
        }
    }
}

/// Where a provider's public keys come from: its `jwks_uri`, a file.
#[async_trait]
pub trait ProviderKeys: Send + Sync + fmt::Debug + 'static {
    /// The key set of now, as JSON (RFC 7517).
    ///
    /// # Errors
    /// In words, for the log.
    async fn fetch(&self) -> Result<Vec<u8>, String>;
}

/// What a provider says of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Who says so.
    pub issuer: String,
    /// Its name for the user, which never changes.
    pub subject: String,
    /// A name to be called by.
    pub name: String,
    /// Where to write to, if the provider has verified it.
    pub email: Option<String>,
    /// The groups here that the user is to be in.
    pub groups: Vec<GroupId>,
    /// The id of the token: its hash.
    pub token: Uuid,
    /// When it ends.
    pub until: Timestamp,
}

impl External {
    /// The user's id here.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        UserId::from_uuid(hashed(&["skyloom:oidc:user", &self.issuer, &self.subject]))
    }
}

/// The first 122 bits of a hash of the parts, as a UUID of form 8 (RFC 9562).
fn hashed(parts: &[&str]) -> Uuid {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// One provider. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Oidc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: OidcConfig,
    clock: Arc<dyn Clock>,
    keys: keys::Keys,
}

impl Oidc {
    /// A provider whose keys come from `source`.
    #[must_use]
    pub fn new(config: OidcConfig, source: Arc<dyn ProviderKeys>, clock: Arc<dyn Clock>) -> Self {
        let keys = keys::Keys::new(source, Arc::clone(&clock));
        Self(Arc::new(Inner { config, clock, keys }))
    }

    /// How it is trusted.
    #[must_use]
    pub fn config(&self) -> &OidcConfig {
        &self.0.config
    }
}
