//! The cloud's own certificate authority, kept in its store.
//!
//! ```text
//! pki/roots/{root} ── RootPlan: make, sign, drop ──> signer ──> certificates of hosts and of the API
//! pki/epochs, pki/revoked ── watched, and looked at every 5 s ──> Judge: what a certificate counts for, at each request
//! joins/{hash of the token} ── used once ──> certificate (`facade::join`)
//! ```
//!
//! The roots' keys are sealed ([`SecretStore`]); without the key file they are of no use. All processes of a cloud do the same, each under
//! guards: whoever is first has done it. Which record lies where: `docs/rfd/0010-certificates.md`.

mod records;
mod roots;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::RwLock;
use skyloom_identity::{SecretStore, VaultError, VaultErrorKind};
use skyloom_model::{Clock, Ids, Secret, Timestamp};
use skyloom_pki::{
    Authority, CertificateRequest, HostEpoch, IdentityMaterial, JoinTokenRecord, Judge, Lifetimes, PkiError,
    PkiErrorKind, PrivateKey, Revocations, RevokedCertificate, ServerNames, TrustBundle,
};
use skyloom_store::{DynBackend, ListOptions, Prefix, Revision, Table, WatchEvent, WatchOptions};
use tokio_util::sync::CancellationToken;

use crate::{CloudError, ErrorKind, Result};

pub(crate) use records::{epoch, join_token, joins, revoked};

/// How often the records are looked at, heard of or not.
const LOOK: Duration = Duration::from_secs(5);
/// How often roots are planned, and what is over is taken away.
const TEND: Duration = Duration::from_secs(60);

/// What an authority is made of.
#[derive(Debug, Clone)]
pub struct AuthorityParts {
    /// The cloud's store.
    pub backend: DynBackend,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Serial numbers and tokens.
    pub ids: Arc<dyn Ids>,
    /// Seals the roots' keys.
    pub secrets: Arc<dyn SecretStore>,
    /// What stands in the roots' names, for people.
    pub cloud: String,
    /// How long what it issues lives.
    pub lifetimes: Lifetimes,
}

/// The authority as one process has it.
pub struct HostAuthority {
    parts: AuthorityParts,
    judge: Arc<Judge>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    trust: TrustBundle,
    signer: Option<Arc<Authority>>,
}

/// A server's certificate with its key, of the cloud's own authority.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    /// Both in PEM.
    pub material: IdentityMaterial,
    /// When it is time for the next one: half of its life is over.
    pub renew_at: Timestamp,
}

impl fmt::Debug for HostAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostAuthority")
            .field("cloud", &self.parts.cloud)
            .field("signer", &self.state.read().signer)
            .finish_non_exhaustive()
    }
}

impl HostAuthority {
    /// The authority in the store; the first one to open it makes the first root.
    ///
    /// # Errors
    /// When the store cannot be asked, or a root's key does not open: `vault.unknown_key`.
    pub async fn open(parts: AuthorityParts) -> Result<Arc<Self>> {
        let judge = Judge::new(
            TrustBundle::default(),
            Revocations::default(),
            parts.lifetimes.grace,
        );
        let this = Self {
            parts,
            judge,
            state: RwLock::default(),
        };
        this.carry_out().await?;
        this.refresh().await?;
        Ok(Arc::new(this))
    }

    /// Whether a cloud has an authority already.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn exists(backend: &DynBackend) -> Result<bool> {
        let roots = Prefix::parse(records::ROOTS)?;
        let page = backend.list(&roots, ListOptions::default().with_limit(1)).await?;
        Ok(!page.items.is_empty())
    }

    /// Says what a host's certificate counts for. It is kept up to date by [`HostAuthority::run`].
    #[must_use]
    pub fn judge(&self) -> &Arc<Judge> {
        &self.judge
    }

    /// How long what it issues lives.
    #[must_use]
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.parts.lifetimes
    }

    /// The roots that everybody is to trust now, in PEM.
    #[must_use]
    pub fn roots(&self) -> String {
        self.state.read().trust.to_pem()
    }

    /// A new certificate with a new key for a server of this cloud.
    ///
    /// # Errors
    /// When no root can sign.
    pub fn issue_server(&self, names: &ServerNames) -> Result<ServerIdentity> {
        let key = PrivateKey::generate().map_err(refused)?;
        let request = key
            .request()
            .and_then(|pem| CertificateRequest::from_pem(&pem))
            .map_err(refused)?;
        let now = self.now();
        let issued = self
            .signer()?
            .issue_server(&request, names, &*self.parts.ids, now, self.lifetimes())
            .map_err(refused)?;
        let life = issued.not_after.duration_since(now);
        Ok(ServerIdentity {
            material: IdentityMaterial {
                certificates: issued.pem.into_bytes(),
                key: Secret::new(key.to_pem().expose().clone().into_bytes()),
            },
            renew_at: now.saturating_add(life / 2).unwrap_or(issued.not_after),
        })
    }

    /// Follows the records, changes roots by their plan and takes away what is over, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut tended = tokio::time::Instant::now();
        let mut after = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
                () = self.changed(after) => {}
            }
            if tended.elapsed() >= TEND {
                tended = tokio::time::Instant::now();
                if let Err(error) = self.tend().await {
                    tracing::warn!(%error, "roots and revocations are not tended now");
                }
            }
            match self.refresh().await {
                Ok(revision) => after = Some(revision),
                Err(error) => tracing::warn!(%error, "roots and revocations are not read now"),
            }
        }
    }

    /// Returns when a record was changed after that revision; never when the store does not tell.
    async fn changed(&self, after: Option<Revision>) {
        if let (Some(after), Ok(prefix)) = (after, Prefix::parse(records::PKI)) {
            let mut events = self
                .parts
                .backend
                .watch(&prefix, WatchOptions::after(after).with_buffer(16));
            while let Some(event) = events.next().await {
                match event {
                    Ok(WatchEvent::Commit { .. }) => return,
                    Ok(WatchEvent::Progress(_)) => {}
                    Ok(WatchEvent::Gap { .. }) | Err(_) => break,
                }
            }
        }
        std::future::pending().await
    }

    /// Reads the records anew: what they say holds from then on in this process.
    ///
    /// # Errors
    /// Those of the store; what was known before stays.
    pub async fn refresh(&self) -> Result<Revision> {
        let revision = self.refresh_roots().await?;
        let revoked = self
            .table::<RevokedCertificate>(records::REVOKED)?
            .list_all()
            .await?;
        let epochs = self.table::<HostEpoch>(records::EPOCHS)?.list_all().await?;
        self.judge.revoke(Revocations::new(
            revoked.items.into_iter().map(|r| r.value),
            epochs.items.into_iter().map(|e| e.value),
        ));
        Ok(revision)
    }

    async fn tend(&self) -> Result<()> {
        self.carry_out().await?;
        let now = self.now();
        let revoked = self
            .table::<RevokedCertificate>(records::REVOKED)?
            .list_all()
            .await?;
        let epochs = self.table::<HostEpoch>(records::EPOCHS)?.list_all().await?;
        let joins = self.table::<JoinTokenRecord>(records::JOINS)?.list_all().await?;
        let over = (revoked
            .items
            .iter()
            .filter(|r| r.value.until < now)
            .map(|r| r.delete()))
        .chain(
            epochs
                .items
                .iter()
                .filter(|e| e.value.until < now)
                .map(|e| e.delete()),
        )
        // A token that was used answers its key again for a while, which is less than it lives.
        .chain(
            joins
                .items
                .iter()
                .filter(|j| j.value.until < now)
                .map(|j| j.delete()),
        );
        for txn in over {
            // Somebody else may have taken it away, or have changed it.
            self.parts.backend.commit(txn).await?;
        }
        Ok(())
    }

    pub(crate) fn signer(&self) -> Result<Arc<Authority>> {
        self.state.read().signer.clone().ok_or_else(|| {
            CloudError::new(
                ErrorKind::Unavailable,
                skyloom_model::Reason::new("pki.no_signer", "no root of this cloud signs now").retryable(),
            )
        })
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    fn table<T: skyloom_store::Document>(&self, path: &str) -> Result<Table<T>> {
        Ok(Table::new(self.parts.backend.clone(), Prefix::parse(path)?))
    }
}

/// What is wrong with a certificate, key or request, as an answer.
pub(crate) fn refused(error: PkiError) -> CloudError {
    let kind = match error.kind() {
        PkiErrorKind::Internal | PkiErrorKind::Expired | PkiErrorKind::Unreadable => ErrorKind::Internal,
        PkiErrorKind::TooLarge => ErrorKind::TooLarge,
        _ => ErrorKind::Invalid,
    };
    CloudError::new(kind, error.reason())
}

fn sealed(error: VaultError) -> CloudError {
    let kind = match error.kind() {
        VaultErrorKind::Unavailable => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    CloudError::new(kind, error.reason())
}
