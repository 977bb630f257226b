//! What a remote store says when the network or the far end misbehaves.

#![allow(clippy::unwrap_used, reason = "tests")]

mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_model::{ManualClock, Secret, SystemClock};
use skyloom_store::{
    Class, DynBackend, ErrorKind, Key, LeaseMode, LeaseName, Leases as _, ListOptions, MemoryConfig,
    MemoryStore, Mirror, Outcome, Prefix, Revision, Store as _, Txn, Value, Watch as _, WatchEvent,
    WatchOptions,
};
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::ApiServer;

fn memory() -> DynBackend {
    Arc::new(MemoryStore::new(
        Arc::new(SystemClock::new()),
        MemoryConfig::default(),
    ))
}

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

fn put(path: &str) -> Txn {
    Txn::new().put(key(path), Value::json(&1).unwrap())
}

/// A peer that reads one request per connection, tells of it, writes `answer`, and closes, or stays silent.
struct Peer {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
    _task: JoinSet<()>,
}

async fn peer(answer: impl Into<Vec<u8>>, then_close: bool) -> Peer {
    let (answer, listener) = (answer.into(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let (tell, requests) = mpsc::unbounded_channel();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // The bodies of these tests are short: head and body are there when the body's last brace is.
            while !(request.windows(4).any(|w| w == b"\r\n\r\n") && request.ends_with(b"}")) {
                let mut chunk = [0; 4096];
                let n = stream.read(&mut chunk).await.unwrap();
                assert_ne!(n, 0, "the request broke off");
                request.extend_from_slice(&chunk[..n]);
            }
            tell.send(String::from_utf8(request).unwrap()).unwrap();
            // The reader may have had enough and gone.
            let _ = stream.write_all(&answer).await;
            if !then_close {
                open.push(stream);
            }
        }
    });
    Peer {
        address,
        requests,
        _task: task,
    }
}

impl Peer {
    fn store(&self) -> RemoteStore {
        RemoteStore::open(self.config()).unwrap()
    }
    fn config(&self) -> RemoteConfig {
        RemoteConfig::new(
            format!("http://{}", self.address),
            Secret::new("sky_secret".to_owned()),
        )
        .with_request_timeout(Duration::from_millis(300))
        .with_silence_timeout(Duration::from_millis(300))
    }
    /// Requests that arrived so far.
    fn heard(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }
}

fn http(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn nobody_there_is_unavailable_also_for_commits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let store = RemoteStore::open(RemoteConfig::new(
        format!("http://{address}"),
        Secret::new("t".to_owned()),
    ))
    .unwrap();
    let error = store.commit(put("a")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (ErrorKind::Unavailable, Class::Transient)
    );
    assert_eq!(
        store.get(&key("a")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let mut watch = store.watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    assert_eq!(
        watch.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(watch.next().await.is_none(), "an error is the last item");
}

#[tokio::test]
async fn a_lost_answer_is_unknown_for_commits_only_and_nothing_is_sent_twice() {
    for (answer, close) in [
        ("", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"comm", true),
        ("", false),
    ] {
        let mut peer = peer(answer, close).await;
        let store = peer.store();
        let error = store.commit(put("a")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (ErrorKind::Unknown, Class::Permanent),
            "{answer:?} {close}"
        );
        assert_eq!(peer.heard(), 1, "one commit, one request");
        let read = store.get(&key("a")).await.unwrap_err().kind();
        let want = if close {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Timeout
        };
        assert_eq!(read, want, "{answer:?}");
        // Without writes nothing can have happened.
        let checked = store.commit(Txn::new()).await.unwrap_err().kind();
        assert_eq!(checked, want, "{answer:?}");
    }
}

#[tokio::test]
async fn strangers_in_between_leave_a_commit_unknown() {
    let page = "<html>Bad Gateway</html>";
    for (status, read) in [
        ("502 Bad Gateway", ErrorKind::Unavailable),
        ("503 Service Unavailable", ErrorKind::Unavailable),
        ("504 Gateway Timeout", ErrorKind::Timeout),
        ("500 Internal Server Error", ErrorKind::Internal),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", ErrorKind::Internal),
    ] {
        let peer = peer(http(status, "text/html", page), true).await;
        assert_eq!(
            peer.store().commit(put("a")).await.unwrap_err().kind(),
            ErrorKind::Unknown,
            "{status}"
        );
        assert_eq!(
            peer.store().get(&key("a")).await.unwrap_err().kind(),
            read,
            "{status}"
        );
    }
}

#[tokio::test]
async fn refusals_of_our_own_server_say_what_happened() {
    let problem = |code: &str| format!("{{\"code\":\"{code}\",\"detail\":\"d\"}}");
    let told =
        "{\"code\":\"store.full\",\"store\":{\"kind\":\"full\",\"operation\":\"commit\",\"message\":\"m\"}}";
    let newer = "{\"code\":\"x\",\"store\":{\"kind\":\"from_the_future\",\"operation\":\"commit\",\"message\":\"m\"}}";
    for (status, body, kind) in [
        ("401 Unauthorized", problem("auth.required"), ErrorKind::Denied),
        ("403 Forbidden", problem("role.denied"), ErrorKind::Denied),
        (
            "413 Payload Too Large",
            problem("body.too_large"),
            ErrorKind::TooLarge,
        ),
        (
            "429 Too Many Requests",
            problem("caller.too_many"),
            ErrorKind::Overloaded,
        ),
        (
            "503 Service Unavailable",
            problem("server.overloaded"),
            ErrorKind::Unavailable,
        ),
        (
            "504 Gateway Timeout",
            problem("request.timeout"),
            ErrorKind::Unknown,
        ),
        ("503 Service Unavailable", told.to_owned(), ErrorKind::Full),
        ("422 Unprocessable Entity", newer.to_owned(), ErrorKind::Invalid),
    ] {
        let peer = peer(http(status, "application/problem+json", &body), true).await;
        assert_eq!(
            peer.store().commit(put("a")).await.unwrap_err().kind(),
            kind,
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    answer.resize(40 << 20, b' ');
    let peer = peer(answer, true).await;
    let store = RemoteStore::open(peer.config().with_request_timeout(Duration::from_secs(60))).unwrap();
    let error = store.get(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(skyloom_model::report(&error).contains("longer than"), "{error:?}");
}

#[tokio::test]
async fn a_silent_or_broken_watch_ends_with_one_error() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    let line = "{\"progress\":{\"revision\":7}}\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    for (tail, close, kind) in [
        ("", false, ErrorKind::Timeout),
        ("", true, ErrorKind::Unavailable),
        ("0\r\n\r\n", true, ErrorKind::Unavailable),
        ("2\r\n{\n\r\n", false, ErrorKind::Corrupt),
    ] {
        let peer = peer(format!("{head}{chunk}{tail}"), close).await;
        let mut watch = peer
            .store()
            .watch(&Prefix::all(), WatchOptions::after(Revision(3)));
        assert_eq!(
            watch.next().await.unwrap().unwrap(),
            WatchEvent::Progress(Revision(7))
        );
        assert_eq!(
            watch.next().await.unwrap().unwrap_err().kind(),
            kind,
            "{tail:?} {close}"
        );
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test]
async fn the_token_stands_in_one_header_and_in_no_text() {
    let mut peer = peer(http("200 OK", "application/json", "{\"item\":null}"), true).await;
    let store = peer.store();
    assert!(store.get(&key("a/b")).await.unwrap().is_none());
    let request = peer.requests.recv().await.unwrap();
    assert!(
        request.starts_with("POST /v1/store/get HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("authorization: Bearer sky_secret\r\n"),
        "{request}"
    );
    assert!(request.ends_with("{\"key\":\"a/b\"}"), "{request}");
    assert!(!format!("{store:?} {:?}", peer.config()).contains("secret"));
}

#[tokio::test]
async fn a_wrong_token_is_denied() {
    let server = ApiServer::start(memory()).await.unwrap();
    let config = RemoteConfig::new(
        format!("http://{}", server.address),
        Secret::new("sky_wrong".to_owned()),
    );
    let error = RemoteStore::connect(config.clone()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.class()),
        (ErrorKind::Denied, Class::Permanent)
    );
    let mut watch = RemoteStore::open(config)
        .unwrap()
        .watch(&Prefix::all(), WatchOptions::after(Revision(0)));
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
    server.stop().await;
}

#[tokio::test]
async fn a_mirror_lives_through_a_restart_of_the_server() {
    let backend = memory();
    let server = ApiServer::start(backend.clone()).await.unwrap();
    let (address, config) = (server.address, server.config());
    let store = Arc::new(RemoteStore::open(config).unwrap());
    let (mirror, driver) = Mirror::<u32>::new(store.clone(), Prefix::parse("n").unwrap());
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(shutdown.clone()));

    let Outcome::Committed { revision } = store.commit(put("n/1")).await.unwrap() else {
        panic!()
    };
    mirror.wait_for(revision).await.unwrap();
    assert_eq!(mirror.snapshot().len(), 1);
    let known = server.known.clone();
    server.stop().await;
    let Outcome::Committed { revision } = backend.commit(put("n/2")).await.unwrap() else {
        panic!()
    };
    let server = ApiServer::start_at(address, backend, None, Some(known))
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(60), mirror.wait_for(revision))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(mirror.snapshot().len(), 2);

    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    server.stop().await;
}

#[tokio::test]
async fn tls_believes_the_given_authority_only() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let server = ApiServer::start_at(
        "127.0.0.1:0".parse().unwrap(),
        memory(),
        Some(Arc::new(tls)),
        None,
    )
    .await
    .unwrap();
    let token = Secret::new(server.known.token.clone());
    let url = format!("https://localhost:{}", server.address.port());

    let config = RemoteConfig::new(&url, token.clone()).with_ca_pem(certificate.pem());
    let store = RemoteStore::connect(config).await.unwrap();
    assert!(matches!(
        store.commit(put("a")).await.unwrap(),
        Outcome::Committed { .. }
    ));

    for doubtful in [
        RemoteConfig::new(&url, token.clone()),
        RemoteConfig::new(format!("https://127.0.0.1:{}", server.address.port()), token)
            .with_ca_pem(certificate.pem()),
    ] {
        let error = RemoteStore::open(doubtful)
            .unwrap()
            .get(&self::key("a"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_here() {
    let open = |config| RemoteStore::open(config).map(|_| ()).unwrap_err().kind();
    let config = |url: &str| RemoteConfig::new(url, Secret::new("t".to_owned()));
    assert_eq!(open(config("http://192.0.2.1")), ErrorKind::Invalid);
    assert_eq!(
        open(config("https://x").with_ca_pem("no certificate")),
        ErrorKind::Invalid
    );
    assert_eq!(
        open(RemoteConfig::new("https://x", Secret::new("a\nb".to_owned()))),
        ErrorKind::Invalid
    );

    let mut peer = peer("", true).await;
    let store = peer.store();
    let no_json = Txn::new().put(key("a"), Value::from_json_bytes("{"));
    assert_eq!(
        store.commit(no_json).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let long = Txn::new().put(key("a"), Value::json(&"x".repeat(2 << 20)).unwrap());
    assert_eq!(store.commit(long).await.unwrap_err().kind(), ErrorKind::TooLarge);
    let name = LeaseName::parse("a").unwrap();
    let nothing = store.grant(&name, "me", Duration::ZERO, LeaseMode::Acquire).await;
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(peer.heard(), 0, "nothing of this is sent");
}

#[tokio::test]
async fn pages_are_cut_by_bytes_and_go_on() {
    let backend: DynBackend = Arc::new(MemoryStore::new(
        Arc::new(ManualClock::new()),
        MemoryConfig::default(),
    ));
    let big = Value::json(&"x".repeat(900 << 10)).unwrap();
    for n in 10..30 {
        backend
            .commit(Txn::new().put(key(&format!("big/{n}")), big.clone()))
            .await
            .unwrap();
    }
    let server = ApiServer::start(backend).await.unwrap();
    let store = RemoteStore::open(server.config()).unwrap();
    let below = Prefix::parse("big").unwrap();
    let (mut seen, mut pages, mut options) = (Vec::new(), 0, ListOptions::default());
    loop {
        let page = store.list(&below, options).await.unwrap();
        pages += 1;
        seen.extend(page.items.iter().map(|kv| kv.key.to_string()));
        let Some(last) = page.items.last().filter(|_| page.more) else {
            break;
        };
        options = ListOptions::default()
            .with_after(last.key.clone())
            .with_at(page.revision);
    }
    assert_eq!(seen, (10..30).map(|n| format!("big/{n}")).collect::<Vec<_>>());
    assert!(pages > 1, "18 MiB in one page");
    server.stop().await;
}
