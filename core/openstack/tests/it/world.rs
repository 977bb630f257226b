//! A store, an identity with its driver, and the router over both.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skyloom_identity::{
    Actor, BuiltIn, DEFAULT_DOMAIN, FileKeys, HashCost, HasherConfig, Identity, IdentityConfig,
    IdentityParts, Owner, Target, Vault, ledger_path,
};
use skyloom_model::{ManualClock, ProjectId, SeededIds};
use skyloom_openstack::identity::{self, Contents, OpenstackConfig, OpenstackParts, router};
use skyloom_store::{Capability, DynBackend, Key, ListOptions, MemoryConfig, MemoryStore, Prefix};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) const PASSWORD: &str = "correct horse battery";

/// What projects hold: all of them, when it is said so.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Option<String>>);

#[async_trait]
impl Contents for Held {
    async fn held(&self, _: ProjectId) -> skyloom_store::Result<Option<String>> {
        Ok(self.0.lock().clone())
    }
}

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) identity: Identity,
    /// A token of the first administrator for the system.
    pub(crate) admin: String,
    pub(crate) password: String,
    /// The project in which the first administrator has its role.
    pub(crate) project: String,
    held: Arc<Held>,
    backend: DynBackend,
    _keys: TempDir,
    _drivers: JoinSet<()>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }
    #[track_caller]
    pub(crate) fn id(&self, of: &str) -> String {
        self.body[of]["id"].as_str().unwrap().to_owned()
    }
    #[track_caller]
    pub(crate) fn ids(&self, of: &str) -> Vec<String> {
        let all = self.body[of].as_array().unwrap();
        all.iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    }
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        self.headers["x-subject-token"].to_str().unwrap().to_owned()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(OpenstackConfig::default()).await
    }

    pub(crate) async fn with(config: OpenstackConfig) -> Self {
        let clock = ManualClock::new();
        let settings = MemoryConfig::default().with_capability(Capability::PORTABLE);
        let backend: DynBackend = Arc::new(MemoryStore::new(Arc::new(clock.clone()), settings));
        let ids = Arc::new(SeededIds::new(clock.clone(), 5));
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("kek");
        FileKeys::generate(&file, &*ids).unwrap();
        let vault = Vault::new(
            Arc::new(FileKeys::read(&file, &[], ids.clone()).unwrap()),
            ids.clone(),
        );
        let parts = IdentityParts {
            backend: backend.clone(),
            clock: Arc::new(clock),
            ids: ids.clone(),
            secrets: Arc::new(vault),
            audit: None,
            registry: None,
        };
        let cost = HashCost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        };
        let password = HasherConfig {
            cost,
            at_once: 2,
            queue: 1000,
        };
        let (identity, driver) = Identity::open(
            parts,
            IdentityConfig {
                password,
                ..IdentityConfig::default()
            },
        )
        .unwrap();
        let mut drivers = JoinSet::new();
        drivers.spawn(driver.run(CancellationToken::new()));
        identity.ready().await.unwrap();
        let first = identity.bootstrap(None).await.unwrap().unwrap();
        identity::bootstrap(&identity).await.unwrap();
        let editor = identity.editor();
        let made = editor.change(|edit| edit.create_project(DEFAULT_DOMAIN, None, "admin", |_| {}));
        let project = made.await.unwrap().meta.id;
        let target = Target::Project(ProjectId::from_uuid(project));
        editor
            .change(|edit| edit.grant(target, Actor::User(first.user), BuiltIn::Admin.id(), false))
            .await
            .unwrap();
        let held = Arc::new(Held::default());
        let parts = OpenstackParts {
            identity: identity.clone(),
            backend: backend.clone(),
            ids,
            contents: held.clone(),
            config,
        };
        let mut world = Self {
            router: router(parts),
            identity,
            admin: String::new(),
            password: first.password.expose().clone(),
            project: project.simple().to_string(),
            held,
            backend,
            _keys: keys,
            _drivers: drivers,
        };
        let scope = json!({"system": {"all": true}});
        world.admin = world.login("admin", &world.password, scope).await.is(201).token();
        world
    }

    /// All entries of the audit.
    pub(crate) async fn audit(&self) -> Vec<Value> {
        let prefix = Prefix::parse("audit").unwrap();
        let page = self.backend.list(&prefix, ListOptions::default()).await.unwrap();
        assert!(!page.more);
        page.items.iter().map(|kv| kv.value.parse().unwrap()).collect()
    }

    /// The quota's ledger of a project.
    pub(crate) async fn ledger(&self, project: &str) -> Value {
        let id: ProjectId = uuid::Uuid::parse_str(project).map(ProjectId::from_uuid).unwrap();
        let key = Key::parse(&ledger_path(Owner::Project(id))).unwrap();
        self.backend
            .get(&key)
            .await
            .unwrap()
            .unwrap()
            .value
            .parse()
            .unwrap()
    }

    pub(crate) fn hold(&self, what: &str) {
        *self.held.0.lock() = Some(what.to_owned());
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Reply {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("/identity{path}"))
            .header("host", "cloud.example:5000");
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Reply {
        self.call(token, "GET", path, None).await
    }
    pub(crate) async fn put(&self, token: &str, path: &str) -> Reply {
        self.call(token, "PUT", path, None).await
    }
    pub(crate) async fn delete(&self, token: &str, path: &str) -> Reply {
        self.call(token, "DELETE", path, None).await
    }
    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> Reply {
        self.call(token, "POST", path, Some(body)).await
    }
    pub(crate) async fn patch(&self, token: &str, path: &str, body: Value) -> Reply {
        self.call(token, "PATCH", path, Some(body)).await
    }

    /// A call that is about another token.
    pub(crate) async fn about(&self, token: &str, method: &str, subject: &str) -> Reply {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri("/identity/v3/auth/tokens")
            .header("x-auth-token", token)
            .header("x-subject-token", subject);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// A login with a password; `scope` null: the default one.
    pub(crate) async fn login(&self, name: &str, password: &str, scope: Value) -> Reply {
        let user = json!({"name": name, "domain": {"id": "default"}, "password": password});
        self.log_in(
            json!({"methods": ["password"], "password": {"user": user}}),
            scope,
        )
        .await
    }

    pub(crate) async fn log_in(&self, identity: Value, scope: Value) -> Reply {
        let mut auth = json!({"identity": identity});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.post("", "/v3/auth/tokens", json!({"auth": auth})).await
    }

    pub(crate) async fn by_token(&self, token: &str, scope: Value) -> Reply {
        self.log_in(json!({"methods": ["token"], "token": {"id": token}}), scope)
            .await
    }

    pub(crate) async fn by_credential(&self, id: &str, secret: &str) -> Reply {
        let credential = json!({"id": id, "secret": secret});
        let identity = json!({"methods": ["application_credential"], "application_credential": credential});
        self.log_in(identity, Value::Null).await
    }

    pub(crate) async fn domain(&self, name: &str) -> String {
        self.post(&self.admin, "/v3/domains", json!({"domain": {"name": name}}))
            .await
            .is(201)
            .id("domain")
    }
    pub(crate) async fn user(&self, name: &str, domain: &str) -> String {
        let user = json!({"user": {"name": name, "domain_id": domain, "password": PASSWORD}});
        self.post(&self.admin, "/v3/users", user).await.is(201).id("user")
    }
    pub(crate) async fn group(&self, name: &str, domain: &str) -> String {
        let group = json!({"group": {"name": name, "domain_id": domain}});
        self.post(&self.admin, "/v3/groups", group)
            .await
            .is(201)
            .id("group")
    }
    pub(crate) async fn make_project(&self, name: &str, domain: &str, parent: Option<&str>) -> String {
        let project = json!({"project": {"name": name, "domain_id": domain, "parent_id": parent}});
        self.post(&self.admin, "/v3/projects", project)
            .await
            .is(201)
            .id("project")
    }
    pub(crate) async fn role(&self, name: &str) -> String {
        self.post(&self.admin, "/v3/roles", json!({"role": {"name": name}}))
            .await
            .is(201)
            .id("role")
    }
    /// The id of a built-in role.
    pub(crate) fn built_in(role: BuiltIn) -> String {
        role.id().uuid().simple().to_string()
    }
    /// A user with a role in a project of its own, and a token of it there.
    pub(crate) async fn member(&self, name: &str) -> (String, String, String) {
        let (user, project) = (
            self.user(name, "default").await,
            self.make_project(name, "default", None).await,
        );
        let role = Self::built_in(BuiltIn::Member);
        self.put(
            &self.admin,
            &format!("/v3/projects/{project}/users/{user}/roles/{role}"),
        )
        .await
        .is(204);
        let token = self
            .login(name, PASSWORD, json!({"project": {"id": project}}))
            .await
            .is(201)
            .token();
        (user, project, token)
    }
    /// A user with a role in the scope of a domain, and a token of it there.
    pub(crate) async fn of_domain(&self, name: &str, domain: &str, role: BuiltIn) -> (String, String) {
        let (user, role) = (self.user(name, domain).await, Self::built_in(role));
        self.put(
            &self.admin,
            &format!("/v3/domains/{domain}/users/{user}/roles/{role}"),
        )
        .await
        .is(204);
        let person = json!({"id": user, "password": PASSWORD});
        let identity = json!({"methods": ["password"], "password": {"user": person}});
        let token = self
            .log_in(identity, json!({"domain": {"id": domain}}))
            .await
            .is(201)
            .token();
        (user, token)
    }
}
