//! The line to the server is cut at the worst moment: by a proxy that knows a commit by the key in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use skyloom_store::{ErrorKind, Outcome};
use skyloom_store_sql::{Engine, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::servers::{Handle, Server};
use crate::support::{LIMIT, committed, key, put, put_txn, server, until};

/// The key that makes the proxy act.
const MARK: &str = "mark/here";

/// What to do with the request that carries the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Pass it on, and cut the line before the answer.
    CutAfter,
    /// Cut the line instead.
    CutInstead,
    /// Cut the client's side, and pass it on when told to.
    Late,
    /// Keep it, and say nothing.
    Silence,
}

/// A unix socket in front of the server's.
struct Proxy {
    dir: TempDir,
    deed: Arc<Mutex<Option<Deed>>>,
    release: Arc<Notify>,
    released: Arc<Notify>,
    _tasks: JoinSet<()>,
}

fn socket(engine: Engine, dir: &TempDir) -> PathBuf {
    dir.path().join(match engine {
        Engine::Postgres => ".s.PGSQL.5432",
        _ => "mysql.sock",
    })
}

impl Proxy {
    fn start(engine: Engine, server: &Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket(engine, &dir)).unwrap();
        let behind = server.socket();
        let deed = Arc::new(Mutex::new(None));
        let (release, released) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut tasks = JoinSet::new();
        let (shared, go, gone) = (Arc::clone(&deed), Arc::clone(&release), Arc::clone(&released));
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&behind).await else {
                    continue;
                };
                lines.spawn(line(
                    client,
                    server,
                    Arc::clone(&shared),
                    Arc::clone(&go),
                    Arc::clone(&gone),
                ));
            }
        });
        Self {
            dir,
            deed,
            release,
            released,
            _tasks: tasks,
        }
    }

    fn config(&self, mut config: ServerConfig) -> ServerConfig {
        config.socket = Some(match config.engine {
            Engine::Postgres => self.dir.path().to_owned(),
            engine => socket(engine, &self.dir),
        });
        config
    }
}

/// What the server says, for the client until that is cut off.
async fn answers(mut from: OwnedReadHalf, to: OwnedWriteHalf, line: Arc<Line>) {
    let mut buffer = vec![0; 1 << 16];
    let mut to = Some(to);
    loop {
        tokio::select! {
            biased;
            () = line.cut.notified() => to = None,
            read = from.read(&mut buffer) => match (read, &mut to) {
                (Ok(n @ 1..), Some(to)) if !line.mute.load(Ordering::SeqCst) => {
                    if to.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
                // Heard by nobody; a closed connection is an answer too.
                (read, to) => {
                    *to = None;
                    line.answered.notify_one();
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                }
            }
        }
    }
}

/// What the two directions of a line tell each other.
#[derive(Default)]
struct Line {
    mute: AtomicBool,
    cut: Notify,
    answered: Notify,
}

async fn line(
    client: UnixStream,
    server: UnixStream,
    deed: Arc<Mutex<Option<Deed>>>,
    go: Arc<Notify>,
    gone: Arc<Notify>,
) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let line = Arc::new(Line::default());
    let mut back = JoinSet::new();
    back.spawn(answers(from_server, to_client, Arc::clone(&line)));
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(n @ 1..) = from_client.read(&mut buffer).await else {
            return;
        };
        let request = &buffer[..n];
        let marked = request.windows(MARK.len()).any(|w| w == MARK.as_bytes());
        let act = if marked { deed.lock().take() } else { None };
        match act {
            None => {
                if to_server.write_all(request).await.is_err() {
                    return;
                }
            }
            Some(Deed::CutInstead) => return,
            Some(Deed::CutAfter) => {
                line.mute.store(true, Ordering::SeqCst);
                let _ = to_server.write_all(request).await;
                line.answered.notified().await;
                // The server has done it but for the last step, which it does as long as its side is open. Its answer
                // goes nowhere, and the client's side is closed.
                drop(from_client);
                return std::future::pending::<()>().await;
            }
            Some(Deed::Silence) => {
                line.mute.store(true, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            Some(Deed::Late) => {
                line.cut.notify_one();
                let request = request.to_vec();
                drop(from_client); // and with it the client's side
                go.notified().await;
                let _ = to_server.write_all(&request).await;
                line.answered.notified().await;
                return gone.notify_one();
            }
        }
    }
}

/// A store behind a proxy, and one that is not.
async fn both(engine: Engine, patience_ms: u64) -> (Proxy, Handle, Handle, Arc<Server>, ServerConfig) {
    let server = server(engine).await;
    let mut config = server.config();
    config.statement_timeout_ms = patience_ms;
    let proxy = Proxy::start(engine, &server);
    let direct = Handle::create(config.clone()).await.unwrap();
    let cut = Handle::open(proxy.config(config.clone())).await.unwrap();
    // Statements are prepared by now, so that a commit is one request.
    put(&*cut.backend(), "warm", "1").await;
    (proxy, cut, direct, server, config)
}

async fn end(handles: [Handle; 2]) {
    for handle in handles {
        handle.close().await.unwrap();
    }
}

pub(crate) async fn a_commit_whose_answer_is_lost_is_found_to_have_happened(engine: Engine) {
    let (proxy, cut, direct, ..) = both(engine, 30_000).await;
    *proxy.deed.lock() = Some(Deed::CutAfter);
    let revision = committed(cut.backend().commit(put_txn(MARK, "7")).await);
    let there = direct.backend().get(&key(MARK)).await.unwrap().unwrap();
    assert_eq!(there.modified, revision);
    assert_eq!(cut.stats().lost, 1);
    // Its own watchers have seen it, and it goes on.
    let next = put(&*cut.backend(), "next", "1").await;
    assert!(next > revision);
    until("the feed has both", async || cut.stats().revision >= next).await;
    end([cut, direct]).await;
}

pub(crate) async fn a_commit_that_never_arrived_is_known_not_to_have_happened(engine: Engine) {
    let (proxy, cut, direct, ..) = both(engine, 30_000).await;
    *proxy.deed.lock() = Some(Deed::CutInstead);
    let e = cut.backend().commit(put_txn(MARK, "7")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
    assert!(e.to_string().contains("nothing was changed"), "{e}");
    assert_eq!(direct.backend().get(&key(MARK)).await.unwrap(), None);
    put(&*cut.backend(), MARK, "8").await;
    end([cut, direct]).await;
}

pub(crate) async fn a_commit_that_arrives_late_does_nothing(engine: Engine) {
    let (proxy, cut, direct, server, config) = both(engine, 30_000).await;
    *proxy.deed.lock() = Some(Deed::Late);
    let e = cut.backend().commit(put_txn(MARK, "7")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
    let before = put(&*direct.backend(), "marker", "1").await;
    // Now the server gets it after all, and refuses it: its sender's leave to write is gone.
    let writers = format!("SELECT count(*) FROM {}_writers", config.prefix);
    let count = server.number(&writers).await.unwrap();
    proxy.release.notify_one();
    tokio::time::timeout(LIMIT, proxy.released.notified())
        .await
        .unwrap();
    let answer = direct.backend().commit(put_txn("after", "1")).await.unwrap();
    // Between the two commits there is none.
    assert_eq!(
        answer,
        Outcome::Committed {
            revision: skyloom_store::Revision(before.0 + 1)
        }
    );
    assert_eq!(direct.backend().get(&key(MARK)).await.unwrap(), None);
    assert_eq!(server.number(&writers).await.unwrap(), count);
    put(&*cut.backend(), "goes/on", "1").await;
    assert_eq!(direct.backend().get(&key(MARK)).await.unwrap(), None);
    end([cut, direct]).await;
}

pub(crate) async fn a_silent_server_is_given_up(engine: Engine) {
    let (proxy, cut, direct, ..) = both(engine, 500).await;
    *proxy.deed.lock() = Some(Deed::Silence);
    let answer = tokio::time::timeout(LIMIT, cut.backend().commit(put_txn(MARK, "7"))).await;
    let e = answer.expect("waits for ever").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
    assert_eq!(direct.backend().get(&key(MARK)).await.unwrap(), None);
    put(&*cut.backend(), "goes/on", "1").await;
    end([cut, direct]).await;
}
