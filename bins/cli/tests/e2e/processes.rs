//! API, engine and agent as three processes on one SQLite file behind the API; each killed with -9 in the middle of a
//! create. The hypervisor is the simulated one, so that "in the middle" can be held still.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skyloom::hypervisor::{FakeOptions, FakeWorld, Fault, FaultPoint};
use skyloom_store::conformance::soak::private_port;

use crate::support::{Process, Sky, guest_image, until};

/// A cloud of three processes in one folder.
pub(crate) struct Trio {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    agent_token: String,
    pub(crate) host: String,
    pub(crate) sky: Sky,
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

impl Trio {
    pub(crate) fn api(dir: &Path, port: u16) -> Process {
        let set = [
            format!("store.uri=sqlite://{}/skyloom.db", dir.display()),
            format!("api.listen=127.0.0.1:{port}"),
            format!("images.dir={}/images", dir.display()),
            format!("bootstrap.token_file={}/admin-token", dir.display()),
        ];
        let args: Vec<&str> = set.iter().flat_map(|s| ["--set", s.as_str()]).collect();
        Process::start("skyloom-api", &args, &dir.join("api.log"))
    }

    pub(crate) fn first(dir: &Path) -> (Self, Process) {
        let port = private_port().unwrap();
        let api = Self::api(dir, port);
        let endpoint = api.line("SKYLOOM_ENDPOINT=");
        let token = std::fs::read_to_string(dir.join("admin-token"))
            .unwrap()
            .trim()
            .to_owned();
        let sky = Sky { endpoint, token };
        let host = sky.json(&["host", "add", "h1"]);
        let engine = sky.json(&["token", "create", "e1", "--role", "engine"]);
        write(&dir.join("engine-token"), engine["secret"].as_str().unwrap());
        let agent_token = host["token"].as_str().unwrap().to_owned();
        write(&dir.join("agent-token"), &agent_token);
        let host = host["host"]["meta"]["id"].as_str().unwrap().to_owned();
        (
            Self {
                dir: dir.to_owned(),
                port,
                agent_token,
                host,
                sky,
            },
            api,
        )
    }

    pub(crate) fn engine(&self, name: &str) -> Process {
        let set = [
            format!("store.uri={}", self.sky.endpoint),
            format!("store.token_file={}/engine-token", self.dir.display()),
            format!("images.dir={}/images", self.dir.display()),
            format!("engine.name={name}"),
        ];
        let args: Vec<&str> = set.iter().flat_map(|s| ["--set", s.as_str()]).collect();
        Process::start("skyloom-engine", &args, &self.dir.join(format!("{name}.log")))
    }

    pub(crate) fn agent(&self) -> Process {
        self.agent_of("fake")
    }

    /// The host's agent, on a hypervisor of that kind.
    pub(crate) fn agent_of(&self, kind: &str) -> Process {
        let set = [
            format!("store.uri={}", self.sky.endpoint),
            format!("store.token_file={}/agent-token", self.dir.display()),
            format!("agent.host={}", self.host),
            "agent.name=h1".to_owned(),
            format!("agent.data_dir={}/host", self.dir.display()),
            format!("hypervisor.kind={kind}"),
        ];
        let args: Vec<&str> = set.iter().flat_map(|s| ["--set", s.as_str()]).collect();
        Process::start("skyloom-agent", &args, &self.dir.join("agent.log"))
    }

    /// The host's world, seen from outside: it outlives the agent.
    pub(crate) fn world(&self) -> FakeWorld {
        FakeWorld::open(FakeOptions::directory(self.dir.join("host/fake"))).unwrap()
    }
}

#[test]
fn each_process_may_die_in_the_middle_of_a_create() {
    let dir = tempfile::tempdir().unwrap();
    let (trio, api) = Trio::first(dir.path());
    let sky = &trio.sky;
    let (engine, agent) = (trio.engine("e1"), trio.agent());
    let image = guest_image();
    sky.json(&[
        "image",
        "import",
        "--name",
        "guest",
        "--format",
        "qcow2",
        "--file",
        image.to_str().unwrap(),
        "--wait",
    ]);
    sky.until("the host", |sky| {
        let hosts = sky.json(&["host", "list"]);
        (hosts[0]["status"]["reachable"] == true).then_some(())
    });

    let world = trio.world();
    world
        .fault_next(FaultPoint::Start, Fault::HangAfterEffect)
        .unwrap();
    let created = sky.json(&[
        "server",
        "create",
        "s1",
        "--image",
        "guest",
        "--flavor",
        "m1.tiny",
        "--no-wait",
    ]);
    let task = created["task"]["id"].as_str().unwrap().to_owned();
    let server = created["server"]["meta"]["id"].as_str().unwrap().parse().unwrap();
    until("the start of the guest, in the middle", || {
        world
            .domain(server)
            .unwrap()
            .filter(|d| d.power == skyloom::model::PowerState::Running)
    });

    api.kill();
    let api = Trio::api(dir.path(), trio.port);
    api.line("SKYLOOM_ENDPOINT=");
    engine.kill();
    let engine = trio.engine("e1");
    agent.kill();
    world.heal().unwrap();
    let agent = trio.agent();

    let end = sky.task_end(&task);
    assert_eq!(end["state"], "done", "{end:#}");
    let started = world.effects_of(server).unwrap();
    let starts = started
        .iter()
        .filter(|e| format!("{e:?}").contains("Start"))
        .count();
    assert_eq!(starts, 1, "I4: the guest was started once: {started:?}");
    assert_eq!(sky.json(&["server", "show", "s1"])["status"]["power"], "running");

    // And again, each one alone, right after the request.
    let mut running = [Some(api), Some(engine), Some(agent)];
    for (n, victim) in ["api", "engine", "agent"].into_iter().enumerate() {
        let name = format!("t{n}");
        let created = sky.json(&[
            "server",
            "create",
            &name,
            "--image",
            "guest",
            "--flavor",
            "m1.tiny",
            "--no-wait",
        ]);
        running[n].take().unwrap().kill();
        running[n] = Some(match victim {
            "api" => {
                let api = Trio::api(dir.path(), trio.port);
                api.line("SKYLOOM_ENDPOINT=");
                api
            }
            "engine" => trio.engine("e1"),
            _ => trio.agent(),
        });
        let end = sky.task_end(created["task"]["id"].as_str().unwrap());
        assert_eq!(end["state"], "done", "after the {victim}'s death: {end:#}");
    }
    sky.text(&["server", "delete", "s1", "t0", "t1", "t2", "--yes", "--wait"]);
    assert!(world.domains().unwrap().is_empty());
}

#[test]
fn an_agent_reaches_nothing_but_its_own_host() {
    let dir = tempfile::tempdir().unwrap();
    let (trio, _api) = Trio::first(dir.path());
    let other = trio.sky.json(&["host", "add", "h2"])["host"]["meta"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = reqwest::Client::new();
    let ask = |path: &str, body: Value| {
        let request = client
            .post(format!("{}/v1/store/{path}", trio.sky.endpoint))
            .bearer_auth(&trio.agent_token)
            .json(&body);
        runtime.block_on(async { request.send().await.unwrap().status().as_u16() })
    };
    let me = &trio.host;
    assert_eq!(ask("get", json!({ "key": format!("agents/{me}/status") })), 200);
    for key in [
        format!("agents/{other}/status"),
        format!("lent/{other}/x"),
        "tasks/-/x".into(),
        format!("{me}/x"),
        format!("agents/{me}0/x"),
    ] {
        assert_eq!(ask("get", json!({ "key": key })), 403, "{key}");
    }
    for prefix in [
        "",
        "agents/",
        "jobs/",
        &format!("jobs/{other}/"),
        "secrets/",
        "identity/",
    ] {
        assert_eq!(
            ask("list", json!({ "prefix": prefix, "limit": 10 })),
            403,
            "{prefix:?}"
        );
    }
}
