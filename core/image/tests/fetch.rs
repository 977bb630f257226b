//! The downloader against servers on the loopback that answer with given bytes.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use skyloom_image::fetch::{FetchPolicy, FetchProgress, Fetcher, Lookup, check_url};
use skyloom_model::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What the server does with a request for a path.
#[derive(Clone)]
enum Answer {
    /// Writes this and closes.
    Bytes(String),
    /// Writes this and then nothing, for ever.
    Hang(String),
}

fn ok(body: &str) -> Answer {
    Answer::Bytes(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}
fn redirect(to: &str) -> Answer {
    Answer::Bytes(format!(
        "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
    ))
}

struct Server {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn new(answers: &[(&str, Answer)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: BTreeMap<String, Answer> = answers
            .iter()
            .map(|(path, answer)| ((*path).to_owned(), answer.clone()))
            .collect();
        let answers = Arc::new(answers);
        let hits = Arc::new(AtomicUsize::new(0));
        let counter = hits.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let answers = answers.clone();
                connections.spawn(async move {
                    let mut request = Vec::new();
                    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let text = String::from_utf8(request).unwrap();
                    assert!(text.contains("accept-encoding: identity\r\n"), "{text}");
                    assert!(!text.to_lowercase().contains("referer"), "{text}");
                    let path = text.split(' ').nth(1).unwrap();
                    match answers
                        .get(path)
                        .unwrap_or_else(|| panic!("no answer for {path}"))
                    {
                        Answer::Bytes(bytes) => {
                            let _ = socket.write_all(bytes.as_bytes()).await;
                            let _ = socket.shutdown().await;
                        }
                        Answer::Hang(bytes) => {
                            let _ = socket.write_all(bytes.as_bytes()).await;
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            hits,
            _tasks: tasks,
        }
    }
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

fn loopback() -> FetchPolicy {
    FetchPolicy {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        max_bytes: 1000,
        ..FetchPolicy::default()
    }
}

async fn get(policy: FetchPolicy, url: &str) -> Result<String, Reason> {
    let mut out = Vec::new();
    Fetcher::new(policy)
        .unwrap()
        .fetch(url, &mut out, &|_| {})
        .await?;
    Ok(String::from_utf8(out).unwrap())
}

async fn code(policy: FetchPolicy, url: &str) -> String {
    get(policy, url).await.unwrap_err().code
}

#[tokio::test]
async fn downloads_hashes_and_tells_progress() {
    let server = Server::new(&[("/a?sig=1", ok("abc"))]).await;
    let seen = std::sync::Mutex::new(Vec::new());
    let mut out = Vec::new();
    let digest = Fetcher::new(loopback())
        .unwrap()
        .fetch(&server.url("/a?sig=1"), &mut out, &|p| {
            seen.lock().unwrap().push(p)
        })
        .await
        .unwrap();
    assert_eq!(out, b"abc");
    assert_eq!(digest.bytes, 3);
    assert_eq!(
        digest.sha256,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let seen = seen.into_inner().unwrap();
    assert_eq!(
        seen.first(),
        Some(&FetchProgress {
            done: 0,
            total: Some(3)
        })
    );
    assert_eq!(
        seen.last(),
        Some(&FetchProgress {
            done: 3,
            total: Some(3)
        })
    );
}

#[tokio::test]
async fn refused_urls_reach_no_server() {
    let server = Server::new(&[]).await;
    let port = server.address.port();
    let cases = [
        ("file:///etc/passwd".to_owned(), "url.scheme"),
        ("ftp://example.org/a".to_owned(), "url.scheme"),
        ("gopher://example.org/a".to_owned(), "url.scheme"),
        ("data:text/plain,x".to_owned(), "url.scheme"),
        ("example.org/a".to_owned(), "url.invalid"),
        (format!("http://user@127.0.0.1:{port}/"), "url.credentials"),
        (format!("http://user:pw@127.0.0.1:{port}/"), "url.credentials"),
        (format!("http://127.0.0.1:{port}/ x"), "url.invalid"),
        (format!("http://127.0.0.1:{port}\\@example.org/"), "url.invalid"),
        (format!("http://127.0.0.1:{port}/\r\nHost: x"), "url.invalid"),
        (format!("http://127.0.0.1:{port}/"), "url.address_denied"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "url.host"),
        (format!("http://[::ffff:7f00:1]:{port}/"), "url.address_denied"),
        (
            "http://169.254.169.254/latest/meta-data".to_owned(),
            "url.address_denied",
        ),
        ("http://10.0.0.1/".to_owned(), "url.address_denied"),
        ("http://[fd00::1]/".to_owned(), "url.address_denied"),
        (format!("http://localhost:{port}/"), "url.address_denied"),
    ];
    for (url, expected) in &cases {
        assert_eq!(code(FetchPolicy::default(), url).await, *expected, "{url}");
    }
    // Odd spellings are refused even where the address is allowed.
    for host in [
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "127.1",
        "127.0.0.1.",
        "①27.0.0.1",
    ] {
        assert_eq!(
            code(loopback(), &format!("http://{host}:{port}/")).await,
            "url.host",
            "{host}"
        );
    }
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn redirects_are_followed_and_checked_each_time() {
    let server = Server::new(&[
        ("/1", redirect("/2?x=1")),
        ("/2?x=1", redirect("3")),
        ("/3", ok("there")),
        ("/loop", redirect("/loop")),
        ("/meta", redirect("http://169.254.169.254/")),
        ("/odd", redirect("http://2130706433/")),
        ("/odd2", redirect("//0x7f.1/")),
        ("/file", redirect("file:///etc/passwd")),
        ("/cred", redirect("http://a:b@127.0.0.1/")),
        ("/back", redirect("http:\\\\127.0.0.1/")),
        (
            "/nowhere",
            Answer::Bytes("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ),
    ])
    .await;
    assert_eq!(get(loopback(), &server.url("/1")).await.unwrap(), "there");
    let absolute = Server::new(&[("/", redirect(&server.url("/3")))]).await;
    assert_eq!(get(loopback(), &absolute.url("/")).await.unwrap(), "there");
    for (path, expected) in [
        ("/meta", "url.address_denied"),
        ("/odd", "url.host"),
        ("/odd2", "url.host"),
        ("/file", "url.scheme"),
        ("/cred", "url.credentials"),
        ("/back", "url.invalid"),
        ("/nowhere", "url.status"),
    ] {
        assert_eq!(code(loopback(), &server.url(path)).await, expected, "{path}");
    }
    let before = server.hits();
    assert_eq!(code(loopback(), &server.url("/loop")).await, "url.redirects");
    assert_eq!(server.hits() - before, 6, "the first request and five redirects");
    let two = FetchPolicy {
        max_redirects: 1,
        ..loopback()
    };
    assert_eq!(code(two, &server.url("/1")).await, "url.redirects");
}

/// Gives other addresses at each call, as a hostile name server would.
#[derive(Debug)]
struct Rebinding {
    calls: AtomicUsize,
    answers: Vec<Vec<IpAddr>>,
}

#[async_trait]
impl Lookup for Rebinding {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(host, "images.test");
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.answers
            .get(call)
            .cloned()
            .ok_or_else(|| io::Error::other("resolved too often"))
    }
}

async fn with_names(answers: &[&[&str]], url: &str) -> Result<String, Reason> {
    let answers = answers
        .iter()
        .map(|a| a.iter().map(|a| a.parse().unwrap()).collect())
        .collect();
    let lookup = Arc::new(Rebinding {
        calls: AtomicUsize::new(0),
        answers,
    });
    let mut out = Vec::new();
    Fetcher::with_lookup(loopback(), lookup)
        .unwrap()
        .fetch(url, &mut out, &|_| {})
        .await?;
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn names_are_resolved_once_and_every_address_is_checked() {
    let server = Server::new(&[("/a", ok("named")), ("/r", redirect("/a"))]).await;
    let port = server.address.port();
    let url = format!("http://images.test:{port}/a");
    assert_eq!(with_names(&[&["127.0.0.1"]], &url).await.unwrap(), "named");
    for addresses in [
        &["10.0.0.1"][..],
        &["127.0.0.1", "10.0.0.1"],
        &["::ffff:127.0.0.1"],
        &["::1"],
    ] {
        assert_eq!(
            with_names(&[addresses], &url).await.unwrap_err().code,
            "url.address_denied",
            "{addresses:?}"
        );
    }
    let empty = with_names(&[&[]], &url).await.unwrap_err();
    assert_eq!((empty.code.as_str(), empty.retryable), ("url.unreachable", true));
    // The second request of a redirect resolves again, and is checked again.
    let moved = with_names(
        &[&["127.0.0.1"], &["192.168.0.1"]],
        &format!("http://images.test:{port}/r"),
    )
    .await;
    assert_eq!(moved.unwrap_err().code, "url.address_denied");
}

#[tokio::test]
async fn size_is_limited_said_or_not() {
    let big = "x".repeat(1001);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{big}\r\n0\r\n\r\n");
    let server = Server::new(&[
        ("/said", ok(&big)),
        ("/unsaid", Answer::Bytes(chunked)),
        (
            "/until-close",
            Answer::Bytes(format!("HTTP/1.1 200 OK\r\n\r\n{big}")),
        ),
        ("/exact", ok(&big[..1000])),
    ])
    .await;
    for path in ["/said", "/unsaid", "/until-close"] {
        assert_eq!(
            code(loopback(), &server.url(path)).await,
            "url.too_large",
            "{path}"
        );
    }
    assert_eq!(get(loopback(), &server.url("/exact")).await.unwrap().len(), 1000);
}

#[tokio::test]
async fn bad_answers_have_their_codes() {
    let server = Server::new(&[
        (
            "/404",
            Answer::Bytes("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ),
        (
            "/503",
            Answer::Bytes("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned()),
        ),
        (
            "/206",
            Answer::Bytes("HTTP/1.1 206 Partial\r\ncontent-length: 1\r\n\r\nx".to_owned()),
        ),
        (
            "/cut",
            Answer::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_owned()),
        ),
        (
            "/gzip",
            Answer::Bytes(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx".to_owned(),
            ),
        ),
        ("/junk", Answer::Bytes("SSH-2.0-OpenSSH\r\n".to_owned())),
    ])
    .await;
    for (path, expected, retryable) in [
        ("/404", "url.status", false),
        ("/503", "url.status", true),
        ("/206", "url.status", false),
        ("/cut", "url.cut_off", true),
        ("/gzip", "url.encoding", false),
        ("/junk", "url.cut_off", true),
    ] {
        let reason = get(loopback(), &server.url(path)).await.unwrap_err();
        assert_eq!(
            (reason.code.as_str(), reason.retryable),
            (expected, retryable),
            "{path}: {reason}"
        );
    }
    // Signed queries do not get into messages.
    let signed = Server::new(&[(
        "/a?sig=canary",
        Answer::Bytes("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n".to_owned()),
    )])
    .await;
    let reason = get(loopback(), &signed.url("/a?sig=canary")).await.unwrap_err();
    assert!(!reason.message.contains("canary"), "{reason}");
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reason = get(loopback(), &format!("http://{address}/")).await.unwrap_err();
    assert_eq!(
        (reason.code.as_str(), reason.retryable),
        ("url.unreachable", true)
    );
}

#[tokio::test]
async fn silence_and_slowness_end() {
    let server = Server::new(&[
        ("/silent", Answer::Hang(String::new())),
        (
            "/stuck",
            Answer::Hang("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_owned()),
        ),
    ])
    .await;
    let brief = Duration::from_millis(100);
    let long = Duration::from_secs(3600);
    for (idle, total) in [(brief, long), (long, brief)] {
        for path in ["/silent", "/stuck"] {
            let policy = FetchPolicy {
                idle,
                total,
                ..loopback()
            };
            let reason = get(policy, &server.url(path)).await.unwrap_err();
            assert_eq!(
                (reason.code.as_str(), reason.retryable),
                ("url.timeout", true),
                "{path}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_or_has_an_honest_host(text in "(http|https)(:|://|:/|:\\\\)[0-9a-fx.:@\\[\\]/]{0,20}") {
        if let Ok(url) = check_url(&text, &FetchPolicy::default()) {
            let host = url.host_str().unwrap();
            if host.parse::<IpAddr>().is_ok() {
                prop_assert!(text.contains(host), "{text}");
                prop_assert!(!host.starts_with("127.") && !host.starts_with("10."));
            }
        }
    }
    #[test]
    fn checking_never_panics(text in ".{0,80}") {
        let _ = check_url(&text, &FetchPolicy::default());
    }
}
