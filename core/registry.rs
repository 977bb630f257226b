//! Stores by URI: one line of configuration chooses the backend.
//!
//! | scheme | backend | feature |
//! | --- | --- | --- |
//! | `memory:` | this process's memory | - |
//! | `sqlite:///absolute/path` | a file, owned by this process | `sqlite` |
//! | `postgres://user:password@host/database` | PostgreSQL | `postgres` |
//! | `mysql://user:password@host/database` | MySQL or MariaDB | `mysql` |
//! | `etcd://host:2379,host:2379/prefix` | etcd | `etcd` |
//! | `mongodb://host:27017/database` | a replica set of MongoDB | `mongo` |
//! | `https://api.example:8780` | the store of another process, through its API | `remote` |
//!
//! What may stand in an address beside that (TLS, time limits, `allow_unsafe`) is in the README of each backend.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use skyloom_model::{Clock, Ids, Secret};
use skyloom_pki::ReloadingClient;
use skyloom_store::layer::{self, StandardConfig};
use skyloom_store::{About, DynBackend, Error, ErrorKind, MemoryConfig, MemoryStore, Result};

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
    /// For remote stores: whom to believe and what to show, instead of `ca_pem` and, if it shows something, of the token. It may be
    /// exchanged while it is in use.
    pub tls: Option<Arc<ReloadingClient>>,
    /// Create or upgrade what the store keeps its records in, where that is not done by opening (databases on servers).
    pub migrate: bool,
    /// Open only what is there: where opening would make an empty store (SQLite), it fails instead.
    pub existing: bool,
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
            tls: None,
            migrate: false,
            existing: false,
        }
    }

    /// Creating or upgrading the schema first.
    #[must_use]
    pub fn with_migrate(mut self) -> Self {
        self.migrate = true;
        self
    }

    /// Opening only what is there.
    #[must_use]
    pub fn with_existing(mut self) -> Self {
        self.existing = true;
        self
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

    /// With roots, and maybe a certificate, that may be exchanged.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ReloadingClient>) -> Self {
        self.tls = Some(tls);
        self
    }
}

impl StoreOptions {
    fn layered(&self, backend: DynBackend) -> DynBackend {
        layer::standard(backend, self.layers, self.clock.clone(), self.ids.clone())
    }
}

/// An open store, and how to end it in order.
pub struct Opened {
    /// The store.
    pub backend: DynBackend,
    /// What it rests on, where that is a server or a file of its own.
    pub about: Option<About>,
    end: Option<BoxFuture<'static, Result<()>>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl Opened {
    fn of(backend: DynBackend) -> Self {
        Self {
            backend,
            about: None,
            end: None,
        }
    }

    #[cfg(any(
        feature = "sqlite",
        feature = "postgres",
        feature = "mysql",
        feature = "etcd",
        feature = "mongo"
    ))]
    fn until(
        backend: DynBackend,
        about: About,
        end: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            backend,
            about: Some(about),
            end: Some(Box::pin(end)),
        }
    }

    /// Ends the store in order. Not needed for safety: a store that is just dropped loses nothing acknowledged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close(self) -> Result<()> {
        match self.end {
            Some(end) => end.await,
            None => Ok(()),
        }
    }
}

/// The URI schemes that this build can open.
#[must_use]
pub fn schemes() -> Vec<&'static str> {
    let mut known = vec!["memory"];
    if cfg!(feature = "sqlite") {
        known.push("sqlite");
    }
    if cfg!(feature = "postgres") {
        known.extend(["postgres", "postgresql"]);
    }
    if cfg!(feature = "mysql") {
        known.extend(["mysql", "mariadb"]);
    }
    if cfg!(feature = "etcd") {
        known.push("etcd");
    }
    if cfg!(feature = "mongo") {
        known.push("mongodb");
    }
    if cfg!(feature = "remote") {
        known.extend(["http", "https"]);
    }
    known
}

/// Opens the store that `uri` names.
///
/// # Errors
/// [`ErrorKind::Unsupported`] with the schemes that are compiled in, or those of the backend.
pub async fn open_store(uri: &str, options: &StoreOptions) -> Result<Opened> {
    let scheme = uri.split_once(':').map_or(uri, |(scheme, _)| scheme);
    match scheme {
        "memory" => {
            let store: DynBackend =
                Arc::new(MemoryStore::new(options.clock.clone(), MemoryConfig::default()));
            Ok(Opened::of(options.layered(store)))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite(uri, options).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres(uri, options).await,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => mysql(uri, options).await,
        #[cfg(feature = "etcd")]
        "etcd" => etcd(uri, options).await,
        #[cfg(feature = "mongo")]
        "mongodb" | "mongodb+srv" => mongo(uri, options).await,
        #[cfg(feature = "remote")]
        "http" | "https" => remote(uri, options),
        _ => Err(Error::new(ErrorKind::Unsupported, "open store")
            .with("scheme", scheme)
            .with("this build knows", schemes().join(", "))),
    }
}

/// What [`migrate_store`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaChange {
    /// This kind of store needs none.
    NotNeeded,
    /// It was there, or was made, by being opened.
    Opened,
    /// There was nothing; now there is an empty store.
    Created,
    /// It is of this version already.
    Current,
    /// The schema went from one version to another.
    Upgraded {
        /// Found.
        from: u32,
        /// Now.
        to: u32,
    },
}

/// Creates or upgrades what the store at `uri` keeps its records in.
///
/// # Errors
/// As [`open_store`].
pub async fn migrate_store(uri: &str, options: &StoreOptions) -> Result<SchemaChange> {
    match uri.split_once(':').map_or(uri, |(scheme, _)| scheme) {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            sqlite(uri, options).await?.close().await?;
            Ok(SchemaChange::Opened)
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let config = skyloom_store_sql::ServerConfig::from_uri(uri)?;
            Ok(schema(skyloom_store_sql::PostgresStore::migrate(&config).await?))
        }
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => {
            let config = skyloom_store_sql::ServerConfig::from_uri(uri)?;
            Ok(schema(skyloom_store_sql::MySqlStore::migrate(&config).await?))
        }
        #[cfg(feature = "mongo")]
        "mongodb" | "mongodb+srv" => {
            let config = skyloom_store_mongo::MongoConfig::from_uri(uri)?;
            Ok(match skyloom_store_mongo::migrate(&config).await? {
                skyloom_store_mongo::Migrated::Created => SchemaChange::Created,
                _ => SchemaChange::Current,
            })
        }
        _ => {
            open_store(uri, options).await?.close().await?;
            Ok(SchemaChange::NotNeeded)
        }
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn schema(done: skyloom_store_sql::Migrated) -> SchemaChange {
    match (done.from, done.to) {
        (0, _) => SchemaChange::Created,
        (from, to) if from == to => SchemaChange::Current,
        (from, to) => SchemaChange::Upgraded { from, to },
    }
}

#[cfg(feature = "sqlite")]
async fn sqlite(uri: &str, options: &StoreOptions) -> Result<Opened> {
    use skyloom_store_sql::{SqliteConfig, SqliteStore};
    let path = uri
        .strip_prefix("sqlite://")
        .filter(|path| path.starts_with('/'))
        .ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "open store")
                .with("uri", uri)
                .with("wanted", "sqlite:///absolute/path")
        })?;
    let config = SqliteConfig::new(path);
    let store = if options.existing {
        SqliteStore::open(config, options.clock.clone()).await?
    } else {
        SqliteStore::open_or_create(config, options.clock.clone()).await?
    };
    let store = Arc::new(store);
    let about = store.about().clone();
    Ok(Opened::until(options.layered(store.clone()), about, async move {
        store.close().await
    }))
}

#[cfg(feature = "postgres")]
async fn postgres(uri: &str, options: &StoreOptions) -> Result<Opened> {
    use skyloom_store_sql::{PostgresStore, ServerConfig};
    let config = ServerConfig::from_uri(uri)?;
    if options.migrate {
        PostgresStore::migrate(&config).await?;
    }
    let store = Arc::new(PostgresStore::open(config).await?);
    let about = store.about().clone();
    Ok(Opened::until(options.layered(store.clone()), about, async move {
        store.close().await
    }))
}

#[cfg(feature = "mysql")]
async fn mysql(uri: &str, options: &StoreOptions) -> Result<Opened> {
    use skyloom_store_sql::{MySqlStore, ServerConfig};
    let config = ServerConfig::from_uri(uri)?;
    if options.migrate {
        MySqlStore::migrate(&config).await?;
    }
    let store = Arc::new(MySqlStore::open(config).await?);
    let about = store.about().clone();
    Ok(Opened::until(options.layered(store.clone()), about, async move {
        store.close().await
    }))
}

#[cfg(feature = "etcd")]
async fn etcd(uri: &str, options: &StoreOptions) -> Result<Opened> {
    use skyloom_store_etcd::{EtcdConfig, EtcdStore};
    let store = EtcdStore::open(EtcdConfig::from_uri(uri)?, options.clock.clone()).await?;
    let store = Arc::new(store);
    let about = store.about();
    Ok(Opened::until(options.layered(store.clone()), about, async move {
        store.close().await
    }))
}

#[cfg(feature = "mongo")]
async fn mongo(uri: &str, options: &StoreOptions) -> Result<Opened> {
    use skyloom_store_mongo::{MongoConfig, MongoStore};
    let config = MongoConfig::from_uri(uri)?;
    if options.migrate {
        skyloom_store_mongo::migrate(&config).await?;
    }
    let store = Arc::new(MongoStore::open(config).await?);
    let about = store.about().clone();
    Ok(Opened::until(options.layered(store.clone()), about, async move {
        store.close().await;
        Ok(())
    }))
}

#[cfg(feature = "remote")]
fn remote(uri: &str, options: &StoreOptions) -> Result<Opened> {
    use skyloom_store_remote::{LiveTls, RemoteConfig};
    let tls = options.tls.clone().map(|client| LiveTls {
        client,
        clock: options.clock.clone(),
    });
    let mut config = match (options.token.clone(), tls) {
        (Some(token), None) => RemoteConfig::new(uri, token),
        (Some(token), Some(tls)) => RemoteConfig::new(uri, token).with_tls(tls),
        (None, Some(tls)) if tls.client.key_name().is_some() => RemoteConfig::by_certificate(uri, tls),
        (None, _) => {
            return Err(Error::new(ErrorKind::Denied, "open store")
                .with("uri", uri)
                .with("missing", "a token or a certificate"));
        }
    };
    if let Some(pem) = &options.ca_pem {
        config = config.with_ca_pem(pem.clone());
    }
    let store: DynBackend = Arc::new(skyloom_store_remote::RemoteStore::open(config)?);
    Ok(Opened::of(options.layered(store)))
}

/// A store's address as it may be shown: without the password and whatever else stands before the `@`.
#[must_use]
pub fn shown(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_secrets() {
        for (uri, wanted) in [
            ("memory:", "memory:"),
            ("sqlite:///var/lib/a.db", "sqlite:///var/lib/a.db"),
            (
                "postgres://me:s3cret@db:5432/cloud?sslmode=x&password=y",
                "postgres://db:5432/cloud",
            ),
            ("mongodb://u:p%40@a:1,b:2/cloud", "mongodb://a:1,b:2/cloud"),
            ("etcd://u:s@h:2379", "etcd://h:2379"),
        ] {
            assert_eq!(shown(uri), wanted);
        }
    }
}
