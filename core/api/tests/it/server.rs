//! The server on a real socket: heads, TLS, the end.

mod bounds;
mod http2;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skyloom_api::{ServeLimits, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::Api;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    task: JoinSet<std::io::Result<()>>,
}

pub(crate) async fn start(api: &Api, limits: ServeLimits, tls: Option<Arc<rustls::ServerConfig>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(serve(listener, api.router.clone(), tls, limits, shutdown.clone()));
    Server {
        address,
        shutdown,
        task,
    }
}

impl Server {
    /// Sends bytes and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A server that has had enough may reset instead of closing.
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
            .await
            .expect("an end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) async fn ended(mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.task.join_next()).await;
        ended.expect("in time").unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn heads_that_are_wrong_end_the_connection() {
    let api = Api::new().await;
    let limits = ServeLimits::default().with_head_timeout(Duration::from_millis(100));
    let server = start(&api, limits, None).await;
    let good = server
        .raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("ok"),
        "{good}"
    );

    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    for (what, bytes) in [("a long header", long), ("many headers", many)] {
        let answer = server.raw(bytes.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
            "{what}: {answer}"
        );
    }
    for (what, bytes) in [
        (
            "two lengths",
            "POST /v1/servers HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ),
        (
            "a folded header",
            "GET /healthz HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
        ),
        (
            "a line feed alone in a header",
            "GET /healthz HTTP/1.1\r\nhost: x\r\na: b\nc\r\n\r\n",
        ),
        ("no HTTP", "\x16\x03\x01\x02\x00\x01\x00"),
    ] {
        let answer = server.raw(bytes.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{what}: {answer}"
        );
    }
    // Length and chunks together: one request is seen, the rest is never another one.
    let smuggled = "POST /v1/servers HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    assert!(!server.raw(smuggled.as_bytes()).await.contains("200 OK"));
    let slow = server.raw(b"GET /healthz HTTP/1.1\r\nhost:").await;
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408 "), "{slow}");
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn the_end_lets_streams_finish_and_cuts_off_who_does_not() {
    let api = Api::new().await;
    let server = start(
        &api,
        ServeLimits::default().with_drain(Duration::from_millis(100)),
        None,
    )
    .await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/watch", server.address);
    let mut stream = client.get(&url).bearer_auth(&api.admin).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some(), "it has begun");
    // This one never sends its whole request.
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"POST /v1/servers HTTP/1.1\r\n").await.unwrap();

    api.shutdown.cancel();
    while stream.chunk().await.unwrap().is_some() {}
    server.shutdown.cancel();
    let address = server.address;
    server.ended().await;
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn tls_is_spoken_and_nothing_else() {
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
    let api = Api::new().await;
    let limits = ServeLimits::default().with_head_timeout(Duration::from_millis(500));
    let server = start(&api, limits, Some(Arc::new(tls))).await;
    let plain = server.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!plain.contains("200 OK"), "{plain}");
    let authority = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([authority])
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/healthz", server.address.port());
    assert_eq!(client.get(url).send().await.unwrap().text().await.unwrap(), "ok");
    server.shutdown.cancel();
    server.ended().await;
}
