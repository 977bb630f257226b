//! The exam of every store, sat by a remote store: each case talks to a real API server on loopback, with a memory store
//! or SQLite behind it; with SQLite also over TLS.

mod server;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_model::ManualClock;
use skyloom_store::conformance::soak::{self, Amount, Line};
use skyloom_store::conformance::{Abilities, Exam, Failure, MemoryExam, Sitting, Verdict, conclude, trials};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use skyloom_store_sql::{SqliteConfig, SqliteStore};
use tempfile::TempDir;

use crate::server::{ApiServer, self_signed};

/// A remote store before what another exam examines.
struct RemoteExam<E> {
    inner: E,
    tls: Option<Tls>,
    /// Whether the connections are cut now and then.
    cut: bool,
}

/// The authority's certificate, and the server that shows one of it.
type Tls = (String, Arc<rustls::ServerConfig>);

struct RemoteSitting {
    inner: Box<dyn Sitting>,
    tls: Option<Tls>,
    cut: bool,
    /// Present but during [`Sitting::reopen`].
    open: Option<Open>,
}

struct Open {
    server: ApiServer,
    config: RemoteConfig,
    store: Arc<RemoteStore>,
    line: Option<Line>,
}

impl RemoteSitting {
    async fn open(inner: &dyn Sitting, tls: Option<&Tls>, cut: bool) -> Result<Open, Failure> {
        let server = match tls {
            None => ApiServer::start(inner.store()).await,
            Some((_, server)) => {
                let any = ([127, 0, 0, 1], 0).into();
                ApiServer::start_at(any, inner.store(), Some(Arc::clone(server)), None).await
            }
        };
        let server = server.map_err(|e| Failure::new(e.to_string()))?;
        let mut config = config(&server, tls);
        let mut line = None;
        if cut {
            let (between, near) = Line::tcp(server.address)
                .await
                .map_err(|e| Failure::new(e.to_string()))?;
            config.url = format!("http://{near}");
            line = Some(between);
        }
        let store = Arc::new(RemoteStore::connect(config.clone()).await?);
        Ok(Open {
            server,
            config,
            store,
            line,
        })
    }

    fn parts(&self) -> &Open {
        self.open.as_ref().expect("the server runs between two calls")
    }

    async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            drop((open.store, open.line));
            open.server.stop().await;
        }
    }
}

fn config(server: &ApiServer, tls: Option<&Tls>) -> RemoteConfig {
    let config = server.config();
    match tls {
        None => config,
        Some((authority, _)) => {
            let url = format!("https://localhost:{}", server.address.port());
            RemoteConfig::new(url, config.token.expect("a token")).with_ca_pem(authority.as_str())
        }
    }
}

#[async_trait]
impl<E: Exam> Exam for RemoteExam<E> {
    fn name(&self) -> String {
        let tls = if self.tls.is_some() { "-tls" } else { "" };
        format!("remote{tls}-{}", self.inner.name())
    }
    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }
    fn ttl(&self) -> Duration {
        self.inner.ttl()
    }
    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let inner = self.inner.fresh().await?;
        let tls = self.tls.clone();
        let cut = self.cut;
        let open = Some(RemoteSitting::open(&*inner, tls.as_ref(), cut).await?);
        Ok(Box::new(RemoteSitting {
            inner,
            tls,
            cut,
            open,
        }))
    }
}

#[async_trait]
impl Sitting for RemoteSitting {
    fn store(&self) -> DynBackend {
        self.parts().store.clone()
    }
    fn second(&self) -> DynBackend {
        let config = self.parts().config.clone();
        Arc::new(RemoteStore::open(config).expect("a configuration that was good once"))
    }
    async fn pass_time(&self, by: Duration) {
        self.inner.pass_time(by).await;
    }
    async fn compact(&self, revision: Revision) -> Verdict {
        self.inner.compact(revision).await
    }
    async fn reopen(&mut self) -> Verdict {
        self.close().await;
        self.inner.reopen().await?;
        self.open = Some(Self::open(&*self.inner, self.tls.as_ref(), self.cut).await?);
        Ok(())
    }
    async fn disturb(&self, _: u64) -> Verdict {
        if let Some(line) = &self.parts().line {
            line.cut();
        }
        Ok(())
    }
    async fn end(mut self: Box<Self>) {
        self.close().await;
        self.inner.end().await;
    }
}

/// SQLite in a folder of its own, with a manual clock.
struct SqliteExam;

struct SqliteSitting {
    dir: TempDir,
    clock: ManualClock,
    store: Option<Arc<SqliteStore>>,
}

impl SqliteSitting {
    async fn open(dir: &TempDir, clock: &ManualClock) -> Result<Arc<SqliteStore>, Failure> {
        let config = SqliteConfig::new(dir.path().join("store.db"));
        Ok(Arc::new(
            SqliteStore::open_or_create(config, Arc::new(clock.clone())).await?,
        ))
    }

    fn sqlite(&self) -> &Arc<SqliteStore> {
        self.store.as_ref().expect("the store is open between two calls")
    }
}

#[async_trait]
impl Exam for SqliteExam {
    fn name(&self) -> String {
        "sqlite".to_owned()
    }
    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: true,
        }
    }
    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let dir = tempfile::tempdir().map_err(|e| Failure::new(e.to_string()))?;
        let clock = ManualClock::new();
        let store = Some(SqliteSitting::open(&dir, &clock).await?);
        Ok(Box::new(SqliteSitting { dir, clock, store }))
    }
}

#[async_trait]
impl Sitting for SqliteSitting {
    fn store(&self) -> DynBackend {
        self.sqlite().clone()
    }
    async fn pass_time(&self, by: Duration) {
        self.clock.advance(by);
    }
    async fn compact(&self, revision: Revision) -> Verdict {
        Ok(self.sqlite().compact(revision).await?)
    }
    async fn reopen(&mut self) -> Verdict {
        if let Some(store) = self.store.take() {
            store.close().await?;
        }
        self.store = Some(Self::open(&self.dir, &self.clock).await?);
        Ok(())
    }
    async fn end(self: Box<Self>) {
        let _ = self.sqlite().close().await;
    }
}

/// How long the long part is, from the environment.
#[expect(clippy::disallowed_methods, reason = "a test is told by whoever runs it")]
fn amount() -> Amount {
    Amount::parse(std::env::var("SKYLOOM_SOAK").ok().as_deref()).expect("HISTORIES,CHANGES[,SEED]")
}

fn main() -> ExitCode {
    let over_sqlite = |tls, cut| RemoteExam {
        inner: SqliteExam,
        tls,
        cut,
    };
    let exams: [Arc<dyn Exam>; 3] = [
        Arc::new(RemoteExam {
            inner: MemoryExam::new(),
            tls: None,
            cut: false,
        }),
        Arc::new(over_sqlite(None, false)),
        Arc::new(over_sqlite(Some(self_signed()), false)),
    ];
    let long = soak::trials(Arc::new(over_sqlite(None, true)), amount());
    conclude(exams.into_iter().flat_map(trials).chain(long).collect())
}
