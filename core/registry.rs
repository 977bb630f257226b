//! Stores by URI: one line of configuration chooses the backend.

use std::sync::Arc;

use skyloom_model::{Clock, Ids, Secret};
use skyloom_store::layer::{self, StandardConfig};
use skyloom_store::{DynBackend, Error, ErrorKind, MemoryConfig, MemoryStore, Result};

/// What opening a store may need.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Time: the clock of leases for stores inside this process.
    pub clock: Arc<dyn Clock>,
    /// Chance, for the spread of retries.
    pub ids: Arc<dyn Ids>,
    /// The layers over the backend: retries, time limits, bounds on calls at once, metrics.
    pub layers: StandardConfig,
    /// For remote stores: the bearer token.
    pub token: Option<Secret<String>>,
    /// For remote stores: certificate authorities in PEM, believed instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
}

impl StoreOptions {
    /// Standard layers, no token, the system's authorities.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self {
            clock,
            ids,
            layers: StandardConfig::default(),
            token: None,
            ca_pem: None,
        }
    }

    /// With a token.
    #[must_use]
    pub fn with_token(mut self, token: Secret<String>) -> Self {
        self.token = Some(token);
        self
    }

    /// With certificate authorities in PEM.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: Vec<u8>) -> Self {
        self.ca_pem = Some(pem);
        self
    }
}

impl StoreOptions {
    fn layered(&self, backend: DynBackend) -> DynBackend {
        layer::standard(backend, self.layers, self.clock.clone(), self.ids.clone())
    }
}

/// An open store, and how to end it in order.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub backend: DynBackend,
    #[cfg(feature = "sqlite")]
    sqlite: Option<Arc<skyloom_store_sql::SqliteStore>>,
}

impl Opened {
    fn of(backend: DynBackend) -> Self {
        Self {
            backend,
            #[cfg(feature = "sqlite")]
            sqlite: None,
        }
    }

    /// Ends the store in order. Not needed for safety: a store that is just dropped loses nothing acknowledged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close(self) -> Result<()> {
        #[cfg(feature = "sqlite")]
        if let Some(store) = self.sqlite {
            return store.close().await;
        }
        Ok(())
    }
}

/// The URI schemes that this build can open.
#[must_use]
pub fn schemes() -> Vec<&'static str> {
    let mut known = vec!["memory"];
    if cfg!(feature = "sqlite") {
        known.push("sqlite");
    }
    if cfg!(feature = "remote") {
        known.extend(["http", "https"]);
    }
    known
}

/// Opens the store that `uri` names: `memory:`, `sqlite:///absolute/path`, `https://api.example:8780`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] with the schemes that are compiled in, or those of the backend.
pub async fn open_store(uri: &str, options: &StoreOptions) -> Result<Opened> {
    let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
    match scheme {
        "memory" => {
            let store: DynBackend =
                Arc::new(MemoryStore::new(options.clock.clone(), MemoryConfig::default()));
            Ok(Opened::of(options.layered(store)))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let path = rest
                .strip_prefix("//")
                .filter(|p| p.starts_with('/'))
                .ok_or_else(|| {
                    Error::new(ErrorKind::Invalid, "open store")
                        .with("uri", uri)
                        .with("wanted", "sqlite:///absolute/path")
                })?;
            let config = skyloom_store_sql::SqliteConfig::new(path);
            let store = Arc::new(
                skyloom_store_sql::SqliteStore::open_or_create(config, options.clock.clone()).await?,
            );
            Ok(Opened {
                backend: options.layered(store.clone()),
                sqlite: Some(store),
            })
        }
        #[cfg(feature = "remote")]
        "http" | "https" => {
            let token = options.token.clone().ok_or_else(|| {
                Error::new(ErrorKind::Denied, "open store")
                    .with("uri", uri)
                    .with("missing", "a token")
            })?;
            let mut config = skyloom_store_remote::RemoteConfig::new(uri, token);
            if let Some(pem) = &options.ca_pem {
                config = config.with_ca_pem(pem.clone());
            }
            let store: DynBackend = Arc::new(skyloom_store_remote::RemoteStore::open(config)?);
            Ok(Opened::of(options.layered(store)))
        }
        _ => {
            let _ = rest;
            Err(Error::new(ErrorKind::Unsupported, "open store")
                .with("scheme", scheme)
                .with("this build knows", schemes().join(", ")))
        }
    }
}
