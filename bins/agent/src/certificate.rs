//! The host's certificate: had by a join token, renewed with itself.
//!
//! ```text
//! data_dir/pki/identity.pem ── none ──> join token ──> key, request ──> POST /v1/join ──> kept
//!        └─ there ──> in use ── 1/2 to 2/3 of its life ──> POST /v1/join/renew (shows the present one) ──> kept, in use
//! ```
//!
//! What is asked after a renewal goes over a new connection; leases and watches go on meanwhile, so the host is never without its lease.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skyloom::model::{Clock, HostId, Secret, Timestamp};
use skyloom::pki::{
    HostFolder, HostJoined, JoinHost, KeptIdentity, Live as _, Material, PkiError, PrivateKey,
    ReloadingClient, RenewCertificate,
};
use skyloom::remote::{JoinClient, JoinFailed, LiveTls};
use skyloom_bin::exit::MainError;
use skyloom_bin::store::read_token;
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;

/// Shortest and longest wait before the API is asked again.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Longest sleep: a clock that is set forward is noticed then.
const NAP: Duration = Duration::from_secs(60);

/// What the host shows, and what keeps it from running out.
#[derive(Debug)]
pub(crate) struct HostIdentity {
    /// The host.
    pub(crate) host: HostId,
    /// For all connections to the API.
    pub(crate) tls: Arc<ReloadingClient>,
    folder: HostFolder,
    given: Option<Vec<u8>>,
    join: JoinClient,
    clock: Arc<dyn Clock>,
    kept: KeptIdentity,
}

impl HostIdentity {
    /// The identity that is in the data folder, renewed if it has run out, or the one that a join token gives. `None`: the agent has a
    /// token instead.
    ///
    /// # Errors
    /// When there is neither, the API refuses, or what is in the folder cannot be used.
    pub(crate) async fn open(
        config: &AgentConfig,
        clock: Arc<dyn Clock>,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, MainError> {
        let dir = config.agent.data_dir.join("pki");
        let kept = if dir.exists() {
            HostFolder::open(&dir)
                .and_then(|folder| folder.identity())
                .map_err(unusable)?
        } else {
            None
        };
        let token = join_token(config, kept.is_some())?;
        if config.store.token_file.is_some() || (kept.is_none() && token.is_none()) {
            return Ok(None);
        }
        let folder = HostFolder::open(&dir).map_err(unusable)?;
        let given = read_roots(config.store.ca_file.as_deref())?;
        let material = folder.material(given.as_deref()).map_err(unusable)?;
        if material.roots.is_none() {
            return Err(MainError::usage(
                "store.ca_file is not set",
                "a host believes no API that it cannot check",
            )
            .hint("`skyloom host join-token NAME --roots-file FILE` writes the cloud's roots"));
        }
        let tls = ReloadingClient::new(&material).map_err(unusable)?;
        let live = LiveTls {
            client: tls.clone(),
            clock: clock.clone(),
        };
        let join = JoinClient::new(&config.store.uri, live)
            .map_err(|e| MainError::usage("store.uri cannot be used", e))?;
        // Who joins shows nothing: a certificate that was taken back would end the handshake.
        let nothing = ReloadingClient::new(&Material {
            identity: None,
            roots: material.roots.clone(),
        });
        let nothing = LiveTls {
            client: nothing.map_err(unusable)?,
            clock: clock.clone(),
        };
        let stranger = JoinClient::new(&config.store.uri, nothing)
            .map_err(|e| MainError::usage("store.uri cannot be used", e))?;
        let (folder, join, stranger) = (&folder, &join, &stranger);
        let token = match token {
            Some(token) if folder.joined_with(&token).map_err(unusable)? => None,
            token => token,
        };
        let kept = match (kept, token) {
            (None, None) => {
                return Err(MainError::usage(
                    "this host has no certificate",
                    "the join token in agent.join_token_file was used before",
                )
                .hint("make another one: `skyloom host join-token NAME`"));
            }
            (None, Some(token)) => joined(config, folder, stranger, &token, shutdown)
                .await
                .map_err(Ended::error)?,
            (Some(kept), Some(token)) => match joined(config, folder, stranger, &token, shutdown).await {
                Ok(kept) => kept,
                Err(Ended::Refused(error)) => {
                    let error = skyloom::model::report(&error);
                    tracing::warn!(%error, "the join token is of no use; the host goes on with the certificate that it has");
                    current(kept, folder, join, &*clock, shutdown).await?
                }
                Err(ended) => return Err(ended.error()),
            },
            (Some(kept), None) => current(kept, folder, join, &*clock, shutdown).await?,
        };
        let this = Self {
            host: kept.certificate.host,
            folder: folder.clone(),
            given,
            join: join.clone(),
            tls,
            clock,
            kept,
        };
        this.take().map_err(unusable)?;
        // An epoch that was raised this second begins with the next.
        this.sleep_until(this.kept.certificate.not_before, shutdown).await;
        Ok(Some(this))
    }

    /// Renews it before it runs out, again and again, until `shutdown`.
    pub(crate) async fn keep(mut self, shutdown: CancellationToken) {
        let mut wait = WAIT.0;
        loop {
            let certificate = &self.kept.certificate;
            tracing::info!(until = %certificate.not_after, renewal = %certificate.renew_at(), "the host's certificate is in use");
            if !self.sleep_until(certificate.renew_at(), &shutdown).await {
                return;
            }
            loop {
                match renew(&self.folder, &self.join).await {
                    Ok(kept) => {
                        self.kept = kept;
                        wait = WAIT.0;
                        break;
                    }
                    Err(error) => {
                        let late = self.clock.now() >= self.kept.certificate.alarm_at();
                        let error = skyloom::model::report(&error);
                        if late {
                            tracing::error!(%error, until = %self.kept.certificate.not_after, "the host's certificate is not renewed, and runs out");
                        } else {
                            tracing::warn!(%error, "the host's certificate is not renewed yet");
                        }
                    }
                }
                if !pause(wait, &shutdown).await {
                    return;
                }
                wait = (wait * 2).min(WAIT.1);
            }
            if let Err(error) = self.take() {
                tracing::error!(error = %skyloom::model::report(&error), "the new certificate is not taken into use");
            }
        }
    }

    /// Takes what is in the folder into use.
    fn take(&self) -> Result<(), PkiError> {
        let material = self.folder.material(self.given.as_deref())?;
        self.tls.replace(&material, self.clock.now()).map(drop)
    }

    /// `false` at the shutdown.
    async fn sleep_until(&self, at: Timestamp, shutdown: &CancellationToken) -> bool {
        loop {
            let left = at.duration_since(self.clock.now());
            let Some(left) = Duration::try_from(left).ok().filter(|left| !left.is_zero()) else {
                return !shutdown.is_cancelled();
            };
            if !pause(left.min(NAP), shutdown).await {
                return false;
            }
        }
    }
}

/// The configured join token. Where the host has a certificate its file may be gone.
fn join_token(config: &AgentConfig, has_certificate: bool) -> Result<Option<Secret<String>>, MainError> {
    match &config.agent.join_token_file {
        Some(file) if file.exists() || !has_certificate => read_token(file).map(Some),
        _ => Ok(None),
    }
}

/// The certificate that is here, or its successor when it has expired.
async fn current(
    kept: KeptIdentity,
    folder: &HostFolder,
    join: &JoinClient,
    clock: &dyn Clock,
    shutdown: &CancellationToken,
) -> Result<KeptIdentity, MainError> {
    if clock.now() <= kept.certificate.not_after {
        return Ok(kept);
    }
    tracing::warn!(since = %kept.certificate.not_after, "the host's certificate has expired: it is renewed first");
    until_answered(shutdown, || renew(folder, join))
        .await
        .map_err(Ended::error)
}

/// Joins with this token.
async fn joined(
    config: &AgentConfig,
    folder: &HostFolder,
    join: &JoinClient,
    token: &Secret<String>,
    shutdown: &CancellationToken,
) -> Result<KeptIdentity, Ended> {
    let here = |e| Ended::Refused(Failed::Here(e));
    let key = folder.joining_key().map_err(here)?;
    let request = JoinHost {
        token: token.expose().clone(),
        name: config.agent.name.clone(),
        request: key.request().map_err(here)?,
    };
    let (request, key) = (&request, &key);
    let joined = until_answered(
        shutdown,
        || async move { keep(folder, key, join.join(request).await) },
    )
    .await?;
    folder.note_joined(token).map_err(here)?;
    tracing::info!(host = %joined.certificate.host, "the host has joined");
    Ok(joined)
}

/// Has the successor of the certificate that is shown, with a new key.
async fn renew(folder: &HostFolder, join: &JoinClient) -> Result<KeptIdentity, Failed> {
    let key = PrivateKey::generate().map_err(Failed::Here)?;
    let request = RenewCertificate {
        request: key.request().map_err(Failed::Here)?,
    };
    keep(folder, &key, join.renew(&request).await)
}

fn keep(
    folder: &HostFolder,
    key: &PrivateKey,
    answer: Result<HostJoined, JoinFailed>,
) -> Result<KeptIdentity, Failed> {
    let answer = answer.map_err(Failed::There)?;
    folder
        .keep(key, &answer.certificate, &answer.roots)
        .map_err(Failed::Here)
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the API gave no certificate")]
    There(#[source] JoinFailed),
    #[error("the certificate cannot be kept")]
    Here(#[source] PkiError),
}

/// How asking again and again ended without one.
enum Ended {
    Refused(Failed),
    Shutdown,
}

impl Ended {
    fn error(self) -> MainError {
        match self {
            Self::Refused(error) => MainError::failed("this host has no certificate", error),
            Self::Shutdown => {
                MainError::failed("this host has no certificate", "ended while it was asked for")
            }
        }
    }
}

/// Asks until there is an answer: the API may be starting.
async fn until_answered<F>(
    shutdown: &CancellationToken,
    mut ask: impl FnMut() -> F,
) -> Result<KeptIdentity, Ended>
where
    F: Future<Output = Result<KeptIdentity, Failed>>,
{
    let mut wait = WAIT.0;
    loop {
        match ask().await {
            Ok(kept) => return Ok(kept),
            Err(Failed::There(error)) if error.refused().is_none() => {
                tracing::warn!(error = %skyloom::model::report(&error), "no certificate yet");
            }
            Err(error) => return Err(Ended::Refused(error)),
        }
        if !pause(wait, shutdown).await {
            return Err(Ended::Shutdown);
        }
        wait = (wait * 2).min(WAIT.1);
    }
}

/// `false` at the shutdown.
async fn pause(time: Duration, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

fn read_roots(file: Option<&Path>) -> Result<Option<Vec<u8>>, MainError> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|e| MainError::usage(format!("cannot read store.ca_file {}", path.display()), e))
    };
    file.map(read).transpose()
}

fn unusable(error: PkiError) -> MainError {
    MainError::failed("the host's certificate cannot be used", error)
}
