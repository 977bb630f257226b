//! HTTP/2's own ways to be a nuisance.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use serde_json::json;
use skyloom_api::{ApiLimits, ServeLimits};
use skyloom_store::{Key, Store as _, Txn, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Server, start};
use crate::harness::{Api, Setup};

const SOON: Duration = Duration::from_secs(30);

/// A client whose connection ends with what is told in the end.
async fn client(server: &Server) -> (SendRequest<Bytes>, JoinSet<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(connection);
    (send, task)
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://x{path}")).body(()).unwrap()
}

fn watch(api: &Api) -> (Request<()>, Bytes) {
    let request = Request::post("http://x/v1/store/watch")
        .header("authorization", format!("Bearer {}", api.admin))
        .header("content-type", "application/json");
    let body = json!({"prefix": "w", "after": 0}).to_string();
    (request.body(()).unwrap(), body.into())
}

#[tokio::test]
async fn the_limits_are_told_and_long_heads_refused() {
    let api = Api::new().await;
    let server = start(&api, ServeLimits::default().with_max_streams(7), None).await;
    let (send, _connection) = client(&server).await;
    let mut send = send.ready().await.unwrap();
    let (ok, _) = send.send_request(get("/healthz"), true).unwrap();
    assert_eq!(ok.await.unwrap().status(), 200);
    assert_eq!(send.current_max_send_streams(), 7);
    let mut long = get("/healthz");
    for n in 0..20 {
        let value = "x".repeat(8 << 10).parse().unwrap();
        let name: http::HeaderName = format!("x-{n}").parse().unwrap();
        long.headers_mut().insert(name, value);
    }
    let refused = match send.send_request(long, true) {
        Ok((answer, _)) => answer.await.map(|answer| answer.status()),
        Err(e) => Err(e),
    };
    assert!(refused.is_err() || refused.unwrap() == 431);
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn streams_opened_and_reset_in_a_row_end_the_connection() {
    let api = Api::new().await;
    let server = start(&api, ServeLimits::default(), None).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    for n in 0..2000_u32 {
        let id = (2 * n + 1).to_be_bytes();
        // HEADERS with END_STREAM and END_HEADERS: GET, http, /, and no authority; then RST_STREAM, cancelled.
        frames.extend_from_slice(&[0, 0, 3, 1, 5]);
        frames.extend_from_slice(&id);
        frames.extend_from_slice(&[0x82, 0x86, 0x84]);
        frames.extend_from_slice(&[0, 0, 4, 3, 0]);
        frames.extend_from_slice(&id);
        frames.extend_from_slice(&[0, 0, 0, 8]);
    }
    // In one go, so that it arrives faster than it is looked at; the server may end it in the middle.
    let writing = async {
        let _ = write.write_all(&frames).await;
    };
    let mut told = Vec::new();
    let reading = async {
        let _ = read.read_to_end(&mut told).await;
    };
    let both = futures::future::join(writing, reading);
    tokio::time::timeout(SOON, both).await.expect("an end");
    // GOAWAY, ENHANCE_YOUR_CALM.
    let goaway = |w: &[u8]| w[3] == 7 && w[13..17] == [0, 0, 0, 11];
    assert!(told.windows(17).any(goaway), "{told:?}");
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn a_far_end_that_answers_no_pings_is_given_up() {
    let api = Api::with(Setup {
        limits: ApiLimits::default()
            .with_max_streams(1, 1)
            .with_heartbeat(Duration::from_millis(50)),
        ..Setup::default()
    })
    .await;
    let ping = Duration::from_millis(100);
    let server = start(&api, ServeLimits::default().with_ping(ping, ping), None).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let talk = async {
        let (head, body) = watch(&api);
        let (answer, mut stream) = send.ready().await.unwrap().send_request(head, false).unwrap();
        stream.send_data(body, true).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        // A client that answers stays, far longer than any ping may take.
        for _ in 0..10 {
            let line = answer.data().await.unwrap().unwrap();
            answer.flow_control().release_capacity(line.len()).unwrap();
        }
        answer
    };
    let _open = tokio::select! {
        biased;
        ended = &mut connection => panic!("{ended:?}"),
        open = talk => open,
    };
    // From here on nobody drives this connection: a machine that hangs, whose kernel still takes packets.
    let seat = async {
        while api.get("/v1/watch").await.status == 429 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, seat)
        .await
        .expect("the server lets go");
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_a_bounded_amount_and_is_told_what_it_missed() {
    let api = Api::with(Setup {
        history: 100,
        ..Setup::default()
    })
    .await;
    let server = start(&api, ServeLimits::default(), None).await;
    let (send, _connection) = client(&server).await;
    let (head, body) = watch(&api);
    let (answer, mut stream) = send.ready().await.unwrap().send_request(head, false).unwrap();
    stream.send_data(body, true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    for n in 0..10_000 {
        let value = Value::json(&"x".repeat(1000)).unwrap();
        let key = Key::parse(&format!("w/{n}")).unwrap();
        api.memory.commit(Txn::new().put(key, value)).await.unwrap();
    }
    let mut text = Vec::new();
    while let Some(chunk) = tokio::time::timeout(SOON, answer.data()).await.expect("an end") {
        let chunk = chunk.unwrap();
        answer.flow_control().release_capacity(chunk.len()).unwrap();
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let revisions: Vec<_> = lines
        .iter()
        .filter_map(|l| l["commit"]["revision"].as_u64())
        .collect();
    assert!(
        revisions.windows(2).all(|w| w[0] + 1 == w[1]),
        "in order and whole as far as it goes"
    );
    assert!(revisions.len() < 10_000);
    assert!(lines.last().unwrap().get("gap").is_some(), "{:?}", lines.last());
    server.shutdown.cancel();
    server.ended().await;
}
