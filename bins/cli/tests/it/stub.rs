//! A stub of the API: lists and single records from a table, everything else as it is told.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::records::problem;

pub(crate) const TOKEN: &str = "sky_stub";
/// Pages are this short, so that every longer list is fetched in several.
const PAGE: usize = 2;

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status and a document.
    Json(u16, Value),
    /// 429 with so many seconds to wait.
    Busy(u32),
    /// Text.
    Text(u16, String),
    /// A status alone.
    Empty(u16),
    /// Server-sent events (name, data), with ids from 1 on; then the end.
    Events(Vec<(&'static str, Value)>),
    /// The same; then silence.
    Held(Vec<(&'static str, Value)>),
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) what: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// In how many parts the body came.
    pub(crate) parts: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Table {
    records: HashMap<String, Vec<Value>>,
    replies: HashMap<String, VecDeque<Reply>>,
    seen: Vec<Seen>,
}

/// A running stub; it ends with this value.
pub(crate) struct Stub {
    pub(crate) endpoint: String,
    table: Arc<Mutex<Table>>,
    _serving: JoinSet<()>,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        let table = Arc::new(Mutex::new(Table::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(table.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            endpoint,
            table,
            _serving: serving,
        }
    }

    /// With the usual records.
    pub(crate) async fn furnished() -> Self {
        use crate::records::{flavor, host, image, keypair, project, server};
        let stub = Self::start().await;
        stub.put(
            "servers",
            vec![server(1, "web-1"), server(2, "web-2"), server(0xbeef, "db-main")],
        );
        stub.put("flavors", vec![flavor(900, "small"), flavor(901, "large")]);
        stub.put("images", vec![image(800, "debian", "active")]);
        stub.put("keypairs", vec![keypair(700, "me")]);
        stub.put("hosts", vec![host("host-a", true)]);
        stub.put("projects", vec![project("default")]);
        stub
    }

    /// Sets the records of a kind.
    pub(crate) fn put(&self, kind: &str, records: Vec<Value>) {
        self.table.lock().records.insert(kind.to_owned(), records);
    }

    /// Adds an answer to `METHOD /path`; the last one is given again and again.
    pub(crate) fn on(&self, what: &str, reply: Reply) {
        self.table
            .lock()
            .replies
            .entry(what.to_owned())
            .or_default()
            .push_back(reply);
    }

    /// All requests so far of `METHOD /path`.
    pub(crate) fn seen(&self, what: &str) -> Vec<Seen> {
        self.table
            .lock()
            .seen
            .iter()
            .filter(|seen| seen.what == what)
            .cloned()
            .collect()
    }

    /// The methods that were used.
    pub(crate) fn changes(&self) -> usize {
        self.table
            .lock()
            .seen
            .iter()
            .filter(|seen| !seen.what.starts_with("GET "))
            .count()
    }
}

async fn answer(State(table): State<Arc<Mutex<Table>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let what = format!("{} {}", head.method, head.uri.path());
    let mut seen = Seen {
        what: what.clone(),
        query: head.uri.query().unwrap_or("").to_owned(),
        headers: head.headers,
        body: Vec::new(),
        parts: 0,
    };
    let mut parts = body.into_data_stream();
    while let Some(Ok(part)) = parts.next().await {
        seen.body.extend_from_slice(&part);
        seen.parts += 1;
    }
    let open = what == "POST /v1/auth/login";
    let allowed = open || seen.header("authorization") == Some(&format!("Bearer {TOKEN}"));
    let query = seen.query.clone();
    let mut table = table.lock();
    table.seen.push(seen);
    if !allowed {
        return json_answer(401, problem("token.unknown", "the token is not known"));
    }
    if let Some(replies) = table.replies.get_mut(&what) {
        let reply = if replies.len() > 1 {
            replies.pop_front()
        } else {
            replies.front().cloned()
        };
        if let Some(reply) = reply {
            return written(reply);
        }
    }
    records(&table, &what, &query)
        .unwrap_or_else(|| json_answer(404, problem("not_found", "there is nothing here")))
}

fn records(table: &Table, what: &str, query: &str) -> Option<Response> {
    let mut path = what.strip_prefix("GET /v1/")?.split('/');
    let records = table.records.get(path.next()?)?;
    if let Some(id) = path.next() {
        let found = records
            .iter()
            .find(|record| record["meta"]["id"] == id || record["id"] == id)?;
        return path.next().is_none().then(|| json_answer(200, found.clone()));
    }
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let name = parameter("name");
    let fits = |record: &&Value| {
        name.as_ref()
            .is_none_or(|name| record["meta"]["name"] == name.as_str() || record["name"] == name.as_str())
    };
    let from: usize = parameter("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let limit: usize = parameter("limit").map_or(PAGE, |limit| limit.parse().unwrap());
    let all: Vec<&Value> = records.iter().filter(fits).collect();
    let to = all.len().min(from + limit.min(PAGE));
    let next = (to < all.len()).then(|| to.to_string());
    Some(json_answer(200, json!({"items": all[from..to], "next": next})))
}

fn json_answer(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

fn written(reply: Reply) -> Response {
    match reply {
        Reply::Json(status, body) => json_answer(status, body),
        Reply::Busy(seconds) => {
            let body = problem("tasks.too_many", "the project has 1000 unfinished tasks");
            let mut response = json_answer(429, body);
            response.headers_mut().insert("retry-after", seconds.into());
            response
        }
        Reply::Text(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Reply::Empty(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::Events(events) => event_stream(Body::from_stream(lines(events))),
        Reply::Held(events) => event_stream(Body::from_stream(lines(events).chain(stream::pending()))),
    }
}

fn event_stream(body: Body) -> Response {
    ([("content-type", "text/event-stream")], body).into_response()
}

fn lines(events: Vec<(&'static str, Value)>) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let texts = events.into_iter().enumerate().map(|(at, (name, data))| {
        Ok(Bytes::from(format!(
            "event: {name}\nid: {}\ndata: {data}\n\n",
            at + 1
        )))
    });
    stream::iter(texts.collect::<Vec<_>>())
}
