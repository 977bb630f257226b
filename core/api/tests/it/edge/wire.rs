//! HTTP/1.1 by the byte, on a real socket: what could be read in two ways is refused, and ends the connection.

use std::time::Duration;

use skyloom_api::{EdgeConfig, ServeLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Api, Setup};
use crate::server::{Server, start};

async fn server(api: &Api) -> Server {
    start(api, ServeLimits::default(), None).await
}

/// Its status, if it is the only answer.
fn only_answer(text: &str) -> Option<u16> {
    let answers = text.matches("HTTP/1.1 ").count() + text.matches("HTTP/1.0 ").count();
    (answers == 1).then(|| text.get(9..12)?.parse().ok())?
}

/// What follows a request that hides another one.
const SECOND: &str = "GET /v1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn attack_30_whatever_has_two_lengths_is_one_request_and_the_last() {
    let api = Api::new().await;
    let server = server(&api).await;
    // Lengths that contradict each other, or are none: 400, and nothing of what follows is read.
    for head in [
        "content-length: 0\r\ncontent-length: 50\r\n",
        "content-length: 50\r\ncontent-length: 0\r\n",
        "content-length: +1\r\n",
        "content-length: -1\r\n",
        "content-length: 0x1\r\n",
        "content-length: 1 1\r\n",
        "content-length: 1,2\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length:\r\n",
        "content-length : 0\r\n",
        " content-length: 0\r\n",
        "a: b\r\n content-length: 0\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "a: b\rc\r\n",
        "a: b\0c\r\n",
        "a b: c\r\n",
        ": c\r\n",
    ] {
        let request = format!("POST /healthz HTTP/1.1\r\nhost: x\r\n{head}\r\n{SECOND}");
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(only_answer(&answer), Some(400), "{head:?}: {answer}");
    }
    // A length and chunks: the chunks count, and the connection ends with them. So says RFC 9112 in 6.1.
    for head in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    ] {
        for body in ["0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"] {
            let request = format!("POST /healthz HTTP/1.1\r\nhost: x\r\n{head}\r\n{body}{SECOND}");
            let answer = server.raw(request.as_bytes()).await;
            assert_eq!(only_answer(&answer), Some(405), "{head:?}: {answer}");
        }
    }
    // HTTP/1.0 knows no chunks.
    let old = format!("POST /healthz HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SECOND}");
    assert_eq!(only_answer(&server.raw(old.as_bytes()).await), Some(400));
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn attack_30_broken_chunks_are_no_body() {
    let api = Api::new().await;
    let server = server(&api).await;
    for chunks in [
        "x\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "5\r\nhello0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
    ] {
        let request = format!(
            "POST /v1/flavors HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n{chunks}{SECOND}",
            api.admin
        );
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(only_answer(&answer), Some(400), "{chunks:?}: {answer}");
    }
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn the_host_is_told_once_and_in_good_form() {
    let api = Api::new().await;
    let server = server(&api).await;
    for (what, request) in [
        ("none", "GET /healthz HTTP/1.1\r\n\r\n"),
        (
            "none beside an absolute target",
            "GET http://x/healthz HTTP/1.1\r\n\r\n",
        ),
        ("two", "GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n"),
        (
            "the same twice",
            "GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
        ),
        ("empty", "GET /healthz HTTP/1.1\r\nhost:\r\n\r\n"),
        ("with a user", "GET /healthz HTTP/1.1\r\nhost: x@y\r\n\r\n"),
        ("with a path", "GET /healthz HTTP/1.1\r\nhost: x/y\r\n\r\n"),
        ("a list", "GET /healthz HTTP/1.1\r\nhost: x, y\r\n\r\n"),
        ("no port", "GET /healthz HTTP/1.1\r\nhost: x:99999\r\n\r\n"),
        (
            "another one in the target",
            "GET http://evil.example/healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        ),
    ] {
        let answer = server.raw(format!("{request}{SECOND}").as_bytes()).await;
        assert_eq!(only_answer(&answer), Some(400), "{what}: {answer}");
        assert!(
            answer.contains("\"request.host\"") && answer.contains("connection: close"),
            "{what}: {answer}"
        );
        assert!(
            answer.contains("x-content-type-options: nosniff"),
            "{what}: {answer}"
        );
    }
    for good in [
        "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: [::1]:80\r\nconnection: close\r\n\r\n",
        "GET http://x/healthz HTTP/1.1\r\nhost: X\r\nconnection: close\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(
            only_answer(&server.raw(good.as_bytes()).await),
            Some(200),
            "{good}"
        );
    }
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn targets_that_are_no_paths_lead_nowhere() {
    let api = Api::new().await;
    let server = server(&api).await;
    for (line, status) in [
        ("CONNECT evil.example:443 HTTP/1.1", 400),
        ("CONNECT x:80 HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 404),
        ("GET healthz HTTP/1.1", 400),
        ("GET /health z HTTP/1.1", 400),
        ("GET /healthz HTTP/3.0", 400),
        ("GET /healthz", 400),
        ("G\x01T /healthz HTTP/1.1", 400),
        ("GET //evil.example/%2f.. HTTP/1.1", 404),
        ("GET /..;/healthz HTTP/1.1", 404),
        ("GET /%00 HTTP/1.1", 404),
        ("GET /healthz%2f HTTP/1.1", 404),
        ("TRACE /healthz HTTP/1.1", 405),
    ] {
        let request = format!("{line}\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(only_answer(&answer), Some(status), "{line:?}: {answer}");
        assert!(!answer.to_lowercase().contains("location:"), "{line:?}: {answer}");
    }
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn attack_11_heads_are_bounded_in_number_and_length() {
    let api = Api::new().await;
    let server = server(&api).await;
    let get = |target: &str, headers: String| {
        format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
    };
    let many = |n: usize| (0..n).map(|i| format!("a{i}: b\r\n")).collect::<String>();
    for (what, request, status) in [
        ("98 more headers", get("/healthz", many(98)), 200),
        ("99 more headers", get("/healthz", many(99)), 431),
        ("10,000 headers", get("/healthz", many(10_000)), 431),
        (
            "15 KiB",
            get("/healthz", format!("a: {}\r\n", "x".repeat(15 << 10))),
            200,
        ),
        (
            "17 KiB",
            get("/healthz", format!("a: {}\r\n", "x".repeat(17 << 10))),
            431,
        ),
        (
            "a query of 8 KiB",
            get(&format!("/healthz?{}", "x".repeat(8 << 10)), String::new()),
            414,
        ),
        (
            "a path of 60 KiB",
            get(&format!("/{}", "x".repeat(60 << 10)), String::new()),
            414,
        ),
    ] {
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(only_answer(&answer), Some(status), "{what}: {answer}");
    }
    for (what, request) in [
        (
            "a header of 1 MiB",
            get("/healthz", format!("a: {}\r\n", "x".repeat(1 << 20))),
        ),
        (
            "a path of 1 MiB",
            get(&format!("/{}", "x".repeat(1 << 20)), String::new()),
        ),
    ] {
        // A server that closes with bytes unread resets: the answer may be lost with it.
        let answer = server.raw(request.as_bytes()).await;
        assert!(
            answer.is_empty() || matches!(only_answer(&answer), Some(414 | 431)),
            "{what}: {answer}"
        );
    }
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn attack_26_a_hundred_megabytes_without_a_length_are_cut_off_at_the_first() {
    let api = Api::new().await;
    let server = server(&api).await;
    let (mut read, mut write) = TcpStream::connect(server.address).await.unwrap().into_split();
    let head = format!(
        "POST /v1/flavors HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        api.admin
    );
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let writing = async {
        write.write_all(head.as_bytes()).await.unwrap();
        let mut sent = 0;
        while sent < 1600 && write.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let mut answer = Vec::new();
    let reading = async {
        let _ = read.read_to_end(&mut answer).await;
    };
    let both = futures::future::join(writing, reading);
    let (sent, ()) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .expect("an end");
    assert!(sent < 1600, "all of it was taken");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || only_answer(&answer) == Some(413), "{answer}");
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn attack_67_only_a_trusted_proxy_says_that_there_is_tls() {
    let request =
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-forwarded-proto: https\r\nconnection: close\r\n\r\n";
    for (proxies, insists) in [("192.0.2.0/24", false), ("127.0.0.0/8", true)] {
        let edge = EdgeConfig::default().with_trusted_proxies([proxies.parse().unwrap()]);
        let api = Api::with(Setup {
            edge,
            ..Setup::default()
        })
        .await;
        let server = server(&api).await;
        let answer = server.raw(request).await;
        assert_eq!(only_answer(&answer), Some(200), "{answer}");
        assert_eq!(
            answer.contains("strict-transport-security: max-age=31536000"),
            insists,
            "{proxies}: {answer}"
        );
        server.shutdown.cancel();
        server.ended().await;
    }
}
