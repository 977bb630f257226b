//! A guest goes from host to host: two agents, each with its own QEMU processes, over one folder of disks.

use std::path::{Path, PathBuf};

use serde_json::Value;
use skyloom_store::conformance::soak::private_port;

use crate::support::{Process, Sky, Sweep, guest_image, until};

/// A host of the cloud, with its agent's token.
pub(crate) struct Rack {
    dir: PathBuf,
    name: String,
    id: String,
    token: PathBuf,
    endpoint: String,
    /// Where guests of others come in.
    migration: u16,
}

/// API, engine, hosts of those names whose servers' disks lie in one folder, and the image `guest`.
pub(crate) struct Racks {
    pub(crate) sky: Sky,
    pub(crate) racks: Vec<Rack>,
    _api: Process,
    _engine: Process,
}

impl Rack {
    fn add(dir: &Path, sky: &Sky, name: &str) -> Self {
        let added = sky.json(&["host", "add", name]);
        let token = dir.join(format!("{name}-token"));
        std::fs::write(&token, added["token"].as_str().unwrap()).unwrap();
        Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            id: added["host"]["meta"]["id"].as_str().unwrap().to_owned(),
            token,
            endpoint: sky.endpoint.clone(),
            migration: private_port().unwrap(),
        }
    }

    /// Its agent.
    pub(crate) fn agent(&self) -> Process {
        let Self { dir, name, .. } = self;
        let set = [
            format!("store.uri={}", self.endpoint),
            format!("store.token_file={}", self.token.display()),
            format!("agent.host={}", self.id),
            format!("agent.name={name}"),
            format!("agent.data_dir={}", self.folder().display()),
            "agent.disks.id=disks".to_owned(),
            format!("agent.disks.path={}", dir.join("disks").display()),
            "hypervisor.kind=qmp".to_owned(),
            format!("hypervisor.migration=127.0.0.1:{}", self.migration),
        ];
        let args: Vec<&str> = set.iter().flat_map(|s| ["--set", s.as_str()]).collect();
        Process::start("skyloom-agent", &args, &dir.join(format!("{name}.log")))
    }

    /// What is its alone.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// How many QEMU processes it has, also of guests that are coming in: each works in its guest's folder.
    pub(crate) fn guests(&self) -> usize {
        let folder = self.folder();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let within = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
        within.filter(|cwd| cwd.starts_with(&folder)).count()
    }
}

impl Racks {
    pub(crate) fn new(dir: &Path, names: &[&str]) -> Self {
        std::fs::create_dir(dir.join("disks")).unwrap();
        std::fs::write(dir.join("disks/skyloom-disks"), "disks\n").unwrap();
        let (trio, api) = crate::processes::Trio::first(dir);
        let engine = trio.engine("e1");
        let sky = trio.sky;
        sky.json(&["host", "remove", "h1", "--yes"]);
        let racks: Vec<Rack> = names.iter().map(|name| Rack::add(dir, &sky, name)).collect();
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
        Self {
            sky,
            racks,
            _api: api,
            _engine: engine,
        }
    }

    /// Waits until so many hosts can take servers.
    pub(crate) fn ready(&self, hosts: usize) {
        self.sky.until("the hosts", |sky| {
            let known = sky.json(&["host", "list"]);
            let reachable = known.as_array()?.iter();
            let reachable = reachable.filter(|host| host["status"]["reachable"] == true);
            (reachable.count() == hosts).then_some(())
        });
    }

    /// A server that has said its first words, on the only host that can take it now.
    pub(crate) fn server(&self, name: &str) {
        self.sky.json(&[
            "server", "create", name, "--image", "guest", "--flavor", "m1.tiny", "--wait",
        ]);
        self.heard(name, 0);
    }

    /// Waits for a heartbeat after that one; gives its number and the guest's seconds since its boot.
    pub(crate) fn heard(&self, name: &str, after: u64) -> (u64, u64) {
        self.sky.until("the guest's heartbeat", |sky| {
            let text = sky.try_text(&["server", "console", name]).ok()?;
            let last = text.lines().rev().find_map(heartbeat)?;
            (last.0 > after).then_some(last)
        })
    }

    /// Where the record says that it is.
    pub(crate) fn host_of(&self, name: &str) -> String {
        let server = self.sky.json(&["server", "show", name]);
        let host = &server["status"]["placement"]["host_name"];
        host.as_str().unwrap_or_else(|| panic!("{server:#}")).to_owned()
    }
}

/// `skyloom-guest heartbeat n=<n> uptime=<s>`
fn heartbeat(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("skyloom-guest heartbeat n=")?;
    let (n, uptime) = rest.trim_end().split_once(" uptime=")?;
    Some((n.parse().ok()?, uptime.parse().ok()?))
}

fn state(task: &Value) -> &str {
    task["state"].as_str().unwrap()
}

#[test]
fn a_guest_goes_to_another_host_running_and_comes_back_off() {
    let dir = tempfile::tempdir().unwrap();
    let _sweep = Sweep(dir.path().to_owned());
    let cloud = Racks::new(dir.path(), &["a", "b"]);
    let (a, b) = (&cloud.racks[0], &cloud.racks[1]);
    let _agent_a = a.agent();
    cloud.ready(1);
    cloud.server("web-1");
    let _agent_b = b.agent();
    cloud.ready(2);
    assert_eq!((a.guests(), b.guests()), (1, 0));

    // What would be done, and nothing of it.
    let shown = cloud
        .sky
        .json(&["server", "migrate", "web-1", "--live", "--dry-run"]);
    assert_eq!(shown["placement"]["chosen"]["name"], "b", "{shown:#}");
    assert_eq!(cloud.host_of("web-1"), "a");

    let (before, _) = cloud.heard("web-1", 0);
    cloud
        .sky
        .json(&["server", "migrate", "web-1", "--live", "--host", "b", "--wait"]);
    assert_eq!(cloud.host_of("web-1"), "b");
    assert_eq!((a.guests(), b.guests()), (0, 1), "one process, there");
    let (there, uptime) = cloud.heard("web-1", before);
    assert!(
        uptime >= 2 * (there - 1),
        "it has not booted: {there} after {uptime} s"
    );

    cloud
        .sky
        .json(&["server", "migrate", "web-1", "--host", "a", "--force", "--wait"]);
    assert_eq!(cloud.host_of("web-1"), "a");
    assert_eq!((a.guests(), b.guests()), (1, 0), "one process, here");
    until("the guest's next life", || {
        let text = cloud.sky.try_text(&["server", "console", "web-1"]).ok()?;
        text.contains("skyloom-guest ready hostname=web-1").then_some(())
    });

    cloud.sky.json(&["server", "delete", "web-1", "--yes", "--wait"]);
    let left = std::fs::read_dir(dir.path().join("disks/servers"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "its disks are gone from the folder of both");
}

#[test]
fn the_source_agents_death_in_a_live_migration_leaves_one_guest_where_the_record_says() {
    let dir = tempfile::tempdir().unwrap();
    let _sweep = Sweep(dir.path().to_owned());
    let cloud = Racks::new(dir.path(), &["a", "b"]);
    let (a, b) = (&cloud.racks[0], &cloud.racks[1]);
    let agent = a.agent();
    cloud.ready(1);
    cloud.server("web-1");
    let _other = b.agent();
    cloud.ready(2);
    let (before, _) = cloud.heard("web-1", 0);
    let asked = cloud
        .sky
        .json(&["server", "migrate", "web-1", "--live", "--no-wait"]);
    let task = asked["task"]["id"].as_str().unwrap();
    // Under way: from its plan on until nothing of it is left at the source.
    cloud.sky.until("the migration", |sky| {
        let server = sky.json(&["server", "show", "web-1"]);
        (!server["status"]["migration"].is_null()).then_some(())
    });
    agent.kill();
    let _agent = a.agent();
    let end = cloud.sky.task_end(task);
    assert!(["done", "failed"].contains(&state(&end)), "{end:#}");
    let host = cloud.host_of("web-1");
    assert_eq!(host, if state(&end) == "done" { "b" } else { "a" }, "{end:#}");
    let on = |name: &str| usize::from(host == name);
    assert_eq!(
        (a.guests(), b.guests()),
        (on("a"), on("b")),
        "one process, where the record says: {end:#}"
    );
    let (n, uptime) = cloud.heard("web-1", before);
    assert!(uptime >= 2 * (n - 1), "it has not booted: {n} after {uptime} s");
    assert_eq!(
        cloud.sky.json(&["server", "show", "web-1"])["status"]["power"],
        "running"
    );
}
