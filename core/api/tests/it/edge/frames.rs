//! HTTP/2 by the frame: floods end the connection, and heads that contradict themselves are refused.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use skyloom_api::ServeLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::Api;
use crate::server::{Server, start};

const SOON: Duration = Duration::from_secs(60);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A literal that is remembered, as HPACK writes it: `name: value`, each shorter than 127 bytes.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x40, u8::try_from(name.len()).unwrap()];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(u8::try_from(value.len()).unwrap());
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// POST, http, /v1/flavors, x.
fn post() -> Vec<u8> {
    let mut head = vec![0x83, 0x86];
    head.extend(literal(":path", "/v1/flavors"));
    head.extend(literal(":authority", "x"));
    head
}

struct Told {
    frames: Vec<(u8, Vec<u8>)>,
    /// Times that the flood was sent before the server had had enough.
    times: usize,
}

impl Told {
    fn first(&self, kind: u8) -> Option<&[u8]> {
        let found = self.frames.iter().find(|(k, _)| *k == kind);
        found.map(|(_, payload)| &**payload)
    }
}

/// Says `first`, then `flood` up to `most` times or until the server ends the connection; and what it said meanwhile.
async fn flood(server: &Server, first: &[u8], flood: &[u8], most: usize) -> Told {
    let (mut read, mut write) = TcpStream::connect(server.address).await.unwrap().into_split();
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begin.extend(frame(SETTINGS, 0, 0, &[]));
    begin.extend_from_slice(first);
    let writing = async {
        let _ = write.write_all(&begin).await;
        let mut times = 0;
        while times < most && write.write_all(flood).await.is_ok() {
            times += 1;
        }
        let _ = write.shutdown().await;
        times
    };
    let mut bytes = Vec::new();
    let reading = async {
        let _ = read.read_to_end(&mut bytes).await;
    };
    let both = futures::future::join(writing, reading);
    let (times, ()) = tokio::time::timeout(SOON, both).await.expect("an end");
    let mut frames = Vec::new();
    let mut rest = &*bytes;
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, after)) = after.split_at_checked(length) else {
            break;
        };
        frames.push((head[3], payload.to_vec()));
        rest = after;
    }
    Told { frames, times }
}

async fn still_answers(server: &Server) {
    let answer = server
        .raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn attack_31_endless_continuations_end_the_connection() {
    let api = Api::new().await;
    let server = start(&api, ServeLimits::default(), None).await;
    let first = frame(HEADERS, 0, 1, &post());
    for (what, more) in [
        ("empty ones", frame(CONTINUATION, 0, 1, &[]).repeat(1000)),
        (
            "full ones",
            frame(CONTINUATION, 0, 1, &literal("a", "b").repeat(3000)).repeat(10),
        ),
    ] {
        let told = flood(&server, &first, &more, 10_000).await;
        assert!(told.times < 10_000, "{what}: all were taken");
        still_answers(&server).await;
    }
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn attack_31_endless_empty_data_ends_the_connection() {
    let api = Api::new().await;
    let server = start(&api, ServeLimits::default(), None).await;
    let mut head = post();
    head.extend(literal("authorization", &format!("Bearer {}", api.admin)));
    head.extend(literal("content-type", "application/json"));
    let first = frame(HEADERS, END_HEADERS, 1, &head);
    let told = flood(&server, &first, &frame(DATA, 0, 1, &[]).repeat(1000), 10_000).await;
    assert!(told.times < 10_000, "all were taken: {:?}", told.frames);
    still_answers(&server).await;
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn attack_31_a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let api = Api::new().await;
    let server = start(&api, ServeLimits::default(), None).await;
    // One header, and then 15,000 times "that one again": 15 KB on the wire, 2 MB of headers.
    let mut head = vec![0x82, 0x86, 0x84];
    head.extend(literal("x-bomb", &"x".repeat(100)));
    head.extend([0xbe; 15_000]);
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head);
    let told = flood(&server, &bomb, &[], 0).await;
    // A status that is not the index of 200, or an error of the stream or connection.
    let answer = told.first(HEADERS);
    assert!(
        answer.is_none_or(|head| head.first() != Some(&0x88)),
        "{:?}",
        told.frames
    );
    let refused = answer.is_some() || told.first(GOAWAY).is_some() || told.first(RESET).is_some();
    assert!(refused, "{:?}", told.frames);
    still_answers(&server).await;
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn heads_that_contradict_themselves_are_refused_in_http2_too() {
    let api = Api::new().await;
    let server = start(&api, ServeLimits::default(), None).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(connection);
    let mut send: h2::client::SendRequest<Bytes> = send.ready().await.unwrap();
    let mut ask = async |headers: &[(&str, &str)]| {
        let mut request = Request::get("http://x/healthz");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let (answer, _) = send.send_request(request, true).unwrap();
        answer.await.map(|answer| answer.status().as_u16()).ok()
    };
    assert_eq!(ask(&[]).await, Some(200));
    assert_eq!(ask(&[("host", "x")]).await, Some(200));
    assert_eq!(ask(&[("host", "evil.example")]).await, Some(400));
    assert_eq!(ask(&[("host", "x"), ("host", "x")]).await, Some(400));
    let two = [("content-length", "0"), ("content-length", "0")];
    assert!(matches!(ask(&two).await, None | Some(400)));
    let many: Vec<(String, &str)> = (0..101).map(|n| (format!("a{n}"), "b")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(
        ask(&many).await,
        Some(431),
        "HTTP/2 has no bound of its own on their number"
    );
    let long = "x".repeat(17 << 10);
    assert_eq!(ask(&[("a", &long)]).await, Some(431));
    server.shutdown.cancel();
    drop(send);
    task.shutdown().await;
    server.ended().await;
}
