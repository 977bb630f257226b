//! Connections: how many, how long silent, how many bytes.

use std::time::Duration;

use serde_json::{Value as Json, json};
use skyloom_api::{ApiLimits, ServeLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Server, start};
use crate::harness::{Api, Setup};

const SOON: Duration = Duration::from_secs(30);

fn http1() -> reqwest::Client {
    // Each request by a connection of its own, or by one that is kept: the callers' choice.
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .build()
        .unwrap()
}

fn http2() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy();
    client.http2_prior_knowledge().build().unwrap()
}

async fn refused(response: reqwest::Response, status: u16, code: &str) {
    assert_eq!(response.status().as_u16(), status);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Json = response.json().await.unwrap();
    assert_eq!(
        (problem["code"].as_str(), &problem["retryable"]),
        (Some(code), &json!(true))
    );
}

impl Server {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Reads until the server ends the connection.
async fn ends(mut stream: TcpStream) {
    let mut sink = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut sink))
        .await
        .expect("an end");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_closed() {
    let api = Api::new().await;
    let server = start(&api, ServeLimits::default().with_max_connections(2), None).await;
    let health = server.url("/healthz");
    let (first, second) = (http1(), http2());
    for client in [&first, &second] {
        assert_eq!(client.get(&health).send().await.unwrap().status(), 200);
    }
    for client in [http1(), http2()] {
        let answer = client.get(&health).send().await.unwrap();
        refused(answer, 503, "server.too_many_connections").await;
    }
    // Whoever is in stays in, and a seat that is left is given away.
    assert_eq!(second.get(&health).send().await.unwrap().status(), 200);
    drop(first);
    let again = async {
        while http1().get(&health).send().await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("a seat");
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn one_token_has_so_many_connections_and_no_more() {
    let api = Api::with(Setup {
        limits: ApiLimits::default().with_max_connections_per_token(2),
        ..Setup::default()
    })
    .await;
    let server = start(&api, ServeLimits::default(), None).await;
    let url = server.url("/v1/flavors");
    let ask = async |client: &reqwest::Client, token: &str| {
        client.get(&url).bearer_auth(token).send().await.unwrap()
    };
    let (a, b) = (http2(), http2());
    for _ in 0..5 {
        assert_eq!(ask(&a, &api.admin).await.status(), 200);
        assert_eq!(ask(&b, &api.admin).await.status(), 200);
    }
    refused(
        ask(&http2(), &api.admin).await,
        429,
        "caller.too_many_connections",
    )
    .await;
    let member = api.member().await;
    assert_eq!(
        ask(&http2(), &member).await.status(),
        200,
        "others have their own"
    );
    drop(a);
    let again = async {
        while ask(&http2(), &api.admin).await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("a seat");
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn who_says_nothing_or_half_of_it_is_not_listened_to_for_ever() {
    let api = Api::new().await;
    let limits = ServeLimits::default().with_head_timeout(Duration::from_millis(100));
    let server = start(&api, limits, None).await;
    for half in [
        &b""[..],
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\na: ",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(half).await.unwrap();
        ends(stream).await;
    }
    // One byte now and then is no progress.
    let (mut reader, mut writer) = TcpStream::connect(server.address).await.unwrap().into_split();
    let trickle = async {
        writer.write_all(b"GET /healthz HTTP/1.1\r\na: ").await.unwrap();
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let end = async {
        let mut sink = Vec::new();
        let _ = reader.read_to_end(&mut sink).await;
        drop(reader);
    };
    let over = tokio::time::timeout(SOON, futures::future::join(trickle, end));
    over.await.expect("an end");
    server.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn an_idle_connection_is_ended_and_one_with_an_open_stream_stays() {
    let api = Api::new().await;
    let idle = Duration::from_millis(100);
    let server = start(&api, ServeLimits::default().with_idle_timeout(idle), None).await;
    for request in [&b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"[..]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        ends(stream).await;
    }
    let client = http2();
    let watch = client.get(server.url("/v1/watch")).bearer_auth(&api.admin);
    let mut watch = watch.send().await.unwrap();
    // Heartbeats come every 50 ms: by the tenth it would long be over.
    for _ in 0..10 {
        assert!(watch.chunk().await.unwrap().is_some());
    }
    server.shutdown.cancel();
    api.shutdown.cancel();
    server.ended().await;
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_for_each_and_all() {
    let api = Api::with(Setup {
        limits: ApiLimits::default().with_max_bytes(400 << 10, 300 << 10),
        ..Setup::default()
    })
    .await;
    let server = start(&api, ServeLimits::default(), None).await;
    let put = |n: usize| {
        let value = "x".repeat(n);
        json!({"writes": [{"put": {"key": "a/1", "value": value}}]})
    };
    let commit = async |token: &str, body: &Json| {
        let call = http2().post(server.url("/v1/store/commit")).bearer_auth(token);
        call.json(body).send().await.unwrap()
    };
    assert_eq!(commit(&api.admin, &put(200 << 10)).await.status(), 200);
    refused(commit(&api.admin, &put(350 << 10)).await, 429, "caller.too_many").await;
    assert_eq!(
        commit(&api.admin, &put(200 << 10)).await.status(),
        200,
        "given back"
    );
    let put_more =
        |n: usize| json!({"writes": [{"put": {"key": format!("a/{n}"), "value": "x".repeat(120 << 10)}}]});
    assert_eq!(commit(&api.admin, &put_more(2)).await.status(), 200);
    // What is answered is held while it is sent: more than there may be is not even begun.
    let list = http2().post(server.url("/v1/store/list")).bearer_auth(&api.admin);
    let list = list.json(&json!({"prefix": "a"})).send().await.unwrap();
    refused(list, 429, "caller.too_many").await;
    let one = http2().post(server.url("/v1/store/list")).bearer_auth(&api.admin);
    let one = one
        .json(&json!({"prefix": "a", "limit": 1}))
        .send()
        .await
        .unwrap();
    assert_eq!(one.status(), 200);
    assert!(one.text().await.unwrap().len() > 100 << 10);

    // Together: while one caller's request is half there, another's finds too little left.
    let engine = api.token(crate::harness::Role::Engine).await;
    let (sender, body) = tokio::sync::mpsc::unbounded_channel::<Result<String, std::io::Error>>();
    let body = futures::stream::unfold(body, |mut body| async {
        let chunk = body.recv().await?;
        Some((chunk, body))
    });
    let half = http2()
        .post(server.url("/v1/store/commit"))
        .bearer_auth(&engine)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(body));
    sender
        .send(Ok(format!("{{\"writes\": [{}", " ".repeat(250 << 10))))
        .unwrap();
    let mut half = Box::pin(half.send());
    let crowded = async {
        loop {
            let answer = commit(&api.admin, &put(200 << 10)).await;
            if answer.status() != 200 {
                break answer;
            }
        }
    };
    let crowded = tokio::select! {
        biased;
        ended = &mut half => panic!("{ended:?}"),
        crowded = tokio::time::timeout(SOON, crowded) => crowded.expect("a refusal"),
    };
    refused(crowded, 503, "server.overloaded").await;
    sender.send(Ok("]}".to_owned())).unwrap();
    drop(sender);
    assert_eq!(half.await.unwrap().status(), 200);
    assert_eq!(commit(&api.admin, &put(200 << 10)).await.status(), 200);
    server.shutdown.cancel();
    server.ended().await;
}
