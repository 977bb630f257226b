//! An API server on loopback for one test, before any store. Its own records are in a store of their own, so that the
//! one behind it holds only what the test puts there.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skyloom_api::{ApiLimits, ApiParts, EdgeConfig, RateLimits, ServeLimits, router, serve};
use skyloom_cloud::{Cloud, CloudParts, DirImageRepo};
use skyloom_identity::{AuthError, Authenticator, DEFAULT_DOMAIN, Identified, NewSecret, Why};
use skyloom_model::{OsIds, Readiness, Secret, SystemClock, TokenId};
use skyloom_store::{DynBackend, MemoryConfig, MemoryStore};
use skyloom_store_remote::RemoteConfig;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where a server's own records are, and the token in them.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) token: String,
    records: DynBackend,
}

pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    pub(crate) known: Known,
    shutdown: CancellationToken,
    tasks: JoinSet<std::io::Result<()>>,
    _images: TempDir,
}

impl ApiServer {
    pub(crate) async fn start(store: DynBackend) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Self::start_at(([127, 0, 0, 1], 0).into(), store, None, None).await
    }

    /// As [`ApiServer::start`], at a given address, with TLS, or with the records of an earlier server.
    pub(crate) async fn start_at(
        address: SocketAddr,
        store: DynBackend,
        tls: Option<Arc<rustls::ServerConfig>>,
        known: Option<Known>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let clock = Arc::new(SystemClock::new());
        let ids = Arc::new(OsIds::new(clock.clone()));
        let images = tempfile::tempdir()?;
        let records = match &known {
            Some(known) => known.records.clone(),
            None => Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default())),
        };
        let cloud = Cloud::new(CloudParts {
            backend: records.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            images: Arc::new(DirImageRepo::open(images.path(), 1 << 20)?),
        });
        let token = match known {
            Some(known) => known.token,
            None => {
                cloud.bootstrap().await?;
                NewSecret::generate(&*ids).secret.expose().clone()
            }
        };
        let authenticator = Arc::new(OneEngine(token.clone()));
        let known = Known { token, records };
        let shutdown = CancellationToken::new();
        let routes = router(ApiParts {
            cloud: Arc::new(cloud),
            backend: store,
            authenticator,
            identity: None,
            providers: Vec::new(),
            clock,
            ids,
            readiness: Readiness::new(),
            metrics: Arc::new(String::new),
            open_metrics: true,
            limits: ApiLimits::default().with_heartbeat(Duration::from_millis(200)),
            edge: EdgeConfig::default().with_rates(RateLimits::unlimited()),
            shutdown: shutdown.clone(),
        });
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(
            listener,
            routes,
            tls,
            ServeLimits::default(),
            shutdown.clone(),
        ));
        Ok(Self {
            address,
            known,
            shutdown,
            tasks,
            _images: images,
        })
    }

    pub(crate) fn config(&self) -> RemoteConfig {
        RemoteConfig::new(
            format!("http://{}", self.address),
            Secret::new(self.known.token.clone()),
        )
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A certificate for `localhost` in PEM that is its own authority, and the server that shows it.
pub(crate) fn self_signed() -> (String, Arc<rustls::ServerConfig>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .expect("a configuration");
    (certificate.pem(), Arc::new(tls))
}

/// Lets one engine in.
#[derive(Debug)]
struct OneEngine(String);

#[async_trait::async_trait]
impl Authenticator for OneEngine {
    async fn authenticate(&self, bearer: &str, _: &str) -> std::result::Result<Identified, AuthError> {
        if bearer != self.0 {
            return Err(AuthError::Denied(Why::UnknownSecret.into()));
        }
        // Any id: there is but this one token.
        Ok(Identified::Engine {
            token: TokenId::from_uuid(DEFAULT_DOMAIN.uuid()),
        })
    }
}
