//! Hosts with certificates, on real sockets: who is let in, as whom, and until when.

mod restriction;

use std::sync::Arc;

use futures::StreamExt as _;
use serde_json::{Value as Json, json};
use skyloom_api::{ApiLimits, ApiParts, EdgeConfig, RateLimits, ServeLimits, router, serve};
use skyloom_cloud::{AuthorityParts, HostAuthority};
use skyloom_identity::{FileKeys, Vault};
use skyloom_model::{Clock, HostId, Ids, ManualClock, Readiness, SeededIds, paths};
use skyloom_pki::testing::{TestPki, server_material};
use skyloom_pki::{
    HostJoined, IdentityMaterial, Lifetimes, Material, Oldest, PrivateKey, ReloadingClient, ReloadingServer,
    ServerNames, client_config, server_config,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::Api;

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// An API that speaks TLS, with two hosts.
struct Secure {
    api: Api,
    cloud: Arc<skyloom_cloud::Cloud>,
    authority: Arc<HostAuthority>,
    port: u16,
    a: HostId,
    b: HostId,
    /// The token of the agent of `a`.
    agent: String,
    _server: JoinSet<std::io::Result<()>>,
    _keys: tempfile::TempDir,
}

/// One client: a connection, or several.
struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    fn post(&self, path: &str, body: &Json) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Status and document.
    async fn ask(&self, path: &str, body: &Json) -> (u16, Json) {
        let answer = self.post(path, body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// Sends bytes.
    async fn put(&self, path: &str, content: &'static str) -> (u16, Json) {
        let request = self.http.put(format!("{}{path}", self.base));
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let request = request
            .header("content-type", "application/octet-stream")
            .body(content);
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn store(&self, verb: &str, body: Json) -> (u16, Json) {
        self.ask(&format!("/v1/store/{verb}"), &body).await
    }

    async fn get(&self, key: &str) -> (u16, Json) {
        self.store("get", json!({"key": key})).await
    }

    /// Asked for anything, it does not even get to ask.
    async fn kept_out(&self) -> bool {
        self.post("/v1/store/capability", &json!({}))
            .send()
            .await
            .is_err()
    }
}

impl Secure {
    async fn new() -> Self {
        Self::with(ApiLimits::default()).await
    }

    async fn with(limits: ApiLimits) -> Self {
        let api = Api::new().await;
        let (a, agent) = api.host("host1").await;
        let (b, _) = api.host("host10").await;
        let clock: Arc<ManualClock> = Arc::new(api.clock.clone());
        let ids: Arc<dyn Ids> = Arc::new(SeededIds::new(api.clock.clone(), 77));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        FileKeys::generate(&path, &*ids).unwrap();
        let keys = FileKeys::read(&path, &[], ids.clone()).unwrap();
        let authority = HostAuthority::open(AuthorityParts {
            backend: api.backend.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            secrets: Arc::new(Vault::new(Arc::new(keys), ids.clone())),
            cloud: "test".to_owned(),
            lifetimes: Lifetimes::default(),
        });
        let authority = authority.await.unwrap();
        let cloud = Arc::new((*api.cloud).clone().with_authority(authority.clone()));
        let routes = router(ApiParts {
            cloud: cloud.clone(),
            backend: api.backend.clone(),
            authenticator: Arc::new(api.identity.clone()),
            identity: Some(api.identity.clone()),
            providers: Vec::new(),
            clock: clock.clone(),
            ids,
            readiness: Readiness::new(),
            metrics: Arc::new(String::new),
            open_metrics: true,
            limits: limits.with_heartbeat(std::time::Duration::from_millis(50)),
            edge: EdgeConfig::default().with_rates(RateLimits::unlimited()),
            shutdown: api.shutdown.clone(),
        });
        let names = ServerNames::new(&["localhost"]).unwrap();
        let own = authority.issue_server(&names).unwrap();
        let live = ReloadingServer::new(&server_material(&own.material)).unwrap();
        let judge = Some(authority.judge().clone());
        let tls = server_config(live, judge, clock, Oldest::Tls13).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        let limits = ServeLimits::default();
        server.spawn(serve(
            listener,
            routes,
            Some(Arc::new(tls)),
            limits,
            api.shutdown.clone(),
        ));
        Self {
            api,
            cloud,
            authority,
            port,
            a,
            b,
            agent,
            _server: server,
            _keys: folder,
        }
    }

    /// A client that believes these roots, on HTTP/1.1 so that each of its requests can have a connection of its own.
    fn client_of(&self, identity: Option<&IdentityMaterial>, roots: String, host: &str) -> Client {
        let material = Material {
            identity: identity.cloned(),
            roots: Some(roots.into_bytes()),
        };
        let client = ReloadingClient::new(&material).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(self.api.clock.clone());
        let mut config = client_config(client, clock, Oldest::Tls12).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(config)
            .build()
            .unwrap();
        Client {
            http,
            base: format!("https://{host}:{}", self.port),
            token: None,
        }
    }

    fn client(&self, identity: Option<&IdentityMaterial>) -> Client {
        self.client_of(identity, self.authority.roots(), "localhost")
    }

    fn with_token(&self) -> Client {
        Client {
            token: Some(self.agent.clone()),
            ..self.client(None)
        }
    }

    async fn operator(&self, host: HostId, action: &str) -> Json {
        let client = Client {
            token: Some(self.api.admin.clone()),
            ..self.client(None)
        };
        let (status, answer) = client
            .ask(&format!("/v1/hosts/{host}/actions/{action}"), &json!({}))
            .await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The certificate of a host, had by a join token over the wire.
    async fn joined(&self, host: HostId, name: &str) -> (IdentityMaterial, HostJoined) {
        let token = self.operator(host, "join-token").await["token"].clone();
        let key = PrivateKey::generate().unwrap();
        let asked = json!({"token": token, "name": name, "request": key.request().unwrap()});
        let (status, answer) = self.client(None).ask("/v1/join", &asked).await;
        assert_eq!(status, 200, "{answer}");
        let joined: HostJoined = serde_json::from_value(answer).unwrap();
        (material(&joined, &key), joined)
    }

    fn status_key(&self) -> String {
        paths::agent_status(self.a)
    }
}

fn material(joined: &HostJoined, key: &PrivateKey) -> IdentityMaterial {
    IdentityMaterial {
        certificates: joined.certificate.clone().into_bytes(),
        key: skyloom_model::Secret::new(key.to_pem().expose().clone().into_bytes()),
    }
}

fn code(answer: &(u16, Json)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_host_acts_by_its_certificate_as_by_its_token() {
    let site = Secure::new().await;
    let (mine, joined) = site.joined(site.a, "host1").await;
    assert_eq!(joined.host, site.a);
    for client in [site.client(Some(&mine)), site.with_token()] {
        assert_eq!(client.get(&site.status_key()).await.0, 200);
        let other = client.get(&paths::agent_status(site.b)).await;
        assert_eq!(code(&other), (403, "store.denied"));
        // It makes no user calls.
        let answer = client.http.get(format!("{}/v1/servers", client.base));
        let answer = match &client.token {
            Some(token) => answer.bearer_auth(token),
            None => answer,
        };
        assert_eq!(answer.send().await.unwrap().status().as_u16(), 403);
    }
    // A token that is shown beside a certificate is what counts: whoever sends one means it.
    let wrong = Client {
        token: Some("sky_wrong".to_owned()),
        ..site.client(Some(&mine))
    };
    assert_eq!(wrong.get(&site.status_key()).await.0, 401);
}

/// Attack 71.
#[tokio::test]
async fn whoever_shows_something_else_is_kept_out() {
    let site = Secure::new().await;
    let (mine, _) = site.joined(site.a, "host1").await;
    let nobody = site.client(None).get(&site.status_key()).await;
    assert_eq!(code(&nobody), (401, "auth.required"));

    // Of another cloud, with the same host's id; one's own word; a server's of this cloud.
    let strangers = TestPki::new(9);
    let stranger = strangers.host(site.a, "host1").identity;
    assert!(site.client(Some(&stranger)).kept_out().await);
    let server = site
        .authority
        .issue_server(&ServerNames::new(&["host1"]).unwrap())
        .unwrap()
        .material;
    assert!(site.client(Some(&server)).kept_out().await);
    // Another's certificate, without its key.
    let stolen = IdentityMaterial {
        certificates: mine.certificates.clone(),
        key: stranger.key.clone(),
    };
    let material = Material {
        identity: Some(stolen),
        roots: None,
    };
    assert!(ReloadingServer::new(&material).is_err());

    // The agent's side: another name, another authority.
    let roots = site.authority.roots();
    assert!(site.client_of(Some(&mine), roots, "127.0.0.1").kept_out().await);
    let others = strangers.authority.certificate_pem();
    assert!(site.client_of(Some(&mine), others, "localhost").kept_out().await);

    // Too old a TLS, as 1.1 wrote it: an alert, and the end.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_good_for_its_successor_alone() {
    let site = Secure::new().await;
    let (mine, joined) = site.joined(site.a, "host1").await;
    let before = site.client(Some(&mine));
    assert_eq!(before.get(&site.status_key()).await.0, 200);
    site.api.clock.advance(DAY * 8);
    // On the connection that it was valid on, and on a new one.
    for client in [before, site.client(Some(&mine))] {
        let refused = client.get(&site.status_key()).await;
        assert_eq!(code(&refused), (401, "certificate.expired"));
    }
    let key = PrivateKey::generate().unwrap();
    let asked = json!({"request": key.request().unwrap()});
    let nobody = site.client(None).ask("/v1/join/renew", &asked).await;
    assert_eq!(code(&nobody), (401, "certificate.required"));
    let by_token = site.with_token().ask("/v1/join/renew", &asked).await;
    assert_eq!(code(&by_token), (401, "certificate.required"));
    let (status, answer) = site.client(Some(&mine)).ask("/v1/join/renew", &asked).await;
    assert_eq!(status, 200, "{answer}");
    let renewed: HostJoined = serde_json::from_value(answer).unwrap();
    assert!(renewed.host == site.a && renewed.not_after > joined.not_after);
    let client = site.client(Some(&material(&renewed, &key)));
    assert_eq!(client.get(&site.status_key()).await.0, 200);
    // The old one goes on to be of use for nothing else, and ends with its grace.
    site.api.clock.advance(DAY * 30);
    assert!(site.client(Some(&mine)).kept_out().await);
}

#[tokio::test]
async fn taken_back_ends_what_is_open_and_what_comes() {
    let site = Secure::new().await;
    let (mine, _) = site.joined(site.a, "host1").await;
    let (theirs, _) = site.joined(site.b, "host10").await;
    site.api.clock.advance(std::time::Duration::from_secs(600));
    let client = site.client(Some(&mine));
    let body = json!({"prefix": format!("jobs/{}", site.a), "after": 0});
    let watch = client.post("/v1/store/watch", &body).send().await.unwrap();
    assert_eq!(watch.status().as_u16(), 200);
    let open = site.client(Some(&mine));
    assert_eq!(open.get(&site.status_key()).await.0, 200);
    site.operator(site.a, "revoke-certificates").await;
    let mut lines = watch.bytes_stream();
    while let Some(line) = lines.next().await {
        // What was on its way may still come; then it ends.
        if line.is_err() {
            break;
        }
    }
    let refused = open.get(&site.status_key()).await;
    assert_eq!(code(&refused), (401, "certificate.revoked"));
    assert!(site.client(Some(&mine)).kept_out().await);
    let other = site.client(Some(&theirs)).get(&paths::agent_status(site.b)).await;
    assert_eq!(other.0, 200, "it is nobody else's business");

    // The machine joins again, and is the same host.
    let (again, _) = site.joined(site.a, "host1").await;
    site.api.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(site.client(Some(&again)).get(&site.status_key()).await.0, 200);
}

#[tokio::test]
async fn a_removed_host_is_nobody() {
    let site = Secure::new().await;
    let (mine, _) = site.joined(site.a, "host1").await;
    let unused = site.operator(site.b, "join-token").await;
    site.api.clock.advance(std::time::Duration::from_secs(600));
    let admin = Client {
        token: Some(site.api.admin.clone()),
        ..site.client(None)
    };
    for host in [site.a, site.b] {
        let url = format!("{}/v1/hosts/{host}", admin.base);
        let gone = admin
            .http
            .delete(url)
            .bearer_auth(&site.api.admin)
            .send()
            .await
            .unwrap();
        assert_eq!(gone.status().as_u16(), 204);
    }
    site.authority.refresh().await.unwrap();
    assert!(site.client(Some(&mine)).kept_out().await);
    let key = PrivateKey::generate().unwrap();
    let asked = json!({"token": unused["token"], "name": "host10", "request": key.request().unwrap()});
    let late = site.client(None).ask("/v1/join", &asked).await;
    assert_eq!(code(&late), (403, "join.unknown"));
    assert!(site.cloud.authority().is_some());
}

/// Attack 77, over the wire: a bootstrap token twice, by another host's name, and spoiled.
#[tokio::test]
async fn a_join_token_is_good_once() {
    let site = Secure::new().await;
    let made = site.operator(site.a, "join-token").await;
    let nobody = site.client(None);
    let ask = async |name: &str, key: &PrivateKey| {
        let asked = json!({"token": made["token"], "name": name, "request": key.request().unwrap()});
        nobody.ask("/v1/join", &asked).await
    };
    let (first, second) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    assert_eq!(code(&ask("host10", &first).await), (403, "join.other_host"));
    assert_eq!(ask("host1", &first).await.0, 200);
    assert_eq!(code(&ask("host1", &second).await), (403, "join.used"));
    site.api.clock.advance(DAY);
    assert_eq!(code(&ask("host1", &first).await), (403, "join.used"));
    let spoiled = json!({"token": "x", "name": "host1", "request": first.request().unwrap()});
    assert_eq!(
        code(&nobody.ask("/v1/join", &spoiled).await),
        (403, "join.unknown")
    );
    // Each who had the token is told of: the one that got a certificate, and those that did not.
    let told = site
        .api
        .audited(&format!("object={}&action=host:join", site.a))
        .await;
    let mut ends: Vec<_> = told
        .iter()
        .map(|entry| {
            (
                entry["source"].as_str(),
                entry["outcome"].as_str(),
                entry["code"].as_str(),
            )
        })
        .collect();
    ends.sort_unstable();
    let (here, denied) = (Some("127.0.0.1"), Some("denied"));
    let expected = [
        (here, denied, Some("join.other_host")),
        (here, denied, Some("join.used")),
        (here, denied, Some("join.used")),
        // The operator who made the token, and the machine.
        (here, Some("done"), None),
        (here, Some("done"), None),
    ];
    assert_eq!(ends, expected);
    // Agents and strangers make none.
    for client in [site.with_token(), site.client(None)] {
        let path = format!("/v1/hosts/{}/actions/join-token", site.b);
        assert!([401, 403].contains(&client.ask(&path, &json!({})).await.0));
    }
}

#[tokio::test]
async fn seats_are_counted_by_host_whatever_connection_it_comes_by() {
    let site = Secure::with(ApiLimits::default().with_max_streams(100, 2)).await;
    let (mine, _) = site.joined(site.a, "host1").await;
    let (theirs, _) = site.joined(site.b, "host10").await;
    let watch = async |identity: &IdentityMaterial, host: HostId| {
        let body = json!({"prefix": format!("jobs/{host}"), "after": 0});
        let client = site.client(Some(identity));
        let answer = client.post("/v1/store/watch", &body).send().await.unwrap();
        (answer.status().as_u16(), answer)
    };
    let open = [watch(&mine, site.a).await, watch(&mine, site.a).await];
    assert!(open.iter().all(|(status, _)| *status == 200));
    assert_eq!(watch(&mine, site.a).await.0, 429);
    assert_eq!(watch(&theirs, site.b).await.0, 200);
}
