//! The cloud's authority and the certificate that the API shows: from files, or of that authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skyloom::cloud::{AuthorityParts, HostAuthority};
use skyloom::identity::SecretStore;
use skyloom::model::{Clock, Ids, Timestamp};
use skyloom::pki::{Lifetimes, Live as _, Material, Oldest, ReloadingServer, ServerNames, server_config};
use skyloom::store::DynBackend;
use skyloom_bin::exit::MainError;
use skyloom_bin::identity::IdentitySection;
use skyloom_bin::tls::{self, Followed};
use tokio_util::sync::CancellationToken;

use crate::config::ListenConfig;

/// How often it is looked whether the roots have changed or the API's certificate is to be renewed.
const LOOK: Duration = Duration::from_secs(2);

/// The cloud's own authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PkiSection {
    /// Give hosts certificates. All API processes of a cloud need the same setting and `identity.key_file`, with which the roots' keys are
    /// sealed in the store.
    pub(crate) enabled: bool,
    /// What stands in the roots' names.
    pub(crate) cloud: String,
    /// Names and addresses in the API's certificate, which is of this authority where `api.tls_cert` is not set. Nothing: the address that
    /// it listens on, and `localhost`.
    pub(crate) server_names: Vec<String>,
    /// The roots are written here, for clients to believe.
    pub(crate) roots_file: Option<PathBuf>,
    /// How long a host's certificate lives.
    pub(crate) host_seconds: u64,
    /// How long after its end it may still be renewed.
    pub(crate) grace_seconds: u64,
    /// How far its begin lies back, for clocks that are behind.
    pub(crate) back_date_seconds: u64,
    /// How long a join token lives.
    pub(crate) join_seconds: u64,
}

impl Default for PkiSection {
    fn default() -> Self {
        let lifetimes = Lifetimes::default();
        Self {
            enabled: false,
            cloud: "skyloom".into(),
            server_names: Vec::new(),
            roots_file: None,
            host_seconds: lifetimes.host.as_secs(),
            grace_seconds: lifetimes.grace.as_secs(),
            back_date_seconds: lifetimes.back_date.as_secs(),
            join_seconds: lifetimes.join.as_secs(),
        }
    }
}

impl PkiSection {
    fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            host: Duration::from_secs(self.host_seconds),
            grace: Duration::from_secs(self.grace_seconds),
            back_date: Duration::from_secs(self.back_date_seconds),
            join: Duration::from_secs(self.join_seconds),
            ..Lifetimes::default()
        }
    }

    /// That the key of secrets is not lost: one that takes over from older ones may be made, one that was there has to come back.
    pub(crate) async fn refuse_lost_key(
        &self,
        identity: &IdentitySection,
        folder: &Path,
        backend: &DynBackend,
    ) -> Result<(), MainError> {
        let path = identity.key_path(folder);
        if !self.enabled || path.exists() || !identity.older_key_files.is_empty() {
            return Ok(());
        }
        if HostAuthority::exists(backend).await.map_err(failed)? {
            return Err(MainError::usage(
                format!("identity.key_file {} is not there", path.display()),
                "the cloud has roots whose keys are sealed with it",
            )
            .hint("put it back from where you keep it; all API processes have the same one"));
        }
        Ok(())
    }

    /// The authority in the store, if there is to be one. The first start makes its first root.
    pub(crate) async fn open(
        &self,
        backend: DynBackend,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        secrets: Arc<dyn SecretStore>,
    ) -> Result<Option<Arc<HostAuthority>>, MainError> {
        if !self.enabled {
            return Ok(None);
        }
        let authority = HostAuthority::open(AuthorityParts {
            backend,
            clock,
            ids,
            secrets,
            cloud: self.cloud.clone(),
            lifetimes: self.lifetimes(),
        });
        authority.await.map(Some).map_err(failed)
    }
}

fn failed(error: skyloom::cloud::CloudError) -> MainError {
    MainError::failed("the cloud's authority does not open", error)
}

/// TLS of the API.
#[derive(Debug)]
pub(crate) struct ApiTls {
    /// For the server.
    pub(crate) config: Arc<rustls::ServerConfig>,
    own: Own,
}

/// Where the API's certificate comes from.
#[derive(Debug)]
enum Own {
    Files(Followed<ReloadingServer>),
    Issued {
        authority: Arc<HostAuthority>,
        names: ServerNames,
        live: Arc<ReloadingServer>,
        renew_at: Timestamp,
    },
}

impl ApiTls {
    /// TLS as it is configured; `None` without any.
    pub(crate) async fn open(
        api: &ListenConfig,
        pki: &PkiSection,
        authority: Option<&Arc<HostAuthority>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Self>, MainError> {
        let refused = |e| MainError::usage("TLS cannot be set up", e);
        let (live, own) = match (&api.tls_cert, &api.tls_key, authority) {
            (Some(cert), Some(key), _) => {
                let followed = tls::server(cert, key, clock.clone()).await?;
                (followed.live.clone(), Own::Files(followed))
            }
            (None, None, Some(authority)) => {
                let names = pki.names(api).map_err(refused)?;
                let failed = |e| MainError::failed("the API has no certificate", e);
                let issued = authority.issue_server(&names).map_err(failed)?;
                let live = ReloadingServer::new(&material(issued.material)).map_err(refused)?;
                let own = Own::Issued {
                    authority: authority.clone(),
                    names,
                    live: live.clone(),
                    renew_at: issued.renew_at,
                };
                (live, own)
            }
            (None, None, None) => return Ok(None),
            _ => {
                return Err(MainError::usage(
                    "TLS cannot be set up",
                    "api.tls_cert and api.tls_key belong together",
                ));
            }
        };
        let oldest = if api.tls12 { Oldest::Tls12 } else { Oldest::Tls13 };
        let judge = authority.map(|authority| authority.judge().clone());
        let config = server_config(live, judge, clock, oldest).map_err(refused)?;
        Ok(Some(Self {
            config: Arc::new(config),
            own,
        }))
    }

    /// Keeps the certificate new until `shutdown`.
    pub(crate) async fn keep(self, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
        match self.own {
            Own::Files(followed) => followed.follow(shutdown).await,
            Own::Issued {
                authority,
                names,
                live,
                mut renew_at,
            } => {
                while pause(&shutdown).await {
                    if clock.now() < renew_at {
                        continue;
                    }
                    match authority.issue_server(&names) {
                        Ok(issued) => match live.replace(&material(issued.material), clock.now()) {
                            Ok(_) => renew_at = issued.renew_at,
                            Err(error) => {
                                tracing::error!(error = %skyloom::model::report(&error), "the API's new certificate is of no use")
                            }
                        },
                        Err(error) => tracing::error!(%error, "the API's certificate is not renewed now"),
                    }
                }
            }
        }
    }
}

impl PkiSection {
    fn names(&self, api: &ListenConfig) -> Result<ServerNames, skyloom::pki::PkiError> {
        if !self.server_names.is_empty() {
            return ServerNames::new(&self.server_names);
        }
        let mut names = vec!["localhost".to_owned()];
        let address = api.listen.ip();
        if !address.is_unspecified() {
            names.push(address.to_string());
        }
        ServerNames::new(&names)
    }

    /// Writes the roots where clients look for them, now and whenever they change, until `shutdown`.
    pub(crate) fn publish(&self, authority: &HostAuthority) -> Result<Published, MainError> {
        let mut published = Published {
            file: self.roots_file.clone(),
            written: String::new(),
        };
        published
            .look(authority)
            .map_err(|e| MainError::failed("pki.roots_file cannot be written", e))?;
        Ok(published)
    }
}

/// The roots as they were last written.
#[derive(Debug)]
pub(crate) struct Published {
    file: Option<PathBuf>,
    written: String,
}

impl Published {
    pub(crate) async fn follow(mut self, authority: &HostAuthority, shutdown: CancellationToken) {
        while pause(&shutdown).await {
            if let Err(error) = self.look(authority) {
                tracing::error!(%error, "pki.roots_file cannot be written");
            }
        }
    }

    fn look(&mut self, authority: &HostAuthority) -> std::io::Result<()> {
        let roots = authority.roots();
        if let Some(file) = self.file.as_deref().filter(|_| roots != self.written) {
            let part = file.with_extension("part");
            std::fs::write(&part, &roots)?;
            std::fs::rename(part, file)?;
            self.written = roots;
        }
        Ok(())
    }
}

/// `false` at the shutdown.
async fn pause(shutdown: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(LOOK) => true,
    }
}

fn material(identity: skyloom::pki::IdentityMaterial) -> Material {
    Material {
        identity: Some(identity),
        roots: None,
    }
}
