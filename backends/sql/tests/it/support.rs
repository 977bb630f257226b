//! Short words for the tests.

use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use skyloom_model::ManualClock;
use skyloom_store::{
    Change, Key, KeyValue, ListOptions, Outcome, Prefix, Result, Revision, Store, Txn, Value, WatchEvent,
};
use skyloom_store_sql::{SqliteConfig, SqliteStore};
use tempfile::TempDir;

/// A folder with room for one database.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) clock: ManualClock,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: ManualClock::new(),
        }
    }
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }
    pub(crate) fn config(&self) -> SqliteConfig {
        SqliteConfig::new(self.path())
    }
    pub(crate) async fn open(&self) -> SqliteStore {
        self.open_with(self.config()).await
    }
    pub(crate) async fn open_with(&self, config: SqliteConfig) -> SqliteStore {
        SqliteStore::open_or_create(config, Arc::new(self.clock.clone()))
            .await
            .unwrap()
    }
}

pub(crate) fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}
pub(crate) fn prefix(path: &str) -> Prefix {
    Prefix::parse(path).unwrap()
}
pub(crate) fn json(text: &str) -> Value {
    Value::from_json_bytes(text.as_bytes().to_vec())
}

pub(crate) async fn put(store: &SqliteStore, path: &str, text: &str) -> Revision {
    committed(store.commit(Txn::new().put(key(path), json(text))).await)
}
pub(crate) async fn delete(store: &SqliteStore, path: &str) -> Revision {
    committed(store.commit(Txn::new().delete(key(path))).await)
}
pub(crate) fn committed(outcome: Result<Outcome>) -> Revision {
    outcome.unwrap().committed().unwrap()
}

/// All documents below a prefix, page by page, at `at` or now.
pub(crate) async fn all(store: &dyn Store, below: &str, at: Option<Revision>) -> Result<Vec<KeyValue>> {
    let mut options = ListOptions::default().with_limit(3);
    options.at = at;
    let mut items = Vec::new();
    loop {
        let page = store.list(&prefix(below), options.clone()).await?;
        items.extend(page.items);
        match items.last() {
            Some(KeyValue { key, .. }) if page.more => {
                options = options.with_at(page.revision).with_after(key.clone());
            }
            _ => return Ok(items),
        }
    }
}

/// Commits up to and including `last`, as (revision, changes); `None` when a gap came first.
pub(crate) async fn commits_until(
    stream: &mut BoxStream<'static, Result<WatchEvent>>,
    last: Revision,
) -> Option<Vec<(Revision, Vec<Change>)>> {
    let mut commits = Vec::new();
    loop {
        match stream.next().await.unwrap().unwrap() {
            WatchEvent::Commit { revision, changes } => {
                commits.push((revision, changes));
                if revision >= last {
                    return Some(commits);
                }
            }
            WatchEvent::Progress(revision) if revision >= last => return Some(commits),
            WatchEvent::Progress(_) => {}
            WatchEvent::Gap { .. } => return None,
        }
    }
}

impl Place {
    /// A plain connection to the closed database, as an operator's tool has it.
    pub(crate) async fn sql(&self) -> sqlx::SqliteConnection {
        use sqlx::ConnectOptions as _;
        sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.path())
            .connect()
            .await
            .unwrap()
    }
    pub(crate) async fn sql_number(&self, query: &'static str) -> i64 {
        use sqlx::Connection as _;
        let mut conn = self.sql().await;
        let (n,): (i64,) = sqlx::query_as(query).fetch_one(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        n
    }
    pub(crate) async fn sql_run(&self, statement: &'static str) {
        use sqlx::Connection as _;
        let mut conn = self.sql().await;
        sqlx::query(statement).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }
}

impl Place {
    /// Some other program's database.
    pub(crate) async fn sql_create(&self) {
        use sqlx::{ConnectOptions as _, Connection as _};
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.path())
            .create_if_missing(true);
        let mut conn = options.connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE songs (title TEXT)")
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
    }
}
