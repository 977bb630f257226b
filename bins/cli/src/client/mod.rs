//! The API as typed functions: one request each, with retries that are safe, bounded answers and problems as errors.
//!
//! Every change carries an `Idempotency-Key`, so a request whose answer was lost is sent again with the same key and
//! happens once.

mod curl;
mod problem;
pub(crate) mod sse;
mod stream;
pub(crate) mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use skyloom::pki::{Material, Oldest, ReloadingClient, client_config};
use skyloom_model::{Clock, Ids, Resource, Secret};
use uuid::Uuid;

use crate::context::Connection;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out::Printer;
use crate::preview;
pub(crate) use stream::contents;

/// Largest answer that is read into memory.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Items per page of a list.
const PAGE: usize = 500;
/// How often a request is sent when the connection fails.
const TRIES: u32 = 3;
/// How often a request is sent again when the cloud has too much to do.
const BUSY_TRIES: u32 = 3;
/// Longest wait that a cloud with too much to do may ask for.
const LONGEST_BUSY: u64 = 60;
/// How long an ordinary request may take in all.
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// One cloud, as one caller.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret<String>>,
    project: Option<String>,
    ids: Arc<dyn Ids>,
    debug: bool,
    /// Where changes are not made, but shown here.
    dry_run: Option<Printer>,
}

/// Where a request goes: segments of the path below the endpoint, then the query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
}

impl Target {
    /// A path such as `["v1", "servers"]`. Segments are encoded, so they cannot reach elsewhere.
    pub(crate) fn new<S: ToString>(path: impl IntoIterator<Item = S>) -> Self {
        Self {
            path: path.into_iter().map(|segment| segment.to_string()).collect(),
            query: Vec::new(),
        }
    }
    /// Adds one more segment.
    pub(crate) fn then(mut self, segment: impl ToString) -> Self {
        self.path.push(segment.to_string());
        self
    }
    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }
    /// Adds many.
    pub(crate) fn queries(mut self, more: &[(&'static str, String)]) -> Self {
        self.query.extend_from_slice(more);
        self
    }
}

/// `v1/<kind>`.
pub(crate) fn kind(kind: &str) -> Target {
    Target::new(["v1", kind])
}

/// `v1/<kind>/<id>`.
pub(crate) fn one(kind: &str, id: Uuid) -> Target {
    self::kind(kind).then(id)
}

impl Client {
    pub(crate) fn new(
        connection: Connection,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        debug: bool,
    ) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("skyloom/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .tcp_keepalive(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&connection.endpoint) {
            // A cloud on this machine is never behind a proxy.
            builder = builder.no_proxy();
        }
        if let Some(file) = &connection.ca_file {
            builder = builder.tls_backend_preconfigured(tls(file, clock)?);
        }
        let http = builder
            .build()
            .map_err(|e| CliError::unexpected(format!("no HTTP client: {}", skyloom_model::report(&e))))?;
        Ok(Self {
            http,
            base: connection.endpoint,
            token: connection.token,
            project: connection.project,
            ids,
            debug,
            dry_run: None,
        })
    }

    /// Nobody yet: who logs in. Nothing of its requests is shown, they hold a password.
    pub(crate) fn anonymous(
        endpoint: Url,
        ca_file: Option<PathBuf>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> Result<Self> {
        let connection = Connection {
            endpoint,
            token: None,
            project: None,
            ca_file,
        };
        Self::new(connection, clock, ids, false)
    }

    /// Has no change made from now on: each request for one shows what would be done, and ends quietly.
    pub(crate) fn dry_run(mut self, printer: Printer) -> Self {
        self.dry_run = Some(printer);
        self
    }

    /// The same without a preview: for requests whose dry run has an answer of its own.
    pub(crate) fn whole(mut self) -> Self {
        self.dry_run = None;
        self
    }

    /// Reads one document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: Target) -> Result<T> {
        let answer = self.send(Method::GET, target, None).await?;
        self.json(answer).await
    }

    /// Reads bytes.
    pub(crate) async fn bytes(&self, target: Target) -> Result<Vec<u8>> {
        let answer = self.send(Method::GET, target, None).await?;
        self.body(answer).await
    }

    /// Reads text.
    pub(crate) async fn text(&self, target: Target) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(target).await?).into_owned())
    }

    /// Asks for a change and reads the answer.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        target: Target,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T> {
        let body = match body {
            Some(body) => Some(
                serde_json::to_value(body)
                    .map_err(|e| CliError::unexpected(format!("cannot write the request: {e}")))?,
            ),
            None => None,
        };
        let answer = self.send(method, target, body.as_ref()).await?;
        self.json(answer).await
    }

    /// Asks for a change whose answer says nothing more.
    pub(crate) async fn command(&self, method: Method, target: Target, body: Option<&Value>) -> Result<()> {
        let answer = self.send(method, target, body).await?;
        self.body(answer).await.map(drop)
    }

    /// `POST` with a body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        target: Target,
        body: &(impl Serialize + Sync),
    ) -> Result<T> {
        self.change(Method::POST, target, Some(body)).await
    }

    /// One record by its id.
    pub(crate) async fn record<R: Resource>(&self, id: Uuid) -> Result<R> {
        self.get(one(R::KIND, id)).await
    }

    /// All records of a list that fit `query`, up to `limit`, page by page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        kind: &str,
        query: &[(&'static str, String)],
        limit: usize,
    ) -> Result<Vec<T>> {
        self.pages(self::kind(kind).queries(query), limit).await
    }

    /// All items of a list, up to `limit`, page by page.
    pub(crate) async fn pages<T: DeserializeOwned>(&self, list: Target, limit: usize) -> Result<Vec<T>> {
        let mut items: Vec<T> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut target = list.clone().query("limit", PAGE.min(limit - items.len()));
            if let Some(cursor) = &cursor {
                target = target.query("cursor", cursor);
            }
            let page: types::Page<T> = self.get(target).await?;
            items.extend(page.items);
            items.truncate(limit);
            match page.next {
                // A page may be empty and not the last: the server looks at so many records for one answer.
                Some(next) if items.len() < limit && cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// Removes one record; the answer may name the task that does it.
    pub(crate) async fn delete(
        &self,
        kind: &str,
        id: Uuid,
        query: &[(&'static str, String)],
    ) -> Result<types::Deleted> {
        let target = one(kind, id).queries(query);
        let answer = self.send(Method::DELETE, target, None).await?;
        let body = self.body(answer).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(types::Deleted::default());
        }
        parse(&body)
    }

    /// Sends a request until it reaches the server, and turns refusals into errors.
    async fn send(&self, method: Method, target: Target, body: Option<&Value>) -> Result<Response> {
        let Some(printer) = self.dry_run.filter(|_| !method.is_safe()) else {
            return self.ask(method, target, body).await;
        };
        let answer = self.ask(method, target.query("dry_run", "plan"), body).await?;
        preview::print(printer, &self.json(answer).await?)?;
        Err(CliError::quiet(Exit::Done))
    }

    async fn ask(&self, method: Method, target: Target, body: Option<&Value>) -> Result<Response> {
        let headers = self.headers(!method.is_safe())?;
        let url = self.url(&target);
        self.show(&method, &url, &headers, body);
        let (mut tried, mut busy) = (0, 0);
        loop {
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .timeout(REQUEST_TIME);
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(answer) => match busy_for(&answer) {
                    Some(seconds) if busy < BUSY_TRIES => {
                        busy += 1;
                        crate::out::message(&format!(
                            "the cloud has too much to do; asking again in {seconds} s"
                        ));
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                    }
                    _ => return self.checked(answer, &headers).await,
                },
                Err(error) => {
                    tried += 1;
                    if tried >= TRIES {
                        return Err(self.unreachable(&error));
                    }
                    tokio::time::sleep(Duration::from_millis(100) * 3u32.pow(tried - 1)).await;
                }
            }
        }
    }

    /// The headers of one request; a change gets its idempotency key here, the same for all tries.
    fn headers(&self, change: bool) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| -> Result<()> {
            let value = HeaderValue::from_str(value).map_err(|_| {
                CliError::usage(format!(
                    "the value for {name} has characters that HTTP cannot carry"
                ))
            })?;
            headers.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        put("x-request-id", &format!("req-{}", self.ids.uuid()))?;
        if change {
            put("idempotency-key", &self.ids.uuid().to_string())?;
        }
        if let Some(project) = &self.project {
            put("x-skyloom-project", project)?;
        }
        if let Some(token) = &self.token {
            put("authorization", &format!("Bearer {}", token.expose()))?;
            if let Some(value) = headers.get_mut("authorization") {
                value.set_sensitive(true);
            }
        }
        Ok(headers)
    }

    fn url(&self, target: &Target) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&target.path);
        }
        if !target.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&target.query);
        }
        url
    }

    fn show(&self, method: &Method, url: &Url, headers: &HeaderMap, body: Option<&Value>) {
        if !self.debug {
            return;
        }
        let shown: Vec<(&str, &str)> = headers
            .iter()
            .filter(|(name, _)| *name != "authorization")
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        crate::out::message(&curl::command(method, url.as_str(), &shown, body));
    }

    /// Gives a success on; reads a refusal.
    async fn checked(&self, answer: Response, sent: &HeaderMap) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let id = |headers: &HeaderMap| Some(headers.get("x-request-id")?.to_str().ok()?.to_owned());
        let request_id = id(answer.headers()).or_else(|| id(sent)).unwrap_or_default();
        let body = self.body(answer).await.unwrap_or_default();
        Err(problem::read(
            status.as_u16(),
            status.canonical_reason().unwrap_or(""),
            &body,
            &request_id,
        ))
    }

    async fn json<T: DeserializeOwned>(&self, answer: Response) -> Result<T> {
        parse(&self.body(answer).await?)
    }

    /// The whole body, up to [`MAX_ANSWER`].
    async fn body(&self, mut answer: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + part.len() > MAX_ANSWER {
                return Err(CliError::unexpected("the answer is too large")
                    .hint("ask for less: --limit, --name or --label"));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let error = CliError::unexpected(format!("cannot reach the cloud at {}: {cause}", self.base));
        if is_loopback(&self.base) {
            error.hint("is it running? `skyloom dev` starts one here")
        } else {
            error.hint("check the endpoint: --endpoint, SKYLOOM_ENDPOINT or `skyloom context show`")
        }
    }
}

/// TLS that believes the roots of this file alone.
fn tls(file: &Path, clock: Arc<dyn Clock>) -> Result<rustls::ClientConfig> {
    let unusable = |e: &(dyn std::error::Error + 'static)| {
        CliError::usage(format!(
            "cannot use the roots in {}: {}",
            file.display(),
            skyloom_model::report(e)
        ))
        .hint("give a file of authorities in PEM: --ca-file, SKYLOOM_CA_FILE or the context's")
    };
    let roots = std::fs::read(file).map_err(|e| unusable(&e))?;
    let material = Material {
        identity: None,
        roots: Some(roots),
    };
    let client = ReloadingClient::new(&material).map_err(|e| unusable(&e))?;
    let mut config = client_config(client, clock, Oldest::Tls12).map_err(|e| unusable(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// When a cloud with too much to do wants to be asked again, in seconds.
fn busy_for(answer: &Response) -> Option<u64> {
    if answer.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds: u64 = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    (seconds <= LONGEST_BUSY).then_some(seconds)
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        CliError::unexpected(format!("the server's answer is not understood: {error}"))
            .hint("are `skyloom` and the cloud of the same version? see `skyloom version`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyloom_model::{ManualClock, SeededIds};

    fn client(endpoint: &str) -> Client {
        let connection = Connection {
            endpoint: endpoint.parse().unwrap(),
            token: Some(Secret::new("sky_x".into())),
            project: None,
            ca_file: None,
        };
        let clock = Arc::new(ManualClock::new());
        Client::new(
            connection,
            clock.clone(),
            Arc::new(SeededIds::new(clock, 1)),
            false,
        )
        .unwrap()
    }

    #[test]
    fn paths_stay_below_the_endpoint() {
        let target = Target::new(["v1", "servers", "../../x y"]).query("name", "a&b=c");
        assert_eq!(
            client("http://h:1/cloud/").url(&target).as_str(),
            "http://h:1/cloud/v1/servers/..%2F..%2Fx%20y?name=a%26b%3Dc"
        );
        assert_eq!(
            client("http://h:1").url(&kind("hosts")).as_str(),
            "http://h:1/v1/hosts"
        );
    }

    #[test]
    fn only_changes_carry_a_key_and_the_token_is_sensitive() {
        let client = client("http://h:1");
        assert!(client.headers(false).unwrap().get("idempotency-key").is_none());
        let headers = client.headers(true).unwrap();
        assert!(headers["authorization"].is_sensitive());
        assert_ne!(
            headers["idempotency-key"],
            client.headers(true).unwrap()["idempotency-key"]
        );
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (url, want) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("https://cloud.example", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), want, "{url}");
        }
    }
}
