//! API, engine and agent as three processes that speak TLS, with the cloud's own authority: the agent joins with a token, renews by itself,
//! is taken back and comes again. Lives are of seconds here.

use std::path::{Path, PathBuf};

use serde_json::Value;
use skyloom_model::{Clock as _, SystemClock, Timestamp};
use skyloom_pki::testing::TestPki;
use skyloom_store::conformance::soak::private_port;

use crate::support::{Process, Sky, guest_image, until};

struct Cloud {
    dir: PathBuf,
    sky: Sky,
    _api: Process,
}

fn set(name: &str, pairs: &[(&str, String)], log: &Path) -> Process {
    let set: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let args: Vec<&str> = set.iter().flat_map(|s| ["--set", s.as_str()]).collect();
    Process::start(name, &args, log)
}

fn api(dir: &Path, more: &[(&str, String)]) -> (Process, String) {
    let at = |name: &str| dir.join(name).display().to_string();
    let mut pairs = vec![
        ("store.uri", format!("sqlite://{}", at("skyloom.db"))),
        ("api.listen", format!("127.0.0.1:{}", private_port().unwrap())),
        ("images.dir", at("images")),
        ("bootstrap.token_file", at("admin-token")),
    ];
    pairs.extend_from_slice(more);
    let api = set("skyloom-api", &pairs, &dir.join("api.log"));
    let endpoint = api.line("SKYLOOM_ENDPOINT=");
    (api, endpoint)
}

impl Cloud {
    /// A cloud whose hosts' certificates live for so many seconds.
    fn start(dir: &Path, host_seconds: u32) -> Self {
        let at = |name: &str| dir.join(name).display().to_string();
        let (api, endpoint) = api(
            dir,
            &[
                ("pki.enabled", "true".to_owned()),
                ("identity.key_file", at("seal.key")),
                ("pki.roots_file", at("roots.pem")),
                ("pki.host_seconds", host_seconds.to_string()),
                ("pki.back_date_seconds", "1".to_owned()),
            ],
        );
        assert!(endpoint.starts_with("https://"), "{endpoint}");
        let token = std::fs::read_to_string(dir.join("admin-token")).unwrap();
        Self {
            dir: dir.to_owned(),
            sky: Sky {
                endpoint,
                token: token.trim().to_owned(),
            },
            _api: api,
        }
    }

    fn at(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn json(&self, args: &[&str]) -> Value {
        self.sky
            .json(&[args, &["--ca-file", &self.at("roots.pem")]].concat())
    }

    fn host(&self) -> Value {
        self.json(&["host", "show", "h1"])
    }

    fn join_token(&self, name: &str) {
        let (token, roots) = (self.at(name), self.at("agent-roots.pem"));
        let made = self.json(&[
            "host",
            "join-token",
            "h1",
            "--token-file",
            &token,
            "--roots-file",
            &roots,
        ]);
        assert!(made["token"].is_null(), "it is in the file alone: {made:#}");
    }

    fn engine(&self) -> Process {
        let pairs = [
            ("store.uri", self.sky.endpoint.clone()),
            ("store.token_file", self.at("engine-token")),
            ("store.ca_file", self.at("roots.pem")),
            ("images.dir", self.at("images")),
        ];
        set("skyloom-engine", &pairs, &self.dir.join("engine.log"))
    }

    /// The agent, which has no token but one to join with, if that is named.
    fn agent(&self, join_token: Option<&str>) -> Process {
        let mut pairs = vec![
            ("store.uri", self.sky.endpoint.clone()),
            ("store.ca_file", self.at("agent-roots.pem")),
            ("agent.name", "h1".to_owned()),
            ("agent.data_dir", self.at("host")),
            ("hypervisor.kind", "fake".to_owned()),
        ];
        if let Some(name) = join_token {
            pairs.push(("agent.join_token_file", self.at(name)));
        }
        set("skyloom-agent", &pairs, &self.dir.join("agent.log"))
    }

    /// With an engine and a host that has joined.
    fn with_host(dir: &Path, host_seconds: u32) -> (Self, Process, Process) {
        let cloud = Self::start(dir, host_seconds);
        cloud.json(&["host", "add", "h1"]);
        let engine = cloud.json(&["token", "create", "e1", "--role", "engine"]);
        std::fs::write(dir.join("engine-token"), engine["secret"].as_str().unwrap()).unwrap();
        cloud.join_token("join-token");
        let (engine, agent) = (cloud.engine(), cloud.agent(Some("join-token")));
        until("the host that joined", || reachable(&cloud.host()).then_some(()));
        (cloud, engine, agent)
    }
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

fn reachable(host: &Value) -> bool {
    host["status"]["reachable"] == true
}

fn expired(host: &Value) -> bool {
    host["status"]["certificate_expired"] == true
}

#[test]
fn a_host_joins_works_renews_and_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, _engine, agent) = Cloud::with_host(dir.path(), 20);
    let first = cloud.host()["status"]["certificate_until"].clone();
    assert!(first.is_string(), "{first}");

    // Its jobs and its images come by the same certificate.
    let image = guest_image();
    let file = image.to_str().unwrap();
    cloud.json(&[
        "image", "import", "--name", "guest", "--format", "qcow2", "--file", file, "--wait",
    ]);
    let made = cloud.json(&[
        "server", "create", "s1", "--image", "guest", "--flavor", "m1.tiny", "--wait",
    ]);
    assert_ne!(made, Value::Null);
    assert_eq!(
        cloud.json(&["server", "show", "s1"])["status"]["power"],
        "running"
    );

    // Renewed twice, which outlives the first certificate, and its lease was never lost.
    let mut seen = vec![first];
    until("two renewals", || {
        let host = cloud.host();
        assert!(reachable(&host) && !expired(&host), "{host:#}");
        let until = host["status"]["certificate_until"].clone();
        if seen.last() != Some(&until) {
            seen.push(until);
        }
        (seen.len() >= 4).then_some(())
    });
    assert!(seen.is_sorted_by(|a, b| a.as_str() < b.as_str()), "{seen:?}");

    cloud.json(&["host", "revoke-certificates", "h1", "--why", "a test", "--yes"]);
    let host = until("the host that was taken back", || {
        Some(cloud.host()).filter(|host| !reachable(host))
    });
    assert!(!expired(&host), "taken back is not expired: {host:#}");
    agent.kill();

    // What it has is of no use any more; a new join token lets it in again.
    let refused = cloud.agent(Some("join-token"));
    until("the refusal", || {
        refused.log_text().contains("certificate").then_some(())
    });
    assert!(!reachable(&cloud.host()));
    refused.kill();
    cloud.join_token("join-token-2");
    let _agent = cloud.agent(Some("join-token-2"));
    until("the host that joined again", || {
        reachable(&cloud.host()).then_some(())
    });
    assert_eq!(
        cloud.json(&["server", "show", "s1"])["status"]["power"],
        "running"
    );
}

#[test]
fn a_certificate_that_ran_out_is_renewed_and_never_looks_like_a_dead_host() {
    let dir = tempfile::tempdir().unwrap();
    // Shorter than a lease: it runs out before anybody could call the host unreachable.
    let (cloud, _engine, agent) = Cloud::with_host(dir.path(), 6);
    agent.kill();
    let host = until("the certificate's end", || {
        let host = cloud.host();
        assert!(reachable(&host), "{host:#}");
        Some(host).filter(expired)
    });
    assert!(host["status"]["certificate_until"].is_string());
    // Without a join token: what it has is enough.
    let _agent = cloud.agent(None);
    until("the renewed certificate", || {
        let host = cloud.host();
        assert!(reachable(&host), "{host:#}");
        (!expired(&host)).then_some(())
    });
}

#[test]
fn an_agent_with_nothing_to_show_does_not_begin() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(dir.path(), 60);
    cloud.json(&["host", "add", "h1"]);
    cloud.join_token("join-token");
    let spoiled = "skyjoin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    std::fs::write(dir.path().join("spoiled"), spoiled).unwrap();
    let mut ended = Vec::new();
    for (join_token, says) in [
        (Some("spoiled"), "no join token of this cloud"),
        (None, "agent.host is not set"),
    ] {
        let agent = cloud.agent(join_token);
        let log = until("the agent's end", || {
            let log = agent.log_text();
            log.contains(says).then_some(log)
        });
        ended.push(log);
    }
    assert!(
        ended.iter().all(|log| !log.contains("AAAAAAAA")),
        "a token in a log: {ended:?}"
    );
}

#[test]
fn new_certificates_in_files_are_shown_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (TestPki::at(1, now()), TestPki::at(2, now()));
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let place = |pki: &TestPki| {
        // Both at once cannot be: what does not fit together in between is left alone.
        std::fs::write(&key, pki.server.key.expose()).unwrap();
        std::fs::write(&cert, &pki.server.certificates).unwrap();
    };
    place(&one);
    let (_api, endpoint) = api(
        dir.path(),
        &[
            ("api.tls_cert", cert.display().to_string()),
            ("api.tls_key", key.display().to_string()),
        ],
    );
    let token = std::fs::read_to_string(dir.path().join("admin-token")).unwrap();
    let sky = Sky {
        endpoint,
        token: token.trim().to_owned(),
    };
    let roots = |name: &str, pki: &TestPki| {
        let path = dir.path().join(name);
        std::fs::write(&path, pki.authority.certificate_pem()).unwrap();
        path.display().to_string()
    };
    let (first, second) = (roots("one.pem", &one), roots("two.pem", &two));
    let list = |roots: &str| sky.try_json(&["host", "list", "--ca-file", roots]);
    list(&first).unwrap();
    assert!(list(&second).is_err(), "signed by another");
    std::fs::write(&cert, "spoiled").unwrap();
    list(&first).unwrap();
    place(&two);
    until("the new certificate", || list(&second).ok());
    assert!(list(&first).is_err());
}
