//! Short words for the tests.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use skyloom_store::{
    Backend, Change, Key, KeyValue, ListOptions, Outcome, Prefix, Result, Revision, Txn, Value, WatchEvent,
};
use skyloom_store_sql::{Engine, ServerConfig};

use crate::servers::{Handle, Server, shared};
use crate::stall::Somebody;

/// Longest wait for what must come.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The program's server of this kind.
pub(crate) async fn server(engine: Engine) -> Arc<Server> {
    tokio::task::spawn_blocking(move || shared(engine).unwrap())
        .await
        .unwrap()
}

/// A server of its own, with these settings.
pub(crate) async fn own_server(engine: Engine, settings: &'static [&'static str]) -> Arc<Server> {
    tokio::task::spawn_blocking(move || Arc::new(Server::start(engine, settings).unwrap()))
        .await
        .unwrap()
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
pub(crate) fn put_txn(path: &str, text: &str) -> Txn {
    Txn::new().put(key(path), json(text))
}
pub(crate) async fn put(store: &dyn Backend, path: &str, text: &str) -> Revision {
    committed(store.commit(put_txn(path, text)).await)
}
pub(crate) fn committed(outcome: Result<Outcome>) -> Revision {
    outcome.unwrap().committed().unwrap()
}

/// All documents below a prefix, page by page, at `at` or now.
pub(crate) async fn all(
    store: &dyn Backend,
    below: &str,
    at: Option<Revision>,
    limit: usize,
) -> Result<Vec<KeyValue>> {
    let mut options = ListOptions::default().with_limit(limit);
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
        let item = tokio::time::timeout(LIMIT, stream.next())
            .await
            .expect("no event came");
        match item.unwrap().unwrap() {
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

/// Waits for something that another process brings about.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .unwrap_or_else(|_| panic!("still not so: {what}"));
}

/// Commits `txns` in one database transaction: they are queued while another commit is held up.
pub(crate) async fn together(
    config: &ServerConfig,
    server: &Server,
    store: &Handle,
    txns: Vec<Txn>,
) -> Vec<Result<Outcome>> {
    let backend = store.backend();
    let hold = Somebody::hold(config.engine, server, &config.prefix).await;
    // It changes nothing, and takes the committer's attention.
    let mut first = backend.commit(Txn::new());
    assert!(futures::poll!(&mut first).is_pending());
    let p = &config.prefix;
    let waiting = match config.engine {
        Engine::Postgres => format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{p}\\_commit%'"
        ),
        _ => format!(
            "SELECT COUNT(*) FROM information_schema.processlist \
              WHERE info LIKE '%{p}\\_state WHERE id = 1 FOR UPDATE%' AND id <> CONNECTION_ID()"
        ),
    };
    until("the committer waits", async || {
        server.number(&waiting).await.unwrap() == 1
    })
    .await;
    let mut calls: Vec<_> = txns.into_iter().map(|txn| backend.commit(txn)).collect();
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    hold.commit().await;
    first.await.unwrap();
    futures::future::join_all(calls).await
}
