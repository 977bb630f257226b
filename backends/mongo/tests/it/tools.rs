//! Short words for the tests.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection, Database};
use skyloom_store::{
    Change, Key, KeyValue, LeaseName, ListOptions, Outcome, Prefix, Result, Revision, Store, Txn, Value,
    Watch, WatchEvent, WatchOptions,
};
use skyloom_store_mongo::{MongoConfig, MongoStore};

use crate::support::Server;

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}
pub(crate) fn prefix(path: &str) -> Prefix {
    Prefix::parse(path).unwrap()
}
pub(crate) fn lease(name: &str) -> LeaseName {
    LeaseName::parse(name).unwrap()
}
pub(crate) fn json(text: &str) -> Value {
    Value::from_json_bytes(text.as_bytes().to_vec())
}

/// Settings with more patience than a loaded machine needs.
pub(crate) fn patient(server: &Server) -> MongoConfig {
    let mut config = server.fresh();
    config.call_ms = 30_000;
    config.connect_ms = 20_000;
    config
}

pub(crate) async fn open(config: &MongoConfig) -> Arc<MongoStore> {
    Arc::new(MongoStore::open_or_create(config.clone()).await.unwrap())
}

/// Another store on the same database, through the listener on `port`.
pub(crate) async fn open_through(config: &MongoConfig, port: u16) -> Arc<MongoStore> {
    let mut config = config.clone();
    config.uri = Server::uri_through(port);
    Arc::new(MongoStore::open(config).await.unwrap())
}

pub(crate) fn committed(outcome: Result<Outcome>) -> Revision {
    outcome.unwrap().committed().unwrap()
}
pub(crate) async fn put(store: &MongoStore, path: &str, text: &str) -> Revision {
    committed(store.commit(Txn::new().put(key(path), json(text))).await)
}
pub(crate) async fn get(store: &MongoStore, path: &str) -> Option<String> {
    let kv = store.get(&key(path)).await.unwrap()?;
    Some(String::from_utf8(kv.value.bytes().to_vec()).unwrap())
}

/// All documents below a prefix, page by page, at `at` or now.
pub(crate) async fn all(
    store: &dyn Store,
    below: &str,
    at: Option<Revision>,
    page: usize,
) -> Result<Vec<KeyValue>> {
    let mut options = ListOptions::default().with_limit(page);
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

/// The server as an operator's shell has it.
pub(crate) struct Shell {
    pub(crate) client: Client,
    pub(crate) db: Database,
    prefix: String,
}

impl Shell {
    pub(crate) async fn on(config: &MongoConfig) -> Self {
        let client = Client::with_uri_str(&config.uri).await.unwrap();
        Self {
            db: client.database(&config.database),
            client,
            prefix: config.prefix.clone(),
        }
    }
    pub(crate) fn collection(&self, name: &str) -> Collection<Document> {
        self.db.collection(&format!("{}{name}", self.prefix))
    }
    pub(crate) async fn count(&self, name: &str) -> u64 {
        self.collection(name).count_documents(doc! {}).await.unwrap()
    }
    pub(crate) async fn one(&self, name: &str, filter: Document) -> Option<Document> {
        self.collection(name).find_one(filter).await.unwrap()
    }
    /// Makes the next `times` of these commands fail.
    pub(crate) async fn fail(&self, times: i32, data: Document) {
        let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        self.client.database("admin").run_command(command).await.unwrap();
    }
}

/// A watch that may not wait without end.
pub(crate) struct Events(BoxStream<'static, Result<WatchEvent>>);

impl Events {
    pub(crate) fn of(store: &MongoStore, below: &str, options: WatchOptions) -> Self {
        Self(store.watch(&prefix(below), options))
    }
    pub(crate) fn after(store: &MongoStore, below: &str, revision: Revision) -> Self {
        Self::of(store, below, WatchOptions::after(revision).with_buffer(1 << 20))
    }
    pub(crate) async fn item(&mut self) -> Option<Result<WatchEvent>> {
        tokio::time::timeout(LIMIT, self.0.next())
            .await
            .expect("an event comes")
    }
    /// The next commit.
    pub(crate) async fn commit(&mut self) -> (Revision, Vec<Change>) {
        loop {
            match self.item().await.expect("the stream goes on").unwrap() {
                WatchEvent::Commit { revision, changes } => return (revision, changes),
                WatchEvent::Progress(_) => {}
                gap @ WatchEvent::Gap { .. } => panic!("{gap:?} instead of a commit"),
            }
        }
    }
    /// The gap that must come next.
    pub(crate) async fn gap(&mut self) -> Revision {
        match self.item().await {
            Some(Ok(WatchEvent::Gap { floor })) => floor,
            other => panic!("wanted a gap, got {other:?}"),
        }
    }
}

/// Looks until `look` finds something.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, search).await.expect("it happens")
}
