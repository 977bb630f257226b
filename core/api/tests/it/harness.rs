//! One cloud with its API, called without a socket. Every answer is checked against the OpenAPI document.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt as _;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value as Json, json};
use skyloom_api::{ApiLimits, ApiParts, EdgeConfig, RateLimits, router};
use skyloom_cloud::{Caller, Cloud, CloudParts, CreateProject, DirImageRepo, TaskLimits};
use skyloom_identity::{
    Actor, AuthScope, Authenticator as _, BuiltIn, DEFAULT_DOMAIN, FileKeys, HashCost, HasherConfig, Holder,
    Identified, Identity, IdentityConfig, IdentityParts, NewApiToken, Oidc, OidcConfig, ProviderKeys, Rights,
    Target, Vault,
};
use skyloom_model::{HostId, ManualClock, Phase, ProjectId, Readiness, Resource as _, SeededIds, TokenId};
use skyloom_store::{DynBackend, MemoryConfig, MemoryStore};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) static DOCUMENT: LazyLock<Json> =
    LazyLock::new(|| serde_json::to_value(skyloom_api::openapi()).expect("a document"));

pub(crate) struct Api {
    pub(crate) router: axum::Router,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) backend: DynBackend,
    pub(crate) images: Arc<DirImageRepo>,
    pub(crate) clock: ManualClock,
    pub(crate) shutdown: CancellationToken,
    /// The first administrator's token: of the whole cloud, and so of the default project where none is named.
    pub(crate) admin: String,
    pub(crate) project: ProjectId,
    pub(crate) identity: Identity,
    users: AtomicUsize,
    _drivers: JoinSet<()>,
    _dir: TempDir,
}

/// For whom a token is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Member { project: ProjectId },
    Reader { project: ProjectId },
    Engine,
}

/// What differs between APIs of tests.
pub(crate) struct Setup {
    pub(crate) limits: ApiLimits,
    pub(crate) edge: EdgeConfig,
    pub(crate) history: usize,
    pub(crate) open_metrics: bool,
    /// Puts something around the store that handlers see.
    pub(crate) wrap: fn(DynBackend) -> DynBackend,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub(crate) tasks: TaskLimits,
    pub(crate) providers: Vec<(OidcConfig, Arc<dyn ProviderKeys>)>,
}

impl Default for Setup {
    fn default() -> Self {
        let readiness = Readiness::new();
        readiness.done("api", Phase::Watch, "");
        Self {
            limits: ApiLimits::default().with_heartbeat(Duration::from_millis(50)),
            // The clock stands still: a bucket would never fill again.
            edge: EdgeConfig::default().with_rates(RateLimits::unlimited()),
            history: 10_000,
            open_metrics: true,
            wrap: |backend| backend,
            readiness,
            metrics: Arc::new(|| "up 1\n".to_owned()),
            tasks: TaskLimits::default(),
            providers: Vec::new(),
        }
    }
}

/// Passwords that are hashed in no time.
fn quick() -> IdentityConfig {
    let cost = HashCost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
    IdentityConfig {
        password: HasherConfig {
            cost,
            ..HasherConfig::default()
        },
        ..IdentityConfig::default()
    }
}

impl Api {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let clock = ManualClock::new();
        let shared = Arc::new(clock.clone());
        let ids = Arc::new(SeededIds::new(clock.clone(), 1));
        let config = MemoryConfig::default().with_history(setup.history);
        let memory = Arc::new(MemoryStore::new(shared.clone(), config));
        let backend = (setup.wrap)(memory.clone());
        let dir = tempfile::tempdir().expect("a folder");
        let images = Arc::new(DirImageRepo::open(dir.path(), 1 << 20).expect("a repository"));
        let cloud = Cloud::new(CloudParts {
            backend: backend.clone(),
            clock: shared.clone(),
            ids: ids.clone(),
            images: images.clone(),
        });
        let shutdown = CancellationToken::new();
        let key = dir.path().join("key");
        FileKeys::generate(&key, &*ids).expect("a key");
        let keys = FileKeys::read(&key, &[], ids.clone()).expect("the key");
        let parts = IdentityParts {
            // What a test puts before the store of the handlers is not before this.
            backend: memory.clone(),
            clock: shared.clone(),
            ids: ids.clone(),
            secrets: Arc::new(Vault::new(Arc::new(keys), ids.clone())),
            audit: None,
            registry: None,
        };
        let (identity, driver) = Identity::open(parts, quick()).expect("an identity");
        let mut drivers = JoinSet::new();
        drivers.spawn(driver.run(shutdown.clone()));
        let cloud = cloud
            .with_limits(setup.tasks)
            .with_directory(identity.directory().clone())
            .with_audit(identity.audit().clone());
        let cloud = Arc::new(cloud);
        let made = cloud.bootstrap().await.expect("a new cloud");
        let first = identity.bootstrap(None).await.expect("a first administrator");
        let first = first.expect("a new cloud");
        // From here on the directory is known to hear the store, and nobody waits for that.
        let asked = identity.authenticate(first.token.expose(), "test").await;
        assert!(matches!(asked, Ok(Identified::Person(_))));
        let provider = |(config, keys)| Oidc::new(config, keys, shared.clone());
        let providers = setup.providers.into_iter().map(provider).collect();
        let router = router(ApiParts {
            cloud: cloud.clone(),
            backend: backend.clone(),
            authenticator: Arc::new(identity.clone()),
            identity: Some(identity.clone()),
            providers,
            clock: shared,
            ids,
            readiness: setup.readiness,
            metrics: setup.metrics,
            open_metrics: setup.open_metrics,
            limits: setup.limits,
            edge: setup.edge,
            shutdown: shutdown.clone(),
        });
        Self {
            router,
            cloud,
            memory,
            backend,
            images,
            clock,
            shutdown,
            admin: first.token.expose().clone(),
            project: made.project.id(),
            identity,
            users: AtomicUsize::new(0),
            _drivers: drivers,
            _dir: dir,
        }
    }

    fn root(&self) -> Caller {
        Caller::internal("test", Rights::of_the_cloud().expect("rights"), self.project)
    }

    /// A token with `role`.
    pub(crate) async fn token(&self, role: Role) -> String {
        self.token_until(role, None).await.1
    }

    /// A token with `role`, and its id.
    pub(crate) async fn token_until(
        &self,
        role: Role,
        expires_at: Option<skyloom_model::Timestamp>,
    ) -> (TokenId, String) {
        let holder = match role {
            Role::Engine => Holder::Engine,
            Role::Member { project } => self.user(BuiltIn::Member, project).await,
            Role::Reader { project } => self.user(BuiltIn::Reader, project).await,
        };
        let root = self.root();
        let call = skyloom_identity::Call {
            by: &root.rights.principal,
            source: None,
            request_id: "req-test",
        };
        let asked = NewApiToken {
            name: "t".to_owned(),
            holder,
            expires_at,
        };
        let made = self.identity.create_token(&call, asked).await.expect("a token");
        (made.token.id, made.secret.expose().clone())
    }

    /// A new user with one role in a project.
    async fn user(&self, role: BuiltIn, project: ProjectId) -> Holder {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        let name = if number == 0 {
            "t".to_owned()
        } else {
            format!("t{number}")
        };
        let editor = self.identity.editor();
        let user = editor
            .change(|edit| edit.create_user(DEFAULT_DOMAIN, &name, |_| {}))
            .await
            .expect("a user");
        let target = Target::Project(project);
        editor
            .change(|edit| edit.grant(target, Actor::User(user.id), role.id(), false))
            .await
            .expect("a grant");
        Holder::User {
            user: user.id,
            scope: AuthScope::Project(project),
            permissions: Vec::new(),
        }
    }

    pub(crate) async fn project(&self, name: &str) -> ProjectId {
        let request = CreateProject {
            name: name.to_owned(),
            ..CreateProject::default()
        };
        self.cloud
            .create_project(&self.root(), request)
            .await
            .expect("a project")
            .id()
    }

    pub(crate) async fn member(&self) -> String {
        self.token(Role::Member {
            project: self.project,
        })
        .await
    }

    /// A host and its agent's token.
    pub(crate) async fn host(&self, name: &str) -> (HostId, String) {
        let made = self
            .call("POST", "/v1/hosts", &self.admin)
            .json(json!({"name": name}))
            .await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let id = made.json["host"]["meta"]["id"]
            .as_str()
            .expect("an id")
            .parse()
            .expect("an id");
        (id, made.json["token"].as_str().expect("shown once").to_owned())
    }

    /// A request with `token` (none when it is empty).
    pub(crate) fn call(&self, method: &str, path: &str, token: &str) -> Call<'_> {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Call {
            api: self,
            request,
            body: Body::empty(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &self.admin).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: Json) -> Reply {
        self.call("POST", path, &self.admin).json(body).await
    }
}

pub(crate) struct Call<'a> {
    api: &'a Api,
    request: http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn json(self, body: Json) -> Reply {
        self.header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
    }

    /// The answer as it comes, for streams.
    pub(crate) async fn open(self) -> Response {
        let request = self.request.body(self.body).expect("a request");
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let response = self
            .api
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        documented(&method, &path, response.status());
        response
    }

    pub(crate) async fn send(self) -> Reply {
        let response = self.open().await;
        let (parts, mut body) = response.into_parts();
        if parts
            .headers
            .get("content-type")
            .is_some_and(|kind| kind == "text/event-stream")
        {
            body = Body::empty(); // has no end; who wants its events opens it
        }
        let body = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
        let text = String::from_utf8_lossy(&body).into_owned();
        let reply = Reply {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        };
        reply.check();
        reply
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Json,
    pub(crate) text: String,
}

impl Reply {
    /// What every answer has, and every error.
    fn check(&self) {
        let header = |name: &str| self.headers.get(name).map(|v| v.to_str().expect("text"));
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{self:?}");
        let id = header("x-request-id").expect("a request id");
        let ready = self.json.get("phases").is_some();
        if (self.status.is_client_error() || self.status.is_server_error()) && !ready {
            assert_eq!(
                header("content-type"),
                Some("application/problem+json"),
                "{self:?}"
            );
            assert_eq!(self.json["request_id"], id);
            assert_eq!(self.json["status"], self.status.as_u16());
            let code = self.json["code"].as_str().expect("a code");
            assert_eq!(self.json["type"], format!("urn:skyloom:problem:{code}"));
            assert!(
                self.json["title"].is_string() && self.json["detail"].is_string(),
                "{self:?}"
            );
            assert!(self.json["retryable"].is_boolean(), "{self:?}");
            assert!(self.text.len() <= 4096, "an error of {} bytes", self.text.len());
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("text"))
    }

    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// The status and code of a refusal.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, code),
            "{}",
            self.text
        );
    }

    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

/// All operations: method, path template, the operation.
pub(crate) fn operations() -> impl Iterator<Item = (String, &'static str, &'static Json)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().expect("operations");
        operations
            .iter()
            .map(|(method, op)| (method.to_uppercase(), path.as_str(), op))
    })
}

pub(crate) fn statuses(operation: &Json) -> BTreeSet<u16> {
    let responses = operation["responses"].as_object().expect("responses");
    responses.keys().map(|s| s.parse().expect("a status")).collect()
}

/// No operation may answer with a status that its document does not name.
fn documented(method: &str, path: &str, status: StatusCode) {
    let fits = |template: &str| {
        let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        a.len() == b.len()
            && a.iter()
                .zip(&b)
                .all(|(t, p)| t == p || (t.starts_with('{') && !p.is_empty()))
    };
    for (known, template, operation) in operations() {
        if known == method && fits(template) {
            let documented = statuses(operation);
            assert!(
                documented.contains(&status.as_u16()),
                "{method} {template} answered {status}: {documented:?}"
            );
        }
    }
}

/// Server-sent events of an open answer.
pub(crate) struct Events {
    body: axum::body::BodyDataStream,
    text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) event: String,
    pub(crate) id: Option<String>,
    pub(crate) data: String,
    pub(crate) comment: bool,
}

impl SseEvent {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.data).expect("JSON data")
    }
}

impl Events {
    #[track_caller]
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next event, heartbeats included; `None` at the end.
    pub(crate) async fn any(&mut self) -> Option<SseEvent> {
        let wait = Duration::from_secs(30);
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut event = SseEvent::default();
                for line in block.lines() {
                    let (field, value) = line.split_once(':').unwrap_or((line, ""));
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    match field {
                        "" => event.comment = true,
                        "event" => event.event = value.to_owned(),
                        "id" => event.id = Some(value.to_owned()),
                        "data" => event.data.push_str(value),
                        other => panic!("an event has a field {other}"),
                    }
                }
                self.text = rest.to_owned();
                return Some(event);
            }
            let chunk = tokio::time::timeout(wait, self.body.next())
                .await
                .expect("an event in time")?;
            self.text
                .push_str(std::str::from_utf8(&chunk.expect("a chunk")).expect("text"));
        }
    }

    /// The next event that is no heartbeat.
    pub(crate) async fn next(&mut self) -> Option<SseEvent> {
        loop {
            let event = self.any().await?;
            if !event.comment {
                return Some(event);
            }
        }
    }
}
